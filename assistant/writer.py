"""One thread that writes: many waiting changes become one transaction (group commit).

A change that was acknowledged is stored; one that was refused is not. Only a disk that hangs in the
middle of a commit leaves that open: then the caller is refused after `_HANGING_SECONDS`.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar, cast

from sqlalchemy import Connection
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, ProgrammingError

from assistant.database import Database, not_saved, refusal
from assistant.kept import NotSaved

Result = TypeVar("Result")
Job = Callable[[Connection], Result]

_WAITING = 2000
_TOGETHER = 200
_PATIENCE_SECONDS = 1.0
_IMPATIENCE_SECONDS = 0.25  # while nothing can be saved, an answer is not held up by trying
_HANGING_SECONDS = 5.0
_REST_SECONDS = 0.05  # a database that failed is not tried more often
_OWN_FAULT = (DataError, IntegrityError, InterfaceError, ProgrammingError)
_log = logging.getLogger(__name__)


class _Task:
    """Hold a change on its way; `begun` and leaving the queue are guarded by the writer's lock."""

    __slots__ = ("begun", "done", "error", "job", "result", "scrub")

    def __init__(self, job: Job[Any], scrub: bool) -> None:
        self.job, self.scrub = job, scrub
        self.done = threading.Event()
        self.begun = False
        self.result: Any = None
        self.error: Exception | None = None


class Writer:
    """Make changes for many threads in one. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self.failure: NotSaved | None = None  # why the last transaction failed
        self._database = database
        self._queue: deque[_Task] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._rest_until = 0.0
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        self._thread.start()

    def do(self, job: Job[Result], scrub: bool = False, patience: float | None = None) -> Result:
        """Make a change and wait until it is stored; what the job raises is raised here.

        Raises NotSaved when it could not be stored. `scrub` takes out of the file what the job
        deleted, if it returns that it deleted something. `patience` is how many seconds to wait
        for a turn.
        """
        if patience is None:
            patience = _IMPATIENCE_SECONDS if self.failure else _PATIENCE_SECONDS
        task = _Task(job, scrub)
        self._add(task)
        if not task.done.wait(patience) and self._withdrawn(task):
            raise self.failure or not_saved("busy")
        if not task.done.wait(_HANGING_SECONDS):
            raise not_saved("failed")
        if task.error is not None:
            raise task.error
        return cast(Result, task.result)

    def later(self, job: Job[Any], scrub: bool = False) -> None:
        """Make a change some time soon, if possible."""
        with self._changed:
            self._queue.append(_Task(job, scrub))
            self._changed.notify()

    def close(self) -> None:
        """Store what waits, if possible, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(_HANGING_SECONDS)

    def _add(self, task: _Task) -> None:
        with self._changed:
            if self._closing:
                raise not_saved("closed")
            if len(self._queue) >= _WAITING:
                raise self.failure or not_saved("busy")
            self._queue.append(task)
            self._changed.notify()

    def _withdrawn(self, task: _Task) -> bool:
        """Take a task back that has not begun; tell whether it was."""
        with self._changed:
            if task.begun:
                return False
            self._queue.remove(task)
            return True

    def _run(self) -> None:
        while self._wait():
            time.sleep(max(0.0, self._rest_until - time.monotonic()))
            self._group()
            if self._database.untidy:
                self._database.tidy()

    def _wait(self) -> bool:
        """Wait until there is something to do; return False when there never will be."""
        with self._changed:
            while not self._queue and not self._closing:
                if not self._changed.wait(1.0 if self._database.untidy else None):
                    return True
            return bool(self._queue)

    def _group(self) -> None:
        """Make waiting changes in one transaction."""
        taken: list[_Task] = []
        try:
            with self._database.writing() as connection:
                taken = self._take(_TOGETHER)
                for task in taken:
                    _perform(connection, task)
        except NotSaved as error:
            self._failed(error, taken)
        except Exception as error:  # the thread must outlive whatever a library raises
            _log.exception("a change of the history failed")
            self._database.close()
            self._failed(refusal(error), taken)
        else:
            self._stored(taken)

    def _take(self, most: int) -> list[_Task]:
        with self._changed:
            taken = [self._queue.popleft() for _ in range(min(most, len(self._queue)))]
            for task in taken:
                task.begun = True
        return taken

    def _stored(self, taken: list[_Task]) -> None:
        if self.failure and any(task.error is None for task in taken):
            _log.warning("the history is saved again")
            self.failure = None
        deleted = [task for task in taken if task.scrub and task.result]
        for task in taken:
            if task not in deleted:
                task.done.set()
        if deleted:
            self._database.scrub()
            for task in deleted:
                task.done.set()

    def _failed(self, error: NotSaved, taken: list[_Task]) -> None:
        if not self.failure or self.failure.reason != error.reason:
            _log.warning("the history is not saved: %s", error.reason)
        self.failure = error
        if error.reason != "locked":
            self._rest_until = time.monotonic() + _REST_SECONDS
        if error.reason != "locked" or self._closing:
            taken = taken + self._take(_WAITING)
        # Of a database that is locked the waiting tasks keep their turn until they are withdrawn.
        for task in taken:
            task.error = error
            task.done.set()


def _perform(connection: Connection, task: _Task) -> None:
    """Make one change within a savepoint, so that a bad one does not spoil the others."""
    # In SQL: a nested transaction of SQLAlchemy's takes longer than the change itself.
    connection.exec_driver_sql("SAVEPOINT one")
    try:
        task.result = task.job(connection)
    except Exception as error:
        if isinstance(error, DBAPIError) and not isinstance(error, _OWN_FAULT):
            raise
        task.error = not_saved("failed") if isinstance(error, DBAPIError) else error
        connection.exec_driver_sql("ROLLBACK TO SAVEPOINT one")
    connection.exec_driver_sql("RELEASE SAVEPOINT one")
