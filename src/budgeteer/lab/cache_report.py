"""What ``budgeteer cache eval`` measured, as one HTML file: quality against bytes, what each head kept, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from budgeteer.draw import svg
from budgeteer.draw.svg import Curve, Line, clean, compact, html_table, percent

FULL = "full"
"""Name of the cache without a budget in the rows, which each method is compared with."""
MAPS = 12
"""Most maps of heads of a page."""
EVEN = 0.01
"""Heads whose shares differ by less are drawn by no map."""


def render(rows: Sequence[Mapping[str, Any]], model: str) -> str:
    """The page.

    Args:
        rows: of :func:`budgeteer.lab.cache_eval.table`.
        model: its name.
    """
    style = resources.files("budgeteer.lab").joinpath("report.css").read_text(encoding="utf-8")
    note = (
        f"{model}, {rows[0]['samples']} texts. Right: greedy decoding would write the whole answer, with Wilson's 95 % "
        "interval. Log p lost: of the answer against the full cache on the same texts, nats a token, with a paired "
        "95 % interval. Bytes: held when the answer begins, on the mean; kept at the end: entries, when the answer is "
        "written. Peak: of the bytes while the prompt was read. Times over those of the full cache on the same text, "
        "medians: of reading the prompt and choosing, and of a token behind it; other work on the machine is in them."
    )
    sections = [f'<header>\n<h1>budgeteer: budgets of a cache</h1>\n<p class="lead">{clean(note)}</p>\n</header>']
    for known in (True, False):
        if mine := [row for row in rows if row["known"] == known]:
            asked = "Question known when the choice is made" if known else "Question asked after the choice"
            sections += [_section(asked, _curves(mine) + _table(mine))]
    sections += [_maps(rows), _places(rows)]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>budgeteer cache eval</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(each for each in sections if each)
        + "\n</main>\n</body>\n</html>\n"
    )


def _section(title: str, body: str, note: str = "") -> str:
    return f'<section>\n<h2>{clean(title)}</h2>\n<p class="note">{clean(note)}</p>\n{body}\n</section>'


def best(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The methods of some rows, the least mean loss over their budgets first; the full cache is none."""
    lost: dict[str, list[float]] = {}
    for row in rows:
        if row["method"] != FULL:
            lost.setdefault(row["method"], []).append(row["lost"]["mean"])
    return sorted(lost, key=lambda method: sum(lost[method]) / len(lost[method]))


def _curves(rows: Sequence[Mapping[str, Any]]) -> str:
    """Shares of right answers, and losses, against bytes; the best methods and, where there is one, the full cache."""
    methods = best(rows)
    drawn = methods[: svg.SERIES]
    full = [row for row in rows if row["method"] == FULL]
    lines, curves = [], []
    for style, method in enumerate(drawn):
        mine = sorted((row for row in rows if row["method"] == method), key=lambda row: int(row["bytes"]))
        points, right = [float(row["bytes"]) for row in mine], [row["right"] for row in mine]
        means, lows, highs = ([float(each[name]) for each in right] for name in ("mean", "low", "high"))
        lines.append(Line(method, style, points, means, lows, highs))
        curves.append(Curve(method, points, [row["lost"]["mean"] for row in mine], marks=True))
    legend = "".join(f"<li>{svg.swatch(line.style)}{clean(line.name)}</li>" for line in lines)
    rights = svg.line_chart(
        lines, title="Right answers against bytes", x_label="bytes of the cache (log scale)", x_text=compact, log=True,
        spread="95 % interval",
    )  # fmt: skip
    losses = svg.xy_chart(
        curves, title="Log p lost against bytes", x_label="bytes of the cache", y_label="nats a token lost"
    )
    said = [f"The full cache: {percent(row['right']['mean'])} right with {row['bytes']:,} bytes." for row in full[:1]]
    if len(methods) > len(drawn):
        said.append(f"The {len(drawn)} of {len(methods)} methods that lose least are drawn; the table has all.")
    return (
        f'<p>{clean(" ".join(said))}</p>\n<ul class="legend">{legend}</ul>\n<div class="pair">\n'
        f'<figure class="card">{rights}</figure>\n<figure class="card">'
        f'<svg class="chart" viewBox="0 0 560 340">{losses}</svg></figure>\n</div>\n'
    )


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    tasks = list(rows[0]["tasks"])
    head = [
        "method",
        "budget",
        "kept",
        "at the end",
        "bytes",
        "peak",
        "prompt",
        "token",
        "right",
        "fewer right",
        "log p lost",
    ]
    head += tasks
    body = []
    for row in sorted(rows, key=lambda row: float(row["lost"]["mean"])):
        right, fewer, lost = row["right"], row["fewer"], row["lost"]
        cells = [clean(row["budget"]), percent(row["kept"]), "" if row["end"] is None else percent(row["end"])]
        cells += [f"{row[name]:,}" for name in ("bytes", "peak")]
        cells += ["" if row[name] is None else f"{row[name]:.2f}" for name in ("prompt", "token")]
        cells.append(f"{percent(right['mean'])} [{percent(right['low'])}, {percent(right['high'])}]")
        cells.append(f"{fewer['mean']:.1%} [{fewer['low']:.1%}, {fewer['high']:.1%}]")
        cells.append(f"{lost['mean']:.2f} [{lost['low']:.2f}, {lost['high']:.2f}]")
        body.append((clean(row["method"]), [*cells, *(percent(row["tasks"][task]) for task in tasks)]))
    return html_table(head, body)


