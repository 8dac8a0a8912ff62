"""The gateway's file, its keys and its store."""

from __future__ import annotations

import json
import re
import sqlite3
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)

from budgeteer.cli import main  # noqa: E402
from budgeteer.core.errors import InvalidInput, LedgerUnavailable  # noqa: E402
from budgeteer.gateway import keys  # noqa: E402
from budgeteer.gateway.accounts import Accounts  # noqa: E402
from budgeteer.gateway.app import policies_of  # noqa: E402
from budgeteer.gateway.config import Defaults, load  # noqa: E402
from budgeteer.gateway.record import Record  # noqa: E402
from budgeteer.gateway.redis_store import RedisStore  # noqa: E402
from budgeteer.gateway.store import SqliteStore  # noqa: E402
from budgeteer.gateway.stores import connect  # noqa: E402
from budgeteer.ledger import Limit, MemoryLedger  # noqa: E402
from budgeteer.ledger import address as ledgers  # noqa: E402
from budgeteer.ledger.protocol import wall_clock  # noqa: E402
from helpers import servers  # noqa: E402
from helpers.gateway_fixture import toml  # noqa: E402
from helpers.upstream import Upstream  # noqa: E402

PLAIN = toml([("one", "http://127.0.0.1:9/v1", ["m"], "")])
NONE = Defaults((), (), (), (), ("*",), None, None, None)
KINDS = ("all", "money", "requests", "parallel")


def test_a_whole_file(tmp_path):
    text = """
[server]
port = 9000
admin_key_env = "ADMIN"
[ledger]
url = "redis://127.0.0.1/0"
kinds = ["all", "money", "output"]
[scopes."acme"]
limits = ["$50/day"]
[scopes."acme/search"]
limits = ["$5/hour", "requests:60/60s"]
[defaults]
limits = ["parallel:8"]
models = ["small"]
[[upstreams]]
name = "a"
base_url = "https://api.example.com/v1/"
key_env = "KEY"
weight = 3
[[upstreams.models]]
name = "m-1"
aliases = ["small"]
max_output = 100
margin = 1.5
"""
    (tmp_path / "g.toml").write_text(text)
    found = load(tmp_path / "g.toml", {"ADMIN": "0123456789abcdef", "KEY": "sk-secret"})
    assert (found.server.port, found.ledger, found.counted) == (
        9000, "redis://127.0.0.1/0", ("all", "money", "output", "requests", "parallel"),
    )  # fmt: skip
    assert found.scopes["acme/search"] == (Limit("money", 5 * 10**12, "hour"), Limit("requests", 60, 60))
    (upstream,) = found.upstreams
    assert (upstream.base_url, upstream.key, upstream.weight) == ("https://api.example.com/v1", "sk-secret", 3)
    assert (upstream.models[0].bounds.max_output, upstream.models[0].bounds.margin) == (100, 1.5)
    assert "sk-secret" not in repr(found)
    assert "0123456789abcdef" not in repr(found)


@pytest.mark.parametrize(
    ("url", "more", "cap"),
    [
        ("https://api.openai.com/v1", "", "max_completion_tokens"),
        ("https://eu.api.openai.com/v1", "", "max_completion_tokens"),
        ("https://acme.openai.azure.com/openai/v1", "", "max_completion_tokens"),
        ("http://127.0.0.1:11434/v1", "", "max_tokens"),
        ("https://api.openai.com.example.org/v1", "", "max_tokens"),
        ("http://127.0.0.1:11434/v1", 'cap = "max_completion_tokens"', "max_completion_tokens"),
        ("https://api.openai.com/v1", 'cap = "max_tokens"', "max_tokens"),
    ],
)
def test_the_name_of_the_cap_is_the_upstreams(tmp_path, url, more, cap):
    (tmp_path / "g.toml").write_text(toml([("one", url, ["m"], more)]))
    assert load(tmp_path / "g.toml", {}).upstreams[0].models[0].cap == cap


