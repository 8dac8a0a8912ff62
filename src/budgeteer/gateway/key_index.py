"""All keys of a store in memory, decoded once, to search them and to know their names: 5,000 of them in a moment."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from budgeteer.gateway.keyring import FRESH, run
from budgeteer.gateway.keys import Key, decode
from budgeteer.gateway.store import Store


class KeyIndex:
    """The keys of a store, at most a second old.

    Args:
        store: where they are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._until = 0.0
        self._decoded: dict[str, Key] = {}
        self._keys: tuple[Key, ...] = ()
        self._words: list[tuple[str, Key]] = []
        self._names: dict[str, str] = {}

    async def keys(self) -> Sequence[Key]:
        """All keys, the newest first."""
        if time.monotonic() >= self._until:
            texts = await run(self._store.all_keys)
            if len(texts) != len(self._decoded) or any(text not in self._decoded for text in texts):
                self._renew(await run(self._decode, texts))
            self._until = time.monotonic() + FRESH
        return self._keys

    def _decode(self, texts: Sequence[str]) -> dict[str, Key]:
        known = self._decoded
        return {text: known[text] if text in known else decode(text) for text in texts}

    def _renew(self, decoded: dict[str, Key]) -> None:
        self._decoded = decoded
        self._keys = tuple(sorted(decoded.values(), key=lambda key: -key.created))
        self._words = [(f"{key.name}\n{key.scope}".casefold(), key) for key in self._keys]
        self._names = {key.id: key.name or key.id for key in self._keys}

    async def names(self) -> Mapping[str, str]:
        """Id of each key -> its name for people; the id if it has none."""
        await self.keys()
        return self._names

    async def find(self, text: str, state: str, now: int) -> list[Key]:
        """The keys whose name, id or path contains each word of a text, the newest first.

        Args:
            text: words; "" finds all keys.
            state: "valid", "expired" or "revoked"; "" finds all.
            now: milliseconds since 1970 (UTC).
        """
        await self.keys()
        words = text.casefold().split()
        return [
            key
            for said, key in self._words
            if all(word in said for word in words) and (not state or state == state_of(key, now))
        ]

    def forget(self) -> None:
        """Have the keys read again."""
        self._until = 0.0


def state_of(key: Key, now: int) -> str:
    """Whether a key is "valid", "expired" or "revoked" at a time in milliseconds since 1970 (UTC)."""
    if key.revoked:
        return "revoked"
    return "valid" if key.expires is None or key.expires > now else "expired"
