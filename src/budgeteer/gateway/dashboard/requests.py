"""The pages of requests: a list, as a file too, and each by itself."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from budgeteer.gateway.dashboard.amounts import amount, lasting, when
from budgeteer.gateway.dashboard.api import Trouble
from budgeteer.gateway.dashboard.common import (
    Shared,
    listed,
    named,
    outcome_of,
)
from budgeteer.gateway.dashboard.html import Html, link, options, page, table

_FILTERS = ("key", "model", "stage", "outcome", "status", "path", "refused")
_ROWS = 100


class Requests(Shared):
    """The pages of requests."""

    async def requests(self, request: Request, token: str) -> Response:
        """Requests, newest first."""
        asked = {name: request.query_params.get(name, "") for name in (*_FILTERS, "since", "until", "before")}
        found, names = await asyncio.gather(self.api.get("requests", limit=_ROWS, **asked), self.names())
        older = Html("")
        if len(found["requests"]) == _ROWS:
            older = link("older", "/requests", **{**asked, "before": found["next"]})
        keys = [("", "any"), *((name, said) for name, said in names.items())]
        outcomes = [("", "any"), *((one, one) for one in ("ok", "cut", "left", "failed", "refused", "cached"))]
        return self.framed(token, "Requests", page(
            "requests", rows=self.records(found["requests"], names, "No such request."), older=older,
            csv=link("CSV", "/requests.csv", **{**asked, "before": ""}), keys=options(keys, asked["key"]),
            outcomes=options(outcomes, asked["outcome"]),
            **{name: asked[name] for name in ("model", "stage", "path", "since")},
        ), "/requests")  # fmt: skip

    async def csv(self, request: Request, token: str) -> Response:
        """The same as a file."""
        asked: dict[str, object] = {name: request.query_params.get(name, "") for name in (*_FILTERS, "since", "until")}
        status, content = await self.api.raw("GET", "requests.csv", asked)
        if status != 200:
            raise Trouble(status, json.loads(content)["error"]["message"])
        as_file = {"content-disposition": 'attachment; filename="requests.csv"'}
        return Response(content, headers=as_file, media_type="text/csv")

    async def request(self, request: Request, token: str) -> Response:
        """All that is known of one request."""
        name = request.path_params["id"]
        found, names = await asyncio.gather(self.api.get(f"requests/{name}"), self.names())
        record = found["request"]
        heads = ("kind", "reserved", "charged", "overshoot", "saved")
        parts = ("reserved", "units", "overshoot", "saved")
        kinds = sorted({kind for part in parts for kind in record[part]})
        rows = [(named(kind), *(amount(kind, record[part].get(kind, 0)) for part in parts)) for kind in kinds]
        facts = [
            ("outcome", outcome_of(record)), ("reason", record["reason"]), ("refused by", record["scope"]),
            ("time (UTC)", when(record["at"])), ("took", lasting(record["ms"])),
            ("first bytes after", lasting(record["first_ms"])), ("key", link(
                names.get(record["key"], record["key"]), f"/keys/{quote(record['key'])}") if record["key"] else ""),
            ("account", record["path"]), ("user", record["user"]), ("session", record["session"]),
            ("tag", record["tag"]), ("stage", record["stage"]), ("operation", record["operation"]),
            ("model", record["model"]), ("answered by", record["answered"]), ("upstream", record["upstream"]),
            ("streamed", "yes" if record["stream"] else "no"), ("attempts", f"{record['attempts']:,}"),
            ("policies", record["policy"]), ("input tokens", f"{record['input']:,}"),
            ("of these cached", f"{record['cached']:,}"), ("output tokens", f"{record['output']:,}"),
            ("of these reasoning", f"{record['reasoning']:,}"), ("wasted tokens", f"{record['wasted']:,}"),
            ("charge", "estimated" if record["estimated"] else "as the provider counted"),
        ]  # fmt: skip
        calls = [
            (call["upstream"], call["outcome"], f"{call['input']:,}", f"{call['output']:,}",
             amount(self.kind, call["units"].get(self.kind, 0)), f"{call['wasted']:,}")
            for call in record["calls"]
        ]  # fmt: skip
        numbers = ("in", "out", named(self.kind), "wasted")
        body = page(
            "request", id=record["id"], facts=listed(facts),
            units=table(heads, rows, "Nothing was reserved or charged.", heads[1:]),
            calls=table(("upstream", "ended", *numbers), calls, "No upstream was called.", numbers),
        )  # fmt: skip
        return self.framed(token, "Request", body, "/requests")
