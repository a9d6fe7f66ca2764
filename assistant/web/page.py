"""The page for users: a conversation of questions and quotes, and the way to a person."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import gradio as gr
import orjson
from gradio import processing_utils
from gradio.data_classes import GradioModel, GradioRootModel
from gradio.events import api
from pydantic import ValidationError

import assistant.web.bodies as bodies
from assistant.answer import Language, language_of
from assistant.errors import AssistantError, BadInput
from assistant.examples import MOST, Examples, KnownExamples
from assistant.frontdesk import FrontDesk, Reply
from assistant.kept import NotSaved
from assistant.web.render import notice_html
from assistant.web.thread import thread_html
from assistant.web.wording import WORDS, half, preferred, say, tag

Found = TypeVar("Found")
Sent = TypeVar("Sent", bound=bodies.Body)

I18N = gr.I18n(
    **{
        locale: {
            key: words["zh" if locale.startswith("zh") else "en"] for key, words in WORDS.items()
        }
        for locale in ("en", "zh", "zh-CN", "zh-TW", "zh-HK")
    }
)
_FONTS = (
    "system-ui",
    "-apple-system",
    "Segoe UI",
    "Roboto",
    "Noto Sans",
    "PingFang SC",
    "Microsoft YaHei",
    "Noto Sans CJK SC",
    "sans-serif",
)
THEME = gr.themes.Default(
    primary_hue="teal",
    neutral_hue="slate",
    font=_FONTS,
    font_mono=("ui-monospace", "monospace"),
).set(  # white on the theme's own teal is hard to read, and so is its pale border
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_hover_dark="*primary_800",
    input_border_color="*neutral_500",
    input_border_color_dark="*neutral_400",
    input_placeholder_color="*neutral_500",
    input_placeholder_color_dark="*neutral_400",
)
_WAITING = 256
_AT_ONCE = 8
_SHOWN = 20
_log = logging.getLogger(__name__)


def build_page(front: FrontDesk) -> gr.Blocks:
    """Return the Gradio page over a desk, and its two endpoints for programs."""
    page: gr.Blocks
    processing_utils.async_move_files_to_cache = _as_sent
    with gr.Blocks(title=say("title", "zh"), analytics_enabled=False) as page:
        gr.HTML(_switch(), elem_classes="switch", apply_default_css=False)
        gr.Markdown(I18N("heading"), elem_classes="heading")
        gr.Markdown(I18N("lead"), elem_classes="lead")
        gr.Markdown(I18N("privacy"), elem_classes="quiet")
        # The same key and secret at every start: a restart of the server loses no conversation.
        conversation = gr.BrowserState("", storage_key="conversation", secret="conversation")
        thread = gr.HTML(elem_id="answer", apply_default_css=False)
        with gr.Column(elem_classes="beginning"):
            gr.Markdown(I18N("examples"), elem_classes="quiet")
            known = KnownExamples(front.desk)
            offered = known.now()
            examples = [one for language in offered for one in _examples(language, offered)]
        with gr.Column(elem_classes="composer"):
            gr.HTML(_states(), elem_classes="state", apply_default_css=False)
            with gr.Row(elem_classes="asking"):
                question = gr.Textbox(
                    label=I18N("question"),
                    placeholder=I18N("placeholder"),
                    lines=1,
                    max_lines=6,
                    scale=5,
                    elem_id="question",
                )
                button = gr.Button(I18N("ask"), variant="primary", elem_id="ask")
            with gr.Row(elem_classes="always"):
                person = gr.Button(I18N("person"), size="sm", elem_id="person")
                clear = gr.Button(I18N("clear"), size="sm", elem_id="clear")
        parts = _Parts(question, conversation, thread, button, person, clear, examples, offered)
        _listen(front, page, parts, known)
        _endpoints(front)
    page.queue(max_size=_WAITING, default_concurrency_limit=_AT_ONCE)
    return page


@dataclass(frozen=True, slots=True)
class _Parts:
    """Hold the parts of the page that something happens to; `offered` is what examples it has."""

    question: gr.Textbox
    conversation: gr.BrowserState
    thread: gr.HTML
    ask: gr.Button
    person: gr.Button
    clear: gr.Button
    examples: Sequence[gr.Button]
    offered: Examples


def _listen(front: FrontDesk, page: gr.Blocks, parts: _Parts, known: KnownExamples) -> None:
    """Say what happens when; every listener is a public endpoint unless it says it is private."""
    question, conversation, thread = parts.question, parts.conversation, parts.thread
    asked, shown = [question, conversation], [thread, conversation, question]

    def ask(words: str, kept: str, request: gr.Request) -> tuple[str, str, str]:
        return _answered(front, front.ask, _text(words), _text(kept), request)

    def hand_off(words: str, kept: str, request: gr.Request) -> tuple[str, str, str]:
        kept = _text(kept)
        words = _text(words) or front.last_question(kept) or say("person", _chosen(request))
        return _answered(front, front.hand_off, words, kept, request)

    def resume(kept: str, request: gr.Request) -> Any:
        turns = _thread(front, _text(kept)) or gr.skip()  # who asked meanwhile keeps what came
        return turns, *_offered(known.now(), parts.offered)

    def forget(kept: str, request: gr.Request) -> tuple[str, str, str]:
        return _forgotten(front, _text(kept), request)

    private: dict[str, Any] = {"api_visibility": "private"}
    gr.on([question.submit, parts.ask.click], ask, asked, shown, api_name="turn", **private)
    parts.person.click(hand_off, asked, shown, api_name="hand_off", **private)
    parts.clear.click(forget, conversation, shown, api_name="forget", **private)
    page.load(resume, conversation, [thread, *parts.examples], api_name="resume", **private)
    for example in parts.examples:
        example.click(ask, [example, conversation], shown, api_name="example", **private)


def _endpoints(front: FrontDesk) -> None:
    """Offer `/ask` and `/search` to gradio_client, as JSON text; other programs have REST.

    Text, because gradio_client takes every object with a `path` for a file and fetches it.
    """

    def ask(question: str, conversation: str = "") -> str:
        """Answer a question with the guide's words; give the conversation to follow up."""
        given = _given(bodies.Question, question=question, conversation=conversation)
        reply = _or_error(front.ask, given.question, given.conversation)
        return orjson.dumps(bodies.asked(reply)).decode()

    def search(question: str, top_k: int = 5) -> str:
        """Return the passages found, best first, with raw scores."""
        given = _given(bodies.Search, question=question, top_k=top_k)
        found = _or_error(front.search, given.question, given.top_k)
        return orjson.dumps(bodies.hits(found)).decode()

    api(ask, api_name="ask")
    api(search, api_name="search")


