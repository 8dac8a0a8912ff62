"""Shared by strategies: a call that is made if it fits the budget, and a trace whose answer is asked for."""

from __future__ import annotations

from typing import NamedTuple

from budgeteer.core.errors import BudgetExceeded
from budgeteer.models.chat import Chat, Message, Prompt, continued
from budgeteer.models.model import PREFILL, Finish, Request
from budgeteer.solve import Answer, StoppedBy, Task, derive


class Piece(NamedTuple):
    """The text that one call added.

    Attributes:
        text: without the stop text that ended it.
        tokens: number of generated tokens.
        ended: whether it ended by itself or at a stop text, not at its cap.
        clipped: whether the budget left a smaller cap than was asked for.
        aborted: whether the request's steer ended it without an answer.
    """

    text: str
    tokens: int
    ended: bool
    clipped: bool
    aborted: bool = False

    @property
    def stopped_by(self) -> StoppedBy:
        """DONE, ABORTED by a steer, BUDGET or, at the cap that the strategy set, CAP."""
        if self.ended or self.aborted:
            return StoppedBy.DONE if self.ended else StoppedBy.ABORTED
        return StoppedBy.BUDGET if self.clipped else StoppedBy.CAP


NOTHING = Piece("", 0, False, True)
"""The piece of a call that did not fit the budget."""


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
    """Make one call of at most ``most`` tokens, or fewer if the budget leaves fewer; NOTHING if not even one fits.

    Args:
        task: the question and its budgeted model.
        prompt: raw text or a chat.
        most: cap of the call.
        keep: tokens of output that have to be left for a later call.
        stop: texts that end the piece.
        temperature: of the draws.
        stage: name of the call's purpose, in records.
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
    """:func:`ask` with n choices; an empty tuple if not even one token for each fits."""
    cap = task.model.afford(prompt, n=n, most=most, keep=keep)
    if cap < 1:
        return ()
    request = Request(prompt, cap, n, temperature, stop, derive(task.seed, task.question.id, stage, at))
    try:
        response = await task.model.generate(request, stage=stage)
    except BudgetExceeded:  # others draw on the same budget and were faster
        return ()
    return tuple(
        Piece(
            choice.text,
            task.model.count(choice.text) if choice.tokens is None else choice.tokens,
            choice.finish == Finish.STOP,
            cap < most,
            choice.finish == Finish.ABORTED,
        )
        for choice in response.choices
    )


def aside(task: Task, text: str) -> Prompt:
    """The prompt of a question beside the task's own, for a plan or a judgement: raw text or a chat, as the style asks.

    A chat model that thinks between tags answers it at once, where it can be told so: its thinking is closed already.
    """
    prompt = task.style.prompt(task.question.text)
    if isinstance(prompt, str):
        return text
    skips = prompt.tags is not None and PREFILL in task.model.capabilities
    return Chat((Message("user", text),), begun=prompt.tags.end if skips and prompt.tags else "")


def thinking_stops(task: Task) -> tuple[str, ...]:
    """The texts that end the thinking: the style's stop texts and its closing marker."""
    return (*task.style.stop, task.style.close) if task.style.close else task.style.stop


async def conclude(
    task: Task, prompt: Prompt, trace: str, by: StoppedBy, *, most: int = 0, temperature: float = 0.0
) -> Answer:
    """Close the thinking of a trace if it is open, sample or finish its answer, and read that.

    Args:
        task: the question.
        prompt: of the question.
        trace: what followed the prompt so far.
        by: why the thinking ended; the ``stopped_by`` of the Answer, unless the budget cuts the answer.
        most: cap of the answer; 0 = the style's ``answer_tokens``.
        temperature: of the answer.
    """
    style = task.style
    rest = style.split(trace)[1]
    if rest is None:
        trace, rest = style.closed(trace), ""
    left = (most or style.answer_tokens) - (task.model.count(rest) if rest else 0)
    piece = NOTHING
    if left > 0:
        piece = await ask(
            task, continued(prompt, trace), most=left, stop=style.stop, temperature=temperature, stage="answer"
        )
    if not rest and not piece.tokens:
        return Answer(None, StoppedBy.BUDGET, (trace,))
    trace += piece.text
    cut = left > 0 and piece.stopped_by == StoppedBy.BUDGET
    return Answer(style.read(trace), StoppedBy.BUDGET if cut else by, (trace,))
