"""Build and measure in the background of the running server: one thing at a time, told as it goes.

A run belongs to the server and to no request: whoever started it may leave, and whoever comes sees
how far it is. When the server ends, a build is broken off and the old index stays as it was.
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Generic, Literal, TypeVar

from assistant.build import Progress
from assistant.errors import AssistantError, BuildBusy, QualityDropped

Result = TypeVar("Result")
Outcome = Literal["never", "running", "done", "busy", "dropped", "failed", "stopped"]
Work = Callable[[Progress], Result]

_LOOK_EVERY = 0.25
_PATIENCE = 5.0
_log = logging.getLogger(__name__)


class _Stopped(Exception):
    """Break a run off: the server is ending."""


@dataclass(frozen=True, slots=True)
class Step:
    """Hold a stage of a run: when it began, in seconds after the start, and how far it came."""

    stage: str
    began: float
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Run(Generic[Result]):
    """Hold how a run stands; it is replaced as a whole by whatever happens.

    `error` is the sentence of what went wrong, "" where that is not for anyone's eyes.
    """

    number: int = 0
    outcome: Outcome = "never"
    by: str = ""
    started: datetime | None = None
    steps: tuple[Step, ...] = ()
    seconds: float = 0.0
    error: str = ""
    result: Result | None = None

    @property
    def running(self) -> bool:
        """Tell whether it is at work."""
        return self.outcome == "running"

    @property
    def share(self) -> float | None:
        """Return how much of the stage at hand is done, 0..1; None when that is not known."""
        last = self.steps[-1] if self.steps else None
        return last.done / last.total if last and last.total else None


class Job(Generic[Result]):
    """Run one kind of work at a time in a thread of its own. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._run: Run[Result] = Run()
        self._began = 0.0
        self._thread: threading.Thread | None = None
        self._ending = False

    @property
    def run(self) -> Run[Result]:
        """Return the run at work, or the last one."""
        return self._run

    def start(self, work: Work[Result], by: str) -> bool:
        """Begin a run; tell whether it began: not while another is at work."""
        with self._lock:
            if self._run.running or self._ending:
                return False
            number, began = self._run.number + 1, datetime.now(UTC)
            self._run = Run(number=number, outcome="running", by=by, started=began)
            self._began = time.monotonic()
            self._thread = threading.Thread(target=self._work, args=(work,), daemon=True)
            self._thread.start()
            return True

    def close(self, patience: float = _PATIENCE) -> None:
        """Break off what runs at its next step, and wait so many seconds for that."""
        with self._lock:
            self._ending, thread = True, self._thread
        if thread is not None:
            thread.join(patience)

    def _work(self, work: Work[Result]) -> None:
        try:
            self._end("done", result=work(self._tell))
        except _Stopped:
            self._end("stopped")
        except AssistantError as error:
            _log.warning("a run in the background ended: %s", error)
            self._end(_outcome(error), error=str(error))
        except Exception:  # of the work's own making: none of it is for a page
            _log.exception("a run in the background failed")
            self._end("failed")

    def _tell(self, stage: str, done: int, total: int) -> None:
        """Take a step's progress."""
        if self._ending:
            raise _Stopped
        steps = self._run.steps
        if steps and steps[-1].stage == stage:
            steps = (*steps[:-1], replace(steps[-1], done=done, total=total))
        else:
            steps = (*steps, Step(stage, self._seconds(), done, total))
        self._run = replace(self._run, steps=steps, seconds=self._seconds())

    def _end(self, outcome: Outcome, error: str = "", result: Result | None = None) -> None:
        self._run = replace(
            self._run, outcome=outcome, error=error, result=result, seconds=self._seconds()
        )

    def _seconds(self) -> float:
        return time.monotonic() - self._began


def _outcome(error: AssistantError) -> Outcome:
    if isinstance(error, BuildBusy):
        return "busy"
    return "dropped" if isinstance(error, QualityDropped) else "failed"


async def changes(job: Job[Result]) -> AsyncIterator[Run[Result]]:
    """Yield how a run stands whenever that changed, until it has ended."""
    seen: Run[Result] | None = None
    while True:
        run = job.run
        if run is not seen:
            seen = run
            yield run
        if not run.running:
            return
        await asyncio.sleep(_LOOK_EVERY)
