"""Convergence: force an answer on the side after every few tokens of thinking; stop when it no longer changes.

An early exit baseline on answer consistency; no single paper.
"""

from __future__ import annotations

from budgeteer.core.errors import InvalidInput, ModelError
from budgeteer.models.chat import continued
from budgeteer.models.model import PREFIX
from budgeteer.solve import Answer, StoppedBy, Strategy, Task
from budgeteer.strategies.kit.trace import ask, conclude, thinking_stops


def convergence(every: int = 64, agree: int = 3, thinking: int = 1024, temperature: float = 0.0) -> Strategy:
    """Think in pieces of ``every`` tokens; after each, close the thinking and sample a short side answer.

    The side answer is not part of the trace that goes on. Thinking stops when ``agree`` side answers in a row are equal
    and not None (stopped by CONVERGED), when it closes by itself, at the cap, or when a piece and its side answer
    no longer fit the budget. Side answers are charged like all calls. With a budget that counts input, every piece and
    every side answer reads prompt and thinking again: the cost grows with the square of the length, so choose ``every``
    large.

    When it helps: models that go on thinking after they know the answer. When not: a model that keeps a wrong answer
    for a while before it finds the right one is stopped at the wrong one; and where few answers are possible, two agree
    by chance, so ask for three.

    Args:
        every: tokens of thinking between two side answers.
        agree: number of equal side answers in a row that ends the thinking.
        thinking: most tokens of thinking.
        temperature: 0 is greedy.
    """
    if every < 1 or agree < 2 or thinking < every:
        raise InvalidInput(
            f"convergence(every={every}, agree={agree}, thinking={thinking}); 1 <= every <= thinking and agree >= 2"
        )

    async def solve(task: Task) -> Answer:
        prompt, style = task.style.prompt(task.question.text), task.style
        trace, spent, row = "", 0, 0
        best = Answer(None, StoppedBy.BUDGET)
        for at in range(-(-thinking // every)):
            try:
                piece = await ask(
                    task,
                    continued(prompt, trace),
                    most=min(every, thinking - spent),
                    keep=style.answer_tokens,
                    stop=thinking_stops(task),
                    temperature=temperature,
                    at=at,
                )
                trace, spent = trace + piece.text, spent + piece.tokens
                if not piece.tokens and best.answer is not None:
                    # the last side answer is as good as another
                    return Answer(best.answer, StoppedBy.BUDGET, best.traces)
                side = await conclude(task, prompt, trace, piece.stopped_by, temperature=temperature)
            except ModelError as error:
                if best.answer is None:
                    raise
                return Answer(best.answer, StoppedBy.ERROR, best.traces, error=str(error))
            if side.answer is None and side.stopped_by == StoppedBy.BUDGET:
                return Answer(best.answer, StoppedBy.BUDGET, best.traces or side.traces)
            row = row + 1 if side.answer is not None and side.answer == best.answer else 1
            best = side
            if row >= agree:
                return Answer(best.answer, StoppedBy.CONVERGED, best.traces)
            if piece.ended or piece.clipped or spent >= thinking:
                break
        return best

    return Strategy(solve, frozenset({PREFIX}))
