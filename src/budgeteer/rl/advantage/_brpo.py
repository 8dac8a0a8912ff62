"""Credit for thinking by the answers that it would give at several budgets (BRPO, arXiv 2505.13438)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from budgeteer.core.plan import F64, I64
from budgeteer.rl.advantage.kit import group_norm
from budgeteer.rl.branch import CUT_AT, CUTS, TRACE, branched
from budgeteer.rl.rollouts import Role, Rollouts

if TYPE_CHECKING:
    from budgeteer.rl.recipe import View


def brpo(rollouts: Rollouts, view: View) -> F64:
    """[n, t] the return of the thinking from each token on, minus a baseline of its own past and of its group.

    For rollouts whose recipe has a :class:`budgeteer.rl.branch.Branch` with cuts b_1 < ... < b_m, all as likely. With
    r_j the mean reward of a trace's answers at cut j, its thinking between b_s and b_{s+1} (s from 0) has the
    advantage of :func:`anytime_advantage`. An answer has its reward minus the mean of the answers of the same trace at
    the same cut; the trace's own answer is one of them. Traces without answers, whose branches a budget cut off, have
    0.

    Helps where answers are wanted at any budget, and where a reward at the end alone says little about long thinking;
    costs ``m * samples`` answers a rollout. Rollouts without branches have GRPO's advantage.
    """
    if CUT_AT not in rollouts.more:
        return group_norm(rollouts.reward, rollouts.group, len(rollouts.keys))
    branch, at, number = branched(rollouts), rollouts.more[CUT_AT], rollouts.more[TRACE]
    place, traces = np.arange(rollouts.tokens.shape[1]), np.flatnonzero(~branch)
    count = int(rollouts.more[CUTS].max(initial=0))
    credit = np.zeros(rollouts.tokens.shape)
    reward, ends = np.full((len(traces), count), np.nan), np.zeros((len(traces), count), np.int64)
    for row, i in enumerate(traces.tolist()):
        own = branch & (number == number[i])
        for j in sorted(set(at[own].tolist())):
            same = np.flatnonzero(own & (at == j))
            head = int((rollouts.role[same[0]] == Role.HINT).sum())
            shared = int(np.cumprod(rollouts.tokens[same[0], :head] == rollouts.tokens[i, :head]).sum())
            ended = shared == head == int(rollouts.closed[i])  # from the trace's own end, as its own answer is
            members = np.append(same, i) if ended else same
            mean = float(rollouts.reward[members].mean())
            credit[same] = (rollouts.reward[same] - mean)[:, None]
            to = count if ended else j + 1
            reward[row, j:to], ends[row, j:to] = mean, shared
            if ended:
                credit[i] = rollouts.reward[i] - mean  # the thinking before it is set below
    known = ~np.isnan(reward).any(axis=1)
    for g in set(rollouts.group[traces[known]].tolist()):
        rows = np.flatnonzero(known & (rollouts.group[traces] == g))
        thinking = anytime_advantage(reward[rows], np.full(count, 1 / count))
        for row, values in zip(rows.tolist(), thinking, strict=True):
            i = int(traces[row])
            last = int(rollouts.closed[i]) if rollouts.closed[i] >= 0 else int(rollouts.length[i])
            piece = np.minimum(np.searchsorted(ends[row], place[:last], side="right"), count - 1)
            credit[i, :last] = values[piece]
    return credit


def anytime_advantage(reward: F64, prior: F64) -> F64:
    """[G, m] advantages of the thinking of G traces before each of m cuts.

    With R_s = sum of P_j r_j over the cuts j >= s, the baseline of the piece s = 0..m-1 is
    ``s/m * V1 + (m - s)/m * V2``: V1 is the trace's own mean reward at the cuts before it, each weighing twice the one
    before (2^j), times the sum of P_j over j >= s; V2 is the mean of R_s over the G traces. Early pieces are measured
    against the group, late ones against the trace's own past. The baseline of a piece sees no answer behind it but for
    the trace's own part in V2, as in GRPO.

    Args:
        reward: [G, m] mean reward of each trace's answers at each cut.
        prior: [m] probabilities P_j of the cuts.

    >>> anytime_advantage(np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([0.5, 0.5])).tolist()
    [[0.25, 0.375], [-0.25, -0.125]]
    """
    m = reward.shape[1]
    later = np.cumsum((prior * reward)[:, ::-1], axis=1)[:, ::-1]
    mass = np.cumsum(prior[::-1])[::-1]
    weight = 2.0 ** np.arange(m)
    past = np.zeros_like(reward)
    past[:, 1:] = (np.cumsum(weight * reward, axis=1) / np.cumsum(weight))[:, :-1]
    share: I64 = np.arange(m)
    baseline = share / m * past * mass + (m - share) / m * later.mean(axis=0)
    advantage: F64 = later - baseline
    return advantage
