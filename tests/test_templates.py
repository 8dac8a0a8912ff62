"""The templates that contributors copy keep working: the method obeys the protocol, the evidence runs and can fail."""

from __future__ import annotations

import doctest
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from budgeteer.check import check_allocator
from budgeteer.core.allocator import stateless
from budgeteer.core.plan import Items
from budgeteer.lab import evidence as package

TEMPLATES = Path(__file__).parents[1] / "templates"


@pytest.fixture
def templates(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ModuleType, ModuleType]]:
    monkeypatch.syspath_prepend(TEMPLATES)
    yield importlib.import_module("method"), importlib.import_module("evidence")
    for name in ("method", "evidence"):  # such plain names must not leak into other tests
        del sys.modules[name]


def test_the_method_passes_the_public_check(templates: tuple[ModuleType, ModuleType]) -> None:
    method, _ = templates
    check_allocator(method.cheapest_first())
    assert doctest.testmod(method).failed == 0
    assert doctest.testmod(method).attempted > 0


def test_the_method_by_hand(templates: tuple[ModuleType, ModuleType]) -> None:
    # 2 units each: b costs 2, c 4 (6 so far), a 20 (26 so far); 25 tokens reach b and c
    items = Items(("a", "b", "c"), np.array([10.0, 1.0, 2.0]))
    allocator = templates[0].cheapest_first(2)
    plan = allocator.allocate(25, items, allocator.init(items), rng=np.random.default_rng(0))
    assert (plan.units.tolist(), plan.expected_cost) == ([0, 2, 2], 6.0)


def test_the_evidence_runs_is_published_and_can_fail(
    templates: tuple[ModuleType, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, evidence = templates
    found = evidence.experiments()
    assert [one.verdict for one in found] == ["shown", "shown"]
    path = package.write("template", tmp_path, package.label(found, evidence.DECLARED))
    assert [row["verdict"] for row in json.loads(path.read_text())] == ["shown", "control holds"]
    # a method that leaves nine tenths of its budget unspent must not keep the claim
    whole = method.cheapest_first()
    lazy = stateless(lambda budget, items: whole.allocate(budget // 10, items, (), rng=np.random.default_rng(0)))
    monkeypatch.setattr(evidence, "cheapest_first", lambda: lazy)
    assert evidence.more_units(spread=1.0).verdict == "refuted here"
