"""The command line: the contract's objects, exit codes, one line on stderr, nothing lost."""

import io
import json
import os
import subprocess
import sys

import pytest

from assistant import generations
from assistant.cli import main
from assistant.settings import load_settings

GUIDE = "topay-contact-guide.md"


@pytest.fixture
def places(guide):
    return ["--corpus", str(guide.corpus), "--index", str(guide.index)]


@pytest.fixture
def own(settings):
    return ["--corpus", str(settings.corpus), "--index", str(settings.index)]


def run(capsys, *arguments):
    """Run a command; return its exit code, standard output and error lines."""
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err.splitlines()


def test_ask_prints_the_guides_words_with_their_place_and_confidence(capsys, places):
    code, out, errors = run(capsys, "ask", "忘记登录密码了怎么办", *places)
    assert (code, errors) == (0, [])
    assert "在登录页面选择“忘记密码”。" in out
    assert "2. 密码找回" in out
    assert f"{GUIDE}:1376-1534" in out
    assert "%" in out.splitlines()[0]


def test_ask_json_is_one_object(capsys, places):
    code, out, _ = run(capsys, "ask", "忘记密码", "--json", *places)
    answer = json.loads(out)
    assert code == 0
    assert out.count("\n") == 1
    assert answer["quotes"][0]["path"] == GUIDE


def test_a_batch_gives_one_object_a_line_in_order(capsys, places, guide, tmp_path):
    asked = ["充值没到账", "", "How do I reset my password?", "   ", "联系客服要准备什么"]
    file = tmp_path / "questions.txt"
    file.write_text("\ufeff" + "\r\n".join(asked), "utf-8")
    code, out, _ = run(capsys, "ask", "--batch", file, *places)
    answers = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [a["question"] for a in answers] == [q for q in asked if q.strip()]
    text = (guide.corpus / GUIDE).read_text("utf-8")
    for answer in answers:
        for quote in answer["quotes"]:
            assert text[quote["start"] : quote["end"]] == quote["text"]


def test_a_bad_line_of_a_batch_is_reported_in_its_place(capsys, places, monkeypatch):
    lines = "???\n忘记密码\n".encode() + b"\xff\xfe broken\n" + "长".encode() * 5000
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    code, out, _ = run(capsys, "ask", "--batch", "-", *places)
    answers = [json.loads(line) for line in out.splitlines()]
    assert code == 4
    assert ["error" in answer for answer in answers] == [True, False, False, True]


def test_search_lists_raw_scores(capsys, places):
    code, out, _ = run(capsys, "search", "冻结账户", "--top-k", "2", "--json", *places)
    hits = json.loads(out)
    assert code == 0
    assert len(hits) == 2
    assert {"similarity", "lexical", "coverage", "score", "chunk"} <= hits[0].keys()
    code, out, _ = run(capsys, "search", "冻结账户", "--top-k", "1000000000", "--json", *places)
    assert (code, len(json.loads(out))) == (0, 17)
    code, out, _ = run(capsys, "search", "冻结账户", *places)
    assert out.startswith("1. ")
    assert "BM25" in out


