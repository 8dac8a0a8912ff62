"""Vending-Bench: a vending machine to be run for many days. Orders have to be remembered, stock has to be fresh.

Paper: "Vending-Bench: A Benchmark for Long-Term Coherence of Autonomous Agents", arXiv 2502.15840. The abstract, its
page and two rebuilt versions were read. The start of $500, the fee of $2, ruin after 10 unpaid days, 4 rows of 3 slots
and the form of the demand are the benchmark's. Products and suppliers are drawn from a seed here, where a language
model made them up there; goods last :data:`FRESH` days, since without that it costs nothing to order twice.

All functions are pure: a state and a call give the next state and what the agent reads.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

CASH, FEE, UNPAID = 500.0, 2.0, 10
"""Dollars at the start, dollars a day, and the days in a row without the fee that end the business."""
SLOTS, ROOM, FRESH = 12, 10, 14
"""Slots of the machine, the first half of them for small goods; units in a slot; days that goods last from delivery."""
WEEKDAYS = (0.85, 0.95, 1.0, 1.05, 1.15, 1.25, 1.2)
MONTHS = (0.8, 0.85, 0.95, 1.05, 1.1, 1.15, 1.2, 1.2, 1.1, 1.0, 0.9, 0.95)
VARIETY = (6, 9)
"""Fewest and most kinds of goods in the machine that please all customers."""
DEMAND = 0.15
"""Of the 1 to 5 units a day and product that rebuilt versions have: at more, ordering all twice costs nothing."""
_SMALL = ("gum", "crisps", "chocolate", "nuts", "mints", "biscuits", "raisins", "crackers")
_LARGE = ("water", "cola", "juice", "iced tea", "sandwich", "salad", "yoghurt", "soup")


class Product(NamedTuple):
    """A product: wholesale cost and reference price in dollars, elasticity (below 0), units a day at that price."""

    name: str
    small: bool
    cost: float
    reference: float
    elasticity: float
    base: float


class Supplier(NamedTuple):
    """A supplier: what it asks, as a multiple of the wholesale cost; days until goods arrive; fewest units it sells."""

    name: str
    factor: float
    days: tuple[int, int]
    least: int


SUPPLIERS = (
    Supplier("Harbour Wholesale", 1.0, (2, 4), 1),
    Supplier("Quick Foods", 1.3, (1, 2), 1),
    Supplier("Bulk Barn", 0.85, (3, 6), 30),
)


class Goods(NamedTuple):
    """Units of a product and the first day on which they are spoilt."""

    product: str
    units: int
    until: int


class Slot(NamedTuple):
    """A slot of the machine with goods of one product, the oldest first."""

    price: float
    goods: tuple[Goods, ...]

    @property
    def units(self) -> int:
        """Units in it."""
        return sum(each.units for each in self.goods)


class Order(NamedTuple):
    """Paid goods under way."""

    product: str
    units: int
    day: int


@dataclass(frozen=True, slots=True)
class World:
    """What is drawn from the seed, once."""

    seed: int
    products: Mapping[str, Product]

    @classmethod
    def drawn(cls, seed: int) -> World:
        """The world of a seed."""
        rng = random.Random(f"vending-{seed}")
        products = {}
        for name in (*_SMALL, *_LARGE):
            cost = round(rng.uniform(0.5, 1.5), 2)
            reference = round(cost * rng.uniform(1.8, 2.6), 2)
            products[name] = Product(
                name, name in _SMALL, cost, reference, -rng.uniform(0.8, 2.0), DEMAND * rng.uniform(1, 5)
            )
        return cls(seed, products)


@dataclass(frozen=True, slots=True)
class State:
    """The business on the morning of a day.

    Attributes:
        day: from 0.
        cash: at hand, in dollars.
        box: dollars in the machine, not collected yet.
        storage: goods that are not in the machine.
        slots: of the machine; None = empty.
        orders: under way; the agent is told of them only when they are made and when they arrive.
        unpaid: days in a row on which the fee was not paid.
        sold: units sold so far.
        last_sale: the last day with a sale; -1 = none.
        notes: what the agent wrote down.
    """

    day: int = 0
    cash: float = CASH
    box: float = 0.0
    storage: tuple[Goods, ...] = ()
    slots: tuple[Slot | None, ...] = (None,) * SLOTS
    orders: tuple[Order, ...] = ()
    unpaid: int = 0
    sold: int = 0
    last_sale: int = -1
    notes: str = ""

    @property
    def ruined(self) -> bool:
        """Whether the business has ended."""
        return self.unpaid >= UNPAID


class Call(NamedTuple):
    """A call of a tool: ``order``, ``stock``, ``price``, ``collect``, ``note`` or ``wait``, with its arguments."""

    tool: str
    arguments: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call: the next state, the text that the agent reads, why it was refused (``""`` = it was not)."""

    state: State
    text: str
    refused: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """What an agent sees: the business without its orders, and what its last call brought.

    Attributes:
        day, cash, storage, slots, notes: of the state; storage as units by product.
        text: of the last call; after ``wait``, the morning's report.
        catalogue: product -> (small or not, wholesale cost).
    """

    day: int
    cash: float
    storage: Mapping[str, int]
    slots: tuple[Slot | None, ...]
    notes: str
    text: str
    catalogue: Mapping[str, tuple[bool, float]] = field(repr=False)


