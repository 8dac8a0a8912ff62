"""Forms with files, read by the standard library's parser of mails, which shares nothing with the gateway's own."""

from __future__ import annotations

import email.message
from typing import Any
from urllib.parse import parse_qsl


def read_form(raw: bytes, content_type: str) -> dict[str, Any]:
    """Text fields as texts, files as (name, bytes)."""
    if content_type.startswith("application/x-www-form-urlencoded"):
        return dict(parse_qsl(raw.decode()))
    message = email.message_from_bytes(b"content-type: " + content_type.encode() + b"\r\n\r\n" + raw)
    body: dict[str, Any] = {}
    parts = message.get_payload()
    assert isinstance(parts, list)
    for part in parts:
        assert isinstance(part, email.message.Message)
        name = part.get_param("name", header="content-disposition")
        data = part.get_payload(decode=True)
        assert isinstance(name, str)
        assert isinstance(data, bytes)
        body[name] = data.decode() if part.get_filename() is None else (part.get_filename(), data)
    return body
