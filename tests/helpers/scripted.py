"""A scripted model: what a strategy's tests are written against."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable

from budgeteer.core.usage import Usage
from budgeteer.models.model import LENGTH, LOGPROBS, PREFIX, SEED, STOP, Choice, Chunk, Message, Request, Response


class Scripted:
    """Answers by a function (prompt, rng) -> text; one token a character, so that every count can be done by hand.

    Choice i of seed s draws from ``random.Random(f"{s} {i} {prompt}")``. Stop texts and the cap are honoured.
    """

    name = "scripted"
    capabilities = frozenset({PREFIX, LOGPROBS, SEED})

    def __init__(self, write: Callable[[str, random.Random], str]) -> None:
        self.write = write
        self.requests: list[Request] = []

    def count(self, prompt: str | tuple[Message, ...]) -> int:
        return len(prompt) if isinstance(prompt, str) else sum(len(m.content) for m in prompt)

    def _choice(self, request: Request, i: int) -> Choice:
        prompt = request.prompt if isinstance(request.prompt, str) else request.prompt[-1].content
        text = self.write(prompt, random.Random(f"{request.seed} {i} {prompt}"))
        ends = [(text.index(stop), len(stop)) for stop in request.stop if stop in text]
        sampled = text
        if ends:
            at, size = min(ends)
            text, sampled = text[:at], text[: at + size]
        finish = STOP
        if len(sampled) > request.max_tokens:
            text, finish = text[: request.max_tokens], LENGTH
        tokens = max(1, min(len(sampled), request.max_tokens))
        return Choice(text, tokens, finish, (-0.5,) * tokens if request.logprobs else None)

    async def generate(self, request: Request) -> Response:
        self.requests.append(request)
        choices = tuple(self._choice(request, i) for i in range(request.n))
        output = sum(choice.tokens or 0 for choice in choices)
        return Response(choices, Usage(input=self.count(request.prompt), output=output))

    async def stream(self, request: Request) -> AsyncIterator[Chunk | Response]:
        response = await self.generate(request)
        for i, choice in enumerate(response.choices):
            for letter in choice.text:
                yield Chunk(i, letter)
        yield response

    async def aclose(self) -> None:
        pass


def write(prompt, rng):
    """Right in two of three: the answer of a chain, or the wrong one, after some thinking."""
    value, *steps = prompt[31:-2].split(" ")
    total = int(value)
    for op, b in zip(steps[::2], steps[1::2], strict=True):
        total = {"+": total + int(b), "-": total - int(b), "*": total * int(b)}[op] % 11
    return "x" * rng.randint(0, 9) + f"</think>{total if rng.random() < 0.67 else (total + 1) % 11}\n"
