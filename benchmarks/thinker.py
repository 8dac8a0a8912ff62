"""The thinking model on held-out problems: accuracy by family, level, effort word and thinking length.

Two parts. "efforts": greedy answers without thinking and with each effort word, tokens of thinking beside them.
"curve": with ``reasoning_effort`` high, thinking is closed by force after k tokens, over all turns of a problem. Both
with Wilson's 95 % intervals. Problems are of the held-out side of the split (by hash of what is asked), equal numbers
a family and level.

    python benchmarks/thinker.py [--model FOLDER] [--each 25] [--out benchmarks/results/thinker.json]
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from budgeteer.lab.stats import wilson
from budgeteer.lab.thinker.conversations import FAMILIES, problem
from budgeteer.lab.thinker.evaluate import Asker, ProblemResult
from budgeteer.lab.thinker.problem import Problem
from budgeteer.models.thinker import THINKER

BUDGETS = (0, 8, 16, 32, 64, 96, 128, 192, 256, 384)
"""Tokens of thinking at which it is closed."""
EFFORTS = ("off", "low", "medium", "high", "none")
""""off" = without thinking, "none" = thinking without an effort word."""


def problems(each: int, seed: int) -> list[Problem]:
    """``each`` held-out problems of every family and level, all different."""
    chosen: dict[str, Problem] = {}
    for family, module in FAMILIES.items():
        for level in module.LEVELS:
            wanted, index = len(chosen) + each, 0
            while len(chosen) < wanted:
                drawn = problem(seed, index, "test", family, level)
                chosen.setdefault(drawn.key, drawn)
                index += 1
    return list(chosen.values())


def row(asked: Sequence[ProblemResult], **about: Any) -> dict[str, Any]:
    """One line of the result."""
    share = wilson(sum(answer.right for answer in asked), len(asked))
    return {
        **about,
        "n": share.n,
        "accuracy": round(share.mean, 4),
        "low": round(share.low, 4),
        "high": round(share.high, 4),
        "thought": round(sum(answer.thought for answer in asked) / len(asked), 1),
        "tokens": round(sum(answer.said for answer in asked) / len(asked), 1),
        "forced": round(sum(answer.forced for answer in asked) / len(asked), 4),
        "unanswered": round(sum(answer.answer is None for answer in asked) / len(asked), 4),
    }


def broken_down(asked: Sequence[ProblemResult], of: Sequence[Problem], **about: Any) -> list[dict[str, Any]]:
    """All problems together, by family, and by family and level."""
    rows = [row(asked, **about, family="all", level="all")]
    for family, module in FAMILIES.items():
        mine = [answer for answer, p in zip(asked, of, strict=True) if p.family == family]
        rows.append(row(mine, **about, family=family, level="all"))
        for level in module.LEVELS:
            cell = [answer for answer, p in zip(asked, of, strict=True) if (p.family, p.level) == (family, level)]
            rows.append(row(cell, **about, family=family, level=level))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=THINKER, help="folder (default: the embedded thinking model)")
    parser.add_argument("--each", type=int, default=25, help="problems a family and level (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the problems (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/thinker.json"))
    args = parser.parse_args()
    of, asker, begin = problems(args.each, args.seed), Asker(args.model), time.monotonic()
    results: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "each": args.each,
        "seed": args.seed,
    }
    results["efforts"], results["curve"] = [], []
    for effort in EFFORTS:
        word = effort if effort in ("low", "medium", "high") else ""
        asked = asker.ask(of, thinks=effort != "off", effort=word)
        results["efforts"] += broken_down(asked, of, effort=effort)
        print(json.dumps(row(asked, effort=effort)), flush=True)
    for budget in BUDGETS:
        asked = asker.ask(of, effort="high", budget=budget)
        results["curve"] += broken_down(asked, of, budget=budget)
        print(json.dumps(row(asked, budget=budget)), flush=True)
    results["seconds"] = round(time.monotonic() - begin)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
