"""Any OpenAI-compatible endpoint: what it does wrong costs no more than the budget and is never charged too low."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, suppress
from email.utils import formatdate

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("openai")

from budgeteer.core.errors import BudgetExceeded, EndpointDown, InvalidInput, ModelError
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.metering.estimate import Bounds
from budgeteer.models import openai as endpoint
from budgeteer.models.chat import Chat, Message
from budgeteer.models.model import LOGPROBS, PREFIX, Chunk, Finish, Request, Response
from budgeteer.models.openai import OpenAI
from budgeteer.solve import Budgeted
from helpers.upstream import Act, Upstream, answer, begin, end, event
from helpers.upstream import usage as usage_object

PROMPT = "a b c"  # 4 tokens upstream
WORDS = Bounds(tokens=lambda text: len(text.split()), overhead=0)
OK = Act()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(endpoint, "_FIRST_WAIT", 0.001)


def serve(*acts: Act, body, **options):
    """What ``body(model, upstream)`` returns."""

    async def whole():
        async with Upstream(*acts) as upstream:
            model = OpenAI(upstream.url, "m", **{"capabilities": frozenset({PREFIX}), "stall": 0.3, **options})
            try:
                return await body(model, upstream)
            finally:
                await model.aclose()

    return asyncio.run(whole())


def ask(*acts: Act, request: Request | None = None, **options) -> Response:
    async def body(model, upstream):
        return await model.generate(request or Request(PROMPT, 9))

    return serve(*acts, body=body, **options)


def purse(model, units: int, **options) -> Budgeted:
    ledger = MemoryLedger()
    ledger.open("q", [Limit("all", units)])
    return Budgeted(model, Allowance(ledger, "q", {"all": units}), **options)


# -- answers ----------------------------------------------------------------------------------------------------------


def test_raw_text_goes_to_completions_and_messages_to_chat() -> None:
    async def body(model, upstream):
        found = [
            await model.generate(Request(p, 9, stop=("x",), seed=3)) for p in (PROMPT, Chat((Message("user", PROMPT),)))
        ]
        return found, upstream.bodies

    found, bodies = serve(OK, body=body)
    for response in found:
        assert response.choices[0].text == "w00 w01 w02 w03 w04 w05 "
        assert (response.choices[0].finish, response.choices[0].tokens) == (Finish.STOP, 7)
        assert (response.usage.input, response.usage.output) == (4, 7)
    assert bodies[0]["prompt"] == PROMPT
    assert bodies[1]["messages"] == [{"role": "user", "content": PROMPT}]
    assert all((b["stop"], b["seed"], b["max_tokens"], b["stream"]) == (["x"], 3, 9, True) for b in bodies)


def test_several_choices_keep_their_order() -> None:
    response = ask(OK, request=Request(PROMPT, 3, n=3))
    assert [c.text[:2] for c in response.choices] == ["w0", "w1", "w2"]
    assert {c.finish for c in response.choices} == {Finish.LENGTH}
    assert response.usage.output == 9


def test_connections_are_used_again_and_no_more_calls_run_than_allowed() -> None:
    async def body(model, upstream):
        for _ in range(4):
            await model.generate(Request(PROMPT, 9))
        assert upstream.connections == 1
        await asyncio.gather(*(model.generate(Request(PROMPT, 99)) for _ in range(20)))
        return upstream.most_open

    assert serve(Act(words=60), body=body, max_concurrency=3) == 3


@pytest.mark.parametrize(("options", "pause", "connections"), [({}, 0.0, 1), ({}, 0.2, 3), ({"reuse": False}, 0.0, 3)])
def test_a_connection_is_given_up_before_its_server_does(monkeypatch, options, pause, connections) -> None:
    monkeypatch.setattr(endpoint, "_KEPT", 0.1)

    async def body(model, upstream):
        for _ in range(3):
            await model.generate(Request(PROMPT, 9))
            await asyncio.sleep(pause)
        return upstream.connections

    assert serve(Act(words=2), body=body, **options) == connections


def test_a_closed_stream_is_closed_upstream() -> None:
    async def body(model, upstream):
        async with aclosing(model.stream(Request(PROMPT, 10**6))) as pieces:
            async for piece in pieces:
                assert isinstance(piece, Chunk)
                break
        for _ in range(200):
            await asyncio.sleep(0.01)
            if upstream.gone:
                return upstream.billed
        return None

    assert serve(Act(words=10**6), body=body) < 10**6


# -- usage that is missing or wrong -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "usage",
    [
        None,
        lambda read, made, n: (0, 0),
        lambda read, made, n: (read, made // n),  # one choice only
        lambda read, made, n: (read, 1),
    ],
)
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("bounds", [None, WORDS])
def test_a_usage_below_what_was_seen_is_not_believed(usage, n, bounds) -> None:
    async def body(model, upstream):
        budgeted = purse(model, 1000)
        response = await budgeted.generate(Request(PROMPT, 20, n=n))
        return response, budgeted.spend, upstream.billed

    response, spend, billed = serve(Act(usage=usage), body=body, bounds=bounds)
    told_all = usage is not None and n == 1 and usage(4, 7, 1)[1] == 7
    assert (response.usage.output is None) != told_all
    assert billed <= spend.units["all"] <= 1000
    assert spend.estimated == (not told_all)
    if bounds is not None and usage is not None and usage(4, 7, 1)[0]:
        assert spend.units["all"] == billed  # counted by the word, as the endpoint does


def _places(n):
    """Where servers tell the usage of a stream: place -> its last event."""
    base = {"id": "c", "object": "x", "created": 1, "model": "m"}
    of_one = [{"index": i, "text": "", "usage": usage_object(4, 7 + i)} for i in range(n)]
    return {
        "x_groq": {**base, "choices": [], "x_groq": {"id": "r", "usage": usage_object(4, 7 * n + sum(range(n)))}},
        "of each choice": {**base, "choices": of_one},
    }


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("place", _places(1))
@pytest.mark.parametrize("whole", [False, True], ids=["stream", "whole"])
def test_usage_in_other_places_is_read_as_the_gateway_reads_it(place, n, whole) -> None:
    last = _places(n)[place]
    texts = [{"index": i, "text": "word " * 6, "finish_reason": "stop"} for i in range(n)]

    async def step(server, writer, path, body):
        if whole:
            choices = [{**one, **more} for one, more in zip(texts, last["choices"] or texts, strict=True)]
            for one, text in zip(choices, texts, strict=True):
                one["text"] = text["text"]
            return await answer(writer, 200, {**last, "choices": choices})
        await begin(writer)
        await event(writer, {**last, "choices": texts, "x_groq": None})
        await event(writer, last)
        await event(writer, "[DONE]")
        return await end(writer)

    response = ask(step, request=Request(PROMPT, 20, n=n))
    assert (response.usage.input, response.usage.output) == (4, 7 * n + sum(range(n)))
    assert [choice.text for choice in response.choices] == ["word " * 6] * n


def test_a_usage_of_one_of_two_choices_is_not_all_of_it() -> None:
    async def step(server, writer, path, body):
        choices = [{"index": i, "text": "word ", "finish_reason": "stop"} for i in range(2)]
        choices[0]["usage"] = usage_object(4, 7)
        await answer(writer, 200, {"id": "c", "object": "x", "created": 1, "model": "m", "choices": choices})

    usage = ask(step, request=Request(PROMPT, 20, n=2)).usage
    assert (usage.input, usage.output) == (4, None)


def test_an_endpoint_that_does_not_know_the_cap_is_cut_off() -> None:
    response = ask(Act(words=10**6, ignores_cap=True), request=Request(PROMPT, 9))
    assert response.choices[0].finish == Finish.LENGTH
    assert len(response.choices[0].text.split()) == 10


MISTYPED = "application/json; charset=utf-8"


def test_a_stream_that_is_typed_as_json_is_read_as_it_comes() -> None:
    async def body(model, upstream):
        events = [event async for event in model.stream(Request(PROMPT, 9))]
        return [event.text for event in events[:-1]], events[-1]

    texts, response = serve(Act(kind=MISTYPED), body=body)
    assert texts[:6] == [f"w0{word} " for word in range(6)]
    assert (response.choices[0].finish, response.choices[0].text) == (Finish.STOP, "".join(texts))


def test_a_stream_that_is_typed_as_json_is_cut_off_at_its_cap() -> None:
    async def body(model, upstream):
        return await model.generate(Request(PROMPT, 9)), upstream.billed

    response, billed = serve(Act(words=10**5, ignores_cap=True, kind=MISTYPED), body=body)
    assert (response.choices[0].finish, len(response.choices[0].text.split())) == (Finish.LENGTH, 10)
    assert billed < 10**4
    broken = ask(Act(hang=2, kind=MISTYPED))  # what came before the stream stood still
    assert (broken.choices[0].finish, broken.choices[0].text) == (Finish.CUT, "w00 w01 ")


def test_input_is_bounded_by_bytes_or_counted() -> None:
    assert OpenAI("http://x/v1", "m").count("Grüße") == 8
    assert OpenAI("http://x/v1", "m", bounds=WORDS).count("a b c") == 4
    assert OpenAI("http://x/v1", "m").count(Chat((Message("user", "Hi"),))) > len("userHi")


# -- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("act", "came"), [(Act(cut=2), 2), (Act(cut=6), 6), (Act(hang=2), 2)])
def test_of_a_broken_stream_there_is_what_came(act: Act, came: int) -> None:
    response = ask(act)
    assert response.choices[0].finish == Finish.CUT
    assert response.choices[0].text.split() == [f"w0{word}" for word in range(came)]
    assert response.usage.output is None
    assert response.choices[0].tokens >= came


@pytest.mark.parametrize("act", [Act(status=500), Act(status=504), Act(cut=0), Act(hang=0), Act(status=408)])
def test_what_may_have_run_is_left_to_who_pays(act: Act) -> None:
    async def body(model, upstream):
        with pytest.raises(ModelError) as caught:
            await model.generate(Request(PROMPT, 9))
        return caught.value, len(upstream.bodies)

    failure, sent = serve(act, OK, body=body)
    assert (failure.billed, failure.again, sent) == (True, True, 1)


@pytest.mark.parametrize("said", [[1, 2], {"choices": [{"index": 0, "delta": {"content": [{"text": "4"}]}}]}])
def test_an_event_that_is_no_part_of_a_chat_is_a_clear_error_and_charged(said) -> None:
    async def speaks(server, writer, path, body):
        await begin(writer)
        await event(writer, said)
        await end(writer)

    async def body(model, upstream):
        budgeted = purse(model, 1000)
        with pytest.raises(ModelError, match="which is no part of a chat") as caught:
            await budgeted.generate(Request(Chat((Message("user", "4?"),)), 9))
        return caught.value.billed, len(upstream.bodies), budgeted.spend.output

    assert serve(speaks, body=body) == (True, 1, 9)


def test_an_endpoint_that_continues_raw_text_as_a_chat_is_a_clear_error() -> None:
    async def speaks(server, writer, path, body):
        assert path.endswith("/v1/completions")
        await begin(writer)
        await event(writer, {"choices": [{"index": 0, "delta": {"content": "4"}, "finish_reason": None}]})
        await end(writer)

    async def body(model, upstream):
        with pytest.raises(ModelError, match=r"no part of a completion of raw text.*without 'prefix'") as caught:
            await model.generate(Request(PROMPT, 9))
        return caught.value.billed

    assert serve(speaks, body=body)


def test_every_attempt_that_may_have_run_is_charged() -> None:
    async def body(model, upstream):
        budgeted = purse(model, 1000)
        response = await budgeted.generate(Request(PROMPT, 9))
        return response, budgeted, upstream.billed

    response, budgeted, billed = serve(Act(status=500, ran=True), Act(hang=0), OK, body=body, bounds=WORDS)
    assert response.choices[0].finish == Finish.STOP
    assert budgeted.spend.calls == 3
    assert budgeted.remaining["all"] == 1000 - 13 - 13 - 11  # two at their worst, one as counted
    assert budgeted.spend.units["all"] >= billed


def test_a_retry_that_does_not_fit_is_not_sent() -> None:
    async def body(model, upstream):
        budgeted = purse(model, 20)  # 13 are reserved for an attempt
        with pytest.raises(BudgetExceeded):
            await budgeted.generate(Request(PROMPT, 9))
        return len(upstream.bodies), budgeted.remaining

    assert serve(Act(status=500, ran=True), OK, body=body, bounds=WORDS) == (1, {"all": 7})


@pytest.mark.parametrize(("units", "calls"), [(1000, 3), (27, 2)])
def test_a_stream_is_started_again_only_before_anything_was_seen(units: int, calls: int) -> None:
    async def body(model, upstream):
        budgeted, found = purse(model, units), []
        with suppress(BudgetExceeded):
            found.extend([piece async for piece in budgeted.stream(Request(PROMPT, 9))])
        assert upstream.billed <= budgeted.spend.units["all"] <= units
        return found, len(upstream.bodies)

    found, sent = serve(Act(status=500, ran=True), Act(cut=0), Act(cut=2), OK, body=body, bounds=WORDS)
    assert sent == calls
    if calls == 3:
        assert [type(p) for p in found] == [Chunk, Chunk, Response]
        assert found[-1].choices[0].finish == Finish.CUT


@pytest.mark.parametrize(
    "header", [("retry-after", "0.2"), ("retry-after-ms", "200"), ("retry-after", formatdate(time.time() + 2))]
)
def test_a_refused_call_waits_as_told_and_costs_nothing(header) -> None:
    if header[1].endswith("-0000"):
        header = (header[0], formatdate(time.time() + 2.2, usegmt=True))

    async def body(model, upstream):
        budgeted, start = purse(model, 1000), time.monotonic()
        await budgeted.generate(Request(PROMPT, 9))
        return time.monotonic() - start, budgeted.spend.calls, budgeted.remaining, len(upstream.bodies)

    waited, calls, left, sent = serve(Act(status=429, headers=(header,)), OK, body=body)
    assert waited > 0.15
    assert (calls, left, sent) == (1, {"all": 1000 - 11}, 2)


@pytest.mark.parametrize(
    ("act", "sent"),
    [
        (Act(status=429), 3),
        (Act(status=503), 3),
        (Act(status=429, headers=(("retry-after", "3600"),)), 1),
        (Act(status=429, body='{"error": {"message": "no", "code": "insufficient_quota"}}'), 1),
        (Act(status=401), 1),
        (Act(status=400), 1),
    ],
)
def test_refusals_are_bounded_and_free(act: Act, sent: int) -> None:
    async def body(model, upstream):
        budgeted = purse(model, 1000)
        with pytest.raises(ModelError) as caught:
            await budgeted.generate(Request(PROMPT, 9))
        return caught.value.billed, len(upstream.bodies), budgeted.remaining

    assert serve(act, body=body, retries=2) == (False, sent, {"all": 1000})


def test_a_model_that_takes_no_temperature_is_asked_without_one_from_then_on() -> None:
    said = "Unsupported value: 'temperature' does not support 0.0 with this model."

    async def body(model, upstream):
        budgeted = purse(model, 1000)
        for _ in range(2):
            await budgeted.generate(Request(PROMPT, 9, temperature=0.0))
        return [sent.get("temperature") for sent in upstream.bodies], budgeted.spend.calls, budgeted.remaining

    act = Act(status=400, body=f'{{"error": {{"message": "{said}"}}}}')
    assert serve(act, OK, OK, body=body) == ([0.0, None, None], 2, {"all": 1000 - 2 * 11})


def test_a_server_that_is_not_there_is_free() -> None:
    async def body(model, upstream):
        upstream.server.close()
        await upstream.server.wait_closed()
        budgeted = purse(model, 100)
        with pytest.raises(ModelError, match="Connection") as caught:
            await budgeted.generate(Request(PROMPT, 9))
        return caught.value.billed, budgeted.remaining

    assert serve(OK, body=body, retries=1) == (False, {"all": 100})


@pytest.mark.parametrize("kind", ["type", "code"])
def test_a_prompt_that_is_too_long_is_a_clear_error(kind: str) -> None:
    name = {"type": "exceed_context_size_error", "code": "context_length_exceeded"}[kind]
    with pytest.raises(InvalidInput, match="shorten the prompt"):
        ask(Act(status=400, body=f'{{"error": {{"message": "too long", "{kind}": "{name}"}}}}'))


def test_what_is_not_declared_is_refused_before_it_is_sent() -> None:
    for request, match in (
        (Request(PROMPT, 9, logprobs=True), "log-prob"),
        (Request(PROMPT, 9, steer=object()), "black box"),
    ):
        with pytest.raises(InvalidInput, match=match):
            ask(OK, request=request)
    with pytest.raises(InvalidInput, match="raw text"):
        ask(OK, capabilities=frozenset())


def test_a_probe_finds_what_the_endpoint_can_do() -> None:
    async def body(model, upstream):
        used = await model.probe()
        return model.capabilities, used.total == upstream.billed

    assert serve(OK, body=body, capabilities=frozenset()) == ({PREFIX}, True)
    assert serve(Act(status=404), body=body, capabilities=frozenset()) == (set(), True)
    assert LOGPROBS not in serve(OK, body=body)[0]


# -- all at once ------------------------------------------------------------------------------------------------------

ACTS = st.sampled_from(
    [
        OK,
        Act(words=30),
        Act(usage=None),
        Act(usage=lambda read, made, n: (read, made // n)),
        Act(usage=lambda read, made, n: (0, 1)),
        Act(status=500),
        Act(status=500, ran=True),
        Act(status=429, headers=(("retry-after", "0.01"),)),
        Act(status=503),
        Act(cut=0),
        Act(cut=3),
        Act(hang=0),
        Act(hang=2),
    ]
)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    acts=st.lists(ACTS, min_size=4, max_size=40),
    units=st.integers(50, 4000),
    requests=st.lists(st.tuples(st.integers(1, 12), st.integers(1, 3), st.booleans()), min_size=32, max_size=32),
)
def test_32_calls_at_a_faulty_endpoint_stay_in_the_budget_and_are_never_charged_too_low(acts, units, requests) -> None:
    async def body(model, upstream):
        budgeted = purse(model, units)

        async def one(max_tokens, n, streamed):
            request = Request(PROMPT, max_tokens, n=n)
            if not streamed:
                return await budgeted.generate(request)
            async with aclosing(budgeted.stream(request)) as pieces:
                return [piece async for piece in pieces][-1]

        found = await asyncio.gather(*(one(*r) for r in requests), return_exceptions=True)
        assert all(isinstance(f, Response | BudgetExceeded | ModelError) for f in found), found
        return budgeted, upstream.billed

    budgeted, billed = serve(*acts, OK, body=body, stall=0.05)
    assert billed <= budgeted.spend.units["all"] <= units
    assert budgeted.remaining["all"] == units - budgeted.spend.units["all"]


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        (Chat((Message("user", "half \ud83d of one"),)), {}, "half of a character"),
        (Chat((Message("user", "Hi"),)), {"extra": {"user": "\udc00"}}, "half of a character"),
        (Chat((Message("user", "Hi"),)), {"extra": {"top_p": float("nan")}}, "finite numbers"),
        (Chat((Message("user", "Hi"),)), {"extra": {"stop": {1, 2}}}, "plain values"),
    ],
)
def test_what_was_never_sent_is_free_and_says_why(prompt, options, message):
    async def body(model, upstream):
        budgeted = purse(model, 1000)
        with pytest.raises(InvalidInput, match=message):
            await budgeted.generate(Request(prompt, 9))
        return upstream.bodies, budgeted.remaining

    assert serve(Act(), body=body, **options) == ([], {"all": 1000})


@pytest.mark.parametrize("key", ["é", "sk-1 2", "sk-1\n", "\ud800"])
@pytest.mark.parametrize("given", [True, False])
def test_a_key_that_no_header_holds_is_refused_without_being_shown(monkeypatch, key, given):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    if not given:
        if "\ud800" in key:
            pytest.skip("no environment holds it")
        monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(InvalidInput, match="api_key" if given else "OPENAI_API_KEY") as refused:
        OpenAI("http://127.0.0.1:9/v1", "m", api_key=key if given else None)
    assert key not in str(refused.value)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("proxy", ["foo://me:secret@x", "http://me:secret@x:port"])
def test_a_proxy_that_is_none_is_named(monkeypatch, variable, proxy):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv(variable, proxy)
    with pytest.raises(InvalidInput, match=f"a proxy of the environment cannot be used .*{variable}=") as caught:
        OpenAI("http://127.0.0.1:9/v1", "m")
    assert "secret" not in str(caught.value)


def test_a_password_in_the_address_is_not_shown():
    async def ask():
        model = OpenAI("http://me:secret@127.0.0.1:9/v1", "m", retries=0)
        try:
            await model.generate(Request(Chat((Message("user", "hi"),)), 1))
        finally:
            await model.aclose()

    with pytest.raises(EndpointDown, match=r"http://\*\*\*@127.0.0.1:9/v1") as caught:
        asyncio.run(ask())
    assert "secret" not in str(caught.value)
