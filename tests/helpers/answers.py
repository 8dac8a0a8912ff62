"""Answers of an OpenAI endpoint word by word as a test has them: steps of an :class:`~helpers.upstream.Upstream`.

Their streams end with the connection, as those of some servers do; ``upstream.begin`` makes chunked ones.
"""

from __future__ import annotations

import asyncio
import json
from asyncio import StreamWriter
from collections.abc import Sequence
from typing import Any

from helpers.upstream import Step, Upstream, answer


def opened(writer: StreamWriter, kind: str = "text/event-stream") -> None:
    """The head of a stream that ends with its connection; ``kind`` is its content type, "" = it has none."""
    named = f"content-type: {kind}\r\n" if kind else ""
    writer.write(f"HTTP/1.1 200 OK\r\n{named}connection: close\r\n\r\n".encode())


async def say(writer: StreamWriter, data: Any, end: str = "\n\n") -> None:
    """One event of such a stream."""
    text = data if isinstance(data, str) else json.dumps(data)
    writer.write(f"data: {text}{end}".encode())
    await writer.drain()


def chat(
    texts: Sequence[str] = ("Hello there",), usage: Any = None, finish: str = "stop", model: str = "gpt-4o-2024-08-06",
    **more: Any,
) -> Step:  # fmt: skip
    """A whole chat completion."""

    async def step(server: Upstream, writer: StreamWriter, path: str, body: Any) -> None:
        choices = [
            {"index": n, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
            for n, text in enumerate(texts)
        ]
        found = {"id": "c", "object": "chat.completion", "created": 1, "model": model, "choices": choices, **more}
        if usage is not None:
            found["usage"] = usage
        await answer(writer, 200, found)

    return step


def used(prompt: int, completion: int, cached: int | None = None, reasoning: int | None = None) -> dict[str, Any]:
    """The usage object of a chat completion."""
    found: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if cached is not None:
        found["prompt_tokens_details"] = {"cached_tokens": cached}
    if reasoning is not None:
        found["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return found


def slow(seconds: float, step: Step) -> Step:
    """Answer later."""

    async def later(server: Upstream, writer: StreamWriter, path: str, body: Any) -> None:
        await asyncio.sleep(seconds)
        await step(server, writer, path, body)

    return later


def sse(
    words: Sequence[str], usage: Any = None, cut_after: int | None = None, pause: float = 0.0,
    model: str = "gpt-4o-2024-08-06", choices: int = 1, line_end: str = "\n",
) -> Step:  # fmt: skip
    """A streamed chat completion, one chunk a word and choice; with usage if asked, as OpenAI does.

    ``cut_after`` words the connection drops.
    """

    async def step(server: Upstream, writer: StreamWriter, path: str, body: Any) -> None:
        opened(writer)
        wants = (body.get("stream_options") or {}).get("include_usage")

        async def send(data: Any) -> None:
            await say(writer, data, 2 * line_end)
            await asyncio.sleep(pause)

        base: dict[str, Any] = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": model}
        if wants:
            base["usage"] = None
        for n, word in enumerate(words):
            if n == cut_after:
                return writer.close()
            for index in range(choices):
                delta = {"index": index, "delta": {"content": word}, "finish_reason": None}
                await send({**base, "choices": [delta]})
        for index in range(choices):
            await send({**base, "choices": [{"index": index, "delta": {}, "finish_reason": "stop"}]})
        if wants and usage is not None:
            await send({**base, "choices": [], "usage": usage})
        await send("[DONE]")
        return writer.close()

    return step


def responses(
    text: str = "Hello", usage: Any = None, status: str = "completed", pause: float = 0.0,
    tool: tuple[str, str] | None = None,
) -> Step:  # fmt: skip
    """A response of the Responses API, whole or streamed as asked; ``tool`` = (name, arguments) calls one instead."""

    async def step(server: Upstream, writer: StreamWriter, path: str, body: Any) -> None:
        message: dict[str, Any] = {
            "id": "m", "type": "message", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": text, "annotations": []}],
        }  # fmt: skip
        if tool is not None:
            message = {"id": "f", "call_id": "f1", "type": "function_call", "name": tool[0], "arguments": tool[1]}
        found = {
            "id": "r", "object": "response", "created_at": 1, "model": "gpt-5", "status": status, "output": [message],
            "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "usage": usage,
        }  # fmt: skip
        if not body.get("stream"):
            return await answer(writer, 200, found)
        opened(writer)
        events = [
            {"type": "response.created", "sequence_number": 0, "response": {**found, "output": [], "usage": None}},
            *(
                {
                    "type": "response.output_text.delta", "sequence_number": n, "output_index": 0, "content_index": 0,
                    "item_id": "m", "delta": letter, "logprobs": [],
                }
                for n, letter in enumerate(text, 1)
            ),
            {"type": "response.completed", "sequence_number": 99, "response": found},
        ]  # fmt: skip
        for event in events:
            writer.write(f"event: {event['type']}\n".encode())
            await say(writer, event)
            await asyncio.sleep(pause)
        return writer.close()

    return step
