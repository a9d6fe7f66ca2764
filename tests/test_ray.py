"""An index whose texts were encoded on a Ray cluster is that of one process, node lost or not."""

import os
import socket
import sys
import time
from pathlib import Path

import pytest

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # Ray then keeps to the loopback address
ray = pytest.importorskip("ray", reason="needs the extra: pip install '.[ray]'")
pytest.importorskip("ray.data", reason="needs the extra: pip install '.[ray]'")

from conftest import REPOSITORY
from faults import FEW
from ray.cluster_utils import Cluster

from assistant import calibrate, cluster, generations
from assistant.build import build, encoded_by, one_process
from assistant.cli import main
from assistant.cluster import RayEngine
from assistant.errors import IndexUnusable, UsageError
from assistant.settings import Settings

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(280)]
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
SOON = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500}


class Slow(cluster.Actor):
    """Leave a mark of the node that a part was encoded on; one node waits for the other."""

    def __call__(self, part):
        marks = Path(os.environ["MARKS"])
        (marks / ray.get_runtime_context().get_node_id()).touch()
        for _ in range(600):
            time.sleep(0.1)
            if len(list(marks.iterdir())) == 2:
                break
        return super().__call__(part)


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory):
    """A cluster of two nodes on this machine; yields it, its second node and where marks lie."""
    marks = tmp_path_factory.mktemp("marks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("MARKS", str(marks))
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
        head = {**NODE, "include_dashboard": False, "_system_config": SOON}
        started = Cluster(initialize_head=True, head_node_args=head)
        second = started.add_node(**NODE)
        started.wait_for_nodes()
        ray.init(address=started.address, log_to_driver=False, logging_level="ERROR")
        yield started, second, marks
        ray.shutdown()
        started.shutdown()


def engine(encoder, fingerprint=None):
    return RayEngine(Settings(), fingerprint or encoder.fingerprint, encoder.dimensions)


def files(settings):
    """Return the bytes of an index's files, less what has a time or a random name in it."""
    folder = generations.current(settings.index).generation.folder
    paths = (path for path in folder.iterdir() if path.is_file())
    return {path.name: path.read_bytes() for path in paths if path.name != "manifest.json"}


def test_another_model_on_a_node_is_refused(two_nodes, encoder):
    with pytest.raises(IndexUnusable, match="another model of this name"):
        list(engine(encoder, "the fingerprint of another")(["甲", "乙"]))


def test_a_node_lost_during_the_run_changes_nothing(two_nodes, guide, encoder, tmp_path):
    started, second, marks = two_nodes
    seen = []

    def losing(texts):
        for begin, vectors in engine(encoder)(texts):
            seen.append(len(vectors))
            if len(list(marks.iterdir())) == 2 and second in started.worker_nodes:
                started.remove_node(second, allow_graceful=False)
                assert sum(seen) < len(texts), "it has to be lost during the run"
            yield begin, vectors

    with pytest.MonkeyPatch.context() as patch:
        for name, few in FEW.items():
            patch.setattr(calibrate, name, few)
        patch.setattr(cluster, "Actor", Slow)
        whole, there = (
            guide.model_copy(update={"index": tmp_path / name}) for name in ("whole", "there")
        )
        build(whole, encoder, source=encoded_by(one_process(encoder), encoder, whole))
        report = build(there, encoder, source=encoded_by(losing, encoder, there))
    assert second not in started.worker_nodes
    assert report.encoded == report.views
    assert files(there) == files(whole)


def test_without_the_extra_it_is_named(monkeypatch, capsys):
    cluster._library.cache_clear()
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["build", "--engine", "ray", "--corpus", str(REPOSITORY / "corpus")]) == 2
    assert "pip install '.[ray]'" in capsys.readouterr().err
    cluster._library.cache_clear()


def test_a_cluster_that_is_not_there_is_named_at_once(monkeypatch, encoder):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        started = time.monotonic()
        with pytest.raises(UsageError, match=f"RAY_ADDRESS = '{address}'.*ray start --head"):
            list(engine(encoder)(["甲"]))
        assert time.monotonic() - started < 8