def test_build_reports_and_says_when_a_file_wants_a_look(capsys, own, settings):
    code, out, _ = run(capsys, "build", *own)
    assert code == 0
    for words in ("files read", "sections", "passages", "views", "reused", "skipped"):
        assert words in out
    (settings.corpus / "photo.png").write_bytes(b"\x89PNG")
    code, out, _ = run(capsys, "build", *own)
    assert code == 1
    assert "photo.png: not a guide file" in out
    assert "0 encoded" in out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["ask"], 2, "give a question"),
        (["ask", "???"], 4, "no words"),
        (["ask", "x" * 3000], 4, "at most 2000"),
        (["ask", "--batch", "absent.txt"], 4, "absent.txt"),
        (["search", "冻结账户", "--top-k", "0"], 4, "whole number of at least 1, not 0."),
        (["search", "冻结账户", "--top-k", "-1"], 4, "whole number of at least 1, not -1."),
        (["ask", "忘记密码", "--corpus", "nowhere", "--index", "new"], 4, "no corpus folder"),
        (["ask", "忘记密码", "--model", "/no/such/model"], 3, "no model folder"),
        (["serve", "--host", "198.51.100.1", "--port", "1"], 2, "--port"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_exit_code(capsys, places, arguments, code, words):
    given = arguments if "--corpus" in arguments else [*arguments, *places]
    seen, out, errors = run(capsys, *given)
    assert (seen, out) == (code, "")
    assert [line for line in errors if words in line]
    assert not any("Traceback" in line for line in errors)


def test_wrong_use_exits_with_two():
    for arguments in ([], ["sing"], ["ask", "--loud"], ["search"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2


def test_wrong_settings_are_named(capsys, monkeypatch):
    monkeypatch.setenv("ASSISTANT_TOP_K", "many")
    code, _, errors = run(capsys, "ask", "忘记密码")
    assert code == 2
    assert "top_k" in errors[-1]
    assert "'many'" in errors[-1]


@pytest.mark.parametrize(
    ("given", "origins"),
    [
        ("http://shop.example", ("http://shop.example",)),
        (
            " http://a.example, https://b.example:8080,",
            ("http://a.example", "https://b.example:8080"),
        ),
        ('["http://a.example"]', ("http://a.example",)),
        ("", ()),
    ],
)
def test_a_list_is_parted_by_commas_or_json(monkeypatch, given, origins):
    monkeypatch.setenv("ASSISTANT_WIDGET_ORIGINS", given)
    assert load_settings().widget_origins == origins


@pytest.mark.parametrize("given", ["[", '["http://a.example', "shop.example", "[1]", "{}"])
def test_a_list_that_is_none_is_one_line(capsys, monkeypatch, given):
    monkeypatch.setenv("ASSISTANT_WIDGET_ORIGINS", given)
    code, _, errors = run(capsys, "ask", "忘记密码")
    assert code == 2
    assert len(errors) == 1
    assert "widget_origins" in errors[0]


@pytest.mark.parametrize("file", [b"top_k = ", b"\xff\xfe"])
def test_a_file_of_settings_that_is_none_is_one_line(capsys, monkeypatch, tmp_path, file):
    (tmp_path / "assistant.toml").write_bytes(file)
    monkeypatch.chdir(tmp_path)
    code, _, errors = run(capsys, "ask", "忘记密码")
    assert code == 2
    assert len(errors) == 1
    assert "assistant.toml" in errors[0]


def test_another_guides_index_is_refused_not_asked(capsys, places, guide, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "library.md").write_text("# 借书\n\n每人最多借五本书。\n", "utf-8")
    arguments = ["--corpus", mine, "--index", guide.index]
    code, out, errors = run(capsys, "ask", "最多借几本书", *arguments)
    assert (code, out) == (3, "")
    assert "another --index" in errors[-1]
    assert "assistant build" in errors[-1]


def test_a_corpus_folder_that_moved_keeps_its_index(capsys, own, settings):
    assert run(capsys, "build", *own)[0] == 0
    moved = settings.corpus.rename(settings.corpus.with_name("moved"))
    for corpus in (moved, settings.corpus):  # elsewhere, and not there at all
        arguments = ["ask", "忘记密码", "--corpus", corpus, "--index", settings.index]
        code, _, errors = run(capsys, *arguments)
        assert code == 0
        missing = f"assistant: no corpus folder at {corpus}; what is in {settings.index} answers"
        assert errors == [missing] * (corpus != moved)


def test_a_variable_that_is_no_setting_is_named_with_the_closest(capsys, places, monkeypatch):
    monkeypatch.setenv("ASSISTANT_TOPK", "5")
    said = "the variable ASSISTANT_TOPK is no setting and changes nothing; did you mean "
    assert run(capsys, "ask", "忘记密码", *places)[2] == [f"assistant: {said}ASSISTANT_TOP_K?"]
    _, out, errors = run(capsys, "doctor", *places)
    assert said in out
    assert errors == []


def test_doctor_names_what_is_wrong_and_the_repair(capsys, own, settings):
    assert run(capsys, "build", *own)[0] == 0
    code, out, _ = run(capsys, "doctor", *own)
    assert code == 0
    assert "everything is in order" in out
    assert "faiss-cpu" in out
    (settings.corpus / "more.md").write_text("# 更多\n\n新的一段。\n", "utf-8")
    code, out, _ = run(capsys, "doctor", *own)
    assert (code, "more.md" in out) == (0, True)
    newest = generations.current(settings.index).generation.folder
    (newest / "views.jsonl").write_bytes(b"")
    code, out, _ = run(capsys, "doctor", *own)
    assert code == 3
    assert "views.jsonl" in out
    assert "assistant build" in out


def test_doctor_names_what_leads_nowhere_in_the_list_of_contacts(capsys, own, settings):
    path = settings.corpus / "contacts.toml"
    path.write_text(path.read_text("utf-8").replace("#2. 在线客服", "#2. 在线"), "utf-8")
    _, out, _ = run(capsys, "doctor", *own)
    assert "look at contacts.toml: [[channel]] number 1" in out
    path.unlink()
    _, out, _ = run(capsys, "doctor", *own)
    assert "look at contacts.toml: there is none" in out


def test_doctor_without_an_index_says_how_to_build_one(capsys, own):
    code, out, _ = run(capsys, "doctor", *own)
    assert code == 3
    assert "Build it with: assistant build" in out


def test_a_damaged_index_falls_back_with_a_note_and_build_repairs_it(capsys, own, settings):
    for _ in range(2):
        assert run(capsys, "build", *own)[0] == 0
    newest = generations.current(settings.index).generation.folder
    (newest / "chunks.jsonl").write_bytes(b"{}\n")
    code, out, errors = run(capsys, "ask", "忘记密码", *own)
    assert code == 0
    assert "忘记密码" in out
    assert "chunks.jsonl" in errors[0]
    assert run(capsys, "build", *own)[0] == 0
    assert run(capsys, "ask", "忘记密码", *own)[2] == []


def test_answers_cannot_drive_a_terminal(capsys, own, settings):
    text = "# 彩虹\n\n彩虹\x1b[31m红\u202e字七色。" + "雨过天晴时空中会出现一道彩虹。" * 8
    (settings.corpus / "evil.md").write_text(text, "utf-8")
    assert run(capsys, "build", *own)[0] == 1
    _, out, _ = run(capsys, "search", "彩虹七色", *own)
    assert "彩虹" in out
    assert "\x1b" not in out
    assert "\u202e" not in out


def test_a_cold_question_imports_nothing_heavy(places):
    code = (
        "import sys; from assistant.cli import main;"
        f"main(['ask', '忘记密码', *{places!r}]);"
        "heavy = {'torch', 'gradio', 'sentence_transformers', 'transformers', 'sklearn', 'scipy', "
        "'pandas', 'langchain_text_splitters', 'fastapi', 'sqlalchemy'};"
        "sys.exit(str(sorted(heavy & sys.modules.keys())))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "[]"


def test_a_reader_that_goes_away_is_no_error(places):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "assistant.cli", "ask", "忘记密码", *places]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
