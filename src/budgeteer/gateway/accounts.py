"""Find the ledger accounts that a request is charged to, and open them on first use."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping
from typing import Any

from budgeteer.core.amounts import OF
from budgeteer.core.errors import InvalidInput
from budgeteer.gateway.keys import Key
from budgeteer.ledger import Ledger, Limit

_SCOPE = re.compile(r"[\w.@+=-]{1,100}")
_MOST = 100_000
_NOT: Any = object()
Chain = tuple[tuple[str, tuple[Limit, ...] | None], ...]
"""(path, limits) of each account, the outermost first; limits of None leave those of an open account unchanged."""


def model_kinds(chain: Chain) -> tuple[str, ...]:
    """The kinds of units by which accounts limit single models and groups of models."""
    return tuple({limit.kind: None for _, limits in chain for limit in limits or () if OF in limit.kind})


class Accounts:
    """The accounts of a gateway's ledger.

    Args:
        ledger: the ledger that holds the accounts.
        scopes: path -> limits, from the configuration file.
        kinds: the kinds of units of every reservation. The outermost account gets an unlimited limit of each kind that
            it does not limit, so that every path names every kind.
    """

    def __init__(self, ledger: Ledger, scopes: Mapping[str, tuple[Limit, ...]], kinds: tuple[str, ...]) -> None:
        self._ledger, self._scopes, self._kinds = ledger, scopes, kinds
        self._opened: dict[str, tuple[Limit, ...] | None] = {}
        self._chains: dict[str, tuple[Key, Chain]] = {}
        self._lock = asyncio.Lock()

    def rescope(self, scopes: Mapping[str, tuple[Limit, ...]]) -> None:
        """Take other limits from the configuration file; accounts get them before their next request."""
        self._scopes = scopes
        self._chains.clear()

    def chain(self, key: Key, user: str = "", session: str = "", tag: str = "") -> Chain:
        """The accounts that a request is charged to, the outermost first.

        Args:
            key: the key that pays.
            user, session, tag: as the request names them; "" if it does not.

        Raises:
            InvalidInput: the key has limits for each user (session, tag), and the request names none.
        """
        plain = not (key.per_user or key.per_session or key.per_tag)
        known = self._chains.get(key.id) if plain else None
        if known is not None and known[0] is key:
            return known[1]
        accounts: list[tuple[str, tuple[Limit, ...] | None]] = []
        path = ""
        for part in key.path.split("/") if key.path else ():
            path = f"{path}/{part}" if path else part
            accounts.append((path, self._scopes.get(path)))
        path = key.scope
        accounts.append((path, key.all_limits))
        for label, name, limits in (
            ("user", user, key.per_user),
            ("session", session, key.per_session),
            ("tag", tag, key.per_tag),
        ):
            if limits:
                if not name:
                    raise InvalidInput(f"this key limits each {label}; name one in the header x-budgeteer-{label}")
                path = f"{path}/{label}:{_scope(name)}"
                accounts.append((path, limits))
        root, limits_of_root = accounts[0]
        named = {limit.kind for limit in limits_of_root or ()}
        accounts[0] = (
            root,
            (*(limits_of_root or ()), *(Limit(kind, None) for kind in self._kinds if kind not in named)),
        )
        if plain:
            if len(self._chains) > _MOST:
                self._chains.clear()
            self._chains[key.id] = (key, tuple(accounts))
        return tuple(accounts)

    def known(self, chain: Chain) -> bool:
        """Whether this process has opened all these accounts with these limits."""
        opened = self._opened
        for path, limits in chain:
            has = opened.get(path, _NOT)
            if has is not limits and (has is _NOT or (limits is not None and has != limits)):
                return False
        return True

    async def open(self, chain: Chain) -> None:
        """Open missing accounts and update changed limits."""
        async with self._lock:
            if len(self._opened) > _MOST:
                self._opened.clear()
            for path, limits in chain:
                if path not in self._opened or (limits is not None and self._opened[path] != limits):
                    await self._ledger.aio.open(path, limits)
                    self._opened[path] = limits

    def forget(self, chain: Chain) -> None:
        """Have these accounts opened again before their next request, since the ledger does not know one of them."""
        for path, _ in chain:
            self._opened.pop(path, None)


def _scope(name: str) -> str:
    """A name as part of a path: unchanged if it is valid there, else its hash."""
    return name if _SCOPE.fullmatch(name) else hashlib.sha256(name.encode()).hexdigest()[:32]
