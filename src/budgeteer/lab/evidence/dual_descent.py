"""Dual mirror descent (arXiv 2011.10124): does its regret against the optimum in hindsight grow like sqrt(T)?

Requests are those of the paper's experiment H.1: three resources, four options, each of which uses one unit of resource
j with chance p_j in (1/2, 1); values are theta . c plus standard normal noise, clipped to [0, 10], with theta >= 0 so
that resources are worth something; budgets are T p_j U(1/4, 3/4). Regret is the linear program's optimum less the value
collected; slopes are of log regret on log T over six octaves (four for greedy choice, two for long streams), one fit a
seed. Rate 0.5 and scale 1 unless said otherwise. The theory promises, for steps that shrink like 1 / sqrt(T):

- independent requests: O(sqrt(T));
- requests that forget (ergodic): O(sqrt(T)) once T is long against the memory k: ``(k rate + 1 / rate) sqrt(T)`` up to
  factors, since a request is only independent of the price k requests ago, and the price has moved k steps since.
  Streams "memory 10" and "memory 100": values times an auto-regressive log level. At rate 0.5 and k = 100 the constant
  is so large that the regret is still some 6 % of the optimum at 65,536 requests; so slopes are measured on longer
  streams, too, and at a rate of 0.5 / sqrt(100), which lowers the constant from 52 to 25;
- periodic requests: O(sqrt(q T)) for a period of q. Stream "periodic": values times 1 + 0.8 sin, q = 100;
- independent requests that drift: O(sqrt(T)) plus the deviation sum_t |P_t - mean P| in total variation. Stream
  "drifting": values are times 3 with a chance that climbs from 0 to 8 / sqrt(T), a deviation of 2 sqrt(T). Stream
  "trend": values times a level that climbs from 0.2 to 1.8, a deviation in proportion to T, where nothing is promised;
- any requests at all: OPT / alpha - R = O(sqrt(T)), alpha the largest cost over the pace, and no method can have a
  smaller alpha; the plain regret then grows like T. Stream "rising": values of 0.05 for 3 T / 4 requests, then 1;
  "stairs": four equal parts of 0.01, 0.1, 0.4 and 1; "gone": values of 1 for T / 4 requests, then none, where a method
  that keeps some budget for better times gets OPT / alpha and no more; all at 4 times the pace, so alpha = 4, jittered
  by 10 %. The figure's last panel holds the value collected over OPT / alpha, which is to stay above 1 less a term that
  shrinks like 1 / sqrt(T).

The method runs here in a compiled copy, which a test compares with the original step by step.

![Regret over T where sqrt(T) is promised, and where it cannot be; value over OPT / alpha](dual_descent.svg)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, Literal, cast

import numpy as np
from numba import njit

from budgeteer.core.errors import BudgetExceeded
from budgeteer.core.online import Online
from budgeteer.core.plan import F64
from budgeteer.draw.svg import Line, log_chart
from budgeteer.lab.evidence import BELOW_ONE, Evidence, Region, declare, measured
from budgeteer.lab.stats import mean_ci
from budgeteer.online import dual_descent

Stream = Literal["independent", "memory 10", "memory 100", "periodic", "drifting", "trend"]
SIZES = (1024, 4096, 16384, 65536)
LONG = (262_144, 1_048_576)
SEEDS = 8
RESOURCES, OPTIONS = 3, 4
ALPHA = 4
WORST = {"rising": (0.05, 0.05, 0.05, 1.0), "stairs": (0.01, 0.1, 0.4, 1.0), "gone": (1.0, 0.0, 0.0, 0.0)}
"""Values in each quarter of the horizon; the budget covers a quarter of the requests."""
SQRT: Region = (-math.inf, 0.6)
LINEAR: Region = (0.9, 1.1)

DECLARED = declare(
    "simulation",
    claims=(
        "growth, independent, euclidean",
        "growth, independent, entropy",
        "growth, memory 10, euclidean",
        "growth, memory 100, euclidean",
        "growth, memory 100, euclidean, long",
        "growth, memory 100, euclidean, rate 0.05",
        "growth, periodic, euclidean",
        "growth, drifting, euclidean",
        "forecast, trend",
        "bound, independent",
        "step size times 0.1",
        "step size times 10",
        "alpha-regret, rising, euclidean",
        "alpha-regret, rising, entropy",
        "alpha-regret, stairs, euclidean",
        "alpha-regret, stairs, entropy",
        "alpha-regret, gone, euclidean",
        "alpha-regret, gone, entropy",
    ),
    controls=(
        "growth, trend, euclidean",
        "growth, independent, greedy",
        "growth, independent, clock",
        "growth, adversarial rising, euclidean",
        "growth, adversarial stairs, euclidean",
        "growth, adversarial gone, euclidean",
    ),
    must_fail=("alpha-regret, rising, greedy",),
)


def experiments() -> list[Evidence]:
    """All of dual descent's experiments."""
    return [
        growth("independent"),
        growth("independent", "entropy"),
        growth("memory 10"),
        growth("memory 100"),
        growth("memory 100", sizes=LONG),
        growth("memory 100", sizes=(*SIZES[2:], *LONG), rate=0.05),
        growth("periodic"),
        growth("drifting"),
        growth("trend", region=LINEAR),
        forecast_gain(),
        growth("independent", "greedy", region=LINEAR, sizes=SIZES[:-1]),
        growth("independent", "clock", region=LINEAR, sizes=SIZES[:-1]),
        within_bound(),
        step_size(0.1),
        step_size(10.0),
        *[alpha_regret(stream, how) for stream in WORST for how in ("euclidean", "entropy")],
        alpha_regret("rising", "greedy", sizes=SIZES[:-1]),
        *[plain_regret(stream) for stream in WORST],
    ]


