"""What a verifiable task is: items with a prompt, and a verifier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from budgeteer.core.errors import VerifierError

THINK_END = "</think>"
"""The marker that closes the thinking; the answer is the first line after it."""


@dataclass(frozen=True, slots=True)
class Item:
    """One problem.

    Attributes:
        key: distinct name within the environment.
        prompt: text given to the model.
        answer: reference answer as text; None where it is not known.
        level: what the task calls its difficulty, for breakdowns.
        entry: what the verifier needs beyond the answer.
    """

    key: str
    prompt: str
    answer: str | None
    level: str = ""
    entry: dict[str, Any] = field(default_factory=dict)


class Environment(Protocol):
    """A source of items with a verifier.

    Attributes:
        name: distinct name, such as ``"chains"``.
        items: the problems.
    """

    @property
    def name(self) -> str: ...

    @property
    def items(self) -> Sequence[Item]: ...

    def verify(self, item: Item, answer: str | None) -> float:
        """Reward in [0, 1] of an extracted answer; None = the model gave none."""
        ...


def extract_answer(completion: str) -> str | None:
    """The first line after the first thinking marker, or None when the thinking never closed.

    >>> extract_answer("7+5=1;</think>1\\n?7+5=1;")
    '1'
    >>> extract_answer("7+5=1;") is None
    True
    """
    _, marker, rest = completion.partition(THINK_END)
    return rest.split("\n", 1)[0].strip() if marker else None


def score(environment: Environment, item: Item, completion: str) -> float:
    """Verify one completion.

    Raises:
        VerifierError: the verifier raised or returned something that is not a finite number; names the item.
    """
    return verified(environment, item, extract_answer(completion))


def verified(environment: Environment, item: Item, answer: str | None) -> float:
    """The score of an extracted answer.

    Raises:
        VerifierError: the verifier raised or returned something that is not a finite number; names the item.
    """
    try:
        reward = float(environment.verify(item, answer))
    except (Exception, SystemExit) as error:
        raise VerifierError(f"verifier of {environment.name!r} raised on item {item.key!r}: {error!r}") from error
    if not math.isfinite(reward):
        raise VerifierError(f"verifier of {environment.name!r} returned {reward} on item {item.key!r}; return 0 to 1")
    return reward
