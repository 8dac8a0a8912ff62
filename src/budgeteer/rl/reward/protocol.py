"""What a reward is: a pure function over columns, with a state where it has targets or moving means."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.column import column, with_sources
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64

__all__ = ["ALWAYS", "Columns", "Monitor", "Reward", "of_terms"]

ALWAYS = ("correct", "length", "group", "max_tokens", "status")
"""The columns that every reward may read without naming them in its ``needs``."""


@dataclass(frozen=True, slots=True, init=False)
class Columns:
    """Rollouts as a reward sees them: one row a rollout, as named columns.

    Which columns there are, what they mean and who gives them is declared in :mod:`budgeteer.core.column`. Five are
    always there; a reward names the others in its ``needs`` and reads them with :meth:`column`.

    >>> rows = Columns([1.0, 0.0], [3, 9], [0, 0], [9, 9], [1, 4], closed=[2, -1])
    >>> rows.length.tolist(), rows.column("closed", "my reward").tolist()
    ([3, 9], [2, -1])

    Attributes:
        columns: name -> [n], or [n, t] for columns with an entry a token.
    """

    columns: Mapping[str, NDArray[Any]]

    def __init__(self, correct: Any, length: Any, group: Any, max_tokens: Any, status: Any, **more: Any) -> None:
        """Columns from their values.

        Args:
            correct: [n] the verifier's score.
            length: [n] tokens of the rollout.
            group: [n] number of the row's prompt.
            max_tokens: [n] cap of the row.
            status: [n] ENDED, FINISHED, ABORTED or CUT.
            more: further columns by name.

        Raises:
            InvalidInput: a column of another length, or with a value that it may not have.
            UnknownName: a column that nobody declared.
        """
        given = dict(zip(ALWAYS, (correct, length, group, max_tokens, status), strict=True)) | more
        names = tuple(f"row {i}" for i in range(len(correct)))
        checked = {name: column(name, "rollouts").checked("rollouts", value, names) for name, value in given.items()}
        object.__setattr__(self, "columns", checked)

    def __len__(self) -> int:
        return len(self.columns["correct"])

    @property
    def correct(self) -> F64:
        """[n] the verifier's score."""
        return self.columns["correct"]

    @property
    def length(self) -> I64:
        """[n] tokens of the rollout."""
        return self.columns["length"]

    @property
    def group(self) -> I64:
        """[n] number of the row's prompt."""
        return self.columns["group"]

    @property
    def max_tokens(self) -> I64:
        """[n] cap of the row."""
        return self.columns["max_tokens"]

    @property
    def status(self) -> NDArray[np.int8]:
        """[n] ENDED, FINISHED, ABORTED or CUT."""
        return self.columns["status"]

    def column(self, name: str, by: str) -> NDArray[Any]:
        """A column that must be there.

        Args:
            name: of the column.
            by: the reward that reads it, for the error.

        Raises:
            InvalidInput: the column is not here; the message says what it holds and how it comes here.
            UnknownName: nobody declared such a column.
        """
        declared = column(name, "rollouts")
        if name not in self.columns:
            raise InvalidInput(
                f"{by} reads the column {name!r} of rollouts ({declared.meaning}); there are only: "
                f"{', '.join(self.columns)}. Name it in the reward, Reward(score, needs=({name!r},)); where it comes "
                f"from: {declared.source}"
            )
        return self.columns[name]

    def with_columns(self, **more: Any) -> Columns:
        """The same rows with further or other columns."""
        return Columns(**{**self.columns, **more})

    def completed(self, needs: Collection[str], given: Mapping[str, Any]) -> Columns:
        """The columns that are always there and those of ``needs``: as given, or computed from others.

        Args:
            needs: names of columns.
            given: values of columns by name; more than needed may be there.

        Raises:
            InvalidInput: nobody gave a column that cannot be computed; the message says which and where it comes from.
            UnknownName: nobody declared such a column.
        """
        rows = self
        for each in with_sources(needs, given):
            if each.name in rows.columns:
                continue
            if each.name not in given and each.make is None:
                raise InvalidInput(
                    f"a reward reads the column {each.name!r} of rollouts ({each.meaning}), and nobody gave it; "
                    f"{each.source}"
                )
            made = each.make(rows) if each.make and each.name not in given else given[each.name]
            rows = rows.with_columns(**{each.name: made})
        return rows.only(*needs)

    def only(self, *names: str) -> Columns:
        """The same rows with the columns that are always there and those of these names."""
        return Columns(**{name: self.columns[name] for name in (*ALWAYS, *names)})

    def take(self, rows: NDArray[Any]) -> Columns:
        """The rows at these indices, or where ``rows`` [n] is true."""
        return Columns(**{name: values[rows] for name, values in self.columns.items()})


