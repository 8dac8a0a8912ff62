"""Pass on what reads, cancels or deletes a stored response: free, and only for the key that it was made for."""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import dataclass
from urllib.parse import parse_qsl

import aiohttp

from budgeteer.core.errors import LedgerUnavailable
from budgeteer.gateway.answers import Answers
from budgeteer.gateway.keys import Key
from budgeteer.gateway.refusal import Refused, shown
from budgeteer.gateway.upstream import Upstreams

_ROUTE = re.compile(r"/v1/responses/([\w.:@=+~-]{1,256})(/cancel|/input_items|)", re.ASCII)
_METHODS = {"": ("GET", "DELETE"), "/cancel": ("POST",), "/input_items": ("GET",)}
_QUERY = frozenset({"include", "include[]", "limit", "order", "after"})
_LONGEST = 64 * 2**20
"""Bytes of an answer that are passed on at most."""
_SECONDS = 60.0
_PASSED = frozenset({400, 404, 409, 422})
"""Errors that the request caused; others are about the upstream."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Route:
    """What is asked of a stored response.

    Attributes:
        method: GET, DELETE or POST.
        id: of the response.
        action: "", "/cancel" or "/input_items".
        query: (name, value) pairs.
    """

    method: str
    id: str
    action: str
    query: tuple[tuple[str, str], ...]


def route_of(method: str, path: str, query: bytes) -> Route | None:
    """What a request asks of a stored response; None if it is to another route.

    Raises:
        Refused: it is not passed on.
    """
    match = _ROUTE.fullmatch(path)
    if match is None or match[1] in (".", ".."):
        return None
    id, action = match.groups()
    if method not in _METHODS[action]:
        if method == "POST" and not action:  # such as /v1/responses/compact, which calls a model
            return None
        raise Refused(405, "method_not_allowed", f"{path} takes {' or '.join(_METHODS[action])}")
    pairs = tuple(parse_qsl(query.decode("latin-1")))
    for name, _ in pairs:
        if name not in _QUERY:
            raise Refused(400, "field_not_allowed", f"{shown(name)} is not passed on; leave it out of the address")
    return Route(method, id, action, pairs)


async def pass_on(route: Route, key: Key, answers: Answers, upstreams: Upstreams) -> tuple[int, bytes]:
    """Ask the upstream that answered; returns its status and JSON.

    Raises:
        Refused: no such response was made for this key, or the upstream does not answer.
        LedgerUnavailable: the store does not answer.
    """
    stored = (await answers.find([route.id], key.id)).get(route.id)
    if stored is None or stored.id != stored.response:
        raise Refused(404, "response_not_found", f"no response {shown(route.id)} is remembered for this key")
    backend = next((other for other in upstreams.backends if other.name == stored.upstream), None)
    if backend is None:
        text = f"the upstream that made {shown(route.id)} is no longer in the gateway's file"
        raise Refused(404, "response_not_found", text)
    url = backend.url(f"responses/{route.id}{route.action}").with_query(route.query)
    try:
        async with (
            asyncio.timeout(backend.config.connect_seconds + _SECONDS),
            upstreams.session.request(
                route.method, url, headers=backend.headers, allow_redirects=False, timeout=backend.timeout
            ) as response,
        ):
            status, content = response.status, await response.content.read(0)
            async for piece in response.content.iter_any():
                content += piece
                if len(content) > _LONGEST:
                    raise Refused(502, "upstream_error", f"the answer is longer than {_LONGEST:,} bytes")
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        _LOG.warning("upstream %s did not answer %s %s: %r", backend.name, route.method, route.id, error)
        text = f"the upstream {backend.name!r} did not answer"
        raise Refused(504 if isinstance(error, TimeoutError) else 502, "upstream_error", text) from None
    if status >= 300 and status not in _PASSED:
        _LOG.error("upstream %s answered %s %s with %d", backend.name, route.method, route.id, status)
        if status in (429, 503, 529):
            raise Refused(503, "upstream_overloaded", f"the upstream {backend.name!r} answered {status}", 1)
        raise Refused(502, "upstream_refused", f"the upstream {backend.name!r} answered {status}")
    if route.method == "DELETE" and status < 300:
        try:
            await answers.forget(key.id, route.id)
        except LedgerUnavailable as error:  # it is deleted all the same, and a reference to it fails there
            _LOG.error("%s", error)
    return status, content
