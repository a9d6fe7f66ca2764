"""The handoff: at once, whatever is broken, with the guide's words and the operator's list only."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime

import orjson
import pytest
import yaml
from conftest import REPOSITORY
from selectolax.lexbor import LexborHTMLParser

from assistant.answer import language_of, message_for
from assistant.build import build
from assistant.cli import main
from assistant.contacts import Contacts, OperatorChannel, OperatorItem, read_contacts
from assistant.desk import Desk
from assistant.errors import BadInput
from assistant.handoff import (
    Case,
    choices,
    hand_off,
    hand_off_without_index,
    lead,
    section_of,
    ticket_text,
    write_ticket,
)
from assistant.questions import fit_questions
from assistant.records import Reason
from assistant.settings import Settings
from assistant.terminal import answer_text
from assistant.triage import TriageKind, small_talk_reply, triage
from assistant.web.render import answer_html
from assistant.web.wording import WORDS

HELD_OUT = yaml.safe_load((REPOSITORY / "tests/fixtures/triage.yaml").read_text("utf-8"))
FAMILIES = yaml.safe_load((REPOSITORY / "scripts/training_data/triage.yaml").read_text("utf-8"))
DISTRESS = [
    text
    for text in HELD_OUT["urgent"] + FAMILIES["urgent_written"]
    if (found := triage(text)) and found.kind == "urgent_account_security"
]
REASONS = Reason.__args__
COINS_ZH = ("这个币", "比特币", "这个代币", "以太坊", "这个项目", "这个空投")
COINS_EN = ("this token", "bitcoin", "this coin", "the ICO", "this airdrop", "staking")
VOUCH = [
    *HELD_OUT["vouch"],
    *(
        f"{coin}{ask}"
        for coin in COINS_ZH
        for ask in ("能赚吗", "会涨吗", "靠谱吗", "稳赚吗", "值得买吗", "安全吗", "保本吗")
    ),
    *(
        f"is {coin} {ask}"
        for coin in COINS_EN
        for ask in ("safe to invest in", "profitable", "legit", "worth it", "risk free")
    ),
]


class BrokenEncoder:
    """Have the shipped encoder's name and dimensions, and fail whenever it is used."""

    def __init__(self, encoder):
        self.name = encoder.name
        self.fingerprint = encoder.fingerprint
        self.dimensions = encoder.dimensions

    def encode_queries(self, texts):
        raise RuntimeError("the model is broken")

    encode_passages = encode_queries


@pytest.fixture(scope="module")
def broken(guide, encoder):
    return Desk(guide, BrokenEncoder(encoder))


@pytest.fixture
def operator(tmp_path):
    """Write a list with addresses and hours."""
    text = (REPOSITORY / "corpus/contacts.toml").read_text("utf-8")
    text = text.replace('hours = ""', 'hours = "Mon-Fri 09:00-18:00"', 2)
    for contact in ("https://chat.example", "400-820-8820", "help@topay.example"):
        text = text.replace('contact = ""', f'contact = "{contact}"', 1)
    (tmp_path / "contacts.toml").write_text(text, "utf-8")
    return read_contacts(tmp_path)


def check_urgent(answer):
    assert answer.handoff.reason == "urgent_account_security"
    assert re.match("这很紧急|This is urgent", answer.message)
    assert re.match("在线客服|Online chat", answer.handoff.channels[0].name)
    assert len(answer.handoff.channels) == 3
    assert len(answer.handoff.checklist) == 3


# --- Distress -------------------------------------------------------------------------------------


def test_there_are_enough_distress_phrases():
    assert len(DISTRESS) >= 130


def test_the_guides_own_steps_come_first(desk):
    for question in DISTRESS[::4]:
        answer = desk.ask(question)
        check_urgent(answer)
        assert answer.quotes[0].headings[-1] == "3. 账户安全问题"
        assert answer.verdict == "uncertain"
        assert answer.handoff.channels[0].quote.headings[-1] == "2. 在线客服"


