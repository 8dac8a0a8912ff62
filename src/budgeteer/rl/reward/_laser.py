"""A bonus for right answers within a target length, which follows difficulty (LASER, -D and -DE, arXiv 2505.15612)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64, right
from budgeteer.rl.reward.counted import LOOPING
from budgeteer.rl.reward.kit import band, pass_rate, weights
from budgeteer.rl.reward.protocol import Columns, Monitor, Reward, of_terms

GRID = 16
"""Candidates of a target: multiples of a sixteenth of the cap, as 1,024 of 16,384 tokens are."""


@dataclass(frozen=True, slots=True)
class Targets:
    """The targets of the three bands, and what the next ones are made of.

    Attributes:
        step: steps seen.
        target: [3] shares of the cap, for easy, medium and hard prompts.
        within: [3, GRID] rollouts of each band not longer than each multiple of cap / GRID, since the last change.
        count: [3] rollouts of each band, and longest: [3] share of the cap of the longest, since then.
    """

    step: int
    target: F64
    within: I64
    count: I64
    longest: F64


def laser(
    target: float | None = None,
    *,
    bonus: float = 0.5,
    lower: float = 0.25,
    every: int = 20,
    group: int = 8,
    explore: bool = True,
    monitor: int = 0,
) -> Reward:
    """A score and ``bonus`` for a right row not longer than the target of its prompt's difficulty.

    The score is 1 for a right row, -0.5 for a wrong one, -1 for a row whose answer was never complete, right or not.
    Prompts are easy from a pass rate of 2/3 in their own group on, medium from 1/3 on, else hard. A band's target is
    the smallest multiple of cap / 16, from ``lower`` on, with ``floor(P * C) >= 1``, where P is the share of the band's
    rollouts that are not longer and C = floor(2 group / 3), floor(group / 3), 1; else the longest of all bands. With
    ``explore`` (LASER-DE) wrong rows that are longer than the target and do not repeat themselves get the bonus, too.

    The paper measures P on ``group`` rollouts of each of 500 training prompts, before the first step and every 20 steps
    (``monitor=500``, which the run pays for). Without a monitor the training rollouts since the last change take their
    place (no further tokens), and until the first step is done the targets are the cap. A band without rollouts keeps
    its target. Helps where easy prompts get long answers; needs groups of mixed lengths, or the advantage is 0.

    Args:
        target: one share of the cap for all prompts (LASER), in (0, 1]; None = the three that follow difficulty.
        bonus: 0 or more.
        lower: least target, a share of the cap in (0, 1].
        every: steps between changes of the targets.
        group: rollouts a prompt, for C.
        explore: reward long wrong rows (LASER-DE) instead of leaving them alone (LASER-D); not with ``target``.
        monitor: training prompts whose rollouts set the targets; 0 = the training rollouts do. Not with ``target``.

    Raises:
        InvalidInput: a value outside these.

    >>> method = laser(0.5)
    >>> rows = Columns([1, 1, 0, 1], [50, 51, 10, 9], [0] * 4, [100] * 4, [1] * 4, answered=[50, 51, 10, -1])
    >>> method.score(method.init(), rows).tolist()
    [1.5, 1.0, -0.5, -1.0]
    """
    if target is not None and not 0 < target <= 1:
        raise InvalidInput(f"laser(target={target}); give a share of the cap above 0, at most 1")
    if not (weights(bonus) and 0 < lower <= 1 and every >= 1 and group >= 1):
        raise InvalidInput(
            f"laser(bonus={bonus}, lower={lower}, every={every}, group={group}); give a bonus of 0 to 1e6, a share of "
            "the cap above 0, at most 1, and 1 or more of the others"
        )
    if monitor < 0 or (monitor and target is not None):
        raise InvalidInput(
            f"laser(target={target}, monitor={monitor}); give 0 or more prompts, and none with a target that is fixed"
        )
    explores = explore and target is None
    least = np.array([max(2 * group // 3, 1), max(group // 3, 1), 1])
    candidates = np.arange(1, GRID + 1) / GRID

    def init() -> Targets:
        return fresh(0, np.full(3, 1.0 if target is None else target))

    def terms(state: Targets, rows: Columns) -> dict[str, F64]:
        good = right(rows.correct)
        short = rows.length <= state.target[band(pass_rate(rows))] * rows.max_tokens
        unanswered = rows.column("answered", "laser") < 0
        plain = np.where(unanswered, -1.0, np.where(good, 1.0, -0.5))
        earned = good & short
        if explores:
            earned |= ~good & ~short & (rows.column(LOOPING, "laser") == 0)
        return {"correct": plain, "length": np.asarray(bonus * (earned & ~unanswered), np.float64)}

    def observe(state: Targets, rows: Columns) -> Targets:
        if target is not None or not len(rows):
            return state
        step = state.step + 1
        seen = state if monitor else counted(state, rows)
        if monitor or (step > 1 and step % every):
            return replace(seen, step=step)
        return changed(seen, step)

    def watch(state: Targets, rows: Columns) -> Targets:
        return changed(counted(fresh(state.step, state.target), rows), state.step)

    def counted(state: Targets, rows: Columns) -> Targets:
        """The state with these rollouts counted."""
        level, share = band(pass_rate(rows)), rows.length / np.maximum(rows.max_tokens, 1)
        within, count, longest = state.within.copy(), state.count.copy(), state.longest.copy()
        for number in range(3):
            own = share[level == number]
            within[number] += (own[:, None] <= candidates + 1e-9).sum(axis=0)
            count[number] += len(own)
            longest[number] = max(longest[number], own.max(initial=0.0))
        return Targets(state.step, state.target, within, count, longest)

    def changed(state: Targets, step: int) -> Targets:
        """The targets that follow from what was counted."""
        covered = np.floor(state.within / np.maximum(state.count, 1)[:, None] * least[:, None] + 1e-9) >= 1
        longest = state.longest.max()
        fits = covered & (candidates >= lower - 1e-9) & (candidates < longest)
        chosen = np.where(fits.any(axis=1), candidates[fits.argmax(axis=1)], longest)
        return fresh(step, np.where(state.count > 0, chosen, state.target))

    own = Monitor(monitor, group, every, watch) if monitor else None
    return of_terms(terms, init, observe, ("answered", LOOPING) if explores else ("answered",), own)


def fresh(step: int, target: F64) -> Targets:
    """Targets of which nothing is counted yet."""
    return Targets(step, target, np.zeros((3, GRID), np.int64), np.zeros(3, np.int64), np.zeros(3))
