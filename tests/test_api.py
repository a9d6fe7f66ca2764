"""REST through its public door: a real server, real requests, and programs that send anything."""

import json
import re
import shlex
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from html import unescape

import httpx
import jsonschema
import orjson
import pytest
from doors import ANY_TEXT, FAULTY
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from server import PATIENCE, running

from assistant import cli

GUIDE = "topay-contact-guide.md"
AGENT, MAINTAINER = "a-token-of-an-agent", "a-token-of-a-maintainer"
AS_AGENT = {"Authorization": f"Bearer {AGENT}"}
AS_MAINTAINER = {"Authorization": f"Bearer {MAINTAINER}"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api")
    (folder / "secret.txt").write_text("CANARY")
    return folder


@pytest.fixture(scope="module")
def server(guide, folder):
    """The shipped guide, served, with a token for each role and no limit to the rate."""
    variables = {
        "ASSISTANT_AGENT_TOKEN": AGENT,
        "ASSISTANT_MAINTAINER_TOKEN": MAINTAINER,
        "ASSISTANT_RATE_PER_MINUTE": "0",
        "ASSISTANT_RATE_LOGIN_PER_MINUTE": "0",
    }
    places = ["--corpus", str(guide.corpus), "--index", str(guide.index)]
    with running(["-c", FAULTY, *places], folder, **variables) as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with server.client as client:
        yield client


def post(client, route, **body):
    return client.post(f"/api/v1/{route}", json=body)


def asked(client, question, conversation=""):
    answer = post(client, "ask", question=question, conversation=conversation)
    assert answer.status_code == 200, answer.text
    return answer.json()


def is_problem(answer):
    """Tell whether an answer is a refusal as RFC 9457 has it."""
    told = answer.json()
    return (
        answer.headers["content-type"] == "application/problem+json"
        and told["status"] == answer.status_code
        and {"type", "title", "detail", "instance"} <= told.keys()
    )


# --- Answers -------------------------------------------------------------------------------------

QUESTIONS = [
    "充值没到账怎么办",
    "How do I reset my password?",
    "账户被盗了，怎么冻结",
    "我要转人工",
    "火星上怎么种土豆",
    "400-123-4567 是官方电话吗",
    "你好",
]


@pytest.mark.parametrize("question", QUESTIONS)
def test_ask_gives_the_object_that_the_command_line_gives(client, guide, capsys, question):
    """The same but for what only a conversation has, the time it took, and the addresses."""
    given = asked(client, question)
    places = ["--corpus", str(guide.corpus), "--index", str(guide.index)]
    assert cli.main(["ask", *places, "--json", question]) == 0
    printed = json.loads(capsys.readouterr().out)
    kept = {given.pop(name) for name in ("conversation", "turn", "saved")}
    assert len(kept) == 3
    assert _without(given, "elapsed_ms", "url") == _without(printed, "elapsed_ms", "url")


def _without(value, *names):
    if isinstance(value, dict):
        return {key: _without(one, *names) for key, one in value.items() if key not in names}
    return [_without(one, *names) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("question", QUESTIONS[:4])
def test_every_quote_has_an_address_that_opens_the_source_with_it_marked(client, guide, question):
    text = (guide.corpus / GUIDE).read_text("utf-8")
    found = list(_quotes(asked(client, question)))
    hits = post(client, "search", question=question, top_k=3).json()["hits"]
    found += [hit["chunk"] for hit in hits]
    assert found
    for quote in found:
        assert text[quote["start"] : quote["end"]] == quote["text"]
        page = client.get(quote["url"])
        assert f'<mark id="{quote["start"]}-{quote["end"]}">' in page.text


def _quotes(value):
    """Yield every quote within an answer."""
    if isinstance(value, dict):
        if "highlights" in value:
            yield value
        for one in value.values():
            yield from _quotes(one)
    elif isinstance(value, list):
        for one in value:
            yield from _quotes(one)


def test_a_follow_up_is_read_with_the_question_before_it(client):
    first = asked(client, "怎么联系在线客服")
    again = asked(client, "那邮件呢", first["conversation"])
    alone = asked(client, "那邮件呢")
    assert first["conversation"] == again["conversation"] != alone["conversation"]
    kept = client.get(f"/api/v1/conversations/{first['conversation']}").json()["turns"]
    assert [turn["question"] for turn in kept] == ["怎么联系在线客服", "那邮件呢"]
    assert [turn["turn"] for turn in kept] == [first["turn"], again["turn"]]
    assert _without(kept[1], "at", "vote", "ticket") == again


def test_handoff_gives_the_way_to_a_person(client):
    given = post(client, "handoff", question="充值没到账").json()
    assert given["handoff"]["reason"] == "asked_for_human"
    assert given["handoff"]["checklist"]


def test_search_keeps_within_a_document_and_a_section(client):
    hits = post(client, "search", question="客服", top_k=20).json()["hits"]
    assert len(hits) == 17
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    for hit in hits:
        assert hit["similarity"] == pytest.approx((hit["passage"] + hit["view"]) / 2)
    section = hits[3]["chunk"]["headings"][-1]
    within = post(client, "search", question="客服", top_k=20, section=section).json()["hits"]
    assert within
    assert all(section in hit["chunk"]["headings"] for hit in within)
    both = post(client, "search", question="客服", path=GUIDE, section=section)
    assert both.json() == {"hits": within}


@pytest.mark.parametrize(
    ("place", "unknown"),
    [
        ({"path": "CANARY.md"}, "path"),
        ({"section": "CANARY"}, "section"),
        ({"path": GUIDE, "section": "CANARY"}, "section"),
        ({"path": "CANARY.md", "section": "2. 在线客服"}, "path"),
        ({"path": "CANARY.md", "section": "CANARY"}, "path"),
    ],
)
def test_a_search_within_what_is_not_there_says_which_it_is(client, place, unknown):
    """A mistyped place must not look like a guide that says nothing."""
    answer = post(client, "search", question="客服", **place)
    assert answer.status_code == 404
    assert is_problem(answer)
    detail = answer.json()["detail"]
    assert [name for name in ("path", "section") if f"（{name}）" in detail] == [unknown]
    assert "CANARY" not in answer.text
    if unknown == "path":
        assert client.get("/api/v1/documents/CANARY.md").json()["detail"] == detail


# --- What is kept --------------------------------------------------------------------------------


def test_a_vote_is_kept_and_the_last_one_counts(client):
    given = asked(client, "充值没到账怎么办")
    place = {name: given[name] for name in ("conversation", "turn")}
    assert post(client, "feedback", **place, value=1).status_code == 204
    why = {"value": -1, "reason": "outdated", "note": "改版了"}
    assert post(client, "feedback", **place, **why).status_code == 204
    [turn] = client.get(f"/api/v1/conversations/{given['conversation']}").json()["turns"]
    assert {name: turn["vote"][name] for name in why} == why
    other = asked(client, "充值没到账怎么办")
    foreign = post(
        client, "feedback", conversation=other["conversation"], turn=given["turn"], value=1
    )
    assert foreign.status_code == 404
    assert is_problem(foreign)


@pytest.mark.parametrize(
    ("vote", "field"),
    [
        ({"value": 1, "reason": "outdated"}, "reason"),
        ({"value": True}, "value"),
        ({"value": -1.0}, "value"),
        ({"value": 0}, "value"),
        ({"value": "1"}, "value"),
        ({"value": -1, "reason": "rude"}, "reason"),
    ],
)
def test_a_vote_that_says_two_things_or_none_is_refused(client, vote, field):
    given = asked(client, "充值没到账怎么办")
    place = {name: given[name] for name in ("conversation", "turn")}
    refused = post(client, "feedback", **place, **vote)
    assert refused.status_code == 422
    assert f" {field}: " in refused.json()["detail"]
    [turn] = client.get(f"/api/v1/conversations/{given['conversation']}").json()["turns"]
    assert turn["vote"] is None


def test_forgetting_leaves_nothing_and_asks_for_nothing(client):
    given = asked(client, "充值没到账怎么办")
    path = f"/api/v1/conversations/{given['conversation']}"
    assert client.get(path).json()["turns"]
    assert client.delete(path).status_code == 204
    assert client.get(path).json()["turns"] == []
    assert client.delete(path).status_code == 204
    assert client.get("/api/v1/conversations/nobody").json()["turns"] == []


def ticket(client, question="我要转人工"):
    """Open a ticket as a user does; return its number and place."""
    given = asked(client, question)
    place = {name: given[name] for name in ("conversation", "turn")}
    item = given["handoff"]["checklist"][0]["item"]
    opened = post(client, "tickets", **place, filled={item: "尾号 1234"}, reply_to="a@b.example")
    assert opened.status_code == 201, opened.text
    return opened.json(), place


def test_a_ticket_goes_its_way_from_user_to_agent(client):
    opened, place = ticket(client)
    assert opened.keys() == {"number", "state", "urgent", "created"}
    assert post(client, "tickets", **place).json() == opened
    path = f"/api/v1/tickets/{opened['number']}"
    with httpx.Client(base_url=client.base_url, headers=AS_AGENT) as agent:
        listed = agent.get("/api/v1/tickets", params={"state": "new"}).json()["tickets"]
        assert opened["number"] in [one["number"] for one in listed]
        shown = agent.get(path).json()
        assert shown["reply_to"] == "a@b.example"
        assert shown["packet"]["filled"][0]["text"] == "尾号 1234"
        assert agent.post(f"{path}/claim").json()["owner"] == "agent"
        mine = agent.get("/api/v1/tickets", params={"mine": True, "state": "claimed"}).json()
        assert opened["number"] in [one["number"] for one in mine["tickets"]]
        assert agent.post(f"{path}/release").json()["owner"] == ""
        assert agent.post(f"{path}/notes", json={"note": "打过电话"}).status_code == 200
        closed = agent.post(f"{path}/close", json={"note": "办好了"}).json()
    assert closed["state"] == "closed"
    assert [note["text"] for note in closed["notes"]] == ["打过电话", "办好了"]


def test_of_two_who_claim_at_once_one_has_it(client):
    for _ in range(5):
        path = f"/api/v1/tickets/{ticket(client)[0]['number']}/claim"
        with ThreadPoolExecutor(2) as threads:
            got = list(
                threads.map(lambda who: client.post(path, headers=who), (AS_AGENT, AS_MAINTAINER))  # noqa: B023
            )
        assert sorted(one.status_code for one in got) == [200, 409]
        winner, loser = sorted(got, key=lambda one: one.status_code)
        assert is_problem(loser)
        assert winner.json()["owner"] in loser.json()["detail"]


def test_what_another_holds_is_taken_over_and_by_a_maintainer_given_back(client):
    path = f"/api/v1/tickets/{ticket(client)[0]['number']}"
    held = client.post(f"{path}/claim", headers=AS_MAINTAINER).json()["owner"]
    for change in ("claim", "release", "close"):
        assert client.post(f"{path}/{change}", headers=AS_AGENT).status_code == 409
    took = {"json": {"owner": held}, "headers": AS_AGENT}
    taken = client.post(f"{path}/takeover", **took).json()
    assert (taken["owner"], held in taken["notes"][-1]["text"]) == ("agent", True)
    late = client.post(f"{path}/takeover", json={"owner": "ming"}, headers=AS_MAINTAINER)
    assert late.status_code == 409
    assert client.post(f"{path}/takeover", headers=AS_AGENT).status_code == 422
    assert client.post(f"{path}/release", headers=AS_MAINTAINER).json()["owner"] == ""


def test_a_closed_ticket_is_opened_again(client):
    path = f"/api/v1/tickets/{ticket(client)[0]['number']}"
    assert client.post(f"{path}/reopen", headers=AS_AGENT).status_code == 409
    client.post(f"{path}/close", headers=AS_MAINTAINER)
    opened = client.post(f"{path}/reopen", headers=AS_AGENT).json()
    assert (opened["state"], opened["owner"], opened["closed"]) == ("claimed", "agent", None)
    assert client.post(f"{path}/reopen", headers=AS_MAINTAINER).status_code == 409


def test_what_is_said_of_the_same_turn_later_is_added_to_its_ticket(client):
    opened, place = ticket(client)
    path = f"/api/v1/tickets/{opened['number']}"
    before = client.get(path, headers=AS_AGENT).json()
    item = before["packet"]["filled"][1]["item"]
    again = post(client, "tickets", **place, filled={item: "昨天"}, reply_to="c@d.example")
    assert (again.status_code, again.json()) == (201, opened)
    after = client.get(path, headers=AS_AGENT).json()
    assert after["reply_to"] == "c@d.example"
    assert [one["text"] for one in after["packet"]["filled"][:2]] == ["尾号 1234", "昨天"]


def test_tickets_are_listed_to_the_end_and_found_by_words(client):
    numbers = [ticket(client)[0]["number"] for _ in range(3)]
    shown, last = [], {}
    while page := client.get(
        "/api/v1/tickets", params={"state": "new", "limit": 2, **last}, headers=AS_AGENT
    ).json()["tickets"]:
        shown += [one["number"] for one in page]
        last = {"after": shown[-1]}
    assert len(shown) == len(set(shown))
    assert set(numbers) <= set(shown)
    asked = {"q": f"#{numbers[0]}", "state": "new"}
    found = client.get("/api/v1/tickets", params=asked, headers=AS_AGENT).json()["tickets"]
    assert numbers[0] in [one["number"] for one in found]


def test_only_what_the_checklist_asks_for_is_taken(client):
    given = asked(client, "我要转人工")
    place = {name: given[name] for name in ("conversation", "turn")}
    refused = post(client, "tickets", **place, filled={"密码": "secret1"})
    assert refused.status_code == 422
    assert is_problem(refused)
    plain = asked(client, "充值没到账怎么办")
    place = {name: plain[name] for name in ("conversation", "turn")}
    assert post(client, "tickets", **place).status_code == 422


def test_export_gives_a_maintainer_every_conversation_as_json_lines(client):
    given = asked(client, "充值没到账怎么办")
    with client.stream("GET", "/api/v1/export", headers=AS_MAINTAINER) as answer:
        assert answer.headers["content-type"].startswith("application/x-ndjson")
        lines = [orjson.loads(line) for line in answer.iter_lines()]
    assert given["conversation"] in orjson.dumps(lines).decode()
    assert client.get("/api/v1/export", headers=AS_AGENT).status_code == 403


# Secrets made up for the test: a card number that passes Luhn's check, and a password.
SECRETS = ["4111111111111111", "hunter2xyz9"]


def test_secrets_reach_neither_the_database_nor_the_log_nor_the_answer(client, folder, server):
    card, password = SECRETS
    given = asked(client, f"我的卡号是 {card}，密码是 {password}，我要转人工")
    place = {name: given[name] for name in ("conversation", "turn")}
    note = f"密码是 {password} 卡号 {card}"
    assert post(client, "feedback", **place, value=-1, note=note).status_code == 204
    item = given["handoff"]["checklist"][0]["item"]
    opened = post(client, "tickets", **place, filled={item: note}, reply_to=note)
    assert opened.status_code == 201
    number = opened.json()["number"]
    client.post(f"/api/v1/tickets/{number}/notes", json={"note": note}, headers=AS_AGENT)
    post(client, "feedback", **place, value=note, **{note: note})
    stored = b"".join(path.read_bytes() for path in (folder / "var").iterdir() if path.is_file())
    assert given["turn"].encode() in stored
    for secret in SECRETS:
        assert secret not in orjson.dumps(given).decode()
        assert secret.encode() not in stored
        assert secret not in server.log.read_text()


# --- Documents -----------------------------------------------------------------------------------


def test_documents_are_read_by_the_offsets_of_quotes(client, guide):
    text = (guide.corpus / GUIDE).read_text("utf-8")
    [listed] = client.get("/api/v1/documents").json()["documents"]
    assert (listed["path"], listed["characters"]) == (GUIDE, len(text))
    parts = [
        client.get(f"/api/v1/documents/{GUIDE}", params={"start": at, "end": at + 500}).json()
        for at in range(0, len(text), 500)
    ]
    assert "".join(part["text"] for part in parts) == text
    beyond = client.get(f"/api/v1/documents/{GUIDE}", params={"start": 10**9}).json()
    assert (beyond["start"], beyond["end"], beyond["text"]) == (len(text), len(text), "")
    backwards = client.get(f"/api/v1/documents/{GUIDE}", params={"start": 7, "end": 3})
    assert backwards.status_code == 422
    assert "end" in backwards.json()["detail"]


@pytest.mark.parametrize(
    "path",
    "secret.txt ../secret.txt %2e%2e/secret.txt ..%2fsecret.txt /etc/passwd //etc/passwd %00 "
    "C:%5Cx contacts.toml corpus/contacts.toml secret.txt%00.md secret.txt::$DATA file:///x".split(),
)
def test_a_document_is_named_by_its_path_in_the_guide_and_by_nothing_else(client, path):
    answer = client.get(f"/api/v1/documents/{path}")
    assert answer.status_code == 404
    assert "CANARY" not in answer.text


def test_the_generation_in_use_is_told(client):
    told = client.get("/api/v1/generation").json()
    assert told["generation"] == client.get("/healthz").json()["generation"]
    assert told["generation"] == asked(client, "充值没到账怎么办")["generation"]
    assert told["age_seconds"] > 0
    assert (told["documents"], told["passages"]) == (1, 17)
    assert "/" not in told["model"]


# --- What programs send --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 400),
        (b"[]", 422),
        (b"null", 422),
        (b"NaN", 422),
        (b"{}", 422),
        (b'{"question": NaN}', 422),
        (b'{"question": 7}', 422),
        (b'{"question": null}', 422),
        (b'{"question": ["CANARY"]}', 422),
        (b'{"question": {"CANARY": "CANARY"}}', 422),
        (b'{"question": "x", "CANARY": 1}', 422),
        (b'{"question": "x", "CANARY\\ud800": 1}', 422),
        (b'{"question": "x", "conversation": 5}', 422),
        (b'{"question": ""}', 422),
        (b'{"question": "?!"}', 422),
        (b'{"question": "\\ud83d\\ude00\\ud83d"}', 422),
        (b'{"question": "top up \\ud83d"}', 200),
        (b'{"question": "hello \\u0000"}', 200),
        ('{"question": "充值"}'.encode("gbk"), 400),
        ('{"question": "充值"}'.encode("utf-16"), 400),
        ('\ufeff{"question": "充值"}'.encode(), 200),
        (b'{"question": "\xff"}', 400),
        (b'{"question": "' + b"CANARY" * 1000 + b'"}', 422),
        (b'{"question": "' + b"CANARY" * 10_000 + b'"}', 422),
        (b"[" * 100_000, 400),
        (b'{"question":' + b"[" * 100_000, 400),
        (b'{"a":' * 40_000, 400),
        (b'{"question": ' + b"1" * 100_000 + b"}", 400),
    ],
    ids=lambda value: str(value[:28]) if isinstance(value, bytes) else str(value),
)
def test_a_body_that_is_no_question_is_refused_without_being_sent_back(client, body, status):
    answer = client.post("/api/v1/ask", content=body, headers=JSON)
    assert answer.status_code == status
    assert "CANARY" not in answer.text
    if status != 200:
        assert is_problem(answer)
    if status == 400:
        assert answer.json()["detail"] == "The body is not JSON in UTF-8."


