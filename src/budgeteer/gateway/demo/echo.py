"""A replacement for a model if none is installed: chat completions of made-up words, streamed or whole.

``python -m budgeteer.gateway.demo.echo MODEL`` prints its address, and ends when its standard input is closed.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

_WORDS = ("budgets", "are", "spent", "where", "they", "help", "most")
_TEMPLATE = 30
"""Tokens of a model's own system prompt."""
_PAUSE = 0.04
"""Seconds for each word, about the speed of a small model on two cores."""


def app(model: str) -> Starlette:
    """An ASGI application that serves one model."""

    async def chat(request: Request) -> Response:
        body = await request.json()
        prompt = sum(len(str(message.get("content", "")).split()) for message in body["messages"]) + _TEMPLATE
        words = [_WORDS[n % len(_WORDS)] for n in range(int(body.get("max_tokens") or 16))]
        base = {"id": "echo", "created": 0, "model": model}
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": len(words),
            "total_tokens": prompt + len(words),
        }
        if body.get("stream"):
            return StreamingResponse(
                _stream(words, {**base, "object": "chat.completion.chunk"}, usage), media_type="text/event-stream"
            )
        await asyncio.sleep(_PAUSE * len(words))
        said = {"role": "assistant", "content": " ".join(words)}
        choice = {"index": 0, "message": said, "finish_reason": "length"}
        return JSONResponse({**base, "object": "chat.completion", "choices": [choice], "usage": usage})

    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": model, "object": "model"}]})

    return Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"]), Route("/v1/models", models)])


async def _stream(words: list[str], base: dict[str, Any], usage: dict[str, int]) -> AsyncIterator[str]:
    for word in words:
        yield _event({**base, "choices": [{"index": 0, "delta": {"content": f"{word} "}, "finish_reason": None}]})
        await asyncio.sleep(_PAUSE)
    yield _event({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]})
    yield _event({**base, "choices": [], "usage": usage})
    yield "data: [DONE]\n\n"


def _event(about: dict[str, Any]) -> str:
    return f"data: {json.dumps(about)}\n\n"


def main() -> None:
    """Serve until the standard input is closed."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        serving = uvicorn.Server(uvicorn.Config(app(sys.argv[1]), log_level="warning", access_log=False))

        def until() -> None:
            sys.stdin.read()
            serving.should_exit = True

        threading.Thread(target=until, daemon=True).start()
        sys.stdout.write(f"http://127.0.0.1:{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        serving.run(sockets=[listener])


if __name__ == "__main__":
    main()
