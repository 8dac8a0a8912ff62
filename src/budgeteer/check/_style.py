"""The rules of styles."""

from __future__ import annotations

from collections.abc import Callable

from budgeteer.check._common import CheckFailed
from budgeteer.core.errors import InvalidInput
from budgeteer.models.chat import Chat, contents
from budgeteer.solve.strategy import Style
from budgeteer.solve.styles import Example, TaskInfo

MakeStyle = Callable[[TaskInfo], Style]
TASKS = (
    TaskInfo("chains", numeric=True),
    TaskInfo("numbers", numeric=True),
    TaskInfo("text"),
    TaskInfo("sums", numeric=True, examples=(Example("1 + 1?", "One and one are two.", "2"),), units=True),
    TaskInfo("names", examples=(Example("Who?", "", "She"),)),
)
QUESTIONS = ("How many legs have 7 spiders?", "3 + 4 =", 'Say {this} "as it is": \\n 100%')
THINKING = "Some steps, one after the other"
JUNK = ("", " ", "\n", "\x00", "****", "Answer:", "</think>", "{", "\ud83d\ude00", "9" * 400, "-", "$", "\n\n42")


def check_style(make: MakeStyle, *, seed: int = 0) -> None:
    """Ask and read for five made-up tasks, and raise :class:`CheckFailed` at the first broken rule.

    Rules: at least one task is accepted, and the others are refused with InvalidInput; a prompt is raw text or
    messages, contains the question's text unchanged and is the same each time; ``close``, a blank, an answer and a line
    break are read as the answer in its normal form, also by styles of JSON and the like, because models forget the
    form; there is no answer if the thinking is not closed; a text that cannot be read gives None or a text, and raises
    nothing; a normal form is its own normal form; no stop text is part of ``close``, which would end a trace before its
    answer; an empty answer is not complete.

    Args:
        make: the style, a function of a task.
        seed: not used; styles do not draw.
    """
    accepted = []
    for task in TASKS:
        try:
            style = make(task)
        except InvalidInput:
            continue
        except Exception as error:
            raise CheckFailed(
                f"task {task.name!r} raised {type(error).__name__}: {error}; raise InvalidInput"
            ) from error
        if not isinstance(style, Style):
            raise CheckFailed(f"for task {task.name!r} it made {style!r}, no Style")
        accepted.append(task)
        _asks(style, make(task), task)
        _reads(style, "42" if task.numeric else "Paris")
        _survives(style)
    if not accepted:
        raise CheckFailed(f"every task was refused ({', '.join(task.name for task in TASKS)}); accept one of them")


def _asks(style: Style, again: Style, task: TaskInfo) -> None:
    for question in QUESTIONS:
        prompt = style.prompt(question)
        if not isinstance(prompt, str | Chat):
            raise CheckFailed(f"the prompt is {prompt!r}; a prompt is a text or a Chat")
        if not any(question in text for text in contents(prompt)):
            raise CheckFailed(f"the prompt of {question!r} does not hold the question's text as it is: {prompt!r}")
        if prompt != style.prompt(question) or prompt != again.prompt(question):
            raise CheckFailed(f"the prompt of {question!r} for task {task.name!r} is another one each time")


def _reads(style: Style, answer: str) -> None:
    trace = f"{THINKING * bool(style.close)}{style.close} {answer}\n"
    if style.read(trace) != style.normal(answer):
        raise CheckFailed(f"of {trace!r} it reads {style.read(trace)!r}, not {style.normal(answer)!r}")
    if style.close and style.read(THINKING) is not None:
        raise CheckFailed(f"of thinking that is not closed it reads {style.read(THINKING)!r}; there is no answer yet")
    if cutting := [stop for stop in style.stop if not stop or stop in style.close]:
        raise CheckFailed(
            f"the stop text {cutting[0]!r} is part of close {style.close!r}, so no trace gets to its answer"
        )
    if style.answer_tokens < 1:
        raise CheckFailed(f"answer_tokens is {style.answer_tokens}; close and the answer take at least 1")
    if style.complete("") is not False:
        raise CheckFailed(f"complete of no text is {style.complete('')!r}; nothing is no finished answer: False")


def _survives(style: Style) -> None:
    for junk in JUNK:
        for trace in (junk, THINKING + style.close + junk):
            try:
                answer, complete = style.read(trace), style.complete(junk)
            except Exception as error:
                raise CheckFailed(f"reading {trace!r} raised {type(error).__name__}: {error}") from error
            if answer is not None and not isinstance(answer, str):
                raise CheckFailed(f"of {trace!r} it reads {answer!r}; an answer is a text or None")
            if not isinstance(complete, bool):
                raise CheckFailed(f"complete of {junk!r} is {complete!r}; it is True or False")
            if answer is not None and style.normal(answer) != answer:
                raise CheckFailed(f"the normal form of {answer!r}, which is one, is {style.normal(answer)!r}")
