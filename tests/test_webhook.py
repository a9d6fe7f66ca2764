"""A ticket is told at least once, or shown as undelivered: over a real server that misbehaves."""

import hashlib
import hmac
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from histories import Clock, handed_over, settings
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from assistant.history import History, NotFound
from assistant.webhook import _MOST_TRIES, Webhook, _wait

TESTS = Path(__file__).parent
DEPLOY = TESTS.parent / "docs" / "deploy.md"


class Receiver:
    """A real server that does to each request what is next in `plan`, then receives all."""

    def __init__(self) -> None:
        self.plan, self.told, self.gone = [], [], threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.told.append((self.path, dict(self.headers), body))
                step = receiver.plan.pop(0) if receiver.plan else 200
                getattr(self, f"_{step}", lambda: self._answer(step))()

            def do_GET(self):
                receiver.told.append((self.path, dict(self.headers), b""))
                self._answer(200)

            def _answer(self, status):
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", receiver.url("/elsewhere"))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def _hang(self):
                receiver.gone.wait(20)

            def _drip(self):
                for letter in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 100:
                    if receiver.gone.wait(0.2):
                        return
                    try:
                        self.wfile.write(bytes([letter]))
                    except OSError:
                        return

            def _close(self):
                self.connection.close()

            def _flood(self):
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")

            def log_message(self, *_):
                pass

        self.start(Handler, 0)

    def start(self, handler, port):
        self.handler = handler
        self.server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self):
        self.gone.set()
        self.server.shutdown()
        self.server.server_close()

    def come_back(self):
        self.gone.clear()
        self.start(self.handler, self.port)

    def url(self, path="/hook?token=canary-in-address"):
        return f"http://127.0.0.1:{self.port}{path}"

    @property
    def ids(self):
        return [headers["X-Assistant-Delivery"] for _, headers, _ in self.told]


@pytest.fixture
def receiver():
    found = Receiver()
    yield found
    found.stop()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def told(tmp_path, receiver):
    return settings(tmp_path, webhook_url=receiver.url(), webhook_secret="geheim-canary")


@pytest.fixture
def history(told, clock):
    opened = History.open(told, clock)
    yield opened
    opened.close()


@pytest.fixture
def webhook(history, told, clock, monkeypatch):
    monkeypatch.setattr("assistant.webhook._DEADLINE_SECONDS", 1.0)
    return Webhook(history, told, clock)


def later(clock):
    """Let the longest wait between two tries pass."""
    clock.jump(hours=1)


def test_a_ticket_is_told_once_signed_and_whole(history, webhook, receiver, clock):
    kept = handed_over(history, "转人工", "urgent_account_security", "a@example.com")
    assert kept.delivery == "pending"
    assert webhook.deliver() == 1
    ((path, headers, body),) = receiver.told
    assert path == "/hook?token=canary-in-address"
    stamp = headers["X-Assistant-Timestamp"]
    signed = hmac.new(b"geheim-canary", f"{stamp}.".encode() + body, hashlib.sha256)
    assert headers["X-Assistant-Signature"] == f"sha256={signed.hexdigest()}"
    assert abs(int(stamp) - clock.time.timestamp()) < 2
    assert headers["Content-Type"] == "application/json"
    sent = json.loads(body)
    assert sent == {
        "event": "ticket",
        "delivery": headers["X-Assistant-Delivery"],
        "number": kept.number,
        "state": "new",
        "reason": "urgent_account_security",
        "urgent": True,
        "question": "转人工",
        "language": "zh",
        "reply_to": "a@example.com",
        "packet": kept.packet,
        "created": kept.created.isoformat(),
        "link": f"/agent/tickets/{kept.number}",
    }
    assert history.ticket(kept.number).delivery == "delivered"
    later(clock)
    assert webhook.deliver() == 0
    assert len(receiver.told) == 1


