"""What reducers keep of the evidence, at equal tokens: 2WikiMultihopQA with about 100 candidate sentences a question.

    python benchmarks/context.py DATA.jsonl.gz --encoder FOLDER    # writes benchmarks/results/context.json
    python benchmarks/context.py DATA.jsonl.gz --quick             # smoke test: few questions, no models
    python benchmarks/context.py --table benchmarks/results/context.json    # the table of docs/context.md

DATA has a row a question: question, answers, gold_sentences, candidate_sentences (2WikiMultihopQA, Apache 2.0). A
prompt is one message with the candidates, a line each in an order drawn from a seed, and one with the question. The
budget is that of the whole prompt; tokens are those of SmolLM2's tokenizer (--tokenizer), or words. Reducers that go by
the place of a sentence, and the random control, see as many orders as there are seeds, the others the first one
(``orders`` says how many). What is said of a question is the mean over its orders; intervals are over questions.

``recall`` is the share of the gold sentences that the prompt has whole, ``both`` the share of questions with all of
them, ``answer`` the share of questions whose answer stands in the kept candidates, of those with an answer that is not
yes or no and stands in the candidates at all. ``minus_random``, ``minus_shortest`` and ``minus_bm25`` are paired
differences of ``recall`` over questions. ``full`` is the whole prompt whatever the budget, ``oracle`` keeps gold
sentences first, ``shortest`` the shortest whatever the question. No model answers here; ``context_answers.py`` has
one. Rerankers and encoders read text of their own: ``read`` counts the words that a reranker was given a question,
which is not in the budget.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.context import (
    bm25,
    budget_mem,
    carrot,
    diverse,
    frugal,
    marginal,
    middle_out,
    mmr,
    random,
    rcr,
    recency,
    self_information,
    summary,
)
from budgeteer.context._bm25 import scores
from budgeteer.context._self_information import surprise_by
from budgeteer.context._summary import first_sentences
from budgeteer.context.attribution import by_encoder, rarity, rollout
from budgeteer.context.decomposition import lengths
from budgeteer.context.encode import cosine, encode_of, words
from budgeteer.context.fill import by_score, similarities
from budgeteer.context.protocol import Count, Encode, Message, Reducer, Rerank, counter
from budgeteer.lab.stats import mean_ci, paired, wilson

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "results" / "context.json"
BUDGETS = (256, 512, 1024, 2048)
SEEDS = 5
"""Orders of the candidates, and seeds of the random control."""
ORDERED = ("recency", "middle-out", "summary first")
"""Reducers that go by the place of a piece; for the others an order only breaks ties, and they see the first one."""


def cached(encode: Encode) -> Encode:
    """An encoder that reads each text once."""
    known: dict[str, Any] = {}

    def read(texts: Sequence[str]) -> Any:
        texts = [text.strip() for text in texts]
        new = sorted(dict.fromkeys(text for text in texts if text not in known), key=len)  # batches of like lengths
        known.update(zip(new, encode(new) if new else [], strict=True))
        return np.array([known[text] for text in texts])

    return read


def mean_of_lines(encode: Encode) -> Rerank:
    """A reranker that compares the question with the mean vector of a text's lines."""

    def rerank(question: str, texts: Sequence[str]) -> Any:
        asked = encode([question])[0]
        means = np.array([encode(text.splitlines()).mean(axis=0) for text in texts])
        return means @ asked / (np.linalg.norm(means, axis=1) * np.linalg.norm(asked))

    return rerank


def fused(encode: Encode) -> Rerank:
    """A reranker by words and by vectors: the sum of BM25 and the cosine, each standardised over the texts."""

    def rerank(question: str, texts: Sequence[str]) -> Any:
        parts = (scores(question, list(texts)), similarities(encode, question, texts)[0])
        return sum((part - part.mean()) / (part.std() or 1.0) for part in parts)

    return rerank


class Reading:
    """Counts the words that a reranker reads."""

    def __init__(self, rerank: Rerank) -> None:
        self.rerank, self.words = rerank, 0

    def __call__(self, question: str, texts: Sequence[str]) -> Any:
        self.words += sum(len(text.split()) for text in texts)
        return self.rerank(question, texts)


