"""DUET (arXiv 2605.08441): does its split lower the gradient's variance, and does its gate stay unbiased?

Split: 128 prompts with log-normal std (log-std 0.6) and expected tokens (log-std 0.5), independent of each other;
the variance is the exact ``sum std^2 / n`` of the plan. Gate: rows of a one-logit policy, 27 % of which have no answer
when the gate decides; those run on for 1500 more tokens on average if they are kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from budgeteer.allocate import neyman, uniform
from budgeteer.core.allocator import Allocator
from budgeteer.core.plan import F64, Items
from budgeteer.core.steer import ABORT, Rows, Snapshot
from budgeteer.lab.evidence import BELOW_ONE, BELOW_ZERO, Evidence, declare, measured
from budgeteer.steer import marker_gate

PROMPTS = 128
LAST = 600
"""Tokens at which the gate aborts a row without an answer."""
SHORT, NO_MARKER = 300, 1500
"""Mean tokens of an answered row; mean tokens that a row without an answer runs on after LAST."""

DECLARED = declare(
    "simulation",
    claims=(
        "allocation, known std",
        "allocation, std estimated from 4 draws",
        "allocation, std estimated from 8 draws",
        "advantage at a quarter of the budget",
        "gate, weighted",
        "gate, variance at equal tokens",
    ),
    controls=(
        "allocation, known std, null",
        "allocation, std estimated from 4 draws, null",
        "gate, unweighted",
    ),
)


def experiments() -> list[Evidence]:
    """All of DUET's experiments."""
    return [
        allocation(),
        allocation(alike=True),
        allocation(draws=4),
        allocation(draws=8),
        allocation(draws=4, alike=True),
        smaller_budget(),
        gate_bias(weighted=True),
        gate_bias(weighted=False),
        gate_variance(),
    ]


def prompts(rng: np.random.Generator, alike: bool) -> tuple[F64, F64]:
    """True std and expected tokens [PROMPTS]; ``alike`` makes std / sqrt(tokens) the same for all."""
    cost = 200 * rng.lognormal(0.0, 0.5, PROMPTS)
    return (np.sqrt(cost) if alike else 10 * rng.lognormal(0.0, 0.6, PROMPTS)), cost


def variance_ratio(allocator: Allocator, std: F64, cost: F64, guess: F64, units: float, seed: int) -> float:
    """Variance of the summed estimate, ``sum std^2 / n``, over that of uniform with the same tokens."""
    items = Items(tuple(f"q{i:03d}" for i in range(len(cost))), cost, std=guess)
    budget = int(units * cost.sum())
    plans = [
        method.allocate(budget, items, method.init(items), rng=np.random.default_rng(seed))
        for method in (allocator, uniform())
    ]
    with np.errstate(divide="ignore"):
        ours, theirs = (float(np.sum(std**2 / plan.units)) for plan in plans)
    return ours / theirs


def ratios(
    allocator: Allocator, seeds: int, *, alike: bool = False, draws: int | None = None, units: float = 8.5
) -> list[float]:
    """One variance ratio a seed; with ``draws``, the allocator sees the sample std of so many normal draws."""
    values = []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 1])
        std, cost = prompts(rng, alike)
        guess = std if draws is None else std * rng.normal(size=(draws, PROMPTS)).std(axis=0, ddof=1)
        values.append(variance_ratio(allocator, std, cost, guess, units, seed))
    return values


def allocation(
    allocator: Allocator | None = None, *, seeds: int = 20, draws: int | None = None, alike: bool = False
) -> Evidence:
    """Variance at equal expected tokens. Alike prompts are the null: nothing to gain, so within 1 % of uniform."""
    values = ratios(allocator or neyman(), seeds, alike=alike, draws=draws)
    known = "known std" if draws is None else f"std estimated from {draws} draws"
    where = "std / sqrt(tokens) is the same for all prompts" if alike else "std and tokens differ between prompts"
    effect = "is within 1 % of uniform's" if alike else "is below uniform's"
    return measured(
        f"allocation, {known}" + (", null" if alike else ""),
        values,
        (0.99, 1.01) if alike else BELOW_ONE,
        claim=f"With {known}, when {where}, the gradient's variance {effect} (ratio)",
        baseline="uniform",
        budget="equal expected tokens, 8.5 rollouts a prompt on average",
    )


def smaller_budget(allocator: Allocator | None = None, *, seeds: int = 20) -> Evidence:
    """Does the advantage grow as the budget shrinks, as the paper reports of accuracy?"""
    by_units = {units: np.array(ratios(allocator or neyman(), seeds, units=units)) for units in (8.0, 4.0, 2.0)}
    return measured(
        "advantage at a quarter of the budget",
        by_units[2.0] - by_units[8.0],
        BELOW_ZERO,
        claim="The variance ratio to uniform is lower at 2 rollouts a prompt than at 8 (difference of ratios)",
        baseline="the same at 8 rollouts a prompt",
        budget="equal expected tokens within each ratio",
        details=[{"rollouts a prompt": units, "ratio": float(values.mean())} for units, values in by_units.items()],
    )


