"""The ASGI application: it hands the routes that spend to the proxy directly, and everything else to Starlette."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

from budgeteer.core import registry
from budgeteer.core.amounts import MONEY, OF, base
from budgeteer.core.errors import BudgeteerError, InvalidInput, LedgerUnavailable, MissingExtra, UnknownName
from budgeteer.gateway.access import Access
from budgeteer.gateway.alerts.watch import Alerts
from budgeteer.gateway.answers import Answers
from budgeteer.gateway.asgi import Receive, Scope, Send, label, reply, show_key, token
from budgeteer.gateway.config import Config, names_of
from budgeteer.gateway.holder import LABELS, Holder
from budgeteer.gateway.keyring import KeyRing, run
from budgeteer.gateway.learnt import RESERVES
from budgeteer.gateway.live import Live
from budgeteer.gateway.metrics import CONTENT_TYPE, Metrics
from budgeteer.gateway.policies.options import policy_from
from budgeteer.gateway.policies.protocol import Policy
from budgeteer.gateway.proxy import Proxy
from budgeteer.gateway.record import Record
from budgeteer.gateway.records import Records
from budgeteer.gateway.refusal import Refused
from budgeteer.gateway.routes import ROUTES, why_not
from budgeteer.gateway.rules import check
from budgeteer.gateway.store import Store
from budgeteer.gateway.stored import pass_on, route_of
from budgeteer.gateway.stores import connect
from budgeteer.gateway.toml import Table
from budgeteer.gateway.translate.caller import about
from budgeteer.ledger import Ledger, address, core
from budgeteer.ledger.protocol import wall_clock
from budgeteer.metering.call import Metering
from budgeteer.metering.outcome import Outcome
from budgeteer.prices import PriceTable, first_of

try:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.routing import BaseRoute, Route
except ImportError as error:
    raise MissingExtra("starlette", "gateway") from error

_LOG = logging.getLogger(__name__)
_LEARNT = "learnt"
"""The note of the store that holds what was learnt of answers."""
_NONE: Mapping[str, tuple[Table, Policy]] = {}
BEAT = 5.0
"""Seconds between two heartbeats of a replica."""
DEAD = 30_000
"""Milliseconds without a heartbeat after which another replica charges what this one had reserved."""
_POSTS = {f"/v1/{route}" for route in ROUTES}


def prices_of(config: Config) -> PriceTable | None:
    """The price tables of a configuration, as one: the first that knows a model decides; None without money."""
    if MONEY not in config.kinds:
        return None
    from budgeteer.prices import genai, user

    tables = [user.load(path) for path in config.price_files]
    if config.shipped_prices:
        tables.append(genai.load())
    return first_of(*tables)


def policies_of(config: Config, before: Mapping[str, tuple[Table, Policy]] = _NONE) -> dict[str, Policy]:
    """Build the policies of a configuration from their TOML tables: name -> policy, in the order of the file.

    Args:
        config: the configuration.
        before: name -> table and policy of the configuration in use; those with the same table are taken over.

    Raises:
        InvalidInput: naming the field, its line and what is wrong with it.
    """
    made = {}
    for name, table in config.policies.items():
        if name in before and before[name][0].data == table.data:
            made[name] = before[name][1]
            _check_choices(made[name], config, table)
            continue
        try:
            method = registry.get("policy", name)
        except UnknownName:
            table.fail(None, f"is not a policy; known: {', '.join(registry.of('policy'))}")
        policy = policy_from(registry.load(method), table)
        if not (callable(getattr(policy, "before", None)) and callable(getattr(policy, "after", None))):
            table.fail(None, f"cannot be used: {method.path} makes a {type(policy).__name__}; return a Policy")
        made[name] = policy
        _check_choices(policy, config, table)
    return made


def _check_choices(policy: Policy, config: Config, table: Table) -> None:
    """Refuse a policy that chooses among models (``choices``) of which fewer than two are served."""
    choices = getattr(policy, "choices", None)
    if choices is None:
        return
    names = set(names_of(config.upstreams).values())
    served = [name for name in choices if name in names]
    if len(served) < 2:
        table.fail(
            None,
            f"chooses among {', '.join(choices)}, of which the upstreams serve {', '.join(served) or 'none'}: there is "
            f"nothing to choose; served: {', '.join(sorted(names))}",
        )


class Gateway:
    """A gateway: an ASGI application.

    Args:
        config: the gateway's configuration.
        ledger, store: the ledger and the store to use; None opens those that the configuration names.

    Attributes:
        background: further tasks, started with the gateway and cancelled at its end.
    """

    def __init__(self, config: Config, ledger: Ledger | None = None, store: Store | None = None) -> None:
        self.config = config
        policies = policies_of(config)  # before a ledger is created: an error in the file leaves nothing behind
        self.ledger = address.connect(config.ledger) if ledger is None else ledger
        self.store = connect(config.ledger, config.keep) if store is None else store
        self.keys, self.answers = KeyRing(self.store), Answers(self.store)
        on_settle = incoming = None
        if config.otel:
            from budgeteer.adapters.otel import Incoming, recorder

            on_settle, incoming = recorder(), Incoming()
        estimator = RESERVES if config.learnt else None
        metering = Metering(None, config.kinds, prices_of(config), estimator=estimator, on_settle=on_settle)
        self.metrics = Metrics(lambda: len(self.proxy.live), lambda name: name in self.proxy.upstreams.names)
        self.records = Records(self.store, self.metrics, config.log)
        self.alerts = Alerts(config.alerts, self.ledger, self.store, self.metrics.alert)
        self.proxy = Proxy(
            config,
            self.ledger,
            self.keys,
            self.answers,
            metering,
            self._take,
            self.metrics.turned_away,
            policies,
            incoming,
            self.alerts.refused,
        )
        self._others = self._application()
        self.background: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self._tasks: list[asyncio.Task[None]] = []

    def _take(self, record: Record, said: dict[str, Any] | None = None) -> None:
        """Pass on the record of a request that has ended and is booked."""
        self.records.take(record, said)
        if record.units:
            self.alerts.spent(record.path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope: an HTTP request, or the lifespan of the application."""
        if scope["type"] == "http":
            if scope["path"] in _POSTS and scope["method"] == "POST":
                await self.proxy(scope, receive, send)
            elif scope["path"].startswith("/v1/"):
                await self._free(scope, send)
            else:
                await self._others(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)

    # what costs nothing

    async def _free(self, scope: Scope, send: Send) -> None:
        headers = dict(scope["headers"])
        dialect = "anthropic" if b"anthropic-version" in headers else "openai"
        try:
            key = await self.keys.find(token(headers), wall_clock())
            show_key(scope)
            path, names = scope["path"], self.proxy.upstreams.names
            asked = route_of(scope["method"], path, scope.get("query_string", b""))
            if asked is not None:
                status, content = await pass_on(asked, key, self.answers, self.proxy.upstreams)
                return await reply(send, status, content, [(b"content-type", b"application/json")])
            models = [_model(name) for name in names if key.allows(name) or key.allows(names[name])]
            if scope["method"] == "GET" and path == "/v1/models":
                answer: Any = {"object": "list", "data": models, "has_more": False}
            elif scope["method"] == "GET" and path.startswith("/v1/models/"):
                answer = next((model for model in models if model["id"] == path[11:]), None)
                if answer is None:
                    raise Refused(404, "model_not_found", f"there is no model {path[11:]!r} for this key")
            elif scope["method"] == "GET" and path == "/v1/budget":
                labels = {name: label(headers, f"x-budgeteer-{name}".encode()) for name in LABELS}
                answer = await self._holder.budget(key, labels)
            elif path in _POSTS or path == "/v1/budget":
                takes = "POST" if path in _POSTS else "GET"
                raise Refused(405, "method_not_allowed", f"{path} takes {takes}")
            else:
                raise Refused(404, "not_metered", f"{path} is not served: {why_not(path[4:])}")
            body = JSONResponse(answer).body
            await reply(send, 200, bytes(body), [(b"content-type", b"application/json")])
        except BudgeteerError as error:
            refused = error if isinstance(error, Refused) else _unavailable(error)
            if refused.status in (401, 503):
                self.metrics.turned_away(refused.code)
            more = [(b"content-type", b"application/json"), *refused.headers]
            await reply(send, refused.status, refused.body(dialect), more)

    async def renew(self, config: Config) -> None:
        """Serve what comes from now on by another configuration; running requests finish by theirs.

        Args:
            config: with the ledger, kinds and address of the one in use.

        Raises:
            BudgeteerError: prices or policies are not usable; nothing is changed then.
        """
        for driver in {upstream.driver for upstream in config.upstreams if upstream.driver is not None}:
            await run(about, driver)  # imported here, since that takes seconds
        before = {name: (self.config.policies[name], policy) for name, policy in self.proxy.policies}
        policies = await run(policies_of, config, before)
        metering = self.proxy.metering.repriced(await run(prices_of, config))
        self.config, self.proxy = config, self.proxy.renewed(config, metering, policies)
        self.records.log = config.log
        self.alerts.renew(config.alerts)
        self._others = self._application()

    def _application(self) -> Starlette:
        return Starlette(routes=self._routes(), exception_handlers={BudgeteerError: _failed})

    def _routes(self) -> Sequence[BaseRoute]:
        from budgeteer.gateway import admin, dashboard
        from budgeteer.gateway.queries import Queries

        open_routes = [
            Route("/healthz", self._health),
            Route("/metrics", self._metrics),
            Route("/openapi.json", self._openapi),
        ]
        queries = Queries(self.config, self.ledger, self.store, self.keys, self.proxy, self.metrics, self.records)
        self._holder = Holder(queries)
        self._access = Access(self.config.admins, self.metrics.turned_away)
        return [
            *open_routes,
            *admin.routes(queries, self.config.server, self._access),
            *dashboard.routes(queries, self.config, self.keys, self._access),
        ]

    async def _health(self, request: Request) -> Response:
        """Whether this process serves; 503 while the store does not answer."""
        await run(self.store.get_key, "")
        return PlainTextResponse("ok\n")

    async def _metrics(self, request: Request) -> Response:
        if not self.config.server.open_metrics:
            check(self._access.bearer(request), "GET", "/metrics")
        return Response(self.metrics.text(), media_type=CONTENT_TYPE)

    async def _openapi(self, request: Request) -> Response:
        from budgeteer.gateway.openapi import document

        return JSONResponse(document())

    # start and stop

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.start()
        except BudgeteerError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def start(self) -> None:
        """Charge what dead replicas had reserved, go on from what was learnt, and start the background tasks."""
        await self._recall()
        await self._beat()
        loops = [self.proxy.tick(), self.records.keep_flushing(), self._keep_beating(), self.alerts.keep_watching()]
        loops += [task() for task in self.background]
        self._tasks = [asyncio.ensure_future(loop) for loop in loops]

    async def stop(self) -> None:
        """Book open settlements, write waiting records, and close all connections; waits 10 seconds at most."""
        await self.proxy.drained(10)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.records.flush()
        await self.alerts.stop(10)
        with contextlib.suppress(LedgerUnavailable):
            await self._keep_learnt()
        with contextlib.suppress(LedgerUnavailable):
            if not self.proxy.live:
                await run(self.store.beat, self.proxy.instance, None)
        await self.proxy.upstreams.close()
        self.store.close()
        self.ledger.close()

    async def _keep_beating(self) -> None:
        while True:
            await asyncio.sleep(BEAT)
            try:
                await self._beat()
                await self._keep_learnt()
            except BudgeteerError as error:
                _LOG.error("%s", error)

    async def _recall(self) -> None:
        """Go on from what this gateway or another replica has learnt of answers."""
        text = await run(self.store.note, _LEARNT)
        if text is not None:
            try:
                self.proxy.booking.learnt.read(text)
            except InvalidInput as error:
                _LOG.error("%s; it is learnt again from the beginning", error)

    async def _keep_learnt(self) -> None:
        """Add what was learnt of answers to what all replicas have stored, and take over what the others learnt."""
        learnt = self.proxy.booking.learnt
        if learnt.changed:
            await run(learnt.share, partial(self.store.change_note, _LEARNT))

    async def _beat(self) -> None:
        """Send this replica's heartbeat, and charge what replicas without one had reserved."""
        now = wall_clock()
        seen = await run(self.store.beat, self.proxy.instance, now)
        for name, at in seen.items():
            if at < now - DEAD and name != self.proxy.instance:
                await self._charge_dead(name)

    async def _charge_dead(self, name: str) -> None:
        """Charge in full what a replica had reserved when it died, since it may all have been used."""
        _, state = await run(self.ledger.snapshot)
        held = [entry for entry in state.reservations.values() if entry[0].startswith(f"{name}-")]
        for entry in held:
            settled = core.Reservation(*await self.ledger.submit(_full(entry)))
            live = Live(entry[0], "unknown")
            live.path, live.key = entry[1], entry[1].rpartition("/")[2]
            live.at, live.outcome, live.reason = entry[8], Outcome.FAILED, "the replica was killed"
            live.units = {kind: units for kind, units in settled.actual if OF not in kind}
            live.reserved = {kind: units for kind, units in entry[2] if OF not in kind}
            live.estimated = True
            self._take(live.record())
        await run(self.store.beat, name, None)
        _LOG.warning("replica %s is dead; %d calls that it had open are charged in full", name, len(held))


def _full(entry: core.Entry) -> tuple[Any, ...]:
    """The command that charges a reservation in full; its place among parallel requests is given back."""
    from budgeteer.gateway.config import PARALLEL
    from budgeteer.ledger.protocol import settle_command

    amounts = {kind: 0 if base(kind) == PARALLEL else units for kind, units in entry[2]}
    return settle_command(entry[0], amounts, {"outcome": Outcome.UNKNOWN, "estimated": "yes"})


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "type": "model", "display_name": name, "created": 0, "owned_by": "budgeteer"}


def _unavailable(error: BudgeteerError) -> Refused:
    _LOG.error("%s", error)
    return Refused(503, "ledger_unavailable", "the gateway's store does not answer just now; try again", 1)


async def _failed(request: Request, error: Exception) -> Response:
    """An error of the admin API."""
    if not isinstance(error, Refused):
        late = isinstance(error, LedgerUnavailable)
        error = _unavailable(error) if late else Refused(400, "invalid_request", str(error))  # type: ignore[arg-type]
    headers = {name.decode(): value.decode() for name, value in error.headers}
    return Response(error.body("openai"), error.status, headers, "application/json")
