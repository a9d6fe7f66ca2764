"""The maintainers' pages: who may see them, what they show, and what they do to index and guide."""

import html
import json
import re
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from chromium import chromium, in_browser
from fakes import CharacterEncoder
from faults import FEW
from maintain_app import create
from server import PATIENCE, running
from starlette.testclient import TestClient

from assistant import calibrate, generations
from assistant.access import Access
from assistant.build import build
from assistant.desk import Desk
from assistant.frontdesk import FrontDesk
from assistant.history import History, NotSaved
from assistant.settings import Settings
from assistant.web import maintain_words, office_words
from assistant.web.rebuild import Job

MAINTAINER, AGENT = "maintainer-token-of-tests", "agent-token-of-the-tests"
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }}"
GUIDE = f"""---
title: 钱包指南
---
前言不长。

# 钱包

## 提现

提现手续费是一元。三天内到账。

## 充值 {HOSTILE}

充值要等十分钟。{HOSTILE}
"""
TEMPLATES = Path(maintain_words.__file__).parent / "templates"


@pytest.fixture(autouse=True)
def _few_probes(monkeypatch):
    for name, few in FEW.items():
        monkeypatch.setattr(calibrate, name, few)


@pytest.fixture
def place(tmp_path):
    """Settings of a small guide, hostile in places, with an index and a state folder."""
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "guide.md").write_text(GUIDE, "utf-8")
    settings = Settings(
        corpus=tmp_path / "corpus",
        index=tmp_path / "index",
        users=tmp_path / "var" / "users.toml",
        history=f"sqlite:///{tmp_path}/var/history.db",
        maintainer_token=MAINTAINER,
        agent_token=AGENT,
        rate_per_minute=0,
        quality_drop=0.0,
    )
    build(settings, CharacterEncoder())
    return settings


@pytest.fixture
def front(place):
    history = History.open(place)
    yield FrontDesk(Desk(place, CharacterEncoder()), history)
    history.close()


@pytest.fixture
def app(front):
    return create(front, Access.open(front.settings))


@pytest.fixture
def page(app):
    """A maintainer's browser, in English."""
    with Browser(app, MAINTAINER) as page:
        yield page


class Browser(TestClient):
    """A client that signs in and holds the form token, as a browser does."""

    def __init__(self, app, token, language="en"):
        headers = {"accept": "text/html", "accept-language": language}
        super().__init__(app, "http://127.0.0.1", headers=headers)
        self.token = token

    def __enter__(self):
        super().__enter__()
        self.get("/login", params={"token": self.token})
        return self

    def see(self, path, status=200):
        """Return the visible words of a page."""
        answer = self.get(path)
        assert answer.status_code == status, answer.text
        return visible(answer.text)

    def do(self, path, **fields):
        form = re.search('name="form-token" content="([^"]+)"', self.get("/maintain").text)
        return self.post(path, data={"form_token": form[1], **fields})

    def built(self, **fields):
        """Press rebuild and wait for its end; return the words of the page then."""
        self.do("/maintain/rebuild", **fields)
        return self.wait()

    def wait(self, path="/maintain"):
        until = time.monotonic() + PATIENCE
        while "data-running" in (shown := self.get(path).text):
            assert time.monotonic() < until
            time.sleep(0.05)
        return visible(shown)


def visible(page):
    """Return the words of a page; in it there is no markup but ours."""
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "49" not in re.findall(r"onerror=alert\(2\)>(\d*)", html.unescape(page))
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


# --- Who may -------------------------------------------------------------------------------------


def routes(app):
    for route in app.routes:
        for one in getattr(getattr(route, "original_router", None), "routes", [route]):
            path = getattr(one, "path", "")
            if path.startswith("/maintain"):
                for method in one.methods:
                    yield method, path.replace("{number}", "1")


def test_every_route_is_for_maintainers_alone(app):
    listed = set(routes(app))
    assert len(listed) >= 19
    with TestClient(app, "http://127.0.0.1", follow_redirects=False) as nobody:
        for method, path in listed:
            assert nobody.request(method, path).status_code == 401, path
            browser = nobody.request(method, path, headers={"accept": "text/html"})
            assert browser.status_code == (303 if method == "GET" else 401), path
    with Browser(app, AGENT) as agent:
        for method, path in listed:
            assert agent.request(method, path).status_code == 403, path


