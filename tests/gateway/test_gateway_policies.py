"""The gateway's policies: what each does to a request, and what it says about it."""

from __future__ import annotations

import asyncio
import importlib
import sys
from types import SimpleNamespace

import pytest

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)

from budgeteer.core.errors import InvalidInput  # noqa: E402
from budgeteer.gateway.app import Gateway, policies_of  # noqa: E402
from budgeteer.gateway.config import load  # noqa: E402
from budgeteer.gateway.policies import last_answer, loop  # noqa: E402
from budgeteer.gateway.refusal import Refused  # noqa: E402
from helpers import theirs  # noqa: E402
from helpers.gateway_fixture import Running, toml  # noqa: E402
from helpers.upstream import Upstream, echo, error, hang, hang_up  # noqa: E402

HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def upstream():
    with Upstream(dear=echo(), cheap=echo(), long=echo(words=10**6)) as found:
        yield found


def policy(tmp_path, upstream, extra, cap=50):
    models = ["dear", "cheap", "long"]
    return Running(tmp_path, toml([("one", upstream.url, models, "")], extra=extra, cap=cap))


def ask(**more):
    return {"model": "dear", "messages": HI, "max_tokens": 50, **more}


def call(running, key, body, route="chat/completions", **labels):
    """Status, what policies did, the answer."""
    about = {f"x-budgeteer-{name}": value for name, value in labels.items()}
    status, headers, found = running.call(f"/v1/{route}", body, key, headers=about)
    return status, headers.get("x-budgeteer-policy"), found


def test_tighten_lowers_the_cap_to_what_is_left(tmp_path, upstream):
    with policy(tmp_path, upstream, "[policies.tighten]\nleast = 8") as running:
        key = running.key("all:150")
        assert call(running, key, ask())[:2] == (200, None)
        running.settled()
        status, did, found = call(running, key, ask(model="long"))
        sent = upstream.requests[-1][1]["max_tokens"]
        assert (status, did, found["usage"]["completion_tokens"]) == (200, f"tighten={sent}", sent)
        (_, record) = running.settled()
        assert record["reserved"]["all"] == 150 - 12  # all that was left, to the token
        assert record["policy"] == did
        assert call(running, key, ask())[0] == 402
        key = running.key("all:9000", max_output=20)  # above the key's cap it is lowered as well
        assert call(running, key, ask(model="long"))[2]["usage"]["completion_tokens"] == 20


def test_tighten_with_prices_finds_the_largest_cap(tmp_path, upstream):
    (tmp_path / "p.toml").write_text('[models."long"]\ninput = 1\noutput = 3.5\n')
    extra = "[policies.tighten]\nleast = 1"
    text = toml([("one", upstream.url, ["long"], "")], extra=extra, kinds='["money"]')
    text = text.replace("shipped = false", 'shipped = false\nfiles = ["p.toml"]')
    with Running(tmp_path, text) as running:
        body = ask(model="long")
        import json

        size = len(json.dumps(body).encode()) + 10
        limit = size * 10**6 + 33 * 3_500_000 + 3_400_000  # 33 tokens, and most of another
        key = running.key(f"money:{limit}")
        assert call(running, key, body)[1] == "tighten=33"
        (record,) = running.settled()
        assert record["units"]["money"] == 7 * 10**6 + 33 * 3_500_000


def test_downgrade_acts_at_its_threshold(tmp_path, upstream):
    extra = '[policies.downgrade]\nabove = 0.5\n[policies.downgrade.models]\ndear = "cheap"'
    with policy(tmp_path, upstream, extra) as running:
        for path, models, did, served in (
            ("a", ["*"], "downgrade=cheap", "cheap"), ("b", ["dear", "long"], None, "dear"),
        ):  # fmt: skip
            key = running.key("all:300", path=path, models=models)
            for _ in range(3):  # 57 each
                call(running, key, ask(model="long"))
                running.settled()
            running.gateway.proxy.booking._remaining.clear()
            status, found, _ = call(running, key, ask(max_tokens=9))
            assert (status, found, upstream.requests[-1][1]["model"]) == (200, did, served)
        of_a = [one["model"] for one in running.settled() if one["path"].startswith("a/")]
        assert of_a == ["long", "long", "long", "cheap"]


