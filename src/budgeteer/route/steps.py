"""Small or large model at each step of an agent, learnt from what both do alone and from runs that mix them.

Paper: "Budget-Aware Agentic Routing via Boundary-Guided Training", arXiv 2602.21227; its abstract and a note with
formulas were read. For whole requests it is the route ``boundary``. The agent that asks so is the strategy ``routed``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.errors import InvalidInput
from budgeteer.core.files import write_text
from budgeteer.core.plan import F64, I64
from budgeteer.route.kit import logistic, sigmoid

EASY, HARD, INTRACTABLE = 0, 1, 2
"""Kinds of tasks: the small model solves it, only the large one does, neither does."""
Choose = Callable[[F64], bool]
"""Features [d] of a step -> whether the large model takes it."""
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A task that was played to its end.

    Attributes:
        x: [t, d] features of its steps.
        large: [t] whether the large model took each.
        cost: of all of it, in any unit that is the same everywhere, such as dollars.
        solved: whether its answer is right.
    """

    x: F64
    large: NDArray[np.bool_]
    cost: float
    solved: bool

    def __post_init__(self) -> None:
        if self.x.ndim != 2 or self.large.shape != (len(self.x),) or not np.isfinite(self.x).all():
            raise InvalidInput(
                f"features of shape {self.x.shape} and choices of shape {self.large.shape}; give finite [t, d] and [t]"
            )
        if not (math.isfinite(self.cost) and self.cost >= 0):
            raise InvalidInput(f"a trajectory cost {self.cost}; give a finite number, 0 or more")


Runs = Sequence[Trajectory]
Play = Callable[[Sequence[int], Callable[[int], Choose]], Sequence[Trajectory]]
"""(numbers of tasks, number of a run -> who chooses in it) -> a trajectory for each of these tasks, in order."""


@dataclass(frozen=True, slots=True)
class StepPolicy:
    """Chance of the large model: sigmoid(w x).

    Attributes:
        w: [d] weights of the features of a step.
    """

    w: F64

    def chance(self, x: F64) -> F64:
        """[...] of features [..., d].

        Raises:
            InvalidInput: features of another number than were learnt from.
        """
        if x.shape[-1:] != self.w.shape:
            raise InvalidInput(f"{x.shape[-1]} features a step; this policy has learnt from {len(self.w)}")
        return sigmoid(x @ self.w)

    def choose(self, x: F64) -> bool:
        """The likelier model."""
        return bool(self.chance(x) > 0.5)

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_text(json.dumps({"steps": {"w": self.w.tolist()}}) + "\n", path)


def read(path: Path) -> StepPolicy:
    """A policy that was saved.

    Raises:
        InvalidInput: the file cannot be read, or is none.
    """
    try:
        w = np.array(json.loads(path.read_text(encoding="utf-8"))["steps"]["w"], np.float64)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(
            f"{path} is no policy of steps ({error!r}); write one by budgeteer.route.steps.fit"
        ) from error
    if w.ndim != 1 or not len(w) or not np.isfinite(w).all():
        raise InvalidInput(f"{path} is damaged: weights of shape {w.shape}; fit it again")
    return StepPolicy(w)


class Fitted(NamedTuple):
    """What :func:`fit` found.

    Attributes:
        policy: after the warm start and all rounds.
        kind: [n] of the tasks: EASY, HARD or INTRACTABLE.
        played: trajectories that it took.
    """

    policy: StepPolicy
    kind: I64
    played: int


