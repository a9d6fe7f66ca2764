"""Write answers and documents as HTML; everything that is not our own words is escaped."""

from collections.abc import Iterable
from html import escape
from itertools import pairwise
from urllib.parse import quote as url_quote

from assistant.answer import Language, language_of, matched_words
from assistant.records import Answer, Channel, ChecklistItem, Document, Handoff, Quote
from assistant.web.wording import say

Spans = Iterable[tuple[int, int]]


def text(words: str) -> str:
    """Escape text for HTML, and for Gradio's template marks too."""
    return escape(words).replace("$", "&#36;").replace("{", "&#123;").replace("`", "&#96;")


def answer_html(answer: Answer) -> str:
    """Write an answer: message and confidence, the quotes, the handoff."""
    language = language_of(answer.question)
    parts = [_message(answer, language)]
    if answer.verdict == "unanswered":
        if answer.handoff:
            parts.append(_handoff(answer.handoff, language))
        parts.append(_more(answer.quotes, answer.question, "closest", language))
    else:
        urgent = answer.handoff is not None and answer.handoff.reason in (
            "asked_for_human",
            "contact_check",
        )
        handed = _handoff(answer.handoff, language) if answer.handoff else ""
        quoted = "".join(
            [
                *(_quote(one, answer.question, language) for one in answer.quotes[:1]),
                _more(answer.quotes[1:], answer.question, "more", language),
            ]
        )
        parts += [handed, quoted] if urgent else [quoted, handed]
    return f'<div class="answer" lang="{language}" aria-live="polite">{"".join(parts)}</div>'


def notice_html(words: str) -> str:
    """Write one line that is no answer."""
    return f'<div class="answer" aria-live="polite"><p class="message">{text(words)}</p></div>'


def _message(answer: Answer, language: Language) -> str:
    confidence = ""
    if answer.quotes or answer.handoff:
        words = say(_certainty(answer), language)
        confidence = (
            f'<p class="confidence {answer.verdict}"><span class="meter" aria-hidden="true">'
            f'<span style="width:{answer.confidence:.0%}"></span></span>'
            f"{say('confidence', language)}: {words} ({answer.confidence:.0%})</p>"
        )
    return f'<p class="message">{text(answer.message)}</p>{confidence}'


def _certainty(answer: Answer) -> str:
    if answer.verdict == "answered":
        return "very_sure" if answer.confidence >= 0.95 else "sure"
    return "unsure" if answer.verdict == "uncertain" else "no_idea"


def _more(quotes: tuple[Quote, ...], question: str, label: str, language: Language) -> str:
    if not quotes:
        return ""
    shown = "".join(_quote(one, question, language) for one in quotes)
    return f'<details class="more"><summary>{say(label, language)}</summary>{shown}</details>'


def _quote(quote: Quote, question: str, language: Language) -> str:
    crumbs = "".join(f"<li>{text(heading)}</li>" for heading in quote.headings)
    page = _web_page(quote.url, language)
    return (
        f'<article class="quote"><ol class="crumbs">{crumbs}</ol>'
        f"<blockquote>{marked(quote.text, quote.highlights, matched_words(question, quote.text))}"
        f"</blockquote>"
        f'<p class="source"><a href="{text(source_url(quote))}" target="_blank">'
        f"{say('open_source', language)}</a> · {text(quote.path)}:{quote.start}–{quote.end} · "
        f"{say('matches', language)} {quote.similarity:.2f}{page}</p>"
        f"</article>"
    )


def _web_page(url: str | None, language: Language) -> str:
    """Link the page's public address, when its front matter gives a web address."""
    if not url or not url.startswith(("https://", "http://")):
        return ""
    words = say("web_page", language)
    return f' · <a href="{text(url)}" rel="noopener noreferrer" target="_blank">{words}</a>'


def source_url(quote: Quote) -> str:
    """Return the address of the source viewer with the quote marked and scrolled to."""
    place = f"start={quote.start}&end={quote.end}"
    return f"/source/{url_quote(quote.path)}?{place}#{quote.start}-{quote.end}"