@pytest.mark.parametrize(
    ("method", "path", "body", "allowed"),
    [
        ("POST", "ask", {"question": "hi", "foo": 1}, "body: It takes question, conversation and"),
        ("POST", "search", {"foo": 1}, "question, top_k, path, section and nothing else"),
        ("POST", "ask?foo=1", {"question": "hi"}, "query: It takes nothing"),
        ("GET", "tickets?stat=new", None, "query: It takes state, mine, limit, after, q and"),
        ("GET", f"documents/{GUIDE}?begin=3", None, "query: It takes start, end and nothing else"),
        ("GET", "generation?x", None, "query: It takes nothing"),
        ("DELETE", "conversations/nobody?all=1", None, "query: It takes nothing"),
        ("POST", "tickets/1/close", {"foo": ""}, "body: It takes note and nothing else"),
    ],
)
def test_a_field_that_is_none_is_answered_with_those_there_are(client, method, path, body, allowed):
    answer = client.request(method, f"/api/v1/{path}", json=body, headers=AS_AGENT)
    assert answer.status_code == 422
    assert is_problem(answer)
    assert allowed in answer.json()["detail"]
    assert "foo" not in answer.text


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "x", "", None])
def test_a_body_of_another_kind_is_refused(client, kind):
    headers = {} if kind is None else {"Content-Type": kind}
    answer = client.post("/api/v1/ask", content=b'{"question": "hello"}', headers=headers)
    assert answer.status_code == 415
    assert is_problem(answer)
    files = {"file": ("a.html", b"<script>")}
    assert client.post("/api/v1/ask", files=files).status_code == 415


