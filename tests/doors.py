"""Every door of a running server, for tests that try one thing on all of them."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any
from urllib.parse import quote

import httpx
from hypothesis import strategies as st
from server import heard

AGENT, MAINTAINER = "KEYCANARY-of-an-agent", "KEYCANARY-of-a-maintainer"
AS_AGENT = {"Authorization": f"Bearer {AGENT}"}
AS_MAINTAINER = {"Authorization": f"Bearer {MAINTAINER}"}
TOKENS = {"ASSISTANT_AGENT_TOKEN": AGENT, "ASSISTANT_MAINTAINER_TOKEN": MAINTAINER}
MCP = {
    "Accept": "application/json, text/event-stream",
    "MCP-Protocol-Version": "2025-06-18",
}

# The server of the command line, with a front desk that is broken for some words.
FAULTY = """
import sys
from assistant import cli
from assistant.errors import IndexUnusable
from assistant.frontdesk import FrontDesk

answer = FrontDesk.ask

def ask(self, question, conversation=""):
    if "broken" in question:
        raise RuntimeError("CANARY /secret/path")
    if "missing" in question:
        raise IndexUnusable("CANARY vectors.faiss is missing. Rebuild with: assistant build")
    return answer(self, question, conversation)

FrontDesk.ask = ask
sys.exit(cli.main(["serve", "--port", "0", *sys.argv[1:]]))
"""
# Any text but those words: hypothesis also tries words that the program is made of.
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60).filter(
    lambda text: not re.search("broken|missing", text)
)


def post(client: httpx.Client, path: str, body: object, **headers: str) -> httpx.Response:
    """Send JSON; half characters too, escaped."""
    kind = {"Content-Type": "application/json"}
    return client.post(path, content=json.dumps(body), headers=kind | headers)


def ask(client: httpx.Client, question: str, conversation: str = "") -> dict[str, Any]:
    """Ask by REST and return the object."""
    body = {"question": question, "conversation": conversation}
    answer = post(client, "/api/v1/ask", body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def call(client: httpx.Client, tool: str, arguments: Mapping[str, Any]) -> httpx.Response:
    """Call a tool by MCP."""
    params = {"name": tool, "arguments": arguments}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    return post(client, "/mcp", message, **MCP)


def ask_by_mcp(client: httpx.Client, question: str) -> Any:
    """Ask by MCP and return the object; None when the question was refused."""
    return call(client, "ask", {"question": question}).json()["result"].get("structuredContent")


def ask_by_gradio(client: httpx.Client, question: str) -> dict[str, Any]:
    """Ask as gradio_client does and return the object."""
    return json.loads(heard(client, "ask", [question, ""])[0])


OBJECTS: dict[str, Callable[[httpx.Client, str], dict[str, Any]]] = {
    "REST": ask,
    "MCP": ask_by_mcp,
    "gradio_client": ask_by_gradio,
}
"""The doors that give an answer as an object; the page gives HTML, see `server.asked`."""


@dataclass(frozen=True)
class Turn:
    """Hold an answer that can be voted on and handed over; `number` is that of another's ticket."""

    conversation: str
    turn: str
    items: tuple[str, ...]
    number: int


def begin(client: httpx.Client) -> Turn:
    """Ask for a person twice and open the ticket of the first."""
    first, second = ask(client, "我要转人工"), ask(client, "转人工")
    opened = post(client, "/api/v1/tickets", {one: first[one] for one in ("conversation", "turn")})
    assert opened.status_code == 201, opened.text
    items = tuple(one["item"] for one in second["handoff"]["checklist"])
    return Turn(second["conversation"], second["turn"], items, opened.json()["number"])


Sent = Iterator[tuple[str, str]]


