"""Write an evaluation down: a terminal table, JSON, and one self-contained page with plots."""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from assistant.answer import Language
from assistant.confidence import Curve
from assistant.evaluate import FIGURES, Case, Evaluation
from assistant.metrics import Interval, reliability, risk_coverage
from assistant.questions import FOLDER
from assistant.screen import clean

WORDS = {
    "recall@1": "right passage first",
    "recall@3": "in the top three",
    "recall@5": "in the top five",
    "mrr": "mean reciprocal rank",
    "auroc": "AUROC, answerable or not",
    "auroc_right": "AUROC, first passage right",
    "calibration_error": "expected calibration error",
    "brier": "Brier score",
    "wrong_of_answered": "wrong, of the answered",
    "answered_of_answerable": "answered, of the answerable",
    "answered_of_unanswerable": "answered, of the unanswerable",
    "answerable_of_refused": "answerable, of the refused",
    "refused_of_answerable": "refused, of the answerable",
    "refused_of_unanswerable": "refused, of the unanswerable",
}
Said = Mapping[str, str]
_SHARES = frozenset(name for name in FIGURES if "recall" in name or "_of_" in name)
_COLUMNS = (
    "recall@1",
    "recall@3",
    "auroc",
    "calibration_error",
    "wrong_of_answered",
    "answered_of_answerable",
    "refused_of_answerable",
    "refused_of_unanswerable",
)
_HEADS = ("first", "top 3", "AUROC", "cal. err.", "wrong", "answered", "lost", "refused")
_LEGEND = (
    "wrong: of the answered; answered: of the answerable; lost: refused, of the answerable; "
    "refused: of the unanswerable"
)
_MOST_FAILURES = 40
ENOUGH_LABELLED = 200
"""How many labelled questions are about enough for `answered` verdicts."""


def as_json(evaluation: Evaluation, against: Evaluation | None = None) -> dict[str, Any]:
    """Return plain values for JSON; figures that cannot be told are null."""
    scores, right = _outcomes(evaluation.cases)
    values: dict[str, Any] = _plain(asdict(evaluation))
    values["reliability"] = [asdict(bar) for bar in reliability(scores, right)]
    values["risk_coverage"] = risk_coverage(scores, right)
    if against is not None:
        values["against"] = _plain(asdict(against))
    return values


def text(evaluation: Evaluation, against: Evaluation | None = None) -> str:
    """Return the terminal tables: figures and groups with intervals, plots in numbers, failures."""
    lines = [
        f"index {evaluation.generation}: {len(evaluation.cases)} questions, "
        f"{sum(c.answerable for c in evaluation.cases)} of them answerable; answered at "
        f"{evaluation.answered_cut:.3f}, refused below {evaluation.refused_cut:.3f}",
        "",
    ]
    for name in FIGURES:
        interval = evaluation.figures[name]
        line = f"  {WORDS[name]:32} {_shown(name, interval.value):>7}  {_bounds(name, interval):17}"
        if against is not None:
            before = against.figures[name].value
            line += f"  was {_shown(name, before):>7} in {against.generation}"
        lines.append(line.rstrip())
    lines += ["", *_plots(evaluation.cases), "", *_groups(evaluation)]
    return "\n".join([*lines, "", *_failures(evaluation.cases)])


def _plots(cases: Sequence[Case]) -> list[str]:
    """Write the reliability diagram, and risk by coverage, as rows of numbers."""
    scores, right = _outcomes(cases)
    bars, curve = reliability(scores, right), risk_coverage(scores, right)
    tenths = [
        next(p for p in curve if p[0] >= tenth / 10 - 1e-9) for tenth in range(1, 11) if curve
    ]
    rows = (
        ("confidence", [f"{bar.confidence:.2f}" for bar in bars]),
        ("share right", [f"{bar.right:.2f}" for bar in bars]),
        ("questions", [f"{bar.count}" for bar in bars]),
        ("share answered", [f"{share:.2f}" for share, _ in tenths]),
        ("of it wrong", [f"{wrong:.2f}" for _, wrong in tenths]),
    )
    return [f"  {name:22}" + "".join(f"{cell:>8}" for cell in cells) for name, cells in rows]