def test_with_the_model_broken_the_card_still_comes(broken):
    for question in DISTRESS:
        answer = broken.ask(question)
        check_urgent(answer)
        assert answer.quotes[0].headings[-1] == "3. 账户安全问题"
    with pytest.raises(RuntimeError):
        broken.ask("充值没到账怎么办")


def test_without_an_index_the_card_still_comes():
    contacts = read_contacts(REPOSITORY / "corpus")
    for question in DISTRESS:
        answer = hand_off_without_index(question, contacts, 2000)
        check_urgent(answer)
        assert answer.quotes == ()
        orjson.dumps(answer)
    assert hand_off_without_index("转人工", contacts, 2000).handoff.reason == "asked_for_human"
    assert hand_off_without_index("你好", contacts, 2000).handoff is None
    assert hand_off_without_index("充值没到账怎么办", contacts, 2000) is None
    assert hand_off_without_index("我的号被盗了", Contacts(), 2000).handoff.channels == ()
    with pytest.raises(BadInput):
        hand_off_without_index("???", contacts, 2000)


def test_the_command_line_shows_the_card_when_no_index_opens(tmp_path, capsys):
    index = tmp_path / "index"
    (index / "generations" / "000001-00000000").mkdir(parents=True)
    (index / "CURRENT").write_text("damaged", "utf-8")
    places = ["--corpus", str(REPOSITORY / "corpus"), "--index", str(index)]
    assert main(["ask", "我的账号被盗了", "--json", *places]) == 3
    answer = json.loads(capsys.readouterr().out)
    assert answer["handoff"]["reason"] == "urgent_account_security"
    assert len(answer["handoff"]["channels"]) == 3
    assert main(["ask", "充值没到账怎么办", *places]) == 3
    assert capsys.readouterr().out == ""


def test_with_the_index_gone_while_serving_all_goes_on(guide, encoder, tmp_path):
    import shutil

    folder = tmp_path / "index"
    shutil.copytree(guide.index, folder)
    desk = Desk(Settings(corpus=guide.corpus, index=folder), encoder)
    shutil.rmtree(folder)
    check_urgent(desk.ask("我的账号被盗了"))
    assert desk.ask("忘记密码怎么办").quotes


def test_a_wish_for_a_person_is_honoured_at_once(desk, broken):
    for one in (desk, broken):
        for question in ("转人工", "I want a real person"):
            assert one.ask(question).handoff.reason == "asked_for_human"
    assert desk.hand_off("充值没到账").handoff.reason == "asked_for_human"


# --- Contacts, coins, several meanings -----------------------------------------------------------


def test_a_contact_is_not_confirmed_and_the_guide_says_where_to_look(desk):
    for question in ("400-123-4567是官方电话吗", "这个网站是真的吗", "is this site yours?"):
        answer = desk.ask(question)
        assert answer.handoff.reason == "contact_check"
        assert re.search("无法确认|cannot confirm", answer.message)
        assert answer.quotes[0].headings[-1] == "1. 电话联系"


def test_a_contact_given_as_a_mobile_or_an_address_is_checked_and_masked(desk):
    answer = desk.ask("13912345678 说他是客服 a@b.example 是你们的吗")
    assert answer.handoff.reason == "contact_check"
    written = orjson.dumps(answer).decode()
    assert "13912345678" not in written
    assert "a@b.example" not in written


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("客服让我提供密码，要给吗", "不要给。客服不会向您要密码"),
        ("should I tell the agent my otp", "Do not give it. Support never asks for a password"),
    ],
)
def test_who_is_asked_for_a_secret_is_told_not_to_give_it(desk, broken, question, said):
    for each in (desk, broken):
        answer = each.ask(question)
        assert answer.verdict != "answered"
        assert answer.message.startswith(said)
        assert answer.handoff.reason == "contact_check"
    assert hand_off_without_index(question, Contacts(), 100).message.startswith(said)


