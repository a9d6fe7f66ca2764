#!/usr/bin/env python
"""Measure ours beside what one would pick instead: txtai, LangChain, Haystack and LlamaIndex.

Every system gets the same passages, the same encoder and the same k. Each build and each run of
questions has a fresh process of its own, one after another, and the systems take turns in several
rounds, so that what else the machine does hits all of them. `docs/benchmarks.md` says what each
was given and why.
"""
# ruff: noqa: D102 (what build, open, search, find and answers do stands at Peer, once)

import argparse
import gzip
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
TRAINING = REPOSITORY.parent / "shared" / "training"
SETS = ("cmrc2018_dev", "drcd_test", "guide")
INSTALL = "pip install -c constraints.txt -e '.[peers]'"
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
K = 10
_DEEPER = 5  # times k texts are asked for where several texts stand for one passage
_WARM = 20
_WHOLE = 4000  # most characters that a passage may have: no text of the public sets is longer
_HAN = r"\u3400-\u4dbf\u4e00-\u9fff"
# Pairs of characters, and whole words in other writing. The look-ahead makes the pairs overlap.
PAIRS = rf"(?=([{_HAN}]{{1,2}}|(?<![^\W{_HAN}])[^\W{_HAN}]+))"
_ALONE = {  # one thread each, and nothing is fetched or reported
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    **dict.fromkeys(("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"), "1"),
    **dict.fromkeys(("TOKENIZERS_PARALLELISM", "LANGSMITH_TRACING"), "false"),
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "PYTHONPATH": str(REPOSITORY),
}
Figures = dict[str, float]
Span = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Asked:
    """Hold a question and the numbers of the passages that answer it; none: it has no answer."""

    text: str
    right: list[int]


@dataclass(frozen=True, slots=True)
class Task:
    """Hold what all systems are given: passages, more texts for some of them, and questions.

    `corpus` is the same as files, for ours; `variants` are (text, number of its passage).
    """

    name: str
    corpus: str
    chunk_chars: int
    passages: list[str]
    variants: list[tuple[str, int]]
    questions: list[Asked]

    @classmethod
    def read(cls, path: Path) -> "Task":
        """Read what `write` wrote."""
        fields = json.loads(path.read_text("utf-8"))
        return cls(**{**fields, "questions": [Asked(**one) for one in fields["questions"]]})

    def write(self, path: Path) -> None:
        """Write all of it for the child processes."""
        path.write_text(json.dumps(asdict(self), ensure_ascii=False), "utf-8")


# --- The systems: each imports what it needs where it needs it, for that is part of its start -----


class Ours:
    """Run the product as it is: `build`, then `Desk`."""

    packages: tuple[str, ...] = ()

    def __init__(self, task: Task, folder: Path, chinese: bool) -> None:
        """Take a folder for the index; as it comes it is set for Chinese."""
        from assistant.settings import Settings

        corpus = Path(task.corpus)
        self.task = task
        self.settings = Settings(corpus=corpus, index=folder, chunk_chars=task.chunk_chars)

    def build(self) -> None:
        from assistant.build import build

        report = build(self.settings)
        if report.passages != len(self.task.passages):
            raise SystemExit(f"{report.passages} passages, not {len(self.task.passages)}")

    def open(self) -> None:
        from assistant.desk import Desk

        self.desk = Desk.open(self.settings)

    def search(self, question: str) -> list[int]:
        from assistant.errors import BadInput

        try:
            return [hit.row for hit in self.desk.search(question, K)]
        except BadInput:  # there are no words in it: the page asks for some
            return []

    def answers(self, question: str, found: list[int]) -> bool:
        return bool(found) and self.desk.ask(question).verdict == "answered"


