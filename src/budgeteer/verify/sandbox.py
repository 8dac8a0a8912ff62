"""A user's verifier in a process of its own, with limits of time, memory and output.

A verifier is called for every answer, on whatever a model writes, and may run it. One that hangs, eats the memory,
prints without end or ends its process costs that answer's score and not the run. It is a guard against accidents and no
jail: the code can read what its user can, and reach the network.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from budgeteer.core.errors import InvalidInput, VerifierError

SECONDS = 10.0
"""Wall-clock time of one call."""
MEMORY = 4 << 30
"""Bytes of address space of the process, and of each that it starts."""
_BODY = Path(__file__).parent / "kit" / "sandboxed.py"
_START = 120.0
"""Seconds until the file is loaded: it may import large libraries."""
_REPLY = 1 << 16
"""Bytes of a reply; it never needs as many."""
_KEPT = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
"""Environment that the process gets: what programs need to start, and no keys."""


def file_of(text: str) -> tuple[Path, str]:
    """The file and the name of the function in ``python:FILE.py`` or ``python:FILE.py:NAME``."""
    rest = text.removeprefix("python:")
    path, colon, name = rest.rpartition(":")
    if colon and path.endswith(".py"):
        return Path(path), name
    return Path(rest), "verify"


@dataclass(slots=True)
class _Held:
    """What has to be ended and removed: the process, if there is one, and its folder; ``owner`` is who may."""

    folder: str
    owner: int
    process: subprocess.Popen[bytes] | None = None


class Sandbox:
    """``verify(answer, reference) -> score`` of a Python file, in a process that is ended when it takes too long.

    Called like a verifier, by one thread at a time. What the file keeps between calls is lost when its process was
    ended. The process ends with :meth:`close`, with the object or with the program, whichever is first.

    Args:
        text: as on a command line, ``python:FILE.py`` or ``python:FILE.py:NAME``.
        seconds: of one call.
        memory: bytes of address space.

    Raises:
        InvalidInput: the file cannot be read or loaded, or has no such function; or this system has no such limits.
    """

    def __init__(self, text: str, *, seconds: float = SECONDS, memory: int = MEMORY) -> None:
        if os.name != "posix":
            raise InvalidInput(f"verifier {text!r} needs a process with limits, which Linux and macOS have")
        self.text, self.seconds, self.memory = text, seconds, memory
        path, self._name = file_of(text)
        if path.suffix != ".py":
            raise InvalidInput(f"verifier {text!r}: {path} is no Python file; its name ends in .py")
        self._path = path.resolve()
        if not self._path.is_file():
            raise InvalidInput(f"verifier {text!r}: cannot read {path}: there is no such file")
        self._lock = threading.Lock()
        self._own()
        try:
            self._started()
        except VerifierError as error:
            self.close()
            raise InvalidInput(str(error)) from error

    def __call__(self, answer: str | None, reference: str) -> float:
        """The score of an answer.

        Raises:
            VerifierError: the verifier raised, took too long, ended its process, or its score is not in 0 to 1.
        """
        with self._lock:
            process = self._started()
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps([answer, reference]).encode() + b"\n")
                process.stdin.flush()
            except OSError as error:
                _end(self._held)
                raise VerifierError(f"verifier {self.text!r} ended its process before the call") from error
            return self._reply(process, self.seconds, f" on reference {reference[:80]!r}")

    def _own(self) -> None:
        """A folder of this process's own, and no process in it yet."""
        self._held = _Held(tempfile.mkdtemp(prefix="budgeteer-verifier-"), os.getpid())
        self.close = weakref.finalize(self, _close, self._held)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._held.owner != os.getpid():  # forked since: two may not talk to one process
            self._own()
        held = self._held
        if held.process is not None and held.process.poll() is None:
            return held.process
        _end(held)
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        held.process = subprocess.Popen(
            [sys.executable, "-B", str(_BODY), str(self._path), self._name, str(self.memory), str(self.seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=held.folder,
            env={**environment, **threads, "HOME": held.folder},
            start_new_session=True,  # ended with all that it started
        )
        self._reply(held.process, _START)
        return held.process

    def _reply(self, process: subprocess.Popen[bytes], seconds: float, when: str = "") -> float:
        """The score in the next line of the process; ``when`` ends a message about it."""
        assert process.stdout is not None
        stream, until, got = process.stdout.fileno(), time.monotonic() + seconds, b""
        while not got.endswith(b"\n"):
            left = until - time.monotonic()
            if left <= 0 or not select.select([stream], [], [], left)[0]:
                _end(self._held)
                raise VerifierError(f"verifier {self.text!r} took more than {seconds:g} s{when}")
            part = os.read(stream, _REPLY)
            got += part
            if not part or len(got) > _REPLY:
                _end(self._held)
                raise VerifierError(f"verifier {self.text!r} ended its process{when}; was that the memory limit?")
        said: dict[str, Any] = json.loads(got)
        if "error" in said:
            raise VerifierError(f"verifier {self.text!r} {said['error']}{when}")
        return float(said["score"])


def _end(held: _Held) -> None:
    """End the process with all that it started."""
    process, held.process = held.process, None
    if process is None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def _close(held: _Held) -> None:
    """End the process and remove its folder; not in a fork, which has copies of both."""
    if held.owner != os.getpid():
        return
    _end(held)
    shutil.rmtree(held.folder, ignore_errors=True)
