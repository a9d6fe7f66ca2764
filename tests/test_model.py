"""The shipped model: whole, small, documented, packaged, and good at what its card claims."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from glob import glob

import numpy as np
import pytest
from conftest import REPOSITORY, SHARED

sys.path.insert(0, str(REPOSITORY / "scripts"))

import evaluate_embedder

from assistant.settings import SHIPPED_MODEL

CARD = (SHIPPED_MODEL / "README.md").read_text("utf-8")
FIGURES = json.loads(SHIPPED_MODEL.with_suffix(".evaluation.json").read_text("utf-8"))


def test_the_checksums_cover_every_file_that_is_loaded():
    lines = (SHIPPED_MODEL / "SHA256SUMS").read_text().splitlines()
    listed = {name: digest for digest, name in (line.split("  ") for line in lines)}
    loaded = {
        str(path.relative_to(SHIPPED_MODEL))
        for path in SHIPPED_MODEL.rglob("*")
        if path.suffix in {".json", ".safetensors"}
    }
    assert set(listed) == loaded
    for name, digest in listed.items():
        assert hashlib.sha256((SHIPPED_MODEL / name).read_bytes()).hexdigest() == digest, name


def test_the_folder_is_at_most_25_megabytes():
    assert sum(p.stat().st_size for p in SHIPPED_MODEL.rglob("*") if p.is_file()) <= 25_000_000


def test_padding_and_unknown_tokens_weigh_nothing(encoder):
    """Or texts with unknown characters would drown in them."""
    plain = encoder.encode_queries(["退款多久到账"])
    assert np.array_equal(plain, encoder.encode_queries(["☃退款☃☃多久到账☃"]))


MEANT = [
    ("钱充进去了余额没变", "充值没有到账怎么处理", "如何修改登录密码"),
    ("How do I reset my password?", "忘记密码后怎样重新设置", "怎样联系人工客服"),
    ("客服專線幾號", "客服电话是多少", "提现手续费是多少"),
    ("花呗怎么关掉", "如何关闭花呗", "花呗额度怎么提升"),
    ("一名男子在弹吉他", "有个男人正在弹奏吉他", "一个女人在切洋葱"),
    ("手机充不进电咋办", "手机无法充电是什么原因", "手机屏幕多少钱"),
]


@pytest.mark.parametrize(("asked", "same", "other"), MEANT)
def test_the_same_meaning_is_nearer_than_another(encoder, asked, same, other):
    query, near, far = encoder.encode_queries([asked, same, other])
    assert query @ near > query @ far + 0.1


SHOWN = {
    "AFQMC similarity": "sts/afqmc_validation",
    "LCQMC similarity": "sts/lcqmc_test",
    "STS-B test": "sts/stsb_test",
    "CMRC2018 MRR@10": "cmrc2018_dev/mrr@10",
    "DRCD MRR@10": "drcd_test/mrr@10",
    "AFQMC retrieval MRR@10": "afqmc_dev/mrr@10",
    "BQ retrieval MRR@10": "bq_test/mrr@10",
    "held-out intents, right passage first": "held-out intents/hit@1",
    "held-out intents, in the first five": "held-out intents/hit@5",
    "English to Chinese, unseen source, recall@5": "en to zh, unseen source/recall@5",
    "a short query, µs (the best of some rounds)": "speed/query_us",
    "passages a second, one core (the same)": "speed/passages_per_s",
}


@pytest.mark.parametrize("row", SHOWN)
def test_every_figure_of_the_card_is_that_of_the_evaluation(row):
    (shown,) = re.findall(rf"^\| {re.escape(row)} \| \*\*([\d.]+)\*\* \|", CARD, re.MULTILINE)
    places = len(shown.partition(".")[2])
    assert f"{FIGURES[SHOWN[row]]:.{places}f}" == shown


if (SHARED / "training").is_dir():  # the evaluation sets are not part of the repository

    def test_the_evaluation_is_that_of_the_shipped_model(encoder):
        folder = SHARED / "training" / "eval"
        for name in ("afqmc_validation", "stsb_test"):
            seen = evaluate_embedder.similarity(encoder, folder / "sts" / f"{name}.tsv.gz")
            assert seen == pytest.approx(FIGURES[f"sts/{name}"], abs=0.01)
        seen = evaluate_embedder.retrieval(encoder, folder / "cmrc2018_dev")["mrr@10"]
        assert seen == pytest.approx(FIGURES["cmrc2018_dev/mrr@10"], abs=1e-4)


def test_the_package_holds_the_model_and_the_other_data():
    """What the patterns of pyproject.toml take in, read as setuptools reads them."""
    package = REPOSITORY / "assistant"
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["assistant"]
    packed = {path for p in patterns for path in glob(str(package / p), recursive=True)}
    for folder in ("models", "data", "web/static"):
        held = {str(path) for path in (package / folder).rglob("*") if path.is_file()}
        assert held
        assert held <= packed


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return the programs of a clean environment that has the built wheel and nothing of ours.

    The packages that it depends on are those of this environment, put last on its path.
    """
    folder = tmp_path_factory.mktemp("installed")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, folder)
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "assistant", folder / "assistant", ignore=unwanted)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    clean = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    build = ["wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", folder / "dist"]
    subprocess.run([*pip, *build, folder], check=True, timeout=240, env=clean)
    shutil.rmtree(folder / "assistant")
    venv.create(folder / "clean", symlinks=True)
    python = folder / "clean" / "bin" / "python"
    (wheel,) = (folder / "dist").glob("guide_assistant-*.whl")
    into = ["--python", python, "install", "--no-deps", "--no-index", wheel]
    subprocess.run([*pip, *into], check=True, timeout=240, env=clean)
    own = (folder / "clean" / "lib").glob("python*/site-packages")
    (next(own) / "others.pth").write_text(sysconfig.get_path("purelib"))
    return python.parent


WITHOUT_NETWORK = """
import socket, sys
def refuse(*_): raise OSError("no network")
socket.socket.connect = socket.getaddrinfo = refuse
"""


def test_the_built_wheel_embeds_without_network_in_a_clean_environment(installed, encoder):
    code = WITHOUT_NETWORK + (
        "from assistant.embed import open_encoder\n"
        "from assistant.settings import SHIPPED_MODEL, Settings\n"
        "rows = open_encoder(Settings()).encode_queries(['充值没到账怎么办'])\n"
        "print(SHIPPED_MODEL, rows.astype('<f4').tobytes().hex())"
    )
    done = subprocess.run(
        [installed / "python", "-I", "-c", code], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    place, vector = done.stdout.split()
    assert place.startswith(str(installed.parent))
    expected = encoder.encode_queries(["充值没到账怎么办"])
    assert np.array_equal(np.frombuffer(bytes.fromhex(vector), "<f4"), expected[0])


def test_the_built_wheel_builds_an_index_and_answers_without_network(installed, tmp_path):
    (tmp_path / "guide").mkdir()
    text = "# 水果\n\n## 苹果\n\n苹果放在冰箱里保存。\n\n## 香蕉\n\n香蕉挂在架子上通风。\n"
    (tmp_path / "guide" / "a.md").write_text(text, "utf-8")
    code = WITHOUT_NETWORK + "from assistant.cli import main\nsys.exit(main(sys.argv[1:]))"
    asked = ["ask", "苹果怎么保存", "--json", "--corpus", "guide", "--index", "index"]
    done = subprocess.run(
        [installed / "python", "-I", "-c", code, *asked],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["quotes"][0]["text"] == "苹果放在冰箱里保存。"
    assert (installed / "assistant").exists()
