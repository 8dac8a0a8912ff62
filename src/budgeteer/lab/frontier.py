"""Accuracy against measured tokens: strategies on the same questions at the same budgets, over seeds."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.core.budget import Budget, Budgets
from budgeteer.core.errors import InvalidInput
from budgeteer.core.meter import Prices
from budgeteer.core.plan import F64
from budgeteer.core.spec import Spec, parse, value_of
from budgeteer.lab.metrics import accuracy_per_token, csr, efficiency
from budgeteer.lab.questions import QuestionSet
from budgeteer.lab.results import versions
from budgeteer.lab.stats import Paired, crossed, crossed_part, crossed_weights
from budgeteer.models.model import Model
from budgeteer.solve import StoppedBy, Strategy, Style
from budgeteer.solve.lines import Lines
from budgeteer.solve.runner import Pause, Progress, Row, Settings, refuse_needs, run

SCHEMA = 1
CUT = frozenset({StoppedBy.BUDGET, StoppedBy.CAP, StoppedBy.ABORTED})
"""Why a strategy stopped whose answer was cut: it, or its trace, would have gone on."""
READ = 8
"""Questions whose traces are kept for the report, from the hardest to the easiest."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One strategy at one budget with one seed."""

    strategy: str
    budget: str
    seed: int

    def path(self, folder: Path) -> Path:
        """The file of the cell's rows."""
        name = f"{self.strategy}@{self.budget}"
        shown = re.sub(r"[^\w.@=-]+", "_", name)[:80]
        return (
            folder / "rows" / f"{shown}-{hashlib.blake2b(name.encode(), digest_size=4).hexdigest()}-{self.seed}.jsonl"
        )


def budgets_of(text: str) -> list[Budget]:
    """Budgets of one kind from ``256,512,1k``, the smallest first.

    Raises:
        InvalidInput: not amounts, or of several kinds.
    """
    budgets = [Budget.parse(part) for part in text.split(",") if part.strip()]
    if not budgets or any(budget.amount is None or budget.window is not None for budget in budgets):
        raise InvalidInput(f"--budgets {text!r} are not amounts; write 256,512,1k")
    if any(budget.amount == 0 for budget in budgets):
        raise InvalidInput(f"--budgets {text!r} has a budget of 0, which buys no call; give budgets above 0")
    if len({budget.kind for budget in budgets}) > 1:
        raise InvalidInput(f"--budgets {text!r} are of several kinds; a frontier has one axis")
    return sorted(set(budgets), key=lambda budget: budget.amount or 0)


MODES = ("effort", "begun", "on")
"""Options of a style in which alternatives are a line each, with bars between them."""


def modes_of(style: str) -> dict[str, str]:
    """The styles that one text asks for, by what tells them apart: a line of the frontier for each alternative of one
    of :data:`MODES`.

    Raises:
        InvalidInput: an alternative twice, nothing between two bars, or alternatives of two options.

    >>> modes_of("think:effort=low|high,tokens=64")
    {'effort=low': 'think:tokens=64,effort=low', 'effort=high': 'think:tokens=64,effort=high'}
    >>> modes_of("think:effort=low")
    {'': 'think:effort=low'}
    >>> modes_of('think:begun="[Easy]|[Hard]"')
    {'begun=[Easy]': 'think:begun=[Easy]', 'begun=[Hard]': 'think:begun=[Hard]'}
    >>> modes_of('think:effort="25|50"')  # texts, though they look like numbers
    {'effort=25': 'think:effort="25"', 'effort=50': 'think:effort="50"'}
    """
    spec = parse(style, "style")
    found = {key: text.split("|") for key in MODES if "|" in (text := spec.text(key) or "")}
    if not found:
        return {"": style}
    if len(found) > 1:
        raise InvalidInput(f"style {style!r} has alternatives of {' and of '.join(found)}; give them of one option")
    ((key, values),) = found.items()
    values = values if key == "begun" else [value.strip() for value in values]  # blanks at an end are meant there
    if "" in values or len(set(values)) < len(values):
        raise InvalidInput(f"style {style!r}: write each {key} once, such as effort=low|medium|high")
    rest = spec.without(key)

    def with_option(value: str) -> Spec:
        if key != "on" and isinstance(value_of(value), str):
            return rest.given(**{key: value})
        # efforts and beginnings are texts, also where they look like numbers; on is none
        return Spec(rest.name, (*rest.options, (key, value if key == "on" else json.dumps(value))))

    return {f"{key}={value}": str(with_option(value)) for value in values}


