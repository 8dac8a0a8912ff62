"""Limits in time zones through the gateway: keys, the file, refusals, what is left, alerts, the pace of a window."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from fractions import Fraction
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)

from budgeteer.cli import main  # noqa: E402
from budgeteer.core import zones  # noqa: E402
from budgeteer.core.errors import InvalidInput, LedgerUnavailable  # noqa: E402
from budgeteer.gateway import keys  # noqa: E402
from budgeteer.gateway.alerts.levels import levels  # noqa: E402
from budgeteer.gateway.config import Defaults, load  # noqa: E402
from budgeteer.gateway.policies._pace import pace  # noqa: E402
from budgeteer.ledger import Limit, MemoryLedger, SqliteLedger, windows  # noqa: E402
from budgeteer.ledger.protocol import wall_clock  # noqa: E402
from helpers.gateway_fixture import Running, toml  # noqa: E402
from helpers.person import Person  # noqa: E402
from helpers.upstream import Upstream, echo  # noqa: E402

ASK = {"model": "echo", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20}
CHATHAM = "Pacific/Chatham"
"""Its midnight is at an odd quarter of an hour of UTC, so that no other clock shows it."""


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with Upstream(echo=echo()) as upstream:
        text = toml([("one", upstream.url, ["echo"], "")], extra=f'[scopes.zoned]\nlimits = ["all:900/day@{CHATHAM}"]')
        with Running(tmp_path_factory.mktemp("zones"), text) as found:
            yield found


def next_midnight(zone: str) -> int:
    """Milliseconds since 1970."""
    today = datetime.now(ZoneInfo(zone)).date()
    midnight = datetime.combine(today + timedelta(days=1), datetime.min.time(), ZoneInfo(zone))
    return int(midnight.timestamp() * 1000)


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def test_a_holder_is_told_when_the_zones_day_ends(running):
    assert running.call("/v1/chat/completions", ASK, running.key("all:500", path="first"))[0] == 200
    needed = running.settled()[-1]["reserved"]["all"]  # of which 12 are used
    key = running.key(f"all:{needed + 11}/day@pacific/chatham", path="told")
    before = next_midnight(CHATHAM)
    (row,) = running.call("/v1/budget", key=key)[2]["limits"]
    said = f"{needed + 11} tokens left of {needed + 11}/day@{CHATHAM}"
    assert (row["window"], row["text"]) == (f"day@{CHATHAM}", said)
    assert row["resets_at"] in (before, next_midnight(CHATHAM))  # the test may run at midnight
    assert running.call("/v1/chat/completions", ASK, key)[0] == 200
    running.settled()
    status, headers, found = running.call("/v1/chat/completions", ASK, key)
    budget = found["error"]["budget"]
    assert (status, budget["window"]) == (402, f"day@{CHATHAM}")
    assert at(budget["resets_at"]) in (before, next_midnight(CHATHAM))
    shown = re.search(rf"again at (\d{{4}}-\d\d-\d\d) 00:00:00 {CHATHAM}", found["error"]["message"])
    assert datetime.fromisoformat(shown[1]).replace(tzinfo=ZoneInfo(CHATHAM)).timestamp() * 1000 == at(
        budget["resets_at"]
    )
    assert 0 < int(headers["retry-after"]) <= 25 * 3600


def test_the_zone_of_a_keys_limit_is_changed_and_keeps_what_was_used(running):
    key = running.key("all:500/day", path="changed")
    name = key.split("-")[1]
    assert running.call("/v1/chat/completions", ASK, key)[0] == 200
    running.settled()
    used = running.call("/v1/budget", key=key)[2]["limits"][0]["used"]
    assert used == 12
    running.admin(f"keys/{name}", {"limits": ["all:500/day@asia/tokyo"]}, method="PATCH")
    assert running.admin(f"keys/{name}")["key"]["limits"] == ["500/day@Asia/Tokyo"]
    assert running.call("/v1/chat/completions", ASK, key)[0] == 200
    running.settled()
    (row,) = running.call("/v1/budget", key=key)[2]["limits"]
    assert (row["window"], row["used"]) == ("day@Asia/Tokyo", 24)


def test_a_key_in_a_zone_is_edited_in_the_dashboard(running):
    person = Person(running)
    name = running.key("all:500/day@Europe/Berlin", path="edited").split("-")[1]
    body = person.get(f"/keys/{name}")[2]
    assert "500/day@Europe/Berlin</textarea>" in body
    form = {"token": person.token(), "seen": re.search(r'name="seen" value="([^"]*)"', body)[1]}
    changed = {**form, "limits": "all:500/day@america/new_york\nall:9k/month@Europe/Berlin"}
    assert person.post(f"/keys/{name}/change", **changed)[0] == 303
    assert running.admin(f"keys/{name}")["key"]["limits"] == ["500/day@America/New_York", "9k/month@Europe/Berlin"]
    form["seen"] = re.search(r'name="seen" value="([^"]*)"', person.get(f"/keys/{name}")[2])[1]
    status, _, body = person.post(f"/keys/{name}/change", **{**form, "limits": "all:500/day@Europe/Berln"})
    assert status == 400
    assert "did you mean Europe/Berlin" in body
    assert running.call("/v1/budget", key=running.key(path="zoned"))[0] == 200  # its account is opened
    status, _, body = person.get(f"/budget?path=zoned&kind=all&window=day%40{CHATHAM.replace('/', '%2F')}")
    assert (status, f"day@{CHATHAM}" in body) == (200, True)
    assert f"window=day%40{CHATHAM.replace('/', '%2F')}" in person.get("/budgets?path=zoned")[2]


@pytest.mark.parametrize("limit", ["$5/day@Mars/Olympus", "$5/90s@Europe/Berlin"])
def test_a_zone_that_is_not_there_is_refused_where_limits_are_written(running, tmp_path, limit):
    status, _, found = running.call("/admin/api/keys", {"path": "acme", "limits": [limit]})
    assert (status, limit.partition("@")[2] in found["error"]["message"]) == (400, True)
    path = tmp_path / "gateway.toml"
    path.write_text(toml([("one", "http://127.0.0.1:9", ["echo"], "")], extra=f'[scopes.a]\nlimits = ["{limit}"]'))
    with pytest.raises(InvalidInput, match=r"gateway.toml, line \d+: .*limits.*(no time zone|has no time zone)"):
        load(path, {"BUDGETEER_ADMIN_KEY": "admin-secret-0123456789"})


def test_a_key_in_a_zone_that_this_machine_lacks_is_not_taken_for_damage(monkeypatch):
    key, _ = keys.make(
        {"limits": ["all:5/day@Europe/Berlin"]}, Defaults((), (), (), (), ("*",), None, None, None), ("all",), 0
    )
    text = keys.encode(key)
    assert keys.decode(text) == key
    zones.zone_named.cache_clear()
    monkeypatch.setattr(zones, "_names", lambda: {"utc": "UTC"})
    with pytest.raises(
        LedgerUnavailable, match="do not spend: it has limits in a time zone, and there is no time zone"
    ):
        keys.decode(text)
    monkeypatch.undo()
    zones.zone_named.cache_clear()


# alerts


def test_an_alert_is_one_a_day_of_its_zone_and_says_when_that_ends():
    now = [at("2026-10-25T00:30Z")]  # in Berlin, the day of 25 hours
    ledger = MemoryLedger(clock=lambda: now[0])
    ledger.open("acme", [Limit.parse("100/day@Europe/Berlin"), Limit.parse("500/month@Europe/Berlin")])
    rule = SimpleNamespace(name="r", shares=(Fraction(4, 5),), kinds=("all",), covers=lambda path: True)

    def seen():
        return list(levels(rule, ledger.accounts(["acme"]), now[0]))

    ledger.settle(ledger.reserve("acme", {"all": 90}).id)
    day, month = seen()
    assert (day.reached, month.reached, day.resets) == (True, False, at("2026-10-25T23:00Z"))
    said = "acme: 90 of 100 tokens/day@Europe/Berlin spent (90 %), resets 00:00 Europe/Berlin"
    assert day.text("acme") == said
    assert month.text("acme").endswith("resets 2026-11-01 00:00 Europe/Berlin")
    now[0] = at("2026-10-25T22:59Z")
    assert seen()[0].name == day.name
    now[0] = at("2026-10-25T23:00Z")
    tomorrow, same_month = seen()
    assert (tomorrow.reached, tomorrow.name != day.name, same_month.name == month.name) == (False, True, True)


# the pace of a window


def test_pace_goes_by_the_window_of_the_limits_zone():
    policy = pace(window="day", kind="all", requests=100, shares=(1.0, 0.5), share=1.0)
    limit = Limit.parse("1000/day@Europe/Berlin")
    ask = SimpleNamespace(chain=[("acme", None), ("acme/a", (Limit.parse("5/hour@Europe/Berlin"), limit))])
    path, first = policy.track(ask, at("2026-10-24T22:00Z"))
    assert (path, first.window, first.at) == ("acme/a", limit.window, at("2026-10-24T22:00Z") / 1000)
    assert policy.track(ask, at("2026-10-25T22:59Z"))[1] is first, "a day of 25 hours"
    _, second = policy.track(ask, at("2026-10-25T23:00Z"))
    assert second is not first
    ask.chain = [("acme/a", (Limit.parse("1000/day"),))]
    assert policy.track(ask, at("2026-10-25T23:00Z"))[1].window == "day"
    ask.chain = [("acme/a", (Limit.parse("1000/month@Europe/Berlin"), Limit.parse("1000/90s")))]
    assert policy.track(ask, at("2026-10-25T23:00Z")) is None


# the command line


def test_the_command_shows_windows_in_zones(tmp_path, capsys):
    ledger = str(tmp_path / "l.db")
    with SqliteLedger(ledger) as made:
        made.open("acme", [])
    before = next_midnight(CHATHAM)
    assert main(["ledger", "open", "acme", "--ledger", ledger, "--limit", f"500/day@{CHATHAM.lower()}"]) == 0
    assert main(["ledger", "show", "--ledger", ledger]) == 0
    said = capsys.readouterr().out
    assert f"day@{CHATHAM}" in said
    ends = {f"{datetime.fromtimestamp(one / 1000, ZoneInfo('UTC')):%Y-%m-%d %H:%M:%S}" for one in
            (before, next_midnight(CHATHAM))}  # fmt: skip
    assert any(end in said for end in ends)
    assert main(["ledger", "open", "acme", "--ledger", ledger, "--limit", "500/day@Nowhere"]) == 2
    assert "no time zone 'Nowhere'" in capsys.readouterr().err
    assert windows.zoned(f"day@{CHATHAM}", wall_clock())[2] == next_midnight(CHATHAM)
