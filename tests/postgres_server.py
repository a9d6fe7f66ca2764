"""A real PostgreSQL server in a folder of its own, for the tests of the history."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

USER, PATIENCE = "assistant", 30


class Postgres:
    """Run a server that can be stopped, killed, frozen and started again."""

    def __init__(self, programs: Path, folder: Path, port: int) -> None:
        self._programs, self._folder, self._port = programs, folder, port
        self._password = secrets.token_hex(8)
        self._process: subprocess.Popen[bytes] | None = None
        # PostgreSQL refuses to run as root.
        self._user = {"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}

    def url(self, password: str = "", database: str = "postgres") -> str:
        given = password or self._password
        return f"postgresql+psycopg://{USER}:{given}@127.0.0.1:{self._port}/{database}"

    def create(self) -> None:
        """Make the folder of its data."""
        secret = self._folder / "password"
        secret.write_text(self._password)
        if self._user:
            shutil.chown(self._folder, **self._user)
            shutil.chown(secret, **self._user)
        command = [
            self._programs / "initdb",
            *("-D", self._folder / "data", "-U", USER, f"--pwfile={secret}"),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"),
        ]
        done = subprocess.run(
            command, cwd=self._folder, capture_output=True, text=True, check=False, **self._user
        )
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_buffers": "16MB",
            "max_connections": "60",
        }
        with (self._folder / "log").open("a") as log:
            self._process = subprocess.Popen(
                [
                    self._programs / "postgres",
                    *("-D", self._folder / "data", "-p", str(self._port)),
                    *(
                        part
                        for name, value in options.items()
                        for part in ("-c", f"{name}={value}")
                    ),
                ],
                cwd=self._folder,
                stdout=log,
                stderr=log,
                **self._user,
            )
        until = time.monotonic() + PATIENCE
        while not self._ready():
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < until, (self._folder / "log").read_text()
            time.sleep(0.05)

    def end(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT at once and cleanly, SIGQUIT as a crash does."""
        if self._process:
            self._process.send_signal(how)
            self._process.wait(PATIENCE)
            self._process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let no process of it run meanwhile; to its clients it is there and does not answer."""
        assert self._process
        own = self._process.pid
        found = Path(f"/proc/{own}/task/{own}/children")
        pids = [own, *map(int, found.read_text().split())]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def _ready(self) -> bool:
        state = self._folder / "data" / "postmaster.pid"
        return state.exists() and state.read_text().rstrip().endswith("ready")


def _programs() -> Path | None:
    """Return the folder of the server's programs: Debian's, or the wheel's."""
    named = shutil.which("postgres")
    wheel = find_spec("pgserver")
    folders = [
        *([Path(named).resolve().parent] if named else []),
        *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True),
        *([Path(wheel.origin).parent / "pginstall" / "bin"] if wheel and wheel.origin else []),
    ]
    return next((one for one in folders if (one / "initdb").exists()), None)


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Run a server; skip where there is none, or no driver for it."""
    if find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed: pip install -e '.[postgres]'")
    programs = _programs()
    if programs is None:
        pytest.skip("there is no PostgreSQL here: apt install postgresql, or pip install pgserver")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # pytest's own is closed to other users
    server = Postgres(programs, folder, port)
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.end()
        shutil.rmtree(folder, ignore_errors=True)
