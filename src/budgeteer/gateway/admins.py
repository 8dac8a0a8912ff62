"""``[[admins]]`` and ``[oidc]`` of the configuration: who administers the gateway, and how they show who they are."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from budgeteer.core.errors import InvalidInput, MissingExtra
from budgeteer.core.urls import check_http, without_password
from budgeteer.gateway.hosts import public
from budgeteer.gateway.roles import ADMIN, MANAGER, ROLES, Grant
from budgeteer.gateway.toml import Table
from budgeteer.ledger.limit import check_path

_SECRET = 32
"""The fewest characters of the secret that signs sessions."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Entry:
    """An admin, or a group of them that a claim tells.

    Attributes:
        name: for pages and for the record of changes.
        grants: the role, once for each path.
        digest: SHA-256 of the key, hexadecimal; "" = no key.
        email: verified address of who signs in; "" = not told by it.
        claims: (claim, value) of who signs in; all of them and the address have to hold.
    """

    name: str
    grants: tuple[Grant, ...]
    digest: str = field(default="", repr=False)
    email: str = ""
    claims: tuple[tuple[str, str], ...] = ()

    @property
    def signs_in(self) -> bool:
        """Whether somebody who signs in can be this admin."""
        return bool(self.email or self.claims)


@dataclass(frozen=True, slots=True)
class Oidc:
    """An OpenID provider, and what it knows of this gateway.

    Attributes:
        issuer: its address, exactly as it writes it.
        client_id: this gateway's name there.
        secret: this gateway's secret there; "" for a public client.
        url: where browsers reach this gateway, without a slash at its end.
        scopes: what is asked for.
    """

    issuer: str
    client_id: str
    secret: str = field(repr=False)
    url: str
    scopes: tuple[str, ...]

    @property
    def callback(self) -> str:
        """Where the provider sends browsers back to."""
        return f"{self.url}/oidc/callback"

    @property
    def host(self) -> str:
        """The provider's name for people."""
        return urlsplit(self.issuer).netloc


@dataclass(frozen=True, slots=True)
class Admins:
    """Who administers a gateway.

    Attributes:
        entries: the admin key, then those of the file.
        secret: signs sessions and forms; every replica has the same.
        oidc: where they sign in; None = with keys only.
    """

    entries: tuple[Entry, ...] = ()
    secret: str = field(default="", repr=False)
    oidc: Oidc | None = None


def read_secret(server: Table, env: Mapping[str, str]) -> tuple[str, str]:
    """The variable of ``session_secret_env`` of ``[server]``, and its value; "" if it is not set."""
    variable = server.text("session_secret_env", "BUDGETEER_SESSION_SECRET")
    secret = env.get(variable, "")
    if secret and len(secret) < _SECRET:
        why = f"names {variable}, whose value has {len(secret)} characters; give {_SECRET} or more"
        server.fail("session_secret_env", why)
    return variable, secret


def read_admins(top: Table, admin_key: str, secret: tuple[str, str], env: Mapping[str, str]) -> Admins:
    """Read ``[[admins]]`` and ``[oidc]``.

    Args:
        top: the whole file.
        admin_key: the key of the admin with all rights; "" = there is none.
        secret: as :func:`read_secret` returns it.
        env: variables that hold secrets.

    Raises:
        InvalidInput: naming the field, its line and what is wrong with it.
        MissingExtra: there is ``[oidc]``, and the library for it is not installed.
    """
    tables = top.tables("admins")
    named = [_entry(table) for table in tables]
    entries = (*([Entry("admin", (Grant(ADMIN),), digest_of(admin_key))] if admin_key else ()), *named)
    keys = [entry.digest for entry in entries if entry.digest]
    if len(set(keys)) < len(keys):
        top.fail("admins", "has the same key twice; give each admin a key of their own, and one admin several paths")
    oidc = _oidc(top.table("oidc"), env)
    for table, entry in zip(tables, named, strict=True):
        if entry.signs_in and oidc is None:
            table.fail("email" if entry.email else "claims", "needs [oidc] with issuer, client_id and url")
    if oidc is not None and not any(entry.signs_in for entry in named):
        top.fail("oidc", "lets nobody in; give an [[admins]] an email, or claims")
    variable, value = secret
    if named and not value and not admin_key:
        top.fail(
            "admins",
            f"needs a secret that signs sessions: set {variable} to {_SECRET} or more random characters, the same "
            "for all replicas (openssl rand -hex 32)",
        )
    return Admins(entries, value or admin_key, oidc)


