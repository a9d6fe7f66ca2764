"""What one client may take, through the public door: alone, in a crowd, and over real sockets."""

import asyncio
import re
import resource
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from server import PATIENCE, running
from small_app import create

from assistant.errors import UsageError
from assistant.settings import Settings, load_settings
from assistant.web.limits import Buckets, Limits, Rates, client_of
from assistant.web.problems import Problems, problem

AGENT, MAINTAINER = "agent-token-0123456789", "maintainer-token-0123456789"
SMALL_APP = str(Path(__file__).parent / "small_app.py")
DEADLINE = 1.5


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


# --- Buckets -------------------------------------------------------------------------------------


@examples(max_examples=200, deadline=None)
@given(
    st.integers(1, 20),
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([0, 1, 3, 7, 30, 61])), max_size=60),
)
def test_a_bucket_takes_what_a_bucket_does(most, arrivals):
    """Against a bucket with a level that flows out at `most` a minute, counted in exact parts."""
    clock = Clock()
    buckets = Buckets(most, clock)
    level = {"a": 0, "b": 0}  # in sixtieths of a request
    for client, pause in arrivals:
        clock.now += pause
        level = {name: max(0, filled - pause * most) for name, filled in level.items()}
        room = level[client] + 60 <= most * 60
        level[client] += 60 if room else 0
        assert (buckets.take(client) == 0) == room


@given(st.integers(1, 300))
def test_who_waits_as_long_as_told_is_taken_and_a_minute_empties_all(most):
    clock = Clock()
    buckets = Buckets(most, clock)
    assert [buckets.take("a") for _ in range(most)] == [0] * most
    wait = buckets.take("a")
    assert 0 < wait <= 60 / most + 1e-6
    assert buckets.wait("a") == buckets.take("a") == wait
    clock.now += wait
    assert buckets.take("a") == 0
    assert buckets.take("a") > 0
    clock.now += 60
    assert [buckets.take("a") for _ in range(most)] == [0] * most


def test_without_a_limit_all_is_taken():
    buckets = Buckets(0)
    assert not any(buckets.take("a") for _ in range(1000))


def test_a_flood_of_clients_frees_none_that_is_at_its_limit():
    """However many come, the memory stays what it is, and who took all it may waits on."""
    clock = Clock()
    buckets = Buckets(2, clock)
    assert [buckets.take("greedy") for _ in range(2)] == [0, 0]
    assert [one for one in range(150_000) if buckets.take(str(one))] == []
    assert buckets.take("greedy") > 0
    clock.now += 61
    assert [buckets.take("greedy") for _ in range(2)] == [0, 0]


FORKED = """
import os, signal, sys, time
from assistant.web.limits import Buckets, Turns

buckets = Buckets(500, clock=lambda: 1000.0, turns=Turns())
pipe, told = os.pipe()
for number in range(4):
    if not os.fork():
        taken = sum(not buckets.take("one") for _ in range(400))
        os.write(told, f"{taken} ".encode())
        os._exit(0)
for number in range(4):
    os.wait()
print(os.read(pipe, 100).decode())
child = os.fork()
if not child:
    buckets._turns.__enter__()
    os.write(told, b"held")
    time.sleep(60)
os.read(pipe, 4)
os.kill(child, signal.SIGKILL)
print(buckets.take("another"), buckets.take("one") > 0)
"""


def test_processes_count_together_and_one_that_dies_counting_stops_none(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, check=True, timeout=60
    )
    counts, after = done.stdout.splitlines()
    assert sum(map(int, counts.split())) == 500
    assert after == "0.0 True"


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("testclient", "testclient"),
        ("x" * 500, "x" * 64),
    ],
)
def test_a_client_is_an_address_or_the_network_of_one(host, client):
    assert client_of({"client": (host, 1)}) == client
    assert client_of({"client": None}) == client_of({}) == ""


# --- In front of an application ------------------------------------------------------------------


def app_of(folder, **given):
    tokens = {"agent_token": AGENT, "maintainer_token": MAINTAINER}
    return create(Settings(users=folder / "var" / "users.toml", **{**tokens, **given}))


def client_at(app, host="192.0.2.1"):
    return TestClient(app, "http://127.0.0.1", client=(host, 1), follow_redirects=False)


