"""A corpus embedded in parts gives the index of one process, or says which part is amiss."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from fakes import CharacterEncoder
from faults import FEW
from hypothesis import given
from hypothesis import strategies as st

from assistant import calibrate, generations
from assistant.build import build, one_process
from assistant.cli import main
from assistant.desk import Desk
from assistant.errors import IndexUnusable, UsageError
from assistant.records import Document
from assistant.settings import Settings
from assistant.shards import Shard, joined, make

NOT_THE_SAME = {"manifest.json"}  # it has the time, and the names of tantivy's files
QUESTIONS = ("事情3怎么办", "三号事", "说明7", "确认一次", "天气")


@pytest.fixture(autouse=True)
def _few_probes(monkeypatch):
    for name, few in FEW.items():
        monkeypatch.setattr(calibrate, name, few)


@pytest.fixture
def settings(tmp_path):
    """Settings over a guide of some files, with questions of one file about another's passage."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for i in range(9):
        text = (
            f"# 主题{i}\n\n第{i}件事情要这样办理。然后再确认一次{i}。\n\n## 细节{i}\n\n说明{i}。\n"
        )
        (folder / f"f{i}.md").write_text(text, "utf-8")
    (folder / "same.md").write_text((folder / "f1.md").read_text("utf-8"), "utf-8")
    entry = '- questions: ["怎么办第三件", "三号事"]\n  passage: f3.md#主题3\n'
    (folder / "more.qa.yaml").write_text(entry, "utf-8")
    return Settings(corpus=folder, index=tmp_path / "index")


def make_all(settings, place, count, encoder=None):
    encoder = encoder or CharacterEncoder()
    engine = one_process(encoder)
    parts = [Shard(number, count) for number in range(1, count + 1)]
    return [make(part, place, settings, encoder, engine) for part in parts]


def merge(settings, place, encoder=None):
    encoder = encoder or CharacterEncoder()
    return build(settings, encoder, source=joined(place, settings, encoder))


def files(settings):
    """Return the bytes of an index's files; those of tantivy are compared by what they find."""
    folder = generations.current(settings.index).generation.folder
    paths = (path for path in folder.iterdir() if path.is_file())
    return {path.name: path.read_bytes() for path in paths if path.name not in NOT_THE_SAME}


def answers(settings):
    desk = Desk(settings, CharacterEncoder())
    shown = (repr(desk.ask(question)) for question in QUESTIONS)
    return [text.split("elapsed_ms")[0].replace(desk.generation, "") for text in shown]


@given(st.binary(min_size=32, max_size=32), st.integers(1, 50))
def test_every_document_falls_to_one_part(digest, count):
    document = Document("a.md", "", "", "markdown", digest.hex())
    having = [n for n in range(1, count + 1) if Shard(n, count).has(document)]
    assert len(having) == 1


@pytest.mark.parametrize("count", [1, 3, 40])
def test_joined_parts_are_the_index_of_one_process(settings, tmp_path, count):
    whole = settings.model_copy(update={"index": tmp_path / "whole"})
    first = build(whole, CharacterEncoder())
    made = make_all(settings, tmp_path / "parts", count)
    assert sum(one.documents for one in made) == 10
    assert sum(one.views for one in made) == first.views
    encoder = CharacterEncoder()
    report = merge(settings, tmp_path / "parts", encoder)
    assert (report.reused, report.encoded) == (first.views, 0)
    assert not [text for text in encoder.encoded if "主题" in text]
    assert files(settings) == files(whole)
    assert answers(settings) == answers(whole)


def test_the_shipped_guide_in_parts_by_the_command_line(guide, encoder, tmp_path, capsys):
    where = ["--corpus", str(guide.corpus), "--index", str(tmp_path / "index")]
    place = str(tmp_path / "parts")
    for part in ("1/2", "2/2", "2/2"):
        assert main(["build", "--shard", part, "--out", place, *where]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[1].startswith("shard 2/2: ")
    assert [line.endswith("finished before") for line in said] == [False, False, True]
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "scripts" / "build_index.py"), "--merge", place, *where],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    settings = guide.model_copy(update={"index": tmp_path / "index"})
    one, other = (Desk(each, encoder) for each in (guide, settings))
    every = range(one.index.view_count)
    assert np.array_equal(one.index._store.vectors(every), other.index._store.vectors(every))


def test_a_finished_part_is_left_alone_and_another_is_made_anew(settings, tmp_path):
    make_all(settings, tmp_path, 2)
    encoder = CharacterEncoder()
    assert [one.seconds for one in make_all(settings, tmp_path, 2, encoder)] == [None, None]
    assert encoder.encoded == []
    path = settings.corpus / "f5.md"
    path.write_text("# 主题5\n\n现在换了说法。\n", "utf-8")
    again = make_all(settings, tmp_path, 2, encoder)
    assert any(one.seconds is not None for one in again)
    merge(settings, tmp_path)


