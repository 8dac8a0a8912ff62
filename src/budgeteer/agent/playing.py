"""Tasks that the strategy ``routed`` plays, for fitting its policy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from budgeteer.agent._routed import routed
from budgeteer.core.amounts import MONEY, PICO
from budgeteer.core.plan import F64
from budgeteer.models.model import Model
from budgeteer.route.steps import Choose, Play, Trajectory
from budgeteer.solve import Answer, Task


def play_of(
    large: Model,
    task_of: Callable[[int, int], Task],
    right: Callable[[int, Answer], bool],
    *,
    turns: int = 10,
    step_tokens: int = 256,
    result: int = 2000,
    temperature: float = 0.0,
) -> Play:
    """What :func:`budgeteer.route.steps.fit` plays: tasks of one's own, by the strategy ``routed``.

    The cost of a trajectory is its money, in dollars, where the tasks have a budget of money; else the number of steps
    of the large model, as in the paper.

    Args:
        large: the large model.
        task_of: (number of a task, number of its run) -> the task with the small model and a budget of its own.
        right: (number of a task, its answer) -> whether it is solved.
        turns, step_tokens, result, temperature: as in :func:`routed`.
    """
    options: dict[str, Any] = {
        "turns": turns, "step_tokens": step_tokens, "result": result, "temperature": temperature,
    }  # fmt: skip

    async def one(number: int, run: int, choose: Choose) -> Trajectory:
        task, heard = task_of(number, run), list[tuple[F64, NDArray[np.bool_]]]()
        answer = await routed(large, choose, **options, seen=lambda _, x, taken: heard.append((x, taken))).solve(task)
        ((x, taken),) = heard
        spent = task.model.spend.units
        cost = spent[MONEY] / PICO if MONEY in spent else float(taken.sum())
        return Trajectory(x, taken, cost, right(number, answer))

    async def every(tasks: Sequence[int], choosing: Callable[[int], Choose]) -> list[Trajectory]:
        return [await one(number, run, choosing(run)) for run, number in enumerate(tasks)]

    return lambda tasks, choosing: asyncio.run(every(tasks, choosing))
