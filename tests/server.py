"""A real server in its own process, on a free port of this machine, for the tests of the page."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import httpx

REPOSITORY = Path(__file__).parent.parent
PATIENCE = 60


@dataclass
class Server:
    """Hold a running server: its address, its process and the file of its log."""

    url: str
    process: subprocess.Popen[str]
    log: Path

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://")

    @property
    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE)

    def read_address(self) -> None:
        """Wait for the line that says where it serves; its socket listens by then."""
        lines = iter(self.process.stdout.readline, "")  # type: ignore[union-attr]
        line = next((one for one in lines if one.startswith("Serving on ")), "")
        assert line, f"no address: {self.log.read_text()}"
        self.url = line.split()[-1]

    def end(self) -> int:
        """End it as an operator does, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


@contextmanager
def running(command: list[str], folder: Path, **variables: str) -> Iterator[Server]:
    """Run a command that serves; its first line of output says where."""
    log = folder / "server.log"
    unlimited = {"PYTHONUNBUFFERED": "1", "ASSISTANT_RATE_PER_MINUTE": "0"}
    environment = {**os.environ, **unlimited, **variables}
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    try:
        server = Server("", process, log)
        server.read_address()
        yield server
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]


def heard(client: httpx.Client, name: str, data: list[object], **headers: str) -> list[str]:
    """Call a listener of the page through Gradio's queue; return what it gives."""
    return told(client, joined(client, name, data, **headers))


def joined(client: httpx.Client, name: str, data: list[object], **headers: str) -> str:
    """Put a call of a listener into Gradio's queue; return its session."""
    session = os.urandom(8).hex()
    listener = _listeners(str(client.base_url).rstrip("/"))[name]
    body = {"data": data, "fn_index": listener, "session_hash": session}
    content, kind = json.dumps(body), {"Content-Type": "application/json"}
    answer = client.post("/gradio_api/queue/join", content=content, headers=kind | headers)
    answer.raise_for_status()
    return session


def told(client: httpx.Client, session: str) -> list[str]:
    """Listen until a session's call is done; return what it gives."""
    found = ""
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as lines:
        for line in lines.iter_lines():
            if '"process_completed"' in line:
                found = line
    return json.loads(found.removeprefix("data: "))["output"].get("data") or [""]


@lru_cache
def _listeners(address: str) -> dict[str, int]:
    """Return the number of each listener of a server's page, by name."""
    told = httpx.get(f"{address}/config", timeout=PATIENCE).json()["dependencies"]
    return {one["api_name"]: one["id"] for one in told}


def asked(client: httpx.Client, question: object, **headers: str) -> str:
    """Ask as the page does; return the HTML of the conversation."""
    return heard(client, "turn", [question, ""], **headers)[0]