def _nothing() -> Any:
    return ()


def _same(state: Any, columns: Columns) -> Any:
    return state


class Monitor(NamedTuple):
    """Rollouts of prompts of its own that a reward looks at now and then; nothing is learnt from them.

    They are sampled at the beginning of the first step and of every ``every``-th one behind it, as those of training
    are, and are on the run's bill.

    Attributes:
        prompts: training prompts, the same in the whole run, drawn by the run's seed.
        rollouts: of each.
        every: steps from one time to the next.
        watch: ``(state, columns) -> state`` of the reward; the columns are those that are :data:`ALWAYS` there.
    """

    prompts: int
    rollouts: int
    every: int
    watch: Callable[[Any, Columns], Any]


class Reward(NamedTuple):
    """What advantages are made of, instead of the verifier's score alone.

    History and allocator go on seeing the verifier's score.

    Attributes:
        score: ``(state, columns) -> reward [n]``, finite.
        init: ``() -> state``, which survives JSON.
        observe: ``(state, columns) -> state``, once a step, after ``score``; the state is in the run's checkpoint.
        needs: names of the columns that it reads beside those that are :data:`ALWAYS` there. What the trainer cannot
            give is refused before the first token.
        terms: ``(state, columns) -> name -> [n]``, the terms of which ``score`` is the sum, for logs; None = it has
            one. :func:`of_terms` and :func:`budgeteer.rl.reward.summed` make rewards that have them.
        monitor: rollouts that it asks for beside those of training; None = none.
    """

    score: Callable[[Any, Columns], F64]
    init: Callable[[], Any] = _nothing
    observe: Callable[[Any, Columns], Any] = _same
    needs: tuple[str, ...] = ()
    terms: Callable[[Any, Columns], Mapping[str, F64]] | None = None
    monitor: Monitor | None = None

    def means(self, state: Any, columns: Columns) -> dict[str, float]:
        """The mean of each term over the rows, for logs; nothing for a reward without named terms, or without rows."""
        if self.terms is None or not len(columns):
            return {}
        return {name: float(np.mean(values)) for name, values in self.terms(state, columns).items()}


def of_terms(
    terms: Callable[[Any, Columns], Mapping[str, F64]],
    init: Callable[[], Any] = _nothing,
    observe: Callable[[Any, Columns], Any] = _same,
    needs: tuple[str, ...] = (),
    monitor: Monitor | None = None,
) -> Reward:
    """A reward that is the sum of named terms.

    >>> rows = Columns([1.0, 0.0], [3, 9], [0, 0], [9, 9], [1, 4])
    >>> brief = of_terms(lambda state, rows: {"correct": rows.correct, "length": -rows.length / 10})
    >>> brief.score((), rows).tolist(), brief.terms((), rows)["length"].tolist()
    ([0.7, -0.9], [-0.3, -0.9])
    """

    def score(state: Any, rows: Columns) -> F64:
        return np.asarray(sum(terms(state, rows).values()), np.float64)

    return Reward(score, init, observe, needs, terms, monitor)
