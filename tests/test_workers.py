"""Several processes serve as one: what one of them is told holds for all, and none is missed."""

import http.server
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from chromium import chromium, in_browser, until
from gradio_client import Client
from server import REPOSITORY, asked, running

from assistant.cli import main

if sys.platform != "linux":
    pytest.skip("looks at processes as Linux shows them", allow_module_level=True)

AGENT, MAINTAINER = "agent-token-0123456789", "maintainer-token-0123456789"
GUIDE = "topay-contact-guide.md"
COUNT = 3
RATE, SIGN_INS = 90, 10


def children(pid):
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid):
    """Tell whether a process runs, or waits to be asked for how it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def soon(true, within=15.0):
    """Wait until something holds, and return it."""
    until = time.monotonic() + within
    while not (found := true()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return found


# --- Processes alone ----------------------------------------------------------------------------

SMALL = """
import os, signal, sys, threading, time
from pathlib import Path
from assistant import workers

workers._DRAIN_SECONDS = 1.0
kind, here = sys.argv[1], Path(sys.argv[2])

def work(number, ready):
    with (here / f"{number}").open("a") as births:
        births.write(f"{os.getpid()}\\n")
    if kind == "useless":
        return 3
    if kind == "first dies later" and number == 0 and len((here / "0").read_text().split()) > 1:
        return 3
    if kind == "fails" and number:
        raise ValueError("a worker's own")
    if number == 0:
        time.sleep(0.3)
        assert not (here / "1").exists()
    ready()
    done = threading.Event()
    if kind != "stubborn":
        signal.signal(signal.SIGTERM, lambda *_: done.set())
    else:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    done.wait()
    return 0

