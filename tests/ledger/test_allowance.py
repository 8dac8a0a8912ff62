# ruff: noqa: PT012
"""An allowance is affine, conserves units to the last one, and never admits more than it holds."""

from __future__ import annotations

import asyncio
import copy
import gc
import os
import pickle
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgeteer.core.errors import AllowanceError, BudgetExceeded, IdConflict, InvalidInput, LedgerUnavailable
from budgeteer.ledger import Allowance, Ledger, Limit, MemoryLedger, SqliteLedger, upkeep
from budgeteer.ledger.address import connect
from helpers import servers


@pytest.fixture(params=["memory", "sqlite", *servers.KINDS])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    address = {"memory": "memory:", "sqlite": str(tmp_path / "l.db")}.get(request.param)
    if address is None:
        request.getfixturevalue(f"{request.param}_process")
        address = servers.shared(request.param)
    made = connect(address)
    made.open("org", [Limit("all", 10_000)])
    with made:
        yield made


def test_a_call_holds_settles_and_gives_back(ledger: Ledger) -> None:
    agent = Allowance(ledger, "org", {"all": 100})
    with agent.reserve({"all": 60}) as call:
        assert agent.remaining == {"all": 40}
        assert ledger.remaining("org") == {"all": 9940}
        call.settle({"all": 10})
        call.settle({"all": 25}, stage="plan")  # a stream: the last word counts
    assert call.reservation is not None
    assert call.reservation.actual == (("all", 25),)
    assert agent.remaining == {"all": 75}
    assert ledger.remaining("org") == {"all": 9975}
    with (
        pytest.raises(BudgetExceeded, match=r"org \(allowance\): 75 tokens left of 100,") as caught,
        agent.reserve({"all": 76}),
    ):
        pass
    assert "this request may use 76 (25 tokens used, 0 tokens reserved); give the Allowance more" in str(caught.value)
    assert (caught.value.kind, caught.value.requested, caught.value.limit) == ("all", 76, 100)
    assert ledger.remaining("org") == {"all": 9975}


def test_a_call_that_fails_is_charged_what_it_said_or_what_it_held(ledger: Ledger) -> None:
    agent = Allowance(ledger, "org", {"all": 1000})
    with pytest.raises(ZeroDivisionError), agent.reserve({"all": 100}) as call:
        call.settle({"all": 30})
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), agent.reserve({"all": 100}) as lost:
        raise ZeroDivisionError
    with agent.reserve({"all": 100}) as unsent:
        unsent.release()
    assert agent.remaining == {"all": 1000 - 30 - 100}
    assert ledger.remaining("org") == {"all": 10_000 - 30 - 100}
    assert lost.reservation is not None
    assert "estimated" in lost.reservation.detail
    with pytest.raises(AllowanceError, match="entered before"), lost:
        pass


def test_a_refusal_by_the_ledger_leaves_the_allowance_whole(ledger: Ledger) -> None:
    agent = Allowance(ledger, "org", {"all": 50_000})
    with pytest.raises(BudgetExceeded, match="org: 10,000 tokens left of 10,000"), agent.reserve({"all": 10_001}):
        pass
    assert agent.remaining == {"all": 50_000}


def test_overshoot_lowers_the_balance_below_zero(ledger: Ledger) -> None:
    root = Allowance(ledger, "org", {"all": 100})
    (child,) = root.share([{"all": 100}])
    with child.reserve({"all": 100}) as call:
        call.settle({"all": 130})
    assert child.remaining == {"all": -30}
    child.close()
    assert root.remaining == {"all": -30}
    assert ledger.remaining("org") == {"all": 9870}
    with pytest.raises(BudgetExceeded), root.reserve({"all": 1}):
        pass


def test_what_costs_nothing_is_admitted_after_an_overshoot() -> None:
    """A free model asks for no money, and needs none."""
    ledger = MemoryLedger()
    ledger.open("org", [Limit("all", 10_000), Limit("money", 10_000)])
    agent = Allowance(ledger, "org", {"all": 100, "money": 50})
    with agent.reserve({"all": 10, "money": 40}) as call:
        call.settle({"all": 10, "money": 60})
    assert agent.remaining == {"all": 90, "money": -10}
    with agent.reserve({"all": 10, "money": 0}) as call:
        call.extend({"all": 15, "money": 0})
        call.settle({"all": 15, "money": 0})
    assert agent.remaining == {"all": 75, "money": -10}
    with pytest.raises(BudgetExceeded), agent.reserve({"all": 10, "money": 1}):
        pass


