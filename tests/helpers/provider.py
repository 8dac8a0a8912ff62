"""A provider on this machine: an HTTP server that speaks the OpenAI API and misbehaves when told to.

Each request is answered by the next step of its script, a callable that gets the handler and the request's body. Plain
answers are made by ``chat``, ``sse`` and ``error``.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Step = Callable[[BaseHTTPRequestHandler, Any], object]
Headers = Iterable[tuple[str, str]]


class Provider:
    """A running server; use as a context manager.

    Attributes:
        script: what answers, in order; the last one answers all further requests.
        requests: (path, body) of what arrived, in order.
    """

    def __init__(self, *script: Step) -> None:
        self.script = list(script)
        self.requests: list[tuple[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = json.loads(self.rfile.read(length) or b"{}")
                with provider.lock:
                    step = provider.script[min(len(provider.requests), len(provider.script) - 1)]
                    provider.requests.append((self.path, body))
                    provider.headers.append(dict(self.headers))
                try:
                    step(self, body)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def do_GET(self) -> None:
                provider.requests.append((self.path, None))
                reply(self, 200, {"object": "list", "data": []})

            def log_message(self, *_: object) -> None:
                pass

        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def __enter__(self) -> Self:
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def reply(handler: BaseHTTPRequestHandler, status: int, body: Any, headers: Headers = ()) -> None:
    """A whole answer."""
    data = json.dumps(body).encode()
    handler.send_response(status)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", str(len(data)))
    for name, value in headers:
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(data)


def chat(
    texts: Sequence[str] = ("Hello there",), usage: Any = None, finish: str = "stop", model: str = "gpt-4o-2024-08-06",
    **more: Any,
) -> Step:  # fmt: skip
    """A whole chat completion."""

    def step(handler: BaseHTTPRequestHandler, body: Any) -> None:
        choices = [
            {"index": n, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
            for n, text in enumerate(texts)
        ]
        found = {"id": "c", "object": "chat.completion", "created": 1, "model": model, "choices": choices, **more}
        if usage is not None:
            found["usage"] = usage
        reply(handler, 200, found)

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


def error(status: int, headers: Headers = (), message: str = "no") -> Step:
    """An error answer."""
    return lambda handler, body: reply(handler, status, {"error": {"message": message, "type": "x"}}, headers)


def hang_up(handler: BaseHTTPRequestHandler, body: Any) -> None:
    """Read the request, then drop the connection without an answer."""
    handler.connection.close()
    handler.close_connection = True


def slow(seconds: float, step: Step) -> Step:
    """Answer later."""

    def later(handler: BaseHTTPRequestHandler, body: Any) -> None:
        time.sleep(seconds)
        step(handler, body)

    return later


def sse(
    words: Sequence[str], usage: Any = None, cut_after: int | None = None, pause: float = 0.0,
    model: str = "gpt-4o-2024-08-06", choices: int = 1, line_end: str = "\n",
) -> Step:  # fmt: skip
    """A streamed chat completion, one chunk a word and choice; with usage if asked, as OpenAI does.

    ``cut_after`` words the connection drops.
    """

    def step(handler: BaseHTTPRequestHandler, body: Any) -> None:
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.send_header("connection", "close")
        handler.end_headers()
        handler.close_connection = True
        wants = (body.get("stream_options") or {}).get("include_usage")

        def send(data: Any) -> None:
            text = data if isinstance(data, str) else json.dumps(data)
            handler.wfile.write(f"data: {text}{line_end}{line_end}".encode())
            handler.wfile.flush()
            time.sleep(pause)

        base: dict[str, Any] = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": model}
        if wants:
            base["usage"] = None
        for n, word in enumerate(words):
            if n == cut_after:
                handler.connection.close()
                return
            for index in range(choices):
                delta = {"index": index, "delta": {"content": word}, "finish_reason": None}
                send({**base, "choices": [delta]})
        for index in range(choices):
            send({**base, "choices": [{"index": index, "delta": {}, "finish_reason": "stop"}]})
        if wants and usage is not None:
            send({**base, "choices": [], "usage": usage})
        send("[DONE]")

    return step


def responses(
    text: str = "Hello", usage: Any = None, status: str = "completed", pause: float = 0.0,
    tool: tuple[str, str] | None = None,
) -> Step:  # fmt: skip
    """A response of the Responses API, whole or streamed as asked; ``tool`` = (name, arguments) calls one instead."""

    def step(handler: BaseHTTPRequestHandler, body: Any) -> None:
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
            reply(handler, 200, found)
            return
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.send_header("connection", "close")
        handler.end_headers()
        handler.close_connection = True
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
            handler.wfile.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
            time.sleep(pause)

    return step
