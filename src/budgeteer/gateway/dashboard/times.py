"""Times in the reader's own time zone, and the span of time that a page shows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from budgeteer.core.errors import InvalidInput
from budgeteer.gateway.dashboard.html import Html, options, page

COOKIE = "budgeteer-zone"
"""The cookie in which the script tells the browser's time zone."""
ZONE: ContextVar[tzinfo] = ContextVar("zone", default=UTC)
"""The time zone of the page that is made."""
RANGES = {
    "15m": ("15 minutes", 900),
    "1h": ("hour", 3600),
    "24h": ("24 hours", 86_400),
    "7d": ("7 days", 604_800),
    "30d": ("30 days", 2_592_000),
}
"""Name in addresses -> (label, its length in seconds)."""
_STEPS = (15, 60, 300, 900, 1800, 3600, 10_800, 21_600, 43_200, 86_400, 604_800)
_BARS = 60
"""The most bars of a chart."""
_ZONE = re.compile(r"[A-Za-z0-9_+-]{1,40}(/[A-Za-z0-9_+-]{1,40}){0,2}")
_LONGEST = 3660 * 86_400_000


def zone_of(cookies: Mapping[str, str]) -> tzinfo:
    """The time zone that a browser's cookie names; UTC if it names none that is known here."""
    name = cookies.get(COOKIE, "").replace("%2F", "/")
    if not _ZONE.fullmatch(name):
        return UTC
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # KeyError: ZoneInfoNotFoundError
        return UTC


def zone_name() -> str:
    """The name of the page's time zone."""
    zone = ZONE.get()
    return zone.key if isinstance(zone, ZoneInfo) else "UTC"


def local(at: float) -> datetime:
    """A time (milliseconds since 1970) in the page's time zone."""
    return datetime.fromtimestamp(at / 1000, ZONE.get())


def when(at: int) -> str:
    """A time (milliseconds since 1970) as YYYY-MM-DD HH:MM:SS in the page's time zone."""
    return f"{local(at):%Y-%m-%d %H:%M:%S}"


def moment(text: str) -> int:
    """A date, or a date and time, in the page's time zone; as milliseconds since 1970.

    Raises:
        InvalidInput: it is neither.
    """
    try:
        at = datetime.fromisoformat(text.strip())
        return int((at if at.tzinfo else at.replace(tzinfo=ZONE.get())).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise InvalidInput(f"{text!r} is not a date; write 2027-01-31, or 2027-01-31T12:00") from None


def field(at: int | None) -> str:
    """A time for a field of a form; "" for None."""
    return "" if at is None else f"{local(at):%Y-%m-%dT%H:%M}"


def ends(since: str, until: str) -> Html:
    """The part of a form that has the two ends of a span of time, in the page's time zone."""
    return page("ends", zone=zone_name(), **{"from": since, "to": until})


@dataclass(frozen=True, slots=True)
class Span:
    """The time that a page shows.

    Attributes:
        since, until: milliseconds since 1970; until is None where it is now.
        step: seconds of a bar of its chart.
        offset: of the time zone from UTC at its end, in milliseconds, so that days begin at midnight there.
        said: it in words.
        range: the name of the preset in the address; "" for a free range.
    """

    since: int
    until: int | None
    step: int
    offset: int
    said: str
    range: str

    @property
    def filters(self) -> dict[str, str]:
        """The filters of the gateway's queries."""
        until = {} if self.until is None else {"until": str(self.until)}
        return {"since": str(self.since), **until}

    def times(self, now: int) -> list[int]:
        """Where the bars begin, in milliseconds since 1970."""
        wide, end = self.step * 1000, now if self.until is None else self.until - 1
        first, last = ((at + self.offset) // wide * wide - self.offset for at in (self.since, end))
        return list(range(first, last + 1, wide))

    def fields(self) -> dict[str, Html]:
        """The values of a form that chooses the span: the presets, and the two ends of a free range."""
        presets = [("", "free"), *((name, f"last {said}") for name, (said, _) in RANGES.items())]
        free = not self.range
        return {
            "ranges": options(presets, self.range),
            "ends": ends(field(self.since) if free else "", field(self.until) if free else ""),
        }

    @property
    def address(self) -> dict[str, str]:
        """It in the query of an address."""
        if self.range:
            return {"range": self.range}
        return {"from": field(self.since), "to": field(self.until)}


def span_of(query: Mapping[str, str], now: int, default: str) -> Span:
    """The span of time that an address chooses: ``from`` and ``to`` in the page's time zone, else ``range``.

    Args:
        query: of the address.
        now: milliseconds since 1970.
        default: the preset if the address chooses none.

    Raises:
        InvalidInput: there is no such preset, a time cannot be read, or the range is empty or too long.
    """
    begins, ends = query.get("from", ""), query.get("to", "")
    if begins or ends:
        until = moment(ends) if ends else None
        since = moment(begins) if begins else (until or now) - 86_400_000
        end = now if until is None else until
        if not 0 <= since < end or max(end, now) - since > _LONGEST or end - now > _LONGEST:
            raise InvalidInput("The range ends before it begins, or is longer than ten years.")
        said = f"{field(since)} to {field(until) or 'now'}".replace("T", " ")
        return _span(since, until, end, said, "")
    name = query.get("range") or default
    if name not in RANGES:
        raise InvalidInput("There is no such range.")
    said, seconds = RANGES[name]
    step = _step(seconds)
    offset = _offset(now)
    last = (now + offset) // (step * 1000) * step * 1000 - offset
    return Span(last - (seconds - step) * 1000, None, step, offset, f"last {said}", name)


def _span(since: int, until: int | None, end: int, said: str, name: str) -> Span:
    return Span(since, until, _step((end - since) / 1000), _offset(end), said, name)


def _step(seconds: float) -> int:
    return next((step for step in _STEPS if seconds <= step * _BARS), _STEPS[-1])


def _offset(at: int) -> int:
    return (local(at).utcoffset() or timedelta()) // timedelta(milliseconds=1)
