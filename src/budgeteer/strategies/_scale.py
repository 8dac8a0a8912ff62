"""SCALE: split a question into sub-problems, think about the difficult ones, and answer the others at once."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from budgeteer.core.errors import BudgetExceeded, InvalidInput, ModelError
from budgeteer.models.chat import Chat, Prompt, continued
from budgeteer.models.load import named
from budgeteer.models.model import PREFIX, Choice, Model, Request
from budgeteer.solve import Answer, Budgeted, StoppedBy, Strategy, Task, derive
from budgeteer.strategies.kit.samples import MAX_TOKENS, read
from budgeteer.strategies.kit.trace import aside

OUTLINE = """Question: {question}

List the sub-problems to solve in order, one a line, without solving them.
1."""
CHOICE = """Question: {question}

{outlines}
Which of these lists splits the question best? Write its number only.
Number:"""
RATING = """Question: {question}

Sub-problem: {part}

How difficult is this sub-problem, from 0 (trivial) to 10 (very hard)?
Rating:"""

Plan = Callable[[str], Sequence[str]]
"""Question -> texts of its sub-problems, in order; the last one asks for the answer."""
Difficulty = Callable[[str, str], float]
"""(question, sub-problem) -> 0 (trivial) to 1."""
Ask = Callable[[str, Sequence[tuple[str, str]], str], str]
"""(question, (sub-problem, answer) pairs so far, sub-problem) -> the text that asks for it."""
CLOSED, OFF = "closed", "off"


@dataclass(frozen=True, slots=True)
class _Budget(Exception):
    """An intermediate call exceeded the budget, or its answer could not be read."""

    reason: StoppedBy


Beside = Callable[[str, int, int, str, str, str], Awaitable[list[str]]]
"""(text, n, cap, stage, what it is about, stop text) -> what the model writes, up to n times."""


def scale(
    threshold: float = 0.2,
    *,
    outlines: int = 1,
    fast: Model | str = CLOSED,
    plan: Plan | None = None,
    difficulty: Difficulty | None = None,
    ask: Ask | None = None,
    max_tokens: int = MAX_TOKENS,
    plan_tokens: int = 256,
    temperature: float = 0.6,
) -> Strategy:
    """Split a question into sub-problems; think about one only if its difficulty exceeds ``threshold``.

    The model writes ``outlines`` lists of sub-problems and, if they differ, says which is best; then it rates the
    sub-problems of that list. They are solved in order, and each sees the answers of all before it: a difficult one by
    the model as it is, which thinks (the paper's System 2), an easy one by ``fast`` (System 1). The last sub-problem
    is always a difficult one, as in the official code. Outlines, choice and ratings are charged, with the stages "plan"
    and "judge". The answer of the last sub-problem is the answer of the question. If the budget ends before, ``fast``
    answers the whole question; tokens are kept for that.

    When it helps: questions have easy parts on which thinking is wasted, and difficulty can be told beforehand. When
    not: a wrong early answer is never revised, so a threshold that is too high spoils the rest; at the paper's best
    threshold the model thinks about three quarters of the parts. Small models write poor outlines.

    "SCALE: Selective Resource Allocation for Overcoming Performance Bottlenecks in Mathematical Test-time Scaling",
    AAAI 2026, which draws 8 outlines, with its own wording of the questions.

    Args:
        threshold: in [0, 1].
        outlines: lists of sub-problems that are drawn, in one request, >= 1; the paper draws 8.
        fast: who answers an easy part. ``closed``: the model itself, its thinking closed before it begins. ``off``: the
            model itself, its thinking turned off by the switch of its chat template or endpoint; it may write out its
            steps. Else another model, or its name as ``--model`` takes it, such as ``smollm2``: it pays from the same
            budget, and answers the way it does by itself.
        plan: None = the model lists the sub-problems.
        difficulty: None = the model rates each.
        ask: None = the earlier answers are listed before the sub-problem.
        max_tokens: cap of the trace of one sub-problem; with ``fast="closed"`` an easy one has the style's cap of an
            answer.
        plan_tokens: cap of an outline.
        temperature: of all traces.

    Raises (when solving):
        InvalidInput: ``fast`` cannot be asked as the style asks; nothing was spent.
    """
    if not 0 <= threshold <= 1 or outlines < 1:
        raise InvalidInput(f"scale(threshold={threshold}, outlines={outlines}); difficulties are 0 to 1, outlines >= 1")
    question_of = listed if ask is None else ask
    other = _model(fast)

    async def solve(task: Task) -> Answer:
        whole = task.question.text
        quick = _quick(task, fast if other is None else other, max_tokens)
        # the answer of last resort
        kept = task.model.count(task.style.prompt(whole)) + task.model.count(task.style.closing) + _answer(task)

        async def call(
            model: Budgeted, prompt: Prompt, n: int, cap: int, stage: str, about: str, stop: tuple[str, ...], keep: int
        ) -> tuple[Choice, ...]:
            least = min(cap, _answer(task))
            while (room := model.afford(prompt, n=n, most=cap, keep=keep)) < least and n > 1:
                n -= 1
            if room < least:
                raise _Budget(StoppedBy.BUDGET)
            request = Request(prompt, room, n, temperature, stop, derive(task.seed, stage, about))
            try:
                return (await model.generate(request, stage=stage)).choices
            except BudgetExceeded as error:
                raise _Budget(StoppedBy.BUDGET) from error

        async def beside(text: str, n: int, cap: int, stage: str, about: str, stop: str) -> list[str]:
            choices = await call(task.model, aside(task, text), n, cap, stage, about, (stop,), kept)
            return [choice.text for choice in choices]

        async def answer(text: str, thinks: bool, *, last: bool = False) -> tuple[str, str | None]:
            asked = _Asked(task.model, task.style.prompt(text), max_tokens) if thinks else quick(text)
            keep = 0 if last else kept
            (choice,) = await call(asked.model, asked.prompt, 1, asked.cap, "sample", text, task.style.stop, keep)
            trace = asked.trace(choice.text)
            return trace, read(task.style, trace, choice.finish)

        traces: list[str] = []
        known: list[tuple[str, str]] = []
        try:
            parts = list(plan(whole)) if plan is not None else await _plan(beside, whole, outlines, plan_tokens)
            parts = parts or [whole]
            rates = [
                difficulty(whole, part) if difficulty is not None else await _rate(beside, whole, part)
                for part in parts[:-1]
            ]
            for part, rate in zip(parts, [*rates, 1.0], strict=True):
                trace, solved = await answer(question_of(whole, known, part), rate > threshold)
                traces.append(trace)
                if solved is None:
                    raise _Budget(StoppedBy.UNANSWERED)
                known.append((part, solved))
            return Answer(known[-1][1], StoppedBy.DONE, tuple(traces))
        except _Budget as end:
            stopped, failure = end.reason, ""
        except ModelError as error:
            stopped, failure = StoppedBy.ERROR, str(error)
        try:
            trace, guess = await answer(whole, False, last=True)
        except _Budget:
            return Answer(None, StoppedBy.BUDGET, tuple(traces))
        except ModelError as error:
            return Answer(None, StoppedBy.ERROR, tuple(traces), error=str(error))
        return Answer(guess, stopped, (*traces, trace), error=failure)

    needs = frozenset({PREFIX}) if fast == CLOSED else frozenset[str]()
    return Strategy(solve, needs, () if other is None else (other,))


def _model(fast: Model | str) -> Model | None:
    """The other model that ``fast`` names; None if it is the model itself."""
    return None if fast in (CLOSED, OFF) else named(fast)


class _Asked(NamedTuple):
    """How a sub-problem is asked.

    Attributes:
        model: who is asked.
        prompt: with what.
        cap: of its tokens.
        begun: text before the answer in its trace, which ends the thinking; ``""`` = the model thinks.
        shown: whether the model may write that text itself.
    """

    model: Budgeted
    prompt: Prompt
    cap: int
    begun: str = ""
    shown: bool = False

    def trace(self, text: str) -> str:
        """The trace of what the model wrote."""
        return text if self.shown and self.begun in text else self.begun + text


def _quick(task: Task, fast: Model | str, max_tokens: int) -> Callable[[str], _Asked]:
    """How a text is asked for an answer without thinking.

    Raises:
        InvalidInput: the style's prompts cannot be asked so.
    """
    style, raw = task.style, isinstance(task.style.prompt(task.question.text), str)
    if fast == OFF and raw:
        raise InvalidInput(
            "fast=off turns the thinking off by the switch of a chat template, and the style asks in raw text; "
            "leave it out, or take the style think"
        )
    if not isinstance(fast, str) and raw and PREFIX not in fast.capabilities:
        raise InvalidInput(f"the style asks in raw text, which {fast.name} does not continue; take the style chat")
    model = task.model if isinstance(fast, str) else task.model.other(fast)

    def quick(text: str) -> _Asked:
        prompt, closed = style.prompt(text), style.closed("")
        if fast == CLOSED or isinstance(prompt, str):
            return _Asked(model, continued(prompt, closed), _answer(task) if fast == CLOSED else max_tokens, closed)
        asked = replace(prompt, thinking=replace(prompt.thinking, on=False)) if fast == OFF else Chat(prompt.messages)
        return _Asked(model, asked, max_tokens, style.close, True)

    return quick


def listed(question: str, known: Sequence[tuple[str, str]], part: str) -> str:
    """The text that asks for a sub-problem: the question, the earlier sub-problems with answers, and ``part``."""
    lines = [f"{done} -> {answer}" for done, answer in known]
    return "\n".join([question, *lines, part]) if part != question or known else question


async def _plan(call: Beside, question: str, outlines: int, cap: int) -> list[str]:
    """Draw outlines, and choose one if they differ; an answer that names none of them means the first."""
    texts = await call(OUTLINE.replace("{question}", question), outlines, cap, "plan", "", "\n\n")
    drawn = [
        [line for part in text.splitlines() if (line := re.sub(r"^\s*\d+[.)]\s*", "", part).strip())] for text in texts
    ]
    distinct = [list(lines) for lines in dict.fromkeys(map(tuple, drawn)) if lines] or [[]]
    best = distinct[0]
    if len(distinct) > 1:
        shown = "".join(
            f"List {number}:\n" + "".join(f"- {line}\n" for line in lines) + "\n"
            for number, lines in enumerate(distinct, 1)
        )
        prompt = CHOICE.replace("{outlines}", shown).replace("{question}", question)
        number = re.search(r"\d+", (await call(prompt, 1, 4, "judge", "outlines", "\n"))[0])
        if number is not None and 1 <= int(number[0]) <= len(distinct):
            best = distinct[int(number[0]) - 1]
    return [*best[:-1], question]  # the last one is the question itself


async def _rate(call: Beside, question: str, part: str) -> float:
    prompt = RATING.replace("{question}", question).replace("{part}", part)
    rating = re.search(r"\d+", (await call(prompt, 1, 4, "judge", part, "\n"))[0])
    return 0.5 if rating is None else min(int(rating[0]), 10) / 10


def _answer(task: Task) -> int:
    return task.style.answer_tokens
