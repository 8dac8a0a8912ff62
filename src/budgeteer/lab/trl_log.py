"""The log of a run of TRL's trainers, or of ``budgeteer train``, as a table and a page: what each token brought.

Read are a run folder of TRL (its last checkpoint), a ``trainer_state.json``, and a ``metrics.jsonl``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from budgeteer.core.errors import InvalidInput
from budgeteer.draw import svg
from budgeteer.draw.svg import Curve, clean, html_table
from budgeteer.draw.text import ruled

STATE = "trainer_state.json"
METRICS = "metrics.jsonl"
SHOWN = {
    "reward": "mean reward",
    "eval_reward": "mean reward, evaluation",
    "frac_reward_zero_std": "groups without spread",
    "completions/mean_length": "tokens a completion",
    "completions/clipped_ratio": "completions cut short",
    "entropy": "entropy a token",
    "kl": "KL to the start",
    "loss": "loss",
    "grad_norm": "norm of the gradient",
    "verifier_failures": "failures of the verifier",
}
"""Metric of TRL -> what it is called here."""
TOKENS = {
    "num_tokens": "tokens, prompts included",
    "budget/used": "sampled tokens",
    "budget/trained": "in rows that were trained on",
    "budget/wasted": "wasted",
    "budget/left": "left of the budget",
}
"""Metrics that count from the start of the run."""

Rows = list[dict[str, Any]]


def is_log(path: Path) -> bool:
    """Whether a path is that of such a log, and not of a comparison's results."""
    return path.name in (STATE, METRICS) or path.is_dir()


def read(path: Path) -> Rows:
    """The steps of a run, in order.

    Args:
        path: a run folder, or one of its files.

    Raises:
        InvalidInput: there is no log, or it is none.
    """
    file = _file(path)
    try:
        text = file.read_text(encoding="utf-8")
        if file.name == METRICS:
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            rows = json.loads(text)["log_history"]
        rows = [row for row in rows if isinstance(row.get("step"), int)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(f"cannot read {file} as the log of a training run ({error!r})") from error
    if not any("loss" in row or "reward" in row for row in rows):
        raise InvalidInput(f"{file} has no step with a loss or a reward; was it trained for at least one step?")
    return rows


def table(rows: Rows) -> str:
    """A line a metric: its mean over the first and the last tenth of the steps, and what was counted, at the end."""
    return ruled([["metric", "first tenth", "last tenth"], *_means(rows)]) + "\n\n" + "\n".join(_counted(rows))


def render(rows: Rows, name: str) -> str:
    """The page, which stands alone.

    Args:
        rows: of :func:`read`.
        name: of the run.
    """
    style = resources.files("budgeteer.lab").joinpath("report.css").read_text(encoding="utf-8")
    body = html_table(["metric", "first tenth", "last tenth"], [(clean(name), cells) for name, *cells in _means(rows)])
    counted = "".join(f"<li>{clean(line)}</li>" for line in _counted(rows))
    charts = "".join(f'<figure class="card">{chart}</figure>' for chart in _charts(rows))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{clean(name)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        f'<h1>{clean(name)}</h1>\n<p class="note">Means over the first and the last tenth of the steps. The rewards '
        "are those of training, on the prompts that the recipe chose: what was learnt, held-out problems say.</p>\n"
        f"{body}\n<ul>{counted}</ul>\n{charts}\n</main>\n</body>\n</html>\n"
    )


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    states = [*path.glob(STATE), *path.glob(f"checkpoint-*/{STATE}"), *path.glob(f"checkpoints/checkpoint-*/{STATE}")]
    if states:
        return max(states, key=lambda state: (_number(state.parent), state.parent == path))
    if (path / METRICS).exists():
        return path / METRICS
    raise InvalidInput(f"{path} has neither {STATE}, a checkpoint with one, nor {METRICS}; give the folder of a run")


def _number(folder: Path) -> int:
    number = folder.name.rpartition("-")[2]
    return int(number) if number.isdigit() else 0


def _column(rows: Rows, name: str) -> list[tuple[int, float]]:
    found = [(row["step"], row[name]) for row in rows if isinstance(row.get(name), int | float)]
    return [(step, float(value)) for step, value in found if math.isfinite(value)]


def _means(rows: Rows) -> list[list[str]]:
    rewards = sorted({key for row in rows for key in row if key.startswith("rewards/") and key.endswith("/mean")})
    said = []
    for name, meaning in {**SHOWN, **{key: key for key in rewards}}.items():
        values = [value for _, value in _column(rows, name)]
        if values:
            part = max(len(values) // 10, 1)
            first, last = sum(values[:part]) / part, sum(values[-part:]) / part
            said.append([meaning, f"{first:.4g}", f"{last:.4g}"])
    return said


def _counted(rows: Rows) -> list[str]:
    steps = max(row["step"] for row in rows)
    ends = {meaning: _column(rows, name) for name, meaning in TOKENS.items()}
    return [f"{steps:,} steps", *(f"{values[-1][1]:,.0f} {meaning}" for meaning, values in ends.items() if values)]


def _charts(rows: Rows) -> list[str]:
    """Reward by tokens, where tokens were counted, and reward and length by step."""
    name = "budget/used" if _column(rows, "budget/used") else "num_tokens"
    tokens = dict(_column(rows, name))
    reward, length = _column(rows, "reward"), _column(rows, "completions/mean_length")
    by_tokens = [(tokens[step], value) for step, value in reward if step in tokens]
    drawn: list[tuple[Sequence[tuple[float, float]], str, str, str]] = [
        (by_tokens, "Reward by tokens", TOKENS[name], "mean reward"),
        (reward, "Reward by step", "step", "mean reward"),
        (length, "Length by step", "step", "tokens a completion"),
    ]
    return [
        svg.stand_alone(
            svg.xy_chart(
                [Curve("", [a for a, _ in points], [b for _, b in points])], title=title, x_label=x, y_label=y
            ),
            height=340,
        )
        for points, title, x, y in drawn
        if points
    ]
