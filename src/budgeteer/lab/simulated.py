"""A simulated model for experiments: a function writes the text, so that the truth about every question is known."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.model import LENGTH, PREFIX, SEED, STOP, Choice, Chunk, Message, Request, Response
from budgeteer.solve import Answer, Budgeted, Question, Strategy, Style, Task
from budgeteer.usage import Usage

UNLIMITED = 10**12


class Simulated:
    """Writes by a function (prompt, rng) -> text, with one token a word (a text without blanks is one word).

    Choice i of a seed and prompt is always the same. Stop texts and the cap are honoured; a stop text is one token.
    """

    name = "simulated"
    capabilities = frozenset({PREFIX, SEED})

    def __init__(self, write: Callable[[str, random.Random], str]) -> None:
        self._write = write

    def count(self, prompt: str | tuple[Message, ...]) -> int:
        """Words."""
        text = prompt if isinstance(prompt, str) else " ".join(message.content for message in prompt)
        return len(text.split())

    def _choice(self, request: Request, i: int) -> Choice:
        prompt = request.prompt if isinstance(request.prompt, str) else request.prompt[-1].content
        text = self._write(prompt, random.Random(f"{request.seed} {i} {prompt}"))
        at = min((place for stop in request.stop if (place := text.find(stop)) >= 0), default=-1)
        text, ended = (text[:at], 1) if at >= 0 else (text, 0)
        words = text.split(" ")
        if len(words) + ended > request.max_tokens:
            return Choice(" ".join(words[: request.max_tokens]), request.max_tokens, LENGTH)
        return Choice(text, len(words) + ended, STOP)

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
