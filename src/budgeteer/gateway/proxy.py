"""One request from its bytes to its settlement: key, bound, reservation, upstream, answer, charge, record."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
import orjson

from budgeteer.core.errors import (
    BudgetExceeded,
    InvalidInput,
    LedgerError,
    LedgerUnavailable,
    UnknownAccount,
    UnknownPrice,
    UnknownReservation,
)
from budgeteer.gateway import live as ends
from budgeteer.gateway.accounts import Accounts
from budgeteer.gateway.ask import ROUTES, Ask, Prepared, prepare
from budgeteer.gateway.body import Receive, Room, read_body, too_slow
from budgeteer.gateway.config import PARALLEL, REQUESTS, Config, Model
from budgeteer.gateway.keyring import KeyRing
from budgeteer.gateway.keys import Key
from budgeteer.gateway.live import Live
from budgeteer.gateway.policies.protocol import Policy
from budgeteer.gateway.refusal import Refused, of_budget, shown
from budgeteer.gateway.upstream import NEVER_SENT, Backend, Upstreams
from budgeteer.ledger import Ledger, MemoryLedger, upkeep
from budgeteer.ledger.limit import MAX_UNITS
from budgeteer.ledger.protocol import Command, reserve_command, settle_command, wall_clock
from budgeteer.metering.call import (
    CUT,
    NOT_RUN,
    REJECTED,
    UNKNOWN,
    Answer,
    Metering,
    Planned,
    grown,
    outcome_of_status,
    tags,
)
from budgeteer.metering.call import OK as WHOLE
from budgeteer.metering.reading import Events, Reading, text_of

if TYPE_CHECKING:
    from budgeteer.adapters.otel import Incoming

T = TypeVar("T")
Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_LOG = logging.getLogger(__name__)
_TICK = 0.1
"""Seconds between looks for what has waited too long."""
_PASSED_UP = (b"anthropic-version", b"anthropic-beta", b"openai-beta", b"traceparent", b"user-agent")
_PASSED_DOWN = ("content-type", "openai-processing-ms", "openai-version")
_ASKED = ("system", "instructions", "messages", "input", "prompt")
"""Fields of bodies that hold what is asked."""
_LINGER = 0.01
"""Seconds for which a settlement waits at most for a reservation that it can share a commit with."""
SHOW_KEY = "budgeteer.show_key"
"""Entry of an ASGI scope: a function to call when its request showed a valid key."""
_LARGE = 65_536
"""Bytes of a body from which on it is read in a thread, so that others are served meanwhile; one at a time, since they
would take turns at Python's lock."""
_RELEASES = 15
"""Attempts to release: a minute. What is not released then is no longer waited for."""


