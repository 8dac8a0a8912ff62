"""Any OpenAI-compatible endpoint as a Model.

Requests to the endpoint are always streamed: closing the connection stops the sampling (llama.cpp's server, for
example, goes on with a request that is not streamed), a hang shows at once, and of a cut stream a part is left.

A usage is not believed if it is below what was seen (llama.cpp counts one choice when ``n`` > 1), or has no input.
Tokens that an endpoint does not count are bounded by the UTF-8 bytes of the text, so that no charge is too low. An
endpoint that goes on beyond the cap is cut off. An answer that comes whole, although a stream was asked for, is read
whole.

A call that was refused before it ran (429, 503, no connection) is free, so it is tried again here, after the time that
``Retry-After`` names. One that may have run (500, a time-out, a dropped connection) has to be paid for: it raises a
ModelError with ``again`` set, and the holder of the budget decides, such as :class:`budgeteer.solve.Budgeted`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any

from budgeteer.core.errors import EndpointDown, InvalidInput, MissingExtra, ModelError
from budgeteer.core.urls import check_http, without_password
from budgeteer.core.usage import Usage
from budgeteer.metering.estimate import Bounds, count_text, input_bound, too_few
from budgeteer.metering.outcome import NOT_RUN, Outcome, outcome_of_status
from budgeteer.metering.usages import Tellings, usages_in
from budgeteer.models.calls import Calls, api_messages
from budgeteer.models.chat import Chat, Message, Prompt, calls_in, contents, traced, written
from budgeteer.models.dialects import dialect_of, fields, refuses_temperature, variables
from budgeteer.models.model import CALLS, LOGPROBS, PREFILL, PREFIX, Choice, Chunk, Finish, Request, Response, last

try:
    import httpx2
    import openai
except ImportError as error:
    raise MissingExtra("openai", "openai") from error

_TEXT_BYTES = 8
"""Most bytes of text per token on the average of a choice: a usage with fewer tokens is not believed."""
_TOO_LONG = frozenset({"context_length_exceeded", "exceed_context_size_error"})
_CALL_IT = "What time is it? Call the tool clock."
_TOOL = {"type": "function", "function": {"name": "clock", "description": "The time of day.", "parameters": {
    "type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]}}}  # fmt: skip
_LONGEST_ANSWER = 1 << 26
"""Most bytes of an answer that is not streamed."""
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 8.0
"""Seconds of back-off if the endpoint does not say how long to wait: doubled each time, with jitter."""

_KEPT = 4.0
"""Seconds for which an idle connection is kept: many servers close it after 5, just as the next call may go out."""


class OpenAI:
    """A model behind an HTTP endpoint that speaks the OpenAI API: completions for raw text, chat for messages.

    Use it in one event loop only, since its connections belong to one.

    Args:
        base_url: such as ``"http://127.0.0.1:8080/v1"``.
        model: the endpoint's name of the model.
        api_key: None = the environment variable OPENAI_API_KEY, or no key.
        capabilities: those of PREFIX, LOGPROBS, SEED and CALLS that the endpoint has; see ``probe``.
        bounds: how the input tokens of a prompt are bounded; with a tokenizer (``Bounds(tokens=...)``) text is counted.
        extra: further fields of every request.
        max_concurrency: calls at a time; further ones wait.
        retries: most retries of a call that was refused before it ran.
        patience: seconds; a call that should wait longer before its retry fails at once.
        timeout: seconds of one attempt.
        stall: seconds without a byte after which an attempt counts as hung.
        reuse: keep connections for later calls; False for a server that closes them without saying so.
        name: for reports and prices; None = ``model``.
        dialect: of the engine, for how to think; a name of :data:`budgeteer.models.dialects.DIALECTS`. One with prefill
            gives the model PREFILL.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        capabilities: frozenset[str] = frozenset(),
        bounds: Bounds | None = None,
        extra: Mapping[str, Any] | None = None,
        max_concurrency: int = 64,
        retries: int = 5,
        patience: float = 60.0,
        timeout: float = 600.0,
        stall: float = 120.0,
        reuse: bool = True,
        name: str | None = None,
        dialect: str = "openai",
    ) -> None:
        if max_concurrency < 1 or retries < 0 or min(patience, timeout, stall) <= 0:
            raise InvalidInput("max_concurrency is at least 1, retries at least 0, and all times are above 0")
        if dialect_of(dialect).goes_on:
            capabilities |= {PREFILL}
        self.name, self.capabilities, self._model, self.dialect = name or model, capabilities, model, dialect
        self._bounds, self._extra = bounds or Bounds(), dict(extra or {})
        self._retries, self._patience, self._timeout = retries, patience, timeout
        self._gate = asyncio.Semaphore(max_concurrency)
        self._resume, self._failures, self.hides = 0.0, 0, False
        self._heats = True  # until the endpoint says that its model takes no temperature
        self._client = openai.AsyncOpenAI(
            base_url=check_http(base_url, f"model {model!r}"),
            api_key=_key(api_key),
            max_retries=0,
            timeout=httpx2.Timeout(stall, connect=min(stall, 10.0)),
            http_client=_connections(reuse),
        )
        # the API's own models refuse the older name of the cap, and other servers may not know the newer one
        official = self._client.base_url.host == "api.openai.com"
        self._cap_name = "max_completion_tokens" if official else "max_tokens"

    def count(self, prompt: Prompt) -> int:
        """Input tokens of a prompt: counted, or bounded so that no byte-level tokenizer exceeds it.

        Raises:
            InvalidInput: the dialect has no field for how the chat is to think.
        """
        if isinstance(prompt, str):  # one more for a beginning-of-sequence token
            return count_text(prompt, self._bounds.tokens) + 1
        fields(self.dialect, prompt)  # what cannot be asked has no length
        return input_bound({"messages": _messages(prompt), **_tools(prompt)}, self._bounds)

    async def generate(self, request: Request) -> Response:
        """All choices of a request. After a cut stream they hold the text that came, with finish ``"cut"``.

        Raises:
            InvalidInput: the request needs a capability that is not declared, or its prompt is too long.
            ModelError: no answer came; it says whether the call may be billed and whether another attempt may succeed.
        """
        return await last(self.stream(request))

    async def stream(self, request: Request) -> AsyncGenerator[Chunk | Response, None]:
        """Chunks as they come, then the Response; raises what ``generate`` raises."""
        self._check(request)
        async with self._gate:
            request = replace(request, prompt=await self._prepared(request.prompt))
            attempt = 0
            while True:
                while (wait := self._resume - time.monotonic()) > 0:
                    await asyncio.sleep(wait)
                deadline = asyncio.get_running_loop().time() + self._timeout
                reply = _Reply(request, self._bounds, self.hides)
                failure: BaseException | None = None
                heated = self._heats
                try:
                    async with asyncio.timeout_at(deadline):
                        upstream = await self._open(request)
                except (openai.APIError, httpx2.HTTPError, TimeoutError) as error:
                    if heated and refuses_temperature(getattr(error, "status_code", 0), str(error)):
                        self._heats = False
                        continue
                    failure = error
                else:
                    try:
                        pieces = _events(upstream)
                        while not reply.beyond:
                            try:
                                async with asyncio.timeout_at(deadline):
                                    event = await anext(pieces)
                            except StopAsyncIteration:
                                break
                            except (openai.APIError, httpx2.HTTPError, TimeoutError, ValueError) as error:
                                failure = error
                                break
                            try:
                                chunks = reply.take(event)
                            except (AttributeError, TypeError) as error:
                                failure = _NoAnswer(_strange(event, request.prompt, error))
                                break
                            for chunk in chunks:
                                yield chunk
                    finally:
                        await upstream.close()
                if reply.seen or (failure is None and reply.finished):
                    self._failures = 0
                    response = reply.response()
                    self.hides |= bool(response.usage.reasoning)
                    yield response
                    return
                attempt += 1
                await self._recover(failure, attempt)

    def _check(self, request: Request) -> None:
        needs = {
            PREFIX: isinstance(request.prompt, str) and "continue raw text; give messages",
            LOGPROBS: request.logprobs and "report log-probabilities",
            CALLS: not isinstance(request.prompt, str) and request.prompt.tools and "call tools",
        }
        for capability, lacking in needs.items():
            if lacking and capability not in self.capabilities:
                raise InvalidInput(f"{self.name} does not {lacking}, or declare {capability!r} if it does")
        if request.steer is not None:
            raise InvalidInput(f"{self.name} is a black box; choose a strategy that needs no internals")

    async def _prepared(self, prompt: Prompt) -> Prompt:
        """The prompt as it is sent: what is begun follows the chat as raw text, where the server can render that.

        Raises:
            ModelError: the server does not render it; nothing was sampled.
        """
        render = dialect_of(self.dialect).render
        if isinstance(prompt, str) or not prompt.begun or render is None:
            return prompt
        fields(self.dialect, prompt)  # what the engine cannot do is an error here, too
        messages = api_messages(prompt.messages)
        try:
            rendered = await render(self._post, self._model, messages, variables(prompt.thinking))
        except (openai.APIError, httpx2.HTTPError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{self.name} did not render the chat: {error!r}", billed=False) from error
        return written(rendered, prompt.begun, prompt.tags)

    async def _post(self, path: str, body: dict[str, Any]) -> Any:
        """What the server answers on a path beside the API's."""
        root = str(self._client.base_url).rstrip("/").removesuffix("/v1")
        return await self._client.post(f"{root}{path}", body=body, cast_to=object)

    async def _open(self, request: Request) -> Any:
        body: dict[str, Any] = {"model": self._model, "n": request.n}
        if self._heats:
            body["temperature"] = request.temperature
        if request.stop:
            body["stop"] = list(request.stop)
        if request.seed is not None:
            body["seed"] = request.seed
        body |= {"stream": True, "stream_options": {"include_usage": True}, "extra_body": self._extra}
        try:
            if isinstance(request.prompt, str):
                if request.logprobs:
                    body["logprobs"] = 1
                prompt, most = request.prompt, request.max_tokens
                return await self._client.completions.create(prompt=prompt, max_tokens=most, **body)
            if request.logprobs:
                body["logprobs"] = True
            messages: Any = _messages(request.prompt)
            body |= {self._cap_name: request.max_tokens, **_tools(request.prompt)}
            body["extra_body"] = {**fields(self.dialect, request.prompt), **self._extra}
            return await self._client.chat.completions.create(messages=messages, **body)
        except UnicodeEncodeError as error:  # while the request was written, so it was not sent
            raise InvalidInput(
                f"{self.name}: the request cannot be written as UTF-8 and was not sent: {error.object[error.start]!r} "
                "is half of a character (a lone surrogate); replace it in the prompt, by "
                "text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')"
            ) from error
        except (TypeError, ValueError) as error:
            raise InvalidInput(
                f"{self.name}: the request cannot be written as JSON and was not sent ({error}); give finite numbers "
                "and plain values, in extra too"
            ) from error

    async def _recover(self, error: BaseException | None, attempt: int) -> None:
        """Wait until a call that failed may be sent again, or raise."""
        failure = self._failure(error)
        transient = failure.again or (not failure.billed and _transient(error))
        wait = _asked_wait(error)
        if wait is None:
            wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2.0**self._failures) * random.uniform(0.5, 1.0)
        if transient and wait <= self._patience:  # for all calls: the endpoint is what is in trouble
            self._failures += time.monotonic() >= self._resume  # those that were under way at the same time are one
            self._resume = max(self._resume, time.monotonic() + wait)
        if failure.billed or not transient or attempt > self._retries or wait > self._patience:
            raise failure from error

    def _failure(self, error: BaseException | None) -> ModelError:
        """The error to raise for a failed call: it says whether the call may be billed."""
        if error is None:
            return ModelError(f"{self.name} answered without a choice or an end", billed=True, again=True)
        said = f"{self.name}: {type(error).__name__}: {error}"
        if isinstance(error, openai.APIStatusError):
            if error.type in _TOO_LONG or error.code in _TOO_LONG:
                raise InvalidInput(f"{said}; shorten the prompt or lower max_tokens") from error
            billed = outcome_of_status(error.status_code) != Outcome.REJECTED
            return ModelError(said, billed=billed, again=billed)
        if _never_sent(error):
            return EndpointDown(
                f"the endpoint {without_password(str(self._client.base_url))} does not answer ({said}); start it, or "
                "give its right address"
            )
        return ModelError(said, billed=True, again=not isinstance(error, _NoAnswer))

    async def probe(self) -> Usage:
        """Test with two requests of one token, and one that asks for a call, whether the endpoint has PREFIX, LOGPROBS
        and CALLS, and declare those.

        Returns:
            The tokens that this used, which are not reserved in any budget; unknown parts are None.
        """
        declared, used = self.capabilities, Usage(input=0, output=0)
        self.capabilities = declared | {PREFIX, LOGPROBS, CALLS}
        capabilities = set(declared)
        try:
            for capability, request in (
                (PREFIX, Request("1, 2, 3,", 1, temperature=0.0)),
                (LOGPROBS, Request(Chat((Message("user", "Say yes."),)), 1, temperature=0.0, logprobs=True)),
                (CALLS, Request(Chat((Message("user", _CALL_IT),), tools=(json.dumps(_TOOL),)), 256, temperature=0.0)),
            ):
                try:
                    response = await self.generate(request)
                except (ModelError, InvalidInput):
                    continue
                used += Usage(input=response.usage.input, output=response.usage.output)
                made = response.choices[0]
                called = any(call.name == "clock" for call in calls_in(made.text))
                if {PREFIX: True, LOGPROBS: made.logprobs is not None, CALLS: called}[capability]:
                    capabilities.add(capability)
        finally:
            self.capabilities = frozenset(capabilities)
        return used

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()


