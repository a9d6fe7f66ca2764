"""Who may do what: people with a password, tokens for a role, and the sessions they begin.

Two small files lie in one folder, readable by their owner alone: `users.toml`, which an operator
may edit, and `sessions.json` with the key that signs sessions and those that were ended early.
Both are read again when they change, so that a removed person is out at the next request.
"""

import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import threading
import time
import tomllib
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, cast, get_args

import tomlkit
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from itsdangerous import BadData, URLSafeTimedSerializer

from assistant.errors import BadInput, UsageError
from assistant.settings import Settings

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

Role = Literal["agent", "maintainer"]

_SESSION = re.compile(r"[\w.-]+", re.ASCII)  # what base64 would skip is no part of a session
_NAME = re.compile(r"[\w.@-]{1,64}")
_TOKEN_CHARS = 16
_PASSWORD_CHARS = 10
_LONGEST = 1024
_KEY_CHARS = 64
_HASHER = PasswordHasher()
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Person:
    """Hold who is signed in; whoever came with a role's token bears the role's name."""

    name: str
    role: Role

    def may(self, role: Role) -> bool:
        """Tell whether this person may do what a role may; a maintainer may do all."""
        return self.role in (role, "maintainer")


@dataclass(frozen=True, slots=True)
class _User:
    role: Role
    password: str  # its hash


class Access:
    """Know the people and tokens of one installation, and sign their sessions. Thread-safe."""

    def __init__(self, users: "_Users", sessions: "_Sessions", tokens: dict[Role, str]) -> None:
        self._users = users
        self._sessions = sessions
        self._tokens = tokens
        self._nobody = _hash_of_nobody()
        self.first_run: dict[Role, str] = {}

    @classmethod
    def open(cls, settings: Settings) -> "Access":
        """Read tokens, users and the signing key; make tokens where nobody could sign in.

        Raises UsageError for a weak token, and for a users file that cannot be read.
        """
        users = _Users(settings.users)
        access = cls(users, _Sessions(settings), _given_tokens(settings))
        if not users.read() and not access._tokens:
            access.first_run = {role: secrets.token_urlsafe(24) for role in get_args(Role)}
            access._tokens = access.first_run
        return access

    @property
    def lasting(self) -> bool:
        """Tell whether the end of a session can be kept where other processes see it."""
        return self._sessions.lasting

    @property
    def takes_passwords(self) -> bool:
        """Tell whether anybody has a password here."""
        return bool(self._users.now())

    @property
    def takes_tokens(self) -> bool:
        """Tell whether a role has a token here."""
        return bool(self._tokens)

    def by_token(self, token: str) -> Person | None:
        """Return who bears a role's token; every token is compared, in constant time."""
        given = _digest(token)
        same = [role for role, one in self._tokens.items() if _same(given, _digest(one))]
        return Person(same[0], same[0]) if same else None

    def by_password(self, name: str, password: str) -> Person | None:
        """Return who a name and password belong to; an unknown name takes the same work.

        Costs some 50 ms and 64 MiB on purpose: call it from a thread, and not from many.
        """
        name = unicodedata.normalize("NFC", name)
        user = self._users.now().get(name)
        right = _verified(user.password if user else self._nobody, password)
        return Person(name, user.role) if user and right else None

    def new_session(self, person: Person) -> str:
        """Return the signed value that stands for a person until it expires."""
        proof = self._sessions.sign(self._credential(person.name) or "")
        return self._sessions.begin([person.name, proof])

    def read_session(self, value: str) -> Person | None:
        """Return whose session a value is; None when forged, expired, ended or revoked."""
        payload = self._sessions.read(value) if _SESSION.fullmatch(value) else None
        if payload is None:
            return None
        name, proof = payload
        credential = self._credential(name)
        if credential is None or not _same(self._sessions.sign(credential), proof):
            return None
        user = self._users.now().get(name)
        return Person(name, user.role if user else cast(Role, name))

    def end_session(self, value: str) -> None:
        """Make a session value worthless before it expires."""
        self._sessions.end(value)

    def form_token(self, value: str) -> str:
        """Return what a form must carry that was given to a session or a visit (CSRF)."""
        return self._sessions.sign(f"form {value}")

    def is_form_token(self, token: str, value: str) -> bool:
        """Tell whether a form was given to this session or visit."""
        return bool(value) and _same(token, self.form_token(value))

    def _credential(self, name: str) -> str | None:
        """Return what a person's sessions hang on: a changed one revokes them."""
        if name in get_args(Role):
            return self._tokens.get(cast(Role, name))
        user = self._users.now().get(name)
        return user.password if user else None


