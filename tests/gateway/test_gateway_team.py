"""What people see of their budgets: refusals in their units, headers, /v1/budget, limits of models, rotated keys."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)

from budgeteer.cli import main  # noqa: E402
from budgeteer.core.errors import InvalidInput  # noqa: E402
from budgeteer.gateway import config as configs  # noqa: E402
from budgeteer.gateway import keys  # noqa: E402
from budgeteer.gateway.config import Defaults  # noqa: E402
from budgeteer.gateway.of_models import kinds_of, slug  # noqa: E402
from budgeteer.ledger.limit import Limit  # noqa: E402
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


# limits of models and groups


def test_a_limit_of_a_model_holds_for_that_model_alone(running):
    key = running.key("all:10k", path="models", per_model={"echo": ["all:150", "requests:5/60s"]})
    assert chat(running, key)[0] == 200
    running.settled()
    status, _, found = chat(running, key, max_tokens=50)
    assert (status, found["error"]["code"]) == (402, "budget_exceeded")
    assert "138 tokens of echo left of 150" in found["error"]["message"]
    assert found["error"]["budget"]["kind"] == "all.of.echo"
    for _ in range(3):
        assert chat(running, key, "other", max_tokens=50)[0] == 200
    records = running.settled()
    assert running.spent("models") == 4 * 12  # and nothing twice
    assert all(set(record["units"]) <= {"all", "money", "requests", "parallel"} for record in records)
    name = key.split("-")[1]
    rows = {(row["kind"], row["limit"]): row for row in running.admin(f"keys/{name}")["balances"]}
    assert rows["all.of.echo", 150]["settled"] == 12
    assert rows["requests.of.echo", 5]["settled"] == 1


def test_a_group_of_models_shares_a_limit_of_a_scope(tmp_path, upstream):
    served = [("one", upstream.url, ["echo", "other", "third"], "")]
    more = '[groups]\ncheap = ["echo", "other"]\n[scopes."team"]\nlimits = ["all:10k"]\n[scopes."team".per_model]\n'
    more += 'cheap = ["requests:2/day", "parallel:1"]'
    with Running(tmp_path, toml(served, extra=more)) as running:
        keys = [running.key(path="team") for _ in range(2)]
        assert chat(running, keys[0], "echo")[0] == 200
        running.settled()
        assert chat(running, keys[1], "other")[0] == 200
        running.settled()
        status, headers, found = chat(running, keys[0], "other")
        assert (status, found["error"]["budget"]["scope"]) == (429, "team")
        assert "0 requests of cheap left of 2/day" in found["error"]["message"]
        assert int(headers["retry-after"]) > 0
        assert chat(running, keys[0], "third")[0] == 200
        running.settled()


def test_a_limit_of_a_model_that_is_added_or_taken_away_stops_no_request(running):
    key = running.key("all:10k", path="later")
    name = key.split("-")[1]
    assert chat(running, key)[0] == 200
    for per_model in ({"echo": ["all:5k"]}, {}, {"other": ["all:1"]}):
        running.admin(f"keys/{name}", {"per_model": per_model}, method="PATCH")
        assert chat(running, key)[0] == 200
    # another replica has limits for a model that this one has not heard of
    accounts = running.gateway.proxy.accounts
    stale = running.do(running.gateway.keys.find(key, 0))
    running.do(
        running.gateway.ledger.aio.open(stale.scope, [*stale.limits, *kinds_of((("echo", (Limit("all", 900),)),))])
    )
    assert accounts.known(accounts.chain(stale))
    assert chat(running, key)[0] == 200
    running.settled()
    assert running.gateway.ledger.remaining(stale.scope)["all.of.echo"] < 900


@pytest.mark.parametrize(
    ("per_model", "says"),
    [
        ({"ecko": ["$5"]}, "did you mean 'echo'"),
        ({"echo": ["output:5"]}, "not counted"),
        ({"echo": ["all:unlimited"]}, "limits nothing"),
        ({"echo": ["5k", "6k"]}, "two limits of one kind"),
        (["echo"], "limits by model or group"),
        ({"echo": "5k"}, "give a list"),
    ],
)
def test_a_limit_of_a_model_that_would_never_count_is_refused(running, per_model, says):
    status, _, found = running.call("/admin/api/keys", {"per_model": per_model})
    assert status == 400
    assert says in found["error"]["message"]


@pytest.mark.parametrize(
    ("more", "line", "says"),
    [
        ('[groups]\necho = ["other"]', 2, "has the name of a model"),
        ("[groups]\ncheap = []", 2, "is empty"),
        ('[groups]\ncheap = ["nothing"]', 2, "no upstream serves"),
        ('[scopes."a".per_model]\necko = ["5k"]', 2, "did you mean 'echo'"),
        ('[defaults.per_model]\necho = ["output:5k"]', 2, "not counted"),
    ],
)
def test_groups_and_limits_of_models_in_the_file_are_checked(tmp_path, more, line, says):
    text = more + "\n" + toml([("one", "http://127.0.0.1:9/v1", ["echo", "other"], "")])
    (tmp_path / "gateway.toml").write_text(text)
    with pytest.raises(InvalidInput, match=f"line {line}: .*{says}"):
        configs.load(tmp_path / "gateway.toml", {})


def test_a_check_of_the_file_names_its_groups(tmp_path, upstream, capsys):
    text = '[groups]\ncheap = ["echo", "small"]\n' + toml([("one", upstream.url, ["echo", "other"], "")])
    (tmp_path / "gateway.toml").write_text(text.replace('name = "other"', 'name = "other"\naliases = ["small"]'))
    assert main(["serve", "--config", str(tmp_path / "gateway.toml"), "--check"]) == 0
    assert "ok      group cheap: echo, other" in capsys.readouterr().out


@given(st.text(min_size=1, max_size=60), st.text(min_size=1, max_size=60))
def test_names_of_models_become_kinds_of_their_own(one, two):
    assert Limit(f"all.of.{slug(one)}", 1).kind.endswith(slug(one))
    assert one == two or slug(one) != slug(two)


# rotation


def test_a_rotated_key_keeps_its_account_and_its_old_secret_for_a_while(running):
    old = running.key("all:10k", path="rotated")
    name = old.split("-")[1]
    assert chat(running, old)[0] == 200
    made = running.admin(f"keys/{name}/rotate", {"overlap": "1h"})
    new = made["secret"]
    assert new.split("-")[1] == name
    assert new != old
    assert made["key"]["rotated"] > made["key"]["created"] + 3_500_000
    assert {chat(running, key)[0] for key in (old, new)} == {200}
    running.settled()
    assert running.spent(f"rotated/{name}") == 36  # one account
    last = running.admin(f"keys/{name}/rotate", {"overlap": "0"})["secret"]
    assert [chat(running, key)[0] for key in (old, new, last)] == [401, 401, 200]
    running.admin(f"keys/{name}/revoke", {})
    assert running.call(f"/admin/api/keys/{name}/rotate", {})[0] == 400


def test_an_overlap_ends_and_never_grows():
    key, first = keys.make({}, Defaults((), (), (), (), ("*",), None, None, None), ("all",), 0)
    key, second = keys.rotated(key, 1000, 0)
    key, third = keys.rotated(key, 5000, 500)

    def valid(at):
        return [
            keys.matches(keys.decode(keys.encode(key)), token.split("-", 2)[2], at) for token in (first, second, third)
        ]

    assert valid(999) == [True, True, True]
    assert valid(1000) == [False, True, True]
    assert valid(5500) == [False, False, True]
    for n in range(10):
        key, _ = keys.rotated(key, 9000, 600 + n)
    assert len(key.earlier) == 4
    assert keys.rotated(key, 0, 600)[0].earlier == ()
    for text in ("soon", "day", "-1h"):
        with pytest.raises(InvalidInput):
            keys.overlap_of(text)


# what every answer says


def said(headers, name):
    """The units by kind in a header."""
    text = headers[f"x-budgeteer-{name}"]
    return None if text is None else dict(part.split("=") for part in text.split(", "))


@pytest.mark.parametrize("ledger", ["memory:", "sqlite"])
def test_every_answer_says_what_it_cost_what_was_reserved_and_what_is_left(tmp_path, upstream, ledger):
    (tmp_path / "prices.toml").write_text(PRICES)
    url = ledger if ledger == "memory:" else str(tmp_path / "ledger.db")
    served = [("one", upstream.url, ["echo", "broken"], "")]
    text = toml(served, ledger=url, kinds='["all", "money"]', extra="[policies.cache]\nsampled = true")
    text = text.replace("shipped = false", 'shipped = false\nfiles = ["prices.toml"]')
    with Running(tmp_path, text) as running:
        key = running.key("all:1000", "requests:5/day", per_model={"broken": ["all:2k"]})
        _, headers, _ = chat(running, key)
        assert said(headers, "cost") == {"all": "12", "money": "0.0000675"}
        reserved = said(headers, "reserved")
        assert reserved.keys() == {"all", "money"}
        assert int(reserved["all"]) > 100
        assert said(headers, "left") == {"all": "988", "requests": "4", "all.of.broken": "2000"}
        running.settled()
        _, headers, _ = chat(running, key)  # from the cache
        assert said(headers, "cost") is None
        assert said(headers, "left")["all"] == "988"
        _, headers, _ = chat(running, key, stream=True)  # a stream: what is known at its head
        assert said(headers, "cost") is None
        held = int(said(headers, "reserved")["all"])
        assert said(headers, "left")["all"] == str(988 - held)
        assert said(headers, "left")["requests"] == "3"
        running.settled()
        status, headers, _ = chat(running, key, "broken", n=2)  # charged in full, twice
        assert status == 502
        assert int(said(headers, "cost")["all"]) == 2 * int(said(headers, "reserved")["all"])
        told = said(headers, "left")["all"]
        running.settled()
        left = running.gateway.ledger.remaining(running.admin("keys")["keys"][0]["path"] + "/" + key.split("-")[1])
        assert told == str(left["all"])
        status, headers, _ = chat(running, key, max_tokens=10**6)  # refused before anything is reserved
        assert status == 400
        assert said(headers, "left")["all"] == str(left["all"])
        status, headers, _ = chat(running, key, n=50)
        assert (status, said(headers, "cost"), said(headers, "reserved")) == (402, None, None)
        assert said(headers, "left")["all"] == str(left["all"])
        for path in ("/v1/models", "/v1/budget", "/v1/nothing"):
            _, headers, _ = running.call(path, key=key)
            assert not [name for name in headers if name.lower().startswith("x-budgeteer")], path


def test_what_is_left_is_said_where_nothing_is_sent_to_an_upstream(tmp_path, upstream):
    with Running(tmp_path, toml([("one", upstream.url, ["broken"], "breaker = 1")])) as running:
        key = running.key("all:1000")
        assert chat(running, key, "broken")[0] == 502
        (record,) = running.settled(1)
        status, headers, answer = chat(running, key, "broken")
        assert (status, answer["error"]["code"]) == (503, "upstream_shut")
        assert said(headers, "left") == {"all": str(1000 - record["units"]["all"])}
        assert (said(headers, "cost"), said(headers, "reserved")) == (None, None)


def test_no_stranger_is_told_what_is_left(running):
    _, headers, _ = chat(running, f"bk-{'0' * 16}-{'x' * 43}")
    assert not [name for name in headers if name.lower().startswith("x-budgeteer")]


# the holder of a key


def test_a_holder_sees_limits_balance_and_spending_of_the_own_key_alone(running):
    running.admin("keys", {"path": "holders", "name": "somebody else", "limits": ["all:7770777"]})
    key = running.key("$1/day", path="holders", name="mine", per_model={"echo": ["all:500/60s"]})
    assert running.call("/v1/budget", key=key)[2]["limits"][0]["text"] == "500 tokens of echo left of 500/60s"
    assert chat(running, key)[0] == 200
    running.settled()
    status, _, found = running.call("/v1/budget", key=key)
    assert status == 200
    assert (found["object"], found["key"]["name"], found["key"]["id"]) == ("budget", "mine", key.split("-")[1])
    assert not {"digest", "earlier", "limits"} & found["key"].keys()
    scope = f"holders/{key.split('-')[1]}"
    assert {(row["scope"], row["kind"], row["window"], row["used"], row["left"]) for row in found["limits"]} == {
        (scope, "money", "day", 67_500_000, 999_932_500_000),
        (scope, "all.of.echo", "60 s", 12, 488),
    }
    assert {row["text"] for row in found["limits"]} == {"$0.999 left of $1/day", "488 tokens of echo left of 500/60s"}
    for name in ("last_24_hours", "last_30_days"):
        assert found[name] == {"requests": 1, "refused": 0, "input": 7, "output": 5, "money": 67_500_000}
    assert "7770777" not in str(found)
    assert "somebody else" not in str(found)


def test_a_holder_sees_the_limits_above_and_those_of_a_named_user(tmp_path, upstream):
    more = '[scopes."acme"]\nlimits = ["all:900/day"]'
    with Running(tmp_path, toml([("one", upstream.url, ["echo"], "")], extra=more)) as running:
        key = running.key("all:800", per_user=["all:300"])
        assert [row["limit"] for row in running.call("/v1/budget", key=key)[2]["limits"]] == [900, 800]
        named = running.call("/v1/budget", key=key, headers={"x-budgeteer-user": "ann"})[2]["limits"]
        assert [(row["scope"].rpartition("/")[2], row["limit"]) for row in named][2] == ("user:ann", 300)


def test_a_budget_is_shown_to_nobody_without_a_key(running):
    assert running.call("/v1/budget", key=f"bk-{'0' * 16}-{'x' * 43}")[0] == 401
    assert running.call("/v1/budget", key="admin-secret-0123456789")[0] == 401
    assert running.call("/v1/budget", {}, running.key("5"))[0] == 405
