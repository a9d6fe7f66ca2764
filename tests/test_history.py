"""What is kept is read back as it was, found by its owner alone, and gone when it is to be gone."""

import json
import math
import os
import random
import re
import sqlite3
import stat
import threading
from dataclasses import replace
from datetime import timedelta

import orjson
import pytest
from histories import (
    QUOTE,
    Clock,
    answer,
    bytes_of,
    database,
    handed_over,
    rows_of,
    settings,
    ticket,
)
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from assistant import schema
from assistant.errors import BadInput, UsageError
from assistant.history import History, NotFound, Taken
from assistant.screen import clean
from assistant.settings import Settings

_SHARED = [HealthCheck.function_scoped_fixture]
texts = st.text(st.characters(codec=None), max_size=60)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def where(tmp_path):
    """Settings that name the database; test_postgres.py has its own, and runs what follows on it.

    What asks for `tmp_path` looks at the file of a SQLite database.
    """
    return settings(tmp_path)


@pytest.fixture
def history(where, clock):
    opened = History.open(where, clock)
    yield opened
    opened.close()


def keep(history, *questions, conversation=None, **more):
    """Keep questions as one conversation; return it and the ids of its turns."""
    conversation = conversation or history.new_conversation()
    return conversation, [history.keep(conversation, answer(q, **more)) for q in questions]


def together(number, action):
    """Run an action in many threads at once; return what each returned or raised."""
    found, barrier = [], threading.Barrier(number)

    def run(i):
        barrier.wait()
        try:
            found.append(action(i))
        except Exception as error:
            found.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


# --- Turns --------------------------------------------------------------------------------------


def test_a_turn_is_read_back_as_it_was_answered(history, clock):
    given = answer("为什么被冻结", "uncertain", "low_confidence")
    conversation = history.new_conversation()
    turn = history.turn(history.keep(conversation, given))
    assert history.turns(conversation) == [turn]
    assert turn.answer == orjson.loads(orjson.dumps(given))
    assert (turn.question, turn.verdict, turn.reason) == (
        "为什么被冻结",
        "uncertain",
        "low_confidence",
    )
    assert (turn.language, turn.generation, turn.confidence) == ("zh", "000001-abcd", 0.75)
    assert clock.time - turn.at < timedelta(seconds=1)
    assert (turn.vote, turn.ticket) == (None, None)


def test_turns_come_oldest_first_and_a_limit_leaves_the_last(history):
    conversation, _ = keep(history, "一个", "两个", "三个")
    keep(history, "别人的")
    assert [turn.question for turn in history.turns(conversation)] == ["一个", "两个", "三个"]
    assert [turn.question for turn in history.turns(conversation, 2)] == ["两个", "三个"]


@pytest.mark.parametrize("unknown", ["", "nobody", "\ud800", "x" * 10_000, "' OR 1=1 --", "\0"])
def test_what_is_unknown_is_nothing_or_said_to_be_unknown(history, unknown):
    conversation, (turn,) = keep(history, "有吗")
    assert history.turns(unknown) == []
    for look in (
        lambda: history.turn(unknown),
        lambda: history.vote(unknown, turn, 1),
        lambda: history.vote(conversation, unknown, 1),
        lambda: history.open_ticket(unknown, turn, ticket()),
        lambda: history.ticket(7),
        lambda: history.claim(7, "ann"),
        lambda: history.close_ticket(7, "ann"),
        lambda: history.release(7, "ann"),
        lambda: history.release(7, "max", anyones=True),
        lambda: history.take_over(7, "ann", "bob"),
        lambda: history.reopen(7, "ann"),
        lambda: history.add_note(7, "ann", "hm"),
        lambda: history.decide(7, True, "ann"),
        lambda: history.redeliver(7),
    ):
        with pytest.raises(NotFound):
            look()
    assert history.forget(unknown) == 0
    assert history.turn(turn).vote is None


def test_ids_cannot_be_guessed(history):
    """At least 128 random bits: 22 characters of 64."""
    conversations = {history.new_conversation() for _ in range(200)}
    _, turns = keep(history, *["问"] * 50)
    assert len(conversations) == 200
    assert len(set(turns)) == 50
    for name in (*conversations, *turns):
        assert re.fullmatch("[A-Za-z0-9_-]{22,64}", name)


def test_conversations_of_many_threads_do_not_mix(history):
    """Every turn carries the canary of its own conversation (T13)."""

    def converse(i):
        conversation, _ = keep(history, *(f"canary{i:03d} {n}" for n in range(10)))
        return conversation, i

    for conversation, i in together(40, converse):
        questions = [turn.question for turn in history.turns(conversation)]
        assert questions == [f"canary{i:03d} {n}" for n in range(10)]


