"""Long calls, crashes and ledgers that fail at the end of a call: charged is never below what was billed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from budgeteer.core.errors import BudgetExceeded, LedgerUnavailable
from budgeteer.ledger import Allowance, Limit, MemoryLedger, SqliteLedger, upkeep


class Flaky(SqliteLedger):
    """A ledger that can be told not to answer."""

    down = False

    def run_batch(self, commands):
        if self.down:
            raise LedgerUnavailable("the test says so")
        return super().run_batch(commands)


@pytest.fixture
def ledger(tmp_path):
    with Flaky(tmp_path / "l.db") as made:
        made.open("acme", [Limit("all", 100)])
        yield made


def until(true, seconds=20):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def events(ledger, status):
    return [line for line, _ in ledger.lines() if line.split("\t")[2] == status]


def test_a_call_longer_than_its_reservation_keeps_others_out(ledger):
    """90 of 100 for longer than the reservation lives: another call of 90 is refused all the while."""
    allowance = Allowance(ledger, "acme", {"all": 200})
    with allowance.reserve({"all": 90}, ttl=1) as call:
        until(lambda: len(events(ledger, "open")) >= 5)  # renewed each third of a second
        with pytest.raises(BudgetExceeded):
            allowance.reserve({"all": 90}).__enter__()
        call.settle({"all": 80})
    assert ledger.remaining("acme") == {"all": 20}
    assert len(events(ledger, "settled")) == 1

    async def main():
        async with allowance.reserve({"all": 20}, ttl=1) as call:
            seen = len(events(ledger, "open"))
            while len(events(ledger, "open")) < seen + 4:
                await asyncio.sleep(0.01)
            call.settle({"all": 20})

    asyncio.run(main())
    assert ledger.remaining("acme") == {"all": 0}


def test_a_call_that_is_forgotten_is_abandoned_and_charged(ledger):
    allowance = Allowance(ledger, "acme", {"all": 100})
    call = allowance.reserve({"all": 60}, ttl=1)
    call.__enter__()
    gone = allowance.reserve({"all": 30}, ttl=1, on_abandon="release")
    gone.__enter__()
    del call, gone
    until(lambda: ledger.remaining("acme") == {"all": 40})
    time.sleep(0.01)
    assert len(events(ledger, "expired")) == 1
    (line,) = events(ledger, "settled")
    assert '"outcome":"abandoned"' in line


CHILD = """
import sys, time
from openai import OpenAI
from budgeteer.adapters.openai import wrap
from budgeteer.ledger import Allowance, SqliteLedger
from budgeteer.metering.estimate import Bounds
import budgeteer.ledger.reserved as reserved
reserved.TTL = 1
client = OpenAI(base_url=sys.argv[1], api_key="x", max_retries=0)
client = wrap(client, Allowance(SqliteLedger(sys.argv[2]), "acme", {"all": 1000}), bounds=Bounds(overhead=10))
client.chat.completions.create(model="m", max_tokens=20, messages=[{"role": "user", "content": "Hi"}])
"""


def test_six_kills_in_mid_call_are_charged_in_full(tmp_path):
    """Each call was billed 20 and nobody was told."""
    from helpers.upstream import Upstream

    arrived, hang = threading.Semaphore(0), threading.Event()

    async def step(server, writer, path, body):
        arrived.release()
        await asyncio.to_thread(hang.wait, 30)
        writer.close()

    with SqliteLedger(tmp_path / "l.db") as ledger, Upstream(step) as provider:
        ledger.open("acme", [Limit("all", 1000)])
        for _ in range(6):
            child = subprocess.Popen([sys.executable, "-c", CHILD, provider.url, str(tmp_path / "l.db")])
            assert arrived.acquire(timeout=60)
            child.send_signal(signal.SIGKILL)
            child.wait()
        hang.set()
        held = ledger.snapshot()[1].accounts["acme"].books["all"].held
        until(lambda: len(events_after_sweep(ledger)) == 6)
        spent = ledger.snapshot()[1].accounts["acme"].books["all"].spent
        assert spent >= held
        assert spent >= 6 * 20
        assert ledger.remaining("acme") == {"all": 1000 - spent}


def events_after_sweep(ledger):
    ledger.remaining("acme")
    return events(ledger, "settled")


@pytest.mark.parametrize("sync", [True, False])
def test_a_settlement_that_fails_is_made_later(ledger, sync):
    allowance = Allowance(ledger, "acme", {"all": 100})

    async def main():
        async with allowance.reserve({"all": 60}) as call:
            call.settle({"all": 7}, stage="a")
            ledger.down = True

    if sync:
        with allowance.reserve({"all": 60}) as call:
            call.settle({"all": 7}, stage="a")
            ledger.down = True
    else:
        asyncio.run(main())
    assert allowance.remaining == {"all": 93}
    with pytest.raises(LedgerUnavailable):  # nothing new is spent meanwhile
        allowance.reserve({"all": 1}).__enter__()
    ledger.down = False
    until(lambda: ledger.remaining("acme") == {"all": 93})
    (line,) = events(ledger, "settled")
    assert '"stage":"a"' in line


def test_a_reservation_that_the_ledger_may_hold_all_the_same_is_released(ledger):
    allowance = Allowance(ledger, "acme", {"all": 100})

    class Deaf(Flaky):
        def run_batch(self, commands):
            outcomes = super().run_batch(commands)
            if commands[0][0] == "reserve":
                raise LedgerUnavailable("carried out, and the answer lost")
            return outcomes

    ledger.__class__ = Deaf
    with pytest.raises(LedgerUnavailable):
        allowance.reserve({"all": 60}).__enter__()
    assert allowance.remaining == {"all": 100}
    until(lambda: ledger.remaining("acme") == {"all": 100})
    assert len(events(ledger, "released")) == 1


def test_what_is_owed_is_booked_as_the_ledger_closes(tmp_path):
    ledger = Flaky(tmp_path / "l.db")
    ledger.open("acme", [Limit("all", 100)])
    for up in (True, False):
        with Allowance(ledger, "acme", {"all": 50}).reserve({"all": 10}) as call:
            call.settle({"all": 7})
            ledger.down = True
        ledger.down = not up
        ledger.close()
        ledger.down = False
    with SqliteLedger(tmp_path / "l.db") as again:
        assert again.remaining("acme") == {"all": 100 - 7 - 10}  # the second is held, until it counts as abandoned


def test_memory_needs_no_upkeep(monkeypatch):
    """It dies with the process, so its calls are held until they are settled, however long they take."""
    monkeypatch.setattr(upkeep.Upkeep, "keep", lambda *_: pytest.fail("renewed"))
    now = [10**12]
    ledger = MemoryLedger(clock=lambda: now[0])
    ledger.open("acme", [Limit("all", 100)])
    with Allowance(ledger, "acme", {"all": 100}).reserve({"all": 90}) as call:
        now[0] += 86_400_000
        assert ledger.remaining("acme") == {"all": 10}
        call.settle({"all": 5})
    assert ledger.remaining("acme") == {"all": 95}


def test_a_forked_child_renews_nothing_and_the_process_ends_with_calls_open(tmp_path):
    code = """
import os, sys
from budgeteer.ledger import Allowance, Limit, SqliteLedger, upkeep
ledger = SqliteLedger(sys.argv[1])
ledger.open("acme", [Limit("all", 100)])
call = Allowance(ledger, "acme", {"all": 100}).reserve({"all": 90})
call.__enter__()
child = os.fork()
if not child:
    os._exit(len(upkeep.here()._calls))
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    if hasattr(os, "fork"):
        done = subprocess.run([sys.executable, "-c", code, str(Path(tmp_path) / "l.db")], timeout=60, check=False)
        assert done.returncode == 0
