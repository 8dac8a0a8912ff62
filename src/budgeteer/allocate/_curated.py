"""Fewer rollouts for tasks that are mostly solved, and none much longer than a task's successes (DART, 2509.23866)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from budgeteer.allocate.kit.counts import Counts
from budgeteer.allocate.kit.solve import Found, lift
from budgeteer.core.allocator import Allocator
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import I64, Items, Outcomes, Plan, right, whole


@dataclass(frozen=True, slots=True)
class Shown:
    """State: successes and failures of each task, and the tokens of its longest success (0 = none yet), [n] by key."""

    counts: Counts
    longest: I64


def curated(most: int = 8, least: int = 2, easy: float = 0.6, slack: float = 1.5) -> Allocator:
    """``most`` rollouts for a task solved in at most the share ``easy``, falling in a line to ``least`` for one that is
    always solved; and a cap of ``slack`` times the longest success of each task.

    A task without a success has no cap of its own. Items are served whole, in random order, while the tokens last; an
    item costs what its rollouts are expected to, whatever its cap. ``Plan.value`` and ``gap`` are NaN.

    When it helps: agents whose failures run to the limit of steps; tasks that differ much in length. When not: a task's
    successes grow longer as it is learnt, and the cap stands in the way; ``slack`` is the room for that. The paper
    gives neither numbers nor formulas for the two rules in what could be read; these are this project's.

    Args:
        most, least: rollouts of a task, 1 <= least <= most.
        easy: share of successes in [0, 1) up to which a task has ``most``.
        slack: 1 or more.

    Raises:
        InvalidInput: a number outside these.

    >>> from budgeteer.core.plan import Outcomes
    >>> items = Items(("new", "easy"), cost=np.full(2, 10.0))
    >>> method = curated()
    >>> seen = Outcomes(("easy",) * 4, np.array([20, 30, 40, 99]), np.array([1.0, 1, 1, 0]), np.zeros(4), np.ones(4))
    >>> plan = method.allocate(500, items, method.observe(method.init(items), seen), rng=np.random.default_rng(0))
    >>> plan.units, plan.max_tokens
    (array([8, 6]), array([ 0, 60]))
    """
    if not (1 <= whole("least", least) <= whole("most", most) and 0 <= easy < 1 <= slack < math.inf):
        raise InvalidInput(
            f"curated(most={most}, least={least}, easy={easy}, slack={slack}); needs 1 <= least <= most, "
            "0 <= easy < 1 and a finite slack of 1 or more"
        )

    def allocate(budget: int, items: Items, state: Shown, *, rng: np.random.Generator) -> Plan:
        at = {key: i for i, key in enumerate(state.counts.keys)}
        good, bad = state.counts.of(items.keys)
        rate = good / np.maximum(good + bad, 1)
        beyond = np.maximum(rate - easy, 0) / (1 - easy)
        wanted = np.round(most - (most - least) * beyond).astype(np.int64)
        of = dict(zip(items.keys, wanted.tolist(), strict=True))

        def rule(budget: int, items: Items, rng: np.random.Generator) -> Found:
            units, left = np.zeros(len(items), np.int64), float(budget)
            drawn = np.zeros(len(items), np.int64) if items.drawn is None else items.drawn
            for i in rng.permutation(len(items)).tolist():
                each = of[items.keys[i]]
                if not drawn[i] and each * items.cost[i] <= left:
                    units[i], left = each, left - each * float(items.cost[i])
            return Found(units)

        plan = lift(rule).allocate(budget, items, (), rng=rng)
        longest = np.array([int(state.longest[at[key]]) if key in at else 0 for key in items.keys], np.int64)
        return replace(plan, max_tokens=np.ceil(slack * longest).astype(np.int64))

    def observe(state: Shown, outcomes: Outcomes) -> Shown:
        counts = state.counts.add(outcomes)
        at = {key: i for i, key in enumerate(counts.keys)}
        longest = np.append(state.longest, np.zeros(len(counts.keys) - len(state.longest), np.int64))
        solved = np.flatnonzero(right(outcomes.reward))
        where = np.array([at[outcomes.keys[i]] for i in solved.tolist()], np.int64)
        np.maximum.at(longest, where, outcomes.tokens[solved])
        return Shown(counts, longest)

    return Allocator(lambda items: Shown(Counts.none(()), np.zeros(0, np.int64)), allocate, observe)
