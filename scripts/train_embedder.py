#!/usr/bin/env python
"""Train the shipped embedding model: a static matrix of token vectors, learned from pairs.

A text's vector is the sum of its tokens' rows, normalised. While training, the row of a Chinese
word is its own vector plus the mean of its characters' vectors (fastText's idea, Bojanowski et al.
2017), so that rare and unseen compounds share what their characters learned; the sum is written
into one plain matrix at the end. The loss is InfoNCE in both directions with in-batch negatives.
Sampling depends only on the seed, so a run that was cut short resumes where it was.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from embedder_data import (
    OWN,
    Intent,
    Pair,
    evaluation_keys,
    read_groups,
    read_intents,
    training_pairs,
)
from embedder_vocabulary import choose, count, tokenizer
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer
from torch.nn import functional

from assistant.fold import simplify
from assistant.settings import SHIPPED_MODEL

REPOSITORY = Path(__file__).resolve().parent.parent
TRAINING = REPOSITORY.parent / "shared" / "training"
WORK = REPOSITORY / ".scratch" / "embedder"

Ids = NDArray[np.int64]
Batch = tuple[list[int], list[int], list[int]]
"""Text numbers of the anchors, of their positives, and of extra negatives."""


class Texts:
    """Number texts and hold their token ids."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.ids: list[NDArray[np.int32]] = []

    def number(self, text: str) -> int:
        """Return the number of a text, a new one for a new text."""
        return self.numbers.setdefault(text, len(self.numbers))

    def encode(self, tokens: Tokenizer, longest: int) -> None:
        """Tokenise every text, keeping its first `longest` tokens."""
        texts = list(self.numbers)
        for begin in range(0, len(texts), 20_000):
            part = [simplify(text[: longest * 8]) for text in texts[begin : begin + 20_000]]
            for encoding in tokens.encode_batch_fast(part, add_special_tokens=False):
                self.ids.append(np.array(encoding.ids[:longest], dtype=np.int32))


