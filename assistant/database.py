"""Open the history's database, keep its file safe, and say in plain words why it cannot be used.

The database may fail at any time and come back: it is opened when it is needed, and again after it
was lost. A SQLite file that is damaged is set aside, never deleted, and a new one begun; one that a
later version of the program wrote, or another program, is left alone.
"""

import errno
import logging
import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError

from assistant import postgres
from assistant.errors import UsageError
from assistant.kept import NotSaved
from assistant.schema import MIGRATIONS, migrate, version_of

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

_LOCK_SECONDS = 0.8  # how long another program's lock is waited for
_LOOK_SECONDS = 0.02
_REST_SECONDS = 0.5  # a server that cannot be reached is not tried more often
_MOST_CHECKED = 256 << 20  # bytes; to read a larger file through takes seconds
_MOST_REWRITTEN = 16 << 20  # bytes; rewriting takes 8 ms a megabyte
_REWRITE_SECONDS = 24 * 3600.0
_log = logging.getLogger(__name__)

# --- Why it cannot be used ----------------------------------------------------------------------

_WORDS = {
    "locked": ("数据库正被别的程序占用", "another program holds the database"),
    "full": ("磁盘已满", "the disk is full"),
    "readonly": ("数据库只读", "the database is read-only"),
    "gone": ("打不开数据库文件", "the database's file cannot be opened"),
    "broken": ("数据库已损坏", "the database is damaged"),
    "newer": ("数据库由更新的版本写成", "a later version of the program wrote the database"),
    "foreign": ("这个数据库属于别的程序", "the database is another program's"),
    "busy": ("等待保存的太多", "too much waits to be saved"),
    "closed": ("程序正在停止", "the program is stopping"),
    "failed": ("数据库没有响应", "the database does not answer"),
}
_CODES = {
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_READONLY: "readonly",
    sqlite3.SQLITE_CANTOPEN: "gone",
    sqlite3.SQLITE_CORRUPT: "broken",
    sqlite3.SQLITE_NOTADB: "broken",
}
_NUMBERS = {
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
    errno.EROFS: "readonly",
    errno.EACCES: "readonly",
    errno.EPERM: "readonly",
    errno.ENOENT: "gone",
}


def not_saved(reason: str) -> NotSaved:
    """Return the error for a reason."""
    chinese, english = _WORDS[reason]
    return NotSaved(
        f"没有保存：{chinese}。请稍后再试。 / Not saved: {english}. Please try again later.", reason
    )


def refusal(error: Exception) -> NotSaved:
    """Say as NotSaved why the database failed."""
    if isinstance(error, NotSaved):
        return error
    cause = getattr(error, "orig", error)
    if isinstance(cause, OSError):
        return not_saved(_NUMBERS.get(cause.errno or 0, "failed"))
    if code := getattr(cause, "sqlite_errorcode", 0):
        return not_saved(_CODES.get(code & 0xFF, "failed"))
    return not_saved(postgres.reason(cause))


# --- The file of a SQLite database --------------------------------------------------------------

Mark = tuple[int, int, int, int]


