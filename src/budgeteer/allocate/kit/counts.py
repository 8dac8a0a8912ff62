"""Rewards by key: what the allocators that learn from outcomes remember."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, Outcomes


@dataclass(frozen=True, slots=True)
class Counts:
    """What every item has shown so far.

    Attributes:
        keys: n items seen.
        right: [n] sum of their rewards.
        wrong: [n] units minus that sum.
    """

    keys: tuple[str, ...]
    right: F64
    wrong: F64

    @staticmethod
    def none(keys: tuple[str, ...]) -> Counts:
        """Nothing shown yet."""
        return Counts(keys, np.zeros(len(keys)), np.zeros(len(keys)))

    def of(self, keys: tuple[str, ...]) -> tuple[F64, F64]:
        """(right, wrong) of these keys [n]; 0 for those never seen."""
        at = {key: i for i, key in enumerate(self.keys)}
        rows = np.array([at.get(key, len(at)) for key in keys], dtype=np.int64)
        return np.append(self.right, 0.0)[rows], np.append(self.wrong, 0.0)[rows]

    def add(self, outcomes: Outcomes) -> Counts:
        """The counts with these outcomes; rewards are in [0, 1]."""
        bad = ~((outcomes.reward >= 0) & (outcomes.reward <= 1))
        if bad.any():
            raise InvalidInput(f"a reward of {outcomes.reward[bad][0]}; counts need rewards in [0, 1]: rescale them")
        keys = tuple(dict.fromkeys((*self.keys, *outcomes.keys)))
        at = {key: i for i, key in enumerate(keys)}
        rows = np.array([at[key] for key in outcomes.keys], dtype=np.int64)
        right, wrong = self.of(keys)
        n = len(keys)
        return Counts(
            keys,
            right + np.bincount(rows, outcomes.reward, minlength=n),
            wrong + np.bincount(rows, 1 - outcomes.reward, minlength=n),
        )
