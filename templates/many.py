"""One line: how the method answers many questions from one budget.

Paper: "Title", arXiv 0000.00000.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from budgeteer.core.errors import ModelError
from budgeteer.solve import Answer, StoppedBy, Task
from budgeteer.strategies.kit.trace import ask


async def in_turn(tasks: Sequence[Task], max_tokens: int = 256) -> AsyncIterator[tuple[int, Answer]]:
    """One greedy trace for each question, in their order, while there is budget.

    Helps when every question is worth the same; does not when some need more tokens than others.

    Args:
        tasks: the questions; their models spend from one budget.
        max_tokens: of one trace, >= 1.
    """
    for i, task in enumerate(tasks):
        prompt = task.style.prompt(task.question.text)
        try:
            piece = await ask(task, prompt, most=max_tokens, stop=task.style.stop, temperature=0.0)
        except ModelError as error:
            yield i, Answer(None, StoppedBy.ERROR, error=str(error))
            continue
        if not piece.tokens:  # nothing fitted into what is left
            yield i, Answer(None, StoppedBy.BUDGET)
        else:
            yield i, Answer(task.style.read(piece.text), piece.stopped_by, (piece.text,))
