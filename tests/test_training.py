"""Training: nothing is learned from evaluation texts, and a run is the same however it is cut."""

import argparse
import gzip
import json
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from conftest import REPOSITORY, SHARED
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(REPOSITORY / "scripts"))

import embedder_data
import evaluate_embedder
import train_embedder
from embedder_batches import (
    Pairs,
    Spans,
    Texts,
    crop_batch,
    flat_places,
    intent_batch,
    pair_batches,
    read_asked,
)
from embedder_data import Intent, Pair, evaluation_keys, hashed, own_folders
from embedder_files import eight_bits, write_model
from embedder_start import characters_of
from embedder_steps import Manner, Matrix, gradient_of, shortened
from embedder_vocabulary import tokenizer

from assistant.embed import StaticEncoder
from assistant.settings import SHIPPED_MODEL, Settings

TRAINING = SHARED / "training"
PIECES = dict.fromkeys("充值退款到账没怎么办余额提现", -5.0) | {"充值": -4.0, "退款": -4.0}


def all_texts(intents):
    return [t for i in intents for t in (*i.passages, *i.questions, *i.near_misses)]


# Nothing is learned from evaluation texts.


def test_no_evaluation_text_is_among_what_is_read_of_our_own_texts():
    forbidden = evaluation_keys()
    own = train_embedder.read_own(embedder_data.OWN, forbidden, held_out_too=True)
    texts = all_texts([*own.intents, *own.paraphrases, *own.words])
    assert len(texts) > 40_000
    assert [text for text in texts if hashed(text) in forbidden] == []


def test_our_own_paraphrase_files_hold_no_evaluation_text():
    forbidden = evaluation_keys()
    paths = sorted(embedder_data.OWN.glob("*.jsonl"))
    assert len(paths) > 3
    for path in paths:
        for row in embedder_data.lines(path):
            for texts in row.values():
                assert [text for text in texts if hashed(text) in forbidden] == [], path.name


def test_a_text_is_the_same_in_any_writing():
    assert hashed("儲值 失敗，怎麼辦？") == hashed("储值失败怎么办")
    assert hashed("How do I PAY?") == hashed("how do i pay")
    assert hashed("储值失败") != hashed("储值成功")


def test_held_out_intents_are_not_trained_on():
    own = train_embedder.read_own(embedder_data.OWN, evaluation_keys(), held_out_too=False)
    everything = embedder_data.read_intents(own_folders(embedder_data.OWN), set())
    held_out = [intent for intent in everything if intent.held_out]
    assert 100 < len(held_out) < 200
    assert {i.name for i in own.intents}.isdisjoint(i.name for i in held_out)
    trained = {*own.intent_texts(), *all_texts(own.intents)}
    assert not trained & {passage for intent in held_out for passage in intent.passages}


if TRAINING.is_dir():  # the public pairs and evaluation sets are not part of the repository

    def test_the_hashes_are_those_of_the_evaluation_sets():
        texts = embedder_data.evaluation_texts(TRAINING)
        assert {hashed(text) for text in texts} == evaluation_keys()

    def test_no_evaluation_text_is_among_the_training_pairs():
        """Every fortieth pair, compared letter for letter, without the hashes."""
        measured = set(embedder_data.evaluation_texts(TRAINING))
        forbidden = evaluation_keys()
        for path in sorted((TRAINING / "train").glob("*.jsonl.gz")):
            with gzip.open(path, "rt", encoding="utf-8") as file:
                rows = [json.loads(line) for i, line in enumerate(file) if i % 40 == 0]
            pairs = [Pair(row["a"], row["p"], row["kind"], row["src"]) for row in rows]
            kept = [pair for pair in pairs if not embedder_data.clashes(pair, forbidden)]
            assert len(kept) > 0.99 * len(pairs) > 0, path.name
            assert measured.isdisjoint(t for pair in kept for t in (pair.anchor, pair.positive))


