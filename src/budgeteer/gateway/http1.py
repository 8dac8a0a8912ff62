"""HTTP/1.1 to an upstream: kept connections, one request at a time on each, answers whole or piece by piece.

It is a parser (httptools, as under uvicorn) and a pool, because a general client took a quarter of the gateway's
processor time. There are no redirects, cookies, proxies or retries: a request is written once, and who asked decides
what a failure means.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
import zlib
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import cast
from urllib.parse import quote, urlsplit

from budgeteer.errors import InvalidInput, MissingExtra

try:
    import httptools
    from aiohappyeyeballs import start_connection
except ImportError as error:
    raise MissingExtra("httptools", "gateway") from error

_IDLE = 4.0
"""Seconds: below the 5 after which uvicorn and llama.cpp close a connection, lest a request meets the closing."""
_NEXT = 0.25
"""Seconds after which the next address of a name is tried as well."""
_AHEAD = 2**18
"""Bytes that are read ahead of who takes them."""
_HEAD = 2**16
"""Bytes of headers at most."""


class NotConnected(OSError):
    """There was no connection, so nothing was sent."""


class Cut(OSError):
    """The connection failed, or what came is no HTTP, before the answer was whole."""


class Origin:
    """A scheme, host and port, and the connections to it.

    Args:
        url: base of all paths.
        connect_seconds: for name, connection and TLS together.
    """

    def __init__(self, url: str, connect_seconds: float) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._host, self._connect_seconds = parts.hostname, connect_seconds
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls: ssl.SSLContext | None = None
        if parts.scheme == "https":
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        name = f"[{self._host}]" if ":" in self._host else self._host.encode("idna").decode()
        self._netloc = name if parts.port is None else f"{name}:{parts.port}"
        self._base = quote(parts.path, safe="/%:@!$&'()*+,;=~")
        self._idle: deque[tuple[float, _Connection]] = deque()

    async def request(self, method: str, path: str, headers: Mapping[str, str], content: bytes = b"") -> Response:
        """Send a request; its answer, once the headers are there.

        Args:
            path: below the path of the origin's URL.

        Raises:
            NotConnected: it was not sent.
            Cut: it was, or part of it.
        """
        lines = [f"{method} {self._base}{path} HTTP/1.1", f"host: {self._netloc}", f"content-length: {len(content)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        try:
            head = "\n".join(lines).encode("latin-1")
        except UnicodeEncodeError as error:
            raise InvalidInput(f"a header for the upstream cannot be sent: {error}") from None
        if head.count(b"\n") != len(lines) - 1 or b"\r" in head or b"\0" in head:
            raise InvalidInput("a header for the upstream holds a line end")
        connection = self._kept() or await self._connect()
        try:
            return await connection.ask(head.replace(b"\n", b"\r\n"), content)
        except BaseException:
            connection.abort()
            raise

    def _kept(self) -> _Connection | None:
        now = time.monotonic()
        while self._idle:
            since, connection = self._idle.pop()  # the latest: the others may go
            if since > now - _IDLE and connection.usable:
                return connection
            connection.abort()
        return None

    def keep(self, connection: _Connection) -> None:
        """Take back a connection whose answer was whole."""
        now = time.monotonic()
        while self._idle and self._idle[0][0] <= now - _IDLE:
            self._idle.popleft()[1].abort()
        self._idle.append((now, connection))

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        name = None if self._tls is None else self._host
        try:
            async with asyncio.timeout(self._connect_seconds):
                found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
                connected = await start_connection(found, happy_eyeballs_delay=_NEXT)
                _, connection = await loop.create_connection(
                    lambda: _Connection(self), sock=connected, ssl=self._tls, server_hostname=name
                )
        except (OSError, TimeoutError, UnicodeError) as error:
            reason = "no connection in time" if isinstance(error, TimeoutError) else error
            raise NotConnected(f"{self._host}:{self._port}: {reason}") from error
        return connection

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop()[1].abort()


class Response:
    """An answer whose headers are there.

    Attributes:
        headers: by their names in lower case; of several the last.
    """

    def __init__(self, connection: _Connection, status: int, headers: dict[str, str]) -> None:
        self._connection, self.status, self.headers = connection, status, headers

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes.

        Raises:
            Cut: it ended early.
        """
        while piece := await self._connection.read():
            yield piece

    async def read(self) -> bytes:
        """The whole body.

        Raises:
            Cut: it ended early.
        """
        first = await self._connection.read()
        if not first or self._connection.done:
            return first
        return b"".join([first, *[piece async for piece in self.pieces()]])

    def release(self) -> None:
        """Give the connection back, or close it if it cannot be used again."""
        self._connection.release()

    def close(self) -> None:
        """Close the connection: the rest of the answer is not wanted."""
        self._connection.abort()


