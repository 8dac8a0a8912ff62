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
from budgeteer.gateway.dashboard.api import Api
from budgeteer.gateway.dashboard.html import Html, join, link, page, table, tag
from budgeteer.ledger.protocol import wall_clock

RANGES = {
    "15m": ("15 minutes", 900, 15),
    "1h": ("hour", 3600, 60),
    "24h": ("24 hours", 86_400, 1800),
    "7d": ("7 days", 604_800, 10_800),
    "30d": ("30 days", 2_592_000, 43_200),
}
"""Name -> what it is called, its seconds, those of a bar."""
_GOOD = ("ok", "cached")
NO_NAMES: Mapping[str, str] = {}


class Shared:
    """A page of one gateway.

    Attributes:
        api: the admin API.
        kinds: of units that pages show.
        kind: of them that they show first.
    """

    def __init__(self, api: Api, config: Config) -> None:
        self.api = api
        self.kinds = [kind for kind in config.counted if kind != PARALLEL]
        self.kind = MONEY if MONEY in config.kinds else config.kinds[0]

    def framed(self, token: str, title: str, body: Html, here: str, status: int = 200) -> Response:
        """A whole page: the menu and a body; ``here`` is the menu's entry that it belongs to."""
        places = (("/", "Overview"), ("/budgets", "Budgets"), ("/requests", "Requests"), ("/keys", "Keys"))
        menu = join(
            tag('<a href="$path"$on>$name</a>', path=path, name=name,
                on=Html(' aria-current="page"' if path == here else ""))
            for path, name in places
        )  # fmt: skip
        return HTMLResponse(page("frame", title=title, menu=menu, token=token, body=body), status)

    async def names(self) -> dict[str, str]:
        """Ids of keys -> names for people."""
        return {key["id"]: key["name"] or key["id"] for key in (await self.api.get("keys"))["keys"]}

    def records(self, rows: Sequence[dict[str, Any]], names: dict[str, str], empty: str) -> Html:
        """Records, one a line."""
        shown = [
            (
                link(when(row["at"]), f"/requests/{quote(row['id'])}"),
                link(names.get(row["key"], row["key"]), f"/keys/{quote(row['key'])}") if row["key"] else "",
                row["stage"], row["model"], outcome_of(row), row["reason"], f"{row['input']:,}", f"{row['output']:,}",
                *((amount(self.kind, row["units"].get(self.kind, 0)),) if self.kind == MONEY else ()),
                lasting(row["ms"]),
            )
            for row in rows
        ]  # fmt: skip
        numbers = ("in", "out", *((named(MONEY),) if self.kind == MONEY else ()), "took")
        return table(("time (UTC)", "key", "stage", "model", "outcome", "reason", *numbers), shown, empty, numbers)

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
            shown.append((
                link(path_of(row["path"], names), "/budget", path=row["path"], kind=kind, window=row["window"]),
                named(kind), window_of(row["window"]), bar, amount(kind, row["left"]), amount(kind, limit), resets,
                over,
            ))  # fmt: skip
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


def outcome_of(record: dict[str, Any]) -> Html:
    """How a request ended, in its colour, and its status."""
    css = "good" if record["outcome"] in _GOOD else "bad" if record["outcome"] in ("failed", "cut") else "warn"
    return tag('<span class="$css">$x</span> $status', css=css, x=record["outcome"] if record["status"] else "live",
               status=record["status"] or "")  # fmt: skip


def times_of(now: int, seconds: int, step: int) -> list[int]:
    """Where the bars of the last ``seconds`` begin, milliseconds since 1970."""
    wide = step * 1000
    last = now // wide * wide
    return list(range(last - seconds * 1000 + wide, last + 1, wide))
