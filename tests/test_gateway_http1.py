"""The HTTP client of the gateway, against a server that sends what a test says."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import shutil
import ssl
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)

from budgeteer.errors import InvalidInput  # noqa: E402
from budgeteer.gateway.http1 import _AHEAD, Cut, NotConnected, Origin  # noqa: E402

try:
    import uvloop

    LOOPS = (asyncio.new_event_loop, uvloop.new_event_loop)
except ImportError:  # Windows
    LOOPS = (asyncio.new_event_loop,)
BODY = b'{"usage": 1, "text": "\xc3\xa4"}' * 3
SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
CHUNKED = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n5;x=y\r\nabcde\r\n0\r\ntrailer: 1\r\n\r\n"
    % (
        len(BODY),
        BODY,
    )
)


class Server:
    """Answers the n-th request with the n-th script: pieces of bytes, numbers to sleep, None to close."""

    def __init__(self, *scripts, tls=None):
        self.tls = tls
        self.scripts, self.requests, self.connections, self.sent = list(scripts), [], 0, 0

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        scheme, host = ("https", "localhost") if self.tls else ("http", "127.0.0.1")
        self.origin = Origin(f"{scheme}://{host}:{self.server.sockets[0].getsockname()[1]}/v1", 2.0)
        return self

    async def __aexit__(self, *_):
        self.origin.close()
        self.server.close()

    async def _serve(self, reader, writer):
        self.connections += 1
        try:
            while self.scripts:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                self.requests.append((head, await reader.readexactly(size)))
                for step in self.scripts.pop(0):
                    if step is None:
                        writer.close()
                        return
                    if isinstance(step, bytes):
                        writer.write(step)
                        await writer.drain()
                        self.sent += len(step)
                    else:
                        await asyncio.sleep(step)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def ask(self, content=b"{}", **headers):
        response = await self.origin.request("POST", "/chat", headers, content)
        try:
            body = await response.read()
        except BaseException:
            response.close()
            raise
        response.release()
        return response.status, body


def on(*scripts, **options):
    """Run a coroutine function with a server of these scripts, in every event loop that the gateway may have."""

    def run(test):
        async def whole():
            async with Server(*scripts, **options) as server:
                async with asyncio.timeout(20):
                    return await test(server)

        for loop in LOOPS:
            with asyncio.Runner(loop_factory=loop) as runner:
                runner.run(whole())

    return run


def test_what_is_sent_and_that_connections_are_kept():
    @on([SIZED], [CHUNKED], [SIZED])
    async def run(server):
        assert await server.ask(b'{"a": 1}', authorization="Bearer k") == (200, BODY)
        assert await server.ask() == (200, BODY + b"abcde")
        assert await server.ask() == (200, BODY)
        assert server.connections == 1
        head, body = server.requests[0]
        assert head.startswith(b"POST /v1/chat HTTP/1.1\r\nhost: 127.0.0.1:")
        assert b"\r\ncontent-length: 8\r\nauthorization: Bearer k\r\n\r\n" in head
        assert body == b'{"a": 1}'


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        ([b"HTTP/1.1 200 OK\r\n\r\n" + BODY, None], 200, BODY),
        ([b"HTTP/1.0 200 OK\r\n\r\n", 0.01, BODY, None], 200, BODY),
        ([b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", 0.01, SIZED], 200, BODY),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], 204, b""),
        ([b"HTTP/1.1 429 Too Many\r\ncontent-length: 0\r\n\r\n"], 429, b""),
        ([SIZED.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)], 200, BODY),
        (
            [
                b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n%b"
                % (len(gzip.compress(BODY)), gzip.compress(BODY))
            ],
            200,
            BODY,
        ),
    ],
)
def test_answers_of_every_framing(answer, status, body):
    @on(answer, [SIZED])
    async def run(server):
        assert await server.ask() == (status, body)
        assert await server.ask() == (200, BODY)
        ends = answer[-1] is None or b"close" in answer[-1]
        assert server.connections == 1 + ends


@given(cuts=st.lists(st.integers(1, len(CHUNKED) - 1), max_size=8, unique=True))
@settings(max_examples=30, deadline=None)
def test_an_answer_reads_the_same_however_it_is_cut_up(cuts):
    edges = [0, *sorted(cuts), len(CHUNKED)]

    @on([part for a, b in itertools.pairwise(edges) for part in (CHUNKED[a:b], 0)])
    async def run(server):
        assert await server.ask() == (200, BODY + b"abcde")


@pytest.mark.parametrize("end", range(0, len(CHUNKED) - 1, 9))
def test_an_answer_that_ends_early_is_never_taken_for_whole(end):
    @on([CHUNKED[:end], None], [SIZED])
    async def run(server):
        with pytest.raises(Cut):
            await server.ask()
        assert await server.ask() == (200, BODY)


@pytest.mark.parametrize(
    "answer",
    [
        [SIZED[:-1], None],
        [None],
        [b"SSH-2.0-OpenSSH\r\n\r\n", 1],
        [b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", 1],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 1],
        [b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: 1\r\n\r\nx", 1],
        [b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n\r\nx", 1],
        [b"HTTP/1.1 200 OK\r\n" + b"x: %b\r\n" % (b"y" * 70_000), 1],
        [b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", 1],
    ],
)
def test_what_is_no_answer_is_cut(answer):
    @on(answer, [SIZED])
    async def run(server):
        with pytest.raises(Cut):
            await server.ask()


def test_a_stream_comes_as_it_is_sent_and_what_came_before_a_cut_is_not_lost():
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"

    @on([head, b"3\r\none\r\n", 0.05, b"3\r\ntwo\r\n", None])
    async def run(server):
        response = await server.origin.request("POST", "/chat", {})
        pieces = response.pieces()
        assert [await anext(pieces), await anext(pieces)] == [b"one", b"two"]
        with pytest.raises(Cut):
            await anext(pieces)


def test_a_server_is_held_up_by_who_does_not_read():
    big = b"x" * 2**16

    @on([b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (400 * len(big)), *[big] * 400])
    async def run(server):
        response = await server.origin.request("POST", "/chat", {})
        await asyncio.sleep(0.3)
        assert response._connection._waiting <= _AHEAD + 2**20
        assert server.sent < 300 * len(big)
        assert len(await response.read()) == 400 * len(big)
        response.release()


def test_an_answer_nobody_asked_for_and_a_closed_connection_are_not_used():
    @on([SIZED, 0.05, b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nother"], [SIZED, 0.05, None], [SIZED])
    async def run(server):
        for _ in range(3):
            assert await server.ask() == (200, BODY)
            await asyncio.sleep(0.15)
        assert server.connections == 3


def test_who_gives_up_closes_the_connection():
    @on([1.0], [SIZED])
    async def run(server):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await server.ask()
        assert await server.ask() == (200, BODY)
        assert server.connections == 2


def test_no_header_can_be_smuggled():
    @on([SIZED])
    async def run(server):
        for value in ("a\r\nx: y", "a\nb", "a\rb", "a\0b", "\u20ac"):
            with pytest.raises(InvalidInput, match="header for the upstream"):
                await server.ask(name=value)
        assert server.connections == 0


def test_without_a_connection_nothing_was_sent():
    async def run(url):
        with pytest.raises(NotConnected):
            await Origin(url, 0.5).request("POST", "/chat", {})

    asyncio.run(run("http://127.0.0.1:1"))
    asyncio.run(run("http://nowhere.invalid"))
    asyncio.run(run("http://192.0.2.1"))  # answers nobody


def test_tls_to_who_cannot_show_a_certificate_is_no_connection():
    @on([SIZED])
    async def run(server):
        origin = Origin(f"https://127.0.0.1:{server.server.sockets[0].getsockname()[1]}", 0.5)
        with pytest.raises(NotConnected):
            await origin.request("POST", "/chat", {})
        assert server.requests == []


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_tls_to_who_is_trusted(tmp_path, monkeypatch):
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1"),
            *("-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.load_cert_chain(certificate, key)

    @on([SIZED], [CHUNKED], [CHUNKED[:-20], None], tls=server_side)
    async def run(server):
        assert await server.ask() == (200, BODY)
        assert await server.ask() == (200, BODY + b"abcde")
        with pytest.raises(Cut):
            await server.ask()
        assert server.connections == 1