def refused(answer, status):
    """Check the form of a refusal and return how long it tells to wait, in seconds."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    assert answer.json()["instance"] == answer.headers["x-request-id"]
    chinese, english = answer.json()["detail"].split(" / ")
    assert not chinese.isascii()
    assert english.isascii()
    assert answer.headers["x-content-type-options"] == "nosniff"
    return int(answer.headers["retry-after"])


def test_a_client_beyond_its_rate_gets_429_and_others_do_not(tmp_path):
    app = app_of(tmp_path, rate_per_minute=5)
    one, other = client_at(app), client_at(app, "192.0.2.2")
    assert [one.get("/ping").status_code for _ in range(5)] == [200] * 5
    assert 1 <= refused(one.get("/ping"), 429) <= 12
    assert refused(one.get("/nowhere"), 429)
    assert other.get("/ping").status_code == 200
    assert [one.get("/healthz").status_code for _ in range(20)] == [200] * 20
    assert [one.get("/static/office.css").status_code for _ in range(20)] == [200] * 20


def test_a_rate_comes_back_with_time():
    clock = Clock()

    async def nothing(scope, receive, send):
        await problem(200, "")(scope, receive, send)

    settings = Settings(rate_per_minute=3)
    limited = Limits(nothing, settings, Rates.of(settings, clock))
    client = TestClient(limited)
    client.get("/")
    statuses = [client.get("/").status_code for _ in range(3)]
    clock.now += 60
    statuses += [client.get("/").status_code for _ in range(4)]
    assert statuses == [200, 200, 429, 200, 200, 200, 429]


def test_passwords_and_tokens_cannot_be_guessed_in_a_row(tmp_path):
    """By the form, by the link and by the header: ten tries a minute in all, for one client."""
    app = app_of(tmp_path, rate_login_per_minute=9)
    one, other = client_at(app), client_at(app, "192.0.2.2")
    for _ in range(3):
        one.post("/login", data={"token": "x"})
        one.get("/login?token=x")
        one.get("/agent", headers={"Authorization": "Bearer x"})
    assert refused(one.post("/login", data={"token": AGENT}), 429) <= 7
    assert refused(one.get("/login", params={"token": AGENT}), 429)
    assert refused(one.get("/login?%74oken=" + AGENT), 429)
    assert one.head("/login", params={"token": AGENT}).status_code == 429
    assert refused(one.get("/agent", headers={"Authorization": "Bearer " + AGENT}), 429)
    assert one.get("/login").status_code == 200
    assert other.get("/login", params={"token": AGENT}).headers["location"] == "/agent"


def test_a_program_with_a_good_token_is_not_guessing(tmp_path):
    client = client_at(app_of(tmp_path, rate_login_per_minute=2))
    good = {"Authorization": "Bearer " + AGENT}
    assert [client.get("/agent", headers=good).status_code for _ in range(10)] == [200] * 10


def bearing(token):
    return {"Authorization": f"Bearer {token}"}


def session_of(app, token):
    """Sign in from elsewhere; return the session's cookie as a header."""
    answer = client_at(app, "198.51.100.1").get("/login", params={"token": token})
    return {"Cookie": f"assistant_session={answer.cookies['assistant_session']}"}


@pytest.mark.parametrize("of", [lambda app, token: bearing(token), session_of])
def test_people_of_one_office_are_counted_each_for_themselves(tmp_path, of):
    """One address, taken up by visitors: who is signed in there has a rate of their own."""
    app = app_of(tmp_path, rate_per_minute=3)
    client = client_at(app)
    agent, maintainer = of(app, AGENT), of(app, MAINTAINER)
    for headers in ({}, agent, maintainer):
        assert [client.get("/ping", headers=headers).status_code for _ in range(3)] == [200] * 3
        assert refused(client.get("/ping", headers=headers), 429)
    assert client_at(app, "192.0.2.2").get("/ping").status_code == 200