def test_nothing_is_changed_without_the_form_token(app, page, place):
    now = generations.pointer(place.index)
    for method, path in routes(app):
        if method == "POST":
            assert page.post(path).status_code == 403
            assert page.post(path, data={"form_token": "x"}).status_code == 403
    assert generations.pointer(place.index) == now
    assert page.see("/maintain").count("Nothing was built") == 1


def test_a_path_to_nowhere_gives_our_own_page_and_a_slash_too_many_does_not_matter(page):
    for path in ("/maintain/nothing", "/maintain/proposals/1/nothing"):
        answer = page.get(path)
        assert (answer.status_code, "There is no such page" in answer.text) == (404, True)
        assert "<nav" in answer.text
    assert page.get("/maintain/").url.path == "/maintain"


# --- The index -----------------------------------------------------------------------------------


def test_the_index_page_says_what_is_in_use(page, front):
    said = page.see("/maintain")
    assert front.desk.generation in said
    for words in ("characters, 64 dimensions", "Files 1", "Sections 3", "Passages 3", "just now"):
        assert words in said
    assert f"Views {front.desk.index.view_count}" in said
    assert "Every file of the guide is as it was" in said


def test_changes_of_the_corpus_are_named_by_hash_and_until_they_are_built(page, place):
    corpus = place.corpus
    (corpus / "guide.md").write_text(GUIDE.replace("一元", "两元"), "utf-8")
    (corpus / "new.md").write_text("# 新\n\n新的一页。拨打 400-123-4567。\n", "utf-8")
    (corpus / f"odd {HOSTILE[:8]}.exe").write_bytes(b"MZ")
    said = page.see("/maintain")
    assert "Changed guide.md" in said
    assert "Added new.md" in said
    assert "not a guide file" in said
    assert "400-123-4567" in said
    page.built()
    (corpus / "new.md").unlink()
    said = page.see("/maintain")
    assert "Removed new.md" in said
    assert "Changed guide.md" not in said
    (corpus / "new.md").write_text("# 新\n\n新的一页。拨打 400-123-4567。\n", "utf-8")
    assert "Every file of the guide is as it was" in page.see("/maintain")


def test_a_broken_list_of_contacts_is_said_above_what_changed(page, place):
    (place.corpus / "contacts.toml").write_text("x = 1", "utf-8")
    (place.corpus / "guide.md").write_text(GUIDE.replace("一元", "两元"), "utf-8")
    said = page.see("/maintain")
    assert "the file has 'x'" in said
    assert said.index("the file has 'x'") < said.index("Changed guide.md")


def test_why_nothing_is_answered_and_where_files_lie_is_said_in_both_languages(page, app, place):
    (place.corpus / "photo.png").write_bytes(b"x")
    labels, accepted = place.corpus / "questions", place.corpus / "accepted.qa.yaml"
    said = page.see("/maintain")
    assert "Nothing will be answered without reserve: 0 labelled questions so far" in said
    assert f".yaml files in {labels}" in said
    assert str(labels) in page.see("/maintain/report")
    assert str(accepted) in page.see("/maintain/proposals")
    with Browser(app, MAINTAINER, "zh") as chinese:
        said = chinese.see("/maintain")
    assert "现在没有问题会被直接回答：目前只有 0 个标注问题" in said
    assert "photo.png 不是指南文件，能读的有" in said
    assert "没有这个文件: 需要人工的用户看不到任何联系方式" in said


def test_a_corpus_that_is_no_guide_any_more_is_said_and_the_index_serves_on(page, place):
    (place.corpus / "guide.md").unlink()
    assert "no guide text" in page.see("/maintain")
    assert page.get("/ask?question=提现要多少钱").json()["quotes"]


def test_hashes_are_checked_when_asked_and_damage_is_named_with_its_repair(page, place, front):
    page.built()
    old = generations.history(place.index)[0]
    damaged = place.index / "generations" / old / "chunks.jsonl"
    data = bytearray(damaged.read_bytes())
    data[10] ^= 1
    assert "Damaged" not in page.see("/maintain")
    damaged.write_bytes(data)
    page.do("/maintain/verify")
    said = page.see("/maintain")
    assert re.search(r"Damaged: \S+chunks.jsonl is damaged: its sha256 differs. Rebuild with", said)
    assert said.count("whole, checked at") == 1
    assert "no earlier whole generation" in page.see("/maintain/rollback")


