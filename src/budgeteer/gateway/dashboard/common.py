"""Shared parts of the pages: the frame, tables of records and of limits, and how values are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING
from typing import Any
from urllib.parse import quote

from starlette.responses import HTMLResponse, Response

from budgeteer.core.amounts import MONEY, dollars, is_money, noun
from budgeteer.draw.svg import Part, stacked_bar
from budgeteer.gateway.config import PARALLEL, Config
from budgeteer.gateway.dashboard.amounts import amount, lasting
from budgeteer.gateway.dashboard.html import Html, join, link, page, table, tag
from budgeteer.gateway.dashboard.times import when, zone_name
from budgeteer.gateway.queries import Queries
from budgeteer.gateway.record import COLUMNS, DURATION, FLAG, MOMENT, Column, Record
from budgeteer.gateway.roles import Admin
from budgeteer.ledger.protocol import wall_clock
from budgeteer.metering.outcome import Outcome

_GOOD, _BAD = (Outcome.OK, Outcome.CACHED), (Outcome.FAILED, Outcome.CUT)
HEADINGS = [column for column in COLUMNS if column.heading]
"""The fields of records that lists of requests show."""
PLACES = (
    ("/", "Overview"),
    ("/budgets", "Budgets"),
    ("/agents", "Agents"),
    ("/requests", "Requests"),
    ("/keys", "Keys"),
    ("/changes", "Changes"),
)
MINE = (("/mine", "My key"),)
"""The pages in the menu: of administrators, and of a key's holder."""
NO_NAMES: Mapping[str, str] = {}


class Shared:
    """The base class of pages.

    Attributes:
        queries: the gateway's queries.
        kinds: the kinds of units that pages show.
        kind: the kind that they show unless another is chosen: money if it is counted.
        admin: who looks at them; None = the holder of a key.
    """

    def __init__(self, queries: Queries, config: Config, admin: Admin | None = None) -> None:
        self.queries, self.admin = queries, admin
        self.kinds = [kind for kind in config.counted if kind != PARALLEL]
        self.kind = MONEY if MONEY in config.kinds else config.kinds[0]

    def framed(self, token: str, title: str, body: Html, here: str, status: int = 200) -> Response:
        """A whole page.

        Args:
            token: for its forms.
            title: of the page.
            body: below the menu.
            here: address of the menu's entry that is marked as the current one.
            status: the HTTP status.
        """
        places, logout = (MINE, "/mine/logout") if here == "/mine" else (PLACES, "/logout")
        menu = join(
            tag(
                '<a href="$path"$on>$name</a>',
                path=path,
                name=name,
                on=Html(' aria-current="page"' if path == here else ""),
            )
            for path, name in places
        )
        who = tag('<span class="sub">$who</span> ', who=self.admin) if self.admin else Html("")
        frame = {"title": title, "menu": menu, "token": token, "zone": zone_name(), "logout": logout, "who": who}
        return HTMLResponse(page("frame", **frame, body=body), status)

    async def names(self) -> Mapping[str, str]:
        """Id of each key -> its name for people; the id if it has none."""
        return await self.queries.names()

    def records(self, records: Sequence[Record], names: Mapping[str, str], empty: str, own: bool = False) -> Html:
        """A table of records; the text ``empty`` if there are none. ``own`` makes it for the holder of their key."""
        shown = [column for column in HEADINGS if column.name != "units" or self.kind == MONEY]
        shown = [column for column in shown if not (own and column.name == "key")]
        heads = [noun(MONEY) if column.name == "units" else column.heading for column in shown]
        place = "/mine/requests" if own else "/requests"
        rows = [[_cell(column, record, names, place) for column in shown] for record in records]
        numbers = [
            head for head, column in zip(heads, shown, strict=True) if column.kind != "text" and column.unit != MOMENT
        ]
        return table(heads, rows, empty, numbers)

    def balances(self, rows: Sequence[dict[str, Any]], names: Mapping[str, str], links: bool = True) -> Html:
        """A table of limits, with what is used, held and left of each; ``links`` lead to the page of each."""
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
                    link(path_of(row["path"], names), "/budget", path=row["path"], kind=kind, window=row["window"])
                    if links
                    else path_of(row["path"], names),
                    noun(kind),
                    window_of(row["window"]),
                    bar,
                    amount(kind, row["left"]),
                    amount(kind, limit),
                    resets,
                    over,
                )
            )
        heads = ("account", "kind", "per", "used and held", "left", "limit", "resets in", "overshoot")
        return table(heads, shown, "No limits: spending is not limited.", heads[4:])


