"""The fields of a key in a form: what they show of a key, and what a form says of one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from budgeteer.core.errors import InvalidInput
from budgeteer.gateway.dashboard.html import Html, page
from budgeteer.gateway.dashboard.times import field, moment, zone_name
from budgeteer.gateway.keys import Key
from budgeteer.ledger.limit import Limit

LIMITS = ("limits", "per_user", "per_session", "per_tag")
CAPS = ("max_input", "max_output", "max_reasoning")
FIELDS = ("name", *LIMITS, "per_model", "models", "expires", *CAPS)
_BETWEEN_LIMITS = "(?<![0-9]),|,(?![0-9])"
"""A comma between digits belongs to the limit, which says whether it may be there."""


def shown(key: Key) -> dict[str, str]:
    """The fields of a key as a form shows them."""
    lines = {name: "\n".join(map(str, getattr(key, name))) for name in LIMITS}
    caps = {name: "" if getattr(key, name) is None else str(getattr(key, name)) for name in CAPS}
    per_model = "\n".join(f"{name} = {limit}" for name, limits in key.per_model for limit in limits)
    models = ", ".join(key.models)
    return {"name": key.name, **lines, "per_model": per_model, "models": models, "expires": field(key.expires), **caps}


def fields(values: dict[str, str]) -> Html:
    """The part of a form that has a key's fields."""
    return page("key_fields", zone=zone_name(), **{name: values.get(name, "") for name in FIELDS})


def about(form: dict[str, str], before: Key | None = None) -> dict[str, Any]:
    """What a form says of a key, as the fields of its JSON.

    Args:
        form: the fields of the form.
        before: the key that is changed, whose fields are emptied by empty ones; None = a new one, which gets the
            defaults for empty fields.

    Raises:
        InvalidInput: a field cannot be read.
    """
    changed: dict[str, Any] = {}
    was = {} if before is None else shown(before)
    for name in FIELDS:
        text = form.get(name, "").strip()
        if before is None and not text:
            continue
        if before is not None and (name not in form or _lines(form[name]) == _lines(was[name])):
            continue
        changed[name] = _read(name, text)
    return changed


def _read(name: str, text: str) -> Any:
    if name in LIMITS:
        return _words(text, _BETWEEN_LIMITS)
    if name == "per_model":
        return _per_model(text)
    if name == "models":
        return _words(text, ",") or ["*"]
    if name in CAPS:
        return _whole(text) if text else None
    if name == "expires":
        return moment(text) if text else None
    return text


def _lines(text: str) -> list[str]:
    """A text as browsers may send it: with other ends of lines."""
    return text.strip().splitlines()


def _words(text: str, between: str) -> list[str]:
    return [word.strip() for word in re.split(rf"\n|{between}", text) if word.strip()]


def _per_model(text: str) -> dict[str, list[str]]:
    limits_of: dict[str, list[str]] = {}
    for line in filter(str.strip, text.splitlines()):
        name, equals, limit = line.rpartition("=")
        if not (equals and name.strip() and limit.strip()):
            raise InvalidInput(f"{line.strip()!r} is not a limit of a model; write gpt-4o = $5/day")
        limits_of.setdefault(name.strip(), []).append(limit.strip())
    return limits_of


def _whole(text: str) -> int:
    clean = text.strip()
    if not re.fullmatch(r"[0-9]{1,3}(?:,[0-9]{3}){1,5}|[0-9][0-9_]{0,17}", clean):
        raise InvalidInput(f"{text!r} is not a whole number; write 1500 or 1,500.")
    return int(clean.replace(",", "").replace("_", ""))


def caps(key: Key) -> list[tuple[str, str]]:
    """The caps of a key's requests as names and values."""
    parts = ((name.removeprefix("max_"), getattr(key, name)) for name in CAPS)
    return [(f"most {part} a request", f"{cap:,} tokens") for part, cap in parts if cap is not None]


def limits(of: Sequence[Limit]) -> str:
    """Limits in a line."""
    return ", ".join(map(str, of))
