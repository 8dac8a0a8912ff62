"""The Claude Agent SDK: its own command behind the gateway, with ``search`` as a tool of this process.

The budget is that of the key that comes with a scenario; nothing of this package runs here. Sub-agents are the
command's own, which spend from the same key. The arm ``own`` has a key without a limit to speak of, and the SDK's own
limit in dollars, at $3 a million tokens of input those of the other arm.
"""

import asyncio
import json
import os
import sys
import traceback
import urllib.request

from claude_agent_sdk import (
    AgentDefinition,
    ClaudeAgentOptions,
    ClaudeSDKError,
    ResultMessage,
    create_sdk_mcp_server,
    query,
    tool,
)

GATEWAY, MODEL = os.environ["BASE_URL"], os.environ["MODEL"]
DOLLARS = 0.30
ENVIRONMENT = {
    "ANTHROPIC_BASE_URL": GATEWAY,
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "CLAUDE_CODE_MAX_OUTPUT_TOKENS": "96",
    "MCP_TOOL_TIMEOUT": "200",
}
QUESTIONS = {
    "parallel tools": "do: search x6",
    "fan-out": "do: ask_researcher x3",
    "aborted child": "do: ask_researcher",
    "summariser": "do: summarise",
    "recursion": "do: ask_worker",
}
"""What is asked; elsewhere one search at a time."""


def written(text):
    return {"content": [{"type": "text", "text": text}]}


class World:
    """The tools of a scenario, and how often they ran."""

    def __init__(self, scenario, key):
        self.scenario, self.key, self.ran = scenario, key, 0

    async def search(self, arguments):
        self.ran += 1
        if self.scenario in ("tool that raises", "aborted child"):
            raise ValueError("no such thing")
        if self.scenario == "tool that hangs":
            await asyncio.sleep(3600)
        if self.scenario == "megabytes":
            return written("long text " * 300_000)
        more = " More of it." * 100 if self.scenario == "growing context" else ""
        return written(f"Finding {self.ran}: nothing yet.{more}")

    async def summarise(self, arguments):
        self.ran += 1
        body = {"model": MODEL, "max_tokens": 96, "messages": [{"role": "user", "content": "Sum it up"}]}
        headers = {"x-api-key": self.key, "content-type": "application/json", "anthropic-version": "2023-06-01"}
        request = urllib.request.Request(f"{GATEWAY}/v1/messages", json.dumps(body).encode(), headers)
        found = await asyncio.to_thread(lambda: json.load(urllib.request.urlopen(request, timeout=30)))
        return written(found["content"][0]["text"])


async def do(scenario, arm, key):
    """What comes of a scenario: the answer or the error, and how often tools, or requests of sub-agents, ran."""
    world = World(scenario, key)
    question = QUESTIONS.get(scenario, "do: search")
    name = "summarise" if scenario == "summariser" else "search"
    tools = [tool(name, "Search for something.", {"query": str})(getattr(world, name))]
    agents = None
    if "ask_" in question:
        agent = question.split("ask_")[1].split()[0]
        own = ["Agent"] if agent == "worker" else ["mcp__here__search"]
        agents = {agent: AgentDefinition(description="A colleague.", prompt=f"You are {agent}.", tools=own)}
    options = ClaudeAgentOptions(
        model=MODEL,
        system_prompt="You are the boss.",
        tools=["Agent"] if agents else [],
        agents=agents,
        mcp_servers={"here": create_sdk_mcp_server("here", tools=tools)},
        allowed_tools=[f"mcp__here__{name}", "Agent"],
        setting_sources=[],
        include_partial_messages=scenario == "stream",
        max_budget_usd=DOLLARS if arm == "own" else None,
        env={**ENVIRONMENT, "ANTHROPIC_API_KEY": key},
    )
    text, error, asked = "", "", 0
    try:
        async for message in query(prompt=question, options=options):
            asked += type(message).__name__ == "TaskStartedMessage"
            if isinstance(message, ResultMessage):
                said = message.result or message.subtype
                text, error = ("", f"{message.subtype}: {said}") if message.is_error else (said, "")
    except ClaudeSDKError as raised:  # behind a result that is an error
        error = error or f"{type(raised).__name__}: {raised}"
    return {"text": text[:200], "error": error[:300], "ran": world.ran or asked}


if __name__ == "__main__":
    for line in sys.stdin:
        given = json.loads(line)
        try:
            came = asyncio.run(do(given["scenario"], given["arm"], given["key"]))
        except Exception:
            came = {"failed": traceback.format_exc()[-3000:]}
        print(json.dumps(came), flush=True)
