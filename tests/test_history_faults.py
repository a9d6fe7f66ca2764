"""Whatever happens to the database: what was acknowledged is stored, what was refused is not.

No answer waits long for it, nothing is deleted, and saving resumes by itself.
"""

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from histories import Clock, answer, database, handed_over, rows_of, settings
from sqlalchemy import Engine, event

from assistant.database import Database
from assistant.history import History, NotFound, NotSaved
from assistant.schema import MIGRATIONS

AS_ROOT = os.geteuid() == 0
TESTS = Path(__file__).parent


@pytest.fixture
def history(tmp_path):
    opened = History.open(settings(tmp_path))
    yield opened
    opened.close()


@contextmanager
def mounted(folder: Path, options: str):
    """Mount a small file system of its own; needs root and the right to mount."""
    if not AS_ROOT:
        pytest.skip("mounting a file system needs root")
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], check=False)
    if done.returncode:
        pytest.skip("mounting a file system is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=False, capture_output=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


def keep_all(history, questions):
    """Try to keep each question; return the ids of those that were acknowledged."""
    conversation, kept = history.new_conversation(), {}
    for question in questions:
        try:
            kept[history.keep(conversation, answer(question))] = question
        except NotSaved as error:  # by the time that is told, others may be saved again
            readable(error)
    return kept


def readable(error):
    """See that a refusal is said in words that a user may read."""
    assert "/" not in str(error).replace(" / ", "")
    assert "sqlite" not in str(error).lower()


def stored(path: Path) -> dict[str, str]:
    assert rows_of(path, "PRAGMA integrity_check") == [("ok",)]
    return dict(rows_of(path, "SELECT id, question FROM turns"))


def tried(history, reason, question):
    """Keep a question and return its id; or see it refused, soon, and return None."""
    started = time.monotonic()
    try:
        return history.keep(history.new_conversation(), answer(question))
    except NotSaved as error:
        refusal = error
    assert time.monotonic() - started < 1.5
    assert refusal.reason == reason
    readable(refusal)
    assert not history.saving
    assert str(refusal) in history.notes
    return None


def refused(history, reason, question="问"):
    """See a change refused, soon, in words that a user may read."""
    assert tried(history, reason, question) is None


def works(history):
    """See that saving works, and says so."""
    conversation = history.new_conversation()
    turn = history.keep(conversation, answer("又好了"))
    assert history.turn(turn).question == "又好了"
    assert history.saving
    return turn


# --- Death --------------------------------------------------------------------------------------

KEEPER = """
import os, signal, sys, threading
from pathlib import Path
from histories import answer, settings, ticket
from assistant.history import History

def work(history, pipe):
    while True:
        conversation = history.new_conversation()
        turn = history.keep(conversation, answer("问", "unanswered", "low_confidence"))
        os.write(pipe, f"turn {turn}\\n".encode())
        number = history.open_ticket(conversation, turn, ticket("问")).number
        history.add_note(number, "ann", "好")
        os.write(pipe, f"ticket {number}\\n".encode())

for after in (1, 30, 60, 90, 120, 150):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        history = History.open(settings(Path(sys.argv[1])))
        for _ in range(4):
            threading.Thread(target=work, args=(history, writing)).start()
        signal.pause()
    os.close(writing)
    with os.fdopen(reading) as lines:
        for count, line in enumerate(lines, 1):
            print(line, end="")
            if count == after:
                os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


def test_every_row_acknowledged_before_a_kill_is_there_after_it(tmp_path):
    """kill -9 of a program that writes as fast as it can, again and again, on one database."""
    done = subprocess.run(
        [sys.executable, "-c", KEEPER, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}"},
        capture_output=True,
        text=True,
        check=True,
    )
    told = [line.split() for line in done.stdout.splitlines()]
    assert len(told) >= 1 + 30 + 60 + 90 + 120 + 150
    assert {name for kind, name in told if kind == "turn"} <= set(stored(database(tmp_path)))
    noted = {str(n) for (n,) in rows_of(database(tmp_path), "SELECT ticket FROM notes")}
    assert {name for kind, name in told if kind == "ticket"} <= noted
    history = History.open(settings(tmp_path))
    assert history.notes == ()
    works(history)
    history.close()


def test_a_commit_waits_for_the_disk(history):
    """What a kill cannot show and a power cut would: no row is acknowledged before a sync."""
    works(history)
    with history._database.writing() as connection:
        read = lambda name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()  # noqa: E731
        assert (read("synchronous"), read("journal_mode"), read("foreign_keys")) == (2, "wal", 1)


# --- A full disk --------------------------------------------------------------------------------


def fill(path):
    """Write a file until the disk has no room for more."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_on_a_full_disk_acknowledged_is_stored_and_it_recovers(tmp_path):
    """F5, with 512 KiB and four threads; then room again."""
    with mounted(tmp_path / "var", "size=512k"):
        history = History.open(settings(tmp_path))
        kept, refusals = {}, []

        def work(i):
            mine = keep_all(history, [f"问题{i}-{n} " + "长" * 1500 for n in range(30)])
            refusals.append(30 - len(mine))
            kept.update(mine)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(refusals) > 30
        assert len(kept) > 10
        assert time.monotonic() - started < 10
        for n in range(60):  # a checkpoint makes room, beside its files and within them
            fill(tmp_path / "var" / "filler")
            question = f"还有{n} " + "长" * 2000
            if (turn := tried(history, "full", question)) is None:
                break
            kept[turn] = question
        assert turn is None
        assert stored(database(tmp_path)) == kept
        remount(tmp_path / "var", "size=8m")
        more = keep_all(history, ["有空间了"])
        assert history.saving
        history.close()
        assert stored(database(tmp_path)) == kept | more


def test_in_a_database_that_may_not_grow_acknowledged_is_stored_and_it_recovers(tmp_path):
    """The same without root: SQLite itself says that the disk is full."""

    def limit(connection, _record):
        connection.execute("PRAGMA max_page_count = 60")

    event.listen(Engine, "connect", limit)
    try:
        history = History.open(settings(tmp_path))
        kept = keep_all(history, [f"问题{n} " + "长" * 2000 for n in range(60)])
        assert 0 < len(kept) < 60
        refused(history, "full", "长" * 2000)
        assert stored(database(tmp_path)) == kept
        with history._database.writing() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count = 4000")
        works(history)
        history.close()
    finally:
        event.remove(Engine, "connect", limit)


def test_a_disk_that_fails_is_not_tried_in_a_hot_loop(history, monkeypatch):
    """However many ask: some twenty tries a second."""
    tries = []

    def fail():
        tries.append(time.monotonic())
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(history._database, "_to_write", fail)
    threads = [threading.Thread(target=keep_all, args=(history, "问" * 20)) for _ in range(4)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 10 < len(tries) <= 2 + 21 * (time.monotonic() - started)
    monkeypatch.undo()
    works(history)


# --- Locks --------------------------------------------------------------------------------------

HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.readline()
connection.execute("COMMIT")
print("free", flush=True)
sys.stdin.readline()
"""


@contextmanager
def held(path):
    """Hold the database in another process; yield what frees it."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def free():
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "free\n"

    try:
        assert process.stdout.readline() == "held\n"
        yield free
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_a_locked_database_refuses_soon_still_reads_and_works_afterwards(history, tmp_path):
    turn = works(history)
    with held(database(tmp_path)) as free:
        refused(history, "locked")
        started = time.monotonic()
        conversation = history.new_conversation()
        for _ in range(8):
            with pytest.raises(NotSaved):
                history.keep(conversation, answer("锁着"))
        assert time.monotonic() - started < 8 * 0.5
        assert history.turn(turn).question == "又好了"
        free()
        works(history)
    assert history.turns(conversation) == []
    assert "锁着" not in stored(database(tmp_path)).values()


def test_a_lock_that_is_short_is_waited_for(history, tmp_path):
    with held(database(tmp_path)) as free:
        threading.Timer(0.4, free).start()
        works(history)


def test_a_hundred_asks_under_a_lock_are_stored_or_refused(history, tmp_path):
    kept, threads = {}, []
    with held(database(tmp_path)) as free:
        threading.Timer(1.5, free).start()
        for i in range(20):
            questions = [f"{i}-{n}" for n in range(5)]
            threads.append(
                threading.Thread(target=lambda q=questions: kept.update(keep_all(history, q)))
            )
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(0.2)
    works(history)
    found = stored(database(tmp_path))
    assert {k: v for k, v in found.items() if v != "又好了"} == kept


def test_a_start_under_a_lock_is_short_and_recovers(tmp_path):
    History.open(settings(tmp_path)).close()
    with held(database(tmp_path)) as free:
        started = time.monotonic()
        history = History.open(settings(tmp_path))
        assert time.monotonic() - started < 5
        assert not history.saving
        free()
        works(history)
    history.close()


# --- Read-only, gone, and back ------------------------------------------------------------------


def test_a_read_only_disk_is_said_and_it_recovers(tmp_path):
    with mounted(tmp_path / "var", "size=8m") as folder:
        history = History.open(settings(tmp_path))
        turn = works(history)
        history._database.close()  # Linux makes nothing read-only that is open for writing
        remount(folder, "ro")
        refused(history, "readonly")
        refused(history, "readonly")
        remount(folder, "rw")
        works(history)
        assert history.turn(turn).question == "又好了"
        history.close()


def test_a_database_that_turns_read_only_is_still_read_and_recovers(history):
    """The same without root: SQLite itself refuses to write."""
    turn = works(history)
    with history._database.writing() as connection:
        connection.exec_driver_sql("PRAGMA query_only = ON")
    refused(history, "readonly")
    assert history.turn(turn).question == "又好了"
    works(history)


def test_a_start_on_a_read_only_disk_answers_and_recovers(tmp_path):
    with mounted(tmp_path / "var", "size=8m") as folder:
        History.open(settings(tmp_path)).close()
        remount(folder, "ro")
        history = History.open(settings(tmp_path))
        assert not history.saving
        remount(folder, "rw")
        works(history)
        history.close()


def test_a_disk_that_vanishes_under_it_loses_nothing_that_was_acknowledged(tmp_path):
    """Nothing is written beside the mount point's back, where nobody would find it (F19)."""
    with mounted(tmp_path / "var", "size=8m") as folder:
        history = History.open(settings(tmp_path))
        works(history)
        subprocess.run(["umount", "-l", folder], check=True)
        refused(history, "gone")
        assert list(folder.iterdir()) == []
        history.close()


def test_a_file_that_is_taken_away_and_brought_back_is_used_again(history, tmp_path):
    turn = works(history)
    away = tmp_path / "away"
    (tmp_path / "var").rename(away)
    refused(history, "gone")
    away.rename(tmp_path / "var")
    works(history)
    assert history.turn(turn).question == "又好了"


@pytest.mark.parametrize("another", [False, True], ids=["taken away", "another in its place"])
def test_a_change_that_was_committed_to_a_file_that_is_gone_is_refused(history, tmp_path, another):
    """Its name may vanish in the middle of a transaction, of which SQLite notices nothing."""
    works(history)
    other = tmp_path / "other"
    History.open(settings(other)).close()

    def job(connection):
        database(tmp_path).rename(tmp_path / "away")
        if another:
            database(other).rename(database(tmp_path))

    with pytest.raises(NotSaved) as said:
        history._write(job)
    assert said.value.reason == "gone"
    if not another:
        (tmp_path / "away").rename(database(tmp_path))
    assert works(history) in stored(database(tmp_path))


# --- A damaged file -----------------------------------------------------------------------------


def overwrite(path):
    path.write_bytes(b"this is no database\n" * 5000)


def flip(path):
    """Damage pages in the middle, as a bad disk does; the header stays."""
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))


