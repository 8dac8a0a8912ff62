"""LangChain's model of OpenAI."""

from cases import BASE_URL, HELLO, KEY, MODEL, SPENT_KEY, SUM, SUMS, WHO, add, called, refused, run, streamed
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class Person(BaseModel):
    """A person."""

    name: str
    age: int


model = ChatOpenAI(model=MODEL, base_url=BASE_URL, api_key=KEY)
adder = tool(add)


def chat():
    return {"text": model.invoke(HELLO).content}


def stream():
    return streamed(piece.content for piece in model.stream(HELLO))


def tools():
    bound = model.bind_tools([adder])
    messages = [HumanMessage(SUM)]
    said = bound.invoke(messages)
    messages += [said, *(adder.invoke(call) for call in said.tool_calls)]
    return {"text": bound.invoke(messages).content, "called": called}


def structured():
    return model.with_structured_output(Person).invoke(WHO).model_dump()


def spent():
    return refused(lambda: ChatOpenAI(model=MODEL, base_url=BASE_URL, api_key=SPENT_KEY).invoke(HELLO))


def turns():
    """With the Responses API."""
    bound = ChatOpenAI(model=MODEL, base_url=BASE_URL, api_key=KEY, use_responses_api=True).bind_tools([adder])
    texts, messages = [], []
    for question in SUMS:
        messages.append(HumanMessage(question))
        said = bound.invoke(messages)
        messages += [said, *(adder.invoke(call) for call in said.tool_calls)]
        messages.append(bound.invoke(messages))
        texts.append(messages[-1].text)
    return {"texts": texts, "called": called}


run(chat=chat, stream=stream, tools=tools, structured=structured, spent=spent, turns=turns)
