"""Admins sign in with a real OpenID provider: who gets in with which rights, and what each failure says."""

from __future__ import annotations

import asyncio
import base64
import html
import json
import re
import socket
import time
from urllib.parse import parse_qs, urlsplit

import pytest

for needed in (
    "aiohttp",
    "orjson",
    "prometheus_client",
    "starlette",
    "uvicorn",
    "authlib",
    "httpx2",
    "oidc_provider_mock",
):
    pytest.importorskip(needed)

from joserfc import jwt  # noqa: E402
from joserfc.jwk import KeySet, OctKey, RSAKey  # noqa: E402

from budgeteer.gateway import config as configs  # noqa: E402
from budgeteer.gateway.admins import Oidc  # noqa: E402
from budgeteer.gateway.app import Gateway  # noqa: E402
from budgeteer.gateway.oidc import provider as oidc_provider  # noqa: E402
from budgeteer.gateway.oidc import tokens  # noqa: E402
from budgeteer.gateway.refusal import Refused  # noqa: E402
from helpers.gateway_fixture import ADMIN, Running, toml  # noqa: E402
from helpers.person import Person  # noqa: E402
from helpers.provider import Provider  # noqa: E402

URL = "http://gateway.test"
SECRET = "of-sessions-0123456789-0123456789"
ADMINS = """
[[admins]]
name = "Ada"
role = "admin"
email = "ada@acme.test"
[[admins]]
name = "Search"
role = "manager"
paths = ["acme/search"]
claims = { groups = "search-leads" }
[[admins]]
name = "Auditors"
role = "viewer"
claims = { "org.teams" = "audit" }
"""


def setup(provider, admins=ADMINS, **changes):
    about = {"issuer": provider.issuer, "client_id": provider.client_id, "url": URL, **changes}
    lines = "\n".join(f'{name} = "{value}"' for name, value in about.items())
    oidc = f'[oidc]\nclient_secret_env = "OIDC_SECRET"\n{lines}\n'
    server = "stranger_seconds = 600"  # on a machine that is slow
    return toml([("one", "http://127.0.0.1:9/v1", ["echo"], "")], server=server, extra=admins + oidc)


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """No test fails because the machine is slow."""
    monkeypatch.setattr(oidc_provider, "_SECONDS", 300.0)


def serving(folder, provider, text=None, env=None):
    """A gateway with the provider's client, not started yet."""
    running = Running.__new__(Running)
    folder.mkdir(exist_ok=True)
    (folder / "gateway.toml").write_text(text or setup(provider))
    known = {"BUDGETEER_ADMIN_KEY": ADMIN, "BUDGETEER_SESSION_SECRET": SECRET, "OIDC_SECRET": provider.secret}
    running.config = configs.load(folder / "gateway.toml", {**known, **(env or {})})
    return running


@pytest.fixture(scope="module")
def provider():
    with Provider(f"{URL}/oidc/callback") as provider:
        provider.user("ada", email="Ada@acme.test", email_verified=True, name="Ada L.")
        provider.user("bob", email="bob@acme.test", email_verified=True, groups=["staff", "search-leads"])
        provider.user("eve", email="ada@acme.test", email_verified=False)
        provider.user("new", email="ada@acme.test")
        provider.user("carol", org={"teams": ["audit"]})
        provider.user("mallory", email="<b>m@x.test", email_verified=True, groups=["<i>staff"])
        yield provider


@pytest.fixture(scope="module")
def running(tmp_path_factory, provider):
    with serving(tmp_path_factory.mktemp("oidc"), provider) as running:
        yield running


class Browser(Person):
    """Somebody who comes without a key."""

    def __init__(self, running):
        self.running, self.cookie = running, ""

    def begin(self):
        """Follow the link of the login page; where it leads."""
        status, headers, _ = self.get("/oidc/login")
        assert status == 303
        self.flags = headers["set-cookie"]
        self.cookie = self.flags.partition(";")[0]
        return headers["location"]

    def come_back(self, address):
        place = urlsplit(address)
        self.status, self.headers, self.body = self.get(f"{place.path}?{place.query}")
        for cookie in self.headers.get_all("set-cookie") or ():
            if cookie.startswith("budgeteer="):
                self.flags, self.cookie = cookie, cookie.partition(";")[0]
        return self

    def sign_in(self, provider, sub):
        return self.come_back(provider.sign_in(self.begin(), sub))

    @property
    def said(self):
        return html.unescape(re.sub(r"<[^>]+>", "", self.body.partition("<h1>")[2]))


