"""Finding the key of a bearer, quickly and failing closed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from budgeteer.errors import BudgeteerError
from budgeteer.gateway.keys import Key, decode, digest, matches, split
from budgeteer.gateway.refusal import Refused
from budgeteer.gateway.store import Store

T = TypeVar("T")
FRESH = 1.0
"""Seconds for which a key is not asked for again: so long a change takes to reach other replicas."""
_MOST = 10_000


class KeyRing:
    """The keys of a store, remembered for a second; ids that do not exist as well, so that guessing costs little."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, tuple[float, Key | None]] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}

    async def find(self, token: str, now: int) -> Key:
        """The key of a token.

        Args:
            token: as the client sent it.
            now: milliseconds since 1970 (UTC).

        Raises:
            Refused: it is no key, or revoked, or has expired. It does not say which ids exist.
            LedgerUnavailable: the store does not answer.
        """
        parts = split(token)
        if parts is None:
            raise _unknown()
        name, secret = parts
        known, clock = self._known.get(name), time.monotonic()
        if known is None or known[0] < clock:
            known = await self._ask(name)
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[name] = known
        elif known[0] < clock + FRESH / 2 and name not in self._asking:
            self._asking[name] = asyncio.ensure_future(self._renew(name, known))
        key = known[1]
        if key is None:
            digest(secret)  # as long as for a key that there is
            raise _unknown()
        if not matches(key, secret):
            raise _unknown()
        if key.revoked:
            raise Refused(401, "key_revoked", "this key was revoked")
        if key.expires is not None and key.expires <= now:
            raise Refused(401, "key_expired", "this key has expired")
        return key

    async def _ask(self, name: str) -> tuple[float, Key | None]:
        text = await run(self._store.get_key, name)
        return time.monotonic() + FRESH, None if text is None else decode(text)

    async def _renew(self, name: str, known: tuple[float, Key | None]) -> None:
        """Ask for a key in use before its second is over, so that none of its requests waits for the store."""
        try:
            fresh = await self._ask(name)
            if self._known.get(name) is known:  # else it was forgotten meanwhile, as it was changed
                self._known[name] = fresh
        except BudgeteerError:
            pass  # it is asked again when its second is over, and then the request fails
        finally:
            del self._asking[name]

    def forget(self, name: str) -> None:
        """Ask the store for it again."""
        self._known.pop(name, None)


async def run(call: Callable[..., T], *args: Any) -> T:
    """A blocking call of the store, in a thread."""
    return await asyncio.get_running_loop().run_in_executor(None, partial(call, *args))


def _unknown() -> Refused:
    return Refused(
        401, "invalid_api_key", "no such key; give one that this gateway issued (Authorization: Bearer bk-...)"
    )
