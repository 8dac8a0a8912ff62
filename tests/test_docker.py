"""The container's files: they name what there is, and the gateway reads its file. Nothing is built here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)

from budgeteer.gateway.config import load  # noqa: E402

ROOT = Path(__file__).parent.parent


def test_the_gateway_of_the_compose_file():
    yaml = pytest.importorskip("yaml")
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    gateway = compose["services"]["gateway"]
    source, target, mode = gateway["volumes"][0].split(":")
    assert mode == "ro"
    assert f'"--config", "{target}"' in (ROOT / "Dockerfile").read_text()
    environment = dict.fromkeys(gateway["environment"], "0123456789abcdef")
    config = load(ROOT / source, environment)
    assert config.server.admin_key == "0123456789abcdef"
    assert config.server.host == "0.0.0.0"
    host, port = re.fullmatch(r"redis://(\w+):\d+/0", config.ledger)[1], config.server.port
    assert host in compose["services"]
    first, last = re.search(r":(\d+)-(\d+):(\d+)", gateway["ports"][0]).groups()[:2]
    assert int(last) - int(first) + 1 == gateway["deploy"]["replicas"] == 2
    assert gateway["ports"][0].endswith(f":{port}")
    # a stopped replica has longer than it takes to read its calls to their end
    assert int(gateway["stop_grace_period"].rstrip("s")) > config.server.drain_seconds


def test_the_image_has_what_it_copies_and_is_not_root():
    text = (ROOT / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.M):
        *sources, _ = line.split()
        allowed = (ROOT / ".dockerignore").read_text().split()
        for one in sources:
            assert (ROOT / one).exists(), one
            assert f"!{one}" in allowed
    assert re.search(r"^USER [1-9]\d+$", text, re.M)
    extras = re.search(r"\[([\w,]+)\]'", text)[1].split(",")
    project = (ROOT / "pyproject.toml").read_text()
    assert all(re.search(rf"^{extra} = \[", project, re.M) for extra in extras)
