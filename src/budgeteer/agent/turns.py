"""The agent loop: a model is asked, calls tools, reads their results, and answers within a hard budget.

A trajectory is a tuple of :class:`Turn`, so that a search may branch it. Every call of the model and of a tool goes
through ``task.model``, which reserves before and charges after it; a run that was killed pays for none of them twice.
Before each call the loop keeps what a last answer would cost that reads the whole conversation, and results are cut to
what that answer can still read.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any

from budgeteer.agent.calling import how_to_call
from budgeteer.core.bisection import largest
from budgeteer.core.errors import BudgetExceeded, InvalidInput, ModelError
from budgeteer.core.usage import Usage
from budgeteer.models.chat import Message, Prompt, ToolCall, call_of, calls_in, continued
from budgeteer.models.model import CALLS, continuing
from budgeteer.solve import Answer, StoppedBy, Task
from budgeteer.solve.tool import Tool, seen, written
from budgeteer.strategies.kit.trace import Piece, ask, conclude

LAST = "Answer now with what you have, without calling tools."
"""What the model is told beside its last request."""
FAILED = re.compile(r"\[(?:error: |\S+ (?:failed: |gave no answer |was not called))")
"""How a text begins that stands in place of a tool's result."""
_OPEN, _SHUT = "<tool_response>", "</tool_response>"
_ROOM = 24
"""Tokens of results that a call with tools has to leave room for; without any it would learn nothing."""
_SHORTEST = 4
"""Tokens of output below which a step is not worth its prompt."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One step of an agent.

    Attributes:
        text: what the model wrote.
        calls: of tools that stand in it.
        results: of these calls, in their order.
        note: what the model is told behind the results.
        answer: that it states, in the style's normal form; None if it calls tools, or states none.
    """

    text: str
    calls: tuple[ToolCall, ...] = ()
    results: tuple[str, ...] = ()
    note: str = ""
    answer: str | None = None


Turns = tuple[Turn, ...]
"""A trajectory, from the question on."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of an agent's steps.

    Attributes:
        step_tokens: most tokens of output of a step.
        result: most characters of a tool's result.
        temperature: of the draws.
    """

    step_tokens: int = 256
    result: int = 2000
    temperature: float = 0.0


_LIMITS = Limits()


def limits_of(step_tokens: int, result: int, temperature: float) -> Limits:
    """Limits of an agent's steps.

    Raises:
        InvalidInput: one is out of range.
    """
    if step_tokens < 1 or result < 1 or not 0 <= temperature < float("inf"):
        raise InvalidInput(
            f"step_tokens={step_tokens}, result={result}, temperature={temperature}; the first two are at least 1, the "
            "temperature is finite and not below 0"
        )
    return Limits(step_tokens, result, temperature)


