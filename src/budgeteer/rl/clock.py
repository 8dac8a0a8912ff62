"""Seconds of the phases of a step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from budgeteer.core.steer import Snapshot, State, Steer


@contextmanager
def phase(clock: dict[str, float], name: str) -> Iterator[None]:
    """Add the block's seconds to ``clock[name]``."""
    start = time.perf_counter()
    yield
    clock[name] = clock.get(name, 0.0) + time.perf_counter() - start


def timed(steer: Steer, clock: dict[str, float]) -> Steer:
    """The same steer, its seconds moved from the phase "sampling" around it to a phase of its own."""

    def step(state: State, now: Snapshot) -> Any:
        start = time.perf_counter()
        result = steer.step(state, now)
        took = time.perf_counter() - start
        clock["stopping"] = clock.get("stopping", 0.0) + took
        clock["sampling"] = clock.get("sampling", 0.0) - took
        return result

    return steer._replace(step=step)
