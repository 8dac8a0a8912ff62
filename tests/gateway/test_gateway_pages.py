"""Pages for a team: states of keys, long lists, changed keys, the holder's own page, times, conversations, phones."""

from __future__ import annotations

import html
import re
import sqlite3
import time
from urllib.parse import quote, urlencode

import pytest

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)

from budgeteer.core.errors import InvalidInput  # noqa: E402
from budgeteer.gateway.conversation import conversation_of  # noqa: E402
from budgeteer.gateway.dashboard import mine, times  # noqa: E402
from budgeteer.gateway.dashboard.html import asset  # noqa: E402
from budgeteer.gateway.key_index import KeyIndex  # noqa: E402
from budgeteer.gateway.record import COLUMNS, Record  # noqa: E402
from budgeteer.gateway.roles import Admin, Grant  # noqa: E402
from budgeteer.gateway.store import SqliteStore  # noqa: E402
from helpers.gateway_fixture import ADMIN, Running, toml  # noqa: E402
from helpers.page import Page  # noqa: E402
from helpers.person import Person  # noqa: E402
from helpers.requests import KEY  # noqa: E402
from helpers.upstream import Upstream, echo  # noqa: E402

EVIL = """"><script>window.pwned=1</script><img src=x onerror="window.pwned=1">'${1}{{7*7}}"""
PRICES = '[models."*"]\ninput = 2.50\noutput = 10\n'


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    (folder / "prices.toml").write_text(PRICES)
    with Upstream(other=echo()) as upstream:
        text = toml([("one", upstream.url, ["echo", "other"], "")], kinds='["all", "money"]')
        text = text.replace("shipped = false", 'shipped = false\nfiles = ["prices.toml"]')
        with Running(folder, text) as found:
            yield found


@pytest.fixture(scope="module")
def person(running):
    return Person(running)


def chat(running, key, model="echo", said="Hi", **headers):
    body = {"model": model, "messages": [{"role": "user", "content": said}], "max_tokens": 20}
    return running.call("/v1/chat/completions", body, key, headers={f"x-budgeteer-{k}": v for k, v in headers.items()})


def words(answer):
    status, _, body = answer
    assert status == 200, body
    assert Page(body).text
    return " ".join(html.unescape(re.sub("<[^>]+>", " ", body)).split())


# the state of a key


def test_a_key_that_refuses_everything_looks_refused(running, person):
    key = running.key("$0.0005/day", path="states", name="tight key")
    name = key.split("-")[1]
    running.admin(f"keys/{name}")
    assert "refuses requests" not in words(person.get(f"/keys?search={name}"))
    assert chat(running, key)[0] == 200
    running.settled()
    assert [chat(running, key)[0] for _ in range(3)] == [402] * 3
    running.settled()
    listed = words(person.get(f"/keys?search={name}"))
    assert re.search(
        r"refuses requests budget_exceeded: \$0\.000432 left of \$0\.0005/day, may cost \$0\.000\d+", listed
    )
    shown = words(person.get(f"/keys/{name}"))
    assert "This key refuses requests: budget_exceeded: $0.000432 left of $0.0005/day" in shown
    assert "resets in" in shown
    assert "the latest 3 requests were refused" in shown
    record = running.admin(f"requests?key={name}&refused=1")["requests"][0]
    assert (record["refused_kind"], record["refused_limit"], record["available"]) == (
        "money",
        "$0.0005/day",
        432_500_000,
    )
    assert record["requested"] > 432_500_000
    one = words(person.get(f"/requests/{record['id']}"))
    assert "budget_exceeded $0.000432 left of $0.0005/day, may cost" in one
    assert "states/tight key" in one
    assert "charge estimated" not in one  # nothing was charged
    assert "Nothing was reserved or charged." in one
    running.admin(f"keys/{name}/top-up", {"amount": "$1/day"})
    assert "refuses requests" not in words(person.get(f"/keys/{name}"))
    chat(running, key, model="nothing")
    running.settled()
    assert "This key refuses requests: model_not_found" in words(person.get(f"/keys/{name}"))
    assert chat(running, key)[0] == 200
    running.settled()
    assert "refuses requests" not in words(person.get(f"/keys/{name}"))


