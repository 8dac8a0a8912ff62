"""Interviews at equal turns and at equal tokens: ways that are planned against topics asked one after another.

    python benchmarks/interview.py            # writes benchmarks/results/interview.json and the table of docs/agents.md
    python benchmarks/interview.py --quick    # smoke test, writes nothing without --out

All of it is **scripted**: person and model are programs, and no language model is claimed to do the same. A guide has
12 topics. A question may name several: the person then says something of each with chance 0.95, 0.8 or 0.6 for one, two
or three, of a topic beside with chance 0.3, and half of the time brings up one of 3 topics that are not in the guide,
each tied to one of it. The model drafts three ways, with one, two and three open topics a question; as critic it sees
which topics questions name, each with chance 0.9, as note-taker what was said, each with chance 0.95, and new topics.

**fixed** asks for the guide's topics in their order, one a question, by ReAct, and stops at the end or when the person
is not to be asked any more; **fixed, two** asks for two at once, and **again, two** asks once more for those of which
nothing was said, as it reads in the conversation. **interview** is the strategy with the paper's weights, **one ahead**
looks one question ahead, **no cost** has no price of a turn, so that it ends when no topic is open. What counts is
``coverage``: topics of which something was said, of the 15. ``turns`` are questions that the person heard. Tokens are
words, all of them: drafts, judgements, notes, the person's answers when they are read, and the last answer. A budget of
turns comes with as many tokens as are wanted; a budget of tokens with as many turns. Intervals are over interviews;
``minus_fixed`` is the paired difference of coverage to **fixed** in the same interviews.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from budgeteer.agent import interview, react
from budgeteer.check.scripted import Scripted
from budgeteer.lab.stats import mean_ci, paired
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.chat import call_of
from budgeteer.solve import Budgeted, Question, Strategy, Style, Task
from budgeteer.solve.tool import Tool
from pages import Place, published

ROOT = Path(__file__).resolve().parents[1]
MARKS = ("<!-- written by benchmarks/interview.py -->", "<!-- end of interview -->")
PLACE = Place(ROOT / "benchmarks" / "results" / "interview.json", ROOT / "docs" / "agents.md", MARKS)
GUIDE = ("work", "tools", "hours", "pay", "team", "tasks", "errors", "training", "health", "travel", "plans", "thanks")
BESIDE = {"tools": "noise", "team": "gossip", "plans": "moving"}
"""Topic of the guide -> one that comes up with it."""
EVERY = (*GUIDE, *BESIDE.values())
SAYS = {1: 0.95, 2: 0.8, 3: 0.6}
"""Topics of a question -> chance that something is said of each."""
STYLE = Style(lambda text: f"{text}\n", lambda text: text.strip().split("\n")[0] or None, "", answer_tokens=40)
BUDGETS = ({"tool:ask": 4}, {"tool:ask": 8}, {"tool:ask": 16}, {"all": 2_000}, {"all": 4_000}, {"all": 8_000})
PLENTY = {"tool:ask": 99, "all": 10**6}
ARMS: dict[str, Strategy] = {
    "fixed": react(turns=24, step_tokens=40),
    "fixed, two": react(turns=24, step_tokens=40),
    "again, two": react(turns=24, step_tokens=40),
    "interview": interview(step_tokens=40),
    "one ahead": interview(horizon=1, every=1, step_tokens=40),
    "no cost": interview(cost=0.0, step_tokens=40),
}


def named(text: str) -> list[str]:
    """The topics that a text names, in its order.

    >>> named("Tell me about pay and noise.")
    ['pay', 'noise']
    """
    return [word for word in re.findall(r"[a-z]+", text) if word in EVERY]


class Interview:
    """A person and a model.

    Attributes:
        covered: topics of which something was said.
        turns: questions that the person heard.
    """

    def __init__(self, arm: str, number: int) -> None:
        self.covered: set[str] = set()
        self.turns = 0
        self._person = random.Random(f"person {number}")
        self._at_once, self._again = 2 if "two" in arm else 1, "again" in arm

    async def hear(self, arguments: Mapping[str, Any]) -> str:
        """What the person says."""
        self.turns += 1
        draw = self._person.random
        asked = named(arguments["question"])[:3]
        said = [topic for topic in asked if draw() < SAYS[len(asked)]]
        beside = self._person.choice(GUIDE)
        if draw() < 0.3:
            said.append(beside)
        said += [BESIDE[topic] for topic in said if topic in BESIDE and draw() < 0.5]
        self.covered.update(said)
        return " ".join(f"About {topic} I can tell you this and that." for topic in dict.fromkeys(said)) or "Hm."

    def write(self, prompt: str, rng: random.Random) -> str:
        """What the model writes."""
        if prompt.endswith("A:"):
            return self._drafted(_open(prompt))
        if "how likely do they bring up" in prompt:
            path = prompt.split("Questions of an interview:\n")[1].split("\nWhich")[0]
            numbers = _numbers(prompt, [topic for topic in named(path) if rng.random() < 0.9])
            return f" {numbers}\nnew: 0.3\n"
        if "of its own" in prompt:
            said = named(prompt.split("\nAnswer: ")[1].split("\nWhich")[0])
            heard = [topic for topic in said if rng.random() < 0.95]
            new = [topic for topic in heard if topic not in GUIDE and topic not in _open(prompt)]
            return f" {_numbers(prompt, heard)}\ntopic: {new[0] if new else 'none'}\n"
        asked = [topic for call in re.findall(r'"question": "(Tell[^"]*)"', prompt) for topic in named(call)]
        heard = re.findall(r"About (\w+) I can", prompt)  # by ReAct, which sees its calls and what was said
        left = [topic for topic in GUIDE if topic not in asked]
        if self._again:
            left += [topic for topic in GUIDE if topic not in heard and asked.count(topic) == 1]
        topics = left[: self._at_once]
        if not topics or "without calling tools" in prompt or "was not called" in prompt:
            return "This is what was said.\n"
        return call_of("ask", json.dumps({"question": f"Tell me about {' and '.join(topics)}."}))

    def _drafted(self, topics: Sequence[str]) -> str:
        lines = []
        for at_once, letter in enumerate("ABC", 1):
            parts = [topics[i : i + at_once] for i in range(0, len(topics), at_once)][:3]
            lines += [f"{letter}: Tell me about {' and '.join(part)}." for part in parts]
        return "\n".join(lines).removeprefix("A:") + "\n"


def _open(prompt: str) -> list[str]:
    """The topics that are listed as open."""
    listed = prompt.split("Open topics:\n")[1].split("\n")
    return [line.partition(". ")[2] for line in listed[: next(i for i, line in enumerate(listed) if ". " not in line)]]


def _numbers(prompt: str, topics: Sequence[str]) -> str:
    """The numbers of topics in the list of a prompt."""
    found = [number for topic in topics for number in re.findall(rf"^(\d+)\. {topic}$", prompt, re.MULTILINE)]
    return ", ".join(dict.fromkeys(found)) or "none"


def held(arm: str, budget: Mapping[str, int], number: int) -> dict[str, float]:
    """One interview."""
    case, amounts = Interview(arm, number), {**PLENTY, **budget}
    ledger = MemoryLedger()
    ledger.open("q", [Limit(kind, units) for kind, units in amounts.items()])
    allowance = Allowance(ledger, "q", amounts)
    model = Budgeted(Scripted(case.write, characters=False), allowance)
    guide = "Find out about\n" + "\n".join(f"{i}. {topic}" for i, topic in enumerate(GUIDE, 1))
    ask = Tool("ask", "Asks the person.", {"question": {"type": "string"}}, case.hear)
    task = Task(Question(str(number), guide), model, STYLE, number, tools=(ask,))
    asyncio.run(ARMS[arm].solve(task))
    left = allowance.remaining
    assert left["all"] >= 0 <= left["tool:ask"]
    spent = amounts["all"] - left["all"]
    return {"coverage": len(case.covered) / len(EVERY), "turns": case.turns, "tokens": spent}


def rows_of(interviews: int) -> list[dict[str, Any]]:
    """A row an arm and budget."""
    rows = []
    for budget in BUDGETS:
        found = {arm: [held(arm, budget, number) for number in range(interviews)] for arm in ARMS}
        for arm, each in found.items():
            row: dict[str, Any] = {"arm": arm, "budget": budget}
            for name in ("coverage", "turns", "tokens"):
                mean = mean_ci([one[name] for one in each])
                row[name] = [mean.mean, mean.low, mean.high]
            less = paired([one["coverage"] for one in each], [one["coverage"] for one in found["fixed"]])
            row["minus_fixed"] = [less.mean, less.low, less.high]
            rows.append(row)
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Coverage in per cent, with turns and tokens, as Markdown."""
    lines = ["", "", "| budget | way | topics covered | minus `fixed` | questions asked | tokens |", "|---" * 6 + "|"]
    for row in rows:
        ((kind, units),) = row["budget"].items()
        budget = f"{units:,} {'questions' if kind == 'tool:ask' else 'tokens'}"
        covered = "{:.0f} [{:.0f}, {:.0f}]".format(*(100 * value for value in row["coverage"]))
        less = (
            "" if row["arm"] == "fixed" else "{:+.0f} [{:+.0f}, {:+.0f}]".format(*(100 * v for v in row["minus_fixed"]))
        )
        counts = f"{row['turns'][0]:.1f} | {row['tokens'][0]:,.0f}"
        lines.append(f"| {budget} | {row['arm']} | {covered} | {less} | {counts} |")
    return "\n".join([*lines, "", ""])


def main() -> None:
    """Run, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interviews", type=int, default=100)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    rows = rows_of(3 if args.quick else args.interviews)
    out = args.out or (None if args.quick else PLACE.file)
    published({"interviews": 3 if args.quick else args.interviews, "rows": rows}, table(rows), out, PLACE)


if __name__ == "__main__":
    main()
