"""Strategies at equal budgets on SmolLM2-135M or Gemma 3 270M through llama.cpp's server, on samples drawn once.

    python benchmarks/smollm2.py --data FOLDER     # samples, then writes benchmarks/results/smollm2.json
    python benchmarks/smollm2.py --model gemma3    # writes benchmarks/results/gemma3.json; see benchmarks/gemma3.py
    python benchmarks/smollm2.py --quick           # smoke test: few questions, writes nothing without --out

| command                   | questions x seeds x samples                | tokens  | 2 cores, idle | at load 10 |
|---------------------------|--------------------------------------------|---------|---------------|------------|
| --quick                   | 4 + 2 (+ 6 with --data) x 2 x 8            | 1,500   | under 1 min   | 2 min      |
| (none)                    | 320 + 40 x 5 x 8                           | 85,000  | 12 min        | 55 min     |
| --data FOLDER             | 320 + 40 + 300 x 5 x 8, GSM8K 20 x 1       | 145,000 | 20 min        | 90 min     |
| any of them once more     | all samples are there: replay only         | 0       | 2 min         | 3 min      |

The last two columns are extrapolated from runs of 70 questions at load 10, not measured. A run that was stopped,
kill -9 included, goes on where it was: ``--pool`` (runs/MODEL) holds one JSON line a question with all its samples.
It knows their prompts and settings, and a run with others stops. Runs with and without --data may share it.

Every question is sampled at temperature 0 once and at 0.7 eight times for each of five seeds, after worked examples
that all questions of a family share (so they stay in the server's prompt cache), up to the end of the line.
A model that replays them in order gives all strategies the same samples: a request for n gets the next n. Strategies
run as they are, through ``Budgeted`` on a ledger. ``output`` counts sampled tokens; ``all`` counts the prompt of every
request, too; ``cached`` counts each question's prompt once, as if reading it again were free. A choice at random among
n samples is right as often as ``self-consistency 1`` and costs what n samples cost.

- ``gym``: four families of reasoning-gym, answered at once: gcd, products, letter_counting, chain_sum.
- ``gym, reasoned``: chain_sum of 2 to 4 terms, answered after worked reasoning, for what needs a length to look at.
- ``data``: 2WikiMultihopQA with its gold sentences given (FOLDER/twowiki_100, 100 questions, an answer is right if it
  is one of those listed, without case, articles and punctuation), and calculations taken from the worked answers of
  GSM8K (FOLDER/gsm8k, 200). GSM8K's own questions are hopeless for this model: 20 of them, greedily, show it.

Where a family has something that can be checked at run time without the reference, ``programmatic`` best-of-n uses it:
gcd: divides both numbers, the larger the better (this is exact); products and chain_sum: casting out nines (1 in 9
wrong answers passes); calculations: division by multiplying back (exact), else casting out nines; 2WikiMultihopQA:
all words of the answer stand in the passage or the question (weak). letter_counting has nothing, majority decides.
The check stands alone in two ways: ``vouched`` is the share of the questions whose answer passes it with a score of 1,
and ``right_if_vouched`` the accuracy of these; ``greedy first, checked 8`` returns the greedy answer unless it fails
and one of 7 samples passes, else the best score.

Intervals are percentile bootstraps that draw questions and seeds, paired: one strategy minus another on the same
questions, seeds and samples, greedy decoding among them. ``at_equal_output`` (``_all``, ``_cached``) compares with
self-consistency in one request of as many tokens in total, the two neighbouring n mixed in the proportion that gives
it; nothing stands there for what spends more than 8 samples.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import math
import os
import random
import re
import string
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.allocate import uniform
from budgeteer.core.errors import InvalidInput
from budgeteer.core.usage import Usage
from budgeteer.lab.stats import Paired, crossed, crossed_weights, wilson
from budgeteer.lab.tasks.files import final
from budgeteer.lab.tasks.gym import Gym
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.chat import Prompt
from budgeteer.models.llama_cpp import LlamaCpp
from budgeteer.models.model import LOGPROBS, SEED, Choice, Chunk, Finish, Model, Request, Response
from budgeteer.solve import Answer, Budgeted, Question, Strategy, Style, Task, derive
from budgeteer.solve.lines import Lines
from budgeteer.solve.styles import Example, TaskInfo, direct, few_shot
from budgeteer.strategies import (
    adaptive_vote,
    best_of_n,
    length_filtered_vote,
    self_consistency,
    split,
)
from budgeteer.strategies._split import agreement, gains
from budgeteer.strategies.aggregator import weighted_majority
from budgeteer.strategies.scorer import mean_logprob, programmatic
from budgeteer.verify import auto
from gemma3 import gemma3
from search import greedy_first

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "results"
MODELS = {"smollm2": "SmolLM2-135M-Instruct Q4_1", "gemma3": "Gemma 3 270M (base) Q4_K_M"}
SAMPLES, TEMPERATURE, SHOTS = 8, 0.7, 5
WHOLE = re.compile(r"-?\d+")
EXPRESSION = re.compile(r"\d+(?: [-+*] \d+)+")
OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b,
}  # fmt: skip
Check = Callable[[str, str], float]


@dataclass(frozen=True)
class Family:
    """Questions asked in one way.

    Attributes:
        items: (question, reference), the reference as the question's source has it.
        right: (number of the question, answer) -> whether it is.
        check: (question, answer) -> score at run time, without the reference; None = there is none.
        cap: tokens of a sample.
    """

    name: str
    part: str
    style: Style
    items: Sequence[tuple[str, Any]]
    right: Callable[[int, str | None], bool] = field(repr=False)
    check: Check | None = None
    cap: int = 8

    def score(self, question: str, trace: str) -> float:
        """For ``programmatic``; NaN where nothing can be checked, which leaves it to the majority."""
        answer = self.style.read(trace)
        return math.nan if self.check is None else 0.0 if answer is None else self.check(question, answer)


def divides(question: str, answer: str) -> float:
    """Size of a common divisor against the smaller number, 0 if it is none."""
    a, b = map(int, WHOLE.findall(question)[-2:])
    n = int(answer) if WHOLE.fullmatch(answer) else 0
    return n / min(a, b) if n > 0 and a % n == b % n == 0 else 0.0


def nines(question: str, answer: str) -> float:
    """Casting out nines: 1 if the answer and the sum or product agree modulo 9."""
    if not WHOLE.fullmatch(answer):
        return 0.0
    terms = EXPRESSION.findall(question)[-1].split()
    value = int(terms[0])
    for op, b in zip(terms[1::2], terms[2::2], strict=True):
        value = OPERATIONS[op](value, int(b)) % 9
    return float((value - int(answer)) % 9 == 0)


def works_out(question: str, answer: str) -> float:
    """A calculation of two numbers: division by multiplying back, all else by casting out nines."""
    a, op, b = question.removesuffix(" =").split()
    if op != "/":
        return nines(question, answer)
    return float(bool(WHOLE.fullmatch(answer)) and int(answer) * int(b) == int(a))


def words(text: str) -> str:
    """Without case, punctuation and articles, as question answering is scored."""
    plain = "".join(c if c not in string.punctuation else " " for c in text.lower())
    return " ".join(word for word in plain.split() if word not in ("a", "an", "the"))


def grounded(question: str, answer: str) -> float:
    """1 if all words of the answer stand in the passage or the question, or it is yes or no."""
    return float(answer in ("yes", "no") or set(answer.split()) <= set(words(question).split()))


def gym(
    family: str, part: str, size: int, check: Check | None, cap: int = 8, reasoning: bool = False, **settings: Any
) -> Family:
    """A family of reasoning-gym; the worked examples are problems of its own that are not asked, or our own ones."""
    drawn = Gym(family, size + SHOTS, 0, **settings)
    shots, asked = drawn.items[:SHOTS], drawn.items[SHOTS:]
    numeric = TaskInfo(family, True, () if reasoning else tuple(Example(i.prompt, "", i.answer) for i in shots))

    def right(number: int, answer: str | None) -> bool:
        return answer is not None and drawn.verify(asked[number], answer) >= 1

    style = few_shot(numeric) if reasoning else direct(numeric)
    name = f"{family}, reasoned" if reasoning else family
    return Family(name, part, style, [(item.prompt, item.answer) for item in asked], right, check, cap)


def gym_families(size: int, reasoned: int) -> list[Family]:
    """Part (b): settings at which the model is right between 10 and 90 % of the time."""
    terms = {"min_digits": 1, "max_digits": 1}
    return [
        gym("gcd", "gym", size, divides),
        gym("products", "gym", size, nines, min_terms=2, max_terms=2, min_digits=1, max_digits=1),
        gym("letter_counting", "gym", size, None, min_words=3, max_words=5),
        gym("chain_sum", "gym", size, nines, min_terms=2, max_terms=2, min_digits=1, max_digits=2),
        gym("chain_sum", "gym, reasoned", reasoned, nines, 40, True, min_terms=2, max_terms=4, **terms),
    ]


TWOWIKI = (
    Example("Ada Moor (born 3 May 1890) was a painter. Ben Holt (born 1 June 1902) was a poet. "
            "Who was born later, Ada Moor or Ben Holt?", "", "Ben Holt"),
    Example("Silver Lake is a 1987 film directed by Carl Weiss. Carl Weiss was born in Graz, Austria. "
            "Where was the director of film Silver Lake born?", "", "Graz, Austria"),
    Example("Hill School is a school in Leeds, England. Park School is in Boston, Massachusetts. "
            "Are Hill School and Park School located in the same country?", "", "no"),
    Example("Emma of Arden was the daughter of Hugh II. Hugh II was the son of Robert the Tall. "
            "Who is Emma of Arden's paternal grandfather?", "", "Robert the Tall"),
)  # fmt: skip


def data_families(folder: Path, wiki: int, calculations: int) -> list[Family]:
    """Part (c)."""
    rows = read(folder / "twowiki_100" / "questions.jsonl.gz")[:wiki]
    asked = [(" ".join((*row["gold_sentences"], row["question"])), row["answers"]) for row in rows]
    style = replace(direct(TaskInfo("2WikiMultihopQA", examples=TWOWIKI)), normal=words)

    def listed(number: int, answer: str | None) -> bool:
        return answer is not None and answer in {words(answered) for answered in asked[number][1]}

    shots = calculations_of(folder / "gsm8k" / "train_sample_2000.jsonl.gz")[:SHOTS]
    sums = calculations_of(folder / "gsm8k" / "test.jsonl.gz")[:calculations]

    def equal(number: int, answer: str | None) -> bool:
        return answer == sums[number][1]

    by_sum = direct(TaskInfo("calculations", True, tuple(Example(text, "", answer) for text, answer in shots)))
    return [
        Family("2WikiMultihopQA", "data", style, asked, listed, grounded, 16),
        Family("GSM8K calculations", "data", by_sum, sums, equal, works_out),
    ]


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of a compressed file of JSON lines."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def calculations_of(path: Path) -> list[tuple[str, str]]:
    """Distinct calculations with whole numbers of two terms, shuffled: (``"48 / 2 ="``, ``"24"``)."""
    pattern = re.compile(r"<<(\d{1,3})([-+*/])(\d{1,3})=(\d{1,4})>>")
    calculations = dict.fromkeys(match for row in read(path) for match in pattern.findall(row["answer"]))
    shuffled = sorted(calculations)
    random.Random(0).shuffle(shuffled)
    return [(f"{a} {op} {b} =", c) for a, op, b, c in shuffled]


def settings(family: Family, seeds: int) -> list[Any]:
    """What samples depend on besides the prompt."""
    return [seeds, SAMPLES, TEMPERATURE, family.cap]


async def draw(model: Model, family: Family, number: int, seeds: int, *, logprobs: bool = True) -> dict[str, Any]:
    """All samples of a question: (text, tokens, finish, mean log-probability), greedily and a list for each seed.

    Args:
        logprobs: whether to ask for log-probabilities; NaN without.
    """
    prompt = family.style.prompt(family.items[number][0])

    async def ask(n: int, temperature: float, seed: int) -> list[tuple[str, int, str, float]]:
        response = await model.generate(
            Request(prompt, family.cap, n, temperature, family.style.stop, seed=seed, logprobs=logprobs)
        )
        return [
            (c.text, c.tokens or 0, c.finish, sum(c.logprobs) / len(c.logprobs) if c.logprobs else math.nan)
            for c in response.choices
        ]

    greedy = (await ask(1, 0.0, 0))[0]
    samples = [await ask(SAMPLES, TEMPERATURE, derive(seed, family.name, number)) for seed in range(seeds)]
    return {
        "family": family.name, "number": number, "prompt": prompt, "input": model.count(prompt),
        "settings": settings(family, seeds), "greedy": greedy, "samples": samples,
    }  # fmt: skip


async def pool(
    families: Sequence[Family], seeds: int, path: Path, hopeless: Sequence[dict[str, Any]], weights: Path | None
) -> list[Any]:
    """The samples of all questions, and the greedy answers of those in ``hopeless``; what ``path`` has is not drawn
    again.

    Args:
        weights: GGUF file of the model; None = SmolLM2.

    Raises:
        InvalidInput: it has samples of other questions or settings.
    """
    lines = Lines(path, sync=False)
    rows = {(row["family"], row["number"]): row for row in lines.earlier}
    wanted = [(family, number) for family in families for number in range(len(family.items))]
    for family, number in wanted:
        row = rows.get((family.name, number))
        asked = [family.style.prompt(family.items[number][0]), settings(family, seeds)]
        if row and [row["prompt"], row["settings"]] != asked:
            raise InvalidInput(f"{path} holds samples of other questions or settings; give another folder with --pool")
    # family by family: the server keeps the worked examples of the last one read
    todo = [w for w in wanted if (w[0].name, w[1]) not in rows]
    solved = [number for number in range(len(hopeless)) if ("GSM8K", number) not in rows]
    if todo or solved:
        model, begin, tokens = LlamaCpp(weights, slots=SAMPLES, context=1024), time.monotonic(), 0
        try:
            style = few_shot(TaskInfo("GSM8K", True))
            for number in solved:
                prompt = style.prompt(hopeless[number]["question"])
                choice = (await model.generate(Request(prompt, 160, 1, 0.0, style.stop))).choices[0]
                row = {"family": "GSM8K", "number": number, "answer": style.read(choice.text), "tokens": choice.tokens}
                lines.append(row)
                rows["GSM8K", number] = row
            for done, (family, number) in enumerate(todo, 1):
                row = await draw(model, family, number, seeds)
                lines.append(row)
                rows[family.name, number] = row
                tokens += sum(sample[1] for samples in row["samples"] for sample in samples)
                past = time.monotonic() - begin
                print(
                    f"\r{done}/{len(todo)} questions, {tokens / past:.0f} tokens/s, "
                    f"{past * (len(todo) - done) / done / 60:.1f} min left ",
                    end="", file=sys.stderr, flush=True,
                )  # fmt: skip
        finally:
            await model.aclose()
            print(file=sys.stderr)
    lines.close()
    return [*(rows[f.name, n] for f, n in wanted), *(rows["GSM8K", n] for n in range(len(hopeless)))]


class Replay:
    """Hands out the samples of one seed in order: a request for n of a prompt gets the next n, cut at its cap.

    It starts again after the last one; no strategy here asks for more than there are. At temperature 0 that is the
    greedy answer.
    """

    name = "replay"
    capabilities = frozenset({SEED, LOGPROBS})

    def __init__(self, rows: Sequence[dict[str, Any]], seed: int) -> None:
        self.rows = {row["prompt"]: row for row in rows}
        self.seed = seed
        self.at: dict[str, int] = defaultdict(int)

    def count(self, prompt: Prompt) -> int:
        return int(self.rows[str(prompt)]["input"])

    async def generate(self, request: Request) -> Response:
        row = self.rows[str(request.prompt)]
        samples, start = row["samples"][self.seed], self.at[row["prompt"]]
        if request.temperature == 0:
            drawn = [row["greedy"]] * request.n
        else:
            self.at[row["prompt"]] += request.n
            drawn = [samples[(start + i) % len(samples)] for i in range(request.n)]
        choices = tuple(self._choice(*sample, request.max_tokens) for sample in drawn)
        return Response(choices, Usage(input=row["input"], output=sum(c.tokens or 0 for c in choices)))

    def _choice(self, text: str, tokens: int, finish: str, logprob: float, cap: int) -> Choice:
        if tokens > cap:  # how much of the text that was is not known: none of it counts
            text, tokens, finish = "", cap, Finish.LENGTH
        return Choice(text, tokens, finish, (logprob,) * tokens)

    async def stream(self, request: Request) -> AsyncIterator[Chunk | Response]:
        yield await self.generate(request)

    async def aclose(self) -> None:
        pass


Every = Callable[[Sequence[Task]], Any]


def one_by_one(make: Callable[[int], Strategy]) -> Every:
    """A strategy on every question; ``make`` is told the cap."""

    async def every(tasks: Sequence[Task], cap: int) -> dict[int, Answer]:
        strategy = make(cap)
        return {i: await strategy.solve(task) for i, task in enumerate(tasks)}

    return every


def strategies(part: str, checked: Check) -> dict[str, Every]:
    """Without a budget but the number of samples."""
    made = {
        "greedy": one_by_one(lambda cap: self_consistency(1, max_tokens=cap, temperature=0.0)),
        f"greedy first, checked {SAMPLES}": one_by_one(lambda cap: greedy_first(checked, SAMPLES, max_tokens=cap)),
    }
    for n in range(1, SAMPLES + 1):
        made[f"self-consistency {n}"] = one_by_one(lambda cap, n=n: self_consistency(n, max_tokens=cap))
    for risk in (0.0, 0.05, 0.1, 0.2):
        made[f"adaptive-vote risk={risk:g}"] = one_by_one(
            lambda cap, risk=risk: adaptive_vote(SAMPLES, risk=risk, max_tokens=cap)
        )
    made["adaptive-vote leads risk=0.2"] = one_by_one(
        lambda cap: adaptive_vote(SAMPLES, rule="leads", risk=0.2, max_tokens=cap)
    )
    scorers = {"logprob": (mean_logprob(), None), "logprob, weighted": (mean_logprob(), weighted_majority())}
    scorers["programmatic"] = (programmatic(checked), None)
    for label, (scorer, aggregate) in scorers.items():
        for n in (4, SAMPLES):
            made[f"best-of-n {label} {n}"] = one_by_one(
                lambda cap, n=n, s=scorer, a=aggregate: best_of_n(s, n, aggregate=a, max_tokens=cap)
            )
    made[f"best-of-n programmatic {SAMPLES}, enough"] = one_by_one(
        lambda cap: best_of_n(programmatic(checked), SAMPLES, enough=1.0, max_tokens=cap)
    )
    if part == "gym, reasoned":
        for width in (1, 2):
            made[f"length-filtered-vote width={width}"] = one_by_one(
                lambda cap, width=width: length_filtered_vote(SAMPLES, width, steps=sentences, max_tokens=cap)
            )
    return made


def sentences(thinking: str) -> int:
    """Steps of a trace on one line: its equations."""
    return thinking.count("=")


def in_total(**options: Any) -> Every:
    async def every(tasks: Sequence[Task], cap: int) -> dict[int, Answer]:
        return {i: answer async for i, answer in split(tasks, most=SAMPLES, max_tokens=cap, **options)}

    return every


SPLITS: dict[str, Callable[[], Every]] = {
    "split gains": lambda: in_total(show=gains),
    "split uniform": lambda: in_total(show=agreement, allocator=uniform(), risk=0.0),
    "split uniform, decided": lambda: in_total(show=agreement, allocator=uniform()),
}
SHARES = {"output": (0.4, 0.6), "all": (2.0,)}
"""Budgets in total, against self-consistency with 8. Every round sends the prompt again, which is most of ``all``."""


@dataclass(frozen=True)
class Measured:
    """What one strategy did: [seeds, questions] each."""

    right: np.ndarray
    vouched: np.ndarray
    output: np.ndarray
    all: np.ndarray
    cached: np.ndarray
    samples: np.ndarray


def play(
    every: Every, families: Sequence[Family], rows: Sequence[Any], seed: int, budget: int, unit: str
) -> list[list[float]]:
    """One seed of a strategy: what :class:`Measured` holds, of every question."""
    ledger, model = MemoryLedger(), Replay(rows, seed)
    ledger.open("bench", [Limit(unit, budget)])
    allowance = Allowance(ledger, "bench", {unit: budget})
    asked = [(family, number) for family in families for number in range(len(family.items))]
    tasks = [
        Task(
            Question(f"{family.name}:{number:04d}", family.items[number][0]),
            Budgeted(model, allowance), family.style, derive(seed, family.name, number),
        )
        for family, number in asked
    ]  # fmt: skip
    answers = asyncio.run(every(tasks, max(family.cap for family in families)))
    right = [float(family.right(number, answers[i].answer)) for i, (family, number) in enumerate(asked)]
    vouched = [
        float(any(
            family.style.read(trace) == answers[i].answer and family.score(task.question.text, trace) >= 1
            for trace in answers[i].traces
        ))
        for i, ((family, _), task) in enumerate(zip(asked, tasks, strict=True))
    ]  # fmt: skip
    output = [float(task.model.spend.usage.output or 0) for task in tasks]
    total = [o + (task.model.spend.usage.input or 0) for o, task in zip(output, tasks, strict=True)]
    if sum({"output": output, "all": total}[unit]) > budget:
        raise AssertionError("a strategy spent more than its budget")
    cached = [o + row["input"] for o, row in zip(output, rows, strict=True)]
    return [right, vouched, output, total, cached, [float(len(answers[i].traces)) for i in range(len(tasks))]]


def at_equal(own: Measured, consistency: Sequence[Measured], unit: str) -> np.ndarray | None:
    """Self-consistency at the tokens of ``own``: the mix of two neighbouring n; None beyond the largest, and one sample
    where ``own`` spends less than that."""
    spent = float(getattr(own, unit).mean())
    means = [float(getattr(measurement, unit).mean()) for measurement in consistency]
    if spent < means[0]:
        return consistency[0].right
    for low, high, a, b in zip(means, means[1:], consistency, consistency[1:], strict=False):
        if low <= spent <= high:
            weight = (spent - low) / (high - low)
            return np.asarray((1 - weight) * a.right + weight * b.right)
    return None


def compared(
    name: str, own: Measured, greedy: Measured, consistency: Sequence[Measured], weights: np.ndarray
) -> dict[str, Any]:
    """A row of a table: accuracy, tokens, and the differences to greedy and to self-consistency at equal tokens."""
    row: dict[str, Any] = {"name": name, "accuracy": shown(crossed(own.right, weights))}
    row["vouched"] = float(own.vouched.mean())
    row["right_if_vouched"] = float(own.right[own.vouched > 0].mean()) if own.vouched.any() else None
    for key in ("output", "all", "cached", "samples"):
        row[key] = float(getattr(own, key).mean())
    for key in ("output", "all", "cached"):
        row[f"{key}_share"] = row[key] / float(getattr(consistency[-1], key).mean())
        same = at_equal(own, consistency, key)
        row[f"at_equal_{key}"] = None if same is None else shown(crossed(own.right - same, weights))
    row["minus_greedy"] = shown(crossed(own.right - greedy.right, weights))
    return row


def analyse(part: str, families: Sequence[Family], rows: Sequence[Any], seeds: int) -> dict[str, Any]:
    """All strategies on one part."""
    of = {family.items[n][0]: family for family in families for n in range(len(family.items))}
    measured: dict[str, Measured] = {}

    def run(name: str, every: Every, unit: str = "output", budget: list[int] | None = None) -> None:
        played = [play(every, families, rows, seed, budget[seed] if budget else 10**12, unit) for seed in range(seeds)]
        measured[name] = Measured(*(np.array(column) for column in zip(*played, strict=True)))

    for name, every in strategies(part, lambda q, trace: of[q].score(q, trace)).items():
        run(name, every)
    consistency = [measured[f"self-consistency {n}"] for n in range(1, SAMPLES + 1)]
    for unit, shares in SHARES.items():
        full = getattr(consistency[-1], unit).sum(1)
        for share in shares:
            for name, make in SPLITS.items():
                budget = [int(share * full_tokens) for full_tokens in full]
                run(f"{name}, {share:.0%} of {unit}", make(), unit=unit, budget=budget)

    count = len(rows)
    weights = crossed_weights(count, seeds)
    bounds = np.cumsum([0, *(len(family.items) for family in families)])
    table = []
    for name, own in measured.items():
        row = compared(name, own, measured["greedy"], consistency, weights)
        row["minus_sc8"] = shown(crossed(own.right - consistency[-1].right, weights))
        row["by_family"] = {
            family.name: float(own.right[:, a:b].mean())
            for family, a, b in zip(families, bounds, bounds[1:], strict=False)
        }
        table.append(row)
    pairs = []
    wanted = [(f"best-of-n programmatic {SAMPLES}, enough", f"greedy first, checked {SAMPLES}", "all")]
    for name in measured:
        if name.startswith("split gains, "):
            unit = name.rpartition(" ")[2]
            wanted += [(name, name.replace("split gains", other, 1), unit) for other in list(SPLITS)[1:]]
    for name, other, unit in wanted:
        own, theirs = measured[name], measured[other]
        pairs.append({
            "name": name, "against": other, "difference": shown(crossed(own.right - theirs.right, weights)),
            "unit": unit, "tokens": [float(getattr(measurement, unit).mean()) for measurement in (own, theirs)],
        })  # fmt: skip
    oracle = {
        family.name: float(np.mean([
            [any(family.right(row["number"], family.style.read(s[0])) for s in samples) for samples in row["samples"]]
            for row in rows if row["family"] == family.name
        ]))
        for family in families
    }  # fmt: skip
    return {
        "questions": count, "families": {f.name: {"questions": len(f.items), "cap": f.cap} for f in families},
        "oracle": oracle, "table": table, "pairs": pairs,
    }  # fmt: skip


def shown(ci: Paired) -> dict[str, float]:
    """As JSON."""
    return {"mean": ci.mean, "low": ci.low, "high": ci.high}


def text(part: str, results: dict[str, Any]) -> str:
    """The table of a part."""

    def interval(ci: dict[str, float] | None) -> str:
        return f"{'-':>25}" if ci is None else f"{ci['mean']:+.3f} [{ci['low']:+.3f}, {ci['high']:+.3f}]"

    names = list(results["families"])
    lines = [
        f"\n{part}: {results['questions']} questions; right in any of {SAMPLES}: "
        + ", ".join(f"{name} {value:.2f}" for name, value in results["oracle"].items()),
        f"{'strategy':38}  accuracy  {'minus greedy':25} {'at equal output':25} {'at equal all':25} "
        f"{'at equal cached':25} output   all cached  samples  vouched, right  {', '.join(names)}",
    ]
    lines += [
        f"{row['name']:38}  {row['accuracy']['mean']:8.3f}  {interval(row['minus_greedy']):25} "
        + "".join(f"{interval(row[f'at_equal_{key}']):25} " for key in ("output", "all", "cached"))
        + f"{row['output_share']:6.2f} {row['all_share']:5.2f} {row['cached_share']:6.2f} {row['samples']:8.1f}  "
        f"{row['vouched']:7.2f}, {row['right_if_vouched'] or 0:5.2f}  "
        + ", ".join(f"{row['by_family'][name]:.2f}" for name in names)
        for row in results["table"]
    ]
    lines += [
        f"{row['name']} - {row['against']}: {interval(row['difference'])}, "
        f"{row['unit']} tokens {row['tokens'][0]:.1f} and {row['tokens'][1]:.1f} a question"
        for row in results["pairs"]
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one question a family of reasoning-gym, 2 seeds")
    parser.add_argument("--data", type=Path, help="folder with twowiki_100 and gsm8k; without it that part is left out")
    parser.add_argument("--each", type=int, help="questions of each family of reasoning-gym (80, reasoned ones 40)")
    parser.add_argument("--model", choices=tuple(MODELS), default="smollm2", help="default %(default)s")
    parser.add_argument("--pool", type=Path, help="folder of the samples (runs/MODEL, with --quick runs/MODEL-quick)")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    size, reasoned, wiki, sums, hopeless, seeds = (1, 2, 3, 3, 1, 2) if args.quick else (80, 40, 100, 200, 20, 5)
    families = gym_families(args.each or size, args.each or reasoned)
    problems: list[dict[str, Any]] = []
    if args.data is not None:
        families += data_families(args.data, wiki, sums)
        problems = read(args.data / "gsm8k" / "test.jsonl.gz")[:hopeless]
    folder = args.pool or ROOT / "runs" / (f"{args.model}-quick" if args.quick else args.model)
    weights = gemma3(folder) if args.model == "gemma3" else None
    begin = time.monotonic()
    rows = asyncio.run(pool(families, seeds, folder / "samples.jsonl", problems, weights))
    sampled = time.monotonic() - begin
    result: dict[str, Any] = {
        "model": f"{MODELS[args.model]}, llama.cpp's server", "seeds": seeds, "samples": SAMPLES,
        "temperature": TEMPERATURE, "shots": SHOTS, "parts": {}, "cpus": os.cpu_count(), "sampling_seconds": sampled,
    }  # fmt: skip
    if problems:
        said = [row["answer"] for row in rows if row["family"] == "GSM8K"]
        right = sum(auto(answer, final(p["answer"])) for answer, p in zip(said, problems, strict=True))
        result["gsm8k_greedy"] = {"right": right, "questions": len(said), **shown(wilson(right, len(said)))}
    for part in dict.fromkeys(family.part for family in families):
        own = [family for family in families if family.part == part]
        names = {family.name for family in own}
        results = analyse(part, own, [row for row in rows if row["family"] in names], seeds)
        result["parts"][part] = results
        print(text(part, results), flush=True)
    if problems:
        print(f"\nGSM8K's own questions, greedily: {result['gsm8k_greedy']}")
    out = args.out or (None if args.quick else OUT / f"{args.model}.json")
    if out is not None:
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
