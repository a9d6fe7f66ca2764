"""MCP with its own client, against a real server; and what is no client."""

import asyncio
import json
import sys
import time
from contextlib import asynccontextmanager

import httpx
import jsonschema
import orjson
import pytest
from doors import ANY_TEXT, FAULTY
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from server import running

from assistant.frontdesk import FrontDesk
from assistant.history import History
from assistant.web.mcp import mount_mcp

mcp = pytest.importorskip("mcp", reason="the extra mcp is not installed")

from mcp.client.streamable_http import streamable_http_client

GUIDE = "topay-contact-guide.md"
KINDS = {
    "Content-Type": "application/json",
    "Accept": "application/json, text/event-stream",
    "MCP-Protocol-Version": "2025-06-18",
}


@pytest.fixture(scope="module")
def server(guide, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mcp")
    (folder / "secret.txt").write_text("CANARY")
    places = ["--corpus", str(guide.corpus), "--index", str(guide.index)]
    with running(["-c", FAULTY, *places], folder, ASSISTANT_RATE_PER_MINUTE="0") as server:
        yield server


@pytest.fixture(scope="module")
def plain(server):
    """A client that knows HTTP alone."""
    with server.client as client:
        yield client


def within_session(server, work):
    """Run work with a session of the real client; return what it gives."""

    async def run():
        async with (
            streamable_http_client(f"{server.url}/mcp") as (reading, writing, _),
            mcp.ClientSession(reading, writing) as session,
        ):
            told = await session.initialize()
            return await work(session, told)

    return asyncio.run(asyncio.wait_for(run(), 60))


def called(server, name, **arguments):
    """Call a tool in a session of its own."""

    async def work(session, _):
        return await session.call_tool(name, arguments)

    return within_session(server, work)


def given_by(server, name, **arguments):
    """Return what a tool gives: the object, which its text is too."""
    answer = called(server, name, **arguments)
    assert not answer.isError, answer
    assert json.loads(answer.content[0].text) == answer.structuredContent
    return answer.structuredContent


# --- Tools ---------------------------------------------------------------------------------------


def test_three_tools_are_offered_and_each_only_reads(server):
    async def work(session, told):
        assert "phone number" in told.instructions
        assert told.capabilities.tools
        return (await session.list_tools()).tools

    tools = within_session(server, work)
    assert [tool.name for tool in tools] == ["ask", "search", "get_source"]
    for tool in tools:
        assert tool.annotations.readOnlyHint is True
        assert tool.annotations.destructiveHint is False
        assert tool.description
        assert tool.inputSchema["additionalProperties"] is False
        asked = tool.inputSchema["properties"].get("question")
        assert asked is None or asked["maxLength"] == 2000
        jsonschema.Draft202012Validator.check_schema(tool.inputSchema)
        jsonschema.Draft202012Validator.check_schema(tool.outputSchema)


@pytest.mark.parametrize("question", ["充值没到账怎么办", "我要转人工", "火星上怎么种土豆", "你好"])
def test_ask_gives_what_rest_gives(server, plain, question):
    rest = plain.post("/api/v1/ask", json={"question": question}).json()
    given = given_by(server, "ask", question=question)
    assert given.keys() == rest.keys()
    for name in set(rest) - {"elapsed_ms", "conversation", "turn"}:
        assert given[name] == rest[name]


def test_a_follow_up_is_read_with_the_question_before_it(server, plain):
    async def work(session, _):
        first = (await session.call_tool("ask", {"question": "怎么联系在线客服"})).structuredContent
        kept = {"conversation": first["conversation"], "question": "那邮件呢"}
        return first, (await session.call_tool("ask", kept)).structuredContent

    first, again = within_session(server, work)
    assert first["conversation"] == again["conversation"]
    turns = plain.get(f"/api/v1/conversations/{first['conversation']}").json()["turns"]
    assert [turn["turn"] for turn in turns] == [first["turn"], again["turn"]]


def test_search_and_get_source_give_the_same_words(server, guide):
    text = (guide.corpus / GUIDE).read_text("utf-8")
    [hit] = given_by(server, "search", question="在线客服", top_k=1)["hits"]
    place = {name: hit["chunk"][name] for name in ("path", "start", "end")}
    read = given_by(server, "get_source", **place)
    assert read["text"] == hit["chunk"]["text"] == text[place["start"] : place["end"]]
    assert given_by(server, "get_source", path=GUIDE)["text"] == text


@pytest.mark.parametrize(
    "path", ["secret.txt", "../secret.txt", "/etc/passwd", "contacts.toml", ""]
)
def test_get_source_reads_documents_of_the_guide_and_nothing_else(server, path):
    answer = called(server, "get_source", path=path)
    assert answer.isError
    assert "CANARY" not in answer.content[0].text


# --- What goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("ask", {"question": ""}, "describe your problem"),
        ("ask", {"question": "x" * 2001}, "please shorten it"),
        ("ask", {"question": "CANARY" * 4000}, "at most"),
        ("ask", {"question": 7}, "question"),
        ("ask", {}, "question"),
        ("ask", {"question": "x", "CANARY": "y"}, "It takes question, conversation and nothing"),
        ("search", {"question": "x", "path": "CANARY"}, "（path）"),
        ("get_source", {"path": GUIDE, "start": 9, "end": 3}, "end: "),
        ("search", {"question": "x", "top_k": 10_000}, "top_k"),
        ("get_source", {"path": "CANARY"}, "no document"),
        ("rebuild", {}, "no tool"),
        ("ask", {"question": "broken"}, "its id is"),
        ("ask", {"question": "missing"}, "its id is"),
    ],
)
def test_a_call_that_fails_is_told_in_a_sentence_without_what_is_inside(
    server, name, arguments, words
):
    answer = called(server, name, **arguments)
    assert answer.isError
    [content] = answer.content
    assert words in content.text
    assert not {"CANARY", "Traceback", "/secret"} & set(content.text.split())
    assert "CANARY" not in content.text


