"""DiffAdapt with its probe: how warm and how long to think, from the state after the question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.engine.hook import Action, Internals, Row
from budgeteer.solve import Answer, Strategy, Task
from budgeteer.strategies.kit.inside import MOST, NEEDS, Closing, one_trace, room

if TYPE_CHECKING:
    from torch import Tensor

    from budgeteer.engine.head import Head

EASY, NORMAL, HARD = 0, 1, 2


@dataclass(frozen=True)
class Bundle:
    """What a class of questions gets.

    Attributes:
        temperature: of the draws, > 0.
        share: of the thinking tokens that the budget allows, in (0, 1].
    """

    temperature: float
    share: float


BUNDLES = (Bundle(0.5, 0.4), Bundle(0.8, 1.0), Bundle(0.4, 0.5))
"""Easy, normal and hard, as published."""


def diffadapt_probe(
    head: Head | None = None, *, bundles: tuple[Bundle, Bundle, Bundle] = BUNDLES, max_tokens: int = MOST
) -> Strategy:
    """One trace at the temperature and under the cap of its question's class.

    A probe ``softmax(W2 gelu(W1 h + b1) + b2)`` on the last layer's state h after the question says easy, normal or
    hard, once, before the first token; no token is spent on it. Classes follow the model's own traces: normal where
    most are right at a low mean entropy, hard where few are right, easy otherwise. Thinking is closed at ``share`` of
    the tokens that the budget leaves for it, and the answer asked for. The published bundles have a prompt each, too;
    that needs a second prefill and is left out here.

    Fewer tokens for hard questions is a bet that they are beyond the model: wrong where more thinking solves them. Set
    ``max_tokens`` to what the longest question needs, or every share of a large budget is more than enough.

    Args:
        head: of this very model; None = that of the embedded reasoner.
        bundles: of easy, normal and hard questions.
        max_tokens: of the trace.

    Source: DiffAdapt: Difficulty-Adaptive Reasoning for Token-Efficient LLM Inference (arXiv 2510.19669).

    >>> sorted(diffadapt_probe().needs)
    ['internals']
    """
    if any(not (one.temperature > 0 and 0 < one.share <= 1) for one in bundles):
        raise InvalidInput(f"bundles are {bundles}; give temperatures above 0 and shares in (0, 1]")

    async def solve(task: Task) -> Answer:
        from budgeteer.engine.head import load_head

        hook = Adapt(
            task.style.close, task.style.answer_tokens, head=head or load_head("diffadapt_probe"), bundles=bundles
        )
        return await one_trace(task, hook, max_tokens=max_tokens, temperature=1.0)

    return Strategy(solve, NEEDS)


@dataclass(frozen=True, kw_only=True)
class Adapt(Closing):
    """The probe and its bundles; a row keeps its class, and ``record["class"]`` holds that of the request."""

    head: Head = field(repr=False)
    bundles: tuple[Bundle, Bundle, Bundle]
    hidden = True

    def step(self, inside: Internals, rows: Sequence[Row], logits: Tensor, hidden: Tensor | None) -> Action:
        """Classify new rows; cool the logits and close the thinking of all by their class."""
        assert hidden is not None
        self.head.check(inside)
        states, force, thinking = self.watch(inside, rows)
        new = [i for i, state in enumerate(states) if state.own is None]
        if new:
            for i, kind in zip(new, self.head(hidden[new, -1:]).argmax(-1).tolist(), strict=True):
                states[i].own = rows[i].request.hook.record["class"] = kind
        for i in np.flatnonzero(thinking).tolist():
            share = self.bundles[states[i].own].share
            if len(rows[i].tokens) >= share * room(rows[i], self.reserve):
                self.cut(inside, rows[i])
                force[i] = states[i].queue.pop(0)
        temperature = logits.new_tensor([self.bundles[state.own].temperature for state in states])
        return Action(logits=logits / temperature[:, None], force=force)
