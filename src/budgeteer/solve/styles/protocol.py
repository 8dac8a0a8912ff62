"""What a style has to know about a task: a style is a function of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from budgeteer.models.chat import THINK, Tags

__all__ = ["Example", "TaskInfo"]


class Example(NamedTuple):
    """One worked question of a few-shot prompt; all or none of a prompt's examples have reasoning."""

    question: str
    reasoning: str
    answer: str


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """What a style has to know about a task.

    Attributes:
        name: of the task, such as ``"chains"``; it tells whether the embedded reasoner was trained on it.
        numeric: whether all answers are numbers, so that the number that an answer's line states is the answer.
        examples: worked questions that are not among those asked.
        units: whether some of these numbers are dollars, so that other units are kept for the verifier to refuse.
        tags: between which the model thinks in a chat; None = its chat template has none.
    """

    name: str
    numeric: bool = False
    examples: tuple[Example, ...] = ()
    units: bool = False
    tags: Tags | None = THINK

    def by(self, model: object) -> TaskInfo:
        """The task as this model is asked it: with the tags that the model declares, if it declares any."""
        return replace(self, tags=getattr(model, "tags", self.tags))
