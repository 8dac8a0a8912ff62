"""Each route of admins for each role, what is shown and may be changed below a path, and who changed what."""

from __future__ import annotations

import dataclasses
import hashlib
import html
import json

import pytest

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)

from budgeteer.core.errors import InvalidInput  # noqa: E402
from budgeteer.gateway import admin, changes, keys  # noqa: E402
from budgeteer.gateway import config as configs  # noqa: E402
from budgeteer.gateway.filters import where  # noqa: E402
from budgeteer.gateway.roles import ADMIN as FULL  # noqa: E402
from budgeteer.gateway.roles import CHANGE, MANAGER, NOTHING, READ, READ_ALL, VIEWER, Admin, Grant, Reach  # noqa: E402
from budgeteer.gateway.rules import RULES, check  # noqa: E402
from budgeteer.gateway.store import CHANGES, SqliteStore  # noqa: E402
from budgeteer.gateway.stores import connect  # noqa: E402
from helpers import servers  # noqa: E402
from helpers.gateway_fixture import ADMIN, Running, toml  # noqa: E402
from helpers.person import Person  # noqa: E402
from helpers.upstream import Upstream  # noqa: E402

HI = [{"role": "user", "content": "Hi"}]
WHO = {
    "ada": ("admin", []),
    "mia": ("manager", ["acme/search"]),
    "max": ("manager", ["acme/ads", "acme/search"]),
    "vera": ("viewer", []),
    "vic": ("viewer", ["acme/search"]),
}
"""Name -> role and paths; the key of each is the name, and a tail that makes it long."""
OPEN = {
    ("GET", "/healthz"), ("GET", "/openapi.json"), ("GET", "/login"), ("POST", "/login"), ("GET", "/static/{name}"),
    ("GET", "/mine"), ("GET", "/mine/requests/{id}"), ("GET", "/mine/conversation"), ("POST", "/mine/logout"),
}  # fmt: skip
"""Routes that are not for admins: of everybody, and of the holders of keys."""


def key_of(name):
    return f"{name}-key-0123456789-0123456789"


def admins(who=WHO):
    return "\n".join(
        f'[[admins]]\nname = "{name}"\nrole = "{role}"\npaths = {json.dumps(paths)}\n'
        f'key_sha256 = "{hashlib.sha256(key_of(name).encode()).hexdigest()}"'
        for name, (role, paths) in who.items()
    )


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with Upstream() as upstream:
        extra = '[scopes."acme"]\nlimits = ["1m"]\n[scopes."acme/search"]\nlimits = ["500k"]\n' + admins()
        text = toml([("one", upstream.url, ["echo"], "")], extra=extra)
        with Running(tmp_path_factory.mktemp("roles"), text) as running:
            running.ids, running.requests = {}, {}
            for n, path in enumerate(("acme/search", "acme/ads", "acme/searching"), 1):
                token = running.key("100k", path=path, name=path.rpartition("/")[2])
                running.ids[path] = token.split("-")[1]
                body = {"model": "echo", "messages": HI, "max_tokens": 5}
                assert running.call("/v1/chat/completions", body, token)[0] == 200
                running.requests[path] = running.settled(n)[-1]["id"]
            yield running


@pytest.fixture(scope="module")
def people(running):
    return {name: Person(running, key_of(name)) for name in WHO}


def served(running):
    """(method, path) of each route of the application."""
    found = set()
    for route in running.gateway._others.routes:
        found |= {(method, route.path) for method in (route.methods or {"GET"}) - {"HEAD"}}
    return found


def test_every_route_has_a_rule(running):
    routes = served(running)
    assert routes - OPEN == set(RULES)
    assert routes >= OPEN


def test_a_route_without_a_rule_is_not_served():
    """Adding a route and forgetting its rule is an error at its first use, not an open door."""
    someone = Admin("x", (Grant(FULL),), "key")
    with pytest.raises(KeyError):
        check(someone, "GET", "/admin/api/something-new")


# what each role needs, written down a second time
ALLOWED = {
    "ada": {READ, READ_ALL, CHANGE}, "mia": {READ, CHANGE}, "max": {READ, CHANGE}, "vera": {READ, READ_ALL},
    "vic": {READ},
}  # fmt: skip
CHANGING = {route for route in RULES if route[0] in ("POST", "PATCH") and route[1] != "/logout"}
WHOLE = {("GET", "/metrics"), ("GET", "/admin/api/upstreams")}


def test_what_changes_needs_the_right_to_change():
    assert {route for route, need in RULES.items() if need == CHANGE} == CHANGING
    assert {route for route, need in RULES.items() if need == READ_ALL} == WHOLE