def line_of(strategy: str, mode: str) -> str:
    """The name of a strategy's line of one of the modes of :func:`modes_of`."""
    return f"{strategy}, {mode}" if mode else strategy


async def measure(
    strategies: Mapping[str, Strategy],
    budgets: Sequence[Budget],
    seeds: Sequence[int],
    asked: QuestionSet,
    model: Model,
    style: Style,
    folder: Path,
    *,
    about: Mapping[str, str],
    concurrency: int,
    timeout: float,
    prices: Prices | None,
    durable: bool,
    pause: Pause,
    on_row: Callable[[Cell, Row, Progress], None],
    oracle: bool = False,
    pass_at: int = 1,
) -> dict[Cell, tuple[Row, ...]] | None:
    """Rows of every cell; cells that are in the folder already are not measured again. None: the run was paused.

    Args:
        oracle: whether the strategies' verifier compares with the references.
        pass_at: k of Pass@k: how many of a strategy's candidates count.

    Raises:
        InvalidInput: a strategy needs what the model lacks; found out before anything is spent.
    """
    for name, strategy in strategies.items():
        refuse_needs(strategy, model, style, oracle, name, tools=asked.tools is not None)
    solved: dict[Cell, tuple[Row, ...]] = {}
    for budget in budgets:
        for name, strategy in strategies.items():
            for seed in seeds:
                cell = Cell(name, str(budget), seed)

                def told(row: Row, progress: Progress, cell: Cell = cell) -> None:
                    on_row(cell, row, progress)

                settings = Settings(
                    seed=seed,
                    concurrency=concurrency,
                    timeout=timeout,
                    grade=asked.grade,
                    pass_at=pass_at,
                    check=asked.score if oracle else None,
                    tools=asked.tools,
                    prices=prices,
                    out=cell.path(folder),
                    durable=durable,
                    pause=pause,
                    about={**about, "strategy": name},
                    traces=seed == seeds[0],
                    on_row=told,
                )
                done = await run(asked.questions, strategy, model, style, Budgets([budget]), settings)
                if done.paused:
                    return None
                solved[cell] = done.rows
    return solved