def test_notes_of_the_desk_and_of_the_history_stand_first(place):
    """A damaged generation was passed over, and a file that is no database set aside."""
    build(place, CharacterEncoder())
    newest = generations.history(place.index)[-1]
    (place.index / "generations" / newest / "views.jsonl").unlink()
    database = Path(place.history.removeprefix("sqlite:///"))
    database.parent.mkdir(exist_ok=True)
    database.write_bytes(b"not a database at all" * 100)
    history = History.open(place)
    front = FrontDesk(Desk(place, CharacterEncoder()), history)
    assert len(front.notes) >= 3
    with Browser(create(front, Access.open(place)), MAINTAINER) as page:
        said = page.see("/maintain")
    history.close()
    assert said.index("views.jsonl is missing. Rebuild with: assistant build") < said.index("Made")
    assert ".corrupt-" in said


# --- Building ------------------------------------------------------------------------------------


def test_a_build_takes_over_and_its_report_stays(page, place, front):
    first = front.desk.generation
    (place.corpus / "guide.md").write_text(GUIDE.replace("一元", "两元"), "utf-8")
    said = page.built()
    assert front.desk.generation != first
    assert f"{front.desk.generation} in use" in said
    assert "the new index is in use" in said
    assert re.search(r"Files read 1 .* reused, .* encoded", said)
    for stage in ("reading the guide's files 1", "writing the index", "calibrating"):
        assert stage in said
    assert "提现手续费是两元。三天内到账。" in page.get("/ask?question=提现手续费").json()["quotes"]


class Slow(CharacterEncoder):
    """An encoder that waits to be let go on, or fails."""

    def __init__(self):
        super().__init__()
        self.go = threading.Event()
        self.go.set()
        self.error = None

    def encode_passages(self, texts):
        assert self.go.wait(PATIENCE)
        if self.error:
            raise self.error
        return super().encode_passages(texts)


@pytest.fixture
def slow(front, place):
    """The desk's encoder, held up; there is always something new to encode."""
    encoder = front.desk.encoder = Slow()
    (place.corpus / "new.md").write_text("# 新\n\n新的一页。\n", "utf-8")
    encoder.go.clear()
    yield encoder
    encoder.go.set()


def test_one_build_runs_at_a_time_and_the_page_serves_on(page, place, front, slow):
    before = generations.history(place.index)
    for _ in range(3):
        assert page.do("/maintain/rebuild").status_code == 200
    said = page.see("/maintain")
    assert "Building: reading the guide's files" in said
    assert '<meta http-equiv="refresh" content="2; url=?at=' in page.get("/maintain").text
    assert page.get("/ask?question=提现手续费").json()["generation"] == before[0]
    slow.go.set()
    assert "the new index is in use" in page.wait()
    assert '<meta http-equiv="refresh"' not in page.get("/maintain").text
    assert len(generations.history(place.index)) == len(before) + 1


def test_another_programs_build_is_said_plainly(page, place):
    with generations.build(place.index):
        said = page.built()
    assert "Another program is building this index" in said
    assert "a build is already running" in said
    assert "the new index is in use" in page.built()


def test_a_drop_of_quality_shows_the_figures_and_can_be_overruled(page, place, front):
    first = front.desk.generation
    questions = place.corpus / "questions"
    questions.mkdir()
    (questions / "fit.yaml").write_text(
        "- {ask: 提现手续费是一元, passage: 'guide.md#提现'}\n"
        "- {ask: 三天内到账, passage: 'guide.md#提现'}\n"
    )
    worse = "# 别的\n\n## 费用\n\n提现手续费是一元。\n\n## 时间\n\n三天内到账。\n"
    (place.corpus / "other.md").write_text(worse + worse, "utf-8")
    (place.corpus / "guide.md").write_text(GUIDE.replace("提现手续费是一元。三天", "三"), "utf-8")
    said = page.built()
    assert "fewer questions right" in said
    assert re.search(r"the new index answers \d+\.\d% .* the old one 100\.0%", said)
    assert front.desk.generation == first
    assert 'name="force" value="1"' in page.get("/maintain").text
    assert "the new index is in use" in page.built(force="1")
    assert front.desk.generation != first


def test_what_went_wrong_is_a_sentence_and_never_a_traceback(page, front, slow, place):
    first = front.desk.generation
    slow.error = RuntimeError("CANARY /secret/path")
    slow.go.set()
    said = page.built()
    assert "The build did not end well; the index in use is unchanged." in said
    assert "Something unexpected went wrong" in said
    assert "CANARY" not in said
    (place.corpus / "guide.md").unlink()
    (place.corpus / "new.md").unlink()
    assert "no guide text" in page.built()
    assert front.desk.generation == first