@lru_cache(maxsize=2)
def requests(stream: Stream, size: int, seed: int) -> tuple[F64, F64, F64]:
    """Values [T, OPTIONS], costs [T, OPTIONS, RESOURCES] and budgets [RESOURCES]."""
    rng = np.random.default_rng([seed, 10])  # the distribution: the same at all sizes, or slopes would mix several
    theta = np.abs(rng.normal(size=RESOURCES))
    theta /= np.linalg.norm(theta)
    chance = (1 + rng.beta(1, 3, RESOURCES)) / 2
    budget = np.floor(size * chance * rng.uniform(0.25, 0.75, RESOURCES))
    rng = np.random.default_rng([seed, size, 11])
    cost = (rng.random((size, OPTIONS, RESOURCES)) < chance).astype(np.float64)
    value = np.clip(cost @ theta + rng.normal(size=(size, OPTIONS)), 0, 10)
    return value * level(stream, size, rng)[:, None], cost, budget


def level(stream: Stream, size: int, rng: np.random.Generator) -> F64:
    """Factor of all values at each time [T]."""
    from scipy.signal import lfilter

    time = np.arange(size)
    if stream == "periodic":
        return np.asarray(1 + 0.8 * np.sin(2 * np.pi * time / 100), dtype=np.float64)
    if stream in ("memory 10", "memory 100"):
        memory = 0.9 if stream == "memory 10" else 0.99
        return np.exp(lfilter([0.5 * math.sqrt(1 - memory**2)], [1, -memory], rng.normal(size=size)))  # type: ignore[no-any-return]
    if stream == "drifting":
        return np.where(rng.random(size) < 8 / math.sqrt(size) * time / size, 3.0, 1.0)
    return np.asarray(0.2 + 1.6 * time / size if stream == "trend" else np.ones(size), dtype=np.float64)


@njit(cache=True)
def bought(value, cost, price):  # type: ignore[no-untyped-def]
    """``sum_t max(0, max_k v_tk - mu . c_tk)``, and what those options cost [m]."""
    surplus, spent = 0.0, np.zeros(len(price))
    for t in range(len(value)):
        chosen, best = -1, 0.0
        for k in range(value.shape[1]):
            net = value[t, k]
            for j in range(len(price)):
                net -= price[j] * cost[t, k, j]
            if net > best:
                chosen, best = k, net
        if chosen >= 0:
            surplus += best
            for j in range(len(price)):
                spent[j] += cost[t, chosen, j]
    return surplus, spent