def test_the_login_page_leads_there_and_sends_what_has_to_be_sent(running, provider):
    browser = Browser(running)
    assert f"Sign in with {urlsplit(provider.issuer).netloc}" in browser.get("/login")[2]
    address = browser.begin()
    assert address.startswith(f"{provider.issuer}/oauth2/authorize?")
    query = {name: value for name, (value,) in parse_qs(urlsplit(address).query).items()}
    assert query["response_type"] == "code"
    assert (query["client_id"], query["redirect_uri"]) == (provider.client_id, f"{URL}/oidc/callback")
    assert query["scope"].split() == ["openid", "email", "profile"]
    assert query["code_challenge_method"] == "S256"
    assert len({query["state"], query["nonce"], query["code_challenge"]}) == 3
    assert not {"code_verifier", "client_secret"} & set(query)
    flags = {flag.strip().lower() for flag in browser.flags.split(";")[1:]}
    assert {"httponly", "samesite=lax", "path=/oidc", "max-age=600"} <= flags  # lax: the provider leads back here
    again = Browser(running)
    assert parse_qs(urlsplit(again.begin()).query)["state"] != [query["state"]]


def test_an_admin_signs_in_and_out(running, provider):
    ada = Browser(running).sign_in(provider, "ada")
    assert ada.status == 200
    assert 'content="0; url=/"' in ada.body  # a page, so that browsers send the strict cookie with the next request
    flags = {flag.strip().lower() for flag in ada.flags.split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/", "max-age=43200"} <= flags
    assert "secure" not in flags
    assert "Ada <ada@acme.test>, admin" in html.unescape(ada.get("/")[2]).replace("Ada@", "ada@")
    assert ada.post("/keys", path="acme", name="by ada", token=ada.token())[0] == 201
    change = running.admin("changes?limit=1")["changes"][0]
    assert (change["who"].casefold(), change["by"], change["action"]) == ("ada <ada@acme.test>", "sign-in", "made")
    status, headers, body = ada.post("/logout", token=ada.token())
    assert status == 200
    assert headers["set-cookie"].startswith('budgeteer=""')
    assert f'href="{provider.issuer}/oauth2/end_session?client_id=' in body


def test_roles_follow_from_claims(running, provider):
    bob = Browser(running).sign_in(provider, "bob")
    assert bob.post("/keys", path="acme/search/x", token=bob.token())[0] == 201
    assert bob.post("/keys", path="acme", token=bob.token())[0] == 403
    carol = Browser(running).sign_in(provider, "carol")
    assert carol.get("/keys")[0] == 200
    assert carol.post("/keys", path="acme", token=carol.token())[0] == 403
    assert "<carol>, viewer" in html.unescape(carol.get("/")[2])


@pytest.mark.parametrize(
    ("sub", "said"),
    [
        ("eve", "email ada@acme.test, which does not count, since email_verified is false"),
        ("new", "email ada@acme.test, which does not count, since email_verified is missing"),
        ("mallory", "email <b>m@x.test, groups <i>staff, no org.teams (sub mallory)"),
        ("nobody", "no groups, no org.teams (sub nobody)"),
    ],
)
def test_who_is_no_admin_is_told_what_was_seen(running, provider, sub, said):
    browser = Browser(running).sign_in(provider, sub)
    assert browser.status == 403
    assert said in browser.said
    assert "No [[admins]] of the gateway's file is of that" in browser.said
    assert "<b>m@x" not in browser.body
    assert browser.get("/")[0] == 303


def test_a_sign_in_is_of_one_browser_and_of_one_time(running, provider):
    ada, other = Browser(running), Browser(running)
    back = provider.sign_in(ada.begin(), "ada")
    assert other.come_back(back).status == 403  # an address that somebody was sent, without the cookie
    assert "was not begun in this browser" in other.said
    other.begin()
    assert other.come_back(back).status == 403  # with the cookie of another sign-in
    forged = back.replace("state=", "state=9")
    assert Browser(running).come_back(forged).status == 403
    assert provider.pkce.codes[-1:] != parse_qs(urlsplit(back).query)["code"]  # the code was not even tried
    assert ada.come_back(back).status == 200
    cookie = ada.cookie
    again = Browser(running)
    again.begin()
    assert again.come_back(back).status == 403
    # the code with a verifier of another sign-in: the provider refuses
    stolen = parse_qs(urlsplit(provider.sign_in(Browser(running).begin(), "ada")).query)["code"][0]
    mine = parse_qs(urlsplit(again.begin()).query)["state"][0]
    assert again.come_back(f"{URL}/oidc/callback?code={stolen}&state={mine}").status == 502
    assert "refuses what this gateway asks (invalid_grant: PKCE)" in again.said
    ada.cookie = cookie[:-1] + ("0" if cookie[-1] != "0" else "1")
    assert ada.get("/")[0] == 303


def test_what_the_provider_declines_is_said(running):
    browser = Browser(running)
    state = parse_qs(urlsplit(browser.begin()).query)["state"][0]
    browser.come_back(f"{URL}/oidc/callback?error=access_denied&error_description=%3Cb%3Eno&state={state}")
    assert browser.status == 403
    assert "let nobody in (access_denied: <b>no)" in browser.said
    assert "<b>no" not in browser.body
    browser.come_back(f"{URL}/oidc/callback?code=x&iss=https://evil.test&state={state}")
    assert browser.status == 502
    assert "Another sign-in service" in browser.said


def test_claims_that_the_id_token_lacks_are_asked_for(running, provider, monkeypatch):
    """As the standard has it: with an access token, those of the scopes email and profile come from userinfo."""
    from oidc_provider_mock import _app

    monkeypatch.setattr(_app.OpenIDCode, "generate_user_info", lambda self, user, scope: {"sub": user.sub})
    assert Browser(running).sign_in(provider, "ada").status == 200
    assert Browser(running).sign_in(provider, "bob").status == 200
    assert Browser(running).sign_in(provider, "eve").status == 403


def test_replicas_share_sign_ins_and_the_file_decides_at_each_request(tmp_path, provider):
    with serving(tmp_path / "a", provider) as one, serving(tmp_path / "b", provider) as two:
        ada = Browser(one)
        back = provider.sign_in(ada.begin(), "ada")
        ada.running = two  # begun at one replica, finished at another
        assert ada.come_back(back).status == 200
        for replica in (one, two):
            ada.running = replica
            assert ada.get("/keys")[0] == 200
        bob = Browser(one).sign_in(provider, "bob")
        assert bob.get("/keys")[0] == 200
        fewer = ADMINS.replace('role = "admin"', 'role = "viewer"').replace("search-leads", "others")
        one.do(one.gateway.renew(serving(tmp_path / "c", provider, setup(provider, fewer)).config))
        ada.running = one
        assert "viewer" in ada.get("/")[2]
        assert ada.post("/keys", path="acme", token=ada.token())[0] == 403
        assert bob.get("/keys")[0] == 303  # no longer of any entry
        other = {"BUDGETEER_SESSION_SECRET": "another" * 6}
        with serving(tmp_path / "d", provider, env=other) as stranger:
            ada.running = stranger
            assert ada.get("/keys")[0] == 303


def test_a_session_ends(running, provider, monkeypatch):
    ada = Browser(running).sign_in(provider, "ada")
    late = Browser(running)
    back = provider.sign_in(late.begin(), "ada")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 601)
    assert late.come_back(back).status == 403
    assert "longer than ten minutes" in late.said
    assert ada.get("/")[0] == 200
    monkeypatch.setattr(time, "time", lambda: now + 12 * 3600 + 1)
    assert ada.get("/")[0] == 303


