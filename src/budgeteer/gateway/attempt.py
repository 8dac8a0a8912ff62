"""One attempt at an upstream: its answer is passed to the client, whole or as a stream, and its usage is booked."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

from budgeteer.core.errors import InvalidInput
from budgeteer.core.usage import Usage
from budgeteer.gateway.answers import Answers
from budgeteer.gateway.asgi import Send, reply
from budgeteer.gateway.ask import Ask
from budgeteer.gateway.booking import Hold
from budgeteer.gateway.conduct import NEVER
from budgeteer.gateway.config import Model, Server
from budgeteer.gateway.learnt import BudgetEnded
from budgeteer.gateway.live import Live
from budgeteer.gateway.prepared import Prepared
from budgeteer.gateway.refusal import Refused
from budgeteer.gateway.upstream import NEVER_SENT, Backend, Upstreams
from budgeteer.metering.failures import about_account, status_of
from budgeteer.metering.outcome import NOT_DONE, NOT_RUN, Outcome, outcome_of_status
from budgeteer.metering.reading import CAPS, Events
from budgeteer.metering.references import stored_in
from budgeteer.metering.settlement import Answer

if TYPE_CHECKING:
    from budgeteer.gateway.upstream import Response

_LOG = logging.getLogger(__name__)
_LONGEST_ERROR = 100_000
"""Bytes of an error at most; larger bodies are answers, and are passed on before they are read."""
_JSON = "application/json"
_NO_ROUTE = (404, 405, 501)
"""Statuses with which servers answer at a route that they do not have."""
_PASSED_DOWN = ("content-type", "openai-processing-ms", "openai-version")
Failed = tuple[Refused, bool]
"""The error for the client if no other upstream answers, and whether this one may have run the request."""


@dataclass(slots=True)
class Attempt:
    """One attempt of a request.

    Attributes:
        server: the settings with the time-outs for clients.
        upstreams: the connections to use.
        answers: remembers what is answered.
        ask, live: the request, and its state.
        backend, model: the upstream to call, and the model as it has it.
        prepared: the body to send, and its bound.
        hold: the reservation; it is finished here once the upstream has answered or failed.
        send: the ASGI function that sends to the client.
        drain: called when the client has left before the call; it limits how long the answer is still read.
        began: when the attempt began, on the monotonic clock in seconds.
    """

    server: Server
    upstreams: Upstreams
    answers: Answers
    ask: Ask
    live: Live
    backend: Backend
    model: Model
    prepared: Prepared
    hold: Hold
    send: Send
    drain: Callable[[], None]
    began: float = field(default_factory=time.monotonic)
    _kept: bool = field(default=False, init=False)

    async def run(self, passed: dict[str, str]) -> Failed | None:
        """Call the upstream and answer the client.

        Args:
            passed: headers of the client that are passed on to the upstream.

        Returns:
            None if the client was answered; else the error, so that another upstream can be tried.
        """
        ask, live, backend, prepared, send = self.ask, self.live, self.backend, self.prepared, self.send
        config = backend.config
        live.why, live.deadline = "", time.monotonic() + config.connect_seconds + config.first_byte_seconds
        response: Response | None = None
        events = Events(prepared.reading, False)
        ended = passing = False
        try:
            async with asyncio.timeout(None) as live.guard:
                if live.left:
                    self.drain()
                headers = passed if prepared.kind == _JSON else {**passed, "content-type": prepared.kind}
                response = await self.upstreams.call(backend, ask.route, prepared.content, headers)
                status = response.status
                live.deadline = time.monotonic() + config.idle_seconds
                if status >= 300:
                    said = await response.read()
                    ended = True
                    live.guard = None
                    return await self._error(status, said, response.headers)
                passed_down = [
                    (name.encode(), response.headers[name].encode("latin-1"))
                    for name in _PASSED_DOWN
                    if name in response.headers
                ]
                live.reading = prepared.reading
                if prepared.reading.is_stream(response.headers.get("content-type", "")):
                    events.streamed = passing = True
                    await self.hold.look()
                    self.hold.price(None)
                    is_answer = await self._pass_on(response, events, [*live.headers(), *passed_down])
                    ended = True
                    if not is_answer:
                        live.guard = None
                        return await self._refused(events, response.headers)
                else:
                    content = await response.read()
                    ended = True
                    if _may_be_error(content):
                        events.rest = content
                        if events.answer(status, True).error and not _shows(events):
                            live.guard = None
                            return await self._refused(events, response.headers)
                    backend.answered()
                    live.sending, live.deadline = True, time.monotonic() + self.server.send_seconds
                    await self._hand_over(status, content, passed_down)
                live.guard = None
        except (aiohttp.ClientError, TimeoutError, OSError, InvalidInput) as error:
            live.guard = None
            if not live.whole:
                return await self._broken(events, error)
        finally:
            live.deadline, live.guard, live.sending = float("inf"), None, False
            if response is not None:
                if ended:
                    response.release()
                else:
                    response.close()
        if passing:
            answer = events.answer(200, True)
            await self._keep(answer)
            if answer.error < 500:
                backend.answered()
            else:
                backend.failed(began=self.began, outage=answer.error not in NOT_RUN)
            self._end(answer, 200, b"" if events.streamed else events.rest)
            if answer.outcome != Outcome.OK and not live.left and (not answer.error or live.inside):
                await send(
                    {
                        "type": "http.response.body",
                        "body": _cut("the upstream ended the stream early").event(ask.operation),
                    }
                )
            elif live.answering:
                await send({"type": "http.response.body", "body": b""})
        return None

    async def _hand_over(self, status: int, content: bytes, passed_down: list[tuple[bytes, bytes]]) -> None:
        """Send a whole answer and book it: right after sending, or during it if the client is slow."""
        answer = self.prepared.reading.answer(status, content)

        def book() -> None:
            if not self.live.finished:
                self._end(answer, status, content)

        booking: asyncio.Handle | None = None
        try:
            await self._keep(answer)
            await self.hold.look()
            self.hold.price(answer)
            self.live.answering = True
            booking = asyncio.get_running_loop().call_soon(book)
            await reply(self.send, status, content, [*self.live.headers(), *passed_down])
        finally:
            if booking is not None:
                booking.cancel()
            book()

    def _end(self, answer: Answer, status: int, content: bytes) -> None:
        """Book an answer, and set the request's outcome."""
        live = self.live
        live.status, live.finished = status, True
        live.outcome = Outcome.LEFT if live.left else Outcome.OK if answer.outcome == Outcome.OK else Outcome.CUT
        if live.outcome != Outcome.OK:
            early = "the upstream ended the stream early"
            if answer.error:
                early = f"the upstream sent an error ({answer.error})"
            live.reason = live.why or ("client left" if live.left else early)
        if answer.outcome == Outcome.UNKNOWN and self.backend.config.conduct.bills_failures == NEVER:
            answer = Answer(outcome=Outcome.REJECTED)
        self._book(answer)
        live.log_answer(content)
        self.ask.answer = content if live.outcome == Outcome.OK else None

    async def _pass_on(self, response: Response, events: Events, headers: list[tuple[bytes, bytes]]) -> bool:
        """Pass the bytes of a stream on as they come, from the first that are no error; a body that is no stream when
        it is whole.

        After the client has left, the stream is read to its end for its usage; or only up to the first text, if the
        upstream stops the call when its connection closes.

        Returns:
            Whether it is an answer; False for an error in place of one, of which nothing is sent.
        """
        live, send, config = self.live, self.send, self.backend.config
        idle, slow = config.idle_seconds, self.server.send_seconds
        reading = events.reading

        async def begin() -> None:
            if not live.answering:
                live.status, live.answering = response.status, True
                await send({"type": "http.response.start", "status": response.status, "headers": headers})

        async for piece in response.content.iter_any():
            passed = events.feed(piece)
            if reading.error is not None and events.streamed:
                if not live.answering and not reading.chunks:
                    return False
                if not live.inside and about_account(reading.error):
                    live.inside, passed = True, b""
                    _LOG.error("upstream %s: %s", self.backend.name, str(reading.error)[:300])
            try:
                await self.hold.extend(reading, config.cancels)
            except BudgetEnded:
                await begin()
                raise
            await self._keep()
            if not events.streamed:  # it is passed on when it is whole
                live.deadline = time.monotonic() + idle
                continue
            if live.first_ms is None:
                live.first_ms = int((time.monotonic() - live.started) * 1000)
            if live.left:
                if config.cancels and events.reading.chunks and not events.reading.done:
                    live.why = live.why or "client left"
                    response.close()
                    return True
            elif passed:
                await begin()
                live.sending, live.deadline = True, time.monotonic() + slow
                await send({"type": "http.response.body", "body": passed, "more_body": True})
                live.sending, live.deadline = False, time.monotonic() + idle
                live.whole = events.reading.done
        tail = events.last()
        await self._keep()
        if not events.streamed:
            tail = events.rest
            if _may_be_error(tail) and events.answer(200, True).error and not _shows(events):
                return False
        elif not live.answering and reading.error is not None and not reading.chunks:
            return False
        await begin()
        if tail and not live.left:
            await send({"type": "http.response.body", "body": tail, "more_body": True})
        return True

    async def _keep(self, answer: Answer | None = None) -> None:
        """Remember what references to a whole response stand for, before its client can make one.

        Args:
            answer: what was read of it; None = of the events so far.
        """
        reading, planned = self.prepared.reading, self.prepared.planned
        if reading.response is None or self._kept:
            return
        self._kept = True
        usage = (answer or reading.at_end()).usage or Usage()
        opaque = bool(self.ask.unseen.hidden)
        stored = stored_in(reading.response, usage, planned.worst, self.model.upstream, self.backend.name, opaque)
        await self.answers.keep(self.ask.key.id, stored)

    async def _refused(self, events: Events, headers: Mapping[str, str]) -> Failed | None:
        """Handle an error in place of an answer whose status says otherwise, as one with the status that it means."""
        error = events.reading.error
        return await self._error(status_of(error), orjson.dumps({"error": error}), headers)

    def _book(self, answer: Answer) -> None:
        """Book the answer, and count what is charged for a failure whose bill is unknown."""
        charged = self.hold.finish(answer)
        if answer.outcome == Outcome.UNKNOWN:
            self.backend.charged(charged)

    async def _error(self, status: int, said: bytes, headers: Mapping[str, str]) -> Failed | None:
        """Handle an error status: pass it to the client if the request caused it, else return it to try another."""
        live, backend, ask = self.live, self.backend, self.ask
        outcome = Outcome.REJECTED if status < 400 else outcome_of_status(status)
        fails, error = outcome == Outcome.UNKNOWN, _error_of(said)
        if fails and backend.config.conduct.bills_failures == NEVER:
            outcome = Outcome.REJECTED
        self._book(Answer(outcome=outcome))
        wait = _wait(headers)
        if status == 402 or about_account(error):  # its owner has to act, and no client needs to know
            backend.failed(began=self.began)
            _LOG.error("upstream %s answered %d about its account: %s", backend.name, status, str(error)[:300])
            text = f"the upstream {backend.name!r} refused the gateway ({status})"
            return Refused(502, "upstream_refused", text), outcome == Outcome.UNKNOWN
        if status in _NO_ROUTE and ask.operation not in CAPS and not _about_model(error):
            text = f"the upstream {backend.name!r} answered {status} at /v1/{ask.route}: it does not serve this route"
            return Refused(404, "route_not_served", f"{text}; send this to a model of another upstream"), False
        if fails or status in NOT_DONE:
            if fails:
                backend.failed(began=self.began)
            text = _told(backend, status, error)
            return Refused(502 if status != 504 else 504, "upstream_error", text), outcome == Outcome.UNKNOWN
        if status in NOT_RUN:
            backend.failed(wait, self.began, outage=False)
            code = "upstream_limited" if status == 429 else "upstream_overloaded"
            return Refused(
                429 if status == 429 else 503, code, _told(backend, status, error), max(1, round(wait or 1))
            ), False
        if status < 400 or status in (401, 403):
            backend.failed(began=self.began)
            about = str(error)[:300]
            _LOG.error("upstream %s answered %d: check its base_url and key: %s", backend.name, status, about)
            return Refused(
                502, "upstream_refused", f"the upstream {backend.name!r} refused the gateway ({status})"
            ), False
        live.outcome, live.status, live.reason = Outcome.FAILED, status, "upstream_error"
        await self.hold.look()
        live.room = self.hold.left
        shape = [(b"content-type", headers.get("content-type", "application/json").encode("latin-1"))]
        await reply(self.send, status, said, [*live.headers(), *shape, (b"x-should-retry", b"false")])
        return None

    async def _broken(self, events: Events, error: BaseException) -> Failed | None:
        """Handle a failed connection, a time-out, or a client that is too slow or has left."""
        live, backend = self.live, self.backend
        reason = live.why or f"{type(error).__name__}: {error}"[:200]
        if live.finished:  # the answer is booked; its client did not take it in time
            live.outcome, live.reason = Outcome.LEFT, reason
            return None
        if live.sending:
            live.left = True
        if not (live.left or isinstance(error, BudgetEnded)):
            backend.failed(began=self.began)
        if live.answering:  # a stream
            live.outcome, live.reason = Outcome.LEFT if live.left else Outcome.CUT, reason
            if (live.left or live.why or isinstance(error, InvalidInput)) and not backend.config.cancels:
                events.reading.hides = True  # stopped here only: the upstream generates on, and bills that
            self._book(events.answer(200, False))
            live.log_answer(b"")
            if not live.left:
                last = _cut(f"the stream was cut ({reason})").event(events.reading.operation)
                await self.send({"type": "http.response.body", "body": last})
            return None
        never = isinstance(error, NEVER_SENT)
        self._book(Answer(outcome=Outcome.REJECTED if never else Outcome.UNKNOWN))
        late = isinstance(error, TimeoutError) and not never
        text = f"the upstream {backend.name!r} {'did not answer in time' if late else 'could not be reached'}"
        return Refused(504 if late else 502, "upstream_timeout" if late else "upstream_unreachable", text), not never


