"""Agents at equal unified cost: searches over 2WikiMultihopQA by scripted models, SmolLM2 and Gemma 3 270M, lookups by
the thinking model.

    python benchmarks/agent_strategies.py DATA.jsonl.gz --work DIR     # writes its JSON; run again to go on
    python benchmarks/agent_strategies.py DATA.jsonl.gz --quick        # smoke test
    python benchmarks/agent_strategies.py --only lookups --work DIR    # needs no DATA
    python benchmarks/agent_strategies.py --tables                     # writes those of docs/agents.md, no more

DATA has a row a question: question, answers, gold_sentences, candidate_sentences (2WikiMultihopQA, Apache 2.0); without
it searches are skipped. The
budget is money, hard for every question: a million tokens of input cost $1, of output $4; a search costs $0.001, a
lookup $0.0005. So tokens and calls of tools compete for the same cents, as in the unified cost of BATS.

**search**: one tool, BM25 over the question's 100 or so sentences, 3 a call. Scripted models stand in for a language
model; a word is a token. What they can do is known, and no language model is claimed to do the same. A sentence of gold
evidence in the prompt is noticed with chance 0.97^(n/5), n the sentences in the prompt, so that everything at once is
read worst; the next hop is looked for with words of its sentence (chance 0.6) once those before it were noticed; with
all evidence the answer is right with chance 0.9. After a turn without all evidence the model guesses with chance 0.15,
at the end always, and is right one time in ten. As critic it sees a new piece of evidence as progress, with noise; as
verifier it tells right from wrong with chance 0.85. ``heeds`` does what its budget's level says (high: two searches a
turn; critical: answer) and answers on its last turn; ``unaware`` reads over both.

A plan of tree-planner is 2 or 3 searches with words of the question, out of 4 ways to write them, so that plans share
their beginnings; where they part the model answers once it noticed all evidence. A program of code-agents searches with
words of the question, asks a reader twice what to look for next, and searches for that, by the first of up to 3 tools
that finds something; one of ten is no program. For composer the model names one skill, with the question as its test;
its verdict, whether the tool found something, is right with chance 0.85. ``retrieval`` is composer without tests, which
buys the tool whose description is likest to the skill.

**many**: these three beside others, with that tool alone and with 8 further tools. 4 of those are said to search the
sentences, too, and find nothing; all have descriptions of 50 words or so, and a call costs as much as a search. The
model takes any of the tools that are said to search and did not fail before its eyes. What the useful tool is said to
be is what the model calls its skill, so that ``retrieval`` finds it; in **misled** these 4 are described so, and it has
their long description.

**once**: the two cases of **many** once more, with the budget of all questions in one: a question has an equal share of
what is left, for every strategy, so that what one does not use goes to later ones. ``composer-many`` tests tools on 3
of the questions and answers all of them with those that it bought; what this cost is spread over all of them.

**smollm2**, **gemma3**: SmolLM2-135M-Instruct, and Gemma 3 270M (base; ``gemma3.py`` says where from), through
llama.cpp on the first questions. Neither was trained on calls, so both read raw text with three worked examples: two
searches in a row, a text that is there already, one search. They are greedy but in BAVT and tree-planner, so one seed,
and a step has at most 48 tokens.

**lookups**: the embedded thinking model with its own tool calls, on held-out questions of 1 to 4 lookups. It was not
trained on plans, notes or checks. It is greedy but in the tree, so one seed; the questions are few, since it is slow.

Accuracy has 95 % bootstrap intervals over questions and seeds, with one seed Wilson's over questions; ``claims`` are
paired differences.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import random
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

import bm25s

from budgeteer import verify
from budgeteer.core.amounts import PICO
from budgeteer.core.budget import Budget, Budgets
from budgeteer.core.environment import Item
from budgeteer.lab import frontier, questions
from budgeteer.lab.frontier import Cell
from budgeteer.lab.questions import QuestionSet
from budgeteer.lab.simulated import Simulated
from budgeteer.lab.stats import crossed, crossed_weights, wilson
from budgeteer.lab.tasks.named import Task
from budgeteer.models.chat import call_of
from budgeteer.models.model import Model
from budgeteer.prices.price import Price, Rates
from budgeteer.prices.table import PriceTable, of
from budgeteer.solve import Question, Strategy, Style, registered, styles
from budgeteer.solve.runner import Pause, Settings
from budgeteer.solve.runner import run as solve
from budgeteer.solve.styles import TaskInfo
from budgeteer.solve.tool import Tool
from gemma3 import gemma3
from pages import between

ROOT = Path(__file__).resolve().parents[1]
OUT, PAGE = ROOT / "benchmarks" / "results" / "agent_strategies.json", ROOT / "docs" / "agents.md"
SEEDS = 5
SEARCH, LOOKUP = 0.001, 0.0005
"""Dollars of a call."""
PER_CALL = 3
BUDGETS = "$0.002,$0.004,$0.008,$0.016"
FEW = "$0.002,$0.004"
STRATEGIES = {
    "react": "react:turns=20",
    "parallel": "react:turns=20,samples=16",
    "one-prompt": "one-prompt",
    "fixed": "turn-control:turns=6",
    "fixed, silent": "turn-control:turns=6,remind=false",
    "dynamic": "turn-control:turns=4,control=dynamic,most=8",
    "tracker": "bats:plan=false,verify=false",
    "bats": "bats",
    "bavt": "bavt",
    "voi": "voi",
    "voi, no penalty": "voi:penalty=0",
    "tree-planner": "tree-planner",
    "code-agents": "code-agents",
    "composer": "composer:turns=20",
    "composer, nine": "composer:turns=20,candidates=9",
    "composer-many": "composer-many:turns=20",
    "retrieval": "composer:turns=20,tests=false",
}
SEARCHING = tuple(
    name
    for name in STRATEGIES
    if name not in ("tree-planner", "code-agents", "composer", "composer, nine", "composer-many", "retrieval")
)
PLANNED = ("react", "parallel", "one-prompt", "bats", "tree-planner", "code-agents", "composer", "retrieval")
MISLED = "many tools, misled"
BY_MISLED = ("react", "one-prompt", "bats", "code-agents", "composer", "composer, nine", "retrieval")
ONCE = ("react", "one-prompt", "bats", "composer", "composer-many")
AT_LOOKUPS = ("react", "one-prompt", "fixed", "dynamic", "tracker", "bats", "bavt", "voi")
BY_SMALL = {
    "react": "react:turns=8,step_tokens=48",
    "one-prompt": "one-prompt:step_tokens=48",
    "fixed": "turn-control:turns=6,step_tokens=48",
    "dynamic": "turn-control:turns=4,control=dynamic,most=8,step_tokens=48",
    "tracker": "bats:plan=false,verify=false,step_tokens=48",
    "bats": "bats:step_tokens=48",
    "bavt": "bavt:step_tokens=48",
    "voi": "voi:step_tokens=48",
    "tree-planner": "tree-planner:plans=4,step_tokens=48",
    "code-agents": "code-agents:step_tokens=48",
    "composer": "composer:step_tokens=48",
}
"""What small models are measured with: their steps are cut, since they seldom end them."""
SMALL = {"smollm2": "SmolLM2-135M-Instruct", "gemma3": "Gemma 3 270M (base)"}
PRICES = {"search": SEARCH, "lookup": LOOKUP}


def prices() -> PriceTable:
    """Dollars a million tokens, of every model."""
    rates = Rates(input=Decimal(1), output=Decimal(4))
    return of(dict.fromkeys(("simulated", "thinker", *SMALL), Price(rates)), "benchmark")


# searches


def read_rows(path: str) -> list[dict[str, Any]]:
    with gzip.open(path, "rt") if path.endswith(".gz") else open(path) as file:
        return [json.loads(line) for line in file]


FALSE = ("encyclopedia", "archive", "index", "library")
"""Tools that are said to search, and find nothing."""
OTHER = ("calendar", "weather", "currency", "translate")
SHORT = "Search the sentences that are known."
CLAIM = (
    "Search the sentences that are known. The {name} holds people, films, places, works and dates, is kept up to date "
    "by editors every day, covers many languages and centuries, and returns the entries that fit a query best, with "
    "their sources, so that it should be asked before other tools whenever something has to be found out."
)
ABOUT = (
    "The {name}. It takes a request in plain words and returns a short result for the place and the time that are "
    "named, or for here and now if none is; units, formats and names are those of the country that is asked about, "
    "and requests about other subjects, such as people or works, are not answered by it at all."
)


def useless(claim: str) -> tuple[Tool, ...]:
    """Tools that find nothing, four of which claim to."""

    def made(name: str, about: str) -> Tool:
        async def nothing(arguments: Mapping[str, Any]) -> str:
            return f"{name} found nothing"

        return Tool(name, about.format(name=name), {"query": {"type": "string"}}, nothing, cost=round(SEARCH * PICO))

    return (*(made(name, claim) for name in FALSE), *(made(name, ABOUT) for name in OTHER))


class Wiki:
    """The questions as an environment whose tool searches the sentences of each, perhaps beside useless tools."""

    name = "search"

    def __init__(self, rows: Sequence[Mapping[str, Any]], many: bool = False, misled: bool = False) -> None:
        self.others, self.misled = useless(SHORT if misled else CLAIM) if many else (), misled
        self.rows = {f"q{i:03d}": row for i, row in enumerate(rows)}
        self.items = [Item(key, row["question"], row["answers"][0]) for key, row in self.rows.items()]

    def verify(self, item: Item, answer: str | None) -> float:
        return max(verify.exact(answer, reference) for reference in self.rows[item.key]["answers"])

    def tools(self, item: Item) -> tuple[Tool, ...]:
        sentences = self.rows[item.key]["candidate_sentences"]

        async def search(arguments: Mapping[str, Any]) -> str:
            return "\n".join(found(tuple(sentences), str(arguments["query"])))

        cost = round(SEARCH * PICO)
        about = CLAIM.format(name="search") if self.misled else SHORT
        everything = "\n".join(sentences)
        tool = Tool("search", about, {"query": {"type": "string"}}, search, cost=cost, everything=everything)
        return (*self.others[:2], tool, *self.others[2:])


@lru_cache
def index_of(sentences: tuple[str, ...]) -> bm25s.BM25:
    """BM25 over sentences, as ``budgeteer.context`` has it, made once for all queries."""
    index = bm25s.BM25(k1=1.5, b=0.75, method="lucene")
    index.index(words_of(list(sentences)), show_progress=False)
    return index


def words_of(texts: list[str]) -> list[list[str]]:
    return bm25s.tokenize(texts, stopwords="en", return_ids=False, show_progress=False)  # type: ignore[no-any-return]


@lru_cache(100_000)
def found(sentences: tuple[str, ...], query: str) -> tuple[str, ...]:
    """The best sentences for a query."""
    (asked,) = words_of([query])
    values = index_of(sentences).get_scores(asked) if asked else [0.0] * len(sentences)
    order = sorted(range(len(sentences)), key=lambda i: (-values[i], i))
    return tuple(sentences[i] for i in order[:PER_CALL] if values[i] > 0)


class Writer:
    """Writes what a model of known skill would."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], heeds: bool) -> None:
        self.rows = {row["question"]: row for row in rows}
        self.heeds = heeds

    def __call__(self, prompt: str, rng: random.Random) -> str:
        row = next(row for question, row in self.rows.items() if f": {question}" in prompt)
        body = prompt.partition(f": {row['question']}")[2]
        seen = noticed(row, body, rng)
        whole = all(seen)
        if prompt.startswith("List what"):
            return "- the first fact\n- the fact that follows from it"
        if prompt.startswith("Sum up"):
            return " ".join(gold for gold, known in zip(row["gold_sentences"], seen, strict=True) if known)
        if prompt.startswith("How much nearer"):
            last = body.rpartition("<tool_response>")[2]
            change = 3 if any(gold in last for gold in row["gold_sentences"]) or "<tool_response>" not in body else -1
            return str(round(rng.gauss(change, 1.5)))
        if prompt.startswith("Rate three"):
            rate = {"search": 1 if whole else 8, "decompose": 2, "answer": 9 if whole else 1}
            return "\n".join(f"{name}: {max(0, min(10, round(rng.gauss(n, 1.5))))}" for name, n in rate.items())
        if prompt.startswith("Check an answer"):
            proposed = re.search(r"Proposed answer: (.*)", prompt)
            right = proposed is not None and proposed[1].strip() in row["answers"]
            if right == (rng.random() < 0.85):
                return "1: satisfied\n2: satisfied\ndecision: success"
            return f"1: satisfied\n2: unverifiable\ndecision: {'pivot' if rng.random() < 0.3 else 'continue'}"
        if prompt.startswith("Plan how"):
            ways = [query(row, [False] * len(seen), random.Random(f"{row['question']}{i}")) for i in range(4)]
            chosen = rng.sample(ways, rng.choice((2, 3)))
            return "\n".join(f'{self.tool(prompt, rng)} {{"query": {json.dumps(way)}}}' for way in chosen)
        if "Which comes next?" in body:
            options = re.findall(r"^(\d+)\. (.*)", body.partition("Which comes next?")[2], re.MULTILINE)
            ends = [number for number, option in options if option == "answer the question now"]
            untried = [number for number, option in options if f"{option.split()[0]} found nothing" not in body]
            return ends[0] if whole and ends else rng.choice(untried or [number for number, _ in options])
        if prompt.startswith("Write a program"):
            return self.program(row, prompt, seen, rng)
        if prompt.endswith("Answer in a few words:"):
            return "done" if whole else query(row, seen, rng)
        if prompt.startswith("Which skills"):
            return f"search sentences | 3 | {row['question']}"
        if prompt.startswith("A tool was tried"):
            helped = ("found nothing" not in body) == (rng.random() < 0.85)
            return "helpful" if helped else "useless"
        return self.step(row, body, seen, rng)

    def claims(self, text: str) -> list[str]:
        """The tools in a text that are said to search and did not fail there; else all in it."""
        about = "Search the sentences that are known"
        before = [line.split(about)[0] for line in text.splitlines() if about in line]
        said = [name for name in ("search", *FALSE) if any(re.search(rf"\b{name}\b", line) for line in before)]
        named = said or [name for name in OTHER if re.search(rf"\b{name}\b", text)]
        return [name for name in named if f"{name} found nothing" not in text] or named

    def tool(self, text: str, rng: random.Random) -> str:
        return rng.choice(self.claims(text))

    def program(self, row: Mapping[str, Any], prompt: str, seen: Sequence[bool], rng: random.Random) -> str:
        """A program that searches, and asks a reader twice what to search for next."""
        if rng.random() < 0.1:
            return "I would search for the names in the question."
        names = self.claims(prompt)
        lines = [f"asked = {json.dumps('Question: ' + row['question'] + ' ')}"]
        first, indent = json.dumps(query(row, seen, rng)), ""
        for name in rng.sample(names, min(3, len(names))):
            lines += [f"{indent}found = {name}(query={first})", f'{indent}if "found nothing" not in found:']
            step = ["words = ask(asked + found)", 'if words == "done":', " return", f"more = {name}(query=words)"]
            lines += [f"{indent} {line}" for line in [*step, "found = found + more"] * 2]
            lines += [f"{indent}else:"]
            indent += " "
        return "\n".join([*lines, f"{indent}pass"])

    def step(self, row: Mapping[str, Any], body: str, seen: Sequence[bool], rng: random.Random) -> str:
        whole, begun = all(seen), "<tool_response>" in body
        levels, turns = re.findall(r"^level: (\w+)", body, re.MULTILINE), re.findall(r"; (\d+) left\]", body)
        hurried = self.heeds and (levels[-1:] == ["critical"] or turns[-1:] in (["0"], ["1"]))
        over = "without calling tools" in body or "You can call these tools" not in body
        if whole or over or hurried or (begun and rng.random() < 0.15):
            right = rng.random() < (0.9 if whole else 0.1)
            return (row["answers"][0] if right else f"not {rng.randrange(3)}") + "\n"
        broad = self.heeds and levels[-1:] == ["high"]
        queries = [json.dumps({"query": query(row, seen, rng)}) for _ in range(2 if broad else 1)]
        return "\n".join(call_of(self.tool(body, rng), text) for text in queries)