def filled(folder, running):
    """Keep turns until they stand in the file itself; return the history if it is to run on."""
    history = History.open(settings(folder))
    for _ in range(30):
        works(history)
    history._writer.do(lambda connection: True, scrub=True)
    if running:
        return history
    history.close()
    return None


def replace_by(path):
    other = path.with_name("other")
    overwrite(other)
    other.rename(path)


@pytest.mark.parametrize("damage", [overwrite, flip, replace_by])
@pytest.mark.parametrize("running", [False, True], ids=["stopped", "running"])
def test_a_damaged_file_is_set_aside_and_a_new_one_begun(tmp_path, damage, running):
    history = filled(tmp_path, running)
    damage(database(tmp_path))
    harmed = database(tmp_path).read_bytes()
    history = history or History.open(settings(tmp_path))
    kept = keep_all(history, ["坏了", "又一个"])
    assert works(history) in stored(database(tmp_path))
    assert set(kept) <= set(stored(database(tmp_path)))
    (note,) = history.notes
    (aside,) = (tmp_path / "var").glob("history.db.corrupt-????????T??????")
    assert aside.name in note
    assert running or aside.read_bytes() == harmed
    history.close()


@pytest.mark.parametrize("damage", [overwrite, flip, replace_by])
def test_what_the_log_still_holds_survives_a_damaged_file(tmp_path, damage):
    """Until SQLite moved a row from its log into the file, the log alone restores it."""
    history = History.open(settings(tmp_path))
    turn = works(history)
    damage(database(tmp_path))
    works(history)
    assert history.turn(turn).question == "又好了"
    assert (history.notes, len(stored(database(tmp_path)))) == ((), 2)
    history.close()


