"""The desk answers: exact quotes, the contract object, reload without a restart."""

import json
import shutil
import threading

import orjson
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from assistant import generations
from assistant.build import build
from assistant.desk import Desk
from assistant.errors import BadInput, CorpusEmpty
from assistant.settings import Settings

GUIDE = "topay-contact-guide.md"
ASKED = [
    ("充值没到账怎么办", "1. 充值不成功"),
    ("忘记登录密码了", "2. 密码找回"),
    ("How do I reset my password?", "2. 密码找回"),
    ("跟商家有纠纷怎么处理", "4. 交易纠纷的处理"),
    ("在线客服在哪里", "2. 在线客服"),
    ("儲值失敗怎麼辦", "1. 充值不成功"),
]


def check_quotes(desk, answer):
    """Laws 1 and 2 on an answer: every quote and highlight is an exact span."""
    for quote in answer.quotes:
        document = desk.document(quote.path)
        assert document.text[quote.start : quote.end] == quote.text
        ends = 0
        for begin, end in quote.highlights:
            assert ends <= begin < end <= len(quote.text)
            ends = end


@pytest.mark.parametrize(("question", "heading"), ASKED)
def test_the_right_passage_is_quoted_first(desk, question, heading):
    answer = desk.ask(question)
    assert answer.verdict == "answered"
    assert answer.quotes[0].headings[-1] == heading
    assert answer.handoff is None
    check_quotes(desk, answer)


def test_a_quote_is_a_span_of_the_corpus_file(desk, guide):
    text = (guide.corpus / GUIDE).read_text("utf-8")
    for question, _ in ASKED:
        for quote in desk.ask(question).quotes:
            assert text[quote.start : quote.end] == quote.text


def test_a_passage_that_stands_in_two_files_is_quoted_once_and_is_no_other_meaning(
    guide, encoder, tmp_path
):
    shutil.copytree(guide.corpus, tmp_path / "corpus")
    shutil.copy(guide.corpus / GUIDE, tmp_path / "corpus" / "again.md")
    twice = Settings(corpus=tmp_path / "corpus", index=tmp_path / "index")
    (warning,) = build(twice, encoder).warnings
    assert "the same content as again.md" in warning.reason
    doubled = Desk(twice, encoder)
    for question, _ in ASKED:
        answer = doubled.ask(question)
        texts = [quote.text for quote in answer.quotes]
        assert len(set(texts)) == len(texts)
        assert answer.handoff is None or answer.handoff.reason != "ambiguous"


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(codec=None, categories=None), max_size=60))
def test_whatever_is_asked_the_laws_hold(desk, question):
    try:
        answer = desk.ask(question)
    except BadInput:
        return
    check_quotes(desk, answer)
    assert 0 <= answer.confidence <= 1
    assert (answer.handoff is None) == (answer.verdict == "answered") or not answer.quotes
    orjson.dumps(answer)


@pytest.mark.parametrize(
    "question",
    [
        "支持哪些银行卡",
        "今天天气怎么样",
        "推荐一部电影",
        "写一首诗",
        "What is the capital of France?",
    ],
)
def test_what_the_guide_does_not_cover_is_not_answered(desk, question):
    answer = desk.ask(question)
    assert answer.verdict != "answered"
    assert answer.handoff is not None
    assert answer.handoff.channels
    assert answer.handoff.checklist


@pytest.mark.parametrize("question", ["你好", "谢谢!", "在吗？", "hello", "Thank you"])
def test_small_talk_gets_a_friendly_line(desk, question):
    answer = desk.ask(question)
    assert (answer.verdict, answer.quotes, answer.handoff) == ("unanswered", (), None)
    assert answer.message


def test_the_object_is_that_of_the_contract(desk):
    answer = json.loads(orjson.dumps(desk.ask("支持哪些国家")))
    assert list(answer) == [
        "question",
        "verdict",
        "confidence",
        "message",
        "quotes",
        "handoff",
        "generation",
        "elapsed_ms",
    ]
    assert list(answer["quotes"][0]) == [
        "text",
        "path",
        "title",
        "headings",
        "start",
        "end",
        "highlights",
        "similarity",
        "lexical",
        "score",
        "url",
    ]
    assert list(answer["handoff"]) == ["reason", "message", "channels", "checklist", "ticket_draft"]
    assert list(answer["handoff"]["channels"][0]) == ["name", "quote", "contact"]
    assert list(answer["handoff"]["checklist"][0]) == ["item", "quote"]
    assert answer["generation"] == desk.generation


def test_the_same_question_gives_the_same_answer_to_the_byte(guide, encoder):
    """Law 9, over two desks; only the time taken may differ."""
    desks = [Desk(guide, encoder), Desk(guide, encoder)]
    for question, _ in ASKED:
        first, second = (
            {**json.loads(orjson.dumps(d.ask(question))), "elapsed_ms": 0} for d in desks
        )
        assert orjson.dumps(first) == orjson.dumps(second)


