"""Law 7 under fire: whatever fails at whatever step, the index is the old one or the new one."""

import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fakes import CharacterEncoder
from faults import FEW, NEW, OLD, settings_of, state, write_guide

from assistant import calibrate, generations
from assistant.build import build
from assistant.desk import Desk
from assistant.errors import AssistantError, BuildBusy, IndexUnusable, NoIndex
from assistant.search import Index

FAULTS = Path(__file__).parent / "faults.py"


@pytest.fixture(autouse=True)
def _few_probes(monkeypatch):
    for name, few in FEW.items():
        monkeypatch.setattr(calibrate, name, few)


@pytest.mark.parametrize(
    ("scenario", "mode"),
    [("first", "kill"), ("second", "kill"), ("second", "once"), ("second", "sticky")],
)
def test_every_step_of_a_build_may_be_the_last(tmp_path, scenario, mode):
    """Kill, or run out of space, before each file-system step; then build again."""
    done = subprocess.run(
        [sys.executable, str(FAULTS), str(tmp_path), scenario, mode],
        capture_output=True,
        text=True,
        timeout=280,
    )
    found = json.loads(done.stdout)
    print(f"{scenario} {mode}: {found['steps']} steps, left {found['states']}")
    assert found["problems"] == []
    assert found["steps"] >= 30
    assert len(found["states"]) >= 2, "both outcomes must have been seen"


def built(folder, sentence):
    write_guide(folder, sentence)
    return build(settings_of(folder), CharacterEncoder())


@pytest.fixture
def two(tmp_path):
    """A folder with two generations: the old one, and the new one in use."""
    built(tmp_path, OLD)
    built(tmp_path, NEW)
    return tmp_path


def index_files(folder):
    generation = generations.current(folder / "index").generation
    return [*generation.manifest.files, generations.MANIFEST]


def damages(path: Path, other: Path):
    """Yield (name, bytes or None for deletion) of every way to damage a file."""
    data = path.read_bytes()
    yield "deleted", None
    if data:
        yield "emptied", b""
        yield "halved", data[: len(data) // 2]
        yield "one byte short", data[:-1]
        yield "zeroed", b"\0" * len(data)
        seeded = random.Random(path.name)
        for _ in range(8):
            bit = seeded.randrange(len(data) * 8)
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            yield f"bit {bit} flipped", bytes(flipped)
    yield "bytes appended", data + b"x"
    if other.exists() and other.read_bytes() != data:
        yield "swapped", other.read_bytes()


def test_every_damage_to_every_file_is_seen_and_the_generation_before_serves(two):
    root = two / "index"
    now = generations.current(root).generation
    before = next(root / "generations" / n for n in generations.history(root) if n != now.id)
    tried = 0
    for name in index_files(two):
        path = now.folder / name
        kept = path.read_bytes()
        for damage, data in damages(path, before / name):
            if data is None:
                path.unlink()
            else:
                path.write_bytes(data)
            tried += 1
            opened = generations.current(root)
            assert opened.generation.id == before.name, (name, damage)
            assert name in opened.notes[0], (name, damage)
            assert "assistant build" in opened.notes[0]
            path.write_bytes(kept)
    print(f"{tried} damages to {len(index_files(two))} files")
    assert generations.current(root).generation.id == now.id


def test_a_strange_or_linked_file_is_refused(two):
    now = generations.current(two / "index").generation
    (now.folder / "extra.bin").write_bytes(b"x")
    assert "extra.bin" in generations.current(two / "index").notes[0]
    (now.folder / "extra.bin").unlink()
    (now.folder / "rows.i32").rename(two / "rows.i32")
    (now.folder / "rows.i32").symlink_to(two / "rows.i32")
    assert "rows.i32" in generations.current(two / "index").notes[0]


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"../../etc/passwd\n", b"999999-deadbeef\n", b"\xff\xfe"]
)
def test_a_damaged_pointer_falls_back_and_says_so(two, content):
    (two / "index" / "CURRENT").write_bytes(content)
    opened = generations.current(two / "index")
    assert opened.generation.id == generations.history(two / "index")[-1]
    assert opened.notes
    assert state(two) == "new, with a note"
    built(two, NEW)
    assert state(two) == "new"


def test_when_everything_is_damaged_the_error_names_the_file_and_never_says_no_index(two):
    for name in generations.history(two / "index"):
        (two / "index" / "generations" / name / "vectors.faiss").write_bytes(b"")
    with pytest.raises(IndexUnusable, match=r"vectors\.faiss.*assistant build") as caught:
        generations.current(two / "index")
    assert not isinstance(caught.value, NoIndex)
    shutil.rmtree(two / "index" / "generations")
    with pytest.raises(IndexUnusable, match=r"manifest\.json is missing") as caught:
        generations.current(two / "index")
    assert not isinstance(caught.value, NoIndex)