def events(client, path):
    """Return the names of the events of a stream, and what is shown at its end."""
    told, data = [], ""
    with client.stream("GET", path) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                told.append(value)
                data = data if value == "end" else ""
            elif name == "data":
                data += value + "\n"
    return told, data


def test_progress_is_streamed_and_ends_with_the_report(page, slow):
    page.do("/maintain/rebuild")
    threading.Timer(0.5, slow.go.set).start()
    told, last = events(page, "/maintain/rebuild/events")
    assert told[-1] == "end"
    assert told.count("run") >= 2
    assert "the new index is in use" in visible(last)
    assert 'id="run-end" data-part' in last
    assert events(page, "/maintain/rebuild/events")[0] == ["run", "end"]


def test_a_build_goes_on_when_the_one_who_started_it_has_left(app, front, slow):
    first = front.desk.generation
    with Browser(app, MAINTAINER) as page:
        page.do("/maintain/rebuild")
        page.cookies.clear()
        slow.go.set()
        page.get("/login", params={"token": MAINTAINER})
        assert "Started by maintainer" in page.wait()
    assert front.desk.generation != first


def test_the_servers_end_breaks_a_build_off_and_leaves_the_old_index_whole(app, front, slow, place):
    first = front.desk.generation
    with Browser(app, MAINTAINER) as page:
        page.do("/maintain/rebuild")
        threading.Timer(0.5, slow.go.set).start()
    assert generations.pointer(place.index) == first
    assert generations.history(place.index) == [first]
    assert [path.name for path in (place.index / "generations").iterdir()] == [first]
    generations.current(place.index)


def test_a_job_that_ended_takes_no_more_work():
    job: Job[int] = Job()
    job.close()
    assert not job.start(lambda tell: 1, "x")


# --- Rolling back --------------------------------------------------------------------------------


def test_rolling_back_asks_first_then_answers_from_the_generation_before(page, place, front):
    first = front.desk.generation
    (place.corpus / "guide.md").write_text(GUIDE.replace("一元", "两元"), "utf-8")
    page.built()
    second = front.desk.generation
    said = page.see("/maintain/rollback")
    assert f"Roll back to {first}?" in said
    assert second in said
    assert front.desk.generation == second
    page.do("/maintain/rollback")
    assert front.desk.generation == generations.pointer(place.index) == first
    said = page.see("/maintain")
    assert f"{first} in use" in said
    assert f"that index, {second}, is not the one in use now" in said
    assert "the new index is in use" not in said
    assert "提现手续费是一元。三天内到账。" in page.get("/ask?question=提现手续费").json()["quotes"]


def test_with_nothing_to_go_back_to_nothing_happens(page, front):
    first = front.desk.generation
    assert "no earlier whole generation" in page.see("/maintain/rollback")
    assert 'id="roll-back"' not in page.get("/maintain").text
    assert page.do("/maintain/rollback").status_code == 503
    assert front.desk.generation == first


def test_an_older_generation_that_does_not_fit_is_not_gone_back_to(page, place, front):
    """Of another model or other settings: going back to it would leave nothing to answer from."""
    changed = place.model_copy(update={"chunk_chars": 300})
    build(changed, CharacterEncoder())
    second = Desk(changed, CharacterEncoder())
    front.desk = second
    front.settings = changed
    with Browser(create(front, Access.open(changed)), MAINTAINER) as other:
        answer = other.do("/maintain/rollback")
        assert answer.status_code == 503
        assert "chunk_chars" in visible(answer.text)
    assert generations.pointer(place.index) == second.generation


def test_a_build_and_a_roll_back_exclude_each_other(page, place):
    page.built()
    with generations.build(place.index):
        answer = page.do("/maintain/rollback")
    assert answer.status_code == 409
    assert "a build is already running" in visible(answer.text)


# --- Passages ------------------------------------------------------------------------------------


def test_a_document_and_its_passages_stand_side_by_side_to_the_character(page, front):
    shown = page.get("/maintain/passages?path=guide.md").text
    index = front.desk.index
    document = index.document("guide.md")
    sources = re.findall(r'<div class="source text">(.*?)</div>', shown, re.S)
    source = "".join(html.unescape(re.sub(r"</?(?:span|mark)[^>]*>", "", one)) for one in sources)
    assert source == document.text
    marked = [html.unescape(one) for one in re.findall("<mark>(.*?)</mark>", shown, re.S)]
    assert marked == [chunk.text for chunk in index.chunks()]
    for row, chunk in enumerate(index.chunks()):
        assert f"characters {chunk.start}–{chunk.end}" in visible(shown)
        for view in index.views(row):
            assert " ".join(view.text.split()) in visible(shown)


