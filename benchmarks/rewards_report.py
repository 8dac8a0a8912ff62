"""The tables of benchmarks/rewards.py, as Markdown: what each reward buys, by difficulty, and asked lengths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from budgeteer.lab.stats import Paired, mean_ci, paired

Row = dict[str, Any]
NONE, START = "none", "start"
"""No length reward, and no training at all."""
SHUFFLED = ", tags shuffled"
"""Behind the name of a reward: it is trained with what other prompts were asked."""
ONLY = ", supervised only"
"""Behind the name of a reward: the policy that its training would begin with."""
BANDS = ("easy", "medium", "hard")


def plain_name(name: str) -> str:
    """The reward of an arm."""
    return name.removesuffix(SHUFFLED).removesuffix(ONLY)


def arms(runs: Sequence[Row], stop: bool) -> dict[str, dict[int, Row]]:
    """Reward -> seed -> what was measured as it is, or in the last of its asks; the start is with and without the
    stop."""
    found: dict[str, dict[int, Row]] = {}
    for run in runs:
        if run["stop"] == stop or run["reward"] == START:
            plain = [ask for ask in run["asks"] if not ask["ask"]]
            found.setdefault(run["reward"], {})[run["seed"]] = (plain or run["asks"])[-1]
    return found


def label(name: str, mine: Mapping[int, Row]) -> str:
    """As in the tables."""
    ask = next(iter(mine.values()))["ask"]
    return f"`{name}`" + (f", asked {ask}" if ask else "")


def e3(ask: Row) -> float:
    """Accuracy in percent, squared, by the tokens of a rollout (arXiv 2505.16122)."""
    return float((100 * ask["accuracy"]) ** 2 / ask["tokens"])


def compared(mine: Mapping[int, Row], other: Mapping[int, Row], value: Callable[[Row], float]) -> Paired | None:
    """Value of mine minus that of the other over the seeds that both have; None where they share none."""
    seeds = sorted(mine.keys() & other.keys())
    if not seeds:
        return None
    return paired([value(mine[s]) for s in seeds], [value(other[s]) for s in seeds])


def interval(p: Paired | None, scale: float = 1.0, sign: bool = True) -> str:
    """A mean with its 95 % interval, which one seed does not have."""
    if p is None:
        return ""
    shown = f"{scale * p.mean:+.1f}" if sign else f"{scale * p.mean:.1f}"
    if not np.isfinite(p.low):
        return shown
    ends = (f"{scale * end:+.1f}" if sign else f"{scale * end:.1f}" for end in (p.low, p.high))
    return f"{shown} [{', '.join(ends)}]"


def best(found: Mapping[str, Mapping[int, Row]]) -> set[str]:
    """The arms that no other one beats in accuracy and tokens, by their means, of those with the most seeds."""
    seeds = max(map(len, found.values()), default=0)
    means = {
        name: (np.mean([a["accuracy"] for a in of.values()]), np.mean([a["tokens"] for a in of.values()]))
        for name, of in found.items()
        if len(of) == seeds
    }
    return {
        name
        for name, (right, tokens) in means.items()
        if not any(r >= right and t <= tokens and (r, t) != (right, tokens) for r, t in means.values())
    }


def main_table(runs: Sequence[Row], stop: bool, answered: bool = True) -> list[str]:
    """Accuracy and tokens of every reward, most efficient first; ``*`` marks the frontier.

    Args:
        runs: all of them.
        stop: those with a stop at the answer in training.
        answered: with columns of the tokens to the answer.
    """
    found = arms(runs, stop)
    none, front = found.get(NONE, {}), best(found)
    heads = ["accuracy", "minus `none`", "tokens", "share", "to the answer", "share", "E3", "minus `none`"]
    shown = [i for i in range(len(heads)) if answered or i not in (4, 5)]
    lines = [f"| reward | seeds | {' | '.join(heads[i] for i in shown)} |", "|---" * (2 + len(shown)) + "|"]

    def mean(values: Sequence[float], scale: float = 1.0) -> str:
        return interval(mean_ci(values), scale, sign=False)

    def share(mine: Mapping[int, Row], key: str) -> str:
        """Of what no length reward takes, by the geometric mean over the seeds."""
        logs = compared(mine, none, lambda ask: float(np.log(ask[key])))
        return "" if logs is None else f"{100 * np.exp(logs.mean):.0f} %"

    for name in sorted(found, key=lambda n: (n != START, n != NONE, -np.mean([e3(a) for a in found[n].values()]))):
        mine = found[name]
        tokens, until = ([ask[key] for ask in mine.values()] for key in ("tokens", "to answer"))
        against = [
            interval(compared(mine, none, lambda ask: ask["accuracy"]), 100), share(mine, "tokens"),
            share(mine, "to answer"), interval(compared(mine, none, e3)),
        ] if name != NONE else [""] * 4  # fmt: skip
        own = [mean([ask["accuracy"] for ask in mine.values()], 100), mean(tokens), mean(until), mean([*map(e3, mine.values())])]  # fmt: skip  # noqa: E501
        every = [cell for pair in zip(own, against, strict=True) for cell in pair]
        cells = [every[i] for i in shown]
        lines.append(f"| {label(name, mine)}{' *' if name in front else ''} | {len(mine)} | {' | '.join(cells)} |")
    return [*lines, ""]


def banded(runs: Sequence[Row]) -> dict[str, int]:
    """Kind of problem -> 0 easy, 1 medium, 2 hard: by the start's accuracy of it, from 2/3 and from 1/3 on."""
    start = [ask for run in runs if run["reward"] == START for ask in run["asks"]]
    kinds = {kind for ask in start for kind in ask["levels"]}
    rate = {kind: np.mean([ask["levels"][kind][0] for ask in start if kind in ask["levels"]]) for kind in kinds}
    return {kind: 0 if r >= 2 / 3 else 1 if r >= 1 / 3 else 2 for kind, r in rate.items()}


