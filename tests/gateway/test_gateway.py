"""The gateway over real sockets: what is passed on, charged, refused; clients and upstreams that misbehave."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)

from helpers.gateway_fixture import ADMIN, Running, toml  # noqa: E402
from helpers.upstream import Upstream, begin, echo, end, error, event, hang, hang_up, in_turn  # noqa: E402

HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def upstream():
    slow = echo(words=50, pause=0.02)
    with Upstream(slow=slow) as found:
        yield found


@pytest.fixture(scope="module")
def running(upstream, tmp_path_factory):
    text = toml([("one", upstream.url, ["echo", "slow"], 'key_env = "UPSTREAM_KEY"')])
    with Running(tmp_path_factory.mktemp("gateway"), text) as found:
        yield found


def ask(**more):
    return {"model": "echo", "messages": HI, "max_tokens": 20, **more}


def test_a_chat_is_passed_on_as_it_came_and_charged_what_was_used(running, upstream):
    key = running.key("all:1000", path="a")
    raw = json.dumps(ask(), indent=3).encode()
    status, headers, found = running.call("/v1/chat/completions", raw, key)
    assert (status, found["choices"][0]["message"]["content"]) == (200, "word word word word word")
    assert upstream.raw == raw
    assert upstream.headers[-1]["authorization"] == "Bearer sk-upstream"
    assert key not in str(upstream.headers[-1])
    (record,) = [one for one in running.settled() if one["id"] == headers["x-request-id"]]
    assert (record["input"], record["output"], record["units"]["all"], record["estimated"]) == (7, 5, 12, 0)
    assert record["reserved"]["all"] == len(raw) + 10 + 20
    assert running.spent("a") == 12


def test_streams_pass_through_and_the_usage_chunk_is_hidden_from_who_did_not_ask(running, upstream):
    key = running.key("all:1000", path="b")
    _, _, plain = running.call("/v1/chat/completions", ask(stream=True), key)
    assert upstream.requests[-1][1]["stream_options"] == {"include_usage": True}
    assert b'"usage"' not in plain
    assert plain.count(b"word") == 5
    assert plain.endswith(b"data: [DONE]\n\n")
    asked = ask(stream=True, stream_options={"include_usage": True})
    _, _, told = running.call("/v1/chat/completions", asked, key)
    assert b'"completion_tokens": 5' in told
    assert [one["units"]["all"] for one in running.settled() if one["path"].startswith("b/")] == [12, 12]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("chat/completions", {"messages": HI, "max_tokens": 9}),
        ("completions", {"prompt": "Hi", "max_tokens": 9}),
        ("responses", {"input": "Hi", "max_output_tokens": 9}),
        ("messages", {"messages": HI, "max_tokens": 9}),
        ("embeddings", {"input": "Hi"}),
    ],
)
def test_every_route_is_metered(running, route, body, stream):
    if stream and route == "embeddings":
        pytest.skip("embeddings are not streamed")
    path = f"route-{route.replace('/', '-')}-{stream}"
    key = running.key("all:1000", path=path)
    more = {"stream": True} if stream else {}
    status, _, _ = running.call(f"/v1/{route}", {"model": "echo", **body, **more}, key)
    assert status == 200
    (record,) = [one for one in running.settled() if one["path"].startswith(path + "/")]
    assert (record["outcome"], record["estimated"]) == ("ok", 0)
    assert running.spent(path) == (7 if route == "embeddings" else 12)
    if route == "messages":
        assert record["cached"] == 3


def test_a_request_without_a_cap_is_given_one_and_told(running, upstream):
    key = running.key("all:1000", path="c")
    _, headers, _ = running.call("/v1/chat/completions", {"model": "echo", "messages": HI}, key)
    assert (upstream.requests[-1][1]["max_tokens"], headers["x-budgeteer-policy"]) == (50, "cap=50")
    _, headers, _ = running.call("/v1/chat/completions", ask(max_tokens=50), key)
    assert "x-budgeteer-policy" not in headers


def test_what_one_server_reads_otherwise_than_another_is_made_plain(running, upstream):
    """A field twice, caps that are not the route's own, two caps: what was bounded is what is sent."""
    key = running.key("all:5000", path="d")
    twice = b'{"model": "echo", "max_tokens": 40, "max_tokens": 3, "messages": [{"role": "user", "content": "Hi"}]}'
    _, _, found = running.call("/v1/chat/completions", twice, key)
    assert found["usage"]["completion_tokens"] == 3
    assert upstream.raw.count(b"max_tokens") == 1
    more = ask(n_predict=10_000, max_output_tokens=1, max_completion_tokens=4)
    _, _, found = running.call("/v1/chat/completions", more, key)
    sent = upstream.requests[-1][1]
    assert sent["max_tokens"] == 4
    assert not {"n_predict", "max_output_tokens", "max_completion_tokens"} & set(sent)


