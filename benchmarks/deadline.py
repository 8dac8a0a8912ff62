"""Right answers in time on this machine: the strategy ``deadline`` beside caps that do not know how fast it is.

    python benchmarks/deadline.py            # writes benchmarks/results/deadline.json (minutes on one core)
    python benchmarks/deadline.py --quick    # smoke test: a few questions, writes nothing without --out

The embedded reasoner is timed and its accuracy measured on 150 questions; other 200 questions are then asked one after
the other, each under a deadline by the clock, from 30 to 250 ms. An answer counts if it is right and came in time. The
baselines are greedy decoding to its end and greedy decoding cut at 16, 32 or 64 tokens, the same for all deadlines. The
first question of every run is asked once beforehand. Times are those of a machine on which other programs run, which is
said by the load that is written beside them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from budgeteer.lab import capped, questions
from budgeteer.lab.results import write_text
from budgeteer.lab.stats import wilson
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models import latency, timing
from budgeteer.models.device import Device
from budgeteer.models.load import load_model
from budgeteer.models.model import Model
from budgeteer.solve import Budgeted, Strategy, Style, Task, derive, styles
from budgeteer.strategies import deadline, self_consistency

OUT = Path(__file__).parent / "results" / "deadline.json"
DEADLINES = (0.03, 0.06, 0.12, 0.25)
LENGTHS = [8, 12, 16, 24, 32, 48, 64, 128]


async def profiled(model: Model, style: Style, limit: int) -> tuple[Device, float]:
    """The reasoner's profile with accuracies, and the mean error of its fit."""
    timed = await timing.measure(model, prompts=[8, 16, 32, 64], tokens=[16, 64], parallel=[1, 4], repeats=7)
    fitted = latency.fit(timed.calls)
    asked = questions.load("chains", limit=limit, seed=1)
    drawn = await capped.draw(model, style, asked, tokens=LENGTHS[-1], samples=8)
    found = capped.curves(drawn, LENGTHS, [1, 4], lambda q, answer: asked.grade(q, answer) or 0.0)
    made = Device("reasoner", fitted, source="chains", prompt=max(one.prompt for one in drawn))
    return replace(made, accuracy=found), latency.mean_error(fitted, timed.calls)


async def asked_in_turn(
    arms: dict[str, Strategy], model: Model, style: Style, asked: questions.QuestionSet
) -> dict[str, list[tuple[bool, float]]]:
    """Arm -> whether each answer is right, and its seconds; every question is asked by all arms in turn."""
    rows: dict[str, list[tuple[bool, float]]] = {name: [] for name in arms}
    for at, question in enumerate((asked.questions[0], *asked.questions)):
        for name, strategy in arms.items():
            ledger = MemoryLedger()
            ledger.open("q", [Limit("output", 4096)])
            charged = Budgeted(model, Allowance(ledger, "q", {"output": 4096}))
            begin = time.perf_counter()
            answer = await strategy.solve(Task(question, charged, style, derive(0, question.id)))
            took = time.perf_counter() - begin
            if at:
                rows[name].append((bool(asked.grade(question, answer.answer)), took))
    return rows


async def measured(limit: int, seen: int) -> dict[str, Any]:
    """Everything that is written."""
    model = load_model("reasoner")
    asked = questions.load("chains", limit=limit, seed=0)
    style = styles.style_of("reasoner", asked.info.by(model))
    device, error = await profiled(model, style, seen)
    rows = []
    for seconds in DEADLINES:
        arms = {"deadline": deadline(device, seconds), "greedy": self_consistency(1, temperature=0.0)}
        arms |= {f"greedy, {cap} tokens": self_consistency(1, max_tokens=cap, temperature=0.0) for cap in (16, 32, 64)}
        for name, took in (await asked_in_turn(arms, model, style, asked)).items():
            good = wilson(sum(right and used <= seconds for right, used in took), len(took))
            late = sum(used > seconds for _, used in took) / len(took)
            rows.append({"arm": name, "seconds": seconds, "right_in_time": asdict(good), "late": late})
            sys.stderr.write(f"{seconds:5} s  {name:18} right in time {good.mean:.3f}, late {late:.3f}\n")
    await model.aclose()
    return {
        "questions": limit,
        "load": os.getloadavg()[0],
        "cores": os.cpu_count(),
        "fit": {
            "mean_error": error,
            "margin": device.latency.error,
            "decode": [list(entry) for entry in device.latency.decode],
        },
        "rows": rows,
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    found = asyncio.run(measured(5, 5) if args.quick else measured(200, 150))
    out = args.out or (None if args.quick else OUT)
    if out is not None:
        write_text(json.dumps(found, indent=1) + "\n", out)


if __name__ == "__main__":
    main()
