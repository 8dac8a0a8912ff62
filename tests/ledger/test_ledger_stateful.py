"""One model, all stores: every operation has the same result or the same error in all of them."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from budgeteer.core.errors import BudgeteerError, BudgetExceeded
from budgeteer.ledger import Limit, MemoryLedger, SqliteLedger
from budgeteer.ledger.address import connect
from helpers import servers

DAY = 86_400_000
BIG = 10**17
"""Beyond 2^53: the Lua twin has to be exact there, too."""
SERVERS = [kind for kind in servers.KINDS if not servers.why_not(kind)]
"""Those that are installed; what needs another is skipped, with the reason, elsewhere."""
PATHS = ["a", "a/b", "a/b/c", "a/d"]
JUMPS = [1, 2, 60, 88, 89, 90, 91, 599, 600, 1800, 3600, 7200, 82_800, 86_400, 90_000, -3000]
TOKENS = st.one_of(st.integers(0, 25), st.integers(0, 25), st.integers(0, 150))
MONEY = st.one_of(st.sampled_from([BIG // 7, 10**9, 10**9 - 1, 1]), st.integers(0, BIG))
ZONED = ["day@Europe/Berlin", "day@America/New_York", "hour@Asia/Kolkata", "month@Pacific/Auckland"]
STARTS = [
    20_000 * DAY,
    1_729_980_000_000,  # 2024-10-27 00:00 in Berlin, a day of 25 hours
    1_741_496_340_000,  # 2025-03-08 23:59 in New York, before a day of 23 hours
    1_743_418_740_000,  # 2025-03-31 23:59 in Auckland, before a new month there
]
LIMITS = st.one_of(
    st.builds(Limit, st.just("all"), st.integers(40, 200), st.sampled_from([None, "day", "hour", 90, 90, *ZONED])),
    st.builds(Limit, st.just("money"), st.integers(BIG, 4 * BIG), st.sampled_from([None, "day", "hour", 90, *ZONED])),
    st.builds(Limit, st.sampled_from(["all", "money"]), st.none()),
)


def local(window: str, at: int) -> int:
    """The number of the hour, day or month of a calendar window that a moment is in."""
    unit, _, zone = window.partition("@")
    shown = datetime.fromtimestamp(at / 1000, ZoneInfo(zone) if zone else UTC)
    return {
        "hour": shown.toordinal() * 24 + shown.hour,
        "day": shown.toordinal(),
        "month": shown.year * 12 + shown.month,
    }[unit]


class Model:
    """Balances in the simplest form: a list of what was settled, a dictionary of what is held."""

    def __init__(self) -> None:
        self.limits: dict[str, dict[tuple, int | None]] = {}
        self.spent: list[tuple[str, str, int, int]] = []  # path, kind, units, at
        self.since: dict[tuple, int] = {}  # (path, kind and window) that counts -> length of `spent` when it began
        self.carried: dict[tuple, list[tuple]] = defaultdict(
            list
        )  # the same -> (length of `spent`, units of others, at)
        self.reset_at: dict[str, int] = defaultdict(int)  # path -> length of `spent` at the reset
        self.calls: dict[str, dict] = {}
        self.now = self.booked_at = 0

    def tick(self, clock: int) -> None:
        self.now = max(self.booked_at, clock)
        for call in self.calls.values():
            if call["status"] == "open" and call["expires"] <= self.now:
                self.booked()
                if call["on_abandon"] == "release":
                    call["status"] = "expired"
                    continue
                kept = () if call["on_abandon"] == "charge" else call["on_abandon"]
                actual = {kind: 0 if kind in kept else units for kind, units in call["amounts"]}
                call.update(status="abandoned", actual=actual)
                self.spent += [(call["path"], kind, units, self.now) for kind, units in actual.items()]

    def booked(self) -> None:
        self.booked_at = self.now

    def room(self, scope: str, key: tuple, limit: int) -> int:
        kind = key[0]
        held = sum(
            dict(c["amounts"])[kind] for c in self.calls.values()
            if c["status"] == "open" and (c["path"] + "/").startswith(scope + "/") and kind in dict(c["amounts"])
        )  # fmt: skip
        return limit - held - self.used(scope, key)

    def used(self, scope: str, key: tuple) -> int:
        kind, window = key
        carried = defaultdict(list)
        for i, units, at in self.carried[scope, key]:
            carried[i].append((units, at))
        found = []
        for i, (path, of, units, at) in enumerate([*self.spent, ("", "", 0, 0)]):
            found += carried[i]
            if of != kind or not (path + "/").startswith(scope + "/") or i < self.reset_at[scope]:
                continue
            if window is None or i >= self.since[scope, key]:
                found.append((units, at))
        if window is None:
            return sum(units for units, _ in found)
        if "@" not in str(window):
            return sum(units for units, at in found if self.counts(window, at))
        counted: dict[int, int] = {}  # where the next day has begun, be it by a clock that went back, units go there
        for units, at in found:
            day = local(window, at)
            day += day + 1 in counted
            if units:
                counted = {other: sum_ for other, sum_ in counted.items() if other >= day}
                counted[day] = counted.get(day, 0) + units
        return sum(units for day, units in counted.items() if day >= local(window, self.now))

    def counts(self, window: str | int, at: int) -> bool:
        if isinstance(window, str):
            return local(window, at) >= local(window, self.now)  # later: a reset takes a clock that went back
        width = -(-window * 1000 // 60)
        return at // width > self.now // width - (-(-window * 1000 // width) + 1)

    def free(self, path: str) -> dict[str, int | None]:
        parts = path.split("/")
        found: dict[str, int | None] = {}
        for depth in range(len(parts)):
            scope = "/".join(parts[: depth + 1])
            for key, limit in self.limits[scope].items():
                room = None if limit is None else self.room(scope, key, limit)
                before = found.get(key[0])
                found[key[0]] = room if before is None else before if room is None else min(before, room)
        return found


def outcome(operation, *arguments, **named):
    """A result or an error, in a form that can be compared."""
    try:
        return operation(*arguments, **named)
    except BudgetExceeded as error:
        return (
            "exceeded",
            str(error),
            error.scope,
            error.kind,
            error.used,
            error.requested,
            error.limit,
            error.resets_at,
        )
    except BudgeteerError as error:
        return (type(error).__name__, str(error))


class Ledgers(RuleBasedStateMachine):
    """Accounts a, a/b, a/b/c, a/d with limits that change, and a clock that jumps both ways."""

    ids = Bundle("ids")

    @initialize(start=st.sampled_from(STARTS))
    def make(self, start: int) -> None:
        self.clock = start
        self.folder = tempfile.TemporaryDirectory()
        now = lambda: self.clock  # noqa: E731
        known = 3600 * 24 * 3000  # forgetting old ids has a test of its own
        self.stores = [
            MemoryLedger(clock=now, remember=known),
            SqliteLedger(Path(self.folder.name) / "l.db", clock=now, remember=known),
        ]
        self.stores += [connect(servers.shared(kind), clock=now, remember=known) for kind in SERVERS]
        self.model = Model()
        self.count = 0
        limits = [Limit("all", 300), Limit("all", 100, 90)], [Limit("all", 250), Limit("money", 2 * BIG)], [], None
        for path, given in zip(PATHS, limits, strict=True):
            self.set_limits(path, given)

    def teardown(self) -> None:
        if hasattr(self, "stores"):
            for store in self.stores:
                store.close()
            self.folder.cleanup()

    def all(self, name: str, *arguments, **named):
        if name != "reset":
            self.model.tick(self.clock)
        outcomes = [outcome(getattr(store, name), *arguments, **named) for store in self.stores]
        for store, found in zip(self.stores, outcomes, strict=True):
            assert found == outcomes[0], (name, type(store).__name__)
        return outcomes[0]

    def set_limits(self, path: str, limits: list[Limit] | None) -> None:
        assert self.all("open", path, limits) is None
        new = {(limit.kind, limit.window): limit.amount for limit in limits or []}
        if path not in self.model.limits or (limits is not None and new != self.model.limits[path]):
            self.model.booked()
        if limits is None:
            self.model.limits.setdefault(path, {})
            return
        before = self.model.limits.get(path, {})
        self.model.limits[path] = {(limit.kind, limit.window): limit.amount for limit in limits}
        if self.model.limits[path] == before:
            return
        changed = {kind for kind, _ in (*before, *self.model.limits[path])}
        for at, key in [*self.model.since]:
            if at == path and key[0] in changed and key not in self.model.limits[path] and not self.model.used(at, key):
                del self.model.since[at, key]
                self.model.carried.pop((at, key), None)
        for key in self.model.limits[path]:
            self.model.since.setdefault((path, key), len(self.model.spent))
        for key, most in {key: self.same_unit(path, key) for key in new if key not in before}.items():
            if most > self.model.used(path, key):
                more = most - self.model.used(path, key)
                self.model.carried[path, key].append((len(self.model.spent), more, self.model.now))

    def same_unit(self, path: str, key: tuple) -> int:
        """The most that a window of the unit of a calendar window holds, in whatever time zone."""
        if not isinstance(key[1], str):
            return 0
        unit = key[1].partition("@")[0]
        return max(
            self.model.used(at, (kind, window))
            for at, (kind, window) in self.model.since
            if at == path and kind == key[0] and isinstance(window, str) and window.partition("@")[0] == unit
        )

    @rule(
        path=st.sampled_from(PATHS),
        limits=st.lists(LIMITS, max_size=3, unique_by=lambda limit: (limit.kind, limit.window)),
    )
    def change_limits(self, path: str, limits: list[Limit]) -> None:
        self.set_limits(path, limits)

    @rule(seconds=st.one_of(st.integers(1, 100), st.sampled_from(JUMPS)))
    def jump(self, seconds: int) -> None:
        self.clock += seconds * 1000

    @rule(
        target=ids, path=st.sampled_from(PATHS), tokens=TOKENS, money=MONEY, ttl=st.sampled_from([None, 5, 700]),
        on_abandon=st.sampled_from(["charge", "charge", "release", ("money",)]),
    )  # fmt: skip
    def reserve(self, path: str, tokens: int, money: int, ttl: int | None, on_abandon="charge"):
        self.count += 1
        name = f"call-{self.count}"
        return self._reserve(name, path, tokens, money, ttl, on_abandon)

    def _reserve(self, name: str, path: str, tokens: int, money: int, ttl: int | None, on_abandon):
        self.model.tick(self.clock)
        free = self.model.free(path)
        amounts = {kind: units for kind, units in (("all", tokens), ("money", money)) if kind in free}
        if not amounts:
            assert self.all("reserve", path, {"all": 1}, id=name)[0] == "InvalidInput"
            return multiple()
        fits = all(not units or free[kind] is None or units <= free[kind] for kind, units in amounts.items())
        found = self.all("reserve", path, amounts, id=name, ttl=ttl, on_abandon=on_abandon)
        assert (found[0] != "exceeded") == fits, (found, free)
        if not fits:
            return multiple()
        self.model.booked()
        expires = self.model.now + 1000 * (ttl or 600)
        self.model.calls[name] = {
            "path": path, "amounts": tuple(sorted(amounts.items())), "expires": expires, "status": "open",
            "on_abandon": on_abandon,
        }  # fmt: skip
        return name

    @rule(target=ids, path=st.sampled_from(PATHS), tokens=TOKENS, money=MONEY, more=st.integers(-20, 5))
    def spend(self, path: str, tokens: int, money: int, more: int):
        name = self.reserve(path, tokens, money, None)
        if not isinstance(name, str):
            return name
        self.settle(name, max(0, tokens + more), max(0, money + more))
        return name

    @rule(name=ids)
    def reserve_again(self, name: str) -> None:
        call = self.model.calls[name]
        self.model.tick(self.clock)
        if call["status"] in ("open", "settled", "abandoned") and "extended" not in call:
            found = self.all("reserve", call["path"], dict(call["amounts"]), id=name)
            assert found.status == call["status"].replace("abandoned", "settled")
        assert self.all("reserve", call["path"], {"all": 977}, id=name)[0] == "IdConflict"

    @rule(name=ids, tokens=TOKENS, money=MONEY)
    def settle(self, name: str, tokens: int, money: int) -> None:
        call = self.model.calls[name]
        self.model.tick(self.clock)
        actual = {kind: {"all": tokens, "money": money}[kind] for kind, _ in call["amounts"]}
        free = self.model.free(call["path"])
        found = self.all("settle", name, actual, tags={"stage": "review", "model": "ä\t\n"})
        if call["status"] == "settled":
            assert (found[0] == "IdConflict") == (call["actual"] != actual)
            return
        if call["status"] == "abandoned":
            before = call["actual"]
            actual = {kind: max(units, before[kind]) for kind, units in actual.items()}
            assert dict(found.actual) == actual
            if actual == before:
                return
            more = {kind: units - before[kind] for kind, units in actual.items()}
            over = {k: n - max(0, free[k]) for k, n in more.items() if free.get(k) is not None and n > max(0, free[k])}
            assert dict(found.overshoot) == over
            self.model.booked()
            call.update(status="settled", actual=actual)
            self.model.spent += [(call["path"], kind, units, self.model.now) for kind, units in more.items()]
            return
        limit = dict(call["amounts"]) if call["status"] == "open" else {k: free.get(k) for k in actual}
        over = {k: n - max(0, limit[k]) for k, n in actual.items() if limit[k] is not None and n > max(0, limit[k])}
        assert found.status == "settled"
        assert dict(found.overshoot) == over
        self.model.booked()
        call.update(status="settled", actual=actual)
        self.model.spent += [(call["path"], kind, units, self.model.now) for kind, units in actual.items()]

    @rule(name=ids)
    def settle_again(self, name: str) -> None:
        call = self.model.calls[name]
        if call["status"] == "settled":
            assert dict(self.all("settle", name, call["actual"]).actual) == call["actual"]

    @rule(name=ids)
    def release(self, name: str) -> None:
        call = self.model.calls[name]
        found = self.all("release", name)
        if call["status"] in ("settled", "abandoned"):
            assert found[0] == "ReservationClosed"
        elif call["status"] == "open":
            call["status"] = "released"
            self.model.booked()

    @rule(name=ids, tokens=TOKENS)
    def extend(self, name: str, tokens: int) -> None:
        call = self.model.calls[name]
        self.model.tick(self.clock)
        wanted = {kind: tokens for kind, _ in call["amounts"]}
        free = self.model.free(call["path"])
        found = self.all("extend", name, wanted, ttl=30)
        if call["status"] != "open":
            assert found[0] == "ReservationClosed"
            return
        more = {kind: max(0, wanted[kind] - units) for kind, units in call["amounts"]}
        fits = all(free.get(kind) is None or units <= free[kind] for kind, units in more.items() if units)
        assert (found[0] != "exceeded") == fits
        if fits:
            self.model.booked()
            call["amounts"] = tuple((kind, units + more[kind]) for kind, units in call["amounts"])
            call["expires"] = max(call["expires"], self.model.now + 30_000)
            call["extended"] = True

    @rule(path=st.sampled_from(PATHS))
    def reset(self, path: str) -> None:
        self.all("reset", path)
        self.model.now = self.clock
        self.model.booked()
        self.model.reset_at[path] = len(self.model.spent)
        for key in [key for key in self.model.carried if key[0] == path]:
            del self.model.carried[key]

    @rule()
    def unknown(self) -> None:
        assert self.all("settle", "nobody", {"all": 1})[0] == "UnknownReservation"
        assert self.all("reserve", "a/x", {"all": 1}, id="x")[0] == "UnknownAccount"

    @rule()
    def verify(self) -> None:
        for store in self.stores:
            store.verify()

    @invariant()
    def balances(self) -> None:
        if hasattr(self, "stores"):
            for path in PATHS[2:]:
                free = self.all("remaining", path)
                assert free == self.model.free(path), path


Ledgers.TestCase.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


TestLedgers = pytest.mark.usefixtures(*(f"{kind}_process" for kind in SERVERS))(Ledgers.TestCase)


@pytest.mark.usefixtures(*(f"{kind}_process" for kind in SERVERS))
@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 40))])
def test_limits_that_move_between_time_zones(seed: int) -> None:
    """The same machine, for windows: limits of few units that change often, and a clock that runs far."""
    random = Random(seed)
    ledgers = Ledgers()
    ledgers.make(random.choice(STARTS))
    windows = ["day", "hour", "month", *ZONED, *random.sample(ZONED, 2), 90, None]
    names: list[str] = []

    def limits() -> list[Limit]:
        chosen = random.sample(sorted({*windows}, key=str), random.randint(1, 3))
        return [Limit("all", random.randint(40, 200), window) for window in chosen]

    def spend(path: str) -> None:
        name = ledgers.spend(path, random.randint(1, 25), BIG // 9, random.randint(-3, 3))
        names.extend([name] if isinstance(name, str) else [])

    try:
        for path in PATHS:
            ledgers.set_limits(path, limits())
        for _ in range(60):
            match random.choice(
                ["limits", "limits", "jump", "jump", "spend", "spend", "spend", "leave", "late", "reset"]
            ):
                case "limits":
                    ledgers.set_limits(random.choice(PATHS[:3]), limits())
                case "jump":
                    ledgers.jump(random.choice(JUMPS))
                case "spend":
                    spend(random.choice(PATHS))
                case "leave":  # to be abandoned while other windows run
                    name = ledgers.reserve(random.choice(PATHS), 5, 5, random.choice([5, 700]), "charge")
                    names.extend([name] if isinstance(name, str) else [])
                case "late" if names:
                    ledgers.settle(random.choice(names), random.randint(1, 9), BIG // 8)
                case "reset" if random.random() < 0.3:
                    ledgers.reset(random.choice(PATHS))
            ledgers.balances()
        ledgers.verify()
    finally:
        ledgers.teardown()
