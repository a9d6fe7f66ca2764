"""Fork servers from one process that has imported the product: each starts in about a second.

Run as a program it takes orders on stdin, a JSON object a line, and answers each with a line: `run`
forks a program and gives its process id, `ended` gives the exit code of one, null while it runs.
"""

import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent
UNLIMITED = {"ASSISTANT_RATE_PER_MINUTE": "0", "ASSISTANT_RATE_LOGIN_PER_MINUTE": "0"}
PATIENCE = 60


# --- The program ---------------------------------------------------------------------------------


def main() -> None:
    """Import what every server needs, then fork."""
    import assistant.cli
    import assistant.web  # noqa: F401

    with suppress(ImportError):  # the extra mcp
        import mcp.server.lowlevel
        import mcp.server.streamable_http_manager  # noqa: F401
    gc.freeze()  # or the first collection of each child would copy all of it
    orders, told = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    for line in orders:
        order = json.loads(line)
        if "run" in order:
            if not (found := os.fork()):
                _become(**order["run"])
        else:
            found = _exit_code(order["ended"])
        print(json.dumps(found), file=told, flush=True)


def _become(program: str, arguments: list[str], folder: str, log: str, variables: dict) -> None:
    """Be another program, as `python -c` runs it: in its folder, with its output in files."""
    os.setsid()
    os.chdir(folder)
    os.environ.update(variables)
    for number, path in ((0, os.devnull), (1, f"{folder}/stdout"), (2, log)):
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.argv = ["-c", *arguments]
    exec(program, {"__name__": "__main__"})
    sys.exit()


def _exit_code(process: int) -> int | None:
    found, status = os.waitpid(process, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


# --- For tests -----------------------------------------------------------------------------------


@dataclass
class Child:
    """Hold a running program, as `subprocess.Popen` does."""

    nursery: "Nursery"
    pid: int
    log: Path
    returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        if self.returncode is None:
            self.returncode = self.nursery.told(ended=self.pid)
        return self.returncode

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait until it ends and return its exit code."""
        until = time.monotonic() + timeout
        while (code := self.poll()) is None:
            assert time.monotonic() < until, "it does not end"
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


class Nursery:
    """Hold the process that everything is forked from."""

    def __init__(self, **variables: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}", **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def told(self, **order: Any) -> Any:
        """Give an order and return what is answered."""
        pipes = self._process.stdin, self._process.stdout
        print(json.dumps(order), file=pipes[0], flush=True)  # type: ignore[arg-type]
        return json.loads(pipes[1].readline())  # type: ignore[union-attr]

    @contextmanager
    def running(
        self,
        program: str,
        arguments: list[str],
        folder: Path,
        log: Path | None = None,
        **variables: str,
    ) -> Iterator[Child]:
        """Run a program; what it prints is in the file `stdout` of its folder."""
        log = log or folder / "server.log"
        (folder / "stdout").write_text("")
        order = {"program": program, "arguments": arguments, "folder": str(folder)}
        given = {**order, "log": str(log), "variables": {**UNLIMITED, **variables}}
        child = Child(self, self.told(run=given), log)
        try:
            yield child
        finally:
            if child.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()

    def close(self) -> None:
        """End it; what it forked has ended by then."""
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait(PATIENCE)
        self._process.stdout.close()  # type: ignore[union-attr]


def address_of(child: Child, folder: Path) -> str:
    """Wait until a server says where it serves; its socket listens by then."""
    until = time.monotonic() + PATIENCE
    while True:
        lines = (folder / "stdout").read_text().splitlines(True)
        lines = [line for line in lines if line.startswith("Serving on ")]
        if lines and lines[0].endswith("\n"):
            return lines[0].split()[-1]
        assert child.poll() is None, child.log.read_text()
        assert time.monotonic() < until, child.log.read_text()
        time.sleep(0.01)


if __name__ == "__main__":
    main()
