"""A comparison as one HTML file that reads anywhere (no script, nothing fetched), and as a table for the terminal."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.core.plan import ABORTED, CUT, ENDED, FINISHED
from budgeteer.draw import svg
from budgeteer.draw.svg import Line, Part, clean, compact, percent
from budgeteer.draw.text import ruled
from budgeteer.lab.results import GREEDY, Results, Run, by_seed, compare, labels, to_json, validate, write_text
from budgeteer.lab.stats import Paired, mean_ci
from budgeteer.rl.recipes import UNTRAINED

CONTROL = "uniform-answer-stop"
"""The strongest plain baseline, GRPO that ends a rollout at its answer; a column of its own compares with it."""
START = f"{UNTRAINED}@0"
"""The policy that all arms start from. Decoded greedily it is the baseline that needs no training."""
TRACES = 6
"""Sample traces shown an arm."""


@dataclass(frozen=True, slots=True)
class Arm:
    """All seeds of one ``recipe@budget``.

    Attributes:
        name: the label.
        runs: one a seed.
        accuracy: mean and 95 % interval over the seeds with a finite accuracy, or None when there are none.
        greedy: the same of accuracies decoded greedily.
        planned, used, trained, wasted: mean tokens a run.
        seconds: mean wall clock of a run.
    """

    name: str
    runs: tuple[Run, ...]
    accuracy: Paired | None
    greedy: Paired | None
    planned: float
    used: float
    trained: float
    wasted: float
    seconds: float


def arms(results: Results) -> list[Arm]:
    """The arms in order of first appearance."""
    all_arms = []
    for name in labels(results["runs"]):
        runs = tuple(by_seed(results["runs"], name).values())
        drawn, greedy = (_interval(runs, key) for key in ("accuracy", GREEDY))
        tokens = {key: _mean(run["tokens"][key] for run in runs) for key in ("planned", "used", "trained", "wasted")}
        seconds = _mean(run["seconds"] for run in runs)
        all_arms.append(Arm(name, runs, drawn, greedy, **tokens, seconds=seconds))
    return all_arms


def _interval(runs: Iterable[Run], key: str) -> Paired | None:
    """Mean and interval over the runs that have this accuracy."""
    known = [run[key] for run in runs if run.get(key) is not None]
    return mean_ci(known) if known else None


def gains(results: Results) -> dict[str, dict[str, Any]]:
    """Each arm's comparison with the untrained policy, both decoded greedily, over the seeds that both have."""
    runs = [run for run in results["runs"] if run.get(GREEDY) is not None]
    seeds = {name: by_seed(runs, name).keys() for name in labels(runs)}
    start = set(seeds.pop(START, ()))
    pairs = [(name, START) for name, its in seeds.items() if its & start]
    return {c["a"]: c for c in to_json(compare(runs, pairs, metric=GREEDY))}


def reference(results: Results) -> str | None:
    """The arm that most comparisons are made against, or None without comparisons."""
    counts = Counter(c["b"] for c in results.get("comparisons", []))
    return counts.most_common(1)[0][0] if counts else None


def _same_tokens(results: Results) -> dict[str, dict[str, Any]]:
    """Each arm's comparison with GRPO that stops at its answer, at the arm's own budget."""
    return {c["a"]: c for c in results["comparisons"] if c["b"] == f"{CONTROL}@{c['a'].partition('@')[2]}"}


def table(results: Results) -> str:
    """The final table as plain text, one line an arm, for a terminal."""
    results = _plain(results)
    base, stop, all_arms, greedy = reference(results), _same_tokens(results), arms(results), gains(results)
    versus = {c["a"]: c for c in results["comparisons"] if c["b"] == base}
    decoded = any(arm.greedy for arm in all_arms)
    head = ["arm", "seeds", "accuracy", *["greedy"] * decoded, "used", "trained", "wasted", "seconds"]
    head += [f"minus {base}"] if base else []
    head += [f"minus {CONTROL}"] if stop else []
    rows = [[*head, f"greedy minus {START}"] if greedy else head]
    for arm in all_arms:
        shares = [percent(part / arm.used) if arm.used else "-" for part in (arm.trained, arm.wasted)]
        right = [_accuracy(arm.accuracy), *[_accuracy(arm.greedy)] * decoded]
        row = [arm.name, str(len(arm.runs)), *right, compact(arm.used), *shares, _seconds(arm.seconds)]
        if base:
            row.append(
                "reference" if arm.name == base else _difference(versus[arm.name]) if arm.name in versus else "-"
            )
        if stop:
            row.append(_difference(stop[arm.name]) if arm.name in stop else "-")
        if greedy:
            row.append(_difference(greedy[arm.name]) if arm.name in greedy else "-")
        rows.append(row)
    return ruled(rows)


