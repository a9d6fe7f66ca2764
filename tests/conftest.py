"""Shared fixtures: a clean environment, the shipped model, small guides and their indexes."""

import os
import shutil
from pathlib import Path

import hypothesis
import pytest

# Timings are benchmarks, never tests: a busy machine fails nothing. Nor does chance: a version
# that passes passes again. `make fuzz` looks for what is still unknown, with other examples.
_SLOW = [hypothesis.HealthCheck.too_slow]
_CALM = hypothesis.settings(deadline=None, suppress_health_check=_SLOW)
hypothesis.settings.register_profile("calm", _CALM, derandomize=True, database=None)
hypothesis.settings.register_profile("fuzz", _CALM)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "calm"))

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
for name in [name for name in os.environ if name.startswith("ASSISTANT_")]:
    del os.environ[name]

from assistant.build import build
from assistant.desk import Desk
from assistant.embed import open_encoder
from assistant.settings import Settings

REPOSITORY = Path(__file__).parent.parent
SHARED = REPOSITORY.parent / "shared"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Run every test in an empty folder, so that none can touch the checkout."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def encoder():
    return open_encoder(Settings())


@pytest.fixture
def settings(tmp_path):
    """Settings over a copy of the shipped guide, with an index folder of its own."""
    shutil.copytree(REPOSITORY / "corpus", tmp_path / "corpus")
    return Settings(corpus=tmp_path / "corpus", index=tmp_path / "index")


@pytest.fixture(scope="session")
def guide(tmp_path_factory, encoder):
    """Settings of a built index over the shipped guide; read only."""
    folder = tmp_path_factory.mktemp("guide")
    shutil.copytree(REPOSITORY / "corpus", folder / "corpus")
    settings = Settings(corpus=folder / "corpus", index=folder / "index")
    build(settings, encoder)
    return settings


@pytest.fixture(scope="session")
def desk(guide, encoder):
    return Desk(guide, encoder)