def test_a_second_damaged_file_is_set_aside_beside_the_first(tmp_path):
    clock = Clock()
    for _ in range(2):
        filled(tmp_path, running=False)
        overwrite(database(tmp_path))
        history = History.open(settings(tmp_path), lambda: clock.time)
        history.close()
    names = sorted(one.name for one in (tmp_path / "var").glob("*corrupt*"))
    assert names == ["history.db.corrupt-20261126T120000", "history.db.corrupt-20261126T120000-2"]


@pytest.mark.parametrize("running", [False, True], ids=["stopped", "running"])
def test_an_emptied_file_is_said_to_have_been_one(tmp_path, running):
    """For SQLite an empty file is a good new database: nothing would tell that one was lost."""
    history = filled(tmp_path, running)
    database(tmp_path).write_bytes(b"")
    history = history or History.open(settings(tmp_path))
    works(history)
    (note,) = history.notes
    assert "history.db was empty" in note
    history.close()


def test_a_missing_file_is_said_when_there_are_traces_of_it(tmp_path):
    """Its log, left by a program that was killed, is set aside and not deleted."""
    history = History.open(settings(tmp_path))
    works(history)
    copy = tmp_path / "other"
    shutil.copytree(tmp_path / "var", copy / "var")
    history.close()
    log = database(copy).with_name("history.db-wal").read_bytes()
    database(copy).unlink()
    history = History.open(settings(copy))
    works(history)
    (note,) = history.notes
    assert "history.db was missing" in note
    (aside,) = (copy / "var").glob("history.db.lost-*-wal")
    assert aside.read_bytes() == log
    history.close()