def test_ten_megabytes_are_refused_at_once(client):
    big = b'{"question": "' + "问".encode() * 3_500_000 + b'"}'
    started = time.monotonic()
    answer = client.post("/api/v1/ask", content=big, headers=JSON)
    assert answer.status_code == 413
    assert is_problem(answer)
    assert time.monotonic() - started < 5
    chunks = (big[i : i + 65536] for i in range(0, len(big), 65536))
    assert client.post("/api/v1/ask", content=chunks, headers=JSON).status_code == 413


EFFORT = effort(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@EFFORT
@given(text=ANY_TEXT)
def test_any_text_is_answered_or_politely_refused(client, text):
    """Half characters too, escaped as JSON has them."""
    body = json.dumps({"question": text, "conversation": text[:64]}).encode()
    answer = client.post("/api/v1/ask", content=body, headers=JSON)
    assert answer.status_code in (200, 422), answer.text
    if answer.status_code == 422:
        assert is_problem(answer)
    else:
        assert answer.json()["verdict"] in ("answered", "uncertain", "unanswered")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=6,
)
FIELDS = "question conversation turn value reason note filled reply_to top_k path section".split()
PATHS = (
    "ask search handoff feedback tickets tickets/1/claim tickets/1/close tickets/1/notes".split()
)


