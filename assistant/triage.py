"""Recognise, before any retrieval, what must not wait for it.

Distress about an account, a wish for a person, a number or link that the user wants vouched for,
and plain small talk. Fixed patterns, so it works with the index, the model or the database broken.
"""

import re
from dataclasses import dataclass
from typing import Literal

from assistant.fold import fold

TriageKind = Literal["urgent_account_security", "asked_for_human", "contact_check", "small_talk"]


@dataclass(frozen=True, slots=True)
class Triage:
    """Hold what a question was recognised as; `said` is the words that gave it away."""

    kind: TriageKind
    said: str


_URGENT = re.compile(
    r"被盗|盗刷|盗用|盗号|被骗|诈骗|骗了|骗走|被黑|黑客|异常登录|陌生登录|不是我(?:本人)?(?:操作|转|消费)|"
    r"钱(?:全)?(?:没|不见|被转)了|被人转走|被转走|钓鱼|泄露了|\bhacked\b|\bstolen\b|\bscam(?:med)?\b|"
    r"\bphish(?:ed|ing)\b|\bfraud\b|unauthori[sz]ed|someone (?:else )?(?:logged|is using|got) in"
)
_HUMAN = re.compile(
    r"转人工|(?:找|要|叫|接|换|跟|和)(?:个|一个)?(?:真人|人工|活人)|人工(?:客服|服务)|真人客服|"
    r"\b(?:talk|speak|chat) (?:to|with) (?:a |an )?(?:human|person|agent|someone|representative)|"
    r"\b(?:human|live|real) (?:agent|person|support)\b"
)
_CONTACT = re.compile(
    r"(?:https?://|www\.)\S+|[\w.+-]+@[\w-]+\.[\w.]+|"
    r"(?<!\d)(?:400|800|95\d{3}|\+?\d{1,3}[- ])[-\d ]{5,}\d"
)
_SMALL_TALK = re.compile(
    r"(?:你好|您好|嗨|哈喽|在吗|在不在|有人吗|早上好|下午好|晚上好|谢谢|谢谢你|多谢|感谢|再见|拜拜|好的|ok|"
    r"hi|hello|hey|thanks|thank you|thx|bye|good (?:morning|afternoon|evening))"
)
_FILLER = re.compile(r"[\s,.!?~，。！？～、啊呀呢哦了的吧哈您你们]+|there|so much|very much|a lot")


def triage(question: str) -> Triage | None:
    """Return what a clean question was recognised as, None for an ordinary question."""
    text = fold(question)
    for kind, pattern in (
        ("urgent_account_security", _URGENT),
        ("asked_for_human", _HUMAN),
        ("contact_check", _CONTACT),
    ):
        if found := pattern.search(text):
            return Triage(kind, question[found.start() : found.end()])  # type: ignore[arg-type]
    if _SMALL_TALK.fullmatch(_FILLER.sub(" ", text).strip()) or _SMALL_TALK.fullmatch(text.strip()):
        return Triage("small_talk", question)
    return None


_GREETING = {
    "zh": "您好！请直接写下您遇到的问题，我会从指南里找出原文。",
    "en": "Hello! Describe your problem in a sentence and I will find the guide's own words.",
}
_THANKS = {"zh": "不客气！还有问题随时问。", "en": "You are welcome! Ask again any time."}
_IS_THANKS = re.compile(r"谢|再见|拜拜|thank|thx|bye")


def small_talk_reply(question: str, language: str) -> str:
    """Return a friendly line for a greeting or for thanks."""
    return (_THANKS if _IS_THANKS.search(fold(question)) else _GREETING)[language]
