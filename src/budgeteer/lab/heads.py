"""Trains heads from nothing: guidance, introspection and difficulty of the embedded reasoner, on its own traces.

:func:`train_guidance` works for any model whose hidden states are known. For the reasoner, one set of traces is used
for all three: problems of every family that it was pretrained on, several traces of each at temperature 1, ended at
the first line after the thinking. The result is a function of the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from budgeteer.core.environment import Item
from budgeteer.core.errors import Diverged
from budgeteer.core.plan import F64, I64, right
from budgeteer.core.steer import Internals
from budgeteer.engine.head import Head, save_head
from budgeteer.engine.llama import Llama
from budgeteer.lab.run import one_thread, rewards
from budgeteer.lab.tasks.chains import Chains
from budgeteer.lab.tasks.gym import Gym
from budgeteer.lab.tasks.mixture import Mixture
from budgeteer.models.policy import Policy
from budgeteer.rl.sampler import sample
from budgeteer.steer import answered

WIDTH, BATCH = 64, 2048
GAIN = 16.0
"""On the last layer of a Gamma head while it is trained: a sure prediction has a shape of hundreds."""
LINE_ENDS = (";", "\n")
"""What ends a step of the reasoner's thinking."""
LENGTHS = (0, 4, 8, 16, 32, 64, 128)
"""Left edges of the bins of remaining length, tokens."""
VALUES = tuple(i / 6 for i in range(7))
"""Values of the introspection head: a probability of being right, denoised."""
KEEP = 16
"""Last positions of a trace whose predicted values are averaged into its label."""


@dataclass(frozen=True, slots=True)
class Traces:
    """n traces of g problems, and the states of the frozen model at every position that predicts one of their tokens.

    Attributes:
        items: [g] problems; ``group`` [n] index of each trace's problem.
        length: [n] tokens up to the answer's end, or the cap.
        closed: [n] tokens up to the end of thinking, marker included; the cap where it never closed.
        right: [n] reward.
        trace, index: [N] trace, and tokens before the position, of each of N positions; traces in order.
        states: [N, layers, hidden] float16.
        token: [N] that came next.
        entropy: [N] of the next-token distribution, nats.
    """

    items: tuple[Item, ...]
    group: I64
    length: I64
    closed: I64
    right: F64
    trace: I64
    index: I64
    states: Tensor
    token: I64
    entropy: F64

    def thinking(self) -> tuple[Tensor, I64, I64]:
        """(states, next token, tokens of thinking still to come) at the positions inside the thinking.

        A trace whose thinking never closed counts as closing at the cap. Its own states are read, no other's.
        """
        inside = self.index < self.closed[self.trace]
        left = (self.closed[self.trace] - self.index)[inside]
        return self.states[torch.from_numpy(inside)], self.token[inside], left


def problems(size: int, seed: int) -> Mixture:
    """``size`` problems: chains and sums of all lengths, divisors and filters."""
    tenth = size // 10
    return Mixture(
        "heads",
        [
            Chains(4 * tenth, seed),
            Gym("chain_sum", 4 * tenth, seed),
            Gym("gcd", min(tenth, 300), seed),
            Gym("number_filtering", size - 9 * tenth, seed),
        ],
    )


def collect(policy: Policy, *, size: int, rollouts: int, seed: int, cap: int = 160) -> Traces:
    """Sample ``rollouts`` traces of each of ``size`` problems and compute their states."""
    source = problems(size, seed)
    items = tuple(source.items)
    r, _ = sample(
        policy.model,
        [item.key for item in items],
        policy.encode([item.prompt for item in items]),
        np.full(len(items), rollouts),
        max_tokens=cap,
        markers=policy.markers,
        seed=seed,
        steer=answered(),
    )
    length = np.where(r.answered >= 0, r.answered, r.length)
    rows = [tokens[:n].tolist() for tokens, n in zip(r.tokens, length, strict=True)]
    states, entropy = _states(policy.model, [r.prompts[g] for g in r.group], rows)
    return Traces(
        items,
        r.group,
        length,
        np.where(r.closed >= 0, r.closed, cap),
        rewards(policy, source, [items[g] for g in r.group], rows),
        np.repeat(np.arange(len(rows)), length),
        np.concatenate([np.arange(n) for n in length]),
        states,
        np.concatenate([np.array(row) for row in rows]),
        entropy,
    )