class Peer(ABC):
    """Hold what the peers have in common: numbered texts, and passages found by them."""

    packages: tuple[str, ...]

    def __init__(self, task: Task, folder: Path, chinese: bool) -> None:
        variants = task.variants if chinese else []
        self.folder, self.chinese = folder, chinese
        self.texts = [*task.passages, *(text for text, _ in variants)]
        self.passage = [*range(len(task.passages)), *(row for _, row in variants)]
        self.depth = K * _DEEPER if variants else K

    def encoder(self) -> Any:
        from assistant.embed import open_encoder
        from assistant.settings import Settings

        return open_encoder(Settings())

    @abstractmethod
    def build(self) -> None:
        """Index the texts and keep the index in the folder, as far as the library can."""

    @abstractmethod
    def open(self) -> None:
        """Get ready to be asked from what `build` kept."""

    @abstractmethod
    def find(self, question: str) -> list[int]:
        """Return the numbers of the best texts, best first."""

    def search(self, question: str) -> list[int]:
        """Return the numbers of the best passages, best first."""
        return list(dict.fromkeys(self.passage[i] for i in self.find(question)))[:K]

    def answers(self, question: str, found: list[int]) -> bool:
        """Tell whether an answer is given: by ours without reserve, by a peer at all.

        A peer's cut is the one that its library has when nobody sets one.
        """
        return bool(found)


class Txtai(Peer):
    """A hybrid index; its own tokenizer takes Chinese apart into characters."""

    packages = ("txtai",)

    def transform(self) -> Callable[[list[str]], Any]:
        encoder = self.encoder()
        return lambda texts: encoder.encode_passages(texts)  # it wants a plain function

    def build(self) -> None:
        from txtai import Embeddings

        pairs = {"tokenizer": {"ngrams": 2}} if self.chinese else {}
        scoring = {"method": "bm25", "terms": True, "normalize": True, **pairs}
        index = Embeddings(method="external", transform=self.transform(), scoring=scoring)
        index.index(self.texts)
        index.save(str(self.folder))

    def open(self) -> None:
        from txtai import Embeddings

        self.index = Embeddings()
        self.index.load(str(self.folder), config={"transform": self.transform()})

    def find(self, question: str) -> list[int]:
        return [number for number, _ in self.index.search(question, self.depth)]


class Langchain(Peer):
    """FAISS and BM25 in an EnsembleRetriever; BM25 cannot be kept, so every start builds it."""

    packages = ("langchain-community", "langchain-classic", "rank-bm25", "faiss-cpu", "jieba")

    def embeddings(self) -> Any:
        from langchain_core.embeddings import Embeddings

        encoder = self.encoder()

        class Local(Embeddings):
            def embed_documents(self, texts: list[str]) -> list[list[float]]:
                return encoder.encode_passages(texts).tolist()

            def embed_query(self, text: str) -> list[float]:
                return encoder.encode_queries([text])[0].tolist()

        return Local()

    def build(self) -> None:
        from langchain_community.vectorstores import FAISS

        numbers = [{"number": i} for i in range(len(self.texts))]
        FAISS.from_texts(self.texts, self.embeddings(), numbers).save_local(str(self.folder))

    def open(self) -> None:
        from langchain_classic.retrievers import EnsembleRetriever
        from langchain_community.retrievers import BM25Retriever
        from langchain_community.vectorstores import FAISS

        store = FAISS.load_local(
            str(self.folder), self.embeddings(), allow_dangerous_deserialization=True
        )
        cut = {"preprocess_func": in_words()} if self.chinese else {}
        numbers = [{"number": i} for i in range(len(self.texts))]
        words = BM25Retriever.from_texts(self.texts, numbers, k=self.depth, **cut)
        near = store.as_retriever(search_kwargs={"k": self.depth})
        self.retriever = EnsembleRetriever(retrievers=[words, near], weights=[0.5, 0.5])

    def find(self, question: str) -> list[int]:
        return [document.metadata["number"] for document in self.retriever.invoke(question)]


