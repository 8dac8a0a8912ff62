"""Budgets for the openai client: ``client = wrap(OpenAI(), allowance)`` and use it as before.

The HTTP client below the client's retries is metered: every attempt is reserved and settled by itself, whatever method
made it (``create``, ``parse``, ``stream``, raw responses, other libraries that take an openai client), for chat
completions, completions, responses and embeddings. A request to any other route is refused, unless that route is known
to generate nothing; so is every WebSocket: nothing runs outside the budget. A call that does not fit into the budget
raises :class:`budgeteer.core.errors.BudgetExceeded`, and is not retried.

What is charged:

- the usage that the provider reports, if it can be true;
- of a stream, the usage in its last chunk. The adapter asks for it (``stream_options``, which the server has to accept)
  and hides it from a caller that did not ask;
- for a cut stream, or a missing or impossible usage, an estimate from what was seen, marked as estimated. llama.cpp's
  server, for example, counts only one choice when ``n`` > 1;
- for an error, nothing if the model cannot have run, else what was reserved
  (:func:`budgeteer.metering.outcome.outcome_of_status`).
"""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import lru_cache
from typing import Any, NoReturn, TypeVar, cast

from budgeteer.core.errors import InvalidInput, MissingExtra
from budgeteer.core.usage import Usage
from budgeteer.metering.call import Call, Metering, metering_of
from budgeteer.metering.clients import refuse_unmetered
from budgeteer.metering.estimate import cap_name, input_bound, unmeasured, worst_case
from budgeteer.metering.outcome import Outcome
from budgeteer.metering.protocol import Allowance
from budgeteer.metering.reading import CAP_LIKE, CAPS, Events, Reading, ask_for_usage, cap_of, choices_of
from budgeteer.metering.references import bound, bounded, stored_in
from budgeteer.metering.settlement import Answer
from budgeteer.metering.unseen import Unseen, unseen

try:
    import httpx2
    import openai
except ImportError as error:
    raise MissingExtra("openai", "openai") from error

C = TypeVar("C", bound=openai.OpenAI | openai.AsyncOpenAI)

_ROUTES = {
    "chat/completions": "chat",
    "responses": "responses",
    "completions": "completions",
    "embeddings": "embeddings",
}
_READS = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
"""Methods that read or remove; what generates is a POST, and any other method is refused."""
_FREE = re.compile(
    r"chat/completions/ID"
    r"|conversations(/ID(/items)?)?"
    r"|files|uploads(/ID/(cancel|complete|parts))?"
    r"|moderations|responses/input_tokens"
    r"|vector_stores(/ID(/search|/files(/ID)?|/file_batches(/ID/cancel)?)?)?"
    r"|(responses|batches|fine_tuning/jobs|threads/ID/runs|evals/ID/runs)/ID/cancel".replace("ID", r"[\w.:@=+~-]+")
)
"""Routes of POSTs, below the base URL, that store, count, check or cancel, and generate nothing. An id has no escape,
backslash or semicolon, which some servers read as another path."""
_DEPLOYMENT = re.compile(r"deployments/[^/]+/")
_BASES = "budgeteer.bases"
"""Name of the extension of a request that holds the (host, path) to which its client's routes are relative."""
_LOG = logging.getLogger(__name__)


def wrap(client: C, allowance: Allowance | Metering, **options: Any) -> C:
    """A copy of an openai client that spends from an allowance.

    Clients that ``with_options`` and ``copy`` make from it are metered, too, and each call once.

    Args:
        client: ``OpenAI`` or ``AsyncOpenAI`` (or a subclass); it is not changed.
        allowance: where calls are reserved, or a Metering, to share it or to read its state later.
        options: of :class:`budgeteer.metering.call.Metering`: kinds, prices, bounds, estimator, state, on_settle.

    Raises:
        InvalidInput: another kind of client, one that is wrapped already or whose transport retries, or wrong options.
    """
    metering = metering_of(allowance, options)
    refuse_unmetered(client)
    inner = getattr(client, "_client", None)
    if isinstance(client, openai.OpenAI) and isinstance(inner, httpx2.Client):
        _settler(os.getpid())
        made: Any = client.with_options(http_client=_Client(inner, metering))
    elif isinstance(client, openai.AsyncOpenAI) and isinstance(inner, httpx2.AsyncClient):
        made = client.with_options(http_client=_AsyncClient(inner, metering))
    else:
        raise InvalidInput(f"{client!r} is no OpenAI or AsyncOpenAI client over httpx2")
    kind: Any = type(client)
    made.__class__ = _metered(kind)
    return cast(C, made)


