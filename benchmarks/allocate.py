"""The multiple-choice knapsack: our time and gap beside HiGHS and OR-tools, and our time against the number of items.

    python benchmarks/allocate.py            # writes benchmarks/results/allocate.json and docs/allocate_scaling.svg
    python benchmarks/allocate.py --parts scaling   # renews only that part of the file: menus, sacks, scaling
    # each measurement is kept beside the file as it is done: after a stop, the same command goes on from there
    python benchmarks/allocate.py --quick    # smoke test: small, writes nothing without --out

Needs ``pip install 'budgeteer[bench]'``. Values and costs are whole numbers, so that every solver gets the same
instance. Each measurement is a child process (HiGHS and OR-tools do not load into one process), one after the other,
with a time limit; time is taken around a solver's calls, after the instance is in memory. For ours that is
``allocate``, from an Items to a Plan, and, as ``alone``, the compiled call in it; for the peers solving alone and, as
``with_model``, from arrays on. Ours is the best of several repetitions, as are OR-tools' knapsack solvers; others run
once. OR-tools' knapsack solvers settle items and sort while their model is built, so that little may be left to solve:
``unreduced`` is their solving alone when told to settle none.
Absolute times depend on what else the machine does; the ratios are from the same run.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "results" / "allocate.json"
FIGURE = ROOT / "docs" / "allocate_scaling.svg"
PACKAGES = ("numpy", "highspy", "ortools")
MENUS = ((128, 32), (10_000, 32), (1_000_000, 16))
SCALE = tuple((10**k, 16) for k in range(1, 7))
SACKS = (50, 64, 1000, 10_000, 100_000, 1_000_000)
SACK_KINDS = ("sack", "weak", "strong", "subset")
SACK_SEEDS = 5
"""Instances of a kind of knapsacks of 50 to 1000 items, whose times differ by more than the solvers'."""
EXACT = ("menu-knapsack exact", "menu-knapsack compiled exact")
ROLLOUTS = "knapsack-allocator"
"""Splits rollouts among prompts by their pass rates: no menus, 2 to 128 units an item."""
OURS = ("menu-knapsack", "menu-knapsack compiled", *EXACT, "greedy-marginal", "bisection")
PEERS = ("highs", "cp-sat")
FAST_PEERS = ("branch and bound", "64 items")
SACK_PEERS = (*FAST_PEERS, "dynamic programming", "divide and conquer", "cp-sat as knapsack")
OURS_LIMIT = 600.0
"""Seconds for one measurement of ours, all repetitions and the instance's making included."""
LONG = 20.0
"""Seconds after which ours is not repeated any more."""
MILLION = 10**6
"""Values are multiples of a millionth."""


def instance(kind: str, n: int, w: int, seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], int]:
    """Costs [n, w], whole values [n, w] and a budget of a fifth of all largest options.

    ``random``: sorted random costs and values. ``concave``: sorted random gains, random steps. ``sack``: one option an
    item, costs and values unrelated; ``weak``: one option, values near costs, the harder knapsacks; ``strong``: values
    are costs and a constant; ``subset``: values are costs.
    """
    rng = np.random.default_rng([seed, n, w])
    if kind == "concave":
        cost = np.cumsum(rng.integers(1, 60, (n, w)), 1)
        value = np.cumsum(np.sort(rng.random((n, w)), 1)[:, ::-1], 1) * rng.gamma(1.0, 1.0, (n, 1)) / w
    elif kind == "weak":
        cost = rng.integers(1, 1000, (n, w))
        value = np.maximum(cost + rng.integers(-100, 101, (n, w)), 1) / 1000
    elif kind in ("strong", "subset"):
        cost = rng.integers(1, 1000, (n, w))
        value = (cost + (100 if kind == "strong" else 0)) / 1000
    else:
        cost, value = np.sort(rng.integers(1, 1000, (n, w)), 1), np.sort(rng.random((n, w)), 1)
    whole = np.maximum(np.round(value * MILLION), 1).astype(np.int64)
    return cost.astype(np.int64), whole, int(cost.max(1).sum()) // 5


