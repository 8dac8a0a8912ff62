"""A style: the embedded reasoner's own format."""

from __future__ import annotations

from budgeteer.core.errors import InvalidInput
from budgeteer.solve.strategy import Style
from budgeteer.solve.styles.kit import asking, first_line, normal
from budgeteer.solve.styles.protocol import TaskInfo

__all__ = ["REASONER", "reasoner"]

REASONER = "reasoner"
"""Name of the embedded reasoner, and of its style."""
_TRAINED = {
    "chains": 5,
    "chain_sum": 6,
    "gcd": 5,
    "number_filtering": 36,
    "real": 36,
    "hard": 5,
    "homogeneous": 5,
}
"""Tasks that the embedded reasoner was trained on -> tokens of their longest ``</think>`` and answer."""


def reasoner(task: TaskInfo, effort: str = "", said: str = "", behind: bool = False, begun: str = "") -> Style:
    """The question alone; the thinking ends with ``</think>``, the answer is the first line after it.

    Args:
        task: what is asked.
        effort, said, behind, begun: the text in which a model was taught efforts, and what its answer begins with, as
            in :func:`budgeteer.solve.styles.think`.

    Raises:
        InvalidInput: the embedded reasoner was not trained on the task, or an effort is not said.
    """
    if task.name not in _TRAINED:
        raise InvalidInput(
            f"the embedded reasoner knows nothing of {task.name!r}; it was trained on {', '.join(_TRAINED)}. "
            f"Choose one of those, or another model such as --model smollm2"
        )
    return Style(
        asking(str, said, effort, behind, begun),
        first_line,
        "</think>",
        answer_tokens=_TRAINED[task.name],
        normal=normal,
    )
