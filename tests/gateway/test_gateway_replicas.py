"""The gateway on stores that last: SQLite, replicas on a server, a replica that is killed, a store that goes away."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request

import pytest

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)
import aiohttp  # noqa: E402

from budgeteer.core.errors import LedgerUnavailable  # noqa: E402
from budgeteer.ledger import Limit, SqliteLedger, address  # noqa: E402
from helpers import servers  # noqa: E402
from helpers.gateway_fixture import ADMIN, Running, toml  # noqa: E402
from helpers.upstream import Upstream, echo  # noqa: E402

HI = [{"role": "user", "content": "Hi"}]
ASK = {"model": "m", "messages": HI, "max_tokens": 20}


async def many(url, key, n, body, patience=60):
    """(status, bytes) of n calls at once; status 0 where the connection broke."""
    timeout = aiohttp.ClientTimeout(total=patience)

    async def one(session):
        try:
            async with session.post(f"{url}/chat/completions", json=body) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError):
            return 0, b""

    connector, headers = aiohttp.TCPConnector(limit=0), {"authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(headers=headers, connector=connector, timeout=timeout) as session:
        return await asyncio.gather(*(one(session) for _ in range(n)))


def worst(body):
    return len(json.dumps(body).encode()) + 10 + body["max_tokens"]


@pytest.mark.parametrize("kind", ["sqlite", *servers.KINDS])
def test_a_store_that_lasts(kind, tmp_path, request):
    if kind == "sqlite":
        url = str(tmp_path / "ledger.db")
    else:
        request.getfixturevalue(f"{kind}_process")
        url = servers.shared(kind)
    with Upstream(m=echo(words=20, delay=0.1)) as upstream:
        text = toml([("one", upstream.url, ["m"], "")], ledger=url)
        with Running(tmp_path, text) as running:
            limit = 10 * worst(ASK)
            key = running.key(f"all:{limit}")
            answers = asyncio.run(many(running.url, key, 40, ASK))
            running.settled(40)
        with Running(tmp_path, text) as running:  # all that matters is there after a restart
            assert len(running.admin("requests")["requests"]) == 40
            assert running.call("/v1/models", None, key)[0] == 200
            served = sum(status == 200 for status, _ in answers)
            assert 10 <= served < 40
            assert {status for status, _ in answers} <= {200, 402, 429}
            assert running.spent() == upstream.billed == 27 * served
            running.gateway.ledger.verify()
            assert running.admin("summary")["overshoot"] == {}


def test_what_a_dead_replica_held_is_charged_in_full(tmp_path):
    url = str(tmp_path / "ledger.db")
    text = toml([("one", "http://127.0.0.1:9/v1", ["m"], "")], ledger=url)
    with Running(tmp_path, text) as running:
        running.gateway.store.beat("gwdead", 5)
        running.gateway.store.beat("gwalive", int(time.time() * 1000))
        key = running.key("all:1000", "parallel:2")
        path = f"acme/{key.split('-')[1]}"
        running.gateway.ledger.open("acme", [Limit(kind, None) for kind in ("all", "requests", "parallel")])
        running.gateway.ledger.open(path, [Limit("all", 1000), Limit("parallel", 2)])
        for name in ("gwdead-0.0", "gwalive-0.0"):
            running.gateway.ledger.reserve(path, {"all": 300, "requests": 1, "parallel": 1}, id=name)
    with Running(tmp_path, text) as running:
        assert running.spent() == 300
        assert running.spent(kind="parallel") == 0
        running.do(running.gateway.records.flush())
        (record,) = running.admin("requests")["requests"]
        assert (record["id"], record["estimated"], record["units"]["all"]) == ("gwdead-0.0", 1, 300)
        assert set(running.gateway.store.beat("x", None)) == {"gwalive", running.gateway.proxy.instance}


@pytest.mark.parametrize("kind", servers.KINDS)
def test_without_its_ledger_nothing_is_sent_and_what_ran_is_booked_later(tmp_path, kind):
    server = servers.own(kind)
    try:
        with (
            Upstream(m=echo(delay=1.0)) as upstream,
            Running(tmp_path, toml([("one", upstream.url, ["m"], "")], ledger=server.url)) as running,
        ):
            key = running.key("all:5000")
            assert running.call("/v1/chat/completions", ASK, key)[0] == 200
            running.settled(1)
            answers = []
            thread = threading.Thread(target=lambda: answers.append(running.call("/v1/chat/completions", ASK, key)))
            thread.start()
            while not upstream.open:
                time.sleep(0.01)
            server.end()
            thread.join(20)
            assert answers[0][0] == 200  # paid for, so handed over
            calls = upstream.calls
            status, headers, found = running.call("/v1/chat/completions", ASK, key)
            assert (status, found["error"]["code"], headers["retry-after"]) == (503, "ledger_unavailable", "1")
            assert running.call("/healthz")[0] == 503
            server.start()
            running.settled(2)
            assert running.spent() == 24
            assert upstream.calls == calls
            assert running.call("/v1/chat/completions", ASK, key)[0] == 200
            running.gateway.ledger.verify()
    finally:
        server.stop()


@pytest.mark.parametrize("made", [True, False])
def test_a_reservation_whose_answer_was_lost_is_given_back(tmp_path, made, caplog):
    """Nothing is sent for it, so nothing of it stays held: neither tokens nor one of the requests at once."""
    with Upstream(m=echo()) as upstream:
        text = toml([("one", upstream.url, ["m"], "")], ledger=str(tmp_path / "ledger.db"))
        with Running(tmp_path, text) as running:
            key = running.key("all:5000", "parallel:1")
            assert running.call("/v1/chat/completions", ASK, key)[0] == 200
            running.settled(1)
            ledger, lost = running.gateway.ledger, []
            carry_out = ledger.run_batch

            def lose(commands):
                found = carry_out(commands) if made or lost else None
                if not lost and any(command[0] == "reserve" for command in commands):
                    lost.append(commands)
                    raise LedgerUnavailable("the answer was lost")
                return found

            ledger.run_batch = lose
            status, _, found = running.call("/v1/chat/completions", ASK, key)
            assert (status, found["error"]["code"], upstream.calls) == (503, "ledger_unavailable", 1)
            records = running.settled(2)
            assert [(one["outcome"], one["attempts"]) for one in records] == [("ok", 1), ("refused", 0)]
            assert running.call("/v1/chat/completions", ASK, key)[0] == 200
            running.settled(3)
            assert running.spent() == 24
            assert not [one for one in caplog.records if one.exc_info]


def _serve(folder, name, text):
    """A gateway in a process of its own; (process, its root URL)."""
    from helpers import redis_server

    (folder / name).write_text(text)
    port = redis_server.free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; from budgeteer.cli import main; sys.exit(main(sys.argv[1:]))",
         "serve", "--config", str(folder / name), "--port", str(port)],
        env={**os.environ, "BUDGETEER_ADMIN_KEY": ADMIN}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for _ in range(400):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5):
                return process, f"http://127.0.0.1:{port}"
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the gateway did not start")


def _admin(root, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{root}/admin/api/{path}", data, {"authorization": f"Bearer {ADMIN}"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


@pytest.mark.slow
def test_five_hundred_streams_on_one_replica(tmp_path):
    body = {**ASK, "stream": True}
    with Upstream(m=echo(words=20, pause=0.02)) as upstream:
        text = toml([("one", upstream.url, ["m"], "")], ledger=str(tmp_path / "ledger.db"))
        process, root = _serve(tmp_path, "one.toml", text)
        try:
            limit = 200 * worst(body)
            key = _admin(root, "keys", {"path": "acme", "limits": [f"all:{limit}"]})["secret"]
            answers = asyncio.run(many(f"{root}/v1", key, 500, body))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    served = [said for status, said in answers if status == 200]
    assert 190 < len(served) < 500
    assert all(said.endswith(b"data: [DONE]\n\n") for said in served)
    assert {status for status, _ in answers} <= {200, 402, 429}
    with SqliteLedger(tmp_path / "ledger.db") as ledger:
        _, state = ledger.snapshot()
        book = state.accounts["acme"].books["all"]
        assert (book.spent, book.held, book.over) == (upstream.billed, 0, 0)
        assert book.spent == 27 * len(served) <= limit
        ledger.verify()


@pytest.mark.slow
@pytest.mark.parametrize("kind", servers.KINDS)
def test_five_hundred_streams_on_two_replicas_one_of_which_is_killed(tmp_path, kind):
    body = {**ASK, "stream": True}
    server = servers.own(kind)
    processes = []
    try:
        with Upstream(m=echo(words=20, pause=0.1)) as upstream:
            text = toml([("one", upstream.url, ["m"], "")], ledger=server.url)
            (first, one), (second, two) = _serve(tmp_path, "one.toml", text), _serve(tmp_path, "two.toml", text)
            processes = [first, second]
            limit = 300 * worst(body)
            key = _admin(one, "keys", {"path": "acme", "limits": [f"all:{limit}"]})["secret"]

            async def both():
                calls = [asyncio.ensure_future(many(f"{root}/v1", key, 250, body)) for root in (one, two)]
                while upstream.billed < 1500:
                    await asyncio.sleep(0.02)
                first.kill()
                return await asyncio.gather(*calls)

            lost, kept = asyncio.run(both())
            deadline = time.monotonic() + 90
            with address.connect(server.url) as ledger:
                while True:
                    _, state = ledger.snapshot()
                    book = state.accounts["acme"].books["all"]
                    if not book.held or time.monotonic() > deadline:
                        break
                    time.sleep(1)
                assert (book.held, book.over) == (0, 0)
                assert upstream.billed <= book.spent <= limit
                ledger.verify()
            records = []
            while len(records) < 250 and time.monotonic() < deadline:
                time.sleep(0.5)
                records = _admin(two, "requests?limit=1000")["requests"]
        whole = sum(said.endswith(b"data: [DONE]\n\n") for status, said in kept if status == 200)
        assert whole == sum(status == 200 for status, _ in kept) > 0
        assert {status for status, _ in kept} <= {200, 402, 429}
        assert any(status == 0 or not said.endswith(b"[DONE]\n\n") for status, said in lost if status in (0, 200))
        dead = [record for record in records if record["reason"] == "the replica was killed"]
        done = [record for record in records if record["outcome"] == "ok"]
        assert dead
        assert all(record["estimated"] for record in dead)
        assert sum(record["units"]["all"] for record in done) == 27 * len(done)
        assert len(done) >= whole
    finally:
        for process in processes:
            process.kill()
            process.wait()
        server.stop()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["hangs", "is gone"])
@pytest.mark.parametrize("kind", servers.KINDS)
def test_five_hundred_streams_on_two_replicas_while_the_server_is_away_for_five_seconds(tmp_path, how, kind):
    """Those that run go on and are booked; none begins unreserved; afterwards the budget runs out to the token."""
    body = {**ASK, "stream": True}
    server = servers.own(kind)
    processes = []
    try:
        with Upstream(m=echo(words=20, prompt=80, pause=0.1)) as upstream:
            text = toml([("one", upstream.url, ["m"], "")], ledger=server.url)
            (first, one), (second, two) = _serve(tmp_path, "one.toml", text), _serve(tmp_path, "two.toml", text)
            processes = [first, second]
            limit = 300 * worst(body)
            key = _admin(one, "keys", {"path": "acme", "limits": [f"all:{limit}"]})["secret"]

            async def both(n):
                calls = await asyncio.gather(*(many(f"{root}/v1", key, n, body) for root in (one, two)))
                return [answer for answers in calls for answer in answers]

            async def outage():
                running = asyncio.ensure_future(both(250))
                while upstream.calls < 100:
                    await asyncio.sleep(0.01)
                await asyncio.to_thread(server.hang if how == "hangs" else server.end)
                back = time.monotonic() + 5
                calls = -1
                while calls < upstream.calls:  # those that were reserved just before
                    calls = upstream.calls
                    await asyncio.sleep(0.7)
                late = asyncio.ensure_future(both(20))
                await asyncio.sleep(back - time.monotonic())
                begun = upstream.calls - calls
                await asyncio.to_thread(server.resume if how == "hangs" else server.start)
                return begun, await running, await late

            begun, answers, late = asyncio.run(outage())
            assert begun == 0
            assert {status for status, _ in answers} <= {200, 402, 429, 503}
            assert sum(status == 200 for status, _ in answers) >= 100
            assert {status for status, _ in late} <= ({503} if how == "is gone" else {200, 402, 429, 503})
            deadline = time.monotonic() + 60
            with address.connect(server.url) as ledger:

                def settled():
                    while True:
                        _, state = ledger.snapshot()
                        books = state.accounts["acme"].books
                        if not any(book.held for book in books.values()):
                            return books
                        assert time.monotonic() < deadline, list(state.reservations.values())
                        time.sleep(0.2)

                settled()
                wave = again = asyncio.run(both(250))
                while {status for status, _ in wave} != {402}:  # what they held and did not use serves some more
                    assert {status for status, _ in wave} <= {200, 402, 429}
                    settled()
                    wave = asyncio.run(both(10))
                    again = again + wave
                book = settled()["all"]
                assert book.over == 0
                served = [said for status, said in (*answers, *late, *again) if status == 200]
                assert all(said.endswith(b"data: [DONE]\n\n") for said in served)
                assert book.spent == upstream.billed == 100 * len(served) <= limit
                assert book.spent > limit - worst(body)
                ledger.verify()
            # what came once the key was forgotten could not be told from a stranger's, and has no record
            away = [_admin(root, "summary")["turned_away"].get("ledger_unavailable", 0) for root in (one, two)]
            recorded = 540 + len(again) - sum(away)
            rows = []
            while sum(row["requests"] for row in rows) < recorded and time.monotonic() < deadline:
                time.sleep(0.5)
                rows = _admin(two, "spend?by=outcome&kind=all")["rows"]
            assert sum(row["units"] for row in rows) == upstream.billed
            assert sum(row["requests"] for row in rows) == recorded
    finally:
        for process in processes:
            process.kill()
            process.wait()
        server.resume()
        server.stop()
