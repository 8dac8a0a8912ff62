"""Baselines of the benchmarks that need no model: ``python benchmarks/benches.py``.

How many problems of the task ``schedule`` a greedy rule solves, with and without the further kinds of constraints; what
scripted policies of the vending machine end with. Writes ``benchmarks/results/benches.json``; seconds, no randomness
beyond the seeds.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path

from budgeteer.lab.bench.vending_run import POLICIES, play
from budgeteer.lab.stats import mean_ci, wilson
from budgeteer.lab.tasks.schedule import Schedules, faults, greedy

RESULTS = Path(__file__).parent / "results" / "benches.json"
PROBLEMS, DAYS, SEEDS = 400, 120, 20


def schedules() -> dict[str, object]:
    """The greedy rule's share, by the chance of each further kind of constraint."""
    found = {}
    for axes in (0.0, 0.75, 1.0):
        items = Schedules(size=PROBLEMS, seed=0, tasks=8, min_edges=1, max_edges=8, axes=axes).items
        kept = [not faults(item.entry["instance"], greedy(item.entry["instance"])) for item in items]
        levels = {
            level: [k for k, item in zip(kept, items, strict=True) if item.level == level] for level in "12345678"
        }
        found[str(axes)] = {
            "kept": asdict(wilson(sum(kept), PROBLEMS)),
            "by level": {level: sum(own) / len(own) for level, own in levels.items()},
        }
    return found


def vending() -> dict[str, object]:
    """Net worth of each scripted policy."""
    found = {}
    for name, policy in POLICIES.items():
        runs = [asyncio.run(play(policy(), seed=seed, days=DAYS)) for seed in range(SEEDS)]
        worth = [run.worth for run in runs]
        found[name] = {
            "worth": asdict(mean_ci(worth)), "least": min(worth), "ruined": sum(run.ruined for run in runs),
            "sold": sum(run.sold for run in runs) / SEEDS,
        }  # fmt: skip
    return found


if __name__ == "__main__":
    numbers = {
        "command": "python benchmarks/benches.py", "problems": PROBLEMS, "days": DAYS, "seeds": SEEDS,
        "greedy schedules": schedules(), "vending": vending(),
    }  # fmt: skip
    RESULTS.write_text(json.dumps(numbers, indent=1) + "\n")
    print(json.dumps(numbers, indent=1))
