"""smolagents: its model of OpenAI, and an agent that calls tools."""

from cases import BASE_URL, HELLO, KEY, MODEL, SPENT_KEY, SUM, WHO, add, called, refused, run, streamed
from pydantic import BaseModel
from smolagents import ChatMessage, OpenAIModel, ToolCallingAgent, tool


class Person(BaseModel):
    name: str
    age: int


model = OpenAIModel(model_id=MODEL, api_base=BASE_URL, api_key=KEY)


def ask(text):
    return [ChatMessage(role="user", content=text)]


def chat():
    return {"text": model.generate(ask(HELLO)).content}


def stream():
    return streamed(piece.content for piece in model.generate_stream(ask(HELLO)))


def tools():
    return {"text": ToolCallingAgent(tools=[tool(add)], model=model).run(SUM), "called": called}


def structured():
    schema = {"name": "person", "schema": Person.model_json_schema()}
    said = model.generate(ask(WHO), response_format={"type": "json_schema", "json_schema": schema})
    return Person.model_validate_json(said.content).model_dump()


def spent():
    poor = OpenAIModel(model_id=MODEL, api_base=BASE_URL, api_key=SPENT_KEY)
    return refused(lambda: poor.generate(ask(HELLO)))


run(chat=chat, stream=stream, tools=tools, structured=structured, spent=spent)
