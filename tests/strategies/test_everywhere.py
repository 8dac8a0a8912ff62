"""Every registered strategy on every kind of model: it answers within the budget, or is refused for a right reason."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("xllamacpp")
pytest.importorskip("anthropic")

from budgeteer.check._toy import toy_tools
from budgeteer.core.budget import Budgets
from budgeteer.core.errors import InvalidInput
from budgeteer.core.registry import load, of, resolve
from budgeteer.lab import questions
from budgeteer.lab.thinker.export import write_gguf
from budgeteer.models.anthropic import Anthropic
from budgeteer.models.llama_cpp import LlamaCpp
from budgeteer.models.model import Model
from budgeteer.models.openai import OpenAI
from budgeteer.models.thinker import thinker
from budgeteer.models.transformers import Transformers
from budgeteer.solve import StoppedBy, Strategy, styles
from budgeteer.solve.runner import Run, Settings, run
from helpers.upstream import Upstream, echo

BUDGET = 160
CONTINUE = {
    "truncate", "budget-forcing", "elastic", "convergence", "scale", "dora", "rebase", "beam", "value-tree", "cot-x",
}  # fmt: skip
"""They go on with a trace that was cut."""
INSIDE = {"mirostat", "switch-thinking", "budget-guidance", "zip-rc", "diffadapt-probe"}
"""They need a model that runs in this process."""
HEADS = {"budget-guidance", "zip-rc", "diffadapt-probe"}
"""They need a head beside the model; the shipped ones are beside the reasoner."""
KINDS = {
    # style -> what is refused, and why
    "transformers chat": ("think", dict.fromkeys(HEADS, "thinker has no ")),
    "transformers raw": ("few-shot", dict.fromkeys(HEADS, "thinker has no ")),
    "llama.cpp chat": ("think", dict.fromkeys(INSIDE, "needs internals")),
    "llama.cpp raw": ("few-shot", dict.fromkeys(INSIDE, "needs internals")),
    "endpoint chat, dialect": ("think", dict.fromkeys(INSIDE, "needs internals")),
    "endpoint chat": (
        "think",
        dict.fromkeys(INSIDE, "needs internals") | dict.fromkeys(CONTINUE, "it does not declare 'prefill'"),
    ),
    "claude": (
        "think",
        dict.fromkeys(INSIDE, "needs internals") | dict.fromkeys(CONTINUE, "it does not declare 'prefill'"),
    ),
}
ASKED = questions.load("thinking:level=1", limit=1, seed=5)


class Kept:
    """A model that outlives the run that closes it."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    async def aclose(self) -> None:
        pass


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Kind -> a function that makes the model; the weights are loaded once."""
    gguf = tmp_path_factory.mktemp("everywhere") / "thinker.gguf"
    write_gguf(thinker(), gguf)
    here = Transformers(thinker(), name="thinker")
    server = LlamaCpp(Path(gguf), slots=32, context=1024)
    with ExitStack() as stack:
        upstream = stack.enter_context(Upstream(echo()))
        url = f"{server.address}/v1"
        yield {
            "transformers chat": lambda: Kept(here),
            "transformers raw": lambda: Kept(here),
            # a client in the loop of the run, on the one server, with connections of their own as LlamaCpp has them
            "llama.cpp chat": lambda: OpenAI(url, "thinker", dialect="llama.cpp", reuse=False),
            "llama.cpp raw": lambda: OpenAI(url, "thinker", capabilities=server.capabilities, reuse=False),
            "endpoint chat, dialect": lambda: OpenAI(url, "thinker", dialect="sglang", reuse=False),
            "endpoint chat": lambda: OpenAI(url, "thinker", reuse=False),
            "claude": lambda: Anthropic("echo", base_url=upstream.url.removesuffix("/v1"), api_key="k"),
        }
    asyncio.run(server.aclose())
    asyncio.run(here.aclose())


def strategy_of(name: str) -> Strategy:
    """The strategy, with the arguments of its entry where it has no defaults."""
    method = of("strategy")[name]
    if isinstance(method.arguments, str):
        return load(method)(**resolve(method.arguments)())
    return load(method)()


def solved(model: Any, style: str, name: str) -> Run:
    look = styles.style_of(style, ASKED.info.by(model))

    async def whole() -> Run:
        try:
            settings = Settings(grade=ASKED.grade, durable=False, timeout=60, tools=lambda question: toy_tools())
            return await run(ASKED.questions, strategy_of(name), model, look, budget, settings)
        finally:
            await model.aclose()

    budget = Budgets.parse(f"output:{BUDGET}")
    return asyncio.run(whole())


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[pytest.mark.slow] * (kind in ("transformers chat", "llama.cpp raw"))) for kind in KINDS],
)
def test_a_strategy_runs_or_says_why_not(made: dict[str, Any], kind: str) -> None:
    style, refused = KINDS[kind]
    for name in of("strategy"):
        why, done = "", None
        try:
            done = solved(made[kind](), style, name)
        except InvalidInput as error:
            why = str(error)
        if done is not None:
            (row,) = done.rows
            assert done.spent["output"] <= BUDGET, name
            assert done.overshoot == {"output": 0}, name
            why = row["stopped_by"] if row["stopped_by"] not in set(StoppedBy) else ""
            if style == "think" and not why:  # which always reads something, but from thinking that was cut
                assert row["answer"] is not None or row["stopped_by"] in (StoppedBy.BUDGET, StoppedBy.CAP), (name, row)
        assert (refused[name] in why) if name in refused else not why, (kind, name, why)
