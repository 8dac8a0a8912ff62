"""Items that compete for a budget, the plan that splits it, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from budgeteer.errors import InvalidInput

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

RUNNING, ENDED, FINISHED, ABORTED, CUT = 0, 1, 2, 3, 4
"""Status of a unit: still running; ended by itself; finished by a stopper with its answer complete;
aborted by a stopper; cut by a token limit or by the end of the budget."""


@dataclass(frozen=True, slots=True)
class Items:
    """Things that compete for units (prompts for rollouts, questions for samples), as columns.

    Attributes:
        keys: n distinct names. Groups are formed by key, never by position.
        cost: [n] expected tokens of one unit, finite and > 0.
        std: [n] standard deviation of one unit's contribution, or None when nobody estimated it.
        pass_rate: [n] estimated success probability in [0, 1]; NaN = never seen.
        visits: [n] earlier steps in which the item got units; None = unknown.
        drawn: [n] units already drawn for the item in this step (later rounds only).
        right: [n] how many of those succeeded.
    """

    keys: tuple[str, ...]
    cost: F64
    std: F64 | None = None
    pass_rate: F64 | None = None
    visits: I64 | None = None
    drawn: I64 | None = None
    right: I64 | None = None

    def __post_init__(self) -> None:
        n = len(self.keys)
        if len(set(self.keys)) != n:
            raise InvalidInput("Items.keys repeat; give each item one distinct key and ask for units instead")
        for f in fields(self)[1:]:
            column = getattr(self, f.name)
            if column is None:
                continue
            if np.shape(column) != (n,):
                raise InvalidInput(f"Items.{f.name} has shape {np.shape(column)}, expected ({n},): one value a key")
            if f.name != "pass_rate" and not np.all(np.isfinite(column)):
                bad = self.keys[int(np.flatnonzero(~np.isfinite(column))[0])]
                raise InvalidInput(f"Items.{f.name} is not finite for {bad!r}; drop the item or give a finite value")
            if f.name != "cost" and np.any(np.asarray(column) < 0):
                raise InvalidInput(f"Items.{f.name} has a negative value; all columns are 0 or more")
        if n and np.min(self.cost) <= 0:
            bad = self.keys[int(np.argmin(self.cost))]
            raise InvalidInput(f"Items.cost is {np.min(self.cost)} for {bad!r}; costs are > 0 tokens a unit")

    def __len__(self) -> int:
        return len(self.keys)

    def column(self, name: str) -> F64:
        """A column that must be there, else an error that says who fills it."""
        value = getattr(self, name)
        if value is None:
            raise InvalidInput(f"this allocator needs Items.{name}; fill it, as budgeteer.rl.history.estimates does")
        return np.asarray(value, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Plan:
    """How many units each item gets, and how many tokens one unit may use.

    Attributes:
        keys: n item keys.
        units: [n] integer units, >= 0.
        max_tokens: [n] hard cap of tokens for one unit; 0 = no cap of its own.
        expected_cost: sum of units * cost, in tokens.
        price: tokens' shadow price (the dual variable) at the solution, or NaN.
    """

    keys: tuple[str, ...]
    units: I64
    expected_cost: float
    max_tokens: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    price: float = float("nan")

    def __post_init__(self) -> None:
        if self.max_tokens.shape != self.units.shape:
            object.__setattr__(self, "max_tokens", np.zeros(len(self.keys), np.int64))
        if self.units.shape != (len(self.keys),):
            raise InvalidInput(f"Plan.units has shape {self.units.shape} for {len(self.keys)} keys")


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What the units of a step did, one row a unit.

    Attributes:
        keys: n item keys, one a row (they repeat).
        tokens: [n] tokens sampled, aborted prefixes included.
        reward: [n] verifier's reward.
        score: [n] advantage-weighted log-likelihood, a scalar proxy of the unit's gradient; NaN = unknown.
        status: [n] one of ENDED, FINISHED, ABORTED, CUT.
    """

    keys: tuple[str, ...]
    tokens: I64
    reward: F64
    score: F64
    status: NDArray[np.int8]

    def take(self, rows: NDArray[np.bool_]) -> Outcomes:
        """The rows where ``rows`` [n] is true."""
        keys = tuple(key for key, use in zip(self.keys, rows.tolist(), strict=True) if use)
        return Outcomes(keys, self.tokens[rows], self.reward[rows], self.score[rows], self.status[rows])
