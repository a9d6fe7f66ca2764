"""Tell a question for a price, and a passage that names none and so cannot answer it.

Signals of likeness do not: "is the hotline free" is as near to the passage on the hotline as "what
is the hotline for" (docs/retrieval.md has the figures).
"""

import re

from assistant.fold import fold
from assistant.records import Hit, Quote

# A price is asked for, not complained of, paid or sought: "要收费吗", not "乱收费" nor "怎么付钱";
# "do you charge", not "dispute a charge"; "is it free", not "feel free".
_END = r"(?:吗|么|嘛|吧|\?|(?:不|没|没有)(?:[?,。!]|$))"
_SUM = "(?:钱|手续费|服务费|通?话费|电话费|费用?)"
_VERB = "(?:要|收|花|付|交|算|用|得|有)"
_HINT = re.compile("费|钱|价|free|cost|charge|fee|price|pay|how much")  # in all that is asked so
_ASKED = re.compile(
    rf"(?:收费|计费|付费|免费)的?{_END}"
    rf"|{_VERB}(?:不|没){_VERB}[收花付交]?{_SUM}"
    rf"|(?<![多乱已被])(?:{_VERB}|收取|产生|需要){_SUM}{_END}"
    rf"|扣(?:手续费|服务费|费用){_END}"
    r"|(?:怎么|如何)\w{0,2}(?:收费|计费)"
    r"|(?:是不是|是否|会不会|有没有)\w{0,4}(?:收费|计费|付费|免费|花钱|手续费|服务费)"
    r"|(?:要不要|需不需要|用不用)\w{0,4}(?:[收付]费|[花付交收给]钱|手续费|服务费)"
    rf"|(?:[要收花付交扣算得充]|需要?|是)多少{_SUM}|(?<![有剩了欠退余赔])多少{_SUM}(?:[一每?]|$)"
    "|(?:手续费|服务费|话费|费用|资费|收费)(?:标准)?(?:是|要|大概|一般)?(?:多少|几|怎么算)"
    "|收费标准|费率|什么价|(?:价格|价钱)(?:是|要|大概)?(?:多少|怎么样|如何|表|吗|[?]|$)"
    r"|\b(?:is|are|for)\b[^.!]{0,60}(?<!toll[- ])(?<!feel )\bfree\b(?! (?:to|from|of (?!charge)))"
    r"|\bwhat\b[^.!]{0,60}(?<!this )(?<!that )\b(?:costs?|price|fees?)\b"
    r"|\bhow much\b[^.!]{0,60}\b(?:costs?|price|charge|fees?|pay)\b"
    r"|\bhow much (?:is|are) (?:a|an|the|it|this|that|your)\b"
    r"|\b(?:is|are) there (?:an?|any) (?:\w+ )?(?:fees?|charges?|costs?)\b(?! (?:i|on|from|that)\b)"
    r"|\bany (?:fees?|charges?|costs?) (?:for|to)\b|\bthere (?:fees|charges|costs) for\b"
    r"|\b(?:do|does|will|would)\b[^.!]{0,40}(?<!the )\bcost\b"
    r"|(?<!why )\b(?:do|does|will|would) (?:you|they|we|it|support|topay)(?: guys)? charge\b"
    r"|\b(?:will|would|do|can) i (?:be |get )charged\b|\b(?:have|need) to pay (?!attention)"
)
_NAMED = re.compile(
    "费|钱(?!包)|元|价|免收|收取|额度|限额|[¥$€£]|[0-9] ?(?:%|块)"
    r"|\b(?:fees?|free|charge[sd]?|costs?|price[sd]?|rates?|paid|pay|payable"
    r"|usd|cny|rmb|hkd|eur|gbp|dollars?|euros?|pounds?|yuan|cents?)\b"
)


def is_unpriced(question: str, found: Hit | Quote) -> bool:
    """Tell whether a question asks for a price, and neither passage nor headings name any."""
    asked = fold(question)
    if not (_HINT.search(asked) and _ASKED.search(asked)):
        return False
    passage = found.chunk if isinstance(found, Hit) else found
    return not any(_NAMED.search(fold(text)) for text in (*passage.headings, passage.text))
