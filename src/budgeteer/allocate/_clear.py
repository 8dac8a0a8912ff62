"""CLEAR: tokens for questions whose use begins at a threshold; those that cannot pay their way get none."""

from __future__ import annotations

import math

import numpy as np

from budgeteer.allocate.kit.solve import Found, bound_gap, grow, lift
from budgeteer.core.allocator import Allocator
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64, MOST, Items, spend

_STEPS = 80
"""Halvings of a price's interval."""
_EXTRA = 16
"""Items beyond the market's that are tried with what it leaves."""


def clear(width: float = 64.0) -> Allocator:
    """Maximise ``sum_j U_j(b_j)`` subject to ``sum_j c_j b_j <= B`` for uses that surge behind a threshold.

    With x units beyond item j's ``threshold``, ``U = (x / width) exp(1 - x / width)``, and 0 below it: nothing, then a
    surge, then less and less up to 1 at ``x = width`` (the published curve ``alpha x exp(-beta x)`` with
    ``beta = 1 / width`` and its peak scaled to 1; longer answers than that are never bought). At a price of lambda a
    token, the best x has ``U' = lambda c``, that is ``x = width (1 - W(lambda c width))`` with Lambert's W, and the
    item takes part if that pays: ``U > lambda c (threshold + x)``. Otherwise it is abandoned and gets 0 units. The
    price is found by bisection where the demand meets the budget. There demand jumps, as items enter with their whole
    threshold at once; what the jump leaves is offered to the next items in the order of their entry, everybody's
    surplus shrinking, as long as the sum of U grows. c is ``cost``, tokens a unit (1 where a unit is a token).

    ``Plan.gap`` is certified by the Lagrangian bound at the market's price; it is at most about one item's use, and 0
    only by chance, since the problem is not concave. ``Plan.price`` is that price.

    When it helps: the budget is scarce and questions differ in how long they have to be thought about. When not: it
    pays for everybody's threshold (then all is spread almost evenly), or thresholds are guesses: an abandoned question
    has no answer at all.

    Paper: "The Shadow Price of Reasoning: Economic Perspective on Optimal Budget Allocation for LLMs",
    arXiv 2606.03092.

    Args:
        width: units from the threshold to the largest use, > 0.

    >>> items = Items(("easy", "middle", "hard"), np.ones(3), threshold=np.array([20.0, 60.0, 500.0]))
    >>> clear(width=40.0).allocate(160, items, (), rng=np.random.default_rng(0)).units
    array([ 60, 100,   0])
    >>> clear(width=40.0).allocate(90, items, (), rng=np.random.default_rng(0)).units  # two thresholds take 80
    array([60,  0,  0])
    """
    if not 0 < width < MOST:
        raise InvalidInput(f"clear(width={width}); give units above 0")

    def rule(budget: int, items: Items, rng: np.random.Generator) -> Found:
        cost, threshold = items.cost, items.column("threshold", "clear")
        nobody = np.zeros(len(cost), np.int64)
        can = np.flatnonzero(np.minimum(threshold, float(MOST)) * cost < budget)
        if not len(can):
            return Found(nobody, 0.0, 0.0, 0.0)
        market = _Market(threshold[can], cost[can], width)
        price = market.price(budget)
        entered = np.argsort(-market.entry, kind="stable")
        first = int(np.count_nonzero(market.entry > price))
        best, worth = nobody, 0.0
        for count in range(first, min(first + _EXTRA, len(can)) + 1):
            units = market.whole(market.shared(entered[:count], budget), entered[:count], budget)
            value = math.fsum(market.use(units).tolist())
            if value > worth:
                best, worth = nobody.copy(), value
                best[can] = units
            elif count > first:
                break
        wanted = market.demand(price)
        taken = best[can]
        # the best whole units at the price are next to the best real ones
        around = np.stack([nobody[can], np.floor(wanted).astype(np.int64), np.ceil(wanted).astype(np.int64)])
        surplus = np.array([market.use(row) - price * market.cost * row for row in around])
        paid = np.take_along_axis(around, surplus.argmax(axis=0)[None], 0)[0]
        gap = bound_gap(budget, market.cost, (taken, market.use(taken)), (paid, market.use(paid)), price)
        return Found(best, price, worth, gap)

    return lift(rule)


