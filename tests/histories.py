"""Answers, tickets and databases for the tests of the history."""

import sqlite3
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from assistant.history import History
from assistant.records import Answer, ChecklistItem, Filled, Handoff, Quote, Ticket
from assistant.settings import Settings

QUOTE = Quote("指南的原话。", "guide.md", "指南", ("充值",), 3, 9, ((0, 6),), 0.8, 4.2, 0.7, None)


def answer(question="充值没到账怎么办", verdict="answered", reason="", quotes=(QUOTE,)):
    handoff = None
    if reason:
        items = (ChecklistItem("订单号", None),)
        handoff = Handoff(reason, "请联系客服。", (), items, f"原因: {reason}\n问题: {question}")
    return Answer(question, verdict, 0.75, "见下文。", quotes, handoff, "000001-abcd", 1.5)


def ticket(question="充值没到账怎么办", reason="low_confidence", **filled):
    texts = tuple(Filled(item, text) for item, text in filled.items())
    return Ticket(reason, question, "", (QUOTE,), texts, "000001-abcd")


def settings(folder: Path, **more) -> Settings:
    return Settings(history=f"sqlite:///{folder}/var/history.db", **more)


def database(folder: Path) -> Path:
    return folder / "var" / "history.db"


def handed_over(history: History, question="转人工", reason="asked_for_human", reply_to=""):
    """Keep a turn that was handed over, in a conversation of its own, and open its ticket."""
    conversation = history.new_conversation()
    turn = history.keep(conversation, answer(question, "unanswered", reason))
    return history.open_ticket(conversation, turn, ticket(question, reason), reply_to)


def bytes_of(folder: Path) -> bytes:
    """Return every byte of the database, its log, its index of the log and whatever lies there."""
    return b"\n".join(one.read_bytes() for one in (folder / "var").iterdir())


def rows_of(path: Path, sql: str) -> list[tuple]:
    """Read a database as another program does."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


class Clock:
    """A clock that goes where it is sent."""

    def __init__(self) -> None:
        self.time = datetime(2026, 11, 26, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.time += timedelta(milliseconds=1)
        return self.time

    def jump(self, **time) -> None:
        self.time += timedelta(**time)


def measure(threads=8, each=1500) -> None:
    """Print what keeping a turn costs its caller, and how many turns a second are kept."""
    with TemporaryDirectory() as folder:
        history = History.open(settings(Path(folder)))
        given = answer("充值没到账怎么办" * 3, "uncertain", "low_confidence", (QUOTE,) * 3)
        conversation = history.new_conversation()

        def keep(times):
            for _ in range(times):
                history.keep(conversation, given)

        keep(200)
        begun, cpu = time.perf_counter(), time.thread_time()
        keep(500)
        print(f"keep, one thread: {(time.perf_counter() - begun) * 2:.2f} ms until it is stored")
        print(f"keep, the caller's CPU: {(time.thread_time() - cpu) * 2:.3f} ms")
        begun, cpu = time.perf_counter(), time.process_time()
        workers = [threading.Thread(target=keep, args=(each,)) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        took, used = time.perf_counter() - begun, time.process_time() - cpu
        print(f"kept by {threads} threads: {threads * each / took:,.0f} turns/s")
        print(f"CPU of the whole process: {used / threads / each * 1000:.3f} ms a turn")
        begun = time.thread_time()
        for _ in range(200):
            history.turns(conversation, 1)
        print(f"the turn before: {(time.thread_time() - begun) * 5:.3f} ms")
        history.close()


if __name__ == "__main__":
    measure()
