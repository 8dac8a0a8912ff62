"""The first page: where the units go."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from budgeteer.core.meter import MONEY
from budgeteer.gateway.dashboard import charts
from budgeteer.gateway.dashboard.amounts import amount, dollars, lasting, short
from budgeteer.gateway.dashboard.api import Trouble
from budgeteer.gateway.dashboard.common import (
    NO_NAMES,
    RANGES,
    Shared,
    named,
    path_of,
    times_of,
)
from budgeteer.gateway.dashboard.html import Html, join, link, options, page, table, tag
from budgeteer.ledger.protocol import wall_clock

BY = ("stage", "model", "key", "scope", "user", "session", "tag", "upstream", "operation")


class Overview(Shared):
    """The first page."""

    async def overview(self, request: Request, token: str) -> Response:
        """Where the units go."""
        asked = request.query_params
        span = asked.get("range", "15m")
        by, kind, path = asked.get("by", "stage"), asked.get("kind", self.kind), asked.get("path", "")
        if span not in RANGES or by not in BY or kind not in self.kinds:
            raise Trouble(400, "There is no such range, grouping or kind.")
        said, seconds, step = RANGES[span]
        now = wall_clock()
        times = times_of(now, seconds, step)
        about = {"since": times[0], "path": path}
        ask = self.api.get
        total, over_time, models, stages, scopes, reasons, wasted, live, refused, names = await asyncio.gather(
            ask("summary", **about),
            ask("spend", by=f"time,{by}", kind=kind, step=step, **about),
            ask("spend", by="model", kind=kind, **about),
            ask("spend", by="stage", kind=kind, **about),
            ask("spend", by="scope", kind=kind, **about),
            ask("spend", by="reason,scope", kind="requests", refused=1, **about),
            ask("spend", by="outcome", kind="wasted", **about),
            ask("live"),
            ask("requests", refused=1, limit=8, **about),
            self.names(),
        )
        rows = over_time["rows"]
        if by == "key":
            rows = [{**row, "key": names.get(row["key"], row["key"])} for row in rows]
        drawn = charts.stacks(rows, by, times)
        chart = charts.bars(drawn, times, step * 1000, lambda units: short(kind, units), f"{named(kind)} by {by}")
        return self.framed(token, "Overview", page(
            "overview", cards=self._cards(total), chart=chart, kind=named(kind), by=by, said=said,
            ranges=options(((name, f"last {text}") for name, (text, _, _) in RANGES.items()), span),
            kinds=options(((one, named(one)) for one in self.kinds), kind), bys=options(((b, b) for b in BY), by),
            path=path, live=self._live(live["live"], names, now, path), reasons=_reasons(reasons["rows"], about, names),
            refused=self.records(refused["requests"], names, "Nothing was refused."),
            wasted=_wasted(wasted["rows"], total["wasted"], total["input"] + total["output"]),
            models=self._spent(models["rows"], "model", kind, times[0]),
            stages=self._spent(stages["rows"], "stage", kind, times[0]),
            scopes=self._spent(scopes["rows"], "scope", kind, times[0], names),
            upstreams=_upstreams(total["upstreams"]),
        ), "/")  # fmt: skip

    def _cards(self, total: dict[str, Any]) -> Html:
        over = {kind: units for kind, units in total["overshoot"].items() if units}
        said = ", ".join(
            f"{amount(kind, units)} {'' if kind == MONEY else kind}".strip() for kind, units in over.items()
        )
        tokens = total["input"] + total["output"]
        cards = [
            ("spent", dollars(total["money"]), f"{tokens:,} tokens", "") if MONEY in self.kinds
            else ("tokens", f"{tokens:,}", f"{total['input']:,} in, {total['output']:,} out", ""),
            ("requests", f"{total['requests']:,}", f"{total['live']:,} live", ""),
            ("refused", f"{total['refused']:,}", "told why", ""),
            ("failed or cut", f"{total['failed']:,}", f"{total['estimated']:,} estimated", ""),
            ("overshoot", said or "0", "beyond what was reserved" if over else "as it should be",
             "bad" if over else "good"),
            ("wasted tokens", f"{total['wasted']:,}", f"{total['wasted'] / max(1, tokens):.1%} of all", ""),
        ]  # fmt: skip
        if total["saved"]:
            main = amount(self.kind, total["saved"].get(self.kind, 0))
            cards.append(("saved", main, f"{named(self.kind)}, by the cache", "good"))
        if total.get("records_dropped"):
            cards.append(("records dropped", f"{total['records_dropped']:,}", "the store was away too long", "bad"))
        form = '<div class="card $css"><div class="what">$what</div><div class="much">$much</div>'
        form += '<div class="sub">$more</div></div>'
        return join(tag(form, what=what, much=much, more=more, css=css) for what, much, more, css in cards)

    def _spent(
        self, rows: Sequence[dict[str, Any]], by: str, kind: str, since: int, names: Mapping[str, str] = NO_NAMES
    ) -> Html:
        total = sum(row["units"] or 0 for row in rows) or 1
        filters = {"scope": "path"}
        shown = [
            (
                link(path_of(row[by], names) or "none", "/requests", **{filters.get(by, by): row[by], "since": since}),
                amount(kind, row["units"] or 0), f"{(row['units'] or 0) / total:.1%}", f"{row['requests']:,}",
                f"{row['refused']:,}",
            )
            for row in rows[:12]
        ]  # fmt: skip
        heads = ("account" if by == "scope" else by, named(kind), "share", "requests", "refused")
        return table(heads, shown, "Nothing yet.", heads[1:])

    def _live(self, rows: Sequence[dict[str, Any]], names: dict[str, str], now: int, path: str) -> Html:
        inside = [row for row in rows if not path or f"{row['path']}/".startswith(f"{path}/")]
        shown = [
            (
                link(names.get(row["key"], row["key"]) or "...", f"/keys/{quote(row['key'])}"),
                row["stage"], row["model"], row["upstream"], lasting(row["ms"]),
            )
            for row in sorted(inside, key=lambda row: row["at"])[:20]
        ]  # fmt: skip
        more = Html("") if len(inside) <= 20 else tag('<p class="note">and $n more</p>', n=len(inside) - 20)
        return join(
            (table(("key", "stage", "model", "upstream", "for"), shown, "No request is under way.", ("for",)), more)
        )


def _reasons(rows: Sequence[dict[str, Any]], about: dict[str, Any], names: Mapping[str, str]) -> Html:
    shown = [
        (link(row["reason"], "/requests", refused=1, path=row["scope"], since=about["since"]),
         path_of(row["scope"], names), f"{row['requests']:,}")
        for row in sorted(rows, key=lambda row: -row["requests"])[:12]
    ]  # fmt: skip
    return table(("reason", "at", "requests"), shown, "Nothing was refused.", ("requests",))


def _wasted(rows: Sequence[dict[str, Any]], wasted: int, tokens: int) -> Html:
    says = {"cut": "streams that the upstream cut", "left": "clients that went away", "failed": "calls that failed",
            "ok": "attempts that were made again"}  # fmt: skip
    shown = [
        (link(says.get(row["outcome"], row["outcome"]), "/requests", outcome=row["outcome"]), f"{row['units']:,}",
         f"{row['units'] / max(1, tokens):.1%}")
        for row in rows if row["units"]
    ]  # fmt: skip
    return table(("by", "tokens", "of all"), shown, "No token was wasted.", ("tokens", "of all"))


def _upstreams(rows: Sequence[dict[str, Any]]) -> Html:
    well, ill = tag('<span class="good">well</span>'), '<span class="bad">rests after $n failures</span>'
    shown = [
        (row["name"], ", ".join(row["models"]), well if row["healthy"] else tag(ill, n=row["failures"]), row["live"])
        for row in rows
    ]
    return table(("upstream", "models", "health", "live"), shown, "None.", ("live",))