def fit(
    play: Play,
    tasks: int,
    rng: np.random.Generator,
    *,
    boundary: int = 1,
    group: int = 4,
    rounds: int = 20,
    thrift: float = 0.5,
    trust: float = 0.02,
    penalty: float = 1.0,
) -> Fitted:
    """Learn at which steps the large model is worth its cost.

    1. Boundary runs: every task is played by the small model alone and by the large one alone, ``boundary`` times each.
       That says its kind (half of a model's runs solve it, or not), and what both cost.
    2. Warm start: the tasks that are not intractable are played ``group`` times with a model drawn at each step. The
       cheapest solved run of each task is imitated: a logistic regression in which easy and hard tasks have equal
       weight.
    3. ``rounds`` of policy gradient on ``group`` runs a task, by the policy: the natural gradient of the mean of A
       log pi, with R = solved (1 + thrift (1 - C)), C the cost between the mean ones of the boundary runs, cut to [0,
       1], and A = R less the mean R of the small model on easy tasks, of the large one on hard ones. A failure earns
       nothing however cheap it was. The mean of A over the round is taken off, and a round moves the policy by
       ``trust`` at most.

    The paper's own form of reward and advantage was not seen; these are this project's reading. Helps where what a step
    sees tells whether the small model will do; where it does not, the policy is a mix of both at best.

    Args:
        play: plays tasks.
        tasks: how many there are; they are numbered from 0.
        rng: of the draws.
        boundary: runs of each task by each model, 1 or more; several where the models' draws decide.
        group: runs of each task in a round, 1 or more.
        rounds: of the gradient, 0 or more; each costs ``group`` runs a task.
        thrift: what a saved call of the large model is worth, 0 to 1, in solved tasks.
        trust: most divergence of the policy from itself that a round makes, in nats a run, above 0.
        penalty: of the squared weights of the warm start, and of the distance from it afterwards, above 0.

    Raises:
        InvalidInput: a value outside these, or ``play`` gives another number of trajectories than it was asked for.
    """
    if not (
        tasks >= 1 and boundary >= 1 and group >= 1 and rounds >= 0 and 0 <= thrift <= 1 and trust > 0 and penalty > 0
    ):
        raise InvalidInput(
            f"fit(tasks={tasks}, boundary={boundary}, group={group}, rounds={rounds}, thrift={thrift}, trust={trust}, "
            f"penalty={penalty}); give 1 or more tasks and runs, 0 or more rounds, thrift from 0 to 1, and trust and "
            "penalty above 0"
        )
    numbers = np.repeat(range(tasks), boundary).tolist()

    def alone(big: bool) -> list[Runs]:
        runs = _played(play, numbers, lambda run: lambda x: big)
        return [runs[i : i + boundary] for i in range(0, len(runs), boundary)]

    small, large = alone(False), alone(True)
    even = StepPolicy(np.zeros(small[0][0].x.shape[1]))
    kind = kinds(small, large)
    known = np.flatnonzero(kind != INTRACTABLE)
    played = 2 * len(numbers)
    if not len(known):
        return Fitted(even, kind, played)
    again = np.repeat(known, group).tolist()
    mixed = _played(play, again, _drawn(rng, even))
    w = begin = imitated(kind, [[*a, *b] for a, b in zip(small, large, strict=True)], again, mixed, penalty)
    for _ in range(rounds):
        now = StepPolicy(w)
        runs = _played(play, again, _drawn(rng, now))
        pairs = zip(again, runs, strict=True)
        value = np.array([advantage(run, int(kind[i]), small[i], large[i], thrift) for i, run in pairs])
        value -= value.mean()
        gradient, fisher = -penalty / len(runs) * (w - begin), penalty / len(runs) * np.eye(len(w))
        for run, a in zip(runs, value.tolist(), strict=True):
            chance = now.chance(run.x)
            gradient = gradient + a * run.x.T @ (run.large - chance) / len(runs)
            fisher = fisher + (run.x * (chance * (1 - chance))[:, None]).T @ run.x / len(runs)
        step = np.linalg.solve(fisher, gradient)
        w = w + step * min(1.0, math.sqrt(2 * trust / max(float(gradient @ step), _TINY)))
    return Fitted(StepPolicy(w), kind, played + len(again) * (1 + rounds))


def kinds(small: Sequence[Runs], large: Sequence[Runs]) -> I64:
    """[n] kind of each task, by its boundary runs."""

    def solves(runs: Runs) -> bool:
        return bool(np.mean([run.solved for run in runs]) >= 0.5)

    pairs = zip(small, large, strict=True)
    return np.array([EASY if solves(a) else HARD if solves(b) else INTRACTABLE for a, b in pairs], np.int64)


def advantage(run: Trajectory, kind: int, small: Runs, large: Runs, thrift: float) -> float:
    """R of a run minus the mean R of the boundary runs of the model that solves its task.

    >>> def cost(c, solved=True): return Trajectory(np.ones((1, 1)), np.ones(1, bool), c, solved)
    >>> [advantage(cost(c), HARD, [cost(1, False)], [cost(5)], 0.5) for c in (3, 5, 9)]
    [0.25, 0.0, 0.0]
    >>> [advantage(cost(c, c != 2), EASY, [cost(1)], [cost(5)], 0.5) for c in (1, 3, 2)]
    [0.0, -0.25, -1.5]
    """
    low, high = (float(np.mean([each.cost for each in runs])) for runs in (small, large))

    def reward(of: Trajectory) -> float:
        share = min(max((of.cost - low) / (high - low), 0.0), 1.0) if high > low else 1.0
        return of.solved * (1 + thrift * (1 - share))

    return reward(run) - float(np.mean([reward(each) for each in (small if kind == EASY else large)]))


def imitated(kind: I64, boundary: Sequence[Runs], of: Sequence[int], mixed: Runs, penalty: float) -> F64:
    """[d] weights of the logistic regression on the cheapest solved run of each task.

    Args:
        kind: [n] of the tasks.
        boundary: the boundary runs of each.
        of: [r] tasks of the other runs.
        mixed: [r] these.
        penalty: of the squared weights.
    """
    solved: dict[int, list[Trajectory]] = {}
    for task, run in [*((i, run) for i, runs in enumerate(boundary) for run in runs), *zip(of, mixed, strict=True)]:
        if run.solved and len(run.x):
            solved.setdefault(task, []).append(run)
    best = {task: min(runs, key=lambda run: run.cost) for task, runs in solved.items()}
    if not best:
        return np.zeros(boundary[0][0].x.shape[1])
    count = np.bincount(kind[list(best)], minlength=3)
    weight = [np.full(len(run.x), 1 / (len(run.x) * count[kind[task]])) for task, run in best.items()]
    runs = list(best.values())
    x, y = np.concatenate([run.x for run in runs]), np.concatenate([run.large for run in runs])
    scale = len(y) / sum(part.sum() for part in weight)
    return logistic(x, y.astype(np.float64), penalty, np.concatenate(weight) * scale)


def _drawn(rng: np.random.Generator, policy: StepPolicy) -> Callable[[int], Choose]:
    """Who draws each step, every run with draws of its own."""
    seed = int(rng.integers(2**63))

    def of(run: int) -> Choose:
        own = np.random.default_rng([seed, run])
        return lambda x: bool(own.random() < policy.chance(x))

    return of


def _played(play: Play, tasks: Sequence[int], choosing: Callable[[int], Choose]) -> Runs:
    runs = play(tasks, choosing)
    if len(runs) != len(tasks):
        raise InvalidInput(f"play gave {len(runs)} trajectories for {len(tasks)} tasks; give one for each, in order")
    return runs
