"""Agents of real frameworks within a budget, each framework in a pinned environment: ``make test-frameworks``."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from helpers.brain import Brain
from helpers.frameworks import FRAMEWORKS, ROOT, SCENARIOS, Framework, Program, arms_of, fault
from helpers.upstream import Upstream

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def programs():
    """A framework's program; that of the framework before is ended first, since the machine may be small."""
    running: dict[str, Program] = {}

    def of(framework: Framework) -> Program:
        if framework.name not in running:
            for name in list(running):
                running.pop(name).__exit__()
            running[framework.name] = Program(framework).__enter__()
        return running[framework.name]

    yield of
    for program in running.values():
        program.__exit__()


CASES = [(one, name, arm) for one in FRAMEWORKS for name in SCENARIOS for arm in arms_of(name, one) if arm != "own"]

ELSEWHERE = ("mcp", "claude-agent-sdk")
"""Whose snippets are run by ``tests/docs/test_snippets.py`` and by ``test_claude_agent_sdk.py``."""


@pytest.mark.parametrize(
    ("framework", "scenario", "arm"),
    CASES,
    ids=[f"{one.name}-{scenario}-{arm}" for one, scenario, arm in CASES],
)
def test_an_agent_stays_within_its_budget_and_does_some_work(programs, framework, scenario, arm):
    assert fault(programs(framework).do(scenario, arm)) == ""


@pytest.mark.parametrize(
    "framework", [one for one in FRAMEWORKS if one.name not in ELSEWHERE], ids=lambda one: one.name
)
def test_the_snippet_of_the_documentation_runs(framework):
    """The first of the page, which makes the budget, and that of the framework."""
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/agents.md").read_text(), re.MULTILINE | re.DOTALL)
    imports = {  # LangGraph has LangChain's adapter
        "langchain": r"langchain import BudgetMiddleware$",
        "langgraph": r"langchain import BudgetMiddleware, asking$",
    }.get(framework.name, framework.name.replace("-", "_") + r"(_run)? import")
    (own,) = [block for block in blocks if re.search(rf"budgeteer\.adapters\.{imports}", block, re.MULTILINE)]
    with Upstream(Brain()) as provider:
        variables = {
            **os.environ, "PYTHONPATH": str(ROOT / "src"), "OPENAI_BASE_URL": provider.url, "OPENAI_API_KEY": "x",
            "OPENAI_API_BASE": provider.url,
        }  # fmt: skip
        done = subprocess.run(
            [str(framework.python), "-c", f"{blocks[0]}\n{own}"], env=variables, capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        assert "Done with 0 findings." in done.stdout
        assert len(provider.requests) == 1
