"""A desk with a memory: conversations, votes and tickets, and answers when memory fails."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import orjson
import pytest

from assistant.errors import BadInput, NotInGuide
from assistant.frontdesk import FrontDesk, answer_of
from assistant.history import History
from assistant.kept import NotFound, NotSaved


@pytest.fixture
def front(desk, tmp_path, monkeypatch):
    """A front desk over the shipped guide with an empty memory of its own."""
    settings = desk.settings.model_copy(update={"history": f"sqlite:///{tmp_path}/history.db"})
    monkeypatch.setattr(desk, "settings", settings)
    front = FrontDesk(desk, History.open(settings))
    yield front
    front.history.close()


@pytest.fixture
def locked(front, tmp_path):
    """Hold the database as another program's long transaction does."""
    with closing(sqlite3.connect(tmp_path / "history.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield other


def test_a_reply_is_what_the_desk_says_and_is_kept_word_for_word(front):
    reply = front.ask("充值没到账怎么办")
    plain = front.desk.ask("充值没到账怎么办")
    assert reply.saved
    assert reply.turn
    assert (reply.answer.verdict, reply.answer.quotes) == (plain.verdict, plain.quotes)
    [turn] = front.turns(reply.conversation)
    assert answer_of(turn) == reply.answer
    assert orjson.dumps(answer_of(turn)) == orjson.dumps(reply.answer)


def test_a_follow_up_is_read_with_the_turn_before_it(front):
    first = front.ask("怎么联系在线客服")
    alone, after = front.ask("那邮件呢"), front.ask("那邮件呢", first.conversation)
    expected = front.desk.ask("那邮件呢", ["怎么联系在线客服"])
    assert after.conversation == first.conversation != alone.conversation
    assert after.answer.quotes == expected.quotes
    assert [turn.question for turn in front.turns(first.conversation)] == [
        "怎么联系在线客服",
        "那邮件呢",
    ]


def test_small_talk_is_no_turn_before_a_question_nor_a_ticket(front):
    """A question that is handed over as it was asked is not the one before itself either."""
    first = front.ask("怎么联系在线客服")
    front.ask("好的", first.conversation)
    followed = front.ask("那邮件呢", first.conversation)
    assert followed.answer.quotes == front.desk.ask("那邮件呢", ["怎么联系在线客服"]).quotes
    front.ask("谢谢", first.conversation)
    assert front.last_question(first.conversation) == "那邮件呢"
    handed = front.hand_off("那邮件呢", first.conversation)
    assert "上一个问题: 怎么联系在线客服" in handed.answer.handoff.ticket_draft
    ticket = front.open_ticket(first.conversation, handed.turn, {})
    assert ticket.packet["previous"] == "怎么联系在线客服"
    assert front.last_question(front.ask("你好").conversation) == ""


@pytest.mark.parametrize("given", ["", "short", "x" * 65, "a b" * 10, "../" * 10, "对话" * 15])
def test_an_id_that_is_none_begins_a_conversation_that_cannot_be_guessed(front, given):
    replies = [front.ask("你好", given) for _ in range(3)]
    ids = {reply.conversation for reply in replies}
    assert len(ids) == 3
    assert all(len(one) >= 22 for one in ids)
    assert given not in ids


def test_200_conversations_at_once_keep_to_themselves(front):
    def talk(number):
        words = f"工单{number}号怎么退款"
        conversation = front.ask(words).conversation
        front.ask(f"那{number}号呢", conversation)
        return conversation, [words, f"那{number}号呢"]

    with ThreadPoolExecutor(16) as pool:
        talks = list(pool.map(talk, range(200)))
    assert len({conversation for conversation, _ in talks}) == 200
    for conversation, words in talks:
        assert [turn.question for turn in front.turns(conversation)] == words


def test_a_turn_is_rated_and_turned_into_a_ticket_once(front):
    asked = front.ask("忘记登录密码了")
    reply = front.ask("我要转人工", asked.conversation)
    front.rate(reply.conversation, reply.turn, -1, "outdated", "旧版的")
    item = reply.answer.handoff.checklist[0].item
    ticket = front.open_ticket(
        reply.conversation, reply.turn, {item: "订单 8812"}, "me@example.com"
    )
    again = front.open_ticket(reply.conversation, reply.turn, {item: "订单 8812"})
    assert ticket.number == again.number
    assert ticket.packet["previous"] == "忘记登录密码了"
    assert ticket.packet["filled"][0] == {"item": item, "text": "订单 8812"}
    turn = front.turns(reply.conversation)[-1]
    assert (turn.ticket, turn.vote.value, turn.vote.reason) == (ticket.number, -1, "outdated")
    assert front.states([ticket.number, ticket.number + 7]) == {ticket.number: "new"}


def test_only_ones_own_turns_can_be_rated_or_handed_over(front):
    mine, other = front.ask("我要转人工"), front.ask("你好")
    with pytest.raises(NotFound):
        front.rate(other.conversation, mine.turn, 1)
    with pytest.raises(NotFound):
        front.open_ticket(other.conversation, mine.turn, {})
    with pytest.raises(NotFound):
        front.open_ticket(mine.conversation, "x" * 22, {})
    with pytest.raises(BadInput, match="no handoff"):
        front.open_ticket(other.conversation, other.turn, {})
    with pytest.raises(BadInput, match="no item"):
        front.open_ticket(mine.conversation, mine.turn, {"密码": "123"})


def test_where_tickets_are_off_there_is_the_draft(front, monkeypatch):
    reply = front.ask("我要转人工")
    monkeypatch.setattr(front, "settings", front.settings.model_copy(update={"tickets": False}))
    assert reply.answer.handoff.ticket_draft
    with pytest.raises(BadInput, match="Tickets are off"):
        front.open_ticket(reply.conversation, reply.turn, {})


def test_what_is_forgotten_is_gone(front):
    reply = front.ask("我要转人工")
    ticket = front.open_ticket(reply.conversation, reply.turn, {})
    assert front.forget(reply.conversation)
    assert front.turns(reply.conversation) == []
    with pytest.raises(NotFound):
        front.history.ticket(ticket.number)


def test_a_locked_memory_costs_no_answer_and_the_conversation_goes_on(front, locked):
    first = front.ask("怎么联系在线客服")
    second = front.ask("那邮件呢", first.conversation)
    assert (first.saved, first.turn, second.saved) == (False, "", False)
    assert second.answer.quotes == front.desk.ask("那邮件呢", ["怎么联系在线客服"]).quotes
    assert [turn.question for turn in front.turns(first.conversation)] == [
        "怎么联系在线客服",
        "那邮件呢",
    ]
    with pytest.raises(NotSaved):
        front.rate(first.conversation, "x" * 22, 1)
    locked.rollback()
    assert front.ask("你好", first.conversation).saved
    assert front.history.saving


@pytest.mark.parametrize("words", ["我的账户被盗了", "I was scammed", "助记词泄露了怎么办"])
def test_distress_is_answered_with_a_locked_memory(front, locked, words):
    assert front.ask(words).answer.handoff.reason == "urgent_account_security"


def test_listeners_hear_of_every_reply(front):
    heard = []
    front.listeners.append(lambda reply, seconds: heard.append((reply, seconds)))
    reply = front.ask("充值没到账怎么办")
    assert [one for one, _ in heard] == [reply]
    assert 0 < heard[0][1] < 60


def test_a_search_keeps_to_a_document_or_a_section(front):
    everywhere = front.search("怎么联系客服", 5)
    heading = everywhere[-1].chunk.headings[-1]
    found = front.search("怎么联系客服", 5, section=heading)
    assert found
    assert all(heading in hit.chunk.headings for hit in found)
    with pytest.raises(NotInGuide, match=r"（path）.* / .*no document"):
        front.search("怎么联系客服", 5, path="none.md")
    path = everywhere[0].chunk.path
    assert [hit.row for hit in front.search("怎么联系客服", 5, path=path)] == [
        hit.row for hit in everywhere
    ]


def test_a_vote_changes_no_answer(front):
    question = "充值没到账怎么办"
    before = front.ask(question)
    threads = [
        threading.Thread(target=front.rate, args=(before.conversation, before.turn, -1))
        for _ in range(50)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert front.ask(question).answer.quotes == before.answer.quotes
    assert sum(day.down for day in front.history.days(1)) == 1
