"""pydantic-ai."""

from cases import BASE_URL, HELLO, KEY, MODEL, SPENT_KEY, SUM, SUMS, WHO, add, called, refused, run, streamed
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider


class Person(BaseModel):
    name: str
    age: int


def model(key, kind=OpenAIChatModel):
    return kind(MODEL, provider=OpenAIProvider(base_url=BASE_URL, api_key=key))


def chat():
    return {"text": Agent(model(KEY)).run_sync(HELLO).output}


def stream():
    return streamed(Agent(model(KEY)).run_stream_sync(HELLO).stream_text(delta=True, debounce_by=None))


def tools():
    return {"text": Agent(model(KEY), tools=[add]).run_sync(SUM).output, "called": called}


def structured():
    """By a tool, which is what it does by itself, and by a schema."""
    found = Agent(model(KEY), output_type=Person).run_sync(WHO).output
    assert Agent(model(KEY), output_type=NativeOutput(Person)).run_sync(WHO).output == found
    return found.model_dump()


def spent():
    return refused(lambda: Agent(model(SPENT_KEY)).run_sync(HELLO))


def turns():
    """With the model of the Responses API."""
    agent, texts, history = Agent(model(KEY, OpenAIResponsesModel), tools=[add]), [], None
    for question in SUMS:
        got = agent.run_sync(question, message_history=history)
        texts.append(got.output)
        history = got.all_messages()
    return {"texts": texts, "called": called}


run(chat=chat, stream=stream, tools=tools, structured=structured, spent=spent, turns=turns)