def write_report(results: Results, path: Path | str) -> Path:
    """Write :func:`render`'s page atomically.

    Raises:
        InvalidInput: the results do not fit the schema, or the folder cannot be written.
    """
    return write_text(render(results), path)


def render(results: Results) -> str:
    """The report as one standalone HTML document; optional parts that were not recorded are left out.

    Args:
        results: as in docs/results.md.

    Raises:
        InvalidInput: the results do not fit the schema.
    """
    results = _plain(results)
    all_arms = arms(results)
    style = resources.files("budgeteer.lab").joinpath("report.css").read_text(encoding="utf-8")
    sections = (
        _headline(results, all_arms),
        _final(results, all_arms),
        _curves(all_arms),
        _where(all_arms),
        _levels(all_arms),
        _clock(all_arms),
        _rollouts(all_arms),
        _traces(all_arms),
        _measured(results),
    )
    # The hatch marks waste by texture as well as by colour; every bar refers to this one definition.
    hatch = (
        '<svg width="0" height="0" aria-hidden="true" style="position:absolute"><defs><pattern id="hatch" width="6" '
        'height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="6" height="6" '
        'style="fill:var(--wasted)"/><line x1="0" x2="0" y1="0" y2="6" style="stroke:var(--card);stroke-width:2"/>'
        "</pattern></defs></svg>"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>budgeteer report</title>\n'
        f"<style>\n{style}</style>\n</head>\n<body>\n{hatch}\n<main>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main>\n</body>\n</html>\n"
    )


def _headline(results: Results, all_arms: list[Arm]) -> str:
    """What the comparisons show, all of them, so that no arm is picked for looking good."""
    counts = sorted({len(arm.runs) for arm in all_arms})
    seeds = " to ".join(map(str, counts[:1] + counts[1:][-1:])) or "0"
    lead = f"{len(all_arms)} {_plural('arm', len(all_arms))}, {seeds} {_plural('seed', max(counts, default=0))} each."
    lead += " The tokens of every sampled rollout are counted, aborted ones included."
    return (
        "<header>\n<h1>budgeteer: recipes at token budgets</h1>\n"
        f'<p class="headline">{_sentence(results)}</p>\n<p class="lead">{clean(lead)}</p>\n</header>'
    )


def _sentence(results: Results) -> str:
    """The headline as HTML: the arms grouped by what their interval against the reference says."""
    base = reference(results)
    if base is None:
        return "Measured, but not compared: the file holds no comparison between arms"
    groups: dict[str, list[str]] = {}
    for c in results["comparisons"]:
        if c["b"] == base:
            groups.setdefault(_verdict(c), []).append(f"<b>{clean(c['a'])}</b>")
    phrases = {
        "better": "more accurate than",
        "unclear": "not told apart from",
        "worse": "less accurate than",
        "single": "measured on one seed, which shows nothing, against",
    }
    clauses, against = [], f"<b>{clean(base)}</b>"
    for kind, phrase in phrases.items():
        if kind in groups:
            clauses.append(f"{_and(groups[kind])} {'is' if len(groups[kind]) == 1 else 'are'} {phrase} {against}")
            against = "it"
    return "; ".join(clauses)


