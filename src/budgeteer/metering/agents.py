"""A budget for agents: what the next call of a model may be, calls of tools, and parts for sub-agents.

The adapters of agent frameworks stand on it. It decides three things, and reserves before and settles after each:

- **A call of the model.** It has tools as long as the budget covers it and, after it, one last answer that reads all
  of the conversation. When it does not, this call is the last answer: without tools, capped by what is left. When not
  even that fits, the model is not asked, and the agent ends with a text that says so.
- **A call of a tool.** It counts under the kinds ``tool:NAME``, ``tool``, ``bytes`` and ``bytes:NAME`` where the budget
  has them. What it returns is cut to what the last answer can still read. A refused call returns a text that says so.
- **A sub-agent.** While a tool named in ``parts`` runs, all that is spent inside it comes from a part of the budget,
  carved out before it and given back after it, however it ends.

Which agent is at work is a context variable, so a sub-agent needs no argument: it uses the same :class:`AgentBudget`.
Work in a thread that does not inherit the context spends from the whole, which is as hard.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from budgeteer.core.bisection import largest
from budgeteer.core.budget import Budget, Budgets
from budgeteer.core.errors import AllowanceError, BudgetExceeded, InvalidInput
from budgeteer.core.meter import Counted, meter, used_by_agents
from budgeteer.core.usage import Usage, count
from budgeteer.ledger import Allowance, Ledger, Limit, MemoryLedger
from budgeteer.ledger.allowance import Call as Held
from budgeteer.ledger.limit import check_path
from budgeteer.ledger.protocol import new_id
from budgeteer.metering.call import Metering
from budgeteer.metering.calling import ametered, metered
from budgeteer.metering.estimate import CAPS, Bounds, unmeasured, worst_case
from budgeteer.metering.patience import GivenUp, awaited, waited
from budgeteer.metering.results import Fitting, Room, fitted, size_of
from budgeteer.metering.settlement import Answer, Planned
from budgeteer.metering.turn import Turn, lacking, said, told, units_of
from budgeteer.metering.unseen import unseen

T = TypeVar("T")
REFUSALS = (BudgetExceeded, AllowanceError)
"""What a spend raises that the budget does not cover, or whose agent's part was closed."""
LAST = "Your budget for further steps is spent. Answer now with what you have, without calling tools."
"""What the model is told beside its last request."""
_BOUNDS = Bounds(max_output=1024)
_ROOM = 256
"""Bytes of results of tools that a call with tools has to leave room for; without any it would learn nothing."""
_FRAME = 160
"""Bytes around a message: its role, identifiers, and what JSON writes around calls of tools."""
_BYTES = 4
"""Bytes of a token that the model wrote, when it is read again."""
_SHORTEST = 16
"""Tokens of output below which a last answer is not worth its prompt."""
_HERE: ContextVar[_Agent | None] = ContextVar("budgeteer_agent", default=None)


@dataclass(slots=True)
class _Agent:
    """An agent at work.

    Attributes:
        of: the budget that it belongs to.
        allowance: what it spends from.
        context: most tokens of input that its conversation can have by now, results of tools included; None: its model
            was not asked yet.
        model: that it asked last, which prices the last answer.
    """

    of: AgentBudget
    allowance: Allowance
    context: int | None = None
    model: str = ""
    lock: Any = field(default_factory=threading.RLock)

    def after(self, more: int) -> Mapping[str, int]:
        """Units to keep for a last answer that reads the conversation and so many tokens more."""
        if self.context is None:
            return {}
        usage = Usage(input=self.context + more + _FRAME + len(LAST), output=self.of.last)
        return self.of.metering.plan("", "chat", self.model, usage).amounts

    def read(self, size: int) -> None:
        """Its conversation has so many bytes more."""
        with self.lock:
            if self.context is not None:
                self.context += size

    def told(self, text: str) -> str:
        """A text that it gets in place of a result."""
        self.read(size_of(text) + _FRAME)
        return text


