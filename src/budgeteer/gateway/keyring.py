"""Find the key of a request quickly; without an answer from the store the request is refused."""

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
"""Seconds for which a key is remembered: a change takes at most so long to reach other replicas."""
_MOST = 10_000


class KeyRing:
    """The keys of a store, each remembered for a second.

    Ids that do not exist are remembered as well, so that guessing does not load the store; they are kept apart, so that
    guesses do not push out real keys.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, tuple[float, Key]] = {}
        self._guessed: dict[str, float] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}

    async def look(self, name: str) -> Key | None:
        """The key with an id, whether it is valid or not; None if there is none.

        Raises:
            LedgerUnavailable: the store does not answer.
        """
        if split(f"bk-{name}-{'x' * 43}") is None:
            return None
        known, clock = self._known.get(name), time.monotonic()
        if known is not None and known[0] >= clock:
            return known[1]
        return None if self._guessed.get(name, 0.0) > clock else await self._ask(name)

    async def find(self, token: str, now: int) -> Key:
        """The key that a token belongs to.

        Args:
            token: as the client sent it.
            now: milliseconds since 1970 (UTC).

        Raises:
            Refused: the token is of no key, or its key is revoked or has expired. An unknown id and a wrong secret get
                the same error.
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
            digest(secret)  # takes as long as for a key that exists
            raise _unknown()
        if not matches(key, secret, now):
            raise _unknown()
        check_valid(key, now)
        return key

    async def _ask(self, name: str) -> Key | None:
        """Read a key from the store, and remember it, or that there is none."""
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
        """Read a key again before its second is over, so that none of its requests waits for the store."""
        try:
            text = await run(self._store.get_key, name)
            if self._known.get(name) is known and text is not None:  # else it was changed, and forgotten, meanwhile
                self._known[name] = time.monotonic() + FRESH, decode(text)
        except BudgeteerError:
            pass  # the key is read again when its second is over, and then the request fails
        finally:
            del self._asking[name]

    def forget(self, name: str) -> None:
        """Have the key of this id read from the store again at its next request."""
        self._known.pop(name, None)
        self._guessed.pop(name, None)


def check_valid(key: Key, now: int) -> None:
    """Check that a key may be used at a time in milliseconds since 1970 (UTC).

    Raises:
        Refused: it is revoked or has expired.
    """
    if key.revoked:
        raise Refused(401, "key_revoked", "this key was revoked")
    if key.expires is not None and key.expires <= now:
        raise Refused(401, "key_expired", "this key has expired")


async def run(call: Callable[..., T], *args: Any) -> T:
    """The result of ``call(*args)``, made in a thread, since calls of the store block."""
    return await asyncio.get_running_loop().run_in_executor(None, partial(call, *args))


def _unknown() -> Refused:
    return Refused(
        401, "invalid_api_key", "no such key; give one that this gateway issued (Authorization: Bearer bk-...)"
    )
