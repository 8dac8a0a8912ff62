"""The scripted model that strategies, scorers and splits over questions are checked on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any

from budgeteer.check.scripted import Scripted
from budgeteer.core.errors import InvalidInput, ModelError
from budgeteer.core.usage import Usage
from budgeteer.models.chat import Chat, Message, Prompt, call_of, contents
from budgeteer.models.model import PREFIX, Choice, Finish, Request, Response
from budgeteer.solve import Question, Style
from budgeteer.solve.tool import Tool

CLOSE = "</think>"
QUESTION = Question("q", "2 + 2 =")


class ToyModel(Scripted):
    """A model for checks: it thinks some steps, closes, and mostly answers 4. A token is a character; 0 is greedy.

    Args:
        capabilities: that it declares.
        fail: share of calls that raise a ModelError; as many of the others are cut off.
    """

    name = "toy"

    def __init__(self, capabilities: frozenset[str], *, seed: int = 0, fail: float = 0.0) -> None:
        super().__init__(_think, capabilities=capabilities)
        self.fail, self.rng = fail, random.Random(f"fail {seed}")
        self.used = 0
        """Tokens in and out of the calls that were answered."""
        self.answers = 0
        """Whole traces of the question that end with an answer."""

    def _asked(self, request: Request) -> str:
        return text_of(request.prompt)

    def _generator(self, request: Request, i: int) -> random.Random:
        return super()._generator(request, i) if request.temperature else random.Random(self._asked(request))

    async def generate(self, request: Request) -> Response:
        self.requests.append(request)
        if isinstance(request.prompt, str) and PREFIX not in self.capabilities:
            raise InvalidInput("the scripted chat model does not continue raw text")
        await asyncio.sleep(0)
        draw = self.rng.random()
        if draw < self.fail:
            raise ModelError("the scripted model fails here", billed=draw < self.fail / 2)
        choices = [self._choice(request, i) for i in range(request.n)]
        if self.fail and draw > 1 - self.fail / 2:
            choices = [Choice(c.text[: len(c.text) // 2], None, Finish.CUT) for c in choices]
        prompt = text_of(request.prompt)
        forced = prompt.startswith(QUESTION.text) and prompt.endswith(CLOSE)
        if forced or prompt == QUESTION.text:
            texts = [CLOSE * forced + c.text for c in choices if c.finish == Finish.STOP]
            self.answers += sum(bool(text.partition(CLOSE)[2].strip()) for text in texts)
        output = sum(len(c.text) if c.tokens is None else c.tokens for c in choices)
        usage = Usage(input=self.count(request.prompt), output=output)
        self.used += (usage.input or 0) + (usage.output or 0)
        return Response(tuple(choices), usage)


class CallingModel(ToyModel):
    """A toy that calls the tool ``look``, mostly, whatever it is asked."""

    def _choice(self, request: Request, i: int) -> Choice:
        if self._generator(request, i).random() < 0.2:
            return super()._choice(request, i)
        text = call_of("look", '{"at": "it"}')[: request.max_tokens]
        return Choice(text, len(text), Finish.STOP if text.endswith(">") else Finish.LENGTH)


def toy_tools() -> tuple[Tool, ...]:
    """A tool for strategies that call tools."""

    async def look(arguments: Mapping[str, Any]) -> str:
        return f"{arguments['at']} is 4"

    return (Tool("look", "Looks.", {"at": {"type": "string"}}, look, everything="it is 4"),)


def _think(prompt: str, rng: random.Random) -> str:
    text = "".join(f"step {k};" for k in range(rng.randint(0, 6)))
    if CLOSE not in prompt.rpartition(QUESTION.text)[2]:
        text += CLOSE
    return text + f"{rng.choice('4444 5 6').strip() or '4'}\n"


def toy_style(*, chat: bool = False) -> Style:
    """How the toy model is asked, in raw text or in messages, and how its traces are read."""

    def prompt(text: str) -> Prompt:
        return Chat((Message("user", text),)) if chat else text

    return Style(prompt, lambda text: text.split("\n", 1)[0].strip() or None, CLOSE, answer_tokens=len(CLOSE) + 4)


def text_of(prompt: Prompt) -> str:
    """The text of a prompt, without the roles of its messages."""
    return prompt if isinstance(prompt, str) else "".join(contents(prompt))
