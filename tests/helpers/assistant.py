"""A scripted assistant for real clients, in the dialect that it is asked in: chat completions, Responses or Messages.

It greets; it adds two numbers with the tool ``add`` where it is offered and says what came out; where a schema is asked
for, or another tool is offered, it fills that with what it knows of Ada. It keeps to what the three APIs document, as
clients look closely: a stream has all of its events, a reference must be to an item that was answered.
"""

from __future__ import annotations

import json
import re
from asyncio import StreamWriter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from helpers.upstream import Upstream, answer, begin, end, event, usage

MODEL = "gpt-4o-mini"
GREETING = "Hello there, my friend."
PERSON = {"name": "Ada", "age": 36}
_BYTES = 8
"""Of a request, which are billed as a token."""
Json = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """What a request comes to, in any dialect.

    Attributes:
        tools: name -> JSON schema of its arguments.
        prompt: of the system.
        user: the last text of the user.
        result: of the tool, if the conversation ends with it.
        schema: of the answer; None = plain text, {} = any JSON.
    """

    tools: Mapping[str, Json]
    prompt: str
    user: str
    result: str | None
    schema: Json | None


@dataclass(frozen=True)
class Said:
    """The answer: a text, or the call of a tool by name with its arguments as JSON."""

    text: str = ""
    tool: str = ""

    @property
    def pieces(self) -> list[str]:
        """The text in pieces; each is billed as a token."""
        return re.findall(r"\S+\s*", self.text)


@dataclass(frozen=True)
class Reply:
    """What was said, with all that an answer is made of.

    Attributes:
        n: which answer of this assistant it is; its identifiers are made of it.
        read, made: tokens that are billed.
        tells: whether a stream of chat completions ends with the usage.
    """

    said: Said
    n: int
    read: int
    made: int
    tells: bool


