"""The error of a gateway's store that holds what no gateway wrote."""

from __future__ import annotations

from budgeteer.core.errors import LedgerUnavailable

WRONG = (ValueError, KeyError, TypeError, AttributeError)
"""What reading a damaged key or record raises."""


def damaged_store(place: str, reason: object) -> LedgerUnavailable:
    """The error of a store whose content cannot be what a gateway wrote."""
    return LedgerUnavailable(
        f"{place} is damaged ({reason}): stop the gateway, keep a copy and restore the store from a backup; without "
        "one, move it away, and make new keys (the ledger keeps what was spent)"
    )
