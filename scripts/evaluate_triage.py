"""Print how often triage recognises what it must, and how often it does so wrongly.

Held-out phrases (tests/fixtures/triage*.yaml) were never trained on. The labelled files of
scripts/training_data/support are: for those, --cross-validate trains again on four fifths and
counts the rest, five times (about two minutes).
"""

import argparse
import random
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import yaml
from train_triage import (
    NEAR_HUMAN,
    NEAR_URGENT,
    SHIFT,
    URGENT,
    Examples,
    labelled,
    questions,
    support,
    train,
)

from assistant.fold import fold
from assistant.triage import score, triage

ROOT = Path(__file__).parent.parent
HELD_OUT = ROOT / "tests" / "fixtures"
KINDS = {
    "urgent": ("urgent_account_security", "calm"),
    "human": ("asked_for_human", "not_human"),
    "contact": ("contact_check", "not_contact"),
    "vouch": ("vouch", "not_vouch"),
    "small_talk": ("small_talk", "not_small_talk"),
}


def recognised(kind: str) -> Callable[[str], bool]:
    return lambda text: (found := triage(text)) is not None and found.kind == kind


def line(
    name: str, yes: list[str], no: list[str], fires: Callable[[str], bool], show: bool
) -> None:
    missed = [text for text in yes if not fires(text)]
    false = [text for text in no if fires(text)]
    hit = len(yes) - len(missed)
    print(
        f"{name:42} recall {hit:>4}/{len(yes):<4} {hit / max(1, len(yes)):7.1%}   "
        f"false alarms {len(false):>4}/{len(no):<5} {len(false) / max(1, len(no)):6.1%}"
    )
    for text in missed if show else ():
        print(f"    missed: {text}")
    for text in false if show else ():
        print(f"    false:  {text}")


def cross_validated(kind: str) -> tuple[int, int]:
    """Return the hits and the false alarms among labelled phrases that were left out in turn."""
    given = labelled(kind)
    chance = random.Random(1)
    folds = [[i % 5 for i in range(len(part))] for part in (given.positive, given.negative)]
    for part in folds:
        chance.shuffle(part)
    hits = false = 0
    for number in range(5):
        kept = [
            [text for text, where in zip(part, fold, strict=True) if where != number]
            for part, fold in zip((given.positive, given.negative), folds, strict=True)
        ]
        model = train(kind, Examples(*kept))
        shift = SHIFT[kind]
        out = lambda part, n=number: [t for t, f in zip(*part, strict=True) if f == n]  # noqa: E731
        hits += sum(model.score(t) + shift > 0 for t in out((given.positive, folds[0])))
        false += sum(model.score(t) + shift > 0 for t in out((given.negative, folds[1])))
    return hits, false


def corpus_questions() -> Iterable[str]:
    for path in sorted((ROOT / "corpus" / "questions").glob("*.yaml")):
        yield from (entry["ask"] for entry in yaml.safe_load(path.read_text("utf-8")))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cross-validate", action="store_true", help="train five times, anew")
    parser.add_argument("--show", action="store_true", help="list what was missed or false")
    options = parser.parse_args()
    for path in sorted(HELD_OUT.glob("triage*.yaml")):
        print(f"held out: {path.relative_to(ROOT)}")
        held = yaml.safe_load(path.read_text("utf-8"))
        for yes, (kind, no) in KINDS.items():
            if yes in held:
                line(f"  {kind}", held[yes], held[no], recognised(kind), options.show)
    print("trained on: scripts/training_data/support")
    for kind in ("urgent", "human"):
        given = labelled(kind)
        line(
            f"  {kind}.jsonl.gz",
            given.positive,
            given.negative,
            lambda text, kind=kind: score(kind, fold(text)) > 0,
            options.show,
        )
        if options.cross_validate:
            hits, false = cross_validated(kind)
            print(
                f"  {kind}.jsonl.gz, each fifth left out    recall {hits}/{len(given.positive)} "
                f"{hits / len(given.positive):.1%}   false alarms {false}/{len(given.negative)} "
                f"{false / len(given.negative):.1%}"
            )
    print("ordinary questions, how many are taken for what")
    near = URGENT | NEAR_URGENT | NEAR_HUMAN
    sets = {
        "intents": [t for r in support("intents") if r["intent"] not in near for t in questions(r)],
        "offguide": [row["text"] for row in support("offguide")],
        "corpus/questions": list(corpus_questions()),
    }
    for name, texts in sets.items():
        counts: dict[str, list[str]] = {}
        for text in texts:
            if found := triage(text):
                counts.setdefault(found.kind, []).append(text)
        shares = "  ".join(f"{k} {len(v)} ({len(v) / len(texts):.1%})" for k, v in counts.items())
        print(f"  {name:18} {len(texts):>6}: {shares}")
        if options.show and name != "intents":
            print("\n".join(f"    {k}: {' | '.join(v)}" for k, v in counts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
