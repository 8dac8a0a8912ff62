"""The benchmarks as tasks of the real inspect_ai, and evals on a budget: ``make test-frameworks``."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from helpers.clients import environment
from helpers.frameworks import ENVIRONMENTS, PROGRAMS, ROOT

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(900)]


def printed(program, folder):
    """What a program of inspect_ai prints last, as JSON."""
    python = environment(PROGRAMS / "inspect-ai" / "requirements.txt", ENVIRONMENTS / "inspect-ai")
    done = subprocess.run(
        [str(python), str(PROGRAMS / "inspect-ai" / program)], capture_output=True, text=True, cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_hook_covers_every_model_of_an_eval_and_ends_samples_that_do_not_fit(tmp_path):
    found = printed("covered.py", tmp_path)
    assert found["plain"] == {"spent": 2 * 2 * 30, "held": 0, "limited": [], "samples": 2}  # solver and grader
    assert found["cap"] == 100
    assert found["own"] == found["plain"]  # a model that meters itself is not charged twice
    short = found["short"]
    assert 0 < len(short["limited"]) < short["samples"]
    assert {*short["limited"]} == {"custom"}
    assert short["held"] == 0
    assert 30 <= short["spent"] <= 300
    assert short["spent"] % 30 == 0
    assert found["failed"]["held"] == 0
    assert found["failed"]["spent"] > 100 + 30  # what was reserved for the call that failed, and the grader's
    # inspect logs what a hook raises and goes on, so that a call that nothing bounds would be made and not charged
    endless = {"spent": 0, "held": 0, "limited": ["custom"] * 2, "samples": 2, "asked": 0}
    assert found["endless"] == endless
    assert "another budget covers" in found["refused"]
    assert "'50k' is no budget; give AgentBudget.parse" in found["none"]


def test_tasks_of_inspect_score_a_scripted_model(tmp_path):
    found = printed("tasks.py", tmp_path)
    # two of nine prompts have an e in their first three letters, and are cut at 50 tokens; seven are answered by one
    assert found["overflow"]["mean"] == pytest.approx((2 * 50 + 7) / 9)
    assert found["overflow"]["saturated"] == pytest.approx(2 / 9)
    assert found["schedule"]["accuracy"] == 0.75
    assert found["vending"]["mean"] == 500 - 7 * 2
