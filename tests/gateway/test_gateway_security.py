"""What strangers, hostile clients and upstreams may not do: fail the gateway, reach beyond it, spend unbooked."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import http.client
import json
import socket
import threading
import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)

from budgeteer.gateway.openapi import document  # noqa: E402
from helpers.gateway_fixture import ADMIN, Running, toml  # noqa: E402
from helpers.upstream import Upstream, answer  # noqa: E402

HI = [{"role": "user", "content": "Hi"}]
ROUTES = ("chat/completions", "completions", "responses", "messages")


class Script:
    """A model that says whatever bytes it is told to, in pieces."""

    def __init__(self):
        self.pieces, self.kind, self.whole = [], "text/event-stream", True

    async def __call__(self, server, writer, path, body):
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {self.kind}\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head.encode())
        for piece in self.pieces:
            if piece:
                writer.write(b"%x\r\n" % len(piece) + piece + b"\r\n")
                await writer.drain()
        if not self.whole:
            return writer.close()
        writer.write(b"0\r\n\r\n")
        await writer.drain()


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    script = Script()
    with Upstream(script=script) as upstream:
        text = toml([("one", upstream.url, ["echo", "script"], 'key_env = "UPSTREAM_KEY"\nbreaker = 0')],
                    server="retries = 0\nreceive_seconds = 1")  # fmt: skip
        with Running(tmp_path_factory.mktemp("security"), text) as running:
            running.upstream, running.script = upstream, script
            running.victim = running.admin("keys", {"path": "victim", "limits": ["500"]})["key"]["id"]
            running.fuzzer = running.key("all:1000000000000000", path="fuzz")
            running.spender = running.key("all:100000000", path="spender")
            running.call("/v1/chat/completions", {"model": "echo", "messages": HI}, running.spender)
            running.request = running.settled(1)[0]["id"]
            yield running


# the published document, and requests that it allows and does not


def _told(method, operation):
    return f"{method.upper()} {operation}"


def test_the_document_names_what_is_served():
    served = {
        _told(method, path) for path, methods in document()["paths"].items() for method in methods
    }  # fmt: skip
    from budgeteer.gateway.admin import routes

    served_routes = routes(None, None, lambda request: None)
    admin = {_told(method, route.path) for route in served_routes for method in route.methods - {"HEAD"}}
    assert admin == {one for one in served if "/admin/api" in one}
    assert {f"POST /v1/{route}" for route in (*ROUTES, "embeddings")} <= served


@pytest.fixture(scope="module")
def api(running):
    schemathesis = pytest.importorskip("schemathesis")
    status, _, found = running.call("/openapi.json", key="")
    assert status == 200
    assert found == document()
    raw = copy.deepcopy(found)
    for path, methods in raw["paths"].items():
        # models that there are, so that requests get somewhere
        if path.startswith("/v1/") and "requestBody" in methods.get("post", {}):
            for content in methods["post"]["requestBody"]["content"].values():  # JSON, or a form with files
                models = {"type": "string", "enum": ["echo", "nothing", "http://127.0.0.1/"]}
                content["schema"]["properties"]["model"] = models
    return schemathesis.openapi.from_dict(raw)


OPERATIONS = [(path, method) for path, methods in document()["paths"].items() for method in methods]


@pytest.mark.parametrize(("path", "method"), OPERATIONS, ids=lambda one: one)
def test_no_request_makes_the_gateway_fail(api, running, path, method):
    """Requests that the document allows are answered as it says, those that it does not allow without a 5xx."""
    from schemathesis import GenerationMode, checks

    checks.load_all_checks()
    wanted = ("not_a_server_error", "status_code_conformance", "content_type_conformance",
              "response_schema_conformance")  # fmt: skip
    about = {"checks": checks.CHECKS.get_by_names(list(wanted)), "base_url": running.root, "timeout": 20}
    key = running.spender if path.startswith("/v1/") else ADMIN
    operation = api[path][method.upper()]

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(case=operation.as_strategy())
    def holds(case):
        case.call_and_validate(headers={"authorization": f"Bearer {key}"}, **about)
        if "{id}" in path:  # and of something that there is
            case.path_parameters = {"id": running.request if "requests" in path else running.victim}
            case.call_and_validate(headers={"authorization": f"Bearer {key}"}, **about)

    @settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(case=operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def stands(case):
        if "{id}" in path:
            case.path_parameters = {"id": running.request if "requests" in path else running.victim}
        about["checks"] = checks.CHECKS.get_by_names(["not_a_server_error"])
        case.call_and_validate(headers={"authorization": f"Bearer {key}"}, **about)

    holds()
    if operation.body or operation.query:  # else there is nothing to get wrong
        stands()


@pytest.mark.parametrize(
    "body",
    [
        rb'{"path": "a", "name": "\ud800"}', rb'{"path": "a", "models": ["\udfff"]}', b"[" * 100_000, b"\xff", b"",
        b'{"path": "a", "expires": 999999999999999}', b'{"path": "a", "max_input": 1' + b"0" * 40 + b"}", b"[1]",
        b'{"path": "a", "limits": ["1' + b"0" * 4000 + b'"]}', b'{"path": "a", "limits": ["all:1e999"]}',
    ],
)  # fmt: skip
def test_keys_that_nobody_could_read_are_refused(running, body):
    status, _, found = running.call("/admin/api/keys", body)
    assert (status, found["error"]["code"]) == (400, "invalid_request")
    assert running.call("/admin/api/keys")[0] == 200


def test_all_of_that_is_booked(running):
    """After whatever the cases above asked: nothing is held, and the bill is what the upstream counted."""
    records = running.settled()
    assert sum(one["units"].get("all", 0) for one in records if one["model"] == "echo") == running.upstream.billed
    spender = [one for one in records if one["path"].startswith("spender/")]
    assert running.spent("spender") == sum(one["units"].get("all", 0) for one in spender) > 0
    assert not [one for one in spender if one["overshoot"]]


# what an upstream may say


_said = st.sampled_from([
    b"data: ", b"\n", b"\n\n", b"\r\n\r\n", b": hi\n", b"event: x\n", b"[DONE]", b"data:[DONE]\n\n", b"{", b"}",
    b"null",
    b'{"choices":[{"index":0,"delta":{"content":"word "}}]}', b'{"choices":[{"index":0,"delta":{"content":"\xff"}}]}',
    b'{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}}',
    b'{"choices":[],"usage":{"prompt_tokens":-7,"completion_tokens":1e99,"total_tokens":"x"}}',
    b'{"usage":{"prompt_tokens":9999999999,"completion_tokens":9999999999,"total_tokens":19999999998}}',
    b'{"type":"response.completed","response":{"usage":{"input_tokens":7,"output_tokens":2,"total_tokens":9}}}',
    b'{"type":"message_start","message":{"usage":{"input_tokens":7,"output_tokens":1}}}',
    b'{"type":"message_delta","usage":{"output_tokens":2}}', b'{"type":"message_stop"}',
    b'{"choices":{"a":1},"usage":[],"model":7,"service_tier":{}}', b'{"choices":[null,1,"x",[[]]]}', b'{"error":{}}',
])  # fmt: skip
_pieces = st.lists(_said | st.binary(max_size=24), max_size=14)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    route=st.sampled_from(ROUTES), stream=st.booleans(), whole=st.booleans(), pieces=_pieces,
    kind=st.sampled_from(["text/event-stream", "application/json", "text/html", ""]),
)  # fmt: skip
@example("chat/completions", True, True, [b"data: ", b"x" * 100_000, b"\n\n"], "text/event-stream")
def test_whatever_bytes_an_upstream_says_are_answered_and_booked(running, route, stream, whole, pieces, kind):
    script = running.script
    script.pieces, script.whole, script.kind = pieces, whole, kind
    _, state = running.gateway.ledger.snapshot()
    before = running.spent("fuzz") if "fuzz" in state.accounts else 0
    seen = {one["id"] for one in running.settled()}
    body = {"model": "script", "stream": stream, "max_tokens": 10}
    body |= {"completions": {"prompt": "Hi"}, "responses": {"input": "Hi"}}.get(route, {"messages": HI})
    status, said = _raw(running, route, body)
    found = [one for one in running.settled(min(1000, len(seen) + 1)) if one["id"] not in seen]
    # answered: as the upstream did, or with 502 for an upstream that broke off; never an error of the gateway's own
    assert status == 200 or (status == 502 and not whole), said
    assert b"Internal Server Error" not in said
    # booked: what the ledger has is what the record has; a bound or the upstream's word, but never nothing
    (record,) = found
    charged = record["units"]["all"]
    assert running.spent("fuzz") - before == charged
    assert charged > 0 or b'"usage"' in b"".join(pieces)
    if record["estimated"] and b"999" not in b"".join(pieces):
        assert charged <= record["reserved"]["all"] or b"usage" in b"".join(pieces)
    assert (status, record["outcome"]) != (200, "failed")


def _raw(running, route, body):
    link = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
    content = json.dumps(body)
    try:
        link.request("POST", f"/v1/{route}", content, {"authorization": f"Bearer {running.fuzzer}"})
        got = link.getresponse()
        try:
            return got.status, got.read()
        except http.client.IncompleteRead as cut:
            return got.status, cut.partial
    finally:
        link.close()


# where requests go


@pytest.mark.parametrize(
    "name",
    [
        "http://127.0.0.1:{port}/v1", "//127.0.0.1:{port}/", "../../admin/api/keys", "echo/../../x", "echo?x=1",
        "echo#@127.0.0.1:{port}", "echo\r\nhost: 127.0.0.1:{port}", "\x00echo", "file:///etc/passwd", "ECHO", "echo ",
    ],
)  # fmt: skip
def test_a_model_name_leads_nowhere(running, name):
    """Names are looked up, never made into addresses."""
    key = running.key("all:100000", path="ssrf")
    with Upstream() as other:
        before = running.upstream.calls
        body = {"model": name.format(port=other.port), "messages": HI, "max_tokens": 5}
        for extra in ({}, {"base_url": other.url}, {"api_base": other.url, "upstream": other.url}):
            status, _, found = running.call("/v1/chat/completions", {**body, **extra}, key)
            assert (status, found["error"]["code"]) == (404, "model_not_found")
        assert (other.calls, running.upstream.calls) == (0, before)


def test_headers_and_redirects_lead_nowhere(tmp_path):
    """Neither what a client says of hosts, nor where an upstream points, is followed."""
    with Upstream() as other:

        async def redirect(server, writer, path, body):
            await answer(writer, 307, {}, [("location", f"{other.url}/chat/completions")])

        with (
            Upstream(away=redirect) as upstream,
            Running(tmp_path, toml([("one", upstream.url, ["echo", "away"], 'key_env = "UPSTREAM_KEY"')])) as running,
        ):
            key = running.key("all:100000")
            about = {"host": f"127.0.0.1:{other.port}", "x-forwarded-host": f"127.0.0.1:{other.port}",
                     "x-original-url": other.url, "forwarded": f"host=127.0.0.1:{other.port}",
                     "cookie": "a=b", "proxy-authorization": "x", "x-api-key": "mine"}  # fmt: skip
            body = {"model": "echo", "messages": HI, "max_tokens": 5}
            assert running.call("/v1/chat/completions", body, key, headers=about)[0] == 200
            sent = upstream.headers[-1]
            assert sent["authorization"] == "Bearer sk-upstream"
            assert sent["host"] == f"127.0.0.1:{upstream.port}"
            assert not {"cookie", "proxy-authorization", "forwarded", "x-forwarded-host", "x-original-url"} & set(sent)
            assert key not in str(sent)
            status, headers, _ = running.call("/v1/chat/completions", {**body, "model": "away"}, key)
            assert status == 502
            assert "location" not in headers
            assert other.calls == 0
            running.settled(2)


@pytest.mark.parametrize("path", ["/v1/../admin/api/keys", "/v1//../admin/api/keys", "/%2e%2e/admin/api/keys",
                                  "/static/../templates/login.html", "/static/..%2ftemplates%2flogin.html",
                                  "/static/%2e%2e/session.py", "//admin/api/keys", "/admin/api/keys/"])  # fmt: skip
def test_paths_lead_nowhere_either(running, path):
    link = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
    link.request("GET", path)
    got = link.getresponse()
    said = got.read()
    link.close()
    assert got.status in (303, 307, 401, 404), (got.status, said)
    assert b"limits" not in said
    assert b"<form" not in said


# what strangers may send


def _talk(running, *pieces, pause=0.0, seconds=30):
    """All that comes back for raw bytes, until the connection is closed."""
    with socket.create_connection(("127.0.0.1", running.port), timeout=seconds) as link:
        with contextlib.suppress(OSError):
            for piece in pieces:
                link.sendall(piece)
                time.sleep(pause)
        said = b""
        with contextlib.suppress(OSError):
            while got := link.recv(65_536):
                said += got
    return said


def test_strangers_cannot_hold_the_login_open_or_send_it_much(running):
    head = (
        b"POST /login HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/x-www-form-urlencoded\r\n"
    )
    said = _talk(running, head + b"content-length: 10\r\n\r\nkey=")  # the rest never comes
    assert said.startswith(b"HTTP/1.1 403")
    said = _talk(running, head + b"content-length: 5000000\r\n\r\nkey=", b"x" * 1_000_000)
    assert said.startswith(b"HTTP/1.1 403")
    said = _talk(running, head + b"x-long: " + b"x" * 70_000 + b"\r\n\r\n")
    assert b" 400 " in said or not said
    for form in (b"key=%ff%fe", b"key=" + b"&a=1" * 500, b"\xff\xfe", b"key=%00", "key=é".encode()):
        said = _talk(running, head + b"content-length: %d\r\n\r\n" % len(form) + form)
        assert said.split()[1] in (b"401", b"403"), form


def test_many_slow_strangers_do_not_stop_others(running):
    """Eighty connections that never finish their headers, and a caller who is served meanwhile."""
    key = running.key("all:1000", path="meanwhile")
    links = [socket.create_connection(("127.0.0.1", running.port), timeout=10) for _ in range(80)]
    try:
        for link in links:
            link.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n")
        body = {"model": "echo", "messages": HI, "max_tokens": 5}
        assert running.call("/v1/chat/completions", body, key)[0] == 200
        closed = 0
        for link in links:
            with contextlib.suppress(OSError):
                closed += link.recv(100) in (b"",) or True
        assert closed == 80
    finally:
        for link in links:
            link.close()


def test_no_prompt_and_no_secret_is_on_a_page_in_a_log_or_in_the_store(tmp_path, capfd):
    with Upstream() as upstream:
        text = toml([("one", upstream.url, ["echo"], 'key_env = "UPSTREAM_KEY"')]).replace(
            "json = false", "json = true"
        )
        with Running(tmp_path, text) as running:
            key = running.key("all:1000")
            body = {"model": "echo", "messages": [{"role": "user", "content": "a secret prompt"}], "max_tokens": 5}
            running.call("/v1/chat/completions", body, key)
            running.call("/v1/chat/completions", body, "bk-0000000000000000-" + "x" * 43)
            running.call("/admin/api/keys", key="a-wrong-admin-key-12345")
            records = running.settled(1)
            form = b"key=" + ADMIN.encode()
            head = b"POST /login HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
            head += b"content-type: application/x-www-form-urlencoded\r\ncontent-length: %d\r\n\r\n" % len(form)
            said = _talk(running, head + form)
            cookie = said.split(b"set-cookie: ")[1].split(b";")[0].decode()
            shown = ("/", "/requests", "/keys", f"/requests/{records[0]['id']}", "/budgets", "/requests.csv")
            pages = [str(running.call(path, key="", headers={"cookie": cookie})[2]) for path in shown]
            assert all("budgeteer" in page or "outcome" in page for page in pages)
            store = json.dumps(
                [running.gateway.store.all_keys(), running.gateway.store.select("SELECT * FROM records")]
            )
    everything = store + capfd.readouterr().err + "".join(pages)
    for secret in ("secret prompt", key.split("-", 2)[2], "x" * 43, "sk-upstream", ADMIN, "a-wrong-admin-key"):
        assert secret not in everything, secret


def test_an_upstream_that_floods_is_read_no_faster_than_its_client(tmp_path):
    """A client that stops reading is cut off after send_seconds; the stream is charged, and nothing piles up."""
    flooded = threading.Event()

    async def flood(server, writer, path, body):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        event = b'data: {"choices":[{"index":0,"delta":{"content":"' + b"word " * 2000 + b'"}}]}\n\n'
        block = b"%x\r\n" % len(event) + event + b"\r\n"
        sent = 0
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while sent < 400_000_000:
                writer.write(block)
                await writer.drain()
                sent += len(block)
        server.sent = sent
        flooded.set()

    with (
        Upstream(flood=flood) as upstream,
        Running(tmp_path, toml([("one", upstream.url, ["flood"], "")], server="send_seconds = 1")) as running,
    ):
        key = running.key("all:1b")
        body = json.dumps({"model": "flood", "stream": True, "messages": HI, "max_tokens": 10}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
        with socket.create_connection(("127.0.0.1", running.port), timeout=10) as link:
            link.sendall(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
            assert flooded.wait(20)
            (record,) = running.settled(1)
        assert record["outcome"] == "left"
        assert record["units"]["all"] > 0
        assert upstream.sent < 100_000_000
