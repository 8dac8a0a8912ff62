"""The benchmarks as tasks of the real inspect_ai, in its pinned environment: ``make test-frameworks``."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from helpers.clients import environment
from helpers.frameworks import ENVIRONMENTS, PROGRAMS, ROOT

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(900)]


def test_tasks_of_inspect_score_a_scripted_model(tmp_path):
    python = environment(PROGRAMS / "inspect-ai" / "requirements.txt", ENVIRONMENTS / "inspect-ai")
    done = subprocess.run(
        [str(python), str(PROGRAMS / "inspect-ai" / "tasks.py")], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    # two of nine prompts have an e in their first three letters, and are cut at 50 tokens; seven are answered by one
    assert found["overflow"]["mean"] == pytest.approx((2 * 50 + 7) / 9)
    assert found["overflow"]["saturated"] == pytest.approx(2 / 9)
    assert found["schedule"]["accuracy"] == 0.75
    assert found["vending"]["mean"] == 500 - 7 * 2
