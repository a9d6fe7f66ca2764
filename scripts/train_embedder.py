#!/usr/bin/env python
"""Train the shipped embedding model: a static matrix of token vectors, learned from pairs.

A text's vector is the sum of its tokens' rows, normalised. The rows begin as a lexical model made
from counts (`embedder_start.py`) and are moved gently (`embedder_steps.py`) with InfoNCE in both
directions over batches (`embedder_batches.py`) of pairs, crops, support intents, paraphrases and
words. sentence-transformers' trainer is not used: it moves all rows at every step, which costs more
than the step itself, and knows no crops. The plan and every batch depend on the seed and the step
number alone, so a run that was cut short goes on with --resume, from its last saved state, as if it
had not been.
"""

import argparse
import hashlib
import itertools
import json
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from embedder_batches import (
    Asked,
    Batch,
    Numbers,
    Pairs,
    Texts,
    crop_batch,
    incidence,
    intent_batch,
    kept_pairs,
    pair_batch,
    pair_batches,
    read_asked,
)
from embedder_data import (
    ALIGNED,
    OWN,
    Intent,
    evaluation_keys,
    own_folders,
    pivot_pairs,
    read_groups,
    read_intents,
    read_paraphrases,
    training_pairs,
)
from embedder_files import write_model
from embedder_start import Weights, characters_of, first_rows, rarity, translations
from embedder_steps import Manner, Matrix, gradient_of
from embedder_vocabulary import Shape, choose, compact, count, scores, tokenizer
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from assistant.settings import SHIPPED_MODEL

REPOSITORY = Path(__file__).resolve().parent.parent
TRAINING = REPOSITORY.parent / "shared" / "training"
WORK = REPOSITORY / ".scratch" / "embedder"
OWN_WEIGHT = 10
"""How often a word of the support intents counts in the vocabulary."""
CROPPED = ("head2para", "q2para", "title2desc", "enhead2zhpara")
REPEATS = {
    "q2para": 4.0,
    "q2para_native": 8.0,
    "ui_align": 12.0,
    "pivot": 16.0,
    "sent_align": 0.7,
}
"""How much more, or less, than its share of the pairs a kind is drawn."""

Options = argparse.Namespace
Step = tuple[str, Numbers]
"""The kind of a batch and, for pairs and crops, which pairs."""


@dataclass(frozen=True, slots=True)
class Own:
    """Hold the texts that were written for this product, without the held-out intents."""

    intents: list[Intent]
    paraphrases: list[Intent]
    words: list[Intent]

    def intent_texts(self) -> list[str]:
        """Return passages and questions of the support intents."""
        return [text for one in self.intents for text in (*one.passages, *one.questions)]


@dataclass(frozen=True, slots=True)
class Data:
    """Hold everything that batches are drawn from, tokenised."""

    ids: NDArray[np.int32]
    pairs: Pairs
    intents: list[Asked]
    paraphrases: list[Asked]
    words: list[Asked]


def read_own(folder: Path, forbidden: set[int], held_out_too: bool) -> Own:
    """Read our own texts."""
    folders = own_folders(folder)
    intents = read_intents(folders, forbidden)
    return Own(
        [intent for intent in intents if held_out_too or not intent.held_out],
        read_paraphrases(folders, forbidden),
        read_groups(folders, forbidden),
    )


def vocabulary(options: Options, own: Own, forbidden: set[int]) -> Tokenizer:
    """Return the tokenizer over the words of a share of the pairs and of the support intents."""
    chinese, english = counted(options, forbidden)
    for counter, extra in zip((chinese, english), count(own.intent_texts()), strict=True):
        counter.update({word: OWN_WEIGHT * n for word, n in extra.items()})
    shape = Shape(
        options.pieces, options.characters, options.fragments, options.chinese, options.general
    )
    return Tokenizer.from_str(compact(tokenizer(choose(chinese, english, shape))))


def counted(options: Options, forbidden: set[int]) -> tuple[Counter[str], Counter[str]]:
    """Count the words of a share of the pairs; the counts are kept on disk."""
    kept = options.work / f"counts-{options.counted}-{data_mark(options.training / 'train')}.json"
    if not kept.exists():
        random = np.random.default_rng(0)
        pairs = (p for p in training_pairs(options.training, forbidden) if _drawn(options, random))
        found = count(text[:150] for pair in pairs for text in (pair.anchor, pair.positive))
        kept.write_text(json.dumps(found, ensure_ascii=False), "utf-8")
    chinese, english = json.loads(kept.read_text("utf-8"))
    return Counter(chinese), Counter(english)


def _drawn(options: Options, random: np.random.Generator) -> bool:
    return bool(random.random() < options.counted)


