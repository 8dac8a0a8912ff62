"""REBASE: rollouts in proportion to the softmax of their path's score."""

from __future__ import annotations

from collections.abc import Sequence

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64
from budgeteer.solve import Strategy
from budgeteer.strategies.kit.steps import by_share, softmax, step_search
from budgeteer.strategies.scorer import Scorer, scorer_of


def rebase(
    scorer: Scorer | str = "self-evaluation",
    n: int = 16,
    *,
    sharpness: float = 0.1,
    step: str = "\n\n",
    step_tokens: int = 256,
    depth: int = 16,
    temperature: float = 0.8,
) -> Strategy:
    """Search by steps in which path j with score R_j is continued by ``n softmax(R / sharpness)_j`` rollouts.

    The baseline of :func:`budgeteer.strategies._dora.dora`, and its special case in which no two paths are alike:
    near-duplicates each get a full share, so a direction that was sampled often gets more.

    When it helps: duplicates are frequent because they are good. When not: they are frequent because the model repeats
    itself.

    "Inference Scaling Laws: An Empirical Analysis of Compute-Optimal Inference", arXiv 2408.00724.

    Args:
        scorer: a scorer of partial traces, such as :func:`budgeteer.strategies.scorer.programmatic`, or its name.
        n: rollouts in each round.
        sharpness: temperature of the softmax, > 0.
        step, step_tokens, depth, temperature: as in :func:`budgeteer.strategies.kit.steps.step_search`.
    """
    if not sharpness > 0:
        raise InvalidInput(f"rebase(sharpness={sharpness}); it is a temperature > 0")

    def copies(scores: F64, texts: Sequence[str], n: int) -> I64:
        return by_share(softmax(scores, sharpness), n)

    return step_search(
        copies, scorer_of(scorer), n, step=step, step_tokens=step_tokens, depth=depth, temperature=temperature
    )
