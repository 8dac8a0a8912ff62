"""A model whose texts a function writes: for tests, checks and experiments, in which the truth has to be known."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable

from budgeteer.core.usage import Usage
from budgeteer.models.chat import Prompt, contents
from budgeteer.models.model import LOGPROBS, PREFIX, SEED, Choice, Chunk, Finish, Request, Response

Write = Callable[[str, random.Random], str]
"""(prompt, generator of this choice) -> all that would follow; of a chat, the prompt is its last message and what the
model has written so far."""
ALL = frozenset({PREFIX, LOGPROBS, SEED})
"""What a scripted model can do."""


class Scripted:
    """Answers by a function; stop texts and the cap are honoured, and every count can be done by hand.

    Choice i of seed s draws from ``random.Random(f"{s} {i} {prompt}")``.

    Args:
        write: all that would follow the prompt.
        capabilities: what the model declares.
        characters: a token is a character; otherwise it is a word between blanks, and a stop text is one token.

    >>> import asyncio
    >>> model = Scripted(lambda prompt, rng: "4. Sure")
    >>> response = asyncio.run(model.generate(Request("2 + 2 =", 10, stop=(".",))))
    >>> response.choices[0].text, response.usage.input, response.usage.output
    ('4', 7, 2)
    """

    name = "scripted"

    def __init__(self, write: Write, *, capabilities: frozenset[str] = ALL, characters: bool = True) -> None:
        self.write, self.capabilities, self._blank = write, capabilities, "" if characters else " "
        self.requests: list[Request] = []
        """All that were asked, in order."""

    def count(self, prompt: Prompt) -> int:
        """Tokens of a prompt, or of all messages of a chat."""
        text = prompt if isinstance(prompt, str) else self._blank.join([*contents(prompt)])
        return len(text.split()) if self._blank else len(text)

    async def generate(self, request: Request) -> Response:
        """All choices at once; every sampled token has the log-probability -0.5."""
        self.requests.append(request)
        choices = tuple(self._choice(request, i) for i in range(request.n))
        output = sum(choice.tokens or 0 for choice in choices)
        return Response(choices, Usage(input=self.count(request.prompt), output=output))

    async def stream(self, request: Request) -> AsyncIterator[Chunk | Response]:
        """Letter by letter, where a token is a character, else each choice in one piece."""
        response = await self.generate(request)
        for i, choice in enumerate(response.choices):
            for piece in [choice.text] if self._blank else choice.text:
                yield Chunk(i, piece, (choice.tokens or 0) if self._blank else 1)
        yield response

    async def aclose(self) -> None:
        """Nothing to release."""

    def _asked(self, request: Request) -> str:
        """The part of a prompt that decides what is written."""
        prompt = request.prompt
        return prompt if isinstance(prompt, str) else prompt.messages[-1].content + prompt.begun

    def _generator(self, request: Request, i: int) -> random.Random:
        return random.Random(f"{request.seed} {i} {self._asked(request)}")

    def _choice(self, request: Request, i: int) -> Choice:
        text = self.write(self._asked(request), self._generator(request, i))
        at, stop = min(((text.index(stop), stop) for stop in request.stop if stop in text), default=(len(text), ""))
        text, ended = text[:at], min(len(stop), 1) if self._blank else len(stop)
        words = text.split(" ") if self._blank else list(text)
        tokens, finish = max(1, min(len(words) + ended, request.max_tokens)), Finish.STOP
        if len(words) + ended > request.max_tokens:
            text, finish = self._blank.join(words[: request.max_tokens]), Finish.LENGTH
        return Choice(text, tokens, finish, (-0.5,) * tokens if request.logprobs else None)
