"""Somebody with a cookie jar and without a browser."""

from __future__ import annotations

import http.client
import re
from urllib.parse import urlencode

from helpers.gateway_fixture import ADMIN


class Person:
    """Somebody with a cookie jar and without a browser."""

    def __init__(self, running, admin=ADMIN):
        self.running, self.cookie = running, ""
        self.status, self.headers, self.body = self.post("/login", key=admin)
        self.cookie = (self.headers.get("set-cookie") or "").partition(";")[0]

    def send(self, method, path, body=None, **headers):
        link = http.client.HTTPConnection("127.0.0.1", self.running.port, timeout=20)
        try:
            link.request(method, path, body, {"cookie": self.cookie, **headers} if self.cookie else headers)
            answer = link.getresponse()
            return answer.status, answer.headers, answer.read().decode()
        finally:
            link.close()

    def get(self, path):
        return self.send("GET", path)

    def post(self, path, headers=(), /, **form):
        kind = {"content-type": "application/x-www-form-urlencoded"}
        return self.send("POST", path, urlencode(form), **kind, **dict(headers))

    def token(self):
        return re.search(r'name="token" value="(\w+)"', self.get("/keys")[2])[1]