@lru_cache(maxsize=64)
def _metered(kind: Any) -> type:
    """The subclass of a client's class that its wrapped clients have."""

    class Metered(kind):  # type: ignore[misc]
        __slots__ = ()  # so that a client can be made one

        def __init__(self, *args: Any, http_client: Any = None, **options: Any) -> None:
            if not isinstance(http_client, _Client | _AsyncClient):
                raise InvalidInput(
                    f"type(client)(...) of a wrapped client would make one that is not metered; make a {kind.__name__} "
                    "of the openai package and wrap it, or use with_options"
                )
            super().__init__(*args, http_client=http_client, **options)

        def copy(self, *, http_client: Any = None, **options: Any) -> Any:
            """The client's own ``copy``, but the HTTP client stays the metered one."""
            if http_client is not None and not isinstance(http_client, _Client | _AsyncClient):
                raise InvalidInput(
                    "a wrapped client keeps its metered HTTP client; give http_client to the plain client and wrap that"
                )
            return super().copy(http_client=http_client, **options)

        with_options = copy

        def _build_request(self, *args: Any, **kwargs: Any) -> httpx2.Request:
            request: httpx2.Request = super()._build_request(*args, **kwargs)
            known = self.__dict__.get(_BASES)
            if known is None or known[0] is not self._base_url:  # which can be set
                known = self.__dict__[_BASES] = (self._base_url, _bases(self))
            request.extensions[_BASES] = known[1]
            return request

        def _prepare_url(self, url: str) -> Any:
            if url[:3].lower() == "ws:" or url[:4].lower() == "wss:":
                self._no_websocket()
            return super()._prepare_url(url)

        def _no_websocket(self, *_: Any, **__: Any) -> NoReturn:
            raise InvalidInput(
                "a WebSocket (realtime, live, responses.connect) is not metered and could spend; open it with a client "
                "that is not wrapped, or call responses.create"
            )

        # what the client calls before it opens a WebSocket
        _websocket_query_params = _websocket_query_params_fallback = _no_websocket
        _configure_realtime = _configure_realtime_with_api_key = _no_websocket

    Metered.__name__, Metered.__qualname__, Metered.__module__ = kind.__name__, kind.__qualname__, kind.__module__
    return Metered


def _bases(client: Any) -> tuple[tuple[bytes, str], ...]:
    """(host, path) of the URLs that a client's routes are below."""
    url, azure = client._base_url, getattr(client, "_azure_endpoint", None)
    bases = [(url.netloc, url.path.rstrip("/") + "/")]
    if azure is not None:  # its routes that belong to no deployment
        bases.append((azure.netloc, azure.path.rstrip("/") + "/openai/"))
    return tuple(bases)


class _Client(httpx2.Client):
    """An HTTP client that meters what it sends through another one."""

    def __init__(self, inner: httpx2.Client, metering: Metering) -> None:
        super().__init__(transport=httpx2.MockTransport(_unused), timeout=inner.timeout, trust_env=False)
        self._inner, self.metering = inner, metering

    def build_request(self, *args: Any, **kwargs: Any) -> httpx2.Request:
        return self._inner.build_request(*args, **kwargs)

    def send(self, request: httpx2.Request, **kwargs: Any) -> httpx2.Response:
        prepared = _prepare(request, self.metering)
        if prepared is None:
            return self._follow(request, kwargs)
        exchange = _Exchange(prepared, Call(self.metering, prepared.planned).start())
        try:
            response = self._follow(prepared.request, kwargs)
            if kwargs.get("stream") and response.status_code < 400:
                return exchange.replaced(response, _Stream(response, exchange))
            response.read()
        except BaseException as error:
            exchange.call.finish(_failure(error))
            raise
        answer = exchange.reading.answer(response.status_code, response.content)
        exchange.keep(answer)
        exchange.call.finish(answer)
        return response

    def _follow(self, request: httpx2.Request, options: dict[str, Any]) -> httpx2.Response:
        """Send, and follow redirects here, so that every request that is really sent was looked at."""
        follow, options = _follows(self._inner, options)
        history: list[httpx2.Response] = []
        while True:
            response = self._inner.send(request, follow_redirects=False, **options)
            response.history = list(history)
            if not follow or response.next_request is None:
                return response
            response.read()
            request = _next(self._inner, request, response)
            history.append(response)
            options["auth"] = None  # the next request carries its own, unless it goes to another host

    def close(self) -> None:
        self._inner.close()
        super().close()