def test_a_long_document_is_shown_in_parts_that_join(page, place, front):
    text = "".join(f"# 第{n}章\n\n第{n}章的内容在这里。\n\n" for n in range(130))
    (place.corpus / "long.md").write_text(text, "utf-8")
    page.built()
    source = ""
    for first in (1, 101):
        shown = page.get(f"/maintain/passages?path=long.md&first={first}").text
        assert ("Later ones" in shown, "Earlier ones" in shown) == (first == 1, first > 1)
        parts = re.findall(r'<div class="source text">(.*?)</div>', shown, re.S)
        source += "".join(html.unescape(re.sub(r"</?(?:span|mark)[^>]*>", "", p)) for p in parts)
    assert source == text


@pytest.mark.parametrize("path", ["nothing.md", "../var/users.toml", HOSTILE, "%00"])
def test_a_document_that_is_none_is_said(page, path):
    assert "no such document" in page.see(f"/maintain/passages?path={path}", 404)


# --- The report ----------------------------------------------------------------------------------


def test_an_evaluation_is_made_in_the_background_and_its_page_kept(app, page, place, front):
    assert "There is no report yet" in page.see("/maintain/report")
    assert page.get("/maintain/report/page").status_code == 404
    (place.corpus / "questions").mkdir()
    asked = (
        f"- {{ask: '提现手续费 {HOSTILE}', passage: 'guide.md#提现'}}\n- {{ask: 天气, passage: }}\n"
    )
    (place.corpus / "questions" / "test.yaml").write_text(asked, "utf-8")
    first = front.desk.generation
    page.built(force="1")
    page.do("/maintain/report", against=first)
    said = page.wait("/maintain/report")
    assert "Measured in" in said
    assert "asking the labelled questions 2" in said
    assert "asking the index to compare with 2" in said
    assert "writing the report" in said
    written = page.get("/maintain/report/page")
    assert f"Evaluation of {front.desk.generation}" in visible(written.text)
    assert first in visible(written.text)
    assert written.text.count("<svg") == 3
    assert "sandbox" in written.headers["content-security-policy"]
    assert "frame-ancestors 'self'" in written.headers["content-security-policy"]
    shown = page.get("/maintain/report")
    assert "frame-src 'self'" in shown.headers["content-security-policy"]
    assert re.search("<iframe[^>]* sandbox ", shown.text)
    with Browser(create(front, Access.open(place)), MAINTAINER) as later:
        assert later.get("/maintain/report/page").text == written.text
        chinese = later.get("/maintain/report/page?lang=zh").text
        assert f"{front.desk.generation} 的评测" in visible(chinese)


def test_without_labelled_questions_the_evaluation_says_what_to_write(page):
    page.do("/maintain/report")
    said = page.wait("/maintain/report")
    assert "did not end well" in said
    assert "no labelled questions" in said


def test_days_are_counted_by_verdict_and_vote(page, front):
    for question in ("提现手续费是一元", "xyz", "xyz"):
        reply = front.ask(question)
        front.rate(reply.conversation, reply.turn, -1, "outdated")
    (day,) = front.history.days()
    said = page.see("/maintain/report?days=7")
    row = f"{day.date} 3 {day.answered} {day.uncertain} {day.unanswered} 0 3 0"
    assert row in said
    assert re.search(r"000001-\S+ in use", said)


# --- Gaps and proposals --------------------------------------------------------------------------


def gap_of(page):
    return html.unescape(re.search('href="(/maintain/proposals/new[^"]+)"', page.text)[1])


def ask_all(front, *questions):
    for question in questions:
        reply = front.ask(question)
        front.rate(reply.conversation, reply.turn, -1, "wrong_passage")