@pytest.mark.parametrize("question", ["客服电话打不通", "nobody answers the phone"])
def test_who_reached_nobody_is_shown_the_other_ways(desk, question):
    answer = desk.ask(question)
    assert answer.verdict != "answered"
    assert re.match("联系不上时|Where one way does not answer", answer.message)
    assert len(answer.handoff.channels) == 3


def test_a_guide_without_steps_is_not_said_to_have_them(encoder, tmp_path):
    """Nor is a passage that most likely answers nothing shown beside an urgent word."""
    (tmp_path / "corpus").mkdir()
    guide = "# Library\n\n## Renewals\n\nRenew twice.\n\n## Maps\n\nMaps stay in the room.\n"
    (tmp_path / "corpus" / "a.md").write_text(guide, "utf-8")
    settings = Settings(corpus=tmp_path / "corpus", index=tmp_path / "index")
    build(settings, encoder)
    desk = Desk(settings, encoder)
    for question, said in (
        ("我的账号被盗了，钱没了", "这很紧急。请马上打开官方应用或官网"),
        (
            "400-820-8820是官方客服吗",
            "我无法确认您说的来电、号码、链接或账号是官方的，请先不要照做。",
        ),
    ):
        answer = desk.ask(question)
        assert answer.message.startswith(said)
        assert "官方的联系方式这样找" not in answer.message
        assert answer.quotes == ()
        assert answer.verdict == "unanswered"


def test_no_coin_and_no_profit_is_ever_praised(desk):
    assert len(set(VOUCH)) >= 100
    praised = [text for text in VOUCH if desk.ask(text).verdict == "answered"]
    assert praised == []
    judged = [text for text in VOUCH if re.search("不能评价|cannot judge", desk.ask(text).message)]
    assert len(judged) >= 0.95 * len(VOUCH)
    answer = desk.ask("这个币能赚吗")
    assert (answer.quotes, answer.verdict) == ((), "unanswered")
    assert answer.handoff.reason == "out_of_guide"


def test_several_meanings_are_offered_as_the_guides_headings(desk):
    asked = ("忘记密码", "充值不成功", "交易纠纷")
    found = [desk.ask(question).quotes[0] for question in asked]
    quotes = tuple(replace(q, score=s) for q, s in zip(found, (0.8, 0.76, 0.7), strict=True))
    for language, question in (("zh", "打不开"), ("en", "it fails")):
        case = Case("ambiguous", question, language, quotes)
        handoff = hand_off(case, read_contacts(REPOSITORY / "corpus"), desk.index)
        assert choices(quotes) == ("密码找回", "充值不成功")
        assert all(heading in lead(case) for heading in choices(quotes))
        assert "交易纠纷" not in lead(case)
        assert handoff.reason == "ambiguous"
    assert lead(Case("ambiguous", "打不开", "zh", quotes[:1])) == ""


@pytest.mark.parametrize(
    ("heading", "name"),
    [
        ("4. 交易纠纷的处理", "交易纠纷的处理"),
        ("4.交易纠纷", "交易纠纷"),
        ("三、常见问题", "常见问题"),
        ("（二）退款", "退款"),
        ("(12) Refunds", "Refunds"),
        ("1、账户信息", "账户信息"),
        ("2) Fees", "Fees"),
        ("1.2. Limits", "Limits"),
        ("24 小时客服", "24 小时客服"),
        ("1.5倍手续费", "1.5倍手续费"),
        ("2026 fees", "2026 fees"),
        ("一次性验证码", "一次性验证码"),
        ("3.", "3."),
    ],
)
def test_a_section_is_named_without_the_number_of_its_place(desk, heading, name):
    quote = replace(desk.ask("忘记密码").quotes[0], headings=("Guide", heading))
    assert section_of(quote) == name