DAMAGES = {
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "half a file": lambda folder: (folder / "vectors.npy").write_bytes(
        (folder / "vectors.npy").read_bytes()[:100]
    ),
    "one bit": lambda folder: (folder / "vectors.npy").write_bytes(
        (folder / "vectors.npy").read_bytes()[:-1] + b"\x07"
    ),
    "gone": shutil.rmtree,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_part_that_is_not_whole_is_named_and_made_anew(settings, tmp_path, damage):
    make_all(settings, tmp_path / "parts", 2)
    DAMAGES[damage](tmp_path / "parts" / "2-of-2")
    state = "missing" if damage == "gone" else "damaged"
    with pytest.raises(IndexUnusable, match=rf"shard 2/2 is {state}.*--shard 2/2 --out .*parts"):
        merge(settings, tmp_path / "parts")
    assert generations.history(settings.index) == []
    again = make_all(settings, tmp_path / "parts", 2)
    assert [one.seconds is None for one in again] == [True, False]
    merge(settings, tmp_path / "parts")


CODE = """
import json, sys
from pathlib import Path
from faults import *
from assistant.build import one_process
from assistant.shards import Shard, make
folder, found = Path(sys.argv[1]), {}
settings = Settings(corpus=folder / "corpus", index=folder / "index")
encoder, part = CharacterEncoder(), Shard(1, 2)

def attempt(at):
    trap = Trap(at, "kill")
    sys.addaudithook(trap.audit)
    os.fsync = trap.fsync
    trap.armed = True
    made = make(part, folder / "parts", settings, encoder, one_process(encoder))
    trap.armed = False
    return int(made.seconds is None)

for at in range(1, 100):
    code, _ = forked(lambda: attempt(at))
    state = "made" if (folder / "parts" / "1-of-2").exists() else "none"
    again, _ = forked(lambda: attempt(0))
    found[at] = [code, state, again, sorted(p.name for p in (folder / "parts").glob("[!.]*"))]
    shutil.rmtree(folder / "parts")
    if code == 0:
        break
print(json.dumps(found))
"""


def test_killed_at_any_step_a_part_is_whole_or_made_anew(settings):
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(settings.corpus.parent)],
        env={"PYTHONPATH": f"{Path(__file__).parent}:{REPOSITORY}", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout).values()
    assert len(found) >= 8
    assert {state for _, state, *_ in found} == {"none", "made"}
    for code, state, finished_before, left in found:
        assert code in (0, -9)
        assert finished_before == (state == "made")
        assert left == ["1-of-2"]


def test_parts_of_another_model_setting_or_guide_are_refused_by_name(settings, tmp_path):
    make_all(settings, tmp_path / "parts", 2)
    with pytest.raises(IndexUnusable, match=r"shard 1/2 was made with encoder_sha256 = .*salt"):
        other = CharacterEncoder(salt="salt")
        merge(settings, tmp_path / "parts", other)
    with pytest.raises(IndexUnusable, match="shard 1/2 was made with chunk_chars = '400'"):
        merge(settings.model_copy(update={"chunk_chars": 300}), tmp_path / "parts")
    questions = settings.corpus / "more.qa.yaml"
    asked = questions.read_text("utf-8")
    questions.write_text(asked.replace("三号事", "三号"), "utf-8")
    with pytest.raises(IndexUnusable, match=r"shard ./2 holds other search texts of f3\.md"):
        merge(settings, tmp_path / "parts")
    questions.write_text(asked, "utf-8")
    (settings.corpus / "f4.md").write_text("# 主题4\n\n换了。\n", "utf-8")
    with pytest.raises(IndexUnusable, match=r"shard ./2 is of another corpus: f4\.md"):
        merge(settings, tmp_path / "parts")
    (settings.corpus / "f4.md").unlink()
    with pytest.raises(IndexUnusable, match=r"shard ./2 is of another corpus: f4\.md"):
        merge(settings, tmp_path / "parts")
    assert generations.history(settings.index) == []


def test_parts_of_two_counts_or_none_are_wrong_use(settings, tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match=r"no shards in .*none"):
        merge(settings, tmp_path / "none")
    make_all(settings, tmp_path / "parts", 2)
    make_all(settings, tmp_path / "parts", 3)
    with pytest.raises(UsageError, match="shards of 2 and of 3"):
        merge(settings, tmp_path / "parts")


@pytest.mark.parametrize(
    "given",
    [
        ["--shard", "0/2", "--out", "x"],
        ["--shard", "3/2", "--out", "x"],
        ["--shard", "two", "--out", "x"],
        ["--shard", "1/2"],
        ["--out", "x"],
        ["--shard", "1/2", "--out", "x", "--merge", "x"],
    ],
)
def test_parts_that_cannot_be_are_wrong_use(given, settings, capsys):
    where = ["--corpus", str(settings.corpus), "--index", str(settings.index)]
    assert main(["build", *given, *where]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_parts_join_into_milvus_too(settings, tmp_path):
    pytest.importorskip("pymilvus", reason="needs the extra: pip install '.[milvus]'")
    pytest.importorskip("milvus_lite", reason="needs a server to try: pip install milvus-lite")
    there = {"store": "milvus", "milvus_uri": str(tmp_path / "m.db"), "milvus_seconds": 20}
    away = settings.model_copy(update={"index": tmp_path / "away", **there})
    build(settings, CharacterEncoder())
    make_all(settings, tmp_path / "parts", 3)
    merge(away, tmp_path / "parts")
    one, other = (Desk(each, CharacterEncoder()) for each in (settings, away))
    assert np.array_equal(one.index._store.matrix(), other.index._store.matrix())
    for question in QUESTIONS:
        mine, its = one.search(question, 5), other.search(question, 5)
        assert [hit.chunk for hit in mine] == [hit.chunk for hit in its]
        assert [hit.score for hit in mine] == pytest.approx([hit.score for hit in its])
