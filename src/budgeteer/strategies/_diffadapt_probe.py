"""DiffAdapt with its probe: temperature and cap of the thinking, from the hidden state after the question."""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgeteer.core.errors import InvalidInput
from budgeteer.solve import Answer, Strategy, Task
from budgeteer.steer import diffadapt_probe as adapt
from budgeteer.steer._diffadapt_probe import BUNDLES, Bundle
from budgeteer.strategies.kit.inside import MOST, NEEDS, one_trace, with_answer

if TYPE_CHECKING:
    from budgeteer.engine.head import Head


def diffadapt_probe(
    head: Head | None = None, *, bundles: tuple[Bundle, Bundle, Bundle] = BUNDLES, max_tokens: int = MOST
) -> Strategy:
    """One trace with the temperature and the cap of its question's class: easy, normal or hard.

    A probe ``softmax(W2 gelu(W1 h + b1) + b2)`` on the last layer's hidden state h after the question predicts the
    class once, before the first token; no token is spent on it. Its training labels come from the model's own traces:
    normal if most are right at a low mean entropy, hard if few are right, easy otherwise. Thinking is closed at
    ``share`` of the tokens that the budget leaves for it, and the answer asked for. The published bundles also have a
    prompt each; that needs a second prefill and is left out here.

    Fewer tokens for hard questions are right only if the model cannot solve them anyway, and wrong where more thinking
    solves them. Set ``max_tokens`` to what the longest question needs, or every share of a large budget is more than
    enough.

    Args:
        head: of this very model; None = that of the embedded reasoner.
        bundles: of easy, normal and hard questions.
        max_tokens: cap of the trace.

    Source: DiffAdapt: Difficulty-Adaptive Reasoning for Token-Efficient LLM Inference (arXiv 2510.19669).

    >>> sorted(diffadapt_probe().needs)
    ['internals']
    """
    if any(not (bundle.temperature > 0 and 0 < bundle.share <= 1) for bundle in bundles):
        raise InvalidInput(f"bundles are {bundles}; give temperatures above 0 and shares in (0, 1]")

    async def solve(task: Task) -> Answer:
        from budgeteer.engine.head import load_head

        steer = adapt(head or load_head("diffadapt_probe"), reserve=task.style.answer_tokens, bundles=bundles)
        return await one_trace(task, with_answer(task, steer), max_tokens=max_tokens, temperature=1.0)

    return Strategy(solve, NEEDS)