class Agent:
    """An agent that answers one question.

    Args:
        task: question, budgeted model and tools.
        limits: of its steps.
        about: text behind the question, such as a plan.
        tools: whether it may call tools; False for one that reads everything at once.
    """

    def __init__(self, task: Task, limits: Limits = _LIMITS, *, about: str = "", tools: bool = True) -> None:
        self.task, self.limits, self.about = task, limits, about
        self.tools = {tool.name: tool for tool in task.tools} if tools else {}
        self._schemas = tuple(json.dumps(tool.schema()) for tool in self.tools.values())
        self._how = how_to_call(tuple(self.tools.values()), task.question.text) if self.tools else ""
        self.made = 0
        """Steps that were made, on all branches; each has a seed of its own."""

    def prompt(self, turns: Turns, *, last: bool = False) -> Prompt:
        """What the model reads: the question, the turns so far and, before its last answer, that it is the last.

        Args:
            turns: the trajectory.
            last: whether tools are withdrawn.
        """
        native = CALLS in self.task.model.capabilities
        about = [self.about] if self.about else []
        if self.tools and not native and (turns or not last):
            about.append(self._how)
        prompt = self.task.style.prompt("\n\n".join([self.task.question.text, *about]))
        if isinstance(prompt, str):
            return continued(prompt, "".join(map(_as_text, turns)) + (f"\n{LAST}\n" if last and self.tools else ""))
        messages = list(prompt.messages)
        for turn in turns:
            messages.append(Message("assistant", turn.text))
            messages += _read(turn, "tool" if native and turn.calls else "user")
        if last and self.tools:
            messages.append(Message("user", LAST))
        return replace(prompt, messages=tuple(messages), tools=self._schemas if native and not last else ())

    async def step(self, turns: Turns, note: Callable[[Turn], str] | None = None, *, keep: int = 0) -> Turn | None:
        """One call of the model, and the calls of tools that it asks for, all at the same time.

        Args:
            turns: the trajectory so far.
            note: (turn with its results) -> what the model is told behind them.
            keep: tokens of input of a last answer on another branch, that has to stay affordable, too.

        Returns:
            The turn; None if the budget covers no step besides a last answer, or what it added could not be read.

        Raises:
            ModelError: the model failed; no tool was called.
        """
        prompt = self.prompt(turns)
        cap = self._cap(prompt, keep)
        if cap < _SHORTEST:
            return None
        # raw text would go on with results of its own; a line break ends no call
        stop = (_OPEN, *filter(str.strip, self.task.style.stop)) if isinstance(prompt, str) else ()
        self.made += 1
        piece = await ask(
            self.task,
            prompt,
            most=cap,
            stop=stop,
            temperature=self.limits.temperature,
            stage="step",
            at=self.made,
        )
        if not piece.tokens:
            return None
        calls = tuple(calls_in(self._said(prompt, piece.text)))
        if not (calls and self.tools):
            whole = not calls and self._whole(piece)  # without tools a call is no answer, either
            return Turn(piece.text, answer=self.task.style.read(piece.text) if whole else None)
        turn = Turn(piece.text, calls, tuple(map(seen, calls, await self._all_called(turns, piece.text, calls))))
        noted = replace(turn, note=note(turn)) if note is not None else turn
        return self.fitted(turns, noted)

    async def act(self, turns: Turns, call: ToolCall) -> Turn | None:
        """One call of a tool that a plan asks for, without asking the model.

        Returns:
            The turn; None if a last answer could not read what it added.
        """
        text = call_of(call.name, written(call.arguments or {}))
        return self.fitted(turns, Turn(text, (call,), tuple(await self._all_called(turns, text, (call,)))))

    async def conclude(self, turns: Turns, by: StoppedBy, trace: str = "") -> Answer:
        """The last answer, without tools; never raises for lack of budget.

        Args:
            turns: the trajectory.
            by: why there is no further step.
            trace: what the model wrote behind it without an end, such as thinking at its cap.
        """
        model, style = self.task.model, self.task.style
        prompt = self.prompt(turns, last=True)
        before = self.text(turns)
        if style.close and continuing(prompt) in model.capabilities:
            answer = await conclude(self.task, prompt, trace, by, temperature=self.limits.temperature)
            wrote = "".join(answer.traces)
            said = None if calls_in(style.split(wrote)[1] or "") else answer.answer
            return replace(answer, answer=said, traces=(before + wrote,))
        piece = await ask(
            self.task,
            prompt,
            most=max(style.answer_tokens, self.limits.step_tokens),
            stop=style.stop,
            temperature=self.limits.temperature,
            stage="answer",
        )
        if not piece.tokens:
            return Answer(None, StoppedBy.BUDGET, (before,))
        read = None if calls_in(piece.text) else style.read(piece.text)
        if read is None and not piece.ended:  # such as thinking that was cut
            by = StoppedBy.BUDGET if piece.clipped else StoppedBy.CAP
        return Answer(read, by, (before + piece.text,))

    def text(self, turns: Turns) -> str:
        """The trajectory as text, for reports and for prompts about it."""
        return "".join(map(_as_text, turns))

    def fits(self, prompt: Prompt, output: int, turns: Turns, more: int = 0) -> bool:
        """Whether a call beside the loop fits, and then a last answer that reads these turns and ``more`` tokens."""
        model = self.task.model
        later = Usage(input=self.reads(turns) + more, output=self.task.style.answer_tokens)
        room = model.context is None or model.count(prompt) + output <= model.context
        return room and model.fits(Usage(input=model.count(prompt), output=output), later)

    def reads(self, turns: Turns) -> int:
        """Tokens of input of a last answer that reads these turns."""
        return self.task.model.count(self.prompt(turns, last=True))

    def _cap(self, prompt: Prompt, keep: int) -> int:
        """The most tokens of a step with which a last answer still fits, that reads it and a little of a result."""
        model, last = self.task.model, self.task.style.answer_tokens
        inputs = model.count(prompt)
        frame = _ROOM + model.count(LAST) + model.count(_as_text(Turn("", results=("",))))
        most = self.limits.step_tokens
        if model.context is not None:
            most = min(most, model.context - inputs - frame - last)

        def fits(tokens: int) -> bool:
            read = max(keep, inputs + tokens + frame * bool(self.tools))
            return model.fits(Usage(input=inputs, output=tokens), Usage(input=read, output=last))

        return most if most < 1 or fits(most) else largest(fits, most)

    def _said(self, prompt: Prompt, text: str) -> str:
        """The text without its thinking, in which a call is only thought of."""
        tags = None if isinstance(prompt, str) else prompt.tags
        if tags is None:
            return text
        thought, closed, rest = text.partition(tags.close)
        return rest if closed else "" if tags.open in thought else text

    def _whole(self, piece: Piece) -> bool:
        """Whether a text can be read as an answer: it ended by itself, or states its answer behind its thinking."""
        rest = self.task.style.split(piece.text)[1]
        return rest is not None and (piece.ended or self.task.style.complete(rest))

    async def _all_called(self, turns: Turns, text: str, calls: tuple[ToolCall, ...]) -> list[str]:
        """Results of calls, all made at the same time; as many of them as leave a last answer affordable."""
        inputs = self.reads((*turns, Turn(text, calls, ("",) * len(calls))))
        last, paid = Usage(input=inputs, output=self.task.style.answer_tokens), list[Tool]()
        fits: list[bool] = []
        for call in calls:
            tool = self.tools.get(call.name)
            used = [] if tool is None or tool.wrong(call.arguments) else [tool]
            fits.append(self.task.model.fits(last, tools=[*paid, *used]))
            paid += used if fits[-1] else []
        return await _all([self._called(call, fit) for call, fit in zip(calls, fits, strict=True)])

    async def _called(self, call: ToolCall, fits: bool) -> str:
        tool = self.tools.get(call.name)
        if tool is None:
            said = f"there is no tool {call.name[:64]}" if call.name else "the call is no JSON object with a name"
            return f"[error: {said}; there are {', '.join(self.tools)}]"
        wrong = tool.wrong(call.arguments)
        if wrong or call.arguments is None:
            return f"[error: {call.name} was not called: {wrong}]"
        with contextlib.suppress(BudgetExceeded):  # others draw on the same budget and may be faster
            if fits:
                return cut(await self.task.model.use(tool, call.arguments), self.limits.result)
        return f"[{call.name} was not called: its budget is spent; go on without it]"

    def fitted(self, turns: Turns, turn: Turn) -> Turn | None:
        """The turn with its results cut to what a last answer can still read; None if that cannot read it at all."""
        model = self.task.model

        def fits(turn: Turn) -> bool:
            inputs = self.reads((*turns, turn))
            last = self.task.style.answer_tokens
            room = model.context is None or inputs + last <= model.context
            return room and model.fits(Usage(input=inputs, output=last))

        def shorter(most: int) -> Turn:
            return replace(turn, results=tuple(cut(result, most) for result in turn.results))

        if fits(turn):
            return turn
        if not fits(shorter(0)):
            return None
        return shorter(largest(lambda most: fits(shorter(most)), max(map(len, turn.results))))


