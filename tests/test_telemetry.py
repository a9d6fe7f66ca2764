"""Health and metrics as an overseer meets them: what is counted, who may read it, who is ready."""

import sqlite3
import time
from contextlib import closing

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from assistant.access import Access
from assistant.errors import IndexUnusable
from assistant.frontdesk import FrontDesk
from assistant.history import History
from assistant.web.api import api
from assistant.web.guard import Guard
from assistant.web.limits import Limits
from assistant.web.login import sign_in_routes
from assistant.web.problems import Problems, problem_handlers
from assistant.web.telemetry import Counted, Telemetry

AGENT, MAINTAINER = "a-token-of-an-agent", "a-token-of-a-maintainer"


@pytest.fixture
def served(desk, tmp_path, monkeypatch):
    """Return a maker of applications over the shipped guide, with what the metrics count."""
    histories = []

    def made(**update):
        given = {
            "history": f"sqlite:///{tmp_path}/history.db",
            "users": tmp_path / "users.toml",
            "rate_per_minute": 0,
        }
        tokens = {"agent_token": AGENT, "maintainer_token": MAINTAINER}
        settings = desk.settings.model_validate(
            desk.settings.model_dump() | given | tokens | update
        )
        monkeypatch.setattr(desk, "settings", settings)
        histories.append(History.open(settings))
        front = FrontDesk(desk, histories[-1])
        telemetry = Telemetry(front)
        app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
        app.add_middleware(Limits, settings=settings, spares=telemetry.scraped)
        app.add_middleware(Counted, telemetry=telemetry)
        app.add_middleware(Problems)
        app.add_middleware(Guard, settings=settings)
        problem_handlers(app)
        sign_in_routes(app, Access.open(settings))
        telemetry.routes(app)
        app.include_router(api(front))
        app.state.front = front
        return app

    yield made
    for history in histories:
        history.close()


def client(app, host="127.0.0.1", **headers):
    return TestClient(app, base_url="http://127.0.0.1", client=(host, 5000), headers=headers)


@pytest.fixture
def local(served):
    """A client on this machine."""
    return client(served())


def metrics(local):
    """Read the metrics as Prometheus does: value by name and labels."""
    answer = local.get("/metrics")
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def asked(local, question):
    return local.post("/api/v1/ask", json={"question": question}).json()


# --- What is counted -----------------------------------------------------------------------------


def test_asks_are_counted_by_verdict_language_and_whether_they_were_saved(local):
    for question in ("充值没到账怎么办", "充值没到账怎么办", "How do I reset my password?", "你好"):
        asked(local, question)
    local.post("/api/v1/ask", json={"question": ""})
    found = metrics(local)
    counts = {
        tuple(dict(labels)[name] for name in ("verdict", "language", "saved")): value
        for (name, *labels), value in found.items()
        if name == "assistant_asks_total"
    }
    assert counts == {
        ("answered", "zh", "true"): 2,
        ("answered", "en", "true"): 1,
        ("unanswered", "zh", "true"): 1,
    }
    assert found["assistant_ask_seconds_count",] == 4
    assert 0 < found["assistant_ask_seconds_sum",] < 60
    assert found["assistant_confidence_count",] == 4


def test_latency_has_buckets_where_answers_are(local):
    for _ in range(20):
        asked(local, "充值没到账怎么办")
    found = metrics(local)
    counts = {
        float(dict(labels)["le"]): value
        for (name, *labels), value in found.items()
        if name == "assistant_ask_seconds_bucket"
    }
    assert min(counts) <= 0.0005
    assert sum(bound <= 0.01 for bound in counts) >= 4
    assert counts[float("inf")] == 20
    assert list(counts.values()) == sorted(counts.values())


def test_requests_are_counted_by_route_and_never_by_what_stands_in_a_path(local):
    for number in range(50):
        local.get(f"/api/v1/conversations/{number}")
        local.get(f"/api/v1/documents/{number}")
        local.get(f"/nowhere/{number}")
        local.request(f"X{number}", "/healthz")
    local.get("/api/v1/tickets/7")
    found = metrics(local)
    counts = {
        tuple(dict(labels)[name] for name in ("method", "route", "status")): value
        for (name, *labels), value in found.items()
        if name == "assistant_http_requests_total"
    }
    assert counts["GET", "/api/v1/conversations/{conversation}", "200"] == 50
    assert counts["GET", "/api/v1/documents/{path:path}", "404"] == 50
    assert counts["GET", "/api/v1/tickets/{number}", "401"] == 1
    assert counts["GET", "other", "404"] == 50
    assert counts["other", "/healthz", "405"] == 50
    assert len(counts) < 10


