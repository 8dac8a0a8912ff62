"""An endpoint that stores its responses, as OpenAI's Responses API does: a model that thinks, calls tools and answers.

A token is four bytes of JSON, or a part of them. Thoughts are billed as output, and again as input where a request
reads them: with the response that it continues, or by the id of their item.
"""

from __future__ import annotations

import itertools
import json
from asyncio import StreamWriter
from typing import Any

from helpers.upstream import Upstream, answer, begin, end, event


def tokens(item: Any) -> int:
    """Of an item that shows all of itself."""
    return -(-len(json.dumps(item).encode()) // 4)


class Missing(Exception):
    """A request refers to what is not stored."""


class Responses:
    """A step of an :class:`~helpers.upstream.Upstream` that stores what it answers; ``reads`` reads and deletes it.

    Args:
        calls: tools that it calls, one after the other, before it answers what a user said.
        thoughts: tokens that it thinks for each response; 0 = it is no model that thinks.
        prefix: the beginning of its ids.
    """

    def __init__(self, calls: int = 2, thoughts: int = 3000, prefix: str = "") -> None:
        self.calls, self.thoughts, self.prefix = calls, thoughts, prefix
        self.responses: dict[str, dict[str, Any]] = {}
        self.context: dict[str, list[tuple[Any, int]]] = {}
        self.items: dict[str, tuple[Any, int]] = {}
        self._number = itertools.count(1).__next__

    def _read(self, body: Any) -> list[tuple[Any, int]]:
        """(item, tokens) of all that a request reads."""
        before = body.get("previous_response_id")
        if before and before not in self.context:
            raise Missing(before)
        found = list(self.context[before]) if before else []
        given = body["input"]
        for item in [{"role": "user", "content": given}] if isinstance(given, str) else given:
            kind, id = item.get("type"), item.get("id")
            shows = item.get("role") or item.get("encrypted_content") or item.get("content")
            if kind == "item_reference" or (kind is None and not shows) or (kind == "reasoning" and not shows):
                if id not in self.items:
                    raise Missing(str(id))
                found.append(self.items[id])
            else:
                found.append((item, tokens(item)))
        return found

    async def __call__(self, server: Upstream, writer: StreamWriter, path: str, body: Any) -> None:
        try:
            context = self._read(body)
        except Missing as missing:
            return await answer(writer, 404, {"error": {"message": f"{missing} not found", "type": "x"}})
        read = sum(size for _, size in context)
        n = self._number()
        asked = max((n for n, (item, _) in enumerate(context) if item.get("role") == "user"), default=0)
        done = sum(item.get("type") == "function_call_output" for item, _ in context[asked:])
        last: dict[str, Any] = {
            "id": f"{self.prefix}fc_{n}", "type": "function_call", "call_id": f"call_{n}", "name": "add",
            "arguments": json.dumps({"a": n, "b": 1}), "status": "completed",
        } if done < self.calls else {
            "id": f"{self.prefix}msg_{n}", "type": "message", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": "It is done. " * 20, "annotations": []}],
        }  # fmt: skip
        made = [(last, tokens(last))]
        if self.thoughts:
            made.insert(0, ({"id": f"rs_{self.prefix}{n}", "type": "reasoning", "summary": []}, self.thoughts))
        written = sum(size for _, size in made)
        server.billed += read + written
        found = {
            "id": f"{self.prefix}resp_{n}", "object": "response", "created_at": 1, "model": body["model"],
            "status": "completed", "error": None, "output": [item for item, _ in made], "parallel_tool_calls": True,
            "tool_choice": "auto", "tools": body.get("tools") or [], "store": body.get("store") is not False,
            "previous_response_id": body.get("previous_response_id"),
            "usage": {
                "input_tokens": read, "output_tokens": written, "total_tokens": read + written,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens_details": {"reasoning_tokens": self.thoughts},
            },
        }  # fmt: skip
        if found["store"]:
            self.responses[found["id"]] = found
            self.context[found["id"]] = [*context, *made]
            self.items.update({item["id"]: (item, size) for item, size in made})
        if not body.get("stream"):
            return await answer(writer, 200, found)
        await begin(writer)
        numbers = itertools.count().__next__

        async def say(kind: str, **more: Any) -> None:
            await event(writer, {"type": kind, "sequence_number": numbers(), **more}, kind)

        await say("response.created", response={**found, "status": "in_progress", "output": [], "usage": None})
        for index, (item, _) in enumerate(made):
            await say("response.output_item.added", output_index=index, item=item)
            for part in item.get("content") or ():
                about = {"item_id": item["id"], "output_index": index, "content_index": 0, "logprobs": []}
                await say("response.output_text.delta", delta=part["text"], **about)
            await say("response.output_item.done", output_index=index, item=item)
        await say("response.completed", response=found)
        return await end(writer)

    async def reads(self, server: Upstream, writer: StreamWriter, path: str, method: str) -> None:
        """Answer what reads, cancels or deletes a stored response."""
        id, _, action = path.partition("?")[0].removeprefix("/v1/responses/").partition("/")
        if id not in self.responses:
            return await answer(writer, 404, {"error": {"message": f"{id} not found", "type": "x"}})
        if action == "input_items":
            items = [item for item, _ in self.context[id]]
            return await answer(writer, 200, {"object": "list", "data": items, "has_more": False})
        if method == "DELETE":
            del self.responses[id]
            return await answer(writer, 200, {"id": id, "object": "response", "deleted": True})
        return await answer(writer, 200, self.responses[id])
