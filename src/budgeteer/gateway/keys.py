"""Virtual keys: what their bearers may spend, and how a key's secret is generated and checked."""

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
        id: its public id; its account is ``path/id``.
        path: the accounts above its own, such as ``org/team``; "" for none.
        name: a name for people.
        digest: SHA-256 of the secret, hexadecimal.
        limits: the limits of its own account.
        per_user, per_session, per_tag: the limits of each user, session and tag below it. If one is not empty, each
            user (session, tag) gets an account of its own, and requests have to name theirs. Accounts of sessions lie
            below those of users, those of tags below both.
        models: names of the models that it may call; ``*`` allows all.
        max_input, max_output, max_reasoning: the most tokens of a request; None = no cap of the key.
        expires: when it expires, in milliseconds since 1970 (UTC); None = never.
        revoked: whether it has been revoked, which cannot be undone.
        created: when it was made, in milliseconds since 1970 (UTC).
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
        """The path of the key's own account."""
        return f"{self.path}/{self.id}" if self.path else self.id

    def allows(self, model: str) -> bool:
        """Whether the key may call a model by this name."""
        return "*" in self.models or model in self.models


def public(key: Key) -> dict[str, Any]:
    """The fields of a key for JSON, without the digest of its secret."""
    values: dict[str, Any] = {field.name: getattr(key, field.name) for field in fields(key) if field.name != "digest"}
    for name in _LIMITS:
        values[name] = [str(limit) for limit in values[name]]
    values["models"] = list(key.models)
    return values


def encode(key: Key) -> str:
    """A key as the JSON text that the store keeps."""
    return json.dumps({**public(key), "digest": key.digest}, separators=(",", ":"))


def decode(text: str) -> Key:
    """The key that :func:`encode` wrote.

    Raises:
        LedgerUnavailable: the text is of no key, so the store is damaged.
    """
    try:
        values = json.loads(text)
        for name in _LIMITS:
            values[name] = tuple(Limit.parse(limit) for limit in values[name])
        return Key(**{**values, "models": tuple(values["models"])})
    except WRONG as error:
        raise damaged_store("a key in the gateway's store", repr(error)) from error


def make(about: Mapping[str, Any], defaults: Defaults, kinds: tuple[str, ...], now: int) -> tuple[Key, str]:
    """Make a key.

    Args:
        about: fields of the key as in its JSON: path, and any of name, limits, per_user, per_session, per_tag, models,
            max_input, max_output, max_reasoning, expires.
        defaults: the values of fields that ``about`` does not have.
        kinds: the kinds of units that limits may name.
        now: milliseconds since 1970 (UTC).

    Returns:
        The key, and its token, which is kept nowhere: give it to the client.

    Raises:
        InvalidInput: a field is unknown, or its value cannot be used.
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
    """A copy of a key with some fields changed.

    Args:
        key: the key.
        about: the new values by field, as in the key's JSON.
        kinds: the kinds of units that limits may name.

    Raises:
        InvalidInput: a field is unknown or cannot be changed, or its value cannot be used.
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
    """Whether a value is a string that can be written as UTF-8: without half a surrogate pair."""
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)


def topped_up(key: Key, amount: str) -> Key:
    """A copy of a key with one limit raised.

    Args:
        key: the key.
        amount: a limit such as "$5" or "500k/day", which is added to the key's limit of the same kind and window.

    Raises:
        InvalidInput: the key has no limit of this kind and window.
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
    """SHA-256 of a secret, hexadecimal. One round is enough: a secret has 256 random bits, so nobody can guess it."""
    return hashlib.sha256(secret.encode()).hexdigest()


def split(token: str) -> tuple[str, str] | None:
    """The id and the secret in a token; None if it has not the form of one."""
    match = _TOKEN.fullmatch(token)
    return None if match is None else (match[1], match[2])


def matches(key: Key, secret: str) -> bool:
    """Whether a secret is that of the key; compared in constant time."""
    return hmac.compare_digest(key.digest, digest(secret))