@EFFORT
@given(
    path=st.sampled_from(PATHS),
    body=st.dictionaries(st.sampled_from(FIELDS) | ANY_TEXT, ANYTHING, max_size=6) | ANYTHING,
)
def test_no_json_whatsoever_is_a_fault_of_ours(client, path, body):
    data = json.dumps(body).encode()
    answer = client.post(f"/api/v1/{path}", content=data, headers={**JSON, **AS_AGENT})
    assert answer.status_code < 500, answer.text
    assert answer.status_code < 300 or is_problem(answer)


@effort(EFFORT, max_examples=20)
@given(query=st.dictionaries(st.sampled_from("start end after limit x".split()), ANY_TEXT))
def test_no_query_whatsoever_is_a_fault_of_ours(client, query):
    params = {name: text.encode("utf-8", "replace") for name, text in query.items()}
    for path in (f"documents/{GUIDE}", "documents", "tickets", "generation"):
        answer = client.get(f"/api/v1/{path}", params=params, headers=AS_AGENT)
        assert answer.status_code in (200, 422)


@pytest.mark.parametrize(
    "number", ["0", "-1", "x", "1.5", "99999999999999999999", "2147483647", "%00", "٣"]
)
def test_a_ticket_that_is_none_is_refused(client, number):
    for method, path in (("GET", ""), ("POST", "/claim"), ("POST", "/release"), ("POST", "/close")):
        answer = client.request(method, f"/api/v1/tickets/{number}{path}", headers=AS_AGENT)
        assert answer.status_code in (404, 422)
        assert is_problem(answer)


