"""pydantic-ai and the OpenAI Agents SDK on a budget, run as people run them, against the provider on this machine."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from budgeteer import Usage
from budgeteer.core.errors import BudgetExceeded, InvalidInput
from budgeteer.metering.estimate import Bounds
from helpers.answers import chat, responses, sse, used
from helpers.purse import Purse
from helpers.upstream import Upstream, error

BOUNDS = Bounds(overhead=10, max_output=50)


@pytest.fixture
def pydantic():
    return pytest.importorskip("pydantic_ai")


def pydantic_agent(provider, purse, pydantic, **options):
    from openai import AsyncOpenAI
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    from budgeteer.adapters.pydantic_ai import BudgetedModel

    client = AsyncOpenAI(base_url=provider.url, api_key="x", max_retries=0, timeout=5)
    model = OpenAIChatModel("gpt-4o", provider=OpenAIProvider(openai_client=client))
    return pydantic.Agent(BudgetedModel(model, purse, **{"bounds": BOUNDS, **options}))


def test_pydantic_ai_runs_on_a_budget(pydantic):
    purse, seen = Purse(all=5000), []
    with Upstream(chat(usage=used(40, 7, cached=4, reasoning=2))) as provider:
        agent = pydantic_agent(provider, purse, pydantic, on_settle=seen.append)
        assert agent.run_sync("Hi").output == "Hello there"
    assert seen[0].usage.total == 47
    assert (seen[0].usage.cached, seen[0].usage.reasoning, seen[0].estimated) == (4, 2, False)
    assert seen[0].reserved["all"] > 47
    assert provider.requests[0][1]["max_completion_tokens"] == 50  # the cap that was reserved is the cap that is sent
    assert purse.left == {"all": 5000 - 47}


def test_pydantic_ai_refuses_before_it_sends(pydantic):
    purse = Purse(all=30)
    with Upstream(chat()) as provider:
        agent = pydantic_agent(provider, purse, pydantic)
        with pytest.raises(BudgetExceeded):
            agent.run_sync("Hi")
        with pytest.raises(InvalidInput, match="no cap"):
            pydantic_agent(provider, purse, pydantic, bounds=Bounds()).run_sync("Hi")
        with pytest.raises(InvalidInput, match="max_input"):
            agent.run_sync(["Hi", pydantic.BinaryContent(b"x", media_type="audio/mpeg")])
    assert provider.requests == []
    assert purse.left == {"all": 30}


def test_pydantic_ai_tools_are_part_of_the_bound(pydantic):
    with Upstream(chat(usage=used(40, 7))) as provider:
        reserved = []
        for described in ("", "A tool described at length. " * 20):
            seen = []
            agent = pydantic_agent(provider, Purse(all=9000), pydantic, on_settle=seen.append)

            def look(where: str) -> str:
                return where

            look.__doc__ = described
            agent.tool_plain(look)
            agent.run_sync("Hi")
            reserved.append(seen[0].reserved["all"])
    assert reserved[1] - reserved[0] >= len("A tool described at length. " * 20) - 2


@pytest.mark.parametrize(("status", "outcome"), [(429, "rejected"), (500, "unknown")])
def test_pydantic_ai_errors(pydantic, status, outcome):
    purse, seen = Purse(all=5000), []
    with Upstream(error(status)) as provider, pytest.raises(pydantic.ModelHTTPError):
        pydantic_agent(provider, purse, pydantic, on_settle=seen.append).run_sync("Hi")
    assert seen[0].outcome == outcome
    assert (purse.left["all"] == 5000) is (outcome == "rejected")


def test_pydantic_ai_streams_whole_and_left(pydantic):
    async def main():
        purse, seen = Purse(all=5000), []
        with Upstream(sse(["Hel", "lo"], used(12, 7)), sse(["word "] * 50, used(12, 50), pause=0.005)) as provider:
            agent = pydantic_agent(provider, purse, pydantic, on_settle=seen.append)
            async with agent.run_stream("Hi") as result:
                assert "".join([text async for text in result.stream_text(delta=True)]) == "Hello"
            with contextlib.suppress(RuntimeError):
                async with agent.run_stream("Hi") as result:
                    async for _ in result.stream_text(delta=True, debounce_by=None):
                        raise RuntimeError("changed my mind")
        assert (seen[0].outcome, seen[0].usage.total, seen[0].estimated) == ("ok", 19, False)
        assert (seen[1].outcome, seen[1].estimated) == ("cut", True)
        assert 5 <= seen[1].usage.output <= 50
        assert purse.left == {"all": 5000 - 19 - purse.settled[1][0]["all"]}

    asyncio.run(main())


def test_pydantic_ai_usage_that_is_missing_is_unknown(pydantic):
    from pydantic_ai.usage import RequestUsage

    from budgeteer.adapters.pydantic_ai import read_usage

    assert read_usage(RequestUsage()) is None
    assert read_usage(RequestUsage(input_tokens=5), "text") is None
    full = RequestUsage(input_tokens=50, output_tokens=9, cache_read_tokens=20, cache_write_tokens=10)
    assert read_usage(full, "text") == Usage(
        input=50, output=9, cached=20, written=10, written_long=0, reasoning=0, audio_input=0, audio_output=0
    )
    assert read_usage(RequestUsage(input_tokens=5, output_tokens=1, cache_read_tokens=9)) is None


@pytest.fixture
def agents():
    module = pytest.importorskip("agents")
    module.set_tracing_disabled(True)
    return module


def agents_run(provider, purse, agents, responses_api=True, **options):
    from openai import AsyncOpenAI

    from budgeteer.adapters.openai_agents import BudgetedProvider

    client = AsyncOpenAI(base_url=provider.url, api_key="x", max_retries=0, timeout=5)
    inner = agents.OpenAIProvider(openai_client=client, use_responses=responses_api)
    mine = BudgetedProvider(purse, inner, **{"bounds": BOUNDS, **options})
    return agents.RunConfig(model_provider=mine, tracing_disabled=True)


USAGE = {
    "input_tokens": 40, "output_tokens": 7, "total_tokens": 47, "input_tokens_details": {"cached_tokens": 4},
    "output_tokens_details": {"reasoning_tokens": 2},
}  # fmt: skip


def test_agents_sdk_runs_on_a_budget(agents):
    async def main():
        purse, seen = Purse(all=5000), []
        agent = agents.Agent(name="a", instructions="Be brief", model="gpt-5")
        with Upstream(responses("Hello", USAGE), chat(usage=used(12, 7))) as provider:
            config = agents_run(provider, purse, agents, on_settle=seen.append)
            assert (await agents.Runner.run(agent, "Hi", run_config=config)).final_output == "Hello"
            config = agents_run(provider, purse, agents, responses_api=False, on_settle=seen.append)
            assert (await agents.Runner.run(agent, "Hi", run_config=config)).final_output == "Hello there"
        assert [s.usage.total for s in seen] == [47, 19]
        assert (seen[0].usage.cached, seen[0].usage.reasoning) == (4, 2)
        assert provider.requests[0][1]["max_output_tokens"] == 50
        assert purse.left == {"all": 5000 - 66}

    asyncio.run(main())


def test_agents_sdk_refuses_before_it_sends(agents):
    async def main():
        purse = Purse(all=20)
        agent = agents.Agent(name="a", model="gpt-5")
        with Upstream(responses()) as provider:
            with pytest.raises(BudgetExceeded):
                await agents.Runner.run(agent, "Hi", run_config=agents_run(provider, purse, agents))
            with pytest.raises(InvalidInput, match="max_input"):
                await agents.Runner.run(
                    agent, "Hi", run_config=agents_run(provider, purse, agents), previous_response_id="r"
                )
        assert provider.requests == []
        assert purse.left == {"all": 20}

    asyncio.run(main())


def test_agents_sdk_missing_usage_errors_and_streams(agents):
    async def main():
        purse, seen = Purse(all=9000), []
        agent = agents.Agent(name="a", model="gpt-5")
        script = [
            responses("Hello", None),
            error(500),
            error(429),
            responses("Hello", USAGE),
            responses("Hello" * 9, pause=0.02),
        ]
        with Upstream(*script) as provider:
            config = agents_run(provider, purse, agents, on_settle=seen.append)
            await agents.Runner.run(agent, "Hi", run_config=config)
            for _ in range(2):
                with pytest.raises(Exception, match="Error code"):
                    await agents.Runner.run(agent, "Hi", run_config=config)
            result = agents.Runner.run_streamed(agent, "Hi", run_config=config)
            assert [e.data.delta async for e in result.stream_events() if getattr(
                getattr(e, "data", None), "type", "") == "response.output_text.delta"] == list("Hello")  # fmt: skip
            model = config.model_provider.get_model("gpt-5")
            stream = model.stream_response(
                None, "Hi", agents.ModelSettings(), [], None, [], agents.ModelTracing.DISABLED,
                previous_response_id=None, conversation_id=None, prompt=None,
            )  # fmt: skip
            async for event in stream:
                if event.type == "response.output_text.delta":
                    break
            await stream.aclose()
            for _ in range(2000):  # the SDK closes what is left early a moment later
                await asyncio.sleep(0 if len(seen) == 5 else 0.01)
        assert [(s.outcome, s.estimated) for s in seen] == [
            ("ok", True), ("unknown", True), ("rejected", False), ("ok", False), ("cut", True),
        ]  # fmt: skip
        assert seen[0].usage.output == 50  # the SDK asks such a model to think, so that it may have done so unseen
        assert seen[3].usage.total == 47
        assert purse.left

    asyncio.run(main())


def test_agents_sdk_hands_one_allowance_to_all_agents_of_a_run(agents):
    from budgeteer.adapters.openai_agents import BudgetedModel

    async def main():
        purse = Purse(all=5000)
        calls = responses(usage=USAGE, tool=("ask_inner", '{"input": "what?"}'))
        with Upstream(calls, responses("inside", USAGE), responses("Hello", USAGE)) as provider:
            config = agents_run(provider, purse, agents)
            inner = agents.Agent(name="inner", model="gpt-5")
            tool = inner.as_tool("ask_inner", "Ask the other")
            agent = agents.Agent(name="outer", model="gpt-5", tools=[tool])
            await agents.Runner.run(agent, "Hi", run_config=config)
            one = config.model_provider.get_model("gpt-5")
            assert isinstance(one, BudgetedModel)
            assert one.metering is config.model_provider.get_model("gpt-4o").metering
        assert len(provider.requests) == 3
        assert purse.left == {"all": 5000 - 3 * 47}  # the agent used as a tool, too

    asyncio.run(main())


@pytest.mark.parametrize(
    ("settings", "sent"),
    [
        ({"extra_body": {"max_completion_tokens": 900}}, {"max_completion_tokens": 900}),
        ({"extra_body": {"max_tokens": 900}}, {"max_tokens": 900}),
        ({"extra_body": {"n": 5}}, {"n": 5}),
        ({"openai_prediction": {"type": "content", "content": "x" * 900}}, {}),
    ],
)
def test_pydantic_ai_bounds_what_is_really_sent(pydantic, settings, sent):
    """The whole body is seen: what settings add to it is reserved, or the call is refused."""
    purse, seen = Purse(all=100_000), []
    with Upstream(chat(("word " * 9,), usage=used(9, 9))) as provider:
        agent = pydantic_agent(provider, purse, pydantic, on_settle=seen.append)
        agent.run_sync("Hi")
        agent.run_sync("Hi", model_settings=settings)
        least = {900: 800, 5: 4 * 50}.get(next(iter(sent.values()), 900))
        assert seen[1].reserved["all"] >= seen[0].reserved["all"] + least
        assert sent.items() <= provider.requests[1][1].items()
        broke = Purse(all=seen[1].reserved["all"] - 1)
        with pytest.raises(BudgetExceeded):
            pydantic_agent(provider, broke, pydantic).run_sync("Hi", model_settings=settings)
    assert len(provider.requests) == 2


def test_pydantic_ai_refuses_input_that_is_not_shown(pydantic):
    from openai import AsyncOpenAI
    from pydantic_ai.capabilities import NativeTool
    from pydantic_ai.models.instrumented import InstrumentedModel
    from pydantic_ai.models.openai import OpenAIResponsesModel
    from pydantic_ai.native_tools import WebSearchTool
    from pydantic_ai.providers.openai import OpenAIProvider

    from budgeteer.adapters.pydantic_ai import BudgetedModel

    purse = Purse(all=100_000)
    with Upstream(responses(usage=USAGE)) as provider:
        client = AsyncOpenAI(base_url=provider.url, api_key="x", max_retries=0)
        inner = OpenAIResponsesModel("gpt-5", provider=OpenAIProvider(openai_client=client))
        model = BudgetedModel(InstrumentedModel(inner), purse, bounds=BOUNDS)
        for options, settings in (
            ({}, {"openai_previous_response_id": "r1"}),
            ({}, {"openai_conversation_id": "c1"}),
            ({"capabilities": [NativeTool(WebSearchTool())]}, {}),
        ):
            with pytest.raises(InvalidInput, match="max_input"):
                pydantic.Agent(model, **options).run_sync("Hi", model_settings=settings)
        with pytest.raises(InvalidInput, match="a batch is not metered"):
            asyncio.run(model.batch_create([]))
        assert provider.requests == []
        assert pydantic.Agent(model).run_sync("Hi").output == "Hello"
        assert inner.client is client  # the model that was given stays as it is
    assert purse.left == {"all": 100_000 - 47}


UNBOUNDED = [
    {"extra_body": {"max_completion_tokens": 900}}, {"extra_body": {"max_tokens": 900}}, {"extra_body": {"n": 5}},
    {"extra_body": {"best_of": 5}}, {"extra_body": {"prediction": "x"}}, {"extra_body": [1]},
]  # fmt: skip


def test_pydantic_ai_without_an_openai_client_refuses_what_could_pass_the_bound(pydantic):
    from pydantic_ai.capabilities import NativeTool
    from pydantic_ai.messages import ModelResponse, TextPart
    from pydantic_ai.models.function import FunctionModel
    from pydantic_ai.native_tools import WebSearchTool

    from budgeteer.adapters.pydantic_ai import BudgetedModel

    asked, purse = [], Purse(all=5000)

    def answer(messages, info):
        asked.append(info.model_settings)
        return ModelResponse([TextPart("Hello")])

    class Searching(FunctionModel):
        def customize_request_parameters(self, parameters):
            return parameters

        @property
        def profile(self):
            return {**super().profile, "supported_native_tools": frozenset({WebSearchTool})}

    model = BudgetedModel(Searching(answer), purse, bounds=BOUNDS)
    for settings in [*UNBOUNDED, {"function_container": "c"}, {"new_setting": 1}]:
        with pytest.raises(InvalidInput, match="not known to leave the bound"):
            pydantic.Agent(model).run_sync("Hi", model_settings=settings)
    for settings in ({"google_cached_content": "c"}, {"xai_previous_response_id": "r"}):
        with pytest.raises(InvalidInput, match="max_input"):
            pydantic.Agent(model).run_sync("Hi", model_settings=settings)
    with pytest.raises(InvalidInput, match="max_input"):
        pydantic.Agent(model, capabilities=[NativeTool(WebSearchTool())]).run_sync("Hi")
    assert asked == []
    harmless = {"temperature": 0.5, "extra_body": {"top_k": 5}, "function_user": "u", "max_tokens": 9}
    assert pydantic.Agent(model).run_sync("Hi", model_settings=harmless).output == "Hello"
    assert asked[0]["max_tokens"] == 9
    assert len(purse.settled) == 1


def test_pydantic_ai_meters_its_own_retries_where_the_client_cannot(pydantic):
    from pydantic_ai.exceptions import ModelHTTPError
    from pydantic_ai.messages import ModelResponse, TextPart
    from pydantic_ai.models.function import FunctionModel

    from budgeteer.adapters.pydantic_ai import BudgetedModel

    purse, seen, told = Purse(all=50_000), [], []

    def answer(messages, info):
        told.append(info.model_settings.get("max_retries"))
        if len(told) < 3:
            error = ModelHTTPError(500, "m")
            error.retry_after = 0
            raise error
        return ModelResponse([TextPart("Hello")])

    model = BudgetedModel(FunctionModel(answer), purse, bounds=BOUNDS, on_settle=seen.append)
    assert pydantic.Agent(model).run_sync("Hi", model_settings={"max_retries": 2}).output == "Hello"
    assert [(s.outcome, s.attempt) for s in seen] == [("unknown", 0), ("unknown", 1), ("ok", 2)]
    assert purse.left["all"] < 50_000 - 2 * seen[0].reserved["all"]


def test_agents_sdk_without_an_openai_client_refuses_what_could_pass_the_bound(agents):
    from budgeteer.adapters.openai_agents import BudgetedModel

    called = []

    class Other:
        model = "m"

        async def get_response(self, *args, **more):
            called.append(args)
            raise ValueError("called")

    def call(**more):
        tools = more.pop("tools", [])
        return asyncio.run(model.get_response(
            None, "Hi", agents.ModelSettings(max_tokens=9, **more), tools, None, [], None, previous_response_id=None,
            conversation_id=None, prompt=None,
        ))  # fmt: skip

    model = BudgetedModel(Other(), Purse(all=50_000), bounds=BOUNDS)
    for settings in [*UNBOUNDED, *({"extra_args": one["extra_body"]} for one in UNBOUNDED[:4])]:
        with pytest.raises(InvalidInput, match="not known to leave the bound"):
            call(**settings)
    with pytest.raises(InvalidInput, match="max_input"):
        call(tools=[agents.WebSearchTool()])
    assert called == []
    with pytest.raises(ValueError, match="called"):
        call(extra_args={"top_k": 5})


@pytest.mark.parametrize("given", [{}, {"max_retries": 0}, {"num_retries": 0}, {"max_retries": 0, "num_retries": 5}])
def test_a_library_that_retries_has_to_be_told_not_to_by_both_names(agents, given):
    from budgeteer.adapters.openai_agents import _check_retries

    model = type("LitellmModel", (), {"__module__": "agents.extensions.models.litellm_model"})()
    with pytest.raises(InvalidInput, match="num_retries"):
        _check_retries(model, agents.ModelSettings(extra_args=given))
    _check_retries(model, agents.ModelSettings(extra_args={"max_retries": 0, "num_retries": 0}))


def client_of(provider, retries):
    from openai import AsyncOpenAI

    return AsyncOpenAI(base_url=provider.url, api_key="x", max_retries=retries, timeout=5)


AGAIN = [("retry-after", "0"), ("retry-after-ms", "1")]


def test_pydantic_ai_meters_every_attempt_of_the_clients_retries(pydantic):
    """Two attempts fail after they may have run, the third answers; and a stream likewise."""
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    from budgeteer.adapters.pydantic_ai import BudgetedModel

    purse, seen = Purse(all=50_000), []
    script = [
        error(500, AGAIN),
        error(500, AGAIN),
        chat(usage=used(40, 7)),
        error(500, AGAIN),
        sse(["Hi"], used(40, 7)),
    ]
    with Upstream(*script) as provider:
        model = OpenAIChatModel("gpt-4o", provider=OpenAIProvider(openai_client=client_of(provider, 2)))
        agent = pydantic.Agent(BudgetedModel(model, purse, bounds=BOUNDS, on_settle=seen.append))

        async def both():
            assert (await agent.run("Hi")).output == "Hello there"
            async with agent.run_stream("Hi") as result:
                assert await result.get_output() == "Hi"

        asyncio.run(both())
        assert len(provider.requests) == 5
    assert [(s.outcome, s.attempt) for s in seen] == [
        ("unknown", 0),
        ("unknown", 1),
        ("ok", 2),
        ("unknown", 0),
        ("ok", 1),
    ]
    reserved = seen[0].reserved["all"]
    assert purse.left == {"all": 50_000 - 3 * reserved - 2 * 47}


def test_agents_sdk_meters_every_attempt_of_the_clients_retries(agents):
    from budgeteer.adapters.openai_agents import BudgetedProvider

    async def main():
        purse, seen = Purse(all=50_000), []
        with Upstream(error(500, AGAIN), error(500, AGAIN), responses("Hello", USAGE)) as provider:
            inner = agents.OpenAIProvider(openai_client=client_of(provider, 2))
            mine = BudgetedProvider(purse, inner, bounds=BOUNDS, on_settle=seen.append)
            config = agents.RunConfig(model_provider=mine, tracing_disabled=True)
            await agents.Runner.run(agents.Agent(name="a", model="gpt-5"), "Hi", run_config=config)
            assert len(provider.requests) == 3
        assert [(s.outcome, s.attempt) for s in seen] == [("unknown", 0), ("unknown", 1), ("ok", 2)]
        assert purse.left == {"all": 50_000 - 2 * seen[0].reserved["all"] - 47}

    asyncio.run(main())


def test_what_would_retry_or_be_charged_unseen_is_refused(pydantic, agents):
    import httpx2
    import openai
    from pydantic_ai.models.fallback import FallbackModel
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.models.test import TestModel
    from pydantic_ai.providers.openai import OpenAIProvider

    from budgeteer.adapters.openai import wrap
    from budgeteer.adapters.openai_agents import BudgetedModel as OfAgents
    from budgeteer.adapters.openai_agents import BudgetedProvider
    from budgeteer.adapters.pydantic_ai import BudgetedModel

    purse = Purse(all=50)
    with pytest.raises(InvalidInput, match="FallbackModel"):
        BudgetedModel(FallbackModel(TestModel(), TestModel()), purse)
    plain = openai.AsyncOpenAI(api_key="x")
    wrapped = OpenAIChatModel("m", provider=OpenAIProvider(openai_client=wrap(plain, purse)))
    with pytest.raises(InvalidInput, match="charged twice"):
        BudgetedModel(wrapped, purse)
    with pytest.raises(InvalidInput, match="charged twice"):
        BudgetedProvider(purse, agents.OpenAIProvider(openai_client=wrap(plain, purse))).get_model("m")

    class RetryTransport(httpx2.AsyncHTTPTransport):
        pass

    retrying = openai.AsyncOpenAI(api_key="x", http_client=httpx2.AsyncClient(transport=RetryTransport()))
    with pytest.raises(InvalidInput, match="RetryTransport retries"):
        wrap(retrying, purse)
    with pytest.raises(InvalidInput, match="RetryTransport retries"):
        BudgetedModel(OpenAIChatModel("m", provider=OpenAIProvider(openai_client=retrying)), purse)
    sockets = agents.OpenAIProvider(openai_client=plain, use_responses_websocket=True).get_model("gpt-5")
    with pytest.raises(InvalidInput, match="WebSocket is not metered"):
        OfAgents(sockets, purse)

    class LitellmModel:
        __module__ = "agents.extensions.models.litellm_model"
        model = "m"

    one = OfAgents(LitellmModel(), purse, bounds=BOUNDS)
    rest = ([], None, [], agents.ModelTracing.DISABLED)
    more = {"previous_response_id": None, "conversation_id": None, "prompt": None}
    with pytest.raises(InvalidInput, match="LitellmModel retries"):
        asyncio.run(one.get_response(None, "Hi", agents.ModelSettings(), *rest, **more))
