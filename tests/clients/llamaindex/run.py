"""LlamaIndex's model of OpenAI, and its agent."""

import asyncio

from cases import BASE_URL, HELLO, KEY, MODEL, SPENT_KEY, SUM, WHO, add, called, refused, run, streamed
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai import OpenAI
from pydantic import BaseModel


class Person(BaseModel):
    """A person."""

    name: str
    age: int


model = OpenAI(model=MODEL, api_base=BASE_URL, api_key=KEY)


def ask(text):
    return [ChatMessage(role="user", content=text)]


def chat():
    return {"text": model.chat(ask(HELLO)).message.content}


def stream():
    return streamed(piece.delta for piece in model.stream_chat(ask(HELLO)))


def tools():
    async def talk():
        return await FunctionAgent(tools=[add], llm=model).run(user_msg=SUM)

    return {"text": str(asyncio.run(talk())), "called": called}


def structured():
    return model.as_structured_llm(Person).chat(ask(WHO)).raw.model_dump()


def spent():
    return refused(lambda: OpenAI(model=MODEL, api_base=BASE_URL, api_key=SPENT_KEY).chat(ask(HELLO)))


run(chat=chat, stream=stream, tools=tools, structured=structured, spent=spent)
