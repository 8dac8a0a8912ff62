"""One line: which experts get a token.

Paper: "Title", arXiv 0000.00000.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64
from budgeteer.core.router import Router


@dataclass(frozen=True, slots=True)
class Prices:
    """The state: [E] what a token of each expert costs."""

    price: F64


def priced(rate: float = 0.05) -> Router:
    """The expert of the best score less its price; prices rise with the load above an even one.

    Formula: argmax_e s_e - p_e; after a step p_e += rate * (load_e / sum of loads - 1 / E).
    Helps when few experts get most tokens; does not when the loads are even already.

    Args:
        rate: of the prices, > 0.

    Raises:
        InvalidInput: a rate, scores or loads that cannot be used.

    >>> method = priced(1.0)
    >>> state = method.observe(method.init(2), np.array([4.0, 0.0]))
    >>> chosen, weight = method.route(state, np.array([[0.9, 0.1]]))  # 0.9 - 0.5 and 0.1 + 0.5
    >>> chosen.tolist(), weight.tolist()
    ([[1]], [[0.1]])
    """
    if not rate > 0:
        raise InvalidInput(f"priced(rate={rate}); give a rate above 0")

    def init(experts: int) -> Prices:
        if experts < 1:
            raise InvalidInput(f"{experts} experts; give at least 1")
        return Prices(np.zeros(experts))

    def route(state: Prices, scores: F64) -> tuple[I64, F64]:
        if scores.ndim != 2 or scores.shape[1] != len(state.price) or not np.all(np.isfinite(scores)):
            raise InvalidInput(f"scores of shape {scores.shape}; give [T, {len(state.price)}] finite ones")
        chosen = np.argmax(scores - state.price, axis=1)[:, None]
        return chosen, np.take_along_axis(scores, chosen, axis=1)

    def observe(state: Prices, load: F64 | I64) -> Prices:
        load = np.asarray(load, np.float64)
        if load.shape != state.price.shape or not np.all(np.isfinite(load) & (load >= 0)):
            raise InvalidInput(f"loads {load.tolist()}; give [{len(state.price)}] counts of tokens")
        return Prices(state.price + rate * (load / max(load.sum(), 1.0) - 1 / len(load)))

    return Router(init, route, observe)