def test_a_newer_format_is_refused_by_version(two):
    now = generations.current(two / "index").generation
    path = now.folder / generations.MANIFEST
    values = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**values, "format": 99}), "utf-8")
    assert "format 99, this program reads up to" in generations.current(two / "index").notes[0]


FACTS = {
    "encoder_sha256": "another model of the same dimensions",
    "dimensions": "65",
    "normalised": "false",
    "chunk_chars": "123",
    "precision": "float16",
    "tables": "0",
}


@pytest.mark.parametrize("fact", FACTS)
def test_an_index_of_another_model_or_setting_is_refused_with_both_values(two, fact):
    for name in generations.history(two / "index"):
        path = two / "index" / "generations" / name / generations.MANIFEST
        values = json.loads(path.read_text("utf-8"))
        del values["seal"]
        values["facts"][fact] = FACTS[fact]
        path.write_text(generations._sealed(values), "utf-8")
    with pytest.raises(IndexUnusable, match=f"{fact} = '{FACTS[fact]}'.*assistant build"):
        Desk(settings_of(two), CharacterEncoder())


def test_another_model_of_the_same_dimensions_is_refused(two):
    with pytest.raises(IndexUnusable, match="encoder_sha256"):
        Desk(settings_of(two), CharacterEncoder(salt="other"))


def test_tables_of_two_generations_do_not_mix(two):
    """Law 4: even with right hashes, tables out of step are refused."""
    root = two / "index"
    write_guide(two, "另外加上很多句子。再来一句。还有一句话。")
    build(settings_of(two), CharacterEncoder())
    now = generations.current(root).generation
    other = next(
        root / "generations" / n for n in reversed(generations.history(root)) if n != now.id
    )
    for names in (("views.jsonl", "views.ends"), ("vectors.faiss",), ("rows.i32",)):
        kept = {name: (now.folder / name).read_bytes() for name in names}
        for name in names:
            (now.folder / name).write_bytes((other / name).read_bytes())
        with pytest.raises(IndexUnusable, match="out of step"):
            Index(now.folder, CharacterEncoder(), settings_of(two))
        for name, data in kept.items():
            (now.folder / name).write_bytes(data)


def test_rollback_goes_to_the_generation_before(two):
    assert state(two) == "new"
    generations.rollback(two / "index")
    assert state(two) == "old"
    with pytest.raises(IndexUnusable, match="no earlier generation"):
        generations.rollback(two / "index")


def test_what_was_rolled_back_from_is_never_rolled_back_to(two):
    """Old, new, back to old, newest: the way back from the newest leads to the old one."""
    generations.rollback(two / "index")
    old = generations.pointer(two / "index")
    built(two, NEW + "最新的一句话。")
    assert generations.rollback(two / "index").id == old


def test_only_the_kept_generations_stay(two):
    for _ in range(3):
        built(two, NEW)
    listed = generations.history(two / "index")
    assert len(listed) == 2
    assert listed == sorted(listed)
    assert listed[-1].startswith("000005-")