def _groups(evaluation: Evaluation) -> list[str]:
    head = "".join(f"{word:>10}" for word in _HEADS)
    lines = [f"  {'language or kind':16}{'asked':>6}{head}"]
    for name, group in evaluation.groups.items():
        figures = [(column, group.figures[column]) for column in _COLUMNS]
        values = "".join(f"{_shown(column, one.value):>10}" for column, one in figures)
        bounds = "".join(f"{_short(column, one):>10}" for column, one in figures)
        lines += [f"  {name:16}{group.questions:>6}{values}", f"  {'':22}{bounds}".rstrip()]
    return [*lines, f"  {_LEGEND}"]


def curve_text(curve: Curve) -> str:
    """Return what a confidence curve was fitted on and how well it fits, cross-fitted."""
    lines = [f"answered from {curve.answered_cut:.3f}, refused below {curve.refused_cut:.3f}"]
    shown = ((name, "-" if v is None else f"{v:.3f}") for name, v in curve.report.items())
    lines += [f"  {name:32} {value:>8}" for name, value in shown]
    return "\n".join([*lines, *reserve_lines(curve)])


def reserve_lines(curve: Curve) -> list[str]:
    """Say that nothing will be `answered`, why, and what helps; nothing where something will."""
    if not curve.reserved:
        return []
    few = curve.labelled < ENOUGH_LABELLED
    cause = (
        f"{curve.labelled} labelled questions so far, some 100 to {ENOUGH_LABELLED} are needed "
        f"({FOLDER}/*.yaml beside the guide), or raise answered_risk"
        if few
        else "no confidence keeps answered_risk; raise it, or mend what fails (assistant evaluate)"
    )
    return [f"nothing will be answered without reserve: {cause}"]


def page(
    evaluation: Evaluation, against: Evaluation | None = None, language: Language = "en"
) -> str:
    """Return the whole evaluation as one HTML page that needs nothing else."""
    cases, said = evaluation.cases, _said(language)
    scores, right = _outcomes(cases)
    figures = "".join(_figure_row(name, evaluation, against, language) for name in FIGURES)
    heads = "".join(f"<th>{said[word]}</th>" for word in _HEADS)
    groups = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{group.questions}</td>"
        + "".join(_cell(column, group.figures[column]) for column in _COLUMNS)
        + "</tr>"
        for name, group in evaluation.groups.items()
    )
    was = f"<th>{html.escape(against.generation)}</th>" if against else ""
    asked = sum(c.answerable for c in cases)
    return _PAGE.format(
        said=said,
        tag="zh-CN" if language == "zh" else "en",
        title=said["title"].format(generation=html.escape(evaluation.generation)),
        lead=said["lead"].format(
            questions=len(cases),
            answerable=asked,
            answered=evaluation.answered_cut,
            refused=evaluation.refused_cut,
        ),
        was=was,
        figures=figures,
        heads=heads,
        groups=groups,
        reliability=_reliability_plot(scores, right, said),
        risk=_risk_plot(scores, right, evaluation.answered_cut, said),
        histogram=_histogram(cases, evaluation, said),
        failures="".join(_failure_row(case, said) for case in cases if case.failed),
    )


