"""SwiReasoning: thinking switches between real tokens and mixed embeddings by the entropy of the next token."""

from __future__ import annotations

from budgeteer.solve import Answer, Strategy, Task
from budgeteer.steer import switch_thinking as switch
from budgeteer.strategies.kit.inside import MOST, NEEDS, one_trace, with_answer


def switch_thinking(
    switches: int | None = 2,
    *,
    window: float = 512,
    alpha: float = 1.0,
    beta: float = 0.7,
    opening: str = "<think>",
    temperature: float = 1.0,
    max_tokens: int = MOST,
) -> Strategy:
    """One trace that thinks in mixed embeddings while it is unsure of its way, in tokens while it is sure.

    The steer :func:`budgeteer.steer.switch_thinking`: a trace starts latent, fed with the mean embedding of the next
    token; it goes explicit when the entropy of the next token falls below what it was at the last switch, and latent
    when it rises above, after ``window`` steps at least. When the count of switches to explicit thinking reaches
    ``switches``, the thinking is closed and the answer asked for. A mix is far from what most models were trained on:
    expect the control, not the accuracy, on models that were never shown one.

    Args:
        switches: C_max, >= 1; None = no cap.
        window: W, steps, >= 0.
        alpha, beta: in [0, 1].
        opening: a marker that is one token; other texts are left out of the mix.
        temperature: of the draws, > 0.
        max_tokens: of the trace.

    Source: SwiReasoning: Switch-Thinking in Latent and Explicit for Pareto-Superior Reasoning LLMs (arXiv 2510.05069).

    >>> sorted(switch_thinking(3).needs)
    ['internals']
    """
    steer = switch(switches, window=window, alpha=alpha, beta=beta, opening=opening)

    async def solve(task: Task) -> Answer:
        return await one_trace(task, with_answer(task, steer), max_tokens=max_tokens, temperature=temperature)

    return Strategy(solve, NEEDS)
