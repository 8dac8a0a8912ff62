"""One budget over many questions: CLEAR beside an equal cap for each, first come first served, and shortest first.

    python benchmarks/clear.py            # writes benchmarks/results/clear.json (minutes on one core)
    python benchmarks/clear.py --quick    # smoke test: a few questions, writes nothing without --out

120 sums of 1 to 8 steps a seed, 5 seeds, one greedy trace of the embedded reasoner each, and budgets of sampled tokens
from a tenth to most of what all traces take together. ``equal``: everybody's trace is cut at an equal share.
``in order``: whole traces in the order of the questions until the budget is spent. ``shortest prompt``: the same, the
shortest prompts first, which costs no prediction and is the baseline to beat. ``clear``: ``clear-many``, whose pilot
is paid from the same budget. Intervals are over seeds, differences paired by seed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from budgeteer.lab import questions
from budgeteer.lab.results import write_text
from budgeteer.lab.stats import mean_ci, paired
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.load import load_model
from budgeteer.models.model import Model
from budgeteer.solve import Budgeted, Style, Task, derive, styles
from budgeteer.strategies import clear_many
from budgeteer.strategies.kit.samples import Sampler

OUT = Path(__file__).parent / "results" / "clear.json"
SHARES = (0.1, 0.2, 0.4, 0.7)
MOST = 128


def tasks_of(model: Model, style: Style, asked: questions.QuestionSet, budget: int) -> list[Task]:
    """The questions on one allowance of output tokens."""
    ledger = MemoryLedger()
    ledger.open("all", [Limit("output", budget)])
    allowance = Allowance(ledger, "all", {"output": budget})
    return [Task(q, Budgeted(model, allowance), style, derive(0, q.id)) for q in asked.questions]


async def whole(tasks: Sequence[Task], order: Sequence[int]) -> dict[int, str | None]:
    """Greedy traces in this order, each with what is left."""
    found: dict[int, str | None] = {}
    for i in order:
        sampler = Sampler(tasks[i], max_tokens=MOST, temperature=0.0)
        await sampler.more(1)
        found[i] = sampler.answers[0] if sampler.drawn else None
    return found


async def equal(tasks: Sequence[Task], budget: int) -> dict[int, str | None]:
    """Greedy traces that are cut at an equal share."""
    samplers = [Sampler(task, max_tokens=max(1, budget // len(tasks)), temperature=0.0) for task in tasks]
    await asyncio.gather(*(sampler.once(1) for sampler in samplers))
    return {i: sampler.answers[0] if sampler.drawn else None for i, sampler in enumerate(samplers)}


async def one_seed(model: Model, seed: int, limit: int) -> dict[str, dict[str, float]]:
    """Share -> arm -> accuracy."""
    asked = questions.load("chains:min_steps=1,max_steps=8", limit=limit, seed=seed)
    style = styles.style_of("reasoner", asked.info.by(model))
    free = tasks_of(model, style, asked, limit * MOST)
    samplers = [Sampler(task, max_tokens=MOST, temperature=0.0) for task in free]
    await asyncio.gather(*(sampler.once(1) for sampler in samplers))
    total = sum(sampler.drawn[0].tokens for sampler in samplers)
    by_prompt = sorted(range(limit), key=lambda i: (model.count(style.prompt(asked.questions[i].text)), i))
    found: dict[str, dict[str, float]] = {}
    for share in SHARES:
        budget = int(share * total)

        def tasks(budget: int = budget) -> list[Task]:
            return tasks_of(model, style, asked, budget)

        answers = {
            "equal": await equal(tasks(), budget),
            "in order": await whole(tasks(), range(limit)),
            "shortest prompt": await whole(tasks(), by_prompt),
            "clear": {i: answer.answer async for i, answer in clear_many(tasks(), max_tokens=MOST)},
        }
        found[str(share)] = {
            arm: sum(asked.grade(asked.questions[i], answer) or 0.0 for i, answer in own.items()) / limit
            for arm, own in answers.items()
        }
        sys.stderr.write(f"seed {seed}, {share:.0%} of {total:,} tokens: {found[str(share)]}\n")
    return found


async def measured(limit: int, seeds: int) -> dict[str, Any]:
    """Everything that is written."""
    model = load_model("reasoner")
    runs = [await one_seed(model, seed, limit) for seed in range(seeds)]
    await model.aclose()
    rows = []
    for share in runs[0]:
        for arm in runs[0][share]:
            own = [run[share][arm] for run in runs]
            clear = [run[share]["clear"] for run in runs]
            rows.append(
                {
                    "share": float(share),
                    "arm": arm,
                    "accuracy": asdict(mean_ci(own)),
                    "clear_minus_arm": None if arm == "clear" else asdict(paired(clear, own)),
                }
            )
    return {"command": "python benchmarks/clear.py", "questions": limit, "seeds": seeds, "rows": rows}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    found = asyncio.run(measured(12, 2) if args.quick else measured(120, 5))
    out = args.out or (None if args.quick else OUT)
    if out is not None:
        write_text(json.dumps(found, indent=1) + "\n", out)


if __name__ == "__main__":
    main()
