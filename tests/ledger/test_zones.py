"""Calendar windows of limits in time zones: when they begin and end, and what a change of the zone keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from budgeteer.core import zones
from budgeteer.core.errors import BudgetExceeded, InvalidInput, JournalBroken, LedgerUnavailable, UnknownZone
from budgeteer.ledger import (
    Ledger,
    Limit,
    MemoryLedger,
    RedisLedger,
    SqliteLedger,
    core,
    journal,
    limit,
    report,
    windows,
)
from budgeteer.ledger.address import connect
from budgeteer.ledger.protocol import wall_clock
from helpers import servers

HOUR = 3_600_000
UNITS = {"hour": 13, "day": 10, "month": 7}
"""How much of YYYY-MM-DDTHH says which hour, day or month a moment is in."""


def at(text: str) -> int:
    """A moment such as 2026-03-29T01:00Z, in milliseconds since 1970."""
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def shown(moment: int, zone: str) -> str:
    """What the zone's clocks show."""
    return datetime.fromtimestamp(moment / 1000, ZoneInfo(zone)).isoformat()


Open = Callable[..., Ledger]


@pytest.fixture(params=["memory", "sqlite", *servers.KINDS])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens one and the same store, as often as it is called; a memory ledger is the same object each time."""
    kind = request.param
    if kind == "memory":
        only: list[MemoryLedger] = []

        def opened(clock: Callable[[], int]) -> Ledger:
            if not only:
                only.append(MemoryLedger(clock=clock))
            only[0]._clock = clock
            return only[0]

        return opened
    if kind == "sqlite":
        return lambda clock: SqliteLedger(tmp_path / "l.db", clock=clock)
    request.getfixturevalue(f"{kind}_process")
    return partial(_connected, servers.shared(kind))


def _connected(url: str, clock: Callable[[], int]) -> Ledger:
    return connect(url, clock=clock)


class Clock:
    """A clock that a test sets."""

    def __init__(self, text: str) -> None:
        self.now = at(text)

    def __call__(self) -> int:
        return self.now

    def set(self, text: str) -> None:
        self.now = at(text)


def spend(ledger: Ledger, units: int, path: str = "org") -> None:
    ledger.settle(ledger.reserve(path, {"all": units}).id)


# when windows begin


@pytest.mark.parametrize(
    ("window", "moment", "begins", "ends"),
    [
        ("day@Europe/Berlin", "2026-03-29T12:00Z", "2026-03-28T23:00Z", "2026-03-29T22:00Z"),  # 23 hours
        ("day@Europe/Berlin", "2026-10-25T12:00Z", "2026-10-24T22:00Z", "2026-10-25T23:00Z"),  # 25 hours
        ("day@America/New_York", "2026-03-08T12:00Z", "2026-03-08T05:00Z", "2026-03-09T04:00Z"),
        ("day@Asia/Kolkata", "2026-01-01T18:29:59Z", "2025-12-31T18:30Z", "2026-01-01T18:30Z"),
        ("day@Pacific/Kiritimati", "2026-01-01T09:59Z", "2025-12-31T10:00Z", "2026-01-01T10:00Z"),
        ("month@Europe/Berlin", "2026-03-31T21:59:59Z", "2026-02-28T23:00Z", "2026-03-31T22:00Z"),
        ("month@America/New_York", "2024-03-01T04:59Z", "2024-02-01T05:00Z", "2024-03-01T05:00Z"),
        ("hour@Asia/Kathmandu", "2026-01-01T00:14Z", "2025-12-31T23:15Z", "2026-01-01T00:15Z"),
        ("hour@Europe/Berlin", "2026-03-29T01:00Z", "2026-03-29T01:00Z", "2026-03-29T02:00Z"),  # no 02:00
        ("hour@Europe/Berlin", "2026-10-25T01:30Z", "2026-10-25T00:00Z", "2026-10-25T02:00Z"),  # 02:30 again
        ("hour@Australia/Lord_Howe", "2026-04-04T15:00Z", "2026-04-04T14:00Z", "2026-04-04T15:30Z"),  # 01:30 again
        ("day@America/Sao_Paulo", "2018-11-04T12:00Z", "2018-11-04T03:00Z", "2018-11-05T02:00Z"),  # begins at 01:00
        ("day@Asia/Beirut", "2026-10-24T20:59Z", "2026-10-23T21:00Z", "2026-10-24T22:00Z"),  # 23:59 twice
        ("day@Pacific/Apia", "2011-12-30T10:00Z", "2011-12-30T10:00Z", "2011-12-31T10:00Z"),  # after the 29th
        # at 00:01 clocks were put forward to 01:01: the hour from 01:00 began then
        ("hour@America/St_Johns", "2010-03-14T03:31Z", "2010-03-14T03:31Z", "2010-03-14T04:30Z"),
        ("hour@America/St_Johns", "2010-03-14T03:30:59Z", "2010-03-14T03:30Z", "2010-03-14T03:31Z"),
        # at 00:01 clocks were set back to 23:01 of the day before: Sunday has begun, and goes on
        ("day@America/St_Johns", "2010-11-07T02:45Z", "2010-11-07T02:30Z", "2010-11-08T03:30Z"),
        ("day@America/St_Johns", "2010-11-07T03:00Z", "2010-11-07T02:30Z", "2010-11-08T03:30Z"),
    ],
)  # fmt: skip
def test_windows_begin_and_end_by_the_clocks_of_their_zone(window: str, moment: str, begins: str, ends: str) -> None:
    index, first, after = windows.zoned(window, at(moment))
    assert (first, after) == (at(begins), at(ends))
    assert windows.bucket(window, first) == windows.bucket(window, after - 1) == index < windows.bucket(window, after)
    assert windows.start(window, index) == first


def test_a_day_that_clocks_skip_has_no_time() -> None:
    index = windows.bucket("day@Pacific/Apia", at("2011-12-30T09:59Z"))
    assert windows.bucket("day@Pacific/Apia", at("2011-12-30T10:00Z")) == index + 2
    assert windows.start("day@Pacific/Apia", index + 1) == windows.start("day@Pacific/Apia", index + 2)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/St_Johns", "Etc/GMT+12"])
def test_windows_are_those_of_utc_shifted_where_clocks_never_change_and_at_the_end_of_time(
    unit: str, zone: str
) -> None:
    for moment in (limit.LAST, limit.LAST - 40 * 86_400_000):
        offset = {"Pacific/Kiritimati": 14, "Etc/GMT+12": -12}.get(zone, -3.5) * HOUR
        index, begins, ends = windows.zoned(f"{unit}@{zone}", moment)
        assert begins <= moment < ends
        assert index == windows.bucket(unit, moment + int(offset))


# what is counted, against a count by local dates

ZONES = [
    "Europe/Berlin", "America/New_York", "America/Los_Angeles", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe",
    "Pacific/Chatham", "Pacific/Kiritimati", "America/St_Johns", "Europe/Dublin", "Africa/Casablanca", "Asia/Beirut",
    "Asia/Tokyo", "America/Santiago",
]  # fmt: skip
NEAR = [
    "2026-03-29T01:00Z", "2026-10-25T01:00Z",  # Europe
    "2026-03-08T07:00Z", "2026-11-01T06:00Z",  # America
    "2026-04-04T15:00Z", "2026-10-03T15:30Z",  # Lord Howe, and Chatham within a day
    "2026-04-05T03:00Z", "2026-09-06T04:00Z",  # Santiago, where midnight is skipped
    "2026-03-28T22:00Z", "2026-10-24T21:00Z",  # Beirut
    "2026-02-15T02:00Z", "2026-03-22T02:00Z",  # Casablanca, about Ramadan
    "2026-01-01T00:00Z", "2024-02-29T23:59Z", "2026-12-31T12:00Z",
]  # fmt: skip
"""Moments at which clocks change, and ends of months."""
STEPS = st.lists(
    st.tuples(
        st.sampled_from([1, 60_000, 900_000, 1_800_000, HOUR, 2 * HOUR, 23 * HOUR, 24 * HOUR, 25 * HOUR, 700 * HOUR]),
        st.integers(0, 40),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=150)
@given(
    unit=st.sampled_from([*UNITS]), zone=st.sampled_from(ZONES), near=st.sampled_from(NEAR),
    before=st.integers(-30 * HOUR, 30 * HOUR), steps=STEPS,
)  # fmt: skip
@example("day", "Europe/Berlin", "2026-10-25T01:00Z", 3 * HOUR, [(24 * HOUR, 40), (HOUR, 40), (HOUR, 1)])
def test_what_a_window_counts_is_what_was_spent_on_its_local_date(
    unit: str, zone: str, near: str, before: int, steps: list[tuple[int, int]]
) -> None:
    clock = Clock(near)
    clock.now -= before
    ledger = MemoryLedger(clock=clock)
    ledger.open("org", [Limit("all", 100, f"{unit}@{zone}")])
    spent: list[tuple[str, int]] = []
    for passed, units in steps:
        clock.now += passed
        here = shown(clock.now, zone)[: UNITS[unit]]
        used = sum(of for label, of in spent if label == here)
        assert ledger.remaining("org") == {"all": 100 - used}
        if used + units <= 100:
            spend(ledger, units)
            spent.append((here, units))
            continue
        with pytest.raises(BudgetExceeded) as refused:
            spend(ledger, units)
        resets = refused.value.resets_at
        assert resets is not None
        assert resets > clock.now
        assert shown(resets, zone)[: UNITS[unit]] != here == shown(resets - 1, zone)[: UNITS[unit]]
    ledger.verify()


# limits that change


def test_another_zone_keeps_what_was_used(store: Open) -> None:
    clock = Clock("2026-06-10T20:00Z")
    with store(clock) as ledger:
        ledger.open("org", [Limit.parse("100/day"), Limit.parse("500/month"), Limit.parse("80/60s")])
        spend(ledger, 70)
        ledger.open("org", [Limit.parse("100/day@Europe/Berlin"), Limit.parse("500/month"), Limit.parse("80/60s")])
        assert _left(ledger, clock) == {"day@Europe/Berlin": 30, "month": 430, "60 s": 10}
        clock.set("2026-06-10T21:59Z")
        assert _left(ledger, clock)["day@Europe/Berlin"] == 30
        spend(ledger, 20)
        ledger.open("org", [Limit.parse("100/day@America/New_York"), Limit.parse("500/month@America/New_York")])
        assert _left(ledger, clock) == {"day@America/New_York": 10, "month@America/New_York": 410}
        clock.set("2026-06-10T22:00Z")  # midnight in Berlin, and nothing of New York's day is over
        assert _left(ledger, clock)["day@America/New_York"] == 10
        spend(ledger, 5)
        ledger.open("org", [Limit.parse("100/day@Europe/Berlin"), Limit.parse("100/day")])
        assert _left(ledger, clock) == {"day": 5, "day@Europe/Berlin": 5}, "a zone that was there before gains nothing"
        clock.set("2026-06-11T00:00Z")
        assert _left(ledger, clock) == {"day": 100, "day@Europe/Berlin": 5}
        ledger.verify()


def test_a_limit_that_stays_is_not_charged_for_another_zone(store: Open) -> None:
    clock = Clock("2026-06-10T20:00Z")
    with store(clock) as ledger:
        ledger.open("org", [Limit.parse("100/day"), Limit.parse("100/day@Europe/Berlin")])
        spend(ledger, 60)
        clock.set("2026-06-10T23:00Z")
        ledger.open("org", [Limit.parse("100/day"), Limit.parse("90/day@Europe/Berlin"), Limit.parse("100/hour")])
        assert _left(ledger, clock) == {"day": 40, "day@Europe/Berlin": 90, "hour": 100}
        ledger.open("org", [Limit.parse("90/day@Europe/Berlin"), Limit.parse("100/day@Asia/Tokyo")])
        assert _left(ledger, clock) == {"day@Asia/Tokyo": 40, "day@Europe/Berlin": 90}, (
            "the most of a window of its unit"
        )
        ledger.verify()


def _left(ledger: Ledger, clock: Clock) -> dict[str, int]:
    _, state = ledger.snapshot()
    return {row["window"]: row["left"] for row in report.balances(state, "org", clock.now) if row["window"]}


# stores


def test_a_restart_across_midnight(store: Open) -> None:
    clock = Clock("2026-03-29T21:59Z")  # 23:59 in Berlin, on a day of 23 hours
    with store(clock) as ledger:
        ledger.open("org", [Limit.parse("100/day@Europe/Berlin")])
        spend(ledger, 90)
        ledger.reserve("org", {"all": 5}, id="abandoned", ttl=60)
    with store(clock) as ledger:
        assert ledger.remaining("org") == {"all": 5}
        with pytest.raises(BudgetExceeded, match=r"again at 2026-03-30 00:00:00 Europe/Berlin") as refused:
            ledger.reserve("org", {"all": 6})
        assert refused.value.resets_at == at("2026-03-29T22:00Z")
        assert refused.value.window == "day@Europe/Berlin"
    clock.set("2026-03-29T22:00Z")
    with store(clock) as ledger:
        assert ledger.remaining("org") == {"all": 95}, "what is abandoned after midnight is charged to the new day"
        spend(ledger, 95)
        with pytest.raises(BudgetExceeded) as refused:
            ledger.reserve("org", {"all": 1})
        assert refused.value.resets_at == at("2026-03-30T22:00Z")
        ledger.verify()


def test_replicas_whose_clocks_differ_near_midnight(store: Open) -> None:
    """What is booked decides which day it is: the slower clock's replica gets nothing of the day that is over."""
    slow, fast = Clock("2026-10-25T22:59:30Z"), Clock("2026-10-25T23:00:30Z")  # Berlin's day of 25 hours ends at 23:00
    if isinstance(first := store(slow), MemoryLedger):
        pytest.skip("a memory ledger is of one process")
    with first, store(fast) as second:
        first.open("org", [Limit.parse("100/day@Europe/Berlin"), Limit.parse("150/hour@Asia/Kolkata")])
        spend(first, 60)
        assert second.remaining("org") == {"all": 90}, "a new day, in an hour of Kolkata that goes on"
        spend(second, 80)
        for ledger in (first, second):
            assert ledger.remaining("org") == {"all": 10}
            with pytest.raises(BudgetExceeded):
                ledger.reserve("org", {"all": 11})
        slow.set("2026-10-25T23:00:00Z")
        fast.set("2026-10-25T23:30:00Z")
        assert first.remaining("org") == {"all": 10}
        assert second.remaining("org") == {"all": 20}
        spend(second, 20)
        assert first.remaining("org") == {"all": 0}
        first.verify()


