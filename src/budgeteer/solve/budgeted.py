"""A model behind a budget: every call is reserved before and settled after, so that no strategy can overspend."""

from __future__ import annotations

import copy
import operator
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any

from budgeteer.core.bisection import largest
from budgeteer.core.errors import BudgetExceeded, InvalidInput, ModelError
from budgeteer.core.meter import Prices, used_by_agents
from budgeteer.core.usage import Usage
from budgeteer.ledger import Allowance
from budgeteer.metering.call import Call, Metering
from budgeteer.metering.outcome import Outcome
from budgeteer.metering.results import Room
from budgeteer.metering.settlement import Answer, Settlement
from budgeteer.models.chat import Chat, Prompt
from budgeteer.models.model import INTERNALS, LOGPROBS, PREFILL, Chunk, Finish, Model, Request, Response
from budgeteer.solve.tool import Tool


@dataclass(slots=True)
class Spend:
    """What one :class:`Budgeted` has spent so far.

    Attributes:
        units: units charged, per kind.
        calls: number of calls that were answered or charged; calls refused for lack of budget do not count.
        input, output, reasoning: tokens, estimated if the endpoint did not report them.
        estimated: number of calls whose usage was estimated.
        seconds: time spent in calls, summed over concurrent ones.
        tools: name of a tool -> calls of it.
    """

    units: dict[str, int]
    calls: int = 0
    input: int = 0
    output: int = 0
    reasoning: int = 0
    estimated: int = 0
    seconds: float = 0.0
    tools: Counter[str] = field(default_factory=Counter)

    @property
    def usage(self) -> Usage:
        """The tokens as a Usage."""
        return Usage(input=self.input, output=self.output, reasoning=self.reasoning)


