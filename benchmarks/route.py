"""Routes on tables of real models: score above the best mix of single models at the same dollars, on held-out requests.

    python benchmarks/route.py FOLDER            # writes benchmarks/results/route.json
    python benchmarks/route.py FOLDER --quick    # smoke test: few rows and splits, writes nothing without --out
    python benchmarks/route.py --markdown        # the tables of docs/route.md, from benchmarks/results/route.json

FOLDER has routellm_gsm8k_mmlu (RouteLLM's evaluation, Apache 2.0: Mixtral-8x7B and GPT-4 on GSM8K and MMLU),
llmrouter_scores (LLMRouter, MIT: nine open models on 14 tasks) and gsm8k_model_solutions (OpenAI, MIT: GPT-3 of 6B and
175B parameters on GSM8K, fine-tuned or with a verifier). Three tables are made of the first two:

- ``gsm8k``: prompts; output tokens are a quarter of the characters of the recorded answers; the cascade's signal is the
  length of Mixtral's answer;
- ``mmlu``: every third question; whole subjects are held out; of the questions only their lengths are there; an answer
  counts as 5 tokens;
- ``llmrouter``: whole tasks are held out; lengths and words of the questions; an answer counts as 250 tokens. The
  questions that stand in both parts of the source are dropped. ``llmrouter-rows`` holds out questions of the same
  tasks, and the task is a feature.

Five more hold out models, or a task together with its source:

- ``gsm8k-mmlu``: learnt on MMLU, measured on GSM8K, and ``mmlu-gsm8k`` the other way; lengths of the prompts alone,
  since that is all that both have. The models are the same two.
- ``new-models``: a cheap and a dear model of llmrouter that nothing was learnt from, all 18 pairs, a split each. Their
  prices are known; their scores in the training rows are the means of the other models at such a price (0.1 or 0.2
  dollars, and 0.9). Task and lengths are features, and other questions of the same tasks are held out.
  ``new-models-tasks`` holds out whole tasks, too, and has lengths alone. ``own scores`` is the classifier on the two
  models' own scores, which a table of them would give.

- ``new-models-prompts``: the same on the prompts of GSM8K, which six models answered: RouteLLM's two and the four of
  gsm8k_model_solutions. The three that are right least often count as cheap, at the price of Mixtral, the others as
  dear, at that of GPT-4, with answers of 60 tokens: the six have no common list of prices, so these are made up. All 9
  pairs, a split each. Prompts are the features; ``length alone`` is the classifier with their lengths.

Prices in dollars a million tokens: Mixtral 0.24 in and out, GPT-4 10 and 30, those of llmrouter as its source has them.
``shuffled`` is the classifier on features of other requests: what is above the mix there is chance. ``task alone`` and
``length alone`` are the classifier with that one feature: what a table of the best model by task, or a threshold on the
length, would do.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.core import registry
from budgeteer.core.plan import I64
from budgeteer.lab.routing import Row, corrected, measure
from budgeteer.route.evaluate import Point, evaluate, splits
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


def six(folder: Path) -> Table:
    """Six models on GSM8K, three of them cheap by decree."""
    two = gsm8k(folder)
    with gzip.open(folder / "gsm8k_model_solutions/solutions.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    for prompt, row in zip(two.fields["prompt"], rows, strict=True):
        assert hashlib.sha1(prompt.encode()).hexdigest() == row["question_sha1"], f"another question: {prompt[:60]}"
    names = [name for name, value in rows[0].items() if isinstance(value, dict)]
    more = [[float(row[name]["is_correct"]) for name in names] for row in rows]
    models, score = (*two.models, *names), np.concatenate([two.score, more], axis=1)
    read = [len(prompt) for prompt in two.fields["prompt"]]
    prices = [MIXTRAL if place < len(models) // 2 else GPT4 for place in np.argsort(np.argsort(score.mean(axis=0)))]
    cost = np.stack([dollars(read, 240, price) for price in prices], axis=1)
    return Table(models, score, cost, np.full(score.shape, np.nan), two.fields)


def shuffled(table: Table, group: str | None) -> Table:
    """Every request with the features of another one; its group, its cost and its scores stay."""
    order = np.random.default_rng(0).permutation(len(table))
    fields = {
        name: values if name == group else tuple(values[i] for i in order) for name, values in table.fields.items()
    }
    return Table(table.models, table.score, table.cost, table.signal, fields)


def rows_of(table: Table, methods: Sequence[str], count: int, group: str | None, name: str) -> list[dict[str, Any]]:
    """Measure, and print a row each."""

    def tell(row: Row) -> None:
        change = interval(row.to_json())
        print(f"{name:10} {row.method:16} {row.share:4.0%} {row.cost:9.3g} {row.score:6.1%} {change}", flush=True)

    return [row.to_json() for row in measure(table, methods, SHARES, count=count, group=group, tell=tell)]


def alone(table: Table) -> tuple[str, Table]:
    """The table with the plainest feature that it has, and a name for it."""
    if "prompt" in table.fields:
        fields: dict[str, tuple[Any, ...]] = {
            "log_chars": tuple(math.log1p(len(text)) for text in table.fields["prompt"])
        }
        return "length alone", Table(table.models, table.score, table.cost, table.signal, fields)
    return "task alone", Table(table.models, table.score, table.cost, table.signal, {"task": table.fields["task"]})


def lengths(table: Table) -> Table:
    """The table with the length of its prompts alone."""
    fields = table.fields
    chars = fields["log_chars"] if "log_chars" in fields else tuple(math.log(len(text)) for text in fields["prompt"])
    return Table(table.models, table.score, table.cost, np.full(table.score.shape, np.nan), {"log_chars": chars})


def joined(first: Table, second: Table) -> Table:
    """The rows of two tables of the same models and columns, one below the other."""
    fields = {name: (*values, *second.fields[name]) for name, values in first.fields.items()}
    parts = [np.concatenate(pair) for pair in zip(_numbers(first), _numbers(second), strict=True)]
    return Table(first.models, *parts, fields)


def _numbers(table: Table) -> tuple[Any, Any, Any]:
    return table.score, table.cost, table.signal


Split = tuple[Table, I64, I64]
"""A table, the rows to learn from, and the rows to measure on."""


def other_task(source: Table, target: Table, count: int) -> list[Split]:
    """Learn on two thirds of one table, measure on a third of another, ``count`` times."""
    both = joined(lengths(source), lengths(target))
    parts = zip(splits(source, count, None, 0), splits(target, count, None, 1), strict=True)
    return [(both, train, len(source) + heldout) for (train, _), (_, heldout) in parts]


def new_models(table: Table, group: str | None, own: bool = False, most: int | None = None) -> list[Split]:
    """A split a pair of a cheap and a dear model; in its training rows the pair has the scores of other models.

    Args:
        table: of all models, at two kinds of price: the dearest, and those below.
        group: column whose values are held out whole; None = rows.
        own: whether the pair keeps its own scores.
        most: pairs that are taken; None = all.
    """
    cost = table.cost.mean(axis=0)
    dear = cost > cost.max() * 0.99
    sides = [np.flatnonzero(~dear), np.flatnonzero(dear)]
    pairs = [(a, b) for b in sides[1] for a in sides[0]][:most]
    made: list[Split] = []
    for pair, (train, heldout) in zip(pairs, splits(table, len(pairs), group, 0), strict=True):
        score = table.score[:, list(pair)]
        if not own:
            for place, (model, side) in enumerate(zip(pair, sides, strict=True)):
                score[train, place] = table.score[np.ix_(train, side[side != model])].mean(axis=1)
        names = tuple(table.models[model] for model in pair)
        made.append(
            (Table(names, score, table.cost[:, list(pair)], table.signal[:, list(pair)], table.fields), train, heldout)
        )
    return made


def measured(parts: Sequence[Split], methods: Sequence[str], without: Sequence[str], name: str) -> list[dict[str, Any]]:
    """Score above the mix of the models that are routed, over splits that each have a table; a row a method and budget.

    ``above`` is the share of the splits in which it is above 0.
    """
    found: list[dict[str, Any]] = []
    for method in methods:
        route = registry.part_of("route", method)
        points: list[list[Point]] = [
            evaluate(route, table, train, heldout, SHARES, without=without, seed=number)
            for number, (table, train, heldout) in enumerate(parts)
        ]
        for place, share in enumerate(SHARES):
            each = [point[place] for point in points]
            gain, low, high = corrected([point.gain for point in each])
            row: dict[str, Any] = {"method": method, "share": share, "gain": gain, "low": low, "high": high}
            for field in ("budget", "cost", "score", "hull"):
                row[field] = float(np.mean([getattr(point, field) for point in each]))
            row["above"] = float(np.mean([point.gain > 0 for point in each]))
            found.append(row)
            print(f"{name:16} {method:14} {share:4.0%} {row['score']:6.1%} {interval(row)}", flush=True)
    return found


def named(rows: Sequence[dict[str, Any]], method: str) -> list[dict[str, Any]]:
    """The rows under another name."""
    return [{**row, "method": method} for row in rows]


def transfer(name: str, folder: Path, count: int, quick: bool) -> dict[str, Any]:
    """One of the tables that hold out models, or a task with its source."""

    def read(reader: Callable[[Path], Table]) -> Table:
        table = reader(folder)
        return table.take(np.arange(0, len(table), len(table) // 150)) if quick else table

    if name in ("gsm8k-mmlu", "mmlu-gsm8k"):
        source, target = (read(mmlu), read(gsm8k)) if name == "gsm8k-mmlu" else (read(gsm8k), read(mmlu))
        rows = measured(other_task(source, target, count), METHODS, [], name)
        chance = measured(other_task(shuffled(lengths(source), None), target, count), ["classifier"], [], name)
        return {"requests": len(target), "held out": "task and source", "rows": [*rows, *named(chance, "shuffled")]}
    prompts = name == "new-models-prompts"
    table = read(six if prompts else llmrouter)
    group = "task" if name == "new-models-tasks" else None
    without, most = ["task"] if group else [], 2 if quick else None
    rows = measured(new_models(table, group, most=most), METHODS, without, name)
    rows += named(measured(new_models(table, group, True, most), ["classifier"], without, name), "own scores")
    mixed = shuffled(table, group)
    rows += named(measured(new_models(mixed, group, most=most), ["classifier"], without, name), "shuffled")
    if prompts:
        method, plain = alone(table)
        rows += named(measured(new_models(plain, group, most=most), ["classifier"], without, name), method)
    held_out = "models and tasks" if group else "models and questions"
    return {"requests": len(table), "held out": held_out, "rows": rows}


def interval(row: Mapping[str, Any]) -> str:
    """Points above the mix, with the interval.

    >>> interval({"gain": 0.012, "low": -0.001, "high": 0.03})
    '+1.2 [-0.1, +3.0]'
    """
    return f"{100 * row['gain']:+.1f} [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"


TITLES = {
    "gsm8k": "GSM8K, prompts",
    "mmlu": "MMLU, lengths; new subjects",
    "llmrouter": "14 tasks, lengths; new tasks",
    "llmrouter-rows": "14 tasks, task and lengths; new questions",
    "gsm8k-mmlu": "GSM8K, learnt on MMLU; lengths",
    "mmlu-gsm8k": "MMLU, learnt on GSM8K; lengths",
    "new-models": "new models, new questions; task and lengths",
    "new-models-tasks": "new models, new tasks; lengths",
    "new-models-prompts": "GSM8K, new models, new questions; prompts",
}


def markdown(found: Mapping[str, Any]) -> str:
    """A table with a row a route, of all that was measured."""
    lines = ["| table | route | " + " | ".join(f"{share:.0%}" for share in SHARES) + " |", "|---" * 6 + "|"]
    for name, title in TITLES.items():
        rows = found["tables"].get(name, {"rows": []})["rows"]
        for method in dict.fromkeys(row["method"] for row in rows):
            cells = [interval(row) for row in rows if row["method"] == method]
            lines.append(f"| {title} | `{method}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


READERS: dict[str, tuple[Callable[[Path], Table], str | None]] = {
    "gsm8k": (gsm8k, None),
    "mmlu": (mmlu, "subject"),
    "llmrouter": (llmrouter, "task"),
    "llmrouter-rows": (llmrouter, None),
}
"""Name -> how the table is read, and the column whose values are held out whole; None = rows."""
TRANSFERS = ("gsm8k-mmlu", "mmlu-gsm8k", "new-models", "new-models-tasks", "new-models-prompts")
TABLES = [*READERS, *TRANSFERS]


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--markdown", action="store_true", help="print the tables of the page, and nothing else")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    if args.markdown:
        print(markdown(json.loads((args.out or OUT).read_text(encoding="utf-8"))))
        return
    if args.folder is None:
        parser.error("give FOLDER, or --markdown")
    count = 2 if args.quick else args.splits
    found: dict[str, Any] = {"splits": count, "tables": {}}
    out = args.out or (None if args.quick else OUT)
    if out is not None and out.exists() and args.tables != TABLES:
        found = json.loads(out.read_text())  # the other tables stay
    for name in args.tables:
        if name in TRANSFERS:
            found["tables"][name] = transfer(name, args.folder, count, args.quick)
            if out is not None:
                out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            continue
        read, group = READERS[name]
        table = read(args.folder)
        if args.quick:
            table = table.take(np.arange(0, len(table), len(table) // 150))
        methods = [*METHODS, "cascade"] if name == "gsm8k" else list(METHODS)
        rows = rows_of(table, methods, count, group, name)
        rows += [
            {**row, "method": "shuffled"}
            for row in rows_of(shuffled(table, group), ["classifier"], count, group, f"{name} shuffled")
        ]
        if group is None:
            method, plain = alone(table)
            rows += [{**row, "method": method} for row in rows_of(plain, ["classifier"], count, None, f"{name} alone")]
        models = {
            model: {"score": float(score), "dollars": float(cost)}
            for model, score, cost in zip(table.models, table.score.mean(axis=0), table.cost.mean(axis=0), strict=True)
        }
        found["tables"][name] = {"requests": len(table), "held out": group or "rows", "models": models, "rows": rows}
        if out is not None:
            out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
