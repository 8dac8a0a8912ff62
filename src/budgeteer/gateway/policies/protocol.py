"""What a policy is: it sees a request before it is bounded and reserved, and its end.

It may change the request (``ask.set``, ``ask.model``, ``ask.lower``, ``ask.tightens``), answer it, or refuse it; what
it did goes to ``ask.notes``. Policies act in the order of the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from budgeteer.gateway.ask import Ask
    from budgeteer.gateway.live import Live
    from budgeteer.gateway.proxy import Proxy

__all__ = ["Policy"]


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
