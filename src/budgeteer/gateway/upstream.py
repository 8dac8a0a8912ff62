"""The upstreams: who serves a model, who is well, and the connections to them."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping
from typing import Any

from budgeteer.core.errors import MissingExtra
from budgeteer.core.urls import without_password
from budgeteer.gateway.config import Model, Upstream

try:
    import aiohttp
    from yarl import URL
except ImportError as error:
    raise MissingExtra("aiohttp", "gateway") from error

LONGEST_PAUSE = 60.0
"""Seconds at most that an upstream is left alone after failures in a row."""
_IDLE_CONNECTION = 4.0
"""Seconds: below the 5 after which uvicorn and llama.cpp close a connection, lest a request meets the closing."""
NEVER_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)
"""Errors before a request was sent: it did not run."""


class Backend:
    """An upstream at run time: its health, as its answers show it, and how many calls it has.

    After a failure it is left alone for 1, 2, 4 ... seconds, unless no other serves the model.
    """

    def __init__(self, config: Upstream) -> None:
        self.config, self.name = config, config.name
        self.failures, self.until, self.live = 0, 0.0, 0
        self._urls: dict[str, URL] = {}
        self.timeout = aiohttp.ClientTimeout(total=None, sock_connect=config.connect_seconds)
        self.headers = {"accept-encoding": "identity", "content-type": "application/json"}
        if config.key:
            self.headers["authorization"] = f"Bearer {config.key}"
            if config.dialect != "openai":
                self.headers["x-api-key"] = config.key

    @property
    def healthy(self) -> bool:
        """Whether it is not being left alone."""
        return self.until <= time.monotonic()

    def failed(self, wait: float | None = None) -> None:
        """Leave it alone for a while, such as it asked for."""
        self.failures += 1
        pause = min(LONGEST_PAUSE, 2.0 ** min(10, self.failures - 1)) if wait is None else min(wait, LONGEST_PAUSE)
        self.until = time.monotonic() + pause

    def answered(self) -> None:
        """It is well."""
        self.failures, self.until = 0, 0.0

    def url(self, route: str) -> URL:
        """Where a route is."""
        url = self._urls.get(route)
        if url is None:
            url = self._urls[route] = URL(f"{self.config.base_url}/{route}")
        return url

    def status(self) -> dict[str, Any]:
        """For the admin API."""
        now = time.monotonic()
        return {
            "name": self.name,
            "base_url": without_password(self.config.base_url),
            "dialect": self.config.dialect,
            "models": [model.name for model in self.config.models],
            "healthy": self.healthy,
            "until": None if self.healthy else int((time.time() + self.until - now) * 1000),
            "failures": self.failures,
            "live": self.live,
        }


class Upstreams:
    """All upstreams of a gateway."""

    def __init__(self, configs: Iterable[Upstream]) -> None:
        self.backends = [Backend(config) for config in configs]
        self._serving: dict[tuple[str, str], list[tuple[Backend, Model]]] = {}
        self.names: dict[str, str] = {}
        for backend in self.backends:
            for model in backend.config.models:
                for name in (model.name, *model.aliases):
                    self.names.setdefault(name, model.name)
                    for dialect in ("openai", "anthropic"):
                        if backend.config.dialect in (dialect, "both"):
                            self._serving.setdefault((dialect, name), []).append((backend, model))
        self._session: aiohttp.ClientSession | None = None

    def serving(self, dialect: str, name: str) -> list[tuple[Backend, Model]]:
        """Who serves a model, by any of its names, in a dialect."""
        return self._serving.get((dialect, name), [])

    def choose(self, candidates: list[tuple[Backend, Model]], tried: Iterable[Backend]) -> tuple[Backend, Model] | None:
        """One of them that was not tried: by weight among the healthy, else the one that rests for the shortest."""
        if len(candidates) == 1:
            return None if candidates[0][0] in tried else candidates[0]
        left = [candidate for candidate in candidates if candidate[0] not in tried]
        if not left:
            return None
        well = [candidate for candidate in left if candidate[0].healthy]
        if not well:
            return min(left, key=lambda candidate: candidate[0].until)
        weights = [backend.config.weight for backend, _ in well]
        return random.choices(well, weights if any(weights) else None)[0]

    @property
    def session(self) -> aiohttp.ClientSession:
        """The connections, of the running event loop."""
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_CONNECTION)
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None),
                read_bufsize=2**18,
                skip_auto_headers=("user-agent", "accept"),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def post(
        self, backend: Backend, route: str, content: bytes, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        """Send a request; redirects are not followed, so only configured hosts are ever called."""
        return await self.session.post(
            backend.url(route),
            data=content,
            headers={**backend.headers, **headers},
            allow_redirects=False,
            timeout=backend.timeout,
        )

    async def models(self, backend: Backend) -> int:
        """The status that an upstream answers when it is asked for its models."""
        timeout = aiohttp.ClientTimeout(total=backend.config.connect_seconds + 5)
        headers = {**backend.headers, "anthropic-version": "2023-06-01"}
        async with self.session.get(
            backend.url("models"), headers=headers, allow_redirects=False, timeout=timeout
        ) as got:
            return got.status

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None
