"""Read the pair files and evaluation sets of the embedding model; keep the two apart."""

import gzip
import hashlib
import itertools
import json
import re
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assistant.fold import simplify

HELD_OUT_SOURCE = "MicrosoftDocs/customer-insights-pr.zh-cn"
"""A document source kept out of training: English questions onto its Chinese passages."""

ALIGNED = ("sent_align", "head_align", "ui_align")
"""Kinds of pairs that are translations of one another, sentence by sentence."""

OWN = Path(__file__).parent / "training_data"
EVALUATION_KEYS = OWN / "evaluation_keys.bin"
"""Hashes of the evaluation texts: they are not committed, and nothing may be trained on them."""

_LETTERS = re.compile(r"[^\w]+|_")


@dataclass(frozen=True, slots=True)
class Pair:
    """Hold two texts that belong together, and what kind and source they are of."""

    anchor: str
    positive: str
    kind: str
    source: str


@dataclass(frozen=True, slots=True)
class Intent:
    """Hold one thing that people ask, in other words, and near misses that mean something else.

    A mere set of paraphrases or synonyms has no passages.
    """

    name: str
    passages: tuple[str, ...]
    questions: tuple[str, ...]
    near_misses: tuple[str, ...]

    @property
    def held_out(self) -> bool:
        """Tell whether the intent belongs to the tenth that is never trained on."""
        return int(hashlib.sha256(self.name.encode()).hexdigest(), 16) % 10 == 0


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON-lines file, gzipped or not."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        for line in file:
            if line.strip():
                yield json.loads(line)


def key(text: str) -> str:
    """Return the form in which two texts count as the same."""
    return _LETTERS.sub("", simplify(text).lower())


def hashed(text: str) -> int:
    """Return 64 bits that stand for the key of a text."""
    return int.from_bytes(hashlib.sha256(key(text).encode()).digest()[:8], "little")


def evaluation_texts(training: Path) -> Iterator[str]:
    """Yield every text of the evaluation sets."""
    for path in sorted((training / "eval").rglob("*.jsonl.gz")):
        if path.stem.startswith(("corpus", "queries")):
            yield from (str(row["text"]) for row in lines(path))
    for path in sorted((training / "eval" / "sts").glob("*.tsv.gz")):
        yield from (text for a, b, _ in sts_rows(path) for text in (a, b))


def write_evaluation_keys(training: Path, path: Path) -> None:
    """Write the hashes of all evaluation texts, sorted, eight bytes each."""
    hashes = sorted({hashed(text) for text in evaluation_texts(training)})
    path.write_bytes(struct.pack(f"<{len(hashes)}Q", *hashes))


def evaluation_keys(path: Path = EVALUATION_KEYS) -> set[int]:
    """Return the hashes of every text that is never trained on."""
    data = path.read_bytes()
    return set(struct.unpack(f"<{len(data) // 8}Q", data))


def sts_rows(path: Path) -> Iterator[tuple[str, str, float]]:
    """Yield sentence, sentence, score of a similarity set."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        next(file)
        for line in file:
            a, b, score = line.rstrip("\n").split("\t")
            yield a, b, float(score)


def training_pairs(
    training: Path, forbidden: set[int], kinds: Collection[str] = ("*",)
) -> Iterator[Pair]:
    """Yield the pairs of `train/` but the held-out source and evaluation texts, kind by kind."""
    paths = (path for kind in kinds for path in (training / "train").glob(f"{kind}.jsonl.gz"))
    for path in sorted(paths):
        for row in lines(path):
            pair = Pair(str(row["a"]), str(row["p"]), str(row["kind"]), str(row["src"]))
            if pair.source != HELD_OUT_SOURCE and not clashes(pair, forbidden):
                yield pair


def pivot_pairs(pairs: Iterable[Pair]) -> Iterator[Pair]:
    """Yield paraphrases, nearly all Chinese, from aligned pairs: translations of one text.

    Most are one sentence as it is put on the mainland and on Taiwan.
    """
    meanings: dict[str, list[str]] = {}
    for pair in pairs:
        english, chinese = sorted((pair.anchor, pair.positive), key=lambda text: text > "一")
        meanings.setdefault(key(english), []).append(chinese)
    for texts in meanings.values():
        apart = list({key(text): text for text in texts}.values())
        for one, other in itertools.pairwise(apart):
            yield Pair(one, other, "pivot", "pivot")


def clashes(pair: Pair, forbidden: set[int]) -> bool:
    """Tell whether either text of a pair stands in an evaluation set."""
    return hashed(pair.anchor) in forbidden or hashed(pair.positive) in forbidden


def own_folders(own: Path) -> list[Path]:
    """Return the folders that hold texts written for this product."""
    return [own / "support", own]


def read_intents(folders: Iterable[Path], forbidden: set[int]) -> list[Intent]:
    """Read every support intent, without texts that stand in an evaluation set."""
    found = []
    for folder in folders:
        for path in sorted(folder.glob("intents*.jsonl*")):
            found.extend(_intent(row, forbidden) for row in lines(path))
    return found


def read_paraphrases(folders: Iterable[Path], forbidden: set[int]) -> list[Intent]:
    """Read sets of questions that mean the same, with near misses and without passages."""
    found = []
    for folder in folders:
        for path in sorted(folder.glob("paraphrases*.jsonl*")):
            for i, row in enumerate(lines(path)):
                questions = _texts(row, forbidden, "questions_zh", "questions_en")
                near = _texts(row, forbidden, "near_miss_zh")
                if len(questions) > 1:
                    found.append(Intent(f"{path.name}:{i}", (), questions, near))
    return found


def _intent(row: Mapping[str, Any], forbidden: set[int]) -> Intent:
    passages = (f"{row[f'heading_{lang}']} {row[f'passage_{lang}']}" for lang in ("zh", "en"))
    return Intent(
        name=str(row["intent"]),
        passages=tuple(passage for passage in passages if hashed(passage) not in forbidden),
        questions=_texts(row, forbidden, "questions_zh", "questions_en"),
        near_misses=_texts(row, forbidden, "near_miss_zh"),
    )


def _texts(row: Mapping[str, Any], forbidden: set[int], *names: str) -> tuple[str, ...]:
    texts = (str(text) for name in names for text in row.get(name, []))
    return tuple(text for text in texts if hashed(text) not in forbidden)


def read_groups(folders: Iterable[Path], forbidden: set[int]) -> list[Intent]:
    """Read words that mean the same, typing errors, and follow-ups put in full."""
    found = []
    for path in (path for folder in folders for path in sorted(folder.glob("*.jsonl*"))):
        shape = _SHAPES.get(path.name.split(".")[0].split("_")[0])
        for i, row in enumerate(lines(path) if shape else ()):
            same, unlike = ([t for t in side if hashed(t) not in forbidden] for side in shape(row))
            if len(same) > 1:
                found.append(Intent(f"{path.name}:{i}", (), tuple(same), tuple(unlike)))
    return found


def _words(row: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    gloss = [str(row["gloss_zh"])] if row.get("gloss_zh") else []
    return [*row.get("zh", []), *row.get("en", []), *gloss], [*row.get("not", [])]


def _typing_error(row: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    return [str(row["wrong"]), str(row["right"])], []


def _follow_up(row: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    return [f"{row['turn1']} {row['turn2']}", str(row["resolved"])], []


_SHAPES = {"lexicon": _words, "typos": _typing_error, "followups": _follow_up}