def _messages(chat: Chat) -> list[dict[str, Any]]:
    """The messages of a chat as the API has them; what the model has written so far is the last one."""
    begun = [Message("assistant", chat.begun)] if chat.begun else []
    return api_messages((*chat.messages, *begun))


def _tools(chat: Chat) -> dict[str, Any]:
    """The field with the tools of a chat, if it has any."""
    return {"tools": [json.loads(tool) for tool in chat.tools]} if chat.tools else {}


def _key(given: str | None) -> str:
    """The key to send: the one that was given, else the environment's, else "none", for servers that need no key.

    Raises:
        InvalidInput: a header cannot hold it.
    """
    key = given or os.environ.get("OPENAI_API_KEY") or "none"
    if not all("!" <= character <= "~" for character in key):
        where = "api_key" if given else "OPENAI_API_KEY"
        raise InvalidInput(
            f"{where} has a character that is no part of any key (an accent, a space, the end of a line); give the key "
            "as it was issued"
        )
    return key


def _connections(reuse: bool) -> httpx2.AsyncClient:
    """An HTTP client that uses the proxies of the environment.

    Raises:
        InvalidInput: a proxy cannot be used.
    """
    limits = httpx2.Limits(max_keepalive_connections=None if reuse else 0, keepalive_expiry=_KEPT)
    try:
        return openai.DefaultAsyncHttpxClient(limits=limits)
    except (ValueError, httpx2.InvalidURL, ImportError) as error:  # a scheme, an address, SOCKS without its package
        named = ", ".join(f"{name}_PROXY={without_password(url)}" for name, url in _proxies().items()) or "none"
        raise InvalidInput(
            f"a proxy of the environment cannot be used ({without_password(str(error))}; it has {named}); unset it, "
            "or give it as http://HOST:PORT"
        ) from error


