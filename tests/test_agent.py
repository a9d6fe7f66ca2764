"""The agents' pages through their public door: a real server, real requests, a real browser."""

import re
import shutil
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn
from chromium import chromium, until
from fastapi import FastAPI
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser
from server import REPOSITORY
from starlette.responses import HTMLResponse, Response

from assistant.access import Access, Person, add_user
from assistant.build import build
from assistant.desk import Desk
from assistant.errors import IndexUnusable
from assistant.frontdesk import FrontDesk, answer_of
from assistant.handoff import ticket_text
from assistant.history import History, NotFound
from assistant.records import Document, Quote
from assistant.screen import clean
from assistant.settings import Settings
from assistant.split import find_section
from assistant.web.agent import agent_routes
from assistant.web.agent_page import packet_of
from assistant.web.agent_words import WORDS, ago, say_to_agent
from assistant.web.evidence import as_markdown, place_now
from assistant.web.guard import Guard
from assistant.web.login import sign_in_routes
from assistant.web.office import SESSION, static_routes
from assistant.web.problems import Problems, problem_handlers
from assistant.web.render import source_html

GUIDE, HOSTILE_GUIDE = "topay-contact-guide.md", "hostile.md"
PAYLOAD = (
    "<img src=x onerror=alert(1)><script>alert(2)</script>${alert(3)} {{alert}} {% raw %} "
    "</textarea></pre></q><svg/onload=alert(4)> \"'` javascript:alert(5)"
)
HOSTILE = f"""# 独角兽 {PAYLOAD}

## 彩虹独角兽 <img src=x onerror=alert(6)>

彩虹独角兽住在 <b onmouseover="alert(7)">山上</b>。{PAYLOAD}

## 彩虹独角兽吃什么

彩虹独角兽吃苹果。每天吃三个。
"""
AGENTS = ("ann", "bea", *(f"agent{number}" for number in range(20)))


# --- A server of the agents' pages alone ---------------------------------------------------------


@dataclass
class Office:
    """Hold a running server of the agents' pages, and the front desk behind it."""

    url: str
    front: FrontDesk
    access: Access
    router: object

    def session(self, name: str = "ann") -> str:
        return self.access.new_session(Person(name, "agent"))

    def client(self, name: str | None = "ann", language: str = "en", **given) -> httpx.Client:
        """Return a browser's stand-in; what it posts holds the form token of its session."""
        headers = {"accept": "text/html", "accept-language": language, **given}
        client = httpx.Client(base_url=self.url, headers=headers, timeout=20)
        if name:
            session = self.session(name)
            client.cookies.set(SESSION, session, domain="127.0.0.1")
            client.headers["x-form-token"] = self.access.form_token(session)
        return client

    def ticket(
        self, question: str = "我要转人工", filled=None, reply_to: str = "", before=()
    ) -> int:
        """Let a user ask and hand over; return the ticket's number."""
        conversation = ""
        for one in (*before, question):
            reply = self.front.ask(one, conversation)
            conversation = reply.conversation
        assert reply.answer.handoff, question
        items = [one.item for one in reply.answer.handoff.checklist]
        named = dict(zip(items, filled or [], strict=False))
        return self.front.open_ticket(conversation, reply.turn, named, reply_to).number


def create(front: FrontDesk, access: Access) -> tuple[FastAPI, object]:
    """Put the pages together as the product's are, with a plain source viewer beside them."""
    app, router = FastAPI(openapi_url=None), agent_routes(front)
    problem_handlers(app)
    sign_in_routes(app, access)
    static_routes(app)
    app.include_router(router)

    @app.get("/source/{path:path}")
    def source(path: str, start: int = 0, end: int = 0) -> Response:
        return HTMLResponse(source_html(front.desk.document(path), start, end, "en"))

    @app.get("/favicon.ico")
    def icon() -> Response:
        return Response(status_code=204)

    app.add_middleware(Problems)
    app.add_middleware(Guard, settings=front.settings)
    return app, router


@contextmanager
def serving(settings: Settings, encoder):
    """Serve over a socket from a thread; the test reaches the same front desk from within."""
    front = FrontDesk(Desk(settings, encoder), History.open(settings))
    access = Access.open(settings)
    app, router = create(front, access)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off")
    listener = config.bind_socket()
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield Office(f"http://127.0.0.1:{listener.getsockname()[1]}", front, access, router)
    finally:
        server.should_exit = True
        thread.join(20)
        front.history.close()


def people(path: Path) -> None:
    """Write a users file in which everybody has the same password, hashed once."""
    add_user(path, "ann", "agent", "correct horse")
    line = re.search(r"password = .*", path.read_text())[0]
    tables = [f'[users."{name}"]\nrole = "agent"\n{line}\n' for name in AGENTS]
    tables.append(f'[users."max"]\nrole = "maintainer"\n{line}\n')
    path.write_text("\n".join(tables))


def settings_in(folder: Path, *left_out: str) -> Settings:
    """Return settings over the shipped guide and one full of markup, with people who sign in.

    Without the labelled questions a build takes less time, and its answers are cautious.
    """
    ignored = shutil.ignore_patterns("questions", *left_out)
    shutil.copytree(REPOSITORY / "corpus", folder / "corpus", ignore=ignored)
    (folder / "corpus" / HOSTILE_GUIDE).write_text(HOSTILE, "utf-8")
    people(folder / "users.toml")
    return Settings(
        corpus=folder / "corpus",
        index=folder / "index",
        history=f"sqlite:///{folder}/history.db",
        users=folder / "users.toml",
    )


@pytest.fixture(scope="module")
def office(tmp_path_factory, encoder):
    settings = settings_in(tmp_path_factory.mktemp("agents"))
    build(settings, encoder)
    with serving(settings, encoder) as office:
        yield office


@pytest.fixture
def client(office):
    with office.client() as client:
        yield client


@pytest.fixture
def queue_of_its_own(office):
    """No ticket of another test waits or is worked on."""
    for ticket in office.front.history.tickets(limit=1000):
        office.front.history.forget(ticket.conversation)


def parsed(answer: httpx.Response, status: int = 200) -> LexborHTMLParser:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("text/html")
    return LexborHTMLParser(answer.text)


def words(page: LexborHTMLParser, selector: str = "main") -> str:
    return page.css_first(selector).text()


def span_of(node) -> tuple[str, int, int]:
    """Return the document and the offsets that a passage's place names."""
    path, _, offsets = node.css_first(".place").text().rpartition(":")
    start, end = map(int, offsets.split("–"))
    return path, start, end


# --- Who may see them ----------------------------------------------------------------------------


def addresses(office: Office, method: str) -> list[str]:
    paths = [one.path for one in office.router.routes if method in one.methods]
    assert len(paths) >= 5
    return [path.replace("{number}", "1").replace("{rest:path}", "x") for path in paths]


def test_no_page_is_shown_to_who_is_not_signed_in(office):
    with office.client(None) as client, office.client(None, accept="*/*") as program:
        for path in addresses(office, "GET"):
            answer = client.get(path)
            assert (answer.status_code, answer.text) == (303, "")
            assert answer.headers["location"] == f"/login?next={path}"
            assert program.get(path).status_code == 401


