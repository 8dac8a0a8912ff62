"""The server of the real vLLM on the CPU, with the embedded thinking model."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAME = "thinker"
"""Of the model on the server."""


@contextmanager
def served(folder: Path, *settings: str) -> Iterator[str]:
    """Address of the server, without a path; vLLM for the CPU has no command ``vllm serve``.

    Args:
        folder: for its log.
        settings: further ones of its command line.
    """
    from budgeteer.models.thinker import THINKER

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = (
        f"--model {THINKER} --served-model-name {NAME} --host 127.0.0.1 --port {port} --dtype float32 "
        "--max-model-len 1024 --max-num-seqs 8 --enforce-eager"
    )
    log = folder / "vllm.log"
    with log.open("wb") as out:
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *given.split(), *settings]
        environment = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_SERVER_DEV_MODE": "1", **os.environ}
        server = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
    try:
        while True:  # the test's own timeout ends it
            assert server.poll() is None, log.read_text()[-3000:]
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except OSError:
                time.sleep(1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()
