"""Questions to solve, of any task, with the references that tell right from wrong."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from budgeteer.core.environment import Item, verified
from budgeteer.core.errors import InvalidInput, VerifierError
from budgeteer.lab.tasks.gym import FAMILIES
from budgeteer.lab.tasks.named import Task, parse
from budgeteer.lab.tasks.named import load as load_task
from budgeteer.solve.strategy import Question
from budgeteer.solve.styles import Example, TaskInfo, normal
from budgeteer.solve.tool import Tool

SIZE = 100
"""Questions of a generated task, unless a limit is given."""
_SHOTS = 4


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """Questions with their references.

    Attributes:
        questions: with distinct ids.
        references: id -> reference answer; a question without one is not graded.
        info: what a style has to know of the task.
        task: verifies answers.
        items: id -> problem.
        failures: what the verifier failed with, an entry for each call of :meth:`grade` that counted 0 for it.
    """

    questions: tuple[Question, ...]
    references: Mapping[str, str]
    info: TaskInfo
    task: Task
    items: Mapping[str, Item]
    failures: list[str] = field(default_factory=list, repr=False, compare=False)

    def grade(self, question: Question, answer: str | None) -> float | None:
        """Score in [0, 1], None without a reference. Where the verifier fails the answer counts 0, and the first of
        these failures is a warning: what else was answered, and paid for, keeps its score."""
        if question.id not in self.references:
            return None
        if answer is None:
            return 0.0
        try:
            return verified(self.task, self.items[question.id], answer)
        except VerifierError as error:
            if not self.failures:
                warnings.warn(f"{error}; the answer counts as wrong, and so do others of this kind", stacklevel=2)
            self.failures.append(str(error))
            return 0.0

    @property
    def tools(self) -> Callable[[Question], Sequence[Tool]] | None:
        """Question -> tools for it; None where the task has none."""
        given = self.task.tools
        return None if given is None else lambda question: given(self.items[question.id])

    def score(self, question: Question, answer: str) -> float:
        """The references as a verifier: 0 without one. An oracle, for what a perfect verifier would be worth."""
        return self.grade(question, answer) or 0.0


def load(source: str, *, limit: int | None = None, seed: int = 0) -> QuestionSet:
    """Questions of a task.

    Args:
        source: as :mod:`budgeteer.lab.tasks.named` reads it.
        limit: number of questions, from the first one on; for a generated task the default is 100.
        seed: of a generated task.

    Raises:
        InvalidInput: the file cannot be read, a row lacks a question, ids repeat, settings are wrong.
        UnknownName: no such task or file.
    """
    if limit is not None and limit < 1:
        raise InvalidInput(f"the limit is {limit} questions; give at least 1")
    size = limit or SIZE
    task = load_task(source, size=size, seed=seed, limit=limit)
    items = {item.key: item for item in task.items[:limit]}
    references = {item.key: item.answer for item in items.values() if item.answer is not None}
    info = info_of(task.name, references.values(), examples_of(source, task, size, seed))
    return QuestionSet(tuple(Question(i.key, i.prompt) for i in items.values()), references, info, task, items)


def info_of(name: str, references: Collection[str], examples: tuple[Example, ...] = ()) -> TaskInfo:
    """What a style has to know of a task.

    Args:
        name: of the task.
        references: all that are known.
        examples: that a style may show.
    """
    numeric = bool(references) and all(_is_number(answer) for answer in references)
    return TaskInfo(name, numeric, examples, any("$" in answer for answer in references))


def examples_of(source: str, task: Task, size: int, seed: int) -> tuple[Example, ...]:
    """Answers of other problems, for families of which there are no worked examples of ours."""
    if not parse(source)[0].name.startswith("gym:") or task.name in FAMILIES:
        return ()
    others = load_task(source, size=_SHOTS + size, seed=seed + 1).items
    asked = {item.prompt for item in task.items}
    return tuple(Example(i.prompt, "", i.answer or "") for i in others if i.prompt not in asked)[:_SHOTS]


def _is_number(text: str) -> bool:
    shown = normal(text)
    return shown.removeprefix("-").replace(".", "", 1).isdecimal()