def test_nothing_is_changed_for_who_is_not_signed_in_or_brings_no_form_token(office):
    number = office.ticket()
    before = office.front.history.ticket(number), office.front.history.proposals()
    with office.client(None) as stranger, office.client() as forged:
        forged.headers["x-form-token"] = office.access.form_token(office.session("bea"))
        for path in addresses(office, "POST"):
            path = path.replace("/1/", f"/{number}/")
            form = {"note": "x", "questions": "x", "by": "own", "answer": "x"}
            assert stranger.post(path, data=form).status_code in (401, 403)
            assert forged.post(path, data=form).status_code == 403
            del forged.headers["x-form-token"]
            assert forged.post(path, data=form).status_code == 403
            forged.headers["x-form-token"] = "x"
    assert (office.front.history.ticket(number), office.front.history.proposals()) == before


def test_every_form_that_changes_something_holds_the_token(office):
    number = office.ticket()
    office.front.history.claim(number, "ann")
    with office.client() as client:
        for path in ("/agent/tickets", f"/agent/tickets/{number}", "/agent/propose"):
            forms = parsed(client.get(path)).css("form[method=post]")
            assert forms
            for form in forms:
                token = form.css_first("input[name=form_token]").attributes["value"]
                assert office.access.is_form_token(token, client.cookies[SESSION])


