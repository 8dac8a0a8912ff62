"""An endpoint in this event loop that streams the OpenAI API, misbehaves when told to, and keeps its own bill.

A token is a word of four letters at the most and a space; the prompt has one token more. ``billed`` is what it would
charge for all that ran.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Act:
    """How a request is answered.

    Attributes:
        status: an error without a body to speak of; 200 = a stream.
        ran: whether an error is billed in full.
        words: of each choice, at most the cap.
        cut: the connection drops after so many events; None = never.
        hang: nothing more comes after so many events.
        kind: what the stream's content type says.
        usage: (prompt tokens, completion tokens) -> the usage that is told; None = none.
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: str = '{"error": {"message": "no"}}'
    ran: bool = False
    words: int = 6
    cut: int | None = None
    hang: int | None = None
    usage: Callable[[int, int, int], tuple[int, int]] | None = lambda read, made, n: (read, made)
    ignores_cap: bool = False
    kind: str = "text/event-stream"


class Upstream:
    """A running endpoint; use as an asynchronous context manager.

    Attributes:
        acts: what answers, in order; the last one answers all further requests.
        bodies: of the requests, in order.
        billed: tokens of all that ran.
        connections: that were made.
        gone: streams whose client went away before their end.
        most: requests under way at the same time, at the most.
    """

    def __init__(self, *acts: Act) -> None:
        self.acts, self.bodies = list(acts), []
        self.billed = self.connections = self.gone = self.now = self.most = 0

    async def __aenter__(self) -> Upstream:
        self.tasks: set[asyncio.Task] = set()
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_) -> None:
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _serve(self, reader, writer) -> None:
        self.connections += 1
        self.tasks.add(asyncio.current_task())
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.split("content-length:")[1].split()[0])
                body = json.loads(await reader.readexactly(length))
                act = self.acts[min(len(self.bodies), len(self.acts) - 1)]
                self.bodies.append(body)
                self.now += 1
                self.most = max(self.most, self.now)
                try:
                    if not await self._answer(act, body, writer, head.split()[1]):
                        break
                finally:
                    self.now -= 1
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answer(self, act: Act, body, writer, path) -> bool:
        text = body.get("prompt") or " ".join(m["content"] for m in body["messages"])
        read, n, cap = len(text.split()) + 1, body.get("n", 1), body["max_tokens"]
        if act.status != 200:
            if act.ran:
                self.billed += read + n * cap
            data = act.body.encode()
            lines = [f"HTTP/1.1 {act.status} X", "content-type: application/json", f"content-length: {len(data)}"]
            writer.write("\r\n".join([*lines, *(f"{k}: {v}" for k, v in act.headers), "", ""]).encode() + data)
            await writer.drain()
            return True
        self.billed += read
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: {act.kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode())

        async def send(data) -> None:
            event = f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()
            writer.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
            await writer.drain()

        chat = path.endswith("/chat/completions")
        base = {"id": "c", "object": "x", "created": 1, "model": "m"}
        words = min(act.words, cap) if not act.ignores_cap else act.words
        events = made = 0
        try:
            for word in range(words):
                for i in range(n):
                    if events == act.cut:
                        return False
                    if events == act.hang:
                        await asyncio.sleep(3600)
                    part = f"w{i}{word % 10} "
                    choice = {
                        "index": i,
                        "finish_reason": None,
                        **({"delta": {"content": part}} if chat else {"text": part}),
                    }
                    made, events, self.billed = made + 1, events + 1, self.billed + 1
                    await send({**base, "choices": [choice]})
                    if word % 8 == 7:
                        await asyncio.sleep(0.001)
            if act.cut is not None and events <= act.cut:
                return False
            for i in range(n):
                finish = "length" if act.words >= cap else "stop"
                if finish == "stop":  # the token that ends a choice is billed and not shown
                    made, self.billed = made + 1, self.billed + 1
                choice = {"index": i, "finish_reason": finish, **({"delta": {}} if chat else {"text": ""})}
                await send({**base, "choices": [choice]})
            if act.usage is not None:
                told = act.usage(read, made, n)
                usage = {"prompt_tokens": told[0], "completion_tokens": told[1], "total_tokens": sum(told)}
                await send({**base, "choices": [], "usage": usage})
            await send("[DONE]")
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            self.gone += 1
            raise
        return True