def optimum(value: F64, cost: F64, budget: F64) -> tuple[float, F64]:
    """Value of the linear program in hindsight, to 1e-5 of it from above, and its prices [m].

    Its dual ``min_mu>=0 budget . mu + sum_t max(0, max_k v_tk - mu . c_tk)`` has few variables: cutting planes solve
    it. Any mu bounds the optimum from above, so an early stop would only make the regret look larger.
    """
    from scipy.optimize import linprog

    resources, best, cuts = len(budget), math.inf, []
    prices = best_prices = np.zeros(resources)
    for _ in range(200):
        surplus, spent = bought(value, cost, prices)
        dual, slope = float(budget @ prices) + surplus, budget - spent
        if dual < best:
            best, best_prices = dual, prices
        cuts.append([*slope, -1.0, float(slope @ prices) - dual])
        rows = np.array(cuts)
        bounds = [(0, value.max() + 1)] * resources + [(None, None)]
        solution = linprog(
            [0.0] * resources + [1.0], A_ub=rows[:, :-1], b_ub=rows[:, -1], bounds=bounds, method="highs"
        )
        if best - solution.fun < 1e-5 * best:
            break
        prices = solution.x[:resources]
    return best, best_prices


def greedy(budget: Sequence[float], horizon: int, ahead: float = math.inf) -> Online:
    """The most valuable option that still fits; with ``ahead``, only while at most that many paces ahead."""
    whole = tuple(budget)

    def step(
        state: tuple[int, tuple[float, ...]], value: Sequence[float], cost: Sequence[Sequence[float]], share: Any = None
    ) -> tuple[int, tuple[int, tuple[float, ...]]]:
        time, left = state
        fits = [
            v if all(c <= have and have - c >= b * (1 - (time + 1 + ahead) / horizon) for c, have, b in each) else -1
            for v, each in ((v, list(zip(row, left, whole, strict=True))) for v, row in zip(value, cost, strict=True))
        ]
        k = max(range(len(fits)), key=fits.__getitem__)
        if fits[k] <= 0:
            return -1, (time + 1, left)
        return k, (time + 1, tuple(have - c for have, c in zip(left, cost[k], strict=True)))

    return Online(lambda: (0, whole), cast(Any, step), lambda state, planned, actual: state)


def play(method: Online, value: F64, cost: F64, budget: F64, shares: F64 | None = None) -> float:
    """Value that a method collects; raises if it ever spends more than the budget."""
    state, total, spent = method.init(), 0.0, np.zeros(len(budget))
    parts = [None] * len(value) if shares is None else shares.tolist()
    for values, costs, share in zip(value.tolist(), cost.tolist(), parts, strict=True):
        option, state = method.step(state, values, costs, share=share)
        if option >= 0:
            total += values[option]
            spent += costs[option]
    if np.any(spent > budget * (1 + 1e-12)):
        raise BudgetExceeded(kind="units", scope="stream", used=0, requested=int(spent.max()), limit=int(budget.min()))
    return total


def make(how: str, budget: F64, size: int, rate: float = 0.5) -> Online:
    """The method of this name."""
    amounts = tuple(budget.tolist())
    if how in ("greedy", "clock"):
        return greedy(amounts, size, math.inf if how == "greedy" else 1.0)
    mirror: Literal["euclidean", "entropy"] = "entropy" if how == "entropy" else "euclidean"
    return dual_descent(amounts, size, rate=rate, mirror=mirror)