def test_pages_forbid_foreign_scripts_frames_and_keeping(client):
    for path in ("/agent", "/agent/tickets", "/agent/nothing", "/agent/propose"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe-inline" not in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"


# --- Looking up ----------------------------------------------------------------------------------

QUESTIONS = ("充值没到账怎么办", "How do I reset my password?", "彩虹独角兽住在哪里", "客服")


@pytest.mark.parametrize("question", QUESTIONS)
def test_what_is_shown_and_copied_is_the_exact_span_of_the_document(office, client, question):
    page = parsed(client.get("/agent", params={"q": question}))
    results = page.css(".result")
    assert len(results) == 10
    for number, result in enumerate(results, 1):
        path, start, end = span_of(result)
        said = office.front.desk.document(path).text[start:end]
        assert result.css_first("blockquote").text() == said
        assert page.css_first(f"#text-{number}").text().lstrip("\n") == said
        markdown = page.css_first(f"#markdown-{number}").text()
        assert [line.removeprefix("> ") for line in said.split("\n")] == [
            re.sub("^> ?", "", line) for line in markdown.strip("\n").split("\n")[:-2]
        ]
        assert f"`{path}`, {start}–{end}" in markdown
        assert f"<{office.url}/source/{path}?start={start}&end={end}#{start}-{end}>" in markdown
        link = result.css_first(".doing a").attributes["href"]
        assert link == f"/source/{path}?start={start}&end={end}#{start}-{end}"


def test_matched_words_and_answering_sentences_are_marked(client):
    page = parsed(client.get("/agent", params={"q": "充值没到账怎么办"}))
    first = page.css_first(".result")
    assert "充值" in [one.text() for one in first.css("mark b")]
    assert first.css("mark")


@pytest.mark.parametrize("question", ["充值没到账怎么办", "wifi password", "ps5 price"])
def test_why_it_matched_is_told_in_the_figures_of_the_search_itself(office, client, question):
    page = parsed(client.get("/agent", params={"q": question}))
    hits, index = office.front.search(question, 10), office.front.desk.index
    for hit, result in zip(hits, page.css(".result"), strict=True):
        facts = [one.text() for one in result.css("dl.facts dd")]
        assert facts[0] == f"{hit.similarity:.3f}"
        assert facts[1] == f"{hit.passage:.3f}"
        assert facts[2].startswith(f"{hit.view:.3f}, ")
        assert facts[3] == f"{hit.lexical:.2f}"
        assert facts[5:] == [f"{hit.coverage:.0%}", f"{hit.score:.3f}"]
        best = index.views(hit.row)[hit.best - index.first_view(hit.row)]
        if best.kind != "passage":
            said = result.css_first("q").text()
            assert said == best.text or best.text.endswith(said)
        assert (facts[4] == WORDS["no_shared"]["en"]) == (hit.lexical == 0)
        for word in facts[4].split(", ") if hit.lexical else ():
            assert word in question


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_passage_stands_in_its_surroundings(office, client, question):
    """What comes before and after is of the same document, whatever documents lie next to it."""
    chunks = list(office.front.desk.index.chunks())
    places = [(chunk.path, chunk.start, chunk.end) for chunk in chunks]
    page = parsed(client.get("/agent", params={"q": question}))
    for result in page.css(".result"):
        row = places.index(span_of(result))
        around = [
            one
            for one in (row - 1, row + 1)
            if 0 <= one < len(chunks) and chunks[one].path == chunks[row].path
        ]
        quoted = result.css("blockquote")[1:]
        assert [one.text() for one in quoted] == [chunks[one].text for one in around]


def test_the_filters_offer_what_the_guide_has_and_keep_to_what_is_chosen(office, client):
    page = parsed(client.get("/agent"))
    paths = [one.attributes["value"] for one in page.css("#path option")]
    assert paths == ["", HOSTILE_GUIDE, GUIDE]
    headings = {one.text() for one in page.css(f"optgroup[data-of='{GUIDE}'] option")}
    assert headings == {
        heading
        for chunk in office.front.desk.index.chunks()
        if chunk.path == GUIDE
        for heading in chunk.headings
    }
    section = "三、常见问题及解决方案"
    asked = {"q": "密码", "path": GUIDE, "section": section}
    found = parsed(client.get("/agent", params=asked))
    chunks = [one for one in office.front.desk.index.chunks() if section in one.headings]
    assert len(found.css(".result")) == len(chunks) > 1
    assert all(section in words(one, ".crumbs") for one in found.css(".result"))
    assert found.css_first("#path option[selected]").attributes["value"] == GUIDE
    assert found.css_first("#section option[selected]").text() == section
    only = parsed(client.get("/agent", params={"q": "密码", "path": HOSTILE_GUIDE}))
    assert {span_of(one)[0] for one in only.css(".result")} == {HOSTILE_GUIDE}
    none = parsed(client.get("/agent", params={"q": "密码", "path": "none.md", "section": "x"}))
    assert not none.css(".result")
    assert WORDS["nothing_here"]["en"] in words(none)
    assert none.css_first("[role=status] a").attributes["href"].startswith("/agent?q=")


@pytest.mark.parametrize("form", ["{}", "#{}", " ＃{} "])
def test_the_number_of_a_ticket_offers_that_ticket(office, client, form):
    number = office.ticket()
    page = parsed(client.get("/agent", params={"q": form.format(number)}), 200)
    link = page.css_first("main .notice a")
    assert link.attributes["href"] == f"/agent/tickets/{number}"
    assert not page.css("[role=alert]")
    for none in ("99999", "#", "1e3", "９", "充值"):
        assert not LexborHTMLParser(client.get("/agent", params={"q": none}).text).css(".notice")


def test_a_question_with_errors_of_sound_says_what_was_looked_for(client):
    page = parsed(client.get("/agent", params={"q": "chongzhi mei daozhang"}))
    assert "“充值没到账”" in words(page, "[role=status]")
    assert "充值" in [one.text() for one in page.css_first(".result").css("b")]


@pytest.mark.parametrize(
    ("question", "language", "said"),
    [
        ("？！🙂", "zh-CN", "请用一句话描述"),
        (" ", "en", "describe your problem"),
        ("字" * 2001, "en", "please shorten it"),
    ],
)
def test_a_question_that_is_none_gets_a_polite_line_and_stays_in_the_field(
    office, question, language, said
):
    with office.client(language=language) as client:
        page = parsed(client.get("/agent", params={"q": question}), 400)
    assert said in words(page, "[role=alert]")
    assert " / " not in words(page, "[role=alert]")
    assert page.css_first("#q").attributes["value"] == question


def test_without_a_usable_index_the_page_says_so_and_no_more(office, client, monkeypatch):
    def search(*_):
        raise IndexUnusable("CANARY /secret/path vectors.faiss is damaged")

    monkeypatch.setattr(office.front.desk, "search", search)
    page = parsed(client.get("/agent", params={"q": "充值"}), 503)
    assert WORDS["no_index"]["en"] in words(page)
    assert "CANARY" not in page.html


# --- The queue -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("queue_of_its_own")
def test_the_queue_has_the_urgent_first_then_the_oldest_and_counts_every_tab(office, client):
    first, second = office.ticket(), office.ticket("账户异常怎么申诉到人工")
    urgent = office.ticket("我的账户被盗了，钱被转走了")
    mine, others, closed = office.ticket(), office.ticket(), office.ticket()
    office.front.history.claim(mine, "ann")
    office.front.history.claim(others, "bea")
    office.front.history.close_ticket(closed, "bea", "解决了")
    tabs = {}
    for tab in ("new", "mine", "others", "closed"):
        page = parsed(client.get(f"/agent/tickets?state={tab}"))
        assert [one.text() for one in page.css(".count")] == ["3", "1", "1", "1"]
        assert page.css_first(".tabs [aria-current]").attributes["id"] == f"tab-{tab}"
        tabs[tab] = [int(one.attributes["data-number"]) for one in page.css(".queue li")]
    assert tabs == {
        "new": [urgent, first, second],
        "mine": [mine],
        "others": [others],
        "closed": [closed],
    }
    page = parsed(client.get("/agent/tickets?state=nonsense"))
    assert page.css_first("title").text().startswith("(3) ")
    top = page.css_first(".queue li").text()
    for said in ("Urgent", "urgent: account or money at risk", "我的账户被盗了，钱被转走了"):
        assert said in top
    assert "urgent_account_security" not in page.html
    assert "just now" in top


@pytest.mark.usefixtures("queue_of_its_own")
def test_an_empty_queue_says_so(client):
    for tab in ("new", "mine", "others", "closed"):
        page = parsed(client.get(f"/agent/tickets?state={tab}"))
        assert WORDS[f"none_{tab}"]["en"] in words(page)


@pytest.mark.usefixtures("queue_of_its_own")
def test_a_full_queue_leads_on_to_its_end_in_every_tab(office, client, monkeypatch):
    monkeypatch.setattr("assistant.web.agent_tickets._AT_ONCE", 2)
    history = office.front.history
    asked = ("转人工", "我的账户被盗了", "转人工", "我要转人工")
    a, urgent, b, c = map(office.ticket, asked)

    def shown(tab, q=""):
        found, page = [], parsed(client.get("/agent/tickets", params={"state": tab, "q": q}))
        while True:
            found.append([int(one.attributes["data-number"]) for one in page.css(".queue li")])
            if not (more := page.css_first("#more")):
                return found
            page = parsed(client.get(more.attributes["href"]))

    assert shown("new") == [[urgent, a], [b, c]]
    assert shown("new", "转人工") == [[a, b], [c]]
    for tab, agent in (("mine", "ann"), ("others", "bea")):
        for number in (a, urgent, b):
            history.claim(number, agent)
        assert shown(tab) == [[urgent, a], [b]]
        assert shown(tab, "转人") == [[a, b]]
        for number in (a, urgent, b):
            history.release(number, agent)
    for number in (a, urgent, b):
        history.close_ticket(number, "ann")
    assert shown("closed") == [[b, urgent], [a]]
    assert parsed(client.get("/agent/tickets?after=x")).css(".queue li")


@pytest.mark.usefixtures("queue_of_its_own")
def test_the_queue_is_filtered_in_every_tab_and_counts_what_matches(office, client):
    number = office.ticket("我要转人工", reply_to="+86 138 0013 8000")
    office.ticket("客服电话多少")
    office.front.history.claim(number, "bea")
    for q in (f"#{number}", "1380013", "我要转人工"):
        page = parsed(client.get("/agent/tickets", params={"state": "others", "q": q}))
        assert [one.attributes["data-number"] for one in page.css(".queue li")] == [str(number)]
        assert page.css_first("#q").attributes["value"] == q
        assert [one.text() for one in page.css(".count")] == ["0", "0", "1", "0"]
        other = parsed(client.get(page.css_first("#tab-mine").attributes["href"]))
        assert other.css_first("#q").attributes["value"] == q
        assert WORDS["none_found"]["en"] in words(other)


@pytest.mark.usefixtures("queue_of_its_own")
def test_the_queue_shows_as_much_of_a_chinese_question_as_of_any(office, client):
    number = office.ticket("转人工 " + "钱" * 400)
    shown = words(parsed(client.get("/agent/tickets")), f"#ticket-{number}")
    assert 190 < len(shown) <= 200


@pytest.mark.parametrize(
    ("seconds", "chinese", "english"),
    [
        (-5, "刚刚", "just now"),
        (59, "刚刚", "just now"),
        (60, "1 分钟前", "1 min ago"),
        (3 * 3600 + 59 * 60, "3 小时前", "3 h ago"),
        (49 * 3600, "2 天前", "2 d ago"),
    ],
)
def test_an_age_is_said_in_its_largest_whole_unit(seconds, chinese, english):
    from datetime import timedelta

    age = timedelta(seconds=seconds)
    assert (ago(age, "zh"), ago(age, "en")) == (chinese, english)


# --- One ticket ----------------------------------------------------------------------------------


def test_a_ticket_shows_all_that_an_agent_needs(office, client):
    number = office.ticket(
        "我要转人工", ["张三，尾号 88"], "+86 138 0013 8000", before=["充值没到账怎么办"]
    )
    kept = office.front.history.ticket(number)
    first = office.front.turns(kept.conversation)[0]
    office.front.rate(kept.conversation, first.id, -1, "not_enough", "还是不懂")
    page = parsed(client.get(f"/agent/tickets/{number}"))
    shown = words(page)
    for said in ("张三，尾号 88", "+86 138 0013 8000", "asked for a person", "nobody yet"):
        assert said in shown
    assert "Not enough" in shown
    assert "还是不懂" in shown
    turns = office.front.turns(kept.conversation)
    assert [one.css_first(".asked").text() for one in page.css(".turn")] == [
        "充值没到账怎么办",
        "我要转人工",
    ]
    for turn, article in zip(turns, page.css(".turn"), strict=True):
        quotes = answer_of(turn).quotes
        assert [one.text() for one in article.css("blockquote")] == [one.text for one in quotes]
        for quote in quotes:
            assert (
                office.front.desk.document(quote.path).text[quote.start : quote.end] == quote.text
            )
    packet = packet_of(kept)
    assert len(page.css(".shown")) == len(packet.quotes) > 0
    for quote, article in zip(packet.quotes, page.css(".shown"), strict=True):
        assert article.css_first("blockquote").text() == quote.text
        assert span_of(article) == (quote.path, quote.start, quote.end)
        for figure in (f"{quote.similarity:.3f}", f"{quote.lexical:.2f}", f"{quote.score:.3f}"):
            assert figure in article.text()
    assert office.front.desk.generation in shown
    assert not page.css(".warning")


def test_claim_release_note_and_close_change_the_ticket_and_lead_back_to_it(office, client):
    number = office.ticket()
    address, ticket = f"/agent/tickets/{number}", office.front.history.ticket
    for change, state, owner in (("claim", "claimed", "ann"), ("release", "new", "")):
        answer = client.post(f"{address}/{change}")
        assert (answer.status_code, answer.headers["location"]) == (303, address)
        assert (ticket(number).state, ticket(number).owner) == (state, owner)
    client.post(f"{address}/claim")
    client.post(f"{address}/note", data={"note": "打过电话"})
    client.post(f"{address}/close", data={"note": "解决了"})
    assert (ticket(number).state, ticket(number).owner) == ("closed", "ann")
    assert [(one.author, one.text) for one in ticket(number).notes] == [
        ("ann", "打过电话"),
        ("ann", "解决了"),
    ]
    page = parsed(client.get(address))
    assert [one.css_first(".text").text() for one in page.css(".note")] == ["打过电话", "解决了"]
    assert not page.css("form[action$=claim], [formaction$=close]")
    assert client.get(f"{address}/close?lang=zh").headers["location"] == f"{address}?lang=zh"
    client.post(f"{address}/close", data={"note": "另一个窗口里写的"})
    assert ticket(number).notes[-1].text == "另一个窗口里写的"
    assert page.css_first("form[action$=reopen]")
    answer = client.post(f"{address}/reopen")
    assert (answer.status_code, answer.headers["location"]) == (303, address)
    assert (ticket(number).state, ticket(number).owner) == ("claimed", "ann")
    hint = page.css_first("#note").attributes["aria-describedby"]
    assert page.css_first(f"#{hint}").text() == WORDS["note_hint"]["en"]  # no user reads a note


def test_of_twenty_who_claim_at_once_one_wins_and_the_others_are_told_who(office):
    number = office.ticket()
    start = threading.Barrier(20)

    def claim(name: str) -> httpx.Response:
        with office.client(name) as client:
            start.wait(20)
            return client.post(f"/agent/tickets/{number}/claim")

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(claim, AGENTS[2:]))
    owner = office.front.history.ticket(number).owner
    won = [name for name, one in zip(AGENTS[2:], answers, strict=True) if one.status_code == 303]
    assert won == [owner]
    for answer in answers:
        if answer.status_code != 303:
            assert f"{owner} has ticket {number}." in words(parsed(answer, 409), "[role=alert]")