class File:
    """The file of a SQLite database, looked at from outside.

    It is never opened here: to close a second handle of it would drop SQLite's own locks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let one program at a time open the file, for it may begin a new one or set one aside.

        Raises NotSaved when another takes long.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not fcntl:
            yield
            return
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            _lock(folder)
            yield
        finally:
            os.close(folder)

    def mark(self) -> Mark:
        """Return what changes when another writes to the file, or puts one in its place."""
        status = os.stat(self.path)
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    def read_only(self) -> bool:
        """Tell whether the file is there, in a folder that cannot be written to."""
        return self.path.exists() and not os.access(self.path.parent, os.W_OK)

    def begin(self, stamp: str) -> str:
        """Make a file that only its owner reads where there is none; return what is odd, or ""."""
        odd = ""
        if not self.path.exists():
            odd = "missing" if self._traces() else ""
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        elif not self.path.stat().st_size:
            odd = "empty"
        if self.path.stat().st_mode & 0o077:
            with suppress(PermissionError):  # it is another's, who lets this program write to it
                self.path.chmod(0o600)
        if odd:
            # SQLite would delete a log that has no database any more.
            self._set_aside(f"lost-{stamp}", ("-shm", "-wal"))
        return odd and (
            f"{self.path.name} was {odd}, so a new history was begun. If it is not to be new, stop "
            "the program and restore a backup."
        )

    def quarantine(self, stamp: str) -> str:
        """Set a damaged file aside with its log, never deleting it; return words for it."""
        name = self._set_aside(f"corrupt-{stamp}", ("-shm", "-wal", ""))
        return (
            f"{self.path.name} was damaged: it was set aside as {name}, and a new history begun. "
            "Restore a backup or take out what can be read; then delete it, for it forgets nobody."
        )

    def _traces(self) -> bool:
        names = (one.name for one in self.path.parent.iterdir())
        return any(name.startswith(f"{self.path.name}") for name in names)

    def _set_aside(self, why: str, ends: tuple[str, ...]) -> str:
        name, tries = f"{self.path.name}.{why}", 1
        while any(self.path.with_name(name + end).exists() for end in ends):
            tries += 1
            name = f"{self.path.name}.{why}-{tries}"
        for end in ends:
            with suppress(FileNotFoundError):
                os.rename(f"{self.path}{end}", self.path.with_name(name + end))
        return name


def _lock(folder: int) -> None:
    """Lock an open folder, until it is closed; raise NotSaved when that takes long."""
    until = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise not_saved("locked") from None
            time.sleep(_LOOK_SECONDS)


# --- The database -------------------------------------------------------------------------------


class Database:
    """A database that is opened when it is used. Thread-safe, but one thread alone may write."""

    def __init__(self, address: str, clock: Callable[[], datetime]) -> None:
        """Read the address; raise UsageError for one that names no usable database."""
        self._url = _url_of(address)
        self._clock = clock
        self._file = File(Path(self._url.database or "")) if _lite(self._url) else None
        self.notes: tuple[str, ...] = ()
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._writer: Connection | None = None
        self._left: Mark | None = None  # how the file was when it was last written here
        self._version = 0  # of the data, as the writer saw it
        self._begun = False
        self._refused: NotSaved | None = None
        self._unreached: NotSaved | None = None
        self._again = 0.0  # when to look next whether the server is back
        self._file_stale = self._log_stale = False  # may hold what was deleted
        self._rewritten = -_REWRITE_SECONDS

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Lend a connection; raise NotSaved when the database cannot be read."""
        try:
            with self._opened().connect() as connection:
                yield connection
        except (SQLAlchemyError, OSError) as error:
            if self._lost(error):
                self.close()
            raise self._refusal(error) from error

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Lend a connection that alone writes, within a transaction that is then committed.

        Raises NotSaved when it cannot begin or commit, or when a statement says that the database
        failed: nothing of the transaction is stored then.
        """
        try:
            with self._lent() as connection, connection.begin():
                yield connection
            self._written()
        except (SQLAlchemyError, OSError, NotSaved) as error:
            found = self._refusal(error)
            if self._lost(error) or found.reason not in ("locked", "full"):
                self.close()
            if found.reason == "broken":
                self._left = None
            raise found from error

    @contextmanager
    def _lent(self) -> Iterator[Connection]:
        if self._file:
            yield self._to_write()
        else:
            with self._opened().connect() as connection:
                yield connection.execution_options(immediate=True)

    def _written(self) -> None:
        """Remember the file as a commit left it; raise NotSaved when it is another by now."""
        if self._file:
            mark, before = self._file.mark(), self._left
            if before and mark[:2] != before[:2]:
                raise not_saved("gone")
            self._left = mark

    def close(self) -> None:
        """Close every connection; the next use opens the database again."""
        touched = self._touched()
        with self._lock:
            writer, engine, self._writer, self._engine = self._writer, self._engine, None, None
        if writer is not None:
            with suppress(SQLAlchemyError):
                writer.close()
        if engine is not None:
            engine.dispose()
        if self._file and not touched:
            with suppress(OSError):
                self._left = self._file.mark()  # SQLite tidies up when the last one leaves

    def scrub(self) -> None:
        """Take out of the file and of its log what was deleted; for the thread that writes.

        Deleted content is overwritten at once (`secure_delete`), yet where SQLite rearranged a page
        before, a copy may be left: only rewriting the file leaves none. A large file is rewritten
        once a day, by `tidy`.
        """
        if self._file:
            self._file_stale = self._log_stale = True
            self._clean(self._file, rewrite=self._is_small())

    @property
    def untidy(self) -> bool:
        """Tell whether `tidy` has something to do."""
        return self._log_stale or (self._file_stale and self._rewriting_is_due())

    def tidy(self) -> None:
        """Do what `scrub` had to leave, if it is time; for the thread that writes."""
        if self._file and self.untidy:
            self._clean(self._file, rewrite=self._rewriting_is_due())

    def _clean(self, file: File, rewrite: bool) -> None:
        try:
            connection: Any = self._to_write().connection.driver_connection
            if rewrite and self._file_stale:
                connection.execute("VACUUM")
                self._rewritten = time.monotonic()
                self._file_stale, self._log_stale = False, True
            if self._log_stale:
                blocked, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                self._log_stale = bool(blocked)
            self._left = file.mark()
        except (sqlite3.Error, SQLAlchemyError, OSError, NotSaved) as error:
            _log.info("what was deleted may still stand in the file: %s", refusal(error))

    def _is_small(self) -> bool:
        return self._left is not None and self._left[2] <= _MOST_REWRITTEN

    def _rewriting_is_due(self) -> bool:
        return self._is_small() or time.monotonic() - self._rewritten > _REWRITE_SECONDS

    def backup(self, path: Path) -> None:
        """Write a copy that is whole even while the database is written to."""
        if self._file is None:
            raise UsageError("Only a SQLite history is copied here; for PostgreSQL use pg_dump.")
        draft = path.with_name(f"{path.name}.tmp")
        try:
            draft.unlink(missing_ok=True)
            os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            with self.reading() as connection, closing(sqlite3.connect(draft)) as copy:
                source: Any = connection.connection.driver_connection
                source.backup(copy)
            os.replace(draft, path)
        except (OSError, sqlite3.Error, NotSaved) as error:
            draft.unlink(missing_ok=True)
            raise refusal(error) from error

    def _refusal(self, error: Exception) -> NotSaved:
        found = refusal(error)
        if found.reason == "gone" and self._file and self._file.read_only():
            return not_saved("readonly")  # SQLite cannot open its log then, and says no more
        return found

    def _touched(self) -> bool:
        """Tell whether another wrote to the file, took it away or put another in its place."""
        try:
            return self._file is not None and self._file.mark() != self._left
        except OSError:
            return True

    def _accounted(self, writer: Connection) -> bool:
        """Tell whether another program's commits may account for a change of the file."""
        try:
            mark, version = self._file.mark() if self._file else None, _data_version(writer)
        except (OSError, sqlite3.Error, SQLAlchemyError):
            return False
        if not (mark and self._left and mark[:2] == self._left[:2] and version != self._version):
            return False
        self._left, self._version = mark, version
        return True

    def _to_write(self) -> Connection:
        if self._writer is not None and self._touched() and not self._accounted(self._writer):
            self.close()
        if self._writer is None:
            self._writer = self._opened().connect().execution_options(immediate=True)
            self._version = _data_version(self._writer)
        return self._writer

    def _opened(self) -> Engine:
        with self._lock:
            if self._refused:
                raise self._refused
            if self._engine is None:
                self._engine = self._open_file(self._file) if self._file else self._open_server()
            return self._engine

    def _open_file(self, file: File) -> Engine:
        if self._begun and not file.path.exists():
            raise not_saved("gone")
        with file.alone():
            return self._open()

    def _open_server(self) -> Engine:
        """Reach for the server; once that was in vain, nobody waits for another try."""
        if self._unreached:
            if time.monotonic() > self._again:
                self._again = math.inf  # by one at a time
                threading.Thread(target=self._look, name="server", daemon=True).start()
            raise self._unreached
        try:
            return self._open()
        except SQLAlchemyError as error:
            self._lost(error)
            raise

    def _lost(self, error: Exception) -> bool:
        """Tell whether an error says that the server is not there; nobody waits for it then."""
        if self._file or not isinstance(error, OperationalError) or postgres.told(error.orig):
            return False
        if not self._unreached:
            said = " ".join(str(error.orig).split())
            _log.warning("the history's server cannot be reached: %s", said)
            self._unreached = refusal(error)
        return True

    def _look(self) -> None:
        """See whether the server can be used again."""
        try:
            engine = self._open()
            with self._lock:
                self._engine, self._unreached = engine, None
        except (SQLAlchemyError, OSError, NotSaved) as error:
            _log.info("the history's server is not back: %s", refusal(error).reason)
        finally:
            self._again = time.monotonic() + _REST_SECONDS

    def _open(self, anew: bool = False) -> Engine:
        """Open the database; one that is damaged is set aside and one begun anew."""
        stamp = self._clock().strftime("%Y%m%dT%H%M%S")
        if self._file:
            odd = self._file.begin(stamp)
            self._note("" if anew else odd)
        engine = _engine_of(self._url)
        try:
            with engine.connect() as connection:
                version = self._checked(connection)
            if version < len(MIGRATIONS):
                with engine.connect().execution_options(immediate=True) as connection:
                    migrate(connection, self._clock())
                    connection.commit()
        except (SQLAlchemyError, OSError, NotSaved) as error:
            engine.dispose()
            if self._file is None or anew or refusal(error).reason != "broken":
                raise
            self._note(self._file.quarantine(stamp))
            return self._open(anew=True)
        if self._file:
            self._left = self._file.mark()
        self._begun = True
        return engine

    def _checked(self, connection: Connection) -> int:
        """Return the version; raise NotSaved for a damaged database, a later one, another's."""
        if self._file and self._touched() and self._file.mark()[2] <= _MOST_CHECKED:
            how = "integrity_check" if self._begun else "quick_check"
            if connection.exec_driver_sql(f"PRAGMA {how}(1)").scalar() != "ok":
                raise not_saved("broken")
        tables = inspect(connection).get_table_names()  # first: others may migrate right now
        version = version_of(connection)
        if version > len(MIGRATIONS):
            raise self._refuse("newer", "was written by a later version of the program")
        if not version and tables:
            raise self._refuse("foreign", "belongs to another program")
        return version

    def _refuse(self, reason: str, what: str) -> NotSaved:
        self._note(
            f"The history's database {what}: it is left alone and nothing is saved. Update the "
            "program, or name another database with ASSISTANT_HISTORY."
        )
        self._refused = not_saved(reason)
        return self._refused

    def _note(self, words: str) -> None:
        if words:
            _log.warning("%s", words)
            self.notes = (*self.notes, words)


