"""Rollout workers and a trainer, coupled or decoupled: how long a training of an agent takes, from recorded durations.

DART (arXiv 2509.23866) runs four services that do not wait for each other: workers with environments, the model that
answers them, a data manager, which hands over groups when they are complete, and the trainer. Here are the workers, the
manager and the trainer; the model answers as fast as it did in the recorded runs, however many workers ask at once.
"""

from __future__ import annotations

import heapq
import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from budgeteer.core import rows
from budgeteer.core.errors import InvalidInput

AHEAD = (0, 1, math.inf)
"""Steps that are compared: coupled, one step ahead, and workers that never wait."""

LONGEST = 1_000_000_000
"""Seconds that a trajectory may take."""


class Trajectory(NamedTuple):
    """One rollout: its task, and the seconds that it held its environment, answers of the model included."""

    task: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """What a simulation came to.

    Attributes:
        ahead: steps that workers were allowed to be ahead of the trainer.
        seconds: until the last group was learnt from.
        steps: of the trainer.
        environments, trainer: share of that time in which environments, and the trainer, worked.
        staleness, stalest: updates of the weights between the start of a trajectory and the step that learnt from it:
            mean over trajectories, and the largest.
    """

    ahead: float
    seconds: float
    steps: int
    environments: float
    trainer: float
    staleness: float
    stalest: int


def simulated(
    trajectories: Sequence[Trajectory], *, environments: int, batch: int, train_seconds: float, ahead: float = math.inf
) -> Schedule:
    """Run the trajectories on workers, and the trainer on their groups.

    A free environment takes the next trajectory, in the order of the tasks, with the latest weights. A group, all
    trajectories of a task, is complete when its last one has ended. A step of the trainer learns from the ``batch``
    groups that were complete first, and from fewer at the end. After s steps only the first ``batch * (s + 1 + ahead)``
    groups may have begun: with ``ahead=0`` workers wait for the slowest trajectory of a step and then for the trainer
    (coupled, "batch-wise"), with infinity they never wait (decoupled, "rollout-wise").

    Args:
        trajectories: at least one; seconds >= 0.
        environments: workers, >= 1.
        batch: groups of a step, >= 1.
        train_seconds: of a step, >= 0.
        ahead: >= 0.

    >>> runs = [Trajectory("a", 4), Trajectory("a", 1), Trajectory("b", 1), Trajectory("b", 1)]
    >>> [simulated(runs, environments=2, batch=1, train_seconds=2, ahead=n).seconds for n in (0, math.inf)]
    [9.0, 7.0]
    """
    order: dict[str, list[float]] = {}
    for task, seconds in trajectories:
        order.setdefault(task, []).append(float(seconds))
    todo = [(group, seconds) for group, some in enumerate(order.values()) for seconds in some]
    left = [len(some) for some in order.values()]
    begun: list[list[int]] = [[] for _ in order]  # of each group, the versions that its trajectories began with
    running: list[tuple[float, int, int]] = []  # (end, number, group)
    complete: list[int] = []
    learning: list[int] = []
    now, until, version, started, stale = 0.0, math.inf, 0, 0, list[int]()
    while version * batch < len(order):
        while started < len(todo) and len(running) < environments and todo[started][0] // batch <= version + ahead:
            group, seconds = todo[started]
            begun[group].append(version)
            heapq.heappush(running, (now + seconds, started, group))
            started += 1
        over = started == len(todo) and not running
        if not learning and (len(complete) >= batch or (over and complete)):
            learning, complete = complete[:batch], complete[batch:]
            stale += [version - old for group in learning for old in begun[group]]
            until = now + train_seconds
        now = min(until, running[0][0] if running else math.inf)
        while running and running[0][0] <= now:
            _, _, group = heapq.heappop(running)
            left[group] -= 1
            if not left[group]:
                complete.append(group)
        if until <= now:
            learning, until, version = [], math.inf, version + 1
    busy = sum(seconds for _, seconds in todo)
    return Schedule(
        ahead=ahead,
        seconds=now,
        steps=version,
        environments=busy / (environments * now) if now else math.nan,
        trainer=version * train_seconds / now if now else math.nan,
        staleness=sum(stale) / len(stale),
        stalest=max(stale),
    )


def read(source: str) -> list[Trajectory]:
    """The trajectories of a file: rows with ``task`` (or ``id``) and ``seconds``.

    Raises:
        InvalidInput: a row is none, or there are none.
    """
    made: list[Trajectory] = []
    for place, row in rows.read(source):
        made.append(_trajectory(row, f"{rows.where(source)}, {place}"))
    if not made:
        raise InvalidInput(f"{rows.where(source)} holds no run; give rows with task and seconds")
    return made


def _trajectory(row: Any, where: str) -> Trajectory:
    if not isinstance(row, Mapping):
        raise InvalidInput(f"{where}: not an object with fields; give a run a row")
    task, given = row.get("task", row.get("id")), row.get("seconds")
    if isinstance(task, bool) or not isinstance(task, str | int | float) or task == "":
        raise InvalidInput(f"{where}: no task and no id; give the runs of a task the same one, a text or a number")
    try:
        seconds = math.nan if given is None or isinstance(given, bool) else float(given)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not 0 <= seconds <= LONGEST:
        raise InvalidInput(
            f"{where}: seconds are {reprlib.repr(given)}; give how long the run took, {LONGEST:,} at most"
        )
    return Trajectory(str(task), seconds)


def lines(schedules: Sequence[Schedule]) -> list[str]:
    """The schedules as a table; the first one is what the others are compared with."""
    made = [f"{'workers':24} {'seconds':>10} {'faster':>7} {'environments':>13} {'trainer':>8} {'staleness':>16}"]
    for each in schedules:
        name = {0: "coupled", math.inf: "never wait"}.get(each.ahead, f"{each.ahead:g} ahead")
        faster = schedules[0].seconds / each.seconds if each.seconds else 1.0
        # where nothing took any time, nothing has a share of it
        worked, learnt = ("-" if math.isnan(x) else f"{100 * x:.1f} %" for x in (each.environments, each.trainer))
        made.append(
            f"{name:24} {each.seconds:10,.1f} {faster:6.2f}x {worked:>13} {learnt:>8} {each.staleness:6.2f}, "
            f"{each.stalest} most"
        )
    return made
