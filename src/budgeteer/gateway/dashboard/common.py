"""What the pages share: the frame around each, rows of records and of limits, and words for both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from starlette.responses import HTMLResponse, Response

from budgeteer.core.meter import MONEY
from budgeteer.draw.svg import Part, stacked_bar
from budgeteer.gateway.config import PARALLEL, Config
from budgeteer.gateway.dashboard.amounts import amount, lasting, when
from budgeteer.gateway.dashboard.html import Html, join, link, page, table, tag
from budgeteer.gateway.queries import Queries
from budgeteer.gateway.record import COLUMNS, DURATION, FLAG, MOMENT, Column, Record
from budgeteer.ledger.protocol import wall_clock
from budgeteer.metering.outcome import Outcome

RANGES = {
    "15m": ("15 minutes", 900, 15),
    "1h": ("hour", 3600, 60),
    "24h": ("24 hours", 86_400, 1800),
    "7d": ("7 days", 604_800, 10_800),
    "30d": ("30 days", 2_592_000, 43_200),
}
"""Name -> what it is called, its seconds, those of a bar."""
_GOOD, _BAD = (Outcome.OK, Outcome.CACHED), (Outcome.FAILED, Outcome.CUT)
HEADINGS = [column for column in COLUMNS if column.heading]
"""Fields that lists of requests show."""
NO_NAMES: Mapping[str, str] = {}


class Shared:
    """A page of one gateway.

    Attributes:
        queries: of the gateway.
        kinds: of units that pages show.
        kind: of them that they show first.
    """

    def __init__(self, queries: Queries, config: Config) -> None:
        self.queries = queries
        self.kinds = [kind for kind in config.counted if kind != PARALLEL]
        self.kind = MONEY if MONEY in config.kinds else config.kinds[0]

    def framed(self, token: str, title: str, body: Html, here: str, status: int = 200) -> Response:
        """A whole page: the menu and a body; ``here`` is the menu's entry that it belongs to."""
        places = (("/", "Overview"), ("/budgets", "Budgets"), ("/requests", "Requests"), ("/keys", "Keys"))
        menu = join(
            tag(
                '<a href="$path"$on>$name</a>',
                path=path,
                name=name,
                on=Html(' aria-current="page"' if path == here else ""),
            )
            for path, name in places
        )
        return HTMLResponse(page("frame", title=title, menu=menu, token=token, body=body), status)

    async def names(self) -> dict[str, str]:
        """Ids of keys -> names for people."""
        return {key.id: key.name or key.id for key in await self.queries.keys()}

    def records(self, records: Sequence[Record], names: Mapping[str, str], empty: str) -> Html:
        """Records, one a line."""
        shown = [column for column in HEADINGS if column.name != "units" or self.kind == MONEY]
        heads = [named(MONEY) if column.name == "units" else column.heading for column in shown]
        rows = [[_cell(column, record, names) for column in shown] for record in records]
        numbers = [
            head for head, column in zip(heads, shown, strict=True) if column.kind != "text" and column.unit != MOMENT
        ]
        return table(heads, rows, empty, numbers)

    def balances(self, rows: Sequence[dict[str, Any]], names: dict[str, str]) -> Html:
        """Limits, one a line, with what is used and held of each."""
        shown = []
        for row in rows:
            kind, limit = row["kind"], row["limit"]
            used, held = row["settled"], row["reserved"]
            said = f"{amount(kind, used)} used, {amount(kind, held)} held of {amount(kind, limit)}"
            parts = [Part("held", held, f"{amount(kind, held)} held")]
            parts.insert(0, Part("full" if used + held >= limit else "used", used, f"{amount(kind, used)} used"))
            bar = Html(stacked_bar(parts, whole=max(limit, used + held, 1), label=said))
            over = tag('<b class="bad">$x</b>', x=amount(kind, row["overshoot"])) if row["overshoot"] else "0"
            resets = lasting(row["resets"] - wall_clock()) if row["resets"] else ""
            shown.append(
                (
                    link(path_of(row["path"], names), "/budget", path=row["path"], kind=kind, window=row["window"]),
                    named(kind),
                    window_of(row["window"]),
                    bar,
                    amount(kind, row["left"]),
                    amount(kind, limit),
                    resets,
                    over,
                )
            )
        heads = ("account", "kind", "per", "used and held", "left", "limit", "resets in", "overshoot")
        return table(heads, shown, "No limits: nothing stops anybody.", heads[4:])


def listed(facts: Sequence[tuple[str, object]]) -> Html:
    """Names and values; what is empty is left out."""
    shown = join(tag("<dt>$name</dt><dd>$value</dd>", name=name, value=value) for name, value in facts if value)
    return tag("<dl>$shown</dl>", shown=shown)


def problem_of(text: str) -> Html:
    """What is wrong with a form; nothing where ``text`` is empty."""
    return tag('<p class="problem" role="alert">$text</p>', text=text) if text else Html("")


def named(kind: str) -> str:
    """A kind of units as pages call it."""
    return {"all": "tokens", "money": "dollars"}.get(kind, kind)


def window_of(window: str) -> str:
    """A limit's window as pages call it."""
    return window or "in all"


def path_of(path: str, names: Mapping[str, str]) -> str:
    """An account's path with the names of keys for their ids."""
    return "/".join(names.get(part, part) for part in path.split("/"))


def outcome_of(record: Record) -> Html:
    """How a request ended, in its colour, and its status."""
    css = "good" if record.outcome in _GOOD else "bad" if record.outcome in _BAD else "warn"
    return tag(
        '<span class="$css">$x</span> $status',
        css=css,
        x=record.outcome if record.status else "live",
        status=record.status or "",
    )


def _cell(column: Column, record: Record, names: Mapping[str, str]) -> object:
    """A field in a list of requests: the time is a link to the request, and units are those of money."""
    if column.name == "at":
        return link(when(record.at), f"/requests/{quote(record.id)}")
    if column.name == "units":
        return amount(MONEY, record.units.get(MONEY, 0))
    return fact_of(column, record, names)


def fact_of(column: Column, record: Record, names: Mapping[str, str]) -> object:
    """A field of a record as people read it: its outcome in colour, its key by name."""
    if column.name == "outcome":
        return outcome_of(record)
    if column.name == "key":
        key = record.key
        return link(names.get(key, key), f"/keys/{quote(key)}") if key else ""
    return value_of(column, getattr(record, column.name))


def value_of(column: Column, value: Any) -> object:
    """A value of a field as people read it."""
    if column.unit == MOMENT:
        return when(value)
    if column.unit == DURATION:
        return lasting(value)
    if column.unit == FLAG:
        return "yes" if value else "no"
    return f"{value:,}" if column.kind == "whole" else value


def asked(**filters: object) -> dict[str, str]:
    """Filters of a query; those that are empty are left out."""
    return {name: str(value) for name, value in filters.items() if value not in (None, "")}


def times_of(now: int, seconds: int, step: int) -> list[int]:
    """Where the bars of the last ``seconds`` begin, milliseconds since 1970."""
    wide = step * 1000
    last = now // wide * wide
    return list(range(last - seconds * 1000 + wide, last + 1, wide))
