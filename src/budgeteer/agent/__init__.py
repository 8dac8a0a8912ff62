"""Agents that plan with their budget in view: a loop of model and tools, and one strategy a file."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.agent._bats import bats
    from budgeteer.agent._bavt import bavt
    from budgeteer.agent._code_agents import code_agents
    from budgeteer.agent._composer import composer
    from budgeteer.agent._composer_many import composer_many
    from budgeteer.agent._interview import interview
    from budgeteer.agent._one_prompt import one_prompt
    from budgeteer.agent._react import react
    from budgeteer.agent._routed import routed
    from budgeteer.agent._tree_planner import tree_planner
    from budgeteer.agent._turn_control import turn_control
    from budgeteer.agent._voi import voi

__all__ = [
    "bats",
    "bavt",
    "code_agents",
    "composer",
    "composer_many",
    "interview",
    "one_prompt",
    "react",
    "routed",
    "tree_planner",
    "turn_control",
    "voi",
]

__getattr__ = lazy(
    __name__,
    {
        "bats": "_bats",
        "bavt": "_bavt",
        "code_agents": "_code_agents",
        "composer": "_composer",
        "composer_many": "_composer_many",
        "interview": "_interview",
        "one_prompt": "_one_prompt",
        "react": "_react",
        "routed": "_routed",
        "tree_planner": "_tree_planner",
        "turn_control": "_turn_control",
        "voi": "_voi",
    },
)