def router(tmp_path, method="classifier:penalty=0.1", **columns):
    """One that calls "dear" where the prompt says hard, in a file."""
    import numpy as np

    from budgeteer.route.saved import fitted, save
    from budgeteer.route.table import Table

    hard = np.arange(40) % 2
    prompts = tuple(f"a {'hard' if one else 'plain'} question" for one in hard)
    score, cost = np.stack([1.0 - hard, np.ones(40)], axis=1), np.tile([1.0, 9.0], (40, 1))
    made = Table(("cheap", "dear"), score, cost, np.tile([0.5, 0.5], (40, 1)), {"prompt": prompts, **columns})
    save(fitted(method, made, 5.5), tmp_path / "router.json")
    return tmp_path / "router.json"


def test_a_router_chooses_by_the_last_text_and_cheaper_as_the_budget_is_spent(tmp_path, upstream):
    file = router(tmp_path)
    with policy(tmp_path, upstream, f'[policies.route]\nfile = "{file}"') as running:
        key = running.key("all:1000")

        def did(text, model="dear", key=key, **more):
            said = [{"role": "system", "content": "a plain answer"}, {"role": "user", "content": text}]
            status, notes, _ = call(running, key, ask(model=model, messages=said, max_tokens=9, **more))
            assert status == 200
            return notes, upstream.requests[-1][1]["model"]

        assert did("a hard question") == (None, "dear")
        assert did("a plain question") == ("route=cheap", "cheap")
        assert did("a hard question", "cheap") == ("route=dear", "dear")
        assert did("a plain question", "long") == (None, "long")  # none of the router's
        only = running.key("all:1000", models=["dear"])
        assert did("a plain question", key=only) == (None, "dear")  # the key may not call the other
        little = running.key("all:300", path="b")
        for _ in range(3):  # 57 each
            call(running, little, ask(model="long"))
            running.settled()
        running.gateway.proxy.booking._remaining.clear()
        hard = [{"role": "user", "content": "a hard question"}]
        assert call(running, little, ask(messages=hard, max_tokens=9))[:2] == (200, "route=cheap")
    (chosen,) = [each for name, each in running.gateway.proxy.policies if name == "route"]
    prices = [chosen.price(spent) for spent in (0.0, 0.5, 0.9, 1.0)]
    assert prices[0] == chosen.router.price
    assert prices[1] == pytest.approx(prices[0] + 1 / 8)  # a score more for the whole difference of the costs
    assert prices == sorted(prices)
    assert chosen.router.choose({"prompt": ["a hard question"]}, prices[3]).tolist() == [0]


def test_routers_that_a_policy_cannot_use(tmp_path):
    for made, what in (
        (router(tmp_path, "cascade"), "looks at an answer before it chooses"),
        (router(tmp_path, size=tuple(map(float, range(40)))), "fit it with --ignore"),
        (tmp_path / "gone.json", "cannot read a router"),
    ):
        text = toml([("one", "http://127.0.0.1:9", ["m"], "")], extra=f'[policies.route]\nfile = "{made}"')
        if made.exists():
            router(tmp_path, **({"method": "cascade"} if "answer" in what else {"size": tuple(map(float, range(40)))}))
        (tmp_path / "g.toml").write_text(text)
        with pytest.raises(InvalidInput, match=what):
            policies_of(load(tmp_path / "g.toml", {}))


