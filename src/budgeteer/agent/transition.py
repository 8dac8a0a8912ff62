"""When a tree of weak agents beats one strong agent at the same budget: the phase transition of budgeted synergy.

A leaf that spends x tokens on a question with two answers has the bias ``mu = 2 x accuracy - 1 ~ c x^beta``. A message
keeps a share gamma of the bias (fidelity); b messages are settled by majority; rho is how much errors are shared. One
level of a tree maps ``mu`` to ``rho m + (1 - rho) f_b(m)`` with ``m = gamma mu`` and f_b the bias of a majority of b
independent votes. Its slope at 0 is ``alpha = gamma (rho + (1 - rho) f_b'(0))``: below 1 the signal dies, above 1 it
grows, with the number N of leaves as ``N^s``, ``s = log_b alpha``. In that regime a tree beats one agent with the
same total budget exactly if ``s > beta``; ``Organisation.predicted`` iterates the map instead, which stays right where
the bias nears 1.

Source: "Phase Transition for Budgeted Multi-Agent Synergy", arXiv 2601.17311; its abstract and notes of others were
read. The form of the map with shared errors follows from the slope that they give.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64

FAN_INS = (3, 5, 7, 9)
"""Odd fan-ins, so that no vote is a tie."""


def vote(bias: float, fan_in: int) -> float:
    """f_b: the bias of the majority of ``fan_in`` independent votes of this bias.

    >>> vote(0.5, 3)  # right with 0.75^3 + 3 x 0.75^2 x 0.25 = 0.84375
    0.6875
    """
    p = (1 + bias) / 2
    right = sum(math.comb(fan_in, k) * p**k * (1 - p) ** (fan_in - k) for k in range(fan_in // 2 + 1, fan_in + 1))
    return float(2 * right - 1)


def slope(fan_in: int, fidelity: float = 1.0, shared: float = 0.0) -> float:
    """alpha: how a small bias grows in one level; f_b'(0) = b C(b - 1, (b - 1) / 2) / 2^(b - 1).

    >>> slope(3), slope(5), round(slope(3, 0.9, 0.5), 4)
    (1.5, 1.875, 1.125)

    Raises:
        InvalidInput: the fan-in is even or below 3, or the others are not in [0, 1].
    """
    if fan_in < 3 or fan_in % 2 == 0 or not (0 <= fidelity <= 1 and 0 <= shared <= 1):
        raise InvalidInput(
            f"a fan-in of {fan_in}, fidelity {fidelity}, shared errors {shared}; give an odd fan-in of 3 or more, and "
            "shares from 0 to 1"
        )
    own: float = fan_in * math.comb(fan_in - 1, fan_in // 2) / 2 ** (fan_in - 1)
    return fidelity * (shared + (1 - shared) * own)


def exponent(fan_in: int, fidelity: float = 1.0, shared: float = 0.0) -> float:
    """s = log_b alpha; minus infinity where nothing arrives.

    >>> round(exponent(3), 4), exponent(3, 2 / 3) < 1e-9
    (0.3691, True)
    """
    alpha = slope(fan_in, fidelity, shared)
    return math.log(alpha) / math.log(fan_in) if alpha > 0 else -math.inf


def root(bias: float, fan_in: int, levels: int, fidelity: float = 1.0, shared: float = 0.0) -> float:
    """The bias at the root of a tree with so many levels of majorities above leaves of this bias.

    >>> round(root(0.5, 3, 1), 4), root(0.5, 3, 0)
    (0.6875, 0.5)
    """
    for _ in range(levels):
        kept = fidelity * bias
        bias = shared * kept + (1 - shared) * vote(kept, fan_in)
    return bias


def leaf_tokens(beta: float, s: float, overhead: float) -> float:
    """The tokens of a leaf that maximise ``N^s x^beta`` with ``N (x + overhead) = B``: ``beta overhead / (s - beta)``;
    infinite, so all on one agent, unless ``s > beta``.

    >>> leaf_tokens(0.25, 0.5, 200.0), leaf_tokens(0.5, 0.5, 200.0)
    (200.0, inf)
    """
    return beta * overhead / (s - beta) if s > beta else math.inf


@dataclass(frozen=True, slots=True)
class Ability:
    """One agent's bias against its tokens, ``min(1, scale x^beta)``.

    >>> round(Ability(0.1, 0.25).bias(256), 4), Ability(0.5, 0.5).bias(100), Ability(0.1, 0.25).bias(0)
    (0.4, 1.0, 0.0)
    """

    scale: float
    beta: float

    def bias(self, tokens: float) -> float:
        """At so many tokens, 0 to 1."""
        return min(1.0, max(0.0, self.scale) * tokens**self.beta) if tokens > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Organisation:
    """One agent, or a tree.

    Attributes:
        fan_in: agents below each that settles; 0: one agent.
        levels: of majorities.
        tokens: of a leaf.
        predicted: accuracy, 0.5 to 1.
    """

    fan_in: int
    levels: int
    tokens: int
    predicted: float

    @property
    def leaves(self) -> int:
        """Agents that work on the question."""
        return int(max(1, self.fan_in) ** self.levels)


def organisations(
    ability: Ability, budget: int, *, message: int, fidelity: float, shared: float, window: int | None = None
) -> Iterator[Organisation]:
    """One agent with the whole budget, then every tree that the budget affords.

    Args:
        ability: of one agent.
        budget: tokens of a question.
        message: tokens of a message; each is written once and read once, so that a leaf costs its own tokens and
            ``2 message b / (b - 1)`` more.
        fidelity, shared: gamma and rho.
        window: tokens of context of the one that settles; None: no limit.

    >>> one, tree, *_ = organisations(Ability(0.05, 0.2), 3000, message=10, fidelity=1.0, shared=0.0)
    >>> tree.leaves, tree.tokens, one.predicted < tree.predicted
    (3, 970, True)
    """
    yield Organisation(0, 0, budget, (1 + ability.bias(budget)) / 2)
    for fan_in in FAN_INS:
        if window is not None and fan_in * message > window:
            continue
        overhead = 2 * message * fan_in / (fan_in - 1)
        levels = 1
        while (tokens := int(budget / fan_in**levels - overhead)) >= 1:
            bias = root(ability.bias(tokens), fan_in, levels, fidelity, shared)
            yield Organisation(fan_in, levels, tokens, (1 + bias) / 2)
            levels += 1


def ability_of(
    tokens: Sequence[float] | F64, accuracy: Sequence[float] | F64, weights: Sequence[float] | F64
) -> Ability:
    """The power law through points (tokens, accuracy): least squares of log bias on log tokens.

    A point that is no better than guessing has no logarithm and is left out.

    >>> fitted = ability_of([100, 400, 900], [0.6, 0.7, 0.8], [1, 1, 1])  # bias 0.02 x sqrt(tokens)
    >>> round(fitted.scale, 6), round(fitted.beta, 6)
    (0.02, 0.5)

    Raises:
        InvalidInput: fewer than two points with different tokens are above guessing.
    """
    x, mu, w = np.asarray(tokens, float), 2 * np.asarray(accuracy, float) - 1, np.asarray(weights, float)
    good = (mu > 0) & (x > 0)
    x, mu, w = np.log(x[good]), np.log(mu[good]), w[good]
    if len(np.unique(x)) < 2:
        raise InvalidInput(
            "the accuracy of one agent is known at fewer than two budgets where it is above guessing; run it at more"
        )
    centre, level = np.average(x, weights=w), np.average(mu, weights=w)
    beta = float((w * (x - centre) * (mu - level)).sum() / (w * (x - centre) ** 2).sum())
    return Ability(float(math.exp(level - beta * centre)), beta)


def shared_errors(right: Sequence[Sequence[float]]) -> float:
    """rho: the correlation of two samples' correctness on the same question, 0 to 1; NaN where it is not defined.

    It is the mean over pairs of ``(c - p)(c' - p) / (p (1 - p))``. Questions that are hard for every sample count as
    shared errors, as they do in a vote.

    >>> shared_errors([[1, 1], [0, 0]]), shared_errors([[1, 0], [0, 1]])
    (1.0, 0.0)
    """
    groups = [np.asarray(group, float) for group in right if len(group) > 1]
    if not groups:
        return math.nan
    p = float(np.concatenate(groups).mean())
    if not 0 < p < 1:
        return math.nan
    pairs = [((g - p).sum() ** 2 - ((g - p) ** 2).sum()) / (len(g) * (len(g) - 1)) for g in groups]
    return min(1.0, max(0.0, float(np.mean(pairs)) / (p * (1 - p))))