def test_the_check_in_the_documentation_tells_what_is_genuine(told, receiver):
    """And its list of fields is that of what is sent."""
    section = re.search(r"## The webhook\n(.*?)\n## ", DEPLOY.read_text("utf-8"), re.S)[1]
    known = {}
    exec(re.search(r"```python\n(.*?)```", section, re.S)[1], known)
    is_genuine = known["is_genuine"]
    with closing(History.open(told)) as history:
        handed_over(history)
        assert Webhook(history, told).deliver() == 1
    ((_, headers, body),) = receiver.told
    assert is_genuine(headers, body, "geheim-canary")
    stamp = headers["X-Assistant-Timestamp"]
    old = str(int(stamp) - 600)
    signed = hmac.new(b"geheim-canary", f"{old}.".encode() + body, hashlib.sha256).hexdigest()
    stale = {"X-Assistant-Timestamp": old, "X-Assistant-Signature": f"sha256={signed}"}
    assert not is_genuine(stale, body, "geheim-canary")
    assert not is_genuine({"X-Assistant-Timestamp": stamp}, body, "geheim-canary")
    assert not is_genuine(headers, body + b" ", "geheim-canary")
    assert not is_genuine(headers, body, "another")
    fields = section[section.index("Fields: ") : section.index("Check it")]
    assert set(re.findall(r"`(\w+)`", fields)) == json.loads(body).keys()


@pytest.mark.parametrize("step", [500, 404, 302, "hang", "drip", "close"], ids=str)
def test_whatever_is_not_a_yes_is_tried_again_with_the_same_id(
    history, webhook, receiver, clock, step
):
    """A redirect is not followed, a slow answer not waited for: the address alone is asked."""
    kept = handed_over(history)
    receiver.plan = [step]
    started = time.monotonic()
    assert webhook.deliver() == 0
    assert time.monotonic() - started < 3
    assert history.ticket(kept.number).delivery == "pending"
    assert webhook.deliver() == 0
    assert len(receiver.told) == 1
    later(clock)
    assert webhook.deliver() == 1
    assert len(receiver.told) == 2
    assert len(set(receiver.ids)) == 1
    assert {path for path, _, _ in receiver.told} == {"/hook?token=canary-in-address"}
    assert history.ticket(kept.number).delivery == "delivered"


def test_the_body_of_an_answer_is_not_waited_for(history, webhook, receiver):
    handed_over(history)
    receiver.plan = ["flood"]
    assert webhook.deliver() == 1


def test_a_receiver_that_comes_back_is_told_all(history, webhook, receiver, clock):
    numbers = [handed_over(history, f"问题{i}").number for i in range(5)]
    receiver.stop()
    assert webhook.deliver() == 0
    receiver.come_back()
    later(clock)
    assert webhook.deliver() == 5
    assert {json.loads(body)["number"] for _, _, body in receiver.told} == set(numbers)
    assert {history.ticket(number).delivery for number in numbers} == {"delivered"}


def test_one_that_hangs_does_not_hold_up_the_others(history, webhook, receiver):
    for _ in range(4):
        handed_over(history)
    receiver.plan = ["hang", "hang"]
    started = time.monotonic()
    assert webhook.deliver() == 2
    assert time.monotonic() - started < 2.5


def test_after_a_day_of_refusals_a_ticket_is_undelivered_until_it_is_retried(
    history, webhook, receiver, clock
):
    number = handed_over(history).number
    receiver.plan = [500] * 100
    tries, begun = 0, clock.time
    while history.ticket(number).delivery == "pending" and tries < 100:
        before = len(receiver.told)
        while len(receiver.told) == before:
            webhook.deliver()
            clock.jump(minutes=20)
        tries += 1
    assert history.ticket(number).delivery == "undelivered"
    assert tries == len(receiver.told) == _MOST_TRIES
    assert timedelta(hours=18) < clock.time - begun < timedelta(hours=36)
    clock.jump(days=10)
    webhook.deliver()
    assert len(receiver.told) == _MOST_TRIES
    receiver.plan = []
    assert webhook.retry(number).delivery == "pending"
    assert webhook.deliver() == 1
    assert history.ticket(number).delivery == "delivered"
    assert len(set(receiver.ids)) == 1


@limits(max_examples=200)
@given(tries=st.integers(0, 100))
def test_waits_double_up_to_an_hour_and_differ(tries):
    """Tickets of one failure do not come back all at once."""
    longest = min(2 ** (tries + 1), 3600)
    waits = {_wait(tries).total_seconds() for _ in range(20)}
    assert len(waits) > 1
    assert all(0.75 * longest <= wait <= longest for wait in waits)


