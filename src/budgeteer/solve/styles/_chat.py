"""A style: chat messages; the answer follows 'Answer:'."""

from __future__ import annotations

from budgeteer.models.chat import Chat, Message
from budgeteer.solve.strategy import Style
from budgeteer.solve.styles.kit import normal, reader
from budgeteer.solve.styles.protocol import TaskInfo

CHAT = "Think step by step, briefly. Then write the final answer alone on a last line that begins with 'Answer:'."


def chat(task: TaskInfo) -> Style:
    """Chat messages; the answer is on the line of ``Answer:``, or on the next one."""
    read = reader(task)

    def answer(text: str) -> str | None:
        said = _said(text)
        return said and read(said)

    return Style(
        lambda text: Chat((Message("system", CHAT), Message("user", text))),
        answer,
        "Answer:",
        answer_tokens=32,
        normal=normal,
        complete=lambda text: "\n" in text.lstrip("*`_ \n"),
    )


def _said(text: str) -> str | None:
    """The first line that is not blank: chat models decorate and break lines as they like."""
    return next((line for line in (part.strip("*`_ \t") for part in text.splitlines()) if line), None)