def _maps(rows: Sequence[Mapping[str, Any]]) -> str:
    """Shares of the entries that each layer and head holds, where heads differ; the smallest budget of a method."""
    drawn: dict[tuple[str, bool], str] = {}
    for row in sorted(rows, key=lambda row: float(row["kept"])):
        heads = row["heads"]
        shares = [share for layer in heads for share in layer]
        key = (row["method"], row["known"])
        if key in drawn or len(drawn) == MAPS or not shares or max(shares) - min(shares) < EVEN:
            continue
        asked = "known" if row["known"] else "unknown"
        name = f"{row['method']} at {row['budget']}, question {asked}"
        drawn[key] = f'<figure class="card"><h3>{clean(name)}</h3>' + svg.heat_map(
            heads,
            columns=[str(head) for head in range(len(heads[0]))],
            rows=[str(layer) for layer in range(len(heads))],
            title=name,
            labels=("key-value head", "layer"),
            said="of the entries are held in layer",
        ) + "</figure>"  # fmt: skip
    if not drawn:
        return ""
    note = "The stronger a cell, the more of its entries a head of a layer holds; hover for the number."
    return _section("What each head kept", f'<div class="pair">{"".join(drawn.values())}</div>', note)


def _places(rows: Sequence[Mapping[str, Any]]) -> str:
    """Shares of the entries of each part of the text that each layer holds; the smallest budget of the best methods."""
    drawn = []
    for method in best(rows)[:MAPS]:
        row = min((row for row in rows if row["method"] == method), key=lambda row: (not row["known"], row["kept"]))
        if not row["places"]:
            continue
        parts, asked = len(row["places"][0]), "known" if row["known"] else "unknown"
        name = f"{method} at {row['budget']}, question {asked}: by place"
        drawn.append(
            f'<figure class="card"><h3>{clean(name)}</h3>'
            + svg.heat_map(
                row["places"],
                columns=[f"{percent(part / parts)} to {percent((part + 1) / parts)}" for part in range(parts)],
                rows=[str(layer) for layer in range(len(row["places"]))],
                title=name,
                labels=("part of the text", "layer"),
                said="of the entries are held in layer",
            )
            + "</figure>"
        )
    if not drawn:
        return ""
    note = "The stronger a cell, the more of the entries of this part of the text the heads of a layer hold."
    return _section("Which parts of the text were kept", f'<div class="pair">{"".join(drawn)}</div>', note)
