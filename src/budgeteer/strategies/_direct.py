"""Direct: one trace, as long as the budget allows. The baseline of all other strategies."""

from __future__ import annotations

from budgeteer.core.errors import InvalidInput
from budgeteer.solve import Answer, StoppedBy, Strategy, Task
from budgeteer.strategies.kit.trace import ask


def direct(max_tokens: int = 1024, temperature: float = 0.0) -> Strategy:
    """One call with ``max_tokens = min(max_tokens, what the budget leaves)``; the answer is read from its text.

    When it helps: the budget is larger than nearly all traces. When not: a trace that is cut has no answer, and all its
    tokens are wasted.

    Args:
        max_tokens: cap of the whole trace.
        temperature: 0 is greedy.
    """

    if max_tokens < 1 or not temperature >= 0:
        raise InvalidInput(f"direct(max_tokens={max_tokens}, temperature={temperature}); at least 1, and 0 or more")

    async def solve(task: Task) -> Answer:
        style = task.style
        piece = await ask(
            task, style.prompt(task.question.text), most=max_tokens, stop=style.stop, temperature=temperature
        )
        if not piece.tokens:
            return Answer(None, StoppedBy.BUDGET)
        return Answer(style.read(piece.text), piece.stopped_by, (piece.text,))

    return Strategy(solve)
