"""Every store and the lexical index against brute force, scores included (law 6)."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from milvus_server import in_milvus, words_in_milvus

from assistant.errors import IndexUnusable
from assistant.fold import fold, simplify, terms
from assistant.lexical import Lexical
from assistant.store import FaissStore, Lists
from assistant.vocabulary import Vocabulary

STORES = {
    "float32": (lambda v: FaissStore.build(v), 1e-6),
    "float16": (lambda v: FaissStore.build(v, "float16"), 2e-3),
    "int8": (lambda v: FaissStore.build(v, "int8"), 2e-2),
    "milvus": (lambda v: in_milvus(v)[0], 1e-6),
}
WORDS = {
    "tantivy": lambda folder, texts, owners=None: Lexical.build(folder, texts, owners),
    "milvus": lambda folder, texts, owners=None: words_in_milvus(texts, owners),
}


def unit(count, dimensions=24, seed=0):
    rows = np.random.default_rng(seed).normal(size=(count, dimensions)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", STORES)
class TestStore:
    def test_finds_what_brute_force_finds_with_its_scores(self, kind):
        build, error = STORES[kind]
        rows, queries = unit(500), unit(20, seed=1)
        store = build(rows)
        scores, found = store.search(queries, 10)
        truth = queries @ rows.T
        expected = np.argsort(-truth, axis=1, kind="stable")[:, :10]
        assert np.abs(scores - np.take_along_axis(truth, found, 1)).max() < error
        agreement = [
            len(set(a) & set(b)) for a, b in zip(found.tolist(), expected.tolist(), strict=True)
        ]
        assert np.array_equal(found, expected) if error < 1e-5 else min(agreement) >= 8

    def test_equal_scores_are_ordered_by_row(self, kind):
        rows = np.repeat(unit(3), 5, axis=0)
        _, found = STORES[kind][0](rows).search(unit(1, seed=3), 15)
        order = np.argsort(-(unit(1, seed=3) @ rows.T)[0], kind="stable")
        assert np.array_equal(found[0], order) or STORES[kind][1] > 1e-5
        assert all(
            a < b for g in range(0, 15, 5) for a, b in pairwise(found[0][g : g + 5].tolist())
        )

    def test_gives_back_its_vectors_and_survives_the_disk(self, kind, tmp_path):
        build, error = STORES[kind]
        rows = unit(50)
        again = store = build(rows)
        if isinstance(store, FaissStore):
            store.write(tmp_path / "v.faiss")
            again = FaissStore.open(tmp_path / "v.faiss")
        assert (len(again), again.dimensions) == (50, 24)
        assert np.abs(again.vectors([3, 0, 49]) - rows[[3, 0, 49]]).max() < error
        assert np.array_equal(again.matrix(), again.vectors(range(50)))
        some = np.array([7, 30, 2])
        assert np.abs(again.cosines(some, rows[4]) - rows[some] @ rows[4]).max() < error
        for one, other in zip(store.search(rows[:5], 7), again.search(rows[:5], 7), strict=True):
            assert np.array_equal(one, other)

    def test_asks_for_more_than_there_is(self, kind):
        scores, found = STORES[kind][0](unit(4)).search(unit(2, seed=1), 100)
        assert scores.shape == found.shape == (2, 4)


def spread_unit(count):
    """Rows near a third of the dimensions, as those of a trained model are."""
    random = np.random.default_rng(0)
    spread = random.normal(size=(20, 64)) * np.linspace(1, 0.1, 20)[:, None]
    rows = random.normal(size=(count, 20)) @ spread + random.normal(size=(count, 64)) / 4
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def lists_of(rows, folder, some=slice(None), least_read=0, most=None, rough=False):
    numbers = np.arange(len(rows))[some]
    Lists.build(rows[some], numbers, least_read, most, rough).write(folder / "near.faiss")
    return Lists.open(folder / "near.faiss")


@pytest.mark.parametrize("rough", [False, True])
@pytest.mark.parametrize(("most", "least"), [(1, 1.0), (None, 0.8)])
def test_lists_find_what_brute_force_finds_or_most_of_it(most, least, rough, tmp_path):
    rows = spread_unit(25_000)
    lists = lists_of(rows, tmp_path, slice(0, None, 2), most=most, rough=rough)
    assert (len(lists), lists.count) == (12_500, 1 if most == 1 else 312)
    queries = np.ascontiguousarray(rows[1:40:2])
    scores, found = lists.search(queries, 20)
    assert (found % 2 == 0).all()
    truth = queries @ rows.T
    shares = []
    for number, query in enumerate(queries):
        best = 2 * np.argsort(-truth[number, ::2], kind="stable")[:10]
        shares.append(len({*best.tolist()} & {*found[number].tolist()}) / 10)
        assert np.array_equal(found[number], lists.search(query[None], 20)[1][0])
    assert np.mean(shares) >= least
    if not rough:
        assert np.abs(scores - np.take_along_axis(truth, found, 1)).max() < 2e-3


@pytest.mark.parametrize("dimensions", [24, 64, 512])
def test_rough_lists_name_what_is_near_though_a_query_has_larger_numbers(dimensions, tmp_path):
    rows, queries = unit(300, dimensions), unit(10, dimensions, seed=1)
    queries[0] = np.eye(dimensions)[0]
    some = np.arange(5, 300, 7)
    found = lists_of(rows, tmp_path, some, most=1, rough=True).search(queries, 12)[1]
    truth = queries @ rows[some].T
    assert set(found.ravel().tolist()) <= set(some.tolist())
    for best, got in zip(some[np.argsort(-truth, axis=1)[:, :8]], found, strict=True):
        assert set(best.tolist()) <= set(got.tolist())


@pytest.mark.parametrize("count", [0, 1, 39, 500])
def test_lists_of_few_rows_give_those_there_are(count, tmp_path):
    """None at all when there is nothing: so is the background where no question is known."""
    rows = spread_unit(max(1, count))
    found = lists_of(rows, tmp_path, slice(count)).search(rows[:1], 1000)[1][0].tolist()
    there = [row for row in found if row >= 0]
    assert there[:1] == [0][:count]
    assert min(1, count) <= len(set(there)) == len(there) <= count
    assert found[len(there) :] == [-1] * (1000 - len(there))


@pytest.mark.parametrize(("least", "share"), [(0, 1 / 8), (2_500, 1 / 2), (22_000, 1)])
def test_a_question_reads_an_eighth_of_the_lists_or_enough_rows(least, share, tmp_path):
    rows = spread_unit(5_000)
    found = lists_of(rows, tmp_path, least_read=least).search(rows[:1], 5_000)[1]
    assert share / 4 < (found >= 0).sum() / 5_000 <= min(1, share * 2)


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_a_store_of_nothing_is_written_and_opened(precision, tmp_path):
    FaissStore.build(unit(0), precision).write(tmp_path / "v.faiss")
    assert len(FaissStore.open(tmp_path / "v.faiss")) == 0


@given(st.lists(st.floats(-1, 1, width=16), min_size=1, max_size=40))
def test_half_precision_reads_back_to_the_bit(numbers):
    rows = np.array([numbers], dtype=np.float32)
    assert np.array_equal(FaissStore.build(rows, "float16").vectors([0]), rows)


@pytest.mark.parametrize("data", [b"", b"nonsense" * 100])
def test_a_file_that_is_no_index_is_refused(tmp_path, data):
    (tmp_path / "v.faiss").write_bytes(data)
    with pytest.raises(IndexUnusable, match=r"v\.faiss.*assistant build"):
        FaissStore.open(tmp_path / "v.faiss")


def test_a_tiny_file_that_declares_64_gib_is_refused(tmp_path):
    FaissStore.build(unit(2)).write(tmp_path / "v.faiss")
    data = (tmp_path / "v.faiss").read_bytes()
    size = (2 * 24).to_bytes(8, "little")
    assert data.count(size) == 1
    (tmp_path / "v.faiss").write_bytes(data.replace(size, (2**34 + 1).to_bytes(8, "little")))
    with pytest.raises(IndexUnusable, match=r"v\.faiss"):
        FaissStore.open(tmp_path / "v.faiss")


TEXTS = [
    "充值没到账怎么办",
    "忘记登录密码怎么找回密码",
    "How to reset a password",
    "订单 TH-01 的传感器 v1.2",
    "充值",
    "",
]
FOLDED = list(map(fold, TEXTS))


def bm25(texts, query):
    """Score by the textbook, on documents short enough for exact length norms."""
    documents = [Counter(terms(fold(text))) for text in texts]
    lengths = [sum(d.values()) for d in documents]
    average = sum(lengths) / len(documents)
    scores = []
    for document, length in zip(documents, lengths, strict=True):
        total = 0.0
        for term in dict.fromkeys(query):
            n = sum(term in d for d in documents)
            idf = math.log(1 + (len(documents) - n + 0.5) / (n + 0.5))
            tf = document[term]
            total += idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * length / average))
        scores.append(total)
    return scores


def pairs(found):
    rows, scores = found
    return list(zip(rows.tolist(), scores.tolist(), strict=True))


@pytest.mark.parametrize("kind", WORDS)
def test_bm25_of_a_case_worked_by_hand(tmp_path, kind):
    """Two texts of one and three terms: N = 2, n(甲) = 1, average length 2."""
    index = WORDS[kind](tmp_path / "lex", ["甲", "乙丙"])
    idf = math.log(1 + 1.5 / 1.5)
    expected = idf * 2.2 / (1 + 1.2 * (0.25 + 0.75 * 1 / 2))
    assert pairs(index.search(["甲"], 5)) == [(0, pytest.approx(expected, rel=1e-6))]
    assert index.idf("甲") == pytest.approx(idf)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.text("充值没到账密码找回甲乙ab 1", max_size=12), min_size=1, max_size=12),
    st.text("充值密码甲ab1", max_size=6),
)
def test_bm25_agrees_with_brute_force(tmp_path_factory, texts, query):
    index = Lexical.build(tmp_path_factory.mktemp("lex") / "l", list(map(fold, texts)))
    words = terms(fold(query))
    truth = bm25(texts, words) if any(terms(fold(t)) for t in texts) else [0.0] * len(texts)
    found = dict(pairs(index.search(words, 100)))
    assert {row for row, score in enumerate(truth) if score > 0} == set(found)
    for row, score in found.items():
        assert score == pytest.approx(truth[row], rel=1e-5)
    assert list(found) == sorted(found, key=lambda row: (-found[row], row))


@given(st.lists(st.text("充值密码甲ab1 ", max_size=400), min_size=1, max_size=6))
@settings(max_examples=25, deadline=None)
def test_sparse_vectors_multiply_to_the_bm25_of_tantivy(tmp_path_factory, texts):
    """Of texts of any length: both keep it in one byte."""
    folder = tmp_path_factory.mktemp("lex")
    folded = [*map(fold, texts), "充值密码", ""]
    index = Lexical.build(folder / "l", folded)
    Vocabulary.build(folded).write(folder / "terms")
    average = sum(len(terms(text)) for text in folded) / len(folded)
    vocabulary = Vocabulary.open(folder / "terms", len(folded), average)
    query = terms("充值密码 ab 没")
    asked = vocabulary.asked(query)
    assert all(vocabulary.idf(term) == pytest.approx(index.idf(term)) for term in query)
    assert all(vocabulary.known(term) == index.known(term) for term in query)
    found = dict(pairs(index.search(query, 100)))
    for row, text in enumerate(folded):
        held = vocabulary.held(text)
        assert held
        score = sum(weight * held.get(place, 0) for place, weight in asked.items())
        assert score == pytest.approx(found.get(row, 0), rel=1e-5)


def test_a_vocabulary_of_half_a_file_is_refused(tmp_path):
    Vocabulary.build(["甲乙"]).write(tmp_path / "terms.bin")
    (tmp_path / "terms.bin").write_bytes((tmp_path / "terms.bin").read_bytes()[:-1])
    with pytest.raises(IndexUnusable, match=r"terms\.bin.*assistant build"):
        Vocabulary.open(tmp_path / "terms.bin", 1, 3.0)


def test_a_milvus_finds_words_as_tantivy_does(tmp_path):
    texts = [*FOLDED, "充值" * 40, *(f"充值密码{'甲' * i}" for i in range(60))]
    one, other = (build(tmp_path / "lex", texts) for build in WORDS.values())
    assert len(one) == len(other) == len(texts)
    for query in ("充值密码", "reset a password", "th-01", "没有的 zzz"):
        words = terms(fold(query))
        found = pairs(other.search(words, 20))
        assert [row for row, _ in found] == [row for row, _ in pairs(one.search(words, 20))]
        assert [s for _, s in found] == pytest.approx([s for _, s in pairs(one.search(words, 20))])
        assert [one.known(word) for word in words] == [other.known(word) for word in words]


def test_lexical_survives_the_disk_and_counts_rows(tmp_path):
    built = Lexical.build(tmp_path / "lex", FOLDED)
    again = Lexical.open(tmp_path / "lex")
    assert len(built) == len(again) == len(TEXTS)
    for query in ("密码", "reset", "th-01", "传感器"):
        words = terms(fold(query))
        assert pairs(built.search(words, 5)) == pairs(again.search(words, 5)) != []


@pytest.mark.parametrize(
    ("query", "row"),
    [
        ("TH-01", 3),
        ("th01", 3),
        ("V1.2", 3),
        ("ＴＨ－０１", 3),
        ("儲值", 4),
        ("密碼", 1),
        ("PASSWORD", 2),
    ],
)
def test_codes_widths_and_traditional_writing_are_found(tmp_path, query, row):
    rows, _ = Lexical.build(tmp_path / "lex", FOLDED).search(terms(fold(query)), 1)
    assert rows.tolist() == [row]


@given(st.text(max_size=80))
def test_folding_keeps_the_length_so_offsets_hold(text):
    assert len(fold(text)) == len(text) == len(simplify(text))
    assert fold(fold(text)) == fold(text)


@pytest.mark.parametrize("kind", WORDS)
@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(st.sampled_from(TEXTS), min_size=4, max_size=12),
    owners=st.sets(st.integers(0, 3)),
)
def test_the_rows_of_some_passages_are_scored_as_among_all(tmp_path_factory, kind, texts, owners):
    folder = tmp_path_factory.mktemp("lexical")
    owned = (row // 3 for row in range(len(texts)))
    index = WORDS[kind](folder / "l", list(map(fold, texts)), owned)
    query = terms(fold("充值密码怎么办"))
    every = dict(pairs(index.search(query, 100)))
    some = dict(pairs(index.scores(query, owners, 100)))
    assert some == {row: score for row, score in every.items() if row // 3 in owners}
