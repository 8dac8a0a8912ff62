"""Mirostat: a trace whose mean surprise is held at a target by a feedback controller on the truncation."""

from __future__ import annotations

from budgeteer.solve import Answer, Strategy, Task
from budgeteer.steer import mirostat as hold
from budgeteer.strategies.kit.inside import MOST, NEEDS, one_trace, with_answer


def mirostat(
    target: float = 1.0, *, rate: float = 1.0, version: int = 2, temperature: float = 1.0, max_tokens: int = MOST
) -> Strategy:
    """One trace with a mean surprise of ``target`` bits per token.

    It runs the steer :func:`budgeteer.steer.mirostat`: a bound mu on a token's surprise starts at 2 * target and is
    lowered by ``rate`` times the excess of each drawn token over the target; tokens above the bound are not drawn.

    It helps against drift into repetition or incoherence over long texts. A target above the model's own entropy
    cannot be met (truncation only lowers surprise); one below the surprise of its likeliest tokens cannot either. Then
    mu runs away, and the trace is untruncated, or greedy.

    Args:
        target: bits per token, > 0.
        rate: step size of the controller, >= 0; 0 leaves mu where it starts.
        version: 1, as published, or 2, as llama.cpp has it.
        temperature: of the distribution that is truncated, > 0.
        max_tokens: cap of the trace.

    Source: Mirostat: A Neural Text Decoding Algorithm that Directly Controls Perplexity (arXiv 2007.14966).

    >>> sorted(mirostat(2.0).needs)
    ['internals']
    """
    steer = hold(target, rate=rate, version=version, temperature=temperature)

    async def solve(task: Task) -> Answer:
        return await one_trace(task, with_answer(task, steer), max_tokens=max_tokens, temperature=temperature)

    return Strategy(solve, NEEDS)
