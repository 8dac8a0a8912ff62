"""Yesterday's records against today's file: no changes where nothing changed, and else what a real gateway does."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace

import pytest

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)

from budgeteer.cli import main  # noqa: E402
from budgeteer.core.errors import InvalidInput  # noqa: E402
from budgeteer.gateway import booking  # noqa: E402
from budgeteer.gateway import keys as keyfile  # noqa: E402
from budgeteer.gateway.config import load  # noqa: E402
from budgeteer.gateway.record import Record  # noqa: E402
from budgeteer.gateway.replay.read import Logged, read  # noqa: E402
from budgeteer.gateway.replay.report import as_text, report  # noqa: E402
from budgeteer.gateway.replay.run import replay  # noqa: E402
from budgeteer.gateway.store import SqliteStore  # noqa: E402
from budgeteer.gateway.stores import connect  # noqa: E402
from budgeteer.metering.outcome import Outcome  # noqa: E402
from helpers import servers  # noqa: E402
from helpers.gateway_fixture import Running, toml  # noqa: E402
from helpers.upstream import Upstream, answer, echo  # noqa: E402

MODELS = ("dear", "cheap", "long")


@pytest.fixture(scope="module")
def upstream():
    with Upstream(dear=echo(words=20), cheap=echo(words=20), long=echo(words=10**6)) as found:
        yield found


@pytest.fixture(autouse=True)
def _prices(tmp_path, monkeypatch):
    monkeypatch.setattr(booking, "_STALE", -1)  # policies see what is spent at once, so that runs are alike
    lines = [
        f'[models."{name}"]\ninput = {price}\noutput = {5 * price}'
        for name, price in zip(MODELS, (2, 1, 2), strict=True)
    ]
    (tmp_path / "p.toml").write_text("\n".join(lines))


def text(upstream, ledger, extra=""):
    found = toml([("one", upstream.url, MODELS, "")], ledger=str(ledger), extra=extra, kinds='["all", "money"]')
    return found.replace("shipped = false", 'shipped = false\nfiles = ["p.toml"]')


def requests():
    """(route, body, user) of what a team sends; long answers are as long as their cap."""
    for n in range(14):
        model = MODELS[n % 3]
        body = {"model": model, "messages": [{"role": "user", "content": f"Question {n}" + "!" * (7 * n)}]}
        if n % 4:
            body["max_tokens"] = 10 + 3 * n
        if n % 5 == 1:
            body["stream"] = True
        yield (
            "messages" if n == 6 else "chat/completions",
            {**body, **({"max_tokens": 30} if n == 6 else {})},
            f"u{n % 2}",
        )


def run(running, key):
    """Send all of them, one after the other; the records."""
    for n, (route, body, user) in enumerate(requests()):
        running.call(f"/v1/{route}", body, key, headers={"x-budgeteer-user": user})
        running.settled(n + 1)
    return running.settled()


def replayed(running, place, config=None):
    """What ``serve --replay`` says, as JSON."""
    told, texts = read(str(place))
    keys = {key.id: key for key in map(keyfile.decode, running.gateway.store.all_keys() or texts)}
    config = config or running.config
    return report(config, told, replay(config, told, keys), keys)


POLICIES = (
    "",
    "[policies.tighten]\nleast = 4",
    '[policies.downgrade]\nabove = 0.4\n[policies.downgrade.models]\ndear = "cheap"',
    "[policies.schedule]\nmax_tokens = [[0, 40], [0.3, 12]]",
    "[policies.overflow]\nwindow = 2\ncap = 8\nremind = false",
)


@pytest.mark.parametrize("policy", POLICIES, ids=["none", "tighten", "downgrade", "schedule", "overflow"])
def test_the_same_file_changes_nothing(policy, tmp_path, upstream):
    """Whatever was refused, tightened or served by another model then is so now; from each kind of file."""
    ledger = tmp_path / "ledger.db"
    with Running(tmp_path, text(upstream, ledger, policy)) as running:
        key = running.key("all:1000/day", "requests:12", per_user=["$1/day"])
        records = run(running, key)
        assert {one["outcome"] for one in records} == {"ok", "refused"}
        (tmp_path / "r.json").write_text(json.dumps(running.admin("requests?limit=1000")))
        (tmp_path / "r.csv").write_bytes(running.call("/admin/api/requests.csv")[2])
        lines = [json.dumps({"event": "request", **one}) for one in records]
        (tmp_path / "r.log").write_text("budgeteer: a line of the log\n" + "\n".join(lines) + "\n")
        for name in ("r.json", "r.csv", "r.log", "ledger.db.gateway"):
            about = replayed(running, tmp_path / name)
            assert (about["records"], about["replayed"], about["refusals"]) == (14, 14, [])
            assert not any(about["changes"].values()), (name, about["changes"])
            assert (about["saved"], about["saved_tokens"]) == ({"all": 0, "money": 0}, 0)
            assert about["charged_now"]["all"] == running.spent() > 0
            assert "no changes" in as_text(about)


async def speaks(server, writer, path, body):
    await answer(writer, 200, {"sound": "..."})


@pytest.mark.parametrize("learnt", [False, True], ids=["hard", "learnt"])
def test_what_makes_no_text_takes_its_share_of_the_limits(learnt, tmp_path):
    """Speech and a free moderation use up the requests and the money that a chat is refused for, then and now."""
    prices = '[models."cheap"]\ninput = 1\noutput = 5\n[models."tts".fees]\ncharacter = 0.001\n'
    (tmp_path / "p.toml").write_text(prices)
    with Upstream(cheap=echo(words=20), tts=speaks, **{"omni-moderation-latest": speaks}) as upstream:
        served = [("one", upstream.url, ["cheap", "tts", "omni-moderation-latest"], "")]
        kinds = '["all", "money", "learnt.money"]' if learnt else '["all", "money"]'
        config = toml(served, ledger=str(tmp_path / "ledger.db"), kinds=kinds)
        config = config.replace("shipped = false", 'shipped = false\nfiles = ["p.toml"]')
        with Running(tmp_path, config) as running:
            key = running.key("learnt $0.35/day" if learnt else "$0.35/day", "requests:4/day")
            speech = {"model": "tts", "voice": "v", "input": "!" * 300}
            chat = {"model": "cheap", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9}
            found = [
                running.call(f"/v1/{route}", body, key)[0]
                for route, body in (
                    ("audio/speech", speech),
                    ("audio/speech", speech),
                    ("moderations", {"input": "Hi"}),
                    ("chat/completions", chat),
                    ("audio/speech", {**speech, "input": "!" * 40}),
                    ("chat/completions", chat),
                )
            ]
            assert found == [200, 402, 200, 200, 200, 429]
            running.settled(6)
            about = replayed(running, tmp_path / "ledger.db.gateway")
            assert (about["replayed"], about["not_replayed"]) == (5, {"budget_exceeded": 1})
            assert not any(about["changes"].values()), about["changes"]
            assert about["charged_now"] == about["charged_then"]
            assert about["charged_now"]["money"] == running.spent(kind="money") > 340 * 10**9
            assert "3 requests make no text" in as_text(about)


LIMITS = ("all:350/day", "$0.0014", "all:350/day", "$0.0014", "all:350/day")


@pytest.mark.parametrize(
    ("policy", "limit"), [*zip(POLICIES, LIMITS, strict=True), (POLICIES[0], LIMITS[1])],
    ids=["none", "tighten", "downgrade", "schedule", "overflow", "money"],
)  # fmt: skip
def test_half_a_limit_refuses_what_a_real_gateway_refuses(policy, limit, tmp_path, upstream):
    """Records of a gateway without the limit and the policy, replayed with both, beside a run of the same requests."""
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / "p.toml").write_bytes((tmp_path / "p.toml").read_bytes())
    scopes = f'[scopes."acme"]\nlimits = ["{limit}"]\n'
    with Running(one, text(upstream, one / "ledger.db")) as running:
        before = run(running, running.key())
        assert {record["outcome"] for record in before} == {"ok"}
        (one / "today.toml").write_text(text(upstream, one / "ledger.db", scopes + policy))
        about = replayed(running, one / "ledger.db.gateway", load(one / "today.toml", {}))
    with Running(two, text(upstream, two / "ledger.db", scopes + policy)) as running:
        after = run(running, running.key())
    refused = [n for n, record in enumerate(after) if record["outcome"] == "refused"]
    assert 0 < len(refused) < 14
    number = {record["id"]: n for n, record in enumerate(before)}
    assert [number[one["id"]] for one in about["refusals"]] == refused
    assert [one["code"] for one in about["refusals"]] == [after[n]["reason"] for n in refused]
    assert about["changes"]["refused"] == len(refused)
    for kind in ("all", "money"):
        assert about["charged_now"][kind] == sum(record["units"].get(kind, 0) for record in after)
        assert about["saved"][kind] == sum(row["saved"][kind] for row in about["policies"])
        assert about["saved"][kind] == about["keys"][0]["saved"][kind]
    models = sum(a["model"] != b["model"] for a, b in zip(before, after, strict=True) if b["outcome"] == "ok")
    assert about["changes"]["model"] == models
    assert (models > 0) == ("downgrade" in policy)
    lower = sum(b["cap"] < a["cap"] for a, b in zip(before, after, strict=True)
                if b["outcome"] == "ok" and a["model"] == b["model"])  # fmt: skip
    assert about["changes"]["shorter"] == lower


def test_keys_of_today(tmp_path, upstream):
    """A key whose limit was halved, one that may call less, one that was revoked: as a real run with them does."""
    with Running(tmp_path, text(upstream, tmp_path / "ledger.db")) as running:
        for path in "abc":
            run_key = running.key("1m", path=path)
            for n in range(4):
                body = {"model": MODELS[n % 2], "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20}
                assert running.call("/v1/chat/completions", body, run_key)[0] == 200
                running.settled()
        ids = {key["path"]: key["id"] for key in running.admin("keys")["keys"]}
        running.admin(f"keys/{ids['a']}", {"limits": ["150"], "name": "ann"}, "PATCH")
        running.admin(f"keys/{ids['b']}", {"models": ["cheap"]}, "PATCH")
        running.admin(f"keys/{ids['c']}/revoke", {})
        about = replayed(running, tmp_path / "ledger.db.gateway")
    refused = [(one["key"], one["code"]) for one in about["refusals"]]
    assert refused == [
        *[(ids["a"], "budget_exceeded")] * 2, *[(ids["b"], "model_not_allowed")] * 2, *[(ids["c"], "key_revoked")] * 4,
    ]  # fmt: skip
    limit = f"a/{ids['a']}: limit of 150 tokens"
    assert [row["by"] for row in about["policies"]] == [limit, "key_revoked", "model_not_allowed"]
    shown = as_text(about)
    assert "a/ann" in shown
    assert about["saved"]["all"] == about["saved_tokens"] == 8 * 27


def made_up(n, at, ms, **more):
    usual = {
        "id": f"gw-{n}", "at": at, "ms": ms, "key": "k", "path": "acme/k", "operation": "chat", "model": "dear",
        "upstream": "one", "outcome": Outcome.OK, "attempts": 1, "bound": 40, "choices": 1, "cap": 10, "cap_asked": 10,
        "input": 5, "output": 5, "units": {"all": 10}, "reserved": {"all": 50},
    }  # fmt: skip
    return Logged(Record(**{**usual, **more}))


def today(tmp_path, upstream, told, extra="", **key):
    path = tmp_path / "today.toml"
    path.write_text(toml([("one", upstream.url, MODELS, "")], extra=extra))
    config = load(path, {})
    made, _ = keyfile.make({"path": "acme", **key}, config.defaults, config.counted, 0)
    keys = {"k": replace(made, id="k")}
    return report(config, told, replay(config, told, keys), keys)


def test_requests_that_overlap_hold_what_they_reserved(tmp_path, upstream):
    apart = [made_up(n, 1000 * n, 900) for n in range(4)]
    together = [made_up(n, 100 * n, 900) for n in range(4)]
    for key, refused in (({"limits": ["80"]}, 3), ({"limits": ["parallel:2"]}, 2), ({"limits": ["requests:3/60s"]}, 1)):
        found = today(tmp_path, upstream, together, **key)
        assert found["changes"]["refused"] == refused
    assert today(tmp_path, upstream, apart, limits=["80"])["changes"]["refused"] == 0  # 30 spent, and 50 more
    assert today(tmp_path, upstream, apart, limits=["79"])["changes"]["refused"] == 1
    refused = {"outcome": Outcome.REFUSED, "attempts": 0, "units": {}, "reserved": {}, "input": 0, "output": 0}
    for at, admitted in ((901, 0), (902, 1)):  # it met the first, which ended at some time before 902
        close = [made_up(0, 0, 900), made_up(1, at, 0, **refused)]
        assert today(tmp_path, upstream, close, limits=["parallel:1"])["changes"]["admitted"] == admitted
    waited = [made_up(0, 0, 900), made_up(1, 100, 600, **refused), made_up(2, 50, 700, **refused)]
    assert today(tmp_path, upstream, waited, limits=["parallel:2"])["changes"]["admitted"] == 1
    met = [made_up(0, 0, 900), made_up(1, 900, 0)]
    assert today(tmp_path, upstream, met, limits=["parallel:1"])["changes"]["refused"] == 0
    day = 86_400_000
    daily = [made_up(n, day * (n + 1) - 500, 900) for n in range(4)]  # each ends on the next day
    assert today(tmp_path, upstream, daily, limits=["60/day"])["changes"]["refused"] == 0
    found = today(tmp_path, upstream, daily, limits=["59/day"])["refusals"]  # none follows a day on which none ran
    assert [one["id"] for one in found] == ["gw-1", "gw-3"]


def test_what_was_refused_then_may_run_now(tmp_path, upstream):
    told = [
        made_up(0, 0, 5),
        made_up(1, 10, 1, outcome=Outcome.REFUSED, reason="budget_exceeded", attempts=0, units={}, reserved={},
                input=0, output=0),
        made_up(2, 20, 1, outcome=Outcome.REFUSED, reason="invalid_json", attempts=0, units={}, reserved={},
                bound=None, input=0, output=0),
    ]  # fmt: skip
    about = today(tmp_path, upstream, told, limits=["1000"])
    assert (about["changes"]["admitted"], about["not_replayed"]) == (1, {"invalid_json": 1})
    assert about["charged_now"] == {"all": 20}  # a fifth of its reservation, as that of the first
    assert about["saved"] == {"all": -10}
    assert any("refused then" in line for line in about["not_known"])
    assert "invalid_json 1" in as_text(about)


def test_answers_of_the_cache(tmp_path, upstream):
    hit = {"outcome": Outcome.CACHED, "attempts": 0, "units": {}, "reserved": {}, "bound": None, "cap": None,
           "input": 0, "output": 0, "saved": {"all": 10}, "policy": "cache"}  # fmt: skip
    told = [made_up(0, 0, 5), made_up(1, 10, 1, **hit)]
    about = today(tmp_path, upstream, told, "[policies.cache]", limits=["1000"])
    assert (any(about["changes"].values()), about["saved"]) == (False, {"all": 0})
    assert any("which of them the cache would answer" in line for line in about["not_known"])
    about = today(tmp_path, upstream, told, limits=["1000"])  # no cache today: it has to be paid for
    assert (about["changes"]["uncached"], about["saved"]) == (1, {"all": -10})
    assert today(tmp_path, upstream, told, limits=["55"])["changes"]["refused"] == 0
    # where the log has what was asked, equal requests are known, and so is a loop
    same = [Logged(made_up(n, 10 * n, 5).record, {"messages": [{"role": "user", "content": "Hi"}]}, ("Hello",))
            for n in range(4)]  # fmt: skip
    about = today(tmp_path, upstream, same, "[policies.cache]\nsampled = true", limits=["1000"])
    assert (about["changes"]["cached"], about["saved"], about["charged_now"]) == (3, {"all": 30}, {"all": 10})
    about = today(tmp_path, upstream, same, "[policies.loop]\ntimes = 2", limits=["1000"])
    assert [one["code"] for one in about["refusals"]] == ["loop_detected"] * 2
    assert not any("loop policy" in line for line in about["not_known"])
    apart = [replace(one, record=replace(one.record, at=one.record.at * 100_000)) for one in same]
    about = today(tmp_path, upstream, apart, "[policies.loop]\ntimes = 2", limits=["1000"])
    assert about["refusals"] == []  # 1,000 seconds lie between them


def test_records_of_an_older_version_and_keys_that_are_gone(tmp_path, upstream):
    old = {"bound": None, "cap": None, "cap_asked": None, "choices": None}
    told = [made_up(n, 100 * n, 50, key="gone", path="acme/gone", **old) for n in range(4)]
    about = today(tmp_path, upstream, told, '[defaults]\nlimits = ["70"]\n[policies.schedule]\nmax_tokens = [[0, 1]]')
    assert about["changes"] == {**dict.fromkeys(about["changes"], 0), "refused": 1}  # 30 + 50 is above 70
    assert any("[defaults]: gone" in line for line in about["not_known"])
    assert any("did not record bounds" in line for line in about["not_known"])


GOOD = {"event": "request", "id": "a-1", "at": 10**12, "path": "acme", "operation": "chat", "model": "dear"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"id": None}, "record 'None' of .* has id 'None'"),
        ({"id": ""}, "has id ''"),
        ({"at": "yesterday"}, "has at 'yesterday'"),
        ({"at": 10**17}, "has at 100000000000000000, after the year 9999"),
        ({"input": -1}, "has input '-1'"),
        ({"attempts": True}, "has attempts 'True'"),
        ({"path": ["acme"]}, "has path"),
        ({"units": {"all": "5"}}, "has units"),
        ({"calls": [{"upstream": 5}]}, "has calls.upstream '5'"),
        ({"asked": "Hi"}, "asked or answer in another form"),
        ({"answer": [5]}, "asked or answer in another form"),
    ],
)
def test_a_record_with_other_values_is_named(change, says, tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(GOOD) + "\n")
    assert len(read(str(path))[0]) == 1
    path.write_text(json.dumps({**GOOD, **change}) + "\n")
    with pytest.raises(InvalidInput, match=says):
        read(str(path))


@pytest.mark.parametrize("row", ["a-1,5", "a-1,5,ok,more"])
def test_a_table_that_is_cut_is_said_to_be(row, tmp_path):
    path = tmp_path / "requests.csv"
    path.write_text(f"id,at,outcome\na-0,5,ok\n{row}")
    with pytest.raises(InvalidInput, match="begins with 'a-1' has other cells than its head"):
        read(str(path))


@pytest.mark.parametrize("server_url", servers.KINDS, indirect=True)
def test_the_command(tmp_path, upstream, server_url):
    config = tmp_path / "gateway.toml"
    config.write_text(toml([("one", upstream.url, MODELS, "")], ledger=str(tmp_path / "l.db"),
                           extra='[scopes."acme"]\nlimits = ["79"]'))  # fmt: skip
    told = [made_up(n, 1000 * n, 900) for n in range(4)]
    stores = [SqliteStore(tmp_path / "s.db"), connect(server_url)]
    for store in stores:
        store.add([one.record for one in told])
        store.close()
    for place in (str(tmp_path / "s.db"), server_url):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            assert main(["serve", "--config", str(config), "--replay", place, "--json"]) == 0
        assert [one["id"] for one in json.loads(out.getvalue())["refusals"]] == ["gw-3"]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(["serve", "--config", str(config), "--replay", str(tmp_path / "s.db")]) == 0
    shown = out.getvalue()
    assert "4 records from 1970-01-01 00:00:00 to 1970-01-01 00:00:03 UTC, 4 replayed" in shown
    assert "1  refused today, not refused then" in shown
    assert "acme: limit of 79 tokens" in shown
    assert "What a replay cannot know, and assumes:" in shown
    assert not (tmp_path / "l.db.gateway").exists()  # nothing is made
    for text_of_file in ("", "a,b\n1,2\n", "[]", '{"requests": 3}'):
        (tmp_path / "bad").write_text(text_of_file)
        with pytest.raises(InvalidInput, match=r"requests\.csv"):
            read(str(tmp_path / "bad"))
    with pytest.raises(InvalidInput, match="cannot be read"):
        read(str(tmp_path / "none"))


def test_a_database_without_a_store_gets_none(postgres_process):
    from budgeteer.gateway.replay.read import keys_beside
    from budgeteer.gateway.stores import exists

    url = servers.shared("postgres")
    with pytest.raises(InvalidInput, match=r"postgresql://\*\*\*@127.0.0.1:\d+/postgres has no store of a gateway"):
        read(url)
    assert keys_beside(url) == []
    assert not exists(url)
    connect(url).close()
    assert exists(url)


def test_learnt_limits_are_replayed_too(tmp_path, upstream):
    """Among the records are refusals of the learnt limit; all is decided again as it was then."""
    found = text(upstream, tmp_path / "l.db").replace('kinds = ["all", "money"]', 'kinds = ["all", "learnt.all"]')
    with Running(tmp_path, found) as running:
        records = run(running, running.key("learnt 500"))
        assert {one["outcome"] for one in records} == {"ok", "refused"}
        about = replayed(running, tmp_path / "l.db.gateway")
        assert (about["replayed"], about["refusals"]) == (14, [])
        assert any(line.startswith("Learnt limits") for line in about["not_known"])
