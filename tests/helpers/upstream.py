"""An upstream on this machine: a raw asyncio HTTP server that answers as it is told, and counts what it would bill.

A step is a coroutine that gets (server, writer, path, body). Steps are chosen by the model of a request, or in turn.
What one bills is added to ``billed``, so that a bill can be compared with what really ran, and to ``bills`` by model.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from asyncio import StreamReader, StreamWriter
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Self

from helpers.forms import read_form

PAYER: ContextVar[str] = ContextVar("payer", default="")
"""Whom the running request is billed to: its model, unless its step says otherwise."""
Step = Callable[["Upstream", StreamWriter, str, Any], Awaitable[None]]
Headers = Iterable[tuple[str, str]]


class Upstream:
    """A running server: in a thread of its own as a context manager, in the running loop as an asynchronous one.

    Args:
        script: what answers, in turn; the last one answers all further requests. Without one, the model's step does.
        steps: model -> what answers it; ``echo`` is one of them.

    Attributes:
        requests: (path, body) of what arrived, in order; ``headers`` and ``raw`` of the last one as well.
        gets: paths of GET requests, which get an empty list unless ``reads`` answers them.
        reads: answers GET and DELETE requests, and POSTs without a body; it gets the method in place of a body.
        bills: model (or whom a step names in ``PAYER``) -> tokens that ran.
        connections: that were made.
        gone: requests whose client went away before their end.
        open, most_open: requests under way now, and at the most.
    """

    def __init__(self, *script: Step, **steps: Step) -> None:
        self.script, self.steps = script, {"echo": echo(), **steps}
        self.requests: list[tuple[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.gets: list[str] = []
        self.reads: Step | None = None
        self.bills: Counter[str] = Counter()
        self.raw = b""
        self.gone = self.calls = self.connections = self.open = self.most_open = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def bodies(self) -> list[Any]:
        """Of the requests, in order."""
        return [body for _, body in self.requests]

    @property
    def billed(self) -> int:
        """Tokens of all models."""
        return sum(self.bills.values())

    @billed.setter
    def billed(self, total: int) -> None:
        self.bills[PAYER.get()] += total - self.billed

    async def _listen(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=2000, limit=2**20)
        self.port = int(self.server.sockets[0].getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}/v1"

    async def _end(self) -> None:
        self.server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    def __enter__(self) -> Self:
        self.loop, ready = asyncio.new_event_loop(), threading.Event()

        async def main() -> None:
            await self._listen()
            self.stopped = asyncio.Event()
            ready.set()
            await self.stopped.wait()
            await self._end()

        self.thread = threading.Thread(target=lambda: self.loop.run_until_complete(main()), daemon=True)
        self.thread.start()
        ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.stopped.set)
        self.thread.join(10)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, path, _ = head[0].split(" ", 2)
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
                raw = await reader.readexactly(int(headers.get("content-length", 0)))
                if method == "GET":
                    self.gets.append(path)
                if self.reads is not None and not raw:
                    await self.reads(self, writer, path, method)
                    continue
                if method == "GET":
                    await answer(writer, 200, {"object": "list", "data": []})
                    continue
                body = json.loads(raw) if raw.startswith(b"{") else read_form(raw, headers.get("content-type", ""))
                step = self.script[min(self.calls, len(self.script) - 1)] if self.script else self.steps[body["model"]]
                self.requests.append((path, body))
                self.raw = raw
                self.headers.append(headers)
                self.calls += 1
                self.open += 1
                self.most_open = max(self.most_open, self.open)
                PAYER.set(body.get("model", ""))
                try:
                    await step(self, writer, path, body)
                except ConnectionError:
                    self.gone += 1
                    raise
                finally:
                    self.open -= 1
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            with contextlib.suppress(RuntimeError):  # its loop is closed
                writer.close()


@dataclass(frozen=True)
class Act:
    """How a request for text is answered by an endpoint that may be faulty: a stream, or an error.

    A token is a word of four letters at the most and a space; the prompt has one token more.

    Attributes:
        status: an error without a body to speak of; 200 = a stream.
        ran: whether an error is billed in full.
        words: of each choice, at most the cap.
        cut: the connection drops after so many events; None = never.
        hang: nothing more comes after so many events.
        usage: (prompt tokens, completion tokens, choices) -> the usage that is told; None = none.
        ignores_cap: all words are said, whatever the cap.
        kind: what the stream's content type says.
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

    async def __call__(self, server: Upstream, writer: StreamWriter, path: str, body: Any) -> None:
        text = body.get("prompt") or " ".join(message["content"] for message in body["messages"])
        read, n, cap = len(text.split()) + 1, body.get("n", 1), body["max_tokens"]
        if self.status != 200:
            server.billed += read + n * cap if self.ran else 0
            return await answer(writer, self.status, self.body.encode(), self.headers)
        server.billed += read
        await begin(writer, self.kind)
        chat = path.endswith("/chat/completions")
        base = {"id": "c", "object": "x", "created": 1, "model": "m"}
        events = made = 0
        for word in range(self.words if self.ignores_cap else min(self.words, cap)):
            for i in range(n):
                if events == self.cut:
                    return writer.close()
                if events == self.hang:
                    await asyncio.sleep(3600)
                part = f"w{i}{word % 10} "
                said = {"delta": {"content": part}} if chat else {"text": part}
                made, events, server.billed = made + 1, events + 1, server.billed + 1
                await event(writer, {**base, "choices": [{"index": i, "finish_reason": None, **said}]})
                if word % 8 == 7:
                    await asyncio.sleep(0.001)
        if self.cut is not None and events <= self.cut:
            return writer.close()
        for i in range(n):
            finish = "length" if self.words >= cap else "stop"
            if finish == "stop":  # the token that ends a choice is billed and not shown
                made, server.billed = made + 1, server.billed + 1
            nothing: dict[str, Any] = {"delta": {}} if chat else {"text": ""}
            choice = {"index": i, "finish_reason": finish, **nothing}
            await event(writer, {**base, "choices": [choice]})
        if self.usage is not None:
            await event(writer, {**base, "choices": [], "usage": usage(*self.usage(read, made, n))})
        await event(writer, "[DONE]")
        return await end(writer)