def test_no_contact_is_shown_that_the_operator_did_not_list(desk, settings, encoder):
    answer = desk.ask("客服电话多少 400-123-4567 是官方的吗")
    assert answer.verdict != "answered"
    assert all(channel.contact is None for channel in answer.handoff.channels)
    path = settings.corpus / "contacts.toml"
    text = path.read_text("utf-8").replace('contact = ""', 'contact = "chat.example"', 1)
    path.write_text(text, "utf-8")
    build(settings, encoder)
    shown = {c.contact for c in Desk(settings, encoder).ask("转人工").handoff.channels}
    assert shown == {"chat.example", None}


def test_secrets_are_masked_before_anything_else(desk):
    answer = desk.ask("我的卡4111111111111111充值失败，密码是abc12345")
    written = orjson.dumps(answer).decode()
    assert "4111" not in written
    assert "abc12345" not in written


def test_bad_questions_are_refused_with_a_sentence(desk):
    for question in ("", "  ", "???", "x" * 10_000_000):
        with pytest.raises(BadInput, match=" / "):
            desk.ask(question)


@pytest.mark.parametrize("question", [None, 5, b"x", ["x"], True])
def test_what_is_no_text_is_told_so_by_its_kind(desk, question):
    for refuse in (desk.ask, desk.search, desk.hand_off):
        with pytest.raises(BadInput, match=rf"str.* / .*\(str\), not {type(question).__name__}\."):
            refuse(question)


def test_a_desk_is_opened_with_settings_and_says_so(tmp_path):
    for wrong in (str(tmp_path), tmp_path, ""):
        with pytest.raises(TypeError, match=f"takes Settings, not {type(wrong).__name__}"):
            Desk.open(wrong)


@pytest.mark.parametrize("top_k", [0, -1, -(10**12), "5", 2.5, True, None])
def test_a_number_of_passages_that_is_none_is_refused_with_a_sentence(desk, top_k):
    with pytest.raises(BadInput, match=r"top_k .* / top_k must be a whole number"):
        desk.search("冻结账户", top_k=top_k)


def test_a_search_for_more_than_there_is_gives_all_of_it(desk):
    """Also where a limit of that size cannot be allocated."""
    count = len(desk.index)
    everything = desk.search("冻结账户", top_k=count)
    assert len(everything) == count
    for top_k in (count + 1, 10**9, 2**63, 10**30):
        assert desk.search("冻结账户", top_k=top_k) == everything


def test_a_desk_without_an_index_builds_it_first(settings):
    desk = Desk.open(settings)
    assert desk.ask("忘记密码").quotes[0].path == GUIDE


def test_an_empty_corpus_is_an_error_and_the_old_index_stays(settings, encoder):
    build(settings, encoder)
    before = generations.current(settings.index).generation.id
    for path in settings.corpus.glob("*.*"):
        path.unlink()
    with pytest.raises(CorpusEmpty):
        build(settings, encoder)
    assert generations.current(settings.index).generation.id == before


def test_a_new_sentence_is_answered_without_a_restart(settings, encoder):
    build(settings, encoder)
    desk = Desk(settings, encoder)
    first = desk.generation
    path = settings.corpus / "fees.md"
    path.write_text("# 提现手续费\n\n提现手续费是每笔两元,按月结算。\n", "utf-8")
    build(settings, encoder)
    answer = desk.ask("提现手续费是多少")
    assert answer.generation != first
    assert "每笔两元" in answer.quotes[0].text


def test_a_bad_new_index_leaves_the_good_one_serving_with_a_note(settings, encoder):
    build(settings, encoder)
    desk = Desk(settings, encoder)
    first = desk.ask("忘记密码").generation
    build(settings, encoder)
    newest = generations.current(settings.index).generation
    (newest.folder / "vectors.faiss").write_bytes(b"")
    answer = desk.ask("忘记密码")
    assert answer.generation == first
    assert answer.quotes
    assert "vectors.faiss" in desk.notes[0]


def test_many_threads_get_the_answers_one_gets(desk):
    expected = {q: desk.ask(q).quotes for q, _ in ASKED}
    wrong = []

    def ask():
        for _ in range(30):
            for question, _ in ASKED:
                if desk.ask(question).quotes != expected[question]:
                    wrong.append(question)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_anyones_guide_without_contacts_or_labels_works(tmp_path, encoder):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "guide.md").write_text(
        "# 借书\n\n每人最多借五本书,期限三十天。\n\n# 还书\n\n逾期每天罚款一角。\n\n"
        "# 办证\n\n带身份证到前台办理借书证。\n",
        "utf-8",
    )
    desk = Desk.open(Settings(corpus=folder, index=tmp_path / "index"))
    assert desk.ask("最多能借几本书").quotes[0].headings == ("借书",)
    assert desk.ask("写一首关于春天的诗").verdict != "answered"


def test_labelled_questions_of_the_shipped_guide_name_real_passages(desk, guide):
    from assistant.questions import locate, read_questions

    for path in sorted((guide.corpus / "questions").glob("*.yaml")):
        assert locate(read_questions(path), list(desk.index.chunks()))
        assert yaml.safe_load(path.read_text("utf-8"))
