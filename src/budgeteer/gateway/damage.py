"""The error for a damaged store: its content is not what a gateway writes."""

from __future__ import annotations

from budgeteer.core.errors import LedgerUnavailable

WRONG = (ValueError, KeyError, TypeError, AttributeError)
"""The errors that reading a damaged key or record raises."""


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
