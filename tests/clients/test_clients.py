"""Real clients through a real gateway, each in a pinned environment of its own: ``make test-clients``.

Of each case, what came of it is right, and what the gateway charged is what the upstream billed.
"""

from __future__ import annotations

import shutil

import pytest

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)

from helpers import clients  # noqa: E402
from helpers.clients import CLIENTS, COMMON, Bench, Client, Program  # noqa: E402

pytestmark = [pytest.mark.clients, pytest.mark.timeout(1800)]
CASES = [(client, case) for client in CLIENTS for case in (*COMMON, *client.more)]


@pytest.fixture(scope="module")
def bench():
    with Bench() as bench:
        yield bench


@pytest.fixture(scope="module")
def programs(bench):
    """A client's program; that of the client before is ended first, since the machine may be small."""
    running: dict[str, Program] = {}

    def program(client: Client) -> Program:
        if client.name not in running:
            if client.node and not shutil.which("npm"):
                pytest.skip("no npm in PATH")
            if not client.node and not clients.UV.exists():
                pytest.skip("no uv in .venv-clients: make test-clients installs it")
            end()
            running[client.name] = Program(bench, client).__enter__()
        return running[client.name]

    def end() -> None:
        for one in running.values():
            one.__exit__()
        running.clear()

    yield program
    end()


@pytest.mark.parametrize(("client", "case"), CASES, ids=[f"{client.name}-{case}" for client, case in CASES])
def test_a_client(client, case, programs):
    assert programs(client).do(case).fault == ""
