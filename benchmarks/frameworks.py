"""Agents of real frameworks, on a budget and on their own limits: ``python benchmarks/frameworks.py``.

Twelve scenarios with a scripted model over HTTP, which counts what it bills: a token for four bytes of a request, and
one for each word of an answer. Each framework runs in a pinned environment of its own. The arm ``budget`` bounds
requests by bytes, ``counted`` by a tokenizer that is known, and ``own`` is the framework's own limit, with no budget.
Writes ``docs/frameworks.md`` and ``benchmarks/results/frameworks.json``. Nothing is drawn at random.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from helpers.frameworks import BY_NAME, FRAMEWORKS, SCENARIOS, TOKENS, Program, arms_of, fault  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "frameworks.json"
HEADS = {
    "budget": "A budget, requests bounded by their bytes",
    "counted": "A budget, requests counted by the model's tokenizer",
    "own": "The frameworks' own limits, no budget",
}


def measure(names: list[str]) -> list[dict[str, Any]]:
    """All rows of some frameworks; each is printed as it comes."""
    rows = []
    for framework in FRAMEWORKS:
        if framework.name not in names:
            continue
        with Program(framework) as program:
            for scenario in SCENARIOS:
                for arm in arms_of(scenario, framework):
                    row = {**program.do(scenario, arm), "version": framework.version}
                    print(json.dumps(row), flush=True)
                    rows.append(row)
    return rows


def over_of(row: dict[str, Any]) -> int:
    """Tokens that were billed over the budget of the row's framework."""
    return int(row["billed"] - BY_NAME[row["framework"]].tokens)


def cell(row: dict[str, Any] | None) -> str:
    """Calls of tools that ran, tokens billed, what was over, and how it ended if there was no answer."""
    if row is None:
        return "-"
    over = over_of(row)
    found = f"{row['ran']}: {row['billed']:,}" + (f" **(+{over:,})**" if over > 0 else "")
    why = "refused" if _refused(row) else row["error"].partition(":")[0] or "no answer"
    return found if row["text"] and not row["error"] else f"{found}, `{why}`"


def _refused(row: dict[str, Any]) -> bool:
    """Whether the gateway's refusal ended the run."""
    return "tokens left of" in row["error"]


