"""The shipped guide is the original article, sentence by sentence."""

import re
from pathlib import Path

import yaml

from assistant.load import load_corpus
from assistant.questions import out_of_guide
from assistant.settings import Settings
from assistant.split import chunks, find_section

REPOSITORY = Path(__file__).parent.parent
GUIDE = REPOSITORY / "corpus" / "topay-contact-guide.md"
ORIGINAL = Path(__file__).parent / "fixtures" / "topay-original.txt"
TITLE = "Topay钱包联系客服的方法详解"


def original_lines() -> list[str]:
    """The article's lines without the page's furniture: icons, date, repeated titles, tags."""
    lines = [line.strip() for line in ORIGINAL.read_text("utf-8").splitlines() if line.strip()]
    body = lines[lines.index(TITLE) + 1 : lines.index("• Tags")]
    return [line for line in body if line != TITLE and not re.match(r"• \d{4}-", line)]


def guide_lines() -> list[str]:
    _, _, body = GUIDE.read_text("utf-8").split("---\n", 2)
    return [line for line in body.splitlines() if line and line != f"# {TITLE}"]


def test_every_line_of_the_article_is_there_in_order_and_nothing_else():
    unmarked = [re.sub(r"^(?:#{2,3} |- )", "", line) for line in guide_lines()]
    assert unmarked == [line.removeprefix("• ") for line in original_lines()]


def test_the_furniture_became_front_matter():
    front = yaml.safe_load(GUIDE.read_text("utf-8").split("---\n", 2)[1])
    text = ORIGINAL.read_text("utf-8")
    assert front["title"] == TITLE
    assert str(front["date"]) in text
    assert ",".join(front["tags"]) in text


def test_the_guide_gives_one_passage_a_heading():
    corpus = load_corpus(GUIDE.parent, Settings())
    passages = [c for d in corpus.documents for c in chunks(d, Settings().chunk_chars)]
    headings = [c.headings[-1] for c in passages]
    marked = [
        line.lstrip("# ") for line in GUIDE.read_text("utf-8").splitlines() if line[:1] == "#"
    ]
    assert headings == marked
    assert len(headings) == 17
    assert corpus.skipped == ()


def test_every_passage_has_question_variants_and_they_name_no_new_text():
    corpus = load_corpus(GUIDE.parent, Settings())
    passages = [c for d in corpus.documents for c in chunks(d, Settings().chunk_chars)]
    found = {row for v in corpus.variants for row in find_section(v.passage, passages)}
    assert found == set(range(len(passages)))
    assert [d.path for d in corpus.documents] == ["topay-contact-guide.md"]


def test_variants_are_asked_once_and_not_in_the_out_of_guide_bank():
    corpus = load_corpus(GUIDE.parent, Settings())
    asked = [q for v in corpus.variants for q in v.questions]
    assert len(asked) == len(set(asked)) >= 200
    assert not set(asked) & set(out_of_guide())
