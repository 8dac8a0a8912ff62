"""The first page: what the units are spent on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from budgeteer.core.amounts import MONEY, dollars, noun
from budgeteer.gateway import queries
from budgeteer.gateway.dashboard import charts
from budgeteer.gateway.dashboard.amounts import amount, lasting
from budgeteer.gateway.dashboard.common import (
    NO_NAMES,
    Shared,
    asked,
    path_of,
)
from budgeteer.gateway.dashboard.html import Html, join, link, options, page, table, tag
from budgeteer.gateway.dashboard.times import span_of
from budgeteer.gateway.record import Record
from budgeteer.gateway.refusal import Refused
from budgeteer.ledger.protocol import wall_clock
from budgeteer.metering.outcome import Outcome

_OFTEN, _NEVER = ("stage", "model", "key", "scope"), ("outcome", "reason", "time")
BY = (*_OFTEN, *(name for name in queries.BY if name not in _OFTEN and name not in _NEVER))
"""What the chart can be grouped by."""

NOT_SHOWN = Html('<p class="note">Shown to admins of the whole gateway.</p>')


class Overview(Shared):
    """The first page."""

    async def overview(self, request: Request, token: str) -> Response:
        """What the units are spent on in the chosen time, with running and refused requests.

        Raises:
            Refused: 400, the address has an unknown range, grouping or kind.
        """
        query = request.query_params
        by, kind, path = query.get("by", "stage"), query.get("kind", self.kind), query.get("path", "")
        if by not in BY or kind not in self.kinds:
            raise Refused(400, "invalid_request", "There is no such grouping or kind.")
        now = wall_clock()
        span = span_of(query, now, "15m")
        times, step = span.times(now), span.step
        about = asked(**span.filters, path=path)
        refusals = {**about, "refused": "1"}
        spend = self.queries.spend
        total, refused, names = await asyncio.gather(
            self.queries.summary(about), self.queries.requests(refusals, limit=8), self.names()
        )
        rows, models, stages, scopes, reasons, wasted = await asyncio.gather(
            spend(["time", by], kind, step, about, span.offset),
            spend(["model"], kind, asked=about),
            spend(["stage"], kind, asked=about),
            spend(["scope"], kind, asked=about),
            spend(["reason", "scope"], "requests", asked=refusals),
            spend(["outcome"], "wasted", asked=about),
        )
        if by == "key":
            rows = [{**row, "key": names.get(row["key"], row["key"])} for row in rows]
        body = page(
            "overview",
            cards=self._cards(total),
            chart=charts.spending(rows, by, times, step, kind),
            kind=noun(kind),
            by=by,
            said=span.said,
            **span.fields(),
            kinds=options(((name, noun(name)) for name in self.kinds), kind),
            bys=options(((name, name) for name in BY), by),
            path=path,
            live=self._live(self.queries.live(), names, now, path),
            reasons=_reasons(reasons, span.filters, names),
            refused=self.records(refused.requests, names, "Nothing was refused."),
            wasted=_wasted(wasted, total["wasted"], total["input"] + total["output"], span.filters),
            models=self._spent(models, "model", kind, span.filters),
            stages=self._spent(stages, "stage", kind, span.filters),
            scopes=self._spent(scopes, "scope", kind, span.filters, names),
            upstreams=_upstreams(total["upstreams"]) if "upstreams" in total else NOT_SHOWN,
        )
        return self.framed(token, "Overview", body, "/")

    def _cards(self, total: dict[str, Any]) -> Html:
        over = {kind: units for kind, units in total["overshoot"].items() if units}
        said = ", ".join(
            f"{amount(kind, units)} {'' if kind == MONEY else kind}".strip() for kind, units in over.items()
        )
        tokens = total["input"] + total["output"]
        cards = [
            ("spent", dollars(total["money"]), f"{tokens:,} tokens", "")
            if MONEY in self.kinds
            else ("tokens", f"{tokens:,}", f"{total['input']:,} in, {total['output']:,} out", ""),
            ("requests", f"{total['requests']:,}", f"{total['live']:,} live", ""),
            ("refused", f"{total['refused']:,}", "each with its reason", ""),
            ("failed or cut", f"{total['failed']:,}", f"{total['estimated']:,} estimated", ""),
            (
                "overshoot",
                said or "0",
                "beyond what was reserved" if over else "as it should be",
                "bad" if over else "good",
            ),
            ("wasted tokens", f"{total['wasted']:,}", f"{total['wasted'] / max(1, tokens):.1%} of all", ""),
        ]
        if total["saved"]:
            main = amount(self.kind, total["saved"].get(self.kind, 0))
            cards.append(("saved", main, f"{noun(self.kind)}, by the cache", "good"))
        if total.get("records_dropped"):
            cards.append(
                ("records dropped", f"{total['records_dropped']:,}", "the store did not answer for too long", "bad")
            )
        form = '<div class="card $css"><div class="what">$label</div><div class="much">$much</div>'
        form += '<div class="sub">$more</div></div>'
        return join(tag(form, label=label, much=much, more=more, css=css) for label, much, more, css in cards)

    def _spent(
        self,
        rows: Sequence[dict[str, Any]],
        by: str,
        kind: str,
        times: Mapping[str, str],
        names: Mapping[str, str] = NO_NAMES,
    ) -> Html:
        total = sum(row["units"] or 0 for row in rows) or 1
        filters = {"scope": "path"}
        shown = [
            (
                link(path_of(row[by], names) or "none", "/requests", **{filters.get(by, by): row[by], **times}),
                amount(kind, row["units"] or 0),
                f"{(row['units'] or 0) / total:.1%}",
                f"{row['requests']:,}",
                f"{row['refused']:,}",
            )
            for row in rows[:12]
        ]
        heads = ("account" if by == "scope" else by, noun(kind), "share", "requests", "refused")
        return table(heads, shown, "Nothing yet.", heads[1:])

    def _live(self, records: Sequence[Record], names: Mapping[str, str], now: int, path: str) -> Html:
        inside = [record for record in records if not path or f"{record.path}/".startswith(f"{path}/")]
        shown = [
            (
                link(names.get(record.key, record.key) or "...", f"/keys/{quote(record.key)}"),
                record.stage,
                record.model,
                record.upstream,
                lasting(record.ms),
            )
            for record in sorted(inside, key=lambda record: record.at)[:20]
        ]
        more = Html("") if len(inside) <= 20 else tag('<p class="note">and $n more</p>', n=len(inside) - 20)
        return join(
            (table(("key", "stage", "model", "upstream", "for"), shown, "No request is under way.", ("for",)), more)
        )


def _reasons(rows: Sequence[dict[str, Any]], times: Mapping[str, str], names: Mapping[str, str]) -> Html:
    shown = [
        (
            link(row["reason"], "/requests", refused=1, path=row["scope"], **times),
            path_of(row["scope"], names),
            f"{row['requests']:,}",
        )
        for row in sorted(rows, key=lambda row: -row["requests"])[:12]
    ]
    return table(("reason", "at", "requests"), shown, "Nothing was refused.", ("requests",))


def _wasted(rows: Sequence[dict[str, Any]], wasted: int, tokens: int, times: Mapping[str, str]) -> Html:
    says: Mapping[str, str] = {
        Outcome.CUT: "streams that the upstream cut",
        Outcome.LEFT: "clients that went away",
        Outcome.FAILED: "calls that failed",
        Outcome.OK: "attempts that were made again",
    }
    shown = [
        (
            link(says.get(row["outcome"], row["outcome"]), "/requests", outcome=row["outcome"], **times),
            f"{row['units']:,}",
            f"{row['units'] / max(1, tokens):.1%}",
        )
        for row in rows
        if row["units"]
    ]
    return table(("by", "tokens", "of all"), shown, "No token was wasted.", ("tokens", "of all"))


def _upstreams(rows: Sequence[dict[str, Any]]) -> Html:
    healthy = tag('<span class="good">healthy</span>')
    resting = '<span class="bad">backing off after $n failures</span>'
    shown = []
    for row in rows:
        health = healthy if row["healthy"] else tag(resting, n=row["failures"])
        shown.append((row["name"], ", ".join(row["models"]), health, row["live"]))
    return table(("upstream", "models", "health", "live"), shown, "None.", ("live",))
