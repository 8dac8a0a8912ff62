"""The prompt says what share of the usual thinking is allowed (Adaptive Effort Control, e1, arXiv 2510.27042)."""

from __future__ import annotations

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.words import filled
from budgeteer.rl.recipe import Variant, Variants, View


def effort(levels: int = 4, text: str = "{percent}%: ", behind: bool = False) -> Variant:
    """Draw an effort of 1/levels, 2/levels, ..., 1 for each prompt, say it there, and give it as the column ``effort``.

    All rows of a prompt's round share it, since the reward ``e1`` compares their lengths with each other. By which
    law the paper draws efforts could not be found in it: equal chances are this project's choice, and they mix prompts
    of effort 1 in, without which lengths fall at every step.

    Args:
        levels: 1 to 100, since efforts are said in whole percent.
        text: with ``{percent}`` where the number stands, such as "Reasoning effort: {percent} percent. "; before the
            prompt, or ``behind`` it. The embedded reasoner knows no English: the default disturbs it least.

    Raises:
        InvalidInput: another number of levels, or a text without ``{percent}``.
    """
    if not 1 <= levels <= 100:
        raise InvalidInput(f"effort(levels={levels}); give 1 to 100, since efforts are said in whole percent")
    filled(text, percent=1)

    def vary(state: object, view: View, rng: np.random.Generator) -> Variants:
        share = np.repeat((1 + rng.integers(levels, size=len(view.items))) / levels, view.plan.units)
        said = tuple(filled(text, percent=round(100 * value)) for value in share.tolist())
        columns = {"effort": share}
        return Variants(suffix=said, columns=columns) if behind else Variants(prefix=said, columns=columns)

    return Variant(vary, gives=("effort",))
