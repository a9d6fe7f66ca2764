"""The command line: `assistant build / ask / search / evaluate / calibrate / serve / user …`."""

import argparse
import dataclasses
import difflib
import getpass
import os
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, get_args

import orjson

from assistant import generations, report, shards
from assistant.access import Role, add_user, list_users, remove_user
from assistant.build import (
    CONFIDENCE,
    Engine,
    build,
    cut,
    encoded_by,
    look_at,
    one_process,
    open_generation,
    recalibrate,
)
from assistant.cluster import RayEngine
from assistant.confidence import Curve
from assistant.contacts import Contacts, read_contacts
from assistant.desk import Desk
from assistant.embed import Encoder, open_encoder
from assistant.errors import AssistantError, BadInput, IndexUnusable, UsageError
from assistant.evaluate import evaluate
from assistant.handoff import hand_off_without_index
from assistant.load import load_corpus
from assistant.questions import held_out, read_questions
from assistant.records import Answer
from assistant.screen import clean
from assistant.settings import Settings, load_settings
from assistant.terminal import Progress, answer_text, hit_text, report_text, safe

DONE, WITH_WARNINGS = 0, 1


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code, errors as one line on stderr."""
    options = _parser().parse_args(arguments)
    if options.run is not _doctor:  # which tells it among the rest
        _tell(_odd_variables())
    try:
        return int(options.run(options))
    except AssistantError as error:
        print(f"assistant: {safe(str(error))}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        print("assistant: stopped", file=sys.stderr)
        return 130


def _tell(notes: Iterable[str]) -> None:
    for note in notes:
        print(f"assistant: {safe(note)}", file=sys.stderr)


def _odd_variables() -> list[str]:
    """Name the variables of the environment that look like settings and are none."""
    known = [f"ASSISTANT_{name.upper()}" for name in Settings.model_fields]
    notes = []
    for name in sorted(os.environ):
        if name.upper().startswith("ASSISTANT_") and name.upper() not in known:
            close = difflib.get_close_matches(name.upper(), known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            notes.append(f"the variable {name} is no setting and changes nothing{hint}")
    return notes


def _missing_corpus(settings: Settings) -> list[str]:
    """Say when an index answers for a guide whose folder is not there."""
    if settings.corpus.is_dir() or generations.pointer(settings.index) is None:
        return []
    return [f"no corpus folder at {settings.corpus}; what is in {settings.index} answers"]


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

    build = command("build", _build, "build the index from the corpus folder")
    build.add_argument(
        "--force", action="store_true", help="switch even when labelled questions fare worse"
    )
    build.add_argument("--shard", metavar="I/N", help="only embed the I-th of N parts into --out")
    build.add_argument("--out", type=Path, metavar="DIR", help="folder of the shards")
    build.add_argument("--merge", type=Path, metavar="DIR", help="join the shards of a folder")
    build.add_argument("--engine", choices=("ray",), help="encode on a Ray cluster (RAY_ADDRESS)")
    ask = command("ask", _ask, "answer a question")
    ask.add_argument("question", nargs="*", help="the question")
    ask.add_argument("--json", action="store_true", help="print the answer as a JSON object")
    ask.add_argument("--batch", metavar="FILE|-", help="one question a line in, JSON lines out")
    search = command("search", _search, "list the passages found, with raw scores")
    search.add_argument("question", nargs="+", help="what to look for")
    search.add_argument("--top-k", type=int, default=5, metavar="N", help="most passages (5)")
    search.add_argument("--json", action="store_true", help="print the hits as a JSON list")
    evaluate = command("evaluate", _evaluate, "measure the index on labelled questions")
    evaluate.add_argument("--questions", type=Path, metavar="FILE", help="YAML file of questions")
    evaluate.add_argument("--against", metavar="GENERATION", help="compare with another index")
    evaluate.add_argument("--json", type=Path, metavar="FILE", help="write every figure as JSON")
    evaluate.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots")
    command("calibrate", _calibrate, "fit the confidence of the index anew")
    serve = command("serve", _serve, "serve the page")
    serve.add_argument("--host", help="address (127.0.0.1)")
    serve.add_argument("--port", type=int, help="port (7860)")
    serve.add_argument("--workers", type=int, metavar="N", help="processes that serve (1)")
    people = command("user", _list_users, "add, remove or list the people who may sign in")
    actions = people.add_subparsers(metavar="ACTION", required=True)
    add = actions.add_parser("add", help="add a person, or give one a new password and role")
    add.add_argument("name", help="what the person signs in with")
    add.add_argument("--role", choices=get_args(Role), required=True, help="what it may do")
    add.set_defaults(run=_add_user)
    remove = actions.add_parser("remove", help="remove a person and end the sessions")
    remove.add_argument("name", help="whom to remove")
    remove.set_defaults(run=_remove_user)
    actions.add_parser("list", help="list names and roles")
    command("doctor", _doctor, "tell what is installed, which index and model, and what is wrong")
    return parser


def _settings(options: argparse.Namespace) -> Settings:
    names = ("corpus", "index", "model", "host", "port", "workers")
    return load_settings(**{name: getattr(options, name, None) for name in names})


# --- build ---------------------------------------------------------------------------------------


def _build(options: argparse.Namespace) -> int:
    settings = _settings(options)
    if bool(options.shard) != bool(options.out) or (options.shard and options.merge):
        raise UsageError("a part needs both --shard I/N and --out DIR; joining needs --merge DIR")
    encoder = open_encoder(settings)
    engine = one_process(encoder)
    if options.engine == "ray":
        engine = RayEngine(settings, encoder.fingerprint, encoder.dimensions)
    if options.shard:
        return _build_shard(options, settings, encoder, engine)
    source = encoded_by(engine, encoder, settings)
    if options.merge:
        source = shards.joined(options.merge, settings, encoder)
    with Progress() as progress:
        built = build(settings, encoder, progress, options.force, source)
    print(report_text(built))
    return WITH_WARNINGS if built.skipped or built.warnings else DONE


def _build_shard(
    options: argparse.Namespace, settings: Settings, encoder: Encoder, engine: Engine
) -> int:
    shard = shards.parse(options.shard)
    with Progress() as progress:
        made = shards.make(shard, options.out, settings, encoder, engine, progress)
    took = f"made in {made.seconds:.1f} s" if made.seconds is not None else "finished before"
    print(f"shard {shard}: {made.documents:,} documents, {made.views:,} views, {took}")
    return DONE


# --- ask and search ------------------------------------------------------------------------------


def _desk(options: argparse.Namespace) -> Desk:
    settings = _settings(options)
    _tell(_missing_corpus(settings))
    with Progress() as progress:
        desk = Desk.open(settings, progress)
    _tell(desk.notes)
    return desk


def _ask(options: argparse.Namespace) -> int:
    if bool(options.question) == bool(options.batch):
        raise UsageError("give a question, or --batch FILE with one question a line")
    if options.batch:
        return _batch(_desk(options), _lines_of(options.batch))
    question = " ".join(options.question)
    try:
        answer = _desk(options).ask(question)
    except IndexUnusable:
        _show_at_once(question, options)
        raise
    _show(answer, options)
    return DONE


def _show_at_once(question: str, options: argparse.Namespace) -> None:
    """Show what must not wait for an index: a person in distress is told where to turn."""
    settings = _settings(options)
    try:
        contacts = read_contacts(settings.corpus)
    except BadInput:
        contacts = Contacts()
    limit = settings.max_question_chars
    if answer := hand_off_without_index(question, contacts, limit):
        _show(answer, options)


def _show(answer: Answer, options: argparse.Namespace) -> None:
    print(orjson.dumps(answer).decode() if options.json else answer_text(answer), flush=True)


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
    hits = _desk(options).search(" ".join(options.question), options.top_k)
    if options.json:
        print(
            orjson.dumps(
                [{**dataclasses.asdict(h), "similarity": h.similarity} for h in hits]
            ).decode()
        )
    else:
        shown = [hit_text(number, hit) for number, hit in enumerate(hits, 1)]
        print("\n\n".join(shown) or "nothing found")
    return DONE


# --- evaluate and calibrate ----------------------------------------------------------------------


def _evaluate(options: argparse.Namespace) -> int:
    settings = _settings(options)
    encoder = open_encoder(settings)
    asked = options.questions
    questions = read_questions(asked) if asked else held_out(settings.corpus)
    now = generations.current(settings.index).generation
    done = evaluate(*open_generation(now, encoder, settings), questions)
    other = None
    if options.against:
        before = generations.named(settings.index, options.against)
        other = evaluate(*open_generation(before, encoder, settings), questions)
    if options.json:
        _write(options.json, orjson.dumps(report.as_json(done, other), option=orjson.OPT_INDENT_2))
    if options.html:
        _write(options.html, report.page(done, other).encode())
    print(report.text(done, other))
    return DONE


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None


def _calibrate(options: argparse.Namespace) -> int:
    settings = _settings(options)
    print(report.curve_text(recalibrate(settings, open_encoder(settings))))
    return DONE


# --- serve ---------------------------------------------------------------------------------------


def _serve(options: argparse.Namespace) -> int:
    from assistant.web import serve  # gradio takes seconds to import

    settings = _settings(options)
    _tell(_missing_corpus(settings))
    return serve(settings)


# --- user ----------------------------------------------------------------------------------------


def _add_user(options: argparse.Namespace) -> int:
    path = _settings(options).users
    new = add_user(path, options.name, options.role, _asked_password())
    print(f"{options.name} {'may sign in' if new else 'has a new password'} as {options.role}")
    return DONE


def _asked_password() -> str:
    """Ask for a password twice where a person types it; else read it as one line."""
    if not sys.stdin.isatty():
        try:
            return sys.stdin.buffer.readline().decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise BadInput("the password on standard input is no UTF-8 text") from None
    password = getpass.getpass("Password: ")
    if getpass.getpass("The same again: ") != password:
        raise BadInput("the two passwords differ: run the command again")
    return password


def _remove_user(options: argparse.Namespace) -> int:
    remove_user(_settings(options).users, options.name)
    print(f"{options.name} may not sign in any more")
    return DONE


def _list_users(options: argparse.Namespace) -> int:
    for name, role in list_users(_settings(options).users).items():
        print(f"{name}\t{role}")
    return DONE


# --- doctor --------------------------------------------------------------------------------------

_PACKAGES = (
    "faiss-cpu gradio langchain-text-splitters numpy sentence-transformers tantivy torch".split()
)
_EXTRAS = ("pypdf", "python-docx", "mcp", "pymilvus")


def _doctor(options: argparse.Namespace) -> int:
    settings = _settings(options)
    print(f"python {sys.version.split()[0]}")
    for name in (*_PACKAGES, *_EXTRAS):
        print(f"  {name:26} {_installed(name)}")
    for note in _odd_variables():
        print(safe(note))
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
        print(safe(check(settings)))
    except AssistantError as error:
        print(safe(f"PROBLEM: {error}"))
        return error
    return None


def _check_model(settings: Settings) -> str:
    encoder = open_encoder(settings)
    return f"model {settings.model}: {encoder.dimensions} dimensions, {encoder.fingerprint[:12]}"


def _check_corpus(settings: Settings) -> str:
    corpus = load_corpus(settings.corpus, settings)
    warnings = look_at(corpus, cut(corpus, settings), settings)
    lines = [f"corpus {settings.corpus}: {len(corpus.files)} files, {len(corpus.skipped)} skipped"]
    lines += [f"  {one.path}: {one.reason}" for one in corpus.skipped]
    lines += [f"  look at {one.path}: {one.reason}" for one in warnings]
    return "\n".join(lines)


def _check_index(settings: Settings) -> str:
    desk = Desk(settings, open_encoder(settings))
    if desk.notes:
        raise IndexUnusable(" ".join(desk.notes))
    generation = generations.current(settings.index).generation
    manifest = generation.manifest
    lines = [
        f"index {settings.index}: generation {desk.generation} of {manifest.created}, every hash "
        f"checked, {len(desk.index):,} passages, {desk.index.view_count:,} views"
    ]
    lines += [
        f"  {line}" for line in report.reserve_lines(Curve.read(generation.folder / CONFIDENCE))
    ]
    files = load_corpus(settings.corpus, settings).files
    if changed := sorted(set(files.items()) ^ set(manifest.corpus.items())):
        names = ", ".join(dict(changed))
        lines.append(f"  the corpus changed since the build ({names}): run assistant build")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