def test_a_wish_for_a_person_is_answered_once(desk):
    """The line above says that one can be reached, the other what helps."""
    for wish, reached in (
        ("转人工", "客服"),
        ("I want to talk to a human", "person"),
    ):
        answer = desk.ask(wish)
        assert f"{answer.message} {answer.handoff.message}".count(reached) == 1


def test_on_the_page_each_meaning_can_be_opened_under_its_heading_and_the_likeliest_is_open(desk):
    asked = ("忘记密码", "充值不成功", "交易纠纷")
    found = [desk.ask(question).quotes[0] for question in asked]
    quotes = tuple(replace(q, score=s) for q, s in zip(found, (0.8, 0.76, 0.7), strict=True))
    case = Case("ambiguous", "打不开", "zh", quotes)
    handoff = hand_off(case, read_contacts(REPOSITORY / "corpus"), desk.index)
    answer = replace(
        desk.ask("忘记密码"),
        quotes=quotes,
        verdict="uncertain",
        handoff=handoff,
        message=lead(case),
    )
    page = LexborHTMLParser(answer_html(answer))
    offered = page.css("details.choice")
    assert tuple(one.css_first("summary").text() for one in offered) == choices(quotes)
    assert ["open" in one.attributes for one in offered] == [True, False]
    shown = [one.css_first("blockquote").text() for one in offered]
    assert shown == [quote.text for quote in quotes[:2]]
    assert page.css_first("details.more blockquote").text() == quotes[2].text
    alone = replace(answer, quotes=quotes[:1], message="m")
    assert not LexborHTMLParser(answer_html(alone)).css("details.choice")


def test_the_choices_offered_are_the_two_or_three_passages_that_are_about_as_likely(desk):
    asked = (q.ask for q in fit_questions(REPOSITORY / "corpus"))
    handed = [(answer, answer.handoff) for answer in map(desk.ask, asked) if answer.handoff]
    several = [answer for answer, handoff in handed if handoff.reason == "ambiguous"]
    assert len(several) >= 10
    for answer in several:
        scores = [quote.score for quote in answer.quotes]
        likely = [section_of(q) for q in answer.quotes if q.score > scores[0] - 0.06]
        assert 2 <= len(likely) <= 3
        shown = re.split("：|: ", answer.message, maxsplit=1)[1]
        assert re.split("；|; ", shown) == list(dict.fromkeys(likely))


# --- Channels -------------------------------------------------------------------------------------

MONDAY_NOON = datetime(2025, 10, 13, 4, 0, tzinfo=UTC)  # 12:00 in the list's zone
SUNDAY = datetime(2025, 10, 12, 4, 0, tzinfo=UTC)


def names(case, operator, now):
    return [channel.name for channel in hand_off(case, operator, None, now).channels]


def test_business_hours_are_in_the_wording(operator):
    urgent = Case("urgent_account_security", "被盗了", "zh")
    assert names(urgent, operator, MONDAY_NOON) == [
        "在线客服（适合急事；现在有人接待，到 18:00）",
        "客服电话（现在有人接待，到 18:00）",
        "电子邮件（适合非工作时间或需要细说的事）",
    ]
    english = Case("urgent_account_security", "hacked", "en")
    assert names(english, operator, SUNDAY) == [
        "E-mail (for long questions or out of hours)",
        "Online chat (for urgent matters; closed now, opens Mon 09:00)",
        "Phone (closed now, opens Mon 09:00)",
    ]


def test_a_long_question_goes_by_mail_first(operator):
    long = Case("low_confidence", "我的问题很复杂。" * 40, "zh")
    assert names(long, operator, MONDAY_NOON)[0].startswith("电子邮件")


def test_addresses_are_those_of_the_list(operator):
    handoff = hand_off(Case("asked_for_human", "转人工", "zh"), operator, None, MONDAY_NOON)
    assert {c.contact for c in handoff.channels} == set(operator.addresses)


