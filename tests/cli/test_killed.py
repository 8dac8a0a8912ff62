"""kill -9 in the middle of a run against a slow endpoint, several times: the output is whole, nothing is paid twice."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from budgeteer.ledger import SqliteLedger
from helpers.upstream import Upstream, answer

TESTS = Path(__file__).parents[1]


class Slow:
    """Answers after a while; counts what it was asked and what it would bill."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.asked, self.billed = seconds, Counter(), 0

    async def __call__(self, server, writer, path, body) -> None:
        rng = random.Random(f"{body['prompt']} {body['seed']}")
        text = ("x" * rng.randint(0, 20) + f"</think>{int(body['prompt'].split()[0]) + 1}\n")[: body["max_tokens"]]
        self.asked[body["prompt"], body["seed"]] += 1
        self.billed += len(body["prompt"]) + len(text)  # from here on it would be billed, whoever is there to read it
        await asyncio.sleep(self.seconds * rng.random())
        usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": len(text)}
        await answer(writer, 200, {"choices": [{"text": text}], "usage": usage})


def start(url: str, out: Path, budget: str, per: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(TESTS / "helpers" / "killed_child.py"), url, str(out), budget, per]
    path = os.pathsep.join([str(TESTS), str(TESTS.parent / "src")])
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    )


@pytest.mark.parametrize(("budget", "per"), [("300", "question"), ("2k", "total")])
def test_a_killed_run_goes_on_and_pays_for_nothing_twice(tmp_path, budget, per):
    out, slow, kills = tmp_path / "rows.jsonl", Slow(0.15), 3
    with Upstream(slow) as server:
        for n in range(1, kills + 1):
            child = start(server.url, out, budget, per)
            deadline = time.monotonic() + 60
            while sum(slow.asked.values()) < 14 * n and time.monotonic() < deadline:
                assert child.poll() is None, child.communicate()
                time.sleep(0.01)
            child.send_signal(signal.SIGKILL)
            child.communicate()
            time.sleep(0.3)  # what the server still had in hand
        answered_before = {json.loads(line)["id"] for line in whole_lines(out)}
        child = start(server.url, out, budget, per)
        printed, errors = child.communicate(timeout=120)
    assert child.returncode == 0, errors
    found = json.loads(printed)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(row["id"] for row in rows) == sorted(f"q{i}" for i in range(16))
    assert 0 < len(answered_before) < 16
    # only what was under way at a kill was asked again: at most four calls a kill
    again = sum(n - 1 for n in slow.asked.values())
    assert again <= 4 * kills
    assert any(row["wasted"]["all"] for row in rows)
    # what the endpoint bills is within what the ledger says, and that is within the budget
    assert slow.billed <= found["spent"] <= found["limit"]
    assert found["over"] == 0
    assert sum(row["units"]["all"] for row in rows) == found["spent"]
    assert all(row["answer"] is not None or row["stopped_by"] == "budget" for row in rows)
    with SqliteLedger(tmp_path / "rows.jsonl.run" / "ledger.db") as ledger:
        ledger.verify()
        assert ledger.snapshot()[1].reservations == {}


def whole_lines(path: Path) -> list[bytes]:
    return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
