"""The body of a request, up to a size; how long it may take is the caller's business."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from budgeteer.gateway.refusal import Refused

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
UNREAD = ("too_large", "too_slow", "left")
"""Refusals that leave part of a body unread, so that the connection is of no more use."""


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, most: int) -> bytes:
    """All bytes of a body.

    Raises:
        Refused: it has more than ``most`` bytes, or its client goes away before it is whole.
    """
    said = headers.get(b"content-length", b"0")
    if not said.isdigit() or int(said) > most:
        raise Refused(413, "too_large", f"the body has {said.decode('latin-1')} bytes; at most {most:,} are read")
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "left", "the client went away before its request was whole")
        piece = message.get("body", b"")
        size += len(piece)
        if size > most:
            raise Refused(413, "too_large", f"the body has more than {most:,} bytes")
        if not message.get("more_body"):
            return bytes(piece) if not pieces else b"".join([*pieces, piece])
        pieces.append(piece)


def too_slow(seconds: float) -> Refused:
    """Of a body that was not whole in time."""
    return Refused(400, "too_slow", f"the body was not whole after {seconds:g} s")
