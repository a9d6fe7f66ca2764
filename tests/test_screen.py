"""The input boundary: total, idempotent, and silent about secrets."""

import sys
import time
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from assistant.errors import BadInput
from assistant.screen import clean, hidden, mask_secrets, screen_question, unmasked

ANY = st.text(st.characters(codec=None, categories=None), max_size=200)
ODD_PIECES = (
    "a é e 钱 \u0301 \u0323 \u0344 \u0958 \u05b0 \u034f \u200d \u200c \ufe0f \U000e0100 \u1160 "
    "\u3164 \u2065 \U000e0041 \r \r\n \n \x00 \u200b \ud800 👩 ｶ\uff9e \u1100\u1161 \u0f73"
)
ODD = st.lists(st.sampled_from(ODD_PIECES.split(" ")), max_size=80).map("".join)
# Unicode 15.1, DerivedCoreProperties.txt: Default_Ignorable_Code_Point.
IGNORABLE = [
    (0xAD, 0xAD),
    (0x34F, 0x34F),
    (0x61C, 0x61C),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFF8),
    (0x13430, 0x1343F),  # hieroglyph format controls: Cf since Unicode 15
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
]
# Visible although they are format characters: Arabic and Syriac number signs, and the like.
VISIBLE_FORMATS = {
    *range(0x600, 0x606),
    0x6DD,
    0x70F,
    0x890,
    0x891,
    0x8E2,
    0x110BD,
    0x110CD,
}
JOINERS = {0x200C, 0x200D}
SELECTORS = {*range(0x180B, 0x180E), 0x180F, *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}


# --- Cleaning -----------------------------------------------------------------------------------


def test_every_code_point_is_cleaned_to_something_utf8_can_hold():
    """All 1,114,112 code points, surrogates included, in blocks: no error, no invisible left."""
    for begin in range(0, sys.maxunicode + 1, 4096):
        cleaned = clean("".join(map(chr, range(begin, begin + 4096))))
        cleaned.encode("utf-8")
        bad = {ord(c) for c in cleaned if unicodedata.category(c) in {"Cc", "Cf", "Cs"}}
        assert bad <= {10, 9} | JOINERS | VISIBLE_FORMATS


def test_every_code_point_alone_is_kept_dropped_or_a_space_as_unicode_says():
    """Between two letters, each code point that a reader cannot see leaves nothing behind."""
    ignorable = {code for first, last in IGNORABLE for code in range(first, last + 1)}
    # Of the planes that hold nothing, or private characters alone, every hundredth.
    empty = (*range(0x32000, 0xE0000, 101), *range(0xE2000, sys.maxunicode - 1, 101))
    for code in (*range(0x32000), *range(0xE0000, 0xE2000), *empty, 0x10FFFE, 0x10FFFF):
        character = chr(code)
        left = clean(f"a{character}b")[1:-1] if code != 0x0D else "\n"
        category = unicodedata.category(character)
        if code in JOINERS | SELECTORS | VISIBLE_FORMATS or character in "\n\t\r":
            assert left == character.replace("\r", "\n")
        elif character in "\u200b\u2028\u2029\x0b\x0c\x85":
            assert left == " "
        elif (
            code in ignorable
            or category in {"Cc", "Cf", "Cs"}
            or code & 0xFFFE == 0xFFFE
            or 0xFDD0 <= code <= 0xFDEF
        ):
            assert left == "", hex(code)
        else:
            assert clean(f"a{character}b") == unicodedata.normalize("NFC", f"a{character}b")
        assert hidden(f"a{character}b") == [character] * (clean(f"a{character}b") == "ab")


@given(ANY | ODD)
@example("a" + "\u0344" * 40)
@example("a\u0301" + "\u0f73" * 60)
def test_cleaning_twice_changes_nothing_more(text):
    assert clean(clean(text)) == clean(text)


@given(st.text(max_size=100) | ODD.filter(lambda t: not any("\ud800" <= c < "\ue000" for c in t)))
@example("e" + "\u0301" * 31)
@example("e" + "\u0323\u0301" * 40)
@example("ệ" + "\u0301\u0323" * 29)
def test_composed_and_decomposed_text_are_one(text):
    assert clean(unicodedata.normalize("NFD", text)) == clean(unicodedata.normalize("NFC", text))


