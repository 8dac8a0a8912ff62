"""What the programs of the frameworks share: twelve scenarios for agents that any framework can make.

A program has one function ``make(name, tools, budget, limit, stream)`` that returns an agent as a function from a
question to an answer, which may be a coroutine function; ``run(make)`` reads lines of JSON, ``{"scenario", "arm"}``,
and writes what came of each. See tests/helpers/frameworks.py, which runs the programs.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from budgeteer.metering.agents import AgentBudget
from budgeteer.metering.estimate import Bounds

BASE_URL, MODEL = os.environ["BASE_URL"], os.environ["MODEL"]
TOKENS = 12_000
"""The budget of a run."""
STEPS = 6
"""The framework's own limit, in whatever it counts."""
BOUNDS = Bounds(overhead=64, max_output=96)
PART = "25%"
"""Of what is left, for a sub-agent."""
Ask = Callable[[str], Any]


def counted(text: str) -> int:
    """Tokens as the provider counts them: a tokenizer that is known, where the arm ``budget`` has bytes."""
    return len(text.encode()) // 4 + 1


class World:
    """The tools of a scenario, and how often they ran."""

    def __init__(self, make: Callable[..., Ask], arm: str, **options: Any) -> None:
        self.make, self.ran, self.depth, self.arm = make, 0, 0, arm
        bounds = replace(BOUNDS, tokens=counted) if arm == "counted" else BOUNDS
        self.budget = None if arm == "own" else AgentBudget.parse(f"{TOKENS}, tool:search:20", bounds=bounds, **options)

    def agent(self, name: str, *tools: Callable[..., Any], stream: bool = False) -> Ask:
        limit = None if self.budget is not None else STEPS
        return self.make(name, list(tools), budget=self.budget, limit=limit, stream=stream)

    def search(self, returns: Callable[[int], Any]) -> Callable[..., Any]:
        def search(query: str) -> str:
            """Search for something.

            Args:
                query: what to search for.
            """
            self.ran += 1
            return returns(self.ran)

        return search

    def asking(self, name: str, ask: Ask, deepest: int = 99) -> Callable[..., Any]:
        """A tool that asks an agent."""

        def deeper() -> None:
            self.ran += 1
            self.depth += 1
            if self.depth > deepest:
                raise RuntimeError("too deep")

        if inspect.iscoroutinefunction(ask):

            async def tool(question: str) -> str:
                deeper()
                return str(await ask(question))
        else:

            def tool(question: str) -> str:
                deeper()
                return str(ask(question))

        tool.__name__ = tool.__qualname__ = name
        tool.__doc__ = "Ask a colleague.\n\nArgs:\n    question: what to ask.\n"
        return tool


def finding(n: int) -> str:
    return f"Finding {n}: nothing yet."


def loop(make: Any, arm: str) -> Any:
    world = World(make, arm)
    return world, world.agent("loop", world.search(finding)), "do: search"


def parallel(make: Any, arm: str) -> Any:
    world = World(make, arm)
    return world, world.agent("parallel", world.search(finding)), "do: search x6"


def stream(make: Any, arm: str) -> Any:
    world = World(make, arm)
    return world, world.agent("stream", world.search(finding), stream=True), "do: search"


def retries(make: Any, arm: str) -> Any:
    return loop(make, arm)


def fan_out(make: Any, arm: str) -> Any:
    world = World(make, arm, parts={"ask_researcher": PART})
    researcher = world.agent("researcher", world.search(finding))
    return world, world.agent("boss", world.asking("ask_researcher", researcher)), "do: ask_researcher x3"


def summariser(make: Any, arm: str) -> Any:
    world = World(make, arm)
    return world, world.agent("author", world.asking("summarise", world.agent("writer"))), "do: summarise"


def growing(make: Any, arm: str) -> Any:
    world = World(make, arm)
    return world, world.agent("growing", world.search(lambda n: finding(n) + " More of it." * 100)), "do: search"


def aborted(make: Any, arm: str) -> Any:
    world = World(make, arm, parts={"ask_researcher": PART})

    def fails(n: int) -> str:
        raise ValueError("the researcher fell over")

    researcher = world.agent("researcher", world.search(fails))
    return world, world.agent("boss", world.asking("ask_researcher", researcher)), "do: ask_researcher"


def megabytes(make: Any, arm: str) -> Any:
    world = World(make, arm)
    return world, world.agent("megabytes", world.search(lambda n: "long text " * 300_000)), "do: search"


def raises(make: Any, arm: str) -> Any:
    world = World(make, arm)

    def fails(n: int) -> str:
        raise ValueError("no such thing")

    return world, world.agent("raises", world.search(fails)), "do: search"


def hangs(make: Any, arm: str) -> Any:
    world = World(make, arm, patience=0.2)

    async def search(query: str) -> str:
        """Search for something.

        Args:
            query: what to search for.
        """
        world.ran += 1
        await asyncio.sleep(3600)
        return ""

    def blocking(n: int) -> str:
        time.sleep(3600)
        return ""

    waits = inspect.iscoroutinefunction(world.agent("probe"))
    return world, world.agent("hangs", search if waits else world.search(blocking)), "do: search"


def recursion(make: Any, arm: str) -> Any:
    world = World(make, arm, parts={"ask_worker": "50%"})
    asks: list[Ask] = []
    if inspect.iscoroutinefunction(world.agent("probe")):

        async def again(question: str) -> str:
            return str(await asks[0](question))
    else:

        def again(question: str) -> str:
            return str(asks[0](question))

    asks.append(world.agent("worker", world.asking("ask_worker", again, deepest=12)))
    return world, asks[0], "do: ask_worker"


SCENARIOS = {
    "loop": loop, "parallel tools": parallel, "stream": stream, "retries": retries, "fan-out": fan_out,
    "summariser": summariser, "growing context": growing, "aborted child": aborted, "megabytes": megabytes,
    "tool that raises": raises, "tool that hangs": hangs, "recursion": recursion,
}  # fmt: skip


def do(make: Callable[..., Ask], scenario: str, arm: str) -> dict[str, Any]:
    """What comes of a scenario: the answer or the error, how often tools ran, and what was charged."""
    world, ask, question = SCENARIOS[scenario](make, arm)
    text, error = "", ""
    for _ in range(50 if scenario == "retries" else 1):  # whoever asked tries again
        try:
            said = asyncio.run(ask(question)) if inspect.iscoroutinefunction(ask) else ask(question)
            text, error = str(said), ""
            break
        except Exception as raised:
            error = f"{type(raised).__name__}: {str(raised)[:200]}"
            if "500" not in error and "overloaded" not in error:
                break
    found: dict[str, Any] = {"text": text[:200], "error": error, "ran": world.ran}
    if world.budget is not None:
        allowance = world.budget.allowance
        book = allowance._ledger.snapshot()[1].accounts["agent"].books["all"]
        found |= {"charged": book.spent, "held": book.held, "left": allowance.remaining["all"]}
    return found


def run(make: Callable[..., Ask]) -> None:
    """Do the scenarios that come line by line, and write what came of each as a line of JSON."""
    out, sys.stdout = sys.stdout, sys.stderr  # some libraries print
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            found = do(make, asked["scenario"], asked["arm"])
        except BaseException:
            found = {"failed": traceback.format_exc()[-3000:]}
        out.write(json.dumps(found) + "\n")
        out.flush()
    os._exit(0)  # threads of tools that hang