def test_a_router_of_whose_models_fewer_than_two_are_served_is_refused(tmp_path):
    file = router(tmp_path)
    extra = f'[policies.route]\nfile = "{file}"'
    for served, why in ((["m"], "serve none"), (["m", "cheap"], "serve cheap")):
        (tmp_path / "g.toml").write_text(toml([("one", "http://127.0.0.1:9", served, "")], extra=extra))
        with pytest.raises(
            InvalidInput, match=f"chooses among cheap, dear, of which the upstreams {why}: there is noth"
        ):
            policies_of(load(tmp_path / "g.toml", {}))
    (tmp_path / "g.toml").write_text(toml([("one", "http://127.0.0.1:9", ["cheap", "dear"], "")], extra=extra))
    both = load(tmp_path / "g.toml", {})
    made = policies_of(both)
    assert list(made) == ["route"]
    (tmp_path / "g.toml").write_text(toml([("one", "http://127.0.0.1:9", ["cheap"], "")], extra=extra))
    with pytest.raises(InvalidInput, match="there is nothing to choose"):  # after a reload, too
        policies_of(load(tmp_path / "g.toml", {}), {"route": (both.policies["route"], made["route"])})


def test_a_router_chooses_for_a_request_without_text(tmp_path, upstream):
    with policy(tmp_path, upstream, f'[policies.route]\nfile = "{router(tmp_path)}"') as running:
        key = running.key("all:1000")
        empty = [{"role": "user", "content": ""}]
        status, notes, _ = call(running, key, ask(model="dear", messages=empty, max_tokens=9))
        assert (status, upstream.requests[-1][1]["model"]) == (200, "cheap" if notes else "dear")


def test_a_cheaper_model_that_makes_less_lowers_the_cap(tmp_path, upstream):
    """The same request is served before and after the threshold; above what the model asked for makes it is refused."""
    extra = '[policies.downgrade]\nabove = 0.5\n[policies.downgrade.models]\nlong = "cheap"'
    text = toml([("one", upstream.url, ["dear", "cheap", "long"], "")], extra=extra)
    with Running(
        tmp_path, text.replace('name = "cheap"\nmax_output = 50', 'name = "cheap"\nmax_output = 3')
    ) as running:
        key = running.key("all:300")
        for _ in range(3):  # 57 each
            assert call(running, key, ask(model="long"))[:2] == (200, None)
            running.settled()
        running.gateway.proxy.booking._remaining.clear()
        status, did, found = call(running, key, ask(model="long"))
        assert (status, did, found["usage"]["completion_tokens"]) == (200, "downgrade=cheap,cap=3", 3)
        status, did, found = call(running, key, ask(model="long", max_tokens=51))
        assert (status, found["error"]["code"], "long may make 50 here" in found["error"]["message"]) == (
            400, "output_too_large", True,
        )  # fmt: skip
        assert "max_output of this model in the gateway's TOML file" in found["error"]["message"]
        small = running.key("all:300", max_output=20)
        found = call(running, small, ask(model="long", max_tokens=21))[2]
        assert "this key may make 20 (max_output of the key)" in found["error"]["message"]


def test_a_schedule_shortens_answers_and_lowers_effort(tmp_path, upstream):
    extra = '[policies.schedule]\nmax_tokens = [[0, 40], [0.5, 4]]\neffort = [[0, "high"], [0.5, "low"]]'
    with policy(tmp_path, upstream, extra) as running:
        key = running.key("all:275")
        body = ask(model="long", reasoning_effort="high")
        assert call(running, key, body)[1] == "max_tokens=40"
        for _ in range(2):
            call(running, key, ask(model="long"))
            running.settled()
        running.gateway.proxy.booking._remaining.clear()
        status, did, found = call(running, key, body)
        assert (status, did, found["usage"]["completion_tokens"]) == (200, "max_tokens=4,effort=low", 4)
        assert upstream.requests[-1][1]["reasoning_effort"] == "low"


