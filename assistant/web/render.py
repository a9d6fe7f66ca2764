"""Write answers and documents as HTML; everything that is not our own words is escaped."""

import re
from collections.abc import Iterable
from html import escape
from itertools import pairwise
from urllib.parse import quote as url_quote

from assistant.answer import Language, language_of, matched_words, rivals
from assistant.handoff import choices, section_of
from assistant.records import (
    Answer,
    Channel,
    ChecklistItem,
    Chunk,
    Document,
    Handoff,
    Quote,
    Reason,
)
from assistant.web.wording import say, tag

Spans = Iterable[tuple[int, int]]


def text(words: str) -> str:
    """Escape text for HTML, and for Gradio's template marks too."""
    return escape(words).replace("$", "&#36;").replace("{", "&#123;").replace("`", "&#96;")


# --- An answer -----------------------------------------------------------------------------------


def answer_html(answer: Answer, ticket: str = "") -> str:
    """Write an answer: its line, the best quote or the way to a person first, then the rest.

    `ticket` is HTML that stands in the handoff instead of the bare list of what to prepare.
    """
    language = language_of(answer.question)
    head, handoff = _head(answer, language), _handoff(answer, language, ticket)
    if answer.verdict == "unanswered" or _reason(answer) == "asked_for_human":
        parts = [head, handoff, _folded(answer, answer.quotes, "closest", language)]
    elif _reason(answer) == "ambiguous" and len(choices(answer.quotes)) > 1:
        meant = rivals(answer.quotes)
        offered = "".join(_choice(one, answer, language) for one in meant)
        rest = tuple(one for one in answer.quotes if one not in meant)
        more = _folded(answer, rest, "more", language)
        parts = [head, _foreign(meant, language), offered, more, handoff]
    else:
        best = "".join(_quote(one, answer.question, language) for one in answer.quotes[:1])
        more = _folded(answer, answer.quotes[1:], "more", language)
        parts = [head, _foreign(answer.quotes[:1], language), best, more, handoff]
    return f'<div class="answer {_certainty(answer)}" lang="{tag(language)}">{"".join(parts)}</div>'


def notice_html(words: str, language: Language) -> str:
    """Write one line that is no answer."""
    line = f'<p class="message">{text(words)}</p>'
    return f'<div class="answer notice" lang="{tag(language)}">{line}</div>'


def _reason(answer: Answer) -> Reason | None:
    return answer.handoff.reason if answer.handoff else None


def _head(answer: Answer, language: Language) -> str:
    """Write the line above the quotes, and how sure it is where that is why it hands over."""
    alarm = " alarm" if _reason(answer) in _ALARMS else ""
    line = f'<h2 class="message{alarm}">{text(answer.message)}</h2>'
    return line + (_confidence(answer, language) if answer.quotes and _doubtful(answer) else "")


def _foreign(quotes: tuple[Quote, ...], language: Language) -> str:
    """Say that the guide speaks another language than the question."""
    if all(language_of(quote.text) == language for quote in quotes):
        return ""
    return f'<p class="aside">{say("foreign", language)}</p>'


def _confidence(answer: Answer, language: Language) -> str:
    return (
        f'<p class="confidence"><span class="meter" aria-hidden="true">'
        f'<span style="width:{answer.confidence:.0%}"></span></span>'
        f"{say('confidence', language)}{say('colon', language)}"
        f"<strong>{say(_certainty(answer), language)}</strong> ({answer.confidence:.0%})</p>"
    )


def _certainty(answer: Answer) -> str:
    """Return the key of the words for how sure an answer is."""
    if answer.verdict == "answered":
        return "very_sure" if answer.confidence >= 0.95 else "sure"
    return "unsure" if answer.verdict == "uncertain" else "no_idea"


def _doubtful(answer: Answer) -> bool:
    """Tell whether it is by its confidence that an answer hands over, or does not."""
    return answer.handoff is None or answer.handoff.reason in DOUBTS


DOUBTS = ("low_confidence", "ambiguous", "out_of_guide")
_ALARMS = ("urgent_account_security", "contact_check")


