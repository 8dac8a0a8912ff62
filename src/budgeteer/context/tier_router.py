"""A router that learns which tier each module of a memory uses for a query: low, mid or high.

Paper: "Learning Query-Aware Budget-Tier Routing for Runtime Agent Memory" (BudgetMem), arXiv 2602.06025; formulas and
constants after its code.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.context.adam import Adam
from budgeteer.core.cheapness import cheapness
from budgeteer.core.errors import CheckpointError, InvalidInput
from budgeteer.core.files import write_text
from budgeteer.core.plan import F64, I64

TIERS = ("low", "mid", "high")
"""From the cheapest to the dearest."""
Play = Callable[[int, I64], tuple[float, float]]
"""(number of a query, tier of each module [m]) -> (quality of the answer from 0 to 1, cost from 0)."""


@dataclass(frozen=True, slots=True)
class TierPolicy:
    """Chances of tiers, linear in what is known of a query and a module.

    Attributes:
        weights: [modules, tiers, d + 1] of the logits; the last is the bias.
        value: [d + 1] of the expected reward, from the first module's state.
    """

    weights: F64
    value: F64

    def logits(self, states: F64) -> F64:
        """[n, m, tiers] of states [n, m, d].

        Raises:
            InvalidInput: states of another shape than those that it was trained on.
        """
        modules, _, width = self.weights.shape
        if states.ndim != 3 or states.shape[1:] != (modules, width - 1):
            raise InvalidInput(
                f"states of shape {states.shape}; this router takes [n, {modules}, {width - 1}]: use the encoder "
                "and the modules that it was trained with"
            )
        found: F64 = np.einsum("nmd,mkd->nmk", _with_one(states), self.weights)
        return found

    def tiers(self, states: F64) -> I64:
        """The likeliest tier of each module, [n, m]."""
        return np.asarray(self.logits(states).argmax(axis=2), np.int64)


@dataclass(frozen=True, slots=True)
class Training:
    """Settings of the training.

    Attributes:
        thrift: weight of cheapness in the reward, 0 or more; 0 looks at quality alone.
        epochs: passes over the queries, 1 or more.
        batch: queries of an update, 2 or more.
        rate: of Adam, above 0; the paper's network takes 3e-4.
        clip: of PPO's ratio, above 0.
        entropy: weight of the entropy, 0 or more.
        window: queries whose costs and rewards set the scales, 2 or more.
        updates: passes over a batch.
    """

    thrift: float = 0.5
    epochs: int = 7
    batch: int = 32
    rate: float = 0.02
    clip: float = 0.2
    entropy: float = 0.01
    window: int = 20_000
    updates: int = 4

    def __post_init__(self) -> None:
        if not (self.thrift >= 0 and self.rate > 0 and self.clip > 0 and self.entropy >= 0):
            raise InvalidInput(f"{self}: give thrift and entropy from 0, rate and clip above 0")
        if min(self.epochs, self.updates) < 1 or min(self.batch, self.window) < 2:
            raise InvalidInput(f"{self}: give epochs and updates from 1, a batch and a window of 2 or more")


def state_of(question: F64, memories: F64) -> F64:
    """What a module's tier is chosen by: the query's vector and the mean of those of its input, each of length 1; [2d].

    Args:
        question: [d].
        memories: [n, d]; of none the mean is 0.

    Raises:
        InvalidInput: they are vectors of different widths, or not finite.
    """
    if question.ndim != 1 or memories.ndim != 2 or memories.shape[1] != len(question):
        raise InvalidInput(
            f"a question of shape {question.shape} and memories of shape {memories.shape}; give [d] and [n, d] of one "
            "encoder"
        )
    if not (np.isfinite(question).all() and np.isfinite(memories).all()):
        raise InvalidInput("the encoder gave a vector that is not finite; a tier cannot be chosen by it")
    mean = memories.mean(axis=0) if len(memories) else np.zeros_like(question)
    return np.concatenate([vector / (np.linalg.norm(vector) or 1.0) for vector in (question, mean)])


def reward(quality: F64, cost: F64, known_quality: F64, known_cost: F64, thrift: float) -> F64:
    """quality + thrift x alpha x cheapness, [n], with alpha = std(quality) / std(cheapness) over what is known.

    alpha puts both terms on one scale, whatever the units of cost are; it is 0 where all qualities are the same, and 1
    where all costs are.
    """
    spread = float(cheapness(known_cost, known_cost).std())
    alpha = float(known_quality.std()) / spread if spread > 0 else 1.0
    found: F64 = quality + thrift * alpha * cheapness(cost, known_cost)
    return found


def trained(states: F64, play: Play, training: Training | None = None, seed: int = 0) -> TierPolicy:
    """Train a router by PPO: tiers are drawn, the memory is run with them, and the answer and its cost are the reward.

    A query is an episode. The ratio is that of all modules together; the advantage is the reward less the value's
    guess, normalised in the batch. Differences from the official code: a linear policy a module instead of one network
    with vectors of the modules' descriptions, and no clipping of the value's loss.

    Args:
        states: [n, m, d] of the training queries, by :func:`state_of`, with the input that a module has if those
            before it ran at their middle tier.
        play: runs the memory for one query; called ``epochs`` times a query.
        training: settings.
        seed: of the draws and the order.

    Raises:
        InvalidInput: states that are no finite array [n, m, d], or a quality or cost that is not finite.
    """
    training = training or Training()
    states = np.asarray(states, np.float64)
    if states.ndim != 3 or not states.size or not np.isfinite(states).all():
        raise InvalidInput(f"states of shape {states.shape}; give finite vectors [queries, modules, d]")
    n, modules, _ = states.shape
    rng, x = np.random.default_rng([seed, 16]), _with_one(states)
    weights = np.zeros((modules, len(TIERS), x.shape[2]))
    value = np.zeros(x.shape[2])
    adam = (Adam(weights.shape, training.rate, 1e-5), Adam(value.shape, training.rate, 1e-5))
    qualities = np.zeros(0)
    costs = np.zeros(0)
    for _ in range(training.epochs):
        order = rng.permutation(n)
        for begin in range(0, n, training.batch):
            rows = order[begin : begin + training.batch]
            chances = _softmax(np.einsum("nmd,mkd->nmk", x[rows], weights))
            drawn = (rng.random((len(rows), modules, 1)) > chances.cumsum(axis=2)).sum(axis=2).clip(0, len(TIERS) - 1)
            played = _played([play(int(row), tiers) for row, tiers in zip(rows, drawn, strict=True)])
            qualities = np.concatenate([qualities, played[:, 0]])[-training.window :]
            costs = np.concatenate([costs, played[:, 1]])[-training.window :]
            got = reward(played[:, 0], played[:, 1], qualities, costs, training.thrift)
            better = got - x[rows, 0] @ value
            better = (better - better.mean()) / (better.std() + 1e-8)
            before = _chosen(chances, drawn)
            for _ in range(training.updates):
                now = _softmax(np.einsum("nmd,mkd->nmk", x[rows], weights))
                slope = _slopes(now, drawn, better, before, training)
                weights = weights + adam[0].step(np.einsum("nmk,nmd->mkd", slope, x[rows]) / len(rows))
                missed = got - x[rows, 0] @ value
                value = value + adam[1].step(missed @ x[rows, 0] / len(rows))
    return TierPolicy(weights, value)


def _played(found: list[tuple[float, float]]) -> F64:
    """Quality and cost of each query, [n, 2]."""
    try:
        played = np.array(found, np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"a query was played with {found[0]!r}; give its quality and its cost") from error
    if played.shape != (len(found), 2):
        raise InvalidInput(f"a query was played with {found[0]!r}; give its quality and its cost")
    if not np.isfinite(played).all() or (played[:, 1] < 0).any():
        raise InvalidInput("a query was played with a quality or cost that is no number; costs are 0 or more")
    return played


def _slopes(now: F64, drawn: I64, better: F64, before: F64, training: Training) -> F64:
    """What raises PPO's objective and the entropy, as a gradient of the logits [n, m, tiers]."""
    ratio = np.exp(np.clip(_chosen(now, drawn) - before, -10, 10))
    clipped = np.where(better > 0, ratio > 1 + training.clip, ratio < 1 - training.clip)
    push = np.where(clipped, 0.0, ratio * better)
    taken = np.eye(len(TIERS))[drawn]
    logs = np.log(np.maximum(now, 1e-300))
    entropy = -(now * logs).sum(axis=2, keepdims=True)
    slope: F64 = push[:, None, None] * (taken - now) - training.entropy / now.shape[1] * now * (logs + entropy)
    return slope


