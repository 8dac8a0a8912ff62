"""A GGUF file through a real llama.cpp server: counts, caps, cancelling, and no process that is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import aclosing
from pathlib import Path

import pytest

pytest.importorskip("xllamacpp")
pytest.importorskip("openai")

from budgeteer.core.errors import CheckpointError, InvalidInput, MissingExtra, ModelError
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models import llama_cpp
from budgeteer.models.chat import Chat, Message
from budgeteer.models.llama_cpp import LlamaCpp
from budgeteer.models.model import Chunk, Finish, Request
from budgeteer.solve import Budgeted

PROMPT = "Question: 2 + 3\nAnswer: 5\n\nQuestion: 4 + 4\nAnswer:"
CONTEXT = 256

try:
    llama_cpp.smollm2()
except MissingExtra as error:
    pytest.skip(str(error), allow_module_level=True)


@pytest.fixture(scope="module")
def model(loop):
    found = LlamaCpp(slots=4, context=CONTEXT, threads=1)
    yield found
    loop.run(found.aclose())
    assert found._process.poll() is not None


def test_counts_are_those_that_the_server_bills(model, loop) -> None:
    for prompt in (PROMPT, Chat((Message("user", "Grüße, 4 + 4?"),))):
        response = loop.run(model.generate(Request(prompt, 2, seed=1)))
        assert response.usage.input == model.count(prompt)
        assert (response.usage.output, response.choices[0].tokens) == (2, 2)
        assert response.choices[0].finish == Finish.LENGTH


def test_every_choice_is_counted(model, loop) -> None:
    response = loop.run(model.generate(Request(PROMPT, 8, n=4, seed=1, stop=("\n",), logprobs=True)))
    assert len({c.text for c in response.choices}) > 1
    assert all("\n" not in c.text for c in response.choices)
    for choice in response.choices:
        assert choice.finish == Finish.STOP or choice.tokens == 8
        assert choice.logprobs
        assert all(p <= 0 for p in choice.logprobs)
        assert 1 <= choice.tokens <= 8
    assert response.usage.output == sum(c.tokens for c in response.choices)


def test_the_same_seed_is_the_same_text_in_company(model, loop) -> None:
    async def body():
        alone = [await model.generate(Request(PROMPT, 6, seed=s)) for s in (11, 22, 33)]
        crowd = await asyncio.gather(*(model.generate(Request(PROMPT, 6, seed=s)) for s in (11, 22, 33)))
        assert [r.choices[0].text for r in alone] == [r.choices[0].text for r in crowd]
        return {r.choices[0].text for r in alone}

    assert len(loop.run(body())) > 1


def test_a_prompt_beyond_the_context_is_a_clear_error_and_free(model, loop) -> None:
    with pytest.raises(InvalidInput, match="context of 256"):
        loop.run(model.generate(Request("a b c d " * 100, 8)))
    with pytest.raises(InvalidInput, match="slots"):
        loop.run(model.generate(Request(PROMPT, 8, n=5)))


def test_a_closed_stream_frees_the_slot_and_is_charged_for_what_was_seen(model, loop) -> None:
    ledger = MemoryLedger()
    ledger.open("q", [Limit("all", 1000)])
    budgeted = Budgeted(model, Allowance(ledger, "q", {"all": 1000}))

    async def body():
        seen = 0
        async with aclosing(budgeted.stream(Request(PROMPT, 200, temperature=2.0, seed=1))) as pieces:
            async for piece in pieces:
                assert isinstance(piece, Chunk)
                seen += piece.tokens
                if seen >= 3:
                    break
        for _ in range(100):
            if not any(slot["is_processing"] for slot in model._http.get("/slots").json()):
                return seen
            await asyncio.sleep(0.05)
        raise AssertionError("the server goes on")

    seen = loop.run(body())
    assert budgeted.remaining == {"all": 1000 - model.count(PROMPT) - seen}


def test_a_file_that_is_no_model_is_a_clear_error(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="no file"):
        LlamaCpp(tmp_path / "none.gguf")
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF and nothing more")
    with pytest.raises(CheckpointError, match=r"cannot serve .*bad\.gguf"):
        LlamaCpp(bad)


def test_a_server_that_died_is_named_by_what_asks_it(loop) -> None:
    model = LlamaCpp(slots=1, context=CONTEXT, threads=1, retries=0)

    async def body() -> None:
        async with aclosing(model.stream(Request("One, two, three,", 200, seed=1))) as pieces:
            async for _ in pieces:
                os.kill(model._process.pid, signal.SIGKILL)
                break
        with pytest.raises(ModelError, match=r"server of smollm2 ended with status -9; make the model anew") as found:
            await model.generate(Request("One, two, three,", 8, seed=1))  # its length is known already
        assert not found.value.again
        with pytest.raises(ModelError, match="ended with status -9"):
            model.count("a text not counted before")
        await model.aclose()

    loop.run(body())


SCRIPT = """
import sys, time
from budgeteer.models.llama_cpp import LlamaCpp
model = LlamaCpp(slots=1, context=64, threads=1)
print(model._process.pid, flush=True)
if sys.argv[1] == "exit":
    sys.exit(3)
time.sleep(60)
"""


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_no_server_outlives_its_owner(how: str) -> None:
    owner = subprocess.Popen([sys.executable, "-c", SCRIPT, how], stdout=subprocess.PIPE, text=True)
    child = int(owner.stdout.readline())
    if how == "kill":
        os.kill(owner.pid, signal.SIGKILL)
    owner.wait(30)
    for _ in range(200):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{child}/stat").read_text().split(")")[1].split()[0] == "Z":  # ended, and not yet collected
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    raise AssertionError("the server is still there")
