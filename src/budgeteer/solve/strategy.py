"""The Strategy protocol: how one question is answered with what a budget leaves."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from budgeteer.models.model import Message
from budgeteer.solve.budgeted import Budgeted

CHECK = "check"
"""A need of strategies: ``task.check``, a verifier that may be asked at run time."""


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
    (few-shot raw completions) ``close`` is what their examples have before the answer, such as ``"\\nAnswer:"``.

    Attributes:
        prompt: question text -> prompt.
        answer: text after ``close`` -> the answer, or None when there is none.
        close: ends the thinking; appended by a strategy that cuts it. ``""``: the model answers without thinking.
        stop: texts that end a trace.
        answer_tokens: enough for ``close`` and the answer.
        wait: appended instead of ``close`` by a strategy that wants the thinking to go on.
        normal: answers that compare equal have equal normal forms.
        complete: text after ``close`` -> whether the answer is finished, so that sampling can stop.
    """

    prompt: Callable[[str], str | tuple[Message, ...]]
    answer: Callable[[str], str | None]
    close: str
    stop: tuple[str, ...] = ()
    answer_tokens: int = 16
    wait: str = "\nWait"
    normal: Callable[[str], str] = str.strip
    complete: Callable[[str], bool] = field(default=lambda text: "\n" in text)

    def split(self, trace: str) -> tuple[str, str | None]:
        """(thinking, text after the first ``close`` or None when the thinking is not closed)."""
        if not self.close:
            return "", trace
        thinking, marker, rest = trace.partition(self.close)
        return thinking, rest if marker else None

    def read(self, trace: str) -> str | None:
        """The answer of a trace in its normal form, None when it has none."""
        rest = self.split(trace)[1]
        answer = None if rest is None else self.answer(rest)
        return None if answer is None else self.normal(answer)


@dataclass(frozen=True, slots=True)
class Task:
    """All that a strategy has to go on.

    Attributes:
        question: id and text.
        model: charges every call; refuses those that the budget does not cover.
        style: how to ask and how to read.
        seed: the same seed gives the same answer on a model that declares SEED.
        check: (answer) -> score in [0, 1], a verifier that may be asked at run time; None where there is none. It is
            the strategy's to use and is not the reference.
    """

    question: Question
    model: Budgeted
    style: Style
    seed: int
    check: Callable[[str], float] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came out.

    Attributes:
        answer: in the style's normal form; None = none, and ``stopped_by`` says why.
        stopped_by: ``"done"`` (the strategy had enough), ``"budget"`` (the next call did not fit), or a word of the
            strategy's own, such as ``"decided"``.
        traces: the texts that led to it, to be read in reports.
        confidence: in [0, 1], where the strategy has one.
    """

    answer: str | None
    stopped_by: str
    traces: tuple[str, ...] = ()
    confidence: float | None = None


class Strategy(NamedTuple):
    """How a question is answered.

    Attributes:
        solve: coroutine function. It never raises for lack of budget: it returns the best answer so far.
        needs: capabilities of the model without which it cannot work (:mod:`budgeteer.models.model`), and CHECK if it
            asks the task's verifier; the runner refuses what lacks one before anything is spent.
    """

    solve: Callable[[Task], Awaitable[Answer]]
    needs: frozenset[str] = frozenset()


def derive(seed: int, *parts: object) -> int:
    """A seed of 31 bits for one purpose, the same on every machine.

    >>> derive(7, "sample", 0) == derive(7, "sample", 0) != derive(7, "sample", 1)
    True
    """
    text = "\0".join(map(str, (seed, *parts))).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big") >> 1