def test_what_is_anothers_stays_anothers_and_the_note_is_not_lost(office):
    number = office.ticket()
    office.front.history.claim(number, "bea")
    before = office.front.history.ticket(number)
    with office.client("ann", language="zh-CN") as client:
        for change in ("claim", "release", "close"):
            answer = client.post(f"/agent/tickets/{number}/{change}", data={"note": "写了很久"})
            page = parsed(answer, 409)
            assert f"工单 {number} 在 bea 手上。" in words(page, "[role=alert]")
        assert "写了很久" in words(page, "pre")
        assert office.front.history.ticket(number) == before
        office.front.history.close_ticket(number, "bea")
        page = parsed(client.post(f"/agent/tickets/{number}/claim"), 409)
        assert f"工单 {number} 已经结束。" in words(page)


def test_what_another_holds_is_taken_over_by_a_button_that_names_them(office):
    number = office.ticket()
    address, history = f"/agent/tickets/{number}", office.front.history
    history.claim(number, "ming")
    with office.client("ann") as client, office.client("bea") as late:
        form = parsed(client.get(address)).css_first("form[action$=takeover]")
        assert form.css_first("button").text() == "Take it over from ming"
        sent = {"owner": form.css_first("[name=owner]").attributes["value"]}
        assert not parsed(client.get(address)).css("form[action$=release]")
        assert client.post(f"{address}/takeover", data=sent).headers["location"] == address
        page = parsed(late.post(f"{address}/takeover", data=sent), 409)
        assert f"ann has ticket {number}." in words(page, "[role=alert]")
        assert late.post(f"{address}/takeover").status_code == 409
        assert "ming" in words(parsed(client.get(address)), ".note")
    assert (history.ticket(number).owner, len(history.ticket(number).notes)) == ("ann", 1)


def test_a_maintainer_gives_back_what_another_holds(office):
    number = office.ticket()
    office.front.history.claim(number, "ming")
    with office.client(None) as client:
        session = office.access.new_session(Person("max", "maintainer"))
        client.cookies.set(SESSION, session, domain="127.0.0.1")
        client.headers["x-form-token"] = office.access.form_token(session)
        form = parsed(client.get(f"/agent/tickets/{number}")).css_first("form[action$=release]")
        assert form.css_first("button").text() == "Release it for ming"
        assert client.post(form.attributes["action"]).status_code == 303
    assert office.front.history.ticket(number).owner == ""


@pytest.mark.parametrize("note", ["", " \n", "\u200b", "\x00"])
def test_an_empty_note_is_no_note(office, client, note):
    number = office.ticket()
    page = parsed(client.post(f"/agent/tickets/{number}/note", data={"note": note}), 400)
    assert WORDS["no_note"]["en"] in words(page, "[role=alert]")
    assert office.front.history.ticket(number).notes == ()


def test_an_overlong_note_is_refused_and_stands_in_the_form_again(office, client):
    number = office.ticket()
    for change in ("note", "close"):
        sent = client.post(f"/agent/tickets/{number}/{change}", data={"note": "字" * 2001})
        page = parsed(sent, 400)
        assert "2001" in words(page, "[role=alert]")
        assert page.css_first("#note").text().strip() == "字" * 2001
    kept = office.front.history.ticket(number)
    assert (kept.notes, kept.state) == ((), "new")


@contextmanager
def locked(office: Office):
    """Hold the history's database, as another program may."""
    with closing(sqlite3.connect(office.front.settings.history.removeprefix("sqlite:///"))) as held:
        held.execute("BEGIN IMMEDIATE")
        yield
        held.rollback()


def test_what_cannot_be_saved_is_said_and_stands_in_the_form_again(office, client):
    number = office.ticket()
    own = {"questions": "怎么退款", "by": "own", "answer": "在应用里申请"}
    with locked(office):
        noted = client.post(f"/agent/tickets/{number}/note", data={"note": "写了很久"})
        claimed = client.post(f"/agent/tickets/{number}/claim")
        proposed = client.post("/agent/propose", data=own)
    page = parsed(noted, 503)
    assert WORDS["not_saved"]["en"] in words(page, "[role=alert]")
    assert page.css_first("#note").text().strip() == "写了很久"
    assert WORDS["not_saved"]["en"] in words(parsed(claimed, 503), "[role=alert]")
    page = parsed(proposed, 503)
    assert page.css_first("#questions").text().strip() == own["questions"]
    assert page.css_first("#answer").text().strip() == own["answer"]
    kept = office.front.history.ticket(number)
    assert (kept.notes, kept.owner) == ((), "")
    assert client.post(f"/agent/tickets/{number}/claim").status_code == 303


