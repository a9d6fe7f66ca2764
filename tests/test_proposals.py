"""Accepted proposals: written once, whole, behind everything that stands there already."""

import hashlib
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from fakes import CharacterEncoder
from faults import FEW
from hypothesis import given
from hypothesis import strategies as st

from assistant import calibrate, generations
from assistant.build import build
from assistant.desk import Desk
from assistant.errors import BadInput
from assistant.formats import qa_yaml
from assistant.history import History, NotFound, NotSaved, Proposal, Taken
from assistant.load import load_corpus
from assistant.proposals import (
    FILE,
    NotWritten,
    accept,
    accepted_file,
    entry,
    questions_of,
    refuse,
    review,
    standing,
)
from assistant.screen import clean
from assistant.settings import Settings

GUIDE = "# 钱包\n\n## 提现\n\n提现手续费是一元。\n\n## 充值\n\n充值要等十分钟。\n"
CONTACTS = '[[channel]]\nname = "电话"\ncontact = "400-820-8820"\n'
NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _few_probes(monkeypatch):
    for name, few in FEW.items():
        monkeypatch.setattr(calibrate, name, few)


@pytest.fixture
def place(tmp_path):
    """Settings of a small guide with a contact list, and a history of its own."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "guide.md").write_text(GUIDE, "utf-8")
    (corpus / "contacts.toml").write_text(CONTACTS, "utf-8")
    return Settings(
        corpus=corpus, index=tmp_path / "index", history=f"sqlite:///{tmp_path}/var/history.db"
    )


@pytest.fixture
def history(place):
    history = History.open(place)
    yield history
    history.close()


def proposal(questions=("提现多少钱",), passage="guide.md#提现", answer="", number=1):
    return Proposal(
        number, tuple(questions), passage, answer, "小李", "gap", "new", NOON, None, "", ""
    )


def propose(history, *questions, passage="guide.md#提现", answer=""):
    return history.propose(questions, "" if answer else passage, answer, "小李", "gap").id


def words_of(place):
    return accepted_file(place).decode()


# --- Writing -------------------------------------------------------------------------------------


def test_what_is_accepted_is_in_the_next_build_and_not_before(place, history):
    encoder = CharacterEncoder()
    build(place, encoder)
    before = questions_of(Desk(place, encoder).index)
    number = propose(history, "从钱包拿钱出来收多少", "取钱费用")
    answer = propose(history, "支持外币吗", "能用美元吗", answer="目前只支持人民币。")
    asked = {"从钱包拿钱出来收多少", "取钱费用", "支持外币吗", "能用美元吗"}
    for one in (number, answer):
        assert accept(history, one, place, "阿兰").state == "accepted"
    assert questions_of(Desk(place, encoder).index) == before
    build(place, encoder)
    desk = Desk(place, encoder)
    assert questions_of(desk.index) == before | asked
    (hit,) = desk.search("能用美元吗", 1)
    assert hit.chunk.text == "目前只支持人民币。"


def test_accepted_twice_it_is_written_once_and_the_second_is_told_by_whom(place, history):
    number = propose(history, "提现多少钱")
    accept(history, number, place, "阿兰")
    once = words_of(place)
    with pytest.raises(Taken) as told:
        accept(history, number, place, "老王")
    assert told.value.owner == "阿兰"
    assert words_of(place) == once
    assert once.count("提现多少钱") == 1


def test_the_same_words_proposed_again_are_not_written_again(place, history):
    for _ in range(2):
        accept(history, propose(history, "提现多少钱"), place, "阿兰")
    assert words_of(place).count("提现多少钱") == 1


def test_a_new_history_that_counts_from_one_again_loses_no_entry(place, tmp_path, history):
    """Entries are told apart by their words: numbers begin anew with a new database."""
    accept(history, propose(history, "提现多少钱"), place, "阿兰")
    fresh = History.open(place.model_copy(update={"history": f"sqlite:///{tmp_path}/new.db"}))
    accept(fresh, propose(fresh, "充值多久到", passage="guide.md#充值"), place, "阿兰")
    fresh.close()
    assert "提现多少钱" in words_of(place)
    assert "充值多久到" in words_of(place)


def test_many_at_once_are_all_written_and_each_once(place, history):
    numbers = [propose(history, f"提现问题{n}") for n in range(12)]
    errors = []

    def take(number):
        try:
            accept(history, number, place, f"m{threading.get_ident()}")
        except Taken as error:
            errors.append(error)

    threads = [threading.Thread(target=take, args=(n,)) for n in numbers * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == len(numbers)
    assert all(words_of(place).count(f"- 提现问题{n}\n") == 1 for n in range(12))
    assert not load_corpus(place.corpus, place).skipped


HAND_EDITED = [
    "# mine\n- questions: [手写的]   # a note\n  passage: guide.md#充值\n",
    "- {question: 手写的, passage: guide.md#充值}",
    "- questions:\r\n  - 手写的\r\n  passage: guide.md#充值\r\n",
    "\ufeff- questions: [手写的]\n  answer: |\n    一\n\n    二\n",
    "# nothing but a comment\n",
    "---\n- questions: [手写的]\n  passage: guide.md#充值\n",
]


@pytest.mark.parametrize("written", HAND_EDITED)
def test_every_byte_that_stands_there_stays_as_it_was(place, history, written):
    (place.corpus / FILE).write_bytes(written.encode())
    accept(history, propose(history, "提现多少钱"), place, "阿兰")
    assert accepted_file(place).startswith(written.encode())
    corpus = load_corpus(place.corpus, place)
    assert not corpus.skipped
    asked = [question for one in corpus.variants for question in one.questions]
    assert asked.count("提现多少钱") == 1


@pytest.mark.parametrize(
    "written",
    [
        "[]\n",
        "[{question: 手写的, passage: guide.md#充值}]\n",
        "  - {question: 手写的, passage: guide.md#充值}\n",
        "a: mapping\n",
        "- broken: [\n",
        "- questions: [手写的]\n  passage: guide.md#充值\n...\n",
        "- questions: 手写的 but no answer\n",
    ],
)
def test_a_form_that_nothing_can_be_added_to_is_said_and_left_alone(place, history, written):
    (place.corpus / FILE).write_text(written, "utf-8")
    number = propose(history, "提现多少钱")
    with pytest.raises(BadInput):
        accept(history, number, place, "阿兰")
    assert words_of(place) == written
    assert [one.state for one in history.proposals()] == ["new"]


@pytest.mark.parametrize("name", ["utf-16", "gb18030"])
def test_a_file_that_is_not_utf_8_is_never_mixed(place, history, name):
    written = "- questions: [手写的问题在这里]\n  passage: guide.md#充值\n".encode(name)
    (place.corpus / FILE).write_bytes(written)
    with pytest.raises(BadInput, match="UTF-8"):
        accept(history, propose(history, "提现多少钱"), place, "阿兰")
    assert accepted_file(place) == written


def test_a_link_is_not_written_through(place, history, tmp_path):
    (tmp_path / "elsewhere").write_text("- mine\n")
    (place.corpus / FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotWritten, match="plain file"):
        accept(history, propose(history, "提现多少钱"), place, "阿兰")
    assert (tmp_path / "elsewhere").read_text() == "- mine\n"


def test_the_mode_of_the_file_is_kept(place, history):
    accept(history, propose(history, "提现多少钱"), place, "阿兰")
    (place.corpus / FILE).chmod(0o640)
    accept(history, propose(history, "充值多久到"), place, "阿兰")
    assert (place.corpus / FILE).stat().st_mode & 0o777 == 0o640


TEXTS = st.text(
    alphabet=st.one_of(
        st.characters(), st.sampled_from("#:-|>'\"{}[]&*!%@`\\ \n\t\r\x85\u2028\ufeff")
    ),
    max_size=60,
)


@given(st.lists(TEXTS, min_size=1, max_size=3), TEXTS)
def test_whatever_the_words_the_loader_reads_what_was_proposed(questions, answer):
    asked = [line for q in questions if (line := " ".join(clean(q).split()))]
    said = clean(answer).strip()
    written = entry(proposal(questions, "", answer))
    if not asked or not said:
        with pytest.raises(BadInput):
            qa_yaml(written, FILE)
        return
    read = qa_yaml(written, FILE)
    assert read.text == f"{asked[0]}\n{said}\n\n"
    others = tuple(dict.fromkeys(asked))[1:]
    assert tuple(q for one in read.variants for q in one.questions) == others


def test_an_answer_of_several_lines_can_be_read_and_edited_in_the_file():
    assert "answer: |-\n    一\n\n    二：三\n" in entry(proposal(["q"], "", "一\n\n二：三"))


# --- Refusing what a build would not take ---------------------------------------------------------


@pytest.mark.parametrize("passage", ["guide.md#没有", "nothing.md#提现", "guide.md", ""])
def test_a_passage_that_is_none_is_not_written(place, history, passage):
    number = history.propose(("提现多少钱",), passage, "", "小李", "gap").id
    with pytest.raises(BadInput):
        accept(history, number, place, "阿兰")
    assert not (place.corpus / FILE).exists()
    assert [one.state for one in history.proposals()] == ["new"]


def test_a_passage_of_a_page_written_since_the_build_may_be_named(place, history):
    (place.corpus / "new.md").write_text("# 新\n\n## 汇率\n\n每天更新。\n", "utf-8")
    accept(history, propose(history, "汇率多少", passage="new.md#汇率"), place, "阿兰")
    assert "汇率多少" in words_of(place)


def test_a_number_that_is_none_is_not_found(place, history):
    for act in (accept, refuse):
        with pytest.raises(NotFound):
            act(history, 7, place, "阿兰")


def test_a_review_says_what_is_written_and_what_is_odd(place):
    (place.corpus / "more.qa.yaml").write_text(
        "- {questions: [充值多久], passage: 'guide.md#充值'}\n", "utf-8"
    )
    official = proposal(["电话多少"], "", "请打 400-820-8820。")
    strange = proposal(["微信多少"], "", "请打 400-123-4567 或加微信 topay888。")
    double = proposal(["充值多久", "提现多久"], "guide.md#提现")
    same = proposal(["充值多久"], "guide.md#充值")
    broken = proposal(["x"], "guide.md#没有")
    seen = review([official, strange, double, same, broken], place)
    assert [one.contacts for one in seen] == [(), ("400-123-4567", "topay888"), (), (), ()]
    assert [one.elsewhere for one in seen] == [(), (), (("充值多久", "guide.md#充值"),), (), ()]
    assert [bool(one.problem) for one in seen] == [False, False, False, False, True]
    assert [one.words for one in seen] == [
        entry(one) for one in (official, strange, double, same, broken)
    ]


def test_a_corpus_that_cannot_be_read_is_the_problem_of_each(place):
    (place.corpus / "guide.md").unlink()
    (seen,) = review([proposal()], place)
    assert "no guide text" in seen.problem


# --- Cut short -----------------------------------------------------------------------------------

KILLED = """
import os, sys
from pathlib import Path
from assistant import proposals
from assistant.history import History
from assistant.settings import Settings

