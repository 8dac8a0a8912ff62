"""Servers on this machine that alerts are delivered to: a webhook, and a mail server."""

from __future__ import annotations

import json
import subprocess
import threading
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self


class Webhook:
    """Takes JSON by POST, and answers with statuses in turn; the last one again and again.

    Attributes:
        bodies: what came, in order; ``paths`` its paths.
        hang: while it is set, nobody is answered.
    """

    def __init__(self, *statuses: int, location: str = "") -> None:
        self.bodies: list[Any] = []
        self.paths: list[str] = []
        self.came, self.hang, self._open = threading.Condition(), False, threading.Event()
        left = list(statuses or (200,))

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler) -> None:
                body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
                with self.came:
                    self.bodies.append(body)
                    self.paths.append(handler.path)
                    status = left.pop(0) if len(left) > 1 else left[0]
                    self.came.notify_all()
                if self.hang:
                    self._open.wait(60)
                handler.send_response(status)
                if location:
                    handler.send_header("location", location)
                handler.send_header("content-length", "0")
                handler.end_headers()

            do_GET = do_POST

            def log_message(handler, *_: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def wait(self, n: int) -> list[Any]:
        """The bodies once there are n of them."""
        with self.came:
            assert self.came.wait_for(lambda: len(self.bodies) >= n, 20), self.bodies
            return list(self.bodies)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.set()
        self._server.shutdown()
        self._server.server_close()


class MailServer:
    """An SMTP server; with a folder it speaks STARTTLS and wants the password "right" of the user "me".

    Attributes:
        mails: what came, in order, with the addresses of the envelope.
        certificate: that it shows, which a client has to trust; None without TLS.
    """

    def __init__(self, folder: Path | None = None) -> None:
        from aiosmtpd.controller import Controller
        from aiosmtpd.smtp import AuthResult, LoginPassword

        self.mails: list[tuple[list[str], EmailMessage]] = []
        self.came = threading.Condition()
        self.certificate: Path | None = None
        more: dict[str, Any] = {}
        if folder is not None:
            import ssl

            self.certificate, key = folder / "cert.pem", folder / "key.pem"
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                 "-keyout", str(key), "-out", str(self.certificate), "-days", "1", "-subj", "/CN=localhost",
                 "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
                check=True, capture_output=True,
            )  # fmt: skip
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate, key)

            def allowed(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
                right = isinstance(data, LoginPassword) and (data.login, data.password) == (b"me", b"right")
                return AuthResult(success=right)

            more = {"tls_context": context, "require_starttls": True, "auth_required": True, "authenticator": allowed}

        class Handler:
            async def handle_DATA(handler, server: Any, session: Any, envelope: Any) -> str:
                message = message_from_bytes(envelope.content, policy=policy.default)
                with self.came:
                    self.mails.append((list(envelope.rcpt_tos), message))
                    self.came.notify_all()
                return "250 taken"

        from helpers.redis_server import free_port

        self._controller = Controller(Handler(), hostname="127.0.0.1", port=free_port(), **more)
        self.port = self._controller.port

    def wait(self, n: int) -> list[tuple[list[str], EmailMessage]]:
        """The mails once there are n of them."""
        with self.came:
            assert self.came.wait_for(lambda: len(self.mails) >= n, 20), self.mails
            return list(self.mails)

    def __enter__(self) -> Self:
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()
