"""Conciseness reminder: one fixed sentence after the question, in front of any strategy.

Paper: BenchOverflow, on overflow of language models at plain-text prompts.
"""

from __future__ import annotations

from dataclasses import replace

from budgeteer.solve import Answer, Strategy, Task
from budgeteer.strategies._direct import direct

REMINDER = "Be concise: no more words than the answer needs."


def conciseness(inner: Strategy | None = None, reminder: str = REMINDER) -> Strategy:
    """The strategy ``inner`` on ``question + " " + reminder``; nothing else changes.

    When it helps: chat models that write more than was asked; in the paper it lowers the right tails of the length for
    most models. When not: models without instructions tuned in (the reminder is noise in a few-shot prompt), and
    questions whose answer needs the words. It caps nothing: judge it by the distribution of lengths
    (:func:`budgeteer.lab.metrics.ecdf`, ``csr``), and by the accuracy, which must not fall.

    Paper: BenchOverflow; only its abstract was read, and the sentence is ours.

    Args:
        inner: any strategy; None = :func:`budgeteer.strategies._direct`.
        reminder: the sentence.
    """
    chosen = inner or direct()

    async def solve(task: Task) -> Answer:
        prompt = task.style.prompt
        return await chosen.solve(replace(task, style=replace(task.style, prompt=lambda q: prompt(f"{q} {reminder}"))))

    return Strategy(solve, chosen.needs, chosen.models)
