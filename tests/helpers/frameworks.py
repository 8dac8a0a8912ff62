"""Agent frameworks on a budget: their environments, the programs in ``tests/frameworks``, what each scenario cost.

A program reads a scenario and an arm, lets an agent of its framework do it before the scripted model of
:mod:`helpers.brain`, and writes what came of it. The arm ``budget`` has a budget whose requests are bounded by bytes,
``counted`` one that knows the tokenizer, and ``own`` the framework's own limit.
"""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.brain import MODEL, Brain
from helpers.claude import MODEL as CLAUDE
from helpers.claude import Claude
from helpers.clients import Bench, environment, lines_of
from helpers.upstream import Upstream

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / "tests" / "frameworks"
ENVIRONMENTS = ROOT / ".venv-frameworks"
PATIENCE = 180.0
"""Seconds that a scenario may take, imports included."""
TOKENS = 12_000
"""The budget of a run, unless its framework's prompts are larger."""
UNLIMITED = 10**9
"""The budget of a key in the arm ``own``."""
SEARCHES = 20
"""Calls of the tool ``search`` that a run is given."""
SCENARIOS = {
    "loop": "searches for as long as it may",
    "parallel tools": "six searches at once",
    "stream": "the loop, streamed",
    "retries": "each request fails once after it was generated; whoever asked tries again",
    "fan-out": "three sub-agents at once, each with a part, in a loop",
    "summariser": "a tool that asks a model itself",
    "growing context": "each search returns 1.2 kB",
    "aborted child": "a sub-agent whose tool raises",
    "megabytes": "a search returns 3 MB",
    "tool that raises": "each search raises",
    "tool that hangs": "each search hangs; given up after 0.2 s",
    "recursion": "an agent that asks itself",
}


@dataclass(frozen=True)
class Framework:
    """A framework.

    Attributes:
        name: of its folder in ``tests/frameworks``; without a ``requirements.txt`` there it runs in this environment.
        package: whose version is told.
        title: for the documentation.
        limit: its own limit that is measured beside the budget.
        tokens: the budget of a run.
        gateway: whether a gateway keeps it, which knows requests of a key and neither agents nor calls of tools.
    """

    name: str
    package: str
    title: str
    limit: str
    tokens: int = TOKENS
    gateway: bool = False

    @property
    def python(self) -> Path:
        """The interpreter of its environment, which is made where it is missing."""
        pins = PROGRAMS / self.name / "requirements.txt"
        return environment(pins, ENVIRONMENTS / self.name) if pins.exists() else Path(sys.executable)

    @property
    def version(self) -> str:
        """The version of its package that is pinned, or installed."""
        pins = PROGRAMS / self.name / "requirements.txt"
        if not pins.exists():
            from importlib.metadata import version

            return version(self.package)
        pinned = re.search(rf"^{self.package}==([^\s;]+)", pins.read_text(), re.MULTILINE)
        assert pinned, f"{self.name}: requirements.txt pins no {self.package}"
        return pinned[1]


FRAMEWORKS = (
    Framework("langchain", "langchain", "LangChain", "`ModelCallLimitMiddleware(run_limit=6)`"),
    Framework("langgraph", "langgraph", "LangGraph", "`recursion_limit=12`"),
    Framework("openai-agents", "openai-agents", "OpenAI Agents", "`max_turns=6`"),
    Framework("pydantic-ai", "pydantic-ai-slim", "pydantic-ai", "`UsageLimits(total_tokens_limit=12_000)`"),
    Framework("smolagents", "smolagents", "smolagents", "`max_steps=6`"),
    Framework("llamaindex", "llama-index-core", "LlamaIndex", "`max_iterations=6`"),
    Framework("autogen", "autogen-agentchat", "AutoGen", "`max_tool_iterations=6`"),
    Framework("inspect-ai", "inspect-ai", "inspect_ai", "`token_limit(12_000)`"),
    Framework("dspy", "dspy", "DSPy", "`max_iters=6`"),
    Framework("crewai", "crewai", "CrewAI", "`max_iter=6`"),
    Framework("ag2", "ag2", "AG2", "none: `TokenMonitor` warns"),
    Framework("mcp", "mcp", "own loop, tools by MCP", "none"),
    Framework(
        "claude-agent-sdk",
        "claude-agent-sdk",
        "Claude Agent SDK",
        "`max_budget_usd=0.30`",
        tokens=100_000,
        gateway=True,
    ),
)
BY_NAME = {framework.name: framework for framework in FRAMEWORKS}


