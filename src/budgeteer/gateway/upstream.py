"""The upstreams: which of them serve a model, which are healthy, and the connections to them."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from budgeteer.core.errors import MissingExtra
from budgeteer.core.urls import without_password
from budgeteer.gateway.config import Model, Upstream, names_of
from budgeteer.gateway.refusal import Refused
from budgeteer.gateway.routes import ROUTES
from budgeteer.gateway.translate.caller import Caller
from budgeteer.gateway.translate.fields import takes
from budgeteer.ledger.protocol import wall_clock
from budgeteer.ledger.windows import Window

try:
    import aiohttp
    from yarl import URL
except ImportError as error:
    raise MissingExtra("aiohttp", "gateway") from error

LONGEST_PAUSE = 60.0
"""The longest back-off of an upstream, in seconds."""
_IDLE_CONNECTION = 4.0
"""Seconds that an idle connection is kept: fewer than the 5 after which uvicorn and llama.cpp close it, so that no
request is sent on a connection that is being closed."""
NEVER_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)
"""Errors that occur before a request is sent, so that it did not run."""


if TYPE_CHECKING:
    from budgeteer.gateway.translate.caller import Translated

    Response = aiohttp.ClientResponse | Translated


class Backend:
    """The state of an upstream: its health, as its answers show it, and how many calls it is running.

    After failures in a row the gateway backs off for 1, 2, 4 ... seconds, unless no other upstream serves the model.
    Failures of calls that ran at the same time are one failure to it. After ``breaker`` failing calls in a row nothing
    is sent until the back-off ends, and then one call at a time until one is answered.

    Attributes:
        config: its configuration.
        failures: failures since the last answer.
        until: end of the back-off, on the monotonic clock in seconds.
        live: calls that are running.
        broken: calls that failed since the last answer; those that were only refused for load are not counted.
        trial: whether a call is running that tries an upstream that was left alone.
        uncounted: until when it is not asked to count tokens, on the monotonic clock in seconds.
        caller: calls it by a driver; None = it is sent requests as they are.

    Raises:
        MissingExtra: what its driver needs is not installed.
    """

    def __init__(self, config: Upstream) -> None:
        self.config, self.name = config, config.name
        self.failures, self.until, self.live, self.broken, self.trial = 0, 0.0, 0, 0, False
        self._failed_at, self.uncounted = float("-inf"), 0.0
        self._charges = [
            (limit.kind, Window(limit.amount, limit.window))
            for limit in config.conduct.failure_limits
            if limit.amount is not None and limit.window is not None
        ]
        self._urls: dict[str, URL] = {}
        self.caller = None if config.driver is None else Caller(config.driver, config.base_url, config.key)
        self.timeout = aiohttp.ClientTimeout(total=None, sock_connect=config.connect_seconds)
        self.headers = {"accept-encoding": "identity", "content-type": "application/json"}
        if config.key:
            self.headers["authorization"] = f"Bearer {config.key}"
            if config.dialect != "openai":
                self.headers["x-api-key"] = config.key

    @property
    def place(self) -> str:
        """Its address without a password, or its provider."""
        url, driver = self.config.base_url, self.config.driver
        return without_password(url) if url or driver is None else f"{driver.provider}'s usual address"

    @property
    def healthy(self) -> bool:
        """Whether no back-off is running."""
        return self.until <= time.monotonic()

    @property
    def tried(self) -> bool:
        """Whether a call now would try an upstream that was left alone."""
        breaker = self.config.conduct.breaker
        return 0 < breaker <= self.broken

    def shut(self) -> float | None:
        """For how many seconds nothing is sent to it; None = it may be called."""
        now = time.monotonic()
        wait = max((self._full(kind, window) for kind, window in self._charges), default=0.0)
        if self.tried and (self.until > now or self.trial):
            wait = max(wait, self.until - now, 1.0)
        return wait or None

    def _full(self, kind: str, window: Window) -> float:
        """Seconds until there is room in a limit of what failures are charged; 0 = there is."""
        now = wall_clock()
        over = window.used(now) - window.limit + 1
        at = window.resets_at(now, over) if over > 0 else None
        return 0.0 if at is None else max(1.0, (at - now) / 1000)

    def charged(self, amounts: Mapping[str, int]) -> None:
        """Count what a failure was charged whose bill is unknown."""
        for kind, window in self._charges:
            window.add(wall_clock(), amounts.get(kind, 0))

    def failed(self, wait: float | None = None, began: float = float("inf"), outage: bool = True) -> None:
        """Note a failure, and back off for ``wait`` seconds (its Retry-After), or exponentially if that is None.

        Args:
            wait: seconds.
            began: when the call began, on the monotonic clock: one that ran when another failed makes no longer pause.
            outage: whether it is broken, and not only loaded.
        """
        self.broken += outage
        same, self._failed_at = began < self._failed_at, time.monotonic()
        if same and wait is None:
            return
        self.failures += 1
        pause = min(LONGEST_PAUSE, 2.0 ** min(10, self.failures - 1)) if wait is None else min(wait, LONGEST_PAUSE)
        self.until = time.monotonic() + pause

    def answered(self) -> None:
        """Note an answer, which ends the back-off."""
        self.failures, self.until, self.broken = 0, 0.0, 0

    def takes(self, operation: str) -> bool:
        """Whether it takes an operation of its dialect."""
        driver = self.config.driver
        return driver is None or takes(driver.provider, operation)

    def url(self, route: str) -> URL:
        """The address of a route, such as chat/completions."""
        url = self._urls.get(route)
        if url is None:
            url = self._urls[route] = URL(f"{self.config.base_url}/{route}")
        return url

    def status(self) -> dict[str, Any]:
        """The upstream's state, as the admin API returns it."""
        now = time.monotonic()
        return {
            "name": self.name,
            "base_url": self.place,
            "dialect": self.config.dialect,
            "models": [model.name for model in self.config.models],
            "healthy": self.healthy,
            "until": None if self.healthy else int((time.time() + self.until - now) * 1000),
            "failures": self.failures,
            "shut": self.shut() is not None,
            "live": self.live,
        }


