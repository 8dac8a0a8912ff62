"""The gateway over real sockets: what is passed on, charged, refused; clients and upstreams that misbehave."""

from __future__ import annotations

import json

import pytest

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)

from gateway_fixture import Running, toml  # noqa: E402
from upstream import Upstream, echo  # noqa: E402

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
