"""The openai client on a real allowance of a real ledger: the journal and the balances say what was spent."""

from __future__ import annotations

import asyncio
import threading

import pytest

openai = pytest.importorskip("openai")
ledgers = pytest.importorskip("budgeteer.ledger.allowance")

from budgeteer.adapters.openai import wrap  # noqa: E402
from budgeteer.core.errors import BudgetExceeded  # noqa: E402
from budgeteer.metering.call import Metering  # noqa: E402
from budgeteer.metering.estimate import Bounds, Estimator, State  # noqa: E402
from helpers.answers import chat, slow, sse, used  # noqa: E402
from helpers.upstream import Upstream, error  # noqa: E402

ASK = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50}
BOUNDS = Bounds(overhead=10)


def account(**limits):
    from budgeteer.ledger import Limit, MemoryLedger

    ledger = MemoryLedger()
    ledger.open("acme", [Limit(kind, units) for kind, units in limits.items()])
    return ledger


def test_calls_streams_and_errors_are_in_the_ledger():
    ledger = account(all=1000)
    with ledgers.Allowance(ledger, "acme", {"all": 800}) as allowance:
        script = [chat(usage=used(12, 7)), sse(["Hel", "lo"], used(12, 5)), error(429), error(500)]
        with Upstream(*script) as provider:
            base = openai.OpenAI(base_url=provider.url, api_key="x", max_retries=0)
            client = wrap(base, allowance, bounds=BOUNDS)
            client.chat.completions.create(**ASK)
            list(client.chat.completions.create(**ASK, stream=True))
            assert ledger.remaining("acme") == {"all": 1000 - 36}
            with pytest.raises(openai.RateLimitError):
                client.chat.completions.create(**ASK)
            assert ledger.remaining("acme") == {"all": 1000 - 36}
            with pytest.raises(openai.InternalServerError):
                client.chat.completions.create(**ASK)
        left = ledger.remaining("acme")["all"]
        assert left < 1000 - 36
        assert allowance.remaining == {"all": left - 200}
    ledger.verify()
    assert sum('"model":"gpt-4o-2024-08-06"' in line for line, _ in ledger.lines()) == 2


def test_an_asynchronous_stream_extends_or_is_cut():
    async def main():
        ledger = account(all=2000)
        state = State()
        estimator = Estimator(quantile=0.5)
        for cap, fits in ((2000, True), (60, False)):
            script = [chat(usage=used(12, 2))] * 5 if fits else []
            with Upstream(*script, sse(["w "] * 20, used(12, 20), pause=0.002)) as provider:
                base = openai.AsyncOpenAI(base_url=provider.url, api_key="x", max_retries=0)
                with ledgers.Allowance(ledger, "acme", {"all": cap}) as allowance:
                    metering = Metering(allowance, bounds=BOUNDS, estimator=estimator, state=state)
                    client = wrap(base, metering)
                    for _ in script:
                        await client.chat.completions.create(**ASK)
                    stream = await client.chat.completions.create(**ASK, stream=True)
                    if fits:
                        assert len([chunk async for chunk in stream]) == 21
                        state = metering.state
                    else:
                        with pytest.raises(BudgetExceeded):
                            [chunk async for chunk in stream]
                    await client.close()
        ledger.verify()

    asyncio.run(main())


def test_threads_never_overspend():
    ledger, refused = account(all=500), []
    with Upstream(slow(0.01, chat(usage=used(12, 50)))) as provider:
        base = openai.OpenAI(base_url=provider.url, api_key="x", max_retries=0)
        client = wrap(base, ledgers.Allowance(ledger, "acme", {"all": 500}), bounds=BOUNDS)

        def call():
            for _ in range(4):
                try:
                    client.chat.completions.create(**ASK)
                except BudgetExceeded:
                    refused.append(1)

        threads = [threading.Thread(target=call) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert ledger.remaining("acme")["all"] == 500 - 62 * (24 - len(refused)) >= 0
    assert refused
    ledger.verify()