def bisection(cost: Any, value: Any, budget: int) -> float:
    """The plain way in NumPy: 60 halvings of the price, all options each time. The value of a plan that fits."""
    low, high = 0.0, float((value / cost).max())
    rows = np.arange(len(cost))
    best = 0.0
    for _ in range(60):
        price = (low + high) / 2
        score = value - price * cost
        at = score.argmax(1)
        taken = score[rows, at] > 0
        if int(cost[rows, at][taken].sum()) > budget:
            low = price
        else:
            high, best = price, float(value[rows, at][taken].sum())
    return best


def ours(name: str, cost: Any, value: Any, budget: int, repetitions: int) -> dict[str, Any]:
    """Best and all times of ours, the value, the certified gap."""
    from budgeteer.allocate import greedy_marginal, menu_knapsack
    from budgeteer.core.plan import Items, Menu

    alone = _in_compiled_calls() if "compiled" in name else []

    worth = value / MILLION
    start = time.perf_counter()
    items = Items(tuple(map(str, range(len(cost)))), menu=Menu.of(cost, worth))
    built = time.perf_counter() - start
    seconds, cpu, worth_found, gap = [], [], 0.0, math.nan
    rng = np.random.default_rng(0)
    allocator = (
        greedy_marginal() if name == "greedy-marginal" else menu_knapsack(name.endswith("exact"), "compiled" in name)
    )
    inside = []
    began = time.perf_counter()
    while len(seconds) < repetitions and (not seconds or time.perf_counter() - began < LONG):
        alone.clear()
        start, busy = time.perf_counter(), time.process_time()
        if name == "bisection":
            worth_found = bisection(cost, worth, budget)
        else:
            plan = allocator.allocate(budget, items, (), rng=rng)
            worth_found, gap = plan.value, plan.gap
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - busy)
        inside.append(sum(alone))
    return {
        "seconds": min(seconds), "alone": min(inside) if alone else None, "median": float(np.median(seconds)),
        "cpu": min(cpu), "repetitions": len(seconds), "items_built": built, "value": worth_found,
        "gap": gap / worth_found if worth_found else math.nan,
    }  # fmt: skip


def rollouts(n: int, seed: int, repetitions: int) -> dict[str, Any]:
    """Best and all times of the knapsack allocator on n prompts of random pass rates, eight rollouts each."""
    from budgeteer.allocate import knapsack
    from budgeteer.core.plan import Items

    rng = np.random.default_rng([seed, n])
    start = time.perf_counter()
    items = Items(tuple(map(str, range(n))), rng.integers(10, 1000, n).astype(float), pass_rate=rng.random(n))
    built, allocator, budget = time.perf_counter() - start, knapsack(), int(8 * items.cost.sum())
    seconds, cpu = [], []
    began = time.perf_counter()
    while len(seconds) < repetitions and (not seconds or time.perf_counter() - began < LONG):
        start, busy = time.perf_counter(), time.process_time()
        plan = allocator.allocate(budget, items, (), rng=rng)
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - busy)
    return {
        "seconds": min(seconds), "alone": None, "median": float(np.median(seconds)), "cpu": min(cpu),
        "repetitions": len(seconds), "items_built": built, "value": plan.value, "gap": plan.gap / plan.value,
    }  # fmt: skip


def _in_compiled_calls() -> list[float]:
    """Seconds of each compiled call from now on, some 0.1 us of measuring included."""
    from budgeteer.allocate.kit import compiled as _compiled

    call: Any = _compiled.solve
    taken: list[float] = []

    def timed(*arguments: Any) -> Any:
        start = time.perf_counter()
        result = call(*arguments)
        taken.append(time.perf_counter() - start)
        return result

    _compiled.solve = timed
    return taken


def highs(cost: Any, value: Any, budget: int, limit: float) -> dict[str, Any]:
    """HiGHS as a mixed-integer program, gap tolerance 0."""
    import highspy

    n, w = cost.shape
    begin = time.perf_counter()
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("time_limit", limit)
    solver.setOptionValue("mip_rel_gap", 0.0)
    solver.setOptionValue("mip_abs_gap", 0.5)  # values are whole
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = n * w, n + 1
    model.col_cost_, model.sense_ = value.ravel().astype(float), highspy.ObjSense.kMaximize
    model.col_lower_, model.col_upper_ = np.zeros(n * w), np.ones(n * w)
    model.row_lower_ = np.full(n + 1, -highspy.kHighsInf)
    model.row_upper_ = np.append(np.ones(n), float(budget))
    model.integrality_ = [highspy.HighsVarType.kInteger] * (n * w)
    matrix = model.a_matrix_
    matrix.format_ = highspy.MatrixFormat.kColwise
    matrix.start_ = np.arange(n * w + 1) * 2
    matrix.index_ = np.column_stack([np.repeat(np.arange(n), w), np.full(n * w, n)]).ravel()
    matrix.value_ = np.column_stack([np.ones(n * w), cost.ravel()]).ravel().astype(float)
    solver.passModel(model)
    start = time.perf_counter()
    solver.run()
    end = time.perf_counter()
    info = solver.getInfo()
    bound = float(info.mip_dual_bound)
    return _peer(end - start, end - begin, info.objective_function_value, bound)


