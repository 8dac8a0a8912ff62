"""Hard truncation: thinking that reaches its cap is cut, and the question has no answer. A baseline."""

from __future__ import annotations

from budgeteer.models.model import PREFIX
from budgeteer.solve import Answer, StoppedBy, Strategy, Task
from budgeteer.strategies.kit.trace import ask, conclude


def truncate(thinking: int = 1024, temperature: float = 0.0) -> Strategy:
    """Sample at most ``thinking`` tokens; finish the answer if the thinking has closed by then, else give none.

    It is ``budget_forcing(thinking)`` without the forced answer: the effect of a cap alone. It keeps no tokens for an
    answer, so at an equal budget its thinking may be longer than that of strategies that do.

    When it helps: as a baseline, or where a forced answer is worse than none. When not: wherever a guess counts.

    Args:
        thinking: tokens until the cut.
        temperature: 0 is greedy.
    """

    async def solve(task: Task) -> Answer:
        prompt, style = task.style.prompt(task.question.text), task.style
        piece = await ask(task, prompt, most=thinking, stop=style.stop, temperature=temperature)
        rest = style.split(piece.text)[1] if piece.tokens else None
        if rest is None:
            return Answer(None, piece.stopped_by, (piece.text,))
        if piece.ended or style.complete(rest):
            return Answer(style.read(piece.text), StoppedBy.DONE, (piece.text,))
        return await conclude(task, prompt, piece.text, StoppedBy.DONE, temperature=temperature)

    return Strategy(solve, frozenset({PREFIX}))
