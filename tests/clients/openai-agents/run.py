"""The OpenAI Agents SDK with its default model, which is one of the Responses API."""

import asyncio

import agents
import openai
from cases import BASE_URL, HELLO, KEY, MODEL, SPENT_KEY, SUM, SUMS, WHO, add, called, refused, run, streamed
from pydantic import BaseModel

agents.set_tracing_disabled(True)


class Person(BaseModel):
    name: str
    age: int


def agent(key, **more):
    model = agents.OpenAIResponsesModel(MODEL, openai.AsyncOpenAI(base_url=BASE_URL, api_key=key))
    return agents.Agent("one", model=model, **more)


def chat():
    return {"text": agents.Runner.run_sync(agent(KEY), HELLO).final_output}


def stream():
    async def pieces():
        events = agents.Runner.run_streamed(agent(KEY), HELLO).stream_events()
        raw = [event.data async for event in events if event.type == "raw_response_event"]
        return [event.delta for event in raw if event.type == "response.output_text.delta"]

    return streamed(asyncio.run(pieces()))


def tools():
    adder = agents.function_tool(add)
    return {"text": agents.Runner.run_sync(agent(KEY, tools=[adder]), SUM).final_output, "called": called}


def structured():
    return agents.Runner.run_sync(agent(KEY, output_type=Person), WHO).final_output.model_dump()


def spent():
    return refused(lambda: agents.Runner.run_sync(agent(SPENT_KEY), HELLO))


def turns():
    """Each with the items of those before, as the SDK hands them on."""
    adder, texts, items = agents.function_tool(add), [], []
    for question in SUMS:
        items.append({"role": "user", "content": question})
        got = agents.Runner.run_sync(agent(KEY, tools=[adder]), items)
        texts.append(got.final_output)
        items = got.to_input_list()
    return {"texts": texts, "called": called}


run(chat=chat, stream=stream, tools=tools, structured=structured, spent=spent, turns=turns)