# The gate: a policy with one logit chooses to think long (probability LONG) or short. Long thinking closes with an
# answer before LAST tokens less often. A row's gradient is (reward - 1/2) * score, with score = 1{long} - LONG.
LONG = 0.4
ANSWERS = (0.95, 0.4)
"""Probability of an answer before LAST, short and long."""
REWARD = ((0.1, 0.4), (0.5, 0.7))
"""Expected reward [short, long][no answer before LAST, answer before LAST]."""


def true_gradient() -> float:
    """E[(reward - 1/2) * score] without a gate, by enumeration.

    >>> round(true_gradient(), 4)
    0.0468
    """
    total = 0.0
    for long in (0, 1):
        for answer in (0, 1):
            chance = (LONG if long else 1 - LONG) * (ANSWERS[long] if answer else 1 - ANSWERS[long])
            total += chance * (REWARD[long][answer] - 0.5) * (long - LONG)
    return total


def gated(keep: float, seed: int, n: int) -> tuple[F64, F64, F64, F64]:
    """Per row: gradient without the gate, weight 1{kept} * w, tokens without the gate, tokens with it."""
    rng = np.random.default_rng([seed, 2])
    long = (rng.random(n) < LONG).astype(np.int64)
    answer = (rng.random(n) < np.array(ANSWERS)[long]).astype(np.int64)
    reward = rng.random(n) < np.array(REWARD)[long, answer]
    gradient = (reward - 0.5) * (long - LONG)
    gate = marker_gate(LAST, LAST, keep_abort=keep)
    state = gate.init(Rows(("q",) * n, np.full(n, 10 * LAST), seed))
    answered = np.where(answer == 1, SHORT, -1)
    now = Snapshot.of(np.full(n, LAST), closed=answered, answered=answered, margin=lambda: np.zeros(n, np.float32))
    action, state = gate.step(state, now)
    assert gate.kept_weight is not None
    aborted = action.decision == ABORT
    full = np.where(answer == 1, float(SHORT), LAST + rng.exponential(NO_MARKER, n))
    return gradient, np.where(aborted, 0.0, gate.kept_weight(state)), full, np.where(aborted, float(LAST), full)


def gate_bias(*, weighted: bool, seeds: int = 40, n: int = 200_000, keep: float = 0.05) -> Evidence:
    """Relative bias of the mean gradient of the rows that the gate let live."""
    values = []
    for seed in range(seeds):
        gradient, weight, _, _ = gated(keep, seed, n)
        estimate = float(np.mean((weight if weighted else weight > 0) * gradient))
        values.append(estimate / true_gradient() - 1)
    how = f"With weight 1/{keep:g} on late rows that were kept" if weighted else "Without the weight"
    return measured(
        f"gate, {'weighted' if weighted else 'unweighted'}",
        values,
        (-0.03, 0.03) if weighted else (-np.inf, -0.03),
        claim=f"{how}, the gated gradient is {'within 3 % of the true one' if weighted else 'more than 3 % too low'}"
        " (relative bias)",
        baseline="exact gradient, no gate",
        budget=f"{n:,} rows a seed",
    )


def gate_variance(*, seeds: int = 20, n: int = 100_000) -> Evidence:
    """The gate's price: tokens fall, variance a row rises. What is left at equal tokens?"""
    values: dict[float, list[float]] = {}
    rows: list[dict[str, Any]] = []
    for keep in (0.01, 0.05, 0.1, 0.2, 0.5):
        inflation, saved = [], []
        for seed in range(seeds):
            gradient, weight, full, cut = gated(keep, seed, n)
            inflation.append(float(np.var(weight * gradient) / np.var(gradient)))
            saved.append(float(cut.mean() / full.mean()))
        values[keep] = [a * b for a, b in zip(inflation, saved, strict=True)]
        rows.append(
            {
                "keep": keep,
                "variance a row": float(np.mean(inflation)),
                "tokens a row": float(np.mean(saved)),
                "variance at equal tokens": float(np.mean(values[keep])),
            }
        )
    return measured(
        "gate, variance at equal tokens",
        values[0.05],
        BELOW_ONE,
        claim="At keep = 0.05 the gate lowers the weighted gradient's variance at equal tokens (ratio)",
        baseline="no gate",
        budget="equal tokens: variance a row times tokens a row",
        details=rows,
    )
