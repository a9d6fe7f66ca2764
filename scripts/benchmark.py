#!/usr/bin/env python
"""Measure speed and memory: a table, and with --json FILE an object.

Every figure of a process (cold start, peak or resident memory) is taken from a process of its own.
The large corpus is made of paragraphs of the training pairs, one passage each; without that folder
only the shipped guide is measured.
"""

import argparse
import gzip
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from assistant import generations
from assistant.desk import Desk
from assistant.embed import Encoder, open_encoder
from assistant.fold import fold, terms
from assistant.lexical import Lexical
from assistant.questions import read_questions
from assistant.records import View
from assistant.search import LEXICAL, VECTORS, Index, fuse, mix, pool
from assistant.settings import Settings
from assistant.store import FaissStore
from assistant.terminal import Progress

REPOSITORY = Path(__file__).resolve().parent.parent
TRAINING = REPOSITORY.parent / "shared" / "training"
_A_FILE = 250
_TRIES = 7
_POOL = 100
_EXACT_QUESTIONS = 60


@dataclass(frozen=True, slots=True)
class Run:
    """Hold what a finished process used: wall and CPU seconds, peak memory in megabytes."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def run(arguments: Sequence[str], output: Path) -> Run:
    """Run the assistant's command line in a fresh process; its output goes to a file."""
    started = time.perf_counter()
    with output.open("wb") as file:
        process = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "assistant.cli", *arguments],
            {**os.environ, "PYTHONPATH": str(REPOSITORY)},
            file_actions=[(os.POSIX_SPAWN_DUP2, file.fileno(), n) for n in (1, 2)],
        )
        _, status, used = os.wait4(process, 0)
    wall = time.perf_counter() - started
    if os.waitstatus_to_exitcode(status) not in (0, 1):
        raise SystemExit(f"assistant {arguments[0]} failed: {output.read_text('utf-8')[-500:]}")
    return Run(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def median_ms(
    ask: Callable[[str], object],
    questions: Sequence[str],
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return the median milliseconds of a call over the questions, after some to warm up with.

    `clock` may count this thread's own time, which other programs on the machine lengthen less.
    """
    for question in questions[:20]:
        ask(question)
    taken = []
    for question in questions:
        begin = clock()
        ask(question)
        taken.append((clock() - begin) * 1000)
    return statistics.median(taken)


def places(settings: Settings) -> list[str]:
    return ["--corpus", str(settings.corpus), "--index", str(settings.index)]


# --- The shipped guide --------------------------------------------------------------------------


def measure_guide(folder: Path) -> dict[str, float]:
    """Measure a cold build, a cold question and warm questions over the shipped guide."""
    settings = Settings(corpus=REPOSITORY / "corpus", index=folder / "guide")
    log = folder / "log"
    builds = [
        run(["build", *places(settings.model_copy(update={"index": folder / str(n)}))], log)
        for n in range(3)
    ]
    run(["build", *places(settings)], log)
    asks = [run(["ask", "充值没到账怎么办", *places(settings)], log) for _ in range(_TRIES)]
    desk = Desk.open(settings)
    questions = guide_questions(settings)
    return {
        "build_guide_s": min(one.wall_s for one in builds),
        "cold_ask_s": min(one.wall_s for one in asks),
        "cold_ask_mb": max(one.peak_mb for one in asks),
        "ask_guide_p50_ms": median_ms(desk.ask, questions),
        "ask_guide_cpu_p50_ms": median_ms(desk.ask, questions, time.thread_time),
        **parts("guide", desk, questions),
    }


def guide_questions(settings: Settings) -> list[str]:
    paths = sorted((settings.corpus / "questions").glob("*.yaml"))
    asked = [question.ask for path in paths for question in read_questions(path)]
    return [question for question in asked if any(c.isalnum() for c in question)]


def parts(name: str, desk: Desk, questions: Sequence[str]) -> dict[str, float]:
    """Say where a question's time goes, each part timed by itself."""
    folder = generations.current(desk.settings.index).generation.folder
    words = Lexical.open(folder / LEXICAL)
    vectors = {q: desk.encoder.encode_queries([q])[0] for q in questions}
    asked = {q: list(dict.fromkeys(terms(fold(q)))) for q in questions}
    matrix = FaissStore.open(folder / VECTORS).matrix() if desk.index.view_count <= 10_000 else None

    def near(question: str) -> object:
        """Do what a search does: compare with every view of a small index, else nominate."""
        if matrix is not None:
            return np.vecdot(matrix, vectors[question])
        return desk.index.nominate(vectors[question], _POOL)

    searched = median_ms(lambda q: desk.index.search(q, 5), questions)
    encoded = median_ms(lambda q: desk.encoder.encode_queries([q]), questions)
    dense = median_ms(near, questions)
    lexical = median_ms(lambda q: words.search(asked[q], _POOL), questions)
    return {
        f"{name}_encode_ms": encoded,
        f"{name}_dense_ms": dense,
        f"{name}_lexical_ms": lexical,
        f"{name}_fusion_ms": max(0.0, searched - encoded - dense - lexical),
        f"{name}_answer_ms": max(0.0, median_ms(desk.ask, questions) - searched),
    }


# --- A large corpus -----------------------------------------------------------------------------


def pairs(training: Path, kind: str) -> Iterator[tuple[str, str]]:
    with gzip.open(training / "train" / f"{kind}.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            yield str(row["a"]), str(row["p"])


def write_corpus(folder: Path, training: Path, passages: int) -> list[str]:
    """Write a corpus with that many passages; return questions onto it.

    Past the paragraphs there are, they come again with their number before them.
    """
    folder.mkdir()
    unique = dict.fromkeys(p for kind in ("head2para", "q2para") for _, p in pairs(training, kind))
    texts = [" ".join(text.split()) for text in unique]
    for begin in range(0, passages, _A_FILE):
        rows = range(begin, min(begin + _A_FILE, passages))
        body = (f"# 第 {n} 节\n\n{_repeated(texts, n)[:380]}\n\n" for n in rows)
        (folder / f"{begin:08}.md").write_text("".join(body), "utf-8")
    known = set(texts[:passages])
    asked = (a for a, p in pairs(training, "q2para") if " ".join(p.split()) in known)
    return [question for question, _ in zip(asked, range(300), strict=False)]


def _repeated(texts: Sequence[str], number: int) -> str:
    again = number // len(texts)
    text = texts[number % len(texts)]
    return f"{again}:{number} {text}" if again else text


def measure_large(folder: Path, training: Path, passages: int) -> dict[str, float]:
    """Measure building, opening and asking a corpus of many passages."""
    settings = Settings(corpus=folder / "large", index=folder / "large-index", precision="float16")
    questions = write_corpus(settings.corpus, training, passages)
    os.environ["ASSISTANT_PRECISION"] = settings.precision
    built = run(["build", *places(settings)], folder / "log")
    encoder = open_encoder(settings)
    before = resident_mb()
    began = time.perf_counter()
    desk = Desk(settings, encoder)
    opened = time.perf_counter() - began
    asked = median_ms(desk.ask, questions)
    used = median_ms(desk.ask, questions, time.thread_time)
    return {
        "passages": len(desk.index),
        "views": desk.index.view_count,
        "build_views_per_s": desk.index.view_count / built.cpu_s,
        "build_s": built.wall_s,
        "build_peak_mb": built.peak_mb,
        "disk_mb": sum(p.stat().st_size for p in settings.index.rglob("*") if p.is_file()) / 2**20,
        "open_s": opened,
        "rss_mb": resident_mb(),
        "rss_of_index_mb": resident_mb() - before,
        "ask_100k_p50_ms": asked,
        "ask_100k_cpu_p50_ms": used,
        "recall_100k": recall(desk.index, encoder, questions[:_EXACT_QUESTIONS], settings),
        **parts("100k", desk, questions),
    }


def resident_mb() -> float:
    """Return what the process holds now (what is mapped from files counts as far as it is read)."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def recall(
    index: Index, encoder: Encoder, questions: Sequence[str], settings: Settings, k: int = 10
) -> float:
    """Return the share of the exact best `k` passages that the index finds.

    Exact: every view's cosine in float32 and every view's BM25, fused as the index does.
    """
    views = [view for row in range(len(index)) for view in index.views(row)]
    vectors = np.concatenate(
        [
            encoder.encode_passages([view.text for view in views[begin : begin + 20_000]])
            for begin in range(0, len(views), 20_000)
        ]
    )
    folder = generations.current(settings.index).generation.folder
    words = Lexical.open(folder / LEXICAL)
    found = []
    for question in questions:
        cosines = vectors @ encoder.encode_queries([question])[0]
        best = exact(question, cosines, views, words, settings, k)
        found.append(len(best & {hit.row for hit in index.search(question, k).hits}) / k)
    return statistics.mean(found)


def exact(
    question: str,
    cosines: NDArray[np.float32],
    views: Sequence[View],
    words: Lexical,
    settings: Settings,
    k: int,
) -> set[int]:
    """Return the rows of the best passages by looking at every view."""
    asked = list(dict.fromkeys(terms(fold(question))))
    raw = np.zeros(len(views), dtype=np.float32)
    found, scores = words.search(asked, len(views))
    raw[found] = scores
    starts = np.flatnonzero([view.kind == "passage" for view in views])
    weight = sum(map(words.idf, asked))
    lexical = np.maximum.reduceat(raw, starts)
    sizes = np.diff(np.append(starts, len(views)))[:, None]
    held = np.arange(sizes.max()) < sizes
    grid = np.full(held.shape, -np.inf, dtype=np.float32)
    grid[held] = cosines
    score = fuse(mix(grid[:, 0], *pool(grid), settings), lexical, weight, settings)
    return set(np.lexsort((np.arange(len(starts)), -score))[:k].tolist())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--training", type=Path, default=TRAINING, help="folder with train/")
    parser.add_argument("--passages", type=int, default=100_000, help="size of the large corpus")
    parser.add_argument("--guide-only", action="store_true", help="leave the large corpus out")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, Progress() as progress:
        progress("guide", 0, 0)
        figures = measure_guide(Path(name))
        if not options.guide_only and (options.training / "train").is_dir():
            progress(f"{options.passages:,} passages, some minutes", 0, 0)
            figures |= measure_large(Path(name), options.training, options.passages)
    print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPU cores ({platform.machine()})")
    for key, value in figures.items():
        print(f"{key:22} {value:14,.3f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
