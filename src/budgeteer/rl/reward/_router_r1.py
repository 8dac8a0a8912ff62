"""Right, well formed, and with cheap helpers: for models that learn which other models to call (arXiv 2506.09033)."""

from __future__ import annotations

import numpy as np

from budgeteer.core.cheapness import cheapness
from budgeteer.core.column import Column, declare
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import ENDED, F64, FINISHED
from budgeteer.rl.reward.protocol import Columns, Reward

CALLED_COST = declare(
    Column(
        "called_cost",
        "what the models cost that the rollout called, in any unit",
        "a trainer whose rollouts call other models gives it; without one nothing is called, and it is 0",
        make=lambda rows: np.zeros(len(rows)),
    ),
    "rollouts",
)
WELL_FORMED = declare(
    Column(
        "well_formed",
        "1 for a row that keeps to the format: calls that can be read, and one answer at its end",
        "a trainer that reads calls gives it; else it is whether the row ended by itself",
        whole=True,
        most=1,
        needs=("status",),
        make=lambda rows: np.isin(rows.status, (ENDED, FINISHED)).astype(np.int64),
    ),
    "rollouts",
)


def router_r1(weight: float = 0.3, window: int = 1000) -> Reward:
    """-1 for a row that breaks the format, 0 for a wrong one, else ``(1 - weight) score + weight cheapness``.

    Formula: with x = sqrt(cost of the models that were called) and the 5 % and 95 % quantiles of x over this step and
    the last ``window`` rows, cheapness = 1 - clip((x - q5) / (q95 - q5), 0, 1), 1/2 where the two are equal. A wrong
    answer gets nothing for being cheap, so that cheap and wrong never pays.

    Helps a model that calls others of different prices, on questions of which some need the dear ones. Does not where
    everything is called alike: cheapness compares a row with those before it, so it never runs out of something to
    charge. The model's own tokens are not in it. Rollouts that call models are those of TRL with
    :class:`budgeteer.adapters.trl.pool.Pool`; for another trainer, give the columns ``called_cost`` and
    ``well_formed``.

    Args:
        weight: of cheapness, 0 to 1; 0 looks at answers alone.
        window: rows of earlier steps that are remembered, 1 or more.

    Raises:
        InvalidInput: a value outside these.

    >>> rows = Columns([1, 1, 0, 1], [9] * 4, [0] * 4, [9] * 4, [1, 1, 1, 1], called_cost=[0, 4, 0, 1],
    ...     well_formed=[1, 1, 1, 0])
    >>> router_r1(0.5).score(np.zeros(0), rows).tolist()
    [1.0, 0.5, 0.0, -1.0]
    """
    if not (0 <= weight <= 1 and window >= 1):
        raise InvalidInput(f"router_r1(weight={weight}, window={window}); give 0 to 1, and 1 row or more")

    def score(state: F64, rows: Columns) -> F64:
        cost = rows.column(CALLED_COST, "router_r1")
        cheap = cheapness(cost, np.concatenate([state, cost]))
        good = (1 - weight) * rows.correct + weight * cheap
        formed = rows.column(WELL_FORMED, "router_r1") > 0
        return np.where(formed, np.where(rows.correct > 0, good, 0.0), -1.0)

    def observe(state: F64, rows: Columns) -> F64:
        return np.concatenate([state, rows.column(CALLED_COST, "router_r1")])[-window:]

    return Reward(score, lambda: np.zeros(0), observe, (CALLED_COST, WELL_FORMED))
