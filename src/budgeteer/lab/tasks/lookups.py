"""Problems of the embedded thinking model that are answered from a store, record by record, through calls of a tool."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from budgeteer import verify
from budgeteer.core.amounts import PICO
from budgeteer.core.environment import Item
from budgeteer.core.errors import InvalidInput
from budgeteer.lab.thinker.conversations import problem
from budgeteer.lab.thinker.problem import Problem
from budgeteer.solve.tool import Tool

_PATIENCE = 50


class Lookups:
    """``size`` distinct held-out questions that take 1 to 4 lookups, each with a store and a tool of its own.

    Args:
        size: how many problems.
        seed: of the draw.
        level: lookups of a question; 0 = all levels.
        price: dollars of a call, for budgets of money.

    Raises:
        InvalidInput: there are fewer such problems, or the price is below 0.

    >>> import asyncio
    >>> env = Lookups(size=2, seed=0, level=1)
    >>> item = env.items[0]
    >>> item.prompt, item.answer
    ('What is the room number of Sara?', '211')
    >>> (tool,) = env.tools(item)
    >>> asyncio.run(tool.call(dict(zip(tool.parameters, ("Sara", "room")))))
    '211'
    """

    name = "lookups"

    def __init__(self, size: int, seed: int, level: int = 0, price: float = 0.0) -> None:
        if not 0 <= price < 1000:
            raise InvalidInput(f"lookups:price={price}; give dollars a call, 0 or more")
        self._problems: dict[str, Problem] = {}
        self._cost = round(price * PICO)
        items: dict[str, Item] = {}
        tried = 0
        while len(items) < size:
            if tried > _PATIENCE * size:
                raise InvalidInput(f"lookups:level={level} has fewer than {size} held-out problems; ask for fewer")
            drawn = problem(seed, tried, "test", "lookups", level or None)
            tried += 1
            key = f"lookups:{drawn.key}"
            if key not in items:
                items[key] = Item(key, drawn.question, drawn.answer, level=str(drawn.level))
                self._problems[key] = drawn
        self.items: Sequence[Item] = list(items.values())

    def verify(self, item: Item, answer: str | None) -> float:
        """1 for the right answer, however it is written, else 0."""
        return verify.auto(answer, item.answer or "")

    def tools(self, item: Item) -> tuple[Tool, ...]:
        """The tool that reads the problem's store."""
        asked = self._problems[item.key]
        tool = asked.tool
        assert tool is not None

        async def read(arguments: Mapping[str, Any]) -> str:
            return asked.read(arguments)

        kinds = {tool.record: {"type": "string"}, tool.attribute: {"type": "string"}}
        lines = [f"{name}: {json.dumps(record)}" for name, record in asked.store.items()]
        return (Tool(tool.name, tool.said, kinds, read, cost=self._cost, everything="\n".join(lines)),)
