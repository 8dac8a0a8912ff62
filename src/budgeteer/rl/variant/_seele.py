"""Hints as long as each prompt needs to be solved about half of the time (SEELE, arXiv 2509.06923)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from budgeteer.core.column import Column, declare
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64, right
from budgeteer.rl.recipe import SOLUTION, Variant, Variants, View
from budgeteer.rl.rollouts import Rollouts

HINTED = declare(
    Column(
        "hinted",
        "share of the steps of a worked solution that stand at the head of the answer",
        "use a variant that gives hints, such as seele",
        most=1.0,
    ),
    "rollouts",
)
_STEEP, _PLACE, _FLOOR = np.geomspace(1, 50, 40), np.linspace(-1, 0, 101), 0.95
"""Slopes and places that are tried, and the largest guessing rate: fits of few noisy points go anywhere without."""
_RIDGE = 1e-3
"""Weight of the distance from a slope of 10 at the middle without guessing, which decides where the points do not."""


class Curve(NamedTuple):
    """Accuracy at a hinted share p of the solution: ``b + (1 - b) / (1 + exp(-k (p + mu)))``, the three-parameter
    logistic of item response theory."""

    k: float
    mu: float
    b: float

    def __call__(self, p: float) -> float:
        return float(self.b + (1 - self.b) / (1 + np.exp(-self.k * (p + self.mu))))

    def share(self, target: float) -> float:
        """The p in [0, 1] at which the accuracy is ``target``, or the end of [0, 1] that is nearest to it.

        >>> round(Curve(10.0, -0.5, 0.0).share(0.5), 9), Curve(10.0, -0.5, 0.6).share(0.5)
        (0.5, 0.0)
        """
        if self.b >= target:
            return 0.0
        p = -self.mu - np.log((1 - self.b) / (target - self.b) - 1) / self.k
        return float(np.clip(p, 0.0, 1.0))


def fit(p: F64, accuracy: F64, drawn: F64) -> Curve:
    """The curve of least squares through points at ``p`` [m], each weighted by its number of rollouts.

    k in [1, 50] and mu in [-1, 0] are searched on a grid; b in [0, 0.95], in which the curve is linear, follows from
    them in closed form. With fewer points than parameters, the curve nearest to (10, -0.5, 0) is taken.
    """
    weight = (drawn * len(p) / drawn.sum())[:, None, None]
    s = 1 / (1 + np.exp(-_STEEP[:, None] * (p[:, None, None] + _PLACE)))
    gap, seen = 1 - s, accuracy[:, None, None]
    # accuracy = s + b (1 - s)
    b = np.clip((weight * gap * (seen - s)).sum(0) / ((weight * gap * gap).sum(0) + _RIDGE), 0.0, _FLOOR)
    error = (weight * (s + b * gap - seen) ** 2).sum(0)
    far = np.log(_STEEP / 10)[:, None] ** 2 + (2 * (_PLACE + 0.5)) ** 2 + b**2
    i, j = np.unravel_index(int(np.argmin(error + _RIDGE * far)), b.shape)
    return Curve(float(_STEEP[i]), float(_PLACE[j]), float(b[i, j]))


@dataclass(frozen=True, slots=True)
class Hints:
    """State: the share of the solution to show next for each prompt seen, and the points of the latest step.

    Attributes:
        keys, share: n prompts seen.
        step: of the points.
        owner: [m] index of each point's prompt.
        shown, accuracy, drawn: [m] hinted share, share of right rollouts, and how many there were.
    """

    keys: tuple[str, ...]
    share: F64
    step: int
    owner: I64
    shown: F64
    accuracy: F64
    drawn: F64


def seele(target: float = 0.5) -> Variant:
    """Show the first ``round(p |y|)`` of the |y| steps of a worked solution, with p such that about ``target`` of the
    prompt's rollouts are right.

    A step has several rounds. After each, a curve of accuracy against p is fitted to the rounds of this step so far,
    and its inverse at the target is the next p. A prompt begins with all steps but the last, and at its next visit
    with what was predicted last. Prompts that are right half of the time teach most: the gain of a step is bounded by
    a (1 - a) / (2 beta).

    Helps with prompts that are hardly ever solved; those that are solved anyway go without a hint. What is learnt is
    learnt from hinted prompts, so that it has to carry over to bare ones. The paper's log-likelihood of the hint
    (weight 0.001) is not here. Its fit is a local least-squares search whose
    start could not be found in the paper.

    Args:
        target: accuracy, in (0, 1).

    Raises:
        InvalidInput: a target outside.
    """
    if not 0 < target < 1:
        raise InvalidInput(f"seele(target={target}); give an accuracy between 0 and 1")

    def vary(state: Hints, view: View, rng: np.random.Generator) -> Variants:
        known = dict(zip(state.keys, state.share.tolist(), strict=True))
        hints: list[str] = []
        shown: list[float] = []
        for key, units in zip(view.items.keys, view.plan.units.tolist(), strict=True):
            steps = view.solutions[key]
            count = round(known.get(key, (len(steps) - 1) / len(steps)) * len(steps))
            hints += ["".join(steps[:count])] * units
            shown += [count / len(steps)] * units
        return Variants(hint=tuple(hints), columns={HINTED: np.array(shown)})

    def observe(state: Hints, rollouts: Rollouts) -> Hints:
        step = int(rollouts.version.max(initial=-1))
        keep = state.step == step
        owner, shown, accuracy, drawn = (
            list(column) if keep else [] for column in (state.owner, state.shown, state.accuracy, state.drawn)
        )
        keys, share = list(state.keys), state.share.tolist()
        number = {key: i for i, key in enumerate(keys)}
        good, hinted = right(rollouts.verified), rollouts.more[HINTED]
        for g in np.unique(rollouts.group).tolist():
            rows, key = rollouts.group == g, rollouts.keys[g]
            if key not in number:
                number[key] = len(keys)
                keys.append(key)
                share.append(0.0)
            me = number[key]
            for p in np.unique(hinted[rows]).tolist():
                at = rows & (hinted == p)
                owner.append(me)
                shown.append(p)
                accuracy.append(float(good[at].mean()))
                drawn.append(float(at.sum()))
            mine = np.array(owner) == me
            curve = fit(np.array(shown)[mine], np.array(accuracy)[mine], np.array(drawn)[mine])
            share[me] = curve.share(target)
        numbers = (np.array(column, np.float64) for column in (shown, accuracy, drawn))
        return Hints(tuple(keys), np.array(share, np.float64), step, np.array(owner, np.int64), *numbers)

    empty = Hints((), np.zeros(0), -1, np.zeros(0, np.int64), np.zeros(0), np.zeros(0), np.zeros(0))
    return Variant(vary, lambda: empty, observe, needs=(SOLUTION,), gives=(HINTED,))
