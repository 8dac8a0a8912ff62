"""Dual mirror descent (arXiv 2011.10124): does its regret against the optimum in hindsight grow like sqrt(T)?

Requests are those of the paper's experiment H.1: three resources, four options, each of which uses one unit of resource
j with chance p_j in (1/2, 1); values are theta . c plus standard normal noise, clipped to [0, 10], with theta >= 0 so
that resources are worth something; budgets are T p_j U(1/4, 3/4). Streams: independent; repeating (values times 1 +
0.8 sin, period 100); drifting and slowly drifting (times an auto-regressive log level of memory 10 and 100 requests);
trend (times a level that climbs from 0.2 to 1.8 over the horizon). Regret is the linear program's optimum minus the
value collected; slopes are of log regret on log T from T = 1,024 on, one fit a seed. Rate 0.5 and scale 1 everywhere.
The adversarial stream offers 3 T / 4 cheap values of 0.05, then T / 4 of 1, each at 4 times the pace: alpha = 4, and
no method can promise more than a quarter of the optimum on all such sequences.

![Regret over T, and what happens on the adversarial stream](dual_descent.svg)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, Literal, cast

import numpy as np

from budgeteer.allocate.dual_descent import dual_descent
from budgeteer.errors import BudgetExceeded
from budgeteer.lab.evidence import BELOW_ONE, Evidence, Region, measured
from budgeteer.lab.stats import mean_ci
from budgeteer.lab.svg import Line, log_chart
from budgeteer.online import Online
from budgeteer.plan import F64

Stream = Literal["independent", "repeating", "drifting", "slowly drifting", "trend"]
SIZES = (256, 1024, 4096, 16384)
SEEDS = 8
RESOURCES, OPTIONS = 3, 4
ALPHA, CHEAP = 4, 0.05
SQRT: Region = (-math.inf, 0.6)


def experiments() -> list[Evidence]:
    """All of dual descent's experiments."""
    return [
        growth("independent"),
        growth("independent", "entropy"),
        growth("repeating"),
        growth("drifting"),
        growth("slowly drifting"),
        growth("trend"),
        forecast_gain(),
        growth("independent", "greedy", region=(0.9, math.inf)),
        growth("independent", "clock", region=(0.9, math.inf)),
        within_bound(),
        step_size(0.1),
        step_size(10.0),
        adversarial("euclidean"),
        adversarial("entropy"),
        adversarial("greedy"),
    ]


@lru_cache(maxsize=4)
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
    time = np.arange(size)
    if stream == "repeating":
        return np.asarray(1 + 0.8 * np.sin(2 * np.pi * time / 100), dtype=np.float64)
    if stream in ("drifting", "slowly drifting"):
        noise, memory, log_level = rng.normal(size=size), 0.9 if stream == "drifting" else 0.99, np.zeros(size)
        for t in range(1, size):
            log_level[t] = memory * log_level[t - 1] + 0.5 * math.sqrt(1 - memory**2) * noise[t]
        return np.asarray(np.exp(log_level), dtype=np.float64)
    return np.asarray(0.2 + 1.6 * time / size if stream == "trend" else np.ones(size), dtype=np.float64)


def optimum(value: F64, cost: F64, budget: F64) -> tuple[float, F64]:
    """Value of the linear program in hindsight, to 1e-5 of it from above, and its prices [m].

    Its dual ``min_mu>=0 budget . mu + sum_t max(0, max_k v_tk - mu . c_tk)`` has few variables: cutting planes solve
    it. Any mu bounds the optimum from above, so an early stop would only make the regret look larger.
    """
    from scipy.optimize import linprog

    resources, best, cuts = len(budget), math.inf, []
    prices = best_prices = np.zeros(resources)
    for _ in range(200):
        net = value - cost @ prices
        pick, top = net.argmax(axis=1), net.max(axis=1)
        bought = top > 0
        dual = float(budget @ prices + top[bought].sum())
        slope = budget - cost[np.arange(len(net)), pick][bought].sum(axis=0)
        if dual < best:
            best, best_prices = dual, prices
        cuts.append([*slope, -1.0, float(slope @ prices) - dual])
        rows = np.array(cuts)
        bounds = [(0, value.max() + 1)] * resources + [(None, None)]
        found = linprog([0.0] * resources + [1.0], A_ub=rows[:, :-1], b_ub=rows[:, -1], bounds=bounds, method="highs")
        if best - found.fun < 1e-5 * best:
            break
        prices = found.x[:resources]
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
    return best_value(stream, size, seed) - play(make(how, budget, size, rate), value, cost, budget, shares)