@pytest.mark.parametrize(
    ("route", "named", "sent"),
    [
        ("messages", {"output_config": {"effort": "max", "a": 1}}, {"output_config": {"effort": "low", "a": 1}}),
        ("messages", {"output_config": {"effort": "low"}}, {"output_config": {"effort": "low"}}),
        ("chat/completions", {"reasoning": {"effort": "high"}, "reasoning_effort": "high"},
         {"reasoning": {"effort": "minimal"}, "reasoning_effort": "minimal"}),
        ("chat/completions", {"reasoning_effort": "utmost"}, {"reasoning_effort": "minimal"}),
        ("chat/completions", {"reasoning_effort": "none"}, {"reasoning_effort": "none"}),
    ],
)  # fmt: skip
def test_a_schedule_lowers_whatever_effort_is_named(tmp_path, upstream, route, named, sent):
    with policy(tmp_path, upstream, '[policies.schedule]\neffort = [[0, "minimal"]]') as running:
        key = running.key("all:9000")
        assert call(running, key, ask(**named), route)[0] == 200
        assert {name: upstream.requests[-1][1][name] for name in sent} == sent


def test_the_cache_answers_the_same_request_of_the_same_key(tmp_path, upstream):
    with policy(tmp_path, upstream, "[policies.cache]\nentries = 2") as running:
        key, other = running.key("all:5000"), running.key("all:5000")
        calls = upstream.calls
        first = call(running, key, ask(temperature=0))
        again = call(running, key, dict(reversed(ask(temperature=0).items())))  # in another order
        assert (first[:2], again[:2], again[2]) == ((200, None), (200, "cache"), first[2])
        assert upstream.calls == calls + 1
        others = (ask(), ask(temperature=1), ask(temperature=0, stream=True), ask(temperature=0, max_tokens=3))
        for one, body in [(other, ask(temperature=0)), *((key, body) for body in others)]:
            assert call(running, one, body)[:2] == (200, None)
        assert upstream.calls == calls + 6
        hit = [one for one in running.settled() if one["outcome"] == "cached"]
        assert [(one["units"], one["policy"], one["saved"]) for one in hit] == [({}, "cache", {"all": 12})]
        assert running.admin("summary")["saved"] == {"all": 12}
        assert 'budgeteer_saved_units_total{kind="all"} 12.0' in running.call("/metrics")[2].decode()
        assert call(running, key, ask(temperature=0))[1] is None  # two newer ones pushed it out


def test_a_loop_is_stopped(tmp_path, upstream):
    with policy(tmp_path, upstream, "[policies.loop]\ntimes = 3") as running:
        key = running.key("all:5000")
        assert [call(running, key, ask())[0] for _ in range(4)] == [200, 200, 200, 429]
        _, headers, found = running.call("/v1/chat/completions", ask(), key)
        assert (found["error"]["code"], headers["x-should-retry"]) == ("loop_detected", "false")
        assert call(running, key, ask(max_tokens=9))[0] == 200
        made = {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "ls", "arguments": "{}"}}]}
        other = {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "cat", "arguments": "{}"}}]}
        said = {"role": "tool", "tool_call_id": "1", "content": "error"}
        assert call(running, key, ask(messages=[made, said, made, said, other, said, made, said]))[0] == 200
        assert call(running, key, ask(messages=[other, said, made, said, made, said, made, said]))[0] == 429
        used = {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "ls", "input": {}}]}
        body = {"model": "dear", "max_tokens": 9, "messages": [used, *HI, used, *HI, used, *HI]}
        assert call(running, key, body, "messages")[0] == 429


def test_neither_the_cache_nor_a_loop_takes_one_user_for_another(tmp_path, upstream):
    with policy(tmp_path, upstream, "[policies.cache]\n[policies.loop]\ntimes = 2") as running:
        key, same = running.key("all:9000"), ask(temperature=0)
        did = [call(running, key, same, user=user)[1] for user in ("alice", "bob", "alice")]
        assert did == [None, None, "cache"]
        assert call(running, key, {**same, "user": "alice"})[1] is None  # another body
        sampled = ask(max_tokens=9)
        for labels in ({}, {"user": "alice"}, {"user": "bob"}, {"user": "bob", "session": "1"}, {"session": "1"}):
            assert [call(running, key, sampled, **labels)[0] for _ in range(3)] == [200, 200, 429], labels


