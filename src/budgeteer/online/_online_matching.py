"""Online matching: requests come or do not come, and each may take one of several resources that serve only once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from budgeteer.allocate import pivotal
from budgeteer.core.errors import InvalidInput, MissingExtra
from budgeteer.core.plan import F64


@dataclass(frozen=True, slots=True)
class Proposals:
    """Chances of a proposal, from the linear program: a :class:`budgeteer.core.matching.Matching`.

    Attributes:
        propose: [n, T] chance that resource i, at time t, proposes to a request that came.
        value: [n, T] value of serving the request of time t with resource i.
        bound: the linear program's optimum: no online method expects more.
        chance: [T] that the request of time t comes.
        discards: whether resources are given up, see :meth:`given_up`.
    """

    propose: F64
    value: F64
    bound: float
    chance: F64
    discards: bool = False

    def serve(self, time: int, free: NDArray[np.bool_], rng: np.random.Generator) -> int:
        """The resource that serves the request which came at ``time``, or -1 for none.

        Resources propose together by pivotal sampling in falling order of value, so that two of them seldom propose to
        the same request; the most valuable free one that proposed is matched. Without ``discards`` the taken ones
        propose, too; with it the free ones alone, so that some resource of any first few is matched with probability
        min(1, sum of their ``propose``).

        Args:
            time: index of the request, 0 to T - 1.
            free: [n] true for resources not used yet; mark the returned one as used.
            rng: n + 1 draws.
        """
        order = np.argsort(-self.value[:, time], kind="stable")
        chance = self.propose[order, time]
        proposed = pivotal(np.where(free[order], chance, 0.0) if self.discards else chance, rng) & free[order]
        return int(order[np.argmax(proposed)]) if proposed.any() else -1

    def given_up(self, time: int, free: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
        """Resources [n] that are not used any more after ``time``, whether its request came or not; none without
        ``discards``.

        With it, a resource that was free at ``time`` is matched or given up there with probability ``q_t propose_it``
        in all, so that it is free at t with probability ``1 - sum_{s<t} x_is`` exactly. What is matched is that
        probability but for resources behind the first ones whose ``propose`` sum to 1; for these an independent coin
        makes up the rest. So resources never stay free together more often than independent ones would.

        Args:
            time: index of the request; call this once for each, in order.
            free: [n] as it was before the request of ``time`` was served.
            rng: n draws, independent of those of :meth:`serve`.
        """
        if not self.discards:
            return np.zeros(len(free), np.bool_)
        order = np.argsort(-self.value[:, time], kind="stable")
        chance, q = np.where(free[order], self.propose[order, time], 0.0), float(self.chance[time])
        upto = np.minimum(np.cumsum(chance), 1.0)
        matched = upto - np.concatenate([[0.0], upto[:-1]])
        left = 1 - q * matched
        coin = np.divide(q * (chance - matched), left, out=np.zeros(len(free)), where=left > 1e-12)
        dropped = np.zeros(len(free), np.bool_)
        dropped[order] = (rng.random(len(free)) < coin) & free[order]
        return dropped


def online_matching(value: F64, chance: F64, discards: bool = False) -> Proposals:
    """Solve the linear program of online matching once, before the stream; :meth:`Proposals.serve` then serves it.

    Maximise ``sum value_it x_it`` subject to ``sum_i x_it <= q_t`` and ``x_it <= q_t (1 - sum_{s<t} x_is)``: resource i
    can be used at t only if it is still free, which does not depend on whether t's request comes. That second
    constraint holds for every online method, so the optimum bounds them all (and is tighter than any hindsight
    bound). ``propose_it = x_it / (q_t (1 - sum_{s<t} x_is))``.

    Paper: "New Philosopher Inequalities for Online Bayesian Matching, via Pivotal Sampling", arXiv 2407.15285. Its
    proof of 0.678 of the best online method rests on discarding: free resources are given up so that they are free
    with exact and negatively correlated chances. ``discards`` does that; the paper's own wording of the step was not
    seen, so the step is one with these properties, and the ratio is measured (``budgeteer evidence pivotal``). It is
    for the proof: what is given up is lost (8 small instances of equal values: 0.955 of the best with it, 0.974
    without). Prices that make it truthful are :func:`budgeteer.online.posted_prices.posted_prices`. The paper draws the
    values of a request from several types; here the program plans with one type a request, and the prices serve any.

    Args:
        value: [n, T] >= 0.
        chance: [T] q_t, the probability that request t comes, in (0, 1].
        discards: whether resources are given up; then call :meth:`Proposals.given_up` at every time.

    Raises:
        MissingExtra: scipy is not installed.

    >>> plan = online_matching(np.array([[1.0, 3.0]]), np.array([1.0, 0.5]))
    >>> plan.bound, plan.propose.tolist()  # wait: half a chance of 3 is worth more than 1
    (1.5, [[0.0, 1.0]])
    """
    worth, q = np.asarray(value, dtype=np.float64), np.asarray(chance, dtype=np.float64)
    if worth.ndim != 2 or q.shape != worth.shape[1:] or not np.all(np.isfinite(worth) & (worth >= 0)):
        raise InvalidInput(
            f"online_matching needs finite values [n, T] >= 0, chances [T]; got {worth.shape}, {q.shape}"
        )
    if not np.all((q > 0) & (q <= 1)):
        raise InvalidInput("online_matching needs chances in (0, 1]; leave out requests that never come")
    try:
        from scipy.optimize import linprog
        from scipy.sparse import eye, kron, vstack
    except ImportError as error:
        raise MissingExtra("scipy", "lab") from error
    n, times = worth.shape
    # x in row-major order [n, T]; rows: one a time, then one a resource and time
    once = kron(np.ones((1, n)), eye(times))
    earlier = np.tril(np.ones((times, times)), -1) * q[:, None] + np.eye(times)
    limits = vstack([once, kron(eye(n), earlier)]).tocsr()
    program = linprog(-worth.ravel(), A_ub=limits, b_ub=np.concatenate([q, np.tile(q, n)]), method="highs")
    x = np.clip(program.x.reshape(n, times), 0, None)
    free = 1 - np.concatenate([np.zeros((n, 1)), np.cumsum(x, axis=1)[:, :-1]], axis=1)
    propose = np.divide(x, q * free, out=np.zeros_like(x), where=free > 1e-9)
    return Proposals(np.clip(propose, 0, 1), worth, float(-program.fun), q, discards)
