"""What a gateway costs: the time it adds to a call, requests a second of one core, streamed tokens a second and memory,
of budgeteer's with a key that has a budget, of the LiteLLM proxy and of Portkey's gateway, in the same run.

    python benchmarks/gateway.py                          # writes benchmarks/results/gateway.json
    python benchmarks/gateway.py --litellm VENV/bin/python    # with that peer, in a virtual environment of its own
    python benchmarks/gateway.py --portkey FOLDER             # with that one: the folder of `npm install`
    python benchmarks/gateway.py --quick                  # smoke test: small; writes nothing without --out

One upstream that answers at once and one client (benchmarks/gateway_load.py) share a core; the gateways have another
one, each a single process (and the redis-server of the one that has it). `direct` is the client at the upstream, and
what the others are compared with. Rounds of all variants take turns; medians over the rounds, and their range, are
given. All are idle but the one that is measured: after each load its gateway is waited for until it has worked off what
is left of it (LiteLLM goes on for up to half a minute with requests whose callers gave up, on the core that the next
one is measured on). Processor time comes from /proc and leaves out what other jobs of the machine took, which requests
a second and latencies do not.

LiteLLM is installed by `pip install 'litellm[proxy]!=1.107.0' && python -m compileall -q SITE_PACKAGES` (1.107.0 is
said to have been compromised). Its virtual keys need Postgres and Prisma's query engine, a binary that is downloaded.
`litellm` here has keys that `custom_auth` hands it, each with a `max_budget`, and `custom_auth_run_common_checks`: the
budget is checked, reserved from and charged in memory on every request, and nothing is written to a database, where
budgeteer's ledgers other than `memory` book durably. `litellm, no budget` is the proxy with its master key only.

Portkey's gateway is installed by `npm install` of a package.json with the dependency `@portkey-ai/gateway` and the
override `"@hono/node-server": "1.13.7"`: with the version that it takes by itself all its streams fail on Node 20. It
has neither keys nor budgets nor prices: what it costs is that of passing a request on.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from ledger import fsync_milliseconds

OUT = Path(__file__).parent / "results" / "gateway.json"
LOAD = Path(__file__).parent / "gateway_load.py"
PORTKEY = Path("node_modules", "@portkey-ai", "gateway")
MODEL = "gpt-4o-mini"
ADMIN = "sk-admin-0123456789abcdef"
SOURCE = Path(__file__).parents[1] / "src"
TARGETS = {"added p50 ms at 200/s": 1.0, "added p99 ms at 200/s": 4.0, "times litellm's requests per core": 20.0}
ASKED = {
    "model": MODEL,
    "messages": [
        {"role": "system", "content": "You answer questions about orders, briefly and politely. " * 4},
        {"role": "user", "content": "Where is order 4711, and when will it be here? " * 6},
    ],
    "temperature": 0.2,
    "max_tokens": 64,
}
STREAMED = {**ASKED, "stream": True, "max_tokens": 200}
PRICED = (120 * 0.15 + 64 * 0.6) / 1e6
"""Dollars of one answer of the upstream (120 tokens of input, 64 of output) by the list price of MODEL."""
_TICK = os.sysconf("SC_CLK_TCK")
_LOOK, _IDLE = 0.5, 0.05
"""Idle is who needs less than this share of a core for so many seconds."""


@dataclass
class Variant:
    """A gateway that runs, or the upstream itself.

    Attributes:
        key: has a budget that does not run out.
        poor: has a budget of about ten requests; "" = there is none.
        pids: whose processor time and memory counts.
        headers: that every request needs.
    """

    name: str
    port: int
    key: str
    poor: str
    pids: tuple[int, ...]
    headers: Mapping[str, str] = field(default_factory=dict)
    idle_bytes: int = 0


def processor_seconds(pids: Sequence[int]) -> float:
    """Time on a processor so far, of processes and those they started."""
    total = 0
    for pid in tree(pids):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICK


def resident_bytes(pids: Sequence[int]) -> int:
    """Memory of processes and those they started."""
    total = 0
    for pid in tree(pids):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1]) * 1024
    return total


def tree(pids: Sequence[int]) -> list[int]:
    """Processes and their descendants."""
    processes = list(pids)
    for pid in processes:
        for task in Path(f"/proc/{pid}/task").iterdir():
            processes += map(int, (task / "children").read_text().split())
    return processes


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def pinned(core: int, command: Sequence[str]) -> list[str]:
    """A command on one core."""
    return ["taskset", "-c", str(core), *command]


@contextlib.contextmanager
def running(core: int, command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process on one core, stopped at the end."""
    process = subprocess.Popen(pinned(core, command), text=True, start_new_session=True, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def answers(process: subprocess.Popen[str], url: str, log: Path, seconds: float = 120.0) -> None:
    """Wait until a server answers."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends and process.poll() is None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url, timeout=5).close()
            return
        time.sleep(0.1)
    raise SystemExit(f"{process.args} did not start:\n{log.read_text()[-3000:]}")


@contextlib.contextmanager
def budgeteer(
    core: int, folder: Path, name: str, ledger: str, upstream: int, source: Path = SOURCE
) -> Iterator[Variant]:
    """`budgeteer serve` of the version in ``source`` with its defaults, a ledger, and two keys."""
    port = free_port()
    (folder / f"{name}.toml").write_text(f"""
[ledger]
url = "{ledger}"
kinds = ["all", "money"]
[[upstreams]]
name = "echo"
base_url = "http://127.0.0.1:{upstream}/v1"
key_env = "UPSTREAM_KEY"
[[upstreams.models]]
name = "{MODEL}"
max_output = 16_384
""")
    log = folder / f"{name}.log"
    environment = {**os.environ, "BUDGETEER_ADMIN_KEY": ADMIN, "UPSTREAM_KEY": "sk-upstream", "PYTHONPATH": str(source)}
    program = "import sys; from budgeteer.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "serve", "--config", str(folder / f"{name}.toml"), "--port", str(port)]
    with log.open("w") as out, running(core, command, env=environment, stdout=out, stderr=out) as process:
        answers(process, f"http://127.0.0.1:{port}/healthz", log)

        def key(*limits: str) -> str:
            body = json.dumps({"path": "acme/search", "limits": limits}).encode()
            about = {"authorization": f"Bearer {ADMIN}", "content-type": "application/json"}
            request = urllib.request.Request(f"http://127.0.0.1:{port}/admin/api/keys", body, about)
            with urllib.request.urlopen(request, timeout=10) as response:
                return str(json.load(response)["secret"])

        rich, poor = key("$5000/day", "1000m/day"), key(f"${10 * PRICED:.9f}/day")
        yield Variant(name, port, rich, poor, (process.pid,))


AUTH = """
from litellm.proxy._types import UserAPIKeyAuth, hash_token

BUDGETS = {"sk-rich": 1e6, "sk-poor": %r}

async def user_api_key_auth(request, api_key):
    return UserAPIKeyAuth(api_key=api_key, token=hash_token(api_key), max_budget=BUDGETS[api_key])
"""


@contextlib.contextmanager
def litellm(core: int, folder: Path, name: str, python: str, upstream: int, budgets: bool) -> Iterator[Variant]:
    """The LiteLLM proxy: one worker (as documented for one core), uvloop and httptools, errors only logged."""
    port, here = free_port(), folder / name.replace(" ", "-").replace(",", "")
    here.mkdir()
    (here / "budget_auth.py").write_text(AUTH % (10 * PRICED))
    general: dict[str, Any] = {"master_key": ADMIN}
    if budgets:
        general |= {"custom_auth": "budget_auth.user_api_key_auth", "custom_auth_run_common_checks": True}
    served = {"model": f"openai/{MODEL}", "api_base": f"http://127.0.0.1:{upstream}/v1", "api_key": "sk-upstream"}
    settings = {
        "model_list": [{"model_name": MODEL, "litellm_params": served}],
        "litellm_settings": {"request_timeout": 600, "set_verbose": False, "telemetry": False},
        "general_settings": general,
    }
    (here / "config.yaml").write_text(json.dumps(settings))  # JSON is YAML
    environment = {
        **{name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "PYTHONPATH")},
        "LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }  # fmt: skip
    program = "from litellm import run_server; run_server()"
    command = [python, "-c", program, "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port),
               "--num_workers", "1", "--telemetry", "False"]  # fmt: skip
    log = here / "log"
    with log.open("w") as out, running(core, command, env=environment, cwd=here, stdout=out, stderr=out) as process:
        answers(process, f"http://127.0.0.1:{port}/health/liveliness", log)
        key, poor = ("sk-rich", "sk-poor") if budgets else (ADMIN, "")
        yield Variant(name, port, key, poor, (process.pid,))


@contextlib.contextmanager
def portkey(core: int, installed: Path, folder: Path, upstream: int) -> Iterator[Variant]:
    """Portkey's gateway, which takes the provider and its address from a request's headers."""
    port, log = free_port(), folder / "portkey.log"
    command = ["node", str(installed / PORTKEY / "build" / "start-server.js"), f"--port={port}", "--headless"]
    with log.open("w") as out, running(core, command, stdout=out, stderr=out) as process:
        answers(process, f"http://127.0.0.1:{port}/", log)
        headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": f"http://127.0.0.1:{upstream}/v1"}
        yield Variant("portkey, no budget", port, "sk-upstream", "", (process.pid,), headers)


@contextlib.contextmanager
def redis(core: int, folder: Path) -> Iterator[tuple[str, int]]:
    """A redis-server with an append-only file synced every second: URL and process."""
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    assert binary
    port = free_port()
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes",
               "--dir", str(folder)]  # fmt: skip
    with running(core, command, stdout=subprocess.DEVNULL) as process:
        for _ in range(200):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0", process.pid


def load(core: int, variant: Variant, **task: Any) -> dict[str, Any]:
    """What the client saw of one load, and the gateway's processor time."""
    task = {"port": variant.port, "key": variant.key, "headers": dict(variant.headers), "body": ASKED, **task}
    before = processor_seconds(variant.pids)
    command = pinned(core, [sys.executable, str(LOAD), "client"])
    done = subprocess.run(command, input=json.dumps(task), capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise SystemExit(f"{variant.name}: {done.stderr[-3000:]}")
    measured: dict[str, Any] = json.loads(done.stdout)
    measured["processor_seconds"] = processor_seconds(variant.pids) - before
    measured["settling_seconds"] = settled(variant)
    return measured


def settled(variant: Variant, seconds: float = 90.0) -> float:
    """Wait until a gateway is idle, so that the next one has the core for itself; how long that took."""
    begin = time.monotonic()
    while True:
        before = processor_seconds(variant.pids)
        time.sleep(_LOOK)
        if processor_seconds(variant.pids) - before < _IDLE * _LOOK:
            return time.monotonic() - begin
        if time.monotonic() - begin > seconds:
            raise SystemExit(
                f"{variant.name} is not idle {seconds:g} s after a load: what comes next cannot be measured"
            )


def quantile(times: Sequence[float], q: float) -> float:
    """Of times in seconds, in milliseconds; NaN of none."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] * 1e3 if ordered else float("nan")


def middle(values: Sequence[float]) -> dict[str, float]:
    """Median and range of the rounds."""
    ordered = sorted(values)
    return {"median": ordered[len(ordered) // 2], "low": ordered[0], "high": ordered[-1]}


def summary(loads: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the rounds of one load: figures of each round, their median and range."""
    requests = [len(measured["times"]) for measured in loads]
    figures: dict[str, Any] = {
        "requests": sum(requests),
        "unanswered": sum(measured["unanswered"] for measured in loads),
        "settling_seconds": middle([measured["settling_seconds"] for measured in loads]),
        "per_second": middle([n / measured["seconds"] for n, measured in zip(requests, loads, strict=True)]),
        "p50_ms": middle([quantile(measured["times"], 0.5) for measured in loads]),
        "p99_ms": middle([quantile(measured["times"], 0.99) for measured in loads]),
        "processor_ms_per_request": middle(
            [measured["processor_seconds"] * 1e3 / max(1, n) for n, measured in zip(requests, loads, strict=True)]
        ),
    }
    tokens = [measured["tokens"] for measured in loads]
    figures["tokens_per_second"] = middle([n / measured["seconds"] for n, measured in zip(tokens, loads, strict=True)])
    figures["processor_us_per_token"] = middle(
        [measured["processor_seconds"] * 1e6 / max(1, n) for n, measured in zip(tokens, loads, strict=True)]
    )
    return figures


def loads_of(seconds: float, quick: bool) -> dict[str, dict[str, Any]]:
    """The loads: name -> task of the client."""
    patience = 0.5 if quick else 2.0
    return {
        "1 connection": {"kind": "closed", "connections": 1, "seconds": seconds},
        "16 connections": {"kind": "closed", "connections": 16, "seconds": seconds},
        "10/s": {"kind": "opened", "rate": 10, "seconds": seconds, "patience": patience},
        "200/s": {"kind": "opened", "rate": 200, "seconds": seconds, "patience": patience},
        "8 streams": {"kind": "closed", "connections": 8, "seconds": seconds, "body": STREAMED},
    }


def measure(client_core: int, variants: list[Variant], rounds: int, seconds: float, quick: bool) -> dict[str, Any]:
    """Rounds in turns: name of the variant -> its figures."""
    tasks = loads_of(seconds, quick)
    seen: dict[str, dict[str, list[dict[str, Any]]]] = {v.name: {name: [] for name in tasks} for v in variants}
    for variant in variants:
        for body in (ASKED, STREAMED):
            load(client_core, variant, kind="closed", connections=4, seconds=min(1.0, seconds), body=body)
    for i in range(rounds):
        for name, task in tasks.items():
            for variant in variants if i % 2 == 0 else variants[::-1]:
                seen[variant.name][name].append(load(client_core, variant, seed=i, **task))
    measured: dict[str, Any] = {}
    for variant in variants:
        row: dict[str, Any] = {name: summary(loads) for name, loads in seen[variant.name].items()}
        if variant.pids:
            row["resident_mb"] = {
                "started": variant.idle_bytes / 2**20,
                "after the load": resident_bytes(variant.pids) / 2**20,
            }
        if variant.poor:
            asked = load(client_core, variant, kind="sequence", calls=30, key=variant.poor)["statuses"]
            row["budget of 10 answers"] = {str(status): asked.count(status) for status in sorted(set(asked))}
        measured[variant.name] = row
    for name, row in measured.items():
        if name != "direct":
            for rate in ("10/s", "200/s"):
                row[rate]["added_ms"] = {
                    q: row[rate][f"{q}_ms"]["median"] - measured["direct"][rate][f"{q}_ms"]["median"]
                    for q in ("p50", "p99")
                }
    return measured


def run(python: str | None, node: Path | None, quick: bool) -> dict[str, Any]:
    """All measurements."""
    cores = sorted(os.sched_getaffinity(0))
    client_core, core = cores[0], cores[-1]
    if client_core == core:
        print("one core only: client, upstream and gateways share it")
    rounds, seconds = (1, 0.5) if quick else (3, 3.0)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=Path(__file__).parent)))  # not in a tmpfs
        echo = stack.enter_context(running(client_core, [sys.executable, str(LOAD), "echo"], stdout=subprocess.PIPE))
        assert echo.stdout
        upstream = int(echo.stdout.readline())
        variants = [Variant("direct", upstream, "sk-none", "", ())]
        for name, url in (("memory", "memory:"), ("sqlite", str(folder / "ledger.db"))):
            variants.append(stack.enter_context(budgeteer(core, folder, name, url, upstream)))
        if shutil.which("redis-server") or shutil.which("valkey-server"):
            url, pid = stack.enter_context(redis(core, folder))
            variants.append(stack.enter_context(budgeteer(core, folder, "redis", url, upstream)))
            variants[-1].pids += (pid,)
        else:
            print("redis skipped: there is no redis-server")
        version = None
        if python is None:
            print("litellm skipped: give --litellm PYTHON, of an environment with litellm[proxy]")
        else:
            # a virtual environment's python is a link that must not be resolved
            python = os.path.abspath(python)
            code = "from importlib.metadata import version; print(version('litellm'))"
            version = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
            for name, budgets in (("litellm", True), ("litellm, no budget", False)):
                variants.append(stack.enter_context(litellm(core, folder, name, python, upstream, budgets)))
        if node is None:
            print("portkey skipped: give --portkey FOLDER, in which npm has installed @portkey-ai/gateway")
        else:
            variants.append(stack.enter_context(portkey(core, node, folder, upstream)))
        for variant in variants:
            variant.idle_bytes = resident_bytes(variant.pids)
        results = measure(client_core, variants, rounds, seconds, quick)
        disk = fsync_milliseconds(folder)
    return {
        "quick": quick,
        "rounds": rounds,
        "seconds_a_load": seconds,
        "variants": results,
        "targets": TARGETS,
        "fsync_milliseconds": disk,
        "machine": {
            "cores": len(cores),
            "cpu": platform.processor() or platform.machine(),
            "load": os.getloadavg(),
        },
        "versions": {
            "python": platform.python_version(),
            "litellm": version,
            "portkey": node and json.loads((node / PORTKEY / "package.json").read_text())["version"],
            **{name: metadata.version(name) for name in ("uvicorn", "uvloop", "httptools", "aiohttp", "orjson")},
        },
    }