async def answer(writer: StreamWriter, status: int, body: Any, headers: Headers = ()) -> None:
    """A whole answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", "content-type: application/json", f"content-length: {len(data)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + data)
    await writer.drain()


async def begin(writer: StreamWriter, kind: str = "text/event-stream") -> None:
    """The head of a stream."""
    writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode())


async def event(writer: StreamWriter, data: Any, name: str | None = None) -> None:
    """One event of a stream."""
    text = data if isinstance(data, str) else json.dumps(data)
    block = ((f"event: {name}\n" if name else "") + f"data: {text}\n\n").encode()
    writer.write(b"%x\r\n" % len(block) + block + b"\r\n")
    await writer.drain()


async def end(writer: StreamWriter) -> None:
    """The end of a stream."""
    writer.write(b"0\r\n\r\n")
    await writer.drain()


def usage(prompt: int, completion: int, **more: Any) -> dict[str, Any]:
    """The usage object of a chat completion."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion, **more}


def echo(
    words: int = 5, prompt: int = 7, pause: float = 0.0, delay: float = 0.0, cut_after: int | None = None,
    reports: bool = True, counts_one: bool = False, model_name: str = "echo-1", keeps_cap: bool = True, **more: Any,
) -> Step:  # fmt: skip
    """Says ``words`` words, at most the cap unless that is not kept, a token each; streamed if asked.

    ``cut_after`` words the connection drops; ``reports`` False leaves the usage out; ``counts_one`` counts one choice
    however many there are, as llama.cpp does.
    """

    async def step(server: Upstream, writer: StreamWriter, path: str, body: Any) -> None:
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
        if path.endswith("/count_tokens"):  # free
            return await answer(writer, 200, {"input_tokens": prompt})
        if path.endswith("/moderations"):  # reads, and writes nothing
            server.billed += prompt
            return await answer(writer, 200, {"id": "m", "results": [], "usage": usage(prompt, 0)})
        if path.endswith("/responses"):
            return await _responses(server, writer, body, n, prompt, pause, cut_after, reports)
        if path.endswith("/messages"):
            return await _messages(server, writer, body, n, prompt, pause, cut_after, reports)
        counted = usage(prompt, n if counts_one else n * choices, **more)
        base = {"id": "c", "created": 1, "model": model_name}
        finish = "length" if n == cap else "stop"
        if not body.get("stream"):
            if cut_after is not None:
                return writer.close()
            server.billed += prompt + n * choices
            text = " ".join(["word"] * n)
            chat = path.endswith("/chat/completions")
            said: dict[str, Any] = (
                {"message": {"role": "assistant", "content": text}} if chat else {"text": text, "logprobs": None}
            )
            kind = "chat.completion" if chat else "text_completion"
            parts = [{"index": i, "finish_reason": finish, **said} for i in range(choices)]
            whole = {**base, "object": kind, "choices": parts}
            return await answer(writer, 200, {**whole, "usage": counted} if reports else whole)
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