def test_a_key_below_a_spent_account_looks_spent(tmp_path):
    more = '[scopes."team"]\nlimits = ["requests:1/day"]'
    with Upstream() as upstream, Running(tmp_path, toml([("one", upstream.url, ["echo"], "")], extra=more)) as running:
        keys = [running.key(path="team", name=f"key {n}") for n in range(2)]
        assert chat(running, keys[0])[0] == 200
        running.settled()
        running.do(running.gateway.proxy.accounts.open(running.gateway.proxy.accounts.chain(
            running.do(running.gateway.keys.find(keys[1], 0)))))  # fmt: skip
        listed = words(Person(running).get("/keys"))
        assert listed.count("spent 0 requests left of 1/day") == 2


# long lists


def test_keys_are_searched_and_paged(running, person):
    for n in range(60):
        running.key(path=f"many/team{n % 3}", name=f"Somebody {n:02}")
    first = words(person.get("/keys?search=somebody"))
    assert "60 of" in first
    assert first.count("Somebody ") == 50
    assert "1 to 50 of 60" in first
    assert "Somebody 59" in first
    second = words(person.get("/keys?search=somebody&page=2"))
    assert second.count("Somebody ") == 10
    assert "previous 51 to 60 of 60" in second
    both = words(person.get(f"/keys?search={quote('SOME team1')}"))
    assert "20 of" in both
    assert "Somebody 01" in both
    assert "Somebody 02" not in both
    name = running.key(path="many", name="gone").split("-")[1]
    running.admin(f"keys/{name}/revoke", {})
    assert "1 of" in words(person.get(f"/keys?search={name}&state=revoked"))
    assert "0 of" in words(person.get(f"/keys?search={name}&state=valid"))
    assert person.get("/keys?page=0")[0] == 400


def test_limits_are_searched_and_paged(running, person):
    made = [running.key("all:1000", path="limits", name=f"limited-{n:03}") for n in range(101)]
    for key in made:
        chat(running, key, model="nothing")  # opens nothing
        running.admin(f"keys/{key.split('-')[1]}", {"max_output": 9}, method="PATCH")
    found = words(person.get("/budgets?search=limited"))
    assert found.count("limits/limited") == 100
    assert "1 to 100 of 101" in found
    assert words(person.get(f"/budgets?search={quote('limited-042 tokens')}")).count("limits/limited") == 1
    assert "1 limits" in words(person.get(f"/budgets?search={quote('limited-042 tokens')}"))


def test_requests_are_found_by_the_name_of_their_key(running, person):
    keys = [running.key("all:1000", path="named", name=f"Finder {n}") for n in range(2)]
    for key in keys:
        assert chat(running, key, stage=f"stage of {key.split('-')[1]}")[0] == 200
    running.settled()
    assert words(person.get("/requests?key=finder")).count("stage of") == 2
    assert words(person.get(f"/requests?key={quote('Finder 1')}")).count("stage of") == 1
    assert words(person.get(f"/requests?key={keys[0].split('-')[1]}")).count("stage of") == 1
    assert "No such request." in words(person.get("/requests?key=nobody-has-this-name"))
    assert person.get("/requests.csv?key=finder")[0] == 200


def test_a_key_is_decoded_once(monkeypatch, tmp_path):
    import asyncio

    from budgeteer.gateway import key_index, keys

    store, seen = SqliteStore(tmp_path / "store"), []
    for n in range(3):
        store.add_key(str(n), keys.encode(KEY).replace('"name":""', f'"name":"k{n}"').replace(KEY.id, f"{n:016x}"))
    monkeypatch.setattr(key_index, "decode", lambda text: seen.append(text) or keys.decode(text))
    index = KeyIndex(store)
    for _ in range(3):
        assert len(asyncio.run(index.find("k", "", 0))) == 3
        index.forget()
    assert len(seen) == 3
    store.add_key("3", keys.encode(KEY))
    assert len(asyncio.run(index.keys())) == 4
    assert len(seen) == 4
    store.close()