def test_answers_that_run_to_their_cap_are_reined_in(tmp_path, upstream):
    with policy(tmp_path, upstream, "[policies.overflow]\nwindow = 3\nshare = 0.6\ncap = 6") as running:
        key = running.key("all:9000")
        for _ in range(3):
            assert call(running, key, ask(model="long"))[1] is None
        status, did, found = call(running, key, ask(model="long"))
        assert (status, did, found["usage"]["completion_tokens"]) == (200, "overflow=6", 6)
        assert "concise" in upstream.requests[-1][1]["messages"][-1]["content"]
        record = running.settled()[-1]
        assert record["reserved"]["all"] > record["units"]["all"]
        assert call(running, key, ask())[1] is None  # another model
        assert call(running, running.key("all:9000"), ask(model="long"))[1] is None  # another key


def test_agents_are_asked_for_their_last_answer_while_there_is_budget(tmp_path, upstream):
    tools = [{"type": "function", "function": {"name": "search", "parameters": {}}}]
    with policy(tmp_path, upstream, "[policies.last-answer]\nshare = 0.5", cap=200) as running:
        key = running.key("all:2000")
        assert call(running, key, ask(tools=tools))[:2] == (200, None)
        assert "tool_choice" not in upstream.requests[-1][1]
        while sum(one["units"]["all"] for one in running.settled()) < 1000:
            assert call(running, key, ask(model="long", max_tokens=200))[:2] == (200, None)
        running.gateway.proxy.booking._remaining.clear()  # what it knows may be half a second old
        status, did, _ = call(running, key, ask(tools=tools, tool_choice="auto"))
        body = upstream.requests[-1][1]
        assert (status, did, body["tool_choice"], body["tools"]) == (200, "last-answer", "none", tools)
        assert "without calling tools" in body["messages"][-1]["content"]
        record = running.settled()[-1]
        assert record["reserved"]["all"] >= len(str(body["messages"])) / 4
        assert call(running, key, ask())[1] is None  # no tools, no agent
        assert call(running, running.key("all:9000"), ask(tools=tools))[1] is None  # another key


@pytest.mark.parametrize(
    ("operation", "body", "choice", "told"),
    [
        ("messages", {"tools": [{}], "system": [{"type": "text", "text": "x"}]}, {"type": "none"}, ("system", list)),
        ("messages", {"tools": [{}], "system": "x"}, {"type": "none"}, ("system", str)),
        ("responses", {"tools": [{}]}, "none", ("instructions", str)),
        ("responses", {"tools": []}, None, None),
        ("embeddings", {"tools": [{}]}, None, None),
    ],
)
def test_the_last_answer_is_asked_for_in_the_form_of_each_api(operation, body, choice, told):
    body, notes = dict(body), []
    one = SimpleNamespace(
        operation=operation, body=body, added=0, notes=notes, set=body.__setitem__, chain=(), raw=b"x"
    )

    class Serving:
        async def spent(self, ask):
            return 0.7

    asyncio.run(last_answer(share=0.6, room=2.0).before(one, Serving()))
    assert body.get("tool_choice") == choice
    assert notes == ([] if choice is None else ["last-answer"])
    if told is not None:
        field, kind = told
        assert isinstance(body[field], kind)
        assert "without calling tools" in str(body[field])
        assert one.added > len(str(choice))


@pytest.mark.parametrize(
    ("kind", "size", "acts"), [("all", 149, False), ("all", 151, True), ("input", 151, True), ("money", 151, False)]
)
def test_tools_are_called_while_two_more_requests_of_their_size_fit(kind, size, acts):
    """Of 1,000 tokens 70 % are spent: 300 are left."""
    body, notes = {"tools": [{}]}, []
    limits = (SimpleNamespace(kind=kind, amount=1000), SimpleNamespace(kind="all", amount=None))
    one = SimpleNamespace(
        operation="messages", body=body, added=0, notes=notes, set=body.__setitem__, raw=b"x" * size,
        chain=(("org", None), ("key", limits)),
    )  # fmt: skip

    class Serving:
        async def spent(self, ask):
            return 0.7

    asyncio.run(last_answer(share=0.8, room=2.0).before(one, Serving()))
    assert notes == ["last-answer"] * acts


