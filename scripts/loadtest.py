"""Load a server of this machine and print a table: REST at once and sustained, the page, memory.

    python scripts/loadtest.py [--asks 20000] [--workers 2] [--json FILE]

It starts its own server on a free port of 127.0.0.1, with a memory of its own and no limit on the
requests of one client, and ends it again. The client runs on the same cores as the server. Every
answer is checked: an answer must be of the question that was asked.
"""

import argparse
import asyncio
import itertools
import json
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from assistant.questions import read_questions
from assistant.screen import mask_secrets

REPOSITORY = Path(__file__).parent.parent
LIMIT = 120  # seconds after which a request counts as lost


@dataclass
class Outcome:
    """Hold what came of many requests: seconds of those answered, and the statuses of all."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    wall: float = 0.0

    @property
    def lost(self) -> int:
        """Return how many got neither an answer nor a clear "later"."""
        told = self.statuses["200"] + self.statuses["429"] + self.statuses["503"]
        return self.statuses.total() - told

    def at(self, share: float) -> float:
        """Return a quantile of the seconds."""
        ordered = sorted(self.seconds)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


class Connection:
    """Hold one kept-alive HTTP connection; as little of a client as can be, for it takes turns."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def send(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Send a request and return the status and the body of its answer."""
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        assert self.reader is not None
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self.writer.write(head.encode() + body)
        told = await self.reader.readuntil(b"\r\n\r\n")
        status = int(told.split(None, 2)[1])
        headers = told.lower()
        if b"\r\ntransfer-encoding: chunked" in headers:
            return status, await self._chunks()
        at = headers.find(b"\r\ncontent-length:")
        length = int(headers[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        answer = await self.reader.readexactly(length)
        if b"\r\nconnection: close" in headers:
            self.close()
        return status, answer

    async def _chunks(self) -> bytes:
        assert self.reader is not None
        parts = []
        while size := int(await self.reader.readline(), 16):
            parts.append(await self.reader.readexactly(size))
            await self.reader.readline()
        await self.reader.readline()
        return b"".join(parts)

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self.writer:
            self.writer.close()
        self.reader = self.writer = None


class Load:
    """Ask one server in several ways."""

    def __init__(self, address: str, questions: list[str]) -> None:
        host, _, port = address.removeprefix("http://").partition(":")
        self.host, self.port = host, int(port)
        numbered = (f"{words} {n}" for n, words in enumerate(itertools.cycle(questions)))
        # What looks like a secret is masked, and so could not be told from another's question.
        self.numbered = (words for words in numbered if mask_secrets(words)[0] == words)

    def connection(self) -> Connection:
        """Return a new connection to the server."""
        return Connection(self.host, self.port)

    async def ask(self, connection: Connection, outcome: Outcome) -> None:
        """Ask a question nobody asked before by REST, and check whose answer came."""
        question = next(self.numbered)
        body = json.dumps({"question": question}, ensure_ascii=False).encode()
        await timed(outcome, lambda: self._asked(connection, body, question))

    async def _asked(self, connection: Connection, body: bytes, question: str) -> str:
        status, answer = await connection.send("POST", "/api/v1/ask", body)
        if status == 200 and json.loads(answer)["question"] != question:
            return "another's answer"
        return str(status)

    async def ask_page(self, outcome: Outcome, listener: int) -> None:
        """Ask as the page does: join Gradio's queue, and listen until the answer comes."""
        question = next(self.numbered)
        await timed(outcome, lambda: self._asked_page(question, listener))

    async def _asked_page(self, question: str, listener: int) -> str:
        connection, session = self.connection(), secrets.token_hex(8)
        join = {"data": [question, ""], "fn_index": listener, "session_hash": session}
        path = f"/gradio_api/queue/data?session_hash={session}"
        try:
            status, _ = await connection.send(
                "POST", "/gradio_api/queue/join", json.dumps(join).encode()
            )
            if status != 200:
                return str(status)
            status, told = await connection.send("GET", path)
            lines = [line for line in told.decode().split("\n") if "process_completed" in line]
            shown = json.loads(lines[-1].removeprefix("data: "))["output"]["data"][0]
            return str(status) if escape(question) in shown else "another's answer"
        finally:
            connection.close()

    async def at_once(self, number: int) -> Outcome:
        """Open `number` connections and ask on all of them at the same time."""
        outcome = Outcome()
        connections = [self.connection() for _ in range(number)]
        await together(outcome, [self.ask(one, outcome) for one in connections])
        for connection in connections:
            connection.close()
        return outcome

    async def sustained(self, number: int, clients: int = 32) -> Outcome:
        """Ask `number` questions by clients that each ask one after another."""
        outcome, left = Outcome(), itertools.count(1)

        async def client() -> None:
            connection = self.connection()
            while next(left) <= number:
                await self.ask(connection, outcome)
            connection.close()

        await together(outcome, [client() for _ in range(clients)])
        return outcome

    async def page_at_once(self, number: int) -> Outcome:
        """Ask on `number` pages at the same time."""
        outcome = Outcome()
        _, config = await self.connection().send("GET", "/config")
        listeners = json.loads(config)["dependencies"]
        listener = next(one["id"] for one in listeners if one["api_name"] == "turn")
        await together(outcome, [self.ask_page(outcome, listener) for _ in range(number)])
        return outcome


async def timed(outcome: Outcome, request: Callable[[], Awaitable[str]]) -> None:
    """Count one request: its status, or the error it ended with, and its seconds if answered."""
    started = time.perf_counter()
    try:
        async with asyncio.timeout(LIMIT):
            status = await request()
    except (OSError, EOFError, TimeoutError, ValueError, LookupError) as error:
        status = type(error).__name__
    outcome.statuses[status] += 1
    if status == "200":
        outcome.seconds.append(time.perf_counter() - started)


async def together(outcome: Outcome, work: list[Any]) -> None:
    started = time.perf_counter()
    await asyncio.gather(*work)
    outcome.wall = time.perf_counter() - started


def resident_mb(process: int) -> float:
    """Return the resident memory of a process and of those it started, in megabytes."""
    pages = int(Path(f"/proc/{process}/statm").read_text("ascii").split()[1])
    children = Path(f"/proc/{process}/task/{process}/children").read_text("ascii").split()
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6 + sum(resident_mb(int(c)) for c in children)


def start(folder: str, workers: int = 1) -> tuple[subprocess.Popen[str], str]:
    """Start the server of this repository and return it with its address."""
    variables = {
        "ASSISTANT_INDEX": f"{folder}/index",
        "ASSISTANT_HISTORY": f"sqlite:///{folder}/history.db",
        "ASSISTANT_USERS": f"{folder}/users.toml",
        "ASSISTANT_RATE_PER_MINUTE": "0",
    }
    command = [sys.executable, str(REPOSITORY / "app.py"), "--port", "0"]
    command += ["--workers", str(workers)]
    server = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    for line in server.stdout:
        if "http://" in line:
            return server, line.split()[-1].rstrip("/")
    raise SystemExit("loadtest: the server did not start")


async def first_page(load: Load) -> None:
    """Ask on the page until it answers for the first time."""
    while not (await load.page_at_once(1)).seconds:
        await asyncio.sleep(0.05)


async def measure(load: Load, process: int, asks: int) -> dict[str, float]:
    """Run every load and return the figures."""
    await load.sustained(200)
    burst = await load.at_once(1000)
    page = await load.page_at_once(100)
    half = await load.sustained(asks // 2)
    before = resident_mb(process)
    rest = await load.sustained(asks - asks // 2)
    after = resident_mb(process)
    return {
        "burst_lost": burst.lost,
        "burst_later": burst.statuses["429"] + burst.statuses["503"],
        "burst_p50_s": burst.at(0.5),
        "burst_p99_s": burst.at(0.99),
        "sustained_asks_per_s": statistics.mean(
            one.statuses["200"] / one.wall for one in (half, rest)
        ),
        "sustained_p50_ms": rest.at(0.5) * 1000,
        "sustained_p99_ms": rest.at(0.99) * 1000,
        "sustained_lost": half.lost + rest.lost,
        "page_lost": page.lost,
        "page_later": page.statuses["429"] + page.statuses["503"],
        "page_p50_s": page.at(0.5),
        "page_p99_s": page.at(0.99),
        "resident_mb_after_half": before,
        "resident_mb_after_all": after,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Load a server of this machine; print a table.")
    parser.add_argument("--asks", type=int, default=20_000, help="asks of the sustained load")
    parser.add_argument("--workers", type=int, default=1, help="processes that serve")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON too")
    options = parser.parse_args()
    paths = sorted((REPOSITORY / "corpus" / "questions").glob("*.yaml"))
    questions = [one.ask for path in paths for one in read_questions(path)]
    with tempfile.TemporaryDirectory() as folder:
        built, _ = start(folder)  # builds the index, which is no part of a start
        end(built)
        begun = time.perf_counter()
        server, address = start(folder, options.workers)
        try:
            load = Load(address, questions)
            asyncio.run(first_page(load))
            figures = {"start_to_first_page_s": time.perf_counter() - begun}
            figures |= asyncio.run(measure(load, server.pid, options.asks))
        finally:
            end(server)
    for name, value in figures.items():
        print(f"{name:28} {value:>12,.2f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    return 0


def end(server: subprocess.Popen[str]) -> None:
    server.send_signal(signal.SIGTERM)
    server.wait(30)


if __name__ == "__main__":
    sys.exit(main())