def noticed(row: Mapping[str, Any], text: str, rng: random.Random) -> list[bool]:
    """Which gold sentences a reader notices in a text."""
    n = sum(sentence in text for sentence in row["candidate_sentences"])
    return [gold in text and rng.random() < 0.97 ** (n / 5) for gold in row["gold_sentences"]]


def query(row: Mapping[str, Any], seen: Sequence[bool], rng: random.Random, follows: float = 0.6) -> str:
    """Words that look for the next hop, with a chance once those before it are known; else some of the question."""
    asked = re.findall(r"\w+", row["question"])
    missing = next(gold for gold, known in zip(row["gold_sentences"], seen, strict=True) if not known)
    if any(seen) and rng.random() < follows:
        words = re.findall(r"\w{4,}", missing)
        return " ".join(rng.sample(words, min(4, len(words))))
    return " ".join(rng.sample(asked, min(5, len(asked))))


PLAIN = Style(
    lambda text: f"Question: {text}\n",
    lambda text: text.strip().split("\n")[0].strip() or None,
    "",
    answer_tokens=24,
    normal=str.strip,
)


def worked(question: str, steps: Sequence[tuple[str, str]], answer: str) -> str:
    """A worked example: queries with what they found, and the answer."""
    made = [
        f"{call_of('search', json.dumps({'query': query}))}\n<tool_response>\n{found}\n</tool_response>\n"
        for query, found in steps
    ]
    return f"Question: {question}\n{''.join(made)}Answer: {answer}\n\n"


