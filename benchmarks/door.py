"""The gateway under attacks that need no key, or one with a budget of one token: its memory, its descriptors, how fast
/healthz answers meanwhile, and what is left in the records.

    python benchmarks/door.py                    # writes benchmarks/results/door.json
    python benchmarks/door.py --before SRC       # and the same for another version: the src folder of its checkout
    python benchmarks/door.py --quick            # smoke test: small; writes nothing without --out

Everything runs on the loopback interface of this machine: a gateway with its defaults (a store of 1,000 records, a
ledger in memory), an upstream that answers at once, and one attacker, a process that stops by itself after some
seconds and some connections. The gateway has a core for itself, all else shares another one, the attacker last; other
jobs of the machine are in the times of /healthz all the same. Before the attacks 200 requests are paid; `paid_kept`
is how many of their records are left after each attack.

- trailers: chunked requests without a key whose trailers never end.
- keyless: requests without a key, one after the other.
- half bodies: connections without a key that send half of a body and wait.
- small parts: bodies of 19.5 MB of `{}` by a key that may spend one token.
- fields: what a server would run or load, by a key that may spend; what reached the upstream is counted.
- slow heads: connections that send a byte of their headers now and then.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gateway import ADMIN, MODEL, answers, free_port, quantile, resident_bytes, running

OUT = Path(__file__).parent / "results" / "door.json"
SOURCE = Path(__file__).parents[1] / "src"
ATTACKS = ("trailers", "keyless", "half bodies", "small parts", "fields", "slow heads")
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
FIELDS = ("custom_logit_processor", "logits_processors", "extra_body", "chat_template", "lora_path", "bootstrap_host")
_PAID = 200


# the attacker


async def _connection(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


async def attack(name: str, port: int, key: str, seconds: float, many: int) -> dict[str, Any]:
    """One attack; what it could send."""
    ends = time.monotonic() + seconds
    counts: dict[str, Any] = {"connections": 0, "bytes_sent": 0, "statuses": {}}

    whole = _parts(key) if name == "small parts" else HEAD + b"content-length: 2\r\n\r\n{}"

    def body(about: dict[str, Any]) -> bytes:
        raw = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], **about}).encode()
        return HEAD + f"authorization: Bearer {key}\r\ncontent-length: {len(raw)}\r\n\r\n".encode() + raw

    async def send(number: int) -> None:
        pause, reads = (1.0, False) if name in ("half bodies", "slow heads") else (0.0, name != "trailers")
        pieces: Iterable[bytes] = (whole,)
        if name == "trailers":
            pieces = itertools.repeat(b"x-t: " + b"a" * 60_000 + b"\r\n")
        elif name == "half bodies":
            pieces = itertools.chain((HEAD + b"content-length: 1000\r\n\r\n{",), itertools.repeat(b" ", 900))
        elif name == "slow heads":
            pieces = (HEAD[i : i + 1] for i in range(len(HEAD)))
        elif name == "fields":
            pieces = (body({FIELDS[number % len(FIELDS)]: "gASVCgAAAAAAAACMAm9zlIw="}),)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await _connection(port)
            counts["connections"] += 1
            try:
                if name == "trailers":
                    writer.write(HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\n")
                for piece in pieces:
                    if time.monotonic() > ends or writer.is_closing():
                        break
                    writer.write(piece)
                    await writer.drain()
                    counts["bytes_sent"] += len(piece)
                    await asyncio.sleep(pause)
                if reads:
                    line = (
                        await asyncio.wait_for(reader.readuntil(b"\r\n"), max(0.1, ends - time.monotonic()))
                    ).split()
                    status = line[1].decode()
                    counts["statuses"][status] = counts["statuses"].get(status, 0) + 1
            except TimeoutError:
                pass
            finally:
                writer.close()

    async def worker(number: int) -> None:
        while time.monotonic() < ends and counts["connections"] < many:
            await send(number)
            number += 1
            if name in ("half bodies", "slow heads"):
                await asyncio.sleep(0.2)

    at_once = {"trailers": 4, "keyless": 8, "small parts": 2, "fields": 4}.get(name, min(many, 800))
    await asyncio.gather(*[worker(n) for n in range(at_once)])
    return counts


def _parts(key: str) -> bytes:
    raw = b'{"model":"' + MODEL.encode() + b'","messages":[' + b"{}," * 6_500_000 + b"{}]}"
    return HEAD + f"authorization: Bearer {key}\r\ncontent-length: {len(raw)}\r\n\r\n".encode() + raw


# the gateway, and what is seen of it


class Watch:
    """Memory, descriptors and times of /healthz, until it is stopped."""

    def __init__(self, port: int, pid: int) -> None:
        self.port, self.pid = port, pid
        self.bytes: list[int] = []
        self.descriptors: list[int] = []
        self.times: list[float] = []
        self.failed = 0
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=look) for look in (self._look, self._ask)]

    def __enter__(self) -> Watch:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def _look(self) -> None:
        while not self._ends.is_set():
            self.bytes.append(resident_bytes((self.pid,)))
            self.descriptors.append(len(os.listdir(f"/proc/{self.pid}/fd")))
            self._ends.wait(0.1)

    def _ask(self) -> None:
        while not self._ends.is_set():
            begin = time.perf_counter()
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=20) as link:
                    link.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                    well = link.recv(1000).startswith(b"HTTP/1.1 200")
            except OSError:
                well = False
            self.times.append(time.perf_counter() - begin)
            self.failed += not well
            self._ends.wait(0.02)


def _call(port: int, path: str, body: Any = None, key: str = ADMIN) -> Any:
    about = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(
        urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, about), timeout=600
    ) as got:
        return json.load(got)


@contextlib.contextmanager
def gateway(source: Path, core: int, upstream: int, folder: Path) -> Iterator[tuple[int, int]]:
    """A gateway of some version: its port and process."""
    port = free_port()
    config = folder / "gateway.toml"
    config.write_text(f"""