def by_difficulty(runs: Sequence[Row], stop: bool) -> list[str]:
    """Accuracy and tokens on easy, medium and hard kinds of problems, every kind counts the same."""
    band, found = banded(runs), arms(runs, stop)
    lines = ["| reward | " + " | ".join(f"{name}: accuracy | tokens" for name in BANDS) + " |", "|---" * 7 + "|"]
    for name, mine in found.items():
        cells = []
        for number in range(3):
            of = [v for ask in mine.values() for kind, v in ask["levels"].items() if band.get(kind) == number]
            cells += (
                [f"{100 * np.mean([v[0] for v in of]):.0f}", f"{np.mean([v[1] for v in of]):.0f}"] if of else ["", ""]
            )
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return [*lines, ""]


def effort_table(runs: Sequence[Row], wanted: Mapping[str, Sequence[tuple[str, float | None]]]) -> list[str]:
    """Asked against measured.

    Args:
        runs: of part effort.
        wanted: reward -> (ask, what it asks for: tokens from 2 on, shares of the thinking at the last ask below).
    """
    lines = [
        "| reward | seeds | asked | measured | mean absolute error | if tags were drawn | in order |",
        "|---" * 7 + "|",
    ]
    for name in dict.fromkeys(run["reward"] for run in runs):
        asks = wanted.get(plain_name(name))
        mine = [run for run in runs if run["reward"] == name]
        if not asks:
            continue
        said, numbers = [ask for ask, _ in asks], [number for _, number in asks]
        of = np.array([[_measured(run, ask, numbers) for ask in said] for run in mine], np.float64)
        own, other = _errors(mine, said, numbers, of)
        ordered = sum(bool((np.diff(row) > 0).all()) for row in of)
        shown = ", ".join(f"{v:.2f}" if v < 2 else f"{v:.1f}" for v in of.mean(axis=0))
        errors = [f"{own:.2f}", f"{other:.2f}"] if np.isfinite(own) else ["", ""]
        lines.append(f"| `{name}` | {len(mine)} | {', '.join(said)} | {shown} | {' | '.join(errors)} | {ordered} of {len(mine)} |")  # fmt: skip  # noqa: E501
    return [*lines, ""]


def _shares(numbers: Sequence[float | None]) -> bool:
    return all(number is not None and number <= 1 for number in numbers)


def _measured(run: Row, ask: str, numbers: Sequence[float | None]) -> float:
    """Tokens at an ask, or the thinking as a share of that at the last ask."""
    by = {each["ask"]: each for each in run["asks"]}
    if _shares(numbers):
        return float(by[ask]["thinking"] / run["asks"][-1]["thinking"])
    return float(by[ask]["tokens"])


def _errors(runs: Sequence[Row], said: Sequence[str], numbers: Sequence[float | None], of: Any) -> tuple[float, float]:
    """Mean absolute error at what was said, and at the other things that might have been said; NaN without numbers.

    With tokens, of every rollout; with shares, of the means.
    """
    own, other = [], []
    for run, row in zip(runs, of, strict=True):
        by = {each["ask"]: each for each in run["asks"]}
        for i, ask in enumerate(said):
            for j, number in enumerate(numbers):
                if number is not None:
                    error = abs(row[i] - number) if _shares(numbers) else by[ask]["distance"][f"{number:g}"]
                    (own if i == j else other).append(error)
    return (float(np.mean(own)), float(np.mean(other))) if own else (float("nan"), float("nan"))