EXAMPLES = (
    worked(
        "Where was the director of film Silver Lake born?",
        [
            ("director of film Silver Lake", "Silver Lake is a 1987 film directed by Carl Weiss."),
            ("Carl Weiss born", "Carl Weiss was born in Graz, Austria."),
        ],
        "Graz, Austria",
    )
    + worked(
        "Who was born later, Ada Moor or Ben Holt?\n\nAda Moor (born 3 May 1890) was a painter.\n"
        "Ben Holt (born 1 June 1902) was a poet.",
        [],
        "Ben Holt",
    )
    + worked(
        "Who is the father of Emma of Arden?",
        [("father of Emma of Arden", "Emma of Arden was the daughter of Hugh II.")],
        "Hugh II",
    )
)


def stated(text: str) -> str | None:
    """The answer of a small model: the rest of the line behind "Answer:", else the first line.

    >>> stated("Answer: Oslo.\\n\\nQuestion:"), stated(" Oslo\\nand more"), stated("\\n")
    ('Oslo', 'Oslo', None)
    """
    lines = text.rpartition("Answer:")[2].strip().split("\n")
    return lines[0].strip(" .") or None


def shown(text: str) -> str:
    """A question with worked examples right before it, and before them how to call tools.

    Without tools it ends with "Answer:", without which the sentences of one prompt were continued.
    """
    question, begins, tools = text.partition("\n\nYou can call these tools:")
    return f"{begins.strip()}{tools}\n\n{EXAMPLES}Question: {question}\n{'' if tools else 'Answer:'}".lstrip()


