"""Mirostat: a trace whose mean surprise is held at a target by a feedback controller on the truncation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from budgeteer.core.errors import InvalidInput
from budgeteer.engine.hook import Action, Internals, Row
from budgeteer.solve import Answer, Strategy, Task
from budgeteer.strategies.kit.inside import MOST, NEEDS, Closing, one_trace

if TYPE_CHECKING:
    from torch import Tensor

ZIPF = 100
"""Ranks that the Zipf exponent of version 1 is fitted on."""


def mirostat(
    target: float = 1.0, *, rate: float = 1.0, version: int = 2, temperature: float = 1.0, max_tokens: int = MOST
) -> Strategy:
    """One trace at a mean surprise of ``target`` bits a token.

    A bound mu starts at 2 * target. At each token: version 2 drops the tokens of surprise ``-log2 p > mu`` (never the
    likeliest); version 1 keeps the top ``k = round((e 2^mu / (1 - N^-e))^(1/s)) + 1`` of N, with the Zipf exponent
    ``s = sum t_i b_i / sum t_i^2`` over the first 100 ranks, ``t_i = ln((i + 1) / i)``, ``b_i = ln(p_i / p_(i+1))``
    and ``e = s - 1``. The token that is drawn has surprise S under the whole distribution, and
    ``mu <- mu - rate * (S - target)``, so the mean of S differs from the target by (mu_0 - mu_n) / (rate * n).

    It helps against drift into repetition or incoherence over long texts. A target above the model's own entropy
    cannot be met (truncation only lowers surprise); one below the surprise of its likeliest tokens cannot either. Then
    mu runs away, and the trace is untruncated, or greedy.

    Args:
        target: bits a token, > 0.
        rate: step of the controller, >= 0; 0 leaves mu where it starts.
        version: 1, as published, or 2, as llama.cpp has it.
        temperature: of the distribution that is truncated, > 0.
        max_tokens: of the trace.

    Source: Mirostat: A Neural Text Decoding Algorithm that Directly Controls Perplexity (arXiv 2007.14966).

    >>> sorted(mirostat(2.0).needs)
    ['internals']
    """
    if not (target > 0 and rate >= 0 and temperature > 0 and version in (1, 2)):
        raise InvalidInput(
            f"target={target}, rate={rate}, temperature={temperature}, version={version}; "
            "give a target and a temperature above 0, a rate of 0 or more and version 1 or 2"
        )

    async def solve(task: Task) -> Answer:
        hook = Mirostat(
            task.style.close, task.style.answer_tokens, target=target, rate=rate, version=version,
            temperature=temperature,
        )  # fmt: skip
        return await one_trace(task, hook, max_tokens=max_tokens, temperature=temperature)

    return Strategy(solve, NEEDS)


@dataclass(frozen=True, kw_only=True)
class Mirostat(Closing):
    """The controller; a row keeps (mu, surprises of the last distribution)."""

    target: float
    rate: float
    version: int
    temperature: float
    hidden = False

    def step(self, inside: Internals, rows: Sequence[Row], logits: Tensor, hidden: Tensor | None) -> Action:
        """Truncate each row at its own mu."""
        import torch

        states, force, _ = self.watch(inside, rows)
        surprise = torch.log_softmax(logits.float() / self.temperature, -1) / -math.log(2)
        for i, (row, state) in enumerate(zip(rows, states, strict=True)):
            mu = 2 * self.target
            if state.own is not None:
                mu, last = state.own
                if last is not None:
                    mu -= self.rate * (float(last[row.tokens[-1]]) - self.target)
            # a forced token is none of the controller's
            state.own = (mu, surprise[i] if force[i] < 0 else None)
        bound = surprise.new_tensor([state.own[0] for state in states])
        cut = self._top(surprise, bound) if self.version == 1 else torch.maximum(bound, surprise.min(-1).values)
        kept = surprise <= cut[:, None]
        return Action(logits=torch.where(kept, -surprise * math.log(2), -math.inf), force=force)

    @staticmethod
    def _top(surprise: Tensor, mu: Tensor) -> Tensor:
        """[m] surprise of the k-th likeliest token."""
        import torch

        ordered = surprise.sort(-1).values
        i = torch.arange(1, min(ZIPF, surprise.shape[1] - 1) + 1)
        t = torch.log((i + 1) / i).double()
        b = (ordered[:, i] - ordered[:, i - 1]).double() * math.log(2)
        s = (b @ t) / (t @ t)
        k = torch.tensor([top_k(float(si), float(mi), surprise.shape[1]) for si, mi in zip(s, mu, strict=True)])
        return ordered.gather(1, k[:, None] - 1)[:, 0]


def top_k(s: float, mu: float, n: int) -> int:
    """k in [1, n] of version 1, from the Zipf exponent s and the bound mu in bits.

    >>> top_k(2.0, 3.0, 1000)  # e = 1: (8 / (1 - 1/1000))^(1/2) = 2.83, rounded 3, plus 1
    4
    >>> top_k(1.0, 3.0, 1000)  # e -> 0: 8 / ln 1000 = 1.16
    2
    """
    if not s > 0:  # flat: the fit says nothing, so nothing is cut
        return n
    e = s - 1
    slope = 1 / math.log(n) if abs(e) < 1e-9 else e / -math.expm1(-e * math.log(n))
    log_k = (math.log(slope) + mu * math.log(2)) / s
    return n if log_k >= math.log(n) else max(1, min(n, round(math.exp(log_k)) + 1))
