"""The rules of aggregators."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np

from budgeteer.check._common import CheckFailed
from budgeteer.strategies.aggregator import Aggregator, Ranked

ANSWERS = ("7", "5", "12", "none of these")
"""Their numbers of samples are 5, 3, 2 and 1: no ties."""


def check_aggregator(aggregator: Aggregator, *, rounds: int = 40, seed: int = 0) -> None:
    """Rank random answers with random scores, and raise :class:`CheckFailed` at the first broken rule.

    Rules: a list of :class:`Ranked`, each an answer of the samples and none of them twice; with scores in [0, 1], or
    without any (NaN), weights are in [0, 1]; where a sample has an answer, one is ranked, and without any answer none
    is; an answer that all samples give is first; samples without an answer do not count; without ties the order of the
    samples does not matter; the lists that were given stay as they are, and the same lists are ranked the same.

    Args:
        aggregator: the aggregator to check.
        rounds: how many random sets of samples.
        seed: of the samples.
    """
    rng = np.random.default_rng([seed, 9])
    for turn in range(rounds):
        answers: list[str | None] = [answer for answer, n in zip(ANSWERS, (5, 3, 2, 1), strict=True) for _ in range(n)]
        answers += [None] * int(rng.integers(0, 4))
        scores = rng.random(len(answers))
        if turn % 4 == 1:
            scores[:] = math.nan
        elif turn % 4 == 2:
            scores[rng.random(len(scores)) < 0.3] = math.nan
        order = rng.permutation(len(answers))
        answers, scores = [answers[i] for i in order], scores[order]
        first = _ranked(aggregator, answers, scores.tolist())
        if not first:
            raise CheckFailed(f"no answer of {answers} was ranked; rank one where a sample has an answer")
        kept = [i for i, answer in enumerate(answers) if answer is not None]
        bare = _ranked(aggregator, [answers[i] for i in kept], scores[kept].tolist())
        _same(first, bare, "samples without an answer do not count")
        other = rng.permutation(kept)
        mixed = _ranked(aggregator, [answers[i] for i in other], scores[other].tolist())
        _same(bare, mixed, "the order of the samples does not matter where no two answers are equally good")
        agreed = _ranked(aggregator, ["7"] * 3, scores[:3].tolist())
        if [ranked.answer for ranked in agreed] != ["7"]:
            raise CheckFailed(f"three samples said '7', and {agreed} was ranked; an answer of all is the only one")
    for nothing in ([], [None, None]):
        if aggregator(nothing, [math.nan] * len(nothing)) != []:
            raise CheckFailed("something was ranked, and no sample had an answer")


def _ranked(aggregator: Aggregator, answers: Sequence[str | None], scores: Sequence[float]) -> list[Ranked]:
    """What it ranks, within the rules of a single ranking."""
    given = copy.deepcopy((answers, scores))
    ranking = aggregator(answers, scores)
    if repr(given) != repr((answers, scores)):  # NaN is not equal to itself
        raise CheckFailed("the aggregator changed the lists it was given; copy before sorting")
    if not isinstance(ranking, list) or not all(isinstance(ranked, Ranked) for ranked in ranking):
        raise CheckFailed(f"the aggregator returned {ranking!r}; return a list of Ranked")
    named = [ranked.answer for ranked in ranking]
    if not set(named) <= {answer for answer in answers if answer is not None}:
        raise CheckFailed(f"{named} was ranked, and the samples say {answers}: each is an answer of the samples")
    if len(set(named)) < len(named):
        raise CheckFailed(f"{named} was ranked; each answer once")
    for ranked in ranking:
        if not -1e-9 <= ranked.weight <= 1 + 1e-9:  # NaN, too
            raise CheckFailed(
                f"{ranked.answer!r} has a weight of {ranked.weight}, and scores are in [0, 1]: so are weights"
            )
    if repr(aggregator(answers, scores)) != repr(ranking):
        raise CheckFailed("the same answers and scores were ranked otherwise the second time: no memory, no chance")
    return ranking


def _same(a: list[Ranked], b: list[Ranked], rule: str) -> None:
    same = [ranked.answer for ranked in a] == [ranked.answer for ranked in b]
    if not same or not all(math.isclose(x.weight, y.weight, abs_tol=1e-9) for x, y in zip(a, b, strict=True)):
        raise CheckFailed(f"{rule}: {a} and {b}")
