"""Errors of sound are put right where the texts know the word, and nothing else is touched."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant.fold import fold
from assistant.sound import Sounds, count_pairs, merged, spelled

TYPOS = Path(__file__).parent.parent / "scripts/training_data/support/typos.jsonl.gz"


@pytest.fixture(scope="module")
def sounds(desk):
    index = desk.index
    return Sounds(
        count_pairs([fold(v.text) for row in range(len(index)) for v in index.views(row)])
    )


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("验正码收不到", "验证码收不到"),
        ("客服电华多少", "客服电话多少"),
        ("怎么连系客付", "怎么联系客服"),
        ("想把钱包动结起来", "想把钱包冻结起来"),
        ("chongzhi meidaozhang", "充值没到账"),
        ("kefu dianhua", "客服电话"),
    ],
)
def test_homophones_and_pinyin_are_read(sounds, typed, meant):
    assert sounds.correct(typed) == meant


def test_what_is_written_right_is_left_alone(sounds):
    with gzip.open(TYPOS, "rt", encoding="utf-8") as file:
        pairs = [json.loads(line) for line in file]
    assert [p["right"] for p in pairs if sounds.correct(fold(p["right"])) != fold(p["right"])] == []
    mended = sum(sounds.correct(fold(p["wrong"])) == fold(p["right"]) for p in pairs)
    assert mended >= 350  # of 1,264; the others are of words that the guide does not have


@pytest.mark.parametrize("text", ["how are you", "can he", "my 2fa code", "", "重置密码", "☃"])
def test_english_and_known_words_are_left_alone(sounds, text):
    assert sounds.correct(text) == text


def test_letters_that_are_words_of_the_index_are_left_alone(sounds):
    assert sounds.correct("kefu", lambda word: word == "kefu") == "kefu"


@given(st.text("一二三客服电话充值密码abc xyz", max_size=20))
def test_han_text_keeps_its_length_and_is_stable(sounds_of_three, text):
    once = sounds_of_three.correct(text)
    if not any("a" <= c <= "z" for c in text):
        assert len(once) == len(text)
    assert isinstance(once, str)


@pytest.fixture(scope="module")
def sounds_of_three():
    return Sounds(count_pairs(["客服电话", "充值密码"] * 6))


def test_syllables_and_accents_by_hand():
    assert spelled("chongzhi") == ("chong", "zhi")
    assert spelled("meidaozhang") == ("mei", "dao", "zhang")
    assert spelled("phone") == ()
    assert [merged(s) for s in ("zhang", "zan", "shi", "si")] == ["zan", "zan", "si", "si"]


@pytest.mark.parametrize("word", ["xianga" * 330 + "v", "a" * 2000, "ang" * 660 + "q"])
def test_a_long_word_is_read_in_one_pass(word):
    """Trying every split would never end."""
    assert (not spelled(word)) == (word[-1] in "vq")


@given(st.lists(st.sampled_from(["a", "ang", "xi", "xian", "ga", "n", "v"]), max_size=40))
def test_what_is_spelled_is_the_word_itself(parts):
    word = "".join(parts)
    assert "".join(spelled(word)) in ("", word)


@given(st.lists(st.text("电话充值a。\n", max_size=12), max_size=9))
def test_pairs_are_counted_by_the_texts_that_have_them(texts):
    counts = Counter()
    for text in texts:
        pairs = {text[at : at + 2] for at in range(len(text) - 1)}
        counts.update(pair for pair in pairs if all("\u3400" <= c <= "\u9fff" for c in pair))
    found = count_pairs(texts)
    assert found == dict(counts)
    assert list(found) == sorted(found, key=lambda pair: (-found[pair], pair))
