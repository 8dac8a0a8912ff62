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
from budgeteer.steer.kit import Head, read_by, require_settings


@dataclass(frozen=True)
class Costs:
    """What tokens cost, in units of value per average sample: 0.01 = one more sample costs one point of accuracy.

    Attributes:
        tokens: cost of the sum of all samples' remaining tokens.
        steps: cost of the remaining tokens of the longest sample (latency).
    """

    tokens: float = 0.01
    steps: float = 0.01


COSTS = Costs()


@dataclass(frozen=True, slots=True)
class Samples:
    """What is known of n samples.

    Attributes:
        tokens: [n] tokens of each sample when it was seen last; -1 = not seen yet.
        joint: [n, v, l] p(value, remaining length) then.
        prior: [n, v, l] p(value, remaining length) before its first token.
        ended: [n] whether this steer ended it.
    """

    tokens: I64
    joint: F64
    prior: F64
    ended: Mask


@shared
def zip_rc(head: Head, *, costs: Costs = COSTS, every: int = 8, known: tuple[tuple[float, int], ...] = ()) -> Steer:
    """STOP the samples of a request that are not worth their tokens, whenever its longest one has a multiple of
    ``every`` tokens.

    For kept samples S, of which A are running, and a cut at length bin B (or none), the utility is

        G(S, B) = E[max over S of V] - tokens * sum over A of E[T] / D - steps * E[max over A of T] / D,

    where V and T are value and remaining tokens of a sample under p(v, l), which the head predicts for each sample;
    samples are taken to be independent. With a cut, all mass of length bins >= B counts as value 0 at bin B. D is the
    mean over samples of tokens so far plus expected remaining tokens; ``tokens`` and ``steps`` are those of ``costs``.

    The samples that maximise G go on. The sets searched are unions of a prefix by ascending E[T], a prefix by
    descending E[V], and the finished samples; ties go to the larger set. How many samples are started at all is decided
    by the same utility from the prior, the prediction before the first token; ties go to fewer.

    The steer's report holds the predicted ``"value"`` of a sample, whether it was ``"ended"``, and the ``"prior"``.

    Helps where predictions tell samples apart early; does not where they cannot.

    Args:
        head: of this very model.
        costs: of tokens, in units of value per average sample; both 0 keeps everything.
        every: tokens between two decisions, >= 1.
        known: (value, tokens) of the samples of earlier requests, which count as finished.

    The utility is that of a script in the history of the paper's code; the published one may differ.
    """
    if every < 1:
        raise InvalidInput(f"every={every}; give at least 1")
    require_settings(head, "values", "lengths")
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
        every_row = np.arange(len(now.row))
        joint[now.row] = head(read_by(head, now, every_row)).softmax(-1).cpu().numpy().reshape(len(now.row), *shape)
        tokens[now.row] = now.length
        begun = now.row[now.length == 0]
        prior[begun] = joint[begun]
        state = Samples(tokens, joint, prior, ended)
        running = np.zeros(len(tokens), np.bool_)
        running[now.row] = True
        for request in np.unique(now.group[now.row]).tolist():
            own = now.group == request
            going = np.flatnonzero(own & running)
            if tokens[going].max() % every == 0:
                ended[going[~keep(state, going, np.flatnonzero(own & ~running & (tokens >= 0) & ~ended))]] = True
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

    return Steer(init, step, frozenset({Need.TOKENS, head.reads}), report=report)


def middles(lengths: Sequence[int]) -> F64:
    """[l] a length for each bin with these left edges: its middle; for the last, open bin 1.5 times its edge.

    >>> middles((0, 4, 8)).tolist()
    [2.0, 6.0, 12.0]
    """
    edges = np.asarray(lengths, np.float64)
    return np.append((edges[:-1] + edges[1:]) / 2, 1.5 * edges[-1])


def expected_max(support: F64, p: F64, kept: Mask, least: float = 0.0) -> F64:
    """[..., c] E[max] over the kept ones of k independent variables, and over ``least``.

    Args:
        support: [n] values, ascending from 0; ``least`` is one of them.
        p: [..., k, n] distributions over ``support``.
        kept: [c, k] which variables are kept in each candidate; for an empty one the maximum is ``least``.
    """
    # P(max <= x) is the product of the kept CDFs: a sum of logarithms, so one matrix product for all candidates
    log_cdf = np.log(np.maximum(np.cumsum(p, -1), 1e-300))
    cdf = np.exp(kept.astype(np.float64) @ log_cdf) * (support >= least)
    cdf[..., -1] = 1.0
    return np.asarray(np.diff(cdf, axis=-1, prepend=0.0) @ support)


def cut_offs(joint: F64) -> F64:
    """The distributions [k, v, l] under every cut, [l, k, v, l].

    Cut b - 1 moves the mass of length bins >= b to value bin 0, length bin b; the last one is no cut.
    """
    bins = joint.shape[2]
    out = np.repeat(joint[None], bins, 0)
    for at in range(1, bins):
        out[at - 1, :, :, at:] = 0.0
        out[at - 1, :, 0, at] = joint[:, :, at:].sum((1, 2))
    return out


def utility(joint: F64, finished: F64, mean_tokens: float, values: F64, tokens: F64, costs: Costs, kept: Mask) -> F64:
    """[l, c] the utility G of :func:`zip_rc` for each cut and each candidate.

    Args:
        joint: [k, v, l] of the running samples.
        finished: [f] values of the finished samples.
        mean_tokens: D, tokens.
        values, tokens: [v] and [l] numbers that stand for the bins.
        costs: of tokens and steps.
        kept: [c, k] which running samples each candidate keeps.
    """
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
    """[c, k] which of k running samples each candidate keeps: a prefix by ascending E[T] and one by descending E[V]."""
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
    """[k] which running samples go on, by the utility of :func:`zip_rc`.

    Args:
        joint: [k, v, l] of the running samples.
        so_far: [k] tokens of the running samples.
        finished: [f] values of the finished samples; while there is none, at least one sample goes on.
        finished_tokens: [f] tokens of the finished samples.
        values, tokens: [v] and [l] numbers that stand for the bins.
        costs: of tokens and steps.
    """
    sets = candidates(joint, values, tokens)
    if not len(finished):
        sets = sets[sets.any(1)]  # without an answer, something has to go on
    spent = np.concatenate([so_far + joint.sum(1) @ tokens, finished_tokens])
    gain = utility(joint, finished, float(spent.mean()), values, tokens, costs, sets).max(0).round(12)
    return np.asarray(sets[np.lexsort((sets.sum(1), gain))[-1]])


def start(prior: F64, most: int, finished: F64, values: F64, tokens: F64, costs: Costs) -> int:
    """How many samples are worth starting, by the utility of :func:`zip_rc`: 0 to ``most``, ties to fewer.

    At least 1 if no sample is finished.

    Args:
        prior: [v, l] prediction of every sample before its first token.
        most: samples that may be started.
        finished: [f] values of the finished samples.
        values, tokens: [v] and [l] numbers that stand for the bins.
        costs: of tokens and steps.
    """
    joint = np.repeat(prior[None], most, 0)
    sets = np.arange(most) < np.arange(most + 1)[:, None]
    gains = utility(joint, finished, float(prior.sum(0) @ tokens), values, tokens, costs, sets).max(0).round(12)
    least = 0 if len(finished) else 1
    return least + int(gains[least:].argmax())
