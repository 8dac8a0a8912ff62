"""Budgets for the openai client: ``client = wrap(OpenAI(), allowance)`` and use it as before.

The meter sits below the client's retries, at its HTTP client: every attempt is reserved and settled by itself, whatever
method made it (``create``, ``parse``, ``stream``, raw responses, other libraries that take an openai client), for chat
completions, completions, responses and embeddings. Other routes that could generate are refused, so that nothing runs
outside the budget. A call that does not fit raises :class:`budgeteer.errors.BudgetExceeded`, and is not retried.

What is charged:

- the usage that the provider reports, if it can be true;
- streams: its last chunk, which is asked for (``stream_options``, which a server has to accept) and hidden from who
  did not ask;
- a cut stream, a missing or impossible usage: what was seen, estimated and marked so. llama.cpp's server, for one,
  counts one choice only when ``n`` > 1;
- an error: nothing if the model cannot have run, else what was reserved (``metering.outcome_of_status``).
"""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeVar, cast

from budgeteer.adapters.metering import (
    CUT,
    OK,
    REJECTED,
    UNKNOWN,
    Allowance,
    Answer,
    Call,
    Metering,
    metering_of,
    outcome_of_status,
)
from budgeteer.errors import InvalidInput, MissingExtra
from budgeteer.ledger.estimate import cap_name, count_text, input_bound, worst_case
from budgeteer.usage import Usage

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
_CAPS = {"chat": "max_completion_tokens", "responses": "max_output_tokens", "completions": "max_tokens"}
_FREE = ("/files", "/uploads", "/moderations", "/conversations", "/vector_stores", "/input_tokens", "/cancel")
_LOG = logging.getLogger(__name__)
_TEXT_BYTES = 8
"""Bytes of text a token, at most, on the average of an answer: a usage below that is not believed when n > 1."""


def wrap(client: C, allowance: Allowance | Metering, **options: Any) -> C:
    """A client like this one that spends from an allowance.

    Args:
        client: ``OpenAI`` or ``AsyncOpenAI`` (or a subclass); it stays as it is.
        allowance: what to draw on, or a Metering to share or to keep hold of.
        options: of :class:`budgeteer.adapters.metering.Metering`: kinds, prices, bounds, estimator, state, on_settle.

    Raises:
        InvalidInput: not such a client, or bad options.
    """
    metering = metering_of(allowance, options)
    inner = getattr(client, "_client", None)
    if isinstance(client, openai.OpenAI) and isinstance(inner, httpx2.Client):
        _settler(os.getpid())
        return cast(C, client.with_options(http_client=_Client(inner, metering)))
    if isinstance(client, openai.AsyncOpenAI) and isinstance(inner, httpx2.AsyncClient):
        return cast(C, client.with_options(http_client=_AsyncClient(inner, metering)))
    raise InvalidInput(f"{client!r} is no OpenAI or AsyncOpenAI client over httpx2")


class _Client(httpx2.Client):
    """Another HTTP client, metered."""

    def __init__(self, inner: httpx2.Client, metering: Metering) -> None:
        super().__init__(transport=httpx2.MockTransport(_unused), timeout=inner.timeout, trust_env=False)
        self._inner, self._metering = inner, metering

    def build_request(self, *args: Any, **kwargs: Any) -> httpx2.Request:
        return self._inner.build_request(*args, **kwargs)

    def send(self, request: httpx2.Request, **kwargs: Any) -> httpx2.Response:
        prepared = _prepare(request, self._metering)
        if prepared is None:
            return self._inner.send(request, **kwargs)
        exchange = _Exchange(prepared, Call(self._metering, prepared.planned).start())
        try:
            response = self._inner.send(prepared.request, **kwargs)
            if kwargs.get("stream") and response.status_code < 400:
                return exchange.replaced(response, _Stream(response, exchange))
            response.read()
        except BaseException as error:
            exchange.call.finish(_failure(error))
            raise
        exchange.call.finish(exchange.answer(response.status_code, response.content))
        return response

    def close(self) -> None:
        self._inner.close()
        super().close()