def planted(
    client: httpx.Client, words: str, spared: str | None = None, turn: Turn | None = None
) -> Sent:
    """Write words into every field of every door; yield each address and what came back.

    `spared` is what is written instead where a number or address is kept: in how a person asks to
    be reached, and in agents' notes. `turn` is one to write to, otherwise a new one.
    """
    turn = turn or begin(client)
    spared = words if spared is None else spared
    for answer in chain(
        _by_rest(client, turn, words, spared),
        _by_address(client, turn, quote(words.encode("utf-8", "replace"), safe="")),
        _by_form(client, turn, words, spared),
        _by_header(client, words),
        _by_mcp(client, words),
    ):
        yield answer.url.raw_path.decode(), f"{answer.status_code} {answer.headers} {answer.text}"
    file = {"path": words, "url": words, "meta": {"_type": "gradio.FileData"}}
    for name, data in (
        ("turn", [words, ""]),
        ("hand_off", [words, ""]),
        ("turn", [words, words]),
        ("resume", [words]),
        ("ask", [words, ""]),
        ("search", [words, 3]),
        ("ask", [file, ""]),
    ):
        yield name, str(heard(client, name, data))


Answers = Iterator[httpx.Response]


def _by_rest(client: httpx.Client, turn: Turn, words: str, spared: str) -> Answers:
    place = {"conversation": turn.conversation, "turn": turn.turn}
    filled = dict.fromkeys(turn.items, words)
    for path, body in (
        ("ask", {"question": words}),
        ("ask", {"question": f"那{words}呢", "conversation": turn.conversation}),
        ("ask", {"question": "你好", "conversation": words[:64]}),
        ("ask", {"question": "你好", words: words}),
        ("handoff", {"question": words}),
        ("search", {"question": words}),
        ("search", {"question": "你好", "path": words, "section": words}),
        ("feedback", {**place, "value": -1, "note": words}),
        ("feedback", {**place, "value": words, "reason": words}),
        ("tickets", {**place, "filled": {words: words}}),
        ("tickets", {**place, "filled": filled, "reply_to": spared[:200]}),
    ):
        yield post(client, f"/api/v1/{path}", body)
    for path in ("claim", "notes", "close"):
        yield post(client, f"/api/v1/tickets/{turn.number}/{path}", {"note": spared}, **AS_AGENT)


def _by_address(client: httpx.Client, turn: Turn, part: str) -> Answers:
    for path in (
        f"/source/{part}",
        f"/source/x?start={part}",
        f"/api/v1/documents/{part}",
        f"/api/v1/documents?after={part}",
        f"/api/v1/conversations/{part}",
        f"/api/v1/conversations/{turn.conversation}",
        f"/api/v1/{part}",
        f"/{part}",
        f"/?lang={part}",
        f"/login?next={part}",
        f"/login?token={part}",
        f"/gradio_api/file={part}",
        f"/gradio_api/proxy={part}",
        f"/gradio_api/queue/data?session_hash={part}",
    ):
        yield client.get(path)
    tickets = ("tickets", f"tickets/{turn.number}", f"tickets/{turn.number}/text")
    for path in (*tickets, f"tickets?state={part}", "proposals", f"?path={part}&section={part}"):
        yield client.get(f"/agent/{path}".replace("/?", "?"), headers=AS_AGENT)
    yield client.get(f"/maintain/passages?path={part}", headers=AS_MAINTAINER)


def _by_form(client: httpx.Client, turn: Turn, words: str, spared: str) -> Answers:
    own = {"questions": f"怎么办 {words}", "by": "own", "answer": words}
    yield client.post("/agent/propose", data=own, headers=AS_AGENT)
    note = f"/agent/tickets/{turn.number}/note"
    yield client.post(note, data={"note": spared}, headers=AS_AGENT)
    yield client.post("/login", data={"name": words, "password": words, "next": words})


def _by_header(client: httpx.Client, words: str) -> Answers:
    if words.isascii() and words.isprintable():
        names = ("User-Agent", "Referer", "Cookie", "X-Forwarded-For", "Accept-Language")
        yield client.get("/", headers=dict.fromkeys(names, words))
        yield client.get("/agent", headers={"Authorization": f"Bearer {words}"})


def _by_mcp(client: httpx.Client, words: str) -> Answers:
    for tool, arguments in (
        ("ask", {"question": words}),
        ("ask", {"question": "你好", words: words}),
        ("search", {"question": words, "path": words}),
        ("get_source", {"path": words}),
        (words, {}),
    ):
        yield call(client, tool, arguments)
