"""Early exit on a converged answer: tokens saved, and what a steady wrong answer does to it.

60 questions a seed; traces close after a log-normal number of tokens (median 120, log-std 0.4) and know from a uniform
0.1 to 0.6 of that on. Before, a forced answer is another wrong one every 8 tokens ("unsteady"), or always the same one
("lure"). A look every 16 tokens, three equal answers end it. Side answers are charged.
"""

from __future__ import annotations

import random

from budgeteer.lab.evidence import ABOVE_ZERO, BELOW_ONE, Evidence, declare, measured
from budgeteer.lab.evidence.budget_forcing import QUESTIONS
from budgeteer.lab.simulated import Run, play
from budgeteer.lab.thinkers import RIGHT, STYLE, Thought, lognormal, thinker
from budgeteer.solve import Strategy
from budgeteer.strategies import budget_forcing, convergence

AMPLE = 20_000

DECLARED = declare(
    "simulation",
    claims=(
        "tokens of output",
        "accuracy, unsteady",
        "accuracy, lure",
        "equal tokens, unsteady",
        "equal tokens, lure",
        "tokens of input and output",
    ),
)


def experiments() -> list[Evidence]:
    """Tokens and accuracy, at the same cap and at the same tokens; the lure; budgets that count input."""
    return [
        tokens("output"),
        accuracy("unsteady"),
        accuracy("lure"),
        at_equal_tokens("unsteady"),
        at_equal_tokens("lure"),
        tokens("all"),
    ]


def run(strategy: Strategy, world: str, seed: int, kind: str = "output", budget: int = AMPLE) -> Run:
    def draw(rng: random.Random) -> Thought:
        closes = lognormal(rng, 120, 0.4)
        return Thought(closes, closes * rng.uniform(0.1, 0.6), "A" if world == "lure" else "")

    questions = [f"q{i}" for i in range(QUESTIONS)]
    return play(strategy, questions, STYLE, thinker(draw, seed), budget=budget, kind=kind, seed=seed)


def score(played: Run) -> float:
    return float(played.score([RIGHT] * QUESTIONS).mean())


def ours() -> Strategy:
    return convergence(every=16, agree=3)


def tokens(kind: str, *, seeds: int = 6) -> Evidence:
    """Ratio of all tokens of that kind to those of traces that run to their end."""
    values = []
    for seed in range(seeds):
        both = [run(s, "unsteady", seed, kind) for s in (ours(), budget_forcing())]
        spent = [float((played.output + (played.input if kind == "all" else 0.0)).mean()) for played in both]
        values.append(spent[0] / spent[1])
    counted = "input and output" if kind == "all" else "output"
    return measured(
        f"tokens of {counted}",
        values,
        BELOW_ONE,
        claim=f"It uses fewer tokens of {counted} (ratio)",
        baseline="traces that run to their end",
        budget="the same questions",
    )


def accuracy(world: str, *, strategy: Strategy | None = None, seeds: int = 6) -> Evidence:
    """Accuracy, less that of traces that run to their end."""
    values = [
        score(run(strategy or ours(), world, seed)) - score(run(budget_forcing(), world, seed)) for seed in range(seeds)
    ]
    return measured(
        f"accuracy, {world}",
        values,
        (-0.05, 1.0),
        claim=f"With {world} wrong answers, it loses less than 5 points (difference)".replace("lure", "alluring"),
        baseline="traces that run to their end",
        budget="the same questions",
    )


def at_equal_tokens(world: str, *, strategy: Strategy | None = None, seeds: int = 6) -> Evidence:
    """Accuracy, less that of thinking cut at a cap that uses at least as many tokens of output."""
    values, details = [], []
    for seed in range(seeds):
        a = run(strategy or ours(), world, seed)
        low, high = 1, 400  # tokens of the baseline grow with its cap
        while low < high:
            cap = (low + high) // 2
            enough = run(budget_forcing(cap), world, seed).output.mean() >= a.output.mean()
            low, high = (low, cap) if enough else (cap + 1, high)
        b = run(budget_forcing(low), world, seed)
        values.append(score(a) - score(b))
        details.append({"tokens": float(a.output.mean()), "tokens of the baseline": float(b.output.mean()), "cap": low})
    return measured(
        f"equal tokens, {world}",
        values,
        ABOVE_ZERO,
        claim=f"With {world} wrong answers, it is more often right (difference)".replace("lure", "alluring"),
        baseline="one cap for all, forced answers",
        budget="equal tokens of output, measured",
        details=details,
    )
