"""Which of two models takes each step of an agent: a trained policy against both alone and against chance.

    python benchmarks/route_steps.py DATA.jsonl.gz           # writes results/route_steps.json, docs/route.md's table
    python benchmarks/route_steps.py DATA.jsonl.gz --quick   # smoke test: writes nothing

DATA has a row a question, as ``agent_strategies.py`` says (2WikiMultihopQA). The agent searches the question's
sentences (the tool of that benchmark, at $0.0001 a call) by scripted models of known skill; no language model is
claimed to have it. The large one costs 10 times as much a token, $1 and $4 a million. Both begin alike, with words of
the question; what differs is what comes then: the next hop is looked for with words of its sentence with chance 0.6 by
the large one and 0.2 by the small one, and with all evidence the answer is right with chance 0.9 and 0.6. So a step's
past says which model it needs, and what is left is to see whether the policy finds it.

A seed splits the questions: on half of them one policy is fitted for all budgets (``budgeteer.route.steps``), by far
more runs than it is measured with; on the other half everything is measured, at hard budgets of money. ``mix`` takes
the large model for a step with that chance, ``last`` once there is any result, the rule that somebody would write by
hand. The first form of the training, a plain gradient, ended at the large model for everything; the natural gradient
was put in its place after seeing that on seeds 0 to 4, so that seeds begin at 10. Points are of right answers above
the line between the two single models at the same dollars; 95 % intervals over seeds.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from agent_strategies import PLAIN, Wiki, Writer, query, read_rows
from budgeteer.agent.playing import play_of
from budgeteer.core.amounts import PICO
from budgeteer.core.budget import Budget
from budgeteer.lab import results
from budgeteer.lab.simulated import Simulated
from budgeteer.lab.stats import mean_ci
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.chat import call_of
from budgeteer.prices.price import Price, Rates
from budgeteer.prices.table import of
from budgeteer.route.steps import Choose, Play, fit
from budgeteer.solve import Answer, Budgeted, Question, Task
from pages import Place, published

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "benchmarks" / "results" / "route_steps.json"
MARKS = "<!-- written by benchmarks/route_steps.py -->\n", "<!-- end of route_steps -->"
BUDGETS = ("$0.0005", "$0.001", "$0.002", "$0.004")
SMALL, LARGE, MIXES = "small", "large", (0.25, 0.5, 0.75)
TURNS, ROUNDS, FIRST_SEED = 8, 20, 10
SEARCH = 0.0001


class Skilled(Writer):
    """Writes what a model of this skill would: how often it looks for the next hop, and answers right with all
    evidence."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], follows: float, answers: float) -> None:
        super().__init__(rows, heeds=False)
        self.follows, self.answers = follows, answers

    def step(self, row: Mapping[str, Any], body: str, seen: Sequence[bool], rng: random.Random) -> str:
        whole, begun = all(seen), "<tool_response>" in body
        over = "without calling tools" in body or "You can call these tools" not in body
        if whole or over or (begun and rng.random() < 0.15):
            right = rng.random() < (self.answers if whole else 0.1)
            return (row["answers"][0] if right else f"not {rng.randrange(3)}") + "\n"
        return call_of("search", json.dumps({"query": query(row, seen, rng, self.follows)}))


