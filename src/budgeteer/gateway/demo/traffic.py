"""The callers of the demonstration: three, each with its own key and stages, which call until they are cancelled."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

_ASKS = {
    "plan": "Plan a small garden in three steps.",
    "write": "Write two sentences about the sea.",
    "review": "What is wrong with: the cat sat in the mat?",
    "summarise": "Say in ten words why budgets help.",
}


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller: who calls, how often, and for what.

    Attributes:
        name, path, limits: the fields of its key.
        stages: the stages of its requests, in turn.
        pause: mean seconds between its calls.
        output: the most output tokens of a call.
        leaves: share of its streams that it leaves before their end.
    """

    name: str
    path: str
    limits: tuple[str, ...]
    stages: tuple[str, ...]
    pause: float
    output: int
    leaves: float


CALLERS = (
    Caller("roomy", "acme/search", ("$5/day", "parallel:8"), ("plan", "write", "review"), 2.0, 24, 0.35),
    Caller("tight", "acme/support", ("4k/hour", "requests:20/60s"), ("write", "review"), 4.0, 16, 0.0),
    Caller("spent in a minute", "acme/batch", ("700",), ("summarise",), 2.5, 16, 0.0),
)
"""A call of the last caller uses about 60 tokens and reserves about 300, so its 700 tokens last for 7 calls."""


async def run(root: str, model: str, keys: Mapping[str, str], seed: int = 0) -> None:
    """Call the gateway until cancelled.

    Args:
        root: the gateway's address.
        model: the model to call.
        keys: name of a caller -> the token of its key.
        seed: seed of the random pauses.
    """
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as session:
        await asyncio.gather(
            *(
                _call(session, f"{root}/v1/chat/completions", model, caller, keys[caller.name], random.Random(seed + n))
                for n, caller in enumerate(CALLERS)
            )
        )


async def _call(
    session: aiohttp.ClientSession, url: str, model: str, caller: Caller, key: str, rng: random.Random
) -> None:
    number = 0
    while True:
        stage = caller.stages[number % len(caller.stages)]
        number += 1
        about = {
            "model": model,
            "messages": [{"role": "user", "content": f"{_ASKS[stage]} ({number})"}],
            "max_completion_tokens": caller.output,
            "stream": rng.random() < 0.7,
        }
        headers = {
            "authorization": f"Bearer {key}",
            "x-budgeteer-stage": stage,
            "x-budgeteer-session": f"run-{number // 6}",
        }
        leaves = about["stream"] and rng.random() < caller.leaves
        try:
            async with session.post(url, json=about, headers=headers) as response:
                seen = 0
                async for _ in response.content.iter_any():
                    seen += 1
                    if leaves and seen > 5:
                        response.close()
                        break
        except (aiohttp.ClientError, TimeoutError):
            pass
        await asyncio.sleep(rng.expovariate(1 / caller.pause))
