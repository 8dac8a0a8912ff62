"""The head of budget guidance: how many tokens of thinking are still to come, for every next token.

Paper: "Steering LLM Thinking with Budget Guidance", arXiv 2506.13752.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import I64
from budgeteer.core.steer import Mask
from budgeteer.engine.head import Head
from budgeteer.lab.heads.fit import BATCH, FLAT, Form, HeldOut, fit, held, outputs_of
from budgeteer.lab.heads.traces import Traces

GAIN = 16.0
"""On the last layer while it is trained: a sure prediction has a shape of hundreds. None in the form layers."""
OFTEN = 20
"""Tokens that came next fewer times than this share one Gamma."""
ROWS = 64
"""Most Gammas of a head in vocabulary rows, which are two rows each."""
RATE = 3e-3
"""Largest learning rate where there is a gain, which multiplies what a step does."""
SHAPE = 1000.0
"""Largest shape that a training begins with."""
LEAST = 1e-4
"""Added to shape and rate, which are above 0."""


def train_guidance(
    states: Tensor,
    token: I64,
    left: I64,
    *,
    vocab: int,
    fingerprint: str,
    line_ends: Sequence[str],
    steps: int,
    seed: int,
    batch: int = BATCH,
    often: int = 0,
    form: Form = FLAT,
    aside: Mask | None = None,
) -> Head:
    """Gamma(shape, rate) of log(L + 1) for every next token, L = tokens of thinking still to come, that one included.

    Args:
        states: [N, layers, hidden] of the frozen model, at positions inside the thinking of any traces.
        token: [N] that came next.
        left: [N] L, the marker that ends the thinking included; >= 1.
        vocab: size of the vocabulary.
        fingerprint: of the model.
        line_ends: pieces of text after which the next token is steered.
        steps, batch: of the training.
        seed: of everything random.
        often: tokens that came next fewer times share one Gamma, since nothing is known of each of them. With the 0 of
            a small vocabulary every token has its own. In vocabulary rows, ROWS - 1 tokens at most have their own.
        form: of the head.
        aside: [N] positions by which the training is stopped, see :func:`budgeteer.lab.heads.fit.fit`.

    Raises:
        InvalidInput: no positions.
    """
    if not len(token):
        raise InvalidInput(
            "no trace has thinking that a head for guidance could learn from; ask in a style that has it"
        )
    log_left = torch.from_numpy(np.log(left + 1.0)).float()
    # [vocab] which Gamma a token has; the shared one is the last
    count = np.bincount(token, minlength=vocab)
    known = count >= often
    if form.name == "vocabulary" and known.sum() >= ROWS:
        known[np.argsort(-count, kind="stable")[ROWS - 1 :]] = False
    own = np.where(known, np.cumsum(known) - 1, known.sum())
    kinds = int(own.max()) + 1
    kind = torch.from_numpy(own[token])
    generator = torch.Generator().manual_seed(seed)
    settings = {"vocab": vocab, "line_ends": tuple(line_ends)}
    head = form.start(states, 2 * kinds, generator, fingerprint, settings)
    gain = 1.0 if form.name == "layers" else GAIN
    if form.name != "layers":  # begin as the best constant; the maps of the encoder have no bias that could be it
        shape, rate = likeliest(log_left)
        most = min(1.0, SHAPE / shape)
        for own_half, value in ((slice(None, kinds), shape * most), (slice(kinds, None), rate * most)):
            head.weights["b2"][own_half] = (value + math.log(-math.expm1(-value))) / gain  # softplus turned round

    def loss(features: Tensor, chosen: Tensor) -> Tensor:
        next_kind, ell = kind[chosen], log_left[chosen]
        w, b = head.weights["w2"].t(), head.weights["b2"]
        shape, rate = (
            F.softplus(gain * ((features * F.embedding(next_kind + shift, w)).sum(-1) + b[next_kind + shift])) + LEAST
            for shift in (0, kinds)
        )
        return -log_density(shape, rate, ell).mean()

    fit(
        head,
        states,
        loss,
        steps=steps,
        seed=seed,
        batch=batch,
        rate=form.rate if gain == 1 else min(form.rate, RATE),
        aside=aside,
    )
    for name in ("w2", "b2"):
        head.weights[name] = gain * head.weights[name]
    head.weights["columns"] = torch.from_numpy(np.concatenate([own, kinds + own]))
    return head


def log_density(shape: Tensor, rate: Tensor, ell: Tensor) -> Tensor:
    """Log-density of Gamma(shape, rate) at ell > 0, of the shapes of the three."""
    return torch.xlogy(shape, rate) - torch.lgamma(shape) + (shape - 1) * ell.log() - rate * ell


def likeliest(ell: Tensor) -> tuple[float, float]:
    """Shape and rate of the Gamma under which positive numbers [n] are likeliest, by Newton's method.

    The shape k solves ``log k - digamma(k) = log mean(ell) - mean(log ell)``, the rate is k / mean. Numbers that are
    all equal have no finite shape; then it is 1e6.
    """
    ell = ell.double()
    gap = float(ell.mean().log() - ell.log().mean())
    if gap < 1e-6:
        return 1e6, 1e6 / float(ell.mean())
    k = torch.tensor((3 - gap + ((gap - 3) ** 2 + 24 * gap) ** 0.5) / (12 * gap), dtype=torch.double)
    for _ in range(20):
        step = (k.log() - torch.digamma(k) - gap) / (1 / k - torch.polygamma(1, k))
        k = torch.where(k > step, k - step, k / 2)
    return float(k), float(k) / float(ell.mean())


def held_guidance(head: Head, trained: Traces, other: Traces) -> HeldOut:
    """Negative log-density of log(L + 1) given the token that came next, beside one Gamma of all lengths."""
    _, own = trained.thinking()
    inside, left = other.thinking()
    if not len(left):
        raise InvalidInput("no held-out trace has thinking; collect traces of more questions")
    ell = torch.from_numpy(np.log(left + 1.0))
    vocab = head.settings["vocab"]
    both = F.softplus(outputs_of(head, other.states[torch.from_numpy(inside)])) + LEAST
    token = torch.from_numpy(other.token[inside])[:, None]
    shape, rate = (both[:, shift : shift + vocab].gather(1, token)[:, 0].double() for shift in (0, vocab))
    k, r = (torch.tensor(value, dtype=torch.double) for value in likeliest(torch.from_numpy(np.log(own + 1.0))))
    question = other.group[other.trace[inside]]
    own_loss, constant = (-log_density(*gamma, ell).numpy() for gamma in ((shape, rate), (k, r)))
    return held("negative log-density of the thinking still to come", own_loss, constant, question)
