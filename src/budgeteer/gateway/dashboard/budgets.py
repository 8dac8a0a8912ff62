"""The pages of limits: the list, and one limit with its burn-down chart."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from budgeteer.core.amounts import is_money, noun
from budgeteer.gateway.dashboard import charts
from budgeteer.gateway.dashboard.amounts import amount, lasting, short
from budgeteer.gateway.dashboard.charts import Burn
from budgeteer.gateway.dashboard.common import (
    Shared,
    asked,
    listed,
    path_of,
    window_of,
)
from budgeteer.gateway.dashboard.forecast import pace
from budgeteer.gateway.dashboard.html import Html, link, page, pages, tag
from budgeteer.gateway.dashboard.times import when
from budgeteer.gateway.filters import number
from budgeteer.gateway.refusal import Refused
from budgeteer.ledger.protocol import wall_clock
from budgeteer.ledger.windows import bucket, start

_ROWS = 100
"""Limits on a page."""
_FINE = 240
"""Steps of time into which the past of a limit is divided."""


class Budgets(Shared):
    """The pages of limits.

    Each method of a page takes the request and the token for its forms.
    """

    async def budgets(self, request: Request, token: str) -> Response:
        """The list of limits, those with the largest used share first."""
        query = request.query_params
        path, search = query.get("path", ""), query.get("search", "")
        balances, names = await asyncio.gather(self.queries.balances(path), self.names())
        words = search.casefold().split()
        limited = [row for row in balances if row["limit"] is not None and _says(row, names, words)]
        limited.sort(key=lambda row: -(row["settled"] + row["reserved"]) / max(1, row["limit"]))
        first = (number(query, "page", 1, least=1, most=10**6) - 1) * _ROWS
        body = page(
            "budgets",
            path=path,
            search=search,
            limits=self.balances(limited[first : first + _ROWS], names),
            more=f"{len(limited):,} limits, those with the largest used share first.",
            pages=pages("/budgets", len(limited), first, _ROWS, path=path, search=search),
        )
        return self.framed(token, "Budgets", body, "/budgets")

    async def budget(self, request: Request, token: str) -> Response:
        """One limit: its burn-down chart and a forecast."""
        query = request.query_params
        path, kind, window = query.get("path", ""), query.get("kind", ""), query.get("window", "")
        balances, names = await asyncio.gather(self.queries.balances(path), self.names())
        same = (
            row
            for row in balances
            if (row["path"], row["kind"], row["window"]) == (path, kind, window) and row["limit"] is not None
        )
        row = next(same, None)
        if row is None:
            raise Refused(404, "no_limit", "There is no such limit.")
        title = path_of(path, names)
        drawn, facts = await self._burn(row)
        limit = amount(kind, row["limit"]) + ("" if is_money(kind) else f" {noun(kind)}")
        body = page(
            "budget",
            title=title,
            limit=limit,
            window=window_of(window),
            bar=self.balances([row], names),
            chart=drawn,
            facts=facts,
            requests=link("its requests", "/requests", path=path),
        )
        return self.framed(token, title, body, "/budgets")

    async def _over_time(self, kind: str, step: int, **about: object) -> list[dict[str, Any]]:
        return await self.queries.spend(["time"], kind, step, asked(**about))

    async def _burn(self, row: dict[str, Any]) -> tuple[Html, Html]:
        """The burn-down chart of a limit, and the forecast's numbers."""
        path, kind, window = row["path"], row["kind"], row["window"]
        now = wall_clock()
        if window.endswith(" s"):
            return Html(""), tag(
                '<p class="note">Rolling: units come back $window after they were spent.</p>', window=window_of(window)
            )
        if window:
            begins, ends = start(window, bucket(window, now)), row["resets"]
        else:
            oldest = await self._over_time("requests", 60, path=path)
            begins = max(oldest[0]["time"] if oldest else now - 60_000, now - 30 * 86_400_000)
            ends = now + max(60_000, now - begins)
        step = max(1, -(-(now - begins) // 1000 // _FINE))
        rows = await self._over_time(kind, step, path=path, since=begins)
        if window and rows and rows[0]["time"] > begins + 60_000:
            step = max(1, -(-(now - rows[0]["time"]) // 1000 // _FINE))  # it began within the window
            rows = await self._over_time(kind, step, path=path, since=begins)
        wide = step * 1000
        units = {row["time"]: row["units"] or 0 for row in rows}
        first = min(units, default=now) // wide * wide
        times = range(first, now - wide + 1, wide)
        fine = [units.get(at, 0) for at in times]
        # The total is the ledger's, which is exact; records only say when it was spent.
        used = row["settled"] - sum(units.values())
        past = [(begins, float(max(0, used)))]
        for at in (*times, times[-1] + wide if times else first):
            past.append((max(begins, at), float(max(0, used))))
            used += units.get(at, 0)
        past.append((now, float(row["settled"])))
        seen = pace(fine)
        if seen is None:
            burn = Burn(past, (), row["limit"], begins, ends)
            text = "Too little was spent in this window to forecast it."
            return charts.burn_down(burn, lambda u: short(kind, u), "left"), tag('<p class="note">$t</p>', t=text)
        forecast, wide_slices = seen
        slice_ms = wide * wide_slices
        grid = [now + (ends - now) * n / 60 for n in range(61)]
        ahead = []
        for at in grid:
            low, mean, high = forecast.ahead((at - now) / slice_ms)
            ahead.append((int(at), *(row["settled"] + more for more in (low, mean, high))))
        burn = Burn(past, ahead, row["limit"], begins, ends)
        drawing = charts.burn_down(burn, lambda u: short(kind, u), f"what is left of {amount(kind, row['limit'])}")
        return drawing, _facts(row, ahead, now, forecast.mean / slice_ms * 60_000)


def _says(row: Mapping[str, Any], names: Mapping[str, str], words: Sequence[str]) -> bool:
    """Whether a limit's account, the name of its key or its kind have each of some words."""
    if not words:
        return True
    said = f"{row['path']} {path_of(row['path'], names)} {noun(row['kind'])}".casefold()
    return all(word in said for word in words)


def _facts(row: dict[str, Any], ahead: Sequence[tuple[int, float, float, float]], now: int, minute: float) -> Html:
    """The numbers of a forecast as a list."""
    kind, limit = row["kind"], row["limit"]

    def spent_at(which: int) -> str:
        reached = next((at for at, *used in ahead if used[which] >= limit), None)
        return "not by then" if reached is None else f"in {lasting(reached - now)}"

    _, low, mean, high = ahead[-1]
    ending = f"used by {when(ahead[-1][0])}" if row["window"] else f"used in {lasting(ahead[-1][0] - now)}"
    return listed(
        [
            ("left now", amount(kind, row["left"])),
            ("pace", f"{amount(kind, minute)} a minute"),
            (
                ending,
                f"{amount(kind, mean)} of {amount(kind, limit)} (90 %: {amount(kind, low)} to {amount(kind, high)})"
                + (" if nothing stopped it" if mean > limit else ""),
            ),
            ("runs out", f"{spent_at(1)} (earliest {spent_at(2)}, latest {spent_at(0)})"),
        ]
    )
