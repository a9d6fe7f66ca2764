"""The one object that wires it: open a `Desk`, ask it, search it, reload it."""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from assistant import generations
from assistant.answer import choose, decide, language_of, message_for, reason_for
from assistant.build import Progress, build, open_generation, require_fit
from assistant.confidence import Curve
from assistant.contacts import CONTACTS, Contacts, read_contacts
from assistant.embed import Encoder, open_encoder
from assistant.errors import BadInput, IndexUnusable, NoIndex, NotInGuide, StoreDown
from assistant.handoff import Case, case_of, hand_off, lead, unsearched, with_steps
from assistant.records import Answer, Document, Handoff, Hit, Quote, Ranking
from assistant.screen import clean, mask_secrets, screen_question
from assistant.search import Index
from assistant.settings import Settings, load_settings
from assistant.store import Rows
from assistant.triage import Triage, small_talk_reply, triage
from assistant.turns import RIGHT_TOGETHER, follows, is_short, is_sure, joined, read_together

NO_DOCUMENT = (
    "现在的指南里没有这个路径（path）的文件。 / The guide in use has no document at this path."
)
"""What is said of a path that is none."""

_NO_SECTION = (
    "查找的范围里没有这个标题（section）。 / What is searched has no heading of this section."
)
_log = logging.getLogger(__name__)
_LONGEST_BEFORE = 500
_UNREAD = (-1, -1)  # the mark of no file: what could not be read is tried again


@dataclass(frozen=True, slots=True)
class _Open:
    """Hold what one generation needs to be asked; replaced as a whole by a reload."""

    id: str
    index: Index
    curve: Curve
    notes: tuple[str, ...]


