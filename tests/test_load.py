"""Every corpus file is read right, or skipped and named with the reason."""

import io
import os
import socket
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant.errors import BadInput, CorpusEmpty
from assistant.load import decode, load_corpus
from assistant.settings import Settings

CHINESE = (
    "# 充值\n\n用户可以在钱包里充值,如果没有到账,请检查网络和银行卡的状态。\n\n价格是100元。\n"
)


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "guide"
    folder.mkdir()
    (folder / "good.md").write_text(CHINESE, "utf-8")
    return folder


def load(folder, **values):
    return load_corpus(folder, Settings(**values))


def reasons(folder, **values):
    return {one.path: one.reason for one in load(folder, **values).skipped}


@pytest.mark.parametrize(
    ("name", "mark"),
    [
        ("utf-8", b""),
        ("utf-8", b"\xef\xbb\xbf"),
        ("utf-16-le", b"\xff\xfe"),
        ("utf-16-be", b"\xfe\xff"),
        ("utf-16-le", b""),
        ("utf-16-be", b""),
        ("gb18030", b""),
        ("gbk", b""),
    ],
)
def test_one_page_in_eight_encodings_is_one_text(name, mark):
    assert decode(mark + CHINESE.encode(name)) == CHINESE


@given(st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FA5), min_size=1, max_size=80))
def test_utf8_chinese_is_never_taken_for_something_else(text):
    assert decode(text.encode("utf-8")) == text


@given(st.binary(min_size=1, max_size=200))
def test_bytes_decode_to_themselves_or_not_at_all(data):
    try:
        text = decode(data)
    except BadInput:
        return
    assert (
        "\ufffd" not in text
        or b"\xef\xbf\xbd" in data
        or b"\xfd\xff" in data
        or b"\xff\xfd" in data
    )
    assert "\0" not in text


@pytest.mark.parametrize("at", [0, 7, 40, 90])
def test_one_wrong_byte_names_its_offset(at):
    data = bytearray(CHINESE.encode("utf-8"))
    while data[at] & 0xC0 == 0x80:
        at += 1
    data[at] = 0xFF
    with pytest.raises(BadInput, match=f"offset {at}"):
        decode(bytes(data))


def test_big5_is_read_right():
    text = "儲值失敗時請檢查網路連線是否正常，並聯絡客服人員。"
    assert decode(text.encode("big5")) == text


