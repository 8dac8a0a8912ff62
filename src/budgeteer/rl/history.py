"""What earlier steps taught about each prompt: the surrogate that allocators work from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.plan import ABORTED, F64, I64, Items, Outcomes
from budgeteer.core.words import one_of
from budgeteer.rl.surrogate import Ridge

RECENT = 1024
"""How many recent lengths are kept for quantiles and for the cost of unseen prompts."""


@dataclass(frozen=True, slots=True)
class History:
    """Running statistics of n prompts; a plain average (decay 1) or an exponential one.

    Attributes:
        keys: n prompt keys seen so far.
        visits: [n] steps in which the prompt got rollouts.
        rollouts, right: [n] discounted counts of rollouts and of their rewards' sum.
        last_rate: [n] mean reward of the last visit.
        length_sum, length_count: [n] discounted sum and count of lengths.
        std_sum, std_count: [n] discounted sum and count of observed stds of the rollouts' scores.
        recent, recent_weight: [<= RECENT] lengths of the latest rollouts and their weights in quantiles.
        ridge: success rate against prompt features.
    """

    keys: tuple[str, ...]
    visits: I64
    rollouts: F64
    right: F64
    last_rate: F64
    length_sum: F64
    length_count: F64
    std_sum: F64
    std_count: F64
    recent: F64
    recent_weight: F64
    ridge: Ridge

    @staticmethod
    def empty() -> History:
        """Nothing seen yet."""
        z = np.zeros(0)
        return History((), np.zeros(0, np.int64), z, z, z, z, z, z, z, z, z, Ridge.empty())

    def find(self, keys: tuple[str, ...]) -> I64:
        """[len(keys)] indices into this history, -1 for a prompt never seen."""
        index = {key: i for i, key in enumerate(self.keys)}
        return np.array([index.get(key, -1) for key in keys], np.int64)

    def quantile(self, q: float) -> float:
        """Weighted quantile of the recent lengths; NaN before there are 32."""
        if len(self.recent) < 32:
            return float("nan")
        order = np.argsort(self.recent)
        mass = np.cumsum(self.recent_weight[order])
        return float(self.recent[order][np.searchsorted(mass, q * mass[-1])])


def lookup(values: F64, where: I64, default: float | F64) -> F64:
    """values[where], with ``default`` where ``where`` is -1."""
    if not len(values):
        return np.broadcast_to(np.asarray(default, np.float64), where.shape).copy()
    return np.where(where >= 0, values[where], default)


class Std(StrEnum):
    """What a prompt's std is made of."""

    RATE = "rate"
    """sqrt(p (1 - p)) of its success rate p."""
    SCORE = "score"
    """The observed std of A * log-likelihood."""


@dataclass(frozen=True, slots=True)
class Memory:
    """How a prompt's cost, success rate and informativeness are estimated.

    Attributes:
        decay: weight of the past at each new visit; 1 = plain average over all visits.
        aborted: whether lengths and successes of aborted rollouts count.
        prior: pseudo-rollouts of the predicted success rate that a prompt's own record is shrunk to; 0 = none.
        predict: the prediction is a regression on the prompt's features, for unseen prompts too; else it is the
            pool's mean success, and an unseen prompt has no rate.
        last_only: the success rate is that of the last visit alone.
        std: what the std is made of; the word of a member, such as ``"score"``, becomes that member.
        cold_std: std of a prompt never measured; NaN = the median of the measured ones.
        std_floor: no std below this.
    """

    decay: float = 1.0
    aborted: bool = True
    prior: float = 0.0
    predict: bool = False
    last_only: bool = False
    std: Std = Std.RATE
    cold_std: float = float("nan")
    std_floor: float = 0.05

    def __post_init__(self) -> None:
        object.__setattr__(self, "std", one_of(Std, self.std, "the memory's std"))


