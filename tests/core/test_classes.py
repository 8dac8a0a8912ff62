"""Classes of the methods of a KV cache: each method has one that says what it does, and the catalogue shows them."""

from __future__ import annotations

import json

import pytest

from budgeteer import cli
from budgeteer.core.method import CLASSES
from budgeteer.core.methods import METHODS

CACHE = [method for method in METHODS if method.part in ("score", "split", "rest")]
CONTROLS = {"uniform", "drop"}
"""They divide nothing and save nothing, and are of no class."""


def test_every_method_of_a_cache_has_classes_and_no_other_has_one() -> None:
    assert {method.name for method in CACHE if not method.classes} == CONTROLS
    assert {name for method in CACHE for name in method.classes} == set(CLASSES)
    assert not any(method.classes for method in METHODS if method not in CACHE)


@pytest.mark.parametrize("method", [each for each in CACHE if each.part == "score"], ids=lambda each: each.name)
def test_the_class_of_a_score_is_what_it_does(method) -> None:
    """When it chooses, and what becomes of the rest, as its factory says."""
    pytest.importorskip("torch")
    from budgeteer.check._method import example

    made = example(method)
    kind = "dynamic reading" if made.rest == "offload" else "dynamic eviction" if made.every else "static selection"
    assert kind in method.classes


def test_the_class_of_a_rest_is_what_it_does() -> None:
    pytest.importorskip("torch")
    from budgeteer.check._method import example

    for method in (each for each in CACHE if each.part == "rest"):
        rest = example(method)
        assert ("merging" in method.classes) == (rest.fold is not None)
        assert ("mixed precision" in method.classes) == (rest.codec is not None)
        assert ("memory tiers" in method.classes) == (rest.renew is not None)


def test_the_catalogue_shows_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["methods", "score"]) == 0
    assert "keys of a small norm [static selection]" in capsys.readouterr().out
    assert cli.main(["methods", "score/h2o"]) == 0
    assert f"class     dynamic eviction: {CLASSES['dynamic eviction']}" in capsys.readouterr().out
    assert cli.main(["methods", "rest", "--json"]) == 0
    rows = {row["name"]: row["classes"] for row in json.loads(capsys.readouterr().out)}
    assert rows["merge"] == ["merging"]
    assert cli.main(["methods", "--markdown"]) == 0
    table = capsys.readouterr().out.split("## KV cache by class")[1]
    assert "| head budgets |" in table
    assert "`ada-kv` (split), `layers` (split), `profile` (split) |" in table
