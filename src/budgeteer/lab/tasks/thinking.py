"""Problems of the embedded thinking model: those of its families that need no tool, held out from its training."""

from __future__ import annotations

from collections.abc import Sequence

from budgeteer import verify
from budgeteer.core.environment import Item
from budgeteer.core.errors import InvalidInput, UnknownName
from budgeteer.lab.thinker.conversations import FAMILIES, problem

SPOKEN = tuple(name for name in FAMILIES if name != "lookups")
"""Families whose problems are answered without a tool."""
_PATIENCE = 50


class Thinking:
    """``size`` distinct held-out problems, the families in turn.

    Args:
        size: how many problems.
        seed: of the draw.
        families: names of families with ``+`` between them, of SPOKEN; ``""`` = all.
        level: of difficulty, roughly the number of steps; 0 = all levels.

    Raises:
        UnknownName: no such family.
        InvalidInput: there are fewer such problems.

    >>> env = Thinking(size=4, seed=0, families="arithmetic+dates")
    >>> [item.key.split(":")[1] for item in env.items], env.verify(env.items[0], env.items[0].answer)
    (['arithmetic', 'dates', 'arithmetic', 'dates'], 1.0)
    """

    name = "thinking"

    def __init__(self, size: int, seed: int, families: str = "", level: int = 0) -> None:
        chosen = families.split("+") if families else list(SPOKEN)
        for name in chosen:
            if name not in SPOKEN:
                raise UnknownName("family of the task thinking", name, SPOKEN)
        items: dict[str, Item] = {}
        tried = 0
        while len(items) < size:
            if tried > _PATIENCE * size:
                raise InvalidInput(
                    f"thinking:families={families},level={level} has fewer than {size} held-out problems; ask for fewer"
                )
            family = chosen[len(items) % len(chosen)]
            drawn = problem(seed, tried, "test", family, level or None)
            tried += 1
            key = f"thinking:{family}:{drawn.key}"
            items.setdefault(key, Item(key, drawn.question, drawn.answer, level=f"{family} {drawn.level}"))
        self.items: Sequence[Item] = list(items.values())

    def verify(self, item: Item, answer: str | None) -> float:
        """1 for the right answer, however it is written, else 0."""
        return verify.auto(answer, item.answer or "")
