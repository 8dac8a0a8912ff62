"""An upstream on this machine: a raw asyncio HTTP server that answers as the request's model says, and counts.

A model is an entry of ``steps``: a coroutine that gets (server, writer, path, body). What it bills is added to
``billed``, so that a bill can be compared with what really ran, and to ``bills`` of the model.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from contextvars import ContextVar

_MODEL: ContextVar[str] = ContextVar("model", default="")


class Upstream:
    """A running server in a thread of its own; use as a context manager."""

    def __init__(self, **steps):
        self.steps = {"echo": echo(), **steps}
        self.requests, self.headers, self.bills, self.gone, self.calls = [], [], Counter(), 0, 0
        self.open = self.most_open = 0

    @property
    def billed(self):
        """Tokens of all models."""
        return sum(self.bills.values())

    @billed.setter
    def billed(self, total):
        self.bills[_MODEL.get()] += total - self.billed

    def __enter__(self):
        self.loop, ready = asyncio.new_event_loop(), threading.Event()

        async def main():
            self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=2000, limit=2**20)
            self.port = self.server.sockets[0].getsockname()[1]
            self.stopped = asyncio.Event()
            ready.set()
            await self.stopped.wait()
            self.server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        self.thread = threading.Thread(target=lambda: self.loop.run_until_complete(main()), daemon=True)
        self.thread.start()
        ready.wait(10)
        self.url = f"http://127.0.0.1:{self.port}/v1"
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.stopped.set)
        self.thread.join(10)

    async def _serve(self, reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, path, _ = head[0].split(" ", 2)
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
                raw = await reader.readexactly(int(headers.get("content-length", 0)))
                if method == "GET":
                    await answer(writer, 200, {"object": "list", "data": []})
                    continue
                body = json.loads(raw)
                self.requests.append((path, body))
                self.raw = raw
                self.headers.append(headers)
                self.calls += 1
                self.open += 1
                self.most_open = max(self.most_open, self.open)
                _MODEL.set(body["model"])
                try:
                    await self.steps[body["model"]](self, writer, path, body)
                except ConnectionError:
                    self.gone += 1
                    raise
                finally:
                    self.open -= 1
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


async def answer(writer, status, body, headers=()):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", "content-type: application/json", f"content-length: {len(data)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + data)
    await writer.drain()


async def begin(writer):
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")


async def event(writer, data, name=None):
    text = data if isinstance(data, str) else json.dumps(data)
    block = (f"event: {name}\n" if name else "") + f"data: {text}\n\n"
    block = block.encode()
    writer.write(b"%x\r\n" % len(block) + block + b"\r\n")
    await writer.drain()


async def end(writer):
    writer.write(b"0\r\n\r\n")
    await writer.drain()


def usage(prompt, completion, **more):
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion, **more}


def echo(words=5, prompt=7, pause=0.0, delay=0.0, cut_after=None, reports=True, counts_one=False,
         model_name="echo-1", keeps_cap=True, **more):  # fmt: skip
    """Says ``words`` words, at most the cap unless that is not kept, a token each; streamed if asked.

    ``cut_after`` words the connection drops; ``reports`` False leaves the usage out; ``counts_one`` counts one choice
    however many there are, as llama.cpp does.
    """

    async def step(server, writer, path, body):
        if delay:
            await asyncio.sleep(delay)
        cap = body.get("max_completion_tokens", body.get("max_tokens", body.get("max_output_tokens", 10**6)))
        n, choices = min(words, cap) if keeps_cap else words, body.get("n") or 1
        if isinstance(body.get("prompt"), list) and not isinstance(body["prompt"][0], int):
            choices *= len(body["prompt"])
        if path.endswith("/embeddings"):
            server.billed += prompt
            found = {
                "object": "list",
                "model": "echo-1",
                "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
            }
            return await answer(writer, 200, {**found, "usage": {"prompt_tokens": prompt, "total_tokens": prompt}})
        if path.endswith("/responses"):
            return await _responses(server, writer, body, n, prompt)
        if path.endswith("/messages"):
            return await _messages(server, writer, body, n, prompt, pause, cut_after)
        counted = usage(prompt, n if counts_one else n * choices, **more)
        base = {"id": "c", "created": 1, "model": model_name}
        finish = "length" if n == cap else "stop"
        if not body.get("stream"):
            if cut_after is not None:
                return writer.close()
            server.billed += prompt + n * choices
            text = " ".join(["word"] * n)
            chat = path.endswith("/chat/completions")
            said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text, "logprobs": None}
            kind = "chat.completion" if chat else "text_completion"
            parts = [{"index": i, "finish_reason": finish, **said} for i in range(choices)]
            found = {**base, "object": kind, "choices": parts}
            return await answer(writer, 200, {**found, "usage": counted} if reports else found)
        server.billed += prompt
        await begin(writer)
        wants = (body.get("stream_options") or {}).get("include_usage")
        chunk = {**base, "object": "chat.completion.chunk"}
        for i in range(n):
            if i == cut_after:
                return writer.close()
            for index in range(choices):
                delta = {"index": index, "delta": {"content": "word "}, "finish_reason": None}
                await event(writer, {**chunk, "choices": [delta]})
                server.billed += 1
            if pause:
                await asyncio.sleep(pause)
                if writer.is_closing():
                    server.gone += 1
                    return None
        await event(writer, {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        if wants and reports:
            await event(writer, {**chunk, "choices": [], "usage": counted})
        await event(writer, "[DONE]")
        return await end(writer)

    return step


async def _responses(server, writer, body, n, prompt):
    server.billed += prompt + n
    text = " ".join(["word"] * n)
    message = {
        "id": "m", "type": "message", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": text, "annotations": []}],
    }  # fmt: skip
    counted = {
        "input_tokens": prompt, "output_tokens": n, "total_tokens": prompt + n,
        "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0},
    }  # fmt: skip
    found = {
        "id": "r", "object": "response", "created_at": 1, "model": "echo-1", "status": "completed", "output": [message],
        "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "usage": counted,
    }  # fmt: skip
    if not body.get("stream"):
        return await answer(writer, 200, found)
    await begin(writer)
    made = {"type": "response.created", "sequence_number": 0, "response": {**found, "output": [], "usage": None}}
    await event(writer, made, "response.created")
    for i in range(n):
        delta = {
            "type": "response.output_text.delta", "sequence_number": i + 1, "output_index": 0, "content_index": 0,
            "item_id": "m", "delta": "word ", "logprobs": [],
        }  # fmt: skip
        await event(writer, delta, delta["type"])
    await event(
        writer, {"type": "response.completed", "sequence_number": n + 1, "response": found}, "response.completed"
    )
    return await end(writer)


async def _messages(server, writer, body, n, prompt, pause, cut_after):
    """As Anthropic does: the input without what the cache gave, the output's count only at the end."""
    first = {"input_tokens": prompt - 3, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 0}
    base = {"id": "m", "type": "message", "role": "assistant", "model": "echo-1", "stop_sequence": None}
    if not body.get("stream"):
        server.billed += prompt + n
        content = [{"type": "text", "text": " ".join(["word"] * n)}]
        found = {**base, "content": content, "stop_reason": "end_turn", "usage": {**first, "output_tokens": n}}
        return await answer(writer, 200, found)
    await begin(writer)
    server.billed += prompt
    start = {**base, "content": [], "stop_reason": None, "usage": {**first, "output_tokens": 1}}
    await event(writer, {"type": "message_start", "message": start}, "message_start")
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    await event(writer, block, block["type"])
    for i in range(n):
        if i == cut_after:
            return writer.close()
        delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word "}}
        await event(writer, delta, delta["type"])
        server.billed += 1
        if pause:
            await asyncio.sleep(pause)
    await event(writer, {"type": "content_block_stop", "index": 0}, "content_block_stop")
    stop = {"stop_reason": "end_turn", "stop_sequence": None}
    await event(writer, {"type": "message_delta", "delta": stop, "usage": {"output_tokens": n}}, "message_delta")
    await event(writer, {"type": "message_stop"}, "message_stop")
    return await end(writer)


def error(status, headers=(), message="no"):
    """An error answer."""

    async def step(server, writer, path, body):
        await answer(writer, status, {"error": {"message": message, "type": "x"}}, headers)

    return step


async def hang_up(server, writer, path, body):
    """Drop the connection without an answer."""
    writer.close()


async def hang(server, writer, path, body):
    """Never answer."""
    await asyncio.sleep(3600)


def in_turn(*steps):
    """The first, then the second, ...; the last one again and again."""
    left = list(steps)

    async def step(server, writer, path, body):
        await (left.pop(0) if len(left) > 1 else left[0])(server, writer, path, body)

    return step
