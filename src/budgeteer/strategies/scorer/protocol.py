"""Scorers: how good a trace is, or the beginning of one.

A scorer is first bound to a task; it may refuse the task before anything is spent. Binding returns a coroutine function
that takes samples and returns a number for each; larger is better, NaN is unknown.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, cast

from budgeteer.core import registry
from budgeteer.solve import Task
from budgeteer.strategies.kit.samples import Sample

__all__ = ["Score", "Scorer", "scorer_of"]

Score = Callable[[Sequence[Sample]], Awaitable[list[float]]]
"""Samples [n] -> their scores [n]."""


class Scorer(NamedTuple):
    """How traces are scored.

    Attributes:
        bind: task -> coroutine function (samples) -> scores.
        needs: see :class:`budgeteer.solve.strategy.Strategy`.
        charged: whether it calls the model, so that a strategy has to leave budget for it.
    """

    bind: Callable[[Task], Score]
    needs: frozenset[str] = frozenset()
    charged: bool = False


def scorer_of(scorer: Scorer | str) -> Scorer:
    """The scorer itself, or the registered scorer of this name, with its default options."""
    return cast("Scorer", registry.part_of("scorer", scorer))
