"""Understand a short question from the turn before it, without a language model.

A question that leans on the one before ("那邮件呢", "and by phone?", "要钱吗") says little alone;
looked for together with the turn before it finds a nearer passage. A full question after an
unrelated one finds a nearer passage alone.
"""

import re
from dataclasses import replace

from assistant.fold import fold
from assistant.records import Hit, Ranking

_HAN = re.compile(r"[\u3400-\u9fff]")
_WORD = re.compile(r"[a-z0-9']+")
_LONGEST_HAN, _LONGEST_WORDS = 11, 7
_NEARER = 0.05  # what the pair of turns must gain in similarity ...
_LEANING = -0.2  # ... and what it may lose when the words themselves lean on the turn before
_ANOTHER_SUBJECT, _ASIDE = 0.15, 0.06  # of similarity that is watered down
_READ_ALREADY = 0.1
RIGHT_TOGETHER = 0.6
"""Share of follow-ups surely read with the turn before whose first passage was right (59 of 99, by
scripts/evaluate_followups.py): the confidence is scaled by it, since the curve was fitted to
questions that stand alone."""
_LEANS = re.compile(
    r"^(?:那|然后|还有|另外|如果|要是|万一|或者|不然|所以|但|可是|不过|这样|为什么|为啥|真的)|呢\W*$"
    r"|它|这个|那个|这样|那样|上面|刚才|其中"
    r"|^(?:and|or|but|so|then|also|what (?:about|if|else)|how (?:about|long|come)|why)\b"
    r"|\b(?:it|its|that|those|these|them|they|there|ones?|instead|else|too|either)\b"
)
_OPENERS = re.compile(
    r"^(?:那么?|然后|还有|另外|(?:and|or|but|so|then|also|what about|how about)\b)[,，、\s]*"
    r"|呢?\W*$",
    re.IGNORECASE,
)


def is_short(question: str) -> bool:
    """Tell whether a question is short enough to lean on the one before it."""
    text = fold(question)
    han, words = len(_HAN.findall(text)), len(_WORD.findall(text))
    return han + words <= _LONGEST_HAN if han else words <= _LONGEST_WORDS


def joined(previous: str, question: str) -> str:
    """Return what to look for: the turn before, and what the question adds to it."""
    return f"{previous} {_OPENERS.sub('', question.strip()) or question}"


def follows(question: str, alone: Ranking, together: Ranking, before: Ranking) -> bool:
    """Tell whether a short question is to be read with the turn before, by what each way found."""
    if not together.hits:
        return False
    if not alone.hits:
        return True
    gain = together.hits[0].similarity - alone.hits[0].similarity
    if gain > _LEANING and _leans(question):
        return True
    return gain > _NEARER and watered(together, before) < _ANOTHER_SUBJECT


def is_sure(question: str, together: Ranking, before: Ranking) -> bool:
    """Tell whether a question that is read with the turn before is surely about the same."""
    return _leans(question) or watered(together, before) < _ASIDE


def watered(together: Ranking, before: Ranking) -> float:
    """Return how much similarity the turn before loses by what the question adds to it.

    Words that lead on lose hardly any (0.01 on average over follow-ups), unrelated ones 0.15.
    """
    return before.hits[0].similarity - together.hits[0].similarity if before.hits else 0.0


def _leans(question: str) -> bool:
    return bool(_LEANS.search(fold(question).strip()))


def read_together(question: str, alone: Ranking, together: Ranking, before: Ranking) -> Ranking:
    """Return the ranking of both turns, given what each found and what both found together.

    "And X?" changes the subject: there X counts again, and the passage that answered the turn
    before has been read.
    """
    asked = question.strip()
    if _OPENERS.sub("", asked) == asked.rstrip("?？!！。. "):
        return together
    own = {hit.row: hit.score for hit in alone.hits}
    read = {hit.row for hit in before.hits[:1]}

    def score(hit: Hit) -> float:
        return hit.score + own.get(hit.row, 0.0) - _READ_ALREADY * (hit.row in read)

    hits = sorted(together.hits, key=lambda hit: (-score(hit), hit.row))
    return replace(together, hits=tuple(hits))
