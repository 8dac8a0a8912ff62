"""Search by steps on the embedded reasoner at equal budgets of sampled tokens, against voting and against best of n.

    python benchmarks/steps.py            # writes benchmarks/results/steps.json
    python benchmarks/steps.py --quick    # smoke test: 16 questions, 1 seed, writes nothing without --out

300 chains of 1 to 8 steps, 5 seeds, each question with a budget of its own, as ``budgeteer frontier`` runs them (a run
that is stopped goes on: ``--folder``). ``checked`` scores a partial trace by the share of its steps that are right
arithmetic and follow from the question (``benchmarks/search.py``; it does not see the answer), ``logprob`` by the mean
probability of its tokens. The value tree's critic says +0.5 for a last step that is right and -1 for one that is wrong.
Intervals draw questions and seeds; differences are paired.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from budgeteer.budget import Budget
from budgeteer.lab import frontier, questions
from budgeteer.lab.results import write_text
from budgeteer.models.reasoner import Reasoner
from budgeteer.search import beam, best_of_n, dora, rebase, self_consistency, value_tree
from budgeteer.search.score import Scorer, mean_logprob, programmatic
from budgeteer.solve import Strategy, styles
from budgeteer.solve.runner import Pause
from search import steps_hold

OUT = Path(__file__).parent / "results" / "steps.json"
BUDGETS = (192, 384)
CAP, STEP_TOKENS = 96, 16


def last_step(question: str, trace: str) -> float:
    """Whether the last step of a trace is right: +0.5 or -1; 0 of a trace without any."""
    before = trace.rstrip(";").rpartition(";")[0]
    if not trace:
        return 0.0
    return 0.5 if steps_hold(question, trace) > (steps_hold(question, before + ";") if before else 0.0) else -1.0


def strategies() -> dict[str, Strategy]:
    """All that is compared; the first is the reference."""
    step: dict[str, Any] = {"step": ";", "step_tokens": STEP_TOKENS, "temperature": 1.0}
    found = {"self-consistency": self_consistency(32, max_tokens=CAP)}
    scorers: dict[str, Scorer] = {"checked": programmatic(steps_hold), "logprob": mean_logprob()}
    for name, scorer in scorers.items():
        found[f"best-of-n {name}"] = best_of_n(scorer, 32, max_tokens=CAP)
        found[f"rebase {name}"] = rebase(scorer, 8, **step)
        found[f"dora {name}"] = dora(scorer, 8, **step)
        found[f"beam {name}"] = beam(scorer, 8, width=2, **step)
    found["value-tree checked"] = value_tree(programmatic(last_step), 64, answers=2, **step)
    return found


def measure(n: int, seeds: Sequence[int], folder: Path) -> dict[str, Any]:
    """All numbers."""
    asked = questions.load("chains:min_steps=1,max_steps=8", limit=n, seed=77)
    model = Reasoner()
    style = styles.style_of(styles.choose(model, asked.asked), asked.asked)

    def told(cell: frontier.Cell, row: Any, progress: Any) -> None:
        if progress.done == progress.total:
            print(f"{cell.strategy}, {cell.budget}, seed {cell.seed}: {progress.correct} right", file=sys.stderr)

    budgets = [Budget.parse(f"output:{units}") for units in BUDGETS]

    async def work() -> Any:
        try:
            return await frontier.measure(
                strategies(), budgets, seeds, asked, model, style, folder,
                about={"benchmark": "steps"}, concurrency=32, timeout=600, prices=None, durable=False, pause=Pause(),
                on_row=told,
            )  # fmt: skip
        finally:
            await model.aclose()

    found = asyncio.run(work())
    return frontier.analyse(found, "output", {"task": "chains of 1 to 8 steps", "questions": n, "seeds": list(seeds)})


def table(numbers: dict[str, Any]) -> str:
    """The results for people."""
    gain = {(d["a"], d["budget"]): d for d in numbers["differences"]}
    lines = []
    for p in numbers["points"]:
        d = gain.get((p["strategy"], p["budget"]))
        more = f"  {100 * d['mean']:+.1f} [{100 * d['low']:+.1f}, {100 * d['high']:+.1f}]" if d else ""
        lines.append(
            f"{p['strategy']:20} {p['budget']:>10}  used {p['used']['mean']:6.1f}  input {p['tokens']['input']:7.0f}  "
            f"calls {p['calls']:5.1f}  right {100 * p['accuracy']['mean']:5.1f}{more}"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smoke test; the numbers mean nothing")
    parser.add_argument("--folder", type=Path, default=Path("runs/steps"), help="rows so far (default %(default)s)")
    parser.add_argument("--out", type=Path, help=f"results file (default: {OUT.name} beside this file; none if quick)")
    args = parser.parse_args(argv)
    folder = args.folder / "quick" if args.quick else args.folder
    found = measure(16, [0], folder) if args.quick else measure(300, range(5), folder)
    print(table(found))
    out = args.out or (None if args.quick else OUT)
    if out is not None:
        write_text(json.dumps(found, indent=1) + "\n", out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