def _final(results: Results, all_arms: list[Arm]) -> str:
    base, stop, greedy = reference(results), _same_tokens(results), gains(results)
    versus = {c["a"]: c for c in results["comparisons"] if c["b"] == base}
    decoded = any(arm.greedy for arm in all_arms)
    head = ["Arm", "Seeds", "Accuracy", *["Greedy"] * decoded, "Tokens used", "Trained", "Wasted", "Seconds"]
    head += [f"Accuracy minus {base}"] if base else []
    head += [f"Minus {CONTROL}, same tokens"] if stop else []
    head += [f"Greedy minus {START}"] if greedy else []
    rows = []
    for arm in all_arms:
        planned = f"planned {compact(arm.planned)}" if math.isfinite(arm.planned) else ""
        cells = [
            str(len(arm.runs)),
            clean(_accuracy(arm.accuracy)),
            *[clean(_accuracy(arm.greedy))] * decoded,
            f'{compact(arm.used)} <span class="sub">{planned}</span>',
            *(_share(part, arm.used) for part in (arm.trained, arm.wasted)),
            _seconds(arm.seconds),
        ]
        if base and arm.name == base:
            cells.append('<span class="sub">reference</span>')
        elif base:
            cells.append(clean(_difference(versus[arm.name])) if arm.name in versus else "-")
        if stop:
            cells.append(clean(_difference(stop[arm.name])) if arm.name in stop else "-")
        if greedy:
            cells.append(clean(_difference(greedy[arm.name])) if arm.name in greedy else "-")
        rows.append((clean(arm.name), cells))
    said = (
        " Accuracy is as rollouts are drawn in training, at temperature 1; greedy takes the likeliest token each time, "
        "which needs no training."
        if decoded
        else ""
    )
    return (
        '<section>\n<h2>Final accuracy and what it cost</h2>\n<p class="note">Means over seeds; ± is half of the '
        f"95 % t interval. Tokens and seconds are means a run.{said}</p>\n"
        f'<div class="card">{svg.html_table(head, rows)}</div>\n'
        f"{_intervals(results)}</section>"
    )


def _intervals(results: Results) -> str:
    """Every comparison with its interval on a common scale."""
    comparisons = results["comparisons"]
    if not comparisons:
        return ""
    ends = [abs(c[key]) for c in comparisons for key in ("mean", "low", "high") if c[key] is not None]
    reach = 1.1 * max(ends, default=0.0) or 0.01
    words = {"better": "more accurate", "worse": "less accurate", "unclear": "not told apart", "single": "no interval"}
    rows = []
    for c in comparisons:
        verdict = _verdict(c)
        css = "unclear" if verdict == "single" else verdict
        label = f"{c['a']} minus {c['b']}: {_difference(c)} points"
        bar = svg.interval_bar(c["mean"] or 0.0, c["low"], c["high"], reach=reach, css=css, label=label)
        rows.append(
            f'<div class="name">{clean(c["a"])} <span class="sub">minus {clean(c["b"])}</span></div>'
            f'<div class="{css}">{bar}</div><div class="text">{clean(_difference(c))} '
            f'<span class="tag {css}">{words[verdict]}</span></div>'
        )
    first = comparisons[0]
    level = percent(first["level"] or 0.95)
    return (
        f'<h2>Paired differences in accuracy</h2>\n<p class="note">Percentage points with {level} t intervals over '
        f"seeds; scale ±{100 * reach:.2g} points, dashed line at zero. “Not told apart” means that the interval holds "
        "zero, not that the arms are equal. Intervals are not corrected for their number.</p>\n"
        f'<div class="card rows">{"".join(rows)}</div>'
    )


def _curves(all_arms: list[Arm]) -> str:
    by_tokens, by_seconds = _lines(all_arms, "tokens"), _lines(all_arms, "seconds")
    if not by_tokens and not by_seconds:
        return ""
    legend = "".join(f"<li>{svg.swatch(i)}{clean(arm.name)}</li>" for i, arm in enumerate(all_arms))
    tokens = svg.line_chart(
        by_tokens, title="Accuracy against tokens sampled", x_label="tokens sampled", x_text=compact
    )
    clock = svg.line_chart(by_seconds, title="Accuracy against wall clock", x_label="seconds", x_text=compact)
    return (
        "<section>\n<h2>Accuracy on the way</h2>\n"
        '<p class="note">Lines are means over seeds, bands reach from the lowest to the highest seed. Seeds are '
        f'interpolated on a common grid, as far as all of them went.</p>\n<ul class="legend">{legend}</ul>\n'
        f'<div class="pair"><figure class="card"><figcaption>Accuracy by tokens sampled</figcaption>{tokens}</figure>'
        f'<figure class="card"><figcaption>Accuracy by wall clock</figcaption>{clock}</figure></div>\n</section>'
    )


def _lines(all_arms: list[Arm], key: str, points: int = 60) -> list[Line]:
    """A line an arm: mean and range over seeds on ``points`` common x between the latest start and the earliest end."""
    lines = []
    for style, arm in enumerate(all_arms):
        curves = []
        for run in arm.runs:
            kept = [(p[key], p["accuracy"]) for p in run["curve"] if p[key] is not None and p["accuracy"] is not None]
            if kept:
                curves.append(np.array(sorted(kept), dtype=np.float64).T)
        if not curves:
            continue
        start, end = max(c[0, 0] for c in curves), min(c[0, -1] for c in curves)
        if end < start:
            continue
        grid = np.linspace(start, end, points) if end > start else np.array([start])
        values = np.stack([np.interp(grid, *curve) for curve in curves])
        mean, low, high = values.mean(axis=0), values.min(axis=0), values.max(axis=0)
        lines.append(Line(arm.name, style, grid.tolist(), mean.tolist(), low.tolist(), high.tolist()))
    return lines


