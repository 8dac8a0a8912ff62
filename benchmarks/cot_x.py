"""Reasoning that is handed over: importance beside the beginning and the end of a trace, at equal tokens.

    python benchmarks/cot_x.py            # writes benchmarks/results/cot_x.json (minutes on one core)
    python benchmarks/cot_x.py --quick    # smoke test: a few questions, writes nothing without --out

Greedy traces of the embedded reasoner for 200 sums of 3 to 6 steps are shortened to 6, 12, 18 or 24 of its tokens and
handed to the reasoner again, which answers at once (``more`` 0) or thinks on (64). Compared with ``first`` and ``last``
(truncation), with nothing handed over, and with the whole trace. Source and target are one model here, as the package
has no two models that were trained on one task: this measures the shortening alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.lab import questions
from budgeteer.lab.asking import STYLE, Case, solve_each
from budgeteer.lab.results import write_text
from budgeteer.lab.stats import mean_ci, paired
from budgeteer.models.load import load_model
from budgeteer.solve import Strategy, derive
from budgeteer.strategies import cot_x, self_consistency

OUT = Path(__file__).parent / "results" / "cot_x.json"


def measured(limit: int) -> dict[str, Any]:
    """Everything that is written."""
    asked, model = questions.load("chains:min_steps=3,max_steps=6", limit=limit, seed=5), load_model("reasoner")

    def run(strategy: Strategy) -> tuple[np.ndarray, list[str], float]:
        cases = [Case(question, derive(0, question.id)) for question in asked.questions]
        found = solve_each(strategy, model, cases, STYLE, kind="output", budget=512)
        right = [asked.grade(q, answer.answer) for q, (answer, _) in zip(asked.questions, found, strict=True)]
        used = float(np.mean([spend.usage.output or 0 for _, spend in found]))
        return np.array(right, float), [answer.traces[0] for answer, _ in found], used

    whole, traces, used = run(self_consistency(1, temperature=0.0, max_tokens=256))
    known = {question.id: trace for question, trace in zip(asked.questions, traces, strict=True)}
    known = {key: trace.split("</think>")[0] for key, trace in known.items()}
    rows = [{"keep": "greedy, nothing handed over", "right": asdict(mean_ci(whole)), "output": used}]
    for more in (0, 64):
        for tokens in (0, 6, 12, 18, 24, 256):
            arms = {
                keep: run(cot_x(known, tokens, more, keep))  # type: ignore[arg-type]
                for keep in ("important", "first", "last")
            }
            for keep, (right, _, output) in arms.items():
                row = {"more": more, "tokens": tokens, "keep": keep, "right": asdict(mean_ci(right)), "output": output}
                if keep != "important":
                    row["important_minus_keep"] = asdict(paired(arms["important"][0], right))
                rows.append(row)
                sys.stderr.write(
                    f"more {more:2}, {tokens:3} tokens, {keep:9} {right.mean():.3f}, {output:.1f} sampled\n"
                )
    mean = float(np.mean([model.count(trace) for trace in known.values()]))
    return {"command": "python benchmarks/cot_x.py", "questions": limit, "tokens_of_a_trace": mean, "rows": rows}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    found = measured(6 if args.quick else 200)
    out = args.out or (None if args.quick else OUT)
    if out is not None:
        write_text(json.dumps(found, indent=1) + "\n", out)


if __name__ == "__main__":
    main()