def test_ids_rise_though_the_clock_falls(two, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert built(two, NEW).generation > generations.history(two / "index")[0]


HOLD = """
import sys, time
from pathlib import Path
from assistant import generations
with generations.build(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_builder_is_told_since_when_and_a_dead_one_frees_the_lock(two):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(two / "index")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(
            BuildBusy, match=rf"already running .* since \d{{4}}-.*pid {holder.pid}"
        ):
            built(two, NEW)
        assert state(two) == "new"
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    built(two, OLD)
    assert state(two) == "old"


def test_of_many_builders_at_once_one_builds_and_the_others_say_so(tmp_path):
    write_guide(tmp_path, OLD)
    outcomes = []

    def run():
        try:
            build(settings_of(tmp_path), CharacterEncoder())
            outcomes.append("built")
        except BuildBusy:
            outcomes.append("busy")

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(outcomes) <= {"built", "busy"}
    assert "built" in outcomes
    assert state(tmp_path) == "old"


def test_readers_see_whole_generations_while_builds_run(tmp_path):
    """Ten builds under eight asking threads: every answer is of one guide, none fails."""
    built(tmp_path, OLD)
    settings, encoder = settings_of(tmp_path), CharacterEncoder()
    desk = Desk(settings, encoder)
    stop, wrong, asked, seen = threading.Event(), [], [0], set()

    def ask():
        while not stop.is_set():
            try:
                answer = desk.ask("提现手续费是多少")
                text = answer.quotes[0].text
                if (OLD in text) == (NEW in text):
                    wrong.append(text)
                seen.add(answer.generation)
                asked[0] += 1
                Desk(settings, encoder)
            except BaseException as error:
                wrong.append(repr(error))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for i in range(10):
        built(tmp_path, OLD if i % 2 else NEW)
    stop.set()
    for thread in threads:
        thread.join()
    print(f"{asked[0]} asks over {len(seen)} generations")
    assert wrong == []
    assert len(seen) > 2


def test_a_guide_edited_during_builds_is_read_whole_or_named(tmp_path):
    """Every document of a generation is one version of its file: the one in the manifest."""
    write_guide(tmp_path, OLD)
    settings, encoder = settings_of(tmp_path), CharacterEncoder()
    versions = {f"# 费用\n\n{word * 5000}{word}。\n".encode() for word in ("甲", "乙", "丙丁")}
    path = settings.corpus / "busy.md"
    path.write_bytes(next(iter(versions)))
    done = threading.Event()
    seeded = random.Random(7)

    def edit():
        while not done.is_set():
            for version in versions:
                path.write_bytes(version)
                time.sleep(seeded.uniform(0, 0.3))

    writer = threading.Thread(target=edit, daemon=True)
    writer.start()
    seen = set()
    for _ in range(10):
        report = build(settings, encoder)
        generation = generations.current(settings.index).generation
        document = Index(generation.folder, encoder, settings).document("busy.md")
        if document is None:
            assert [one.path for one in report.skipped] == ["busy.md"]
            continue
        assert document.text.encode() in versions
        assert document.sha256 == hashlib.sha256(document.text.encode()).hexdigest()
        assert generation.manifest.corpus["busy.md"] == document.sha256
        seen.add(document.sha256)
    done.set()
    writer.join()
    assert seen


def test_killed_at_random_times_nothing_is_torn(two):
    """Real processes, real timing: SIGKILL after a random part of a build."""
    code = "from faults import *; build(settings_of(Path(sys.argv[1])), CharacterEncoder())"
    seeded = random.Random(7)
    environment = {**os.environ, "PYTHONPATH": str(FAULTS.parent)}
    for i in range(8):
        write_guide(two, OLD if i % 2 else NEW)
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(two)], env=environment, stderr=subprocess.DEVNULL
        )
        time.sleep(seeded.uniform(0.8, 3.0))
        child.kill()
        child.wait()
        assert state(two) in {"old", "new"}
    built(two, NEW)
    assert state(two) == "new"
    assert not list((two / "index" / "generations").glob("*.tmp"))


def test_a_file_size_limit_leaves_the_old_index_and_a_clear_error(two):
    """RLIMIT_FSIZE stands in for a full disk where nothing can be mounted."""

    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))

    write_guide(two, OLD)
    code = (
        "from faults import *\n"
        "try: build(settings_of(Path(sys.argv[1])), CharacterEncoder())\n"
        "except AssistantError as error: print(error); sys.exit(error.exit_code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(two)],
        env={**os.environ, "PYTHONPATH": str(FAULTS.parent)},
        preexec_fn=limited,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (3, False), done
    assert "The index in use is unchanged" in done.stdout
    assert state(two) == "new"


def mounted(folder, kilobytes):
    folder.mkdir(exist_ok=True)
    return (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)],
            capture_output=True,
        ).returncode
        == 0
    )


def test_a_full_disk_of_any_size_leaves_the_old_index_and_a_clear_error(tmp_path):
    disk = tmp_path / "disk"
    if os.geteuid() != 0 or shutil.which("mount") is None or not mounted(disk, 4096):
        pytest.skip("mounting a small tmpfs needs root")
    subprocess.run(["umount", str(disk)], check=True)
    outcomes = set()
    for kilobytes in range(64, 513, 64):
        assert mounted(disk, kilobytes)
        try:
            write_guide(tmp_path, OLD)
            settings = settings_of(tmp_path).model_copy(update={"index": disk / "index"})
            for sentence in (OLD, NEW, NEW):
                write_guide(tmp_path, sentence)
                try:
                    build(settings, CharacterEncoder())
                    outcomes.add("built")
                except AssistantError as error:
                    outcomes.add("refused" if "assistant build" in str(error) else repr(error))
                try:
                    generations.current(settings.index)
                except NoIndex:
                    assert sentence == OLD or "built" not in outcomes
        finally:
            subprocess.run(["umount", "-l", str(disk)], check=True)
    assert outcomes == {"built", "refused"}
