"""The rules of ledgers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from budgeteer.check._common import CheckFailed, expect, refuses
from budgeteer.core import errors

if TYPE_CHECKING:
    from budgeteer.ledger import Ledger


def check_ledger(make_ledger: Callable[..., Ledger]) -> None:
    """Run a store through the ledger's rules, and raise :class:`CheckFailed` at the first that it breaks.

    Rules: a reservation is held in all scopes of its path or in none, and the outermost limit refuses; an id is charged
    once, whatever is repeated; an actual above its reservation is booked, as overshoot; an abandoned reservation is
    charged in full, or released if it was reserved so, and can be settled late; calendar and rolling windows follow the
    given clock, never give units back early, and keep their counts while other limits are added and removed; windows in
    a time zone follow its clocks, and another zone keeps what was used; a clock that goes back changes nothing;
    integers are exact far beyond 2^53; a wrong path, kind, id or amount is a typed error; competing threads and
    coroutines never exceed a limit, and what is charged is the sum of the actuals; some accounts are read as the
    snapshot has them; the journal verifies.

    Args:
        make_ledger: called as ``make_ledger(clock=clock)``; returns a new, empty ledger. ``clock()`` is milliseconds.
    """
    for rule in (
        _ledger_scopes,
        _ledger_ids,
        _ledger_time,
        _ledger_zones,
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


def _ledger_scopes(ledger: Ledger, now: list[int]) -> None:
    from budgeteer.ledger.limit import Limit
    from budgeteer.ledger.report import balances

    ledger.open("org", [Limit("all", 100), Limit("money", None)])
    ledger.open("org/team", [Limit("all", 70)])
    ledger.open("org/other", [])
    held = ledger.reserve("org/team", {"all": 60, "money": 5})
    expect(ledger.remaining("org/team"), {"all": 10, "money": None}, "what is held counts")
    expect(ledger.remaining("org/other"), {"all": 40, "money": None}, "what is held counts in the parent")
    both = refuses(errors.BudgetExceeded, "over both limits", ledger.reserve, "org/team", {"all": 41, "money": 1})
    expect(both.scope, "org", "the outermost limit refuses")
    inner = refuses(errors.BudgetExceeded, "over the inner", ledger.reserve, "org/team", {"all": 11, "money": 1})
    refusal = (inner.kind, inner.scope, inner.used, inner.requested, inner.limit)
    expect(refusal, ("all", "org/team", 60, 11, 70), "a refusal names kind, scope, used, requested and limit")
    expect(ledger.remaining("org/other"), {"all": 40, "money": None}, "a refused reservation holds nothing anywhere")
    settled = ledger.settle(held.id, {"all": 65, "money": 1}, tags={"stage": "a"})
    expect(settled.overshoot, (("all", 5),), "an actual above its reservation is overshoot")
    expect(ledger.remaining("org/team"), {"all": 5, "money": None}, "overshoot is booked")
    ledger.open("org/team", [Limit("all", 60)])
    expect(ledger.remaining("org/team"), {"all": -5, "money": None}, "other limits keep the balance")
    ledger.open("org/team")
    expect(ledger.remaining("org/team")["all"], -5, "opened again without limits, an account stays as it is")
    ledger.reset("org/team")
    expect(ledger.remaining("org/team")["all"], 35, "a reset is of one account, its parent still counts")
    many = ledger.reserve("org/team", {"all": 10, "money": 0})
    more = ledger.extend(many.id, {"all": 20, "money": 0})
    expect(more.amounts, (("all", 20), ("money", 0)), "extend gives totals")
    ledger.extend(many.id, {"all": 15, "money": 0})
    expect(ledger.remaining("org/team")["all"], 15, "extend never lowers")
    refuses(errors.BudgetExceeded, "extend over", ledger.extend, many.id, {"all": 36, "money": 0})
    expect(ledger.remaining("org/team")["all"], 15, "a refused extend leaves the reservation")
    ledger.open("org/team", [Limit("all", 60), Limit("all", 90, "day")])
    part, (_, whole) = ledger.accounts(["org/team", "org/none"]), ledger.snapshot()
    rows = [[row for row in balances(state, "org/team", now[0]) if row["limit"]] for state in (part, whole)]
    expect((list(part.accounts), len(rows[0])), (["org/team"], 2), "accounts are those that are asked for and open")
    expect(rows[0], rows[1], "accounts have the balances of the snapshot")


def _ledger_ids(ledger: Ledger, now: list[int]) -> None:
    from budgeteer.ledger.limit import Limit

    ledger.open("org", [Limit("all", 100)])
    for _ in range(2):
        expect(ledger.reserve("org", {"all": 30}, id="x").status, "open", "a repeated reserve is the first")
    expect(ledger.remaining("org"), {"all": 70}, "a repeated reserve holds once")
    refuses(errors.IdConflict, "an id with other amounts", ledger.reserve, "org", {"all": 31}, id="x")
    first = ledger.settle("x", {"all": 20})
    expect(ledger.settle("x", {"all": 20}), first, "a repeated settle returns the first")
    expect(ledger.reserve("org", {"all": 30}, id="x").status, "settled", "a settled id is not held again")
    refuses(errors.IdConflict, "settled with another amount", ledger.settle, "x", {"all": 21})
    refuses(errors.ReservationClosed, "release after settle", ledger.release, "x")
    refuses(errors.ReservationClosed, "extend after settle", ledger.extend, "x", {"all": 99})
    expect(ledger.remaining("org"), {"all": 80}, "an id is charged once")
    ledger.reserve("org", {"all": 80}, id="y")
    for _ in range(2):
        expect(ledger.release("y").status, "released", "release can be repeated")
    expect(ledger.remaining("org"), {"all": 80}, "a release gives back once")
    expect(ledger.reserve("org", {"all": 80}, id="y").status, "open", "a released id can be reserved anew")
    expect(ledger.settle("y").actual, (("all", 80),), "an unknown actual charges the reservation")
    refuses(errors.UnknownReservation, "settle of an unknown id", ledger.settle, "z", {"all": 1})


def _ledger_time(ledger: Ledger, now: list[int]) -> None:
    from budgeteer.ledger.limit import Limit

    ledger.open("org", [Limit("all", 100)])
    ledger.reserve("org", {"all": 60}, id="x", ttl=10, on_abandon="release")
    now[0] += 9_999
    expect(ledger.remaining("org"), {"all": 40}, "a reservation is held until it expires")
    now[0] += 1
    expect(ledger.remaining("org"), {"all": 100}, "an abandoned reservation comes back where it was reserved so")
    ledger.reserve("org", {"all": 90}, id="y", ttl=10, on_abandon="release")
    late = ledger.settle("x", {"all": 60})
    expect(
        (late.status, late.overshoot), ("settled", (("all", 50),)), "a late settle is booked, overshoot what had gone"
    )
    expect(ledger.remaining("org"), {"all": -50}, "a late settle is booked")
    now[0] -= 3_600_000
    expect(ledger.remaining("org"), {"all": -50}, "a clock that goes back changes nothing")
    now[0] += 3_600_000
    ledger.reset("org")
    ledger.open("org", [Limit("all", 100, 60), Limit("all", 1000, "day"), Limit("all", 1000, "month")])
    ledger.release("y")
    now[0] = 1_750_000_000_999  # in the last millisecond of a slice of the rolling window
    ledger.reset("org")
    ledger.reserve("org", {"all": 80}, id="w")
    ledger.settle("w", {"all": 80})
    refused = refuses(errors.BudgetExceeded, "over the rolling window", ledger.reserve, "org", {"all": 21})
    now[0] += 59_999
    expect(ledger.remaining("org"), {"all": 20}, "units never leave a rolling window early")
    now[0] += 1_001
    expect(ledger.remaining("org"), {"all": 100}, "units leave a rolling window at most 1/60 late")
    expect(refused.resets_at, 1_750_000_061_000, "a refusal says when the window makes room")
    ledger.open("org", [Limit("all", 100, "day"), Limit("all", 150, "month")])
    expect(ledger.remaining("org"), {"all": 20}, "a window that was there keeps its spending")
    ledger.open("org", [Limit("all", 100, "hour")])
    expect(ledger.remaining("org"), {"all": 100}, "a window that is new starts empty")
    ledger.settle(ledger.reserve("org", {"all": 5}).id, {"all": 5})
    ledger.open("org", [Limit("all", 100, "day"), Limit("all", 150, "month")])
    expect(ledger.remaining("org"), {"all": 15}, "a window whose limit was taken away for a time has gone on counting")
    now[0] = 1_750_118_399_999  # 2025-06-16 23:59:59.999
    ledger.settle(ledger.reserve("org", {"all": 65}).id, {"all": 65})
    refused = refuses(errors.BudgetExceeded, "over the month", ledger.reserve, "org", {"all": 1})
    now[0] += 1
    expect(ledger.remaining("org"), {"all": 0}, "a new day does not free the month")
    expect(refused.resets_at, 1_751_328_000_000, "a month ends at its first day, UTC")
    now[0] = 1_751_328_000_000
    expect(ledger.remaining("org"), {"all": 100}, "a month resets by the clock alone")
    for step in (0, -86_400_000, 86_400_000):
        now[0] += step
        ledger.settle(ledger.reserve("org", {"all": 30}).id, {"all": 30})
    expect(ledger.remaining("org"), {"all": 10}, "what is booked while the clock is back counts in the latest window")


def _ledger_zones(ledger: Ledger, now: list[int]) -> None:
    from budgeteer.ledger.limit import Limit

    now[0] = 1_792_969_199_999  # 2026-10-25 23:59:59.999 in Berlin, on a day of 25 hours; 22:59:59.999 UTC
    ledger.open("org", [Limit("all", 100, "day@Europe/Berlin"), Limit("all", 150, "hour@Asia/Kolkata")])
    ledger.settle(ledger.reserve("org", {"all": 80}).id)
    refused = refuses(errors.BudgetExceeded, "over the day of a zone", ledger.reserve, "org", {"all": 21})
    expect(refused.resets_at, now[0] + 1, "a day in a time zone ends at midnight there")
    now[0] += 1
    expect(ledger.remaining("org"), {"all": 70}, "a new day there frees the day, not an hour that goes on elsewhere")
    ledger.settle(ledger.reserve("org", {"all": 30}).id)
    refused = refuses(errors.BudgetExceeded, "over the hour of a zone", ledger.reserve, "org", {"all": 41})
    expect(refused.resets_at, now[0] + 1_800_000, "hours begin where the minute there is 0")
    now[0] += 1_800_000
    expect(ledger.remaining("org"), {"all": 70}, "an hour there is over, the day is not")
    ledger.open("org", [Limit("all", 100, "day"), Limit("all", 150, "month")])
    expect(ledger.remaining("org"), {"all": 70}, "another zone keeps what was used")
    now[0] += 1_800_000
    expect(ledger.remaining("org"), {"all": 100}, "it ends at midnight of the other zone")


def _ledger_abandoned(ledger: Ledger, now: list[int]) -> None:
    from budgeteer.ledger.core import ABANDONED
    from budgeteer.ledger.limit import Limit

    ledger.open("org", [Limit("all", 100), Limit("slots", 3), Limit("all", 70, "day")])
    ledger.open("org/a", [])
    ledger.reserve("org/a", {"all": 40, "slots": 1}, id="x", ttl=10)
    ledger.reserve("org", {"all": 5, "slots": 1}, id="y", ttl=10, on_abandon=["slots"])
    now[0] += 9_000
    renewed = ledger.extend("y", {"all": 5, "slots": 1}, ttl=10)
    expect(renewed.expires, now[0] + 10_000, "an extension renews, also without more")
    now[0] += 1_000
    expect(ledger.remaining("org"), {"all": 25, "slots": 1}, "an abandoned reservation is charged in full")
    refuses(errors.BudgetExceeded, "what was abandoned", ledger.reserve, "org", {"all": 26, "slots": 1})
    refuses(errors.ReservationClosed, "extend of an abandoned one", ledger.extend, "x", {"all": 50, "slots": 1})
    refuses(errors.ReservationClosed, "release of a charged one", ledger.release, "x")
    again = ledger.reserve("org/a", {"all": 40, "slots": 1}, id="x")
    expect((again.status, again.detail), ("settled", ABANDONED), "an abandoned id is charged once")
    for _ in range(2):
        late = ledger.settle("x", {"all": 30, "slots": 1})
        expect(dict(late.actual), {"all": 40, "slots": 1}, "a late settlement gives nothing back")
    late = ledger.settle("x", {"all": 75, "slots": 0}, tags={"stage": "a"})
    settlement = (dict(late.actual), dict(late.overshoot), late.detail)
    expect(
        settlement, ({"all": 75, "slots": 1}, {"all": 10}, '{"stage":"a"}'), "a late settlement adds what it says more"
    )
    expect(ledger.settle("x", {"all": 75, "slots": 1}), late, "a repeated late settle returns the first")
    refuses(errors.IdConflict, "settled late, and again", ledger.settle, "x", {"all": 76, "slots": 1})
    now[0] += 8_999
    expect(ledger.remaining("org"), {"all": -10, "slots": 1}, "what is renewed is held")
    now[0] += 1
    expect(ledger.remaining("org"), {"all": -10, "slots": 2}, "kinds to release come back, the others are charged")
    for bad in ("keep", "", 7, None, [], ["a b"]):
        refuses(
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
        expect(ledger.remaining("org")["money"], left, f"integers are exact ({units:,})")
    held = ledger.reserve("org", {"money": left, "sum": 0})
    refuses(errors.BudgetExceeded, "one unit too many", ledger.reserve, "org", {"money": 1, "sum": 0})
    ledger.settle(held.id, {"money": MAX_UNITS, "sum": 0})
    expect(ledger.remaining("org")["money"], left - MAX_UNITS, "a balance below 0 is exact")


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
        refuses(errors.InvalidInput, f"amounts {bad!r}", ledger.reserve, "org", bad)
    for path in ("", "/", "org/", "/org", "org//x", "org team", "a" * 129, "/".join("a" * 17), "org\n", None, 7):
        refuses(errors.InvalidInput, f"path {path!r}", ledger.open, path, [])
    for path in ("nobody", "org/nobody"):
        refuses(errors.UnknownAccount, f"path {path!r}", ledger.reserve, path, {"all": 1, "money": 1})
        refuses(errors.UnknownAccount, f"path {path!r}", ledger.remaining, path)
    for path in ("", "org team", "org\tx", "org//x", None):
        refuses(errors.InvalidInput, f"path {path!r}", ledger.reserve, path, {"all": 1, "money": 1})
    refuses(errors.UnknownAccount, "an account without its parent", ledger.open, "nobody/x", [])
    for name in ("", "a b", "a\tb", "x" * 257, 5):
        refuses(errors.InvalidInput, f"id {name!r}", ledger.reserve, "org", {"all": 1, "money": 1}, id=name)
    for ttl in (0, -1, 1.5, True, 10**12):
        refuses(errors.InvalidInput, f"ttl {ttl!r}", ledger.reserve, "org", {"all": 1, "money": 1}, ttl=ttl)
    expect(ledger.remaining("org"), {"all": 100, "money": 100}, "bad input holds nothing")
    held = ledger.reserve("org", {"all": 1, "money": 1})
    refuses(errors.InvalidInput, "settled without a kind", ledger.settle, held.id, {"all": 1})


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
    expect(ledger.remaining("org"), {"all": 1000 - charged}, "threads charge the sum of their actuals")

    async def hold(_: int) -> str | None:
        try:
            return (await ledger.aio.reserve("org/team", {"all": 30})).id
        except errors.BudgetExceeded:
            return None

    async def fan_out() -> list[str | None]:
        return list(await asyncio.gather(*map(hold, range(40))))

    ids = [name for name in asyncio.run(fan_out()) if name is not None]
    expect(len(ids), (900 - charged) // 30, "coroutines are admitted up to the limit and no further")
