"""What makes training examples out of a model's own traces, and how it is run under a budget."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NamedTuple

from budgeteer.core.errors import InvalidInput
from budgeteer.models.model import Model
from budgeteer.solve import Answer, StoppedBy, Strategy, Task
from budgeteer.solve.strategy import CHECK

__all__ = ["Builder", "Built", "as_strategy", "refuse_example"]

SFT, PREFERENCE = "sft", "preference"
"""Kinds of examples: ``prompt`` and ``completion``; ``prompt``, ``chosen`` and ``rejected``."""
FIELDS = {SFT: ("prompt", "completion"), PREFERENCE: ("prompt", "chosen", "rejected")}
"""Kind -> fields that TRL's trainer of this kind reads: texts, or messages with role and content."""


class Built(NamedTuple):
    """What came of one question.

    Attributes:
        examples: JSON objects with the :data:`FIELDS` of the builder's kind, ``id`` (of the question), and more, such
            as ``chat_template_kwargs`` where the style tells the chat template how to think.
        answer: one that the model gave, for the summary of the run; None = none.
    """

    examples: tuple[Mapping[str, Any], ...]
    answer: str | None = None


class Builder(NamedTuple):
    """How the examples of a question are made.

    Attributes:
        build: coroutine function of a :class:`budgeteer.solve.Task`, whose ``check`` compares with the reference
            answer. It asks the task's budgeted model; what the budget does not pay is left out.
        kind: SFT or PREFERENCE.
        needs: as in :class:`budgeteer.solve.Strategy`.
        models: other models that it asks, through ``task.model.other``.
    """

    build: Callable[[Task], Coroutine[Any, Any, Built]]
    kind: str = SFT
    needs: frozenset[str] = frozenset({CHECK})
    models: tuple[Model, ...] = ()


def as_strategy(builder: Builder) -> Strategy:
    """The builder as a strategy, for a run with a budget that can be resumed; each trace of its answers is an example
    as JSON."""

    async def solve(task: Task) -> Answer:
        built = await builder.build(task)
        for example in built.examples:
            refuse_example(builder.kind, example)
        lines = tuple(_line(example) for example in built.examples)
        return Answer(built.answer, StoppedBy.DONE if lines else StoppedBy.UNANSWERED, lines)

    return Strategy(solve, builder.needs, builder.models)


def _line(example: Mapping[str, Any]) -> str:
    """An example as JSON that any file can hold: half of a pair of surrogates is escaped."""
    return json.dumps(example, ensure_ascii=False).encode("utf-8", "backslashreplace").decode("utf-8")


def refuse_example(kind: str, example: Mapping[str, Any]) -> None:
    """Refuse what TRL's trainer of a kind could not read.

    Raises:
        InvalidInput: a field is missing, empty, or neither a text nor messages.

    >>> refuse_example(SFT, {"id": "q", "prompt": "2 + 2 =", "completion": "4"})
    """
    for field in ("id", *FIELDS[kind]):
        value = example.get(field)
        messages = isinstance(value, list) and all(isinstance(m, dict) and {*m} == {"role", "content"} for m in value)
        if not value or not (isinstance(value, str) or (messages and field != "id")):
            raise InvalidInput(
                f"an example of kind {kind} has {field}={str(value)[:60]!r}; give a text, or a list of messages with "
                "role and content"
            )
