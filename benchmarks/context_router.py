"""What a trained router of BudgetMem's tiers keeps of the evidence, against each tier alone: 2WikiMultihopQA.

    python benchmarks/context_router.py DATA.jsonl.gz --encoder FOLDER --tokenizer tokenizer.json
    python benchmarks/context_router.py --table    # writes the table of docs/context.md from the file

The memory is the one of ``context.py``: about 100 candidate sentences a question, in one order. ``low`` keeps what
BM25 finds, ``mid`` what a sentence encoder finds, ``high`` what is high in the sum of both, each standardised over the
sentences. A router reads the question's vector and the mean of the sentences', and is trained on the recall of the
evidence at that budget, with no weight on cost (``thrift=0``, the official script's): five folds of questions, each
routed by a router that was trained on the other four, and five seeds, whose recalls are averaged a question.
``shuffled`` is trained and asked with the states of other questions, which is what the router gains without looking;
``best`` takes for each question the tier that keeps most, with hindsight. ``minus_high`` and ``minus_shuffled`` are
paired differences over questions with 95 % intervals; ``tiers`` are the shares of low, mid and high.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.context import budget_mem
from budgeteer.context.encode import encode_of
from budgeteer.context.protocol import Rerank, counter
from budgeteer.context.tier_router import TIERS, Training, state_of, trained
from budgeteer.core.plan import F64, I64
from budgeteer.lab.stats import mean_ci, paired
from context import BUDGETS, cached, fused, measured, prompt, read_rows, tokens_by
from pages import between

ROOT = Path(__file__).resolve().parents[1]
OUT, PAGE = ROOT / "benchmarks" / "results" / "context_router.json", ROOT / "docs" / "context.md"
FOLDS = SEEDS = 5
TRAINING = Training(thrift=0.0, epochs=30)


def routed(states: F64, recall: F64, seed: int) -> I64:
    """The tier of each question, by a router that was trained on questions of the other folds.

    Args:
        states: [n, d].
        recall: [n, tiers] what each tier keeps of a question's evidence.
        seed: of folds and training.
    """
    fold = np.random.default_rng([seed, 16]).permutation(len(states)) % FOLDS
    found = np.zeros(len(states), np.int64)
    for number in range(FOLDS):
        known, new = np.flatnonzero(fold != number), np.flatnonzero(fold == number)

        def play(question: int, tiers: I64, known: I64 = known) -> tuple[float, float]:
            return float(recall[known[question], tiers[0]]), 0.0

        router = trained(states[known][:, None], play, TRAINING, seed)
        found[new] = router.tiers(states[new][:, None])[:, 0]
    return found


def row_of(budget: int, recall: F64, states: F64) -> dict[str, Any]:
    """What is said of a budget."""
    n = np.arange(len(recall))
    chosen = [routed(states, recall, seed) for seed in range(SEEDS)]
    others = [routed(np.random.default_rng([seed, 17]).permutation(states), recall, seed) for seed in range(SEEDS)]
    each = {name: recall[:, place] for place, name in enumerate(TIERS)}
    each |= {"best": recall.max(axis=1)}
    for name, picked in (("trained", chosen), ("shuffled", others)):
        each[name] = np.mean([recall[n, tiers] for tiers in picked], axis=0)
    row: dict[str, Any] = {"budget": budget}
    for name, values in each.items():
        mean = mean_ci(values)
        row[name] = [mean.mean, mean.low, mean.high]
    row["tiers"] = np.mean([np.bincount(tiers, minlength=len(TIERS)) / len(n) for tiers in chosen], axis=0).tolist()
    for rival in ("high", "shuffled"):
        less = paired(each["trained"], each[rival])
        row[f"minus_{rival}"] = [less.mean, less.low, less.high]
    return row


def remembered(rerank: Rerank) -> Rerank:
    """A reranker that looks at a question's texts once: they are the same at every budget."""
    known: dict[str, F64] = {}

    def read(question: str, texts: Sequence[str]) -> F64:
        if question not in known:
            known[question] = rerank(question, texts)
        return known[question]

    return read


BEGIN, END = "<!-- written by benchmarks/context_router.py --table -->", "<!-- end of context_router -->"


def table(rows: list[dict[str, Any]]) -> str:
    """A row a budget, in per cent, as Markdown."""

    def cell(values: list[float], sign: str = "") -> str:
        return "{:{s}.0f} [{:{s}.0f}, {:{s}.0f}]".format(*(100 * value for value in values), s=sign)

    lines = [
        "| tokens | `low` | `mid` | `high` | trained | trained minus `high` | minus shuffled | best with hindsight |"
    ]
    lines.append("|---" * 8 + "|")
    for row in rows:
        cells = [cell(row[name]) for name in (*TIERS, "trained")]
        cells += [cell(row["minus_high"], "+"), cell(row["minus_shuffled"], "+"), f"{100 * row['best'][0]:.0f}"]
        lines.append(f"| {row['budget']:,} | " + " | ".join(cells) + " |")
    return "\n\n" + "\n".join(lines) + "\n\n"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--table", action="store_true", help="write the table of the page from the file, no more")
    parser.add_argument("--encoder", default="words", help="folder or name of a sentence encoder, or words")
    parser.add_argument("--tokenizer", default=None, help="a tokenizer.json; default: words")
    parser.add_argument("--budgets", type=int, nargs="+", default=BUDGETS)
    parser.add_argument("--limit", type=int, default=None, help="first questions only")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    if args.table:
        rows = json.loads(args.out.read_text(encoding="utf-8"))["rows"]
        PAGE.write_text(between(PAGE.read_text(encoding="utf-8"), table(rows), BEGIN, END), encoding="utf-8")
        return
    if args.data is None:
        parser.error("give DATA, or --table")
    questions = read_rows(args.data)[: args.limit]
    count, encode = counter(tokens_by(args.tokenizer)), cached(encode_of("benchmark", args.encoder))
    both = remembered(fused(encode))
    prompts = [prompt(row, 0, place) for place, row in enumerate(questions)]
    vectors = [
        encode([row["question"], *messages[1]["content"].splitlines()])
        for row, messages in zip(questions, prompts, strict=True)
    ]
    states = np.array([state_of(one[0], one[1:]) for one in vectors])
    rows = []
    for budget in args.budgets:
        recall = np.zeros((len(questions), len(TIERS)))
        for place, tier in enumerate(TIERS):
            reduce = budget_mem(encode, both, tier)
            for i, (row, messages) in enumerate(zip(questions, prompts, strict=True)):
                recall[i, place] = measured(row, reduce(messages, budget, count), count)["recall"]
        rows.append(row_of(budget, recall, states))
        print(rows[-1], flush=True)
        about = {"questions": len(questions), "folds": FOLDS, "seeds": SEEDS, "encoder": Path(args.encoder).parent.name}
        args.out.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
