"""The gateway takes a changed configuration while it serves."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)

from budgeteer.core.usage import Usage  # noqa: E402
from budgeteer.gateway.reload import Reloader, read  # noqa: E402
from budgeteer.metering.call import Metering  # noqa: E402
from budgeteer.prices import Price, Rates, of  # noqa: E402
from helpers.gateway_fixture import ADMIN, Running, toml  # noqa: E402
from helpers.upstream import Upstream, echo  # noqa: E402

ENVIRONMENT = {"BUDGETEER_ADMIN_KEY": ADMIN}
LOOP = "[policies.loop]\nseconds = 600\n"


class Served:
    """A gateway that serves a file, the reloader of that file, and what the reloader said."""

    def __init__(self, folder, text):
        self.said = []
        self.running = Running(folder, text)
        self.path = folder / "gateway.toml"

    def __enter__(self):
        self.running.__enter__()
        loaded = read(self.path, ENVIRONMENT)
        self.reloader = Reloader(self.running.gateway, self.path, loaded, True, self.said.append, ENVIRONMENT)
        return self

    def __exit__(self, *error):
        self.running.__exit__(*error)

    def reload(self, text):
        self.path.write_text(text)
        return self.running.do(self.reloader.reload())

    def chat(self, key, model="echo", **more):
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}
        return self.running.call("/v1/chat/completions", body, key)

    def metrics(self):
        return self.running.call("/metrics")[2].decode()


@pytest.fixture
def two():
    with Upstream(slow=echo(words=40, pause=0.03)) as one, Upstream() as other:
        yield one, other


def test_a_request_that_runs_finishes_by_the_configuration_with_which_it_began(tmp_path, two):
    one, other = two
    with Served(tmp_path, toml([("one", one.url, ["echo", "slow"], "")])) as served:
        key, answers = served.running.key("all:5000"), []
        slow = threading.Thread(target=lambda: answers.append(served.chat(key, "slow", stream=True)))
        slow.start()
        while not one.open and slow.is_alive():
            time.sleep(0.005)
        assert served.reload(toml([("two", other.url, ["echo"], "")]))
        assert served.running.gateway.proxy.live  # the request is seen by the configuration after it
        assert served.chat(key)[0] == 200
        assert served.chat(key, "slow")[0] == 404
        assert (one.calls, other.calls) == (1, 1)
        slow.join(30)
        assert answers[0][0] == 200
        records = served.running.settled(3)
        assert {record["upstream"] for record in records if record["status"] == 200} == {"one", "two"}
        assert served.running.spent() == one.billed + other.billed


def test_a_file_that_is_not_usable_changes_nothing_and_the_reason_is_said(tmp_path, two):
    one, _ = two
    good = toml([("one", one.url, ["echo"], "")])
    with Served(tmp_path, good) as served:
        key, version = served.running.key("all:5000"), served.reloader.version
        line = good.splitlines().index('name = "one"') + 2
        assert not served.reload(good.replace(f'base_url = "{one.url}"', 'base_url = "ftp://x"'))
        assert f"line {line}: upstreams[0].base_url" in served.said[-1]
        assert f"version {version} stays in use" in served.said[-1]
        assert not served.reload(good + "\n[policies.nonsense]\n")
        assert "is not a policy" in served.said[-1]
        served.path.unlink()
        assert not served.running.do(served.reloader.reload())
        assert "cannot be read" in served.said[-1]
        assert served.chat(key)[0] == 200
        assert f'budgeteer_config_info{{version="{version}"}} 1.0' in served.metrics()
        assert 'budgeteer_config_reloads_total{result="refused"} 3.0' in served.metrics()
        assert served.reload(good + "\n# the same, and a remark\n")
        assert served.reloader.version != version
        assert re.findall(r'budgeteer_config_info\{version="(\w+)"\} 1.0', served.metrics()) == [
            served.reloader.version
        ]
        assert served.reloader.version in served.said[-1]


def test_what_cannot_change_is_named_and_stays(tmp_path, two):
    one, _ = two
    text = toml([("one", one.url, ["echo"], "")])
    with Served(tmp_path, text) as served:
        changed = text.replace("port = 0", 'port = 9000\nhost = "0.0.0.0"\nretries = 3')
        changed = changed.replace('url = "memory:"', 'url = "redis://me:secret@db/0"\nrecords = 5000')
        assert served.reload(changed.replace('kinds = ["all"]', 'kinds = ["all", "output"]'))
        config, said = served.running.gateway.config, "\n".join(served.said)
        assert (config.server.port, config.server.host, config.ledger, config.kinds, config.keep) == (
            0, "127.0.0.1", "memory:", ("all",), 100_000,
        )  # fmt: skip
        assert config.server.retries == 3
        for name in ("[server] port", "[server] host", "[ledger] url", "[ledger] kinds", "[ledger] records"):
            assert f"{name} stays " in said
        assert "secret" not in said
        limited = 'kinds = ["all", "output"]\n[scopes.acme]\nlimits = ["output:5"]'
        assert not served.reload(text.replace('kinds = ["all"]', limited))
        assert "restart" in served.said[-1]
        assert "[scopes.\"acme\"] limits 'output'" in served.said[-1]


def test_limits_change_and_balances_policies_and_the_health_of_upstreams_stay(tmp_path, two):
    one, other = two
    upstreams = [("one", one.url, ["echo"], ""), ("two", other.url, ["m"], "")]
    with Served(tmp_path, toml(upstreams, extra=f'[scopes.acme]\nlimits = ["all:5000"]\n{LOOP}')) as served:
        key = served.running.key()
        assert served.chat(key)[0] == 200
        served.running.settled(1)
        spent, proxy = served.running.spent(), served.running.gateway.proxy
        proxy.upstreams.backends[0].failures = 3
        upstreams[1] = ("two", one.url, ["m"], "")
        assert served.reload(toml(upstreams, extra=f'[scopes.acme]\nlimits = ["all:{spent}"]\n{LOOP}'))
        status, _, body = served.chat(key)
        assert (status, body["error"]["budget"]["used"]) == (402, spent)
        after = served.running.gateway.proxy
        assert after is not proxy
        assert after.policies[0][1] is proxy.policies[0][1]
        assert [a is b for a, b in zip(after.upstreams.backends, proxy.upstreams.backends, strict=True)] == [
            True,
            False,
        ]
        assert served.reload(toml(upstreams, extra=LOOP.replace("600", "60")))
        assert served.running.gateway.proxy.policies[0][1] is not proxy.policies[0][1]


def test_groups_of_models_may_be_new(tmp_path, two):
    one, _ = two
    text = toml([("one", one.url, ["echo", "slow"], "")])
    with Served(tmp_path, text) as served:
        key = served.running.key("all:5000")
        assert served.chat(key)[0] == 200
        limited = '[groups]\nfast = ["echo"]\n[scopes.acme.per_model]\nfast = ["all:5"]\n'
        assert served.reload(text.replace("[[upstreams]]", f"{limited}[[upstreams]]", 1)), served.said
        assert (served.chat(key)[0], served.chat(key, "slow")[0]) == (402, 200)


def test_what_was_learnt_of_answers_goes_on(tmp_path, two):
    one, _ = two
    text = toml([("one", one.url, ["echo"], "")], kinds='["all", "learnt.all"]')
    with Served(tmp_path, text) as served:
        key, learnt = served.running.key("all:5000"), served.running.gateway.proxy.booking.learnt
        assert served.chat(key)[0] == 200
        served.running.settled(1)
        before = json.loads(learnt.to_text())
        assert served.reload(text + "\n"), served.said
        assert served.running.gateway.proxy.booking.learnt is learnt
        assert json.loads(learnt.to_text()) == before
        assert served.chat(key)[0] == 200
        served.running.settled(2)
        assert json.loads(learnt.to_text()) != before


def test_new_keys_get_new_defaults(tmp_path, two):
    one, _ = two
    text = toml([("one", one.url, ["echo"], "")])
    with Served(tmp_path, text) as served:
        assert served.reload(text + '\n[defaults]\nlimits = ["all:7"]\n')
        assert served.running.admin("keys", {"path": "acme"})["key"]["limits"] == ["7"]


def test_a_file_that_is_watched_is_read_once_it_is_whole_and_only_once(tmp_path, two):
    one, _ = two
    text = toml([("one", one.url, ["echo"], "")])
    with Served(tmp_path, text) as served:
        look = lambda: served.running.do(served.reloader.changed())  # noqa: E731
        assert [look(), look()] == [False, False]
        served.path.write_text(text[:40])
        assert not look()
        served.path.write_text(text[:60])
        assert not look()  # it is being written
        assert look()
        assert not served.running.do(served.reloader.reload())
        assert [look(), look()] == [False, False]  # the same bad file is not tried again
        served.path.write_text(text + "\n")
        assert [look(), look()] == [False, True]


def test_a_changed_price_file_is_another_version(tmp_path, two):
    one, _ = two
    (tmp_path / "prices.toml").write_text('[models."echo"]\ninput = 1\noutput = 1\n')
    text = toml([("one", one.url, ["echo"], "")], kinds='["all", "money"]').replace(
        "shipped = false", 'shipped = false\nfiles = ["prices.toml"]'
    )
    with Served(tmp_path, text) as served:
        key, version = served.running.key("$1"), served.reloader.version
        assert served.chat(key)[0] == 200
        served.running.settled(1)
        first = served.running.spent(kind="money")
        (tmp_path / "prices.toml").write_text('[models."echo"]\ninput = 2\noutput = 2\n')
        assert served.reload(text)
        assert served.reloader.version != version
        assert served.chat(key)[0] == 200
        served.running.settled(2)
        assert served.running.spent(kind="money") - first == 2 * first > 0


def test_other_prices_keep_what_was_learnt_of_who_thinks_unseen():
    cheap, dear = (of({"m": Price(Rates(input=dollars, output=dollars))}) for dollars in (1, 2))
    old = Metering(None, ("money",), cheap)
    old._thinkers.add("m")
    old._open.add("open")
    new = old.repriced(dear)
    used = Usage(input=10, output=10)
    assert new.most(used, "m", "")["money"] == 2 * old.most(used, "m", "")["money"]
    assert new._thinkers is old._thinkers  # also what a running request learns later
    assert (new._open, old._open) == (set(), {"open"})


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP here")
def test_the_command_reloads_on_sighup(tmp_path, two):
    one, _ = two
    path = tmp_path / "gateway.toml"
    path.write_text(toml([("one", one.url, ["echo"], "")], server="open_metrics = true"))
    arguments = ["serve", "--config", str(path), "--port", "0"]
    code = f"import sys\nfrom budgeteer.cli import main; sys.exit(main({arguments!r}))"
    environment = {**os.environ, **ENVIRONMENT}
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            lines = iter(process.stderr.readline, "")
            assert "is in use" in next(lines)
            next(line for line in lines if "/v1" in line)
            path.write_text("[server]\nprot = 1\n")
            deadline = time.monotonic() + 30
            while not _listens(process.pid) and time.monotonic() < deadline:
                time.sleep(0.05)
            process.send_signal(signal.SIGHUP)
            assert "did you mean 'port'" in next(line for line in lines if "not usable" in line)
            path.write_text(toml([("one", one.url, ["echo", "more"], "")]))
            process.send_signal(signal.SIGHUP)
            assert "is in use; running requests finish" in next(lines)
        finally:
            process.terminate()
            process.wait(30)


def _listens(process):
    """Whether a process handles SIGHUP by now, as Linux tells; elsewhere after a while."""
    try:
        with open(f"/proc/{process}/status") as about:
            caught = next(line for line in about if line.startswith("SigCgt"))
    except OSError:
        time.sleep(5)
        return True
    return bool(int(caught.split()[1], 16) & 1 << (signal.SIGHUP - 1))
