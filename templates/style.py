"""One line: how models are asked, and how their answers are read.

Paper: "Title", arXiv 0000.00000.
"""

from __future__ import annotations

from budgeteer.models.chat import Chat, Message
from budgeteer.solve.strategy import Style
from budgeteer.solve.styles import TaskInfo, normal


def brackets(task: TaskInfo, *, thinking: bool = True) -> Style:
    """Chat messages; the answer is what stands between ``[[`` and ``]]``.

    Helps when a model follows instructions but writes sentences around its answer; does not when it ignores them.

    Args:
        task: what is asked for, such as whether all answers are numbers.
        thinking: whether the model is asked to think first.

    >>> style = brackets(TaskInfo("text"))
    >>> style.read("Whales breathe air, so [[ a mammal ]]"), style.read("Whales breathe air")
    ('a mammal', None)
    """
    kind = "a number" if task.numeric else "as short as possible"
    first = "Think step by step, then give" if thinking else "Give"
    say = f"{first} the answer between [[ and ]]; it is {kind}."

    def answer(text: str) -> str | None:
        return text.partition("]]")[0].strip() or None

    return Style(
        lambda text: Chat((Message("system", say), Message("user", text))),
        answer,
        "[[",  # what stands before it is the thinking
        answer_tokens=32,
        normal=normal,
        complete=lambda text: "]]" in text,
    )