def test_records_of_a_key_and_of_a_conversation_have_an_index_also_in_an_older_store(tmp_path):
    path = tmp_path / "store"
    store = SqliteStore(path)
    store.add([Record(id="a", key="k", conversation="c")])
    store.close()
    old = sqlite3.connect(path)
    old.executescript("DROP INDEX records_key; DROP INDEX records_conversation")
    for column in ("conversation", "requested"):
        old.execute(f"ALTER TABLE records DROP COLUMN {column}")
    old.close()
    store = SqliteStore(path)
    assert Record.of_row(store.select("SELECT * FROM records")[0]).requested is None
    plans = [
        store.select(f"EXPLAIN QUERY PLAN SELECT id FROM records WHERE {where} ORDER BY n DESC LIMIT 1", ("x",))[0]
        for where in ("key = ?", "conversation != '' AND conversation = ?")
    ]
    assert "records_key" in plans[0]["detail"]
    assert "records_conversation" in plans[1]["detail"]
    store.close()


# a key is changed


def form_of(body):
    """The fields of the form that changes a key, as a browser would send them."""
    form = body[body.index("/change") :]
    named = re.findall(r'<input[^>]*name="(\w+)" value="([^"]*)"', form)
    named += re.findall(r'<textarea name="(\w+)"[^>]*>([^<]*)</textarea>', form)
    return {name: value.replace("&quot;", '"').replace("&amp;", "&") for name, value in named}


def test_a_key_is_changed_in_the_dashboard(running, person):
    key = running.key("$5/day", "requests:60/60s", path="edit", name="before", expires=4_073_500_800_123)
    name = key.split("-")[1]
    form = form_of(person.get(f"/keys/{name}")[2])
    assert (form["name"], form["limits"], form["models"]) == ("before", "$5/day\nrequests:60/60s", "*")
    form |= {"name": "after", "limits": "$6/day\r\nrequests:60/60s", "per_model": "echo = $1/day\r\necho = parallel:2"}
    assert person.post(f"/keys/{name}/change", **{**form, "max_output": "1,000", "models": "echo, other"})[0] == 303
    found = running.admin(f"keys/{name}")["key"]
    assert (found["name"], found["limits"]) == ("after", ["$6/day", "requests:60/60s"])
    assert found["per_model"] == {"echo": ["$1/day", "parallel:2"]}
    assert (found["max_output"], found["models"]) == (1000, ["echo", "other"])
    assert found["expires"] == 4_073_500_800_123  # what was not changed in the form stays to the millisecond
    again = form_of(person.get(f"/keys/{name}")[2])
    assert person.post(f"/keys/{name}/change", **{**again, "max_output": "", "per_model": "", "models": ""})[0] == 303
    found = running.admin(f"keys/{name}")["key"]
    assert (found["max_output"], found["per_model"], found["models"]) == (None, {}, ["*"])
    # a form that is older than the key changes nothing, and keeps what was written
    status, _, body = person.post(f"/keys/{name}/change", **{**again, "limits": "$9"})
    assert status == 400
    assert "somebody has changed this key meanwhile" in body
    assert "$9</textarea>" in body
    for bad in (
        {"limits": "lots"},
        {"per_model": "echo"},
        {"per_model": "ecko = 5"},
        {"max_input": "1,5"},
        {"expires": "x"},
    ):
        status, _, body = person.post(f"/keys/{name}/change", **{**form_of(person.get(f"/keys/{name}")[2]), **bad})
        assert status == 400, bad
        assert "problem" in body
    assert running.admin(f"keys/{name}")["key"] == found