BODIES = {
    "/keys": {"limits": ["5"]}, "/keys/{id}": {"max_output": 5}, "/keys/{id}/top-up": {"amount": "5"},
    "/keys/{id}/rotate": {"overlap": "0"}, "/keys/{id}/revoke": {},
}  # fmt: skip
"""What the admin API is sent to change something."""


def ask(running, person, key, method, path, at="acme/search"):
    """The status of a use of a route, with what belongs to an account; what changes has a key of its own."""
    name = running.requests[at] if "/requests/{id}" in path else running.ids[at]
    if method != "GET" and "{id}" in path:
        name = running.key("5", path=at).split("-")[1]
    place = path.replace("{id}", name)
    if path == "/budget":
        place += f"?path={at}&kind=all&window="
    if path == "/conversation":
        place += "?name=x"
    if path.startswith("/admin/api") or path == "/metrics":
        body = BODIES.get(path.removeprefix("/admin/api")) if method != "GET" else None
        return running.call(place, {**body, "path": at} if path == "/admin/api/keys" and body else body, key, method)[0]
    if method == "GET":
        return person.get(place)[0]
    if path == "/logout":
        person = Person(running, key)
    about = running.admin(f"keys/{name}")["key"] if "{id}" in path else {}
    seen = keys.version(keys.decode(running.gateway.store.get_key(name))) if about else ""
    form = {"path": at, "limits": "5", "models": "*", "amount": "5", "overlap": "0", "sure": "yes", "seen": seen}
    return person.post(place, token=person.token(), **form)[0]


@pytest.mark.parametrize("route", sorted(RULES), ids=" ".join)
def test_each_role_at_each_route(running, people, route):
    for name in WHO:
        status = ask(running, people[name], key_of(name), *route)
        allowed = RULES[route] in ALLOWED[name]
        assert status in (200, 201, 303) if allowed else status == 403, (name, status)


@pytest.mark.parametrize(
    "route", sorted(route for route in RULES if "{id}" in route[1] or route in CHANGING), ids=" ".join
)
def test_a_role_ends_at_its_path(running, people, route):
    for at in ("acme/ads", "acme/searching"):
        for name in ("vic", "mia"):
            assert ask(running, people[name], key_of(name), *route, at) == 403, (name, at)
    if RULES[route] in ALLOWED["max"]:
        assert ask(running, people["max"], key_of("max"), *route, "acme/ads") in (200, 201, 303)


def test_a_manager_makes_and_changes_keys_below_the_own_paths_only(running, people):
    mia = key_of("mia")
    for path in ("acme", "acme/ads", "acme/searching", "other", ""):
        status, _, said = running.call("/admin/api/keys", {"path": path}, mia)
        assert (status, said["error"]["code"]) == (403, "not_allowed"), path
        assert people["mia"].post("/keys", token=people["mia"].token(), path=path)[0] == 403
    status, _, made = running.call("/admin/api/keys", {"path": "acme/search/deep", "limits": ["5"]}, mia)
    assert status == 201
    name = made["key"]["id"]
    assert running.call(f"/admin/api/keys/{name}/top-up", {"amount": "5"}, mia)[2]["key"]["limits"] == ["10"]
    assert running.call(f"/admin/api/keys/{name}/rotate", {}, mia)[0] == 200
    assert running.call(f"/admin/api/keys/{name}/revoke", b"", mia, "POST")[0] == 200
    other = running.ids["acme/ads"]
    before = running.admin(f"keys/{other}")["key"]
    for method, path, body in (
        ("PATCH", "", {"limits": []}), ("POST", "/top-up", {"amount": "5"}), ("POST", "/rotate", {}),
        ("POST", "/revoke", {}),
    ):  # fmt: skip
        status, _, said = running.call(f"/admin/api/keys/{other}{path}", body, mia, method)
        assert (status, said["error"]["code"]) == (403, "not_allowed"), path
        assert "acme/ads" not in said["error"]["message"]  # where it is stays untold
    assert running.admin(f"keys/{other}")["key"] == before


