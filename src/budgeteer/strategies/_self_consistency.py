"""Self-consistency: sample many traces, take the answer that most of them give."""

from __future__ import annotations

from budgeteer.core.errors import InvalidInput
from budgeteer.solve import Answer, Strategy, Task
from budgeteer.strategies.aggregator import Aggregator, majority
from budgeteer.strategies.kit.samples import MAX_TOKENS, Sampler


def self_consistency(
    n: int = 32, *, max_tokens: int = MAX_TOKENS, temperature: float = 1.0, aggregate: Aggregator | None = None
) -> Strategy:
    """n samples, as many as the budget allows; the most frequent answer, ties to the one seen first.

    All samples are one request if their worst case fits the budget, else several requests of as many as fit. The
    confidence is the share of the answer among the samples with an answer.

    When it helps: wrong answers scatter and right ones agree. When not: the most frequent answer is wrong, which no
    number of samples corrects; and most questions are decided long before the n-th sample
    (:func:`budgeteer.strategies._adaptive_vote.adaptive_vote`).

    "Self-Consistency Improves Chain of Thought Reasoning in Language Models", arXiv 2203.11171.

    Args:
        n: most samples.
        max_tokens: cap of one sample.
        temperature: of the samples, > 0 unless n is 1.
        aggregate: None = majority.
    """
    if n < 1:
        raise InvalidInput(f"self_consistency(n={n}); give at least one sample")
    rank = majority() if aggregate is None else aggregate

    async def solve(task: Task) -> Answer:
        samples = Sampler(task, max_tokens=max_tokens, temperature=temperature)
        await samples.more(n)
        return samples.best(rank(samples.answers, [float("nan")] * len(samples.drawn)))

    return Strategy(solve)
