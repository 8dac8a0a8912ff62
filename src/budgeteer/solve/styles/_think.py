r"""The style of chat models that think: a chat, thinking between tags, and an answer in a box, in a line or at the end.

The trace is what the model writes: ``<think>\n ... \n</think>\n\n`` and the answer, with the tags of the model's own
chat template. Strategies that cut the thinking append the closing tag and the words that state an answer, and let the
model go on behind them.
"""

from __future__ import annotations

import re

from budgeteer import verify
from budgeteer.core.errors import InvalidInput
from budgeteer.models.chat import Chat, Message, Thinking
from budgeteer.solve.strategy import Style
from budgeteer.solve.styles.kit import asking, normal
from budgeteer.solve.styles.protocol import TaskInfo
from budgeteer.verify.kit.text import boxes, unwrap

__all__ = ["BOX", "LINE", "stated", "think"]

BOX = "Put your final answer within \\boxed{}."
"""What is asked for after a question whose answer is a number."""
LINE = "Write the final answer alone on a last line that begins with 'Answer:'."
"""What is asked for after any other question."""
TRAINED = frozenset({"thinking", "lookups"})
"""Tasks that the embedded thinking model was trained on, where it states its answers unasked."""
_SAYS = re.compile(r"(?:^|\W)(?:answer|result)\s*(?:is|:|=)(?!\w)", re.IGNORECASE)


def think(
    task: TaskInfo,
    on: bool | None = None,
    effort: str = "",
    tokens: int | None = None,
    ask: str | None = None,
    lead: str | None = None,
    answer_tokens: int = 48,
    said: str = "",
    task_tokens: int | None = None,
    behind: bool = False,
    begun: str = "",
) -> Style:
    r"""Chat messages for a model that thinks between tags; the answer stands behind them.

    The answer is what the last ``\boxed{}`` holds; without one the last line that says ``answer is`` or ``Answer:``;
    without one the last line. A box that is open at the end holds none.

    Args:
        task: what is asked, with the tags of the model.
        on: whether the model thinks, by the switch of its chat template; None = as it does by itself.
        effort: word of effort for the chat template, such as ``low``; with ``said``, for that text.
        tokens: most tokens of thinking, for an engine that enforces it; strategies that cut it need no such help.
        ask: what follows the question, in a paragraph of its own; None = BOX where all answers are numbers, else LINE;
            nothing for TRAINED.
        lead: what a strategy writes behind the closing tag when it forces an answer; None = the words that BOX or LINE
            lead to expect, and nothing after another ``ask``.
        answer_tokens: tokens that are enough for the closing tag and a forced answer.
        said: what stands before the question, with ``{effort}`` where the word of effort stands or ``{percent}`` for
            its share of the usual thinking, for a model that was trained with such a text (``variant=effort-modes``,
            ``variant=effort``; for those that say tokens, ``effort="128"``); the chat template is told no effort then.
        task_tokens: tokens that the model is told it has for the whole task, for an API that tells it (Anthropic's,
            20,000 or more); advice beside the budget, which holds without it.
        behind: ``said`` stands behind the question and what is asked of it, as variants with ``behind=true`` have it.
        begun: what the answer begins with, for a model that was trained to begin it so (``variant=split-budgets``; the
            tags of ``adactrl``), with ``{open}`` where the tag is to open that begins the thinking.

    Raises:
        InvalidInput: the model's chat template has no tags, or ``said`` has no place for an effort, or no effort is
            given, or no token for an answer, or ``behind`` without ``said``.
    """
    if answer_tokens < 1:
        raise InvalidInput(f"think:answer_tokens={answer_tokens}; give 1 or more, 48 are usual")
    tags, thinking = task.tags, Thinking(on, "" if said else effort, tokens, task_tokens)
    if tags is None:
        raise InvalidInput(
            "the model's chat template has no tags of thinking; use the style chat, or a model that thinks"
        )
    if ask is None:
        ask = "" if task.name in TRAINED else BOX if task.numeric else LINE
    if lead is None:
        lead = {BOX: "The answer is \\boxed{", LINE: "Answer:"}.get(ask, "")

    def prompt(text: str) -> Chat:
        return Chat((Message("user", f"{text}\n\n{ask}" if ask else text),), thinking, tags=tags)

    def answer(text: str) -> str | None:
        line = stated(text)
        if line is None or not task.numeric:
            return line and (unwrap(line) or None)
        return verify.stated(line, units=task.units)

    # the chat template closes a thinking that is switched off, so that no tag is left for the trace
    return Style(
        asking(prompt, said, effort if said else "", behind, begun.replace("{open}", f"{tags.open}\n")),
        answer,
        "" if on is False else tags.close,
        answer_tokens=answer_tokens,
        wait="\nWait,",
        normal=normal,
        complete=lambda text: boxed(text) is not None,
        end="" if on is False else tags.end + lead,
    )


def boxed(text: str) -> str | None:
    r"""What the last closed ``\boxed{}`` of a text holds; None if there is none.

    >>> boxed(r"\boxed{1} or \boxed{\frac{1}{2}}"), boxed(r"\boxed{4")
    ('\\frac{1}{2}', None)
    """
    contents = boxes(text)
    return (contents[-1] or None) if contents else None


def stated(text: str) -> str | None:
    r"""The part that states the answer: a box, else the last line that says what the answer is, else the last line.

    >>> stated("It is \\boxed{7}.\nDone."), stated("The answer is 7.\nBye."), stated("**Answer:** 7"), stated("4\n7\n")
    ('7', 'The answer is 7.', '**Answer:** 7', '7')
    >>> stated(" \n") is None
    True

    A box that is the only one and open was cut, so that nobody knows what it would hold.

    >>> stated("The answer is \\boxed{4") is None
    True
    """
    box = boxed(text)
    if box is not None:
        return box
    if "\\boxed{" in text and not boxes(text):
        return None
    lines = [line for part in text.splitlines() if (line := part.strip())]
    return next((line for line in reversed(lines) if _SAYS.search(line)), lines[-1] if lines else None)