started = lambda: print("started", threading.active_count(), flush=True)
sys.exit(workers.run_workers(3, work, started))
"""


class Family:
    """Hold a parent and what its workers wrote."""

    def __init__(self, process, folder):
        self.process, self.folder = process, folder

    def births(self, number):
        path = self.folder / str(number)
        return list(map(int, path.read_text().split())) if path.exists() else []

    def end(self, kind=signal.SIGTERM):
        self.process.send_signal(kind)
        return self.process.wait(15)


@pytest.fixture
def family(tmp_path):
    started = []

    def start(kind):
        process = subprocess.Popen(
            [sys.executable, "-c", SMALL, kind, str(tmp_path)],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return Family(process, tmp_path)

    yield start
    for process in started:
        for pid in [*(children(process.pid) if alive(process.pid) else []), process.pid]:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_the_first_serves_before_the_others_begin_and_all_end_together(family, kind):
    one = family("plain")
    assert one.process.stdout.readline() == "started 1\n"
    pids = soon(lambda: len(found := children(one.process.pid)) == 3 and found)
    soon(lambda: all(one.births(number) for number in range(3)))
    assert len(os.listdir(f"/proc/{one.process.pid}/task")) == 1
    assert one.end(kind) == 0
    assert not any(map(alive, pids))


def test_a_service_whose_first_worker_cannot_serve_ends_with_its_code(family):
    one = family("useless")
    assert one.process.wait(15) == 3
    assert one.births(1) == []


def test_a_worker_that_dies_is_replaced_in_its_place(family):
    one = family("plain")
    first = soon(lambda: one.births(1))[0]
    soon(lambda: one.births(2))
    os.kill(first, signal.SIGKILL)
    soon(lambda: len(one.births(1)) == 2)
    assert (len(one.births(0)), len(one.births(2))) == (1, 1)
    assert one.end() == 0


def test_one_that_dies_at_once_is_tried_less_and_less_often_and_the_others_serve(family):
    one = family("fails")
    soon(lambda: one.births(2))
    time.sleep(3.2)
    assert 2 <= len(one.births(1)) <= 4
    assert len(one.births(0)) == 1
    assert one.end() == 0
    told = one.process.stderr.read()
    assert "worker 1 ended (1); another starts in 0.5 s" in told
    assert "another starts in 1 s" in told
    assert "a worker's own" in told


def test_once_they_serve_a_first_worker_that_fails_ends_nothing(family):
    one = family("first dies later")
    first = soon(lambda: one.births(0))[0]
    soon(lambda: one.births(2))
    os.kill(first, signal.SIGKILL)
    soon(lambda: len(one.births(0)) >= 3)
    assert one.process.poll() is None
    assert one.end() == 0


def test_who_does_not_end_is_made_to(family):
    one = family("stubborn")
    pids = soon(lambda: len(found := children(one.process.pid)) == 3 and found)
    soon(lambda: all(one.births(number) for number in range(3)))
    time.sleep(0.5)
    started = time.monotonic()
    assert one.end() == 0
    assert time.monotonic() - started < 5
    assert not any(map(alive, pids))


def test_workers_do_not_outlive_their_parent(family):
    one = family("plain")
    soon(lambda: one.births(2))
    pids = children(one.process.pid)
    one.end(signal.SIGKILL)
    soon(lambda: not any(map(alive, pids)))


# --- The product --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def told():
    """Numbers of the tickets that the webhook was told of, in the order of telling."""
    numbers = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            numbers.append(json.loads(body)["number"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as receiver:
        thread = threading.Thread(target=receiver.serve_forever, daemon=True)
        thread.start()
        yield receiver.server_address[1], numbers
        receiver.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("crew")


@pytest.fixture(scope="module")
def server(guide, folder, told):
    shutil.copytree(guide.corpus, folder / "corpus")
    shutil.copytree(guide.index, folder / "index")
    with running(
        ["-m", "assistant.cli", "serve", "--port", "0", "--workers", str(COUNT)],
        folder,
        TMPDIR=str(folder),
        PYTHONPATH=str(REPOSITORY),
        ASSISTANT_AGENT_TOKEN=AGENT,
        ASSISTANT_MAINTAINER_TOKEN=MAINTAINER,
        ASSISTANT_TRUSTED_PROXIES='["127.0.0.1"]',
        ASSISTANT_RATE_PER_MINUTE=str(RATE),
        ASSISTANT_RATE_LOGIN_PER_MINUTE=str(SIGN_INS),
        ASSISTANT_WEBHOOK_URL=f"http://127.0.0.1:{told[0]}/tickets",
    ) as server:
        soon(lambda: len(crew_of(folder)) == COUNT, 60)
        for number in range(COUNT):
            with only(folder, number):
                assert client_of(server).get("/healthz").status_code == 200
        yield server


def crew_of(folder):
    """Return the process of each worker, by who listens at its socket."""
    found = {}
    for path in folder.glob("assistant-*/*.sock"):
        with socket.socket(socket.AF_UNIX) as asking:
            try:
                asking.connect(str(path))
            except ConnectionRefusedError:
                continue
            told = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            found[int(path.stem)] = struct.unpack("3i", told)[0]
    return found


@contextmanager
def only(folder, *numbers):
    """Let some workers alone run meanwhile, so that no other takes a connection."""
    others = [pid for number, pid in crew_of(folder).items() if number not in numbers]
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in others:
            os.kill(pid, signal.SIGCONT)


def through(folder, number, asking):
    """Ask while one worker alone can take connections; let the others run to see it answered."""
    with ThreadPoolExecutor(1) as crowd:
        with only(folder, number):
            asked = crowd.submit(asking)
            time.sleep(0.5)
        return asked.result()


_addresses = iter(range(1, 250))


def client_of(server, token="", address=""):
    """Return a client with an address, and so with rates, of its own, and no kept connections."""
    headers = {"X-Forwarded-For": address or f"192.0.2.{next(_addresses)}"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    limits = httpx.Limits(max_keepalive_connections=0)
    return httpx.Client(base_url=server.url, timeout=30, headers=headers, limits=limits)


def ask(client, question="充值没到账怎么办", **more):
    answer = client.post("/api/v1/ask", json={"question": question, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def ticket(client):
    told = client.post("/api/v1/handoff", json={"question": "我要找人工客服"}).json()
    place = {"conversation": told["conversation"], "turn": told["turn"]}
    opened = client.post("/api/v1/tickets", json={**place, "filled": {}})
    assert opened.status_code == 201, opened.text
    return opened.json()["number"]


def test_workers_share_the_index_the_program_and_the_model(server, folder):
    """Each maps the one generation, and what only it has is less than half of what it holds."""
    for pid in crew_of(folder).values():
        assert "vectors.faiss" in Path(f"/proc/{pid}/maps").read_text()
        rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        sizes = {row.split()[0]: int(row.split()[1]) for row in rows}
        assert sizes["Private_Dirty:"] < 0.45 * sizes["Rss:"]
        assert sizes["Shared_Dirty:"] > 80_000
    names = [one.read_text() for one in Path(f"/proc/{server.process.pid}/task").glob("*/comm")]
    assert len([one for one in names if "jemalloc" not in one]) == 1  # an allocator forks well


def test_the_page_is_the_same_whoever_gives_it(server, folder):
    pages = []
    for number in range(COUNT):
        with only(folder, number):
            client = client_of(server)
            pages.append((client.get("/config").json(), client.get("/gradio_api/app_id").json()))
    assert pages == [pages[0]] * COUNT


def test_what_one_worker_keeps_another_knows(server, folder):
    client = client_of(server)
    with only(folder, 0):
        first = ask(client)
    with only(folder, 1):
        ask(client, "为什么", conversation=first["conversation"])
    with only(folder, 2):
        turns = client.get(f"/api/v1/conversations/{first['conversation']}").json()["turns"]
    assert [turn["question"] for turn in turns] == ["充值没到账怎么办", "为什么"]


def test_of_those_who_claim_a_ticket_through_several_workers_one_has_it(server, folder):
    number = ticket(client_of(server))
    with only(folder, 0):
        mine = client_of(server, AGENT).post(f"/api/v1/tickets/{number}/claim")
    with only(folder, 1):
        theirs = client_of(server, MAINTAINER).post(f"/api/v1/tickets/{number}/claim")
    assert (mine.status_code, theirs.status_code) == (200, 409)
    numbers = [ticket(client_of(server)) for _ in range(4)]
    clients = [client_of(server, token) for token in (AGENT, MAINTAINER) * 4]
    with ThreadPoolExecutor(8) as crowd:
        for one in numbers:
            path = f"/api/v1/tickets/{one}/claim"
            found = list(crowd.map(lambda client: client.post(path).json(), clients))  # noqa: B023
            owner = clients[0].get(path.removesuffix("/claim")).json()["owner"]
            won = {told["owner"] for told in found if told.get("state") == "claimed"}
            assert won == {owner}


def test_the_webhook_is_told_once_of_each_ticket(server, folder, told):
    numbers = []
    for number in range(COUNT):
        with only(folder, number):
            numbers.append(ticket(client_of(server)))
    soon(lambda: set(numbers) <= set(told[1]))
    time.sleep(1.5)
    assert max(Counter(told[1]).values()) == 1


def test_who_signs_out_at_one_worker_is_out_at_all(server, folder):
    client = client_of(server)
    with only(folder, 0):
        client.get("/login", params={"token": AGENT})
    with only(folder, 1):
        page = client.get("/agent/tickets")
        assert page.status_code == 200
        form = page.text.partition('name="form_token" value="')[2].partition('"')[0]
    session = client.cookies["assistant_session"]
    with only(folder, 2):
        assert client.post("/logout", data={"form_token": form}).status_code == 303
    for number in range(COUNT):
        with only(folder, number):
            other = client_of(server)
            other.cookies.set("assistant_session", session)
            assert other.get("/agent/tickets").status_code == 401


def test_a_clients_requests_are_counted_across_workers(server, folder):
    client, taken, started = client_of(server), 0, time.monotonic()
    for number in range(COUNT):
        with only(folder, number):
            for _ in range(RATE // 2):
                answer = client.get("/api/v1/generation")
                taken += answer.status_code == 200
    assert answer.status_code == 429
    assert RATE <= taken <= RATE + 1 + RATE / 60 * (time.monotonic() - started)
    assert ask(client_of(server))["verdict"] == "answered"


def test_a_clients_sign_ins_are_counted_across_workers(server, folder):
    client, refused = client_of(server), 0
    for number in range(COUNT):
        with only(folder, number):
            for _ in range(SIGN_INS // 2):
                answer = client.get("/login", params={"token": "x" * 20})
                refused += answer.status_code == 429
    assert answer.status_code == 429
    assert 2 <= refused <= SIGN_INS // 2 + 1


def test_figures_are_the_sums_over_all_workers(server, folder):
    def asks():
        text = httpx.get(f"{server.url}/metrics").text
        lines = [line for line in text.splitlines() if line.startswith("assistant_asks_total")]
        return sum(float(line.split()[-1]) for line in lines), text

    before, _ = asks()
    for number in range(COUNT):
        with only(folder, number):
            ask(client_of(server))
    found = []
    for number in range(COUNT):
        with only(folder, number):
            count, text = asks()
            found.append(count)
            assert "assistant_index_passages 17.0" in text
    assert found == [before + COUNT] * COUNT


def test_every_program_that_asks_as_the_page_does_is_answered(server):
    """Its question and its answer take two connections, of which each may end anywhere."""

    def many(_):
        client = Client(server.url, verbose=False)
        told = [client.predict("充值没到账怎么办", api_name="/ask") for _ in range(2)]
        client.close()
        return [json.loads(one)["verdict"] for one in told]

    with ThreadPoolExecutor(3) as crowd:
        assert list(crowd.map(many, range(5))) == [["answered"] * 2] * 5
    for _ in range(4):
        assert "充值" in asked(client_of(server), "充值没到账怎么办")


@in_browser
def test_in_a_browser_twenty_questions_are_answered(server):
    with chromium() as browser:
        context = browser.new_context(
            locale="zh-CN", extra_http_headers={"X-Forwarded-For": "198.51.100.7"}
        )
        context.set_default_timeout(30_000)
        page = context.new_page()
        for visit in range(2):
            page.goto(server.url)
            page.wait_for_selector("#ask")
            until(page, f"document.querySelectorAll('.turn').length === {10 * visit}")
            for number in range(10 * visit + 1, 10 * visit + 11):
                page.fill("#question textarea", f"充值没到账怎么办 {number}")
                page.press("#question textarea", "Enter")
                until(page, f"document.querySelectorAll('.turn').length === {number}")
        assert page.locator(".turn .quote").count() >= 20


def test_maintainers_work_is_one_whoever_is_asked_and_all_serve_its_result(server, folder):
    path = folder / "corpus" / GUIDE
    path.write_text(
        path.read_text("utf-8") + "\n\n## 紫色河马\n\n紫色河马住在七号池塘。\n", "utf-8"
    )
    maintainer = client_of(server, MAINTAINER)
    before = maintainer.get("/healthz").json()["generation"]
    assert through(folder, 1, lambda: maintainer.post("/maintain/rebuild")).status_code == 303
    told = through(folder, 2, lambda: maintainer.get("/maintain/rebuild/events")).text
    assert told.count("event: run") > 1
    assert told.rstrip().splitlines()[-2] == "event: end", told[-300:]
    generations = set()
    for number in range(COUNT):
        with only(folder, number):
            answer = ask(client_of(server), "紫色河马住在哪里")
            assert "七号池塘" in answer["quotes"][0]["text"]
            generations.add(answer["generation"])
    assert len(generations) == 1
    assert before not in generations


def test_a_client_cannot_say_to_be_a_worker(server):
    """What workers tell each other counts on their own sockets alone."""
    said = {"x-worker-client": "203.0.113.9", "x-worker-scheme": "https"}
    client = client_of(server, address="203.0.113.1")
    codes = {client.get("/maintain", headers=said).status_code for _ in range(RATE + 20)}
    assert codes == {401, 429}
    assert client_of(server, address="203.0.113.9").get("/maintain").status_code == 401
    foreign = httpx.get(f"{server.url}/maintain", headers={"Host": "evil.example"})
    assert foreign.status_code == 400


def test_a_worker_that_is_killed_is_missed_by_few_and_replaced(server, folder):
    crew = crew_of(folder)
    stop, codes = threading.Event(), Counter()

    def asking():
        while not stop.is_set():
            try:
                codes[client_of(server, address="").get("/healthz").status_code] += 1
            except httpx.TransportError:
                codes["lost"] += 1
            time.sleep(0.01)

    thread = threading.Thread(target=asking)
    thread.start()
    try:
        os.kill(crew[1], signal.SIGKILL)
        soon(lambda: crew_of(folder).get(1, crew[1]) != crew[1], 30)
    finally:
        stop.set()
        thread.join()
    assert codes["lost"] <= 2
    assert set(codes) <= {200, "lost"}
    with only(folder, 1):
        soon(lambda: client_of(server).get("/healthz").status_code == 200, 30)
        assert ask(client_of(server))["verdict"] == "answered"
    for _ in range(6):
        assert "充值" in asked(client_of(server), "充值没到账怎么办")


def test_told_to_end_all_end_in_time_with_streams_open(server, folder):
    pids = list(crew_of(folder).values())
    client = client_of(server)
    with (
        client.stream("GET", "/gradio_api/heartbeat/abc"),
        client_of(server).stream("GET", "/gradio_api/heartbeat/xyz"),
    ):
        started = time.monotonic()
        assert server.end() == 0
        assert time.monotonic() - started < 11
    assert not any(map(alive, pids))
    assert list(folder.glob("assistant-*")) == []


# --- Settings that cannot be ---------------------------------------------------------------------


def test_a_folder_that_cannot_be_written_to_is_said(guide, capsys, monkeypatch):
    monkeypatch.setenv("ASSISTANT_USERS", "/proc/nowhere/users.toml")
    places = ["--corpus", str(guide.corpus), "--index", str(guide.index)]
    assert main(["serve", "--port", "0", "--workers", "2", *places]) == 2
    assert "set workers to 1" in capsys.readouterr().err


def test_a_service_that_cannot_begin_ends_with_the_reason(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "assistant.cli", "serve", "--port", "0", "--workers", "2"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 4, done.stderr
    assert "corpus" in done.stderr
    assert "Serving" not in done.stdout
