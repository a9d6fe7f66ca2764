"""A Milvus server for tests: milvus-lite in a process that can freeze, die and come back."""

import os
import signal
import socket
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import pytest

from assistant.collection import open_collection, write_collection
from assistant.records import Chunk, View
from assistant.settings import Settings

_WAITED = 60  # seconds for a start


def impatient() -> None:
    """Have pymilvus look more often than twice a second whether an index is built."""
    from pymilvus.client import grpc_handler

    grpc_handler.time = SimpleNamespace(time=time.time, sleep=lambda wait: time.sleep(wait / 50))


class MilvusServer:
    """Run milvus-lite's server on a free port of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        """Start, or start again on the same port and data, and wait until it listens."""
        command = [sys.executable, "-m", "milvus_lite", "server", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--data-dir", str(self._folder)]
        with open(os.devnull, "wb") as nothing:
            self._process = subprocess.Popen(command, stdout=nothing, stderr=nothing)
        for _ in range(_WAITED * 10):
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", self.port)):
                    return
            assert self._process.poll() is None, "the Milvus server did not start"
            time.sleep(0.1)
        raise AssertionError("the Milvus server does not listen")

    def freeze(self) -> None:
        """Stop it answering; its port still takes connections."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once."""
        self._process.send_signal(signal.SIGCONT)
        self._process.kill()
        self._process.wait()


_kept = TemporaryDirectory(prefix="milvus")
_made = count()


def in_milvus(vectors, folded=None, owners=None):
    """Keep rows in a local Milvus file, with their words; return the store and the words."""
    pytest.importorskip("pymilvus", reason="needs the extra: pip install '.[milvus]'")
    pytest.importorskip("milvus_lite", reason="needs a server to try: pip install milvus-lite")
    impatient()
    folder = Path(_kept.name) / str(next(_made))
    folder.mkdir()
    texts = folded or ["行"] * len(vectors)
    passages = list(range(len(texts))) if owners is None else list(owners)
    chunks = [Chunk(str(i), "a.md", "", (), 0, 1, "x") for i in range(max(passages) + 1)]
    views = [View(passage, "passage", "", 0, 1) for passage in passages]
    settings = Settings(store="milvus", milvus_uri=f"{_kept.name}/rows.db", milvus_seconds=20)
    write_collection(folder, f"c{folder.name}", settings, chunks, views, texts, vectors)
    return open_collection(folder, settings)


def words_in_milvus(folded, owners=None):
    """Keep texts in a local Milvus file and return what searches their words."""
    vectors = np.eye(len(folded), 8, dtype=np.float32)
    return in_milvus(vectors, list(folded), owners)[1]
