"""SwiReasoning: thinking switches between real tokens and mixed embeddings by the entropy of the next token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.engine.hook import Action, Internals, Row
from budgeteer.solve import Answer, Strategy, Task
from budgeteer.strategies.kit.inside import MOST, NEEDS, Closing, one_trace

if TYPE_CHECKING:
    from torch import Tensor


def switch_thinking(
    switches: int | None = 2,
    *,
    window: float = 512,
    alpha: float = 1.0,
    beta: float = 0.7,
    opening: str = "<think>",
    temperature: float = 1.0,
    max_tokens: int = MOST,
) -> Strategy:
    """One trace that thinks in mixed embeddings while it is unsure of its way, in tokens while it is sure.

    With p_t the next-token distribution, H_t its entropy, E the input embeddings and T the cap of the trace: a trace
    starts latent with reference H = H_0. A latent step feeds ``p_t' E``, an explicit one the drawn token. A latent
    trace goes explicit when H_t < H; an explicit one goes latent when H_t > H after at least ``window`` steps; either
    sets H = H_t. The first latent input is 0.9 of the mix and 0.1 of a newline; the first after going latent is
    ``a_t mix + (1 - a_t) E[opening]`` with ``a_t = alpha + (1 - alpha) t / T``; the first after going explicit is
    ``b_t mix + (1 - b_t) E[close]``, alike in ``beta``. When the count of latent-to-explicit switches reaches
    ``switches``, the thinking is closed and the answer asked for: under one seed, thinking is never shorter with more
    switches allowed.

    The official code's lock looks at drawn tokens only, so it closes the thinking more than once. Here a closed trace
    stays explicit, and ``close`` and the end of the sequence are never taken latently (the model would not see them):
    where the likeliest token is one of them, the step is an explicit one. Symbols of mathematics that the code may
    feed explicitly are not special here. A mix is far from what most models were trained on: expect the control, not
    the accuracy, on models that were never shown one.

    Args:
        switches: C_max, >= 1; None = no cap.
        window: W, steps, >= 0.
        alpha, beta: in [0, 1].
        opening: a marker that is one token; other texts are left out of the mix.
        temperature: of the draws, > 0.
        max_tokens: of the trace.

    Source: SwiReasoning: Switch-Thinking in Latent and Explicit for Pareto-Superior Reasoning LLMs (arXiv 2510.05069).

    >>> sorted(switch_thinking(3).needs)
    ['internals']
    """
    if not (0 <= alpha <= 1 and 0 <= beta <= 1 and window >= 0 and (switches is None or switches >= 1)):
        raise InvalidInput(
            f"switches={switches}, window={window}, alpha={alpha}, beta={beta}; give at least 1 switch or None, "
            "a window of 0 or more, alpha and beta in [0, 1]"
        )

    async def solve(task: Task) -> Answer:
        hook = Switch(
            task.style.close, task.style.answer_tokens, switches=switches, window=window, alpha=alpha, beta=beta,
            opening=opening,
        )  # fmt: skip
        return await one_trace(task, hook, max_tokens=max_tokens, temperature=temperature)

    return Strategy(solve, NEEDS)


@dataclass(slots=True)
class Mode:
    """Where one row is: latent or not, its reference entropy in nats, steps since it switched, switches so far."""

    latent: bool
    reference: float
    dwell: int = 0
    count: int = 0


@dataclass(frozen=True, kw_only=True)
class Switch(Closing):
    """The switching; a row keeps its :class:`Mode`."""

    switches: int | None
    window: float
    alpha: float
    beta: float
    opening: str
    hidden = False

    def step(self, inside: Internals, rows: Sequence[Row], logits: Tensor, hidden: Tensor | None) -> Action:
        """Decide each row's mode, and mix the inputs of those that are latent."""
        import torch

        states, force, thinking = self.watch(inside, rows)
        logp = torch.log_softmax(logits.float(), -1)
        p = logp.exp()
        entropy = torch.special.entr(p).sum(-1).tolist()
        markers = sorted({inside.eos, *inside.encode(self.close)[:1]})
        marked = np.isin(logits.argmax(-1).cpu().numpy(), markers)
        soft, drawn = np.zeros(len(rows), np.bool_), np.zeros(len(rows), np.bool_)
        # in double precision a row's mix does not depend on the rows beside it
        embeddings = (p.double() @ inside.embed.double()).to(inside.embed)
        for i, (row, state) in enumerate(zip(rows, states, strict=True)):
            first = state.own is None
            if first:
                state.own = Mode(latent=bool(thinking[i]), reference=entropy[i])
            mode: Mode = state.own
            if not thinking[i]:
                mode.latent = False
                continue
            t, switched = len(row.tokens) / row.request.max_tokens, False
            if not first:
                mode.dwell += 1
            if mode.latent:
                switched = bool(marked[i]) or (not first and entropy[i] < mode.reference)
            elif entropy[i] > mode.reference and mode.dwell >= self.window and not marked[i]:
                switched = True
            if switched:
                mode.latent, mode.reference, mode.dwell = not mode.latent, entropy[i], 0
                mode.count += not mode.latent
                if not mode.latent and self.switches is not None and mode.count >= self.switches:
                    self.cut(inside, row)
                    force[i] = state.queue.pop(0)
                    continue
            if mode.latent and first:
                embeddings[i] = self._blend(inside, embeddings[i], "\n", 0.9)
            elif mode.latent and switched:
                embeddings[i] = self._blend(inside, embeddings[i], self.opening, self.alpha + (1 - self.alpha) * t)
            elif switched and not marked[i]:
                embeddings[i] = self._blend(inside, embeddings[i], self.close, self.beta + (1 - self.beta) * t)
            soft[i] = mode.latent or (switched and not marked[i])
            drawn[i] = soft[i]
        # greedy rows take the argmax, which no division changes
        tempered = logits / logits.new_tensor([row.request.temperature or 1.0 for row in rows])[:, None]
        tempered[:, markers] = -math.inf
        return Action(logits=tempered, drawn=drawn, force=force, embeddings=embeddings, soft=soft)

    @staticmethod
    def _blend(inside: Internals, mix: Tensor, marker: str, share: float) -> Tensor:
        """``share`` of the mix and the rest of the marker's embedding; all of the mix if it is not one token."""
        ids = inside.encode(marker)
        return mix if len(ids) != 1 else share * mix + (1 - share) * inside.embed[ids[0]]