class _AsyncClient(httpx2.AsyncClient):
    """An HTTP client that meters what it sends through another one."""

    def __init__(self, inner: httpx2.AsyncClient, metering: Metering) -> None:
        super().__init__(transport=httpx2.MockTransport(_unused), timeout=inner.timeout, trust_env=False)
        self._inner, self.metering = inner, metering

    def build_request(self, *args: Any, **kwargs: Any) -> httpx2.Request:
        return self._inner.build_request(*args, **kwargs)

    async def send(self, request: httpx2.Request, **kwargs: Any) -> httpx2.Response:
        prepared = _prepare(request, self.metering)
        if prepared is None:
            return await self._follow(request, kwargs)
        exchange = _Exchange(prepared, await Call(self.metering, prepared.planned).astart())
        try:
            response = await self._follow(prepared.request, kwargs)
            if kwargs.get("stream") and response.status_code < 400:
                return exchange.replaced(response, _AsyncStream(response, exchange))
            await response.aread()
        except BaseException as error:
            await exchange.call.afinish(_failure(error))
            raise
        answer = exchange.reading.answer(response.status_code, response.content)
        exchange.keep(answer)
        await exchange.call.afinish(answer)
        return response

    async def _follow(self, request: httpx2.Request, options: dict[str, Any]) -> httpx2.Response:
        """Send, and follow redirects here, so that every request that is really sent was looked at."""
        follow, options = _follows(self._inner, options)
        history: list[httpx2.Response] = []
        while True:
            response = await self._inner.send(request, follow_redirects=False, **options)
            response.history = list(history)
            if not follow or response.next_request is None:
                return response
            await response.aread()
            request = _next(self._inner, request, response)
            history.append(response)
            options["auth"] = None  # the next request carries its own, unless it goes to another host

    async def aclose(self) -> None:
        await self._inner.aclose()
        await super().aclose()


def _follows(inner: httpx2.Client | httpx2.AsyncClient, options: dict[str, Any]) -> tuple[bool, dict[str, Any]]:
    """Whether a client follows redirects, and the other options of a request."""
    follow = options.get("follow_redirects")
    left = {name: value for name, value in options.items() if name != "follow_redirects"}
    return (follow if isinstance(follow, bool) else inner.follow_redirects), left


def _next(
    inner: httpx2.Client | httpx2.AsyncClient, request: httpx2.Request, response: httpx2.Response
) -> httpx2.Request:
    """The request that a redirect leads to.

    Raises:
        InvalidInput: the redirect leads to another route, for which nothing is reserved.
        TooManyRedirects: as httpx raises it.
    """
    redirected = response.next_request
    assert redirected is not None
    if len(response.history) >= inner.max_redirects:
        raise httpx2.TooManyRedirects("Exceeded maximum allowed redirects.", request=request)
    if redirected.method not in _READS:
        route, path = _route(request) or request.url.path.strip("/"), redirected.url.path.rstrip("/")
        same = path.endswith(f"/{route}") and not (route == "completions" and path.endswith("/chat/completions"))
        if not same:
            raise InvalidInput(
                f"{request.method} {request.url.path} was redirected to {redirected.url}, which is another route: it "
                "is not metered and could spend; give the client the base_url that it leads to"
            )
    return redirected


_left_behind: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
"""Settlements of streams that were left early. The garbage collector may be what closes such a stream, and it runs
anywhere, also while its thread holds a lock that settling needs. So another thread settles them, a moment later; until
then they stay reserved. Putting into a SimpleQueue is safe in a destructor."""