def _outcomes(cases: Sequence[Case]) -> tuple[list[float], list[bool]]:
    """Return every confidence, and whether the first passage was right."""
    return [case.confidence for case in cases], [case.right for case in cases]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _shown(name: str, value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{100 * value:.1f} %" if name in _SHARES else f"{value:.3f}"


def _bounds(name: str, interval: Interval) -> str:
    low, high = _shown(name, interval.low), _shown(name, interval.high)
    return "" if "-" in (low, high) else f"({low} to {high})".replace(" % to", " to")


def _short(name: str, interval: Interval) -> str:
    """Write the bounds of an interval where there is little room."""
    if math.isnan(interval.low):
        return ""
    if name in _SHARES:
        return f"{100 * interval.low:.0f}–{100 * interval.high:.0f} %"
    return f"{interval.low:.2f}–{interval.high:.2f}"


def _cell(name: str, interval: Interval) -> str:
    return f"<td>{_shown(name, interval.value)}<br><small>{_short(name, interval)}</small></td>"


def _failures(cases: Sequence[Case]) -> list[str]:
    failed = [case for case in cases if case.failed]
    lines = [f"  {len(failed)} questions fail" + (":" if failed else "")]
    for case in failed[:_MOST_FAILURES]:
        place = _place(case, _said("en"))
        lines.append(
            f"  {case.verdict:10} {case.confidence:.2f}  {clean(case.question.ask)}\n"
            f"             wanted {place}\n             came   {clean(case.found) or 'nothing'}"
        )
    if len(failed) > _MOST_FAILURES:
        lines.append(f"  … and {len(failed) - _MOST_FAILURES} more (see --json or --html)")
    return lines


def _place(case: Case, said: Said) -> str:
    if not case.answerable:
        return said["no answer"]
    names = said["or"].join(reference.partition("#")[2] for reference in case.question.passages)
    found = said["found"].format(rank=case.rank) if case.rank else said["not found"]
    return f"{clean(names)} ({found})"


# --- the page ------------------------------------------------------------------------------------

_SAID: dict[str, dict[Language, str]] = {
    "title": {"en": "Evaluation of {generation}", "zh": "{generation} 的评测"},
    "lead": {
        "en": "{questions} questions, {answerable} answerable; answered from {answered:.3f}, "
        "refused below {refused:.3f}",
        "zh": "{questions} 个问题，其中 {answerable} 个有答案；把握 {answered:.3f} 起直接回答，"
        "低于 {refused:.3f} 不回答",
    },
    "reliability": {
        "en": "Reliability: of the questions with this confidence, the share whose first passage "
        "was right. On the diagonal it says what it knows.",
        "zh": "可靠性：有这样把握的问题里，首段答对的比例。落在对角线上，就是说到做到。",
    },
    "risk": {
        "en": "Risk and coverage: the share of answered questions that is wrong, by how many are "
        "answered. The dashed line is the cut in use.",
        "zh": "风险与覆盖：回答得越多，其中答错的比例。虚线是现在的界限。",
    },
    "histogram": {
        "en": "Confidence of answerable questions (up) and of unanswerable ones (down). Dashed: "
        "the two cuts.",
        "zh": "有答案的问题（向上）和没有答案的问题（向下）得到的把握。虚线是两个界限。",
    },
    "figures": {"en": "Figures", "zh": "指标"},
    "figure": {"en": "figure", "zh": "指标"},
    "value": {"en": "value", "zh": "数值"},
    "interval": {"en": "95 % interval", "zh": "95 % 区间"},
    "groups": {"en": "By language and kind of question", "zh": "按语言和问题种类"},
    "group": {"en": "group", "zh": "分组"},
    "asked": {"en": "asked", "zh": "提问"},
    "legend": {
        "en": _LEGEND,
        "zh": "答错：占已回答的；已回答：占有答案的；漏答：有答案却没有回答的；拒答：占没有答案的",
    },
    "first": {"en": "first", "zh": "首段"},
    "top 3": {"en": "top 3", "zh": "前三"},
    "AUROC": {"en": "AUROC", "zh": "AUROC"},
    "cal. err.": {"en": "cal. err.", "zh": "校准误差"},
    "wrong": {"en": "wrong", "zh": "答错"},
    "answered": {"en": "answered", "zh": "已回答"},
    "lost": {"en": "lost", "zh": "漏答"},
    "refused": {"en": "refused", "zh": "拒答"},
    "uncertain": {"en": "uncertain", "zh": "不确定"},
    "unanswered": {"en": "unanswered", "zh": "未回答"},
    "fail": {"en": "Questions that fail", "zh": "没有答好的问题"},
    "question": {"en": "question", "zh": "问题"},
    "verdict": {"en": "verdict", "zh": "结论"},
    "confidence": {"en": "confidence", "zh": "把握"},
    "wanted": {"en": "wanted", "zh": "应该找到"},
    "came": {"en": "came", "zh": "实际找到"},
    "no answer": {"en": "no answer", "zh": "没有答案"},
    "or": {"en": " or ", "zh": " 或 "},
    "found": {"en": "found at {rank}", "zh": "排在第 {rank}"},
    "not found": {"en": "not found", "zh": "没有找到"},
    "right": {"en": "share that was right", "zh": "答对的比例"},
    "share": {"en": "share answered", "zh": "回答的比例"},
    "share wrong": {"en": "share wrong", "zh": "答错的比例"},
    "count": {"en": "{count} questions", "zh": "{count} 个问题"},
}
_WORDS_ZH = {
    "recall@1": "首段答对",
    "recall@3": "前三段里有",
    "recall@5": "前五段里有",
    "mrr": "平均倒数排名（MRR）",
    "auroc": "AUROC：有没有答案",
    "auroc_right": "AUROC：首段对不对",
    "calibration_error": "校准误差（ECE）",
    "brier": "Brier 分数",
    "wrong_of_answered": "已回答里答错的",
    "answered_of_answerable": "有答案里已回答的",
    "answered_of_unanswerable": "没有答案里却回答的",
    "answerable_of_refused": "拒答里其实有答案的",
    "refused_of_answerable": "有答案里被拒答的",
    "refused_of_unanswerable": "没有答案里拒答的",
}
_PAGE = """<!doctype html>
<html lang="{tag}"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; --ink: #1b2330; --dim: #5c6675; --line: #d5dae2; --page: #fff;
  --good: #1668b8; --bad: #c2410c; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #e6e9ef; --dim: #a2abba; --line: #3a4352;
  --page: #14181f; --good: #6cb2f4; --bad: #fb923c; }} }}
body {{ font: 15px/1.5 system-ui, "Noto Sans CJK SC", sans-serif; color: var(--ink);
  background: var(--page); max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.4rem; margin-bottom: 0; }} h2 {{ font-size: 1.1rem; margin-top: 2rem; }}
p, figcaption {{ color: var(--dim); }} figure {{ margin: 0; }}
.plots {{ display: flex; flex-wrap: wrap; gap: 1.5rem; }}
.plots figure {{ flex: 1 1 19rem; }} figcaption {{ font-size: .85rem; }}
svg {{ width: 100%; height: auto; }} svg text {{ fill: var(--dim); font-size: 11px; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .2rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }}
small {{ color: var(--dim); }}
tbody th, .left {{ text-align: left; font-weight: normal; }}
td:nth-child(2) {{ white-space: nowrap; }}
</style></head><body>
<h1>{title}</h1><p>{lead}</p>
<div class="plots">
<figure>{reliability}<figcaption>{said[reliability]}</figcaption></figure>
<figure>{risk}<figcaption>{said[risk]}</figcaption></figure>
<figure>{histogram}<figcaption>{said[histogram]}</figcaption></figure>
</div>
<h2>{said[figures]}</h2><div class="wide"><table><thead><tr><th class="left">{said[figure]}</th>
<th>{said[value]}</th><th>{said[interval]}</th>{was}</tr></thead><tbody>{figures}</tbody></table></div>
<h2>{said[groups]}</h2><p>{said[legend]}</p><div class="wide"><table><thead><tr>
<th class="left">{said[group]}</th><th>{said[asked]}</th>{heads}</tr></thead><tbody>{groups}</tbody>
</table></div>
<h2>{said[fail]}</h2><div class="wide"><table><thead><tr><th class="left">{said[question]}</th>
<th class="left">{said[verdict]}</th><th>{said[confidence]}</th><th class="left">{said[wanted]}</th>
<th class="left">{said[came]}</th></tr></thead><tbody>{failures}</tbody></table></div>
</body></html>
"""
_WIDTH, _HEIGHT, _MARGIN = 320, 240, 36


def _said(language: Language) -> dict[str, str]:
    """Return what the page says in a language."""
    return {key: words[language] for key, words in _SAID.items()}


def _figure_row(
    name: str, evaluation: Evaluation, against: Evaluation | None, language: Language
) -> str:
    words = WORDS if language == "en" else _WORDS_ZH
    bounds = _bounds(name, evaluation.figures[name])
    interval = evaluation.figures[name]
    before = f"<td>{_shown(name, against.figures[name].value)}</td>" if against else ""
    return (
        f"<tr><th>{words[name]}</th><td>{_shown(name, interval.value)}</td>"
        f"<td>{bounds if language == 'en' else bounds.replace(' to ', '–')}</td>{before}</tr>"
    )


def _failure_row(case: Case, said: Said) -> str:
    verdict, sure = said[case.verdict], f"{case.confidence:.2f}"
    cells = (case.question.ask, verdict, sure, _place(case, said), case.found)
    shown = [html.escape(clean(cell)) for cell in cells]
    left = "".join(
        f"<td{'' if number == 2 else ' class=left'}>{cell}</td>"
        for number, cell in enumerate(shown)
    )
    return f"<tr>{left}</tr>"


def _x(value: float) -> float:
    return _MARGIN + value * (_WIDTH - _MARGIN - 8)


def _y(value: float) -> float:
    return _HEIGHT - _MARGIN - value * (_HEIGHT - _MARGIN - 8)


def _plot(inside: str, across: str, up: str, top: float = 1.0) -> str:
    """Return an SVG with axes from 0 to 1 across and 0 to `top` upwards."""
    ticks = "".join(
        f'<text x="{_x(v):.0f}" y="{_HEIGHT - 20}" text-anchor="middle">{v:g}</text>'
        f'<text x="{_MARGIN - 5}" y="{_y(v) + 4:.0f}" text-anchor="end">{v * top:.2g}</text>'
        for v in (0, 0.25, 0.5, 0.75, 1)
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{across}, {up}">'
        f'<path d="M{_x(0):.0f} {_y(1):.0f}V{_y(0):.0f}H{_x(1):.0f}" fill="none" '
        f'stroke="var(--dim)"/>{ticks}{inside}'
        f'<text x="{_x(0.5):.0f}" y="{_HEIGHT - 5}" text-anchor="middle">{across}</text>'
        f'<text x="{_x(0.02):.0f}" y="{_y(1) + 9:.0f}">{up}</text></svg>'
    )


def _upright(at: float) -> str:
    return (
        f'<path d="M{_x(at):.1f} {_y(0):.0f}V{_y(1):.0f}" stroke="var(--dim)" '
        'stroke-dasharray="4 3"/>'
    )


def _reliability_plot(scores: Sequence[float], right: Sequence[bool], said: Said) -> str:
    bars = reliability(scores, right)
    most = max((b.count for b in bars), default=1)
    dots = "".join(
        f'<circle cx="{_x(b.confidence):.1f}" cy="{_y(b.right):.1f}" '
        f'r="{3 + 7 * math.sqrt(b.count / most):.1f}" fill="var(--good)" fill-opacity=".7">'
        f"<title>{said['count'].format(count=b.count)}: {said['confidence']} {b.confidence:.2f}, "
        f"{said['right']} {b.right:.2f}</title>"
        "</circle>"
        for b in bars
    )
    diagonal = f'<path d="M{_x(0):.0f} {_y(0):.0f}L{_x(1):.0f} {_y(1):.0f}" stroke="var(--line)"/>'
    return _plot(diagonal + dots, said["confidence"], said["right"])


def _risk_plot(scores: Sequence[float], right: Sequence[bool], cut: float, said: Said) -> str:
    curve = risk_coverage(scores, right)
    top = max((risk for _, risk in curve), default=0.0) or 1.0
    path = " ".join(f"{_x(c):.1f},{_y(r / top):.1f}" for c, r in curve)
    line = f'<polyline points="{path}" fill="none" stroke="var(--bad)" stroke-width="2"/>'
    answered = sum(s >= cut for s in scores) / len(scores) if scores else 0.0
    return _plot(line + _upright(answered), said["share"], said["share wrong"], top)


def _histogram(cases: Sequence[Case], evaluation: Evaluation, said: Said, bins: int = 20) -> str:
    counts = {True: [0] * bins, False: [0] * bins}
    for case in cases:
        counts[case.answerable][min(bins - 1, int(case.confidence * bins))] += 1
    most = max(max(counts[True]), max(counts[False])) or 1
    width = (_x(1) - _x(0)) / bins - 1
    bars = "".join(
        f'<rect x="{_x(i / bins):.1f}" y="{_y(0.5 + h / 2) if up else _y(0.5):.1f}" '
        f'width="{width:.1f}" height="{_y(0) - _y(h / 2):.1f}" '
        f'fill="var(--{"good" if up else "bad"})">'
        f"<title>{said['count'].format(count=counts[up][i])}</title></rect>"
        for up in (True, False)
        for i in range(bins)
        if (h := counts[up][i] / most)
    )
    cuts = _upright(evaluation.answered_cut) + _upright(evaluation.refused_cut)
    middle = f'<path d="M{_x(0):.0f} {_y(0.5):.0f}H{_x(1):.0f}" stroke="var(--dim)"/>'
    labels = "".join(
        f'<text x="{_x(v):.0f}" y="{_HEIGHT - 20}" text-anchor="middle">{v:g}</text>'
        for v in (0, 0.25, 0.5, 0.75, 1)
    )
    most_up = f'<text x="{_MARGIN - 5}" y="{_y(1) + 4:.0f}" text-anchor="end">{most}</text>'
    most_down = f'<text x="{_MARGIN - 5}" y="{_y(0) + 4:.0f}" text-anchor="end">{most}</text>'
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{said["histogram"]}">'
        f"{bars}{cuts}{middle}{labels}{most_up}{most_down}"
        f'<text x="{_x(0.5):.0f}" y="{_HEIGHT - 5}" text-anchor="middle">'
        f"{said['confidence']}</text></svg>"
    )
