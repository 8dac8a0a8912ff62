"""Claude Agent SDK: its own command, behind the gateway, with a tool of this process."""

import asyncio
import json
import sys

from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKError, ResultMessage, create_sdk_mcp_server, query, tool

ran = []


@tool("search", "Search for something.", {"query": str})
async def search(arguments):
    ran.append(arguments["query"])
    return {"content": [{"type": "text", "text": f"Finding {len(ran)}: nothing yet."}]}


async def ask(question, gateway, key, model):
    found = {}
    options = ClaudeAgentOptions(
        model=model,
        system_prompt="You search.",
        tools=[],
        mcp_servers={"here": create_sdk_mcp_server("here", tools=[search])},
        allowed_tools=["mcp__here__search"],
        setting_sources=[],
        max_turns=99,
        task_budget={"total": 20_000},
        env={
            "ANTHROPIC_BASE_URL": gateway,
            "ANTHROPIC_API_KEY": key,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CODE_MAX_OUTPUT_TOKENS": "1024",
        },
    )
    try:
        async for message in query(prompt=question, options=options):
            if isinstance(message, ResultMessage):
                found = {"text": message.result, "error": message.is_error}
    except ClaudeSDKError as error:  # raised behind a result that is an error
        found["raised"] = type(error).__name__
    return {**found, "ran": len(ran)}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(ask(*sys.argv[1:]))))
