"""Serve what was just written: restart when a file changes, under `gradio app.py` alone."""

import ast
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

_WATCHED = "GRADIO_WATCH_DIRS"  # set by `gradio app.py` for the program it runs
_SUFFIXES = {".py", ".css", ".js", ".toml"}
_SKIPPED = {".venv", ".git", "node_modules", "__pycache__"}
_LOOK_EVERY = 0.5
_log = logging.getLogger(__name__)


def restart_on_change() -> None:
    """Begin to watch the folders that `gradio` names, app.py's own; do nothing without it."""
    if named := os.environ.get(_WATCHED):
        folders = [Path(name) for name in named.split(",")]
        threading.Thread(target=_watch, args=(folders,), daemon=True).start()


def _watch(folders: list[Path]) -> None:
    before = _state(folders)
    while True:
        time.sleep(_LOOK_EVERY)
        now = _state(folders)
        changed = sorted({path for path, _ in before ^ now})
        before = now
        if changed and not _unfinished(changed):
            _log.info("%s changed: starting anew", changed[0])
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _unfinished(changed: list[str]) -> bool:
    """Tell whether a changed module is no Python yet, and say so."""
    for path in map(Path, changed):
        try:
            if path.suffix == ".py" and path.exists():
                ast.parse(path.read_bytes(), path)
        except (SyntaxError, ValueError) as error:
            _log.info("%s is not finished: %s", path, error)
            return True
    return False


def _state(folders: list[Path]) -> set[tuple[str, int]]:
    return {entry for folder in folders for entry in _files(folder)}


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield the path and time of every file that the page is made of."""
    for base, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in _SKIPPED]
        for name in names:
            path = Path(base, name)
            if path.suffix in _SUFFIXES and path.exists():
                yield str(path), path.stat().st_mtime_ns
