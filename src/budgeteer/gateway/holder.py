"""What a key's holder may know: the own key, its limits and those above it, its balances, its spending."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from budgeteer.core import amounts
from budgeteer.core.errors import InvalidInput
from budgeteer.gateway.accounts import Chain
from budgeteer.gateway.keys import Key, public
from budgeteer.gateway.queries import Queries
from budgeteer.ledger.protocol import wall_clock
from budgeteer.ledger.report import limit_window

_SHOWN = ("id", "name", "path", "models", "max_input", "max_output", "max_reasoning", "expires", "created", "rotated")
"""Fields of a key that its holder sees; its limits are in the rows of balances."""
_TIMES = (("last_24_hours", 86_400_000), ("last_30_days", 30 * 86_400_000))
LABELS = ("user", "session", "tag")


class Holder:
    """The view of key holders. Whatever is asked, only the accounts and records of the own key are looked at.

    Args:
        queries: the gateway's queries.
    """

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    def chain(self, key: Key, labels: Mapping[str, str]) -> Chain:
        """The accounts of a key, and those of the user, session and tag below it if they are named.

        Args:
            key: the key.
            labels: user, session and tag, as requests name them; those that are not named are left out.
        """
        accounts = self._queries.accounts
        try:
            return accounts.chain(key, *(labels.get(label, "") for label in LABELS))
        except InvalidInput:
            return accounts.chain(replace(key, per_user=(), per_session=(), per_tag=()))

    async def limits(self, key: Key, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        """A row for each limit that a request of the key has to fit, as :func:`budgeteer.ledger.report.balances`."""
        chain = self.chain(key, labels)
        accounts = self._queries.accounts
        if not accounts.known(chain):
            await accounts.open(chain)
        rows = await self._queries.balances_of([path for path, _ in chain])
        return [row for row in rows if row["limit"] is not None]

    async def budget(self, key: Key, labels: Mapping[str, str]) -> dict[str, Any]:
        """The answer to GET /v1/budget; money is pico-dollars, times are milliseconds since 1970 (UTC)."""
        now, shown = wall_clock(), public(key)
        about: dict[str, Any] = {"object": "budget", "key": {name: shown[name] for name in _SHOWN}}
        about["limits"] = [_limit(row) for row in await self.limits(key, labels)]
        for name, length in _TIMES:
            sums = await self._queries.totals({"key": key.id, "since": str(now - length)})
            about[name] = {field: sums[field] for field in ("requests", "refused", "input", "output", "money")}
        return about


def _limit(row: Mapping[str, Any]) -> dict[str, Any]:
    """A limit with what is left of it, for programs and, as ``text``, for people."""
    return {
        "scope": row["path"],
        "kind": row["kind"],
        "limit": row["limit"],
        "window": row["window"],
        "used": row["settled"],
        "reserved": row["reserved"],
        "left": row["left"],
        "resets_at": row["resets"],
        "text": amounts.left_of(row["kind"], row["left"], row["limit"], limit_window(row)),
    }
