"""The multiple-choice knapsack: one option an item, the most value within the budget, with a certified gap."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from budgeteer.allocate.kit import menu as _menu
from budgeteer.allocate.kit.menu import EPS, Block, Relaxed, blocks, relax, score
from budgeteer.allocate.kit.solve import menu_plan, menu_rule, whole_budget
from budgeteer.core.allocator import Allocator
from budgeteer.core.errors import MissingExtra
from budgeteer.core.plan import F64, I64, Items, Menu, Plan

MOVES = 1 << 8
"""Single changes that are tried in pairs."""
PAIRS = 64
"""Most pairs looked at one by one."""
STATES = 4_000_000
"""Most states of the core's dynamic program, over all its stages: about 100 MB."""
NO_RANK = np.zeros(0, np.int64)


def menu_knapsack(exact: bool = False, compiled: bool = False) -> Allocator:
    """At most one option an item, ``max sum_i v_i,k(i)`` subject to ``sum_i c_i,k(i) <= B``.

    The linear relaxation gives the price lambda of a token and the bound ``sum_i max_k (v - lambda c) + lambda B``. Its
    optimum, without the fraction of one item that it may hold, leaves a few tokens over. Then the best change of one
    or of two items' options is made that still fits. A plan's ``gap`` to the bound is
    ``sum of reduced losses + lambda * unused tokens``, where an option's reduced loss is how much smaller its
    ``v - lambda c`` is than its item's largest. An option that loses more than the gap is in no better plan, so that
    with ``exact`` a dynamic program over the few others (the core) closes the gap to 0; it gives up, and leaves the
    certified gap as it is, beyond some million states (large costs with values in proportion to them).

    When it helps: several efforts an item (samples, thinking tokens, models) with a known value each, in any shape.
    When not: values are guesses that are noisier than their differences: the largest of many guesses is picked, and
    what it promises will not come. Not to be confused with :func:`budgeteer.allocate._knapsack`, the method of Knapsack
    RL, which buys rollouts by pass rate and is greedy.

    Sinha and Zoltners (1979) for the relaxation, Pisinger (1995) for the core.

    Args:
        exact: close the gap with the core's dynamic program.
        compiled: the same in one compiled call, several times faster. Needs numba (``pip install 'budgeteer[fast]'``),
            which compiles on the first use on a machine, for some 15 s, and keeps the result.

    Raises:
        MissingExtra: ``compiled`` without numba.

    >>> from budgeteer.core.plan import Menu
    >>> items = Items(("a", "b"), menu=Menu.of([[2, 6], [3, 5]], [[3.0, 7.0], [4.0, 5.0]]))
    >>> plan = menu_knapsack(exact=True).allocate(9, items, (), rng=np.random.default_rng(0))
    >>> plan.units, plan.value, plan.gap
    (array([2, 1]), 11.0, 0.0)
    """

    if compiled:
        return menu_rule(_compiled_rule(exact))

    def rule(budget: int, items: Items) -> Plan:
        menu = items.options("menu-knapsack")
        budget = whole_budget(menu, budget)
        parts = blocks(menu)
        relaxed = relax(menu, parts, budget)
        units, left = fill(relaxed, items.keys)
        gap = relaxed.price * left
        if gap > 0:
            best, gap = improve(parts, menu, units, relaxed.price, left, gap, exact, items.keys)
            units[best.item] = best.option
        return menu_plan(items, units, relaxed.price, gap)

    return menu_rule(rule)


def _compiled_rule(exact: bool) -> Callable[[int, Items], Plan]:
    """The rule that calls the compiled form, again if it asks for the order of some items' keys."""
    try:
        from budgeteer.allocate.kit.compiled import solve
    except ImportError as error:
        raise MissingExtra("numba", "fast") from error

    def rule(budget: int, items: Items) -> Plan:
        menu, keys = items.options("menu-knapsack"), items.keys
        if not len(menu.cost):
            return menu_plan(items, np.zeros(len(items), np.int64), 0.0, 0.0)
        arrays = menu.cost, menu.value, menu.indptr
        if not (arrays[0].flags.c_contiguous and arrays[1].flags.c_contiguous and arrays[2].flags.c_contiguous):
            arrays = menu.cost.copy(), menu.value.copy(), menu.indptr.copy()
        rank, asked = NO_RANK, set[int]()
        while True:
            units, price, gap, cost, value = solve(*arrays, budget, exact, rank, _menu.SAMPLED, MOVES, STATES)
            if cost >= 0:
                return Plan(keys, units, float(cost), np.zeros(len(units), np.int64), price, value, gap)
            asked.update(units.tolist())
            rank = np.full(len(keys), -1)
            rank[sorted(asked, key=keys.__getitem__)] = np.arange(len(asked))

    return rule