@limits(max_examples=60, deadline=None, suppress_health_check=_SHARED)
@given(question=texts, note=texts, reply_to=texts, filled=texts, words=texts)
def test_any_text_is_kept_clean_and_exported_on_one_line(
    history, question, note, reply_to, filled, words
):
    """CR, LF, NUL, ANSI, lone surrogates, odd line ends: one JSON record a line, as it was kept."""
    conversation = history.new_conversation()
    turn = history.keep(conversation, answer(question, "unanswered", "low_confidence"))
    history.vote(conversation, turn, -1, "other", note)
    opened = history.open_ticket(conversation, turn, ticket(question, 订单号=filled), reply_to)
    if clean(words).strip():
        history.add_note(opened.number, "ann", words)
    lines = list(history.export())
    assert all(len(line.splitlines()) == 1 for line in lines)
    record = next(r for r in map(json.loads, lines) if r["conversation"] == conversation)
    (kept,) = history.turns(conversation)
    assert record["turns"] == orjson.loads(orjson.dumps([kept]))
    assert record["tickets"] == orjson.loads(orjson.dumps([history.ticket(opened.number)]))
    for text in (kept.question, kept.vote.note, history.ticket(opened.number).reply_to):
        assert text == clean(text).strip()
    history.forget(conversation)


HOSTILE = 'a\r\nb\x1b[31mc\0d\ud800e\u2028f\x85g"}\n{"x":1'


def test_hostile_text_stays_one_record(history):
    """Worked by hand: what breaks lines, terminals and parsers, in one question."""
    quote = replace(QUOTE, text="指南\u2028的\x85原话\x7f\u2029")
    turn = history.keep(history.new_conversation(), answer(HOSTILE, quotes=(quote,)))
    (line,) = history.export()
    assert len(line.splitlines()) == 1
    (kept,) = json.loads(line)["turns"]
    assert kept["question"] == history.turn(turn).question == 'a\nb[31mcde f g"}\n{"x":1'
    assert kept["answer"]["quotes"][0]["text"] == quote.text


# --- Votes --------------------------------------------------------------------------------------


def test_of_many_votes_on_a_turn_the_last_counts(history):
    conversation, (turn,) = keep(history, "好吗")
    for i in range(30):
        history.vote(conversation, turn, (1, -1)[i % 2], "outdated" if i % 2 else "", f"第{i}次")
    (day,) = history.days()
    assert (day.up, day.down) == (0, 1)
    vote = history.turn(turn).vote
    assert (vote.value, vote.reason, vote.note) == (-1, "outdated", "第29次")


@pytest.mark.parametrize(("value", "reason"), [(0, ""), (2, ""), (1, "because"), ("1", "")])
def test_a_vote_that_is_none_is_refused(history, value, reason):
    conversation, (turn,) = keep(history, "好吗")
    with pytest.raises(BadInput):
        history.vote(conversation, turn, value, reason)


def test_nobody_votes_on_the_turn_of_another_conversation(history):
    mine, _ = keep(history, "我的")
    _, (theirs,) = keep(history, "别人的")
    with pytest.raises(NotFound):
        history.vote(mine, theirs, -1)
    with pytest.raises(NotFound):
        history.open_ticket(mine, theirs, ticket())
    assert history.turn(theirs).vote is None


# --- Tickets ------------------------------------------------------------------------------------


def test_people_are_known_by_the_names_they_sign_in_with(history):
    """Also where that is an e-mail address or a number, which are masked in what is written."""
    one, other = handed_over(history, "转人工"), handed_over(history, "转人工")
    for opened, name in ((one, "ming@example.com"), (other, "13812345678")):
        assert history.claim(opened.number, name).owner == name
        with pytest.raises(Taken):
            history.claim(opened.number, "li@example.com")


def test_a_turn_has_one_ticket(history):
    first = handed_over(history, "转人工", reply_to="a@example.com")
    again = history.open_ticket(first.conversation, first.turn, ticket("另外"))
    assert again == first
    assert history.turn(first.turn).ticket == first.number
    assert (first.state, first.owner, first.question) == ("new", "", "转人工")
    assert first.packet == orjson.loads(orjson.dumps(ticket("转人工", "asked_for_human")))
    assert first.delivery == "off"


def test_twenty_threads_that_open_the_ticket_of_a_turn_get_one_number(history):
    conversation, (turn,) = keep(history, "转人工")
    found = together(20, lambda i: history.open_ticket(conversation, turn, ticket()))
    assert len({one.number for one in found}) == 1
    assert len(history.tickets()) == 1