class _Result:
    """What a call of a tool may return: what the last answer can still read, within the size that it reserved."""

    def __init__(self, here: _Agent, held: Held, name: str) -> None:
        self._here, self._held, self._name = here, held, name
        self._sizes = [units for kind, units in held.amounts.items() if kind.startswith("bytes") and units]
        self._taken = 0
        here.read(_FRAME)
        self._settle()

    def cut(self, text: str) -> str:
        """As much of a text as there is room for."""
        return self._fitted(lambda room: room.cut(text))

    def whole(self, text: str) -> bool:
        """Whether there is room for all of a text, which then takes it."""
        return self._fitted(lambda room: room.whole(text))

    def _fitted(self, fit: Callable[[Room], T]) -> T:
        """What ``fit`` makes of the room that there is, of which it takes some."""
        with self._here.lock:
            room = self._room()
            made = fit(room)
            self._take(room.taken)
        return made

    def _room(self) -> Room:
        here, free = self._here, self._here.allowance.remaining
        most = min([here.of.max_result, *self._sizes]) - self._taken
        return Room(largest(lambda n: not lacking(free, here.after(n)), most))

    def _take(self, size: int) -> None:
        self._taken += size
        self._here.read(size)
        if self._sizes:
            self._settle()

    def _settle(self) -> None:
        used = {
            kind: 0 if units == 0 else self._taken if kind.startswith("bytes") else units
            for kind, units in self._held.amounts.items()
        }
        self._held.settle(used, operation="execute_tool", tool=self._name[:256])


