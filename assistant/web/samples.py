"""What the routes give, shown by example: the words of the OpenAPI document and of its page."""

from typing import Any

CONVERSATION, TURN = "mN3b0cQ1xk7yS5v2tW9zR4uE8aLhJpDf", "Zq8sT1vX4nB7cM0kY2wL5rHd"

Responses = dict[int | str, dict[str, Any]]


def _shown(example: Any, kind: str = "application/json", status: int = 200) -> Responses:
    return {status: {"content": {kind: {"example": example}}}}


_PLACE = {
    "path": "topay-contact-guide.md",
    "title": "Topay钱包联系客服的方法详解",
    "headings": ["Topay钱包联系客服的方法详解", "一、Topay钱包客服电话联系方法"],
    "start": 274,
    "end": 322,
}
_ADDRESS = "/source/topay-contact-guide.md?start=274&end=322#274-322"
_QUOTE = {
    "text": "与Topay钱包的客服取得联系有多种方式,包括电话、在线聊天、电子邮件等方式。"
    "下面我们一一介绍:",
    **_PLACE,
    "highlights": [[0, 39]],
    "similarity": 0.81,
    "lexical": 9.4,
    "score": 0.97,
    "url": _ADDRESS,
}
_KEPT = {"conversation": CONVERSATION, "turn": TURN, "saved": True}
_ANSWERED = {
    "question": "有哪些联系方式",
    "verdict": "answered",
    "confidence": 0.98,
    "message": "指南里是这样说的：",
    "quotes": [_QUOTE],
    "handoff": None,
    "generation": "000007-3fa9c1d2",
    "elapsed_ms": 1.7,
    **_KEPT,
}
_HANDOFF = {
    "reason": "asked_for_human",
    "message": "先准备好下面的资料会更快。",
    "channels": [{"name": "在线客服（现在有人接待）", "quote": _QUOTE, "contact": None}],
    "checklist": [{"item": "手机号", "quote": None}],
    "ticket_draft": "原因: asked_for_human\n问题: 充值没到账\n请补充:\n- 手机号: ",
}
_CHUNK = {
    "id": "5b1f0c3e9a7d2486",
    "text": _QUOTE["text"],
    **_PLACE,
    "url": _ADDRESS,
}
_HIT = {
    "chunk": _CHUNK,
    "row": 4,
    "passage": 0.79,
    "view": 0.83,
    "support": 0.74,
    "best": 31,
    "lexical": 9.4,
    "coverage": 1.0,
    "score": 0.97,
    "similarity": 0.81,
}
_DOCUMENT = {
    "path": "topay-contact-guide.md",
    "title": "Topay钱包联系客服的方法详解",
    "kind": "markdown",
    "date": "2025-10-15 14:36:43",
    "url": "/source/topay-contact-guide.md",
    "characters": 2333,
}
_TICKET = {
    "number": 12,
    "state": "claimed",
    "reason": "asked_for_human",
    "urgent": False,
    "question": "充值没到账",
    "language": "zh",
    "created": "2026-11-26T09:30:00+00:00",
    "owner": "agent",
    "claimed": "2026-11-26T09:34:10+00:00",
    "closed": None,
    "conversation": CONVERSATION,
    "turn": TURN,
    "packet": {
        "reason": "asked_for_human",
        "question": "充值没到账",
        "previous": "",
        "quotes": [_QUOTE],
        "filled": [{"item": "手机号", "text": "尾号 1234"}],
        "generation": "000007-3fa9c1d2",
    },
    "reply_to": "a@b.example",
    "notes": [{"author": "agent", "at": "2026-11-26T09:40:00+00:00", "text": "Called back."}],
    "delivery": "off",
}

ASKED = _shown(_ANSWERED)
HANDED_OFF = _shown(
    {**_ANSWERED, "verdict": "uncertain", "message": "好的，可以请客服人员来帮您。"}
    | {"handoff": _HANDOFF}
)
FOUND = _shown({"hits": [_HIT]})
TICKETS = _shown({"tickets": [_TICKET]})
TICKET = _shown(_TICKET)
CONVERSATION_KEPT = _shown(
    {
        "conversation": CONVERSATION,
        "turns": [
            {
                **_ANSWERED,
                "at": "2026-11-26T09:29:12+00:00",
                "vote": {
                    "value": -1,
                    "reason": "outdated",
                    "note": "页面改版了",
                    "at": "2026-11-26T09:29:40+00:00",
                },
                "ticket": None,
            }
        ],
    }
)
OPENED = _shown(
    {"number": 12, "state": "new", "urgent": False, "created": "2026-11-26T09:30:00+00:00"},
    status=201,
)
EXPORTED = _shown('{"conversation": …}\n{"conversation": …}\n', "application/x-ndjson")
DOCUMENTS = _shown({"documents": [_DOCUMENT], "after": ""})
DOCUMENT = _shown({**_DOCUMENT, "start": 274, "end": 322, "text": _QUOTE["text"]})
GENERATION = _shown(
    {
        "generation": "000007-3fa9c1d2",
        "created": "2026-11-26T01:41:37+00:00",
        "age_seconds": 28103.0,
        "model": "support-zh-en",
        "dimensions": 256,
        "documents": 1,
        "passages": 17,
        "views": 118,
    }
)