@pytest.mark.parametrize("many", [1, 2], ids=["one program", "two programs"])
def test_of_twenty_that_claim_a_ticket_exactly_one_wins(history, where, many):
    number = handed_over(history).number
    others = [history, *(History.open(where) for _ in range(many - 1))]
    found = together(20, lambda i: others[i % many].claim(number, f"agent {i}"))
    won = [one for one in found if not isinstance(one, Exception)]
    lost = [one for one in found if isinstance(one, Taken)]
    assert (len(won), len(lost)) == (1, 19)
    owner = won[0].owner
    assert {error.owner for error in lost} == {owner}
    assert history.ticket(number).owner == owner
    for other in others[1:]:
        other.close()


def test_a_ticket_goes_from_new_to_claimed_to_closed(history):
    number = handed_over(history).number
    assert history.claim(number, "ann").state == "claimed"
    assert history.claim(number, "ann").owner == "ann"
    for refused in (history.claim, history.release, history.close_ticket):
        with pytest.raises(Taken) as said:
            refused(number, "bob")
        assert said.value.owner == "ann"
    free = history.release(number, "ann")
    assert (free.state, free.owner, free.claimed) == ("new", "", None)
    assert history.release(number, "bob").state == "new"
    history.claim(number, "bob")
    history.add_note(number, "ann", "请看附件")
    closed = history.close_ticket(number, "bob", "已解决")
    assert (closed.state, closed.owner) == ("closed", "bob")
    assert [(note.author, note.text) for note in closed.notes] == [
        ("ann", "请看附件"),
        ("bob", "已解决"),
    ]
    assert history.close_ticket(number, "bob", "已解决") == history.close_ticket(number, "bob")
    assert history.ticket(number) == closed
    assert history.close_ticket(number, "bob", "另外写的").notes[-1].text == "另外写的"
    for refused in (history.claim, history.release, history.close_ticket):
        with pytest.raises(Taken):
            refused(number, "ann")
    with pytest.raises(Taken):
        history.claim(number, "bob")
    assert len(history.add_note(number, "ann", "补充").notes) == 4


def test_what_one_holds_another_takes_over_and_a_note_says_so(history):
    number = handed_over(history).number
    history.claim(number, "ming")
    taken = history.take_over(number, "ann", "ming")
    assert (taken.state, taken.owner) == ("claimed", "ann")
    assert [(one.author, "ming" in one.text) for one in taken.notes] == [("ann", True)]
    assert history.take_over(number, "ann", "ming") == taken
    assert history.take_over(number, "ann", "ann").notes == taken.notes
    for owner in ("ming", "", "bob"):
        with pytest.raises(Taken) as said:
            history.take_over(number, "bob", owner)
        assert said.value.owner == "ann"
    with pytest.raises(Taken):
        history.release(number, "ming")
    history.release(number, "ann")
    with pytest.raises(Taken):
        history.take_over(number, "bob", "")


def test_a_maintainer_gives_back_what_anyone_holds(history):
    number = handed_over(history).number
    history.claim(number, "ming")
    free = history.release(number, "max", anyones=True)
    assert (free.state, free.owner, free.claimed) == ("new", "", None)
    assert [(one.author, "ming" in one.text) for one in free.notes] == [("max", True)]
    assert history.release(number, "max", anyones=True) == free
    history.claim(number, "max")
    assert history.release(number, "max", anyones=True).notes == free.notes
    history.close_ticket(number, "ann")
    with pytest.raises(Taken):
        history.release(number, "max", anyones=True)


def test_a_closed_ticket_is_opened_again_by_one_who_owns_it_then(history):
    number = handed_over(history).number
    with pytest.raises(Taken):
        history.reopen(number, "ann")
    history.close_ticket(number, "ann")
    opened = history.reopen(number, "bob")
    assert (opened.state, opened.owner, opened.closed) == ("claimed", "bob", None)
    assert [one.author for one in opened.notes] == ["bob"]
    assert history.reopen(number, "bob") == opened
    with pytest.raises(Taken):
        history.reopen(number, "ann")


@pytest.mark.parametrize("change", ["take_over", "reopen"])
def test_of_twenty_that_want_a_ticket_of_another_exactly_one_wins(history, where, change):
    number = handed_over(history).number
    history.claim(number, "ming")
    if change == "reopen":
        history.close_ticket(number, "ming")
    given = ("ming",) if change == "take_over" else ()
    others = [history, History.open(where)]
    wanted = together(20, lambda i: getattr(others[i % 2], change)(number, f"agent {i}", *given))
    (won,) = [one for one in wanted if not isinstance(one, Exception)]
    lost = [one for one in wanted if isinstance(one, Taken)]
    assert [one.owner for one in lost] == [won.owner] * 19
    assert history.ticket(number) == won
    assert [one.author for one in won.notes] == [won.owner]
    others[1].close()


