"""Items from columns, frames and JSON lines; errors name the line."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from budgeteer.allocate.itemfile import from_columns, from_file, from_frame, from_jsonl
from budgeteer.core import rows
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
        ('{"key": "b", "cost": ' + "1" * 5000 + "}", "line 3: not JSON"),
        ("[" * 100_000, "line 3: not JSON"),
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


UNITS = [{"key": "a", "cost": 2, "std": 0.5, "pass_rate": None}, {"key": "b", "cost": 1.5, "std": 0, "pass_rate": 0.5}]
MENU = [{"key": "1", "cost": [1, 2], "value": [0.3, 0.5]}, {"key": "2", "cost": [7], "value": [1.0]}]


def lines(items: list[dict]) -> bytes:
    return "".join(json.dumps(item) + "\n" for item in items).encode()


def cells(items: list[dict]) -> bytes:
    rows = [[item[name] for name in items[0]] for item in items]
    written = [["" if x is None else json.dumps(x) if isinstance(x, list) else str(x) for x in row] for row in rows]
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in [list(items[0]), *written]]
    return "\r\n".join(quoted).encode()


def parquet(items: list[dict]) -> bytes:
    polars = pytest.importorskip("polars")
    polars.DataFrame(items).with_columns(polars.col("cost")).write_parquet(found := io.BytesIO())
    return found.getvalue()


@pytest.mark.parametrize("items", [UNITS, MENU], ids=["units", "menu"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("i.jsonl", lines),
        ("bom.jsonl", lambda items: b"\xef\xbb\xbf" + lines(items)),
        ("i", lines),
        ("i.jsonl.gz", lambda items: gzip.compress(lines(items))),
        ("bom.jsonl.gz", lambda items: gzip.compress(b"\xef\xbb\xbf" + lines(items))),
        ("i.json", lambda items: json.dumps(items).encode()),
        ("lines.json", lines),
        ("i.json.gz", lambda items: gzip.compress(json.dumps(items).encode())),
        ("i.csv", cells),
        ("bom.csv", lambda items: b"\xef\xbb\xbf" + cells(items)),
        ("i.csv.gz", lambda items: gzip.compress(cells(items))),
        ("i.parquet", parquet),
    ],
)
def test_every_form_of_file_has_the_same_items(items, name, content, tmp_path):
    (tmp_path / name).write_bytes(content(items))
    found, same = from_file(str(tmp_path / name)), from_jsonl(lines(items).decode().splitlines())
    assert found.keys == same.keys
    if items is MENU:
        for column in ("cost", "value", "indptr"):
            assert getattr(found.menu, column).tolist() == getattr(same.menu, column).tolist()
    else:
        for column in ("cost", "std", "pass_rate"):
            assert np.array_equal(getattr(found, column), getattr(same, column), equal_nan=True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.jsonl", b"", "holds no items; give one a row"),
        ("blank.jsonl", b"\n \n", "holds no items"),
        ("head.csv", b"key,cost\n", "holds no items"),
        ("array.json", b"[]", "holds no items"),
        ("object.json", b"[1]", "row 1: int instead of an object"),
        ("text.csv", b"key,cost\na,ten\n", "line 2: cost is 'ten'"),
        ("none.csv", b"key,cost\na,\n", "line 2: cost is None"),
        ("ragged.csv", b"key,cost\na,1,2\n", "line 2: not as many fields as the first line names"),
        ("twice.csv", b"key,cost,cost\na,1,2\n", "line 1: names 'cost' twice"),
        ("key.csv", b"key,cost\n,1\n", "line 2: key is ''"),
        ("key.jsonl", b'{"key": null, "cost": 1}', "line 1: key is None; it is a text that is not empty"),
        ("key1.jsonl", b'{"key": [1], "cost": 1}', r"line 1: key is \[1\]"),
        ("key2.jsonl", b'{"key": "", "cost": 1}', "line 1: key is ''"),
        ("key3.jsonl", b'{"key": true, "cost": 1}', "line 1: key is True"),
        ("key4.jsonl", b'{"key": 1.5, "cost": 1}', "line 1: key is 1.5"),
        ("latin.jsonl", b"\xe9", "not UTF-8 text"),
        ("cut.jsonl.gz", gzip.compress(b"[]" * 99, mtime=0)[:-9], "cannot read .*cut.jsonl.gz"),
        ("no.parquet", b"x", "as Parquet"),
    ],
)
def test_files_that_hold_no_items(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInput, match=message):
        from_file(str(tmp_path / name))


def test_what_never_ends_is_not_read(monkeypatch, tmp_path):
    if Path("/dev/zero").exists():
        with pytest.raises(InvalidInput, match="neither a regular file nor a pipe"):
            from_file("/dev/zero")
    monkeypatch.setattr(rows, "LONGEST", 40)
    monkeypatch.setattr(rows, "LARGEST", 40)
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n" + "x" * 100))
    with pytest.raises(InvalidInput, match="standard input, line 2: longer than 40 characters"):
        from_file("-")
    for name in ("a.jsonl", "a.csv", "a.json"):
        (tmp_path / name).write_text("x" * 100)
        with pytest.raises(InvalidInput, match="longer than 40 characters"):
            from_file(str(tmp_path / name))
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InvalidInput, match="standard input is closed"):
        from_file("-")