def _given(takes: type[Sent], **values: object) -> Sent:
    """Return what a client sent; say what does not fit as REST does."""
    try:
        return takes.model_validate(values)
    except ValidationError as error:
        raise gr.Error(bodies.misfit(error.errors()), print_exception=False) from None


def _or_error(call: Callable[..., Found], *values: Any) -> Found:
    """Call, and say what is wrong with the input in words a client gets to see."""
    try:
        return call(*values)
    except BadInput as error:
        raise gr.Error(str(error), print_exception=False) from None


async def _as_sent(data: Any, *_: object, **__: object) -> Any:
    """Stand in for Gradio's look for files, of which the page has none.

    It would fetch the address, or copy the file of this machine, that a value like one names.
    """
    return data.model_dump() if isinstance(data, GradioModel | GradioRootModel) else data


def _examples(language: Language, shown: Examples) -> list[gr.Button]:
    """Show example questions in one language; the style sheet hides those of the other."""
    with gr.Row(elem_classes=["examples", f"only-{language}"]):
        return [
            gr.Button(words, size="sm", elem_classes="example", visible=bool(words))
            for words in _filled(shown[language])
        ]


def _offered(now: Examples, built: Examples) -> list[Any]:
    """Return what becomes of the examples' buttons: the guide may be another by now."""
    if now == built:
        return [gr.skip() for language in built for _ in _filled(built[language])]
    return [
        gr.update(value=words, visible=bool(words))
        for language in built
        for words in _filled(now[language])
    ]


