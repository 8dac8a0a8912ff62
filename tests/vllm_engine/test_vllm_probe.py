"""What a probe says of the real vLLM on the CPU, with the embedded thinking model: ``make test-vllm``."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.vllm
pytest.importorskip("vllm")

LIMITS = {"thinking budget", "budget beside tools"}
"""What needs a reasoning parser."""


def served(port: int, log: Path, *options: str) -> subprocess.Popen[bytes]:
    """vLLM's server with the thinking model; vLLM for the CPU has no command ``vllm serve``."""
    from budgeteer.models.thinker import THINKER

    settings = (
        f"--model {THINKER} --served-model-name thinker --host 127.0.0.1 --port {port} --dtype float32 "
        "--max-model-len 1024 --max-num-seqs 8 --enforce-eager --enable-auto-tool-choice --tool-call-parser hermes"
    )
    return subprocess.Popen(
        [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *settings.split(), *options],
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
        env=os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1"},
    )


@pytest.fixture(params=["with a reasoning parser", "without"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, bool]]:
    """Address of a server, and whether it has a reasoning parser."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    parses = request.param == "with a reasoning parser"
    log = tmp_path / "vllm.log"
    server = served(port, log, *(["--reasoning-parser", "qwen3"] if parses else []))
    try:
        for _ in range(900):
            assert server.poll() is None, log.read_text()[-3000:]
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except OSError:
                time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1", parses
    finally:
        server.terminate()
        server.wait()


def test_vllm_honours_what_strategies_ask_for(url: tuple[str, bool]) -> None:
    """Without a reasoning parser it refuses a thinking budget, and honours all else."""
    from budgeteer.models.probe import Verdict, probe

    address, parses = url
    report = asyncio.run(probe(address, "thinker", dialect="vllm", timeout=300.0))
    timed = {"closed streams"}
    wrong = {f for f in report.findings if f.feature not in timed and f.verdict != Verdict.HONOURED}
    assert {f.feature for f in wrong} == (set() if parses else LIMITS), wrong
    assert all(f.verdict == Verdict.REFUSED for f in wrong)
    if not parses:
        assert "reasoning" in next(f.said for f in wrong)
