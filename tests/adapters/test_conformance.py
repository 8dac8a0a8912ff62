"""Every scenario through every adapter: charged is never below billed, and equal where the provider says its usage."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
for name in ("openai", "pydantic_ai", "agents", "aiohttp"):
    pytest.importorskip(name)

import conformance  # noqa: E402

STORED = json.loads((ROOT / "benchmarks" / "results" / "conformance.json").read_text())["cells"]


@pytest.mark.parametrize("scenario", conformance.SCENARIOS, ids=lambda one: one.name)
@pytest.mark.parametrize("adapter", list(conformance.ADAPTERS))
def test_charged_is_what_was_billed_or_more(tmp_path, adapter, scenario):
    found = asyncio.run(conformance.cell(adapter, scenario, tmp_path))
    if "why" in found:
        return
    assert found["held"] == 0
    assert found["charged"] >= found["billed"]
    if scenario.equal:
        assert found["charged"] == found["billed"]
    assert found.get("held all the while", True)


def test_the_page_is_what_was_measured():
    assert (ROOT / "docs" / "conformance.md").read_text() == conformance.page(STORED)
    names = {(one["adapter"], one["scenario"]) for one in STORED}
    assert names == {(a, s.name) for a in conformance.ADAPTERS for s in conformance.SCENARIOS}
    assert len(conformance.SCENARIOS) == 17
    ran = [one for one in STORED if "why" not in one]
    assert all(one["charged"] >= one["billed"] > 0 == one["held"] for one in ran)
    assert all(one["charged"] == one["billed"] for one in ran if one["equal"])
