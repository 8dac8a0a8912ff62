"""One thread for every numeric library, the same examples every time, and what tests of several modules share."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator

# the models of the tests are too small for more, and results repeat; the libraries read it when they are imported
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"))
os.environ["BUDGETEER_TRACEBACK"] = "1"  # a fault of a command fails its test

import pytest

try:
    from hypothesis import HealthCheck, settings
except ImportError:
    pass
else:
    # A busy machine is no failure: no deadlines, no check of how fast examples are made. No database: what failed once
    # is written down as an example, so that everybody runs it.
    both = settings(database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("fixed", both, derandomize=True)
    settings.register_profile("random", both, derandomize=False, print_blob=True)
    settings.load_profile("fixed")  # the command line's --hypothesis-profile comes later


# programs for environments of their own
collect_ignore_glob = [
    "clients/*/run.py",
    "clients/cases.py",
    "frameworks/*/run.py",
    "frameworks/*/more.py",
    "frameworks/*/covered.py",
    "frameworks/cases.py",
    "frameworks/*/tasks.py",
    "frameworks/scenarios.py",
    "cache/against_kvpress.py",
    "cache/against_triton.py",
]


@pytest.fixture(autouse=True)
def same_number_of_threads() -> Iterator[None]:
    """Sums of floats depend on it: a test that changes it fails here, not a later one that compares weights."""

    def number() -> int:
        torch = sys.modules.get("torch")
        return int(torch.get_num_threads()) if torch else 1

    before = number()
    yield
    assert number() == before, "the test changed torch's number of threads for the whole process"


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    """An event loop that the tests of a module share with the model they ask, whose connections belong to one."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="session")
def redis_process() -> Iterator[str]:
    """URL of a redis-server of this test process; skips without one."""
    from helpers import redis_server, servers

    servers.need("redis")
    yield redis_server.redis_url()
    redis_server.stop_shared()


@pytest.fixture(scope="session")
def postgres_process() -> Iterator[str]:
    """URL of a PostgreSQL server of this test process; skips without one."""
    from helpers import postgres_server, servers

    servers.need("postgres")
    yield postgres_server.postgres_url()
    postgres_server.stop_shared()


@pytest.fixture
def server_url(request: pytest.FixtureRequest) -> str:
    """URL of the shared, emptied server of a kind, which the test's parameter names ("redis", "postgres")."""
    from helpers import servers

    request.getfixturevalue(f"{request.param}_process")
    return servers.shared(request.param)
