"""The maintainers' pages: the index and its guide, its quality, its gaps, and what to add."""

import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from itertools import chain, groupby
from pathlib import Path
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from assistant import generations, report
from assistant.access import Person
from assistant.answer import Language
from assistant.build import Progress, Report, build, open_generation, require_fit, roll_back
from assistant.errors import AssistantError, BadInput, BuildBusy, IndexUnusable
from assistant.evaluate import evaluate
from assistant.fold import fold
from assistant.frontdesk import FrontDesk
from assistant.gaps import Gap, as_csv, clusters, references
from assistant.history import NotFound, Proposal, Taken
from assistant.proposals import (
    FILE,
    Review,
    accept,
    accepted_file,
    proposal_of,
    questions_of,
    refuse,
    review,
    standing,
)
from assistant.questions import FOLDER, held_out
from assistant.records import Chunk, View
from assistant.search import Index
from assistant.stock import Shelved, Stock
from assistant.web.login import needs, person_of
from assistant.web.maintain_words import ago, origin, reason, words
from assistant.web.office import language_of, office
from assistant.web.rebuild import Job, Run, changes
from assistant.web.wording import half

DAYS = (7, 30, 90, 365)
_PASSAGES_A_PAGE = 100
_MOST_GAPS = 100
_MOST_TURNS = 5000
_MOST_REFERENCES = 2000
_MOST_DECIDED = 50
_MOST_QUESTIONS = 50

_FRAMED = {  # the report brings its style along and runs nothing
    "content-security-policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; "
    "img-src data:; frame-ancestors 'self'",
    "x-frame-options": "SAMEORIGIN",
    "cache-control": "no-store",
}

Maintainer = Annotated[Person, Depends(needs("maintainer"))]


async def _fields(request: Request) -> dict[str, str]:
    """Return the texts of a form."""
    return {name: value for name, value in (await request.form()).items() if isinstance(value, str)}


Fields = Annotated[dict[str, str], Depends(_fields)]