class _Connection(asyncio.Protocol):
    """One connection; at most one request is under way on it."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._transport: asyncio.Transport | None = None
        self._busy = self.done = self._paused = self._keeps = False
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None

    @property
    def usable(self) -> bool:
        """Whether it is open and nothing is under way."""
        return self._transport is not None and not self._busy and not self._transport.is_closing()

    async def ask(self, head: bytes, content: bytes) -> Response:
        """Send a request, and wait for the headers of its answer."""
        assert self._transport is not None
        self._parser = httptools.HttpResponseParser(self)
        self._busy, self.done, self._keeps = True, False, False
        self._headers: dict[str, str] = {}
        self._begun = self._to_the_end = self._packed = False
        self._size = 0
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._unpack: zlib._Decompress | None = None
        self._transport.write(b"%b\r\n\r\n%b" % (head, content))
        while not self._begun:
            await self._wait()
        return Response(self, self._status, self._headers)

    async def read(self) -> bytes:
        """What there is of the body, at least a byte; none at its end."""
        while not self._pieces:
            if self.done:
                return b""
            await self._wait()
        found = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._waiting = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return found

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def release(self) -> None:
        """Its answer was read."""
        self._busy = False
        if self.done and self._keeps and self.usable:
            self._origin.keep(self)
        else:
            self.abort()

    def abort(self) -> None:
        """Close it at once."""
        if self._transport is not None:
            self._transport.abort()

    # of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not of the class
        connected = transport.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        if not self._busy or self.done:  # an answer that nobody asked for
            self._keeps = False
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, zlib.error) as error:
            self._fail(Cut(f"the answer is no HTTP: {error or type(error).__name__}"))
            self.abort()
        if not self._begun:
            self._size += len(data)
            if self._size > _HEAD:
                self._fail(Cut(f"the answer has more than {_HEAD:,} bytes of headers"))
                self.abort()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._busy and not self.done:
            if self._begun and self._to_the_end and exc is None and self._unpacked:
                self.done = True
            else:
                self._fail(Cut(f"the connection was closed{f' ({exc})' if exc else ''}"))
            self._wake()

    def _fail(self, error: Exception) -> None:
        if self._error is None:
            self._error = error

    # of the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()
        if self._status < 200:
            return
        headers = self._headers
        sized = "content-length" in headers or headers.get("transfer-encoding", "").lower().endswith("chunked")
        self._to_the_end = not sized and self._status not in (204, 304)
        encoding = headers.get("content-encoding", "identity").lower()
        self._packed = encoding in ("gzip", "x-gzip", "deflate")  # though nobody said that it may
        if not self._packed and encoding not in ("", "identity"):
            raise ValueError(f"encoded as {encoding!r}")
        self._begun = True

    def on_body(self, body: bytes) -> None:
        if self._packed:
            if self._unpack is None:
                self._unpack = zlib.decompressobj(47)
            body = self._unpack.decompress(body)
        if body:
            self._pieces.append(body)
            self._waiting += len(body)
            if self._waiting > _AHEAD and not self._paused and self._transport is not None:
                self._paused = True
                self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._status < 200:  # the answer is still to come
            self._headers = {}
            return
        if not self._unpacked:
            raise ValueError("the compressed body ends early")
        self._keeps = self._parser.should_keep_alive() and not self._to_the_end
        self.done = True

    @property
    def _unpacked(self) -> bool:
        return self._unpack is None or self._unpack.eof
