"""Recognise, before any retrieval, what must not wait for it.

Distress about an account, a wish for a person, a number, link or caller that the user wants vouched
for, a secret that somebody asks for, support that does not answer, a coin or profit to be praised,
and plain small talk. Patterns and two small linear models read from this package, so it works with
the index, the embedding model or the database broken.
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, repeat
from pathlib import Path
from typing import Any, Literal

from assistant.contacts import contacts_in
from assistant.fold import fold

TriageKind = Literal[
    "urgent_account_security",
    "asked_for_human",
    "contact_check",
    "secret_asked",
    "unreached",
    "vouch",
    "small_talk",
]
_Search = Callable[[str], re.Match[str] | None]

DATA = Path(__file__).parent / "data"
CLUES = DATA / "triage.toml"
PHRASES = DATA / "phrases.toml"
WEIGHTS = DATA / "triage_weights.json"

_WINDOW = 200
_LONGEST_SMALL_TALK = 60
_LONGEST_UNREACHED = 60  # a longer text is about more than that
_CLEARLY = 150  # an urgent score above which even a number to be checked does not matter
_RUN = re.compile(r"[\u3400-\u9fff]+|[a-z]+|[0-9]+")
_LETTER = re.compile("[a-z]")
_NEVER = "(?!)"


@dataclass(frozen=True, slots=True)
class Triage:
    """Hold what a question was recognised as, and the numbers, links and ids in it."""

    kind: TriageKind
    contacts: tuple[str, ...] = ()


def triage(question: str) -> Triage | None:
    """Return what a clean question was recognised as, None for an ordinary question."""
    text = fold(question)
    contacts = tuple(found.text for found in contacts_in(question))
    windows = [features(window) for window in _windows(text)]
    urgent = strongest("urgent", windows)
    secret = _has("confirm", "secret", text[:_WINDOW])
    checked = asks_to_confirm(text, contacts)
    if urgent > (_CLEARLY if secret or checked else 0):
        return Triage("urgent_account_security", contacts)
    if secret:
        return Triage("secret_asked", contacts)
    if checked:
        return Triage("contact_check", contacts)
    if strongest("human", windows) > 0 or _has("plea", "alone", text):
        return Triage("asked_for_human", contacts)
    if len(text) <= _LONGEST_UNREACHED and _has("unreached", "tells", text):
        return Triage("unreached", contacts)
    if asks_to_vouch(text):
        return Triage("vouch", contacts)
    return Triage("small_talk") if is_small_talk(text) else None


# --- Two linear models over clues and pieces of words --------------------------------------------


def score(kind: Literal["urgent", "human"], folded: str) -> int:
    """Return how strongly a folded text speaks for a kind, above 0 when it does."""
    return strongest(kind, [features(window) for window in _windows(folded)])


def strongest(kind: Literal["urgent", "human"], windows: Sequence[set[str]]) -> int:
    """Return the score of the window that speaks most for a kind, each given by its features.

    Long texts are read through windows, for distress is often one sentence of a story.
    """
    bias, weights = _weights()[kind]
    return max(bias + sum(map(weights.get, window, repeat(0))) for window in windows)


def _windows(text: str) -> Iterator[str]:
    yield text[:_WINDOW]
    for begin in range(_WINDOW // 2, len(text) - _WINDOW // 2, _WINDOW // 2):
        yield text[begin : begin + _WINDOW]


def features(folded: str) -> set[str]:
    """Return the features of a folded text: clues, pairs of clues, pieces of words."""
    seen = {
        group: [name for name, search in table if search(folded)]
        for group, table in _searches(*_writing(folded)).items()
    }
    found = _pieces(_RUN.findall(folded.replace("'", "")))
    found.update(f"@{name}" for names in seen.values() for name in names)
    for group in ("urgent", "human"):
        found.update(f"@{a}@{b}" for a, b in combinations(seen[group], 2))
    return found


def _writing(folded: str) -> tuple[bool, bool]:
    """Tell whether a folded text has small letters, and whether it is all ASCII."""
    return _LETTER.search(folded) is not None, folded.isascii()


def _pieces(runs: list[str]) -> set[str]:
    """Return one to four Han characters, one to three words, and quarters of longer words."""
    if not runs:
        return set()
    found = {"^" + runs[0][:3], runs[-1][-3:] + "$"}
    if sum(map(len, runs)) <= 12:
        found.add(f"^{''.join(runs)}$")
    words = ["_" if run[0] >= "\u3400" else "0" if run.isdigit() else run for run in runs]
    for run, word in zip(runs, words, strict=True):
        if word == "_":
            found.update(run[i : i + n] for n in (1, 2, 3, 4) for i in range(len(run) - n + 1))
        else:
            found.add(word)
            found.update("~" + word[i : i + 4] for i in range(len(word) - 3) if len(word) > 4)
    for n in (2, 3):
        rows = (words[i : i + n] for i in range(len(words) - n + 1))
        found.update(" ".join(row) for row in rows if row[0] != "_" or row[-1] != "_")
    return found


@lru_cache(maxsize=4)
def _searches(letters: bool, ascii_only: bool) -> dict[str, list[tuple[str, _Search]]]:
    """Return what looks for the clues that a text can have."""
    return {
        group: [(name, re.compile("|".join(kept)).search) for name, kept in table.items() if kept]
        for group, table in _possible(CLUES, letters, ascii_only).items()
    }


@lru_cache(maxsize=4)
def _phrases(letters: bool, ascii_only: bool) -> dict[str, dict[str, re.Pattern[str]]]:
    """Return what looks for the phrases that a text can have."""
    return {
        group: {name: re.compile("|".join(kept) or _NEVER) for name, kept in table.items()}
        for group, table in _possible(PHRASES, letters, ascii_only).items()
    }


def _possible(path: Path, letters: bool, ascii_only: bool) -> dict[str, dict[str, list[str]]]:
    """Return the alternatives of a pattern file but for those that a text cannot have.

    Of every alternative training found out whether it needs a small letter, or a character beyond
    ASCII. They are known by their words: what was edited since is looked for in every text.
    """
    needs = _trained()["needs"]
    never = {*(() if letters else needs["letter"]), *(needs["beyond_ascii"] if ascii_only else ())}
    return {
        group: {
            name: [one for one in given if mark(one) not in never] for name, given in table.items()
        }
        for group, table in alternatives(path).items()
    }


def mark(pattern: str) -> str:
    """Return a short mark of a pattern's words."""
    return hashlib.sha256(pattern.encode()).hexdigest()[:10]


