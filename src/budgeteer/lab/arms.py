"""The arms of a comparison, and which of them are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from budgeteer.core.budget import Budget
from budgeteer.core.errors import InvalidInput
from budgeteer.lab.report import CONTROL
from budgeteer.lab.run import REFERENCE
from budgeteer.rl import recipes

CONTROLS = (CONTROL, "uniform-stop", "grpo")
"""Arms at the same budget that every arm is compared with: GRPO that ends a rollout at its answer, the strongest plain
baseline, then DUET's stopping rule with uniform groups, and plain GRPO."""
FULL = (REFERENCE, f"{CONTROL}@100%")
"""Arms at the full budget that every arm is compared with, where they are there: what the percentages are of, and the
strongest plain baseline."""


@dataclass(frozen=True, slots=True)
class Arm:
    """A recipe with its budget.

    >>> Arm.parse("duet@50%")
    Arm(recipe='duet', budget='50%')
    """

    recipe: str
    budget: str

    @classmethod
    def parse(cls, text: str) -> Arm:
        """Read ``recipe@budget``; without a budget, 100 %, and 0 tokens for ``untrained``.

        Raises:
            UnknownName, InvalidInput: no such recipe; not a budget in tokens.
        """
        recipe, _, budget = text.partition("@")
        recipes.get(recipe)
        if recipe == recipes.UNTRAINED and budget not in ("", "0"):
            raise InvalidInput(f"{recipe} takes no training step and has no budget; write {recipe}")
        parsed = Budget.parse(budget or ("0" if recipe == recipes.UNTRAINED else "100%"))
        if parsed.kind not in ("all", "output"):
            raise InvalidInput(f"budget {budget!r} of {recipe} is in {parsed.kind}; training budgets are in tokens")
        if parsed.window is not None:
            raise InvalidInput(f"budget {budget!r} of {recipe} has a window; training budgets are of a run")
        return cls(recipe, str(parsed))

    @property
    def label(self) -> str:
        """``recipe@budget``, as in results.json."""
        return f"{self.recipe}@{self.budget}"


def with_references(arms: Sequence[Arm]) -> list[Arm]:
    """The arms, each once. If a budget is in percent, two arms are put before them: ``grpo@100%``, whose tokens are the
    100 %, and ``untrained``, which shows how much there is to gain."""
    all_arms = list(dict.fromkeys(arms))
    if any(Budget.parse(arm.budget).fraction for arm in all_arms):
        all_arms = list(dict.fromkeys([Arm.parse(REFERENCE), Arm.parse(recipes.UNTRAINED), *all_arms]))
    return all_arms


def pairs(arms: Sequence[Arm]) -> list[tuple[str, str]]:
    """Which differences are shown: every arm against the full arms, and against the controls at its own budget."""
    labels = [arm.label for arm in arms]
    shown = [(label, full) for full in FULL for label in labels if label != full and full in labels]
    for arm in arms:
        for control in CONTROLS:
            other = f"{control}@{arm.budget}"
            if other in labels and other != arm.label and (arm.label, other) not in shown:
                shown.append((arm.label, other))
    return shown
