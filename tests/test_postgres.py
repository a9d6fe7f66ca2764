"""A history on a real PostgreSQL server keeps what one in a file does, and outlives the server."""

import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import test_history
from histories import answer, handed_over, ticket
from postgres_server import running_postgres
from sqlalchemy import create_engine, text
from test_history import CANARIES, TOLD, keep, together, words_of
from test_history import clock as clock
from test_history import history as history

from assistant import schema
from assistant.errors import UsageError
from assistant.history import History, NotSaved
from assistant.settings import Settings

TESTS = Path(__file__).parent

# Every test of the history that does not look at a file, on the fixture `where` of this module.
globals().update(
    {
        name: test
        for name, test in vars(test_history).items()
        if name.startswith("test_") and "tmp_path" not in inspect.signature(test).parameters
    }
)


@pytest.fixture(scope="module")
def server():
    with running_postgres() as running:
        yield running


@pytest.fixture
def sql(server):
    """What runs statements as another program does, on a database that was emptied."""
    engine = create_engine(server.url(), isolation_level="AUTOCOMMIT")

    def run(statement, **values):
        with engine.connect() as connection:
            found = connection.execute(text(statement), values)
            return [tuple(row) for row in found] if found.returns_rows else []

    run("DROP SCHEMA IF EXISTS public CASCADE")
    run("CREATE SCHEMA public")
    yield run
    engine.dispose()


@pytest.fixture
def where(server, sql):
    return Settings(history=server.url())


TABLES = ("turns", "votes", "tickets", "notes", "outbox", "proposals")


def rows_of(sql):
    """Return every row of ours as text."""
    return "\n".join(str(sql(f"SELECT * FROM {table}")) for table in TABLES)


def refused(call, reasons=("failed",), within=1.5):
    started = time.monotonic()
    with pytest.raises(NotSaved) as said:
        call()
    assert time.monotonic() - started < within
    assert said.value.reason in reasons
    assert "127.0.0.1" not in str(said.value)


def works(history, within=10.0):
    """See that saving works, soon at the latest."""
    conversation, until = history.new_conversation(), time.monotonic() + within
    while True:
        try:
            turn = history.keep(conversation, answer("又好了"))
            break
        except NotSaved:
            assert time.monotonic() < until
            time.sleep(0.1)
    assert history.turn(turn).question == "又好了"
    assert history.saving
    return turn


# --- Secrets, forgetting, counting --------------------------------------------------------------


def test_no_secret_stands_in_any_row(history, sql):
    conversation = history.new_conversation()
    turn = history.keep(conversation, answer(TOLD, "unanswered", "low_confidence"))
    history.vote(conversation, turn, -1, "other", TOLD)
    number = history.open_ticket(
        conversation, turn, ticket(TOLD, 订单号=TOLD), reply_to=TOLD
    ).number
    history.close_ticket(number, "ann", TOLD)
    history.propose([TOLD], TOLD, TOLD, "ann", TOLD)
    kept = rows_of(sql)
    assert "请帮我看看" in kept
    assert [canary for canary in CANARIES if canary in kept] == []


def test_what_is_forgotten_or_too_old_stands_in_no_row(history, clock, sql):
    conversations = test_history.filled_with(history, 40, 1)
    gone = sorted(conversations)[::2]
    assert [history.forget(conversations[i]) for i in gone] == [1] * len(gone)
    kept = rows_of(sql)
    assert not any(word in kept for i in gone for word in words_of(i))
    stays = sorted(set(conversations) - set(gone))
    assert all(word in kept for i in stays for word in words_of(i))
    for one in history.tickets(limit=1000):
        history.close_ticket(one.number, "ann", "好")
    clock.jump(days=31)
    assert history.purge() == len(stays)
    assert [sql(f"SELECT count(*) FROM {table}") for table in TABLES] == [[(0,)]] * len(TABLES)


def test_numbers_beyond_four_bytes_are_numbers(history, sql):
    for table, key in (("turns", "seq"), ("tickets", "number"), ("notes", "seq")):
        sql(f"ALTER TABLE {table} ALTER COLUMN {key} RESTART WITH 6000000000")
    opened = handed_over(history)
    assert opened.number == 6_000_000_000
    history.claim(opened.number, "ann")
    assert history.add_note(opened.number, "ann", "好").owner == "ann"
    assert history.tickets(after=6_000_000_001)[0].number == opened.number
    assert history.turn(opened.turn).ticket == opened.number


# --- Many programs ------------------------------------------------------------------------------

