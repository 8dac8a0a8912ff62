"""Lengths by difficulty, which the policy's own certainty helps to measure (AdaThink-Med, arXiv 2509.24560)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, right
from budgeteer.rl.reward.counted import REPEATED
from budgeteer.rl.reward.kit import group_mean, weights
from budgeteer.rl.reward.protocol import Columns, Reward, of_terms

KEEP, COST = 0.9, 0.05
"""How much moving means keep, and what a repeated token costs."""


@dataclass(frozen=True, slots=True)
class Usual:
    """Moving means over the steps; NaN before there was anything.

    Attributes:
        threshold: difficulty from which a prompt is hard.
        length: [2] mean tokens of rollouts of easy and of hard prompts.
    """

    threshold: float
    length: F64


def adathink_med(trust: float = 0.5, weight: float = 0.5, hardest: float = 0.3) -> Reward:
    """The score, a format term, and a length term for right rows of easy prompts and wrong rows of hard ones.

    With e_i the mean of the largest fifth of row i's token entropies, log(1 + e) scaled to [0, 1] over the step's rows,
    the certainty is k_i = 1 - e_i and a prompt's difficulty is 1 less the mean of ``c_i * (trust * k_i + 1 - trust)``.
    It is hard from a threshold on, the moving mean of the step's (1 - ``hardest``) quantile. With
    ``x = L_i / usual * (0.5 + 0.5 k_i)`` and usual the moving mean length of the prompt's kind,
    s_i = max(0, 1 - x) for a right row of an easy prompt, min(1, x - 1) for a wrong row of a hard one, else 0, and
    ``r_i = c_i + weight * format_i + weight * (s_i - 0.05 * repeated_i)``, where format is 1 for a complete answer and
    repeated is the share of tokens in 40-grams that stood before. Moving means keep 0.9 of what they were; in the first
    step, those of the step itself stand in.

    The paper's code hands a mask to its search for repetitions; here it gets the tokens. Helps where entropy says more
    about difficulty than a pass rate of few rollouts does; the usual length follows falling lengths down, so watch it.

    Args:
        trust: alpha of the paper, in [0, 1]: how much certainty counts in the difficulty; 0 = the pass rate alone.
        weight: of format and length, 0 or more.
        hardest: share of the prompts that are to be hard, in (0, 1).

    Raises:
        InvalidInput: a value outside these.

    >>> method = adathink_med()
    >>> rows = Columns([1, 0], [10, 30], [0, 1], [99] * 2, [1] * 2, answered=[10, -1], repeated=[0, 0.2],
    ...                entropy=[[0.1], [1.0]])
    >>> method.score(Usual(0.5, np.array([20.0, 20.0])), rows).tolist()
    [1.75, -0.13]
    """
    if not (0 <= trust <= 1 and weights(weight) and 0 < hardest < 1):
        raise InvalidInput(
            f"adathink_med(trust={trust}, weight={weight}, hardest={hardest}); give 0 to 1, 0 to 1e6, and a share "
            "above 0 and below 1"
        )

    def measured(rows: Columns) -> tuple[F64, F64]:
        """[n] certainty of each row, [n] difficulty of its prompt."""
        entropy = rows.column("entropy", "adathink_med")
        top = [_top_fifth(row[:n]) for row, n in zip(entropy, rows.length.tolist(), strict=True)]
        raw = np.log1p(np.array(top, np.float64))
        low, high = raw.min(initial=np.inf), raw.max(initial=-np.inf)
        certain = 1 - (raw - low) / (high - low) if high > low else np.ones(len(raw))
        return certain, 1 - group_mean(rows.correct * (trust * certain + 1 - trust), rows.group)

    def before_and_now(state: Usual, rows: Columns, difficulty: F64) -> tuple[Usual, Usual]:
        """The state, with numbers of this step where it has none, and the numbers of this step."""
        _, first = np.unique(rows.group, return_index=True)
        quantile = float(np.quantile(difficulty[first], 1 - hardest))
        threshold = quantile if np.isnan(state.threshold) else state.threshold
        kinds = [rows.length[(difficulty >= threshold) == hard] for hard in (False, True)]
        own = np.array([lengths.mean() if len(lengths) else np.nan for lengths in kinds], np.float64)
        return Usual(threshold, np.where(np.isnan(state.length), own, state.length)), Usual(quantile, own)

    def terms(state: Usual, rows: Columns) -> dict[str, F64]:
        if not len(rows):
            return {"correct": rows.correct}
        certain, difficulty = measured(rows)
        usual, _ = before_and_now(state, rows, difficulty)
        hard, good = difficulty >= usual.threshold, right(rows.correct)
        x = rows.length / np.maximum(usual.length[hard * 1], 1) * (0.5 + 0.5 * certain)
        length = np.where(good & ~hard, np.maximum(0, 1 - x), np.where(~good & hard, np.minimum(1, x - 1), 0.0))
        complete = rows.column("answered", "adathink_med") >= 0
        lost = COST * rows.column(REPEATED, "adathink_med")
        return {
            "correct": rows.correct,
            "format": np.where(complete, weight, 0.0),
            "length": weight * length,
            "repetition": np.asarray(-weight * lost, np.float64),
        }

    def observe(state: Usual, rows: Columns) -> Usual:
        if not len(rows):
            return state
        old, now = before_and_now(state, rows, measured(rows)[1])
        moved = KEEP * old.length + (1 - KEEP) * now.length
        threshold = KEEP * old.threshold + (1 - KEEP) * now.threshold
        return Usual(threshold, np.where(np.isnan(now.length), old.length, moved))

    return of_terms(terms, lambda: Usual(np.nan, np.full(2, np.nan)), observe, needs=("entropy", "answered", REPEATED))


def _top_fifth(entropy: NDArray[np.floating]) -> float:
    """Mean of the largest fifth of the known entropies, of one at least; 0 where none is known."""
    known = np.sort(entropy[np.isfinite(entropy)])
    return float(known[-max(len(known) // 5, 1) :].mean()) if len(known) else 0.0
