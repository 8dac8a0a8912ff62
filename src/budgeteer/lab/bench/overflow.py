"""BenchOverflow: how much longer than needed a model writes at plain prompts, and how often it runs into the cap.

Paper: "BenchOverflow: Measuring Overflow in Large Language Models via Plain-Text Prompts". Its abstract and part of a
review were read: of the nine kinds of prompts four are known and named after it (``origin`` is ``paper``); the other
five are ours. All 54 prompts are written anew, in ``overflow.tsv``.
"""

from __future__ import annotations

import csv
import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64
from budgeteer.lab.results import versions
from budgeteer.lab.stats import crossed, crossed_weights
from budgeteer.models.chat import Chat, Message
from budgeteer.models.model import Model
from budgeteer.solve import Question, StoppedBy, Style
from budgeteer.solve.runner import Pause, Progress, Row, Settings, run
from budgeteer.strategies import conciseness, direct
from budgeteer.strategies._conciseness import REMINDER

STYLE = Style(lambda text: Chat((Message("user", text),)), lambda text: text, "")
"""A prompt is the only message of a chat, and the whole text that follows is the answer."""
DRAWS = 2000
"""Bootstrap samples of an interval."""


class Prompt(NamedTuple):
    """A prompt: its kind, whether the paper has this kind (``paper``) or we added it (``ours``), and its text."""

    kind: str
    origin: str
    text: str


@dataclass(frozen=True, slots=True)
class Cell:
    """A model, asked as it is (``plain``) or with the conciseness reminder (``reminder``)."""

    model: str
    arm: str


def prompts(each: int = 6) -> tuple[Prompt, ...]:
    """The first ``each`` prompts of every kind.

    >>> len(prompts()), len({prompt.kind for prompt in prompts(2)}), len(prompts(2))
    (54, 9, 18)
    """
    text = resources.files("budgeteer.lab.bench").joinpath("overflow.tsv").read_text(encoding="utf-8")
    by_kind: dict[str, list[Prompt]] = {}
    for row in csv.DictReader(text.splitlines(), delimiter="\t"):
        by_kind.setdefault(row["kind"], []).append(Prompt(row["kind"], row["origin"], row["prompt"]))
    return tuple(prompt for found in by_kind.values() for prompt in found[:each])


def needed(model: Model, asked: Sequence[Prompt], cap: int) -> int:
    """Tokens that one answer can cost at most, its prompt with the reminder included."""
    return max(model.count(STYLE.prompt(f"{prompt.text} {REMINDER}")) for prompt in asked) + cap


async def measure(
    model: Model,
    name: str,
    arm: str,
    asked: Sequence[Prompt],
    folder: Path,
    *,
    cap: int,
    repeats: int,
    temperature: float,
    seed: int,
    concurrency: int,
    timeout: float,
    durable: bool,
    pause: Pause,
    on_row: Callable[[Row, Progress], None] | None = None,
) -> list[tuple[Row, ...]] | None:
    """Ask every prompt ``repeats`` times; what is in the folder is not asked again. None: the run was paused.

    Each answer has a hard budget of its own: the prompt and ``cap`` tokens. The rows of a model are found by ``name``,
    since folders of two models may end in the same word, which is the model's own name.
    """
    strategy = direct(cap, temperature)
    strategy = conciseness(strategy) if arm == "reminder" else strategy
    questions = [Question(f"{prompt.kind}-{i}", prompt.text) for i, prompt in enumerate(asked)]
    budget = str(needed(model, prompts(), cap))  # of all prompts: the same for every --each
    each = max(Counter(prompt.kind for prompt in asked).values())
    found = []
    for repeat in range(repeats):
        settings = Settings(
            seed=seed + repeat, concurrency=concurrency, timeout=timeout, out=_path(folder, name, arm, repeat),
            durable=durable, pause=pause, on_row=on_row,
            about={
                "strategy": arm, "asked as": name, "--cap": str(cap), "--temperature": f"{temperature:g}",
                "--each": str(each),
            },
        )  # fmt: skip
        done = await run(questions, strategy, model, STYLE, budget, settings)
        if done.paused:
            return None
        found.append(done.rows)
    return found


def _path(folder: Path, name: str, arm: str, repeat: int) -> Path:
    digest = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
    return folder / "rows" / f"{re.sub(r'[^A-Za-z0-9.-]+', '_', name)[-60:]}-{digest}-{arm}-{repeat}.jsonl"


def lengths(rows: Sequence[Sequence[Row]], cap: int) -> F64:
    """Tokens of every answer, [repeats, prompts]; ``cap`` where the cap cut it, NaN where the call failed.

    Hidden reasoning is counted. A model that says nothing of its end is at the cap where it wrote as much.
    """

    def length(row: Row) -> float:
        if str(row["stopped_by"]).startswith(StoppedBy.ERROR.value) or row["stopped_by"] == StoppedBy.BUDGET:
            return float("nan")
        return float(cap) if row["stopped_by"] == StoppedBy.CAP else float(min(cap, row["tokens"]["output"]))

    return np.array([[length(row) for row in repeat] for repeat in rows], dtype=np.float64)


