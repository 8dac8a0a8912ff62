"""Which model answers a request: routes that learn from tables of scores and costs."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.route._bandit import bandit
    from budgeteer.route._boundary import boundary
    from budgeteer.route._cascade import cascade
    from budgeteer.route._classifier import classifier
    from budgeteer.route._pareto_bandit import pareto_bandit
    from budgeteer.route._similarity import similarity
    from budgeteer.route.saved import FORMAT, PROMPT, Router, fitted, load, reads_prompts_only, save

__all__ = [
    "FORMAT",
    "PROMPT",
    "Router",
    "bandit",
    "boundary",
    "cascade",
    "classifier",
    "fitted",
    "load",
    "pareto_bandit",
    "reads_prompts_only",
    "save",
    "similarity",
]

__getattr__ = lazy(
    __name__,
    {
        "FORMAT": "saved",
        "PROMPT": "saved",
        "Router": "saved",
        "bandit": "_bandit",
        "boundary": "_boundary",
        "cascade": "_cascade",
        "classifier": "_classifier",
        "fitted": "saved",
        "load": "saved",
        "pareto_bandit": "_pareto_bandit",
        "reads_prompts_only": "saved",
        "save": "saved",
        "similarity": "_similarity",
    },
)
