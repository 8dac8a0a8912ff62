"""What the strategies share: a call that is made if it fits, and a trace that is brought to its answer."""

from __future__ import annotations

from typing import NamedTuple

from budgeteer.core.errors import BudgetExceeded, InvalidInput
from budgeteer.models.model import STOP, Message, Request
from budgeteer.solve import Answer, Task, derive

Prompt = str | tuple[Message, ...]


class Piece(NamedTuple):
    """What one call added.

    Attributes:
        text: without the stop text that ended it.
        tokens: sampled.
        ended: by itself or at a stop text, not at its cap.
        clipped: its cap was what the budget left, less than asked for.
    """

    text: str
    tokens: int
    ended: bool
    clipped: bool

    @property
    def stopped_by(self) -> str:
        """``"done"``, ``"budget"`` or, at the cap that the strategy set, ``"cap"``."""
        return "done" if self.ended else "budget" if self.clipped else "cap"


NOTHING = Piece("", 0, False, True)
"""Of a call that did not fit."""


async def ask(
    task: Task,
    prompt: Prompt,
    *,
    most: int,
    keep: int = 0,
    stop: tuple[str, ...],
    temperature: float,
    stage: str = "sample",
    at: int = 0,
) -> Piece:
    """One call of at most ``most`` tokens, fewer if the budget says so; NOTHING if not even one fits.

    Args:
        keep: tokens of output that have to be left for a later call.
        at: number of the call within the question and the stage; its seed follows from it.
    """
    (piece,) = await ask_many(
        task, prompt, 1, most=most, keep=keep, stop=stop, temperature=temperature, stage=stage, at=at
    ) or (NOTHING,)
    return piece


async def ask_many(
    task: Task,
    prompt: Prompt,
    n: int,
    *,
    most: int,
    keep: int = 0,
    stop: tuple[str, ...],
    temperature: float,
    stage: str = "sample",
    at: int = 0,
) -> tuple[Piece, ...]:
    """The same with n choices; none if not even a token each fits."""
    cap = task.model.afford(prompt, n=n, most=most, keep=keep)
    if cap < 1:
        return ()
    request = Request(prompt, cap, n, temperature, stop, derive(task.seed, task.question.id, stage, at))
    try:
        response = await task.model.generate(request, stage=stage)
    except BudgetExceeded:  # others draw on the same budget and were faster
        return ()
    return tuple(
        Piece(c.text, task.model.count(c.text) if c.tokens is None else c.tokens, c.finish == STOP, cap < most)
        for c in response.choices
    )


def raw(task: Task, strategy: str) -> str:
    """The prompt, as text that can be continued.

    Raises:
        InvalidInput: the style asks in messages.
    """
    prompt = task.style.prompt(task.question.text)
    if isinstance(prompt, str):
        return prompt
    raise InvalidInput(f"{strategy} continues a trace, and the style asks in chat messages; use a style with raw text")


def thinking_stops(task: Task) -> tuple[str, ...]:
    """Texts that end the thinking."""
    return (*task.style.stop, task.style.close) if task.style.close else task.style.stop


async def conclude(task: Task, prompt: str, trace: str, by: str, *, most: int = 0, temperature: float = 0.0) -> Answer:
    """The answer that a trace comes to: its thinking is closed if need be, and the answer sampled or finished.

    Args:
        by: why the thinking ended.
        most: tokens of the answer; 0 = the style's.
    """
    style = task.style
    rest = style.split(trace)[1]
    if rest is None:
        trace, rest = trace + style.close, ""
    left = (most or style.answer_tokens) - (task.model.count(rest) if rest else 0)
    piece = NOTHING
    if left > 0:
        piece = await ask(task, prompt + trace, most=left, stop=style.stop, temperature=temperature, stage="answer")
    if not rest and not piece.tokens:
        return Answer(None, "budget", (trace,))
    trace += piece.text
    return Answer(style.read(trace), "budget" if left > 0 and piece.stopped_by == "budget" else by, (trace,))