def _filled(words: Sequence[str]) -> list[str]:
    """Return as many words as there are buttons, "" for those without."""
    return [*words, *[""] * (MOST - len(words))]


def _answered(
    front: FrontDesk,
    answer_with: Callable[[str, str], Reply],
    question: str,
    kept: str,
    request: gr.Request,
) -> tuple[str, str, str]:
    """Return the conversation with one more turn, its id, and what stays in the field.

    Whatever goes wrong, a polite line is written below, and the question stays to be asked again.
    """
    language = _language(question, request)
    try:
        reply = answer_with(question, kept)
        return _thread(front, reply.conversation), reply.conversation, ""
    except BadInput as error:
        notice = notice_html(half(str(error), language), language)
    except AssistantError as error:
        _log.error("a question could not be answered: %s", error)
        notice = notice_html(say("failed", language), language)
    except Exception:  # the last door before a person: none of this is for their eyes
        _log.exception("a question could not be answered")
        notice = notice_html(say("failed", language), language)
    return _thread(front, kept) + notice, kept, question


def _text(sent: object) -> str:
    """Return text that can be sent back: no half of a character, which JSON lacks; else ""."""
    return sent.encode("utf-8", "ignore").decode() if isinstance(sent, str) else ""


def _thread(front: FrontDesk, kept: str) -> str:
    """Write the last turns of a conversation; "" when there are none, or they cannot be told."""
    try:
        turns = front.turns(kept, _SHOWN) if kept else []
        numbers = {turn.ticket for turn in turns if turn.ticket is not None}
        return thread_html(turns, front.states(numbers), front.settings.tickets)
    except Exception:
        _log.exception("a conversation could not be shown")
        return ""


def _forgotten(front: FrontDesk, kept: str, request: gr.Request) -> tuple[str, str, str]:
    language = _chosen(request)
    try:
        front.forget(kept)
        return "", "", ""
    except NotSaved as error:
        _log.error("a conversation could not be forgotten: %s", error)
        notice = notice_html(say("not_cleared", language), language)
        return _thread(front, kept) + notice, kept, ""


def _language(question: str, request: gr.Request) -> Language:
    """Return the question's language; the page's when it has no letters to tell by."""
    if any(character.isalpha() for character in question[:1000]):
        return language_of(question)
    return _chosen(request)


def _chosen(request: gr.Request) -> Language:
    headers = request.headers
    return preferred(headers.get("accept-language", ""), headers.get("cookie", ""))


def _switch() -> str:
    """Write the switch to the other language, and the words that page.js needs."""
    return (
        '<button type="button" class="language" data-only="zh" data-lang="en" lang="en">English'
        '</button><button type="button" class="language" data-only="en" data-lang="zh" '
        f'lang="zh-CN">中文</button><span id="clear-ticket" hidden>{_both("clear_ticket")}</span>'
    )


def _states() -> str:
    """Write the lines for a busy and a failed page, each in both languages."""
    turning = '<span class="turning" aria-hidden="true"></span>'
    return (
        f'<p class="busy" role="status">{turning}{_both("busy")}</p>'
        f'<p class="failed" role="alert">{_both("offline")}</p>'
        '<p class="unseen" id="announce" role="status"></p>'
    )


def _both(key: str) -> str:
    return "".join(
        f'<span data-only="{language}" lang="{tag(language)}">{words}</span>'
        for language, words in WORDS[key].items()
    )
