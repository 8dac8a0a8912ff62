"""The multiple-choice knapsack of :mod:`budgeteer.allocate._menu_knapsack` in one compiled call. Needs numba.

The steps are those of the NumPy form. What differs, since loops cost little here: few items get their hulls at once,
where NumPy closes in on the price by passes; the core's dynamic program merges sorted lists of states, and where values
are in proportion to costs, which is hardest for it, tries each of them with one change more.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numba import njit

from budgeteer.allocate.kit.menu import EPS, ROUNDING

FIRST = 1 << 5
"""Places that growing arrays begin with: few, since small blocks of memory are had at once."""
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
_PLAN = types.Tuple((types.int64[::1], types.float64, types.float64, types.int64, types.float64))


@njit(**_OPTIONS)
def _grown(path, size):  # type: ignore[no-untyped-def]
    """Rows of two whole numbers with twice the places and ``size`` more."""
    more = np.empty((2 * len(path) + size, 2), np.int64)
    for k in range(len(path)):  # loops compile faster than assignments of slices
        more[k, 0], more[k, 1] = path[k, 0], path[k, 1]
    return more


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
    """Items of rows in an order that only their keys decide, if nobody said how."""
    tied, size = np.empty(2 * len(order), np.int64), 0
    for k in range(1, len(order)):
        a, b = order[k - 1], order[k]
        unknown = len(rank) == 0 or rank[item[a]] < 0 or rank[item[b]] < 0
        if unknown and first[a] == first[b] and second[a] == second[b] and item[a] != item[b]:
            tied[size], tied[size + 1] = item[a], item[b]
            size += 2
    return tied[:size]


@njit(**_OPTIONS)
def _ranks(item, rank):  # type: ignore[no-untyped-def]
    """Place in the order of keys of each row's item, 0 where it is not known."""
    places = np.zeros(len(item))
    if len(rank):
        for k in range(len(item)):
            places[k] = max(rank[item[k]], 0)
    return places


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
    size, c0, v0, near, rounded = 0, 0, 0.0, ROUNDING * width, False
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
            more = cost[this] - c0
            steep = (value[this] - v0) / more
            if size and steep > slope[size - 1]:
                before = c0 - cost[at[size - 2]] if size > 1 else c0
                under = (steep - slope[size - 1]) * before / (before + more) * more  # how far the corner is
                rounded = rounded or under <= near * value[this]
                size -= 1
            else:
                break
        at[size], slope[size] = this, steep
        size += 1
        c0, v0 = cost[this], value[this]
    return _put_back(cost, value, order, at, slope, size, near) if rounded else size


@njit(**_OPTIONS)
def _put_back(cost, value, order, at, slope, size, near):  # type: ignore[no-untyped-def]
    """A hull with the options, in an order of rising cost, that only rounding has put under it; how many steps now."""
    corner, steep = at[:size].copy(), slope[:size].copy()
    c0, v0, c1, v1, k, kept = 0, 0.0, 0, 0.0, 0, 0
    for j in range(size):
        last = corner[j]
        while cost[order[k]] < cost[last]:
            this = order[k]
            on = value[this] - v0 >= steep[j] * (cost[this] - c0) - near * value[last]
            if on and cost[this] > c1 and value[this] > v1:
                at[kept], slope[kept] = this, steep[j]
                c1, v1 = cost[this], value[this]
                kept += 1
            k += 1
        at[kept], slope[kept] = last, steep[j]
        c0, v0 = cost[last], value[last]
        c1, v1 = c0, v0
        kept += 1
    return kept