def test_a_key_is_rotated_in_the_dashboard(running, person):
    old = running.key("all:1000", path="edit", name="turning")
    name = old.split("-")[1]
    status, headers, body = person.post(f"/keys/{name}/rotate", token=person.token(), overlap="1h")
    new = re.search(r"bk-[0-9a-f]{16}-[\w-]{43}", body)[0]
    assert (status, headers["cache-control"]) == (200, "no-store")
    assert "Its earlier one works until" in body
    assert {chat(running, key)[0] for key in (old, new)} == {200}
    assert "an earlier secret works until" in words(person.get(f"/keys/{name}"))
    assert new not in person.get(f"/keys/{name}")[2]
    assert person.post(f"/keys/{name}/rotate", token=person.token(), overlap="ever")[0] == 400
    running.settled()


def test_every_form_needs_its_token(running, person):
    key = running.key("all:1000", path="csrf", name="kept")
    name = key.split("-")[1]
    before = running.admin(f"keys/{name}")["key"]
    for action, form in (("change", {"name": "taken"}), ("rotate", {"overlap": "0"}), ("top-up", {"amount": "5"}),
                         ("revoke", {"sure": "yes"})):  # fmt: skip
        path = f"/keys/{name}/{action}"
        seen = form_of(person.get(f"/keys/{name}")[2])["seen"]
        assert person.post(path, **form, seen=seen)[0] == 403
        assert person.post(path, **form, seen=seen, token="0" * 64)[0] == 403
        token = person.token()
        assert person.post(path, {"sec-fetch-site": "cross-site"}, **form, seen=seen, token=token)[0] == 403
        stranger = Person(running, "wrong")
        status, headers, _ = stranger.post(path, **form, seen=seen, token=token)
        assert (status, headers["location"]) == (303, "/login")
    assert running.admin(f"keys/{name}")["key"] == before
    assert chat(running, key)[0] == 200
    running.settled()


# the holder of a key


