"""The prompt says how long to think, drawn at random for each (L1, arXiv 2503.04697)."""

from __future__ import annotations

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.words import filled
from budgeteer.rl.recipe import Variant, Variants, View


def drawn_budget(low: float = 0.1, high: float = 1.0, text: str = "{tokens}: ", behind: bool = False) -> Variant:
    """Draw a number of tokens for each prompt, evenly between two shares of the cap, say it, and give it as the column
    ``target``. All rows of a prompt's round share it.

    Helps a model to learn what the numbers mean, with the reward ``l1``; the paper draws 100 to 4,000 tokens.

    Args:
        low, high: shares of the cap of a rollout, 0 < low <= high <= 1.
        text: with ``{tokens}`` where the number stands; the paper has "Think for {tokens} tokens." behind the prompt.
            Before the prompt, or ``behind`` it. The embedded reasoner knows no English: the bare number of the default
            disturbs it least.

    Raises:
        InvalidInput: other shares, or a text without ``{tokens}``.
    """
    if not 0 < low <= high <= 1:
        raise InvalidInput(f"drawn_budget(low={low}, high={high}); give shares of the cap, 0 < low <= high <= 1")
    filled(text, tokens=1)

    def vary(state: object, view: View, rng: np.random.Generator) -> Variants:
        drawn = np.maximum(1, np.round(rng.uniform(low, high, len(view.items)) * view.max_tokens))
        target = np.repeat(drawn, view.plan.units)
        said = tuple(filled(text, tokens=int(tokens)) for tokens in target.tolist())
        columns = {"target": target}
        return Variants(suffix=said, columns=columns) if behind else Variants(prefix=said, columns=columns)

    return Variant(vary, gives=("target",))
