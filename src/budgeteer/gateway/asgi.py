"""ASGI for the gateway's files: types, the token and labels of a request, and sending a whole answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
SHOW_KEY = "budgeteer.show_key"
"""Entry of an ASGI scope: a function to call once its request has shown a valid key."""


def show_key(scope: Scope) -> None:
    """Tell the connection that its request has shown a valid key, so that it is no longer limited as a stranger's."""
    known = scope.get(SHOW_KEY)
    if known is not None:
        known()


def token(headers: Mapping[bytes, bytes]) -> str:
    """The API key in a request's headers, as OpenAI's or Anthropic's clients send it; "" if there is none."""
    authorization = headers.get(b"authorization", b"")
    if authorization[:7].lower() == b"bearer ":
        return authorization[7:].strip().decode("latin-1")
    return headers.get(b"x-api-key", b"").decode("latin-1")


def label(headers: Mapping[bytes, bytes], name: bytes) -> str:
    """What a header labels a request with, at most 200 characters; "" if it is not there."""
    value = headers.get(name)
    return "" if value is None else value.decode("utf-8", "replace").strip()[:200]


async def reply(send: Send, status: int, content: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """Send a whole answer; its content-length is appended to ``headers``."""
    headers.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
