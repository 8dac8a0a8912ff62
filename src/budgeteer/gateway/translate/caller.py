"""Call a provider through LiteLLM: one request, no retry, no cache, no callback; what it answers is witnessed."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import orjson

from budgeteer.core.errors import MissingExtra
from budgeteer.gateway.translate import shapes
from budgeteer.gateway.translate.driver import Driver
from budgeteer.gateway.translate.fields import fields_of
from budgeteer.gateway.translate.witness import Witness
from budgeteer.metering.reading import cap_of, choices_of

if TYPE_CHECKING:
    import aiohttp

    from budgeteer.gateway.translate.wire import Wire

_OPERATION = {"chat/completions": "chat", "messages": "messages", "responses": "responses"}
_NAMES = {"ollama": "ollama_chat", "vertex": "vertex_ai"}
"""Providers whose name at LiteLLM is another."""
_NO_KEY = "none"
_OF_OLLAMA = {
    "litellm_provider": "ollama_chat",
    "mode": "chat",
    "input_cost_per_token": 0.0,
    "output_cost_per_token": 0.0,
    "supports_function_calling": True,
}
"""What LiteLLM is told of Ollama's models."""
_LONGEST = 300
_NO_ACCESS = 401
"""The status of a call that LiteLLM does not send for what the request has no part in: mostly a key or credentials that
it does not find, or a library that it needs to read them."""


@cache
def _litellm() -> Any:
    """LiteLLM, set so that it does nothing beside translating. Importing it takes seconds.

    Raises:
        MissingExtra: it is not installed.
    """
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it fetches a table of prices
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")  # else it reads a file .env of the current folder
    try:
        import litellm
    except ImportError as error:
        raise MissingExtra("litellm", "litellm") from error
    settings: dict[str, Any] = {
        "telemetry": False,
        "suppress_debug_info": True,
        "drop_params": False,
        "modify_params": False,
        "num_retries": 0,
        "cache": None,
        "callbacks": [],
        "success_callback": [],
        "failure_callback": [],
        "input_callback": [],
        "disable_hf_tokenizer_download": True,
        "use_chat_completions_url_for_anthropic_messages": True,
        "turn_off_message_logging": True,
    }
    for name, value in settings.items():
        setattr(litellm, name, value)
    return litellm


def about(driver: Driver) -> str:
    """The driver in words, for ``serve --check``."""
    _litellm()
    return f"driver litellm {version('litellm')}, provider {driver.provider}"


class Caller:
    """Calls one upstream.

    Args:
        driver: how.
        base_url: the provider's address; "" = its usual one.
        key: its API key; "" = what LiteLLM finds in the environment.

    Raises:
        MissingExtra: LiteLLM is not installed.
    """

    def __init__(self, driver: Driver, base_url: str, key: str) -> None:
        self._driver, self._base_url, self._key = driver, base_url, key
        _litellm()

    async def post(
        self, session: aiohttp.ClientSession, timeout: aiohttp.ClientTimeout, route: str, content: bytes
    ) -> Translated:
        """Send a request of a client's dialect to the provider.

        Args:
            session: the gateway's connections.
            timeout: for connecting.
            route: such as chat/completions.
            content: the body as ``prepare`` has written it, with its cap.

        Returns:
            The answer in the client's dialect, or the error with the provider's status.

        Raises:
            ClientError, TimeoutError, OSError: the provider was not reached, or its answer broke off.
        """
        from budgeteer.gateway.translate.wire import Wire

        body, operation = orjson.loads(content), _OPERATION[route]
        streamed = bool(body.get("stream"))
        witness = Witness(streamed, streamed and self._driver.provider == "bedrock", choices_of(operation, body))
        wire = Wire(session, timeout, cap_of(operation, body) or 0, witness)
        try:
            answer = await self._call(operation, body, streamed, wire)
            if not streamed:
                return _whole(operation, shapes.plain(answer), wire)
            events = _events(answer)
            first = [event async for event in _until_answered(events, wire)]
            if wire.status != 200:
                return _refused(operation, wire, "")
            return Translated(200, "text/event-stream", wire, b"", _pieces(operation, first, events, wire))
        except Exception as error:  # LiteLLM raises errors of every kind; the wire knows what has happened
            wire.close()
            unsent = 0
            if not wire.sent:
                unsent = 400 if wire.problem or getattr(error, "status_code", 0) == 400 else _NO_ACCESS
            return _refused(operation, wire, _cleaned(str(error), self._key), unsent)
        except BaseException:
            wire.close()
            raise

    async def _call(self, operation: str, body: Mapping[str, Any], streamed: bool, wire: Wire) -> Any:
        import httpx
        from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

        litellm, provider = _litellm(), self._driver.provider
        model = str(body["model"])
        if provider == "ollama":  # else LiteLLM asks the server about the model (/api/show), beside this connection
            litellm.model_cost.setdefault(f"ollama_chat/{model.lower()}", _OF_OLLAMA)
        client: Any = AsyncHTTPHandler(transport=wire, follow_redirects=False)
        if provider == "openai":
            from openai import AsyncOpenAI

            http: Any = httpx.AsyncClient(transport=wire, trust_env=False)
            client = AsyncOpenAI(
                api_key=self._key or None,
                base_url=self._base_url or None,
                max_retries=0,
                http_client=http,
            )
        calls = {"chat": litellm.acompletion, "messages": litellm.anthropic_messages, "responses": litellm.aresponses}
        call = calls[operation]
        more: dict[str, Any] = {"stream_options": {"include_usage": True}} if streamed and operation == "chat" else {}
        if operation == "chat":
            more["max_retries"] = 0
        return await call(
            **fields_of(body, operation),
            model=f"converse/{model}" if provider == "bedrock" else model,
            custom_llm_provider=_NAMES.get(provider, provider),
            api_base=self._base_url or None,
            api_key=self._key or (_NO_KEY if provider == "ollama" else None),
            client=client,
            stream=streamed,
            num_retries=0,
            caching=False,
            **dict(self._driver.options),
            **more,
        )