def test_a_first_start_has_nothing_to_say(tmp_path):
    history = History.open(settings(tmp_path))
    assert (history.notes, history.saving) == ((), True)
    history.close()


def test_what_another_program_commits_is_taken_for_no_damage(history, tmp_path, monkeypatch):
    """To read a large file through takes longer than a change may wait."""
    other = History.open(settings(tmp_path))
    checks, real = [], Database._checked
    monkeypatch.setattr(
        Database, "_checked", lambda self, connection: (checks.append(1), real(self, connection))[1]
    )
    for i in range(700):
        keep_all((history, other)[i % 2], ["长" * 2000])
    assert database(tmp_path).stat().st_size > 1 << 20  # moved out of the log, by one of them
    assert checks == []
    other.close()


@pytest.mark.parametrize("damaged", [False, True], ids=["no file", "a damaged file"])
def test_many_programs_that_start_at_once_begin_one_new_file(tmp_path, damaged):
    """None sets aside what another has just begun."""
    if damaged:
        database(tmp_path).parent.mkdir()
        overwrite(database(tmp_path))
    barrier, opened, kept = threading.Barrier(8), [], set()

    def start():
        barrier.wait()
        history = History.open(settings(tmp_path))
        opened.append(history)
        kept.add(works(history))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kept == set(stored(database(tmp_path)))
    assert len(kept) == 8
    assert len(list((tmp_path / "var").glob("*corrupt*"))) == damaged
    assert sum(len(history.notes) for history in opened) == damaged
    for history in opened:
        history.close()