def test_who_closes_a_ticket_of_nobody_owns_it(history):
    assert history.close_ticket(handed_over(history).number, "ann").owner == "ann"


def test_an_agent_has_a_name_and_a_note_words(history):
    number = handed_over(history).number
    with pytest.raises(BadInput):
        history.claim(number, " \u200b")
    with pytest.raises(BadInput):
        history.add_note(number, "ann", "\n")


def test_urgent_tickets_come_first_then_the_oldest_and_closed_ones_newest_first(history):
    numbers = [
        handed_over(history, reason=reason).number
        for reason in ("low_confidence", "urgent_account_security", "ambiguous", "contact_check")
    ]
    a, urgent, b, c = numbers
    assert [one.number for one in history.tickets("new")] == [urgent, a, b, c]
    assert history.tickets("new")[0].urgent
    for number in (c, a):
        history.claim(number, "ann")
    assert [one.number for one in history.tickets("claimed", owner="ann")] == [a, c]
    assert history.tickets("claimed", owner="bob") == []
    for number in (a, c, urgent):
        history.close_ticket(number, "bob" if number == urgent else "ann")
    assert [one.number for one in history.tickets("closed")] == [c, urgent, a]
    assert [one.number for one in history.tickets("closed", limit=1)] == [c]
    assert [one.number for one in history.tickets("closed", after=c)] == [urgent, a]
    assert [one.number for one in history.tickets()] == [c, b, urgent, a]
    assert history.counts() == {"new": 1, "claimed": 0, "closed": 3}


def pages_of(history, state, **more):
    """Go through tickets one at a time, by their own numbers."""
    found, after = [], None
    while page := history.tickets(state, limit=1, after=after, **more):
        after = page[0].number
        found.append(after)
    return found


def test_every_list_is_gone_through_to_its_end(history):
    reasons = ("low_confidence", "urgent_account_security", "ambiguous", "urgent_account_security")
    a, urgent, b, last = opened = [handed_over(history, reason=one).number for one in reasons]
    assert pages_of(history, "new") == [urgent, last, a, b]
    assert pages_of(history, None) == opened[::-1]
    history.claim(last, "ann")
    assert [one.number for one in history.tickets("new", after=last)] == [a, b]
    for number in (a, urgent, b):
        history.claim(number, "bob")
    assert pages_of(history, "claimed", not_owner="ann") == [urgent, a, b]
    history.forget(history.ticket(urgent).conversation)
    assert [one.number for one in history.tickets("claimed", after=urgent)] == [last, a, b]
    for number in (a, b):
        history.close_ticket(number, "bob")
    assert pages_of(history, "closed") == [b, a]


def test_tickets_are_found_by_number_contact_question_and_notes(history):
    one = handed_over(history, "充值 100% 没到账", reply_to="+86 138 0013 8000").number
    other = handed_over(history, "Where is My_Money", reply_to="a.b@example.com").number
    history.add_note(other, "ann", "call 13900139000")
    history.claim(other, "ann")

    def found(words, **more):
        return [ticket.number for ticket in history.tickets(words=words, **more)]

    for words in (f"#{one}", f"＃{one} ", "13800138000", "138 0013", "100%", "没到账"):
        assert found(words) == [one], words
    assert found(f"{one}")[-1] == one
    for words in ("A.B@", "my_money", "139001"):
        assert found(words) == [other], words
    for words in ("%", "_", "0%没", "\\", "/", "' OR 1=1 --", "١", "9" * 30, "packet"):
        expected = {"%": [one], "_": [other]}.get(words, [])
        assert found(words) == expected, words
    assert found("", state="new") == found("\0 ", state="new") == [one]
    assert found("138", state="claimed") == []
    assert history.counts(words="my_money") == {"new": 0, "claimed": 1, "closed": 0}
    assert history.counts("ann") == {"new": 0, "claimed": 1, "closed": 0}
    assert history.counts("bob", "my_money") == {"new": 0, "claimed": 0, "closed": 0}


def test_what_is_said_again_is_added_and_what_is_left_empty_stays(history):
    conversation, (turn,) = keep(history, "转人工")

    def opened(reply_to="", **filled):
        return history.open_ticket(conversation, turn, ticket(**filled), reply_to)

    first = opened(手机号="尾号 88", 订单号="")
    added = opened("a@example.com", 手机号="", 订单号="1234")
    assert added == replace(first, packet=added.packet, reply_to="a@example.com")
    assert [one["text"] for one in added.packet["filled"]] == ["尾号 88", "1234"]
    assert opened(手机号="", 订单号="") == added
    assert opened("b@example.com").reply_to == "b@example.com"


