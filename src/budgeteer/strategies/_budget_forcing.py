"""Budget forcing: thinking that reaches its cap is cut and the answer forced; thinking that is too short goes on.

Paper: "s1: Simple test-time scaling", arXiv 2501.19393.
"""

from __future__ import annotations

from budgeteer.core.errors import InvalidInput
from budgeteer.models.chat import continued
from budgeteer.models.model import PREFIX
from budgeteer.solve import Answer, StoppedBy, Strategy, Task
from budgeteer.strategies.kit.trace import ask, conclude, thinking_stops


def budget_forcing(thinking: int = 1024, minimum: int = 0, temperature: float = 0.0) -> Strategy:
    """At most ``thinking`` tokens, less what an answer needs of the budget; then ``style.close`` and an answer.

    A trace that closes by itself before the cap is not changed and costs one call. With a minimum, the end of a trace
    that closes earlier is replaced by ``style.wait``, and it goes on, as often as needed; the answer is then a call of
    its own. Tokens of ``wait`` are read, not sampled, but count as thinking.

    When it helps: an unfinished trace already says something about the answer; ``minimum`` helps if longer thinking is
    better. When not: the last steps decide the answer, so that a forced one is a guess; and longer thinking does not
    correct a wrong trace. A budget that counts input pays prompt and thinking twice when thinking is cut.

    Paper: "s1: Simple test-time scaling", arXiv 2501.19393. There the extensions are counted (2, 4, 6 times "Wait").

    Args:
        thinking: most tokens until the answer is forced.
        minimum: tokens before the trace may close.
        temperature: 0 is greedy.

    Raises:
        InvalidInput: the minimum exceeds the cap.
    """
    if not 0 <= minimum <= thinking:
        raise InvalidInput(f"budget_forcing(thinking={thinking}, minimum={minimum}); 0 <= minimum <= thinking")

    async def solve(task: Task) -> Answer:
        prompt, style = task.style.prompt(task.question.text), task.style
        extends = minimum > 0 and bool(style.close)
        stop = thinking_stops(task) if extends else style.stop
        wait = task.model.count(style.wait) if extends else 0
        trace, spent, calls = "", 0, 0
        while True:
            piece = await ask(
                task,
                continued(prompt, trace),
                most=thinking - spent,
                keep=style.answer_tokens,
                stop=stop,
                temperature=temperature,
                at=calls,
            )
            trace, spent, calls = trace + piece.text, spent + piece.tokens, calls + 1
            if not piece.ended or not extends or spent >= minimum or spent + wait >= thinking:
                break
            trace, spent = trace + style.wait, spent + wait
        rest = None if extends else style.split(trace)[1]
        if rest is None:
            return await conclude(task, prompt, trace, piece.stopped_by, temperature=temperature)
        if piece.ended or style.complete(rest):
            return Answer(style.read(trace), StoppedBy.DONE, (trace,))
        return await conclude(task, prompt, trace, StoppedBy.DONE, temperature=temperature)

    return Strategy(solve, frozenset({PREFIX}))