def alternatives(path: Path) -> dict[str, dict[str, list[str]]]:
    """Return the patterns of a file, in groups; each a list of which one has to match."""
    tables = tomllib.loads(path.read_text("utf-8"))
    words = tables.pop("words")

    def spelled_out(text: str) -> str:
        return re.sub("<([A-Z]+)>", lambda name: str(words[name[1]]), text)

    return {
        group: {
            name: [spelled_out(text) for text in ([given] if isinstance(given, str) else given)]
            for name, given in table.items()
        }
        for group, table in tables.items()
    }


@lru_cache(maxsize=1)
def _weights() -> dict[str, tuple[int, dict[str, int]]]:
    """Return the trained bias and weights, in hundredths."""
    models = _trained()["models"]
    return {kind: (model["bias"], model["weights"]) for kind, model in models.items()}


@lru_cache(maxsize=1)
def _trained() -> dict[str, Any]:
    trained: dict[str, Any] = json.loads(WEIGHTS.read_text("utf-8"))
    return trained


def patterns_sha256() -> str:
    """Return the hash of the patterns, which the weights were trained for."""
    return hashlib.sha256(CLUES.read_bytes()).hexdigest()


# --- Contacts to be confirmed, coins to be praised, small talk -----------------------------------


def asks_to_confirm(folded: str, contacts: tuple[str, ...]) -> bool:
    """Tell whether a folded question wants a number, link, id or caller confirmed."""
    if _has("confirm", "asks", folded[:_WINDOW]):
        return True
    if not contacts:
        return False
    if _has("confirm", "own_trouble", folded) and not _has("confirm", "doubt", folded):
        return False
    alone = sum(map(len, contacts)) * 10 >= len(folded.replace(" ", "")) * 7
    return alone or _has("confirm", "mentions", folded)


def asks_to_vouch(folded: str) -> bool:
    """Tell whether a folded question wants a coin, a project or a profit praised."""
    return _has("vouch", "asks", folded)


def is_small_talk(folded: str) -> bool:
    """Tell whether a short folded text is nothing but greetings, thanks, farewells or nods."""
    kinds = _phrases(*_writing(folded))["small_talk"]
    said = [kinds[kind] for kind in _MOODS if kinds[kind].search(folded)]
    if not said or len(folded) > _LONGEST_SMALL_TALK:
        return False
    rest = folded
    for kind in _MOODS:
        rest = kinds[kind].sub(" ", rest)
    return not kinds["filler"].sub("", rest)


def _has(group: str, name: str, folded: str) -> bool:
    return _phrases(*_writing(folded))[group][name].search(folded) is not None


_MOODS = ("thank", "bye", "greet", "nod")
_REPLIES = {
    "zh": {
        "thank": "不客气！还有问题随时问。",
        "bye": "再见！有需要随时回来。",
        "nod": "好的。还有问题随时问。",
        "greet": "您好！请直接写下您遇到的问题，我会从指南里找出原文。",
    },
    "en": {
        "thank": "You are welcome! Ask again any time.",
        "bye": "Goodbye! Come back any time.",
        "nod": "All right. Ask again any time.",
        "greet": "Hello! Describe your problem and I will find the guide's own words for it.",
    },
}


def small_talk_reply(question: str, language: str) -> str:
    """Return a friendly line for a greeting, thanks, a farewell or a nod."""
    text = fold(question)
    mood = next((mood for mood in _MOODS if _has("small_talk", mood, text)), "nod")
    return _REPLIES[language][mood]