@lru_cache(maxsize=1)
def _settler(process: int) -> threading.Thread:
    """The thread that settles streams that were left early, one per process."""

    def run() -> None:
        while True:
            finish = _left_behind.get()
            try:
                finish()
            except Exception:
                _LOG.exception("a stream that was left behind could not be settled")

    thread = threading.Thread(target=run, name="budgeteer-settler", daemon=True)
    thread.start()
    return thread


def _unused(request: httpx2.Request) -> httpx2.Response:
    raise AssertionError(f"{request.url} went past the meter")


def _failure(error: BaseException) -> Answer:
    """How a call ended that raised an error.

    One that was not connected, or redirected elsewhere, was not run. After a later error, or a cancellation, it may
    have run.
    """
    never = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol, InvalidInput)
    return Answer(outcome=Outcome.REJECTED if isinstance(error, never) else Outcome.UNKNOWN)


class _Prepared:
    """A metered request: what is sent, and what is planned for it."""

    def __init__(self, request: httpx2.Request, body: dict[str, Any], metering: Metering, operation: str) -> None:
        bounds = metering.bounds
        changed = self.opaque = False
        parts = unseen(body)
        self.upstream = request.url.netloc.decode("ascii", "replace")
        if operation == "embeddings":
            worst = Usage(input=input_bound(body, bounds, parts), output=0)
        else:
            foreign = [name for name in CAP_LIKE if name in body and name not in CAPS[operation]]
            if foreign:  # where a server ignores it, nothing is capped; where it does not, its own cap is another
                raise InvalidInput(f"{foreign[0]} is no cap of {operation}; give {' or '.join(CAPS[operation])}")
            if cap_name(body) is None and bounds.max_output is not None:
                body[CAPS[operation][0]] = bounds.max_output
                changed = True
            parts = _known(parts, metering, self.upstream, str(body.get("model", "")))
            worst = worst_case(body, bounds, parts)
            self.opaque = bool(parts.hidden)
        hides_usage = ask_for_usage(operation, body)
        attempt = request.headers.get("x-stainless-retry-count", "0")
        self.planned = metering.plan(
            "openai",
            operation,
            str(body.get("model", "")),
            worst,
            str(body.get("service_tier") or ""),
            attempt=int(attempt) if attempt.isdecimal() else 0,
            cap=cap_of(operation, body),
            choices=max(1, choices_of(operation, body)),
            hint=unmeasured(parts, bounds, str(body.get("model", ""))),
        )
        self.reading = Reading(operation, body, metering, hides_usage)
        self.request = request
        if changed or hides_usage:
            headers = [(k, v) for k, v in request.headers.multi_items() if k.lower() != "content-length"]
            self.request = httpx2.Request(
                request.method,
                request.url,
                headers=headers,
                content=json.dumps(body).encode(),
                extensions=request.extensions,
            )


def _known(parts: Unseen, metering: Metering, upstream: str, model: str) -> Unseen:
    """The parts of a request, without references to what clients of this metering were answered.

    Raises:
        InvalidInput: a reference is to anything else, and the bounds do not say what to assume.
    """
    if not parts.references:
        return parts
    try:
        found = bound(parts.references, metering.recent.find([id for _, id in parts.references], upstream))
        if found.model not in ("", model):
            name, id = parts.references[0]
            raise InvalidInput(f"{name} {id[:80]!r} is of an answer of {found.model}; call that model")
    except InvalidInput as error:
        if metering.bounds.max_input is None:
            raise InvalidInput(f"{error}; or give Bounds(max_input=...), the most that such a request reads") from None
        return parts
    return bounded(parts, found.tokens)


def _route(request: httpx2.Request) -> str | None:
    """The path below the client's base URL; None if the request goes elsewhere."""
    path = request.url.path
    for host, base in request.extensions.get(_BASES, ()):
        if request.url.netloc == host and path.startswith(base):
            return path[len(base) :].rstrip("/")
    return None


