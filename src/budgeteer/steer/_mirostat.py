"""Mirostat: the mean surprise of a row is held at a target by a feedback controller on the truncation.

Paper: "Mirostat: A Neural Text Decoding Algorithm that Directly Controls Perplexity", arXiv 2007.14966.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64
from budgeteer.core.steer import Action, Need, Rows, Snapshot, Steer, Tensor, shared

ZIPF = 100
"""Ranks that the Zipf exponent of version 1 is fitted on."""


@dataclass(frozen=True, slots=True)
class Controller:
    """The bound mu of each row in bits, and the surprises [V] of the distribution that its last token was drawn from
    (None where that token was forced)."""

    mu: F64
    surprise: list[Tensor | None]


@shared
def mirostat(target: float = 1.0, *, rate: float = 1.0, version: int = 2, temperature: float = 1.0) -> Steer:
    """Hold the mean surprise of each row's tokens at ``target`` bits.

    A bound mu starts at 2 * target. At each token: version 2 drops the tokens of surprise ``-log2 p > mu`` (never the
    likeliest); version 1 keeps the top ``k = round((e 2^mu / (1 - N^-e))^(1/s)) + 1`` of N, with the Zipf exponent
    ``s = sum t_i b_i / sum t_i^2`` over the first 100 ranks, ``t_i = ln((i + 1) / i)``, ``b_i = ln(p_i / p_(i+1))``
    and ``e = s - 1``. The token that is drawn has surprise S under the whole distribution, and
    ``mu <- mu - rate * (S - target)``, so the mean of S differs from the target by (mu_0 - mu_n) / (rate * n). Forced
    tokens leave mu alone.

    Helps against drift into repetition or incoherence over long texts. A target above the model's own entropy cannot be
    met (truncation only lowers surprise); one below the surprise of its likeliest tokens cannot either. Then mu runs
    away, and the row is untruncated, or greedy.

    Args:
        target: bits a token, > 0.
        rate: step of the controller, >= 0; 0 leaves mu where it starts.
        version: 1, as published, or 2, as llama.cpp has it.
        temperature: of the distribution that is truncated, > 0.
    """
    if not (target > 0 and rate >= 0 and temperature > 0 and version in (1, 2)):
        raise InvalidInput(
            f"target={target}, rate={rate}, temperature={temperature}, version={version}; "
            "give a target and a temperature above 0, a rate of 0 or more and version 1 or 2"
        )

    def init(rows: Rows) -> Controller:
        return Controller(np.full(len(rows.keys), 2.0 * target), [None] * len(rows.keys))

    def step(state: Controller, now: Snapshot) -> tuple[Action, Controller]:
        import torch

        surprise = torch.log_softmax(now.logits.float() / temperature, -1) / -math.log(2)
        mu, kept_for = state.mu.copy(), list(state.surprise)
        for i, (row, last) in enumerate(zip(now.row.tolist(), now.last.tolist(), strict=True)):
            before = kept_for[row]
            if before is not None:
                mu[row] -= rate * (float(before[last]) - target)
            kept_for[row] = None if now.forced[i] else surprise[i]
        bound = surprise.new_tensor(mu[now.row].tolist())
        cut = _top(surprise, bound) if version == 1 else torch.maximum(bound, surprise.min(-1).values)
        kept = surprise <= cut[:, None]
        return Action(logits=torch.where(kept, -surprise * math.log(2), -math.inf)), Controller(mu, kept_for)

    return Steer(init, step, frozenset({Need.TOKENS, Need.LOGITS}))


def _top(surprise: Tensor, mu: Tensor) -> Tensor:
    """[m] surprise of the k-th likeliest token."""
    import torch

    ordered = surprise.sort(-1).values
    i = torch.arange(1, min(ZIPF, surprise.shape[1] - 1) + 1, device=surprise.device)
    t = torch.log((i + 1) / i).double()
    b = (ordered[:, i] - ordered[:, i - 1]).double() * math.log(2)
    s = (b @ t) / (t @ t)
    chosen = [top_k(float(si), float(mi), surprise.shape[1]) for si, mi in zip(s, mu, strict=True)]
    return ordered.gather(1, torch.tensor(chosen, device=surprise.device)[:, None] - 1)[:, 0]


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
