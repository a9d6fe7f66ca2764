"""The command line: `assistant build / ask / search / serve / doctor`."""

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import orjson

from assistant import generations
from assistant.answer import language_of
from assistant.build import Report, build
from assistant.desk import Desk
from assistant.embed import open_encoder
from assistant.errors import AssistantError, BadInput, IndexUnusable, UsageError
from assistant.load import load_corpus
from assistant.records import Answer, Handoff, Hit, Quote
from assistant.screen import clean
from assistant.settings import Settings, load_settings

DONE, WITH_WARNINGS = 0, 1
_BAR = 40


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code, errors as one line on stderr."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except AssistantError as error:
        print(f"assistant: {_safe(str(error))}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        print("assistant: stopped", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    places = argparse.ArgumentParser(add_help=False)
    places.add_argument("--corpus", type=Path, metavar="DIR", help="folder of guide files")
    places.add_argument("--index", type=Path, metavar="DIR", help="folder of the built index")
    places.add_argument("--model", metavar="DIR|NAME", help="embedding model")
    parser = argparse.ArgumentParser(
        prog="assistant", description="Answer support questions with exact quotes from your guide."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[Any], int], words: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, parents=[places], help=words, description=words)
        added.set_defaults(run=run)
        return added

    command("build", _build, "build the index from the corpus folder")
    ask = command("ask", _ask, "answer a question")
    ask.add_argument("question", nargs="*", help="the question")
    ask.add_argument("--json", action="store_true", help="print the answer as a JSON object")
    ask.add_argument("--batch", metavar="FILE|-", help="one question a line in, JSON lines out")
    search = command("search", _search, "list the passages found, with raw scores")
    search.add_argument("question", nargs="+", help="what to look for")
    search.add_argument("--top-k", type=int, default=5, metavar="N", help="most passages (5)")
    search.add_argument("--json", action="store_true", help="print the hits as a JSON list")
    serve = command("serve", _serve, "serve the page")
    serve.add_argument("--host", help="address (127.0.0.1)")
    serve.add_argument("--port", type=int, help="port (7860)")
    command("doctor", _doctor, "tell what is installed, which index and model, and what is wrong")
    return parser


def _settings(options: argparse.Namespace) -> Settings:
    names = ("corpus", "index", "model", "host", "port")
    return load_settings(**{name: getattr(options, name, None) for name in names})


# --- build ---------------------------------------------------------------------------------------


def _build(options: argparse.Namespace) -> int:
    with _Progress() as progress:
        report = build(_settings(options), progress=progress)
    print(_report(report))
    return WITH_WARNINGS if report.skipped or report.warnings else DONE


class _Progress:
    """Show the stage and how far it is on stderr; one rewritten line on a terminal."""

    def __init__(self) -> None:
        self._shown = ""
        self._terminal = sys.stderr.isatty()

    def __enter__(self) -> "_Progress":
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


def _report(report: Report) -> str:
    lines = [
        f"index {report.generation} built in {report.seconds:.1f} s",
        f"  files read   {report.files:>8,}",
        f"  sections     {report.sections:>8,}",
        f"  passages     {report.passages:>8,}",
        f"  views        {report.views:>8,}"
        f"   ({report.reused:,} reused, {report.encoded:,} encoded)",
        f"  skipped      {len(report.skipped):>8,}",
    ]
    lines += [f"    {_safe(one.path)}: {_safe(one.reason)}" for one in report.skipped]
    lines += [f"  look at {_safe(one.path)}: {_safe(one.reason)}" for one in report.warnings]
    return "\n".join(lines)


# --- ask and search ------------------------------------------------------------------------------


def _desk(options: argparse.Namespace) -> Desk:
    with _Progress() as progress:
        desk = Desk.open(_settings(options), progress)
    for note in desk.notes:
        print(f"assistant: {_safe(note)}", file=sys.stderr)
    return desk


def _ask(options: argparse.Namespace) -> int:
    if bool(options.question) == bool(options.batch):
        raise UsageError("give a question, or --batch FILE with one question a line")
    if options.batch:
        return _batch(_desk(options), _lines_of(options.batch))
    answer = _desk(options).ask(" ".join(options.question))
    print(orjson.dumps(answer).decode() if options.json else _written(answer))
    return DONE


