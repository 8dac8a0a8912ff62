"""The prompt says a mode of effort: low, medium or high (ThinkDial, arXiv 2508.18773)."""

from __future__ import annotations

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.words import filled
from budgeteer.models.chat import EFFORTS
from budgeteer.rl.recipe import Variant, Variants, View


def effort_modes(text: str = "{effort}: ", behind: bool = False, alone: float = 0.0) -> Variant:
    """Draw one of the modes low, medium and high for each prompt, say it, and give its share of the usual thinking (a
    quarter, a half, all) as the column ``effort``. All rows of a prompt's round share it.

    Helps with the reward ``thinkdial``, which compares the lengths of one mode with each other. A model that is trained
    so is asked with the same text: ``think:effort=low,said="{effort}: "``.

    Args:
        text: with ``{effort}`` where the word stands, such as "Reasoning effort: {effort}. "; before the prompt, or
            ``behind`` it.
        alone: share of the run, at its beginning, in which every prompt says high, in [0, 1). The paper has 95 of 135
            steps, so that the mode high learns to be right before the others learn to be short.

    Raises:
        InvalidInput: a text without ``{effort}``, or another share.
    """
    filled(text, effort="low")
    if not 0 <= alone < 1:
        raise InvalidInput(f"effort_modes(alone={alone}); give a share of the run, 0 or more and less than 1")
    modes = tuple(EFFORTS.items())
    high = max(range(len(modes)), key=lambda i: modes[i][1])

    def vary(state: object, view: View, rng: np.random.Generator) -> Variants:
        of_prompts = rng.integers(len(modes), size=len(view.items))
        if view.spent < alone:
            of_prompts[:] = high
        drawn = np.repeat(of_prompts, view.plan.units).tolist()
        said = tuple(filled(text, effort=modes[mode][0]) for mode in drawn)
        columns = {"effort": np.array([modes[mode][1] for mode in drawn], np.float64)}
        return Variants(suffix=said, columns=columns) if behind else Variants(prefix=said, columns=columns)

    return Variant(vary, gives=("effort",))
