"""Write for a terminal: progress, reports, hits and answers as plain text."""

import sys
from collections.abc import Sequence

from assistant.answer import language_of
from assistant.build import Report
from assistant.records import Answer, Handoff, Hit, Quote, Skipped
from assistant.report import reserve_lines
from assistant.screen import clean

_BAR = 40
_MOST_LISTED = 40


def safe(text: str) -> str:
    """Return text without what could drive a terminal."""
    return clean(text)


class Progress:
    """Show the stage and how far it is on stderr; one rewritten line on a terminal."""

    def __init__(self) -> None:
        self._shown = ""
        self._terminal = sys.stderr.isatty()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal and self._shown:
            print("\r\033[K", end="", file=sys.stderr)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show one step."""
        if self._terminal:
            filled = _BAR * done // total if total else 0
            bar = f"[{'#' * filled}{'.' * (_BAR - filled)}] {done:,}/{total:,}" if total else ""
            self._shown = f"{stage:10} {bar or (f'{done:,}' if done else '')}"
            print(f"\r\033[K{self._shown}", end="", file=sys.stderr, flush=True)
        elif stage != self._shown:
            self._shown = stage
            print(f"{stage} ...", file=sys.stderr, flush=True)


def report_text(report: Report) -> str:
    """Write what a build did."""
    lines = [
        f"index {report.generation} built in {report.seconds:.1f} s",
        f"  files read   {report.files:>8,}",
        f"  sections     {report.sections:>8,}",
        f"  passages     {report.passages:>8,}",
        f"  views        {report.views:>8,}"
        f"   ({report.reused:,} reused, {report.encoded:,} encoded)",
        f"  skipped      {len(report.skipped):>8,}",
    ]
    lines += [f"    {one}" for one in _listed(report.skipped)]
    lines += [f"  look at {one}" for one in _listed(report.warnings)]
    lines += [f"  {line}" for line in reserve_lines(report.curve)]
    return "\n".join(lines)


def _listed(files: Sequence[Skipped]) -> list[str]:
    lines = [safe(f"{one.path}: {one.reason}") for one in files[:_MOST_LISTED]]
    if more := len(files) - len(lines):
        lines.append(f"{more:,} more files; all of them: assistant doctor")
    return lines


def hit_text(number: int, hit: Hit) -> str:
    """Write a found passage with its raw scores."""
    chunk = hit.chunk
    return safe(
        f"{number}. {' > '.join(chunk.headings)}  ({chunk.path}:{chunk.start}-{chunk.end})\n"
        f"   score {hit.score:.3f}  similarity {hit.similarity:.3f}  BM25 {hit.lexical:.2f}  "
        f"covers {hit.coverage:.0%} of the words\n{_indent(chunk.text)}"
    )


def answer_text(answer: Answer) -> str:
    """Write an answer: message, quotes with their places, handoff."""
    chinese = language_of(answer.question) == "zh"
    verdicts = {
        "answered": "有答案" if chinese else "answered",
        "uncertain": "不确定" if chinese else "not certain",
        "unanswered": "没有答案" if chinese else "not answered",
    }
    sure = "把握" if chinese else "confidence"
    lines = [answer.message]
    if answer.quotes or answer.handoff:
        lines[0] += f"  [{verdicts[answer.verdict]}, {sure} {answer.confidence:.0%}]"
    lines += [_quote(quote) for quote in answer.quotes]
    if answer.handoff:
        lines.append(_handoff(answer.handoff, chinese))
    return "\n\n".join(lines)


def _quote(quote: Quote) -> str:
    place = f"{quote.path}:{quote.start}-{quote.end}"
    return f"{safe(' > '.join(quote.headings))}  ({safe(place)})\n{_indent(safe(_marked(quote)))}"


def _marked(quote: Quote) -> str:
    """Set the answering sentences off with » « so that plain terminals show them too."""
    text = quote.text
    for begin, end in reversed(quote.highlights):
        text = f"{text[:begin]}»{text[begin:end]}«{text[end:]}"
    return text


def _handoff(handoff: Handoff, chinese: bool) -> str:
    nowhere = "见官方应用或官网" if chinese else "see the official app or website"
    lines = [handoff.message]
    lines += [f"  - {channel.name}: {channel.contact or nowhere}" for channel in handoff.channels]
    if handoff.checklist:
        items = [item.item for item in handoff.checklist]
        lines.append(
            "  请准备: " + "、".join(items) if chinese else "  Have ready: " + ", ".join(items)
        )
    return safe("\n".join(lines))


def _indent(text: str) -> str:
    return "\n".join("   " + line for line in text.split("\n"))
