"""Train the two linear models of triage and write assistant/data/triage_weights.json.

Phrases are drawn from the families in scripts/training_data/triage.yaml; the questions of
scripts/training_data/support that ask for something else are the negatives. tests/fixtures is
never read here.
"""

import gzip
import json
import random
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from re import _parser  # type: ignore[attr-defined]
from typing import Any

import numpy as np
import scipy.sparse as sparse
import yaml
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from assistant.fold import fold
from assistant.triage import CLUES, PHRASES, WEIGHTS, alternatives, features, mark, patterns_sha256

DATA = Path(__file__).parent / "training_data"
CORPUS = Path(__file__).parent.parent / "corpus"
STRENGTH = 0.03  # inverse regularisation; 0.003 to 0.03 give the same within a phrase or two
CLUE, PAIR = 3.0, 1.5  # how much cheaper clues and pairs of clues are to the regularisation
SHIFT = {"urgent": 0.35, "human": 0.25}  # misses cost more than false alarms
LEAST = 0.025  # weights below are dropped
CAP = 220

# Distress is what these intents are about: their lively questions are examples, and those of the
# neighbours, which may or may not be urgent, are left out.
URGENT = frozenset(
    "account_hacked account_stolen unauthorised_transaction gave_code_away scam_transfer_sent "
    "remote_control_software mnemonic_leaked private_key_leaked screen_shared_with_scammer "
    "wallet_stolen phone_change_after_theft transfer_scam lost_phone sim_swapped "
    "suspicious_login_alert email_hacked".split()
)
NEAR_URGENT = frozenset(
    "emergency_freeze fake_qr_code freeze_account_now malware_infected id_used_by_others "
    "token_approval_revoke change_password_after_leak card_lost phishing_link_sms "
    "fake_customer_service someone_asks_code qr_code_replaced police_impersonation refund_scam "
    "investment_scam brushing_task_scam loan_fee_scam recovery_scam friend_impersonation "
    "sms_code_bombing unknown_auto_debit agent_link_safety agents_never_ask_secrets "
    "fake_agent_in_group screen_share_scam device_list_view remove_device scam_money_recovery "
    "report_to_police evidence_to_keep theft_compensation_apply address_poisoning "
    "clipboard_hijack mnemonic_asked ai_fake_celebrity_group report_user personal_data_leak "
    "game_stolen_gear sim_lost_reissue sm_fam_lost fr_fam_self_freeze saas_api_key_leaked "
    "phishing_mail_report lost_laptop_report suspicious_alert_meaning complaint_fraud_handling "
    "agent_asks_fee report_fake_app_site logout_all_devices minor_spending_refund "
    "scam_close_loan scam_upfront_fee wallet_avoid_scam_links fake_courier_refund_scam "
    "pos_machine_scam_fee fake_payment_screenshot wrong_transfer_received "
    "sim_lost_cannot_receive password_free_off hardware_lost".split()
)
NEAR_HUMAN = frozenset("transfer_to_specialist same_agent_again speak_to_manager".split())
_UNDECIDED = {"c_if", "c_e_if", "c_prevent", "c_e_prevent", "c_policy"}
_LIVELY = {"plea", "stop", "e_plea", "done", "self"}
_WANTS_PERSON = re.compile("talk to a human on the phone")
_FORMAL = re.compile("如何|应|请问|怎样|是否")


@dataclass(frozen=True, slots=True)
class Examples:
    """Hold what to learn from; the same text may stand there several times for more weight."""

    positive: list[str]
    negative: list[str]


