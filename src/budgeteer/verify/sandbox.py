"""A user's verifier in a process of its own, with limits of time, memory and output.

For training: a verifier is called for every rollout, on whatever a model writes, and may run it. One that hangs, eats
the memory, prints without end or ends its process costs that answer's score and not the run. It is a guard against
accidents and no jail: the code can read what its user can, and reach the network.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from budgeteer.core.errors import InvalidInput, VerifierError
from budgeteer.verify.names import file_of

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


class Sandbox:
    """``verify(answer, reference) -> score`` of a Python file, in a process that is ended when it takes too long.

    Called like a verifier. What the file keeps between calls is lost when its process was ended.

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
        self._path = path.resolve()
        if not self._path.is_file():
            raise InvalidInput(f"verifier {text!r}: cannot read {path}: there is no such file")
        self._folder = tempfile.TemporaryDirectory(prefix="budgeteer-verifier-")
        self._process: subprocess.Popen[bytes] | None = None
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
        process = self._started()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps([answer, reference]).encode() + b"\n")
            process.stdin.flush()
        except OSError as error:
            self._end()
            raise VerifierError(f"verifier {self.text!r} ended its process before the call") from error
        return self._reply(process, self.seconds)

    def close(self) -> None:
        """End the process and remove its folder."""
        self._end()
        self._folder.cleanup()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._end()
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [sys.executable, str(_BODY), str(self._path), self._name, str(self.memory), str(self.seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self._folder.name,
            env={**environment, **threads, "HOME": self._folder.name},
            start_new_session=True,  # ended with all that it started
        )
        self._reply(self._process, _START)
        return self._process

    def _reply(self, process: subprocess.Popen[bytes], seconds: float) -> float:
        """The score in the next line of the process."""
        assert process.stdout is not None
        stream, until, got = process.stdout.fileno(), time.monotonic() + seconds, b""
        while not got.endswith(b"\n"):
            left = until - time.monotonic()
            if left <= 0 or not select.select([stream], [], [], left)[0]:
                self._end()
                raise VerifierError(f"verifier {self.text!r} took more than {seconds:g} s")
            part = os.read(stream, _REPLY)
            got += part
            if not part or len(got) > _REPLY:
                self._end()
                raise VerifierError(f"verifier {self.text!r} ended its process; was that the memory limit?")
        said: dict[str, Any] = json.loads(got)
        if "error" in said:
            raise VerifierError(f"verifier {self.text!r} {said['error']}")
        return float(said["score"])

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