def once(weigh: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Weights of words, computed once a text: they do not depend on the budget."""
    known: dict[Any, Any] = {}

    def read(given: Any) -> Any:
        key = given if isinstance(given, str) else tuple(given)
        if key not in known:
            known[key] = weigh(given)
        return known[key]

    return read


def each(weigh: Callable[[list[str]], list[Any]]) -> Callable[[list[str]], list[Any]]:
    """Weights of words where a text is weighed by itself: computed once a text, in whatever order texts come."""
    known: dict[str, Any] = {}

    def read(texts: list[str]) -> list[Any]:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        known.update(zip(new, weigh(new) if new else [], strict=True))
        return [known[text] for text in texts]

    return read


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The questions of DATA."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def reducers(encode: Encode | None, folder: str | None, model: str | None) -> dict[str, Reducer]:
    """The methods that are compared, by name."""
    plain = Reading(cosine(words))
    made: dict[str, Any] = {
        "shortest": shortest,
        "recency": recency(),
        "middle-out": middle_out(),
        "bm25": bm25(),
        "words": mmr(words, 1.0),
        "mmr words": mmr(words),
        "carrot words": carrot(plain),
        "marginal words": marginal(plain),
        "rcr words": rcr(words),
        "frugal rarity": frugal(once(rarity)),
        "summary first": summary(first_sentences),
    }
    if encode is not None and folder is not None:
        lines = Reading(mean_of_lines(encode))
        made |= {
            "encoder": mmr(encode, 1.0),
            "mmr encoder": mmr(encode),
            "diverse encoder": diverse(encode),
            "carrot encoder": carrot(lines),
            "marginal encoder": marginal(lines),
            "rcr encoder": rcr(encode),
            "budget-mem high": budget_mem(encode, fused(encode), "high"),
            "frugal globenc": frugal(each(by_encoder(folder, rollout))),
            "frugal decompx": frugal(each(by_encoder(folder, lengths))),
        }
    if model is not None:
        made["self-information"] = self_information(once(surprise_by(model)))
    return made


def tokens_by(tokenizer: str | None) -> Callable[[str], int]:
    """Text -> tokens, by a tokenizer.json; without one, words. Texts of pieces are counted once."""
    if tokenizer is None:
        return lambda text: len(text.split())
    from tokenizers import Tokenizer

    made = Tokenizer.from_file(tokenizer)

    @lru_cache(1 << 16)
    def tokens(text: str) -> int:
        return len(made.encode(text, add_special_tokens=False).ids)

    return tokens


def prompt(row: dict[str, Any], seed: int, place: int) -> list[Message]:
    """The candidates in a drawn order, and the question."""
    order = np.random.default_rng([seed, place]).permutation(len(row["candidate_sentences"]))
    lines = [" ".join(row["candidate_sentences"][i].split()) for i in order]
    return [
        {"role": "system", "content": "Answer the question from these sentences."},
        {"role": "user", "content": "\n".join(lines)},
        {"role": "user", "content": row["question"]},
    ]


def measured(row: dict[str, Any], kept: Sequence[Message], count: Count) -> dict[str, float]:
    """What of the evidence is in a prompt."""
    context = "\n".join(message["content"] for message in kept[1:-1])
    lines = {line.strip() for line in context.splitlines()}
    gold = {" ".join(sentence.split()) for sentence in row["gold_sentences"]}
    there = [sentence in lines for sentence in gold]
    answer = any(answer.lower() in context.lower() for answer in row["answers"])
    return {"recall": float(np.mean(there)), "both": all(there), "answer": answer, "tokens": count(kept)}


def oracle(row: dict[str, Any]) -> Reducer:
    """Keep the gold sentences first."""
    gold = {" ".join(sentence.split()) for sentence in row["gold_sentences"]}
    return by_score(lambda question, texts: np.array([float(text.strip() in gold) for text in texts]))


shortest = by_score(lambda question, texts: -np.array([float(len(text)) for text in texts]))
"""The control that knows nothing of the question: more of the shortest pieces fit."""


def interval(values: Any) -> dict[str, float]:
    """A mean over questions with its interval."""
    found = mean_ci(values)
    return {"mean": found.mean, "low": found.low, "high": found.high}


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--table", type=Path, default=None, help="print the table of these results, and nothing else")
    parser.add_argument("--encoder", default=None, help="folder or name of a sentence encoder (all-MiniLM-L6-v2)")
    parser.add_argument("--model", default=None, help="folder or name of a causal model, for self-information")
    parser.add_argument("--tokenizer", default=None, help="a tokenizer.json; default: words")
    parser.add_argument("--budgets", type=int, nargs="+", default=BUDGETS)
    parser.add_argument("--limit", type=int, default=None, help="first questions only")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="orders of the candidates")
    parser.add_argument("--only", nargs="+", default=None, help="these reducers alone, beside bm25 and shortest")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    if args.table is not None:
        print(table(json.loads(args.table.read_text(encoding="utf-8"))["rows"]))
        return
    if args.data is None:
        parser.error("give DATA, or --table")
    rows = read_rows(args.data)[: 4 if args.quick else args.limit]
    count = counter(tokens_by(args.tokenizer))
    encode = None if args.encoder is None else cached(encode_of("benchmark", args.encoder))
    methods = reducers(encode, args.encoder, args.model)
    if args.only is not None:
        methods = {name: reduce for name, reduce in methods.items() if name in {*args.only, "bm25", "shortest"}}
    readers = {"carrot words", "marginal words", "carrot encoder", "marginal encoder"} & set(methods)
    orders = [[prompt(row, seed, place) for place, row in enumerate(rows)] for seed in range(args.seeds)]
    full = [measured(row, messages, count) for row, messages in zip(rows, orders[0], strict=True)]
    asked = [
        row["answers"][0].lower() not in ("yes", "no") and bool(there["answer"])
        for row, there in zip(rows, full, strict=True)
    ]
    results = []
    for budget in args.budgets:
        found: dict[str, list[dict[str, float]]] = {"full": full}
        seen = {"full": 1, "oracle": 1, "random": args.seeds}
        read: dict[str, float] = {}
        found["oracle"] = [
            measured(row, oracle(row)(messages, budget, count), count)
            for row, messages in zip(rows, orders[0], strict=True)
        ]
        found["random"] = over_orders(
            [
                [
                    measured(row, random(seed)(messages, budget, count), count)
                    for row, messages in zip(rows, order, strict=True)
                ]
                for seed, order in enumerate(orders)
            ]
        )
        for name, reduce in methods.items():
            began, before = time.perf_counter(), _read(reduce) if name in readers else 0
            some = orders if name in ORDERED else orders[:1]
            found[name] = over_orders(
                [
                    [
                        measured(row, reduce(messages, budget, count), count)
                        for row, messages in zip(rows, order, strict=True)
                    ]
                    for order in some
                ]
            )
            seen[name] = len(some)
            if name in readers:
                read[name] = (_read(reduce) - before) / len(rows)
            recall = np.mean([one["recall"] for one in found[name]])
            print(f"{budget:5} {name:18} {recall:6.1%} {time.perf_counter() - began:7.1f} s", flush=True)
        rivals = {rival: [one["recall"] for one in found[rival]] for rival in ("random", "shortest", "bm25")}
        for name, per_question in found.items():
            recalls = [one["recall"] for one in per_question]
            right = [one["answer"] for one, counts in zip(per_question, asked, strict=True) if counts]
            results.append(
                {
                    "reducer": name,
                    "budget": budget,
                    "orders": seen[name],
                    "tokens": float(np.mean([one["tokens"] for one in per_question])),
                    "recall": interval(recalls),
                    "both": share([one["both"] for one in per_question]),
                    "answer": share(right),
                    **{f"minus_{rival}": _difference(recalls, each_recall) for rival, each_recall in rivals.items()},
                    **({"read": read[name]} if name in read else {}),
                }
            )
        _write(args, rows, asked, results)


def over_orders(found: Sequence[Sequence[dict[str, float]]]) -> list[dict[str, float]]:
    """What is measured of each question, as a mean over the orders of its candidates.

    Args:
        found: [orders][questions].
    """
    return [
        {key: float(np.mean([one[key] for one in question])) for key in question[0]}
        for question in zip(*found, strict=True)
    ]


def share(values: Sequence[float]) -> dict[str, float]:
    """A share over questions: Wilson's interval where each has it or not, else that of a mean."""
    if all(value in (0, 1) for value in values):
        found = wilson(int(sum(values)), len(values))
        return {"mean": found.mean, "low": found.low, "high": found.high}
    return interval(values)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Recall in per cent with its interval, and behind it how often the answer is there, as Markdown."""

    def cell(row: dict[str, Any]) -> str:
        recall = row["recall"]
        low, high = (100 * recall[end] for end in ("low", "high"))
        return f"{100 * recall['mean']:.0f} [{low:.0f}, {high:.0f}]; {100 * row['answer']['mean']:.0f}"

    budgets = sorted({row["budget"] for row in rows})
    by = {(row["reducer"], row["budget"]): row for row in rows}
    lines = ["| reducer | " + " | ".join(f"{budget:,} tokens" for budget in budgets) + " |"]
    lines.append("|---" * (len(budgets) + 1) + "|")
    for name in dict.fromkeys(row["reducer"] for row in rows):
        cells = [cell(by[name, budget]) if (name, budget) in by else "" for budget in budgets]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _write(args: argparse.Namespace, rows: Sequence[Any], asked: Sequence[bool], results: list[dict[str, Any]]) -> None:
    """What is there so far: a budget takes minutes."""
    about = {"questions": len(rows), "with_an_answer_in_them": sum(asked), "orders": args.seeds}
    about |= {
        "tokenizer": args.tokenizer and Path(args.tokenizer).parent.name,
        "model": args.model and Path(args.model).name,
    }
    out = args.out or (None if args.quick else OUT)
    if out is None:
        return
    kept: list[dict[str, Any]] = []
    if out.exists():
        before = json.loads(out.read_text(encoding="utf-8"))
        if before["about"] == about:  # of the same questions: other budgets stay
            measured_now = {row["budget"] for row in results}
            kept = [row for row in before["rows"] if row["budget"] not in measured_now]
    found = sorted([*kept, *results], key=lambda row: row["budget"])
    out.write_text(json.dumps({"about": about, "rows": found}, indent=1) + "\n", encoding="utf-8")


def _read(reduce: Any) -> int:
    """Words that the reranker of a method has read so far."""
    return next((cell.cell_contents.words for cell in reduce.__closure__ if isinstance(cell.cell_contents, Reading)), 0)


def _difference(values: Sequence[float], others: Any) -> dict[str, float]:
    found = paired(values, others)
    return {"mean": found.mean, "low": found.low, "high": found.high}


if __name__ == "__main__":
    main()
