"""Agent frameworks on a budget: their environments, the programs in ``tests/frameworks``, and what each scenario cost."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / "tests" / "frameworks"
ENVIRONMENTS = ROOT / ".venv-frameworks"
PATIENCE = 120.0
"""Seconds that a scenario may take, imports included."""


@dataclass(frozen=True)
class Framework:
    """A framework.

    Attributes:
        name: of its folder in ``tests/frameworks``.
        package: whose version is told.
        title: for the documentation.
        limit: its own limit that is measured beside the budget.
    """

    name: str
    package: str
    title: str
    limit: str


FRAMEWORKS = (Framework("langchain", "langchain", "LangChain", "`ModelCallLimitMiddleware(run_limit=6)`"),)