def test_the_number_of_a_forgotten_ticket_is_never_given_again(history):
    first = handed_over(history)
    history.forget(first.conversation)
    assert handed_over(history).number > first.number


# --- Proposals ----------------------------------------------------------------------------------


def test_a_proposal_is_decided_once(history):
    proposal = history.propose(
        ["怎么退款", "退钱"], "guide.md#退款", "", author="ann", origin="ticket 12"
    )
    assert (proposal.questions, proposal.passage) == (("怎么退款", "退钱"), "guide.md#退款")
    assert (proposal.state, proposal.origin, proposal.decided) == ("new", "ticket 12", None)
    found = together(10, lambda i: history.decide(proposal.id, i % 2 == 0, f"m{i}", "看过"))
    (won,) = [one for one in found if not isinstance(one, Exception)]
    assert {one.owner for one in found if isinstance(one, Taken)} == {won.decided_by}
    assert history.proposals() == [won]
    assert history.proposals("new") == []
    second = history.propose(["别的"], "", "答案。", "bob", "gap")
    assert history.proposals("new") == [second]
    assert [one.id for one in history.proposals()] == [second.id, won.id]


# --- Gaps and days ------------------------------------------------------------------------------


def test_gaps_are_what_went_unanswered_or_was_voted_down_newest_first(history, clock):
    keep(history, "很久以前", verdict="unanswered", reason="out_of_guide")
    clock.jump(days=31)
    keep(history, "你好", verdict="unanswered", quotes=())
    keep(history, "不知道", verdict="unanswered", reason="out_of_guide")
    keep(history, "大概", verdict="uncertain", reason="low_confidence")
    conversation, (good, bad) = keep(history, "答得好", "答错了")
    history.vote(conversation, good, 1)
    history.vote(conversation, bad, -1, "wrong_passage")
    assert [turn.question for turn in history.gaps()] == ["答错了", "不知道"]
    assert [turn.question for turn in history.gaps(limit=1)] == ["答错了"]
    assert len(history.gaps(days=60)) == 3


def test_days_are_counted(history, clock):
    keep(history, "一", "二")
    clock.jump(days=2)
    conversation, turns = keep(history, "三", "四", verdict="uncertain", reason="ambiguous")
    keep(history, "五", verdict="unanswered", reason="out_of_guide")
    history.vote(conversation, turns[0], 1)
    history.open_ticket(conversation, turns[1], ticket())
    found = [(d.date, d.asks, d.answered, d.uncertain, d.unanswered) for d in history.days()]
    assert found == [("2026-11-26", 2, 2, 0, 0), ("2026-11-28", 3, 0, 2, 1)]
    assert [(d.up, d.down, d.tickets) for d in history.days()] == [(0, 0, 0), (1, 0, 1)]
    assert len(history.days(days=1)) == 1


# --- Secrets and forgetting ---------------------------------------------------------------------

SEED = "legal winner thank year wave sausage worth useful legal winner thank yellow"
CANARIES = ["482913", "4111111111111111", "hunter2xyz9", "legal winner thank year wave"]
TOLD = f"我的验证码是482913，卡号4111111111111111，密码是hunter2xyz9，助记词 {SEED} 请帮我看看"


def test_no_secret_stands_in_any_byte(history, tmp_path):
    conversation = history.new_conversation()
    turn = history.keep(conversation, answer(TOLD, "unanswered", "low_confidence"))
    history.vote(conversation, turn, -1, "other", TOLD)
    number = history.open_ticket(
        conversation, turn, ticket(TOLD, 订单号=TOLD), reply_to=TOLD
    ).number
    history.add_note(number, "ann@example.com", TOLD)
    history.close_ticket(number, "ann", TOLD)
    proposal = history.propose([TOLD, TOLD], TOLD, TOLD, "ann@example.com", TOLD)
    history.decide(proposal.id, False, "ann@example.com", TOLD)
    kept = bytes_of(tmp_path)
    assert "请帮我看看".encode() in kept
    assert history.proposals()[0].decided_by == "ann@example.com"
    for canary in CANARIES:
        assert canary.encode() not in kept, canary


def test_how_to_be_reached_is_kept_but_no_secret_in_it(history):
    told = "打 13800138000 或写信 a.b@example.com，密码是hunter2xyz9"
    kept = handed_over(history, reply_to=told)
    assert "13800138000" in kept.reply_to
    assert "a.b@example.com" in kept.reply_to
    assert "hunter2xyz9" not in kept.reply_to


