"""Sessions of the dashboard: a signed cookie, which is given only for the admin key, and signed forms.

The server keeps no state, so a session is valid at every replica; changing the admin key ends all sessions.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time

COOKIE = "budgeteer"
LASTS = 12 * 3600
"""How long a session lasts, in seconds."""


def _mac(admin_key: str, purpose: str, text: str) -> str:
    return hmac.new(admin_key.encode(), f"budgeteer {purpose} {text}".encode(), hashlib.sha256).hexdigest()


def begin(admin_key: str) -> str:
    """The cookie of a new session."""
    about = f"{int(time.time()) + LASTS}.{secrets.token_hex(16)}"
    return f"{about}.{_mac(admin_key, 'session', about)}"


def valid(admin_key: str, cookie: str) -> bool:
    """Whether a cookie is that of a session that has not ended."""
    about, _, mac = cookie.rpartition(".")
    until = about.partition(".")[0]
    if not admin_key or not hmac.compare_digest(mac.encode(), _mac(admin_key, "session", about).encode()):
        return False
    return int(until) > time.time()


def form_token(admin_key: str, cookie: str) -> str:
    """The token that every form of a session's pages contains."""
    return _mac(admin_key, "form", cookie)


def form_valid(admin_key: str, cookie: str, token: str) -> bool:
    """Whether the token of a form is that of the session's pages."""
    return hmac.compare_digest(token.encode(), form_token(admin_key, cookie).encode())