def _where(all_arms: list[Arm]) -> str:
    whole = max((arm.used for arm in all_arms), default=0.0)
    if not whole:
        return ""
    rows = []
    for arm in all_arms:
        parts = (
            ("trained", arm.trained, "trained"),
            ("idle", max(0.0, arm.used - arm.trained - arm.wasted), "not trained"),
            ("wasted", arm.wasted, "wasted"),
        )
        shares = [f"{percent(value / arm.used)} {word}" for _, value, word in parts] if arm.used else ["nothing used"]
        text = f"{compact(arm.used)}: {', '.join(shares)}"
        titled = [Part(css, value, f"{arm.name}: {compact(value)} tokens {word}") for css, value, word in parts]
        rows.append(_row(arm.name, svg.stacked_bar(titled, whole=whole, label=f"{arm.name}, {text}"), text))
    keys = (
        ("trained", "trained: carried a gradient"),
        ("idle", "completed, not trained"),
        ("wasted", "wasted: cut short, not trained"),
    )
    return (
        '<section>\n<h2>Where the tokens went</h2>\n<p class="note">Sampled tokens a run, mean over seeds. Completed '
        "tokens go untrained when all rollouts of a prompt earn the same, so that nothing is learnt from them. Rows "
        "that were aborted count as trained where the recipe learns from them as failures.</p>\n"
        f'{_keys(keys)}\n<div class="card rows">{"".join(rows)}</div>\n</section>'
    )


def _levels(all_arms: list[Arm]) -> str:
    """Tokens by difficulty level, one card an arm, all on one scale."""
    cards: list[tuple[str, dict[str, dict[str, float]]]] = []
    for arm in all_arms:
        each = [d["tokens_by_level"] for d in _diagnostics(arm) if d.get("tokens_by_level")]
        names = sorted({level for levels in each for level in levels}, key=_natural)
        empty = {"used": 0, "wasted": 0, "rollouts": 0}
        if each:
            cards.append(
                (
                    arm.name,
                    {n: {key: _mean(levels.get(n, empty)[key] for levels in each) for key in empty} for n in names},
                )
            )
    whole = max((level["used"] for _, levels in cards for level in levels.values()), default=0.0)
    if not whole:
        return ""
    drawn = []
    for name, levels in cards:
        rows = []
        for level, value in levels.items():
            used, rollouts, wasted = (compact(value[key]) for key in ("used", "rollouts", "wasted"))
            text = f"{used} tokens, {rollouts} rollouts, {wasted} wasted"
            parts = [
                Part("done", value["used"] - value["wasted"], f"{name}, level {level}: {text}"),
                Part("wasted", value["wasted"], f"{name}, level {level}: {wasted} tokens wasted"),
            ]
            bar = svg.stacked_bar(parts, whole=whole, label=f"level {level}: {text}")
            rows.append(_row(level, bar, used))
        drawn.append(f'<div class="card"><h3>{clean(name)}</h3><div class="rows levels">{"".join(rows)}</div></div>')
    keys = (("done", "trained or completed"), ("wasted", "wasted: cut short, not trained"))
    return (
        '<section>\n<h2>Tokens by difficulty level</h2>\n<p class="note">Sampled tokens a run at each level of the '
        f"task, mean over seeds, all arms on one scale.</p>\n{_keys(keys)}\n"
        f'<div class="many">{"".join(drawn)}</div>\n</section>'
    )


def _clock(all_arms: list[Arm]) -> str:
    """Wall clock by phase; what no phase claims is drawn as the rest."""
    phases = (("sampling", "done"), ("training", "trained"), ("allocation", "mark s4"), ("stopping", "mark s3"))
    rows, whole = [], max((arm.seconds for arm in all_arms if math.isfinite(arm.seconds)), default=0.0)
    for arm in all_arms:
        known = _diagnostics(arm)
        spent = {name: _mean(d.get(f"{name}_seconds") for d in known) for name, _ in phases}
        spent = {name: value for name, value in spent.items() if math.isfinite(value)}
        if spent and whole:
            parts = [
                Part(css, spent[name], f"{name}: {_seconds(spent[name])} s") for name, css in phases if name in spent
            ]
            rest = max(0.0, arm.seconds - sum(spent.values()))
            parts.append(Part("idle", rest, f"everything else: {_seconds(rest)} s"))
            text = f"{_seconds(arm.seconds)} s: " + ", ".join(f"{name} {_seconds(v)}" for name, v in spent.items())
            rows.append(_row(arm.name, svg.stacked_bar(parts, whole=whole, label=f"{arm.name}, {text}"), text))
    if not rows:
        return ""
    keys = (*((css, name) for name, css in phases), ("idle", "everything else"))
    return (
        '<section>\n<h2>Where the time went</h2>\n<p class="note">Seconds a run, mean over seeds.</p>\n'
        f'{_keys(keys)}\n<div class="card rows">{"".join(rows)}</div>\n</section>'
    )


