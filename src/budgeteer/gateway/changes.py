"""The record of changes: which admin made, changed, topped up, rotated or revoked which key, when, and how."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from budgeteer.core.errors import InvalidInput
from budgeteer.gateway import keys
from budgeteer.gateway.damage import WRONG, damaged_store
from budgeteer.gateway.filters import Query
from budgeteer.gateway.keys import Key, public
from budgeteer.gateway.roles import Reach
from budgeteer.gateway.store import Store

MADE, CHANGED, TOPPED_UP, ROTATED, REVOKED = "made", "changed", "topped up", "rotated", "revoked"
_PAGE = 1000
_CURSOR = re.compile(r"[0-9]{1,18}(-[0-9]{1,18})?")
_UNTOLD = ("id", "path", "created")


@dataclass(frozen=True, slots=True)
class Author:
    """Who changes a key.

    Attributes:
        name: of the admin; of the user of the machine on the command line.
        by: how that was shown: "key", "sign-in" or "command line".
    """

    name: str
    by: str


@dataclass(frozen=True, slots=True)
class Change:
    """What an admin has done to a key.

    Attributes:
        at: milliseconds since 1970 (UTC).
        who, by: the fields of the author.
        action: MADE, CHANGED, TOPPED_UP, ROTATED or REVOKED.
        key, path, name: of the key; ``path`` is that of its own account.
        fields: field of the key -> [before, after], of those that differ; a made key has only what is after.
    """

    at: int
    who: str
    by: str
    action: str
    key: str
    path: str
    name: str
    fields: dict[str, list[Any]]

    def as_json(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}

    def encode(self) -> str:
        """It as the text that the store keeps."""
        return orjson.dumps(self.as_json()).decode()

    def log(self) -> None:
        """Write it to standard error as a line of JSON."""
        sys.stderr.write(orjson.dumps({"event": "change", **self.as_json()}).decode() + "\n")
        sys.stderr.flush()


def change(author: Author, action: str, before: Key | None, after: Key, now: int) -> Change:
    """The record of a change.

    Args:
        author: who made it.
        action: what it was.
        before, after: the key; None = there was none.
        now: milliseconds since 1970 (UTC).
    """
    old, new = {} if before is None else public(before), public(after)
    fields = {
        name: [old.get(name), value]
        for name, value in new.items()
        if name not in _UNTOLD and old.get(name) != value and (before is not None or value)
    }
    return Change(now, author.name, author.by, action, after.id, after.scope, after.name, fields)


def add(store: Store, key: Key, author: Author, now: int) -> Change:
    """Store a new key and the record of its making, in one transaction; returns the latter."""
    made = change(author, MADE, None, key, now)
    store.add_key(key.id, keys.encode(key), made.encode())
    return made


def alter(
    store: Store, name: str, author: Author, action: str, alter: Callable[[Key], Key], now: int
) -> tuple[Key, Change]:
    """Change a key and store the record of that, in one transaction.

    Args:
        store: where the key is.
        name: its id.
        author, action: of the record.
        alter: the new key, of the present one; its errors change nothing.
        now: milliseconds since 1970 (UTC).

    Returns:
        The changed key, and the record.

    Raises:
        InvalidInput: there is no such key.
    """
    made: list[Change] = []

    def entry(before: str, after: str) -> str:
        made.append(change(author, action, keys.decode(before), keys.decode(after), now))
        return made[-1].encode()

    text = store.change_key(name, lambda text: keys.encode(alter(keys.decode(text))), entry)
    return keys.decode(text), made[-1]


def decode(text: str) -> Change:
    """The change that :meth:`Change.encode` wrote.

    Raises:
        LedgerUnavailable: the text is of no change, so the store is damaged.
    """
    try:
        return Change(**json.loads(text))
    except WRONG as error:
        raise damaged_store("a change in the gateway's store", repr(error)) from error


def listed(store: Store, asked: Query, reach: Reach, limit: int) -> tuple[list[Change], str | None]:
    """Changes of keys, the newest first, and the value of ``before`` for those that follow; None at the end.

    Args:
        store: where they are.
        asked: filters: ``key`` (an id), and ``before``, from an earlier answer.
        reach: the accounts whose changes may be seen.
        limit: the most that are returned.

    Raises:
        InvalidInput: ``before`` is of no earlier answer.
    """
    changes: list[Change] = []
    before, wanted = asked.get("before", ""), asked.get("key", "")
    if before and not _CURSOR.fullmatch(before):
        raise InvalidInput(f"before={before}; give the value of next of an earlier answer")
    while True:
        page = store.changes(before, _PAGE)
        for cursor, text in page:
            entry = decode(text)
            if reach.covers(entry.path) and wanted in ("", entry.key):
                changes.append(entry)
                if len(changes) == limit:
                    return changes, cursor
        if len(page) < _PAGE:
            return changes, None
        before = page[-1][0]
