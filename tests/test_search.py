"""The index: parallel tables, exact scores, and vectors that are reused."""

import numpy as np
import pytest
from fakes import CharacterEncoder

from assistant import generations, search, store
from assistant.build import build
from assistant.calibrate import probes
from assistant.errors import IndexUnusable
from assistant.questions import question_files, read_questions
from assistant.search import Index, Query, fuse, mix
from assistant.settings import Settings


@pytest.fixture
def small(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    for i in range(12):
        text = f"# 主题{i}\n\n第{i}件事情要这样办理。然后再确认一次{i}。\n\n"
        text += f"## 细节{i}\n\n更多说明{i}在此。\n"
        (folder / f"f{i:02}.md").write_text(text, "utf-8")
    return Settings(corpus=folder, index=tmp_path / "index")


def open_index(settings, encoder):
    return Index(generations.current(settings.index).generation.folder, encoder, settings)


def test_search_ranks_as_brute_force_over_every_view_does(small):
    encoder = CharacterEncoder()
    build(small, encoder)
    index = open_index(small, encoder)
    question = "事情7怎么办理"
    ranking = index.search(question, 5)
    query = encoder.encode_queries([question])[0]
    expected = []
    for row in range(len(index)):
        cosines = encoder.encode_passages([v.text for v in index.views(row)]) @ query
        hit = index.search(question, len(index)).hits
        lexical = next(h.lexical for h in hit if h.row == row)
        support = np.sort(cosines)[-3:].mean()
        signals = (cosines[0], cosines.max(), support, lexical)
        *near, words = (np.array([x], dtype=np.float32) for x in signals)
        score = fuse(mix(*near, small), words, ranking.weight, small)
        expected.append((float(score[0]), -row))
    best = sorted(expected, reverse=True)[:5]
    assert [h.row for h in ranking.hits] == [-row for _, row in best]
    assert [h.score for h in ranking.hits] == pytest.approx([s for s, _ in best], abs=1e-5)


def test_a_hit_keeps_raw_scores_and_shares_between_zero_and_one(desk):
    ranking = desk.index.search("充值失败怎么办", 5)
    for hit in ranking.hits:
        assert -1 <= hit.passage <= hit.view <= 1.0001
        assert 0 <= hit.coverage <= 1.0001
        assert hit.lexical >= 0
        assert hit.similarity == (hit.passage + hit.view) / 2
    assert 0 <= ranking.unknown <= 1


def test_rows_of_every_table_are_the_same_view(desk):
    """Law 4: the text of each view finds its own row by vector and by words."""
    index = desk.index
    for row in range(len(index)):
        for number, view in enumerate(index.views(row)):
            assert view.chunk == row
            at = index.first_view(row) + number
            vector = desk.encoder.encode_passages([view.text])[0]
            assert np.abs(index._store.vectors([at])[0] - vector).max() < 1e-6
            document = index.document(index.chunk(row).path)
            assert document.text[view.start : view.end]


def test_an_empty_or_unknown_question_finds_nothing_or_weakly(desk):
    assert desk.index.search("☃☃☃", 5).hits == ()
    assert desk.index.search("zzzzqqq", 3).unknown == pytest.approx(1.0)


def test_hidden_views_are_absent(desk):
    index = desk.index
    first = index.search("忘记密码怎么办", 1).hits[0]
    whole = index.first_view(first.row)
    assert first.row not in {
        h.row for h in index.search("忘记密码怎么办", 17, frozenset({whole})).hits
    }
    hidden = index.search("忘记密码怎么办", 17, frozenset({first.best})).hits
    same = next(h for h in hidden if h.row == first.row)
    assert same.view < first.view or first.best == whole


def test_many_questions_at_once_are_ranked_to_the_bit_as_one_by_one(desk):
    """Every labelled question, and what calibration asks with views hidden."""
    index, corpus = desk.index, desk.settings.corpus
    labelled = [one for path in question_files(corpus) for one in read_questions(path)]
    queries = [Query(one.ask) for one in labelled]
    queries += [probe.query for probe in probes(index, desk.settings, True)][::3]
    assert len(queries) > 1000
    assert any(query.hidden for query in queries)
    assert any(query.unlike is not None for query in queries)
    for query, ranking in zip(queries, index.search_many(queries, 5), strict=True):
        assert ranking == index.search(query.ask, 5, query.hidden, query.unlike)


def test_changing_one_file_embeds_only_that_file(small):
    encoder = CharacterEncoder()

    def encoded():  # the practice guides that calibration embeds have no such word
        return [text for text in encoder.encoded if "主题" in text or "细节" in text]

    assert build(small, encoder).reused == 0
    encoder.encoded.clear()
    report = build(small, encoder)
    assert (report.encoded, encoded()) == (0, [])
    path = small.corpus / "f03.md"
    path.write_text(path.read_text("utf-8").replace("要这样办理", "换个方式办理"), "utf-8")
    report = build(small, encoder)
    assert report.encoded == len(encoded()) == 2
    assert all("主题3" in text for text in encoded())
    assert report.reused == report.views - 2


def test_reused_vectors_are_those_a_fresh_build_gives(small, tmp_path):
    encoder = CharacterEncoder()
    build(small, encoder)
    (small.corpus / "a.md").write_text("# 新\n\n新的内容。\n", "utf-8")
    build(small, encoder)
    fresh = small.model_copy(update={"index": tmp_path / "fresh"})
    build(fresh, encoder)
    one, other = open_index(small, encoder), open_index(fresh, encoder)
    rows = range(one.view_count)
    assert one.view_count == other.view_count
    assert np.array_equal(one._store.vectors(rows), other._store.vectors(rows))


def test_another_models_vectors_are_not_reused(small):
    build(small, CharacterEncoder())
    other = CharacterEncoder(salt="other")
    assert build(small, other).reused == 0


def test_the_report_counts_what_there_is(small):
    (small.corpus / "bad.md").write_bytes(b"\xff\xfe\xff")
    report = build(small, CharacterEncoder())
    assert (report.files, report.sections, report.passages) == (12, 24, 24)
    assert [one.path for one in report.skipped] == ["bad.md"]
    assert report.views == report.encoded + report.reused == 24 + 24


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_less_precision_finds_the_same(small, precision):
    encoder = CharacterEncoder()
    half = small.model_copy(update={"precision": precision, "index": small.index / "half"})
    build(small, encoder)
    build(half, encoder)
    for question in ("事情3", "更多说明9", "确认一次11"):
        one = open_index(small, encoder).search(question, 3).hits
        other = open_index(half, encoder).search(question, 3).hits
        assert [h.row for h in one] == [h.row for h in other]


@pytest.mark.parametrize("large", [False, True])
def test_a_search_within_a_document_or_section_finds_what_all_hits_of_it_are(
    small, large, monkeypatch
):
    """However far behind the best of the whole guide they are."""
    encoder = CharacterEncoder()
    if large:
        monkeypatch.setattr(search, "_DECODED", 10)
    build(small, encoder)
    index = open_index(small, encoder)
    monkeypatch.undo()
    named = [("f03.md", ""), ("", "细节5"), ("f07.md", "细节7"), ("f07.md", "细节5"), ("no.md", "")]
    for path, section in named:
        wanted = [
            row
            for row, chunk in enumerate(index.chunks())
            if path in ("", chunk.path) and (not section or section in chunk.headings)
        ]
        within = index.passages(path, section)
        assert within.tolist() == wanted
        found = index.search("第9件事情怎么办理", 5, within=within).hits
        everything = index.search("第9件事情怎么办理", len(index)).hits
        expected = [(hit.row, hit.lexical) for hit in everything if hit.row in wanted]
        assert [(hit.row, hit.lexical) for hit in found] == expected
    assert len(index.passages()) == len(index)


@pytest.mark.parametrize(("most", "compared"), [(10_000, "every view"), (20, "of 12 lists")])
def test_a_large_index_finds_what_a_small_one_does(small, most, compared, monkeypatch):
    encoder = CharacterEncoder()
    build(small, encoder)
    asked = [f"事情{i}怎么办理" for i in range(12)]
    before = [open_index(small, encoder).search(question, 3).hits for question in asked]
    monkeypatch.setattr(search, "_DECODED", 10)
    monkeypatch.setattr(search, "_EVERY_VIEW", most)
    monkeypatch.setattr(store, "_LEARNED_FROM", 2)
    monkeypatch.setattr(store, "_PROBED", 1)
    build(small, encoder)
    index = open_index(small, encoder)
    assert (index.folder / search.NEAR).exists()
    assert compared in index.nomination
    facts = generations.current(small.index).generation.manifest.facts
    assert facts["compared"] == index.nomination
    for question, hits in zip(asked, before, strict=True):
        found = index.search(question, 3).hits
        assert [hit.row for hit in found] == [hit.row for hit in hits]
        assert [hit.score for hit in found] == pytest.approx([hit.score for hit in hits], abs=1e-6)


def test_a_table_of_lines_that_does_not_fit_is_refused(small):
    encoder = CharacterEncoder()
    build(small, encoder)
    folder = generations.current(small.index).generation.folder
    for name in ("documents", "chunks", "views"):
        table = folder / f"{name}.ends"
        whole = table.read_bytes()
        table.write_bytes(whole[:-8])
        with pytest.raises(IndexUnusable, match=rf"{name}\.jsonl.*assistant build"):
            Index(folder, encoder, small)
        table.write_bytes(whole)
    assert len(Index(folder, encoder, small))
