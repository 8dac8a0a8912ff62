"""Ask an upstream whether it knows ``stream_options``, by one short stream, for ``budgeteer serve --check``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from budgeteer.gateway.upstream import Backend, Upstreams

_OUTPUT = 16
"""Output tokens that are asked for: some servers refuse fewer."""
_LONGEST = 100_000


async def knows_stream_options(upstreams: Upstreams, backend: Backend) -> tuple[bool, str] | None:
    """Whether the declared ``stream_options`` of an upstream holds, and what to say; None if that cannot be told.

    It costs a few tokens: a chat of one word, and a second one if the first is refused.
    """
    config = backend.config
    if config.dialect == "anthropic" or not config.models:
        return None
    model = config.models[0]
    body = {
        "model": model.upstream,
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        model.cap: _OUTPUT,
    }
    status, said = await _stream(upstreams, backend, {**body, "stream_options": {"include_usage": True}})
    declared = config.conduct.stream_options
    if status == 200:
        if b'"usage"' not in said:
            return True, "takes stream_options and says no usage: streams are charged by their text, on the safe side"
        hint = "" if declared else "; stream_options = true would have its streams charged exactly"
        return True, f"knows stream_options{hint}"
    if status not in (400, 422):
        return None
    plain, _ = await _stream(upstreams, backend, body)
    if plain != 200:
        return None
    return not declared, "refuses stream_options" + ("; write stream_options = false" if declared else ", as declared")


async def _stream(upstreams: Upstreams, backend: Backend, body: Mapping[str, Any]) -> tuple[int, bytes]:
    response = await upstreams.post(backend, "chat/completions", orjson.dumps(body), {})
    async with response:
        said = bytearray()
        async for piece in response.content.iter_any():
            said += piece
            if len(said) > _LONGEST:
                break
        return response.status, bytes(said)
