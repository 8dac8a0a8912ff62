"""CrewAI: a crew, its tasks' tools and guardrails, its planner and its memory."""

from cases import binary, ran, run
from crewai import LLM, Agent, Crew, Task
from crewai.tools import BaseTool
from scenarios import BASE_URL, MODEL

from budgeteer.adapters.crewai import spending
from budgeteer.metering.agents import AgentBudget


class Search(BaseTool):
    name: str = "search"
    description: str = "Search for something."

    def _run(self, query: str) -> str:
        ran.append(query)
        return f"Finding {len(ran)}: nothing yet."


class Waiting(Search):
    async def _run(self, query: str) -> str:
        ran.append(query)
        return f"Finding {len(ran)}: nothing yet."


class Binary(Search):
    def _run(self, query: str) -> bytes:
        return binary(query)


def llm():
    return LLM(model=f"openai/{MODEL}", base_url=BASE_URL, api_key="x", max_retries=0)


def agent(tool, **options):
    return Agent(role="r", goal="g", backstory="b", llm=llm(), tools=[tool], max_iter=30, cache=False, **options)


def crew(budget, task=None, **options):
    one = agent(Search())
    tasks = [Task(description="do: search", expected_output="x", agent=one, **(task or {}))]
    return spending(Crew(agents=[one], tasks=tasks, cache=False, **options), budget).kickoff()


CASES = {
    "crew": crew,
    "guarded": lambda budget: crew(budget, {"guardrail": "must be kind", "guardrail_max_retries": 1}),
    "remembering": lambda budget: crew(budget, memory=True),
    "planned": lambda budget: crew(budget, planning=True, planning_llm=llm()),
    "refused": lambda budget: crew(budget, planning=True),
    "waiting": lambda budget: spending(agent(Waiting()), budget).kickoff("do: search"),
    "binary": lambda budget: spending(agent(Binary()), budget).kickoff("do: search"),
    "parallel": lambda budget: spending(agent(Search()), budget).kickoff("do: search x6"),
    "again": lambda budget: spending(spending(agent(Search()), budget), budget).kickoff("do: search"),
    "another": lambda budget: spending(agent(spending(agent(Search()), AgentBudget.parse("12k")).tools[0]), budget),
}

if __name__ == "__main__":
    run(CASES)
