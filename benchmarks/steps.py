"""Search by steps on the embedded reasoner at equal budgets: against greedy decoding, voting, and the same check alone.

    python benchmarks/steps.py               # writes benchmarks/results/steps.json
    python benchmarks/steps.py --only all    # renews one part of it: output or all
    python benchmarks/steps.py --quick       # smoke test: 16 questions, 1 seed, writes nothing without --out

300 chains of 1 to 8 steps, 5 seeds, each question with a budget of its own, as ``budgeteer frontier`` runs them (a run
that is stopped goes on: ``--folder``). Part ``output`` counts sampled tokens only; part ``all`` counts what is read,
too, and a search by steps reads its prompt and its path again for every step. ``checked`` scores a partial trace by the
share of its steps that are right arithmetic and follow from the question (``benchmarks/search.py``; it does not see the
answer), ``logprob`` by the mean probability of its tokens. The value tree's critic says +0.5 for a last step that is
right and -1 for one that is wrong. ``greedy first, checked`` is the check alone: the greedy trace if it passes, else
samples until one does, else the greedy trace; ``best-of-n checked`` stops at the first that passes, too.
Intervals draw questions and seeds; differences are paired, to each strategy of ``REFERENCES``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from budgeteer.core.budget import Budget
from budgeteer.lab import frontier, questions
from budgeteer.lab.results import write_text
from budgeteer.models.reasoner import Reasoner
from budgeteer.solve import Strategy, styles
from budgeteer.solve.runner import Pause
from budgeteer.strategies import (
    beam,
    best_of_n,
    dora,
    rebase,
    self_consistency,
    value_tree,
)
from budgeteer.strategies.scorer import Scorer, mean_logprob, programmatic
from search import greedy_first, passes, steps_hold

OUT = Path(__file__).parent / "results" / "steps.json"
BUDGETS = {"output": (192, 384), "all": (1024,)}
REFERENCES = ("greedy", "self-consistency", "greedy first, checked", "best-of-n checked")
CAP, STEP_TOKENS, MOST = 96, 16, 32


def last_step(question: str, trace: str) -> float:
    """Whether the last step of a trace is right: +0.5 or -1; 0 of a trace without any."""
    before = trace.rstrip(";").rpartition(";")[0]
    if not trace:
        return 0.0
    return 0.5 if steps_hold(question, trace) > (steps_hold(question, before + ";") if before else 0.0) else -1.0


def strategies(kind: str) -> dict[str, Strategy]:
    """All that is compared on budgets of a kind; what is behind on sampled tokens is not run again with all counted."""
    step: dict[str, Any] = {"step": ";", "step_tokens": STEP_TOKENS, "temperature": 1.0}
    compared = {
        "greedy": self_consistency(1, max_tokens=CAP, temperature=0.0),
        "self-consistency": self_consistency(MOST, max_tokens=CAP),
        "greedy first, checked": greedy_first(passes, MOST, max_tokens=CAP),
        "best-of-n checked": best_of_n(programmatic(steps_hold), MOST, max_tokens=CAP, enough=1.0),
    }
    if kind == "output":
        compared["best-of-n logprob"] = best_of_n(mean_logprob(), MOST, max_tokens=CAP)
    scorers: dict[str, Scorer] = {"checked": programmatic(steps_hold)}
    scorers |= {"logprob": mean_logprob()} if kind == "output" else {}
    for name, scorer in scorers.items():
        compared[f"rebase {name}"] = rebase(scorer, 8, **step)
        if kind == "output":
            compared[f"dora {name}"] = dora(scorer, 8, **step)
            compared[f"beam {name}"] = beam(scorer, 8, width=2, **step)
    compared["value-tree checked"] = value_tree(programmatic(last_step), 64, answers=2, **step)
    return compared


def measure(kind: str, n: int, seeds: Sequence[int], folder: Path) -> dict[str, Any]:
    """All numbers of a part."""
    asked = questions.load("chains:min_steps=1,max_steps=8", limit=n, seed=77)
    model = Reasoner()
    style = styles.style_of(styles.choose(model, asked.info), asked.info.by(model))

    def told(cell: frontier.Cell, row: Any, progress: Any) -> None:
        if progress.done == progress.total:
            print(f"{cell.strategy}, {cell.budget}, seed {cell.seed}: {progress.correct} right", file=sys.stderr)

    budgets = [Budget.parse(f"{kind}:{units}") for units in BUDGETS[kind]]

    async def work() -> Any:
        try:
            return await frontier.measure(
                strategies(kind), budgets, seeds, asked, model, style, folder,
                about={"benchmark": "steps"}, concurrency=32, timeout=600, prices=None, durable=False, pause=Pause(),
                on_row=told,
            )  # fmt: skip
        finally:
            await model.aclose()

    cells = asyncio.run(work())
    config = {"task": "chains of 1 to 8 steps", "questions": n, "seeds": list(seeds)}
    results = frontier.analyse(cells, kind, config)
    for reference in REFERENCES[1:]:  # the first strategy is what differences are taken to
        first = dict(sorted(cells.items(), key=lambda pair: pair[0].strategy != reference))
        results["differences"] += frontier.analyse(first, kind, config)["differences"]
    return results


def table(numbers: dict[str, Any]) -> str:
    """The results for people: a line a strategy, its differences to each reference below."""
    lines = []
    for p in numbers["points"]:
        tokens, used, right = p["tokens"], p["used"]["mean"], 100 * p["accuracy"]["mean"]
        lines.append(
            f"{p['strategy']:22} {p['budget']:>10}  used {used:6.1f}  output {tokens['output']:5.0f}  "
            f"input {tokens['input']:5.0f}  calls {p['calls']:5.1f}  right {right:5.1f}"
        )
        lines += [
            f"    minus {d['b']:22} {100 * d['mean']:+5.1f} [{100 * d['low']:+.1f}, {100 * d['high']:+.1f}]"
            for d in numbers["differences"]
            if (d["a"], d["budget"]) == (p["strategy"], p["budget"])
        ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smoke test; the numbers mean nothing")
    parser.add_argument("--only", choices=tuple(BUDGETS), help="measure one part; the file's other part stays as it is")
    parser.add_argument("--folder", type=Path, default=Path("runs/steps"), help="rows so far (default %(default)s)")
    parser.add_argument("--out", type=Path, help=f"results file (default: {OUT.name} beside this file; none if quick)")
    args = parser.parse_args(argv)
    folder = args.folder / "quick" if args.quick else args.folder
    out = args.out or (None if args.quick else OUT)
    results: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if args.only and out is not None else {}
    for kind in BUDGETS if args.only is None else (args.only,):
        results[kind] = measure(kind, 16, [0], folder) if args.quick else measure(kind, 300, range(5), folder)
        print(table(results[kind]))
    if out is not None:
        write_text(json.dumps(results, indent=1) + "\n", out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