def test_a_channel_that_neither_guide_nor_operator_describes_says_where_to_look(desk):
    contacts = Contacts((OperatorChannel("灯塔", passage="a.md#b"), OperatorChannel("信")))
    for question, nowhere in (("转人工", "官方应用或官网"), ("a human", "official app or website")):
        asked = desk.hand_off(question)
        handoff = hand_off(
            Case("asked_for_human", question, language_of(question)), contacts, desk.index
        )
        assert [(c.name, c.contact) for c in handoff.channels] == [("灯塔", None), ("信", None)]
        answer = replace(asked, handoff=handoff)
        page = LexborHTMLParser(answer_html(answer)).css_first(".handoff").text()
        assert nowhere in page
        assert answer_text(answer).count(nowhere) == 2


@pytest.mark.parametrize("reason", REASONS)
def test_without_any_channel_the_message_says_so_and_promises_none(desk, reason):
    for language, said in (
        ("zh", "运营方还没有列出联系方式"),
        ("en", "The operator has listed no channel yet"),
    ):
        handoff = hand_off(Case(reason, "x", language), Contacts(), desk.index)
        assert handoff.channels == ()
        assert said in handoff.message
        assert not re.search("可以这样联系|this is how to reach", handoff.message, re.IGNORECASE)
        warns = re.search("密码|password", handoff.message)
        assert bool(warns) == (reason in ("urgent_account_security", "contact_check"))


@pytest.fixture
def served(guide, encoder):
    """A desk whose contacts.toml may be written."""
    path = guide.corpus / "contacts.toml"
    before = path.read_text("utf-8")
    yield Desk(guide, encoder), path
    path.write_text(before, "utf-8")


def test_a_changed_list_is_taken_up_and_a_bad_one_is_not(served):
    desk, path = served
    assert desk.ask("转人工").handoff.channels[0].contact is None
    text = path.read_text("utf-8")
    path.write_text(text.replace('contact = ""', 'contact = "https://chat.example"', 1), "utf-8")
    shown = {channel.contact for channel in desk.ask("转人工").handoff.channels}
    assert shown == {"https://chat.example", None}
    path.write_text("[[channel]]\nfone = 1", "utf-8")
    assert {channel.contact for channel in desk.ask("转人工").handoff.channels} == shown
    assert "'fone'" in desk.notes[-1]
    path.write_text(text, "utf-8")
    assert {channel.contact for channel in desk.ask("转人工").handoff.channels} == {None}
    assert desk.notes == ()


def test_the_desk_tells_the_time_by_its_clock(served):
    desk, path = served
    text = path.read_text("utf-8").replace('hours = ""', 'hours = "09:00-18:00"', 1)
    path.write_text(text, "utf-8")
    desk.clock = lambda: MONDAY_NOON
    assert "到 18:00" in desk.ask("我的账号被盗了").handoff.channels[0].name


# --- The ticket -----------------------------------------------------------------------------------

SECRETS = {
    "账户信息": "密码是abc12345，卡4111111111111111",
    "问题描述": "验证码 482913 已经给了他",
    "交易记录": "手机 13812345678，12月1日转出 500 元",
}


def test_a_ticket_holds_what_a_person_needs_and_no_secret(desk):
    answer = desk.ask("我的账号被盗了", ["我的卡4111111111111111充值失败"])
    ticket = write_ticket(answer, SECRETS, "我的卡4111111111111111充值失败")
    assert (ticket.reason, ticket.question) == ("urgent_account_security", "我的账号被盗了")
    assert ticket.generation == desk.generation
    assert ticket.quotes == answer.quotes
    assert [entry.item for entry in ticket.filled] == list(SECRETS)
    text = ticket_text(ticket)
    for written in (orjson.dumps(ticket).decode(), text, answer.handoff.ticket_draft):
        assert not re.search("4111|abc12345|482913|13812345678", written)
    assert "[卡号]充值失败" in text
    assert "500 元" in text
    first = answer.quotes[0]
    assert f"{first.path}:{first.start}-{first.end}, {first.similarity:.2f}" in text
    data = json.loads(orjson.dumps(ticket))
    assert list(data) == ["reason", "question", "previous", "quotes", "filled", "generation"]
    assert data["quotes"][0]["start"] == first.start


