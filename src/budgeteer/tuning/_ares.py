"""A trace whose length is what the question's difficulty is worth (ARES's cold start, arXiv 2510.08457)."""

from __future__ import annotations

from budgeteer.core.errors import InvalidInput
from budgeteer.models.model import check_temperature
from budgeteer.solve import Task
from budgeteer.solve.strategy import CHECK
from budgeteer.tuning.kit import MAX_TOKENS, example, rate, traces
from budgeteer.tuning.protocol import SFT, Builder, Built


def ares(
    n: int = 8, short: int = 128, long: int = MAX_TOKENS, max_tokens: int = MAX_TOKENS, temperature: float = 1.0
) -> Builder:
    """Answer a question n times; the example is the right trace whose length is nearest to
    ``(1 - p) * long + p * short`` tokens, with p the share of right ones.

    The cold start before training with the reward ``ares``: short traces of easy questions, long ones of hard ones. The
    example has its pass rate as ``rate`` and its target as ``target``. Of two that are as near it is the shorter one.
    The paper has answers of stronger models of several sizes, images among the questions; here they are the model's
    own, so that what is learnt is to spend by difficulty, and nothing that the model could not solve.

    When it helps: traces of one question differ much in length. When not: traces of one length, where the nearest is
    any.

    Args:
        n: traces of a question.
        short, long: tokens that a question is worth that is always solved, and one that never is; short at most long.
        max_tokens: cap of a trace.
        temperature: of the draws.

    Raises:
        InvalidInput: a number below 1, or a short one above the long one.
    """
    if min(n, short, max_tokens) < 1 or short > long:
        raise InvalidInput(
            f"ares(n={n}, short={short}, long={long}, max_tokens={max_tokens}); give 1 or more of each, and short at "
            "most long"
        )
    check_temperature(temperature)

    async def build(task: Task) -> Built:
        made = await traces(task, n, most=max_tokens, temperature=temperature)
        right = [trace for trace in made if trace.right]
        if not right:
            return Built((), next((trace.answer for trace in made if trace.answer is not None), None))
        solved = rate(made)
        target = (1 - solved) * long + solved * short
        best = min(right, key=lambda trace: (abs(trace.tokens - target), trace.tokens))
        return Built((example(task, best.text, rate=solved, target=target),), best.answer)

    return Builder(build, SFT, frozenset({CHECK}))