def test_a_list_of_prompts_is_reserved_and_charged_as_many_answers(running, upstream):
    key, before = running.key("all:20000", path="d2"), upstream.billed
    body = {"model": "echo", "prompt": ["a"] * 100, "max_tokens": 20, "n": 2}
    status, _, found = running.call("/v1/completions", body, key)
    assert (status, len(found["choices"])) == (200, 200)
    (record,) = [one for one in running.settled() if one["path"].startswith("d2/")]
    assert (record["overshoot"], record["estimated"]) == ({}, 0)
    assert record["units"]["all"] == running.spent("d2") == upstream.billed - before == 7 + 5 * 200
    assert record["reserved"]["all"] >= 20 * 200
    assert running.call("/v1/completions", {**body, "n": 10}, key)[0] == 402


def test_a_budget_that_is_spent_is_402_and_says_why(running, upstream):
    key = running.key("all:150", path="e")
    assert running.call("/v1/chat/completions", ask(), key)[0] == 200
    running.settled()
    calls = upstream.calls
    status, headers, found = running.call("/v1/chat/completions", ask(max_tokens=50), key)
    assert (status, headers["x-should-retry"], upstream.calls) == (402, "false", calls)
    said = found["error"]
    assert (said["code"], said["type"]) == ("budget_exceeded", "insufficient_quota")
    used, requested = 12, said["budget"]["requested"]
    assert used + requested > 150
    assert {k: said["budget"][k] for k in ("kind", "used", "held", "limit", "resets_at")} == {
        "kind": "all", "used": 12, "held": 0, "limit": 150, "resets_at": None,
    }  # fmt: skip
    assert said["budget"]["scope"].startswith("e/")
    refused = running.admin("requests?refused=1&path=e")["requests"] or (
        running.settled() and running.admin("requests?refused=1&path=e")["requests"]
    )
    assert (refused[0]["reason"], refused[0]["scope"]) == ("budget_exceeded", said["budget"]["scope"])
    status, _, found = running.call("/v1/messages", {"model": "echo", "messages": HI, "max_tokens": 50}, key)
    assert (status, found["type"], found["error"]["type"]) == (402, "error", "billing_error")


def test_a_rate_is_429_with_the_time_to_wait(running):
    key = running.key("requests:2/60s", path="f")
    assert [running.call("/v1/chat/completions", ask(), key)[0] for _ in range(2)] == [200, 200]
    status, headers, found = running.call("/v1/chat/completions", ask(), key)
    assert (status, found["error"]["code"]) == (429, "rate_limited")
    assert 58 <= int(headers["retry-after"]) <= 61
    assert found["error"]["budget"]["resets_at"].endswith("Z")


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"model": "nothing"}, 404, "model_not_found"),
        ({"model": 7}, 400, "invalid_request"),
        ({"max_tokens": -1}, 400, "invalid_request"),
        ({"max_tokens": 51}, 400, "output_too_large"),
        ({"n": "three"}, 400, "invalid_request"),
        ({"stream": 1}, 400, "invalid_request"),
        ({"background": True}, 400, "not_metered"),
        ({"tools": [{"type": "web_search"}]}, 400, "not_bounded"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, 400, "not_bounded"),
    ],
)
def test_requests_that_cannot_be_bounded_are_refused(running, upstream, change, status, code):
    key, calls = running.key("all:1000", path="g"), upstream.calls
    found = running.call("/v1/chat/completions", ask(**change), key)
    assert (found[0], found[2]["error"]["code"], upstream.calls) == (status, code, calls)


