"""Task families of reasoning-gym, problems and verifiers that we did not write."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from budgeteer.core.environment import Item
from budgeteer.core.errors import InvalidInput, MissingExtra, UnknownName

FAMILIES: dict[str, dict[str, Any]] = {
    "chain_sum": {"min_digits": 1, "max_digits": 1, "min_terms": 2, "max_terms": 8},
    "gcd": {"min_numbers": 2, "max_numbers": 2, "min_value": 1, "max_value": 30},
    "number_filtering": {
        "min_numbers": 2, "max_numbers": 6, "min_decimals": 0, "max_decimals": 0, "min_value": -20, "max_value": 20,
    },
}  # fmt: skip
"""Families that the embedded reasoner was pretrained on, with the settings that fit its size."""
PACKAGE = "reasoning-gym==0.1.20"
"""Installed without its dependencies: the extra ``lab`` names them, without pycosat, which would be compiled."""


class _NoPycosat(ModuleType):
    """Stands for pycosat while reasoning-gym is imported, which imports it although only one family calls it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise InvalidInput(
            "zebra_puzzles of reasoning-gym needs pycosat, which is not installed: pip install pycosat, which needs a "
            "C compiler, or take another family"
        )


def reasoning_gym() -> ModuleType:
    """The package reasoning-gym, with or without pycosat.

    Raises:
        MissingExtra: it is not installed.
    """
    without = "reasoning_gym" not in sys.modules and importlib.util.find_spec("pycosat") is None
    if without:
        sys.modules["pycosat"] = _NoPycosat("pycosat")
    try:
        return importlib.import_module("reasoning_gym")
    except ImportError as error:
        raise MissingExtra("reasoning_gym", "lab", alone=PACKAGE) from error
    finally:
        if without:
            del sys.modules["pycosat"]


class Gym:
    """``size`` distinct problems of one reasoning-gym family; scored by the family's own verifier.

    Args:
        family: a dataset name of reasoning-gym.
        size: number of distinct problems.
        seed: of reasoning-gym's generator.
        settings: of the family; the defaults for the families in FAMILIES fit the embedded reasoner.
    """

    def __init__(self, family: str, size: int, seed: int, **settings: Any) -> None:
        gym = reasoning_gym()
        if family not in gym.factory.DATASETS:
            raise UnknownName("reasoning-gym family", family, gym.factory.DATASETS)
        self.name = family
        options = {**FAMILIES.get(family, {}), **settings}
        # reasoning-gym draws with Random(seed + index): spread seeds so that two seeds share no index
        self._data = gym.create_dataset(family, seed=seed * 1_000_003, size=size * 20, **options)
        found: dict[str, Item] = {}
        for index in range(size * 20):
            entry = self._data[index]
            question = entry["question"]
            if question not in found:
                found[question] = Item(f"{family}:{question}", question, str(entry["answer"]), family, entry)
            if len(found) == size:
                break
        else:
            raise InvalidInput(
                f"{family} has only {len(found)} distinct problems at {options}, {size} asked; widen its settings "
                f"or ask for fewer (--limit, --train-items, --heldout-items)"
            )
        self.items: Sequence[Item] = list(found.values())

    def verify(self, item: Item, answer: str | None) -> float:
        """reasoning-gym's own score; values below 1 are its partial credit."""
        return float(self._data.score_answer(answer, item.entry))
