"""A scripted model for agents: it calls the tools that its question names for as long as it is offered them.

A question says ``do: search x3``: the model calls ``search``, three times at once, again and again, and answers when
it is no longer offered that tool. So an agent ends by its budget, by a limit of its framework, or never. What it bills
is a token for four bytes of a request, and one for each word that it says.
"""

from __future__ import annotations

import json
import re
from asyncio import StreamWriter
from dataclasses import dataclass, field
from typing import Any

from helpers.upstream import Upstream, answer, begin, end, event, usage

MODEL = "gpt-4o-mini"
DO = re.compile(r"do: (\w+)(?: x(\d+))?")
"""What a question asks for: a tool, and how many calls of it at once."""


@dataclass
class Brain:
    """A step of an :class:`~helpers.upstream.Upstream`.

    Attributes:
        fails: whether each request fails once, after it was generated and billed.
        calls: requests that were answered.
        failed: requests that failed, by their first message and their length.
    """

    fails: bool = False
    calls: int = 0
    failed: set[str] = field(default_factory=set)

    async def __call__(self, server: Upstream, writer: StreamWriter, path: str, body: Any) -> None:
        messages = body["messages"]
        tools = {tool["function"]["name"]: tool["function"] for tool in body.get("tools") or ()}
        said = " ".join(_text(message.get("content")) for message in messages if message["role"] != "tool")
        found = sum(message["role"] == "tool" for message in messages)
        self.calls += 1
        message = _fields(said, self.calls) or _say(said, tools, found, self.calls)
        read = len(json.dumps([messages, body.get("tools")], ensure_ascii=False).encode()) // 4 + 1
        words = json.dumps([message["content"], message.get("tool_calls")]).split()
        made = min(len(words), body.get("max_completion_tokens") or body.get("max_tokens") or 10**6)
        server.billed += read + made
        key = f"{messages[0]} {len(messages)}"
        if self.fails and key not in self.failed:
            self.failed.add(key)
            return await answer(writer, 500, {"error": {"message": "overloaded", "type": "x"}}, [("retry-after", "0")])
        base = {"id": f"c{self.calls}", "created": 1, "model": MODEL}
        finish = "tool_calls" if "tool_calls" in message else "stop"
        if not body.get("stream"):
            choice = {"index": 0, "finish_reason": finish, "message": message}
            whole = {**base, "object": "chat.completion", "choices": [choice], "usage": usage(read, made)}
            return await answer(writer, 200, whole)
        await begin(writer)
        base["object"] = "chat.completion.chunk"
        deltas = [{"content": word} for word in re.findall(r"\S+\s*", message["content"] or "")]
        deltas += [{"tool_calls": [{**call, "index": n}]} for n, call in enumerate(message.get("tool_calls", ()))]
        for delta in [{"role": "assistant", "content": None}, *deltas]:
            await event(writer, {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        await event(writer, {**base, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        if (body.get("stream_options") or {}).get("include_usage"):
            await event(writer, {**base, "choices": [], "usage": usage(read, made)})
        await event(writer, "[DONE]")
        return await end(writer)


def _say(said: str, tools: dict[str, Any], found: int, n: int) -> dict[str, Any]:
    """The message: calls of a tool, or the answer."""
    order = DO.search(said)
    if order is not None and order[1] in tools:
        times = int(order[2] or 1)
        calls = [
            {"id": f"call_{n}_{i}", "type": "function", "function": {"name": order[1], "arguments": json.dumps(
                {name: _argument(name, order[1], f"{n} {i}") for name in tools[order[1]]["parameters"]["properties"]}
            )}} for i in range(times)
        ]  # fmt: skip
        return {"role": "assistant", "content": None, "tool_calls": calls}
    text = f"Done with {found} findings."
    if "final_answer" in tools:
        call = {"name": "final_answer", "arguments": json.dumps({"answer": text})}
        return {"role": "assistant", "content": None, "tool_calls": [
            {"id": f"call_{n}", "type": "function", "function": call}]}  # fmt: skip
    return {"role": "assistant", "content": text}


def _fields(said: str, n: int) -> dict[str, Any] | None:
    """The same for DSPy, whose agents ask for fields between marks, one call of a tool at a time; None: it is not asked
    for them."""
    if "[[ ## completed ## ]]" not in said:
        return None
    order, tools = DO.search(said), re.findall(r"\(\d+\) (\w+), whose description", said)
    tool = order[1] if order is not None and order[1] in tools else "finish"
    name = "query" if tool == "search" else "question"
    arguments = {} if tool == "finish" else {name: _argument(name, tool, str(n))}
    found = said.count("[[ ## observation_")
    step = {"next_thought": "Go on.", "next_tool_name": tool, "next_tool_args": json.dumps(arguments)}
    told = step if tools else {"reasoning": "So.", "answer": f"Done with {found} findings."}
    text = "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in told.items())
    return {"role": "assistant", "content": f"{text}\n\n[[ ## completed ## ]]"}


def _argument(name: str, tool: str, nth: str) -> str:
    """A question names what is asked for: of itself, of a writer, who has no tools, or of a searcher."""
    if name != "question":
        return f"query {nth}"
    return {"ask_worker": "do: ask_worker", "summarise": "Sum it up"}.get(tool, f"do: search ({nth})")


def _text(content: Any) -> str:
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content)
    return str(content or "")