def test_a_pair_with_an_evaluation_text_and_the_unseen_source_are_left_out(tmp_path):
    (tmp_path / "train").mkdir()
    forbidden = {hashed("她給頭髮做造型")}
    rows = [
        {"a": "如何退款", "p": "在订单页申请。", "kind": "q2para", "src": "x"},
        {"a": "她给头发做造型。", "p": "造型", "kind": "q2para", "src": "x"},
        {"a": "退款", "p": "訂單", "kind": "q2para", "src": embedder_data.HELD_OUT_SOURCE},
    ]
    with gzip.open(tmp_path / "train" / "q2para.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    read = list(embedder_data.training_pairs(tmp_path, forbidden))
    assert [pair.anchor for pair in read] == ["如何退款"]


# Batches.


@pytest.fixture
def made():
    return tokenizer(PIECES)


def test_spans_give_back_the_tokens_of_each_text(made):
    texts = Texts(made)
    first, second = texts.add(["充值没到账", ""], 10), texts.add(["退款怎么办"], 3)
    ids = texts.flat()
    read = [ids[flat_places(spans[np.array([i])])] for spans, i in ((first, 0), (second, 0))]
    assert [[made.id_to_token(i) for i in one] for one in read] == [
        ["充值", "没", "到", "账"],
        ["退款", "怎", "么"],
    ]
    assert first.lengths.tolist() == [4, 0]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_a_crop_lies_inside_its_passage(seed):
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 60, 20)
    passages = Spans(np.cumsum(lengths) - lengths, lengths)
    pairs = Pairs(passages, passages, np.zeros(20, np.int64), ("head2para x",))
    batch = crop_batch(pairs, np.arange(20), random)
    assert np.all(batch.anchors.begins >= passages.begins)
    ends = batch.anchors.begins + batch.anchors.lengths
    assert np.all(ends <= passages.begins + passages.lengths)
    assert np.all(batch.anchors.lengths >= np.minimum(lengths, 4))


def test_a_batch_has_one_kind_and_source_and_no_pair_twice():
    spans = Spans(np.arange(1000), np.ones(1000, np.int64))
    groups = np.arange(1000) % 2
    pairs = Pairs(spans, spans, groups, ("q2para x", "head2para y"))
    batches = pair_batches(pairs, 100, {"q2para": 2.0}, 1.0, np.random.default_rng(1))
    assert sorted(len(batch) for batch in batches) == [100] * 15
    for batch in batches:
        assert len(set(groups[batch])) == 1
    again = pair_batches(pairs, 100, {"q2para": 2.0}, 1.0, np.random.default_rng(1))
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))


def test_an_intent_comes_once_a_batch_and_asks_for_its_own(made):
    intents = [
        Intent(str(n), (f"充值{'余' * n}",), (f"退款{'额' * n}", f"提现{'额' * n}"), ("办",))
        for n in range(1, 6)
    ]
    texts = Texts(made)
    asked = read_asked(intents, texts, 20)
    batch = intent_batch(asked, 10, 1.0, np.random.default_rng(3))
    assert len(batch.anchors) == len(batch.positives) == len(batch.negatives) == 5
    assert sorted(batch.anchors.lengths) == [2, 3, 4, 5, 6] or len(set(batch.anchors.begins)) == 5
    assert len(set(batch.positives.begins)) == 5
    own = {
        int(one.questions.begins[k]): int(one.passages.begins[0]) for one in asked for k in (0, 1)
    }
    pairs = zip(batch.anchors.begins.tolist(), batch.positives.begins.tolist(), strict=True)
    assert all(own[a] == p for a, p in pairs)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.floats(0, 1))
def test_dropping_leaves_every_text_a_token(sizes, drop):
    lengths = np.array(sizes)
    spans = Spans(np.cumsum(lengths) - lengths, lengths)
    ids = np.arange(lengths.sum(), dtype=np.int32)
    flat, kept = shortened(ids, spans, drop, np.random.default_rng(1))
    assert np.all((kept >= 1) & (kept <= lengths))
    assert len(flat) == kept.sum()
    if drop == 0:
        assert np.array_equal(flat, ids)


# Steps.