def _states(model: Llama, prompts: list[tuple[int, ...]], rows: list[list[int]]) -> tuple[Tensor, F64]:
    """States [N, layers, hidden] before each token of each row, and entropies [N] of what they predict."""
    order = sorted(range(len(rows)), key=lambda i: len(prompts[i]) + len(rows[i]))
    states: list[Tensor] = [torch.empty(0)] * len(rows)
    entropies: list[Tensor] = [torch.empty(0)] * len(rows)
    with torch.inference_mode():
        for begin in range(0, len(order), 64):
            part = order[begin : begin + 64]
            width = max(len(prompts[i]) + len(rows[i]) for i in part)
            tokens = torch.zeros(len(part), width, dtype=torch.int64)
            for j, i in enumerate(part):
                tokens[j, : len(prompts[i]) + len(rows[i])] = torch.tensor([*prompts[i], *rows[i]])
            layers = torch.stack(model.states(F.embedding(tokens, model.embed)), 2)
            for j, i in enumerate(part):
                own = layers[j, len(prompts[i]) - 1 : len(prompts[i]) + len(rows[i]) - 1]
                p = model.logits(own[:, -1]).softmax(-1)
                states[i], entropies[i] = own.half(), torch.special.entr(p).sum(-1)
    return torch.cat(states), torch.cat(entropies).double().numpy()


def _start(states: Tensor, outputs: int, generator: torch.Generator, width: int = WIDTH) -> dict[str, Tensor]:
    """Standardising statistics and initial weights."""
    x = states.flatten(1).float()
    inputs = x.shape[1]
    return {
        "mean": x.mean(0),
        "scale": x.std(0) + 1e-3,
        "w1": torch.randn(inputs, width, generator=generator) / inputs**0.5,
        "b1": torch.zeros(width),
        "w2": torch.randn(width, outputs, generator=generator) * 0.1 / width**0.5,
        "b2": torch.zeros(outputs),
    }


def fit(
    head: Head, states: Tensor, loss: Callable[[Tensor, Tensor], Tensor], *, steps: int, seed: int, batch: int = BATCH
) -> Head:
    """AdamW on ``loss(features [b, d], index [b])``, learning rate 3e-3 warmed up over 5 % and down to 0.

    Args:
        head: its weights ``w1``, ``b1``, ``w2``, ``b2`` are trained in place.
        loss: mean over the positions of a batch; reads the last layer from the head itself.
    """
    trained = [head.weights[name].requires_grad_(True) for name in ("w1", "b1", "w2", "b2")]
    optimiser = torch.optim.AdamW(trained, lr=3e-3)
    for step, chosen in enumerate(_batches(len(states), batch, steps, seed)):
        share = min(1.0, (step + 1) / (0.05 * steps), 2 * (steps - step) / steps)
        optimiser.param_groups[0]["lr"] = 3e-3 * share
        value = loss(head.features(states[chosen].float()), chosen)
        if not torch.isfinite(value):
            advice = "Look at the states of the model, which have to be finite"
            raise Diverged(step + 1, f"the loss is {float(value.detach())}", advice)
        optimiser.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    for weight in trained:
        weight.requires_grad_(False)
    return head


def _batches(n: int, batch: int, steps: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        yield torch.randint(n, (min(batch, n),), generator=generator)


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
) -> Head:
    """Gamma(shape, rate) of log(L + 1) for every next token, L = tokens of thinking still to come, that one included.

    Args:
        states: [N, layers, hidden] of the frozen model, at positions inside the thinking of any traces.
        token: [N] that came next.
        left: [N] L, the marker that ends the thinking included; >= 1.
        vocab: size of the vocabulary.
        fingerprint: of the model.
        line_ends: pieces of text after which the next token is steered.
        often: tokens that came next fewer times share one Gamma, since nothing is known of each of them. With the 0 of
            a small vocabulary every token has its own.
    """
    log_left = torch.from_numpy(np.log(left + 1.0)).float()
    # [vocab] which Gamma a token has; the shared one is the last
    known = np.bincount(token, minlength=vocab) >= often
    own = np.where(known, np.cumsum(known) - 1, known.sum())
    kinds = int(own.max()) + 1
    kind = torch.from_numpy(own[token])
    generator = torch.Generator().manual_seed(seed)
    settings = {"vocab": vocab, "line_ends": tuple(line_ends)}
    head = Head(_start(states, 2 * kinds, generator), fingerprint, settings)
    head.weights["b2"][:kinds] = 20.0 / GAIN  # shape and rate of a plausible length, so that training starts sane
    head.weights["b2"][kinds:] = 20.0 / GAIN / float(log_left.mean())

    def loss(features: Tensor, chosen: Tensor) -> Tensor:
        next_kind, ell = kind[chosen], log_left[chosen]
        w, b = head.weights["w2"].t(), head.weights["b2"]
        shape, rate = (
            F.softplus(GAIN * ((features * F.embedding(next_kind + shift, w)).sum(-1) + b[next_kind + shift])) + 1e-4
            for shift in (0, kinds)
        )
        return -log_density(shape, rate, ell).mean()

    fit(head, states, loss, steps=steps, seed=seed, batch=batch)
    both = torch.from_numpy(np.concatenate([own, kinds + own]))
    for name in ("w2", "b2"):
        head.weights[name] = GAIN * head.weights[name][..., both]
    return head


