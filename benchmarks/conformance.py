"""What a scripted provider billed against what each adapter charged: ``python benchmarks/conformance.py``.

Every cell is a real run of one scenario through one adapter, over HTTP, on a ledger in a file. The provider counts what
it bills as it generates; the charge is what the ledger has settled when nothing is held any more. Where the provider
says its usage the two are equal; everywhere the charge is not below the bill. Writes ``docs/conformance.md`` and
``benchmarks/results/conformance.json``.

A new adapter is one entry of ``ADAPTERS``: a coroutine function that makes one ask of an endpoint on an allowance.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from asyncio import StreamWriter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import openai  # noqa: E402

import budgeteer.ledger.reserved as reserved  # noqa: E402
from budgeteer.adapters.openai import wrap  # noqa: E402
from budgeteer.ledger import Allowance, Limit, SqliteLedger  # noqa: E402
from budgeteer.metering.estimate import Bounds  # noqa: E402
from helpers.answers import opened, say, used  # noqa: E402
from helpers.upstream import Step, Upstream, answer  # noqa: E402

LIMIT, CAP, READ = 100_000, 50, 20
"""The account's units; the cap of an answer; tokens that the provider bills for any prompt."""
BOUNDS = Bounds(overhead=64, max_output=CAP)
PROMPT = "Say hello to everybody who is here"
LIFE = 1
"""Seconds that a reservation lives, in the scenarios that last longer or crash."""


@dataclass(frozen=True)
class Ask:
    """What an adapter is to do.

    Attributes:
        stream, tools, embeddings: the kind of call; with tools the model calls one.
        choices: how many answers.
        leave: words of a stream after which it is left; 0 reads it to its end.
        retries: of the client.
        timeout, cancel: seconds until the client gives up; from its arrival until the call is cancelled.
        fails: whether the client may raise what became of the call.
    """

    stream: bool = False
    tools: bool = False
    embeddings: bool = False
    choices: int = 1
    leave: int = 0
    retries: int = 0
    timeout: float = 30.0
    cancel: float | None = None
    fails: bool = False


