"""Anthropic's library for Python."""

import anthropic
from cases import BASE_URL, HELLO, KEY, MODEL, SPENT_KEY, SUM, WHO, add, called, refused, run, streamed
from pydantic import BaseModel


class Person(BaseModel):
    name: str
    age: int


URL = BASE_URL.removesuffix("/v1")
client = anthropic.Anthropic(base_url=URL, api_key=KEY)


def about(text):
    return {"model": MODEL, "max_tokens": 1000, "messages": [{"role": "user", "content": text}]}


def chat():
    return {"text": client.messages.create(**about(HELLO)).content[0].text}


def stream():
    with client.messages.stream(**about(HELLO)) as events:
        found = streamed(events.text_stream)
        assert events.get_final_message().stop_reason == "end_turn"
    return found


def tools():
    tool = anthropic.beta_tool(lambda a, b: str(add(a, b)), name="add", description="Add.", input_schema=NUMBERS)
    runner = client.beta.messages.tool_runner(**about(SUM), tools=[tool])
    return {"text": runner.until_done().content[0].text, "called": called}


NUMBERS = {
    "type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"],
}  # fmt: skip


def structured():
    return client.messages.parse(**about(WHO), output_format=Person).parsed_output.model_dump()


def spent():
    poor = anthropic.Anthropic(base_url=URL, api_key=SPENT_KEY)
    return refused(lambda: poor.messages.create(**about(HELLO)))


run(chat=chat, stream=stream, tools=tools, structured=structured, spent=spent)
