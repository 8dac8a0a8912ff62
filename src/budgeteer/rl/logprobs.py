"""Log-probabilities, entropies and attention of rollouts under a model that runs here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from budgeteer.core.plan import I64
from budgeteer.engine.llama import Block, Llama
from budgeteer.engine.table import marked, marks_of_tokens
from budgeteer.models.policy import Markers
from budgeteer.rl.beside import Beside, Reading, log_odds
from budgeteer.rl.rollouts import Role, Rollouts

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


def of_heads(model: Llama, rollouts: Rollouts, temperature: float, markers: Markers) -> Rollouts:
    """The rollouts with log-probabilities of the tokens of earlier rollouts at their heads, which are then trained on,
    and with the lengths at which thinking and answer were complete, heads included.

    One more pass over the rows that have such heads, without gradient.
    """
    marks = marks_of_tokens(model.config.vocab_size, markers.eos, markers.think_end, markers.answer_end)
    closed, answered = marked(rollouts.tokens, rollouts.length, marks)
    logprob, carried = rollouts.logprob.copy(), rollouts.role == Role.CARRIED
    some = np.flatnonzero(carried.any(axis=1))
    for rows in np.array_split(some, max(1, len(some) * rollouts.tokens.shape[1] // MICRO)):
        if len(rows):
            tokens, length = rollouts.tokens[rows], rollouts.length[rows]
            with torch.no_grad():
                values, mask = token_logprobs(model, rollouts.prompts_of(rows), tokens, length, temperature)
            part = np.full(tokens.shape, np.nan, np.float32)
            part[mask.numpy()] = values.float().cpu().numpy()
            logprob[rows] = np.where(carried[rows], part, logprob[rows])
    return replace(rollouts, logprob=logprob, closed=closed, answered=answered)


def backward_beside(model: Llama, term: Beside, reading: Reading) -> float:
    """Add the gradient of a term beside the loss of the rollouts, and return its mean loss; 0 for no row.

    The model's own distribution counts, whatever temperature rollouts are sampled at.
    """
    total, count = 0.0, int(reading.length.sum())
    longest = max(map(len, reading.prompts), default=0) + reading.tokens.shape[1]
    for rows in np.array_split(np.arange(len(reading)), max(1, len(reading) * longest // MICRO)):
        if not len(rows):
            continue
        part = reading.take(rows)
        logp = completion_logprobs(model, part.prompts, part.tokens.clip(min=0), part.length, 1.0)
        mask = np.arange(part.tokens.shape[1]) < part.length[:, None]
        ids = [None if x is None else torch.from_numpy(x[mask]).to(model.device) for x in (part.tokens, part.other)]
        assert ids[0] is not None
        loss = term.loss(log_odds(logp, ids[0], ids[1])).sum()
        (loss * (term.weight / count)).backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total / max(count, 1)


def attention_of_last(model: Llama, before: Sequence[int], tokens: Sequence[int]) -> NDArray[np.float32]:
    """[t] attention that the last of ``tokens`` gives each of them, the mean over all layers and heads.

    Args:
        before: token ids in front of them.
        tokens: t token ids.
    """
    ids = torch.tensor([[*before, *tokens]], device=model.device)
    with torch.no_grad():
        states, t = model.states(F.embedding(ids, model.embed)), ids.shape[1]
        total = torch.zeros(t, device=model.device)
        for block, state in zip(model.blocks, states, strict=False):
            assert isinstance(block, Block)
            q, k, _ = block.project(state, model.cos[:t], model.sin[:t])  # type: ignore[index]
            k = k.repeat_interleave(block.heads // block.kv_heads, 1)
            weight = (q[:, :, -1:] @ k.transpose(-1, -2)).float() / math.sqrt(block.head_dim)
            total += weight.softmax(-1).mean(dim=(0, 1, 2))
    return (total / len(model.blocks))[len(before) :].cpu().numpy()