class _AsyncClient(httpx2.AsyncClient):
    """Another HTTP client, metered."""

    def __init__(self, inner: httpx2.AsyncClient, metering: Metering) -> None:
        super().__init__(transport=httpx2.MockTransport(_unused), timeout=inner.timeout, trust_env=False)
        self._inner, self._metering = inner, metering

    def build_request(self, *args: Any, **kwargs: Any) -> httpx2.Request:
        return self._inner.build_request(*args, **kwargs)

    async def send(self, request: httpx2.Request, **kwargs: Any) -> httpx2.Response:
        prepared = _prepare(request, self._metering)
        if prepared is None:
            return await self._inner.send(request, **kwargs)
        exchange = _Exchange(prepared, await Call(self._metering, prepared.planned).astart())
        try:
            response = await self._inner.send(prepared.request, **kwargs)
            if kwargs.get("stream") and response.status_code < 400:
                return exchange.replaced(response, _AsyncStream(response, exchange))
            await response.aread()
        except BaseException as error:
            await exchange.call.afinish(_failure(error))
            raise
        await exchange.call.afinish(exchange.answer(response.status_code, response.content))
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()
        await super().aclose()


_left_behind: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
"""What is to be done about streams that were left early. The garbage collector may be who leaves them, and it runs
anywhere, also while its thread holds a lock that settling needs. So another thread settles them, a moment later; until
then they stay reserved. Putting into a SimpleQueue is safe in a destructor."""


@lru_cache(maxsize=1)
def _settler(process: int) -> threading.Thread:
    """The thread that settles what was left behind, one a process."""

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
    """Not connected: not run. Anything later, a cancellation too: it may have run."""
    never = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)
    return Answer(outcome=REJECTED if isinstance(error, never) else UNKNOWN)


class _Prepared:
    """A metered request: what is sent, and what is planned for it."""

    def __init__(self, request: httpx2.Request, body: dict[str, Any], metering: Metering, operation: str) -> None:
        self.body, self.metering, self.operation = body, metering, operation
        bounds, cap = metering.bounds, None
        changed = False
        if operation == "embeddings":
            worst, self.choices = Usage(input=input_bound(body, bounds), output=0), 0
        else:
            if cap_name(body) is None and bounds.max_output is not None:
                body[_CAPS[operation]] = bounds.max_output
                changed = True
            worst = worst_case(body, bounds)
            name = cap_name(body)
            cap = None if name is None else int(body[name])
            self.choices = int(body.get("n") or 1)
        self.hides_usage = False
        if body.get("stream") and operation in ("chat", "completions"):
            options = body.get("stream_options") or {}
            if not options.get("include_usage"):
                body["stream_options"] = {**options, "include_usage": True}
                self.hides_usage = changed = True
        self.cap = cap
        attempt = request.headers.get("x-stainless-retry-count", "0")
        self.planned = metering.plan(
            "openai", operation, str(body.get("model", "")), worst, str(body.get("service_tier") or ""),
            attempt=int(attempt) if attempt.isdecimal() else 0, cap=cap, choices=max(1, self.choices),
        )  # fmt: skip
        self.request = request
        if changed:
            headers = [(k, v) for k, v in request.headers.multi_items() if k.lower() != "content-length"]
            self.request = httpx2.Request(
                request.method, request.url, headers=headers, content=json.dumps(body).encode(),
                extensions=request.extensions,
            )  # fmt: skip


def _prepare(request: httpx2.Request, metering: Metering) -> _Prepared | None:
    """What to send and reserve; None for what cannot generate."""
    path = request.url.path.rstrip("/")
    operation = next((name for route, name in _ROUTES.items() if path.endswith(f"/{route}")), None)
    if request.method != "POST" or (operation is None and any(part in path for part in _FREE)):
        return None
    if operation is None:
        raise InvalidInput(f"POST {path} is not metered and could spend; call it with a client that is not wrapped")
    try:
        body = json.loads(request.read() if isinstance(request.stream, httpx2.SyncByteStream) else request.content)
    except (ValueError, httpx2.RequestNotRead) as error:
        raise InvalidInput(f"POST {path}: its body is not JSON, so it cannot be bounded") from error
    if not isinstance(body, dict):
        raise InvalidInput(f"POST {path}: its body is {type(body).__name__}, not an object")
    return _Prepared(request, body, metering, operation)