def test_bodies_that_are_no_json_and_routes_that_nothing_meters_are_refused(running):
    key = running.key("all:1000", path="h")
    for raw in (b"", b"{", b"[]", b'"x"', b"\xff", b"[" * 40_000):
        assert running.call("/v1/chat/completions", raw, key)[0] == 400
    assert running.call("/v1/images/variations", ask(), key)[2]["error"]["code"] == "not_metered"
    assert running.call("/v1/chat/completions", None, key)[0] == 405


def test_keys_are_checked(running):
    key = running.key(path="i")
    for wrong in ("", "x", key[:-1] + ("a" if key[-1] != "a" else "b"), "bk-0000000000000000-" + "a" * 43, ADMIN):
        status, _, found = running.call("/v1/chat/completions", ask(), wrong)
        assert (status, found["error"]["code"]) == (401, "invalid_api_key")
        assert running.call("/v1/models", None, wrong)[0] == 401
    assert running.call("/admin/api/keys", None, key)[0] == 401
    assert running.call("/metrics", None, key)[0] == 401
    stored = running.gateway.store.all_keys()
    assert not any(key.split("-", 2)[2] in text for text in stored)  # the secret, which may have hyphens
    name = key.split("-")[1]
    assert running.admin(f"keys/{name}/revoke", {})["key"]["revoked"]
    assert running.call("/v1/chat/completions", ask(), key)[2]["error"]["code"] == "key_revoked"
    old = running.key(path="i", expires=1)
    assert running.call("/v1/chat/completions", ask(), old)[2]["error"]["code"] == "key_expired"


def test_a_key_has_models_and_caps_of_its_own(running, upstream):
    key = running.key("all:9999", path="j", models=["slow"], max_output=5)
    assert running.call("/v1/chat/completions", ask(), key)[2]["error"]["code"] == "model_not_allowed"
    listed = running.call("/v1/models", None, key)[2]["data"]
    assert [one["id"] for one in listed] == ["slow"]
    key = running.key("all:9999", path="j", max_output=5, max_reasoning=100)
    assert running.call("/v1/chat/completions", ask(), key)[2]["error"]["code"] == "output_too_large"
    body = {"model": "echo", "messages": HI, "thinking": {"type": "enabled", "budget_tokens": 4000}, "max_tokens": 5}
    assert running.call("/v1/messages", body, key)[0] == 200
    assert upstream.requests[-1][1]["thinking"]["budget_tokens"] == 100
    key = running.key("all:9999", path="j", max_input=30)
    assert running.call("/v1/chat/completions", ask(), key)[2]["error"]["code"] == "input_too_large"


def test_users_have_limits_of_their_own(running):
    key = running.key("all:9999", path="k", per_user=["all:160"])
    assert running.call("/v1/chat/completions", ask(), key)[0] == 400  # names nobody
    for user in ("ann", "bob smith"):  # the second cannot be a scope and is hashed
        body = ask(user=user)
        assert running.call("/v1/chat/completions", body, key)[0] == 200
        running.settled()
        status, _, found = running.call("/v1/chat/completions", {**body, "max_tokens": 50}, key)
        assert status == 402
        assert "/user:" in found["error"]["budget"]["scope"]
    assert running.spent("k") == 24


def test_top_up_and_changed_limits_hold_at_once(running):
    key = running.key("all:100", path="l")
    name = key.split("-")[1]
    assert running.call("/v1/chat/completions", ask(max_tokens=50), key)[0] == 402
    assert running.admin(f"keys/{name}/top-up", {"amount": "all:100"})["key"]["limits"] == ["200"]
    assert running.call("/v1/chat/completions", ask(max_tokens=50), key)[0] == 200
    running.admin(f"keys/{name}", {"limits": ["all:20"]}, "PATCH")
    assert running.call("/v1/chat/completions", ask(), key)[0] == 402
    status, _, found = running.call(f"/admin/api/keys/{name}/top-up", {"amount": "$5"})
    assert status == 400
    assert "no limit of the kind" in found["error"]["message"]


# clients and upstreams that misbehave


def one_upstream(tmp_path, found, models, server="", more="", **options):
    return Running(tmp_path, toml([("one", found.url, models, more)], server=server, **options))