def _cut(text: str) -> Refused:
    return Refused(502, "stream_cut", text)


def _may_be_error(content: bytes) -> bool:
    """Whether a body may be an error: a cheap look, so that answers are sent before they are read."""
    return len(content) < _LONGEST_ERROR and b'"error"' in content and content.lstrip().startswith(b"{")


def _shows(events: Events) -> bool:
    """Whether a whole answer shows something, or says that something was generated, in spite of its error."""
    return events.answer(200, True).outcome == Outcome.CUT


def _error_of(said: bytes) -> Any:
    """The error that a body is, or says; an empty text if it says none."""
    try:
        body = orjson.loads(said)
    except ValueError:
        return said[:2000].decode("utf-8", "replace")
    return body.get("error") or body if isinstance(body, dict) else body


def _about_model(error: Any) -> bool:
    """Whether an error says that there is no such model, rather than no such route."""
    return isinstance(error, dict) and "model" in f"{error.get('code')} {error.get('message')}".lower()


def _told(backend: Backend, status: int, error: Any) -> str:
    """An upstream's error in one line."""
    text = error.get("message", "") if isinstance(error, dict) else ""
    return f"the upstream {backend.name!r} answered {status}" + (f": {str(text)[:300]}" if text else "")


def _wait(headers: Mapping[str, str]) -> float | None:
    try:
        return max(0.0, float(headers["retry-after"]))
    except (KeyError, ValueError):
        return None
