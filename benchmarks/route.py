"""Routes on tables of real models: score above the best mix of single models at the same dollars, on held-out requests.

    python benchmarks/route.py FOLDER            # writes benchmarks/results/route.json
    python benchmarks/route.py FOLDER --quick    # smoke test: few rows and splits, writes nothing without --out

FOLDER has routellm_gsm8k_mmlu (RouteLLM's evaluation, Apache 2.0: Mixtral-8x7B and GPT-4 on GSM8K and MMLU) and
llmrouter_scores (LLMRouter, MIT: nine open models on 14 tasks). Three tables are made of them:

- ``gsm8k``: prompts; output tokens are a quarter of the characters of the recorded answers; the cascade's signal is the
  length of Mixtral's answer;
- ``mmlu``: every third question; whole subjects are held out; of the questions only their lengths are there; an answer
  counts as 5 tokens;
- ``llmrouter``: whole tasks are held out; lengths and words of the questions; an answer counts as 250 tokens. The
  questions that stand in both parts of the source are dropped. ``llmrouter-rows`` holds out questions of the same
  tasks, and the task is a feature.

Prices in dollars a million tokens: Mixtral 0.24 in and out, GPT-4 10 and 30, those of llmrouter as its source has them.
``shuffled`` is the classifier on features of other requests: what is above the mix there is chance. ``task alone`` and
``length alone`` are the classifier with that one feature: what a table of the best model by task, or a threshold on the
length, would do.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.lab.routing import Row, measure
from budgeteer.route.table import Table

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "results" / "route.json"
MIXTRAL, GPT4 = (0.24e-6, 0.24e-6), (10e-6, 30e-6)
SHARES = (0.1, 0.25, 0.5, 0.75)
METHODS = ("similarity", "classifier", "bandit", "pareto-bandit", "boundary")


def dollars(read: Any, written: Any, price: tuple[float, float]) -> Any:
    """Of characters read and written, four a token."""
    return np.asarray(read) / 4 * price[0] + np.asarray(written) / 4 * price[1]


def gsm8k(folder: Path) -> Table:
    """Mixtral and GPT-4 on GSM8K."""
    with gzip.open(folder / "routellm_gsm8k_mmlu/gsm8k.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    prompts = tuple(row["prompt"] for row in rows)
    read = [len(prompt) for prompt in prompts]
    written = [[row[f"{name}_response_chars"] for row in rows] for name in ("mixtral", "gpt4")]
    score = np.array([[row["mixtral_correct"], row["gpt4_correct"]] for row in rows], np.float64)
    cost = np.stack([dollars(read, written[0], MIXTRAL), dollars(read, written[1], GPT4)], axis=1)
    signal = np.stack([np.array(written[0], np.float64), np.full(len(rows), np.nan)], axis=1)
    return Table(("mixtral", "gpt4"), score, cost, signal, {"prompt": prompts})


def mmlu(folder: Path) -> Table:
    """Mixtral and GPT-4 on MMLU."""
    with gzip.open(folder / "routellm_gsm8k_mmlu/mmlu.csv.gz", "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[::3]
    read = np.array([float(row["prompt_chars"]) for row in rows])
    score = np.array([[float(row["mixtral_correct"]), float(row["gpt4_correct"])] for row in rows])
    cost = np.stack([dollars(read, 20, MIXTRAL), dollars(read, 20, GPT4)], axis=1)
    fields = {"subject": tuple(row["subject"] for row in rows), "log_chars": tuple(np.log(read).tolist())}
    return Table(("mixtral", "gpt4"), score, cost, np.full(score.shape, np.nan), fields)


def llmrouter(folder: Path) -> Table:
    """Nine open models on 14 tasks."""
    prices = json.loads((folder / "llmrouter_scores/model_prices.json").read_text())
    with gzip.open(folder / "llmrouter_scores/scores.csv.gz", "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    seen: set[str] = set()
    rows = [row for row in rows if not (row["question_sha1"] in seen or seen.add(row["question_sha1"]))]  # type: ignore[func-returns-value]
    about = {"split", "row", "task", "question_sha1", "question_chars", "question_words"}
    models = tuple(name for name in rows[0] if name not in about)
    chars = np.array([float(row["question_chars"]) for row in rows])
    words = np.array([float(row["question_words"]) for row in rows])
    score = np.clip([[float(row[name]) for name in models] for row in rows], 0, 1)
    cost = np.stack(
        [dollars(chars, 1000, (prices[m]["input_price"] * 1e-6, prices[m]["output_price"] * 1e-6)) for m in models],
        axis=1,
    )
    fields = {
        "task": tuple(row["task"] for row in rows),
        "log_chars": tuple(np.log1p(chars).tolist()),
        "log_words": tuple(np.log1p(words).tolist()),
        "word_length": tuple((chars / np.maximum(words, 1)).tolist()),
    }
    return Table(models, score, cost, np.full(score.shape, np.nan), fields)


def shuffled(table: Table, group: str | None) -> Table:
    """Every request with the features of another one; its group, its cost and its scores stay."""
    order = np.random.default_rng(0).permutation(len(table))
    fields = {
        name: values if name == group else tuple(values[i] for i in order) for name, values in table.fields.items()
    }
    return Table(table.models, table.score, table.cost, table.signal, fields)


def rows_of(table: Table, methods: Sequence[str], splits: int, group: str | None, name: str) -> list[dict[str, Any]]:
    """Measure, and print a row each."""

    def tell(row: Row) -> None:
        change = f"{100 * row.gain:+5.1f} [{100 * row.low:+.1f}, {100 * row.high:+.1f}]"
        print(f"{name:10} {row.method:16} {row.share:4.0%} {row.cost:9.3g} {row.score:6.1%} {change}", flush=True)

    return [row.to_json() for row in measure(table, methods, SHARES, count=splits, group=group, tell=tell)]


def alone(table: Table) -> tuple[str, Table]:
    """The table with the plainest feature that it has, and a name for it."""
    if "prompt" in table.fields:
        fields: dict[str, tuple[Any, ...]] = {
            "log_chars": tuple(math.log1p(len(text)) for text in table.fields["prompt"])
        }
        return "length alone", Table(table.models, table.score, table.cost, table.signal, fields)
    return "task alone", Table(table.models, table.score, table.cost, table.signal, {"task": table.fields["task"]})


READERS: dict[str, tuple[Callable[[Path], Table], str | None]] = {
    "gsm8k": (gsm8k, None),
    "mmlu": (mmlu, "subject"),
    "llmrouter": (llmrouter, "task"),
    "llmrouter-rows": (llmrouter, None),
}
"""Name -> how the table is read, and the column whose values are held out whole; None = rows."""
TABLES = list(READERS)


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    splits = 2 if args.quick else args.splits
    found: dict[str, Any] = {"splits": splits, "tables": {}}
    out = args.out or (None if args.quick else OUT)
    if out is not None and out.exists() and args.tables != TABLES:
        found = json.loads(out.read_text())  # the other tables stay
    for name in args.tables:
        read, group = READERS[name]
        table = read(args.folder)
        if args.quick:
            table = table.take(np.arange(0, len(table), len(table) // 150))
        methods = [*METHODS, "cascade"] if name == "gsm8k" else list(METHODS)
        rows = rows_of(table, methods, splits, group, name)
        rows += [
            {**row, "method": "shuffled"}
            for row in rows_of(shuffled(table, group), ["classifier"], splits, group, f"{name} shuffled")
        ]
        if group is None:
            method, plain = alone(table)
            rows += [{**row, "method": method} for row in rows_of(plain, ["classifier"], splits, None, f"{name} alone")]
        models = {
            model: {"score": float(score), "dollars": float(cost)}
            for model, score, cost in zip(table.models, table.score.mean(axis=0), table.cost.mean(axis=0), strict=True)
        }
        found["tables"][name] = {"requests": len(table), "held out": group or "rows", "models": models, "rows": rows}
        if out is not None:
            out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
