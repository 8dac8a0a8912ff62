"""Charts of the dashboard, as SVG: stacked bars over time, and the burn-down of a budget with its forecast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from budgeteer.core.amounts import noun
from budgeteer.draw.svg import clean, ticks
from budgeteer.gateway.dashboard.amounts import short
from budgeteer.gateway.dashboard.html import Html, tag
from budgeteer.gateway.dashboard.times import local

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 230, 84, 8, 12, 30
SHOWN = 7
"""The most names that a chart shows one by one; the others are summed."""
OTHER = "all others"


@dataclass(frozen=True, slots=True)
class Stack:
    """The units of one name in each step of time."""

    name: str
    units: Sequence[float]


def stacks(rows: Sequence[dict[str, object]], by: str, times: Sequence[int]) -> list[Stack]:
    """The units of the largest names in each step of time; those of all other names are summed.

    Args:
        rows: with the fields "time" (milliseconds since 1970), "units" and that of ``by``.
        by: the field that holds the name.
        times: where the steps begin, in milliseconds since 1970.
    """
    sums: dict[str, dict[int, float]] = {}
    for row in rows:
        name = str(row[by]) or "none"
        sums.setdefault(name, {})[int(str(row["time"]))] = float(str(row["units"]))
    names = sorted(sums, key=lambda name: (-sum(sums[name].values()), name))
    drawn = [Stack(name, [sums[name].get(at, 0.0) for at in times]) for name in names[:SHOWN]]
    if len(names) > SHOWN:
        others = [sum(sums[name].get(at, 0.0) for name in names[SHOWN:]) for at in times]
        drawn.append(Stack(OTHER, others))
    return drawn


def clock(at: float, spread: float) -> str:
    """A time (milliseconds since 1970) for the axis of a chart that is ``spread`` milliseconds wide.

    >>> clock(0, 3_600_000), clock(0, 86_400_000 * 5), clock(0, 60_000)
    ('00:00', '1 Jan', '00:00:00')
    """
    when = local(at)
    if spread > 2 * 86_400_000:
        return f"{when.day} {when:%b}"
    return f"{when:%H:%M}" if spread >= 15 * 60_000 else f"{when:%H:%M:%S}"


def spending(rows: Sequence[dict[str, object]], by: str, times: Sequence[int], step: int, kind: str) -> Html:
    """What was spent of a kind of units by name, as stacked bars.

    Args:
        rows, by, times: as for :func:`stacks`.
        step: the width of a bar in seconds.
        kind: of the units.
    """
    title = f"{noun(kind)} by {by}"
    return bars(stacks(rows, by, times), times, step * 1000, lambda units: short(kind, units), title)


def _frame(low: int, high: int, top: float, text: Callable[[float], str], title: str) -> tuple[list[str], _Scale]:
    scale = _Scale(low, high, top)
    right, base = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{clean(title)}">']
    for value in ticks(0, top, 4):
        y = scale.y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y:.1f}" dy="0.35em" text-anchor="end">{clean(text(value))}</text>')
    for n in range(5):
        at = low + (high - low) * n / 4
        anchor = "start" if n == 0 else "end" if n == 4 else "middle"
        parts.append(
            f'<text x="{scale.x(at):.1f}" y="{base + 20}" text-anchor="{anchor}">{clock(at, high - low)}</text>'
        )
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{base}" y2="{base}"/>')
    return parts, scale


@dataclass(frozen=True, slots=True)
class _Scale:
    low: int
    high: int
    top: float

    def x(self, at: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (at - self.low) / max(1, self.high - self.low)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / self.top


def bars(layers: Sequence[Stack], times: Sequence[int], step: int, text: Callable[[float], str], title: str) -> Html:
    """Stacked bars with a legend.

    Args:
        layers: the units of each name, one number a bar.
        times: where the bars begin, in milliseconds since 1970 (UTC).
        step: the width of a bar in milliseconds.
        text: writes units for people.
        title: the chart's name for screen readers.
    """
    totals = [sum(layer.units[n] for layer in layers) for n in range(len(times))]
    top = 1.08 * max(totals, default=0.0) or 1.0
    low, high = times[0], times[-1] + step
    parts, scale = _frame(low, high, top, text, title)
    width = max(0.8, scale.x(low + step) - scale.x(low) - 1)
    for n, at in enumerate(times):
        base = 0.0
        for style, layer in enumerate(layers):
            units = layer.units[n]
            if units > 0:
                y, height = scale.y(base + units), scale.y(base) - scale.y(base + units)
                says = f"{layer.name}: {text(units)}, {clock(at, high - low)}"
                parts.append(
                    f'<rect class="f{style}" x="{scale.x(at):.1f}" y="{y:.1f}" width="{width:.1f}" '
                    f'height="{max(0.5, height):.1f}"><title>{clean(says)}</title></rect>'
                )
                base += units
    legend = "".join(
        tag(
            '<li><svg class="dot" width="12" height="12" aria-hidden="true"><rect class="$css" width="12" height="12" '
            'rx="3"/></svg>$name <span class="sub">$sum</span></li>',
            css=f"f{style}",
            name=layer.name,
            sum=text(sum(layer.units)),
        )
        for style, layer in enumerate(layers)
    )
    return Html("".join(parts) + f'</svg><ul class="legend">{legend}</ul>')


@dataclass(frozen=True, slots=True)
class Burn:
    """A budget over time; times are milliseconds since 1970 (UTC).

    Attributes:
        past: (time, units used by then) until now.
        ahead: the forecast, (time, low, mean, high) of the units used by then; empty without a forecast.
        limit: the budget in units.
        begins, ends: the time that the chart shows.
    """

    past: Sequence[tuple[int, float]]
    ahead: Sequence[tuple[int, float, float, float]]
    limit: int
    begins: int
    ends: int


def burn_down(burn: Burn, text: Callable[[float], str], title: str) -> Html:
    """The chart of what is left of a budget: a line until now, then the forecast with its band.

    Args:
        burn: the numbers to draw.
        text: writes units for people.
        title: the chart's name for screen readers.
    """
    limit = float(burn.limit)
    parts, scale = _frame(burn.begins, burn.ends, 1.08 * limit or 1.0, text, title)

    def at(when: float, used: float) -> str:
        return f"{scale.x(when):.1f},{scale.y(min(limit, max(0.0, limit - used))):.1f}"

    y = scale.y(limit)
    parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
    if burn.ahead:
        edge = [at(when, low) for when, low, _, _ in burn.ahead]
        edge += [at(when, high) for when, _, _, high in reversed(burn.ahead)]
        parts.append(
            f'<polygon class="band" points="{" ".join(edge)}"><title>90 % of outcomes if spending goes on alike</title>'
            f'</polygon><polyline class="line ahead" points="{" ".join(at(w, mean) for w, _, mean, _ in burn.ahead)}"/>'
        )
    parts.append(f'<polyline class="line" points="{" ".join(at(when, used) for when, used in burn.past)}"/>')
    if burn.past:
        when, used = burn.past[-1]
        x, here = at(when, used).split(",")
        says = f"now: {text(limit - used)} left"
        parts.append(
            f'<line class="now" x1="{x}" x2="{x}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
            f'<circle class="here" cx="{x}" cy="{here}" r="4"><title>{clean(says)}</title></circle>'
        )
    return Html("".join(parts) + "</svg>")
