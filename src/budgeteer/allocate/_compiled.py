"""The multiple-choice knapsack of :mod:`budgeteer.allocate.menu_knapsack` in one compiled call. Needs numba.

The steps are those of the NumPy form. What differs, since loops cost little here: few items get their hulls at once,
where NumPy closes in on the price by passes, and the core's dynamic program merges sorted lists of states.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numba import njit

FIRST = 1 << 10
"""Places that growing arrays begin with."""
SHORT = 32
"""Rows of so few options are sorted by insertion."""
APART = 1e-9
"""How far below a price, relatively, steps of that very slope are surely above: more than rounding."""

NEAR = 0.1
"""Width of the prices' bracket after two tries, in units of the distance between these."""

_OPTIONS: dict[str, Any] = {"cache": True, "error_model": "numpy"}
types: Any = numba.types  # its constructors have no annotations
_I64 = types.Array(types.int64, 1, "C", readonly=True)
_F64 = types.Array(types.float64, 1, "C", readonly=True)
_PLAN = types.Tuple((types.int64[::1], types.float64, types.float64, types.int64, types.float64, types.int64[::1]))


@njit(**_OPTIONS)
def _grown(whole, real, size):  # type: ignore[no-untyped-def]
    """Rows of whole and of real numbers with twice the places and ``size`` more."""
    n, w, r = len(whole), whole.shape[1], real.shape[1]
    more_whole, more_real = np.empty((2 * n + size, w), np.int64), np.empty((2 * n + size, r))
    for k in range(n):  # loops compile faster than assignments of slices
        for field in range(w):
            more_whole[k, field] = whole[k, field]
        for field in range(r):
            more_real[k, field] = real[k, field]
    return more_whole, more_real


@njit(**_OPTIONS)
def _sorted(first, second, third):  # type: ignore[no-untyped-def]
    """The order of rows by three keys, rising; equal ones stay in place. Merge sort."""
    n = len(first)
    source, target = np.empty(n, np.int64), np.empty(n, np.int64)
    for k in range(n):
        source[k] = k
    width = 1
    while width < n:
        for low in range(0, n, 2 * width):
            middle, high = min(low + width, n), min(low + 2 * width, n)
            i, j = low, middle
            for k in range(low, high):
                left = j >= high
                if i < middle and j < high:
                    a, b = source[i], source[j]
                    left = first[a] < first[b] or (
                        first[a] == first[b]
                        and (second[a] < second[b] or (second[a] == second[b] and third[a] <= third[b]))
                    )
                if left:
                    target[k] = source[i]
                    i += 1
                else:
                    target[k] = source[j]
                    j += 1
        source, target = target, source
        width *= 2
    return source


@njit(**_OPTIONS)
def _unknown(order, first, second, item, rank):  # type: ignore[no-untyped-def]
    """Do rows of different items stand in an order that only their keys decide, and nobody said how?"""
    for k in range(1, len(order)):
        a, b = order[k - 1], order[k]
        known = len(rank) and rank[item[a]] >= 0 and rank[item[b]] >= 0
        if first[a] == first[b] and second[a] == second[b] and item[a] != item[b] and not known:
            return True
    return False


@njit(**_OPTIONS)
def _ranks(item, rank):  # type: ignore[no-untyped-def]
    """Place in the order of keys of each row's item, 0 where it is not known."""
    found = np.zeros(len(item))
    if len(rank):
        for k in range(len(item)):
            found[k] = max(rank[item[k]], 0)
    return found


@njit(**_OPTIONS)
def _spent(cost, value, indptr, price):  # type: ignore[no-untyped-def]
    """Tokens that all items together take at a price."""
    spent = 0
    for i in range(len(indptr) - 1):
        top, taken = 0.0, 0
        for k in range(indptr[i], indptr[i + 1]):
            score = value[k] - price * cost[k]
            if score > top:
                top, taken = score, cost[k]
        spent += taken
    return spent


