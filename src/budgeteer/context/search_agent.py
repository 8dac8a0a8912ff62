"""An agent that says by question which reranker CARROT's tree search asks, and how long and how frugally it searches.

Paper: "CORAG: A Cost-Constrained Retrieval Optimization System for Retrieval-Augmented Generation" (later CARROT),
arXiv 2411.00744: its configuration agent; sizes and constants after its code.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.context.adam import Adam
from budgeteer.context.encode import encode_of, rerank_of
from budgeteer.context.protocol import Encode, Rerank
from budgeteer.core.errors import CheckpointError, InvalidInput
from budgeteer.core.files import write_text
from budgeteer.core.plan import F64, I64

HIDDEN = (512, 256, 128)
"""Sizes of the hidden layers."""
Layers = list[tuple[F64, F64]]
"""Weights [in, out] and biases [out] of each layer; the last one makes the outputs."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a search is run with; the numbers are those of :func:`budgeteer.context.carrot`.

    Attributes:
        rerank: name of the reranker.
        explore: weight of what was seldom tried, 0 or more.
        iterations: of the search, 1 or more.
        frugality: what the whole budget costs, 0 or more.
    """

    rerank: str
    explore: float = 2.0
    iterations: int = 30
    frugality: float = 0.2

    def __post_init__(self) -> None:
        if not (self.explore >= 0 and self.iterations >= 1 and self.frugality >= 0):
            raise InvalidInput(f"{self}: give iterations from 1, explore and frugality from 0")

    @property
    def numbers(self) -> tuple[float, float, float]:
        """What the network predicts as numbers."""
        return self.explore, float(self.iterations), self.frugality


Configure = Callable[[str], tuple[Rerank, Setting]]
"""Question -> the reranker and the numbers of its search."""


@dataclass(frozen=True, slots=True)
class SearchAgent:
    """A network from a question's vector to the setting of its search.

    Attributes:
        rerankers: their names.
        least, most: [3] range of explore, iterations and frugality in training.
        layers: of the network; its outputs are a logit a reranker and the three numbers, each scaled to its range.
    """

    rerankers: tuple[str, ...]
    least: F64
    most: F64
    layers: Layers

    def settings(self, vectors: F64) -> list[Setting]:
        """The setting of each question, of vectors [n, d].

        Raises:
            InvalidInput: vectors of another width than those of the training, or not finite.
        """
        vectors = np.asarray(vectors, np.float64)
        width = len(self.layers[0][0])
        if vectors.ndim != 2 or vectors.shape[1] != width:
            raise InvalidInput(
                f"vectors of shape {vectors.shape}; this agent takes [n, {width}]: use the encoder of its training"
            )
        if not np.isfinite(vectors).all():
            raise InvalidInput("the encoder gave a vector that is not finite; a setting cannot be chosen by it")
        outputs = _forward(self.layers, vectors)[-1]
        kinds = outputs[:, : len(self.rerankers)].argmax(axis=1)
        numbers = self.least + np.clip(outputs[:, len(self.rerankers) :], 0, 1) * (self.most - self.least)
        return [
            Setting(self.rerankers[kind], float(explore), round(iterations), float(frugality))
            for kind, (explore, iterations, frugality) in zip(kinds.tolist(), numbers.tolist(), strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Training:
    """Settings of the training; the defaults are those of the paper's code.

    Attributes:
        epochs: passes over the questions, 1 or more.
        batch: pairs of an update, 1 or more.
        rate: of Adam, above 0.
        margin: distance from which on two questions with different rerankers are far enough apart, above 0.
    """

    epochs: int = 60
    batch: int = 32
    rate: float = 1e-3
    margin: float = 1.0

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch) < 1 or not (self.rate > 0 and self.margin > 0):
            raise InvalidInput(f"{self}: give epochs and a batch from 1, a rate and a margin above 0")


def trained(
    vectors: F64, scores: F64, settings: Sequence[Setting], training: Training | None = None, seed: int = 0
) -> SearchAgent:
    """Train an agent on questions that were answered with every setting.

    A question's label is the setting of its highest score; of equal ones that with the best mean over the questions,
    then the first: list cheap ones first. Each question is paired with one of the same best reranker or, with the same
    chance, of another one, and the loss of a pair, :func:`loss`, goes down by Adam.

    Differences from the official code: the numbers are scaled to their range, since iterations in the tens outweigh all
    else there; the distance is that of the last hidden layer, and not of the logits; nothing is held back. Without the
    rule for equal scores, questions that every setting answers alike teach whichever stands first.

    Args:
        vectors: [n, d] of the questions, by the encoder that is used later.
        scores: [n, s] how good the answer was with each setting.
        settings: [s].
        training: its settings.
        seed: of the first weights, the order and the pairs.

    Raises:
        InvalidInput: no settings or questions, or vectors and scores that are not finite or do not fit each other.
    """
    training = training or Training()
    vectors, scores = np.asarray(vectors, np.float64), np.asarray(scores, np.float64)
    if vectors.ndim != 2 or not vectors.size or scores.shape != (len(vectors), len(settings)) or not scores.size:
        raise InvalidInput(
            f"vectors of shape {vectors.shape}, scores of shape {scores.shape} and {len(settings)} settings; give a "
            "vector [d] a question and a score a question and setting"
        )
    if not (np.isfinite(vectors).all() and np.isfinite(scores).all()):
        raise InvalidInput("a vector or a score that is no finite number; give only questions that were scored")
    rerankers = tuple(dict.fromkeys(setting.rerank for setting in settings))
    numbers = np.array([setting.numbers for setting in settings])
    least, most = numbers.min(axis=0), numbers.max(axis=0)
    best = scores == scores.max(axis=1, keepdims=True)
    label = np.where(best, scores.mean(axis=0), -np.inf).argmax(axis=1)
    kinds = np.array([rerankers.index(setting.rerank) for setting in settings])[label]
    wanted = ((numbers - least) / np.where(most > least, most - least, 1.0))[label]

    rng = np.random.default_rng([seed, 45])
    layers = _layers(rng, (vectors.shape[1], *HIDDEN, len(rerankers) + 3))
    adam = [tuple(Adam(each.shape, training.rate, 1e-8) for each in layer) for layer in layers]
    for _ in range(training.epochs):
        order = rng.permutation(len(vectors))
        for begin in range(0, len(order), training.batch):
            first = order[begin : begin + training.batch]
            rows = np.concatenate([first, [_partner(rng, kinds, one) for one in first]])
            slopes = loss(layers, vectors[rows], kinds[rows], wanted[rows], training.margin)[1]
            layers = [
                (weights - of_weights.step(slope[0]), biases - of_biases.step(slope[1]))
                for (weights, biases), (of_weights, of_biases), slope in zip(layers, adam, slopes, strict=True)
            ]
    return SearchAgent(rerankers, least, most, layers)


def loss(layers: Layers, vectors: F64, kinds: I64, wanted: F64, margin: float) -> tuple[float, Layers]:
    """The loss of pairs, and its slope in every weight and bias.

    Formula: mean over pairs of d^2 where both have the same best reranker, max(0, margin - d)^2 where not, with d the
    Euclidean distance of their last hidden layers; plus the cross-entropy of the best rerankers; plus the mean squared
    error of the three numbers.

    Args:
        layers: of the network.
        vectors: [2 p, d]; rows i and p + i are a pair.
        kinds: [2 p] number of the best reranker.
        wanted: [2 p, 3] the numbers, scaled.
        margin: of the distance.
    """
    states = _forward(layers, vectors)
    hidden, outputs = states[-2], states[-1]
    pairs, rows, classes = len(vectors) // 2, len(vectors), outputs.shape[1] - 3
    apart = hidden[:pairs] - hidden[pairs:]
    distance = np.sqrt((apart**2).sum(axis=1))
    same = kinds[:pairs] == kinds[pairs:]
    short = np.maximum(0.0, margin - distance)
    contrast = np.where(same, distance**2, short**2).mean()
    pull = np.where(same, 2.0, np.where(distance > 0, -2 * short / np.where(distance > 0, distance, 1.0), 0.0))

    logits = outputs[:, :classes] - outputs[:, :classes].max(axis=1, keepdims=True)
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    missed = outputs[:, classes:] - wanted
    total = contrast - logs[np.arange(rows), kinds].mean() + (missed**2).mean()

    slope = np.concatenate([(np.exp(logs) - np.eye(classes)[kinds]) / rows, 2 * missed / missed.size], axis=1)
    beside = pull[:, None] * apart / pairs
    slopes: Layers = []
    for place in reversed(range(len(layers))):
        slopes.insert(0, (states[place].T @ slope, slope.sum(axis=0)))
        slope = slope @ layers[place][0].T
        if place == len(layers) - 1:
            slope = slope + np.concatenate([beside, -beside])
        slope = slope * (states[place] > 0)
    return float(total), slopes


def configured(agent: SearchAgent, encode: Encode, rerankers: Mapping[str, Rerank]) -> Configure:
    """What :func:`budgeteer.context.carrot` asks before each search.

    Args:
        agent: trained.
        encode: that of its training.
        rerankers: those that the agent names, by name.

    Raises:
        InvalidInput: a reranker is missing.
    """
    missing = sorted(set(agent.rerankers) - set(rerankers))
    if missing:
        raise InvalidInput(f"the agent chooses between {', '.join(agent.rerankers)}; give {', '.join(missing)}, too")

    def configure(question: str) -> tuple[Rerank, Setting]:
        setting = agent.settings(np.asarray(encode([question]), np.float64))[0]
        return rerankers[setting.rerank], setting

    return configure


def save(agent: SearchAgent, encode: str, path: Path) -> None:
    """Write an agent as JSON, with the name of its encoder.

    Args:
        agent: whose rerankers are named as the option ``rerank`` names them.
        encode: as the option ``encode`` names it, a folder or name; ``words`` has no fixed width and will not do.
        path: of the file.
    """
    if encode == "words":
        raise InvalidInput("encode=words makes vectors of another width for each text; give a sentence encoder")
    numbers = {"least": agent.least.tolist(), "most": agent.most.tolist()}
    layers = [[weights.tolist(), biases.tolist()] for weights, biases in agent.layers]
    found = {"encode": encode, "rerankers": agent.rerankers, **numbers, "layers": layers}
    write_text(json.dumps(found) + "\n", path)


def configure_of(method: str, given: str) -> Configure | None:
    """The agent of an option: none, or a file that :func:`save` wrote.

    Raises:
        CheckpointError: there is no such file, or it holds no agent; or there is no such encoder or reranker.
        MissingExtra: transformers is not installed.
    """
    if given == "none":
        return None
    try:
        found: Any = json.loads(Path(given).read_text(encoding="utf-8"))
        layers = [(np.array(weights, np.float64), np.array(biases, np.float64)) for weights, biases in found["layers"]]
        least, most = (np.array(found[name], np.float64) for name in ("least", "most"))
        agent, encode = SearchAgent(tuple(map(str, found["rerankers"])), least, most, layers), str(found["encode"])
        agent.settings(np.zeros((1, len(layers[0][0]))))  # the shapes fit
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise CheckpointError(
            f"{given} holds no agent that budgeteer.context.search_agent.save wrote: {error}"
        ) from error
    return configured(agent, encode_of(method, encode), {name: rerank_of(method, name) for name in agent.rerankers})


def _forward(layers: Layers, vectors: F64) -> list[F64]:
    """What goes into each layer, and the outputs."""
    states = [vectors]
    for place, (weights, biases) in enumerate(layers):
        out = states[-1] @ weights + biases
        states.append(out if place == len(layers) - 1 else np.maximum(0.0, out))
    return states


def _layers(rng: np.random.Generator, sizes: Sequence[int]) -> Layers:
    """First weights and biases, drawn as torch draws them."""
    bounds = [(into, out, into**-0.5) for into, out in itertools.pairwise(sizes)]
    return [(rng.uniform(-b, b, (into, out)), rng.uniform(-b, b, out)) for into, out, b in bounds]


def _partner(rng: np.random.Generator, kinds: I64, one: int) -> int:
    """A question with the same best reranker or, as likely, with another one; itself where there is none."""
    alike = kinds == kinds[one]
    others = np.flatnonzero(alike if rng.random() > 0.5 else ~alike)
    others = others[others != one]
    return int(rng.choice(others)) if len(others) else int(one)
