"""instructor: structured output by a tool that the model has to call, by a schema, and in pieces."""

import instructor
import openai
from cases import BASE_URL, HELLO, KEY, MODEL, SPENT_KEY, SUM, WHO, add, called, refused, run
from pydantic import BaseModel


class Person(BaseModel):
    name: str
    age: int


class Add(BaseModel):
    """Add two numbers."""

    a: int
    b: int


def client(key, mode=instructor.Mode.TOOLS):
    return instructor.from_openai(openai.OpenAI(base_url=BASE_URL, api_key=key), mode=mode)


def about(text):
    return {"model": MODEL, "messages": [{"role": "user", "content": text}]}


def chat():
    return {"text": client(KEY).chat.completions.create(**about(HELLO), response_model=None).choices[0].message.content}


def stream():
    """A person, in pieces."""
    found = list(client(KEY).create_partial(**about(WHO), response_model=Person))
    return {**found[-1].model_dump(), "several": len(found) > 1}


def tools():
    """The model is asked for the arguments of a tool."""
    given = client(KEY).create(**about(SUM), response_model=Add)
    return {"text": f"It is {add(given.a, given.b)}.", "called": called}


def structured():
    found = client(KEY, instructor.Mode.JSON_SCHEMA).create(**about(WHO), response_model=Person)
    again = client(KEY, instructor.Mode.JSON).create(**about(WHO), response_model=Person)
    assert again.model_dump() == found.model_dump()
    return found.model_dump()


def spent():
    return refused(lambda: client(SPENT_KEY).create(**about(WHO), response_model=Person))


run(chat=chat, stream=stream, tools=tools, structured=structured, spent=spent)
