"""The Model protocol: text in, text and usage out, from an embedded reasoner or from an endpoint."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from budgeteer.core.errors import InvalidInput
from budgeteer.core.steer import Steer
from budgeteer.core.usage import Usage

PREFIX = "prefix"
"""Continues a text where it stops, so that thinking can be cut and the answer asked for: raw completions."""
LOGPROBS = "logprobs"
"""Reports the log-probability of every sampled token."""
SEED = "seed"
"""The same request with the same seed has the same answer, whatever else is asked at the same time."""
INTERNALS = "internals"
"""Runs here: a :class:`Request` may carry a steer."""
CAPABILITIES = frozenset({PREFIX, LOGPROBS, SEED, INTERNALS})

STOP, LENGTH, CUT = "stop", "length", "cut"
"""How a choice ended: by itself or at a stop text; at its cap; broken off before either (a cut stream)."""


class Message(NamedTuple):
    """One message of a chat: role ``"system"``, ``"user"`` or ``"assistant"``."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Request:
    """One call.

    Attributes:
        prompt: raw text that is continued, or the messages of a chat.
        max_tokens: cap of each choice, >= 1.
        n: choices, >= 1.
        temperature: >= 0; 0 is greedy.
        stop: texts that end a choice; not part of its text.
        seed: choice i of the same seed and prompt is always the same text where the model declares SEED.
        logprobs: ask for them; the model has to declare LOGPROBS.
        steer: ends, forces or bends the choices while they are decoded (:mod:`budgeteer.core.steer`); the model has to
            declare INTERNALS.
        close: for a steer, the text that closes the thinking; ``""`` = there is no thinking.
    """

    prompt: str | tuple[Message, ...]
    max_tokens: int
    n: int = 1
    temperature: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: bool = False
    steer: Steer | None = None
    close: str = ""

    def __post_init__(self) -> None:
        if not self.prompt:
            raise InvalidInput("the prompt is empty; give text or messages")
        if self.max_tokens < 1 or self.n < 1:
            raise InvalidInput(f"max_tokens={self.max_tokens} and n={self.n}; both are at least 1")
        if not 0 <= self.temperature < float("inf"):
            raise InvalidInput(f"temperature is {self.temperature}; give a finite value of 0 or more")


@dataclass(frozen=True, slots=True)
class Choice:
    """One continuation.

    Attributes:
        text: without the stop text that ended it.
        tokens: sampled, the ending ones included; where the endpoint does not count them (then the usage has no
            output, or it is of several choices together) at least as many, by their bytes; None = it hides some.
        finish: ``"stop"``, ``"length"`` or ``"cut"``.
        logprobs: of the sampled tokens, if they were asked for.
        forced: tokens that the request's steer took instead of a draw; they are among ``tokens``.
        notes: what the steer reports of this choice, as JSON data.
    """

    text: str
    tokens: int | None
    finish: str
    logprobs: tuple[float, ...] | None = None
    forced: int = 0
    notes: Any = None


@dataclass(frozen=True, slots=True)
class Response:
    """Answer to a request: its choices in order, and what all of them used together."""

    choices: tuple[Choice, ...]
    usage: Usage


class Chunk(NamedTuple):
    """A piece of a stream: text of one choice, and at least as many tokens as it is (exact on local models)."""

    choice: int
    text: str
    tokens: int = 1


async def last(stream: AsyncGenerator[Chunk | Response, None]) -> Response:
    """The Response at the end of a stream, for models whose ``generate`` is their ``stream``."""
    async with aclosing(stream) as pieces:
        async for piece in pieces:
            if isinstance(piece, Response):
                return piece
    raise AssertionError("a stream ends with its response")


class Model(Protocol):
    """A language model.

    Attributes:
        name: for reports and prices.
        capabilities: of :data:`CAPABILITIES`. What it does not declare is a clear error when asked for.

    A model that knows how many tokens a prompt and its continuation may have together says so in an attribute
    ``context``, one that serves so many choices of a request at most in an attribute ``choices``, and one that was seen
    to think without showing it in an attribute ``hides``: then a stream that is cut is charged in full.
    """

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> frozenset[str]: ...

    def count(self, prompt: str | tuple[Message, ...]) -> int:
        """Input tokens of a prompt: exact, or never less than what is billed."""
        ...

    async def generate(self, request: Request) -> Response:
        """All choices of a request.

        Raises:
            ModelError: the call failed for good; says whether it may be billed.
            InvalidInput: it asks for what the model does not declare, or is longer than its context.
        """
        ...

    def stream(self, request: Request) -> AsyncIterator[Chunk | Response]:
        """Chunks as they are sampled, then the Response. Closing the iterator early stops the sampling."""
        ...

    async def aclose(self) -> None:
        """Let go of connections, threads and child processes."""
        ...