# --- What goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "", 404),
        ("GET", "/", 404),
        ("GET", "/nothing", 404),
        ("POST", "/ask/", 404),
        ("GET", "/ask", 405),
        ("PUT", "/feedback", 405),
        ("OPTIONS", "/ask", 405),
        ("TRACE", "/ask", 405),
        ("PATCH", "/tickets/1", 405),
        ("POST", f"/documents/{GUIDE}", 405),
    ],
)
def test_what_is_no_route_is_a_problem_that_says_so(client, method, path, status):
    answer = client.request(method, f"/api/v1{path}")
    assert answer.status_code == status
    assert is_problem(answer)
    assert ("allow" in answer.headers) == (status == 405)


def test_what_a_person_may_be_shown_is_said_in_both_languages_and_the_same_everywhere(client):
    given, other = asked(client, "我要转人工"), asked(client, "你好")
    number = ticket(client)[0]["number"]
    claimed = f"tickets/{number}/claim"
    client.post(f"/api/v1/{claimed}", headers=AS_AGENT)
    nobody, foreign = "x" * 24, {"conversation": other["conversation"], "turn": given["turn"]}
    told = {
        (path, answer.status_code): half_and_half(answer)
        for path, body, headers in (
            ("ask", {"question": ""}, {}),
            ("ask", {"question": "broken"}, {}),
            ("ask", {"question": "missing"}, {}),
            ("search", {"question": "x", "path": "nobody.md"}, {}),
            ("feedback", {**foreign, "value": 1}, {}),
            ("tickets", foreign, {}),
            ("tickets", {"conversation": other["conversation"], "turn": other["turn"]}, {}),
            ("tickets/2147483647/claim", None, AS_AGENT),
            (claimed, None, AS_MAINTAINER),
            (f"tickets/{number}/notes", {"note": " "}, AS_AGENT),
        )
        for answer in [client.post(f"/api/v1/{path}", json=body, headers=headers)]
    }
    assert {status for _, status in told} == {404, 409, 422, 500, 503}
    assert told["feedback", 404] == told["tickets", 404]
    for place in ({**foreign, "turn": nobody}, {"conversation": nobody, "turn": nobody}):
        for path, more in (("feedback", {"value": 1}), ("tickets", {})):
            answer = post(client, path, **place, **more)
            assert half_and_half(answer) == told["tickets", 404]


