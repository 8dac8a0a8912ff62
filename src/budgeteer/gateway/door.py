"""HTTP connections under uvicorn, with limits on what a client may send and hold open before it shows a valid key.

A connection that has not shown a valid key belongs to a stranger. The number of strangers and their time are limited,
and only their headers are read, never a body. All limits apply to bytes and connections, before the application sees a
request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn

from budgeteer.core.errors import MissingExtra
from budgeteer.gateway.asgi import SHOW_KEY
from budgeteer.gateway.config import Server

try:
    import httptools
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
except ImportError as error:
    raise MissingExtra("uvicorn", "gateway") from error

_LINGER, _DROPPED = 2.0, 1_000_000
"""Seconds, and bytes, for which the rest of a refused body is still read and dropped. A socket that is closed with
unread bytes resets the connection, and the client would lose the answer that says why."""
_PIPELINED = 16
"""Pipelined requests that may wait on a connection for earlier answers."""
_ONCE = (b"authorization", b"x-api-key", b"host")
"""Headers that name who asks, or whom: they may stand only once, since another proxy may have checked the other one."""


class _Transport:
    """A transport that sends the head of an answer together with the body that follows (one packet, one system call).

    It does not close while a request body is still arriving: it then closes its sending side only, and drops what
    arrives for a moment.

    Attributes:
        unread: whether part of a request has not arrived yet.
        lingering: whether it only waits for that part, to drop it.
        resume: called to go on reading.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop, self._head = transport, loop, b""
        self.unread = self.lingering = False
        self.resume: Callable[[], None] = transport.resume_reading

    def write(self, data: bytes) -> None:
        if self.lingering:
            return
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(b"HTTP/1.1 "):
            self._head = data
            self._loop.call_soon(self._flush)
            return
        self._transport.write(data)

    def _flush(self) -> None:
        if self._head:
            data, self._head = self._head, b""
            self._transport.write(data)

    def close(self) -> None:
        if self.lingering:
            return
        self._flush()
        if not self.unread or self._transport.is_closing():
            self._transport.close()
            return
        self.lingering = True
        self._loop.call_later(_LINGER, self._transport.abort)
        try:
            self._transport.write_eof()
        except OSError:  # the client has reset the connection meanwhile: there is nothing left to read
            self._transport.abort()
            return
        self.resume()

    def is_closing(self) -> bool:
        return self.lingering or self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _too_large(most: int) -> str:
    return f"Headers and trailers are too large, or chunks too small: header_bytes is {most:,}."


def protocol(server: Server, turned_away: Callable[[str], None]) -> type[HttpToolsProtocol]:
    """A protocol class for uvicorn that disconnects clients whose headers are too large, too slow or without a key.

    Args:
        server: the limits.
        turned_away: called with the reason for each connection that is refused.
    """
    strangers: dict[HttpToolsProtocol, asyncio.TimerHandle] = {}
    header_bytes = server.header_bytes

    class Guarded(HttpToolsProtocol):
        _front: _Transport
        _begun: asyncio.TimerHandle | None = None
        _headed = False
        _lasting = False
        _flaw = ""
        _named = _plain = _bodied = _dropped = 0

        # the connection

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            self._front = _Transport(transport, self.loop)
            super().connection_made(self._front)  # type: ignore[arg-type]
            self._front.resume = self.flow.resume_reading
            self._begun = self.loop.call_later(server.receive_seconds, self._cut, "slow_headers")
            strangers[self] = self.loop.call_later(server.stranger_seconds, self._cut, "no_key_in_time")
            if len(strangers) > server.strangers:
                next(iter(strangers))._cut("too_many_strangers")  # type: ignore[attr-defined]

        def connection_lost(self, exc: Exception | None) -> None:
            self._arrived()
            self._know()
            super().connection_lost(exc)

        def _know(self) -> None:
            """Stop counting the connection as a stranger's."""
            timer = strangers.pop(self, None)
            if timer is not None:
                timer.cancel()

        def _cut(self, why: str) -> None:
            """Close the connection at once."""
            turned_away(why)
            self._know()
            self.transport.abort()

        def _arrived(self) -> None:
            if self._begun is not None:
                self._begun.cancel()
                self._begun = None

        # bytes

        def data_received(self, data: bytes) -> None:
            if self._front.lingering:
                self._dropped += len(data)
                if self._dropped > _DROPPED:
                    self.transport.abort()
                return
            self._unset_keepalive_if_required()
            self._plain += len(data)
            try:
                self.parser.feed_data(data)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade):
                self._reject("not_http", self._flaw or "Invalid HTTP request received.")
                return
            # bytes outside of the body: headers, then chunk headers and trailers
            allowed = header_bytes if self._begun is not None else header_bytes + self._bodied
            if self._plain > allowed and not self.transport.is_closing():
                self._reject("large_headers", _too_large(header_bytes))

        def _reject(self, why: str, text: str) -> None:
            turned_away(why)
            if not self.transport.is_closing():
                self._front.unread = True
                self.send_400_response(text)

        # requests

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._headed = False
            if self._begun is None:
                self._begun = self.loop.call_later(server.receive_seconds, self._cut, "slow_headers")

        def on_header(self, name: bytes, value: bytes) -> None:
            if not self._headed:
                super().on_header(name, value)
                return
            self._named += len(name) + len(value)  # a trailer: it must not speak for the request
            if self._named > header_bytes:
                self._refuse(_too_large(header_bytes))

        def on_headers_complete(self) -> None:
            self._arrived()
            self._headed = True
            self._named = sum(len(name) + len(value) for name, value in self.headers) + len(self.url)
            if self._named > header_bytes:
                self._refuse(_too_large(header_bytes))
            if len(self.pipeline) >= _PIPELINED:
                self._refuse(f"Too many pipelined requests: at most {_PIPELINED} may wait for their answers.")
            if self.parser.should_upgrade():  # what follows would be no body, but the bytes of another protocol
                self._refuse("Only HTTP/1.1 is supported: leave the header Upgrade out.")
            names = [name for name, _ in self.headers]
            if len(set(names)) < len(names):
                for name in names:
                    if (name in _ONCE or name.startswith(b"x-budgeteer-")) and names.count(name) > 1:
                        self._refuse(f"The header {name.decode('latin-1')} was sent twice: send it once.")
            self.scope[SHOW_KEY] = self._know  # type: ignore[literal-required]
            super().on_headers_complete()
            # an answer before the body is whole says that the connection closes, and closes it
            self._lasting, self.cycle.keep_alive = self.cycle.keep_alive, False
            self._front.unread = True

        def _refuse(self, flaw: str) -> NoReturn:
            """Stop the parser, and answer 400 with this text."""
            self._flaw = flaw
            raise ValueError(flaw)

        def on_body(self, body: bytes) -> None:
            self._plain -= len(body)
            self._bodied += len(body)
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._plain = self._bodied = 0
            self._front.unread = False
            if not self.cycle.response_started:
                self.cycle.keep_alive = self._lasting
            super().on_message_complete()

    return Guarded