def _folded(answer: Answer, quotes: tuple[Quote, ...], label: str, language: Language) -> str:
    if not quotes:
        return ""
    shown = "".join(_quote(one, answer.question, language) for one in quotes)
    return (
        f'<details class="more"><summary>{say(label, language)} ({len(quotes)})</summary>'
        f"{_foreign(quotes, language) if label != 'more' else ''}{shown}</details>"
    )


def _choice(quote: Quote, answer: Answer, language: Language) -> str:
    """Write one thing that a question may mean; the likeliest is open, others when chosen."""
    spoken = tag(language_of(quote.text))
    return (
        f'<details class="choice"{" open" if quote == answer.quotes[0] else ""}>'
        f'<summary lang="{spoken}">{text(section_of(quote))}</summary>'
        f"{_quote(quote, answer.question, language)}</details>"
    )


def _quote(quote: Quote, question: str, language: Language) -> str:
    crumbs = "".join(f"<li>{text(heading)}</li>" for heading in quote.headings)
    words = marked(quote.text, quote.highlights, matched_words(question, quote.text))
    spoken = tag(language_of(quote.text))
    return (
        f'<article class="quote" aria-label="{say("quote", language)}">'
        f'<ol class="crumbs" lang="{spoken}">{crumbs}</ol>'
        f'<blockquote lang="{spoken}">{words}</blockquote>'
        f'<p class="source"><a class="open" href="{text(source_url(quote))}" target="_blank" '
        f'rel="noopener">{say("open_source", language)}</a>{_web_page(quote.url, language)}'
        f'<span class="place">{text(quote.path)}:{quote.start}–{quote.end}</span></p>'
        f"</article>"
    )


def _web_page(url: str | None, language: Language) -> str:
    """Link the page's public address, when its front matter gives a web address."""
    if not url or not url.startswith(("https://", "http://")):
        return ""
    words = say("web_page", language)
    return f'<a href="{text(url)}" rel="noopener noreferrer" target="_blank">{words}</a>'


def source_url(quote: Quote | Chunk) -> str:
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


# --- Handing over --------------------------------------------------------------------------------


def _handoff(answer: Answer, language: Language, ticket: str) -> str:
    handoff = answer.handoff
    if handoff is None:
        return ""
    rest = ticket + _folded_draft(handoff, language) if ticket else _by_hand(handoff, language)
    urgent = " urgent" if handoff.reason == "urgent_account_security" else ""
    return (
        f'<aside class="handoff{urgent}" aria-label="{say("channels", language)}">'
        f'<h2 class="message">{text(handoff.message)}</h2>{_channels(handoff, language)}'
        f"{rest}</aside>"
    )


def _by_hand(handoff: Handoff, language: Language) -> str:
    return f"{_checklist(handoff, language)}{_draft(handoff, language)}"


def _folded_draft(handoff: Handoff, language: Language) -> str:
    return (
        f'<details class="by-hand"><summary>{say("draft", language)}</summary>'
        f"{_draft(handoff, language)}</details>"
    )


def _channels(handoff: Handoff, language: Language) -> str:
    if not handoff.channels:
        return ""
    missing = any(channel.contact is None for channel in handoff.channels)
    note = f'<p class="aside">{say("nowhere", language)}</p>' if missing else ""
    rows = "".join(_channel(channel) for channel in handoff.channels)
    return f'<h3>{say("channels", language)}</h3><ul class="channels">{rows}</ul>{note}'


def _channel(channel: Channel) -> str:
    contact = f'<span class="contact">{text(channel.contact)}</span>' if channel.contact else ""
    return _row(f"<strong>{text(channel.name)}</strong>{contact}", channel.quote)


def _checklist(handoff: Handoff, language: Language) -> str:
    if not handoff.checklist:
        return ""
    rows = "".join(_item(item) for item in handoff.checklist)
    return f'<h3>{say("checklist", language)}</h3><ul class="checklist">{rows}</ul>'


def _item(item: ChecklistItem) -> str:
    return _row(text(item.item), item.quote)


def _row(shown: str, quote: Quote | None) -> str:
    """Write a list entry that unfolds to the guide's words for it."""
    return f"<li>{shown if quote is None else quoted_html(shown, quote)}</li>"


