"""The gateway's admin API, metrics and log: what a dashboard and an operator see, and what nobody may see."""

from __future__ import annotations

import csv
import http.client
import io
import json

import pytest

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)

from helpers.gateway_fixture import Running, toml  # noqa: E402
from helpers.upstream import Upstream, echo, hang_up  # noqa: E402

HI = [{"role": "user", "content": "a secret prompt"}]


def ask(**more):
    return {"model": "echo", "messages": HI, "max_tokens": 20, **more}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A gateway after some traffic: two keys, labels, a refusal, a failure."""
    with Upstream(other=echo(words=9), bad=hang_up) as upstream:
        folder = tmp_path_factory.mktemp("admin")
        (folder / "p.toml").write_text('[models."*"]\ninput = 1\noutput = 2\n')
        text = toml([("one", upstream.url, ["echo", "other", "bad"], 'key_env = "UPSTREAM_KEY"')],
                    kinds='["all", "money"]', server="retries = 0")  # fmt: skip
        text = text.replace("shipped = false", 'shipped = false\nfiles = ["p.toml"]')
        with Running(folder, text) as found:
            found.keys = [found.key("all:5000", "$1/day", path=f"acme/{team}", name=team) for team in ("red", "blue")]
            about = {"x-budgeteer-stage": "plan", "x-budgeteer-session": "s1", "x-budgeteer-user": "ann"}
            for key, body, headers in (
                (found.keys[0], ask(), about), (found.keys[0], ask(stream=True), {"x-budgeteer-stage": "=act"}),
                (found.keys[1], ask(model="other"), {}), (found.keys[1], ask(model="bad"), {}),
                (found.keys[1], ask(max_tokens=49, n=1000), {}), ("nobody", ask(), {}),
            ):  # fmt: skip
                found.call("/v1/chat/completions", body, key, headers=headers)
            found.records = found.settled(5)
            yield found


def test_spend_by_anything(running):
    def spend(query):
        return running.admin(f"spend?{query}")["rows"]

    lost = next(one for one in running.records if one["model"] == "bad")
    by_model = {row["model"]: row["units"] for row in spend("by=model")}
    assert by_model == {"echo": 24, "other": 16, "bad": lost["reserved"]["all"]}
    assert sum(row["units"] for row in spend("by=scope")) == running.spent()
    assert sum(row["units"] for row in spend("by=key&kind=money")) == running.spent(kind="money")
    assert {row["stage"]: row["units"] for row in spend("by=stage&path=acme/red")} == {"plan": 12, "=act": 12}
    assert [(row["user"], row["units"]) for row in spend("by=user&kind=output&user=ann")] == [("ann", 5)]
    (row,) = spend("by=time&step=86400&kind=wasted")
    assert (row["units"], row["requests"], row["refused"]) == (lost["wasted"], 5, 1)
    assert row["time"] % 86_400_000 == 0
    rows = spend("by=time,model&kind=requests")
    assert sorted((row["model"], row["units"]) for row in rows) == [("bad", 1), ("echo", 2), ("other", 1)]
    for wrong in ("by=digest", "by=", "kind=x", "kind=units,'", "step=0", "step=x", "since=-1"):
        assert running.call(f"/admin/api/spend?{wrong}")[0] == 400


def test_records_page_by_page_one_by_one_and_as_csv(running):
    first = running.admin("requests?limit=4")
    rest = running.admin(f"requests?limit=4&before={first['next']}")
    assert [one["id"] for one in first["requests"] + rest["requests"]] == [one["id"] for one in running.records[::-1]]
    one = running.records[0]
    assert running.admin(f"requests/{one['id']}")["request"] == one
    assert (one["stage"], one["session"], one["user"], one["status"], one["attempts"]) == ("plan", "s1", "ann", 200, 1)
    assert running.call("/admin/api/requests/none")[0] == 404
    refused = running.admin("requests?refused=1")["requests"]
    assert [one["reason"] for one in refused] == ["budget_exceeded"]
    assert running.admin("requests?since=99999999999999")["requests"] == []
    assert len(running.admin("requests?status=200&path=acme")["requests"]) == 3
    rows = list(csv.DictReader(io.StringIO(running.call("/admin/api/requests.csv")[2].decode())))
    assert len(rows) == 5
    assert sum(int(row["units_all"]) for row in rows) == running.spent()
    assert "'=act" in [row["stage"] for row in rows]  # no formula for a spreadsheet


def test_the_summary_adds_up(running):
    found = running.admin("summary")
    records = running.records
    for name in ("input", "output", "wasted"):
        assert found[name] == sum(one[name] for one in records)
    assert (found["requests"], found["refused"], found["failed"], found["estimated"]) == (5, 1, 1, 1)
    assert found["turned_away"] == {"invalid_api_key": 1}  # who has no key has no record
    assert found["money"] == running.spent(kind="money")
    assert (found["overshoot"], found["live"]) == ({}, 0)
    (upstream,) = running.admin("upstreams")["upstreams"]
    assert (upstream["name"], upstream["failures"], upstream["live"]) == ("one", 1, 0)


def test_balances_of_a_key(running):
    name = running.keys[0].split("-")[1]
    found = running.admin(f"keys/{name}")
    assert found["key"]["name"] == "red"
    assert "digest" not in found["key"]
    rows = {(row["kind"], row["window"]): row for row in found["balances"]}
    assert (rows["all", ""]["settled"], rows["all", ""]["left"], rows["all", ""]["reserved"]) == (24, 4976, 0)
    assert rows["money", "day"]["limit"] == 10**12
    assert rows["money", "day"]["resets"] % 86_400_000 == 0
    paths = {row["path"] for row in running.admin("balances?path=acme")["balances"]}
    assert {"acme", "acme/red", "acme/blue", f"acme/red/{name}"} <= paths
    assert running.admin("balances?path=nowhere")["balances"] == []
    assert len(running.admin("keys")["keys"]) == 2
    assert running.call("/admin/api/keys/none")[0] == 404
    assert running.call("/admin/api/keys/none/revoke", {})[0] == 404
    assert running.call("/admin/api/keys", b"{")[0] == 400
    assert running.call("/admin/api/keys", {"path": "a", "limit": ["5"]})[0] == 400


def test_metrics(running):
    status, _, text = running.call("/metrics")
    assert status == 200
    lines = dict(line.rsplit(" ", 1) for line in text.decode().splitlines() if not line.startswith("#"))
    about = 'model="echo",operation="chat"'
    assert float(lines[f'budgeteer_requests_total{{{about},outcome="ok",status="200",upstream="one"}}']) == 2
    assert float(lines['budgeteer_refused_total{reason="budget_exceeded"}']) == 1
    assert float(lines['budgeteer_refused_total{reason="invalid_api_key"}']) == 1
    assert float(lines['budgeteer_units_total{kind="all"}']) == running.spent()
    assert float(lines["budgeteer_live_requests"]) == 0
    assert running.keys[0].split("-")[1] not in text.decode()


def test_no_prompt_and_no_secret_in_log_store_or_answer(tmp_path, capfd):
    with Upstream() as upstream:
        text = toml([("one", upstream.url, ["echo"], 'key_env = "UPSTREAM_KEY"')]).replace(
            "json = false", "json = true"
        )
        with Running(tmp_path, text) as running:
            key = running.key("all:150")
            answers = [running.call("/v1/chat/completions", ask(max_tokens=n), key) for n in (20, 50)]
            records = running.settled(2)
    logged = capfd.readouterr().err
    lines = [json.loads(line) for line in logged.splitlines() if line.startswith("{")]
    assert lines[0]["event"] == "change"
    assert lines[0]["who"] == "admin"
    lines = lines[1:]
    assert [one["id"] for one in lines] == [one["id"] for one in records]
    assert [one["outcome"] for one in lines] == ["ok", "refused"]
    everything = logged + json.dumps(records) + str([(headers.items(), body) for _, headers, body in answers[1:]])
    for secret in ("secret prompt", key, key.split("-", 2)[2], "sk-upstream"):
        assert secret not in everything


def test_prompts_are_in_the_log_where_that_is_asked_for_and_nowhere_else(tmp_path, capfd):
    pytest.importorskip("redis")
    from helpers import redis_server

    if redis_server.SERVER is None:
        pytest.skip("no redis-server")
    server = redis_server.RedisServer()
    try:
        with Upstream(cut=echo(cut_after=2)) as upstream:
            text = toml([("one", upstream.url, ["echo", "cut"], "")], ledger=server.url, extra="[policies.cache]")
            with Running(tmp_path, text.replace("json = false", "json = true\nprompts = true")) as running:
                key = running.key("all:900")
                bodies = [ask(temperature=0), ask(temperature=0), ask(stream=True), ask(model="cut", stream=True)]
                for body in (*bodies, ask(n=1000)):
                    running.call("/v1/chat/completions", body, key)
                running.call("/v1/responses", {"model": "echo", "input": "a secret prompt", "instructions": "Be."}, key)
                body = {"model": "echo", "max_tokens": 2, "system": "Be.", "messages": HI}
                running.call("/v1/messages", body, key)
                running.call("/v1/chat/completions", ask(), "bk-0000000000000000-" + "x" * 43)
                records = running.settled(7)
                shown = running.call("/admin/api/requests")[2], running.call("/metrics")[2].decode()
            import redis

            with redis.Redis.from_url(server.url) as client:
                client.config_set("rdbcompression", "no")
                kept = str([client.dump(name) for name in client.keys("*")])
    finally:
        server.stop()
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    lines = [one for one in lines if one["event"] == "request"]
    assert {one["id"] for one in lines} == {one["id"] for one in records}
    assert lines[0]["id"] in kept
    lines.sort(key=lambda one: int(one["id"].rpartition("-")[2]))  # as they were made, not as they were booked
    records.sort(key=lambda one: int(one["id"].rpartition("-")[2]))
    assert [one.get("asked") for one in lines] == [
        *[{"messages": HI}] * 4, None, {"input": "a secret prompt", "instructions": "Be."},
        {"system": "Be.", "messages": HI},
    ]  # fmt: skip
    five, streamed = "word word word word word", "word word word word word "
    assert [one.get("answer") for one in lines] == [
        [five], [five], [streamed], ["word word "], None, [five], ["word word"],
    ]  # fmt: skip
    assert [one["input"] for one in lines] == [one["input"] for one in records]  # tokens, as ever
    for text in ("secret prompt", "word word"):
        assert text not in str(records) + str(shown) + kept


def test_without_an_admin_key_there_is_no_admin(tmp_path):
    from budgeteer.gateway.config import load

    with Upstream() as upstream, Running(tmp_path, toml([("one", upstream.url, ["echo"], "")])) as running:
        running.do(running.gateway.renew(load(tmp_path / "gateway.toml", {})))
        for given in ("", "x"):
            assert running.call("/admin/api/keys", None, given)[2]["error"]["code"] == "admin_off"
            assert running.call("/metrics", None, given)[0] == 403


def test_settlements_become_spans(tmp_path, monkeypatch):
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.trace import SpanKind, StatusCode

    spans, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr(trace, "get_tracer", lambda name, **_: provider.get_tracer(name))
    with Upstream() as upstream:
        text = toml([("one", upstream.url, ["echo"], "")]).replace("json = false", "opentelemetry = true\njson = false")
        with Running(tmp_path, text) as running:
            key = running.key("all:900")
            running.call("/v1/chat/completions", ask(), key)
            # one connection, so that one request's parent could be taken for the next one's
            link = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
            for n, (body, token) in enumerate(
                [(ask(), key), (ask(n=1000), key), (ask(stream=True), key), (ask(), "x")]
            ):
                parent = {} if n == 2 else {"traceparent": f"00-{n + 1:032x}-{n + 17:016x}-01"}
                link.request(
                    "POST", "/v1/chat/completions", json.dumps(body), {"authorization": f"Bearer {token}", **parent}
                )
                link.getresponse().read()
            link.close()
            running.settled(4)
    span, child, refused, other = spans.get_finished_spans()
    assert (span.parent, other.parent) == (None, None)
    for n, one in ((0, child), (1, refused)):
        assert (one.parent.span_id, one.parent.trace_id, one.context.trace_id) == (n + 17, n + 1, n + 1)
    assert (refused.kind, refused.status.status_code) == (SpanKind.SERVER, StatusCode.ERROR)
    assert refused.end_time >= refused.start_time
    assert dict(refused.attributes) == {
        "gen_ai.operation.name": "chat", "gen_ai.request.model": "echo", "budgeteer.outcome": "refused",
        "error.type": "budget_exceeded", "http.response.status_code": 402,
    }  # fmt: skip
    assert span.attributes["gen_ai.usage.output_tokens"] == 5
    assert span.attributes["budgeteer.settled.all"] == 12
    assert span.end_time > span.start_time
