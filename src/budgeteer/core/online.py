"""The Online protocol: decisions on a stream, one request at a time, as pure functions over a small state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import NamedTuple, Protocol

from budgeteer.core.allocator import State
from budgeteer.core.errors import InvalidInput

Row = tuple[float, ...]
"""Amounts of m resources."""


class StepFn(Protocol):
    def __call__(
        self, state: State, value: Sequence[float], cost: Sequence[Sequence[float]], *, share: float | None = None
    ) -> tuple[int, State]: ...


class Online(NamedTuple):
    """Three pure functions for requests that arrive one by one and must be answered at once.

    An :class:`budgeteer.core.allocator.Allocator` sees all items and splits a budget; here the items are not known in
    advance. States are frozen dataclasses of tuples of numbers: they survive JSON (``dump_state``, ``load_state``), and
    a step costs microseconds, because at this size Python's numbers are faster than arrays.

    Attributes:
        init: ``() -> state`` with the whole budget left.
        step: ``(state, value, cost, share=None) -> (option, state)``: the request's d options have values ``value`` [d]
            and consume ``cost`` [d][m] of the m resources; ``option`` is the index of the one to execute, or -1 for
            none. The state that comes back has its cost taken off. ``share`` is the part of the horizon that this step
            stands for (the paced methods: None = 1 / horizon).
        observe: ``(state, planned, actual) -> state``: correct a step once its true consumption [m] is known. What
            goes beyond the plan is booked, even below zero: nothing is accepted until it is made up for.
    """

    init: Callable[[], State]
    step: StepFn
    observe: Callable[[State, Sequence[float], Sequence[float]], State]


def require_menu(value: Sequence[float], cost: Sequence[Sequence[float]], resources: int) -> None:
    """Refuse a menu whose shape is wrong, whose values are not finite, or whose costs are negative or not finite."""
    if len(value) != len(cost):
        raise InvalidInput(f"a menu of {len(value)} values and {len(cost)} costs; give one cost row an option")
    for worth in value:
        if not -inf < worth < inf:
            raise InvalidInput(f"a menu has the value {worth}; give finite ones, 0 for an option without worth")
    for row in cost:
        if len(row) != resources:
            raise InvalidInput(f"an option's cost {tuple(row)} has {len(row)} amounts for {resources} resources")
        for amount in row:
            if not 0 <= amount < inf:
                raise InvalidInput(f"an option's cost {tuple(row)} has {amount}; give finite amounts of 0 or more")


def require_budget(name: str, budget: Sequence[float]) -> None:
    """Refuse a budget without resources, or one that is not positive and finite."""
    if not len(budget) or not all(0 < b < inf for b in budget):
        raise InvalidInput(f"{name}(budget={budget}); give one finite amount > 0 for each resource")