@pytest.mark.parametrize("name", ["mia", "vic"])
def test_nothing_of_other_teams_is_shown(running, people, name):
    own, key = running.ids["acme/search"], key_of(name)

    def get(path):
        return running.call(f"/admin/api/{path}", None, key)[2]

    assert {one["path"].startswith("acme/search/") or one["path"] == "acme/search" for one in get("keys")["keys"]} == {
        True
    }
    assert {row["path"].split("/")[:2] == ["acme", "search"] for row in get("balances")["balances"]} == {True}
    assert get("balances?path=acme/ads")["balances"] == []
    assert [one["key"] for one in get("requests")["requests"]] == [own]
    assert get(f"requests?key={running.ids['acme/ads']}")["requests"] == []
    assert get("requests?path=acme")["requests"][0]["key"] == own
    assert [row["key"] for row in get("spend?by=key")["rows"]] == [own]
    summary = get("summary")
    assert summary["requests"] == 1
    assert not {"upstreams", "turned_away", "records_dropped"} & set(summary)
    assert running.call("/admin/api/requests.csv", None, key)[2].decode().count("\n") == 2
    assert {one["path"].split("/")[1] for one in get("changes")["changes"]} == {"search"}
    others = (running.ids["acme/ads"], running.ids["acme/searching"], "acme/ads", "searching", "127.0.0.1")
    asked = ("/?by=key&range=24h", "/?by=scope&range=24h", "/requests?key=ads", "/budgets?search=ads")
    for path in ("/", "/budgets", "/requests", "/requests.csv", "/keys", "/changes", f"/keys/{own}", *asked):
        status, _, body = people[name].get(path)
        assert status == 200, path
        for other in others:
            assert other not in body.replace('value="ads"', ""), (path, other)


def test_pages_offer_what_the_reader_may_do(running, people):
    own, other = (f"/keys/{running.ids[path]}" for path in ("acme/search", "acme/ads"))
    for name, makes, changes_own in (
        ("ada", True, True),
        ("mia", True, True),
        ("vera", False, False),
        ("vic", False, False),
    ):
        assert ('action="/keys"' in people[name].get("/keys")[2]) is makes
        assert (f'action="{own}/top-up"' in people[name].get(own)[2]) is changes_own
    assert f'action="{other}/top-up"' not in people["vera"].get(other)[2]
    assert "vic, viewer of acme/search" in people["vic"].get("/")[2]
    assert 'name="path" value="acme/search"' in people["mia"].get("/keys")[2]


def test_the_admin_key_is_an_admin_with_all_rights(running):
    assert running.call("/metrics")[0] == 200
    assert "admin, admin" in Person(running).get("/")[2]


def test_a_wrong_key_is_no_admin(running):
    for key in ("", "x", key_of("nobody"), hashlib.sha256(key_of("ada").encode()).hexdigest()):
        assert running.call("/admin/api/keys", None, key)[0] == 401
        assert Person(running, key or "x").status == 401


def test_a_session_ends_with_its_key(tmp_path):
    text = toml([("one", "http://127.0.0.1:9/v1", ["echo"], "")], extra=admins())
    with Running(tmp_path, text) as running:
        mia, ada = Person(running, key_of("mia")), Person(running, key_of("ada"))
        assert mia.get("/keys")[0] == 200
        fewer = {**WHO, "ada": ("viewer", [])}
        del fewer["mia"]
        (tmp_path / "gateway.toml").write_text(text.replace(admins(), admins(fewer)))
        wanted = configs.load(tmp_path / "gateway.toml", {"BUDGETEER_ADMIN_KEY": ADMIN})
        running.do(running.gateway.renew(wanted))
        assert mia.get("/keys")[0] == 303
        assert ada.get("/keys")[0] == 200
        assert ada.post("/keys", token=ada.token(), path="acme")[0] == 403  # the file decides now, not the cookie


# reach


def test_roles_are_joined():
    both = Admin("x", (Grant(MANAGER, "a"), Grant(VIEWER, "b/c")), "key")
    assert (both.reads, both.changes) == (Reach(("a", "b/c")), Reach(("a",)))
    assert not both.may(READ_ALL)
    assert str(both) == "x, manager of a, viewer of b/c"
    assert where({}, NOTHING)[0] == " WHERE (FALSE)"


# changes


