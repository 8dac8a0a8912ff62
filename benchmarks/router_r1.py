"""Router-R1 in TRL with the thinking model: what training changes on held-out questions.

    python benchmarks/router_r1.py --work DIR     # a folder a seed; run again to go on
    python benchmarks/router_r1.py --table        # writes the table of docs/trl.md, no more
    python benchmarks/router_r1.py --work DIR --quick --out FILE    # smoke test: 1 seed, 2 steps, 4 questions

Each seed is a run of ``examples/trl_router_r1.py`` with questions, imitation and held-out questions of its own.
``before`` is the policy that was shown calls of a model at random, ``after`` the same one trained with the paper's
reward. Beside them, on the same held-out questions: each of the two models asked by itself for all of them, and ``by
kind``, what a rule would do that knows which kind a question is (``sums`` for sums modulo 11, ``words`` for the
others), and ``at random``, one of the two with equal chances, in expectation. Means over seeds with 95 % intervals;
``change`` is after less before, paired by seed. Of one seed there is no spread over seeds: ``right`` then has Wilson's
interval over questions, its change Newcombe's for two shares, and the other figures have none.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from budgeteer.lab.stats import wilson
from pages import between, interval

ROOT = Path(__file__).resolve().parents[1]
OUT, PAGE = ROOT / "benchmarks" / "results" / "router_r1.json", ROOT / "docs" / "trl.md"
EXAMPLE = ROOT / "examples" / "trl_router_r1.py"
sys.path.append(str(EXAMPLE.parent))
FIGURES = ("right", "dollars", "tokens")
CALLS = ("sums, modulo 11", "words, modulo 11", "sums, in words", "words, in words")
SHOWN = (*FIGURES, *CALLS)


def alone(seed: int, heldout: int) -> dict[str, dict[str, float]]:
    """What the two models do by themselves on the held-out questions of a seed, and the rule that knows the kind."""
    from trl_router_r1 import helpers, questions

    asked = questions(heldout, seed + 1_000_000)
    small, large = helpers()

    async def said() -> list[list[tuple[float, float]]]:
        rows = []
        for one in asked:
            row = []
            for helper in (small, large):
                before = helper.cost
                text = await helper.tool().call({"query": one.text})
                row.append((float(text == f"The answer is {one.answer}."), (helper.cost - before) / 1e12))
            rows.append(row)
        return rows

    rows = asyncio.run(said())
    picks = {
        "sums alone": [row[0] for row in rows],
        "words alone": [row[1] for row in rows],
        "by kind": [row[0 if one.modular else 1] for row, one in zip(rows, asked, strict=True)],
        "at random": [tuple(sum(part) / 2 for part in zip(*row, strict=True)) for row in rows],
    }
    means = {name: [sum(part) / len(rows) for part in zip(*chosen, strict=True)] for name, chosen in picks.items()}
    return {name: {"right": right, "dollars": dollars} for name, (right, dollars) in means.items()}


def measured(args: argparse.Namespace) -> None:
    """Run each seed that is missing, and write after each."""
    runs = []
    for seed in range(args.seeds):
        folder = args.work / f"seed-{seed}"
        path = folder / "found.json"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            given = {"out": folder, "seed": seed, "steps": args.steps, "heldout": args.heldout}
            given |= {"imitation": args.imitation}
            options = [word for name, value in given.items() for word in (f"--{name}", str(value))]
            subprocess.run([sys.executable, str(EXAMPLE), *options], check=True)
        found = json.loads(path.read_text())
        if found["steps"] != args.steps:
            raise SystemExit(f"{path} is of {found['steps']} steps, not {args.steps}; give another --work")
        runs.append(found | {"alone": alone(seed, args.heldout)})
        args.out.write_text(json.dumps(summary(args, runs), indent=1) + "\n")


def summary(args: argparse.Namespace, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over seeds, with intervals where there are two seeds or more."""
    arms = {
        "before": [run["before"] for run in runs],
        "after": [run["after"] for run in runs],
        **{name: [run["alone"][name] for run in runs] for name in runs[0]["alone"]},
    }
    rows: dict[str, Any] = {}
    for name, found in arms.items():
        rows[name] = {key: interval([row[key] for row in found]) for key in SHOWN if key in found[0]}
    rows["change"] = {key: interval([run["after"][key] - run["before"][key] for run in runs]) for key in SHOWN}
    if len(runs) == 1:
        for row in rows.values():
            row["right"] = over_questions(row["right"]["mean"], args.heldout)
        rows["change"]["right"] = apart(rows["before"]["right"], rows["after"]["right"])
    settings = {"steps": args.steps, "heldout": args.heldout, "weight": runs[0]["weight"]}
    return {"settings": settings, "seeds": len(runs), "rows": rows, "runs": list(runs)}


