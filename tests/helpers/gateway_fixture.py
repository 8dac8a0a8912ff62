"""A gateway under uvicorn in a thread of this process, in front of a scripted upstream."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

from budgeteer.gateway import config as configs
from budgeteer.gateway.app import Gateway
from budgeteer.gateway.server import server

ADMIN = "admin-secret-0123456789"


T = TypeVar("T")


def toml(
    upstreams: Iterable[tuple[str, str, Iterable[str], str]], ledger: str = "memory:", server: str = "",
    extra: str = "", kinds: str = '["all"]', cap: int = 50,
) -> str:  # fmt: skip
    """A configuration; ``upstreams`` is a list of (name, url, models, more lines)."""
    lines = [
        "[server]", "port = 0", server, "[ledger]", f'url = "{ledger}"', f"kinds = {kinds}",
        "[prices]", "shipped = false", "[logging]", "json = false", extra,
    ]  # fmt: skip
    for name, url, served, more in upstreams:
        lines += ["[[upstreams]]", f'name = "{name}"', f'base_url = "{url}"', 'dialect = "both"', more]
        for model in served:
            lines += ["[[upstreams.models]]", f'name = "{model}"', f"max_output = {cap}", "overhead = 10", "margin = 1"]
    return "\n".join(lines)


class Running:
    """A gateway that serves; use as a context manager."""

    def __init__(self, folder: Path, text: str, **changes: Any) -> None:
        path = folder / "gateway.toml"
        path.write_text(text)
        self.config = configs.load(path, {"BUDGETEER_ADMIN_KEY": ADMIN, "UPSTREAM_KEY": "sk-upstream"})
        self.config = dataclasses.replace(self.config, **changes)

    def __enter__(self) -> Self:
        self.gateway = Gateway(self.config)
        self.server = server(self.config, gateway=self.gateway, port=0)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=lambda: self.loop.run_until_complete(self.server.serve()), daemon=True)
        self.thread.start()
        deadline = time.monotonic() + 20
        while not self.server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        assert self.server.started
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.root = f"http://127.0.0.1:{self.port}"
        self.url = f"{self.root}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()

    def call(
        self, path: str, body: Any = None, key: str = ADMIN, method: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any, Any]:  # fmt: skip
        """(status, headers, body) of a request; JSON where it is."""
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(
            self.root + path, data, {"authorization": f"Bearer {key}", **(headers or {})}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                status, found, content = response.status, response.headers, response.read()
        except urllib.error.HTTPError as refused:
            status, found, content = refused.code, refused.headers, refused.read()
        kind = found.get("content-type", "")
        return status, found, json.loads(content) if kind.startswith("application/json") and content else content

    def admin(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """The JSON of a call of the admin API that succeeds."""
        status, _, found = self.call(f"/admin/api/{path}", body, method=method)
        assert status < 300, found
        return found

    def key(self, *limits: str, path: str = "acme", **about: Any) -> str:
        """A new key's token."""
        return str(self.admin("keys", {"path": path, "limits": list(limits), **about})["secret"])

    def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run something in the gateway's event loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)

    def settled(self, requests: int | None = None) -> list[dict[str, Any]]:
        """Wait until nothing is held, and every request so far has its record; the records, oldest first."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            _, state = self.gateway.ledger.snapshot()
            held = [book.held for account in state.accounts.values() for book in account.books.values()]
            self.do(self.gateway.records.flush())
            found: list[dict[str, Any]] = self.admin("requests?limit=1000")["requests"][::-1]
            if not any(held) and not self.gateway.proxy.live and (requests is None or len(found) >= requests):
                return found
            time.sleep(0.02)
        raise AssertionError((held, self.gateway.proxy.live, found))

    def spent(self, path: str = "acme", kind: str = "all") -> int:
        """Units settled at an account for ever."""
        _, state = self.gateway.ledger.snapshot()
        return state.accounts[path].books[kind].spent