def test_replicas_whose_time_zone_databases_differ_spend_no_day_twice(
    store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one believes that Berlin is an hour further ahead of UTC."""
    clock, real = Clock("2026-01-10T22:30Z"), windows.zoned
    if isinstance(first := store(clock), MemoryLedger):
        pytest.skip("a memory ledger is of one process")

    def ahead(window: str, now: int) -> tuple[int, int, int]:
        index, begins, ends = real(window, now + HOUR)
        return index, begins - HOUR, ends - HOUR

    def believe(zoned: Callable[[str, int], tuple[int, int, int]]) -> None:
        windows._current.clear()
        monkeypatch.setattr(windows, "zoned", zoned)
        monkeypatch.setattr("budgeteer.ledger.redis.zoned", zoned)

    with first, store(clock) as second:
        first.open("org", [Limit.parse("100/day@Europe/Berlin")])
        spend(first, 100)
        believe(ahead)
        spend(second, 0)
        believe(real)
        assert first.remaining("org") == {"all": 0}
        believe(ahead)
        spend(second, 1)
        believe(real)
        assert first.remaining("org") == {"all": 99}, "what it spends from now on is of the day that has begun there"
        believe(ahead)
        spend(second, 30)
        spend(second, 0)
        for _ in range(3):
            believe(real)
            while (left := first.remaining("org")["all"] or 0) > 0:
                spend(first, min(20, left))
            spend(first, 0)
            believe(ahead)
            assert second.remaining("org") == {"all": 0}, "what was spent there counts in the day that has begun here"
            spend(second, 0)
        believe(real)
        clock.set("2026-01-10T23:00Z")
        assert first.remaining("org") == {"all": 0}
        clock.set("2026-01-11T23:00Z")
        assert first.remaining("org") == {"all": 100}


def test_a_clock_that_goes_back_over_midnight_gives_no_day_again(store: Open) -> None:
    clock = Clock("2026-06-10T21:00Z")
    with store(clock) as ledger:
        ledger.open("org", [Limit.parse("100/day@Europe/Berlin")])
        spend(ledger, 100)
        clock.set("2026-06-10T22:00Z")
        spend(ledger, 70)
        clock.set("2026-06-10T21:00Z")
        assert ledger.remaining("org") == {"all": 30}
        spend(ledger, 30)
        with pytest.raises(BudgetExceeded) as refused:
            ledger.reserve("org", {"all": 1})
        assert refused.value.resets_at == at("2026-06-11T22:00Z")
        ledger.reset("org")
        assert ledger.remaining("org") == {"all": 100}
        spend(ledger, 10)
        clock.set("2026-06-10T22:00Z")
        assert ledger.remaining("org") == {"all": 100}
        ledger.verify()


def _redis(clock: Callable[[], int] | None) -> RedisLedger:
    return RedisLedger(servers.shared("redis"), clock=clock)


def _dump(ledger: RedisLedger) -> dict[str, Any]:
    assert ledger._client is not None
    return {key: ledger._client.dump(key) for key in sorted(ledger._client.keys())}


@pytest.mark.usefixtures("redis_process")
@pytest.mark.parametrize("told", [{}, {"day@Europe/Berlin": (1, 0, 10)}])
def test_redis_writes_nothing_before_it_was_told_the_windows(told: dict[str, tuple[int, int, int]]) -> None:
    """Not even what expires in the same call, which counts in a window as well."""
    clock = Clock("2026-06-10T20:00Z")
    with _redis(clock) as ledger:
        ledger.open("org", [Limit.parse("100/day@Europe/Berlin")])
        ledger.open("other", [Limit.parse("100/hour")])
        ledger.reserve("org", {"all": 30}, id="abandoned", ttl=1)
        ledger.reserve("other", {"all": 30}, id="released", ttl=1, on_abandon="release")
        clock.set("2026-06-11T20:00Z")
        ledger._zones, before = dict(told), _dump(ledger)
        command = ("reserve", "new", "other", (("all", 40),), 600_000, "")
        again = ledger._send([command])
        assert _dump(ledger) == before
        assert ledger._zones["day@Europe/Berlin"] == windows.zoned("day@Europe/Berlin", clock.now)
        (done,) = ledger._send([command])
        assert again != [done]
        assert core.Reservation(*done).status == "open"
        assert {**ledger.remaining("org"), "other": ledger.remaining("other")["all"]} == {"all": 70, "other": 60}
        ledger.verify()


@pytest.mark.usefixtures("redis_process")
def test_redis_asks_for_windows_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    send = RedisLedger._send
    monkeypatch.setattr(RedisLedger, "_send", lambda self, commands: sent.append(len(commands)) or send(self, commands))
    clock = Clock("2026-06-10T21:59Z")
    with _redis(clock) as ledger:
        ledger.open("org", [Limit.parse("100/day@Europe/Berlin"), Limit.parse("100/hour@Europe/Berlin")])
        ledger.open("plain", [Limit.parse("100/day")])
        spend(ledger, 50)
        sent.clear()
        spend(ledger, 50)
        spend(ledger, 50, "plain")
        assert sent == [1, 1, 1, 1]
        clock.set("2026-06-10T22:00Z")
        both = ledger.run_batch([("remaining", "org"), ("remaining", "plain")])
        assert both == [{"all": 100}, {"all": 50}]
        assert sent[4:] == [2, 1], "only what needs the windows is sent again"
        assert ledger.remaining("org") == {"all": 100}
        assert sent[6:] == [1]


@pytest.mark.usefixtures("redis_process")
def test_redis_with_the_servers_clock_counts_in_the_present_window() -> None:
    zone = "Pacific/Kiritimati"
    with _redis(None) as ledger:
        ledger.open("org", [Limit.parse(f"100/month@{zone}")])
        before = shown(wall_clock(), zone)[:7]
        spend(ledger, 40)
        _, state = ledger.snapshot()
        (window,) = state.accounts["org"].books["all"].windows
        ((index, units),) = window.buckets.items()
        first = shown(windows.start(window.name, index), zone)
        assert (units, first[8:19]) == (40, "01T00:00:00")
        assert before <= first[:7] <= shown(wall_clock(), zone)[:7]


@pytest.mark.usefixtures("redis_process")
def test_redis_whose_windows_are_never_those_of_its_time_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock("2026-06-10T21:59Z")
    with _redis(clock) as ledger:
        ledger.open("org", [Limit.parse("100/day@Europe/Berlin")])
        clock.set("2026-06-11T21:59Z")
        monkeypatch.setattr("budgeteer.ledger.redis.zoned", lambda window, now: (1, 0, 1))
        with pytest.raises(LedgerUnavailable, match="its clock had come to other windows; do not spend"):
            ledger.reserve("org", {"all": 1}, id="x")
        monkeypatch.undo()
        assert ledger.remaining("org") == {"all": 100}


# what was there before

HEADS = {
    "sha256": "838c49ca5f791e5a1873465558e101994ccd58f15090be8bead703ed461973ab",
    "sha1": "e84e753ad0c56d8b2d7bbc755055441a73e09a8f",
}
"""Of the journal of :func:`history`, as written before there were time zones."""


def history(ledger: Ledger, clock: Clock) -> str:
    ledger.open("org", [Limit.parse("$5/day"), Limit.parse("all:1k/month"), Limit.parse("all:500/90s")])
    ledger.open("org/a", [Limit.parse("all:300/hour"), Limit.parse("learnt $5/day")])
    for n in range(6):
        clock.now += 1_700_000
        kinds = {"all": 40 + n, "money": 10**11 + n, "learnt.money": 10**10}
        ledger.reserve("org/a", kinds, id=f"c{n}", ttl=30 if n == 3 else None)
        if n != 3:
            ledger.settle(f"c{n}", {**kinds, "all": 30}, tags={"stage": "s"})
        if n == 4:
            ledger.open("org/a", [Limit.parse("all:300/day"), Limit.parse("learnt $5/month")])
    ledger.open("org/a", [Limit.parse("all:300/hour"), Limit.parse("learnt $5/day")])
    clock.now -= 10_000_000
    ledger.reset("org/a")
    return ledger.verify().head


def test_without_time_zones_journals_are_what_they_were(store: Open) -> None:
    clock = Clock("2025-06-15T15:06:40.123Z")
    with store(clock) as ledger:
        assert history(ledger, clock) == HEADS[ledger.algorithm]
        _, state = ledger.snapshot()
        windows_of = {
            f"{path} {kind} {window.name}": window.buckets
            for path, account in state.accounts.items()
            for kind, book in account.books.items()
            for window in book.counted
        }
        assert windows_of == {
            "org money day": {20254: 600000000015}, "org all 90": {1166673466: 30}, "org all month": {665: 193},
            "org/a all hour": {}, "org/a all day": {}, "org/a learnt.money day": {}, "org/a learnt.money month": {},
        }  # fmt: skip


# zones that are not known


@pytest.fixture
def without_zones(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Makes this process forget a zone, or, given "", have no time zone database."""

    def forget() -> None:
        for cached in (zones.zone_named, limit.decode_limits, windows._zone):
            cached.cache_clear()
        windows._current.clear()

    def without(zone: str) -> None:
        known = {key: name for key, name in zones._names().items() if zone and name != zone}
        monkeypatch.setattr(zones, "_names", lambda: known)
        forget()

    yield without
    monkeypatch.undo()
    forget()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("$5/day@Europe/Berln", r"no time zone 'Europe/Berln' in this machine's database; did you mean Europe/Berlin"),
        ("$5/day@Q", "write one such as Europe/Berlin"),
        ("$5/day@localtime", "no time zone 'localtime'"),
        ("$5/day@../../etc/passwd", "no time zone"),
        ("$5/day@", "lacks its time zone; write /day@Europe/Berlin"),
        ("$5/90s@Europe/Berlin", "a rolling window has no time zone; leave @Europe/Berlin out"),
        ("$5@Europe/Berlin", r"not in the notation; write 500k, output:1m, \$5, 50%, \$5/day or \$5/day@Europe/Berlin"),
        ("$5/week@Europe/Berlin", "not in the notation; write /hour, /day, /month, /day@Europe/Berlin"),
    ],
)
def test_a_zone_that_makes_no_sense_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        Limit.parse(text)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("$5/day@Europe/Berlin", "$5/day@Europe/Berlin"),
        ("$5/DAY@europe/berlin", "$5/day@Europe/Berlin"),
        ("learnt output:1m/month@America/Indiana/Knox", "learnt output:1m/month@America/Indiana/Knox"),
        ("requests:60/hour@Etc/GMT+5", "requests:60/hour@Etc/GMT+5"),
        ("$5/day@UTC", "$5/day"),
    ],
)  # fmt: skip
def test_limits_in_zones_are_printed_as_they_are_read(text: str, printed: str) -> None:
    found = Limit.parse(text)
    assert str(found) == printed
    assert Limit.parse(printed) == found
    assert limit.decode_limits(limit.encode_limits((found,))) == (found,)
    assert Limit(found.kind, found.amount, str(found.window).casefold()) == found


