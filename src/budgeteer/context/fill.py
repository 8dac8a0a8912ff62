"""Keep pieces one after another as long as they fit, exact to the token."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from budgeteer.context.pieces import Talk, talk_of
from budgeteer.context.protocol import Count, Encode, Message, Reducer, text_of, texts_of
from budgeteer.core.bisection import largest
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64

Pick = Callable[[Sequence[int], Sequence[int]], int | None]
"""(pieces kept so far, in the order they were kept; pieces not looked at yet) -> the next one; None = no more."""
Span = tuple[int, int, float]
"""First character of a token, the one behind its last, its weight."""
_WORDS = re.compile(r"\s*(\S+)\s*")
_SEAM = 4
"""Tokens by which a piece may count otherwise inside its message than alone."""


class Word(NamedTuple):
    """A word with the blanks behind it, and what it is worth."""

    text: str
    weight: float


def fill(talk: Talk, pick: Pick, budget: int, count: Count) -> list[Message]:
    """Keep the pieces that ``pick`` names, one by one; what does not fit is passed over.

    The whole prompt is counted where a sum of the pieces' own counts leaves a doubt, and at the end.

    Raises:
        InvalidInput: what has to stay is above the budget.
    """
    return talk.keep(filled(talk, pick, budget, count))


def filled(talk: Talk, pick: Pick, budget: int, count: Count) -> list[int]:
    """As :func:`fill`: the numbers of the pieces, in the order they were kept."""
    known = talk.bare(budget, count)
    sizes, opening = Sizes(talk, count), {talk.group[number] for number in talk.fixed | talk.held}
    kept: list[int] = []
    left = list(range(len(talk.pieces)))
    since = unsure = 0
    while left and (number := pick(kept, left)) is not None:
        left.remove(number)
        home = talk.group[talk.pieces[number].message]
        size = sizes.piece(number) + (0 if home in opening else sizes.group(home))
        if since and known + since + size > budget - _SEAM * (unsure + 1):
            known, since, unsure = count(talk.keep(kept)), 0, 0
        if known + since + size > budget + _SEAM:
            continue
        if known + since + size > budget - _SEAM * (unsure + 1):
            if (exact := count(talk.keep([*kept, number]))) > budget:
                continue
            known, since, unsure = exact, 0, 0
        else:
            since, unsure = since + size, unsure + 1
        kept.append(number)
        opening.add(home)
    while kept and count(talk.keep(kept)) > budget:
        kept.pop()
    return kept


class Sizes:
    """The tokens of pieces and of messages without text, each counted once and alone: estimates."""

    def __init__(self, talk: Talk, count: Count) -> None:
        self._talk, self._count = talk, count
        self._nothing = self._tokens("")
        self._pieces: dict[int, int] = {}
        self._groups: dict[int, int] = {}

    def piece(self, number: int) -> int:
        """The tokens of a piece."""
        if number not in self._pieces:
            self._pieces[number] = self._tokens(self._talk.pieces[number].text) - self._nothing
        return self._pieces[number]

    def group(self, home: int) -> int:
        """The tokens of a group's messages without their texts."""
        if home not in self._groups:
            about = [
                " ".join(texts_of(_without_text(message)))
                for message, group in zip(self._talk.messages, self._talk.group, strict=True)
                if group == home
            ]
            pair = [{"role": role, "content": ""} for role in ("user", "assistant")]
            more = self._count(pair) - self._nothing
            self._groups[home] = sum(more + self._tokens(text) - self._nothing for text in about)
        return self._groups[home]

    def _tokens(self, text: str) -> int:
        return self._count([{"role": "user", "content": text}])


def _without_text(message: Message) -> Message:
    content = message.get("content")
    parts = [part for part in content if text_of(part) is None] if isinstance(content, list) else None
    return {**message, "content": parts}


def in_order(order: Sequence[int]) -> Pick:
    """Pick pieces in a fixed order."""
    queue = iter(order)
    return lambda kept, left: next(queue, None)


def by_score(score: Callable[[str, list[str]], F64]) -> Reducer:
    """The reducer that keeps the pieces of the highest scores; of equal ones the newest.

    Args:
        score: (question, texts [n]) -> [n].
    """

    def reduce(messages: Sequence[Message], budget: int, count: Count) -> list[Message]:
        talk = talk_of(messages)
        scores = scores_of(score, talk.question, talk.texts)
        order = sorted(range(len(talk.pieces)), key=lambda number: (-scores[number], -number))
        return fill(talk, in_order(order), budget, count)

    return reduce