@njit(cache=True)
def paced(value, cost, budget, rate, entropy, shares):  # type: ignore[no-untyped-def]
    """Value that :func:`budgeteer.online._dual_descent` of scale 1 collects, the same arithmetic in one loop.

    Args:
        value, cost, budget: as :func:`requests` makes them.
        shares: [T] shares of the horizon, or empty for even ones.
    """
    size, options = value.shape
    resources = len(budget)
    pace, eta, floor, price, left = (
        budget / size,
        np.empty(resources),
        np.zeros(resources),
        np.zeros(resources),
        budget.copy(),
    )
    for j in range(resources):
        eta[j] = rate / math.sqrt(size) * (1 / pace[j] if entropy else 1 / pace[j] ** 2)
        if entropy:
            floor[j], price[j] = 1 / budget[j], max(1 / 10 / pace[j], 1 / budget[j])
    total = 0.0
    for t in range(size):
        chosen, best = -1, 0.0
        for k in range(options):
            net = value[t, k]
            for j in range(resources):
                net -= price[j] * cost[t, k, j]
            if net > best:
                chosen, best = k, net
        covered = chosen >= 0
        for j in range(resources):
            saved = pace[j] if len(shares) == 0 else shares[t] * budget[j]
            if chosen >= 0:
                saved -= cost[t, chosen, j]
                covered = covered and cost[t, chosen, j] <= left[j]
            if entropy:
                price[j] = max(floor[j], price[j] * math.exp(min(50.0, -eta[j] * saved)))
            else:
                price[j] = max(0.0, price[j] - eta[j] * saved)
        if covered:
            total += value[t, chosen]
            for j in range(resources):
                left[j] -= cost[t, chosen, j]
    return total


def collect(how: str, value: F64, cost: F64, budget: F64, rate: float = 0.5, shares: F64 | None = None) -> float:
    """Value that the method of this name collects."""
    if how in ("greedy", "clock"):
        return play(make(how, budget, len(value)), value, cost, budget)
    return float(paced(value, cost, budget, rate, how == "entropy", np.zeros(0) if shares is None else shares))


def forecast(size: int, seed: int, bins: int = 16) -> F64:
    """Share of the budget that the optimum spends at each time [T], from another draw of the same kind of stream."""
    value, cost, budget = requests("trend", size, seed + 1000)
    _, prices = optimum(value, cost, budget)
    net = value - cost @ prices
    spent = (cost[np.arange(size), net.argmax(axis=1)] / budget).mean(axis=1) * (net.max(axis=1) > 0)
    by_bin = spent.reshape(bins, -1).mean(axis=1)
    return np.repeat(by_bin / by_bin.sum() / (size // bins), size // bins)


@cache
def best_value(stream: Stream, size: int, seed: int) -> float:
    """Value of the optimum in hindsight."""
    return optimum(*requests(stream, size, seed))[0]


def regret(stream: Stream, how: str, size: int, seed: int, rate: float = 0.5, shares: F64 | None = None) -> float:
    """Optimum in hindsight minus the value collected."""
    value, cost, budget = requests(stream, size, seed)
    return best_value(stream, size, seed) - collect(how, value, cost, budget, rate, shares)


def growth(
    stream: Stream,
    how: str = "euclidean",
    *,
    region: Region = SQRT,
    sizes: Sequence[int] = SIZES,
    seeds: int = SEEDS,
    rate: float = 0.5,
) -> Evidence:
    """Slope of log regret on log T: 0.5 for sqrt(T), 1 for a constant share of the optimum."""
    table = [[regret(stream, how, size, seed, rate) for size in sizes] for seed in range(seeds)]
    steps = "" if rate == 0.5 else f", rate {rate:g}"
    return slope(
        f"growth, {stream}, {how}{', long' if sizes == LONG else ''}{steps}",
        np.array(table),
        sizes,
        region,
        claim=f"On {STREAMS[stream]} requests, with {WHO[how]}{steps}, log regret grows with log T at a slope"
        f" {_says(region)}" + f" from {sizes[0]:,} to {sizes[-1]:,} requests" * (sizes[-1] > SIZES[-1]),
        budget="hard budgets of three resources",
    )


STREAMS: dict[Stream, str] = {
    "independent": "independent",
    "memory 10": "ergodic (memory 10)",
    "memory 100": "ergodic (memory 100)",
    "periodic": "periodic",
    "drifting": "drifting (deviation 2 sqrt(T))",
    "trend": "ever dearer (deviation in proportion to T)",
}
WHO = {
    "euclidean": "sub-gradient steps",
    "entropy": "multiplicative weights",
    "greedy": "greedy choice",
    "clock": "greedy choice kept to the pace",
}


def _says(region: Region) -> str:
    return f"below {region[1]}" if region[0] == -math.inf else f"between {region[0]} and {region[1]}"


def slope(name: str, table: F64, sizes: Sequence[int], region: Region, *, claim: str, budget: str) -> Evidence:
    """Evidence of the slopes of log regret [seeds, sizes] on log T, one fit a seed."""
    return measured(
        name,
        [float(np.polyfit(np.log(sizes), np.log(row), 1)[0]) for row in table],
        region,
        claim=claim,
        baseline="optimum in hindsight",
        budget=budget,
        details=_by_size(sizes, table, "regret"),
    )


def _by_size(sizes: Sequence[int], table: F64, column_name: str) -> list[dict[str, Any]]:
    """Mean and interval over the seeds of each column."""
    rows = []
    for size, column in zip(sizes, table.T, strict=True):
        over = mean_ci(column)
        rows.append({"requests": size, column_name: over.mean, "low": over.low, "high": over.high})
    return rows


def within_bound(*, size: int = 4096, seeds: int = SEEDS) -> Evidence:
    """Regret over the bound of the docstring, one resource, costs up to twice the pace, values up to 1."""
    values = []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 12])
        value, cost = rng.random((size, 2)), rng.random((size, 2, 1))
        budget = np.array([size / 2])
        best, _ = optimum(value, cost, budget)
        got = collect("euclidean", value, cost, budget)
        values.append((best - got) / (2 + math.sqrt(size) * (0.5 / 2 + 1 / (2 * 0.5))))
    return measured(
        "bound, independent",
        values,
        BELOW_ONE,
        claim="On independent requests the regret is below the proven bound (ratio to it)",
        baseline="beta + sqrt(T) (rate G^2 / 2 + 1 / (2 rate)) with beta = 2, G = 1",
        budget=f"one resource, {size:,} requests",
    )