class Haystack(Peer):
    """The in-memory store, joined by rank; it is read from JSON and counts words anew at start."""

    packages = ("haystack-ai",)

    def build(self) -> None:
        from haystack import Document
        from haystack.document_stores.in_memory import InMemoryDocumentStore

        store = InMemoryDocumentStore(
            **({"bm25_tokenization_regex": PAIRS} if self.chinese else {})
        )
        vectors = self.encoder().encode_passages(self.texts).tolist()
        store.write_documents(
            [
                Document(content=text, embedding=vector, meta={"number": i})
                for i, (text, vector) in enumerate(zip(self.texts, vectors, strict=True))
            ]
        )
        self.folder.mkdir()
        store.save_to_disk(str(self.folder / "store.json"))

    def open(self) -> None:
        from haystack import Pipeline, component
        from haystack.components.joiners import DocumentJoiner
        from haystack.components.retrievers.in_memory import (
            InMemoryBM25Retriever,
            InMemoryEmbeddingRetriever,
        )
        from haystack.document_stores.in_memory import InMemoryDocumentStore

        encoder = self.encoder()

        @component
        class Local:
            @component.output_types(embedding=list[float])
            def run(self, text: str) -> dict[str, list[float]]:
                return {"embedding": encoder.encode_queries([text])[0].tolist()}

        store = InMemoryDocumentStore.load_from_disk(str(self.folder / "store.json"))
        joiner = DocumentJoiner(join_mode="reciprocal_rank_fusion", top_k=self.depth)
        self.pipeline = Pipeline()
        self.pipeline.add_component("encoder", Local())
        self.pipeline.add_component("words", InMemoryBM25Retriever(store, top_k=self.depth))
        self.pipeline.add_component("near", InMemoryEmbeddingRetriever(store, top_k=self.depth))
        self.pipeline.add_component("joiner", joiner)
        self.pipeline.connect("encoder.embedding", "near.query_embedding")
        self.pipeline.connect("words", "joiner")
        self.pipeline.connect("near", "joiner")

    def find(self, question: str) -> list[int]:
        given = {"encoder": {"text": question}, "words": {"query": question}}
        found = self.pipeline.run(given)["joiner"]["documents"]
        return [document.meta["number"] for document in found]


class LlamaIndex(Peer):
    """FAISS and BM25, fused by rank from one query, so that no language model is asked."""

    packages = (
        "llama-index-core",
        "llama-index-vector-stores-faiss",
        "llama-index-retrievers-bm25",
        "faiss-cpu",
    )

    def embeddings(self) -> Any:
        from llama_index.core.embeddings import BaseEmbedding

        encoder = self.encoder()

        class Local(BaseEmbedding):
            def _get_text_embedding(self, text: str) -> list[float]:
                return encoder.encode_passages([text])[0].tolist()

            def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
                return encoder.encode_passages(texts).tolist()

            def _get_query_embedding(self, query: str) -> list[float]:
                return encoder.encode_queries([query])[0].tolist()

            async def _aget_query_embedding(self, query: str) -> list[float]:
                return self._get_query_embedding(query)

        return Local(model_name=encoder.name)

    def build(self) -> None:
        import faiss
        from llama_index.core import StorageContext, VectorStoreIndex
        from llama_index.core.schema import TextNode
        from llama_index.retrievers.bm25 import BM25Retriever
        from llama_index.vector_stores.faiss import FaissVectorStore

        model = self.embeddings()
        # Its fusion takes a higher score for the better one, which distances (IndexFlatL2) are not.
        flat = faiss.IndexFlatIP(len(model.get_query_embedding("?")))
        store = StorageContext.from_defaults(vector_store=FaissVectorStore(faiss_index=flat))
        nodes = [TextNode(text=text, id_=str(i)) for i, text in enumerate(self.texts)]
        VectorStoreIndex(nodes, storage_context=store, embed_model=model)
        store.persist(str(self.folder))
        cut = {"token_pattern": PAIRS} if self.chinese else {}
        words = BM25Retriever.from_defaults(nodes=nodes, similarity_top_k=self.depth, **cut)
        words.persist(str(self.folder / "words"))

    def open(self) -> None:
        from llama_index.core import StorageContext, load_index_from_storage
        from llama_index.core.llms import MockLLM
        from llama_index.core.retrievers import QueryFusionRetriever
        from llama_index.retrievers.bm25 import BM25Retriever
        from llama_index.vector_stores.faiss import FaissVectorStore

        folder = str(self.folder)
        vectors = FaissVectorStore.from_persist_dir(folder)
        store = StorageContext.from_defaults(vector_store=vectors, persist_dir=folder)
        index = load_index_from_storage(store, embed_model=self.embeddings())
        words = BM25Retriever.from_persist_dir(str(self.folder / "words"))
        if self.chinese:
            words.token_pattern = PAIRS  # it is not kept, and questions would be cut otherwise
        self.retriever = QueryFusionRetriever(
            [index.as_retriever(similarity_top_k=self.depth), words],
            llm=MockLLM(),  # never asked with one query; without it one of OpenAI's is looked for
            mode="reciprocal_rerank",
            similarity_top_k=self.depth,
            num_queries=1,
            use_async=not self.chinese,  # its default; without it the same is found sooner
        )

    def find(self, question: str) -> list[int]:
        return [int(found.node.node_id) for found in self.retriever.retrieve(question)]


