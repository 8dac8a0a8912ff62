"""LangGraph: agents of LangChain, which are graphs, and a graph of our own."""

from typing import Annotated, TypedDict

from cases import BASE_URL, HELLO, KEY, MODEL, SPENT_KEY, SUM, SUMS, WHO, add, called, refused, run, streamed
from langchain.agents import create_agent
from langchain_core.messages import AIMessageChunk
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from pydantic import BaseModel


class Person(BaseModel):
    """A person."""

    name: str
    age: int


class State(TypedDict):
    messages: Annotated[list, add_messages]


def model(key):
    return ChatOpenAI(model=MODEL, base_url=BASE_URL, api_key=key)


def graph(key):
    """One that asks the model once."""
    made = StateGraph(State)
    made.add_node("ask", lambda state: {"messages": [model(key).invoke(state["messages"])]})
    made.add_edge(START, "ask")
    made.add_edge("ask", END)
    return made.compile()


def asked(text):
    return {"messages": [{"role": "user", "content": text}]}


def chat():
    return {"text": graph(KEY).invoke(asked(HELLO))["messages"][-1].content}


def stream():
    pieces = graph(KEY).stream(asked(HELLO), stream_mode="messages")
    return streamed(piece.content for piece, _ in pieces if isinstance(piece, AIMessageChunk))


def tools():
    return {"text": create_agent(model(KEY), [add]).invoke(asked(SUM))["messages"][-1].content, "called": called}


def structured():
    return create_agent(model(KEY), response_format=Person).invoke(asked(WHO))["structured_response"].model_dump()


def spent():
    return refused(lambda: create_agent(model(SPENT_KEY), [add]).invoke(asked(HELLO)))


def turns():
    agent = create_agent(model(KEY), [add], checkpointer=InMemorySaver())
    about = {"configurable": {"thread_id": "1"}}
    texts = [agent.invoke(asked(question), about)["messages"][-1].content for question in SUMS]
    return {"texts": texts, "called": called}


run(chat=chat, stream=stream, tools=tools, structured=structured, spent=spent, turns=turns)