class Model(torch.nn.Module):
    """Hold word vectors and character vectors; compose rows from both."""

    def __init__(self, pieces: Sequence[str], dimensions: int, seed: int, init: float) -> None:
        super().__init__()
        torch.manual_seed(seed)
        characters = sorted({c for piece in pieces for c in piece if "\u4e00" <= c <= "\u9fff"})
        number = {c: i for i, c in enumerate(characters)}
        parts = [[number[c] for c in piece if c in number] for piece in pieces]
        self.flat = torch.tensor([i for part in parts for i in part] or [0])
        lengths = torch.tensor([len(part) for part in parts])
        self.starts = torch.cumsum(lengths, 0) - lengths
        self.lengths = lengths
        self.words = torch.nn.Parameter(torch.randn(len(pieces), dimensions) * init)
        self.characters = torch.nn.Parameter(
            torch.randn(max(len(characters), 1), dimensions) * init
        )

    def rows(self, wanted: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
        """Return composed rows; `keep` (0 or 1 a row) drops the word's own part."""
        own = functional.embedding(wanted, self.words)
        if keep is not None:
            own = own * keep[:, None]
        lengths = self.lengths[wanted]
        offsets = torch.cumsum(lengths, 0) - lengths
        inside = torch.arange(int(lengths.sum())) - torch.repeat_interleave(offsets, lengths)
        flat = self.flat[torch.repeat_interleave(self.starts[wanted], lengths) + inside]
        shared = functional.embedding_bag(flat, self.characters, offsets, mode="mean")
        return own + shared

    def matrix(self) -> NDArray[np.float32]:
        """Return every composed row; [PAD] and [UNK] stay zero."""
        with torch.no_grad():
            rows = self.rows(torch.arange(len(self.words))).numpy()
        rows[:2] = 0
        return np.asarray(rows, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Plan:
    """Hold the batches of a run as functions of a random generator, in their order."""

    batches: list[Callable[[np.random.Generator], Batch]]


def bag(
    model: Model,
    texts: Texts,
    numbers: Sequence[int],
    drop: float,
    random: np.random.Generator,
    rows: torch.Tensor,
    place: NDArray[np.int64],
) -> torch.Tensor:
    """Return the unit vectors of texts from the composed rows of the batch's tokens."""
    flat: list[NDArray[np.int32]] = []
    lengths = np.zeros(len(numbers), dtype=np.int64)
    for i, n in enumerate(numbers):
        ids = texts.ids[n]
        if drop and len(ids) > 2:
            kept = ids[random.random(len(ids)) >= drop]
            ids = kept if len(kept) else ids
        lengths[i] = len(ids)
        flat.append(ids)
    joined = place[np.concatenate(flat)] if flat else np.zeros(0, np.int64)
    offsets = torch.from_numpy(np.cumsum(lengths) - lengths)
    return functional.embedding_bag(torch.from_numpy(joined), rows, offsets, mode="sum")


def loss_of(
    a: torch.Tensor, p: torch.Tensor, n: torch.Tensor | None, same: torch.Tensor, scale: float
) -> torch.Tensor:
    """Return InfoNCE in both directions; `same` marks pairs whose texts are equal."""
    a, p = functional.normalize(a, dim=1), functional.normalize(p, dim=1)
    scores = a @ p.T * scale
    scores = scores.masked_fill(same, -1e4)
    labels = torch.arange(len(a))
    forward = scores
    if n is not None and len(n):
        forward = torch.cat([scores, a @ functional.normalize(n, dim=1).T * scale], dim=1)
    return (
        functional.cross_entropy(forward, labels) + functional.cross_entropy(scores.T, labels)
    ) / 2


def pair_batches(
    pairs: Iterable[Pair],
    texts: Texts,
    size: int,
    repeats: dict[str, int],
    crops: float,
    random: np.random.Generator,
) -> list[Batch]:
    """Cut the pairs into batches of one kind and source each, so that negatives are hard."""
    groups: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for pair in pairs:
        numbers = (texts.number(pair.anchor), texts.number(pair.positive))
        groups.setdefault((pair.kind, pair.source), []).append(numbers)
        if "para" in pair.kind and crops and random.random() < crops and len(pair.positive) > 60:
            whole = pair.positive
            width = int(random.integers(8, 24))
            begin = int(random.integers(0, len(whole) - width))
            rest = (
                whole[: max(0, begin)] + whole[begin + width :] if random.random() < 0.5 else whole
            )
            crop = (texts.number(whole[begin : begin + width]), texts.number(rest))
            groups.setdefault(("crop", pair.source), []).append(crop)
    batches: list[Batch] = []
    small: dict[str, list[tuple[int, int]]] = {}
    for (kind, _), members in sorted(groups.items()):
        for _ in range(repeats.get(kind, 1)):
            order = [members[i] for i in random.permutation(len(members))]
            whole_part = len(order) // size * size
            for begin in range(0, whole_part, size):
                part = order[begin : begin + size]
                batches.append(([a for a, _ in part], [p for _, p in part], []))
            small.setdefault(kind, []).extend(order[whole_part:])
    for _, order in sorted(small.items()):
        for begin in range(0, len(order), size):
            part = order[begin : begin + size]
            if len(part) > 64:
                batches.append(([a for a, _ in part], [p for _, p in part], []))
    return [batches[i] for i in random.permutation(len(batches))]


def intent_batch(intents: Sequence[Intent], texts: Texts, random: np.random.Generator) -> Batch:
    """Return one pair of every intent (another shape each time) and a near miss of each."""
    shape = random.random()
    anchors, positives, negatives = [], [], []
    for intent in intents:
        questions = intent.questions
        if len(questions) < 2:
            continue
        one, other = random.choice(len(questions), 2, replace=False)
        anchors.append(texts.number(questions[one]))
        if shape < 0.5:
            passage = intent.passages[int(random.random() < 0.2)]
            positives.append(texts.number(passage))
        else:
            positives.append(texts.number(questions[other]))
        if intent.near_misses:
            near = intent.near_misses[int(random.integers(len(intent.near_misses)))]
            negatives.append(texts.number(near))
    return anchors, positives, negatives


def group_batch(
    groups: Sequence[Sequence[str]], texts: Texts, size: int, random: np.random.Generator
) -> Batch:
    """Return one pair from each of `size` groups of texts that mean the same."""
    anchors, positives = [], []
    for i in random.permutation(len(groups))[:size]:
        one, other = random.choice(len(groups[i]), 2, replace=False)
        anchors.append(texts.number(groups[i][one]))
        positives.append(texts.number(groups[i][other]))
    return anchors, positives, []


def write_model(folder: Path, tokens: Tokenizer, matrix: NDArray[np.float32]) -> None:
    """Write the sentence-transformers layout, half precision, with checksums."""
    (folder / "1_Normalize").mkdir(parents=True, exist_ok=True)
    norms = np.linalg.norm(matrix, axis=1)
    scaled = matrix / norms[norms > 0].mean()
    save_file({"embedding.weight": scaled.astype(np.float16)}, folder / "model.safetensors")
    (folder / "tokenizer.json").write_text(compact(tokens.to_str()), "utf-8")
    kind = "sentence_transformers.sentence_transformer.modules.static_embedding.StaticEmbedding"
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": kind},
        {
            "idx": 1,
            "name": "1",
            "path": "1_Normalize",
            "type": "sentence_transformers.base.modules.normalize.Normalize",
        },
    ]
    write_json(folder / "modules.json", modules)
    write_json(
        folder / "1_Normalize" / "config.json",
        {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"},
    )
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "__version__": {"sentence_transformers": "6.2.0"},
            "model_type": "SentenceTransformer",
            "prompts": {"query": "", "document": ""},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    )
    names = sorted(
        p for p in folder.rglob("*") if p.is_file() and p.suffix in {".json", ".safetensors"}
    )
    sums = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder)}" for p in names]
    (folder / "SHA256SUMS").write_text("\n".join(sums) + "\n", "utf-8")