def forecast_gain(*, size: int = 16384, seeds: int = SEEDS) -> Evidence:
    """What following a forecast of the spending is worth on a trend."""
    values = [
        regret("trend", "euclidean", size, seed, shares=forecast(size, seed)) / regret("trend", "euclidean", size, seed)
        for seed in range(seeds)
    ]
    return measured(
        "forecast, trend",
        values,
        BELOW_ONE,
        claim="On a trend, shares from a forecast (16 steps, from another draw) lower the regret (ratio)",
        baseline="even shares",
        budget=f"hard budgets of three resources, {size:,} requests",
    )


def step_size(factor: float, *, size: int = 4096, seeds: int = SEEDS) -> Evidence:
    """Does the step size matter?"""
    values = [
        regret("independent", "euclidean", size, seed, 0.5 * factor) / regret("independent", "euclidean", size, seed)
        for seed in range(seeds)
    ]
    return measured(
        f"step size times {factor:g}",
        values,
        (1.0, math.inf),
        claim=f"On independent requests, a step size {factor:g} times as large has more regret (ratio)",
        baseline="rate = 0.5",
        budget=f"hard budgets of three resources, {size:,} requests",
    )


def worst_stream(stream: str, size: int, seed: int) -> tuple[F64, F64, F64, float]:
    """One option a request, of unit cost; values rise by quarters, jittered by 10 %. Also the optimum's value."""
    rng = np.random.default_rng([seed, size, 13])
    value = np.repeat(WORST[stream], size // ALPHA) * rng.uniform(0.9, 1.0, size)
    late = size // ALPHA
    return value[:, None], np.ones((size, 1, 1)), np.array([float(late)]), float(np.sort(value)[-late:].sum())


def alpha_bound(size: float, rate: float) -> float:
    """The proven bound of ``OPT / alpha - R`` on :func:`worst_stream`: one resource, values of at most 1."""
    return ALPHA + math.sqrt(size) * (rate * (ALPHA - 1) ** 2 / 2 + 1 / (2 * rate))


def promise(size: float, rate: float = 0.5) -> float:
    """The least value over OPT / alpha that the bound leaves, for an optimum of T / alpha values of 0.95."""
    return 1 - alpha_bound(size, rate) / (0.95 * size / ALPHA / ALPHA)


def alpha_regret(stream: str, how: str, *, sizes: Sequence[int] = SIZES, seeds: int = SEEDS) -> Evidence:
    """``OPT / alpha - R`` over the proven bound: the largest over the sizes, for each seed."""
    rate = 0.5
    table, share = np.empty((seeds, len(sizes))), np.empty((seeds, len(sizes)))
    for seed in range(seeds):
        for at, size in enumerate(sizes):
            value, cost, budget, best = worst_stream(stream, size, seed)
            bound = alpha_bound(size, rate)
            got = collect(how, value, cost, budget, rate)
            table[seed, at], share[seed, at] = (best / ALPHA - got) / bound, ALPHA * got / best
    return measured(
        f"alpha-regret, {stream}, {how}",
        table.max(axis=1),
        BELOW_ONE,
        claim=f"On adversarial requests ({stream}), with {WHO[how]}, OPT / {ALPHA} - R is below the bound"
        " of order sqrt(T) at every T (largest ratio to it)",
        baseline=f"a quarter of the optimum in hindsight (alpha = {ALPHA})",
        budget=f"one resource, {sizes[0]:,} to {sizes[-1]:,} requests",
        details=[
            {**row, "over OPT / alpha": float(mean)}
            for row, mean in zip(_by_size(sizes, table, "ratio to the bound"), share.mean(axis=0), strict=True)
        ],
    )


def plain_regret(stream: str, *, sizes: Sequence[int] = SIZES, seeds: int = SEEDS) -> Evidence:
    """Regret against the whole optimum on a worst stream: linear, for this method as for any."""
    table = np.empty((seeds, len(sizes)))
    for seed in range(seeds):
        for at, size in enumerate(sizes):
            value, cost, budget, best = worst_stream(stream, size, seed)
            table[seed, at] = best - collect("euclidean", value, cost, budget)
    return slope(
        f"growth, adversarial {stream}, euclidean",
        table,
        sizes,
        LINEAR,
        claim=f"On adversarial requests ({stream}), with sub-gradient steps, log regret against the whole optimum"
        f" grows with log T at a slope {_says(LINEAR)}",
        budget="one resource",
    )


def figure(rows: Sequence[dict[str, Any]]) -> str:
    """Log-log panels from the JSON rows: regret where sqrt(T) is promised and where it cannot be, and what is promised
    of adversarial requests.
    """
    panels = []
    for promised in (True, False):
        lines: list[Line] = []
        for row in (row for row in rows if row["name"].startswith("growth, ")):
            if (row["region"][1] == SQRT[1]) != promised:
                continue
            points, (low, high) = row["details"], row["interval"]
            name = row["name"].removeprefix("growth, ").replace(", euclidean", "")
            x, mean, least, most = ([point[c] for point in points] for c in ("requests", "regret", "low", "high"))
            label = f"{name}: slope {row['estimate']:.2f} [{low:.2f}, {high:.2f}]"
            lines.append(Line(label, len(lines), x, mean, least, most))
        power = 0.5 if promised else 1.0
        if lines:
            start = min(line.mean[0] for line in lines) / 2
            sizes = sorted({size for line in lines for size in line.x})
            line = [start * (size / sizes[0]) ** power for size in sizes]
            lines.append(Line("sqrt(T)" if promised else "T", len(lines), sizes, line, line, line))
        panels.append((lines, "requests T", "regret"))
    lines = []
    for row in (row for row in rows if row["name"].startswith("alpha-regret, ")):
        x, mean = ([point[c] for point in row["details"]] for c in ("requests", "over OPT / alpha"))
        lines.append(Line(row["name"].removeprefix("alpha-regret, "), len(lines), x, mean, mean, mean))
    if lines:
        sizes = [size for size in SIZES if promise(size) > 0]
        line = [promise(size) for size in sizes]
        lines.append(Line("the least that is promised", len(lines), sizes, line, line, line))
    panels.append((lines, "requests T", "value over OPT / alpha, adversarial"))
    return log_chart(panels, title="Dual descent: regret over T, and value over OPT / alpha on adversarial requests")