def analyse(
    tables: Mapping[Cell, F64], asked: Sequence[Prompt], *, cap: int, at: Sequence[int], config: Mapping[str, Any]
) -> dict[str, Any]:
    """All numbers of the report as plain JSON data.

    Formulas: CSR@k = share of the answers of k tokens or more; ``within`` = the mean over prompts of the variance over
    repeats (n - 1), in tokens squared; correlation = Spearman's rho of the mean lengths of the prompts between two
    models. Intervals are 95 % bootstrap intervals over prompts and repeats, with the same draws for all; those of the
    correlation over prompts. Lengths are censored at the cap: means are means of what was written, no more.

    Args:
        tables: lengths of :func:`lengths`, of equal shape. A prompt that failed anywhere is left out everywhere.
        asked: the prompts, in the order of the columns.
        cap: of an answer.
        at: the k of CSR@k.
        config: what was run, for the record.

    Raises:
        InvalidInput: no prompt was answered in all cells.
    """
    kept = np.all([np.isfinite(table).all(axis=0) for table in tables.values()], axis=0)
    if not kept.any():
        raise InvalidInput("not one prompt was answered in all repeats by all models; see the rows for what failed")
    shown = [prompt for prompt, keep in zip(asked, kept, strict=True) if keep]
    clean = {cell: table[:, kept] for cell, table in tables.items()}
    kinds = list(dict.fromkeys(prompt.kind for prompt in asked))
    columns = {kind: [i for i, prompt in enumerate(shown) if prompt.kind == kind] for kind in kinds}
    repeats, n = next(iter(clean.values())).shape
    weights = crossed_weights(n, repeats, draws=DRAWS)
    cells = []
    for cell, table in clean.items():
        row = asdict(cell) | _figures(table, cap, at, weights)
        row["kinds"] = {
            kind: _figures(table[:, own], cap, at, crossed_weights(len(own), repeats, draws=DRAWS))
            for kind, own in columns.items()
            if own
        }
        cells.append(row)
    differences = [
        {"model": cell.model}
        | {f"CSR@{k}": _less(table >= k, clean[Cell(cell.model, "plain")] >= k, weights) for k in at}
        | {"mean": _less(table, clean[Cell(cell.model, "plain")], weights)}
        for cell, table in clean.items()
        if cell.arm == "reminder"
    ]
    plain = {cell.model: table.mean(axis=0) for cell, table in clean.items() if cell.arm == "plain"}
    return {
        "schema": 1, "cap": cap, "at": list(at), "repeats": repeats, "prompts": n, "left_out": int((~kept).sum()),
        "origin": {prompt.kind: prompt.origin for prompt in asked}, "cells": cells, "differences": differences,
        "correlations": [
            {"a": a, "b": b, **correlation(plain[a], plain[b], weights[0])} for a, b in combinations(plain, 2)
        ],
        "config": dict(config), "versions": versions(),
    }  # fmt: skip


def _figures(table: F64, cap: int, at: Sequence[int], weights: tuple[F64, F64]) -> dict[str, Any]:
    within = table.var(axis=0, ddof=1)[None] if len(table) > 1 else None
    flat = np.sort(table, axis=None)
    grid = np.unique(np.concatenate([np.geomspace(1, cap, 25).round(), np.asarray(at, float)]))
    return {
        **{f"CSR@{k}": asdict(crossed((table >= k).astype(np.float64), weights)) for k in at},
        "median": float(np.median(flat)),
        "p90": float(np.quantile(flat, 0.9)),
        "mean": asdict(crossed(table, weights)),
        "within": None if within is None else asdict(crossed(within, (weights[0], np.ones((len(weights[0]), 1))))),
        "curve": [[float(k), *_interval((table >= k).astype(np.float64), weights)] for k in grid],
    }


def _interval(values: F64, weights: tuple[F64, F64]) -> tuple[float, float, float]:
    found = crossed(values, weights)
    return found.mean, found.low, found.high


def _less(a: Any, b: Any, weights: tuple[F64, F64]) -> dict[str, Any]:
    return asdict(crossed(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64), weights))


def correlation(a: F64, b: F64, by_prompt: F64) -> dict[str, float | None]:
    """Spearman's rho of two columns [n] with its bootstrap interval; None where a column has one value only.

    Args:
        a, b: a number a prompt.
        by_prompt: weights of :func:`budgeteer.lab.stats.crossed_weights`, [draws, n].
    """
    n = len(a)
    picks = [np.repeat(np.arange(n), np.rint(row * n).astype(int)) for row in by_prompt]
    rho, drawn = spearman(a, b), np.array([spearman(a[pick], b[pick]) for pick in picks])
    drawn = drawn[np.isfinite(drawn)]
    if not math.isfinite(rho) or not drawn.size:
        return {"rho": None, "low": None, "high": None}
    low, high = np.quantile(drawn, [0.025, 0.975]).tolist()
    return {"rho": rho, "low": low, "high": high}


def spearman(a: F64, b: F64) -> float:
    """Spearman's rank correlation, ties at their mean rank; NaN where a column has one value only.

    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 30.0, 20.0]))
    0.5
    """
    x, y = _ranks(a), _ranks(b)
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 0 else float("nan")


def _ranks(values: F64) -> F64:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last: I64 = np.cumsum(count)
    return np.asarray((last - (count - 1) / 2)[place], dtype=np.float64)