NOWHERE = ["99999", "0", "-1", "x", "9" * 5000, "١", "1e3", "%00", "1%0a", "..%2f1", "<script>"]


@pytest.mark.parametrize("number", NOWHERE)
def test_a_ticket_that_is_none_gives_our_own_page(client, number):
    for path in (f"/agent/tickets/{number}", f"/agent/tickets/{number}/text"):
        page = parsed(client.get(path), 404)
        assert "Not found" in words(page)
        assert page.css_first("header nav")
        assert "<script>" not in page.html
    assert client.post(f"/agent/tickets/{number}/claim").status_code in (404, 405)


def test_a_path_to_nowhere_gives_our_own_page_and_a_slash_too_many_does_not_matter(client):
    for path in ("/agent/nothing", "/agent/tickets/1/nothing", "/agent/proposals/"):
        assert WORDS["not_found"]["en"] in words(parsed(client.get(path), 404))
    assert client.get("/agent/").headers["location"] == "/agent"


def test_a_ticket_that_its_user_withdrew_is_gone_and_the_typed_note_is_shown(office, client):
    number = office.ticket()
    office.front.forget(office.front.history.ticket(number).conversation)
    page = parsed(client.post(f"/agent/tickets/{number}/note", data={"note": "写了很久"}), 404)
    assert WORDS["no_ticket"]["en"] in words(page)
    assert words(page, "pre") == "写了很久"
    with pytest.raises(NotFound):
        office.front.history.ticket(number)


@pytest.mark.parametrize("language", ["zh-CN", "en"])
def test_a_ticket_can_be_had_as_text(office, language):
    number = office.ticket("我要转人工", ["张三"], "a@b.example")
    office.front.history.add_note(number, "bea", "打过电话")
    with office.client(language=language) as client:
        answer = client.get(f"/agent/tickets/{number}/text")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-disposition"] == f'attachment; filename="ticket-{number}.txt"'
    kept = office.front.history.ticket(number)
    assert ticket_text(packet_of(kept)) in answer.text
    assert answer.text.startswith(f"工单 {number}\n")
    assert "怎么联系用户: a@b.example" in answer.text
    assert re.search(r"\n\d{4}-\d\d-\d\d \d\d:\d\d UTC bea: 打过电话\n$", answer.text)


def test_when_the_index_has_moved_on_the_ticket_says_so_of_each_passage(tmp_path, encoder):
    """The same words at another place are linked there; words that are gone are not linked."""
    settings = settings_in(tmp_path, "*.qa.yaml")
    guide = settings.corpus / GUIDE
    build(settings, encoder)
    with serving(settings, encoder) as office, office.client() as client:
        number = office.ticket("我要转人工")
        quotes = packet_of(office.front.history.ticket(number)).quotes
        assert len(quotes) >= 2
        gone, rest = quotes[0], quotes[1:]
        text = guide.read_text("utf-8").replace(gone.text, "这里的说明改过了，与以前完全不同。")
        head, title, body = text.partition("\n# ")
        guide.write_text(f"{head}\n\n\n{title}{body}", "utf-8")
        build(settings, encoder)
        assert office.front.desk.reload()
        page = parsed(client.get(f"/agent/tickets/{number}"))
        assert office.front.desk.generation in words(page, ".warning")
        first, *others = page.css(".shown")
        assert WORDS["place_gone"]["en"] in first.text()
        assert first.css_first("blockquote").text() == gone.text
        assert not first.css("a")
        document = office.front.desk.document(GUIDE)
        for article, quote in zip(others, rest, strict=True):
            _, start, end = span_of(article)
            assert document.text[start:end] == quote.text == article.css_first("blockquote").text()
            assert (start, end) != (quote.start, quote.end)
            assert WORDS["place_moved"]["en"] in article.text()
            assert f"start={start}&end={end}" in article.css_first("a").attributes["href"]
        form = parsed(client.get(f"/agent/propose?ticket={number}"))
        assert form.css_first("#passage").attributes["value"] == ""
        assert WORDS["passage_gone"]["en"] in words(form, ".warning")


# --- Proposing -----------------------------------------------------------------------------------


def test_a_proposal_begins_with_what_was_asked_and_the_section_that_was_found(office, client):
    page = parsed(client.get("/agent", params={"q": "充值没到账怎么办"}))
    link = page.css_first(".result a[href^='/agent/propose']").attributes["href"]
    form = parsed(client.get(link))
    assert form.css_first("#questions").text().strip() == "充值没到账怎么办"
    passage = form.css_first("#passage").attributes["value"]
    assert passage == f"{GUIDE}#1. 充值不成功"
    sent = {"questions": " 钱没到 \n\n充了没反应\n钱没到", "by": "reference", "passage": passage}
    answer = client.post("/agent/propose", data=sent)
    assert (answer.status_code, answer.headers["location"]) == (303, "/agent/proposals?done=1")
    kept = office.front.history.proposals()[0]
    assert (kept.questions, kept.passage, kept.answer) == (("钱没到", "充了没反应"), passage, "")
    assert (kept.author, kept.origin, kept.state) == ("ann", "search", "new")


@pytest.mark.parametrize("path", [GUIDE, HOSTILE_GUIDE])
def test_every_passage_that_can_be_found_can_be_proposed(office, client, path):
    chunks = list(office.front.desk.index.chunks())
    for row, chunk in enumerate(chunks):
        if chunk.path == path:
            form = parsed(client.get("/agent/propose", params={"chunk": chunk.id}))
            assert row in find_section(form.css_first("#passage").attributes["value"], chunks)


def test_a_ticket_is_proposed_with_its_question_and_number(office, client):
    number = office.ticket("充值没到账，我要转人工")
    form = parsed(client.get(f"/agent/propose?ticket={number}"))
    assert form.css_first("#questions").text().strip() == "充值没到账，我要转人工"
    own = {"questions": "怎么退款", "by": "own", "answer": "在应用里申请", "passage": "x#y"}
    hidden = form.css_first("input[name=ticket]").attributes["value"]
    client.post("/agent/propose", data={**own, "ticket": hidden})
    kept = office.front.history.proposals()[0]
    assert (kept.answer, kept.passage, kept.origin) == ("在应用里申请", "", f"ticket {number}")


def test_what_the_guide_does_not_cover_is_proposed_in_own_words(office, client):
    number = office.ticket("火星上怎么种土豆")
    assert office.front.history.ticket(number).reason == "out_of_guide"
    form = parsed(client.get(f"/agent/propose?ticket={number}"))
    assert form.css_first("#passage").attributes["value"] == ""
    assert form.css_first("#by-own[checked]")
    assert not form.css(".warning")


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"questions": " \n "}, "no_question"),
        ({"questions": "怎么退款\n" * 21}, "too_many"),
        ({"questions": "怎么退款", "passage": f"{GUIDE}#没有这一节"}, "no_section"),
        ({"questions": "怎么退款", "passage": ""}, "no_section"),
        ({"questions": "怎么退款", "by": "own", "answer": " \u200b"}, "no_answer"),
        ({"questions": "怎么退款", "passage": GUIDE, "answer": "在应用里申请"}, "own_left_out"),
        ({"questions": "怎么退款", "by": "own", "answer": "字" * 10_001}, "too_long"),
        ({}, "no_question"),
    ],
)
def test_a_proposal_that_is_none_is_refused_and_stands_in_the_form_again(
    office, client, given, key
):
    before = len(office.front.history.proposals())
    page = parsed(client.post("/agent/propose", data=given), 400)
    assert words(page, "[role=alert]").split("“")[0].startswith(WORDS[key]["en"].split("{")[0][:20])
    assert page.css_first("#questions").text().strip() == given.get("questions", "").strip()
    assert bool(page.css("input[value=own][checked]")) == (given.get("by") == "own")
    assert page.css_first("#answer").text().strip("\n") == clean(given.get("answer", "")).strip()
    assert len(office.front.history.proposals()) == before


