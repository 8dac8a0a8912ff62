"""Checks of the protocols' rules, for our own methods and for those of others.

>>> from budgeteer.allocate import uniform
>>> check_allocator(uniform())
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from budgeteer.allocator import Allocator, State, dump_state, load_state
from budgeteer.online import Online
from budgeteer.plan import ENDED, I64, Items, Outcomes, Plan
from budgeteer.stopper import ABORT, CONTINUE, FINISH, Event, Rows, Stopper

DRAWS = 200
"""Plans per order of the items when an allocator's random draws depend on that order."""


class CheckFailed(AssertionError):
    """A method broke a rule of its protocol; the message says which rule and how."""


def check_allocator(allocator: Allocator, *, seed: int = 0, ordered: bool = False) -> None:
    """Run an allocator on small sets of items and budgets, and raise :class:`CheckFailed` at the first broken rule.

    Rules: the plan is for the given keys, with integer units >= 0; ``expected_cost`` is ``sum(units * cost)`` and
    within the budget; a budget of 0 buys nothing; the same seed gives the same plan; allocating leaves the items and
    the state untouched; a state survives JSON and gives the same plan afterwards; the order of the items does not
    matter: the same units by key, or, if the allocator draws random numbers, the same mean units by key within six
    standard errors over 200 draws. Items are 0, 1, 3 identical and 12 mixed ones, with all columns filled, so an
    allocator that needs one finds it.

    Args:
        allocator: the allocator to check.
        seed: of the items and of the generators.
        ordered: the order of the items is a preference, as in dynamic sampling; skip the order rule.
    """
    for items in (_items(0, seed), _items(1, seed), _items(3, seed, ties=True), _items(12, seed)):
        state = allocator.init(items)
        whole = math.ceil(float(items.cost.sum()))
        for budget in (0, 1, whole // 2, whole, 7 * whole + 3, 1000 * whole):
            plan = _check_plan(allocator, budget, items, state, seed)
            if not ordered:
                _check_order(allocator, budget, items, state, plan, seed)
        seen = allocator.observe(copy.deepcopy(state), _outcomes(items, seed))
        for one in (state, seen):
            _check_json(allocator, 3 * whole, items, one, seed)


def check_stopper(stopper: Stopper, *, seed: int = 0) -> None:
    """Run a stopper over simulated rows and raise :class:`CheckFailed` at the first broken rule.

    Rules: ``every`` >= 1; one int8 decision in {CONTINUE, FINISH, ABORT} for each row of the event; the same rows and
    events give the same decisions; a step leaves the state it was given untouched; no rows and empty events work;
    ``kept_weight`` gives one finite weight >= 0 a row.

    Args:
        stopper: the stopper to check.
        seed: of the simulated rows.
    """
    if stopper.every < 1:
        raise CheckFailed(f"Stopper.every is {stopper.every}; poll after 1 or more tokens")
    for n in (0, 1, 33):
        first, second = _simulate(stopper, n, seed), _simulate(stopper, n, seed)
        if len(first) != len(second) or any(not np.array_equal(a, b) for a, b in zip(first, second, strict=True)):
            raise CheckFailed("the same rows, seed and events gave different decisions; draw from Rows.seed only")


def check_online(online: Online, *, resources: int = 1, seed: int = 0) -> None:
    """Run a method on random streams of menus and raise :class:`CheckFailed` at the first broken rule.

    Rules: ``init`` has the whole budget in ``left``; an option is -1 or an index of the menu; what it costs comes off
    ``left``, and nothing else does; no executed option costs more than what was left; a worthless request is refused;
    a step leaves the state it was given untouched and has no other memory; a state survives JSON; ``observe`` books the
    difference between planned and actual.

    Args:
        online: the method to check, with budgets in the hundreds.
        resources: m of its budgets.
        seed: of the streams.
    """
    rng = np.random.default_rng([seed, 4])
    state = online.init()
    for t in range(400):
        value = rng.gamma(1.0, 1.0, 3)
        cost = rng.integers(0, 12, (3, resources))
        if t % 10 == 0:
            value[:] = 0.0
        menu = value.tolist(), cost.tolist()
        before = copy.deepcopy(state)
        option, after = online.step(state, *menu)
        if not _same(state, before):
            raise CheckFailed("step changed the state it was given; return a new one")
        back = load_state(online.init(), json.loads(json.dumps(dump_state(state))))
        if not _same(back, state) or online.step(back, *menu) != (option, after):
            raise CheckFailed("the same state and menu gave another step, or the state did not survive JSON")
        if option not in (-1, 0, 1, 2):
            raise CheckFailed(f"step chose option {option} of a menu of 3; -1 is none")
        if option >= 0 and value[option] <= 0:
            raise CheckFailed("step bought an option without value")
        taken = np.zeros(resources) if option < 0 else cost[option]
        if not np.allclose(np.subtract(state.left, taken), after.left) or np.any(taken > np.array(state.left)):
            raise CheckFailed(f"option {option} costs {taken.tolist()}: left went from {state.left} to {after.left}")
        state = after
    more = online.observe(state, [1.0] * resources, [3.0] * resources)
    if not np.allclose(np.subtract(state.left, 2.0), more.left):
        raise CheckFailed("observe did not take the difference between actual and planned off what is left")


def _items(n: int, seed: int, ties: bool = False) -> Items:
    rng = np.random.default_rng([seed, n])
    drawn = rng.integers(0, 3, n) * 8
    rate = rng.choice([0.0, 0.02, 0.3, 0.5, 0.9, 1.0, np.nan], n)
    items = Items(
        tuple(f"item{i:02d}" for i in rng.permutation(n)),
        cost=rng.uniform(3.0, 90.0, n),
        std=rng.gamma(1.0, 1.0, n),
        pass_rate=rate,
        visits=rng.integers(0, 4, n),
        drawn=drawn,
        right=np.asarray(rng.binomial(drawn, np.nan_to_num(rate, nan=0.5)), dtype=np.int64),
    )
    if not ties:
        return items
    alike: dict[str, Any] = {f.name: np.repeat(getattr(items, f.name)[:1], n) for f in dataclasses.fields(items)[1:]}
    return dataclasses.replace(items, **alike)


def _outcomes(items: Items, seed: int) -> Outcomes:
    rng = np.random.default_rng([seed, 1])
    keys = tuple(key for key in items.keys for _ in range(4))
    reward = rng.integers(0, 2, len(keys)).astype(np.float64)
    status = np.full(len(keys), ENDED, np.int8)
    return Outcomes(keys, rng.integers(1, 90, len(keys)), reward, rng.normal(size=len(keys)), status)


def _check_plan(allocator: Allocator, budget: int, items: Items, state: State, seed: int) -> Plan:
    before_items, before_state = copy.deepcopy(items), copy.deepcopy(state)
    plan = allocator.allocate(budget, items, state, rng=np.random.default_rng(seed))
    where = f"(budget {budget:,}, {len(items)} items)"
    if not _same(items, before_items) or not _same(state, before_state):
        raise CheckFailed(f"allocate changed its items or its state in place; return new ones {where}")
    if plan.keys != items.keys:
        raise CheckFailed(f"Plan.keys are not the items' keys in their order {where}")
    if not np.issubdtype(plan.units.dtype, np.integer):
        raise CheckFailed(f"Plan.units have dtype {plan.units.dtype}; units are integers {where}")
    if np.any(plan.units < 0):
        raise CheckFailed(f"Plan.units has {int(plan.units.min())}; units are 0 or more {where}")
    cost = math.fsum((plan.units * items.cost).tolist())
    if cost > budget:
        raise CheckFailed(f"the plan costs {cost:,.1f} tokens, over its budget of {budget:,} {where}")
    if not math.isclose(cost, plan.expected_cost, rel_tol=1e-9, abs_tol=1e-9):
        raise CheckFailed(
            f"Plan.expected_cost is {plan.expected_cost:,.3f}, but units * cost sum to {cost:,.3f} {where}"
        )
    again = allocator.allocate(budget, items, state, rng=np.random.default_rng(seed))
    if not np.array_equal(plan.units, again.units):
        raise CheckFailed(f"the same seed gave two different plans; draw from the rng argument only {where}")
    return plan


def _check_order(allocator: Allocator, budget: int, items: Items, state: State, plan: Plan, seed: int) -> None:
    order = np.random.default_rng([seed, 2]).permutation(len(items))
    if len(items) < 2:
        return
    columns = {f.name: getattr(items, f.name)[order] for f in dataclasses.fields(items)[1:]}
    shuffled = Items(tuple(items.keys[i] for i in order), **columns)
    rng = np.random.default_rng(seed)
    start = rng.bit_generator.state
    moved = allocator.allocate(budget, shuffled, state, rng=rng)
    if np.array_equal(moved.units, plan.units[order]):
        return
    where = f"(budget {budget:,}, {len(items)} items)"
    if rng.bit_generator.state == start:
        raise CheckFailed(f"the units of a key change with the order of the items; form groups and ties by key {where}")

    def draws(of: Items) -> NDArray[np.float64]:
        seeds = [np.random.default_rng([seed, 3, k]) for k in range(DRAWS)]
        return np.array([allocator.allocate(budget, of, state, rng=one).units for one in seeds], dtype=np.float64)

    here, there = draws(items)[:, order], draws(shuffled)
    gap = np.abs(here.mean(axis=0) - there.mean(axis=0))
    noise = np.sqrt((here.var(axis=0) + there.var(axis=0)) / DRAWS)
    # Two rare draws more or less are no evidence, hence the second term.
    if np.any(gap > 6 * noise + 2 / DRAWS):
        bad = shuffled.keys[int(np.argmax(gap - 6 * noise))]
        raise CheckFailed(f"the mean units of {bad!r} change with the order of the items, beyond random draws {where}")


def _check_json(allocator: Allocator, budget: int, items: Items, state: State, seed: int) -> None:
    try:
        text = json.dumps(dump_state(state))
    except TypeError as error:
        raise CheckFailed(f"the state does not go into JSON ({error}); use numbers, strings, tuples, arrays") from error
    back = load_state(state, json.loads(text))
    if not _same(back, state):
        raise CheckFailed("a state read back from JSON differs from the one written")
    plans = [allocator.allocate(budget, items, one, rng=np.random.default_rng(seed)) for one in (state, back)]
    if not np.array_equal(plans[0].units, plans[1].units):
        raise CheckFailed("a state read back from JSON gives another plan")


def _simulate(stopper: Stopper, n: int, seed: int) -> list[NDArray[np.int8]]:
    """Decisions of all polls of ``n`` rows that sample up to 240 tokens; half of them close and then answer."""
    rng = np.random.default_rng([seed, n])
    rows = Rows(tuple(f"item{i // 4}" for i in range(n)), rng.integers(60, 240, n), seed)
    closes = np.where(rng.random(n) < 0.5, rng.integers(10, 120, n), 10**6)
    answers = closes + rng.integers(1, 40, n)
    margins = rng.random((n, 300)).astype(np.float32)
    state, running, decided = stopper.init(rows), np.arange(n), []
    for length in range(stopper.every, 240 + stopper.every, stopper.every):
        running = running[rows.max_tokens[running] >= length]
        event = _event(running, length, closes, answers, partial(_read, margins, running, length))
        before = copy.deepcopy(state)
        decisions, after = stopper.step(state, event)
        if not _same(state, before):
            raise CheckFailed("step changed the state it was given; copy before writing")
        if decisions.dtype != np.int8 or decisions.shape != running.shape:
            given = f"{decisions.dtype} of shape {decisions.shape}"
            raise CheckFailed(f"step returned {given}, expected int8 of shape {running.shape}: one decision a row")
        if not np.all(np.isin(decisions, (CONTINUE, FINISH, ABORT))):
            raise CheckFailed(f"step returned {sorted(set(decisions.tolist()))}; decisions are 0, 1 or 2")
        decided.append(decisions)
        state, running = after, running[decisions == CONTINUE]
    if stopper.kept_weight is not None:
        weight = stopper.kept_weight(state)
        if weight.shape != (n,) or not np.all(np.isfinite(weight)) or np.any(weight < 0):
            raise CheckFailed(
                f"kept_weight returned shape {weight.shape}; it gives one finite weight >= 0 for {n} rows"
            )
    return decided


def _event(running: I64, length: int, closes: I64, answers: I64, margin: Callable[[], NDArray[np.float32]]) -> Event:
    def reached(at: I64) -> I64:
        return np.where(at[running] <= length, at[running], -1)

    return Event(running, np.full(len(running), length), reached(closes), reached(answers), margin)


def _read(margins: NDArray[np.float32], running: I64, length: int) -> NDArray[np.float32]:
    margin: NDArray[np.float32] = margins[running, length]
    return margin


def _same(a: Any, b: Any) -> bool:
    """Equality of states: arrays by value and dtype, NaN equal to itself, containers part by part."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        if not (isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.dtype == b.dtype):
            return False
        return np.array_equal(a, b, equal_nan=np.issubdtype(a.dtype, np.floating))
    if dataclasses.is_dataclass(a) and not isinstance(a, type):
        return type(a) is type(b) and all(_same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, tuple | list):
        return type(a) is type(b) and len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return bool(a == b or (a != a and b != b))
