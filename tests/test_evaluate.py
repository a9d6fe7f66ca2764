"""Metrics are checked by hand and against scikit-learn; an evaluation is the same every time."""

import json
import math
import re

import numpy as np
import pytest
from fakes import CharacterEncoder
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, roc_auc_score

from assistant import cli, desk, generations, report
from assistant.build import build, open_generation
from assistant.cli import main
from assistant.errors import QualityDropped
from assistant.evaluate import evaluate
from assistant.metrics import (
    auroc,
    bootstrap,
    brier,
    calibration_error,
    mean_reciprocal_rank,
    recall_at,
    reliability,
    risk_coverage,
)
from assistant.questions import Question, held_out
from assistant.settings import Settings

scored = st.lists(
    st.tuples(st.floats(0, 1, width=16), st.booleans()), min_size=2, max_size=60
).filter(lambda pairs: len({truth for _, truth in pairs}) == 2)


def test_ranks_by_hand():
    ranks = [1, 3, None, 2]
    assert [recall_at(ranks, k) for k in (1, 2, 3)] == [0.25, 0.5, 0.75]
    assert mean_reciprocal_rank(ranks) == pytest.approx((1 + 1 / 3 + 0 + 1 / 2) / 4)
    assert math.isnan(recall_at([], 1))
    assert math.isnan(mean_reciprocal_rank([]))


def test_auroc_by_hand_counts_ties_half():
    assert auroc([0.9, 0.4, 0.4, 0.1], [True, True, False, False]) == pytest.approx(3.5 / 4)
    assert math.isnan(auroc([0.5], [True]))


def test_calibration_by_hand():
    scores, right = [0.05, 0.15, 0.95, 0.85, 1.0], [False, True, True, True, False]
    bars = reliability(scores, right)
    assert [b.count for b in bars] == [1, 1, 1, 2]
    assert bars[-1].confidence == pytest.approx(0.975)
    assert bars[-1].right == 0.5
    gaps = 0.05 + 0.85 + 0.15 + 2 * 0.475
    assert calibration_error(scores, right) == pytest.approx(gaps / 5)


def test_risk_and_coverage_by_hand_move_ties_together():
    points = risk_coverage([0.9, 0.7, 0.7, 0.1], [True, False, True, False])
    assert points == [(0.25, 0.0), (0.75, pytest.approx(1 / 3)), (1.0, 0.5)]
    assert risk_coverage([], []) == []


@given(scored)
def test_figures_agree_with_scikit_learn(pairs):
    scores, truth = (list(column) for column in zip(*pairs, strict=True))
    assert auroc(scores, truth) == pytest.approx(roc_auc_score(truth, scores))
    assert brier(scores, truth) == pytest.approx(brier_score_loss(truth, scores))
    # scikit-learn's bins are closed on the left too, but for scores that sit on an edge
    inside = [(s, t) for s, t in pairs if not math.isclose(s * 10, round(s * 10), abs_tol=1e-6)]
    if inside:
        scores, truth = (list(column) for column in zip(*inside, strict=True))
        shares, means = calibration_curve(truth, scores, n_bins=10)
        bars = reliability(scores, truth)
        assert [b.right for b in bars] == pytest.approx(shares.tolist())
        assert [b.confidence for b in bars] == pytest.approx(means.tolist())


@given(scored)
def test_risk_at_full_coverage_is_the_share_of_wrong_ones(pairs):
    scores, truth = (list(column) for column in zip(*pairs, strict=True))
    points = risk_coverage(scores, truth)
    assert points[-1] == (1.0, pytest.approx(1 - sum(truth) / len(truth)))
    assert [coverage for coverage, _ in points] == sorted({coverage for coverage, _ in points})


def test_a_bootstrap_is_the_same_every_time_and_holds_its_figure():
    values = np.arange(100)
    one, two = (bootstrap(lambda rows: float(values[rows].mean()), 100) for _ in range(2))
    assert one == two
    assert one.low < one.value == 49.5 < one.high
    assert 8 < one.high - one.low < 15  # 2 × 1.96 × 28.9 / √100 = 11.3


@pytest.fixture(scope="module")
def evaluated(guide, encoder):
    generation = generations.current(guide.index).generation
    index, curve = open_generation(generation, encoder, guide)
    return evaluate(index, curve, held_out(guide.corpus), rounds=60)


def test_the_shipped_guide_answers_questions_it_never_saw(evaluated):
    """Floors well below what was measured (docs/retrieval.md), so that a real loss is noticed."""
    figures = {name: interval.value for name, interval in evaluated.figures.items()}
    assert figures["recall@1"] >= 0.93
    assert figures["recall@3"] >= 0.985
    assert figures["auroc"] >= 0.965
    assert figures["calibration_error"] <= 0.06
    assert figures["wrong_of_answered"] <= 0.06
    assert figures["answered_of_answerable"] >= 0.7


def test_an_evaluation_is_the_same_every_time(guide, encoder, evaluated):
    generation = generations.current(guide.index).generation
    index, curve = open_generation(generation, encoder, guide)
    again = evaluate(index, curve, held_out(guide.corpus), rounds=60)
    assert repr(again) == repr(evaluated)  # repr, for not-a-number is not equal to itself


