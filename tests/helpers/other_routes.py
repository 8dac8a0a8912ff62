"""Answers of routes that make no text, as a table: what each provider answers, and how its usage looks there."""

from __future__ import annotations

import json
from asyncio import StreamWriter
from collections.abc import Mapping
from typing import Any

from helpers.upstream import Step, Upstream, answer, begin, end, event

ANSWERS: Mapping[str, Any] = {
    "counts": {"input_tokens": 17},
    "omni-moderation-latest": {"id": "m", "model": "omni-moderation-latest", "results": [{
        "flagged": False, "categories": {}, "category_scores": {}, "category_applied_input_types": {}}]},
    "checker": {"id": "m", "model": "checker", "results": [], "usage": {"prompt_tokens": 9, "total_tokens": 9}},
    "cohere": {"id": "r", "results": [{"index": 0, "relevance_score": 0.9}], "meta": {
        "api_version": {"version": "2"}, "billed_units": {"search_units": 2}}},
    "jina": {"model": "jina", "usage": {"total_tokens": 40}, "results": [{"index": 0, "relevance_score": 0.9}]},
    "silent": {"results": []},
    "gpt-image-1": {"created": 1, "data": [{"b64_json": "aGk="}], "usage": {
        "input_tokens": 30, "output_tokens": 1056, "total_tokens": 1086,
        "input_tokens_details": {"text_tokens": 10, "image_tokens": 20}}},
    "dall-e-3": {"created": 1, "data": [{"url": "http://example.com/a.png"}]},
    "whisper-1": {"text": "hi", "usage": {"type": "duration", "seconds": 12}},
    "gpt-4o-transcribe": {"text": "hi", "usage": {
        "type": "tokens", "input_tokens": 120, "output_tokens": 8, "total_tokens": 128,
        "input_token_details": {"text_tokens": 0, "audio_tokens": 120}}},
    "tts-1": b"ID3" + bytes(500),
}  # fmt: skip
"""Model -> its whole answer."""
EVENTS: Mapping[str, list[Any]] = {
    "gpt-image-1": [
        {"type": "image_generation.partial_image", "b64_json": "aA==", "partial_image_index": 0},
        {"type": "image_generation.completed", "b64_json": "aGk=", "usage": ANSWERS["gpt-image-1"]["usage"]},
    ],
    "gpt-4o-transcribe": [
        {"type": "transcript.text.delta", "delta": "hi"},
        {"type": "transcript.text.done", **ANSWERS["gpt-4o-transcribe"]},
    ],
}
"""Model -> the events of its stream."""


def other(name: str) -> Step:
    """Answers as the tables say, as a stream if it is asked for."""

    async def step(server: Upstream, writer: StreamWriter, path: str, body: Any) -> None:
        if str(body.get("stream")).lower() != "true":
            if not isinstance(ANSWERS[name], bytes):
                return await answer(writer, 200, ANSWERS[name])
            head = f"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: {len(ANSWERS[name])}\r\n\r\n"
            writer.write(head.encode() + ANSWERS[name])
            return await writer.drain()
        await begin(writer)
        for one in EVENTS[name]:
            await event(writer, json.dumps(one), one["type"])
        return await end(writer)

    return step


OTHERS: Mapping[str, Step] = {name: other(name) for name in ANSWERS}