def toy(made, seed=0):
    texts = Texts(made)
    intents = [
        Intent("a", ("充值没到账",), ("充值怎么没到", "没到账怎么办", "余额没到"), ("提现没到账",)),
        Intent("b", ("退款怎么办",), ("怎么退款", "退款办", "款怎么退"), ("退款没到账",)),
        Intent("c", ("提现余额",), ("怎么提现", "余额提现", "提现怎么办"), ("余额怎么没",)),
    ]
    asked = read_asked(intents, texts, 20)
    data = train_embedder.Data(
        texts.flat(),
        Pairs(*[Spans(*[np.zeros(0, np.int64)] * 2)] * 2, np.zeros(0, np.int64), ()),
        asked,
        asked,
        asked,
    )
    pieces = [made.id_to_token(i) for i in range(made.get_vocab_size())]
    first = np.random.default_rng(seed).standard_normal((len(pieces), 16)).astype(np.float32)
    return data, Matrix(first / 4, characters_of(pieces), 0.5)


def options(tmp_path, **changed):
    chosen = train_embedder.parser().parse_args([])
    return argparse.Namespace(**{**vars(chosen), "work": tmp_path, "rate": 0.2} | changed)


STEPS = [("intents", np.zeros(0, np.int64))] * 60


def test_steps_lower_the_loss_and_keep_unknown_tokens_at_zero(made, tmp_path):
    data, matrix = toy(made)
    batch = intent_batch(data.intents, 3, 1.0, np.random.default_rng(1))
    manner = Manner(20, 0, 0, 0)
    _, _, before = gradient_of(matrix, data.ids, batch, manner, np.random.default_rng(1))
    train_embedder.run(options(tmp_path), data, matrix, STEPS)
    _, _, after = gradient_of(matrix, data.ids, batch, manner, np.random.default_rng(1))
    assert after < before / 2
    assert not matrix.all()[:2].any()


def test_the_gradient_is_the_slope_of_the_loss(made):
    data, matrix = toy(made)
    batch = intent_batch(data.intents, 3, 0.5, np.random.default_rng(1))
    manner = Manner(20, 0, 0, 0.5)
    wanted, gradient, loss = gradient_of(matrix, data.ids, batch, manner, np.random.default_rng(1))
    row = int(np.argmax(np.abs(gradient).sum(axis=1)))
    matrix.first[wanted[row], 0] += 1e-2
    _, _, moved = gradient_of(matrix, data.ids, batch, manner, np.random.default_rng(1))
    assert (moved - loss) / 1e-2 == pytest.approx(gradient[row, 0], rel=0.1, abs=1e-3)


def test_compounds_learn_with_their_characters(made):
    _, matrix = toy(made)
    compound, character = made.token_to_id("充值"), made.token_to_id("充")
    other = made.token_to_id("款")
    before = matrix.all().copy()
    matrix.step(np.array([compound]), np.ones((1, 16), np.float32), 0.1, 0)
    moved = np.linalg.norm(matrix.all() - before, axis=1)
    assert moved[compound] > moved[character] > 0
    assert moved[other] == 0


def test_a_run_cut_short_goes_on_to_the_same_rows(made, tmp_path):
    data, whole = toy(made)
    train_embedder.run(options(tmp_path), data, whole, STEPS)
    data, cut = toy(made)
    chosen = options(tmp_path, save_every=25)
    with pytest.raises(IndexError):
        train_embedder.run(chosen, data, cut, [*STEPS[:40], *[("pairs", np.array([7]))] * 20])
    data, resumed = toy(made)
    train_embedder.run(options(tmp_path, resume=True), data, resumed, STEPS)
    assert np.array_equal(whole.all(), resumed.all())
    data, other = toy(made)
    assert train_embedder.resumed(other, tmp_path / "state.safetensors", b"another run") == 0