def _prepare(request: httpx2.Request, metering: Metering) -> _Prepared | None:
    """What to send and reserve; None for a request that is known to generate nothing."""
    if request.method in _READS:
        return None
    route = _route(request)
    path = f"{request.method} {request.url.path}"
    operation = None
    if route is not None and request.method == "POST":
        operation = _ROUTES.get(route) or _ROUTES.get(_DEPLOYMENT.sub("", route, count=1))
        if operation is None and _FREE.fullmatch(route) and not {".", ".."} & {*route.split("/")}:
            return None
    if operation is None:
        raise InvalidInput(f"{path} is not metered and could spend; call it with a client that is not wrapped")
    try:
        body = json.loads(request.read() if isinstance(request.stream, httpx2.SyncByteStream) else request.content)
    except (ValueError, httpx2.RequestNotRead) as error:
        raise InvalidInput(f"{path}: its body is not JSON, so it cannot be bounded") from error
    if not isinstance(body, dict):
        raise InvalidInput(f"{path}: its body is {type(body).__name__}, not an object")
    return _Prepared(request, body, metering, operation)


class _Exchange:
    """A request and what has been read of its answer so far."""

    def __init__(self, prepared: _Prepared, call: Call) -> None:
        self.reading, self.call, self._prepared, self._kept = prepared.reading, call, prepared, False

    def keep(self, answer: Answer | None = None) -> None:
        """Keep what a whole response stands for, once it is there; ``answer``: what was read of it, else of its events
        so far."""
        response, prepared = self.reading.response, self._prepared
        if response is None or self._kept:
            return
        self._kept, planned = True, prepared.planned
        usage = (answer or self.reading.at_end()).usage or Usage()
        stored = stored_in(response, usage, planned.worst, planned.model, prepared.upstream, prepared.opaque)
        self.call.metering.recent.add(stored)

    def events_of(self, response: httpx2.Response) -> Events:
        """The reader of the response's body."""
        return Events(self.reading, self.reading.is_stream(response.headers.get("content-type", "")))

    def replaced(self, response: httpx2.Response, stream: Any) -> httpx2.Response:
        """The response with ``stream`` as its body, which is decoded: the headers of its encoding are left out."""
        dropped = ("content-encoding", "content-length", "transfer-encoding")
        headers = [(k, v) for k, v in response.headers.multi_items() if k.lower() not in dropped]
        made = httpx2.Response(
            response.status_code,
            headers=headers,
            stream=stream,
            request=response.request,
            extensions=response.extensions,
        )
        made.history = response.history
        return made


class _Stream(httpx2.SyncByteStream):
    """The body of a response on its way to the client."""

    def __init__(self, response: httpx2.Response, exchange: _Exchange) -> None:
        self.response, self.exchange = response, exchange
        self.events, self.ended = exchange.events_of(response), False

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._pieces()
        except GeneratorExit:
            self.close()
            raise
        except BaseException:
            self._finish()
            raise
        self._finish()

    def _pieces(self) -> Iterator[bytes]:
        for piece in self.response.iter_bytes():
            passed = self.events.feed(piece)
            reading, call = self.exchange.reading, self.exchange.call
            if call.needs_more(length := reading.length(), reading.least):
                call.extend(max(length, reading.least))
            self.exchange.keep()
            if passed:
                yield passed
        self.ended = True
        rest = self.events.last()
        self.exchange.keep()
        if rest:
            yield rest

    def close(self) -> None:
        if self.ended or self.exchange.reading.done:
            self._finish()
        elif not self.exchange.call.finished:  # left early, or found by the garbage collector
            _left_behind.put(self._finish)

    __del__ = close

    def _finish(self) -> None:
        try:
            self.response.close()
        finally:
            self.exchange.call.finish(self.events.answer(self.response.status_code, self.ended))


class _AsyncStream(httpx2.AsyncByteStream):
    """The body of a response on its way to the client.

    If it is neither read to its end nor closed, its reservation is held until it expires.
    """

    def __init__(self, response: httpx2.Response, exchange: _Exchange) -> None:
        self.response, self.exchange = response, exchange
        self.events, self.ended = exchange.events_of(response), False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self.response.aiter_bytes():
                passed = self.events.feed(piece)
                reading, call = self.exchange.reading, self.exchange.call
                if call.needs_more(length := reading.length(), reading.least):
                    await call.aextend(max(length, reading.least))
                self.exchange.keep()
                if passed:
                    yield passed
            self.ended = True
            rest = self.events.last()
            self.exchange.keep()
            if rest:
                yield rest
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        try:
            await self.response.aclose()
        finally:
            await self.exchange.call.afinish(self.events.answer(self.response.status_code, self.ended))
