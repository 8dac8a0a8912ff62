"""What only one framework has, by its real code within a budget of 12,000 tokens and 3 searches."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from helpers.brain import MODEL, Brain
from helpers.frameworks import BY_NAME, PROGRAMS, ROOT, TOKENS
from helpers.upstream import Upstream

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(300)]
_DONE = "Done with"
SAID = {
    "dspy": {
        "parts": (_DONE, 3), "wrapped": (_DONE, 3), "binary": (_DONE, 3), "stream": (_DONE, 3),
        "cached": (_DONE, 0), "several": (_DONE, 0), "best of n": (_DONE, 0), "parallel": ("", 0), "elsewhere": ("", 1),
    },
    "crewai": {
        "crew": (_DONE, 3), "remembering": (_DONE, 3), "waiting": (_DONE, 3), "binary": (_DONE, 3),
        "parallel": (_DONE, 3), "again": (_DONE, 3),
    },
    "ag2": {
        "again": (_DONE, 3), "parallel": (_DONE, 3), "binary": (_DONE, 3), "stream": (_DONE, 3), "outlives": (_DONE, 0),
        "knowing": (_DONE, 3),
    },
    "llamaindex": {"again": (_DONE, 3), "shared": (_DONE, 3), "structured": (_DONE, 3), "early": (_DONE, 2),
                   "picture": (_DONE, 3), "small": ("a picture counts as 48,169 tokens", 1)},
    "inspect-ai": {"again": (_DONE, 3)},
}  # fmt: skip
"""What the run says, and how many searches ran."""
RAISES = {
    "dspy": {"refused": "CodeAct", "refused, too": "ReActV2", "advice": "advice"},
    "crewai": {"refused": "planning_llm", "guarded": "guardrail", "planned": "Error", "another": "another budget"},
    "ag2": {"refused": "sub-tasks"},
    "llamaindex": {"another": "another budget"},
    "inspect-ai": {"another": "another budget", "plain": "another budget", "tools": "another budget"},
}
"""What it raises: a case that is refused, or in which the scripted model does not give what the framework wants."""


def came(name: str, case: str) -> dict[str, object]:
    """What came of a case, and what was billed for it."""
    with Upstream(Brain()) as upstream:
        variables = {
            "PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "PYTHONPATH": f"{ROOT / 'src'}:{PROGRAMS}",
            "BASE_URL": upstream.url, "MODEL": MODEL, "OPENAI_API_KEY": "x", "OTEL_SDK_DISABLED": "true",
            "CREWAI_DISABLE_TELEMETRY": "true",
        }  # fmt: skip
        done = subprocess.run(
            [str(BY_NAME[name].python), str(PROGRAMS / name / "more.py"), case], env=variables, capture_output=True,
            text=True, timeout=250, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return {**json.loads(done.stdout.splitlines()[-1]), "billed": upstream.billed, "asked": len(upstream.requests)}


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, cases in SAID.items() for case in cases])
def test_all_that_is_billed_is_charged_and_a_run_ends_with_an_answer(name, case):
    found, (said, ran) = came(name, case), SAID[name][case]
    assert found["error"] == ""
    assert said in found["said"]
    assert found["ran"] == ran
    assert found["held"] == 0
    assert 0 < found["billed"] <= found["charged"] <= TOKENS
    if case == "cached":
        assert found["asked"] == 1


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, cases in RAISES.items() for case in cases])
def test_what_cannot_be_metered_is_refused_and_what_fails_is_charged(name, case):
    found = came(name, case)
    assert RAISES[name][case] in found["error"]
    assert found["billed"] <= found["charged"] <= TOKENS
    assert (found["asked"] == 0) == (RAISES[name][case] not in ("guardrail", "Error"))
    assert found["held"] == 0


def test_a_run_that_is_cancelled_holds_nothing_afterwards():
    found = came("ag2", "cancelled")
    assert found["held"] == 0
    assert 0 < found["billed"] <= found["charged"] < TOKENS / 2
