"""SwiReasoning on the embedded thinking model: accuracy and length against greedy decoding and sampling.

    python benchmarks/switch_thinking.py           # writes benchmarks/results/switch_thinking.json
    python benchmarks/switch_thinking.py --quick   # smoke test: 2 questions; writes nothing without --out

The first questions of ``benchmarks/think.py``, 5 traces each (the choices of one request, which count as 5 seeds), at
temperature 1, up to 400 tokens with an answer forced at their end. ``sampling k``: thinking is closed by force so that
the trace has k tokens. ``switches=c,window=w``: the steer, with the paper's alpha and beta. ``at_equal_tokens`` is the
difference to sampling at as many tokens, the two neighbouring k mixed in the proportion that gives them. Intervals draw
questions and seeds; all differences are paired.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.core.steer import Steer
from budgeteer.lab.stats import crossed, crossed_weights
from budgeteer.models.model import Request
from budgeteer.models.thinker import thinker
from budgeteer.models.transformers import Transformers
from budgeteer.solve import derive
from budgeteer.solve.lines import Lines
from budgeteer.solve.styles import TaskInfo, think
from budgeteer.steer import budget_forcing, switch_thinking
from budgeteer.steer.kit import combine
from smollm2 import shown
from thinker_pool import CAP, questions_of

OUT = Path(__file__).parent / "results" / "switch_thinking.json"
SEEDS, ANSWER = 5, 32
SAMPLED = (64, 128, 224, CAP)
SWITCHES = ((2, 16), (None, 16), (2, 64))
"""Most switches and window of each arm: the window is in steps, and this model's traces are of some 150 to 200."""


def arms() -> dict[str, tuple[int, float, Steer]]:
    """Name -> cap, temperature, steer."""
    forced = budget_forcing(reserve=ANSWER)
    return {
        "greedy": (CAP, 0.0, forced),
        **{f"sampling {cap}": (cap, 1.0, forced) for cap in SAMPLED},
        **{
            f"switches={most},window={window}": (CAP, 1.0, combine(forced, switch_thinking(most, window=window)))
            for most, window in SWITCHES
        },
    }


async def measure(n: int, file: Lines) -> dict[tuple[str, str], list[tuple[float, int]]]:
    """Of each arm and question: whether each choice is right, and its tokens; what the file has is not asked again."""
    asked, model = questions_of(n), Transformers(thinker(), name="thinker")
    style = think(TaskInfo("thinking", tags=model.tags), answer_tokens=ANSWER)
    found = {(row["arm"], row["id"]): row["choices"] for row in file.earlier}
    try:
        for question in asked.questions:
            for name, (cap, temperature, steer) in arms().items():
                if (name, question.id) in found:
                    continue
                request = Request(
                    style.prompt(question.text), cap, SEEDS if temperature else 1, temperature, style.stop,
                    seed=derive(0, question.id), steer=steer, close=style.close,
                )  # fmt: skip
                choices = (await model.generate(request)).choices
                row = [[float(asked.grade(question, style.read(c.text)) or 0), c.tokens] for c in choices]
                found[name, question.id] = row if temperature else row * SEEDS
                file.append({"arm": name, "id": question.id, "choices": found[name, question.id]})
            print(f"\r{question.id}          ", end="", file=sys.stderr, flush=True)
    finally:
        await model.aclose()
    return {(name, question.id): found[name, question.id] for name in arms() for question in asked.questions}


def analyse(found: dict[tuple[str, str], list[tuple[float, int]]]) -> list[dict[str, Any]]:
    """A row for each arm."""
    tables = {
        name: np.array([choices for (arm, _), choices in found.items() if arm == name]).transpose(2, 1, 0)
        for name in arms()
    }  # [right or tokens, seeds, questions]
    weights = crossed_weights(tables["greedy"].shape[2], SEEDS)
    samplings = [tables[f"sampling {cap}"] for cap in SAMPLED]
    means = [table[1].mean() for table in samplings]
    rows = []
    for name, (right, tokens) in tables.items():
        at = float(np.interp(tokens.mean(), means, range(len(means))))
        low = min(int(at), len(means) - 2)
        same = (low + 1 - at) * samplings[low][0] + (at - low) * samplings[low + 1][0]
        rows.append({
            "name": name,
            "accuracy": shown(crossed(right, weights)),
            "tokens": shown(crossed(tokens, weights)),
            "minus_greedy": shown(crossed(right - tables["greedy"][0], weights)),
            "at_equal_tokens": shown(crossed(right - same, weights)),
        })  # fmt: skip
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smoke test; the numbers mean nothing")
    parser.add_argument("--questions", type=int, default=60, help="the first so many (default %(default)s)")
    parser.add_argument("--rows", type=Path, default=Path("runs/switch_thinking"), help="traces so far (%(default)s)")
    parser.add_argument("--out", type=Path, help=f"results file (default: {OUT.name} beside this file; none if quick)")
    args = parser.parse_args(argv)
    n = 2 if args.quick else args.questions
    file = Lines(args.rows / "traces.jsonl", sync=False)
    try:
        rows = analyse(asyncio.run(measure(n, file)))
    finally:
        file.close()
    print()
    for row in rows:
        accuracy, tokens, greedy, same = (
            row[key] for key in ("accuracy", "tokens", "minus_greedy", "at_equal_tokens")
        )  # fmt: skip
        print(
            f"{row['name']:24} right {100 * accuracy['mean']:5.1f} tokens {tokens['mean']:5.0f}"
            f"  minus greedy {100 * greedy['mean']:+5.1f} [{100 * greedy['low']:+.1f}, {100 * greedy['high']:+.1f}]"
            f"  at equal tokens {100 * same['mean']:+5.1f} [{100 * same['low']:+.1f}, {100 * same['high']:+.1f}]"
        )
    out = args.out or (None if args.quick else OUT)
    if out is not None:
        result = {"model": "the embedded thinking model", "questions": n, "seeds": SEEDS, "cap": CAP, "table": rows}
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
