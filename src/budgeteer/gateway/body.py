"""Read the body of a request up to a size. The caller sets the time-out."""

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
"""Bodies of the largest size that may be in memory before they are parsed; one key may have half of them."""

LARGE = 65_536
"""Bodies of this many bytes or more are parsed in a thread, so that others are served meanwhile; one at a time, since
two would only wait for each other at Python's lock."""


class Aside:
    """The thread that works on large bodies."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "budgeteer-bodies")

    async def do(self, size: int, work: Callable[..., T], *args: Any) -> T:
        """The result of ``work(*args)`` over ``size`` bytes: computed at once below LARGE, else in the thread."""
        if size < LARGE:
            return work(*args)
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)

    def close(self) -> None:
        """Start no further work, and drop what has not started."""
        self._thread.shutdown(wait=False, cancel_futures=True)


class Room:
    """Limits the memory of bodies that are not parsed yet, since no budget is reserved for them until then.

    Args:
        body_bytes: the size of the largest body.
    """

    def __init__(self, body_bytes: int) -> None:
        self.most, self.used = _AT_ONCE * body_bytes, 0
        self.of: Counter[str] = Counter()

    def take(self, key: str, size: int) -> None:
        """Take ``size`` bytes for the bodies of a key.

        Raises:
            Refused: too many bytes are taken already, by all keys or by this one.
        """
        if self.used + size > self.most or self.of[key] + size > self.most // 2:
            raise Refused(503, "busy", "too many bodies are on their way at once; try again", 1)
        self.used += size
        self.of[key] += size

    def give(self, key: str, size: int) -> None:
        """Give ``size`` bytes of a key back."""
        self.used -= size
        self.of[key] -= size
        if not self.of[key]:
            del self.of[key]


async def read_body(
    headers: Mapping[bytes, bytes], receive: Receive, most: int, take: Callable[[int], None] | None = None
) -> bytes:
    """Read a whole body.

    Args:
        headers: the request's headers.
        receive: the ASGI function that receives its messages.
        most: bytes that the body may have.
        take: called with the size of each piece before it is kept; it may raise Refused.

    Raises:
        Refused: the body has more than ``most`` bytes, or the client goes away before it is whole.
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
    """The error of a body that did not arrive whole within ``seconds``."""
    return Refused(400, "too_slow", f"the body was not whole after {seconds:g} s")