def over_questions(share: float, n: int) -> dict[str, float]:
    """A share of n questions with Wilson's interval; one in expectation is rounded to whole questions for it."""
    found = wilson(round(abs(share) * n), n)
    return {"mean": share, "low": found.low, "high": found.high}


def apart(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """A share less another one, with Newcombe's interval from theirs; that both are of the same questions is not used.

    >>> found = apart({"mean": 0.4, "low": 0.3, "high": 0.5}, {"mean": 0.7, "low": 0.6, "high": 0.8})
    >>> [round(found[key], 3) for key in ("low", "mean", "high")]
    [0.159, 0.3, 0.441]
    """
    low = math.hypot(after["mean"] - after["low"], before["high"] - before["mean"])
    high = math.hypot(after["high"] - after["mean"], before["mean"] - before["low"])
    change = after["mean"] - before["mean"]
    return {"mean": change, "low": change - low, "high": change + high}


BEGIN, END = "<!-- written by benchmarks/router_r1.py --table -->", "<!-- end of router_r1 -->"


def table(found: Mapping[str, Any]) -> str:
    """A row an arm, as Markdown; dollars a thousand questions."""
    heads = ["", "right, %", "dollars a thousand", "tokens", *CALLS]
    lines = ["", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, row in found["rows"].items():
        sign = "+" if name == "change" else ""
        cells = [
            "" if key not in row else number(row[key], {"right": 100, "dollars": 1000}.get(key, 1), sign, key)
            for key in SHOWN
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", ""])


def number(ci: Mapping[str, float], times: float, sign: str, key: str) -> str:
    """A mean with its interval, where it has one.

    >>> number({"mean": 0.5, "low": 0.25, "high": 0.75}, 100, "+", "right")
    '+50 [+25, +75]'
    >>> number({"mean": 0.5, "low": 0.5, "high": 0.5}, 1, "", "words, in words")
    '0.50'
    """
    digits = {"right": 0, "tokens": 0, "dollars": 3}.get(key, 2)
    if ci["low"] == ci["high"]:
        return f"{times * ci['mean']:{sign}.{digits}f}"
    return "{:{f}} [{:{f}}, {:{f}}]".format(
        *(times * ci[end] for end in ("mean", "low", "high")), f=f"{sign}.{digits}f"
    )


def main() -> None:
    """Run, write, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=None, help="folder of the runs, a folder a seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100, help="of TRL (default %(default)s)")
    parser.add_argument("--heldout", type=int, default=100, help="questions of each seed (default %(default)s)")
    parser.add_argument("--imitation", type=int, default=300, help="steps in which calls are shown (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="smoke test")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--table", action="store_true", help="write the table of the page from the file, no more")
    args = parser.parse_args()
    if args.table:
        PAGE.write_text(between(PAGE.read_text(), table(json.loads(args.out.read_text())), BEGIN, END))
        return
    if args.work is None:
        parser.error("give --work")
    if args.quick:
        args.seeds, args.steps, args.heldout, args.imitation = 1, 2, 4, 10
    measured(args)


if __name__ == "__main__":
    main()