@njit(**_OPTIONS)
def _steps(cost, value, indptr, stride, low, high, units):  # type: ignore[no-untyped-def]
    """Every ``stride``-th item's option above the price ``high``, and the steps of slopes between ``low`` and ``high``.

    Returns the tokens of those options, and the steps: items, options and tokens [., 3], slopes [.], how many.
    """
    n = len(indptr) - 1
    # what is settled first, so that the arrays of steps need not grow: that would slow down the loop that fills them
    unsettled, count, places, widest, spent = np.empty((n + stride - 1) // stride, np.int64), 0, 0, 0, 0
    for i in range(0, n, stride):
        start, stop = indptr[i], indptr[i + 1]
        if high < math.inf:
            top, best, cheap, top_cheap = 0.0, 0, 0, 0.0
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
        unsettled[count] = i
        count += 1
        places += stop - start
        widest = max(widest, stop - start)
    order, at, steep = np.empty(widest, np.int64), np.empty(widest, np.int64), np.empty(widest)
    step, slope, size = np.empty((places, 3), np.int64), np.empty(places), 0
    for j in range(count):
        i = unsettled[j]
        start, stop = indptr[i], indptr[i + 1]
        best, before, corners = 0, 0, 1
        if stop - start == 1:  # no call, which would take most of the time of such an item
            at[0], steep[0] = start, value[start] / cost[start]
        else:
            corners = _hull(cost, value, start, stop, order, at, steep)
        for k in range(corners):
            if steep[k] <= low:
                break
            if steep[k] >= high:
                best = at[k] - start + 1
                spent += cost[at[k]] - before
            else:
                step[size, 0], step[size, 1], step[size, 2] = i, at[k] - start + 1, cost[at[k]] - before
                slope[size] = steep[k]
                size += 1
            before = cost[at[k]]
        units[i] = best
    return spent, step, slope, size


@njit(**_OPTIONS)
def _break(step, slope, size, left):  # type: ignore[no-untyped-def]
    """Slope of the first step, steepest first, that ``left`` tokens do not cover; 0 if they cover all. Quickselect."""
    extra, steep = np.empty(size, np.int64), np.empty(size)
    for k in range(size):
        extra[k], steep[k] = step[k, 2], slope[k]
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
    near, count, places = np.empty(len(units), np.int64), 0, 0
    for i in range(len(units)):
        top, second = 0.0, -math.inf
        for k in range(indptr[i], indptr[i + 1]):
            score = value[k] - price * cost[k]
            if score > top:
                top, second = score, top
            elif score > second:
                second = score
        if second > top - reach:
            near[count] = i
            count += 1
            places += indptr[i + 1] - indptr[i] + 1
    move, worth, size = np.empty((places, 3), np.int64), np.empty((places, 2)), 0
    for j in range(count):
        i = near[j]
        start, stop, now, top = indptr[i], indptr[i + 1], units[i], 0.0
        for k in range(start, stop):
            top = max(top, value[k] - price * cost[k])
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
    best, first, second, reach = 0.0, -1, -1, n
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
            best, first = gain[r], rows[r]
    for k in range(n):
        r = order[k]
        while reach and extra[order[reach - 1]] > left - extra[r]:
            reach -= 1
        if not reach:
            break
        s = top[reach - 1] if item[top[reach - 1]] != item[r] else other[reach - 1]
        if s >= 0 and gain[r] + gain[s] > best:
            best, first, second = gain[r] + gain[s], rows[r], rows[s]
    twin, twins, unknown = np.empty(2 * n, np.int64), 0, False
    for chosen in (first, second):
        if chosen >= 0:
            for k in range(n):
                if extra[k] == move[chosen, 2] and gain[k] == worth[chosen, 0]:
                    twin[twins] = item[k]
                    twins += 1
                    unknown |= item[k] != move[chosen, 0] and (len(rank) == 0 or rank[item[k]] < 0)
    return best, first, second, twin[: twins if unknown else 0]


@njit(**_OPTIONS)
def _program(first, order, least, row, move, worth, left, price, best, tiny, limit):  # type: ignore[no-untyped-def]
    """The core's dynamic program over groups of changes, in an order of rising ``least`` loss.

    Group g are the rows ``row[first[g] : first[g + 1]]`` of the changes. Returns the value, the last of the nodes that
    lead to it (-1 if nothing is above ``best``), the nodes [k, 2] as (the one before, row), whether it came to its end.
    """
    n = len(order)
    more, less = np.zeros(n + 1, np.int64), np.zeros(n + 1, np.int64)
    rise, fall = np.zeros(n + 1), np.empty(n + 1)
    fall[n] = math.inf
    for g in range(n - 1, -1, -1):
        high, low, up, down = 0, 0, rise[g + 1], fall[g + 1]
        for e in range(first[order[g]], first[order[g] + 1]):
            extra, gain = move[row[e], 2], worth[row[e], 0]
            if extra > 0:
                high, up = max(high, extra), max(up, gain / extra)
            elif extra < 0:
                low, down = min(low, extra), min(down, gain / extra)
        more[g], less[g], rise[g], fall[g] = more[g + 1] + high, less[g + 1] + low, up, down
    # states: tokens and node, value added; in three buffers: those before a group, and two to merge between
    state, value = np.empty((FIRST, 2), np.int64), np.empty(FIRST)
    b_state, b_value = np.empty((FIRST, 2), np.int64), np.empty(FIRST)
    c_state, c_value = np.empty((FIRST, 2), np.int64), np.empty(FIRST)
    path = np.empty((FIRST, 2), np.int64)
    state[0, 0], state[0, 1], value[0] = 0, -1, 0.0
    nodes, size, work, winner = 0, 1, 0, -1
    # where all lose the same, their order does not say which of them will fill the budget: so each state is also tried
    # with each change to come, in an order of rising tokens
    rows = first[n] if least[order[n - 1]] - least[order[0]] <= tiny else 0
    group, tokens, rising = np.empty(rows, np.int64), np.empty(rows, np.int64), np.empty(0, np.int64)
    if rows:
        for g in range(n):
            for e in range(first[order[g]], first[order[g] + 1]):
                group[e], tokens[e] = g, move[row[e], 2]
        rising = _sorted(tokens, group, group)
    for g in range(n):
        begin, end = first[order[g]], first[order[g] + 1]
        work += size * (end - begin + 1)
        if work > limit:
            return best, winner, path, False
        after = least[order[g + 1]] if g + 1 < n else math.inf
        usable, low, up, down = more[g + 1], left - less[g + 1], rise[g + 1], fall[g + 1]
        # the states so far, and those states with one change of the group each, are merged list by list
        kept_state, kept_value, kept = state, value, size
        for e in range(begin, end):
            extra, gain = move[row[e], 2], worth[row[e], 0]
            if nodes + size > len(path):
                path = _grown(path, size)
            if kept + size > len(b_value):
                places = 2 * (kept + size)
                b_state, b_value = np.empty((places, 2), np.int64), np.empty(places)
            i, j, new, last = 0, 0, 0, -math.inf
            while i < kept or j < size:
                old = i < kept
                if old and j < size:
                    c, d = kept_state[i, 0], state[j, 0] + extra
                    old = c < d or (c == d and kept_value[i] >= value[j] + gain)
                if old:
                    c, v, back = kept_state[i, 0], kept_value[i], kept_state[i, 1]
                    i += 1
                else:
                    c, v, back = state[j, 0] + extra, value[j] + gain, state[j, 1]
                    j += 1
                if v <= last:
                    continue  # another state has no more tokens and no less value
                wins = not old and c <= left and v > best
                if wins:
                    best = v
                # a state that goes on makes another change still; it may not be able to spend all that is left, and
                # what it can spend or has to free is worth no more, or costs no less, than the best of the slopes
                room = min(left - c, usable)
                hope = v + min(price * room - after, (up if room >= 0 else down) * room)
                stays = hope > best + tiny and c <= low
                if not old and (wins or stays):
                    path[nodes, 0], path[nodes, 1] = back, row[e]
                    back = nodes
                    nodes += 1
                    if wins:
                        winner = back
                if stays:
                    b_state[new, 0], b_state[new, 1], b_value[new], last = c, back, v, v
                    new += 1
            spare_state, spare_value = (c_state, c_value) if e == begin else (kept_state, kept_value)
            kept_state, kept_value, kept = b_state, b_value, new
            b_state, b_value = spare_state, spare_value
        c_state, c_value = state, value
        state, value, size = kept_state, kept_value, kept
        if not size:
            break
        if not rows:
            continue
        k, partner, gain = 0, -1, -math.inf
        for i in range(size - 1, -1, -1):
            while k < rows and tokens[rising[k]] <= left - state[i, 0]:
                e = rising[k]
                if group[e] > g and worth[row[e], 0] > gain:
                    partner, gain = row[e], worth[row[e], 0]
                k += 1
            if value[i] + gain > best:
                if nodes == len(path):
                    path = _grown(path, 1)
                path[nodes, 0], path[nodes, 1] = state[i, 1], partner
                best, winner, nodes = value[i] + gain, nodes, nodes + 1
    return best, winner, path, True


@njit(**_OPTIONS)
def _core(move, worth, size, left, price, best, tiny, rank, limit):  # type: ignore[no-untyped-def]
    """The core's program with the changes that lose less than the gap to ``best``: items whose order by key has to be
    known first, if any, and what :func:`_program` returns. Items of the same least loss: small changes first.
    """
    gap = price * left - best
    row, first, inside, groups = np.empty(size, np.int64), np.empty(size + 1, np.int64), 0, 0
    least, extra, of = np.empty(size), np.empty(size), np.empty(size, np.int64)
    for k in range(size):
        if worth[k, 1] < gap:
            if inside == 0 or move[k, 0] != of[groups - 1]:
                first[groups], of[groups], least[groups], extra[groups] = inside, move[k, 0], worth[k, 1], 0.0
                groups += 1
            least[groups - 1] = min(least[groups - 1], worth[k, 1])
            extra[groups - 1] += abs(move[k, 2])
            row[inside] = k
            inside += 1
    first[groups] = inside
    least, extra, of = least[:groups], extra[:groups], of[:groups]
    order = _sorted(least, extra, _ranks(of, rank))
    tied = _unknown(order, least, extra, of, rank)
    if len(tied):
        return tied, best, -1, np.empty((0, 2), np.int64), False
    best, at, path, done = _program(first, order, least, row, move, worth, left, price, best, tiny, limit)
    return tied, best, at, path, done


@njit(_PLAN(_I64, _F64, _I64, types.int64, types.boolean, _I64, types.int64, types.int64, types.int64), **_OPTIONS)
def solve(cost, value, indptr, budget, exact, rank, sampled, wanted, limit):  # type: ignore[no-untyped-def]
    """The plan of :func:`budgeteer.allocate._menu_knapsack`.

    Args:
        cost, value, indptr: the menu, of one option at least.
        budget: in tokens.
        exact: close the gap.
        rank: [n] place of an item in the order of keys, -1 where it is not known; or empty.
        sampled: from so many items on, the first prices come from a sample.
        wanted, limit: MOVES and STATES of :mod:`budgeteer.allocate._menu_knapsack`.

    Returns:
        units [n], price, gap, tokens, value. Tokens of -1 say that the first are no units, but the items whose order by
        key decides between equals and is not known: call again with their ranks.
    """
    n = len(indptr) - 1
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
                if slope[k] > price:
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
            excess = _spent(cost, value, indptr, price) - budget
            other = min(max(price * math.exp(excess / rate), cheap), dear)
            other_excess = _spent(cost, value, indptr, other) - budget
            away = abs(math.log(other / price))
            if excess != other_excess and away > 0:
                at = math.log(other) - other_excess * (math.log(other) - math.log(price)) / (other_excess - excess)
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
        if slope[k] > price:
            units[step[k, 0]] = step[k, 1]
            left -= step[k, 2]
        elif slope[k] == price:
            for field in range(3):
                step[size, field] = step[k, field]
            size += 1

    # 3. steps of that very slope, by key while they fit; an item ends at its first that does not
    if size > 1:
        item, same, order = np.empty(size, np.int64), np.zeros(size), np.arange(size)
        for k in range(size):
            item[k] = step[k, 0]
        tied = _unknown(order, same, same, item, rank)
        if len(tied):
            return tied, price, 0.0, -1, 0.0
        passed = -1
        for k in _sorted(same, same, _ranks(item, rank)):
            if step[k, 2] > left:
                passed = item[k]
            elif item[k] != passed:
                units[item[k]] = step[k, 1]
                left -= step[k, 2]

    # 4. the core's program at once if few changes can matter, else after the best change of one or two items
    gap = whole = price * left
    if gap > 0:
        reach = whole * min(1.0, wanted / len(cost))
        move, worth, size = _moves(cost, value, indptr, units, price, reach)
        while reach < whole and size < wanted // 4:
            reach = min(8 * reach, whole)
            move, worth, size = _moves(cost, value, indptr, units, price, reach)
        tiny = whole
        if exact:
            for i in range(n):
                if units[i]:
                    tiny += value[indptr[i] + units[i] - 1]
        tiny *= EPS
        few = exact and reach == whole
        best, at, path, done = 0.0, -1, np.empty((0, 2), np.int64), False
        if few:
            for k in range(size):
                if move[k, 2] <= left and worth[k, 0] > best:
                    best = worth[k, 0]
            best = max(best - 4 * tiny, 0.0)  # the program is to find that change itself, as its order by key has it
            known = best
            tied, best, at, path, done = _core(move, worth, size, left, price, best, tiny, rank, limit)
            if len(tied):
                return tied, price, 0.0, -1, 0.0
            done = done and (at >= 0 or known == 0)
        chosen, count = np.empty((2, 3), np.int64), 0
        if not done:
            pair, first, second, twins = _two_changes(move, worth, size, left, wanted, rank)
            if len(twins):
                return twins, price, 0.0, -1, 0.0
            if at < 0 or pair > best:
                best, at = pair, -1
                for k in (first, second):
                    if k >= 0:
                        chosen[count, 0], chosen[count, 1], chosen[count, 2] = move[k, 0], move[k, 1], move[k, 2]
                        count += 1
            if exact and not few and whole > best:
                if whole - best > reach:
                    move, worth, size = _moves(cost, value, indptr, units, price, whole - best)
                tied, best, at, path, done = _core(move, worth, size, left, price, best, tiny, rank, limit)
                if len(tied):
                    return tied, price, 0.0, -1, 0.0
        gap = 0.0 if done else max(whole - best, 0.0)
        if at < 0:
            for k in range(count):
                units[chosen[k, 0]] = chosen[k, 1]
                left -= chosen[k, 2]
        while at >= 0:
            k = path[at, 1]
            units[move[k, 0]] = move[k, 1]
            left -= move[k, 2]
            at = path[at, 0]

    total, lost = 0.0, 0.0  # summed with what rounding loses
    for i in range(n):
        if units[i]:
            term = value[indptr[i] + units[i] - 1] - lost
            new = total + term
            lost = (new - total) - term
            total = new
    return units, price, gap, budget - left, total