def tokenised(options: Options, made: Tokenizer, own: Own, forbidden: set[int]) -> Data:
    """Tokenise pairs and our own texts."""
    texts = Texts(made)
    aligned = training_pairs(options.training, forbidden, ALIGNED)
    source = itertools.chain(training_pairs(options.training, forbidden), pivot_pairs(aligned))
    read = f"train, pivot, {data_mark(options.training / 'train')}"
    pairs = kept_pairs(source, texts, options.longest, options.work, read)
    asked = [
        read_asked(part, texts, options.longest)
        for part in (own.intents, own.paraphrases, own.words)
    ]
    return Data(texts.flat(), pairs, *asked)


def started(options: Options, made: Tokenizer, data: Data) -> NDArray[np.float32]:
    """Return the first rows."""
    pieces = [made.id_to_token(i) for i in range(made.get_vocab_size())]
    aligned = np.flatnonzero(np.isin(data.pairs.kinds(), ALIGNED))
    sides = (
        incidence(side[aligned], data.ids, len(pieces))
        for side in (data.pairs.anchors, data.pairs.positives)
    )
    occurrences = np.bincount(data.ids, minlength=len(pieces)).astype(np.float64)
    rarities = rarity(occurrences, scores(made)) ** options.rarity
    weights = Weights(options.own_part, options.synonyms, options.noise)
    pair = translations(pieces, *sides)
    return first_rows(pieces, rarities, pair, options.dimensions, weights, options.seed)


def planned(options: Options, data: Data) -> list[Step]:
    """Return the steps of the run in their order."""
    random = np.random.default_rng(options.seed)
    numbers = pair_batches(data.pairs, options.batch, REPEATS, options.share, random)
    steps: list[Step] = [("pairs", chosen) for chosen in numbers]
    croppable = np.isin(data.pairs.kinds(), CROPPED) & (data.pairs.positives.lengths > 30)
    for _ in range(options.crop_batches if croppable.any() else 0):
        group = data.pairs.groups[random.choice(np.flatnonzero(croppable))]
        members = np.flatnonzero(croppable & (data.pairs.groups == group))
        size = min(options.batch, len(members))
        steps.append(("crops", random.choice(members, size, replace=False)))
    for kind in ("intents", "paraphrases", "words"):
        steps += [(kind, np.zeros(0, np.int64))] * getattr(options, f"{kind[:-1]}_batches")
    return [steps[i] for i in random.permutation(len(steps))]


def drawn(options: Options, data: Data, step: Step, random: np.random.Generator) -> Batch:
    """Return the batch of a step."""
    kind, chosen = step
    if kind == "pairs":
        return pair_batch(data.pairs, chosen)
    if kind == "crops":
        return crop_batch(data.pairs, chosen, random)
    if kind == "intents":
        return intent_batch(data.intents, options.asked, options.passages, random)
    if kind == "paraphrases":
        both = [*data.intents, *data.paraphrases]
        return intent_batch(both, options.asked, options.paraphrase_passages, random)
    return intent_batch(data.words, options.asked, 0, random)


def run(options: Options, data: Data, matrix: Matrix, steps: list[Step]) -> None:
    """Take the steps; the rate rises over the first tenth and falls to nothing."""
    state = options.work / "state.safetensors"
    name = _run_name(options)
    first = resumed(matrix, state, name) if options.resume else 0
    if options.resume:
        print(f"going on after step {first}" if first else "nothing saved of this run: from step 0")
    manner = Manner(options.scale, options.drop, options.pull, options.near)
    began, losses = time.time(), Counter[str]()
    for number in range(first, len(steps)):
        random = np.random.default_rng((options.seed, number))
        batch = drawn(options, data, steps[number], random)
        wanted, gradient, loss = gradient_of(matrix, data.ids, batch, manner, random)
        rise = min(1, (number + 1) / (0.1 * len(steps)))
        matrix.step(wanted, gradient, options.rate * rise * (1 - number / len(steps)), options.pull)
        losses[batch.kind] = loss  # type: ignore[assignment]
        if number % 20 == 19:
            report(number + 1, len(steps), (time.time() - began) / (number + 1 - first), losses)
        if options.save_every and (number + 1) % options.save_every == 0:
            saved(matrix, state, name, number + 1)


def report(step: int, steps: int, seconds: float, losses: Counter[str]) -> None:
    """Print how far the run is and the last loss of each kind."""
    shown = " ".join(f"{kind} {loss:.2f}" for kind, loss in sorted(losses.items()))
    print(f"step {step}/{steps}, {seconds * (steps - step):.0f} s left: {shown}", flush=True)


def _run_name(options: Options) -> bytes:
    """Return what must be the same for a run to be resumed: every choice, and the data."""
    apart = {"resume", "save_every", "threads", "output", "work", "training", "own"}
    choices = {k: str(v) for k, v in sorted(vars(options).items()) if k not in apart}
    choices["data"] = data_mark(options.training / "train") + data_mark(options.own)
    return hashlib.sha256(json.dumps(choices).encode()).digest()


def data_mark(folder: Path) -> str:
    """Return what changes when the pairs or texts below a folder do: of their names and sizes."""
    files = sorted(folder.rglob("*.jsonl*"))
    sizes = [f"{path.relative_to(folder)} {path.stat().st_size}" for path in files]
    return hashlib.sha256("\n".join(sizes).encode()).hexdigest()[:16]


