"""What the gateway's files share of ASGI: its types, a request's token, and an answer that is sent whole."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
SHOW_KEY = "budgeteer.show_key"
"""Entry of an ASGI scope: a function to call when its request showed a valid key."""


def show_key(scope: Scope) -> None:
    """Tell the connection of a request that it showed a valid key."""
    known = scope.get(SHOW_KEY)
    if known is not None:
        known()


def token(headers: Mapping[bytes, bytes]) -> str:
    """The bearer's token, as OpenAI's or Anthropic's clients send it."""
    authorization = headers.get(b"authorization", b"")
    if authorization[:7].lower() == b"bearer ":
        return authorization[7:].strip().decode("latin-1")
    return headers.get(b"x-api-key", b"").decode("latin-1")


async def reply(send: Send, status: int, content: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """Send an answer; its length is added to the headers."""
    headers.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