def test_what_only_looks_like_a_session_or_token_is_counted_by_its_address(tmp_path):
    app = app_of(tmp_path, rate_per_minute=4, rate_login_per_minute=0)
    ended = session_of(app, AGENT)
    value = ended["Cookie"].partition("=")[2]
    app.state.access.end_session(value)
    client = client_at(app)
    wrong = [
        bearing("x"),
        ended,
        {"Cookie": f"assistant_session={value[:-1]}"},
        {"Authorization": "Basic " + AGENT},
    ]
    assert [client.get("/ping", headers=one).status_code for one in wrong] == [200] * 4
    for one in (*wrong, {}):
        assert refused(client.get("/ping", headers=one), 429)


def test_an_address_beyond_its_rate_learns_nothing_of_tokens(tmp_path):
    """Each wrong one is a try, and beyond the tries a good one is refused as a wrong one is."""
    app = app_of(tmp_path, rate_per_minute=2, rate_login_per_minute=5)
    client, other = client_at(app), client_at(app, "192.0.2.2")
    for _ in range(2):
        client.get("/ping")
    assert client.get("/ping", headers=bearing(AGENT)).status_code == 200
    for number in range(5):
        assert refused(client.get("/ping", headers=bearing(f"x{number}")), 429)
    good, bad = (client.get("/ping", headers=bearing(token)) for token in (AGENT, "x"))
    assert refused(good, 429) == refused(bad, 429)
    assert _without_id(good) == _without_id(bad)
    assert other.get("/ping", headers=bearing(AGENT)).status_code == 200


def _without_id(answer):
    return {**answer.json(), "instance": ""}


def within(app, script):
    """Run a script of requests within one loop, as a server would see them."""

    async def run():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await script(client)

    return asyncio.run(run())


def test_only_so_many_are_at_work_so_many_wait_and_the_rest_is_told_at_once(tmp_path):
    app = app_of(tmp_path, rate_per_minute=0, max_at_once=3, max_waiting=4)

    async def script(client):
        began = time.monotonic()
        first = await asyncio.gather(*(client.get("/slow?seconds=0.2") for _ in range(20)))
        took = time.monotonic() - began
        return first, took, await asyncio.gather(*(client.get("/ping") for _ in range(7)))

    first, took, then = within(app, script)
    assert sorted(answer.status_code for answer in first) == [200] * 7 + [503] * 13
    assert {refused(answer, 503) for answer in first if answer.status_code == 503} == {1}
    assert 0.6 <= took < 5
    assert app.state.done == 7
    assert [answer.status_code for answer in then] == [200] * 7


def test_health_is_answered_while_all_places_are_taken(tmp_path):
    app = app_of(tmp_path, rate_per_minute=0, max_at_once=1, max_waiting=0)

    async def script(client):
        slow = asyncio.create_task(client.get("/slow?seconds=0.3"))
        await asyncio.sleep(0.1)
        others = [await client.get("/ping"), await client.get("/healthz")]
        return [answer.status_code for answer in (*others, await slow)]

    assert within(app, script) == [503, 200, 200]


def test_a_deadline_cancels_the_work_and_frees_its_place(tmp_path):
    app = app_of(tmp_path, rate_per_minute=0, request_seconds=0.2, max_at_once=2, max_waiting=99)

    async def script(client):
        began = time.monotonic()
        slow = await asyncio.gather(*(client.get("/slow?seconds=60") for _ in range(6)))
        assert time.monotonic() - began < 5
        return slow, await asyncio.gather(*(client.get("/ping") for _ in range(9)))

    slow, then = within(app, script)
    assert all(refused(answer, 503) >= 1 for answer in slow)
    assert app.state.done == 0
    assert 2 <= app.state.cancelled <= 6  # those that waited had little time or none
    assert [answer.status_code for answer in then] == [200] * 9


def test_a_deadline_does_not_wait_for_a_thread(tmp_path):
    app = app_of(tmp_path, rate_per_minute=0, request_seconds=0.2)

    async def script(client):
        began = time.monotonic()
        return await client.get("/thread?seconds=1"), time.monotonic() - began

    answer, took = within(app, script)
    assert refused(answer, 503)
    assert took < 0.9


def test_a_stream_has_no_deadline_and_holds_no_place(tmp_path):
    app = app_of(tmp_path, rate_per_minute=0, request_seconds=0.3, max_at_once=1, max_waiting=0)

    async def script(client):
        stream = asyncio.create_task(client.get("/events?seconds=1"))
        await asyncio.sleep(0.2)
        return await client.get("/ping"), await stream

    between, stream = within(app, script)
    assert between.status_code == 200
    assert stream.text.count("data:") == 10