corpus, database, at = sys.argv[1:]
settings = Settings(corpus=Path(corpus), history=database)
history = History.open(settings)
count = 0

def dying(real, name):
    def step(*given):
        global count
        count += 1
        if at == f"{name}{count}":
            os._exit(9)
        return real(*given)
    return step

proposals.os = type(sys)("os")
proposals.os.__dict__.update(os.__dict__)
proposals.os.fsync = dying(os.fsync, "fsync")
proposals.os.replace = dying(os.replace, "replace")
History.decide = dying(History.decide, "decide")
proposals.accept(history, 1, settings, "first")
os._exit(0)
"""


MINE = "# mine\n- {question: 手写的, passage: guide.md#充值}\n"


@pytest.mark.parametrize(
    ("at", "standing"), [("fsync1", ""), ("replace2", MINE), ("fsync3", ""), ("decide4", MINE)]
)
def test_killed_at_any_step_the_corpus_is_whole_and_accepting_again_works(place, at, standing):
    if standing:
        (place.corpus / FILE).write_text(standing, "utf-8")
    history = History.open(place)
    number = propose(history, "提现多少钱")
    history.close()
    run = [sys.executable, "-c", KILLED, str(place.corpus), place.history, at]
    assert subprocess.run(run, timeout=60, cwd=place.corpus.parent).returncode == 9
    corpus = load_corpus(place.corpus, place)
    assert not corpus.skipped
    assert words_of(place).startswith(standing)
    history = History.open(place)
    assert history.proposals()[0].state == "new"
    assert accept(history, number, place, "second").decided_by == "second"
    history.close()
    assert words_of(place).count("提现多少钱") == 1
    assert sorted(os.listdir(place.corpus)) == [FILE, "contacts.toml", "guide.md"]
    assert not load_corpus(place.corpus, place).skipped


class _Unsaving(History):
    def decide(self, *_, **__):
        raise NotSaved("the database is full")


@pytest.mark.parametrize("standing", [b"", b"# mine\r\n- {question: q, passage: guide.md#\xe6}\n"])
def test_a_decision_that_is_not_saved_leaves_the_file_as_it_was(place, history, standing):
    standing = standing.replace(b"\xe6", "充值".encode())
    if standing:
        (place.corpus / FILE).write_bytes(standing)
    number = propose(history, "提现多少钱")
    history.__class__ = _Unsaving
    with pytest.raises(NotSaved):
        accept(history, number, place, "阿兰")
    assert accepted_file(place) == standing
    assert (place.corpus / FILE).exists() == bool(standing)


def test_what_a_killed_accepting_left_is_taken_out_when_it_is_refused(place, history):
    accept(history, propose(history, "充值多久到", passage="guide.md#充值"), place, "阿兰")
    kept = words_of(place)
    number = propose(history, "提现多少钱")
    left = next(one for one in history.proposals() if one.id == number)
    (place.corpus / FILE).write_text(f"{kept}\n{entry(left)}", "utf-8")
    assert refuse(history, number, place, "阿兰", "wrong").state == "refused"
    assert words_of(place).strip() == kept.strip()


def test_refusing_what_was_accepted_takes_nothing_out(place, history):
    number = propose(history, "提现多少钱")
    accept(history, number, place, "阿兰")
    kept = words_of(place)
    with pytest.raises(Taken):
        refuse(history, number, place, "老王")
    assert words_of(place) == kept


def test_refusing_writes_nothing(place, history):
    refuse(history, propose(history, "提现多少钱"), place, "阿兰")
    assert not (place.corpus / FILE).exists()


# --- Afterwards ----------------------------------------------------------------------------------


def test_an_accepted_entry_waits_is_built_or_gone(place, history):
    encoder = CharacterEncoder()
    number = propose(history, "提现多少钱", "取钱要钱吗")
    one = accept(history, number, place, "阿兰")

    def now():
        index = Desk(place, encoder).index
        manifest = generations.current(place.index).generation.manifest
        built = manifest.corpus.get(FILE, "")
        return standing(one, accepted_file(place), questions_of(index), built)

    data = accepted_file(place)
    (place.corpus / FILE).unlink()
    build(place, encoder)
    assert now() == "gone"
    (place.corpus / FILE).write_bytes(data)
    assert now() == "waiting"
    build(place, encoder)
    assert now() == "built"
    edited = data.replace("取钱要钱吗".encode(), "取现要钱吗".encode())
    (place.corpus / FILE).write_bytes(edited)
    build(place, encoder)
    assert now() == "built"
    assert hashlib.sha256(edited).digest() != hashlib.sha256(data).digest()


def test_a_thousand_votes_change_not_one_byte_of_the_index(place, history):
    """Feedback never changes the index by itself; nor does a proposal that nobody accepted."""
    encoder = CharacterEncoder()
    build(place, encoder)
    desk = Desk(place, encoder)

    def state():
        files = sorted(path for path in place.index.rglob("*") if path.is_file())
        return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    before, answer = state(), desk.ask("提现要多少钱")
    conversation = history.new_conversation()
    turn = history.keep(conversation, answer)

    def vote(_):
        history.vote(conversation, turn, -1, "wrong_passage", "错的")

    with ThreadPoolExecutor(20) as voters:
        list(voters.map(vote, range(1000)))
    propose(history, "提现多少钱")
    assert [day.down for day in history.days()] == [1]
    assert state() == before
    assert desk.ask("提现要多少钱").quotes == answer.quotes
    assert not (place.corpus / FILE).exists()
