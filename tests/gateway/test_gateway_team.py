"""What people see of their budgets: refusals in their units, headers, /v1/budget, limits of models, rotated keys."""

from __future__ import annotations

import re

import pytest

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)

from helpers.gateway_fixture import Running, toml  # noqa: E402
from helpers.upstream import Upstream, echo, error  # noqa: E402

PRICES = '[models."*"]\ninput = 2.50\noutput = 10\n'


@pytest.fixture(scope="module")
def upstream():
    with Upstream(other=echo(), third=echo(), broken=error(500)) as found:
        yield found


@pytest.fixture(scope="module")
def running(upstream, tmp_path_factory):
    folder = tmp_path_factory.mktemp("team")
    (folder / "prices.toml").write_text(PRICES)
    served = [("one", upstream.url, ["echo", "other", "third", "broken"], "")]
    text = toml(served, kinds='["all", "money"]').replace("shipped = false", 'shipped = false\nfiles = ["prices.toml"]')
    with Running(folder, text) as found:
        yield found


def chat(running, key, model="echo", **more):
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20, **more}
    return running.call("/v1/chat/completions", body, key)


# refusals in people's units


def test_a_refusal_says_dollars_and_when_there_is_room(running):
    key = running.key("$0.0005/day", path="dollars")
    assert chat(running, key)[0] == 200  # 7 and 5 tokens: $0.0000675
    status, headers, found = chat(running, key)
    said = found["error"]["message"]
    assert status == 402
    shown = re.search(
        r"\$0\.000432 left of \$0\.0005/day, this request may cost (\$0\.\d+) \(\$0\.0000675 used, ", said
    )
    assert float(shown[1][1:]) >= found["error"]["budget"]["requested"] / 10**12 > 0.0004325
    assert "there is room again at 20" in said
    assert (headers["x-should-retry"], 0 < int(headers["retry-after"]) <= 86_400) == ("false", True)
    assert found["error"]["budget"]["left"] == 432_500_000
    assert found["error"]["budget"]["window"] == "day"


def test_a_refusal_says_tokens_and_that_waiting_does_not_help(running):
    status, headers, found = chat(running, running.key("all:50/day", path="tokens"))
    said = found["error"]["message"]
    assert status == 402
    assert re.search(r"50 tokens left of 50/day, this request may use \d+ \(0 tokens used", said)
    assert "more than the whole limit" in said
    assert " all" not in said
    assert headers["retry-after"] is None