def test_without_a_database_the_package_is_named(without_zones: Callable[[str], None]) -> None:
    without_zones("")
    with pytest.raises(UnknownZone, match="this machine has no time zone database; pip install tzdata"):
        Limit.parse("$5/day@Europe/Berlin")
    assert str(Limit.parse("$5/day")) == "$5/day"


def test_a_machine_that_lacks_the_zone_of_a_limit_does_not_spend(
    store: Open, without_zones: Callable[[str], None]
) -> None:
    clock = Clock("2026-06-10T20:00Z")
    if isinstance(ledger := store(clock), MemoryLedger):
        pytest.skip("a memory ledger is of one process")
    with ledger:
        ledger.open("org", [Limit.parse("100/day@Europe/Berlin")])
        ledger.open("plain", [Limit.parse("100/day")])
        spend(ledger, 10)
    without_zones("Europe/Berlin")
    said = "cannot be used from this machine, so do not spend: .* there is no time zone 'Europe/Berlin'"
    with store(clock) as ledger:
        for broken in (lambda: ledger.reserve("org", {"all": 1}), ledger.snapshot, lambda: ledger.accounts(["org"])):
            with pytest.raises(LedgerUnavailable, match=said):
                broken()
        spend(ledger, 10, "plain")
        with pytest.raises((UnknownZone, LedgerUnavailable), match="no time zone 'Europe/Berlin'"):
            ledger.verify()


def test_a_verification_with_another_database_says_so() -> None:
    clock = Clock("2026-06-10T20:00Z")
    ledger = MemoryLedger(clock=clock)
    ledger.open("org", [Limit.parse("100/day@Europe/Berlin")])
    spend(ledger, 10)
    _, state = ledger.snapshot()
    (window,) = state.accounts["org"].books["all"].windows
    window.buckets = {index + 1: units for index, units in window.buckets.items()}
    _, rebuilt = journal.replay(ledger.lines(), ledger.algorithm)
    with pytest.raises(JournalBroken, match="or it was booked with another time zone database"):
        journal.compare(rebuilt, state)
