"""The input boundary: total, idempotent, and silent about secrets."""

import sys
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant.errors import BadInput
from assistant.screen import clean, mask_secrets, screen_question

ANY = st.text(st.characters(codec=None, categories=None), max_size=200)


def test_every_code_point_is_cleaned_to_something_utf8_can_hold():
    """All 1,114,112 code points, surrogates included, in blocks: no error, no invisible left."""
    for begin in range(0, sys.maxunicode + 1, 4096):
        cleaned = clean("".join(map(chr, range(begin, begin + 4096))))
        cleaned.encode("utf-8")
        bad = {c for c in cleaned if unicodedata.category(c) in {"Cc", "Cf", "Cs"}}
        assert bad <= {"\n", "\t", "\u200c", "\u200d"}


@given(ANY)
def test_cleaning_twice_changes_nothing_more(text):
    assert clean(clean(text)) == clean(text)


@given(st.text(max_size=100))
def test_composed_and_decomposed_text_are_one(text):
    assert clean(unicodedata.normalize("NFD", text)) == clean(unicodedata.normalize("NFC", text))


@pytest.mark.parametrize(
    ("dirty", "expected"),
    [
        ("a\u200bb", "a b"),
        ("钱\U000e0041\U000e007f包", "钱包"),
        ("\ufeff充值\u202e失败\u2066", "充值失败"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("\x00\x1b[31m红", "[31m红"),
        ("\ud800余额", "余额"),
        ("👨‍👩‍👧", "👨‍👩‍👧"),
        ("e" + "\u0301" * 10_000, "é" + "\u0301" * 7),
    ],
)
def test_what_a_reader_cannot_see_is_dropped(dirty, expected):
    assert clean(dirty) == expected


@pytest.mark.parametrize("text", ["", " \n", "???", "😀😀", "\u200b\u200d", "...!", "\u0301"])
def test_a_question_without_words_is_politely_refused(text):
    with pytest.raises(BadInput, match="describe your problem"):
        screen_question(text, 100)


def test_an_overlong_question_is_refused_with_both_lengths():
    with pytest.raises(BadInput, match=r"3500000.*at most 2,?000"):
        screen_question("钱" * 3_500_000, 2000)


SECRETS = [
    ("卡号 6222 0212 3456 7890 128 扣款", "card", "0212"),
    ("4111-1111-1111-1111", "card", "1111"),
    ("我手机13812345678收不到", "mobile", "13812345678"),
    ("+86 138 1234 5678", "mobile", "1234"),
    ("身份证11010519491231002X", "id_card", "19491231"),
    ("mail me at li.lei+pay@example.com.cn", "email", "li.lei"),
    ("验证码是 482913", "code", "482913"),
    ("验证码：9981 填了没用", "code", "9981"),
    ("my code is 482913", "code", "482913"),
    ("密码是Abc123!x", "password", "Abc123"),
    ("my password is hunter22", "password", "hunter22"),
    (
        "legal winner thank year wave sausage worth useful legal winner thank yellow",
        "seed_phrase",
        "sausage",
    ),
    ("的 一 是 在 不 了 有 和 人 这 中 大", "seed_phrase", "有 和"),
]


@pytest.mark.parametrize(("text", "kind", "secret"), SECRETS)
def test_a_secret_is_masked_and_named(text, kind, secret):
    masked, kinds = mask_secrets(text)
    assert kind in kinds
    assert secret not in masked


@pytest.mark.parametrize(
    "text",
    [
        "密码找回的步骤",
        "忘记密码怎么办",
        "充了500块没到账",
        "2025-10-15 14:36 转账1200.50元",
        "订单号 20251015123456",
        "4111111111111112",
        "验证码收不到",
        "how do i reset the password for my wallet when it does not work at all today",
        "客服热线400-123-4567是官方的吗",
    ],
)
def test_ordinary_words_and_numbers_are_left_alone(text):
    assert mask_secrets(text) == (text, ())


@given(ANY)
def test_masking_is_total(text):
    masked, kinds = mask_secrets(clean(text))
    assert bool(kinds) or masked == clean(text)


@pytest.mark.parametrize(
    "pump",
    [
        "1",
        "1 ",
        "1-",
        "a",
        "abcd ",
        "a@",
        "a.",
        "密码是",
        "验证码 ",
        "钱 ",
        "[",
        "\u0301",
        "e\u0301",
    ],
)
def test_time_grows_no_faster_than_the_text(pump):
    """Eight times the text takes well under sixty-four times as long: nothing is quadratic."""

    def seconds(count):
        text = pump * count
        rounds = []
        for _ in range(3):
            begin = time.perf_counter()
            mask_secrets(clean(text))
            rounds.append(time.perf_counter() - begin)
        return min(rounds)

    assert seconds(40_000) < 30 * max(seconds(5_000), 1e-4)