def test_an_agent_sees_what_became_of_the_own_proposals_alone(office):
    propose = office.front.history.propose
    accepted = propose(["怎么退款"], "", "在应用里申请", "agent7", "search")
    propose(["怎么开户"], "", "不归我们管", "bea", "search")
    office.front.history.decide(accepted.id, False, "max", "说得不准")
    with office.client("agent7") as client:
        shown = words(parsed(client.get("/agent/proposals")))
    for said in ("怎么退款", "在应用里申请", "not accepted", "max: 说得不准"):
        assert said in shown
    assert "怎么开户" not in shown


# --- Nothing that others write is markup ---------------------------------------------------------

OURS = set(
    "html head meta title link script body a header nav div span form input button main h1 h2 h3 p "
    "label kbd select option optgroup ol ul li article blockquote mark b q details summary dl dt "
    "dd pre textarea fieldset legend strong time".split()
)
ADDRESSES = re.compile(r"(/|\?|#)")


def assert_ours(page: LexborHTMLParser) -> None:
    """Check that a page has no tag, handler, style or address but our own."""
    for node in page.css("*"):
        assert node.tag in OURS, node.html[:200]
        for name, value in node.attributes.items():
            assert not name.startswith("on"), node.html[:200]
            assert name != "style"
            if name in ("href", "src", "action", "formaction"):
                assert ADDRESSES.match(value), value
    assert all(one.attributes.get("src", "").startswith("/static/") for one in page.css("script"))


def test_what_users_agents_and_the_guide_write_is_shown_as_text_and_never_as_markup(office):
    history = office.front.history
    number = office.ticket(f"我要转人工 {PAYLOAD}", [PAYLOAD] * 3, PAYLOAD, before=[PAYLOAD])
    kept = history.ticket(number)
    office.front.rate(kept.conversation, kept.turn, -1, "other", PAYLOAD)
    history.add_note(number, "bea", PAYLOAD)
    history.propose([PAYLOAD], "", PAYLOAD, "ann", "search")
    refused = history.propose([PAYLOAD], PAYLOAD, "", "ann", "search")
    history.decide(refused.id, False, "max", PAYLOAD)
    with office.client() as client:
        pages = {
            "search": client.get("/agent", params={"q": f"彩虹独角兽 {PAYLOAD}"}),
            "filtered": client.get("/agent", params={"q": PAYLOAD, "section": PAYLOAD}),
            "nowhere": client.get("/agent", params={"q": "x", "path": PAYLOAD}),
            "queue": client.get("/agent/tickets"),
            "ticket": client.get(f"/agent/tickets/{number}"),
            "form": client.get(f"/agent/propose?ticket={number}"),
            "mine": client.get("/agent/proposals"),
            "no section": client.post(
                "/agent/propose", data={"questions": PAYLOAD, "passage": PAYLOAD}
            ),
            "empty": client.post(f"/agent/tickets/{number}/close", data={"note": PAYLOAD * 30}),
            "nothing": client.get(f"/agent/{PAYLOAD}"),
        }
        history.claim(number, "bea")
        pages["taken"] = client.post(f"/agent/tickets/{number}/close", data={"note": PAYLOAD})
        exported = client.get(f"/agent/tickets/{number}/text")
    for name, answer in pages.items():
        assert answer.status_code < 500, name
        assert_ours(LexborHTMLParser(answer.text))
    shown = {name: LexborHTMLParser(answer.text) for name, answer in pages.items()}
    assert PAYLOAD in words(shown["taken"], "pre")
    assert PAYLOAD in words(shown["ticket"], ".note")
    assert words(shown["ticket"], ".reach") == kept.reply_to
    assert words(shown["ticket"], ".said") == kept.question
    assert PAYLOAD in shown["search"].css_first("#q").attributes["value"]
    assert PAYLOAD in words(shown["mine"])
    assert any(one.css_first("blockquote b") for one in shown["search"].css(".result"))
    assert exported.headers["content-type"].startswith("text/plain")


@pytest.fixture(scope="module")
def noted(office):
    """A ticket to write notes to, and a client that does."""
    with office.client() as client:
        yield office.ticket(), client


@hypothesis_settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(note=st.text(min_size=1, max_size=60))
def test_whatever_is_noted_is_shown_to_the_character_as_it_was_kept(office, noted, note):
    number, client = noted
    sent = note.encode("utf-8", "replace").decode()
    answer = client.post(f"/agent/tickets/{number}/note", data={"note": sent})
    assert answer.status_code in (303, 400)
    kept = office.front.history.ticket(number).notes
    page = parsed(client.get(f"/agent/tickets/{number}"))
    assert_ours(page)
    assert [one.css_first(".text").text() for one in page.css(".note")] == [
        one.text for one in kept
    ]


TEXTS = st.text(st.sampled_from("甲乙丙 \n"), max_size=30)


@given(before=TEXTS, quoted=TEXTS.filter(bool), behind=TEXTS, start=st.integers(0, 40))
def test_a_passage_is_linked_only_where_its_exact_words_stand(before, quoted, behind, start):
    quote = Quote(quoted, "g.md", "", (), start, start + len(quoted), (), 0, 0, 0, None)
    text = before + quoted + behind
    placed = place_now(quote, Document("g.md", "", text, "text", ""))
    assert placed.place in ("same", "moved")
    assert text[placed.quote.start : placed.quote.end] == quoted
    assert (placed.quote == quote) == (placed.place == "same")
    assert place_now(quote, None).place == "gone"
    assert place_now(quote, Document("g.md", "", "丁", "text", "")).place == "gone"


@given(text=st.text(min_size=1, max_size=80))
def test_markdown_quotes_every_line_and_nothing_else(text):
    quote = Quote(text, "g.md", "", ("甲", "乙"), 3, 9, (), 0, 0, 0, None)
    lines = as_markdown(quote, "http://h/source/g.md").split("\n")
    assert lines[-1] == "— 甲 › 乙 (`g.md`, 3–9): <http://h/source/g.md>"
    assert lines[-2] == ""
    assert all(line.startswith(">") for line in lines[:-2])
    assert len(lines) - 2 == len(text.split("\n"))


# --- Words ---------------------------------------------------------------------------------------

TEMPLATES = REPOSITORY / "assistant" / "web" / "templates"


def test_every_phrase_is_there_in_both_languages_with_the_same_places_to_fill():
    for key, said in WORDS.items():
        assert set(said) == {"zh", "en"}, key
        places = [sorted(re.findall(r"\{(\w+)\}", one)) for one in said.values()]
        assert places[0] == places[1], key
        assert re.search(r"[\u3400-\u9fff]", said["zh"]), key
        assert not re.search(r"[\u3400-\u9fff]", said["en"]), key
    assert say_to_agent("en")("ticket", number=7) == "Ticket 7"


