"""One line: what the method decides on each request of a stream.

Paper: "Title", arXiv 0000.00000.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from budgeteer.core.errors import InvalidInput
from budgeteer.core.online import Online, require_menu


@dataclass(frozen=True, slots=True)
class Left:
    """The state: what is left of the budget, one amount a resource."""

    left: tuple[float, ...]


def fixed_price(budget: float, price: float = 0.1) -> Online:
    """Buy the option worth most above a fixed price of its cost, while it fits what is left.

    Formula: the option i with the largest v_i - price * c_i, if that is above 0 and c_i <= left; else none.
    Helps when the price of a token is known, such as yesterday's; does not when the stream changes.

    Args:
        budget: of the one resource, > 0.
        price: value that a unit of cost has to bring, >= 0.

    Raises:
        InvalidInput: a budget or a price outside these; a menu that is none.

    >>> method = fixed_price(10, price=0.5)
    >>> option, state = method.step(method.init(), [3.0, 1.0], [(4,), (1,)])  # worth 3 - 2 and 1 - 0.5
    >>> option, state.left
    (0, (6.0,))
    """
    if not (budget > 0 and price >= 0):
        raise InvalidInput(
            f"fixed_price(budget={budget}, price={price}); give a budget above 0 and a price of 0 or more"
        )

    def step(
        state: Left, value: Sequence[float], cost: Sequence[Sequence[float]], *, share: float | None = None
    ) -> tuple[int, Left]:
        require_menu(value, cost, 1)
        gain, option = max((v - price * c[0], i) for i, (v, c) in enumerate(zip(value, cost, strict=True)))
        if gain <= 0 or value[option] <= 0 or cost[option][0] > state.left[0]:
            return -1, state
        return option, Left((state.left[0] - cost[option][0],))

    def observe(state: Left, planned: Sequence[float], actual: Sequence[float]) -> Left:
        return Left((state.left[0] + planned[0] - actual[0],))  # below zero, too: it has to be made up for

    return Online(lambda: Left((float(budget),)), step, observe)