class Field:
    """Questions, the two models and what they cost.

    Args:
        rows: the questions.
        seed: of all draws.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], seed: int) -> None:
        self.wiki, self.seed = Wiki(rows), seed
        self.small, self.large = (Simulated(Skilled(rows, *skill)) for skill in ((0.2, 0.6), (0.6, 0.9)))
        self.small.name, self.large.name = SMALL, LARGE
        per_million = {SMALL: (Decimal("0.1"), Decimal("0.4")), LARGE: (Decimal(1), Decimal(4))}
        self.prices = of({name: Price(Rates(input=i, output=o)) for name, (i, o) in per_million.items()}, "benchmark")

    def task(self, number: int, run: int, budget: str) -> Task:
        """A question with the small model and a hard budget of its own."""
        item, amount = self.wiki.items[number], Budget.parse(budget).amount or 0
        ledger = MemoryLedger()
        ledger.open("q", [Limit("money", amount)])
        model = Budgeted(self.small, Allowance(ledger, "q", {"money": amount}), prices=self.prices)
        tools = tuple(replace(tool, cost=round(SEARCH * PICO)) for tool in self.wiki.tools(item))
        return Task(
            Question(item.key, item.prompt), model, PLAIN, self.seed * 1_000_003 + 1009 * number + run, tools=tools
        )

    def right(self, number: int, answer: Answer) -> bool:
        return self.wiki.verify(self.wiki.items[number], answer.answer) > 0.5


def chosen(arm: str, policy: Choose, seed: int) -> Callable[[int], Choose]:
    """Who chooses in each run of an arm."""
    if arm == "routed":
        return lambda run: policy
    if arm == "last":
        return lambda run: lambda x: bool(x[6] > 0)
    if arm in (SMALL, LARGE):
        return lambda run: lambda x: arm == LARGE
    share = float(arm.removeprefix("mix "))

    def of_run(run: int) -> Choose:
        draw = random.Random(f"{seed} {run}")
        return lambda x: draw.random() < share

    return of_run


ARMS = (SMALL, LARGE, *(f"mix {share}" for share in MIXES), "last", "routed")


def measured(rows: Sequence[Mapping[str, Any]], seed: int, quick: bool) -> list[dict[str, Any]]:
    """A row an arm and budget."""

    order = np.random.default_rng(seed).permutation(len(rows))
    half, found = len(rows) // 2, list[dict[str, Any]]()
    known, other = (Field([rows[i] for i in part], seed) for part in (order[:half], order[half:]))
    budgets = BUDGETS[:1] if quick else BUDGETS

    def play_in(field: Field, budgets: Sequence[str]) -> Play:
        """Task i is the question and the budget that it numbers."""

        def task_of(number: int, run: int) -> Task:
            return field.task(number // len(budgets), run, budgets[number % len(budgets)])

        def right(number: int, answer: Answer) -> bool:
            return field.right(number // len(budgets), answer)

        return play_of(field.large, task_of, right, turns=TURNS, temperature=1.0)

    rounds = 1 if quick else ROUNDS
    fitted = fit(
        play_in(known, budgets), half * len(budgets), np.random.default_rng(seed), boundary=2, group=2, rounds=rounds
    )
    for budget in budgets:
        for arm in ARMS:
            runs = play_in(other, [budget])(range(len(rows) - half), chosen(arm, fitted.policy.choose, seed))
            steps = np.concatenate([run.large for run in runs])
            found.append({
                "seed": seed, "budget": budget, "arm": arm, "right": float(np.mean([run.solved for run in runs])),
                "dollars": float(np.mean([run.cost for run in runs])), "large": float(steps.mean()),
                "w": fitted.policy.w.tolist(), "played": fitted.played,
            })  # fmt: skip
    return found


def above(rows: Sequence[Mapping[str, Any]]) -> float:
    """Right answers of the last row above the line from the first one to the second at its dollars, which goes on level
    at its ends."""
    small, large, own = rows
    width = large["dollars"] - small["dollars"]
    share = float(np.clip((own["dollars"] - small["dollars"]) / width, 0, 1)) if width > 0 else 1.0
    return float(own["right"] - small["right"] - share * (large["right"] - small["right"]))


def table(content: Mapping[str, Any]) -> str:
    """The table of the page."""
    rows = content["rows"]
    by = {(row["seed"], row["budget"], row["arm"]): row for row in rows}
    seeds, budgets = (list(dict.fromkeys(row[key] for row in rows)) for key in ("seed", "budget"))
    lines = [
        "| budget a question | arm | right | dollars | steps by the large one | points above the line |",
        "|---" * 6 + "|",
    ]
    for budget in budgets:
        for arm in ARMS:
            own = [by[seed, budget, arm] for seed in seeds]
            over = [above([by[seed, budget, a] for a in (SMALL, LARGE, arm)]) for seed in seeds]
            right, points = (mean_ci([100 * v for v in values]) for values in ([row["right"] for row in own], over))
            shown = "" if arm in (SMALL, LARGE) else f"{points.mean:+.1f} [{points.low:+.1f}, {points.high:+.1f}]"
            dollars, large = (np.mean([row[key] for row in own]) for key in ("dollars", "large"))
            lines.append(
                f"| {budget} | `{arm}` | {right.mean:.1f} [{right.low:.1f}, {right.high:.1f}] | {dollars:.5f} | "
                f"{100 * large:.0f} % | {shown} |"
            )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="questions, JSON lines")
    parser.add_argument("--seeds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--limit", type=int, help="questions (default: all)")
    parser.add_argument("--quick", action="store_true", help="eight questions, one seed and budget: means nothing")
    args = parser.parse_args()
    rows = read_rows(args.data)[: 8 if args.quick else args.limit]
    found: list[dict[str, Any]] = []
    for seed in range(FIRST_SEED, FIRST_SEED + (1 if args.quick else args.seeds)):
        found += measured(rows, seed, args.quick)
        sys.stderr.write(f"seed {seed}: done\n")
    content = {"questions": len(rows), "turns": TURNS, "rounds": ROUNDS, "rows": found, "versions": results.versions()}
    published(content, table(content), None if args.quick else TARGET, Place(TARGET, ROOT / "docs" / "route.md", MARKS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
