"""What a probe says of the real vLLM on the CPU, with the embedded thinking model: ``make test-vllm``."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

pytestmark = pytest.mark.vllm
pytest.importorskip("vllm")

from helpers.vllm_served import NAME, served  # noqa: E402

PARSERS = ("--reasoning-parser", "qwen3", "--enable-auto-tool-choice", "--tool-call-parser", "hermes")


def test_vllm_honours_what_strategies_ask_for(tmp_path: Path) -> None:
    from budgeteer.models.probe import Verdict, probe

    with served(tmp_path, *PARSERS) as url:
        report = asyncio.run(probe(f"{url}/v1", NAME, dialect="vllm", timeout=300.0))
    timed = {"closed streams"}
    assert len(report.findings) == 14
    assert not [f for f in report.findings if f.feature not in timed and f.verdict != Verdict.HONOURED]
