"""LiteLLM's SDK, with a model of OpenAI's."""

import json
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches one when it is imported

import litellm
from cases import BASE_URL, HELLO, KEY, MODEL, SPENT_KEY, SUM, WHO, add, called, refused, run, streamed
from pydantic import BaseModel


class Person(BaseModel):
    name: str
    age: int


INTEGER = {"type": "integer"}
NUMBERS = {"type": "object", "properties": {"a": INTEGER, "b": INTEGER}, "required": ["a", "b"]}
TOOL = {"type": "function", "function": {"name": "add", "description": "Add two numbers.", "parameters": NUMBERS}}


def ask(text):
    return [{"role": "user", "content": text}]


def complete(messages, key=KEY, **more):
    return litellm.completion(f"openai/{MODEL}", messages, api_base=BASE_URL, api_key=key, **more)


def chat():
    return {"text": complete(ask(HELLO)).choices[0].message.content}


def stream():
    return streamed(chunk.choices[0].delta.content for chunk in complete(ask(HELLO), stream=True))


def tools():
    messages = ask(SUM)
    said = complete(messages, tools=[TOOL]).choices[0].message
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": str(add(**json.loads(call.function.arguments)))}
        for call in said.tool_calls
    ]
    messages += [said, *results]
    return {"text": complete(messages, tools=[TOOL]).choices[0].message.content, "called": called}


def structured():
    said = complete(ask(WHO), response_format=Person).choices[0].message.content
    return Person.model_validate_json(said).model_dump()


def spent():
    return refused(lambda: complete(ask(HELLO), SPENT_KEY))


run(chat=chat, stream=stream, tools=tools, structured=structured, spent=spent)
