"""The dashboard: who gets in, what its forms do, that nothing unescaped comes out, and in a real browser."""

from __future__ import annotations

import asyncio
import base64
import csv
import html
import io
import json
import re
import threading
import time
from html.parser import HTMLParser
from urllib.parse import quote, urlencode

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)

from budgeteer.core.errors import LedgerUnavailable  # noqa: E402
from budgeteer.gateway import session  # noqa: E402
from budgeteer.gateway.dashboard import charts, forecast  # noqa: E402
from budgeteer.gateway.store import SqliteStore  # noqa: E402
from helpers import servers  # noqa: E402
from helpers.browser import CHROMIUM, Browser  # noqa: E402
from helpers.gateway_fixture import ADMIN, Running, toml  # noqa: E402
from helpers.person import Person  # noqa: E402
from helpers.upstream import Upstream, echo, error  # noqa: E402

PAGES = ("/", "/budgets", "/budget?path=acme&kind=all&window=", "/agents", "/requests", "/keys", "/requests.csv")
EVIL = """"><script>window.pwned=1</script><img src=x onerror="window.pwned=1">'${1}{{7*7}}"""


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    prices = '[models."*"]\ninput = 2.50\noutput = 10\n'
    folder = tmp_path_factory.mktemp("dashboard")
    (folder / "prices.toml").write_text(prices)
    with Upstream(slow=echo(words=40, pause=0.1), broken=error(500), cut=echo(cut_after=2)) as upstream:
        text = toml([("one", upstream.url, ["echo", "slow", "broken", "cut"], "")], kinds='["all", "money"]')
        text = text.replace("shipped = false", 'shipped = false\nfiles = ["prices.toml"]')
        with Running(folder, text) as running:
            running.upstream = upstream
            yield running


@pytest.fixture(scope="module")
def person(running):
    return Person(running)


