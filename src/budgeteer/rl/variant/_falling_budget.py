"""The prompt says how long to think, and the number falls (Train Long, Think Short, arXiv 2508.08940)."""

from __future__ import annotations

import math

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.words import filled
from budgeteer.rl.recipe import Variant, Variants, View
from budgeteer.rl.schedule import decay, linear, staircase


def falling_budget(
    first: float = 0.5,
    factor: float = 0.8,
    stairs: int = 5,
    least: float = 0.25,
    rate: float | None = None,
    text: str = "{tokens}: ",
    behind: bool = False,
    straight: bool = False,
) -> Variant:
    """Say ``B = floor(first * cap * max(least, factor ** floor(stairs * spent)))`` in every prompt, and give it as the
    column ``target``, which rewards such as ``triangular`` read.

    Helps to bring a model that follows such words to short answers over long ones; a model that was never taught them
    has to learn first that the number means its length. It asks and pays, and ends nothing: the cap stays as it is.

    Args:
        first: the target at the start, as a share of the cap of a rollout, in (0, 1].
        factor, stairs, least: of the fall, as in :func:`budgeteer.rl.schedule.staircase`.
        rate: fall without stairs, to this factor at the end, as in :func:`budgeteer.rl.schedule.decay` (RMT, arXiv
            2509.24375, has 0.2, ``least=0`` and "use exactly {tokens} tokens").
        text: with ``{tokens}`` where the number stands, such as "Think for about {tokens} tokens. "; before the prompt,
            or ``behind`` it. The embedded reasoner knows no English: the bare number of the default disturbs it least.
        straight: fall on a straight line to ``least``, as in :func:`budgeteer.rl.schedule.linear`.

    Raises:
        InvalidInput: a share outside (0, 1], a text without ``{tokens}``, or both ``rate`` and ``straight``.
    """
    if not 0 < first <= 1:
        raise InvalidInput(f"falling_budget(first={first}); give a share of the cap in (0, 1]")
    if straight and rate is not None:
        raise InvalidInput(f"falling_budget(rate={rate}, straight=True); give one of the two falls")
    if straight:
        fall = linear(least)
    elif rate is not None:
        fall = decay(rate, least)
    else:
        fall = staircase(factor, stairs, least)
    filled(text, tokens=1)

    def vary(state: object, view: View, rng: np.random.Generator) -> Variants:
        target = max(1, math.floor(first * view.max_tokens * fall(view.spent) + 1e-9))
        n = int(view.plan.units.sum())
        said, columns = (filled(text, tokens=target),) * n, {"target": np.full(n, float(target))}
        return Variants(suffix=said, columns=columns) if behind else Variants(prefix=said, columns=columns)

    return Variant(vary, gives=("target",))
