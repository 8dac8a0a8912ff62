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

from budgeteer.core.budget import Window
from budgeteer.core.errors import InvalidInput, UnknownZone
from budgeteer.core.usage import count
from budgeteer.gateway.config import Defaults
from budgeteer.gateway.damage import WRONG, damaged_store
from budgeteer.gateway.limits import check_kinds
from budgeteer.gateway.of_models import Groups, PerModel, check, kinds_of
from budgeteer.ledger.limit import LAST, Limit, check_path
from budgeteer.ledger.windows import no_zone

_TOKEN = re.compile(r"bk-([0-9a-f]{16})-([\w-]{43})")
_LIMITS = ("limits", "per_user", "per_session", "per_tag")
_CAPS = ("max_input", "max_output", "max_reasoning")
_NO_GROUPS = Groups()
_EARLIER = 4
"""The most earlier secrets that can be valid at once."""
LONGEST_OVERLAP = 90 * 86_400_000
"""The longest time for which an earlier secret stays valid, in milliseconds."""


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
        per_model: the limits of its own account for single models and groups of models.
        earlier: (digest, until) of earlier secrets that are still valid, until a time in milliseconds since 1970 (UTC).
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
    per_model: PerModel = ()
    earlier: tuple[tuple[str, int], ...] = ()

    @property
    def scope(self) -> str:
        """The path of the key's own account."""
        return f"{self.path}/{self.id}" if self.path else self.id

    @property
    def all_limits(self) -> tuple[Limit, ...]:
        """The limits of its own account, those of models and groups included."""
        return (*self.limits, *kinds_of(self.per_model)) if self.per_model else self.limits

    def allows(self, model: str) -> bool:
        """Whether the key may call a model by this name."""
        return "*" in self.models or model in self.models


def public(key: Key) -> dict[str, Any]:
    """The fields of a key for JSON, without the digests of its secrets."""
    values: dict[str, Any] = {
        field.name: getattr(key, field.name) for field in fields(key) if field.name not in ("digest", "earlier")
    }
    values["per_model"] = {name: [str(limit) for limit in limits] for name, limits in key.per_model}
    values["rotated"] = max((until for _, until in key.earlier), default=None)
    for name in _LIMITS:
        values[name] = [str(limit) for limit in values[name]]
    values["models"] = list(key.models)
    return values


def encode(key: Key) -> str:
    """A key as the JSON text that the store keeps."""
    values = {**public(key), "digest": key.digest, "earlier": key.earlier}
    del values["rotated"]
    return json.dumps(values, separators=(",", ":"))


def version(key: Key) -> str:
    """A name of a key's present fields, to notice that somebody has changed them."""
    return hashlib.sha256(encode(key).encode()).hexdigest()[:16]


def decode(text: str) -> Key:
    """The key that :func:`encode` wrote.

    Raises:
        LedgerUnavailable: the text is of no key, so the store is damaged; or a limit's time zone is not known here.
    """
    try:
        values = json.loads(text)
        for name in _LIMITS:
            values[name] = tuple(Limit.parse(limit) for limit in values[name])
        per_model = values.get("per_model", {}).items()
        values["per_model"] = tuple((name, tuple(map(Limit.parse, limits))) for name, limits in per_model)
        values["earlier"] = tuple((str(digest), int(until)) for digest, until in values.get("earlier", ()))
        return Key(**{**values, "models": tuple(values["models"])})
    except UnknownZone as error:
        raise no_zone("a key in the gateway's store", error) from error
    except WRONG as error:
        raise damaged_store("a key in the gateway's store", repr(error)) from error


