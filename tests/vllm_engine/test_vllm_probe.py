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


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Address of vLLM's server with the thinking model; vLLM for the CPU has no command ``vllm serve``."""
    from budgeteer.models.thinker import THINKER

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = (
        f"--model {THINKER} --served-model-name thinker --host 127.0.0.1 --port {port} --dtype float32 "
        "--max-model-len 1024 --max-num-seqs 8 --enforce-eager "
        "--reasoning-parser qwen3 --enable-auto-tool-choice --tool-call-parser hermes"
    )
    log = tmp_path / "vllm.log"
    with log.open("wb") as out:
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *settings.split()]
        server = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env={"VLLM_CPU_KVCACHE_SPACE": "1", **os.environ}
        )
    try:
        while True:  # the test's own timeout ends it
            assert server.poll() is None, log.read_text()[-3000:]
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except OSError:
                time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait()


def test_vllm_honours_what_strategies_ask_for(url: str) -> None:
    from budgeteer.models.probe import Verdict, probe

    report = asyncio.run(probe(url, "thinker", dialect="vllm", timeout=300.0))
    timed = {"closed streams"}
    assert len(report.findings) == 14
    assert not [f for f in report.findings if f.feature not in timed and f.verdict != Verdict.HONOURED]
