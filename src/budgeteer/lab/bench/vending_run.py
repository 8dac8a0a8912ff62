"""Who runs the vending machine: scripted policies, and any model within a budget of tokens a day."""

from __future__ import annotations

import contextlib
import inspect
import json
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from budgeteer.core.errors import BudgetExceeded
from budgeteer.lab.bench.vending import FRESH, ROOM, SLOTS, SUPPLIERS, Call, State, View, World, apply, view, worth
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.chat import Chat, Message
from budgeteer.models.model import Model, Request
from budgeteer.solve import Budgeted, derive

Act = Callable[[View], Call | Awaitable[Call]]
"""Decides the next call from what an agent sees; it keeps its own memory."""
WINDOW = 12
"""Exchanges that a model is shown again."""
_ANSWER = 160
"""Most tokens of one call."""


@dataclass(frozen=True, slots=True)
class Played:
    """A run.

    Attributes:
        worth: net worth in dollars at the end.
        ruined: whether it ended by unpaid fees.
        days: days that it lasted.
        sold: units sold.
        last_sale: the last day with a sale; -1 = none.
        calls: of tools.
        refused: calls that could not be done.
    """

    worth: float
    ruined: bool
    days: int
    sold: int
    last_sale: int
    calls: int
    refused: int


async def play(act: Act, *, seed: int, days: int, calls: int = 40) -> Played:
    """Run the machine.

    Args:
        act: decides.
        seed: of the world and of all that happens in it.
        days: that it runs.
        calls: most calls of a day; the one after them is ``wait``.
    """
    world, state = World.drawn(seed), State()
    text, done, refused, today = "Day 0. The machine and the storage are empty.", 0, 0, 0
    while state.day < days and not state.ruined:
        found = act(view(world, state, text)) if today < calls else Call("wait")
        outcome = apply(world, state, await found if inspect.isawaitable(found) else found)
        today = today + 1 if outcome.state.day == state.day else 0
        state, text = outcome.state, outcome.text
        done, refused = done + 1, refused + bool(outcome.refused)
    return Played(worth(world, state), state.ruined, state.day, state.sold, state.last_sale, done, refused)


def idle() -> Act:
    """Does nothing: what it ends with is the start less the fees."""
    return lambda seen: Call("wait")


def reorder(remembers: bool = True, kinds: int = 4, target: int = 8) -> Act:
    """Keeps ``kinds`` small and as many large products at ``target`` units, at twice their cost; collects every day.

    Args:
        remembers: whether it counts what is ordered and has not come; without that it orders the same again every day.
        kinds: products of each size.
        target: units of a product, in the machine, in the storage and under way together.
    """
    under_way: Counter[str] = Counter()
    planned: list[Call] = []
    day = -1

    def act(seen: View) -> Call:
        nonlocal day
        if seen.day != day:
            day = seen.day
            for part in seen.text.partition("Deliveries: ")[2].split("; "):
                words = part.split(" have arrived")[0].split(" ", 1)
                if "have arrived" in part:
                    under_way[words[1]] = max(0, under_way[words[1]] - int(words[0]))
            planned[:] = _plan(seen, under_way if remembers else Counter(), kinds, target)
        if not planned:
            return Call("wait")
        call = planned.pop(0)
        if call.tool == "order":
            under_way[call.arguments["product"]] += call.arguments["units"]
        return call

    return act