def _given_tokens(settings: Settings) -> dict[Role, str]:
    given = {"agent": settings.agent_token, "maintainer": settings.maintainer_token}
    tokens = {cast(Role, role): token.get_secret_value() for role, token in given.items() if token}
    tokens = {role: token for role, token in tokens.items() if token}
    for role, token in tokens.items():
        if len(token) < _TOKEN_CHARS:
            raise UsageError(
                f"the setting {role}_token has {len(token)} characters, {_TOKEN_CHARS} or more are "
                'needed. Make one: python -c "import secrets; print(secrets.token_urlsafe(24))"'
            )
    if len(set(tokens.values())) < len(tokens):
        raise UsageError("agent_token and maintainer_token are the same: give each its own.")
    return tokens


@cache
def _hash_of_nobody() -> str:
    return _HASHER.hash(secrets.token_hex(16))


def _verified(hashed: str, password: str) -> bool:
    try:
        return _HASHER.verify(hashed, _secret(password))
    except (VerificationError, InvalidHashError):
        return False


def _secret(password: str) -> bytes:
    """Return the bytes of a password, the same from every keyboard."""
    return _bytes(unicodedata.normalize("NFC", password[:_LONGEST]))


def _digest(token: str) -> str:
    return hashlib.sha256(_bytes(token)).hexdigest()


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(_bytes(one), _bytes(other))


def _bytes(text: str) -> bytes:
    """Return the bytes of any text, also of one with half a character."""
    return text.encode("utf-8", "surrogatepass")


# --- The users file ------------------------------------------------------------------------------