def compact(tokenizer_json: str) -> str:
    """Return the tokenizer with rounded scores and no white space: a third of the size."""
    values = json.loads(tokenizer_json)
    values["model"]["vocab"] = [
        [piece, round(score, 3)] for piece, score in values["model"]["vocab"]
    ]
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


def write_json(path: Path, values: object) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", "utf-8")


def vocabulary(pairs: Sequence[Pair], own: Sequence[str], options: argparse.Namespace) -> Tokenizer:
    """Return the tokenizer, counting own support texts many times over; counts are kept on disk."""
    kept = options.work / f"tokenizer-{options.pieces}-{options.chinese}-{options.counted}.json"
    if kept.exists():
        return Tokenizer.from_file(str(kept))
    random = np.random.default_rng(0)
    chosen = random.permutation(len(pairs))[: options.counted]
    chinese, english = count(t[:200] for i in chosen for t in (pairs[i].anchor, pairs[i].positive))
    own_chinese, own_english = count(own)
    for counter, extra in ((chinese, own_chinese), (english, own_english)):
        for word, n in extra.items():
            counter[word] += 10 * n
    made = tokenizer(choose(chinese, english, options.pieces, options.chinese))
    made.save(str(kept))
    return Tokenizer.from_str(compact(kept.read_text("utf-8")))


def train(options: argparse.Namespace) -> None:
    """Train and write the model."""
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    started = time.time()
    forbidden = evaluation_keys(options.training)
    pairs = list(training_pairs(options.training, forbidden)) if not options.own_only else []
    folders = [options.own / "support", options.own]
    intents = [i for i in read_intents(folders, forbidden) if options.all_intents or not i.held_out]
    groups = read_groups(folders, forbidden)
    own = [t for i in intents for t in (*i.questions, *i.passages)] + [t for g in groups for t in g]
    tokens = vocabulary(pairs, own, options)
    print(
        f"{len(pairs)} pairs, {len(intents)} intents, {len(groups)} groups, "
        f"{tokens.get_vocab_size()} pieces, {time.time() - started:.0f} s",
        flush=True,
    )
    texts = Texts()
    random = np.random.default_rng(options.seed)
    repeats = {"q2para": 2, "q2para_native": 2, "ui_align": 2}
    main_batches: list[Batch] = []
    for _ in range(options.epochs):
        main_batches += pair_batches(pairs, texts, options.batch, repeats, options.crops, random)
    extra = [intent_batch(intents, texts, random) for _ in range(options.intent_batches)]
    extra += [
        group_batch(groups, texts, options.batch, random) for _ in range(options.group_batches)
    ]
    batches = interleave(main_batches, [extra[i] for i in random.permutation(len(extra))])
    texts.encode(tokens, options.longest)
    print(
        f"{len(texts.ids)} texts, {len(batches)} batches, {time.time() - started:.0f} s", flush=True
    )
    pieces = [tokens.id_to_token(i) for i in range(tokens.get_vocab_size())]
    model = Model(pieces, options.dimensions, options.seed, options.init)
    run(model, texts, batches, options)
    write_model(options.output, tokens, model.matrix())
    print(f"wrote {options.output} after {time.time() - started:.0f} s", flush=True)


def interleave(main: list[Batch], extra: list[Batch]) -> list[Batch]:
    """Spread the extra batches evenly between the main ones, denser towards the end."""
    if not main:
        return extra
    at = (np.linspace(0, 1, len(extra)) ** 0.7 * len(main)).astype(int)
    merged: list[Batch] = []
    taken = 0
    for i, batch in enumerate(main):
        merged.append(batch)
        while taken < len(extra) and at[taken] <= i:
            merged.append(extra[taken])
            taken += 1
    return merged + extra[taken:]


