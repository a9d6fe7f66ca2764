"""Every word of the pages behind the sign-in, in Chinese and English; `{name}` is filled in."""

from assistant.answer import Language

WORDS: dict[str, dict[Language, str]] = {
    # --- Frame of every page
    "product": {"zh": "客服助手", "en": "Support assistant"},
    "skip": {"zh": "跳到正文", "en": "Skip to the content"},
    "pages": {"zh": "页面", "en": "Pages"},
    "maintain_pages": {"zh": "维护", "en": "Maintenance"},
    "nav_agent": {"zh": "搜索", "en": "Search"},
    "nav_tickets": {"zh": "工单", "en": "Tickets"},
    "nav_maintain": {"zh": "维护", "en": "Maintain"},
    "nav_index": {"zh": "索引", "en": "Index"},
    "nav_gaps": {"zh": "缺口", "en": "Gaps"},
    "nav_proposals": {"zh": "提议", "en": "Proposals"},
    "nav_passages": {"zh": "段落", "en": "Passages"},
    "nav_report": {"zh": "评测", "en": "Report"},
    "other_language": {"zh": "English", "en": "中文"},
    "sign_out": {"zh": "退出登录", "en": "Sign out"},
    "copy": {"zh": "复制", "en": "Copy"},
    "copied": {"zh": "已复制", "en": "Copied"},
    "role_agent": {"zh": "客服", "en": "agent"},
    "role_maintainer": {"zh": "维护者", "en": "maintainer"},
    # --- Sign-in
    "sign_in": {"zh": "登录", "en": "Sign in"},
    "name": {"zh": "用户名", "en": "Name"},
    "password": {"zh": "密码", "en": "Password"},
    "token": {"zh": "令牌", "en": "Token"},
    "with_token": {"zh": "用令牌登录", "en": "Sign in with a token"},
    "token_hint": {
        "zh": "令牌在服务启动时显示，或由管理员给您。",
        "en": "The token is shown where the server was started, or given to you by its operator.",
    },
    "wrong": {
        "zh": "用户名、密码或令牌不对，请检查后再试。",
        "en": "That name, password or token is not right. Check it and try again.",
    },
    "stale": {
        "zh": "这个页面放得太久了，请再登录一次。",
        "en": "This page had been open too long. Please sign in once more.",
    },
    "signed_in_as": {"zh": "已登录：{name}（{role}）", "en": "Signed in as {name} ({role})"},
    # --- Refusals
    "not_allowed": {"zh": "没有权限", "en": "Not allowed"},
    "ended": {"zh": "登录已过期", "en": "Your sign-in has ended"},
    "only_for": {
        "zh": "这个页面只对{role}开放。您现在的身份是{mine}。",
        "en": "This page is for the role {role}. You are signed in with the role {mine}.",
    },
    "old_form": {
        "zh": "这个表单已经失效，没有做任何改动。请返回，刷新页面后再试。",
        "en": "This form is out of date; nothing was changed. Go back, reload the page, try again.",
    },
    "signed_out": {
        "zh": "没有做任何改动。请重新登录，再提交一次。",
        "en": "Nothing was changed. Sign in and send it once more.",
    },
    "typed": {"zh": "您写的内容，请另外保存：", "en": "What you wrote, so that you can keep it:"},
    "back": {"zh": "返回", "en": "Back"},
}


def words(key: str, language: Language, **values: object) -> str:
    """Return a phrase in a language, its `{name}`s filled in."""
    phrase = WORDS[key][language]
    return phrase.format(**values) if values else phrase
