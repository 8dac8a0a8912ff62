"""What a problem of the thinking model is, and which problems are held out.

A problem is a pure function of (seed, index, split). It is held out by a hash of what it asks, without the wording, so
the same problem in other words is never on the other side.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from budgeteer.core.errors import InvalidInput
from budgeteer.lab.thinker.working import Working

Split = Literal["train", "test"]
HELD_OUT = 8
"""One problem in so many is held out."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that reads the store of a problem.

    Attributes:
        name: of the function.
        record, attribute: names of its two arguments: which record, and what of it.
        said: its description.
    """

    name: str
    record: str
    attribute: str
    said: str

    def schema(self) -> dict[str, object]:
        """As a chat template takes it."""
        kinds = {self.record: {"type": "string"}, self.attribute: {"type": "string"}}
        parameters = {"type": "object", "properties": kinds, "required": list(kinds)}
        about = {"name": self.name, "description": self.said, "parameters": parameters}
        return {"type": "function", "function": about}


@dataclass(frozen=True, slots=True)
class Problem:
    """One question with its answer and a way to work it.

    Attributes:
        family: such as ``"arithmetic"``.
        key: what it asks, without the wording: equal keys are the same problem.
        question: in English.
        answer: the right one.
        level: how many steps it takes, roughly.
        work: works it through a :class:`Working` and returns the answer that came out.
        boxed: the answer is written in a LaTeX box.
        tool: what reads the store, for problems that have one.
        store: record -> attribute -> value.
    """

    family: str
    key: str
    question: str
    answer: str
    level: int
    work: Callable[[Working], str] = field(repr=False, compare=False)
    boxed: bool = False
    tool: Tool | None = None
    store: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)

    def stated(self, answer: str) -> str:
        r"""The line that states an answer of this problem: ``The answer is 7.`` or ``The answer is \boxed{7}.``"""
        return f"The answer is \\boxed{{{answer}}}." if self.boxed else f"The answer is {answer}."

    def read(self, arguments: Mapping[str, object]) -> str:
        """What the tool answers: the value, or a line that begins with ``error:``."""
        assert self.tool is not None
        record, attribute = arguments.get(self.tool.record), arguments.get(self.tool.attribute)
        if not isinstance(record, str) or record not in self.store:
            return f"error: no record {record}"
        if not isinstance(attribute, str) or attribute not in self.store[record]:
            return f"error: no {attribute} of {record}"
        return self.store[record][attribute]


Draw = Callable[[random.Random, int], Problem]
"""Draws a problem of a level, with a random stream."""


def split_of(key: str) -> Split:
    """On which side of the split a problem lies, by a hash of its key."""
    return "test" if int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % HELD_OUT == 0 else "train"


def held(draw: Draw, rng: random.Random, level: int, split: Split) -> Problem:
    """The first problem of ``draw`` that lies in ``split``.

    Raises:
        InvalidInput: hardly any problem of this level lies in the split.
    """
    for _ in range(1000):
        problem = draw(rng, level)
        if split_of(problem.key) == split:
            return problem
    raise InvalidInput(f"1,000 draws at level {level} gave no problem of split {split!r}; ask for a higher level")
