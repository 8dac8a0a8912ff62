"""Addresses of endpoints, checked before anything is sent."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from budgeteer.core.errors import InvalidInput

_LOGIN = re.compile(r"(?<=postgres:)//.*@|(?<=postgresql:)//.*@|//[^#]*@")
"""Up to the last @ before a fragment, which addresses of PostgreSQL do not have."""
_PASSWORD = re.compile(r"([?&](?:(?:ssl)?password|passwd|pwd|pass)=)[^&#]*", re.IGNORECASE)


def without_password(url: str) -> str:
    """The address as messages and logs have it: the name and password before the host are left out.

    >>> without_password("redis://me:secret@db:6379/0"), without_password("http://h/v1#m@1")
    ('redis://***@db:6379/0', 'http://h/v1#m@1')
    >>> without_password("postgresql://me:se#cret@db/spending")
    'postgresql://***@db/spending'
    """
    return _PASSWORD.sub(r"\1***", _LOGIN.sub("//***@", url, count=1))


def check_http(url: str, owner: str) -> str:
    """The address, if it is one of HTTP.

    Args:
        url: such as ``http://127.0.0.1:8000/v1``.
        owner: whose address it is, for the error.

    Raises:
        InvalidInput: another scheme, no host, a port that is no number of 16 bits, spaces or control characters.

    >>> check_http("https://api.openai.com/v1", "a model")
    'https://api.openai.com/v1'
    """
    try:
        parts = urlsplit(url)
        port = parts.port
        wrong = "" if parts.scheme in ("http", "https") and parts.hostname else "it has no http:// or no host"
        wrong = "port 0 cannot be called" if port == 0 else wrong
        if any(ord(letter) <= 32 or ord(letter) == 127 for letter in url):
            wrong = "it has spaces or control characters"
    except ValueError as error:
        wrong = str(error)
    if wrong:
        raise InvalidInput(
            f"the address {without_password(url)!r} of {owner} cannot be used ({wrong}); write http(s)://HOST[:PORT]/v1"
        )
    return url
