"""The protocol of a policy: it is called with each request before its budget is reserved, and again after its end.

It may change the request (``ask.set``, ``ask.model``, ``ask.lower``, ``ask.tightens``), answer it, or refuse it, and it
appends what it did to ``ask.notes``. Policies act in the order of the configuration file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from budgeteer.gateway.ask import Ask
    from budgeteer.gateway.config import Model
    from budgeteer.gateway.live import Live

__all__ = ["Policy", "Serving"]


class Serving(Protocol):
    """The questions that a policy may ask its gateway."""

    def now(self) -> int:
        """Milliseconds since 1970 (UTC); of yesterday's request, where the records of yesterday are replayed."""

    def name_of(self, model: str) -> str:
        """The name of the model that a name or alias belongs to; an unknown name is returned as it is."""

    def serves(self, ask: Ask, model: str) -> bool:
        """Whether the key of a request may call this model, and an upstream serves it on the request's route."""

    def models(self, ask: Ask) -> list[Model]:
        """The model that a request asks for, as each upstream that serves it has it: bounds may differ.

        Raises:
            Refused: no upstream serves it, or the key may not call it.
        """

    async def spent(self, ask: Ask) -> float:
        """The largest spent or reserved share (0 to 1) of the limits of tokens or money that apply to a request.

        It may be half a second old.
        """


class Policy(Protocol):
    """A policy of a gateway; it may keep state.

    One that chooses among models may name them in ``choices``: the gateway then refuses a configuration in which fewer
    than two of them are served, since nothing would be left to choose.
    """

    async def before(self, ask: Ask, serving: Serving) -> bytes | None:
        """Change a request, answer it or let it go on.

        Returns:
            The whole answer as JSON bytes, so that nothing is called; None lets the request go on.

        Raises:
            Refused: the request is refused.
        """

    def after(self, ask: Ask, content: bytes | None, live: Live) -> None:
        """Learn from the end of a request. It is called once for every request that ``before`` was called with, also if
        a policy answered or refused it.

        Args:
            ask: the request.
            content: the upstream's whole answer; b"" if it was streamed; None if there is none.
            live: the request's state; ``live.units`` is what was charged, by kind.
        """
