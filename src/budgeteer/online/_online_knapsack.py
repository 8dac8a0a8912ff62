"""Online knapsack by a rising threshold (ZCL): buy a candidate, or never see it again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from budgeteer.core.errors import InvalidInput
from budgeteer.core.online import Online, require_budget, require_menu


@dataclass(frozen=True, slots=True)
class Spent:
    """What is left of the one budget, as a tuple of length 1."""

    left: tuple[float, ...]


def online_knapsack(budget: float, low: float, high: float) -> Online:
    """Accept a candidate whose value per cost reaches a threshold that grows with the part of the budget spent.

    With z = spent / budget and densities v / c known to lie in [L, U] = [``low``, ``high``], the threshold is
    ``Psi(z) = (U e / L)^z (L / e)``; among the options of a menu with density >= Psi(z) that the budget still covers,
    the one of the largest value is taken. Psi(0) = L / e accepts anything of density L; Psi(1) = U.

    Guarantee, for any order of arrival and single costs that are small against the budget: at least 1 / (ln(U/L) + 1)
    of the best set in hindsight, which no deterministic or randomised method can better. With menus at
    least 1 / (ln(U/L) + 2): where the optimum's option has density >= Psi at the end, ours had at least its value; the
    rest of the optimum is worth at most ``Psi(z_end) * budget``, which is at most ln(U/L) + 1 times ours.

    When it helps: candidates must be decided on arrival (a component that was just tested, a request that waits), and
    nothing is known about the order but the range of densities. When not: the order is random or repeats, where
    a learnt price (:func:`budgeteer.online._dual_descent`) is nearly optimal; or single candidates cost a large part
    of the budget, where after one purchase the threshold may refuse everything. Values that depend on what
    was bought before (coverage) are outside the theory.

    Papers: Zhou, Chakrabarty, Lukose, "Budget Constrained Bidding in Keyword Auctions and Online Knapsack Problems"
    (WINE 2008); used for composing agents in "Automated Composition of Agents: A Knapsack Approach", arXiv
    2510.16499, with L = 1 / max cost and U = total value / min cost.

    Args:
        budget: the one budget, > 0.
        low, high: L and U, least and largest value per unit of cost, 0 < L <= U.

    >>> composer = online_knapsack(100, low=0.01, high=1.0)
    >>> option, state = composer.step(composer.init(), (0.5,), ((25,),))  # density 0.02 against 0.01 / e
    >>> option, state.left
    (0, (75,))
    >>> composer.step(state, (0.25,), ((25,),))[0]  # the threshold is now (100 e)^0.25 * 0.01 / e = 0.0149
    -1
    """
    require_budget("online_knapsack", (budget,))
    if not 0 < low <= high < math.inf:
        raise InvalidInput(f"online_knapsack(low={low}, high={high}); densities need 0 < low <= high")
    growth, log_start = math.log(high / low) + 1, math.log(low) - 1

    def step(
        state: Spent, value: Sequence[float], cost: Sequence[Sequence[float]], *, share: float | None = None
    ) -> tuple[int, Spent]:
        require_menu(value, cost, 1)
        have = state.left[0]
        threshold = math.exp(log_start + growth * (1 - have / budget))
        chosen, best = -1, 0.0
        for k, (c,) in enumerate(cost):
            if value[k] > best and c <= have and value[k] >= threshold * c:
                chosen, best = k, value[k]
        return (-1, state) if chosen < 0 else (chosen, Spent((have - cost[chosen][0],)))

    def observe(state: Spent, planned: Sequence[float], actual: Sequence[float]) -> Spent:
        require_menu((0.0, 0.0), (planned, actual), 1)
        return Spent((state.left[0] + planned[0] - actual[0],))

    return Online(lambda: Spent((budget,)), step, observe)