WORKED = Style(shown, stated, "", ("Question:",), answer_tokens=24, normal=str.strip)
"""How SmolLM2 and Gemma are asked."""


def searches(rows: Sequence[Mapping[str, Any]], many: bool = False, misled: bool = False) -> QuestionSet:
    wiki = Wiki(rows, many, misled)
    items = {item.key: item for item in wiki.items}
    task = Task("search", "search", tuple(wiki.items), "search", False, wiki.verify, wiki.tools)
    references = {key: item.answer or "" for key, item in items.items()}
    return QuestionSet(
        tuple(Question(item.key, item.prompt) for item in wiki.items), references, TaskInfo("search"), task, items
    )


# measuring


async def measured(
    name: str, asked: QuestionSet, model: Model, style: Style, chosen: Sequence[str], budgets: str, args: Any
) -> dict[str, Any]:
    """Frontier of strategies, and the differences that the claims are about."""
    strategies = {label: built(specs_of(name)[label]) for label in chosen}
    folder = Path(args.work) / name
    amounts = frontier.budgets_of(budgets)
    seeds = range(1 if args.quick or name in ("lookups", *SMALL) else SEEDS)
    (folder / "rows").mkdir(parents=True, exist_ok=True)
    cells: dict[Cell, Any] = {}
    for budget in amounts:
        solved = await frontier.measure(
            strategies,
            [budget],
            list(seeds),
            asked,
            model,
            style,
            folder,
            about={"style": name, "verifier": asked.task.identity, "oracle": "no"},
            concurrency=1,
            timeout=1e6,
            prices=prices(),
            durable=False,
            pause=Pause(),
            oracle=False,
            pass_at=1,
            on_row=lambda cell, row, progress: None,
        )
        assert solved is not None
        cells |= solved
        sys.stderr.write(f"{name} at {budget}: done\n")
    return figures(cells, amounts, len(seeds))


