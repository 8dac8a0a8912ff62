"""Schedules that keep all constraints: more of them a level, and kinds of them that act on each other.

Paper: "R-ConstraintBench: Evaluating LLMs on NP-Complete Scheduling", arXiv 2508.15204. Its abstract and two reviews
were read; numbers of tasks, durations, demands and windows are ours.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from budgeteer.core.environment import Item
from budgeteer.core.errors import InvalidInput

RESOURCES = "XYZ"
LAYERS = 4
_TRIES = 200
_START = re.compile(r"\b([A-Z])\s*[=:]\s*(\d{1,6})(?!\d|\.\d)")


@dataclass(frozen=True, slots=True)
class Instance:
    """One problem. All times are whole hours; a task that starts at s and takes d works in the hours s to s + d - 1.

    Attributes:
        durations: [n] hours of each task, >= 1.
        demands: [n] units of each resource that a task needs while it works.
        capacity: units of each resource that are there.
        before: (i, j): task j starts when task i has ended, or later.
        closed: (resource, from, to): nothing of it is there in the hours from ... to - 1.
        windows: [n] (earliest start, latest end) of each task; () = none.
        apart: (i, j): never at work in the same hour.
    """

    durations: tuple[int, ...]
    demands: tuple[tuple[int, ...], ...]
    capacity: tuple[int, ...]
    before: tuple[tuple[int, int], ...] = ()
    closed: tuple[tuple[int, int, int], ...] = ()
    windows: tuple[tuple[int, int], ...] = ()
    apart: tuple[tuple[int, int], ...] = ()


def faults(instance: Instance, starts: Sequence[int]) -> Counter[str]:
    """What a plan breaks, by kind of constraint: ``order``, ``capacity``, ``closed``, ``window``, ``apart``.

    Hours in which too much of a resource is used count one each; all others count one a constraint and task.

    >>> both = Instance((2, 3), ((1,), (1,)), (1,), before=((0, 1),))
    >>> faults(both, [0, 2]), faults(both, [0, 1])
    (Counter(), Counter({'order': 1, 'capacity': 1}))
    """
    found: Counter[str] = Counter()
    ends = [start + length for start, length in zip(starts, instance.durations, strict=True)]
    used: Counter[tuple[int, int]] = Counter()
    for demands, start, end in zip(instance.demands, starts, ends, strict=True):
        for resource, units in enumerate(demands):
            for hour in range(start, end) if units else ():
                used[resource, hour] += units
            if units and any(r == resource and start < to and a < end for r, a, to in instance.closed):
                found["closed"] += 1
    found["order"] = sum(starts[j] < ends[i] for i, j in instance.before)
    found["capacity"] = sum(units > instance.capacity[resource] for (resource, _), units in used.items())
    found["window"] = sum(
        start < earliest or end > latest
        for (earliest, latest), start, end in zip(instance.windows, starts, ends, strict=False)
    )
    found["apart"] = sum(starts[i] < ends[j] and starts[j] < ends[i] for i, j in instance.apart)
    return +found


def read(text: str, n: int) -> list[int] | None:
    """The starts that an answer states, ``A=0, B=3, ...``; None unless each of the n tasks has exactly one.

    >>> read("So A=0, B = 3.", 2), read("A=0", 2), read("A=0, B=1, A=2", 2)
    ([0, 3], None, None)
    """
    found = _START.findall(text)
    names = [_name(i) for i in range(n)]
    return [int(dict(found)[name]) for name in names] if sorted(name for name, _ in found) == names else None


def written(starts: Sequence[int]) -> str:
    """A plan as an answer states it."""
    return ", ".join(f"{_name(i)}={start}" for i, start in enumerate(starts))


def planned(instance: Instance, order: Sequence[int]) -> list[int]:
    """The serial schedule: each task of the order, which respects ``before``, as early as all constraints but windows'
    ends allow. Windows' starts are kept."""
    starts: dict[int, int] = {}
    for task in order:
        earliest = max((starts[i] + instance.durations[i] for i, j in instance.before if j == task), default=0)
        start = max(earliest, instance.windows[task][0] if instance.windows else 0)
        while not _fits(instance, starts, task, start):
            start += 1
        starts[task] = start
    return [starts[i] for i in range(len(instance.durations))]