def test_every_change_is_recorded_with_who_made_it(running, people):
    ada = people["ada"]
    ada.post("/keys", token=ada.token(), path="acme/audit", name="<b>one", limits="5")
    made = next(one for one in running.admin("keys")["keys"] if one["path"] == "acme/audit")["id"]
    max_, mia = key_of("max"), key_of("mia")
    assert running.call(f"/admin/api/keys/{made}", {"limits": ["7"]}, max_, "PATCH")[0] == 403
    running.call(f"/admin/api/keys/{made}", {"max_output": 9}, key_of("ada"), "PATCH")
    running.call(f"/admin/api/keys/{made}/top-up", {"amount": "2"})
    ada.post(f"/keys/{made}/rotate", token=ada.token(), overlap="0")
    running.call(f"/admin/api/keys/{made}/revoke", b"", method="POST")
    found = running.admin(f"changes?key={made}")
    told = [(one["who"], one["by"], one["action"], one["fields"]) for one in found["changes"]]
    assert found["next"] is None
    assert told == [
        ("admin", "key", "revoked", {"revoked": [False, True]}),
        ("ada", "key", "rotated", {}),
        ("admin", "key", "topped up", {"limits": [["5"], ["7"]]}),
        ("ada", "key", "changed", {"max_output": [None, 9]}),
        ("ada", "key", "made", {"name": [None, "<b>one"], "limits": [None, ["5"]], "models": [None, ["*"]]}),
    ]
    assert found["changes"][0]["path"] == f"acme/audit/{made}"
    assert running.call(f"/admin/api/changes?key={made}", None, mia)[2]["changes"] == []
    page = people["vera"].get(f"/changes?key={made}")[2]
    assert "<b>one" not in page
    text = html.unescape(page)
    assert "limits: 5 → 7" in text
    assert "<b>one" in text
    first = running.admin(f"changes?key={made}&limit=2")
    rest = running.admin(f"changes?key={made}&before={first['next']}")
    assert [*first["changes"], *rest["changes"]] == found["changes"]
    for bad in ("x", "1-", "-1", "1" * 30):
        assert running.call(f"/admin/api/changes?before={bad}")[0] == 400


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis", "postgres"])
def test_a_change_is_kept_with_its_key_or_neither(kind, tmp_path):
    url = {"memory": "memory:", "sqlite": str(tmp_path / "ledger.db")}.get(kind) or servers.shared(kind)
    store = connect(url)
    author = changes.Author("ada", "key")
    groups_, nothing = configs.Groups({}), configs.Defaults((), (), (), (), ("*",), None, None, None)
    made, _ = keys.make({"path": "a", "limits": ["5"]}, nothing, ("all",), 1, groups_)
    changes.add(store, made, author, 1)
    key, change = changes.alter(store, made.id, author, changes.TOPPED_UP, lambda key: keys.topped_up(key, "2"), 2)
    assert [str(limit) for limit in key.limits] == ["7"]

    def fail(key):
        raise InvalidInput("no")

    with pytest.raises(InvalidInput, match="no"):
        changes.alter(store, made.id, author, changes.CHANGED, fail, 3)
    with pytest.raises(InvalidInput, match="there is no key"):
        changes.alter(store, "other", author, changes.CHANGED, lambda key: key, 3)
    found, more = changes.listed(store, {}, Reach(("",)), 10)
    assert (found[0], [one.action for one in found], more) == (change, ["topped up", "made"], None)
    assert [one.action for one in changes.listed(store, {}, Reach(("a",)), 10)[0]] == ["topped up", "made"]
    assert changes.listed(store, {}, Reach(("b",)), 10) == ([], None)
    newest, cursor = changes.listed(store, {}, Reach(("",)), 1)
    assert [one.action for one in newest] == ["topped up"]
    assert [one.action for one in changes.listed(store, {"before": cursor}, Reach(("",)), 1)[0]] == ["made"]
    store.close()


def test_changes_are_bounded(monkeypatch):
    assert CHANGES == 100_000
    monkeypatch.setattr("budgeteer.gateway.store.CHANGES", 3)
    store = SqliteStore(":memory:")
    for n in range(10):
        store.add_key(str(n), "{}", f"change {n}")
    assert [text for _, text in store.changes("", 100)] == ["change 9", "change 8", "change 7"]


def test_the_command_line_is_recorded_too(tmp_path, capsys):
    from budgeteer.cli import main

    ledger = tmp_path / "ledger.db"
    file = tmp_path / "gateway.toml"
    file.write_text(toml([("one", "http://127.0.0.1:9/v1", ["echo"], "")], ledger=str(ledger)))
    config = ["--config", str(file)]
    assert main(["keys", "create", "acme", "--limit", "5", *config]) == 0
    name = capsys.readouterr().out.split("-")[1]
    assert main(["keys", "top-up", name, "2", *config]) == 0
    assert main(["keys", "rotate", name, *config]) == 0
    assert main(["keys", "revoke", name, *config]) == 0
    store = connect(str(ledger))
    found, _ = changes.listed(store, {}, Reach(("",)), 10)
    store.close()
    assert [one.action for one in found] == ["revoked", "rotated", "topped up", "made"]
    assert {one.by for one in found} == {"command line"}
    assert all("@" in one.who for one in found)


# the file


GOOD = 'name = "Ada"\nrole = "admin"\nkey_sha256 = "' + "a" * 64 + '"'
OIDC = '[oidc]\nissuer = "https://op.test"\nclient_id = "me"\nurl = "https://gateway.test"'
MAIL = 'name = "Ada"\nrole = "admin"\nemail = "ada@acme.test"'


