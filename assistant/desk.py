"""The one object that wires it: open a `Desk`, ask it, search it, reload it."""

import logging
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from assistant import generations
from assistant.answer import choose, decide, language_of, message_for
from assistant.build import Progress, build, open_generation, require_fit
from assistant.confidence import Curve
from assistant.embed import Encoder, open_encoder
from assistant.errors import IndexUnusable, NoIndex
from assistant.handoff import hand_off, read_contacts
from assistant.records import Answer, Document, Hit, Quote, Reason, Verdict
from assistant.screen import mask_secrets, screen_question
from assistant.search import Index
from assistant.settings import Settings, load_settings
from assistant.triage import small_talk_reply, triage

_log = logging.getLogger(__name__)


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
        self._stamp = _stamp(settings.index)
        self._open = self._read()
        self._contacts = read_contacts(settings.corpus)

    @classmethod
    def open(cls, settings: Settings | None = None, progress: Progress | None = None) -> "Desk":
        """Open the index of the settings, building it first when there is none."""
        settings = settings or load_settings()
        encoder = open_encoder(settings)
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
        return self._open.notes

    @property
    def index(self) -> Index:
        """Return the index in use."""
        return self._open.index

    def ask(self, question: str, previous: Sequence[str] = ()) -> Answer:
        """Answer a question; `previous` are the questions before it, oldest first.

        Raises BadInput, with a sentence to show, for an empty or overlong question.
        """
        started = time.perf_counter()
        asked, _ = mask_secrets(screen_question(question, self.settings.max_question_chars))
        opened = self._current()
        return self._answer(asked, started, opened)

    def search(self, question: str, top_k: int = 5) -> list[Hit]:
        """Return the passages found for a question, best first, with raw scores."""
        asked = screen_question(question, self.settings.max_question_chars)
        return list(self._current().index.search(asked, top_k).hits)

    def document(self, path: str) -> Document | None:
        """Return a document as it was indexed, None when the index has no such path."""
        return self._current().index.document(path)

    def hand_off(self, question: str, previous: Sequence[str] = ()) -> Answer:
        """Hand a question over to a person, as asked, with what was found for it."""
        started = time.perf_counter()
        asked, _ = mask_secrets(screen_question(question, self.settings.max_question_chars))
        return self._handed("asked_for_human", asked, started, self._current())

    def reload(self) -> bool:
        """Open the current generation if it is another than the one in use; tell whether it was.

        When the new one cannot be used, the one in use keeps serving and `notes` says why.
        """
        with self._lock:
            self._stamp = _stamp(self.settings.index)
            try:
                opened = self._read()
            except IndexUnusable as error:
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
        if _stamp(self.settings.index) != self._stamp:
            self.reload()
        return self._open

    def _read(self) -> _Open:
        opened = generations.current(self.settings.index, accept=self._accept)
        index, curve = open_generation(opened.generation, self.encoder, self.settings)
        return _Open(opened.generation.id, index, curve, opened.notes)

    def _accept(self, generation: generations.Generation) -> None:
        """Refuse a generation, or a curve, that was made with another model or other settings."""
        require_fit(generation, self.encoder, self.settings)

    def _answer(self, asked: str, started: float, opened: _Open) -> Answer:
        if recognised := triage(asked):
            if recognised.kind == "small_talk":
                return self._greet(asked, started, opened)
            return self._handed(recognised.kind, asked, started, opened)
        ranking = opened.index.search(asked, max(self.settings.top_k, 5))
        confidence = opened.curve.probability(ranking)
        verdict = decide(confidence, opened.curve.answered_cut, opened.curve.refused_cut)
        quotes = choose(opened.index, ranking, self.settings.top_k)
        reason: Reason = "low_confidence" if verdict == "uncertain" else "out_of_guide"
        return self._make(asked, started, opened, verdict, confidence, quotes, reason)

    def _greet(self, asked: str, started: float, opened: _Open) -> Answer:
        message = small_talk_reply(asked, language_of(asked))
        elapsed = (time.perf_counter() - started) * 1000
        return Answer(asked, "unanswered", 0.0, message, (), None, opened.id, elapsed)

    def _handed(self, reason: Reason, asked: str, started: float, opened: _Open) -> Answer:
        """Answer with a handoff whatever the confidence, the guide's own steps first."""
        ranking = opened.index.search(asked, max(self.settings.top_k, 5))
        confidence = opened.curve.probability(ranking)
        quotes = choose(opened.index, ranking, self.settings.top_k)
        return self._make(asked, started, opened, "uncertain", confidence, quotes, reason)

    def _make(
        self,
        asked: str,
        started: float,
        opened: _Open,
        verdict: Verdict,
        confidence: float,
        quotes: tuple[Quote, ...],
        reason: Reason,
    ) -> Answer:
        language = language_of(asked)
        handoff = (
            None
            if verdict == "answered"
            else hand_off(reason, asked, quotes, self._contacts, opened.index, language)
        )
        return Answer(
            question=asked,
            verdict=verdict,
            confidence=confidence,
            message=message_for(verdict, language),
            quotes=quotes,
            handoff=handoff,
            generation=opened.id,
            elapsed_ms=(time.perf_counter() - started) * 1000,
        )


def _stamp(root: Path) -> tuple[int, int]:
    """Return a cheap mark of the pointer file that changes when the index is switched."""
    try:
        status = os.stat(root / generations.CURRENT)
    except OSError:
        return (0, 0)
    return (status.st_ino, status.st_mtime_ns)