BAD = {
    "boasts": (echo(words=2, prompt=10**14, model_name="m" * 5000), {}, "ok", 10**14 + 2),
    "wrong_n": (echo(words=6, counts_one=True), {"n": 3}, "ok", None),
    "silent": (echo(reports=False), {}, "ok", None),
    "zero": (echo(words=0), {"max_tokens": 0}, "ok", 7),
    "cut": (echo(cut_after=2), {"stream": True}, "cut", None),
    "no_answer": (hang_up, {}, "failed", None),
    "hung": (hang, {}, "failed", None),
    "late": (echo(words=3, pause=1.0), {"stream": True}, "cut", None),
    "broken": (error(500), {}, "failed", None),
    "busy": (error(429, [("retry-after", "7")]), {}, "failed", 0),
    "full": (error(503), {}, "failed", 0),
    "picky": (error(400, message="no such option"), {}, "failed", 0),
    "locked": (error(401), {}, "failed", 0),
    "moved": (error(307, [("location", "http://127.0.0.1:1/")]), {}, "failed", 0),
}
STATUS = {
    "no_answer": 502,
    "hung": 504,
    "broken": 502,
    "busy": 429,
    "full": 503,
    "picky": 400,
    "locked": 502,
    "moved": 502,
}


@pytest.fixture(scope="module")
def misbehaving(tmp_path_factory):
    with Upstream(**{name: step for name, (step, *_) in BAD.items()}) as found:
        more = "connect_seconds = 0.4\nfirst_byte_seconds = 0.1\nidle_seconds = 0.4\nbreaker = 0"
        with one_upstream(tmp_path_factory.mktemp("bad"), found, BAD, "retries = 0", more) as running:
            yield running, found


@pytest.mark.parametrize("name", BAD)
def test_whatever_an_upstream_does_is_booked(misbehaving, name):
    """At least what it billed, at most what was reserved; exactly and not estimated where it could be known."""
    running, upstream = misbehaving
    _, change, outcome, exactly = BAD[name]
    path = f"bad-{name}"
    key = running.key("all:5000", path=path)
    status, headers, found = running.call("/v1/chat/completions", ask(model=name, **change), key)
    assert status == STATUS.get(name, 200)
    (record,) = [one for one in running.settled() if one["path"].startswith(path + "/")]
    assert record["outcome"] == outcome
    spent, ran = running.spent(path), upstream.bills[name]  # others may still be writing
    assert ran <= spent
    if name == "boasts":  # what a provider bills is booked, as overshoot
        assert record["overshoot"]["all"] == spent - record["reserved"]["all"]
    else:
        assert spent <= record["reserved"].get("all", 0)
    if exactly is None:
        assert record["estimated"] == 1
        assert spent > 0
    else:
        assert (spent, record["estimated"]) == (exactly, 0)
    if name in ("no_answer", "hung", "broken"):
        assert spent == record["reserved"]["all"] == record["wasted"]
        assert headers["x-should-retry"] == "false"
    if outcome == "cut":
        assert b'"code": "stream_cut"' in found
        assert b"[DONE]" not in found
        assert record["wasted"] == spent
    if name == "busy":
        assert headers["retry-after"] == "7"
    if name == "picky":
        assert found["error"]["message"] == "no such option"
    if name == "locked":
        assert "sk-" not in str(found)