class _Market:
    """Items that the budget could pay for alone, and what they ask for at a price."""

    def __init__(self, threshold: F64, cost: F64, width: float) -> None:
        self.threshold, self.cost, self.width = threshold, cost, width
        self.entry = self._entry()

    def use(self, units: F64 | I64) -> F64:
        """U of each item."""
        x = np.maximum(units - self.threshold, 0.0) / self.width
        return np.asarray(x * np.exp(1 - np.minimum(x, 700.0)))

    def beyond(self, price: float) -> F64:
        """Units beyond the threshold whose last one is worth the price, 0 if none is."""
        worth = np.minimum(price * self.cost * self.width, math.e)
        return np.asarray(self.width * (1 - lambert_w(worth)))

    def _entry(self) -> F64:
        """The price at which taking part begins to pay: ``U(x) = price c (threshold + x)``, found by bisection.

        With y = W(price c width), U = (1 - y) e^y and price c = y e^y / width, so ``1 - y = y (threshold / width + 1 -
        y)``: a quadratic in y.
        """
        k = self.threshold / self.width
        y = 2.0 / (k + 2 + np.sqrt(k) * np.sqrt(k + 4))  # y^2 - (k + 2) y + 1 = 0, the root below 1
        return np.asarray(y * np.exp(y) / (self.cost * self.width))

    def demand(self, price: float) -> F64:
        """Units that each item asks for; 0 for those that abandon."""
        return np.where(self.entry > price, self.threshold + self.beyond(price), 0.0)

    def price(self, budget: int) -> float:
        """The lowest price (to the bisection's last bit) at which the budget pays what is asked for."""
        low, high = 0.0, float(self.entry.max())
        if float(self.demand(0.0) @ self.cost) <= budget:
            return 0.0
        for _ in range(_STEPS):
            middle = (low + high) / 2
            low, high = (low, middle) if float(self.demand(middle) @ self.cost) <= budget else (middle, high)
        return high

    def shared(self, members: I64, budget: int) -> F64:
        """Units if these take part and nobody else: one price for all that they have beyond their thresholds."""
        units = np.zeros(len(self.cost))
        cost, room = self.cost[members], budget - float(self.threshold[members] @ self.cost[members])
        if room <= 0 or not len(members):
            return units
        low, high = 0.0, math.e / float((self.cost * self.width).min())
        if float(self.beyond(0.0)[members] @ cost) > room:
            for _ in range(_STEPS):
                middle = (low + high) / 2
                low, high = (low, middle) if float(self.beyond(middle)[members] @ cost) <= room else (middle, high)
        else:
            high = 0.0
        units[members] = self.threshold[members] + self.beyond(high)[members]
        return units

    def whole(self, units: F64, members: I64, budget: int) -> I64:
        """Whole units within the budget: rounded down, and then one by one where one more is worth most."""
        top = np.zeros(len(units), np.int64)
        most = np.floor(self.threshold + self.width)
        top[members] = np.where(self.use(most + 1) > self.use(most), most + 1, most)[members].astype(np.int64)
        have = np.minimum(np.floor(units).astype(np.int64), top)
        if spend(have, self.cost) > budget:
            return np.zeros(len(units), np.int64)

        def gain(i: int, n: int) -> float:
            x = np.maximum(np.array([n, n + 1]) - self.threshold[i], 0.0) / self.width
            use = x * np.exp(1 - x)
            return float(use[1] - use[0]) / float(self.cost[i])

        grown = grow(have, np.minimum(top, have + 2), self.cost, budget, gain)
        grown[grown <= self.threshold] = 0
        return grown


def lambert_w(z: F64) -> F64:
    """The w >= 0 with ``w e^w = z``, for z in [0, e], by Newton's method.

    >>> lambert_w(np.array([0.0, math.e])).round(12).tolist()
    [0.0, 1.0]
    """
    w = np.log1p(z) * 0.8
    for _ in range(8):
        grown = np.exp(w)
        w = w - (w * grown - z) / (grown * (w + 1))
    return np.asarray(np.maximum(w, 0.0))