def ratios(variants: dict[str, Any]) -> dict[str, dict[str, float]]:
    """How many requests of ours the core handles for one of the peer's: by the clock, and by processor time."""
    times = {}
    for peer in ("litellm", "litellm, no budget", "portkey, no budget"):
        for ours in ("memory", "sqlite", "redis"):
            if peer in variants and ours in variants:
                a, b = variants[ours]["16 connections"], variants[peer]["16 connections"]
                times[f"{ours} / {peer}"] = {
                    "per_second": a["per_second"]["median"] / b["per_second"]["median"],
                    "per_processor_second": b["processor_ms_per_request"]["median"]
                    / a["processor_ms_per_request"]["median"],
                }
    return times


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--litellm", metavar="PYTHON", help="interpreter of an environment with litellm[proxy]")
    parser.add_argument("--portkey", metavar="FOLDER", type=Path, help="where npm has installed @portkey-ai/gateway")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    results = run(args.litellm, args.portkey, args.quick)
    results["times_the_peer"] = ratios(results["variants"])
    for name, row in results["variants"].items():
        print(name)
        for load_name, figures in row.items():
            if "per_second" not in figures:
                print(f"  {load_name:16} {figures}")
                continue
            rate, work = figures["per_second"], figures["processor_ms_per_request"]
            line = f"  {load_name:16} {rate['median']:9,.1f}/s ({rate['low']:,.1f}-{rate['high']:,.1f})"
            line += f"  p50 {figures['p50_ms']['median']:8.2f}  p99 {figures['p99_ms']['median']:8.2f} ms"
            line += f"  processor {work['median']:7.3f} ms ({work['low']:.3f}-{work['high']:.3f})"
            if load_name == "8 streams":
                line += f"  {figures['tokens_per_second']['median']:,.0f} tokens/s"
                line += f"  {figures['processor_us_per_token']['median']:.1f} us a token"
            if "added_ms" in figures:
                line += f"  added p50 {figures['added_ms']['p50']:.2f} p99 {figures['added_ms']['p99']:.2f} ms"
            if figures["unanswered"]:
                line += f"  unanswered {figures['unanswered']} of {figures['unanswered'] + figures['requests']}"
            print(line)
    for name, times in results["times_the_peer"].items():
        print(f"{name}: {times['per_second']:.1f} by the clock, {times['per_processor_second']:.1f} by processor time")
    out = args.out or (None if args.quick else OUT)
    if out is not None:
        out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
