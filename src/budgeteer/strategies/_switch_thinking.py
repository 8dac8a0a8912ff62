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
    symbols: bool = False,
    temperature: float = 1.0,
    max_tokens: int = MOST,
) -> Strategy:
    """One trace that thinks in mixed embeddings while the model is unsure, and in tokens while it is sure.

    It runs the steer :func:`budgeteer.steer.switch_thinking`: a trace starts latent, fed with the expected embedding of
    the next token. It becomes explicit when the entropy of the next token falls below its value at the last switch, and
    latent when it rises above, but not before ``window`` steps. When the number of switches to explicit thinking
    reaches ``switches``, the thinking is closed and the answer asked for. Most models were never trained on mixed
    embeddings: on those, expect the control of length, not the accuracy.

    Args:
        switches: C_max of the paper, >= 1; None = no cap.
        window: W of the paper, steps, >= 0.
        alpha, beta: weights of the marker in the mix at a switch, in [0, 1]; see the steer.
        opening: the opening marker of the thinking, if it is one token; other texts are left out of the mix.
        symbols: whether numbers, single letters, operators and LaTeX commands are always fed as tokens.
        temperature: of the draws, > 0.
        max_tokens: cap of the trace.

    Source: SwiReasoning: Switch-Thinking in Latent and Explicit for Pareto-Superior Reasoning LLMs (arXiv 2510.05069).

    >>> sorted(switch_thinking(3).needs)
    ['internals']
    """
    steer = switch(switches, window=window, alpha=alpha, beta=beta, opening=opening, symbols=symbols)

    async def solve(task: Task) -> Answer:
        return await one_trace(task, with_answer(task, steer), max_tokens=max_tokens, temperature=temperature)

    return Strategy(solve, NEEDS)