async def pooled(name: str, asked: QuestionSet, model: Model, budgets: str, args: Any) -> dict[str, Any]:
    """The same, with one budget for all questions, of which a question gets an equal share of what is left."""
    folder = Path(args.work) / name
    (folder / "rows").mkdir(parents=True, exist_ok=True)
    amounts = frontier.budgets_of(budgets)
    cells: dict[Cell, Any] = {}
    for budget in amounts:
        whole = Budgets([replace(budget, amount=(budget.amount or 0) * len(asked.questions))])
        for label in ONCE:
            for seed in range(1 if args.quick else SEEDS):
                cell = Cell(label, str(budget), seed)
                settings = Settings(
                    per_question=False,
                    seed=seed,
                    concurrency=1,
                    grade=asked.grade,
                    tools=asked.tools,
                    prices=prices(),
                    out=cell.path(folder),
                    durable=False,
                )
                strategy = registered.build(STRATEGIES[label])
                done = await solve(asked.questions, strategy, model, PLAIN, whole, settings)
                assert all(done.spent[kind] <= limit for kind, limit in done.limit.items())
                cells[cell] = done.rows
        sys.stderr.write(f"{name} at {budget}: done\n")
    return figures(cells, amounts, 1 if args.quick else SEEDS)


def figures(cells: dict[Cell, Any], amounts: Sequence[Budget], seeds: int) -> dict[str, Any]:
    """Means with their intervals, and the paired differences."""
    numbers = frontier.analyse(cells, "money", {"prices": "input $1, output $4 a million tokens", "tool": PRICES})
    for point in numbers["points"]:
        rows = [row for cell, rows in cells.items() if (cell.strategy, cell.budget) == pair(point) for row in rows]
        point["tools"] = sum(sum(row["tools"].values()) for row in rows) / len(rows)
        if seeds == 1:  # a bootstrap of a few questions that are all wrong has no width
            found = wilson(sum(bool(row["correct"]) for row in rows), len(rows))
            point["accuracy"] = {"mean": found.mean, "low": found.low, "high": found.high, "n": 1}
        for field in ("e3", "accuracy_per_token", "by_seed", "seconds", "answered", "wasted"):
            point.pop(field)
    shown = [str(budget) for budget in amounts]
    return {"questions": numbers["questions"], "points": numbers["points"], "claims": claims(cells, shown)}