def test_extend_grows_a_stream(ledger: Ledger) -> None:
    agent = Allowance(ledger, "org", {"all": 100})
    with agent.reserve({"all": 10}) as call:
        call.extend({"all": 60})
        assert agent.remaining == {"all": 40}
        with pytest.raises(BudgetExceeded):
            call.extend({"all": 101})
        call.extend({"all": 20})  # never lower
        assert agent.remaining == {"all": 40}
        assert ledger.remaining("org") == {"all": 9940}
        call.settle({"all": 55})
    assert agent.remaining == {"all": 45}

    async def stream() -> None:
        async with agent.reserve({"all": 5}) as other:
            await other.aextend({"all": 45})
            with pytest.raises(BudgetExceeded):
                await other.aextend({"all": 46})
            other.settle({"all": 45})

    asyncio.run(stream())
    assert agent.remaining == {"all": 0}


def test_it_cannot_be_copied_pickled_or_used_after_it_was_given_on() -> None:
    ledger = MemoryLedger()
    ledger.open("org", [Limit("all", 1000)])
    agent = Allowance(ledger, "org", {"all": 100})
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(AllowanceError):
            attempt(agent)
    heir = agent.delegate("coder")
    assert (heir.path, heir.remaining, agent.remaining) == ("org/coder", {"all": 100}, {"all": 0})
    for use in (lambda: agent.reserve({"all": 1}).__enter__(), lambda: agent.share([1]), agent.delegate):
        with pytest.raises(AllowanceError, match="delegated"):
            use()
    with heir.reserve({"all": 10}) as call:
        call.settle({"all": 10})
    heir.close()
    heir.close()
    with pytest.raises(AllowanceError, match="closed"):
        heir.delegate()
    assert ledger.verify().spent == {"org/coder": {"all": 10}}


def test_delegation_in_a_circle_is_refused() -> None:
    ledger = MemoryLedger()
    ledger.open("org", [Limit("all", 1000)])
    coder = Allowance(ledger, "org", {"all": 100}).delegate("coder")
    reviewer = coder.share({"reviewer": {"all": 50}})["reviewer"]
    with pytest.raises(InvalidInput, match="circle"):
        reviewer.delegate("coder")
    with pytest.raises(InvalidInput, match="circle"):
        reviewer.share({"org": 1})
    assert reviewer.remaining == {"all": 50}


def test_another_process_cannot_use_it() -> None:
    ledger = MemoryLedger()
    ledger.open("org", [Limit("all", 1000)])
    agent = Allowance(ledger, "org", {"all": 100})
    child = os.fork()
    if child == 0:
        try:
            agent.reserve({"all": 1}).__enter__()
        except AllowanceError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(
    "bad",
    [[], [0, 0], [-1, 2], [1.5], [True], [{"all": 101}], [{}], [{"money": 1}], [{"all": 1, "money": 1}], {"a/b": 1}],
)
def test_shares_that_make_no_sense(bad: object) -> None:
    agent = Allowance(MemoryLedger(), "org", {"all": 100})
    with pytest.raises((InvalidInput, BudgetExceeded)):
        agent.share(bad)  # type: ignore[call-overload]
    assert agent.remaining == {"all": 100}


