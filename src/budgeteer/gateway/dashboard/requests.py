"""The pages of requests: the list, also as a CSV file, and one request."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from budgeteer.core.amounts import noun
from budgeteer.gateway.admin import csv_file
from budgeteer.gateway.dashboard.amounts import amount
from budgeteer.gateway.dashboard.common import (
    Shared,
    asked,
    fact_of,
    listed,
    value_of,
)
from budgeteer.gateway.dashboard.html import Html, link, options, page, table
from budgeteer.gateway.queries import FILTERS
from budgeteer.gateway.record import COLUMNS, MAPS, AttemptRecord, Column, Record, columns
from budgeteer.metering.outcome import Outcome

_ROWS = 100
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
        listed_page, names = await asyncio.gather(self.queries.requests(asked(**query), limit=_ROWS), self.names())
        older = Html("")
        if len(listed_page.requests) == _ROWS:
            older = link("older", "/requests", **{**query, "before": listed_page.next})
        keys = [("", "any"), *((name, said) for name, said in names.items())]
        outcomes = [("", "any"), *((outcome, outcome) for outcome in _ENDS)]
        body = page(
            "requests",
            rows=self.records(listed_page.requests, names, "No such request."),
            older=older,
            csv=link("CSV", "/requests.csv", **{**query, "before": ""}),
            keys=options(keys, query["key"]),
            outcomes=options(outcomes, query["outcome"]),
            **{name: query[name] for name in ("model", "stage", "path", "since")},
        )
        return self.framed(token, "Requests", body, "/requests")

    async def csv(self, request: Request, token: str) -> Response:
        """The requests that the filters select, as a CSV file."""
        query = {name: request.query_params.get(name, "") for name in FILTERS}
        return csv_file(await self.queries.table(asked(**query)))

    async def request(self, request: Request, token: str) -> Response:
        """One request with all fields of its record."""
        record, names = await asyncio.gather(self.queries.request(request.path_params["id"]), self.names())
        facts = [(column.label, fact_of(column, record, names)) for column in _FACTS]
        units, calls = self._units(record), self._calls(record)
        body = page("request", id=record.id, facts=listed(facts), units=units, calls=calls)
        return self.framed(token, "Request", body, "/requests")

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