def view(world: World, state: State, text: str) -> View:
    """What the agent sees."""
    storage: Counter[str] = Counter()
    for goods in state.storage:
        storage[goods.product] += goods.units
    catalogue = {name: (product.small, product.cost) for name, product in world.products.items()}
    return View(state.day, state.cash, storage, state.slots, state.notes, text, catalogue)


def worth(world: World, state: State) -> float:
    """Net worth in dollars: cash, what is in the machine's box, and goods that are not spoilt at their wholesale cost.

    Goods that are paid and under way count, too.
    """
    goods = [*state.storage, *(each for slot in state.slots if slot for each in slot.goods)]
    units = [(each.product, each.units) for each in goods] + [(order.product, order.units) for order in state.orders]
    return state.cash + state.box + sum(world.products[name].cost * n for name, n in units)


def demand(product: Product, price: float, *, day: int, kinds: int, weather: float = 1.0) -> float:
    """Expected sales of a day at a price.

    Formula: base * max(0, 1 + elasticity * (price - reference) / reference) * weekday * month * weather * choice, where
    choice is 1 for a number of kinds within :data:`VARIETY`, 0.1 less for each kind outside of it, and 0.5 at least.
    Days count from a Monday, 1 January; a month has 30 days.
    """
    least, most = VARIETY
    choice = max(0.5, 1 - 0.1 * max(least - kinds, kinds - most, 0))
    pull = max(0.0, 1 + product.elasticity * (price - product.reference) / product.reference)
    return product.base * pull * WEEKDAYS[day % 7] * MONTHS[day // 30 % 12] * weather * choice


def poisson(mean: float, u: float) -> int:
    """The smallest n of which P(N <= n) > u, N Poisson of this mean: more is sold at a higher mean, ``u``
    being equal.

    >>> [poisson(1.0, u) for u in (0.1, 0.5, 0.8, 0.95)]
    [0, 1, 2, 3]
    """
    n, term = 0, math.exp(-mean)
    below = term
    while u >= below and n < 1000:
        n += 1
        term *= mean / n
        below += term
    return n


def apply(world: World, state: State, call: Call) -> Outcome:
    """What a call of a tool does; one that cannot be done changes nothing and says why."""
    tools: dict[str, Callable[..., Outcome]] = {
        "order": _order,
        "stock": _stock,
        "price": _price,
        "collect": _collect,
        "note": _note,
        "wait": _wait,
    }
    if call.tool not in tools:
        return _refused(state, f"there is no tool {str(call.tool)[:40]!r}; the tools are {', '.join(tools)}")
    try:
        return tools[call.tool](world, state, **call.arguments)
    except (TypeError, ValueError, AttributeError, OverflowError):
        return _refused(state, f"{call.tool} does not take {str(dict(call.arguments))[:80]}")


def _refused(state: State, why: str) -> Outcome:
    return Outcome(state, f"Not done: {why}.", why)


def _order(world: World, state: State, supplier: str, product: str, units: int) -> Outcome:
    units = int(units)
    one = next((each for each in SUPPLIERS if each.name.lower() == supplier.strip().lower()), None)
    if one is None:
        return _refused(state, f"no answer from {supplier[:40]!r}; it is not known")
    if product not in world.products or units < one.least:
        return _refused(state, f"{one.name} sells {one.least} units or more of a product that it has")
    price = round(world.products[product].cost * one.factor * units, 2)
    if price > state.cash:
        return _refused(state, f"{units} {product} cost ${price:.2f} and ${state.cash:.2f} are at hand")
    rng = random.Random(f"{world.seed} {state.day} {one.name} {product}")
    order = Order(product, units, state.day + rng.randint(*one.days))
    text = f"{one.name}: {units} {product} for ${price:.2f}; they arrive within {one.days[1]} days."
    return Outcome(replace(state, cash=round(state.cash - price, 2), orders=(*state.orders, order)), text)


def _stock(world: World, state: State, product: str, slot: int, units: int) -> Outcome:
    slot, units = int(slot), int(units)
    if product not in world.products or not 0 <= slot < SLOTS:
        return _refused(state, f"give a product and a slot from 0 to {SLOTS - 1}")
    if world.products[product].small != (slot < SLOTS // 2):
        return _refused(state, f"slot {slot} is for {'small' if slot < SLOTS // 2 else 'large'} goods")
    there = state.slots[slot]
    if there is not None and there.units and there.goods[0].product != product:
        return _refused(state, f"slot {slot} has {there.goods[0].product} in it")
    held = sum(goods.units for goods in state.storage if goods.product == product)
    if not 1 <= units <= min(held, ROOM - (there.units if there else 0)):
        return _refused(
            state,
            f"{held} {product} are in the storage, and slot {slot} has room for {ROOM - (there.units if there else 0)}",
        )
    taken, kept, left = [], [], units
    for goods in sorted(state.storage, key=lambda goods: goods.until):
        n = min(left, goods.units) if goods.product == product else 0
        left -= n
        if n:
            taken.append(goods._replace(units=n))
        if goods.units > n:
            kept.append(goods._replace(units=goods.units - n))
    price = there.price if there else round(2 * world.products[product].cost, 2)
    filled = Slot(price, tuple(sorted([*(there.goods if there else ()), *taken], key=lambda goods: goods.until)))
    slots = (*state.slots[:slot], filled, *state.slots[slot + 1 :])
    return Outcome(
        replace(state, storage=tuple(kept), slots=slots), f"{units} {product} are in slot {slot} now, at ${price:.2f}."
    )


def _price(world: World, state: State, slot: int, price: float) -> Outcome:
    slot, price = int(slot), round(float(price), 2)
    there = state.slots[slot] if 0 <= slot < SLOTS else None
    if there is None or not 0 < price < 1000:
        return _refused(state, "give a slot that was filled and a price above 0")
    slots = (*state.slots[:slot], there._replace(price=price), *state.slots[slot + 1 :])
    return Outcome(replace(state, slots=slots), f"Slot {slot} sells at ${price:.2f} now.")


def _collect(world: World, state: State) -> Outcome:
    text = f"${state.box:.2f} collected from the machine."
    return Outcome(replace(state, cash=round(state.cash + state.box, 2), box=0.0), text)


def _note(world: World, state: State, text: str) -> Outcome:
    return Outcome(replace(state, notes=str(text)[:2000]), "Written down, in place of the notes before.")


def _wait(world: World, state: State) -> Outcome:
    """Sales of the day, then the night: what is spoilt leaves, goods arrive, the fee is due."""
    day, sold, earned = state.day, Counter[str](), 0.0
    weather = random.Random(f"{world.seed} weather {day}").uniform(0.8, 1.2)
    kinds = len({slot.goods[0].product for slot in state.slots if slot and slot.units})
    slots: list[Slot | None] = []
    for place, slot in enumerate(state.slots):
        if slot is None or not slot.units:
            slots.append(None)
            continue
        name = slot.goods[0].product
        twins = sum(1 for each in state.slots if each and each.units and each.goods[0].product == name)
        mean = demand(world.products[name], slot.price, day=day, kinds=kinds, weather=weather) / twins
        n = min(slot.units, poisson(mean, random.Random(f"{world.seed} {day} {name} {place}").random()))
        sold[name] += n
        earned += n * slot.price
        left, rest = n, []
        for goods in slot.goods:
            gone = min(left, goods.units)
            left -= gone
            if goods.units > gone and goods.until > day + 1:
                rest.append(goods._replace(units=goods.units - gone))
        slots.append(slot._replace(goods=tuple(rest)) if rest else None)
    arrived = [order for order in state.orders if order.day <= day + 1]
    storage = [goods for goods in state.storage if goods.until > day + 1]
    storage += [Goods(order.product, order.units, day + 1 + FRESH) for order in arrived]
    paid = state.cash >= FEE
    total = sum(sold.values())
    after = replace(
        state, day=day + 1, cash=round(state.cash - FEE, 2) if paid else state.cash, box=round(state.box + earned, 2),
        storage=tuple(storage), slots=tuple(slots), orders=tuple(o for o in state.orders if o.day > day + 1),
        unpaid=0 if paid else state.unpaid + 1, sold=state.sold + total, last_sale=day if total else state.last_sale,
    )  # fmt: skip
    mail = "; ".join(f"{order.units} {order.product} have arrived" for order in arrived) or "none"
    told = ", ".join(f"{n} {name}" for name, n in sold.items() if n) or "nothing"
    fee = "" if paid else f" The fee could not be paid, {after.unpaid} days in a row; {UNPAID} end the business."
    return Outcome(after, f"Day {day + 1}. Sold yesterday: {told}. Deliveries: {mail}.{fee}")