def estimates(history: History, items: Items, memory: Memory, features: F64 | None = None) -> Items:
    """Fill the columns cost, std, pass_rate and visits of ``items`` from what was seen.

    A prompt never seen costs the mean recent length (``items.cost`` before there is any), has pass rate NaN and
    the cold std.
    """
    where = history.find(items.keys)
    weight = history.recent_weight
    typical = float(history.recent @ weight / weight.sum()) if len(weight) else items.cost
    count = lookup(history.length_count, where, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        own = lookup(history.length_sum, where, 0.0) / count
        # two pseudo-observations of the typical length steady the cost of prompts seen once or twice
        steady = (lookup(history.length_sum, where, 0.0) + 2 * np.asarray(typical)) / (count + 2)
        cost = np.where(count > 0, steady if memory.prior > 0 else own, typical)
        if memory.last_only:
            rate = lookup(history.last_rate, where, np.nan)
        else:
            n = lookup(history.rollouts, where, 0.0)
            guess: float | F64 = history.right.sum() / history.rollouts.sum() if len(history.keys) else 0.5
            if memory.predict and features is not None:
                guess = history.ridge.predict(features)
            rate = (lookup(history.right, where, 0.0) + memory.prior * guess) / (n + memory.prior)
            known = memory.predict and len(history.keys) > 0
            rate = np.where((n > 0) | known, rate, np.nan)
        if memory.std == Std.RATE:
            p = np.where(np.isfinite(rate), np.clip(rate, 0, 1), 0.5)
            std = np.sqrt(p * (1 - p))
        else:
            measured = history.std_count > 0
            observed = history.std_sum[measured] / history.std_count[measured]
            middle = float(np.median(observed)) if len(observed) else 1.0
            cold = middle if np.isnan(memory.cold_std) else memory.cold_std
            std = lookup(history.std_sum, where, np.nan) / lookup(history.std_count, where, np.nan)
            std = np.where(np.isfinite(std), std, cold)
    return items.with_columns(
        cost=np.maximum(cost, 1.0),
        std=np.maximum(std, memory.std_floor),
        pass_rate=rate,
        visits=lookup(history.visits.astype(np.float64), where, 0.0).astype(np.int64),
    )


def record(
    history: History,
    outcomes: Outcomes,
    memory: Memory,
    kept_weight: F64 | None = None,
    features: Callable[[Sequence[str]], F64] | None = None,
) -> History:
    """The history after one step's outcomes.

    Args:
        features: keys [m] -> [m, d] features of those prompts, for the prediction.
        kept_weight: [n] weight of each row's length in quantiles, None = 1.
    """
    if not outcomes.keys:
        return history
    keys = sorted(set(outcomes.keys))
    g, number = len(keys), {key: i for i, key in enumerate(keys)}
    group = np.array([number[key] for key in outcomes.keys], np.int64)
    kept = outcomes.status != ABORTED
    counted = kept | memory.aborted

    def total(x: F64 | I64, mask: NDArray[np.bool_]) -> F64:
        return np.bincount(group[mask], np.asarray(x, np.float64)[mask], minlength=g).astype(np.float64)

    ones = np.ones(len(group))
    rollouts, right = total(ones, counted), total(outcomes.reward, counted)
    lengths, length_count = total(outcomes.tokens, counted), total(ones, counted)
    scored = kept & np.isfinite(outcomes.score)
    k = total(ones, scored)
    mean = total(outcomes.score, scored) / np.maximum(k, 1)
    variance = total(outcomes.score**2, scored) / np.maximum(k, 1) - mean**2
    std = np.sqrt(np.maximum(variance, 0))

    where = history.find(tuple(keys))
    fresh = where < 0
    names = (*history.keys, *(keys[i] for i in np.flatnonzero(fresh)))
    at = where.copy()
    at[fresh] = len(history.keys) + np.arange(int(fresh.sum()))

    def grown(x: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([x, np.zeros(int(fresh.sum()), x.dtype)])

    def update(x: F64, new: F64, seen: NDArray[np.bool_]) -> F64:
        x = grown(x)
        x[at] = np.where(seen, x[at] * memory.decay + new, x[at])
        return x

    visits, last = grown(history.visits), grown(history.last_rate)
    visits[at] += 1
    last[at] = np.where(rollouts > 0, right / np.maximum(rollouts, 1), last[at])
    weight = ones if kept_weight is None else kept_weight
    ridge = history.ridge
    if memory.predict and features is not None:
        ridge = ridge.update(features(keys), rollouts, right, decay=0.97)
    return replace(
        history,
        keys=names,
        visits=visits,
        last_rate=last,
        rollouts=update(history.rollouts, rollouts, rollouts > 0),
        right=update(history.right, right, rollouts > 0),
        length_sum=update(history.length_sum, lengths, length_count > 0),
        length_count=update(history.length_count, length_count, length_count > 0),
        std_sum=update(history.std_sum, std, k >= 2),
        std_count=update(history.std_count, np.ones(g), k >= 2),
        recent=np.concatenate([history.recent, outcomes.tokens[counted]])[-RECENT:].astype(np.float64),
        recent_weight=np.concatenate([history.recent_weight, weight[counted]])[-RECENT:],
        ridge=ridge,
    )