async def _responses(
    server: Upstream, writer: StreamWriter, body: Any, n: int, prompt: int, pause: float, cut_after: int | None,
    reports: bool,
) -> None:  # fmt: skip
    text = " ".join(["word"] * n)
    message = {
        "id": f"m{server.calls}", "type": "message", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": text, "annotations": []}],
    }  # fmt: skip
    counted = {
        "input_tokens": prompt, "output_tokens": n, "total_tokens": prompt + n,
        "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0},
    }  # fmt: skip
    found = {
        "id": f"r{server.calls}", "object": "response", "created_at": 1, "model": "echo-1", "status": "completed",
        "output": [message], "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
        "usage": counted if reports else None,
    }  # fmt: skip
    if not body.get("stream"):
        server.billed += prompt + n
        return writer.close() if cut_after is not None else await answer(writer, 200, found)
    server.billed += prompt
    await begin(writer)
    made = {"type": "response.created", "sequence_number": 0, "response": {**found, "output": [], "usage": None}}
    await event(writer, made, "response.created")
    for i in range(n):
        if i == cut_after:
            return writer.close()
        delta = {
            "type": "response.output_text.delta", "sequence_number": i + 1, "output_index": 0, "content_index": 0,
            "item_id": message["id"], "delta": "word ", "logprobs": [],
        }  # fmt: skip
        await event(writer, delta, str(delta["type"]))
        server.billed += 1
        if pause:
            await asyncio.sleep(pause)
    await event(
        writer, {"type": "response.completed", "sequence_number": n + 1, "response": found}, "response.completed"
    )
    return await end(writer)


async def _messages(
    server: Upstream, writer: StreamWriter, body: Any, n: int, prompt: int, pause: float, cut_after: int | None,
    reports: bool,
) -> None:  # fmt: skip
    """As Anthropic does: the input without what the cache gave, the output's count only at the end."""
    first = {"input_tokens": prompt - 3, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 0}
    base = {"id": "m", "type": "message", "role": "assistant", "model": "echo-1", "stop_sequence": None}
    if not body.get("stream"):
        server.billed += prompt + n
        if cut_after is not None:
            return writer.close()
        content = [{"type": "text", "text": " ".join(["word"] * n)}]
        found = {**base, "content": content, "stop_reason": "end_turn"}
        return await answer(writer, 200, {**found, "usage": {**first, "output_tokens": n}} if reports else found)
    await begin(writer)
    server.billed += prompt
    start: dict[str, Any] = {**base, "content": [], "stop_reason": None}
    if reports:
        start["usage"] = {**first, "output_tokens": 1}
    await event(writer, {"type": "message_start", "message": start}, "message_start")
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    await event(writer, block, str(block["type"]))
    for i in range(n):
        if i == cut_after:
            return writer.close()
        delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word "}}
        await event(writer, delta, str(delta["type"]))
        server.billed += 1
        if pause:
            await asyncio.sleep(pause)
    await event(writer, {"type": "content_block_stop", "index": 0}, "content_block_stop")
    stop: dict[str, Any] = {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}}
    await event(writer, {**stop, "usage": {"output_tokens": n}} if reports else stop, "message_delta")
    await event(writer, {"type": "message_stop"}, "message_stop")
    return await end(writer)


def error(status: int, headers: Headers = (), message: str = "no") -> Step:
    """An error answer."""

    async def step(server: Upstream, writer: StreamWriter, path: str, body: Any) -> None:
        await answer(writer, status, {"error": {"message": message, "type": "x"}}, headers)

    return step


async def hang_up(server: Upstream, writer: StreamWriter, path: str, body: Any) -> None:
    """Drop the connection without an answer."""
    writer.close()


async def hang(server: Upstream, writer: StreamWriter, path: str, body: Any) -> None:
    """Never answer."""
    await asyncio.sleep(3600)


def in_turn(*steps: Step) -> Step:
    """The first, then the second, ...; the last one again and again."""
    left = list(steps)

    async def step(server: Upstream, writer: StreamWriter, path: str, body: Any) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(server, writer, path, body)

    return step