CLAIMER = """
import sys, threading
from assistant.history import History, NotSaved, Taken
from assistant.settings import Settings

history = History.open(Settings(history=sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
barrier = threading.Barrier(10)

def claimed(number, agent):
    while True:
        try:
            return history.claim(number, agent) and "won"
        except Taken:
            return "lost"
        except NotSaved:  # a busy machine: whoever is refused tries again
            pass

def claim(i):
    barrier.wait()
    for number in map(int, sys.argv[3:]):
        # One write, so that no other thread's line falls between a line and its end.
        sys.stdout.write(f"{claimed(number, f'agent {sys.argv[2]}-{i}')} {number}\\n")

threads = [threading.Thread(target=claim, args=(i,)) for i in range(10)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
history.close()
"""


def test_of_twenty_in_two_programs_exactly_one_wins_each_ticket(history, where):
    numbers = [str(handed_over(history).number) for _ in range(5)]
    others = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIMER, where.history, name, *order],
            env={**os.environ, "PYTHONPATH": str(TESTS.parent)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, order in (("a", numbers), ("b", numbers[::-1]))
    ]
    for one in others:
        assert one.stdout.readline() == "ready\n"
    for one in others:
        one.stdin.write("\n")
        one.stdin.flush()
    told = [line for one in others for line in one.communicate(timeout=30)[0].splitlines()]
    assert sorted(line for line in told if line.startswith("won")) == [f"won {n}" for n in numbers]
    assert len(told) == 20 * len(numbers)
    assert len(history.tickets("claimed")) == len(numbers)


def test_many_programs_that_find_an_empty_database_make_its_tables_once(where, sql):
    for _ in range(3):
        sql("DROP SCHEMA public CASCADE")
        sql("CREATE SCHEMA public")
        opened = together(6, lambda i: History.open(where))
        assert [(one.notes, one.saving) for one in opened] == [((), True)] * 6
        turns = together(6, lambda i: works(opened[i]))  # noqa: B023
        assert len(set(turns)) == 6
        for one in opened:
            one.close()
        versions = [(n,) for n in range(1, len(schema.MIGRATIONS) + 1)]
        assert sql("SELECT version FROM schema_version ORDER BY version") == versions


def test_programs_that_change_the_same_rows_crosswise_all_succeed(history, where):
    """Two transactions that take rows in opposite order would wait for each other for ever."""
    other = History.open(where)
    conversation, turns = keep(history, *(f"问{i}" for i in range(6)))

    def vote(i):
        mine, order = ((history, turns), (other, turns[::-1]))[i % 2]
        for turn in order:
            mine.vote(conversation, turn, 1, note=f"{i}")

    assert together(10, vote) == [None] * 10
    assert [turn.vote.value for turn in history.turns(conversation)] == [1] * 6
    other.close()


# --- Migrations, and a database that is not ours ------------------------------------------------


@pytest.mark.parametrize("version", range(1, len(schema.MIGRATIONS)))
def test_a_database_of_an_earlier_version_is_brought_up_to_date(where, sql, version):
    sql("CREATE TABLE schema_version (version INTEGER PRIMARY KEY, at TEXT)")
    words = {
        "key": "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
        "reference": "BIGINT",
    }
    for number, migration in enumerate(schema.MIGRATIONS[:version], 1):
        for statement in migration:
            sql(statement.format(**words))
        sql("INSERT INTO schema_version VALUES (:n, '2026')", n=number)
    sql(
        "INSERT INTO turns VALUES (DEFAULT, 'old', 'c', '2999-01-01T00:00:00.000000+00:00', 4e10,"
        " '旧的', 'answered', 0.5, '', 'zh', 'g', 1.0, '{}')"
    )
    history = History.open(where)
    assert history.turn("old").question == "旧的"
    first = handed_over(history)
    history.propose(["一"], "", "答", "ann", "gap")
    assert history.ticket(first.number) == first
    assert (history.notes, history.saving) == ((), True)
    history.close()


@pytest.mark.parametrize(
    ("statement", "reason", "words"),
    [
        ("INSERT INTO schema_version VALUES (99, 'x')", "newer", "later"),
        ("DROP TABLE schema_version", "foreign", "another program"),
    ],
)
def test_a_database_that_is_not_ours_to_write_is_left_alone(where, sql, statement, reason, words):
    history = History.open(where)
    works(history)
    history.close()
    sql(statement)
    before = rows_of(sql)
    history = History.open(where)
    assert not history.saving
    refused(lambda: history.keep("c" * 24, answer()), [reason])
    refused(history.tickets, [reason])
    assert words in history.notes[0]
    history.close()
    assert rows_of(sql) == before


