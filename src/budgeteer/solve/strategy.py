"""The Strategy protocol: how one question is answered with what a budget leaves."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from budgeteer.core.errors import InvalidInput
from budgeteer.core.words import one_of
from budgeteer.models.chat import Prompt
from budgeteer.models.model import Model
from budgeteer.solve.budgeted import Budgeted
from budgeteer.solve.tool import Tool

CHECK = "check"
"""What a strategy may need beside capabilities of the model: ``task.check``, a verifier that it asks at run time."""
TOOLS = "tools"
"""What a strategy may need beside capabilities of the model: ``task.tools``, which it calls through the model."""
GIVEN = frozenset({CHECK, TOOLS})
"""What a strategy may need of its task."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question. A strategy sees its id and its text, never the reference answer.

    Attributes:
        id: distinct within a file.
        text: as asked.
    """

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Style:
    """How a model is asked, and how its trace is read.

    A trace is ``thinking + close + answer``: a model with an explicit marker writes ``close`` itself; for others
    (few-shot raw completions) ``close`` is the text before the answer in their examples, such as ``"\\nAnswer:"``.

    Attributes:
        prompt: question text -> prompt.
        answer: text after ``close`` -> the answer, or None if there is none.
        close: text that ends the thinking. ``""``: the model answers without thinking.
        stop: texts that end a trace.
        answer_tokens: tokens that are enough for ``close`` and the answer.
        wait: text that a strategy appends, instead of ``close``, so that the thinking goes on.
        normal: answer -> its normal form; equal answers have equal normal forms.
        complete: text after ``close`` -> whether the answer is finished, so that sampling can stop.
        end: what a strategy appends to end the thinking: ``close`` with what stands around it; ``""`` = ``close``.
    """

    prompt: Callable[[str], Prompt]
    answer: Callable[[str], str | None]
    close: str
    stop: tuple[str, ...] = ()
    answer_tokens: int = 16
    wait: str = "\nWait"
    normal: Callable[[str], str] = str.strip
    complete: Callable[[str], bool] = field(default=lambda text: "\n" in text)
    end: str = ""

    @property
    def closing(self) -> str:
        """What a strategy appends to end the thinking."""
        return self.end or self.close

    def closed(self, trace: str) -> str:
        """A trace whose thinking is open, with its end.

        >>> style = Style(str, str, "</think>", end="\\n</think>\\n\\n")
        >>> style.closed("So 4") == style.closed("So 4\\n") == "So 4\\n</think>\\n\\n"
        True
        """
        closing = self.closing
        return trace + (closing.lstrip("\n") if trace.endswith("\n") else closing)

    def split(self, trace: str) -> tuple[str, str | None]:
        """The thinking, and the text after the first ``close``; None instead of it if the thinking is not closed."""
        if not self.close:
            return "", trace
        thinking, marker, rest = trace.partition(self.close)
        return thinking, rest if marker else None

    def read(self, trace: str) -> str | None:
        """The answer of a trace in its normal form; None if it has none."""
        rest = self.split(trace)[1]
        answer = None if rest is None else self.answer(rest)
        return None if answer is None else self.normal(answer)


@dataclass(frozen=True, slots=True)
class Task:
    """One question with all that a strategy may use to answer it.

    Attributes:
        question: id and text.
        model: the budgeted model; it charges every call, and refuses calls that the budget does not cover.
        style: how to ask and how to read.
        seed: the same seed gives the same answer on a model that declares SEED.
        check: answer -> score in [0, 1], a verifier that the strategy may ask at run time; None if there is none. It is
            not the grade of the run.
        tools: that it may call, by :meth:`Budgeted.use`; their names are distinct.
    """

    question: Question
    model: Budgeted
    style: Style
    seed: int
    check: Callable[[str], float] | None = None
    tools: tuple[Tool, ...] = ()

    def __post_init__(self) -> None:
        if other := [tool for tool in self.tools if not isinstance(tool, Tool)]:
            raise InvalidInput(f"a tool of the task is {other[0]!r:.60}; give objects of budgeteer.solve.tool.Tool")
        names = [tool.name for tool in self.tools]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InvalidInput(f"two tools are called {twice[0]!r}, and a call says no more; give each its own name")


class StoppedBy(StrEnum):
    """Why a strategy went no further."""

    DONE = "done"
    """It did all that it does."""
    BUDGET = "budget"
    """The next call did not fit the budget."""
    CAP = "cap"
    """The trace reached the cap that the strategy set."""
    ABORTED = "aborted"
    """A steer ended the trace without an answer."""
    DECIDED = "decided"
    """More samples would hardly change the answer."""
    CONVERGED = "converged"
    """The same answer came several times in a row."""
    VERIFIED = "verified"
    """The task's verifier accepts the answer."""
    UNJUDGED = "unjudged"
    """All samples were drawn, and not one of them could be scored."""
    UNANSWERED = "unanswered"
    """A part of the question got no answer, and the question was asked as a whole."""
    ERROR = "error"
    """A call failed finally; :attr:`Answer.error` says how."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a strategy to one question.

    Attributes:
        answer: in the style's normal form; None = there is none, and ``stopped_by`` says why.
        stopped_by: why the strategy went no further; the word of a member, such as ``"done"``, becomes that member.
        traces: the texts that led to it, for reports.
        confidence: in [0, 1], if the strategy has one.
        error: what failed, if it was stopped by ERROR.
        candidates: all answers that it would submit, distinct, best first, for a run that is scored by Pass@k; the
            first one is ``answer``. () = ``answer`` alone.
    """

    answer: str | None
    stopped_by: StoppedBy
    traces: tuple[str, ...] = ()
    confidence: float | None = None
    error: str = ""
    candidates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "stopped_by", one_of(StoppedBy, self.stopped_by, "the answer's stopped_by"))
        if self.candidates and (self.candidates[0] != self.answer or len(set(self.candidates)) < len(self.candidates)):
            raise InvalidInput(
                f"the candidates {self.candidates[:3]!r} are not distinct, or do not begin with the answer "
                f"{self.answer!r}; give distinct answers, best first"
            )

    def submitted(self, k: int) -> tuple[str, ...]:
        """The first k candidates; the answer alone where there are no others, and nothing without an answer.

        >>> Answer("7", "done", candidates=("7", "5", "9")).submitted(2), Answer("7", "done").submitted(2)
        (('7', '5'), ('7',))
        """
        return self.candidates[:k] or (() if self.answer is None else (self.answer,))

    @property
    def reason(self) -> str:
        """Why the strategy went no further, as the rows of a run tell it: ``"done"``, ``"error: no connection"``."""
        return f"{self.stopped_by}: {self.error}" if self.stopped_by == StoppedBy.ERROR else self.stopped_by.value


class Strategy(NamedTuple):
    """How a question is answered.

    Attributes:
        solve: coroutine function. It never raises for lack of budget: it returns the best answer so far.
        needs: capabilities of the model without which it cannot work (:mod:`budgeteer.models.model`), CHECK if it asks
            the task's verifier, and TOOLS if it calls the task's tools. If one is missing, the runner refuses the
            strategy before anything is spent.
        models: other models that it asks, through :meth:`Budgeted.other`; whoever closes the task's model closes them.
    """

    solve: Callable[[Task], Awaitable[Answer]]
    needs: frozenset[str] = frozenset()
    models: tuple[Model, ...] = ()


def derive(seed: int, *parts: object) -> int:
    """A seed of 31 bits, derived from a seed and the ``parts`` that name its purpose; the same on every machine.

    >>> derive(7, "sample", 0) == derive(7, "sample", 0) != derive(7, "sample", 1)
    True
    """
    text = "\0".join(map(str, (seed, *parts))).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big") >> 1
