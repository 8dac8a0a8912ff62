"""A run of an agent in a process of its own, which is killed in the second call of its tool."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from budgeteer.agent import react
from budgeteer.check.scripted import Scripted
from budgeteer.models.chat import call_of
from budgeteer.models.model import Request, Response
from budgeteer.solve import Question, Style
from budgeteer.solve.runner import Settings, run
from budgeteer.solve.tool import Tool

STYLE = Style(lambda text: f"{text}\n", lambda text: text.strip().split("\n")[0] or None, "", answer_tokens=10)


def main(folder: str, kill: str) -> None:
    """Runs until the second call of the tool, which kills it if ``kill`` says so; else until its end."""

    def log(text: str) -> None:
        with (Path(folder) / "asked.log").open("a") as file:
            file.write(text + "\n")

    class Logged(Scripted):
        async def generate(self, request: Request) -> Response:
            log("model")
            return await super().generate(request)

    async def look(arguments: Mapping[str, Any]) -> str:
        log(f"tool:{arguments['at']}")
        if arguments["at"] == "2" and kill:
            os._exit(9)
        return f"result {arguments['at']}"

    def write(prompt: str, rng: random.Random) -> str:
        seen = prompt.count("</tool_response>")
        return "4\n" if seen == 2 else call_of("look", f'{{"at": "{seen + 1}"}}')

    tool = Tool("look", "Looks.", {"at": {"type": "string"}}, look)
    settings = Settings(out=Path(folder) / "out.jsonl", durable=True, tools=lambda question: [tool])
    budget = "5k, tool:look:5"
    asyncio.run(run([Question("q", "2 + 2 =")], react(), Logged(write), STYLE, budget, settings))
