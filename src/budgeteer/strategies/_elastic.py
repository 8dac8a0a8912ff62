"""Elastic reasoning: thinking and answer have a budget each, and the answer's is always kept.

Paper: "Scalable Chain of Thoughts via Elastic Reasoning", arXiv 2505.05315.
"""

from __future__ import annotations

from budgeteer.core.errors import InvalidInput
from budgeteer.models.model import PREFIX
from budgeteer.solve import Answer, StoppedBy, Strategy, Task
from budgeteer.strategies.kit.trace import NOTHING, ask, conclude, thinking_stops


def elastic(thinking: int = 1024, answer: int | None = None, temperature: float = 0.0) -> Strategy:
    """Two phases: at most ``t`` tokens of thinking, then ``style.close``, then at most ``s`` tokens of answer.

    ``t = min(thinking, what the budget leaves once s are kept)``; a budget of s or less is for the answer alone.
    Neither phase gets tokens of the other, so the answer's length never depends on how the thinking went.

    When it helps: answers that are texts or programs, which a cap on the whole trace would cut. When not: a budget that
    counts input, since the second phase reads prompt and thinking again even if the trace closed by itself;
    :func:`budget_forcing` does not then, and costs less for short answers.

    Paper: "Scalable Chain of Thoughts via Elastic Reasoning", arXiv 2505.05315; inference only. There the model is also
    trained under such cuts.

    Args:
        thinking: most tokens of the first phase.
        answer: tokens of the second phase; None = ``style.answer_tokens``.
        temperature: 0 is greedy.
    """
    if thinking < 0 or (answer is not None and answer < 1):
        raise InvalidInput(f"elastic(thinking={thinking}, answer={answer}); thinking >= 0 and answer >= 1")

    async def solve(task: Task) -> Answer:
        prompt, style = task.style.prompt(task.question.text), task.style
        kept = answer or style.answer_tokens
        piece = NOTHING._replace(clipped=False)
        if style.close and thinking:
            piece = await ask(
                task, prompt, most=thinking, keep=kept, stop=thinking_stops(task), temperature=temperature
            )
        by = piece.stopped_by if style.close else StoppedBy.DONE
        return await conclude(task, prompt, style.closed(piece.text), by, most=kept, temperature=temperature)

    return Strategy(solve, frozenset({PREFIX}))
