#!/usr/bin/env python
"""Measure an embedding model on every evaluation set: one table, and JSON with --json FILE.

Similarity is Spearman's rho x 100 of the cosines with the human scores (as in C-MTEB); retrieval is
MRR@10 and recall@5 over the whole corpus of the set, dense alone.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from embedder_data import HELD_OUT_SOURCE, OWN, lines, read_intents, sts_rows
from numpy.typing import NDArray
from scipy.stats import spearmanr

from assistant.embed import Encoder, open_encoder
from assistant.settings import Settings

Vectors = NDArray[np.float32]
REPOSITORY = Path(__file__).resolve().parent.parent
TRAINING = REPOSITORY.parent / "shared" / "training"


def reciprocal_rank(ranked: Sequence[int], right: set[int], k: int = 10) -> float:
    """Return 1/rank of the first right one among the first k, else 0."""
    return next((1 / (i + 1) for i, one in enumerate(ranked[:k]) if one in right), 0.0)


def recall(ranked: Sequence[int], right: set[int], k: int) -> float:
    """Return the share of the right ones that are among the first k."""
    return len(right.intersection(ranked[:k])) / len(right)


def rank(queries: Vectors, passages: Vectors, k: int = 10) -> NDArray[np.int64]:
    """Return the rows of the k nearest passages of each query, best first."""
    rows = []
    for begin in range(0, len(queries), 512):
        scores = queries[begin : begin + 512] @ passages.T
        rows.append(np.argsort(-scores, axis=1, kind="stable")[:, :k])
    return np.concatenate(rows)


def similarity(encoder: Encoder, path: Path) -> float:
    """Return Spearman x 100 of a similarity set."""
    first, second, scores = zip(*sts_rows(path), strict=True)
    cosines = (encoder.encode_queries(first) * encoder.encode_queries(second)).sum(axis=1)
    return float(spearmanr(cosines, scores).statistic * 100)


def retrieval(encoder: Encoder, folder: Path) -> dict[str, float]:
    """Return MRR@10 and recall@5 of a retrieval set."""
    documents = list(lines(folder / "corpus.jsonl.gz"))
    queries = list(lines(folder / "queries.jsonl.gz"))
    row = {document["id"]: i for i, document in enumerate(documents)}
    right: dict[object, set[int]] = {}
    for qrel in lines(folder / "qrels.jsonl.gz"):
        right.setdefault(qrel["qid"], set()).add(row[qrel["did"]])
    texts = [f"{d.get('title') or ''} {d['text']}".strip() for d in documents]
    asked = [query for query in queries if query["id"] in right]
    ranked = rank(
        encoder.encode_queries([str(query["text"]) for query in asked]),
        encoder.encode_passages(texts),
    ).tolist()
    wanted = [right[query["id"]] for query in asked]
    return {
        "mrr@10": float(
            np.mean([reciprocal_rank(r, w) for r, w in zip(ranked, wanted, strict=True)])
        ),
        "recall@5": float(np.mean([recall(r, w, 5) for r, w in zip(ranked, wanted, strict=True)])),
    }


def held_out_intents(encoder: Encoder, folders: Sequence[Path]) -> dict[str, float]:
    """Return how often a held-out intent's passage is found among the passages of all intents."""
    intents = read_intents(folders, set())
    passages = encoder.encode_passages([intent.passages[0] for intent in intents])
    asked = [
        (q, i) for i, intent in enumerate(intents) if intent.held_out for q in intent.questions
    ]
    ranked = rank(encoder.encode_queries([q for q, _ in asked]), passages)
    right = np.array([i for _, i in asked])[:, None] == ranked
    return {
        "hit@1": float(right[:, 0].mean()),
        "hit@5": float(right[:, :5].any(axis=1).mean()),
        "questions": float(len(asked)),
        "passages": float(len(intents)),
    }


def held_out_source(encoder: Encoder, training: Path) -> dict[str, float]:
    """Return recall@5 of English headings onto the Chinese passages of the unseen source."""
    pairs = [
        row
        for row in lines(training / "train" / "enhead2zhpara.jsonl.gz")
        if row["src"] == HELD_OUT_SOURCE
    ]
    passages = list(dict.fromkeys(str(row["p"]) for row in pairs))
    number = {passage: i for i, passage in enumerate(passages)}
    ranked = rank(
        encoder.encode_queries([str(row["a"]) for row in pairs]), encoder.encode_passages(passages)
    )
    right = np.array([number[str(row["p"])] for row in pairs])[:, None] == ranked
    return {"recall@5": float(right[:, :5].any(axis=1).mean()), "questions": float(len(pairs))}


def speed(encoder: Encoder, training: Path) -> dict[str, float]:
    """Return microseconds of a short query and passages per CPU second, the best of some rounds."""
    asked = "充值没到账怎么办"
    rounds = []
    for _ in range(7):
        begin = time.perf_counter()
        for _ in range(300):
            encoder.encode_queries([asked])
        rounds.append((time.perf_counter() - begin) / 300)
    rows = lines(training / "train" / "head2para.jsonl.gz")
    texts = [str(row["p"]) for row, _ in zip(rows, range(10_000), strict=False)]
    seconds = []
    for begin in range(0, len(texts), 1_000):
        started = time.process_time()
        encoder.encode_passages(texts[begin : begin + 1_000])
        seconds.append(time.process_time() - started)
    return {
        "query_us": min(rounds) * 1e6,
        "passages_per_s": 1_000 / min(seconds),
    }


def evaluate(encoder: Encoder, training: Path, own: Path) -> dict[str, float]:
    """Return every figure, by name."""
    figures: dict[str, float] = {}
    for path in sorted((training / "eval" / "sts").glob("*.tsv.gz")):
        figures[f"sts/{path.name.split('.')[0]}"] = similarity(encoder, path)
    for folder in sorted(
        p for p in (training / "eval").iterdir() if (p / "qrels.jsonl.gz").exists()
    ):
        for name, value in retrieval(encoder, folder).items():
            figures[f"{folder.name}/{name}"] = value
    for name, value in held_out_intents(encoder, [own / "support", own]).items():
        figures[f"held-out intents/{name}"] = value
    for name, value in held_out_source(encoder, training).items():
        figures[f"en to zh, unseen source/{name}"] = value
    for name, value in speed(encoder, training).items():
        figures[f"speed/{name}"] = value
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=Settings().model, help="folder or name of the model")
    parser.add_argument(
        "--training", type=Path, default=TRAINING, help="folder with eval/ and train/"
    )
    parser.add_argument("--own", type=Path, default=OWN, help="folder with the support intents")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    for part, what in (("eval", "evaluation sets"), ("train", "training pairs")):
        if not any((options.training / part).rglob("*.gz")):
            print(f"no {what} at {options.training}/{part}; give --training DIR", file=sys.stderr)
            return 4
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the speed is that of one core
    figures = evaluate(open_encoder(Settings(model=options.model)), options.training, options.own)
    for name, value in figures.items():
        print(f"{name:42} {value:10.3f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