def scores_of(score: Callable[[str, list[str]], F64], question: str, texts: list[str]) -> F64:
    """What a scorer or reranker makes of texts, [n]; it is not asked where there is nothing to score.

    Raises:
        InvalidInput: it gave no finite number for each text, such as nothing at all.
    """
    if not texts:
        return np.zeros(0)
    _require_function(score, "rerank")
    given = score(question, texts)
    try:
        scores = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        scores = np.full(1, np.nan)
    if scores.shape != (len(texts),) or not np.isfinite(scores).all():
        raise InvalidInput(
            f"the scorer gave {_said(given)} for {len(texts)} texts; return a finite number for each, higher for "
            "what is more useful"
        )
    return scores


def _require_function(given: object, name: str) -> None:
    """Refuse what is no function, such as the name of one, which the registry and the command line take."""
    if not callable(given):
        raise InvalidInput(
            f"{name} is {given!r:.80}; give a function, such as those of budgeteer.context.encode, or make the reducer "
            f"by name: budgeteer.core.registry.make('reducer', NAME, {name}=...)"
        )


def _said(given: object) -> str:
    """The beginning of a value, in one line."""
    return " ".join(repr(given).split())[:200]


Kept = Iterable[int] | Mapping[int, str]


def longest_run(talk: Talk, kept: Callable[[int], Kept], most: int, budget: int, count: Count) -> Kept:
    """The largest of a row of nested choices that fits: ``kept(n)`` for n from 0 (nothing) to ``most``.

    Raises:
        InvalidInput: what has to stay is above the budget.
    """
    talk.bare(budget, count)
    n = largest(lambda n: count(talk.keep(kept(n))) <= budget, most)
    while n and count(talk.keep(kept(n))) > budget:  # a tokenizer may join more text into fewer tokens
        n -= 1
    return kept(n) if n else ()


def prune(talk: Talk, weights: Sequence[Sequence[Word]], budget: int, count: Count) -> list[Message]:
    """Keep the words of the highest weights, as many as fit; of equal ones the first. What fits as it is stays so.

    Args:
        talk: the conversation.
        weights: [pieces][words].
        budget, count: of the whole prompt.

    Raises:
        InvalidInput: what has to stay is above the budget.
    """
    talk.bare(budget, count)
    if count(talk.messages) <= budget:
        return list(talk.messages)
    ranked = sorted((-word.weight, piece, place) for piece, row in enumerate(weights) for place, word in enumerate(row))

    def kept(n: int) -> dict[int, str]:
        left: dict[int, list[int]] = {}
        for _, piece, place in ranked[:n]:
            left.setdefault(piece, []).append(place)
        return {piece: "".join(weights[piece][place].text for place in sorted(row)) for piece, row in left.items()}

    return talk.keep(longest_run(talk, kept, len(ranked), budget, count))


def weighted(text: str, spans: Sequence[Span]) -> list[Word]:
    """The words of a text, each with the sum of the weights of its tokens; a token counts where it begins.

    Raises:
        InvalidInput: a weight is NaN, which says nothing and has no place in an order.

    >>> [(word.text, word.weight) for word in weighted("so it", [(0, 2, 1.0), (2, 4, 2.0), (4, 5, 0.5)])]
    [('so ', 1.0), ('it', 2.5)]
    """
    found = [(match.start(1), match.end(), match.group()) for match in _WORDS.finditer(text)]
    sums = [0.0] * len(found)
    starts = [begin for begin, _, _ in found]
    for begin, end, weight in spans:
        if weight != weight:
            raise InvalidInput(f"the token {text[begin:end]!r} has no weight (NaN); give each a number")
        inner = begin + len(text[begin:end]) - len(text[begin:end].lstrip())  # a token may begin with its blank
        place = bisect_right(starts, inner) - 1
        if place >= 0:
            sums[place] += weight
    return [Word(text, weight) for (_, _, text), weight in zip(found, sums, strict=True)]


def similarities(encode: Encode, question: str, texts: Sequence[str]) -> tuple[F64, F64]:
    """Cosines of the question with each text, [n], and between the texts, [n, n]; 0 for a vector of zeros.

    Raises:
        InvalidInput: the encoder gave no finite vector for each text, such as nothing at all.
    """
    _require_function(encode, "encode")
    given = encode([question, *texts])
    try:
        vectors = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        vectors = np.zeros(0)
    if vectors.ndim != 2 or len(vectors) != 1 + len(texts) or not np.isfinite(vectors).all():
        raise InvalidInput(
            f"the encoder gave {_said(given)} for {1 + len(texts)} texts (the question is the first); return a vector "
            "of finite numbers for each, [n, d]"
        )
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, norm, out=np.zeros_like(vectors), where=norm > 0)
    return unit[1:] @ unit[0], unit[1:] @ unit[1:].T