class _Route(APIRoute):
    """Answer what a maintainer can put right with a page that says it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the route's handler, its refusals put into words."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except AssistantError as error:
                person, language = person_of(request), language_of(request)
                said = half(str(error), language)
                return _page("maintain_trouble", request, person, _status(error), said=said)

        return handled


def _status(error: AssistantError) -> int:
    kinds = ((NotFound, 404), ((Taken, BuildBusy), 409), (BadInput, 422))
    return next((status for kind, status in kinds if isinstance(error, kind)), 503)


def _page(
    name: str, request: Request, person: Person | None, status: int = 200, **values: object
) -> HTMLResponse:
    """Return one of our pages, in our words."""
    language = language_of(request)
    given = {
        "say": partial(words, language),
        "half": partial(half, language=language),
        "ago": lambda at: ago(datetime.now(UTC) - at, language),
        "origin_of": partial(origin, language=language),
        "clock": _clock,
        "reason_of": partial(reason, language=language),
        "stamp": int(time.time()),
    }
    return office(f"{name}.html", request, person, status, **given, **values)


def _clock(at: datetime | None) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC") if at else "-"


def _to(address: str) -> RedirectResponse:
    return RedirectResponse(address, 303)


def maintain_routes(front: FrontDesk) -> APIRouter:
    """Return the routes below `/maintain`; their builds are broken off when the server ends."""
    room = _Room(front)

    @contextlib.asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        yield
        room.close()

    router = APIRouter(
        prefix="/maintain", route_class=_Route, lifespan=lifespan, include_in_schema=False
    )
    for path, show in (
        ("", room.index),
        ("/rollback", room.confirm_rollback),
        ("/passages", room.passages),
        ("/report", room.report),
        ("/report/page", room.report_page),
        ("/gaps", room.gaps),
        ("/gaps.csv", room.gaps_csv),
        ("/proposals", room.proposals),
        ("/proposals/new", room.new_proposal),
        ("/export", room.export),
    ):
        router.add_api_route(path, show, methods=["GET"], response_model=None)
    for path, act in (
        ("/verify", room.verify),
        ("/rebuild", room.rebuild),
        ("/rollback", room.roll_back),
        ("/report", room.measure),
        ("/proposals", room.propose),
        ("/proposals/{number}/accept", room.accept),
        ("/proposals/{number}/refuse", room.refuse),
    ):
        router.add_api_route(path, act, methods=["POST"], response_model=None)
    for path, told in (
        ("/rebuild/events", room.rebuild_events),
        ("/report/events", room.measuring_events),
    ):
        router.add_api_route(path, told, methods=["GET"], response_class=EventSourceResponse)
    router.add_api_route("/{rest:path}", _nothing, methods=["GET"], response_model=None)
    return router


def _nothing(person: Maintainer, rest: str) -> Response:
    """Turn away what leads nowhere below `/maintain`, and put right what only ends in a slash."""
    if rest:
        raise NotFound("没有这个页面。 / There is no such page.")
    return _to("/maintain")


@dataclass(frozen=True, slots=True)
class Piece:
    """Hold a stretch of a document: the text before a passage, and the passage with its views."""

    number: int
    before: str
    chunk: Chunk
    views: tuple[View, ...]


class _Room:
    """Hold what the pages share: the desk, what is known of its stock, and the work at hand."""

    def __init__(self, front: FrontDesk) -> None:
        self.front, self.settings = front, front.settings
        self.stock = Stock(front.settings)
        self.building: Job[Report] = Job()
        self.measuring: Job[str] = Job()

    def close(self) -> None:
        """End the work at hand."""
        self.building.close()
        self.measuring.close(0)  # it leaves nothing half done

    # --- The index ------------------------------------------------------------------------------

    def index(self, request: Request, person: Maintainer) -> Response:
        """Show how the index stands."""
        shelf = self.stock.generations()
        used = next((one for one in shelf if one.id == self.front.desk.generation), None)
        manifest = used.generation.manifest if used and used.generation else None
        return _page(
            "maintain_index",
            request,
            person,
            shelf=shelf,
            used=used,
            manifest=manifest,
            sections=self._sections(),
            changes=self.stock.changes(manifest) if manifest else None,
            notes=self.front.notes,
            run=self.building.run,
            current=self.front.desk.generation,
            labels=self.settings.corpus / FOLDER,
            enough=report.ENOUGH_LABELLED,
            earlier=self._earlier(shelf),
        )

    def verify(self, person: Maintainer) -> Response:
        """Check every hash anew."""
        self.stock.verify()
        return _to("/maintain#generations")

    def _sections(self) -> int:
        """Return the number of sections of the index in use."""
        index = self.front.desk.index
        places = ((chunk.path, chunk.headings) for chunk in index.chunks())
        return self.stock.once("sections", index.folder, lambda: sum(1 for _ in groupby(places)))

    # --- Building -------------------------------------------------------------------------------

    def rebuild(self, fields: Fields, person: Maintainer) -> Response:
        """Begin a build; one that is at work goes on instead."""
        force = fields.get("force") == "1"
        self.building.start(partial(self._build, force), person.name)
        return _to("/maintain#run")

    async def rebuild_events(
        self, request: Request, person: Maintainer
    ) -> AsyncIterator[ServerSentEvent]:
        """Tell how the build goes."""

        def shown(run: Run[Any]) -> HTMLResponse:
            current = self.front.desk.generation
            return _page("_maintain_build", request, person, run=run, current=current)

        async for event in _told(self.building, shown):
            yield event

    def _build(self, force: bool, progress: Progress) -> Report:
        built = build(self.settings, self.front.desk.encoder, progress, force)
        self.front.desk.reload()
        return built

    # --- Rolling back ---------------------------------------------------------------------------

    def confirm_rollback(self, request: Request, person: Maintainer) -> Response:
        """Ask whether to go back, and to what."""
        earlier = self._earlier(self.stock.generations())
        now = self.front.desk.generation
        return _page("maintain_rollback", request, person, earlier=earlier, now=now)

    def roll_back(self, person: Maintainer) -> Response:
        """Go back to the newest whole generation before the one in use."""
        if (earlier := self._earlier(self.stock.generations())) and earlier.generation:
            require_fit(earlier.generation, self.front.desk.encoder, self.settings)
        roll_back(self.settings)
        self.front.desk.reload()
        return _to("/maintain#generations")

    def _earlier(self, shelf: Sequence[Shelved]) -> Shelved | None:
        """Return the generation that a roll back would lead to."""
        now = generations.pointer(self.settings.index)
        ids = [one.id for one in shelf]
        older = shelf[ids.index(now) + 1 :] if now in ids else shelf
        return next((one for one in older if one.generation), None)

    # --- Passages -------------------------------------------------------------------------------

    def passages(
        self, request: Request, person: Maintainer, path: str = "", first: int = 1
    ) -> Response:
        """Show a document next to the passages that it was cut into."""
        index = self.front.desk.index
        paths = self.stock.once(
            "paths", index.folder, lambda: [document.path for document in index.documents()]
        )
        path = path or next(iter(paths), "")
        document = index.document(path)
        rows = [row for row, chunk in enumerate(index.chunks()) if chunk.path == path]
        first = first if 1 <= first <= len(rows) else 1
        shown = rows[first - 1 : first - 1 + _PASSAGES_A_PAGE]
        pieces = _pieces(index, rows, first, shown) if document else []
        ends = document and pieces and first - 1 + len(shown) == len(rows)
        return _page(
            "maintain_passages",
            request,
            person,
            200 if document else 404,
            paths=paths,
            here=path,
            document=document,
            pieces=pieces,
            rest=document.text[pieces[-1].chunk.end :] if document and ends else "",
            count=len(rows),
            first=first,
            size=_PASSAGES_A_PAGE,
        )

    # --- The report -----------------------------------------------------------------------------

    def report(self, request: Request, person: Maintainer, days: int = 30) -> Response:
        """Show the quality over time, and the last evaluation."""
        kept = self._report_file(language_of(request))
        page = _page(
            "maintain_report",
            request,
            person,
            run=self.measuring.run,
            folder=self.settings.corpus / FOLDER,
            shelf=self.stock.generations(),
            current=self.front.desk.generation,
            written=datetime.fromtimestamp(kept.stat().st_mtime, UTC) if kept.exists() else None,
            days=self.front.history.days(_days(days)),
            chosen=_days(days),
            choices=DAYS,
        )
        page.headers["content-security-policy"] += "; frame-src 'self'"
        return page

    def report_page(self, request: Request, person: Maintainer) -> Response:
        """Give the last evaluation as it was written."""
        kept = self._report_file(language_of(request))
        try:
            return Response(kept.read_bytes(), 200, _FRAMED, "text/html")
        except OSError:
            raise NotFound("还没有报告。 / There is no report yet.") from None

    def measure(self, fields: Fields, person: Maintainer) -> Response:
        """Begin an evaluation; one that is at work goes on instead."""
        against = fields.get("against", "")
        self.measuring.start(partial(self._measure, against), person.name)
        return _to("/maintain/report#run")

    async def measuring_events(
        self, request: Request, person: Maintainer
    ) -> AsyncIterator[ServerSentEvent]:
        """Tell how the evaluation goes."""

        def shown(run: Run[Any]) -> HTMLResponse:
            return _page("_maintain_measure", request, person, run=run)

        async for event in _told(self.measuring, shown):
            yield event

    def _measure(self, against: str, progress: Progress) -> str:
        questions = held_out(self.settings.corpus)
        opened = partial(open_generation, encoder=self.front.desk.encoder, settings=self.settings)
        progress("ask", len(questions), 0)
        now = generations.current(self.settings.index).generation
        done, other = evaluate(*opened(now), questions), None
        chosen = next((one for one in self.stock.generations() if one.id == against), None)
        if chosen and chosen.generation:
            progress("against", len(questions), 0)
            other = evaluate(*opened(chosen.generation), questions)
        progress("report", 0, 0)
        for language in get_args(Language):
            _write(self._report_file(language), report.page(done, other, language))
        return now.id

    def _report_file(self, language: Language) -> Path:
        return self.settings.users.parent / f"evaluation-{language}.html"

    # --- Gaps -----------------------------------------------------------------------------------

    def gaps(self, request: Request, person: Maintainer, days: int = 30) -> Response:
        """Show what was asked and not answered, gathered by meaning."""
        found, turns = self._gaps(_days(days))
        return _page(
            "maintain_gaps",
            request,
            person,
            gaps=[(_key(gap), gap) for gap in found[:_MOST_GAPS]],
            known=self._known(),
            count=len(found),
            turns=turns,
            most=_MOST_GAPS,
            chosen=_days(days),
            choices=DAYS,
        )

    def gaps_csv(self, person: Maintainer, days: int = 30) -> Response:
        """Give the gaps as a file that a spreadsheet opens."""
        found, _ = self._gaps(_days(days))
        return Response(
            as_csv(found).encode("utf-8-sig"), 200, _attached("gaps.csv"), "text/csv; charset=utf-8"
        )

    def _gaps(self, days: int) -> tuple[list[Gap], int]:
        turns = self.front.history.gaps(days, _MOST_TURNS)
        desk = self.front.desk
        marks = "\n".join(f"{t.id} {t.vote}" for t in turns)
        key = (desk.generation, days, sha256(marks.encode()).digest())
        found = self.stock.once("gaps", key, lambda: clusters(turns, desk.index, desk.encoder))
        return found, len(turns)

    # --- Proposals ------------------------------------------------------------------------------

    def proposals(self, request: Request, person: Maintainer) -> Response:
        """Show what is to be decided, and what was."""
        every = self.front.history.proposals()
        new = [one for one in every if one.state == "new"]
        accepted = [one for one in every if one.state == "accepted"][:_MOST_DECIDED]
        return _page(
            "maintain_proposals",
            request,
            person,
            file=self.settings.corpus / FILE,
            new=list(zip(new, self._reviews(new), strict=True)),
            accepted=self._standing(accepted),
            refused=[one for one in every if one.state == "refused"][:_MOST_DECIDED],
        )

    def _reviews(self, new: Sequence[Proposal]) -> list[Review]:
        key = (self.stock.signature(), *new)
        return self.stock.once("reviews", key, lambda: review(new, self.settings))

    def _known(self) -> frozenset[str]:
        """Return every question that the index in use has from Q&A files."""
        index = self.front.desk.index
        return self.stock.once("questions", index.folder, lambda: questions_of(index))

    def _standing(self, accepted: Sequence[Proposal]) -> list[tuple[Proposal, str]]:
        questions = self._known()
        shelf = {one.id: one.generation for one in self.stock.generations()}
        used = shelf.get(self.front.desk.generation)
        built = used.manifest.corpus.get(FILE, "") if used else ""
        data = accepted_file(self.settings)
        return [(one, standing(one, data, questions, built)) for one in accepted]

    def new_proposal(
        self,
        request: Request,
        person: Maintainer,
        gap: str = "",
        days: int = 30,
        of: int = 0,
        passage: str = "",
    ) -> Response:
        """Show the form of a Q&A entry, filled in from a gap, a proposal or a passage."""
        questions: Sequence[str] = ()
        answer = ""
        gaps = self._gaps(_days(days))[0] if gap else []
        found = next((one for one in gaps if _key(one) == gap), None)
        if found:
            questions, passage = found.questions, self._likely(found)
        elif of:
            old = proposal_of(self.front.history, of)
            questions, passage, answer = old.questions, old.passage, old.answer
        return self._form(
            request,
            person,
            questions="\n".join(questions),
            passage=passage,
            answer=answer,
            origin="gap" if found else "maintainer",
            trouble="entry_gone" if gap and not found else "",
        )

    def _likely(self, gap: Gap) -> str:
        """Return the passage nearest to a gap, "" where the desk would not show it either."""
        answer = self.front.desk.ask(gap.questions[0])
        return gap.reference if answer.verdict != "unanswered" else ""

    def propose(self, request: Request, fields: Fields, person: Maintainer) -> Response:
        """Keep an entry as a proposal, and accept it where that was asked for."""
        lines = fields.get("questions", "").splitlines()
        questions = [words for line in lines if (words := line.strip())][:_MOST_QUESTIONS]
        passage, answer = fields.get("passage", "").strip(), fields.get("answer", "").strip()
        origin = "gap" if fields.get("origin") == "gap" else "maintainer"
        if not questions or bool(passage) == bool(answer):
            return self._form(
                request,
                person,
                422,
                questions="\n".join(questions),
                passage=passage,
                answer=answer,
                origin=origin,
                trouble="entry_both" if passage and answer else "entry_one_of",
            )
        made = self.front.history.propose(questions, passage, answer, person.name, origin)
        if fields.get("then") == "accept":
            try:
                accept(self.front.history, made.id, self.settings, person.name)
            except BadInput:  # the list says why, beside the proposal that is kept
                if not review([made], self.settings)[0].problem:
                    raise
        return _to(f"/maintain/proposals#proposal-{made.id}")

    def accept(self, number: int, fields: Fields, person: Maintainer) -> Response:
        """Take a proposal into the guide."""
        accept(self.front.history, number, self.settings, person.name, fields.get("note", ""))
        return _to(f"/maintain/proposals#proposal-{number}")

    def refuse(self, number: int, fields: Fields, person: Maintainer) -> Response:
        """Turn a proposal down."""
        refuse(self.front.history, number, self.settings, person.name, fields.get("note", ""))
        return _to(f"/maintain/proposals#proposal-{number}")

    def _form(
        self, request: Request, person: Person, status: int = 200, **values: object
    ) -> Response:
        index = self.front.desk.index
        known = self.stock.once(
            "references", index.folder, lambda: list(dict.fromkeys(references(index)))
        )
        listed = known[:_MOST_REFERENCES]
        return _page("maintain_entry", request, person, status, references=listed, **values)

    # --- Export ---------------------------------------------------------------------------------

    def export(self, person: Maintainer) -> Response:
        """Give every conversation, a JSON record a line."""
        records = self.front.history.export()
        first = next(records, None)  # whatever is wrong is told by a page, and not in the file
        lines = (one.rstrip("\n") + "\n" for one in chain([first] if first else [], records))
        headers = _attached("conversations.jsonl")
        return StreamingResponse(lines, 200, headers, "application/x-ndjson")


async def _told(
    job: Job[Any], shown: Callable[[Run[Any]], HTMLResponse]
) -> AsyncIterator[ServerSentEvent]:
    """Tell a run as the part of the page that shows it."""
    async for run in changes(job):
        yield ServerSentEvent(raw_data=bytes(shown(run).body).decode(), event="run")
    yield ServerSentEvent(raw_data="", event="end")


def _pieces(index: Index, rows: Sequence[int], first: int, shown: Sequence[int]) -> list[Piece]:
    """Return passages with the text before each of them."""
    document = index.document(index.chunk(shown[0]).path) if shown else None
    if document is None:
        return []
    end = index.chunk(rows[first - 2]).end if first > 1 else 0
    pieces = []
    for number, row in enumerate(shown, first):
        chunk = index.chunk(row)
        before = document.text[end : chunk.start]
        pieces.append(Piece(number, before, chunk, tuple(index.views(row))))
        end = chunk.end
    return pieces


def _days(days: int) -> int:
    return min(max(days, 1), max(DAYS))


def _key(gap: Gap) -> str:
    """Return what names a gap in an address."""
    return sha256(fold(gap.questions[0]).encode()).hexdigest()[:16]


def _attached(name: str) -> Mapping[str, str]:
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return {**headers, "cache-control": "no-store"}


def _write(path: Path, text: str) -> None:
    """Replace a file as a whole."""
    draft = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft.write_text(text, "utf-8")
        os.replace(draft, path)
    except OSError as error:
        raise IndexUnusable(f"the report cannot be written: {error.strerror}") from None