def save(policy: TierPolicy, path: Path) -> None:
    """Write a router as JSON."""
    write_text(json.dumps({"weights": policy.weights.tolist(), "value": policy.value.tolist()}) + "\n", path)


def load(path: Path) -> TierPolicy:
    """Read a router.

    Raises:
        CheckpointError: the file is not there, or holds none.
    """
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
        weights, value = (np.array(found[name], np.float64) for name in ("weights", "value"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} holds no router of tiers: {error}") from error
    shaped = weights.ndim == 3 and weights.shape[1] == len(TIERS) and value.shape == weights.shape[2:]
    if not shaped or not (np.isfinite(weights).all() and np.isfinite(value).all()):
        raise CheckpointError(f"{path} holds no router of tiers: weights of shape {weights.shape}")
    return TierPolicy(weights, value)


def _with_one(states: F64) -> F64:
    return np.concatenate([states, np.ones((*states.shape[:2], 1))], axis=2)


def _chosen(chances: F64, drawn: I64) -> F64:
    """Log-probability of the drawn tiers of all modules together, [n]."""
    picked = np.take_along_axis(chances, drawn[:, :, None], axis=2)[:, :, 0]
    found: F64 = np.log(np.maximum(picked, 1e-300)).sum(axis=1)
    return found


def _softmax(logits: F64) -> F64:
    raised = np.exp(logits - logits.max(axis=2, keepdims=True))
    found: F64 = raised / raised.sum(axis=2, keepdims=True)
    return found