def digest_of(key: str) -> str:
    """SHA-256 of an admin's key, hexadecimal."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def _entry(table: Table) -> Entry:
    role = table.text("role", among=tuple(ROLES))
    paths = table.texts("paths")
    for path in paths:
        try:
            check_path(path)
        except InvalidInput as error:
            table.fail("paths", f"has {path!r}: {error}")
    if role == MANAGER and not paths:
        table.fail("paths", 'is missing; say below which paths a manager makes and changes keys: ["acme/search"]')
    if role == ADMIN and paths:
        table.fail("paths", f"is {list(paths)!r}, but an admin may do everything; make it a manager or a viewer")
    digest = table.text("key_sha256", "").casefold()
    if digest and not _DIGEST.fullmatch(digest):
        table.fail("key_sha256", 'is no SHA-256; write what this prints: printf %s "$KEY" | sha256sum')
    claims = table.table("claims")
    entry = Entry(
        name=table.text("name"),
        grants=tuple(Grant(role, path) for path in paths or ("",)),
        digest=digest,
        email=table.text("email", ""),
        claims=tuple((name, claims.text(name)) for name in claims.data),
    )
    if not (entry.digest or entry.signs_in):
        table.fail(None, "can show in no way who they are; give key_sha256, email or claims")
    table.done()
    return entry


def _oidc(table: Table, env: Mapping[str, str]) -> Oidc | None:
    if not table.data:
        return None
    for module in ("authlib", "httpx2"):
        if importlib.util.find_spec(module) is None:
            raise MissingExtra(module, "oidc")
    variable = table.text("client_secret_env", None)
    if variable is not None and not env.get(variable):
        table.fail("client_secret_env", f"names {variable}, which is not set in the environment")
    oidc = Oidc(
        issuer=_address(table, "issuer"),
        client_id=table.text("client_id"),
        secret=env.get(variable, "") if variable else "",
        url=_address(table, "url").rstrip("/"),
        scopes=table.texts("scopes", ("openid", "email", "profile")),
    )
    if urlsplit(oidc.url).path:
        table.fail("url", f"is {oidc.url!r}; give https://host, without a path: the pages are at its root")
    if "openid" not in oidc.scopes:
        table.fail("scopes", f'is {list(oidc.scopes)!r}; "openid" has to be one of them')
    table.done()
    return oidc


def _address(table: Table, name: str) -> str:
    """An address: https, or http within a private network."""
    url: str = table.text(name)
    try:
        parts = urlsplit(check_http(url, "sign-in"))
    except InvalidInput as error:
        table.fail(name, f"is {without_password(url)!r}: {error}")
    if not parts.hostname or parts.query or parts.fragment or "@" in parts.netloc:
        table.fail(name, f"is {without_password(url)!r}; give https://host")
    if parts.scheme == "http" and public(parts.hostname):
        table.fail(name, f"is {url!r}, where anybody on the way can sign in as anybody; give https://")
    return url


def described(admins: Sequence[Entry]) -> list[str]:
    """A line about each admin: name, role and paths, and how they show who they are."""
    lines = []
    for entry in admins:
        ways = ["key"] if entry.digest else []
        ways += [entry.email] if entry.email else []
        ways += [f"{claim} = {value}" for claim, value in entry.claims]
        where = ", ".join(grant.path for grant in entry.grants if grant.path)
        lines.append(f"{entry.name}: {entry.grants[0].role}{' of ' + where if where else ''} ({', '.join(ways)})")
    return lines