def _lite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _url_of(address: str) -> URL:
    expected = "expected sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME"
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        raise UsageError(f"ASSISTANT_HISTORY is no address of a database; {expected}.") from None
    if url.drivername in ("postgresql", postgres.DRIVER):
        postgres.require_driver()
        return url.set(drivername=postgres.DRIVER)
    if url.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise UsageError(f"ASSISTANT_HISTORY names an unknown kind of database; {expected}.")
    if url.database in (None, "", ":memory:"):
        raise UsageError(f"ASSISTANT_HISTORY names no file; {expected}.")
    return url


def _engine_of(url: URL) -> Engine:
    if not _lite(url):
        return postgres.open_engine(url)
    engine = create_engine(
        url,
        hide_parameters=True,  # what people wrote must not reach a log with a failed statement
        connect_args={"timeout": _LOCK_SECONDS},
        pool_size=8,
        max_overflow=32,
        pool_timeout=2,
    )
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _data_version(connection: Connection) -> int:
    """Return a number that changes when another connection has committed."""
    driver: Any = connection.connection.driver_connection
    return int(driver.execute("PRAGMA data_version").fetchone()[0])


def _prepare(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions are begun by `_begin`, not by the driver
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "secure_delete = ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    # A transaction that will write takes the lock at once: to get it later may fail halfway.
    immediate = connection.get_execution_options().get("immediate")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
