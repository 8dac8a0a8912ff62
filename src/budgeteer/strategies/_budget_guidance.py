"""Budget Guidance: at the start of a line, favour the tokens after which the thinking is likely to fit."""

from __future__ import annotations

import math
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


def budget_guidance(
    head: Head | None = None,
    *,
    min_rate: float = 0.0,
    min_mode: float = 0.9,
    temperature: float = 1.0,
    max_tokens: int = MOST,
) -> Strategy:
    """One trace whose thinking is steered to end by itself within what the budget leaves.

    A head on the hidden states of all layers gives, for every next token v, ``log(L + 1) ~ Gamma(shape_v, rate_v)``
    with L the tokens of thinking still to come. At line starts the next token is drawn from

        p_v * a_v / sum,   a_v = P(L <= b | v) = GammaCDF(log(b + 1); shape_v, rate_v)

    with p the untempered distribution of the model and b the thinking tokens left. Tokens with a rate below
    ``min_rate``, a shape of 1 or less or a mode ``exp((shape - 1) / rate) - 1 < min_mode`` have a = 0; the likeliest
    token is taken where nothing is left. Other tokens are drawn as usual. Guidance does not bound anything by itself:
    when only the room for the answer is left, the thinking is closed and the answer asked for, as in budget forcing.

    It helps where the way on that fits can be told from the one that does not (a conclusion from another check), and
    not where what is next says nothing about how much follows.

    Args:
        head: of this very model; None = that of the embedded reasoner.
        min_rate: filter on the rate. The official code has 10, which suits lengths in thousands; a Gamma of short and
            uncertain lengths has a lower rate, and all tokens would be masked.
        min_mode: filter on the mode, tokens.
        temperature: of the draws within lines, >= 0.
        max_tokens: of the trace.

    Source: Steering LLM Thinking with Budget Guidance (arXiv 2506.13752).

    >>> sorted(budget_guidance().needs)
    ['internals']
    """
    if min_rate < 0 or temperature < 0:
        raise InvalidInput(f"min_rate={min_rate}, temperature={temperature}; both are 0 or more")

    async def solve(task: Task) -> Answer:
        from budgeteer.engine.head import load_head

        hook = Guidance(
            task.style.close, task.style.answer_tokens, head=head or load_head("budget_guidance"), min_rate=min_rate,
            min_mode=min_mode,
        )  # fmt: skip
        return await one_trace(task, hook, max_tokens=max_tokens, temperature=temperature)

    return Strategy(solve, NEEDS)


def weights(shape: Tensor, rate: Tensor, left: Tensor, *, min_rate: float, min_mode: float) -> Tensor:
    """a_v [m, V] of shape and rate [m, V] and thinking tokens left [m]; filtered tokens have 0."""
    import torch

    reached = torch.special.gammainc(shape, rate * torch.log1p(left)[:, None])
    mode = torch.expm1((shape - 1) / rate)
    return torch.where((rate >= min_rate) & (shape > 1) & (mode >= min_mode), reached, 0.0)


@dataclass(frozen=True, kw_only=True)
class Guidance(Closing):
    """The steering. ``head`` None: none, which leaves plain budget forcing."""

    head: Head | None = field(repr=False)
    min_rate: float
    min_mode: float

    @property
    def hidden(self) -> bool:
        """The states are the head's input."""
        return self.head is not None

    def step(self, inside: Internals, rows: Sequence[Row], logits: Tensor, hidden: Tensor | None) -> Action:
        """Reweight the rows that start a line of thinking."""
        import torch

        _, force, thinking = self.watch(inside, rows)
        if self.head is None or hidden is None:
            return Action(force=force)
        self.head.check(inside)
        ends = tuple(self.head.settings["line_ends"])
        at_start = [not row.tokens or inside.pieces[row.tokens[-1]].endswith(ends) for row in rows]
        steered = thinking & np.array(at_start)
        some = np.flatnonzero(steered)
        if not len(some):
            return Action(force=force)
        vocab = self.head.settings["vocab"]
        gamma = torch.nn.functional.softplus(self.head(hidden[some])) + 1e-4
        # the closing marker is thinking, too
        extra = len(inside.encode(self.close))
        left = [max(room(rows[i], self.reserve) + extra - len(rows[i].tokens), 1) for i in some.tolist()]
        factor = weights(
            gamma[:, :vocab], gamma[:, vocab:], gamma.new_tensor(left), min_rate=self.min_rate, min_mode=self.min_mode
        )
        guided = torch.log_softmax(logits[some].float(), -1) + factor.log()
        best = logits[some].argmax(-1, keepdim=True)
        nothing = torch.isneginf(guided).all(-1, keepdim=True)
        guided.scatter_(-1, best, torch.where(nothing, 0.0, guided.gather(-1, best)))
        out = logits.new_full(logits.shape, -math.inf)
        out[some] = guided.to(out.dtype)
        return Action(logits=out, drawn=steered, force=force)
