"""A simulated model for experiments on strategies: what it writes is a function, and a token is a character."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable
from typing import NamedTuple

import numpy as np

from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.model import LENGTH, PREFIX, SEED, STOP, Choice, Chunk, Message, Model, Request, Response
from budgeteer.plan import F64
from budgeteer.solve import Answer, Budgeted, Question, Strategy, Style, Task
from budgeteer.usage import Usage

Write = Callable[[str, random.Random], str]
"""(prompt, generator of this choice) -> all that would follow."""


class Simulated:
    """Continues prompts by a function. Choice i of a seed draws from ``Random(f"{seed} {i} {prompt}")``."""

    name = "simulated"
    capabilities = frozenset({PREFIX, SEED})

    def __init__(self, write: Write) -> None:
        self.write = write

    def count(self, prompt: str | tuple[Message, ...]) -> int:
        """Characters."""
        return len(prompt) if isinstance(prompt, str) else sum(len(m.content) for m in prompt)

    async def generate(self, request: Request) -> Response:
        """All choices of a request."""
        assert isinstance(request.prompt, str)
        choices = tuple(self._choice(request, request.prompt, i) for i in range(request.n))
        return Response(
            choices, Usage(input=self.count(request.prompt), output=sum(choice.tokens or 0 for choice in choices))
        )

    def _choice(self, request: Request, prompt: str, i: int) -> Choice:
        text = self.write(prompt, random.Random(f"{request.seed} {i} {prompt}"))
        at, size = min(((text.index(s), len(s)) for s in request.stop if s in text), default=(len(text), 0))
        text, tokens = text[:at], at + size
        if tokens > request.max_tokens:
            return Choice(text[: request.max_tokens], request.max_tokens, LENGTH)
        return Choice(text, max(1, tokens), STOP)

    async def stream(self, request: Request) -> AsyncIterator[Chunk | Response]:
        """The Response at once."""
        yield await self.generate(request)

    async def aclose(self) -> None:
        """Nothing to let go of."""


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

    async def one(text: str) -> tuple[Answer, Budgeted]:
        ledger = MemoryLedger()
        ledger.open("q", [Limit(kind, budget)])
        charged = Budgeted(model, Allowance(ledger, "q", {kind: budget}))
        return await strategy.solve(Task(Question(text, text), charged, style, seed)), charged

    async def all_of() -> list[tuple[Answer, Budgeted]]:
        return await asyncio.gather(*(one(text) for text in questions))

    found = asyncio.run(all_of())
    spends = [model.spend for _, model in found]
    return Run(
        [answer for answer, _ in found],
        np.array([float(s.usage.input or 0) for s in spends]),
        np.array([float(s.usage.output or 0) for s in spends]),
        np.array([float(s.calls) for s in spends]),
    )
