"""The pages of requests: the list, also as a CSV file, and one request."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from budgeteer.core.amounts import MONEY, dollars, noun
from budgeteer.gateway.admin import csv_file
from budgeteer.gateway.dashboard.amounts import amount, lasting
from budgeteer.gateway.dashboard.common import (
    Shared,
    asked,
    fact_of,
    listed,
    outcome_of,
    path_of,
    problem_of,
    value_of,
)
from budgeteer.gateway.dashboard.html import Html, link, options, page, table
from budgeteer.gateway.dashboard.times import ends, field, span_of, when
from budgeteer.gateway.filters import FILTERS, MANY
from budgeteer.gateway.record import COLUMNS, MAPS, AttemptRecord, Column, Record, columns
from budgeteer.gateway.refusal import Refused
from budgeteer.ledger.protocol import wall_clock
from budgeteer.metering.outcome import Outcome

_ROWS = 100
TURNS = 500
"""The most requests of a conversation that are shown."""
_ENDS = (Outcome.OK, Outcome.CUT, Outcome.LEFT, Outcome.FAILED, Outcome.REFUSED, Outcome.CACHED)
_FIRST = ("outcome", "reason", "scope")
"""The fields at the top of the page of one request; the others follow in their order."""
_FACTS = sorted(
    (column for column in COLUMNS if column.label and not column.is_json),
    key=lambda column: _FIRST.index(column.name) if column.name in _FIRST else len(_FIRST),
)
_ATTEMPT = columns(AttemptRecord)


class Requests(Shared):
    """The pages of requests."""

    async def requests(self, request: Request, token: str) -> Response:
        """The list of requests, newest first."""
        query = {name: request.query_params.get(name, "") for name in (*FILTERS, "before")}
        names, problem = await self.names(), ""
        filters, matching = dict(query), await self._keys_of(query["key"], names)
        if query["key"]:
            filters["key"] = ",".join(matching[:MANY]) or "-"
        if len(matching) > MANY:
            problem = f"{len(matching):,} keys match; the requests of {MANY} of them are shown: write more of the name."
        times = {name: request.query_params.get(name, "") for name in ("from", "to")}
        if any(times.values()):
            span = span_of(times, wall_clock(), "24h")
            filters |= span.filters
            query |= {"since": filters["since"], "until": filters.get("until", "")}
        listed_page = await self.queries.requests(asked(**filters), limit=_ROWS)
        older = Html("")
        if len(listed_page.requests) == _ROWS:
            older = link("older", "/requests", **{**query, "before": listed_page.next})
        outcomes = [("", "any"), *((outcome, outcome) for outcome in _ENDS)]
        body = page(
            "requests",
            rows=self.records(listed_page.requests, names, "No such request."),
            older=older,
            csv=link("CSV", "/requests.csv", **{**filters, "before": ""}),
            problem=problem_of(problem),
            key=names.get(query["key"], query["key"]),
            ends=ends(_field(query["since"]), _field(query["until"])),
            outcomes=options(outcomes, query["outcome"]),
            **{name: query[name] for name in ("model", "stage", "path", "user", "session")},
        )
        return self.framed(token, "Requests", body, "/requests")

    async def _keys_of(self, text: str, names: Mapping[str, str]) -> list[str]:
        """The ids of the keys that a text names: by their id, else by a part of their name, id or path."""
        if not text or text in names:
            return [text] if text else []
        keys = await self.queries.find_keys(text)
        exactly = [key for key in keys if key.name.casefold() == text.strip().casefold()]
        return [key.id for key in exactly or keys]

    async def conversation(self, request: Request, token: str) -> Response:
        """The requests of one conversation, the oldest first, with what it has cost by each of them."""
        key, name = (request.query_params.get(field, "") for field in ("key", "name"))
        if not name:
            raise Refused(404, "no_conversation", "There is no such conversation.")
        filters = asked(key=key, conversation=name)
        listed_page, total, names = await asyncio.gather(
            self.queries.requests(filters, limit=TURNS), self.queries.totals(filters), self.names()
        )
        body = page("conversation", name=name, **self.turns(listed_page.requests, total, names))
        return self.framed(token, "Conversation", body, "/requests")

    def turns(
        self, newest: Sequence[Record], total: Mapping[str, Any], names: Mapping[str, str], own: bool = False
    ) -> dict[str, Html]:
        """The requests of a conversation in a row, and the facts about it.

        Args:
            newest: its requests, the newest first.
            total: sums over all its requests.
            names: names of keys by id.
            own: whether the page is for the holder of its key.
        """
        rows, spent, first = [], 0, newest[-1].at if newest else 0
        place = "/mine/requests" if own else "/requests"
        for n, record in enumerate(reversed(newest), 1):
            used = record.units.get(self.kind, 0)
            spent += used
            rows.append(
                (
                    n,
                    link(when(record.at), f"{place}/{quote(record.id)}"),
                    lasting(record.at - first),
                    record.model,
                    outcome_of(record),
                    record.reason,
                    f"{record.input:,}",
                    f"{record.cached:,}",
                    f"{record.output:,}",
                    amount(self.kind, used),
                    amount(self.kind, spent),
                    lasting(record.ms),
                )
            )
        heads = (
            "n",
            "time",
            "after",
            "model",
            "outcome",
            "reason",
            "in",
            "cached",
            "out",
            noun(self.kind),
            "so far",
            "took",
        )
        facts = [
            ("requests", f"{total['requests']:,}"),
            ("refused", f"{total['refused']:,}"),
            ("tokens", f"{total['input']:,} in ({total['cached']:,} cached), {total['output']:,} out"),
            ("cost", dollars(total["money"]) if self.kind == MONEY else ""),
            ("lasted", lasting(newest[0].at + newest[0].ms - first) if newest else ""),
            ("shown", f"the latest {TURNS:,}" if total["requests"] > len(newest) else ""),
        ]
        if not own and newest:
            facts.insert(0, ("key", path_of(newest[0].key, names)))
        numbers = ("n", "in", "cached", "out", noun(self.kind), "so far", "took", "after")
        return {"facts": listed(facts), "rows": table(heads, rows, "No such request.", numbers)}

    async def csv(self, request: Request, token: str) -> Response:
        """The requests that the filters select, as a CSV file."""
        query = {name: request.query_params.get(name, "") for name in FILTERS}
        return csv_file(await self.queries.table(asked(**query)))

    async def request(self, request: Request, token: str) -> Response:
        """One request with all fields of its record."""
        record, names = await asyncio.gather(self.queries.request(request.path_params["id"]), self.names())
        return self.framed(token, "Request", self.all_fields(record, names), "/requests")

    def all_fields(self, record: Record, names: Mapping[str, str], own: bool = False) -> Html:
        """All fields of a record; ``own`` makes the page for the holder of its key."""
        facts = [(column.label, fact_of(column, record, names, own)) for column in _FACTS]
        units, calls = self._units(record), self._calls(record)
        return page("request", id=record.id, facts=listed(facts), units=units, calls=calls)

    def _units(self, record: Record) -> Html:
        """A table of what was reserved and charged, one row for each kind of units."""
        parts = [column for column in COLUMNS if column.name in MAPS]
        kinds = sorted({kind for column in parts for kind in getattr(record, column.name)})
        rows = [
            (noun(kind), *(amount(kind, getattr(record, column.name).get(kind, 0)) for column in parts))
            for kind in kinds
        ]
        heads = [column.label for column in parts]
        return table(("kind", *heads), rows, "Nothing was reserved or charged.", heads)

    def _calls(self, record: Record) -> Html:
        """A table of the attempts; what each was charged is shown in the pages' main kind of units."""

        def cell(call: AttemptRecord, column: Column) -> object:
            value = getattr(call, column.name)
            return amount(self.kind, value.get(self.kind, 0)) if column.is_json else value_of(column, value)

        rows = [[cell(call, column) for column in _ATTEMPT] for call in record.calls]
        heads = [noun(self.kind) if column.is_json else column.label for column in _ATTEMPT]
        numbers = [head for head, column in zip(heads, _ATTEMPT, strict=True) if column.kind != "text"]
        return table(heads, rows, "No upstream was called.", numbers)


def _field(at: str) -> str:
    """A filter of time for a field of a form; "" if it is none."""
    return field(int(at)) if at.isascii() and at.isdigit() and len(at) < 15 else ""
