"""The scripted model of :mod:`helpers.brain` in the form of Anthropic's Messages, for the Claude Agent SDK.

A question says ``do: search x3``, and the model calls ``search`` three times at once for as long as it may;
``do: ask_NAME`` calls the sub-agent of that name, by the tool with which its command starts sub-agents. What it bills
is a token for four bytes of a request, and five for an answer.
"""

from __future__ import annotations

import json
from asyncio import StreamWriter
from dataclasses import dataclass, field
from typing import Any

from helpers.brain import DO
from helpers.upstream import Upstream, answer, begin, end, event

MODEL = "claude-sonnet-4-5"
_AGENT = "Agent"
_MADE = 5


@dataclass
class Claude:
    """A step of an :class:`~helpers.upstream.Upstream`.

    Attributes:
        fails: whether each request fails once, after it was generated and billed.
        calls: requests that were answered.
        failed: requests that failed, by their text.
    """

    fails: bool = False
    calls: int = 0
    failed: set[bytes] = field(default_factory=set)

    async def __call__(self, server: Upstream, writer: StreamWriter, path: str, body: Any) -> None:
        self.calls += 1
        read = len(server.raw) // 4 + 1
        server.billed += read + _MADE
        key = json.dumps([body["messages"], body.get("system")]).encode()
        if self.fails and key not in self.failed:
            self.failed.add(key)
            error = {"type": "error", "error": {"type": "api_error", "message": "overloaded"}}
            return await answer(writer, 500, error, [("retry-after", "0")])
        blocks = _blocks(body, self.calls)
        reason: dict[str, Any] = {
            "stop_reason": "tool_use" if blocks[0]["type"] == "tool_use" else "end_turn",
            "stop_sequence": None,
        }
        usage = {"input_tokens": read, "output_tokens": _MADE}
        message: dict[str, Any] = {"id": f"msg_{self.calls}", "type": "message", "role": "assistant", "model": MODEL}
        if not body.get("stream"):
            return await answer(writer, 200, {**message, **reason, "content": blocks, "usage": usage})
        await begin(writer)
        events: list[tuple[str, dict[str, Any]]] = [
            ("message_start", {"message": {**message, "content": [], "stop_reason": None, "usage": usage}})
        ]
        for i, block in enumerate(blocks):
            empty: dict[str, Any] = {"text": ""} if block["type"] == "text" else {"input": {}}
            delta = (
                {"type": "text_delta", "text": block["text"]}
                if block["type"] == "text"
                else {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
            )
            events += [
                ("content_block_start", {"index": i, "content_block": {**block, **empty}}),
                ("content_block_delta", {"index": i, "delta": delta}),
                ("content_block_stop", {"index": i}),
            ]
        events += [("message_delta", {"delta": reason, "usage": {"output_tokens": _MADE}}), ("message_stop", {})]
        for name, data in events:
            await event(writer, {"type": name, **data}, name)
        return await end(writer)


def _blocks(body: Any, n: int) -> list[dict[str, Any]]:
    """What is said: calls of a tool, or the answer."""
    parts = [part for message in body["messages"] if message["role"] == "user" for part in _parts(message["content"])]
    order = DO.search(" ".join(part["text"] for part in parts if part["type"] == "text"))
    found = sum(part["type"] == "tool_result" for part in parts)
    if order is not None and body.get("tool_choice") != {"type": "none"}:
        agent = order[1].removeprefix("ask_") if order[1].startswith("ask_") else ""
        wanted = _AGENT if agent else f"mcp__here__{order[1]}"
        if wanted in [tool["name"] for tool in body.get("tools", ())]:
            inner = "do: ask_worker" if agent == "worker" else "do: search"
            given = (
                {"description": "ask", "prompt": inner, "subagent_type": agent} if agent else {"query": f"query {n}"}
            )
            return [
                {"type": "tool_use", "id": f"toolu_{n}_{i}", "name": wanted, "input": given}
                for i in range(int(order[2] or 1))
            ]
    return [{"type": "text", "text": f"Done with {found} findings."}]


def _parts(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [{"type": "text", "text": str(content)}]
