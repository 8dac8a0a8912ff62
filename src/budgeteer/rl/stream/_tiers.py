"""From easy to hard prompts over a run, tier by tier (the curriculum of RMT, arXiv 2509.24375)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64, Outcomes
from budgeteer.rl.recipe import Stream

NAMES = ("easy", "medium", "hard")
"""What the keys of prompts begin with, up to the first colon."""


@dataclass(frozen=True, slots=True)
class Steps:
    """State: steps done."""

    done: int


def tiers(
    steps: int = 100,
    *,
    easy: float = 0.6,
    hard: float = 0.1,
    late_easy: float = 0.1,
    late_hard: float = 0.6,
    begin: float = 0.3,
    end: float = 0.7,
) -> Stream:
    """Draw the tier of each prompt, easy, medium or hard, by chances that move over the run, and then a prompt of it.

    Up to ``begin`` of the steps the chances are ``easy``, ``hard`` and the rest for medium, from ``end`` on the late
    ones, with a line between them. Within a tier all prompts are as likely, none twice in a step; a tier that a step
    has used up gives way to the others. The tier is what a prompt's key begins with, up to the first colon
    (``hard:17``, the field ``id`` of a file); a key without one counts as medium.

    RMT draws the tokens of a corpus so, which the policy names after thinking, in tiers by the entropy of a model:
    :func:`tier_of`. Its chances could not be seen; 0.3 and 0.7 are the paper's. Helps where hard prompts teach nothing
    before easier ones are learnt. Where difficulty is not known beforehand ``mopps`` learns it.

    Args:
        steps: of the run.
        easy, hard: chances at first, 0 or more, 1 at most together.
        late_easy, late_hard: chances at last, alike.
        begin, end: shares of the steps between which they move, 0 <= begin <= end <= 1.

    Raises:
        InvalidInput: a value outside these.
    """
    first, last = (np.array([low, 1 - low - high, high]) for low, high in ((easy, hard), (late_easy, late_hard)))
    if not (steps >= 1 and 0 <= begin <= end <= 1 and all((w >= -1e-9).all() for w in (first, last))):
        raise InvalidInput(
            f"tiers(steps={steps}, easy={easy}, hard={hard}, late_easy={late_easy}, late_hard={late_hard}, "
            f"begin={begin}, end={end}); give 1 step or more, chances of 0 or more that are 1 at most together, and "
            "0 <= begin <= end <= 1"
        )

    def pick(state: Steps, keys: tuple[str, ...], count: int, seed: int) -> I64:
        names = [key.partition(":")[0] for key in keys]
        level = np.array([NAMES.index(name) if name in NAMES else 1 for name in names], np.int64)
        rng = np.random.default_rng((seed, state.done, 13))
        wanted = chances(state.done / steps, first, last, begin, end)
        left = [rng.permutation(np.flatnonzero(level == number)).tolist() for number in range(3)]
        picked: list[int] = []
        while len(picked) < min(count, len(keys)):
            there = np.array([bool(rows) for rows in left])
            share = np.where(there, wanted, 0.0)
            share = share if share.sum() > 0 else there * 1.0
            picked.append(left[int(rng.choice(3, p=share / share.sum()))].pop())
        return np.array(picked, np.int64)

    def observe(state: Steps, keys: tuple[str, ...], taken: I64, outcomes: Outcomes) -> Steps:
        return Steps(state.done + 1)

    return Stream(lambda: Steps(0), pick, observe)


def chances(done: float, first: F64, last: F64, begin: float, end: float) -> F64:
    """[3] chances of the tiers where a share ``done`` of the run is over.

    >>> chances(0.5, np.array([1.0, 0, 0]), np.array([0, 0, 1.0]), 0.3, 0.7).round(9).tolist()
    [0.5, 0.0, 0.5]
    """
    moved = min(max((done - begin) / max(end - begin, 1e-12), 0.0), 1.0)
    return np.asarray(np.maximum((1 - moved) * first + moved * last, 0.0), np.float64)


def tier_of(entropy: F64, easy: float = 1 / 3, hard: float = 2 / 3) -> tuple[str, ...]:
    """The tier of each token by its entropy among those given: easy up to a quantile, hard beyond another.

    Args:
        entropy: [n] of a model's distribution of each token.
        easy, hard: quantiles, 0 <= easy <= hard <= 1.

    >>> tier_of(np.array([0.1, 2.0, 0.5, 3.0, 0.0, 0.9]))
    ('easy', 'hard', 'medium', 'hard', 'easy', 'medium')
    """
    low, high = np.quantile(entropy, [easy, hard])
    return tuple(NAMES[int(value > low) + int(value > high)] for value in np.asarray(entropy, np.float64))