def test_a_holder_logs_in_with_the_own_key_and_sees_only_that(running, person):
    key = running.key("$1/day", path="mine", name="my own", per_model={"echo": ["all:5k"]})
    other = running.key("$1/day", path="mine", name="another one")
    for paid in (key, other):
        assert chat(running, paid, stage=f"by {paid.split('-')[1]}")[0] == 200
    running.settled()
    holder = Person(running, key)
    assert (holder.status, holder.headers["location"]) == (303, "/mine")
    flags = {flag.strip().lower() for flag in holder.headers["set-cookie"].split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/mine"} <= flags
    assert key not in str(holder.headers)
    shown = words(holder.get("/mine"))
    for text in ("my own", "dollars of", "$1.00", "tokens of echo", "4,988", "1, 0 refused", f"by {key.split('-')[1]}"):
        assert text in shown or text == "dollars of", text
    assert "another one" not in shown
    assert other.split("-")[1] not in holder.get("/mine")[2]
    for path in (
        "/",
        "/budgets",
        "/requests",
        "/keys",
        f"/keys/{key.split('-')[1]}",
        "/requests.csv",
        "/conversation?name=x",
    ):
        status, headers, body = holder.get(path)
        assert (status, headers["location"], body) == (303, "/login", ""), path
    assert holder.post(f"/keys/{key.split('-')[1]}/top-up", amount="$5")[1]["location"] == "/login"
    ids = {paid: running.admin(f"requests?key={paid.split('-')[1]}")["requests"][0]["id"] for paid in (key, other)}
    assert holder.get(f"/mine/requests/{ids[key]}")[0] == 200
    assert holder.get(f"/mine/requests/{ids[other]}")[0] == 404
    assert person.get("/mine")[1]["location"] == "/login"  # an admin's cookie is of no key
    # no address widens what is seen
    for query in (f"key={other.split('-')[1]}", "path=mine", "range=30d", "before=999999999"):
        assert "another one" not in holder.get(f"/mine?{query}")[2]
        assert f"by {other.split('-')[1]}" not in holder.get(f"/mine?{query}")[2]
    assert holder.get("/mine?range=nothing")[0] == 400


def test_a_holders_session_ends_with_the_key_and_cannot_be_forged(running):
    key = running.key("$1/day", path="mine", name="ending")
    other = running.key("$1/day", path="mine", name="robbed")
    holder = Person(running, key)
    assert holder.get("/mine")[0] == 200
    cookie = holder.cookie
    about, _, mac = cookie.partition("=")[2].rpartition(".")
    name, until, nonce = about.split(".")
    record = running.do(running.gateway.keys.find(key, 0))
    late = f"{name}.1.{nonce}"
    forged = (
        f"{other.split('-')[1]}.{until}.{nonce}.{mac}", f"{name}.{int(until) + 99}.{nonce}.{mac}",
        f"{about}.{'0' * 64}", f"{late}.{mine._mac(record.digest, 'session', late)}", "..", "", "a.b.c.d",
        f"{name}", "é.é.é.é", f"{name}.x.y.z",
        f"{'0' * 16}.{until}.{nonce}.{mac}",
    )  # fmt: skip
    for text in forged:
        holder.cookie = f"{mine.COOKIE}={text}".encode().decode("latin-1")
        assert holder.get("/mine")[1]["location"] == "/login", text
    holder.cookie = cookie
    token = re.search(r'name="token" value="(\w+)"', holder.get("/mine")[2])[1]
    assert holder.post("/mine/logout")[0] == 403
    assert holder.post("/mine/logout", token="0" * 64)[0] == 403
    assert holder.post("/mine/logout", {"sec-fetch-site": "cross-site"}, token=token)[0] == 403
    assert holder.post("/mine/logout", token=token)[1]["set-cookie"].lower().count("max-age=0") == 1
    assert Person(running, key[:-1] + ("a" if key[-1] != "a" else "b")).status == 401
    assert Person(running, key).post("/login", {"sec-fetch-site": "cross-site"}, key=key)[0] == 403
    running.admin(f"keys/{key.split('-')[1]}/rotate", {"overlap": "1h"})
    assert holder.get("/mine")[1]["location"] == "/login"
    again = Person(running, other)
    assert again.get("/mine")[0] == 200
    running.admin(f"keys/{other.split('-')[1]}/revoke", {})
    assert again.get("/mine")[1]["location"] == "/login"
    assert "revoked" in Person(running, other).body


def test_holders_log_in_where_no_admin_key_is_set(tmp_path):
    from budgeteer.gateway import config as configs

    with Upstream() as upstream:
        closed = Running(tmp_path, toml([("one", upstream.url, ["echo"], "")]))
        closed.config = configs.load(tmp_path / "gateway.toml", {})
        with closed:
            queries = closed.gateway._holder._queries.of(Admin("somebody", (Grant("admin"),), "key"))
            _, key = closed.do(queries.make_key({"name": "only me"}))
            holder = Person(closed, key)
            assert "only me" in words(holder.get("/mine"))
            assert holder.get("/")[0] == 303
            assert Person(closed, ADMIN).status == 403


def test_hostile_names_are_text_on_the_new_pages(running, person):
    key = running.key("all:500", path="evil", name=EVIL, models=[EVIL, "*"], per_model={"echo": ["all:400"]})
    name, header = key.split("-")[1], EVIL.encode().decode("latin-1")
    chat(running, key, session=header, stage=header, user=header)
    chat(running, key, model=EVIL, session=header)
    running.settled()
    record = running.admin(f"requests?key={name}")["requests"][-1]
    assert record["conversation"] == EVIL
    holder = Person(running, key)
    query = urlencode({"key": name, "name": EVIL})
    seen = 0
    for reader, path in (
        (person, f"/conversation?{query}"), (person, f"/keys?search={quote(EVIL)}"),
        (person, f"/keys?state={quote(EVIL)}"),
        (person, f"/budgets?search={quote(EVIL)}"), (person, f"/requests?key={quote(EVIL)}&from={quote(EVIL)}"),
        (person, f"/?from={quote(EVIL)}"), (person, f"/keys/{name}?to={quote(EVIL)}"), (person, f"/keys/{name}"),
        (holder, "/mine"), (holder, f"/mine/conversation?name={quote(EVIL)}"), (holder, f"/mine?from={quote(EVIL)}"),
        (holder, f"/mine/requests/{record['id']}"), (holder, f"/mine/requests/{quote(EVIL, safe='')}"),
    ):  # fmt: skip
        status, headers, body = reader.get(path)
        if status == 404 and "content-security-policy" not in headers:
            continue
        assert status < 500, path
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        found = Page(body)
        assert EVIL not in body
        assert found.tags.count("script") <= 1, path
        assert not [one for one, _ in found.attributes if one.startswith("on") or one == "style"], path
        assert not {"img", "iframe", "style"} & set(found.tags), path
        seen += EVIL in found.text or EVIL in [value for _, value in found.attributes]
    assert seen >= 7
    reader = Person(running)
    reader.cookie += f"; {times.COOKIE}={quote(EVIL)}"
    assert 'data-zone="UTC"' in reader.get("/")[2]
    form = {**form_of(person.get(f"/keys/{name}")[2]), "limits": EVIL, "name": EVIL, "per_model": EVIL}
    status, _, body = person.post(f"/keys/{name}/change", **form)
    assert status == 400
    assert EVIL not in body


# times


def zoned(zone):
    times.ZONE.set(times.zone_of({times.COOKIE: zone}))


@pytest.mark.parametrize(
    "zone", ["", "Mars/Olympus", "../../etc/passwd", "/etc/localtime", "Europe", "x" * 500, "a/b/c/d"]
)
def test_a_zone_that_is_not_known_is_utc(zone):
    zoned(zone)
    assert times.zone_name() == "UTC"


def test_times_are_of_the_readers_zone(running, person):
    reader = Person(running)
    reader.cookie += f"; {times.COOKIE}=Asia/Kolkata"
    key = running.key("all:1000", path="zones")
    assert chat(running, key)[0] == 200
    record = running.settled()[-1]
    utc, there = (Person(running).get(f"/requests/{record['id']}")[2], reader.get(f"/requests/{record['id']}")[2])
    moments = [record["at"], record["at"] + 19_800_000]  # 5:30 hours
    shown = [time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at / 1000)) for at in moments]
    assert shown[0] in utc
    assert shown[1] in there
    assert "Times are in Asia/Kolkata." in there
    begins = time.strftime("%Y-%m-%dT%H:%M", time.gmtime(moments[1] / 1000 - 60))
    assert str(record["id"]) in reader.get(f"/requests?path=zones&from={begins}")[2]
    assert str(record["id"]) not in Person(running).get(f"/requests?path=zones&from={begins}")[2]
    assert person.get("/?from=2026-01-01T00:00&to=2026-01-08T00:00")[0] == 200