def greedy(instance: Instance) -> list[int]:
    """The baseline: serial scheduling, of the tasks that may come next the one whose window ends first."""
    left, order = set(range(len(instance.durations))), list[int]()
    while left:
        ready = [j for j in left if not any(i in left for i, k in instance.before if k == j)]
        order.append(min(ready, key=lambda j: (instance.windows[j][1] if instance.windows else 0, j)))
        left.remove(order[-1])
    return planned(instance, order)


def _fits(instance: Instance, starts: dict[int, int], task: int, start: int) -> bool:
    """Whether the task could start there beside those that have a start."""
    some = sorted({*starts, task})
    place = {i: k for k, i in enumerate(some)}
    part = Instance(
        tuple(instance.durations[i] for i in some), tuple(instance.demands[i] for i in some), instance.capacity,
        closed=instance.closed, apart=tuple((place[i], place[j]) for i, j in instance.apart if {i, j} <= place.keys()),
    )  # fmt: skip
    return not faults(part, [start if i == task else starts[i] for i in some])


def draw(rng: random.Random, tasks: int, edges: int, axes: float) -> tuple[Instance, list[int]]:
    """A problem with so many orders, none of which follows from others, and a plan that keeps all constraints.

    Tasks lie in layers, and an order leads from a lower to a higher one. Each further kind (closed resources, pairs
    apart, windows) is there with the chance ``axes``. Windows leave up to 3 hours on both sides of the plan, so that
    they tell something of it.

    Raises:
        InvalidInput: so many orders are not to be had.
    """
    for _ in range(_TRIES):
        layer = [rng.randrange(LAYERS) for _ in range(tasks)]
        before = _orders(rng, layer, edges)
        if before is not None:
            break
    else:
        raise InvalidInput(
            f"{tasks} tasks hardly have {edges} orders that do not follow from each other; lower max_edges or raise "
            "tasks"
        )
    capacity = tuple(rng.randint(3, 5) for _ in RESOURCES)
    durations = tuple(rng.randint(1, 5) for _ in range(tasks))
    demands = tuple(tuple(rng.randint(0, 3) for _ in RESOURCES) for _ in range(tasks))
    closed: list[tuple[int, int, int]] = []
    if rng.random() < axes:
        for _ in range(rng.randint(1, 3)):
            start = rng.randrange(2 * tasks)
            closed.append((rng.randrange(len(RESOURCES)), start, start + rng.randint(1, 4)))
    reach = _reach(tasks, before)
    free = [(i, j) for i in range(tasks) for j in range(i + 1, tasks) if j not in reach[i] and i not in reach[j]]
    apart = sorted(rng.sample(free, min(len(free), rng.randint(1, 4)))) if rng.random() < axes else []
    bare = Instance(durations, demands, capacity, tuple(before), tuple(sorted(set(closed))), (), tuple(apart))
    order = sorted(range(tasks), key=lambda i: (layer[i], rng.random()))
    plan = planned(bare, order)
    windows: tuple[tuple[int, int], ...] = ()
    if rng.random() < axes:
        windows = tuple(
            (max(0, start - rng.randint(0, 3)), start + length + rng.randint(0, 3))
            for start, length in zip(plan, durations, strict=True)
        )
    return Instance(durations, demands, capacity, bare.before, bare.closed, windows, bare.apart), plan


def _orders(rng: random.Random, layer: Sequence[int], edges: int) -> list[tuple[int, int]] | None:
    tasks = len(layer)
    pairs = [(i, j) for i in range(tasks) for j in range(tasks) if layer[i] < layer[j]]
    rng.shuffle(pairs)
    taken: list[tuple[int, int]] = []
    for i, j in pairs:
        if len(taken) == edges:
            break
        reach = _reach(tasks, taken)
        if j in reach[i] or any((a == i or i in reach[a]) and (b == j or b in reach[j]) for a, b in taken):
            continue  # it follows from others, or another would follow from it
        taken.append((i, j))
    return sorted(taken) if len(taken) == edges else None


def _reach(tasks: int, before: Sequence[tuple[int, int]]) -> list[set[int]]:
    """The tasks that come after each task."""
    after: list[set[int]] = [set() for _ in range(tasks)]
    changed = True
    while changed:
        changed = False
        for i, j in before:
            size = len(after[i])
            after[i] |= {j} | after[j]
            changed |= len(after[i]) > size
    return after