def improve(
    parts: list[Block], menu: Menu, units: I64, price: float, left: int, gap: float, exact: bool, keys: tuple[str, ...]
) -> tuple[Core, float]:
    """The changes that bring a plan closest to the bound, and the gap that remains.

    Pairs are tried among the about MOVES changes of the smallest loss: losses are spread about evenly near 0, so that
    a share of the gap holds about as many.
    """
    whole, reach = gap, gap * min(1.0, MOVES / len(menu.cost))
    core = moves(parts, menu, units, price, reach)
    while reach < whole and len(core.item) < MOVES // 4:
        reach = min(8 * reach, whole)
        core = moves(parts, menu, units, price, reach)
    chosen, gap = two_changes(core, left, whole, keys)
    best = core.take(chosen)
    if exact and gap > 0:
        if gap > reach:
            core = moves(parts, menu, units, price, gap)
        total = price * left + float(menu.at(units)[1].sum())
        better, gap = core_program(core, left, gap, price, EPS * total, keys)
        best = best if better is None else core.take(better)
    return best, gap


def fill(relaxed: Relaxed, keys: tuple[str, ...]) -> tuple[I64, int]:
    """Take the indifferent steps that fit, by key, as many as there are; the options [n] and the tokens left."""
    units, steps, left = relaxed.units, relaxed.indifferent, relaxed.left
    if len(steps.item) > 1:  # an item's steps stay in their order
        steps = steps.take(np.array(sorted(range(len(steps.item)), key=lambda e: (keys[steps.item[e]], e))))
    whole = int(np.searchsorted(np.cumsum(steps.cost), left, side="right"))
    units[steps.item[:whole]] = steps.option[:whole]
    left -= int(steps.cost[:whole].sum())
    passed = set()
    for e in range(whole, len(steps.item)):
        item, cost = int(steps.item[e]), int(steps.cost[e])
        if cost > left:
            passed.add(item)
        elif item not in passed:
            units[item], left = steps.option[e], left - cost
    return units, left


class Core(NamedTuple):
    """Changes of single items that may be part of a better plan, one a row, for k rows.

    Attributes:
        item: [k] positions of the items.
        option: [k] the option changed to, 0 = none.
        cost: [k] tokens that it adds, may be negative.
        value: [k] what it adds, may be negative.
        loss: [k] its reduced loss, ``lambda * cost - value >= 0``.
    """

    item: I64
    option: I64
    cost: I64
    value: F64
    loss: F64

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Core:
        """The changes at the rows."""
        return Core._make(column[rows] for column in self)


def moves(parts: list[Block], menu: Menu, units: I64, price: float, reach: float) -> Core:
    """All changes whose reduced loss is below ``reach``, in one pass over the options."""
    items, options, losses = [], [], []
    for block in parts:
        for _, chunk in block.chunks():
            scores = score(chunk, price)
            rows, width = scores.shape
            top = scores.ravel().take(scores.argmax(1) + np.arange(0, rows * width, width))
            np.maximum(top, 0.0, out=top)
            flat = np.flatnonzero(scores > (top - reach)[:, None])
            row = flat // width
            items.append(chunk.item[row])
            options.append(flat - row * width + 1)
            losses.append(top[row] - scores.ravel()[flat])
            idle = np.flatnonzero(top < reach)
            items.append(chunk.item[idle])
            options.append(np.zeros(len(idle), np.int64))
            losses.append(top[idle])
    item, option, loss = np.concatenate(items), np.concatenate(options), np.concatenate(losses)
    # filled-up rows hold copies of the empty option; and staying is no change
    change = np.flatnonzero((option <= np.diff(menu.indptr)[item]) & (option != units[item]))
    item, option, loss = item[change], option[change], loss[change]
    there = np.where(option > 0, menu.indptr[item] + option - 1, 0)
    now = np.where(units[item] > 0, menu.indptr[item] + units[item] - 1, 0)
    cost = np.where(option > 0, menu.cost[there], 0) - np.where(units[item] > 0, menu.cost[now], 0)
    value = np.where(option > 0, menu.value[there], 0.0) - np.where(units[item] > 0, menu.value[now], 0.0)
    return Core(item, option, cost, value, loss)


def two_changes(core: Core, left: int, gap: float, keys: tuple[str, ...]) -> tuple[I64, float]:
    """The most valuable change of one or two items that fits ``left`` tokens: rows of the core, and the gap then."""
    nothing = np.zeros(0, np.int64)
    rows = np.arange(len(core.item))
    if len(rows) > MOVES:
        rows = np.flatnonzero(core.loss <= np.partition(core.loss, MOVES)[MOVES])
    rows = rows[np.lexsort((-core.value[rows], core.cost[rows]))]
    cost, value = core.cost[rows], core.value[rows]
    if np.any((cost[1:] == cost[:-1]) & (value[1:] == value[:-1])):  # ties go by key

        def name(r: int) -> tuple[int, float, str, int]:
            return int(core.cost[r]), -float(core.value[r]), keys[core.item[r]], int(core.option[r])

        rows = np.array(sorted(rows.tolist(), key=name))
    item = core.item[rows]
    single = np.where(cost <= left, value, -np.inf)
    best, chosen = 0.0, nothing
    if len(rows) and (top := int(single.argmax())) >= 0 and single[top] > 0:
        best, chosen = float(single[top]), rows[[top]]
    reach = np.searchsorted(cost, left - cost, side="right")
    most = np.maximum.accumulate(value) if len(rows) else value
    both = np.where(reach > 0, value + most[reach - 1], -np.inf)
    # the partner that `most` stands for may be of the same item, so the likeliest pairs are looked at one by one
    for _ in range(PAIRS):
        i = int(both.argmax()) if len(rows) else -1
        if i < 0 or both[i] <= best:
            break
        other = np.where(item[: reach[i]] != item[i], value[: reach[i]], -np.inf)
        j = int(other.argmax())
        if value[i] + other[j] > best:
            best, chosen = float(value[i] + other[j]), rows[[i, j]]
        both[i] = -np.inf
    return chosen, max(gap - best, 0.0)


