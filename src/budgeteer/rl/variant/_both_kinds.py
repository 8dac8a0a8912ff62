"""Half of a prompt's rollouts are asked to think at length, half to answer at once (arXiv 2505.20101)."""

from __future__ import annotations

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.rl.recipe import Variant, Variants, View
from budgeteer.rl.reward.counted import DELIBERATE


def both_kinds(long: str = "long: ", short: str = "short: ", behind: bool = False) -> Variant:
    """A prompt's rollouts take the two instructions in turns, from one that is drawn, and have in the column
    ``deliberate`` which it was (1 = long).

    Helps the reward ``adaptive-deep`` to tell which kind a prompt needs. Give each prompt an even number of rollouts.
    What is learnt is learnt from instructed prompts and has to carry over to bare ones.

    Args:
        long, short: texts before the prompt, or ``behind`` it; the paper has "[Please answer with Long CoT]". The
            embedded reasoner knows no English: the defaults disturb it least.

    Raises:
        InvalidInput: equal texts.
    """
    if long == short:
        raise InvalidInput(f"both_kinds(long={long!r}, short={short!r}); give two different texts")

    def vary(state: object, view: View, rng: np.random.Generator) -> Variants:
        first = rng.integers(2, size=len(view.items))
        turns = [(start + np.arange(n)) % 2 for start, n in zip(first, view.plan.units, strict=True)]
        kind = np.concatenate([np.zeros(0, np.int64), *turns]).astype(np.int64)
        said = tuple(long if one else short for one in kind.tolist())
        columns = {DELIBERATE: kind}
        return Variants(suffix=said, columns=columns) if behind else Variants(prefix=said, columns=columns)

    return Variant(vary, gives=(DELIBERATE,))
