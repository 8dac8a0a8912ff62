"""Examples for supervised and preference training out of a model's own traces: one builder a file."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.tuning._adacot import adacot
    from budgeteer.tuning._adactrl import adactrl
    from budgeteer.tuning._adaptive_deep import adaptive_deep
    from budgeteer.tuning._adar1 import adar1
    from budgeteer.tuning._ares import ares
    from budgeteer.tuning._brief import brief
    from budgeteer.tuning._hunyuan_turbos import hunyuan_turbos
    from budgeteer.tuning._self_braking import self_braking
    from budgeteer.tuning._thinkdial import thinkdial
    from budgeteer.tuning.protocol import Builder, Built, as_strategy, refuse_example

__all__ = [
    "Builder",
    "Built",
    "adacot",
    "adactrl",
    "adaptive_deep",
    "adar1",
    "ares",
    "as_strategy",
    "brief",
    "hunyuan_turbos",
    "refuse_example",
    "self_braking",
    "thinkdial",
]

__getattr__ = lazy(
    __name__,
    {
        "Builder": "protocol",
        "Built": "protocol",
        "adacot": "_adacot",
        "adactrl": "_adactrl",
        "adaptive_deep": "_adaptive_deep",
        "adar1": "_adar1",
        "ares": "_ares",
        "as_strategy": "protocol",
        "brief": "_brief",
        "hunyuan_turbos": "_hunyuan_turbos",
        "refuse_example": "protocol",
        "self_braking": "_self_braking",
        "thinkdial": "_thinkdial",
    },
)
