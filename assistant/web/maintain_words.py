"""Every word the maintainers' pages say, in Chinese and English; `{name}` is filled in."""

from datetime import timedelta

from assistant.answer import Language
from assistant.web.office_words import words as of_the_frame

WORDS: dict[str, dict[Language, str]] = {
    # --- The index
    "index": {"zh": "索引", "en": "Index"},
    "in_use": {"zh": "正在使用", "en": "in use"},
    "generation": {"zh": "索引版本", "en": "Generation"},
    "made": {"zh": "建成时间", "en": "Made"},
    "made_ago": {"zh": "{at}，{ago}", "en": "{at}, {ago}"},
    "model": {"zh": "模型", "en": "Model"},
    "model_of": {"zh": "{name}，{dimensions} 维", "en": "{name}, {dimensions} dimensions"},
    "fingerprint": {"zh": "模型指纹", "en": "Model fingerprint"},
    "splitting": {"zh": "切分", "en": "Splitting"},
    "splitting_of": {
        "zh": "每段最多 {chars} 字，向量精度 {precision}",
        "en": "at most {chars} characters a passage, vectors in {precision}",
    },
    "cuts": {"zh": "把握的界限", "en": "Cuts of confidence"},
    "cuts_of": {
        "zh": "{answered} 起直接回答，低于 {refused} 转人工",
        "en": "answered from {answered}, handed over below {refused}",
    },
    "reserved": {
        "zh": "现在没有问题会被直接回答：目前只有 {count} 个标注问题，大约需要 100 到 200 个"
        "（{folder} 里的 .yaml 文件）；也可以调高 answered_risk。",
        "en": "Nothing will be answered without reserve: {count} labelled questions so far, some "
        "100 to 200 are needed (.yaml files in {folder}), or raise answered_risk.",
    },
    "reserved_all": {
        "zh": "现在没有问题会被直接回答：没有一个把握程度能保证 answered_risk。请调高它，"
        "或先改好评测里没有答好的问题。",
        "en": "Nothing will be answered without reserve: no confidence keeps answered_risk. Raise "
        "it, or mend what fails in the evaluation.",
    },
    "files": {"zh": "文件", "en": "Files"},
    "sections": {"zh": "章节", "en": "Sections"},
    "passages": {"zh": "段落", "en": "Passages"},
    "views": {"zh": "检索视图", "en": "Views"},
    "notes": {"zh": "需要处理", "en": "To be looked at"},
    # --- What changed
    "changes": {"zh": "建成之后指南的变化", "en": "What changed in the guide since"},
    "no_changes": {
        "zh": "指南文件与建成时完全一样（按 SHA-256 比较）。",
        "en": "Every file of the guide is as it was (compared by SHA-256).",
    },
    "changes_wait": {
        "zh": "下面的变化要重建以后才会生效。",
        "en": "These changes take effect with the next build.",
    },
    "added": {"zh": "新增", "en": "Added"},
    "changed": {"zh": "改动", "en": "Changed"},
    "removed": {"zh": "删除", "en": "Removed"},
    "skipped": {"zh": "没有读取的文件", "en": "Files that were not read"},
    "warnings": {"zh": "读取了但请检查的文件", "en": "Files that were read but want a look"},
    "file": {"zh": "文件", "en": "File"},
    "why": {"zh": "原因", "en": "Why"},
    # --- Building
    "rebuild": {"zh": "重建索引", "en": "Rebuild the index"},
    "rebuild_lead": {
        "zh": "重建在后台进行，页面照常回答；完成后自动换上新索引。",
        "en": "A build runs in the background while pages go on answering; the new index takes "
        "over when it is whole.",
    },
    "run_never": {
        "zh": "服务启动以来还没有重建过。",
        "en": "Nothing was built since the server started.",
    },
    "run_running": {"zh": "正在重建：{stage}", "en": "Building: {stage}"},
    "run_done": {
        "zh": "重建完成，用时 {seconds} 秒，新索引已启用。",
        "en": "Built in {seconds} s; the new index is in use.",
    },
    "run_left": {
        "zh": "重建完成，用时 {seconds} 秒；建成的索引 {id} 现在没有使用。",
        "en": "Built in {seconds} s; that index, {id}, is not the one in use now.",
    },
    "run_busy": {
        "zh": "另一个程序正在重建这个索引，这一次没有开始。等它结束后再按一次。",
        "en": "Another program is building this index, so this build did not begin. "
        "Press again when that one has ended.",
    },
    "run_dropped": {
        "zh": "新索引答对的问题比现在的少，没有换上；现在的索引继续使用。",
        "en": "The new index answers fewer questions right, so it was not taken; the one in use "
        "stays.",
    },
    "run_failed": {
        "zh": "重建没有完成，现在的索引没有变。",
        "en": "The build did not end well; the index in use is unchanged.",
    },
    "run_stopped": {
        "zh": "服务停止，重建中断，现在的索引没有变。",
        "en": "The server was stopped, and the build with it; the index in use is unchanged.",
    },
    "unknown_error": {
        "zh": "发生了意外的错误，详情在服务器日志里。",
        "en": "Something unexpected went wrong; the server's log has it.",
    },
    "force": {"zh": "仍然重建并换上", "en": "Build all the same"},
    "force_lead": {
        "zh": "如果这是您要的结果（例如标注问题已经过时），可以不顾这项检查再建一次。",
        "en": "If that is what you want (the labelled questions may be out of date), build again "
        "without this check.",
    },
    "started_by": {"zh": "{by} 于 {at} 开始", "en": "Started by {by} at {at}"},
    "log": {"zh": "过程", "en": "Log"},
    "progress": {"zh": "进度", "en": "Progress"},
    "log_line": {"zh": "{began} 秒　{stage}　{count}", "en": "{began} s  {stage}  {count}"},
    "stage_start": {"zh": "开始", "en": "starting"},
    "stage_read": {"zh": "读取指南文件", "en": "reading the guide's files"},
    "stage_embed": {"zh": "计算向量", "en": "embedding"},
    "stage_write": {"zh": "写入索引", "en": "writing the index"},
    "stage_calibrate": {"zh": "校准把握", "en": "calibrating the confidence"},
    "stage_ask": {"zh": "提问标注问题", "en": "asking the labelled questions"},
    "stage_against": {"zh": "提问用来对比的索引", "en": "asking the index to compare with"},
    "stage_report": {"zh": "写出报告", "en": "writing the report"},
    "built_files": {"zh": "读取的文件", "en": "Files read"},
    "built_views": {
        "zh": "{views}（{reused} 个沿用，{encoded} 个新算）",
        "en": "{views} ({reused} reused, {encoded} encoded)",
    },
    # --- Generations
    "generations": {"zh": "磁盘上的索引版本", "en": "Generations on disk"},
    "hashes": {"zh": "校验", "en": "Hashes"},
    "whole_at": {"zh": "完好，{at} 校验", "en": "whole, checked at {at}"},
    "damaged": {"zh": "损坏：{problem}", "en": "Damaged: {problem}"},
    "verify": {"zh": "现在校验", "en": "Check the hashes now"},
    "verify_lead": {
        "zh": "重新计算每个文件的 SHA-256，与清单比较。",
        "en": "Computes the SHA-256 of every file anew and compares it with the manifest.",
    },
    "recall": {"zh": "首段答对", "en": "First passage right"},
    "roll_back": {"zh": "退回上一个版本", "en": "Roll back"},
    "roll_back_ask": {"zh": "退回到 {id}？", "en": "Roll back to {id}?"},
    "roll_back_lead": {
        "zh": "之后的提问由 {id}（建成于 {at}）回答。{now} 留在磁盘上；"
        "指南文件不变，再次重建就会回到最新内容。",
        "en": "Questions will be answered by {id}, made at {at}. {now} stays on disk; the guide's "
        "files stay as they are, and the next build brings their content back.",
    },
    "roll_back_do": {"zh": "退回", "en": "Roll back"},
    "roll_back_none": {
        "zh": "没有更早的完好的索引可以退回。",
        "en": "There is no earlier whole generation to go back to.",
    },
    "cancel": {"zh": "取消", "en": "Cancel"},
    # --- Passages
    "passages_lead": {
        "zh": "左边是建索引时的原文，右边是切出来的段落；没有进入段落的文字以灰色显示。",
        "en": "The document as it was indexed, next to the passages it was cut into; text outside "
        "of every passage is grey.",
    },
    "document": {"zh": "文档", "en": "Document"},
    "show": {"zh": "查看", "en": "Show"},
    "no_document": {
        "zh": "索引里没有这个文档。",
        "en": "The index has no such document.",
    },
    "source": {"zh": "原文", "en": "Source"},
    "passage": {"zh": "段落", "en": "Passage"},
    "passage_number": {"zh": "第 {number} 段", "en": "Passage {number}"},
    "offsets": {
        "zh": "字符 {start}–{end}，共 {length} 字",
        "en": "characters {start}–{end}, {length} in all",
    },
    "views_of": {"zh": "检索视图（{count}）", "en": "Views ({count})"},
    "view_passage": {"zh": "整段", "en": "whole passage"},
    "view_sentence": {"zh": "句子", "en": "sentence"},
    "view_variant": {"zh": "问法", "en": "question"},
    "of_passages": {
        "zh": "共 {count} 段，第 {first}–{last} 段",
        "en": "passages {first}–{last} of {count}",
    },
    "before": {"zh": "前面的", "en": "Earlier ones"},
    "after": {"zh": "后面的", "en": "Later ones"},
    # --- The report
    "report": {"zh": "评测报告", "en": "Evaluation"},
    "report_lead": {
        "zh": "用标注问题（{folder}）测量现在的索引；不参与拟合的问题优先。",
        "en": "Measures the index in use on the labelled questions of {folder}, those "
        "that nothing was fitted on where there are any.",
    },
    "measure": {"zh": "开始评测", "en": "Measure now"},
    "against": {"zh": "对比", "en": "Compare with"},
    "against_none": {"zh": "不对比", "en": "nothing"},
    "measure_never": {
        "zh": "服务启动以来还没有评测过。",
        "en": "Nothing was measured since the server started.",
    },
    "measure_running": {"zh": "正在评测：{stage}", "en": "Measuring: {stage}"},
    "measure_done": {"zh": "评测完成，用时 {seconds} 秒。", "en": "Measured in {seconds} s."},
    "measure_failed": {"zh": "评测没有完成。", "en": "The measuring did not end well."},
    "measure_stopped": {
        "zh": "服务停止，评测中断。",
        "en": "The server was stopped, and the measuring with it.",
    },
    "last_report": {"zh": "最近一次报告", "en": "The last report"},
    "report_at": {"zh": "写于 {at}", "en": "written at {at}"},
    "no_report": {"zh": "还没有报告。", "en": "There is no report yet."},
    "open_alone": {"zh": "单独打开", "en": "Open it alone"},
    "quality": {"zh": "各版本的质量", "en": "Quality of each generation"},
    "calibration_error": {"zh": "校准误差", "en": "Calibration error"},
    "auroc": {"zh": "AUROC", "en": "AUROC"},
    "days": {"zh": "每天的提问", "en": "Questions by day"},
    "days_lead": {
        "zh": "日期按 UTC。条形图：实心为已回答，斜线为不确定，空心为未回答。",
        "en": "Days are UTC. Bars: solid is answered, hatched uncertain, hollow unanswered.",
    },
    "no_days": {"zh": "这段时间没有提问。", "en": "Nothing was asked in this time."},
    "day": {"zh": "日期", "en": "Day"},
    "asks": {"zh": "提问", "en": "Asked"},
    "answered": {"zh": "已回答", "en": "Answered"},
    "uncertain": {"zh": "不确定", "en": "Uncertain"},
    "unanswered": {"zh": "未回答", "en": "Unanswered"},
    "up": {"zh": "赞", "en": "Up"},
    "down": {"zh": "踩", "en": "Down"},
    "tickets": {"zh": "工单", "en": "Tickets"},
    "bars": {"zh": "图", "en": "Bars"},
    "all_days": {"zh": "合计", "en": "In all"},
    # --- Gaps
    "gaps": {"zh": "缺口", "en": "Gaps"},
    "gaps_lead": {
        "zh": "没有答上来或被踩的提问，按意思归在一起，问得多的在前。投票本身不会改变索引。",
        "en": "Questions that went unanswered or were voted down, gathered by meaning, the most "
        "asked first. Votes change nothing by themselves.",
    },
    "last_days": {"zh": "最近几天", "en": "Last days"},
    "day_count": {"zh": "{count} 天", "en": "{count} days"},
    "gap_count": {
        "zh": "{turns} 次提问，{gaps} 个缺口",
        "en": "{turns} questions, {gaps} gaps",
    },
    "no_gaps": {"zh": "这段时间没有缺口。", "en": "There are no gaps in this time."},
    "as_csv": {"zh": "导出 CSV", "en": "Export as CSV"},
    "times": {"zh": "{count} 次", "en": "{count} times"},
    "unanswered_times": {"zh": "未回答 {count}", "en": "{count} unanswered"},
    "down_times": {"zh": "被踩 {count}", "en": "{count} voted down"},
    "newest": {"zh": "最近：{at}", "en": "newest: {at}"},
    "nearest": {"zh": "最接近的段落", "en": "Nearest passage"},
    "similarity": {"zh": "相似度 {value}", "en": "similarity {value}"},
    "nothing_near": {"zh": "没有接近的段落。", "en": "No passage comes near."},
    "other_wordings": {"zh": "其他问法（{count}）", "en": "Other wordings ({count})"},
    "covered": {"zh": "指南里已有这一问", "en": "in the guide by now"},
    "make_entry": {"zh": "写成问答条目", "en": "Make it a Q&A entry"},
    "only_first": {
        "zh": "这里列出前 {count} 个，其余在 CSV 里。",
        "en": "The first {count} are listed; the CSV has them all.",
    },
    "reason_": {"zh": "未说明", "en": "no reason given"},
    "reason_wrong_passage": {"zh": "段落不对", "en": "wrong passage"},
    "reason_not_enough": {"zh": "内容不够", "en": "not enough"},
    "reason_outdated": {"zh": "过时了", "en": "outdated"},
    "reason_unclear": {"zh": "看不明白", "en": "unclear"},
    "reason_other": {"zh": "其他", "en": "other"},
    # --- Proposals
    "proposals": {"zh": "提议", "en": "Proposals"},
    "proposals_lead": {
        "zh": "接受后写入 {file}，下一次重建生效。",
        "en": "What is accepted is written to {file} and takes effect with the next build.",
    },
    "new_entry": {"zh": "新的问答条目", "en": "New Q&A entry"},
    "to_decide": {"zh": "待决定（{count}）", "en": "To decide ({count})"},
    "none_to_decide": {"zh": "没有待决定的提议。", "en": "There is nothing to decide."},
    "accepted": {"zh": "已接受", "en": "Accepted"},
    "refused": {"zh": "已拒绝", "en": "Refused"},
    "proposal": {"zh": "提议 {number}", "en": "Proposal {number}"},
    "proposed_by": {
        "zh": "{author} 于 {at} 提出（来自：{origin}）",
        "en": "proposed by {author} at {at} (from: {origin})",
    },
    "will_be_written": {"zh": "将写入的内容", "en": "What will be written"},
    "cannot_accept": {"zh": "现在不能接受：{problem}", "en": "Cannot be accepted: {problem}"},
    "odd_contacts": {
        "zh": "回答里有不在官方联系名单（contacts.toml）上的联系方式：{contacts}。"
        "接受后用户会看到它们，请先核实。",
        "en": "The answer names contacts that are not on the operator's list (contacts.toml): "
        "{contacts}. Users would see them: make sure that they are right.",
    },
    "elsewhere": {
        "zh": "“{question}”已经指向 {place}。",
        "en": "“{question}” leads to {place} already.",
    },
    "origin_gap": {"zh": "缺口", "en": "a gap"},
    "origin_search": {"zh": "查找", "en": "a search"},
    "origin_maintainer": {"zh": "维护页", "en": "these pages"},
    "origin_ticket": {"zh": "工单 {number}", "en": "ticket {number}"},
    "accept": {"zh": "接受", "en": "Accept"},
    "refuse": {"zh": "拒绝", "en": "Refuse"},
    "change_first": {"zh": "改写", "en": "Rewrite"},
    "note": {"zh": "备注（可不填）", "en": "Note (may be empty)"},
    "decided": {"zh": "{by} 于 {at}", "en": "{by} at {at}"},
    "standing_built": {"zh": "已在索引中", "en": "in the index"},
    "standing_waiting": {"zh": "等待下一次重建", "en": "waits for the next build"},
    "standing_gone": {
        "zh": "文件里已没有这一条",
        "en": "no longer in the file",
    },
    "entry_questions": {
        "zh": "用户的问法，一行一个",
        "en": "What users ask, one question a line",
    },
    "entry_passage": {"zh": "回答它的段落", "en": "The passage that answers"},
    "entry_passage_hint": {
        "zh": "文件#标题。指南里有答案时填这一项。",
        "en": "file#heading. Fill this in when the guide has the answer.",
    },
    "entry_answer": {"zh": "或者：您写的回答", "en": "Or an answer of your own"},
    "entry_answer_hint": {
        "zh": "指南里没有答案时填这一项，并把上面清空。用户会逐字看到它。",
        "en": "Fill this in, and empty the one above, when the guide has none. Users see it word "
        "for word.",
    },
    "propose": {"zh": "保存为提议", "en": "Save as a proposal"},
    "propose_and_accept": {"zh": "保存并接受", "en": "Save and accept"},
    "entry_gone": {
        "zh": "这个缺口已经不在列表里，请直接填写。",
        "en": "That gap is not in the list any more; fill in the form.",
    },
    "entry_both": {
        "zh": "段落和回答您都填了，请清空其中一项。",
        "en": "You gave both a passage and an answer; empty one.",
    },
    "entry_one_of": {
        "zh": "请写至少一个问法，并在段落和回答中填一项。",
        "en": "Write at least one question, and either a passage or an answer.",
    },
    # --- Everything
    "export": {"zh": "导出全部对话（JSONL）", "en": "Export all conversations (JSONL)"},
    "trouble": {"zh": "没有完成", "en": "That did not work"},
    "ago_now": {"zh": "刚刚", "en": "just now"},
    "ago_minutes": {"zh": "{count} 分钟前", "en": "{count} min ago"},
    "ago_hours": {"zh": "{count} 小时前", "en": "{count} h ago"},
    "ago_days": {"zh": "{count} 天前", "en": "{count} days ago"},
}


