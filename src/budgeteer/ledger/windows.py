"""Windows of limits: the bucket of time that a moment falls into, when that begins, and what was settled in a window.

A calendar window without a time zone is an hour, a day or a month of UTC. In a time zone, it is one of that zone's
clocks: a day may have 23 or 25 hours, and hours begin where the minute there is 0. Where clocks are set back, a bucket
that has begun goes on: nobody gets a second budget for an hour, or a day, that clocks show twice.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from budgeteer.core.errors import LedgerUnavailable, UnknownZone
from budgeteer.ledger.limit import LAST

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

SLICES = 60
"""A rolling window is counted in this many slices, so units come back at most 1/60 of the window late, never early."""
_LENGTH: dict[str | int, int] = {"hour": 3_600_000, "day": 86_400_000}
"""Milliseconds of the units that all have the same length, on a clock that is never put forward or back."""
_EPOCH = datetime(1970, 1, 1)
_LATEST = LAST - 2 * 86_400_000
"""A zone's clocks keep the offset from UTC that they have at this time, since no date is later than the year 9999."""
_current: dict[str, tuple[int, int, int]] = {}
"""The latest bucket that was asked for, by window in a time zone: what :func:`zoned` returns."""


class Window:
    """What was settled in a window, by bucket of time."""

    __slots__ = ("buckets", "limit", "name", "span", "zoned")

    def __init__(self, limit: int, name: str | int) -> None:
        self.limit, self.name, self.span = limit, name, span(name)
        self.zoned = isinstance(name, str) and "@" in name
        self.buckets: dict[int, int] = {}

    def used(self, now: int) -> int:
        """Units settled in the window that ends now."""
        oldest = bucket(self.name, now) - self.span
        return sum(units for index, units in self.buckets.items() if index > oldest)

    def add(self, now: int, units: int) -> None:
        """Book units, and drop the buckets that no longer count.

        Processes may have different time zone databases. So in a time zone, units go into the next bucket if another
        process has begun it, and no units begin none: else what counts there and here would be dropped in turn.
        """
        index = bucket(self.name, now)
        if self.zoned:
            if not units:
                return
            index += index + 1 in self.buckets
        for expired in [earlier for earlier in self.buckets if earlier <= index - self.span]:
            del self.buckets[expired]
        if units:
            self.buckets[index] = self.buckets.get(index, 0) + units

    def copy(self) -> Window:
        """An independent copy."""
        copied = Window(self.limit, self.name)
        copied.buckets = dict(self.buckets)
        return copied

    def resets_at(self, now: int, needed: int) -> int | None:
        """When ``needed`` units will have left the window; None if the window holds fewer."""
        oldest = bucket(self.name, now) - self.span
        for index in sorted(index for index in self.buckets if index > oldest):
            needed -= self.buckets[index]
            if needed <= 0:
                return start(self.name, index + self.span)
        return None


def unit_of(window: str | int | None) -> str | None:
    """The unit of a calendar window, in whatever time zone; None for other windows.

    >>> unit_of("day"), unit_of("day@Europe/Berlin"), unit_of(90)
    ('day', 'day', None)
    """
    return window.partition("@")[0] if isinstance(window, str) else None


def bucket(window: str | int, now: int) -> int:
    """Number of the bucket that ``now`` (milliseconds since 1970) falls into.

    A bucket of a calendar window is one hour, day or month; a bucket of a rolling window is 1/60 of it.

    >>> bucket("day", 86_400_000), bucket("month", 86_400_000 * 31), bucket(60, 59_999)
    (1, 1, 59)
    >>> bucket("day@Asia/Tokyo", 54_000_000 - 1), bucket("day@Asia/Tokyo", 54_000_000)
    (0, 1)
    """
    length = _LENGTH.get(window)
    if length:  # the most frequent, and timed
        return now // length
    if isinstance(window, int):
        return now // _width(window)
    return zoned(window, now)[0] if "@" in window else _index(window, now)