def test_pace_makes_answers_shorter_while_spending_is_ahead_of_the_clock(tmp_path, upstream):
    """A month's budget asked for at once: full answers first, shorter ones as the price rises; nothing is refused."""
    extra = '[policies.pace]\nwindow = "month"\nrequests = 40\nshares = [1, 0.25]'
    with policy(tmp_path, upstream, extra, cap=400) as running:
        key = running.key("all:4000/month")
        did = [call(running, key, ask(model="long", max_tokens=200))[1] for _ in range(12)]
        assert did[0] is None
        assert did[-1] == "pace=0.25"
        lengths = [body["max_tokens"] for _, body in upstream.requests[-12:]]
        assert set(lengths) == {200, 50}
        (track,) = dict(running.gateway.proxy.policies)["pace"].tracks.values()
        assert track.state.price[0] > 0
        assert track.mean[0] > track.mean[1]
        spent = sum(one["units"]["all"] for one in running.settled())
        # what the pacer believes to be left is what is left; its means correct the plans of each call
        assert track.state.left[0] == pytest.approx(4000 - spent)
        slow = running.key("all:4000", path="unpaced")
        assert call(running, slow, ask(model="long", max_tokens=200))[1] is None


def test_who_is_refused_again_and_again_does_not_use_up_what_is_paced_for_all(tmp_path):
    """The team's month is paced; a key of it that may spend nothing, or whose upstream refuses, takes none of it."""
    extra = '[policies.pace]\nwindow = "month"\nrequests = 40\nshares = [1, 0.25]\n[scopes.team]\n'
    extra += 'limits = ["all:4000/month"]'
    with Upstream(long=echo(words=10**6), full=error(503), lost=hang_up) as upstream:
        text = toml([("one", upstream.url, ["long", "full", "lost"], "")], server="retries = 0", extra=extra, cap=400)
        with Running(tmp_path, text) as running:
            poor, rich = running.key("all:10", path="team"), running.key(path="team")
            for _ in range(60):
                assert call(running, poor, ask(model="long", max_tokens=200))[0] == 402
                assert call(running, rich, ask(model="full", max_tokens=200))[0] == 503
            (track,) = dict(running.gateway.proxy.policies)["pace"].tracks.values()
            assert (track.state.left, track.state.price[0]) == ((4000,), pytest.approx(0))
            assert track.mean == [100, 25]  # nothing ran, so nothing is known of what calls use
            assert call(running, rich, ask(model="long", max_tokens=200))[:2] == (200, None)
            assert call(running, rich, ask(model="lost", max_tokens=200))[0] == 502
            charged = [one["units"]["all"] for one in running.settled() if one["units"].get("all")]
            assert charged == [207, pytest.approx(300, rel=0.2)]
            assert track.state.left == (4000 - sum(charged),)


class Witness:
    """What ``before`` saw, and what ``after`` was told of it."""

    def __init__(self, fails=False):
        self.seen, self.told, self.fails = [], [], fails

    async def before(self, ask, serving):
        self.seen.append(ask)

    def after(self, ask, content, live):
        self.told.append((ask, content, dict(live.units)))
        assert not self.fails


