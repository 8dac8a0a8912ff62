"""A style: a raw completion after examples without reasoning."""

from __future__ import annotations

from budgeteer.core.errors import InvalidInput
from budgeteer.solve.strategy import Style
from budgeteer.solve.styles.examples import examples_of
from budgeteer.solve.styles.kit import asking, normal, reader
from budgeteer.solve.styles.protocol import TaskInfo


def direct(task: TaskInfo, effort: str = "", said: str = "", behind: bool = False, begun: str = "") -> Style:
    """A raw completion after examples without reasoning: the model answers at once.

    Args:
        task: what is asked.
        effort, said, behind, begun: the text in which a model was taught efforts, and what its answer begins with, as
            in :func:`budgeteer.solve.styles.think`.

    Raises:
        InvalidInput: no examples are known for the task, or an effort is not said.
    """
    examples = examples_of(task)
    if not examples:
        raise InvalidInput(f"no examples for {task.name!r}; give some, or take the style chat")
    shots = "".join(f"Question: {e.question}\nAnswer: {e.answer}\n\n" for e in examples)
    return Style(
        asking(lambda text: f"{shots}Question: {text}\nAnswer:", said, effort, behind, begun),
        reader(task),
        "",
        stop=("\n",),
        answer_tokens=24,
        normal=normal,
    )
