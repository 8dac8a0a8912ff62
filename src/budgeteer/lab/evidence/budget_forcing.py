"""Budget forcing (arXiv 2501.19393): a forced answer against none, and what "wait" buys.

60 questions a seed; a trace closes by itself after a log-normal number of tokens (median 60, log-std 0.5). "Knows
early": from a uniform fraction of that on, a forced answer is right; before, it is one of eight wrong ones. "Knows at
the end": only a trace that closed by itself is right. Wait: traces that close after a median of 40 tokens and know
after a log-normal median of 80 ("rising") or know at their close or never, half each ("flat"). Budgets count output.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from budgeteer.lab.evidence import ABOVE_ZERO, Evidence, Region, declare, measured
from budgeteer.lab.simulated import play
from budgeteer.lab.thinkers import RIGHT, STYLE, Thought, lognormal, thinker
from budgeteer.solve import Strategy
from budgeteer.strategies import budget_forcing, direct

QUESTIONS = 60
NO_GAIN: Region = (-float("inf"), 0.01)

DECLARED = declare(
    "simulation",
    claims=(
        "forcing, early, 40",
        "wait, rising",
    ),
    controls=(
        "forcing, early, 1000",
        "forcing, end, 40",
        "wait, flat",
    ),
)


def experiments() -> list[Evidence]:
    """Tight and ample budgets, a world in which a forced answer is worth nothing, and the wait."""
    return [
        forcing("early", 40),
        forcing("early", 1000),
        forcing("end", 40),
        wait("rising"),
        wait("flat"),
    ]


def early(rng: random.Random) -> Thought:
    closes = lognormal(rng, 60, 0.5)
    return Thought(closes, closes * rng.random())


def end(rng: random.Random) -> Thought:
    closes = lognormal(rng, 60, 0.5)
    return Thought(closes, closes)


def rising(rng: random.Random) -> Thought:
    return Thought(lognormal(rng, 40, 0.5), lognormal(rng, 80, 0.5))


def flat(rng: random.Random) -> Thought:
    closes = lognormal(rng, 40, 0.5)
    return Thought(closes, closes if rng.random() < 0.5 else float("inf"))


WORLDS: dict[str, Callable[[random.Random], Thought]] = {"early": early, "end": end, "rising": rising, "flat": flat}


def accuracy(strategy: Strategy, world: str, budget: int, seed: int) -> tuple[float, float]:
    """(accuracy, mean tokens of output)."""
    questions = [f"q{i}" for i in range(QUESTIONS)]
    run = play(strategy, questions, STYLE, thinker(WORLDS[world], seed), budget=budget, kind="output", seed=seed)
    return float(run.score([RIGHT] * QUESTIONS).mean()), float(run.output.mean())


def forcing(world: str, budget: int, *, ours: Strategy | None = None, seeds: int = 10) -> Evidence:
    """Accuracy, less that of one trace that is cut at the same budget."""
    values, details = [], []
    for seed in range(seeds):
        a, tokens = accuracy(ours or budget_forcing(), world, budget, seed)
        b, most = accuracy(direct(), world, budget, seed)
        values.append(a - b)
        details.append({"accuracy": a, "tokens": tokens, "accuracy of the baseline": b, "its tokens": most})
    tight = budget < 100
    gain = tight and world == "early"
    knows = {"early": "Where traces know early", "end": "Where they know at the end only"}[world]
    claim = f"{knows}, a forced answer {'gains accuracy' if gain else 'gains nothing'} (difference)"
    return measured(
        f"forcing, {world}, {budget}",
        values,
        ABOVE_ZERO if gain else NO_GAIN if tight else (-0.001, 0.001),
        claim=claim,
        baseline="one trace, cut",
        budget=f"{budget} tokens of output a question",
        details=details,
    )


def wait(world: str, *, seeds: int = 10) -> Evidence:
    """Accuracy with at least 100 tokens of thinking, less that without a minimum; tokens are in the details."""
    values, details = [], []
    for seed in range(seeds):
        a, tokens = accuracy(budget_forcing(minimum=100), world, 400, seed)
        b, fewer = accuracy(budget_forcing(), world, 400, seed)
        values.append(a - b)
        details.append({"accuracy": a, "tokens": tokens, "accuracy of the baseline": b, "its tokens": fewer})
    gains = world == "rising"
    return measured(
        f"wait, {world}",
        values,
        ABOVE_ZERO if gains else NO_GAIN,
        claim=f"Where more thinking {'helps' if gains else 'does not help'}, waiting until 100 tokens "
        f"{'gains accuracy' if gains else 'gains nothing'} (difference)",
        baseline="the same without a minimum",
        budget="400 tokens of output a question; fewer are used without",
        details=details,
    )
