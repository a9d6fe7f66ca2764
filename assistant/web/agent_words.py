"""Every word the agents' pages say, in Chinese and English."""

from datetime import timedelta
from typing import Protocol

from assistant.answer import Language


class Say(Protocol):
    """Say a phrase by its key, with values put in."""

    def __call__(self, key: str, **values: object) -> str:
        """Return the phrase."""


WORDS: dict[str, dict[Language, str]] = {
    # Going about
    "search": {"zh": "搜索", "en": "Search"},
    "tickets": {"zh": "工单", "en": "Tickets"},
    "proposals": {"zh": "我的提议", "en": "My proposals"},
    # Search
    "question": {"zh": "用户在问什么", "en": "What is being asked"},
    "document": {"zh": "文件", "en": "Document"},
    "every_document": {"zh": "全部文件", "en": "Every document"},
    "section": {"zh": "章节", "en": "Section"},
    "every_section": {"zh": "全部章节", "en": "Every section"},
    "look_up": {"zh": "搜索", "en": "Search"},
    "search_lead": {
        "zh": "写下用户的问题或几个词，得到指南的原文、出处和匹配的理由。",
        "en": "Type the question or a few words: you get the guide's own words, where they stand "
        "and why they matched.",
    },
    "found": {"zh": "找到 {count} 段，最相近的在前", "en": "{count} passages, the nearest first"},
    "farther": {"zh": "还有 {count} 段，相差较远", "en": "{count} more, much farther off"},
    "nothing": {"zh": "没有找到相关的段落。", "en": "No passage was found."},
    "nothing_here": {
        "zh": "在所选的文件和章节里没有找到。",
        "en": "Nothing was found in the document and section chosen.",
    },
    "everywhere": {"zh": "在整本指南里搜索", "en": "Search the whole guide"},
    "looked_for": {"zh": "按“{words}”搜索", "en": "Looked for “{words}”"},
    "passage": {"zh": "段落", "en": "Passage"},
    "open_source": {"zh": "在指南中查看", "en": "See it in the guide"},
    "before": {"zh": "前一段", "en": "Passage before"},
    "after": {"zh": "后一段", "en": "Passage after"},
    "copy_text": {"zh": "复制原文", "en": "Copy text"},
    "copy_markdown": {"zh": "复制 Markdown（带出处）", "en": "Copy Markdown with source"},
    "copied": {"zh": "已复制", "en": "Copied"},
    "to_copy": {"zh": "可复制的文字", "en": "Words to copy"},
    "as_text": {"zh": "原文", "en": "As text"},
    "as_markdown": {"zh": "Markdown，带出处", "en": "As Markdown, with source"},
    "save": {"zh": "收进指南", "en": "Save this answer for the guide"},
    # Why it matched
    "why": {"zh": "为什么找到它", "en": "Why it matched"},
    "very_near": {"zh": "意思非常接近", "en": "Very near in meaning"},
    "near": {"zh": "意思接近", "en": "Near in meaning"},
    "related": {"zh": "意思有些相关", "en": "Somewhat related in meaning"},
    "far": {"zh": "意思相差较远", "en": "Far in meaning"},
    "by_passage": {"zh": "像整段", "en": "like the whole passage"},
    "by_sentence": {"zh": "像这一句", "en": "like this sentence"},
    "by_variant": {"zh": "像这个问法", "en": "like this way of asking"},
    "whole": {"zh": "整段", "en": "whole passage"},
    "shared": {"zh": "共同的词", "en": "Shared words"},
    "no_shared": {"zh": "没有共同的词", "en": "No shared words"},
    "similarity": {"zh": "相似度（下面两项的平均）", "en": "Similarity (mean of both below)"},
    "similarity_passage": {"zh": "整段的相似度", "en": "Similarity of the whole passage"},
    "similarity_best": {"zh": "最像的一处的相似度", "en": "Similarity of what is nearest"},
    "similarity_then": {"zh": "相似度", "en": "Similarity"},
    "lexical": {"zh": "词语得分（BM25）", "en": "Score by words (BM25)"},
    "coverage": {"zh": "覆盖问题的比例", "en": "Share of the question covered"},
    "score": {"zh": "排序分", "en": "Ranking score"},
    "no_certainty": {
        "zh": "这些数只用来排序，不是把握。",
        "en": "These figures rank; they are no measure of certainty.",
    },
    # Proposals
    "save_lead": {
        "zh": "提议会交给维护者；他们接受之后，这些问法就能找到这段话。",
        "en": "Maintainers see your proposal; once they accept it, these questions find it.",
    },
    "questions": {"zh": "用户会怎么问（每行一个）", "en": "Ways to ask it, one a line"},
    "answered_by": {"zh": "答案是", "en": "It is answered by"},
    "by_reference": {"zh": "指南里的一节", "en": "a section of the guide"},
    "by_own": {"zh": "我写的文字（指南里没有）", "en": "my own words (the guide has none)"},
    "reference": {"zh": "哪一节（文件#标题）", "en": "Which section (file#heading)"},
    "own": {"zh": "答案", "en": "Answer"},
    "propose": {"zh": "提交提议", "en": "Propose"},
    "proposed": {"zh": "已提交，谢谢。", "en": "Proposed, thank you."},
    "no_proposals": {"zh": "您还没有提议。", "en": "You have proposed nothing yet."},
    "proposal_new": {"zh": "等待维护者", "en": "waiting for a maintainer"},
    "proposal_accepted": {"zh": "已接受", "en": "accepted"},
    "proposal_refused": {"zh": "未接受", "en": "not accepted"},
    "no_question": {"zh": "请至少写一个问法。", "en": "Write at least one way to ask it."},
    "too_many": {"zh": "最多写 {most} 个问法。", "en": "At most {most} ways to ask it are taken."},
    "too_long": {
        "zh": "最多写 {most} 个字，现在有 {count} 个。",
        "en": "At most {most} characters are taken; these are {count}.",
    },
    "no_answer": {"zh": "请写下答案。", "en": "Write the answer."},
    "own_left_out": {
        "zh": "您写了答案，选的却是“指南里的一节”：请改选“我写的文字”，或者清空答案。",
        "en": "You wrote an answer, but “a section of the guide” is chosen: choose your own words, "
        "or empty the answer.",
    },
    "no_section": {
        "zh": "指南里没有“{words}”这一节，请写成 文件#标题。",
        "en": "The guide has no section “{words}”; write it as file#heading.",
    },
    "passage_gone": {
        "zh": "当时的段落已不在指南里。",
        "en": "The passage of then is no longer in the guide.",
    },
    # The queue
    "new": {"zh": "待处理", "en": "New"},
    "mine": {"zh": "我的", "en": "Mine"},
    "others": {"zh": "同事的", "en": "With others"},
    "closed": {"zh": "已结束", "en": "Closed"},
    "none_new": {"zh": "没有待处理的工单。", "en": "No ticket is waiting."},
    "none_mine": {"zh": "您手上没有工单。", "en": "You have no ticket."},
    "none_others": {"zh": "同事手上没有工单。", "en": "Nobody else has a ticket."},
    "none_closed": {"zh": "没有已结束的工单。", "en": "No ticket was closed."},
    "none_found": {"zh": "这一栏里没有符合的工单。", "en": "No ticket here matches."},
    "find": {"zh": "编号、联系方式或文字", "en": "Number, contact or text"},
    "filter": {"zh": "筛选", "en": "Filter"},
    "unfiltered": {"zh": "显示全部", "en": "Show all"},
    "more": {"zh": "接下来的工单", "en": "The tickets after these"},
    "ticket": {"zh": "工单 {number}", "en": "Ticket {number}"},
    "urgent": {"zh": "紧急", "en": "Urgent"},
    "reason": {"zh": "原因", "en": "Reason"},
    "state_new": {"zh": "待处理", "en": "new"},
    "state_claimed": {"zh": "处理中", "en": "being worked on"},
    "state_closed": {"zh": "已结束", "en": "closed"},
    "owner": {"zh": "负责人", "en": "Owner"},
    "nobody": {"zh": "还没有人", "en": "nobody yet"},
    "opened": {"zh": "开单", "en": "Opened"},
    "claimed_at": {"zh": "认领", "en": "Claimed"},
    "closed_at": {"zh": "结束", "en": "Closed"},
    "delivery": {"zh": "转发", "en": "Delivery"},
    "delivery_off": {"zh": "不转发", "en": "not forwarded"},
    "delivery_pending": {"zh": "正在转发", "en": "being forwarded"},
    "delivery_delivered": {"zh": "已转发", "en": "forwarded"},
    "delivery_undelivered": {"zh": "没能转发", "en": "could not be forwarded"},
    "up_to_date": {"zh": "每 10 秒自动更新", "en": "Refreshed every 10 seconds"},
    "stale": {
        "zh": "现在无法更新，显示的是旧内容。",
        "en": "Cannot refresh just now; what you see is not up to date.",
    },
    "signed_out": {"zh": "登录已过期，请重新登录。", "en": "You are signed out; sign in again."},
    "arrived": {"zh": "有新的工单", "en": "A new ticket has come in"},
    # One ticket
    "claim": {"zh": "认领", "en": "Claim"},
    "take_over": {"zh": "从 {owner} 那里接手", "en": "Take it over from {owner}"},
    "release": {"zh": "放回", "en": "Release"},
    "release_of": {"zh": "替 {owner} 放回", "en": "Release it for {owner}"},
    "reopen": {"zh": "重新打开", "en": "Reopen"},
    "whole_question": {"zh": "显示全文", "en": "Show all of it"},
    "close": {"zh": "结束工单", "en": "Close the ticket"},
    "notes": {"zh": "备注", "en": "Notes"},
    "no_notes": {"zh": "还没有备注。", "en": "No notes yet."},
    "note": {"zh": "备注", "en": "Note"},
    "note_hint": {
        "zh": "备注只有同事能看到；请用用户留下的联系方式回复用户。手机号和邮箱会原样保留，"
        "密码、验证码、卡号等会被遮住。",
        "en": "Colleagues alone see notes; answer the user where they asked to be reached. Mobile "
        "numbers and e-mail addresses are kept; passwords, codes, card numbers and the like are "
        "masked.",
    },
    "add_note": {"zh": "记下", "en": "Add the note"},
    "no_note": {"zh": "备注是空的。", "en": "The note is empty."},
    "look_it_up": {"zh": "在指南里查这个问题", "en": "Look it up in the guide"},
    "export": {"zh": "导出为文本", "en": "Export as text"},
    "reply_to": {"zh": "怎么联系用户", "en": "How to reach the user"},
    "not_said": {"zh": "没有写", "en": "not said"},
    "filled": {"zh": "用户填写的资料", "en": "What the user filled in"},
    "conversation": {"zh": "对话", "en": "Conversation"},
    "no_conversation": {
        "zh": "对话已不再保存。",
        "en": "The conversation is no longer kept.",
    },
    "asked_before": {"zh": "上一个问题", "en": "Question before"},
    "opened_here": {"zh": "从这里转来", "en": "handed over here"},
    "answered": {"zh": "已回答", "en": "answered"},
    "uncertain": {"zh": "不确定", "en": "uncertain"},
    "unanswered": {"zh": "没有回答", "en": "not answered"},
    "confidence": {"zh": "把握", "en": "confidence"},
    "shown": {"zh": "给出的段落", "en": "Passages given"},
    "vote_up": {"zh": "用户觉得有帮助", "en": "The user found it helpful"},
    "vote_down": {"zh": "用户觉得没有帮助", "en": "The user did not find it helpful"},
    "packet": {"zh": "当时看到的段落", "en": "Passages the user saw"},
    "no_packet": {"zh": "没有给出段落。", "en": "No passage was given."},
    "generation": {"zh": "索引", "en": "Index"},
    "index_moved": {
        "zh": "索引在开单之后更新过，现在是 {now}。",
        "en": "The index has been rebuilt since; it is {now} now.",
    },
    "place_moved": {
        "zh": "这段话还在，位置变了。",
        "en": "The words still stand, at another place.",
    },
    "place_gone": {
        "zh": "现在的指南里没有这段话了。",
        "en": "The guide of now no longer has these words.",
    },
    # Refusals
    "no_page": {"zh": "没有这个页面。", "en": "There is no such page."},
    "typed": {"zh": "您写的内容，请另外保存：", "en": "What you wrote, so that you can keep it:"},
    "not_found": {"zh": "找不到", "en": "Not found"},
    "no_ticket": {
        "zh": "没有这张工单：编号不对，或者已经被用户撤回、过了保存期。",
        "en": "There is no such ticket: the number is wrong, or it was withdrawn or is no longer "
        "kept.",
    },
    "taken": {"zh": "别人已经认领了", "en": "Someone else has it"},
    "taken_by": {"zh": "工单 {number} 在 {owner} 手上。", "en": "{owner} has ticket {number}."},
    "taken_closed": {"zh": "工单 {number} 已经结束。", "en": "Ticket {number} is closed."},
    "taken_free": {
        "zh": "工单 {number} 现在没有人认领，请先认领。",
        "en": "Nobody has ticket {number} now; claim it first.",
    },
    "see_ticket": {"zh": "查看工单 {number}", "en": "See ticket {number}"},
    "to_queue": {"zh": "回到待处理的工单", "en": "Back to the queue"},
    "not_saved": {
        "zh": "没能保存，什么都没有改变。请过一会儿再试。",
        "en": "It could not be saved and nothing was changed. Try again in a moment.",
    },
    "broken": {"zh": "现在用不了", "en": "Not available just now"},
    "no_history": {
        "zh": "现在读不到工单。请稍后再试，或联系维护者。",
        "en": "The tickets cannot be read just now. Try again later, or tell a maintainer.",
    },
    "no_index": {
        "zh": "现在查不到指南。请稍后再试，或联系维护者。",
        "en": "The guide cannot be looked up just now. Try again later, or tell a maintainer.",
    },
}


def say_to_agent(language: Language) -> Say:
    """Return the function that says the phrases of a language."""

    def say(key: str, **values: object) -> str:
        return WORDS[key][language].format(**values) if values else WORDS[key][language]

    return say


_UNITS: tuple[tuple[timedelta, dict[Language, str]], ...] = (
    (timedelta(days=1), {"zh": "{n} 天前", "en": "{n} d ago"}),
    (timedelta(hours=1), {"zh": "{n} 小时前", "en": "{n} h ago"}),
    (timedelta(minutes=1), {"zh": "{n} 分钟前", "en": "{n} min ago"}),
)
_NOW: dict[Language, str] = {"zh": "刚刚", "en": "just now"}


def ago(age: timedelta, language: Language) -> str:
    """Say how long ago something was, in its largest whole unit."""
    for unit, words in _UNITS:
        if age >= unit:
            return words[language].format(n=age // unit)
    return _NOW[language]