def marked(words: str, highlights: Spans, matched: Spans) -> str:
    """Escape text with the answering sentences in <mark> and the shared words in <b>."""
    level = bytearray(len(words))
    for begin, end in highlights:
        level[begin:end] = bytes(b | 1 for b in level[begin:end])
    for begin, end in matched:
        level[begin:end] = bytes(b | 2 for b in level[begin:end])
    parts = []
    begin = 0
    for end in range(1, len(words) + 1):
        if end == len(words) or level[end] != level[begin]:
            piece = text(words[begin:end])
            piece = f"<b>{piece}</b>" if level[begin] & 2 else piece
            parts.append(f"<mark>{piece}</mark>" if level[begin] & 1 else piece)
            begin = end
    return "".join(parts)


def _handoff(handoff: Handoff, language: Language) -> str:
    urgent = " urgent" if handoff.reason == "urgent_account_security" else ""
    channels = "".join(_channel(channel, language) for channel in handoff.channels)
    items = "".join(_item(item, language) for item in handoff.checklist)
    parts = [f'<p class="message">{text(handoff.message)}</p>']
    if channels:
        parts.append(f"<h3>{say('channels', language)}</h3><ul class='channels'>{channels}</ul>")
    if items:
        parts.append(f"<h3>{say('checklist', language)}</h3><ul class='checklist'>{items}</ul>")
    parts.append(
        f"<details><summary>{say('draft', language)}</summary>"
        f'<pre class="draft" tabindex="0">{text(handoff.ticket_draft)}</pre></details>'
    )
    return f'<aside class="handoff{urgent}">{"".join(parts)}</aside>'


def _channel(channel: Channel, language: Language) -> str:
    contact = (
        f'<span class="contact">{text(channel.contact)}</span>'
        if channel.contact
        else f'<span class="nowhere">{say("nowhere", language)}</span>'
    )
    said = _folded(channel.quote, language)
    return f"<li><strong>{text(channel.name)}</strong> {contact}{said}</li>"


def _item(item: ChecklistItem, language: Language) -> str:
    return f"<li><strong>{text(item.item)}</strong>{_folded(item.quote, language)}</li>"


def _folded(quote: Quote | None, language: Language) -> str:
    if quote is None:
        return ""
    words = say("guide_says", language)
    return f'<details><summary>{words}</summary><p class="said">{text(quote.text)}</p></details>'


def source_html(document: Document, start: int, end: int, language: Language) -> str:
    """Write a whole document as it was indexed, with one span marked."""
    fits = 0 <= start < end <= len(document.text)
    parts = []
    bounds = sorted(
        {document.body, len(document.text)}
        | {offset for heading in document.headings for offset in (heading.start, heading.end)}
    )
    for begin, stop in pairwise(bounds):
        heading = any(h.start == begin and h.end == stop for h in document.headings)
        inner = (
            _with_mark(document.text, begin, stop, start, end)
            if fits
            else text(document.text[begin:stop])
        )
        parts.append(f"<strong>{inner}</strong>" if heading else inner)
    note = "" if fits or end <= 0 else f'<p class="note">{say("moved", language)}</p>'
    return page_html(
        f"{document.title} · {say('source_of', language)}",
        f'<p><a href="/">{say("back", language)}</a></p><h1>{text(document.title)}</h1>'
        f'<p class="meta">{text(document.path)} {text(document.date)}</p>{note}'
        f"<pre>{''.join(parts)}</pre>",
        language,
    )


def _with_mark(words: str, begin: int, stop: int, start: int, end: int) -> str:
    """Escape `words[begin:stop]` with its part of the quote marked; the first part has the id."""
    left, right = max(begin, start), min(stop, end)
    if left >= right:
        return text(words[begin:stop])
    name = f' id="{start}-{end}"' if left == start else ""
    return (
        f"{text(words[begin:left])}<mark{name}>{text(words[left:right])}</mark>"
        f"{text(words[right:stop])}"
    )


def page_html(title: str, body: str, language: Language) -> str:
    """Write a page of our own: no script, no request to anywhere."""
    return (
        f'<!doctype html><html lang="{language}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{text(title)}</title><style>{_PAGE_CSS}</style></head>"
        f"<body><main>{body}</main></body></html>"
    )


_PAGE_CSS = """
:root{color-scheme:light dark}
body{font:16px/1.7 system-ui,sans-serif;margin:0;background:Canvas;color:CanvasText}
main{max-width:46rem;margin:0 auto;padding:1rem}
pre{font:inherit;white-space:pre-wrap;overflow-wrap:anywhere}
mark{background:#ffe58a;color:#1c1917;padding:.1em 0;scroll-margin:30vh}
.meta{opacity:.75}.note{border-left:4px solid #b45309;padding-left:.75rem}
"""
