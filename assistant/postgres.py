"""Keep the history on a PostgreSQL server: one program writes at a time, and none waits long."""

from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event

from assistant.errors import UsageError

DRIVER = "postgresql+psycopg"

_CONNECT_SECONDS = 2  # psycopg takes no less
_PING_SECONDS, _ANSWER_SECONDS = 1.0, 5.0  # a server that is frozen, or cut off, never says so
_CONNECTIONS, _MORE_CONNECTIONS, _FREE_SECONDS = 4, 4, 1
# All who write take turns, as with SQLite: what a change reads stays true until it has written, and
# two changes never wait for each other. The lock ends with its transaction, and that with a program
# that died, or whose machine did.
_TAKE_TURN = (
    "SET LOCAL lock_timeout = '800ms'; "
    "SET LOCAL idle_in_transaction_session_timeout = '10s'; "
    "SELECT pg_advisory_xact_lock(7147325081)"
)
_REASONS = {
    "25006": "readonly",  # read_only_sql_transaction
    "42501": "readonly",  # insufficient_privilege
    "40P01": "locked",  # deadlock_detected
    "55P03": "locked",  # lock_not_available
    "53100": "full",  # disk_full
}


def open_engine(url: URL) -> Engine:
    """Return an engine whose connections wait for no answer longer than five seconds.

    A transaction with the execution option `immediate` takes its turn to write when it begins.
    """
    patient = require_driver()

    class Impatient(patient.Connection[Any]):  # type: ignore[misc, name-defined]
        def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
            # Only the pool's ping comes outside of a transaction.
            seconds = _PING_SECONDS if self.autocommit else _ANSWER_SECONDS
            try:
                return super().wait(gen, interval, timeout or seconds)
            except patient.OperationalError:
                if self.info.transaction_status == patient.pq.TransactionStatus.ACTIVE:
                    self.close()  # the answer may still come, to somebody else
                raise

    engine = create_engine(
        url,
        hide_parameters=True,
        isolation_level="READ COMMITTED",
        connect_args={"connect_timeout": _CONNECT_SECONDS},
        pool_pre_ping=True,
        pool_size=_CONNECTIONS,
        max_overflow=_MORE_CONNECTIONS,
        pool_timeout=_FREE_SECONDS,
    )

    def connect(_dialect: object, _record: object, given: Any, named: Any) -> Any:
        return Impatient.connect(*given, **named)

    event.listen(engine, "do_connect", connect)
    event.listen(engine, "begin", _begin)
    return engine


def require_driver() -> Any:
    """Return the driver; raise UsageError, naming the extra, when it is not installed."""
    try:
        import psycopg
    except ImportError:
        raise UsageError(
            "ASSISTANT_HISTORY names a PostgreSQL database, which needs an extra here: "
            '.venv/bin/pip install -c constraints.txt -e ".[postgres]"'
        ) from None
    return psycopg


def told(error: BaseException | None) -> bool:
    """Tell whether an error is an answer of the server; else it is the way there that failed."""
    return getattr(error, "sqlstate", None) is not None


def reason(error: BaseException) -> str:
    """Return in one word why the server, or the way to it, failed (`database.not_saved`)."""
    return _REASONS.get(getattr(error, "sqlstate", None) or "", "failed")


def _begin(connection: Connection) -> None:
    if connection.get_execution_options().get("immediate"):
        connection.exec_driver_sql(_TAKE_TURN)