def test_a_gap_becomes_an_entry_that_the_next_build_answers_by(page, front, place):
    ask_all(front, f"怎么把钱拿回家 {HOSTILE}", f"怎么把钱拿回家呀 {HOSTILE}")
    listed = page.get("/maintain/gaps?days=7")
    said = visible(listed.text)
    assert "2 questions, 1 gaps" in said
    assert "wrong passage × 2" in said
    form = page.get(gap_of(listed))
    fields = visible(form.text)
    assert f"怎么把钱拿回家 {HOSTILE} " in fields
    (reference,) = re.findall('name="passage" value="([^"]*)"', form.text)
    near = front.desk.ask(f"怎么把钱拿回家 {HOSTILE}").verdict != "unanswered"
    assert html.unescape(reference).startswith("guide.md#" if near else "")
    made = page.do(
        "/maintain/proposals",
        questions="怎么把钱拿回家\n\n怎么把钱拿回家呀\n",
        passage="guide.md#提现",
        origin="gap",
        then="accept",
    )
    assert "waits for the next build" in visible(made.text)
    assert "from: a gap" in visible(made.text)
    page.built()
    assert "in the index" in page.see("/maintain/proposals")
    answer = page.get("/ask?question=怎么把钱拿回家").json()
    assert answer["quotes"][0] == "提现手续费是一元。三天内到账。"


@pytest.mark.parametrize("cut", [0.0, 2.0])
def test_a_passage_that_the_desk_would_not_show_is_not_proposed(page, front, cut):
    opened = front.desk._open
    front.desk._open = replace(opened, curve=replace(opened.curve, refused_cut=cut))
    ask_all(front, "提现手续费是多少钱")
    form = page.get(gap_of(page.get("/maintain/gaps?days=7"))).text
    (reference,) = re.findall('name="passage" value="([^"]*)"', form)
    assert html.unescape(reference).startswith("guide.md#") == (cut == 0.0)
    assert bool(reference) == (cut == 0.0)


def test_a_gap_that_an_entry_answers_by_now_says_so(page, front):
    ask_all(front, "独角兽吃什么")
    assert "in the guide by now" not in page.see("/maintain/gaps")
    page.do("/maintain/proposals", questions="独角兽吃什么", answer="苹果。", then="accept")
    page.built()
    assert "独角兽吃什么 in the guide by now" in page.see("/maintain/gaps")


def test_an_entry_that_cannot_be_accepted_is_kept_and_the_list_says_why(page, app, front):
    sent = {"questions": "问法", "passage": "guide.md#没有", "then": "accept"}
    made = page.do("/maintain/proposals", **sent)
    assert made.url.path == "/maintain/proposals"
    assert "Cannot be accepted: 'guide.md#没有' names no section" in visible(made.text)
    with Browser(app, MAINTAINER, "zh") as chinese:
        assert "现在不能接受：在指南里找不到它引用的段落。" in chinese.see("/maintain/proposals")
    (kept,) = front.history.proposals()
    assert (kept.state, kept.questions) == ("new", ("问法",))


def test_the_csv_opens_without_a_formula(page, front):
    ask_all(front, "=cmd|' /C calc'!A0 怎么办", "＝1+1 是什么")
    answer = page.get("/maintain/gaps.csv?days=30")
    assert answer.headers["content-disposition"] == 'attachment; filename="gaps.csv"'
    assert answer.content.startswith(b"\xef\xbb\xbf")
    assert "'=cmd|" in answer.text
    assert "'＝1+1" in answer.text


def test_a_gap_that_is_gone_leaves_an_empty_form_that_says_so(page):
    said = page.see("/maintain/proposals/new?gap=0123456789abcdef&days=30")
    assert "not in the list any more" in said


@pytest.mark.parametrize(
    ("questions", "passage", "answer"),
    [("", "guide.md#提现", ""), ("q", "", ""), ("q", "guide.md#提现", "both"), (" \n ", "", "a")],
)
def test_an_incomplete_entry_is_asked_for_again_with_what_was_written(
    page, front, questions, passage, answer
):
    sent = page.do("/maintain/proposals", questions=questions, passage=passage, answer=answer)
    assert sent.status_code == 422
    both = "You gave both a passage and an answer; empty one."
    said = both if questions.strip() and passage and answer else "at least one question"
    assert said in visible(sent.text)
    assert f'value="{passage}"' in sent.text
    assert front.history.proposals() == []


