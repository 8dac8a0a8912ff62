"""Identities: what a run is made of changes its fingerprint, and what it is not made of does not."""

from __future__ import annotations

import dataclasses
import inspect

import numpy as np
import pytest

from budgeteer.allocate import neyman, uniform
from budgeteer.core import registry
from budgeteer.rl.identity import differences, digest, fingerprint
from budgeteer.rl.ratio import Loss, clipped
from budgeteer.rl.recipes.kit import balanced

recipes = pytest.importorskip("budgeteer.rl.recipes")
SCALE = 1.0


def helper(x):
    return 2 * x


def part(x):
    """Some part."""
    return SCALE * helper(x)


def test_every_recipe_has_a_fingerprint_of_its_own_that_repeats():
    options = inspect.signature(recipes.duet).parameters.items()
    names = [*registry.of("recipe"), *(f"duet:{name}={str(not p.default).lower()}" for name, p in options)]
    found = {name: fingerprint(recipes.get(name)) for name in names}
    assert found == {name: fingerprint(recipes.get(name)) for name in names}
    assert len(set(found.values())) == len(names)


def test_arguments_of_factories_are_seen_through_what_they_close_over():
    assert fingerprint(uniform()) == fingerprint(uniform())
    assert len({fingerprint(made) for made in (uniform(), uniform(3), neyman(), neyman(2), neyman(2, 16))}) == 5
    assert fingerprint(balanced(4)) != fingerprint(balanced(6))
    grpo = recipes.get("grpo")
    assert fingerprint(grpo) != fingerprint(dataclasses.replace(grpo, loss=Loss(clipped(0.2, 0.3))))


def test_code_constants_and_helpers_of_the_same_package_count_and_docstrings_do_not(monkeypatch):
    before = fingerprint(part)
    monkeypatch.setattr(part, "__doc__", "Some other text.")
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    assert fingerprint(part) != before
    monkeypatch.setitem(globals(), "SCALE", 1.0)
    monkeypatch.setitem(globals(), "helper", lambda x: 3 * x)
    assert fingerprint(part) != before


def test_circles_end():
    def turn(x):
        return turn(x)

    assert fingerprint(turn) == fingerprint(turn)
    ring = dataclasses.make_dataclass("Ring", ["next"])(None)
    ring.next = ring
    assert fingerprint(ring)


def test_data_of_different_kinds_and_splits_differ():
    values = (1, 1.0, "1", True, None, b"1", [1], [[1]], {"a": 1}, {1}, np.array([1]), np.array([1.0]), np.int64(1))
    assert len({fingerprint(value) for value in values}) == len(values)
    assert digest(b"ab", b"c") != digest(b"a", b"bc")
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})


def test_differences_name_settings_with_both_values_and_contents_by_name_alone():
    mine = {"steps": 3, "lr": 0.1, "problems": digest(b"a")}
    assert differences(mine, dict(mine)) == ""
    assert differences(mine, {**mine, "steps": 2, "problems": digest(b"b")}) == "problems; steps: 3 here, 2 there"
    assert differences(mine, {"lr": 0.1}) == "problems; steps: 3 here, None there"
