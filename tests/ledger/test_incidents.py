# ruff: noqa: PT012
"""The eight clusters of the catalogue of 63 budget-overrun incidents (arXiv 2606.04056).

Each test first runs the naive pattern of its cluster and shows that it overspends, then the same work on a ledger.
Admitted work stands beside overshoot: no overshoot with nothing admitted would show nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from budgeteer.core.errors import BudgetExceeded, InvalidInput, UnknownAccount
from budgeteer.ledger import Allowance, Limit, MemoryLedger


@dataclass
class Provider:
    """What is billed, whatever the caller believes."""

    billed: int = 0
    calls: int = 0
    largest: int = 0

    def bill(self, tokens: int) -> int:
        """One call."""
        self.billed += tokens
        self.calls += 1
        self.largest = max(self.largest, tokens)
        return tokens


def ledger_of(cap: int) -> MemoryLedger:
    ledger = MemoryLedger()
    ledger.open("org", [Limit("all", cap)])
    return ledger


def report(name: str, cap: int, naive: Provider, ours: Provider, record: Callable[[str, object], None]) -> None:
    for who, provider in (("naive", naive), ("ledger", ours)):
        over = max(0, provider.billed - cap)
        record(f"{name} {who}", f"{provider.calls} calls, {provider.billed} billed of {cap}, {over} over")
        print(f"{name:32} {who:7} {provider.calls:4} calls {provider.billed:7} billed, cap {cap}, over {over}")


def test_retry_loop(record_property: Callable[[str, object], None]) -> None:
    """One actor repeats a failing call with a growing prompt; a limit on steps is no limit on tokens."""
    cap, prompt, most_out = 10_000, 500, 200

    naive = Provider()
    for step in range(25):  # "recursion limit 25"
        naive.bill(prompt + 100 * step + most_out)
    assert naive.billed > cap

    ours, ledger = Provider(), ledger_of(cap)
    with pytest.raises(BudgetExceeded):
        for step in range(25):
            size = prompt + 100 * step
            held = ledger.reserve("org", {"all": size + most_out})
            ledger.settle(held.id, {"all": ours.bill(size + most_out)})
    assert ours.billed <= cap
    assert ours.calls == 9
    report("retry-loop", cap, naive, ours, record_property)


def test_cost_observability(record_property: Callable[[str, object], None]) -> None:
    """The stream reports no usage; a counter that reads that as 0 never sees the cap."""
    cap, worst = 2000, 300
    usages = [None if i % 2 else 250 for i in range(20)]

    naive, counter = Provider(), 0
    for usage in usages:
        if counter + worst > cap:
            break
        naive.bill(250)
        counter += usage or 0
    assert naive.billed > cap

    ours, ledger = Provider(), ledger_of(cap)
    with pytest.raises(BudgetExceeded):
        for usage in usages:
            held = ledger.reserve("org", {"all": worst})
            ours.bill(250)
            ledger.settle(held.id, None if usage is None else {"all": usage})  # unknown charges what was held
    assert ours.billed <= cap
    assert ours.calls == 7
    report("cost-observability", cap, naive, ours, record_property)


def test_context_amplification(record_property: Callable[[str, object], None]) -> None:
    """Each call sends the whole history again; a check after the call lets the call that crosses the cap through."""
    cap = 10_000

    naive, spent, history = Provider(), 0, 400
    while spent < cap:
        spent += naive.bill(history + 600)
        history *= 2
    assert naive.billed > cap

    ours, ledger, history = Provider(), ledger_of(cap), 400
    with pytest.raises(BudgetExceeded) as caught:
        while True:
            held = ledger.reserve("org", {"all": history + 600})
            ledger.settle(held.id, {"all": ours.bill(history + 600)})
            history *= 2
    assert caught.value.requested == history + 600
    assert ours.billed <= cap
    assert ours.calls == 4
    report("context-amplification", cap, naive, ours, record_property)


def test_storage_amplification(record_property: Callable[[str, object], None]) -> None:
    """A store grows and is read again by every session; counters that begin anew with each session add up to no cap."""
    cap, session_cap, sessions = 6000, 2000, 8

    naive = Provider()
    for session in range(sessions):
        spent = 0
        while spent + 300 * (session + 1) <= session_cap:
            spent += naive.bill(300 * (session + 1))
    assert naive.billed > cap

    ours, ledger, refused = Provider(), ledger_of(cap), 0
    for session in range(sessions):
        path = f"org/session-{session}"
        ledger.open(path, [Limit("all", session_cap)])
        try:
            while True:
                held = ledger.reserve(path, {"all": 300 * (session + 1)})
                ledger.settle(held.id, {"all": ours.bill(300 * (session + 1))})
        except BudgetExceeded as error:
            refused += error.scope == "org"
    assert refused > 0
    assert ours.billed <= cap
    assert ours.billed > cap // 2
    report("storage-amplification", cap, naive, ours, record_property)


def test_budget_primitive_missing(record_property: Callable[[str, object], None]) -> None:
    """No budget was set up, or the price is not known: naive code reads that as no limit."""
    cap, limits = 1000, {}

    naive = Provider()
    for _ in range(10):
        if naive.billed < limits.get("agent", float("inf")):
            naive.bill(200)
    assert naive.billed > cap

    ours, ledger = Provider(), ledger_of(cap)
    with pytest.raises(UnknownAccount, match="open it first"):
        ledger.reserve("org/agent", {"all": 200})
    with pytest.raises(InvalidInput, match="lacks all"):
        ledger.reserve("org", {"money": 0})
    assert ours.calls == 0
    ledger.open("org/agent")
    with pytest.raises(BudgetExceeded):
        for _ in range(10):
            held = ledger.reserve("org/agent", {"all": 200})
            ledger.settle(held.id, {"all": ours.bill(200)})
    assert ours.billed == cap
    report("budget-primitive-missing", cap, naive, ours, record_property)


def test_delegation_fanout(record_property: Callable[[str, object], None]) -> None:
    """Three children test the cap, await, and then add: all three see nothing spent (the paper's figures)."""
    cap, estimate, actual = 60, 45, 23
    overshoots = 0
    for seed in range(30):
        rng = random.Random(seed)
        naive, counter = Provider(), [0]

        async def child(counter=counter, naive=naive, rng=rng) -> None:
            if counter[0] + estimate <= cap:
                await asyncio.sleep(rng.random() / 1000)
                counter[0] += naive.bill(actual)

        async def race(child=child) -> None:
            await asyncio.gather(child(), child(), child())

        asyncio.run(race())
        overshoots += naive.billed > cap
        assert naive.billed == 69
    assert overshoots == 30

    for seed in range(30):
        rng = random.Random(seed)
        ours, ledger = Provider(), ledger_of(cap)
        agent = Allowance(ledger, "org", {"all": cap})

        async def safe(ours=ours, agent=agent, rng=rng) -> None:
            try:
                async with agent.reserve({"all": estimate}) as call:
                    await asyncio.sleep(rng.random() / 1000)
                    call.settle({"all": ours.bill(actual)})
            except BudgetExceeded:
                pass

        async def fan_out(safe=safe) -> None:
            await asyncio.gather(safe(), safe(), safe())

        asyncio.run(fan_out())
        assert ours.billed == 23
        assert ours.calls == 1
        assert ledger.remaining("org") == {"all": cap - 23}

    # equal shares of 60 starve every child (20 < 45); one that returns its share lets the next one work
    ours, agent = Provider(), Allowance(ledger_of(cap), "org", {"all": cap})
    children = agent.share([1, 1, 1])
    for one in children:
        with pytest.raises(BudgetExceeded), one.reserve({"all": estimate}):
            pass
        one.close()
    for _ in range(3):
        if agent.remaining["all"] >= estimate:
            (one,) = agent.share([1])
            with one, one.reserve({"all": estimate}) as call:
                call.settle({"all": ours.bill(actual)})
    assert ours.calls == 1
    assert ours.billed <= cap
    report("delegation-fanout", cap, naive, ours, record_property)


def test_provider_options_silently_dropped(record_property: Callable[[str, object], None]) -> None:
    """max_tokens is ignored by the provider: who books what was asked for, spends what was not."""
    cap, asked, really = 3000, 100, 400

    naive, counter = Provider(), 0
    while counter + asked <= cap:
        naive.bill(really)
        counter += asked
    assert naive.billed > cap

    ours, ledger = Provider(), ledger_of(cap)
    with pytest.raises(BudgetExceeded):
        while True:
            held = ledger.reserve("org", {"all": asked})
            settled = ledger.settle(held.id, {"all": ours.bill(really)})
            assert settled.overshoot == (("all", really - asked),)
    assert ours.billed - cap <= really - asked  # the declared bound: what the calls under way used above their hold
    assert ours.calls == 8
    assert ledger.remaining("org") == {"all": cap - ours.billed}
    report("providerOptions-silently-dropped", cap, naive, ours, record_property)


def test_multimodal_cost_amplification(record_property: Callable[[str, object], None]) -> None:
    """Images are ten times the text estimate: who adds up estimates, is ten times over; concurrency bounds ours."""
    cap, estimate, image, parallel = 5000, 120, 1200, 2

    naive, counter = Provider(), 0
    while counter + estimate <= cap:
        counter += estimate
        naive.bill(image)
    assert naive.billed > cap

    ours, ledger = Provider(), ledger_of(cap)

    async def worker() -> None:
        agent = Allowance(ledger, "org", {"all": cap})
        with pytest.raises(BudgetExceeded):
            while True:
                async with agent.reserve({"all": estimate}) as call:
                    await asyncio.sleep(0)
                    call.settle({"all": ours.bill(image)})

    async def main() -> None:
        await asyncio.gather(*[worker() for _ in range(parallel)])

    asyncio.run(main())
    assert ours.billed - cap <= parallel * (image - estimate)
    assert ours.calls >= cap // image
    assert ledger.verify().spent["org"]["all"] == ours.billed
    report("multimodal-cost-amplification", cap, naive, ours, record_property)