def test_proposals_are_shown_as_they_will_be_written_and_decided_once(page, front, place):
    odd = front.history.propose(["微信多少"], "", f"加微信 topay888 {HOSTILE}", "小李", "ticket 12")
    broken = front.history.propose(["x"], "guide.md#没有", "", "小王", "search")
    said = page.see("/maintain/proposals")
    assert "# proposal 1, words" in said
    assert f"加微信 topay888 {HOSTILE}" in said
    assert "not on the operator's list (contacts.toml): topay888" in said
    assert "from: ticket 12" in said
    assert "Cannot be accepted: 'guide.md#没有' names no section" in said
    assert page.do(f"/maintain/proposals/{broken.id}/accept").status_code == 422
    page.do(f"/maintain/proposals/{broken.id}/refuse", note="没有这段")
    page.do(f"/maintain/proposals/{odd.id}/accept", note="核实过")
    again = page.do(f"/maintain/proposals/{odd.id}/accept")
    assert again.status_code == 409
    said = page.see("/maintain/proposals")
    assert "没有这段" in said
    assert "核实过" in said
    assert (place.corpus / "accepted.qa.yaml").read_text("utf-8").count("topay888") == 1
    assert page.do("/maintain/proposals/99/accept").status_code == 404


def test_a_proposal_can_be_rewritten_before_it_is_accepted(page, front):
    old = front.history.propose(["微信多少"], "", "加微信 topay888", "小李", "ticket 12")
    form = page.get(f"/maintain/proposals/new?of={old.id}").text
    assert "加微信 topay888</textarea>" in form
    assert "微信多少</textarea>" in form


# --- Everything ----------------------------------------------------------------------------------


def test_conversations_are_exported_a_record_a_line(page, front):
    ask_all(front, "提现手续费", f"a\u2028b\n{HOSTILE}")
    answer = page.get("/maintain/export")
    assert 'filename="conversations.jsonl"' in answer.headers["content-disposition"]
    records = [json.loads(line) for line in answer.text.removesuffix("\n").split("\n")]
    assert len(records) == 2


def test_a_history_that_cannot_be_read_is_a_sentence(page, front, monkeypatch):
    def broken(*_: object):
        raise NotSaved("数据库坏了。 / The database is broken.")

    for name in ("gaps", "days", "proposals", "export"):
        monkeypatch.setattr(front.history, name, broken)
    for path in ("/gaps", "/gaps.csv", "/report", "/proposals", "/export"):
        said = page.see(f"/maintain{path}", 503)
        assert "The database is broken." in said
        assert "数据库" not in said


def test_every_page_is_whole_in_chinese_too(app, front):
    ask_all(front, "怎么把钱拿回家")
    front.history.propose(["微信多少"], "", "加微信 topay888", "小李", "ticket 12")
    with Browser(app, MAINTAINER, "zh-CN") as page:
        page.built()
        for path in (
            "",
            "/passages",
            "/report",
            "/gaps",
            "/proposals",
            "/proposals/new",
            "/rollback",
        ):
            said = page.see(f"/maintain{path}")
            for words in ("Index", "Rebuild", "Passage", "Proposal", "Gap", "Roll back"):
                assert words not in said.replace(HOSTILE, "")


def test_every_word_is_there_in_both_languages_and_used():
    mine, theirs = maintain_words.WORDS, office_words.WORDS
    assert not set(mine) & set(theirs)
    for key, both in mine.items():
        names = [set(re.findall(r"{(\w+)}", both[language])) for language in ("zh", "en")]
        assert names[0] == names[1], key
        assert all(both.values())
    written = "".join(path.read_text("utf-8") for path in TEMPLATES.glob("*maintain*"))
    code = (TEMPLATES.parent / "maintain.py").read_text("utf-8")
    code += Path(maintain_words.__file__).read_text("utf-8").partition("def words")[2]
    assert set(re.findall(r'say\("(\w+)"[,)]', written)) <= set(mine) | set(theirs)
    named = set(re.findall(r"""["'](\w+)["']""", written + code))
    joined = (*re.findall(r'say\("(\w+_)" ~', written), "run_", "measure_", "origin_")
    assert [key for key in mine if key not in named and not key.startswith(joined)] == []


def test_no_page_has_a_style_or_script_of_its_own():
    """The policy of these pages allows neither; numbers go into attributes."""
    for path in TEMPLATES.glob("*maintain*"):
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script>", path.read_text("utf-8"))


# --- A real server, a real browser ---------------------------------------------------------------

PAGES = ("", "/passages", "/report", "/gaps", "/proposals", "/proposals/new", "/rollback")