[ledger]
url = "memory:"
records = 1000
[logging]
json = false
[[upstreams]]
name = "echo"
base_url = "http://127.0.0.1:{upstream}/v1"
[[upstreams.models]]
name = "{MODEL}"
max_output = 1000
""")
    environment = {**os.environ, "BUDGETEER_ADMIN_KEY": ADMIN, "PYTHONPATH": str(source)}
    program = "import sys; from budgeteer.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "serve", "--config", str(config), "--port", str(port)]
    log = folder / "log"
    with log.open("w") as out, running(core, command, env=environment, stdout=out, stderr=out) as process:
        answers(process, f"http://127.0.0.1:{port}/healthz", log)
        yield port, process.pid


def measure(source: Path, seconds: float, many: int) -> dict[str, Any]:
    """All attacks on one version, each on a gateway of its own."""
    cores = sorted(os.sched_getaffinity(0))
    measured = {}
    load = Path(__file__).parent / "gateway_load.py"
    for name in ATTACKS:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            echo = stack.enter_context(running(cores[0], [sys.executable, str(load), "echo"], stdout=subprocess.PIPE))
            assert echo.stdout
            port, pid = stack.enter_context(gateway(source, cores[-1], int(echo.stdout.readline()), folder))
            rich = _call(port, "/admin/api/keys", {"path": "paid", "limits": ["all:100000000"]})["secret"]
            poor = _call(port, "/admin/api/keys", {"path": "poor", "limits": ["all:1"]})["secret"]
            asked = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 100}
            for _ in range(_PAID):
                _call(port, "/v1/chat/completions", asked, rich)
            with Watch(port, pid) as quiet:
                time.sleep(2)
            before = _call(port, "/admin/api/summary")["requests"]
            key = rich if name == "fields" else poor
            task = [sys.executable, __file__, "--attack", name, str(port), key, str(seconds), str(many)]
            with Watch(port, pid) as watch:
                done = subprocess.run(task, capture_output=True, text=True, timeout=seconds * 5 + 60, check=True)
            with Watch(port, pid) as after:
                time.sleep(3)
            kept = _call(port, "/admin/api/summary?path=paid&outcome=ok")["requests"]
            answered = _call(port, "/admin/api/summary?outcome=ok")["requests"] if kept == _PAID else kept
            total, *known = (
                _call(port, f"/admin/api/summary?{query}")["requests"] for query in ("", "path=paid", "path=poor")
            )
            records, keyless = total - before, total - sum(known)
        measured[name] = {
            "attacker": json.loads(done.stdout),
            "resident_mb": {
                "before": quiet.bytes[-1] / 2**20, "most": max(watch.bytes) / 2**20, "after": after.bytes[-1] / 2**20,
            },
            "descriptors": {
                "before": quiet.descriptors[-1], "most": max(watch.descriptors), "after": after.descriptors[-1],
            },
            "healthz_ms": {
                "quiet_p99": quantile(quiet.times, 0.99), "quiet_most": max(quiet.times) * 1e3,
                "p50": quantile(watch.times, 0.5), "p99": quantile(watch.times, 0.99),
                "most": max(watch.times) * 1e3, "asked": len(watch.times), "unanswered": watch.failed,
            },
            "paid_kept": kept, "records_without_key": keyless, "records_more": records,
            "reached_the_upstream": max(0, answered - _PAID),
        }  # fmt: skip
        print(name, json.dumps(measured[name]))
    return measured


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="src folder of another version, to be measured as well")
    parser.add_argument("--seconds", type=float, default=12.0, help="of an attack (default 12)")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--attack", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.attack:
        name, port, key, seconds, many = args.attack
        os.nice(15)  # so that the times are the gateway's, not those of a client that waits for its core
        print(json.dumps(asyncio.run(attack(name, int(port), key, float(seconds), int(many)))))
        return
    seconds, many = (1.0, 60) if args.quick else (args.seconds, 2500)
    versions = {"now": SOURCE, **({"before": args.before} if args.before else {})}
    results = {
        "seconds": seconds,
        "connections_at_most": many,
        "versions": {name: measure(source, seconds, many) for name, source in versions.items()},
        "machine": {"cores": len(os.sched_getaffinity(0)), "cpu": platform.processor() or platform.machine(),
                    "load": os.getloadavg()},
        "python": platform.python_version(),
    }  # fmt: skip
    out = args.out or (None if args.quick else OUT)
    if out is not None:
        out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