def test_policies_are_told_once_of_every_request_that_they_saw_whatever_became_of_it(tmp_path, caplog):
    import socket

    extra = "[policies.cache]\n[policies.loop]\ntimes = 2"
    more = "connect_seconds = 0.4\nfirst_byte_seconds = 0.1\nidle_seconds = 0.4\nbreaker = 0"
    steps = {"full": error(503), "picky": error(400), "broken": error(500), "lost": hang_up, "hung": hang,
             "cut": echo(cut_after=2), "slow": echo(words=50, pause=0.05)}  # fmt: skip
    with Upstream(dear=echo(), **steps) as upstream:
        text = toml([("one", upstream.url, ["dear", *steps], more)], server="retries = 0", extra=extra)
        with Running(tmp_path, text) as running:
            first, last = Witness(fails=True), Witness()
            running.gateway.proxy.policies.insert(0, ("first", first))
            running.gateway.proxy.policies.append(("last", last))
            key, poor, stopped = running.key("all:90000"), running.key("all:50"), running.key("all:9", "requests:1/90s")
            said = [
                call(running, key, ask(model=name, stream=name == "cut"))[0] for name in ("dear", *list(steps)[:-1])
            ]
            assert said == [200, 503, 400, 502, 502, 504, 200]
            assert call(running, key, ask(stream=True))[0] == 200
            assert [call(running, key, ask(temperature=0))[1] for _ in range(2)] == [None, "cache"]
            assert [call(running, key, ask(max_tokens=7))[0] for _ in range(3)] == [200, 200, 429]  # a loop
            assert call(running, poor, ask())[0] == call(running, stopped, ask())[0] == 402
            assert call(running, key, ask(max_tokens=-1))[0] == 400
            body = b'{"model": "slow", "messages": [], "max_tokens": 50, "stream": true}'
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
            with socket.create_connection(("127.0.0.1", running.port)) as client:
                client.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
                while b"word" not in client.recv(65536):
                    pass
            records = running.settled(17)
    assert len(records) == len(first.seen) == 17
    assert len(last.seen) == 15  # but for what the cache answered and the loop that was stopped
    for witness in (first, last):
        assert sorted(map(id, witness.seen)) == sorted(id(ask) for ask, _, _ in witness.told)
    units = [one["units"] for one in sorted(records, key=lambda one: int(one["id"].rpartition("-")[2]))]
    order = {id(ask): n for n, ask in enumerate(first.seen)}
    told = sorted(first.told, key=lambda one: order[id(one[0])])
    assert [one for _, _, one in told] == units
    whole = [content for _, content, _ in told]
    assert [content is None for content in whole] == [
        False, *[True] * 6, False, False, True, False, False, True, True, True, True, True,
    ]  # fmt: skip
    assert (whole[7], b"word word" in whole[0]) == (b"", True)
    assert sum("policy first failed" in one.message for one in caplog.records) == 17


@pytest.mark.parametrize(
    ("extra", "what"),
    [
        ("[policies.tighten]\nleast = 0", "whole number from 1"),
        ("[policies.tighten]\nmost = 3", "policies.tighten.most is unknown"),
        ("[policies.downgrade]", "models is empty"),
        ("[policies.schedule]", "neither max_tokens nor effort"),
        ("[policies.schedule]\nmax_tokens = [[0.5, 3]]", "shares rising from 0"),
        ("[policies.schedule]\nmax_tokens = [[0, 3], [0, 2]]", "shares rising from 0"),
        ("[policies.schedule]\nmax_tokens = [[0, 0]]", "max_tokens has 0; give a whole number from 1"),
        ('[policies.schedule]\neffort = [[0, "huge"]]', "'huge'"),
        ("[policies.pace]\nshares = [0.5, 1]", "from 1 downwards"),
        ('[policies.pace]\nwindow = "year"', "choose one of hour, day, month"),
    ],
)
def test_policies_that_cannot_be(tmp_path, extra, what):
    (tmp_path / "g.toml").write_text(toml([("one", "http://127.0.0.1:9", ["m"], "")], extra=extra))
    with pytest.raises(InvalidInput) as error:
        policies_of(load(tmp_path / "g.toml", {}))
    assert what in str(error.value)
    assert "line 1" in str(error.value)


