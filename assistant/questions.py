"""Read labelled questions: what people ask, and the passage that answers it, or none."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from assistant.errors import BadInput
from assistant.records import Chunk, Document, Heading
from assistant.split import find_section, unresolved

FOLDER = "questions"
BANK = Path(__file__).parent / "data" / "out_of_guide.yaml"
PRACTICE = Path(__file__).parent / "data" / "practice.yaml"
ANYWHERE = Path(__file__).parent / "data" / "background.txt"

_KEYS = ("ask", "passage", "lang", "kind")
_EXPECTED = "expected a YAML list of {ask: …, passage: file.md#heading or null}"


@dataclass(frozen=True, slots=True)
class Question:
    """Hold a question with the references of the passages that answer it (none: unanswerable).

    `place` is the file and the entry that it was read from.
    """

    ask: str
    passages: tuple[str, ...] = ()
    lang: str = ""
    kind: str = ""
    place: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Labelled:
    """Hold a question with the rows of the chunks that answer it in one index."""

    question: Question
    rows: frozenset[int]


@dataclass(frozen=True, slots=True)
class Practice:
    """Hold a small guide to practise on: texts and questions by heading, and what it is silent on.

    Its title and headings are unlike each other.
    """

    title: str
    sections: dict[str, str]
    questions: dict[str, tuple[str, ...]]
    silent: tuple[str, ...]

    def document(self) -> Document:
        """Return the guide as a document."""
        text, headings = "", []
        for level, (title, body) in enumerate([(self.title, ""), *self.sections.items()]):
            headings.append(Heading(min(level, 1) + 1, title, len(text), len(text) + len(title)))
            text += f"{title}\n\n{body}\n\n" if body else f"{title}\n\n"
        return Document("practice", self.title, text, "text", "", tuple(headings))


def read_questions(path: Path) -> list[Question]:
    """Read a YAML list of `{ask, passage, lang, kind}`; `passage`: a reference, a list or null.

    Raises BadInput, naming file and entry, for anything else.
    """
    try:
        entries = _load(path)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BadInput(f"cannot read questions from {path}: {error!s:.200}; {_EXPECTED}") from None
    if not isinstance(entries, list | None):
        raise BadInput(f"{path} holds {entries!r:.60}; {_EXPECTED}")
    return [_question(entry, f"{path}, entry {n}") for n, entry in enumerate(entries or [], 1)]


def _question(entry: object, place: str) -> Question:
    if not isinstance(entry, dict):
        raise BadInput(f"{place} is {entry!r:.60}; {_EXPECTED}")
    if odd := [key for key in entry if key not in _KEYS]:
        raise BadInput(f"{place} has {odd[0]!r:.60}, which is no key; {_EXPECTED}")
    ask, passage = entry.get("ask"), entry.get("passage")
    if ask is None or not str(ask).strip():
        raise BadInput(f"{place}: 'ask' is missing or empty; {_EXPECTED}")
    passages = passage if isinstance(passage, list) else [] if passage is None else [passage]
    if not all(isinstance(one, str) for one in passages):
        raise BadInput(f"{place}: 'passage' is {passage!r:.60}; {_EXPECTED}")
    lang, kind = (str(entry.get(key) or "") for key in ("lang", "kind"))
    return Question(str(ask), tuple(passages), lang, kind, place)


def locate(questions: Sequence[Question], chunks: Sequence[Chunk]) -> list[Labelled]:
    """Find the rows of each question's passages; raise BadInput for a reference to nowhere."""
    references = {passage for question in questions for passage in question.passages}
    problems = unresolved(references, chunks)
    wrong = [(q.place, problems[p]) for q in questions for p in q.passages if p in problems]
    if wrong:
        place, problem = wrong[0]
        more = f" (and {len(wrong) - 1} more like it)" if len(wrong) > 1 else ""
        raise BadInput(f"{place + ': ' if place else ''}{problem}{more}")
    known = {reference: find_section(reference, chunks) for reference in references}
    return [
        Labelled(question, frozenset(row for p in question.passages for row in known[p]))
        for question in questions
    ]


def fit_questions(corpus: Path) -> list[Question]:
    """Return the maintainers' labelled questions that may be fitted on (not `test*.yaml`)."""
    paths = [path for path in question_files(corpus) if not path.stem.startswith("test")]
    return [question for path in paths for question in read_questions(path)]


def held_out(corpus: Path) -> list[Question]:
    """Return the labelled questions that are never fitted on; all of them where none is held out.

    Raises BadInput when the corpus has no labelled questions.
    """
    paths = question_files(corpus)
    if not paths:
        raise BadInput(
            f"no labelled questions in {corpus / FOLDER}; write some, or give --questions FILE; "
            f"{_EXPECTED}"
        )
    paths = [path for path in paths if path.stem.startswith("test")] or paths
    return [question for path in paths for question in read_questions(path)]


def question_files(corpus: Path) -> list[Path]:
    """Return the files of labelled questions that lie beside a guide."""
    return sorted((corpus / FOLDER).glob("*.yaml"))


def out_of_guide() -> list[str]:
    """Return the shipped bank of questions that hardly any guide answers."""
    return [str(entry["text"]) for entry in _load(BANK)]


def asked_anywhere() -> list[str]:
    """Return the shipped questions that people ask the support of any trade, a line each."""
    return ANYWHERE.read_text("utf-8").splitlines()


def practice_guides() -> list[Practice]:
    """Return the small guides that ship with the package, to practise on."""
    return [
        Practice(
            guide["title"],
            {section["heading"]: section["text"] for section in guide["sections"]},
            {section["heading"]: tuple(section["questions"]) for section in guide["sections"]},
            tuple(guide["silent"]),
        )
        for guide in _load(PRACTICE)
    ]


def _load(path: Path) -> Any:
    """Read YAML with libyaml where it is there, ten times faster."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(path.read_text("utf-8"), Loader=loader)
