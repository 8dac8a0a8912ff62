"""The multiple-choice knapsack's linear relaxation: the price of a token, in a few passes over the options.

At a price of lambda each item takes the option with the largest ``value - lambda * cost`` (or none). The tokens so
spent fall as the price rises; the price sought is where they meet the budget. Two prices enclose it, and an item that
takes the same option at both takes it at every price between, so it is settled and leaves the arrays. The next price
is where a line through the two ends (tokens against the price's logarithm) meets the budget, or, when that is slow,
where the two ends' bounds meet: that step ends after finitely many. The few items that are still open then get hulls,
whose steps are sorted. For many items the first two prices come from a sample, so that the whole data are passed over
twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.plan import F64, I64, Menu

CHUNK = 1 << 16
"""Options looked at together: their scores stay in the processor's cache."""
FEW = 16
"""So few open items are not closed in on further; the steps of their hulls are sorted instead."""
COPIED = 1 << 20
"""Up to so many options their costs are copied to float64."""
SAMPLED = 4096
"""From so many items on, the first prices come from a sample."""
ROUNDING = 2.0**-52
"""Times the number of an item's options and a value: sums of as many gains are off by less."""
EPS = 2.0**-51
"""What is worth less than this share of a plan's value is lost when its values are summed."""


@dataclass(frozen=True, slots=True)
class Block:
    """Items with equally many options, shorter menus filled up with copies of the empty option.

    Attributes:
        item: [r] positions of the items.
        cost: [r, w] in tokens, whole numbers in int64 or float64.
        value: [r, w].
    """

    item: I64
    cost: NDArray[Any]
    value: F64

    def chunks(self) -> Iterator[tuple[slice, Block]]:
        """The block in parts of about CHUNK options, as views."""
        rows, width = self.cost.shape
        step = max(1, CHUNK // width)
        for start in range(0, rows, step):
            part = slice(start, min(start + step, rows))
            yield part, Block(self.item[part], self.cost[part], self.value[part])

    def take(self, rows: I64) -> Block:
        """The items at the rows."""
        return Block(self.item[rows], self.cost[rows], self.value[rows])


def blocks(menu: Menu) -> list[Block]:
    """The menu as blocks: one without a copy when all items have equally many options, else one a power of two."""
    size = np.diff(menu.indptr)
    parts: list[Block] = []
    if not len(menu.cost):
        return parts
    # float64 holds these costs exactly and multiplies faster; beyond the cache the copy costs more than it saves
    cost = menu.cost.astype(np.float64) if len(menu.cost) <= COPIED else menu.cost
    widest = int(size.max())
    if widest == int(size.min()):
        return [Block(np.arange(len(menu)), cost.reshape(-1, widest), menu.value.reshape(-1, widest))]
    width = 1
    while width < 2 * widest:
        item = np.flatnonzero((size > width // 2) & (size <= width))
        if len(item):
            k = np.arange(width)
            there = k < size[item, None]
            at = np.where(there, menu.indptr[item, None] + k, 0)
            parts.append(Block(item, np.where(there, cost[at], 0), np.where(there, menu.value[at], 0.0)))
        width *= 2
    return parts


def score(block: Block, price: float) -> F64:
    """``value - price * cost`` [r, w]."""
    out = np.multiply(block.cost, price)
    scores: F64 = np.subtract(block.value, out, out=out)
    return scores


@dataclass(slots=True)
class _End:
    """What the open items of the blocks take at one price: option (0 = none), its cost, its value; and the sums."""

    price: float
    option: list[I64]
    cost: list[I64]
    value: list[F64]
    tokens: int
    worth: float

    def keep(self, k: int, rows: I64) -> None:
        """Leave out the settled items of block k."""
        self.option[k], self.cost[k], self.value[k] = self.option[k][rows], self.cost[k][rows], self.value[k][rows]


def _best(price: float, parts: list[Block]) -> _End:
    """What each item takes at a price; of equal scores the first option, and none rather than a score of 0."""
    ends = [best_of(price, block) for block in parts]
    tokens, worth = sum(int(c.sum()) for _, c, _ in ends), sum(float(v.sum()) for _, _, v in ends)
    return _End(price, [e[0] for e in ends], [e[1] for e in ends], [e[2] for e in ends], tokens, worth)


def best_of(price: float, block: Block) -> tuple[I64, I64, F64]:
    """Option, cost and value [r] of each item of a block."""
    rows, width = block.cost.shape
    if rows * width > CHUNK and rows > 1:
        option, cost, value = np.empty(rows, np.int64), np.empty(rows, np.int64), np.empty(rows)
        for part, chunk in block.chunks():
            option[part], cost[part], value[part] = best_of(price, chunk)
        return option, cost, value
    scores = score(block, price)
    at = scores.argmax(1)
    flat = np.arange(0, rows * width, width)
    flat += at
    taken = scores.ravel().take(flat) > 0
    at += 1
    return at * taken, block.cost.ravel().take(flat) * taken, block.value.ravel().take(flat) * taken


class Edges(NamedTuple):
    """Steps along the upper concave hulls of items' options, an item's in its order: k steps of all items.

    Attributes:
        item: [k] positions of the items.
        option: [k] the option that the step ends at.
        cost: [k] tokens that the step adds, > 0.
        slope: [k] value a token of the step; an item's slopes never rise.
    """

    item: I64
    option: I64
    cost: I64
    slope: F64

    def take(self, rows: I64) -> Edges:
        """The steps at the rows."""
        return Edges._make(column[rows] for column in self)


def edges(block: Block, cost: NDArray[Any], value: F64, stop: NDArray[Any]) -> Edges:
    """Steps of a block's hulls, by gift wrapping: from a point along the steepest slope to the nearest option on it.

    Options that lie on a hull but for rounding are kept: sums of equal gains differ in their last bits, and a step over
    several of them may not fit where the first would.

    Args:
        block: r items.
        cost, value: [r] where each begins, a point of its hull.
        stop: [r] the cost at which it ends, a point of its hull.
    """
    steps, steep = [], np.full(len(cost), np.inf)
    near = ROUNDING * block.cost.shape[1]
    while len(on := np.flatnonzero(cost < stop)):
        if len(on) < len(cost):
            block, cost, value, stop, steep = block.take(on), cost[on], value[on], stop[on], steep[on]
        more, gain = block.cost - cost[:, None], block.value - value[:, None]
        slope = np.full(more.shape, -np.inf)
        np.divide(gain, more, out=slope, where=more > 0)
        best = slope.argmax(1)[:, None]
        top = np.take_along_axis(slope, best, 1)
        size = np.maximum(np.abs(block.value), np.abs(np.take_along_axis(block.value, best, 1)))
        reached = (more > 0) & (gain > 0) & (gain >= top * more - near * size)
        np.put_along_axis(reached, best, True, 1)
        # of options of the same cost the most valuable one
        least = np.where(reached, more, np.inf).min(1, keepdims=True)
        at = np.where(reached & (more == least), block.value, -np.inf).argmax(1)
        flat = at + np.arange(0, block.cost.size, block.cost.shape[1])
        # rounding may make a later slope the larger one by a hair; an item's steps keep their order
        steep = np.minimum(top[:, 0], steep)
        steps.append(Edges(block.item, at + 1, more.ravel()[flat], steep))
        cost, value = block.cost.ravel()[flat], block.value.ravel()[flat]
    return join(steps)


class Relaxed(NamedTuple):
    """The relaxation's optimum.

    Attributes:
        price: lambda, value a token; 0 when the budget buys every item its best option.
        units: [n] an optimum's options at that price, the cheaper ones: within the budget.
        left: tokens of the budget that those leave.
        indifferent: the steps whose slope is the price: the first of an item's may be taken or left.
    """

    price: float
    units: I64
    left: int
    indifferent: Edges


NO_EDGES = Edges(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))


def relax(menu: Menu, parts: list[Block], budget: int) -> Relaxed:
    """Solve the relaxation for a budget of tokens >= 0."""
    units = np.zeros(len(menu), np.int64)
    closed = _close_in(parts, budget, _first_prices(parts, len(menu), budget))
    for item, option in closed.settled:
        units[item] = option
    steps: list[Edges] = []
    for k, block in enumerate(closed.parts):
        units[block.item] = closed.high.option[k]
        steps.append(edges(block, closed.high.cost[k], closed.high.value[k], closed.low.cost[k]))
    some = join(steps)
    if not len(some.item):
        return Relaxed(0.0, units, closed.left, some)
    order = np.argsort(-some.slope, kind="stable")
    some = some.take(order)
    spent = np.cumsum(some.cost)
    price = float(some.slope[int(np.searchsorted(spent, closed.left, side="right"))])
    # of an item's steps, those above the price are all taken: the last one says which option that is
    steeper = int(np.searchsorted(-some.slope, -price))
    units[some.item[:steeper]] = some.option[:steeper]
    left = closed.left - (int(spent[steeper - 1]) if steeper else 0)
    return Relaxed(price, units, left, some.take(np.flatnonzero(some.slope == price)))


def join(steps: list[Edges]) -> Edges:
    """The steps of several blocks as one."""
    return Edges._make(np.concatenate(columns) for columns in zip(NO_EDGES, *steps, strict=True))


def hulls(parts: list[Block]) -> Edges:
    """All steps of all items' hulls, from taking nothing to the most valuable option."""
    most = _cheapest(_best(0.0, parts), parts)
    steps = []
    for block, option in zip(parts, most.option, strict=True):
        none = np.zeros(len(option))
        last = block.cost[np.arange(len(option)), option - 1]
        steps.append(edges(block, none, none, np.where(option > 0, last, 0)))
    return join(steps)


class _Closed(NamedTuple):
    """Where :func:`_close_in` ended: settled items with their options, the open items at both ends."""

    settled: list[tuple[I64, I64]]
    parts: list[Block]
    low: _End
    high: _End
    left: int
    trace: list[tuple[float, int]]


def _close_in(parts: list[Block], budget: int, firsts: list[float]) -> _Closed:
    """Enclose the price until few items are open. ``low`` spends more than what is ``left``, ``high`` does not.

    ``left`` counts from what ``high`` spends on the open items. When everything fits, ``low`` is ``high``.
    """
    parts, left = list(parts), budget
    settled: list[tuple[I64, I64]] = []
    trace: list[tuple[float, int]] = []
    none = [np.zeros(len(block.item), np.int64) for block in parts]
    high = _End(math.inf, none, none, [np.zeros(len(block.item)) for block in parts], 0, 0.0)
    low = None
    for price in [*firsts, 0.0]:
        if price >= high.price or (low is not None and price <= low.price):
            continue
        end = _best(price, parts)
        trace.append((price, end.tokens))
        if end.tokens > left:
            low = end
        else:
            high = end
    if low is None:
        end = _cheapest(high, parts)
        return _Closed(settled, parts, end, end, left - end.tokens, trace)
    slow = False
    while True:
        rows = [np.flatnonzero(up != down) for up, down in zip(low.option, high.option, strict=True)]
        count = sum(map(len, rows))
        if 2 * count < sum(len(block.item) for block in parts):
            for k, open_rows in enumerate(rows):
                shut = np.ones(len(parts[k].item), np.bool_)
                shut[open_rows] = False
                settled.append((parts[k].item[shut], high.option[k][shut]))
                parts[k] = parts[k].take(open_rows)
                low.keep(k, open_rows)
                high.keep(k, open_rows)
            both = high.tokens - sum(int(c.sum()) for c in high.cost)
            left, low.tokens, high.tokens = left - both, low.tokens - both, high.tokens - both
            low.worth, high.worth = (sum(float(v.sum()) for v in end.value) for end in (low, high))
        span = low.tokens - high.tokens
        if count <= FEW:
            break
        exact = (low.worth - high.worth) / span
        price = exact
        if not slow and high.price < math.inf:
            price = low.price * (high.price / low.price) ** ((low.tokens - left) / span) if low.price else exact
        if not low.price < price < high.price:
            break
        mid = _best(price, parts)
        trace.append((price, budget - left + mid.tokens))
        if price == exact and not high.tokens < mid.tokens < low.tokens:
            break  # both ends are optimal at this price: the open items are indifferent
        low, high = (mid, high) if mid.tokens > left else (low, mid)
        slow = 2 * (low.tokens - high.tokens) > span
    return _Closed(settled, parts, low, high, left - high.tokens, trace)


def _cheapest(end: _End, parts: list[Block]) -> _End:
    """At price 0, the cheapest of an item's equally valuable options."""
    for k, block in enumerate(parts):
        ties = np.where(block.value == end.value[k][:, None], block.cost, np.iinfo(np.int64).max)
        end.option[k] = np.where(end.option[k] > 0, ties.argmin(1) + 1, 0)
    return end


def _first_prices(parts: list[Block], n: int, budget: int) -> list[float]:
    """Two prices that very likely enclose the one sought, from every k-th item; none for few items."""
    if n < SAMPLED:
        return []
    step = n // max(256, round(n ** (2 / 3)))
    sample = [block.take(np.arange(0, len(block.item), step)) for block in parts]
    size = sum(len(block.item) for block in sample)
    share = budget * size // n
    closed = _close_in(sample, share, [])
    if closed.low is closed.high:
        return []
    spent = np.concatenate(_best(closed.trace[-1][0], sample).cost)
    margin = 3 * float(spent.std()) * math.sqrt(size)
    cheap = [price for price, tokens in closed.trace if tokens > share + margin]
    dear = [price for price, tokens in closed.trace if tokens < share - margin]
    return [max(cheap), min(dear)] if cheap and dear else []
