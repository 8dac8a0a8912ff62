"""Plan and budget (arXiv 2505.16122): what schedules, exact water-filling and the planner's tokens are worth.

60 questions a seed, each of 4 parts with an error curve c_j b^-1: part j is solved with chance 1 - min(1, c_j / b_j),
the question if all are. c is log-normal (log-std 1, median 6), in falling or rising order over the parts, or none. The
strategy is run, its planner handing out the credits c_j (or none: "no credits", all 1) without a call or, "with planner
calls", for 2 calls of 120 tokens each. Budget: 400 tokens of output for parts and answer, planner included. "Sum" is
the sum of the errors c_j / b_j with all tokens spent.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from budgeteer.core.plan import F64
from budgeteer.lab.evidence import ABOVE_ZERO, BELOW_ONE, BELOW_ZERO, Evidence, declare, measured
from budgeteer.lab.metrics import efficiency
from budgeteer.lab.simulated import Simulated, play
from budgeteer.lab.thinkers import RIGHT, STYLE
from budgeteer.solve import Task
from budgeteer.strategies import plan_and_budget
from budgeteer.strategies._plan_and_budget import Schedule, divide
from budgeteer.strategies.kit.planner import Decomposition, Part, Planner
from budgeteer.strategies.kit.trace import ask

QUESTIONS, PARTS, TOKENS, CALL = 60, 4, 400, 120

DECLARED = declare(
    "simulation",
    claims=(
        "sum, water-filling to polynomial, falling",
        "sum, polynomial to constant, falling",
        "accuracy, water-filling, random",
        "accuracy, polynomial, falling",
        "planner calls",
    ),
    controls=("accuracy, polynomial, rising",),
    must_fail=("sum, polynomial to constant, rising",),
)


def experiments() -> list[Evidence]:
    """Sums of errors, accuracy of the strategy, an order that front-loading must lose on, and the planner's bill."""
    return [
        total("water-filling", "polynomial", "falling"),
        total("polynomial", "constant", "falling"),
        total("polynomial", "constant", "rising"),
        solved("water-filling", "constant", "random"),
        solved("polynomial", "constant", "falling", credits=False),
        solved("polynomial", "constant", "rising", credits=False),
        planner_bill(),
    ]


def curves(seed: int, question: str, order: str) -> F64:
    """c of the parts."""
    rng = random.Random(f"{seed} {question} curve")
    c = sorted((6.0 * float(np.exp(rng.gauss(0, 1))) for _ in range(PARTS)), reverse=order == "falling")
    if order == "random":
        rng.shuffle(c)
    return np.array(c)


def planner(seed: int, order: str, *, credits: bool, called: bool) -> Planner:
    """Hands out the parts, with the true c as credits or with equal ones."""

    async def plan(task: Task) -> Decomposition:
        for at in range(2 * called):
            await ask(task, "plan:" + "x" * at, most=CALL, stop=(), temperature=0.0, stage="plan", at=at)
        c = curves(seed, task.question.text, order)
        return Decomposition(tuple(Part(str(j), float(c[j]) if credits else 1.0) for j in range(PARTS)))

    return plan


def solver(seed: int, order: str) -> Simulated:
    """Thinks on and on; its answer is right if every part had luck with its tokens."""

    def write(prompt: str, rng: random.Random) -> str:
        question, _, written = prompt.partition(":")
        if "|" not in written:
            return "." * 1000
        spent = np.array([len(part) for part in written.rstrip("|").split("#")[1:]] + [0] * PARTS)[:PARTS]
        chance = 1 - np.minimum(1, curves(seed, question, order) / np.maximum(spent, 1e-9))
        luck = random.Random(f"{seed} {question} luck")
        return (RIGHT if all(luck.random() < p for p in chance) else "W") + "\n"

    return Simulated(write, characters=True)


def accuracy(
    schedule: Schedule, order: str, seed: int, *, credits: bool = True, called: bool = False
) -> tuple[float, float, float]:
    """(accuracy, mean tokens of output, E3)."""
    strategy = plan_and_budget(schedule, planner(seed, order, credits=credits, called=called), heading="#")
    questions = [f"q{i}" for i in range(QUESTIONS)]
    run = play(strategy, questions, STYLE, solver(seed, order), budget=TOKENS, kind="output", seed=seed)
    score = run.score([RIGHT] * QUESTIONS)
    return float(score.mean()), float(run.output.mean()), efficiency(score, run.output).e3


def total(ours: Schedule, base: Schedule, order: str, *, seeds: int = 10) -> Evidence:
    """Ratio of the sums of errors; only water-filling sees the credits."""
    values = []
    for seed in range(seeds):
        sums = {ours: 0.0, base: 0.0}
        for i in range(20):
            c = curves(seed, f"q{i}", order)
            for schedule in sums:
                credits = c if schedule == "water-filling" else np.ones(PARTS)
                units = divide(TOKENS, [Part("", float(d)) for d in credits], schedule)
                sums[schedule] += float(np.sum(c / np.maximum(units, 1)))
        values.append(sums[ours] / sums[base])
    return measured(
        f"sum, {ours} to {base}, {order}",
        values,
        BELOW_ONE,
        claim=f"With errors in {order} order, {ours} leaves a smaller sum of errors than {base} (ratio)",
        baseline=base,
        budget=f"{TOKENS} tokens a question",
    )


def solved(ours: Schedule, base: Schedule, order: str, *, credits: bool = True, seeds: int = 6) -> Evidence:
    """Accuracy, less the baseline's, which never sees the credits."""
    values, details = [], []
    for seed in range(seeds):
        a, b = accuracy(ours, order, seed, credits=credits), accuracy(base, order, seed, credits=False)
        values.append(a[0] - b[0])
        details.append({"accuracy": a[0], "tokens": a[1], "E3": a[2], "accuracy of the baseline": b[0], "its E3": b[2]})
    loses = order == "rising"
    return measured(
        f"accuracy, {ours}, {order}",
        values,
        BELOW_ZERO if loses else ABOVE_ZERO,
        claim=f"With parts in {order} order, {ours}{'' if credits else ' without credits'} "
        f"{'loses' if loses else 'gains'} accuracy (difference)",
        baseline=base,
        budget=f"{TOKENS} tokens of output a question",
        details=details,
    )


def planner_bill(*, compare: Callable[..., tuple[float, float, float]] = accuracy, seeds: int = 6) -> Evidence:
    """Accuracy of water-filling that pays for its planner, less that of a constant split that needs none."""
    values = [
        compare("water-filling", "random", seed, called=True)[0] - compare("constant", "random", seed, credits=False)[0]
        for seed in range(seeds)
    ]
    return measured(
        "planner calls",
        values,
        ABOVE_ZERO,
        claim=f"With planner calls of {2 * CALL} tokens on the bill, water-filling still gains accuracy (difference)",
        baseline="constant, without a planner",
        budget=f"{TOKENS} tokens of output a question, planner included",
    )