def test_index_and_tickets_are_told_as_they_are(local, desk):
    def tickets():
        return {
            dict(labels)["state"]: value
            for (name, *labels), value in metrics(local).items()
            if name == "assistant_tickets"
        }

    assert tickets() == {"new": 0, "claimed": 0, "closed": 0}
    given = asked(local, "我要转人工")
    place = {name: given[name] for name in ("conversation", "turn")}
    number = local.post("/api/v1/tickets", json=place).json()["number"]
    assert tickets() == {"new": 1, "claimed": 0, "closed": 0}
    local.post(f"/api/v1/tickets/{number}/claim", headers={"Authorization": f"Bearer {AGENT}"})
    assert tickets() == {"new": 0, "claimed": 1, "closed": 0}
    found = metrics(local)
    info = ("generation", desk.generation), ("model", desk.encoder.name)
    assert found["assistant_index_info", *info] == 1
    assert found["assistant_index_passages",] == 17
    assert 0 < found["assistant_index_age_seconds",] < 3600


def test_metrics_are_given_while_the_database_cannot_be_read(local, tmp_path):
    asked(local, "充值没到账怎么办")
    with closing(sqlite3.connect(tmp_path / "history.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert asked(local, "充值没到账怎么办")["saved"] is False
        until = time.monotonic() + 10  # the writer may learn of the lock after its caller gave up
        while (found := metrics(local))["assistant_history_saving",] and time.monotonic() < until:
            time.sleep(0.05)
    labels = ("language", "zh"), ("saved", "false"), ("verdict", "answered")
    assert found["assistant_asks_total", *labels] == 1
    assert found["assistant_history_saving",] == 0


# --- Who may read it -----------------------------------------------------------------------------


def test_metrics_are_for_this_machine_and_for_maintainers(served):
    app = served()
    agent, maintainer = (f"Bearer {token}" for token in (AGENT, MAINTAINER))
    for host in ("127.0.0.1", "127.8.8.8", "::1"):
        assert client(app, host).get("/metrics").status_code == 200
    for host in ("10.0.0.9", "192.168.1.7", "2001:db8::1", "testclient"):
        refused = client(app, host).get("/metrics")
        assert refused.status_code == 401
        assert refused.headers["content-type"] == "application/problem+json"
        assert client(app, host, Authorization=agent).get("/metrics").status_code == 401
        assert client(app, host, Authorization="Bearer x").get("/metrics").status_code == 401
        assert client(app, host, Authorization=maintainer).get("/metrics").status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        {"X-Forwarded-For": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"X-Real-IP": "10.0.0.9"},
        {"Host": "help.example"},
    ],
)
def test_what_a_proxy_on_this_machine_passes_on_is_not_of_this_machine(served, header):
    app = served(allowed_hosts=("help.example",))
    assert client(app).get("/metrics", headers=header).status_code == 401


def test_metrics_are_for_all_where_the_setting_says_so(served):
    assert client(served(metrics_open=True), "10.0.0.9").get("/metrics").status_code == 200


def test_who_may_read_metrics_may_read_them_at_any_rate_and_others_are_counted(served):
    app = served(rate_per_minute=3)
    far, maintainer = client(app, "10.0.0.9"), {"Authorization": f"Bearer {MAINTAINER}"}
    assert [far.get("/metrics").status_code for _ in range(5)] == [401] * 3 + [429] * 2
    assert [far.get("/metrics", headers=maintainer).status_code for _ in range(9)] == [200] * 9
    assert [client(app).get("/metrics").status_code for _ in range(9)] == [200] * 9
    assert client(app).get("/readyz").status_code == 200
    opened = client(served(rate_per_minute=3, metrics_open=True), "10.0.0.9")
    assert [opened.get("/metrics").status_code for _ in range(9)] == [200] * 9
    agent = {"Authorization": f"Bearer {AGENT}"}
    statuses = [far.get("/metrics", headers=agent).status_code for _ in range(4)]
    assert statuses == [401] * 3 + [429]


# --- Health --------------------------------------------------------------------------------------


def test_health_and_readiness_are_for_all(served, desk):
    far = client(served(), "10.0.0.9")
    assert far.get("/healthz").json() == {"status": "ok", "generation": desk.generation}
    ready = far.get("/readyz").json()
    assert ready == {"status": "ready", "generation": desk.generation, "saving": True, "notes": 0}


def test_it_stays_ready_while_nothing_can_be_saved_and_says_so(local, tmp_path):
    asked(local, "充值没到账怎么办")
    with closing(sqlite3.connect(tmp_path / "history.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        asked(local, "充值没到账怎么办")
        ready = local.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["saving"] is False


@pytest.mark.parametrize("error", [IndexUnusable("CANARY vectors.faiss"), RuntimeError("CANARY")])
def test_it_is_up_and_not_ready_while_the_index_cannot_be_searched(local, monkeypatch, desk, error):
    def search(*_):
        raise error

    monkeypatch.setattr(type(desk), "search", search)
    refused = local.get("/readyz")
    assert refused.status_code == 503
    assert refused.headers["content-type"] == "application/problem+json"
    assert "CANARY" not in refused.text
    assert local.get("/healthz").status_code == 200


def test_two_applications_in_one_process_count_for_themselves(served):
    one, other = client(served()), client(served())
    asked(one, "充值没到账怎么办")
    assert metrics(one)["assistant_ask_seconds_count",] == 1
    assert metrics(other)["assistant_ask_seconds_count",] == 0
