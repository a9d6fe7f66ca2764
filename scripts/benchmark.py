#!/usr/bin/env python
"""Measure speed and memory: a table, and with --json FILE an object.

    python scripts/benchmark.py [--guide-only]       the shipped guide, and 100,000 passages
    python scripts/benchmark.py --scale              10,000 to 1,000,000 views
    python scripts/benchmark.py --peers              what else a user could pick (extra `peers`)

Every figure of a process (cold start, peak or resident memory) is taken from a process of its own.
A large corpus is made of paragraphs of the training pairs, one passage each; without that folder
only the shipped guide is measured.
"""

import argparse
import gzip
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import benchmark_peers
import numpy as np
from numpy.typing import NDArray

from assistant import generations
from assistant.desk import Desk
from assistant.embed import open_encoder
from assistant.fold import fold, terms
from assistant.lexical import Lexical
from assistant.questions import read_questions
from assistant.records import View
from assistant.search import LEXICAL, VECTORS, fuse, mix, pool
from assistant.settings import Settings
from assistant.store import FaissStore
from assistant.terminal import Progress

REPOSITORY = Path(__file__).resolve().parent.parent
TRAINING = REPOSITORY.parent / "shared" / "training"
_A_FILE = 250
_TRIES = 7
_POOL = 100
_EXACT_QUESTIONS = 60
_VIEWS_A_PASSAGE = 5.67  # of this corpus
_SCALE = (10_000, 100_000, 300_000, 1_000_000)


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


def timed_ms(
    ask: Callable[[str], object],
    questions: Sequence[str],
    clock: Callable[[], float] = time.perf_counter,
) -> NDArray[np.float64]:
    """Return the milliseconds of each call over the questions, after some to warm up with.

    `clock` may count this thread's own time, which other programs on the machine lengthen less.
    """
    for question in questions[:20]:
        ask(question)
    taken = []
    for question in questions:
        begin = clock()
        ask(question)
        taken.append((clock() - begin) * 1000)
    return np.array(taken)