def test_a_contact_heard_by_an_agent_is_kept_but_no_secret_beside_it(history):
    told = "call 13800138000 or a.b@example.com, 密码是hunter2xyz9"
    number = handed_over(history).number
    for noted in (history.add_note(number, "ann", told), history.close_ticket(number, "bob", told)):
        assert "call 13800138000 or a.b@example.com" in noted.notes[-1].text
        assert "hunter2xyz9" not in noted.notes[-1].text
    assert [one.author for one in history.ticket(number).notes] == ["ann", "bob"]


def test_the_guides_own_words_are_not_masked(history):
    quote = replace(QUOTE, text="请写信到 support@example.com")
    told = answer("我的密码是hunter2xyz9", "uncertain", "ambiguous", (quote,))
    kept = history.turn(history.keep(history.new_conversation(), told))
    assert kept.answer["quotes"][0]["text"] == quote.text
    assert kept.answer["question"] == kept.question == "我的密码是[密码]"
    assert "hunter2" not in kept.answer["handoff"]["ticket_draft"]


def words_of(i):
    return f"秘密{i:04d}号", f"SECRET{i:04d}X"


def filled_with(history, number, seed):
    """Keep turns of all sizes, so that rows share pages and pages are rearranged."""
    chance = random.Random(seed)
    conversations = {}
    for i in range(number):
        text = " ".join(words_of(i)) + "长" * chance.choice([0, 20, 300, 1500])
        given = answer(text, "unanswered", "low_confidence")
        conversation = history.new_conversation()
        turn = history.keep(conversation, given)
        if i % 5 == 0:
            history.vote(conversation, turn, -1, "other", f"评语{words_of(i)[1]}")
            opened = history.open_ticket(conversation, turn, ticket(text), words_of(i)[1])
            history.add_note(opened.number, "ann", words_of(i)[0])
        conversations[i] = conversation
    return conversations


def left_of(folder, gone):
    kept = bytes_of(folder)
    return [word for i in gone for word in words_of(i) if word.encode() in kept]