def core_program(
    core: Core, left: int, gap: float, price: float, tiny: float, keys: tuple[str, ...]
) -> tuple[I64 | None, float]:
    """Rows of the best changes of all, None if none is better than the gap; and the gap: 0, unless it gave up.

    A dynamic program over the core's items, on (tokens added, value added), in an order of rising least loss; where
    all lose the same, as when values are in proportion to costs, small changes first.

    A state is dropped when another has no more tokens and no less value, or when its bound leaves no more than ``tiny``
    above the best plan so far: it loses the least loss of the changes to come and what they cannot spend; and what it
    has left is worth no more than the steepest of them gives for it, what it is over the budget costs no less than the
    flattest takes for it (Dembo and Hammer 1980).
    """
    core_rows = np.flatnonzero(core.loss < gap)
    of: dict[int, list[int]] = {}
    for row in core_rows.tolist():
        of.setdefault(int(core.item[row]), []).append(row)

    def place(group: tuple[int, list[int]]) -> tuple[float, int, str]:
        item, rows = group
        return float(core.loss[rows].min()), int(np.abs(core.cost[rows]).sum()), keys[item]

    groups = sorted(of.items(), key=place)
    more = np.array([max(0, *(int(core.cost[r]) for r in rows)) for _, rows in groups])
    less = np.array([min(0, *(int(core.cost[r]) for r in rows)) for _, rows in groups])
    more_after = np.concatenate([np.cumsum(more[::-1])[::-1], [0]])
    less_after = np.concatenate([np.cumsum(less[::-1])[::-1], [0]])
    slope = core.value / np.where(core.cost == 0, 1, core.cost)
    gives, takes = np.where(core.cost > 0, slope, 0.0), np.where(core.cost < 0, slope, math.inf)
    up, down = [max(gives[rows]) for _, rows in groups], [min(takes[rows]) for _, rows in groups]
    rise = np.append(np.maximum.accumulate(up[::-1])[::-1], 0.0)
    fall = np.append(np.minimum.accumulate(down[::-1])[::-1], math.inf)
    cost, value, loss = np.zeros(1, np.int64), np.zeros(1), np.zeros(1)
    history: list[tuple[I64, I64]] = []
    best: tuple[int, int] | None = None
    least = [*(min(float(core.loss[r]) for r in rows) for _, rows in groups), math.inf]
    states = 0
    for stage, (_, rows) in enumerate(groups):
        move = np.array(rows)
        size = len(cost)
        if states + size * (len(move) + 1) > STATES:
            return _path(history, best), gap
        parent = np.tile(np.arange(size), len(move) + 1)
        which = np.repeat(np.concatenate([[-1], move]), size)
        cost = np.concatenate([cost, (core.cost[move][:, None] + cost).ravel()])
        value = np.concatenate([value, (core.value[move][:, None] + value).ravel()])
        loss = np.concatenate([loss, (core.loss[move][:, None] + loss).ravel()])
        fits = np.where(cost <= left, loss + price * (left - cost), np.inf)
        at = int(fits.argmin())
        improved = fits[at] < gap
        if improved:
            gap = float(fits[at])
        room = np.minimum(left - cost, more_after[stage + 1])
        steep = np.where(room >= 0, rise[stage + 1], fall[stage + 1])
        hope = np.minimum(price * room - least[stage + 1], steep * room)  # a state that goes on makes another change
        bound = value + hope > price * left - gap + tiny
        keep = np.flatnonzero(bound & (cost + less_after[stage + 1] <= left))
        if improved and not np.any(keep == at):
            keep = np.append(keep, at)
        keep = keep[np.lexsort((-value[keep], cost[keep]))]
        front = np.maximum.accumulate(value[keep])
        undominated = np.ones(len(keep), np.bool_)
        undominated[1:] = value[keep][1:] > front[:-1]
        if improved:
            undominated |= keep == at
        keep = keep[undominated]
        if improved:
            best = (stage, int(np.flatnonzero(keep == at)[0]))
        history.append((parent[keep], which[keep]))
        cost, value, loss = cost[keep], value[keep], loss[keep]
        states += len(keep)
        if not len(keep):
            break
    return _path(history, best), 0.0


def _path(history: list[tuple[I64, I64]], best: tuple[int, int] | None) -> I64 | None:
    """The core's rows that lead to the best state, if there is one."""
    if best is None:
        return None
    stage, at = best
    positions = []
    for parent, which in reversed(history[: stage + 1]):
        if which[at] >= 0:
            positions.append(int(which[at]))
        at = int(parent[at])
    return np.array(positions, np.int64)