def test_a_failure_is_a_plain_answer_whose_id_the_log_has(tmp_path, caplog):
    app = app_of(tmp_path)
    for path in ("/broken", "/late"):
        caplog.clear()
        answer = client_at(app).get(path)
        assert answer.status_code == 500
        assert "CANARY" not in answer.text
        assert answer.json()["instance"] == answer.headers["x-request-id"]
        assert answer.json()["instance"] in caplog.text
    assert client_at(app).get("/ping").status_code == 200


def test_every_request_has_an_id_of_its_own(tmp_path):
    client = client_at(app_of(tmp_path))
    ids = {
        client.get("/ping", headers={"X-Request-Id": "x"}).headers["x-request-id"] for _ in "abc"
    }
    assert len(ids) == 3
    assert all(re.fullmatch("[0-9a-f]{16}", one) for one in ids)


def test_an_unreadable_request_is_told_which_field_and_not_sent_back(tmp_path):
    answer = client_at(app_of(tmp_path)).get("/slow?seconds=CANARY")
    assert answer.status_code == 422
    assert "query.seconds" in answer.json()["detail"]
    assert "CANARY" not in answer.text


@given(st.text(), st.sampled_from([400, 401, 403, 404, 409, 413, 422, 429, 500, 503]))
def test_a_problem_is_json_whatever_it_says(detail, status):
    answer = problem(status, detail + "\ud800", {"x-y": "z"})
    assert answer.status_code == status
    assert answer.media_type == "application/problem+json"
    assert httpx.Response(200, content=answer.body).json()["detail"] == detail + "?"
    assert answer.headers["x-y"] == "z"


def test_other_than_requests_pass(tmp_path):
    seen = []

    async def inner(scope, receive, send):
        seen.append(scope["type"])

    for kind in ("lifespan", "websocket"):
        asyncio.run(Problems(Limits(inner, Settings()))({"type": kind}, None, None))
    assert seen == ["lifespan", "websocket"]


@pytest.mark.parametrize("value", ['["*"]', '["10.0.0.1/8"]', '["proxy.example"]'])
def test_only_addresses_and_networks_can_be_trusted(monkeypatch, value):
    monkeypatch.setenv("ASSISTANT_TRUSTED_PROXIES", value)
    with pytest.raises(UsageError, match="trusted_proxies"):
        load_settings()


# --- Over real sockets ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The small application behind uvicorn, with short patience and without a proxy."""
    limits = {"ASSISTANT_REQUEST_SECONDS": str(DEADLINE), "ASSISTANT_RATE_PER_MINUTE": "0"}
    with running([SMALL_APP], tmp_path_factory.mktemp("served"), **limits) as server:
        yield server


@pytest.fixture(scope="module")
def proxied(tmp_path_factory):
    """The same behind a proxy on this machine."""
    limits = {"ASSISTANT_TRUSTED_PROXIES": '["127.0.0.1"]', "ASSISTANT_RATE_PER_MINUTE": "4"}
    with running([SMALL_APP], tmp_path_factory.mktemp("proxied"), **limits) as server:
        yield server


def connect(server):
    host, port = server.host.split(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE)


def closed_after(server, pieces, pause):
    """Send pieces with a pause between them; return the seconds until the server hangs up."""
    with connect(server) as one:
        began = time.monotonic()
        one.settimeout(pause)
        for piece in pieces:
            try:
                one.sendall(piece)
                if one.recv(65536) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        return time.monotonic() - began


@pytest.mark.parametrize(
    "pieces",
    [
        [b""] * 60,
        [b"G", b"E", b"T", b" ", b"/"] + [b"x"] * 60,
        [b"GET / HTTP/1.1\r\n"] + [b"A: b\r\n"] * 60,
        [b"GET /ping HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"] + [b"G"] + [b"x"] * 60,
    ],
    ids=["silent", "a byte at a time", "a header at a time", "the second request"],
)
def test_a_request_that_does_not_come_is_not_waited_for(served, pieces):
    assert DEADLINE - 0.3 <= closed_after(served, pieces, 0.1) < DEADLINE + 2