def in_words() -> Callable[[str], list[str]]:
    """Return jieba's way to cut a text into Chinese words."""
    import jieba

    jieba.setLogLevel("ERROR")
    return lambda text: jieba.lcut(text.lower())


KINDS: dict[str, type[Ours] | type[Peer]] = {
    "ours": Ours,
    "txtai": Txtai,
    "langchain": Langchain,
    "haystack": Haystack,
    "llama-index": LlamaIndex,
}
SYSTEMS = ("ours", *(name + end for name in list(KINDS)[1:] for end in ("", "-zh")))


def system(name: str, task: Task, folder: Path) -> Ours | Peer:
    """Return a system, as it comes or (`-zh`) with its best setting for Chinese."""
    return KINDS[name.removesuffix("-zh")](task, folder, name.endswith("-zh"))


def versions(name: str) -> dict[str, str]:
    """Return what a system needs with its versions; raise PackageNotFoundError for what is not."""
    needed = KINDS[name.removesuffix("-zh")].packages
    return {package: importlib.metadata.version(package) for package in needed}


# --- A child process: one build, or one start with questions --------------------------------------


def child(work: str, name: str, task: str, folder: str, output: str, asked: str, born: str) -> int:
    """Do one piece of work and write its figures; `born` is when the parent started this."""
    given = Task.read(Path(task))
    one = system(name, given, Path(folder))
    if work == "build":
        one.build()
        figures: Figures = {"build_s": time.monotonic() - float(born)}
    else:
        one.open()
        one.search(given.questions[0].text)
        cold = time.monotonic() - float(born)
        figures = {"cold_s": cold, **ask(one, given.questions, int(asked))}
    Path(output).write_text(json.dumps(figures), "utf-8")
    return 0


def ask(one: Ours | Peer, questions: Sequence[Asked], timed: int) -> Figures:
    """Ask the questions, the first `timed` of the spread ones by the clock.

    For a peer an answer is what it found; ours has yet to decide on it (`answer_p50_ms`).
    """
    order = spread(questions, timed)
    for question in order[max(0, timed - _WARM) : timed]:
        one.search(question.text)
    found, taken, used = [], [], []
    for question in order:
        begin, begun = time.perf_counter(), time.process_time()
        found.append(one.search(question.text))
        used.append((time.process_time() - begun) * 1000)
        taken.append((time.perf_counter() - begin) * 1000)
    held = resident_mb()
    answered, whole = [], []
    for question, rows in zip(order, found, strict=True):
        begin = time.perf_counter()
        answered.append(one.answers(question.text, rows))
        whole.append((time.perf_counter() - begin) * 1000)
    return {
        "resident_mb": held,
        "p50_ms": float(np.percentile(taken[:timed], 50)),
        "p95_ms": float(np.percentile(taken[:timed], 95)),
        "cpu_p50_ms": float(np.percentile(used[:timed], 50)),
        "answer_p50_ms": statistics.median(whole[:timed]),
        **quality([q.right for q in order], found, answered),
    }


