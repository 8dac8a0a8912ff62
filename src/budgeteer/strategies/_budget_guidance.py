"""Budget Guidance: at the start of a line, favour the tokens after which the thinking is likely to fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgeteer.core.errors import InvalidInput
from budgeteer.solve import Answer, Strategy, Task
from budgeteer.steer import budget_guidance as guide
from budgeteer.strategies.kit.inside import MOST, NEEDS, one_trace, with_answer

if TYPE_CHECKING:
    from budgeteer.engine.head import Head


def budget_guidance(
    head: Head | None = None,
    *,
    min_rate: float = 0.0,
    min_mode: float = 0.9,
    temperature: float = 1.0,
    max_tokens: int = MOST,
) -> Strategy:
    """One trace whose thinking is steered so that it ends by itself within the tokens that the budget leaves.

    It runs the steer :func:`budgeteer.steer.budget_guidance`: at line starts the next token is drawn from

        p_v * a_v / sum,   a_v = P(L <= b | v) = GammaCDF(log(b + 1); shape_v, rate_v)

    with p the untempered distribution of the model, L the tokens of thinking still to come and b those that are left.
    Other tokens are drawn as usual. Guidance does not bound anything by itself: when only the tokens for the answer are
    left, the thinking is closed and the answer asked for, as in budget forcing.

    It helps where the next token tells how much thinking follows (a conclusion, or another check), and does not where
    it tells nothing about that.

    Args:
        head: of this very model; None = the one that lies beside it (``budgeteer heads train``).
        min_rate: filter on the rate. The official code has 10, which suits lengths in thousands; a Gamma of short and
            uncertain lengths has a lower rate, and all tokens would be masked.
        min_mode: filter on the mode, tokens.
        temperature: of the draws within lines, >= 0.
        max_tokens: cap of the trace.

    Source: Steering LLM Thinking with Budget Guidance (arXiv 2506.13752).

    >>> sorted(budget_guidance().needs)
    ['internals']
    """
    if min_rate < 0 or temperature < 0:
        raise InvalidInput(f"min_rate={min_rate}, temperature={temperature}; both are 0 or more")

    async def solve(task: Task) -> Answer:
        from budgeteer.engine.head import own_head

        steer = guide(
            head or own_head(task.model, "budget_guidance"),
            reserve=task.style.answer_tokens,
            min_rate=min_rate,
            min_mode=min_mode,
        )
        return await one_trace(task, with_answer(task, steer), max_tokens=max_tokens, temperature=temperature)

    return Strategy(solve, NEEDS)
