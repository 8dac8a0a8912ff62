"""The admin API from within its own process: what the pages show is what the API says, and nothing else."""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

if TYPE_CHECKING:
    from budgeteer.gateway.app import Gateway


class Trouble(Exception):
    """An answer of the API that is an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """Calls of one gateway's admin API."""

    def __init__(self, gateway: Gateway, admin_key: str) -> None:
        self._gateway, self._key = gateway, admin_key

    async def raw(
        self, method: str, path: str, query: dict[str, object] | None = None, body: dict[str, Any] | None = None
    ) -> tuple[int, bytes]:
        """Status and body of an answer."""
        asked = {name: value for name, value in (query or {}).items() if value not in (None, "")}
        content = b"" if body is None else json.dumps(body).encode()
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": f"/admin/api/{path}", "root_path": "", "query_string": urlencode(asked).encode(),
            "headers": [(b"authorization", f"Bearer {self._key}".encode())], "client": None, "server": None,
        }  # fmt: skip
        status, pieces = 500, []

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                pieces.append(message.get("body", b""))

        await self._gateway(scope, receive, send)
        return status, b"".join(pieces)

    async def get(self, path: str, /, **query: object) -> Any:
        """The JSON of a GET; fields of the query that are empty are left out.

        Raises:
            Trouble: the API answers with an error.
        """
        return _read(*await self.raw("GET", path, query))

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON of a POST.

        Raises:
            Trouble: the API answers with an error.
        """
        return _read(*await self.raw("POST", path, None, body))


def _read(status: int, content: bytes) -> Any:
    try:
        found = json.loads(content)
    except ValueError:
        raise Trouble(status if status >= 400 else 500, content.decode("utf-8", "replace")[:300]) from None
    if status >= 400:
        raise Trouble(status, found.get("error", {}).get("message", "the gateway answered with an error"))
    return found
