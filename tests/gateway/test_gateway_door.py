"""The gateway's door: what clients without a valid key may send and hold, and what a body may make of an upstream."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import time
import types

import pytest

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)

from budgeteer.gateway.ask import Ask, check_parts  # noqa: E402
from budgeteer.gateway.body import Room, read_body  # noqa: E402
from budgeteer.gateway.door import _Transport  # noqa: E402
from budgeteer.gateway.fields import KNOWN, check_addresses, check_fields  # noqa: E402
from budgeteer.gateway.hosts import public  # noqa: E402
from budgeteer.gateway.keyring import KeyRing  # noqa: E402
from budgeteer.gateway.prepare import prepare  # noqa: E402
from budgeteer.gateway.refusal import Refused  # noqa: E402
from helpers.gateway_fixture import Running, toml  # noqa: E402
from helpers.requests import KEY, METERING, MODEL  # noqa: E402
from helpers.upstream import Upstream  # noqa: E402

HI = [{"role": "user", "content": "Hi"}]
CHUNKED = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
WRONG = b"authorization: Bearer bk-0000000000000000-" + b"x" * 43 + b"\r\n"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with Upstream() as upstream:
        limits = (
            "receive_seconds = 20\nstranger_seconds = 20\nstrangers = 20\nbody_bytes = 2_000_000\nbody_parts = 1000"
        )
        text = toml([("one", upstream.url, ["echo"], "")], server=limits)
        with Running(tmp_path_factory.mktemp("door"), text) as running:
            running.upstream = upstream
            running.alice = running.key("all:100000", path="door", per_user=["100000"])
            yield running


def test_a_stranger_that_resets_its_connection_before_the_answer_is_no_fault():
    """A body that has not arrived, and a socket that is gone when the answer to it has been written."""

    class Gone:
        def __init__(self):
            self.did = []

        def __getattr__(self, name):
            def do(*_):
                self.did.append(name)
                if name == "write_eof":
                    raise OSError(107, "Transport endpoint is not connected")

            return do

        def is_closing(self):
            return False

    gone = Gone()
    transport = _Transport(gone, types.SimpleNamespace(call_later=lambda *_: None, call_soon=lambda *_: None))
    transport.unread = True
    transport.write(b"HTTP/1.1 401 X\r\n\r\n")
    transport.write(b"no such key")
    transport.close()
    assert gone.did == ["write", "write_eof", "abort"]
    assert transport.is_closing()


def talk(running, *pieces, most=3_000_000):
    """(what comes back for raw bytes, how many of them were taken until the connection was closed)."""
    sent = 0
    said = b""
    with socket.create_connection(("127.0.0.1", running.port), timeout=15) as link:
        with contextlib.suppress(OSError):
            for piece in pieces:
                link.sendall(piece)
                sent += len(piece)
        with contextlib.suppress(OSError):
            while len(said) < most and (got := link.recv(65_536)):
                said += got
    return said, sent


def bearer(key):
    return f"authorization: Bearer {key}\r\n".encode()


def chunked(*pieces):
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece) + b"0\r\n"


def records(running):
    running.do(running.gateway.records.flush())
    return running.admin("requests?limit=1000")["requests"]


# 13: trailers


def test_trailers_do_not_speak_for_the_request(running):
    """The user and the key of the head count, whatever trailers say."""
    mallory = running.key("all:1000", path="door", per_user=["1000"])
    body = json.dumps({"model": "echo", "messages": HI, "max_tokens": 5}).encode()
    head = CHUNKED + b"connection: close\r\nx-budgeteer-user: alice\r\n" + bearer(running.alice) + b"\r\n"
    said, _ = talk(running, head + chunked(body) + b"x-budgeteer-user: bob\r\n" + bearer(mallory) + b"\r\n")
    assert said.startswith(b"HTTP/1.1 200")
    record = running.settled()[-1]
    assert (record["user"], record["key"]) == ("alice", running.alice.split("-")[1])


def test_trailers_after_a_refusal_are_not_taken(running):
    """Of 100 MB of trailers after a 401 about a megabyte is read before the connection is closed."""
    trailers = [b"x-t: " + b"a" * 4000 + b"\r\n"] * 250
    said, sent = talk(running, CHUNKED + WRONG + b"\r\n0\r\n", *[b"".join(trailers)] * 100)
    assert said[:12] in (b"HTTP/1.1 401", b"HTTP/1.1 400", b"")  # whichever is seen first; or reset before it is read
    assert not said or b"connection: close" in said
    assert sent < 20_000_000  # what the kernels hold beside it


@pytest.mark.parametrize("what", ["one long", "many", "never ending", "extension", "tiny chunks"])
def test_what_frames_a_body_counts_as_headers(running, what):
    """Trailers, extensions of chunks, and chunks of a byte each, of a client whose key is good."""
    trailer = b"x-t: " + b"a" * 4000 + b"\r\n"
    parts = {
        "one long": [b"0\r\nx-t: " + b"a" * 60_000, b"a" * 60_000 + b"\r\n\r\n"],
        "many": [b"0\r\n", trailer * 20, b"\r\n"],
        "never ending": [b"0\r\nx-t: ", *[b"a" * 10_000] * 20],
        "extension": [b"2;x=" + b"a" * 40_000, b"a" * 400_000 + b"\r\n{}\r\n0\r\n\r\n"],
        "tiny chunks": [b"1\r\n \r\n" * 200_000, b"0\r\n\r\n"],
    }[what]
    said, _ = talk(running, CHUNKED + bearer(running.alice) + b"\r\n", *parts)
    assert said.startswith(b"HTTP/1.1 400")
    assert b"header_bytes" in said
    assert len(running.gateway.proxy.live) == 0 or running.settled() is not None


def test_headers_that_stand_for_somebody_come_once(running):
    head = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n"
    for twice in (
        bearer(running.alice) * 2,
        b"x-budgeteer-user: a\r\nx-budgeteer-user: b\r\n",
        b"x-api-key: a\r\n" * 2,
    ):
        assert talk(running, head + twice + b"\r\n")[0].startswith(b"HTTP/1.1 400"), twice
    said, _ = talk(running, head + b"accept: a\r\naccept: b\r\nconnection: close\r\n" + bearer(running.alice) + b"\r\n")
    assert said.startswith(b"HTTP/1.1 200")


# 14: records


def test_who_shows_no_valid_key_is_counted_and_leaves_no_record(running):
    before, away = len(records(running)), running.gateway.metrics.away["invalid_api_key"]
    body = json.dumps({"model": "echo", "messages": HI}).encode()
    one = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n" + WRONG
    for _ in range(50):
        said, _ = talk(running, one + b"content-length: %d\r\n\r\n" % len(body) + body)
        assert said.startswith(b"HTTP/1.1 401")
        assert b"connection: close" in said
    assert running.call("/v1/models", None, "x")[0] == 401
    assert len(records(running)) == before
    assert running.gateway.metrics.away["invalid_api_key"] - away == 51
    assert running.admin("summary")["turned_away"]["invalid_api_key"] >= 51
    assert not running.gateway.proxy.live


def test_strangers_leave_no_line_in_the_log(tmp_path, capfd):
    with Upstream() as upstream:
        text = toml([("one", upstream.url, ["echo"], "")]).replace("json = false", "json = true")
        with Running(tmp_path, text) as running:
            for _ in range(5):
                running.call("/v1/chat/completions", {"model": "echo", "messages": HI}, "x")
                talk(running, b"nonsense\r\n\r\n")
                talk(running, b"GET /x HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
            assert records(running) == []
    assert capfd.readouterr().err == ""


def test_guessing_ids_makes_no_key_forgotten():
    """20,000 made-up ids, and a key that is not asked for again."""
    from budgeteer.gateway import keys

    key, token = keys.make({"path": "a"}, _defaults(), ("all",), 0)
    asked = []

    class Store:
        def get_key(self, name):
            asked.append(name)
            return keys.encode(key) if name == key.id else None

    async def guess():
        ring = KeyRing(Store())
        assert (await ring.find(token, 0)).id == key.id
        ring._known[key.id] = time.monotonic() + 100, key
        for n in range(11_000):
            ring._guessed[f"{n:016x}"] = time.monotonic() + 100
        with pytest.raises(Refused):
            await ring.find(f"bk-{'f' * 16}-{'x' * 43}", 0)
        assert len(ring._guessed) == 1
        await ring.find(token, 0)

    asyncio.run(guess())
    assert asked == [key.id, "f" * 16]


def _defaults():
    from budgeteer.gateway.config import Defaults

    return Defaults((), (), (), (), ("*",), None, None, None)


# 15: connections


def test_a_body_without_a_key_is_not_waited_for(running):
    """Half a body, and an answer at once: the key is looked at before the body."""
    for more in (WRONG, b""):
        said, _ = talk(running, CHUNKED + more + b"\r\n10\r\nhalf")
        assert said.startswith(b"HTTP/1.1 401")
    head = b"POST /v1/messages HTTP/1.1\r\nhost: x\r\n"
    for more in (b"content-length: 20\r\n\r\nhalf", b"expect: 100-continue\r\ncontent-length: 20\r\n\r\n"):
        said, _ = talk(running, head + more)
        assert said.startswith(b"HTTP/1.1 401")
        assert b"100 Continue" not in said
    for path in (b"/healthz", b"/nowhere", b"/v1/models"):
        said, _ = talk(running, b"GET " + path + b" HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n")
        assert said.count(b"HTTP/1.1") == 1
        assert b"connection: close" in said


def test_strangers_are_few_and_the_oldest_goes_first(running):
    """Sixty connections that say nothing, and half of a request: no more than ``strangers`` are open at any time, and
    who has a key is served meanwhile and afterwards on the connection that showed it."""
    known = socket.create_connection(("127.0.0.1", running.port), timeout=15)
    request = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n" + bearer(running.alice) + b"\r\n"
    known.sendall(request)
    assert known.recv(65_536).startswith(b"HTTP/1.1 200")
    links = []
    try:
        for n in range(60):
            links.append(socket.create_connection(("127.0.0.1", running.port), timeout=15))
            links[-1].sendall((b"", b"POST /v1/chat/completions HTTP/1.1\r\n", b"G")[n % 3])
        assert running.call("/v1/models", None, running.alice)[0] == 200
        deadline = time.monotonic() + 15
        while len(running.server.server_state.connections) > 22 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(running.server.server_state.connections) <= 22
        for link in links[:30]:
            with contextlib.suppress(ConnectionError):
                assert link.recv(100) == b""
        known.sendall(request)
        assert known.recv(65_536).startswith(b"HTTP/1.1 200")
        assert running.gateway.metrics.away["too_many_strangers"] >= 38
    finally:
        for link in (*links, known):
            link.close()


def test_strangers_stay_for_a_moment_only(tmp_path):
    with (
        Upstream() as upstream,
        Running(tmp_path, toml([("one", upstream.url, ["echo"], "")], server="stranger_seconds = 0.3")) as running,
    ):
        key = running.key("all:1000")
        healthy, known, dumb = (socket.create_connection(("127.0.0.1", running.port), timeout=15) for _ in range(3))
        request = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n" + bearer(key) + b"\r\n"
        known.sendall(request)
        assert known.recv(65_536).startswith(b"HTTP/1.1 200")
        healthy.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert healthy.recv(65_536).startswith(b"HTTP/1.1 200")
        for link in (healthy, dumb):
            with contextlib.suppress(ConnectionError):
                assert link.recv(100) == b""
        known.sendall(request)
        assert known.recv(65_536).startswith(b"HTTP/1.1 200")
        for link in (healthy, known, dumb):
            link.close()
        assert running.gateway.metrics.away["no_key_in_time"] == 2


def test_bodies_on_their_way_share_their_memory(running):
    room = Room(1000)
    for _ in range(10):
        room.take("a", 1000)
    with pytest.raises(Refused, match="too many bodies") as refused:
        room.take("a", 1)
    assert (refused.value.status, refused.value.wait) == (503, 1)
    room.take("b", 10_000)
    with pytest.raises(Refused):
        room.take("c", 1)
    room.give("b", 10_000)
    room.take("c", 1)
    room.give("a", 10_000)
    room.give("c", 1)
    assert (room.used, room.of) == (0, {})

    async def receive():
        return {"type": "http.request", "body": b"x" * 11_000, "more_body": True}

    with pytest.raises(Refused, match="too many bodies"):
        asyncio.run(read_body({}, receive, 10**6, lambda size: room.take("a", size)))
    body = json.dumps({"model": "echo", "messages": HI, "max_tokens": 2}).encode()
    for raw in (body, b"{", b"[]"):
        running.call("/v1/chat/completions", raw, running.alice, headers={"x-budgeteer-user": "u"})
    assert (running.gateway.proxy.room.used, running.gateway.proxy.room.of) == (0, {})


# further attacks at the same door


def test_no_other_protocol_is_spoken(running):
    """WebSocket, h2c and HTTP/2 from the start; HTTP/1.0; two lengths; a tunnel; a path of a megabyte."""
    upgrade = b"GET /v1/realtime HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    said, _ = talk(running, upgrade + bearer(running.alice) + b"\r\n")
    assert said.startswith(b"HTTP/1.1 400")
    assert b"leave the header Upgrade out" in said
    h2c = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
    body = json.dumps({"model": "echo", "messages": HI, "max_tokens": 2, "user": "u"}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n" % len(body)
    said, _ = talk(running, head + h2c + bearer(running.alice) + b"\r\n" + body)
    assert said.startswith(b"HTTP/1.1 400")  # rather than without its body
    assert talk(running, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")[0].startswith(b"HTTP/1.1 400")
    said, _ = talk(running, b"GET /healthz HTTP/1.0\r\nhost: x\r\nconnection: keep-alive\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 200")
    both = CHUNKED + b"content-length: 3\r\n" + bearer(running.alice) + b"\r\n0\r\n\r\n"
    assert talk(running, both)[0].startswith(b"HTTP/1.1 400")
    assert talk(running, b"CONNECT x:443 HTTP/1.1\r\nhost: x\r\n\r\n")[0].split()[1] in (b"400", b"404", b"405")
    said, _ = talk(running, b"GET /", *[b"a" * 50_000] * 20)
    assert said.startswith(b"HTTP/1.1 400") or not said
    assert talk(running, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000 + b"\r\n")[0][:12] in (b"HTTP/1.1 400", b"")


def test_requests_ahead_of_their_answers_are_few(running):
    said, _ = talk(running, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n" * 500)
    assert said.count(b"HTTP/1.1 200") <= 18
    many = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n" + bearer(running.alice) + b"\r\n"
    said, _ = talk(running, many * 5 + many.replace(b"host", b"connection: close\r\nhost"))
    assert said.count(b"HTTP/1.1 200") == 6


def test_a_body_that_is_compressed_is_not_unpacked(running):
    import gzip

    bomb = gzip.compress(b'{"model": "echo", "messages": "' + b"a" * 5_000_000 + b'"}')
    about = {"content-encoding": "gzip", "x-budgeteer-user": "u"}
    status, _, found = running.call("/v1/chat/completions", bomb, running.alice, headers=about)
    assert (status, found["error"]["code"]) == (400, "invalid_json")


# 16: work over a body


@pytest.mark.parametrize(
    ("raw", "fine"),
    [
        (b"[" + b"{}," * 10_000 + b"{}]", False),
        (b"[" + b"[]," * 2000 + b"[]]", False),
        (b"[" + b"1," * 6001 + b"1]", False),
        (b'{"a":' * 2000 + b"1" + b"}" * 2000, False),
        (b"[" + b'"",' * 6001 + b'""]', False),
        (b"[" + b"1," * 5900 + b"1]", True),
        (json.dumps([{"a": "[{,]" * 30_000}]).encode(), True),
        (json.dumps(['"[{,' * 30_000, '\\"[{,' * 5000]).encode(), True),
        (b'"' + b'\\"{[,' * 30_000, True),  # never ends, and is read once
        (b"[" + b"{}," * 900 + b'"\\', True),
    ],
)  # fmt: skip
def test_small_parts_are_counted_before_a_body_is_parsed(raw, fine):
    """Objects and arrays, and six times as many values; not what is in texts."""
    if fine:
        check_parts(raw, 1000)
        return
    with pytest.raises(Refused, match="raise body_parts") as refused:
        check_parts(raw, 1000)
    assert (refused.value.status, refused.value.code) == (413, "too_many_parts")


def test_a_body_of_small_parts_is_refused_by_the_gateway(running, monkeypatch):
    """Nothing is parsed of it."""
    from budgeteer.gateway import ask

    parsed = []
    loads = ask.orjson.loads
    monkeypatch.setattr(ask, "orjson", types.SimpleNamespace(loads=lambda raw: parsed.append(raw) or loads(raw)))
    raw = b'{"model": "echo", "messages": [' + b"{}," * 300_000 + b"{}]}"
    status, _, found = running.call("/v1/chat/completions", raw, running.alice, headers={"x-budgeteer-user": "u"})
    assert (status, found["error"]["code"]) == (413, "too_many_parts")
    assert "body_parts" in found["error"]["message"]
    assert parsed == []


def test_large_bodies_are_read_aside(running, monkeypatch):
    """In a thread of their own, one at a time, both to be read and to be written; small ones at once."""
    import threading

    from budgeteer.gateway import booking, proxy

    seen = []
    ask, preparing = proxy.Ask, booking.prepare
    monkeypatch.setattr(proxy, "Ask", lambda *args: seen.append(threading.current_thread().name) or ask(*args))
    monkeypatch.setattr(
        booking, "prepare", lambda *args: seen.append(threading.current_thread().name) or preparing(*args)
    )
    for size in (10, 70_000):
        body = {"model": "echo", "messages": [{"role": "user", "content": "a" * size}], "max_tokens": 2, "user": "u"}
        assert running.call("/v1/chat/completions", body, running.alice)[0] in (200, 402)
    here, aside = seen[0], seen[2]
    assert seen == [here, here, aside, aside]
    assert here != aside
    assert aside.startswith("budgeteer-bodies")


def test_what_is_refused_is_not_sent_back_whole(running):
    long = "x" * 1_000_000
    for body in (
        {"model": long}, {"model": 1, "stream": long}, {"model": "echo", "stream": [long]}, {"model": "echo", long: 1},
        {"model": "echo", "speed": long}, {"model": "echo", "modalities": [long]}, {"model": [long]},
        {"model": "echo", "n": long}, {"model": "echo", "max_tokens": [long]},
        {"model": "echo", "tools": [{"type": long}]},
        {"model": "echo", "messages": [{"content": [{"type": "image_url", "image_url": "file://" + long}]}]},
        {"model": "echo", "chat_template_kwargs": {long: 1}},
        {"model": "echo", "service_tier": long, "max_tokens": 10**9},
    ):  # fmt: skip
        body = {"messages": HI, "user": "u", **body}
        status, _, found = running.call("/v1/chat/completions", body, running.alice)
        assert 400 <= status < 500, body.keys()
        assert len(json.dumps(found)) < 3000, list(body)
    many = {f"f{n}": 1 for n in range(500)}
    found = running.call("/v1/chat/completions", {"model": "echo", **many}, running.alice)[2]
    assert "at most 200" in found["error"]["message"]


# 17: what an upstream may run, load or reach


HOSTILE = [
    "custom_logit_processor", "Custom_Logit_Processor", "logits_processors", "logits_processor",
    "extra_body", "Extra_Body", "extraBody", "extra-body", "extra_args", "extra_query", "extra_headers", "vllm_xargs",
    "chat_template", "chatTemplate", "chat_template_path", "lora", "lora_path", "lora_request", "lora_name",
    "adapter_id", "kv_transfer_params", "bootstrap_host", "bootstrap_port", "bootstrap_room", "routed_dp_rank",
    "data_parallel_rank",
    "session_params", "session_id", "rid", "request_id", "priority", "input_ids", "input_embeds", "prompt_embeds",
    "mm_processor_kwargs", "media_io_kwargs", "multimodal_data", "image_data", "images_config", "return_hidden_states",
    "regex", "ebnf", "stop_regex", "grammar", "grammar_lazy", "structured_outputs", "structural_tag", "guided_regex",
    "guided_grammar", "guided_decoding_backend", "guided_whitespace_pattern", "use_beam_search", "id_slot", "slot_id",
    "api_base", "base_url", "api_key", "custom_llm_provider", "litellm_params", "litellm_metadata", "mock_response",
    "callbacks", "success_callback", "api_version", "num_ctx", "mcp_servers", "container", "safety_model", "x",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_fields_that_are_not_known_are_refused(name):
    """By any spelling: what is passed is on a list."""
    for operation in KNOWN:
        with pytest.raises(Refused, match=re.escape(f'add "{name}" to allow_fields')) as refused:
            check_fields({"model": "m", name: 1}, operation, frozenset())
        assert (refused.value.status, refused.value.code) == (400, "field_not_allowed")
        check_fields({"model": "m", name: 1}, operation, frozenset([name]))


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"chat_template_kwargs": {"chat_template": "{{ x }}"}}, "chat_template_kwargs.chat_template"),
        ({"chat_template_kwargs": {"tokenize": True}}, "chat_template_kwargs.tokenize"),
        ({"chat_template_kwargs": {"thinking": {"a": 1}}}, "chat_template_kwargs.thinking"),
        ({"response_format": {"type": "regex", "value": "(a+)+$"}}, "response_format.regex"),
        ({"response_format": {"type": "structural_tag"}}, "response_format.structural_tag"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.grammar"),
        ({"tools": [{"type": "mcp", "server_url": "http://10.0.0.1"}]}, "tools.mcp"),
        ({"tools": [{"type": "mcp_toolset", "mcp_server_name": "x"}]}, "tools.mcp_toolset"),
        ({"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]}, "tools.code_interpreter"),
        ({"tools": [{"type": "code_execution_20250825", "name": "x"}]}, "tools.code_execution_20250825"),
        ({"tools": [{"type": "shell"}]}, "tools.shell"),
        ({"tools": [{"code_execution": {}}]}, "tools.code_execution"),
        ({"tools": [{"type": "namespace", "tools": [{"type": "mcp"}]}]}, "tools.mcp"),
        ({"tools": [{"type": "advisor_20260301", "model": "dear"}]}, "tools.advisor_20260301"),
    ],
)
def test_known_fields_hold_what_is_known(body, name):
    operation = "responses" if "text" in body else "chat"
    with pytest.raises(Refused, match=re.escape(f'add "{name}" to allow_fields')):
        check_fields(body, operation, frozenset())
    if not isinstance(body.get("chat_template_kwargs", {}).get("thinking"), dict):
        check_fields(body, operation, frozenset([name]))


def test_the_setting_is_the_upstreams(tmp_path):
    with Upstream() as upstream:
        text = toml([("one", upstream.url, ["echo"], 'allow_fields = ["priority", "tools.shell"]')])
        with Running(tmp_path, text) as running:
            key = running.key("all:10000")
            body = {"model": "echo", "messages": HI, "max_tokens": 5}
            assert running.call("/v1/chat/completions", {**body, "priority": 3}, key)[0] == 200
            assert upstream.requests[-1][1]["priority"] == 3
            found = running.call("/v1/chat/completions", {**body, "custom_logit_processor": "x"}, key)[2]
            assert 'add "custom_logit_processor" to allow_fields of the upstream' in found["error"]["message"]
            assert upstream.calls == 1


def _documented():
    """(operation, field) of every field that the installed SDKs document; not those that become headers."""
    openai, anthropic = pytest.importorskip("openai"), pytest.importorskip("anthropic")
    del openai, anthropic
    from anthropic.types import message_create_params as messages
    from anthropic.types.beta import message_create_params as beta
    from openai.types import completion_create_params as completions
    from openai.types import embedding_create_params as embeddings
    from openai.types.chat import completion_create_params as chat
    from openai.types.responses import response_create_params as responses

    modules = [
        ("chat", chat.CompletionCreateParamsStreaming),
        ("completions", completions.CompletionCreateParamsStreaming),
        ("responses", responses.ResponseCreateParamsStreaming),
        ("messages", messages.MessageCreateParamsStreaming),
        ("messages", beta.MessageCreateParamsStreaming),
        ("embeddings", embeddings.EmbeddingCreateParams),
    ]
    for operation, params in modules:
        for name in _annotations(params):
            if name not in ("betas", "user_profile_id", "workspace_id"):
                yield operation, name


def _annotations(params):
    return sorted({name for kind in params.__orig_bases__ for name in getattr(kind, "__annotations__", {})}
                  | set(params.__annotations__))  # fmt: skip


def test_every_documented_field_is_known_or_refused_on_purpose():
    refused = {"mcp_servers", "container"}  # connect to what a request names; run code
    found = list(_documented())
    assert len(found) > 100
    assert {name for operation, name in found if name not in KNOWN[operation]} == refused


def test_a_thread_that_the_provider_holds_is_input_that_is_not_shown():
    body = {"model": "m", "max_tokens": 5, "messages": HI, "thread": {"type": "continue", "previous_message_id": "m"}}
    with pytest.raises(Refused, match="give max_input") as refused:
        prepare(Ask("messages", json.dumps(body).encode(), KEY), MODEL, METERING, "anthropic")
    assert refused.value.code == "not_bounded"


# what real clients send beside the documented fields


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        ("chat", {"usage": {"include": True}, "transforms": ["middle-out"], "include_reasoning": True}),  # Cline
        ("chat", {"stream_options": {"include_usage": True}, "parallel_tool_calls": True, "top_k": 20, "min_p": 0.0}),
        ("chat", {"chat_template_kwargs": {"enable_thinking": False}, "repetition_penalty": 1.1, "seed": 1}),
        ("chat", {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"extra_body": {}}}}]}),
        ("responses", {"include": ["reasoning.encrypted_content"], "store": False, "prompt_cache_key": "x",
                       "tools": [{"type": "local_shell"}, {"type": "custom", "name": "apply_patch",
                                 "format": {"type": "grammar", "syntax": "lark", "definition": "start: x"}}]}),  # Codex
        ("messages", {"metadata": {"user_id": "u"}, "thinking": {"type": "adaptive"}, "temperature": 1,
                      "output_config": {"effort": "high"}, "context_management": {"edits": []},
                      "tools": [{"name": "Bash", "input_schema": {}}, {"type": "bash_20250124", "name": "bash"},
                                {"type": "text_editor_20250728", "name": "e"}]}),  # Claude Code
    ],
)  # fmt: skip
def test_what_clients_send_beside_is_known(operation, body):
    check_fields({"model": "m", **body}, operation, frozenset())


# addresses


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd", "/etc/passwd", "C:\\x", "ftp://example.com/x", "gs://b/x", "s3://b/x", "FILE:/etc/passwd",
        "http://localhost/x", "http://127.0.0.1/x", "http://169.254.169.254/latest/meta-data", "http://[::1]/x",
        "http://10.0.0.7/x", "http://192.168.1.1", "http://2130706433/", "http://0x7f.1/", "http://0177.0.0.1/",
        "http://metadata.google.internal/x", "http://vllm:8000/x", "http://x.svc.cluster.local", "http://a.localhost",
        "http://127.0.0.1.nip.io/", "http://[::ffff:10.0.0.1]/", "http://example.com\\@10.0.0.1/", "http:///x", "x",
        "http://user@127.0.0.1/", "http://localhost./", "http://\uff4cocalhost/", " http://10.0.0.1/",
    ],
)  # fmt: skip
def test_addresses_inside_are_refused(address):
    """Even where public hosts are allowed, in every place where a server would take them for a picture."""
    parts = [
        {"type": "image_url", "image_url": {"url": address}}, {"type": "image_url", "image_url": address},
        {"type": "input_image", "image_url": address}, {"type": "image", "source": {"type": "url", "url": address}},
        {"type": "video_url", "video_url": {"url": address}}, {"type": "input_file", "file_url": address},
        {"image_url": address}, {"type": "tool_result", "content": [{"type": "image_url", "image_url": address}]},
        {"type": "image", "image": address},
    ]  # fmt: skip
    for part in parts:
        for body in ({"messages": [{"content": [part]}]}, {"input": [{"role": "user", "content": [part]}]},
                     {"input": [part]}, {"system": [part]}):  # fmt: skip
            with pytest.raises(Refused) as refused:
                check_addresses(body, ("*",))
            assert refused.value.code == "address_not_allowed"


def test_addresses_outside_are_for_upstreams_outside():
    public_one = {"type": "image_url", "image_url": {"url": "https://Images.Example.com/x.png?y"}}
    body = {"messages": [{"role": "user", "content": [public_one]}]}
    check_addresses(body, ("*",))
    check_addresses(body, ("images.example.com",))
    with pytest.raises(Refused, match=r'add "images\.example\.com" to media_hosts'):
        check_addresses(body, ())
    inside = json.loads(json.dumps(body).replace("https://Images.Example.com", "http://minio:9000"))
    check_addresses(inside, ("minio",))
    for part in (
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "https://x is a site"}},
        {"type": "file", "file": {"file_id": "f", "filename": "a.pdf"}},
        {"type": "text", "text": "look at http://10.0.0.1/"},
    ):
        check_addresses({"messages": [{"content": [part]}]}, ())


def test_hosts_of_the_internet():
    assert all(map(public, ("example.com", "EXAMPLE.com", "a-b.co.uk", "xn--p1ai.xn--p1ai", "8.8.8.8")))
    assert not any(
        map(public, ("", "x", "10.1.2.3", "127.1", "::1", "a..b", "-a.com", "a" * 300 + ".com", "224.0.0.1"))
    )


@pytest.mark.parametrize(
    ("url", "more", "expected"),
    [
        ("https://api.openai.com/v1", "", ("*",)), ("http://127.0.0.1:8000/v1", "", ()),
        ("http://vllm:8000/v1", "", ()), ("http://example.com/v1", "", ()), ("https://10.0.0.1/v1", "", ()),
        ("http://vllm:8000/v1", 'media_hosts = ["Images.example.com"]', ("images.example.com",)),
    ],
)  # fmt: skip
def test_only_upstreams_outside_fetch_pictures(tmp_path, url, more, expected):
    from budgeteer.gateway.config import load

    (tmp_path / "g.toml").write_text(toml([("one", url, ["m"], more)]))
    assert load(tmp_path / "g.toml", {}).upstreams[0].models[0].media == expected


def test_a_prepared_request_was_looked_at():
    body = {"model": "m", "max_tokens": 5, "messages": [{"content": [{"type": "image_url", "image_url": "file:///x"}]}]}
    with pytest.raises(Refused, match="data: URL"):
        prepare(Ask("chat/completions", json.dumps(body).encode(), KEY), MODEL, METERING, "openai")
