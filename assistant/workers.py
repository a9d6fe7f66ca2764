"""Keep several workers of one service: fork them, replace one that died, end them together.

What a service imports is in memory once, for a fork shares it. A fork copies the locks that threads
hold and not the threads: the parent starts none, and does nothing but watch. (Libraries for numbers
and for memory may have some: these stop at a fork, by their own doing.)
"""

import gc
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

Work = Callable[[int, Callable[[], None]], int]

_DRAIN_SECONDS = 9.0
_SOON, _LATEST = 0.5, 30.0
_STEADY_SECONDS = 10.0
_READY = b"\xff"  # beside the numbers of signals
_log = logging.getLogger(__name__)


def run_workers(count: int, work: Work, started: Callable[[], None]) -> int:
    """Run workers 0 to `count` - 1 until SIGTERM or SIGINT; return the exit code.

    `work` is called in a process of its own, with its number and with what it calls when it can
    serve; it returns an exit code. The first worker runs alone until then: it may have to make what
    all need. When it ends before, so does the service, with its code; afterwards `started` is
    called once. A worker that dies is replaced, after a while when it did not live for long. Told
    to end, workers get SIGTERM, and SIGKILL when they take longer than nine seconds.
    """
    return _Workers(count, work, started).run()


@dataclass(slots=True)
class _Slot:
    """Hold the place of a worker: the process in it, or when there will be one."""

    pid: int = 0
    born: float = 0.0
    due: float = 0.0
    wait: float = 0.0


class _Workers:
    def __init__(self, count: int, work: Work, started: Callable[[], None]) -> None:
        self._slots = [_Slot() for _ in range(count)]
        self._work, self._started = work, started
        self._serving = False
        self._told = 0  # how often we were told to end
        self._woken, self._wake = os.pipe()
        self._life, self._alive = os.pipe()  # its end tells the workers that the parent died

    def run(self) -> int:
        for end in (self._woken, self._wake):
            os.set_blocking(end, False)
        gc.collect()
        gc.freeze()  # a collection would write to every page, and none would be shared any more
        with self._listening():
            while not self._told:
                code = self._replace()
                if code is not None:
                    return code
                self._sleep()
            return self._end()

    def _replace(self) -> int | None:
        """Fork the workers that are due; return the code of a first one that could not serve."""
        now = time.monotonic()
        for number, slot in enumerate(self._slots):
            if slot.pid and (code := _ended(slot)) is not None:
                if not self._serving:
                    return code
                self._plan(number, slot, code)
            if not slot.pid and slot.due <= now and (self._serving or number == 0):
                self._fork(number, slot)
        return None

    def _plan(self, number: int, slot: _Slot, code: int) -> None:
        """Say when a worker that died will be replaced: later each time, unless it lived long."""
        steady = time.monotonic() - slot.born > _STEADY_SECONDS
        slot.wait = _SOON if steady or not slot.wait else min(2 * slot.wait, _LATEST)
        slot.due = time.monotonic() + slot.wait
        _log.error("worker %d ended (%s); another starts in %g s", number, code, slot.wait)

    def _fork(self, number: int, slot: _Slot) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        slot.pid, slot.born = os.fork(), time.monotonic()
        if not slot.pid:
            code = 1
            try:
                code = self._be(number)
            except BaseException:
                _log.exception("worker %d failed", number)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)

    def _be(self, number: int) -> int:
        """Work, as a process that was just forked."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # from a terminal all get it; the parent acts
        os.close(self._alive)
        threading.Thread(target=_end_with, args=(self._life,), daemon=True).start()
        return self._work(number, lambda: _tell(self._wake))

    def _sleep(self) -> None:
        """Wait until something happened, or a worker is due."""
        dues = [slot.due for slot in self._slots if not slot.pid] if self._serving else []
        seconds = max(0.0, min(dues) - time.monotonic()) if dues else None
        select.select([self._woken], [], [], seconds)
        with suppress(BlockingIOError):
            if _READY in os.read(self._woken, 1024) and not self._serving:
                self._serving = True
                self._started()

    def _end(self) -> int:
        for slot in self._slots:
            _send(slot, signal.SIGTERM)
        until, told = time.monotonic() + _DRAIN_SECONDS, self._told
        while any(slot.pid and _ended(slot) is None for slot in self._slots):
            if time.monotonic() > until or self._told > told:
                for slot in self._slots:
                    _send(slot, signal.SIGKILL)
            select.select([self._woken], [], [], 0.1)
            with suppress(BlockingIOError):
                os.read(self._woken, 1024)
        return 0

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Be woken by signals."""
        before = signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        kinds = {signal.SIGTERM: self._stop, signal.SIGINT: self._stop, signal.SIGCHLD: _nothing}
        handlers = {kind: signal.signal(kind, handler) for kind, handler in kinds.items()}
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            for kind, handler in handlers.items():
                signal.signal(kind, handler)
            for end in (self._woken, self._wake, self._life, self._alive):
                os.close(end)

    def _stop(self, *_: object) -> None:
        self._told += 1


def _nothing(*_: object) -> None:
    """Take a signal, so that it wakes the parent."""


def _ended(slot: _Slot) -> int | None:
    """Return the exit code of a worker that has ended, negative when a signal ended it."""
    pid, status = os.waitpid(slot.pid, os.WNOHANG)
    if not pid:
        return None
    slot.pid = 0
    return os.waitstatus_to_exitcode(status)


def _send(slot: _Slot, kind: signal.Signals) -> None:
    if slot.pid:
        os.kill(slot.pid, kind)


def _tell(wake: int) -> None:
    with suppress(BlockingIOError):
        os.write(wake, _READY)


def _end_with(life: int) -> None:
    """End this process when the parent did."""
    os.read(life, 1)
    os.kill(os.getpid(), signal.SIGTERM)