def log_density(shape: Tensor, rate: Tensor, ell: Tensor) -> Tensor:
    """Log-density of Gamma(shape, rate) at ell > 0, of the shapes of the three."""
    return torch.xlogy(shape, rate) - torch.lgamma(shape) + (shape - 1) * ell.log() - rate * ell


def train_introspection(traces: Traces, fingerprint: str, *, steps: int, seed: int) -> Head:
    """p(value, remaining length) in two rounds: predict being right, average the last predictions of each trace into
    its value, and predict that with the length."""
    generator = torch.Generator().manual_seed(seed)
    good = torch.from_numpy(right(traces.right)).float()[torch.from_numpy(traces.trace)]
    first = Head(_start(traces.states, 1, generator), fingerprint, {})

    def guess(features: Tensor, chosen: Tensor) -> Tensor:
        logits = (features @ first.weights["w2"] + first.weights["b2"])[:, 0]
        return F.binary_cross_entropy_with_logits(logits, good[chosen])

    fit(first, traces.states, guess, steps=steps // 2, seed=seed)
    predicted = torch.cat([first(part.float()).sigmoid()[:, 0] for part in torch.split(traces.states, 65536)]).numpy()
    late = traces.index >= traces.length[traces.trace] - KEEP
    n = len(traces.length)
    value = np.bincount(traces.trace[late], predicted[late], n) / np.bincount(traces.trace[late], minlength=n)
    left = (traces.length[traces.trace] - traces.index).astype(np.int64)
    value_bin = np.rint(value * (len(VALUES) - 1)).astype(np.int64)[traces.trace]
    length_bin = np.searchsorted(LENGTHS, left, side="right") - 1
    slot = torch.from_numpy(value_bin * len(LENGTHS) + length_bin)
    settings = {"values": VALUES, "lengths": LENGTHS}
    head = Head(_start(traces.states, len(VALUES) * len(LENGTHS), generator), fingerprint, settings)

    def joint(features: Tensor, chosen: Tensor) -> Tensor:
        return F.cross_entropy(features @ head.weights["w2"] + head.weights["b2"], slot[chosen])

    return fit(head, traces.states, joint, steps=steps, seed=seed)


def train_difficulty(traces: Traces, fingerprint: str, *, steps: int, seed: int) -> Head:
    """Classes easy, normal, hard of DiffAdapt from the last state of the prompt: normal where most traces are right at
    low entropy, hard where few are, easy otherwise; thresholds are thirds and the median of what was observed."""
    g = len(traces.items)
    per = np.bincount(traces.group, minlength=g)
    accuracy = np.bincount(traces.group, right(traces.right), g) / per
    mean = np.bincount(traces.trace, traces.entropy) / traces.length
    entropy = np.bincount(traces.group, mean, g) / per
    alpha, gamma, beta = *np.quantile(accuracy, [2 / 3, 1 / 3]), np.median(entropy)
    label = np.where((accuracy >= alpha) & (entropy <= beta), 1, np.where(accuracy < gamma, 2, 0))
    begin = np.flatnonzero(traces.index == 0)
    _, first = np.unique(traces.group[traces.trace[begin]], return_index=True)
    states = traces.states[torch.from_numpy(begin[first]), -1:]  # the last layer only
    target = torch.from_numpy(label)
    generator = torch.Generator().manual_seed(seed)
    settings = {"alpha": float(alpha), "beta": float(beta), "gamma": float(gamma)}
    head = Head(_start(states, 3, generator, 32), fingerprint, settings)

    def loss(features: Tensor, chosen: Tensor) -> Tensor:
        return F.cross_entropy(features @ head.weights["w2"] + head.weights["b2"], target[chosen])

    return fit(head, states, loss, steps=steps, seed=seed, batch=256)


def train(
    policy: Policy, folder: Path, *, size: int = 3000, rollouts: int = 4, steps: int = 1500, seed: int = 0
) -> dict[str, Any]:
    """Train the three heads and write them to ``folder``; a few minutes on one core. Returns what was seen."""
    one_thread()
    traces = collect(policy, size=size, rollouts=rollouts, seed=10_000 + seed)
    model = policy.model
    fingerprint = Internals(model.embed, (), 0, list).fingerprint  # type: ignore[arg-type]
    guidance = train_guidance(
        *traces.thinking(),
        vocab=model.config.vocab_size,
        fingerprint=fingerprint,
        line_ends=LINE_ENDS,
        steps=steps,
        seed=seed,
    )
    save_head(guidance, folder / "budget_guidance.safetensors")
    save_head(train_introspection(traces, fingerprint, steps=steps, seed=seed), folder / "zip_rc.safetensors")
    save_head(
        train_difficulty(traces, fingerprint, steps=steps // 5, seed=seed), folder / "diffadapt_probe.safetensors"
    )
    return {"traces": len(traces.length), "positions": len(traces.trace), "right": float(traces.right.mean())}
