"""Worker processes of a comparison: each runs one run at a time, reports its progress, and can be paused cleanly."""

from __future__ import annotations

import json
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Protocol

from budgeteer.core.errors import BudgeteerError
from budgeteer.lab import results as records
from budgeteer.lab.run import RunSpec, execute, one_thread
from budgeteer.rl.config import TrainConfig
from budgeteer.rl.step import Progress

ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    # glibc: keep freed memory instead of giving it back and faulting it in again at every operator
    "MALLOC_MMAP_THRESHOLD_": str(1 << 25),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 32),
    "MALLOC_TOP_PAD_": str(1 << 26),
}
"""Environment of a worker: BLAS libraries and the allocator read these when a process starts."""


@dataclass(frozen=True, slots=True)
class Update:
    """The progress of a run, sent by its worker."""

    name: str
    step: int
    steps: int
    used: int
    tokens: int | None
    seconds: float
    accuracy: float
    state: str  # running, done, paused, failed


@dataclass(frozen=True, slots=True)
class End:
    """A worker has ended a run: ``error`` says why when it failed, else it is finished or paused."""

    error: str | None


class Pause(Protocol):
    """Says whether runs are to end at a checkpoint."""

    def is_set(self) -> bool: ...


class Worker(Protocol):
    """Somewhere that runs are done, one after the other; a link takes specifications and brings news.

    Attributes:
        exitcode: of a process that died.
    """

    @property
    def exitcode(self) -> int | None: ...

    def join(self) -> None: ...

    def terminate(self) -> None: ...


Start = Callable[[], tuple[Connection, Worker]]
"""Starts a worker."""


def _worker(link: Connection, folder: Path, pause: Event) -> None:
    """Body of a worker process: takes specifications from ``link`` and sends news back until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to pause
    one_thread()
    while True:
        try:
            spec: RunSpec = link.recv()
        except EOFError:
            return
        try:
            run = None if pause.is_set() else work(spec, folder, link.send, pause)
            if run is not None:
                run["identity"] = spec.identity()
                keep(run, spec, folder)
                link.send(done(spec))
            link.send(End(None))
        except BudgeteerError as error:
            link.send(End(f"{spec.name}: {error}"))
        except Exception:
            link.send(End(f"{spec.name}: {traceback.format_exc()}"))


def work(spec: RunSpec, folder: Path, send: Callable[[Update], None], pause: Pause) -> records.Run | None:
    """One run; None: it was paused.

    Args:
        spec: what to run.
        folder: of the comparison; the checkpoint is in it.
        send: takes the news.
        pause: once it is set, the run ends at a checkpoint.
    """

    def tell(progress: Progress | None, state: str) -> None:
        last = progress.curve[-1]["accuracy"] if progress and progress.curve else float("nan")
        step, used, seconds = (progress.step, progress.used, progress.seconds) if progress else (0, 0, 0.0)
        send(Update(spec.name, step, spec.config.steps, used, spec.tokens, seconds, last, state))

    def on_step(progress: Progress, config: TrainConfig) -> bool:
        tell(progress, "running")
        return not pause.is_set()

    run = execute(spec, checkpoint_of(spec, folder).parent, on_step)
    if run is None:
        tell(None, "paused")
    return run


def keep(run: records.Run, spec: RunSpec, folder: Path) -> None:
    """Write a run's result to the folder of the comparison; its checkpoint goes."""
    records.write_text(json.dumps(records.to_json(run)), folder / "runs" / f"{spec.name}.json")
    checkpoint_of(spec, folder).unlink(missing_ok=True)


def checkpoint_of(spec: RunSpec, folder: Path) -> Path:
    """The checkpoint of a run in the folder of a comparison."""
    return folder / "checkpoints" / spec.name / "checkpoint.pt"


def done(spec: RunSpec) -> Update:
    """The news that a run is done."""
    return Update(spec.name, 0, spec.config.steps, 0, spec.tokens, 0.0, float("nan"), "done")


def start(context: SpawnContext, folder: Path, pause: Event) -> tuple[Connection, Worker]:
    """Start a worker: the link that takes specifications and brings news, and its process.

    Args:
        context: that makes processes.
        folder: of the comparison.
        pause: once it is set, the worker's run ends at a checkpoint.
    """
    ours, theirs = context.Pipe()
    process = context.Process(target=_worker, args=(theirs, folder, pause), daemon=True)
    before = {name: os.environ.get(name) for name in ENVIRONMENT}  # set for the child alone
    os.environ.update(ENVIRONMENT)
    with _unheard():
        process.start()
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
    theirs.close()
    return ours, process


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """Count Ctrl-C: the first asks for a pause, the second raises KeyboardInterrupt wherever the process is."""
    seen: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # signals go to the main thread
        yield seen
        return

    def interrupt(number: int, frame: Any) -> None:
        seen.append(number)
        if len(seen) > 1:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _unheard() -> Iterator[None]:
    """A process started in here does not hear Ctrl-C, from its first instruction on; this one hears it after."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
