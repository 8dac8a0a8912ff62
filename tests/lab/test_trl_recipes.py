"""The benchmark of recipes in TRL runs, and goes on where it was."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import needs

pytest.importorskip("trl")
pytest.importorskip("peft")
needs.reasoning_gym()
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_the_benchmark_of_recipes_in_trl_runs_quickly(tmp_path) -> None:
    out = tmp_path / "rows.json"
    command = [sys.executable, str(BENCHMARKS / "trl_recipes.py"), "--quick", "--out", str(out)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    first, half = json.loads(out.read_text())["rows"]
    assert (first["arm"], half["arm"]) == ("grpo@100%", "uniform-answer-stop@50%")
    assert first["steps"] == 2
    assert 0 < half["used"] <= first["used"] // 2
    assert "| `grpo` | 100 % | 1 |" in said
    again = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert again.splitlines() == said.splitlines()[-5:]  # both rows are there: nothing is run
    content = json.loads(out.read_text())
    out.write_text(json.dumps({**content, "settings": {**content["settings"], "steps": 3}}))
    other = subprocess.run(command, capture_output=True, text=True)
    assert other.returncode == 2
    assert "give another --out" in other.stderr


def test_the_page_has_the_table_of_the_file(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import trl_recipes

    page, rows = trl_recipes.PAGE.read_text(), json.loads(trl_recipes.OUT.read_text())["rows"]
    assert trl_recipes.between(page, trl_recipes.summary(rows), *trl_recipes.MARKS) == page