class Parsed(HTMLParser):
    """Tags, and all attributes, of a page that nests."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.words, self.inside = [], [], "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *one) for one in attrs]
        self.inside.append(tag)

    def handle_data(self, data):
        self.words += data


def chat(running, key, model="echo", **headers):
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}
    return running.call("/v1/chat/completions", body, key, headers={f"x-budgeteer-{k}": v for k, v in headers.items()})


# who gets in


def test_nothing_is_shown_to_who_is_not_logged_in(running):
    stranger = Person(running, "wrong")
    assert stranger.status == 401
    assert "neither the admin key nor a key" in stranger.body
    forged = f"{int(time.time()) + 999}.{'0' * 32}.{'0' * 64}"
    text, _, _ = Person(running).cookie.partition("=")[2].rpartition(".")
    about = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    ended = base64.urlsafe_b64encode(json.dumps({**about, "until": 1}).encode()).decode()
    old = f"{ended}.{session.sign(ADMIN, 'session', ended)}"
    other = session.begin("another-admin-key-of-old", about)
    for cookie in (
        "",
        f"budgeteer={forged}",
        f"budgeteer={old}",
        f"budgeteer={other}",
        "budgeteer=.",
        "budgeteer=a.b.é",
    ):
        stranger.cookie = cookie.encode().decode("latin-1")
        for path in (*PAGES, "/keys/abc", "/requests/abc"):
            status, headers, body = stranger.get(path)
            assert (status, headers["location"], body) == (303, "/login", ""), (cookie, path)
        status, headers, _ = stranger.post("/keys", path="acme")
        assert (status, headers["location"]) == (303, "/login")


def test_the_cookie_is_for_this_site_only(running, person):
    assert person.status == 303
    flags = {flag.strip().lower() for flag in person.headers["set-cookie"].split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/"} <= flags
    assert "secure" not in flags
    proxied = person.post("/login", {"x-forwarded-proto": "https"}, key=ADMIN)[1]["set-cookie"]
    assert "; secure" in proxied.lower()
    assert ADMIN not in str(person.headers)
    assert person.get("/")[0] == 200


def test_a_form_of_another_page_does_nothing(running, person):
    before = len(running.admin("keys")["keys"])
    token, other = person.token(), Person(running)
    assert person.post("/keys", path="acme")[0] == 403
    assert person.post("/keys", path="acme", token="0" * 64)[0] == 403
    assert person.post("/keys", path="acme", token=other.token())[0] == 403
    assert person.post("/keys", {"sec-fetch-site": "cross-site"}, path="acme", token=token)[0] == 403
    assert person.post("/login", {"sec-fetch-site": "cross-site"}, key=ADMIN)[0] == 403
    plain = {"content-type": "text/plain"}
    assert person.send("POST", "/keys", urlencode({"path": "acme", "token": token}), **plain)[0] == 403
    assert person.post("/keys", path="acme", token=token, name="x" * 70_000)[0] == 403
    assert len(running.admin("keys")["keys"]) == before
    assert person.post("/logout")[0] == 403
    assert other.post("/logout", token=other.token())[1]["set-cookie"].lower().count("max-age=0") == 1


def test_without_an_admin_key_nobody_gets_in(tmp_path):
    from budgeteer.gateway import config as configs

    text = toml([("one", "http://127.0.0.1:9/v1", ["echo"], "")])
    closed = Running(tmp_path, text)
    closed.config = configs.load(tmp_path / "gateway.toml", {})
    with closed:
        person = Person(closed, "")
        assert person.status == 403
        person.cookie = f"budgeteer={session.begin('', {'key': session.sign('', 'key', '')[:32]})}"
        assert person.get("/")[0] == 303


# what comes out


def test_pages_allow_no_foreign_code_and_are_not_kept(running, person):
    for path in (*PAGES, "/login", "/nowhere-requests/../keys", "/static/dashboard.js", "/static/nothing"):
        _, headers, body = person.get(path)
        if "content-security-policy" not in headers:
            assert path.startswith("/nowhere"), path  # not ours: plain text
            continue
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] in ("no-store", "no-cache")
        if path.startswith(("/static", "/requests.csv")):
            continue
        parsed = Parsed(body)
        assert not [one for one in parsed.attributes if one[1].startswith("on") or one[1] == "style"]
        assert {one[2] for one in parsed.attributes if one[:2] == ("script", "src")} <= {"/static/dashboard.js"}
        assert parsed.tags.count("script") == body.count('<script src="/static/dashboard.js" defer></script>') <= 1
        assert "style" not in parsed.tags
        assert not [one for one in parsed.attributes if one[1] in ("href", "src", "action") and "//" in str(one[2])]


def test_hostile_names_are_text_everywhere(running, person):
    made = running.admin("keys", {"path": "evil", "name": EVIL, "limits": ["500"], "models": [EVIL, "*"]})
    key, name = made["secret"], made["key"]["id"]
    header = EVIL.encode().decode("latin-1")
    chat(running, key, user=header, tag=header, stage=header, session=header)
    body = {"model": EVIL, "messages": [{"role": "user", "content": EVIL}], "user": EVIL}
    assert running.call("/v1/chat/completions", body, key)[0] == 404
    running.settled()
    record = running.admin(f"requests?key={name}")["requests"][-1]
    assert record["stage"] == EVIL
    pages = [*PAGES[:1], "/budgets", "/requests", "/keys", f"/keys/{name}", f"/requests/{record['id']}"]
    pages += [f"/?by={by}" for by in ("key", "user", "session", "tag", "model", "scope", "stage")]
    pages += [f"/?path={quote(EVIL)}", f"/requests?stage={quote(EVIL)}&model={quote(EVIL)}&path={quote(EVIL)}",
              f"/budgets?path={quote(EVIL)}", "/budget?path=evil&kind=all&window=", f"/?range={quote(EVIL)}",
              f"/keys/{quote(EVIL, safe='')}", f"/requests/{quote(EVIL, safe='')}"]  # fmt: skip
    plain = {"html", "head", "meta", "title", "link", "script", "body", "header", "a", "nav", "form", "input", "button",
             "main", "h1", "h2", "label", "select", "option", "section", "div", "p", "span", "svg", "line", "text",
             "rect", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "dl", "dt", "dd", "code", "details",
             "summary", "textarea", "b", "footer", "polyline", "polygon", "circle", "fieldset", "legend"}  # fmt: skip
    said = 0
    for path in pages:
        status, headers, text = person.get(path)
        if status == 404 and "content-security-policy" not in headers:
            continue  # no page of ours
        parsed = Parsed(text)
        assert set(parsed.tags) - plain <= set(), path
        assert not [one for one in parsed.attributes if one[1].startswith("on")], path
        assert parsed.tags.count("script") <= 1, path
        said += EVIL in parsed.words or EVIL in [one[2] for one in parsed.attributes]
        assert EVIL not in text
    assert said >= 8


_text = st.text(max_size=20) | st.sampled_from(["-1", "0", "9" * 30, "\x00", "all", "time", "day", "", "acme"])


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(["/", "/budgets", "/budget", "/requests", "/requests.csv", "/keys", "/keys/x", "/requests/x",
                     "/conversation", "/mine", "/mine/conversation", "/mine/requests/x"]),
    st.dictionaries(st.sampled_from([
        "range", "kind", "by", "path", "window", "since", "until", "before", "key", "status", "refused", "outcome",
        "from", "to", "search", "state", "page", "name", "conversation"]),
        _text, max_size=4),
    st.dictionaries(st.sampled_from([
        "name", "path", "limits", "per_user", "per_session", "per_tag", "models", "max_input", "max_output",
        "max_reasoning", "expires", "amount", "sure", "per_model", "overlap", "seen"]), _text, max_size=4),
)  # fmt: skip
def test_no_address_and_no_form_makes_a_page_fail(running, person, path, query, form):
    asked = urlencode({name: one.encode("utf-8", "surrogatepass") for name, one in query.items()})
    if not hasattr(running, "token"):
        running.token, made = person.token(), running.key("all:500", path="fuzz", name="fuzzed")
        running.fuzzed, running.holder = made.split("-")[1], Person(running, made)
    for reader in (person, running.holder):
        assert reader.get(f"{path.replace('/x', f'/{running.fuzzed}')}?{asked}")[0] < 500
    for action in ("/keys", "/keys/x/revoke", *(f"/keys/{key}/{name}" for key in ("x", running.fuzzed)
                              for name in ("top-up", "rotate", "change"))):  # fmt: skip
        assert person.post(action, **{**form, "token": running.token})[0] < 500
    for key in running.admin("keys")["keys"]:
        if key["name"] == form.get("name"):
            assert person.get(f"/keys/{key['id']}")[0] == 200


def test_what_a_form_was_given_comes_back_escaped(running, person):
    status, _, body = person.post("/keys", token=person.token(), path="acme", name=EVIL, limits=EVIL)
    assert status == 400
    assert EVIL not in body
    assert html.escape(EVIL) in body
    assert "window.pwned" in body


# keys and figures


@pytest.mark.parametrize("field", [{"limits": "$0,50"}, {"max_output": "1,5"}, {"limits": "1k", "per_user": "1,5k"}])
def test_a_comma_for_a_point_makes_no_key(running, person, field):
    status, _, body = person.post("/keys", token=person.token(), path="commas", name="commas", **field)
    assert status == 400
    assert re.search(r"write (\$0\.50|1500 or 1,500)", body)
    assert "commas" not in {key["name"] for key in running.admin("keys")["keys"]}


def test_a_key_is_made_topped_up_and_revoked(running, person):
    token = person.token()
    form = {"token": token, "path": "forms", "name": "mine", "limits": "500\nrequests:60/60s", "models": "echo, slow",
            "max_input": "8_000", "max_output": "1,000", "max_reasoning": "0", "expires": "2099-01-31",
            "per_user": "300", "per_session": "all:200/day\n900", "per_tag": ""}  # fmt: skip
    status, headers, body = person.post("/keys", **form)
    secret = re.search(r"bk-[0-9a-f]{16}-[\w-]{43}", body)[0]
    assert (status, headers["cache-control"]) == (201, "no-store")
    name = secret.split("-")[1]
    key = running.admin(f"keys/{name}")["key"]
    assert (key["limits"], key["models"], key["max_output"]) == (["500", "requests:60/60s"], ["echo", "slow"], 1000)
    assert key["expires"] == 4_073_500_800_000
    assert (key["per_user"], key["per_tag"], key["max_input"], key["max_reasoning"]) == (["300"], [], 8000, 0)
    assert key["per_session"] == ["200/day", "900"]
    for path in ("/keys", f"/keys/{name}", "/requests"):
        assert secret not in person.get(path)[2]
    assert chat(running, secret)[0] == 400  # it names nobody
    assert chat(running, secret, user="ann", session="s")[0] == 200
    assert person.post(f"/keys/{name}/top-up", token=token, amount="250")[0] == 303
    assert running.admin(f"keys/{name}")["key"]["limits"][0] == "750"
    status, _, body = person.post(f"/keys/{name}/top-up", token=token, amount="$5")
    assert status == 400
    assert "no limit of the kind" in body
    assert person.post(f"/keys/{name}/revoke", token=token)[0] == 400
    assert chat(running, secret, user="ann", session="s")[0] == 200
    assert person.post(f"/keys/{name}/revoke", token=token, sure="yes")[0] == 303
    assert chat(running, secret)[0] == 401
    assert "Revoke" not in person.get(f"/keys/{name}")[2]
    for bad in (
        {"max_output": "many"},
        {"max_input": "-1"},
        {"per_tag": "much"},
        {"expires": "soon"},
        {"limits": "lots"},
        {"path": "a//b"},
    ):
        status, _, body = person.post("/keys", **{**form, **bad})
        assert status == 400, bad
        assert "problem" in body
    assert person.post("/keys/0000/top-up", token=token, amount="1")[0] == 404


def test_pages_say_what_the_admin_api_says(running, person):
    made = running.admin("keys", {"path": "figures", "name": "figures key", "limits": ["all:200/day", "$1"]})
    for _ in range(3):
        assert chat(running, made["secret"], stage="plan")[0] == 200
    chat(running, made["secret"], "cut", stage="act")
    body = {"model": "cut", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9, "stream": True}
    running.call("/v1/chat/completions", body, made["secret"])
    for _ in range(9):
        last = chat(running, made["secret"])[0]
    assert last == 402
    running.settled()
    total = running.admin("summary?path=figures")
    words = Parsed(person.get("/?path=figures&kind=all")[2]).words
    for figure in (f"{total['input'] + total['output']:,} tokens", f"{total['requests']:,}", f"{total['refused']:,}",
                   "budget_exceeded", "overshoot0as it should be", f"{total['wasted']:,}"):  # fmt: skip
        assert figure in words, figure
    assert total["wasted"] > 0
    assert total["overshoot"] == {}
    # each name's units in the chart's legend sum to the total
    legend = re.findall(r'</svg>(\w+) <span class="sub">([\d.]+)</span>', person.get("/?path=figures&kind=all")[2])
    assert sum(float(units) for _, units in legend) == total["input"] + total["output"]
    found = running.admin(f"keys/{made['key']['id']}")["balances"]
    (day,) = [row for row in found if row["window"] == "day"]
    page = person.get(f"/budget?{urlencode({'path': day['path'], 'kind': 'all', 'window': 'day'})}")[2]
    assert f"{day['settled']:,} used, {day['reserved']:,} held of 200" in page
    assert f"now: {200 - day['settled']} left" in page
    assert f'<td class="n" data-head="left">{day["left"]:,}</td>' in page
    assert person.get("/budget?path=figures&kind=all&window=month")[0] == 404
    record = running.admin(f"requests?key={made['key']['id']}&refused=1")["requests"][0]
    words = Parsed(person.get(f"/requests/{record['id']}")[2]).words
    assert "budget_exceeded" in words
    assert record["scope"] in words
    assert person.get("/requests/none")[0] == 404
    assert person.get("/?by=nothing")[0] == 400
    assert person.get("/requests?since=x")[0] == 400


def test_what_the_cache_saved_and_what_each_upstream_was_called_for(tmp_path):
    with Upstream(bad=error(503)) as upstream:
        served = [("one", upstream.url, ["echo", "bad"], ""), ("two", upstream.url, ["bad"], "")]
        with Running(tmp_path, toml(served, extra="[policies.cache]\nsampled = true")) as running:
            person, key = Person(running), running.key("all:5000")
            assert "by the cache" not in person.get("/")[2]
            for model in ("echo", "echo", "bad"):
                chat(running, key, model)
            _, hit, failed = running.settled(3)
            assert "saved12tokens, by the cache" in Parsed(person.get("/")[2]).words
            words = Parsed(person.get(f"/requests/{hit['id']}")[2]).words
            assert "tokens00012" in words
            assert "No upstream was called." in words
            words = Parsed(person.get(f"/requests/{failed['id']}")[2]).words
            assert "onerejected0000" in words
            assert "tworejected0000" in words


def test_the_export_is_the_records(running, person):
    made = running.admin("keys", {"path": "export", "limits": ["500"]})
    for _ in range(4):
        chat(running, made["secret"], tag="=1+1")
    running.settled()
    status, headers, text = person.get(f"/requests.csv?key={made['key']['id']}")
    assert status == 200
    assert headers["content-disposition"] == 'attachment; filename="requests.csv"'
    rows = list(csv.DictReader(io.StringIO(text)))
    records = running.admin(f"requests?key={made['key']['id']}")["requests"]
    assert [row["id"] for row in rows] == [record["id"] for record in records]
    assert sum(int(row["units_all"]) for row in rows) == sum(record["units"]["all"] for record in records) == 48
    assert {row["tag"] for row in rows} == {"'=1+1"}


def test_a_long_look_at_records_keeps_no_key_from_a_request(tmp_path):
    store = SqliteStore(tmp_path / "store.db")
    store.add_key("k", "data")
    found = []
    with store._asking(reading=True):  # somebody reads, and goes on reading
        thread = threading.Thread(target=lambda: found.append(store.get_key("k")), daemon=True)
        thread.start()
        thread.join(20)
        assert found == ["data"]
    assert store.select("SELECT COUNT(*) AS n FROM records") == [{"n": 0}]
    with pytest.raises(LedgerUnavailable, match="readonly"):
        store.select("DELETE FROM records")
    store.close()


@pytest.mark.parametrize("server_url", servers.KINDS, indirect=True)
def test_replicas_on_a_server_share_sessions_and_figures(tmp_path, server_url):
    with Upstream() as upstream:
        text = toml([("one", upstream.url, ["echo"], "")], ledger=server_url)
        folders = [tmp_path / name for name in "ab"]
        for folder in folders:
            folder.mkdir()
        with Running(folders[0], text) as one, Running(folders[1], text) as other:
            made = one.admin("keys", {"path": "acme", "name": "shared key", "limits": ["100/day"]})
            assert chat(one, made["secret"], stage="first")[0] == 200
            one.settled(1)
            person = Person(one)
            person.running = other  # the cookie of one is good for the other
            page = Parsed(person.get("/?kind=all")[2]).words
            assert "first" in page
            assert "tokens127 in, 5 out" in page
            path = f"acme/{made['key']['id']}"
            page = person.get(f"/budget?{urlencode({'path': path, 'kind': 'all', 'window': 'day'})}")[2]
            assert "12 used, 0 held of 100" in page
            assert "acme/shared key" in page
            assert person.post(f"/keys/{made['key']['id']}/revoke", token=person.token(), sure="yes")[0] == 303
            deadline = time.monotonic() + 60
            while chat(one, made["secret"])[0] != 401:
                assert time.monotonic() < deadline
                time.sleep(0.1)


# drawings and the forecast


def test_a_chart_leaves_no_unit_out():
    rows = [{"time": 60 * (n % 4), "stage": f"s{n % 11}", "units": n} for n in range(100)]
    summed = {}
    for row in rows:  # the API gives one row a name and time
        summed[row["stage"], row["time"]] = summed.get((row["stage"], row["time"]), 0) + row["units"]
    merged = [{"time": at, "stage": name, "units": units} for (name, at), units in summed.items()]
    found = charts.stacks(merged, "stage", [0, 60, 120, 180])
    assert len(found) == charts.SHOWN + 1
    assert found[-1].name == charts.OTHER
    assert sum(sum(one.units) for one in found) == sum(range(100))


def test_the_forecast_by_hand():
    seen, wide = forecast.pace([0, 0, 0, 0, 0, 0, 6, 6, 6, 6, 6, 6, 0, 0][2:])
    assert wide == 1
    assert seen.mean == 3
    assert seen.sd == pytest.approx((12 * 9 / 11) ** 0.5)
    low, mean, high = seen.ahead(4)
    half = 1.7959 * (12 * 9 / 11) ** 0.5 * (4 + 16 / 12) ** 0.5
    assert (low, mean, high) == (pytest.approx(max(0, 12 - half)), 12, pytest.approx(12 + half))
    assert forecast.pace([1] * 11) is None
    assert forecast.pace([0] * 24) is None
    # the oldest step is left out, so that slices are alike
    assert forecast.pace([99, *[1, 2] * 12])[0] == forecast.Pace(3.0, 0.0)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_nine_in_ten_windows_end_within_the_band(share):
    """Requests come at random and cost a random amount; of windows of 480 minutes the first ``share`` is seen."""
    rng = np.random.default_rng(7)
    inside = []
    for _ in range(1500):
        at = rng.integers(0, 480, rng.poisson(0.8 * 480))
        units = np.bincount(at, rng.lognormal(5, 1, len(at)), 480)
        now = int(480 * share)
        seen, wide = forecast.pace(units[:now].tolist())
        low, _, high = seen.ahead((480 - now) / wide)
        inside.append(low <= units[now:].sum() <= high)
    assert 0.87 <= np.mean(inside) <= 0.93  # three standard errors of 1,500


# in a browser


def crawled(page, running, start, width):
    """Open one page of each kind that links lead to from a first one, and check that it fits a width; their kinds."""
    seen, left = {}, [start]
    page.shape(width, 800, dark=width == 390)
    while left:
        url = left.pop(0)
        kind = re.sub(r"(requests|keys)/[^/]+$", r"\1/ID", url.split("?")[0])
        if kind in seen or kind.startswith(("/static", "/requests.csv")):
            continue
        seen[kind] = url
        page.open(running.root + url)
        page.js("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        assert page.js("document.documentElement.scrollWidth") <= width, (width, url)
        # nothing has to be scrolled sideways either: wide tables are lists on a phone
        assert page.js("[...document.querySelectorAll('.scroll')].every(e => e.scrollWidth <= e.clientWidth)"), url
        left += page.js("[...document.querySelectorAll('a[href^=\"/\"]')].map(one => one.getAttribute('href'))")
    return set(seen)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium in PATH")
def test_a_person_makes_a_key_watches_it_spend_hits_the_cap_and_exports(running, tmp_path):
    with Browser() as page:
        page.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        page.open(f"{running.root}/")
        page.fill("input[name=key]", ADMIN)
        page.press("form button")
        assert "Overview" in page.text()
        page.open(f"{running.root}/keys")
        page.js("document.querySelector('details').open = true")
        page.fill("input[name=name]", EVIL)
        page.fill("input[name=path]", "seen")
        page.fill("textarea[name=limits]", "all:150")
        page.fill("textarea[name=per_session]", "all:10k/day")
        page.fill("input[name=max_input]", "500")
        page.press("details form button")
        secret = page.js("document.getElementById('secret').textContent")
        # watch it spend, without a reload
        page.open(f"{running.root}/?path=seen&kind=all")
        page.js("window.mine = 1")
        stop = threading.Event()

        def spend():
            while not stop.is_set():
                chat(running, secret, stage="watched", session="s")

        threading.Thread(target=spend, daemon=True).start()
        try:
            page.until("document.getElementById('stages').innerText.includes('watched')")
            page.until("document.getElementById('reasons').innerText.includes('budget_exceeded')")
        finally:
            stop.set()
        assert page.js("window.mine") == 1
        assert page.js("window.pwned") is None
        assert "overshoot\n0\nas it should be" in page.text()
        # down to one refused request
        page.press("#refused td a")
        assert "402" in page.text()
        # the key's page, its budget and its export
        page.open(f"{running.root}/keys")
        page.press("#rows td a")
        page.press("#balances a")
        assert "What is left, and the forecast" in page.text()
        assert page.js("window.pwned") is None
        page.open(f"{running.root}/requests?path=seen")
        page.js("[...document.querySelectorAll('a')].find(one => one.textContent === 'CSV').click()")
        deadline = time.monotonic() + 20
        while not (tmp_path / "requests.csv").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        running.settled()
        rows = list(csv.DictReader((tmp_path / "requests.csv").open()))
        assert sum(int(row["units_all"]) for row in rows) == running.spent("seen") <= 150
        pages = crawled(page, running, "/", 1200)
        kinds = "/ /budgets /budget /agents /requests /requests/ID /conversation /changes /keys /keys/ID"
        assert set(kinds.split()) <= pages
        assert crawled(page, running, "/", 390) == pages
        assert page.problems() == []
        page.open(f"{running.root}/")
        page.press("header form button")
        assert "Admin key" in page.text()
        page.fill("input[name=key]", secret)
        page.press("form button")
        assert crawled(page, running, "/mine", 390) == {"/", "/mine", "/mine/requests/ID", "/mine/conversation"}
        assert page.problems() == []


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium in PATH")
def test_live_requests_come_and_go_in_place(running):
    key = running.key("9000", path="live", name="streaming")
    with Browser() as page:
        page.open(f"{running.root}/login")
        page.fill("input[name=key]", ADMIN)
        page.press("form button")
        body = {"model": "slow", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
        thread = threading.Thread(target=running.call, args=("/v1/chat/completions", body, key))
        thread.start()
        page.until("document.getElementById('live').innerText.includes('streaming')")
        thread.join(30)
        page.until("!document.getElementById('live').innerText.includes('streaming')")
        # what somebody writes is not taken away by a renewal
        page.fill("input[name=path]", "unsent")
        asyncio.run(asyncio.sleep(3))
        assert page.js("document.querySelector('input[name=path]').value") == "unsent"
        assert page.problems() == []