def test_figures_of_groups_add_up(evaluated):
    """Of every kind, and of every language: questions, and right first passages."""
    asked = [case for case in evaluated.cases if case.answerable]
    right = round(evaluated.figures["recall@1"].value * len(asked))
    for part in ("kind", "lang"):
        names = [getattr(case.question, part) for case in asked]
        silent = {getattr(case.question, part) for case in evaluated.cases}
        assert sum(evaluated.groups[name].questions for name in silent) == len(evaluated.cases)
        shares = {name: evaluated.groups[name].figures["recall@1"].value for name in names}
        assert round(sum(shares[name] for name in names)) == right


def test_a_groups_figures_are_those_of_its_questions_asked_alone(guide, encoder, evaluated):
    generation = generations.current(guide.index).generation
    index, curve = open_generation(generation, encoder, guide)
    english = [question for question in held_out(guide.corpus) if question.lang == "en"]
    alone = evaluate(index, curve, english, rounds=60)
    assert repr(evaluated.groups["en"].figures) == repr(alone.figures)


def test_a_failure_names_what_came_instead(evaluated):
    shown = report.text(evaluated)
    failed = [case for case in evaluated.cases if case.failed]
    assert failed
    assert failed[0].question.ask in shown
    assert failed[0].found in shown


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing(evaluated):
    page = report.page(evaluated, against=evaluated)
    assert not re.search(r"https?:|src=|<script|@import|url\(|\son\w+=", page)
    assert page.count("<svg") == 3
    assert page.count("<figure>") == 3


def test_the_page_speaks_the_language_that_it_is_asked_for(evaluated):
    """Every word of ours; what the questions, the guide and the index are called stays."""
    english = report.page(evaluated, against=evaluated)
    chinese = report.page(evaluated, against=evaluated, language="zh")
    assert '<html lang="zh-CN">' in chinese
    for words in (*report.WORDS.values(), "answerable", "confidence", "share", "wrong", "interval"):
        assert words in english
        assert words == "AUROC" or words not in chinese
    for words in ("没有答好的问题", "首段答对", "校准误差", "把握", "95 % 区间"):
        assert words in chinese


def test_a_question_cannot_write_into_the_page(guide, encoder):
    generation = generations.current(guide.index).generation
    index, curve = open_generation(generation, encoder, guide)
    ask = "<img src=x onerror=alert(1)> \x1b[31m 充值失败"
    done = evaluate(index, curve, [Question(ask, kind="<b>", lang='"><i>')], rounds=2)
    page = report.page(done)
    assert "<img" not in page
    assert "<b>" not in page
    assert "<i>" not in page
    assert "\x1b" not in report.text(done)


def test_json_has_null_where_a_figure_cannot_be_told(evaluated):
    values = report.as_json(evaluated)
    json.dumps(values, allow_nan=False)
    assert values["groups"]["silent"]["figures"]["recall@1"]["value"] is None


def test_table_json_and_page_hold_the_reliability_the_risk_and_an_interval_of_every_group(
    evaluated,
):
    values, shown, page = report.as_json(evaluated), report.text(evaluated), report.page(evaluated)
    assert sum(bar["count"] for bar in values["reliability"]) == len(evaluated.cases)
    assert values["risk_coverage"][-1][0] == 1
    assert f"{values['reliability'][-1]['right']:.2f}" in shown
    assert f"{values['risk_coverage'][-1][1]:.2f}" in shown
    for name, group in values["groups"].items():
        wrong, lost = (group["figures"][f] for f in ("wrong_of_answered", "refused_of_answerable"))
        for one in (wrong, lost):
            if one["low"] is not None:
                bounds = f"{100 * one['low']:.0f}–{100 * one['high']:.0f} %"
                assert bounds in shown.partition(f"  {name} ")[2].splitlines()[1]
                assert bounds in page.partition(f"<th>{name}</th>")[2].partition("</tr>")[0]


def test_the_command_writes_table_json_and_page(guide, tmp_path, capsys):
    questions = tmp_path / "q.yaml"
    questions.write_text(
        "- {ask: 充值失败, passage: 'topay-contact-guide.md#1. 充值不成功', kind: plain}\n"
        "- {ask: 今天天气, passage: null, kind: offtopic}\n",
        "utf-8",
    )
    place = ["--corpus", str(guide.corpus), "--index", str(guide.index)]
    generation = generations.current(guide.index).generation.id
    files = ["--json", str(tmp_path / "e.json"), "--html", str(tmp_path / "e.html")]
    asked = ["--questions", str(questions), "--against", generation]
    assert main(["evaluate", *place, *asked, *files]) == 0
    assert "right passage first" in capsys.readouterr().out
    values = json.loads((tmp_path / "e.json").read_text("utf-8"))
    assert values["figures"]["recall@1"]["value"] == 1.0
    assert values["against"]["generation"] == generation
    assert (tmp_path / "e.html").read_text("utf-8").startswith("<!doctype html>")
    assert main(["evaluate", *place, "--questions", str(tmp_path / "none.yaml")]) == 4
    capsys.readouterr()
    assert main(["evaluate", *place, "--against", "000099-00000000"]) == 3
    assert f"there are: {generation}" in capsys.readouterr().err


