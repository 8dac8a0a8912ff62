"""The Allocator protocol: pure functions that split a budget over items, and how they compose."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from budgeteer.core.errors import CheckpointError
from budgeteer.core.plan import Items, Outcomes, Plan, whole

State = Any
"""A frozen dataclass of numbers, strings, tuples and arrays (or a tuple of such): it survives JSON."""


class AllocateFn(Protocol):
    def __call__(self, budget: int, items: Items, state: State, *, rng: np.random.Generator) -> Plan: ...


class Allocator(NamedTuple):
    """Three pure functions; everything that changes lives in the state that the caller keeps.

    Attributes:
        init: ``(items) -> state``.
        allocate: ``(budget, items, state, *, rng) -> Plan`` with expected cost <= budget.
        observe: ``(state, outcomes) -> state``.
    """

    init: Callable[[Items], State]
    allocate: AllocateFn
    observe: Callable[[State, Outcomes], State]


class PlanTransform(Protocol):
    """``(plan, budget, items) -> plan``: a correction applied after an allocator."""

    def __call__(self, plan: Plan, budget: int, items: Items) -> Plan: ...


def stateless(function: Callable[[int, Items], Plan]) -> Allocator:
    """Lift ``(budget, items) -> Plan`` into an Allocator without state; a budget that is no whole number is refused."""

    def allocate(budget: int, items: Items, state: State, *, rng: np.random.Generator) -> Plan:
        return function(whole("budget", budget), items)

    return Allocator(lambda items: (), allocate, lambda state, outcomes: state)


def chain(allocator: Allocator, *transforms: PlanTransform) -> Allocator:
    """An allocator followed by plan transforms, applied in order."""

    def allocate(budget: int, items: Items, state: State, *, rng: np.random.Generator) -> Plan:
        plan = allocator.allocate(budget, items, state, rng=rng)
        for transform in transforms:
            plan = transform(plan, budget, items)
        return plan

    return allocator._replace(allocate=allocate)


def dump_state(state: State) -> Any:
    """A state as JSON-ready data; :func:`load_state` reads it back."""
    if isinstance(state, np.ndarray):
        return {"dtype": str(state.dtype), "data": state.tolist()}
    if dataclasses.is_dataclass(state) and not isinstance(state, type):
        return {f.name: dump_state(getattr(state, f.name)) for f in dataclasses.fields(state)}
    if isinstance(state, tuple):
        return [dump_state(part) for part in state]
    return state


def load_state(like: State, data: Any) -> State:
    """Rebuild a state from :func:`dump_state`'s data.

    Args:
        like: a state of the same allocator, such as ``allocator.init(items)``; gives the types.
        data: what ``dump_state`` returned, possibly after a trip through JSON.

    Raises:
        CheckpointError: the data are of another allocator.
    """
    try:
        if isinstance(like, np.ndarray):
            return np.array(data["data"], dtype=data["dtype"])
        if dataclasses.is_dataclass(like) and not isinstance(like, type):
            names = {f.name for f in dataclasses.fields(like)}
            if set(data) != names:
                raise CheckpointError(f"allocator state has fields {sorted(data)}, expected {sorted(names)}")
            return type(like)(**{name: load_state(getattr(like, name), data[name]) for name in names})
        if isinstance(like, tuple):
            if all(isinstance(part, str) for part in data):
                return tuple(data)
            return tuple(load_state(part, item) for part, item in zip(like, data, strict=True))
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"allocator state does not fit this allocator: {error}") from error
    return data
