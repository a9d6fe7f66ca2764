"""Read the pair files and evaluation sets of the embedding model; keep the two apart."""

import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from assistant.fold import simplify

HELD_OUT_SOURCE = "MicrosoftDocs/customer-insights-pr.zh-cn"
"""A document source kept out of training: English questions onto its Chinese passages."""

OWN = Path(__file__).parent / "training_data"
_LETTERS = re.compile(r"[^\w]+|_")


@dataclass(frozen=True, slots=True)
class Pair:
    """Hold two texts that belong together, and what kind and source they are of."""

    anchor: str
    positive: str
    kind: str
    source: str
    negatives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Intent:
    """Hold one support intent: its passages, the questions that mean it, and near misses."""

    name: str
    passages: tuple[str, ...]
    questions: tuple[str, ...]
    near_misses: tuple[str, ...]

    @property
    def held_out(self) -> bool:
        """Tell whether the intent belongs to the tenth that is never trained on."""
        return int(hashlib.sha256(self.name.encode()).hexdigest(), 16) % 10 == 0


def lines(path: Path) -> Iterator[dict[str, object]]:
    """Yield the objects of a JSON-lines file, gzipped or not."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        for line in file:
            if line.strip():
                yield json.loads(line)


def key(text: str) -> str:
    """Return the form in which two texts count as the same."""
    return _LETTERS.sub("", simplify(text).lower())


def evaluation_keys(training: Path) -> set[str]:
    """Return the keys of every text of the evaluation sets."""
    keys: set[str] = set()
    for path in sorted((training / "eval").rglob("*.jsonl.gz")):
        if path.stem.startswith(("corpus", "queries")):
            keys.update(key(str(row["text"])) for row in lines(path))
    for path in sorted((training / "eval" / "sts").glob("*.tsv.gz")):
        keys.update(key(text) for a, b, _ in sts_rows(path) for text in (a, b))
    return keys


def sts_rows(path: Path) -> Iterator[tuple[str, str, float]]:
    """Yield sentence, sentence, score of a similarity set."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        next(file)
        for line in file:
            a, b, score = line.rstrip("\n").split("\t")
            yield a, b, float(score)


def training_pairs(training: Path, forbidden: set[str]) -> Iterator[Pair]:
    """Yield the aligned pairs of `train/` but the held-out source and evaluation texts."""
    for path in sorted((training / "train").glob("*.jsonl.gz")):
        for row in lines(path):
            pair = Pair(str(row["a"]), str(row["p"]), str(row["kind"]), str(row["src"]))
            if pair.source != HELD_OUT_SOURCE and not clashes(pair, forbidden):
                yield pair


def clashes(pair: Pair, forbidden: set[str]) -> bool:
    """Tell whether either text of a pair stands in an evaluation set."""
    return key(pair.anchor) in forbidden or key(pair.positive) in forbidden


def read_intents(folders: Iterable[Path], forbidden: set[str]) -> list[Intent]:
    """Read every support intent, without questions that stand in an evaluation set."""
    found = []
    for folder in folders:
        for path in sorted(folder.glob("intents*.jsonl*")):
            for row in lines(path):
                found.append(_intent(row, forbidden))
    return found


def _intent(row: dict[str, object], forbidden: set[str]) -> Intent:
    def texts(*names: str) -> tuple[str, ...]:
        all_texts = [str(t) for name in names for t in row.get(name, [])]  # type: ignore[attr-defined]
        return tuple(text for text in all_texts if key(text) not in forbidden)

    return Intent(
        name=str(row["intent"]),
        passages=tuple(
            f"{row[f'heading_{lang}']} {row[f'passage_{lang}']}" for lang in ("zh", "en")
        ),
        questions=texts("questions_zh", "questions_en"),
        near_misses=texts("near_miss_zh"),
    )


def read_groups(folders: Iterable[Path], forbidden: set[str]) -> list[list[str]]:
    """Read groups of texts that mean the same: synonyms, typing errors, paraphrases."""
    groups: list[list[str]] = []
    for folder in folders:
        for path in sorted(folder.glob("lexicon.jsonl*")):
            for row in lines(path):
                gloss = [str(row["gloss_zh"])] if row.get("gloss_zh") else []
                groups.append([*row.get("zh", []), *row.get("en", []), *gloss])  # type: ignore[misc]
        for path in sorted(folder.glob("typos.jsonl*")):
            groups.extend([str(row["wrong"]), str(row["right"])] for row in lines(path))
        for path in sorted(folder.glob("paraphrases*.jsonl*")):
            for row in lines(path):
                groups.append([*row.get("questions_zh", []), *row.get("questions_en", [])])  # type: ignore[misc]
        for path in sorted(folder.glob("followups.jsonl*")):
            groups.extend([f"{r['turn1']} {r['turn2']}", str(r["resolved"])] for r in lines(path))
    kept = ([text for text in group if key(text) not in forbidden] for group in groups)
    return [group for group in kept if len(group) > 1]
