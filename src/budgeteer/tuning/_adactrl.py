"""A tag of difficulty, and a trace of the length that it stands for (AdaCtrl, arXiv 2505.18822)."""

from __future__ import annotations

from budgeteer.core.errors import InvalidInput
from budgeteer.models.chat import EASY_TAG, HARD_TAG
from budgeteer.models.model import check_temperature
from budgeteer.solve import Task
from budgeteer.solve.strategy import CHECK
from budgeteer.tuning.kit import MAX_TOKENS, example, rate, tags_in, traces
from budgeteer.tuning.protocol import SFT, Builder, Built


def adactrl(n: int = 8, easy: float = 0.625, max_tokens: int = MAX_TOKENS, temperature: float = 1.0) -> Builder:
    """Answer a question n times; the example is ``[Easy]`` and the shortest right trace if more than a share ``easy``
    of them is right, else ``[Hard]`` and the longest right one.

    The start without which the reward ``adactrl`` has no tags to pay for. The tag stands at the head of the answer, or
    of its thinking where the answer opens one: chat templates drop what stands before that. A model trained so is held
    to one by beginning its answer with it (``think:begun="{open}[Easy]"``). The paper takes short answers from a model
    that does not think and long ones from a stronger model that does; here both are the model's own.

    When it helps: before training with the reward, on questions of mixed difficulty. When not: traces of one length,
    where the tags would mean nothing.

    Args:
        n: traces of a question.
        easy: share of right ones above which it is easy, in [0, 1).
        max_tokens: cap of a trace.
        temperature: of the draws.

    Raises:
        InvalidInput: a value outside these.
    """
    if n < 1 or not 0 <= easy < 1 or max_tokens < 1:
        raise InvalidInput(
            f"adactrl(n={n}, easy={easy}, max_tokens={max_tokens}); give 1 or more traces and tokens, and a share from "
            "0, below 1"
        )
    check_temperature(temperature)

    async def build(task: Task) -> Built:
        made = await traces(task, n, most=max_tokens, temperature=temperature)
        right = sorted((trace for trace in made if trace.right), key=lambda trace: trace.tokens)
        if not right:
            return Built((), next((trace.answer for trace in made if trace.answer is not None), None))
        tag, best = (EASY_TAG, right[0]) if rate(made) > easy + 1e-9 else (HARD_TAG, right[-1])
        return Built((example(task, tagged(task, best.text, tag), tag=tag),), best.answer)

    return Builder(build, SFT, frozenset({CHECK}))


def tagged(task: Task, text: str, tag: str) -> str:
    """A trace with the tag at its head, behind what opens its thinking."""
    tags = tags_in(task)
    opens = f"{tags.open}\n" if tags is not None else ""
    return f"{opens}{tag}{text.removeprefix(opens)}" if opens and text.startswith(opens) else tag + text
