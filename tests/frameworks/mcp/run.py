"""A loop of one's own around a model over HTTP, whose ``search`` is a tool of a server of MCP."""

import asyncio
import inspect
import json
from functools import partial

import httpx2
from mcp import Client
from mcp.server.mcpserver import MCPServer
from scenarios import BASE_URL, MODEL, run

from budgeteer import Usage
from budgeteer.adapters.mcp import spending
from budgeteer.metering.settlement import Answer


class StillGoing(Exception):
    """Raised by this program, since nothing of MCP ends the run."""


calls = depth = 0


async def complete(body, stream):
    """A request: the message and its usage."""
    async with httpx2.AsyncClient(base_url=BASE_URL, timeout=60) as http:
        if not stream:
            found = (await http.post("/chat/completions", json=body)).raise_for_status().json()
            message, usage = found["choices"][0]["message"], found["usage"]
        else:
            message, usage = {"role": "assistant", "content": ""}, None
            body = {**body, "stream": True, "stream_options": {"include_usage": True}}
            async with http.stream("POST", "/chat/completions", json=body) as answer:
                answer.raise_for_status()
                async for line in answer.aiter_lines():
                    data = line.removeprefix("data: ").strip()
                    if not data.startswith("{"):
                        continue
                    chunk = json.loads(data)
                    usage = chunk.get("usage") or usage
                    for choice in chunk["choices"]:
                        message["content"] += choice["delta"].get("content") or ""
                        for call in choice["delta"].get("tool_calls") or ():
                            message.setdefault("tool_calls", []).append(call)
    return message, Usage(input=usage["prompt_tokens"], output=usage["completion_tokens"])


async def asked(messages, schemas, budget, stream):
    """The next message of the model: as the budget allows, or without one as it likes."""
    global calls
    body = {"model": MODEL, "messages": messages, **({"tools": schemas} if schemas else {})}
    if budget is None:
        calls += 1
        if calls > 12:
            raise StillGoing("12 calls")
        return (await complete(body, stream))[0]

    async def send(turn):
        sent = {**body, "max_tokens": turn.cap}
        if not turn.tools:
            sent.pop("tools", None)
        if turn.note:
            sent["messages"] = [*messages, {"role": "user", "content": turn.note}]
        return await complete(sent, stream)

    def stop(why):
        return {"role": "assistant", "content": why}, None

    found = await budget.aanswer(body, send, stop, tools=bool(schemas), read=lambda found: Answer(found[1]))
    return found[0]


def local(tool):
    """The schema of a function with one argument."""
    (name,) = inspect.signature(tool).parameters
    parameters = {"type": "object", "properties": {name: {"type": "string"}}, "required": [name]}
    return {"name": tool.__name__, "description": tool.__doc__, "parameters": parameters}


def make(name, tools, budget=None, limit=None, stream=False):
    server, functions = MCPServer(name), {}
    for tool in tools:
        if tool.__name__ == "search":
            server.tool()(tool)
        else:  # asks an agent of this process, which spends from its part here and not in another task
            functions[tool.__name__] = tool

    async def loop(question):
        messages = [{"role": "system", "content": f"You are {name}."}, {"role": "user", "content": question}]
        async with Client(server) as session:
            if budget:
                session = spending(session, budget)
            schemas = [
                {"name": tool.name, "description": tool.description, "parameters": tool.input_schema}
                for tool in (await session.list_tools()).tools
            ] + [local(tool) for tool in functions.values()]

            async def called(call):
                tool, arguments = call["function"]["name"], json.loads(call["function"]["arguments"])
                if tool in functions:
                    ask = partial(functions[tool], **arguments)
                    return await (budget.ause(tool, ask) if budget else ask())
                found = await session.call_tool(tool, arguments)
                return "".join(block.text for block in found.content if block.type == "text")

            while True:
                offered = [{"type": "function", "function": schema} for schema in schemas]
                message = await asked(messages, offered, budget, stream)
                if not message.get("tool_calls"):
                    return message["content"]
                messages.append(message)
                results = await asyncio.gather(*map(called, message["tool_calls"]))
                messages += [
                    {"role": "tool", "tool_call_id": call["id"], "content": result}
                    for call, result in zip(message["tool_calls"], results, strict=True)
                ]

    async def ask(question):
        global calls, depth
        calls, depth = calls if depth else 0, depth + 1
        try:
            return await loop(question)
        except ExceptionGroup as group:  # as the client's task group gives what is raised while it is open
            raised = group
            while isinstance(raised, ExceptionGroup):
                raised = raised.exceptions[0]
            raise raised from None
        finally:
            depth -= 1

    return ask


if __name__ == "__main__":
    run(make)
