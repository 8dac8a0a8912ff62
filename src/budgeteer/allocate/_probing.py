"""Two rounds: small groups of the prompts that may well be mixed, then more where their outcomes say so."""

from __future__ import annotations

import heapq

import numpy as np

from budgeteer.allocate._selective import selective
from budgeteer.allocate.kit.solve import Found, lift
from budgeteer.core.allocator import Allocator
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import Items, whole


def probing(first: int = 3, high: int = 16, share: float = 0.6, strength: float = 3.0) -> Allocator:
    """Spend ``share`` of the tokens on ``first`` rollouts of each item that :func:`selective` would choose, and the
    rest on single rollouts where they are expected to add most, given what the first ones brought.

    The value of a group of n rollouts is ``p (1 - p) (1 - 1/n)`` once it holds right and wrong ones, and 0 before. With
    p = (strength * pass_rate + right) / (strength + drawn), one rollout more adds ``p (1 - p) / (n (n + 1))`` to a
    mixed group; a group of successes alone becomes mixed with probability 1 - p, and then has its whole value.
    Rollouts go to the largest expected gain per token, one at a time. Call it once a round, with the columns ``drawn``
    and ``right`` and the tokens that are left. ``Plan.value`` and ``gap`` are NaN: the second round depends on what
    the first drew.

    When it helps: predictions of the pass rate are poor, and a second round costs little time. When not: predictions
    are good (:func:`selective` spends all at once). A group that is drawn on until it is mixed looks harder or easier
    than it is. This is a method of this project; drawing in rounds is from "Reinforce-Ada", arXiv 2510.04996.

    Args:
        first: rollouts of an item in the first round, 2 or more.
        high: most rollouts of an item, ``first`` or more.
        share: of the tokens for the first round, in (0, 1].
        strength: rollouts that the predicted pass rate is worth, above 0.

    Raises:
        InvalidInput: a number outside these.

    >>> items = Items(("even", "solved", "mixed"), cost=np.full(3, 10.0), pass_rate=np.array([0.5, 0.9, 0.5]),
    ...               drawn=np.array([3, 3, 3]), right=np.array([0, 3, 1]))
    >>> probing().allocate(40, items, (), rng=np.random.default_rng(0)).units
    array([3, 0, 1])
    """
    if not 2 <= whole("first", first) <= whole("high", high) or not (0 < share <= 1 and strength > 0):
        raise InvalidInput(
            f"probing(first={first}, high={high}, share={share}, strength={strength}); needs 2 <= first <= high, "
            "0 < share <= 1 and strength > 0"
        )
    opening = selective(first, first)

    def rule(budget: int, items: Items, rng: np.random.Generator) -> Found:
        drawn = np.zeros(len(items), np.int64) if items.drawn is None else items.drawn
        good = np.zeros(len(items), np.int64) if items.right is None else items.right
        if not drawn.any():
            return Found(opening.allocate(int(budget * share), items, (), rng=rng).units)
        rate = items.column("pass_rate", "probing")
        p = (strength * np.where(np.isnan(rate), 0.5, rate) + good) / (strength + drawn)
        units, left = np.zeros(len(items), np.int64), float(budget)

        def gain(i: int) -> float:
            chance, n = float(p[i]), int(drawn[i] + units[i])
            same = chance if good[i] == drawn[i] else 1 - chance  # of the outcomes so far, while they are all alike
            alike = 0.0 if 0 < good[i] < drawn[i] else same ** int(units[i])
            turns = alike * (1 - same) * (1 - 1 / (n + 1))
            return chance * (1 - chance) * ((1 - alike) / (n * (n + 1)) + turns) / float(items.cost[i])

        heap = [(-gain(i), i) for i in np.flatnonzero((drawn > 0) & (drawn < high)).tolist()]
        heapq.heapify(heap)
        while heap:
            worth, i = heapq.heappop(heap)
            if worth < 0 and items.cost[i] <= left:
                units[i] += 1
                left -= float(items.cost[i])
                if drawn[i] + units[i] < high:
                    heapq.heappush(heap, (-gain(i), i))
        return Found(units)

    return lift(rule)
