"""R-ConstraintBench: how many constraints a model's schedules keep, level by level, beside a greedy rule.

Paper: arXiv 2508.15204. The problems are the task ``schedule`` (:mod:`budgeteer.lab.tasks.schedule`), which ``solve``,
``frontier`` and the others run; this reads what ``solve`` wrote.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from budgeteer.core.environment import Item
from budgeteer.core.errors import InvalidInput
from budgeteer.lab.stats import Paired, wilson
from budgeteer.lab.tasks.schedule import Instance, faults, greedy, read


class Level(NamedTuple):
    """A level, of the problems with so many orders.

    Attributes:
        edges: the level: number of orders.
        problems: of it.
        kept: share of the answers that keep all constraints, with Wilson's interval.
        greedy: share of the greedy rule's plans that do.
        unread: answers from which no plan could be read, or that were not given.
        broken: plans that break each kind of constraint.
    """

    edges: int
    problems: int
    kept: Paired
    greedy: float
    unread: int
    broken: Mapping[str, int]


def levels(items: Sequence[Item], answers: Mapping[str, str | None]) -> list[Level]:
    """Grade answers, the lowest level first.

    Args:
        items: problems of the task ``schedule``.
        answers: key of a problem -> the answer; problems without an entry are left out.

    Raises:
        InvalidInput: an answer of an unknown problem, or no answer at all.
    """
    known = {item.key: item for item in items}
    if other := answers.keys() - known.keys():
        raise InvalidInput(
            f"{len(other)} answers are to other problems, such as {min(other)!r}; give the task, the limit and the "
            "task seed with which they were made"
        )
    if not answers:
        raise InvalidInput("there are no answers; give the file that solve wrote")
    by_level: dict[int, list[str]] = {}
    for key in known.keys() & answers.keys():
        by_level.setdefault(int(known[key].level), []).append(key)
    found = []
    for edges in sorted(by_level):
        right, simple, unread, broken = 0, 0, 0, Counter[str]()
        for key in by_level[edges]:
            instance: Instance = known[key].entry["instance"]
            starts = read(answers[key] or "", len(instance.durations))
            wrong = None if starts is None else faults(instance, starts)
            unread += wrong is None
            right += wrong is not None and not wrong
            broken.update((wrong or {}).keys())
            simple += not faults(instance, greedy(instance))
        n = len(by_level[edges])
        found.append(Level(edges, n, wilson(right, n), simple / n, unread, broken))
    return found


def wauc(shares: Mapping[int, float]) -> float:
    """Weighted area under the curve: sum over levels of k F_k, divided by the sum of k. Our reading of the paper's.

    >>> wauc({1: 1.0, 3: 0.5})
    0.625
    """
    total = sum(shares)
    return sum(k * share for k, share in shares.items()) / total if total else 0.0


def breakpoint_of(shares: Mapping[int, float]) -> int | None:
    """The lowest level of which fewer than half are kept; None if there is none.

    >>> breakpoint_of({1: 1.0, 2: 0.4, 3: 0.6})
    2
    """
    return next((k for k in sorted(shares) if shares[k] < 0.5), None)
