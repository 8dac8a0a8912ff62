"""The rules of rounding."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from budgeteer.check._common import CheckFailed, refuses
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64
from budgeteer.core.rounding import Rounding

DEVIATIONS = 6.0
"""Standard errors by which a share may miss its chance: an exact method fails once in 500 million shares."""
NEAR = 1e-9


def check_rounding(rounding: Rounding, *, draws: int = 4000, seed: int = 0) -> None:
    """Round random fractions many times and raise :class:`CheckFailed` at the first broken rule.

    Rules: the choice is [n] bools; an item with a chance of 0 is never chosen, one with 1 always; the number of chosen
    items is the sum of the chances, rounded down or up; every item is chosen as often as its chance says, and no pair
    more often together than independent draws would choose it, within 6 standard errors; the same seed gives the same
    choice; the chances are not changed; a number that is no chance is refused with InvalidInput.

    Args:
        rounding: the method to check.
        draws: number of draws for every set of chances.
        seed: of the chances and the draws.
    """
    rng = np.random.default_rng([seed, 6])
    mixed = np.concatenate([rng.random(8), [0.0, 1.0]])
    halves = np.full(6, 0.5)  # systematic draws choose some of these pairs always together
    for chance in (mixed, halves, np.full(10, 0.3), np.zeros(0), np.array([0.4])):
        _frequencies(chance, _drawn(rounding, chance, draws, seed))
    for bad in ([-0.1, 0.5], [0.5, 1.1], [math.nan, 0.5], [[0.5, 0.5]]):
        rule = f"chances of {bad} are refused"
        refuses(InvalidInput, rule, rounding, np.array(bad), np.random.default_rng(0))


def _drawn(rounding: Rounding, chance: F64, draws: int, seed: int) -> NDArray[np.bool_]:
    """[draws, n] what was chosen, each draw within the rules that hold for every single one."""
    given, rng = chance.copy(), np.random.default_rng([seed, len(chance)])
    low, high = math.floor(chance.sum() + NEAR), math.ceil(chance.sum() - NEAR)
    chosen = np.zeros((draws, len(chance)), np.bool_)
    for i in range(draws):
        row = rounding(chance, rng)
        if not isinstance(row, np.ndarray) or row.dtype != np.bool_ or row.shape != chance.shape:
            raise CheckFailed(f"the method returned {row!r} for {len(chance)} chances; return [n] bools")
        if not low <= int(row.sum()) <= high:
            raise CheckFailed(
                f"{int(row.sum())} were chosen, and the chances sum to {chance.sum():.6g}: the total is"
                " the sum rounded down or up"
            )
        chosen[i] = row
    if not np.array_equal(chance, given):
        raise CheckFailed("the method changed the chances it was given; copy before writing")
    first, second = (rounding(chance, np.random.default_rng(seed)) for _ in range(2))
    if not np.array_equal(first, second):
        raise CheckFailed("the same seed gave another choice; draw from rng only and keep no memory")
    return chosen


def _frequencies(chance: F64, chosen: NDArray[np.bool_]) -> None:
    draws = len(chosen)
    share = chosen.mean(axis=0)
    for i in np.flatnonzero((chance == 0) | (chance == 1)).tolist():
        if share[i] != chance[i]:
            raise CheckFailed(
                f"an item of chance {chance[i]:g} was chosen in a share of {share[i]:g}; 0 and 1 are kept"
            )
    error = np.sqrt(chance * (1 - chance) / draws)
    for i in np.flatnonzero(np.abs(share - chance) > DEVIATIONS * error + NEAR).tolist():
        raise CheckFailed(
            f"an item of chance {chance[i]:.4f} was chosen in {share[i]:.4f} of {draws:,} draws: marginals are exact"
        )
    both = chosen.T.astype(np.float64) @ chosen / draws
    apart = np.outer(chance, chance)
    over = both - apart > DEVIATIONS * np.sqrt(apart * (1 - apart) / draws) + NEAR
    np.fill_diagonal(over, False)
    for i, j in np.argwhere(over).tolist():
        raise CheckFailed(
            f"items of chance {chance[i]:.4f} and {chance[j]:.4f} were chosen together in a share of"
            f" {both[i, j]:.4f}, independent ones are in {apart[i, j]:.4f}: choices are negatively"
            " correlated"
        )
