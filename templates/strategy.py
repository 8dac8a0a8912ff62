"""One line: how the method spends a question's budget.

Paper: "Title", arXiv 0000.00000.
"""

from __future__ import annotations

from budgeteer.solve import Answer, Strategy, Task
from budgeteer.strategies.aggregator import majority
from budgeteer.strategies.kit.samples import Sampler


def second_opinion(max_tokens: int = 256, temperature: float = 1.0) -> Strategy:
    """Two samples; a third only where the two disagree; the most frequent answer, ties to the one seen first.

    Helps when two samples that agree are mostly right; does not when the model repeats its mistakes.

    Args:
        max_tokens: of one sample, >= 1.
        temperature: of the samples, > 0.
    """

    async def solve(task: Task) -> Answer:
        samples = Sampler(task, max_tokens=max_tokens, temperature=temperature)
        await samples.more(2)
        if len(set(samples.answers)) > 1:
            await samples.more(1)
        ranked = majority()(samples.answers, [])
        if not ranked:  # nothing fitted into the budget, or no sample has an answer
            return samples.answer(None)
        return samples.answer(ranked[0].answer, confidence=ranked[0].weight)

    return Strategy(solve)
