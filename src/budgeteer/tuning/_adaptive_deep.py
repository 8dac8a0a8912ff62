"""Long and short answers, with and without the instruction that asks for them (arXiv 2505.20101)."""

from __future__ import annotations

from budgeteer.core.errors import InvalidInput
from budgeteer.models.model import PREFIX, check_temperature
from budgeteer.solve import Task
from budgeteer.solve.strategy import CHECK
from budgeteer.tuning.kit import MAX_TOKENS, Trace, closed_at_once, example, traces
from budgeteer.tuning.protocol import SFT, Builder, Built


def adaptive_deep(
    n: int = 4,
    long: str = "long: ",
    short: str = "short: ",
    max_tokens: int = MAX_TOKENS,
    temperature: float = 0.7,
) -> Builder:
    """Answer a question n times with thinking and n times without; the examples are the shortest right trace of each
    kind, each of them once behind the text that asks for its kind and once without it.

    The supervised start of Adaptive Deep Reasoning: the model learns both kinds, to follow the texts, and to choose by
    itself. Then train with ``variant=both-kinds,reward=adaptive-deep`` and the same texts. Each example has its
    ``kind``, long or short, and whether it is ``asked``, 1 or 0. A kind that is never right has no example; where both
    are right, the bare question has both, and what to choose is left to the training with rewards.

    In the paper short answers are of a model that does not think; here the thinking is closed at once.

    When it helps: before training with the reward, on questions of mixed difficulty. When not: a model that is never
    right without thinking, which would learn of one kind only.

    Args:
        n: traces of each kind.
        long, short: texts before the question; the paper has "[Please answer with Long CoT]".
        max_tokens: cap of a trace.
        temperature: of the draws.

    Raises:
        InvalidInput: a number below 1, or equal texts.
    """
    if min(n, max_tokens) < 1 or long == short:
        raise InvalidInput(
            f"adaptive_deep(n={n}, long={long!r}, short={short!r}, max_tokens={max_tokens}); give 1 or more traces and "
            "tokens, and two different texts"
        )
    check_temperature(temperature)

    async def build(task: Task) -> Built:
        begun = closed_at_once(task)
        kinds = {
            "short": (
                short,
                await traces(task, n, most=max_tokens, temperature=temperature, begun=begun, stage="short"),
            ),
            "long": (long, await traces(task, n, most=max_tokens, temperature=temperature, stage="long")),
        }
        made, answer = [], None
        for kind, (said, drawn) in kinds.items():
            right = [trace for trace in drawn if trace.right]
            answer = next((trace.answer for trace in right or drawn if trace.answer is not None), answer)
            if not right:
                continue
            best: Trace = min(right, key=lambda trace: trace.tokens)
            made += [example(task, best.text, text, kind=kind, asked=int(bool(text))) for text in (said, "")]
        return Built(tuple(made), answer)

    return Builder(build, SFT, frozenset({CHECK, PREFIX}))
