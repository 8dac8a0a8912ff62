"""Calls of tools that are waited for no longer than somebody has patience."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")


class GivenUp(Exception):
    """A tool took longer than anybody waits."""


def waited(function: Callable[[], T], seconds: float) -> T:
    """What a function returns within so many seconds; its thread is left alone after that."""
    found: list[Any] = []

    def work() -> None:
        try:
            found.append((True, function()))
        except BaseException as error:
            found.append((False, error))

    thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True)
    thread.start()
    thread.join(seconds)
    if not found:
        raise GivenUp
    ok, result = found[0]
    if not ok:
        raise result
    return result  # type: ignore[no-any-return]


async def awaited(function: Callable[[], Awaitable[T]], seconds: float) -> T:
    """What a coroutine returns within so many seconds; it is cancelled after that, and not waited for."""
    task = asyncio.ensure_future(function())
    try:
        done, _ = await asyncio.wait([task], timeout=seconds)
    except BaseException:
        task.cancel()
        raise
    if not done:
        task.cancel()
        raise GivenUp
    return task.result()