@dataclass(frozen=True, slots=True)
class Walk:
    """A trajectory that has ended.

    Attributes:
        turns: all of them; the last one has an answer, if there is one.
        answer: that it states.
        stopped_by: DONE with an answer, BUDGET, CAP of its turns, or ERROR of the model.
        error: of the model.
    """

    turns: Turns
    answer: str | None
    stopped_by: StoppedBy
    error: str = ""


async def walk(
    agent: Agent, turns: Turns, most: int, note: Callable[[Turns, Turn], str] | None = None, *, again: bool = False
) -> Walk:
    """Go on until the model answers, or makes ``most`` further turns, or the budget covers only a last answer.

    Args:
        agent: who goes on.
        turns: where.
        most: turns.
        note: (turns before, turn with its results) -> what the model is told behind them.
        again: whether a ModelError is one way to end, since there is an answer from before; else it is raised.
    """
    for _ in range(most):
        before = turns
        try:
            turn = await agent.step(turns, None if note is None else lambda made, before=before: note(before, made))  # type: ignore[misc]
        except ModelError as error:
            if not again:
                raise
            return Walk(turns, None, StoppedBy.ERROR, str(error))
        if turn is None:
            return Walk(turns, None, StoppedBy.BUDGET)
        turns = (*turns, turn)
        if not turn.calls:
            return Walk(turns, turn.answer, StoppedBy.DONE if turn.answer is not None else StoppedBy.CAP)
    return Walk(turns, None, StoppedBy.CAP)