def test_requests_that_do_come_are_all_answered_on_one_connection(served):
    """Kept alive over a pause, sent as one piece, and longer at work than a head may take."""
    request = b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with connect(served) as one:
        one.sendall(request % b"/ping" * 3)
        time.sleep(DEADLINE * 0.6)
        one.sendall(request % b"/ping")
        time.sleep(DEADLINE * 0.6)
        one.sendall(request % b"/events?seconds=3" + request % b"/ping")
        received = b""
        while received.count(b"HTTP/1.1 200") < 6:
            piece = one.recv(65536)
            assert piece, received
            received += piece
    assert received.count(b"data: ") == 10


def test_who_does_not_take_the_answer_is_hung_up_on(served):
    """The stream behind it ends; the small server waits two seconds for a listener."""
    with served.client as client:
        before = client.get("/counts").json()["cancelled"]
        with connect(served) as deaf:
            deaf.sendall(b"GET /large HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            until = time.monotonic() + 15
            while client.get("/counts").json()["cancelled"] == before:
                assert time.monotonic() < until
                time.sleep(0.1)


def test_300_drip_sockets_are_hung_up_on_and_nobody_else_notices(served):
    """People ask all the while; the last socket is closed a deadline after it came."""
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 400
    times, stop = [], threading.Event()

    def keep_asking():
        with served.client as client:
            while not stop.is_set():
                began = time.monotonic()
                assert client.get("/ping").status_code == 200
                times.append(time.monotonic() - began)
                time.sleep(0.02)

    people = [threading.Thread(target=keep_asking) for _ in range(3)]
    for thread in people:
        thread.start()
    drips = [connect(served) for _ in range(300)]
    began = time.monotonic()
    try:
        open_ones = list(drips)
        while open_ones:
            assert time.monotonic() - began < DEADLINE + 6
            for one in list(open_ones):
                try:
                    one.sendall(b"G")
                    one.setblocking(False)
                    if one.recv(100) == b"":
                        open_ones.remove(one)
                except BlockingIOError:
                    pass
                except OSError:
                    open_ones.remove(one)
            time.sleep(0.1)
    finally:
        stop.set()
        for thread in people:
            thread.join()
        for one in drips:
            one.close()
    assert len(times) > 30
    assert statistics.quantiles(times, n=20)[18] < 1


def test_an_address_that_a_client_claims_is_believed_from_a_trusted_proxy_alone(served, proxied):
    claim = {"X-Forwarded-For": "203.0.113.9, 198.51.100.7", "X-Forwarded-Proto": "https"}
    with served.client as client:
        told = client.get("/ping", headers=claim).json()
        assert told == {"client": "127.0.0.1", "scheme": "http"}
    with proxied.client as client:
        told = client.get("/ping", headers=claim).json()
        assert told == {"client": "198.51.100.7", "scheme": "https"}
        assert client.get("/ping").json() == {"client": "127.0.0.1", "scheme": "http"}


def test_the_rate_is_counted_by_the_last_address_that_the_proxy_saw(proxied):
    """What a client writes before it changes nothing; other clients go on."""

    def ask(claim):
        return client.get("/ping", headers={"X-Forwarded-For": claim}).status_code

    with proxied.client as client:
        assert [ask(f"10.0.0.{number}, 192.0.2.50") for number in range(6)] == [200] * 4 + [429] * 2
        assert ask("192.0.2.51") == 200


def test_a_token_in_the_address_is_in_no_log_and_no_file_but_ours(served):
    folder = served.log.parent
    token = (folder / "agent.token").read_text()
    with served.client as client:
        answer = client.get("/login", params={"token": token})
        assert answer.headers["location"] == "/agent"
        client.get("/login", params={"token": token + "CANARY"})
        client.get("/agent", headers={"Authorization": f"Bearer {token}CANARY"})
        client.get("/nowhere", params={"token": token})
        client.get("/broken", params={"token": token})
    log = served.log.read_text()
    assert "signed in as agent" in log
    assert token not in log
    assert not any(token in path.read_text() for path in (folder / "var").iterdir())