def support(name: str) -> list[dict[str, Any]]:
    with gzip.open(DATA / "support" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def labelled(name: str) -> Examples:
    """Return the labelled phrases of urgent.jsonl.gz or human.jsonl.gz."""
    rows = support(name)
    no = {"not_urgent", "not"}
    return Examples(
        [row["text"] for row in rows if row["label"] not in no],
        [row["text"] for row in rows if row["label"] in no],
    )


def draw(kind: str, count: int) -> list[str]:
    """Return up to `count` phrases of each family, always the same ones."""
    families = yaml.safe_load((DATA / "triage.yaml").read_text("utf-8"))
    words = families["words"]
    chance = random.Random(0)
    found: set[str] = set()
    for family in families[kind]:
        drawn: set[str] = set()
        for _ in range(count * 3):
            if len(drawn) < count:
                drawn.add(
                    re.sub(r"\{(\w+)\}", lambda name: chance.choice(words[name[1]]), family).strip()
                )
        found |= drawn
    return sorted(found)


def written(kind: str) -> list[str]:
    """Return the phrases of a kind that were written one by one."""
    families = yaml.safe_load((DATA / "triage.yaml").read_text("utf-8"))
    return [str(text) for text in families[f"{kind}_written"]]


def questions(row: dict[str, Any], misses: bool = True) -> list[str]:
    return row["questions_zh"] + row["questions_en"] + (row["near_miss_zh"] if misses else [])


def guide_questions(security: bool) -> list[str]:
    """Return the questions that the shipped guide answers, those of account security or not.

    Only the part that may be fitted on; the test part is left for measuring.
    """
    fit = yaml.safe_load((CORPUS / "questions" / "fit.yaml").read_text("utf-8"))
    asked = [(entry["ask"], str(entry["passage"])) for entry in fit]
    for path in sorted(CORPUS.glob("*.qa.yaml")):
        for entry in yaml.safe_load(path.read_text("utf-8")):
            asked += [(ask, entry["passage"]) for ask in entry["questions"]]
    return [ask for ask, passage in asked if security or "账户安全" not in passage]


def lively(text: str) -> bool:
    """Tell whether a question of an urgent intent sounds like someone it happens to."""
    clues = {f[1:] for f in features(fold(text)) if f[0] == "@" and "@" not in f[1:]}
    calm = {clue for clue in clues if clue.startswith("c_")}
    if calm & _UNDECIDED or _FORMAL.search(text):
        return False
    return not calm or bool(clues & _LIVELY)


def examples(kind: str) -> Examples:
    """Return what one model learns from, the labelled phrases of its own file left aside."""
    rows = support("intents")
    off = [row["text"] for row in support("offguide")]
    if kind == "urgent":
        alive = [
            text
            for row in rows
            if row["intent"] in URGENT
            for text in questions(row, misses=False)
            if lively(text)
        ]
        others = [t for r in rows if r["intent"] not in URGENT | NEAR_URGENT for t in questions(r)]
        calm = draw("calm", 156) + off + others + guide_questions(security=False) * 3
        return Examples(draw("urgent", 120) + alive * 4, calm)
    others = [
        text
        for row in rows
        if row["intent"] not in NEAR_HUMAN and "human" not in row["intent"]
        for text in questions(row)
    ]
    plain = [ask for ask in guide_questions(security=True) if not _WANTS_PERSON.search(ask)]
    no = draw("not_human", 120) + off + others + draw("urgent", 10) + plain * 4
    return Examples(draw("human", 250), no)


class Model:
    """Hold a fitted linear model as weights per feature."""

    def __init__(self, given: Examples) -> None:
        vectors = CountVectorizer(
            analyzer=lambda text: features(fold(text)[:CAP]), binary=True, min_df=2
        )
        matrix = vectors.fit_transform(given.positive + given.negative).astype(float)
        names = vectors.get_feature_names_out()
        scale = np.array(
            [
                CLUE if n.count("@") == 1 and n[0] == "@" else PAIR if n[0] == "@" else 1.0
                for n in names
            ]
        )
        labels = [1] * len(given.positive) + [0] * len(given.negative)
        fitted = LogisticRegression(C=STRENGTH, max_iter=3000, class_weight="balanced")
        fitted.fit(matrix @ sparse.diags(scale), labels)
        self.bias = float(fitted.intercept_[0])
        self.weights = dict(zip(names, (fitted.coef_[0] * scale).tolist(), strict=True))

    def score(self, text: str) -> float:
        """Return how strongly a text speaks for the kind, above 0 when it does."""
        return self.bias + sum(self.weights.get(f, 0.0) for f in features(fold(text)[:CAP]))


def train(kind: str, more: Examples, weight: int = 6) -> Model:
    """Fit twice: what the first fit takes for a case is left out, what it finds hard counts more.

    `more` are the labelled phrases, each with the weight of `weight` drawn ones.
    """
    given = examples(kind)
    own, others = ("urgent", "calm") if kind == "urgent" else ("human", "not_human")
    extra = Examples(
        (more.positive + written(own)) * weight, (more.negative + written(others)) * weight
    )
    first = Model(given)
    scored = [(text, first.score(text)) for text in given.negative]
    cut = 0.5 if kind == "urgent" else 2.5
    negative = [text for text, value in scored if value < cut]
    hard = [text for text, value in scored if -1.5 < value < cut]
    return Model(Examples(given.positive + extra.positive, negative + hard * 2 + extra.negative))


def as_written(kind: str, model: Model) -> dict[str, Any]:
    kept = {name: round(w * 100) for name, w in sorted(model.weights.items()) if abs(w) >= LEAST}
    return {"bias": round((model.bias + SHIFT[kind]) * 100), "weights": kept}


def needs() -> dict[str, list[str]]:
    """Return the marks of what matches only with a small letter, or with what is beyond ASCII."""
    kinds: dict[str, Callable[[int], bool]] = {
        "letter": lambda code: ord("a") <= code <= ord("z"),
        "beyond_ascii": lambda code: code > 127,
    }
    parsed = {
        mark(text): _parser.parse(text)
        for path in (CLUES, PHRASES)
        for table in alternatives(path).values()
        for given in table.values()
        for text in given
    }
    return {
        kind: sorted(one for one, tree in parsed.items() if _needs(tree, inside))
        for kind, inside in kinds.items()
    }


def _needs(parsed: Iterable[tuple[Any, Any]], inside: Callable[[int], bool]) -> bool:
    """Tell whether every match of a parsed pattern has such a code; False where that is unsure."""

    def one(part: tuple[Any, Any]) -> bool:
        match str(part[0]), part[1]:
            case "LITERAL", code:
                return inside(code)
            case "RANGE", (first, last):
                return inside(first) and inside(last)
            case "IN", members:
                return all(map(one, members))
            case "BRANCH", (_, branches):
                return all(_needs(branch, inside) for branch in branches)
            case "SUBPATTERN", (*_, within):
                return _needs(within, inside)
            case "MAX_REPEAT", (least, _, within):
                return least > 0 and _needs(within, inside)
        return False

    return any(map(one, parsed))


def main() -> int:
    models = {kind: as_written(kind, train(kind, labelled(kind))) for kind in ("urgent", "human")}
    text = json.dumps(
        {"patterns_sha256": patterns_sha256(), "needs": needs(), "models": models},
        ensure_ascii=False,
        separators=(",", ":"),
    )
    WEIGHTS.write_text(text + "\n", "utf-8")
    sizes = {kind: len(model["weights"]) for kind, model in models.items()}
    print(f"{WEIGHTS.name}: {len(text.encode()) / 1000:.0f} kB, weights {sizes}, for {CLUES.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
