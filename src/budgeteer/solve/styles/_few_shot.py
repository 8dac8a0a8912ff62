"""A style: a raw completion after worked examples with reasoning."""

from __future__ import annotations

from budgeteer.core.errors import InvalidInput
from budgeteer.solve.strategy import Style
from budgeteer.solve.styles.examples import examples_of
from budgeteer.solve.styles.kit import asking, normal, reader
from budgeteer.solve.styles.protocol import TaskInfo


def few_shot(task: TaskInfo, effort: str = "", said: str = "", behind: bool = False, begun: str = "") -> Style:
    """A raw completion after worked examples with reasoning; ``Answer:`` closes the thinking.

    Args:
        task: what is asked.
        effort, said, behind, begun: the text in which a model was taught efforts, and what its answer begins with, as
            in :func:`budgeteer.solve.styles.think`.

    Raises:
        InvalidInput: no examples with reasoning are known for the task, or an effort is not said.
    """
    examples = examples_of(task)
    if not any(example.reasoning for example in examples):
        raise InvalidInput(f"no worked examples for {task.name!r}; give some, or take the style direct or chat")
    shots = "".join(f"Question: {e.question}\nReasoning: {e.reasoning}\nAnswer: {e.answer}\n\n" for e in examples)
    return Style(
        asking(lambda text: f"{shots}Question: {text}\nReasoning:", said, effort, behind, begun),
        reader(task),
        "\nAnswer:",
        stop=("\n\n", "\nQuestion:"),
        answer_tokens=24,
        wait=" Wait,",
        normal=normal,
    )
