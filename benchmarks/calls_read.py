"""How many calls of tools can be read and made that small models write: told how by placeholders, or by an example.

    python benchmarks/calls_read.py DATA.jsonl.gz --work DIR    # writes its JSON
    python benchmarks/calls_read.py --table                     # writes the table of docs/agents.md, no more

DATA is that of ``agent_strategies.py``. SmolLM2-135M-Instruct is asked in a chat, Gemma 3 270M (base; ``gemma3.py``
says where from) goes on with raw text, both through llama.cpp, without worked examples. Each question has one tool,
``search`` of 2WikiMultihopQA's sentences, or ``lookup`` of the task ``lookups``. What is measured is the first step of
an agent: greedy, at most 64 tokens. It is told how to call the tool by what :mod:`budgeteer.agent.calling` writes, or
by the placeholders that stood there before: {"name": "...", "arguments": {...}}.

``written`` is the share of steps with a call, ``made`` of those with one that has a tool's name and arguments that fit
its schema, ``gaps`` of those that repeat a placeholder, ``copied`` of those whose call is the example's. Intervals are
Wilson's over questions; ``more`` is the paired difference of ``made``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from agent_strategies import PLAIN, per_cent, read_rows, searches
from budgeteer.agent.calling import example
from budgeteer.agent.turns import Agent
from budgeteer.lab import questions
from budgeteer.lab.questions import QuestionSet
from budgeteer.lab.stats import paired, wilson
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.chat import Message, Prompt, calls_in
from budgeteer.models.llama_cpp import LlamaCpp
from budgeteer.models.model import Request
from budgeteer.solve import Budgeted, Style, Task, styles
from gemma3 import gemma3
from pages import between

ROOT = Path(__file__).resolve().parents[1]
OUT, PAGE = ROOT / "benchmarks" / "results" / "calls_read.json", ROOT / "docs" / "agents.md"
PLACEHOLDERS = 'write\n<tool_call>\n{"name": "...", "arguments": {...}}\n</tool_call>'
TOLD = ("placeholders", "example")
TITLES = {"smollm2": "SmolLM2-135M-Instruct, chat", "gemma3": "Gemma 3 270M (base), raw text"}
CAP = 64


def changed(prompt: Prompt, new: str, old: str) -> Prompt:
    """The prompt with another text in place of one that stands in it once."""
    if isinstance(prompt, str):
        assert prompt.count(new) == 1
        return prompt.replace(new, old)
    *before, last = prompt.messages
    return replace(prompt, messages=(*before, Message(last.role, str(changed(last.content, new, old)))))


async def steps(asked: QuestionSet, model: LlamaCpp, style: Style) -> list[dict[str, Any]]:
    """A row a question and way to tell: what the model wrote, and whether it is a call that can be made."""
    assert asked.tools is not None
    rows = []
    for question in asked.questions:
        tools = tuple(asked.tools(question))
        ledger = MemoryLedger()
        ledger.open("q", [Limit("all", 10**6)])
        budgeted = Budgeted(model, Allowance(ledger, "q", {"all": 10**6}))
        prompt = Agent(Task(question, budgeted, style, 0, tools=tools)).prompt(())
        shown = example(tools[0], question.text)
        for told in TOLD:
            given = prompt if told == "example" else changed(prompt, f"write for example\n{shown}", PLACEHOLDERS)
            stop = ("</tool_call>", "<tool_response>", "Question:")
            response = await model.generate(Request(given, CAP, temperature=0.0, stop=stop))
            text = response.choices[0].text
            calls = calls_in(text + "\n</tool_call>" if "<tool_call>" in text else text)
            known = {tool.name: tool for tool in tools}
            rows.append(
                {
                    "question": question.text,
                    "told": told,
                    "text": text,
                    "input": response.usage.input,
                    "written": bool(calls),
                    "made": any(call.name in known and not known[call.name].wrong(call.arguments) for call in calls),
                    "gaps": '"..."' in text or "{...}" in text,
                    "copied": any(call == calls_in(shown)[0] for call in calls),
                }
            )
    return rows


def analysed(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Shares by the way to tell, and what the example adds."""
    found: dict[str, Any] = {}
    by = {told: [row for row in rows if row["told"] == told] for told in TOLD}
    for told, own in by.items():
        shares = {key: wilson(sum(row[key] for row in own), len(own)) for key in ("written", "made", "gaps", "copied")}
        found[told] = {key: {"mean": ci.mean, "low": ci.low, "high": ci.high} for key, ci in shares.items()}
        found[told] |= {"questions": len(own), "input": sum(row["input"] for row in own) / len(own)}
    more = paired(*([float(row["made"]) for row in by[told]] for told in reversed(TOLD)))
    found["more"] = asdict(more)
    return found


async def measured(args: argparse.Namespace) -> dict[str, Any]:
    """Both models on both tools."""
    found: dict[str, Any] = {}
    sets = {
        "search": searches(read_rows(args.data)[: args.limit]),
        "lookup": questions.load("lookups", limit=args.limit, seed=1),
    }
    for name in TITLES:
        model = LlamaCpp(gemma3(args.work) if name == "gemma3" else None, slots=1, context=2048, threads=1, stall=900.0)
        try:
            for tool, asked in sets.items():
                style = PLAIN if name == "gemma3" else styles.style_of("chat", asked.info.by(model))
                rows = await steps(asked, model, style)
                found.setdefault(name, {})[tool] = analysed(rows) | {"rows": rows}
        finally:
            await model.aclose()
    return found


BEGIN, END = "<!-- written by benchmarks/calls_read.py --table -->", "<!-- end of calls_read -->"


def table(found: Mapping[str, Any]) -> str:
    """A row a model, tool and way to tell, in per cent, as Markdown."""
    lines = [
        "",
        "",
        "| model | tool | told by | tokens read | wrote a call | one that can be made | with gaps | copied |",
    ]
    lines += ["|---" * 8 + "|"]
    for name, tools in found.items():
        for tool, by in tools.items():
            for told in TOLD:
                shares = " | ".join(per_cent(by[told][key]) for key in ("written", "made", "gaps", "copied"))
                lines.append(f"| {TITLES[name]} | `{tool}` | {told} | {by[told]['input']:.0f} | {shares} |")
    return "\n".join([*lines, "", ""])


def main() -> None:
    """Ask and write, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default=None, help="2WikiMultihopQA with candidate sentences, JSON lines")
    parser.add_argument("--work", type=Path, default=None, help="folder in which Gemma's weights are joined")
    parser.add_argument("--limit", type=int, default=20, help="questions of each tool (default %(default)s)")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--table", action="store_true", help="write the table of the page from the file, no more")
    args = parser.parse_args()
    if args.table:
        PAGE.write_text(between(PAGE.read_text(), table(json.loads(args.out.read_text())), BEGIN, END))
        return
    if args.data is None or args.work is None:
        parser.error("give DATA and --work")
    args.out.write_text(json.dumps(asyncio.run(measured(args)), indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