BAD = {
    "empty.md": (b"", "empty"),
    "space.md": (b" \n\t\n", "empty"),
    "mark.txt": (b"\xef\xbb\xbf", "empty"),
    "binary.txt": (bytes(range(256)) * 4, "binary"),
    "really.txt": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n", "binary"),
    "zip.md": (b"PK\x03\x04" + b"\x00" * 30, "binary"),
    "image.png": (b"\x89PNG\r\n", "not a guide file"),
    "wrong.pdf": (b"not a pdf at all", "not a readable PDF"),
    "wrong.docx": (b"not a docx at all", "not a readable DOCX"),
    "cut.md": ("只有一半".encode()[:-1] + "，后面还有很多中文。".encode(), "breaks UTF-8"),
    "only.html": (b"<html><script>alert(1)</script></html>", "no text"),
    "list.qa.yaml": (b"just: a mapping", "expected a YAML list"),
    "bomb.qa.yaml": (b"a: &a [x,x]\nb: [*a,*a]\n", "aliases"),
    "deep.qa.yaml": (b"[" * 5000, "YAML"),
    "half.qa.yaml": ("- questions: [问]\n".encode(), "needs questions, and an answer"),
    "wrong.qa.csv": (b"a,b\n1,2\n", "columns question and answer"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_skipped_and_named_and_the_rest_is_read(corpus, name):
    data, words = BAD[name]
    (corpus / name).write_bytes(data)
    found = load(corpus)
    assert [d.path for d in found.documents] == ["good.md"]
    assert [one.path for one in found.skipped] == [name]
    assert words in found.skipped[0].reason


def test_an_oversized_file_is_skipped_unread(corpus):
    (corpus / "big.txt").write_bytes(b"x")
    os.truncate(corpus / "big.txt", 3 * 2**30)
    assert "setting max_file_mb" in reasons(corpus)["big.txt"]


def test_too_many_files_are_named(corpus):
    for i in range(5):
        (corpus / f"z{i}.md").write_text("# 标题\n\n文字。", "utf-8")
    found = load(corpus, max_files=3)
    assert len(found.documents) == 3
    assert all("setting max_files" in one.reason for one in found.skipped)


def test_strange_things_in_the_folder_never_hang_or_leak(corpus, tmp_path):
    canary = tmp_path / "secret.md"
    canary.write_text("# 机密\n\n金丝雀。", "utf-8")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "other.md").write_text("# 外面\n\n金丝雀。", "utf-8")
    (corpus / "leaves.md").symlink_to(canary)
    (corpus / "folder").symlink_to(tmp_path / "outside")
    (corpus / "loop").symlink_to(corpus)
    (corpus / "dangling.md").symlink_to(tmp_path / "nowhere")
    (corpus / "circle.md").symlink_to(corpus / "circle.md")
    os.mkfifo(corpus / "pipe.md")
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.getcwd()
        os.chdir(corpus)
        listening.bind("socket.md")
        os.chdir(here)
        (corpus / "new\nline.txt").write_text("# 名\n\n字。", "utf-8")
        with open(os.path.join(os.fsencode(corpus), b"bad\xff.md"), "w", encoding="utf-8") as file:
            file.write("# 名\n\n字。")
        found = load(corpus)
    assert not any("金丝雀" in d.text for d in found.documents)
    skipped = {one.path: one.reason for one in found.skipped}
    assert set(skipped) == {
        "leaves.md",
        "folder",
        "loop",
        "dangling.md",
        "circle.md",
        "pipe.md",
        "socket.md",
    }
    assert {"new\\nline.txt", "bad\\udcff.md"} <= {d.path for d in found.documents}


@pytest.mark.parametrize("times", [1, 2])
def test_a_file_that_is_still_being_written_is_read_whole_or_named(corpus, monkeypatch, times):
    """A writer that was cut off in the middle, and goes on while the reader waits for it."""
    path = corpus / "busy.md"
    path.write_text("# 名\n\n前一半，")
    parts = ["中间，", "后一半。"][-times:]
    written = path.read_text() + "".join(parts)

    def go_on(_seconds):
        if parts:
            with path.open("a") as file:
                file.write(parts.pop(0))

    monkeypatch.setattr("assistant.load.time.sleep", go_on)
    monkeypatch.setattr("assistant.load.time.time", lambda: path.stat().st_mtime)
    found = load(corpus)
    assert [d.text for d in found.documents if d.path == "busy.md"] == [written] * (times == 1)
    assert [one.path for one in found.skipped] == ["busy.md"] * (times > 1)


def test_a_link_inside_the_corpus_is_read(corpus):
    (corpus / "again.md").symlink_to(corpus / "good.md")
    assert [d.path for d in load(corpus).documents] == ["again.md", "good.md"]


def test_a_copy_of_a_file_is_named_with_the_file_it_copies(corpus):
    (corpus / "lending.md").write_text("# 借书\n\n每人五本。\n", "utf-8")
    (corpus / "more").mkdir()
    (corpus / "more" / "copy.md").symlink_to("../lending.md")
    (warning,) = load(corpus).warnings
    assert warning.path == "more/copy.md"
    assert "the same content as lending.md" in warning.reason


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("##12. 没有空格\n\n一。\n\n###二\n", "“##12. 没有空格”, and 1 more lines like it"),
        ("一。\n#Topic\n", "“#Topic”: no heading"),
        ("```\n#!/bin/sh\n#x\n```\n\n    #x\n\n一 `#x`。\n\n# 二 #x\n\n三。\n", ""),
    ],
)
def test_lines_that_only_look_like_headings_are_named(corpus, text, words):
    (corpus / "a.md").write_text(text, "utf-8")
    assert words in " ".join(one.reason for one in load(corpus).warnings)
    assert bool(words) == bool(load(corpus).warnings)


def test_an_empty_corpus_is_an_error_that_says_what_was_seen(tmp_path):
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "x.md").write_bytes(b"")
    with pytest.raises(CorpusEmpty, match=r"x\.md: empty"):
        load(tmp_path / "none")
    with pytest.raises(CorpusEmpty, match="--corpus DIR"):
        load(tmp_path / "missing")


def test_invisible_characters_are_reported_and_the_text_kept_exact(corpus):
    text = "# 标题\n\n文字\U000e0049\u202e有隐藏。\n"
    (corpus / "hidden.md").write_text(text, "utf-8")
    found = load(corpus)
    assert [d.text for d in found.documents if d.path == "hidden.md"] == [text]
    assert [(w.path, "U+202E" in w.reason) for w in found.warnings] == [("hidden.md", True)]