@given(
    total=st.integers(0, 2**62),
    weights=st.lists(st.integers(0, 2**40), min_size=1, max_size=9).filter(any),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_shares_conserve_every_unit(total: int, weights: list[int], data: st.DataObject) -> None:
    ledger = MemoryLedger()
    ledger.open("org", [Limit("all", None)])
    root = Allowance(ledger, "org", {"all": total})
    children = root.share(weights)
    got = [child.remaining["all"] for child in children]
    assert sum(got) == total
    assert root.remaining == {"all": 0}
    whole = sum(weights)
    for units, weight in zip(got, weights, strict=True):
        assert abs(units * whole - total * weight) < whole  # within one unit of the exact share
    spent = 0
    for child in children:
        units = data.draw(st.integers(0, child.remaining["all"]))
        with child.reserve({"all": units}) as call:
            actual = data.draw(st.integers(0, units))
            call.settle({"all": actual})
            spent += actual
        child.close()
    assert root.remaining == {"all": total - spent}


def test_closing_a_parent_closes_the_children_and_calls_under_way_report_upwards() -> None:
    ledger = MemoryLedger()
    ledger.open("org", [Limit("all", 1000)])
    root = Allowance(ledger, "org", {"all": 100})
    (middle,) = root.share([{"all": 80}])
    (leaf,) = middle.share([{"all": 50}])
    with leaf.reserve({"all": 20}) as call:
        middle.close()
        assert root.remaining == {"all": 80}
        with pytest.raises(AllowanceError):
            leaf.share([1])
        call.settle({"all": 5})
    assert root.remaining == {"all": 95}
    (left,) = root.share([{"all": 95}])
    with left.reserve({"all": 10}) as call:
        heir = left.delegate()
        call.settle({"all": 4})
    assert heir.remaining == {"all": 91}
    root.close()
    with pytest.raises(AllowanceError):
        heir.share([1])


def test_a_parent_does_not_keep_children_that_are_closed() -> None:
    ledger = MemoryLedger()
    ledger.open("org")
    root = Allowance(ledger, "org", {"all": 100})
    (child,) = root.share([1])
    child.close()
    (child,) = root.share([1])
    heir = child.delegate()
    heir.close()
    gone = [weakref.ref(child), weakref.ref(heir)]
    del child, heir
    gc.collect()
    assert [ref() for ref in gone] == [None, None]
    assert root.remaining == {"all": 100}


def test_helper_calls_are_charged_beside() -> None:
    ledger = MemoryLedger()
    ledger.open("org", [Limit("all", 1000)])
    ledger.open("org/agent")
    ledger.open("org/judge", [Limit("all", 30)])
    agent = Allowance(ledger, "org/agent", {"all": 100})
    judge = agent.beside("org/judge", {"all": 50})
    with judge.reserve({"all": 30}) as call:
        call.settle({"all": 20})
    assert agent.remaining == {"all": 100}
    assert ledger.remaining("org/judge") == {"all": 10}


def test_a_fan_out_of_threads_never_exceeds_it(ledger: Ledger) -> None:
    agent = Allowance(ledger, "org", {"all": 300})
    lock, state = threading.Lock(), {"held": 0, "most": 0, "spent": 0, "admitted": 0}

    def work(seed: int) -> None:
        for i in range(4):
            try:
                with agent.reserve({"all": 40}) as call:
                    with lock:
                        state["held"] += 40
                        state["most"] = max(state["most"], state["held"] + state["spent"])
                        state["admitted"] += 1
                    actual = (seed * 7 + i * 13) % 41
                    call.settle({"all": actual})
                    with lock:
                        state["held"] -= 40
                        state["spent"] += actual
            except BudgetExceeded:
                pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert state["most"] <= 300
    assert state["admitted"] > 7
    assert agent.remaining == {"all": 300 - state["spent"]}
    assert ledger.remaining("org") == {"all": 10_000 - state["spent"]}


def test_a_fan_out_of_tasks_never_exceeds_it_and_the_loop_goes_on(ledger: Ledger) -> None:
    async def main() -> None:
        agent = Allowance(ledger, "org", {"all": 1000})
        ticks, spent, admitted = 0, 0, 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.001)
                ticks += 1

        async def work(i: int) -> None:
            nonlocal spent, admitted
            try:
                async with agent.reserve({"all": 90}) as call:
                    admitted += 1
                    await asyncio.sleep(0.002 * (i % 5))
                    call.settle({"all": i % 91})
                    spent += i % 91
            except BudgetExceeded:
                pass

        ticker = asyncio.create_task(tick())
        await asyncio.gather(*map(work, range(64)))
        await asyncio.sleep(0.002)
        ticker.cancel()
        assert admitted >= 11
        assert spent <= 1000
        assert ticks > 0
        assert agent.remaining == {"all": 1000 - spent}
        assert await ledger.aio.remaining("org") == {"all": 10_000 - spent}

    asyncio.run(main())