@pytest.fixture
def watched(tmp_path):
    """A small guide with labelled questions and a built index."""
    corpus = tmp_path / "corpus"
    (corpus / "questions").mkdir(parents=True)
    texts = {
        "苹果": "苹果放在冰箱里保存。",
        "香蕉": "香蕉挂在架子上通风。",
        "葡萄": "葡萄洗净马上吃掉。",
    }
    guide = "# 水果\n\n" + "".join(f"## {name}\n\n{text}\n\n" for name, text in texts.items())
    (corpus / "a.md").write_text(guide, "utf-8")
    labelled = "".join(f"- {{ask: {name}怎么放, passage: 'a.md#{name}'}}\n" for name in texts)
    (corpus / "questions" / "fit.yaml").write_text(labelled, "utf-8")
    (corpus / "contacts.toml").write_text("[[channel]]\nname = '客服'\n", "utf-8")
    settings = Settings(corpus=corpus, index=tmp_path / "index")
    build(settings, CharacterEncoder())
    return settings


def worsen(corpus):
    """Let one passage share the words of the others' questions, and take them from the latter."""
    path, labels = corpus / "a.md", corpus / "questions" / "fit.yaml"
    text = path.read_text("utf-8")
    text = text.replace("苹果放在冰箱里保存。", "苹果怎么放葡萄怎么放香蕉怎么放。")
    for fruit, words in (("葡萄", "葡萄洗净马上吃掉。"), ("香蕉", "香蕉挂在架子上通风。")):
        text = text.replace(words, "乙。").replace(f"## {fruit}", f"## {words[-3]}色")
        known = labels.read_text("utf-8")
        labels.write_text(known.replace(f"'a.md#{fruit}'", f"'a.md#{words[-3]}色'"), "utf-8")
    path.write_text(text, "utf-8")


def test_a_build_that_answers_worse_is_refused_unless_forced(watched):
    before = generations.current(watched.index).generation.id
    worsen(watched.corpus)
    (watched.corpus / "more.pages").write_text("x", "utf-8")
    with pytest.raises(QualityDropped, match="force") as raised:
        build(watched, CharacterEncoder())
    assert "Newly wrong: 香蕉怎么放; 葡萄怎么放. " in str(raised.value)
    assert "Files that were skipped: more.pages (not a guide file" in str(raised.value)
    assert "assistant build --index NEW and assistant evaluate --index NEW" in str(raised.value)
    assert generations.current(watched.index).generation.id == before
    build(watched, CharacterEncoder(), force=True)
    assert generations.current(watched.index).generation.id != before


@pytest.mark.parametrize(("flags", "code"), [((), 4), (("--force",), 0)])
def test_the_command_refuses_a_worse_index_and_names_the_way_round(
    watched, monkeypatch, capsys, flags, code
):
    before = generations.current(watched.index).generation.id
    worsen(watched.corpus)
    monkeypatch.setattr(cli, "open_encoder", lambda _: CharacterEncoder())
    place = ["--corpus", str(watched.corpus), "--index", str(watched.index)]
    assert main(["build", *place, *flags]) == code
    assert (generations.current(watched.index).generation.id == before) == bool(code)
    assert ("assistant build --force" in capsys.readouterr().err) == bool(code)


def test_how_much_worse_is_too_much_is_a_setting(watched):
    before = generations.current(watched.index).generation.id
    worsen(watched.corpus)
    build(watched.model_copy(update={"quality_drop": 1.0}), CharacterEncoder())
    assert generations.current(watched.index).generation.id != before


def test_one_question_of_a_handful_is_no_drop(watched):
    before = generations.current(watched.index).generation.id
    for name in ("a.md", "questions/fit.yaml"):
        path = watched.corpus / name
        text = path.read_text("utf-8").replace("葡萄洗净马上吃掉。", "乙。")
        path.write_text(text.replace("## 葡萄", "## 紫色").replace("#葡萄'", "#紫色'"), "utf-8")
    build(watched, CharacterEncoder())
    now = generations.current(watched.index).generation
    assert now.id != before
    assert now.manifest.facts["recall@1"] < 1


def test_a_guide_with_few_labels_says_why_nothing_is_answered_without_reserve(
    watched, monkeypatch, capsys
):
    for module in (cli, desk):
        monkeypatch.setattr(module, "open_encoder", lambda _: CharacterEncoder())
    place = ["--corpus", str(watched.corpus), "--index", str(watched.index)]
    said = "nothing will be answered without reserve: 3 labelled questions so far"
    for command in ("build", "calibrate", "doctor"):
        main([command, *place])
        out = capsys.readouterr().out
        assert said in out, command
    main(["calibrate", *place])
    assert re.search(r"wrong_of_answered +-$", capsys.readouterr().out, re.M)


def test_a_build_that_answers_as_well_is_taken(watched):
    before = generations.current(watched.index).generation.id
    build(watched, CharacterEncoder())
    assert generations.current(watched.index).generation.id != before
