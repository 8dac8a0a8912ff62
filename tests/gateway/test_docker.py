"""The container's files: they name what there is, and the gateway reads its file. Nothing is built here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)

from budgeteer.gateway.config import load  # noqa: E402

ROOT = Path(__file__).parents[2]


def test_the_gateway_of_the_compose_file():
    yaml = pytest.importorskip("yaml")
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    gateways = [service for name, service in compose["services"].items() if name.startswith("gateway")]
    gateway, ports = gateways[0], [service["ports"][0].rsplit(":", 1) for service in gateways]
    assert len({published for published, _ in ports}) == len(gateways) == 2
    assert all({**service, "ports": gateway["ports"]} == gateway for service in gateways)
    source, target, mode = gateway["volumes"][0].split(":")
    assert mode == "ro"
    assert f'"--config", "{target}"' in (ROOT / "Dockerfile").read_text()
    environment = dict.fromkeys(gateway["environment"], "0123456789abcdef")
    config = load(ROOT / source, environment)
    assert config.server.admin_key == "0123456789abcdef"
    assert config.server.host == "0.0.0.0"
    host, port = re.fullmatch(r"redis://(\w+):\d+/0", config.ledger)[1], config.server.port
    assert host in compose["services"]
    assert {inside for _, inside in ports} == {str(port)}
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
