"""Whether a team of agents pays, from what one agent does: the predictive model of the science of scaling agents.

The paper regresses the success of a configuration on measurable properties, all standardised. Of its coefficients the
ones in PUBLISHED were seen; the others were not, so its whole equation cannot be computed here: :func:`gate` uses its
rules, and :func:`fitted` makes a regression of the same kind from one's own runs.

Source: "Towards a Science of Scaling Agent Systems", arXiv 2512.08296, version 2; some rows of its tables were missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64

PUBLISHED: Mapping[str, float] = {
    "log(1 + tools)": 0.411,
    "single x log(1 + agents)": -0.404,
    "single": 0.315,
    "efficiency x tools": -0.267,
    "intelligence": 0.171,
    "overhead x tools": -0.162,
    "redundancy x agents": 0.047,
}
"""Standardised coefficients of version 2. ``single`` is one agent's success; the abstract has -0.408 for the second.
The model explains 0.524 of the variance on held-out configurations in version 2 (180 of them), 0.373 to 0.413 in a
later one (260)."""
SATURATED = 0.45
"""Success of one agent from which a team does not pay."""


class Architecture(NamedTuple):
    """Published means over tasks.

    Attributes:
        success: share of tasks solved.
        turns: of a task.
        overhead: turns above those of one agent, in per cent.
        amplification: errors as multiples of one agent's.
        efficiency: tasks solved per 1,000 tokens.
    """

    success: float
    turns: float
    overhead: float
    amplification: float
    efficiency: float


ARCHITECTURES: Mapping[str, Architecture] = {
    "single": Architecture(0.466, 7.2, 0, 1.0, 67.7),
    "independent": Architecture(0.370, 11.4, 58, 17.2, 42.4),
    "decentralized": Architecture(0.477, 26.1, 263, 7.8, 23.9),
    "centralized": Architecture(0.463, 27.7, 285, 4.4, 21.5),
    "hybrid": Architecture(0.452, 44.3, 515, 5.1, 13.6),
}
"""Kind of team -> its published means."""


def turns_of(agents: int) -> float:
    """Turns that a team of so many agents takes, ``2.72 (n + 0.5)^1.724``.

    >>> round(turns_of(1), 2), round(turns_of(4), 2)
    (5.47, 36.37)
    """
    return 2.72 * float((agents + 0.5) ** 1.724)


class Gate(NamedTuple):
    """What the rules say: the kind of team (a name of ARCHITECTURES), and why."""

    kind: str
    why: str


def gate(single: float, *, sequential: bool, tools: int = 0, many: int = 16) -> Gate:
    """One agent or a team, by the paper's rules of thumb.

    Args:
        single: success of one agent, 0 to 1.
        sequential: whether each step needs the one before it.
        tools: that the task needs.
        many: tools from which a team is left out; the paper says many, the number is chosen here.

    >>> gate(0.5, sequential=False).kind, gate(0.2, sequential=True).kind, gate(0.2, sequential=False).kind
    ('single', 'single', 'centralized')
    """
    if not 0 <= single <= 1:
        raise InvalidInput(f"one agent's success is {single}; give 0 to 1")
    if single >= SATURATED:
        return Gate("single", f"one agent solves {single:.0%}, and from {SATURATED:.0%} on a team does not pay")
    if sequential:
        return Gate("single", "each step needs the one before it, which no team makes faster")
    if tools >= many:
        return Gate("single", f"{tools} tools are many: what a team says about them costs more than it finds")
    return Gate("centralized", f"one agent solves {single:.0%}, the parts are independent, and the tools are few")


@dataclass(frozen=True, slots=True)
class Configuration:
    """Runs of one kind of team on one task.

    Attributes:
        agents: how many.
        tools: that they have.
        single: success of one agent on the same task.
        success: of this team.
        runs: that it was measured by.
    """

    agents: int
    tools: int
    single: float
    success: float
    runs: int = 1


TERMS = ("log(1 + tools)", "log(1 + agents)", "single", "single x log(1 + agents)")
"""Terms of :func:`fitted`, those of the paper that runs have by themselves."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A regression of success on TERMS, standardised.

    Attributes:
        coefficients: term -> (estimate, low, high), 95 % by a bootstrap over configurations.
        explained: share of the variance explained when each configuration is left out in turn.
        mean, scale: [terms] of the terms.
        intercept: success where all terms are at their mean.
    """

    coefficients: Mapping[str, tuple[float, float, float]]
    explained: float
    mean: F64
    scale: F64
    intercept: float

    def predicted(self, agents: int, tools: int, single: float) -> float:
        """Success of a team, 0 to 1."""
        terms = (_terms(agents, tools, single) - self.mean) / self.scale
        estimates = np.array([self.coefficients[name][0] for name in TERMS])
        return float(np.clip(self.intercept + terms @ estimates, 0, 1))


def fitted(configurations: Sequence[Configuration], *, seed: int = 0, draws: int = 500) -> Fit:
    """Least squares, weighted by runs; a ridge of 1e-6 settles terms that do not vary.

    Raises:
        InvalidInput: there are fewer than twice as many configurations as terms.
    """
    n = len(configurations)
    if n < 2 * len(TERMS):
        raise InvalidInput(
            f"{n} configurations of teams are too few for {len(TERMS)} coefficients; give at least "
            f"{2 * len(TERMS)}, or rely on the published rules"
        )
    raw = np.array([_terms(c.agents, c.tools, c.single) for c in configurations])
    y = np.array([c.success for c in configurations])
    w = np.array([float(c.runs) for c in configurations])
    mean = np.average(raw, axis=0, weights=w)
    scale = np.sqrt(np.average((raw - mean) ** 2, axis=0, weights=w))
    scale[scale < 1e-12] = 1.0
    x = np.column_stack([np.ones(n), (raw - mean) / scale])
    best = _solve(x, y, w)
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, n, (draws, n))
    low, high = np.quantile([_solve(x[pick], y[pick], w[pick]) for pick in picks], [0.025, 0.975], axis=0)
    left_out = np.array([x[i] @ _solve(np.delete(x, i, 0), np.delete(y, i), np.delete(w, i)) for i in range(n)])
    level = np.average(y, weights=w)
    total = float((w * (y - level) ** 2).sum())
    explained = 1 - float((w * (y - left_out) ** 2).sum()) / total if total > 0 else 0.0
    coefficients = {name: (float(best[i]), float(low[i]), float(high[i])) for i, name in enumerate(TERMS, 1)}
    return Fit(coefficients, explained, mean, scale, float(best[0]))


def _terms(agents: int, tools: int, single: float) -> F64:
    team = np.log1p(agents)
    return np.array([np.log1p(tools), team, single, single * team])


def _solve(x: F64, y: F64, w: F64) -> F64:
    ridge = 1e-6 * np.eye(x.shape[1])
    ridge[0, 0] = 0.0
    return np.asarray(np.linalg.solve(x.T @ (w[:, None] * x) + ridge, x.T @ (w * y)), np.float64)
