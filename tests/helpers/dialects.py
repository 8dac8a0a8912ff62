"""How providers of other dialects answer: a table of them, as steps of an :class:`~helpers.upstream.Upstream`.

Each says some words, a token each, thinks before that if it is told to, and bills what it generated: input when it
begins, output as it goes.
"""

from __future__ import annotations

import binascii
import json
import struct
from asyncio import StreamWriter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from helpers.upstream import Step, Upstream, answer

ARGUMENTS = {"place": "Bern"}


@dataclass(frozen=True)
class Said:
    """What a provider says, and what it counts.

    Attributes:
        words: of the answer, a token each.
        read, cached, written: tokens of the input, and those of it read from the cache or written to it.
        thought: tokens of reasoning.
        tool: whether a tool is called in place of words.
        tells: whether the usage is told.
        cut: after so many words the connection drops; ``clean``: it ends as if all was said.
    """

    words: int = 3
    read: int = 9
    cached: int = 2
    written: int = 0
    thought: int = 0
    tool: bool = False
    tells: bool = True
    cut: int | None = None
    clean: bool = False

    @property
    def made(self) -> int:
        """Tokens of output."""
        return self.words + self.thought

    @property
    def text(self) -> str:
        """Of a whole answer."""
        return "word " * self.words


@dataclass(frozen=True)
class Dialect:
    """A provider's dialect.

    Attributes:
        provider: its name in the gateway's file.
        whole: what it says -> the body of a whole answer.
        stream: what it says -> the pieces of a stream; each with the tokens that it bills.
        kind: the content type of a stream.
        cap: reads the output cap from a request.
        caches, thinks: whether its usage tells what was read from a cache, and what was thought.
        more: further lines of the upstream's table.
    """

    provider: str
    whole: Callable[[Said], Any]
    stream: Callable[[Said], Iterator[tuple[bytes, int]]]
    kind: str
    cap: Callable[[Mapping[str, Any]], int]
    caches: bool = True
    thinks: bool = False
    more: str = ""

    def says(self, said: Said) -> Step:
        """Answers so, whole or streamed as asked."""

        async def step(server: Upstream, writer: StreamWriter, path: str, body: Any) -> None:
            if not (body.get("stream") or "stream" in path.lower()):
                server.billed += said.read + said.made
                return await answer(writer, 200, self.whole(said))
            writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: {self.kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode())
            server.billed += said.read
            words = 0
            for piece, billed in self.stream(said):
                if words == said.cut and billed:
                    break
                words += bool(billed)
                server.billed += billed
                writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                await writer.drain()
            if said.cut is None or said.clean:
                writer.write(b"0\r\n\r\n")
                return await writer.drain()
            writer.close()

        return step


def pieces(kind: str, content: Sequence[bytes], billed: int, clean: bool) -> Step:
    """Answers with these pieces of a stream and bills so much; then the connection drops, unless its end is clean."""

    async def step(server: Upstream, writer: StreamWriter, path: str, body: Any) -> None:
        server.billed += billed
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode())
        for piece in content:
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        writer.write(b"0\r\n\r\n" if clean else b"")
        await writer.drain()
        if not clean:
            writer.close()

    return step


def events_of(*bodies: Any, named: bool = False) -> bytes:
    """Server-sent events, with their type as their name if they are ``named``."""
    return b"".join(
        (f"event: {body['type']}\n".encode() if named else b"") + b"data: " + json.dumps(body).encode() + b"\n\n"
        for body in bodies
    )


def _gemini(said: Said, text: str, made: int, last: bool) -> dict[str, Any]:
    part = {"functionCall": {"name": "weather", "args": ARGUMENTS}} if said.tool else {"text": text}
    candidate: dict[str, Any] = {"index": 0, "content": {"role": "model", "parts": [part]}}
    if last:
        candidate["finishReason"] = "STOP"
    found: dict[str, Any] = {"candidates": [candidate], "modelVersion": "m"}
    if said.tells:
        found["usageMetadata"] = {
            "promptTokenCount": said.read, "cachedContentTokenCount": said.cached, "candidatesTokenCount": made,
            "thoughtsTokenCount": said.thought, "totalTokenCount": said.read + made + said.thought,
        }  # fmt: skip
    return found


