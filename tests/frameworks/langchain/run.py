"""LangChain's agents, with langchain-openai."""

from langchain.agents import create_agent
from langchain.agents.middleware import ModelCallLimitMiddleware
from langchain_openai import ChatOpenAI
from scenarios import BASE_URL, MODEL, run

from budgeteer.adapters.langchain import BudgetMiddleware


def make(name, tools, budget=None, limit=None, stream=False):
    model = ChatOpenAI(model=MODEL, base_url=BASE_URL, api_key="x", max_retries=2, stream_usage=True)
    middleware = [BudgetMiddleware(budget)] if budget else [ModelCallLimitMiddleware(run_limit=limit)]
    agent = create_agent(model, tools, system_prompt=f"You are {name}.", middleware=middleware)

    def ask(question):
        given = {"messages": [{"role": "user", "content": question}]}
        if not stream:
            return agent.invoke(given)["messages"][-1].text
        pieces = [piece for piece, _ in agent.stream(given, stream_mode="messages")]
        return "".join(piece.text for piece in pieces if piece.type != "tool")

    return ask


if __name__ == "__main__":
    run(make)