class Connections:
    """The HTTP session of a gateway, which belongs to the running event loop."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        """The session; it is made at the first use."""
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

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


class Upstreams:
    """All upstreams of a gateway.

    Args:
        configs: as the file has them.
        before: the upstreams of the configuration before; those that stay the same keep their state, and connections
            are shared.

    Attributes:
        backends: the state of each, in the order of the file.
        names: name or alias of a model -> the model's name.
    """

    def __init__(self, configs: Iterable[Upstream], before: Upstreams | None = None) -> None:
        old: list[Backend] = [] if before is None else before.backends
        known = {backend.name: backend for backend in old}
        self.backends: list[Backend] = [
            known[config.name] if config.name in known and known[config.name].config == config else Backend(config)
            for config in configs
        ]
        self.names = names_of([backend.config for backend in self.backends])
        self._serving: dict[tuple[str, str], list[tuple[Backend, Model]]] = {}
        for backend in self.backends:
            for model in backend.config.models:
                for name in (model.name, *model.aliases):
                    for route in ROUTES.values():
                        if backend.config.dialect in (route.dialect, "both") and backend.takes(route.operation):
                            self._serving.setdefault((route.operation, name), []).append((backend, model))
        self._connections: Connections = Connections() if before is None else before._connections

    def serving(self, operation: str, name: str) -> list[tuple[Backend, Model]]:
        """The upstreams that serve a model, by a name or alias of it, for an operation such as chat; each with its form
        of the model."""
        return self._serving.get((operation, name), [])

    def choose(self, candidates: list[tuple[Backend, Model]], tried: Iterable[Backend]) -> tuple[Backend, Model] | None:
        """Choose a candidate that was not tried: by weight among the healthy, else the one whose back-off ends first.

        Returns:
            None if all were tried, or nothing is sent to them just now.
        """
        if len(candidates) == 1:
            return None if candidates[0][0] in tried or candidates[0][0].shut() else candidates[0]
        untried = [candidate for candidate in candidates if candidate[0] not in tried and not candidate[0].shut()]
        if not untried:
            return None
        healthy = [candidate for candidate in untried if candidate[0].healthy]
        if not healthy:
            return min(untried, key=lambda candidate: candidate[0].until)
        weights = [backend.config.weight for backend, _ in healthy]
        return random.choices(healthy, weights if any(weights) else None)[0]

    @property
    def session(self) -> aiohttp.ClientSession:
        """The HTTP session, which belongs to the running event loop."""
        return self._connections.session

    async def call(self, backend: Backend, route: str, content: bytes, headers: Mapping[str, str]) -> Response:
        """Send a request as ``post`` does, or by the upstream's driver."""
        if backend.caller is None:
            return await self.post(backend, route, content, headers)
        return await backend.caller.post(self.session, backend.timeout, route, content)

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
        """The HTTP status with which an upstream answers GET models."""
        timeout = aiohttp.ClientTimeout(total=backend.config.connect_seconds + 5)
        headers = {**backend.headers, "anthropic-version": "2023-06-01"}
        async with self.session.get(
            backend.url("models"), headers=headers, allow_redirects=False, timeout=timeout
        ) as got:
            return got.status

    async def close(self) -> None:
        """Close the connections."""
        await self._connections.close()


def all_shut(candidates: Iterable[tuple[Backend, Model]]) -> Refused:
    """The error where nothing is sent to any upstream of a model just now."""
    wait = max(1, round(min(backend.shut() or 1.0 for backend, _ in candidates)))
    names = ", ".join(repr(backend.name) for backend, _ in candidates)
    text = (
        f"nothing is sent to the upstream {names} for {wait:,} s, since its last calls failed (breaker), or since "
        "failures were charged as much as failure_limits allows"
    )
    return Refused(503, "upstream_shut", text, wait)