def median_ms(
    ask: Callable[[str], object],
    questions: Sequence[str],
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return the median milliseconds of a call over the questions."""
    return float(np.median(timed_ms(ask, questions, clock)))


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


def measure_large(
    folder: Path,
    training: Path,
    passages: int,
    workers: Sequence[int] = (1,),
    precision: str = "float16",
) -> dict[str, float]:
    """Measure building, opening and asking a corpus of many passages.

    Asked is by one process and then by as many at once as `workers` says.
    """
    places_of = {"corpus": folder / "large", "index": folder / "large-index"}
    settings = Settings(**places_of, precision=precision)
    questions = write_corpus(settings.corpus, training, passages)
    os.environ["ASSISTANT_PRECISION"] = settings.precision
    built = run(["build", *places(settings)], folder / "log")
    facts = generations.current(settings.index).generation.manifest.facts
    figures = {
        "passages": passages,
        "views": facts["counts"]["views"],
        "build_views_per_s": facts["counts"]["views"] / built.cpu_s,
        "build_s": built.wall_s,
        "build_peak_mb": built.peak_mb,
        "disk_mb": sum(p.stat().st_size for p in settings.index.rglob("*") if p.is_file()) / 2**20,
    }
    for count in workers:
        with ProcessPoolExecutor(count, multiprocessing.get_context("spawn")) as pool:
            asked = list(pool.map(ask_large, [settings] * count, [questions] * count))
            mean = {key: statistics.mean(one[key] for one in asked) for key in asked[0]}
        if count == 1:
            figures |= mean
        else:
            figures |= {
                f"{count}_processes_p50_ms": mean["p50_ms"],
                f"{count}_processes_asks_per_s": sum(one["asks_per_s"] for one in asked),
                f"{count}_processes_own_mb_each": mean["own_mb"],
            }
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        figures["recall"] = pool.submit(recall, settings, questions[:_EXACT_QUESTIONS]).result()
    return figures


def ask_large(settings: Settings, questions: Sequence[str]) -> dict[str, float]:
    """Open a large index in this process and ask; say what that took."""
    encoder = open_encoder(settings)
    before = resident_mb()
    began = time.perf_counter()
    desk = Desk(settings, encoder)
    opened = time.perf_counter() - began
    taken = timed_ms(desk.ask, questions)
    return {
        "open_s": opened,
        "p50_ms": float(np.percentile(taken, 50)),
        "p95_ms": float(np.percentile(taken, 95)),
        "p99_ms": float(np.percentile(taken, 99)),
        "cpu_p50_ms": median_ms(desk.ask, questions, time.thread_time),
        "asks_per_s": 1000 / float(taken.mean()),
        "rss_mb": resident_mb(),
        "rss_of_index_mb": resident_mb() - before,
        "own_mb": own_mb(),
        **parts("large", desk, questions),
    }


def resident_mb() -> float:
    """Return what the process holds now (what is mapped from files counts as far as it is read)."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def own_mb() -> float:
    """Return what the process holds besides mapped files, which processes share."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.split("RssAnon:")[1].split()[0]) / 2**10


def recall(settings: Settings, questions: Sequence[str], k: int = 10) -> float:
    """Return the share of the exact best `k` passages that the index finds.

    Exact: every view's cosine in float32 and every view's BM25, fused as the index does.
    """
    encoder = open_encoder(settings)
    index = Desk(settings, encoder).index
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


def measure_scale(training: Path, progress: Progress) -> dict[str, dict[str, float]]:
    """Measure corpora of growing size, each by one process and by one for each processor core."""
    found = {}
    for views, precision in (*((views, "float16") for views in _SCALE), (_SCALE[-1], "int8")):
        name = f"{views:,}" + (f" {precision}" if precision == "int8" else "")
        progress(f"{name} views", 0, 0)
        passages, workers = round(views / _VIEWS_A_PASSAGE), (1, os.cpu_count() or 1)
        with tempfile.TemporaryDirectory() as folder:
            found[name] = measure_large(Path(folder), training, passages, workers, precision)
    return found


def measure(options: argparse.Namespace, progress: Progress) -> dict[str, float]:
    """Measure the guide and, where there is something to make it of, a large corpus."""
    with tempfile.TemporaryDirectory() as name:
        progress("guide", 0, 0)
        figures = measure_guide(Path(name))
        if options.guide_only or not (options.training / "train").is_dir():
            return figures
        progress(f"{options.passages:,} passages, some minutes", 0, 0)
        large = measure_large(Path(name), options.training, options.passages)
    named = {"p50_ms": "ask_100k_p50_ms", "recall": "recall_100k"}
    return figures | {named.get(key, key): value for key, value in large.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--training", type=Path, default=TRAINING, help="folder with train/")
    parser.add_argument("--passages", type=int, default=100_000, help="size of the large corpus")
    parser.add_argument("--guide-only", action="store_true", help="leave the large corpus out")
    parser.add_argument("--scale", action="store_true", help="measure corpora of growing size")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument(
        "--peers", action="store_true", help="what benchmark_peers.py does, with its options"
    )
    if "--peers" in sys.argv:
        return benchmark_peers.main([one for one in sys.argv[1:] if one != "--peers"])
    options = parser.parse_args()
    with Progress() as progress:
        if options.scale:
            columns = measure_scale(options.training, progress)
        else:
            columns = {"": measure(options, progress)}
    print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPU cores ({platform.machine()})")
    print(f"{'':30}" + "".join(f"{name:>16}" for name in columns))
    for key in next(iter(columns.values())):
        print(f"{key:30}" + "".join(f"{one.get(key, np.nan):16,.3f}" for one in columns.values()))
    if options.json:
        figures = columns if options.scale else columns[""]
        options.json.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