def growth(
    stream: Stream,
    how: str = "euclidean",
    *,
    region: Region = SQRT,
    sizes: Sequence[int] = SIZES,
    seeds: int = SEEDS,
) -> Evidence:
    """Slope of log regret on log T: 0.5 for sqrt(T), 1 for a constant share of the optimum.

    The smallest size is in the figure but not in the fit: it is not long against the memory of the streams.
    """
    table = np.array([[regret(stream, how, size, seed) for size in sizes] for seed in range(seeds)])
    slopes = [float(np.polyfit(np.log(sizes[1:]), np.log(row[1:]), 1)[0]) for row in table]
    who = {
        "euclidean": "sub-gradient steps",
        "entropy": "multiplicative weights",
        "greedy": "greedy choice",
        "clock": "greedy choice kept to the pace",
    }[how]
    claim = "below 0.6" if region[1] < math.inf else f"above {region[0]}"
    rows = []
    for size, column in zip(sizes, table.T, strict=True):
        over = mean_ci(column)
        rows.append({"requests": size, "regret": over.mean, "low": over.low, "high": over.high})
    return measured(
        f"growth, {stream}, {how}",
        slopes,
        region,
        claim=f"On {stream} requests, with {who}, log regret grows with log T at a slope {claim}",
        baseline="optimum in hindsight",
        budget="hard budgets of three resources",
        details=rows,
    )


def within_bound(*, size: int = 4096, seeds: int = SEEDS) -> Evidence:
    """Regret over the bound of the docstring, one resource, costs up to twice the pace, values up to 1."""
    values = []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 12])
        value, cost = rng.random((size, 2)), rng.random((size, 2, 1))
        budget = np.array([size / 2])
        best, _ = optimum(value, cost, budget)
        got = play(dual_descent((size / 2,), size), value, cost, budget)
        values.append((best - got) / (2 + math.sqrt(size) * (0.5 / 2 + 1 / (2 * 0.5))))
    return measured(
        "bound, independent",
        values,
        BELOW_ONE,
        claim="On independent requests the regret is below the proven bound (ratio to it)",
        baseline="beta + sqrt(T) (rate G^2 / 2 + 1 / (2 rate)) with beta = 2, G = 1",
        budget=f"one resource, {size:,} requests",
    )


def forecast_gain(*, size: int = SIZES[-1], seeds: int = SEEDS) -> Evidence:
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


def worst_stream(size: int, seed: int) -> tuple[F64, F64, F64, float]:
    """Cheap values, then valuable ones for just as many as the budget covers; each is jittered by 10 %."""
    rng = np.random.default_rng([seed, size, 13])
    late = size // ALPHA
    value = np.where(np.arange(size) < size - late, CHEAP, 1.0) * rng.uniform(0.9, 1.0, size)
    return value[:, None], np.ones((size, 1, 1)), np.array([float(late)]), float(np.sort(value)[-late:].sum())


def adversarial(how: str, *, sizes: Sequence[int] = SIZES, seeds: int = SEEDS) -> Evidence:
    """Optimum over value collected, on the stream that is worst for the pace."""
    table = []
    for seed in range(seeds):
        row = []
        for size in sizes:
            value, cost, budget, best = worst_stream(size, seed)
            row.append(best / play(make(how, budget, size), value, cost, budget))
        table.append(row)
    ratios = np.array(table)
    rows = []
    for size, column in zip(sizes, ratios.T, strict=True):
        over = mean_ci(column)
        rows.append({"requests": size, "ratio": over.mean, "low": over.low, "high": over.high})
    who = {"euclidean": "sub-gradient steps", "entropy": "multiplicative weights", "greedy": "greedy choice"}[how]
    return measured(
        f"adversarial, {how}",
        ratios[:, -1],
        (0.0, ALPHA * 1.05),
        claim=f"On cheap requests followed by valuable ones, with {who}, the optimum is at most {ALPHA * 1.05:g}"
        f" times the value collected (alpha = {ALPHA})",
        baseline="optimum in hindsight",
        budget=f"one resource, {sizes[-1]:,} requests",
        details=rows,
    )


def figure(rows: Sequence[dict[str, Any]]) -> str:
    """Two log-log panels from the JSON rows: regret, and the ratio on the adversarial stream."""
    panels = []
    for kind, what, y_label in (("growth, ", "regret", "regret"), ("adversarial, ", "ratio", "optimum / collected")):
        lines: list[Line] = []
        for row in (row for row in rows if row["name"].startswith(kind)):
            points, (low, high) = row["details"], row["interval"]
            name = row["name"].removeprefix(kind)
            if what == "regret":
                name += f": slope {row['estimate']:.2f} [{low:.2f}, {high:.2f}]"
            x, mean, least, most = ([point[c] for point in points] for c in ("requests", what, "low", "high"))
            lines.append(Line(name, len(lines), x, mean, least, most))
        if what == "ratio":
            bound = [float(ALPHA)] * len(SIZES)
            lines.append(Line(f"alpha = {ALPHA}: no better promise exists", len(lines), SIZES, bound, bound, bound))
        panels.append((lines, "requests T", y_label))
    return log_chart(panels, title="Dual descent: regret over T, and the adversarial stream")