def cp_sat(cost: Any, value: Any, budget: int, limit: float) -> dict[str, Any]:
    """OR-tools' CP-SAT with all cores."""
    from ortools.sat.python import cp_model

    n, w = cost.shape
    begin = time.perf_counter()
    model = cp_model.CpModel()
    flat = [model.new_bool_var("") for _ in range(n * w)]
    for i in range(n):
        model.add_at_most_one(flat[i * w : (i + 1) * w])
    model.add(cp_model.LinearExpr.weighted_sum(flat, cost.ravel().tolist()) <= budget)
    model.maximize(cp_model.LinearExpr.weighted_sum(flat, value.ravel().tolist()))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = limit
    solver.parameters.num_workers = os.cpu_count() or 1
    start = time.perf_counter()
    status = solver.solve(model)
    end = time.perf_counter()
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return {"seconds": end - start, "error": f"no solution within {limit} s"}
    return _peer(end - start, end - begin, solver.objective_value, solver.best_objective_bound)


def sack(name: str, cost: Any, value: Any, budget: int, limit: float) -> dict[str, Any]:
    """OR-tools' knapsack solvers, for one option an item."""
    from ortools.algorithms.python import knapsack_solver as module

    kind = {
        "branch and bound": module.SolverType.KNAPSACK_MULTIDIMENSION_BRANCH_AND_BOUND_SOLVER,
        "64 items": module.SolverType.KNAPSACK_64ITEMS_SOLVER,
        "dynamic programming": module.SolverType.KNAPSACK_DYNAMIC_PROGRAMMING_SOLVER,
        "divide and conquer": module.SolverType.KNAPSACK_DIVIDE_AND_CONQUER_SOLVER,
        "cp-sat as knapsack": module.SolverType.KNAPSACK_MULTIDIMENSION_CP_SAT_SOLVER,
    }[name]
    times: dict[bool, list[float]] = {True: [], False: []}
    whole, total, optimal, began = [], 0.0, False, time.perf_counter()
    for _ in range(repetitions(len(cost))):
        for reduced in (True, False) if name in FAST_PEERS and len(cost) <= 64 else (True,):
            begin = time.perf_counter()
            solver = module.KnapsackSolver(kind, "")
            solver.set_time_limit(limit)
            solver.set_use_reduction(reduced)
            solver.init(value.ravel().tolist(), [cost.ravel().tolist()], [budget])
            start = time.perf_counter()
            answer = float(solver.solve())
            times[reduced].append(time.perf_counter() - start)
            if reduced:
                whole.append(time.perf_counter() - begin)
                total, optimal = answer, solver.is_solution_optimal()
        if time.perf_counter() - began > limit:
            break
    entry = _peer(min(times[True]), min(whole), total, total if optimal else math.nan)
    unreduced = min(times[False], default=None)
    return {**entry, "unreduced": unreduced, "optimal": optimal, "repetitions": len(whole)}


def _peer(seconds: float, whole: float, value: float, bound: float) -> dict[str, Any]:
    return {
        "seconds": seconds, "with_model": whole, "value": value / MILLION,
        "gap": (bound - value) / value if value else math.nan,
    }  # fmt: skip


def measure(solver: str, kind: str, n: int, w: int, seed: int, repetitions: int, limit: float) -> dict[str, Any]:
    """One solver on one instance, in this process."""
    cost, value, budget = instance(kind, n, w, seed) if solver != ROLLOUTS else (None, None, 0)
    if solver == ROLLOUTS:
        result = rollouts(n, seed, repetitions)
    elif solver in OURS:
        result = ours(solver, cost, value, budget, repetitions)
    elif solver == "highs":
        result = highs(cost, value, budget, limit)
    elif solver == "cp-sat":
        result = cp_sat(cost, value, budget, limit)
    else:
        result = sack(solver, cost, value, budget, limit)
    return {"solver": solver, "kind": kind, "items": n, "options": w, "seed": seed, **result}