class Translated:
    """A provider's answer in the client's dialect; it is read as one of aiohttp's.

    Attributes:
        status, headers: as the client's dialect has them.
        content: itself, for ``content.iter_any``.
    """

    def __init__(
        self, status: int, kind: str, wire: Wire, body: bytes, pieces: AsyncIterator[bytes] | None = None
    ) -> None:
        self.status, self._wire, self._body, self._pieces = status, wire, body, pieces
        self.headers = {"content-type": kind}
        if "retry-after" in wire.headers:
            self.headers["retry-after"] = wire.headers["retry-after"]
        self.content = self

    async def read(self) -> bytes:
        """The whole body."""
        return self._body if self._pieces is None else b"".join([piece async for piece in self._pieces])

    async def iter_any(self) -> AsyncIterator[bytes]:
        """The body as it comes."""
        if self._pieces is None:
            yield self._body
            return
        async for piece in self._pieces:
            yield piece

    def release(self) -> None:
        """Nothing: the connection went back when its last byte was read."""

    def close(self) -> None:
        """Close the connection to the provider."""
        self._wire.close()


def _whole(operation: str, answer: dict[str, Any], wire: Wire) -> Translated:
    if not wire.sent:  # LiteLLM went another way, so that nothing is known of the bill
        return _unread(operation, wire, "the translation did not use the connection that it was given")
    return Translated(200, "application/json", wire, orjson.dumps(shapes.whole(operation, answer, wire.witness)))


def _refused(operation: str, wire: Wire, why: str, unsent: int = 0) -> Translated:
    """The error in place of an answer: the provider's, the connection's or the translation's.

    ``unsent``: the status of an error of the translation before it sent anything, so that it cost nothing; 0 = another.
    """
    if wire.error is not None:
        raise wire.error
    witness = wire.witness
    if wire.status >= 300:
        error = _error_in(wire.refusal)
        message = error.get("message") if isinstance(error, Mapping) else error
        return Translated(
            wire.status, "application/json", wire, shapes.refusal(operation, wire.status, str(message), error)
        )
    if witness.error is not None:
        return Translated(200, "application/json", wire, orjson.dumps({"error": witness.error}))
    if unsent:
        return Translated(unsent, "application/json", wire, shapes.refusal(operation, unsent, wire.problem or why))
    return _unread(operation, wire, why)


def _unread(operation: str, wire: Wire, why: str) -> Translated:
    """The error of a call that may have run, and whose answer is not known."""
    text = f"the provider's answer was not understood: {why}"[:_LONGEST]
    return Translated(502, "application/json", wire, shapes.refusal(operation, 502, text))


def _error_in(body: bytes) -> Any:
    """The error that a body says, or its beginning."""
    try:
        said = orjson.loads(body)
    except ValueError:
        return body[:_LONGEST].decode("utf-8", "replace")
    if isinstance(said, list) and said:  # Gemini's, where a stream was asked for
        said = said[0]
    return said.get("error") or said if isinstance(said, dict) else said


def _cleaned(text: str, key: str) -> str:
    """An error of LiteLLM's without the upstream's key, and without the lines of code that it adds."""
    text = text.split("\nTraceback", 1)[0].strip()
    return (text.replace(key, "***") if key else text)[:_LONGEST]


async def _events(stream: Any) -> AsyncIterator[dict[str, Any]]:
    """The events of a stream of LiteLLM's: objects, or bytes of server-sent events."""
    async for item in stream:
        if not isinstance(item, bytes | str):
            yield shapes.plain(item)
            continue
        for line in (item.encode() if isinstance(item, str) else item).splitlines():
            if line.startswith(b"data:") and line[5:].strip().startswith(b"{"):
                yield orjson.loads(line[5:])


async def _until_answered(events: AsyncIterator[dict[str, Any]], wire: Wire) -> AsyncIterator[dict[str, Any]]:
    """Events up to the first after the provider has answered: some are written before anything is sent."""
    async for event in events:
        yield event
        if wire.status:
            return


async def _pieces(
    operation: str, first: list[dict[str, Any]], events: AsyncIterator[dict[str, Any]], wire: Wire
) -> AsyncIterator[bytes]:
    """The bytes of a stream: translated events as far as the provider said what they say, and the end that it had."""
    witness = wire.witness
    try:
        for event in first:
            if (passed := shapes.passed(operation, event, witness)) is not None:
                yield shapes.event_of(passed, operation)
        async for event in events:
            if (passed := shapes.passed(operation, event, witness)) is not None:
                yield shapes.event_of(passed, operation)
    except Exception:  # of every kind, as LiteLLM raises them
        if wire.error is None and witness.ended and witness.error is None:
            witness.error = {"message": "the provider's answer was not understood", "code": 502}
    for piece in shapes.ending(operation, witness, wire.error is not None):
        yield piece
    if wire.error is not None and operation != "responses":  # whose last event says so already
        raise wire.error
