"""A price that the guide does not name is never answered by what is near to the question."""

from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY

from assistant.answer import quote_chunk
from assistant.calibrate import practice
from assistant.price import is_unpriced
from assistant.questions import locate, read_questions
from assistant.records import Chunk

CASES = yaml.safe_load((Path(__file__).parent / "fixtures" / "price.yaml").read_text("utf-8"))


def passage(text, *headings):
    return quote_chunk(Chunk("1", "guide.md", "指南", headings, 0, len(text), text))


SILENT = passage("打开钱包,拨打官方客服电话。Call support in the Topay wallet app.", "1. 电话联系")


@pytest.mark.parametrize("question", CASES["asks"])
def test_a_price_that_the_guide_does_not_name_is_never_answered(desk, question):
    assert is_unpriced(question, SILENT)
    answer = desk.ask(question)
    assert answer.verdict != "answered"
    assert answer.handoff


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("打客服电话要钱吗", "指南里最接近的段落没有提到费用："),
        ("is the support hotline free", "The closest passages of the guide name no price:"),
        ("is there a fee for email support", "The closest passages of the guide name no price:"),
    ],
)
def test_it_says_that_no_price_is_named(desk, question, words):
    answer = desk.ask(question)
    assert (answer.verdict, answer.message) == ("uncertain", words)
    assert answer.quotes


@pytest.mark.parametrize("question", CASES["other"])
def test_who_only_speaks_of_money_asks_for_no_price(question):
    assert not is_unpriced(question, SILENT)


@pytest.mark.parametrize(
    "text",
    [
        "每分钟0.1元。",
        "通话由运营商收取费用。",
        "全程免费。",
        "A call costs 5 cents.",
        "It is free.",
    ],
)
def test_a_passage_that_names_a_price_may_answer(text):
    assert not is_unpriced("打客服电话要钱吗", passage(text))
    assert not is_unpriced("is it free to call?", passage(text))
    assert not is_unpriced("打客服电话要钱吗", passage("每月十。", "收费标准"))


def test_no_question_that_a_guide_is_known_to_answer_is_struck(desk):
    """Those labelled for the shipped guide, and those of the practice guides."""
    chunks = list(desk.index.chunks())
    files = sorted((REPOSITORY / "corpus" / "questions").glob("*.yaml"))
    labelled = locate([one for file in files for one in read_questions(file)], chunks)
    answered = [
        (one.question.ask, quote_chunk(chunks[row])) for one in labelled for row in one.rows
    ]
    for guide in practice():
        for heading, questions in guide.questions.items():
            answered += [(one, passage(guide.sections[heading], heading)) for one in questions]
    assert len(answered) > 600
    assert [question for question, quote in answered if is_unpriced(question, quote)] == []
