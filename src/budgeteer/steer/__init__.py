"""Methods that end rows while they are decoded."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.steer._answered import answered
    from budgeteer.steer._budget_forcing import budget_forcing
    from budgeteer.steer._budget_guidance import budget_guidance
    from budgeteer.steer._diffadapt_probe import diffadapt_probe
    from budgeteer.steer._marker_gate import marker_gate
    from budgeteer.steer._mirostat import mirostat
    from budgeteer.steer._soft_landing import soft_landing
    from budgeteer.steer._switch_thinking import switch_thinking
    from budgeteer.steer._truncate import truncate
    from budgeteer.steer._two_budgets import two_budgets
    from budgeteer.steer._zip_rc import zip_rc

__all__ = [
    "answered",
    "budget_forcing",
    "budget_guidance",
    "diffadapt_probe",
    "marker_gate",
    "mirostat",
    "soft_landing",
    "switch_thinking",
    "truncate",
    "two_budgets",
    "zip_rc",
]

__getattr__ = lazy(
    __name__,
    {
        "answered": "_answered",
        "budget_forcing": "_budget_forcing",
        "budget_guidance": "_budget_guidance",
        "diffadapt_probe": "_diffadapt_probe",
        "marker_gate": "_marker_gate",
        "mirostat": "_mirostat",
        "soft_landing": "_soft_landing",
        "switch_thinking": "_switch_thinking",
        "truncate": "_truncate",
        "two_budgets": "_two_budgets",
        "zip_rc": "_zip_rc",
    },
)
