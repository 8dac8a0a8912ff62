"""Forms with files (multipart/form-data): parsed strictly and always written again, so that what is sent was read."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from budgeteer.gateway.refusal import Refused, shown

_BOUNDARY = re.compile(r"""(?is)multipart/form-data\s*;.*?\bboundary=("?)([0-9a-z'()+_,./:=?-]{1,70})\1\s*(?:;.*)?""")
_NAMED = re.compile(r'(?i);\s*(name|filename)="([^"\r\n]*)"')
_KIND = re.compile(r"[\w.+-]{1,60}/[\w.+-]{1,60}(;\s*[\w-]{1,40}=[\w.+-]{1,60})?")
_PARTS = 100
_HEAD = 4096
"""Bytes of the headers of a part at most."""
_SWITCHES, _NUMBERS = ("stream",), ("n", "partial_images")
"""Fields that are switches and whole numbers; all others stay texts."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a form.

    Attributes:
        name: of the field.
        data: its content.
        filename: None = it is a text, and no file.
        kind: the content type that the client gave; "" = none.
    """

    name: str
    data: bytes
    filename: str | None = None
    kind: str = ""


def parse_form(raw: bytes, content_type: str) -> tuple[Part, ...]:
    """The parts of a form.

    Args:
        raw: the body.
        content_type: the request's, with the boundary.

    Raises:
        Refused: the body is none, or has a part that servers may read otherwise.
    """
    match = _BOUNDARY.fullmatch(content_type.strip())
    if match is None:
        raise _bad(f"content-type is {shown(content_type)}; send multipart/form-data with a boundary")
    boundary = b"--" + match[2].encode()
    if not raw.startswith(boundary):
        raise _bad("it does not begin with its boundary")
    *blocks, end = (b"\r\n" + raw).split(b"\r\n" + boundary)[1:]
    if end.strip() != b"--":
        raise _bad("it does not end with its boundary")
    if len(blocks) > _PARTS:
        raise _bad(f"it has {len(blocks)} parts; at most {_PARTS} are read")
    return tuple(_part(block) for block in blocks)


def _part(block: bytes) -> Part:
    head, gap, data = block.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    if not gap or not block.startswith(b"\r\n") or len(head) > _HEAD:
        raise _bad("a part has no headers, or too long ones")
    try:
        lines = [line.partition(":") for line in head.decode().split("\r\n")]
    except UnicodeDecodeError:
        raise _bad("the headers of a part are not UTF-8") from None
    headers = {name.strip().lower(): value.strip() for name, _, value in lines}
    if len(headers) < len(lines) or headers.keys() - {"content-disposition", "content-type", "content-length"}:
        raise _bad("a part has other headers than content-disposition, content-type and content-length, or one twice")
    disposition = headers.get("content-disposition", "")
    said = _NAMED.findall(disposition)
    named = {name.lower(): value for name, value in said}
    if not re.match(r"(?i)form-data\b", disposition) or not named.get("name") or len(named) < len(said):
        raise _bad(f"a part's content-disposition is {shown(disposition)}; give form-data with one name")
    kind = headers.get("content-type", "")
    if kind and not _KIND.fullmatch(kind):
        raise _bad(f"a part's content-type is {shown(kind)}")
    return Part(named["name"], data, named.get("filename"), kind)


def fields_of(parts: Sequence[Part]) -> dict[str, Any]:
    """The texts of a form as the body of a request; switches and numbers as such, fields named ``...[]`` as lists.

    Raises:
        Refused: a field stands twice, or its value cannot be.
    """
    body: dict[str, Any] = {}
    for part in parts:
        if part.filename is not None:
            continue
        try:
            text = part.data.decode()
        except UnicodeDecodeError:
            raise _bad(f"the field {shown(part.name)} is no text in UTF-8") from None
        if part.name.endswith("[]"):
            body.setdefault(part.name, []).append(text)
            continue
        if part.name in body:
            raise _bad(f"the field {shown(part.name)} stands twice")
        body[part.name] = _value(part.name, text)
    return body


def _value(name: str, text: str) -> Any:
    if name in _SWITCHES:
        if text.lower() not in ("true", "false"):
            raise Refused(400, "invalid_request", f"{name} is {shown(text)}; give true or false")
        return text.lower() == "true"
    if name in _NUMBERS:
        if not (text.isdigit() and len(text) < 10):
            raise Refused(400, "invalid_request", f"{name} is {shown(text)}; give a whole number")
        return int(text)
    return text


def files_of(parts: Sequence[Part], *names: str) -> list[Part]:
    """The files of a form; ``names`` are the fields that may hold one.

    Raises:
        Refused: a file has another name.
    """
    files = [part for part in parts if part.filename is not None]
    for part in files:
        if part.name not in names:
            raise Refused(400, "field_not_allowed", f"the file {shown(part.name)} is not passed on; send {names[0]!r}")
    return files


def write_form(parts: Sequence[Part], changed: Mapping[str, str]) -> tuple[bytes, str]:
    """A form with some fields changed, and its content type."""
    boundary = f"budgeteer-{secrets.token_hex(16)}"
    pieces: list[bytes] = []
    for part in parts:
        head = f'--{boundary}\r\ncontent-disposition: form-data; name="{part.name}"'
        data = part.data
        if part.filename is not None:
            head += f'; filename="{part.filename}"'
        elif part.name in changed:
            data = changed[part.name].encode()
        if part.kind:
            head += f"\r\ncontent-type: {part.kind}"
        pieces += [head.encode(), b"\r\n\r\n", data, b"\r\n"]
    return b"".join([*pieces, f"--{boundary}--\r\n".encode()]), f"multipart/form-data; boundary={boundary}"


def _bad(text: str) -> Refused:
    return Refused(400, "invalid_form", f"the form cannot be read: {text}")