@njit(**_OPTIONS)
def _hull(cost, value, start, stop, order, at, slope):  # type: ignore[no-untyped-def]
    """Steps of an item's upper concave hull from (0, 0) on: positions ``at``, slopes, and how many. Monotone chain."""
    width = stop - start
    rising = True
    for k in range(start + 1, stop):
        if cost[k] < cost[k - 1]:
            rising = False
            break
    for k in range(width):
        order[k] = start + k
    if not rising and width > SHORT:
        keys = np.empty(width)
        for k in range(width):
            keys[k] = cost[start + k]
        of_row = _sorted(keys, keys, keys)
        for k in range(width):
            order[k] = start + of_row[k]
    elif not rising:
        for k in range(1, width):
            this, j = order[k], k
            while j and cost[order[j - 1]] > cost[this]:
                order[j] = order[j - 1]
                j -= 1
            order[j] = this
    size, c0, v0 = 0, 0, 0.0
    for k in range(width):
        this = order[k]
        if value[this] <= v0:
            continue
        if cost[this] == c0:
            size -= 1
        while True:
            if size:
                c0, v0 = cost[at[size - 1]], value[at[size - 1]]
            else:
                c0, v0 = 0, 0.0
            steep = (value[this] - v0) / (cost[this] - c0)
            if size and steep > slope[size - 1]:
                size -= 1
            else:
                break
        at[size], slope[size] = this, steep
        size += 1
        c0, v0 = cost[this], value[this]
    return size


@njit(**_OPTIONS)
def _steps(cost, value, indptr, stride, low, high, units):  # type: ignore[no-untyped-def]
    """Every ``stride``-th item's option above the price ``high``, and the steps of slopes between ``low`` and ``high``.

    Returns the tokens of those options, and the steps: items, options and tokens [., 3], slopes [., 1], how many.
    """
    n = len(indptr) - 1
    widest = 0
    for i in range(0, n, stride):
        widest = max(widest, indptr[i + 1] - indptr[i])
    order, at, steep = np.empty(widest, np.int64), np.empty(widest, np.int64), np.empty(widest)
    step, slope = np.empty((FIRST, 3), np.int64), np.empty((FIRST, 1))
    size, spent = 0, 0
    for i in range(0, n, stride):
        start, stop = indptr[i], indptr[i + 1]
        best, before = 0, 0
        if high < math.inf:
            top, cheap, top_cheap = 0.0, 0, 0.0
            for k in range(start, stop):
                score, score_cheap = value[k] - high * cost[k], value[k] - low * cost[k]
                if score > top:
                    top, best = score, k - start + 1
                if score_cheap > top_cheap:
                    top_cheap, cheap = score_cheap, k - start + 1
            if best == cheap:  # then it is the best at every price between
                units[i] = best
                if best:
                    spent += cost[start + best - 1]
                continue
            best = 0
        if size + stop - start > len(slope):
            step, slope = _grown(step, slope, stop - start)
        for k in range(_hull(cost, value, start, stop, order, at, steep)):
            if steep[k] <= low:
                break
            if steep[k] >= high:
                best = at[k] - start + 1
                spent += cost[at[k]] - before
            else:
                step[size, 0], step[size, 1], step[size, 2] = i, at[k] - start + 1, cost[at[k]] - before
                slope[size, 0] = steep[k]
                size += 1
            before = cost[at[k]]
        units[i] = best
    return spent, step, slope, size


