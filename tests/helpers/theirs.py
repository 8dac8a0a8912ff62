"""A package of somebody else, really installed: a module and its metadata with entry points, in a folder."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parents[1] / "their_package" / "theirs_of_a_test.py"
NAMES = tuple(re.findall(r"^([A-Z]+) = Method\(", SOURCE.read_text(), re.MULTILINE))
"""Objects of the module that entry points name."""


def install(folder: Path, **more: str) -> Path:
    """Put the package into a folder; ``more`` adds entry points, name = object."""
    info = folder / "theirs_of_a_test-1.0.dist-info"
    info.mkdir(parents=True)
    for file in SOURCE.parent.glob("*.py"):
        (folder / file.name).write_text(file.read_text())
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs-of-a-test\nVersion: 1.0\n")
    names = {name.lower(): f"theirs_of_a_test:{name}" for name in NAMES}
    lines = [f"{name} = {path}" for name, path in {**names, **more}.items()]
    (info / "entry_points.txt").write_text("\n".join(["[budgeteer.methods]", *lines]) + "\n")
    return folder


ADMIN = "admin-secret-0123456789"
_MAIN = "import sys; from budgeteer.cli import main; sys.exit(main(sys.argv[1:]))"


def budgeteer(folder: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with the folder on its path."""
    command = [sys.executable, "-c", _MAIN, *arguments]
    return subprocess.run(
        command, env=_environment(folder), input=stdin, capture_output=True, text=True, timeout=280, check=False
    )


def _environment(folder: Path) -> dict[str, str]:
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    return {**os.environ, "PYTHONPATH": path, "THEIRS_MARK": str(folder / "mark"), "BUDGETEER_ADMIN_KEY": ADMIN}


@contextlib.contextmanager
def serving(folder: Path, config: Path) -> Iterator[str]:
    """``budgeteer serve --config FILE`` in a process of its own; its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-c", _MAIN, "serve", "--config", str(config), "--port", str(port)]
    process = subprocess.Popen(command, env=_environment(folder), stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, process.communicate()[1]
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate(timeout=60)


def post(url: str, key: str, body: Mapping[str, Any]) -> tuple[Any, Any]:
    """(headers, JSON) of an answer."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return response.headers, json.load(response)


def capped(folder: Path, config: Path, policy: str) -> tuple[Any, Any]:
    """One request for 50 tokens to a gateway whose policy caps them at 20.

    Args:
        folder: where the policy is installed.
        config: the file to write the gateway's configuration to.
        policy: its name.

    Returns:
        The headers of the answer, and the body that the upstream got.
    """
    from helpers.gateway_fixture import toml
    from helpers.upstream import Upstream

    with Upstream() as upstream:
        config.write_text(toml([("one", upstream.url, ["echo"], "")], extra=f"[policies.{policy}]\ncap = 20"))
        with serving(folder, config) as url:
            _, made = post(f"{url}/admin/api/keys", ADMIN, {"path": "acme"})
            body = {"model": "echo", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50}
            headers, _ = post(f"{url}/v1/chat/completions", made["secret"], body)
        return headers, upstream.bodies[-1]