@pytest.mark.parametrize(
    ("dirty", "expected"),
    [
        ("a\u200bb", "a b"),
        ("钱\U000e0041\U000e007f包", "钱包"),
        ("钱\U000e0002包", "钱包"),
        ("\ufeff充值\u202e失败\u2066", "充值失败"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("\x00\x1b[31m红", "[31m红"),
        ("\ud800余额", "余额"),
        ("👨‍👩‍👧", "👨‍👩‍👧"),
        ("❤️", "❤️"),
        ("葛\U000e0100", "葛\U000e0100"),
        ("❤" + "".join(chr(0xE0100 + byte) for byte in b"call +1"), "❤\U000e0163"),
        ("e" + "\u0301" * 10_000, "é" + "\u0301" * 29),
        ("a" + "\u200d" * 10_000 + "b", "a" + "\u200d" * 30 + "b"),
        ("क्षत्रिय", "क्षत्रिय"),
    ],
)
def test_what_a_reader_cannot_see_is_dropped(dirty, expected):
    assert clean(dirty) == expected


def test_rows_of_variation_selectors_are_hidden_text_but_for_the_first():
    assert hidden("❤\ufe0f葛\U000e0100") == []
    assert hidden("❤\ufe0f\ufe0e\U000e0101") == ["\ufe0e", "\U000e0101"]


# --- Questions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "???",
        "😀😀",
        "\u200b\u200d",
        "...!",
        "\u0301",
        "\u3164\uffa0",
        "\ue000",
        "\ud800",
    ],
)
def test_a_question_without_words_is_politely_refused(text):
    with pytest.raises(BadInput, match="describe your problem"):
        screen_question(text, 100)


def test_an_overlong_question_is_refused_with_both_lengths():
    with pytest.raises(BadInput, match=r"3500000.*at most 2,?000"):
        screen_question("钱" * 3_500_000, 2000)


@given(ANY | ODD)
def test_a_question_is_clean_text_with_words_or_bad_input(text):
    try:
        asked = screen_question(text, 150)
    except BadInput:
        assert len(text) > 150 or not any(c.isalnum() for c in clean(text))
    else:
        assert asked == clean(asked).strip()
        assert any(c.isalnum() for c in asked)


# --- Secrets ------------------------------------------------------------------------------------

PHRASE = "legal winner thank year wave sausage worth useful legal winner thank yellow"
SECRETS = [
    ("卡号 6222 0212 3456 7890 128 扣款", "card", "0212"),
    ("4111-1111-1111-1111", "card", "1111"),
    ("2025-10-15 4111 1111 1111 1111 12 扣款", "card", "4111"),
    ("卡４１１１１１１１１１１１１１１１", "card", "１１"),
    ("我卡号6222021234567890123,充值没成功", "card", "62220212"),  # of a wrong checksum
    ("银行卡 6217001234567890", "card", "6217"),
    ("card number 4111 1111 1111 1112 exp 12/27", "card", "1112"),
    ("card no. is 4111-1111-1111-1112", "card", "1112"),
    ("身份证号110101199003071234", "id_card", "19900307"),
    ("id card 110101 19900307 1234", "id_card", "19900307"),
    ("cvv 123", "card_code", "123"),
    ("安全码是 482", "card_code", "482"),
    ("IBAN DE89370400440532013000", "iban", "3704"),
    ("DE89 3704 0044 0532 0130 00", "iban", "0532"),
    ("api key sk-abcdef0123456789abcdef", "access_key", "abcdef"),
    ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-def", "access_key", "eyJ"),
    ("我手机13812345678收不到", "mobile", "13812345678"),
    ("+86 138 1234 5678", "mobile", "1234"),
    ("8613812345678", "mobile", "138"),
    ("手机13812345678 10月15日充的", "mobile", "5678"),
    ("电话１３８－１２３４－５６７８", "mobile", "１２３４"),
    ("身份证11010519491231002X", "id_card", "19491231"),
    ("身份证 110105 19491231 002x", "id_card", "19491231"),
    ("mail me at li.lei+pay@example.com.cn", "email", "li.lei"),
    ("邮箱lilei＠example.com", "email", "lilei"),
    ("验证码是 482913", "code", "482913"),
    ("验证码：9981 填了没用", "code", "9981"),
    ("验证码482913收到了", "code", "482913"),
    ("我收到的验证码就是 482 913", "code", "913"),
    ("482913是我的验证码", "code", "482913"),
    ("my code is 482913", "code", "482913"),
    ("code 482913", "code", "482913"),
    ("OTP: 482913", "code", "482913"),
    ("G-482913 is your verification code", "code", "482913"),
    ("验证码是A3F9K2", "code", "A3F9K2"),
    ("密码是Abc123!x", "password", "Abc123"),
    ("密码是 abc123，登不上", "password", "abc123"),
    ("我的密码123456登不上", "password", "123456"),
    ("支付密码：８８６６２２", "password", "８８"),
    ("my password is hunter22", "password", "hunter22"),
    ("my password is swordfish", "password", "swordfish"),
    ("password: 'correct-horse'", "password", "horse"),
    ("my pin 4821 was stolen", "password", "4821"),
    ("私钥是 5KJvsngHeMpm884wtkJNzQGaCErckhHJBGFsvd3VyK5qMZXj3hS", "private_key", "5KJvs"),
    (PHRASE, "seed_phrase", "sausage"),
    (f"{PHRASE} {PHRASE}", "seed_phrase", "winner"),  # twenty-four
    (PHRASE.title(), "seed_phrase", "Sausage"),
    (PHRASE.replace(" ", "\n"), "seed_phrase", "sausage"),
    (f"my seed phrase is {PHRASE} please help", "seed_phrase", "yellow"),
    (PHRASE.replace("sausage", "sausgae"), "seed_phrase", "winner"),
    (
        " ".join(f"{i}. {word}" for i, word in enumerate(PHRASE.split(), 1)),
        "seed_phrase",
        "sausage",
    ),
    (
        "recovery words: dusted pirate wobbly syrup towel nozzle gopher ribcage lunar mural "
        "batch elope",
        "seed_phrase",
        "nozzle",
    ),
    ("的 一 是 在 不 了 有 和 人 这 中 大", "seed_phrase", "有 和"),
    ("助记词：的，一，是，在，不，了，有，和，人，这，中，大", "seed_phrase", "有，和"),
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
        "my password is wrong",
        "my password is not working",
        "password: forgotten",
        "the password is incorrect, please help",
        "密码是什么",
        "密码要几位数",
        "密码2025年改过一次",
        "充了500块没到账",
        "2025-10-15 14:36 转账1200.50元",
        "验证码 2025-10-15 没收到",
        "验证码等了30分钟",
        "验证码收不到，充值1000元",
        "验证码1200元",
        "error code 5001",
        "错误代码 50012",
        "zip code: 518000",
        "订单号 20251015123456",
        "订单号 2025101512345676",
        "时间戳 1697001234567",
        "4111111111111112",
        "卡号尾号8899绑定不了",
        "ticket id: 20251012345678901",
        "DE88370400440532013000",
        "tel:+14255550200",
        "验证码收不到",
        "how do i reset the password for my wallet when it does not work at all today",
        "topup failed money missing wallet balance wrong card bank transfer pending help support",
        "客服热线400-123-4567是官方的吗",
        "冻结账户 解冻 账户 密码 找回 客服 电话 邮箱 充值 提现 到账 时间",
    ],
)
def test_ordinary_words_and_numbers_are_left_alone(text):
    assert mask_secrets(text) == (text, ())