class Hold:
    """One attempt's reservation, until it is booked; ``finish`` once, in any case.

    A first attempt that did not run is settled as 0 rather than released, since it counts as a request: who sends only
    what upstreams refuse is limited as well.
    """

    __slots__ = ("__weakref__", "_covered", "_done", "_proxy", "live", "name", "planned", "reserved", "started")

    def __init__(self, proxy: Proxy, live: Live, name: str, planned: Planned, reserved: dict[str, int]) -> None:
        self._proxy, self.live, self.name, self.planned, self.reserved = proxy, live, name, planned, reserved
        self.started, self._done = time.time_ns(), False
        live.open += 1
        self._covered = planned.worst.output or 0
        upkeep.here().keep(self, name, proxy.config.ttl)

    @property
    def ledger(self) -> Ledger:
        """Where it is held."""
        return self._proxy.ledger

    @property
    def amounts(self) -> dict[str, int]:
        """Units per kind that are held."""
        return self.reserved

    async def extend(self, least: int) -> None:
        """Reserve more for a stream that went beyond its cap.

        Raises:
            InvalidInput: the budget does not cover it.
        """
        if least <= self._covered:
            return
        planned, metering = self.planned, self._proxy.metering
        self._covered = grown(planned, least)
        more = metering.most(replace(planned.reserve, output=self._covered), planned.model, planned.service)
        try:
            await self.ledger.aio.extend(self.name, {**self.reserved, **more}, ttl=self._proxy.config.ttl)
        except BudgetExceeded as error:
            raise InvalidInput(
                f"the stream went on beyond its cap, and the budget does not cover it: {error}"
            ) from None
        self.reserved = {**self.reserved, **more}

    def finish(self, answer: Answer) -> None:
        """Book what an attempt used, or give back what was not run."""
        if self._done:
            return
        self._done = True
        live, proxy = self.live, self._proxy
        upkeep.here().drop(self.name, proxy.config.ttl)
        settlement = proxy.metering.settlement(self.planned, answer)
        if proxy.metering.on_settle is not None:
            proxy.metering.tell(replace(settlement, started=self.started, ended=time.time_ns()))
        usage = settlement.usage
        used = {
            kind: min(units, MAX_UNITS) for kind, units in settlement.amounts.items()
        }  # an upstream may say anything
        wasted = (usage.total or 0) if answer.outcome in (CUT, UNKNOWN) or live.left else 0
        live.called(answer.outcome, usage, used, settlement.estimated, wasted)
        if answer.outcome == REJECTED and live.counted:
            proxy.book(("release", self.name), live)
            return
        amounts = {**used, REQUESTS: self.reserved[REQUESTS], PARALLEL: 0}
        live.counted = True
        live.answered = settlement.response_model or live.answered
        live.charge(amounts, self.reserved, settlement.estimated)
        about = tags(settlement)
        about["attempt"] = str(live.attempts - 1)
        for name, value in (("stage", live.stage), ("run", live.session), ("upstream", live.upstream)):
            if value:
                about[name] = value[:256]
        proxy.book(settle_command(self.name, amounts, about), live)


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
        record: Callable[[dict[str, Any], dict[str, Any] | None], None],
        turned_away: Callable[[str], None],
        policies: Mapping[str, Policy],
        incoming: Incoming | None = None,
    ) -> None:
        self.config, self.ledger, self.keys, self.metering = config, ledger, keys, metering
        self.accounts = Accounts(ledger, config.scopes, config.counted)
        self.upstreams = Upstreams(config.upstreams)
        self.policies = list(policies.items())
        self.live: dict[str, Live] = {}
        self.instance = f"gw{os.urandom(8).hex()}"
        self._record, self._turned_away, self._incoming = record, turned_away, incoming
        self.room = Room(config.server.body_bytes)
        self._reader = ThreadPoolExecutor(1, "budgeteer-bodies")
        self._room: dict[str, tuple[float, dict[str, int | None]]] = {}
        self._inline = isinstance(ledger, MemoryLedger)
        self._number = itertools.count().__next__
        self._waiting: list[tuple[Command, Live]] = []
        self._booking: set[asyncio.Future[Any]] = set()

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
            key = await self.keys.find(_token(headers), live.at)
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
                reply = await policy.before(ask, self)
                if reply is not None:
                    live.outcome, live.status, live.policy, live.saved = ends.CACHED, 200, name, ask.saved
                    _say(live, reply)
                    headers_of = [(b"content-type", b"application/json"), *self._headers(live)]
                    return await _reply(send, 200, reply, headers_of)
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
            return await self._aside(len(raw), self._read, route, raw, key)
        finally:
            self.room.give(key.id, taken)

    def _read(self, route: str, raw: bytes, key: Key) -> Ask:
        """Every step over the whole of a body that can be made before its account is known."""
        ask = Ask(route, raw, key, self.config.server.body_parts)
        if self.policies and len(raw) >= _LARGE:
            _ = ask.fingerprint  # which policies ask for
        return ask

    async def _aside(self, size: int, work: Callable[..., T], *args: Any) -> T:
        """Do some work over so many bytes: at once if they are few, else in the thread for it."""
        if size < _LARGE:
            return work(*args)
        return await asyncio.get_running_loop().run_in_executor(self._reader, work, *args)

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
        found = self.upstreams.serving(ask.dialect, ask.model)
        if not found:
            raise Refused(404, "wrong_route", f"{ask.model!r} is not served at /v1/{ask.route}")
        return found

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
        """The largest share that is spent or held of any limit of tokens or money that the request counts in, 0 to 1.

        It may be half a second old.
        """
        now, largest = time.monotonic(), 0.0
        for path, limits in ask.chain:
            own = [limit for limit in limits or () if limit.amount and limit.kind in self.config.kinds]
            if not own:
                continue
            known = self._room.get(path)
            if known is None or known[0] < now:
                if len(self._room) > 10_000:
                    self._room.clear()
                known = self._room[path] = (now + 0.5, await self.ledger.aio.remaining(path))
            for limit in own:
                left = known[1].get(limit.kind)
                if left is not None and limit.amount:
                    largest = max(largest, 1 - left / limit.amount)
        return min(1.0, largest)

    # attempts

    async def _attempts(self, ask: Ask, live: Live, up: dict[str, str], send: Send) -> None:
        """Call upstreams until one answers; each attempt is reserved and booked by itself."""
        found = self.candidates(ask)
        tried: list[Backend] = []
        ran = 0
        last = Refused(502, "no_upstream", f"no upstream serves {ask.model!r} just now")
        while not live.left:
            choice = self.upstreams.choose(found, tried)
            if choice is None and ran and ran <= self.config.server.retries:
                choice = self.upstreams.choose(found, ())  # it may have been a whim: the same one again
            if choice is None:
                break
            backend, model = choice
            tried.append(backend)
            live.upstream = backend.name
            name = f"{live.id}.{live.attempts}"
            prepared, hold = await self._reserve(ask, live, model, name)
            live.attempts += 1
            if live.left:
                hold.finish(Answer(outcome=REJECTED))
                break
            backend.live += 1
            try:
                outcome = await self._attempt(ask, live, backend, prepared, hold, up, send)
            finally:
                backend.live -= 1
                hold.finish(Answer(outcome=UNKNOWN))
            if outcome is None:
                return
            last, may_have_run = outcome
            ran += may_have_run
            if ran > self.config.server.retries:
                break
        if live.left:
            live.outcome, live.status, live.reason = ends.LEFT, 499, "client left"
            return
        live.outcome = ends.FAILED
        raise last

    async def _reserve(self, ask: Ask, live: Live, model: Model, name: str) -> tuple[Prepared, Hold]:
        most: int | None = None
        for again in range(4):
            prepared = await self._aside(len(ask.raw), prepare, ask, model, self.metering, ask.dialect, most)
            amounts = {**prepared.planned.amounts, REQUESTS: 0 if live.counted else 1, PARALLEL: 1}
            command = reserve_command(ask.chain[-1][0], amounts, name, self.config.ttl, (PARALLEL,))
            try:
                if self._inline:
                    self.ledger.execute(command)
                else:
                    self._book_waiting()
                    await self.ledger.aio.reserve(
                        command[2], amounts, id=name, ttl=self.config.ttl, on_abandon=(PARALLEL,)
                    )
            except UnknownAccount:
                if again:
                    raise
                self.accounts.forget(ask.chain)
                await self.accounts.open(ask.chain)
                continue
            except LedgerUnavailable:  # it may be made all the same, and would hold until its time is over
                live.open += 1
                self.book(("release", name), live)
                raise
            except BudgetExceeded as error:
                if not ask.tightens or error.kind in (REQUESTS, PARALLEL) or again == 3:
                    raise
                most = await self._affordable(ask, prepared.planned)
                if most < ask.tightens:
                    raise
                continue
            tightened = () if most is None else (f"tighten={most}",)
            live.policy = ",".join((*ask.notes, *prepared.notes, *tightened))
            return prepared, Hold(self, live, name, prepared.planned, amounts)
        raise AssertionError("unreachable")

    async def _affordable(self, ask: Ask, planned: Planned) -> int:
        """Tokens of output of a choice that what is left covers, at most its cap; by bisection: prices have steps."""
        left = await self.ledger.aio.remaining(ask.chain[-1][0])
        low, high = 0, planned.cap or 0
        hidden = (planned.worst.output or 0) // planned.choices - high
        while low < high:
            middle = (low + high + 1) // 2
            made = planned.choices * (middle + hidden)
            usage = replace(planned.worst, output=made, audio_output=planned.worst.audio_output and made)
            needed = self.metering.most(usage, planned.model, planned.service)
            if all(left[kind] is None or units <= (left[kind] or 0) for kind, units in needed.items()):
                low = middle
            else:
                high = middle - 1
        return low

    async def _attempt(
        self, ask: Ask, live: Live, backend: Backend, prepared: Prepared, hold: Hold, up: dict[str, str], send: Send
    ) -> tuple[Refused, bool] | None:
        """Call one upstream; None if the client was answered, else what to say if nobody does, and whether it ran."""
        server, config = self.config.server, backend.config
        live.why, live.deadline = "", time.monotonic() + config.connect_seconds + config.first_byte_seconds
        response: aiohttp.ClientResponse | None = None
        events = Events(prepared.reading, False)
        ended = passing = False
        try:
            async with asyncio.timeout(None) as live.guard:
                if live.left:
                    self._drain(live, ask)
                response = await self.upstreams.post(backend, ask.route, prepared.content, up)
                status = response.status
                live.deadline = time.monotonic() + config.idle_seconds
                if status >= 300:
                    said = await response.read()
                    ended = True
                    live.guard = None
                    return await self._error(ask, live, backend, hold, status, said, response.headers, send)
                headers = self._headers(live)
                for name in _PASSED_DOWN:
                    if name in response.headers:
                        headers.append((name.encode(), response.headers[name].encode("latin-1")))
                live.reading = prepared.reading
                if prepared.reading.is_stream(response.headers.get("content-type", "")):
                    events.streamed = passing = True
                    await self._pass_on(live, hold, backend, response, events, headers, send)
                    ended = True
                else:
                    content = await response.read()
                    ended = True
                    backend.answered()
                    live.sending, live.deadline = True, time.monotonic() + server.send_seconds
                    await self._hand_over(live, hold, prepared.reading, status, ask, content, headers, send)
                live.guard = None
        except (aiohttp.ClientError, TimeoutError, OSError, InvalidInput) as error:
            live.guard = None
            if not live.whole:
                return await self._broken(live, backend, hold, events, error, send)
        finally:
            live.deadline, live.guard, live.sending = float("inf"), None, False
            if response is not None:
                if ended:
                    response.release()
                else:
                    response.close()
        if passing:
            backend.answered()
            answer = events.answer(200, True)
            self._end(live, hold, answer, 200, ask, b"" if events.streamed else events.rest)
            if answer.outcome == CUT and not live.left:
                await send(
                    {
                        "type": "http.response.body",
                        "body": _cut("the upstream ended the stream early").event(ask.operation),
                    }
                )
            else:
                await send({"type": "http.response.body", "body": b""})
        return None

    async def _hand_over(
        self, live: Live, hold: Hold, reading: Reading, status: int, ask: Ask, content: bytes,
        headers: list[tuple[bytes, bytes]], send: Send,
    ) -> None:  # fmt: skip
        """Send a whole answer and book it: at once after it, or while a slow client takes it."""

        def book() -> None:
            if not live.finished:
                self._end(live, hold, reading.answer(status, content), status, ask, content)

        live.answering = True
        booking = asyncio.get_running_loop().call_soon(book)
        try:
            await _reply(send, status, content, headers)
        finally:
            booking.cancel()
            book()

    def _end(self, live: Live, hold: Hold, answer: Answer, status: int, ask: Ask, content: bytes) -> None:
        """Book an answer."""
        live.status, live.finished = status, True
        live.outcome = ends.LEFT if live.left else ends.OK if answer.outcome == WHOLE else ends.CUT
        if live.outcome != ends.OK:
            live.reason = live.why or ("client left" if live.left else "the upstream ended the stream early")
        hold.finish(answer)
        _say(live, content)
        ask.answer = content if live.outcome == ends.OK else None

    async def _pass_on(
        self, live: Live, hold: Hold, backend: Backend, response: aiohttp.ClientResponse, events: Events,
        headers: list[tuple[bytes, bytes]], send: Send,
    ) -> None:  # fmt: skip
        """A stream's bytes, as they come; of a client that has left, to the end, or up to the first text if that is
        where the upstream then stops."""
        idle, slow = backend.config.idle_seconds, self.config.server.send_seconds
        live.status, live.answering = response.status, True
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        async for piece in response.content.iter_any():
            passed = events.feed(piece)
            await hold.extend(events.reading.least)
            if live.first_ms is None:
                live.first_ms = int((time.monotonic() - live.started) * 1000)
            if live.left:
                if backend.config.cancels and events.reading.chunks and not events.reading.done:
                    live.why = live.why or "client left"
                    response.close()
                    return
            elif passed:
                live.sending, live.deadline = True, time.monotonic() + slow
                await send({"type": "http.response.body", "body": passed, "more_body": True})
                live.sending, live.deadline = False, time.monotonic() + idle
                live.whole = events.reading.done
        rest = events.last()
        if rest and not live.left:
            await send({"type": "http.response.body", "body": rest, "more_body": True})

    async def _error(
        self, ask: Ask, live: Live, backend: Backend, hold: Hold, status: int, said: bytes,
        headers: Mapping[str, str], send: Send,
    ) -> tuple[Refused, bool] | None:  # fmt: skip
        """An upstream's error: passed on if the request is to blame, else a reason to try another."""
        outcome = REJECTED if status < 400 else outcome_of_status(status)
        hold.finish(Answer(outcome=outcome))
        wait = _wait(headers)
        if outcome == UNKNOWN:
            backend.failed()
            return Refused(502 if status != 504 else 504, "upstream_error", _told(backend, status, said)), True
        if status in NOT_RUN:
            backend.failed(wait)
            code = "upstream_limited" if status == 429 else "upstream_overloaded"
            return Refused(
                429 if status == 429 else 503, code, _told(backend, status, said), max(1, round(wait or 1))
            ), False
        if status < 400 or status in (401, 403):
            backend.failed()
            _LOG.error("upstream %s answered %d: check its base_url and key", backend.name, status)
            return Refused(
                502, "upstream_refused", f"the upstream {backend.name!r} refused the gateway ({status})"
            ), False
        live.outcome, live.status, live.reason = ends.FAILED, status, "upstream_error"
        shape = [(b"content-type", headers.get("content-type", "application/json").encode("latin-1"))]
        await _reply(send, status, said, [*self._headers(live), *shape, (b"x-should-retry", b"false")])
        return None

    async def _broken(
        self, live: Live, backend: Backend, hold: Hold, events: Events, error: BaseException, send: Send
    ) -> tuple[Refused, bool] | None:
        """A connection that failed, a time-out, a client that is too slow or gone."""
        why = live.why or f"{type(error).__name__}: {error}"[:200]
        if live.finished:  # the answer is booked; its client did not take it in time
            live.outcome, live.reason = ends.LEFT, why
            return None
        if live.sending:
            live.left = True
        if not live.left:
            backend.failed()
        if live.answering:  # a stream
            live.outcome, live.reason = ends.LEFT if live.left else ends.CUT, why
            if (live.left or live.why or isinstance(error, InvalidInput)) and not backend.config.cancels:
                events.reading.hides = True  # broken off here: it generates on, and bills that
            hold.finish(events.answer(200, False))
            _say(live, b"")
            if not live.left:
                last = _cut(f"the stream was cut ({why})").event(events.reading.operation)
                await send({"type": "http.response.body", "body": last})
            return None
        never = isinstance(error, NEVER_SENT)
        hold.finish(Answer(outcome=REJECTED if never else UNKNOWN))
        late = isinstance(error, TimeoutError) and not never
        text = f"the upstream {backend.name!r} {'did not answer in time' if late else 'could not be reached'}"
        return Refused(504 if late else 502, "upstream_timeout" if late else "upstream_unreachable", text), not never

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
        cancels = any(one.config.cancels for one in self.upstreams.backends if one.name == live.upstream)
        draining = sum(one.left for one in self.live.values())
        if (cancels and (seen or not ask.stream)) or draining > server.drains:
            live.interrupt("client left")
        else:
            live.deadline = min(live.deadline, now + server.drain_seconds)

    # booking

    def book(self, command: Command, live: Live) -> None:
        """Carry out a settlement or release; nobody waits for it.

        A ledger that commits does so before the next reservation of this process and along with it, or by itself
        if none comes soon; if it does not answer, it is asked again until it does.
        """
        if self._inline:
            self._booked(live, self.ledger.execute(command))
            return
        if not self._waiting:
            asyncio.get_running_loop().call_later(_LINGER, self._book_waiting)
        self._waiting.append((command, live))

    def _book_waiting(self) -> None:
        """Hand all that waits to the ledger, before what comes next."""
        waiting, self._waiting = self._waiting, []
        for command, live in waiting:
            task = asyncio.ensure_future(self._insist(command, live, self.ledger.submit(command)))
            self._booking.add(task)
            task.add_done_callback(self._booking.discard)

    async def _insist(self, command: Command, live: Live, answer: Awaitable[Any]) -> None:
        for again in itertools.count():
            try:
                self._booked(live, await answer)
                return
            except LedgerUnavailable as error:
                if again == 0:
                    _LOG.error("%s is not booked yet: %s", command[1], error)
                if command[0] == "release" and again == _RELEASES:
                    upkeep.here().owe(self.ledger, command, error)
                    self._booked(live, None)
                    return
                await asyncio.sleep(upkeep.AGAIN[min(again, len(upkeep.AGAIN) - 1)])
                answer = self.ledger.submit(command)
            except LedgerError as error:
                if command[0] != "release" or not isinstance(error, UnknownReservation):
                    _LOG.exception("%s could not be booked", command)
                self._booked(live, None)
                return

    def _booked(self, live: Live, entry: Any) -> None:
        if entry is not None:
            for kind, units in entry[7]:
                live.overshoot[kind] = live.overshoot.get(kind, 0) + units
        live.open -= 1
        if live.closed and not live.open:
            self._over(live)

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
            live.outcome, live.said = ends.REFUSED, None
            if self._incoming is not None and live.key:
                self._incoming.refused(live.operation, live.model, refused.status, refused.code, live.at * 1_000_000)
        headers = [(b"content-type", b"application/json"), *refused.headers, *self._headers(live)]
        await _reply(send, refused.status, refused.body(dialect), headers)

    def _headers(self, live: Live) -> list[tuple[bytes, bytes]]:
        found = [(b"x-request-id", live.id.encode())]
        if live.upstream:
            found.append((b"x-budgeteer-upstream", live.upstream.encode()))
        if live.policy:
            found.append((b"x-budgeteer-policy", live.policy.encode()))
        return found

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
        """Wait until all is booked, at most so long; what is left then is charged in full by another replica."""
        self._book_waiting()
        if self._booking:
            await asyncio.wait(self._booking, timeout=seconds)
        self._reader.shutdown(wait=False, cancel_futures=True)