def test_every_phrase_is_used_and_every_template_says_nothing_by_itself():
    rooms = [*TEMPLATES.parent.glob("agent*.py"), TEMPLATES.parent / "evidence.py"]
    rooms.append(REPOSITORY / "assistant" / "records.py")
    code = "".join(path.read_text("utf-8") for path in rooms)
    pages = "".join(path.read_text("utf-8") for path in TEMPLATES.glob("agent_*.html"))
    begun = tuple(set(re.findall(r"\(\"(\w+_)\" ~", pages)))
    written = set(re.findall(r"[\"'](\w+)[\"'](?!: \{)", code + pages))
    assert [key for key in WORDS if key not in written and not key.startswith(begun)] == []
    said = re.sub(r"\{[{%#].*?[}%#]\}|<[^>]*>|&\w+;|UTC", "", pages, flags=re.S)
    assert re.findall(r"[A-Za-z\u3400-\u9fff]{2,}", said) == []


# --- In a browser --------------------------------------------------------------------------------

# The least contrast of every visible text on what lies behind it (WCAG 2: relative luminance).
CONTRAST = """() => {
  const paint = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = color => {
    paint.clearRect(0, 0, 1, 1); paint.fillStyle = color; paint.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = paint.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
  };
  const over = (top, under) => top.slice(0, 3).map((v, i) => v * top[3] + under[i] * (1 - top[3]));
  const light = c => {
    const [r, g, b] = c.map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = node => {
    const layers = [];
    for (let n = node; n; n = n.parentElement)
      layers.push(rgba(getComputedStyle(n).backgroundColor));
    return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255]);
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement, words = walk.currentNode.data.trim();
    const box = node.getBoundingClientRect();
    if (!words || !node.checkVisibility({visibilityProperty: true})) continue;
    if (box.width <= 1 || box.height <= 1) continue;
    const back = behind(node), fore = over(rgba(getComputedStyle(node).color), back);
    const [a, b] = [light(fore), light(back)].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), words.slice(0, 40)]);
  }
  return found.sort((x, y) => x[0] - y[0]);
}"""


