"""Thompson sampling: units where a draw from the posterior says that a token buys the most reward."""

from __future__ import annotations

import numpy as np

from budgeteer.allocate.kit.counts import Counts
from budgeteer.allocate.kit.solve import Found, lift, require_countable
from budgeteer.core.allocator import Allocator
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import Items, Plan, spend

CHUNK = 4096
"""Posterior draws made at once, a row a unit."""


def thompson(prior: tuple[float, float] = (1.0, 1.0)) -> Allocator:
    """Each unit goes to the item with the largest ``theta_i / cost_i``, theta drawn anew from the posterior.

    ``theta_i ~ Beta(a + right_i, b + wrong_i)`` with the prior (a, b). Units are drawn one by one until no item fits;
    once one no longer fits, it is out of the draw. Within one plan the posterior does not change: an item gets units
    in proportion to the probability that it is the best, which keeps a batch from going all to one. ``observe`` adds
    rewards in [0, 1] (fractions count as fractions). Cost: one Beta draw per unit and item.
    ``Plan.value`` and ``gap`` are NaN: what it maximises is a draw.

    When it helps: reward is what the tokens are for (routes, prompts, tools, arms), and there are several rounds.
    When not: the best item is wanted and not the reward on the way (:func:`budgeteer.allocate._successive_halving`);
    success rates drift, since old counts never fade; or all items are alike, where it is as good as uniform, no better.

    Papers: Thompson (1933); "Analysis of Thompson Sampling for the Multi-armed Bandit Problem", arXiv 1111.1797;
    with costs, "Thompson Sampling for Budgeted Multi-armed Bandits", arXiv 1505.00146.

    Args:
        prior: (a, b) of the Beta prior, > 0; (1, 1) is flat.

    >>> from budgeteer.core.plan import Outcomes
    >>> items = Items(("good", "bad"), cost=np.full(2, 10.0))
    >>> method = thompson()
    >>> seen = Outcomes(("good",) * 20 + ("bad",) * 20, np.full(40, 10), np.repeat([1.0, 0.0], 20), np.zeros(40),
    ...                 np.ones(40, np.int8))
    >>> state = method.observe(method.init(items), seen)
    >>> method.allocate(200, items, state, rng=np.random.default_rng(0)).units
    array([20,  0])
    """
    if not (len(prior) == 2 and all(0 < x < np.inf for x in prior)):
        raise InvalidInput(f"thompson(prior={prior}); a Beta prior needs two finite numbers > 0")

    def allocate(budget: int, items: Items, state: Counts, *, rng: np.random.Generator) -> Plan:
        right, wrong = state.of(items.keys)
        posterior = dict(zip(items.keys, zip(right.tolist(), wrong.tolist(), strict=True), strict=True))

        def rule(budget: int, items: Items, rng: np.random.Generator) -> Found:
            require_countable(budget, items.cost)
            counts = np.array([posterior[key] for key in items.keys])
            a, b = prior[0] + counts[:, 0], prior[1] + counts[:, 1]
            units, left = np.zeros(len(items), np.int64), float(budget)
            while len(fits := np.flatnonzero(items.cost <= left)):
                most = int(min(CHUNK, left / items.cost[fits].min())) or 1
                worth = rng.beta(a[fits], b[fits], (most, len(fits))) / items.cost[fits]
                picked = fits[np.argmax(worth, axis=1)]
                bill = np.cumsum(items.cost[picked])
                # keep the picks up to the point where an item stops fitting; then draw without it
                before = left - (bill - items.cost[picked])
                bought = int(np.searchsorted(-before, -items.cost[fits].max(), side="right"))
                units += np.bincount(picked[:bought], minlength=len(items))
                left = budget - spend(units, items.cost)
            return Found(units)

        return lift(rule).allocate(budget, items, (), rng=rng)

    return Allocator(lambda items: Counts.none(items.keys), allocate, lambda state, outcomes: state.add(outcomes))
