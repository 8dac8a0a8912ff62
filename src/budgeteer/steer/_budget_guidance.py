"""Budget guidance: at the start of a line, favour the tokens after which the thinking is likely to fit.

Paper: "Steering LLM Thinking with Budget Guidance", arXiv 2506.13752.
"""

from __future__ import annotations

import math

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.steer import NOTHING, Action, Need, Snapshot, State, Steer, Tensor, shared
from budgeteer.steer.kit import Head, read_by, require_settings, room, thinking


@shared
def budget_guidance(head: Head, *, reserve: int = 0, min_rate: float = 0.0, min_mode: float = 0.9) -> Steer:
    """Draw the first token of a line of thinking from ``p_v * P(L <= b | v)``, normalised.

    The head gives, for every next token v, ``log(L + 1) ~ Gamma(shape_v, rate_v)`` with L the tokens of thinking
    still to come; p is the untempered distribution of the model, b the thinking tokens that the row's cap leaves.
    Tokens with a rate below ``min_rate``, a shape of 1 or less or a mode ``exp((shape - 1) / rate) - 1 < min_mode``
    are excluded; the likeliest token is taken where nothing is left. It bounds nothing by itself.

    Helps where the way on that fits can be told from the one that does not; does not where what is next says nothing
    about how much follows.

    Args:
        head: of this very model.
        reserve: tokens of the row's cap that are kept for the marker and the answer.
        min_rate: filter on the rate. The official code has 10, which suits lengths in thousands; a Gamma of short and
            uncertain lengths has a lower rate, and all tokens would be masked.
        min_mode: filter on the mode, tokens.
    """
    if min_rate < 0:
        raise InvalidInput(f"min_rate={min_rate}; it is 0 or more")
    require_settings(head, "vocab", "line_ends")

    def step(state: State, now: Snapshot) -> tuple[Action, State]:
        import torch

        head.check(now.model)
        ends = tuple(head.settings["line_ends"])
        at_start = [last < 0 or now.model.pieces[last].endswith(ends) for last in now.last.tolist()]
        steered = thinking(now) & np.array(at_start, np.bool_)
        some = np.flatnonzero(steered)
        if not len(some):
            return NOTHING, state
        vocab = head.settings["vocab"]
        gamma = torch.nn.functional.softplus(head(read_by(head, now, some))) + 1e-4
        # the closing marker is thinking, too
        marker = np.array([len(now.close(i)) for i in some.tolist()])
        left = np.maximum(room(now.cap[some], reserve) + marker - now.length[some], 1)
        factor = weights(
            gamma[:, :vocab],
            gamma[:, vocab:],
            gamma.new_tensor(left.tolist()),
            min_rate=min_rate,
            min_mode=min_mode,
        )
        logits = now.logits[some]
        logits[:, list(now.model.never)] = -math.inf
        logits = logits[:, :vocab]  # rows that were added to the model for heads belong to no token
        guided = torch.log_softmax(logits.float(), -1) + factor.log()
        best = logits.argmax(-1, keepdim=True)
        nothing = torch.isneginf(guided).all(-1, keepdim=True)
        guided.scatter_(-1, best, torch.where(nothing, 0.0, guided.gather(-1, best)))
        out = now.logits.new_full(now.logits.shape, -math.inf)
        out[some, :vocab] = guided.to(out.dtype)
        return Action(logits=out, drawn=steered), state

    needs = frozenset({Need.TOKENS, Need.MARKERS, Need.TEXT, Need.LOGITS, head.reads})
    return Steer(lambda rows: (), step, needs)


def weights(shape: Tensor, rate: Tensor, left: Tensor, *, min_rate: float, min_mode: float) -> Tensor:
    """P(L <= left) [m, V] of shape and rate [m, V] and thinking tokens left [m]; excluded tokens have 0."""
    import torch

    reached = torch.special.gammainc(shape, rate * torch.log1p(left)[:, None])
    mode = torch.expm1((shape - 1) / rate)
    return torch.where((rate >= min_rate) & (shape > 1) & (mode >= min_mode), reached, 0.0)
