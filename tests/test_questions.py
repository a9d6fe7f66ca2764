"""Labelled questions cover the guide, and no question serves two purposes."""

import re
from collections import Counter
from pathlib import Path

import pytest

from assistant.errors import BadInput
from assistant.fold import fold
from assistant.load import load_corpus
from assistant.questions import (
    asked_anywhere,
    fit_questions,
    held_out,
    locate,
    out_of_guide,
    practice_guides,
    read_questions,
)
from assistant.settings import Settings
from assistant.split import chunks

REPOSITORY = Path(__file__).parent.parent
CORPUS = REPOSITORY / "corpus"
KINDS = {"plain", "colloquial", "synonym", "inference", "traditional", "typo", "pinyin", "english"}
SILENT = {"silent", "offtopic", "chitchat", "nonsense", "injection"}


def bare(texts):
    return {re.sub(r"[\W_]+", "", fold(text)) or text for text in texts}


@pytest.fixture(scope="module")
def corpus():
    return load_corpus(CORPUS, Settings())


@pytest.mark.parametrize(
    "questions", [fit_questions(CORPUS), held_out(CORPUS)], ids=["fit", "test"]
)
def test_each_part_covers_every_passage_and_kind(questions, corpus):
    passages = [chunk for document in corpus.documents for chunk in chunks(document, 400)]
    located = locate(questions, passages)
    assert {row for one in located for row in one.rows} == set(range(len(passages)))
    answerable = Counter(q.kind for q in questions if q.passages)
    assert sum(answerable.values()) >= 200
    assert set(answerable) >= KINDS
    silent = Counter(q.kind for q in questions if not q.passages)
    assert sum(silent.values()) >= 120
    assert set(silent) >= SILENT


def test_no_question_serves_two_purposes(corpus):
    sets = {
        "fit": bare(q.ask for q in fit_questions(CORPUS)),
        "test": bare(q.ask for q in held_out(CORPUS)),
        "variants": bare(q for one in corpus.variants for q in one.questions),
    }
    bank = bare([*out_of_guide(), *asked_anywhere()])
    assert not sets["fit"] & sets["test"]
    assert not sets["variants"] & (sets["fit"] | sets["test"])
    assert not bank & (sets["fit"] | sets["test"])
    practised = bare(q for g in practice_guides() for qs in g.questions.values() for q in qs)
    practised |= bare(q for g in practice_guides() for q in g.silent)
    assert not practised & sets["test"]


def test_the_library_guide_is_never_practised_on():
    questions = bare(
        q.ask for q in read_questions(REPOSITORY / "tests/fixtures/library/questions.yaml")
    )
    practised = bare(q for g in practice_guides() for qs in g.questions.values() for q in qs)
    assert not questions & (practised | bare([*out_of_guide(), *asked_anywhere()]))


def test_a_practice_guide_is_a_document_with_every_section():
    for guide in practice_guides():
        document = guide.document()
        passages = chunks(document, 4000)
        assert [c.headings[-1] for c in passages] == [h for h, t in guide.sections.items() if t]
        for passage in passages:
            assert guide.sections[passage.headings[-1]].strip() == passage.text.strip()


def test_a_reference_to_nowhere_is_named(corpus):
    passages = [chunk for document in corpus.documents for chunk in chunks(document, 400)]
    question = fit_questions(CORPUS)[0]
    wrong = type(question)("哪里", ("topay-contact-guide.md#没有这一节",))
    with pytest.raises(BadInput, match="没有这一节"):
        locate([wrong], passages)


def test_a_corpus_without_labelled_questions_says_how_to_give_some(tmp_path):
    with pytest.raises(BadInput, match="--questions"):
        held_out(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- just text", r"bad\.yaml, entry 1 is 'just text'; expected a YAML list of \{ask"),
        ("- {ask: a}\n- {question: b}", r"bad\.yaml, entry 2 has 'question', which is no key"),
        ("- {ask: a}\n- {passage: b}", r"bad\.yaml, entry 2: 'ask' is missing"),
        ("- {ask: a, passage: {b: c}}", r"bad\.yaml, entry 1: 'passage' is \{'b': 'c'\}"),
        ("ask: a", r"bad\.yaml holds \{'ask': 'a'\}; expected a YAML list"),
        ("- {ask: a", r"cannot read questions from .*bad\.yaml"),
    ],
)
def test_a_wrong_entry_is_named_with_its_file_and_what_was_expected(tmp_path, text, words):
    (tmp_path / "bad.yaml").write_text(text, "utf-8")
    with pytest.raises(BadInput, match=words):
        read_questions(tmp_path / "bad.yaml")


def test_a_renamed_heading_is_named_where_it_was_used_with_those_like_it(tmp_path, corpus):
    text = "- {ask: a}\n- {ask: b, passage: 'topay-contact-guide.md#2. 找回登录密码'}\n"
    (tmp_path / "fit.yaml").write_text(text, "utf-8")
    passages = [chunk for document in corpus.documents for chunk in chunks(document, 400)]
    named = r"fit\.yaml, entry 2: '.*#2\. 找回登录密码' names no.*#2\. 密码找回'"
    with pytest.raises(BadInput, match=named):
        locate(read_questions(tmp_path / "fit.yaml"), passages)
