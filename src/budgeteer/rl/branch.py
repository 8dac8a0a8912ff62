"""Answers from thoughts that are cut: how right a rollout would have been, had it thought for less. NumPy only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.plan import I64, Outcomes

if TYPE_CHECKING:
    from budgeteer.rl.asked import RoundRequests
    from budgeteer.rl.rollouts import Rollouts

__all__ = ["CUTS", "CUT_AT", "TRACE", "Branch", "answers_of", "branched", "numbered", "requests_of"]

TRACE, CUT_AT, CUTS = "trace", "cut", "cuts"
"""Columns of rollouts: number of the trace that the row is or continues; index of the cut at which a branch begins, or
-1 for a trace; number of the cuts of the step."""


@dataclass(frozen=True, slots=True)
class Branch:
    """After the rounds of a step, each of its rollouts (a trace) is cut at several lengths and asked for its answer.

    A trace that closed its thinking before a cut is not cut: its answers from there count at all later cuts, too.
    Branches read their trace, which is paid for; only what they add is on the bill. History and allocator see the
    traces alone, each with the tokens of its branches.

    Attributes:
        cuts: cap of a rollout -> [m] rising lengths at which thinking is cut; the last is the cap.
        samples: answers at each cut.
        answer: most tokens of an answer.
        close: text that closes the thinking, with whatever leads to the answer.
    """

    cuts: Callable[[int], I64]
    samples: int
    answer: int
    close: str

    needs: ClassVar[tuple[str, ...]] = ()
    """What the trainer must give of the traces."""

    @property
    def text(self) -> str:
        """Text that the trainer's tokenizer has to write."""
        return self.close

    def caps(self, asked: RoundRequests, cap: int) -> I64:
        """[k] most tokens of each answer."""
        return np.full(len(asked.of), self.answer)

    def requests(self, traces: Rollouts, cap: int, written: Sequence[int]) -> RoundRequests:
        """The requests for answers.

        Args:
            traces: n rollouts, numbered.
            cap: of a rollout.
            written: token ids of :attr:`text`.
        """
        return requests_of(traces, self.cuts(cap), self.samples, written)


def numbered(rollouts: Rollouts, first: int, cuts: I64) -> Rollouts:
    """The traces of a round, numbered from ``first`` on; cuts: [m] lengths at which they will be cut."""
    n = len(rollouts)
    columns = {TRACE: np.arange(first, first + n), CUT_AT: np.full(n, -1), CUTS: np.full(n, len(cuts))}
    return replace(rollouts, more={**rollouts.more, **columns})


def branched(rollouts: Rollouts) -> NDArray[np.bool_]:
    """[n] whether a row is the branch of a trace."""
    at = rollouts.more.get(CUT_AT)
    return np.zeros(len(rollouts), np.bool_) if at is None else np.asarray(at >= 0)


def requests_of(traces: Rollouts, cuts: I64, samples: int, bridge: Sequence[int]) -> RoundRequests:
    """The requests for answers: ``samples`` at each cut that a trace reached, and at the first one that it did not.

    Args:
        traces: n rollouts, numbered.
        cuts: [m] rising lengths.
        bridge: token ids that close the thinking.
    """
    from budgeteer.rl.asked import RoundRequests

    of, heads, number, at = [], [], [], []
    for i in np.argsort(traces.group, kind="stable").tolist():
        closed, row = int(traces.closed[i]), traces.tokens[i, : traces.length[i]]
        for j, cut in enumerate(cuts.tolist()):
            ended = 0 <= closed <= cut
            if ended:
                head = row[:closed]
            elif len(row) >= cut:
                head = np.concatenate([row[:cut], np.array(bridge, np.int64)])
            else:
                break  # ended, or was stopped, without closing its thinking
            of.append(int(traces.group[i]))
            heads.append(head)
            number.append(int(traces.more[TRACE][i]))
            at.append(j)
            if ended:
                break
    k = len(of)
    return RoundRequests(
        np.array(of, np.int64),
        np.full(k, samples, np.int64),
        [None] * k,
        heads,
        [np.full(len(head), -1) for head in heads],
        {TRACE: np.array(number, np.int64), CUT_AT: np.array(at, np.int64), CUTS: np.full(k, len(cuts))},
    )


def answers_of(rollouts: Rollouts, outcomes: Outcomes) -> Outcomes:
    """The outcomes of the same rows, the traces with the tokens of their branches."""
    branch = branched(rollouts)
    if not branch.any():
        return outcomes
    trace = rollouts.more[TRACE]
    added = np.bincount(trace[branch], rollouts.paid[branch], minlength=int(trace.max()) + 1)
    tokens = (outcomes.tokens + np.where(branch, 0, added[trace])).astype(np.int64)
    return Outcomes(outcomes.keys, tokens, outcomes.reward, outcomes.score, outcomes.status)
