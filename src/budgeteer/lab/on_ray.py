"""Runs of a comparison and cells of a frontier on the machines of a Ray cluster.

No folder is shared: what a run has written travels with it, its checkpoint to the machine and back, its result back. So
a run goes on where it stopped, whichever machine it was on. budgeteer and the files of models and tasks have to be on
all machines, at the same paths; a run whose contents differ there is refused.
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
import tarfile
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from budgeteer.core.errors import BudgeteerError, InvalidInput, MissingExtra
from budgeteer.lab import results as records
from budgeteer.lab.run import RunSpec, one_thread
from budgeteer.lab.workers import ENVIRONMENT, End, Pause, Start, Update, Worker, checkpoint_of, done, keep, work
from budgeteer.rl.identity import differences

_PATIENCE = 5.0
"""Seconds until a machine has to take a connection; Ray itself tries for minutes, and may end the process."""
_POLL = 0.2
"""Seconds between two looks at a run elsewhere."""
MACHINES = 3
"""Machines in a row that a run loses without a new checkpoint before it has failed."""


@contextlib.contextmanager
def cluster(address: str) -> Iterator[Any]:
    """The connected library.

    Args:
        address: of the head of a cluster, such as ``10.0.0.1:6379``, ``ray://HOST:10001``, or ``auto``.

    Raises:
        MissingExtra: Ray is not installed.
        InvalidInput: no cluster answers there.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("ray", "ray") from error
    if address == "local":
        raise InvalidInput("--ray local is no cluster; give the address of one, or leave --ray out")
    _reach(address)
    try:
        ray.init(address=address, log_to_driver=False, runtime_env={"env_vars": dict(ENVIRONMENT)})
    except Exception as error:  # Ray raises what its parts raise
        raise InvalidInput(f"--ray {address}: no Ray cluster answers there ({error})") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Make sure that something listens at HOST:PORT or ray://HOST:PORT; other addresses are Ray's to look for.

    Raises:
        InvalidInput: nothing does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
    except (OSError, OverflowError, UnicodeError) as error:  # no such port, no such name
        raise InvalidInput(
            f"--ray {address}: no Ray cluster answers there ({error}); give the address that `ray start --head` printed"
        ) from error


def cores(ray: Any) -> int:
    """Runs at once: one a core of the cluster."""
    return max(int(ray.cluster_resources().get("CPU", 1)), 1)


# -- runs of a comparison --------------------------------------------------------------------------------------------


class Remote:
    """What runs on a machine of the cluster: one run at a time, with news for who asks."""

    def __init__(self) -> None:
        one_thread()
        self._news: list[Update] = []
        self._pause = threading.Event()
        self._folder = Path(tempfile.mkdtemp(prefix="budgeteer-run-"))
        self._stamp = 0

    def run(self, spec: RunSpec, identity: Mapping[str, Any], checkpoint: bytes | None) -> tuple[Any, str | None]:
        """The run's result, None = it was paused; and why it failed."""
        path = checkpoint_of(spec, self._folder)
        try:
            if different := differences(identity, records.to_json(spec.identity())):
                raise InvalidInput(f"this run is another one on a machine of the cluster ({different})")
            if checkpoint is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(checkpoint)
                self._stamp = path.stat().st_mtime_ns
            return work(spec, self._folder, self._news.append, self._pause), None
        except BudgeteerError as error:
            return None, str(error)
        except Exception:
            return None, traceback.format_exc()

    def news(self, spec: RunSpec) -> tuple[list[Update], bytes | None]:
        """What was told since the last call, and the checkpoint if there is a new one."""
        told = self._news[:]
        del self._news[: len(told)]  # the run's thread may have added more meanwhile
        with contextlib.suppress(FileNotFoundError):  # none yet, or ended
            path = checkpoint_of(spec, self._folder)
            changed = path.stat().st_mtime_ns
            if changed != self._stamp:
                content = path.read_bytes()
                self._stamp = changed
                return told, content
        return told, None

    def pause(self) -> None:
        """Let the run end at a checkpoint."""
        self._pause.set()