def test_a_run_over_other_data_is_another_run(made, tmp_path, capsys):
    """Neither a saved state nor what was counted and tokenised serves pairs that changed."""
    chosen = options(tmp_path, training=tmp_path / "given", save_every=25)
    write_lines(tmp_path / "given" / "train" / "q2para.jsonl.gz", [{"a": "如何退款"}])
    data, matrix = toy(made)
    train_embedder.run(chosen, data, matrix, STEPS)
    chosen.resume = True
    train_embedder.run(chosen, data, matrix, STEPS)
    assert "going on after step 50" in capsys.readouterr().out
    mark = train_embedder.data_mark(tmp_path / "given")
    write_lines(tmp_path / "given" / "train" / "q2para.jsonl.gz", [{"a": "如何退款？" * 9}] * 2)
    train_embedder.run(chosen, data, matrix, STEPS)
    assert "from step 0" in capsys.readouterr().out
    assert train_embedder.data_mark(tmp_path / "given") != mark


# The script, as a stranger runs it.


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


SUBJECTS = ("充值", "退款", "提现", "密码", "登录", "客服", "邮件", "转账")


def small_training(folder):
    """Write pairs and own texts that train in seconds."""
    both = [(a, b) for a in SUBJECTS for b in SUBJECTS]
    told = (
        "请打开应用，在页面上选择{}，然后确认{}，等待到账，没有变化的话请联系客服，说明时间和金额。"
    )
    for kind, asked in (("q2para", "怎么{}{}"), ("head2para", "{}{}")):
        rows = [
            {"a": asked.format(a, b), "p": told.format(a, b), "kind": kind, "src": "x"}
            for a, b in both
        ]
        write_lines(folder / "train" / f"{kind}.jsonl.gz", rows)
    intents = [
        {
            "intent": f"i{number}",
            "heading_zh": name,
            "passage_zh": f"{name}的步骤：打开应用。",
            "heading_en": "Help",
            "passage_en": "Open the app.",
            "questions_zh": [f"{name}怎么办", f"如何{name}"],
            "near_miss_zh": [f"不要{name}"],
        }
        for number, name in enumerate(SUBJECTS)
    ]
    write_lines(folder / "own" / "support" / "intents.jsonl.gz", intents)
    said = [{"questions_zh": [f"{name}怎么弄", f"怎样{name}"]} for name in SUBJECTS]
    write_lines(folder / "own" / "paraphrases.jsonl.gz", said)
    same = [{"zh": ["充值", "加款"], "en": ["top up"]}, {"zh": ["退款", "退钱"], "en": ["refund"]}]
    write_lines(folder / "own" / "lexicon.jsonl.gz", same)


def run_training(folder, output, *flags):
    """Run the script over small data; return what it printed."""
    small = (
        "--pieces 1500 --characters 800 --fragments 20 --counted 1 --dimensions 32 --batch 16 "
        "--share 1 --crop-batches 10 --threads 1 --save-every 50"
    ).split()
    places = ["--training", folder, "--own", folder / "own", "--work", folder / "work"]
    command = [sys.executable, REPOSITORY / "scripts" / "train_embedder.py"]
    command += [*places, *small, "--output", folder / output, *flags]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=240)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.skipif(find_spec("jieba") is None, reason="needs the extra 'train'")
def test_the_script_trains_a_model_and_goes_on_where_it_was_cut(tmp_path):
    small_training(tmp_path)
    code, printed = run_training(tmp_path, "whole")
    assert code == 0, printed
    assert "step 200/" in printed
    assert "s left" in printed
    code, printed = run_training(tmp_path, "again", "--resume")
    assert code == 0, printed
    assert "going on after step 200" in printed
    whole, again = ((tmp_path / n / "SHA256SUMS").read_text() for n in ("whole", "again"))
    assert whole == again
    encoder = StaticEncoder(tmp_path / "whole", Settings())
    query, near, far = encoder.encode_queries(["怎样充值", "充值怎么弄", "退款怎么弄"])
    assert query @ near > query @ far
    code, _ = run_training(tmp_path, "other", "--seed", "2")
    assert (code, (tmp_path / "other" / "SHA256SUMS").read_text() == whole) == (0, False)