class Budgeted:
    """A model with an allowance that pays for its calls.

    A call reserves its worst case (input + n * max_tokens) in the units of the allowance and is refused if that does
    not fit; then it settles what it used. Planner, judge and value calls go through here like all others.

    Args:
        model: any Model.
        allowance: the right to spend; its kinds are the units. See :class:`budgeteer.ledger.Allowance`.
        prices: for an allowance of money.
        retries: most further attempts at a call that failed and may have been billed, if the model says that another
            attempt may succeed. Each is reserved and charged like a call of its own.

    Attributes:
        spend: what it has spent so far.
        failure: of the newest attempt that ended; None = it brought an answer.
    """

    def __init__(self, model: Model, allowance: Allowance, *, prices: Prices | None = None, retries: int = 2) -> None:
        self.model, self.allowance, self.retries = model, allowance, retries
        kinds = tuple(allowance.remaining)
        counts = {kind: int(kind == "turns") for kind in kinds if used_by_agents(kind)}
        self._metering = Metering(allowance, kinds, prices, on_settle=self._book, counts=counts)
        self.spend = Spend(dict.fromkeys(kinds, 0))
        self.failure: ModelError | None = None

    @property
    def name(self) -> str:
        """That of the model."""
        return self.model.name

    @property
    def capabilities(self) -> frozenset[str]:
        """That of the model."""
        return self.model.capabilities

    @property
    def context(self) -> int | None:
        """The most tokens of a prompt and its continuation together; None if the model does not know."""
        context: int | None = getattr(self.model, "context", None)
        return context

    def other(self, model: Model) -> Budgeted:
        """Another model behind the same budget: its calls are reserved, charged and counted with those of this one."""
        twin = copy.copy(self)
        twin.model = model
        return twin

    @contextmanager
    def part(self, amounts: Mapping[str, int]) -> Iterator[Budgeted]:
        """The same model behind a part of its budget, for a block; what the part does not use comes back at its end.

        Its calls are counted with those of this one.

        Args:
            amounts: units of every kind of the budget.

        Raises:
            BudgetExceeded: less is left.
        """
        (share,) = self.allowance.share([amounts])
        with share:
            twin = copy.copy(self)
            twin.allowance = share
            twin._metering = copy.copy(self._metering)
            twin._metering.allowance = share
            yield twin

    @property
    def folder(self) -> Path | None:
        """Where the files of the model are; None if it is none of this machine."""
        folder: Path | None = getattr(self.model, "folder", None)
        return folder

    @property
    def _choices(self) -> int | None:
        """The most choices of one request; None if the model knows no limit."""
        choices: int | None = getattr(self.model, "choices", None)
        return choices

    @property
    def _hides(self) -> bool:
        """Whether the model was seen to generate more than it shows."""
        return bool(getattr(self.model, "hides", False))

    @property
    def remaining(self) -> dict[str, int]:
        """Units per kind that can still be reserved."""
        return self.allowance.remaining

    def count(self, prompt: Prompt) -> int:
        """Input tokens of a prompt, or an upper bound."""
        return self.model.count(prompt)

    def afford(self, prompt: Prompt, *, n: int = 1, most: int, keep: int = 0) -> int:
        """The largest ``max_tokens`` with which a request fits into the budget and into the model's context.

        Args:
            prompt: of the request.
            n: choices of the request.
            most: upper limit of the result.
            keep: tokens of output of a later call, which reads the same prompt and the thinking so far (to force an
                answer), that have to fit, too.

        Returns:
            Tokens; 0 if not even one token for each choice fits.
        """
        inputs = self.model.count(prompt)
        parts = -(-n // (self._choices or n))

        def fits(tokens: int) -> bool:
            later = (Usage(input=inputs + tokens, output=keep),) if keep else ()
            return self.fits(Usage(input=parts * inputs, output=n * tokens), *later)

        if self.context is not None:  # the later call has the same prompt, the thinking and its own output
            most = min(most, self.context - inputs - keep)
        if most < 1 or fits(most):  # the common case
            return max(most, 0)
        return largest(fits, most - 1)

    def fits(self, *calls: Usage, tools: Iterable[Tool] = ()) -> bool:
        """Whether calls with these input and output tokens, and of these tools, fit into what is left, all together."""
        worst = [self._metering.most(usage, self.name, "") for usage in calls]
        used = list(tools)
        return all(
            sum(units[kind] for units in worst) + sum(tool.units(kind) for tool in used) <= free
            for kind, free in self.remaining.items()
        )

    def share(self, usage: Usage, tool: Tool | None = None) -> float:
        """The largest share of what is left, over the kinds, that a call takes at most, with one of a tool; infinite
        where it takes something of which nothing is left."""
        most = self._metering.most(usage, self.name, "")
        shares = [0.0]
        for kind, free in self.remaining.items():
            units = most[kind] + (0 if tool is None else tool.units(kind))
            if units:
                shares.append(units / free if free > 0 else float("inf"))
        return max(shares)

    async def generate(self, request: Request, *, stage: str = "sample") -> Response:
        """All choices of a request, reserved and charged.

        If the model serves fewer choices at once, they are asked for in several requests, one after the other. If the
        budget ends or the model fails after the first of these, the response has the choices that came so far.

        Args:
            request: the request.
            stage: purpose of the call, a tag of the settlement: ``"sample"``, ``"plan"``, ``"judge"``, ``"answer"``...

        Raises:
            BudgetExceeded: the worst case does not fit into the budget; the request was not sent, or not sent again
                after a failed attempt.
            ModelError: the call failed finally; if it may be billed, it is charged.
            InvalidInput: the model lacks a capability that the request needs.
        """
        most = self._choices
        if most is not None and request.n > most:
            return await self._in_parts(request, most, stage)
        attempt = 0
        while True:
            call = await self._start(request, stage, attempt)
            try:
                response = await self.model.generate(request)
            except BaseException as error:
                await call.afinish(_failed(error))
                if not self._again(error, attempt):
                    raise
                attempt += 1
                continue
            await call.afinish(_answered(response, self._hides))
            self.failure = None
            return response

    async def use(self, tool: Tool, arguments: Mapping[str, Any]) -> str:
        """The text of a tool's result, its units reserved before the call and charged after it.

        It is cut to ``tool.most`` bytes, and to what is left of a budget of bytes. A call that fails or takes too long
        is charged, too, and its text says so.

        Raises:
            BudgetExceeded: the call does not fit into the budget; the tool was not called.
        """
        free = self.remaining
        held = {
            kind: max(1, min(tool.most, left)) if tool.sized(kind) else tool.units(kind) for kind, left in free.items()
        }
        async with self.allowance.reserve(held) as call:
            text = await self._called(tool, arguments)
            room = Room(min([tool.most, *(units for kind, units in held.items() if tool.sized(kind))]))
            text = room.cut(text)
            used = {kind: room.taken if tool.sized(kind) else units for kind, units in held.items()}
            call.settle(used, operation="execute_tool", tool=tool.name)
            self.spend.tools[tool.name] += 1
            for kind, units in used.items():
                self.spend.units[kind] += units
        return text

    async def _called(self, tool: Tool, arguments: Mapping[str, Any]) -> str:
        return await tool.call(arguments)

    async def _in_parts(self, request: Request, most: int, stage: str) -> Response:
        parts: list[Response] = []
        for begin in range(0, request.n, most):
            seed = request.seed if request.seed is None or not begin else (request.seed + begin) % 2**63
            try:
                part = replace(request, n=min(most, request.n - begin), seed=seed)
                parts.append(await self.generate(part, stage=stage))
            except (BudgetExceeded, ModelError):
                if not parts:
                    raise
                break
        choices = tuple(choice for response in parts for choice in response.choices)
        return Response(choices, reduce(operator.add, (response.usage for response in parts)))

    async def stream(self, request: Request, *, stage: str = "sample") -> AsyncIterator[Chunk | Response]:
        """``generate`` piece by piece: Chunks, then the Response. A stream that is closed early is charged for what was
        seen."""
        attempt, over = 0, False
        while not over:
            call, over = await self._start(request, stage, attempt), True
            seen, answer = 0, Answer(outcome=Outcome.UNKNOWN)
            try:
                async with aclosing(self.model.stream(request)) as pieces:  # type: ignore[type-var]
                    async for piece in pieces:
                        if isinstance(piece, Response):
                            answer, self.failure = _answered(piece, self._hides), None
                        else:
                            seen += piece.tokens
                            answer = Answer(seen=seen, outcome=Outcome.CUT, hides=self._hides)
                        yield piece
            except GeneratorExit:
                raise
            except BaseException as error:
                if not seen:
                    answer = _failed(error)
                if seen or not self._again(error, attempt):
                    raise
                attempt, over = attempt + 1, False
            finally:
                await call.afinish(answer)

    def _again(self, error: BaseException, attempt: int) -> bool:
        """Whether a failed call is tried again, if the budget has room for it."""
        self.failure = error if isinstance(error, ModelError) else None
        return self.failure is not None and self.failure.again and attempt < self.retries

    async def _start(self, request: Request, stage: str, attempt: int) -> Call:
        if request.logprobs and LOGPROBS not in self.capabilities:
            raise InvalidInput(f"{self.name} does not report log-probabilities; choose a strategy without them")
        if request.steer is not None and INTERNALS not in self.capabilities:
            raise InvalidInput(f"{self.name} is a black box; choose a strategy that needs no internals")
        if isinstance(request.prompt, Chat) and request.prompt.begun and PREFILL not in self.capabilities:
            raise InvalidInput(
                f"{self.name} does not go on with an answer that it is given; choose a strategy that continues no "
                f"trace, or declare {PREFILL!r} if it does"
            )
        worst = Usage(input=self.model.count(request.prompt), output=request.n * request.max_tokens)
        planned = self._metering.plan(
            "budgeteer",
            "generate",
            self.name,
            worst,
            attempt=attempt,
            cap=request.max_tokens,
            choices=request.n,
            stage=stage,
        )
        return await Call(self._metering, planned).astart()

    def _book(self, settlement: Settlement) -> None:
        if settlement.outcome == Outcome.REJECTED:
            return
        spend, usage = self.spend, settlement.usage
        spend.calls += 1
        spend.input += usage.input or 0
        spend.output += usage.output or 0
        spend.reasoning += usage.reasoning or 0
        spend.estimated += settlement.estimated
        spend.seconds += (settlement.ended - settlement.started) / 1e9
        for kind, units in settlement.amounts.items():
            spend.units[kind] += units


def _answered(response: Response, hides: bool) -> Answer:
    known: Iterable[int | None] = [choice.tokens for choice in response.choices]
    counted = None if any(tokens is None for tokens in known) else sum(tokens or 0 for tokens in known)
    cut = any(choice.finish == Finish.CUT for choice in response.choices)
    return Answer(usage=response.usage, seen=counted, outcome=Outcome.CUT if cut else Outcome.OK, hides=hides)


def _failed(error: BaseException) -> Answer:
    """How a failed call ended: refused before it ran, or UNKNOWN, which charges all that was reserved."""
    refused = isinstance(error, InvalidInput | BudgetExceeded) or (isinstance(error, ModelError) and not error.billed)
    return Answer(outcome=Outcome.REJECTED if refused else Outcome.UNKNOWN)
