"""Where answers tell their usage, what several of them in a stream come to, and the bill that a provider tells."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Any

from budgeteer.core.amounts import PICO
from budgeteer.core.usage import Usage

_MOST_DOLLARS = 1_000_000
"""No call costs more; a number above it is none of dollars."""
_TEXT_BYTES = 8
"""Bytes of text a token, at most, on the average of an answer."""


def usages_in(body: Mapping[str, Any]) -> Iterator[tuple[int | None, Mapping[str, Any]]]:
    """(choice, usage object) wherever providers put it: ``usage``, ``x_groq.usage``, or ``usage`` of each choice; the
    choice is None for a usage of all of them.

    >>> list(usages_in({"x_groq": {"usage": {"total_tokens": 3}}}))
    [(None, {'total_tokens': 3})]
    """
    groq = body.get("x_groq")
    for place in (body, groq):
        given = place.get("usage") if isinstance(place, Mapping) else None
        if isinstance(given, Mapping):
            yield None, given
            return
    choices = body.get("choices")
    for n, choice in enumerate(choices if isinstance(choices, list) else ()):
        given = choice.get("usage") if isinstance(choice, Mapping) else None
        if isinstance(given, Mapping):
            index = choice.get("index")
            yield index if isinstance(index, int) else n, given


def cost_of(usage: Any) -> int | None:
    """The bill that a usage object states (``cost``, in dollars), in pico-dollars, rounded up; None if it states none,
    or one that is negative or no number.

    Where a router called another provider with the user's own key (``is_byok``), that provider's bill is added.

    >>> cost_of({"cost": 0.00014}), cost_of({"cost": -1}), cost_of({"cost": True}), cost_of(None)
    (140000000, None, None, None)
    """
    if not isinstance(usage, Mapping):
        return None
    cost = _dollars(usage.get("cost"))
    details = usage.get("cost_details")
    if cost is not None and usage.get("is_byok") and isinstance(details, Mapping):
        cost += _dollars(details.get("upstream_inference_cost")) or 0
    return None if cost is None else math.ceil(cost * PICO)


def _dollars(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        dollars = Decimal(str(value))
    except InvalidOperation:
        return None
    return dollars if dollars.is_finite() and 0 <= dollars <= _MOST_DOLLARS else None


class Told:
    """The usages that the events of a stream told, most of them one at its end.

    Some servers tell with each event all that was used so far; others tell what the event added. A total grows, or
    stands still for a moment. A number that falls, or that stands still although it is too small for the text so far,
    is an addition. Additions are summed up, unless the last event tells their sum.

    Attributes:
        all: the usage that follows from all events.
    """

    __slots__ = ("_added", "_chunks", "_last", "_sum", "all")

    def __init__(self) -> None:
        self.all: Usage | None = None
        self._last: Usage | None = None
        self._sum: Usage | None = None
        self._chunks, self._added = 0, False

    def so_far(self, usage: Usage, chunks: int, size: int) -> None:
        """Take in one, after so many pieces and bytes of text."""
        last, before, self._last = self._last, self._sum, usage
        if last is None or last.output is None or usage.output is None or before is None:
            self._sum, self._chunks, self.all = usage, chunks, usage
            return
        stays = usage.output == last.output and chunks > self._chunks
        little = usage.output * _TEXT_BYTES < size or 2 * usage.output < chunks
        if usage.output < last.output or (stays and little):
            self._added = True
        self._chunks = chunks
        read = max(before, usage, key=lambda told: told.input or 0)
        both = (before.output or 0) + usage.output
        thought = None if usage.reasoning is None else (before.reasoning or 0) + usage.reasoning
        self._sum = replace(
            read, output=both, reasoning=thought, audio_output=(before.audio_output or 0) + (usage.audio_output or 0)
        )
        self.all = self._sum if self._added and usage.output != before.output else usage


class Tellings:
    """The usages that the events of a stream told, of all choices or of each.

    Args:
        choices: that were asked for.
    """

    __slots__ = ("_choices", "_told")

    def __init__(self, choices: int) -> None:
        self._choices, self._told = choices, dict[int | None, Told]()

    def so_far(self, reported: Mapping[int | None, Usage], chunks: int, size: int) -> Usage | None:
        """Take in what an event told of each choice, after so many pieces and bytes of text; the usage of all of them,
        or None if there is none yet."""
        for choice, usage in reported.items():
            self._told.setdefault(choice, Told()).so_far(usage, chunks, size)
        return together(
            {choice: told.all for choice, told in self._told.items() if told.all is not None}, self._choices
        )


def together(usages: Mapping[int | None, Usage], choices: int) -> Usage | None:
    """One usage of those that stand at choices, if there is none of all: their output is added, and is not known while
    a choice has none. None if there are no usages.

    >>> together({0: Usage(input=9, output=2), 1: Usage(input=9, output=3)}, 2)
    Usage(input=9, output=5)
    >>> together({0: Usage(input=9, output=2)}, 2)
    Usage(input=9)
    """
    if None in usages or not usages:
        return usages.get(None)
    usage = max(usages.values(), key=lambda told: told.input or 0)
    if len(usages) == 1 and choices <= 1:
        return usage
    made = [told.output for told in usages.values()]
    if len(made) < choices or None in made:
        return Usage(input=usage.input, cached=usage.cached, written=usage.written)
    thought = [told.reasoning for told in usages.values()]
    reasoning = None if None in thought else sum(tokens or 0 for tokens in thought)
    return replace(usage, output=sum(tokens or 0 for tokens in made), reasoning=reasoning, audio_output=None)