@pytest.fixture(scope="module")
def browser():
    """One browser; of this module alone, since Playwright keeps an event loop running."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def desk_of(browser, office):
    """Open a page as an agent; whatever is done in it, no error is told, no other host asked."""
    contexts, told = [], []

    def opened(path, name="ann", locale="en-GB", scheme="light", width=1280):
        context = browser.new_context(
            locale=locale,
            color_scheme=scheme,
            viewport={"width": width, "height": 844},
            reduced_motion="reduce",
            permissions=["clipboard-read", "clipboard-write"],
        )
        contexts.append(context)
        context.set_default_timeout(15_000)
        context.add_cookies([{"name": SESSION, "value": office.session(name), "url": office.url}])
        page = context.new_page()
        page.on("request", lambda one: one.url.startswith(office.url) or told.append(one.url))
        page.on("console", lambda one: one.type == "error" and told.append(one.text))
        page.on("pageerror", lambda one: told.append(str(one)))
        page.on("dialog", lambda one: (told.append(one.message), one.dismiss()))
        page.goto(office.url + path)
        return page

    opened.told = told
    yield opened
    for context in contexts:
        context.close()
    assert told == []


def test_an_answer_is_looked_up_and_copied_by_keyboard_alone(office, desk_of):
    """From anywhere on the page: /, the question, Enter, then Tab to what is wanted."""
    page = desk_of("/agent?q=客服")
    page.locator(".result a").first.focus()
    page.keyboard.press("/")
    page.keyboard.type("充值没到账怎么办")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=%E5%85%85**")
    said = page.locator(".result blockquote").first.text_content()
    page.keyboard.press("/")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.copy") == "text-1":
            break
    assert page.evaluate("parseFloat(getComputedStyle(document.activeElement).outlineWidth)") >= 2
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-copy=text-1][data-done]")
    assert page.evaluate("navigator.clipboard.readText()") == said
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-copy=markdown-1][data-done]")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.text_content("#markdown-1")
    assert copied.startswith("> ")
    assert office.url in copied


def test_the_first_copy_is_one_tab_away_from_a_search(desk_of):
    page = desk_of("/agent")
    page.keyboard.type("充值没到账怎么办")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=%E5%85%85**")
    until(page, "document.activeElement.matches('main [role=status]')")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.copy") == "text-1"


def test_a_passage_on_a_ticket_is_copied_with_its_source(office, desk_of):
    number = office.ticket()
    page = desk_of(f"/agent/tickets/{number}")
    page.click("[data-copy=markdown-1]")
    page.wait_for_selector("[data-copy=markdown-1][data-done]")
    copied = page.evaluate("navigator.clipboard.readText()")
    quote = packet_of(office.front.history.ticket(number)).quotes[0]
    assert copied == page.text_content("#markdown-1")
    assert f"`{quote.path}`, {quote.start}–{quote.end}" in copied
    assert office.url in copied


def test_who_writes_an_answer_of_their_own_has_chosen_it(desk_of):
    page = desk_of("/agent/propose")
    assert page.is_checked("#by-reference")
    page.fill("#answer", "在应用里申请")
    assert page.is_checked("#by-own")


def test_what_is_half_written_outlives_a_change_of_the_language(office, desk_of):
    number, other = office.ticket(), office.ticket()
    page = desk_of(f"/agent/tickets/{number}")
    page.fill("#note", "写了一半")
    page.click("header a[hreflang]")
    page.wait_for_url("**lang=zh")
    assert page.input_value("#note") == "写了一半"
    page.goto(f"{office.url}/agent/tickets/{other}")
    assert page.input_value("#note") == ""
    page.goto(f"{office.url}/agent/propose")
    page.fill("#questions", "怎么退款")
    page.fill("#answer", "在应用里申请")
    page.click("header a[hreflang]")
    page.wait_for_url("**lang=en")
    assert page.input_value("#questions") == "怎么退款"
    assert page.input_value("#answer") == "在应用里申请"
    assert page.is_checked("#by-own")


@pytest.mark.parametrize("locale", ["zh-CN", "en-GB"])
def test_on_a_phone_a_long_question_is_folded_above_what_can_be_done(office, desk_of, locale):
    number = office.ticket("我要转人工，" + "钱还是没有到账。" * 100)
    page = desk_of(f"/agent/tickets/{number}", width=390, locale=locale)
    button = page.locator("form[action$=claim] button")
    assert button.bounding_box()["y"] < 844
    folded = page.locator(".said").bounding_box()["height"]
    page.click("summary .whole")
    assert page.locator(".said").bounding_box()["height"] > 3 * folded
    assert page.inner_text(".said") == office.front.history.ticket(number).question


def test_the_slash_is_a_slash_where_one_types(desk_of):
    page = desk_of("/agent")
    page.fill("#q", "a")
    page.press("#q", "/")
    assert page.input_value("#q") == "a/"


def test_the_source_opens_with_the_passage_marked(desk_of):
    page = desk_of("/agent?q=充值没到账怎么办")
    said = page.locator(".result blockquote").first.text_content()
    with page.context.expect_page() as opening:
        page.locator(".result a").first.click()
    source = opening.value
    source.wait_for_load_state()
    assert "".join(source.locator("mark").all_text_contents()) == said


def test_of_the_sections_only_those_of_the_chosen_document_can_be_chosen(desk_of):
    page = desk_of("/agent")
    page.select_option("#section", "2. 密码找回")
    page.select_option("#path", HOSTILE_GUIDE)
    assert page.input_value("#section") == ""
    shown = (
        "[...document.querySelectorAll('#section optgroup:not([hidden])')].map(g => g.dataset.of)"
    )
    assert page.evaluate(shown) == [HOSTILE_GUIDE]
    page.select_option("#path", "")
    assert page.evaluate(shown) == [HOSTILE_GUIDE, GUIDE]


@pytest.mark.usefixtures("queue_of_its_own")
def test_two_agents_click_at_once_and_one_of_them_has_it(office, desk_of):
    number = office.ticket()
    first, second = desk_of("/agent/tickets", "ann"), desk_of("/agent/tickets", "bea")
    first.click(f"#claim-{number}")
    first.wait_for_url(f"**/agent/tickets/{number}")
    second.click(f"#claim-{number}")
    second.wait_for_url("**/claim")
    assert f"ann has ticket {number}." in second.inner_text("[role=alert]")
    second.get_by_role("link", name=f"See ticket {number}").click()
    assert second.get_by_role("button", name="Claim").count() == 0
    assert "ann" in second.inner_text("dl.facts")
    _forgive(desk_of.told)


@pytest.mark.usefixtures("queue_of_its_own")
def test_a_ticket_is_claimed_noted_and_closed_by_keyboard_alone(office, desk_of):
    number = office.ticket()
    page = desk_of("/agent/tickets")

    def tab_to(name: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            shown = "document.activeElement.getAttribute('aria-label') || "
            if page.evaluate(shown + "document.activeElement.textContent.trim()") == name:
                return
        raise AssertionError(name)

    tab_to(f"Claim Ticket {number}")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/agent/tickets/{number}")
    page.get_by_label("Note").focus()
    page.keyboard.type("打过电话")
    tab_to("Add the note")
    page.keyboard.press("Enter")
    page.wait_for_selector(".note")
    page.get_by_label("Note").focus()
    page.keyboard.type("解决了")
    tab_to("Close the ticket")
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('.note').length === 2")
    kept = office.front.history.ticket(number)
    assert (kept.state, kept.owner, [one.text for one in kept.notes]) == (
        "closed",
        "ann",
        ["打过电话", "解决了"],
    )


@pytest.mark.usefixtures("queue_of_its_own")
def test_the_queue_refreshes_itself_and_says_when_it_cannot(office, desk_of):
    """What has the focus keeps it; a lost connection and an ended session are told."""
    first = office.ticket()
    page = desk_of("/agent/tickets")
    page.clock.install()
    page.reload()
    page.focus(f"#ticket-{first}")
    second = office.ticket("我的账户被盗了，钱被转走了")
    page.clock.run_for(10_500)
    page.wait_for_selector(f"#claim-{second}")
    assert page.evaluate("document.activeElement.id") == f"ticket-{first}"
    assert page.inner_text("#refreshed") == WORDS["arrived"]["en"]
    assert page.title().startswith("(2) ")
    office.front.history.claim(second, "bea")
    page.clock.run_for(10_500)
    page.wait_for_selector(f"#claim-{second}", state="detached")
    page.context.set_offline(True)
    page.clock.run_for(10_500)
    page.wait_for_selector("#refreshed.warning")
    assert page.inner_text("#refreshed") == WORDS["stale"]["en"]
    page.context.set_offline(False)
    page.clock.run_for(10_500)
    page.wait_for_selector("#refreshed:not(.warning)")
    page.context.clear_cookies()
    page.clock.run_for(10_500)
    page.wait_for_selector("#refreshed[data-state=out]")
    assert page.inner_text("#refreshed") == WORDS["signed_out"]["en"]
    _forgive(desk_of.told)


def test_without_script_everything_but_copying_by_button_works(browser, office):
    number = office.ticket()
    context = browser.new_context(java_script_enabled=False, locale="en-GB")
    context.add_cookies([{"name": SESSION, "value": office.session(), "url": office.url}])
    page = context.new_page()
    page.goto(f"{office.url}/agent")
    page.fill("#q", "充值没到账怎么办")
    page.click("form[role=search] button")
    assert page.locator("[data-copy]:visible").count() == 0
    page.locator(".result summary", has_text="Words to copy").first.click()
    assert page.locator("#markdown-1").is_visible()
    page.goto(f"{office.url}/agent/tickets/{number}")
    page.get_by_role("button", name="Claim").click()
    page.fill("#note", "打过电话")
    page.get_by_role("button", name="Add the note").click()
    page.locator(".note").wait_for()
    context.close()


def test_a_hostile_guide_and_user_run_nothing(office, desk_of):
    number = office.ticket(f"我要转人工 {PAYLOAD}", [PAYLOAD], PAYLOAD)
    page = desk_of(f"/agent/tickets/{number}")
    assert page.text_content(".said") == office.front.history.ticket(number).question
    page.goto(f"{office.url}/agent?q=彩虹独角兽住在哪里")
    assert PAYLOAD.split()[0] in page.inner_text(".result >> nth=0")
    assert page.locator("img, svg").count() == 0


@pytest.mark.parametrize(
    ("locale", "scheme", "width"),
    [("zh-CN", "dark", 390), ("en-GB", "light", 390), ("en-GB", "dark", 1280)],
)
def test_nothing_is_cut_and_every_text_can_be_read(office, desk_of, locale, scheme, width):
    """No scrolling sideways, contrast of every text at least 4.5 to 1, on every page."""
    number = office.ticket("我的账户被盗了", ["张三" * 40], "a" * 150, before=["充值没到账怎么办"])
    office.front.history.add_note(number, "bea", "w" * 300)
    mine = office.ticket("我要转人工")
    office.front.history.claim(mine, "bea")
    office.front.history.propose(["怎么退款" * 20], "", "x" * 300, "ann", "search")
    page = desk_of("/agent", locale=locale, scheme=scheme, width=width)
    for path in (
        "/agent",
        "/agent?q=充值没到账怎么办",
        "/agent?q=！",
        "/agent/tickets",
        "/agent/tickets?state=others",
        f"/agent/tickets/{number}",
        f"/agent/tickets/{mine}",
        f"/agent/propose?ticket={number}",
        "/agent/proposals?done=1",
        "/agent/nothing",
    ):
        page.goto(office.url + path)
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        least = page.evaluate(CONTRAST)
        assert len(least) > 5
        assert least[0][0] >= 4.5, (path, least[:3])
        unnamed = "[...document.querySelectorAll('main :is(input, select, textarea)')].filter("
        shown = "one => one.type !== 'hidden' && !one.labels.length).length"
        assert page.evaluate(unnamed + shown) == 0
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", dark)[:3])) < 200) == (scheme == "dark")
    _forgive(desk_of.told)


def _forgive(told: list[str]) -> None:
    """A refused or failed request is told to the console by the browser itself."""
    told[:] = [one for one in told if "Failed to load resource" not in one]
