"""The same thinking cut for three modes of effort, each with an answer of its own (ThinkDial, arXiv 2508.18773)."""

from __future__ import annotations

from budgeteer.core.errors import InvalidInput
from budgeteer.core.words import filled
from budgeteer.models.chat import EFFORTS
from budgeteer.models.model import PREFIX, check_temperature
from budgeteer.solve import Task
from budgeteer.solve.strategy import CHECK
from budgeteer.tuning.kit import MAX_TOKENS, beginning, ended, example, traces
from budgeteer.tuning.protocol import SFT, Builder, Built

CONNECTIVES = {
    "low": "\nTime is almost up, so I answer now.",
    "medium": "\nThat is enough to answer.",
}
"""Mode -> what stands between a cut thinking and its end. The paper's words are not published."""


def thinkdial(
    n: int = 2,
    text: str = "{effort}: ",
    answers: int = 2,
    max_tokens: int = MAX_TOKENS,
    answer_tokens: int = 256,
    temperature: float = 0.7,
) -> Builder:
    """Think about a question in full, cut the thinking to half and to a quarter of its tokens, and answer anew behind
    each; the three examples of a question (``effort`` = high, medium, low) are kept if all answers are right.

    Behind a cut stand a sentence that leads to the answer and the end of the thinking. The prompt of an example begins
    with ``text``, which says the mode; a model trained on them is asked with the same text
    (``think:effort=low,said=TEXT``), and trained on with ``variant=effort-modes,reward=thinkdial``. The paper mixes
    two ordinary examples with one of these.

    When it helps: questions whose thinking has the answer early. When not: short thinking, of which a quarter says
    nothing; such questions have no examples.

    Args:
        n: complete traces to choose the first right one from.
        text: with ``{effort}`` where the word stands.
        answers: tries at a right answer behind each cut.
        max_tokens: cap of a trace; ``answer_tokens``: of an answer behind a cut.
        temperature: of the draws.

    Raises:
        InvalidInput: a number below 1, or a text without ``{effort}``.
    """
    filled(text, effort="low")
    if min(n, answers, max_tokens, answer_tokens) < 1:
        raise InvalidInput(
            f"thinkdial(n={n}, answers={answers}, max_tokens={max_tokens}, answer_tokens={answer_tokens}); give 1 or "
            "more of each"
        )
    check_temperature(temperature)

    async def build(task: Task) -> Built:
        style = task.style
        whole = await traces(task, n, most=max_tokens, temperature=temperature)
        full = next((trace for trace in whole if trace.right), None)
        if full is None:
            return Built((), next((trace.answer for trace in whole if trace.answer is not None), None))
        thinking = style.split(full.text)[0]
        tokens, made = task.model.count(thinking), {"high": full.text}
        for effort, connective in CONNECTIVES.items():
            kept = beginning(task, thinking, int(EFFORTS[effort] * tokens))
            if not kept.strip():
                return Built((), full.answer)
            begun = ended(task, kept + connective)
            tried = await traces(
                task, answers, most=answer_tokens, temperature=temperature, begun=begun, stage=effort
            )  # fmt: skip
            right = next((trace for trace in tried if trace.right), None)
            if right is None:
                return Built((), full.answer)
            made[effort] = right.text
        examples = (
            example(task, made[effort], filled(text, effort=effort), effort=effort)
            for effort in ("high", "medium", "low")
        )
        return Built(tuple(examples), full.answer)

    return Builder(build, SFT, frozenset({CHECK, PREFIX}))
