"""Workers and a trainer that wait for each other, or do not: by hand, and the coupled ones by a plain computation."""

from __future__ import annotations

import heapq
import json
import math
import random

import pytest

from budgeteer.agent.workers import AHEAD, Trajectory, lines, read, simulated
from budgeteer.core.errors import InvalidInput


def drawn(seed: int) -> tuple[list[Trajectory], dict]:
    draw = random.Random(seed)
    runs = [
        Trajectory(f"t{i}", draw.choice([0, 1, 2, 9]) * draw.random()) for i in range(draw.randint(1, 9)) for _ in "abc"
    ]
    sizes = {"environments": draw.randint(1, 5), "batch": draw.randint(1, 4), "train_seconds": draw.choice([0, 0.5, 3])}
    return runs, sizes


def test_by_hand() -> None:
    """Two environments, two groups of two, a step of 2 s a group.

    Coupled: a runs 0-4 and 0-1, is learnt from 4-6, b runs 6-7 twice, is learnt from 7-9.
    Never waiting: b runs 1-2 and 2-3, is complete first and learnt from 3-5, a from 5-7 with weights that are one
    update behind.
    """
    runs = [Trajectory("a", 4), Trajectory("a", 1), Trajectory("b", 1), Trajectory("b", 1)]
    coupled, ahead, free = (simulated(runs, environments=2, batch=1, train_seconds=2, ahead=n) for n in AHEAD)
    assert (coupled.seconds, coupled.steps, coupled.staleness, coupled.stalest) == (9, 2, 0, 0)
    assert (coupled.environments, coupled.trainer) == (7 / 18, 4 / 9)
    assert (free.seconds, free.steps, free.staleness, free.stalest) == (7, 2, 0.5, 1)
    assert (free.environments, free.trainer) == (7 / 14, 4 / 7)
    assert ahead.seconds == 7
    assert lines([coupled, free])[2].split()[:4] == ["never", "wait", "7.0", "1.29x"]


def test_the_slow_group_holds_up_no_other() -> None:
    """One slow trajectory of 100 s in six groups of one: the others are learnt from while it runs, 1 + 1 s each on the
    other worker; coupled in steps of two, everything waits for it."""
    runs = [Trajectory("slow", 100), *(Trajectory(f"t{i}", 1) for i in range(5))]
    sizes = {"environments": 2, "batch": 2, "train_seconds": 1}
    assert simulated(runs, ahead=0, **sizes).seconds == 100 + 1 + (1 + 1) + (1 + 1)
    free = simulated(runs, ahead=math.inf, **sizes)
    assert free.seconds == 101
    assert free.stalest == 2  # it began before the first update and is in the third step


@pytest.mark.parametrize("seed", range(40))
def test_coupled_is_the_sum_of_its_steps(seed) -> None:
    runs, sizes = drawn(seed)
    made = simulated(runs, ahead=0, **sizes)
    tasks = list(dict.fromkeys(task for task, _ in runs))
    total = 0.0
    for first in range(0, len(tasks), sizes["batch"]):
        some = tasks[first : first + sizes["batch"]]
        free = [0.0] * sizes["environments"]
        for task in some:
            for seconds in (s for t, s in runs if t == task):
                heapq.heappush(free, heapq.heappop(free) + seconds)
        total += max(free) + sizes["train_seconds"]
    assert made.seconds == pytest.approx(total)
    assert (made.staleness, made.stalest) == (0, 0)


@pytest.mark.parametrize("seed", range(40))
def test_what_no_schedule_can_pass(seed) -> None:
    """No schedule is shorter than its longest trajectory, its work over the workers, or the trainer's steps; all groups
    are learnt from; with a worker for each trajectory and one step the time is known."""
    runs, sizes = drawn(seed)
    tasks = len({task for task, _ in runs})
    steps, work = -(-tasks // sizes["batch"]), sum(seconds for _, seconds in runs)
    for ahead in (0, 1, 2, math.inf):
        made = simulated(runs, ahead=ahead, **sizes)
        assert made.steps == steps
        least = max(work / sizes["environments"], max(s for _, s in runs) + sizes["train_seconds"])
        assert made.seconds >= max(least, steps * sizes["train_seconds"]) - 1e-9
        if made.seconds:
            assert made.environments == pytest.approx(work / sizes["environments"] / made.seconds)
    one = {**sizes, "environments": len(runs), "batch": tasks}
    assert simulated(runs, ahead=math.inf, **one).seconds == pytest.approx(
        max(s for _, s in runs) + sizes["train_seconds"]
    )


def test_trajectories_of_a_task_need_not_stand_together() -> None:
    apart = [Trajectory("a", 4), Trajectory("b", 1), Trajectory("a", 1), Trajectory("b", 1)]
    together = [Trajectory("a", 4), Trajectory("a", 1), Trajectory("b", 1), Trajectory("b", 1)]
    for ahead in AHEAD:
        sizes = {"environments": 2, "batch": 1, "train_seconds": 2, "ahead": ahead}
        assert simulated(apart, **sizes) == simulated(together, **sizes)


@pytest.mark.parametrize("given", [None, True, "x", [1], -1, 1e10, 10**400, float("nan"), float("inf")])
def test_a_duration_is_seconds_in_a_row(tmp_path, given) -> None:
    file = tmp_path / "runs.jsonl"
    file.write_text(json.dumps({"task": "a", "seconds": given}))
    with pytest.raises(InvalidInput, match=r"line 1: seconds are .*; give how long the run took") as told:
        read(str(file))
    assert len(str(told.value)) < len(str(file)) + 150  # not all digits of a long number


@pytest.mark.parametrize("task", [None, "", ["a"], {}, True])
def test_a_task_has_a_name(tmp_path, task) -> None:
    file = tmp_path / "runs.jsonl"
    file.write_text(json.dumps({"task": task, "seconds": 1}))
    with pytest.raises(InvalidInput, match="line 1: no task and no id"):
        read(str(file))


def test_names_may_be_numbers_and_cells_of_csv_are_texts(tmp_path) -> None:
    (tmp_path / "runs.jsonl").write_text('{"id": 3, "seconds": 2}')
    assert read(str(tmp_path / "runs.jsonl")) == [Trajectory("3", 2.0)]
    (tmp_path / "runs.csv").write_text("task,seconds\na,1.5\n")
    assert read(str(tmp_path / "runs.csv")) == [Trajectory("a", 1.5)]


def test_where_nothing_takes_time_there_are_no_shares() -> None:
    made = simulated([Trajectory("a", 0)], environments=1, batch=1, train_seconds=0)
    assert lines([made])[1].split() == ["never", "wait", "0.0", "1.00x", "-", "-", "0.00,", "0", "most"]
