"""LangGraph: a graph of two nodes made by hand, without create_agent; where a stream is asked for, it is awaited."""

import asyncio

from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from langgraph.graph import MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from openai import DefaultAsyncHttpxClient
from scenarios import BASE_URL, MODEL, run

from budgeteer.adapters.langchain import BudgetMiddleware, asking


def make(name, tools, budget=None, limit=None, stream=False):
    http = {"http_async_client": DefaultAsyncHttpxClient()} if stream else {}  # else one of another loop is used again
    model, metered = ChatOpenAI(model=MODEL, base_url=BASE_URL, api_key="x", max_retries=2, **http), {}
    if budget:
        own = BudgetMiddleware(budget)
        model = asking(model, tools, budget)
        metered = {"wrap_tool_call": own.wrap_tool_call, "awrap_tool_call": own.awrap_tool_call}
    else:
        model = model.bind_tools(tools) if tools else model

    def node(state):
        return {"messages": [model.invoke(state["messages"])]}

    async def waiting(state):
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", waiting if stream else node)
    graph.add_node("tools", ToolNode(tools, **metered))
    graph.set_entry_point("model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    agent = graph.compile()
    config = {"recursion_limit": 2 * limit if limit else 1000}

    def ask(question):
        given = {"messages": [SystemMessage(f"You are {name}."), HumanMessage(question)]}
        found = asyncio.run(agent.ainvoke(given, config)) if stream else agent.invoke(given, config)
        return found["messages"][-1].text

    return ask


if __name__ == "__main__":
    run(make)