def _batch(desk: Desk, lines: Iterable[str]) -> int:
    code = DONE
    for line in lines:
        if not line.strip():
            continue
        try:
            print(orjson.dumps(desk.ask(line)).decode())
        except BadInput as error:
            print(orjson.dumps({"question": clean(line)[:200], "error": str(error)}).decode())
            code = error.exit_code
    return code


def _lines_of(name: str) -> Iterable[str]:
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read {name}: {error.strerror}") from None
    return data.decode("utf-8-sig", errors="surrogateescape").split("\n")


def _search(options: argparse.Namespace) -> int:
    hits = _desk(options).search(" ".join(options.question), max(1, options.top_k))
    if options.json:
        print(
            orjson.dumps(
                [{**dataclasses.asdict(h), "similarity": h.similarity} for h in hits]
            ).decode()
        )
    else:
        print(
            "\n\n".join(_hit(number, hit) for number, hit in enumerate(hits, 1)) or "nothing found"
        )
    return DONE


def _hit(number: int, hit: Hit) -> str:
    chunk = hit.chunk
    return _safe(
        f"{number}. {' > '.join(chunk.headings)}  ({chunk.path}:{chunk.start}-{chunk.end})\n"
        f"   score {hit.score:.3f}  similarity {hit.similarity:.3f}  BM25 {hit.lexical:.2f}  "
        f"covers {hit.coverage:.0%} of the words\n{_indent(chunk.text)}"
    )


def _written(answer: Answer) -> str:
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
    return (
        f"{_safe(' > '.join(quote.headings))}  ({_safe(place)})\n{_indent(_safe(_marked(quote)))}"
    )


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
    return _safe("\n".join(lines))


def _indent(text: str) -> str:
    return "\n".join("   " + line for line in text.split("\n"))


def _safe(text: str) -> str:
    """Return text without what could drive a terminal."""
    return clean(text)


# --- serve ---------------------------------------------------------------------------------------


def _serve(options: argparse.Namespace) -> int:
    from assistant.web import serve  # gradio takes seconds to import

    return serve(_settings(options))


# --- doctor --------------------------------------------------------------------------------------

_PACKAGES = (
    "faiss-cpu gradio langchain-text-splitters numpy sentence-transformers tantivy torch".split()
)
_EXTRAS = ("pypdf", "python-docx", "mcp")


def _doctor(options: argparse.Namespace) -> int:
    settings = _settings(options)
    print(f"python {sys.version.split()[0]}")
    for name in (*_PACKAGES, *_EXTRAS):
        print(f"  {name:26} {_installed(name)}")
    problems = [
        problem
        for check in (_check_model, _check_corpus, _check_index)
        if (problem := _checked(check, settings))
    ]
    print("everything is in order" if not problems else f"{len(problems)} to repair, see above")
    return max((problem.exit_code for problem in problems), default=DONE)


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed" + (" (an extra)" if name in _EXTRAS else "")


def _checked(check: Callable[[Settings], str], settings: Settings) -> AssistantError | None:
    try:
        print(_safe(check(settings)))
    except AssistantError as error:
        print(_safe(f"PROBLEM: {error}"))
        return error
    return None


def _check_model(settings: Settings) -> str:
    encoder = open_encoder(settings)
    return f"model {settings.model}: {encoder.dimensions} dimensions, {encoder.fingerprint[:12]}"


def _check_corpus(settings: Settings) -> str:
    corpus = load_corpus(settings.corpus, settings)
    lines = [f"corpus {settings.corpus}: {len(corpus.files)} files, {len(corpus.skipped)} skipped"]
    lines += [f"  {one.path}: {one.reason}" for one in (*corpus.skipped, *corpus.warnings)]
    return "\n".join(lines)


def _check_index(settings: Settings) -> str:
    desk = Desk(settings, open_encoder(settings))
    if desk.notes:
        raise IndexUnusable(" ".join(desk.notes))
    manifest = generations.current(settings.index).generation.manifest
    lines = [
        f"index {settings.index}: generation {desk.generation} of {manifest.created}, every hash "
        f"checked, {len(desk.index):,} passages, {desk.index.view_count:,} views"
    ]
    files = load_corpus(settings.corpus, settings).files
    if changed := sorted(set(files.items()) ^ set(manifest.corpus.items())):
        names = ", ".join(dict(changed))
        lines.append(f"  the corpus changed since the build ({names}): run assistant build")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
