"""The page for users: ask, read the guide's words, hand over to a person."""

import logging
from pathlib import Path

import gradio as gr

from assistant.answer import language_of
from assistant.desk import Desk
from assistant.errors import AssistantError, BadInput
from assistant.web.render import answer_html, notice_html
from assistant.web.wording import EXAMPLES, WORDS, say

CSS = (Path(__file__).parent / "static" / "style.css").read_text("utf-8")
I18N = gr.I18n(
    **{
        locale: {
            key: words["zh" if locale.startswith("zh") else "en"] for key, words in WORDS.items()
        }
        for locale in ("en", "zh", "zh-CN", "zh-TW", "zh-HK")
    }
)
THEME = gr.themes.Default(
    primary_hue="teal",
    neutral_hue="slate",
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
)
_log = logging.getLogger(__name__)


def build_page(desk: Desk) -> gr.Blocks:
    """Return the Gradio page over a desk."""

    def ask(question: str) -> str:
        try:
            return answer_html(desk.ask(question or ""))
        except BadInput as error:
            return notice_html(_half(str(error), question or ""))
        except AssistantError:
            _log.exception("the question could not be answered")
            return notice_html(say("failed", language_of(question or "")))

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
                autofocus=True,
                scale=5,
                elem_id="question",
            )
            button = gr.Button(I18N("ask"), variant="primary", scale=1, elem_id="ask")
        gr.Markdown(I18N("privacy"), elem_classes="privacy")
        answer = gr.HTML(elem_id="answer")
        gr.Markdown(I18N("examples"), elem_classes="privacy")
        with gr.Row(elem_classes="examples"):
            for words in (*EXAMPLES["zh"], *EXAMPLES["en"]):
                example = gr.Button(words, size="sm", elem_classes="example")
                example.click(
                    lambda words=words: (words, ask(words)),
                    outputs=[question, answer],
                    api_visibility="private",
                )
        gr.on(
            [question.submit, button.click],
            ask,
            inputs=question,
            outputs=answer,
            api_name="ask_page",
            api_visibility="private",
        )
    page.queue(max_size=256, default_concurrency_limit=8)
    return page


def _half(words: str, question: str) -> str:
    """Return the half of a two-language sentence that fits the question."""
    chinese, _, english = words.partition(" / ")
    return chinese if language_of(question) == "zh" or not english else english
