"""What came of real clients through a real gateway, and what it cost: ``python benchmarks/clients.py [CLIENT...]``.

Every cell is a case that a client did in its pinned environment (``make test-clients`` runs the same as tests), before
an upstream that counts what it bills. Writes ``docs/clients.md`` and ``benchmarks/results/clients.json``; of clients
that are not named, what is there stays.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from helpers.clients import CASES, CLIENTS, Bench, Client, rows  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "clients.json"
PAGE = ROOT / "docs" / "clients.md"
TITLES = {
    "chat": "chat", "stream": "stream", "tools": "tools", "structured": "structured output", "spent": "budget spent",
    "responses": "Responses API", "turns": "three turns with tools",
}  # fmt: skip


def measure(client: Client, bench: Bench) -> dict[str, Any]:
    """All cases of a client."""
    about = {"client": client.name, "package": client.package, "version": client.version}
    cells = {
        row.case: {
            "billed": row.cost.billed, "charged": row.cost.charged, "served": row.cost.served,
            "refused": row.cost.refused, "error": row.found.get("error", ""), "fault": row.fault,
        }
        for row in rows(client, bench)
    }  # fmt: skip
    return {**about, "cases": cells}


def shown(cell: dict[str, Any]) -> str:
    """A cell of the table."""
    if cell["fault"]:
        return "fails, see the results"
    if cell["error"]:
        return f"`{cell['error'].rpartition('.')[2]}`"
    return f"{cell['billed']} = {cell['charged']}" + (", asked again" if cell["refused"] else "")


def page(found: list[dict[str, Any]]) -> str:
    """The table for the documentation."""
    titles = {client.name: client.title for client in CLIENTS}
    lines = [
        "# Clients of the gateway", "",
        "What real clients do through the gateway, each in a pinned environment of its own, before a scripted",
        "upstream. A cell says what the upstream billed and what the gateway charged, in tokens: `=`, and the client",
        "got what the model said, in pieces where it asked for a stream, from a tool that it called, as an object of",
        "its schema. Where the budget is spent it is the client's own error, which says how much is left, after",
        "one request: none of them asks again. `-`: not among the cases of this client.", "",
        "`make test-clients` runs all cells as tests; `make clients` writes this page and",
        "`benchmarks/results/clients.json`. A new client is a folder in `tests/clients` with its pinned environment",
        "and a program, and an entry of `CLIENTS` in `tests/helpers/clients.py`.", "",
        "| client | package | " + " | ".join(TITLES[case] for case in CASES) + " |", "|---|---|" + "---|" * len(CASES),
    ]  # fmt: skip
    for row in found:
        cells = [shown(row["cases"][case]) if case in row["cases"] else "-" for case in CASES]
        lines.append(f"| {titles[row['client']]} | {row['package']} {row['version']} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *NOTES, ""])


NOTES = [
    "- asked again: Anthropic's tool runners begin a conversation that the provider stores, are refused once, and then",
    "  [send the messages whole](gateway.md#what-cannot-be-bounded).",
    "- Vercel's SDK, OpenAI's Agents SDK, and OpenAI's libraries in the last two columns use the Responses API;",
    "  LangChain and pydantic-ai do so for the three turns, and chat completions else.",
    "- LlamaIndex, LangGraph, DSPy (ReAct) and smolagents call tools by an agent; instructor has the model fill the",
    "  arguments of a tool, and streams an object.",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clients", nargs="*", choices=[[], *(client.name for client in CLIENTS)], help="default: all")
    names = parser.parse_args().clients
    before = json.loads(RESULTS.read_text())["clients"] if RESULTS.exists() else []
    found = {row["client"]: row for row in before}
    with Bench() as bench:
        for client in CLIENTS:
            if not names or client.name in names:
                found[client.name] = measure(client, bench)
                print(json.dumps(found[client.name]), flush=True)
    kept = [found[client.name] for client in CLIENTS if client.name in found]
    RESULTS.write_text(json.dumps({"command": "python benchmarks/clients.py", "clients": kept}, indent=1) + "\n")
    PAGE.write_text(page(kept))
    sys.exit(any(cell["fault"] for row in kept for cell in row["cases"].values()))


if __name__ == "__main__":
    main()