def half_and_half(answer):
    """Check that a refusal says a thing in Chinese, then in English; return both."""
    assert is_problem(answer)
    chinese, english = answer.json()["detail"].split(" / ")
    assert re.search("[\u4e00-\u9fff]", chinese)
    assert re.match("[A-Z0-9]", english)
    assert not re.search("[\u4e00-\u9fff]", english)
    return chinese, english


def test_what_breaks_gives_an_id_that_the_log_explains_and_nothing_else(client, server):
    answer = post(client, "ask", question="broken")
    assert answer.status_code == 500
    assert is_problem(answer)
    number = answer.json()["instance"]
    assert answer.headers["x-request-id"] == number
    for words in ("CANARY", "RuntimeError", "Traceback", "/secret"):
        assert words not in answer.text
    log = server.log.read_text()
    assert number in log
    assert "CANARY /secret/path" in log


def test_a_guide_that_cannot_be_looked_up_is_said_without_its_files(client, server):
    answer = post(client, "ask", question="missing")
    assert answer.status_code == 503
    assert is_problem(answer)
    assert int(answer.headers["retry-after"]) > 0
    assert "CANARY" not in answer.text
    assert "CANARY vectors.faiss" in server.log.read_text()


def test_while_the_database_is_locked_answers_are_given_and_nothing_waits_for_them(client, folder):
    """An answer says that it was not saved, a vote that it was not taken; all else goes on."""
    given = asked(client, "充值没到账怎么办")
    place = {name: given[name] for name in ("conversation", "turn")}
    with (
        closing(sqlite3.connect(folder / "var" / "history.db")) as other,
        ThreadPoolExecutor(8) as threads,
    ):
        other.execute("BEGIN EXCLUSIVE")
        waiting = [threads.submit(asked, client, "怎么联系在线客服") for _ in range(8)]
        slowest = 0.0
        while not all(one.done() for one in waiting):
            started = time.monotonic()
            assert client.get("/healthz").status_code == 200
            slowest = max(slowest, time.monotonic() - started)
        assert slowest < 0.9  # the wait for a locked database alone is longer
        for one in waiting:
            assert (one.result()["saved"], one.result()["turn"]) == (False, "")
            assert one.result()["quotes"]
        refused = post(client, "feedback", **place, value=1)
        assert refused.status_code == 503
        assert is_problem(refused)
        assert int(refused.headers["retry-after"]) > 0
        other.rollback()
    deadline = time.monotonic() + 30
    while not asked(client, "怎么联系在线客服")["saved"]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert post(client, "feedback", **place, value=1).status_code == 204


# --- Who may do what -----------------------------------------------------------------------------

PUBLIC = {
    "GET /login",
    "POST /login",
    "GET /logout",
    "POST /logout",
    "GET /healthz",
    "GET /readyz",
    "GET /openapi.json",
    "GET /docs",
    "GET /widget.js",
    "GET /source/{path:path}",
    "POST /api/v1/ask",
    "POST /api/v1/search",
    "POST /api/v1/handoff",
    "POST /api/v1/feedback",
    "POST /api/v1/tickets",
    "GET /api/v1/documents",
    "GET /api/v1/documents/{path:path}",
    "GET /api/v1/generation",
    "GET /api/v1/conversations/{conversation}",
    "DELETE /api/v1/conversations/{conversation}",
}
MAINTAINERS = {"GET /api/v1/export"}
NOT_ROUTES = ("/api/v1", "/api/v1/{rest:path}")  # they answer that there is no such route