class Stopped(Exception):
    """A measurement was ended from outside, by a signal: not a result."""


def child(journal: Journal, limit: float, **arguments: Any) -> dict[str, Any]:
    """The same in a child process; what does not come back in time, or fails, says so.

    Ours have no limit of their own: they are given OURS_LIMIT seconds, peers twice theirs and a time to start.
    """
    from budgeteer.lab.results import to_json

    name = {"solver": arguments["solver"], "kind": arguments["kind"], "items": arguments["n"],
            "options": arguments["w"], "seed": arguments["seed"]}  # fmt: skip
    print(f"  {name['solver']}, {name['kind']}, {name['items']:,} x {name['options']}", file=sys.stderr, flush=True)
    request = json.dumps({**arguments, "limit": limit})
    if request in journal.done:
        return journal.done[request]
    seconds = OURS_LIMIT if name["solver"] in (*OURS, ROLLOUTS) else 2 * limit + 30
    try:
        command = [sys.executable, __file__, "--child", request]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=True)
        result: dict[str, Any] = to_json(json.loads(done.stdout.splitlines()[-1]))
    except subprocess.TimeoutExpired:
        result = {**name, "error": f"not done within {seconds:.0f} s"}
    except subprocess.CalledProcessError as error:
        if error.returncode in (-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP):
            raise Stopped(f"{name} was ended by signal {-error.returncode}; run the same command to go on") from error
        # -9 is what a machine without memory does, and a result
        result = {**name, "error": (error.stderr.strip().splitlines() or [f"exit code {error.returncode}"])[-1][:200]}
    journal.add(request, result)
    return result


class Journal:
    """Measurements that are done, by request, one JSON line each; without a path nothing is kept."""

    def __init__(self, path: Path | None):
        self.path = path
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        self.done: dict[str, dict[str, Any]] = {}
        for line in lines:
            with contextlib.suppress(json.JSONDecodeError):  # the last line of a run that was killed
                request, result = json.loads(line)
                self.done[request] = result

    def add(self, request: str, result: dict[str, Any]) -> None:
        """Keep a measurement."""
        self.done[request] = result
        if self.path is not None:
            with self.path.open("a") as file:
                file.write("\n" + json.dumps([request, result]))  # on a line of its own, even after a cut one

    def close(self) -> None:
        """The run is complete and in its file."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def repetitions(n: int) -> int:
    """Fewer for larger problems."""
    return 500 if n <= 1000 else 60 if n <= 20_000 else 7


def side_by_side(journal: Journal, menus: Sequence[tuple[int, int]], limit: float, seed: int) -> list[dict[str, Any]]:
    """Menus: ours at every size, peers at those they can do."""
    rows = []
    for n, w in menus:
        for kind in ("random", "concave"):
            for solver in (*OURS, *(PEERS if n <= 20_000 else ())):
                times = 1 if solver == "bisection" and n > 20_000 else repetitions(n)
                rows.append(child(journal, limit, solver=solver, kind=kind, n=n, w=w, seed=seed, repetitions=times))
    return rows


def sacks(journal: Journal, sizes: Sequence[int], limit: float, seed: int) -> list[dict[str, Any]]:
    """Knapsacks of one option an item: OR-tools' own solvers, as far as each goes."""
    rows = []
    for n in sizes:
        for kind, number in itertools.product(SACK_KINDS, range(SACK_SEEDS if 50 <= n <= 1000 else 1)):
            for solver in (*EXACT, *(FAST_PEERS if number else SACK_PEERS)):
                # the dynamic programs need a table of items x budget, the bit-packed one 64 items at most
                most = {"64 items": 64, "branch and bound": 100_000, "cp-sat as knapsack": 10_000}.get(solver, 1000)
                if solver not in EXACT and n > most:
                    continue
                times = repetitions(n) if solver in EXACT else 1
                wanted = {"solver": solver, "kind": kind, "n": n, "w": 1, "seed": seed + number, "repetitions": times}
                rows.append(child(journal, limit, **wanted))
    return rows