def quoted_html(summary: str, quote: Quote) -> str:
    """Write a line of HTML that unfolds to the guide's words."""
    said = f'<p class="said" lang="{tag(language_of(quote.text))}">{text(quote.text)}</p>'
    return f"<details><summary>{summary}</summary>{said}</details>"


def _draft(handoff: Handoff, language: Language) -> str:
    return (
        f'<div class="note"><h3>{say("draft", language)}</h3>'
        f'<button type="button" class="copy"><span class="now">{say("copy", language)}</span>'
        f'<span class="then">{say("copied", language)}</span></button></div>'
        f'<pre class="draft" tabindex="0" role="region" '
        f'aria-label="{say("draft", language)}">{text(handoff.ticket_draft)}</pre>'
    )


# --- A document ----------------------------------------------------------------------------------


def source_html(document: Document, start: int, end: int, language: Language) -> str:
    """Write a whole document as it was indexed, with one span marked."""
    fits = 0 <= start < end <= len(document.text)
    heads = {(h.start, h.end): h.level for h in document.headings}
    ends = {document.body, len(document.text), *(offset for span in heads for offset in span)}
    parts = []
    for begin, stop in pairwise(sorted(ends)):
        inner = _with_mark(document.text, begin, stop, (start, end) if fits else (0, 0))
        level = heads.get((begin, stop))
        parts.append(_heading(inner, level) if level else inner)
    note = "" if fits or end <= 0 else f'<p class="note">{say("moved", language)}</p>'
    return page_html(
        f"{document.title} · {say('source_of', language)}",
        f'<p><a href="/">{say("back", language)}</a></p><h1>{text(document.title)}</h1>'
        f'<p class="meta">{text(document.path)} {text(document.date)}</p>{note}'
        f'<div class="document" lang="{tag(language_of(document.text))}">{"".join(parts)}</div>',
        language,
    )


def _heading(inner: str, level: int) -> str:
    """Write a heading line as it stands, its Markdown signs toned down."""
    shown = re.sub(r"^#+ ", r'<span class="sign">\g<0></span>', inner)
    return f"<h{min(level + 1, 6)}>{shown}</h{min(level + 1, 6)}>"


def _with_mark(words: str, begin: int, stop: int, span: tuple[int, int]) -> str:
    """Escape `words[begin:stop]` with its part of the quote marked; the first part has the id."""
    start, end = span
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
        f'<!doctype html><html lang="{tag(language)}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{text(title)}</title><style>{_PAGE_CSS}</style></head>"
        f"<body><main>{body}</main></body></html>"
    )


_PAGE_CSS = """
:root{color-scheme:light dark;--ink:#1e293b;--quiet:#475569;--paper:#fff;--line:#cbd5e1;
--link:#0f766e;--mark:#ffe9a8}
@media (prefers-color-scheme:dark){:root{--ink:#f1f5f9;--quiet:#cbd5e1;--paper:#0a0f1e;
--line:#475569;--link:#5eead4;--mark:#5b4708}}
body{font:1rem/1.75 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","PingFang SC",
"Microsoft YaHei","Noto Sans CJK SC",sans-serif;margin:0;background:var(--paper);color:var(--ink)}
main{max-width:46rem;margin:0 auto;padding:1rem;overflow-wrap:anywhere}
a{color:var(--link)}a:focus-visible{outline:3px solid var(--link);outline-offset:2px}
h1{font-size:1.5rem;line-height:1.35;margin:.5rem 0}
.document{white-space:pre-wrap;overflow-wrap:anywhere;border-top:1px solid var(--line);
padding-top:1rem}
.document :is(h2,h3,h4,h5,h6){font-size:1.1rem;margin:0}.document h2{font-size:1.25rem}
.sign{color:var(--quiet);font-weight:400}
mark{background:var(--mark);color:inherit;padding:.1em 0;border-radius:.15rem;scroll-margin:25vh;
box-decoration-break:clone}
.meta{color:var(--quiet);margin:.25rem 0 1rem}
.note{border-left:4px solid #b45309;padding-left:.75rem}
"""
