"""Task families of reasoning-gym, problems and verifiers that we did not write."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import ModuleType
from typing import Any

from budgeteer.core.environment import Item
from budgeteer.core.errors import InvalidInput, MissingExtra, UnknownName
from budgeteer.lab.tasks.worked import SOLUTIONS

FAMILIES: dict[str, dict[str, Any]] = {
    "chain_sum": {"min_digits": 1, "max_digits": 1, "min_terms": 2, "max_terms": 8},
    "gcd": {"min_numbers": 2, "max_numbers": 2, "min_value": 1, "max_value": 30},
    "number_filtering": {
        "min_numbers": 2,
        "max_numbers": 6,
        "min_decimals": 0,
        "max_decimals": 0,
        "min_value": -20,
        "max_value": 20,
    },
}
"""Families that the embedded reasoner was pretrained on, with the settings that fit its size."""
MOST, MOST_VALUE = 1_000, 10**15
"""Bounds of settings that are sizes, where the family's own are not above a hundredth of it, and that are values."""
VALUES = ("value", "bound", "real", "imag", "constant")
"""Parts of the names of settings that are values."""
SECONDS = 60.0
"""That making the problems may take, looked at between two of them."""
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


def _bounded(family: str, settings: Mapping[str, Any], config: type) -> None:
    """Refuse sizes that take minutes to make, or more memory than there is.

    Raises:
        InvalidInput: a whole number far above the family's own; the message says how large it may be.
    """
    own = {field.name: field.default for field in fields(config)} if is_dataclass(config) else {}
    for key, value in settings.items():
        if type(value) is not int:
            continue
        default = own.get(key)
        most = max(MOST, 100 * abs(default)) if type(default) is int else MOST
        if any(word in key for word in VALUES):
            most = MOST_VALUE
        if abs(value) > most:
            raise InvalidInput(f"gym:{family}:{key}={value} is too large to make problems of; give {most:,} at most")


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
        _bounded(family, settings, gym.factory.DATASETS[family][1])
        # reasoning-gym draws with Random(seed + index): spread seeds so that two seeds share no index
        self._data = gym.create_dataset(family, seed=seed * 1_000_003, size=size * 20, **options)
        items: dict[str, Item] = {}
        end = time.monotonic() + SECONDS
        for index in range(size * 20):
            entry = self._data[index]
            question = entry["question"]
            if question not in items:
                solution = SOLUTIONS[family](entry["metadata"]) if family in SOLUTIONS else ()
                key, answer = f"{family}:{question}", str(entry["answer"])
                items[question] = Item(key, question, answer, family, entry, solution)
            if len(items) == size:
                break
            if time.monotonic() > end:
                raise InvalidInput(
                    f"{family} made {len(items)} of {size} problems in {SECONDS:g} s at {options}; lower these, or "
                    f"ask for fewer (--limit, --items, --train-items, --heldout-items)"
                )
        else:
            raise InvalidInput(
                f"{family} has only {len(items)} distinct problems at {options}, {size} asked; widen its settings "
                f"or ask for fewer (--limit, --train-items, --heldout-items)"
            )
        self.items: Sequence[Item] = list(items.values())

    def verify(self, item: Item, answer: str | None) -> float:
        """reasoning-gym's own score; values below 1 are its partial credit."""
        return float(self._data.score_answer(answer, item.entry))