def words(language: Language, key: str, **values: object) -> str:
    """Return a phrase of these pages, or of the frame around them, its `{name}`s filled in."""
    if key not in WORDS:
        return of_the_frame(key, language, **values)
    phrase = WORDS[key][language]
    return phrase.format(**values) if values else phrase


# What loading says of a file, which is English: the phrases that are always the same.
_REASONS = {
    "empty": "空文件",
    "no text in it": "里面没有文字",
    "a binary file": "二进制文件",
    "not a guide file; read are": "不是指南文件，能读的有",
    "contacts that are not on the operator's list": "有不在官方联系名单上的联系方式",
    "it has the same content as": "内容与它相同：",
    "no heading without a space behind the #": "# 后面没有空格，不算标题",
    "there is none": "没有这个文件",
    "it has no [[channel]]": "里面没有 [[channel]]",
    "whoever needs a person is shown no way to one": "需要人工的用户看不到任何联系方式",
    "The shipped one explains how to write it": "写法见随附指南里的同名文件",
    "names no section of the guide": "在指南里没有对应的章节",
    "nothing is quoted for it": "不会引用任何段落",
    "did you mean": "是不是",
    "remove one of them": "请删除其中一个",
    "cannot be read": "无法读取",
    "Save it as UTF-8": "请存为 UTF-8",
}


def reason(said: str, language: Language) -> str:
    """Return why a file is named, its fixed phrases in the page's language."""
    if language == "zh":
        for english, chinese in _REASONS.items():
            if english != "empty" or said == english:
                said = said.replace(english, chinese)
    return said


def origin(name: str, language: Language) -> str:
    """Return in words where a proposal came from: "gap", "search", "maintainer", "ticket 12"."""
    kind, _, number = name.partition(" ")
    return words(language, f"origin_{kind}", number=number) if f"origin_{kind}" in WORDS else name


def ago(age: timedelta, language: Language) -> str:
    """Return how long ago something was."""
    minutes = int(age.total_seconds() // 60)
    if minutes < 1:
        return words(language, "ago_now")
    if minutes < 120:
        return words(language, "ago_minutes", count=minutes)
    if minutes < 48 * 60:
        return words(language, "ago_hours", count=minutes // 60)
    return words(language, "ago_days", count=minutes // (24 * 60))