def test_another_upstream_takes_over_and_what_may_have_run_is_charged(tmp_path):
    with Upstream(m=in_turn(hang_up, error(503), error(500))) as bad, Upstream(m=echo()) as good:
        text = toml([("bad", bad.url, ["m"], "weight = 1000"), ("good", good.url, ["m"], "weight = 0")])
        with Running(tmp_path, text) as running:
            key = running.key("all:9000", path="a")
            for outcome in ("hung up", "busy", "broken"):
                status, headers, _ = running.call("/v1/chat/completions", ask(model="m"), key)
                assert (status, headers["x-budgeteer-upstream"]) == (200, "good"), outcome
                for backend in running.gateway.proxy.upstreams.backends:
                    assert backend.healthy == (backend.name == "good")
                    backend.until = 0.0
            records = running.settled()
            lines = dict(line.rsplit(" ", 1) for line in running.call("/metrics")[2].decode().splitlines())
    assert [one["attempts"] for one in records] == [2, 2, 2]
    # what each upstream used, is said of that upstream
    calls = [call for one in records for call in one["calls"]]
    assert [(one["upstream"], one["outcome"]) for one in calls] == [
        ("bad", "unknown"), ("good", "ok"), ("bad", "rejected"), ("good", "ok"), ("bad", "unknown"), ("good", "ok"),
    ]  # fmt: skip
    for record in records:
        for name in ("input", "output", "wasted"):
            assert record[name] == sum(call[name] for call in record["calls"])
        assert record["units"]["all"] == sum(call["units"]["all"] for call in record["calls"])
    for name in ("good", "bad"):
        about = f'{{model="m",operation="chat",upstream="{name}"}}'
        output = f'{{bucket="output",model="m",operation="chat",upstream="{name}"}}'
        mine = [call for call in calls if call["upstream"] == name]
        assert float(lines[f"budgeteer_tokens_total{output}"]) == sum(call["output"] for call in mine)
        assert float(lines.get(f"budgeteer_wasted_tokens_total{about}", 0)) == sum(call["wasted"] for call in mine)
        assert float(lines.get(f"budgeteer_estimated_total{about}", 0)) == (2 if name == "bad" else 0)
        assert float(lines[f'budgeteer_attempts_total{{upstream="{name}"}}']) == 3
    wasted = records[0]["reserved"]["all"] - records[0]["units"]["all"]
    charged = [one["units"]["all"] for one in records]
    lost = [one["wasted"] for one in records]
    assert lost[1] == 0
    assert charged == [12 + lost[0], 12, 12 + lost[2]]
    assert lost[0] == lost[2] == records[0]["reserved"]["all"] // 2
    assert wasted == lost[0] - 12
    assert [one["units"]["requests"] for one in records] == [1, 1, 1]


def test_another_upstream_that_makes_less_takes_over_with_a_lower_cap(tmp_path):
    with Upstream(m=error(503)) as bad, Upstream(m=echo(words=99)) as good:
        text = toml([("bad", bad.url, ["m"], "weight = 1000"), ("good", good.url, ["m"], "weight = 0")])
        head, small = text.rsplit("max_output = 50", 1)
        with Running(tmp_path, f"{head}max_output = 9{small}") as running:
            key = running.key("all:9000")
            status, headers, found = running.call("/v1/chat/completions", ask(model="m", max_tokens=40), key)
            assert (status, found["usage"]["completion_tokens"]) == (200, 9)
            assert (headers["x-budgeteer-upstream"], headers["x-budgeteer-policy"]) == ("good", "cap=9")
            assert bad.requests[-1][1]["max_tokens"] == 40
            assert running.call("/v1/chat/completions", ask(model="m", max_tokens=51), key)[0] == 400