class Elsewhere:
    """A worker on the cluster as a comparison sees its own processes: it is joined and terminated.

    A run holds a core of the cluster for as long as it lasts, and goes on from its last checkpoint on another machine
    where its own is lost.

    Args:
        ray: the connected library.
        link: takes specifications and brings news.
        folder: of the comparison, here.
        pause: once it is set, the run ends at a checkpoint.
    """

    def __init__(self, ray: Any, link: Connection, folder: Path, pause: Pause) -> None:
        self._ray, self._link, self._folder, self._pause = ray, link, folder, pause
        self._kind = ray.remote(num_cpus=1, max_concurrency=2)(Remote)
        self._actor: Any = None
        self._ended = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self.exitcode: int | None = None

    def join(self) -> None:
        """Wait until it has no work."""
        self._thread.join()

    def terminate(self) -> None:
        """End it at once."""
        self._ended = True
        self._kill()

    def _kill(self) -> None:
        if self._actor is not None:
            self._ray.kill(self._actor)

    def _serve(self) -> None:
        with contextlib.suppress(EOFError, OSError):  # the comparison has closed the link
            while True:
                spec: RunSpec = self._link.recv()
                self._link.send(End(self._done(spec)))
        self._link.close()

    def _done(self, spec: RunSpec) -> str | None:
        """Do a run, on as many machines as it takes; returns why it failed."""
        path, lost = checkpoint_of(spec, self._folder), 0
        while True:
            checkpoint = path.read_bytes() if path.exists() else None
            self._actor = self._kind.remote()
            try:
                return self._followed(spec, path, checkpoint)
            except self._ray.exceptions.RayError as error:
                further = path.exists() and path.read_bytes() != checkpoint
                lost = 1 if further else lost + 1
                if self._ended or lost >= MACHINES:
                    gone = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}" if str(error) else error
                    return f"{spec.name}: its machine is gone ({gone}); the last checkpoint is kept"
            finally:
                with contextlib.suppress(Exception):  # where the connection is closed, Ray ends it by itself
                    self._kill()

    def _followed(self, spec: RunSpec, path: Path, checkpoint: bytes | None) -> str | None:
        """Do a run on one machine; returns why it failed.

        Raises:
            RayError: of Ray's: the machine, or the process there, is gone.
        """
        identity, actor, began, asked = records.to_json(spec.identity()), self._actor, False, False
        future = actor.run.remote(spec, identity, checkpoint)
        while True:
            ended = self._is_there(future)
            news = actor.news.remote(spec)
            while not self._is_there(news):
                if self._pause.is_set() and not began:  # it still waits for a core
                    return None
            told, content = self._ray.get(news)
            began = True
            if content is not None:
                written(content, path)
            if ended:
                break
            for update in told:
                self._link.send(update)
            if self._pause.is_set() and not asked:
                asked = True
                actor.pause.remote()
        run, error = self._ray.get(future)
        if run is not None:
            run["identity"] = identity
            keep(run, spec, self._folder)
        for update in told if run is None else [*told, done(spec)]:
            self._link.send(update)
        return None if error is None else f"{spec.name}: {error}"

    def _is_there(self, future: Any) -> bool:
        """Whether a result is there, or is within _POLL seconds."""
        return bool(self._ray.wait([future], timeout=_POLL)[0])


def starter(ray: Any, folder: Path, pause: Pause) -> Start:
    """What starts a worker of a comparison on the cluster.

    Args:
        ray: the connected library.
        folder: of the comparison.
        pause: once it is set, runs end at a checkpoint.
    """

    def start() -> tuple[Connection, Worker]:
        ours, theirs = Pipe()
        return ours, Elsewhere(ray, theirs, folder, pause)

    return start


def written(content: bytes, path: Path) -> None:
    """Write a file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(content)
    os.replace(part, path)


# -- cells of a frontier ---------------------------------------------------------------------------------------------


def packed(paths: Sequence[Path], root: Path) -> bytes:
    """Files and folders below a root, as an archive; those that are not there are left out."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for path in paths:
            if path.exists():
                archive.add(path, str(path.relative_to(root)))
    return stream.getvalue()


def unpacked(content: bytes, root: Path) -> None:
    """Write what :func:`packed` gave below a root."""
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(root, filter="data")


def cells(ray: Any, jobs: Sequence[tuple[Any, ...]], at_once: int, task: Callable[..., Any]) -> Iterator[Any]:
    """The results of a task for each job, as they end, at most so many at once.

    Args:
        ray: the connected library.
        jobs: arguments of each.
        at_once: jobs that run at a time.
        task: importable on all machines.

    Raises:
        BudgeteerError: a job failed, or its machine is gone; what has ended was given before.
    """
    remote, waiting = ray.remote(num_cpus=1, max_retries=1)(task), list(jobs)
    running: list[Any] = []
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(remote.remote(*waiting.pop(0)))
            ready, running = ray.wait(running)
            for future in ready:
                try:
                    yield ray.get(future)
                except ray.exceptions.RayTaskError as error:
                    raise BudgeteerError(str(error.cause)) from error
                except ray.exceptions.RayError as error:
                    raise BudgeteerError(f"a machine of the cluster is gone ({type(error).__name__})") from error
    finally:
        for future in running:
            ray.cancel(future, force=True)