class Bill:
    """What the provider bills, and its steps: each answers a request and bills it as it generates."""

    def __init__(self) -> None:
        self.units, self.calls = 0, 0
        self.lock, self.arrived, self.go = threading.Lock(), threading.Semaphore(0), threading.Event()

    def add(self, units: int) -> None:
        with self.lock:
            self.units += units

    def answer(self, made: int = 7, says: bool = True, seconds: float = 0.0, **more: Any) -> Step:
        """A whole answer, or the same as a stream; with tools the first one calls one."""

        async def step(server: Upstream, writer: StreamWriter, path: str, body: Any) -> None:
            first = not any(message.get("role") == "tool" for message in body.get("messages", ()))
            self.calls += 1
            self.add(READ + made)
            self.arrived.release()
            await asyncio.sleep(seconds)
            message: dict[str, Any] = {"role": "assistant", "content": "Hello there", **more.get("message", {})}
            if body.get("tools") and first:
                call = {"id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"where": "here"}'}}
                message = {"role": "assistant", "content": None, "tool_calls": [call]}
            finish = "tool_calls" if "tool_calls" in message else "stop"
            choices = [{"index": i, "finish_reason": finish, "message": message} for i in range(body.get("n") or 1)]
            found = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": choices}
            if says:
                found["usage"] = used(READ, made, more.get("cached"), more.get("reasoning"))
            await answer(writer, 200, found)

        return step

    async def embedding(self, server: Upstream, writer: StreamWriter, path: str, body: Any) -> None:
        """An embedding of any text."""
        self.add(READ)
        data = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]
        usage = {"prompt_tokens": READ, "total_tokens": READ}
        await answer(writer, 200, {"object": "list", "model": "m", "data": data, "usage": usage})

    def words(
        self, n: int, pause: float = 0.0, kind: str = "text/event-stream", end: str = "\n\n", says: bool = True
    ) -> Step:
        """A stream of words, billed one by one as long as somebody listens, whatever the cap.

        ``kind``: its content type; ``end``: of an event; ``says``: whether it tells its usage.
        """

        async def step(server: Upstream, writer: StreamWriter, path: str, body: Any) -> None:
            self.add(READ)
            opened(writer, kind)
            base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}

            async def send(data: Any) -> None:
                await say(writer, data if isinstance(data, str) else {**base, **data}, end)

            for _ in range(n):
                self.add(1)
                delta = {"role": "assistant", "content": "word "}
                await send({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
                await asyncio.sleep(pause)
            await send({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            if says and (body.get("stream_options") or {}).get("include_usage"):
                await send({"choices": [], "usage": used(READ, n)})
            await send("[DONE]")
            writer.close()

        return step

    async def failure(self, server: Upstream, writer: StreamWriter, path: str, body: Any) -> None:
        """A failure after the whole answer was generated."""
        self.add(READ + 10)
        again = [("retry-after", "0"), ("retry-after-ms", "1")]
        await answer(writer, 500, {"error": {"message": "overloaded", "type": "x"}}, again)

    async def hangs(self, server: Upstream, writer: StreamWriter, path: str, body: Any) -> None:
        """Generates and never answers."""
        self.add(READ + 7)
        self.arrived.release()
        await asyncio.to_thread(self.go.wait, 60)
        writer.close()


@dataclass(frozen=True)
class Scenario:
    """One row: the ask, what the provider does, and whether it says its usage, so that bill and charge are equal."""

    name: str
    what: str
    ask: Ask
    script: Callable[[Bill], list[Callable[..., None]]]
    equal: bool = True
    needs: str = ""


SCENARIOS = [
    Scenario("plain", "one answer", Ask(), lambda b: [b.answer()]),
    Scenario("stream", "a stream, read to its end", Ask(stream=True), lambda b: [b.words(9)]),
    Scenario("cut stream", "left after 3 of 50 words", Ask(stream=True, leave=3), lambda b: [b.words(50, 0.02)], False),
    Scenario(
        "retries", "two attempts fail after they generated, the client tries again", Ask(retries=2, fails=True),
        lambda b: [b.failure, b.failure, b.answer()], False,
    ),
    Scenario("tools", "the model calls a tool", Ask(tools=True), lambda b: [b.answer()]),
    Scenario("several choices", "three answers at once", Ask(choices=3), lambda b: [b.answer(21)], needs="choices"),
    Scenario("embeddings", "no output", Ask(embeddings=True), lambda b: [b.embedding], needs="embeddings"),
    Scenario(
        "time-out", "the client gives up before the answer", Ask(timeout=1, fails=True),
        lambda b: [b.answer(seconds=2)], False
    ),
    Scenario(
        "cancellation", "the task is cancelled before the answer", Ask(cancel=0.3, fails=True),
        lambda b: [b.answer(seconds=1)],
        False, "cancellation",
    ),
    Scenario("missing usage", "the provider says nothing", Ask(), lambda b: [b.answer(says=False)], False),
    Scenario("cached tokens", "12 of the prompt's are read from a cache", Ask(), lambda b: [b.answer(cached=12)]),
    Scenario("reasoning", "25 of 32 output tokens are not shown", Ask(), lambda b: [b.answer(32, reasoning=25)]),
    Scenario(
        "refusal", "the model refuses, and is paid for it", Ask(fails=True),
        lambda b: [b.answer(message={"content": None, "refusal": "I cannot say hello to everybody"})],
    ),
    Scenario(
        "ignored cap", "a stream of 400 words, called application/json, without a usage", Ask(stream=True),
        lambda b: [b.words(8 * CAP, kind="application/json", says=False)], False,
    ),
    Scenario(
        "other empty lines", "a stream of 400 words whose events end with two carriage returns", Ask(stream=True),
        lambda b: [b.words(8 * CAP, end="\r\r")],
    ),
    Scenario("crash", "kill -9 in mid-call", Ask(), lambda b: [b.hangs], False),
    Scenario(
        "long call", "longer than its reservation lives, which stays held", Ask(),
        lambda b: [b.answer(seconds=2.5 * LIFE)],
    ),
]  # fmt: skip


# adapters: each makes one ask of an endpoint


def _body(ask: Ask) -> dict[str, Any]:
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": CAP}
    if ask.tools:
        schema = {"type": "object", "properties": {"where": {"type": "string"}}, "required": ["where"]}
        body["tools"] = [{"type": "function", "function": {"name": "look", "parameters": schema}}]
    if ask.choices > 1:
        body["n"] = ask.choices
    return body


async def openai_sync(url: str, allowance: Allowance, ask: Ask) -> None:
    """OpenAI, wrapped."""
    client = wrap(_client(openai.OpenAI, url, ask), allowance, bounds=BOUNDS)

    def call() -> None:
        if ask.embeddings:
            client.embeddings.create(model="m", input=PROMPT)
        elif ask.stream:
            with client.chat.completions.create(**_body(ask), stream=True) as stream:
                for n, _ in enumerate(stream, 1):
                    if n == ask.leave:
                        break
        else:
            client.chat.completions.create(**_body(ask))

    await asyncio.to_thread(call)


async def openai_async(url: str, allowance: Allowance, ask: Ask) -> None:
    """AsyncOpenAI, wrapped."""
    await _ask(wrap(_client(openai.AsyncOpenAI, url, ask), allowance, bounds=BOUNDS), ask)


async def pydantic_ai(url: str, allowance: Allowance, ask: Ask) -> None:
    """An agent of pydantic-ai."""
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    from budgeteer.adapters.pydantic_ai import BudgetedModel

    model = OpenAIChatModel("m", provider=OpenAIProvider(openai_client=_client(openai.AsyncOpenAI, url, ask)))
    agent: Any = Agent(BudgetedModel(model, allowance, bounds=BOUNDS))
    if ask.tools:

        @agent.tool_plain
        def look(where: str) -> str:
            return where

    if not ask.stream:
        await agent.run(PROMPT)
        return
    with contextlib.suppress(_LeftEarly):
        async with agent.run_stream(PROMPT) as result:
            n = 0
            async for _ in result.stream_text(delta=True, debounce_by=None):
                n += 1
                if n == ask.leave:
                    raise _LeftEarly


async def openai_agents(url: str, allowance: Allowance, ask: Ask) -> None:
    """An agent of the OpenAI Agents SDK."""
    import agents

    from budgeteer.adapters.openai_agents import BudgetedProvider

    client = _client(openai.AsyncOpenAI, url, ask)
    provider = BudgetedProvider(
        allowance, agents.OpenAIProvider(openai_client=client, use_responses=False), bounds=BOUNDS
    )
    tools: list[Any] = [agents.function_tool(_look, name_override="look")] if ask.tools else []
    agent = agents.Agent(name="a", model="m", tools=tools)
    if not ask.stream:
        config = agents.RunConfig(model_provider=provider, tracing_disabled=True)
        await agents.Runner.run(agent, PROMPT, run_config=config)
        return
    stream: Any = provider.get_model("m").stream_response(
        None, PROMPT, agents.ModelSettings(), [], None, [], agents.ModelTracing.DISABLED,
        previous_response_id=None, conversation_id=None, prompt=None,
    )  # fmt: skip
    async with contextlib.aclosing(stream) as events:
        n = 0
        async for event in events:
            n += event.type == "response.output_text.delta"
            if ask.leave and n == ask.leave:
                break


async def gateway(url: str, allowance: Allowance, ask: Ask) -> None:
    """Any client, through the gateway: here AsyncOpenAI, which knows nothing of budgets."""
    with tempfile.TemporaryDirectory() as folder, _gateway(Path(folder), url, allowance) as (root, key):
        client = openai.AsyncOpenAI(base_url=root, api_key=key, max_retries=ask.retries, timeout=ask.timeout)
        await _ask(client, ask)


ADAPTERS: dict[str, tuple[Callable[[str, Allowance, Ask], Awaitable[None]], dict[str, str]]] = {
    "openai": (openai_sync, {"cancellation": "a thread's call cannot be cancelled"}),
    "openai, async": (openai_async, {}),
    "pydantic-ai": (
        pydantic_ai, {"choices": "the framework asks for one", "embeddings": "not by its models for chats"},
    ),
    "openai-agents": (openai_agents, {"choices": "the SDK asks for one", "embeddings": "the SDK has none"}),
    "gateway": (gateway, {}),
}  # fmt: skip
"""Name -> how it makes an ask, and what it cannot do, with the reason."""


class _LeftEarly(Exception):
    """The caller changed its mind."""


def _look(where: str) -> str:
    """Look there."""
    return where


def _client(kind: Any, url: str, ask: Ask) -> Any:
    return kind(base_url=url, api_key="x", max_retries=ask.retries, timeout=ask.timeout)


async def _ask(client: openai.AsyncOpenAI, ask: Ask) -> None:
    if ask.embeddings:
        await client.embeddings.create(model="m", input=PROMPT)
    elif ask.stream:
        stream: Any = await client.chat.completions.create(**_body(ask), stream=True)
        n = 0
        async for _ in stream:
            n += 1
            if n == ask.leave:
                await stream.close()
                break
    else:
        await client.chat.completions.create(**_body(ask))


@contextlib.contextmanager
def _gateway(folder: Path, url: str, allowance: Allowance) -> Iterator[tuple[str, str]]:
    """A gateway on the allowance's ledger, with a key whose limit is the allowance's."""
    from helpers.gateway_fixture import Running, toml

    ledger: Any = allowance._ledger
    text = toml([("one", url, ["m"], "")], ledger=str(ledger._path))
    with Running(folder, text, ttl=reserved.TTL) as running:
        yield running.url, running.key(f"all:{allowance.remaining['all']}")


# running


def spent(ledger: SqliteLedger) -> tuple[int, int]:
    """Units settled, and units held, of the account and all below."""
    _, state = ledger.snapshot()
    books = [account.books["all"] for account in state.accounts.values() if "all" in account.books]
    return max((book.spent for book in books), default=0), max((book.held for book in books), default=0)


async def cell(adapter: str, scenario: Scenario, folder: Path) -> dict[str, Any]:
    """Run one: what was billed and charged, or why it does not apply."""
    call, lacks = ADAPTERS[adapter]
    if scenario.needs in lacks:
        return {"adapter": adapter, "scenario": scenario.name, "why": lacks[scenario.needs]}
    bill = Bill()
    path = folder / f"{adapter}-{scenario.name}.db".replace(" ", "-").replace(",", "")
    kept: bool | None = None
    life, reserved.TTL = reserved.TTL, LIFE if scenario.name in ("crash", "long call") else reserved.TTL
    try:
        with Upstream(*scenario.script(bill)) as provider, SqliteLedger(path) as ledger:
            ledger.open("acme", [Limit("all", LIMIT)])
            if scenario.name == "crash":
                crash(adapter, provider.url, path, bill)
            elif scenario.name == "long call":
                kept = await long_call(call, provider.url, ledger, bill)
            else:
                await make_ask(call, provider.url, ledger, scenario.ask, bill)
            bill.go.set()
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                await asyncio.sleep(0.05)
                ledger.remaining("acme")
                charged, held = spent(ledger)
                if not held:
                    break
            await asyncio.sleep(0.1 if scenario.equal else 0.5)  # what the provider still generates is billed as well
            charged, held = spent(ledger)
            ledger.verify()
    finally:
        reserved.TTL = life
    row = {
        "adapter": adapter, "scenario": scenario.name, "billed": bill.units, "charged": charged, "held": held,
        "equal": scenario.equal,
    }  # fmt: skip
    return row if kept is None else {**row, "held all the while": kept}


async def make_ask(call: Callable[..., Awaitable[None]], url: str, ledger: SqliteLedger, ask: Ask, bill: Bill) -> None:
    """Make an ask; that it fails is part of some scenarios."""
    task = asyncio.ensure_future(call(url, Allowance(ledger, "acme", {"all": LIMIT}), ask))
    if ask.cancel is not None:
        await asyncio.to_thread(bill.arrived.acquire, timeout=60)
        await asyncio.sleep(ask.cancel)
        task.cancel()
    try:
        await task
    except (asyncio.CancelledError, Exception):
        if not ask.fails:
            raise


async def long_call(call: Callable[..., Awaitable[None]], url: str, ledger: SqliteLedger, bill: Bill) -> bool:
    """Whether a call's units are still held, and not charged, when its reservation would have ended."""
    under_way = asyncio.ensure_future(call(url, Allowance(ledger, "acme", {"all": LIMIT}), Ask()))
    await asyncio.to_thread(bill.arrived.acquire, timeout=30)
    await asyncio.sleep(1.6 * LIFE)
    ledger.remaining("acme")  # has what was abandoned by now charged
    charged, held = spent(ledger)
    await under_way
    return held > 0 and charged == 0


def crash(adapter: str, url: str, path: Path, bill: Bill) -> None:
    """A process that makes the ask, killed in the middle of it."""
    command = [sys.executable, __file__, "--child", adapter, url, str(path)]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if not bill.arrived.acquire(timeout=90):
        child.kill()
        raise RuntimeError(f"{adapter}: the call of the child never arrived")
    child.send_signal(signal.SIGKILL)
    child.wait()


def child(adapter: str, url: str, path: str) -> None:
    """What is killed."""
    reserved.TTL = LIFE
    with SqliteLedger(path) as ledger:
        asyncio.run(ADAPTERS[adapter][0](url, Allowance(ledger, "acme", {"all": LIMIT}), Ask()))


async def table(adapters: list[str]) -> list[dict[str, Any]]:
    """All cells of some adapters."""
    with tempfile.TemporaryDirectory() as folder:
        return [await cell(adapter, scenario, Path(folder)) for scenario in SCENARIOS for adapter in adapters]


def page(cells: list[dict[str, Any]]) -> str:
    """The table for the documentation."""
    by = {(cell["scenario"], cell["adapter"]): cell for cell in cells}
    lines = [
        "# Conformance of the adapters", "",
        "What a scripted provider billed, and what each adapter charged, in tokens, input and output. Every cell is a",
        "run over HTTP on a ledger in a file; the provider counts as it generates. `=`: charged what was billed.",
        "Where the provider does not say what it billed, the charge is an estimate, and never below it (`≤`).", "",
        "`python benchmarks/conformance.py` (`make conformance`) writes this page and",
        "`benchmarks/results/conformance.json`, and a test runs all cells again. A new adapter joins by one entry of",
        "`ADAPTERS` there.", "",
        "| scenario | " + " | ".join(ADAPTERS) + " |", "|---|" + "---|" * len(ADAPTERS),
    ]  # fmt: skip
    notes: list[str] = []
    for scenario in SCENARIOS:
        row = []
        for adapter in ADAPTERS:
            cell = by[scenario.name, adapter]
            if "why" in cell:
                row.append("-")
                notes.append(f"- {scenario.name}, {adapter}: does not apply, {cell['why']}.")
            else:
                sign = "=" if cell["billed"] == cell["charged"] else "≤"
                row.append(f"{cell['billed']} {sign} {cell['charged']}")
        lines.append(f"| {scenario.name}: {scenario.what} | " + " | ".join(row) + " |")
    return "\n".join([*lines, "", *notes, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", nargs=3, metavar=("ADAPTER", "URL", "LEDGER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return
    cells = asyncio.run(table(list(ADAPTERS)))
    for cell in cells:
        print(json.dumps(cell))
    results = ROOT / "benchmarks" / "results" / "conformance.json"
    results.write_text(json.dumps({"command": "python benchmarks/conformance.py", "cells": cells}, indent=1) + "\n")
    (ROOT / "docs" / "conformance.md").write_text(page(cells))


if __name__ == "__main__":
    main()