def test_the_log_explains_the_id_of_a_failure(server):
    said = called(server, "ask", question="broken").content[0].text
    number = said.partition("its id is ")[2].split(".")[0]
    log = server.log.read_text()
    assert number in log
    assert "CANARY /secret/path" in log


def call(plain, body, **headers):
    return plain.post("/mcp", content=body, headers=KINDS | headers)


def message(method="tools/call", **params):
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()


ASK = message(name="ask", arguments={"question": "你好"})


@pytest.mark.parametrize(
    ("headers", "statuses"),
    [
        ({}, {200}),
        ({"Host": "evil.example"}, {400, 421}),
        ({"Host": "127.0.0.1.evil.example:7860"}, {400, 421}),
        ({"Origin": "https://evil.example"}, {403}),
        ({"Origin": "null"}, {403}),
        ({"Origin": "http://localhost:1"}, {403}),
        ({"Content-Type": "text/plain"}, {400, 415}),
    ],
)
def test_foreign_hosts_and_origins_are_refused(plain, headers, statuses):
    answer = call(plain, ASK, **headers)
    assert answer.status_code in statuses
    assert "access-control-allow-origin" not in answer.headers


def test_our_own_page_may_call(plain, server):
    assert call(plain, ASK, Origin=server.url).status_code == 200


def test_it_checks_hosts_itself_where_no_guard_stands(desk, tmp_path):
    with TestClient(alone(desk, tmp_path), base_url="http://127.0.0.1:7860") as client:
        assert call(client, ASK).status_code == 200
        assert call(client, ASK, Host="evil.example").status_code == 421
        assert call(client, ASK, Origin="https://evil.example").status_code == 403


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"5",
        b'"x"',
        b"NaN",
        b"[" * 100_000,
        b'{"a":' * 40_000,
        b'{"jsonrpc": "2.0", "id": "\\ud800", "method": "ping"}',
        b'{"jsonrpc": "2.0", "id": NaN, "method": "ping"}',
        b'{"jsonrpc": "2.0", "id": {}, "method": "ping"}',
        b'{"id": 1, "method": "ping"}',
        b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "CANARY"',
        message(name="ask", arguments={"question": "CANARY"}).replace(b"CANARY", b"\xff"),
        "充值".encode("gbk"),
        ASK.decode().encode("utf-16"),
        b"[" + ASK + b"," + ASK + b"]",
    ],
    ids=lambda body: str(body[:40]),
)
def test_a_body_that_is_no_message_is_refused_and_neither_sent_back_nor_logged(plain, server, body):
    before = server.log.read_text()
    answer = call(plain, body)
    assert answer.status_code == 400
    told = answer.json()
    assert (told["jsonrpc"], told["id"]) == ("2.0", None)
    assert told["error"]["code"] == (-32600 if _is_json(body) else -32700)
    assert "CANARY" not in answer.text
    assert server.log.read_text() == before