def test_without_pairs_the_script_says_where_they_are_looked_for(tmp_path):
    code, printed = run_training(tmp_path, "none")
    assert code == 4
    assert f"no training pairs at {tmp_path}/train; give --training DIR" in printed


# The written model.


def test_eight_bits_lose_at_most_half_a_step():
    rows = np.random.default_rng(1).standard_normal((50, 32)).astype(np.float32)
    rows[3] = 0
    bits, factors = eight_bits(rows)
    assert bits.dtype == np.int8
    assert np.all(np.abs(bits * factors[:, None] - rows) <= factors[:, None] / 2 + 1e-7)
    assert not bits[3].any()


def test_the_written_folder_serves_the_rows_that_were_learned(made, tmp_path):
    _, matrix = toy(made)
    (tmp_path / "README.md").write_text("card")
    write_model(tmp_path, made, matrix.all())
    encoder = StaticEncoder(tmp_path, Settings())
    rows = matrix.all()
    ids = made.encode("充值没到账").ids
    wanted = rows[ids].sum(axis=0)
    served = encoder.encode_queries(["充值没到账"])[0]
    assert served @ (wanted / np.linalg.norm(wanted)) > 0.999
    assert (tmp_path / "README.md").read_text() == "card"
    assert not list(tmp_path.rglob("*.new"))


# Metrics, by hand.


def test_metrics_agree_with_a_case_worked_by_hand():
    """Ranked 5, 2, 9: the first right one of {2, 9} is second, one of the two is in the top 2."""
    assert evaluate_embedder.reciprocal_rank([5, 2, 9], {2, 9}) == 1 / 2
    assert evaluate_embedder.reciprocal_rank([5, 2, 9], {9}, k=2) == 0
    assert evaluate_embedder.recall([5, 2, 9], {2, 9}, 2) == 1 / 2
    ranked = evaluate_embedder.rank(np.array([[1, 0]]), np.array([[0, 1], [1, 0], [0.6, 0.8]]))
    assert ranked.tolist() == [[1, 2, 0]]


class Letters:
    """Encode a text as counts of a, b and c, normalised."""

    def encode_queries(self, texts):
        rows = np.array([[text.count(c) for c in "abc"] for text in texts], dtype=np.float32)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)

    encode_passages = encode_queries


def test_similarity_is_rank_correlation_with_the_scores(tmp_path):
    """Cosines 1, 0.71, 0 against scores 3, 2, 1 agree fully; against 1, 2, 3 not at all."""
    for scores, rho in ((("3", "2", "1"), 100), (("1", "2", "3"), -100)):
        rows = [("a", "a"), ("a", "ab"), ("a", "b")]
        lines = [f"{a}\t{b}\t{s}\n" for (a, b), s in zip(rows, scores, strict=True)]
        with gzip.open(tmp_path / "x.tsv.gz", "wt", encoding="utf-8") as file:
            file.writelines(["sentence1\tsentence2\tscore\n", *lines])
        assert evaluate_embedder.similarity(Letters(), tmp_path / "x.tsv.gz") == pytest.approx(rho)