class Program:
    """A framework's program in its environment, before a scripted model; use as a context manager."""

    def __init__(self, framework: Framework) -> None:
        self.framework = framework
        self.brain: Brain | Claude = Claude() if framework.gateway else Brain()
        self._bench = Bench(self.brain, CLAUDE, "[policies.last-answer]") if framework.gateway else None

    def __enter__(self) -> Program:
        folder, stack = PROGRAMS / self.framework.name, ExitStack()
        self._stack = stack
        if self._bench is None:
            self.upstream = stack.enter_context(Upstream(self.brain))
            url, model = self.upstream.url, MODEL
        else:
            stack.enter_context(self._bench)
            self.upstream, url, model = self._bench.upstream, self._bench.root, CLAUDE
        home = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        variables = {
            "PATH": os.environ["PATH"], "HOME": home, "PYTHONPATH": f"{ROOT / 'src'}:{PROGRAMS}",
            "OMP_NUM_THREADS": "1", "BASE_URL": url, "MODEL": model, "OPENAI_API_KEY": "x",
            "OTEL_SDK_DISABLED": "true", "CREWAI_DISABLE_TELEMETRY": "true",
        }  # fmt: skip
        self.errors = stack.enter_context(tempfile.TemporaryFile("w+"))
        self.process = subprocess.Popen(
            [str(self.framework.python), str(folder / "run.py")], env=variables, cwd=home,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True,
        )  # fmt: skip
        self._lines = lines_of(self.process)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._stack.close()

    def do(self, scenario: str, arm: str) -> dict[str, Any]:
        """What came of a scenario: what was billed, how often tools ran, the answer or the error, what was charged."""
        self.brain.fails = scenario == "retries"
        self.brain.failed.clear()
        billed, asked = self.upstream.billed, self.brain.calls
        assert self.process.stdin
        given = {"scenario": scenario, "arm": arm}
        path = f"{scenario}-{arm}".replace(" ", "-")
        if self._bench is not None:
            limit = UNLIMITED if arm == "own" else self.framework.tokens
            given["key"] = self._bench.key(path, limit)
        self.process.stdin.write(json.dumps(given) + "\n")
        self.process.stdin.flush()
        try:
            line = self._lines.get(timeout=PATIENCE)
        except queue.Empty:
            line = ""
        if not line:
            self.errors.seek(0)
            raise RuntimeError(f"{self.framework.name}, {scenario}, {arm}: no answer; {self.errors.read()[-2000:]}")
        found: dict[str, Any] = json.loads(line)
        if self._bench is not None and arm != "own":
            charged = self._bench.counts(path).charged  # once nothing is held
            found |= {"charged": charged, "held": 0, "left": self.framework.tokens - charged}
        row = {"framework": self.framework.name, "scenario": scenario, "arm": arm}
        return {**row, "billed": self.upstream.billed - billed, "calls": self.brain.calls - asked, **found}


def arms_of(scenario: str, framework: Framework | None = None) -> tuple[str, ...]:
    """The arms of a scenario: a tool that hangs has no end of its own, a tokenizer matters to a few only, and the
    gateway here has none."""
    known = scenario in ("loop", "parallel tools", "growing context") and not (framework and framework.gateway)
    return ("budget", *(("counted",) if known else ()), *(() if scenario == "tool that hangs" else ("own",)))


def fault(row: dict[str, Any]) -> str:
    """What is wrong with a row of an arm with a budget; "" = nothing."""
    if "failed" in row:
        return str(row["failed"])
    framework = BY_NAME[row["framework"]]
    if row["billed"] > framework.tokens:
        return f"{row['billed']} tokens were billed, {framework.tokens} were given"
    if row["charged"] < row["billed"] or row["charged"] > framework.tokens:
        return f"{row['charged']} tokens were charged, {row['billed']} billed"
    if row["held"]:
        return f"{row['held']} tokens are still held"
    counted = not framework.gateway  # which knows no tools
    if counted and row["scenario"] in ("loop", "parallel tools", "stream") and row["ran"] > SEARCHES:
        return f"{row['ran']} searches, {SEARCHES} were given"
    if not row["ran"] and row["scenario"] != "recursion":  # where a part that is not to be had is refused at once
        return "no tool ran"
    may_raise = row["scenario"] in ("aborted child", "tool that raises")
    # sub-agents spend from the key of their boss, who then finds nothing left for an answer
    may_raise |= framework.gateway and row["scenario"] in ("fan-out", "recursion")
    if not row["text"] and not (may_raise and row["error"]):
        return f"no answer; {row['error']}"
    return ""