def saved(matrix: Matrix, path: Path, name: bytes, step: int) -> None:
    """Keep what was learned and the number of steps taken."""
    tensors = {key: getattr(matrix, key) for key in matrix.CHANGING}
    unfinished = path.with_suffix(".new")
    save_file(
        {**tensors, "step": np.array([step]), "name": np.frombuffer(name, np.uint8)}, unfinished
    )
    os.replace(unfinished, path)


def resumed(matrix: Matrix, path: Path, name: bytes) -> int:
    """Put back what `saved` kept; return the step to go on from, 0 where nothing fits."""
    tensors = load_file(path) if path.exists() else {}
    if not tensors or tensors["name"].tobytes() != name:
        return 0
    for key in matrix.CHANGING:
        setattr(matrix, key, tensors[key])
    return int(tensors["step"][0])


def train(options: Options) -> None:
    """Train and write the model."""
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    began = time.time()
    forbidden = evaluation_keys()
    own = read_own(options.own, forbidden, options.all_intents)
    made = vocabulary(options, own, forbidden)
    data = tokenised(options, made, own, forbidden)
    parts = (len(data.pairs.groups), len(own.intents), len(own.paraphrases), len(own.words))
    print(
        "{} pairs, {} intents, {} paraphrase sets, {} groups of words".format(*parts),
        f"and {made.get_vocab_size()} pieces after {time.time() - began:.0f} s",
        flush=True,
    )
    pieces = [made.id_to_token(i) for i in range(made.get_vocab_size())]
    matrix = Matrix(started(options, made, data), characters_of(pieces), options.shared)
    run(options, data, matrix, planned(options, data))
    write_model(options.output, made, matrix.all())
    print(f"wrote {options.output} after {time.time() - began:.0f} s", flush=True)


def parser() -> argparse.ArgumentParser:
    """Return the command line; the defaults made the shipped model."""
    made = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = made.add_argument
    add("--training", type=Path, default=TRAINING, help="folder with train/ and eval/")
    add("--own", type=Path, default=OWN, help="folder with the support texts")
    add("--all-intents", action="store_true", help="train on the held-out tenth too")
    add("--output", type=Path, default=SHIPPED_MODEL, help="folder of the model")
    add("--work", type=Path, default=WORK, help="folder for caches and the resume file")
    add("--counted", type=float, default=0.3, help="share of pairs whose words are counted")
    add("--pieces", type=int, default=44_000, help="size of the vocabulary")
    add("--characters", type=int, default=6_500, help="single Chinese characters in it")
    add("--fragments", type=int, default=1_500, help="parts of English words in it")
    add("--chinese", type=float, default=0.65, help="share of words that are Chinese")
    add("--general", type=float, default=0.5, help="weight of general Chinese in the counts")
    add("--dimensions", type=int, default=512)
    add("--longest", type=int, default=96, help="tokens read of a text")
    add("--rarity", type=float, default=1.4, help="power of a piece's rarity in its first length")
    add("--own-part", type=float, default=0.7, help="a compound's own direction to its characters'")
    add("--synonyms", type=float, default=0.3, help="pull of pieces with the same translations")
    add("--noise", type=float, default=0.5, help="own direction of a piece that has translations")
    add("--batch", type=int, default=2048, help="pairs in a batch")
    add("--asked", type=int, default=2000, help="intents or groups in a batch, at most")
    add("--share", type=float, default=0.06, help="share of the pairs that is used")
    add("--crop-batches", type=int, default=40)
    add("--intent-batches", type=int, default=30)
    add("--paraphrase-batches", type=int, default=120)
    add("--word-batches", type=int, default=30)
    add("--passages", type=float, default=0.5, help="question to passage in intent batches")
    add("--paraphrase-passages", type=float, default=0.15, help="the same in paraphrase batches")
    add("--rate", type=float, default=0.06, help="highest step against the length of a row")
    add("--scale", type=float, default=20.0, help="what cosines are multiplied by")
    add("--drop", type=float, default=0.2, help="share of tokens dropped")
    add("--pull", type=float, default=0.0, help="pull back to the first rows")
    add("--near", type=float, default=0.0, help="what is added to the scores of near misses")
    add("--shared", type=float, default=0.5, help="what compounds learn with their characters")
    add("--seed", type=int, default=1)
    add("--threads", type=int, default=2)
    add("--save-every", type=int, default=100, help="steps between saved states; 0: none")
    add("--resume", action="store_true", help="go on from the saved state of the same run")
    return made


def main() -> int:
    options = parser().parse_args()
    if not any((options.training / "train").glob("*.jsonl.gz")):
        print(
            f"no training pairs at {options.training}/train; give --training DIR", file=sys.stderr
        )
        return 4
    if find_spec("jieba") is None:
        print('words are counted with jieba: pip install -e ".[train]"', file=sys.stderr)
        return 2
    train(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
