"""What a policy is: it sees a request before it is bounded and reserved, and its end.

It may change the request (``ask.set``, ``ask.model``, ``ask.lower``, ``ask.tightens``), answer it, or refuse it; what
it did goes to ``ask.notes``. Policies act in the order of the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from budgeteer.gateway.ask import Ask
    from budgeteer.gateway.config import Model
    from budgeteer.gateway.live import Live

__all__ = ["Policy", "Serving"]


class Serving(Protocol):
    """What a policy may ask of the gateway that it acts in."""

    def name_of(self, model: str) -> str:
        """The name of a model that is given by its name or an alias; what no model is called stays as it is."""

    def serves(self, ask: Ask, model: str) -> bool:
        """Whether the key of a request may call this model, and an upstream serves it on the request's route."""

    def models(self, ask: Ask) -> list[Model]:
        """The model that a request asks for, as each upstream that serves it has it: bounds may differ.

        Raises:
            Refused: nobody serves it, or the key may not call it.
        """

    async def spent(self, ask: Ask) -> float:
        """The largest share that is spent or held of any limit of tokens or money that a request counts in, 0 to 1.

        It may be half a second old.
        """


class Policy(Protocol):
    """One policy of one gateway; it may keep state."""

    async def before(self, ask: Ask, serving: Serving) -> bytes | None:
        """Look at a request. What is returned is its answer; None lets it go on.

        Raises:
            Refused: it does not.
        """

    def after(self, ask: Ask, content: bytes | None, live: Live) -> None:
        """Look at its end, once for every request that ``before`` saw, also if one of the policies ended it.

        ``content`` is a whole answer of an upstream that was not streamed, b"" if it was, None if there is none;
        ``live.units`` is what was charged.
        """
