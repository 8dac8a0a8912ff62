"""How a model that declares no calls of tools is told to make them, in its prompt."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from budgeteer.models.chat import call_of
from budgeteer.solve.tool import Tool

HOW = """You can call these tools:
{tools}

To call one, write for example
{example}
and its result follows. When you know the answer, write it and call nothing."""
_FILLED: dict[str, Any] = {"integer": 1, "number": 1, "boolean": True, "array": [], "object": {}}
"""What an argument of a type has in an example, if its schema says nothing else."""


def example(tool: Tool, question: str) -> str:
    """A call of a tool that can be made as it stands: a model that copies it has asked the tool for the question.

    An argument has what its schema says first of ``default``, ``examples``, ``enum`` and ``minimum``, else, as a text,
    the words of the question, 200 characters at most.

    >>> size = {"enum": ["s", "l"]}
    >>> print(example(Tool("find", "", {"query": {"type": "string"}, "size": size}, None), "Who wrote Emma?"))
    <tool_call>
    {"name": "find", "arguments": {"query": "Who wrote Emma?", "size": "s"}}
    </tool_call>
    """
    asked = textwrap.shorten(question, 200, placeholder="") or question[:200]
    filled = {}
    for name, schema in tool.parameters.items():
        alone = replace(tool, parameters={name: schema})
        said = [schema.get("default"), *(schema.get("examples") or ()), *(schema.get("enum") or ())]
        known = [value for value in (*said, schema.get("minimum")) if value is not None]
        known = [value for value in known if not alone.wrong({name: value})]
        filled[name] = known[0] if known else _FILLED.get(str(schema.get("type")), asked)
    return call_of(tool.name, json.dumps(filled, ensure_ascii=False))


def how_to_call(tools: Sequence[Tool], question: str) -> str:
    """What is written behind a question: the schemas of the tools, and a call of the first one as an example.

    The example is no pattern with gaps, since models that were not trained on calls copy what stands there.
    """
    schemas = "\n".join(json.dumps(tool.schema()) for tool in tools)
    return HOW.format(tools=schemas, example=example(tools[0], question))