def page(rows: list[dict[str, Any]]) -> str:
    """The tables for the documentation."""
    by = {(row["framework"], row["scenario"], row["arm"]): row for row in rows}
    ours = [row for row in rows if row["arm"] != "own"]
    own = [row for row in rows if row["arm"] == "own"]
    over = [row for row in own if over_of(row) > 0]
    ended, claude = [row for row in own if row["error"]], BY_NAME["claude-agent-sdk"]
    lines = [
        "# Agents of frameworks on a budget", "",
        f"Twelve scenarios, each with a budget of {TOKENS:,} tokens ({claude.tokens:,} behind the gateway), by agents",
        "of real frameworks in pinned environments of their own, with a scripted model over HTTP that never stops",
        "calling tools by itself. It bills a token for four bytes of a request, and one for each word of an answer. A",
        "cell says how many calls of tools ran, the tokens that were billed, what is over the budget, and the error",
        "that ended the run, if one did. How to set it up: [agents](agents.md).", "",
        "`make frameworks` writes this page and `benchmarks/results/frameworks.json`; `make test-frameworks` runs the",
        "first two tables as tests. A new framework is a folder in `tests/frameworks` and an entry of `FRAMEWORKS` in",
        "`tests/helpers/frameworks.py`.", "",
        f"- On a budget, {sum(over_of(row) > 0 for row in ours)} of {len(ours)} runs went over it;",
        f"  {sum(not row['text'] for row in ours)} ended without an answer:",
        f"  {sum(not (row['text'] or _refused(row)) for row in ours)} by an error of a tool that the framework lets",
        f"  through, {sum(map(_refused, ours))} by a refusal of the gateway, where sub-agents in the background had",
        "  spent what was kept. What was charged is never below what was billed.",
        "- The frameworks' own limits count steps of an agent, set to 6 here, and know nothing of tokens; pydantic-ai",
        "  and inspect_ai count tokens, after each request (pydantic-ai before it, if told so), and the Claude Agent",
        "  SDK dollars. So they bound something else; where a run stayed below the budget that is by the size",
        f"  of its steps. {len(over)} of {len(own)} runs went over; at the worst",
        f"  {max((row['billed'] for row in own), default=0):,} tokens were billed. {len(ended)} ended by an error in",
        "  place of an answer.",
        "- LangGraph is a graph of two nodes, made by hand; LangChain's agents are such graphs. inspect_ai, DSPy,",
        "  CrewAI and LangGraph are asked for whole answers; their row `stream` is the loop again, awaited in the last",
        "  three. DSPy's ReAct calls one tool at a time. CrewAI's end after five equal calls is lifted.",
        "- The [Claude Agent SDK](agents.md#in-your-framework) makes its calls by its own command, here the real one,",
        f"  and the gateway keeps the budget of the key: {claude.tokens:,} tokens, since a request that may start",
        "  sub-agents has 14 kB. The gateway knows requests and neither agents nor tools: sub-agents have no parts,",
        "  calls of tools no limit of 20. Its policy `last-answer` forbids calls of tools and asks for the answer once",
        "  the budget no longer covers two requests of that size, which are bounded by their bytes before they are",
        "  sent. The SDK's own limit is of dollars, at $3 a million tokens of input about the same budget; it is",
        "  looked at after each request, and knows neither requests that failed after they were generated nor, soon",
        "  enough, what sub-agents spend that work in the background.",
        "- Tools of [MCP servers](agents.md#in-your-framework) are those of a real server in a loop of one's own,",
        "  whose model is asked by `budget.aanswer`; agents in tools are functions of the loop, since a server's task",
        "  does not know from whose part a call is spent. Nothing of MCP ends a run: without a budget its runs were",
        "  ended after 12 calls here.",
        "- AG2 has no limit that ends a run: `TokenMonitor` warns. Its runs were ended after 12 calls here.",
        "- smolagents asks with a prompt of 4 kB, which leaves room for a step or two within such a budget.",
        "- Bytes bound tokens four to one here, so that a budget by bytes stops early; with the model's tokenizer more",
        "  of it is used (`Bounds(tokens=...)`).",
        "- Where requests fail after they were generated, each attempt is charged what was reserved, since it may be",
        "  billed: that uses up a budget sooner, and can leave nothing for a last answer.", "",
    ]  # fmt: skip
    for arm, head in HEADS.items():
        shown = [one for one in FRAMEWORKS if any(key[0] == one.name and key[2] == arm for key in by)]
        if arm == "own":
            names = [f"{one.title} {one.limit}" for one in shown]
        else:
            names = [f"{one.title} {by[one.name, 'loop', arm]['version']}" for one in shown]
        lines += [f"## {head}", "", "| scenario | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
        for scenario, what in SCENARIOS.items():
            cells = [cell(by.get((one.name, scenario, arm))) for one in shown]
            if set(cells) == {"-"}:
                continue
            lines.append(f"| {scenario}: {what} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    every = [framework.name for framework in FRAMEWORKS]
    parser.add_argument("names", nargs="*", default=every, help="frameworks to measure anew; the others are kept")
    names = parser.parse_args().names
    kept = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    rows = [row for row in kept if row["framework"] not in names and row["framework"] in every] + measure(names)
    rows.sort(key=lambda row: every.index(row["framework"]))
    faults = {f"{row['framework']}, {row['scenario']}, {row['arm']}": fault(row) for row in rows if row["arm"] != "own"}
    for name, wrong in faults.items():
        if wrong:
            print(f"{name}: {wrong}", file=sys.stderr)
    RESULTS.write_text(json.dumps({"command": "python benchmarks/frameworks.py", "rows": rows}, indent=1) + "\n")
    (ROOT / "docs" / "frameworks.md").write_text(page(rows))


if __name__ == "__main__":
    main()
