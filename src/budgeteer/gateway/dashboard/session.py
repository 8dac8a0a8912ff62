"""Who is logged in: a cookie that only the bearer of the admin key can have been given, and forms that only its pages
can have made. Nothing is kept on the server, so replicas agree; another admin key ends all sessions."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time

COOKIE = "budgeteer"
LASTS = 12 * 3600
"""Seconds."""


def _mac(admin_key: str, purpose: str, text: str) -> str:
    return hmac.new(admin_key.encode(), f"budgeteer {purpose} {text}".encode(), hashlib.sha256).hexdigest()


def begin(admin_key: str) -> str:
    """A new session's cookie."""
    about = f"{int(time.time()) + LASTS}.{secrets.token_hex(16)}"
    return f"{about}.{_mac(admin_key, 'session', about)}"


def valid(admin_key: str, cookie: str) -> bool:
    """Whether a cookie is of a session that lasts."""
    about, _, mac = cookie.rpartition(".")
    until = about.partition(".")[0]
    if not admin_key or not hmac.compare_digest(mac.encode(), _mac(admin_key, "session", about).encode()):
        return False
    return int(until) > time.time()


def form_token(admin_key: str, cookie: str) -> str:
    """What a form of this session's pages carries."""
    return _mac(admin_key, "form", cookie)


def form_valid(admin_key: str, cookie: str, token: str) -> bool:
    """Whether a form is of this session's pages."""
    return hmac.compare_digest(token.encode(), form_token(admin_key, cookie).encode())