def make(
    about: Mapping[str, Any], defaults: Defaults, kinds: tuple[str, ...], now: int, groups: Groups = _NO_GROUPS
) -> tuple[Key, str]:
    """Make a key.

    Args:
        about: fields of the key as in its JSON: path, and any of name, limits, per_user, per_session, per_tag,
            per_model, models, max_input, max_output, max_reasoning, expires.
        defaults: the values of fields that ``about`` does not have.
        kinds: the kinds of units that limits may name.
        now: milliseconds since 1970 (UTC).
        groups: the models and groups that per_model may name.

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
        per_model=defaults.per_model,
    )
    return changed(plain, {k: v for k, v in about.items() if k != "path"}, kinds, groups), f"bk-{name}-{secret}"


def changed(key: Key, about: Mapping[str, Any], kinds: tuple[str, ...], groups: Groups = _NO_GROUPS) -> Key:
    """A copy of a key with some fields changed.

    Args:
        key: the key.
        about: the new values by field, as in the key's JSON.
        kinds: the kinds of units that limits may name.
        groups: the models and groups that per_model may name.

    Raises:
        InvalidInput: a field is unknown or cannot be changed, or its value cannot be used.
    """
    changes: dict[str, Any] = {}
    for name, value in about.items():
        if name in _LIMITS:
            changes[name] = check_kinds(_limits(name, value), kinds)
        elif name == "per_model":
            changes[name] = _per_model(value, kinds, groups)
        elif name in _CAPS or name == "expires":
            changes[name] = None if value is None else count(name, value)
            if name == "expires" and (changes[name] or 0) > LAST:
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
                "per_model, models, name, expires can, and path when it is made"
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


def _per_model(value: Any, kinds: tuple[str, ...], groups: Groups) -> PerModel:
    if not isinstance(value, dict):
        raise InvalidInput(f"per_model is {value!r}; give limits by model or group, such as {{'gpt-4o': ['$5/day']}}")
    groups.check(value)
    return tuple((name, check(name, _limits("per_model", value[name]), kinds)) for name in sorted(value) if value[name])


def rotated(key: Key, overlap: int, now: int) -> tuple[Key, str]:
    """A copy of a key with a new secret; its account, limits and id stay.

    Args:
        key: the key.
        overlap: milliseconds for which the present secret stays valid; 0 ends it, and all earlier ones, at once.
        now: milliseconds since 1970 (UTC).

    Returns:
        The key, and its new token, which is kept nowhere.

    Raises:
        InvalidInput: the key is revoked, or the overlap is longer than LONGEST_OVERLAP.
    """
    if key.revoked:
        raise InvalidInput(f"key {key.id} is revoked, which cannot be undone; make a new key")
    if not 0 <= overlap <= LONGEST_OVERLAP:
        raise InvalidInput(f"the overlap is {overlap / 86_400_000:g} days; give 0 to {LONGEST_OVERLAP // 86_400_000}")
    secret = secrets.token_urlsafe(32)
    ends = now + overlap
    earlier = [(old, min(until, ends)) for old, until in ((key.digest, ends), *key.earlier) if min(until, ends) > now]
    return replace(key, digest=digest(secret), earlier=tuple(earlier[:_EARLIER])), f"bk-{key.id}-{secret}"


def overlap_of(text: str) -> int:
    """An overlap such as "24h", "7d" or "0" in milliseconds; "" is 24 hours.

    >>> overlap_of("24h"), overlap_of("0")
    (86400000, 0)
    """
    if text.strip() == "0":
        return 0
    window = Window.parse(text.strip() or "24h")
    if not window.seconds:
        raise InvalidInput(f"the overlap is {text!r}; give a time such as 90m, 24h or 7d, or 0")
    return window.seconds * 1000


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


def matches(key: Key, secret: str, now: int) -> bool:
    """Whether a secret is that of the key, or an earlier one whose overlap lasts; compared in constant time.

    Args:
        key: the key.
        secret: as the client sent it.
        now: milliseconds since 1970 (UTC).
    """
    given = digest(secret)
    valid = [key.digest, *(old for old, until in key.earlier if until > now)]
    return sum(hmac.compare_digest(known, given) for known in valid) > 0  # each is compared, whichever it is
