"""Elastic reasoning (arXiv 2505.05315): a budget kept for the answer, where answers are long.

60 questions a seed; traces close after a log-normal number of tokens (median 60, log-std 0.5) and know from a uniform
fraction of that on. An answer is 20 letters, right only if it is whole. "All" counts input as well as output.
"""

from __future__ import annotations

from dataclasses import replace

from budgeteer.lab.evidence import ABOVE_ONE, ABOVE_ZERO, Evidence, Region, declare, measured
from budgeteer.lab.evidence.budget_forcing import QUESTIONS, early, end
from budgeteer.lab.simulated import Run, play
from budgeteer.lab.thinkers import RIGHT, STYLE, thinker
from budgeteer.solve import Strategy
from budgeteer.strategies import budget_forcing, direct, elastic

SIZE = 20
LONG = replace(STYLE, answer_tokens=8)
REFERENCE = [RIGHT * SIZE] * QUESTIONS

DECLARED = declare(
    "simulation",
    claims=(
        "direct, 60",
        "budget-forcing, 60",
        "price",
    ),
    controls=(
        "direct, 1000",
        "direct, 60, uninformed",
    ),
)


def experiments() -> list[Evidence]:
    """Against a cut trace and a forced answer without a budget of its own; a control; the price in input."""
    return [
        gain("direct", 60),
        gain("budget-forcing", 60),
        gain("direct", 1000),
        gain("direct", 60, informed=False),
        price(),
    ]


def run(strategy: Strategy, budget: int, seed: int, kind: str = "output", *, informed: bool = True) -> Run:
    questions = [f"q{i}" for i in range(QUESTIONS)]
    model = thinker(early if informed else end, seed, size=SIZE)
    return play(strategy, questions, LONG, model, budget=budget, kind=kind, seed=seed)


def gain(
    against: str, budget: int, *, informed: bool = True, ours: Strategy | None = None, seeds: int = 10
) -> Evidence:
    """Accuracy, less the baseline's, at the same budget."""
    baseline = {"direct": direct(), "budget-forcing": budget_forcing()}[against]
    values, details = [], []
    for seed in range(seeds):
        a = run(ours or elastic(answer=SIZE + 2), budget, seed, informed=informed)
        b = run(baseline, budget, seed, informed=informed)
        scores = [float(r.score(REFERENCE).mean()) for r in (a, b)]
        values.append(scores[0] - scores[1])
        details.append(
            {
                "accuracy": scores[0],
                "tokens": float(a.output.mean()),
                "accuracy of the baseline": scores[1],
                "its tokens": float(b.output.mean()),
            }
        )
    tight = budget < 500
    region: Region = ABOVE_ZERO if tight and informed else (-float("inf"), 0.01) if tight else (-0.001, 0.001)
    effect = "gains accuracy" if tight and informed else "gains nothing"
    where = "" if informed else ", where only a finished trace knows,"
    return measured(
        f"{against}, {budget}{'' if informed else ', uninformed'}",
        values,
        region,
        claim=f"A kept budget for answers of {SIZE} tokens{where} {effect} (difference)",
        baseline={"direct": "one trace, cut", "budget-forcing": "8 tokens for a forced answer"}[against],
        budget=f"{budget} tokens of output a question",
        details=details,
    )


def price(*, seeds: int = 10) -> Evidence:
    """Tokens of input and output by those of budget forcing, where nothing has to be cut."""
    values = []
    for seed in range(seeds):
        both = [run(s, 2000, seed, "all") for s in (elastic(answer=SIZE + 2), budget_forcing())]
        tokens = [float((played.input + played.output).mean()) for played in both]
        values.append(tokens[0] / tokens[1])
    return measured(
        "price",
        values,
        ABOVE_ONE,
        claim="Two phases cost more input and output than one call where traces close by themselves (ratio)",
        baseline="budget forcing, which leaves such a trace alone",
        budget="2,000 tokens a question, ample",
    )