def _gemini_stream(said: Said) -> Iterator[tuple[bytes, int]]:
    count = 1 if said.tool else said.words
    for n in range(1, count + 1):
        made = said.words if said.tool else n
        billed = (said.words if said.tool else 1) + (said.thought if n == 1 else 0)
        yield events_of(_gemini(said, "word ", made, n == count)), billed


def _ollama(said: Said, text: str, last: bool, tool: bool = False) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": "" if tool else text}
    if tool:
        message["tool_calls"] = [{"function": {"name": "weather", "arguments": ARGUMENTS}}]
    found = {"model": "m", "created_at": "2026-01-01T00:00:00Z", "message": message, "done": last}
    if last:
        found["done_reason"] = "stop"
        found |= {"prompt_eval_count": said.read, "eval_count": said.words} if said.tells else {}
    return found


def _ollama_stream(said: Said) -> Iterator[tuple[bytes, int]]:
    for _ in range(1 if said.tool else said.words):
        billed = said.words if said.tool else 1
        yield json.dumps(_ollama(said, "word ", False, said.tool)).encode() + b"\n", billed
    yield json.dumps(_ollama(said, "", True)).encode() + b"\n", 0


def _anthropic(said: Said) -> dict[str, Any]:
    tool = {"type": "tool_use", "id": "t1", "name": "weather", "input": ARGUMENTS}
    usage = {
        "input_tokens": said.read - said.cached - said.written, "cache_read_input_tokens": said.cached,
        "cache_creation_input_tokens": said.written, "output_tokens": said.made,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": said.written},
    }  # fmt: skip
    return {
        "id": "m1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None,
        "stop_reason": "tool_use" if said.tool else "end_turn",
        "content": [tool if said.tool else {"type": "text", "text": said.text}], "usage": usage if said.tells else {},
    }  # fmt: skip


def _anthropic_stream(said: Said) -> Iterator[tuple[bytes, int]]:
    whole = _anthropic(said)
    start = {**whole, "content": [], "stop_reason": None, "usage": {**whole["usage"], "output_tokens": 1}}
    yield events_of({"type": "message_start", "message": start}, named=True), 0
    block = (
        {"type": "tool_use", "id": "t1", "name": "weather", "input": {}} if said.tool else {"type": "text", "text": ""}
    )
    yield events_of({"type": "content_block_start", "index": 0, "content_block": block}, named=True), 0
    for _ in range(1 if said.tool else said.words):
        delta = (
            {"type": "input_json_delta", "partial_json": json.dumps(ARGUMENTS)}
            if said.tool
            else {"type": "text_delta", "text": "word "}
        )
        billed = said.words if said.tool else 1
        yield events_of({"type": "content_block_delta", "index": 0, "delta": delta}, named=True), billed
    stop = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    end = {"type": "message_delta", "delta": stop, "usage": {"output_tokens": said.made}}
    yield events_of({"type": "content_block_stop", "index": 0}, end, {"type": "message_stop"}, named=True), 0


def _openai_usage(said: Said) -> dict[str, Any]:
    return {
        "prompt_tokens": said.read, "completion_tokens": said.made, "total_tokens": said.read + said.made,
        "prompt_tokens_details": {"cached_tokens": said.cached},
        "completion_tokens_details": {"reasoning_tokens": said.thought},
    }  # fmt: skip


