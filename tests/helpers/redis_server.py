"""A real redis-server (or valkey-server) for the tests of what talks to one."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

SERVER = shutil.which("redis-server") or shutil.which("valkey-server")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class RedisServer:
    """A server process with an append-only file in a folder of its own.

    Args:
        sync: its ``appendfsync``. With ``everysec`` it answers before it writes while the disk is busy, and a kill then
            loses up to two seconds; ``always`` loses nothing that it answered.
    """

    def __init__(self, sync: str = "everysec") -> None:
        self.sync = sync
        assert SERVER, "install redis-server (or valkey-server) to run these tests"
        self.folder = tempfile.TemporaryDirectory()
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start, and wait until it answers."""
        assert SERVER
        log = (Path(self.folder.name) / "log").open("ab")
        self.process = subprocess.Popen(
            [SERVER, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes",
             "--appendfsync", self.sync, "--dir", self.folder.name],
            stdout=log, stderr=log,
        )  # fmt: skip
        for _ in range(200):
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as s:
                    s.sendall(b"PING\r\n")
                    if s.recv(16).startswith(b"+PONG"):
                        return
            except OSError:
                pass
            time.sleep(0.05)
        raise RuntimeError(f"{SERVER} did not start")

    def kill(self) -> None:
        """Kill -9."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """End it as an operator does: it writes its file first."""
        assert self.process
        self.process.terminate()
        self.process.wait(10)

    def hang(self) -> None:
        """Let it stand still, with its connections open."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Stop and clean up."""
        self.kill()
        self.folder.cleanup()


_server: RedisServer | None = None


def redis_url() -> str:
    """Of a server shared by the tests of one process."""
    global _server
    if _server is None or _server.process is None or _server.process.poll() is not None:
        _server = RedisServer()
    return _server.url


def flush() -> None:
    """Empty the shared server."""
    import redis

    with redis.Redis.from_url(redis_url()) as client:
        client.flushall()


def stop_shared() -> None:
    """Stop the shared server, if there is one."""
    global _server
    if _server is not None:
        _server.stop()
        _server = None
