"""Which questions need thinking, and an answer of that kind for each (AdaCoT, arXiv 2505.11896)."""

from __future__ import annotations

import re

from budgeteer.core.errors import InvalidInput
from budgeteer.models.load import named
from budgeteer.models.model import PREFIX, Model, check_temperature
from budgeteer.solve import Task
from budgeteer.solve.strategy import CHECK
from budgeteer.tuning.kit import MAX_TOKENS, closed_at_once, example, judged, rate, traces
from budgeteer.tuning.protocol import SFT, Builder, Built

PRINCIPLES = """Decide whether a question should be thought through step by step before it is answered.

It should, if the answer takes several steps of calculation or logic, a plan, code, or weighing what speaks for and
against; if it has conditions that must all be kept; or if a first guess is often wrong.
It need not, if one known fact, one simple operation, a definition, a translation or a few kind words answer it.

Question: {question}

Should it be thought through? Answer with one word, yes or no."""
"""What a judge is asked. The paper's principles are of this kind; the words are this project's."""


def adacot(
    n: int = 4,
    enough: float = 0.75,
    max_tokens: int = MAX_TOKENS,
    temperature: float = 0.7,
    always: bool = False,
    judge: Model | str | None = None,
) -> Builder:
    """Answer a question n times without thinking; label it as needing none if a share ``enough`` of these is right.

    The example is a right answer of the labelled kind, with the label ``needs_thinking`` (1 or 0) and the ``question``
    beside it, which the reward ``adacot`` reads: join them to your problems by ``id``. Only a question that needs
    thinking is answered with it, n times at most; one that the model never gets right has no example.

    The paper labels by another model that follows written principles: that is ``judge``, which is asked once a question
    and pays from the same budget; where it says neither yes nor no, there is no example. Without one the model's own
    answers decide, which costs more and says what this model needs. When it helps: questions of mixed difficulty. When
    not: answers that can be guessed, such as multiple choice: take a larger ``enough``.

    Args:
        n: answers of each kind.
        enough: share of right answers, in (0, 1].
        max_tokens: cap of an answer.
        temperature: of the draws.
        always: answer with thinking where none is needed, too, to have both kinds of each question.
        judge: another model that answers chats, or its name as ``--model`` takes it; None = the model's own answers.

    Raises:
        InvalidInput: a value outside these.
    """
    if n < 1 or not 0 < enough <= 1 or max_tokens < 1:
        raise InvalidInput(
            f"adacot(n={n}, enough={enough}, max_tokens={max_tokens}); give 1 or more answers and tokens, and a share "
            "above 0, at most 1"
        )
    check_temperature(temperature)

    other = None if judge is None else named(judge)

    async def build(task: Task) -> Built:
        begun, needed, short = closed_at_once(task), None, []
        if other is not None and (needed := await needs(task, other)) is None:
            return Built(())
        if not needed:
            short = await traces(task, n, most=max_tokens, temperature=temperature, begun=begun, stage="short")
            if not short:
                return Built(())
        if needed is None:
            needed = rate(short) < enough
        long = []
        if needed or always:
            long = await traces(task, n, most=max_tokens, temperature=temperature, stage="long")
        right = [trace for trace in (long if needed else short) if trace.right]
        if not right:
            return Built((), next((trace.answer for trace in long or short if trace.answer is not None), None))
        best = [min(right, key=lambda trace: trace.tokens)]
        if always and not needed:
            best += [trace for trace in long if trace.right][:1]
        examples = (
            example(task, trace.text, needs_thinking=int(needed), question=task.question.text) for trace in best
        )
        return Built(tuple(examples), best[0].answer)

    return Builder(build, SFT, frozenset({CHECK, PREFIX}), () if other is None else (other,))


async def needs(task: Task, model: Model) -> bool | None:
    """Whether a model says that the question needs thinking; None if it says neither."""
    said = await judged(task, model, PRINCIPLES.replace("{question}", task.question.text), 1, 0.0)
    words = re.findall(r"\b(?:yes|no)\b", "".join(said).lower())
    return words[-1] == "yes" if words else None