def run(model: Model, texts: Texts, batches: list[Batch], options: argparse.Namespace) -> None:
    """Step through the batches with Adam and a one-cycle rate; save and resume by step number."""
    optimiser = torch.optim.Adam(model.parameters(), lr=options.rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, options.rate, total_steps=len(batches) + 1, pct_start=0.15
    )
    kept = options.work / f"{options.output.name}.state.safetensors"
    first = resume(model, optimiser, kept) if options.resume else 0
    for _ in range(first):
        schedule.step()
    began, total = time.time(), 0.0
    place = np.zeros(len(model.words), dtype=np.int64)
    for step in range(first, len(batches)):
        random = np.random.default_rng((options.seed, step))
        anchors, positives, negatives = batches[step]
        members = [*anchors, *positives, *negatives]
        wanted = np.unique(np.concatenate([texts.ids[n] for n in members])).astype(np.int64)
        place[wanted] = np.arange(len(wanted))
        keep = torch.from_numpy(
            (random.random(len(wanted)) >= options.word_drop).astype(np.float32)
        )
        rows = model.rows(torch.from_numpy(wanted), keep)
        rows = rows * torch.from_numpy((wanted > 1).astype(np.float32))[:, None]
        a = bag(model, texts, anchors, options.drop, random, rows, place)
        p = bag(model, texts, positives, options.drop, random, rows, place)
        n = bag(model, texts, negatives, options.drop, random, rows, place) if negatives else None
        left, right = np.array(anchors), np.array(positives)
        same = (right[None] == right[:, None]) | (left[None] == left[:, None])
        np.fill_diagonal(same, False)
        mask = torch.from_numpy(same)
        loss = loss_of(a, p, n, mask, options.scale)
        if options.matryoshka:
            cut = options.matryoshka
            short = n[:, :cut] if n is not None else None
            loss = loss + loss_of(a[:, :cut], p[:, :cut], short, mask, options.scale)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        total = 0.98 * total + 0.02 * float(loss)
        if step % 50 == 49:
            left_s = (time.time() - began) / (step - first + 1) * (len(batches) - step)
            shown = total / (1 - 0.98 ** (step - first + 1))
            print(
                f"step {step + 1}/{len(batches)} loss {shown:.3f} left {left_s:.0f} s", flush=True
            )
        if options.save_every and step % options.save_every == options.save_every - 1:
            save(model, optimiser, kept, step + 1)


def save(model: Model, optimiser: torch.optim.Optimizer, path: Path, step: int) -> None:
    """Keep weights, Adam's moments and the step number."""
    tensors = {"step": np.array([step])}
    for name, parameter in model.named_parameters():
        state = optimiser.state[parameter]
        tensors[name] = parameter.detach().numpy()
        tensors[name + ".m"] = state["exp_avg"].numpy()
        tensors[name + ".v"] = state["exp_avg_sq"].numpy()
    save_file(tensors, path)


def resume(model: Model, optimiser: torch.optim.Optimizer, path: Path) -> int:
    """Load what `save` kept; return the step to go on from (0 when nothing was kept)."""
    if not path.exists():
        return 0
    tensors = load_file(path)
    step = int(tensors["step"][0])
    for name, parameter in model.named_parameters():
        parameter.data = torch.from_numpy(tensors[name])
        optimiser.state[parameter] = {
            "step": torch.tensor(float(step)),
            "exp_avg": torch.from_numpy(tensors[name + ".m"]),
            "exp_avg_sq": torch.from_numpy(tensors[name + ".v"]),
        }
    return step


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--training", type=Path, default=TRAINING, help="folder with train/ and eval/")
    add("--own", type=Path, default=OWN, help="folder with the support texts")
    add("--own-only", action="store_true", help="train on the support texts alone")
    add("--all-intents", action="store_true", help="train on the held-out tenth too")
    add("--output", type=Path, default=SHIPPED_MODEL, help="folder of the model")
    add("--work", type=Path, default=WORK, help="folder for caches and the resume file")
    add("--pieces", type=int, default=43_000, help="size of the vocabulary")
    add("--chinese", type=float, default=0.65, help="share of words that are Chinese")
    add("--counted", type=int, default=400_000, help="pairs whose words are counted")
    add("--dimensions", type=int, default=256)
    add("--longest", type=int, default=128, help="tokens read of a text")
    add("--batch", type=int, default=2048)
    add("--epochs", type=int, default=1)
    add(
        "--crops",
        type=float,
        default=0.3,
        help="share of passages that also teach a crop of theirs",
    )
    add("--intent-batches", type=int, default=200)
    add("--group-batches", type=int, default=60)
    add("--rate", type=float, default=0.01, help="highest learning rate of the cycle")
    add("--init", type=float, default=0.2, help="spread of the first weights; rare words keep it")
    add("--scale", type=float, default=20.0, help="what cosines are multiplied by")
    add("--drop", type=float, default=0.2, help="share of tokens dropped")
    add("--word-drop", type=float, default=0.1, help="share of words left to their characters")
    add("--matryoshka", type=int, default=0, help="also train this many first dimensions alone")
    add("--seed", type=int, default=1)
    add("--threads", type=int, default=2)
    add("--save-every", type=int, default=0, help="steps between saved states")
    add("--resume", action="store_true", help="go on from the saved state")
    train(parser.parse_args())
    return 0


if __name__ == "__main__":
    sys.exit(main())