@pytest.mark.parametrize("days", [3653, -3653, -3])
def test_a_clock_that_jumps_delays_no_try_for_years(history, webhook, receiver, clock, days):
    handed_over(history)
    receiver.plan = [500]
    webhook.deliver()
    clock.jump(days=days)
    later(clock)
    assert webhook.deliver() == 1


# --- Death --------------------------------------------------------------------------------------

SENDER = """
import os, signal, sys
from histories import settings
from pathlib import Path
from assistant.history import History
from assistant.webhook import Webhook
told = settings(Path(sys.argv[1]), webhook_url=sys.argv[2])
history = History.open(told)
history.delivered = lambda delivery: os.kill(os.getpid(), signal.SIGKILL)
Webhook(history, told).deliver()
"""


def test_a_program_killed_between_telling_and_marking_tells_again(told, receiver, clock, tmp_path):
    """Twice with the same id, never not at all."""
    history = History.open(told)
    number = handed_over(history).number
    done = subprocess.run(
        [sys.executable, "-c", SENDER, str(tmp_path), receiver.url()],
        env={**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(receiver.told) == 1
    assert history.ticket(number).delivery == "pending"
    clock.time = history.ticket(number).created
    later(clock)
    assert Webhook(history, told, clock).deliver() == 1
    assert len(receiver.told) == 2
    assert len(set(receiver.ids)) == 1
    assert history.ticket(number).delivery == "delivered"
    history.close()


# --- Around it ----------------------------------------------------------------------------------


def test_the_thread_tells_new_tickets_and_ends(told, receiver):
    history = History.open(told)
    webhook = Webhook(history, told)
    webhook.start()
    number = handed_over(history).number
    deadline = time.monotonic() + 10
    while history.ticket(number).delivery != "delivered" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(receiver.told) == 1
    webhook.stop()
    assert not webhook._thread.is_alive()
    history.close()


def test_the_thread_outlives_a_history_that_fails(told, receiver, monkeypatch):
    history = History.open(told)
    monkeypatch.setattr("assistant.webhook._BEAT_SECONDS", 0.02)
    failing = [ValueError("a bug"), *[None] * 3]
    real = history.due

    def due(*arguments):
        if failing and (error := failing.pop(0)):
            raise error
        return real(*arguments)

    monkeypatch.setattr(history, "due", due)
    webhook = Webhook(history, told)
    webhook.start()
    handed_over(history)
    deadline = time.monotonic() + 10
    while not receiver.told and time.monotonic() < deadline:
        time.sleep(0.02)
    webhook.stop()
    assert len(receiver.told) == 1
    history.close()


def test_without_an_address_nothing_is_told(tmp_path):
    off = settings(tmp_path)
    history = History.open(off)
    webhook = Webhook(history, off)
    webhook.start()
    kept = handed_over(history)
    assert kept.delivery == "off"
    assert not webhook._thread.is_alive()
    webhook.stop()
    with pytest.raises(NotFound):
        webhook.retry(kept.number)
    history.close()


def test_without_a_secret_nothing_is_signed(tmp_path, receiver):
    unsigned = settings(tmp_path, webhook_url=receiver.url())
    history = History.open(unsigned)
    handed_over(history)
    assert Webhook(history, unsigned).deliver() == 1
    assert "X-Assistant-Signature" not in receiver.told[0][1]
    history.close()


def test_a_forgotten_ticket_is_not_told(history, webhook, receiver):
    kept = handed_over(history)
    history.forget(kept.conversation)
    assert webhook.deliver() == 0
    assert receiver.told == []


def test_no_proxy_of_the_environment_is_asked(history, webhook, receiver, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    handed_over(history)
    assert webhook.deliver() == 1


def test_neither_key_nor_address_stands_in_a_log(history, webhook, receiver, caplog, tmp_path):
    caplog.set_level(logging.INFO)
    handed_over(history)
    handed_over(history)
    receiver.plan = [500, 200]
    webhook.deliver()
    assert "500" in caplog.text
    for canary in ("canary-in-address", "geheim-canary"):
        assert canary not in caplog.text
