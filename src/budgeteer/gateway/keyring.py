"""Finding the key of a bearer, quickly and failing closed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from budgeteer.core.errors import BudgeteerError
from budgeteer.gateway.keys import Key, decode, digest, matches, split
from budgeteer.gateway.refusal import Refused
from budgeteer.gateway.store import Store

T = TypeVar("T")
FRESH = 1.0
"""Seconds for which a key is not asked for again: so long a change takes to reach other replicas."""
_MOST = 10_000


class KeyRing:
    """The keys of a store, remembered for a second; ids that do not exist as well, so that guessing costs little, but
    apart, so that guessing makes nobody forget a key that there is."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, tuple[float, Key]] = {}
        self._guessed: dict[str, float] = {}
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
            key = None if self._guessed.get(name, 0.0) > clock else await self._ask(name)
        else:
            key = known[1]
            if known[0] < clock + FRESH / 2 and name not in self._asking:
                self._asking[name] = asyncio.ensure_future(self._renew(name, known))
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

    async def _ask(self, name: str) -> Key | None:
        """Ask the store, and remember for a second what it says."""
        text, until = await run(self._store.get_key, name), time.monotonic() + FRESH
        if text is None:
            self._known.pop(name, None)
            if len(self._guessed) >= _MOST:
                self._guessed.clear()
            self._guessed[name] = until
            return None
        if len(self._known) >= _MOST:
            self._known.clear()
        key = decode(text)
        self._known[name] = until, key
        return key

    async def _renew(self, name: str, known: tuple[float, Key]) -> None:
        """Ask for a key in use before its second is over, so that none of its requests waits for the store."""
        try:
            text = await run(self._store.get_key, name)
            if self._known.get(name) is known and text is not None:  # else it was forgotten meanwhile, being changed
                self._known[name] = time.monotonic() + FRESH, decode(text)
        except BudgeteerError:
            pass  # it is asked again when its second is over, and then the request fails
        finally:
            del self._asking[name]

    def forget(self, name: str) -> None:
        """Ask the store for it again."""
        self._known.pop(name, None)
        self._guessed.pop(name, None)


async def run(call: Callable[..., T], *args: Any) -> T:
    """A blocking call of the store, in a thread."""
    return await asyncio.get_running_loop().run_in_executor(None, partial(call, *args))


def _unknown() -> Refused:
    return Refused(
        401, "invalid_api_key", "no such key; give one that this gateway issued (Authorization: Bearer bk-...)"
    )
