"""Styles by name, and the one that fits a model."""

from __future__ import annotations

from typing import Protocol

from budgeteer.core import registry
from budgeteer.core.errors import InvalidInput
from budgeteer.core.spec import parse
from budgeteer.models.model import PREFILL, PREFIX
from budgeteer.solve.strategy import Style
from budgeteer.solve.styles._reasoner import REASONER, reasoner
from budgeteer.solve.styles.examples import examples_of
from budgeteer.solve.styles.protocol import TaskInfo

__all__ = ["choose", "style_of"]


class ModelTraits(Protocol):
    """The attributes of a model that decide the style."""

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> frozenset[str]: ...


def style_of(text: str, task: TaskInfo) -> Style:
    """The registered style of this name, for a task; options follow it as in ``NAME:key=value``.

    Raises:
        UnknownName: no style has the name, or it has no such option.
        InvalidInput: the style does not fit the task, or the method makes no Style.
    """
    spec = parse(text, "style")
    made = registry.make("style", spec.name, **spec.values)(task)
    if not isinstance(made, Style):
        raise InvalidInput(f"style {spec.name!r} makes a {type(made).__name__}; return a Style")
    return made


def choose(model: ModelTraits, task: TaskInfo) -> str:
    """The name of the style that fits a model and a task.

    The embedded reasoner has a style of its own. A model whose chat template has tags of thinking is asked in a chat,
    with the style think. Another model that continues text is asked in raw completions after worked
    examples, with reasoning if the examples have it. Any other model is asked in chat messages.

    Raises:
        InvalidInput: the model is the embedded reasoner, which was not trained on the task.
    """
    if model.name == REASONER:
        reasoner(task)
        return REASONER
    if PREFILL in model.capabilities and getattr(model, "tags", None) is not None:
        return "think"
    examples = examples_of(task)
    if PREFIX not in model.capabilities or not examples:
        return "chat"
    return "few-shot" if any(example.reasoning for example in examples) else "direct"
