"""A style: chat messages; the answer follows 'Answer:'."""

from __future__ import annotations

from budgeteer.models.chat import Chat, Message
from budgeteer.solve.strategy import Style
from budgeteer.solve.styles.kit import asking, normal, reader
from budgeteer.solve.styles.protocol import TaskInfo

CHAT = "Think step by step, briefly. Then write the final answer alone on a last line that begins with 'Answer:'."


def chat(task: TaskInfo, effort: str = "", said: str = "", behind: bool = False, begun: str = "") -> Style:
    """Chat messages; the answer is on the line of ``Answer:``, or on the next one.

    Args:
        task: what is asked.
        effort, said, behind, begun: the text in which a model was taught efforts, and what its answer begins with, as
            in :func:`budgeteer.solve.styles.think`.

    Raises:
        InvalidInput: an effort that is not said, or a text without a place for it.
    """
    read = reader(task)

    def answer(text: str) -> str | None:
        said = _said(text)
        return said and read(said)

    return Style(
        asking(lambda text: Chat((Message("system", CHAT), Message("user", text))), said, effort, behind, begun),
        answer,
        "Answer:",
        answer_tokens=32,
        normal=normal,
        complete=lambda text: "\n" in text.lstrip("*`_ \n"),
    )


def _said(text: str) -> str | None:
    """The first line that is not blank: chat models decorate and break lines as they like."""
    return next((line for line in (part.strip("*`_ \t") for part in text.splitlines()) if line), None)