def leave(running, key, before=False, **body):
    """A client of a stream that goes away after its first text; ``before``: as soon as its request is sent."""
    import socket

    body = json.dumps(ask(stream=True, max_tokens=50, **body)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
    client = socket.create_connection(("127.0.0.1", running.port))
    client.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    while not before and b"word" not in client.recv(65536):
        pass
    while before and not running.gateway.proxy.live:
        time.sleep(0.005)
    client.close()


@pytest.mark.parametrize("cancels", ["cancels = true", ""])
@pytest.mark.parametrize("fails", [False, True])
def test_a_client_that_leaves_a_stream_before_its_first_text_is_charged_too(tmp_path, cancels, fails):
    """Nothing was passed on to it, which is no error in place of an answer, even if an error follows the text."""

    async def late(server, writer, path, body):
        await asyncio.sleep(0.3)
        if not fails:
            return await echo(words=50, pause=0.01)(server, writer, path, body)
        server.billed += 8
        await begin(writer)
        said = {"choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}]}
        overloaded = {"error": {"message": "Overloaded", "type": "overloaded_error", "code": 529}}
        await event(writer, f"{json.dumps(said)}\n\ndata: {json.dumps(overloaded)}")  # in one piece
        await end(writer)

    with Upstream(late=late) as upstream, one_upstream(tmp_path, upstream, ["late"], more=cancels) as running:
        leave(running, running.key("all:9000"), before=True, model="late")
        (record,) = running.settled(1)
        assert record["outcome"] == "left"
        assert [call["outcome"] for call in record["calls"]] != ["rejected"]
        assert running.spent() == record["units"]["all"] == record["wasted"] >= upstream.billed > 0
        assert running.gateway.proxy.upstreams.backends[0].failures == fails


def test_a_client_that_leaves_a_stream_ends_it_where_that_stops_it_and_is_charged_what_was_seen(tmp_path):
    with (
        Upstream(m=echo(words=50, pause=0.02)) as upstream,
        one_upstream(tmp_path, upstream, ["m"], more="cancels = true") as running,
    ):
        first, key = running.key("all:9000", path="first"), running.key("all:9000", path="left")
        leave(running, first, model="m")
        (record,) = running.settled(1)
        assert (record["outcome"], record["estimated"]) == ("left", 1)
        assert record["units"]["all"] == record["reserved"]["all"]  # nothing is known of the model yet
        assert running.call("/v1/chat/completions", ask(model="m"), first)[0] == 200
        leave(running, key, model="m")
        (record,) = [one for one in running.settled(3) if one["path"].startswith("left/")]
        assert (record["outcome"], record["estimated"]) == ("left", 1)
        assert 0 < record["wasted"] == record["units"]["all"] < record["reserved"]["all"]
        for _ in range(100):
            if upstream.gone == 2:
                break
            time.sleep(0.02)
        assert upstream.gone == 2


def test_a_stream_that_goes_on_without_its_client_is_read_to_its_end(tmp_path):
    with Upstream(m=echo(words=20, pause=0.02)) as upstream, one_upstream(tmp_path, upstream, ["m"]) as running:
        leave(running, running.key("all:9000"), model="m")
        (record,) = running.settled(1)
        assert (record["outcome"], record["estimated"], upstream.gone) == ("left", 0, 0)
        assert record["wasted"] == running.spent() == upstream.billed == 27


def test_a_stream_that_goes_on_for_too_long_is_charged_in_full(tmp_path):
    with (
        Upstream(m=echo(words=40, pause=0.1)) as upstream,
        one_upstream(tmp_path, upstream, ["m"], "drain_seconds = 0.3") as running,
    ):
        key = running.key("all:9000")
        running.call("/v1/chat/completions", ask(model="m"), key)
        leave(running, key, model="m")
        record = running.settled(2)[-1]
        assert (record["outcome"], record["estimated"]) == ("left", 1)
        assert record["units"]["all"] == record["reserved"]["all"]


def test_no_more_calls_than_allowed_are_read_to_their_end_at_once(tmp_path):
    with (
        Upstream(m=echo(words=40, pause=0.05)) as upstream,
        one_upstream(tmp_path, upstream, ["m"], "drains = 1") as running,
    ):
        key = running.key("all:9000")
        running.call("/v1/chat/completions", ask(model="m"), key)
        for _ in range(3):
            leave(running, key, model="m")
        records = running.settled(4)[1:]
        assert [one["outcome"] for one in records] == ["left"] * 3
        by_usage = [one for one in records if not one["estimated"]]
        assert [one["units"]["all"] for one in by_usage] == [47]
        assert all(one["units"]["all"] == one["reserved"]["all"] for one in records if one["estimated"])
        assert running.spent() >= upstream.billed


def test_a_client_that_leaves_a_plain_call_is_charged_what_it_used_once_it_is_known(tmp_path):
    import socket

    with (
        Upstream(late=echo(delay=0.5), never=hang) as upstream,
        one_upstream(tmp_path, upstream, ["late", "never"], "drain_seconds = 1.0") as running,
    ):
        for model, estimated in (("late", 0), ("never", 1)):
            key = running.key("all:9000", path=model)
            body = json.dumps(ask(model=model)).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
            with socket.create_connection(("127.0.0.1", running.port)) as client:
                client.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
                while not running.gateway.proxy.live or not upstream.open:
                    time.sleep(0.01)
                assert running.admin("live")["live"][0]["model"] == model
            (record,) = [one for one in running.settled() if one["path"].startswith(model + "/")]
            assert (record["outcome"], record["estimated"]) == ("left", estimated)
            assert record["units"]["all"] == record["wasted"]
            assert record["units"]["all"] == (record["reserved"]["all"] if estimated else 12)


def test_a_stream_longer_than_the_life_of_a_reservation_stays_reserved(tmp_path):
    with Upstream(m=echo(words=25, pause=0.1)) as upstream:
        text = toml([("one", upstream.url, ["m"], "")])
        with Running(tmp_path, text, ttl=1) as running:
            key = running.key("all:300")
            assert running.call("/v1/chat/completions", ask(model="m", max_tokens=25, stream=True), key)[0] == 200
            (record,) = running.settled()
            journal = [line for line, _ in running.gateway.ledger.lines()]
    assert (record["units"]["all"], record["overshoot"], record["ms"] > 2000) == (32, {}, True)
    assert sum("\tsettled\t" in line for line in journal) == 1
    assert not any("\texpired\t" in line for line in journal)


def test_a_stream_that_ignores_its_cap_is_cut_where_the_budget_ends(tmp_path):
    """2,000 words on a cap of 20: what the budget covers beyond is reserved as it comes, and the rest is not read."""
    upstream = Upstream(m=echo(words=2000, pause=0.01, keeps_cap=False))
    with upstream, one_upstream(tmp_path, upstream, ["m"]) as running:
        key = running.key("all:160")
        body = running.call("/v1/chat/completions", ask(model="m", stream=True), key)[2]
        (record,) = running.settled()
    assert 20 <= body.count(b'"content"') <= 160
    assert b"stream_cut" in body
    assert b"beyond its cap" in body
    assert (record["outcome"], record["estimated"]) == ("cut", True)
    assert record["units"]["all"] >= 7 + body.count(b'"content"')


def test_a_stream_beyond_its_cap_goes_on_while_the_budget_covers_it(tmp_path):
    upstream = Upstream(m=echo(words=300, keeps_cap=False))
    with upstream, one_upstream(tmp_path, upstream, ["m"]) as running:
        key = running.key("all:9000")
        assert running.call("/v1/chat/completions", ask(model="m", stream=True), key)[0] == 200
        (record,) = running.settled()
    assert (record["outcome"], record["units"]["all"], record["overshoot"]) == ("ok", 307, {})


def test_what_upstreams_refuse_counts_as_a_request(tmp_path):
    with Upstream(m=error(400)) as upstream, one_upstream(tmp_path, upstream, ["m"]) as running:
        key = running.key("all:9000", "requests:2/90s")
        assert [running.call("/v1/chat/completions", ask(model="m"), key)[0] for _ in range(3)] == [400, 400, 429]
        assert (running.spent(), running.spent(kind="requests"), upstream.calls) == (0, 2, 2)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/admin/api/keys"])
def test_clients_that_send_too_much_or_too_slowly_are_cut_off(tmp_path, caplog, path):
    import socket

    limits = "body_bytes = 2000\nheader_bytes = 1500\nreceive_seconds = 0.5"
    with Upstream() as upstream, one_upstream(tmp_path, upstream, ["echo"], limits) as running:
        key = running.key("all:9000") if path.startswith("/v1") else ADMIN
        large = ask(messages=[{"role": "user", "content": "x" * 3000}])
        assert running.call(path, large, key)[2]["error"]["code"] == "too_large"

        def said(*pieces, pause=0.0):
            with socket.create_connection(("127.0.0.1", running.port), timeout=10) as client:
                try:
                    for piece in pieces:
                        client.sendall(piece)
                        time.sleep(pause)
                    return b"".join(iter(lambda: client.recv(65536), b""))
                except ConnectionError:
                    return b""

        def trickle(client):  # each piece comes in time, the whole does not
            for _ in range(900):
                client.sendall(b"{")
                time.sleep(0.1)

        post = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n".encode()
        assert said(post + b"x: " + b"y" * 2000 + b"\r\n\r\n")[:12] in (b"HTTP/1.1 400", b"")
        assert said(b"GET / HTTP/1.1\r\nx: " + b"y" * 5000)[:12] in (b"HTTP/1.1 400", b"")
        assert said(post) == b""  # the headers never end
        for begun in (b"", b"{"):
            assert b"too_slow" in said(post + b"content-length: 50\r\n\r\n" + begun)
        with socket.create_connection(("127.0.0.1", running.port), timeout=10) as client:
            client.sendall(post + b"content-length: 1000\r\n\r\n")
            with pytest.raises(ConnectionError):
                trickle(client)
        assert b"too_large" in said(post + b"transfer-encoding: chunked\r\n\r\nfff\r\n" + b"x" * 0xFFF + b"\r\n")
        with socket.create_connection(("127.0.0.1", running.port)) as client:  # and one that goes away
            client.sendall(post + b"content-length: 50\r\n\r\n{")
            time.sleep(0.1)
        running.settled()
        assert upstream.calls == 0
    assert not [one.exc_info for one in caplog.records if one.exc_info]


def test_a_client_that_does_not_read_is_let_go(tmp_path):
    import socket

    async def flood(server, writer, path, body):
        await begin(writer)
        for _ in range(1000):
            await event(writer, {"choices": [{"index": 0, "delta": {"content": "x" * 65536}}]})

    with Upstream(m=flood) as upstream, one_upstream(tmp_path, upstream, ["m"], "send_seconds = 0.5") as running:
        key = running.key("all:9000")
        body = json.dumps(ask(model="m", stream=True)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
        with socket.create_connection(("127.0.0.1", running.port)) as client:
            client.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            (record,) = running.settled(1)
        assert (record["outcome"], record["reason"], record["estimated"]) == ("left", "client too slow", 1)
        assert record["units"]["all"] > 20 * 65536  # more chunks than the cap allows: all that was seen is charged


def test_so_many_at_once_and_no_more(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    with Upstream(m=echo(delay=0.5)) as upstream, one_upstream(tmp_path, upstream, ["m"]) as running:
        key = running.key("all:90000", "parallel:3")
        with ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(running.call, "/v1/chat/completions", ask(model="m"), key) for _ in range(8)]
        answers = [call.result() for call in calls]
        assert sorted(status for status, _, _ in answers) == [200] * 3 + [429] * 5
        assert upstream.most_open == 3
        assert {found["error"]["code"] for status, _, found in answers if status == 429} == {"too_many_parallel"}
        running.settled(8)
        assert running.call("/v1/chat/completions", ask(model="m"), key)[0] == 200


def test_a_refusal_says_whether_requests_under_way_stand_in_the_way(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    with Upstream(m=echo(delay=0.5)) as upstream, one_upstream(tmp_path, upstream, ["m"]) as running:
        key = running.key("all:200")
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(running.call, "/v1/chat/completions", ask(model="m"), key)
            while not upstream.open:
                time.sleep(0.01)
            status, headers, found = running.call("/v1/chat/completions", ask(model="m"), key)
        assert first.result()[0] == 200
        assert (status, found["error"]["code"], headers["retry-after"]) == (429, "budget_reserved", "2")
        assert found["error"]["budget"]["held"] == found["error"]["budget"]["requested"]
        running.settled(2)
        assert running.call("/v1/chat/completions", ask(model="m"), key)[0] == 200


def test_a_budget_that_runs_out_under_a_hundred_streams_is_not_overshot(tmp_path):
    import asyncio

    import aiohttp

    with Upstream(m=echo(words=20, pause=0.01)) as upstream, one_upstream(tmp_path, upstream, ["m"]) as running:
        body = ask(model="m", stream=True)
        worst = len(json.dumps(body, separators=(",", ":")).encode()) + 20 + 20 + 10
        limit = 30 * worst
        key = running.key(f"all:{limit}")

        async def one(session):
            async with session.post(f"{running.url}/chat/completions", json=body) as response:
                return response.status, await response.read()

        async def everybody():
            headers = {"authorization": f"Bearer {key}"}
            async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:
                return await asyncio.gather(*(one(session) for _ in range(100)))

        answers = asyncio.run(everybody())
        records = running.settled(100)
        served = [said for status, said in answers if status == 200]
        assert 20 < len(served) < 100
        assert all(said.endswith(b"data: [DONE]\n\n") and said.count(b"word") == 20 for said in served)
        assert {status for status, _ in answers} <= {200, 402, 429}
        assert running.spent() == upstream.billed == 27 * len(served) <= limit
        assert sum(sum(one["overshoot"].values()) for one in records) == 0
        assert sum(one["units"].get("all", 0) for one in records) == upstream.billed
