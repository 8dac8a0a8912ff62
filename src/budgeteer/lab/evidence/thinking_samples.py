"""Votes, choices and splits on samples of the thinking model: do they beat what is simpler, at what they cost?

300 held-out problems (sums, stories, comparisons, sorting, dates), 5 seeds of 32 traces at temperature 1 up to 400
tokens, and a greedy trace. They were drawn once (``benchmarks/thinker_pool.py``) and lie in this package, each as its
answer, tokens, mean log-probability and what the check says (``benchmarks/search_thinker.py --compact``). Strategies
run as they are on a model that hands them out in order, so that all see the same ones. The check: are the calculations
that a trace writes out right? Tokens count the prompt of every request. Intervals are over seeds, which share the
problems; those of ``benchmarks/search_thinker.py`` draw problems, too, and are wider: there the check is not told apart
from greedy decoding (+2.2 points [-1.8, +6.3]).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from budgeteer.allocate import uniform
from budgeteer.core.usage import Usage
from budgeteer.lab.evidence import ABOVE_ZERO, Evidence, Region, declare, measured
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.chat import Prompt
from budgeteer.models.model import LOGPROBS, SEED, Choice, Chunk, Finish, Request, Response
from budgeteer.solve import Answer, Budgeted, Question, Strategy, Style, Task
from budgeteer.strategies import adaptive_vote, best_of_majority, best_of_n, self_consistency, split
from budgeteer.strategies._split import agreement, gains
from budgeteer.strategies.scorer import mean_logprob, programmatic

SAMPLES, CAP, SEEDS, NONE = 32, 400, 5, 255
FILE = Path(__file__).with_suffix(".npz")
STYLE = Style(str, lambda rest: rest.strip() or None, close="#")
GREEDY, VOTES = "greedy decoding", f"self-consistency with {SAMPLES} samples"

DECLARED = declare(
    "thinking model",
    claims=(
        "votes, one sample",
        "votes, greedy",
        "adaptive vote, tokens",
        "adaptive vote, accuracy",
        "adaptive vote, greedy",
        "best of n by log-probability, votes",
        "best of n by log-probability, greedy",
        "best of majority, best of n",
        "best of majority, greedy",
        "best of n checked, votes",
        "best of n checked, greedy",
        "split, uniform",
        "split, one request",
        "split, greedy",
    ),
)


class Traces(NamedTuple):
    """All samples: [questions, seeds, 33], the greedy trace last.

    Attributes:
        answers: number of the answer among its question's; NONE = none.
        holds: share of the calculations that are right; NaN where there is none.
        right: [questions, 255], which answers are.
        read: [questions], tokens of the prompt.
    """

    answers: Any
    tokens: Any
    logprobs: Any
    holds: Any
    right: Any
    read: Any


@lru_cache
def traces() -> Traces:
    """Of the file."""
    with np.load(FILE) as stored:
        return Traces(*(stored[name] for name in Traces._fields))


class Drawn:
    """Hands out the samples of a seed in order; question i is its number, a trace is ``check#answer``."""

    name, context = "thinker", None
    capabilities = frozenset({SEED, LOGPROBS})

    def __init__(self, seed: int) -> None:
        self.seed, self.at = seed, [0] * len(traces().read)

    def count(self, prompt: Prompt) -> int:
        return int(traces().read[int(str(prompt))])

    async def generate(self, request: Request) -> Response:
        question, n = int(str(request.prompt)), request.n
        start = SAMPLES if request.temperature == 0 else self.at[question]
        if request.temperature:
            self.at[question] += n
        choices = tuple(self._choice(question, at) for at in range(start, start + n))
        output = sum(choice.tokens or 0 for choice in choices)
        return Response(choices, Usage(input=self.count(request.prompt), output=output))

    def _choice(self, question: int, at: int) -> Choice:
        every = traces()
        answer, tokens, logprob, holds = (
            column[question, self.seed, at] for column in (every.answers, every.tokens, every.logprobs, every.holds)
        )
        text = f"{holds}#{answer}\n" if answer != NONE else f"{holds}"
        finish = Finish.STOP if answer != NONE else Finish.LENGTH
        return Choice(text, int(tokens), finish, (float(logprob),) * int(tokens))

    async def stream(self, request: Request) -> AsyncIterator[Chunk | Response]:
        yield await self.generate(request)

    async def aclose(self) -> None:
        pass


class Played(NamedTuple):
    """A seed of a strategy: share of right answers, tokens of output and of all kinds a question."""

    accuracy: float
    output: float
    all: float


def tasks_of(seed: int, budget: int) -> list[Task]:
    """One a question, with ``budget`` output tokens for all."""
    ledger, model = MemoryLedger(), Drawn(seed)
    ledger.open("lab", [Limit("output", budget)])
    allowance = Allowance(ledger, "lab", {"output": budget})
    numbers = range(len(traces().read))
    return [Task(Question(f"{i:04d}", str(i)), Budgeted(model, allowance), STYLE, seed * 1000 + i) for i in numbers]