def specs_of(part: str) -> Mapping[str, str]:
    """The strategies of a part, by label."""
    return BY_SMALL if part in SMALL else STRATEGIES


def pair(point: Mapping[str, Any]) -> tuple[str, str]:
    return point["strategy"], point["budget"]


def built(spec: str) -> Strategy:
    made = registered.build(spec)
    assert isinstance(made, Strategy)
    return made


def claims(cells: Mapping[Cell, Sequence[Mapping[str, Any]]], budgets: Sequence[str]) -> list[dict[str, Any]]:
    """Paired differences of accuracy, by name."""
    seeds = sorted({cell.seed for cell in cells})
    known = {cell.strategy for cell in cells}
    ids = len(next(iter(cells.values())))
    weights = crossed_weights(ids, len(seeds))

    def right(strategy: str, budget: str) -> Any:
        import numpy as np

        return np.array([[float(row["correct"]) for row in cells[Cell(strategy, budget, seed)]] for seed in seeds])

    low, high = budgets[0], budgets[-1]
    before = budgets[-2] if len(budgets) > 1 else low
    made: list[dict[str, Any]] = []

    def add(claim: str, values: Any) -> None:
        difference = crossed(values, weights)
        made.append({"claim": claim, "mean": difference.mean, "low": difference.low, "high": difference.high})

    for a, b in (
        ("tracker", "react"),
        ("bats", "react"),
        ("bats", "tracker"),
        ("bavt", "react"),
        ("bavt", "parallel"),
        ("voi", "react"),
        ("voi", "bats"),
        ("voi", "bavt"),
        ("voi", "voi, no penalty"),
        ("fixed", "react"),
        ("fixed", "fixed, silent"),
        ("dynamic", "fixed"),
        ("react", "one-prompt"),
        ("bats", "one-prompt"),
        ("bavt", "one-prompt"),
        *((a, b) for a in ("tree-planner", "code-agents", "composer") for b in ("react", "parallel", "one-prompt")),
        ("code-agents", "bats"),
        ("composer", "bats"),
        ("composer", "retrieval"),
        ("retrieval", "react"),
        *(("composer-many", b) for b in ("composer", "react", "one-prompt", "bats")),
    ):
        if {a, b} <= known:
            for budget in budgets:
                add(f"{a} - {b} at {budget}", right(a, budget) - right(b, budget))
    if {"bavt", "parallel"} <= known:
        add(f"bavt at {low} - parallel at {high}", right("bavt", low) - right("parallel", high))
    for name in ("react", "tracker", "bats"):
        if name in known:
            add(f"{name}: {high} - {before}", right(name, high) - right(name, before))
    return made


