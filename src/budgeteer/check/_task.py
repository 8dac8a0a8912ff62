"""The rules of tasks: problems that are made, and their verifier."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

from budgeteer.check._common import CheckFailed, same
from budgeteer.core.environment import Environment, Item
from budgeteer.core.errors import BudgeteerError

SIZES = (30, 8)
JUNK = ("", " ", "\n", "zqx?", "((((", "1/0", "nan", "-", "9" * 400, "\ud83d\ude00")


def check_task(make: Callable[..., Environment], *, seed: int = 0) -> None:
    """Make problems and grade answers, and raise :class:`CheckFailed` at the first broken rule.

    Rules: about as many problems are made as are asked for; keys and prompts are distinct texts that are not blank, and
    each problem has a reference answer; the same size and seed make the same problems, another seed other ones; the
    reference is right; no answer, and text that cannot be read, are wrong; a score is a number in [0, 1], the same each
    time; grading does not change the problems.

    Args:
        make: ``make(size=..., seed=...)`` makes the problems.
        seed: of the problems.
    """
    environments = [_made(make, size, seed) for size in SIZES]
    again, other = _made(make, SIZES[0], seed), _made(make, SIZES[0], seed + 1)
    items = list(environments[0].items)
    if [item.prompt for item in items] != [item.prompt for item in again.items]:
        raise CheckFailed("the same size and seed made other problems; draw from random.Random(seed) alone")
    if {item.prompt for item in items} == {item.prompt for item in other.items}:
        raise CheckFailed(f"seeds {seed} and {seed + 1} made the same problems; draw them from the seed")
    for environment in environments:
        before = copy.deepcopy(list(environment.items))
        for item in environment.items:
            _graded(environment, item)
        if not same(before, list(environment.items)):
            raise CheckFailed("grading changed the problems")


def _made(make: Callable[..., Environment], size: int, seed: int) -> Environment:
    try:
        environment = make(size=size, seed=seed)
    except BudgeteerError:
        raise
    except Exception as error:
        raise CheckFailed(f"size={size}, seed={seed} raised {type(error).__name__}: {error}") from error
    if not all(hasattr(environment, part) for part in ("name", "items", "verify")):
        raise CheckFailed(f"it made {environment!r}, no Environment (name, items, verify)")
    if not isinstance(environment.name, str) or not environment.name:
        raise CheckFailed(f"its name is {environment.name!r}; a name is a text")
    items = list(environment.items)
    if not items or abs(len(items) - size) > max(3, size // 10):
        raise CheckFailed(f"{len(items)} problems were made where {size} were asked for; make about as many")
    for item in items:
        if not isinstance(item, Item):
            raise CheckFailed(f"{item!r} is no Item")
        for field, text in (("key", item.key), ("prompt", item.prompt)):
            if not isinstance(text, str) or not text.strip():
                raise CheckFailed(f"the {field} of {item!r} is empty; a {field} is a text")
        if not isinstance(item.answer, str):
            raise CheckFailed(f"{item.key!r} has the reference {item.answer!r}; a made problem has one, a text")
    for field, texts in (("key", [i.key for i in items]), ("prompt", [i.prompt for i in items])):
        if len(set(texts)) < len(texts):
            raise CheckFailed(f"two problems have the same {field}; {field}s are distinct")
    return environment


def _graded(environment: Environment, item: Item) -> None:
    if (score := _score(environment, item, item.answer)) != 1:
        raise CheckFailed(f"the reference {item.answer!r} of {item.key!r} has a score of {score}; it is right: 1")
    for junk in (None, *JUNK):
        if junk != item.answer and _score(environment, item, junk) == 1:
            raise CheckFailed(f"{junk!r} is right for {item.key!r}, whose answer is {item.answer!r}")


def _score(environment: Environment, item: Item, answer: str | None) -> float:
    try:
        scores = [float(environment.verify(item, answer)) for _ in range(2)]
    except Exception as error:
        raise CheckFailed(f"answer {answer!r} to {item.key!r} raised {type(error).__name__}: {error}") from error
    if not all(math.isfinite(score) and 0 <= score <= 1 for score in scores):
        raise CheckFailed(f"answer {answer!r} to {item.key!r} has a score of {scores[0]}; scores are in [0, 1]")
    if scores[0] != scores[1]:
        raise CheckFailed(f"answer {answer!r} to {item.key!r} has a score of {scores[0]} and then of {scores[1]}")
    return scores[0]