@njit(**_OPTIONS)
def _break(step, slope, size, left):  # type: ignore[no-untyped-def]
    """Slope of the first step, steepest first, that ``left`` tokens do not cover; 0 if they cover all. Quickselect."""
    extra, steep = np.empty(size, np.int64), np.empty(size)
    for k in range(size):
        extra[k], steep[k] = step[k, 2], slope[k, 0]
    low, high = 0, size
    while low < high:
        a, b, c = steep[low], steep[(low + high) // 2], steep[high - 1]
        pivot = max(min(a, b), min(max(a, b), c))
        above, same = 0, 0
        for k in range(low, high):
            if steep[k] > pivot:
                above += extra[k]
            elif steep[k] == pivot:
                same += extra[k]
        if above <= left < above + same:
            return pivot
        steeper = left < above
        if not steeper:
            left -= above + same
        kept = low
        for k in range(low, high):
            if (steep[k] > pivot) if steeper else (steep[k] < pivot):
                steep[kept], extra[kept] = steep[k], extra[k]
                kept += 1
        high = kept
    return 0.0


@njit(**_OPTIONS)
def _moves(cost, value, indptr, units, price, reach):  # type: ignore[no-untyped-def]
    """All changes whose reduced loss is below ``reach``: items, options, tokens added [., 3]; value added, loss [., 2];
    how many."""
    move, worth = np.empty((FIRST, 3), np.int64), np.empty((FIRST, 2))
    size = 0
    for i in range(len(units)):
        start, stop, now, top = indptr[i], indptr[i + 1], units[i], 0.0
        for k in range(start, stop):
            score = value[k] - price * cost[k]
            if score > top:
                top = score
        if size + stop - start + 1 > len(move):
            move, worth = _grown(move, worth, stop - start + 1)
        spent, got = 0, 0.0
        if now:
            spent, got = cost[start + now - 1], value[start + now - 1]
            if top < reach:
                move[size, 0], move[size, 1], move[size, 2] = i, 0, -spent
                worth[size, 0], worth[size, 1] = -got, top
                size += 1
        for k in range(start, stop):
            score = value[k] - price * cost[k]
            if score > top - reach and k - start + 1 != now:
                move[size, 0], move[size, 1], move[size, 2] = i, k - start + 1, cost[k] - spent
                worth[size, 0], worth[size, 1] = value[k] - got, top - score
                size += 1
    return move, worth, size


@njit(**_OPTIONS)
def _two_changes(move, worth, size, left, wanted, rank):  # type: ignore[no-untyped-def]
    """The most valuable change of one or two items that fits: value, its rows (-1 = none), items that are as good."""
    most = math.inf
    if size > wanted:
        loss = np.empty(size)
        for k in range(size):
            loss[k] = worth[k, 1]
        loss.sort()
        most = loss[wanted]
    rows, n = np.empty(size, np.int64), 0
    for k in range(size):
        if worth[k, 1] <= most:
            rows[n] = k
            n += 1
    item, extra, gain, less = np.empty(n, np.int64), np.empty(n), np.empty(n), np.empty(n)
    for k in range(n):
        item[k], extra[k] = move[rows[k], 0], move[rows[k], 2]
        gain[k] = worth[rows[k], 0]
        less[k] = -gain[k]
    order = _sorted(extra, less, _ranks(item, rank))
    # the best of the first rows, and the best of another item than that one
    top, other = np.empty(n, np.int64), np.empty(n, np.int64)
    a, b = -1, -1
    best, one, two, reach = 0.0, -1, -1, n
    for k in range(n):
        r = order[k]
        if a < 0 or gain[r] > gain[a]:
            if a >= 0 and item[a] != item[r]:
                b = a
            a = r
        elif item[r] != item[a] and (b < 0 or gain[r] > gain[b]):
            b = r
        top[k], other[k] = a, b
        if extra[r] <= left and gain[r] > best:
            best, one = gain[r], rows[r]
    for k in range(n):
        r = order[k]
        while reach and extra[order[reach - 1]] > left - extra[r]:
            reach -= 1
        if not reach:
            break
        s = top[reach - 1] if item[top[reach - 1]] != item[r] else other[reach - 1]
        if s >= 0 and gain[r] + gain[s] > best:
            best, one, two = gain[r] + gain[s], rows[r], rows[s]
    twin, twins, unknown = np.empty(2 * n, np.int64), 0, False
    for chosen in (one, two):
        if chosen >= 0:
            for k in range(n):
                if extra[k] == move[chosen, 2] and gain[k] == worth[chosen, 0]:
                    twin[twins] = item[k]
                    twins += 1
                    unknown |= item[k] != move[chosen, 0] and (len(rank) == 0 or rank[item[k]] < 0)
    return best, one, two, twin[: twins if unknown else 0]


@njit(**_OPTIONS)
def _program(first, order, least, row, move, worth, left, price, best, limit):  # type: ignore[no-untyped-def]
    """The core's dynamic program over groups of changes, in an order of rising ``least`` loss.

    Group g are the rows ``row[first[g] : first[g + 1]]`` of the changes. Returns the value, the last of the nodes that
    lead to it (-1 if nothing is above ``best``), the nodes [k, 2] as (the one before, row), whether it came to its end.
    """
    n = len(order)
    more, less = np.zeros(n + 1, np.int64), np.zeros(n + 1, np.int64)
    for g in range(n - 1, -1, -1):
        high, low = 0, 0
        for e in range(first[order[g]], first[order[g] + 1]):
            high, low = max(high, move[row[e], 2]), min(low, move[row[e], 2])
        more[g], less[g] = more[g + 1] + high, less[g + 1] + low
    # states (tokens, value added, node), in three buffers: those before a group, and two to merge between
    cost, value, node = np.zeros(1, np.int64), np.zeros(1), np.zeros(1, np.int64) - 1
    b_cost, b_value, b_node = np.empty(FIRST, np.int64), np.empty(FIRST), np.empty(FIRST, np.int64)
    c_cost, c_value, c_node = np.empty(FIRST, np.int64), np.empty(FIRST), np.empty(FIRST, np.int64)
    path, unused = np.empty((FIRST, 2), np.int64), np.empty((FIRST, 0))
    nodes, size, work, winner, bound = 0, 1, 0, -1, price * left
    for g in range(n):
        begin, end = first[order[g]], first[order[g] + 1]
        work += size * (end - begin + 1)
        if work > limit:
            return best, winner, path, False
        after = least[order[g + 1]] if g + 1 < n else math.inf
        # the states so far, and those states with one change of the group each, are merged list by list
        kept_cost, kept_value, kept_node, kept = cost, value, node, size
        for e in range(begin, end):
            extra, gain = move[row[e], 2], worth[row[e], 0]
            if nodes + size > len(path):
                path, unused = _grown(path, unused, size)
            if kept + size > len(b_cost):
                places = 2 * (kept + size)
                b_cost, b_value, b_node = np.empty(places, np.int64), np.empty(places), np.empty(places, np.int64)
            i, j, new, last = 0, 0, 0, -math.inf
            while i < kept or j < size:
                old = i < kept
                if old and j < size:
                    c, d = kept_cost[i], cost[j] + extra
                    old = c < d or (c == d and kept_value[i] >= value[j] + gain)
                if old:
                    c, v, back = kept_cost[i], kept_value[i], kept_node[i]
                    i += 1
                else:
                    c, v, back = cost[j] + extra, value[j] + gain, node[j]
                    j += 1
                if v <= last:
                    continue  # another state has no more tokens and no less value
                wins = not old and c <= left and v > best
                if wins:
                    best = v
                # a state that goes on makes another change still; it may not be able to spend all that is left
                hope = price * c - v + after + price * max(left - c - more[g + 1], 0)
                stays = hope < bound - best and c + less[g + 1] <= left
                if not old and (wins or stays):
                    path[nodes, 0], path[nodes, 1] = back, row[e]
                    back = nodes
                    nodes += 1
                    if wins:
                        winner = back
                if stays:
                    b_cost[new], b_value[new], b_node[new], last = c, v, back, v
                    new += 1
            spare_cost, spare_value, spare_node = (
                (c_cost, c_value, c_node) if e == begin else (kept_cost, kept_value, kept_node)
            )
            kept_cost, kept_value, kept_node, kept = b_cost, b_value, b_node, new
            b_cost, b_value, b_node = spare_cost, spare_value, spare_node
        c_cost, c_value, c_node = cost, value, node
        cost, value, node, size = kept_cost, kept_value, kept_node, kept
        if not size:
            break
    return best, winner, path, True


@njit(_PLAN(_I64, _F64, _I64, types.int64, types.boolean, _I64, types.int64, types.int64, types.int64), **_OPTIONS)
def solve(cost, value, indptr, budget, exact, rank, sampled, wanted, limit):  # type: ignore[no-untyped-def]
    """The plan of :func:`budgeteer.allocate.menu_knapsack`.

    Args:
        cost, value, indptr: the menu, of one option at least.
        budget: in tokens.
        exact: close the gap.
        rank: [n] place of an item in the order of keys, -1 where it is not known; or empty.
        sampled: from so many items on, the first prices come from a sample.
        wanted, limit: MOVES and STATES of :mod:`budgeteer.allocate.menu_knapsack`.

    Returns:
        units [n], price, gap, tokens, value, and the items whose order by key decides between equals and is not
        known: if there are any, call again with their ranks; the rest of the answer then means nothing.
    """
    n, nothing = len(indptr) - 1, np.empty(0, np.int64)
    divisor = 0
    for c in cost:
        divisor = math.gcd(divisor, c)
        if divisor == 1:
            break
    budget -= budget % divisor
    units = np.zeros(n, np.int64)

    # 1. two prices that enclose the one sought: from a sample, then from all items
    low, high = 0.0, math.inf
    if n >= sampled:
        stride = n // max(256, round(n ** (2 / 3)))
        _, step, slope, steps = _steps(cost, value, indptr, stride, 0.0, math.inf, units)
        size = (n + stride - 1) // stride
        share = budget * (size / n)
        price = _break(step, slope, steps, int(share))
        total, squares, k = 0.0, 0.0, 0
        while k < steps:
            i, spent = step[k, 0], 0.0
            while k < steps and step[k, 0] == i:
                if slope[k, 0] > price:
                    spent += step[k, 2]
                k += 1
            total += spent
            squares += spent * spent
        margin = 3 * math.sqrt(max(squares - total * total / size, 0.0))
        cheap = _break(step, slope, steps, int(share + margin))
        dear = _break(step, slope, steps, int(share - margin)) if share > margin else 0.0
        if 0 < cheap < price < dear:
            low, high = cheap, dear
            # tokens against the price's logarithm: a line through the sample's prices, then through those tried
            rate = 2 * margin * n / size / math.log(dear / cheap)
            one = _spent(cost, value, indptr, price) - budget
            other = min(max(price * math.exp(one / rate), cheap), dear)
            two = _spent(cost, value, indptr, other) - budget
            away = abs(math.log(other / price))
            if one != two and away > 0:
                at = math.log(other) - two * (math.log(other) - math.log(price)) / (two - one)
                low = max(cheap, math.exp(at - away * NEAR))
                high = min(dear, math.exp(at + away * NEAR))
                if low >= high:
                    low, high = cheap, dear

    # 2. the steps between them, and the price among their slopes
    while True:
        spent, step, slope, steps = _steps(cost, value, indptr, 1, low, high, units)
        if spent > budget:
            low, high = high * (1 - APART), math.inf
            continue
        price = _break(step, slope, steps, budget - spent)
        if price > 0 or low == 0:
            break
        low, high = 0.0, low * (1 + APART)
    left, size = budget - spent, 0
    for k in range(steps):
        if slope[k, 0] > price:
            units[step[k, 0]] = step[k, 1]
            left -= step[k, 2]
        elif slope[k, 0] == price:
            for field in range(3):
                step[size, field] = step[k, field]
            size += 1

    # 3. steps of that very slope, by key while they fit; an item ends at its first that does not
    if size > 1:
        item, same, order = np.empty(size, np.int64), np.zeros(size), np.arange(size)
        for k in range(size):
            item[k] = step[k, 0]
        if _unknown(order, same, same, item, rank):
            return units, price, 0.0, 0, 0.0, item
        passed = -1
        for k in _sorted(same, same, _ranks(item, rank)):
            if step[k, 2] > left:
                passed = item[k]
            elif item[k] != passed:
                units[item[k]] = step[k, 1]
                left -= step[k, 2]

    # 4. the best change of one or two items, then the core's program
    whole = price * left
    gap = whole
    if gap > 0:
        reach = whole * min(1.0, wanted / len(cost))
        move, worth, size = _moves(cost, value, indptr, units, price, reach)
        while reach < whole and size < wanted // 4:
            reach = min(8 * reach, whole)
            move, worth, size = _moves(cost, value, indptr, units, price, reach)
        best, one, two, twins = _two_changes(move, worth, size, left, wanted, rank)
        gap = max(whole - best, 0.0)
        if len(twins):
            return units, price, 0.0, 0, 0.0, twins
        chosen = np.empty((2, 3), np.int64)
        count = 0
        for k in (one, two):
            if k >= 0:
                chosen[count, 0], chosen[count, 1], chosen[count, 2] = move[k, 0], move[k, 1], move[k, 2]
                count += 1
        if exact and gap > 0:
            if gap > reach:
                move, worth, size = _moves(cost, value, indptr, units, price, gap)
            row, first, inside, groups = np.empty(size, np.int64), np.empty(size + 1, np.int64), 0, 0
            least, of = np.empty(size), np.empty(size, np.int64)
            for k in range(size):
                if worth[k, 1] < gap:
                    if inside == 0 or move[k, 0] != of[groups - 1]:
                        first[groups], of[groups], least[groups] = inside, move[k, 0], worth[k, 1]
                        groups += 1
                    least[groups - 1] = min(least[groups - 1], worth[k, 1])
                    row[inside] = k
                    inside += 1
            first[groups] = inside
            least, of, same = least[:groups], of[:groups], np.zeros(groups)
            order = _sorted(least, same, _ranks(of, rank))
            if _unknown(order, least, same, of, rank):
                return units, price, 0.0, 0, 0.0, of
            best, at, path, done = _program(first, order, least, row, move, worth, left, price, best, limit)
            if at >= 0:
                count = 0
            while at >= 0:
                k = path[at, 1]
                units[move[k, 0]] = move[k, 1]
                left -= move[k, 2]
                at = path[at, 0]
            gap = 0.0 if done else max(whole - best, 0.0)
        for k in range(count):
            units[chosen[k, 0]] = chosen[k, 1]
            left -= chosen[k, 2]

    total, lost = 0.0, 0.0  # summed with what rounding loses
    for i in range(n):
        if units[i]:
            term = value[indptr[i] + units[i] - 1] - lost
            new = total + term
            lost = (new - total) - term
            total = new
    return units, price, gap, budget - left, total, nothing
