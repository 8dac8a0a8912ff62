"""OpenAI's library for Python."""

import json

import openai
from cases import BASE_URL, HELLO, KEY, MODEL, SPENT_KEY, SUM, SUMS, WHO, add, called, refused, run, streamed
from pydantic import BaseModel


class Person(BaseModel):
    name: str
    age: int


class Numbers(BaseModel):
    a: int
    b: int


client = openai.OpenAI(base_url=BASE_URL, api_key=KEY)
TOOL = openai.pydantic_function_tool(Numbers, name="add")


def ask(text):
    return [{"role": "user", "content": text}]


def chat():
    return {"text": client.chat.completions.create(model=MODEL, messages=ask(HELLO)).choices[0].message.content}


def stream():
    chunks = client.chat.completions.create(model=MODEL, messages=ask(HELLO), stream=True)
    return streamed(chunk.choices[0].delta.content for chunk in chunks if chunk.choices)


def tools():
    messages = ask(SUM)
    said = client.chat.completions.create(model=MODEL, messages=messages, tools=[TOOL]).choices[0].message
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": str(add(**json.loads(call.function.arguments)))}
        for call in said.tool_calls
    ]
    messages += [said, *results]
    said = client.chat.completions.create(model=MODEL, messages=messages, tools=[TOOL]).choices[0].message
    return {"text": said.content, "called": called}


def structured():
    found = client.chat.completions.parse(model=MODEL, messages=ask(WHO), response_format=Person)
    return found.choices[0].message.parsed.model_dump()


def spent():
    poor = openai.OpenAI(base_url=BASE_URL, api_key=SPENT_KEY)
    return refused(lambda: poor.chat.completions.create(model=MODEL, messages=ask(HELLO)))


def responses():
    with client.responses.stream(model=MODEL, input=HELLO) as events:
        found = streamed(event.delta for event in events if event.type == "response.output_text.delta")
    assert found["text"] == client.responses.create(model=MODEL, input=HELLO).output_text
    assert client.responses.parse(model=MODEL, input=WHO, text_format=Person).output_parsed.name == "Ada"
    return found


def turns():
    """By previous_response_id."""
    tool = openai.pydantic_function_tool(Numbers, name="add")["function"]
    about = {"model": MODEL, "tools": [{"type": "function", **tool}]}
    texts, last = [], None
    for question in SUMS:
        said = client.responses.create(**about, input=question, previous_response_id=last)
        (call,) = [item for item in said.output if item.type == "function_call"]
        output = str(add(**json.loads(call.arguments)))
        result = {"type": "function_call_output", "call_id": call.call_id, "output": output}
        said = client.responses.create(**about, input=[result], previous_response_id=said.id)
        texts.append(said.output_text)
        last = said.id
    return {"texts": texts, "called": called}


run(
    chat=chat, stream=stream, tools=tools, structured=structured, spent=spent, responses=responses, turns=turns
)  # fmt: skip
