"""What a verifiable task is: problems with a prompt, and a verifier of their answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from budgeteer.core.errors import VerifierError


@dataclass(frozen=True, slots=True)
class Item:
    """One problem.

    Attributes:
        key: distinct name within the environment.
        prompt: text given to the model.
        answer: reference answer as text; None where it is not known.
        level: what the task calls its difficulty, for breakdowns.
        entry: what the verifier needs beyond the answer.
        solution: steps of a worked solution, as the head of an answer has them; () = none is known.
    """

    key: str
    prompt: str
    answer: str | None
    level: str = ""
    entry: dict[str, Any] = field(default_factory=dict)
    solution: tuple[str, ...] = ()


class Environment(Protocol):
    """A source of items with a verifier.

    One whose problems are answered with tools also has a method ``tools(item)``, which returns those for an item
    (:class:`budgeteer.solve.tool.Tool`).

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


def verified(environment: Environment, item: Item, answer: str | None) -> float:
    """The score of an extracted answer.

    Raises:
        VerifierError: the verifier raised or returned something that is not a finite number; names the item.
    """
    try:
        reward = float(environment.verify(item, answer))
    except VerifierError:
        raise  # it says what was wrong
    except (Exception, SystemExit) as error:
        raise VerifierError(f"verifier of {environment.name!r} raised on item {item.key!r}: {error!r}") from error
    if not math.isfinite(reward):
        raise VerifierError(f"verifier of {environment.name!r} returned {reward} on item {item.key!r}; return 0 to 1")
    return reward
