"""Many tasks in several processes on one ledger: nothing beyond the declared bound, every unit accounted for, and the
budget used: with the adaptive estimator at least 95 % of what a scheduler admits that knows every actual."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from budgeteer.ledger import Ledger, Limit, SqliteLedger, journal
from budgeteer.ledger.address import connect
from helpers import servers

WORKER = """
import asyncio, json, random, sys
from budgeteer.core.errors import BudgetExceeded
from budgeteer.ledger import Allowance
from budgeteer.ledger.address import connect
from budgeteer.metering.estimate import Estimator, State
where, seed, tasks, calls = sys.argv[1], *map(int, sys.argv[2:])
ledger = connect(where, timeout=60)
rng = random.Random(seed)
found = {"charged": 0, "excess": 0, "admitted": 0, "refused": 0, "wanted": 0}
BOUND = 1000
estimator, state = Estimator(), State()

async def work(agent, n):
    global state
    for _ in range(n):
        actual = min(BOUND, int(rng.lognormvariate(3.5, 1.0)))  # 54 on average
        found["wanted"] += actual
        held = estimator.reserve(state, "m", BOUND)
        try:
            async with agent.reserve({"all": held}) as call:
                await asyncio.sleep(rng.random() / 200)
                call.settle({"all": actual}, stage=rng.choice(["plan", "code"]))
        except BudgetExceeded:
            found["refused"] += 1
            continue
        state = estimator.observe(state, "m", BOUND, actual)
        found["charged"] += actual
        found["excess"] += max(0, actual - held)
        found["admitted"] += 1

async def main():
    agent = Allowance(ledger, "org/team/key", {"all": 10**9})
    await asyncio.gather(*[work(agent, calls // tasks + (i < calls % tasks)) for i in range(tasks)])

asyncio.run(main())
print(json.dumps(found))
"""


def fan_out(ledger: Ledger, where: str, processes: int, tasks: int, calls: int) -> dict[str, float]:
    cap = calls * 35  # actuals average 54 a call, so about two thirds fit
    ledger.open("org", [Limit("all", cap)])
    ledger.open("org/team", [Limit("all", 2 * cap, "month")])
    ledger.open("org/team/key")
    command = [sys.executable, "-c", WORKER, where]
    workers = [
        subprocess.Popen([*command, str(seed), str(tasks), str(calls // processes)], stdout=subprocess.PIPE, text=True)
        for seed in range(processes)
    ]
    found = [json.loads(worker.communicate()[0]) for worker in workers]
    total: dict[str, float] = {name: sum(one[name] for one in found) for name in found[0]}
    assert total["admitted"] + total["refused"] == calls
    assert total["refused"] > 0
    # a scheduler that knows every actual admits at most the cap, or all that is wanted
    total["share"] = total["charged"] / min(cap, total["wanted"])
    print(total)
    # charged is the sum of the actuals, and the cap is passed by no more than calls used above their reservations
    assert ledger.remaining("org")["all"] == cap - total["charged"]
    assert total["charged"] - cap <= total["excess"]
    verified = ledger.verify()
    assert verified.spent == {"org/team/key": {"all": total["charged"]}}
    # no reservation was ever admitted that did not fit at its moment
    held: dict[str, int] = {}
    spent = 0
    for line, _ in ledger.lines():
        _, (name, _, amounts, _, status, _, actual, *_) = journal.decode(line)
        if status == "open":
            held[name] = amounts[0][1]
            assert spent + sum(held.values()) <= cap
        elif status == "settled":
            del held[name]
            spent += actual[0][1]
    assert not held
    return total


# (processes, tasks, calls) and the least share of an omniscient scheduler's work: each process starts with an estimator
# that has seen nothing and reserves the bound, which weighs on the few calls of the small size
SIZES = [((2, 32, 600), 0.6), pytest.param(((4, 64, 10_000), 0.95), marks=pytest.mark.slow)]


@pytest.mark.parametrize("size", SIZES)
def test_fan_out_on_sqlite(tmp_path: Path, size: tuple[tuple[int, int, int], float]) -> None:
    path = tmp_path / "l.db"
    with SqliteLedger(path) as ledger:
        assert fan_out(ledger, str(path), *size[0])["share"] >= size[1]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("server_url", servers.KINDS, indirect=True)
def test_fan_out_on_a_server(server_url: str, size: tuple[tuple[int, int, int], float]) -> None:
    with connect(server_url) as ledger:
        assert fan_out(ledger, server_url, *size[0])["share"] >= size[1]