THEIRS = """
from budgeteer.core.method import Method
from budgeteer.core.option import REQUIRED, options
from budgeteer.gateway.policies.options import whole
from budgeteer.gateway.refusal import Refused


class Quiet:
    def __init__(self, most):
        self.most, self.seen = most, 0

    async def before(self, ask, serving):
        self.seen += 1
        if self.seen > self.most:
            raise Refused(429, "too_loud", f"more than {self.most} requests came")
        ask.notes.append(f"quiet={self.seen}")

    def after(self, ask, content, live):
        pass


@options(whole("most", REQUIRED, "requests that may come", least=1))
def quiet(*, most):
    return Quiet(most)


def none():
    return 7


QUIET = Method("quiet", "policy", "policy_of_a_test:quiet", "so many requests and no more")
NONE = Method("nothing", "policy", "policy_of_a_test:none", "makes something else")
"""


@pytest.fixture
def another_package(tmp_path, monkeypatch):
    """A package of somebody else with two policies, installed."""
    folder = theirs.install(tmp_path / "site", quiet="policy_of_a_test:QUIET", nothing="policy_of_a_test:NONE")
    (folder / "policy_of_a_test.py").write_text(THEIRS)
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
    yield
    sys.modules.pop("policy_of_a_test", None)
    sys.modules.pop("theirs_of_a_test", None)


def test_a_policy_of_another_package_is_named_in_the_file(tmp_path, upstream, another_package):
    with policy(tmp_path, upstream, "[policies.quiet]\nmost = 2") as running:
        key = running.key()
        assert [call(running, key, ask())[:2] for _ in range(3)] == [(200, "quiet=1"), (200, "quiet=2"), (429, None)]
        assert [one["policy"] for one in running.settled(3)] == ["quiet=1", "quiet=2", ""]


@pytest.mark.parametrize(
    ("extra", "what"),
    [
        ("[policies.quiet]\nmost = 0", "policies.quiet.most is 0; give a whole number from 1"),
        ("[policies.quiet]\nmost = 1\nleast = 1", "policies.quiet.least is unknown"),
        ("[policies.quiet]", "policies.quiet.most is missing"),
        ("[policies.nothing]", "policies.nothing cannot be used: policy_of_a_test:none makes a int; return a Policy"),
        (
            "[policies.quite]",
            "policies.quite is not a policy; known: cache, loop, downgrade, route, schedule, pace, overflow, tight",
        ),
    ],
)
def test_what_is_wrong_with_it_is_named_with_its_line(tmp_path, another_package, extra, what):
    test_policies_that_cannot_be(tmp_path, extra, what)


def test_a_policy_that_cannot_be_leaves_no_ledger_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = toml([("one", "http://127.0.0.1:9", ["m"], "")], ledger="l.db", extra="[policies.tighten]\nleast = 0")
    (tmp_path / "g.toml").write_text(text)
    with pytest.raises(InvalidInput, match=r"policies\.tighten\.least is 0"):
        Gateway(load("g.toml", {}))
    assert [path.name for path in tmp_path.iterdir()] == ["g.toml"]


def test_gateways_of_one_configuration_share_no_policy(tmp_path):
    (tmp_path / "g.toml").write_text(toml([("one", "http://127.0.0.1:9", ["m"], "")], extra="[policies.cache]"))
    config = load(tmp_path / "g.toml", {})
    one, two = policies_of(config)["cache"], policies_of(config)["cache"]
    assert one is not two


def test_requests_of_long_ago_are_forgotten_by_the_loop_policy():
    repeats, now = loop(times=2, seconds=10), [0]
    serving = SimpleNamespace(now=lambda: now[0])

    def make(n, at):
        now[0] = at * 1000
        request = SimpleNamespace(
            chain=[("a",)], route="chat", fingerprint=str(n), user="", session="", operation="chat", body={}
        )
        asyncio.run(repeats.before(request, serving))

    for n in range(30):
        make(n, at=1)
    make(0, at=9)
    with pytest.raises(Refused, match="came 2 times"):
        make(0, at=11)
    assert len(repeats.seen) == 30
    make(0, at=12)  # the one at 1 is over
    make(31, at=23)
    assert [len(when) for when in repeats.seen.values()] == [1]