def test_retrieval_reads_a_set_and_scores_it(tmp_path):
    """Query a: first. Query b: its document ab is second after b, so 1 and 1/2: mean 3/4."""
    files = {
        "corpus": [{"id": i, "text": t} for i, t in (("1", "a"), ("2", "ab"), ("3", "b"))],
        "queries": [{"id": "x", "text": "a"}, {"id": "y", "text": "b"}, {"id": "z", "text": "c"}],
        "qrels": [{"qid": "x", "did": "1", "rel": 1}, {"qid": "y", "did": "2", "rel": 1}],
    }
    for name, rows in files.items():
        with gzip.open(tmp_path / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    found = evaluate_embedder.retrieval(Letters(), tmp_path)
    assert found == {"mrr@10": 0.75, "recall@5": 1.0}


def small_sets(folder):
    """Write one set of each kind, and an own intent that is held out among some that are not."""
    scored = ["sentence1\tsentence2\tscore\n", "退款\t如何退款\t5\n", "退款\t天气\t0\n"]
    (folder / "eval" / "sts").mkdir(parents=True)
    with gzip.open(folder / "eval" / "sts" / "pairs.tsv.gz", "wt", encoding="utf-8") as file:
        file.writelines([*scored, "提现多久到账\t提现几天能到\t4\n"])
    texts = ["忘记密码怎样重新设置", "提现手续费是多少", "客服电话是多少"]
    write_lines(
        folder / "eval" / "found" / "corpus.jsonl.gz",
        [{"id": str(n), "text": text} for n, text in enumerate(texts)],
    )
    write_lines(folder / "eval" / "found" / "queries.jsonl.gz", [{"id": "q", "text": "密码忘了"}])
    write_lines(folder / "eval" / "found" / "qrels.jsonl.gz", [{"qid": "q", "did": "0"}])
    source = {"kind": "enhead2zhpara", "src": embedder_data.HELD_OUT_SOURCE}
    rows = [{"a": "password", "p": "密码"}, {"a": "phone number", "p": "电话号码"}]
    write_lines(folder / "train" / "enhead2zhpara.jsonl.gz", [row | source for row in rows])
    write_lines(folder / "train" / "head2para.jsonl.gz", [{"p": "充值没有到账"}] * 1000)
    names = [f"intent {n}" for n in range(99)]
    held = [name for name in names if Intent(name, (), (), ()).held_out][:1]
    intents = [
        {
            "intent": name,
            "heading_zh": asked,
            "passage_zh": asked,
            "heading_en": "",
            "passage_en": "",
            "questions_zh": [asked],
        }
        for name, asked in zip([*held, "a", "b"], texts, strict=True)
    ]
    assert not any(Intent(name, (), (), ()).held_out for name in "ab")
    write_lines(folder / "own" / "support" / "intents.jsonl.gz", intents)


def evaluate_model(monkeypatch, folder, *flags):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    places = ["--training", folder, "--own", folder / "own"]
    monkeypatch.setattr(sys, "argv", list(map(str, ["evaluate_embedder.py", *places, *flags])))
    return evaluate_embedder.main()


@pytest.mark.parametrize("flags", [(), ("--model", SHIPPED_MODEL)])
def test_the_script_measures_every_set_in_one_table_and_json(tmp_path, monkeypatch, capsys, flags):
    """Cosines and ranks that any model must get right; the speed is only written down."""
    small_sets(tmp_path)
    assert evaluate_model(monkeypatch, tmp_path, "--json", tmp_path / "e.json", *flags) == 0
    figures = json.loads((tmp_path / "e.json").read_text("utf-8"))
    speed = {name: figures.pop(name) for name in ("speed/query_us", "speed/passages_per_s")}
    assert min(speed.values()) > 0
    assert figures == pytest.approx(
        {
            "sts/pairs": 100,
            "found/mrr@10": 1,
            "found/recall@5": 1,
            "held-out intents/hit@1": 1,
            "held-out intents/hit@5": 1,
            "held-out intents/questions": 1,
            "held-out intents/passages": 3,
            "en to zh, unseen source/recall@5": 1,
            "en to zh, unseen source/questions": 2,
        }
    )
    table = capsys.readouterr().out
    assert all(name in table for name in [*figures, *speed])


def test_without_sets_the_measuring_script_says_where_they_are_looked_for(
    tmp_path, monkeypatch, capsys
):
    assert evaluate_model(monkeypatch, tmp_path) == 4
    assert f"no evaluation sets at {tmp_path}/eval" in capsys.readouterr().err
    write_lines(tmp_path / "eval" / "x" / "corpus.jsonl.gz", [])
    assert evaluate_model(monkeypatch, tmp_path) == 4
    assert f"no training pairs at {tmp_path}/train" in capsys.readouterr().err


def test_every_choice_of_the_shipped_model_is_a_default():
    chosen = train_embedder.parser().parse_args([])
    assert chosen.output == SHIPPED_MODEL
    assert StaticEncoder(SHIPPED_MODEL, Settings()).dimensions == chosen.dimensions