def _rollouts(all_arms: list[Arm], columns: int = 40) -> str:
    """Share of prompts that got n rollouts, by step, seeds pooled, one heat map an arm."""
    histories = {
        arm.name: [d["rollouts_per_prompt"] for d in _diagnostics(arm) if d.get("rollouts_per_prompt")]
        for arm in all_arms
    }
    entries = [entry for history in histories.values() for steps in history for entry in steps]
    if not entries:
        return ""
    bins = _rollout_bins({int(n) for entry in entries for n in entry["counts"]})
    drawn = []
    for name, history in histories.items():
        steps = [entry["step"] for run in history for entry in run]
        if not steps:
            continue
        first, last = min(steps), max(steps)
        size = max(1, math.ceil((last - first + 1) / columns))
        starts = list(range(first, last + 1, size))
        counts = np.zeros((len(bins), len(starts)))
        for run in history:
            for entry in run:
                for n, prompts in entry["counts"].items():
                    row = next(i for i, (low, high) in enumerate(bins) if low <= int(n) <= high)
                    counts[row, (entry["step"] - first) // size] += prompts
        total = counts.sum(axis=0)
        shares = np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0)
        heat = svg.heat_map(
            shares.tolist(),
            columns=[str(s) if size == 1 else f"{s}-{min(last, s + size - 1)}" for s in starts],
            rows=[str(low) if low == high else f"{low}-{high}" for low, high in bins],
            title=f"{name}: rollouts a prompt got, by training step",
            labels=("training step", "rollouts"),
        )
        drawn.append(f'<figure class="card"><h3>{clean(name)}</h3>{heat}</figure>')
    cells = "".join(f'<span class="cell" style="opacity:{math.sqrt(s):.2f}"></span>' for s in (0.02, 0.1, 0.25, 0.5, 1))
    return (
        '<section>\n<h2>Rollouts a prompt got, over time</h2>\n<p class="note">The stronger a cell, the larger the '
        "share of the prompts of a step that got so many rollouts; hover for the number.</p>\n"
        f'<p class="scale">2% {cells} 100% of prompts</p>\n<div class="pair">{"".join(drawn)}</div>\n</section>'
    )


def _rollout_bins(values: set[int]) -> list[tuple[int, int]]:
    """Rows of the heat map: each count its own row, or doubling ranges when there are more than 12 counts."""
    if len(values) <= 12:
        return [(n, n) for n in sorted(values)]
    bins, high = [(0, 0), (1, 1)], 1
    while high < max(values):
        bins.append((high + 1, 2 * high))
        high *= 2
    return bins


def _traces(all_arms: list[Arm]) -> str:
    blocks = []
    for arm in all_arms:
        every = [trace for d in _diagnostics(arm) for trace in d.get("traces", [])]
        if every:
            shown = _varied(every)
            count = f"{len(shown)} of {len(every)}" if len(shown) < len(every) else str(len(every))
            body = "".join(map(_trace, shown))
            blocks.append(f"<details><summary>{clean(arm.name)}: {count} sample traces</summary>{body}</details>")
    if not blocks:
        return ""
    blocks[-1] = blocks[-1].replace("<details>", "<details open>", 1)
    return (
        '<section>\n<h2>Sample traces</h2>\n<p class="note">Prompt in grey, then the completion as sampled. '
        "Underlined: tokens of a rollout that was aborted or cut short by the end of the budget; they were used.</p>\n"
        f'<div class="card">{"".join(blocks)}</div>\n</section>'
    )


