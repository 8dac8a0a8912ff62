"""One line: what is made of a model's own traces.

Paper: "Title", arXiv 0000.00000.
"""

from __future__ import annotations

from budgeteer.core.errors import InvalidInput
from budgeteer.solve import Task
from budgeteer.tuning import Builder, Built
from budgeteer.tuning.kit import example, traces


def shortest_right(n: int = 4, max_tokens: int = 512) -> Builder:
    """The shortest right one of n traces is the example; a question without a right one has none.

    Helps when a model is right at many lengths; does not when its short answers are guesses.

    Args:
        n: traces of a question.
        max_tokens: cap of each.
    """
    if n < 1:
        raise InvalidInput(f"shortest_right(n={n}); give 1 or more")

    async def build(task: Task) -> Built:
        drawn = await traces(task, n, most=max_tokens, temperature=1.0)
        right = [trace for trace in drawn if trace.right]
        if not right:
            return Built(())
        best = min(right, key=lambda trace: trace.tokens)
        return Built((example(task, best.text),), best.answer)

    return Builder(build)
