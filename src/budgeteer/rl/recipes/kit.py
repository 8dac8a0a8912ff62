"""What several recipes share: pure functions adapted to a step's view."""

from __future__ import annotations

import numpy as np

from budgeteer.allocate import uniform
from budgeteer.core.allocator import Allocator
from budgeteer.core.plan import F64, I64, right
from budgeteer.core.steer import Steer
from budgeteer.rl.recipe import Importance, SelectFn, SteerFn, View
from budgeteer.rl.rollouts import Rollouts
from budgeteer.steer import answered, marker_gate


def stop_answered(view: View) -> Steer:
    """End a rollout once its answer is complete."""
    return answered()


def _length_quantile(view: View, q: float, start: float) -> float:
    """Quantile of recent kept lengths, a share of the cap before 32 are known."""
    known = view.history.quantile(q)
    return start * view.max_tokens if np.isnan(known) else known


def _thresholds(view: View) -> F64:
    """Margin threshold of each rollout: its prompt's rank by std^2 / cost, mapped onto [0.5, 0.99], so that
    informative prompts are stopped later."""
    rate = view.items.column("std", "DUET's gate") ** 2 / view.items.cost
    rank = np.argsort(np.argsort(rate, kind="stable"), kind="stable") / max(len(rate) - 1, 1)
    return np.repeat(0.5 + 0.49 * rank, view.plan.units)


def duet_gate(*, per_prompt: bool, at_once: bool, keep: float) -> SteerFn:
    """DUET's gate, its windows scaled from the official 3,072 tokens to the run's cap.

    Args:
        per_prompt: a rollout is overdue at twice its prompt's own expected length, instead of at the 80 % quantile
            of recent lengths plus a grace.
        at_once: end complete answers at once (a verifier that reads the first answer cannot change its mind),
            instead of waiting for a confident next token.
        keep: share of overdue rollouts that run on.
    """

    def soonest(view: View) -> float:
        return max(_length_quantile(view, 0.3, 0.3), 200 * view.max_tokens / 3072)

    def steer(view: View) -> Steer:
        scale = view.max_tokens / 3072
        last: float | F64
        if per_prompt:
            own = np.where(
                view.items.column("visits", "DUET's gate") > 0, 2 * view.items.cost, 2 * view.items.cost + 150 * scale
            )
            last = np.repeat(np.minimum(own, view.max_tokens), view.plan.units)
        else:
            last = max(_length_quantile(view, 0.8, 0.7), soonest(view) + 50 * scale) + 150 * scale
        if at_once:
            return marker_gate(0.0, last, threshold=-1.0, keep_abort=keep, keep_length=0.0)
        return marker_gate(soonest(view), last, threshold=_thresholds(view), confident=2, keep_abort=keep)

    return steer


def _kept(rollouts: Rollouts, view: View) -> F64:
    return rollouts.weight


KEPT = Importance(_kept)
"""1 / epsilon for gate-kept rows."""


def _published(rollouts: Rollouts, view: View) -> F64:
    units = view.plan.units.astype(np.float64)
    share = np.clip(units / max(units.mean(), 1.0), 0.05, 1.0)
    by_key = dict(zip(view.items.keys, share, strict=True))
    per_group = np.array([by_key[key] for key in rollouts.keys])
    weight = rollouts.weight / per_group[rollouts.group]
    return np.asarray(np.minimum(weight, 1000.0) if (rollouts.weight > 1).any() else weight, np.float64)


PUBLISHED = Importance(_published)
"""1 / p_q with p_q = clip(n_q / mean n, 0.05, 1), times 1 / epsilon for gate-kept rows, at most 1000."""


def balanced(keep: int) -> SelectFn:
    """Keep ``keep`` rollouts a prompt, half right and half wrong where there are enough (the earliest drawn)."""

    def select(rollouts: Rollouts, rng: np.random.Generator) -> I64:
        chosen = []
        for g in range(len(rollouts.keys)):
            rows = np.flatnonzero(rollouts.group == g)
            full = right(rollouts.verified[rows])
            good, bad = rows[full], rows[~full]
            from_good = min(len(good), max(keep // 2, keep - len(bad)))
            chosen += [good[:from_good], bad[: keep - from_good]]
        return np.concatenate(chosen) if chosen else np.zeros(0, np.int64)

    return select


def fixed_group(group: int) -> Allocator:
    """``group`` rollouts for every prompt: the reference that budgets in percent are a share of."""
    return uniform(group)