def test_over_tls_the_cookies_are_for_tls_only(tmp_path, provider):
    text = setup(provider, url="https://gateway.test")
    with serving(tmp_path, provider, text) as running:
        browser = Browser(running)
        browser.begin()
        assert "; secure" in browser.flags.lower()


def test_a_provider_that_is_down_stops_nobody_with_a_key(tmp_path, provider):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{held.getsockname()[1]}"
    with serving(tmp_path, provider, setup(provider, issuer=away)) as running:
        status, _, body = Browser(running).get("/oidc/login")
        assert status == 502
        assert f"The sign-in service {away} does not answer (" in body
        assert Person(running).get("/keys")[0] == 200


def test_other_settings_than_the_providers_are_named(tmp_path, provider):
    with serving(tmp_path / "a", provider, setup(provider, issuer=f"{provider.issuer}/")) as running:
        body = html.unescape(Browser(running).get("/oidc/login")[2])
        assert f"issuer is '{provider.issuer}/', but the service there names itself '{provider.issuer}'" in body
    with serving(tmp_path / "b", provider, env={"OIDC_SECRET": "wrong"}) as running:
        browser = Browser(running).sign_in(provider, "ada")
        assert browser.status == 502
        assert "invalid_client" in browser.said
        assert "check client_id and client_secret_env" in browser.said


def test_the_check_asks_the_provider(tmp_path, provider):
    from budgeteer.gateway.server import check

    for changes, line in (
        (
            {},
            f"ok      sign-in with {provider.issuer}; it has to know the addresses {URL}/oidc/callback and {URL}/login",
        ),
        ({"issuer": f"{provider.issuer}/x"}, f"FAILED  sign-in: {provider.issuer}/x/.well-known"),
    ):
        said = []
        asyncio.run(check(serving(tmp_path, provider, setup(provider, **changes)).config, said.append))
        assert "ok      admin Search: manager of acme/search (groups = search-leads)" in said
        assert any(one.startswith(line) for one in said), said


# ID tokens

KEY, OTHER = (RSAKey.generate_key(2048, {"kid": kid, "use": "sig"}) for kid in ("one", "two"))
SET = KeySet([KEY]).as_dict(private=False)


