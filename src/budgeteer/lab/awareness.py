"""How well an agent knows what it still needs: intervals of the remaining budget, and alarms that it will not do.

Paper: "BAGEN: Are LLM Agents Budget-Aware?", arXiv 2606.00198; formulas after its code. Whole runs are replayed: behind
each turn the agent is asked whether it can still finish within the budget, and what that takes.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from budgeteer.core import rows
from budgeteer.core.errors import InvalidInput
from budgeteer.lab.stats import Paired, mean_ci

ASK = """So far you made {turns} turns and spent {spent} {unit} ({each}). The whole task has to be done within {budget}.
Can you still finish it successfully? If so, how many {unit} does it take from the next turn on? Give an interval, as \
narrow as you can be sure of.
Write one of
<answer>[low, high]</answer>
<answer>impossible</answer>"""
"""What an agent is asked behind a turn."""
_ANSWER = re.compile(r"<answer>\s*(.*?)\s*</answer>", re.DOTALL)
_INTERVAL = re.compile(r"\[\s*([\d.,_]+)\s*,\s+([\d.,_]+)\s*\]|\[\s*([\d._]+)\s*,([\d._]+)\s*\]")
"""Two numbers; where a blank stands behind the comma between them, they may have commas of their own."""


@dataclass(frozen=True, slots=True)
class Said:
    """What an agent said behind a turn, beside what came of the run.

    Attributes:
        run: which run.
        spent: units before it was asked.
        total: units of the whole run.
        done: whether the run succeeded within the budget.
        low, high: units that it says are still needed; None = it says that it cannot be done, or nothing readable.
        impossible: whether it says that it cannot be done.
    """

    run: str
    spent: float
    total: float
    done: bool
    low: float | None = None
    high: float | None = None
    impossible: bool = False


class Awareness(NamedTuple):
    """How well an agent knows its remaining budget.

    Attributes:
        asked: times that it was asked.
        runs: number of runs.
        readable: share of answers that could be read.
        sees_possible: share of times in runs that succeed at which it says that it can.
        sees_impossible: share of times in runs that fail at which it says that it cannot; the rest is too hopeful.
        covers: of intervals in runs that succeed, the share that holds what was needed.
        width: median of (high - low) / needed of these.
        error: median of |middle - needed| / needed of these.
        score: mean over times in runs that succeed of max(0, 1 - width / needed) where the interval covers, else 0.
        saved: units that failed runs had spent behind their first alarm, as a share of all that they spent.
        lost: share of the runs that succeed with an alarm before their end: stopping there would have lost them.
    """

    asked: int
    runs: int
    readable: float
    sees_possible: Paired | None
    sees_impossible: Paired | None
    covers: Paired | None
    width: float | None
    error: float | None
    score: Paired | None
    saved: float | None
    lost: float | None


def question(costs: Sequence[float], budget: float, unit: str = "tokens") -> str:
    """What to ask an agent behind the turns that cost so much."""
    each = ", ".join(f"{cost:g}" for cost in costs)
    return ASK.format(turns=len(costs), spent=f"{sum(costs):g}", unit=unit, each=each, budget=f"{budget:g} {unit}")


def answer(text: str) -> tuple[float, float] | bool | None:
    """An interval, False for "impossible", None for what cannot be read; the last answer counts.

    >>> answer("<answer>[1200, 3,000]</answer>"), answer("<answer>Impossible</answer>"), answer("about 3000")
    ((1200.0, 3000.0), False, None)
    """
    found = _ANSWER.findall(text)
    if not found:
        return None
    if found[-1].lower().strip(". ") == "impossible":
        return False
    interval = _INTERVAL.search(found[-1])
    if interval is None:
        return None
    try:
        low, high = (float(part.replace(",", "").replace("_", "")) for part in interval.groups() if part)
    except ValueError:
        return None
    return (low, high) if low <= high else None


def measured(said: Sequence[Said]) -> Awareness:
    """Measure an agent. Intervals of 95 % are over runs, each of which counts once by its mean.

    Raises:
        InvalidInput: it was never asked.
    """
    if not said:
        raise InvalidInput("the agent was never asked; give a row for each time")
    readable = [one.impossible or one.low is not None for one in said]
    succeed, fail = ([one for one in said if one.done == done] for done in (True, False))
    given = [(one, one.total - one.spent, one.low, one.high) for one in succeed if one.low is not None]
    spans = [(one, need, low, high) for one, need, low, high in given if high is not None and need > 0]
    held = [low <= need <= high for _, need, low, high in spans]
    tight = {
        id(one): max(0.0, 1 - (high - low) / need) if low <= need <= high else 0.0 for one, need, low, high in spans
    }
    return Awareness(
        len(said),
        len({one.run for one in said}),
        sum(readable) / len(said),
        _over_runs(succeed, [float(one.low is not None) for one in succeed]),
        _over_runs(fail, [float(one.impossible) for one in fail]),
        _over_runs([one for one, *_ in spans], [float(one) for one in held]),
        _median([(high - low) / need for _, need, low, high in spans]),
        _median([abs((low + high) / 2 - need) / need for _, need, low, high in spans]),
        _over_runs(succeed, [tight.get(id(one), 0.0) for one in succeed]),
        _saved(fail),
        _lost(succeed),
    )


def read(source: str) -> list[Said]:
    """Read a file with a row each time that an agent was asked.

    Args:
        source: rows with run, spent, total, done, and either text (what it wrote) or low and high; JSON lines, CSV or
            Parquet.

    Raises:
        InvalidInput: a column is missing, or has no number, or a run has two totals or ends; names the row.
    """
    found = []
    known: dict[str, tuple[float, bool]] = {}
    for place, row in rows.read(source):
        where = f"{rows.where(source)}, {place}"
        if not isinstance(row, Mapping):
            raise InvalidInput(f"{where}: give an object with fields")
        if missing := [name for name in ("run", "spent", "total", "done") if row.get(name) in (None, "")]:
            raise InvalidInput(f"{where} has no {missing[0]}; give run, spent, total, done, and text or low and high")
        if "text" not in row and not {"low", "high"} <= row.keys():
            raise InvalidInput(f"{where} has neither text nor low and high: what the agent said")
        spent, total = _number(row, "spent", where), _number(row, "total", where)
        if not 0 <= spent <= total:
            raise InvalidInput(f"{where}: spent is {spent:g} and total {total:g}; a run's total holds what was spent")
        done = row["done"]
        if str(done).lower() not in ("true", "false", "1", "0", "1.0", "0.0"):
            raise InvalidInput(f"{where}: done is {done!r}; give true or false")
        heard = answer(str(row["text"])) if "text" in row else _bounds(row, where)
        low, high = heard if isinstance(heard, tuple) else (None, None)
        good = str(done).lower() in ("true", "1", "1.0")
        name = str(row["run"])
        if known.setdefault(name, (total, good)) != (total, good):
            raise InvalidInput(
                f"{where}: the run {name} has another total or done than in a row before; they are those of the whole "
                "run: give runs names of their own"
            )
        found.append(Said(name, spent, total, good, low, high, heard is False))
    return found


def _bounds(row: Mapping[str, Any], where: str) -> tuple[float, float] | bool | None:
    if str(row["low"]).lower() == "impossible":
        return False
    if row["low"] in (None, "") or row["high"] in (None, ""):
        return None
    low, high = _number(row, "low", where), _number(row, "high", where)
    return (low, high) if low <= high else None


def _number(row: Mapping[str, Any], name: str, where: str) -> float:
    try:
        value = float(row[name])
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise InvalidInput(f"{where}: {name} is {row[name]!r}; give a number")
    return value


def _over_runs(said: Sequence[Said], values: Sequence[float]) -> Paired | None:
    by_run: dict[str, list[float]] = defaultdict(list)
    for one, value in zip(said, values, strict=True):
        by_run[one.run].append(value)
    return mean_ci([sum(each) / len(each) for each in by_run.values()]) if by_run else None


def _first_alarms(said: Sequence[Said]) -> dict[str, tuple[float, float | None]]:
    """Run -> its total, and what was spent before its first alarm, if it had one."""
    found: dict[str, tuple[float, float | None]] = {}
    for one in sorted(said, key=lambda one: one.spent):
        total, at = found.get(one.run, (one.total, None))
        found[one.run] = (total, one.spent if at is None and one.impossible else at)
    return found


def _saved(fail: Sequence[Said]) -> float | None:
    alarms = _first_alarms(fail).values()
    total = sum(total for total, _ in alarms)
    return sum(total - at for total, at in alarms if at is not None) / total if total else None


def _lost(succeed: Sequence[Said]) -> float | None:
    alarms = _first_alarms([one for one in succeed if one.spent < one.total]).values()
    return sum(at is not None for _, at in alarms) / len(alarms) if alarms else None


def _median(values: Sequence[float]) -> float | None:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return None if not ordered else ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
