"""Small SVG drawings for reports: line charts with bands, stacked bars, interval bars, heat maps; and a table of HTML.

Colours, dashes and text sizes are classes (``s0`` to ``s7`` are the series), so the page's style sheet decides them
and dark mode needs no second drawing. Every mark carries a ``<title>``, which browsers show as a tooltip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

SERIES = 8
"""Distinct series styles; further series repeat them."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line with its band.

    Attributes:
        name: label for the tooltip.
        style: series number, 0 and up.
        x, mean, low, high: equally long columns in data units; low = high = mean draws no band.
    """

    name: str
    style: int
    x: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a stacked bar: a style-sheet class, a value >= 0 and its tooltip."""

    css: str
    value: float
    title: str


def clean(text: object) -> str:
    """Text that is safe inside HTML and attributes: escaped, control characters and lone surrogates made visible.

    >>> clean('<a href="x">')
    '&lt;a href=&quot;x&quot;&gt;'
    """
    shown = str(text).encode("utf-8", "replace").decode("utf-8")
    return escape("".join("\ufffd" if ord(c) < 32 and c not in "\n\t" else c for c in shown))


def html_table(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """An HTML table that can be read on a phone, where each cell shows its column's name.

    Args:
        head: names of the columns, as text.
        rows: the first cell and the others, as HTML.
    """
    body = []
    for first, cells in rows:
        shown = "".join(
            f'<td data-label="{clean(name)}"><span>{cell}</span></td>'
            for name, cell in zip(head[1:], cells, strict=True)
        )
        body.append(f'<tr><th scope="row">{first}</th>{shown}</tr>')
    heads = "".join(f'<th scope="col">{clean(name)}</th>' for name in head)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def compact(value: float) -> str:
    """A number in few characters.

    >>> compact(1_234_567), compact(12_300), compact(250.0), compact(0.25)
    ('1.23M', '12.3k', '250', '0.25')
    """
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def percent(value: float) -> str:
    """A share as a percentage with at most one decimal.

    >>> percent(0.615), percent(0.5)
    ('61.5%', '50%')
    """
    return f"{100 * value:.1f}".removesuffix(".0") + "%"


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers that cover [low, high] within, at most ``most`` of them.

    >>> ticks(0, 97)
    [0.0, 20.0, 40.0, 60.0, 80.0]
    """
    if not high > low:
        return [low]
    magnitude = 10.0 ** math.floor(math.log10((high - low) / most))
    for factor in (1, 2, 2.5, 5, 10, 20):
        step = factor * magnitude
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= most:
            break
    return [round(i * step, 12) for i in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers within [low, high] for a logarithmic axis, 0 < low < high, at most ``most`` of them.

    >>> log_ticks(90, 3000), log_ticks(210, 230)
    ([100.0, 200.0, 500.0, 1000.0, 2000.0], [210.0, 215.0, 220.0, 225.0, 230.0])
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors in ((1, 2, 5), (1, 3), (1,)):
        candidates = [f * 10.0**k for k in range(first, last + 1) for f in factors if low <= f * 10.0**k <= high]
        if len(candidates) <= most:
            break
    return candidates if len(candidates) > 1 else ticks(low, high, most=most)


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    x_text: Callable[[float], str],
    log: bool = False,
    spread: str = "seeds",
) -> str:
    """Accuracy (a share) against x from 0, or on a logarithmic axis, one line and band a series.

    Args:
        lines: the series; empty gives an empty frame.
        title: spoken by screen readers.
        x_label: axis label with the unit.
        x_text: how a tick of x is written.
        log: the x axis is logarithmic; all x are above 0.
        spread: what the bands are, for the tooltips.
    """
    width, height, left, right, top, bottom = 560, 340, 62, 18, 12, 62
    xs = [x for line in lines for x in line.x]
    x_high = max(xs, default=1.0) or 1.0
    x_low = 0.92 * min(xs, default=0.1 * x_high) if log else 0.0
    x_high = 1.08 * x_high if log else x_high
    low = min((v for line in lines for v in line.low), default=0.0)
    high = max((v for line in lines for v in line.high), default=1.0)
    pad = max(0.05 * (high - low), 0.01)
    low, high = max(0.0, low - pad), min(1.0, high + pad)
    marks = log_ticks(x_low, x_high) if log else ticks(0, x_high, most=4)

    def px(x: float) -> float:
        share = math.log(x / x_low) / math.log(x_high / x_low) if log else x / x_high
        return left + (width - left - right) * share

    def py(y: float) -> float:
        return height - bottom - (height - top - bottom) * (y - low) / (high - low)

    parts = [f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{clean(title)}">']
    for y in ticks(low, high):
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{py(y):.1f}" y2="{py(y):.1f}"/>')
        parts.append(f'<text x="{left - 8}" y="{py(y):.1f}" dy="0.35em" text-anchor="end">{percent(y)}</text>')
    for x in marks:
        anchor = "end" if px(x) > width - right - 24 else "middle"
        parts.append(
            f'<line class="axis" x1="{px(x):.1f}" x2="{px(x):.1f}" y1="{height - bottom}" y2="{height - bottom + 5}"/>'
            f'<text x="{px(x):.1f}" y="{height - bottom + 8}" dy="1em" text-anchor="{anchor}">{clean(x_text(x))}</text>'
        )
    parts.append(f'<line class="axis" x1="{left}" x2="{width - right}" y1="{height - bottom}" y2="{height - bottom}"/>')
    middle = (left + width - right) / 2
    parts.append(f'<text class="label" x="{middle}" y="{height - 8}" text-anchor="middle">{clean(x_label)}</text>')
    for line in lines:  # all bands first: no band hides a line
        if any(h > m for h, m in zip(line.high, line.mean, strict=True)):
            edge = [*zip(line.x, line.high, strict=True), *reversed([*zip(line.x, line.low, strict=True)])]
            points = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in edge)
            parts.append(f'<polygon class="band s{line.style % SERIES}" points="{points}"/>')
    for line in lines:
        points = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in zip(line.x, line.mean, strict=True))
        parts.append(f'<polyline class="line s{line.style % SERIES}" points="{points}"/>')
        parts.extend(_marks(line, px, py, x_text, spread))
    return "".join([*parts, "</svg>"])


def _marks(
    line: Line, px: Callable[[float], float], py: Callable[[float], float], text: Callable[[float], str], interval: str
) -> list[str]:
    """Up to seven markers along a line, the last one at its end, each with a tooltip."""
    n = len(line.x)
    chosen = sorted({round(i * (n - 1) / 6) for i in range(7)}) if n else []
    drawn = []
    for i in chosen:
        spread = (
            f" ({interval} {percent(line.low[i])} to {percent(line.high[i])})" if line.high[i] > line.low[i] else ""
        )
        title = f"{line.name}: {percent(line.mean[i])}{spread} at {text(line.x[i])}"
        drawn.append(marker(px(line.x[i]), py(line.mean[i]), line.style, title))
    return drawn


def marker(x: float, y: float, style: int, title: str = "") -> str:
    """A series' mark, of its own shape as well as colour, centred at (x, y) in pixels."""
    shapes = (
        "M-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0z",  # circle
        "M-4,-4h8v8h-8z",  # square
        "M0,-5.5L5.2,4H-5.2z",  # triangle
        "M0,-5.8L5.8,0L0,5.8L-5.8,0z",  # diamond
        "M0,5.5L5.2,-4H-5.2z",  # triangle down
        "M-5,-1.6h3.4v-3.4h3.2v3.4h3.4v3.2h-3.4v3.4h-3.2v-3.4h-3.4z",  # plus
        "M-5.5,-2.5h11v5h-11z",  # bar
        "M-2.5,-5.5h5v11h-5z",  # upright bar
    )
    inner = f"<title>{clean(title)}</title>" if title else ""
    path = shapes[style % SERIES]
    return f'<path class="mark s{style % SERIES}" transform="translate({x:.1f},{y:.1f})" d="{path}">{inner}</path>'


def swatch(style: int) -> str:
    """The legend's picture of a series: its line and its mark."""
    line = f'<line class="line s{style % SERIES}" x1="1" x2="33" y1="8" y2="8"/>'
    return f'<svg class="swatch" width="34" height="16" aria-hidden="true">{line}{marker(17, 8, style)}</svg>'


STYLE = """<style>
svg { font: 12px system-ui, sans-serif; background: #fff; fill: #222 }
.grid { stroke: #ddd } .axis { stroke: #444 } .rule { stroke: #888; stroke-dasharray: 4 3 } .label { font-weight: 600 }
.line { fill: none; stroke-width: 2 } .mark { stroke: none }
.line.s0 { stroke: #2563a8 } .line.s1 { stroke: #c2571a } .line.s2 { stroke: #2d8a4e } .line.s3 { stroke: #8a3ab0 }
.line.s4 { stroke: #b01e4a } .line.s5 { stroke: #6b6b00 } .line.s6 { stroke: #00808a } .line.s7 { stroke: #555 }
.mark.s0 { fill: #2563a8 } .mark.s1 { fill: #c2571a } .mark.s2 { fill: #2d8a4e } .mark.s3 { fill: #8a3ab0 }
.mark.s4 { fill: #b01e4a } .mark.s5 { fill: #6b6b00 } .mark.s6 { fill: #00808a } .mark.s7 { fill: #555 }
</style>"""
"""For drawings that stand alone, outside of a page with a style sheet."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve with its name in the legend: equally long columns in data units; ``marks`` draws its points, too."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    marks: bool = False


def xy_chart(
    curves: Sequence[Curve],
    *,
    title: str,
    x_label: str,
    y_label: str,
    log: tuple[bool, bool] = (False, False),
    rules: Sequence[tuple[str, float, str]] = (),
    top: int = 0,
) -> str:
    """Curves against numbers, on linear or logarithmic axes, 560 x 340 pixels, as a group at the height ``top``.

    Args:
        curves: at most one a series style; points that a logarithmic axis cannot hold are left out.
        title: written above the frame.
        x_label, y_label: with their units.
        log: whether x and y are logarithmic.
        rules: (axis ``"x"`` or ``"y"``, value, name) of straight dashed lines.
        top: offset of the drawing in pixels.
    """
    width, height, left, right, head, bottom = 560, 340, 74, 18, 34, 54
    points = [
        [
            (float(x), float(y))
            for x, y in zip(curve.x, curve.y, strict=True)
            if not (log[0] and x <= 0) and not (log[1] and y <= 0) and math.isfinite(x) and math.isfinite(y)
        ]
        for curve in curves
    ]
    spans, scales = [], []
    for axis in (0, 1):
        values = [point[axis] for curve in points for point in curve]
        values += [value for name, value, _ in rules if name == "xy"[axis] and not (log[axis] and value <= 0)]
        low, high = min(values, default=1.0), max(values, default=10.0)
        low = low if log[axis] else min(low, 0.0)
        if log[axis]:
            low, high = 10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high))
        high = high if high > low else low + 1.0
        spans.append((low, high))
        scales.append(math.log10 if log[axis] else float)

    def px(value: float, axis: int) -> float:
        low, high = (scales[axis](edge) for edge in spans[axis])
        share = (scales[axis](value) - low) / (high - low)
        return (
            left + (width - left - right) * share if axis == 0 else height - bottom - (height - head - bottom) * share
        )

    def marks(axis: int) -> list[float]:
        low, high = spans[axis]
        if not log[axis]:
            return ticks(low, high)
        first, last = round(math.log10(low)), round(math.log10(high))
        return [10.0**k for k in range(first, last + 1, max(1, (last - first) // 5))]

    parts = [f'<g class="chart" transform="translate(0,{top})" role="img" aria-label="{clean(title)}">']
    parts.append(f'<text class="label" x="{left}" y="16">{clean(title)}</text>')
    for value in marks(1):
        y = px(value, 1)
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y:.1f}" dy="0.35em" text-anchor="end">{compact(value)}</text>')
    for value in marks(0):
        x = px(value, 0)
        parts.append(
            f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{height - bottom}" y2="{height - bottom + 5}"/>'
        )
        parts.append(f'<text x="{x:.1f}" y="{height - bottom + 18}" text-anchor="middle">{compact(value)}</text>')
    parts.append(f'<line class="axis" x1="{left}" x2="{width - right}" y1="{height - bottom}" y2="{height - bottom}"/>')
    parts.append(
        f'<text x="{(left + width - right) / 2}" y="{height - 12}" text-anchor="middle">{clean(x_label)}</text>'
    )
    turned = f'transform="translate(14,{(head + height - bottom) / 2}) rotate(-90)" text-anchor="middle"'
    parts.append(f"<text {turned}>{clean(y_label)}</text>")
    for name, value, text in rules:
        axis = "xy".index(name)
        if log[axis] and value <= 0:
            continue
        at = px(value, axis)
        ends = (left, width - right) if axis else (head, height - bottom)
        sides = ("x", "y") if axis else ("y", "x")
        parts.append(
            f'<line class="rule" {sides[0]}1="{ends[0]}" {sides[0]}2="{ends[1]}" {sides[1]}1="{at:.1f}" '
            f'{sides[1]}2="{at:.1f}"><title>{clean(text)}</title></line>'
        )
        where = f'x="{width - right}" y="{at - 4:.1f}"' if axis else f'x="{at - 4:.1f}" y="{head + 10}"'
        parts.append(f'<text {where} text-anchor="end">{clean(text)}</text>')
    for style, (curve, line) in enumerate(zip(curves, points, strict=True)):
        path = " ".join(f"{px(x, 0):.1f},{px(y, 1):.1f}" for x, y in line)
        parts.append(
            f'<polyline class="line s{style % SERIES}" points="{path}"><title>{clean(curve.name)}</title></polyline>'
        )
        if curve.marks:
            parts.extend(
                marker(px(x, 0), px(y, 1), style, f"{curve.name}: {compact(y)} at {compact(x)}") for x, y in line
            )
        if len(curves) > 1:
            y = head + 8 + 16 * style
            parts.append(marker(left + 14, y, style) + f'<text x="{left + 24}" y="{y + 4}">{clean(curve.name)}</text>')
    return "".join([*parts, "</g>"])


def stand_alone(*charts: str, height: int) -> str:
    """A file of its own from groups such as :func:`xy_chart` makes."""
    size = f'width="560" height="{height}" viewBox="0 0 560 {height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{STYLE}{"".join(charts)}</svg>\n'


def stacked_bar(parts: Sequence[Part], *, whole: float, label: str) -> str:
    """A horizontal bar of full page width: the parts in order, as shares of ``whole``."""
    drawn, start = [], 0.0
    for part in parts:
        share = 100 * part.value / whole if whole > 0 else 0.0
        if share > 0:
            drawn.append(
                f'<rect class="{part.css}" x="{start:.2f}%" y="0" width="{share:.2f}%" height="18">'
                f"<title>{clean(part.title)}</title></rect>"
            )
        start += share
    return f'<svg class="bar" width="100%" height="18" role="img" aria-label="{clean(label)}">{"".join(drawn)}</svg>'


def interval_bar(mean: float, low: float | None, high: float | None, *, reach: float, css: str, label: str) -> str:
    """A dot with its interval on a scale from -reach to reach, zero marked in the middle."""

    def at(value: float) -> str:
        return f"{min(99.0, max(1.0, 50 + 49 * value / reach)):.2f}%"

    span = ""
    if low is not None and high is not None:
        span = f'<line class="span {css}" x1="{at(low)}" x2="{at(high)}" y1="11" y2="11"/>'
        span += "".join(f'<line class="span {css}" x1="{at(v)}" x2="{at(v)}" y1="6" y2="16"/>' for v in (low, high))
    return (
        f'<svg class="interval" width="100%" height="22" role="img" aria-label="{clean(label)}">'
        f'<line class="zero" x1="50%" x2="50%" y1="0" y2="22"/>{span}'
        f'<circle class="dot {css}" cx="{at(mean)}" cy="11" r="5"><title>{clean(label)}</title></circle></svg>'
    )


def heat_map(
    shares: Sequence[Sequence[float]],
    *,
    columns: Sequence[str],
    rows: Sequence[str],
    title: str,
    labels: tuple[str, str],
    said: str = "of prompts got",
) -> str:
    """Cells of opacity = square root of the share (small shares stay visible), first row at the bottom.

    Args:
        shares: [rows][columns] in [0, 1]; NaN leaves the cell empty.
        columns, rows: names of the cells; about five column names are written.
        title: spoken by screen readers.
        labels: of the x and the y axis.
        said: between a cell's share and the name of its row, in its tooltip.
    """
    width, left, right, top, bottom, cell = 560, 84, 10, 8, 62, 24
    height = top + bottom + cell * len(rows)
    step = (width - left - right) / max(1, len(columns))
    parts = [f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{clean(title)}">']
    for r, name in enumerate(rows):
        y = height - bottom - cell * (r + 1)
        parts.append(f'<text x="{left - 8}" y="{y + cell / 2}" dy="0.35em" text-anchor="end">{clean(name)}</text>')
        for c, column in enumerate(columns):
            share = shares[r][c]
            if share > 0:
                parts.append(
                    f'<rect class="heat" x="{left + c * step:.2f}" y="{y}" width="{step:.2f}" height="{cell}" '
                    f'fill-opacity="{math.sqrt(min(1.0, share)):.3f}"><title>{clean(labels[0])} {clean(column)}: '
                    f"{percent(share)} {clean(said)} {clean(name)}</title></rect>"
                )
    base = height - bottom
    parts.append(f'<line class="axis" x1="{left}" x2="{width - right}" y1="{base}" y2="{base}"/>')
    parts.append(f'<line class="axis" x1="{left}" x2="{left}" y1="{top}" y2="{base}"/>')
    every = max(1, math.ceil(len(columns) / 5))
    parts.extend(
        f'<text x="{left + (c + 0.5) * step:.1f}" y="{base + 8}" dy="1em" text-anchor="middle">'
        f"{clean(columns[c])}</text>"
        for c in range(0, len(columns), every)
    )
    middle = (left + width - right) / 2
    parts.append(f'<text class="label" x="{middle}" y="{height - 8}" text-anchor="middle">{clean(labels[0])}</text>')
    turned = f'transform="translate(18,{(top + base) / 2}) rotate(-90)" text-anchor="middle"'
    parts.append(f'<text class="label" {turned}>{clean(labels[1])}</text>')
    return "".join([*parts, "</svg>"])


COLOURS = ("#0072b2", "#d55e00", "#008c66", "#a8527f", "#a87200", "#3a8fc4", "#4a4a4a", "#7a6a1a")
DASHES = ("", "7 3", "2 3", "9 3 2 3", "", "7 3", "2 3", "9 3 2 3")


def log_chart(panels: Sequence[tuple[Sequence[Line], str, str]], *, title: str) -> str:
    """Panels one below the other, both axes logarithmic, as a file of its own: colours are inline, not classes.

    Args:
        panels: (lines, label of x, label of y), all values > 0; bands that reach 0 are cut at the frame.
        title: spoken by screen readers.
    """
    width, left, right, top, height = 900, 70, 380, 26, 320
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {(height + 50) * len(panels)}" role="img" '
        f'font-family="sans-serif" font-size="13"><title>{clean(title)}</title>'
        f'<rect width="{width}" height="{(height + 50) * len(panels)}" fill="#ffffff"/>'
    ]
    for number, (lines, x_label, y_label) in enumerate(panels):
        base = number * (height + 50)
        xs = [math.log10(x) for line in lines for x in line.x]
        ys = [math.log10(y) for line in lines for y in line.mean]
        x_low, x_high = min(xs, default=0.0) - 0.05, max(xs, default=1.0) + 0.05
        y_low, y_high = math.floor(min(ys, default=0.0)), math.ceil(max(ys, default=1.0))

        def px(x: float, low: float = x_low, high: float = x_high) -> float:
            return left + (width - left - right) * (math.log10(x) - low) / (high - low)

        def py(y: float, low: float = y_low, high: float = y_high, base: float = base) -> float:
            logged = max(low, math.log10(y)) if y > 0 else low
            return base + top + (height - top) * (high - logged) / max(high - low, 1)

        for power in range(y_low, y_high + 1):
            y = py(10.0**power)
            parts.append(f'<path d="M{left} {y:.1f}H{width - right}" stroke="#dddddd"/>')
            parts.append(
                f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end" fill="#555555">{compact(10.0**power)}</text>'
            )
        parts.extend(
            f'<text x="{px(x):.1f}" y="{base + height + 18}" text-anchor="middle" fill="#555555">{x:,.0f}</text>'
            for x in sorted({x for line in lines for x in line.x})
        )
        middle = (left + width - right) / 2
        parts.append(
            f'<text x="{middle}" y="{base + height + 38}" text-anchor="middle" fill="#555555">{clean(x_label)}</text>'
            f'<text x="{left}" y="{base + 16}" fill="#555555">{clean(y_label)}</text>'
        )
        for k, line in enumerate(lines):
            colour, dash = COLOURS[line.style % SERIES], DASHES[line.style % SERIES]
            stroke = f'stroke="{colour}" stroke-width="2"' + (f' stroke-dasharray="{dash}"' if dash else "")
            edge = [*zip(line.x, line.high, strict=True), *reversed([*zip(line.x, line.low, strict=True)])]
            band = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in edge)
            points = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in zip(line.x, line.mean, strict=True))
            parts.append(f'<polygon points="{band}" fill="{colour}" opacity="0.15"/>')
            parts.append(f'<polyline points="{points}" fill="none" {stroke}/>')
            y = base + top + 14 + 24 * k
            parts.append(f'<path d="M{width - right + 16} {y}h28" {stroke}/>')
            parts.append(f'<text x="{width - right + 52}" y="{y + 4}" fill="#222222">{clean(line.name)}</text>')
    return "\n".join([*parts, "</svg>"])