def _say(live: Live, content: bytes) -> None:
    """Keep an answer's texts, of each choice, for the log if it is to have them; a stream's are in its reading."""
    if live.said is None:
        return
    try:
        body = orjson.loads(content or b"null")
    except ValueError:
        return
    if isinstance(body, dict):
        choices = body.get("choices") or body.get("output") or body.get("content")
        live.said["answer"] = [text_of(one) for one in choices] if isinstance(choices, list) else []
    elif live.reading is not None:
        live.said["answer"] = ["".join(pieces) for pieces in live.reading.text.values()]


def _cut(text: str) -> Refused:
    return Refused(502, "stream_cut", text)


def _told(backend: Backend, status: int, said: bytes) -> str:
    """What an upstream said, in one line."""
    text: Any = ""
    try:
        error = orjson.loads(said)
        error = error.get("error", error)
        text = error.get("message", "") if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        pass
    return f"the upstream {backend.name!r} answered {status}" + (f": {str(text)[:300]}" if text else "")


def _wait(headers: Mapping[str, str]) -> float | None:
    try:
        return max(0.0, float(headers["retry-after"]))
    except (KeyError, ValueError):
        return None


def show_key(scope: Scope) -> None:
    """Tell the connection of a request that it showed a valid key."""
    known = scope.get(SHOW_KEY)
    if known is not None:
        known()


def _token(headers: Mapping[bytes, bytes]) -> str:
    """The bearer's token, as OpenAI's or Anthropic's clients send it."""
    found = headers.get(b"authorization", b"")
    if found[:7].lower() == b"bearer ":
        return found[7:].strip().decode("latin-1")
    return headers.get(b"x-api-key", b"").decode("latin-1")


def _label(headers: Mapping[bytes, bytes], name: bytes) -> str:
    value = headers.get(name)
    return "" if value is None else value.decode("utf-8", "replace").strip()[:200]


def _user(body: Mapping[str, Any]) -> str:
    """The end user as the body names it."""
    metadata = body.get("metadata")
    found = body.get("user") or (metadata.get("user_id") if isinstance(metadata, dict) else None)
    return found[:200] if isinstance(found, str) else ""


async def _reply(send: Send, status: int, content: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    headers.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