class _Users:
    """The users file, read anew whenever it changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[object, dict[str, _User]] = (None, {})

    def now(self) -> dict[str, _User]:
        """Return the users by name; nobody while the file cannot be read."""
        stamp = _stamp(self._path)
        if stamp != self._seen[0]:
            try:
                self._seen = (stamp, self.read())
            except UsageError as error:
                _log.error("nobody can sign in with a password: %s", error)
                self._seen = (stamp, {})
        return self._seen[1]

    def read(self) -> dict[str, _User]:
        """Read the file; no file is no user. Raises UsageError."""
        try:
            told = tomllib.loads(self._path.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise self._wrong(f"cannot be read ({why})") from None
        users = told.get("users", {})
        if not isinstance(users, dict) or told.keys() - {"users"}:
            raise self._wrong("has other tables than [users.NAME]")
        return {name: self._user(name, fields) for name, fields in users.items()}

    def _user(self, name: str, fields: object) -> _User:
        fields = fields if isinstance(fields, dict) else {}
        role, password = fields.get("role"), fields.get("password")
        if not _NAME.fullmatch(name) or name in get_args(Role) or role not in get_args(Role):
            raise self._wrong(f"has a user {name!r} whose name or role cannot be taken")
        if not isinstance(password, str) or not password.startswith("$argon2"):
            raise self._wrong(f"has a user {name!r} without a hashed password")
        return _User(cast(Role, role), password)

    def _wrong(self, words: str) -> UsageError:
        return UsageError(
            f"the users file {self._path} {words}. Mend it, or remove it and add people with: "
            "assistant user add NAME --role agent"
        )


def list_users(path: Path) -> dict[str, Role]:
    """Return the role of everybody in a users file, by name. Raises UsageError."""
    return {name: user.role for name, user in sorted(_Users(path).read().items())}


def add_user(path: Path, name: str, role: Role, password: str) -> bool:
    """Add a person to the users file, or give one a new role and password; tell if it is a new one.

    Raises BadInput for a name or password that cannot be taken, UsageError for a broken file.
    """
    name = unicodedata.normalize("NFC", name)
    if not _NAME.fullmatch(name) or name in get_args(Role):
        raise BadInput(
            f"the name {name!r} cannot be taken: use 1 to 64 letters, digits or . _ @ - and no "
            "name of a role"
        )
    if not _PASSWORD_CHARS <= len(password) <= _LONGEST or password == name:
        raise BadInput(
            f"the password has {len(password)} characters: {_PASSWORD_CHARS} to {_LONGEST} are "
            "needed, and not the name"
        )
    with _changing(path) as document:
        users = document.setdefault("users", tomlkit.table(is_super_table=True))
        new = name not in users
        user = tomlkit.table()
        user.update({"role": role, "password": _HASHER.hash(_secret(password))})
        users[name] = user
    return new


def remove_user(path: Path, name: str) -> None:
    """Remove a person from the users file; their sessions end. Raises BadInput, UsageError."""
    with _changing(path) as document:
        if document.get("users", {}).pop(unicodedata.normalize("NFC", name), None) is None:
            raise BadInput(f"there is no user {name!r}; see: assistant user list")


@contextmanager
def _changing(path: Path) -> Iterator[tomlkit.TOMLDocument]:
    """Give the users file to be changed by one process at a time, and replace it as a whole."""
    try:
        with _alone(path):
            _Users(path).read()
            document = tomlkit.parse(path.read_text("utf-8") if path.exists() else "")
            yield document
            _write_privately(path, tomlkit.dumps(document))
    except OSError as error:
        raise UsageError(f"cannot write the users file {path}: {error.strerror}") from None


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process at a time change a file. Raises OSError."""
    path.parent.mkdir(0o700, parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("w") as lock:
        if fcntl:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _stamp(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _write_privately(path: Path, text: str) -> None:
    """Replace a file as a whole by one that its owner alone can read. Raises OSError."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


# --- Sessions ------------------------------------------------------------------------------------


class _Sessions:
    """Sign values with a key that outlives the process, and remember which were ended early.

    Processes that share the file know of each other's ends; they are forked with one key.
    """

    def __init__(self, settings: Settings) -> None:
        self._path = settings.users.with_name("sessions.json")
        self._seconds = max(1, int(settings.session_hours * 3600))
        self._lock = threading.Lock()
        self._stamp: object = None
        self._key, self._ended = self._load()
        self._signer = URLSafeTimedSerializer(
            self._key, salt="session", signer_kwargs={"digest_method": hashlib.sha256}
        )

    @property
    def lasting(self) -> bool:
        return os.access(self._path.parent, os.W_OK)

    def sign(self, text: str) -> str:
        return hmac.new(self._key.encode(), _bytes(text), hashlib.sha256).hexdigest()

    def begin(self, words: list[str]) -> str:
        return str(self._signer.dumps([*words, secrets.token_urlsafe(12)]))

    def read(self, value: str) -> list[str] | None:
        """Return the words of a value that is ours, in its time and not ended."""
        told = self._opened(value)
        return None if told is None or told[-1] in self._now_ended() else told[:-1]

    def end(self, value: str) -> None:
        told = self._opened(value)
        if told is None:
            return
        with self._lock:
            try:
                with _alone(self._path):
                    self._end(told[-1])
            except OSError:  # no lock to be had, so no file to be written either
                self._end(told[-1])

    def _end(self, name: str) -> None:
        now = time.time()
        kept = {one: until for one, until in self._now_ended().items() if until > now}
        self._ended = {**kept, name: now + self._seconds}
        self._save()

    def _opened(self, value: str) -> list[str] | None:
        try:
            told: list[str] = self._signer.loads(_bytes(value), max_age=self._seconds)
        except BadData:
            return None
        return told

    def _now_ended(self) -> dict[str, float]:
        """Return what was ended, here or by another process."""
        stamp = _stamp(self._path)
        if stamp != self._stamp:
            self._stamp = stamp
            with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
                self._ended = {**self._ended, **self._read()[1]}
        return self._ended

    def _read(self) -> tuple[str, dict[str, float]]:
        told = json.loads(self._path.read_bytes())
        key = bytes.fromhex(told["key"]).hex()
        if len(key) != _KEY_CHARS:
            raise ValueError("the key is cut")
        return key, {str(name): float(until) for name, until in told["ended"].items()}

    def _load(self) -> tuple[str, dict[str, float]]:
        try:
            return self._read()
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            _log.warning("%s cannot be read: everybody signs in anew", self._path)
        self._key, self._ended = secrets.token_hex(_KEY_CHARS // 2), {}
        self._save()
        return self._key, self._ended

    def _save(self) -> None:
        try:
            self._path.parent.mkdir(0o700, parents=True, exist_ok=True)
            _write_privately(self._path, json.dumps({"key": self._key, "ended": self._ended}))
        except OSError as error:
            _log.warning(
                "%s cannot be written (%s): sessions last until the next start, and that one was "
                "ended is known to this process alone",
                self._path,
                error.strerror,
            )