def span(window: str | int) -> int:
    """Number of buckets that count in a window, the current one included."""
    # One more than fit, because the oldest is only partly outside: units must never come back early.
    return -(-window * 1000 // _width(window)) + 1 if isinstance(window, int) else 1


def start(window: str | int, index: int) -> int:
    """First millisecond (since 1970, UTC) of bucket ``index``.

    >>> all(bucket("month", start("month", m)) == m > bucket("month", start("month", m) - 1) for m in range(3000))
    True
    """
    if isinstance(window, int):
        return index * _width(window)
    unit, at, zone = window.partition("@")
    return _first(_zone(zone), _begin(unit, index)) if at else _begin(unit, index)


def zoned(window: str, now: int) -> tuple[int, int, int]:
    """The bucket of a calendar window in a time zone that ``now`` falls into.

    Args:
        window: such as "day@Europe/Berlin".
        now: milliseconds since 1970 (UTC).

    Returns:
        Its number; its first millisecond; the first one after it (UTC). The number is how many hours, days or months
        the zone's clocks are after 1 January 1970, as they show it: a day that they skip is a number without time.

    Raises:
        UnknownZone: this machine's database does not have the time zone.
    """
    known = _current.get(window)
    if known is None or not known[1] <= now < known[2]:
        unit, _, name = window.partition("@")
        zone = _zone(name)
        index = _index(unit, now + _offset(zone, now))
        ends = _first(zone, _begin(unit, index + 1))
        while ends <= now:  # clocks have been set back over the beginning of a bucket: it has begun all the same
            index += 1
            ends = _first(zone, _begin(unit, index + 1))
        known = _current[window] = (index, _first(zone, _begin(unit, index)), ends)
    return known


def moment(at: int, window: str | int | None, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """A time (milliseconds since 1970) in the time zone of a window, for people.

    >>> moment(0, "day@Asia/Tokyo"), moment(0, 90, "%H:%M")
    ('1970-01-01 09:00:00 Asia/Tokyo', '00:00 UTC')
    """
    name = window.partition("@")[2] if isinstance(window, str) else ""
    return f"{datetime.fromtimestamp(at / 1000, _zone(name) if name else UTC):{form}} {name or 'UTC'}"


def no_zone(place: str, error: UnknownZone) -> LedgerUnavailable:
    """The error of a ledger with limits in a time zone that this machine does not know.

    Args:
        place: such as ``the ledger 'l.db'``.
        error: which zone that is.
    """
    return LedgerUnavailable(
        f"{place} cannot be used from this machine, so do not spend: it has limits in a time zone, and there is {error}"
    )


@lru_cache(1024)
def _zone(name: str) -> ZoneInfo:
    from zoneinfo import ZoneInfo

    from budgeteer.core.zones import zone_named

    return ZoneInfo(zone_named(name))


def _first(zone: ZoneInfo, wall: int) -> int:
    """First millisecond (UTC) at which the zone's clocks show ``wall`` (as milliseconds since 1970 there) or later."""
    at = _EPOCH + timedelta(milliseconds=min(wall, _LATEST))
    offsets = [_milliseconds(zone.utcoffset(at.replace(fold=fold))) for fold in (0, 1)]
    first, second = wall - offsets[0], wall - offsets[1]
    if first <= second:  # the clocks show it once, or twice, and then this is the first time
        return first
    earlier, later = second, first  # they skip it: find when
    while later - earlier > 1:
        middle = (earlier + later) // 2
        if middle + _offset(zone, middle) >= wall:
            later = middle
        else:
            earlier = middle
    return later


def _offset(zone: ZoneInfo, at: int) -> int:
    """By how much the zone's clocks are ahead of UTC at a time; both in milliseconds."""
    moment = _EPOCH.replace(tzinfo=UTC) + timedelta(milliseconds=min(at, _LATEST))
    return _milliseconds(moment.astimezone(zone).utcoffset())


def _milliseconds(offset: timedelta | None) -> int:
    return (offset or timedelta()) // timedelta(milliseconds=1)


def _index(unit: str, wall: int) -> int:
    """Hours, days or months from 1 January 1970 to a time of the same clock, in milliseconds."""
    length = _LENGTH.get(unit)
    return wall // length if length else _month(wall // 86_400_000)


def _begin(unit: str, index: int) -> int:
    """The inverse: when an hour, day or month begins."""
    length = _LENGTH.get(unit)
    return index * length if length else _first_day(index) * 86_400_000


def _width(seconds: int) -> int:
    return -(-seconds * 1000 // SLICES)


def _month(day: int) -> int:
    """Months from January 1970 to the day (days since 1 January 1970), Gregorian.

    The years are counted from 1 March 0000, so that the leap day is the last of its year.
    """
    era, of_era = divmod(day + 719_468, 146_097)
    year = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    return (era * 400 + year - 1970) * 12 + (5 * of_year + 2) // 153 + 2


def _first_day(month: int) -> int:
    year, since_march = divmod(month + 1970 * 12 - 2, 12)
    era, of_era = divmod(year, 400)
    return era * 146_097 + 365 * of_era + of_era // 4 - of_era // 100 + (153 * since_march + 2) // 5 - 719_468
