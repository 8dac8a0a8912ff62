"""Virtual keys: what a bearer may spend, and how its secret is made and checked."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from budgeteer.core.errors import InvalidInput
from budgeteer.core.usage import count
from budgeteer.gateway.config import Defaults, check_kinds
from budgeteer.gateway.damage import WRONG, damaged_store
from budgeteer.ledger.limit import Limit, check_path

_TOKEN = re.compile(r"bk-([0-9a-f]{16})-([\w-]{43})")
_LIMITS = ("limits", "per_user", "per_session", "per_tag")
_LAST = 253_402_300_799_999
"""The last millisecond of the year 9999."""
_CAPS = ("max_input", "max_output", "max_reasoning")


@dataclass(frozen=True, slots=True)
class Key:
    """A virtual key.

    Attributes:
        id: public; the last scope of its path, ``path/id``.
        path: the scopes above it, such as ``org/team``; "" for none.
        name: for people.
        digest: SHA-256 of the secret, hexadecimal.
        limits: of its own account.
        per_user, per_session, per_tag: of every user, session and tag under it; one that is not empty makes it a scope,
            and a request has to name it. A limit of sessions holds per user if users are scopes as well, one of tags
            per user and session.
        models: that it may call; ``*`` is all.
        max_input, max_output, max_reasoning: tokens of a request at most; None = no cap of its own.
        expires: milliseconds since 1970 (UTC), or None.
        revoked: for good.
        created: milliseconds since 1970 (UTC).
    """

    id: str
    path: str
    name: str
    digest: str
    limits: tuple[Limit, ...]
    per_user: tuple[Limit, ...]
    per_session: tuple[Limit, ...]
    per_tag: tuple[Limit, ...]
    models: tuple[str, ...]
    max_input: int | None
    max_output: int | None
    max_reasoning: int | None
    expires: int | None
    revoked: bool
    created: int

    @property
    def scope(self) -> str:
        """The path of its account."""
        return f"{self.path}/{self.id}" if self.path else self.id

    def allows(self, model: str) -> bool:
        """Whether it may call a model, by one of the model's names."""
        return "*" in self.models or model in self.models


def public(key: Key) -> dict[str, Any]:
    """A key as JSON has it, without the digest."""
    values: dict[str, Any] = {field.name: getattr(key, field.name) for field in fields(key) if field.name != "digest"}
    for name in _LIMITS:
        values[name] = [str(limit) for limit in values[name]]
    values["models"] = list(key.models)
    return values


def encode(key: Key) -> str:
    """A key as the store has it."""
    return json.dumps({**public(key), "digest": key.digest}, separators=(",", ":"))


def decode(text: str) -> Key:
    """The inverse of :func:`encode`.

    Raises:
        LedgerUnavailable: the text is no key: the store is damaged.
    """
    try:
        values = json.loads(text)
        for name in _LIMITS:
            values[name] = tuple(Limit.parse(limit) for limit in values[name])
        return Key(**{**values, "models": tuple(values["models"])})
    except WRONG as error:
        raise damaged_store("a key in the gateway's store", repr(error)) from error


def make(about: Mapping[str, Any], defaults: Defaults, kinds: tuple[str, ...], now: int) -> tuple[Key, str]:
    """A new key and its token, which is nowhere else.

    Args:
        about: fields of a Key as JSON has them: path, and any of name, limits, models, caps, expires.
        defaults: for what it leaves out.
        kinds: that limits may name.
        now: milliseconds since 1970 (UTC).

    Raises:
        InvalidInput: a field that is unknown or cannot be used.
    """
    name, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    path = about.get("path", "")
    if path != "":
        check_path(path)
    plain = Key(
        id=name,
        path=path,
        name="",
        digest=digest(secret),
        limits=defaults.limits,
        per_user=defaults.per_user,
        per_session=defaults.per_session,
        per_tag=defaults.per_tag,
        models=defaults.models,
        max_input=defaults.max_input,
        max_output=defaults.max_output,
        max_reasoning=defaults.max_reasoning,
        expires=None,
        revoked=False,
        created=now,
    )
    return changed(plain, {k: v for k, v in about.items() if k != "path"}, kinds), f"bk-{name}-{secret}"


def changed(key: Key, about: Mapping[str, Any], kinds: tuple[str, ...]) -> Key:
    """A key with other fields, checked.

    Raises:
        InvalidInput: a field that is unknown, cannot be changed, or has a value that cannot be used.
    """
    changes: dict[str, Any] = {}
    for name, value in about.items():
        if name in _LIMITS:
            changes[name] = check_kinds(_limits(name, value), kinds)
        elif name in _CAPS or name == "expires":
            changes[name] = None if value is None else count(name, value)
            if name == "expires" and (changes[name] or 0) > _LAST:
                raise InvalidInput(f"expires is {value:,}, after the year 9999; give milliseconds since 1970")
        elif name == "models":
            if not isinstance(value, list) or not value or not all(model and _is_text(model) for model in value):
                raise InvalidInput(f"models is {value!r}; give a list of names, or ['*']")
            changes[name] = tuple(value)
        elif name == "name":
            if not _is_text(value) or len(value) > 200:
                raise InvalidInput(f"name is {value!r}; give a text of up to 200 characters")
            changes[name] = value
        elif name == "revoked" and value is True:
            changes[name] = True
        else:
            raise InvalidInput(
                f"{name} = {value!r} cannot be set on a key; {', '.join((*_LIMITS, *_CAPS))}, "
                "models, name, expires can, and path when it is made"
            )
    return replace(key, **changes)


def _limits(name: str, value: Any) -> tuple[Limit, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise InvalidInput(f"{name} is {value!r}; give a list of limits, such as ['$5/day', '1m']")
    limits = tuple(Limit.parse(text) for text in value)
    seen = [(limit.kind, limit.window) for limit in limits]
    if len(set(seen)) < len(seen):
        raise InvalidInput(f"{name} has two limits of one kind and window; give one")
    return limits


def _is_text(value: Any) -> bool:
    """Whether a value is a text that every page, file and terminal can hold: no half of a surrogate pair."""
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)


def topped_up(key: Key, amount: str) -> Key:
    """A key whose limit of the amount's kind and window is higher by the amount.

    Raises:
        InvalidInput: it has no such limit, so there is nothing to raise.
    """
    more = Limit.parse(amount)
    limits = list(key.limits)
    for n, limit in enumerate(limits):
        if (limit.kind, limit.window) == (more.kind, more.window) and limit.amount is not None:
            if more.amount is None:
                limits[n] = more
            else:
                limits[n] = Limit(limit.kind, limit.amount + more.amount, limit.window)
            return replace(key, limits=tuple(limits))
    has = ", ".join(str(limit) for limit in limits) or "none"
    raise InvalidInput(f"key {key.id} has no limit of the kind and window of {amount!r} to top up; its limits: {has}")


def digest(secret: str) -> str:
    """What is stored of a secret. One round of SHA-256 is enough: it has 256 random bits, so nobody can guess it."""
    return hashlib.sha256(secret.encode()).hexdigest()


def split(token: str) -> tuple[str, str] | None:
    """Id and secret of a token, or None if it is none."""
    match = _TOKEN.fullmatch(token)
    return None if match is None else (match[1], match[2])


def matches(key: Key, secret: str) -> bool:
    """Whether a secret is the key's, in constant time."""
    return hmac.compare_digest(key.digest, digest(secret))