def test_the_draft_is_the_ticket_with_nothing_filled_in(desk):
    answer = desk.ask("转人工", ["充值失败"])
    assert answer.handoff.ticket_draft == ticket_text(write_ticket(answer, {}, "充值失败"))
    assert "上一个问题: 充值失败" in answer.handoff.ticket_draft


def test_what_is_no_checklist_item_is_refused(desk):
    answer = desk.ask("转人工")
    with pytest.raises(BadInput, match=r"密码.*账户信息"):
        write_ticket(answer, {"密码": "x"})
    with pytest.raises(BadInput, match="2000"):
        write_ticket(answer, {"问题描述": "x" * 2001})
    with pytest.raises(BadInput, match="no handoff"):
        write_ticket(desk.ask("你好"), {})


# --- Words ----------------------------------------------------------------------------------------

SECRET = re.compile(
    r"密码|验证码|助记词|卡号|私钥|password|\bcode\b|\bpin\b|phrase|card number|private key", re.I
)
FORBIDS = re.compile(r"不要|不会|绝不|都不|[Nn]ever|do not|not give", re.I)


def sentences(text):
    return re.split(r"(?<=[。！？.!?;；\n])", text)


def every_text(operator, index):
    """Yield all that the desk and the page can say, in both languages."""
    for language, question in (("zh", "问"), ("en", "ask")):
        for reason in REASONS:
            for kind in (None, *TriageKind.__args__):
                for listed in (False, True):
                    case = Case(reason, question, language, kind=kind, listed=listed)
                    handoff = hand_off(case, operator, index, SUNDAY)
                    yield from (lead(case), handoff.message, handoff.ticket_draft)
                    yield from (channel.name for channel in handoff.channels)
                    yield from (entry.item for entry in handoff.checklist)
        yield from (
            message_for(verdict, language) for verdict in ("answered", "uncertain", "unanswered")
        )
        yield from (small_talk_reply(said, language) for said in ("你好", "谢谢", "bye", "ok"))
        yield from (words[language] for words in WORDS.values())


def test_nobody_is_ever_asked_for_a_secret(operator, desk):
    asked = [
        sentence
        for text in every_text(operator, desk.index)
        for sentence in sentences(text)
        if SECRET.search(sentence) and not FORBIDS.search(sentence)
    ]
    assert asked == []


def test_every_message_is_in_the_language_of_the_question(operator, desk):
    for text in every_text(operator, None):
        assert isinstance(text, str)
    for question in (
        "I was hacked",
        "human please",
        "is 400-123-4567 official?",
        "is this token safe to invest",
    ):
        answer = desk.ask(question)
        shown = (
            answer.message
            + answer.handoff.message
            + "".join(c.name for c in answer.handoff.channels)
        )
        assert not re.search(r"[\u4e00-\u9fff]", shown), question


def test_a_masked_secret_does_not_change_the_language_of_the_reply(desk):
    for question in (
        "is a@b.example yours?",
        "is 13812345678 your hotline?",
        "the code is 482913 and my card 4111111111111111 was declined",
        "a human please, mail me at a@b.example",
    ):
        answer = desk.ask(question)
        assert "[" in answer.question
        for shown in (answer.message, answer.handoff.message if answer.handoff else ""):
            assert not re.search(r"[\u4e00-\u9fff]", shown), question
    assert language_of(desk.ask("我的手机 13812345678 收不到").question) == "zh"


def test_an_item_may_be_named_in_one_language_only():
    contacts = Contacts(checklist=(OperatorItem("订单"),))
    assert hand_off(Case("asked_for_human", "human", "en"), contacts).checklist[0].item == "订单"
