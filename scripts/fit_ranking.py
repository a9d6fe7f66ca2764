#!/usr/bin/env python
"""Choose the ranking weights: MRR@10 over a grid, on public sets and the guide's fit part.

The public sets (`--sets`: folders with corpus, queries and qrels as .jsonl.gz) are read where they
lie; nothing of them is stored. The guide is asked its fit questions, and each question variant with
that variant hidden. Questions for testing are never read.
"""

import argparse
import gzip
import itertools
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from assistant import generations
from assistant.build import build
from assistant.embed import Encoder, open_encoder
from assistant.questions import fit_questions, locate
from assistant.records import Document, Ranking
from assistant.search import Index, write_tables
from assistant.settings import Settings
from assistant.split import chunks, views

DEPTH = 30
PASSAGE = (0.0, 0.15, 0.25, 0.35, 0.5, 0.75, 1.0)
VIEW = (0.0, 0.5, 1.0)
LEXICAL = (0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2, 2.0)
Asked = list[tuple[Ranking, frozenset[int]]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=Path, default=Path("eval"), help="folder of retrieval sets")
    parser.add_argument("--queries", type=int, default=600, help="most queries of a set")
    options = parser.parse_args()
    encoder = open_encoder(Settings())
    asked = {"guide, fit": [], "guide, variants": []}
    with tempfile.TemporaryDirectory() as name:
        asked |= ask_guide(Path(name), encoder)
        for folder in sorted(p.parent for p in options.sets.glob("*/corpus.jsonl.gz")):
            asked[folder.name] = ask_set(folder, Path(name), encoder, options.queries)
            print(f"asked {folder.name}: {len(asked[folder.name])}", file=sys.stderr)
    print_steps(asked)
    print_best(asked)
    return 0


def ask_guide(folder: Path, encoder: Encoder) -> dict[str, Asked]:
    """Ask the shipped guide its fit questions, and its variants with themselves hidden."""
    settings = Settings(index=folder / "guide")
    build(settings, encoder)
    index = Index(generations.current(settings.index).generation.folder, encoder, settings)
    fit = locate(fit_questions(settings.corpus), list(index.chunks()))
    variants = [
        (view.text, frozenset({index.first_view(row) + number}), frozenset({row}))
        for row in range(len(index))
        for number, view in enumerate(index.views(row))
        if view.kind == "variant"
    ]
    return {
        "guide, fit": [(index.search(q.question.ask, DEPTH), q.rows) for q in fit if q.rows],
        "guide, variants": [(index.search(a, DEPTH, h), rows) for a, h, rows in variants],
    }


def ask_set(folder: Path, scratch: Path, encoder: Encoder, most: int) -> Asked:
    """Index one public set as a guide of one document per text, and ask its queries."""
    settings = Settings()
    documents = [_document(line) for line in _lines(folder / "corpus.jsonl.gz")]
    passages = [chunk for one in documents for chunk in chunks(one, settings.chunk_chars)]
    texts = views(passages, ())
    place = scratch / folder.name
    place.mkdir()
    vectors = encoder.encode_passages([view.text for view in texts])
    nothing = np.zeros((0, encoder.dimensions), np.float32)
    write_tables(place, documents, passages, texts, vectors, nothing, settings.precision)
    index = Index(place, encoder, settings)
    rows: dict[str, set[int]] = {}
    for row, chunk in enumerate(passages):
        rows.setdefault(chunk.path, set()).add(row)
    wanted: dict[str, set[int]] = {}
    for line in _lines(folder / "qrels.jsonl.gz"):
        wanted.setdefault(line["qid"], set()).update(rows.get(line["did"], ()))
    queries = list(_lines(folder / "queries.jsonl.gz"))
    step = max(1, len(queries) // most)
    return [
        (index.search(line["text"], DEPTH), frozenset(wanted[line["id"]]))
        for line in queries[::step]
        if wanted.get(line["id"])
    ]


def _lines(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def _document(line: dict[str, str]) -> Document:
    title = line.get("title", "")
    text = f"{title}\n\n{line['text']}" if title else line["text"]
    return Document(line["id"], title, text, "text", "")


def mrr(asked: Asked, passage: float, view: float, lexical: float) -> float:
    """Return MRR@10 of re-ranked hits: passage, then best view against support, then BM25."""
    total = 0.0
    for ranking, rows in asked:
        scores = [
            passage * hit.passage
            + (1 - passage) * (view * hit.view + (1 - view) * hit.support)
            + (lexical * hit.lexical / ranking.weight if ranking.weight else 0.0)
            for hit in ranking.hits
        ]
        order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:10]
        ranks = [n for n, i in enumerate(order, 1) if ranking.hits[i].row in rows]
        total += 1 / ranks[0] if ranks else 0.0
    return total / len(asked) if asked else float("nan")


def print_steps(asked: dict[str, Asked]) -> None:
    """Print what each signal adds, one row a step."""
    steps = {
        "whole passage alone": (1.0, 0.0, 0.0),
        "best view alone": (0.0, 1.0, 0.0),
        "three best views": (0.0, 0.0, 0.0),
        "passage + best view": (0.5, 1.0, 0.0),
        "passage + three best": (0.5, 0.0, 0.0),
        "… + 0.2 BM25": (0.5, 0.0, 0.2),
        "… + 0.4 BM25": (0.5, 0.0, 0.4),
        "… + 0.8 BM25": (0.5, 0.0, 0.8),
    }
    print("| MRR@10 | " + " | ".join(asked) + " |\n|---|" + "---|" * len(asked))
    for name, weights in steps.items():
        print(f"| {name} | " + " | ".join(f"{mrr(a, *weights):.3f}" for a in asked.values()) + " |")


def print_best(asked: dict[str, Asked], most: int = 8) -> None:
    """Print the weights whose worst loss against the best of each set is smallest."""
    grid = list(itertools.product(PASSAGE, VIEW, LEXICAL))
    table = np.array([[mrr(a, *weights) for a in asked.values()] for weights in grid])
    loss = table.max(axis=0) - table
    order = np.argsort(loss.mean(axis=1), kind="stable")[:most]
    print("\npassage  best view  BM25   mean loss  worst loss")
    for i in order.tolist():
        passage, view, lexical = grid[i]
        print(
            f"{passage:7.2f}  {view:9.2f}  {lexical:4.2f}  {loss[i].mean():10.4f}  "
            f"{loss[i].max():10.4f}  " + _row(table[i])
        )
    print("best of each set" + " " * 28 + _row(table.max(axis=0)))


def _row(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3f}" for value in values)


if __name__ == "__main__":
    sys.exit(main())
