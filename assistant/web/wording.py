"""Every word the pages say, in Chinese and English."""

from assistant.answer import Language

WORDS: dict[str, dict[Language, str]] = {
    "title": {"zh": "客服助手", "en": "Support assistant"},
    "heading": {"zh": "# 客服助手", "en": "# Support assistant"},
    "lead": {
        "zh": "写下您遇到的问题，我会给出指南里的原文，并标明出处。",
        "en": "Describe your problem; you get the guide's own words, with their source.",
    },
    "privacy": {
        "zh": "请不要输入密码、验证码、助记词或完整卡号。客服也绝不会向您索要。",
        "en": "Never enter a password, code, recovery phrase or full card number. "
        "Support will never ask for them.",
    },
    "question": {"zh": "您的问题", "en": "Your question"},
    "placeholder": {
        "zh": "例如：充值没到账怎么办",
        "en": "For example: my top-up did not arrive",
    },
    "ask": {"zh": "提问", "en": "Ask"},
    "examples": {"zh": "常见的问题", "en": "People often ask"},
    "answer": {"zh": "回答", "en": "Answer"},
    "confidence": {"zh": "把握", "en": "Confidence"},
    "very_sure": {"zh": "很有把握", "en": "very sure"},
    "sure": {"zh": "比较有把握", "en": "fairly sure"},
    "unsure": {"zh": "不太确定", "en": "not certain"},
    "no_idea": {"zh": "没有把握", "en": "not sure at all"},
    "open_source": {"zh": "查看原文", "en": "Open in the guide"},
    "web_page": {"zh": "原网页", "en": "Web page"},
    "closest": {"zh": "最接近的内容", "en": "Closest topics"},
    "more": {"zh": "相关段落", "en": "Related passages"},
    "channels": {"zh": "联系方式", "en": "How to reach a person"},
    "checklist": {"zh": "请先准备好", "en": "Have ready"},
    "nowhere": {
        "zh": "号码和地址请看官方应用或官网",
        "en": "for the number or address see the official app or website",
    },
    "draft": {"zh": "可以复制给客服的说明", "en": "A note you can copy for support"},
    "guide_says": {"zh": "指南原文", "en": "The guide's words"},
    "matches": {"zh": "相似度", "en": "similarity"},
    "failed": {
        "zh": "抱歉，刚才没能查到指南。请稍后再试。",
        "en": "Sorry, the guide could not be looked up just now. Please try again.",
    },
    "source_of": {"zh": "指南原文", "en": "From the guide"},
    "back": {"zh": "返回提问", "en": "Back to the questions"},
    "no_source": {
        "zh": "现在的指南里没有这个文件。",
        "en": "The guide in use has no such document.",
    },
    "moved": {
        "zh": "指南已经更新，这段引文的位置变了。",
        "en": "The guide has been updated; the quoted place has moved.",
    },
}

EXAMPLES: dict[Language, tuple[str, ...]] = {
    "zh": (
        "充值没到账怎么办",
        "忘记登录密码了",
        "账户被盗了，怎么冻结",
        "怎么联系在线客服",
        "联系客服要准备什么资料",
    ),
    "en": (
        "How do I reset my password?",
        "I have a dispute with a merchant",
        "When is support open?",
    ),
}


def say(key: str, language: Language) -> str:
    """Return a phrase."""
    return WORDS[key][language]
