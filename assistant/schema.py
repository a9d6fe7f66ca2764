"""The tables of the history, and the migrations that make them.

Migrations are only ever added: a database of any earlier version becomes one of today's, and a
program meets a database of a later version by leaving it alone.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Dialect,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    Text,
    inspect,
    select,
    text,
)
from sqlalchemy.types import TypeDecorator


class Moment(TypeDecorator[datetime]):
    """Keep a time as UTC in ISO 8601 of fixed width, so that text order is the order of time."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        """Write a time with its zone."""
        return value.astimezone(UTC).isoformat(timespec="microseconds") if value else None

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Read a time."""
        return datetime.fromisoformat(value) if value else None


_tables = MetaData()

turns = Table(
    "turns",
    _tables,
    Column("seq", BigInteger, primary_key=True),
    Column("id", Text),
    Column("conversation", Text),
    Column("at", Moment),
    Column("kept", Float),  # when its age began to count, see rows.set_clock
    Column("question", Text),
    Column("verdict", Text),
    Column("confidence", Float),
    Column("reason", Text),
    Column("language", Text),
    Column("generation", Text),
    Column("elapsed_ms", Float),
    Column("answer", Text),
)
votes = Table(
    "votes",
    _tables,
    Column("turn", ForeignKey("turns.seq"), primary_key=True),
    Column("value", Integer),
    Column("reason", Text),
    Column("note", Text),
    Column("at", Moment),
)
tickets = Table(
    "tickets",
    _tables,
    Column("number", BigInteger, primary_key=True),
    Column("turn", ForeignKey("turns.seq")),
    Column("state", Text),
    Column("urgent", Integer),
    Column("reason", Text),
    Column("created", Moment),
    Column("owner", Text),
    Column("claimed", Moment),
    Column("closed", Moment),
    Column("packet", Text),
    Column("reply_to", Text),
)
notes = Table(
    "notes",
    _tables,
    Column("seq", BigInteger, primary_key=True),
    Column("ticket", ForeignKey("tickets.number")),
    Column("author", Text),
    Column("at", Moment),
    Column("text", Text),
)
outbox = Table(
    "outbox",
    _tables,
    Column("id", Text, primary_key=True),
    Column("ticket", ForeignKey("tickets.number")),
    Column("state", Text),
    Column("tries", Integer),
    Column("due", Moment),
    Column("error", Text),
)
proposals = Table(
    "proposals",
    _tables,
    Column("id", BigInteger, primary_key=True),
    Column("questions", Text),
    Column("passage", Text),
    Column("answer", Text),
    Column("author", Text),
    Column("origin", Text),
    Column("state", Text),
    Column("created", Moment),
    Column("kept", Float),
    Column("decided", Moment),
    Column("decided_by", Text),
    Column("note", Text),
)
facts = Table("facts", _tables, Column("name", Text, primary_key=True), Column("value", Float))
_version = Table(
    "schema_version", _tables, Column("version", Integer, primary_key=True), Column("at", Moment)
)

Migration = tuple[str, ...]

m001_conversations: Migration = (
    """CREATE TABLE turns (
        seq {key}, id TEXT NOT NULL UNIQUE, conversation TEXT NOT NULL, at TEXT NOT NULL,
        kept DOUBLE PRECISION NOT NULL, question TEXT NOT NULL, verdict TEXT NOT NULL,
        confidence DOUBLE PRECISION NOT NULL, reason TEXT NOT NULL, language TEXT NOT NULL,
        generation TEXT NOT NULL, elapsed_ms DOUBLE PRECISION NOT NULL, answer TEXT NOT NULL)""",
    "CREATE INDEX turns_of_conversation ON turns (conversation)",
    "CREATE INDEX turns_by_age ON turns (kept)",
    "CREATE INDEX turns_by_day ON turns (at)",
    """CREATE TABLE votes (
        turn {reference} PRIMARY KEY REFERENCES turns (seq) ON DELETE CASCADE,
        value INTEGER NOT NULL, reason TEXT NOT NULL, note TEXT NOT NULL, at TEXT NOT NULL)""",
)
m002_tickets: Migration = (
    """CREATE TABLE tickets (
        number {key},
        turn {reference} NOT NULL UNIQUE REFERENCES turns (seq) ON DELETE CASCADE,
        state TEXT NOT NULL, urgent INTEGER NOT NULL, reason TEXT NOT NULL, created TEXT NOT NULL,
        owner TEXT NOT NULL, claimed TEXT, closed TEXT, packet TEXT NOT NULL,
        reply_to TEXT NOT NULL)""",
    "CREATE INDEX tickets_by_state ON tickets (state, urgent, number)",
    """CREATE TABLE notes (
        seq {key}, ticket {reference} NOT NULL REFERENCES tickets (number) ON DELETE CASCADE,
        author TEXT NOT NULL, at TEXT NOT NULL, text TEXT NOT NULL)""",
    "CREATE INDEX notes_of_ticket ON notes (ticket)",
    """CREATE TABLE outbox (
        id TEXT PRIMARY KEY,
        ticket {reference} NOT NULL UNIQUE REFERENCES tickets (number) ON DELETE CASCADE,
        state TEXT NOT NULL, tries INTEGER NOT NULL, due TEXT NOT NULL, error TEXT NOT NULL)""",
    "CREATE INDEX outbox_by_state ON outbox (state, due)",
)
m003_proposals: Migration = (
    """CREATE TABLE proposals (
        id {key}, questions TEXT NOT NULL, passage TEXT NOT NULL, answer TEXT NOT NULL,
        author TEXT NOT NULL, origin TEXT NOT NULL, state TEXT NOT NULL, created TEXT NOT NULL,
        kept DOUBLE PRECISION NOT NULL, decided TEXT, decided_by TEXT NOT NULL,
        note TEXT NOT NULL)""",
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value DOUBLE PRECISION NOT NULL)",
)
MIGRATIONS: tuple[Migration, ...] = (m001_conversations, m002_tickets, m003_proposals)

_KEYS = {
    # AUTOINCREMENT: the number of a deleted ticket is never given to another.
    "sqlite": {"key": "INTEGER PRIMARY KEY AUTOINCREMENT", "reference": "INTEGER"},
    "postgresql": {
        "key": "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
        "reference": "BIGINT",
    },
}


def version_of(connection: Connection) -> int:
    """Return the version of a database: how many migrations made it; 0 is an empty one."""
    if not inspect(connection).has_table(_version.name):
        return 0
    return connection.scalar(select(_version.c.version).order_by(_version.c.version.desc())) or 0


def migrate(connection: Connection, now: datetime) -> None:
    """Run the migrations that a database lacks, within the transaction that is open."""
    done = version_of(connection)
    if not done:
        connection.execute(
            text("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER PRIMARY KEY, at TEXT)")
        )
    for number, migration in enumerate(MIGRATIONS[done:], done + 1):
        for statement in migration:
            connection.execute(text(statement.format(**_KEYS[connection.dialect.name])))
        connection.execute(_version.insert(), {"version": number, "at": now})
