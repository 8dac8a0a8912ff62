"""Where the tokens of agents' runs go: by stage, role or turn.

Paper: "Tokenomics: Quantifying Where Tokens Are Used in Agentic Software Engineering", arXiv 2601.14470, which labels
each call of a model with its stage and takes the mean over tasks of each stage's share.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from budgeteer.core import rows
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64
from budgeteer.lab.stats import Paired, mean_ci

UNKNOWN = "unknown"
"""The stage of calls without a label; they are shown, never dropped."""
PARTS = ("fresh input", "cached input", "output", "reasoning")
"""The parts that a call's tokens are split into; together they are all of its tokens."""
TURN = "turn"
"""Group by the turn of the run instead of a column."""
_TURNS = (5, 10, 20, 40, 80, 160, 320)


@dataclass(frozen=True, slots=True)
class Fields:
    """Names of the columns.

    Attributes:
        run: that name a run together.
        input, output: tokens of a call, each with its parts.
        cached: of the input; a file without this column has none.
        reasoning: of the output; a file without this column has none.
        beside: whether the provider counts reasoning beside the output instead of inside.
    """

    run: tuple[str, ...] = ("run",)
    input: str = "input"
    output: str = "output"
    cached: str = "cached"
    reasoning: str = "reasoning"
    beside: bool = False


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls of a model.

    Attributes:
        run: number of the run of each call, [n].
        label: stage of each call, [n].
        tokens: [n, 4], as :data:`PARTS` has them.
    """

    run: I64
    label: tuple[str, ...]
    tokens: I64


class Share(NamedTuple):
    """A stage.

    Attributes:
        name: of the stage.
        calls: of the model.
        tokens: of each part, as :data:`PARTS` has them.
        total: of all parts.
        of_sum: its share of all tokens of all runs.
        of_runs: the mean over runs of its share of a run's tokens, with a 95 % interval. Runs without it count 0. This
            is the paper's figure; it differs from ``of_sum`` where runs differ in size.
    """

    name: str
    calls: int
    tokens: tuple[int, ...]
    total: int
    of_sum: float
    of_runs: Paired


def rules(path: Path) -> list[tuple[str, re.Pattern[str]]]:
    """Rules of stages from a file: a line each, ``STAGE<tab>REGEX``; the first that is found in the text is taken.

    Raises:
        InvalidInput: the file cannot be read, or a line is no rule.
    """
    found = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read ({error}); give a text file of rules") from error
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        stage, tab, pattern = line.partition("\t")
        try:
            found.append((stage.strip(), re.compile(pattern)))
        except re.error as error:
            raise InvalidInput(f"{path}, line {number}: {pattern!r} is no regular expression ({error})") from error
        if not tab or not stage.strip() or not pattern:
            raise InvalidInput(f"{path}, line {number}: write STAGE, a tab and a regular expression")
    if not found:
        raise InvalidInput(f"{path} has no rules; write STAGE, a tab and a regular expression, one a line")
    return found


def read(source: str, by: str, fields: Fields, stages: Sequence[tuple[str, re.Pattern[str]]] | None = None) -> Calls:
    """Read a file with a row for each call, those of a run in order.

    Args:
        source: JSON lines, CSV or Parquet: records of the gateway, settlements of the ledger, traces of agents.
        by: column of the stage or role, or :data:`TURN`.
        fields: names of the other columns.
        stages: rules that make a stage of the column's text; None: the text is the stage.

    Raises:
        InvalidInput: a column is missing, or has no whole number from 0; names the row.
    """
    runs: dict[tuple[str, ...], int] = {}
    seen: list[int] = []
    run, label, tokens = [], [], []
    for place, row in rows.read(source):
        where = f"{rows.where(source)}, {place}"
        if not isinstance(row, Mapping):
            raise InvalidInput(f"{where}: give an object a call")
        needed = (*fields.run, fields.input, fields.output, *(() if by == TURN else (by,)))
        if missing := [column for column in needed if column not in row]:
            raise InvalidInput(f"{where} has no {missing[0]}; it has {', '.join(map(str, row)) or 'nothing'}")
        number = runs.setdefault(tuple(str(row[column]) for column in fields.run), len(runs))
        seen += [0] * (len(runs) - len(seen))
        seen[number] += 1
        text = str(row.get(by) or "")
        if by == TURN:
            label.append(_turn(seen[number]))
        elif stages is None:
            label.append(text or UNKNOWN)
        else:
            label.append(next((stage for stage, pattern in stages if pattern.search(text)), UNKNOWN))
        tokens.append(_parts(row, fields, where))
        run.append(number)
    if not run:
        raise InvalidInput(f"{rows.where(source)} has no calls; give a row for each call of a model")
    return Calls(np.array(run), tuple(label), np.array(tokens, dtype=np.int64))


def _turn(turn: int) -> str:
    """The range of a turn from 1 on.

    >>> _turn(1), _turn(5), _turn(6), _turn(321)
    ('1-5', '1-5', '6-10', '321-')
    """
    low = 1
    for high in _TURNS:
        if turn <= high:
            return f"{low}-{high}"
        low = high + 1
    return f"{low}-"


def _parts(row: Mapping[str, object], fields: Fields, where: str) -> list[int]:
    whole = [_whole(row, column, where) for column in (fields.input, fields.output)]
    cached, reasoning = (_whole(row, column, where, 0) for column in (fields.cached, fields.reasoning))
    if cached > whole[0] or (reasoning > whole[1] and not fields.beside):
        raise InvalidInput(
            f"{where}: {cached} of {whole[0]} tokens of input are cached and {reasoning} of {whole[1]} of output are "
            "reasoning; if reasoning is counted beside the output, say so"
        )
    return [whole[0] - cached, cached, whole[1] - (0 if fields.beside else reasoning), reasoning]


def _whole(row: Mapping[str, object], column: str, where: str, default: int | None = None) -> int:
    given = row.get(column)
    if given in (None, "") and default is not None:
        return default
    try:
        value = float(given)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        value = -1.0
    if not (0 <= value < 2**53 and value == int(value)):
        raise InvalidInput(f"{where}: {column} is {given!r}; give a whole number from 0")
    return int(value)


def shares(calls: Calls) -> list[Share]:
    """What each stage used, the largest first; turns stay in their order. The totals add up to all tokens exactly.

    Runs without a token count in no mean.
    """
    total = calls.tokens.sum(axis=1)
    runs = int(calls.run.max()) + 1
    of_run: F64 = np.bincount(calls.run, weights=total, minlength=runs).astype(np.float64)
    places: dict[str, list[int]] = {}
    for place, name in enumerate(calls.label):
        places.setdefault(name, []).append(place)
    found = []
    for name, mine in places.items():
        used = np.bincount(calls.run[mine], weights=total[mine], minlength=runs)
        parts = tuple(int(part) for part in calls.tokens[mine].sum(axis=0))
        part = used[of_run > 0] / of_run[of_run > 0]
        mean = mean_ci(part) if part.size else Paired(0.0, 0.0, 0.0, 0)
        found.append(Share(name, len(mine), parts, sum(parts), sum(parts) / max(1, int(total.sum())), mean))
    turns = [_turn(high) for high in (*_TURNS, _TURNS[-1] + 1)]
    if places.keys() <= set(turns):
        return sorted(found, key=lambda one: turns.index(one.name))
    return sorted(found, key=lambda one: -one.total)
