"""The Claude Agent SDK, whose command runs by itself, behind the gateway: ``make test-frameworks``."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from helpers.claude import MODEL, Claude
from helpers.clients import Bench, environment
from helpers.frameworks import ENVIRONMENTS, PROGRAMS, ROOT

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(300)]
FOLDER = PROGRAMS / "claude-agent-sdk"
LIMIT = 12_000


def said(arguments: list[str], home: Path) -> str:
    """What a program prints in the environment of the SDK: a file and its arguments, or Python itself."""
    python = environment(FOLDER / "requirements.txt", ENVIRONMENTS / "claude-agent-sdk")
    command = arguments if len(arguments) > 1 else ["-c", *arguments]
    done = subprocess.run(
        [str(python), *command], env={"PATH": os.environ["PATH"], "HOME": str(home)}, cwd=home, capture_output=True,
        text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def ran(bench: Bench, question: str, key: str, home: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(said([str(FOLDER / "more.py"), question, bench.root, key, MODEL], home))
    return found


def test_it_stays_within_the_budget_of_its_key_and_says_what_it_may_spend(tmp_path):
    with Bench(Claude(), MODEL) as bench:
        found = ran(bench, "Say hello.", bench.key("calm", LIMIT), tmp_path)
        assert (found["text"], found["error"], found["ran"]) == ("Done with 0 findings.", False, 0)
        found = ran(bench, "do: search", bench.key("busy", LIMIT), tmp_path)
        calm, busy = bench.counts("calm"), bench.counts("busy")
        told = [body["output_config"]["task_budget"] for body in bench.upstream.bodies]
    assert found["ran"] > 1
    assert found["error"]
    assert f"tokens left of {LIMIT:,}" in found["text"]
    assert busy.refused >= 1
    assert LIMIT / 4 < busy.charged <= LIMIT
    assert calm.charged + busy.charged == busy.billed
    assert {one["total"] for one in told} == {20_000}


def test_the_snippet_of_the_documentation_runs(tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/agents.md").read_text(), re.MULTILINE | re.DOTALL)
    (own,) = [block for block in blocks if "claude_agent_sdk" in block]
    with Bench(Claude(), MODEL) as bench:
        own = own.replace("http://127.0.0.1:8400", bench.root).replace("bk-...", bench.key("page", 1_000_000))
        own = own.replace("ClaudeAgentOptions(\n", f"ClaudeAgentOptions(\n    model={MODEL!r},\n")
        assert "Done with 0 findings." in said([own], tmp_path)
        assert bench.counts("page").charged == bench.upstream.billed > 0