def listed(facts: Sequence[tuple[str, object]]) -> Html:
    """A list of names and values; empty values are left out."""
    shown = join(tag("<dt>$name</dt><dd>$value</dd>", name=name, value=value) for name, value in facts if value)
    return tag("<dl>$shown</dl>", shown=shown)


def problem_of(text: str) -> Html:
    """The error message of a form; nothing if ``text`` is empty."""
    return tag('<p class="problem" role="alert">$text</p>', text=text) if text else Html("")


def window_of(window: str) -> str:
    """The name of a limit's window on pages."""
    return window or "in all"


def path_of(path: str, names: Mapping[str, str]) -> str:
    """An account's path with names of keys instead of their ids."""
    return "/".join(names.get(part, part) for part in path.split("/"))


def outcome_of(record: Record) -> Html:
    """The coloured outcome of a request, and its HTTP status."""
    css = "good" if record.outcome in _GOOD else "bad" if record.outcome in _BAD else "warn"
    return tag(
        '<span class="$css">$x</span> $status',
        css=css,
        x=record.outcome if record.status else "live",
        status=record.status or "",
    )


def _cell(column: Column, record: Record, names: Mapping[str, str], place: str) -> object:
    """The cell of a field in a list of requests: the time links to the request, and units are shown as money only."""
    if column.name == "at":
        return link(when(record.at), f"{place}/{quote(record.id)}")
    if column.name == "units":
        return amount(MONEY, record.units.get(MONEY, 0))
    return fact_of(column, record, names)


def needs(record: Record) -> str:
    """What the limit that refused a request had left, and what the request may have used; "" if no limit did."""
    if not record.refused_kind:
        return ""
    kind, requested = record.refused_kind, record.requested or 0
    has = amount(kind, record.available or 0) + ("" if is_money(kind) else f" {noun(kind)}")
    verb = f"cost {dollars(requested, ROUND_CEILING)}" if is_money(kind) else f"use {requested:,}"
    return f"{has} left of {record.refused_limit}, may {verb}"


def fact_of(column: Column, record: Record, names: Mapping[str, str], own: bool = False) -> object:
    """The value of a record's field for people: the outcome in colour, the key by its name; what would say nothing of
    a request without a charge is left out. ``own`` leads nowhere but to pages of the key's holder."""
    if column.name == "estimated" and not record.paid:
        return ""
    if column.name == "reason" and record.refused_kind:
        return tag('$x <span class="sub">$y</span>', x=record.reason, y=needs(record))
    if column.name == "refused_kind" and record.refused_kind:
        return noun(record.refused_kind)
    if column.name == "scope":
        return path_of(record.scope, names)
    if column.name == "conversation" and record.conversation:
        if own:
            return link(record.conversation, "/mine/conversation", name=record.conversation)
        return link(record.conversation, "/conversation", key=record.key, name=record.conversation)
    if column.name == "outcome":
        return outcome_of(record)
    if column.name == "key":
        key = record.key
        if own:
            return names.get(key, key)
        return link(names.get(key, key), f"/keys/{quote(key)}") if key else ""
    return value_of(column, getattr(record, column.name))


def value_of(column: Column, value: Any) -> object:
    """A value of a record's field for people, written by the field's unit; nothing for one that is not known."""
    if value is None:
        return ""
    if column.unit == MOMENT:
        return when(value)
    if column.unit == DURATION:
        return lasting(value)
    if column.unit == FLAG:
        return "yes" if value else "no"
    return f"{value:,}" if column.kind == "whole" else value


def asked(**filters: object) -> dict[str, str]:
    """Filters for the gateway's queries, as strings; empty ones are left out."""
    return {name: str(value) for name, value in filters.items() if value not in (None, "")}