def _is_json(body):
    try:
        orjson.loads(body)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("id", [7, "seven"])
@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("CANARY", {}, -32601),
        ("tools/CANARY", {"name": "ask"}, -32601),
        ("prompts/list", {}, -32601),
        ("tools/call", {"name": "ask", "arguments": "CANARY"}, -32602),
        ("tools/call", {"name": 5, "arguments": {"question": "CANARY"}}, -32602),
        ("tools/call", {}, -32602),
    ],
)
def test_a_call_that_is_none_is_refused_by_its_id(plain, server, id, method, params, code):
    before = server.log.read_text()
    sent = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
    answer = call(plain, json.dumps(sent).encode())
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    told = answer.json()
    assert (told["jsonrpc"], told["id"], told["error"]["code"]) == ("2.0", id, code)
    assert told["error"]["message"]
    assert "CANARY" not in answer.text
    assert server.log.read_text() == before


def test_ten_megabytes_are_refused_at_once(plain):
    big = message(name="ask", arguments={"question": "问" * 3_500_000})
    started = time.monotonic()
    assert call(plain, big).status_code == 413
    assert time.monotonic() - started < 5


@effort(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(text=ANY_TEXT)
def test_any_text_is_answered_or_politely_refused(plain, text):
    """Half characters are no JSON; all else is text."""
    answer = call(plain, message(name="ask", arguments={"question": text}))
    if any("\ud800" <= character <= "\udfff" for character in json.loads(json.dumps(text))):
        assert answer.status_code == 400
    else:
        result = answer.json()["result"]
        assert answer.status_code == 200
        assert result["isError"] is (result.get("structuredContent") is None)


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "HEAD", "OPTIONS"])
def test_nothing_is_left_open(plain, method):
    """No stream to listen to and no session to end: every call stands for itself."""
    answer = plain.request(method, "/mcp", headers=KINDS)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert "mcp-session-id" not in call(plain, ASK).headers


def test_many_calls_at_once_are_all_answered(server):
    async def work():
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            calls = (client.post("/mcp", content=ASK, headers=KINDS) for _ in range(30))
            return [answer.status_code for answer in await asyncio.gather(*calls)]

    assert asyncio.run(work()) == [200] * 30


# --- Within an application -----------------------------------------------------------------------


def alone(desk, folder, events=None):
    """Return an application with its own lifespan, and MCP."""
    events = [] if events is None else events

    @asynccontextmanager
    async def lifespan(app):
        events.append("begun")
        yield {"state": "its own"}
        events.append("ended")

    settings = desk.settings.model_copy(update={"history": f"sqlite:///{folder}/history.db"})
    app = FastAPI(lifespan=lifespan)
    mount_mcp(app, FrontDesk(desk, History.open(settings)))
    return app


def test_the_applications_own_lifespan_is_kept_and_it_can_be_started_again(desk, tmp_path):
    events = []
    app = alone(desk, tmp_path, events)
    for _ in range(2):
        with TestClient(app, base_url="http://127.0.0.1:7860") as client:
            assert events[-1] == "begun"
            assert client.app_state == {"state": "its own"}
            assert call(client, ASK).status_code == 200
    assert events == ["begun", "ended"] * 2


def test_without_the_extra_the_route_says_what_to_install(desk, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mcp", None)
    with TestClient(alone(desk, tmp_path)) as client:
        for answer in (call(client, ASK), client.get("/mcp")):
            assert answer.status_code == 501
            assert answer.headers["content-type"] == "application/problem+json"
            assert 'pip install -c constraints.txt -e ".[mcp]"' in answer.json()["detail"]
