"""A frontier as one HTML file that reads anywhere (no script, nothing fetched), and as a table for the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from budgeteer.core.amounts import MONEY
from budgeteer.draw import svg
from budgeteer.draw.svg import Line, clean, compact, percent
from budgeteer.draw.text import ruled

SHOWN = 4
"""Traces of one answer that are shown."""

_CSS = """
.filters { display: grid; gap: 8px; margin: 0 0 14px; font-size: 14px; }
.filters div { display: flex; flex-wrap: wrap; gap: 4px 14px; align-items: center; }
.filters b { min-width: 5em; font-weight: 600; color: var(--soft); }
.filters label { display: inline-flex; gap: 5px; align-items: center; cursor: pointer; }
.tr h3 { display: flex; flex-wrap: wrap; gap: 4px 12px; align-items: center; }
.wide { overflow-x: auto; }
figure.card { max-width: 820px; }
"""


def table(numbers: Mapping[str, Any]) -> str:
    """A table for a terminal, with one line for each strategy and budget."""
    rows = [
        [
            "strategy",
            "budget",
            _measure(numbers),
            numbers["kind"],
            "calls",
            "answered",
            "cut",
            "right if cut / not",
            "E3",
            _per(numbers)[1],
            "at cap",
            "minus first",
        ]
    ]
    versus = {(d["a"], d["budget"]): d for d in numbers["differences"]}
    for p in numbers["points"]:
        difference = versus.get((p["strategy"], p["budget"]))
        rows.append(
            [
                p["strategy"],
                *_cells(p, numbers),
                "first" if difference is None else _difference(difference),
            ]
        )
    return ruled(rows)


def render(numbers: Mapping[str, Any], traces: Sequence[Mapping[str, Any]]) -> str:
    """The page.

    Args:
        numbers: of :func:`budgeteer.lab.frontier.analyse`.
        traces: of :func:`budgeteer.lab.frontier.traces`.
    """
    style = resources.files("budgeteer.lab").joinpath("report.css").read_text(encoding="utf-8")
    filters = _filters(numbers, traces)
    sections = (_head(numbers), _picture(numbers), _table(numbers), _differences(numbers), filters[1], _how(numbers))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>budgeteer frontier</title>\n'
        f"<style>\n{style}{_CSS}{filters[0]}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main>\n</body>\n</html>\n"
    )


def _head(numbers: Mapping[str, Any]) -> str:
    better, worse, unclear = [], [], 0
    for d in numbers["differences"]:
        name = f"<b>{clean(d['a'])}</b> at {clean(d['budget'])}"
        if d["low"] > 0:
            better.append(name)
        elif d["high"] < 0:
            worse.append(name)
        else:
            unclear += 1
    first = f"<b>{clean(numbers['strategies'][0])}</b>"
    parts = []
    if better:
        parts.append(f"More accurate than {first} at the same budget: {', '.join(better)}")
    if worse:
        parts.append(f"{'less' if better else 'Less'} accurate than {'it' if better else first}: {', '.join(worse)}")
    if unclear:
        parts.append(f"{unclear} of {len(numbers['differences'])} comparisons with {first} are not told apart")
    n, seeds = numbers["questions"], len(numbers["seeds"])
    lead = f"{n} questions, {seeds} {'seed' if seeds == 1 else 'seeds'}, the same for all. Every token of every call "
    lead += "is counted, planning and judging included."
    if _measure(numbers) != "accuracy":
        lead += f" A question counts as right if one of the first {numbers['config']['pass at']} candidates is."
    said = "; ".join(parts) or f"{first}, measured alone"
    return (
        "<header>\n<h1>budgeteer: accuracy against tokens</h1>\n"
        f'<p class="headline">{said}.</p>\n<p class="lead">{clean(lead)}</p>\n</header>'
    )


def _picture(numbers: Mapping[str, Any]) -> str:
    legend = "".join(f"<li>{svg.swatch(i)}{clean(name)}</li>" for i, name in enumerate(numbers["strategies"]))
    measure = _measure(numbers).capitalize()
    chart = _chart(numbers, "accuracy", f"{measure} against what was used")
    section = (
        f"<section>\n<h2>{measure} by what was used</h2>\n"
        '<p class="note">A point is one strategy at one budget: what it used, not what it was allowed. Bands are 95 % '
        "bootstrap intervals over questions and seeds, point by point.</p>\n"
        f'<ul class="legend">{legend}</ul>\n<figure class="card">{chart}</figure>\n</section>'
    )
    if not any(point["cut"]["mean"] for point in numbers["points"]):
        return section
    parts = "".join(
        f'<figure class="card"><figcaption>{words}</figcaption>{_chart(numbers, key, words)}</figure>'
        for key, words in (
            ("accuracy_whole", f"{measure} of answers that were not cut"),
            ("accuracy_cut", f"{measure} of answers that were cut"),
        )
    )
    return (
        f"{section}\n<section>\n<h2>Answers that were cut, and those that were not</h2>\n"
        '<p class="note">Cut: the budget, a cap or a steer ended a trace, or a strategy that would have gone on. The '
        "questions differ from point to point: what is not cut at a small budget is what needs few tokens.</p>\n"
        f'<ul class="legend">{legend}</ul>\n{parts}\n</section>'
    )


def _chart(numbers: Mapping[str, Any], key: str, title: str) -> str:
    """A line a strategy; points where there is nothing to take the mean of are left out."""
    lines = []
    for i, name in enumerate(numbers["strategies"]):
        points = sorted((p for p in numbers["points"] if p["strategy"] == name), key=lambda p: p["used"]["mean"])
        points = [p for p in points if p["used"]["mean"] > 0 and p[key] is not None]
        columns = [[p[key][part] for p in points] for part in ("mean", "low", "high")]
        lines.append(Line(name, i, [p["used"]["mean"] for p in points], *columns))
    label = "tokens a question" if numbers["kind"] == "all" else f"{numbers['kind']} a question"
    return svg.line_chart(
        lines,
        title=title,
        x_label=f"{label} (measured, log scale)",
        x_text=compact,
        log=True,
        spread="95 % interval",
    )


def _parts(point: Mapping[str, Any]) -> tuple[Mapping[str, float] | None, Mapping[str, float] | None]:
    """Accuracy of the answers that were cut, and of the others."""
    return point["accuracy_cut"], point["accuracy_whole"]


def _cells(point: Mapping[str, Any], numbers: Mapping[str, Any]) -> list[str]:
    """The cells of a point that both tables have, from its budget on."""
    return [
        point["budget"],
        _interval(point["accuracy"]),
        compact(point["used"]["mean"]),
        f"{point['calls']:.1f}",
        percent(point["answered"]),
        percent(point["cut"]["mean"]),
        " / ".join("-" if part is None else percent(part["mean"]) for part in _parts(point)),
        _e3(point["e3"]),
        _right(point, numbers),
        percent(point["saturated"]),
    ]


def _table(numbers: Mapping[str, Any]) -> str:
    head = [
        "Strategy",
        "Budget",
        _measure(numbers).capitalize(),
        f"Used ({numbers['kind']})",
        "Calls",
        "Answered",
        "Cut",
        "Right if cut / not",
        "E3",
        _per(numbers)[1].capitalize(),
        "At the cap",
        "Wasted",
        "Overshoot",
        "Seconds",
    ]
    rows = []
    for p in numbers["points"]:
        cells = [
            *_cells(p, numbers),
            compact(p["wasted"]),
            compact(p["overshoot"]),
            f"{p['seconds']:.2g}",
        ]
        rows.append((clean(p["strategy"]), [clean(cell) for cell in cells]))
    return (
        '<section>\n<h2>Every point</h2>\n<p class="note">Means a question; accuracy with its 95 % interval. E3 is '
        "accuracy² by units, accuracy in percent; “at the cap” used 99 % of its budget or more; “wasted” went to calls "
        "that brought no answer; overshoot is a sum.</p>\n"
        f'<div class="card wide">{svg.html_table(head, rows)}</div>\n'
        "</section>"
    )


def _differences(numbers: Mapping[str, Any]) -> str:
    differences = numbers["differences"]
    if not differences:
        return ""
    reach = 1.1 * max(abs(d[key]) for d in differences for key in ("mean", "low", "high")) or 0.01
    rows = []
    for d in differences:
        css = "better" if d["low"] > 0 else "worse" if d["high"] < 0 else "unclear"
        words = {"better": "more accurate", "worse": "less accurate", "unclear": "not told apart"}
        label = f"{d['a']} minus {d['b']} at {d['budget']}: {_difference(d)} points"
        bar = svg.interval_bar(d["mean"], d["low"], d["high"], reach=reach, css=css, label=label)
        rows.append(
            f'<div class="name">{clean(d["a"])} <span class="sub">at {clean(d["budget"])}</span></div>'
            f'<div class="{css}">{bar}</div><div class="text">{clean(_difference(d))} '
            f'<span class="tag {css}">{words[css]}</span></div>'
        )
    return (
        f"<section>\n<h2>At equal budgets, minus {clean(differences[0]['b'])}</h2>\n"
        '<p class="note">Percentage points of accuracy, paired over questions and seeds, 95 % bootstrap intervals; '
        f"scale ±{100 * reach:.2g} points. Not corrected for their number.</p>\n"
        f'<div class="card rows">{"".join(rows)}</div>\n</section>'
    )


def _filters(numbers: Mapping[str, Any], traces: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """(style sheet, section): the traces, and radio buttons that show some of them without any script."""
    if not traces:
        return "", ""
    strategies = numbers["strategies"]
    budgets = list(dict.fromkeys(p["budget"] for p in numbers["points"]))
    names = list(dict.fromkeys(trace["id"] for trace in traces))
    groups: list[tuple[str, str, list[tuple[str, str]]]] = [
        ("Answer", "r", [("right", "right"), ("wrong", "wrong")]),
        ("Strategy", "st", [(f"st{i}", name) for i, name in enumerate(strategies)]),
        ("Budget", "bu", [(f"bu{i}", name) for i, name in enumerate(budgets)]),
    ]
    css, controls = [], []
    for title, group, entries in groups:
        buttons = [f'<label><input type="radio" name="{group}" id="{group}-all" checked>all</label>']
        for key, name in entries:
            buttons.append(f'<label><input type="radio" name="{group}" id="f-{key}">{clean(name)}</label>')
            css.append(f"main:has(#f-{key}:checked) .tr:not(.{key}) {{ display: none; }}")
        controls.append(f"<div><b>{title}</b>{''.join(buttons)}</div>")
    blocks = []
    for name in names:
        mine = [trace for trace in traces if trace["id"] == name]
        body = "".join(_trace(trace, strategies, budgets) for trace in mine)
        share = f"{percent(mine[0]['right'])} of all answers are right"
        question = clean(_clip(mine[0]["question"], 160))
        blocks.append(f'<details><summary>{question} <span class="sub">{share}</span></summary>{body}</details>')
    blocks[0] = blocks[0].replace("<details>", "<details open>", 1)
    section = (
        '<section>\n<h2>Traces to read</h2>\n<p class="note">The first seed on questions from the hardest to the '
        f'easiest, at most {SHOWN} traces an answer.</p>\n<div class="card"><div class="filters">'
        f"{''.join(controls)}</div>{''.join(blocks)}</div>\n</section>"
    )
    return "\n".join(css) + "\n", section


def _trace(trace: Mapping[str, Any], strategies: Sequence[str], budgets: Sequence[str]) -> str:
    right = "right" if trace["correct"] else "wrong"
    css = f"tr {right} st{strategies.index(trace['strategy'])} bu{budgets.index(trace['budget'])}"
    answer = "no answer" if trace["answer"] is None else f"answer {_clip(trace['answer'], 80)}"
    units = ", ".join(f"{compact(n)} {kind}" for kind, n in trace["units"].items())
    meta = [f"{answer}, reference {trace['reference']}", units, f"{trace['calls']} calls", trace["stopped_by"]]
    more = len(trace["traces"]) - SHOWN
    texts = "".join(f"<pre>{clean(_clip(text, 1500))}</pre>" for text in trace["traces"][:SHOWN])
    texts += f'<p class="note">and {more} more</p>' if more > 0 else ""
    return (
        f'<div class="trace {css}"><h3>{clean(trace["strategy"])} <span class="sub">at {clean(trace["budget"])}</span>'
        f'<span class="tag {"better" if trace["correct"] else "worse"}">{right}</span></h3>'
        f'<div class="meta">{"".join(f"<span>{clean(part)}</span>" for part in meta)}</div>{texts}</div>'
    )


def _how(numbers: Mapping[str, Any]) -> str:
    cards = []
    for title, entries in (("Configuration", numbers["config"]), ("Versions", numbers["versions"])):
        pairs = "".join(
            f"<dt>{clean(k)}</dt><dd>{clean(v if isinstance(v, str) else json.dumps(v, ensure_ascii=False))}</dd>"
            for k, v in entries.items()
        )
        cards.append(f'<div class="card"><h3>{title}</h3><dl>{pairs}</dl></div>')
    seeds = ", ".join(map(str, numbers["seeds"]))
    return (
        f'<section>\n<h2>How it was measured</h2>\n<p class="note">Seeds {seeds}. All numbers are in frontier.json, '
        f'schema {numbers["schema"]}.</p>\n<div class="pair">{"".join(cards)}</div>\n</section>'
    )


def _interval(estimate: Mapping[str, float]) -> str:
    return f"{100 * estimate['mean']:.1f} [{100 * estimate['low']:.1f}, {100 * estimate['high']:.1f}]"


def _difference(estimate: Mapping[str, float]) -> str:
    return f"{100 * estimate['mean']:+.1f} [{100 * estimate['low']:+.1f}, {100 * estimate['high']:+.1f}]"


def _measure(numbers: Mapping[str, Any]) -> str:
    """What the share of right answers is called: ``pass@k`` where k candidates of an answer counted."""
    k = numbers["config"].get("pass at", 1)
    return "accuracy" if k == 1 else f"pass@{k}"


def _per(numbers: Mapping[str, Any]) -> tuple[float, str]:
    """Units by which right answers are counted, and how that is called."""
    return (1e12, "right a dollar") if numbers["kind"] == MONEY else (1e3, "right per 1k")


def _right(point: Mapping[str, Any], numbers: Mapping[str, Any]) -> str:
    value = point["accuracy_per_token"]
    return "-" if value is None else f"{value * _per(numbers)[0]:.3g}"


def _e3(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _clip(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]} … ({len(text) - most:,} more characters)"
