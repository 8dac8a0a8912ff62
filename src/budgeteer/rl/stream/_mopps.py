"""Prompts by Thompson sampling of their difficulty (MoPPS, arXiv 2507.04632)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from budgeteer.allocate.kit.counts import Counts
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import I64, Outcomes
from budgeteer.rl.recipe import Stream


@dataclass(frozen=True, slots=True)
class Posterior:
    """State: discounted successes and failures of each prompt seen, and steps done."""

    counts: Counts
    steps: int


def mopps(target: float = 0.5, decay: float = 0.5) -> Stream:
    """The prompts whose success rate, drawn from its posterior, is nearest to ``target``.

    Every prompt has ``theta ~ Beta(1 + right, 1 + wrong)``; a step takes those with the smallest ``|theta - target|``.
    At a visit the counts before it are multiplied by ``decay``, and those of its rollouts are added. A prompt never
    seen has a flat posterior, so that it is tried now and then. The candidates are all training prompts; in the paper
    they are a batch of these. Helps where pass rates spread widely and prompts come again; does not where each prompt
    is seen once, for then nothing is known.

    Args:
        target: in (0, 1).
        decay: in [0, 1]; 1 = nothing is forgotten.

    Raises:
        InvalidInput: a value outside these.
    """
    if not (0 < target < 1 and 0 <= decay <= 1):
        raise InvalidInput(f"mopps(target={target}, decay={decay}); give 0 < target < 1 and 0 <= decay <= 1")

    def pick(state: Posterior, keys: tuple[str, ...], count: int, seed: int) -> I64:
        right, wrong = state.counts.of(keys)
        theta = np.random.default_rng((seed, state.steps, 11)).beta(1 + right, 1 + wrong)
        nearest: I64 = np.argsort(np.abs(theta - target), kind="stable")[:count]
        return nearest

    def observe(state: Posterior, keys: tuple[str, ...], taken: I64, outcomes: Outcomes) -> Posterior:
        seen = np.isin(state.counts.keys, outcomes.keys)
        faded = np.where(seen, decay, 1.0)
        before = Counts(state.counts.keys, state.counts.right * faded, state.counts.wrong * faded)
        return Posterior(before.add(outcomes), state.steps + 1)

    return Stream(lambda: Posterior(Counts.none(()), 0), pick, observe)
