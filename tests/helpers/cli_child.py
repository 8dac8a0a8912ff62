"""The command line with the tests' strategies and a slow scripted model: python cli_child.py SECONDS ARGUMENT..."""

from __future__ import annotations

import asyncio
import sys
import types

from budgeteer import cli
from budgeteer.check.scripted import Scripted
from budgeteer.core import registry
from budgeteer.core.method import Method
from budgeteer.core.methods import METHODS
from budgeteer.models.model import Request, Response
from helpers.scripted import write

STRATEGIES = (
    Method("once", "strategy", "helpers.strategies:once", "one sample"),
    Method("vote", "strategy", "helpers.strategies:vote", "the most frequent of several"),
    Method("inside", "strategy", "helpers.strategies:inside", "needs internals"),
)


class Slow(Scripted):
    """Waits before it answers; knows when it was closed."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__(write)
        self.seconds, self.closed = seconds, False
        self.name = "reasoner"  # so that the embedded reasoner's style is chosen

    async def generate(self, request: Request) -> Response:
        await asyncio.sleep(self.seconds)
        return await super().generate(request)

    async def aclose(self) -> None:
        self.closed = True


def loader(model: Slow) -> types.ModuleType:
    """A stand-in for budgeteer.models.load."""
    module = types.ModuleType("budgeteer.models.load")
    module.load_model = lambda name, **options: model  # type: ignore[attr-defined]
    return module


if __name__ == "__main__":
    registry.METHODS = (*METHODS, *STRATEGIES)  # type: ignore[attr-defined]
    sys.modules["budgeteer.models.load"] = loader(Slow(float(sys.argv[1])))
    sys.exit(cli.main(sys.argv[2:]))
