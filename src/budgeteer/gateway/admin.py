"""The admin API: the queries of :mod:`budgeteer.gateway.queries` as JSON over HTTP. docs/gateway.md lists it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from budgeteer.core.errors import InvalidInput
from budgeteer.gateway import keys
from budgeteer.gateway.access import Access
from budgeteer.gateway.body import read_body, too_slow
from budgeteer.gateway.config import Server
from budgeteer.gateway.filters import number
from budgeteer.gateway.queries import LARGEST, PAGE, Queries
from budgeteer.gateway.rules import check


def routes(queries: Queries, server: Server, access: Access) -> list[BaseRoute]:
    """The routes of one gateway's admin API.

    Args:
        queries: the gateway's queries.
        server: the settings that limit the size of a body and the time to receive it.
        access: tells who asks.
    """
    table: list[tuple[str, str, Callable[[_Api, Request], Awaitable[Response]]]] = [
        ("GET", "keys", _Api.list_keys),
        ("POST", "keys", _Api.make_key),
        ("GET", "keys/{id}", _Api.show_key),
        ("PATCH", "keys/{id}", _Api.change_key),
        ("POST", "keys/{id}/revoke", _Api.revoke_key),
        ("POST", "keys/{id}/top-up", _Api.top_up_key),
        ("POST", "keys/{id}/rotate", _Api.rotate_key),
        ("GET", "balances", _Api.balances),
        ("GET", "spend", _Api.spend),
        ("GET", "requests", _Api.requests),
        ("GET", "requests.csv", _Api.requests_csv),
        ("GET", "requests/{id}", _Api.request),
        ("GET", "live", _Api.live),
        ("GET", "summary", _Api.summary),
        ("GET", "changes", _Api.changes),
        ("GET", "upstreams", _Api.upstreams),
    ]

    def guarded(
        method: str, path: str, answer: Callable[[_Api, Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            admin = access.bearer(request)
            check(admin, method, path)
            return await answer(_Api(queries.of(admin), server), request)

        return endpoint

    whole = [(method, f"/admin/api/{path}", answer) for method, path, answer in table]
    return [Route(path, guarded(method, path, answer), methods=[method]) for method, path, answer in whole]


@dataclass(frozen=True, slots=True)
class _Api:
    queries: Queries
    server: Server

    async def _body(self, request: Request) -> dict[str, Any]:
        seconds = self.server.receive_seconds
        try:
            async with asyncio.timeout(seconds):
                raw = await read_body(dict(request.scope["headers"]), request.receive, self.server.body_bytes)
        except TimeoutError:
            raise too_slow(seconds) from None
        try:
            body = orjson.loads(raw)  # not json: it takes halves of surrogate pairs, and any depth
        except ValueError as error:
            raise InvalidInput(f"the body is not JSON: {error}") from None
        if not isinstance(body, dict):
            raise InvalidInput("the body is not a JSON object")
        return body

    # keys

    async def list_keys(self, request: Request) -> Response:
        return JSONResponse({"keys": [keys.public(key) for key in await self.queries.keys()]})

    async def make_key(self, request: Request) -> Response:
        key, token = await self.queries.make_key(await self._body(request))
        return JSONResponse({"key": keys.public(key), "secret": token}, 201)

    async def show_key(self, request: Request) -> Response:
        key = await self.queries.key(request.path_params["id"])
        return JSONResponse({"key": keys.public(key), "balances": await self.queries.balances(key.scope)})

    async def change_key(self, request: Request) -> Response:
        about = await self._body(request)
        return _shown(await self.queries.change_key(request.path_params["id"], about))

    async def revoke_key(self, request: Request) -> Response:
        return _shown(await self.queries.revoke_key(request.path_params["id"]))

    async def top_up_key(self, request: Request) -> Response:
        amount = (await self._body(request)).get("amount")
        return _shown(await self.queries.top_up_key(request.path_params["id"], amount))

    async def rotate_key(self, request: Request) -> Response:
        overlap = (await self._body(request)).get("overlap", "")
        key, token = await self.queries.rotate_key(request.path_params["id"], overlap)
        return JSONResponse({"key": keys.public(key), "secret": token})

    # money

    async def balances(self, request: Request) -> Response:
        return JSONResponse({"balances": await self.queries.balances(request.query_params.get("path", ""))})

    async def spend(self, request: Request) -> Response:
        asked = request.query_params
        by = [name for name in asked.get("by", "key").split(",") if name]
        kind, step = asked.get("kind", "all"), number(asked, "step", 3600, least=1)
        return JSONResponse({"by": by, "kind": kind, "rows": await self.queries.spend(by, kind, step, asked)})

    async def summary(self, request: Request) -> Response:
        return JSONResponse(await self.queries.summary(request.query_params))

    # requests

    async def requests(self, request: Request) -> Response:
        asked = request.query_params
        listed = await self.queries.requests(asked, number(asked, "limit", 100, least=1, most=PAGE))
        return JSONResponse({"requests": [record.as_json() for record in listed.requests], "next": listed.next})

    async def requests_csv(self, request: Request) -> Response:
        asked = request.query_params
        return csv_file(await self.queries.table(asked, number(asked, "limit", LARGEST, least=1, most=LARGEST)))

    async def request(self, request: Request) -> Response:
        record = await self.queries.request(request.path_params["id"])
        return JSONResponse({"request": record.as_json()})

    async def live(self, request: Request) -> Response:
        return JSONResponse({"live": [record.as_json() for record in self.queries.live()]})

    async def changes(self, request: Request) -> Response:
        asked = request.query_params
        changes, more = await self.queries.changes(asked, number(asked, "limit", 100, least=1, most=PAGE))
        return JSONResponse({"changes": [change.as_json() for change in changes], "next": more})

    async def upstreams(self, request: Request) -> Response:
        return JSONResponse({"upstreams": self.queries.upstreams()})


def csv_file(text: str) -> Response:
    """The response that has a browser save a CSV text as requests.csv."""
    named = {"content-disposition": 'attachment; filename="requests.csv"'}
    return Response(text, headers=named, media_type="text/csv")


def _shown(key: keys.Key) -> Response:
    return JSONResponse({"key": keys.public(key)})