def claims(**changes):
    now = int(time.time())
    about = {"iss": "https://op", "sub": "ada", "aud": "me", "iat": now, "exp": now + 60, "nonce": "n", **changes}
    return {name: value for name, value in about.items() if value is not None}


def token(key=KEY, alg="RS256", kid="one", **changes):
    header = {"alg": alg} | ({"kid": kid} if kid else {})
    return jwt.encode(header, claims(**changes), key, algorithms=["RS256", "HS256"])


def read(text, keys=SET):
    return tokens.read(text, keys, issuer="https://op", client_id="me", nonce="n", access_token="at")


def test_a_good_token_is_read():
    assert read(token())["sub"] == "ada"
    assert read(token(kid=""))["sub"] == "ada"
    both = KeySet([OTHER, KEY]).as_dict(private=False)
    strange = {"kty": "XYZ", "kid": "x"}
    assert read(token(kid=""), {"keys": [strange, *both["keys"]]})["sub"] == "ada"
    assert read(token(aud=["other", "me"], azp="me"))["sub"] == "ada"


NOW = time.time()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"iss": "https://evil"}, "its claim 'iss' is not what it has to be ('https://evil')"),
        ({"aud": "you"}, "its claim 'aud' is not what it has to be ('you')"),
        ({"aud": ["you"]}, "'aud'"),
        ({"aud": ["me", "you"]}, "'azp'"),
        ({"aud": ["me", "you"], "azp": "you"}, "'azp'"),
        ({"nonce": "old"}, "its claim 'nonce' is not what it has to be"),
        ({"nonce": None}, "'nonce'"),
        ({"sub": None}, "'sub'"),
        ({"exp": None}, "does not say when"),
        ({"at_hash": "AAAA"}, "'at_hash'"),
        ({"iat": int(NOW) + 3600, "exp": int(NOW) + 7200}, "in the future by this gateway's clock, which says"),
        ({"iat": int(NOW) - 7200, "exp": int(NOW) - 3600}, "s ago by this gateway's clock, which says"),
        ({"exp": float("nan")}, "cannot be used"),
    ],
)
def test_a_token_of_something_else_is_refused(changes, why):
    with pytest.raises(Refused, match=re.escape(why)) as refused:
        read(token(**changes))
    assert refused.value.status == 502


def test_only_the_provider_can_sign():
    with pytest.raises(Refused, match="signature"):
        read(token(OTHER))  # says that it is of the other key
    with pytest.raises(tokens.UnknownKey):
        read(token(OTHER, kid="two"))
    public = OctKey.import_key(json.dumps(SET["keys"][0]))
    with pytest.raises(Refused, match="signature"):
        read(token(public, "HS256"))  # the public key as a shared secret
    head, body, _ = token().split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","kid":"one"}').decode().rstrip("=")
    for text in (f"{none}.{body}.", f"{head}.{body}.", "", "a.b.c", f"{head}.{body}"):
        with pytest.raises(Refused, match="signature"):
            read(text)


def test_new_keys_of_the_provider_are_found():
    oidc = Oidc("https://op", "me", "", "https://gateway", ("openid",))
    client, asked = oidc_provider.Provider(oidc, frozenset()), []

    async def get(address, **headers):
        asked.append(address)
        return SET

    client._get, client._keys = get, KeySet([OTHER]).as_dict(private=False)
    read = lambda text: asyncio.run(client._read({"jwks_uri": "keys"}, text, "n", ""))  # noqa: E731
    assert read(token())["sub"] == "ada"
    assert read(token())["sub"] == "ada"
    assert asked == ["keys"]
    with pytest.raises(Refused, match="a key that it does not publish"):
        read(token(OTHER, kid="two"))
    assert asked == ["keys"] * 2


def test_userinfo_is_of_the_same_person_and_verifies_only_its_own_address():
    with pytest.raises(Refused, match="somebody else"):
        tokens.merged({"sub": "a"}, {"sub": "b", "email": "x"})
    assert tokens.merged({"sub": "a"}, {"sub": "a", "email": "x", "email_verified": True})["email_verified"] is True
    other = tokens.merged({"sub": "a", "email": "y"}, {"sub": "a", "email": "x", "email_verified": True})
    assert other == {"sub": "a", "email": "y"}


def test_the_gateway_of_another_provider_takes_no_session_of_this_one(tmp_path, provider):
    config = serving(tmp_path, provider).config
    access = Gateway(config)._access
    cookie = access.begin_as({"sub": "ada", "email": "ada@acme.test"})
    assert access.admin(cookie).name == "Ada <ada@acme.test>"
    moved = serving(tmp_path, provider, setup(provider, issuer="http://127.0.0.1:1")).config
    assert Gateway(moved)._access.admin(cookie) is None
