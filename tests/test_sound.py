"""Reading by sound: pinyin for words, homophones put right, nothing else touched."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant.fold import fold
from assistant.sound import Sounds, count_pairs, spelled

TEXTS = ["充值没有到账怎么办", "提现失败", "验证码收不到", "客服电话在哪里"] * 5
SOUNDS = Sounds(count_pairs(TEXTS))


@pytest.mark.parametrize(
    ("word", "syllables"),
    [
        ("chongzhi", ["chong", "zhi"]),
        ("tixian", ["ti", "xian"]),
        ("fangan", ["fang", "an"]),
        ("wallet", None),
        ("chongzhiv", None),
        ("", []),
    ],
)
def test_letters_spell_syllables_or_nothing(word, syllables):
    assert spelled(word) == syllables


@given(st.lists(st.sampled_from(["a", "ang", "xi", "xian", "ga", "n", "v"]), max_size=40))
def test_what_is_spelled_is_the_word_itself(parts):
    word = "".join(parts)
    syllables = spelled(word)
    assert syllables is None or "".join(syllables) == word


@pytest.mark.parametrize("word", ["xianga" * 330 + "v", "a" * 2000, "ang" * 660 + "q"])
def test_a_long_word_is_read_in_one_pass(word):
    """Trying every split would take longer than the universe has."""
    assert (spelled(word) is None) == (word[-1] in "vq")
    assert SOUNDS.correct(word)


@pytest.mark.parametrize(
    ("asked", "read"),
    [
        ("tixian", "提现"),
        ("提线失败", "提现失败"),
        ("验正码收不到", "验证码收不到"),
        ("充值没有到账", "充值没有到账"),
        ("客服电华", "客服电话"),
        ("my wallet", "my wallet"),
    ],
)
def test_errors_of_sound_are_put_right(asked, read):
    assert SOUNDS.correct(asked) == read


@given(st.sampled_from(TEXTS))
def test_the_guides_own_words_are_left_alone(text):
    assert SOUNDS.correct(fold(text)) == fold(text)


@given(st.text(max_size=60))
def test_any_folded_text_can_be_read(text):
    assert isinstance(SOUNDS.correct(fold(text)), str)


def test_a_question_in_pinyin_finds_the_passage(desk):
    hit = desk.index.search("chongzhi meidaozhang", 1).hits[0]
    assert hit.chunk.headings[-1] == "1. 充值不成功"