async def answered(agent: Agent, done: Walk) -> Answer:
    """The answer of a trajectory; one that ended without is asked for its last answer."""
    if done.answer is not None:
        return Answer(done.answer, done.stopped_by, (agent.text(done.turns),), error=done.error)
    *before, end = done.turns or (Turn(""),)
    if calls_in(end.text) and not agent.tools:
        return Answer(None, done.stopped_by, (agent.text(done.turns),), error=done.error)
    if not end.calls and end.text:  # it was cut in the middle of a text
        return await agent.conclude(tuple(before), done.stopped_by, end.text)
    return await agent.conclude(done.turns, done.stopped_by)


async def _all(calls: Sequence[Coroutine[Any, Any, str]]) -> list[str]:
    """What they return, all at the same time. If one raises, such as the ledger's error, none goes on behind it: the
    others are cancelled, and have settled what they had reserved, before that is raised."""
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def cut(text: str, most: int) -> str:
    """The first ``most`` characters of a text, with a mark where some are missing.

    >>> cut("abcdefgh", 6), cut("abc", 6), cut("abcdefgh", 2)
    ('abc...', 'abc', 'ab')
    """
    if len(text) <= most:
        return text
    return text[: most - 3] + "..." if most > 3 else text[:most]


def _as_text(turn: Turn) -> str:
    results = "".join(f"\n{_OPEN}\n{result}\n{_SHUT}" for result in turn.results)
    note = f"\n{turn.note}" if turn.note else ""
    return turn.text + results + note + "\n" * bool(results or note)


def _read(turn: Turn, role: str) -> Sequence[Message]:
    """What the model reads behind its turn."""
    texts = [*turn.results]
    if turn.note:
        texts = [*texts[:-1], f"{texts[-1]}\n{turn.note}" if texts else turn.note]
    if role == "user":
        framed = [f"{_OPEN}\n{text}\n{_SHUT}" if turn.results else text for text in texts]
        return [Message("user", "\n".join(framed))] if framed else []
    return [Message("tool", text) for text in texts]
