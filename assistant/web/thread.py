"""Write a conversation as HTML: each question, its answer, the vote on it and its ticket."""

from collections.abc import Mapping, Sequence

from assistant.answer import Language, language_of
from assistant.frontdesk import answer_of, is_small_talk
from assistant.kept import LONGEST_REPLY_TO, VOTE_REASONS, TicketState, Turn
from assistant.records import ChecklistItem, Handoff
from assistant.web.render import DOUBTS, answer_html, quoted_html, text
from assistant.web.wording import say, tag

_LONGEST_NOTE = 500


def thread_html(
    turns: Sequence[Turn], states: Mapping[int, TicketState], tickets: bool = True
) -> str:
    """Write the turns of a conversation, oldest first.

    `states` gives the state of each ticket in them that is still kept; `tickets` tells whether new
    ones are taken.
    """
    return "".join(_turn(turn, states, tickets) for turn in turns)


def _turn(turn: Turn, states: Mapping[int, TicketState], tickets: bool) -> str:
    answer = answer_of(turn)
    language = language_of(turn.question)
    ticket = ""
    if answer.handoff and turn.ticket is not None:
        ticket = _numbered(turn.ticket, states.get(turn.ticket), language)
    elif answer.handoff and turn.id and tickets:
        folded = answer.verdict == "uncertain" and answer.handoff.reason in DOUBTS
        ticket = _form(turn.id, answer.handoff, language, folded)
    vote = "" if is_small_talk(answer) or not turn.id else _vote(turn, language)
    unsaved = "" if turn.id else f'<p class="aside unsaved">{say("not_saved", language)}</p>'
    return (
        f'<section class="turn" data-turn="{text(turn.id)}" '
        f'data-conversation="{text(turn.conversation)}" lang="{tag(language)}">'
        f'<p class="asked"><span class="unseen">{say("you_asked", language)}'
        f"{say('colon', language)}</span>{text(turn.question)}</p>"
        f"{answer_html(answer, ticket)}{unsaved}{vote}</section>"
    )


# --- Tickets -------------------------------------------------------------------------------------


def _numbered(number: int, state: TicketState | None, language: Language) -> str:
    said = say(f"ticket_{state}" if state else "ticket_gone", language)
    keep = f'<span class="aside">{say("ticket_keep", language)}</span>'
    return (
        f'<p class="ticket" data-ticket="{number}" role="status">{say("ticket", language)} '
        f"<strong>{number}</strong>{say('colon', language)}{said}"
        f"{keep if state in ('new', 'claimed') else ''}</p>"
    )


def _form(turn: str, handoff: Handoff, language: Language, folded: bool) -> str:
    """Write the checklist as a short form; no field is a must, but page.js asks once for one."""
    fields = [_field(place, one, turn, language) for place, one in enumerate(handoff.checklist)]
    fields.append(_reply_to(turn, language))
    return (
        f'<details class="hand-in"{"" if folded else " open"}><summary>{say("form", language)}'
        f'</summary><form class="ticket-form" aria-label="{say("form", language)}">'
        f'<p class="aside">{say("form_lead", language)}</p>{"".join(fields)}'
        f'<p class="sending"><button type="submit" class="act">{say("send", language)}</button>'
        f"{_told(language)}</p><template>{_numbered(0, 'new', language)}</template></form>"
        "</details>"
    )


def _field(place: int, one: ChecklistItem, turn: str, language: Language) -> str:
    said = "" if one.quote is None else quoted_html(say("guide_on_it", language), one.quote)
    identity = text(f"{turn}-{place}")
    return (
        f'<p class="field"><label for="{identity}">{text(one.item)}</label>'
        f'<textarea id="{identity}" name="{text(one.item)}" rows="2" autocomplete="off"></textarea>'
        f"</p>{said}"
    )


def _reply_to(turn: str, language: Language) -> str:
    identity = text(f"{turn}-reply")
    return (
        f'<p class="field"><label for="{identity}">{say("reply_to", language)}</label>'
        f'<input id="{identity}" name="reply_to" maxlength="{LONGEST_REPLY_TO}" autocomplete="off" '
        f'aria-describedby="{identity}-alone"></p>'
        f'<p class="alone" id="{identity}-alone" role="alert" hidden>{say("alone", language)}</p>'
    )


# --- Votes ---------------------------------------------------------------------------------------


def _vote(turn: Turn, language: Language) -> str:
    value = turn.vote.value if turn.vote else 0
    choices = "".join(
        f'<label><input type="radio" name="reason" value="{reason}"'
        f"{' checked' if turn.vote and turn.vote.reason == reason else ''}>"
        f"{say(reason, language)}</label>"
        for reason in VOTE_REASONS[1:]
    )
    note = say("more_words", language)
    return (
        f'<div class="vote" role="group" aria-label="{say("helpful", language)}">'
        f"<span>{say('helpful', language)}</span>{_thumb(1, 'yes', value, language)}"
        f"{_thumb(-1, 'no', value, language)}{_told(language)}</div>"
        f'<form class="why" hidden><fieldset><legend>{say("why", language)}</legend>{choices}'
        f'</fieldset><p class="field"><label for="{text(turn.id)}-note">{note}</label>'
        f'<input id="{text(turn.id)}-note" name="note" maxlength="{_LONGEST_NOTE}" '
        f'autocomplete="off"></p>'
        f'<p class="sending"><button type="submit" class="act">{say("tell", language)}</button>'
        f"{_told(language)}</p></form>"
    )


def _thumb(value: int, label: str, given: int, language: Language) -> str:
    pressed = "true" if value == given else "false"
    return (
        f'<button type="button" class="thumb" data-value="{value}" aria-pressed="{pressed}">'
        f"{say(label, language)}</button>"
    )


def _told(language: Language) -> str:
    """Write what is said when something was sent, and why it was not; page.js shows one."""
    return (
        f'<span class="told" role="status"><span class="done" hidden>{say("thanks", language)}'
        f'</span><span class="undone" hidden>{say("not_sent", language)}</span>'
        f'<span class="gone" hidden>{say("gone", language)}</span>'
        '<span class="wrong" hidden></span></span>'
    )
