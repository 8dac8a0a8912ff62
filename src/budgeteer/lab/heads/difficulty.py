"""The probe of DiffAdapt: easy, normal or hard, from the state after the question.

Paper: "DiffAdapt: Difficulty-Adaptive Reasoning for Token-Efficient LLM Inference", arXiv 2510.19669.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from budgeteer.core.plan import F64, I64, right
from budgeteer.engine.head import Head
from budgeteer.lab.heads.fit import Form, HeldOut, fit, held, outputs_of
from budgeteer.lab.heads.traces import Traces

CLASSES = 3
"""Easy, normal, hard."""
WIDTH, BATCH = 32, 256
"""Of the hidden layer; positions of a batch."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Normal: accuracy >= alpha at a mean entropy <= beta. Hard: accuracy < gamma. Easy: all others."""

    alpha: float
    beta: float
    gamma: float

    def classes(self, accuracy: F64, entropy: F64) -> I64:
        """[g] 0 = easy, 1 = normal, 2 = hard.

        >>> sharp = Thresholds(0.75, 0.5, 0.25)
        >>> sharp.classes(np.array([1.0, 1.0, 0.5, 0.0]), np.array([0.2, 0.9, 0.2, 0.2])).tolist()
        [1, 0, 0, 2]
        """
        normal = (accuracy >= self.alpha) & (entropy <= self.beta)
        return np.where(normal, 1, np.where(accuracy < self.gamma, 2, 0))


def measured(traces: Traces) -> tuple[F64, F64]:
    """[g] accuracy and mean entropy of each question's traces."""
    g = len(traces.questions)
    per = np.bincount(traces.group, minlength=g)
    accuracy = np.bincount(traces.group, right(traces.right), g) / per
    return accuracy, np.bincount(traces.group, traces.entropy, g) / per


def prompts(traces: Traces) -> Tensor:
    """[g, 1, hidden] the last layer's state after each question's prompt."""
    begin = np.flatnonzero(traces.index == 0)
    _, first = np.unique(traces.group[traces.trace[begin]], return_index=True)
    return traces.states[torch.from_numpy(begin[first]), -1:]


def train_difficulty(traces: Traces, fingerprint: str, *, steps: int, seed: int, form: str = "flat") -> Head:
    """Classes easy, normal, hard of DiffAdapt from the last state of the prompt: normal where most traces are right at
    low entropy, hard where few are, easy otherwise; thresholds are thirds and the median of what was observed.

    Args:
        traces: all of them graded.
        fingerprint: of the model.
        steps: of the training.
        seed: of everything random.
        form: ``"flat"``, as in the paper, or ``"vocabulary"``. There is one layer, so no encoder over them.
    """
    accuracy, entropy = measured(traces)
    alpha, gamma, beta = *np.quantile(accuracy, [2 / 3, 1 / 3]), np.median(entropy)
    cuts = Thresholds(float(alpha), float(beta), float(gamma))
    states, target = prompts(traces), torch.from_numpy(cuts.classes(accuracy, entropy))
    generator = torch.Generator().manual_seed(seed)
    settings = {"alpha": cuts.alpha, "beta": cuts.beta, "gamma": cuts.gamma}
    made = Form(form, WIDTH)
    head = made.start(states, CLASSES, generator, fingerprint, settings)

    def loss(features: Tensor, chosen: Tensor) -> Tensor:
        return F.cross_entropy(features @ head.weights["w2"] + head.weights["b2"], target[chosen])

    aside = None
    if len(accuracy) > 1:
        aside = np.zeros(len(accuracy), np.bool_)
        aside[np.unique(traces.group[traces.trace[traces.aside(seed=seed)]])] = True
    return fit(head, states, loss, steps=steps, seed=seed, batch=BATCH, rate=made.rate, aside=aside)


def held_difficulty(head: Head, trained: Traces, other: Traces) -> HeldOut:
    """Cross-entropy of the class, beside the frequencies of the classes."""
    cuts = Thresholds(*(head.settings[name] for name in ("alpha", "beta", "gamma")))
    own, theirs = (cuts.classes(*measured(traces)) for traces in (trained, other))
    count = np.bincount(own, minlength=CLASSES) + 1.0
    constant = -np.log(count / count.sum())[theirs]
    logits = outputs_of(head, prompts(other)).double()
    mine = F.cross_entropy(logits, torch.from_numpy(theirs), reduction="none").numpy()
    return held("cross-entropy of the class", mine, constant, np.arange(len(theirs)))
