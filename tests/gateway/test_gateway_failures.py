"""Ways in which gateways have lost money, each through this one: tiers, caches, fail-over, first calls, tags."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)

from helpers.gateway_fixture import Running, toml  # noqa: E402
from helpers.upstream import Upstream, answer, begin, echo, end, error, event, hang_up, in_turn, usage  # noqa: E402

HI = [{"role": "user", "content": "Hi"}]
DOLLAR = 10**6
"""Pico-dollars a token at one dollar a million."""


def ask(**more):
    return {"model": "m", "messages": HI, "max_tokens": 20, **more}


def size(body):
    """Tokens of input that are reserved: the bytes as ``Running.call`` sends them, and the overhead."""
    return len(json.dumps(body).encode()) + 10


def priced(tmp_path, upstreams, prices, shipped="false"):
    """A gateway that counts money only."""
    (tmp_path / "p.toml").write_text(prices)
    text = toml(upstreams, kinds='["money"]').replace("shipped = false", f'shipped = {shipped}\nfiles = ["p.toml"]')
    return Running(tmp_path, text)


def says(words=5, tier=None, model="m", **more):
    """A chat that is answered with this class of service, model and usage."""

    async def step(server, writer, path, body):
        said = {"role": "assistant", "content": " ".join(["word"] * words)}
        found = {"id": "c", "object": "chat.completion", "created": 1, "model": model, "service_tier": tier,
                 "choices": [{"index": 0, "finish_reason": "stop", "message": said}]}  # fmt: skip
        await answer(writer, 200, {**found, "usage": usage(7, words, **more)})

    return step


@pytest.mark.parametrize("ledger", ["memory:", "ledger.db"])
def test_first_calls_of_a_new_user_at_once(tmp_path, ledger):
    """C1: eight at once of a user that nobody has seen; three fit into its limit, and three are sent."""
    where = ledger if ledger == "memory:" else str(tmp_path / ledger)
    with (
        Upstream(m=echo(delay=1.0)) as upstream,
        Running(tmp_path, toml([("one", upstream.url, ["m"], "")], ledger=where)) as running,
    ):
        body = ask(user="somebody")
        worst = size(body) + 20
        key, barrier = running.key("all:90000", per_user=[f"all:{3 * worst + worst // 2}"]), threading.Barrier(8)

        def one(_):
            barrier.wait()
            return running.call("/v1/chat/completions", body, key)[0]

        with ThreadPoolExecutor(8) as pool:
            statuses = sorted(pool.map(one, range(8)))
        assert statuses == [200] * 3 + [429] * 5
        assert upstream.calls == 3
        records = running.settled(8)
        assert sum(one["units"].get("all", 0) for one in records) == upstream.billed == 3 * 12
        (path,) = {one["path"] for one in records}
        assert path.endswith("/user:somebody")
        assert running.spent(path) == 36


def test_each_attempt_has_the_price_of_its_own_model(tmp_path):
    """C17: what may have run at a dear model is charged at its price, the answer at that of the cheap one."""
    prices = '[models."dear"]\ninput = 30\noutput = 60\n[models."cheap"]\ninput = 1\noutput = 2\n'
    with Upstream(m=hang_up) as bad, Upstream(m=echo(model_name="cheap")) as good:
        upstreams = [("bad", bad.url, ["m"], "weight = 1000"), ("good", good.url, ["m"], "weight = 0")]
        (tmp_path / "p.toml").write_text(prices)
        text = toml(upstreams, kinds='["money"]').replace("shipped = false", 'shipped = false\nfiles = ["p.toml"]')
        first, second = text.rsplit('name = "m"', 1)
        first = first.replace('name = "m"', 'name = "m"\nprice = "dear"')
        with Running(tmp_path, f'{first}name = "m"\nprice = "cheap"{second}') as running:
            assert running.call("/v1/chat/completions", ask(), running.key("$1"))[0] == 200
            (record,) = running.settled()
    lost = (size(ask()) * 30 + 20 * 60) * DOLLAR
    assert record["units"]["money"] == lost + (7 * 1 + 5 * 2) * DOLLAR
    assert record["attempts"] == 2


def test_a_dearer_model_that_takes_over_has_to_fit_the_budget(tmp_path):
    """C17: a free model that is down does not open the way to a paid one."""
    prices = '[models."free"]\ninput = 0\noutput = 0\n[models."paid"]\ninput = 30\noutput = 60\n'
    with Upstream(m=error(503)) as bad, Upstream(m=echo()) as good:
        upstreams = [("bad", bad.url, ["m"], "weight = 1000"), ("good", good.url, ["m"], "weight = 0")]
        (tmp_path / "p.toml").write_text(prices)
        text = toml(upstreams, kinds='["money"]').replace("shipped = false", 'shipped = false\nfiles = ["p.toml"]')
        first, second = text.rsplit('name = "m"', 1)
        first = first.replace('name = "m"', 'name = "m"\nprice = "free"')
        with Running(tmp_path, f'{first}name = "m"\nprice = "paid"{second}') as running:
            key = running.key("$0.0001")
            status, _, found = running.call("/v1/chat/completions", ask(), key)
            assert (status, found["error"]["code"]) == (402, "budget_exceeded")
            assert (bad.calls, good.calls) == (1, 0)
            running.settled()
            assert running.spent(kind="money") == 0


TIERS = (
    '[models."m"]\ninput = 2\noutput = 10\n'
    '[models."m".services.priority]\ninput = 4\noutput = 20\n[models."m".services.flex]\ninput = 1\noutput = 5\n'
)


@pytest.mark.parametrize(
    ("asked", "answered", "reserved", "charged"),
    [
        (None, "default", (2, 10), (2, 10)),
        ("priority", "priority", (4, 20), (4, 20)),
        ("priority", "default", (4, 20), (2, 10)),  # it was not to be had
        ("flex", "flex", (1, 5), (1, 5)),
        ("flex", None, (1, 5), (1, 5)),
        (None, "priority", (2, 10), (4, 20)),  # set in the provider's console: booked, as overshoot if need be
    ],
)
def test_classes_of_service_have_their_prices(tmp_path, asked, answered, reserved, charged):
    """C22."""
    with (
        Upstream(m=says(words=5, tier=answered)) as upstream,
        priced(tmp_path, [("one", upstream.url, ["m"], "")], TIERS) as running,
    ):
        body = ask(**({"service_tier": asked} if asked else {}))
        assert running.call("/v1/chat/completions", body, running.key("$1"))[0] == 200
        (record,) = running.settled()
        assert record["reserved"]["money"] == (size(body) * reserved[0] + 20 * reserved[1]) * DOLLAR
        assert record["units"]["money"] == (7 * charged[0] + 5 * charged[1]) * DOLLAR
        status, _, found = running.call("/v1/chat/completions", ask(service_tier="scale"), running.key("$1"))
        assert (status, found["error"]["code"], upstream.calls) == (400, "no_price", 1)


@pytest.mark.parametrize("stream", [False, True])
def test_writes_to_the_cache_are_charged_by_how_long_they_stay(tmp_path, stream):
    """10 fresh at $3, 100 read at $0.30, 10 written for minutes at $3.75, 20 for an hour at $6, 5 made at $15."""
    counted = {
        "input_tokens": 10, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 30,
        "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
    }  # fmt: skip

    async def step(server, writer, path, body):
        base = {"id": "m", "type": "message", "role": "assistant", "model": "m"}
        if not body.get("stream"):
            content = [{"type": "text", "text": "word"}]
            return await answer(writer, 200, {**base, "content": content, "usage": {**counted, "output_tokens": 5}})
        await begin(writer)
        start = {"type": "message_start", "message": {**base, "content": [], "usage": {**counted, "output_tokens": 1}}}
        await event(writer, start, "message_start")
        delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word"}}
        await event(writer, delta, delta["type"])
        await event(writer, {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 5}}, "message_delta")
        await event(writer, {"type": "message_stop"}, "message_stop")
        return await end(writer)

    prices = '[models."m"]\ninput = 3\noutput = 15\ncached = 0.30\nwritten = 3.75\nwritten_long = 6\n'
    with Upstream(m=step) as upstream, priced(tmp_path, [("one", upstream.url, ["m"], "")], prices) as running:
        body = ask(**({"stream": True} if stream else {}))
        assert running.call("/v1/messages", body, running.key("$1"))[0] == 200
        (record,) = running.settled()
    assert (record["units"]["money"], record["estimated"]) == (292_500_000, 0)
    assert (record["input"], record["cached"], record["output"]) == (140, 100, 5)
    assert record["reserved"]["money"] == (size(body) * 6 + 20 * 15) * DOLLAR


def test_tags_have_limits_of_their_own(tmp_path):
    with Upstream(m=echo()) as upstream, Running(tmp_path, toml([("one", upstream.url, ["m"], "")])) as running:
        key, worst = running.key("all:9000", per_tag=["all:150"]), size(ask()) + 20
        assert 75 < worst < 138
        assert running.call("/v1/chat/completions", ask(), key)[0] == 400  # names none
        for tag in ("blue", "green"):
            tagged = {"x-budgeteer-tag": tag}
            assert running.call("/v1/chat/completions", ask(), key, headers=tagged)[0] == 200
            running.settled()
            status, _, found = running.call("/v1/chat/completions", ask(max_tokens=50), key, headers=tagged)
            assert status == 402
            assert found["error"]["budget"]["scope"].endswith(f"/tag:{tag}")
        paths = {one["path"]: one["units"].get("all", 0) for one in running.settled() if one["units"].get("all")}
        assert sorted(path.rpartition("/")[2] for path in paths) == ["tag:blue", "tag:green"]
        assert set(paths.values()) == {12}
        assert running.spent() == 24


def test_reasoning_beyond_the_cap_is_reserved_where_the_file_says_so(tmp_path):
    details = {"completion_tokens_details": {"reasoning_tokens": 90}}
    with Upstream(m=in_turn(says(words=110, **details), echo(cut_after=2))) as upstream:
        text = toml([("one", upstream.url, ["m"], "")]) + "\nhidden_reasoning = 100"
        with Running(tmp_path, text) as running:
            key, body = running.key("all:9000"), ask(n=2)
            assert running.call("/v1/chat/completions", body, key)[0] == 200
            (record,) = running.settled()
            assert record["reserved"]["all"] == size(body) + 2 * (20 + 100)
            assert (record["units"]["all"], record["reasoning"], record["overshoot"]) == (117, 90, {})
            running.call("/v1/chat/completions", ask(stream=True), key)
            record = running.settled(2)[-1]
            assert (record["outcome"], record["units"]["all"]) == ("cut", record["reserved"]["all"])


def test_an_own_price_stays_before_a_shipped_one_of_a_dated_name(tmp_path):
    pytest.importorskip("genai_prices")
    prices = '[models."gpt-4o"]\ninput = 100\noutput = 100\n'
    with (
        Upstream(**{"gpt-4o": says(words=5, model="gpt-4o-2024-08-06")}) as upstream,
        priced(tmp_path, [("one", upstream.url, ["gpt-4o"], "")], prices, shipped="true") as running,
    ):
        assert running.call("/v1/chat/completions", ask(model="gpt-4o"), running.key("$1"))[0] == 200
        (record,) = running.settled()
    assert record["answered"] == "gpt-4o-2024-08-06"
    assert record["units"]["money"] == 12 * 100 * DOLLAR


def test_speech_is_reserved_at_its_price(tmp_path):
    """All of the output may be audio, and is billed so: nothing is overshot; without a price of it nothing is sent."""
    details = {"completion_tokens_details": {"audio_tokens": 20, "reasoning_tokens": 0}}
    prices = '[models."m"]\ninput = 2\noutput = 10\naudio_output = 64\n[models."mute"]\ninput = 2\noutput = 10\n'
    with (
        Upstream(m=says(words=20, **details), mute=says()) as upstream,
        priced(tmp_path, [("one", upstream.url, ["m", "mute"], "")], prices) as running,
    ):
        body = ask(modalities=["text", "audio"], audio={"voice": "alloy", "format": "wav"})
        assert running.call("/v1/chat/completions", body, running.key("$1"))[0] == 200
        (record,) = running.settled()
        assert record["reserved"]["money"] == (size(body) * 2 + 20 * 64) * DOLLAR
        assert (record["units"]["money"], record["overshoot"]) == ((7 * 2 + 20 * 64) * DOLLAR, {})
        status, _, found = running.call("/v1/chat/completions", {**body, "model": "mute"}, running.key("$1"))
        assert (status, found["error"]["code"], upstream.calls) == (400, "no_price", 1)


def stays_open(words, ends, breaks=False):
    """A stream whose connection stays open, or breaks, after its last event; without ``ends`` that one never comes."""

    async def step(server, writer, path, body):
        await begin(writer)
        base = {"id": "c", "created": 1, "model": "m", "object": "chat.completion.chunk"}
        messages = path.endswith("/messages")
        if messages:
            first = {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 7}}}
            await event(writer, first, "message_start")
        for _ in range(words):
            delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word "}}
            choice = {"index": 0, "delta": {"content": "word "}, "finish_reason": None}
            await event(writer, delta if messages else {**base, "choices": [choice]})
        if ends and messages:
            await event(writer, {"type": "message_delta", "delta": {}, "usage": {"output_tokens": words}})
            await event(writer, {"type": "message_stop"}, "message_stop")
        elif ends:
            await event(writer, {**base, "choices": [], "usage": usage(7, words)})
            await event(writer, "[DONE]")
        if breaks:
            writer.transport.abort()
            return
        await asyncio.sleep(60)  # cancelled when the test is over

    return step


def read_until(running, key, model, route, end):
    """Ask for a stream by hand, read up to some bytes, and leave."""
    body = json.dumps(
        {"model": model, "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
    )
    head = f"POST /v1/{route} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection:
        connection.sendall((head + body).encode())
        got = b""
        while end not in got:
            piece = connection.recv(65536)
            assert piece, got
            got += piece
    return got


@pytest.mark.parametrize(
    ("route", "end"), [("chat/completions", b"data: [DONE]\n\n"), ("messages", b'{"type": "message_stop"}\n\n')]
)
def test_a_client_that_leaves_with_the_last_event_has_its_answer(tmp_path, route, end):
    """The upstream keeps the connection open, so that the gateway has not seen the end of the body."""
    steps = {"whole": stays_open(3, True), "part": stays_open(3, False), "broken": stays_open(3, True, breaks=True)}
    with Upstream(**steps) as upstream:
        text = toml([("one", upstream.url, list(steps), "idle_seconds = 20\n")], server="drain_seconds = 0.2")
        with Running(tmp_path, text) as running:
            key = running.key("all:9000")
            read_until(running, key, "whole", route, end)
            (record,) = running.settled(1)
            assert (record["outcome"], record["reason"], record["status"]) == ("ok", "", 200)
            assert (record["input"], record["output"], record["estimated"], record["wasted"]) == (7, 3, 0, 0)
            got = read_until(running, key, "broken", route, end)
            assert b"error" not in got
            record = running.settled(2)[1]
            assert (record["outcome"], record["output"], record["estimated"]) == ("ok", 3, 0)
            read_until(running, key, "part", route, b"word ")
            record = running.settled(3)[2]
            assert (record["outcome"], record["estimated"]) == ("left", 1)


def runs_on(kind, end, words=2000):
    """A stream that ignores its cap and says no usage; its head says ``kind``."""

    async def step(server, writer, path, body):
        writer.write(f"HTTP/1.1 200 OK\r\n{kind}connection: close\r\n\r\n".encode())
        choice = {"index": 0, "delta": {"content": "word "}, "finish_reason": None}
        for _ in range(words):
            writer.write(f"data: {json.dumps({'id': 'c', 'model': 'm', 'choices': [choice]})}{end}".encode())
            server.billed += 1
            await writer.drain()
        writer.write(f"data: [DONE]{end}".encode())
        await writer.drain()
        writer.close()

    return step


def answered(running, body, key):
    """The bytes of an answer, whatever they are called."""
    head = {"authorization": f"Bearer {key}"}
    request = urllib.request.Request(f"{running.url}/chat/completions", json.dumps(body).encode(), head)
    with urllib.request.urlopen(request, timeout=30) as response:
        return response.read()


def test_a_stream_by_any_name_is_cut_or_charged_at_the_gateway(tmp_path):
    steps = {
        "upper": runs_on("content-type: Text/Event-Stream\r\n", "\n\n"),
        "json": runs_on("content-type: application/json\r\n", "\n\n"),
        "none": runs_on("", "\n\n"),
        "returns": runs_on("content-type: text/event-stream\r\n", "\r\r"),
        "mixed": runs_on("content-type: text/event-stream\r\n", "\n\r\n"),
    }
    with Upstream(**steps) as upstream, Running(tmp_path, toml([("one", upstream.url, list(steps), "")])) as running:
        for name in steps:
            body = {"model": name, "max_tokens": 40, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
            content = answered(running, body, running.key("400", path=f"few/{name}"))
            assert b"stream_cut" in content
            assert content.count(b"word") < 400
            content = answered(running, body, running.key("9000", path=f"many/{name}"))
            assert content.count(b"word") == 2000
            assert b"stream_cut" not in content
            running.settled()
            assert running.spent(f"many/{name}") >= 2000
            whole = {**body, "stream": False}  # nobody asked for a stream, and it is one all the same
            answered(running, whole, running.key("9000", path=f"whole/{name}"))
            running.settled()
            assert running.spent(f"whole/{name}") >= 2000