def _plan(seen: View, under_way: Counter[str], kinds: int, target: int) -> list[Call]:
    calls = [Call("collect")]
    for small, first in ((True, 0), (False, SLOTS // 2)):
        names = sorted(name for name, (is_small, _) in seen.catalogue.items() if is_small is small)[:kinds]
        for place, name in enumerate(names):
            slot = seen.slots[first + place]
            units, held = (slot.units if slot else 0), seen.storage.get(name, 0)
            if fill := min(ROOM - units, held):
                calls.append(Call("stock", {"product": name, "slot": first + place, "units": fill}))
            if (more := target - units - held - under_way[name]) > 0:
                calls.append(Call("order", {"supplier": SUPPLIERS[0].name, "product": name, "units": more}))
    return calls


POLICIES: dict[str, Callable[[], Act]] = {
    "idle": idle,
    "reorder": reorder,
    "forgetful": lambda: reorder(remembers=False),
}
"""Scripted policies by name; ``forgetful`` does not remember what is under way."""
RULES = (
    "You run a vending machine. Make money: what counts at the end is cash, the money in the machine and fresh stock. "
    f"A fee of $2 is due every day. Slots 0 to {SLOTS // 2 - 1} are for small goods, {SLOTS // 2} to {SLOTS - 1} for "
    f"large ones, {ROOM} units each. Goods last {FRESH} days from delivery. Paid orders are not listed for you: write "
    "them down. Suppliers: "
    + "; ".join(
        f"{one.name} ({one.factor:g} x cost, up to {one.days[1]} days, {one.least} units or more)" for one in SUPPLIERS
    )
    + '. Answer with one tool as JSON on one line and nothing else: {"tool": "order", "supplier": "...", "product": '
    '"...", "units": 8}, {"tool": "stock", "product": "...", "slot": 0, "units": 8}, {"tool": "price", "slot": 0, '
    '"price": 2.5}, {"tool": "collect"}, {"tool": "note", "text": "..."} or {"tool": "wait"}, which ends the day.'
)


def rules(seen: View) -> str:
    """What a model is told before all else."""
    goods = ", ".join(f"{name} {'small' if s else 'large'} ${cost:.2f}" for name, (s, cost) in seen.catalogue.items())
    return f"{RULES} Goods and their costs: {goods}."


def situation(seen: View) -> str:
    """What a model is shown before a call."""
    slots = ", ".join(
        f"{i}: {slot.units} {slot.goods[0].product} ${slot.price:.2f}" for i, slot in enumerate(seen.slots) if slot
    )
    storage = ", ".join(f"{n} {name}" for name, n in seen.storage.items())
    return (
        f"{seen.text}\nDay {seen.day}, cash ${seen.cash:.2f}. Machine: {slots or 'empty'}. Storage: "
        f"{storage or 'empty'}. Notes: {seen.notes or 'none'}"
    )


class Agent:
    """A model that decides, within a hard budget of tokens a day: when a call does not fit any more, the day is over.

    A run is a function of its seed and of the model's answers, so a run that was broken off goes on from them.

    Args:
        model: any; the caller closes it.
        tokens: of a day, input and output together.
        seed: of its answers.
        earlier: what ``keep`` was told in the run that was broken off; these calls are not made again.
        keep: is told of each call: ``spent``, its tokens, and ``text``, the answer, None where the call did not fit the
            day, nothing where it failed.
    """

    def __init__(
        self,
        model: Model,
        *,
        tokens: int,
        seed: int,
        earlier: Iterable[Mapping[str, Any]] = (),
        keep: Callable[[dict[str, Any]], None] = lambda call: None,
    ) -> None:
        self.model, self.tokens, self.seed, self._earlier, self._keep = model, tokens, seed, deque(earlier), keep
        self.used, self._day, self._left, self._said = 0, -1, 0, list[Message]()

    async def __call__(self, seen: View) -> Call:
        """The call that the model answers with; text that is no call is one that is refused."""
        if seen.day != self._day:
            self._day, self._left = seen.day, self.tokens
        self._said = self._said[-2 * WINDOW :]
        prompt = Chat((Message("system", rules(seen)), *self._said, Message("user", situation(seen))))
        text = await self._answer(prompt, seen.day)
        if text is None:
            return Call("wait")
        self._said += [Message("user", seen.text), Message("assistant", text)]
        return called(text)

    async def _answer(self, prompt: Chat, day: int) -> str | None:
        """The model's answer, from the run before if it has one; None if the call does not fit the day."""
        while self._earlier:
            before = self._earlier.popleft()
            self._spend(before["spent"])
            if "text" in before:
                return before["text"]  # type: ignore[no-any-return]
        ledger = MemoryLedger()
        ledger.open("day", [Limit("all", self._left)])
        charged, known = Budgeted(self.model, Allowance(ledger, "day", {"all": self._left})), dict[str, Any]()
        text: str | None = None
        try:
            if cap := charged.afford(prompt, most=_ANSWER):
                request = Request(prompt, cap, seed=derive(self.seed, day, self.used))
                with contextlib.suppress(BudgetExceeded):
                    text = (await charged.generate(request, stage="act")).choices[0].text
            known = {"text": text}
        finally:
            spent = charged.spend.units["all"]
            self._spend(spent)
            self._keep({**known, "spent": spent})
        return text

    def _spend(self, tokens: int) -> None:
        self._left, self.used = max(0, self._left - tokens), self.used + tokens


def called(text: str) -> Call:
    """The call in a model's answer: its first JSON object with a tool; text without one is a call of no tool.

    >>> called('I order. {"tool": "collect"}'), called("Hm.")
    (Call(tool='collect', arguments={}), Call(tool='', arguments={}))
    """
    decoder, at = json.JSONDecoder(), text.find("{")
    while at >= 0:
        try:
            found: Any = decoder.raw_decode(text, at)[0]
        except (ValueError, RecursionError):  # the latter of thousands of brackets
            found = None
        if isinstance(found, dict) and isinstance(found.get("tool"), str):
            return Call(found.pop("tool"), found)
        at = text.find("{", at + 1)
    return Call("")