def analyse(cells: Mapping[Cell, Sequence[Row]], kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """All numbers of the report, as plain JSON data.

    Means are over questions and seeds; intervals are 95 % bootstrap intervals over both, with the same draws for all
    strategies, so that differences at a budget are paired. ``cut`` is the share of answers that were CUT,
    ``accuracy_cut`` the accuracy of these and ``accuracy_whole`` that of the others; null where there are none.

    Args:
        cells: rows with ``correct``, the same questions in every cell, in the same order.
        kind: of the units on the axis.
        config: what was run, for the record.

    Raises:
        InvalidInput: a question without a reference, or cells of different questions.
    """
    ids = [row["id"] for row in next(iter(cells.values()))]
    for cell, rows in cells.items():
        if [row["id"] for row in rows] != ids:
            raise InvalidInput(f"{cell} has other questions than the first cell; measure again into a new folder")
        if any(row["correct"] is None for row in rows):
            raise InvalidInput("a frontier needs a reference for every question; give each an 'answer'")
    seeds = sorted({cell.seed for cell in cells})
    points = list(dict.fromkeys((cell.strategy, cell.budget) for cell in cells))
    weights = crossed_weights(len(ids), len(seeds))
    right = {point: _table(cells, point, seeds, lambda row: float(row["correct"])) for point in points}
    used = {point: _table(cells, point, seeds, lambda row: float(row["units"][kind])) for point in points}
    cut = {point: _table(cells, point, seeds, lambda row: float(row["stopped_by"] in CUT)) for point in points}
    rows_of = {point: [row for seed in seeds for row in cells[Cell(*point, seed)]] for point in points}
    first = points[0][0]
    return {
        "schema": SCHEMA,
        "kind": kind,
        "questions": len(ids),
        "seeds": seeds,
        "strategies": list(dict.fromkeys(strategy for strategy, _ in points)),
        "points": [
            {
                "strategy": strategy,
                "budget": budget,
                "limit": Budget.parse(budget).amount,
                "accuracy": asdict(crossed(right[strategy, budget], weights)),
                "by_seed": right[strategy, budget].mean(axis=1).tolist(),
                "used": asdict(crossed(used[strategy, budget], weights)),
                "cut": asdict(crossed(cut[strategy, budget], weights)),
                "accuracy_cut": _of_part(crossed_part(right[strategy, budget], cut[strategy, budget], weights)),
                "accuracy_whole": _of_part(crossed_part(right[strategy, budget], 1 - cut[strategy, budget], weights)),
                **_figures(rows_of[strategy, budget], kind, Budget.parse(budget).amount or 0),
            }
            for strategy, budget in points
        ],
        "differences": [
            {"a": a, "b": first, "budget": budget, **asdict(crossed(right[a, budget] - right[first, budget], weights))}
            for a, budget in points
            if a != first
        ],
        "config": dict(config),
        "versions": versions(),
    }


def _table(
    cells: Mapping[Cell, Sequence[Row]], point: tuple[str, str], seeds: Sequence[int], value: Callable[[Row], float]
) -> F64:
    """[seeds, questions]."""
    return np.array([[value(row) for row in cells[Cell(*point, seed)]] for seed in seeds], dtype=np.float64)


def _of_part(estimate: Paired | None) -> dict[str, Any] | None:
    return None if estimate is None else asdict(estimate)


def _figures(rows: Sequence[Row], kind: str, limit: int) -> dict[str, Any]:
    """Means a question, E3, right answers by units, and ``saturated`` = CSR at 99 % of the budget."""
    n = len(rows)
    units, right = [row["units"][kind] for row in rows], [float(row["correct"]) for row in rows]
    return {
        "answered": sum(row["answer"] is not None for row in rows) / n,
        "tokens": {name: sum(row["tokens"][name] for row in rows) / n for name in ("input", "output", "reasoning")},
        "calls": sum(row["calls"] for row in rows) / n,
        "wasted": sum(row["wasted"][kind] for row in rows) / n,
        "overshoot": sum(max(0, row["units"][kind] - row["budget"][kind]) for row in rows),
        "seconds": sum(row["seconds"] for row in rows) / n,
        "e3": efficiency(right, units).e3 if any(units) else None,
        "accuracy_per_token": accuracy_per_token(right, units) if any(units) else None,
        "saturated": csr(units, 0.99 * limit),
    }


def traces(cells: Mapping[Cell, Sequence[Row]], folder: Path, references: Mapping[str, str]) -> list[dict[str, Any]]:
    """Traces of the first seed for READ questions, evenly spread from the hardest to the easiest."""
    seed = min(cell.seed for cell in cells)
    totals: dict[str, float] = {}
    for rows in cells.values():
        for row in rows:
            totals[row["id"]] = totals.get(row["id"], 0.0) + bool(row["correct"])
    order = sorted(totals, key=lambda name: (totals[name], name))
    chosen = [order[round(i * (len(order) - 1) / max(1, READ - 1))] for i in range(min(READ, len(order)))]
    examples = []
    for cell, rows in cells.items():
        if cell.seed != seed:
            continue
        path = cell.path(folder)
        file = Lines(path.with_name(path.name + ".run") / "traces.jsonl", sync=False)
        file.close()
        written = {row["id"]: row for row in file.earlier}
        by_id = {row["id"]: row for row in rows}
        for name in dict.fromkeys(chosen):
            row = {**by_id[name], **written.get(name, {"question": "", "traces": []})}
            examples.append(
                {
                    "strategy": cell.strategy,
                    "budget": cell.budget,
                    "reference": references.get(name, ""),
                    "right": totals[name] / len(cells),
                    **{
                        key: row[key] for key in ("id", "question", "answer", "correct", "stopped_by", "units", "calls")
                    },
                    "traces": row["traces"],
                }
            )
    return examples


def to_text(numbers: Mapping[str, Any]) -> str:
    """The numbers as a JSON document."""
    return json.dumps(numbers, indent=1, allow_nan=False) + "\n"
