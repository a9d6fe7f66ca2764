"""The benchmark with peers: its figures are right, and one that is not installed is named."""

import importlib.metadata
import importlib.util
import json
import re
import sys

import pytest
from conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "scripts"))

import benchmark_peers as peers
from benchmark_peers import Asked, Task

TEXTS = {
    "充值": "充值没到账时，请先核对银行的扣款记录，再联系客服。",
    "密码": "忘记密码时，在登录页点击找回密码，用手机验证码重设。",
    "退款": "退款会在三个工作日内回到原来的银行卡，请留意短信。",
}


@pytest.fixture
def task(tmp_path):
    """Three passages as files and as texts, each with a question, and one that has no answer."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, (title, text) in enumerate(TEXTS.items()):
        (corpus / f"{number}.md").write_text(f"# {title}\n\n{text}\n", "utf-8")
    passages = [f"{title}\n{text}" for title, text in TEXTS.items()]
    questions = [
        Asked("充值没到账怎么办", [0]),
        Asked("忘记密码怎么重设", [1]),
        Asked("退款几天到银行卡", [2]),
        Asked("明天会下雨吗", []),
    ]
    one = Task("small", str(corpus), 4000, passages, [("钱没有充进去", 0)], questions)
    one.write(tmp_path / "small.json")
    return tmp_path / "small.json"


def measured(task, name):
    """Build and ask in fresh processes, as a round does."""
    folder = task.parent / "index"
    built = peers.run("build", name, task, folder, 0)
    return built | peers.run("ask", name, task, folder, 4)


def test_a_task_is_read_as_it_was_written(task):
    one = Task.read(task)
    one.write(task)
    assert Task.read(task) == one
    assert one.questions[3].right == []


def test_ours_finds_each_passage_in_a_process_of_its_own(task):
    figures = measured(task, "ours")
    assert (figures["r1"], figures["r5"], figures["mrr"]) == (1, 1, 1)
    assert figures["false"] == 0
    assert all(figures[name] > 0 for name in ("build_s", "cold_s", "resident_mb", "p50_ms"))


@pytest.mark.parametrize("name", peers.SYSTEMS[1:])
def test_a_peer_that_is_installed_finds_each_passage(task, name):
    try:
        peers.versions(name)
    except importlib.metadata.PackageNotFoundError as error:
        pytest.skip(f"{error.name} is not installed: {peers.INSTALL}")
    figures = measured(task, name)
    assert figures["r5"] == 1
    assert figures["r1"] == 1 or not name.endswith("-zh")


def test_a_child_that_fails_is_named_with_its_error(task):
    with pytest.raises(SystemExit, match=r"ask of ours failed"):
        peers.run("ask", "ours", task.with_name("missing.json"), task.parent / "index", 1)


def test_quality_of_a_worked_example():
    right = [[0], [1], [2, 3], [], []]
    found = [[0, 1], [5, 6, 1], [7, 8, 9, 10, 11, 3], [4], []]
    figures = peers.quality(right, found, [True, True, False, True, False])
    assert figures["r1"] == pytest.approx(1 / 3)
    assert figures["r5"] == pytest.approx(2 / 3)
    assert figures["mrr"] == pytest.approx((1 + 1 / 3 + 1 / 6) / 3)
    assert figures["answered"] == pytest.approx(2 / 3)
    assert figures["false"] == pytest.approx(1 / 2)
    assert figures["wrong"] == pytest.approx(2 / 3)


def test_without_questions_that_have_no_answer_no_false_answers_are_told():
    assert "false" not in peers.quality([[0]], [[0]], [True])


def test_what_lies_behind_the_tenth_is_not_found():
    found = [list(range(11))]
    assert peers.quality([[9]], found, [True])["mrr"] == pytest.approx(1 / 10)
    assert peers.quality([[10]], found, [True])["mrr"] == 0


def test_spread_questions_are_all_there_and_the_first_lie_evenly():
    questions = [Asked(str(i), []) for i in range(10)]
    order = [int(q.text) for q in peers.spread(questions, 3)]
    assert order[:3] == [0, 3, 6]
    assert sorted(order) == list(range(10))
    assert [int(q.text) for q in peers.spread(questions, 50)] == list(range(10))


def test_ratios_are_taken_round_by_round():
    ours, theirs = [{"p50_ms": 1.0}, {"p50_ms": 4.0}], [{"p50_ms": 3.0}, {"p50_ms": 8.0}]
    assert peers.ratios(theirs, ours, "p50_ms") == (2.0, 2.5, 3.0)


def test_pairs_overlap_and_other_words_stay_whole():
    cut = re.compile(peers.PAIRS).findall
    assert cut("充值没到 vip2 卡") == ["充值", "值没", "没到", "到", "vip2", "卡"]


def figures(p50_ms, **others):
    known = {"build_s": 1.0, "cold_s": 0.5, "resident_mb": 100.0, "p95_ms": 9.0}
    quality = {"r1": 0.9, "r5": 1.0, "mrr": 0.95, "answered": 0.8, "false": 0.1, "wrong": 0.05}
    return {
        **known,
        **quality,
        "p50_ms": p50_ms,
        "cpu_p50_ms": p50_ms,
        "answer_p50_ms": 2.0,
        **others,
    }


RESULTS = {
    "date": "2026-11-26",
    "machine": "2 CPU cores, x86_64",
    "versions": {"txtai": "9.14.0"},
    "left_out": {"haystack": "haystack-ai is not installed; pip install"},
    "reduced": False,
    "sizes": {"guide": (330, 28)},
    "results": {
        "guide": {
            "ours": [figures(1.0), figures(2.0), figures(1.0)],
            "txtai-zh": [figures(3.0), figures(4.0), figures(5.0)],
        }
    },
    "cuts": [["MaxKB's 0.6", 0.6, 0.25, 0.5]],
}


def test_the_tables_show_medians_bounds_ratios_and_what_was_left_out():
    text = peers.tables(RESULTS)
    assert "Left out: haystack (haystack-ai is not installed; pip install)." in text
    assert "3 rounds: median (least to most)." in text
    assert "### guide: 330 questions, 28 passages" in text
    row = next(line for line in text.splitlines() if line.startswith("| txtai, Chinese"))
    assert "| 4.00 (3.00 to 5.00) |" in row
    assert "| 3.0 (2.0 to 5.0) |" in row
    assert "| txtai, Chinese | 10.0% | 80.0% | 5.0% |" in text
    assert "| a cosine of 0.60 (MaxKB's 0.6) | 25.0% | 50.0% |  |" in text


def test_figures_of_a_reduced_run_say_so():
    mark = "<!-- figures: reduced run -->"
    assert mark in peers.tables({**RESULTS, "reduced": True})
    assert mark not in peers.tables(RESULTS)


def test_the_tables_go_between_the_marks_and_replace_what_was_there(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{peers.BEGIN}\nold\n{peers.END}\nafter\n", "utf-8")
    peers.insert(page, "new")
    assert page.read_text("utf-8") == f"before\n{peers.BEGIN}\nnew\n{peers.END}\nafter\n"
    page.write_text("no marks", "utf-8")
    with pytest.raises(SystemExit, match=r"page\.md has no"):
        peers.insert(page, "new")


def test_figures_that_were_written_are_shown_again_without_measuring(tmp_path, capsys):
    (tmp_path / "figures.json").write_text(json.dumps(RESULTS), "utf-8")
    assert peers.main(["--read", str(tmp_path / "figures.json")]) == 0
    assert capsys.readouterr().out.strip() == peers.tables(RESULTS)


def test_a_system_that_is_not_installed_is_left_out_by_name_and_the_rest_runs(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(peers.Txtai, "packages", ("no-such-package",))
    command = ["--systems", "txtai", "--sets", "cmrc2018_dev", "--training", str(tmp_path)]
    assert peers.main(command) == 0
    shown = capsys.readouterr().out
    assert f"Left out: txtai (no-such-package is not installed; {peers.INSTALL})." in shown
    assert "Left out: cmrc2018_dev (no " in shown


def test_an_unknown_system_is_refused(capsys):
    with pytest.raises(SystemExit):
        peers.main(["--systems", "milvus"])
    assert "milvus is none of" in capsys.readouterr().err


def test_the_plot_has_a_panel_for_each_set(tmp_path):
    pytest.importorskip("matplotlib")
    peers.plot(RESULTS, tmp_path / "plot.svg")
    assert "guide" in (tmp_path / "plot.svg").read_text("utf-8")


def test_every_peer_is_in_the_extra():
    extra = (REPOSITORY / "pyproject.toml").read_text("utf-8").split("peers = [")[1].split("]")[0]
    dependencies = (REPOSITORY / "pyproject.toml").read_text("utf-8").split("optional")[0]
    needed = {package for kind in peers.KINDS.values() for package in kind.packages}
    assert [p for p in sorted(needed) if p not in extra and p not in dependencies] == []
