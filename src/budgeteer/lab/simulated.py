"""A simulated model for experiments: a function writes the text, so that the truth about every question is known."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from budgeteer.core.plan import F64
from budgeteer.core.usage import Usage
from budgeteer.lab.asking import Case, solve_each
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.model import LENGTH, PREFIX, SEED, STOP, Choice, Chunk, Message, Model, Request, Response
from budgeteer.solve import Answer, Budgeted, Question, Strategy, Style, Task

UNLIMITED = 10**12
Write = Callable[[str, random.Random], str]
"""(prompt, generator of this choice) -> all that would follow."""


class Simulated:
    """Writes by a function (prompt, rng) -> text.

    Choice i of a seed and prompt is always the same. Stop texts and the cap are honoured.

    Args:
        write: all that would follow the prompt.
        characters: a token is a character; else it is a word between blanks, and a stop text is one token.
    """

    name = "simulated"
    capabilities = frozenset({PREFIX, SEED})

    def __init__(self, write: Write, *, characters: bool = False) -> None:
        self.write, self._blank = write, "" if characters else " "

    def count(self, prompt: str | tuple[Message, ...]) -> int:
        """Tokens."""
        text = prompt if isinstance(prompt, str) else self._blank.join(message.content for message in prompt)
        return len(text.split()) if self._blank else len(text)

    def _choice(self, request: Request, i: int) -> Choice:
        prompt = request.prompt if isinstance(request.prompt, str) else request.prompt[-1].content
        text = self.write(prompt, random.Random(f"{request.seed} {i} {prompt}"))
        at, stop = min(((text.index(s), s) for s in request.stop if s in text), default=(len(text), ""))
        text, ended = text[:at], min(len(stop), 1) if self._blank else len(stop)
        tokens = text.split(" ") if self._blank else list(text)
        if len(tokens) + ended > request.max_tokens:
            return Choice(self._blank.join(tokens[: request.max_tokens]), request.max_tokens, LENGTH)
        return Choice(text, max(1, len(tokens) + ended), STOP)

    async def generate(self, request: Request) -> Response:
        """All choices at once."""
        choices = tuple(self._choice(request, i) for i in range(request.n))
        return Response(
            choices, Usage(input=self.count(request.prompt), output=sum(choice.tokens or 0 for choice in choices))
        )

    async def stream(self, request: Request) -> AsyncIterator[Chunk | Response]:
        """In one piece."""
        response = await self.generate(request)
        for i, choice in enumerate(response.choices):
            yield Chunk(i, choice.text, choice.tokens or 0)
        yield response

    async def aclose(self) -> None:
        """Nothing to let go of."""


PLAIN = Style(lambda text: text + " ", lambda rest: rest.strip() or None, close="#", stop=("\n",), answer_tokens=2)
"""``question`` -> ``thinking#answer`` and a newline."""


def tasks_of(
    model: Simulated, questions: Iterable[str], seed: int, *, budget: int = UNLIMITED, unit: str = "output"
) -> list[Task]:
    """One task a question, all on one allowance of a fresh ledger."""
    ledger = MemoryLedger()
    ledger.open("lab", [Limit(unit, budget)])
    allowance = Allowance(ledger, "lab", {unit: budget})
    return [
        Task(Question(f"{i:04d}", text), Budgeted(model, allowance), PLAIN, seed * 100_003 + i)
        for i, text in enumerate(questions)
    ]


def answers_of(strategy: Strategy, tasks: Sequence[Task]) -> list[Answer]:
    """Of one question after the other."""

    async def every() -> list[Answer]:
        return [await strategy.solve(task) for task in tasks]

    return asyncio.run(every())


def tokens_of(tasks: Sequence[Task]) -> int:
    """Output tokens of all of them."""
    return sum(task.model.spend.usage.output or 0 for task in tasks)


class Run(NamedTuple):
    """Answers of all questions in order, with tokens [n] of input and output and calls [n]."""

    answers: list[Answer]
    input: F64
    output: F64
    calls: F64

    def score(self, references: Iterable[str]) -> F64:
        """1 for each right answer, [n]."""
        return np.array([float(a.answer == r) for a, r in zip(self.answers, references, strict=True)])


def play(
    strategy: Strategy, questions: Iterable[str], style: Style, model: Model, *, budget: int, kind: str, seed: int
) -> Run:
    """Answer each question with a budget of its own, all at the same time.

    Args:
        budget: units a question, of ``kind``: ``"output"`` or ``"all"``.
    """

    cases = (Case(Question(text, text), seed) for text in questions)
    found = solve_each(strategy, model, cases, style, kind=kind, budget=budget)
    spends = [spend for _, spend in found]
    return Run(
        [answer for answer, _ in found],
        np.array([float(s.usage.input or 0) for s in spends]),
        np.array([float(s.usage.output or 0) for s in spends]),
        np.array([float(s.calls) for s in spends]),
    )
