"""The benchmark scripts run and write what they promise; their numbers are not looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
def test_the_allocation_benchmark_runs_quickly(tmp_path):
    out = tmp_path / "allocate.json"
    command = [sys.executable, str(BENCHMARKS / "allocate.py"), "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    best = {}
    for row in [*found["menus"], *found["sacks"]]:
        if "error" in row:  # a peer that is not installed says so
            assert row["solver"] not in ("menu-knapsack", "menu-knapsack exact", "greedy-marginal", "bisection")
            continue
        assert row["seconds"] > 0
        best.setdefault((row["kind"], row["items"]), {})[row["solver"]] = row["value"]
    for values in best.values():
        assert max(values.values()) == pytest.approx(values["menu-knapsack exact"], rel=1e-9)
    assert [row["items"] for row in found["scaling"]] == [10] * 3 + [100] * 3


@pytest.mark.slow
def test_the_sampler_benchmark_runs_quickly(tmp_path):
    pytest.importorskip("transformers")
    out = tmp_path / "sampler.json"
    command = [sys.executable, str(BENCHMARKS / "sampler.py"), "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["quick"] is True
    assert {row["variant"] for row in found["generation"]} == {
        "budgeteer", "budgeteer, torch only", "transformers generate",
    }  # fmt: skip
    for row in found["generation"]:
        assert row["tokens_per_second"] > 0
        assert 0 < row["mean_length"] <= 16
        assert 0 < row["share_of_peak"] < 1
        assert row["budgeteer_is_times_faster"]["low"] <= row["budgeteer_is_times_faster"]["high"]
        assert row["variant"] in done.stdout
    assert found["machine"]["cores"] >= 1
    assert {"torch", "transformers"} <= found["versions"].keys()
    for entry in found["training"]:
        assert "error" not in entry, entry["error"]
        assert entry["trl_seconds"] > 0
        assert 0 < entry["trl_mean_length"] <= 16


@pytest.mark.slow
def test_the_ledger_benchmark_runs_quickly(tmp_path, redis_process):
    pytest.importorskip("limits")
    out = tmp_path / "ledger.json"
    command = [sys.executable, str(BENCHMARKS / "ledger.py"), "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert {"memory, 1 scope", "sqlite, 4 scopes", "redis, 1 scope", "limits redis hit"} <= found["one_caller"].keys()
    for row in found["one_caller"].values():
        assert 0 < row["per_second"] <= row["best_per_second"]
    assert all(row["pairs"] == 640 for row in found["many_callers"].values())
    assert found["verify"]["entries"] == 2004


@pytest.mark.slow
def test_the_gateway_benchmark_runs_quickly(tmp_path, redis_process):
    out = tmp_path / "gateway.json"
    command = [sys.executable, str(BENCHMARKS / "gateway.py"), "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert "litellm skipped" in done.stdout
    found = json.loads(out.read_text())
    assert found["variants"].keys() == {"direct", "memory", "sqlite", "redis"}
    for name, row in found["variants"].items():
        for load in ("1 connection", "16 connections", "10/s", "200/s", "8 streams"):
            assert row[load]["requests"] > 0
            assert row[load]["p50_ms"]["median"] <= row[load]["p99_ms"]["median"]
        assert row["8 streams"]["tokens_per_second"]["median"] > 0
        if name != "direct":
            assert row["16 connections"]["processor_ms_per_request"]["median"] > 0
            assert row["resident_mb"]["after the load"] > 0
            assert 0 < row["budget of 10 answers"]["200"] <= 10
            assert row["budget of 10 answers"].keys() == {"200", "402"}
