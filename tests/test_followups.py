"""A short second turn is read with the one before it; a full question is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant.turns import RIGHT_TOGETHER, is_short, joined

LEANING = [
    ("怎么联系客服", "那邮件呢", "3. 电子邮件支持"),
    ("怎么联系在线客服", "那邮件呢", "3. 电子邮件支持"),
    ("客服电话怎么打", "那在线客服呢", "2. 在线客服"),
    ("how can I contact support", "and by phone?", "1. 电话联系"),
    ("How do I reach you?", "what about live chat?", "2. 在线客服"),
    ("充值失败怎么办", "最少要多少呢", "1. 充值不成功"),
    ("忘记密码怎么办", "验证码没来呢", "2. 密码找回"),
    ("和商家有纠纷怎么处理", "要什么证据", "4. 交易纠纷的处理"),
    ("客服几点上班", "那周末呢", "1. 客服工作时间"),
]
FULL = [
    ("充值失败怎么办", "忘记登录密码怎么办", "2. 密码找回"),
    ("你们几点上班", "充值没到账怎么办", "1. 充值不成功"),
    ("How do I reset my password?", "Is there live chat?", "2. 在线客服"),
    ("商家不退款", "客服电话是多少", "1. 电话联系"),
    ("今天天气怎么样", "怎么冻结账户", "3. 账户安全问题"),
]


@pytest.mark.parametrize(("before", "asked", "heading"), LEANING)
def test_a_leaning_question_finds_the_passage_it_means(desk, before, asked, heading):
    answer = desk.ask(asked, [before])
    assert answer.quotes[0].headings[-1] == heading
    assert answer.question == asked


def test_a_follow_up_is_never_as_sure_as_a_question_that_stands_alone(desk):
    """Even where both turns name a passage word for word."""
    answer = desk.ask("那邮件呢", ["怎么联系在线客服"])
    assert answer.confidence <= RIGHT_TOGETHER
    assert answer.verdict != "answered"
    assert desk.ask("怎么联系在线客服 邮件").confidence > RIGHT_TOGETHER


@pytest.mark.parametrize(("before", "asked", "heading"), FULL)
def test_a_full_question_is_not_hurt_by_the_one_before(desk, before, asked, heading):
    with_turn, alone = desk.ask(asked, [before]), desk.ask(asked)
    assert with_turn.quotes[0].headings[-1] == alone.quotes[0].headings[-1] == heading
    assert with_turn.confidence == alone.confidence
    assert with_turn.verdict == alone.verdict


@pytest.mark.parametrize(
    ("before", "asked"),
    [
        ("怎么联系客服", "领养猫的手续"),
        ("How do I reset my password?", "adopt a cat please"),
        ("充值失败怎么办", "明天会下雨吗"),
        ("客服几点上班", "推荐一部电影"),
    ],
)
def test_an_unrelated_short_question_does_not_borrow_the_subject_before(desk, before, asked):
    answer = desk.ask(asked, [before])
    assert answer.confidence == desk.ask(asked).confidence
    assert answer.verdict == "unanswered"


def test_a_long_question_is_never_joined(desk):
    asked = "我昨天在网上的一家店里买了一双鞋子但是商家一直都没有给我发货怎么办"
    assert not is_short(asked)
    assert desk.ask(asked, ["客服几点上班"]).confidence == desk.ask(asked).confidence


@given(st.text(max_size=40), st.text(min_size=1, max_size=40))
def test_joining_keeps_the_turn_before_and_never_loses_the_question(before, asked):
    both = joined(before, asked)
    assert both.startswith(before)
    assert len(both) > len(before)