def scaling(journal: Journal, sizes: Sequence[tuple[int, int]], seed: int) -> list[dict[str, Any]]:
    """Ours over the decades of items."""
    return [
        child(journal, 60, solver=solver, kind="random", n=n, w=w, seed=seed, repetitions=repetitions(n))
        for n, w in sizes
        for solver in (*OURS, ROLLOUTS)
        if solver != "bisection"
    ]


def ratios(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Peers' time divided by ours, exact against exact: how many times faster ours is on the same instance."""

    def instance_of(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["kind"], row["items"], row["options"], row["seed"]

    good = [row for row in rows if "error" not in row]
    return [
        {
            "solver": r["solver"], "ours": mine["solver"], "kind": r["kind"], "items": r["items"],
            "options": r["options"], "seed": r["seed"], "times": r["seconds"] / mine["seconds"],
            "times_with_model": r["with_model"] / mine["seconds"],
            "times_alone": r["seconds"] / mine["alone"] if mine.get("alone") else None,
            "times_unreduced": r["unreduced"] / mine["alone"] if mine.get("alone") and r.get("unreduced") else None,
            "finished": r.get("gap") is not None and r["gap"] <= 1e-9,
        }
        for mine in good if mine["solver"] in EXACT
        for r in good if r["solver"] not in OURS and instance_of(r) == instance_of(mine)
    ]  # fmt: skip


def sack_ratios(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Geometric mean and least, over the instances of a kind and size, of the ratios to the exact compiled form."""
    of: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for row in rows:
        if row["ours"] == EXACT[1] and row["solver"] in FAST_PEERS:
            of.setdefault((row["kind"], row["items"], row["solver"]), []).append(row)
    entries = []
    for (kind, items, solver), these in of.items():
        entry: dict[str, Any] = {"kind": kind, "items": items, "solver": solver, "instances": len(these)}
        entry["finished"] = sum(row["finished"] for row in these)
        for name in ("times_with_model", "times_alone", "times_unreduced"):
            each = [row[name] for row in these if row[name] is not None]
            entry[name] = [math.exp(sum(map(math.log, each)) / len(each)), min(each)] if each else None
        entries.append(entry)
    return entries


PARTS = ("menus", "sacks", "scaling")
TARGETS = tuple(
    (solver, *target)
    for solver in ("menu-knapsack", "menu-knapsack compiled")
    for target in ((128, 32, 0.2e-3, None), (10_000, 32, 10e-3, 1e-6), (1_000_000, 16, 1.0, 1e-6))
)
"""Solver, items, options, seconds, certified gap."""


def targets(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was aimed at beside what was measured, the worse of the two kinds of menus."""
    entries = []
    for solver, n, w, seconds, gap in TARGETS:
        these = [r for r in rows if (r["solver"], r["items"], r["options"]) == (solver, n, w) and "error" not in r]
        if these:
            worst = {name: max(r[name] for r in these) for name in ("seconds", "cpu", "gap")}
            met = worst["seconds"] <= seconds and (gap is None or worst["gap"] <= gap)
            entries.append({"solver": solver, "items": n, "options": w, "target_seconds": seconds, "target_gap": gap,
                          **worst, "met": met})  # fmt: skip
    return entries


def slope(rows: Sequence[dict[str, Any]], solver: str) -> float:
    """Exponent of time against items, from a thousand items on, by least squares of the logarithms."""
    points = [
        (r["items"], r["seconds"]) for r in rows if r["solver"] == solver and r["items"] >= 1000 and "error" not in r
    ]
    x, y = np.log([p[0] for p in points]), np.log([p[1] for p in points])
    return float(np.polyfit(x, y, 1)[0]) if len(points) > 1 else math.nan


def figure(rows: Sequence[dict[str, Any]]) -> str:
    """Time against items."""
    from budgeteer.draw.svg import Curve, stand_alone, xy_chart

    names = list(dict.fromkeys(r["solver"] for r in rows))
    curves = []
    for name in names:
        points = [(r["items"], r["seconds"]) for r in rows if r["solver"] == name and "error" not in r]
        curves.append(Curve(name, [p[0] for p in points], [p[1] for p in points], marks=True))
    chart = xy_chart(
        curves, title="time of one allocation, 16 options an item", x_label="items", y_label="seconds", log=(True, True)
    )
    return stand_alone(chart, height=350)


def table(results: dict[str, Any]) -> str:
    """The results for people."""
    machine = results["machine"]
    lines = [f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_before']}"]
    lines.append(f"{'instance':28} {'solver':24} {'seconds':>10} {'gap':>9}")
    for r in [*results["menus"], *results["sacks"]]:
        name = f"{r['kind']} {r['items']:,} x {r['options']}"
        if "error" in r:
            lines.append(f"{name:28} {r['solver']:24} {r['error']}")
            continue
        gap = "" if r["gap"] is None else f"{r['gap']:.1e}"
        lines.append(f"{name:28} {r['solver']:24} {r['seconds']:>10.5f} {gap:>9}")
    lines.append("")
    for r in results["ratios"]:
        more = "" if r["finished"] else ", and had not finished"
        name = f"{r['kind']} {r['items']:,} x {r['options']}"
        times = f"{r['times']:,.3g} times as long as {r['ours']} ({r['times_with_model']:,.3g} with its model)"
        lines.append(f"{name:28} {r['solver']:24} took {times}{more}")
    lines.append("")
    for r in results["sack_ratios"]:
        parts = [
            f"{r[name][0]:.3g} (least {r[name][1]:.3g}) {what}"
            for name, what in (("times_with_model", "with its model"), ("times_alone", "alone"),
                               ("times_unreduced", "alone, nothing settled before"))
            if r[name]
        ]  # fmt: skip
        lines.append(
            f"{r['kind']} {r['items']:,}, {r['instances']} instances, {r['finished']} finished: {r['solver']} took "
            f"{', '.join(parts)} times as long as {EXACT[1]}"
        )
    lines.append("")
    for r in results["targets"]:
        gap = "" if r["target_gap"] is None else f", gap {r['gap']:.1e} of {r['target_gap']:.0e}"
        lines.append(
            f"{r['solver']}, {r['items']:,} x {r['options']}: {1e3 * r['seconds']:.3g} ms "
            f"({1e3 * r['cpu']:.3g} ms of CPU) "
            f"of {1e3 * r['target_seconds']:g} ms{gap}: {'met' if r['met'] else 'missed'}"
        )
    lines += [f"time ~ items^{s:.2f}: {name}" for name, s in results["exponents"].items() if s is not None]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smoke test; the numbers mean nothing")
    parser.add_argument("--out", type=Path, help=f"results file (default: {OUT.name} beside this file; none if quick)")
    parser.add_argument(
        "--limit", type=float, default=30.0, help="time limit of a peer in seconds (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure (default: all)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        print(json.dumps(measure(**json.loads(args.child))))
        return 0
    from budgeteer.lab.results import installed, machine, to_json, write_text

    limit = 5.0 if args.quick else args.limit
    out = args.out or (None if args.quick else OUT)
    journal = Journal(None if out is None else out.with_name(out.name + ".partial"))
    results: dict[str, Any] = {part: [] for part in PARTS}
    if len(args.parts) < len(PARTS) and out is not None and out.exists():
        results = json.loads(out.read_text())
    results |= {
        "quick": args.quick,
        "seed": args.seed,
        "limit": limit,
        "machine": machine(),
        "versions": installed(PACKAGES),
    }
    for part in args.parts:
        if part == "menus":
            results[part] = side_by_side(journal, ((20, 4),) if args.quick else MENUS, limit, args.seed)
        elif part == "sacks":
            results[part] = sacks(journal, (30,) if args.quick else SACKS, limit, args.seed)
        else:
            results[part] = scaling(journal, ((10, 16), (100, 16)) if args.quick else SCALE, args.seed)
        results["targets"] = targets(results["menus"])
        results["ratios"] = ratios([*results["menus"], *results["sacks"]])
        results["sack_ratios"] = sack_ratios(results["ratios"])
        measured = [r["solver"] for r in results["scaling"] if "error" not in r]
        results["exponents"] = {name: slope(results["scaling"], name) for name in dict.fromkeys(measured)}
        if out is not None:  # after every part, so that a run that is stopped keeps what it has
            write_text(json.dumps(to_json(results), indent=1) + "\n", out)
    journal.close()
    print(table(to_json(results)))
    if not args.quick and args.out is None:
        write_text(figure(results["scaling"]), FIGURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
