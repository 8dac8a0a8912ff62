"""What CARROT's configuration agent keeps of the evidence, against one setting for all questions: 2WikiMultihopQA.

    python benchmarks/context_agent.py DATA.jsonl.gz --encoder FOLDER --tokenizer tokenizer.json
    python benchmarks/context_agent.py --table    # writes the table of docs/context.md from the file

The memory is the one of ``context.py``: about 100 candidate sentences a question, in one order. Every question is
searched with every setting: by words (TF-IDF of the joined text) or by the mean of its sentences' vectors, each with
explore 1 or 4, 10 or 30 iterations, and frugality 0, 0.2 or 1. ``default`` is ``carrot``'s own numbers by the
sentences' vectors. An agent reads the question's vector and is trained on the recall of the evidence: five folds of
questions, each set by an agent that was trained on the other four, and five seeds, whose recalls are averaged a
question; counted is the measured setting that is nearest to what the agent names. ``one`` is the single setting that
was best on those four, ``shuffled`` an agent trained and asked with the vectors of other questions, ``best`` the
setting that keeps most of a question, with hindsight. ``minus_one`` and ``minus_shuffled`` are paired differences over
questions with 95 % intervals; ``words`` is the share of questions searched by words.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.context import carrot
from budgeteer.context.encode import cosine, encode_of, words
from budgeteer.context.protocol import Rerank, counter
from budgeteer.context.search_agent import Setting, trained
from budgeteer.core.plan import F64
from budgeteer.lab.stats import mean_ci, paired
from context import cached, mean_of_lines, measured, prompt, read_rows, tokens_by
from pages import between

ROOT = Path(__file__).resolve().parents[1]
OUT, PAGE = ROOT / "benchmarks" / "results" / "context_agent.json", ROOT / "docs" / "context.md"
FOLDS = SEEDS = 5
BUDGETS = (256, 1024)
SETTINGS = [
    *itertools.starmap(Setting, itertools.product(("words", "vectors"), (1.0, 4.0), (10, 30), (0.0, 0.2, 1.0))),
    Setting("vectors"),
]
"""All that are measured; the last one is the default."""


def kept(setting: Setting, rerank: Rerank, questions: Sequence[dict[str, Any]], budget: int, count: Any) -> list[float]:
    """The recall of a setting, a question."""
    reduce = carrot(rerank, iterations=setting.iterations, explore=setting.explore, frugality=setting.frugality)
    found = (reduce(prompt(row, 0, place), budget, count) for place, row in enumerate(questions))
    return [measured(row, messages, count)["recall"] for row, messages in zip(questions, found, strict=True)]


def chosen(vectors: F64, recall: F64, seed: int) -> tuple[F64, F64, F64]:
    """Recalls [n] of the agent and of the single best setting, and whether the agent searched by words.

    Args:
        vectors: [n, d].
        recall: [n, s] of the settings, in their order.
        seed: of folds and training.
    """
    fold = np.random.default_rng([seed, 46]).permutation(len(vectors)) % FOLDS
    agent, one, by_words = np.zeros((3, len(vectors)))
    for number in range(FOLDS):
        known, new = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        said = trained(vectors[known], recall[known], SETTINGS, seed=seed).settings(vectors[new])
        places = [nearest(setting) for setting in said]
        agent[new] = recall[new, places]
        by_words[new] = [setting.rerank == "words" for setting in said]
        one[new] = recall[new, recall[known].mean(axis=0).argmax()]
    return agent, one, by_words


def nearest(setting: Setting) -> int:
    """The measured setting that is nearest to one that an agent names: same reranker, numbers scaled to their range."""
    numbers = np.array([one.numbers for one in SETTINGS])
    far = np.abs((numbers - np.array(setting.numbers)) / np.ptp(numbers, axis=0)).sum(axis=1)
    far[[one.rerank != setting.rerank for one in SETTINGS]] = np.inf
    return int(far.argmin())


def row_of(budget: int, recall: F64, vectors: F64) -> dict[str, Any]:
    """What is said of a budget."""
    runs = [chosen(vectors, recall, seed) for seed in range(SEEDS)]
    others = [chosen(np.random.default_rng([seed, 17]).permutation(vectors), recall, seed) for seed in range(SEEDS)]
    each = {
        "default": recall[:, -1],
        "one": np.mean([run[1] for run in runs], axis=0),
        "trained": np.mean([run[0] for run in runs], axis=0),
        "shuffled": np.mean([run[0] for run in others], axis=0),
        "best": recall.max(axis=1),
    }
    row: dict[str, Any] = {"budget": budget}
    for name, values in each.items():
        mean = mean_ci(values)
        row[name] = [mean.mean, mean.low, mean.high]
    row["words"] = float(np.mean([run[2] for run in runs]))
    for rival in ("one", "shuffled", "default"):
        less = paired(each["trained"], each[rival])
        row[f"minus_{rival}"] = [less.mean, less.low, less.high]
    row["settings"] = recall.mean(axis=0).tolist()
    return row


BEGIN, END = "<!-- written by benchmarks/context_agent.py --table -->", "<!-- end of context_agent -->"
SHOWN = ("default", "one", "trained", "shuffled", "best")


def table(rows: list[dict[str, Any]]) -> str:
    """A row a budget, in per cent, as Markdown."""

    def cell(values: list[float], sign: str = "") -> str:
        return "{:{s}.0f} [{:{s}.0f}, {:{s}.0f}]".format(*(100 * value for value in values), s=sign)

    heads = ["tokens", "default", "one for all", "trained", "shuffled", "best with hindsight", "trained minus one"]
    heads += ["minus shuffled", "searched by words"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = [cell(row[name]) for name in SHOWN]
        cells += [cell(row["minus_one"], "+"), cell(row["minus_shuffled"], "+"), f"{100 * row['words']:.0f}"]
        lines.append(f"| {row['budget']:,} | " + " | ".join(cells) + " |")
    return "\n\n" + "\n".join(lines) + "\n\n"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--table", action="store_true", help="write the table of the page from the file, no more")
    parser.add_argument("--encoder", default=None, help="folder or name of a sentence encoder (all-MiniLM-L6-v2)")
    parser.add_argument("--tokenizer", default=None, help="a tokenizer.json; default: words")
    parser.add_argument("--budgets", type=int, nargs="+", default=BUDGETS)
    parser.add_argument("--limit", type=int, default=None, help="first questions only")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    if args.table:
        rows = json.loads(args.out.read_text(encoding="utf-8"))["rows"]
        PAGE.write_text(between(PAGE.read_text(encoding="utf-8"), table(rows), BEGIN, END), encoding="utf-8")
        return
    if args.data is None or args.encoder is None:
        parser.error("give DATA and --encoder, or --table")
    questions = read_rows(args.data)[: args.limit]
    count, encode = counter(tokens_by(args.tokenizer)), cached(encode_of("benchmark", args.encoder))
    rerankers = {"words": cosine(words), "vectors": mean_of_lines(encode)}
    vectors = np.asarray(encode([row["question"] for row in questions]), np.float64)
    named = [f"{one.rerank}, {one.explore:g}, {one.iterations}, {one.frugality:g}" for one in SETTINGS]
    rows: list[dict[str, Any]] = []
    for budget in args.budgets:
        recall = np.array([kept(one, rerankers[one.rerank], questions, budget, count) for one in SETTINGS]).T
        rows.append(row_of(budget, recall, vectors))
        rows[-1]["recall"] = recall.round(4).tolist()  # [questions, settings]
        found = {"questions": len(questions), "settings": named, "rows": rows}
        args.out.write_text(json.dumps(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
