"""Dual mirror descent: pace several budgets over a stream of requests by one price a resource."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from budgeteer.core.errors import InvalidInput
from budgeteer.core.online import Online, Row, require_budget, require_menu

FAR = 50.0
"""Largest exponent of one multiplicative update: one huge request must not overflow the price."""


@dataclass(frozen=True, slots=True)
class Prices:
    """What is left of the m budgets, and the price of a unit of each, in value per unit."""

    left: Row
    price: Row


def dual_descent(
    budget: Sequence[float],
    horizon: int,
    *,
    scale: float = 1.0,
    rate: float = 0.5,
    mirror: Literal["euclidean", "entropy"] = "euclidean",
    price: Sequence[float] | None = None,
) -> Online:
    """Take the option with the largest value minus priced cost; prices rise when spending runs ahead of the pace.

    At each of about T = ``horizon`` requests, with prices mu and target spending ``rho_j = B_j * share`` (share = 1/T):
    ``k = argmax(v_k - mu . c_k)`` or nothing if that is not above 0; execute k if every budget left covers it; then,
    whether or not it was executed, ``mu = argmin (rho - c_k) . mu + V_h(mu, mu_old) / eta``, that is

    - euclidean: ``mu_j = max(0, mu_j - eta_j (rho_j - c_kj))`` with ``eta_j = rate * scale / (sqrt(T) (B_j / T)^2)``;
    - entropy: ``mu_j = mu_j exp(-rate / sqrt(T) * (rho_j - c_kj) / (B_j / T))``, at least ``scale / B_j`` so that a
      price that fell during a quiet spell can come back.

    Steps are in units of value per request and of target spending, so that ``rate`` has no unit. Budgets are hard: no
    sum of executed costs exceeds one (exactly with integers, to rounding with floats).

    Guarantee (euclidean, start 0, values <= scale, costs <= beta * B / T, m resources):
    ``OPT / alpha - E[R] <= scale (beta + sqrt(T) (rate G^2 / 2 + 1 / (2 rate)))`` with ``G^2 = m max(1, beta - 1)^2``,
    where alpha = 1 when requests are drawn independently from one distribution, and alpha = max(beta, 1) for any
    sequence at all, which no method can better. Streams that repeat, or whose memory is short
    against the horizon, behave nearly like the first case; a slow drift or a trend over the whole horizon does not, and
    costs a constant share unless ``share`` follows a forecast of it.

    When it helps: many small requests, a budget that lasts to the end of the day, values that can be compared.
    When not: the horizon is a few dozen requests (the price has no time to settle), or single requests cost a large
    part of a budget. When the number of requests is unknown, give each step the share of the day since the last one:
    pace then follows the clock.

    Paper: "The Best of Many Worlds: Dual Mirror Descent for Online Allocation Problems", arXiv 2011.10124.

    Args:
        budget: [m] amounts for the whole horizon, each > 0 (tokens, calls, money: any unit).
        horizon: expected number of requests T, >= 1.
        scale: largest usual value of a request.
        rate: step size without unit. 0.25 to 1 is best where prices settle at a fifth of ``scale`` per target spending;
            ten times more or less costs two to four times the regret.
        mirror: ``"euclidean"`` (sub-gradient steps) or ``"entropy"`` (multiplicative weights).
        price: [m] prices to start from, such as yesterday's; None = 0, or a tenth of ``scale`` per target spending
            for entropy, which cannot leave 0.

    >>> pacer = dual_descent((1000,), horizon=10, scale=1.0)
    >>> state = pacer.init()
    >>> option, state = pacer.step(state, (0.5, 0.9), ((100,), (300,)))  # the price is still 0: the best value
    >>> option, state.left, round(state.price[0] * 100, 4)
    (1, (700,), 0.3162)
    >>> pacer.step(state, (0.5, 0.9), ((100,), (300,)))[0]  # 100 tokens now cost 0.32 of value, 300 cost 0.95
    0
    """
    require_budget("dual_descent", budget)
    if not 1 <= horizon < math.inf or not (0 < scale < math.inf and 0 < rate < math.inf):
        raise InvalidInput(f"dual_descent(horizon={horizon}, scale={scale}, rate={rate}); all are finite and > 0")
    if mirror not in ("euclidean", "entropy"):
        raise InvalidInput(f"dual_descent(mirror={mirror!r}); the mirrors are 'euclidean' and 'entropy'")
    whole, resources = tuple(budget), len(budget)
    pace = tuple(b / horizon for b in whole)
    floor = tuple(0.0 if mirror == "euclidean" else scale / b for b in whole)
    start = tuple(price) if price is not None else tuple(0.0 if mirror == "euclidean" else scale / 10 / r for r in pace)
    if len(start) != resources or not all(0 <= mu < math.inf for mu in start):
        raise InvalidInput(f"dual_descent(price={price}); give one finite price >= 0 for each of {resources} resources")
    start = tuple(max(mu, low) for mu, low in zip(start, floor, strict=True))
    eta = tuple(rate / math.sqrt(horizon) * (scale / r**2 if mirror == "euclidean" else 1 / r) for r in pace)

    def moved(prices: Row, saved: Sequence[float]) -> Row:
        """Prices after spending ``saved`` [m] less than the target."""
        if mirror == "euclidean":
            return tuple([max(0.0, mu - e * s) for mu, e, s in zip(prices, eta, saved, strict=True)])
        steps = zip(prices, eta, saved, floor, strict=True)
        return tuple([max(low, mu * math.exp(min(FAR, -e * s))) for mu, e, s, low in steps])

    def step(
        state: Prices, value: Sequence[float], cost: Sequence[Sequence[float]], *, share: float | None = None
    ) -> tuple[int, Prices]:
        require_menu(value, cost, resources)
        if share is not None and not 0 <= share < math.inf:
            raise InvalidInput(f"a step's share of the horizon is {share}; give 0 or more")
        target = pace if share is None else [share * b for b in whole]
        left, prices, chosen, best = state.left, state.price, -1, 0.0
        for k, row in enumerate(cost):
            net = value[k]
            for mu, c in zip(prices, row, strict=True):
                net -= mu * c
            if net > best:
                chosen, best = k, net
        if chosen < 0:
            return -1, Prices(left, moved(prices, target))
        row = cost[chosen]
        # The update uses what the price asked for, executed or not: else prices would fall once a budget is gone.
        after = moved(prices, [t - c for t, c in zip(target, row, strict=True)])
        for have, c in zip(left, row, strict=True):
            if c > have:
                return -1, Prices(left, after)
        return chosen, Prices(tuple([have - c for have, c in zip(left, row, strict=True)]), after)

    def observe(state: Prices, planned: Sequence[float], actual: Sequence[float]) -> Prices:
        require_menu((0.0, 0.0), (planned, actual), resources)
        saved = [p - a for p, a in zip(planned, actual, strict=True)]
        return Prices(tuple([have + s for have, s in zip(state.left, saved, strict=True)]), moved(state.price, saved))

    return Online(lambda: Prices(whole, start), step, observe)
