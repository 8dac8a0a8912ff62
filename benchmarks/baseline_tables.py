"""Every strategy that was measured beside the same five baselines: writes docs/baselines.md from the result files.

    python benchmarks/baseline_tables.py           # writes docs/baselines.md
    python benchmarks/baseline_tables.py --check   # fails if the page is not what the files give

Nothing is measured here. A difference has an interval where its file has one; else it is the difference of two means.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "baselines.md"
HEAD = """# Strategies beside their baselines

Written by `python benchmarks/baseline_tables.py` from the files in `benchmarks/results`; do not edit. What it means is
in [findings](findings.md#solving-under-a-budget). Differences are in points, in brackets their 95 % intervals, paired;
a number without brackets is the difference of two means, for which the file has no interval.

| column | what it is compared with |
|---|---|
| greedy | one trace at temperature 0, without a budget, or cut by the same budget where the table has budgets |
| one request, all tokens | self-consistency in one request of as many tokens, the prompt of every request counted |
| one request, prompt once | the same, if reading a prompt again were free, as with a cache |
| the check alone | the same verifier with nothing else: the greedy trace if it passes, else samples until one does |
| random choice | one sample, which is as often right as one chosen at random among any number |

A dash: the strategy uses no verifier, or no request of the file has as many tokens.
"""
COLUMNS = ("greedy", "one request, all tokens", "one request, prompt once", "the check alone", "random choice")


def difference(ci: Mapping[str, float] | float | None) -> str:
    """In points; of an interval, or of two means.

    >>> difference({"mean": 0.1, "low": -0.02, "high": 0.25}), difference(-0.1), difference(None)
    ('+10.0 [-2.0, +25.0]', '-10.0', '-')
    """
    if ci is None:
        return "-"
    if isinstance(ci, float):
        return f"{100 * ci:+.1f}"
    return f"{100 * ci['mean']:+.1f} [{100 * ci['low']:+.1f}, {100 * ci['high']:+.1f}]"


def table(rows: Sequence[Sequence[str]], first: str = "strategy", columns: Sequence[str] = COLUMNS) -> list[str]:
    """Lines of a table: name, right, a difference for each column, sampled tokens, all tokens."""
    head = [first, "right", *columns, "sampled", "all tokens"]
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]


def replayed(rows: Sequence[Mapping[str, Any]], wanted: Sequence[str], keys: tuple[str, str] | None) -> list[str]:
    """A table of a file in which every strategy has the same samples.

    Args:
        rows: of the file.
        wanted: which strategies; those that begin so.
        keys: names of the differences to one request, of all tokens and with the prompt once; None = those of
            ``benchmarks/search.py``.
    """
    of = {row["name"]: row for row in rows}
    lines = []
    for name, row in of.items():
        if not any(name == w or (w.endswith("*") and name.startswith(w[:-1])) for w in wanted):
            continue
        pair = row["minus_one_request"] if keys is None else {"all": row[keys[0]], "cached": row[keys[1]]}
        own = name.startswith("self-consistency")
        lines.append([
            f"`{name}`", f"{100 * row['accuracy']['mean']:.1f} %",
            "" if name == "greedy" else difference(row["minus_greedy"]),
            *("" if own else difference(pair[key]) for key in ("all", "cached")),
            difference(checks(of, row)),
            "" if name == "self-consistency 1"
            else difference(row["accuracy"]["mean"] - of["self-consistency 1"]["accuracy"]["mean"]),
            *(f"{mean(row[key]):,.0f}" for key in ("output", "all")),
        ])  # fmt: skip
    return table(lines)


def checks(of: Mapping[str, Mapping[str, Any]], row: Mapping[str, Any]) -> float | None:
    """Accuracy less that of the check alone with as many samples at most, or the next number; None for what uses no
    check."""
    name = row["name"]
    if not any(word in name for word in ("checked", "programmatic")) or name.startswith("greedy first"):
        return None
    alone = {int(other.split()[-1]): own for other, own in of.items() if other.startswith("greedy first, checked")}
    samples = max((int(word) for word in name.replace(",", "").split() if word.isdigit()), default=0)
    same = alone[min((n for n in alone if n >= samples), default=max(alone))]
    return float(row["accuracy"]["mean"] - same["accuracy"]["mean"])


def mean(value: Any) -> float:
    """Of a number, or of one with an interval."""
    return float(value["mean"] if isinstance(value, Mapping) else value)


def budgeted(results: Mapping[str, Any], references: Mapping[str, str]) -> list[str]:
    """A table of a file of ``budgeteer frontier``'s form: every strategy at every budget.

    Args:
        references: column -> strategy, at the same budget.
    """
    differences = {(d["a"], d["b"], d["budget"]): d for d in results["differences"]}
    right = {(p["strategy"], p["budget"]): p["accuracy"]["mean"] for p in results["points"]}
    lines = []
    for point in results["points"]:
        name, budget = point["strategy"], point["budget"]
        cells = []
        for other in references.values():
            same = differences.get((name, other, budget))
            plain = right[name, budget] - right[other, budget] if (other, budget) in right else None
            cells.append("" if name == other else difference(same or plain))
        lines.append([
            f"`{name}`, {point['limit']}", f"{100 * point['accuracy']['mean']:.1f} %", *cells,
            f"{point['tokens']['output']:,.0f}", f"{point['tokens']['output'] + point['tokens']['input']:,.0f}",
        ])  # fmt: skip
    return table(lines, "strategy, budget", list(references))


def small(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table of ``benchmarks/think_small.py``."""
    keys = ("minus_greedy", "minus_greedy_cut", "at_equal_all", "at_equal_cached", "minus_check", "minus_random")
    columns = ("greedy", "greedy cut by the same budget", *COLUMNS[1:])
    lines = []
    for row in rows:
        cells = [difference(row[key]) for key in keys]
        for cell, key in ((2, "all"), (3, "cached")):
            cells[cell] += " (8 samples, fewer tokens)" if key in row["beyond"] else ""
        lines.append([
            f"`{row['name']}`", f"{100 * row['accuracy']['mean']:.1f} %", *cells,
            *(f"{row[key]:,.0f}" for key in ("output", "all")),
        ])  # fmt: skip
    return table(lines, columns=columns)


def read(name: str) -> Any:
    """A result file; None if there is none."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def steps_of(results: Mapping[str, Any]) -> list[str]:
    """Sections of ``steps.json``."""
    lines = [
        "", "## Searches by steps on the small reasoner", "",
        "`steps.json` (`benchmarks/steps.py`), 300 chains, 5 seeds. One request at the same budget is "
        "`self-consistency`: with budgets of sampled tokens (192 and 384) the prompt is free, with 1,024 of all "
        "kinds it counts. A choice at random is as often right as `self-consistency 1` above (chains of the same "
        "kind).",
    ]  # fmt: skip
    for kind, column in (("output", COLUMNS[2]), ("all", COLUMNS[1])):
        references = {"greedy": "greedy", column: "self-consistency", COLUMNS[3]: "greedy first, checked"}
        lines += ["", *budgeted(results[kind], references)]
    return lines


def cut_of(results: Mapping[str, Any]) -> list[str]:
    """Sections of ``think_cut.json``."""
    lines = [
        "", "## Thinking under a tight budget", "",
        "`think_cut.json` (`benchmarks/think_cut.py`), the thinking model, 300 questions. Budgets of 64 to 192 are of "
        "sampled tokens, so the prompt is free; those of 96 to 384 below count it. No strategy here scores traces, so "
        "there is no check to give to both sides.",
    ]  # fmt: skip
    for kind, column in (("output", COLUMNS[2]), ("all", COLUMNS[1])):
        references = {
            "greedy": "greedy", "greedy, low effort": "greedy, low effort", column: "one request",
            COLUMNS[4]: "one sample",
        }  # fmt: skip
        lines += ["", *budgeted(results[kind], references)]
    return lines


def thinking_of(results: Mapping[str, Any]) -> list[str]:
    """Sections of ``think.json``."""
    lines = [
        "", "## Thinking and searching by steps through llama.cpp", "",
        "`think.json` (`benchmarks/think.py`), the thinking model, 300 questions, budgets of sampled tokens, so that "
        "reading a prompt again is free; the last column counts it. No strategy here uses a check: searches are led by "
        "log-probabilities. A choice at random among whole samples is as often right as `self-consistency 1` above.",
    ]  # fmt: skip
    for part in ("tight", "wide"):
        if part in results:
            references = {"greedy": "greedy"}
            if "greedy, low effort" in results[part]["strategies"]:
                references["greedy, low effort"] = "greedy, low effort"
            lines += ["", *budgeted(results[part], references | {COLUMNS[2]: "one request"})]
    return lines


def page() -> str:
    """The whole page."""
    lines = [HEAD]
    chosen = (
        "greedy*", "self-consistency 1", "self-consistency 8", "self-consistency 32", "adaptive-vote*", "best-of*",
        "length*", "split gains*", "split uniform*", "two greedy*",
    )  # fmt: skip
    few = ("greedy*", "self-consistency 32", "best-of-n checked 16", "best-of-n checked and sure 19")
    if found := read("search"):
        lines += [
            "## The small reasoner", "",
            "`search.json` (`benchmarks/search.py`), 300 chains of 1 to 8 steps a seed, 5 seeds, intervals over seeds. "
            "The check works out every step.", "", *replayed(found["table"], chosen, None),
        ]  # fmt: skip
    if found := read("steps"):
        lines += steps_of(found)
    keys = ("at_equal_all", "at_equal_cached")
    if found := read("search_thinker"):
        lines += [
            "", "## The thinking model", "",
            "`search_thinker.json` (`benchmarks/search_thinker.py`), 300 questions, 5 seeds, intervals over both. The "
            "check asks whether the calculations that a trace writes out are right.", "",
            *replayed(found["table"], chosen, keys),
        ]  # fmt: skip
        if "cooler" in found:
            part = found["cooler"]
            half, n = part["half"], part["questions"]
            lines += ["", f"Samples at temperature {part['temperature']:g}, {n} questions, {part['seeds']} seeds."]
            titles = {
                "all": "All",
                "chosen_on": f"Questions 0 to {half - 1}",
                "held_out": f"Questions {half} to {n - 1}",
            }
            for label, title in titles.items():
                lines += ["", f"{title}:", "", *replayed(part[label], chosen if label == "all" else few, keys)]
        if "fresh" in found:
            part = found["fresh"]
            lines += [
                "", f"Other questions, {part['questions']} that no arm was tried on before, samples at temperature "
                f"{part['temperature']:g}, {part['seeds']} seeds:", "", *replayed(part["all"], chosen, keys),
            ]  # fmt: skip
        if "held_out" in found:
            held = found["held_out"]
            for label, title in (("chosen_on", "Chosen on these questions"), ("held_out", "Held out")):
                part = held[label]
                lines += [
                    "", f"{title}: questions {part['first']} to {part['first'] + part['questions'] - 1}.", "",
                    *replayed(part["table"], [*chosen[:4], held["chosen"]], keys),
                ]  # fmt: skip
    if found := read("think_cut"):
        lines += cut_of(found)
    if found := read("think"):
        lines += thinking_of(found)
    for name, title in (("smollm2", "SmolLM2-135M"), ("gemma3", "Gemma 3 270M")):
        if found := read(name):
            lines += [
                "", f"## {title}: samples and checks", "",
                f"`{name}.json` (`benchmarks/smollm2.py`), {found['model']}, {found['seeds']} seeds of "
                f"{found['samples']} samples, intervals over questions and seeds.",
            ]  # fmt: skip
            for part, results in found["parts"].items():
                lines += [
                    "",
                    f"{part}, {results['questions']} questions:",
                    "",
                    *replayed(results["table"], chosen, keys),
                ]
    for name, results in (read("think_small") or {}).items():
        lines += [
            "", f"## {'SmolLM2-135M' if name == 'smollm2' else 'Gemma 3 270M'}: steers and searches by steps", "",
            f"`think_small.json` (`benchmarks/think_small.py`), {results['model']}, {results['questions']} sums, "
            f"seeds: {results['seeds']}; a number behind a name is its budget of sampled tokens. "
            "With so few questions only large differences can be seen.", "",
            *small(results["table"]),
        ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if the page is another")
    args = parser.parse_args(argv)
    if args.check:
        return int(not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page())
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
