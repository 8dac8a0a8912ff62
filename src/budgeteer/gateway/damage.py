"""The errors of a store: it does not answer, or it is damaged, so that its content is not what a gateway writes."""

from __future__ import annotations

import sqlite3
import threading
from typing import Any

from budgeteer.core.errors import BudgeteerError, LedgerUnavailable

WRONG = (ValueError, KeyError, TypeError, AttributeError)
"""The errors that reading a damaged key or record raises."""
_DAMAGE = ("malformed", "not a database", "no such table", "no such column", "disk image")
"""Parts of SQLite's messages about a damaged file."""


def damaged_store(place: str, reason: object) -> LedgerUnavailable:
    """The error for a damaged store.

    Args:
        place: what is damaged, as the subject of the message.
        reason: how that showed.
    """
    return LedgerUnavailable(
        f"{place} is damaged ({reason}): stop the gateway, keep a copy and restore the store from a backup; without "
        "one, move it away, and make new keys (the ledger keeps what was spent)"
    )


class Asking:
    """Holds a store's lock, and turns errors of the store into LedgerUnavailable."""

    def __init__(self, lock: threading.Lock, place: str) -> None:
        self._lock, self._place = lock, place

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, kind: Any, error: BaseException | None, at: Any) -> None:
        self._lock.release()
        if _is_damage(error):
            raise damaged_store(self._place, error) from error
        if isinstance(error, Exception) and not isinstance(error, BudgeteerError):
            raise LedgerUnavailable(f"{self._place} did not answer ({error}); do not spend") from error


def _is_damage(error: BaseException | None) -> bool:
    """Whether an error shows that the store is damaged."""
    if isinstance(error, sqlite3.DatabaseError):
        busy = isinstance(error, sqlite3.OperationalError) and not any(part in str(error) for part in _DAMAGE)
        return not busy
    unreadable = isinstance(error, WRONG) and not isinstance(error, BudgeteerError)
    return unreadable or "WRONGTYPE" in str(error)