@given(st.lists(st.sampled_from([text for text, _, _ in SECRETS]), min_size=1, max_size=4), ANY)
def test_every_secret_of_several_is_masked_and_masks_hold_none(secrets, around):
    secrets = [s for s in secrets if "seed" not in s]
    text = "\n。".join([*secrets, around])
    masked, _ = mask_secrets(text)
    assert not any(secret in masked for t, _, secret in SECRETS if t in secrets)
    assert mask_secrets(masked)[0] == masked


def test_masks_are_words_of_the_text_s_language():
    assert mask_secrets("my card 4111111111111111")[0] == "my card [card number]"
    assert mask_secrets("卡4111111111111111")[0] == "卡[卡号]"
    assert unmasked("my card [card number]").strip() == unmasked("my card [卡号]").strip()


@given(ANY)
def test_masking_is_total(text):
    masked, kinds = mask_secrets(text)
    assert bool(kinds) or masked == text


@given(st.dates(), st.times(), st.decimals(0, 99999, places=2), st.sampled_from("元块¥$"))
def test_dates_times_and_amounts_are_never_masked(day, time_of_day, amount, unit):
    text = f"{day} {time_of_day:%H:%M:%S}充值{amount}{unit}，{day:%Y年%m月%d日}还没到账"
    assert mask_secrets(text) == (text, ())


# --- Time ---------------------------------------------------------------------------------------

PUMPS = (
    "1|1 |1-|12 |1234 |138|+86|a|abcd |abandon |a@|a.|@|密码是|密码|验证码 |验证码是|code |code: |"
    "is |钱 |[|\u0301|e\u0301|\u0344|\u05b0\u05bc|\u200d|\ufe0f|👩|\n|\r|-|_|'|a\n|4111 |seed a |"
    "私钥|是|：|.|DE89|DE89 3704 |eyJaaaaaaaa.|eyJ|sk-|卡号1|card |身份证|cvv"
).split("|")


@pytest.mark.parametrize("pump", PUMPS)
def test_time_grows_no_faster_than_the_text(pump):
    """Eight times the text takes well under sixty-four times as long: nothing is quadratic."""

    def seconds(count):
        text = pump * count + "x"
        rounds = []
        for _ in range(3):
            begin = time.thread_time()  # the machine may be busy with other things
            mask_secrets(clean(text))
            rounds.append(time.thread_time() - begin)
        return min(rounds)

    assert seconds(16_000) < 30 * max(seconds(2_000), 1e-4)