def test_questions_and_contacts_are_not_guide_text(corpus):
    (corpus / "questions").mkdir()
    (corpus / "questions" / "test.yaml").write_text("- {ask: 问, passage: null}", "utf-8")
    (corpus / "contacts.toml").write_text("", "utf-8")
    (corpus / "README.md").write_text("# Read me", "utf-8")
    (corpus / "sub").mkdir()
    (corpus / "sub" / "README.md").write_text("# 说明\n\n这是指南。", "utf-8")
    found = load(corpus)
    assert [d.path for d in found.documents] == ["good.md", "sub/README.md"]
    assert found.skipped == ()


def test_html_gives_visible_text_with_headings(corpus):
    (corpus / "page.html").write_text(
        "<html><head><title>帮助 中心</title><link rel=canonical href='https://h.example/a'>"
        "<style>p{}</style></head><body><nav>菜单</nav><h1>退款</h1><p>三天<br>到账&amp;通知</p>"
        "<p hidden>看不见</p><p style='display: none'>藏</p><script>x()</script>"
        "<table><tr><td>费用</td><td>一元</td></tr></table><div><h2>时间</h2>工作日</div></body></html>",
        "utf-8",
    )
    found = next(d for d in load(corpus).documents if d.kind == "html")
    assert found.text == "退款\n三天\n到账&通知\n费用 | 一元\n时间\n工作日\n"
    assert [(h.level, h.title) for h in found.headings] == [(1, "退款"), (2, "时间")]
    assert all(found.text[h.start : h.end] == h.title + "\n" for h in found.headings)
    assert (found.title, found.url) == ("帮助 中心", "https://h.example/a")


def test_deeply_nested_html_does_not_exhaust_the_stack(corpus):
    (corpus / "deep.html").write_text("<div>" * 20_000 + "深处" + "</div>" * 20_000, "utf-8")
    assert any("深处" in d.text for d in load(corpus).documents)


def test_questions_and_answers_become_sections_and_variants(corpus):
    (corpus / "faq.qa.yaml").write_text(
        "- questions: [多久退款, 退款要几天]\n  answer: 三个工作日。\n"
        "- question: 怎么充值\n  passage: good.md#充值\n",
        "utf-8",
    )
    (corpus / "more.qa.csv").write_text(
        "question,answer,question2\n收费吗|要钱吗,不收费。,免费吗\n", "utf-8-sig"
    )
    found = load(corpus)
    texts = {d.path: d.text for d in found.documents}
    assert texts["faq.qa.yaml"] == "多久退款\n三个工作日。\n\n"
    assert texts["more.qa.csv"] == "收费吗\n不收费。\n\n"
    assert [(v.passage, v.questions) for v in found.variants] == [
        ("faq.qa.yaml#多久退款", ("退款要几天",)),
        ("good.md#充值", ("怎么充值",)),
        ("more.qa.csv#收费吗", ("要钱吗", "免费吗")),
    ] or found.variants


def test_docx_is_read_in_order_with_its_headings(corpus):
    docx = pytest.importorskip("docx")
    made = docx.Document()
    made.add_heading("退款", 1)
    made.add_paragraph("三天到账。")
    table = made.add_table(1, 2)
    table.cell(0, 0).text, table.cell(0, 1).text = "费用", "一元"
    made.add_heading("时间", 2)
    made.add_paragraph("工作日。")
    made.save(corpus / "guide.docx")
    found = next(d for d in load(corpus).documents if d.kind == "docx")
    assert found.text == "退款\n三天到账。\n费用 | 一元\n时间\n工作日。\n"
    assert [(h.level, h.title) for h in found.headings] == [(1, "退款"), (2, "时间")]


def test_a_zip_bomb_under_a_docx_name_is_refused_unread(corpus):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(6):
            archive.writestr(f"word/{i}.xml", b"\0" * 100_000_000)
    (corpus / "bomb.docx").write_bytes(packed.getvalue())
    assert "unpacks to more than" in reasons(corpus)["bomb.docx"]


def test_pdf_text_is_read(corpus):
    pytest.importorskip("pypdf")
    (corpus / "guide.pdf").write_bytes(_pdf("Refunds take three days."))
    found = next(d for d in load(corpus).documents if d.kind == "pdf")
    assert "Refunds take three days." in found.text


def _pdf(words: str) -> bytes:
    """Write a one-page PDF by hand (ISO 32000-1)."""
    stream = f"BT /F1 12 Tf 72 700 Td ({words}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        b"/Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out = b"%PDF-1.4\n"
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return out + (
        b"xref\n0 6\n0000000000 65535 f \n%strailer << /Size 6 /Root 1 0 R >>\n"
        b"startxref\n%d\n%%%%EOF" % (table, len(out))
    )