def test_a_free_range_by_hand():
    zoned("Europe/Berlin")
    day = times.span_of({"from": "2026-07-01T00:00", "to": "2026-07-02T00:00"}, 1_800_000_000_000, "1h")
    assert (day.since, day.until) == (1_782_856_800_000, 1_782_943_200_000)  # midnight there is 22:00 UTC
    assert day.step == 1800
    assert day.times(0)[0] == day.since
    assert len(day.times(0)) == 48
    month = times.span_of({"from": "2026-06-01", "to": "2026-07-01"}, 1_800_000_000_000, "1h")
    assert month.step == 43_200
    assert month.times(0)[0] == month.since  # bars begin at midnight there
    preset = times.span_of({"range": "7d"}, 1_782_943_200_000, "1h")
    assert (preset.until, preset.range, preset.said) == (None, "7d", "last 7 days")
    zoned("")
    for query in ({"from": "2026-07-02", "to": "2026-07-01"}, {"from": "soon"}, {"to": "9999-12-31T23:59"},
                  {"range": "x"}, {"from": "1900-01-01"}, {"from": "0001-01-01", "to": "0001-01-02"}):  # fmt: skip
        with pytest.raises(InvalidInput):
            times.span_of(query, 1_782_943_200_000, "1h")


# conversations


