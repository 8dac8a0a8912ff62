"""results.json: round trip, atomic writing, errors that name the field, paired comparisons."""

from __future__ import annotations

import copy
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from budgeteer.core.errors import InvalidInput, UnknownName
from budgeteer.lab import results as rs
from helpers.results_fixture import make

DOCS = Path(__file__).parents[2] / "docs" / "results.md"


def test_round_trip(tmp_path: Path) -> None:
    data = make()
    path = rs.write(data, tmp_path / "new" / "results.json")
    assert rs.read(path) == rs.to_json(data)
    assert [p.name for p in path.parent.iterdir()] == ["results.json"]


def test_not_finite_becomes_null_and_numpy_becomes_plain(tmp_path: Path) -> None:
    data = make(1)  # one seed: the intervals are NaN
    data["runs"][0]["accuracy"] = np.float64("inf")
    data["runs"][0]["tokens"]["used"] = np.int64(data["runs"][0]["tokens"]["used"])
    path = rs.write(data, tmp_path / "results.json")
    got = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert got["runs"][0]["accuracy"] is None
    assert got["comparisons"][0]["low"] is None
    assert got["comparisons"][0]["mean"] is not None


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = rs.write(make(1), tmp_path / "results.json")
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InvalidInput, match=r"cannot write .*No space left"):
        rs.write(make(2), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match=r"cannot write .*choose a folder"):
        rs.write(make(1), tmp_path / "file" / "results.json")


def test_invalid_results_are_kept_beside_the_target(tmp_path: Path) -> None:
    data = make(1)
    del data["runs"][0]["seconds"]
    with pytest.raises(InvalidInput, match=r"runs\[0\] has no 'seconds'.*invalid\.json"):
        rs.write(data, tmp_path / "results.json")
    assert json.loads((tmp_path / "results.invalid.json").read_text())["runs"]
    assert not (tmp_path / "results.json").exists()


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("schema",), 2, "schema is 2"),
        (("runs",), {}, "runs is {}, expected a list"),
        (("runs", 1, "seed"), "0", r"runs\[1\]\.seed is '0', expected a whole number"),
        (("runs", 1, "seed"), True, r"runs\[1\]\.seed is True"),
        (("runs", 0, "recipe"), None, r"runs\[0\]\.recipe is None, expected text"),
        (("runs", 0, "accuracy"), "high", r"runs\[0\]\.accuracy is 'high', expected a number or null"),
        (("runs", 0, "tokens", "wasted"), 10**12, r"runs\[0\]\.tokens: trained .* exceed"),
        (("runs", 2, "curve", 3, "tokens"), 1.5, r"runs\[2\]\.curve\[3\]\.tokens"),
        (("runs", 0, "diagnostics", "traces", 1, "status"), "killed", r"traces\[1\]\.status is 'killed', expected one"),
        (("runs", 0, "diagnostics", "tokens_by_level", "2", "used"), None, r"tokens_by_level\.2\.used is None"),
        (("comparisons", 0, "n"), None, r"comparisons\[0\]\.n"),
    ],
)
def test_errors_name_the_field(tmp_path: Path, where: tuple[Any, ...], value: Any, message: str) -> None:
    data = rs.to_json(make(1))
    inner = data
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    path = tmp_path / "results.json"
    path.write_text(json.dumps(data))
    with pytest.raises(InvalidInput, match=message):
        rs.read(path)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot read"):
        rs.read(tmp_path / "none.json")
    (tmp_path / "cut.json").write_text('{"schema": 1, "runs": [')
    with pytest.raises(InvalidInput, match="is not JSON"):
        rs.read(tmp_path / "cut.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(InvalidInput, match=r"the document is \[\], expected an object"):
        rs.read(tmp_path / "list.json")


def test_optional_parts_come_back_empty(tmp_path: Path) -> None:
    data = make(1, diagnostics=False)
    path = tmp_path / "results.json"
    path.write_text(json.dumps(rs.to_json({"schema": 1, "runs": data["runs"]})))
    got = rs.read(path)
    assert (got["comparisons"], got["config"], got["versions"]) == ([], {}, {})


def _runs(name: str, accuracy: dict[int, float | None]) -> list[dict[str, Any]]:
    recipe, budget = name.split("@")
    return [{"recipe": recipe, "budget": budget, "seed": s, "accuracy": a} for s, a in accuracy.items()]


def test_compare_pairs_by_seed_not_by_position() -> None:
    runs = _runs("a@50%", {0: 0.5, 1: 0.6, 2: 0.7, 9: 0.1}) + _runs("b@100%", {2: 0.6, 1: 0.5, 0: 0.4, 8: 0.9})
    (got,) = rs.compare(runs, [("a@50%", "b@100%")])
    assert got["mean"] == pytest.approx(0.1)
    assert got["n"] == 3
    assert got["low"] == pytest.approx(0.1)
    assert (got["a"], got["b"], got["metric"], got["level"]) == ("a@50%", "b@100%", "accuracy", 0.95)


def test_compare_drops_seeds_without_a_number() -> None:
    runs = _runs("a@1k", {0: 0.5, 1: math.nan}) + _runs("b@1k", {0: 0.4, 1: 0.3})
    (got,) = rs.compare(runs, [("a@1k", "b@1k")])
    assert got["n"] == 1
    assert math.isnan(got["low"])


def test_compare_refuses() -> None:
    runs = _runs("a@1k", {0: 0.5}) + _runs("b@1k", {1: 0.4}) + _runs("c@1k", {0: 0.5}) + _runs("c@1k", {0: 0.6})
    with pytest.raises(UnknownName, match="did you mean"):
        rs.compare(runs, [("a@1k", "b@2k")])
    with pytest.raises(InvalidInput, match="share no seed"):
        rs.compare(runs, [("a@1k", "b@1k")])
    with pytest.raises(InvalidInput, match="two runs with seed 0"):
        rs.compare(runs, [("c@1k", "a@1k")])


def test_versions_name_what_decides_the_numbers() -> None:
    assert {"python", "platform", "budgeteer", "numpy"} <= rs.versions().keys()


def test_the_documented_example_is_valid() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.S)
    rs.validate(json.loads(example))


def test_fixture_is_not_changed_by_writing(tmp_path: Path) -> None:
    data = make(1)
    before = copy.deepcopy(data)
    rs.write(data, tmp_path / "results.json")
    assert repr(data) == repr(before)
