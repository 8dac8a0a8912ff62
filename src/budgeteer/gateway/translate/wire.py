"""The connection that LiteLLM is handed for one call: it sends one request, over the gateway's own connections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import httpx
import orjson
from yarl import URL

from budgeteer.core.errors import InvalidInput
from budgeteer.gateway.translate.witness import Witness

_CAPS = frozenset(
    ("max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens", "maxTokens", "num_predict")
)
"""What providers call the output cap, at the top of a request or in an object there."""
_DROPPED = frozenset(("host", "connection", "content-length", "accept-encoding", "transfer-encoding"))
_LONGEST_ERROR = 1024 * 1024


class Wire(httpx.AsyncBaseTransport):
    """A transport of httpx for one call.

    Args:
        session: the gateway's connections.
        timeout: for connecting.
        cap: the output tokens that are reserved; a request that does not have a cap, or a larger one, is not sent.
        witness: reads the answer's bytes as they come.

    Attributes:
        sent: whether a request was sent, or may have been.
        problem: why a request was not sent; "" = there is none.
        error: the error of the connection; None = none.
        status, headers: of the provider's answer; 0 before it.
        refusal: the body of an error status.
    """

    def __init__(
        self, session: aiohttp.ClientSession, timeout: aiohttp.ClientTimeout, cap: int, witness: Witness
    ) -> None:
        self._session, self._timeout, self._cap, self.witness = session, timeout, cap, witness
        self.sent, self.problem, self.status, self.refusal = False, "", 0, b""
        self.headers: Mapping[str, str] = {}
        self.error: BaseException | None = None
        self._response: aiohttp.ClientResponse | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, unless it is a second one or goes beyond its cap."""
        content = await request.aread()
        if self.sent or request.method != "POST":
            self.problem = self.problem or "the translation sends more than one request"
        elif not _capped(content, self._cap):
            self.problem = f"the translation for this provider does not keep the cap of {self._cap:,} output tokens"
        if self.problem:
            raise httpx.UnsupportedProtocol(self.problem)
        self.sent = True
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _DROPPED}
        try:
            self._response = response = await self._session.post(
                URL(str(request.url), encoded=True),
                data=content,
                headers={**headers, "accept-encoding": "identity"},
                allow_redirects=False,
                timeout=self._timeout,
            )
            self.headers = response.headers
            if response.status >= 300:
                self.refusal = await response.content.read(_LONGEST_ERROR)
                self.close()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.error = error
            raise httpx.RemoteProtocolError(type(error).__name__) from error
        self.status = response.status
        kind = {"content-type": response.headers.get("content-type", "")}
        if self.status >= 300:
            return httpx.Response(self.status, headers=kind, content=self.refusal)
        return httpx.Response(self.status, headers=kind, stream=_Stream(self, response))

    async def aclose(self) -> None:
        """Nothing: LiteLLM closes a client that it makes of this one, while the call goes on."""

    def close(self) -> None:
        """Close the connection, so that the provider sees that nobody reads on."""
        if self._response is not None:
            self._response.close()


class _Stream(httpx.AsyncByteStream):
    def __init__(self, wire: Wire, response: aiohttp.ClientResponse) -> None:
        self._wire, self._response = wire, response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        witness = self._wire.witness
        try:
            async for piece in self._response.content.iter_any():
                witness.feed(piece)
                yield piece
        except (aiohttp.ClientError, TimeoutError, OSError, InvalidInput) as error:
            self._wire.error = error
            raise httpx.RemoteProtocolError(type(error).__name__) from error
        witness.last()
        self._response.release()

    async def aclose(self) -> None:
        if not self._response.closed:
            self._response.close()


def _capped(content: bytes, cap: int) -> bool:
    """Whether a request has an output cap of at most ``cap``, and no larger one."""
    try:
        body = orjson.loads(content)
    except ValueError:
        return False
    inner = body.values() if isinstance(body, dict) else ()
    caps: list[Any] = []
    for part in (body, *inner):
        if isinstance(part, dict):
            caps += [part[name] for name in _CAPS if name in part]
    return bool(caps) and all(type(value) is int and 0 < value <= cap for value in caps)
