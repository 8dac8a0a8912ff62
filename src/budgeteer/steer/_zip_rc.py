"""ZIP-RC: which of a request's samples go on, by their predicted value and remaining length together.

Paper: "Zero-Overhead Introspection for Adaptive Test-Time Compute", arXiv 2512.01457.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64
from budgeteer.core.steer import CONTINUE, STOP, Action, Mask, Need, Rows, Snapshot, Steer, shared
from budgeteer.steer.kit import Head


@dataclass(frozen=True)
class Costs:
    """What tokens cost, in units of value an average sample: 0.01 = one point of accuracy for one more sample.

    Attributes:
        tokens: of the sum of tokens still to come.
        steps: of the longest sample still to come (latency).
    """

    tokens: float = 0.01
    steps: float = 0.01


COSTS = Costs()


@dataclass(frozen=True, slots=True)
class Samples:
    """What is known of n samples: tokens when it was seen last (-1: not yet), p(value, remaining length) [n, v, l] then
    and before its first token, and whether it was ended here."""

    tokens: I64
    joint: F64
    prior: F64
    ended: Mask


@shared
def zip_rc(head: Head, *, costs: Costs = COSTS, every: int = 8, known: tuple[tuple[float, int], ...] = ()) -> Steer:
    """STOP the samples of a request that are not worth going on, whenever its longest one has a multiple of ``every``
    tokens.

    For kept samples S, of which A are running, and a cut at length bin B (or none), the utility is

        G(S, B) = E[max over S of V] - tokens * sum over A of E[T] / D - steps * E[max over A of T] / D,

    V and T being value and remaining tokens of a sample under the head's p(v, l), taken to be independent between
    samples; with a cut, all mass of length bins >= B counts as value 0 at bin B. D is the mean of tokens so far plus
    expected remaining ones. The sets searched are unions of a prefix by ascending E[T], a prefix by descending E[V],
    and the finished samples; ties go to the larger set. How many samples are started is decided alike from the prior,
    ties to fewer. Its report holds a sample's predicted ``"value"``, whether it was ``"ended"``, and the ``"prior"``.

    Helps where predictions tell samples apart early; does not where they cannot.

    Args:
        head: of this very model.
        costs: in value an average sample; both 0 keeps everything.
        every: tokens between two decisions, >= 1.
        known: (value, tokens) of the samples of earlier requests.

    The utility is that of a script in the history of the paper's code; the published one may differ.
    """
    if every < 1:
        raise InvalidInput(f"every={every}; give at least 1")
    values = np.array(head.settings["values"])
    shape = len(values), len(head.settings["lengths"])
    lengths = middles(head.settings["lengths"])

    def init(rows: Rows) -> Samples:
        n = len(rows.keys)
        blank = np.full((n, *shape), np.nan)
        return Samples(np.full(n, -1), blank, blank.copy(), np.zeros(n, np.bool_))

    def step(state: Samples, now: Snapshot) -> tuple[Action, Samples]:
        head.check(now.model)
        tokens, ended = state.tokens.copy(), state.ended.copy()
        joint, prior = state.joint.copy(), state.prior.copy()
        joint[now.row] = head(now.hidden).softmax(-1).cpu().numpy().reshape(len(now.row), *shape)
        tokens[now.row] = now.length
        begun = now.row[now.length == 0]
        prior[begun] = joint[begun]
        state = Samples(tokens, joint, prior, ended)
        running = np.zeros(len(tokens), np.bool_)
        running[now.row] = True
        for request in np.unique(now.group[now.row]).tolist():
            mine = now.group == request
            going = np.flatnonzero(mine & running)
            if tokens[going].max() % every == 0:
                ended[going[~keep(state, going, np.flatnonzero(mine & ~running & (tokens >= 0) & ~ended))]] = True
        return Action(np.where(ended[now.row], STOP, CONTINUE).astype(np.int8)), state

    def keep(state: Samples, going: I64, done: I64) -> Mask:
        """Which samples ``going`` [k] of a request go on beside those that ended by themselves."""
        before = [(float(state.joint[i].sum(1) @ values), int(state.tokens[i])) for i in done.tolist()] + list(known)
        finished = np.array([value for value, _ in before])
        if not state.tokens[going].any():
            first = state.joint[going[0]]  # the same prompt for all
            return np.arange(len(going)) < start(first, len(going), finished, values, lengths, costs)
        spent = np.array([count for _, count in before], np.float64)
        return decide(
            state.joint[going], state.tokens[going].astype(np.float64), finished, spent, values, lengths, costs
        )

    def report(state: Samples) -> list[Any]:
        return [
            None if count < 0 else {"value": float(now.sum(1) @ values), "ended": ended, "prior": first.tolist()}
            for count, now, first, ended in zip(
                state.tokens.tolist(), state.joint, state.prior, state.ended.tolist(), strict=True
            )
        ]

    return Steer(init, step, frozenset({Need.TOKENS, Need.HIDDEN}), report=report)


def middles(lengths: Sequence[int]) -> F64:
    """Lengths that stand for bins with these left edges: their middles; 1.5 times the edge for the open one.

    >>> middles((0, 4, 8)).tolist()
    [2.0, 6.0, 12.0]
    """
    edges = np.asarray(lengths, np.float64)
    return np.append((edges[:-1] + edges[1:]) / 2, 1.5 * edges[-1])


def expected_max(support: F64, p: F64, kept: Mask, least: float = 0.0) -> F64:
    """E[max] [..., c] over the kept of k independent variables, and over ``least``.

    Args:
        support: [n] ascending from 0, with ``least`` among it.
        p: [..., k, n] distributions.
        kept: [c, k] candidates; an empty one has the maximum ``least``.
    """
    # P(max <= x) is the product of the kept CDFs: a sum of logarithms, so one matrix product for all candidates
    log_cdf = np.log(np.maximum(np.cumsum(p, -1), 1e-300))
    cdf = np.exp(kept.astype(np.float64) @ log_cdf) * (support >= least)
    cdf[..., -1] = 1.0
    return np.asarray(np.diff(cdf, axis=-1, prepend=0.0) @ support)


def cut_offs(joint: F64) -> F64:
    """[l, k, v, l] of [k, v, l]: cut b - 1 has the mass of length bins >= b at value bin 0, length bin b; the last is
    no cut."""
    bins = joint.shape[2]
    out = np.repeat(joint[None], bins, 0)
    for at in range(1, bins):
        out[at - 1, :, :, at:] = 0.0
        out[at - 1, :, 0, at] = joint[:, :, at:].sum((1, 2))
    return out


def utility(joint: F64, finished: F64, mean_tokens: float, values: F64, tokens: F64, costs: Costs, kept: Mask) -> F64:
    """G [l, c] of each cut and each candidate ``kept`` [c, k] among k running samples with joint [k, v, l], and
    finished ones of known value [f]."""
    table = cut_offs(joint)
    least = float(finished.max(initial=0.0))
    support = np.union1d(values, [least])
    p = np.zeros((*table.shape[:2], len(support)))
    p[..., np.searchsorted(support, values)] = table.sum(3)
    t = table.sum(2)
    total = (t @ tokens) @ kept.T.astype(np.float64)
    longest = expected_max(np.append(0.0, tokens), np.concatenate([np.zeros((*t.shape[:2], 1)), t], 2), kept)
    spent = costs.tokens * total + costs.steps * longest
    return np.asarray(expected_max(support, p, kept, least) - spent / max(mean_tokens, 1.0))


def candidates(joint: F64, values: F64, tokens: F64) -> Mask:
    """[c, k] unions of a prefix by ascending E[T] and one by descending E[V], the empty one included."""
    k = len(joint)
    rank = np.empty((2, k), np.int64)
    rank[0, np.argsort(joint.sum(1) @ tokens, kind="stable")] = np.arange(k)
    rank[1, np.argsort(-(joint.sum(2) @ values), kind="stable")] = np.arange(k)
    steps = np.arange(k + 1)
    sets = (rank[0] < steps[:, None, None]) | (rank[1] < steps[None, :, None])
    return np.asarray(sets.reshape(-1, k))


def decide(
    joint: F64, so_far: F64, finished: F64, finished_tokens: F64, values: F64, tokens: F64, costs: Costs
) -> Mask:
    """[k] which running samples go on.

    Args:
        joint: [k, v, l] of the running ones.
        so_far: [k] tokens of the running ones; finished_tokens: [f] of the finished ones.
        finished: [f] values of those that have an answer; while there is none, at least one sample goes on.
        values, tokens: [v] and [l] that stand for the bins.
    """
    sets = candidates(joint, values, tokens)
    if not len(finished):
        sets = sets[sets.any(1)]  # without an answer, something has to go on
    spent = np.concatenate([so_far + joint.sum(1) @ tokens, finished_tokens])
    gain = utility(joint, finished, float(spent.mean()), values, tokens, costs, sets).max(0).round(12)
    return np.asarray(sets[np.lexsort((sets.sum(1), gain))[-1]])


def start(prior: F64, most: int, finished: F64, values: F64, tokens: F64, costs: Costs) -> int:
    """How many samples of one prior [v, l] are worth starting, 0 to ``most``, beside finished ones; ties to fewer.
    Without a finished one, at least 1."""
    joint = np.repeat(prior[None], most, 0)
    sets = np.arange(most) < np.arange(most + 1)[:, None]
    gains = utility(joint, finished, float(prior.sum(0) @ tokens), values, tokens, costs, sets).max(0).round(12)
    least = 0 if len(finished) else 1
    return least + int(gains[least:].argmax())