async def run(args: argparse.Namespace) -> dict[str, Any]:
    results: dict[str, Any] = {}
    searched = {"search", "many", "once", *SMALL} & set(args.only)
    if searched and (args.data is None or not Path(args.data).exists()):
        sys.stderr.write(f"searches are skipped: {args.data or 'no DATA'} is not there\n")
        searched = set()
    rows = read_rows(args.data)[: 5 if args.quick else None] if searched else []
    budgets = "$0.004" if args.quick else args.budgets
    for name, part, heeds, many, chosen in (
        ("search, heeds", "search", True, False, SEARCHING),
        ("search, unaware", "search", False, False, SEARCHING),
        ("one tool", "many", True, False, PLANNED),
        ("many tools", "many", True, True, PLANNED),
        (MISLED, "many", True, True, BY_MISLED),
    ):
        if part in searched:
            simulated, asked = Simulated(Writer(rows, heeds)), searches(rows, many, name == MISLED)
            results[name] = await measured(name, asked, simulated, PLAIN, chosen, budgets, args)
            save(args, results)
    for name, many in (("once, one tool", False), ("once, many tools", True)):
        if "once" in searched:
            results[name] = await pooled(name, searches(rows, many), Simulated(Writer(rows, True)), budgets, args)
            save(args, results)
    for name in SMALL:
        if name in searched:
            results[name] = await small(name, rows, args)
            save(args, results)
    if "lookups" in args.only:
        try:
            from budgeteer.models.thinker import thinker
            from budgeteer.models.transformers import Transformers
        except ImportError as error:
            sys.stderr.write(f"lookups are skipped: {error}\n")
            return results
        model = Transformers(thinker(), name="thinker")
        asked = questions.load(f"lookups:price={LOOKUP}", limit=4 if args.quick else args.lookups, seed=1)
        style = styles.style_of('think:lead="The answer is "', asked.info.by(model))
        budgets = "$0.003" if args.quick else FEW
        results["lookups"] = await measured("lookups", asked, model, style, AT_LOOKUPS, budgets, args)
        await model.aclose()
    return results