class Desk:
    """Answer support questions from one guide. Thread-safe; every answer is of one generation."""

    def __init__(self, settings: Settings, encoder: Encoder) -> None:
        """Open the current generation; raise IndexUnusable (or NoIndex) when there is none."""
        self.settings = settings
        self.encoder = encoder
        self._lock = threading.Lock()
        self._pointer = str(settings.index / generations.CURRENT)
        self._stamp = _mark(self._pointer)
        self._open = self._read()
        self.clock: Callable[[], datetime] = lambda: datetime.now(UTC)
        self._list = str(settings.corpus / CONTACTS)
        self._listed = _mark(self._list)
        self._contacts = read_contacts(settings.corpus)
        self._contact_notes: tuple[str, ...] = ()

    @classmethod
    def open(
        cls,
        settings: Settings | None = None,
        progress: Progress | None = None,
        encoder: Encoder | None = None,
    ) -> "Desk":
        """Open the index of the settings, building it first when there is none."""
        settings = load_settings() if settings is None else settings
        if not isinstance(settings, Settings):
            raise TypeError(
                f"Desk.open takes Settings, not {type(settings).__name__}: "
                "Desk.open(load_settings(index=…))"
            )
        encoder = encoder or open_encoder(settings)
        try:
            return cls(settings, encoder)
        except NoIndex:
            build(settings, encoder, progress or (lambda *_: None))
            return cls(settings, encoder)

    @property
    def generation(self) -> str:
        """Return the id of the index in use."""
        return self._open.id

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what an operator should know: fallbacks and their repair."""
        return (*self._open.notes, *self._contact_notes)

    @property
    def index(self) -> Index:
        """Return the index in use."""
        return self._open.index

    @property
    def contacts(self) -> Contacts:
        """Return the operator's list in use."""
        return self._operator()

    def ask(self, question: str, previous: Sequence[str] = ()) -> Answer:
        """Answer a question; `previous` are the questions before it, oldest first.

        What cannot be searched for now is `unanswered`. Raises BadInput, with a sentence to show,
        for an empty or overlong question, and for what is no text.
        """
        started = time.perf_counter()
        asked = screen_question(question, self.settings.max_question_chars)
        masked, _ = mask_secrets(asked)
        # Numbers to be checked are recognised before they are masked; nothing of them is kept.
        if recognised := triage(asked):
            return self._recognised(recognised, masked, started, _before(previous))
        opened, before = self._current(), _before(previous)
        try:
            return self._answer(masked, started, opened, before)
        except IndexUnusable as error:
            _log.error("the search failed: %s", error)
            return self._unsearched(masked, started, opened, before)

    def search(self, question: str, top_k: int = 5, path: str = "", section: str = "") -> list[Hit]:
        """Return the passages found for a question, best first, with raw scores.

        Only those of a document, or below a heading, if named. Raises BadInput, with a sentence to
        show, for a question that `ask` refuses and a `top_k` that is no whole number of 1 or more;
        NotInGuide for a document or heading that there is not.
        """
        asked = screen_question(question, self.settings.max_question_chars)
        if not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1:
            raise BadInput(
                f"top_k 必须是不小于 1 的整数，收到的是 {top_k!r:.40}。 / top_k must be a whole "
                f"number of at least 1, not {top_k!r:.40}."
            )
        index = self._current().index
        within = _passages(index, path, section) if path or section else None
        return list(index.search(asked, min(top_k, len(index)), within=within).hits)

    def document(self, path: str) -> Document | None:
        """Return a document as it was indexed, None when the index has no such path."""
        return self._current().index.document(path)

    def hand_off(self, question: str, previous: Sequence[str] = ()) -> Answer:
        """Hand a question over to a person, as asked, with what was found for it."""
        started = time.perf_counter()
        asked, _ = mask_secrets(screen_question(question, self.settings.max_question_chars))
        return self._recognised(Triage("asked_for_human"), asked, started, _before(previous))

    def reload(self) -> bool:
        """Open the current generation if it is another than the one in use; tell whether it was.

        When the new one cannot be used, the one in use keeps serving and `notes` says why.
        """
        with self._lock:
            self._stamp = _mark(self._pointer)
            try:
                opened = self._read()
            except IndexUnusable as error:
                if isinstance(error, StoreDown):
                    self._stamp = _UNREAD
                _log.error("generation %s stays in use: %s", self._open.id, error)
                self._open = replace(self._open, notes=(str(error),))
                return False
            for note in opened.notes:
                _log.warning("%s", note)
            changed = opened.id != self._open.id
            self._open = opened
            return changed

    def _current(self) -> _Open:
        """Return what to ask, reloaded first when the index folder points elsewhere."""
        if _mark(self._pointer) != self._stamp:
            self.reload()
        return self._open

    def _read(self) -> _Open:
        opened = generations.current(self.settings.index, accept=self._accept)
        index, curve = open_generation(opened.generation, self.encoder, self.settings)
        return _Open(opened.generation.id, index, curve, opened.notes)

    def _accept(self, generation: generations.Generation) -> None:
        """Refuse a generation, or a curve, that was made with another model or other settings."""
        require_fit(generation, self.encoder, self.settings)

    def _answer(self, asked: str, started: float, opened: _Open, before: str) -> Answer:
        ranking, confidence = self._understand(asked, before, opened)
        verdict = decide(confidence, opened.curve.answered_cut, opened.curve.refused_cut)
        quotes = choose(opened.index, ranking, self.settings.top_k)
        reason = reason_for(verdict, ranking)
        language = language_of(asked)
        case = Case(reason, asked, language, quotes, before, opened.id)
        handoff = None if verdict == "answered" else self._handoff(case, opened)
        return Answer(
            question=asked,
            verdict=verdict,
            confidence=confidence,
            message=(lead(case) if handoff else "") or message_for(verdict, language),
            quotes=quotes,
            handoff=handoff,
            generation=opened.id,
            elapsed_ms=(time.perf_counter() - started) * 1000,
        )

    def _unsearched(self, asked: str, started: float, opened: _Open, before: str) -> Answer:
        """Hand over a question that could not be searched for: Milvus is down, or lost rows."""
        case = Case("low_confidence", asked, language_of(asked), (), before, opened.id)
        return Answer(
            question=asked,
            verdict="unanswered",
            confidence=0.0,
            message=unsearched(case.language),
            quotes=(),
            handoff=self._handoff(case, opened),
            generation=opened.id,
            elapsed_ms=(time.perf_counter() - started) * 1000,
        )

    def _understand(self, asked: str, before: str, opened: _Open) -> tuple[Ranking, float]:
        """Return what a question finds, read with the turn before it when it leans on that.

        The second value is the probability that the first passage found answers it.
        """
        index, curve, depth = opened.index, opened.curve, self.settings.top_k
        if before:  # what both turns find is ordered by what each found
            depth = max(depth, 5)
        alone = index.search(asked, depth)
        confidence = curve.probability(alone)
        if not before or confidence >= curve.answered_cut or not is_short(asked):
            return alone, confidence
        together, read = index.search(joined(before, asked), depth), index.search(before, 1)
        if not follows(asked, alone, together, read):
            return alone, confidence
        ranking = read_together(asked, alone, together, read)
        if not is_sure(asked, together, read):
            return ranking, confidence
        return ranking, curve.probability(ranking) * RIGHT_TOGETHER

    def _recognised(self, recognised: Triage, asked: str, started: float, before: str) -> Answer:
        """Answer what triage recognised, whatever the confidence and whatever is broken."""
        opened = self._usable()
        case = case_of(recognised, asked, self._operator())
        message, handoff, confidence = small_talk_reply(asked, case.language), None, 0.0
        if recognised.kind != "small_talk":
            case = replace(case, previous=before, generation=opened.id if opened else "")
            case, confidence = self._found(case, opened)
            message, handoff = lead(case), self._handoff(case, opened)
        return Answer(
            question=asked,
            verdict="uncertain" if case.quotes else "unanswered",
            confidence=confidence,
            message=message,
            quotes=case.quotes,
            handoff=handoff,
            generation=self._open.id,
            elapsed_ms=(time.perf_counter() - started) * 1000,
        )

    def _usable(self) -> _Open | None:
        """Return what to ask, None when not even that can be told."""
        try:
            return self._current()
        except Exception:  # a person in distress gets the handoff whatever is broken
            _log.exception("the index cannot be told; answering without it")
            return None

    def _found(self, case: Case, opened: _Open | None) -> tuple[Case, float]:
        """Return a case with its quotes, and the confidence; as it is when the search is broken.

        What is most likely no answer is left out: beside an urgent word it would be taken for one.
        """
        if opened is None:
            return case, 0.0
        found: tuple[Quote, ...] = ()
        confidence = 0.0
        try:
            ranking = opened.index.search(case.question, self.settings.top_k)
            confidence = opened.curve.probability(ranking)
            if confidence >= opened.curve.refused_cut:
                found = choose(opened.index, ranking, self.settings.top_k)
        except Exception:
            _log.exception("the search failed; answering without it")
        case = with_steps(case, found, self._operator(), opened.index)
        case = replace(case, quotes=case.quotes[: self.settings.top_k])
        return case, confidence if case.quotes else 0.0

    def _handoff(self, case: Case, opened: _Open | None) -> Handoff:
        return hand_off(case, self._operator(), opened.index if opened else None, self.clock())

    def _operator(self) -> Contacts:
        """Return the operator's list, read again when its file changed; a bad one is not taken."""
        if (mark := _mark(self._list)) != self._listed:
            self._listed = mark
            try:
                self._contacts = read_contacts(self.settings.corpus)
                self._contact_notes = ()
            except BadInput as error:
                _log.error("the contacts read before stay in use: %s", error)
                self._contact_notes = (f"{error}. The contacts read before stay in use.",)
        return self._contacts


def _passages(index: Index, path: str, section: str) -> Rows:
    """Return the passages of a document, or below a heading; raise NotInGuide for what is none."""
    if path and index.document(path) is None:
        raise NotInGuide(NO_DOCUMENT)
    rows = index.passages(path, section)
    if section and not len(rows):
        raise NotInGuide(_NO_SECTION)
    return rows


def _before(previous: Sequence[str]) -> str:
    """Return the question of the turn before, secrets masked, "" when there was none."""
    return mask_secrets(clean(previous[-1]).strip())[0][:_LONGEST_BEFORE] if previous else ""


def _mark(path: str) -> tuple[int, int]:
    """Return a cheap mark of a file that changes when it is written or replaced."""
    try:
        status = os.stat(path)
    except OSError:
        return (0, 0)
    return (status.st_ino, status.st_mtime_ns)