def served(folder):
    """Lay a small guide with a labelled question into a folder; return what serves it."""
    (folder / "corpus" / "questions").mkdir(parents=True)
    (folder / "corpus" / "guide.md").write_text(GUIDE, "utf-8")
    asked = "- {ask: 提现手续费多少, passage: 'guide.md#提现'}\n- {ask: 天气好吗, passage: }\n"
    (folder / "corpus" / "questions" / "test.yaml").write_text(asked, "utf-8")
    (folder / "var").mkdir()
    program = str(Path(__file__).parent / "maintain_app.py")
    return [program, *(str(folder / name) for name in ("corpus", "index", "var"))]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maintain")
    with running(served(folder), folder, SLOW_BUILD="0.3") as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def look(browser, server):
    """Open pages as a maintainer; no error is told and no other host is asked."""
    told, contexts = [], []

    def opened(path, **kind):
        context = browser.new_context(**{"locale": "en-GB", "reduced_motion": "reduce", **kind})
        context.set_default_timeout(PATIENCE * 1000)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda one: _here(one.url, server) or told.append(one.url))
        page.on("console", lambda one: one.type == "error" and told.append(one.text))
        page.on("pageerror", lambda one: told.append(str(one)))
        page.route("**/favicon.ico", lambda route: route.fulfill(status=204))
        page.goto(f"{server.url}/login?token={MAINTAINER}&next=/maintain{path}")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert told == []


def _here(url, server):
    return url.startswith((server.url + "/", "data:"))


def quotes(server, question):
    with server.client as client:
        return client.get("/ask", params={"question": question}).json()["quotes"]


@in_browser
@pytest.mark.parametrize(("script", "animal"), [(True, "长颈鹿"), (False, "犀牛")])
def test_a_new_sentence_is_answered_without_restart_and_gone_again(look, server, script, animal):
    """Edit the guide, rebuild, watch, ask; roll back, ask: with script and without."""
    sentence = f"{animal}卡的年费是七十七元。"
    page = look("", java_script_enabled=script)
    first = page.inner_text("#state dd >> nth=0")
    guide = server.log.parent / "corpus" / "guide.md"
    guide.write_text(f"{guide.read_text('utf-8')}\n## {animal}卡\n\n{sentence}\n", "utf-8")
    assert sentence not in quotes(server, f"{animal}卡年费")
    page.click("#rebuild")
    page.wait_for_selector("text=/Building: /")
    assert page.locator("progress").count() == 1
    page.wait_for_selector("text=the new index is in use")
    page.wait_for_selector("#changes >> text=as it was")
    assert page.inner_text("#state dd >> nth=0") != first
    assert page.locator("progress").count() == 0
    assert sentence in quotes(server, f"{animal}卡年费")
    page.click("#roll-back")
    earlier = page.inner_text("h1").removeprefix("Roll back to ").removesuffix("?")
    page.click("button.danger")
    page.wait_for_selector("#generations")
    assert page.inner_text("#state dd >> nth=0") == earlier
    assert "guide.md" in page.inner_text("#changes .files")
    assert sentence not in quotes(server, f"{animal}卡年费")


@in_browser
def test_the_report_is_shown_within_the_page_when_it_is_there(look):
    page = look("/report")
    page.click("#measure")
    frame = page.frame_locator("iframe.report")
    frame.locator("svg").first.wait_for()
    assert "Evaluation of" in frame.locator("h1").inner_text()
    assert "Measured in" in page.inner_text("#run-state")


@in_browser
@pytest.mark.parametrize(
    ("locale", "scheme", "width"), [("zh-CN", "dark", 390), ("en-GB", "light", 390)]
)
def test_on_a_phone_nothing_is_cut_and_every_text_can_be_read(look, locale, scheme, width):
    from test_page import CONTRAST

    page = look("", locale=locale, color_scheme=scheme, viewport={"width": width, "height": 844})
    for path in PAGES:
        page.goto(re.sub("/maintain.*", f"/maintain{path}", page.url))
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        least = page.evaluate(CONTRAST)
        assert least[0][0] >= 4.5, (path, least[:3])


def test_told_to_end_during_a_build_the_server_leaves_the_old_index(tmp_path):
    index = tmp_path / "index"
    with running(served(tmp_path), tmp_path, SLOW_BUILD="0.4") as server:
        first = generations.pointer(index)
        bearer = {"authorization": f"Bearer {MAINTAINER}"}
        with server.client as client:
            assert client.post("/maintain/rebuild", headers=bearer).status_code == 303
            time.sleep(0.3)
            assert server.end() == 0
        assert "Traceback" not in server.log.read_text()
    assert generations.pointer(index) == first
    assert generations.current(index).generation.id == first
    assert [path.name for path in (index / "generations").iterdir()] == [first]
