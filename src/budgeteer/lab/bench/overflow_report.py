"""What ``budgeteer bench overflow`` measured: tables for a terminal, and one HTML file that stands alone."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

from budgeteer.draw import svg
from budgeteer.draw.svg import Line, clean, compact, html_table, percent
from budgeteer.draw.text import ruled

_ORIGIN = {"paper": "of the paper", "ours": "added here"}


def tables(numbers: Mapping[str, Any]) -> str:
    """All tables, for a terminal."""
    found = (_overall(numbers), _kinds(numbers), _differences(numbers), _correlations(numbers))
    return "\n\n".join(ruled(rows) for rows in found if len(rows) > 1)


def render(numbers: Mapping[str, Any]) -> str:
    """The page."""
    style = resources.files("budgeteer.lab").joinpath("report.css").read_text(encoding="utf-8")
    note = (
        f"{numbers['prompts']} prompts of {len(numbers['origin'])} kinds, {numbers['repeats']} answers to each, cut at "
        f"{numbers['cap']:,} tokens. Intervals are 95 % bootstrap intervals over prompts and repeats. Lengths are "
        "tokens of each model's own tokenizer, hidden reasoning included, and censored at the cap."
    )
    if numbers["left_out"]:
        note += f" {numbers['left_out']} prompts are left out, since a call failed."
    sections = [
        f'<header>\n<h1>budgeteer: overflow at plain prompts</h1>\n<p class="lead">{clean(note)}</p>\n</header>',
        _section("Share of the answers that reach a length", "", _curves(numbers)),
        _section("Cap saturation", "CSR@k: share of the answers of k tokens or more.", _html(_overall(numbers))),
        _section(
            f"By kind: CSR@{numbers['at'][-1]}",
            "Four kinds have the names of the paper's; the other five were added here. All prompts are ours.",
            _html(_kinds(numbers)),
        ),
    ]
    if numbers["differences"]:
        sections.append(
            _section("With the reminder, less without", "Paired by prompt and seed.", _html(_differences(numbers)))
        )
    if numbers["correlations"]:
        sections.append(
            _section(
                "Between models", "Spearman's rho of the mean length of each prompt.", _html(_correlations(numbers))
            )
        )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>budgeteer bench overflow</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(sections)
        + "\n</main>\n</body>\n</html>\n"
    )


def _section(title: str, note: str, body: str) -> str:
    return f'<section>\n<h2>{clean(title)}</h2>\n<p class="note">{clean(note)}</p>\n{body}\n</section>'


def _html(rows: list[list[str]]) -> str:
    return html_table(rows[0], [(row[0], row[1:]) for row in rows[1:]])


def _name(cell: Mapping[str, Any]) -> str:
    return str(cell["model"]) + (", reminder" if cell["arm"] == "reminder" else "")


def _overall(numbers: Mapping[str, Any]) -> list[list[str]]:
    rows = [["model", *(f"CSR@{k}" for k in numbers["at"]), "median", "90 %", "mean", "sd within"]]
    for cell in numbers["cells"]:
        within = "-" if cell["within"] is None else compact(cell["within"]["mean"] ** 0.5)
        shares = [_share(cell[f"CSR@{k}"]) for k in numbers["at"]]
        rows.append(
            [_name(cell), *shares, compact(cell["median"]), compact(cell["p90"]), _tokens(cell["mean"]), within]
        )
    return rows


def _kinds(numbers: Mapping[str, Any]) -> list[list[str]]:
    last = f"CSR@{numbers['at'][-1]}"
    rows = [["kind", "", *(_name(cell) for cell in numbers["cells"])]]
    for kind, origin in numbers["origin"].items():
        found = [cell["kinds"].get(kind) for cell in numbers["cells"]]
        rows.append([kind, _ORIGIN[origin], *("-" if one is None else _share(one[last]) for one in found)])
    return rows


def _differences(numbers: Mapping[str, Any]) -> list[list[str]]:
    rows = [["reminder, less without", *(f"CSR@{k}" for k in numbers["at"]), "mean"]]
    for one in numbers["differences"]:
        shares = [_share(one[f"CSR@{k}"], signed=True) for k in numbers["at"]]
        rows.append([one["model"], *shares, _tokens(one["mean"])])
    return rows


def _correlations(numbers: Mapping[str, Any]) -> list[list[str]]:
    rows = [["models", "rho"]]
    for one in numbers["correlations"]:
        told = "-" if one["rho"] is None else f"{one['rho']:+.2f} [{one['low']:+.2f}, {one['high']:+.2f}]"
        rows.append([f"{one['a']} and {one['b']}", told])
    return rows


def _share(found: Mapping[str, float], signed: bool = False) -> str:
    if signed:
        return f"{100 * found['mean']:+.1f} [{100 * found['low']:+.1f}, {100 * found['high']:+.1f}]"
    return f"{percent(found['mean'])} [{percent(found['low'])}, {percent(found['high'])}]"


def _tokens(found: Mapping[str, float]) -> str:
    return f"{found['mean']:,.0f} [{found['low']:,.0f}, {found['high']:,.0f}]"


def _curves(numbers: Mapping[str, Any]) -> str:
    lines = []
    for style, cell in enumerate(numbers["cells"]):
        k, mean, low, high = (list(column) for column in zip(*cell["curve"], strict=True))
        lines.append(Line(_name(cell), style, k, mean, low, high))
    legend = "".join(f"<li>{svg.swatch(line.style)}{clean(line.name)}</li>" for line in lines)
    chart = svg.line_chart(
        lines, title="Share of the answers of this length or more", x_label="tokens of an answer (log scale)",
        x_text=compact, log=True, spread="95 % interval",
    )  # fmt: skip
    return f'<ul class="legend">{legend}</ul>\n<figure class="card">{chart}</figure>'