def _name(task: int) -> str:
    return chr(ord("A") + task)


def prompt_of(instance: Instance) -> str:
    """The problem in words."""
    tasks = range(len(instance.durations))
    lines = [
        f"Schedule the tasks {_name(0)} to {_name(tasks[-1])} in whole hours from hour 0 on. A task that starts at "
        "hour s and takes d hours works in the hours s, ..., s + d - 1 without a break.",
        "Hours that each takes: " + ", ".join(f"{_name(i)} {instance.durations[i]}" for i in tasks) + ".",
        f"Units of {', '.join(RESOURCES)} that each needs while it works: "
        + "; ".join(f"{_name(i)} {' '.join(map(str, instance.demands[i]))}" for i in tasks)
        + ".",
        "Units that are there in every hour: "
        + ", ".join(f"{name} {units}" for name, units in zip(RESOURCES, instance.capacity, strict=True))
        + ".",
    ]
    if instance.before:
        lines.append(
            "Order: " + ", ".join(f"{_name(i)} ends before {_name(j)} starts" for i, j in instance.before) + "."
        )
    if instance.closed:
        closed = (f"{RESOURCES[r]} in the hours {a} to {to - 1}" for r, a, to in instance.closed)
        lines.append("Not there at all: " + ", ".join(closed) + ".")
    if instance.windows:
        windows = (f"{_name(i)} in the hours {a} to {to - 1}" for i, (a, to) in enumerate(instance.windows))
        lines.append("Only allowed: " + ", ".join(windows) + ".")
    if instance.apart:
        lines.append(
            "Never in the same hour: " + ", ".join(f"{_name(i)} and {_name(j)}" for i, j in instance.apart) + "."
        )
    lines.append(f"Give the hour in which each task starts, on one line: {_name(0)}=0, {_name(1)}=0, and so on.")
    return "\n".join(lines)


class Schedules:
    """``size`` problems that can be solved, with ``min_edges`` to ``max_edges`` orders in equal shares: the levels.

    Args:
        size: how many problems.
        seed: of the draw.
        tasks: of a problem, 2 to 26.
        min_edges, max_edges: fewest and most orders of a problem.
        axes: chance of each further kind of constraint: closed resources, windows, pairs apart.

    The reference is one plan of many: any plan without a fault is right, whatever its length.

    >>> env = Schedules(size=2, seed=0, tasks=4, min_edges=1, max_edges=2)
    >>> [env.verify(item, item.answer) for item in env.items], env.verify(env.items[0], "A=0")
    ([1.0, 1.0], 0.0)
    """

    name = "schedule"

    def __init__(
        self, size: int, seed: int, tasks: int = 8, min_edges: int = 1, max_edges: int = 8, axes: float = 0.75
    ) -> None:
        whole = all(type(n) is int for n in (tasks, min_edges, max_edges))
        if not whole or not 2 <= tasks <= 26 or not 0 <= min_edges <= max_edges:
            raise InvalidInput(
                f"schedule with tasks={tasks}, min_edges={min_edges}, max_edges={max_edges}; give whole numbers, "
                "2 to 26 tasks, and 0 <= min <= max"
            )
        if not 0 <= axes <= 1:
            raise InvalidInput(f"schedule with axes={axes}; give a chance from 0 to 1")
        rng, items = random.Random(f"schedule-{seed}"), dict[str, Item]()
        while len(items) < size:
            level = min_edges + len(items) % (max_edges - min_edges + 1)
            instance, plan = draw(rng, tasks, level, axes)
            prompt = prompt_of(instance)
            key = f"schedule:{level}:{hashlib.blake2b(prompt.encode(), digest_size=6).hexdigest()}"
            items.setdefault(prompt, Item(key, prompt, written(plan), str(level), {"instance": instance}))
        self.items: Sequence[Item] = list(items.values())

    def verify(self, item: Item, answer: str | None) -> float:
        """1 for a plan without a fault, else 0."""
        instance: Instance = item.entry["instance"]
        starts = None if answer is None else read(answer, len(instance.durations))
        return float(starts is not None and not faults(instance, starts))