def _call(index: int | None = None) -> dict[str, Any]:
    call = {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": json.dumps(ARGUMENTS)}}
    return call if index is None else {"index": index, **call}


def _openai(said: Said) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": None if said.tool else said.text}
    if said.tool:
        message["tool_calls"] = [_call()]
    choice = {"index": 0, "finish_reason": "tool_calls" if said.tool else "stop", "message": message}
    found = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return {**found, "usage": _openai_usage(said)} if said.tells else found


def _openai_stream(said: Said) -> Iterator[tuple[bytes, int]]:
    base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    for n in range(1 if said.tool else said.words):
        delta = {"tool_calls": [_call(0)]} if said.tool else {"content": "word "}
        billed = (said.words if said.tool else 1) + (said.thought if n == 0 else 0)
        yield events_of({**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}), billed
    finish = "tool_calls" if said.tool else "stop"
    yield events_of({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}), 0
    if said.tells:
        yield events_of({**base, "choices": [], "usage": _openai_usage(said)}), 0
    yield b"data: [DONE]\n\n", 0


def _bedrock_usage(said: Said) -> dict[str, Any]:
    return {
        "inputTokens": said.read - said.cached, "outputTokens": said.made, "totalTokens": said.read + said.made,
        "cacheReadInputTokens": said.cached, "cacheWriteInputTokens": 0,
    }  # fmt: skip


def _bedrock(said: Said) -> dict[str, Any]:
    tool = {"toolUse": {"toolUseId": "t1", "name": "weather", "input": ARGUMENTS}}
    content = [tool if said.tool else {"text": said.text}]
    found = {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": "tool_use" if said.tool else "end_turn", "metrics": {"latencyMs": 1},
    }  # fmt: skip
    return {**found, "usage": _bedrock_usage(said)} if said.tells else found


def frame_of(kind: str, body: Mapping[str, Any]) -> bytes:
    """An event of AWS's: lengths, checksums, headers and a payload."""
    headers = b""
    for name, value in ((":event-type", kind), (":content-type", "application/json"), (":message-type", "event")):
        headers += bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
    payload = json.dumps(body, separators=(",", ":")).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    frame = prelude + struct.pack(">I", binascii.crc32(prelude)) + headers + payload
    return frame + struct.pack(">I", binascii.crc32(frame))


def _bedrock_stream(said: Said) -> Iterator[tuple[bytes, int]]:
    yield frame_of("messageStart", {"role": "assistant"}), 0
    if said.tool:
        start = {"toolUse": {"toolUseId": "t1", "name": "weather"}}
        yield frame_of("contentBlockStart", {"contentBlockIndex": 0, "start": start}), 0
    for _ in range(1 if said.tool else said.words):
        delta: dict[str, Any] = {"toolUse": {"input": json.dumps(ARGUMENTS)}} if said.tool else {"text": "word "}
        yield frame_of("contentBlockDelta", {"contentBlockIndex": 0, "delta": delta}), said.words if said.tool else 1
    yield frame_of("contentBlockStop", {"contentBlockIndex": 0}), 0
    yield frame_of("messageStop", {"stopReason": "tool_use" if said.tool else "end_turn"}), 0
    if said.tells:
        yield frame_of("metadata", {"usage": _bedrock_usage(said), "metrics": {"latencyMs": 1}}), 0


def _gemini_cap(body: Mapping[str, Any]) -> int:
    wanted = body["generationConfig"]
    return int(wanted.get("maxOutputTokens") or wanted["max_output_tokens"])


SSE = "text/event-stream"
DIALECTS = {
    "gemini": Dialect(
        "gemini", lambda said: _gemini(said, said.text, said.words, True), _gemini_stream, SSE, _gemini_cap, thinks=True
    ),
    "ollama": Dialect(
        "ollama", lambda said: _ollama(said, said.text, True, said.tool), _ollama_stream, "application/x-ndjson",
        lambda body: int(body["options"]["num_predict"]), caches=False,
    ),
    "anthropic": Dialect("anthropic", _anthropic, _anthropic_stream, SSE, lambda body: int(body["max_tokens"])),
    "openai": Dialect(
        "openai", _openai, _openai_stream, SSE,
        lambda body: int(body.get("max_tokens") or body["max_completion_tokens"]), thinks=True,
    ),
    "bedrock": Dialect(
        "bedrock", _bedrock, _bedrock_stream, "application/vnd.amazon.eventstream",
        lambda body: int(body["inferenceConfig"]["maxTokens"]),
        more='[upstreams.provider_options]\naws_region_name = "eu-central-1"',
    ),
}  # fmt: skip
