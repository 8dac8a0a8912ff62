"""The Router protocol: which experts get a token, as pure functions over a small state."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from budgeteer.core.allocator import State
from budgeteer.core.plan import F64, I64


class Router(NamedTuple):
    """Three pure functions. States are frozen dataclasses of numbers, tuples and arrays: they survive JSON.

    Attributes:
        init: ``(experts) -> state``.
        route: ``(state, scores [T, E]) -> (chosen [T, K], weight [T, K])``: K distinct experts of each token and what
            each of them counts.
        observe: ``(state, load [E]) -> state``, once a training step, with the tokens each expert got in it.
    """

    init: Callable[[int], State]
    route: Callable[[State, F64], tuple[I64, F64]]
    observe: Callable[[State, F64 | I64], State]
