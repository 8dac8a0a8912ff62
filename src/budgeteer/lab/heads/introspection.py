"""The head of ZIP-RC: value and remaining length of a trace, together.

Paper: "Zero-Overhead Introspection for Adaptive Test-Time Compute", arXiv 2512.01457.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from budgeteer.core.plan import I64, right
from budgeteer.engine.head import Head
from budgeteer.lab.heads.fit import FLAT, Form, HeldOut, fit, held, outputs_of
from budgeteer.lab.heads.traces import Traces

VALUES = tuple(i / 6 for i in range(7))
"""Values of the head: a probability of being right, denoised."""
KEEP = 16
"""Last positions of a trace whose predicted values are averaged into its label."""
BINS = 7
"""Bins of remaining length."""


class Introspection(NamedTuple):
    """The head, and the one of the first round, which predicts the logit of being right."""

    head: Head
    first: Head


def length_bins(max_tokens: int) -> tuple[int, ...]:
    """Left edges of BINS bins of remaining length: 0, and powers of two up to the largest one below the cap.

    >>> length_bins(160), length_bins(32768)
    ((0, 4, 8, 16, 32, 64, 128), (0, 512, 1024, 2048, 4096, 8192, 16384))
    """
    last = max(BINS - 2, (max_tokens - 1).bit_length() - 1)
    return (0, *(2**power for power in range(last - BINS + 2, last + 1)))


def train_introspection(
    traces: Traces, fingerprint: str, *, lengths: tuple[int, ...], steps: int, seed: int, form: Form = FLAT
) -> Introspection:
    """p(value, remaining length) in two rounds: predict being right, average the last predictions of each trace into
    its value, and predict that with the length.

    Args:
        traces: all of them graded.
        fingerprint: of the model.
        lengths: left edges of the bins of remaining length, from 0 on.
        steps: of the second round; the first has half as many.
        seed: of everything random.
        form: of the head.
    """
    generator = torch.Generator().manual_seed(seed)
    good = torch.from_numpy(right(traces.right)).float()[torch.from_numpy(traces.trace)]
    first = form.start(traces.states, 1, generator, fingerprint, {})

    def guess(features: Tensor, chosen: Tensor) -> Tensor:
        logits = (features @ first.weights["w2"] + first.weights["b2"])[:, 0]
        return F.binary_cross_entropy_with_logits(logits, good[chosen])

    aside = traces.aside(seed=seed) if len(traces.questions) > 1 else None
    fit(first, traces.states, guess, steps=steps // 2, seed=seed, rate=form.rate, aside=aside)
    settings = {"values": VALUES, "lengths": lengths}
    head = form.start(traces.states, len(VALUES) * len(lengths), generator, fingerprint, settings)
    slot = torch.from_numpy(labels(first, traces, lengths))

    def joint(features: Tensor, chosen: Tensor) -> Tensor:
        return F.cross_entropy(features @ head.weights["w2"] + head.weights["b2"], slot[chosen])

    fit(head, traces.states, joint, steps=steps, seed=seed, rate=form.rate, aside=aside)
    return Introspection(head, first)


def labels(first: Head, traces: Traces, lengths: tuple[int, ...]) -> I64:
    """[N] value bin times the number of length bins, plus the length bin, of each position.

    Args:
        first: predicts the logit of being right.
        traces: with the positions.
        lengths: left edges of the bins.
    """
    predicted = outputs_of(first, traces.states).sigmoid()[:, 0].double().numpy()
    # how many kept positions of the same trace follow
    after = np.searchsorted(traces.trace, traces.trace, side="right") - 1 - np.arange(len(traces.trace))
    late, n = after < KEEP, len(traces.length)
    value = np.bincount(traces.trace[late], predicted[late], n) / np.bincount(traces.trace[late], minlength=n)
    left = (traces.length[traces.trace] - traces.index).astype(np.int64)
    value_bin = np.rint(value * (len(VALUES) - 1)).astype(np.int64)[traces.trace]
    return np.asarray(value_bin * len(lengths) + np.searchsorted(lengths, left, side="right") - 1)


def held_introspection(made: Introspection, trained: Traces, other: Traces) -> HeldOut:
    """Cross-entropy of the joint bin, whose value is that of the first round, beside the frequencies of the bins."""
    lengths = tuple(made.head.settings["lengths"])
    own, theirs = (labels(made.first, traces, lengths) for traces in (trained, other))
    count = np.bincount(own, minlength=len(VALUES) * len(lengths)) + 1.0
    constant = -np.log(count / count.sum())[theirs]
    logits = outputs_of(made.head, other.states)
    mine = F.cross_entropy(logits.double(), torch.from_numpy(theirs), reduction="none").numpy()
    return held("cross-entropy of value and remaining length", mine, constant, other.group[other.trace])
