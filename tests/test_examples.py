"""The ask page offers what the guide in use answers, whichever guide that is."""

import shutil

import pytest
from server import heard, running

from assistant.answer import language_of
from assistant.build import build
from assistant.desk import Desk
from assistant.examples import MOST, KnownExamples, examples
from assistant.settings import Settings

LENDING = """# Lending

## How many books

Each reader may borrow ten books at a time. Children may borrow five.

## How long

A book may be kept for four weeks. It can be renewed twice, online or at the desk.

## 3. Late fees

After the due date a fee of 20 cents a day is charged for each book, at most five euros.

## Talk to a human

The desk is on the first floor, left of the stairs.
"""


@pytest.fixture
def library(tmp_path):
    """Settings of a small guide of a library, not built."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "lending.md").write_text(LENDING, "utf-8")
    return Settings(corpus=tmp_path / "mine", index=tmp_path / "mine-index")


def shown(settings, encoder):
    build(settings, encoder, force=True)
    return examples(Desk(settings, encoder))


def test_the_operators_own_examples_are_shown_as_they_are_listed(desk):
    found = examples(desk)
    assert found["zh"][0] == "充值没到账怎么办"
    assert (len(found["zh"]), len(found["en"])) == (5, 3)
    assert all(language_of(words) == language for language in found for words in found[language])


def test_else_questions_of_several_sections_that_lead_to_them(guide, encoder, tmp_path):
    shutil.copytree(guide.corpus, tmp_path / "corpus")
    text = (tmp_path / "corpus" / "contacts.toml").read_text("utf-8")
    begin = text.index("examples = [")
    kept = text[:begin] + text[text.index("]", begin) + 2 :]
    (tmp_path / "corpus" / "contacts.toml").write_text(kept, "utf-8")
    asked = Desk(Settings(corpus=tmp_path / "corpus", index=guide.index), encoder)
    found = examples(asked)
    for language in ("zh", "en"):
        answers = [asked.ask(words) for words in found[language]]
        assert len({answer.quotes[0].headings for answer in answers}) == len(answers) == MOST
        assert {answer.verdict for answer in answers} == {"answered"}
        assert {language_of(words) for words in found[language]} == {language}


def test_else_headings_without_their_numbers_and_none_that_means_something_else(library, encoder):
    found = shown(library, encoder)
    assert set(found["en"]) == {"How many books", "How long", "Late fees"}
    assert found["zh"] == found["en"]


def test_labelled_questions_go_before_headings(library, encoder):
    (library.corpus / "questions").mkdir()
    labels = "- {ask: What happens when I am late?, passage: 'lending.md#3. Late fees'}\n"
    (library.corpus / "questions" / "fit.yaml").write_text(labels, "utf-8")
    assert shown(library, encoder)["en"] == ("What happens when I am late?",)


def test_examples_are_found_once_a_generation(library, encoder, monkeypatch):
    build(library, encoder)
    desk = Desk(library, encoder)
    known = KnownExamples(desk)
    before = known.now()
    monkeypatch.setattr(Desk, "ask", lambda *_: pytest.fail("asked again"))
    assert known.now() is before
    monkeypatch.undo()
    (library.corpus / "lending.md").write_text(LENDING.replace("How long", "Renewing"), "utf-8")
    build(library, encoder)
    desk.reload()
    assert "Renewing" in known.now()["en"]


def test_the_page_of_another_guide_offers_its_own_and_follows_a_build(library, encoder, tmp_path):
    build(library, encoder)
    places = ["--corpus", str(library.corpus), "--index", str(library.index), "--port", "0"]
    command = ["-m", "assistant.cli", "serve", *places]
    with running(command, tmp_path) as server, server.client as client:
        config = client.get("/config").json()
        shown = [one["props"] for one in config["components"]]
        buttons = [one for one in shown if "example" in (one.get("elem_classes") or [])]
        offered = [one["value"] for one in buttons if one["visible"]]
        assert set(offered) == {"How many books", "How long", "Late fees"}
        assert "merchant" not in str(config)
        assert all("value" not in one for one in heard(client, "resume", [""])[1:])
        text = LENDING.replace("How long", "Renewing")
        (library.corpus / "lending.md").write_text(text, "utf-8")
        build(library, encoder)
        heard(client, "turn", ["How many books?", ""])
        now = heard(client, "resume", [""])[1:]
        assert "Renewing" in [one["value"] for one in now]