def spread(questions: Sequence[Asked], first: int) -> list[Asked]:
    """Return all questions, evenly spread ones before the others."""
    count = min(first, len(questions))
    chosen = {i * len(questions) // count for i in range(count)}
    rest = (i for i in range(len(questions)) if i not in chosen)
    return [questions[i] for i in [*sorted(chosen), *rest]]


def quality(
    right: Sequence[Sequence[int]], found: Sequence[Sequence[int]], answered: Sequence[bool]
) -> Figures:
    """Return recall and MRR of the questions with an answer, and what share is answered.

    `wrong` is the share of what is answered whose first passage is not the answer.
    """
    ranks = [
        next((n for n, row in enumerate(rows[:K], 1) if row in wanted), 0)
        for wanted, rows in zip(right, found, strict=True)
    ]
    asked = [rank for rank, wanted in zip(ranks, right, strict=True) if wanted]
    figures = {
        "r1": share(rank == 1 for rank in asked),
        "r5": share(0 < rank <= 5 for rank in asked),
        "mrr": statistics.fmean(1 / rank if rank else 0.0 for rank in asked),
        "answered": share(a for a, wanted in zip(answered, right, strict=True) if wanted),
    }
    if len(asked) < len(right):
        given = [rank for rank, a in zip(ranks, answered, strict=True) if a]
        none = [a for a, wanted in zip(answered, right, strict=True) if not wanted]
        figures |= {"false": share(none), "wrong": share(rank != 1 for rank in given)}
    return figures


def share(truths: Any) -> float:
    """Return the share of true ones, 0 of none."""
    values = list(truths)
    return sum(values) / len(values) if values else 0.0


def resident_mb() -> float:
    """Return what this process holds in memory now, mapped files as far as they were read."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


# --- What is asked --------------------------------------------------------------------------------


def public_task(name: str, training: Path, scratch: Path, most: int) -> Task:
    """Return a public set, and write its texts as a corpus of one file each."""
    corpus = scratch / name
    corpus.mkdir()
    texts: list[str] = []
    number: dict[str, int] = {}
    for row in lines(training / "eval" / name / "corpus.jsonl.gz"):
        title, text = row.get("title") or "", " ".join(row["text"].split())
        number[row["id"]] = len(texts)
        (corpus / f"{len(texts):06}.md").write_text(f"# {title}\n\n{text}\n", "utf-8")
        texts.append(f"{title}\n{text}")
    right: dict[str, list[int]] = {}
    for row in lines(training / "eval" / name / "qrels.jsonl.gz"):
        right.setdefault(row["qid"], []).append(number[row["did"]])
    rows = lines(training / "eval" / name / "queries.jsonl.gz")
    questions = [Asked(row["text"], right[row["id"]]) for row in rows if row["id"] in right]
    if most:
        questions = spread(questions, most)[:most]
    return Task(name, str(corpus), _WHOLE, texts, [], questions)


def lines(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def guide_task(most: int) -> Task:
    """Return the shipped guide: our passages with their headings, variants, test questions."""
    from assistant.build import prepare
    from assistant.questions import held_out, locate
    from assistant.settings import Settings

    settings = Settings(corpus=REPOSITORY / "corpus")
    prepared = prepare(settings, lambda *_: None)
    passages = [view.text for view in prepared.views if view.kind == "passage"]
    variants = [(view.text, view.chunk) for view in prepared.views if view.kind == "variant"]
    located = locate(held_out(settings.corpus), prepared.chunks)
    questions = [Asked(one.question.ask, sorted(one.rows)) for one in located]
    if most:
        questions = spread(questions, most)[:most]
    corpus = str(settings.corpus)
    return Task("guide", corpus, settings.chunk_chars, passages, variants, questions)


CUTS = {
    "RAGFlow's 0.2": 0.2,
    "LangChain's example, 0.5 of its relevance": 1 - 0.5 * 2**0.5 / 2,  # which is 1 - d² / √2
    "MaxKB's 0.6": 0.6,
    "LlamaIndex's example, 0.75": 0.75,
}


def constant_cuts(task: Task) -> list[tuple[str, float, float, float]]:
    """Return what fixed cuts on the best cosine of any text would answer, wrongly and rightly."""
    from assistant.embed import open_encoder
    from assistant.settings import Settings

    encoder = open_encoder(Settings())
    texts = encoder.encode_passages([*task.passages, *(text for text, _ in task.variants)])
    best = (encoder.encode_queries([q.text for q in task.questions]) @ texts.T).max(axis=1)
    known = np.array([bool(q.right) for q in task.questions])
    return [
        (name, cut, float((best[~known] >= cut).mean()), float((best[known] >= cut).mean()))
        for name, cut in CUTS.items()
    ]


# --- The parent: rounds, tables, plot -------------------------------------------------------------


def run(work: str, name: str, task: Path, folder: Path, asked: int) -> Figures:
    """Run one piece of work in a fresh process and return its figures."""
    output = task.with_suffix(".figures")
    output.unlink(missing_ok=True)
    given = [work, name, str(task), str(folder), str(output), str(asked)]
    command = [sys.executable, str(Path(__file__).resolve()), "child", *given]
    done = subprocess.run(
        [*command, str(time.monotonic())],
        env={**os.environ, **_ALONE},
        cwd=task.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not output.exists():
        raise SystemExit(f"{work} of {name} failed: {done.stderr[-2000:]}")
    figures: Figures = json.loads(output.read_text("utf-8"))
    return figures


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure every system on every set in turns; return all figures, a list of rounds each."""
    known: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for name in options.systems:
        try:
            known |= versions(name)
        except importlib.metadata.PackageNotFoundError as error:
            left_out[name] = f"{error.name} is not installed; {INSTALL}"
    systems = [name for name in options.systems if name not in left_out]
    results: dict[str, dict[str, list[Figures]]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    figures = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "versions": known,
        "left_out": left_out,
        "reduced": bool(options.questions),
        "sizes": sizes,
        "results": results,
        "cuts": [],
    }
    with tempfile.TemporaryDirectory() as place:
        scratch = Path(place)
        for name in options.sets:
            if name == "guide":
                task = guide_task(options.questions)
                figures["cuts"] = constant_cuts(task)
            elif (options.training / "eval" / name).is_dir():
                task = public_task(name, options.training, scratch, options.questions)
            else:
                left_out[name] = f"no {options.training / 'eval' / name}; give --training DIR"
                continue
            path = scratch / f"{name}.json"
            task.write(path)
            sizes[name] = (len(task.questions), len(task.passages))
            results[name] = rounds(systems, path, options)
            if options.json:  # a run that breaks off later loses none of it
                options.json.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    return figures


def rounds(
    systems: Sequence[str], task: Path, options: argparse.Namespace
) -> dict[str, list[Figures]]:
    """Let the systems take turns; from the second round on only the timed questions are asked."""
    measured: dict[str, list[Figures]] = {name: [] for name in systems}
    path = task
    for number in range(options.rounds):
        if number == 1:
            whole = Task.read(task)
            path = task.with_name(f"{task.stem}-timed.json")
            timed = spread(whole.questions, options.timed)[: options.timed]
            replace(whole, questions=timed).write(path)
        for name in systems:
            print(f"{task.stem}, round {number + 1}: {name}", file=sys.stderr)
            with tempfile.TemporaryDirectory(dir=task.parent) as place:
                folder = Path(place) / "index"
                figures = run("build", name, path, folder, 0)
                figures |= run("ask", name, path, folder, options.timed)
            measured[name].append(figures)
    return measured


def span(values: Sequence[float]) -> Span:
    """Return the least, the median and the most."""
    return min(values), statistics.median(values), max(values)


def ratios(theirs: Sequence[Figures], ours: Sequence[Figures], figure: str) -> Span:
    """Return how many times ours theirs is, round by round."""
    return span([t[figure] / o[figure] for t, o in zip(theirs, ours, strict=True)])


def label(name: str) -> str:
    """Return a system's name in words."""
    return f"{name.removesuffix('-zh')}, Chinese" if name.endswith("-zh") else name


def tables(figures: dict[str, Any]) -> str:
    """Return the Markdown of everything that was measured."""
    used = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    count = max((len(r) for s in figures["results"].values() for r in s.values()), default=0)
    turns = f"{count} round" + "s: median (least to most)" * (count > 1)
    parts = ["<!-- figures: reduced run -->"] if figures["reduced"] else []
    parts += [f"{figures['date']}, {figures['machine']}; {turns}."]
    parts += [f"Versions: {used}."] if used else []
    parts += [f"Left out: {name} ({why})." for name, why in figures["left_out"].items()]
    for name, systems in figures["results"].items():
        questions, passages = figures["sizes"][name]
        heading = f"### {name}: {questions:,} questions, {passages:,} passages"
        parts += [heading, set_table(systems)]
        if ours := systems.get("ours"):
            whole = shown(span([one["answer_p50_ms"] for one in ours]), 2)
            parts += [f"Our whole answer (`Desk.ask`: verdict, quotes, handoff): p50 {whole} ms."]
    if guide := figures["results"].get("guide"):
        parts += ["### Questions without an answer", answer_table(guide, figures["cuts"])]
    return "\n\n".join(parts)


def set_table(systems: dict[str, list[Figures]]) -> str:
    heads = [
        "",
        "build s",
        "cold start s",
        "memory MB",
        "p50 ms",
        "p95 ms",
        "CPU p50 ms",
        "p50 / ours",
    ]
    rows = [[*heads, "R@1", "R@5", "MRR@10"]]
    for name, measured in systems.items():
        cells = [
            shown(span([one[figure] for one in measured]), digits)
            for figure, digits in (
                ("build_s", 1),
                ("cold_s", 2),
                ("resident_mb", 0),
                ("p50_ms", 2),
                ("p95_ms", 2),
                ("cpu_p50_ms", 2),
            )
        ]
        times = shown(ratios(measured, systems["ours"], "p50_ms"), 1) if "ours" in systems else ""
        found = [f"{measured[0][figure]:.3f}" for figure in ("r1", "r5", "mrr")]
        rows.append([label(name), *cells, times, *found])
    return markdown(rows)


def answer_table(
    systems: dict[str, list[Figures]], cuts: Sequence[tuple[str, float, float, float]]
) -> str:
    rows = [
        ["", "answered, of those without an answer", "… of those with one", "wrong, of answers"]
    ]
    for name, (first, *_) in systems.items():
        rows.append([label(name), *(f"{first[f]:.1%}" for f in ("false", "answered", "wrong"))])
    for name, cut, false, answered in cuts:
        rows.append([f"a cosine of {cut:.2f} ({name})", f"{false:.1%}", f"{answered:.1%}", ""])
    return markdown(rows)


def shown(values: Span, digits: int) -> str:
    """Return a median with its bounds, the bounds left away where they do not differ."""
    low, middle, high = (f"{value:.{digits}f}" for value in values)
    return middle if low == high else f"{middle} ({low} to {high})"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def insert(page: Path, text: str) -> None:
    """Put the tables between the two marks of a page."""
    before, _, rest = page.read_text("utf-8").partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise SystemExit(f"{page} has no {BEGIN} with {END} behind it")
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", "utf-8")


def plot(figures: dict[str, Any], path: Path) -> None:
    """Draw median latency against R@5, a panel for each set."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    pyplot.rcParams.update({"svg.hashsalt": "", "font.size": 9, "font.family": "DejaVu Sans"})
    marks = dict(zip(KINDS, "*osD^", strict=True))
    colours = dict(zip(KINDS, ("#c2185b", "#1565c0", "#2e7d32", "#ef6c00", "#6a1b9a"), strict=True))
    sets = figures["results"]
    drawing, panels = pyplot.subplots(
        1, len(sets), figsize=(3.4 * len(sets), 3.6), squeeze=False, layout="constrained"
    )
    for panel, (title, systems) in zip(panels[0], sets.items(), strict=True):
        for name, measured in systems.items():
            kind = name.removesuffix("-zh")
            low, middle, high = span([one["p50_ms"] for one in measured])
            best = kind == "ours" or name.endswith("-zh")
            panel.errorbar(
                middle,
                measured[0]["r5"],
                xerr=[[middle - low], [high - middle]],
                marker=marks[kind],
                markersize=15 if kind == "ours" else 8,
                color=colours[kind],
                markerfacecolor=colours[kind] if best else "white",
                linestyle="none",
                label=kind if best else None,
                zorder=3 if kind == "ours" else 2,
            )
        panel.set(title=title, xscale="log", xlabel="median of a search, ms")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=20))
        panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panel.xaxis.minorticks_off()
        panel.grid(visible=True, color="#e4e4e4")
        panel.set_axisbelow(True)
    panels[0][0].set_ylabel("R@5")
    drawing.legend(
        *panels[0][0].get_legend_handles_labels(),
        title="filled: set for Chinese; hollow: as it comes",
        loc="outside lower center",
        ncols=len(KINDS),
        frameon=False,
    )
    metadata = {"Date": None} if path.suffix == ".svg" else None
    drawing.savefig(path, dpi=150, metadata=metadata)
    pyplot.close(drawing)


def main(argv: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == ["child"]:
        return child(*given[1:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--training", type=Path, default=TRAINING, help="folder with eval/")
    parser.add_argument("--rounds", type=int, default=5, help="how often the systems take turns")
    parser.add_argument("--sets", type=listed(SETS), default=list(SETS), help=", ".join(SETS))
    parser.add_argument(
        "--systems", type=listed(SYSTEMS), default=list(SYSTEMS), help=", ".join(SYSTEMS)
    )
    parser.add_argument("--questions", type=int, default=0, help="most of a set; 0: all")
    parser.add_argument("--timed", type=int, default=300, help="questions that are timed")
    parser.add_argument("--json", type=Path, help="also write all figures here")
    parser.add_argument("--read", type=Path, help="measure nothing, read figures of --json")
    parser.add_argument("--markdown", type=Path, help="page to put the tables into")
    parser.add_argument("--plot", type=Path, help="also draw, .svg or .png")
    options = parser.parse_args(given)
    figures = json.loads(options.read.read_text("utf-8")) if options.read else measure(options)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    print(tables(figures))
    if options.markdown:
        insert(options.markdown, tables(figures))
    if options.plot:
        plot(figures, options.plot)
    return 0


def listed(known: Sequence[str]) -> Callable[[str], list[str]]:
    """Return a reader of names joined by commas, which refuses unknown ones."""

    def read(text: str) -> list[str]:
        names = text.split(",")
        if unknown := set(names) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))} is none of {known}")
        return names

    return read


if __name__ == "__main__":
    sys.exit(main())
