"""Somebody with a cookie jar and without a browser."""

from __future__ import annotations

import http.client
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from helpers.gateway_fixture import ADMIN

Said = tuple[int, http.client.HTTPMessage, str]
"""Status, headers and body."""


class Person:
    """Somebody with a cookie jar and without a browser."""

    def __init__(self, running: Any, admin: str = ADMIN) -> None:
        self.running, self.cookie = running, ""
        self.status, self.headers, self.body = self.post("/login", key=admin)
        self.cookie = (self.headers.get("set-cookie") or "").partition(";")[0]

    def send(self, method: str, path: str, body: str | None = None, **headers: str) -> Said:
        link = http.client.HTTPConnection("127.0.0.1", self.running.port, timeout=20)
        try:
            link.request(method, path, body, {"cookie": self.cookie, **headers} if self.cookie else headers)
            answer = link.getresponse()
            return answer.status, answer.headers, answer.read().decode()
        finally:
            link.close()

    def get(self, path: str) -> Said:
        return self.send("GET", path)

    def post(self, path: str, headers: Mapping[str, str] | None = None, /, **form: Any) -> Said:
        kind = {"content-type": "application/x-www-form-urlencoded"}
        return self.send("POST", path, urlencode(form), **kind, **(headers or {}))

    def token(self) -> str:
        shown = re.search(r'name="token" value="(\w+)"', self.get("/keys")[2])
        assert shown
        return shown[1]