async def small(name: str, rows: Sequence[Mapping[str, Any]], args: argparse.Namespace) -> dict[str, Any]:
    """Searches by SmolLM2 or Gemma."""
    from budgeteer.models.llama_cpp import LlamaCpp

    weights = gemma3(Path(args.work)) if name == "gemma3" else None
    model = LlamaCpp(weights, slots=4, context=4096, threads=1, stall=900.0)
    model.name = name
    try:
        asked = searches(rows[: args.small])
        budgets = "$0.004" if args.quick else args.small_budgets
        return await measured(name, asked, model, WORKED, args.small_strategies, budgets, args)
    finally:
        await model.aclose()


TITLES = {
    "search, heeds": "One tool, a model that heeds the level of its budget",
    "search, unaware": "One tool, a model that reads over it",
    "one tool": "One tool, strategies that plan",
    "many tools": "Nine tools, of which one is of use",
    MISLED: "Nine tools, of which the one of use is described worse than four others",
    "once, one tool": "One tool, one budget for all questions",
    "once, many tools": "Nine tools, one budget for all questions",
    **{name: f"{title} through llama.cpp, one tool" for name, title in SMALL.items()},
    "lookups": "The thinking model, lookups",
}
BEGIN, END = "<!-- written by benchmarks/agent_strategies.py --tables -->", "<!-- end -->"


def tables(results: Mapping[str, Any]) -> str:
    """Right answers in per cent, by strategy and budget, of each part, as Markdown."""
    lines = [""]
    for part, title in TITLES.items():
        if part not in results:
            continue
        points = results[part]["points"]
        budgets = list(dict.fromkeys(point["budget"] for point in points))
        lines += ["", f"**{title}**, {results[part]['questions']} questions:", ""]
        lines += [f"| strategy | {' | '.join(budgets)} | calls of tools and dollars used at {budgets[-1]} |"]
        lines += ["|---" * (len(budgets) + 2) + "|"]
        for name in dict.fromkeys(point["strategy"] for point in points):
            own = {point["budget"]: point for point in points if point["strategy"] == name}
            most = own[budgets[-1]]
            cells = [per_cent(own[budget]["accuracy"]) for budget in budgets]
            used = f"{most['tools']:.1f}, ${most['used']['mean'] / PICO:.4f}"
            lines.append(f"| `{specs_of(part)[name]}` | {' | '.join(cells)} | {used} |")
    return "\n".join([*lines, "", ""])


def per_cent(ci: Mapping[str, float]) -> str:
    """A share with its interval.

    >>> per_cent({"mean": 0.151, "low": 0.09, "high": 0.2})
    '15 [9, 20]'
    """
    return f"{100 * ci['mean']:.0f} [{100 * ci['low']:.0f}, {100 * ci['high']:.0f}]"


def save(args: argparse.Namespace, results: Mapping[str, Any]) -> None:
    """Write what there is, beside results of an earlier run of other parts."""
    if args.quick:
        return
    before = json.loads(args.out.read_text()) if args.out.exists() else {}
    args.out.write_text(json.dumps(before | dict(results), indent=1, allow_nan=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default=None, help="2WikiMultihopQA with candidate sentences, JSON lines")
    parser.add_argument("--work", default=None, help="folder of the rows, to go on from (default: a temporary one)")
    parts = ["search", "many", "once", *SMALL, "lookups"]
    parser.add_argument("--only", nargs="+", default=parts, choices=parts)
    parser.add_argument("--lookups", type=int, default=8, help="questions of the thinking model (default %(default)s)")
    parser.add_argument("--budgets", default=BUDGETS, help="of the scripted models (default %(default)s)")
    parser.add_argument("--small", type=int, default=20, help="questions of small models (default %(default)s)")
    parser.add_argument("--small-budgets", default=FEW, help="of small models (default %(default)s)")
    parser.add_argument("--small-strategies", nargs="+", choices=tuple(BY_SMALL), default=tuple(BY_SMALL))
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tables", action="store_true", help="write the tables of the page from the file, no more")
    args = parser.parse_args()
    if args.tables:
        PAGE.write_text(between(PAGE.read_text(), tables(json.loads(args.out.read_text())), BEGIN, END))
        return
    with tempfile.TemporaryDirectory() as folder:
        args.work = args.work or folder
        results = asyncio.run(run(args))
    save(args, results)
    if args.quick:
        print(json.dumps(results, indent=1)[:2000])


if __name__ == "__main__":
    main()