def _varied(traces: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Up to TRACES traces, taking turns between the statuses, so that rare ones are seen."""
    queues = [[t for t in traces if t["status"] == status] for status in dict.fromkeys(t["status"] for t in traces)]
    turns = [queue[i] for i in range(TRACES) for queue in queues if i < len(queue)]
    return turns[:TRACES]


def _trace(trace: dict[str, Any]) -> str:
    words = {
        ENDED: ("ended by itself", "better"),
        FINISHED: ("answer complete, stopped", "better"),
        ABORTED: ("aborted, no answer", "worse"),
        CUT: ("cut by a limit", "unclear"),
    }
    status = next(status for status in words if status.word == trace["status"])
    word, css = words[status]
    completion = clean(_clip(trace["completion"]))
    if status == ABORTED:
        completion = f'<del>{completion}</del> <span class="stop">✂ aborted here</span>'
    elif status == CUT:
        completion += ' <span class="stop">✂ cut here</span>'
    reward = "unknown" if trace["reward"] is None else f"{trace['reward']:.3g}"
    return (
        f'<div class="trace"><div class="meta"><span class="tag {css}">{word}</span>'
        f"<span>{trace['tokens']} tokens</span><span>reward {reward}</span></div>"
        f'<pre><span class="prompt">{clean(_clip(trace["prompt"]))}</span>\n{completion}</pre></div>'
    )


def _measured(results: Results) -> str:
    cards = []
    for title, entries in (("Configuration", results["config"]), ("Versions", results["versions"])):
        if entries:
            pairs = "".join(
                f"<dt>{clean(k)}</dt><dd>{clean(v if isinstance(v, str) else json.dumps(v, ensure_ascii=False))}</dd>"
                for k, v in entries.items()
            )
            cards.append(f'<div class="card"><h3>{title}</h3><dl>{pairs}</dl></div>')
    seeds = sorted({run["seed"] for run in results["runs"]})
    note = f"Seeds {', '.join(map(str, seeds))}. Schema {results['schema']} of results.json."
    return (
        f'<section>\n<h2>How it was measured</h2>\n<p class="note">{clean(note)}</p>\n'
        f'<div class="pair">{"".join(cards)}</div>\n</section>'
    )


def _plain(results: Results) -> Results:
    """Checked plain data with the optional top-level parts present."""
    data = to_json(results)
    validate(data)
    return {"comparisons": [], "config": {}, "versions": {}, **data}


def _diagnostics(arm: Arm) -> list[dict[str, Any]]:
    return [run["diagnostics"] for run in arm.runs if run.get("diagnostics")]


def _mean(values: Iterable[float | None]) -> float:
    """Mean of the known values, NaN when there are none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else math.nan


def _verdict(comparison: dict[str, Any]) -> str:
    if comparison["low"] is None or comparison["high"] is None:
        return "single"
    return "better" if comparison["low"] > 0 else "worse" if comparison["high"] < 0 else "unclear"


def _accuracy(known: Paired | None) -> str:
    if known is None:
        return "unknown"
    half = f" ± {100 * (known.high - known.mean):.1f}" if known.n > 1 else ""
    return f"{100 * known.mean:.1f}{half} %"


def _difference(comparison: dict[str, Any]) -> str:
    if comparison["mean"] is None:
        return "unknown"
    mean = f"{100 * comparison['mean']:+.1f}"
    if _verdict(comparison) == "single":
        return f"{mean} (1 seed)"
    return f"{mean} [{100 * comparison['low']:+.1f}, {100 * comparison['high']:+.1f}]"


def _seconds(value: float) -> str:
    return "unknown" if not math.isfinite(value) else f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _share(part: float, whole: float) -> str:
    return f'{percent(part / whole)} <span class="sub">{compact(part)}</span>' if whole else "-"


def _clip(text: str, most: int = 2000) -> str:
    return text if len(text) <= most else f"{text[:most]} … ({len(text) - most:,} more characters)"


def _plural(word: str, n: int) -> str:
    return word if n == 1 else f"{word}s"


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _natural(level: str) -> tuple[bool, float, str]:
    """Sort key: numbers by value, then other names by text."""
    try:
        return False, float(level), level
    except ValueError:
        return True, 0.0, level


def _row(name: str, bar: str, text: str) -> str:
    return f'<div class="name">{clean(name)}</div><div>{bar}</div><div class="text">{clean(text)}</div>'


def _keys(entries: Sequence[tuple[str, str]]) -> str:
    items = "".join(
        f'<li><svg class="key" aria-hidden="true"><rect class="{css}" width="14" height="14"/></svg>{clean(word)}</li>'
        for css, word in entries
    )
    return f'<ul class="legend">{items}</ul>'