def load(tmp_path, extra, **env):
    path = tmp_path / "gateway.toml"
    path.write_text(toml([("one", "http://127.0.0.1:9/v1", ["echo"], "")], extra=extra))
    return configs.load(path, env or {"BUDGETEER_ADMIN_KEY": ADMIN})


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("[[admins]]\nrole = 'admin'\nkey_sha256 = 'x'", "admins[0].key_sha256 is no SHA-256"),
        ('[[admins]]\nname = "Ada"\nrole = "admin"', "admins[0] can show in no way who they are"),
        (f"[[admins]]\n{GOOD}\nother = 1", "admins[0].other is unknown"),
        (
            f"[[admins]]\n{GOOD.replace('admin', 'boss')}",
            "admins[0].role is 'boss'; choose one of admin, manager, viewer",
        ),
        (f"[[admins]]\n{GOOD.replace('admin', 'manager')}", "admins[0].paths is missing; say below which paths"),
        (f'[[admins]]\n{GOOD}\npaths = ["a"]', "admins[0].paths is ['a'], but an admin may do everything"),
        (f'[[admins]]\n{GOOD.replace("admin", "viewer")}\npaths = ["a b"]', "admins[0].paths has 'a b'"),
        (f"[[admins]]\n{GOOD}\n[[admins]]\n{GOOD}", "admins has the same key twice"),
        (f"[[admins]]\n{MAIL}", "admins[0].email needs [oidc]"),
        (f"[[admins]]\n{GOOD}\nclaims = {{ groups = 'x' }}", "admins[0].claims needs [oidc]"),
        (f"[[admins]]\n{GOOD}\nclaims = {{ groups = 1 }}", "groups is 1; give a text"),
    ],
)
def test_admins_that_cannot_be_used_are_named(tmp_path, extra, said):
    with pytest.raises(InvalidInput) as error:
        load(tmp_path, extra)
    assert said in str(error.value)
    assert ", line " in str(error.value)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (OIDC, "oidc lets nobody in"),
        (f"[[admins]]\n{MAIL}\n{OIDC.replace('https://op', 'http://op.example.com/')}", "oidc.issuer is"),
        (f"[[admins]]\n{MAIL}\n{OIDC.replace('https://gateway', 'gateway')}", "oidc.url is"),
        (f'[[admins]]\n{MAIL}\n{OIDC}/path"'.replace('test"/', "test/"), "without a path"),
        (f'[[admins]]\n{MAIL}\n{OIDC}\nscopes = ["email"]', "oidc.scopes is ['email']; \"openid\" has to be one"),
        (
            f'[[admins]]\n{MAIL}\n{OIDC}\nclient_secret_env = "UNSET"',
            "oidc.client_secret_env names UNSET, which is not set",
        ),
    ],
)
def test_sign_in_that_cannot_be_used_is_named(tmp_path, extra, said):
    pytest.importorskip("authlib")
    with pytest.raises(InvalidInput) as error:
        load(tmp_path, extra)
    assert said in str(error.value)


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch):
    from importlib import util

    from budgeteer.core.errors import MissingExtra

    found = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *more: None if name == "authlib" else found(name, *more))
    with pytest.raises(MissingExtra, match=r"'authlib'.*budgeteer\[oidc\]"):
        load(tmp_path, f"[[admins]]\n{MAIL}\n{OIDC}")
    assert load(tmp_path, f"[[admins]]\n{GOOD}").admins.oidc is None


def test_sessions_need_a_secret(tmp_path):
    with pytest.raises(InvalidInput, match=r"admins needs a secret .*set BUDGETEER_SESSION_SECRET to 32 or more"):
        load(tmp_path, f"[[admins]]\n{GOOD}", OTHER="x")
    with pytest.raises(InvalidInput, match="BUDGETEER_SESSION_SECRET, whose value has 5 characters; give 32 or more"):
        load(tmp_path, f"[[admins]]\n{GOOD}", BUDGETEER_SESSION_SECRET="short")
    own = load(tmp_path, f"[[admins]]\n{GOOD}", BUDGETEER_SESSION_SECRET="s" * 32)
    assert own.admins.secret == "s" * 32
    plain = load(tmp_path, "")
    assert plain.admins.secret == ADMIN
    for secret in ("s" * 32, "a" * 64):
        assert secret not in repr(own)
    assert dataclasses.replace(plain, log=True).admins is plain.admins
    assert admin  # the API's module is imported for its routes