def test_a_conversations_requests_stand_in_a_row(running, person):
    key = running.key("all:10k", path="talk", name="talker")
    name = key.split("-")[1]
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "One?"}]
    for n in range(3):
        body = {"model": "echo", "messages": turns, "max_tokens": 20}
        assert running.call("/v1/chat/completions", body, key)[0] == 200
        turns = [*turns, {"role": "assistant", "content": "word"}, {"role": "user", "content": f"More {n}?"}]
        running.settled()
    assert chat(running, key, said="Another conversation")[0] == 200
    running.settled()
    records = running.admin(f"requests?key={name}")["requests"][::-1]
    called = {record["conversation"] for record in records[:3]}
    assert len(called) == 1
    (conversation,) = called
    assert records[3]["conversation"] not in called
    assert "brief" not in conversation
    shown = words(person.get(f"/conversation?{urlencode({'key': name, 'name': conversation})}"))
    assert "requests 3 refused 0 tokens 21 in" in shown
    assert re.search(r" 1 20\S+ .* 2 20\S+ .* 3 20", shown)
    assert "21 in (0 cached), 15 out" in shown
    assert f"/conversation?key={name}&amp;name={conversation}" in person.get(f"/requests/{records[0]['id']}")[2]
    assert words(Person(running, key).get(f"/mine/conversation?name={conversation}")).count("echo") == 3
    other = running.key("all:10k", path="talk")
    assert Person(running, other).get(f"/mine/conversation?name={conversation}")[0] == 404
    assert chat(running, key, session="of my own")[0] == 200
    running.settled()
    assert running.admin(f"requests?conversation={quote('of my own')}")["requests"][0]["session"] == "of my own"


def test_what_belongs_to_a_conversation():
    def name(messages, user="", **more):
        return conversation_of({"messages": messages, **more}, KEY, user)

    one = [{"role": "user", "content": "Hi"}]
    assert len(name(one)) == 16
    assert name(one) == name([*one, {"role": "assistant", "content": "x"}, {"role": "user", "content": "y"}])
    different = (name(one), name(one, "ann"), name(one, system="S"), name([{"role": "user", "content": "Ho"}]))
    assert len(set(different)) == 4
    for body in ({"prompt": "x"}, {"input": ["a", "b"]}, {"input": "text"}, {"messages": []}, {"messages": ["x"]},
                 {"messages": [{"role": "assistant"}]}, {"messages": 5}):  # fmt: skip
        assert conversation_of(body, KEY, "") == ""


# phones


def test_nothing_is_cut_off_or_wider_than_a_phone():
    css = asset("static/dashboard.css").decode()
    phone = css[css.index("@media (max-width: 620px)") :]
    assert "text-overflow" not in css
    assert not re.search(r"td[^{]*{[^}]*overflow: hidden", css)
    for rule, pixels in re.findall(r"(?<!max-)(?<!\w)((?:min-)?width): (\d+)px", css):
        assert int(pixels) <= 320, rule
    assert re.search(r"\.bar input\[type=datetime-local\] { width: 100%; }", phone)
    assert re.search(r"\.scroll { overflow-x: auto; }", css)


def test_every_table_scrolls_inside(running, person):
    key = running.key("all:500", path="phones", name="phone")
    chat(running, key, session="s")
    running.settled()
    name = key.split("-")[1]
    pages = ["/", "/budgets", "/requests", "/keys", f"/keys/{name}", f"/conversation?key={name}&name=s"]
    for reader, paths in ((person, pages), (Person(running, key), ["/mine", "/mine/conversation?name=s"])):
        for path in paths:
            body = reader.get(path)[2]
            assert body.count("<table") == body.count('<div class="scroll" tabindex="0"><table') > 0, path
            for wide, heads, rows in re.findall(r'<table( class="wide")?>(.*?)<tbody>(.*?)</tbody>', body, re.S):
                named = re.findall(r'<th scope="col"[^>]*>(.*?)</th>', heads)
                for row in rows.split("</tr>")[:-1]:  # on a phone each cell stands beside its heading
                    assert re.findall(r'<td[^>]* data-head="(.*?)"', row) == (named if wide else []), path
            assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in body


def test_the_fields_of_a_refusal_are_in_the_record():
    names = [column.name for column in COLUMNS]
    assert {"refused_kind", "refused_limit", "requested", "available", "conversation"} <= set(names)