@dataclass
class Assistant:
    """A step of an :class:`~helpers.upstream.Upstream`.

    Attributes:
        items: identifier -> item that a response had.
        responses: identifiers of responses.
        n: answers so far.
    """

    items: dict[str, Json] = field(default_factory=dict)
    responses: set[str] = field(default_factory=set)
    n: int = 0

    async def __call__(self, server: Upstream, writer: StreamWriter, path: str, body: Any) -> None:
        dialect = DIALECTS[path.partition("?")[0].removeprefix("/v1/")]
        lost = [one for one in _references(body) if one not in self.items and one not in self.responses]
        if lost:  # as OpenAI does
            about = {"message": f"Item with id '{lost[0]}' not found.", "type": "invalid_request_error"}
            return await answer(writer, 404, {"error": about})
        if "input" in body and not isinstance(body["input"], str):
            body = {**body, "input": [self.items[one["id"]] if _refers(one) else one for one in body["input"]]}
        said = say(dialect.read(body))
        self.n += 1
        tells = bool((body.get("stream_options") or {}).get("include_usage"))
        reply = Reply(said, self.n, len(server.raw) // _BYTES + 1, len(said.pieces), tells)
        server.billed += reply.read + reply.made
        whole = dialect.whole(reply)
        if whole.get("object") == "response":
            self.responses.add(whole["id"])
            self.items.update((item["id"], item) for item in whole["output"])
        if not body.get("stream"):
            return await answer(writer, 200, whole)
        await begin(writer)
        for name, data in dialect.events(reply):
            await event(writer, data, name)
        return await end(writer)


# what it says


def say(asked: Asked) -> Said:
    """The answer to what was asked."""
    a, b = (int(number) for number in (*re.findall(r"\d+", asked.user), "2", "3")[:2])
    result = asked.result
    if result is None and (seen := re.findall(r"(?i)observation(?:_\d+ ## \]\])?:?\s*(\d+)", asked.user)):
        result = seen[-1]  # frameworks that write results of tools into the prompt
    text = GREETING if result is None else f"It is {result}."
    knows = {**PERSON, "a": a, "b": b, "answer": text, "numbers": {"a": a, "b": b}}
    tools = dict(asked.tools)
    add = tools.pop("add", None)
    if result is None and add is not None:
        return Said(json.dumps(fill(add, knows)), "add")
    if tools:
        name = next(iter(tools))
        return Said(json.dumps(fill(tools[name], knows)), name)
    if asked.schema is not None:
        return Said(json.dumps(fill(asked.schema, knows) if asked.schema else PERSON))
    return Said(marked(asked.prompt, result, knows) or text)


def marked(prompt: str, result: str | None, knows: Mapping[str, Any]) -> str:
    """An answer in DSPy's form, "[[ ## NAME ## ]]" before each field, if the prompt asks for that; else ""."""
    if "[[ ## completed ## ]]" not in prompt:
        return ""
    wanted = prompt.partition("output fields are:")[2].partition("All interactions")[0]
    call = {"next_thought": "I add.", "next_tool_name": "add", "next_tool_args": json.dumps(knows["numbers"])}
    done = {"next_thought": "I know.", "next_tool_name": "finish", "next_tool_args": "{}"}
    values = {**knows, "reasoning": "I have added.", **(call if result is None else done)}
    fields = [f"[[ ## {name} ## ]]\n{values[name]}\n" for name in re.findall(r"`(\w+)`", wanted)]
    return "\n".join([*fields, "[[ ## completed ## ]]"])


def fill(schema: Json, knows: Mapping[str, Any], name: str = "", defs: Json | None = None) -> Any:
    """A value that fits a JSON schema, from what is known by the properties' names."""
    defs = schema.get("$defs", {}) if defs is None else defs
    if "$ref" in schema:
        return fill(defs[schema["$ref"].rpartition("/")[2]], knows, name, defs)
    if "properties" in schema:
        return {key: fill(one, knows, key, defs) for key, one in schema["properties"].items()}
    if name in knows:
        return knows[name]
    if "enum" in schema:
        return schema["enum"][0]
    for several in ("anyOf", "allOf", "oneOf"):
        if several in schema:
            return fill(schema[several][0], knows, name, defs)
    kinds: Json = {"integer": 1, "number": 1, "boolean": True, "array": [], "object": {}}
    return kinds.get(schema.get("type", ""), "word")


def _text(content: Any) -> str:
    """The text of a message's content: itself, or that of its parts."""
    if isinstance(content, list):
        return " ".join(_text(part.get("text", part.get("content", ""))) for part in content)
    return str(content or "")


def _refers(item: Any) -> bool:
    return isinstance(item, dict) and item.get("type") == "item_reference"


def _references(body: Any) -> list[str]:
    """Identifiers that a request refers to."""
    found = [body["previous_response_id"]] if body.get("previous_response_id") else []
    items = body.get("input")
    return found + [one["id"] for one in items if _refers(one)] if isinstance(items, list) else found


def _last(texts: list[str]) -> str:
    return texts[-1] if texts else ""


# chat completions


def _chat_read(body: Json) -> Asked:
    messages = body["messages"]
    wanted = body.get("response_format") or {}
    schema = (wanted.get("json_schema") or {}).get("schema")
    by = {role: [_text(one["content"]) for one in messages if one["role"] in roles] for role, roles in _ROLES.items()}
    return Asked(
        {one["function"]["name"]: one["function"]["parameters"] for one in body.get("tools") or ()},
        "\n".join(by["system"]), _last(by["user"]),
        _text(messages[-1]["content"]) if messages[-1]["role"] == "tool" else None,
        {} if wanted.get("type") == "json_object" else schema,
    )  # fmt: skip


_ROLES = {"system": ("system", "developer"), "user": ("user",)}


def _chat_call(reply: Reply) -> Json:
    function = {"name": reply.said.tool, "arguments": reply.said.text}
    return {"id": f"call_{reply.n}", "type": "function", "function": function}


def _chat_whole(reply: Reply) -> Json:
    tool = bool(reply.said.tool)
    message: Json = {"role": "assistant", "content": None if tool else reply.said.text, "refusal": None}
    if tool:
        message["tool_calls"] = [_chat_call(reply)]
    choice = {"index": 0, "finish_reason": "tool_calls" if tool else "stop", "logprobs": None, "message": message}
    base = {"id": f"chatcmpl-{reply.n}", "object": "chat.completion", "created": 1, "model": MODEL}
    return {**base, "choices": [choice], "usage": usage(reply.read, reply.made)}


def _chat_events(reply: Reply) -> Iterator[tuple[str | None, Any]]:
    base = {"id": f"chatcmpl-{reply.n}", "object": "chat.completion.chunk", "created": 1, "model": MODEL}

    def chunk(delta: Json, finish: str | None = None) -> tuple[None, Json]:
        return None, {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    if reply.said.tool:
        call = _chat_call(reply)
        first = {**call, "index": 0, "function": {**call["function"], "arguments": ""}}
        yield chunk({"role": "assistant", "content": None, "tool_calls": [first]})
    else:
        yield chunk({"role": "assistant", "content": ""})
    for piece in reply.said.pieces:
        part = {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} if reply.said.tool else {
            "content": piece}  # fmt: skip
        yield chunk(part)
    yield chunk({}, "tool_calls" if reply.said.tool else "stop")
    if reply.tells:
        yield None, {**base, "choices": [], "usage": usage(reply.read, reply.made)}
    yield None, "[DONE]"


# Responses


def _responses_read(body: Json) -> Asked:
    given = body["input"]
    items: list[Json] = [{"role": "user", "content": given}] if isinstance(given, str) else given
    messages = [item for item in items if "role" in item]
    last = items[-1]
    wanted = (body.get("text") or {}).get("format") or {}
    by = {role: [_text(one["content"]) for one in messages if one["role"] in roles] for role, roles in _ROLES.items()}
    return Asked(
        {one["name"]: one["parameters"] for one in body.get("tools") or () if one["type"] == "function"},
        "\n".join([body.get("instructions") or "", *by["system"]]), _last(by["user"]),
        _text(last["output"]) if last.get("type") == "function_call_output" else None,
        {} if wanted.get("type") == "json_object" else wanted.get("schema"),
    )  # fmt: skip


def _responses_item(reply: Reply) -> Json:
    if reply.said.tool:
        made = {"name": reply.said.tool, "arguments": reply.said.text}
        return {
            "id": f"fc_{reply.n}", "call_id": f"call_{reply.n}", "type": "function_call", "status": "completed", **made
        }  # fmt: skip
    content = [{"type": "output_text", "text": reply.said.text, "annotations": [], "logprobs": []}]
    return {
        "id": f"msg_{reply.n}", "type": "message", "role": "assistant", "status": "completed", "content": content
    }  # fmt: skip


def _responses_whole(reply: Reply) -> Json:
    counted = {
        "input_tokens": reply.read, "output_tokens": reply.made, "total_tokens": reply.read + reply.made,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }  # fmt: skip
    return {
        "id": f"resp_{reply.n}", "object": "response", "created_at": 1, "model": MODEL, "status": "completed",
        "output": [_responses_item(reply)], "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
        "error": None, "incomplete_details": None, "instructions": None, "metadata": {}, "temperature": 1.0,
        "top_p": 1.0, "usage": counted,
    }  # fmt: skip


def _responses_events(reply: Reply) -> Iterator[tuple[str | None, Any]]:
    number = 0

    def one(kind: str, **more: Any) -> tuple[str, Json]:
        nonlocal number
        number += 1
        return kind, {"type": kind, "sequence_number": number - 1, **more}

    whole, item = _responses_whole(reply), _responses_item(reply)
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    at: Json = {"output_index": 0, "item_id": item["id"]}
    yield one("response.created", response=begun)
    yield one("response.in_progress", response=begun)
    empty: Json = {"arguments": ""} if reply.said.tool else {"content": []}
    yield one("response.output_item.added", output_index=0, item={**item, "status": "in_progress", **empty})
    if reply.said.tool:
        for piece in reply.said.pieces:
            yield one("response.function_call_arguments.delta", **at, delta=piece)
        yield one("response.function_call_arguments.done", **at, arguments=reply.said.text, name=reply.said.tool)
    else:
        at, part = {**at, "content_index": 0}, item["content"][0]
        yield one("response.content_part.added", **at, part={**part, "text": ""})
        for piece in reply.said.pieces:
            yield one("response.output_text.delta", **at, delta=piece, logprobs=[])
        yield one("response.output_text.done", **at, text=reply.said.text, logprobs=[])
        yield one("response.content_part.done", **at, part=part)
    yield one("response.output_item.done", output_index=0, item=item)
    yield one("response.completed", response=whole)


# Messages


def _messages_read(body: Json) -> Asked:
    messages = body["messages"]
    last = messages[-1]["content"]
    results = [part for part in last if part["type"] == "tool_result"] if isinstance(last, list) else []
    wanted = (body.get("output_config") or {}).get("format") or body.get("output_format") or {}
    return Asked(
        {one["name"]: one["input_schema"] for one in body.get("tools") or ()},
        _text(body.get("system")), _last([_text(one["content"]) for one in messages if one["role"] == "user"]),
        _text(results[0].get("content")) if results else None, wanted.get("schema"),
    )  # fmt: skip


def _messages_block(reply: Reply) -> Json:
    if reply.said.tool:
        return {"type": "tool_use", "id": f"toolu_{reply.n}", "name": reply.said.tool}
    return {"type": "text"}


def _messages_whole(reply: Reply) -> Json:
    made = {"input": json.loads(reply.said.text)} if reply.said.tool else {"text": reply.said.text}
    counted = {"input_tokens": reply.read, "output_tokens": reply.made}
    return {
        "id": f"msg_{reply.n}", "type": "message", "role": "assistant", "model": MODEL, "stop_sequence": None,
        "stop_reason": "tool_use" if reply.said.tool else "end_turn", "content": [{**_messages_block(reply), **made}],
        "usage": {**counted, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0},
    }  # fmt: skip


def _messages_events(reply: Reply) -> Iterator[tuple[str | None, Any]]:
    def one(kind: str, **more: Any) -> tuple[str, Json]:
        return kind, {"type": kind, **more}

    whole = _messages_whole(reply)
    counted = {**whole["usage"], "output_tokens": 1}
    yield one("message_start", message={**whole, "content": [], "stop_reason": None, "usage": counted})
    empty: Json = {"input": {}} if reply.said.tool else {"text": ""}
    yield one("content_block_start", index=0, content_block={**_messages_block(reply), **empty})
    for piece in reply.said.pieces:
        delta = {"type": "input_json_delta", "partial_json": piece} if reply.said.tool else {
            "type": "text_delta", "text": piece}  # fmt: skip
        yield one("content_block_delta", index=0, delta=delta)
    yield one("content_block_stop", index=0)
    stop = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield one("message_delta", delta=stop, usage={"output_tokens": reply.made})
    yield one("message_stop")


@dataclass(frozen=True)
class Dialect:
    """One API: how a request is read, and how a reply is written, whole or as the events of a stream (name, data)."""

    read: Callable[[Json], Asked]
    whole: Callable[[Reply], Json]
    events: Callable[[Reply], Iterator[tuple[str | None, Any]]]


DIALECTS = {
    "chat/completions": Dialect(_chat_read, _chat_whole, _chat_events),
    "responses": Dialect(_responses_read, _responses_whole, _responses_events),
    "messages": Dialect(_messages_read, _messages_whole, _messages_events),
}
"""Path below /v1 -> what is spoken there."""
