"""The two ends of benchmarks/gateway.py, each a process of its own: an upstream that answers at once, and a client.

    python benchmarks/gateway_load.py echo             # prints its port
    python benchmarks/gateway_load.py client < task    # JSON in, JSON out

Both are raw asyncio without an HTTP library, so that what is measured is what lies between them.
"""

from __future__ import annotations

import asyncio
import json
import random
import selectors
import sys
import time
from typing import Any

WORD = "tok"
"""A token of the upstream's answers; clients count it."""
_WHOLE = json.dumps({
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": f"{WORD} " * 64}}],
    "usage": {"prompt_tokens": 120, "completion_tokens": 64, "total_tokens": 184},
}).encode()  # fmt: skip


def _event(**fields: Any) -> bytes:
    """A chunk of a streamed answer, framed as server-sent event and as HTTP chunk."""
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini", **fields}
    data = b"data: " + json.dumps(body).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


_TOKEN = _event(choices=[{"index": 0, "delta": {"content": f"{WORD} "}, "finish_reason": None}])
_STOP = _event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer request after request: whole, or one token an event, each in a write of its own."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"POST /v1/chat/completions "):  # a proxy that looks for models, or for life
                writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
                continue
            size = int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            asked = json.loads(await reader.readexactly(size))
            if not asked.get("stream"):
                start = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_WHOLE)
                writer.write(start + _WHOLE)
                continue
            tokens = asked.get("max_completion_tokens") or asked["max_tokens"]
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            for _ in range(tokens):
                writer.write(_TOKEN)
                await asyncio.sleep(0)
            writer.write(_STOP)
            if (asked.get("stream_options") or {}).get("include_usage"):
                usage = {"prompt_tokens": 120, "completion_tokens": tokens, "total_tokens": 120 + tokens}
                writer.write(_event(choices=[], usage=usage))
            writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def echo() -> None:
    """Serve for ever."""
    server = await asyncio.start_server(_echo, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class Connection:
    """One kept-alive connection."""

    def __init__(self, task: dict[str, Any]) -> None:
        self._port, body = task["port"], json.dumps(task["body"]).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{self._port}\r\nauthorization: Bearer "
        head += f"{task['key']}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in task.get("headers", {}).items()) + "\r\n"
        self._request = head.encode() + body
        self._reader: asyncio.StreamReader | None = None

    async def call(self) -> tuple[int, bytes]:
        """One request: status and body."""
        if self._reader is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=2**20)
        self._writer.write(self._request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        if b"content-length:" in head:
            size = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            body = await self._reader.readexactly(size)
        else:
            pieces = []
            while size := int(await self._reader.readuntil(b"\r\n"), 16):
                pieces.append((await self._reader.readexactly(size + 2))[:-2])
            await self._reader.readexactly(2)
            body = b"".join(pieces)
        if b"\r\nconnection: close" in head:
            self._writer.close()
            self._reader = None
        return int(head[9:12]), body


async def closed(task: dict[str, Any]) -> dict[str, Any]:
    """Callers that send their next request when the last one is answered, for some seconds."""
    times: list[float] = []
    tokens, ends = 0, time.perf_counter() + task["seconds"]

    async def caller() -> None:
        nonlocal tokens
        connection = Connection(task)
        while (begin := time.perf_counter()) < ends:
            status, body = await connection.call()
            if status != 200:
                raise SystemExit(f"{status}: {body[:500]!r}")
            times.append(time.perf_counter() - begin)
            tokens += body.count(WORD.encode())

    begin = time.perf_counter()
    await asyncio.gather(*[caller() for _ in range(task["connections"])])
    return {"seconds": time.perf_counter() - begin, "times": times, "tokens": tokens, "unanswered": 0}


async def opened(task: dict[str, Any]) -> dict[str, Any]:
    """Requests at times drawn beforehand (Poisson), whether or not others are answered.

    A time counts from when the request was due, so that waiting for a busy server counts. What is not answered within
    ``patience`` seconds after the last one was due is given up, and counted.
    """
    rng, due = random.Random(task["seed"]), [0.0]
    while due[-1] < task["seconds"]:
        due.append(due[-1] + rng.expovariate(task["rate"]))
    idle: list[Connection] = []
    times: list[float] = []

    async def send(at: float) -> None:
        connection = idle.pop() if idle else Connection(task)
        status, body = await connection.call()
        if status != 200:
            raise SystemExit(f"{status}: {body[:500]!r}")
        times.append(time.perf_counter() - at)
        idle.append(connection)

    begin = time.perf_counter()
    calls = []
    for at in due:
        if (wait := begin + at - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        calls.append(asyncio.create_task(send(begin + at)))
    done, late = await asyncio.wait(calls, timeout=task["patience"])
    for call in done:
        call.result()
    for call in late:
        call.cancel()
    return {"seconds": time.perf_counter() - begin, "times": times, "tokens": 0, "unanswered": len(late)}


async def sequence(task: dict[str, Any]) -> dict[str, Any]:
    """So many requests, one after the other, whatever they are answered: the statuses."""
    connection = Connection(task)
    return {"statuses": [(await connection.call())[0] for _ in range(task["calls"])]}


def _precise() -> asyncio.AbstractEventLoop:
    """An event loop that wakes up on time: epoll's is up to a millisecond late, which would count as latency."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def main() -> None:
    """Be one of the ends."""
    if sys.argv[1] == "echo":
        asyncio.run(echo())
    else:
        task = json.loads(sys.stdin.read())
        kinds = {"closed": closed, "opened": opened, "sequence": sequence}
        with asyncio.Runner(loop_factory=_precise) as runner:
            print(json.dumps(runner.run(kinds[task["kind"]](task))))


if __name__ == "__main__":
    main()
