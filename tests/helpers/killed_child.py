"""A run against an endpoint, to be killed: python killed_child.py URL OUT BUDGET question|total."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

from budgeteer.core.errors import ModelError
from budgeteer.core.usage import Usage
from budgeteer.models.chat import Prompt, contents
from budgeteer.models.model import Choice, Chunk, Finish, Request, Response
from budgeteer.solve import Question, Style
from budgeteer.solve.runner import Settings, run
from budgeteer.solve.styles import normal
from helpers.strategies import vote

QUESTIONS = [Question(f"q{i}", f"{i} + 1") for i in range(16)]
STYLE = Style(lambda text: f"{text} =", lambda text: text.split("\n")[0].strip() or None, "</think>", normal=normal)


class Endpoint:
    """The least that a model of an endpoint can be; it sends the call's number along, so that equal ones show."""

    name, capabilities = "endpoint", frozenset[str]()

    def __init__(self, url: str) -> None:
        self.url = url

    def count(self, prompt: Prompt) -> int:
        return sum(map(len, contents(prompt)))

    async def generate(self, request: Request) -> Response:
        body = {"prompt": request.prompt, "max_tokens": request.max_tokens, "seed": request.seed}
        return await asyncio.to_thread(self._post, json.dumps(body).encode())

    def _post(self, body: bytes) -> Response:
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url, body), timeout=30) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            raise ModelError(f"status {error.code}", billed=error.code >= 500) from error
        except OSError as error:
            raise ModelError(f"no answer: {error}", billed=True) from error
        usage = Usage(input=answer["usage"]["prompt_tokens"], output=answer["usage"]["completion_tokens"])
        return Response((Choice(answer["choices"][0]["text"], usage.output, Finish.STOP),), usage)

    async def stream(self, request: Request) -> AsyncIterator[Chunk | Response]:
        yield await self.generate(request)

    async def aclose(self) -> None:
        pass


def main() -> None:
    url, out, budget, per = sys.argv[1:]
    outcome = asyncio.run(
        run(
            QUESTIONS, vote(n=6), Endpoint(url), STYLE, budget,
            Settings(per_question=per == "question", concurrency=4, out=Path(out)),
        )
    )  # fmt: skip
    print(json.dumps({"spent": outcome.spent["all"], "over": outcome.overshoot["all"], "limit": outcome.limit["all"]}))


if __name__ == "__main__":
    main()
