"""Log-probabilities and entropies of rollouts under a model that runs here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from budgeteer.core.plan import I64
from budgeteer.engine.llama import Llama
from budgeteer.rl.rollouts import Rollouts

MICRO = 1536
"""Positions of one forward-backward pass; small enough that activations stay in the processor's cache."""


def completion_logprobs(
    model: Llama, prompts: Sequence[Sequence[int]], tokens: I64, length: I64, temperature: float
) -> Tensor:
    """[sum(length), vocabulary] log-probabilities at the places of the completions' tokens, row by row.

    Args:
        prompts: n prompts; tokens: [n, t] completions; length: [n].
    """
    n = len(length)
    starts = np.array([len(p) for p in prompts])
    width = int((starts + length).max())
    full = np.zeros((n, width), np.int64)
    for i, prompt in enumerate(prompts):
        full[i, : starts[i]] = prompt
        full[i, starts[i] : starts[i] + length[i]] = tokens[i, : length[i]]
    place = np.arange(width)[None, :]
    predicts = (place >= starts[:, None] - 1) & (place < (starts + length)[:, None] - 1)
    device = model.device
    batch = torch.from_numpy(full).to(device)
    hidden = model(batch)[torch.from_numpy(predicts).to(device)]
    return F.log_softmax(model.logits(hidden).float() / temperature, -1)


def token_logprobs(
    model: Llama, prompts: Sequence[Sequence[int]], tokens: I64, length: I64, temperature: float
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the completions' tokens, flattened row by row.

    Returns:
        (log-probabilities [sum(length)], mask [n, t] of the positions they belong to).
    """
    logp = completion_logprobs(model, prompts, tokens, length, temperature)
    mask = np.arange(tokens.shape[1])[None, :] < length[:, None]
    target = torch.from_numpy(tokens[mask]).to(model.device)
    return logp.gather(-1, target[:, None])[:, 0], torch.from_numpy(mask)


def entropies(model: Llama, rollouts: Rollouts, temperature: float) -> NDArray[np.float32]:
    """[n, t] entropy in nats of the tempered policy at the place of each token; NaN behind the end of a row.

    One more pass over the rollouts, without gradient.
    """
    width = rollouts.tokens.shape[1]
    values = np.full(rollouts.tokens.shape, np.nan, np.float32)
    within = np.arange(width) < rollouts.length[:, None]
    for rows in np.array_split(np.arange(len(rollouts)), max(1, within.size // MICRO)):
        if len(rows):
            prompts = rollouts.prompts_of(rows)
            with torch.no_grad():
                logp = completion_logprobs(model, prompts, rollouts.tokens[rows], rollouts.length[rows], temperature)
            part = values[rows]
            part[within[rows]] = -(logp.exp() * logp).sum(-1).cpu().numpy()
            values[rows] = part
    return values
