"""Serve one request from its headers to its record: key, body, policies, attempts, and the error if all fail."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import time
from collections.abc import Callable, Mapping
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any

from budgeteer.core.errors import BudgetExceeded, InvalidInput, LedgerError, LedgerUnavailable, UnknownPrice
from budgeteer.gateway.accounts import Accounts
from budgeteer.gateway.answers import Answers
from budgeteer.gateway.asgi import Receive, Scope, Send, label, reply, show_key, token
from budgeteer.gateway.ask import Ask, user_of
from budgeteer.gateway.attempt import Attempt
from budgeteer.gateway.body import LARGE, Aside, Room, read_body, too_slow
from budgeteer.gateway.booking import Booking
from budgeteer.gateway.candidates import candidates_for, serves, serving_for
from budgeteer.gateway.config import Config, Model
from budgeteer.gateway.conversation import conversation_of
from budgeteer.gateway.counting import count_input, worth
from budgeteer.gateway.keyring import KeyRing
from budgeteer.gateway.keys import Key
from budgeteer.gateway.live import Live
from budgeteer.gateway.policies.protocol import Policy
from budgeteer.gateway.record import Record
from budgeteer.gateway.refusal import Refused, limit_of, of_budget
from budgeteer.gateway.routes import ROUTES
from budgeteer.gateway.upstream import Backend, Upstreams, all_shut
from budgeteer.ledger import Ledger
from budgeteer.ledger.protocol import Clock, wall_clock
from budgeteer.metering.call import Metering
from budgeteer.metering.outcome import Outcome
from budgeteer.metering.reading import CAPS
from budgeteer.metering.settlement import Answer

if TYPE_CHECKING:
    from budgeteer.adapters.otel import Incoming

_LOG = logging.getLogger(__name__)
_TICK = 0.1
"""Seconds between two checks for waits that are over their deadline."""
_PASSED_UP = (b"anthropic-version", b"anthropic-beta", b"openai-beta", b"traceparent", b"user-agent")
_ASKED = ("system", "instructions", "messages", "input", "prompt")
"""Fields of bodies that hold the prompt."""
_LEDGER_GONE = ("ledger_unavailable", "ledger_error")
"""Refusals whose answers do not say what is left, since nobody can read it."""


class Proxy:
    """The routes that spend tokens.

    Args:
        config: the gateway's configuration.
        ledger: where units are reserved and settled.
        keys: the keys of its clients.
        answers: remembers what they were answered.
        metering: counts the units of requests and answers.
        record: called with the record of each request that showed a valid key, once it has ended and is booked, and
            with its prompt and answer if the log gets them.
        turned_away: called with the reason for each request that was refused without a valid key.
        policies: name -> policy, in the order in which they act.
        incoming: reads the client's OpenTelemetry spans, the parents of ours; None: no spans.
        exceeded: called with the error of each request that a limit refused.
        clock: milliseconds since 1970 (UTC), for policies.
    """

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        keys: KeyRing,
        answers: Answers,
        metering: Metering,
        record: Callable[[Record, dict[str, Any] | None], None],
        turned_away: Callable[[str], None],
        policies: Mapping[str, Policy],
        incoming: Incoming | None = None,
        exceeded: Callable[[BudgetExceeded], None] = lambda error: None,
        clock: Clock = wall_clock,
    ) -> None:
        self.config, self.keys, self.answers, self.metering = config, keys, answers, metering
        self.accounts = Accounts(ledger, config.scopes, config.counted)
        self.upstreams = Upstreams(config.upstreams)
        self.policies = list(policies.items())
        self.live: dict[str, Live] = {}
        self.instance = f"gw{os.urandom(8).hex()}"
        self._record, self._turned_away, self._incoming = record, turned_away, incoming
        self._exceeded, self._clock = exceeded, clock
        self.room = Room(config.server.body_bytes)
        self._aside = Aside()
        self.booking = Booking(config, ledger, self.accounts, metering, self._aside, self._over, clock)
        self._number = itertools.count().__next__

    def renewed(self, config: Config, metering: Metering, policies: Mapping[str, Policy]) -> Proxy:
        """A proxy for the requests that come from now on; those of this one finish as they began. Both share accounts,
        running requests and connections; upstreams that stay the same keep their health."""
        other = copy(self)
        other.config, other.metering, other.policies = config, metering, list(policies.items())
        other.upstreams = Upstreams(config.upstreams, self.upstreams)
        other.booking = self.booking.renewed(config, metering)
        self.accounts.rescope(config.scopes)
        return other

    # a whole request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a POST to one of ROUTES."""
        if self._incoming is None:
            await self._answer(scope, receive, send)
        else:
            with self._incoming.within(dict(scope["headers"])):
                await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = scope["path"][4:]
        dialect = ROUTES[route].dialect
        live = Live(f"{self.instance}-{self._number()}", ROUTES[route].operation)
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
            live.scope, live.refused = error.scope, limit_of(error)
            self._exceeded(error)
            await self._refuse(live, of_budget(error, wall_clock()), dialect, send)
        except UnknownPrice as error:
            text = f"the gateway has no price for {error.model}, so it cannot bound what the request would cost"
            _LOG.error("%s; budgeteer serve --check says how to add one", error.problem)
            await self._refuse(live, Refused(400, "no_price", text), dialect, send)
        except LedgerUnavailable as error:
            _LOG.error("%s", error)
            text = "budgets cannot be checked just now, so nothing is sent; try again"
            await self._refuse(live, Refused(503, "ledger_unavailable", text, 1), dialect, send)
        except LedgerError as error:
            _LOG.error("%s", error)
            text = "the ledger cannot reserve for this key; the gateway's log has the reason"
            await self._refuse(live, Refused(503, "ledger_error", text), dialect, send)
        except InvalidInput as error:
            await self._refuse(live, Refused(400, "invalid_request", str(error)), dialect, send)
        finally:
            self._close(live)

    async def _serve(
        self, route: str, live: Live, key: Key, headers: dict[bytes, bytes], receive: Receive, send: Send
    ) -> None:
        ask = await self._asked(route, live, key, headers, receive)
        live.stream, live.model = ask.stream, self.upstreams.names.get(ask.model, ask.model[:200])
        live.user = ask.user = label(headers, b"x-budgeteer-user") or user_of(ask.body)
        live.session = ask.session = label(headers, b"x-budgeteer-session")
        named = live.session or await self._aside.do(len(ask.raw), conversation_of, ask.body, key, live.user)
        live.conversation = named
        live.tag, live.stage = label(headers, b"x-budgeteer-tag"), label(headers, b"x-budgeteer-stage")
        if self.config.prompts:
            live.said = {"asked": {name: ask.body[name] for name in _ASKED if name in ask.body}}
        if ask.unseen.references and ask.operation == "responses":
            await self.answers.recall(ask)
        ask.largest = max(model.bounds.max_output or 0 for model in self.models(ask))
        ask.chain = self.accounts.chain(key, live.user, live.session, live.tag)
        live.path = ask.chain[-1][0]
        if not self.accounts.known(ask.chain):
            await self.accounts.open(ask.chain)
        called = 0
        policies = self.policies if ask.operation in CAPS else []  # they decide on the text that a model makes
        try:
            for name, policy in policies:
                called += 1
                content = await policy.before(ask, self)
                if content is not None:
                    live.outcome, live.status, live.policy, live.saved = Outcome.CACHED, 200, name, ask.saved
                    live.log_answer(content)
                    live.room = await self.booking.left.of(live.path)
                    shape = (b"content-type", b"application/json")
                    return await reply(send, 200, content, [shape, *live.headers()])
            await self._call(ask, live, headers, receive, send)
        finally:
            for name, policy in policies[:called]:
                try:
                    policy.after(ask, ask.answer, live)
                except Exception:  # the client has its answer, and the other policies have to be called as well
                    _LOG.exception("policy %s failed after request %s", name, live.id)

    async def _call(self, ask: Ask, live: Live, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        """Call upstreams, and watch for the client to leave meanwhile."""
        live.model = self.upstreams.names[ask.model]
        passed = {name.decode(): headers[name].decode("latin-1") for name in _PASSED_UP if name in headers}
        watch = asyncio.ensure_future(receive())
        watch.add_done_callback(lambda _: self._left(live, ask))
        try:
            await self._attempts(ask, live, passed, send)
        finally:
            watch.cancel()

    async def _asked(self, route: str, live: Live, key: Key, headers: dict[bytes, bytes], receive: Receive) -> Ask:
        """Read and parse the body. No budget is reserved for it yet, so its memory and the work on it are limited."""
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            self.room.take(key.id, size)
            taken += size

        try:
            raw = await self._body(live, headers, receive, take)
            kind = headers.get(b"content-type", b"").decode("latin-1")
            return await self._aside.do(len(raw), self._read, route, raw, key, kind)
        finally:
            self.room.give(key.id, taken)

    def _read(self, route: str, raw: bytes, key: Key, content_type: str) -> Ask:
        """Parse a body, and do all other work over its bytes that needs no account."""
        ask = Ask(route, raw, key, self.config.server.body_parts, content_type)
        if self.policies and not ask.parts and len(raw) >= LARGE:
            _ = ask.fingerprint  # computed here, in the thread, since policies use it
        return ask

    async def _body(
        self, live: Live, headers: dict[bytes, bytes], receive: Receive, take: Callable[[int], None]
    ) -> bytes:
        """Read the whole body within one deadline, which ``tick`` checks: a timer for each body would cost time."""
        server = self.config.server
        live.deadline = time.monotonic() + server.receive_seconds
        try:
            async with asyncio.timeout(None) as live.guard:
                return await read_body(headers, receive, server.body_bytes, take)
        except TimeoutError:
            raise too_slow(server.receive_seconds) from None
        finally:
            live.deadline, live.guard = float("inf"), None

    # for policies: the protocol Serving

    def now(self) -> int:
        """Milliseconds since 1970 (UTC)."""
        return self._clock()

    def name_of(self, model: str) -> str:
        """The name of the model that a name or alias belongs to; an unknown name is returned as it is."""
        return self.upstreams.names.get(model, model)

    def serves(self, ask: Ask, model: str) -> bool:
        """Whether the key of a request may call this model, and an upstream serves it on the request's route."""
        return serves(ask, model, self.upstreams)

    def models(self, ask: Ask) -> list[Model]:
        """The model that a request asks for, as each upstream that serves it has it.

        Raises:
            Refused: no upstream serves it, or the key may not call it.
        """
        return [model for _, model in serving_for(ask, self.upstreams)]

    async def spent(self, ask: Ask) -> float:
        """The largest spent or reserved share (0 to 1) of the limits of tokens or money that apply to the request."""
        return await self.booking.spent(ask)

    # attempts

    async def _attempts(self, ask: Ask, live: Live, passed: dict[str, str], send: Send) -> None:
        """Call upstreams until one answers; each attempt is reserved and booked by itself."""
        candidates, server, drain = (
            candidates_for(ask, self.upstreams),
            self.config.server,
            partial(self._drain, live, ask),
        )
        tried: list[Backend] = []
        ran = 0
        last = Refused(502, "no_upstream", f"no upstream serves {ask.model!r} just now")
        while not live.left:
            choice = self.upstreams.choose(candidates, tried)
            if choice is None and ran and ran <= server.retries:
                choice = self.upstreams.choose(candidates, ())  # all have failed once: try one of them again
            if choice is None:
                if not tried:
                    last = all_shut(candidates)
                break
            backend, model = choice
            tried.append(backend)
            trial = backend.tried
            live.upstream = backend.name
            name = f"{live.id}.{live.attempts}"
            backend.trial |= trial
            try:
                if worth(ask, backend, model) and await self.booking.spent(ask) < 1:
                    await count_input(ask, backend, model, self.upstreams, passed)
                prepared, hold = await self.booking.reserve(ask, live, model, name)
            except BaseException:
                backend.trial &= not trial
                raise
            live.attempts += 1
            if live.left:
                backend.trial &= not trial
                hold.finish(Answer(outcome=Outcome.REJECTED))
                break
            backend.live += 1
            try:
                attempt = Attempt(
                    server, self.upstreams, self.answers, ask, live, backend, model, prepared, hold, send, drain
                )
                outcome = await attempt.run(passed)
            finally:
                backend.live -= 1
                backend.trial &= not trial
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
        """Handle the client's disconnection, which also follows a whole answer."""
        if live.closed or live.finished or live.left:
            return
        if live.whole:  # it has all of its stream, and the upstream only keeps the connection open
            live.interrupt("answered")
            return
        live.left = True
        if live.guard is not None:
            self._drain(live, ask)

    def _drain(self, live: Live, ask: Ask) -> None:
        """Read the answer on for a while to learn its usage, or interrupt the call.

        If the upstream stops a call when its connection closes, a stream is read up to its first text only. Without any
        text it would have to be charged in full, since the model may have reasoned without showing it.
        """
        server = self.config.server
        seen = live.reading is not None and live.reading.chunks > 0
        cancels = any(backend.config.cancels for backend in self.upstreams.backends if backend.name == live.upstream)
        draining = sum(request.left for request in self.live.values())
        if (cancels and (seen or not ask.stream)) or draining > server.drains:
            live.interrupt("client left")
        else:
            live.deadline = min(live.deadline, time.monotonic() + server.drain_seconds)

    # the end of a request

    def _close(self, live: Live) -> None:
        live.closed = True
        live.ms = int((time.monotonic() - live.started) * 1000)
        self.live.pop(live.id, None)
        if not live.open:
            self._over(live)

    def _over(self, live: Live) -> None:
        """Record a request that has ended and is booked; without a valid key only count it: strangers send those."""
        if live.key:
            self._record(live.record(), live.said)
        else:
            self._turned_away(live.reason)

    async def _refuse(self, live: Live, refused: Refused, dialect: str, send: Send) -> None:
        live.status, live.reason = refused.status, refused.code
        if live.answering:  # the client has its answer, or part of it: no error can be sent any more
            _LOG.error("request %s: %s", live.id, refused)
            return
        if not live.attempts:
            live.outcome, live.said = Outcome.REFUSED, None
            if self._incoming is not None and live.key:
                self._incoming.refused(live.operation, live.model, refused.status, refused.code, live.at * 1_000_000)
        if live.key and refused.code not in _LEDGER_GONE:
            live.room = await self.booking.left.of(live.path)
        headers = [(b"content-type", b"application/json"), *refused.headers, *live.headers()]
        await reply(send, refused.status, refused.body(dialect), headers)

    # time-outs

    async def tick(self) -> None:
        """Interrupt every wait that is over its deadline; runs until cancelled."""
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