@pytest.mark.parametrize(
    ("before", "after", "below", "what"),
    [
        ("port = 0", "port = 70000", 0, "server.port is 70000"),
        ("port = 0", "prot = 1", 0, "server.prot is unknown; did you mean 'port'?"),
        ("port = 0", 'port = "x"', 0, "whole number"),
        ('kinds = ["all"]', 'kinds = ["dollars"]', 0, "ledger.kinds has 'dollars'"),
        ('kinds = ["all"]', 'kinds = ["all", "all"]', 0, "each kind once"),
        ('kinds = ["all"]', 'kinds = ["requests"]', 0, "always counted"),
        ('name = "one"', 'nam = "one"', -1, "upstreams[0].name is missing"),
        ("http://127", "ftp://127", 0, "upstreams[0].base_url is 'ftp://"),
        ("http://127.0.0.1:9/v1", "http:///v1", 0, "write http(s)://"),
        ('dialect = "both"', 'dialect = "klingon"', 0, "choose one of openai, anthropic, both"),
        (
            'dialect = "both"',
            'dialect = "both"\ncap = "n_predict"',
            1,
            "choose one of max_completion_tokens, max_tokens",
        ),
        ('name = "m"', "name = 3", 0, "upstreams[0].models[0].name is 3"),
        ("max_output = 50", "max_output = 0", 0, "whole number from 1"),
        ("max_output = 50", 'aliases = ["m"]', -2, "upstreams[0].models has m twice"),
        ('dialect = "both"', 'key_env = "NOT_SET"', 0, "NOT_SET, which is not set"),
        ("json = false", 'json = "no"', 0, "give true or false"),
        ("json = false", "json = false\nprompts = true", 1, "logging.prompts is true, but json = false"),
        ("json = false", '[defaults]\nlimits = ["$5/day"]', 1, "limits 'money', which is not counted"),
        ("json = false", '[defaults]\nlimits = ["5 apples"]', 1, "defaults.limits is not usable"),
        ("json = false", "[policies.magic]", 0, "policies.magic is not a policy"),
        ("json = false", '[scopes."a b"]', 0, "scopes.a b path 'a b'"),
        ("[server]", "[server", None, "cannot be read"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, before, after, below, what):
    assert before in PLAIN
    (tmp_path / "g.toml").write_text(PLAIN.replace(before, after, 1))
    with pytest.raises(InvalidInput) as error:
        policies_of(load(tmp_path / "g.toml", {}))
    assert what in str(error.value)
    if below is not None:
        line = PLAIN[: PLAIN.index(before)].count("\n") + 1 + below
        assert f"line {line}:" in str(error.value)


def test_an_admin_key_that_no_header_can_hold(tmp_path):
    (tmp_path / "g.toml").write_text(PLAIN)
    with pytest.raises(InvalidInput, match="not plain ASCII"):
        load(tmp_path / "g.toml", {"BUDGETEER_ADMIN_KEY": "sechzehn-öfter-als-nicht"})


def test_check_says_what_does_not_answer(tmp_path, capsys):
    with Upstream() as upstream:
        text = toml([("up", upstream.url, ["m"], ""), ("down", "http://127.0.0.1:9/v1", ["m"], "")])
        (tmp_path / "g.toml").write_text(text)
        assert main(["serve", "--config", str(tmp_path / "g.toml"), "--check"]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[:3] for line in lines[1:]] == [["ok", "upstream", "up"], ["FAILED", "upstream", "down"]]
        (tmp_path / "g.toml").write_text(toml([("up", upstream.url, ["m"], "")]))
        assert main(["serve", "--config", str(tmp_path / "g.toml"), "--check"]) == 0
        money = toml([("up", upstream.url, ["m"], "")], kinds='["money"]')
        (tmp_path / "g.toml").write_text(money)
        assert main(["serve", "--config", str(tmp_path / "g.toml"), "--check"]) == 1
        said = capsys.readouterr().out
        assert "price of m at up" in said
        assert 'files = ["prices.toml"] below [prices]' in said
        assert "with_fallback" not in said
        # what it says to write is what it takes
        shown = said[said.index('            [models."m"]') : said.index("        or give")]
        (tmp_path / "prices.toml").write_text(shown)
        (tmp_path / "g.toml").write_text(money.replace("[prices]", '[prices]\nfiles = ["prices.toml"]'))
        assert main(["serve", "--config", str(tmp_path / "g.toml"), "--check"]) == 0
        capsys.readouterr()
        (tmp_path / "prices.toml").write_text(shown.replace('"m"', '"n"'))
        assert main(["serve", "--config", str(tmp_path / "g.toml"), "--check"]) == 1
        assert "Add it to a file of [prices] files" in capsys.readouterr().out


def test_keys_from_the_command_line(tmp_path, capsys):
    file = tmp_path / "g.toml"
    file.write_text(toml([("one", "http://127.0.0.1:9/v1", ["m"], "")], ledger=str(tmp_path / "l.db")))
    options = ["--config", str(file)]
    create = ["keys", "create", "acme/search", "--limit", "all:100", "--model", "m", "--max-output", "9", *options]
    create += ["--per-model", "m=all:50", "--per-model", "m=requests:9/day"]
    assert main([*create, "--expires", "2031-01-02"]) == 0
    token = capsys.readouterr().out.strip()
    name, secret = keys.split(token)
    assert main(["keys", "list", "--json", *options]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["id"], found["path"], found["limits"], found["max_output"]) == (name, "acme/search", ["100"], 9)
    assert found["expires"] == 1925078400000
    assert secret not in json.dumps(found)
    assert found["per_model"] == {"m": ["50", "requests:9/day"]}
    assert main([*create, "--per-model", "n=5"]) == 2
    assert "no model and no group" in capsys.readouterr().err
    assert main(["keys", "rotate", name, "--overlap", "2h", *options]) == 0
    rotated = keys.split(capsys.readouterr().out.strip())
    assert rotated[0] == name
    assert main(["keys", "top-up", name, "all:50", *options]) == 0
    assert "150" in capsys.readouterr().out
    assert main(["keys", "top-up", name, "$5", *options]) == 2
    assert main(["keys", "revoke", name, *options]) == 0
    assert main(["keys", "list", *options]) == 0
    assert "revoked" in capsys.readouterr().out
    assert main(["keys", "revoke", "nobody", *options]) == 2
    store = SqliteStore(tmp_path / "l.db.gateway")
    key = keys.decode(store.get_key(name))
    assert keys.matches(key, rotated[1], wall_clock())
    assert keys.matches(key, secret, wall_clock())
    assert not keys.matches(key, secret, wall_clock() + 2 * 3_600_000)
    assert not keys.matches(key, secret[:-1] + "!", wall_clock())
    assert all(secret not in text for text in store.all_keys())


@pytest.mark.parametrize(
    "about",
    [
        {"path": "a b"}, {"limits": "all:5"}, {"limits": ["$5"]}, {"limits": ["all:5", "6"]}, {"models": []},
        {"max_output": -1}, {"expires": "soon"}, {"revoked": False}, {"id": "x"}, {"digest": "x"}, {"name": 5},
    ],
)  # fmt: skip
def test_keys_that_cannot_be(about):
    with pytest.raises(InvalidInput):
        keys.make({"path": "a", **about}, NONE, ("all", "requests", "parallel"), 0)


def test_a_key_survives_the_store():
    key, token = keys.make(
        {"path": "a/b", "limits": ["$5/day", "all:1m"], "per_user": ["all:7/90s"], "models": ["m"]}, NONE, KINDS, 5
    )
    assert keys.decode(keys.encode(key)) == key
    assert keys.split(token) == (key.id, token[len("bk-") + 17 :])
    assert keys.split(token + "x") is None


@pytest.fixture(params=["sqlite", *servers.KINDS])
def store(request, tmp_path):
    if request.param == "sqlite":
        found = SqliteStore(tmp_path / "s", keep=1000)
    else:
        request.getfixturevalue(f"{request.param}_process")
        found = connect(servers.shared(request.param), keep=1000)
    yield found
    found.close()


def _record(n, **more):
    from budgeteer.gateway.live import Live

    return replace(Live(f"r{n}", "chat").record(), **{"at": n, "input": 1, "units": {"all": n}, **more})


def test_changes_of_one_key_by_many_are_not_lost(store):
    store.add_key("k", "0")

    def add():
        for _ in range(20):
            store.change_key("k", lambda text: str(int(text) + 1))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get_key("k") == "80"
    assert store.get_key("other") is None
    with pytest.raises(InvalidInput, match="no key 'other'"):
        store.change_key("other", str)


@pytest.mark.parametrize("server_url", servers.KINDS, indirect=True)
def test_changes_of_one_key_by_several_replicas_are_not_lost(server_url):
    replicas = [connect(server_url) for _ in range(4)]
    replicas[0].add_key("k", "0")

    def add(store):
        for _ in range(20):
            store.change_key("k", lambda text: str(int(text) + 1))

    threads = [threading.Thread(target=add, args=(store,)) for store in replicas]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert replicas[0].get_key("k") == "80"
    for store in replicas:
        store.close()


def test_records_are_kept_once_and_within_bounds(store):
    store.add([_record(n) for n in range(10)])
    store.add([_record(3)])
    rows = store.select("SELECT id, json_extract(units, '$.\"all\"') AS units FROM records ORDER BY n")
    assert [(row["id"], row["units"]) for row in rows] == [(f"r{n}", n) for n in range(10)]
    for base in range(100, 4000, 100):
        store.add([_record(n) for n in range(base, base + 100)])
    kept = [row["at"] for row in store.select("SELECT at FROM records ORDER BY n")]
    assert 1000 <= len(kept) <= 1200
    assert kept[-1] == 3999


def test_refusals_cannot_push_out_what_was_paid(store):
    """Of a store of 1,000: 2,500 refusals, and as many answers of the cache, push out each other only."""
    store.add([_record(n) for n in range(900)])
    for base in range(1000, 6000, 100):
        free = {"input": 0, "outcome": ("refused", "cached")[base % 200 == 0]}
        store.add([_record(n, **free) for n in range(base, base + 100)])
    kept = [row["at"] for row in store.select("SELECT at FROM records ORDER BY n")]
    assert kept[:900] == list(range(900))
    assert 100 <= len(kept) - 900 <= 300
    assert kept[-1] == 5999


def test_records_come_in_the_order_in_which_they_were_added(store):
    for n in range(40):
        store.add([_record(n, input=n % 3)])
        time.sleep(0.002)  # a stream's ids are milliseconds
    assert [row["at"] for row in store.select("SELECT at FROM records ORDER BY n")] == list(range(40))


def _write(store, record):
    """A record as another version has it."""
    if isinstance(store, RedisStore):
        store._client.xadd(store._paid, {"r": json.dumps(record)})
    else:
        statement = "INSERT INTO budgeteer.records (id, paid, data) VALUES (%s, true, %s)"
        store._link.run(lambda connection: connection.execute(statement, (record["id"], json.dumps(record))))


@pytest.mark.parametrize("server_url", servers.KINDS, indirect=True)
def test_records_of_before_are_read_with_what_they_have(tmp_path, server_url):
    """Stores of a version without some fields, and with one that is there no more."""
    later = ("saved", "calls", "first_ms", "wasted", "policy")
    old = {name: value for name, value in _record(1, wasted=7).as_json().items() if name not in later}
    SqliteStore(tmp_path / "s").close()
    with sqlite3.connect(tmp_path / "s") as file:
        for name in later:
            file.execute(f"ALTER TABLE records DROP COLUMN {name}")
        values = [json.dumps(value) if isinstance(value, dict) else value for value in old.values()]
        file.execute(f"INSERT INTO records ({', '.join(old)}) VALUES ({', '.join('?' * len(old))})", values)
    other = connect(server_url)
    _write(other, {**old, "gone": 1})
    for store in (SqliteStore(tmp_path / "s"), other):
        store.add([_record(2, saved={"all": 3})])
        rows = [Record.of_row(row) for row in store.select("SELECT * FROM records ORDER BY n")]
        assert rows == [_record(1), _record(2, saved={"all": 3})]
        store.close()


def test_answers_are_kept_for_each_key_until_their_time(store):
    store.keep_answer("k", {"a": "1", "b": "2"}, 0, 2**42)
    store.keep_answer("other", {"b": "3"}, 0, 2**42)
    store.keep_answer("k", {"b": "4"}, 0, 2**42)  # ids of some servers begin again
    now = int(time.time() * 1000)
    assert store.answers(["a", "b", "c"], now) == {"a": {"k": "1"}, "b": {"k": "4", "other": "3"}}
    store.forget_answer("k", "b")
    store.keep_answer("k", {"late": "5"}, 0, now + 100)
    time.sleep(0.2)
    assert store.answers(["a", "b", "late"], now + 200) == {"a": {"k": "1"}, "b": {"other": "3"}}


def test_answers_are_bounded_for_each_key_and_for_all(store, monkeypatch):
    """The oldest are dropped: those of the key that has too many, and of all keys only where all have too many."""
    module = sys.modules[type(store).__module__]
    for name, value in (("ANSWERS", 100), ("ANSWERS_OF_KEY", 40), ("TRIM_AFTER", 10)):
        monkeypatch.setattr(module, name, value)
    now = int(time.time() * 1000)

    def kept(key):
        found = store.answers([f"{key}{n}" for n in range(200)], now)
        return [int(id.removeprefix(key)) for id in found]

    for n in range(30):
        store.keep_answer("quiet", {f"quiet{n}": "x"}, now, now + 100_000 + n)
    for n in range(200):
        store.keep_answer("busy", {f"busy{n}": "x"}, now, now + 200_000 + n)
    assert sorted(kept("quiet")) == list(range(30))
    assert 40 <= len(kept("busy")) <= 50
    assert max(kept("busy")) == 199
    assert min(kept("busy")) >= 150
    for later, key in ((300_000, "c"), (400_000, "d"), (500_000, "e")):
        for n in range(40):
            store.keep_answer(key, {f"{key}{n}": "x"}, now, now + later + n)
    assert 100 <= sum(map(len, map(kept, ("quiet", "busy", "c", "d", "e")))) <= 110
    assert kept("quiet") == []
    assert len(kept("e")) == 40


def test_a_note_is_changed_in_one_transaction(store):
    store.change_note("n", lambda text: f"{text} 1")
    store.change_note("n", lambda text: f"{text} 2")

    def refuses(text):
        raise InvalidInput("no")

    with pytest.raises(InvalidInput, match="no"):
        store.change_note("n", refuses)
    assert (store.note("n"), store.note("other")) == ("None 1 2", None)


def test_replicas_are_seen(store):
    assert store.beat("a", 5) == {"a": 5}
    assert store.beat("b", 6) == {"a": 5, "b": 6}
    assert store.beat("a", None) == {"b": 6}


def test_a_store_that_is_gone_is_an_error(tmp_path):
    with pytest.raises(LedgerUnavailable):
        SqliteStore(tmp_path / "no" / "such" / "folder")
    store = RedisStore("redis://127.0.0.1:1/0")
    with pytest.raises(LedgerUnavailable):
        store.get_key("x")
    pytest.importorskip("psycopg")
    with pytest.raises(
        LedgerUnavailable, match=r"the gateway's store at postgresql://\*\*\*@127.0.0.1:1/x did not answer"
    ):
        connect("postgresql://me:secret@127.0.0.1:1/x")


def _garbage(path):
    path.write_bytes(b"garbage" * 1000)


def _pages(path):
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)


def _half(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _rows(path):
    with sqlite3.connect(path) as file:
        file.execute("UPDATE records SET units = '{'")
        file.execute("UPDATE keys SET data = 'x'")


def _tables(path):
    with sqlite3.connect(path) as file:
        for table in ("keys", "records"):
            file.execute(f"DROP TABLE {table}")
            file.execute(f"CREATE TABLE {table} (n INTEGER PRIMARY KEY, id, at, input, output, estimated)")


@pytest.mark.parametrize("damage", [_garbage, _pages, _half, _rows, _tables])
def test_a_damaged_store_is_named_as_damaged(tmp_path, damage):
    """Whatever is asked of it, the error says so and what to do; none is a traceback."""
    path = tmp_path / "ledger.db.gateway"
    made = SqliteStore(path)
    made.add([_record(n) for n in range(300)])
    key, _ = keys.make({}, NONE, KINDS, 0)
    made.add_key(key.id, keys.encode(key))
    made.close()
    damage(path)
    said = []
    for ask in (
        lambda store: keys.decode(store.get_key(key.id)),
        lambda store: [keys.decode(text) for text in store.all_keys()],
        lambda store: [Record.of_row(row) for row in store.select("SELECT * FROM records")],
    ):
        try:
            ask(SqliteStore(path))
        except LedgerUnavailable as error:
            said.append("is damaged (" in str(error) and "restore the store from a backup" in str(error))
    assert said == ([True] * 3 if damage is not _tables else [True] * len(said))
    assert said


def test_a_damaged_redis_store_is_named_as_damaged(redis_process):
    from helpers import redis_server

    redis_server.flush()
    store = RedisStore(redis_process)
    store._client.set(store._keys, "garbage")
    store._client.xadd(store._paid, {"r": "{"})
    for ask in (lambda: store.get_key("k"), store.all_keys, lambda: store.select("SELECT * FROM records")):
        with pytest.raises(LedgerUnavailable, match=r"is damaged .*restore the store from a backup"):
            ask()
    store.close()


def test_the_tables_of_a_postgres_store_are_its_own(postgres_process):
    """Damage, another version and a lost connection are told apart; a ledger beside it is not touched."""
    url = servers.shared("postgres")
    with ledgers.connect(url) as ledger:
        ledger.open("a", [Limit("all", 5)])
        store = connect(url)
        store.add([_record(1)])
        store.add_key("k", "{}")
        import psycopg

        with psycopg.connect(url, autocommit=True) as db:
            db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'budgeteer'")
            assert store.get_key("k") == "{}"
            assert [row["id"] for row in store.select("SELECT id FROM records")] == ["r1"]
            assert store.get_key("a\0b") is None
            db.execute("INSERT INTO budgeteer.records (id, paid, data) VALUES ('r2', true, '{')")
            with pytest.raises(LedgerUnavailable, match=r"is damaged .*restore the store from a backup"):
                store.select("SELECT * FROM records")
            db.execute("UPDATE budgeteer.gateway SET format = 1")
            with pytest.raises(
                LedgerUnavailable, match=r"store at .* is of another version of budgeteer \(its format is 1"
            ):
                connect(url)
            db.execute("DROP TABLE budgeteer.keys")
            with pytest.raises(LedgerUnavailable, match=r"is not there any more .*keys"):
                store.get_key("k")
        store.close()
        assert ledger.verify().entries == 1


def test_the_rights_that_the_docs_name_are_enough_for_ledger_and_store(postgres_process):
    url = servers.shared("postgres")
    import psycopg

    with ledgers.connect(url), psycopg.connect(url, autocommit=True) as db:
        connect(url).close()
        db.execute("DROP ROLE IF EXISTS guest")
        db.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
        here = url.replace(url.split("/")[2].split("@")[0], "guest:guest")
        with pytest.raises(LedgerUnavailable, match=r"store at .* is not for this user .*grant this one USAGE"):
            connect(here)
        db.execute("GRANT USAGE ON SCHEMA budgeteer TO guest")
        db.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA budgeteer TO guest")
        store = connect(here, keep=1000)
        store.add_key("k", "1")
        assert store.change_key("k", lambda text: text + "2") == "12"
        assert store.beat("a", 5) == {"a": 5}
        for base in range(0, 3000, 100):
            store.add([_record(base + n, input=n % 2) for n in range(100)])
        held = db.execute(
            "SELECT paid, COUNT(*), MAX(n) - MIN(n) < 2200 FROM budgeteer.records GROUP BY paid ORDER BY paid"
        )
        (_, free, newest), (_, paid, new) = held.fetchall()
        assert (100 <= free <= 200, 1000 <= paid <= 1200, newest, new) == (True, True, True, True)
        assert 1100 <= store.select("SELECT COUNT(*) AS n FROM records")[0]["n"] <= 1400
        store.close()
        with ledgers.connect(here) as ledger:
            ledger.open("a", [Limit("all", 9)])
            ledger.settle(ledger.reserve("a", {"all": 5}).id)
            assert ledger.verify().entries == 3
        db.execute("DROP OWNED BY guest")
        db.execute("DROP ROLE guest")


def test_a_reader_misses_no_record_that_several_replicas_add_at_once(postgres_process):
    """It reads on from the highest number that it has seen, so numbers have to come in order."""
    url = servers.shared("postgres")
    stores, seen, stop = [connect(url) for _ in range(4)], connect(url), threading.Event()

    def add(number):
        for n in range(30):
            stores[number].add([_record(1000 * number + 10 * n + i) for i in range(3)])

    def read():
        while not stop.is_set():
            seen.select("SELECT 1 FROM records")

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    reader = threading.Thread(target=read)
    for thread in (reader, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    reader.join()
    assert seen.select("SELECT COUNT(*) AS n FROM records") == [{"n": 360}]
    for store in (*stores, seen):
        store.close()


def test_every_path_of_accounts_names_all_kinds():
    accounts = Accounts(MemoryLedger(), {"acme": (Limit("all", 5),)}, KINDS)
    key, _ = keys.make({"path": "acme/team", "per_session": ["all:7"]}, NONE, KINDS, 0)
    chain = accounts.chain(key, session="s/1")
    assert [path.split(key.id)[-1] for path, _ in chain[2:]] == ["", chain[3][0].split(key.id)[-1]]
    assert {limit.kind for limit in chain[0][1]} == set(KINDS)
    assert chain[1] == ("acme/team", None)
    with pytest.raises(InvalidInput, match="x-budgeteer-session"):
        accounts.chain(key)


def fields() -> list[tuple[tuple[str, ...], str, str]]:
    """(table, field, what it takes) of every number of a gateway's file, policies included."""
    from budgeteer.gateway import config, toml

    found = set()
    data = {
        "upstreams": [{"name": "a", "base_url": "http://127.0.0.1:9/v1", "models": [{"name": "m"}]}],
        "policies": {"cache": {}, "downgrade": {"models": {"m": "n"}}, "loop": {}, "overflow": {}, "pace": {},
                     "schedule": {"max_tokens": [[0, 5]]}, "tighten": {}, "last-answer": {}},
    }  # fmt: skip

    class Seen(toml.Table):
        def _take(self, name, default):
            kind = sys._getframe(1).f_code.co_name
            if kind in ("whole", "number", "numbers", "pieces"):
                found.add((self.where, name, kind))
            return super()._take(name, default)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toml, "Table", Seen)
        patch.setattr(config, "read", lambda path: Seen(data, (), {}, str(path)))
        policies_of(config.load("g.toml", {}))
    return sorted(found, key=str)


def test_every_number_of_the_file_is_checked(monkeypatch, tmp_path):
    """nan, inf, below nothing, huge: each is refused, by the name of its field."""
    from budgeteer.gateway import config, toml

    of_file = fields()
    assert len(of_file) > 30
    assert {kind for *_, kind in of_file} == {"whole", "number", "numbers", "pieces"}
    huge = "9" * 4000
    for where, name, kind in of_file:
        for text in ("nan", "-nan", "inf", "-inf", "1e999999", "-1", huge, "0x" + "f" * 5000):
            value = {
                "numbers": f"[1.0, {text}]", "pieces": f"[[0, {text}]]",
            }.get(kind, text)  # fmt: skip
            if kind == "pieces" and text in (huge, "0x" + "f" * 5000) and name == "max_tokens":
                continue  # a cap that nothing reaches
            (tmp_path / "x.toml").write_text(f"{name} = {value}\n")
            given = toml.read(tmp_path / "x.toml").data[name]
            usual = {"downgrade": {"models": {"m": "n"}}, "schedule": {"max_tokens": [[0, 5]]}}
            data = {
                "upstreams": [{"name": "a", "base_url": "http://127.0.0.1:9/v1", "models": [{"name": "m"}]}],
                "policies": {where[1]: usual.get(where[1], {})} if where[0] == "policies" else {},
            }  # fmt: skip
            table = data
            for part in where:
                table = table[part] if isinstance(part, int) else table.setdefault(part, {})
            table[name] = given
            monkeypatch.setattr(config, "read", lambda path, data=data: toml.Table(data, (), {}, str(path)))
            with pytest.raises(InvalidInput, match=rf"\b{name} (is|has) "):
                policies_of(config.load("g.toml", {}))


@pytest.mark.parametrize("text", ["x = " + "[" * 100_000, "x = " + "9" * 5000, "x = 1\nx = 2", "\xff"])
def test_what_is_no_toml_is_refused(tmp_path, text):
    (tmp_path / "g.toml").write_text(text, encoding="latin-1")
    with pytest.raises(InvalidInput, match="cannot be read"):
        load(tmp_path / "g.toml", {})


@pytest.mark.parametrize("url", ["mysql://u:pw@x", "file:l.db?mode=ro", "sqlite:///l.db", "http://x", "memory:x"])
def test_a_ledger_of_another_kind_is_refused_by_its_line(tmp_path, url):
    (tmp_path / "g.toml").write_text(toml([("one", "http://127.0.0.1:9/v1", ["m"], "")], ledger=url))
    with pytest.raises(InvalidInput, match=r"line \d+: ledger.url is not usable: no ledger is kept at") as caught:
        load(tmp_path / "g.toml", {})
    assert "pw" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["g.toml"]


def test_a_password_in_an_address_is_not_shown(tmp_path):
    (tmp_path / "g.toml").write_text(toml([("one", "http://me:secret@127.0.0.1:9/v1?x=1", ["m"], "")]))
    with pytest.raises(InvalidInput, match=r"http://\*\*\*@127.0.0.1:9") as caught:
        load(tmp_path / "g.toml", {})
    assert "secret" not in str(caught.value)


def test_the_documented_install_has_what_the_documented_file_needs(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text()
    extras = re.search(r"^pip install '\.\[([\w,]+)\]'", page, re.M)[1].split(",")
    (tmp_path / "g.toml").write_text(re.search(r"```toml\n(\[server\].*?)```", page, re.S)[1])
    config = load(tmp_path / "g.toml", {"OPENAI_API_KEY": "sk-x"})
    assert "money" in config.kinds
    assert config.shipped_prices
    assert {"gateway", "prices"} <= set(extras)
