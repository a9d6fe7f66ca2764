"""Who may do what: tokens, passwords, sessions and forms, through the public doors."""

import hmac
import html
import io
import re
import stat
import string
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote, urlencode

import argon2
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from jinja2 import Environment, FileSystemLoader, nodes
from small_app import create
from starlette.requests import Request
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from assistant import access as access_room
from assistant.access import Access, Person, add_user, list_users, remove_user
from assistant.cli import main
from assistant.errors import BadInput, UsageError
from assistant.settings import Settings, load_settings
from assistant.web import office as office_room
from assistant.web.login import local_path
from assistant.web.office import SESSION, office, static
from assistant.web.office_words import WORDS

AGENT, MAINTAINER = "agent-token-0123456789", "maintainer-token-0123456789"
PASSWORD = "correct horse battery"
HOUR = 3600
HASHER = access_room._HASHER
PAGE = {"Accept": "text/html,application/xhtml+xml"}


def settings_of(folder, **given):
    tokens = {"agent_token": AGENT, "maintainer_token": MAINTAINER}
    return Settings(users=folder / "var" / "users.toml", **{**tokens, **given})


@pytest.fixture(scope="module", autouse=True)
def _cheap_hashes():
    """Hash with little memory, but where the cost itself is looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("assistant.access._HASHER", argon2.PasswordHasher(1, 8, 1))
        access_room._hash_of_nobody.cache_clear()
        yield
    access_room._hash_of_nobody.cache_clear()


@pytest.fixture
def settings(tmp_path):
    return settings_of(tmp_path)


@pytest.fixture(scope="module")
def staffed(tmp_path_factory):
    """Settings with Anna the agent and Max the maintainer; read only."""
    settings = settings_of(
        tmp_path_factory.mktemp("staffed"), rate_per_minute=0, rate_login_per_minute=0
    )
    add_user(settings.users, "anna", "agent", PASSWORD)
    add_user(settings.users, "max", "maintainer", PASSWORD + "!")
    return settings


@pytest.fixture(scope="module")
def access(staffed):
    return Access.open(staffed)


# --- Tokens --------------------------------------------------------------------------------------


def test_a_token_gives_its_role_and_nothing_else_does(access):
    assert access.by_token(AGENT) == Person("agent", "agent")
    assert access.by_token(MAINTAINER) == Person("maintainer", "maintainer")
    for wrong in ("", " ", AGENT[:-1], AGENT + "x", AGENT.upper(), "令牌", "\ud800", "x" * 100_000):
        assert access.by_token(wrong) is None


def test_every_token_is_compared_and_in_constant_time(access, monkeypatch):
    """Whether the first fits, the last or none: as many comparisons, all of one length."""
    compared = []
    real = hmac.compare_digest

    def spy(one, other):
        compared.append((len(one), len(other)))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", spy)
    for token in (AGENT, MAINTAINER, "x", ""):
        compared.clear()
        access.by_token(token)
        assert compared == [(64, 64)] * 2


def test_a_maintainer_may_do_all_that_an_agent_may():
    assert Person("a", "maintainer").may("agent")
    assert Person("a", "maintainer").may("maintainer")
    assert Person("a", "agent").may("agent")
    assert not Person("a", "agent").may("maintainer")


def test_where_nobody_could_sign_in_each_start_makes_new_tokens(tmp_path):
    settings = Settings(users=tmp_path / "users.toml")
    first, second = Access.open(settings), Access.open(settings)
    tokens = [*first.first_run.values(), *second.first_run.values()]
    assert len(set(tokens)) == 4
    assert all(len(token) >= 32 for token in tokens)
    for role, token in first.first_run.items():
        person = first.by_token(token)
        assert person == Person(role, role)
        assert second.by_token(token) is None
        assert second.read_session(first.new_session(person)) is None
    assert not any(token in path.read_text() for path in tmp_path.iterdir() for token in tokens)


def test_no_tokens_are_made_where_somebody_can_sign_in(tmp_path, staffed):
    assert Access.open(staffed).first_run == {}
    only = Settings(users=tmp_path / "none.toml", agent_token=AGENT)
    access = Access.open(only)
    assert access.first_run == {}
    assert access.by_token("") is None
    assert Access.open(Settings(users=tmp_path / "none.toml", agent_token="")).first_run
    assert Access.open(Settings(users=staffed.users)).first_run == {}


@pytest.mark.parametrize("tokens", [("short", ""), ("", "x" * 15), (AGENT, AGENT)])
def test_weak_tokens_are_refused_without_being_shown(tmp_path, tokens):
    settings = settings_of(tmp_path, agent_token=tokens[0], maintainer_token=tokens[1])
    with pytest.raises(UsageError, match=r"_token") as refused:
        Access.open(settings)
    assert not any(token and token in str(refused.value) for token in tokens)


def test_a_secret_is_in_no_words_about_the_settings(settings, tmp_path, monkeypatch):
    assert AGENT not in repr(settings)
    (tmp_path / "assistant.toml").write_text('agent_tokn = "CANARY"\nagent_token = 12345678901\n')
    with pytest.raises(UsageError, match="agent_tokn") as refused:
        load_settings()
    assert "CANARY" not in str(refused.value)
    assert "12345678901" not in str(refused.value)


# --- Passwords -----------------------------------------------------------------------------------


def test_a_password_gives_its_person_and_nothing_else_does(access):
    assert access.by_password("anna", PASSWORD) == Person("anna", "agent")
    assert access.by_password("max", PASSWORD + "!") == Person("max", "maintainer")
    for name, password in (("anna", ""), ("max", PASSWORD), ("", PASSWORD), ("agent", AGENT)):
        assert access.by_password(name, password) is None
    assert access.by_password("anna\ud800", "\ud800") is None
    assert access.by_password("anna", PASSWORD.upper() * 10_000) is None


def test_an_unknown_name_takes_the_same_work(access, monkeypatch):
    """One hash of the same cost is computed whether a name is known or not."""
    costs = []
    real = argon2._password_hasher.verify_secret

    def spy(hashed, *rest):
        costs.append(argon2.extract_parameters(hashed.decode()))
        return real(hashed, *rest)

    monkeypatch.setattr(argon2._password_hasher, "verify_secret", spy)
    for name in ("anna", "nobody", "", "agent"):
        assert access.by_password(name, "wrong password") is None
    assert len(costs) == 4
    assert len(set(map(str, costs))) == 1


def test_passwords_are_hashed_as_rfc_9106_advises(monkeypatch, settings):
    monkeypatch.setattr("assistant.access._HASHER", HASHER)
    add_user(settings.users, "anna", "agent", PASSWORD)
    hashed = re.search(r'password = "(.*)"', settings.users.read_text())[1]
    assert argon2.extract_parameters(hashed) == argon2.profiles.RFC_9106_LOW_MEMORY


def test_a_password_is_the_same_from_every_keyboard(settings):
    add_user(settings.users, "zo\u00eb", "agent", "cafe\u0301 au lait")
    access = Access.open(settings)
    assert access.by_password("zoe\u0308", "caf\u00e9 au lait") == Person("zo\u00eb", "agent")


# --- The users file ------------------------------------------------------------------------------


def test_people_are_kept_hashed_in_a_file_for_its_owner_alone(staffed):
    text = staffed.users.read_text()
    assert PASSWORD not in text
    assert text.count("$argon2id$") == 2
    assert stat.S_IMODE(staffed.users.stat().st_mode) == 0o600
    assert stat.S_IMODE(staffed.users.parent.stat().st_mode) == 0o700
    assert list_users(staffed.users) == {"anna": "agent", "max": "maintainer"}


NAMES = st.text(string.ascii_letters + string.digits + "._@-客服ёß", min_size=1, max_size=64)


@examples(max_examples=8, deadline=None)
@given(st.sets(NAMES, min_size=1, max_size=3))
def test_whoever_was_added_is_listed_until_removed(tmp_path_factory, names):
    names -= {"agent", "maintainer"}
    path = tmp_path_factory.mktemp("names") / "users.toml"
    for name in names:
        assert add_user(path, name, "agent", PASSWORD)
    assert list_users(path).keys() == names
    for name in names:
        remove_user(path, name)
    assert list_users(path) == {}


@pytest.mark.parametrize(
    "name", ["", "a b", "a\n", "agent", "maintainer", "x" * 65, "a/b", "\ud800"]
)
def test_a_name_that_cannot_be_taken_is_said_so(settings, name):
    with pytest.raises(BadInput, match="name"):
        add_user(settings.users, name, "agent", PASSWORD)
    assert not settings.users.exists()


@pytest.mark.parametrize("password", ["", "short", "x" * 1025, "anna-marie.s"])
def test_a_weak_password_is_refused_and_not_shown(settings, password):
    with pytest.raises(BadInput, match="characters") as refused:
        add_user(settings.users, "anna-marie.s", "agent", password)
    assert not password or password not in str(refused.value)


def test_an_operators_own_words_in_the_file_stay(settings):
    settings.users.parent.mkdir()
    settings.users.write_text("# Night shift below\n")
    add_user(settings.users, "anna", "agent", PASSWORD)
    assert not add_user(settings.users, "anna", "maintainer", PASSWORD)
    remove_user(settings.users, "anna")
    assert settings.users.read_text().startswith("# Night shift below\n")


def test_people_added_at_the_same_moment_are_all_kept(settings):
    names = [f"person{number}" for number in range(6)]
    adding = [
        threading.Thread(target=add_user, args=(settings.users, name, "agent", PASSWORD))
        for name in names
    ]
    for thread in adding:
        thread.start()
    for thread in adding:
        thread.join()
    assert list(list_users(settings.users)) == names


BROKEN = [
    b"[users",
    b"\xff",
    b"users = 3",
    b"[user.anna]",
    b"[users.anna]",
    b"[users]\nanna = 3",
    b'[users.anna]\nrole = "boss"\npassword = "$argon2id$x"',
    b'[users.anna]\nrole = "agent"\npassword = "plain words"',
    b'[users.agent]\nrole = "agent"\npassword = "$argon2id$x"',
]


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_users_file_is_named_and_never_written_over(settings, content):
    settings.users.parent.mkdir()
    settings.users.write_bytes(content)
    for attempt in (
        lambda: Access.open(settings),
        lambda: list_users(settings.users),
        lambda: add_user(settings.users, "max", "agent", PASSWORD),
    ):
        with pytest.raises(UsageError, match=r"users\.toml .*assistant user add") as refused:
            attempt()
        assert "plain words" not in str(refused.value)
    assert settings.users.read_bytes() == content


def test_while_the_file_is_broken_nobody_has_a_session_and_then_again(settings, caplog):
    add_user(settings.users, "anna", "agent", PASSWORD)
    access = Access.open(settings)
    session = access.new_session(Person("anna", "agent"))
    whole = settings.users.read_bytes()
    settings.users.write_bytes(whole[:-3])
    assert access.read_session(session) is None
    assert access.by_token(AGENT)
    assert "users.toml" in caplog.text
    settings.users.write_bytes(whole)
    assert access.read_session(session) == Person("anna", "agent")


def test_the_command_line_adds_lists_and_removes(monkeypatch, capsys, tmp_path):
    def run(*arguments, typed=b""):
        stdin = io.TextIOWrapper(io.BytesIO(typed))
        monkeypatch.setattr("sys.stdin", stdin)
        return main(["user", *arguments]), *capsys.readouterr()

    added = run("add", "anna", "--role", "agent", typed=PASSWORD.encode() + b"\r\n")
    assert added[0] == 0
    assert run("list") == (0, "anna\tagent\n", "")
    access = Access.open(Settings(users=tmp_path / "var" / "users.toml"))
    assert access.by_password("anna", PASSWORD)
    again = run("add", "anna", "--role", "maintainer", typed=b"another password")
    assert "new password" in again[1]
    assert access.by_password("anna", "another password") == Person("anna", "maintainer")
    assert run("remove", "anna")[0] == 0
    assert run("list") == (0, "", "")
    for wrong in (run("remove", "anna"), run("add", "max", "--role", "agent", typed=b"\xff" * 12)):
        assert wrong[0] == 4
        assert wrong[2].startswith("assistant: ")
        assert wrong[2].count("\n") == 1


def test_a_person_at_the_keyboard_is_asked_twice(monkeypatch, capsys):
    typed = iter([PASSWORD, PASSWORD, PASSWORD, "something else"])
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(typed))
    assert main(["user", "add", "anna", "--role", "agent"]) == 0
    assert main(["user", "add", "max", "--role", "agent"]) == 4
    assert list_users(Path("var/users.toml")) == {"anna": "agent"}
    assert PASSWORD not in "".join(capsys.readouterr())


# --- Sessions ------------------------------------------------------------------------------------


def test_a_session_is_its_persons_until_it_expires(access, monkeypatch):
    now = time.time()
    for person in (Person("anna", "agent"), Person("maintainer", "maintainer")):
        session = access.new_session(person)
        monkeypatch.setattr(time, "time", lambda: now + 12 * HOUR - 5)
        assert access.read_session(session) == person
        monkeypatch.setattr(time, "time", lambda: now + 12 * HOUR + 5)
        assert access.read_session(session) is None
        monkeypatch.setattr(time, "time", lambda: now - HOUR)
        assert access.read_session(session) is None
        monkeypatch.undo()


@examples(max_examples=60, deadline=None)
@given(st.data())
def test_a_changed_session_is_nobodys(access, data):
    """Any character but the last, whose lowest bits carry nothing, as padding does."""
    session = access.new_session(Person("anna", "agent"))
    place = data.draw(st.integers(0, 1000)) % (len(session) - 1)
    other = data.draw(st.sampled_from(string.ascii_letters + string.digits + "-_.=é"))
    changed = session[:place] + other + session[place + 1 :]
    assert changed == session or access.read_session(changed) is None
    assert access.read_session(session[:place]) is None
    assert access.read_session(session + other.replace("=", "x")) is None


@examples(max_examples=60, deadline=None)
@given(st.text(max_size=80))
def test_any_other_text_is_nobodys_session(access, text):
    assert access.read_session(text) is None
    assert access.read_session(f".{text}.{text}.{text}") is None


def test_a_session_of_another_installation_is_nobodys(access, tmp_path):
    """Not even when names, tokens and users file are the same."""
    other = settings_of(tmp_path)
    other.users.parent.mkdir()
    other.users.write_bytes(access._users._path.read_bytes())
    session = Access.open(other).new_session(Person("anna", "agent"))
    assert access.read_session(session) is None


def test_a_new_password_a_new_token_and_a_removal_end_sessions_and_those_alone(settings):
    for name in ("anna", "max"):
        add_user(settings.users, name, "agent", PASSWORD)
    access = Access.open(settings)
    anna, max_ = (access.new_session(Person(name, "agent")) for name in ("anna", "max"))
    agent = access.new_session(Person("agent", "agent"))
    maintainer = access.new_session(Person("maintainer", "maintainer"))
    add_user(settings.users, "anna", "agent", PASSWORD + " new")
    assert access.read_session(anna) is None
    assert access.read_session(max_) == Person("max", "agent")
    remove_user(settings.users, "max")
    assert access.read_session(max_) is None
    changed = settings.model_copy(update={"agent_token": None})
    later = Access.open(changed)
    assert later.read_session(agent) is None
    assert later.read_session(maintainer) == Person("maintainer", "maintainer")


def test_a_role_changed_by_hand_counts_at_the_next_request(settings):
    add_user(settings.users, "anna", "maintainer", PASSWORD)
    access = Access.open(settings)
    session = access.new_session(Person("anna", "maintainer"))
    text = settings.users.read_text()
    settings.users.write_text(text.replace("maintainer", "agent"))
    assert access.read_session(session) == Person("anna", "agent")


def test_an_ended_session_stays_ended_over_a_restart(settings):
    access = Access.open(settings)
    one, two = (access.new_session(Person("agent", "agent")) for _ in range(2))
    assert one != two
    access.end_session(one)
    access.end_session("no session")
    for opened in (access, Access.open(settings)):
        assert opened.read_session(one) is None
        assert opened.read_session(two) == Person("agent", "agent")


def test_a_session_that_one_process_ended_is_ended_for_all(settings):
    """None of the ends is lost that many processes write at once."""
    processes = [Access.open(settings) for _ in range(4)]
    sessions = [processes[0].new_session(Person("agent", "agent")) for _ in range(40)]

    def end(number):
        for session in sessions[number::4]:
            processes[number].end_session(session)

    threads = [threading.Thread(target=end, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for process in (*processes, Access.open(settings)):
        assert process.lasting
        assert [one for one in sessions if process.read_session(one)] == []


def test_what_was_ended_is_forgotten_when_it_has_expired(settings, monkeypatch):
    access = Access.open(settings)
    file = settings.users.with_name("sessions.json")
    access.end_session(access.new_session(Person("agent", "agent")))
    once = file.stat().st_size
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 13 * HOUR)
    access.end_session(access.new_session(Person("agent", "agent")))
    assert abs(file.stat().st_size - once) < 10


def test_the_signing_key_is_its_owners_alone_and_a_broken_one_is_replaced(settings, caplog):
    session = Access.open(settings).new_session(Person("agent", "agent"))
    file = settings.users.with_name("sessions.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for content in (
        "",
        "[]",
        '{"key": "x"}',
        '{"key": "x", "ended": 3}',
        '{"key": "", "ended": {}}',
    ):
        file.write_text(content)
        caplog.clear()
        opened = Access.open(settings)
        assert opened.read_session(session) is None
        assert "signs in anew" in caplog.text
        session = opened.new_session(Person("agent", "agent"))
        assert Access.open(settings).read_session(session)


def test_without_a_folder_to_write_sessions_last_as_long_as_the_process(caplog):
    access = Access.open(settings_of(Path("/proc/nowhere")))
    session = access.new_session(Person("agent", "agent"))
    assert access.read_session(session)
    access.end_session(session)
    assert access.read_session(session) is None
    assert "until the next start" in caplog.text


# --- Signing in ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def app(staffed):
    return create(staffed)


@pytest.fixture
def client(app):
    with TestClient(app, "http://127.0.0.1", follow_redirects=False) as client:
        yield client


def fields_of(page):
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page))


def sign_in(client, onward="", **fields):
    """Fill in the form of the sign-in page."""
    form = fields_of(client.get("/login", params={"next": onward}).text)
    return client.post("/login", data={**form, **fields})


@pytest.mark.parametrize(
    ("fields", "home"),
    [
        ({"name": "anna", "password": PASSWORD}, "/agent"),
        ({"name": " max ", "password": PASSWORD + "!"}, "/maintain"),
        ({"token": AGENT + " "}, "/agent"),
        ({"token": MAINTAINER}, "/maintain"),
    ],
)
def test_who_signs_in_comes_to_the_page_of_the_role(client, fields, home):
    answer = sign_in(client, **fields)
    assert (answer.status_code, answer.headers["location"]) == (303, home)
    assert client.get(home).status_code == 200


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "anna", "password": PASSWORD + "!"},
        {"name": "nobody", "password": PASSWORD},
        {"name": "", "password": ""},
        {"token": "wrong"},
        {"token": ""},
        {},
    ],
)
def test_who_is_wrong_is_told_so_in_the_same_words(client, fields):
    answer = sign_in(client, "/agent?x=1", **fields)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "is not right" in answer.text
    assert fields_of(answer.text)["next"] == "/agent?x=1"
    assert f'id="name" name="name" value="{fields.get("name", "")}"' in answer.text
    assert SESSION not in answer.cookies
    assert not fields.get("password") or fields["password"] not in answer.text


def test_cookies_are_for_the_server_alone(client):
    for answer in (client.get("/login"), sign_in(client, token=AGENT)):
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert "Path=/" in cookie
        assert "Secure" not in cookie
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(("trusted", "secure"), [(["10.0.0.0/8"], True), (["10.9.0.0/16"], False)])
def test_a_cookie_is_secure_behind_https_of_a_trusted_proxy(staffed, trusted, secure):
    app = ProxyHeadersMiddleware(create(staffed), trusted)
    with TestClient(app, "http://127.0.0.1", client=("10.0.0.7", 1), follow_redirects=False) as c:
        c.headers["X-Forwarded-Proto"] = "https"
        assert ("Secure" in c.get("/login").headers["set-cookie"]) == secure
        cookie = c.get("/login", params={"token": AGENT}).headers["set-cookie"]
        assert ("Secure" in cookie) == secure


def test_a_stranger_cannot_sign_a_browser_in_by_a_form(app, client):
    """Login CSRF: the form of another visit, an older form without its cookie, none at all."""
    own = fields_of(client.get("/login").text)
    with TestClient(app, "http://127.0.0.1") as other:
        foreign = fields_of(other.get("/login").text)
    for form in (foreign, {}, {**own, "visit_token": ""}, {**own, "visit_token": "é"}):
        answer = client.post("/login", data={**form, "token": AGENT})
        assert answer.status_code == 403
        assert SESSION not in answer.cookies
    client.cookies.clear()
    assert client.post("/login", data={**own, "token": AGENT}).status_code == 403
    origin = {"Origin": "https://evil.example"}
    assert client.post("/login", data={"token": AGENT}, headers=origin).status_code == 403


def test_the_printed_link_becomes_a_cookie_and_leaves_the_address(client):
    answer = client.get("/login", params={"token": AGENT, "next": "/agent?q=1"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/agent?q=1")
    assert answer.text == ""
    assert AGENT not in str(answer.headers)
    assert client.get("/agent").status_code == 200


@pytest.mark.parametrize("token", ["wrong", "", "x" * 5000, "\U0001f600", "a\r\nSet-Cookie: x=y"])
def test_a_wrong_token_leaves_the_address_too(client, token):
    answer = client.get("/login?token=" + quote(token))
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?wrong")
    assert SESSION not in answer.cookies
    assert "is not right" in client.get("/login?wrong").text


ELSEWHERE = [
    "//evil.example",
    "///evil.example",
    "\\\\evil.example",
    "/\\evil.example",
    "\\/evil.example",
    "https://evil.example",
    "https:evil.example",
    "http:/evil.example",
    "javascript:alert(1)",
    "evil.example",
    "@evil.example",
    "/\t/evil.example",
    "\t//evil.example",
    "/\n/evil.example",
    " //evil.example",
    "/\x00/evil.example",
    "%2f%2fevil.example",
    "/\u2028/evil.example",
    "",
    "?x",
    "#x",
]


@pytest.mark.parametrize("address", ELSEWHERE)
def test_nobody_is_led_elsewhere(client, address):
    answer = client.get("/login", params={"token": AGENT, "next": address})
    assert (answer.status_code, answer.headers["location"]) == (303, "/agent")
    answer = sign_in(client, address, token=AGENT)
    assert (answer.status_code, answer.headers["location"]) == (303, "/agent")
    form = {**fields_of(client.get("/login").text), "next": address}
    assert client.post("/login", data={**form, "token": AGENT}).headers["location"] == "/agent"


def test_an_encoded_address_elsewhere_is_none(client):
    for address in ("%2f%2fevil.example", "%5c%5cevil.example", "%2F%5Cevil.example", "%09//evil"):
        answer = client.get(f"/login?token={AGENT}&next={address}")
        assert answer.headers["location"] == "/agent"


@given(st.text(st.sampled_from("/\\:%25eE.@?#\t\n\r \x00\x85\ufeffhtps2fF"), max_size=12))
def test_a_local_path_is_one_to_a_browser_too(address):
    """As the URL standard reads it: tabs and newlines gone, ends trimmed, backslash a slash."""
    read = re.sub(r"[\t\n\r]", "", address.strip("".join(map(chr, range(33))))).replace("\\", "/")
    if local_path(address):
        assert read.startswith("/")
        assert not read.startswith("//")
        assert read == address


# --- What a route needs --------------------------------------------------------------------------


def problem_of(answer):
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body.keys() == {"type", "title", "status", "detail", "instance"}
    assert body["status"] == answer.status_code
    return body


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def test_a_program_without_a_token_gets_401_and_with_too_little_403(client):
    for headers in ({}, bearer("wrong"), bearer(""), {"Authorization": "Basic eDp5"}):
        for path in ("/agent", "/maintain"):
            answer = client.get(path, headers=headers)
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert problem_of(answer)["status"] == 401
    answer = client.get("/maintain", headers=bearer(AGENT))
    assert "maintainer" in problem_of(answer)["detail"]
    assert answer.status_code == 403
    for path, token in (("/agent", AGENT), ("/agent", MAINTAINER), ("/maintain", MAINTAINER)):
        assert client.get(path, headers=bearer(token)).status_code == 200


def test_a_browser_is_sent_to_sign_in_and_back(client):
    answer = client.get("/agent?q=a%26b&next=//x", headers=PAGE)
    assert answer.status_code == 303
    there = answer.headers["location"]
    assert there.startswith("/login?next=")
    form = fields_of(client.get(there).text)
    form["next"] = html.unescape(form["next"])
    answer = client.post("/login", data={**form, "token": AGENT})
    assert answer.headers["location"] == "/agent?q=a%26b&next=//x"


def test_a_browser_with_too_little_gets_a_page_of_words(client):
    sign_in(client, token=AGENT)
    answer = client.get("/maintain", headers={**PAGE, "Accept-Language": "zh-CN"})
    assert answer.status_code == 403
    assert "维护者" in answer.text
    assert '<html lang="zh-CN">' in answer.text


def test_a_forged_or_expired_cookie_is_no_sign_in(client, access):
    sign_in(client, token=AGENT)
    good = client.cookies[SESSION]
    client.cookies.clear()
    for value in (good[:-9] + "AAAAAAAAA", "x", "\xe9\xff", '"' + good, good + ";" + good):
        cookie = f"{SESSION}={value}".encode("latin-1")
        answer = client.get("/agent", headers=[(b"cookie", cookie)])
        assert answer.status_code == (200 if value.startswith(good) else 401)


def test_what_changes_something_needs_the_form_token_of_its_session(app, client):
    sign_in(client, token=AGENT)
    token = fields_of(client.get("/agent").text)["form_token"]
    with TestClient(app, "http://127.0.0.1", follow_redirects=False) as other:
        sign_in(other, token=AGENT)
        foreign = fields_of(other.get("/agent").text)["form_token"]
    for wrong in ({}, {"form_token": ""}, {"form_token": foreign}, {"form_token": token + "x"}):
        assert problem_of(client.post("/agent/note", data=wrong))["status"] == 403
        page = client.post("/agent/note", data=wrong, headers=PAGE)
        assert page.status_code == 403
        assert "out of date" in page.text
    done = client.post("/agent/note", data={"form_token": token, "text": "x"})
    assert done.json()["fields"] == ["form_token", "text"]
    assert client.post("/agent/note", files={"form_token": ("x", token)}).status_code == 400
    assert client.put("/agent/json", json={"a": 1}).status_code == 403
    own = {"X-Form-Token": token}
    assert client.put("/agent/json", json={"a": 1}, headers=own).json() == {"a": 1}
    assert client.put("/agent/json", json={"a": 1}, headers=bearer(AGENT)).json() == {"a": 1}


def test_a_form_sent_after_the_sign_in_ended_says_so(client):
    """And what took a person time to write is shown, not lost; what was not written is not."""
    sent = {"note": "写了很久 <b>", "questions": " ", "form_token": "CANARY", "password": "CANARY"}
    answer = client.post("/agent/note", data=sent, headers=PAGE)
    assert answer.status_code == 401
    assert "<h1>Your sign-in has ended</h1>" in answer.text
    assert "Nothing was changed" in answer.text
    assert re.findall("<pre>(.*?)</pre>", answer.text) == ["写了很久 &lt;b&gt;"]
    assert "CANARY" not in answer.text


@pytest.mark.parametrize(
    ("page", "onward"),
    [
        ("http://127.0.0.1/agent/tickets/7?lang=en", "/agent/tickets/7?lang=en"),
        ("https://help.example/maintain/gaps", "/maintain/gaps"),
        ("http://127.0.0.1/docs", ""),
        ("http://127.0.0.1//evil.example", ""),
        ("http://127.0.0.1/\\evil.example", ""),
        ("http://127.0.0.1/agent\\..//evil.example", ""),
        ("//evil.example", ""),
        ("/\\evil.example", ""),
        ("https:", ""),
        ("https:evil.example", ""),
        ("javascript:/agent", "/agent"),  # but a path of ours
        ("http://[", ""),
        ("", ""),
    ],
)
def test_whose_sign_in_ended_comes_back_to_where_the_form_was(client, page, onward):
    answer = client.post("/agent/note", data={"note": "x"}, headers={**PAGE, "Referer": page})
    there = html.unescape(re.search('<p><a href="(.*?)">', answer.text)[1])
    assert there == ("/login?" + urlencode({"next": onward}) if onward else "/login")
    form = {name: html.unescape(value) for name, value in fields_of(client.get(there).text).items()}
    answer = client.post("/login", data={**form, "token": AGENT})
    assert answer.headers["location"] == (onward or "/agent")


def test_signing_out_needs_the_form_and_ends_the_session(client):
    sign_in(client, token=AGENT)
    session = client.cookies[SESSION]
    token = fields_of(client.get("/agent").text)["form_token"]
    assert client.post("/logout").status_code == 403
    assert client.get("/logout").headers["location"] == "/login"
    assert client.get("/agent").status_code == 200
    assert client.post("/logout", data={"form_token": token}).headers["location"] == "/login"
    assert SESSION not in client.cookies
    client.cookies.set(SESSION, session)
    assert client.get("/agent").status_code == 401


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "application/x-www-form-urlencoded"),
        (b"token=%ff%fe&visit_token=%ff", "application/x-www-form-urlencoded"),
        (b"token=\xed\xa0\x80", "application/x-www-form-urlencoded"),
        (
            b"&".join(b"a%d=1" % number for number in range(2000)),
            "application/x-www-form-urlencoded",
        ),
        (b'{"token": NaN}', "application/json"),
        (b"--x\r\n\r\n", "multipart/form-data; boundary=x"),
        (b"x", "multipart/form-data"),
    ],
)
def test_no_body_is_a_server_error(client, content, kind):
    for path in ("/login", "/logout", "/agent/note"):
        answer = client.post(path, content=content, headers={"Content-Type": kind})
        assert 400 <= answer.status_code < 500


# --- The frame of the pages ----------------------------------------------------------------------


def pages(client):
    yield client.get("/login?next=/agent", headers=PAGE)
    sign_in(client, token=AGENT)
    yield client.get("/agent", headers=PAGE)
    yield client.get("/maintain", headers=PAGE)
    sign_in(client, token=MAINTAINER)
    yield client.get("/agent", headers=PAGE)


def test_no_page_has_a_script_of_its_own_or_names_another_site(client):
    for page in pages(client):
        policy = page.headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert page.headers["referrer-policy"] == "same-origin"  # else forms come from `null`
        assert not re.search(r"<script(?![^>]*\ssrc=\"/static/)|<style|\s(on\w+|style)=", page.text)
        assert not re.search(r"(?:https?:)?//", page.text.replace("<!doctype html>", ""))
        for address in re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text):
            assert client.get(address).status_code == 200


def test_values_are_escaped(app, client):
    page = client.get("/login", params={"next": '/"><script>alert(1)</script>'}).text
    assert "<script>alert" not in page
    evil = "<b onclick=x>{{7*7}}"
    request = Request(
        {
            "type": "http",
            "method": "GET",
            "path": "/",
            "headers": [],
            "query_string": b"",
            "app": app,
        }
    )
    given = {"heading": "ended", "words": evil, "typed": [evil], "onward": evil}
    shown = office("refused.html", request, Person(evil, "agent"), **given).body.decode()
    assert evil not in shown
    assert shown.count("&lt;b onclick=x&gt;{{7*7}}") == 3
    assert "%3Cb" in shown


def test_pages_speak_the_browsers_language_until_another_is_chosen(client):
    def tag(**given):
        return re.search(r'<html lang="([^"]+)"', client.get("/login", **given).text)[1]

    chinese = {"Accept-Language": "zh-CN,zh;q=0.9"}
    assert tag() == "en"
    assert tag(headers=chinese) == "zh-CN"
    link = re.search(r'<a href="([^"]+)"[^>]*>English', client.get("/login", headers=chinese).text)
    assert tag(headers=chinese, params=link[1].lstrip("?")) == "en"
    assert tag(headers=chinese) == "en"
    assert tag(params={"lang": "xx"}) == "en"
    assert client.cookies["lang"] == "en"
    page = client.get("/login?next=/agent%3Fa%3D1%26b&lang=en").text
    assert "?next=%2Fagent%3Fa%3D1%26b&amp;lang=zh" in page


def test_the_navigation_shows_what_a_role_may_open_and_where_one_is(client):
    sign_in(client, token=AGENT)
    page = client.get("/agent").text
    assert '<a href="/agent" aria-current="page">' in page
    assert 'href="/maintain"' not in page
    sign_in(client, token=MAINTAINER)
    assert 'href="/maintain"' in client.get("/agent").text


def test_every_word_is_there_in_both_languages_and_templates_name_no_other():
    for key, both in WORDS.items():
        assert both.keys() == {"zh", "en"}, key
        assert all(both.values()), key
        slots = [set(re.findall(r"{(\w+)}", words)) for words in both.values()]
        assert slots[0] == slots[1], key
    folder = Path(office_room.__file__).parent / "templates"
    pages = Environment(loader=FileSystemLoader(folder), autoescape=True)
    for name in ("base.html", "_parts.html", "login.html", "refused.html"):
        tree = pages.parse(pages.loader.get_source(pages, name)[0])
        for call in tree.find_all(nodes.Call):
            if getattr(call.node, "name", "") == "say" and isinstance(call.args[0], nodes.Const):
                assert call.args[0].value in WORDS


def test_files_are_served_from_a_fixed_list_and_kept(client):
    answer = client.get(static("office.css"))
    assert answer.headers["content-type"].startswith("text/css")
    assert "immutable" in answer.headers["cache-control"]
    for name in ("page.js", "../app.py", "..%2fapp.py", "%2e%2e/guard.py", "office.css/", "", "x"):
        assert client.get(f"/static/{name}").status_code in (307, 404)


def luminance(colour):
    digits = colour.lstrip("#")
    digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_words_stand_out_from_their_background_in_light_and_dark(client):
    """WCAG AA: 4.5 to 1 for words, 3 to 1 for the edge of a field."""
    style = client.get(static("office.css")).text
    schemes = re.findall(r":root \{(.*?)\}", style, re.S)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w+): (#\w+)", scheme))

        def contrast(one, other, colours=colours):
            bright, dark = sorted(
                (luminance(colours.get(name, name)) for name in (one, other)), reverse=True
            )
            return (bright + 0.05) / (dark + 0.05)

        for words in ("ink", "quiet", "link", "bad"):
            for ground in ("paper", "card"):
                assert contrast(words, ground) >= 4.5, (words, ground)
        for ground in ("mark", "alarm", "ready"):
            assert contrast("ink", ground) >= 4.5, ground
        assert contrast("#fff", "button") >= 4.5
        assert contrast("edge", "paper") >= 3