def told(tasks: list[Task], answers: list[Answer]) -> Played:
    """Of these answers."""
    right = [a.answer is not None and traces().right[i, int(a.answer)] for i, a in enumerate(answers)]
    usages = [task.model.spend.usage for task in tasks]
    output = float(np.mean([usage.output or 0 for usage in usages]))
    return Played(float(np.mean(right)), output, output + float(np.mean([usage.input or 0 for usage in usages])))


def play(strategy: Strategy, seed: int) -> Played:
    """A strategy on every question."""
    tasks = tasks_of(seed, 10**12)

    async def every() -> list[Answer]:
        return [await strategy.solve(task) for task in tasks]

    return told(tasks, asyncio.run(every()))


def spread(seed: int, budget: int, **options: Any) -> Played:
    """A split of a budget of output tokens over all questions."""
    tasks = tasks_of(seed, budget)

    async def every() -> dict[int, Answer]:
        return {i: answer async for i, answer in split(tasks, most=SAMPLES, max_tokens=CAP, **options)}

    found = asyncio.run(every())
    return told(tasks, [found[i] for i in range(len(tasks))])


def checked(question: str, trace: str) -> float:
    """The share of right calculations, which stands before the answer; NaN where there is none."""
    return float(trace.partition("#")[0])


def experiments(seeds: int = SEEDS) -> list[Evidence]:
    """Every method beside what is simpler."""
    cap: dict[str, Any] = {"max_tokens": CAP}
    strategies = {
        GREEDY: self_consistency(1, temperature=0.0, **cap),
        "one sample": self_consistency(1, **cap),
        "self-consistency with 16 samples": self_consistency(16, **cap),
        VOTES: self_consistency(SAMPLES, **cap),
        "adaptive vote": adaptive_vote(SAMPLES, **cap),
        "best of n by log-probability": best_of_n(mean_logprob(), SAMPLES, **cap),
        "best of majority": best_of_majority(mean_logprob(), SAMPLES, alpha=0.2, **cap),
        "best of n checked": best_of_n(programmatic(checked), SAMPLES, **cap),
    }
    played = {name: [play(strategy, seed) for seed in range(seeds)] for name, strategy in strategies.items()}
    budgets = [int(0.4 * own.output * len(traces().read)) for own in played[VOTES]]
    splits: dict[str, dict[str, Any]] = {
        "split": {"show": gains},
        "split with uniform": {"show": agreement, "allocator": uniform(), "risk": 0.0},
    }
    for name, options in splits.items():
        played[name] = [spread(seed, budget, **options) for seed, budget in enumerate(budgets)]

    def beside(name: str, ours: str, theirs: str, region: Region = ABOVE_ZERO) -> Evidence:
        """Accuracy, less that of another."""
        own, other = played[ours], played[theirs]
        spent = [float(np.mean([one.all for one in each])) for each in (own, other)]
        where = "above" if region == ABOVE_ZERO else f"within {region[1]:g} of"
        return measured(
            name,
            [a.accuracy - b.accuracy for a, b in zip(own, other, strict=True)],
            region,
            claim=f"on these problems, {ours}: the accuracy is {where} that of {theirs} (difference)",
            baseline=theirs,
            budget=f"{spent[0]:,.0f} tokens a question against {spent[1]:,.0f}",
            details=[{"accuracy": a.accuracy, "baseline": b.accuracy} for a, b in zip(own, other, strict=True)],
        )

    votes, fewer = played[VOTES], played["adaptive vote"]
    return [
        beside("votes, one sample", VOTES, "one sample"),
        beside("votes, greedy", VOTES, GREEDY),
        measured(
            "adaptive vote, tokens",
            [a.all / b.all for a, b in zip(fewer, votes, strict=True)],
            (0.0, 0.6),
            claim="adaptive vote: all tokens are below 0.6 of those of self-consistency (ratio)",
            baseline=VOTES,
            budget=f"at most {SAMPLES} samples a question",
        ),
        beside("adaptive vote, accuracy", "adaptive vote", VOTES, (-0.02, 0.02)),
        beside("adaptive vote, greedy", "adaptive vote", GREEDY),
        *(
            beside(f"{ours}, {short}", ours, theirs)
            for ours in ("best of n by log-probability", "best of n checked")
            for short, theirs in (("votes", VOTES), ("greedy", GREEDY))
        ),
        beside("best of majority, best of n", "best of majority", "best of n by log-probability"),
        beside("best of majority, greedy", "best of majority", GREEDY),
        beside("split, uniform", "split", "split with uniform"),
        beside("split, one request", "split", "self-consistency with 16 samples"),
        beside("split, greedy", "split", GREEDY),
    ]
