"""Schedules: the checker against a time-indexed linear program, the generator's orders, the greedy rule, grading."""

from __future__ import annotations

import json
import random
from itertools import product

import numpy as np
import pytest

from budgeteer import cli
from budgeteer.core.errors import InvalidInput
from budgeteer.lab.bench.constraints import levels
from budgeteer.lab.tasks.schedule import Instance, Schedules, draw, faults, greedy, planned, read, written


def program(instance: Instance, horizon: int):
    """The problem as rows of A x <= b over x[task, start] in {0, 1}, from the statement, not from the checker."""
    n, length = len(instance.durations), instance.durations
    rows, limits = [], []

    def row(entries, limit):
        line = np.zeros((n, horizon))
        for (task, start), value in entries:
            line[task, start] += value
        rows.append(line.ravel())
        limits.append(limit)

    def works(task, hour):
        return [(task, s) for s in range(horizon) if s <= hour < s + length[task]]

    hours = horizon + max(length)
    for i, j in instance.before:
        for s, t in product(range(horizon), repeat=2):
            if t < s + length[i]:
                row([((i, s), 1), ((j, t), 1)], 1)
    for r, capacity in enumerate(instance.capacity):
        for hour in range(hours):
            row([(at, instance.demands[i][r]) for i in range(n) for at in works(i, hour)], capacity)
    for r, a, to in instance.closed:
        for hour in range(a, min(to, hours)):
            row([(at, 1) for i in range(n) if instance.demands[i][r] for at in works(i, hour)], 0)
    for i, (a, to) in enumerate(instance.windows):
        row([((i, s), 1) for s in range(horizon) if s < a or s + length[i] > to], 0)
    for i, j in instance.apart:
        for hour in range(hours):
            row([(at, 1) for k in (i, j) for at in works(k, hour)], 1)
    return np.array(rows), np.array(limits)


def chosen(starts, horizon):
    x = np.zeros((len(starts), horizon))
    x[range(len(starts)), starts] = 1
    return x.ravel()


@pytest.mark.parametrize("seed", range(6))
def test_the_checker_agrees_with_the_linear_program_on_any_plan(seed):
    rng = random.Random(seed)
    instance, plan = draw(rng, 4, 2, 1.0)
    horizon = max(plan) + 8
    a, b = program(instance, horizon)
    plans = [plan, greedy(instance)]
    plans += [[max(0, s + rng.randint(-2, 2)) for s in plan] for _ in range(120)]
    plans += [[rng.randrange(horizon) for _ in range(4)] for _ in range(40)]
    agreed = {bool(np.all(a @ chosen(p, horizon) <= b)): p for p in plans if max(p) < horizon}
    assert len(agreed) == 2  # some plans hold, others do not
    for p in plans:
        if max(p) < horizon:
            assert (not faults(instance, p)) == bool(np.all(a @ chosen(p, horizon) <= b)), p


@pytest.mark.parametrize("seed", range(3))
def test_an_exact_solver_finds_a_plan_and_none_where_windows_are_too_tight(seed):
    optimize = pytest.importorskip("scipy.optimize")
    instance, plan = draw(random.Random(f"tight-{seed}"), 4, 3, 1.0)
    horizon = max(plan) + 6

    def solve(problem):
        a, b = program(problem, horizon)
        once = np.kron(np.eye(4), np.ones(horizon))
        limits = [optimize.LinearConstraint(a, ub=b), optimize.LinearConstraint(once, 1, 1)]
        return optimize.milp(np.zeros(4 * horizon), constraints=limits, integrality=1, bounds=optimize.Bounds(0, 1))

    found = solve(instance)
    assert found.success
    assert not faults(instance, np.argmax(found.x.reshape(4, horizon), axis=1).tolist())
    assert not faults(instance, plan)
    i, j = instance.before[0]
    both = [(plan[k], plan[k] + instance.durations[k]) for k in range(4)]
    both[j] = both[i] = (both[i][0], both[i][0] + max(instance.durations[i], instance.durations[j]))  # j cannot wait
    tight = Instance(instance.durations, instance.demands, instance.capacity, instance.before, windows=tuple(both))
    assert not solve(tight).success
    assert faults(tight, greedy(tight))


def test_each_kind_of_fault_is_told():
    base = {"durations": (2, 1), "demands": ((1, 0), (1, 1)), "capacity": (2, 1)}
    assert faults(Instance(**base), [0, 0]) == {}
    assert faults(Instance(**base, before=((0, 1),)), [0, 1]) == {"order": 1}
    assert faults(Instance(**base, before=((0, 1),)), [0, 2]) == {}
    assert faults(Instance(**base | {"capacity": (1, 1)}), [0, 1]) == {"capacity": 1}
    assert faults(Instance(**base, closed=((1, 0, 3),)), [5, 2]) == {"closed": 1}
    assert faults(Instance(**base, closed=((1, 0, 3),)), [0, 3]) == {}  # the first task needs none of it
    assert faults(Instance(**base, windows=((0, 2), (3, 4))), [0, 2]) == {"window": 1}
    assert faults(Instance(**base, apart=((0, 1),)), [0, 1]) == {"apart": 1}


def test_no_order_follows_from_others():
    for seed in range(20):
        instance, _ = draw(random.Random(seed), 8, 8, 0.0)
        assert len(set(instance.before)) == 8
        for left in instance.before:
            others, reached = set(instance.before) - {left}, {left[0]}
            for _ in range(8):
                reached |= {j for i, j in others if i in reached}
            assert left[1] not in reached


def test_the_serial_schedule_by_hand():
    instance = Instance((2, 2, 1), ((1,), (1,), (1,)), (1,), before=((0, 2),), closed=((0, 2, 4),))
    assert planned(instance, [0, 1, 2]) == [0, 4, 6]
    assert planned(instance, [1, 0, 2]) == [4, 0, 6]


def test_answers_are_read_or_not():
    assert read("**A = 3**, B: 10", 2) == [3, 10]
    assert read("A=1, B=2.5", 2) is None
    assert read("A=1, B=2, B=3", 2) is None
    assert read(written([4, 0, 7]), 3) == [4, 0, 7]


def test_wrong_options_are_refused():
    for options in ({"tasks": 1}, {"tasks": 27}, {"min_edges": 3, "max_edges": 2}, {"axes": 2.0}, {"tasks": 2.5}):
        with pytest.raises(InvalidInput):
            Schedules(size=2, seed=0, **options)
    with pytest.raises(InvalidInput, match="lower max_edges"):
        Schedules(size=2, seed=0, tasks=3, min_edges=9, max_edges=9)


def test_the_command_grades_what_solve_wrote(tmp_path, capsys):
    env = Schedules(size=4, seed=5, tasks=4, min_edges=1, max_edges=2)
    answers = [env.items[0].answer, "A=0, B=0, C=0, D=0", None, env.items[3].answer]
    found = levels(env.items, {item.key: answer for item, answer in zip(env.items, answers, strict=True)})
    assert [(one.edges, one.problems, one.unread) for one in found] == [(1, 2, 1), (2, 2, 0)]
    assert [one.kept.mean for one in found] == [0.5, 0.5]
    path = tmp_path / "answers.jsonl"
    rows = [{"id": item.key, "answer": answer} for item, answer in zip(env.items, answers, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["bench", "constraints", str(path), "--task", "schedule:tasks=4,min_edges=1,max_edges=2", "--limit", "4"]
    assert cli.main([*words, "--task-seed", "5"]) == 0
    assert "weighted area  0.500" in capsys.readouterr().out
    assert cli.main([*words, "--task-seed", "6"]) == 2
    assert "to other problems" in capsys.readouterr().err