# Builds the application as the server does, and lists what it answers to; Gradio's are the page's.
LISTING = """
import json, sys
from fastapi.routing import APIRoute
from assistant.access import Access
from assistant.desk import Desk
from assistant.frontdesk import FrontDesk
from assistant.history import History
from assistant.settings import load_settings
from assistant.web import create_app

def routes(router):
    for route in router.routes:
        if inner := getattr(route, "original_router", None):
            yield from routes(inner)
        elif isinstance(route, APIRoute):
            yield from (f"{method} {route.path}" for method in route.methods)

settings = load_settings(corpus=sys.argv[1], index=sys.argv[2])
front = FrontDesk(Desk.open(settings), History.open(settings))
whole = list(routes(create_app(front, Access.open(settings))))
front.settings = settings.model_copy(update={"api_docs": False})
print(json.dumps([whole, list(routes(create_app(front, Access.open(settings))))]))
"""


@pytest.fixture(scope="module")
def listed(guide, tmp_path_factory):
    """The routes of the whole application, and of one without its documentation."""
    done = subprocess.run(
        [sys.executable, "-c", LISTING, str(guide.corpus), str(guide.index)],
        cwd=tmp_path_factory.mktemp("listing"),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return [{one for one in routes if one.split()[1] not in NOT_ROUTES} for routes in found]


@pytest.fixture(scope="module")
def routes(listed):
    return listed[0]


def test_every_route_that_is_not_for_all_refuses_without_a_token(client, routes):
    """Whatever is added later is refused, or must be named above; metrics are in test_telemetry."""
    assert routes >= PUBLIC
    styles = {route for route in routes if re.match("GET /static/", route)}
    closed = routes - PUBLIC - styles - {"GET /metrics"}
    assert len(closed) > 15
    for route in sorted(closed):
        method, path = route.split()
        path = re.sub(r"\{[^}]*\}", "1", path)
        for headers in ({}, {"Authorization": "Bearer wrong-wrong-wrong"}, {"Cookie": "session=x"}):
            answer = client.request(method, path, headers=headers, json={"note": "x"})
            assert answer.status_code == 401, route
            assert is_problem(answer)


def test_an_agent_may_not_do_what_a_maintainer_may(client):
    for route in MAINTAINERS:
        method, path = route.split()
        assert client.request(method, path, headers=AS_AGENT).status_code == 403
        assert client.request(method, path, headers=AS_MAINTAINER).status_code == 200
    assert client.get("/api/v1/tickets", headers=AS_MAINTAINER).status_code == 200


# --- The documentation ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def documented(client):
    return client.get("/openapi.json").json()


def test_the_document_lists_our_routes_and_theirs_alone(documented, routes):
    listed = {
        f"{method.upper()} {path}"
        for path, methods in documented["paths"].items()
        for method in methods
    }
    ours = {route.replace(":path", "") for route in routes if " /api/v1" in route}
    assert listed == ours


def test_examples_are_what_the_document_says_they_are_and_quote_the_guide(documented, guide):
    text = (guide.corpus / GUIDE).read_text("utf-8")
    shown = 0
    for methods in documented["paths"].values():
        for operation in methods.values():
            assert operation["description"].endswith(".")
            for answer in operation["responses"].values():
                for content in answer.get("content", {}).values():
                    if "example" in content and "schema" in content:
                        whole = {**content["schema"], "components": documented["components"]}
                        jsonschema.validate(content["example"], whole)
                        for quote in _quotes(content["example"]):
                            assert text[quote["start"] : quote["end"]] == quote["text"]
                            shown += 1
    assert shown


def conforms(documented, answer, template):
    """Check an answer against what the document says of its route, status and kind."""
    operation = documented["paths"][f"/api/v1{template}"][answer.request.method.lower()]
    told = operation["responses"]
    content = told.get(str(answer.status_code), told["default"]).get("content", {})
    kind = answer.headers.get("content-type", "").partition(";")[0]
    assert set(content) == ({kind} if kind else set()), template
    if kind:
        read = answer.json() if kind.endswith("json") and "ndjson" not in kind else answer.text
        whole = {**content[kind]["schema"], "components": documented["components"]}
        jsonschema.validate(read, whole)
    return f"{answer.request.method} {template}"


def test_every_route_answers_as_the_document_says(client, documented):
    opened, place = ticket(client)
    named = {"conversation": place["conversation"], "number": opened["number"], "path": GUIDE}
    question = {"question": "充值没到账怎么办"}
    client.post(f"/api/v1/tickets/{opened['number']}/claim", headers=AS_AGENT)
    seen = set()
    for method, template, body in (
        ("POST", "/ask", question),
        ("POST", "/handoff", question),
        ("POST", "/search", question),
        ("POST", "/feedback", {**place, "value": -1, "reason": "outdated"}),
        ("POST", "/tickets", place),
        ("POST", "/tickets/{number}/takeover", {"owner": "agent"}),
        ("POST", "/tickets/{number}/notes", {"note": "打过电话"}),
        ("GET", "/tickets", None),
        ("GET", "/tickets/{number}", None),
        ("POST", "/tickets/{number}/release", None),
        ("POST", "/tickets/{number}/claim", None),
        ("POST", "/tickets/{number}/close", None),
        ("POST", "/tickets/{number}/reopen", None),
        ("GET", "/conversations/{conversation}", None),
        ("GET", "/export", None),
        ("GET", "/documents", None),
        ("GET", "/documents/{path}", None),
        ("GET", "/generation", None),
        ("DELETE", "/conversations/{conversation}", None),
    ):
        path = f"/api/v1{template.format(**named)}"
        answer = client.request(method, path, json=body, headers=AS_MAINTAINER)
        assert answer.is_success, (path, answer.text)
        seen.add(conforms(documented, answer, template))
        refused = client.request(method, f"{path}?nothing=1", json=body, headers=AS_MAINTAINER)
        assert refused.status_code == 422
        conforms(documented, refused, template)
    assert seen == {
        f"{method.upper()} {path.removeprefix('/api/v1')}"
        for path, methods in documented["paths"].items()
        for method in methods
    }


def test_the_document_leaves_no_object_open_and_names_the_real_limits(client, documented):
    def objects(value):
        if isinstance(value, dict):
            yield from [value] if value.get("type") == "object" else []
            for one in value.values():
                yield from objects(one)
        elif isinstance(value, list):
            for one in value:
                yield from objects(one)

    schemas = documented["components"]["schemas"]
    for one in objects(schemas):
        assert one.get("properties") or isinstance(one.get("additionalProperties"), dict), one
    for name in ("Question", "Search"):
        most = schemas[name]["properties"]["question"]["maxLength"]
        assert post(client, "search", question="客" * most).status_code == 200
        assert post(client, "search", question="客" * (most + 1)).status_code == 422
    assert schemas["Remark"]["properties"]["note"]["minLength"] == 1
    path = f"/api/v1/tickets/{ticket(client)[0]['number']}"
    for body in ({}, {"note": ""}, {"note": " "}):
        assert client.post(f"{path}/notes", json=body, headers=AS_AGENT).status_code == 422
    for body in ({}, {"note": ""}):
        assert client.post(f"{path}/close", json=body, headers=AS_AGENT).status_code == 200


@pytest.mark.parametrize("question", QUESTIONS)
def test_answers_are_what_the_document_says_they_are(client, documented, question):
    schema = documented["paths"]["/api/v1/ask"]["post"]["responses"]["200"]["content"]
    whole = {**schema["application/json"]["schema"], "components": documented["components"]}
    jsonschema.validate(asked(client, question), whole)


def test_requests_shown_by_the_page_are_taken_as_they_are(client):
    page = client.get("/docs").text
    shown = [shlex.split(unescape(one)) for one in re.findall(r"<pre[^>]*>(curl .*?)</pre>", page)]
    assert len(shown) == 8
    for words in shown:
        headers = [words[i + 1] for i, word in enumerate(words) if word == "-H"]
        signed_in = "Authorization: Bearer …" in headers
        headers = JSON | (AS_AGENT if signed_in else {})
        body, url = words[words.index("-d") + 1].encode(), words[-1]
        assert url.startswith(str(client.base_url))
        assert signed_in == (client.post(url, content=body, headers=JSON).status_code == 401)
        answer = client.post(url, content=body, headers=headers)
        assert answer.status_code in (200, 204, 404, 409), (url, answer.text)  # its ids are made up


def test_requests_shown_name_the_address_that_the_reader_came_by_and_nothing_else(client):
    for host, address in (
        ("localhost:81", "http://localhost:81/api"),
        ("[::1]:81", "http://[::1]:81/api"),
        ("localhost:81'$(id)'<b>", "http://localhost/api"),
    ):
        page = client.get("/docs", headers={"Host": host}).text
        assert page.count(address) == 8
        assert "$(id)" not in page


def test_the_page_of_the_document_needs_nothing_from_elsewhere(client, documented):
    answer = client.get("/docs")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert not re.search(r"<script|<link|<img|@import|url\(|src=|\son\w+=", answer.text)
    links = re.findall(r'href="([^"]*)"', answer.text)
    for path, methods in documented["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}".replace("{", "&#123;") in answer.text
    for link in links:
        assert link == "/openapi.json" or f'id="{link[1:]}"' in answer.text


def test_the_document_can_be_left_out(listed):
    whole, without = listed
    assert whole - without == {"GET /docs", "GET /openapi.json"}
