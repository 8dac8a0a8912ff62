"""One request from the door to its record: key, body, policies, attempts, and what is said if there is no answer."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from budgeteer.core.errors import BudgetExceeded, InvalidInput, LedgerError, LedgerUnavailable, UnknownPrice
from budgeteer.gateway.accounts import Accounts
from budgeteer.gateway.asgi import Receive, Scope, Send, reply, show_key, token
from budgeteer.gateway.ask import ROUTES, Ask
from budgeteer.gateway.attempt import Attempt
from budgeteer.gateway.body import LARGE, Aside, Room, read_body, too_slow
from budgeteer.gateway.booking import Booking
from budgeteer.gateway.config import Config, Model
from budgeteer.gateway.keyring import KeyRing
from budgeteer.gateway.keys import Key
from budgeteer.gateway.live import Live
from budgeteer.gateway.policies.protocol import Policy
from budgeteer.gateway.record import Record
from budgeteer.gateway.refusal import Refused, of_budget, shown
from budgeteer.gateway.upstream import Backend, Upstreams
from budgeteer.ledger import Ledger
from budgeteer.ledger.protocol import wall_clock
from budgeteer.metering.call import Metering
from budgeteer.metering.outcome import Outcome
from budgeteer.metering.settlement import Answer

if TYPE_CHECKING:
    from budgeteer.adapters.otel import Incoming

_LOG = logging.getLogger(__name__)
_TICK = 0.1
"""Seconds between looks for what has waited too long."""
_PASSED_UP = (b"anthropic-version", b"anthropic-beta", b"openai-beta", b"traceparent", b"user-agent")
_ASKED = ("system", "instructions", "messages", "input", "prompt")
"""Fields of bodies that hold what is asked."""


class Proxy:
    """The routes that spend.

    Args:
        config: of the gateway.
        ledger: that holds.
        keys: of its clients.
        metering: without an allowance.
        record: takes the record of every request that showed a valid key when it is over and booked, and what was said
            if the log is to have it.
        turned_away: takes the reason for which a request without one was refused.
        policies: asked in order before a call, told after it.
        incoming: whose spans are the parents of ours; None: no spans.
    """

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        keys: KeyRing,
        metering: Metering,
        record: Callable[[Record, dict[str, Any] | None], None],
        turned_away: Callable[[str], None],
        policies: Mapping[str, Policy],
        incoming: Incoming | None = None,
    ) -> None:
        self.config, self.keys, self.metering = config, keys, metering
        self.accounts = Accounts(ledger, config.scopes, config.counted)
        self.upstreams = Upstreams(config.upstreams)
        self.policies = list(policies.items())
        self.live: dict[str, Live] = {}
        self.instance = f"gw{os.urandom(8).hex()}"
        self._record, self._turned_away, self._incoming = record, turned_away, incoming
        self.room = Room(config.server.body_bytes)
        self._aside = Aside()
        self.booking = Booking(config, ledger, self.accounts, metering, self._aside, self._over)
        self._number = itertools.count().__next__

    # the whole of a request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a POST to one of ROUTES."""
        if self._incoming is None:
            await self._answer(scope, receive, send)
        else:
            with self._incoming.within(dict(scope["headers"])):
                await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = scope["path"][4:]
        operation, dialect = ROUTES[route]
        live = Live(f"{self.instance}-{self._number()}", operation)
        try:
            headers = dict(scope["headers"])
            key = await self.keys.find(token(headers), live.at)
            show_key(scope)
            live.key, live.path = key.id, key.scope
            self.live[live.id] = live
            await self._serve(route, live, key, headers, receive, send)
        except Refused as refused:
            await self._refuse(live, refused, dialect, send)
        except BudgetExceeded as error:
            live.scope = error.scope
            await self._refuse(live, of_budget(error, wall_clock()), dialect, send)
        except UnknownPrice as error:
            text = f"there is no price of {error.model} here, so that nothing bounds what this would cost"
            _LOG.error("%s; budgeteer serve --check says how to add one", error.problem)
            await self._refuse(live, Refused(400, "no_price", text), dialect, send)
        except LedgerUnavailable as error:
            _LOG.error("%s", error)
            text = "budgets cannot be checked just now, so nothing is sent; try again"
            await self._refuse(live, Refused(503, "ledger_unavailable", text, 1), dialect, send)
        except LedgerError as error:
            _LOG.error("%s", error)
            await self._refuse(
                live, Refused(503, "ledger_error", "the budgets of this key are in disorder"), dialect, send
            )
        except InvalidInput as error:
            await self._refuse(live, Refused(400, "invalid_request", str(error)), dialect, send)
        finally:
            self._close(live)

    async def _serve(
        self, route: str, live: Live, key: Key, headers: dict[bytes, bytes], receive: Receive, send: Send
    ) -> None:
        ask = await self._asked(route, live, key, headers, receive)
        live.stream, live.model = ask.stream, self.upstreams.names.get(ask.model, ask.model[:200])
        live.user = ask.user = _label(headers, b"x-budgeteer-user") or _user(ask.body)
        live.session = ask.session = _label(headers, b"x-budgeteer-session")
        live.tag, live.stage = _label(headers, b"x-budgeteer-tag"), _label(headers, b"x-budgeteer-stage")
        if self.config.prompts:
            live.said = {"asked": {name: ask.body[name] for name in _ASKED if name in ask.body}}
        ask.largest = max(model.bounds.max_output or 0 for model in self.models(ask))
        ask.chain = self.accounts.chain(key, live.user, live.session, live.tag)
        live.path = ask.chain[-1][0]
        if not self.accounts.known(ask.chain):
            await self.accounts.open(ask.chain)
        told = 0
        try:
            for name, policy in self.policies:
                told += 1
                content = await policy.before(ask, self)
                if content is not None:
                    live.outcome, live.status, live.policy, live.saved = Outcome.CACHED, 200, name, ask.saved
                    live.log_answer(content)
                    shape = (b"content-type", b"application/json")
                    return await reply(send, 200, content, [shape, *live.headers()])
            await self._call(ask, live, headers, receive, send)
        finally:
            for name, policy in self.policies[:told]:
                try:
                    policy.after(ask, ask.answer, live)
                except Exception:  # the answer is given, and the others have to be told as well
                    _LOG.exception("policy %s failed after request %s", name, live.id)

    async def _call(self, ask: Ask, live: Live, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        """Call upstreams, and watch for the client to leave meanwhile."""
        live.model = self.upstreams.names[ask.model]
        up = {name.decode(): headers[name].decode("latin-1") for name in _PASSED_UP if name in headers}
        watch = asyncio.ensure_future(receive())
        watch.add_done_callback(lambda _: self._left(live, ask))
        try:
            await self._attempts(ask, live, up, send)
        finally:
            watch.cancel()

    async def _asked(self, route: str, live: Live, key: Key, headers: dict[bytes, bytes], receive: Receive) -> Ask:
        """The body, whole and parsed: nothing is reserved for it yet, so its memory and the work on it are limited."""
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            self.room.take(key.id, size)
            taken += size

        try:
            raw = await self._body(live, headers, receive, take)
            return await self._aside.do(len(raw), self._read, route, raw, key)
        finally:
            self.room.give(key.id, taken)

    def _read(self, route: str, raw: bytes, key: Key) -> Ask:
        """Every step over the whole of a body that can be made before its account is known."""
        ask = Ask(route, raw, key, self.config.server.body_parts)
        if self.policies and len(raw) >= LARGE:
            _ = ask.fingerprint  # which policies ask for
        return ask

    async def _body(
        self, live: Live, headers: dict[bytes, bytes], receive: Receive, take: Callable[[int], None]
    ) -> bytes:
        """The whole body, within one deadline that ``tick`` watches, so that a body that is there costs no timer."""
        server = self.config.server
        live.deadline = time.monotonic() + server.receive_seconds
        try:
            async with asyncio.timeout(None) as live.guard:
                return await read_body(headers, receive, server.body_bytes, take)
        except TimeoutError:
            raise too_slow(server.receive_seconds) from None
        finally:
            live.deadline, live.guard = float("inf"), None

    def candidates(self, ask: Ask) -> list[tuple[Backend, Model]]:
        """Who serves the model of a request.

        Raises:
            Refused: nobody does, or the key may not call it.
        """
        if ask.model not in self.upstreams.names:
            raise Refused(404, "model_not_found", f"there is no model {shown(ask.model)}; GET /v1/models lists them")
        if not (ask.key.allows(ask.model) or ask.key.allows(self.upstreams.names[ask.model])):
            raise Refused(
                403,
                "model_not_allowed",
                f"this key may not call {shown(ask.model)}; it may {', '.join(ask.key.models)}",
            )
        serving = self.upstreams.serving(ask.dialect, ask.model)
        if not serving:
            raise Refused(404, "wrong_route", f"{ask.model!r} is not served at /v1/{ask.route}")
        return serving

    # what policies ask

    def name_of(self, model: str) -> str:
        """The name behind an alias."""
        return self.upstreams.names.get(model, model)

    def serves(self, ask: Ask, model: str) -> bool:
        """Whether a request could be for this model instead."""
        return ask.key.allows(model) and bool(self.upstreams.serving(ask.dialect, model))

    def models(self, ask: Ask) -> list[Model]:
        """The models of :meth:`candidates`."""
        return [model for _, model in self.candidates(ask)]

    async def spent(self, ask: Ask) -> float:
        """The largest share that is spent of any of its limits."""
        return await self.booking.spent(ask)

    # attempts

    async def _attempts(self, ask: Ask, live: Live, up: dict[str, str], send: Send) -> None:
        """Call upstreams until one answers; each attempt is reserved and booked by itself."""
        candidates, server, drain = self.candidates(ask), self.config.server, partial(self._drain, live, ask)
        tried: list[Backend] = []
        ran = 0
        last = Refused(502, "no_upstream", f"no upstream serves {ask.model!r} just now")
        while not live.left:
            choice = self.upstreams.choose(candidates, tried)
            if choice is None and ran and ran <= server.retries:
                choice = self.upstreams.choose(candidates, ())  # it may have been a whim: the same one again
            if choice is None:
                break
            backend, model = choice
            tried.append(backend)
            live.upstream = backend.name
            name = f"{live.id}.{live.attempts}"
            prepared, hold = await self.booking.reserve(ask, live, model, name)
            live.attempts += 1
            if live.left:
                hold.finish(Answer(outcome=Outcome.REJECTED))
                break
            backend.live += 1
            try:
                attempt = Attempt(server, self.upstreams, ask, live, backend, prepared, hold, send, drain)
                outcome = await attempt.run(up)
            finally:
                backend.live -= 1
                hold.finish(Answer(outcome=Outcome.UNKNOWN))
            if outcome is None:
                return
            last, may_have_run = outcome
            ran += may_have_run
            if ran > server.retries:
                break
        if live.left:
            live.outcome, live.status, live.reason = Outcome.LEFT, 499, "client left"
            return
        live.outcome = Outcome.FAILED
        raise last

    # clients that leave

    def _left(self, live: Live, ask: Ask) -> None:
        """The client has gone, or its answer is whole."""
        if live.closed or live.finished or live.left:
            return
        if live.whole:  # it has all of its stream, and the upstream only keeps the connection open
            live.interrupt("answered")
            return
        live.left = True
        if live.guard is not None:
            self._drain(live, ask)

    def _drain(self, live: Live, ask: Ask) -> None:
        """Read on for a while, for the usage; or break off.

        Where the upstream stops when its connection closes, a stream is read up to its first text only: without any
        it would have to be charged in full, as the model may have thought unseen.
        """
        now, server = time.monotonic(), self.config.server
        seen = live.reading is not None and live.reading.chunks > 0
        cancels = any(backend.config.cancels for backend in self.upstreams.backends if backend.name == live.upstream)
        draining = sum(request.left for request in self.live.values())
        if (cancels and (seen or not ask.stream)) or draining > server.drains:
            live.interrupt("client left")
        else:
            live.deadline = min(live.deadline, now + server.drain_seconds)

    # its end

    def _close(self, live: Live) -> None:
        live.closed = True
        live.ms = int((time.monotonic() - live.started) * 1000)
        self.live.pop(live.id, None)
        if not live.open:
            self._over(live)

    def _over(self, live: Live) -> None:
        """All is booked. Who showed no valid key leaves no record: strangers could fill the store with them."""
        if live.key:
            self._record(live.record(), live.said)
        else:
            self._turned_away(live.reason)

    async def _refuse(self, live: Live, refused: Refused, dialect: str, send: Send) -> None:
        live.status, live.reason = refused.status, refused.code
        if live.answering:  # the client has its answer, or part of it: nothing else can be said
            _LOG.error("request %s: %s", live.id, refused)
            return
        if not live.attempts:
            live.outcome, live.said = Outcome.REFUSED, None
            if self._incoming is not None and live.key:
                self._incoming.refused(live.operation, live.model, refused.status, refused.code, live.at * 1_000_000)
        headers = [(b"content-type", b"application/json"), *refused.headers, *live.headers()]
        await reply(send, refused.status, refused.body(dialect), headers)

    # time

    async def tick(self) -> None:
        """Break off what waits too long; for ever."""
        while True:
            await asyncio.sleep(_TICK)
            now = time.monotonic()
            for live in list(self.live.values()):
                if now > live.deadline:
                    live.interrupt("client left" if live.left else "client too slow" if live.sending else "timed out")

    async def drained(self, seconds: float) -> None:
        """Wait at most ``seconds`` until all is booked; another replica charges in full what is not booked by then."""
        await self.booking.drained(seconds)
        self._aside.close()


def _label(headers: Mapping[bytes, bytes], name: bytes) -> str:
    value = headers.get(name)
    return "" if value is None else value.decode("utf-8", "replace").strip()[:200]


def _user(body: Mapping[str, Any]) -> str:
    """The end user as the body names it."""
    metadata = body.get("metadata")
    user = body.get("user") or (metadata.get("user_id") if isinstance(metadata, dict) else None)
    return user[:200] if isinstance(user, str) else ""