@pytest.mark.parametrize("seed", range(3))
def test_what_is_forgotten_stands_in_no_byte(history, tmp_path, seed):
    conversations = filled_with(history, 120, seed)
    gone = random.Random(seed).sample(sorted(conversations), 60)
    for i in gone:
        assert history.forget(conversations[i]) == 1
    assert left_of(tmp_path, gone) == []
    stays = sorted(set(conversations) - set(gone))
    assert len(left_of(tmp_path, stays)) == 2 * len(stays)
    assert all(history.turns(conversations[i]) == [] for i in gone)
    assert all(history.turns(conversations[i]) for i in stays)
    counted = {(i // 5) for i in stays if i % 5 == 0}
    assert len(history.tickets(limit=1000)) == len(counted)
    for table in ("votes", "tickets", "notes"):
        (found,) = rows_of(database(tmp_path), f"SELECT count(*) FROM {table}")
        assert found == (len(counted),)


@pytest.fixture
def large(monkeypatch):
    """Take every database for a large one, which is rewritten once a day."""
    monkeypatch.setattr("assistant.database._MOST_REWRITTEN", -1)
    monkeypatch.setattr("assistant.database._REWRITE_SECONDS", math.inf)


def test_deleted_words_are_overwritten_in_a_large_file_too(large, history, tmp_path):
    conversations = filled_with(history, 60, 1)
    for conversation in conversations.values():
        history.forget(conversation)
    assert left_of(tmp_path, conversations) == []


def test_copies_that_rearranged_pages_left_are_gone_once_the_file_is_rewritten(
    large, history, tmp_path, monkeypatch
):
    """With this layout SQLite leaves a copy of a deleted row in a page, `secure_delete` or not."""
    chance = random.Random(8)
    conversations = []
    for i in range(150):
        text = f"{words_of(i)[1]} " + "y" * chance.choice([0, 20, 300, 700])
        conversations += [keep(history, text, quotes=())[0]]
    gone = chance.sample(range(150), 110)
    for i in gone:
        history.forget(conversations[i])
    assert len([i for i in gone if words_of(i)[1].encode() in bytes_of(tmp_path)]) == 1
    monkeypatch.setattr("assistant.database._REWRITE_SECONDS", 0)
    keep(history, "一天以后")
    history.close()
    assert [i for i in gone if words_of(i)[1].encode() in bytes_of(tmp_path)] == []


def test_what_is_too_old_stands_in_no_byte(history, clock, tmp_path):
    conversations = filled_with(history, 60, 7)
    for one in history.tickets(limit=1000):
        history.close_ticket(one.number, "ann", "秘密9999号")
    clock.jump(days=29)
    assert history.purge() == 0
    fresh, _ = keep(history, "新的")
    clock.jump(days=2)
    assert history.purge() == 60
    assert left_of(tmp_path, [*conversations, 9999]) == []
    assert [turn.question for turn in history.turns(fresh)] == ["新的"]
    history.backup(tmp_path / "var" / "copy.db")
    assert left_of(tmp_path, conversations) == []


def test_a_purge_runs_at_open(where, clock):
    history = History.open(where, clock)
    conversation, _ = keep(history, "旧的")
    history.close()
    clock.jump(days=31)
    history = History.open(where, clock)
    assert history.turns(conversation) == []
    history.close()


def test_a_purge_runs_while_questions_come(history, clock, monkeypatch):
    """Hourly by the monotonic clock, behind the back of whoever asks."""
    monkeypatch.setattr("assistant.history._PURGE_SECONDS", -1)
    conversation, _ = keep(history, "旧的")
    clock.jump(days=31)
    keep(history, "新的")
    history.purge()
    assert history.turns(conversation) == []


def test_many_rows_are_purged_in_slices(history, clock, monkeypatch):
    monkeypatch.setattr("assistant.history._SLICE", 7)
    keep(history, *(f"旧{i}" for i in range(20)))
    clock.jump(days=31)
    assert history.purge() == 20


def test_nothing_is_purged_when_all_is_to_be_kept(where, clock):
    history = History.open(where.model_copy(update={"retention_days": 0}), clock)
    conversation, _ = keep(history, "旧的")
    clock.jump(days=300)
    assert history.purge() == 0
    assert history.turns(conversation)
    history.close()


def test_a_conversation_stays_while_its_ticket_is_open_and_ages_from_its_closing(history, clock):
    first = handed_over(history)
    keep(history, "还有一句", conversation=first.conversation)
    clock.jump(days=100)
    assert history.purge() == 0
    history.claim(first.number, "ann")
    assert history.purge() == 0
    history.close_ticket(first.number, "ann")
    clock.jump(days=29)
    assert history.purge() == 0
    assert len(history.turns(first.conversation)) == 2
    clock.jump(days=2)
    assert history.purge() == 2
    assert history.tickets() == []


def test_decided_proposals_age_and_waiting_ones_do_not(history, clock):
    decided = history.propose(["一"], "", "答", "ann", "gap")
    waiting = history.propose(["二"], "", "答", "ann", "gap")
    history.decide(decided.id, True, "max")
    clock.jump(days=31)
    assert history.purge() == 1
    assert history.proposals() == [waiting]


# --- The clock ----------------------------------------------------------------------------------

YEARS = 3653


@pytest.mark.parametrize("days", [YEARS, -YEARS, 2, -2])
@pytest.mark.parametrize("seen", [True, False], ids=["seen by a purge", "unseen"])
def test_a_clock_that_jumps_and_returns_reorders_nothing_and_makes_nothing_old(
    history, clock, days, seen
):
    conversation, _ = keep(history, "先")
    clock.jump(days=days)
    if seen:
        history.purge()
    keep(history, "中", conversation=conversation)
    if seen:
        history.purge()
    clock.jump(days=-days)
    keep(history, "后", conversation=conversation)
    history.purge()
    assert [turn.question for turn in history.turns(conversation)] == ["先", "中", "后"]
    clock.jump(days=33)
    assert history.purge() == 3


@pytest.mark.parametrize("days", [YEARS, -YEARS])
def test_a_clock_that_jumps_and_stays_lets_all_age_from_there(history, clock, days):
    conversation, _ = keep(history, "先")
    clock.jump(days=10)
    history.purge()
    clock.jump(days=days)
    assert history.purge() == 0
    keep(history, "后", conversation=conversation)
    clock.jump(days=29)
    history.purge()
    assert "后" in [turn.question for turn in history.turns(conversation)]
    clock.jump(days=2)
    history.purge()
    assert history.turns(conversation) == []


@pytest.mark.parametrize("days", [YEARS, -YEARS])
def test_a_jump_over_a_restart_makes_nothing_old(where, clock, days):
    """A machine whose clock battery died starts in another decade, until it is set right."""
    history = History.open(where, clock)
    conversation, _ = keep(history, "先")
    history.close()
    clock.jump(days=days)
    history = History.open(where, clock)
    keep(history, "中", conversation=conversation)
    clock.jump(days=-days)
    keep(history, "后", conversation=conversation)
    history.close()
    history = History.open(where, clock)
    assert [turn.question for turn in history.turns(conversation)] == ["先", "中", "后"]
    clock.jump(days=31)
    assert history.purge() == 3
    history.close()


# --- Files --------------------------------------------------------------------------------------


def test_only_its_owner_reads_the_database(history, tmp_path):
    keep(history, "问")
    history.backup(tmp_path / "copy.db")
    modes = {one.name: stat.S_IMODE(os.stat(one).st_mode) for one in (tmp_path / "var").iterdir()}
    assert modes == dict.fromkeys(("history.db", "history.db-wal", "history.db-shm"), 0o600)
    assert stat.S_IMODE(os.stat(tmp_path / "var").st_mode) == 0o700
    assert stat.S_IMODE(os.stat(tmp_path / "copy.db").st_mode) == 0o600


def test_a_folder_that_was_there_keeps_its_mode_and_a_file_loses_its_readers(tmp_path):
    (tmp_path / "var").mkdir(mode=0o755)
    History.open(settings(tmp_path)).close()
    database(tmp_path).chmod(0o644)
    History.open(settings(tmp_path)).close()
    assert stat.S_IMODE(os.stat(tmp_path / "var").st_mode) == 0o755
    assert stat.S_IMODE(os.stat(database(tmp_path)).st_mode) == 0o600


def test_what_was_kept_is_there_after_a_restart(where):
    history = History.open(where)
    first = handed_over(history)
    history.close()
    history = History.open(where)
    assert history.ticket(first.number) == first
    assert history.notes == ()
    assert history.saving
    history.close()


def test_a_backup_made_while_it_is_written_to_is_whole(history, tmp_path):
    """What was acknowledged before the backup began is in it; it opens as a history (F34)."""
    conversation, _ = keep(history, "第一")
    stop, acknowledged = threading.Event(), []

    def write():
        while not stop.is_set():
            acknowledged.append(history.keep(conversation, answer(f"问{len(acknowledged)}")))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for i in range(8):
            before = len(acknowledged)
            history.backup(tmp_path / f"{i}.db")
            assert rows_of(tmp_path / f"{i}.db", "PRAGMA integrity_check") == [("ok",)]
            (count,) = rows_of(tmp_path / f"{i}.db", "SELECT count(*) FROM turns")
            assert count[0] >= before + 1
    finally:
        stop.set()
        writer.join()
    restored = tmp_path / "restored"
    (restored / "var").mkdir(parents=True)
    (tmp_path / "7.db").rename(database(restored))
    copy = History.open(settings(restored))
    assert copy.turns(conversation)[0].question == "第一"
    copy.keep(conversation, answer("接着问"))
    assert (copy.notes, copy.saving) == ((), True)
    copy.close()


def test_a_database_of_an_earlier_version_is_brought_up_to_date(tmp_path):
    """Whatever version it begins at, its rows stay and everything works after."""
    for version in range(1, len(schema.MIGRATIONS)):
        folder = tmp_path / f"{version}"
        (folder / "var").mkdir(parents=True)
        _begin_at(version, database(folder))
        history = History.open(settings(folder))
        assert history.turn("old").question == "旧的"
        first = handed_over(history)
        history.propose(["一"], "", "答", "ann", "gap")
        assert history.ticket(first.number) == first
        assert (history.notes, history.saving) == ((), True)
        history.close()
        versions = rows_of(database(folder), "SELECT version FROM schema_version")
        assert versions == [(n,) for n in range(1, len(schema.MIGRATIONS) + 1)]


def _begin_at(version, path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE schema_version (version INTEGER PRIMARY KEY, at TEXT)")
    words = {"key": "INTEGER PRIMARY KEY AUTOINCREMENT", "reference": "INTEGER"}
    for number, migration in enumerate(schema.MIGRATIONS[:version], 1):
        for statement in migration:
            connection.execute(statement.format(**words))
        connection.execute("INSERT INTO schema_version VALUES (?, '2026')", (number,))
    connection.execute(
        "INSERT INTO turns VALUES (1, 'old', 'c', '2999-01-01T00:00:00.000000+00:00', 4e10, '旧的',"
        " 'answered', 0.5, '', 'zh', 'g', 1.0, '{}')"
    )
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    "address",
    [
        *("", "history.db", "sqlite://", "sqlite:///:memory:", "mysql://x/y", "nosuch://x"),
        *("sqlite+aiosqlite:///x", "postgresql+asyncpg://x/y", "postgresql://x:port/y"),
    ],
)
def test_an_address_that_is_none_is_a_wrong_setting(address):
    with pytest.raises(UsageError, match="ASSISTANT_HISTORY"):
        History.open(Settings(history=address))