def test_a_copy_is_left_to_the_servers_own_tool(history, tmp_path):
    with pytest.raises(UsageError, match="pg_dump"):
        history.backup(tmp_path / "copy")


def test_a_missing_driver_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UsageError, match=r"constraints\.txt -e \"\.\[postgres\]\""):
        History.open(Settings(history="postgresql+psycopg://x@127.0.0.1/y"))


# --- A server that fails ------------------------------------------------------------------------


def test_an_address_without_the_driver_is_understood(server, sql):
    history = History.open(Settings(history=server.url().replace("+psycopg", "")))
    works(history)
    history.close()


@pytest.mark.parametrize("wrong", ["password", "database"])
def test_a_server_that_turns_us_away_is_told_to_the_log_and_no_password_is(server, caplog, wrong):
    given = {wrong: "canary4711"}
    history = History.open(Settings(history=server.url(**given)))
    assert not history.saving
    refused(lambda: history.keep("c" * 24, answer()))
    refused(history.tickets)
    assert ("authentication failed" if wrong == "password" else "does not exist") in caplog.text
    assert wrong == "database" or "canary4711" not in caplog.text
    history.close()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["stopped", "crashed"])
def test_a_server_that_is_down_refuses_soon_and_is_used_again_when_it_is_up(history, server, how):
    turn = works(history)
    server.end(how)
    try:
        for _ in range(3):
            refused(lambda: history.keep("c" * 24, answer("没有")))
            refused(lambda: history.turn(turn))
        assert not history.saving
    finally:
        server.start()
    works(history)
    assert history.turn(turn).question == "又好了"
    assert history.turns("c" * 24) == []


def test_a_restart_between_two_changes_is_not_noticed(history, server):
    works(history)
    server.end()
    server.start()
    works(history, within=0)


def test_a_start_without_the_server_is_short_and_recovers(where, server):
    server.end()
    try:
        started = time.monotonic()
        history = History.open(where)
        assert time.monotonic() - started < 5
        assert not history.saving
    finally:
        server.start()
    works(history)
    history.close()


@pytest.mark.skipif(sys.platform != "linux", reason="finds the server's processes in /proc")
def test_a_server_that_freezes_holds_nobody_up_for_long(history, server):
    turn = works(history)
    with server.frozen():
        refused(lambda: history.keep("c" * 24, answer("没有")), ["busy", "failed"])
        refused(lambda: history.turn(turn), within=4)
        for _ in range(10):
            refused(lambda: history.turn(turn), within=0.3)
            refused(lambda: history.keep("c" * 24, answer("没有")), ["busy", "failed"], within=1)
            time.sleep(0.2)
    works(history)
    assert history.turns("c" * 24) == []


def test_another_who_writes_is_waited_for_but_not_long(history, where):
    turn = works(history)
    other = History.open(where)
    hold, held = threading.Event(), threading.Event()

    def holding(connection):
        held.set()
        assert hold.wait(10)

    slow = threading.Thread(target=other._write, args=(holding,))
    slow.start()
    assert held.wait(10)
    refused(lambda: history.keep("c" * 24, answer()), ["locked", "busy"])
    assert history.turn(turn).question == "又好了"
    hold.set()
    slow.join()
    works(history, within=0)
    other.close()


def test_a_full_or_read_only_server_is_said_to_be_so(history, sql):
    def raising(state):
        def job(connection):
            connection.exec_driver_sql(f"DO $$BEGIN RAISE SQLSTATE '{state}'; END$$")

        return job

    for state, reason in (("53100", "full"), ("25006", "readonly"), ("XX000", "failed")):
        refused(lambda state=state: history._write(raising(state)), [reason])
    works(history)


def test_a_bad_change_does_not_spoil_those_that_are_stored_with_it(history, sql):
    number = handed_over(history).number
    gate = threading.Event()
    jobs = {
        "wait": lambda connection: gate.wait(5),
        "bug": lambda connection: 1 // 0,
        "key": lambda connection: connection.exec_driver_sql(
            "INSERT INTO notes VALUES (77, 4711, 'ann', 'x', 'y')"
        ),
        "good": lambda connection: test_history.schema.version_of(connection),
    }
    found = {}

    def run(name):
        try:
            found[name] = history._write(jobs[name])
        except Exception as error:
            found[name] = type(error)

    threads = [threading.Thread(target=run, args=(name,)) for name in jobs]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    gate.set()
    for thread in threads:
        thread.join()
    assert found == {
        "wait": True,
        "bug": ZeroDivisionError,
        "key": NotSaved,
        "good": len(schema.MIGRATIONS),
    }
    assert history.claim(number, "ann").notes == ()
