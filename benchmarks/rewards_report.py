"""The tables of benchmarks/rewards.py, as Markdown: what each reward buys, by difficulty, and asked lengths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from budgeteer.lab.bench.overflow import spearman
from budgeteer.lab.stats import Paired, mean_ci, paired

Row = dict[str, Any]
NONE, START = "none", "start"
"""No length reward, and no training at all."""
SHUFFLED = ", tags shuffled"
"""Behind the name of a reward: it is trained with what other prompts were asked."""
ONLY = ", supervised only"
"""Behind the name of a reward: the policy that its training would begin with."""
WHOLE = ", whole recipe"
"""Behind the name of a recipe: all of it, not only its reward."""
GREEDY = ", greedy"
"""Behind the name of an arm: its held-out problems are decoded greedily, not drawn at temperature 1."""
ASKED_LESS = (f"{START}, low effort", f"{START}, usual effort", START)
"""The untrained model at its efforts: what takes fewer tokens without training."""
THINKER_MARKS = "<!-- written by benchmarks/rewards_thinker.py -->\n", "<!-- end of rewards_thinker -->"
"""Between which the page has the tables of benchmarks/rewards_thinker.py."""
DIALS_MARKS = "<!-- written by benchmarks/dials_thinker.py -->\n", "<!-- end of dials_thinker -->"
"""Between which the page has the table of benchmarks/dials_thinker.py."""
TRAAC_MARKS = "<!-- written by benchmarks/traac.py -->\n", "<!-- end of traac -->"
"""Between which the page has the tables of benchmarks/traac.py."""
BANDS = ("easy", "medium", "hard")


def plain_name(name: str) -> str:
    """The reward of an arm."""
    return name.removesuffix(SHUFFLED).removesuffix(ONLY).removesuffix(WHOLE)


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


def compared(
    mine: Mapping[int, Row], other: Mapping[int, Row], value: Callable[[Row], float], level: float = 0.95
) -> Paired | None:
    """Value of mine minus that of the other over the seeds that both have; None where they share none."""
    seeds = sorted(mine.keys() & other.keys())
    if not seeds:
        return None
    return paired([value(mine[s]) for s in seeds], [value(other[s]) for s in seeds], level=level)


def interval(p: Paired | None, scale: float = 1.0, sign: bool = True) -> str:
    """A mean with its 95 % interval, which one seed does not have."""
    if p is None:
        return ""
    shown = f"{scale * p.mean:+.1f}" if sign else f"{scale * p.mean:.1f}"
    if not np.isfinite(p.low):
        return shown
    ends = (f"{scale * end:+.1f}" if sign else f"{scale * end:.1f}" for end in (p.low, p.high))
    return f"{shown} [{', '.join(ends)}]"


def above_asking(name: str, found: Mapping[str, Mapping[int, Row]], level: float = 0.95) -> Paired | None:
    """Accuracy of an arm above a mix of the untrained model's efforts that takes as many tokens, paired by seed.

    The mix is the line through no answer at no tokens and the efforts of the same seed; beyond the longest it stays as
    right as that. None for these efforts themselves, and where no seed has all of them.
    """
    efforts = [found.get(effort, {}) for effort in ASKED_LESS]
    seeds = [seed for seed in found[name] if all(seed in effort for effort in efforts)]
    if name in ASKED_LESS or not seeds:
        return None
    mixed = []
    for seed in seeds:
        line = sorted([(0.0, 0.0), *((effort[seed]["tokens"], effort[seed]["accuracy"]) for effort in efforts)])
        mixed.append(float(np.interp(found[name][seed]["tokens"], *zip(*line, strict=True))))
    return paired([found[name][seed]["accuracy"] for seed in seeds], mixed, level=level)


def at_once(names: Sequence[str], of: Callable[[str, float], Paired | None], what: str) -> str:
    """Which arms leave 0 in which direction if the intervals of all shall hold at once (Bonferroni), as a sentence.

    Args:
        names: arms; of these, those with the most seeds are counted, if they have two or more.
        of: an arm and a level -> its difference.
        what: what the difference is to.
    """
    seeds = {name: p.n for name in names if (p := of(name, 0.95)) is not None}
    most = max(seeds.values(), default=0)
    made = [name for name, n in seeds.items() if n == most]
    if most < 2:
        return ""
    wide = {name: p for name in made if (p := of(name, 1 - 0.05 / len(made))) is not None}
    above = ", ".join(f"`{name}`" for name, p in wide.items() if p.low > 0)
    below = ", ".join(f"`{name}`" for name, p in wide.items() if p.high < 0)
    return (
        f"With intervals for all {len(made)} arms of {most} seeds at once (Bonferroni), above {what}: "
        f"{above or 'nothing'}; below: {below or 'nothing'}."
    )


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


def main_table(runs: Sequence[Row], stop: bool, answered: bool = True, base: str = NONE) -> list[str]:
    """Accuracy and tokens of every reward, most efficient first; ``*`` marks the frontier. Where the untrained model
    was asked for less, accuracy above a mix of these efforts at the same tokens.

    Args:
        runs: all of them.
        stop: those with a stop at the answer in training.
        answered: with columns of the tokens to the answer.
        base: the arm that differences and shares are of.
    """
    found = arms(runs, stop)
    none, front = found.get(base, {}), best(found)
    minus = f"minus `{base}`"
    heads = ["accuracy", minus, "tokens", "share", "to the answer", "share", "E3", minus]
    shown = [i for i in range(len(heads)) if answered or i not in (4, 5)]
    less = ["above asking for less"] if all(effort in found for effort in ASKED_LESS) else []
    shown_heads = [*(heads[i] for i in shown), *less]
    lines = [f"| reward | seeds | {' | '.join(shown_heads)} |", "|---" * (2 + len(shown_heads)) + "|"]

    def mean(values: Sequence[float], scale: float = 1.0) -> str:
        return interval(mean_ci(values), scale, sign=False)

    def share(mine: Mapping[int, Row], key: str) -> str:
        """Of what the base takes, by the geometric mean over the seeds."""
        logs = compared(mine, none, lambda ask: float(np.log(ask[key])))
        return "" if logs is None else f"{100 * np.exp(logs.mean):.0f} %"

    for name in sorted(found, key=lambda n: (n != START, n != base, -e3_of(found[n]))):
        mine = found[name]
        tokens, until = ([ask[key] for ask in mine.values()] for key in ("tokens", "to answer"))
        against = [
            interval(compared(mine, none, lambda ask: ask["accuracy"]), 100), share(mine, "tokens"),
            share(mine, "to answer"), interval(compared(mine, none, e3)),
        ] if name != base else [""] * 4  # fmt: skip
        own = [mean([ask["accuracy"] for ask in mine.values()], 100), mean(tokens), mean(until), mean([*map(e3, mine.values())])]  # fmt: skip  # noqa: E501
        every = [cell for pair in zip(own, against, strict=True) for cell in pair]
        cells = [*(every[i] for i in shown), *(interval(above_asking(name, found), 100) for _ in less)]
        lines.append(f"| {label(name, mine)}{' *' if name in front else ''} | {len(mine)} | {' | '.join(cells)} |")
    return [*lines, ""]


def right_at_once(runs: Sequence[Row], stop: bool, base: str = NONE) -> str:
    """Which arms are shown to be right more or less often than the base, all intervals taken together."""
    found = arms(runs, stop)

    def change(name: str, level: float) -> Paired | None:
        return compared(found[name], found.get(base, {}), lambda ask: ask["accuracy"], level)

    return at_once([name for name in found if name != base], change, f"`{base}` in accuracy")


def alike(runs: Sequence[Row], other: Sequence[Row]) -> dict[str, float]:
    """Rank correlations of the arms that both have: by tokens, by accuracy, by E3; and how many these are."""
    one, two = arms(runs, False), arms(other, False)
    names = [name for name in one if name in two]
    found: dict[str, float] = {"arms": len(names)}
    for key, value in (("tokens", lambda ask: ask["tokens"]), ("accuracy", lambda ask: ask["accuracy"]), ("E3", e3)):
        means = [np.array([np.mean([value(ask) for ask in of[name].values()]) for name in names]) for of in (one, two)]
        found[key] = float(spearman(*means))
    return found


def agreement(runs: Sequence[Row], other: Sequence[Row]) -> str:
    """How alike the arms of two starts are ranked, as a sentence."""
    ranks = alike(runs, other)
    return (
        f"The {ranks['arms']} arms that were also run from an earlier start are ranked alike there by their tokens "
        f"(rank correlation {ranks['tokens']:.2f}) and by E3 ({ranks['E3']:.2f}), less so by their accuracy "
        f"({ranks['accuracy']:.2f})."
    )


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
        asks = wanted.get(name) or wanted.get(plain_name(name))
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


def picture(runs: Sequence[Row], title: str, least: float = 0.5) -> str:
    """An SVG of accuracy against mean tokens with 95 % intervals over seeds, the frontier as a line.

    Args:
        runs: of part main; those without a stop are drawn.
        title: for the drawing's tooltip.
        least: accuracy below which an arm is left out.
    """
    found = {
        name: of for name, of in arms(runs, False).items() if np.mean([a["accuracy"] for a in of.values()]) >= least
    }
    points = {
        name: [mean_ci([ask[key] for ask in of.values()]) for key in ("tokens", "accuracy")]
        for name, of in found.items()
    }
    front = sorted(best(found), key=lambda name: points[name][0].mean)
    first = [*front, NONE, START]
    spans = []
    for axis in (0, 1):
        ends = [end for p in points.values() for end in (p[axis].low, p[axis].high, p[axis].mean) if np.isfinite(end)]
        spans.append((min(ends), max(ends)))

    spans[0] = (spans[0][0] - 0.12 * (spans[0][1] - spans[0][0]), spans[0][1])  # room for names on the left

    def x(value: float) -> float:
        return float(60 + 600 * (value - spans[0][0]) / (spans[0][1] - spans[0][0]))

    def y(value: float) -> float:
        return float(20 + 320 * (spans[1][1] - value) / (spans[1][1] - spans[1][0]))

    out = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 400" role="img" font-family="sans-serif" '
        'font-size="12">',
        f"<title>{title}</title>",
        '<rect width="760" height="400" fill="#ffffff"/>',
    ]
    for k in range(int(np.ceil(spans[1][0] * 20)), int(spans[1][1] * 20) + 1):
        out.append(f'<path d="M60 {y(k / 20):.1f}H660" stroke="#dddddd"/>')
        out.append(f'<text x="52" y="{y(k / 20) + 4:.1f}" text-anchor="end" fill="#555555">{5 * k} %</text>')
    step = 10 ** int(np.log10(spans[0][1] - spans[0][0]))
    out += [
        f'<text x="{x(k * step):.1f}" y="362" text-anchor="middle" fill="#555555">{k * step}</text>'
        for k in range(int(np.ceil(spans[0][0] / step)), int(spans[0][1] / step) + 1)
    ]
    out.append('<text x="360" y="388" text-anchor="middle" fill="#555555">mean tokens of a held-out rollout</text>')
    line = " ".join(f"{x(points[name][0].mean):.1f},{y(points[name][1].mean):.1f}" for name in front)
    out.append(f'<polyline points="{line}" fill="none" stroke="#0072b2" stroke-width="1.5" stroke-dasharray="4 3"/>')
    centres = [(x(of_x.mean), y(of_y.mean)) for of_x, of_y in points.values()]
    taken = [(a - 4, b - 4, a + 4, b + 4) for a, b in centres]  # left, upper, right and lower end of what is there
    for name in sorted(points, key=lambda name: (name not in first, -e3_of(found[name]))):
        of_x, of_y = points[name]
        at, colour = (
            (x(of_x.mean), y(of_y.mean)),
            "#0072b2" if name in front else "#333333" if name in first else "#999999",
        )
        faint = f'stroke="{colour}" stroke-opacity="0.35"'
        if np.isfinite(of_x.low):
            out.append(f'<path d="M{x(of_x.low):.1f} {at[1]:.1f}H{x(of_x.high):.1f}" {faint}/>')
            out.append(f'<path d="M{at[0]:.1f} {y(of_y.low):.1f}V{y(of_y.high):.1f}" {faint}/>')
        said = label(name, found[name]).replace("`", "")
        tip = f"<title>{said}: {100 * of_y.mean:.1f} % at {of_x.mean:.1f} tokens</title>"
        out.append(f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="4" fill="{colour}">{tip}</circle>')
        width = 6.4 * len(said)
        for a, b in ((7, -5), (7, 13), (-7 - width, -5), (-7 - width, 13), (-width / 2, -12), (-width / 2, 20)):
            box = (at[0] + a, at[1] + b - 10, at[0] + a + width, at[1] + b + 2)
            if box[0] > 62 and not any(
                box[0] < c and box[2] > a0 and box[1] < d and box[3] > b0 for a0, b0, c, d in taken
            ):
                taken.append(box)
                out.append(f'<text x="{box[0]:.1f}" y="{at[1] + b:.1f}" fill="#222222">{said}</text>')
                break
    return "\n".join([*out, "</svg>"])


def e3_of(mine: Mapping[int, Row]) -> float:
    """Mean E3 over the seeds."""
    return float(np.mean([e3(ask) for ask in mine.values()]))


def thinker_summary(content: Row) -> str:
    """The tables of benchmarks/rewards_thinker.py, as Markdown."""
    c = content["config"]
    how = (
        f"{c['tokens']:,} tokens of training in at most {c['steps']} generations, {c['heldout']} held-out problems, "
        f"learning rate {c['lr']:g}"
    )
    drawn = [run for run in content["runs"] if not run["reward"].endswith(GREEDY)]
    likeliest = [
        {**run, "reward": run["reward"].removesuffix(GREEDY)}
        for run in content["runs"]
        if run["reward"].endswith(GREEDY)
    ]
    lines = [f"**The thinking model at high effort**: {how}.", "", *compared_arms(drawn)]
    if likeliest:
        lines += ["**Decoded greedily**, the same held-out problems.", "", *compared_arms(likeliest)]
    took: dict[str, list[int]] = {}
    for run in drawn:
        took.setdefault(run["reward"], []).append(run["used"])
    if ranks := content.get("small reasoner"):
        lines += [
            f"Rank correlation with the table of the small reasoner, of the {ranks['arms']} arms that are in both: "
            f"{ranks['tokens']:.2f} by tokens, {ranks['accuracy']:.2f} by accuracy, {ranks['E3']:.2f} by E3.",
            "",
        ]
    said = ", ".join(f"`{name}` {np.mean(used):,.0f}" for name, used in took.items() if any(used))
    lines += [f"Tokens that training sampled, by seed on average: {said}.", ""]
    shares = {"25 %": 0.25, "50 %": 0.5, "100 %": 1.0, "low": 0.25, "medium": 0.5, "high": 1.0}
    dials = [run for run in content["runs"] if len(run["asks"]) > 1]
    asked = {run["reward"]: [(ask["ask"], shares[ask["ask"]]) for ask in run["asks"]] for run in dials}
    if dials:
        lines += ["**Asked and measured**: shares of the thinking at the last ask.", "", *effort_table(dials, asked)]
    return "\n".join([*lines, "**By difficulty.**", "", *by_difficulty(drawn, False)])


def compared_arms(runs: Sequence[Row]) -> list[str]:
    """The table of some arms of the thinking model, and which of them are shown to differ, all taken together."""
    found = arms(runs, False)
    asking = at_once(list(found), lambda name, level: above_asking(name, found, level), "asking for less")
    said = [each for one in (right_at_once(runs, False), asking) if one for each in (one, "")]
    return [*main_table(runs, False, answered=False), *said]


def dials_summary(content: Row) -> str:
    """The table of benchmarks/dials_thinker.py, as Markdown."""
    c, runs = content["config"], content["runs"]
    found: dict[str, list[Row]] = {}
    for run in runs:
        found.setdefault(run["arm"], []).append(run)
    asks = runs[0]["asks"] if runs else []
    heads = [*(f"asked {ask}" for ask in asks), "correlation", "error", "if numbers were drawn", "accuracy"]
    lines = [
        f"**Tokens of thinking that are asked for**: {c['epochs']} epochs, {c['heldout']} held-out problems a seed.",
        "",
        f"| numbers are said | seeds | examples | {' | '.join(heads)} |", "|---" * (3 + len(heads)) + "|",
    ]  # fmt: skip
    for name, mine in found.items():

        def mean(values: Sequence[float], digits: int = 0, scale: float = 1.0) -> str:
            p = mean_ci([scale * value for value in values])
            ends = f" [{p.low:.{digits}f}, {p.high:.{digits}f}]" if np.isfinite(p.low) else ""
            return f"{p.mean:.{digits}f}{ends}"

        cells = [f"{np.mean([run['thinking'][i] for run in mine]):.0f}" for i in range(len(asks))]
        cells += [
            mean([run["correlation"] for run in mine], 2), mean([run["error"] for run in mine]),
            mean([run["error if numbers were drawn"] for run in mine]),
            mean([float(np.mean(run["accuracy"])) for run in mine], 1, 100),
        ]  # fmt: skip
        lines.append(f"| {name} | {len(mine)} | {mine[0]['examples'] or ''} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def traac_summary(content: Row) -> str:
    """The tables of benchmarks/traac.py, as Markdown."""
    found: dict[str, dict[int, Row]] = {}
    for run in content["runs"]:
        found.setdefault(run["arm"], {})[run["seed"]] = run
    first = next(iter(found.values()), {})
    lines = [
        "| arm | seeds | accuracy | minus `reward alone` | easy | medium | hard | tokens | compressed rows a run |",
        "|---" * 9 + "|",
    ]
    for name, mine in found.items():
        against = "" if mine is first else interval(compared(mine, first, lambda run: run["accuracy"]), 100)
        right, tokens = (interval(mean_ci([run[k] for run in mine.values()]), scale, sign=False)
                         for k, scale in (("accuracy", 100), ("tokens", 1)))  # fmt: skip
        rows = np.mean([len(run["compressed"]) for run in mine.values()])
        levels = [
            np.mean([v[0] for run in mine.values() for kind, v in run["levels"].items() if content["bands"][kind] == b])
            for b in range(3)
        ]
        parts = " | ".join(f"{100 * level:.0f}" for level in levels)
        lines.append(f"| {name} | {len(mine)} | {right} | {against} | {parts} | {tokens} | {rows:.0f} |")
    heads = ("rows", "right", "advantage", "that of their trace", "steps left out", "that stand nowhere else")
    lines += ["", f"| compressed rows of prompts | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    rows = [row for run in found.get("compressed", {}).values() for row in run["compressed"]]
    for number, band in enumerate(BANDS):
        if own := [row for row in rows if row["level"] == number]:

            def mean(key: str, own: list[Row] = own) -> float:
                return float(np.mean([row[key] for row in own]))

            lines.append(
                f"| {band} | {len(own)} | {100 * mean('right'):.0f} % | {mean('advantage'):+.2f} | "
                f"{mean('trace advantage'):+.2f} | {100 * mean('out') / mean('steps'):.0f} % | "
                f"{100 * mean('needed') / mean('out'):.0f} % |"
            )
    return "\n".join(lines) + "\n"
