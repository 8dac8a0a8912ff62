"""C3PO++ of Ring-1T."""

from __future__ import annotations

from dataclasses import replace

from budgeteer.rl.carry import partial_rollouts
from budgeteer.rl.ratio import Loss, icepop
from budgeteer.rl.recipe import Recipe
from budgeteer.rl.recipes._grpo import grpo


def c3po() -> Recipe:
    """GRPO whose rollouts go on in the next step when the budget of a step ends, or its share of the run's; all of
    their tokens are learnt from, but those from which the policy has moved away (arXiv 2510.18855)."""
    return replace(grpo(), name="c3po", carry=partial_rollouts(trained=True), loss=Loss(icepop()))
