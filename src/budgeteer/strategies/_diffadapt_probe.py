"""DiffAdapt with its probe: temperature, cap and prompt of the thinking, from the hidden state after the question."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from budgeteer.core.errors import InvalidInput
from budgeteer.models.model import Request
from budgeteer.solve import Answer, StoppedBy, Strategy, Task, derive
from budgeteer.steer import diffadapt_probe as adapt
from budgeteer.steer._diffadapt_probe import BUNDLES, Bundle, class_alone
from budgeteer.strategies._diffadapt import EASY, HARD, NORMAL
from budgeteer.strategies.kit.inside import MOST, NEEDS, one_trace, with_answer

if TYPE_CHECKING:
    from budgeteer.engine.head import Head


def diffadapt_probe(
    head: Head | None = None,
    *,
    bundles: tuple[Bundle, Bundle, Bundle] = BUNDLES,
    prompts: bool = False,
    max_tokens: int = MOST,
) -> Strategy:
    """One trace with the temperature, the cap and, if wanted, the prompt of its question's class: easy, normal or hard.

    A probe ``softmax(W2 gelu(W1 h + b1) + b2)`` on the last layer's hidden state h after the question predicts the
    class once, before the first token; no token is spent on it. Its training labels come from the model's own traces:
    normal if most are right at a low mean entropy, hard if few are right, easy otherwise. Thinking is closed at
    ``share`` of the tokens that the budget leaves for it, and the answer asked for. The published bundles also have a
    prompt each, which is added to the question. The class is read before it is known which, so the question is read
    twice: its input is paid twice. A model that was not trained to follow such prompts does better without.

    Fewer tokens for hard questions are right only if the model cannot solve them anyway, and wrong where more thinking
    solves them. Set ``max_tokens`` to what the longest question needs, or every share of a large budget is more than
    enough.

    Args:
        head: of this very model; None = the one that lies beside it (``budgeteer heads train``).
        bundles: of easy, normal and hard questions.
        prompts: whether a class's prompt is added to the question.
        max_tokens: cap of the trace.

    Source: DiffAdapt: Difficulty-Adaptive Reasoning for Token-Efficient LLM Inference (arXiv 2510.19669).

    >>> sorted(diffadapt_probe().needs)
    ['internals']
    """
    if any(not (bundle.temperature > 0 and 0 < bundle.share <= 1) for bundle in bundles):
        raise InvalidInput(f"bundles are {bundles}; give temperatures above 0 and shares in (0, 1]")

    async def solve(task: Task) -> Answer:
        from budgeteer.engine.head import own_head

        probe, own = head or own_head(task.model, "diffadapt_probe"), bundles
        if prompts:
            kind = await _class(task, probe)
            if kind is None:
                return Answer(None, StoppedBy.BUDGET)
            reminder, style = (EASY, NORMAL, HARD)[kind].reminder, task.style
            task = replace(task, style=replace(style, prompt=lambda text: style.prompt(f"{text} {reminder}")))
            own = (bundles[kind],) * 3  # whatever the class of the longer prompt
        steer = adapt(probe, reserve=task.style.answer_tokens, bundles=own)
        return await one_trace(task, with_answer(task, steer), max_tokens=max_tokens, temperature=1.0)

    return Strategy(solve, NEEDS)


async def _class(task: Task, head: Head) -> int | None:
    """The class of a question, for the input tokens of its prompt; None if the budget does not cover them."""
    prompt = task.style.prompt(task.question.text)
    if not task.model.afford(prompt, most=1):
        return None
    seed = derive(task.seed, "class")
    request = Request(prompt, 1, stop=task.style.stop, seed=seed, steer=class_alone(head), close=task.style.close)
    response = await task.model.generate(request, stage="probe")
    return int(response.choices[0].notes["class"])
