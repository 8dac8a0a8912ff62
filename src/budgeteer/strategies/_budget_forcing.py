"""Budget forcing: thinking that reaches its cap is cut and the answer forced; thinking that is too short goes on.

Paper: "s1: Simple test-time scaling", arXiv 2501.19393.
"""

from __future__ import annotations

from budgeteer.core.errors import InvalidInput
from budgeteer.models.model import PREFIX
from budgeteer.solve import Answer, Strategy, Task
from budgeteer.strategies.kit.trace import ask, conclude, raw, thinking_stops


def budget_forcing(thinking: int = 1024, minimum: int = 0, temperature: float = 0.0) -> Strategy:
    """At most ``thinking`` tokens, less what an answer needs of the budget; then ``style.close`` and an answer.

    A trace that closes by itself before the cap is left alone and costs one call. With a minimum, a trace that closes
    earlier has its end replaced by ``style.wait`` and goes on, as often as it takes; the answer is a call of its own
    then. Tokens of ``wait`` are read, not sampled, but count as thinking.

    When it helps: an unfinished trace already says something about the answer; ``minimum``: longer thinking is better
    thinking. When not: what is decided last decides the answer, so that a forced one is a guess; and more of the same
    does not make a wrong trace right. A budget that counts input pays prompt and thinking twice when it cuts.

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
        prompt, style = raw(task, "budget-forcing"), task.style
        extends = minimum > 0 and bool(style.close)
        stop = thinking_stops(task) if extends else style.stop
        wait = task.model.count(style.wait) if extends else 0
        trace, spent, calls = "", 0, 0
        while True:
            piece = await ask(
                task, prompt + trace, most=thinking - spent, keep=style.answer_tokens, stop=stop,
                temperature=temperature, at=calls,
            )  # fmt: skip
            trace, spent, calls = trace + piece.text, spent + piece.tokens, calls + 1
            if not piece.ended or not extends or spent >= minimum or spent + wait >= thinking:
                break
            trace, spent = trace + style.wait, spent + wait
        rest = None if extends else style.split(trace)[1]
        if rest is None:
            return await conclude(task, prompt, trace, piece.stopped_by, temperature=temperature)
        if piece.ended or style.complete(rest):
            return Answer(style.read(trace), "done", (trace,))
        return await conclude(task, prompt, trace, "done", temperature=temperature)

    return Strategy(solve, frozenset({PREFIX}))