class _Exchange:
    """A request and what has come back of it so far."""

    def __init__(self, prepared: _Prepared, call: Call) -> None:
        self.prepared, self.call = prepared, call
        self.usage: Usage | None = None
        self.model = self.service = ""
        self.text: dict[Any, str] = {}
        self.chunks = self.full = 0
        self.done = False

    def answer(self, status: int, content: bytes) -> Answer:
        """Of a response that came whole."""
        outcome = outcome_of_status(status)
        if outcome != OK:
            return Answer(outcome=outcome)
        try:
            body = json.loads(content)
        except ValueError:
            return Answer()
        return self._whole(body) if isinstance(body, dict) else Answer()

    def _whole(self, body: dict[str, Any]) -> Answer:
        choices = body.get("choices") if isinstance(body.get("choices"), list) else body.get("output")
        texts = [_text_of(choice) for choice in choices] if isinstance(choices, list) else []
        full = [isinstance(c, Mapping) and c.get("finish_reason") == "length" for c in choices or ()]
        usage = self._believed(self._usage(body), texts, full.count(True))
        return Answer(usage, self._tokens(texts), str(body.get("model") or ""), str(body.get("service_tier") or ""))

    def _usage(self, body: Mapping[str, Any]) -> Usage | None:
        given = body.get("usage")
        if not isinstance(given, Mapping):
            return None
        try:
            if self.prepared.operation == "responses":
                return Usage.from_responses(given)
            usage = Usage.from_llama_cpp(body) if "timings" in body else Usage.from_chat(given)
            if self.prepared.operation == "embeddings":
                return Usage(input=usage.input, output=0)
            return usage
        except InvalidInput:
            return None

    def _believed(self, usage: Usage | None, texts: list[str], full: int) -> Usage | None:
        """The usage without its output if that cannot be all: 0 with text, or, of several choices, less than they show.

        ``full`` choices ended at the cap. The others are taken to have at least a token in eight bytes.
        """
        if usage is None or usage.output is None or self.prepared.operation == "embeddings":
            return usage
        least = 1 if any(texts) else 0
        if len(texts) > 1 and self.prepared.choices > 1:
            shown = sorted(max(1, -(-len(text.encode()) // _TEXT_BYTES)) for text in texts)
            least = sum(shown[: len(texts) - full]) + full * (self.prepared.cap or 0)
        if usage.output >= least:
            return usage
        return Usage(input=usage.input, cached=usage.cached, written=usage.written)

    def _tokens(self, texts: list[str]) -> int | None:
        """Tokens seen, by count or bound; None where nothing was, or the model may have thought unseen."""
        body = self.prepared.body
        effort = body.get("reasoning_effort") or body.get("reasoning")
        asked = bool(effort) and effort not in ("none", {"effort": "none"})
        if asked or self.prepared.metering.thinks(self.prepared.planned.model):
            return None
        counter = self.prepared.metering.bounds.tokens
        return sum(max(1, count_text(text, counter)) for text in texts) if texts else None

    # streams

    def event(self, data: bytes) -> bool:
        """Take in one event; whether to pass it on."""
        if data.startswith(b"[DONE]"):
            self.done = True
            return True
        try:
            body = json.loads(data)
        except ValueError:
            return True
        if not isinstance(body, dict):
            return True
        response = body.get("response")
        if self.prepared.operation == "responses":
            kind = str(body.get("type"))
            if isinstance(body.get("delta"), str):
                self._grow((body.get("output_index"), kind), body["delta"])
            if kind in ("response.completed", "response.incomplete", "response.failed") and isinstance(response, dict):
                self.done = True
                body = response
        for choice in body.get("choices") or ():
            if isinstance(choice, dict):
                self._grow(choice.get("index"), _text_of(choice))
                self.full += choice.get("finish_reason") == "length"
        self.model = str(body.get("model") or self.model)
        self.service = str(body.get("service_tier") or self.service)
        usage = self._usage(body)
        if usage is not None:
            self.usage = usage
        only_usage = body.get("choices") == [] and body.get("usage") is not None
        return not (only_usage and self.prepared.hides_usage)

    def _grow(self, key: Any, text: str) -> None:
        if text:
            self.chunks += 1
        self.text[key] = self.text.get(key, "") + text

    def length(self) -> int:
        """Tokens of output so far: by count, or by chunks, each of a token at least."""
        counter = self.prepared.metering.bounds.tokens
        if counter is None:
            return self.chunks
        return sum(count_text(text, counter) for text in self.text.values())

    def at_end(self) -> Answer:
        """Of a stream that is over, whole or cut."""
        texts = list(self.text.values())
        outcome = OK if self.done else CUT
        usage = self._believed(self.usage, texts, self.full)
        return Answer(usage, self._tokens(texts), self.model, self.service, outcome)

    def replaced(self, response: httpx2.Response, stream: Any) -> httpx2.Response:
        """The response with its body watched; the body is decoded, so the headers of its coding go."""
        dropped = ("content-encoding", "content-length", "transfer-encoding")
        headers = [(k, v) for k, v in response.headers.multi_items() if k.lower() not in dropped]
        made = httpx2.Response(
            response.status_code, headers=headers, stream=stream, request=response.request,
            extensions=response.extensions,
        )  # fmt: skip
        made.history = response.history
        return made


def _text_of(choice: Any) -> str:
    """All that a choice, a delta or an output item shows: text, thoughts, refusals, arguments of tools."""
    if isinstance(choice, str):
        return choice
    if isinstance(choice, list):
        return "".join(map(_text_of, choice))
    if not isinstance(choice, Mapping):
        return ""
    names = ("text", "content", "reasoning_content", "reasoning", "refusal", "arguments", "name", "summary")
    parts = [_text_of(choice.get(name)) for name in (*names, "message", "delta", "tool_calls", "function")]
    return "".join(parts)


class _Events:
    """Server-sent events out of pieces of bytes."""

    def __init__(self, exchange: _Exchange, streamed: bool) -> None:
        self.exchange, self.streamed, self.rest = exchange, streamed, b""

    def feed(self, piece: bytes) -> bytes:
        """Take in a piece; what to pass on: whole events, as they came."""
        self.rest += piece
        if not self.streamed:
            return piece
        passed = b""
        while True:
            ends = [(at, len(end)) for end in (b"\n\n", b"\r\n\r\n") if (at := self.rest.find(end)) >= 0]
            if not ends:
                return passed
            at, length = min(ends)
            block, self.rest = self.rest[: at + length], self.rest[at + length :]
            if self._take(block):
                passed += block

    def last(self) -> bytes:
        """What is left at the end of the stream."""
        if not self.streamed or not self.rest:
            return b""
        rest, self.rest = self.rest, b""
        return rest if self._take(rest) else b""

    def _take(self, block: bytes) -> bool:
        lines = [line[5:].strip() for line in block.splitlines() if line.startswith(b"data:")]
        return self.exchange.event(b"\n".join(lines)) if lines else True

    def answer(self, status: int, ended: bool) -> Answer:
        """Of what came, when it is over."""
        if self.streamed:
            return self.exchange.at_end()
        return self.exchange.answer(status, self.rest) if ended else Answer(outcome=UNKNOWN)


def _is_stream(response: httpx2.Response) -> bool:
    return str(response.headers.get("content-type", "")).startswith("text/event-stream")


class _Stream(httpx2.SyncByteStream):
    """The body of a response on its way to the client."""

    def __init__(self, response: httpx2.Response, exchange: _Exchange) -> None:
        self.response, self.exchange = response, exchange
        self.events, self.ended = _Events(exchange, _is_stream(response)), False

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
            if self.exchange.call.needs_more(length := self.exchange.length()):
                self.exchange.call.extend(length)
            if passed:
                yield passed
        self.ended = True
        if rest := self.events.last():
            yield rest

    def close(self) -> None:
        if self.ended or self.exchange.done:
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

    One that is forgotten without being read or closed stays reserved until the reservation expires.
    """

    def __init__(self, response: httpx2.Response, exchange: _Exchange) -> None:
        self.response, self.exchange = response, exchange
        self.events, self.ended = _Events(exchange, _is_stream(response)), False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self.response.aiter_bytes():
                passed = self.events.feed(piece)
                if self.exchange.call.needs_more(length := self.exchange.length()):
                    await self.exchange.call.aextend(length)
                if passed:
                    yield passed
            self.ended = True
            if rest := self.events.last():
                yield rest
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        try:
            await self.response.aclose()
        finally:
            await self.exchange.call.afinish(self.events.answer(self.response.status_code, self.ended))
