"""Policies that save tokens, one a file; each shows in the header ``x-budgeteer-policy`` when it acts."""

from __future__ import annotations

import importlib
from typing import Any

from budgeteer.gateway.toml import Table

POLICIES: dict[str, str] = {}
"""Name -> module with ``configure(table) -> policy``."""


def policy(name: str, table: Table) -> Any:
    """The policy of a name, with what its table says."""
    return importlib.import_module(POLICIES[name]).configure(table)
