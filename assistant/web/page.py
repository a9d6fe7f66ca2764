"""The page for users: ask, read the guide's words, hand over to a person."""

import logging

import gradio as gr

from assistant.answer import Language, language_of
from assistant.desk import Desk
from assistant.errors import AssistantError, BadInput
from assistant.web.render import answer_html, notice_html
from assistant.web.wording import EXAMPLES, WORDS, preferred, say, tag

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
_log = logging.getLogger(__name__)


def build_page(desk: Desk) -> gr.Blocks:
    """Return the Gradio page over a desk."""

    def ask(question: str, request: gr.Request) -> str:
        return _asked(desk, question or "", request)

    page: gr.Blocks
    with gr.Blocks(title=say("title", "zh"), analytics_enabled=False) as page:
        gr.Markdown(I18N("heading"), elem_classes="heading")
        gr.Markdown(I18N("lead"), elem_classes="lead")
        with gr.Row(elem_classes="asking"):
            question = gr.Textbox(
                label=I18N("question"),
                placeholder=I18N("placeholder"),
                max_length=desk.settings.max_question_chars,
                lines=1,
                max_lines=6,
                scale=5,
                elem_id="question",
            )
            button = gr.Button(I18N("ask"), variant="primary", elem_id="ask")
        gr.Markdown(I18N("privacy"), elem_classes="quiet")
        gr.HTML(_states(), elem_classes="state", apply_default_css=False)
        answer = gr.HTML(elem_id="answer", apply_default_css=False)
        gr.Markdown(I18N("examples"), elem_classes="quiet")
        for language in EXAMPLES:
            _examples(desk, language, [question, answer])
        # Every listener is a public endpoint unless it says that it is none.
        gr.on([question.submit, button.click], ask, question, answer, api_visibility="private")
    page.queue(max_size=_WAITING, default_concurrency_limit=_AT_ONCE)
    return page


def _examples(desk: Desk, language: Language, outputs: list[gr.components.Component]) -> None:
    """Show example questions in one language; the style sheet hides those of the other."""
    with gr.Row(elem_classes=["examples", f"only-{language}"]):
        for words in EXAMPLES[language]:

            def ask(request: gr.Request, words: str = words) -> tuple[str, str]:
                return words, _asked(desk, words, request)

            example = gr.Button(words, size="sm", elem_classes="example")
            example.click(ask, None, outputs, api_visibility="private")


def _asked(desk: Desk, question: str, request: gr.Request) -> str:
    """Ask the desk; whatever goes wrong, write a polite line and leave the rest to the log."""
    language = _language(question, request)
    try:
        return answer_html(desk.ask(question))
    except BadInput as error:
        return notice_html(_half(str(error), language), language)
    except AssistantError as error:
        _log.error("a question could not be answered: %s", error)
    except Exception:  # the last door before a person: none of this is for their eyes
        _log.exception("a question could not be answered")
    return notice_html(say("failed", language), language)


def _language(question: str, request: gr.Request) -> Language:
    """Return the question's language; the browser's when it has no letters to tell by."""
    if any(character.isalpha() for character in question[:1000]):
        return language_of(question)
    return preferred(request.headers.get("accept-language", ""))


def _half(words: str, language: Language) -> str:
    """Return the half of a two-language sentence in one language."""
    chinese, _, english = words.partition(" / ")
    return english if language == "en" and english else chinese


def _states() -> str:
    """Write the lines for a busy and a failed page, each in both languages."""
    turning = '<span class="turning" aria-hidden="true"></span>'
    return (
        f'<p class="busy" role="status">{turning}{_both("busy")}</p>'
        f'<p class="failed" role="alert">{_both("offline")}</p>'
    )


def _both(key: str) -> str:
    return "".join(
        f'<span data-only="{language}" lang="{tag(language)}">{words}</span>'
        for language, words in WORDS[key].items()
    )
