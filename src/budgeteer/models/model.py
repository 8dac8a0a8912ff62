"""The Model protocol: text in, text and usage out, from an embedded reasoner or from an endpoint."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import Status
from budgeteer.core.steer import Steer
from budgeteer.core.usage import Usage
from budgeteer.core.words import one_of
from budgeteer.models.chat import Prompt

PREFIX = "prefix"
"""The model continues raw text where it stops, so that thinking can be cut and the answer asked for."""
PREFILL = "prefill"
"""The model goes on with what it is given as the beginning of its answer (``Chat.begun``): PREFIX for chats."""
LOGPROBS = "logprobs"
"""The model reports the log-probability of every sampled token."""
SEED = "seed"
"""The same request with the same seed has the same answer, whatever else is asked at the same time."""
INTERNALS = "internals"
"""The model runs in this process and shows its internals: a :class:`Request` may carry a steer."""
CALLS = "calls"
"""The model is told of tools in a field of the chat (``Chat.tools``), and writes calls of them; other models read of
tools in the text."""
CAPABILITIES = frozenset({PREFIX, PREFILL, LOGPROBS, SEED, INTERNALS, CALLS})
"""All capabilities that a model may declare."""


class Finish(StrEnum):
    """How a choice ended."""

    STOP = "stop"
    """By itself, at a stop text, or since a steer ended it."""
    LENGTH = "length"
    """At its cap."""
    CUT = "cut"
    """Before either, since its stream was cut."""
    ABORTED = "aborted"
    """Before either, since a steer aborted it: it has no answer."""


_FINISHES = {Status.CUT: Finish.LENGTH, Status.ABORTED: Finish.ABORTED}


def finish_of(status: int) -> Finish:
    """How a choice ended whose row of a decode batch ended with this :class:`budgeteer.core.plan.Status`."""
    return _FINISHES.get(Status(status), Finish.STOP)


@dataclass(frozen=True, slots=True)
class Request:
    """One call of a model.

    Attributes:
        prompt: raw text that is continued, or a chat (:mod:`budgeteer.models.chat`).
        max_tokens: cap of the tokens of each choice, >= 1.
        n: number of choices, >= 1.
        temperature: >= 0; 0 is greedy.
        stop: texts that end a choice; they are not part of its text.
        seed: if the model declares SEED, choice i of the same prompt and seed is always the same text.
        logprobs: whether to report log-probabilities; the model has to declare LOGPROBS.
        steer: ends choices, forces tokens or changes logits while they are decoded (:mod:`budgeteer.core.steer`); the
            model has to declare INTERNALS.
        close: for a steer, the text that closes the thinking; ``""`` = there is no thinking.
    """

    prompt: Prompt
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
            raise InvalidInput("the prompt is empty; give text or a chat")
        if self.max_tokens < 1 or self.n < 1:
            raise InvalidInput(f"max_tokens={self.max_tokens} and n={self.n}; both are at least 1")
        check_temperature(self.temperature)


def check_temperature(temperature: float) -> None:
    """Raise InvalidInput unless one can draw at this temperature."""
    if not 0 <= temperature < float("inf"):
        raise InvalidInput(f"temperature is {temperature}; give a finite value of 0 or more")


@dataclass(frozen=True, slots=True)
class Choice:
    """One continuation of a prompt.

    Attributes:
        text: without the stop text that ended it.
        tokens: number of generated tokens, including those that ended it. If the endpoint did not count the tokens of
            this choice, a bound by its bytes, which is never too low; None if it hides some.
        finish: how it ended; the word of a member, such as ``"stop"``, becomes that member.
        logprobs: log-probabilities of the sampled tokens, if they were asked for.
        forced: number of tokens that the request's steer forced; they are counted in ``tokens``.
        notes: what the steer reports about this choice, as JSON data.
    """

    text: str
    tokens: int | None
    finish: Finish
    logprobs: tuple[float, ...] | None = None
    forced: int = 0
    notes: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "finish", one_of(Finish, self.finish, "the choice's finish"))


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to a request: its choices in order, and the tokens that all of them used together."""

    choices: tuple[Choice, ...]
    usage: Usage


class Chunk(NamedTuple):
    """A piece of a stream: the index of its choice, its text, and its tokens (exact on local models, else a bound)."""

    choice: int
    text: str
    tokens: int = 1


async def last(stream: AsyncGenerator[Chunk | Response, None]) -> Response:
    """The Response at the end of a stream, for models whose ``generate`` reads their ``stream``."""
    async with aclosing(stream) as pieces:
        async for piece in pieces:
            if isinstance(piece, Response):
                return piece
    raise AssertionError("a stream ends with its response")


def continuing(prompt: Prompt) -> str:
    """The capability that going on behind the text so far takes: PREFIX for raw text, PREFILL for a chat."""
    return PREFIX if isinstance(prompt, str) else PREFILL


class Model(Protocol):
    """A language model.

    Attributes:
        name: for reports and prices.
        capabilities: some of :data:`CAPABILITIES`. A request that needs another one raises InvalidInput.

    A model may have further attributes: ``context``, the most tokens of a prompt and its continuation together;
    ``choices``, the most choices of a request; ``hides``, whether it was seen to think without showing it, so that
    a stream that is cut is charged in full; ``tags``, between which it thinks in a chat
    (:class:`budgeteer.models.chat.Tags`); ``folder``, where its files are, with its heads in a folder beside them; and
    ``inside``, what its steers are told about it (:class:`budgeteer.core.steer.Internals`).
    """

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> frozenset[str]: ...

    def count(self, prompt: Prompt) -> int:
        """Input tokens of a prompt: exact, or never less than what is billed.

        Raises:
            InvalidInput: it cannot be asked, such as a chat whose template does not read how it is to think. A run asks
                this before it spends anything.
        """
        ...

    async def generate(self, request: Request) -> Response:
        """All choices of a request.

        Raises:
            ModelError: the call failed finally; the error says whether it may be billed.
            InvalidInput: the request needs a capability that the model does not declare, or is longer than its context.
        """
        ...

    def stream(self, request: Request) -> AsyncIterator[Chunk | Response]:
        """Chunks as they are sampled, then the Response. Closing the iterator early stops the sampling."""
        ...

    async def aclose(self) -> None:
        """Close connections, and end threads and child processes."""
        ...
