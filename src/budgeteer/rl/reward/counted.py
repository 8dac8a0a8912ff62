"""What is counted in a rollout: words of reflection, steps, repetitions, and whether anything is thought at all.

Each is a column of rollouts that is computed from ``text`` or ``tokens`` where nobody gives it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

import numpy as np

from budgeteer.core.column import Column, declare
from budgeteer.models.chat import KNOWN_TAGS
from budgeteer.rl.reward.protocol import Columns

REFLECTION = {
    "en": (
        "wait", "alternatively", "hold on", "another thought", "verify", "think again", "but", "however", "alternative",
        "check", "double-check", "oh", "hmm",
    ),
    "de": ("moment", "warte", "andererseits", "aber", "allerdings", "nochmal", "prüfe", "überprüfe", "hm"),
    "es": ("espera", "alternativamente", "sin embargo", "pero", "verifico", "verifiquemos", "comprobemos"),
    "fr": ("attends", "attendons", "cependant", "toutefois", "mais", "vérifions", "vérifie"),
    "zh": ("等等", "等一下", "不对", "但是", "然而", "或者", "检查", "验证", "再想想", "重新"),
}  # fmt: skip
"""Language -> words of reflection. The English ones are ARLCP's (arXiv 2602.12113), the others this project's."""
TRANSITION = {
    "en": ("wait", "let me think", "actually", "alternatively", "however", "hold on", "let me check", "hmm"),
    "zh": ("等等", "等一下", "让我想想", "不对", "其实", "然而"),
}
"""Language -> words that an answer has only if it goes on thinking. ThinkDial (arXiv 2508.18773) names the first five
and "..."."""


GRAM = 40
"""Tokens of what counts as a repetition."""


@cache
def pattern(words: Iterable[str]) -> re.Pattern[str]:
    """A pattern that finds whole words, whatever their case; scripts without blanks between words have no whole ones.

    >>> pattern(("oh", "等等")).findall("Oh, ohm: 等等等")
    ['Oh', '等等']
    """
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile(
        "|".join(re.escape(word) if word[0] > "\u2e7f" else rf"\b{re.escape(word)}\b" for word in longest_first),
        re.IGNORECASE,
    )


def _of(words: dict[str, tuple[str, ...]]) -> re.Pattern[str]:
    return pattern(tuple(word for of_language in words.values() for word in of_language))


def split(text: str) -> tuple[str, str]:
    """(what is thought, what is answered): before and behind the first closing tag of thinking that is known.

    A text without one is all thinking if it opens one, else all answer.

    >>> split("<think>\\n7 </think> 8"), split("8"), split("<think> 7")
    (('7', ' 8'), ('', '8'), ('7', ''))
    """
    for tags in KNOWN_TAGS:
        thought, close, answer = text.partition(tags.close)
        opens = text.lstrip().startswith(tags.open)
        if close or opens:
            return thought.replace(tags.open, "", 1).strip(), answer
    return "", text


def behind_opening(text: str) -> str:
    """The text behind a tag that opens its thinking, and the blanks around that; all of it where none does.

    >>> behind_opening("<think>\\n[Easy] 7"), behind_opening("[Easy] <think>")
    ('[Easy] 7', '[Easy] <think>')
    """
    bare = text.lstrip()
    opening = next((tags.open for tags in KNOWN_TAGS if bare.startswith(tags.open)), None)
    return text if opening is None else bare.removeprefix(opening).lstrip()


def _texts(rows: Columns, by: str) -> list[str]:
    return list(rows.column("text", by))


def _reflections(rows: Columns) -> list[int]:
    return [len(_of(REFLECTION).findall(text)) for text in _texts(rows, "reflections")]


def _leaks(rows: Columns) -> list[int]:
    return [len(_of(TRANSITION).findall(split(text)[1])) for text in _texts(rows, "leaks")]


def _steps(rows: Columns) -> list[int]:
    return [sum(bool(part.strip()) for part in re.split(r"\n\s*\n", text)) for text in _texts(rows, "steps")]


def _deliberate(rows: Columns) -> list[int]:
    return [bool(split(text)[0]) * 1 for text in _texts(rows, "deliberate")]


REFLECTIONS = declare(
    Column(
        "reflections",
        "words of reflection in the text: wait, hmm, check, ..., in the languages of budgeteer.rl.reward.counted",
        whole=True,
        needs=("text",),
        make=_reflections,
    ),
    "rollouts",
)
LEAKS = declare(
    Column("leaks", "words of transition behind the thinking", whole=True, needs=("text",), make=_leaks), "rollouts"
)
STEPS = declare(
    Column("steps", "paragraphs of the text, blank lines between them", whole=True, needs=("text",), make=_steps),
    "rollouts",
)
DELIBERATE = declare(
    Column(
        "deliberate",
        "1 for a row that takes the expensive way: thinking, a tool call, a larger image",
        "a trainer with tools or images gives it; else it is whether the text thinks before it answers",
        whole=True,
        most=1,
        needs=("text",),
        make=_deliberate,
    ),
    "rollouts",
)


def looping(tokens: list[int]) -> bool:
    """Whether a text repeats itself: some n-gram comes several times, two of them nearer than a third of the text; or a
    sequence of 2n tokens comes twice, however far apart.

    As in LASER's code, n is 2 below 30 tokens, 3 below 100, else 4, several is 2 times below 200 tokens, else 3, and a
    text of 8 tokens or fewer does not. Unlike there, n-grams of one token over and over count.

    >>> looping([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]), looping([1, 2, 1, 2, 3, 4, 5, 6, 7, 8])
    (False, True)
    >>> eight = list(range(8))
    >>> looping([*eight, *range(100, 250), *eight]), looping([*eight[:7], *range(100, 250), *eight[:7]])
    (True, False)
    """
    length = len(tokens)
    if length <= 8:
        return False
    size = 2 if length < 30 else 3 if length < 100 else 4
    longer = [tuple(tokens[at : at + 2 * size]) for at in range(length - 2 * size + 1)]
    if len(set(longer)) < len(longer):
        return True
    seen: dict[tuple[int, ...], list[int]] = {}
    for at in range(length - size + 1):
        places = seen.setdefault(tuple(tokens[at : at + size]), [])
        places.append(at)
        if len(places) >= (2 if length < 200 else 3) and min(np.diff(places)) < length // 3:
            return True
    return False


def _looping(rows: Columns) -> list[int]:
    tokens = rows.column("tokens", "looping")
    return [looping(row[:size].tolist()) * 1 for row, size in zip(tokens, rows.length, strict=True)]


LOOPING = declare(
    Column("looping", "1 for a row that repeats itself", whole=True, most=1, needs=("tokens",), make=_looping),
    "rollouts",
)


def repeated_share(tokens: list[int], size: int) -> float:
    """Share of the tokens that lie in an n-gram of ``size`` tokens that stood before.

    >>> repeated_share([1, 2, 3, 1, 2, 4], 2)
    0.3333333333333333
    """
    seen: set[tuple[int, ...]] = set()
    inside = np.zeros(len(tokens), np.bool_)
    for at in range(len(tokens) - size + 1):
        gram = tuple(tokens[at : at + size])
        if gram in seen:
            inside[at : at + size] = True
        seen.add(gram)
    return float(inside.mean()) if len(tokens) else 0.0


def _repeated(rows: Columns) -> list[float]:
    tokens = rows.column("tokens", "repeated")
    return [repeated_share(row[:n].tolist(), GRAM) for row, n in zip(tokens, rows.length.tolist(), strict=True)]


REPEATED = declare(
    Column("repeated", f"share of tokens in {GRAM}-grams that stood before", most=1, needs=("tokens",), make=_repeated),
    "rollouts",
)
