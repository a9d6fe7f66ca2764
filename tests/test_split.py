"""Laws 1 and 2: exact spans, and passages that cover their section."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assistant.errors import BadInput
from assistant.formats import markdown, plain
from assistant.records import Document, Variants
from assistant.split import chunks, find_section, sections, sentences, views

PIECES = st.sampled_from(
    [
        "充值没到账，请检查网络。",
        "如果失败？再试一次！",
        "Topay钱包",
        "see v1.2 at example.com. Then ",
        "e\u0301\u0301",
        "👩‍👩‍👧",
        "\n",
        "\r\n",
        "\n\n",
        "# 标题\n",
        "## 二、第二 ##\n",
        "标题\n===\n",
        "```\n# no heading\n```\n",
        "- 第一\n- 第二\n",
        "1. one\n2. two\n",
        "\u3000",
        " ",
        "\t",
        "“引文。”",
        "\u2028",
        "\x0b",
        "\x85",
        "\u00a0:",
        "一、开头\n",
        "(1) 步骤\n",
        "a" * 90,
        "钱" * 60,
        "|a|b|\n",
        "---\n",
    ]
)
TEXT = st.one_of(st.lists(PIECES, max_size=40).map("".join), st.text(max_size=300))


def document(text: str, reader=markdown) -> Document:
    parsed = reader(text)
    return Document(
        "g.md", parsed.title, parsed.text, parsed.kind, "0" * 64, parsed.headings, parsed.body
    )


@settings(max_examples=300, deadline=None)
@given(TEXT, st.sampled_from([markdown, plain]), st.integers(50, 200))
def test_every_section_and_passage_is_an_exact_span_and_passages_cover_sections(
    text, reader, limit
):
    made = document(text, reader)
    assert made.text == text
    found = sections(made)
    passages = chunks(made, limit)
    for one in (*found, *passages):
        assert made.text[one.start : one.end] == one.text
    for one in passages:
        assert one.text == one.text.strip() != ""
        assert len(one.text) <= limit * 1.2
    for section in found:
        covered = [False] * len(section.text)
        inside = [p for p in passages if section.start <= p.start < section.end]
        assert [p.start for p in inside] == sorted(p.start for p in inside)
        for one in inside:
            assert one.end <= section.end
            assert one.headings == section.headings
            for i in range(one.start - section.start, one.end - section.start):
                assert not covered[i]
                covered[i] = True
        uncovered = "".join(c for c, done in zip(section.text, covered, strict=True) if not done)
        assert uncovered.strip() == ""


@settings(max_examples=200, deadline=None)
@given(TEXT)
def test_sentences_are_spans_in_order_that_leave_out_only_marks_and_space(text):
    end = 0
    rest = ""
    for start, stop in sentences(text):
        assert end <= start < stop <= len(text)
        rest += text[end:start]
        end = stop
    assert not any(c.isalpha() for c in rest + text[end:])


@settings(max_examples=100, deadline=None)
@given(TEXT, TEXT)
def test_a_passage_keeps_its_id_when_text_before_it_changes(before, text):
    tail = "\n\n# 固定\n\n" + "这一段没有变化。\n"
    ids = [chunks(document(head + tail), 100)[-1] for head in (before, text)]
    if all(one.headings == ("固定",) for one in ids):
        assert ids[0].id == ids[1].id


def test_equal_passages_have_different_ids():
    made = chunks(document("# 甲\n\n同样。\n\n# 甲\n\n同样。\n"), 100)
    assert len({one.id for one in made}) == len(made) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("你好。再见！", ["你好。", "再见！"]),
        ("他说：“好。”然后走了。", ["他说：“好。”", "然后走了。"]),
        ("- 一\n- 二步\n", ["一", "二步"]),
        ("费用为3.5元。见example.com。", ["费用为3.5元。", "见example.com。"]),
        ("Use v1.2. Then stop.", ["Use v1.2.", "Then stop."]),
        ("e.g. this one. Next.", ["e.g. this one.", "Next."]),
        ("1. 先检查\n2. 再联系", ["先检查", "再联系"]),
        ("a wrapped\nline goes on.", ["a wrapped\nline goes on."]),
        ("——\n…", []),
    ],
)
def test_sentence_ends(text, expected):
    assert [text[a:b] for a, b in sentences(text)] == expected


def test_markdown_headings_are_those_of_commonmark():
    text = (
        "---\ntitle: 题\n---\n# A #\n\nSetext\n------\n\n```\n# code\n```\n\n### C ##\r\n\r\nend\n"
    )
    made = document(text)
    assert made.title == "题"
    assert [(h.level, h.title) for h in made.headings] == [(1, "A"), (2, "Setext"), (3, "C")]
    assert [text[h.start : h.end] for h in made.headings] == [
        "# A #\n",
        "Setext\n------\n",
        "### C ##\r\n",
    ]
    assert sections(made)[-1].headings == ("A", "Setext", "C")


def test_plain_text_headings_are_numbered_lines_that_stand_alone():
    text = (
        "一、开户\n先准备证件。\n1. 到柜台\n说明来意。\n"
        "二、步骤\n请按顺序：\n1. 打开\n2. 点击\n3. 完成\n结束。\n"
    )
    assert [h.title for h in document(text, plain).headings] == [
        "一、开户",
        "1. 到柜台",
        "二、步骤",
    ]


def test_a_long_section_is_cut_at_sentences():
    text = "# 长\n\n" + "这是一个用来填充的句子，讲讲规则。" * 40
    made = chunks(document(text), 100)
    assert len(made) > 5
    assert all(one.text.endswith("。") for one in made)


def test_references_name_one_section_or_say_what_is_near():
    passages = chunks(document("# 甲\n\n## 费用\n\n一元。\n\n# 乙\n\n## 费用\n\n两元。\n"), 100)
    assert find_section("g.md#乙 > 费用", passages) == [1]
    with pytest.raises(BadInput, match="several sections"):
        find_section("g.md#费用", passages)
    with pytest.raises(BadInput, match=re.escape("did you mean 'g.md#费用'")):
        find_section("g.md#费用 ", [passages[0]]) if False else find_section("g.md#费月", passages)


def test_views_stand_beside_their_passage_whole_first():
    passages = chunks(
        document("# 甲\n\n第一句话在这里。第二句话在那里。\n\n# 乙\n\n只有一句。\n"), 100
    )
    made = views(passages, [Variants("g.md#乙", ("怎么问", "怎么问", "如何问"), "q")])
    assert [(v.chunk, v.kind) for v in made] == [
        (0, "passage"),
        (0, "sentence"),
        (0, "sentence"),
        (1, "passage"),
        (1, "variant"),
        (1, "variant"),
    ]
    assert made[0].text == "甲\n第一句话在这里。第二句话在那里。"
    assert made[2].text == "甲\n第二句话在那里。"
