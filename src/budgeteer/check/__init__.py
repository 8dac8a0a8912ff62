"""Checks of the protocols' rules, for our own methods and for those of others.

>>> from budgeteer.allocate import uniform
>>> check_allocator(uniform())
>>> from budgeteer.ledger import MemoryLedger
>>> check_ledger(MemoryLedger)
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dataclasses
import itertools
import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from budgeteer.core import errors
from budgeteer.core.allocator import Allocator, State, dump_state, load_state
from budgeteer.core.online import Online
from budgeteer.core.plan import ENDED, I64, Items, Menu, Outcomes, Plan
from budgeteer.core.stopper import ABORT, CONTINUE, FINISH, Event, Rows, Stopper

if TYPE_CHECKING:
    from budgeteer.ledger import Ledger
    from budgeteer.models.model import Model
    from budgeteer.solve import Strategy

DRAWS = 200
"""Plans per order of the items when an allocator's random draws depend on that order."""


class CheckFailed(AssertionError):
    """A method broke a rule of its protocol; the message says which rule and how."""


Objective = Callable[[Items, I64], float]
"""``(items, units) -> value`` of a plan."""


def check_allocator(
    allocator: Allocator,
    *,
    seed: int = 0,
    ordered: bool = False,
    menu: bool = False,
    objective: Objective | None = None,
) -> None:
    """Run an allocator on small sets of items and budgets, and raise :class:`CheckFailed` at the first broken rule.

    Rules, all of them before and after ``observe``: the plan is for the given keys, with integer units >= 0 (on a menu:
    numbers of its options); ``expected_cost`` is ``sum(units * cost)`` (on a menu: the costs of the options taken) and
    within the budget; a budget of 0 buys nothing; the same seed gives the same plan; allocating leaves the items and
    the state untouched; a state survives JSON and gives the same plan afterwards; the order of the items does not
    matter: the same units by key, or, if the allocator draws random numbers, the same mean units by key within six
    standard errors over 200 draws.

    A plan's ``value`` is the objective at its units, worked out anew. Who certifies a ``gap`` promises that no plan
    within the budget is worth more than ``value + gap``: so a larger budget never lowers an optimal value (with a gap
    of 0), and on a menu of few items no plan at all is better. Without a gap (NaN) nothing is promised, and a value may
    fall.

    A budget that is negative, NaN or infinite is refused with InvalidInput, and one beyond int64 is refused or kept.
    Items with costs of 0, or with numbers that are NaN or infinite, are refused before they buy anything (a pass rate
    of NaN was never seen). Items are 0, 1, 3 identical and 12 mixed ones, and 4 whose columns are 0 or far towards the
    ends of float64, with all columns filled, so an allocator that needs one finds it; on a menu they hold 0 to 5
    options each, some of them equal.

    Args:
        allocator: the allocator to check.
        seed: of the items and of the generators.
        ordered: the order of the items is a preference, as in dynamic sampling; skip the order rule.
        menu: check on items with a menu of options instead of items with a cost a unit.
        objective: what the allocator maximises; None: the sum of the chosen options' values on a menu, and nothing
            elsewhere, where a plan that certifies a gap then fails.
    """
    make = _menus if menu else _items
    if menu and objective is None:
        objective = _sum_of_values
    for items in (make(0, seed), make(1, seed), make(3, seed, ties=True), make(12, seed), _ends(make(4, seed))):
        state = allocator.init(items)
        whole = math.ceil(float(items.cost.sum())) if items.menu is None else int(items.menu.cost.sum()) // 2
        seen = allocator.observe(copy.deepcopy(state), _outcomes(items, seed))
        for one in (state, seen):
            worth = -math.inf
            for budget in sorted({0, 1, whole // 8, whole // 2, whole, 7 * whole + 3, 1000 * whole}):
                plan = _check_plan(allocator, budget, items, one, seed)
                _check_value(plan, worth, items, budget, objective)
                worth = worth if math.isnan(plan.value) else max(worth, plan.value)
                if not ordered and one is state:
                    _check_order(allocator, budget, items, one, plan, seed)
            _check_json(allocator, 3 * whole, items, one, seed)
    for items in (make(0, seed), make(3, seed, ties=True)):
        _check_budgets(allocator, items, allocator.init(items), seed)
    _check_refusals(allocator, make(3, seed, ties=True), seed)


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


def check_ledger(make_ledger: Callable[..., Ledger]) -> None:
    """Run a store through the ledger's rules, and raise :class:`CheckFailed` at the first that it breaks.

    Rules: a reservation is held in all scopes of its path or in none, and the outermost limit refuses; an id is charged
    once, whatever is repeated; an actual above its reservation is booked, as overshoot; what is abandoned is charged in
    full, or comes back where it was reserved so, and can be settled late; calendar and rolling windows follow the clock
    given, never early, keep what they hold while other limits come and go, and a clock that goes back changes
    nothing; integers are exact far beyond 2^53; a path, kind, id or amount that is wrong is a typed error; threads and
    coroutines that compete never pass a limit, and everything charged is the sum of the actuals; the journal verifies.

    Args:
        make_ledger: called as ``make_ledger(clock=clock)``; returns a new, empty ledger. ``clock()`` is milliseconds.
    """
    for rule in (
        _ledger_scopes,
        _ledger_ids,
        _ledger_time,
        _ledger_abandoned,
        _ledger_numbers,
        _ledger_input,
        _ledger_race,
    ):
        now = [1_750_000_000_123]
        with make_ledger(clock=lambda now=now: now[0]) as ledger:
            rule(ledger, now)
            try:
                ledger.verify()
            except errors.JournalBroken as error:
                raise CheckFailed(f"the journal does not verify after {rule.__name__[8:]}: {error}") from error


def check_strategy(
    factory: Callable[[], Strategy], *, seed: int = 0, model: Callable[[], Model] | None = None, budgets: int = 12
) -> None:
    """Run a strategy on a scripted model, and raise :class:`CheckFailed` at the first broken rule.

    Rules: whatever the budget, from 0 up, it returns an Answer and does not raise; an answer is in the style's normal
    form, and no answer comes with a reason; every call goes through the task's model, and none is left under way; the
    units spent are within the budget; with a large budget on a model that answers, it answers; the same seed gives the
    same answer by the same calls; on a model that fails half of its calls, or cuts them off, no answer that came is
    lost: a ModelError may pass only when nothing was answered (the runner makes it the reason); on one that fails
    always there is no answer. A strategy without needs works with messages on a black box, which
    declares no capability; one with needs is refused there by the runner, before any call.

    Args:
        factory: makes the strategy, afresh for every run.
        seed: of the budgets and the model.
        model: a model with what the strategy needs, for strategies that need internals; the rules about failures and
            large budgets are then left out, since nothing is known of it.
        budgets: how many random budgets of each kind.
    """
    from budgeteer.check._strategy import check

    check(factory, seed, model, budgets)


def _expect(found: Any, wanted: Any, rule: str) -> None:
    if found != wanted:
        raise CheckFailed(f"{rule}: expected {wanted}, found {found}")


def _refuses(error: type[Exception], rule: str, operation: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    try:
        found = operation(*arguments, **named)
    except error as caught:
        return caught
    raise CheckFailed(f"{rule}: expected {error.__name__}, got {found!r}")


def _ledger_scopes(ledger: Ledger, now: list[int]) -> None:
    from budgeteer.ledger.limit import Limit

    ledger.open("org", [Limit("all", 100), Limit("money", None)])
    ledger.open("org/team", [Limit("all", 70)])
    ledger.open("org/other", [])
    held = ledger.reserve("org/team", {"all": 60, "money": 5})
    _expect(ledger.remaining("org/team"), {"all": 10, "money": None}, "what is held counts")
    _expect(ledger.remaining("org/other"), {"all": 40, "money": None}, "what is held counts in the parent")
    both = _refuses(errors.BudgetExceeded, "over both limits", ledger.reserve, "org/team", {"all": 41, "money": 1})
    _expect(both.scope, "org", "the outermost limit refuses")
    inner = _refuses(errors.BudgetExceeded, "over the inner", ledger.reserve, "org/team", {"all": 11, "money": 1})
    found = (inner.kind, inner.scope, inner.used, inner.requested, inner.limit)
    _expect(found, ("all", "org/team", 60, 11, 70), "a refusal names kind, scope, used, requested and limit")
    _expect(ledger.remaining("org/other"), {"all": 40, "money": None}, "a refused reservation holds nothing anywhere")
    settled = ledger.settle(held.id, {"all": 65, "money": 1}, tags={"stage": "a"})
    _expect(settled.overshoot, (("all", 5),), "an actual above its reservation is overshoot")
    _expect(ledger.remaining("org/team"), {"all": 5, "money": None}, "overshoot is booked")
    ledger.open("org/team", [Limit("all", 60)])
    _expect(ledger.remaining("org/team"), {"all": -5, "money": None}, "other limits keep the balance")
    ledger.open("org/team")
    _expect(ledger.remaining("org/team")["all"], -5, "opened again without limits, an account stays as it is")
    ledger.reset("org/team")
    _expect(ledger.remaining("org/team")["all"], 35, "a reset is of one account, its parent still counts")
    many = ledger.reserve("org/team", {"all": 10, "money": 0})
    more = ledger.extend(many.id, {"all": 20, "money": 0})
    _expect(more.amounts, (("all", 20), ("money", 0)), "extend gives totals")
    ledger.extend(many.id, {"all": 15, "money": 0})
    _expect(ledger.remaining("org/team")["all"], 15, "extend never lowers")
    _refuses(errors.BudgetExceeded, "extend over", ledger.extend, many.id, {"all": 36, "money": 0})
    _expect(ledger.remaining("org/team")["all"], 15, "a refused extend leaves the reservation")


def _ledger_ids(ledger: Ledger, now: list[int]) -> None:
    from budgeteer.ledger.limit import Limit

    ledger.open("org", [Limit("all", 100)])
    for _ in range(2):
        _expect(ledger.reserve("org", {"all": 30}, id="x").status, "open", "a repeated reserve is the first")
    _expect(ledger.remaining("org"), {"all": 70}, "a repeated reserve holds once")
    _refuses(errors.IdConflict, "an id with other amounts", ledger.reserve, "org", {"all": 31}, id="x")
    first = ledger.settle("x", {"all": 20})
    _expect(ledger.settle("x", {"all": 20}), first, "a repeated settle returns the first")
    _expect(ledger.reserve("org", {"all": 30}, id="x").status, "settled", "a settled id is not held again")
    _refuses(errors.IdConflict, "settled with another amount", ledger.settle, "x", {"all": 21})
    _refuses(errors.ReservationClosed, "release after settle", ledger.release, "x")
    _refuses(errors.ReservationClosed, "extend after settle", ledger.extend, "x", {"all": 99})
    _expect(ledger.remaining("org"), {"all": 80}, "an id is charged once")
    ledger.reserve("org", {"all": 80}, id="y")
    for _ in range(2):
        _expect(ledger.release("y").status, "released", "release can be repeated")
    _expect(ledger.remaining("org"), {"all": 80}, "a release gives back once")
    _expect(ledger.reserve("org", {"all": 80}, id="y").status, "open", "a released id can be reserved anew")
    _expect(ledger.settle("y").actual, (("all", 80),), "an unknown actual charges the reservation")
    _refuses(errors.UnknownReservation, "settle of an unknown id", ledger.settle, "z", {"all": 1})


def _ledger_time(ledger: Ledger, now: list[int]) -> None:
    from budgeteer.ledger.limit import Limit

    ledger.open("org", [Limit("all", 100)])
    ledger.reserve("org", {"all": 60}, id="x", ttl=10, on_abandon="release")
    now[0] += 9_999
    _expect(ledger.remaining("org"), {"all": 40}, "a reservation is held until it expires")
    now[0] += 1
    _expect(ledger.remaining("org"), {"all": 100}, "an abandoned reservation comes back where it was reserved so")
    ledger.reserve("org", {"all": 90}, id="y", ttl=10, on_abandon="release")
    late = ledger.settle("x", {"all": 60})
    _expect(
        (late.status, late.overshoot), ("settled", (("all", 50),)), "a late settle is booked, overshoot what had gone"
    )
    _expect(ledger.remaining("org"), {"all": -50}, "a late settle is booked")
    now[0] -= 3_600_000
    _expect(ledger.remaining("org"), {"all": -50}, "a clock that goes back changes nothing")
    now[0] += 3_600_000
    ledger.reset("org")
    ledger.open("org", [Limit("all", 100, 60), Limit("all", 1000, "day"), Limit("all", 1000, "month")])
    ledger.release("y")
    now[0] = 1_750_000_000_999  # in the last millisecond of a slice of the rolling window
    ledger.reset("org")
    ledger.reserve("org", {"all": 80}, id="w")
    ledger.settle("w", {"all": 80})
    refused = _refuses(errors.BudgetExceeded, "over the rolling window", ledger.reserve, "org", {"all": 21})
    now[0] += 59_999
    _expect(ledger.remaining("org"), {"all": 20}, "units never leave a rolling window early")
    now[0] += 1_001
    _expect(ledger.remaining("org"), {"all": 100}, "units leave a rolling window at most 1/60 late")
    _expect(refused.resets_at, 1_750_000_061_000, "a refusal says when the window makes room")
    ledger.open("org", [Limit("all", 100, "day"), Limit("all", 150, "month")])
    _expect(ledger.remaining("org"), {"all": 20}, "a window that was there keeps its spending")
    ledger.open("org", [Limit("all", 100, "hour")])
    _expect(ledger.remaining("org"), {"all": 100}, "a window that is new starts empty")
    ledger.settle(ledger.reserve("org", {"all": 5}).id, {"all": 5})
    ledger.open("org", [Limit("all", 100, "day"), Limit("all", 150, "month")])
    _expect(ledger.remaining("org"), {"all": 15}, "a window whose limit was taken away for a time has gone on counting")
    now[0] = 1_750_118_399_999  # 2025-06-16 23:59:59.999
    ledger.settle(ledger.reserve("org", {"all": 65}).id, {"all": 65})
    refused = _refuses(errors.BudgetExceeded, "over the month", ledger.reserve, "org", {"all": 1})
    now[0] += 1
    _expect(ledger.remaining("org"), {"all": 0}, "a new day does not free the month")
    _expect(refused.resets_at, 1_751_328_000_000, "a month ends at its first day, UTC")
    now[0] = 1_751_328_000_000
    _expect(ledger.remaining("org"), {"all": 100}, "a month resets by the clock alone")
    for step in (0, -86_400_000, 86_400_000):
        now[0] += step
        ledger.settle(ledger.reserve("org", {"all": 30}).id, {"all": 30})
    _expect(ledger.remaining("org"), {"all": 10}, "what is booked while the clock is back counts in the latest window")


def _ledger_abandoned(ledger: Ledger, now: list[int]) -> None:
    from budgeteer.ledger.core import ABANDONED
    from budgeteer.ledger.limit import Limit

    ledger.open("org", [Limit("all", 100), Limit("slots", 3), Limit("all", 70, "day")])
    ledger.open("org/a", [])
    ledger.reserve("org/a", {"all": 40, "slots": 1}, id="x", ttl=10)
    ledger.reserve("org", {"all": 5, "slots": 1}, id="y", ttl=10, on_abandon=["slots"])
    now[0] += 9_000
    renewed = ledger.extend("y", {"all": 5, "slots": 1}, ttl=10)
    _expect(renewed.expires, now[0] + 10_000, "an extension renews, also without more")
    now[0] += 1_000
    _expect(ledger.remaining("org"), {"all": 25, "slots": 1}, "an abandoned reservation is charged in full")
    _refuses(errors.BudgetExceeded, "what was abandoned", ledger.reserve, "org", {"all": 26, "slots": 1})
    _refuses(errors.ReservationClosed, "extend of an abandoned one", ledger.extend, "x", {"all": 50, "slots": 1})
    _refuses(errors.ReservationClosed, "release of a charged one", ledger.release, "x")
    again = ledger.reserve("org/a", {"all": 40, "slots": 1}, id="x")
    _expect((again.status, again.detail), ("settled", ABANDONED), "an abandoned id is charged once")
    for _ in range(2):
        late = ledger.settle("x", {"all": 30, "slots": 1})
        _expect(dict(late.actual), {"all": 40, "slots": 1}, "a late settlement gives nothing back")
    late = ledger.settle("x", {"all": 75, "slots": 0}, tags={"stage": "a"})
    found = (dict(late.actual), dict(late.overshoot), late.detail)
    _expect(found, ({"all": 75, "slots": 1}, {"all": 10}, '{"stage":"a"}'), "a late settlement adds what it says more")
    _expect(ledger.settle("x", {"all": 75, "slots": 1}), late, "a repeated late settle returns the first")
    _refuses(errors.IdConflict, "settled late, and again", ledger.settle, "x", {"all": 76, "slots": 1})
    now[0] += 8_999
    _expect(ledger.remaining("org"), {"all": -10, "slots": 1}, "what is renewed is held")
    now[0] += 1
    _expect(ledger.remaining("org"), {"all": -10, "slots": 2}, "kinds to release come back, the others are charged")
    for bad in ("keep", "", 7, None, [], ["a b"]):
        _refuses(
            errors.InvalidInput, f"on_abandon {bad!r}", ledger.reserve, "org", {"all": 0, "slots": 0}, on_abandon=bad
        )


def _ledger_numbers(ledger: Ledger, now: list[int]) -> None:
    from budgeteer.ledger.limit import MAX_UNITS, Limit

    rng = np.random.default_rng(7)
    ledger.open("org", [Limit("money", MAX_UNITS), Limit("sum", None)])
    left = MAX_UNITS
    edges = [0, 1, 10**9 - 1, 10**9, 10**9 + 1, 2**53 - 1, 2**53 + 1, 10**15, 10**18 + 10**9 - 1]
    for units in [*edges, *rng.integers(0, 10**17, 12).tolist()]:
        held = ledger.reserve("org", {"money": units, "sum": MAX_UNITS})
        ledger.settle(held.id, {"money": max(0, units - 1), "sum": MAX_UNITS})
        left -= max(0, units - 1)
        _expect(ledger.remaining("org")["money"], left, f"integers are exact ({units:,})")
    held = ledger.reserve("org", {"money": left, "sum": 0})
    _refuses(errors.BudgetExceeded, "one unit too many", ledger.reserve, "org", {"money": 1, "sum": 0})
    ledger.settle(held.id, {"money": MAX_UNITS, "sum": 0})
    _expect(ledger.remaining("org")["money"], left - MAX_UNITS, "a balance below 0 is exact")


def _ledger_input(ledger: Ledger, now: list[int]) -> None:
    from budgeteer.ledger.limit import Limit

    ledger.open("org", [Limit("all", 100), Limit("money", 100)])
    amounts: list[Any] = [
        {"all": -1, "money": 0}, {"all": True, "money": 0}, {"all": 1.0, "money": 0}, {"all": math.nan, "money": 0},
        {"all": 2**70, "money": 0}, {"all": None, "money": 0}, {"all": "1", "money": 0}, {}, None, 5,
        {"all": 1}, {"all": 1, "money": 1, "tokns": 1}, {"all": 1, "mony": 1}, {"All": 1, "money": 1},
        {1: 1, "money": 1},
    ]  # fmt: skip
    for bad in amounts:
        _refuses(errors.InvalidInput, f"amounts {bad!r}", ledger.reserve, "org", bad)
    for path in ("", "/", "org/", "/org", "org//x", "org team", "a" * 129, "/".join("a" * 17), "org\n", None, 7):
        _refuses(errors.InvalidInput, f"path {path!r}", ledger.open, path, [])
    for path in ("nobody", "org/nobody"):
        _refuses(errors.UnknownAccount, f"path {path!r}", ledger.reserve, path, {"all": 1, "money": 1})
        _refuses(errors.UnknownAccount, f"path {path!r}", ledger.remaining, path)
    for path in ("", "org team", "org\tx", "org//x", None):
        _refuses(errors.InvalidInput, f"path {path!r}", ledger.reserve, path, {"all": 1, "money": 1})
    _refuses(errors.UnknownAccount, "an account without its parent", ledger.open, "nobody/x", [])
    for name in ("", "a b", "a\tb", "x" * 257, 5):
        _refuses(errors.InvalidInput, f"id {name!r}", ledger.reserve, "org", {"all": 1, "money": 1}, id=name)
    for ttl in (0, -1, 1.5, True, 10**12):
        _refuses(errors.InvalidInput, f"ttl {ttl!r}", ledger.reserve, "org", {"all": 1, "money": 1}, ttl=ttl)
    _expect(ledger.remaining("org"), {"all": 100, "money": 100}, "bad input holds nothing")
    held = ledger.reserve("org", {"all": 1, "money": 1})
    _refuses(errors.InvalidInput, "settled without a kind", ledger.settle, held.id, {"all": 1})


def _ledger_race(ledger: Ledger, now: list[int]) -> None:
    from budgeteer.ledger.limit import Limit

    ledger.open("org", [Limit("all", 1000)])
    ledger.open("org/team", [Limit("all", 900)])

    def call(seed: int) -> int:
        rng = np.random.default_rng(seed)
        charged = 0
        for _ in range(10):
            try:
                held = ledger.reserve("org/team", {"all": 30})
            except errors.BudgetExceeded:
                continue
            charged += int(dict(ledger.settle(held.id, {"all": int(rng.integers(0, 31))}).actual)["all"])
        return charged

    with ThreadPoolExecutor(8) as pool:
        charged = sum(pool.map(call, range(8)))
    _expect(ledger.remaining("org"), {"all": 1000 - charged}, "threads charge the sum of their actuals")

    async def hold(_: int) -> str | None:
        try:
            return (await ledger.aio.reserve("org/team", {"all": 30})).id
        except errors.BudgetExceeded:
            return None

    async def fan_out() -> list[str | None]:
        return list(await asyncio.gather(*map(hold, range(40))))

    ids = [name for name in asyncio.run(fan_out()) if name is not None]
    _expect(len(ids), (900 - charged) // 30, "coroutines are admitted up to the limit and no further")


def check_online(online: Online, *, resources: int = 1, seed: int = 0) -> None:
    """Run a method on random streams of menus and raise :class:`CheckFailed` at the first broken rule.

    Rules: ``init`` has the whole budget in ``left``; an option is -1 or an index of the menu; what it costs comes off
    ``left``, and nothing else does; no executed option costs more than what was left; a worthless request is refused;
    a step leaves the state it was given untouched and has no other memory; a state survives JSON; ``observe`` books the
    difference between planned and actual; values and costs that are NaN or infinite are refused with InvalidInput.

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
    for bad in (math.nan, math.inf):
        rule = f"a value of {bad} or a cost of {bad} on a menu"
        _refuses(errors.InvalidInput, rule, online.step, state, [bad, 1.0], [[1.0] * resources] * 2)
        _refuses(errors.InvalidInput, rule, online.step, state, [1.0, 1.0], [[bad] * resources] * 2)
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
        scale=rng.gamma(1.0, 1.0, n),
        decay=rng.uniform(0.3, 2.0, n),
    )
    if not ties:
        return items
    alike: dict[str, Any] = {f.name: np.repeat(getattr(items, f.name)[:1], n) for f in dataclasses.fields(items)[1:-1]}
    return dataclasses.replace(items, **alike)


def _menus(n: int, seed: int, ties: bool = False) -> Items:
    """Items with menus; on every other menu, costs and values are small whole numbers, so that sums tie."""
    rng = np.random.default_rng([seed, n, 4])
    size = rng.integers(1, 6, n) if ties or n == 1 else rng.integers(0, 6, n)
    cost, value = [], []
    for i, k in enumerate(size.tolist()):
        coarse = i % 2 == 0
        cost.append(rng.integers(1, 5 if coarse else 90, k))
        value.append(rng.integers(0, 4, k).astype(np.float64) if coarse else rng.gamma(1.0, 1.0, k))
    if ties and n:
        cost, value = [cost[0]] * n, [value[0]] * n
    return Items(tuple(f"item{i:02d}" for i in rng.permutation(n)), menu=Menu.of(cost, value))


def _ends(items: Items) -> Items:
    """The same items with columns of zeros, and of the smallest and largest numbers."""
    if items.menu is not None:
        value = np.where(np.arange(len(items.menu.value)) % 2, 0.0, items.menu.value * 2.0**-1000)
        return dataclasses.replace(items, menu=Menu(items.menu.cost, value, items.menu.indptr))
    ends = np.array([0.0, 2.0**-1000, 1.0, 2.0**500])
    rate, count = np.array([0.0, 1.0, np.nan, 2.0**-60]), np.zeros(4, np.int64)
    return dataclasses.replace(
        items, std=ends, scale=ends[::-1].copy(), decay=ends, pass_rate=rate, visits=count, drawn=count, right=count
    )


def _sum_of_values(items: Items, units: I64) -> float:
    return float(items.options().at(units)[1].sum())


def _check_value(plan: Plan, worth: float, items: Items, budget: int, objective: Objective | None) -> None:
    """``worth``: the largest value of the plans for smaller budgets, which this one could have kept."""
    where = f"(budget {budget:,}, {len(items)} items)"
    if math.isnan(plan.value):
        if not math.isnan(plan.gap):
            raise CheckFailed(f"Plan.gap is {plan.gap} of a value that is NaN {where}")
        return
    if objective is not None and len(items):
        true = objective(items, plan.units)
        if not math.isclose(plan.value, true, rel_tol=1e-9, abs_tol=1e-300):
            raise CheckFailed(f"Plan.value is {plan.value:.9g}, but the plan's units are worth {true:.9g} {where}")
    if math.isnan(plan.gap):
        return
    if objective is None and len(items):
        raise CheckFailed(f"Plan.gap is {plan.gap:.3g}, but of which value? Give check_allocator the objective {where}")
    if plan.gap < 0:
        raise CheckFailed(f"Plan.gap is {plan.gap}; it is how much more a plan can be worth, 0 or more {where}")
    if plan.value + plan.gap < worth - 1e-9 * abs(worth):
        raise CheckFailed(
            f"Plan.value {plan.value:.6g} with a gap of {plan.gap:.3g} says that no plan is worth {worth:.6g}, "
            f"but a smaller budget bought one {where}"
        )
    if items.menu is None or objective is None or not 0 < len(items) <= 3:
        return
    for chosen in itertools.product(*(range(size + 1) for size in np.diff(items.menu.indptr).tolist())):
        units = np.array(chosen, np.int64)
        if items.spend(units) <= budget and objective(items, units) > plan.value + plan.gap + 1e-9 * abs(plan.value):
            raise CheckFailed(
                f"Plan.value {plan.value:.6g} with a gap of {plan.gap:.3g} says that no plan is worth "
                f"{objective(items, units):.6g}, but the options {units.tolist()} are {where}"
            )


def _check_budgets(allocator: Allocator, items: Items, state: State, seed: int) -> None:
    """Budgets that are no tokens are refused; one beyond int64 is refused, or kept by a plan that is right."""
    for bad in (-1, math.nan, math.inf, -math.inf):
        rng = np.random.default_rng(seed)
        rule = f"a budget of {bad} for {len(items)} items is refused"
        _refuses(errors.InvalidInput, rule, allocator.allocate, bad, items, state, rng=rng)
    with contextlib.suppress(errors.InvalidInput):
        _check_plan(allocator, 10**22, items, state, seed)


def _check_refusals(allocator: Allocator, items: Items, seed: int) -> None:
    """No plan comes of items with numbers that mean nothing, wherever they are refused."""

    def allocate(bad: Items | Callable[[], Items]) -> Plan:
        given = bad() if callable(bad) else bad
        return allocator.allocate(100, given, allocator.init(given), rng=np.random.default_rng(seed))

    for number in (math.nan, math.inf, -math.inf, 0.0):
        if items.menu is not None:
            cost, value, indptr = items.menu.cost, items.menu.value, items.menu.indptr
            rows = [slice(int(a), int(b)) for a, b in itertools.pairwise(indptr)]
            if number:
                worth = partial(_menu_with, items, cost, np.full(len(value), number), rows)
                _refuses(errors.InvalidInput, f"values of {number} on a menu are refused", allocate, worth)
            priced = partial(_menu_with, items, np.full(len(cost), number), value, rows)
            _refuses(errors.InvalidInput, f"costs of {number} on a menu are refused", allocate, priced)
            continue
        for name in ("cost", "std", "scale", "decay", "pass_rate"):
            if (number == 0 and name != "cost") or (math.isnan(number) and name == "pass_rate"):
                continue
            columns: dict[str, Any] = {name: np.full(len(items), number)}
            rule = f"items whose {name} is {number} are refused"
            _refuses(errors.InvalidInput, rule, allocate, partial(dataclasses.replace, items, **columns))


def _menu_with(items: Items, cost: NDArray[Any], value: NDArray[np.float64], rows: list[slice]) -> Items:
    menu = Menu.of([cost[row] for row in rows], [value[row] for row in rows])
    return Items(items.keys, menu=menu)


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
    if items.menu is not None and np.any(plan.units > np.diff(items.menu.indptr)):
        raise CheckFailed(f"Plan.units has an option that is not on its item's menu {where}")
    cost = items.spend(plan.units)
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
    shuffled = items.take(order)
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