def _proxies() -> dict[str, str]:
    return {name.upper(): url for name, url in urllib.request.getproxies_environment().items() if name != "no"}


class _NoAnswer(ValueError):
    """The answer is no completion; another attempt would bring the same."""


async def _events(upstream: Any) -> AsyncGenerator[Any, None]:
    """The events of a stream, or the whole answer as one event if the server ignored ``stream``.

    Some servers send a stream of events with the content type of JSON, so the first byte decides.

    Raises:
        _NoAnswer: JSON that is no completion, or too long.
    """
    response = upstream.response
    if response.headers.get("content-type", "").startswith("application/json"):
        pieces = response.aiter_bytes()
        head = b""
        async for piece in pieces:
            head += piece
            if head.strip():
                break
        if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
            yield await _whole(head, pieces)
            return
        response.aiter_bytes = lambda: _after(head, pieces)  # the client's decoder asks for the bytes here
    async for event in upstream:
        yield event


async def _after(head: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The bytes that were read already, then the rest."""
    yield head
    async for piece in pieces:
        yield piece


async def _whole(head: bytes, pieces: AsyncIterator[bytes]) -> Any:
    """An answer that was not streamed.

    Raises:
        _NoAnswer: it is no completion, or has more than 64 MiB.
    """
    content = bytearray(head)
    async for piece in pieces:
        content += piece
        if len(content) > _LONGEST_ANSWER:
            raise _NoAnswer(f"it sent more than {_LONGEST_ANSWER:,} bytes of JSON")
    body = json.loads(content)
    if not isinstance(body, dict) or not isinstance(body.get("choices"), list):
        raise _NoAnswer(f"it sent JSON without choices: {str(body)[:200]}")
    chat = any(isinstance(choice, dict) and "message" in choice for choice in body["choices"])
    return (openai.types.chat.ChatCompletion if chat else openai.types.Completion).construct(**body)


class _Reply:
    """What has come of the answer to a request so far.

    Args:
        request: the request.
        bounds: how tokens of text are counted.
        thinks: whether the model was seen to think without showing it.

    Attributes:
        texts, hidden, calls: [n] answer, thinking and calls of tools of each choice.
        pieces: [n] number of pieces of each choice.
        finish: [n] how each choice ended; None = not yet.
        exact: [n] tokens of each choice as the server counts them; None = it does not.
        seen: whether any text or count came.
        beyond: whether a choice is longer than its cap, so that the endpoint ignores the cap.
    """

    def __init__(self, request: Request, bounds: Bounds, thinks: bool) -> None:
        n = request.n
        self.request, self.counter, self.thinks = request, bounds.tokens, thinks
        self.texts, self.hidden, self.pieces = [""] * n, [""] * n, [0] * n
        self.calls = [Calls() for _ in range(n)]
        self.finish: list[Finish | None] = [None] * n
        self.exact: list[int | None] = [None] * n
        self.logprobs: list[list[float]] = [[] for _ in range(n)]
        self.usage: Usage | None = None
        self.told = Tellings(n)
        self.seen = self.beyond = False

    @property
    def finished(self) -> bool:
        """Whether every choice has ended."""
        return all(self.finish)

    def take(self, event: Any) -> list[Chunk]:
        """Add one event of the completions or the chat API; returns its new text."""
        chunks = []
        choices = [c for c in event.choices or () if isinstance(c.index, int) and 0 <= c.index < self.request.n]
        sampled = (getattr(event, "timings", None) or {}).get("predicted_n")  # llama.cpp's, of the choice it comes with
        for choice in choices:
            i, delta = choice.index, getattr(choice, "delta", None) or getattr(choice, "message", None)
            text = (choice.text if delta is None else delta.content) or ""
            thought = getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None) or ""
            before, shown = self._tokens(i), len(self._trace(i))
            self.texts[i] += text
            self.hidden[i] += thought if isinstance(thought, str) else ""
            called = [_plain(call) for call in getattr(delta, "tool_calls", None) or ()]
            self.calls[i].take(called)
            self.pieces[i] += bool(text or thought or called)
            self.logprobs[i] += _logprobs(choice.logprobs)
            if isinstance(sampled, int) and len(choices) == 1:
                self.exact[i] = max(sampled, self.exact[i] or 0)
            if choice.finish_reason:
                self.finish[i] = Finish.LENGTH if choice.finish_reason == "length" else Finish.STOP
            self.beyond |= self.pieces[i] > self.request.max_tokens
            new = self._tokens(i) - before
            if text or new > 0 or (choice.finish_reason and self.calls[i].text):  # which the trace has from now on
                self.seen = True
                chunks.append(Chunk(i, self._trace(i)[shown:], max(0, new)))
        told = {
            "usage": _plain(event.usage),
            "x_groq": _plain(getattr(event, "x_groq", None)),
            "choices": [{"index": choice.index, "usage": _plain(getattr(choice, "usage", None))} for choice in choices],
        }
        try:
            usages = {choice: Usage.from_chat(usage) for choice, usage in usages_in(told)}
        except InvalidInput:
            self.usage = None
        else:
            if usages:
                size = sum(len(self._written(i).encode()) for i in range(self.request.n))
                self.usage = self.told.so_far(usages, sum(self.pieces), size)
        return chunks

    def _trace(self, i: int) -> str:
        """The text of choice i so far: the answer, with the thinking before it if the chat names tags for that, and its
        calls of tools behind it once it has ended."""
        calls = self.calls[i].text if self.finish[i] else ""
        text = "\n".join(filter(None, (self.texts[i], calls)))
        return traced(self.request.prompt, self.hidden[i], text, stopped=self.finish[i] == Finish.STOP)

    def _written(self, i: int) -> str:
        """All that came of choice i."""
        return self.texts[i] + self.hidden[i] + self.calls[i].text

    def _tokens(self, i: int) -> int:
        """Tokens of choice i so far: exact, or counted or bounded, but at least its pieces and at most its cap."""
        exact = self.exact[i]
        if exact is not None:
            return exact
        text = self._written(i)
        # around calls servers write tokens that no counter of texts sees, so their bytes bound them
        counter = None if self.calls[i].text else self.counter
        bound = max(count_text(text, counter) if text else 0, self.pieces[i])
        return min(bound, self.request.max_tokens)

    def response(self) -> Response:
        """The Response, once no more comes."""
        request, usage = self.request, self.usage or Usage()
        finish = [Finish.LENGTH if self.beyond and f is None else f or Finish.CUT for f in self.finish]
        tokens: list[int | None] = []
        for i in range(request.n):
            ending = self.exact[i] is None and finish[i] == Finish.STOP  # the token that ended it is not in the text
            tokens.append(min(request.max_tokens, self._tokens(i) + ending))
            if finish[i] == Finish.LENGTH:
                tokens[i] = request.max_tokens if self.exact[i] is None else self.exact[i]
        if usage.input is not None and too_few(usage.input, [" ".join(_texts(request.prompt))]):
            usage = Usage(output=usage.output, reasoning=usage.reasoning)
        counted = [t for t in self.exact if t is not None]
        if len(counted) == request.n:
            usage = Usage(input=usage.input, cached=usage.cached, output=sum(counted))
        elif usage.output is not None and usage.output < self._least(finish):
            usage = Usage(input=usage.input, cached=usage.cached, written=usage.written)
        elif usage.output is not None and request.n == 1:
            tokens = [usage.output]
        if usage.output is None and (self.thinks or any(self.hidden)):
            tokens = [None] * request.n  # what it thinks unseen cannot be counted
        made = tuple(
            Choice(self._trace(i), tokens[i], finish[i], tuple(self.logprobs[i]) if self.logprobs[i] else None)
            for i in range(request.n)
        )
        return Response(made, usage)

    def _least(self, finish: list[Finish]) -> int:
        """The fewest tokens that all choices can have together, by which a usage is judged."""
        least = 0
        for i, how in enumerate(finish):
            text = self.texts[i] + self.hidden[i]  # without calls, whose names and brackets are few tokens
            shown = max(self.pieces[i], -(-len(text.encode("utf-8", "surrogatepass")) // _TEXT_BYTES))
            least += self.request.max_tokens if how == Finish.LENGTH and len(finish) > 1 else shown
        return least


def _strange(event: Any, prompt: Prompt, error: Exception) -> str:
    """What is wrong with an event that cannot be read."""
    sent = f"it sent {str(event)[:60]!r}, which is no part of a"
    if isinstance(prompt, str):
        return f"{sent} completion of raw text ({error}); declare it without {PREFIX!r}, so that it is given messages"
    return f"{sent} chat ({error})"


def _texts(prompt: Prompt) -> list[str]:
    """The texts of a prompt; without its tools, which a provider may write in fewer tokens."""
    return contents(prompt if isinstance(prompt, str) else replace(prompt, tools=()))


def _plain(value: Any) -> Any:
    """A part of an event as JSON has it."""
    return value.to_dict(warnings=False) if isinstance(value, openai.BaseModel) else value


def _logprobs(given: Any) -> list[float]:
    """Log-probabilities of a choice of chat (``content``) or of completions (``token_logprobs``; ``content`` from
    llama.cpp)."""
    if given is None:
        return []
    content = getattr(given, "content", None)
    if content:
        return [float(c["logprob"] if isinstance(c, Mapping) else c.logprob) for c in content]
    return [float(p) for p in getattr(given, "token_logprobs", None) or () if p is not None]


def _never_sent(error: BaseException) -> bool:
    """Whether no connection was made."""
    causes = (error, error.__cause__)
    never = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)
    return any(isinstance(cause, never) for cause in causes)


def _transient(error: BaseException | None) -> bool:
    """Whether an endpoint that refused a call may accept the same call later."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code in NOT_RUN and error.code != "insufficient_quota"
    return error is not None and _never_sent(error)


def _asked_wait(error: BaseException | None) -> float | None:
    """Seconds that the endpoint asks to wait, by ``retry-after-ms`` or ``Retry-After`` (seconds or a date)."""
    if not isinstance(error, openai.APIStatusError):
        return None
    headers = error.response.headers
    try:
        if (milliseconds := headers.get("retry-after-ms")) is not None:
            return max(0.0, float(milliseconds) / 1000)
        if (after := headers.get("retry-after")) is None:
            return None
        try:
            return max(0.0, float(after))
        except ValueError:
            return max(0.0, parsedate_to_datetime(after).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
