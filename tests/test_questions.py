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
    (tmp_path / "bad.yaml").write_text("- just text\n", "utf-8")
    with pytest.raises(BadInput, match="YAML list"):
        read_questions(tmp_path / "bad.yaml")
