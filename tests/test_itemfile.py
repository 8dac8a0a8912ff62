"""Items from columns, frames and JSON lines; errors name the line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from budgeteer.allocate.itemfile import from_columns, from_frame, from_jsonl
from budgeteer.core.errors import InvalidInput


def test_menus_and_units_from_json_lines():
    menu = from_jsonl(
        ['{"key": "a", "cost": [1, 2, 4], "value": [0.3, 0.5, 0.6]}\n', "\n", '{"key": "b", "cost": [], "value": []}']
    )
    assert menu.keys == ("a", "b")
    assert menu.options().indptr.tolist() == [0, 3, 3]
    units = from_jsonl(['{"key": 7, "cost": 40, "std": 0.5, "pass_rate": null, "visits": 3}'])
    assert units.keys == ("7",)
    assert np.isnan(units.pass_rate[0])
    assert units.visits.dtype == np.int64
    assert len(from_jsonl([])) == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"key": "b", "cost": 0}', "line 3: cost is 0; it is a number > 0"),
        ('{"key": "b", "cost": NaN}', "line 3: cost is nan"),
        ('{"key": "b", "cost": Infinity}', "line 3: cost is inf"),
        ('{"key": "b", "cost": "ten"}', "line 3: cost is 'ten'"),
        ('{"key": "b", "cost": true}', "line 3: cost is True"),
        ('{"key": "b", "cost": [1]}', "line 3: a list of costs without values"),
        ('{"key": "a", "cost": 1}', "line 3: key 'a' was used in x.jsonl, line 1"),
        ('{"key": "b"}', "line 3: fields key, but line 1 has key, cost"),
        ("[1]", "line 3: list instead of an object"),
        ('{"key": "b", "cost": ' + "1" * 400 + "}", "line 3: cost is 1111"),
        ('{"key": "b", "cost": ' + "1" * 5000 + "}", "line 3: cannot be read"),
        ("[" * 100_000, "line 3: cannot be read"),
        ('{"key": "b", ', "line 3: not JSON"),
    ],
)
def test_errors_name_the_line(line, message):
    with pytest.raises(InvalidInput) as caught:
        from_jsonl(['{"key": "a", "cost": 5}', "", line], name="x.jsonl")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"key": "a", "cost": [1, 2], "value": [1.0]}, "line 1: 2 costs and 1 values"),
        ({"key": "a", "cost": [1.5], "value": [1.0]}, "line 1: cost 1 is 1.5"),
        ({"key": "a", "cost": [0], "value": [1.0]}, "line 1: cost 1 is 0"),
        ({"key": "a", "cost": [10**400], "value": [1.0]}, "line 1: cost 1 is 1000"),
        (
            {"key": "a", "cost": [10**20], "value": [1.0]},
            "cost 1 is 100000000000000000000; costs on a menu are whole",
        ),
        (
            {"key": "a", "cost": [10**19], "value": [1.0]},
            "cost 1 is 10000000000000000000; costs on a menu are whole",
        ),
        ({"key": "a", "cost": [3, 4], "value": [1.0, float("nan")]}, "line 1: value 2 is nan"),
        ({"key": "a", "cost": [3], "value": [1.0], "std": 1.0}, "a menu has only key, cost and value"),
        ({"key": "a", "cost": 3, "value": 2.0}, "values without a list of costs"),
        ({"key": "a", "cost": 3, "stdev": 2.0}, "unknown: stdev"),
        ({"key": "a", "std": 2.0}, "key and cost are required"),
        ({"key": "a", "cost": 3, "std": -2.0}, "std is -2.0"),
        ({"key": "a", "cost": 3, "visits": 1.5}, "visits is 1.5; it is a whole number"),
    ],
)
def test_bad_rows(row, message):
    with pytest.raises(InvalidInput) as caught:
        from_jsonl([json.dumps(row)])
    assert message in str(caught.value)


def test_columns_of_different_lengths():
    with pytest.raises(InvalidInput, match="1 entries for 2 keys"):
        from_columns({"key": ["a", "b"], "cost": [1.0]})


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames(library):
    frames = pytest.importorskip(library)
    units = from_frame(frames.DataFrame({"key": ["a", "b"], "cost": [1.0, 2.0], "std": [0.5, 0.25]}))
    assert units.std.tolist() == [0.5, 0.25]
    menu = from_frame(frames.DataFrame({"key": ["a", "b"], "cost": [[1, 2], [3]], "value": [[0.1, 0.2], [0.3]]}))
    assert menu.options().cost.tolist() == [1, 2, 3]
    with pytest.raises(InvalidInput, match="row 2 of the frame: cost is -2"):
        from_frame(frames.DataFrame({"key": ["a", "b"], "cost": [1.0, -2.0]}))
