"""The prompt says a mode of effort: low, medium or high (ThinkDial, arXiv 2508.18773)."""

from __future__ import annotations

import numpy as np

from budgeteer.core.words import filled
from budgeteer.models.chat import EFFORTS
from budgeteer.rl.recipe import Variant, Variants, View


def effort_modes(text: str = "{effort}: ", behind: bool = False) -> Variant:
    """Draw one of the modes low, medium and high for each prompt, say it, and give its share of the usual thinking (a
    quarter, a half, all) as the column ``effort``. All rows of a prompt's round share it.

    Helps with the reward ``thinkdial``, which compares the lengths of one mode with each other. A model that is trained
    so is asked with the same text: ``think:effort=low,said="{effort}: "``.

    Args:
        text: with ``{effort}`` where the word stands, such as "Reasoning effort: {effort}. "; before the prompt, or
            ``behind`` it.

    Raises:
        InvalidInput: a text without ``{effort}``.
    """
    filled(text, effort="low")
    modes = tuple(EFFORTS.items())

    def vary(state: object, view: View, rng: np.random.Generator) -> Variants:
        drawn = np.repeat(rng.integers(len(modes), size=len(view.items)), view.plan.units).tolist()
        said = tuple(filled(text, effort=modes[mode][0]) for mode in drawn)
        columns = {"effort": np.array([modes[mode][1] for mode in drawn], np.float64)}
        return Variants(suffix=said, columns=columns) if behind else Variants(prefix=said, columns=columns)

    return Variant(vary, gives=("effort",))
