"""Lists where arrays are meant: they are taken, and what is no list of numbers is refused with its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from budgeteer import Items, Menu, Outcomes, Plan
from budgeteer.core import registry
from budgeteer.core.errors import InvalidInput

COLUMNS: dict[str, Any] = {
    "cost": [30, 40.0, 90], "std": [0.1, 0.5, 0.5], "pass_rate": [0.9, float("nan"), 0.2], "visits": [1, 0, 2],
    "drawn": [4, 0, 4], "right": [3, 0, 1], "scale": [1, 2, 3], "decay": [0.5, 1, 1],
}  # fmt: skip
KEYS = ("easy", "mixed", "long")


def arrays() -> dict[str, Any]:
    whole = ("visits", "drawn", "right")
    return {name: np.array(column, np.int64 if name in whole else np.float64) for name, column in COLUMNS.items()}


@pytest.mark.parametrize("name", list(registry.of("allocator")))
def test_an_allocator_given_lists_plans_as_with_arrays(name: str) -> None:
    """The right value is the plan of the arrays; what an allocator refuses, it refuses of both with the same words."""
    menu = ([[2, 6], [3, 5], [4]], [[3.0, 7.0], [4.0, 5.0], [1.0]])
    found = []
    for items, options in (
        (Items(list(KEYS), **COLUMNS), Items(list(KEYS), menu=Menu([2, 6, 3, 5, 4], [3, 7, 4, 5, 1], [0, 2, 4, 5]))),
        (Items(KEYS, **arrays()), Items(KEYS, menu=Menu.of(*menu))),
    ):
        for one in (items, options):
            try:
                allocator = registry.load(registry.get("allocator", name))()
                plan = allocator.allocate(300, one, allocator.init(one), rng=np.random.default_rng(0))
                found.append((plan.units.tolist(), plan.expected_cost))
            except (InvalidInput, TypeError) as error:
                found.append(str(error))
    assert found[:2] == found[2:]


def test_lists_become_columns_of_the_right_kind() -> None:
    items = Items(list(KEYS), **COLUMNS)
    assert items.keys == KEYS
    assert (items.cost.dtype, items.cost.tolist()) == (np.dtype(np.float64), [30.0, 40.0, 90.0])
    assert items.drawn is not None
    assert (items.drawn.dtype, items.drawn.tolist()) == (np.dtype(np.int64), [4, 0, 4])
    assert Plan(("a", "b"), [1, 2], 3.0).units.dtype == np.int64  # type: ignore[arg-type]
    rows = Outcomes(("a",), [7], [1], [0.5], [1])  # type: ignore[arg-type]
    assert rows.take(np.array([True])).tokens.tolist() == [7]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Items(("a",), cost=["x"]), "Items.cost is .*give an array or a list of numbers"),
        (lambda: Items(("a", "b"), cost=[[1], [2, 3]]), "Items.cost is .*give an array or a list of numbers"),
        (lambda: Items(("a",), cost=[1], drawn=[1.5]), "Items.drawn is .*whole numbers"),
        (lambda: Items(("a",), cost=[1], visits=[10**30]), "Items.visits is .*give an array or a list of numbers"),
        (lambda: Items(("a",), cost=None), "Items.cost has shape"),
        (lambda: Items("a", cost=[1]), "Items.keys is the text"),
        (lambda: Items(("a", "b"), cost=[1]), r"Items.cost has shape \(1,\), expected \(2,\)"),
        (lambda: Menu([1.5], [1], [0, 1]), "Menu.cost is .*whole numbers"),
        (lambda: Menu(["x"], [1], [0, 1]), "Menu.cost is .*numbers"),
        (lambda: Plan(("a",), ["x"], 1.0), "Plan.units is .*numbers"),
        (lambda: Outcomes(("a",), [1], ["x"], [1], [1]), "Outcomes.reward is .*numbers"),
    ],
)
def test_what_is_no_list_of_numbers_is_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        make()
