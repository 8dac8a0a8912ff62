"""Ask an upstream how many tokens a request has, where bytes bound it far too high: Anthropic's count_tokens."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from fractions import Fraction
from math import ceil
from typing import Any

import aiohttp
import orjson

from budgeteer.core.usage import MOST
from budgeteer.gateway.ask import Ask
from budgeteer.gateway.config import Model
from budgeteer.gateway.fields import check_addresses, check_fields
from budgeteer.gateway.upstream import Backend, Upstreams
from budgeteer.metering.estimate import texts_of, too_few

_LOG = logging.getLogger(__name__)
_ROUTE = "messages/count_tokens"
_FIELDS = ("messages", "system", "tools", "tool_choice", "thinking", "output_config", "output_format")
_FROM = 16_384
"""Bytes of a body from which its tokens are counted; the bound of a smaller one is near enough."""
_MARGIN = Fraction("1.05")
"""The count "may differ by a small amount" from what is billed, says its documentation."""
_SECONDS = 20.0
_PAUSE = 60.0
"""Seconds without further counts after one that took too long, so that not every request waits for it."""
_ANSWER = 65_536
"""Bytes of an answer that are read at most; one has about 20."""


def worth(ask: Ask, backend: Backend, model: Model) -> bool:
    """Whether to count the tokens of a request: it is large, or has pictures or documents of unknown size."""
    if (
        not backend.config.counts
        or time.monotonic() < backend.uncounted
        or ask.operation != "messages"
        or model in ask.counted
    ):
        return False
    parts = ask.unseen
    return len(ask.raw) >= _FROM or bool(parts.hidden) or any(not picture.width for picture in parts.pictures)


async def count_input(
    ask: Ask, backend: Backend, model: Model, upstreams: Upstreams, passed: Mapping[str, str]
) -> None:
    """Set ``ask.counted`` for a model to its upstream's count and a margin; leave it if there is no answer to believe.

    Args:
        ask: the request.
        backend, model: the upstream, and the model as it has it.
        upstreams: the connections.
        passed: headers of the client that are passed on.

    Raises:
        Refused: the upstream may not get the request at all, see :mod:`budgeteer.gateway.fields`.
    """
    check_fields(ask.body, ask.operation, model.fields)
    check_addresses(ask.body, model.media)
    body = {"model": model.upstream, **{name: ask.body[name] for name in _FIELDS if name in ask.body}}
    try:
        tokens = await _count(body, backend, upstreams, passed)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        if isinstance(error, TimeoutError):
            backend.uncounted = time.monotonic() + _PAUSE
        _LOG.warning("upstream %s did not count a request: %r", backend.name, error)
        return
    if too_few(tokens, texts_of(ask.body)):
        _LOG.warning("upstream %s counted too few tokens in a request: %d", backend.name, tokens)
        return
    ask.counted[model] = ceil(tokens * _MARGIN)


async def probe(backend: Backend, upstreams: Upstreams) -> str:
    """How an upstream counts a greeting, in words: "" if it does, else why not."""
    body = {"model": backend.config.models[0].upstream, "messages": [{"role": "user", "content": "Hi"}]}
    try:
        await _count(body, backend, upstreams, {"anthropic-version": "2023-06-01"})
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        return str(error) or type(error).__name__
    return ""


async def _count(body: Any, backend: Backend, upstreams: Upstreams, headers: Mapping[str, str]) -> int:
    """The tokens of a body.

    Raises:
        ClientError, TimeoutError, OSError: the upstream did not answer.
        ValueError: it answered something else.
    """
    async with asyncio.timeout(_SECONDS):
        response = await upstreams.post(backend, _ROUTE, orjson.dumps(body), headers)
        async with response:
            content = await _first(response)
    if response.status != 200:
        raise ValueError(f"it answered {response.status}")
    if len(content) > _ANSWER:
        raise ValueError(f"its answer is longer than {_ANSWER:,} bytes")
    answer = orjson.loads(content)
    tokens = answer.get("input_tokens") if isinstance(answer, dict) else None
    if type(tokens) is not int or not 0 <= tokens <= MOST:
        raise ValueError("its answer has no input_tokens")
    return tokens


async def _first(response: aiohttp.ClientResponse) -> bytes:
    """An answer's content, or its beginning if that is longer than any count."""
    content = b""
    async for piece in response.content.iter_any():
        content += piece
        if len(content) > _ANSWER:
            break
    return content
