"""The Allocator protocol: pure functions that split a budget over items, and how they compose."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

import numpy as np

from budgeteer.core.errors import CheckpointError, InvalidInput
from budgeteer.core.plan import I64, Items, Outcomes, Plan, whole
from budgeteer.core.schedule import Schedule

ROUNDING = Fraction(1, 10**16)
"""By how much a share is off that was rounded to 16 digits."""

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


def named_chain(first: tuple[str, Allocator], *rest: tuple[str, PlanTransform]) -> Allocator:
    """A :func:`chain` whose links have names, so that an error says which link raised it.

    >>> from budgeteer.allocate import floor, neyman
    >>> named_chain(("split", neyman()), ("two each", floor(2)))._fields
    ('init', 'allocate', 'observe')
    """
    names = [name for name, _ in (first, *rest)]
    if len(set(names)) != len(names):
        raise InvalidInput(f"named_chain got the names {names}; give every link its own")

    def allocate(budget: int, items: Items, state: State, *, rng: np.random.Generator) -> Plan:
        link = first[0]
        try:
            plan = first[1].allocate(budget, items, state, rng=rng)
            for name, transform in rest:
                link = name
                plan = transform(plan, budget, items)
        except InvalidInput as error:
            raise InvalidInput(f"in link {link!r}: {error}") from error
        return plan

    return first[1]._replace(allocate=allocate)


def partition(
    allocators: Mapping[str, Allocator], group: Callable[[str], str], shares: Mapping[str, float] | None = None
) -> Allocator:
    """Different allocators for different groups of items, each with its own part of the budget.

    A group's part is hard: what its allocator leaves unspent goes to nobody. Parts are whole tokens, by largest
    remainders, and in sum never more than the budget. The plan's price is NaN, since every group has its own.

    Args:
        allocators: group name -> allocator.
        group: key of an item -> name of its group.
        shares: group name -> share of the budget, >= 0, in sum at most 1; None splits by the number of items. A share
            counts as the decimal number that it prints as; a sum within rounding of 1 is 1.

    >>> from budgeteer.allocate import neyman, uniform
    >>> both = partition({"m": uniform(), "c": uniform()}, lambda key: key[0], {"m": 0.75, "c": 0.25})
    >>> items = Items(("m1", "m2", "c1"), np.ones(3))
    >>> both.allocate(8, items, both.init(items), rng=np.random.default_rng(0)).units
    array([3, 3, 2])
    """
    names = sorted(allocators)
    exact: dict[str, Fraction] = {}
    if shares is not None:
        if set(shares) == set(names) and all(0 <= share <= 1 for share in shares.values()):
            exact = {name: Fraction(str(float(share))) for name, share in shares.items()}
        total = sum(exact.values(), Fraction(0))
        if len(exact) != len(names) or total > 1 + len(names) * ROUNDING:
            raise InvalidInput(f"partition got shares {dict(shares)} for {names}; one >= 0 a group, at most 1 in sum")
        if abs(total - 1) <= len(names) * ROUNDING:
            exact = {name: share / total for name, share in exact.items()}

    def rows_of(keys: tuple[str, ...]) -> dict[str, I64]:
        of: dict[str, list[int]] = {name: [] for name in names}
        for i, key in enumerate(keys):
            if (name := group(key)) not in of:
                raise InvalidInput(f"partition puts {key!r} into {name!r}, which has no allocator; there are {names}")
            of[name].append(i)
        return {name: np.array(rows, np.int64) for name, rows in of.items()}

    def init(items: Items) -> State:
        rows = rows_of(items.keys)
        return tuple(allocators[name].init(items.take(rows[name])) for name in names)

    def allocate(budget: int, items: Items, state: State, *, rng: np.random.Generator) -> Plan:
        budget, rows = whole("budget", budget), rows_of(items.keys)
        share = exact if shares is not None else {n: Fraction(len(rows[n]), max(len(items), 1)) for n in names}
        due = {name: budget * share[name] for name in names}
        part = {name: math.floor(due[name]) for name in names}
        spare = math.floor(sum(due.values())) - sum(part.values())
        for name in sorted(names, key=lambda name: (part[name] - due[name], name))[:spare]:
            part[name] += 1
        units, caps = np.zeros(len(items), np.int64), np.zeros(len(items), np.int64)
        value = 0.0
        for name, own in zip(names, state, strict=True):
            plan = allocators[name].allocate(part[name], items.take(rows[name]), own, rng=rng)
            units[rows[name]], caps[rows[name]] = plan.units, plan.max_tokens
            value += plan.value
        kept = items.within(units, budget)
        return Plan(items.keys, kept, items.spend(kept), caps, value=value if kept is units else math.nan)

    def observe(state: State, outcomes: Outcomes) -> State:
        of = np.array([group(key) for key in outcomes.keys])
        return tuple(
            allocators[name].observe(own, outcomes.take(of == name)) for name, own in zip(names, state, strict=True)
        )

    return Allocator(init, allocate, observe)


@dataclasses.dataclass(frozen=True, slots=True)
class Spent:
    """State of a :func:`scheduled` allocator: tokens that came back from outcomes, and the state inside."""

    tokens: int
    inner: State


def scheduled(factory: Callable[..., Allocator], total: int, **parameters: Schedule) -> Allocator:
    """An allocator whose hyper-parameters follow schedules of the share spent of a total budget.

    Args:
        factory: makes the allocator from the parameters, such as ``neyman``.
        total: tokens of the whole run, > 0; ``observe`` counts what was spent of it.
        parameters: name -> schedule.

    >>> from budgeteer.allocate import uniform
    >>> from budgeteer.core.schedule import linear
    >>> allocator = scheduled(uniform, 1000, units=linear(8, 2))
    >>> items = Items(("a",), np.ones(1))
    >>> [allocator.allocate(100, items, Spent(t, ()), rng=np.random.default_rng(0)).units[0] for t in (0, 500, 1000)]
    [np.int64(8), np.int64(5), np.int64(2)]
    """
    if total <= 0:
        raise InvalidInput(f"scheduled got a total of {total} tokens; schedules run over a budget > 0")

    def now(tokens: int) -> Allocator:
        return factory(**{name: schedule(tokens / total) for name, schedule in parameters.items()})

    def allocate(budget: int, items: Items, state: Spent, *, rng: np.random.Generator) -> Plan:
        return now(state.tokens).allocate(budget, items, state.inner, rng=rng)

    def observe(state: Spent, outcomes: Outcomes) -> Spent:
        inner = now(state.tokens).observe(state.inner, outcomes)
        return Spent(state.tokens + int(outcomes.tokens.sum()), inner)

    return Allocator(lambda items: Spent(0, now(0).init(items)), allocate, observe)


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
