"""The body of a request, up to a size; how long it may take is the caller's business."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from budgeteer.gateway.asgi import Receive
from budgeteer.gateway.refusal import Refused

T = TypeVar("T")
_AT_ONCE = 20
"""So many bodies of the largest size may be held before they are looked at, half of them of one key."""

LARGE = 65_536
"""Bytes of a body from which on it is read in a thread, so that others are served meanwhile; one at a time, since they
would take turns at Python's lock."""


class Aside:
    """The thread for work over large bodies."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "budgeteer-bodies")

    async def do(self, size: int, work: Callable[..., T], *args: Any) -> T:
        """Do some work over so many bytes: at once if they are few, else in the thread."""
        if size < LARGE:
            return work(*args)
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)

    def close(self) -> None:
        """Begin nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)


class Room:
    """Memory for bodies that nobody has looked at yet, so that nothing is reserved for them.

    Args:
        body_bytes: of the largest body.
    """

    def __init__(self, body_bytes: int) -> None:
        self.most, self.used = _AT_ONCE * body_bytes, 0
        self.of: Counter[str] = Counter()

    def take(self, key: str, size: int) -> None:
        """Take room for more bytes of a key's bodies.

        Raises:
            Refused: there is none.
        """
        if self.used + size > self.most or self.of[key] + size > self.most // 2:
            raise Refused(503, "busy", "too many bodies are on their way at once; try again", 1)
        self.used += size
        self.of[key] += size

    def give(self, key: str, size: int) -> None:
        """Give room back."""
        self.used -= size
        self.of[key] -= size
        if not self.of[key]:
            del self.of[key]


async def read_body(
    headers: Mapping[bytes, bytes], receive: Receive, most: int, take: Callable[[int], None] | None = None
) -> bytes:
    """All bytes of a body.

    Args:
        headers: of the request.
        receive: of ASGI.
        most: bytes of it.
        take: told of bytes before they are kept; it may refuse them.

    Raises:
        Refused: it has more than ``most`` bytes, or its client goes away before it is whole.
    """
    said = headers.get(b"content-length", b"0")
    if len(said) > 20 or not said.isdigit() or int(said) > most:
        raise _too_large(f"{said[:20].decode('latin-1')} bytes", most)
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "left", "the client went away before its request was whole")
        piece = message.get("body", b"")
        size += len(piece)
        if size > most:
            raise _too_large(f"more than {most:,} bytes", most)
        if take is not None:
            take(len(piece))
        if not message.get("more_body"):
            return bytes(piece) if not pieces else b"".join([*pieces, piece])
        pieces.append(piece)


def _too_large(size: str, most: int) -> Refused:
    return Refused(
        413, "too_large", f"the body has {size}; at most {most:,} are read: raise body_bytes of [server] to take more"
    )


def too_slow(seconds: float) -> Refused:
    """Of a body that was not whole in time."""
    return Refused(400, "too_slow", f"the body was not whole after {seconds:g} s")
