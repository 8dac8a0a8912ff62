"""Policies that save tokens, one a file; each shows in the header ``x-budgeteer-policy`` when it acts.

A policy sees a request before it is bounded and reserved, and may change it (``ask.set``, ``ask.model``, ``ask.lower``,
``ask.tightens``), answer it, or refuse it; what it did it adds to ``ask.notes``. They act in the order of the file.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Protocol

from budgeteer.gateway.toml import Table

if TYPE_CHECKING:
    from budgeteer.gateway.ask import Ask
    from budgeteer.gateway.live import Live
    from budgeteer.gateway.proxy import Proxy

POLICIES: dict[str, str] = {
    name.replace("_", "-"): f"budgeteer.gateway.policies.{name}"
    for name in ("cache", "loop", "downgrade", "schedule", "pace", "overflow", "tighten")
}
"""Name -> module with ``configure(table) -> policy``."""


class Policy(Protocol):
    """One policy of one gateway; it may keep state."""

    async def before(self, ask: Ask, proxy: Proxy) -> bytes | None:
        """Look at a request. What is returned is its answer; None lets it go on.

        Raises:
            Refused: it does not.
        """

    def after(self, ask: Ask, content: bytes | None, live: Live) -> None:
        """Look at its end, once for every request that ``before`` saw, also if one of the policies ended it.

        ``content`` is a whole answer of an upstream that was not streamed, b"" if it was, None if there is none;
        ``live.units`` is what was charged.
        """


def policy(name: str, table: Table) -> Policy:
    """The policy of a name, with what its table says."""
    found: Policy = importlib.import_module(POLICIES[name]).configure(table)
    return found
