"""The table of docs/ragged.md: made of the stored file, and its rows of this package are what it computes now."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

pytest.importorskip("torch")
ROOT = Path(__file__).resolve().parents[2]
SCRIPT = runpy.run_path(str(ROOT / "benchmarks" / "ragged_peers.py"))
STORED = json.loads((ROOT / "benchmarks" / "results" / "ragged_peers.json").read_text("utf-8"))


def test_the_table_is_of_the_stored_file():
    begin, end = SCRIPT["MARKS"]
    text = (ROOT / "docs" / "ragged.md").read_text("utf-8")
    assert text.split(begin)[1].split(end)[0] == SCRIPT["table"](STORED)


def test_our_rows_are_of_today():
    assert SCRIPT["measured"](SCRIPT["ours"]()) == STORED["peers"]["budgeteer"]["advantages"]
    assert STORED["cases"] == {case: [list(row) for row in rows] for case, rows in SCRIPT["CASES"].items()}


def test_every_peer_is_there_with_its_version_or_commit():
    assert list(STORED["peers"]) == ["budgeteer", "TRL", "verl", *SCRIPT["CLONES"]]
    for name, clone in SCRIPT["CLONES"].items():
        assert STORED["peers"][name]["commit"] == clone.commit
    # what the page says of them
    of = {name: entry["advantages"] for name, entry in STORED["peers"].items()}
    assert [of["verl"][name]["one row, right"][4] for name in ("grpo", "rloo", "opo")] == [1, 1, 1]
    assert of["verl"]["grpo_passk"]["one row, right"].startswith("ValueError")
    assert of["verl"]["reinforce_plus_plus_baseline"]["all equal, others of two lengths"][4] < -0.2
    assert of["verl"]["opo"]["padding rows"][4:] == [None, None]
    assert of["AReaL"]["reward_norm (group, group)"]["one row, right"][4] > 9e4
    assert of["TRL"]["grpo (none)"]["two rows"].startswith("RuntimeError")
