"""Small or large model at each step of an agent, within a budget of the task: what is learnt from runs of either alone.

Paper: "Budget-Aware Agentic Routing via Boundary-Guided Training" (BoPO), arXiv 2602.21227. Its abstract and a note
were read: the form of reward and advantage is chosen here by them, and the router is linear, no language model.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.core.errors import BudgetExceeded, CheckpointError, InvalidInput
from budgeteer.core.files import write_text
from budgeteer.core.plan import F64
from budgeteer.route.kit import logistic, sigmoid

SOLVED = 0.5
"""A mean of outcomes from which on a task counts as solved."""


@dataclass(frozen=True, slots=True)
class StepPolicy:
    """The chance of the large model, logistic in what is seen of a step and in what is left.

    Attributes:
        weights: [d + 2]: of a step's features, of the share of the budget that is left, and the bias.
    """

    weights: F64

    def chance(self, x: F64, left: float) -> float:
        """Of the large model, with this share of the budget left.

        Raises:
            InvalidInput: features of another number than were learnt from, or not finite.
        """
        x = np.asarray(x, np.float64)
        if x.shape != (len(self.weights) - 2,) or not np.isfinite(x).all():
            raise InvalidInput(
                f"features {x.tolist()}; this router takes {len(self.weights) - 2} finite numbers a step"
            )
        return float(sigmoid(np.array(x @ self.weights[:-2] + left * self.weights[-2] + self.weights[-1])))


@dataclass(slots=True)
class Steps:
    """The choices of one task. Ask :meth:`large` before each step, tell :meth:`pay` after it.

    Attributes:
        policy: what chooses; None: ``share`` of the steps are large.
        cap: most units that the task may cost, such as pico-dollars or calls; None = no cap, and all counts as left.
        rng: draws choices; None: the likelier model.
        share: without a policy, the chance of the large model.
        spent: of the cap.
        seen, chosen: features of the steps that were free to choose, with the share that was left, and whether the
            large model made them.
    """

    policy: StepPolicy | None
    cap: int | None = None
    rng: np.random.Generator | None = None
    share: float = 0.0
    spent: int = 0
    seen: list[F64] = field(default_factory=list)
    chosen: list[bool] = field(default_factory=list)

    def large(self, x: F64, small: int, large: int) -> bool:
        """Whether the large model makes the next step; False where what is left cannot pay it.

        Args:
            x: [d] of the step.
            small, large: units that the step costs at most with either model.

        Raises:
            BudgetExceeded: what is left pays neither.
        """
        share = 1.0
        if self.cap is not None:
            left = self.cap - self.spent
            if small > left:
                raise BudgetExceeded(kind="cost", scope="task", used=self.spent, requested=small, limit=self.cap)
            if large > left:
                return False
            share = left / self.cap
        chance = self.share if self.policy is None else self.policy.chance(x, share)
        choice = chance > 0.5 if self.rng is None else bool(self.rng.random() < chance)
        self.seen.append(np.append(np.asarray(x, np.float64), share))
        self.chosen.append(choice)
        return choice

    def pay(self, cost: int) -> None:
        """Book what a step cost."""
        self.spent += cost


Play = Callable[[int, Steps], float]
"""(number of a task, choices) -> how well it was solved, 0 to 1; it asks and pays for each step by the choices."""


@dataclass(frozen=True, slots=True)
class StepTraining:
    """Settings of the training.

    Attributes:
        thrift: what the whole way from always-large to always-small is worth to a solved task, 0 to 1.
        repeats: of the boundary runs of a task, since outcomes are random.
        mixed: runs of a task with drawn models, of which the cheapest solved one is copied.
        group: runs of a task in an update.
        epochs: passes over the tasks.
        rate: of Adam, above 0.
        penalty: of the squared weights of the warm start, above 0.
    """

    thrift: float = 0.5
    repeats: int = 3
    mixed: int = 12
    group: int = 8
    epochs: int = 20
    rate: float = 0.05
    penalty: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.thrift <= 1 and self.rate > 0 and self.penalty > 0 and self.epochs >= 0):
            raise InvalidInput(f"{self}: give thrift from 0 to 1, rate and penalty above 0, epochs from 0")
        if min(self.repeats, self.mixed, self.group) < 1:
            raise InvalidInput(f"{self}: give at least 1 of repeats, mixed and group")


@dataclass(frozen=True, slots=True)
class Boundary:
    """What always-small and always-large do of a task.

    Attributes:
        small, large: how well each solves it, means of the repeats.
        least, most: what each costs.
    """

    small: float
    large: float
    least: float
    most: float

    @property
    def kind(self) -> str:
        """``easy`` if the small model solves it, ``hard`` if only the large one does, else ``intractable``."""
        return "easy" if self.small >= SOLVED else "hard" if self.large >= SOLVED else "intractable"

    def reward(self, solved: float, cost: float, thrift: float) -> float:
        """solved x (1 + thrift (1 - C)), C the cost on the way from always-small to always-large, 0 to 1: failing is
        worth nothing, however cheap.

        >>> Boundary(0, 1, 10, 50).reward(1, 20, 0.4), Boundary(0, 1, 10, 50).reward(0, 10, 0.4)
        (1.3, 0.0)
        """
        way = (cost - self.least) / (self.most - self.least) if self.most > self.least else 0.0
        return solved * (1 + thrift * (1 - min(1.0, max(0.0, way))))

    def reference(self, thrift: float) -> float:
        """The reward of the boundary that a task is measured by: always-small if it is easy, else always-large.

        >>> Boundary(1, 1, 10, 50).reference(0.4), Boundary(0.2, 0.8, 10, 50).reference(0.4)
        (1.4, 0.8)
        """
        if self.kind == "easy":
            return self.reward(self.small, self.least, thrift)
        return self.reward(self.large, self.most, thrift)


def trained(play: Play, tasks: int, training: StepTraining | None = None, seed: int = 0) -> StepPolicy:
    """Train a router of steps.

    1. Each task is run by the small and by the large model alone (:class:`Boundary`); intractable ones are left out.
    2. Warm start: of runs with mixed models and the boundary runs the cheapest solved one of each task is copied, by
       logistic regression in which easy and hard tasks weigh the same.
    3. Policy gradient: a group of runs a task, without a cap, and in every second pass with a cap that is drawn between
       what the two boundaries cost, so that what is left says something. The advantage of a run is its reward less the
       reference, over the standard deviation of the group's rewards.

    Helps where steps differ in what they need and that can be seen before them; does not where nothing tells them
    apart: it is then no better than a fixed share. The boundary runs cost two runs of each task, ``repeats`` times.

    Args:
        play: runs a task.
        tasks: how many there are.
        training: settings.
        seed: of the draws.

    Raises:
        InvalidInput: no task is solved by either model alone, a run chose nothing, or an outcome is not from 0 to 1.
    """
    training = training or StepTraining()
    rng = np.random.default_rng([seed, 50])

    def run(task: int, steps: Steps) -> float:
        solved = float(play(task, steps))
        if not 0 <= solved <= 1:
            raise InvalidInput(f"task {task} was played with the outcome {solved}; give how well it was solved, 0 to 1")
        return solved

    known: dict[int, Boundary] = {}
    copied: dict[int, tuple[F64, F64]] = {}
    for task in range(tasks):
        runs = []
        for share in [0.0] * training.repeats + [1.0] * training.repeats + rng.random(training.mixed).tolist():
            steps = Steps(None, rng=rng, share=share)
            runs.append((run(task, steps), steps))
        small, large = runs[: training.repeats], runs[training.repeats : 2 * training.repeats]
        least, most = (float(np.mean([steps.spent for _, steps in part])) for part in (small, large))
        boundary = Boundary(*(float(np.mean([solved for solved, _ in part])) for part in (small, large)), least, most)
        if boundary.kind == "intractable":
            continue
        known[task] = boundary
        good = [steps for solved, steps in runs if solved >= SOLVED and steps.seen]
        if not good:
            raise InvalidInput(f"no run of task {task} chose a model; ask steps.large before each step")
        cheapest = min(good, key=lambda steps: steps.spent)
        copied[task] = np.array(cheapest.seen), np.array(cheapest.chosen, np.float64)
    if not known:
        raise InvalidInput(f"neither model alone solves any of {tasks} tasks; there is nothing to learn from")
    weights = _warm(known, copied, training.penalty)
    mean, square = np.zeros_like(weights), np.zeros_like(weights)
    for epoch in range(training.epochs):
        slope, policy = np.zeros_like(weights), StepPolicy(weights)
        for task, boundary in known.items():
            between = sorted((int(boundary.least), int(boundary.most)))
            cap = None if epoch % 2 == 0 else int(rng.integers(between[0], between[1] + 1))
            group = []
            for _ in range(training.group):
                steps = Steps(policy, cap, rng)
                try:
                    solved = run(task, steps)
                except BudgetExceeded:  # the cap ended it
                    solved = 0.0
                group.append((boundary.reward(solved, steps.spent, training.thrift), steps))
            better = advantages(np.array([reward for reward, _ in group]), boundary.reference(training.thrift))
            for advantage, (_, steps) in zip(better, group, strict=True):
                if steps.seen:
                    x = np.column_stack([steps.seen, np.ones(len(steps.seen))])
                    slope += advantage * (np.array(steps.chosen, np.float64) - sigmoid(x @ weights)) @ x
        slope /= len(known) * training.group
        mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        bias = 1 - 0.9 ** (epoch + 1), 1 - 0.999 ** (epoch + 1)
        weights = weights + training.rate * (mean / bias[0]) / (np.sqrt(square / bias[1]) + 1e-8)
    return StepPolicy(weights)


def advantages(rewards: F64, reference: float) -> F64:
    """(R - reference) / std(R) of a group's rewards, [n]; undivided where they are all the same.

    >>> advantages(np.array([1.0, 0.0]), 1.0).tolist(), advantages(np.array([1.0, 1.0]), 0.5).tolist()
    ([0.0, -2.0], [0.5, 0.5])
    """
    return np.asarray((rewards - reference) / (float(rewards.std()) or 1.0))


def _warm(known: dict[int, Boundary], copied: dict[int, tuple[F64, F64]], penalty: float) -> F64:
    """Weights that copy the cheapest solved runs; easy and hard tasks weigh the same together."""
    kinds = {task: boundary.kind for task, boundary in known.items()}
    rows = {kind: sum(len(copied[task][1]) for task in known if kinds[task] == kind) for kind in set(kinds.values())}
    x = np.concatenate([copied[task][0] for task in known])
    y = np.concatenate([copied[task][1] for task in known])
    each = sum(rows.values()) / len(rows)
    weight = np.concatenate([np.full(len(copied[task][1]), each / rows[kinds[task]]) for task in known])
    return logistic(np.column_stack([x, np.ones(len(x))]), y, penalty, weight)


def save(policy: StepPolicy, path: Path) -> None:
    """Write a router as JSON."""
    write_text(json.dumps({"weights": policy.weights.tolist()}) + "\n", path)


def load(path: Path) -> StepPolicy:
    """Read a router.

    Raises:
        CheckpointError: the file is not there, or holds none.
    """
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
        weights = np.array(found["weights"], np.float64)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} holds no router of steps: {error}") from error
    if weights.ndim != 1 or len(weights) < 3 or not np.isfinite(weights).all():
        raise CheckpointError(f"{path} holds no router of steps: weights of shape {weights.shape}")
    return StepPolicy(weights)
