"""A real OpenID provider (oidc-provider-mock) in a thread, which insists on PKCE, nonces and registered clients."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import oidc_provider_mock
from werkzeug.serving import make_server

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class _Pkce:
    """What the provider lacks: a code is given out only for the verifier of its challenge."""

    def __init__(self, app: Wsgi) -> None:
        self._app, self.challenges = app, dict[str, str]()
        self.asked: list[dict[str, list[str]]] = []
        self.codes: list[str] = []

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/oauth2/authorize":
            query = parse_qs(environ["QUERY_STRING"])
            self.asked.append(query)
            if query.get("code_challenge_method") != ["S256"]:
                return _refuse(start)

            def started(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
                code = parse_qs(urlsplit(dict(headers).get("Location", "")).query).get("code")
                if code:
                    self.challenges[code[0]] = query["code_challenge"][0]
                return start(status, headers, *more)

            return self._app(environ, started)
        if environ["PATH_INFO"] == "/oauth2/token":
            body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            environ["wsgi.input"], form = io.BytesIO(body), parse_qs(body.decode())
            digest = hashlib.sha256(form.get("code_verifier", [""])[0].encode()).digest()
            code = form["code"][0]
            self.codes.append(code)
            if self.challenges.get(code) != base64.urlsafe_b64encode(digest).decode().rstrip("="):
                return _refuse(start)
        return self._app(environ, start)


def _refuse(start: Callable[..., Any]) -> Iterable[bytes]:
    start("400 BAD REQUEST", [("content-type", "application/json")])
    return [b'{"error": "invalid_grant", "error_description": "PKCE"}']


class Provider:
    """The provider; use as a context manager.

    Attributes:
        issuer: its address.
        client_id, secret: of the client that is registered.
        pkce: what was asked of it.
    """

    def __init__(self, callback: str) -> None:
        app = oidc_provider_mock.app(require_client_registration=True, require_nonce=True)
        app.debug = False
        self.pkce = _Pkce(app.wsgi_app)
        self._server = make_server("127.0.0.1", 0, self.pkce, threaded=True)
        self.issuer = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._callback = callback

    def __enter__(self) -> Self:
        self._thread.start()
        about = {"redirect_uris": [self._callback], "token_endpoint_auth_method": "client_secret_basic"}
        made = json.loads(self._send("POST", "/oauth2/clients", about))
        self.client_id, self.secret = made["client_id"], made["client_secret"]
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def _send(self, method: str, path: str, body: Any) -> bytes:
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(self.issuer + path, json.dumps(body).encode(), headers, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            content: bytes = answer.read()
        return content

    def user(self, sub: str, **claims: Any) -> None:
        """Have the provider know somebody."""
        self._send("PUT", f"/users/{sub}", claims)

    def sign_in(self, address: str, sub: str) -> str:
        """Sign in as somebody where a gateway has sent the browser; the address to which the provider sends it back."""

        class Stay(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *_: Any) -> None:
                return None

        try:
            urllib.request.build_opener(Stay).open(address, f"sub={sub}".encode(), timeout=10)
        except urllib.error.HTTPError as answer:
            if answer.code == 302:
                return str(answer.headers["location"])
            raise
        raise AssertionError("the provider has not sent the browser back")
