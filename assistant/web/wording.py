"""Every word the pages say, in Chinese and English."""

import re

from assistant.answer import Language, language_of

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
        "zh": "请写下您的问题",
        "en": "Type your question",
    },
    "ask": {"zh": "提问", "en": "Ask"},
    "person": {"zh": "找人工客服", "en": "Talk to a person"},
    "clear": {"zh": "清除对话", "en": "Clear"},
    "conversation": {"zh": "对话", "en": "Conversation"},
    "you_asked": {"zh": "您问", "en": "You asked"},
    "examples": {"zh": "例如可以问", "en": "For example"},
    "confidence": {"zh": "把握", "en": "Confidence"},
    "colon": {"zh": "：", "en": ": "},
    "very_sure": {"zh": "很有把握", "en": "very sure"},
    "sure": {"zh": "比较有把握", "en": "fairly sure"},
    "unsure": {"zh": "不太确定", "en": "not certain"},
    "no_idea": {"zh": "没有把握", "en": "not sure at all"},
    "open_source": {"zh": "在指南中查看这段话", "en": "See it in the guide"},
    "web_page": {"zh": "原网页", "en": "Web page"},
    "closest": {"zh": "最接近的内容", "en": "Closest topics"},
    "more": {"zh": "相关段落", "en": "Related passages"},
    "channels": {"zh": "联系方式", "en": "How to reach a person"},
    "checklist": {"zh": "请先准备好", "en": "Have ready"},
    "nowhere": {
        "zh": "号码和地址请看官方应用或官网。",
        "en": "For numbers and addresses see the official app or website.",
    },
    "draft": {"zh": "可以发给客服的说明", "en": "A note you can send to support"},
    "copy": {"zh": "复制", "en": "Copy"},
    "copied": {"zh": "已复制", "en": "Copied"},
    "form": {"zh": "交给客服处理", "en": "Send this to support"},
    "form_lead": {
        "zh": "知道多少写多少，写完发送就会得到工单编号。留下电话或邮箱，客服才能回复您。"
        "不要写密码、验证码或助记词。",
        "en": "Fill in what you know and send it; you get a ticket number. Leave a phone number or "
        "e-mail address, or support cannot answer you. "
        "Never write a password, code or recovery phrase.",
    },
    "reply_to": {"zh": "怎么联系您（电话或邮箱）", "en": "How to reach you (phone or e-mail)"},
    "alone": {
        "zh": "不留联系方式，客服就没法回复您。还是要发送的话，请再按一次“发送给客服”。",
        "en": "No one can reply to you without it. To send it anyway, press “Send to support” "
        "once more.",
    },
    "guide_on_it": {"zh": "指南怎么说", "en": "What the guide says"},
    "send": {"zh": "发送给客服", "en": "Send to support"},
    "ticket": {"zh": "工单编号", "en": "Ticket number"},
    "ticket_new": {"zh": "已收到，等待客服处理", "en": "received, waiting for a person"},
    "ticket_claimed": {"zh": "客服正在处理", "en": "a person is working on it"},
    "ticket_closed": {"zh": "已处理完", "en": "closed"},
    "ticket_keep": {
        "zh": "请记下编号，联系客服时说出它，就不用从头再讲。",
        "en": "Keep the number: name it when you talk to support, and you need not start over.",
    },
    "ticket_gone": {"zh": "工单已过保存期", "en": "no longer kept"},
    "helpful": {"zh": "这个回答有帮助吗？", "en": "Did this help?"},
    "yes": {"zh": "有帮助", "en": "Yes"},
    "no": {"zh": "没有", "en": "No"},
    "why": {"zh": "哪里不对？", "en": "What was wrong?"},
    "wrong_passage": {"zh": "不是我问的内容", "en": "Wrong passage"},
    "not_enough": {"zh": "说得不够", "en": "Not enough"},
    "outdated": {"zh": "内容过时了", "en": "Outdated"},
    "unclear": {"zh": "看不明白", "en": "Hard to understand"},
    "other": {"zh": "其他", "en": "Something else"},
    "more_words": {"zh": "还想说什么（可不填）", "en": "Anything else (optional)"},
    "tell": {"zh": "提交", "en": "Send"},
    "thanks": {"zh": "谢谢，已记下。", "en": "Thank you, noted."},
    "not_sent": {
        "zh": "没有发出去，内容还在。请过一会儿再试。",
        "en": "It was not sent; your words are still here. Please try again in a moment.",
    },
    "gone": {
        "zh": "这个对话已经删除，不能再评价或发送。",
        "en": "This conversation was deleted; nothing more can be sent about it.",
    },
    "not_saved": {
        "zh": "这个回答没能保存：刷新页面后会消失，也不能评价或开工单。",
        "en": "This answer could not be saved: it is gone after a refresh, and cannot be rated "
        "or turned into a ticket.",
    },
    "not_cleared": {
        "zh": "没能清除，请过一会儿再试。",
        "en": "It could not be cleared; please try again in a moment.",
    },
    "clear_ticket": {
        "zh": "清除对话也会撤回其中的工单。要清除吗？",
        "en": "Clearing the conversation also withdraws its ticket. Clear it?",
    },
    "quote": {"zh": "指南原文", "en": "The guide's words"},
    "foreign": {
        "zh": "指南是英文的，下面是它的原文。",
        "en": "The guide is in Chinese; these are its own words.",
    },
    "busy": {"zh": "正在查找指南…", "en": "Looking in the guide…"},
    "offline": {
        "zh": "没有得到回答，您写的还在。请检查网络，过一会儿再问一次。",
        "en": "No answer came back; your words are still here. Check the connection and ask again "
        "in a moment.",
    },
    "failed": {
        "zh": "抱歉，刚才没能查到指南。请稍后再试。",
        "en": "Sorry, the guide could not be looked up just now. Please try again.",
    },
    "no_script": {
        "zh": "这个页面需要 JavaScript，请在浏览器的设置里启用。",
        "en": "This page needs JavaScript; please turn it on in the browser.",
    },
    "late": {
        "zh": "如果一直打不开，请刷新，或换一个浏览器。",
        "en": "If this stays, load the page again or try another browser.",
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
    # What a person reads in place of a program's problem, by its status
    "refused": {"zh": "这个请求没有被接受。", "en": "This request was not taken."},
    "refused_404": {"zh": "没有这个页面。", "en": "There is no such page."},
    "refused_408": {
        "zh": "没有收到完整的内容，网络可能太慢。",
        "en": "Your request did not arrive in full; the connection may be slow.",
    },
    "refused_413": {
        "zh": "内容太长，没有收下。请返回缩短后再发。",
        "en": "That was too long to be taken. Go back, shorten it and send it again.",
    },
    "refused_429": {
        "zh": "请求太频繁了，请等 {seconds} 秒再试。",
        "en": "Too many requests came from your connection. Please wait {seconds} s, then try "
        "again.",
    },
    "refused_500": {
        "zh": "我们这边出了问题。请再试一次；如果还是不行，请把下面的编号告诉我们。",
        "en": "Something went wrong on our side. Try again; if it stays, tell us the number below.",
    },
    "refused_503": {
        "zh": "现在太忙，请等 {seconds} 秒再试。",
        "en": "It is too busy here just now. Please wait {seconds} s, then try again.",
    },
    "again": {"zh": "再试一次", "en": "Try again"},
    "resend": {
        "zh": "到时请刷新这个页面，浏览器会再发送一次您写的内容。",
        "en": "Then reload this page: the browser sends what you wrote once more.",
    },
    "not_waiting": {
        "zh": "如果事情紧急，请直接从官方应用或官网联系客服。",
        "en": "If it is urgent, reach support through the official app or website at once.",
    },
    "to_start": {"zh": "回到首页", "en": "Back to the start"},
    "number": {"zh": "编号", "en": "Number"},
    # What Gradio says to screen readers; it has no Chinese of its own for some of it.
    "common.loading": {"zh": "请稍候", "en": "One moment"},
    "common.complete": {"zh": "已有回答", "en": "Done"},
    "common.error": {"zh": "没有得到回答", "en": "No answer came back"},
    "status.queue_position": {
        "zh": "排在第 {position} 位，共 {size} 人",
        "en": "Number {position} of {size} in the queue",
    },
}

_TAGS: dict[Language, str] = {"zh": "zh-CN", "en": "en"}


def say(key: str, language: Language) -> str:
    """Return a phrase."""
    return WORDS[key][language]


def tag(language: Language) -> str:
    """Return the BCP 47 tag of a language, as browsers need it to choose a font."""
    return _TAGS[language]


_CHOSEN = re.compile(r"(?:^|;)\s*lang=(zh|en)\s*(?:;|$)")


def preferred(languages: str, cookies: str = "") -> Language:
    """Return the page's language: the one chosen, else Chinese when Accept-Language begins so.

    Both are headers. Gradio's labels go by `navigator.language`, which browsers send first and
    page.js sets to what was chosen; English is its fallback.
    """
    if chosen := _CHOSEN.search(cookies):
        return "zh" if chosen[1] == "zh" else "en"
    return "zh" if languages.strip().lower().startswith("zh") else "en"


def half(sentence: str, language: Language) -> str:
    """Return the half of a two-language sentence ("… / …") in one language."""
    chinese, _, english = sentence.partition(" / ")
    if not english or language_of(chinese) != "zh":
        return sentence
    return english if language == "en" else chinese
