"""The Claude Agent SDK, whose command runs by itself, behind the gateway: ``make test-frameworks``."""

from __future__ import annotations

import json
import os
import re
import subprocess
from asyncio import StreamWriter
from pathlib import Path
from typing import Any

import pytest

from helpers.clients import Bench, environment
from helpers.frameworks import ENVIRONMENTS, PROGRAMS, ROOT
from helpers.upstream import Upstream, answer, begin, end, event

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(300)]
FOLDER = PROGRAMS / "claude-agent-sdk"
MODEL, TOOL, LIMIT = "claude-sonnet-4-5", "mcp__here__search", 12_000


async def searches(server: Upstream, writer: StreamWriter, path: str, body: Any) -> None:
    """A Claude that calls ``search`` for as long as it is asked to; it bills a token for 8 bytes."""
    calls = "do: search" in json.dumps(body["messages"]) and any(tool["name"] == TOOL for tool in body["tools"])
    use = {"type": "tool_use", "id": f"toolu_{server.calls}", "name": TOOL, "input": {}}
    block = use if calls else {"type": "text", "text": ""}
    delta = (
        {"type": "input_json_delta", "partial_json": '{"query": "x"}'}
        if calls
        else {"type": "text_delta", "text": "Done."}
    )
    reason = {"stop_reason": "tool_use" if calls else "end_turn", "stop_sequence": None}
    read, made = len(server.raw) // 8 + 1, 5
    server.billed += read + made
    usage = {"input_tokens": read, "output_tokens": made}
    message = {"id": f"msg_{server.calls}", "type": "message", "role": "assistant", "model": MODEL}
    if not body.get("stream"):
        whole = {**block, "input": {"query": "x"}} if calls else {**block, "text": "Done."}
        return await answer(writer, 200, {**message, **reason, "content": [whole], "usage": usage})
    await begin(writer)
    for name, data in (
        ("message_start", {"message": {**message, "content": [], "stop_reason": None, "usage": usage}}),
        ("content_block_start", {"index": 0, "content_block": block}),
        ("content_block_delta", {"index": 0, "delta": delta}),
        ("content_block_stop", {"index": 0}),
        ("message_delta", {"delta": reason, "usage": {"output_tokens": made}}),
        ("message_stop", {}),
    ):
        await event(writer, {"type": name, **data}, name)
    await end(writer)


def said(arguments: list[str], home: Path) -> str:
    """What a program prints in the environment of the SDK: a file and its arguments, or Python itself."""
    python = environment(FOLDER / "requirements.txt", ENVIRONMENTS / "claude-agent-sdk")
    command = arguments if len(arguments) > 1 else ["-c", *arguments]
    done = subprocess.run(
        [str(python), *command], env={"PATH": os.environ["PATH"], "HOME": str(home)}, cwd=home, capture_output=True,
        text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def ran(bench: Bench, question: str, key: str, home: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(said([str(FOLDER / "run.py"), question, bench.root, key, MODEL], home))
    return found


def test_it_stays_within_the_budget_of_its_key_and_says_what_it_may_spend(tmp_path):
    with Bench(searches, MODEL) as bench:
        found = ran(bench, "Say hello.", bench.key("calm", LIMIT), tmp_path)
        assert (found["text"], found["error"], found["ran"]) == ("Done.", False, 0)
        found = ran(bench, "do: search", bench.key("busy", LIMIT), tmp_path)
        calm, busy = bench.counts("calm"), bench.counts("busy")
        told = [body["output_config"]["task_budget"] for body in bench.upstream.bodies]
    assert found["ran"] > 1
    assert found["error"]
    assert f"tokens left of {LIMIT:,}" in found["text"]
    assert busy.refused >= 1
    assert LIMIT / 4 < busy.charged <= LIMIT
    assert calm.charged + busy.charged == busy.billed
    assert {one["total"] for one in told} == {20_000}


def test_the_snippet_of_the_documentation_runs(tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/agents.md").read_text(), re.MULTILINE | re.DOTALL)
    (own,) = [block for block in blocks if "claude_agent_sdk" in block]
    with Bench(searches, MODEL) as bench:
        own = own.replace("http://127.0.0.1:8400", bench.root).replace("bk-...", bench.key("page", 1_000_000))
        own = own.replace("ClaudeAgentOptions(\n", f"ClaudeAgentOptions(\n    model={MODEL!r},\n")
        assert "Done." in said([own], tmp_path)
        assert bench.counts("page").charged == bench.upstream.billed > 0
