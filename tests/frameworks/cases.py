"""What the programs ``more.py`` of frameworks share: cases of one framework alone, each with a budget of its own."""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
from collections.abc import Callable
from typing import Any

from scenarios import BOUNDS

from budgeteer.metering.agents import AgentBudget

ran: list[str] = []
"""Queries of the tool ``search``."""


def search(query: str) -> str:
    """Search for something.

    Args:
        query: what to search for.
    """
    ran.append(query)
    return f"Finding {len(ran)}: nothing yet."


def binary(query: str) -> bytes:
    """Search for something.

    Args:
        query: what to search for.
    """
    ran.append(query)
    return bytes(range(256)) * 2_000


binary.__name__ = "search"


def run(cases: dict[str, Callable[[AgentBudget], Any]], text: str = "12k, tool:search:3") -> None:
    """Do the case that is named, and write what came of it."""
    name = sys.argv[1]
    budget = AgentBudget.parse(text, bounds=BOUNDS, parts={"ask_child": "30%"} if name == "outlives" else None)
    said, error = "", ""
    out, sys.stdout = sys.stdout, sys.stderr  # some libraries print
    try:
        found = cases[name](budget)
        said = str(asyncio.run(found) if inspect.iscoroutine(found) else found)
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    book = budget.allowance._ledger.snapshot()[1].accounts["agent"].books["all"]
    row = {"said": said[:300], "error": error[:300], "ran": len(ran), "charged": book.spent, "held": book.held}
    out.write(json.dumps(row) + "\n")
