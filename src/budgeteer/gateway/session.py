"""Sessions of admins: a signed cookie that says who it is of, and signed forms.

The server keeps no state, so a session is valid at every replica that has the same secret; another secret ends all
sessions. What an admin may do is not in the cookie: it is looked up in the configuration at each request.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

COOKIE = "budgeteer"
LASTS = 12 * 3600
"""How long a session lasts, in seconds."""


def sign(secret: str, purpose: str, text: str) -> str:
    """The signature of a text for one purpose, hexadecimal."""
    return hmac.new(secret.encode(), f"budgeteer {purpose} {text}".encode(), hashlib.sha256).hexdigest()


def begin(secret: str, about: Mapping[str, Any]) -> str:
    """The cookie of a new session.

    Args:
        secret: signs it; not "".
        about: whose it is, for JSON.
    """
    said = {**about, "until": int(time.time()) + LASTS, "id": secrets.token_hex(16)}
    text = (
        base64.urlsafe_b64encode(json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode())
        .decode()
        .rstrip("=")
    )
    return f"{text}.{sign(secret, 'session', text)}"


def read(secret: str, cookie: str) -> dict[str, Any] | None:
    """What a cookie says of its session; None if it is of no session, or of one that has ended."""
    text, _, mac = cookie.rpartition(".")
    if not secret or not hmac.compare_digest(mac.encode(), sign(secret, "session", text).encode()):
        return None
    about: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return about if about["until"] > time.time() else None


def form_token(secret: str, cookie: str) -> str:
    """The token that every form of a session's pages contains."""
    return sign(secret, "form", cookie)


def form_valid(secret: str, cookie: str, token: str) -> bool:
    """Whether the token of a form is that of the session's pages."""
    return hmac.compare_digest(token.encode(), form_token(secret, cookie).encode())
