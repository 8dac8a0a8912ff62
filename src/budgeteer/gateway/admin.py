"""The admin API: keys, balances, spending, requests. docs/gateway.md lists it."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from budgeteer.core.errors import InvalidInput
from budgeteer.gateway import keys
from budgeteer.gateway.body import read_body, too_slow
from budgeteer.gateway.keyring import run
from budgeteer.gateway.refusal import Refused
from budgeteer.gateway.store import COLUMNS, JSON, MAPS
from budgeteer.ledger.protocol import wall_clock
from budgeteer.ledger.report import balances

if TYPE_CHECKING:
    from budgeteer.gateway.app import Gateway

BY = (
    "scope", "key", "user", "session", "tag", "model", "upstream", "stage", "operation", "outcome", "reason",
    "time",
)  # fmt: skip
_KINDS = ("input", "output", "cached", "reasoning", "wasted")
_LARGEST = 1_000_000
_PAGE = 1000


def routes(gateway: Gateway) -> list[BaseRoute]:
    """Of one gateway."""
    api = _Api(gateway)
    table: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
        ("GET", "keys", api.list_keys),
        ("POST", "keys", api.make_key),
        ("GET", "keys/{id}", api.show_key),
        ("PATCH", "keys/{id}", api.change_key),
        ("POST", "keys/{id}/revoke", api.revoke_key),
        ("POST", "keys/{id}/top-up", api.top_up_key),
        ("GET", "balances", api.balances),
        ("GET", "spend", api.spend),
        ("GET", "requests", api.requests),
        ("GET", "requests.csv", api.requests_csv),
        ("GET", "requests/{id}", api.request),
        ("GET", "live", api.live),
        ("GET", "summary", api.summary),
        ("GET", "upstreams", api.upstreams),
    ]

    def guarded(answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            gateway.authorise(request)
            return await answer(request)

        return endpoint

    return [Route(f"/admin/api/{path}", guarded(answer), methods=[method]) for method, path, answer in table]


class _Api:
    def __init__(self, gateway: Gateway) -> None:
        self.gateway, self.store = gateway, gateway.store
        self._few = asyncio.Semaphore(2)  # of the threads that keys are looked up in as well

    async def _select(self, sql: str, values: Iterable[Any]) -> list[dict[str, Any]]:
        async with self._few:
            return await run(self.store.select, sql, values)

    async def _body(self, request: Request) -> dict[str, Any]:
        server = self.gateway.config.server
        try:
            async with asyncio.timeout(server.receive_seconds):
                raw = await read_body(dict(request.scope["headers"]), request.receive, server.body_bytes)
        except TimeoutError:
            raise too_slow(server.receive_seconds) from None
        try:
            found = orjson.loads(raw)  # not json: it takes halves of surrogate pairs, and any depth
        except ValueError as error:
            raise InvalidInput(f"the body is not JSON: {error}") from None
        if not isinstance(found, dict):
            raise InvalidInput("the body is not a JSON object")
        return found

    # keys

    async def list_keys(self, request: Request) -> Response:
        found = [keys.public(keys.decode(text)) for text in await run(self.store.all_keys)]
        return JSONResponse({"keys": sorted(found, key=lambda key: key["created"])})

    async def make_key(self, request: Request) -> Response:
        config = self.gateway.config
        key, token = keys.make(await self._body(request), config.defaults, config.counted, wall_clock())
        await run(self.store.add_key, key.id, keys.encode(key))
        return JSONResponse({"key": keys.public(key), "secret": token}, 201)

    async def show_key(self, request: Request) -> Response:
        text = await run(self.store.get_key, request.path_params["id"])
        if text is None:
            raise Refused(404, "no_key", f"there is no key {request.path_params['id']!r}")
        key = keys.decode(text)
        return JSONResponse({"key": keys.public(key), "balances": await self._balances(key.scope)})

    async def change_key(self, request: Request) -> Response:
        about = await self._body(request)
        return await self._changed(request, lambda key: keys.changed(key, about, self.gateway.config.counted))

    async def revoke_key(self, request: Request) -> Response:
        return await self._changed(request, lambda key: keys.changed(key, {"revoked": True}, ()))

    async def top_up_key(self, request: Request) -> Response:
        amount = (await self._body(request)).get("amount")
        if not isinstance(amount, str):
            raise InvalidInput(f"amount is {amount!r}; give a text such as '$5' or '500k'")
        return await self._changed(request, lambda key: keys.topped_up(key, amount))

    async def _changed(self, request: Request, change: Callable[[keys.Key], keys.Key]) -> Response:
        name = request.path_params["id"]
        if await run(self.store.get_key, name) is None:
            raise Refused(404, "no_key", f"there is no key {name!r}")
        text = await run(self.store.change_key, name, lambda text: keys.encode(change(keys.decode(text))))
        self.gateway.keys.forget(name)
        key = keys.decode(text)
        chain = self.gateway.proxy.accounts
        if not (key.per_user or key.per_session or key.per_tag):
            await chain.open(chain.chain(key))  # so that balances show the new limits before the next request
        return JSONResponse({"key": keys.public(key)})

    # money

    async def _balances(self, path: str) -> list[dict[str, Any]]:
        _, state = await run(self.gateway.ledger.snapshot)
        if path and path not in state.accounts:
            return []
        return list(balances(state, path, wall_clock()))

    async def balances(self, request: Request) -> Response:
        return JSONResponse({"balances": await self._balances(request.query_params.get("path", ""))})

    async def spend(self, request: Request) -> Response:
        by = [name for name in request.query_params.get("by", "key").split(",") if name]
        kind, step = request.query_params.get("kind", "all"), _number(request, "step", 3600, least=1)
        if not by or not set(by) <= set(BY):
            raise InvalidInput(f"by={','.join(by)}; choose of {', '.join(BY)}")
        columns = {"scope": "path", "time": f"at / {step * 1000} * {step * 1000}"}
        names = ", ".join(f'{columns.get(name, name)} AS "{name}"' for name in by)
        values: list[Any] = []
        if kind in _KINDS:
            units = kind
        elif kind in self.gateway.config.counted:
            units = "COALESCE(json_extract(units, ?), 0)"
            values.append(f'$."{kind}"')
        else:
            raise InvalidInput(f"kind={kind}; choose of {', '.join((*_KINDS, *self.gateway.config.counted))}")
        where, more = _where(request)
        order = '"time"' if "time" in by else "units DESC"
        sql = (
            f"SELECT {names}, SUM({units}) AS units, COUNT(*) AS requests, SUM(outcome = 'refused') AS refused, "
            f"SUM(estimated) AS estimated, SUM(wasted) AS wasted FROM records{where} "
            f"GROUP BY {', '.join(str(n + 1) for n in range(len(by)))} ORDER BY {order}"
        )
        rows = await self._select(sql, [*values, *more])
        return JSONResponse({"by": by, "kind": kind, "rows": rows})

    async def summary(self, request: Request) -> Response:
        where, values = _where(request)
        sums = ("input", "output", "cached", "reasoning", "wasted", "estimated")
        sql = (
            "SELECT COUNT(*) AS requests, COALESCE(SUM(outcome = 'refused'), 0) AS refused, "
            "COALESCE(SUM(outcome IN ('failed', 'cut')), 0) AS failed, "
            "COALESCE(SUM(json_extract(units, '$.money')), 0) AS money, "
            f"{', '.join(f'COALESCE(SUM({name}), 0) AS {name}' for name in sums)} FROM records{where}"
        )
        (found,) = await self._select(sql, values)
        totals = {}
        for name in ("overshoot", "saved"):
            some = f"SELECT {name} AS units FROM records{where}{' AND' if where else ' WHERE'} {name} != '{{}}'"
            sql = f"SELECT k.key, SUM(k.value) AS units FROM ({some}) AS r, json_each(r.units) AS k GROUP BY k.key"
            totals[name] = {row["key"]: row["units"] for row in await self._select(sql, values)}
        proxy = self.gateway.proxy
        upstreams = [one.status() for one in proxy.upstreams.backends]
        more = {**totals, "live": len(proxy.live), "upstreams": upstreams}
        counted = {"turned_away": dict(self.gateway.metrics.away), "records_dropped": self.gateway.records.dropped}
        return JSONResponse({**found, **more, **counted})

    # requests

    async def requests(self, request: Request) -> Response:
        rows = await self._rows(request, _number(request, "limit", 100, least=1, most=_PAGE))
        numbers = [row.pop("n") for row in rows]
        return JSONResponse({"requests": rows, "next": numbers[-1] if numbers else None})

    async def _rows(self, request: Request, most: int) -> list[dict[str, Any]]:
        where, values = _where(request)
        sql = f"SELECT n, {', '.join(COLUMNS)} FROM records{where} ORDER BY n DESC LIMIT {most}"
        return [_read(row) for row in await self._select(sql, values)]

    async def requests_csv(self, request: Request) -> Response:
        out = io.StringIO()
        kinds = self.gateway.config.counted
        plain = [name for name in COLUMNS if name not in JSON]
        table = csv.writer(out, lineterminator="\n")
        table.writerow([*plain, *(f"{name}_{kind}" for name in MAPS for kind in kinds)])
        for row in await self._rows(request, _number(request, "limit", _LARGEST, least=1, most=_LARGEST)):
            maps = [row[name].get(kind, 0) for name in MAPS for kind in kinds]
            table.writerow([*(_cell(row[name]) for name in plain), *maps])
        named = {"content-disposition": 'attachment; filename="requests.csv"'}
        return Response(out.getvalue(), headers=named, media_type="text/csv")

    async def request(self, request: Request) -> Response:
        name = request.path_params["id"]
        rows = await self._select(f"SELECT {', '.join(COLUMNS)} FROM records WHERE id = ?", (name,))
        live = self.gateway.proxy.live.get(name)
        if not rows and live is None:
            raise Refused(404, "no_request", f"there is no record of {name!r}; old ones are dropped")
        return JSONResponse({"request": _read(rows[0]) if rows else live.record() if live else None})

    async def live(self, request: Request) -> Response:
        now = wall_clock()
        return JSONResponse(
            {"live": [{**one.record(), "ms": now - one.at} for one in self.gateway.proxy.live.values()]}
        )

    async def upstreams(self, request: Request) -> Response:
        return JSONResponse({"upstreams": [one.status() for one in self.gateway.proxy.upstreams.backends]})


def _read(row: dict[str, Any]) -> dict[str, Any]:
    return {name: json.loads(value) if name in JSON else value for name, value in row.items()}


def _cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _where(request: Request) -> tuple[str, list[Any]]:
    """The conditions of a query."""
    asked = request.query_params
    found: list[str] = []
    values: list[Any] = []
    for name in ("key", "model", "outcome", "stage", "user", "session", "tag", "upstream", "operation"):
        if name in asked:
            found.append(f'"{name}" = ?')
            values.append(asked[name])
    for name, condition in (("since", "at >= ?"), ("until", "at < ?"), ("before", "n < ?"), ("status", "status = ?")):
        if name in asked:
            found.append(condition)
            values.append(_number(request, name, 0))
    if asked.get("path"):
        found.append("(path = ? OR substr(path, 1, ?) = ?)")
        values.extend([asked["path"], len(asked["path"]) + 1, asked["path"] + "/"])
    if asked.get("refused") == "1":
        found.append("outcome = 'refused'")
    return (" WHERE " + " AND ".join(found) if found else ""), values


def _number(request: Request, name: str, default: int, least: int = 0, most: int = 10**15) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or not least <= int(text) <= most:
        raise InvalidInput(f"{name}={text}; give a whole number from {least:,} to {most:,}")
    return int(text)
