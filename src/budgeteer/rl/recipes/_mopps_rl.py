"""MoPPS."""

from __future__ import annotations

from dataclasses import replace

from budgeteer.rl.recipe import Recipe
from budgeteer.rl.recipes._uniform_answer_stop import uniform_answer_stop
from budgeteer.rl.stream import mopps


def mopps_rl() -> Recipe:
    """A curriculum by Thompson sampling of each prompt's success rate, with GRPO that stops at the answer
    (arXiv 2507.04632)."""
    return replace(uniform_answer_stop(), name="mopps", stream=mopps())
