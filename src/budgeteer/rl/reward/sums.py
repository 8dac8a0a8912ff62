"""Several rewards as one, so that logs show each: ``laser+0.5*pear``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from budgeteer.core import registry
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64
from budgeteer.core.spec import blanked
from budgeteer.rl.reward.protocol import Columns, Monitor, Reward, of_terms

__all__ = ["summed"]

_PLUS = re.compile(r"\s*\+\s*(?=$|(?:\d[\d.]*\s*\*\s*)?[A-Za-z])")
_WEIGHT = re.compile(r"([^:*]*?)\s*\*\s*")


def summed(parts: Mapping[str, Reward], weights: Mapping[str, float] | None = None) -> Reward:
    """The weighted sum of rewards; each has its own state and is a term of that name.

    Every part counts as it is: two of them that have a term for being right count it twice, as reward functions do that
    TRL adds up. What a group's mean and deviation normalise does not care.

    Args:
        parts: name -> reward.
        weights: name -> weight; 1 where there is none.

    Raises:
        InvalidInput: no part, a weight of something else, or two parts that ask for rollouts of their own.

    >>> from budgeteer.rl.reward import kimi, overlong
    >>> both = summed({"kimi": kimi(), "overlong": overlong()}, {"overlong": 0.5})
    >>> rows = Columns([1, 1], [10, 90], [0, 0], [100, 100], [1, 1])
    >>> both.score(both.init(), rows).tolist()
    [2.0, 0.75]
    """
    weigh = dict.fromkeys(parts, 1.0) | dict(weights or {})
    if not parts or weigh.keys() != parts.keys():
        raise InvalidInput(f"a sum of {list(parts)} with weights of {list(weigh)}; give parts, and weights of these")

    def terms(state: tuple[Any, ...], rows: Columns) -> dict[str, F64]:
        each = zip(parts.items(), state, strict=True)
        return {name: np.asarray(weigh[name] * part.score(own, rows), np.float64) for (name, part), own in each}

    def init() -> tuple[Any, ...]:
        return tuple(part.init() for part in parts.values())

    def observe(state: tuple[Any, ...], rows: Columns) -> tuple[Any, ...]:
        return tuple(part.observe(own, rows) for part, own in zip(parts.values(), state, strict=True))

    needs = tuple(dict.fromkeys(name for part in parts.values() for name in part.needs))
    return of_terms(terms, init, observe, needs, _monitor(parts))


def _monitor(parts: Mapping[str, Reward]) -> Monitor | None:
    """That of the part which has one, as the sum's."""
    asking = [(i, name, part.monitor) for i, (name, part) in enumerate(parts.items()) if part.monitor]
    if not asking:
        return None
    if len(asking) > 1:
        raise InvalidInput(
            f"{' and '.join(name for _, name, _ in asking)} ask for rollouts of their own, and a run has them for one "
            "reward; leave monitor out of the others"
        )
    ((at, _, own),) = asking

    def watch(state: tuple[Any, ...], rows: Columns) -> tuple[Any, ...]:
        return (*state[:at], own.watch(state[at], rows), *state[at + 1 :])

    return own._replace(watch=watch)


def from_text(text: str) -> Reward:
    """The sum that a command line names: registered rewards with their options, weights before them.

    Raises:
        UnknownName: a part is no reward, or has no such option.
        InvalidInput: a part is missing or comes twice, or a weight is no number from 0.

    >>> sorted(from_text("laser:bonus=0.3 + 0.5*pear").needs)
    ['answered', 'closed', 'entropy', 'looping']
    """
    parts: dict[str, Reward] = {}
    weights: dict[str, float] = {}
    text, at, pieces = text.strip(), 0, list[str]()
    for plus in _PLUS.finditer(blanked(text)):
        pieces.append(text[at : plus.start()])
        at = plus.end()
    for piece in (*pieces, text[at:]):
        weighed = _WEIGHT.match(piece)
        named = piece[weighed.end() :] if weighed else piece
        name = named.partition(":")[0].strip()
        if not name:
            lacks = "has a + or a weight with no reward beside it" if text else "is empty"
            raise InvalidInput(f"reward {text!r} {lacks}; write NAME+NAME, such as laser+0.5*pear")
        if name in parts:
            raise InvalidInput(f"reward {text!r} has {name} twice; give each part once, with a weight such as 2*{name}")
        weights[name] = _weight(text, weighed[1]) if weighed else 1.0
        parts[name] = registry.part_of("reward", named)
    return summed(parts, weights)


def _weight(text: str, given: str) -> float:
    try:
        weight = float(given)
    except ValueError:
        weight = math.nan
    if not 0 <= weight < math.inf:
        raise InvalidInput(f"reward {text!r}: {given!r} is no weight; write a number from 0 before the name: 0.5*NAME")
    return weight
