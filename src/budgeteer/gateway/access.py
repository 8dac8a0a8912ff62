"""Who asks: the admin of a key, or of a session."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request

from budgeteer.gateway import session
from budgeteer.gateway.admins import Admins, Entry, digest_of
from budgeteer.gateway.asgi import show_key, token
from budgeteer.gateway.refusal import Refused
from budgeteer.gateway.roles import Admin

_NO_KEY = "no admin key is set, so the admin API is off; set the environment variable that admin_key_env names"
KEY, SIGN_IN = "key", "sign-in"
"""How an admin can show who it is."""
_LONGEST = {"sub": 255, "email": 254, "name": 100}
"""Claims that a session remembers, and the most characters of each: a cookie has room for 4,096 bytes."""


class Access:
    """Tells who administers a gateway.

    Args:
        admins: those of the configuration.
        turned_away: called with the reason when a request shows no valid key of an admin.
    """

    def __init__(self, admins: Admins, turned_away: Callable[[str], None]) -> None:
        self._admins, self._turned_away = admins, turned_away

    @property
    def any_key(self) -> bool:
        """Whether any admin has a key."""
        return any(entry.digest for entry in self._admins.entries)

    def _of_key(self, key: str) -> Entry | None:
        """The admin with a key; the digests are compared in constant time, each of them."""
        digest, owner = digest_of(key), None
        for entry in self._admins.entries:
            if entry.digest and hmac.compare_digest(entry.digest, digest):
                owner = entry
        return owner

    def bearer(self, request: Request) -> Admin:
        """The admin whose key a request of the API shows.

        Raises:
            Refused: 401 for another key or none, 403 if no admin has a key.
        """
        if not self.any_key:
            raise Refused(403, "admin_off", _NO_KEY)
        entry = self._of_key(token(dict(request.scope["headers"])))
        if entry is None:
            self._turned_away("invalid_admin_key")
            raise Refused(401, "invalid_admin_key", "give the admin key: Authorization: Bearer ...")
        show_key(request.scope)
        return _admin(entry)

    # sessions

    def begin(self, key: str) -> str | None:
        """The cookie of a new session of the admin with this key; None if it is of none."""
        entry = self._of_key(key)
        return None if entry is None else session.begin(self._admins.secret, {"key": self._mark(entry)})

    def begin_as(self, claims: Mapping[str, Any]) -> str | None:
        """The cookie of a new session of who has signed in; None if that is no admin.

        Args:
            claims: what the provider says of the person; an address only if it is verified.
        """
        asked = dict.fromkeys(pair for entry in self._admins.entries for pair in entry.claims)
        about: dict[str, Any] = {name: str(claims[name])[:most] for name, most in _LONGEST.items() if claims.get(name)}
        person = {**about, "claims": [[*pair] for pair in asked if has(claims, *pair)], "at": self._provider}
        return session.begin(self._admins.secret, person) if self._signed_in(person) else None

    @property
    def _provider(self) -> list[str]:
        oidc = self._admins.oidc
        return [] if oidc is None else [oidc.issuer, oidc.client_id]

    def _mark(self, entry: Entry) -> str:
        """What the session of a key remembers of it, so that it ends with the key."""
        return session.sign(self._admins.secret, "key", entry.digest)[:32]

    def admin(self, cookie: str) -> Admin | None:
        """The admin of a session, with the rights that the configuration gives now; None if there is none."""
        about = session.read(self._admins.secret, cookie)
        if about is None:
            return None
        if "key" in about:
            entries = (entry for entry in self._admins.entries if entry.digest and self._mark(entry) == about["key"])
            return next(map(_admin, entries), None)
        return self._signed_in(about)

    def _signed_in(self, about: Mapping[str, Any]) -> Admin | None:
        """The admin that somebody is who has signed in: all roles of the entries that are of this person."""
        if not self._provider or about["at"] != self._provider:
            return None
        email, told = about.get("email", ""), about["claims"]
        entries = [
            entry
            for entry in self._admins.entries
            if entry.signs_in
            and (not entry.email or entry.email.casefold() == email.casefold())
            and all([name, value] in told for name, value in entry.claims)
        ]
        if not entries:
            return None
        name = next((entry.name for entry in entries if entry.email), "")
        who = " ".join(filter(None, (name or about.get("name", ""), f"<{email or about['sub']}>")))
        return Admin(who, tuple(grant for entry in entries for grant in entry.grants), SIGN_IN)

    def form_token(self, cookie: str) -> str:
        """The token of the forms of a session's pages."""
        return session.form_token(self._admins.secret, cookie)

    def form_valid(self, cookie: str, given: str) -> bool:
        """Whether the token of a form is that of the session's pages."""
        return session.form_valid(self._admins.secret, cookie, given)


def _admin(entry: Entry) -> Admin:
    """The admin of a key."""
    return Admin(entry.name, entry.grants, KEY)


def value_of(claims: Mapping[str, Any], name: str) -> Any:
    """The value of a claim: of this name, else the name is a path into objects; None if there is none.

    >>> value_of({"realm_access": {"roles": ["budget"]}}, "realm_access.roles")
    ['budget']
    """
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def has(claims: Mapping[str, Any], name: str, value: str) -> bool:
    """Whether a claim is a value, or a list that has it.

    >>> has({"groups": ["a", "b"]}, "groups", "b"), has({"hd": "acme.com"}, "hd", "acme"), has({}, "hd", "")
    (True, False, False)
    """
    claim = value_of(claims, name)
    return value in claim if isinstance(claim, list) else claim == value