def test_a_store_that_hangs_does_not_block_the_event_loop(tmp_path: Path) -> None:
    import sqlite3

    with SqliteLedger(tmp_path / "l.db", timeout=0.5) as ledger:
        ledger.open("org", [Limit("all", 100)])
        other = sqlite3.connect(tmp_path / "l.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")

        async def main() -> None:
            agent, turns = Allowance(ledger, "org", {"all": 100}), 0

            async def call() -> None:
                async with agent.reserve({"all": 1}):
                    pass

            waiting = asyncio.create_task(call())
            while not waiting.done():
                await asyncio.sleep(0.005)
                turns += 1
            assert turns > 5  # the store hung for half a second, the loop did not
            with pytest.raises(LedgerUnavailable):
                await waiting
            assert agent.remaining == {"all": 100}

        asyncio.run(main())
        other.execute("ROLLBACK")
        other.close()


@pytest.mark.parametrize("steps", range(8))
def test_cancelled_at_any_point_nothing_stays_held(ledger: Ledger, steps: int) -> None:
    async def main() -> None:
        agent = Allowance(ledger, "org", {"all": 100})

        async def call() -> None:
            async with agent.reserve({"all": 60}, id=f"cancelled-{steps}") as one:
                one.settle({"all": 7})
                await asyncio.sleep(0)
                await asyncio.sleep(0)

        task = asyncio.create_task(call())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for _ in range(200):
            left = (await ledger.aio.remaining("org"))["all"]
            if left in (10_000, 9_993):
                break
            await asyncio.sleep(0.005)
        assert left in (10_000, 9_993)
        assert agent.remaining["all"] == left - 9_900

    asyncio.run(main())


def test_a_crashed_call_that_runs_again_with_its_id_is_charged_once(ledger: Ledger) -> None:
    for _ in range(2):
        with Allowance(ledger, "org", {"all": 100}).reserve({"all": 60}, id="step-3") as call:
            call.settle({"all": 10})
    assert ledger.remaining("org") == {"all": 9990}
    with pytest.raises(IdConflict), Allowance(ledger, "org", {"all": 100}).reserve({"all": 60}, id="step-3") as call:
        call.settle({"all": 11})


def refused(agent: Allowance, units: int) -> tuple[int, int, int, int]:
    """What a refusal says: limit, used, reserved and requested."""
    with pytest.raises(BudgetExceeded) as caught, agent.reserve({"all": units}):
        pass
    found = caught.value
    return found.limit, found.used - found.held, found.held, found.requested


def test_a_refusal_says_limit_used_and_reserved_whatever_happened_before(ledger: Ledger) -> None:
    agent = Allowance(ledger, "org", {"all": 1000})
    with agent.reserve({"all": 990}) as call:
        call.settle({"all": 970})
    assert refused(agent, 31) == (1000, 970, 0, 31)
    with agent.reserve({"all": 20}):
        assert refused(agent, 11) == (1000, 970, 20, 11)
    assert refused(agent, 11) == (1000, 990, 0, 11)

    boss = Allowance(ledger, "org", {"all": 100})
    child = boss.share({"coder": {"all": 60}})["coder"]
    assert refused(boss, 41) == (100, 0, 60, 41)
    with child.reserve({"all": 30}) as call:
        assert refused(child, 31) == (60, 0, 30, 31)
        child.close()  # the call goes on: what it holds is the parent's now
        assert refused(boss, 71) == (100, 0, 30, 71)
        call.settle({"all": 35})
    assert refused(boss, 66) == (100, 35, 0, 66)

    with boss.reserve({"all": 10}) as call:
        heir = boss.delegate()
        assert refused(heir, 56) == (100, 35, 10, 56)
        call.release()
    assert refused(heir, 66) == (100, 35, 0, 66)
    with (
        heir.reserve({"all": 65}) as call,
        pytest.raises(BudgetExceeded, match=r"0 tokens left of 100, .*35 tokens used, 65"),
    ):
        call.extend({"all": 66})


def test_an_answer_is_kept_when_somebody_elses_ledger_breaks_at_settlement() -> None:
    class Broken(MemoryLedger):
        breaks = False

        def execute(self, command: Any) -> Any:
            if self.breaks:
                raise ConnectionResetError("the store went away")
            return super().execute(command)

    ledger = Broken()
    ledger.open("org", [Limit("all", 100)])
    agent = Allowance(ledger, "org", {"all": 100})
    with agent.reserve({"all": 60}) as call:
        ledger.breaks = True
        call.settle({"all": 7})  # no error: what was paid for is not lost
    ledger.breaks = False
    assert ledger.remaining("org")["all"] == 40  # held until it is booked
    upkeep.here().pay(ledger)
    agent.close()
    assert ledger.remaining("org")["all"] == 93
