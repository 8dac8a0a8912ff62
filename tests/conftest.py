"""One thread for every numeric library: the models of the tests are too small for more, and results repeat."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

try:
    import torch

    torch.set_num_threads(1)
except ImportError:
    pass
try:
    import numba

    numba.set_num_threads(1)
except ImportError:
    pass


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    """An event loop that the tests of a module share with the model they ask, whose connections belong to one."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="session")
def redis_process() -> Iterator[str]:
    """URL of a redis-server of this test process; skips without one."""
    pytest.importorskip("redis")
    import redis_server

    if redis_server.SERVER is None:
        pytest.skip("no redis-server: apt-get install redis-server")
    yield redis_server.redis_url()
    redis_server.stop_shared()
