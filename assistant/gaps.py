"""Find what the guide lacks: questions that it did not answer, or not well, gathered by meaning.

Two groups of questions are one when their mean cosine is above what unrelated questions hardly ever
reach with the model in use (average linkage), so the same law holds for every model.
"""

import csv
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from assistant.embed import Encoder, Vectors
from assistant.fold import fold
from assistant.history import Turn, VoteReason
from assistant.questions import out_of_guide
from assistant.records import Hit
from assistant.screen import clean
from assistant.search import Index

COLUMNS = (
    "asked",
    "unanswered",
    "down_votes",
    "reasons",
    "newest",
    "questions",
    "nearest_passage",
    "similarity",
    "nearest_text",
)
_UNRELATED = 0.998  # share of the pairs of unrelated questions that are less alike
_MOST_QUESTIONS = 3000  # distinct ones; the table of their distances grows with the square
_MOST_EXAMPLES = 20
_LONGEST_CELL = 2000


@dataclass(frozen=True, slots=True)
class Gap:
    """Hold questions that ask for the same thing, and the passage that comes nearest to it.

    `questions` are distinct, the most asked and most typical first. `asked` counts the turns;
    `unanswered` and `down` those without an answer and those voted down, `reasons` why.
    `reference` names the nearest passage as a Q&A entry does.
    """

    questions: tuple[str, ...]
    asked: int
    unanswered: int
    down: int
    reasons: tuple[tuple[VoteReason, int], ...]
    newest: datetime
    nearest: Hit | None
    reference: str

    @property
    def similarity(self) -> float:
        """Return the cosine of the nearest passage, 0 when nothing was found."""
        return self.nearest.similarity if self.nearest else 0.0


def clusters(turns: Sequence[Turn], index: Index, encoder: Encoder) -> list[Gap]:
    """Gather turns by what they ask, most asked first; the order of the turns does not matter.

    Of more than 3,000 distinct questions the newest are taken.
    """
    groups = _same_words(turns)
    newest = sorted(groups, key=lambda key: (_newest(groups[key]), key), reverse=True)
    keys = newest[:_MOST_QUESTIONS]
    if not keys:
        return []
    vectors = encoder.encode_queries([_usual(groups[key]) for key in keys])
    members: dict[int, list[int]] = {}
    for place, label in enumerate(_labels(vectors, alike(encoder))):
        members.setdefault(label, []).append(place)
    named = references(index)
    gaps = [
        _gap([groups[keys[place]] for place in places], vectors[places], index, named)
        for places in members.values()
    ]
    return sorted(gaps, key=lambda gap: (-gap.asked, -gap.newest.timestamp(), gap.questions))


def alike(encoder: Encoder) -> float:
    """Return the cosine from which on a model means that two questions ask for the same thing."""
    vectors = encoder.encode_queries(out_of_guide())
    pairs = (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]
    return float(np.quantile(pairs, _UNRELATED))


def _same_words(turns: Sequence[Turn]) -> dict[str, list[Turn]]:
    """Group turns whose questions differ in nothing but writing."""
    groups: dict[str, list[Turn]] = {}
    for turn in turns:
        if key := " ".join(fold(turn.question).split()):
            groups.setdefault(key, []).append(turn)
    return groups


def _usual(turns: Sequence[Turn]) -> str:
    """Return the most frequent writing of a question."""
    counts = Counter(_one_line(turn.question) for turn in turns)
    return min(counts, key=lambda words: (-counts[words], words))


def _newest(turns: Iterable[Turn]) -> datetime:
    return max(turn.at for turn in turns)


def _labels(vectors: Vectors, alike: float) -> list[int]:
    """Return the number of each question's group."""
    if len(vectors) < 2:
        return [0] * len(vectors)
    from sklearn.cluster import AgglomerativeClustering

    distances = np.clip(1 - vectors @ vectors.T, 0, 2)
    np.fill_diagonal(distances, 0)
    found = AgglomerativeClustering(
        n_clusters=None, metric="precomputed", linkage="average", distance_threshold=1 - alike
    ).fit(distances)
    labels: list[int] = found.labels_.tolist()
    return labels


def _gap(
    groups: Sequence[Sequence[Turn]], vectors: Vectors, index: Index, named: Sequence[str]
) -> Gap:
    turns = [turn for group in groups for turn in group]
    typical = np.round(vectors @ vectors.sum(axis=0), 5).tolist()
    usual = [_usual(group) for group in groups]
    order = sorted(
        range(len(groups)), key=lambda i: (-len(groups[i]), -typical[i], len(usual[i]), usual[i])
    )
    reasons = Counter(t.vote.reason for t in turns if t.vote and t.vote.value < 0)
    hits = index.search(usual[order[0]], 1).hits
    return Gap(
        questions=tuple(usual[i] for i in order[:_MOST_EXAMPLES]),
        asked=len(turns),
        unanswered=sum(turn.verdict == "unanswered" for turn in turns),
        down=reasons.total(),
        reasons=tuple(sorted(reasons.items(), key=lambda one: (-one[1], one[0]))),
        newest=_newest(turns),
        nearest=hits[0] if hits else None,
        reference=named[hits[0].row] if hits else "",
    )


def references(index: Index) -> list[str]:
    """Return how a Q&A entry names the section of each passage: by as few headings as tell it."""
    sections = dict.fromkeys((chunk.path, chunk.headings) for chunk in index.chunks())
    same = Counter((path, headings[-1:]) for path, headings in sections)

    def named(path: str, headings: tuple[str, ...]) -> str:
        told = headings[-1:] if same[path, headings[-1:]] == 1 else headings
        return f"{path}#{' > '.join(told)}" if told else path

    return [named(chunk.path, chunk.headings) for chunk in index.chunks()]


def _one_line(words: str) -> str:
    return " ".join(clean(words).split())


# --- Export --------------------------------------------------------------------------------------

# A cell may begin behind any of these, by the separator of the reader's locale.
_CELL_START = re.compile(r"(^|[,;|\t\"'])(\s*)(?=(\S))")
_FORMULA = "=+-@−"


def as_csv(gaps: Sequence[Gap]) -> str:
    """Write gaps as CSV, a record a line; no cell can be taken for a formula by a spreadsheet."""
    written = io.StringIO(newline="")
    rows = csv.writer(written, quoting=csv.QUOTE_ALL)
    rows.writerow(COLUMNS)
    rows.writerows([cell(value) for value in _values(gap)] for gap in gaps)
    return written.getvalue()


def cell(value: str) -> str:
    """Return a text as one harmless line of a spreadsheet's cell.

    A quote mark goes before whatever would begin a formula, in its full-width forms too.
    """
    words = _one_line(value)[:_LONGEST_CELL]
    return _CELL_START.sub(lambda at: at[0] + ("'" if _begins_formula(at[3]) else ""), words)


def _begins_formula(character: str) -> bool:
    return unicodedata.normalize("NFKC", character)[:1] in _FORMULA


def _values(gap: Gap) -> Sequence[str]:
    return (
        str(gap.asked),
        str(gap.unanswered),
        str(gap.down),
        "; ".join(f"{reason or 'no reason'}: {count}" for reason, count in gap.reasons),
        gap.newest.astimezone(UTC).isoformat(" ", "minutes"),
        " | ".join(gap.questions),
        gap.reference,
        f"{gap.similarity:.3f}",
        gap.nearest.chunk.text if gap.nearest else "",
    )
