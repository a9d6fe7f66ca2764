#!/usr/bin/env python
"""Measure how second turns are understood, on pairs with the stand-alone question written out.

The passages of the support intents are indexed as one guide. A pair is right when looking for the
second turn finds the passage that the written-out question finds.
"""

import gzip
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from assistant.embed import open_encoder
from assistant.records import Document, Heading, Ranking
from assistant.search import Index, write_tables
from assistant.settings import Settings
from assistant.split import chunks, views
from assistant.turns import follows, is_short, is_sure, joined, read_together

DATA = Path(__file__).parent / "training_data" / "support"


def main() -> int:
    pairs = list(_lines("followups"))
    full = [p for p in pairs if _bare(p["turn2"]) == _bare(p["resolved"])]
    leaning = [p for p in pairs if p not in full]
    with tempfile.TemporaryDirectory() as name:
        index = _index(Path(name) / "intents")
        ways: dict[str, Callable[[dict[str, str]], Ranking]] = {
            "second turn alone": lambda p: index.search(p["turn2"], 5),
            "always both turns": lambda p: index.search(joined(p["turn1"], p["turn2"]), 5),
            "as the desk does": lambda p: _understood(index, p),
        }
        print(f"{len(index)} passages; {len(leaning)} follow-ups, {len(full)} full questions")
        print(f"{'':20}{'follow-up, first':>18}{'in top three':>14}{'full, first':>13}")
        for way, ask in ways.items():
            first, three = _share(index, leaning, ask, 1), _share(index, leaning, ask, 3)
            print(f"{way:20}{first:>17.1%}{three:>14.1%}{_share(index, full, ask, 1):>13.1%}")
        both = [pair for pair in leaning if _sure(index, pair)]
        right = round(_share(index, both, ways["as the desk does"], 1) * len(both))
        print(f"sure with the turn before: {right} of {len(both)} right, {right / len(both):.0%}")
        away = [
            {"turn1": pair["turn1"], "turn2": other["text"]}
            for pair, other in zip(pairs * 4, _lines("offguide"), strict=False)
            if is_short(other["text"])
        ]
        taken, sure = (sum(f(index, p) for p in away) for f in (_read_together, _sure))
        print(f"unrelated and short: {len(away)}, read with the turn before {taken}, sure {sure}")
    return 0


def _read_together(index: Index, pair: dict[str, str]) -> bool:
    before, asked = pair["turn1"], pair["turn2"]
    alone, together = index.search(asked, 5), index.search(joined(before, asked), 5)
    return is_short(asked) and follows(asked, alone, together, index.search(before, 1))


def _sure(index: Index, pair: dict[str, str]) -> bool:
    before, asked = pair["turn1"], pair["turn2"]
    together = index.search(joined(before, asked), 5)
    return _read_together(index, pair) and is_sure(asked, together, index.search(before, 1))


def _understood(index: Index, pair: dict[str, str]) -> Ranking:
    """Return what the desk would find, an answer that is sure alone left aside."""
    before, asked = pair["turn1"], pair["turn2"]
    alone, together = index.search(asked, 5), index.search(joined(before, asked), 5)
    if not _read_together(index, pair):
        return alone
    return read_together(asked, alone, together, index.search(before, 1))


def _share(
    index: Index, pairs: list[dict[str, str]], find: Callable[[dict[str, str]], Ranking], k: int
) -> float:
    right = 0
    for pair in pairs:
        wanted = {hit.row for hit in index.search(pair["resolved"], k).hits}
        found = find(pair).hits
        right += bool(found) and found[0].row in wanted
    return right / len(pairs)


def _index(folder: Path) -> Index:
    settings = Settings()
    encoder = open_encoder(settings)
    documents = [_document(intent) for intent in _lines("intents")]
    passages = [chunk for one in documents for chunk in chunks(one, settings.chunk_chars)]
    texts = views(passages, ())
    folder.mkdir()
    vectors = encoder.encode_passages([view.text for view in texts])
    nothing = np.zeros((0, encoder.dimensions), np.float32)
    write_tables(folder, documents, passages, texts, vectors, nothing, settings.precision)
    return Index(folder, encoder, settings)


def _document(intent: dict[str, str]) -> Document:
    heading = intent["heading_zh"]
    text = f"{heading}\n\n{intent['passage_zh']}"
    marks = (Heading(1, heading, 0, len(heading)),)
    return Document(intent["intent"], heading, text, "text", "", marks)


def _lines(name: str) -> Iterator[dict[str, str]]:
    with gzip.open(DATA / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def _bare(text: str) -> str:
    return "".join(c for c in text.lower() if c.isalnum())


if __name__ == "__main__":
    sys.exit(main())
