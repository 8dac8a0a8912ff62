"""Further rollouts that part from a step's rollouts where the policy hesitated (ARES, arXiv 2510.08457). NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64
from budgeteer.rl.branch import CUT_AT, CUTS, TRACE

if TYPE_CHECKING:
    from budgeteer.rl.asked import RoundRequests
    from budgeteer.rl.rollouts import Rollouts

__all__ = ["Fork", "hesitations"]


@dataclass(frozen=True, slots=True)
class Fork:
    """After the rounds of a step, its rollouts (traces) go on once more from windows of high entropy.

    A branch of a recipe, like :class:`budgeteer.rl.branch.Branch`. The beginning of a trace up to such a window is the
    head of a row of its own, with the log-probabilities that it was sampled at, so that the row is one more rollout of
    its prompt; only what follows the head is sampled and on the bill. History and allocator see the traces alone.

    Attributes:
        window: tokens of a window, 1 or more.
        most: further rollouts of a trace, 1 or more, at the windows of largest entropy.
    """

    window: int = 4
    most: int = 1

    needs: ClassVar[tuple[str, ...]] = ("entropy",)
    """What the trainer must give of the traces."""
    text: ClassVar[str] = ""
    """Nothing is written."""

    def __post_init__(self) -> None:
        if min(self.window, self.most) < 1:
            raise InvalidInput(f"Fork(window={self.window}, most={self.most}); give 1 or more of each")

    def cuts(self, cap: int) -> I64:
        """[most] the cap: a trace has so many further rollouts at most."""
        return np.full(self.most, cap)

    def caps(self, asked: RoundRequests, cap: int) -> I64:
        """[k] most tokens of each: what the head leaves of the cap."""
        return np.array([cap - len(head) for head in asked.heads], np.int64)

    def requests(self, traces: Rollouts, cap: int, written: Sequence[int]) -> RoundRequests:
        """The requests for further rollouts.

        Args:
            traces: n rollouts, numbered, with entropies.
            cap: of a rollout.
            written: not used.
        """
        from budgeteer.rl.asked import RoundRequests

        entropy = np.asarray(traces.entropy, np.float64)
        end = np.where(traces.closed > 0, traces.closed - 1, traces.length)  # hesitations of the thinking
        rows = [values[:length] for values, length in zip(entropy, end.tolist(), strict=True)]
        threshold = hesitation(rows)
        of, heads, versions, logprobs, number, at = [], [], [], [], [], []
        for i in np.argsort(traces.group, kind="stable").tolist():
            for j, begin in enumerate(hesitations(rows[i], self.window, threshold)[: self.most].tolist()):
                own = traces.sampled[i, :begin]
                of.append(int(traces.group[i]))
                heads.append(traces.tokens[i, :begin])
                versions.append(np.where(own, traces.version[i, :begin], -1).astype(np.int64))
                logprobs.append(np.where(own, traces.logprob[i, :begin].astype(np.float64), np.nan))
                number.append(int(traces.more[TRACE][i]))
                at.append(j)
        k = len(of)
        columns = {TRACE: np.array(number, np.int64), CUT_AT: np.array(at, np.int64), CUTS: np.full(k, self.most)}
        ones = np.ones(k, np.int64)
        return RoundRequests(np.array(of, np.int64), ones, [None] * k, heads, versions, columns, logprobs)


def hesitation(rows: Sequence[F64]) -> float:
    """The entropy from which a window is a hesitation: the mean over the rows of their tokens' 95th percentile.

    >>> hesitation([np.zeros(3), np.full(2, 2.0)])
    1.0
    """
    tops = [float(np.quantile(known, 0.95)) for row in rows if len(known := row[np.isfinite(row)])]
    return float(np.mean(tops)) if tops else np.inf


def hesitations(entropy: F64, window: int, threshold: float) -> I64:
    """Where a row's whole windows of a mean entropy from the threshold on begin, the largest first; not its first one,
    before which there is nothing to go on from.

    >>> hesitations(np.array([9.0, 9, 1, 2, 3, 2, 0, 0, 4]), 2, 1.5).tolist()
    [4, 2]
    """
    count = len(entropy) // window
    means = np.nan_to_num(entropy[: count * window].reshape(count, window).mean(axis=1), nan=-np.inf)
    order = np.argsort(-means, kind="stable")
    found: I64 = order[(means[order] >= threshold) & (order > 0)] * window
    return found