# --- A database of another program, or of a later one -------------------------------------------


@pytest.mark.parametrize(
    ("sql", "reason", "words"),
    [
        (f"INSERT INTO schema_version VALUES ({len(MIGRATIONS) + 1}, 'x')", "newer", "later"),
        ("DROP TABLE schema_version", "foreign", "another program"),
    ],
)
def test_a_database_that_is_not_ours_to_write_is_left_alone(tmp_path, sql, reason, words):
    filled(tmp_path, running=False)
    connection = sqlite3.connect(database(tmp_path))
    connection.execute(sql)
    connection.commit()
    connection.close()
    before = database(tmp_path).read_bytes()
    history = History.open(settings(tmp_path))
    assert not history.saving
    refused(history, reason)
    assert words in history.notes[0]
    for read in (lambda: history.turns("x"), history.tickets, history.counts, history.days):
        with pytest.raises(NotSaved):
            read()
    history.close()
    assert database(tmp_path).read_bytes() == before
    assert [one.name for one in (tmp_path / "var").iterdir()] == ["history.db"]


# --- A bad change among good ones ---------------------------------------------------------------


def test_a_bad_change_does_not_spoil_those_that_are_stored_with_it(history, tmp_path):
    """All in one transaction: a foreign key that is none, a bug, a ticket that is not there."""
    number = handed_over(history).number
    found = {}

    def bug(connection):
        connection.exec_driver_sql("INSERT INTO facts VALUES ('bug', 1)")
        raise ZeroDivisionError

    def key(connection):
        connection.exec_driver_sql("INSERT INTO notes VALUES (77, 4711, 'ann', 'x', 'y')")

    actions = {
        "bug": lambda: history._write(bug),
        "key": lambda: history._write(key),
        "none": lambda: history.claim(4711, "ann"),
        "claim": lambda: history.claim(number, "ann"),
        "keep": lambda: history.keep("c" * 24, answer("好")),
    }

    def run(name):
        try:
            found[name] = actions[name]()
        except Exception as error:
            found[name] = type(error)

    with held(database(tmp_path)) as free:
        threads = [threading.Thread(target=run, args=(name,)) for name in actions]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        free()
        for thread in threads:
            thread.join()
    assert (found["bug"], found["key"], found["none"]) == (ZeroDivisionError, NotSaved, NotFound)
    assert found["claim"].owner == "ann"
    assert history.turn(found["keep"]).question == "好"
    assert rows_of(database(tmp_path), "SELECT name FROM facts") == [("seen",)]
    works(history)


def test_what_people_wrote_does_not_reach_a_log_by_a_failure(history, caplog):
    caplog.set_level("DEBUG")
    canary = "-".join(["canary", "4711"])  # tracebacks quote the lines of this file

    def bad(connection):
        connection.exec_driver_sql("INSERT INTO nowhere VALUES (?)", (canary,))

    with pytest.raises(NotSaved) as said:
        history._write(bad)
    told = "".join(traceback.format_exception(said.value))
    with history._database.writing() as connection:
        connection.exec_driver_sql("PRAGMA query_only = ON")
    with pytest.raises(NotSaved) as said:
        history.keep("c" * 24, answer(canary))
    told += "".join(traceback.format_exception(said.value))
    assert "readonly" in told
    assert "not saved" in caplog.text
    assert canary not in caplog.text + told


def test_after_close_nothing_is_taken(tmp_path):
    history = History.open(settings(tmp_path))
    history.close()
    with pytest.raises(NotSaved) as said:
        history.keep("c" * 24, answer())
    assert said.value.reason == "closed"


def test_more_than_can_wait_is_refused_at_once(history, tmp_path, monkeypatch):
    monkeypatch.setattr("assistant.writer._WAITING", 3)
    with held(database(tmp_path)) as free:
        threads = [threading.Thread(target=keep_all, args=(history, ["问"])) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.1)
        started = time.monotonic()
        with pytest.raises(NotSaved) as said:
            history.keep("c" * 24, answer())
        assert time.monotonic() - started < 0.3
        assert said.value.reason == "busy"
        free()
        for thread in threads:
            thread.join()
    works(history)
