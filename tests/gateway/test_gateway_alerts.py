"""Alerts at shares of a limit: who is told, once each, by real servers; and that no request waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import pytest

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)

from budgeteer.core.errors import InvalidInput  # noqa: E402
from budgeteer.gateway.alerts import channels, watch  # noqa: E402
from budgeteer.gateway.alerts.levels import Level  # noqa: E402
from budgeteer.gateway.alerts.rules import Mail  # noqa: E402
from budgeteer.gateway.config import load  # noqa: E402
from budgeteer.gateway.store import SqliteStore  # noqa: E402
from budgeteer.gateway.stores import connect  # noqa: E402
from budgeteer.ledger import Limit  # noqa: E402
from helpers import servers  # noqa: E402
from helpers.gateway_fixture import Running, toml  # noqa: E402
from helpers.receivers import MailServer, Webhook  # noqa: E402
from helpers.upstream import Upstream, echo  # noqa: E402

ASK = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50}
WORST = 141
"""Tokens that ASK reserves: 81 bytes, 10 of overhead and the cap."""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(watch, "EVERY", 0.02)
    monkeypatch.setattr(watch, "AGAIN", (0.02, 0.02))


@pytest.fixture
def upstream():
    with Upstream(m=echo(words=93, keeps_cap=False)) as found:  # 100 tokens a call
        yield found


def gateway(folder, upstream, rules, ledger="memory:", env=None):
    text = toml([("one", upstream.url, ["m"], "")], ledger=ledger, extra=rules)
    running = Running(folder, toml([("one", upstream.url, ["m"], "")], ledger=ledger))
    path = folder / "alerts.toml"
    path.write_text(text)
    running.config = load(path, {"BUDGETEER_ADMIN_KEY": running.config.server.admin_key, **(env or {})})
    return running


def metric(running, line):
    """The value of a line of /metrics; 0 if it is not there."""
    text = running.call("/metrics")[2].decode()
    return next((float(one.rpartition(" ")[2]) for one in text.splitlines() if one.startswith(line)), 0.0)


def test_each_share_is_told_once_with_webhook_and_slack(tmp_path, upstream):
    with Webhook() as hook, Webhook() as slack:
        rules = (
            f'[[alerts]]\nname = "spend"\nwebhook = {{ url = "{hook.url}/in" }}\nslack = {{ url_env = "SLACK" }}\n'
            'shares = [0.2, 0.6, 0.9]\naccounts = ["acme/*"]'
        )
        with gateway(tmp_path, upstream, rules, env={"SLACK": f"{slack.url}/services/T0/secret"}) as running:
            key = running.key("all:441/day", name="<!channel> & al\nice")
            for told in (1, 1, 2, 3):
                assert running.call("/v1/chat/completions", ASK, key)[0] == 200
                running.settled()
                running.do(running.gateway.alerts.look())
                assert len(hook.wait(told)) == told
            slack.wait(3)
            running.do(running.gateway.alerts.look())
            assert [(one["share"], one["spent"]) for one in hook.bodies] == [(0.2, 100), (0.6, 300), (0.9, 400)]
            first = hook.bodies[0]
            text = "acme/<!channel> & al ice: 100 of 441 tokens/day spent (22 %), resets 00:00 UTC"
            assert (first["text"], first["alert"], first["kind"], first["limit"], first["amount"], first["window"]) == (
                text, "spend", "all", "441/day", 441, "day",
            )  # fmt: skip
            assert (first["resets"] % 86_400_000, first["refused"], first["event"]) == (0, False, "budget_alert")
            assert hook.paths == ["/in"] * 3
            said = {"text": "acme/&lt;!channel&gt; &amp; al ice: 100 of 441 tokens/day spent (22 %), resets 00:00 UTC"}
            assert (slack.bodies[0], slack.paths[0]) == (said, "/services/T0/secret")
            assert len(hook.bodies) == len(slack.bodies) == 3
            sent = 'budgeteer_alerts_total{alert="spend",channel="slack",result="sent"}'
            deadline = time.monotonic() + 20  # it is counted once the receiver's answer has been read
            while metric(running, sent) < 3 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert metric(running, sent) == 3


def test_a_message_has_the_units_of_people():
    def text(limit, spent, resets=None, refused=False):
        parsed = Limit.parse(limit)
        return Level("r", Fraction(4, 5), "acme/k", parsed, spent, 0, resets, refused, 0).text("acme/alice")

    day = 86_400_000
    assert text("$5/day", 4_020_000_000_000, day) == "acme/alice: $4.02 of $5.00/day spent (80 %), resets 00:00 UTC"
    assert text("output:1m/month", 999_999, 31 * day) == (
        "acme/alice: 999,999 of 1,000,000 output tokens/month spent (99 %), resets 1970-02-01 00:00 UTC"
    )
    assert text("500k/90m", 500_000) == "acme/alice: 500,000 of 500,000 tokens/90m spent (100 %), a rolling window"
    assert text("requests:60", 61, refused=True) == (
        "acme/alice: 61 of 60 requests spent (101 %) and a request was refused, never resets"
    )


@pytest.mark.parametrize("kind", ["sqlite", *servers.KINDS])
def test_two_replicas_send_one_mail(kind, tmp_path, upstream, request):
    pytest.importorskip("aiosmtpd")
    if kind == "sqlite":
        url = str(tmp_path / "ledger.db")
    else:
        request.getfixturevalue(f"{kind}_process")
        url = servers.shared(kind)
    with MailServer() as mails:
        rules = (
            f'[[alerts]]\nname = "spend"\nshares = [0.5]\naccounts = ["acme"]\n[alerts.email]\nhost = "127.0.0.1"\n'
            f'port = {mails.port}\nsecurity = "none"\nfrom = "gateway@example.com"\n'
            'to = ["ops@example.com", "Finance <money@example.com>"]\n[scopes."acme"]\nlimits = ["1200/day"]'
        )
        first, second = tmp_path / "one", tmp_path / "two"
        first.mkdir()
        second.mkdir()
        with gateway(first, upstream, rules, url) as one, gateway(second, upstream, rules, url) as two:
            key = one.key()

            def call(running):
                return running.call("/v1/chat/completions", ASK, key)[0]

            with ThreadPoolExecutor(4) as pool:
                assert set(pool.map(call, [one, two] * 4)) == {200}
            for running in (one, two):
                running.settled()
            mails.wait(1)
            with ThreadPoolExecutor(2) as pool:  # each has seen all of it
                list(pool.map(lambda running: running.do(running.gateway.alerts.look()), [one, two]))
        ((to, mail),) = mails.mails
        assert to == ["ops@example.com", "money@example.com"]
        assert mail["subject"].startswith("budgeteer: acme: ")
        assert "of 1,200 tokens/day spent" in mail["subject"]
        assert "Account: acme\nLimit: 1200/day\n" in mail.get_content().replace("\r\n", "\n")


def test_a_mail_server_with_starttls_and_a_password(tmp_path, upstream, monkeypatch, caplog):
    pytest.importorskip("aiosmtpd")
    if shutil.which("openssl") is None:
        pytest.skip("no openssl, which makes the certificate")
    with MailServer(tmp_path) as mails:
        rules = (
            f'[[alerts]]\nname = "spend"\nshares = [0.5]\n[alerts.email]\nhost = "localhost"\nport = {mails.port}\n'
            'user = "me"\npassword_env = "SMTP_PASSWORD"\nfrom = "gateway@example.com"\nto = ["ops@example.com"]'
        )
        # no certificate that this machine trusts: it is not sent, and the password neither
        with gateway(tmp_path, upstream, rules, env={"SMTP_PASSWORD": "right"}) as running:
            key = running.key("200")
            running.call("/v1/chat/completions", ASK, key)
            for _ in range(100):
                if metric(running, 'budgeteer_alerts_total{alert="spend",channel="email",result="failed"}'):
                    break
                threading.Event().wait(0.05)
            assert "CERTIFICATE_VERIFY_FAILED" in caplog.text
            monkeypatch.setenv("SSL_CERT_FILE", str(mails.certificate))
            ((_, mail),) = mails.wait(1)
            assert "100 of 200 tokens spent (50 %), never resets" in mail["subject"]
        assert "right" not in caplog.text


def test_a_webhook_that_fails_is_tried_again_and_reported(tmp_path, upstream, caplog):
    caplog.set_level(logging.WARNING)
    with Webhook(500, 503, 200) as hook:
        rules = '[[alerts]]\nname = "spend"\nshares = [0.5]\nwebhook = { url_env = "HOOK" }'
        with gateway(tmp_path, upstream, rules, env={"HOOK": f"{hook.url}/secret-token"}) as running:
            running.call("/v1/chat/completions", ASK, running.key("200"))
            hook.wait(3)
            running.settled()
            running.do(running.gateway.alerts.look())
            about = 'budgeteer_alerts_total{alert="spend",channel="webhook",result='
            for _ in range(100):
                if metric(running, f'{about}"sent"}}'):
                    break
                threading.Event().wait(0.02)
            assert (metric(running, f'{about}"failed"}}'), metric(running, f'{about}"sent"}}')) == (2, 1)
        assert len(hook.bodies) == 3
    assert "alert spend by webhook is not delivered, next attempt in 0.02 s: 127.0.0.1 answered 500" in caplog.text
    assert "secret-token" not in caplog.text


def test_a_redirect_of_a_webhook_is_not_followed(tmp_path, upstream, caplog):
    with Webhook() as elsewhere, Webhook(307, location=f"{elsewhere.url}/taken") as hook:
        rules = f'[[alerts]]\nname = "spend"\nshares = [0.5]\nwebhook = {{ url = "{hook.url}" }}'
        with gateway(tmp_path, upstream, rules) as running:
            running.call("/v1/chat/completions", ASK, running.key("200"))
            hook.wait(2)
        assert not elsewhere.bodies
    assert "answered 307: redirects are not followed" in caplog.text


def test_a_refused_request_tells_that_the_limit_is_used_up(tmp_path, upstream):
    with Webhook() as hook:
        rules = f'[[alerts]]\nname = "spend"\nwebhook = {{ url = "{hook.url}" }}\nshares = [1.0]'
        with gateway(tmp_path, upstream, rules) as running:
            key, small = running.key(f"{WORST + 60}/hour"), running.key("50", path="other")
            assert running.call("/v1/chat/completions", ASK, small)[0] == 402  # it fits no empty limit either
            assert running.call("/v1/chat/completions", ASK, key)[0] == 200
            running.settled()
            running.do(running.gateway.alerts.look())
            assert not hook.bodies
            for _ in range(2):  # 429 where the hour ends within a minute
                assert running.call("/v1/chat/completions", ASK, key)[0] in (402, 429)
            (body,) = hook.wait(1)
            running.do(running.gateway.alerts.look())
            assert (body["refused"], body["spent"], body["share"]) == (True, 100, 1.0)
            assert "100 of 201 tokens/hour spent (49 %) and a request was refused, resets" in body["text"]
        assert len(hook.bodies) == 1


def test_no_request_waits_for_a_webhook_that_hangs(tmp_path, upstream):
    with Webhook() as hook:
        hook.hang = True
        rules = f'[[alerts]]\nname = "spend"\nshares = [0.1]\nwebhook = {{ url = "{hook.url}" }}'
        with gateway(tmp_path, upstream, rules) as running:
            for n in range(8):  # more than are sent at once
                key = running.key("200", path=f"org{n}")
                assert running.call("/v1/chat/completions", ASK, key)[0] == 200
            hook.wait(watch._AT_ONCE)
            assert running.call("/v1/chat/completions", ASK, running.key("1000"))[0] == 200
            assert len(hook.bodies) == watch._AT_ONCE  # all of them are still waited for
            hook.hang = False
            hook._open.set()
            hook.wait(9)


def test_what_a_dead_replica_had_still_to_send_is_sent_by_another(tmp_path, upstream, monkeypatch):
    ledger = str(tmp_path / "ledger.db")
    with Webhook() as hook:
        rules = f'[[alerts]]\nname = "spend"\nshares = [0.5]\nwebhook = {{ url = "{hook.url}" }}'
        monkeypatch.setattr(watch, "LEASE", 300)
        with gateway(tmp_path, upstream, rules, ledger) as running:
            monkeypatch.setattr(running.gateway.alerts, "_deliver", _dies)
            running.call("/v1/chat/completions", ASK, running.key("200"))
            running.settled()
            running.do(running.gateway.alerts.look())
        assert not hook.bodies
        with gateway(tmp_path, upstream, rules, ledger):  # nobody calls it
            hook.wait(1)
        with gateway(tmp_path, upstream, rules, ledger) as running:  # and once delivered it is not sent again
            running.do(running.gateway.alerts._look_at_all())
        assert len(hook.bodies) == 1


async def _dies(*_):
    """A delivery of which nothing is heard again."""


def test_a_reset_account_is_told_again(tmp_path, upstream):
    with Webhook() as hook:
        rules = f'[[alerts]]\nname = "spend"\nshares = [0.5]\naccounts = ["acme/*"]\nwebhook = {{ url = "{hook.url}" }}'
        with gateway(tmp_path, upstream, rules) as running:
            key = running.key("400")
            for calls, told in ((3, 1), (1, 1), (1, 2)):
                if calls == 1 and told == 1:
                    running.gateway.ledger.reset(hook.bodies[0]["path"])
                for _ in range(calls):
                    assert running.call("/v1/chat/completions", ASK, key)[0] == 200
                    running.settled()
                    running.do(running.gateway.alerts.look())
                hook.wait(told)
        assert [one["spent"] for one in hook.bodies] == [200, 200]


def test_the_example_of_the_documentation(tmp_path):
    text = (Path(__file__).resolve().parents[2] / "docs" / "gateway.md").read_text(encoding="utf-8")
    example = text.partition("```toml\n[[alerts]]")[2].partition("```")[0]
    path = tmp_path / "gateway.toml"
    upstreams = [("one", "http://127.0.0.1:1/v1", ["m"], "")]
    path.write_text(toml(upstreams, extra=f"[[alerts]]{example}", kinds='["all", "money"]'))
    (rule,) = load(path, {"SLACK_WEBHOOK_URL": "https://h/s", "SMTP_PASSWORD": "p"}).alerts
    assert (rule.shares, rule.kinds) == ((Fraction(1, 2), Fraction(4, 5), Fraction(1)), {"money"})
    assert [rule.covers(account) for account in ("acme", "acme/ann", "acme/ann/user:bob", "other")] == [1, 1, 0, 0]
    assert [channel.name for channel in rule.channels] == ["webhook", "slack", "email"]
    assert (rule.channels[2].port, rule.channels[2].security) == (587, "starttls")
    assert "https://h/s" not in repr(rule)


@pytest.mark.parametrize("kind", ["sqlite", *servers.KINDS])
def test_of_many_claims_of_a_mark_one_is_had(kind, tmp_path, request):
    if kind == "sqlite":
        stores = [SqliteStore(tmp_path / "s.db") for _ in range(4)]
    else:
        request.getfixturevalue(f"{kind}_process")
        url = servers.shared(kind)
        stores = [connect(url) for _ in range(4)]
    now = watch.wall_clock() if kind == "redis" else 1_900_000_000_000
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: stores[n % 4].claim("a", now, now + 60_000), range(16)))
    assert found.count(None) == 1
    assert all(abs(until - now - 60_000) < 5_000 for until in found if until is not None)
    stores[0].mark("a", None)
    assert stores[1].claim("a", now, now + 40) is None
    if kind == "redis":
        threading.Event().wait(0.1)
    assert stores[2].claim("a", now + 100, now + 60_000) is None  # it no longer held
    stores[3].mark("a", now + 10**9)
    assert stores[0].claim("a", now + 10**8, now + 10**8 + 1) > now + 10**8
    for store in stores:
        store.close()


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ('name = "a"', "has nowhere to send alerts"),
        ('name = "a"\nshares = [1, 0.5]\nslack = {url = "http://h"}', "rising shares of a limit above 0 and up to 1"),
        ('name = "a"\nkinds = ["parallel"]\nslack = {url = "http://h"}', "choose of all, requests"),
        ('name = "a"\nslack = {url = "ftp://h"}', r"alerts\[0\].slack.url is 'ftp://h'; give http"),
        ('name = "a"\nslack = {}', "needs url or url_env, one of the two"),
        ('name = "a"\nslack = {url_env = "BAD"}', "names BAD, whose value cannot be used"),
        ('name = "a"\nslack = {url_env = "NOT"}', "names NOT, which is not set in the environment"),
        ('name = "a"\nslak = {url = "http://h"}', "did you mean 'slack'"),
        ('name = "a"\n[alerts.email]\nhost = "h"\nfrom = "a@b"\nto = ["nobody"]', "give addresses such as"),
        ('name = "a"\n[alerts.email]\nhost = "h"\nfrom = "a@b"\nto = ["a@b"]\nuser = "u"', "user and password_env"),
        ('name = "a"\n[alerts.email]\nhost = "h"\nfrom = "a@b"\nto = ["a@b"]\nuser = "u"\npassword_env = "BAD"\n'
         'security = "none"', "password in plain text"),
        ('name = "a"\n[alerts.email]\nhost = "h"\nfrom = "a@"\nto = ["a@b"]', "from is 'a@'; give addresses"),
        ('name = "a"\n[alerts.email]\nhost = "h"\nfrom = "a@b"\nto = ["a@[b"]', "give addresses"),
        ('name = "a"\n[alerts.email]\nhost = "h"\nfrom = "a@b"\nto = ["=?utf-8?q?=0aBcc:x?= <a@b>"]', "addresses"),
        ('name = "a"\n[alerts.email]\nhost = "h"\nfrom = "a@b"\nto = ["a@b"]\nuser = "u"\npassword_env = "ODD"',
         "names ODD, whose value has other characters than ASCII"),
        ('name = "a"\nslack = {url = "http://h"}\n[[alerts]]\nname = "a"\nslack = {url = "http://h"}', "of its own"),
    ],
)  # fmt: skip
def test_rules_that_cannot_be_used(rule, says, tmp_path):
    path = tmp_path / "gateway.toml"
    path.write_text(toml([("one", "http://127.0.0.1:1/v1", ["m"], "")], extra=f"[[alerts]]\n{rule}"))
    with pytest.raises(InvalidInput, match=says) as error:
        load(path, {"BAD": "secret value", "ODD": "secret välue"})
    assert "secret" not in str(error.value)


def test_what_nobody_takes_is_left_to_the_next_that_starts(tmp_path, upstream, monkeypatch):
    monkeypatch.setattr(watch, "AGAIN", (100.0,))
    ledger = str(tmp_path / "ledger.db")
    with Webhook(500, 200) as hook:
        rules = f'[[alerts]]\nname = "spend"\nshares = [0.5]\nwebhook = {{ url = "{hook.url}" }}'
        with gateway(tmp_path, upstream, rules, ledger) as running:
            running.call("/v1/chat/completions", ASK, running.key("200"))
            hook.wait(1)
        assert len(hook.bodies) == 1
        with gateway(tmp_path, upstream, rules, ledger):
            hook.wait(2)


class Slow:
    """A mail server that sends a byte now and then and never ends its first line."""

    def __init__(self):
        self.ends = threading.Event()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection = self.socket.accept()[0]
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection):
        with contextlib.suppress(OSError), connection:
            while not self.ends.wait(0.05):
                connection.sendall(b"2")

    def __enter__(self):
        threading.Thread(target=self.serve, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.ends.set()
        self.socket.close()


def test_a_mail_server_that_never_ends_its_answer_keeps_nothing_up(monkeypatch):
    """Not the other mails, and not the end of the process, which waits for threads that are no daemons."""
    monkeypatch.setattr(channels, "_LONGEST", 0.1)
    monkeypatch.setattr(channels, "_THREADS", 2)
    level = Level("r", Fraction(1), "acme", Limit("all", 100, "day"), 100, 0, 10**12 + 1, False, 10**12)

    def mail(port):
        return Mail("127.0.0.1", port, "none", "", "", "a@example.com", ("b@example.com",))

    async def send():
        sender = channels.Sender()
        with pytest.raises(channels.NotDelivered, match=r"did not take the message within 0.1 seconds"):
            await asyncio.wait_for(sender.send(mail(slow.port), level, "acme"), 5)
        monkeypatch.setattr(channels, "_LONGEST", 20)
        await sender.send(mail(server.port), level, "acme")
        server.wait(1)
        monkeypatch.setattr(channels, "_LONGEST", 0.1)
        for says in ("within 0.1 seconds", "2 earlier messages wait for their mail server"):
            with pytest.raises(channels.NotDelivered, match=says):
                await sender.send(mail(slow.port), level, "acme")
        ours = [thread for thread in threading.enumerate() if thread.name.startswith("budgeteer-alerts")]
        assert ours
        assert all(thread.daemon for thread in ours)
        await sender.close()

    with Slow() as slow, MailServer() as server:
        asyncio.run(send())