class AgentBudget:
    """What an agent, its tools and its sub-agents may spend together.

    Args:
        allowance: its kinds are what is counted: tokens (``all``, ``output``, formulas), ``money``, ``turns`` (calls of
            a model), ``tool:NAME``, ``tool``, ``bytes:NAME`` and ``bytes``.
        parts: tool -> what the sub-agent inside it may spend at a time, such as ``"8k, turns:5"`` or ``"25%"`` of what
            is left. Kinds of tools that it leaves out are 0 for it; the others have to be named, but one percentage is
            for all.
        last: tokens of output that are kept for the last answer.
        max_result: most bytes that one call of a tool may return.
        patience: seconds after which a call of a tool is given up; None: never.
        show: whether the model is told before each call what is left.
        bounds: how requests are bounded; None: by bytes, with a cap of 1,024 tokens where a request has none.
        options: further ones of :class:`budgeteer.metering.call.Metering`: prices, estimator, state, on_settle.

    Hard: what is held and spent never exceeds the allowance, as far as the bounds of requests hold. A last answer is
    affordable for each agent that has its allowance or part for itself, unless calls failed, which are charged, too, or
    a token that the model wrote has more than 4 bytes on the average; agents that share one may leave each other none.

    >>> budget = AgentBudget.parse("20k, turns:5, tool:search:1")
    >>> budget.use("search", lambda: "found"), budget.use("search", lambda: "never run")[:44]
    ('found', '[search was not called: tool:search: 0 of 1 ')
    """

    def __init__(
        self,
        allowance: Allowance,
        *,
        parts: Mapping[str, str] | None = None,
        last: int = 512,
        max_result: int = 32_000,
        patience: float | None = None,
        show: bool = False,
        bounds: Bounds | None = None,
        **options: Any,
    ) -> None:
        count("last", last)
        count("max_result", max_result)
        if patience is not None and not 0 < patience < threading.TIMEOUT_MAX:
            raise InvalidInput(f"patience is {patience}; give seconds above 0, or None to wait for ever")
        self._granted = allowance.remaining
        read = {kind: meter(kind, options.get("prices")) for kind in self._granted}
        counted = {kind for kind, one in read.items() if isinstance(one, Counted)}
        if unbounded := sorted(kind for kind in counted if not used_by_agents(kind)):
            raise InvalidInput(
                f"nothing says before a call of an agent how much of {unbounded[0]} it takes, so that a budget of it "
                "would not hold; write a formula over tokens, such as input*0.02+output*0.4 for energy, as budgeteer "
                "profile energy prints it"
            )
        counts = {kind: int(kind == "turns") for kind in counted}
        self.metering = Metering(_Here(self), tuple(read), bounds=bounds or _BOUNDS, counts=counts, **options)
        self.last, self.max_result, self.patience, self.show = last, max_result, patience, show
        self._parts = {name: self._part(allowance.path, name, text) for name, text in (parts or {}).items()}
        self._root = _Agent(self, allowance)

    @classmethod
    def parse(cls, text: str, *, ledger: Ledger | None = None, path: str = "agent", **options: Any) -> Self:
        """A budget as it is written, such as ``"50k, turns:20, tool:search:20"``.

        Args:
            text: in the notation of :class:`budgeteer.Budgets`, absolute and without windows.
            ledger: where all is booked; None: in the memory of this process.
            path: of the run's account in it, which is opened with these limits; what was spent there before counts.
            options: of the class.
        """
        amounts = {}
        for budget in Budgets.parse(text):
            if budget.amount is None or budget.window is not None:
                raise InvalidInput(
                    f"the budget {budget} of a run is a share or has a window; give an amount here, and limits with "
                    "windows to the ledger's account"
                )
            amounts[budget.kind] = budget.amount
        ledger = MemoryLedger() if ledger is None else ledger
        *above, own = check_path(path)
        for scope in above:
            ledger.open(scope)
        ledger.open(own, [Limit(kind, units) for kind, units in amounts.items()])
        books = ledger.accounts([own]).accounts[own].books
        left = {k: max(0, units - (books[k].spent if k in books else 0)) for k, units in amounts.items()}
        made = cls(Allowance(ledger, path, left, tags=_tags(left)), **options)
        made._granted = {kind: amounts[kind] for kind in made._granted}
        return made

    @property
    def allowance(self) -> Allowance:
        """What the agent at work here spends from: that of the run, or a part of it inside a sub-agent."""
        return self._here.allowance

    @property
    def spent(self) -> dict[str, int]:
        """Units per kind of the whole that are spent, held, or given to a sub-agent at work."""
        return {kind: units - self._root.allowance.remaining[kind] for kind, units in self._granted.items()}

    def __str__(self) -> str:
        left = self._root.allowance.remaining
        return ", ".join(
            f"{units_of(kind, left[kind])} of {units_of(kind, units).removeprefix(f'{kind}: ')}"
            for kind, units in self._granted.items()
        )

    def close(self) -> None:
        """End the run: no agent of it can spend any more."""
        self._root.allowance.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # calls of a model

    def turns(self, request: Mapping[str, Any], *, tools: bool, model: str = "", provider: str = "") -> Iterator[Turn]:
        """What a call may be: as it is asked, and each time that the ledger refuses it, less: a last answer, a shorter
        one, none.

        Args:
            request: messages, tools and cap, as :func:`budgeteer.metering.estimate.worst_case` reads them.
            tools: whether the agent goes on after it, since the model may call tools.
            model, provider: for prices and records.
        """
        first = self._turn(request, tools, model, provider)
        yield first
        if first.planned is not None:
            cap = first.cap
            if first.why == "":
                last = self._last(request, tools, model, provider, "what was left was spent meanwhile")
                yield last
                cap = last.cap
            if cap // 2 >= _SHORTEST:
                yield self._last(request, tools, model, provider, "what was left was spent meanwhile", cap // 2)
        yield Turn(None, False, 0, why="what was left was spent meanwhile")

    def answer(
        self,
        request: Mapping[str, Any],
        send: Callable[[Turn], T],
        stop: Callable[[str], T] | None,
        *,
        tools: bool,
        read: Callable[[T], Answer] | None = None,
        model: str = "",
        provider: str = "",
    ) -> T:
        """A call of a model, or what the agent ends with in place of it.

        Args:
            request, tools, model, provider: as in ``turns``.
            send: makes the call as the turn says.
            stop: makes an answer of a text, with which the agent ends; None: its answer cannot be a text.
            read: what is known of an answer, to settle it; None: ``send`` reserves and settles by itself.

        Raises:
            BudgetExceeded: nothing fits, and ``stop`` is None.
        """
        refusal: BaseException | None = None
        for turn in self.turns(request, tools=tools, model=model, provider=provider):
            if turn.planned is None:
                return turn.after(refusal).ended(stop)
            try:
                if read is None:
                    return send(turn)
                return metered(self.metering, turn.planned, partial(send, turn), read)
            except REFUSALS as error:
                refusal = error
        raise AssertionError("the last turn asks nobody")

    async def aanswer(
        self,
        request: Mapping[str, Any],
        send: Callable[[Turn], Awaitable[T]],
        stop: Callable[[str], T] | None,
        *,
        tools: bool,
        read: Callable[[T], Answer] | None = None,
        model: str = "",
        provider: str = "",
    ) -> T:
        """``answer`` without blocking the event loop."""
        refusal: BaseException | None = None
        for turn in self.turns(request, tools=tools, model=model, provider=provider):
            if turn.planned is None:
                return turn.after(refusal).ended(stop)
            try:
                if read is None:
                    return await send(turn)
                return await ametered(self.metering, turn.planned, partial(send, turn), read)
            except REFUSALS as error:
                refusal = error
        raise AssertionError("the last turn asks nobody")

    def _turn(self, request: Mapping[str, Any], tools: bool, model: str, provider: str) -> Turn:
        here = self._here
        free = here.allowance.remaining
        note = f"Budget left: {told(free)}." if self.show else ""
        worst = worst_case({**request, "note": note} if note else request, self.metering.bounds, model=model)
        whole = self.metering.plan(provider, "chat", model, worst, cap=worst.output)
        written = (worst.output or 0) * (1 if self.metering.bounds.tokens is not None else _BYTES)
        context = (worst.input or 0) + written + _FRAME
        after = _Agent(self, here.allowance, context, model).after(_ROOM) if tools else {}
        why = lacking(free, whole.amounts, after)
        if why:
            return self._last(request, tools, model, provider, str(why))
        if tools:  # else it is no step of the agent itself, or its last one
            with here.lock:
                here.context, here.model = context, model
        return Turn(whole, True, worst.output or 0, note)

    def _last(
        self, request: Mapping[str, Any], tools: bool, model: str, provider: str, why: str, most: int | None = None
    ) -> Turn:
        """The last answer: without tools, and no longer than what is left, and than ``most`` tokens."""
        allowance, bounds = self._here.allowance, self.metering.bounds
        free = allowance.remaining
        asked = next((request[name] for name in CAPS if request.get(name)), bounds.max_output) or 1
        most = min(asked, asked if most is None else most)
        bare = {name: value for name, value in request.items() if name not in (*CAPS, "tools")}
        parts = unseen(bare)
        least = worst_case({**bare, "note": LAST, CAPS[0]: 1}, bounds, parts, model)

        def plan(cap: int) -> Planned:
            worst = replace(least, output=(least.output or 0) + cap - 1)
            return self.metering.plan(provider, "chat", model, worst, cap=cap)

        short = lacking(free, plan(min(_SHORTEST, most)).amounts)
        if short is not None:
            helps = unmeasured(parts, bounds, str(request.get("model") or model))
            turn = Turn(None, False, 0, why=f"{short}; {helps}" if helps else str(short))
            return replace(turn, refusal=allowance.refusal(short.kind, short.needed, turn.stopped))
        cap = largest(lambda n: not lacking(free, plan(n).amounts), most)
        return Turn(plan(cap), False, cap, LAST if tools else "", why)

    # calls of tools, and sub-agents in them

    def use(
        self,
        name: str,
        function: Callable[[], T],
        *,
        fit: Callable[[Any, Fitting], Any] = fitted,
        refused: Callable[[str], Any] = str,
    ) -> Any:
        """Call a tool.

        Args:
            name: of the tool; it counts in lower case.
            function: calls it.
            fit: (result, room) -> as much of the result as there is room for.
            refused: makes a result of a text that says why there is no other.

        Returns:
            What the tool returned, fitted into what is left; a text if it was refused, or given up.
        """
        here = self._here
        try:
            with self._reserve(here, name) as held, self._inside(here, name, held) as room:
                result = function() if self.patience is None else waited(function, self.patience)
                return fit(result, room)
        except (*REFUSALS, GivenUp) as error:
            return refused(here.told(self._why_not(name, error)))

    async def ause(
        self,
        name: str,
        function: Callable[[], Awaitable[T]],
        *,
        fit: Callable[[Any, Fitting], Any] = fitted,
        refused: Callable[[str], Any] = str,
    ) -> Any:
        """``use`` of a coroutine function."""
        here = self._here
        try:
            async with self._reserve(here, name) as held:
                with self._inside(here, name, held) as room:
                    result = await (function() if self.patience is None else awaited(function, self.patience))
                    return fit(result, room)
        except (*REFUSALS, GivenUp) as error:
            return refused(here.told(self._why_not(name, error)))

    @property
    def _here(self) -> _Agent:
        here = _HERE.get()
        return here if here is not None and here.of is self else self._root

    def _why_not(self, name: str, error: BaseException) -> str:
        """What the model reads in place of a result."""
        if isinstance(error, GivenUp):
            return f"[{name} gave no answer within {self.patience:g} s; go on without it]"
        return f"[{name} was not called: {said(error)}; go on without it]"

    def _reserve(self, here: _Agent, name: str) -> Held:
        free, tool = here.allowance.remaining, name.lower()
        amounts = dict.fromkeys(free, 0)
        for kind in amounts:
            if kind in ("tool", f"tool:{tool}"):
                amounts[kind] = 1
            elif kind in ("bytes", f"bytes:{tool}"):
                amounts[kind] = max(1, min(self.max_result, free[kind]))
        sizes = [kind for kind in amounts if kind.startswith("bytes")]  # a process that died was given no result
        return here.allowance.reserve(amounts, on_abandon=sizes or "charge")

    @contextmanager
    def _inside(self, here: _Agent, name: str, held: Held) -> Iterator[_Result]:
        """Charge the call, and let all that is spent inside a sub-agent's tool come from its part."""
        room = _Result(here, held, name)
        part = self._parts.get(name)
        if part is None:
            yield room
            return
        with here.lock:
            free = here.allowance.remaining
            amounts = {kind: part[kind].of(max(0, free[kind])) if kind in part else 0 for kind in free}
            why = lacking(free, amounts, here.after(_ROOM))
            if why:
                held.release()
                raise AllowanceError(str(why))
            child = _child(here.allowance, name, amounts)
        token = _HERE.set(_Agent(self, child))
        try:
            yield room
        finally:
            _HERE.reset(token)
            child.close()

    def _part(self, path: str, name: str, text: str) -> dict[str, Budget]:
        if "/" in name or name in path.split("/"):
            raise InvalidInput(
                f"the part of {name} is booked in the ledger as {path}/{name}; rename the tool, or give another path="
            )
        check_path(f"{path}/{name}")
        if not isinstance(text, str):
            raise InvalidInput(f"the part of {name} is {text!r}; write it as a text, such as '8k' or '25%'")
        part = {budget.kind: budget for budget in Budgets.parse(text)}
        shares = [budget for budget in part.values() if budget.amount is None]
        if large := [budget for budget in shares if (budget.fraction or 0) > 1]:
            raise InvalidInput(f"the part of {name} is {large[0]} of what is left; give 100% at most")
        if len(shares) == 1:
            part = {kind: replace(shares[0], kind=kind) for kind in self._granted} | part
        for kind in part.keys() - self._granted.keys():
            raise InvalidInput(f"the part of {name} names {kind}, which the budget does not have")
        for kind in self._granted:
            if kind not in part and not kind.startswith(("tool", "bytes")):
                raise InvalidInput(f"the part {text!r} of {name} lacks {kind}; name it, or give a share such as 25%")
        return part


class _Here:
    """The allowance of whoever is at work, for a Metering that all agents of a run share."""

    def __init__(self, of: AgentBudget) -> None:
        self._of = of

    def reserve(self, amounts: Mapping[str, int], *, id: str | None = None) -> Held:
        return self._of.allowance.reserve(amounts, id=id)


def _child(parent: Allowance, name: str, amounts: Mapping[str, int]) -> Allowance:
    try:
        return parent.share({name: amounts}, tags=_tags(amounts))[name]
    except InvalidInput as error:  # the name is on the path: an agent that calls itself, which would go on for ever
        raise AllowanceError(str(error)) from error


def _tags(amounts: Mapping[str, int]) -> dict[str, str]:
    """What the journal says beside each charge of an allowance: which it was, and what it was given."""
    given = " ".join(f"{kind} {units}" for kind, units in amounts.items())
    return {"part": new_id(), "given": given[:256]}
