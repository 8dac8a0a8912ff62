"""A real PostgreSQL server for the tests of what talks to one."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from helpers.redis_server import free_port

USER, PASSWORD = "budgeteer", "secret-of-the-tests"


def _programs() -> Path | None:
    """The folder of ``initdb`` and ``pg_ctl``: on the path, or where Debian's package has them, the newest first."""
    on_path = shutil.which("pg_ctl")
    folders = [Path(on_path).resolve().parent] if on_path else []
    debian = Path("/usr/lib/postgresql")
    if debian.is_dir():
        versions = [folder for folder in debian.iterdir() if folder.name.isdigit()]
        folders += [folder / "bin" for folder in sorted(versions, key=lambda folder: -int(folder.name))]
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "pg_ctl").exists()), None)


PROGRAMS = _programs()


def version() -> str:
    """What the server calls itself."""
    assert PROGRAMS
    return subprocess.run(
        [PROGRAMS / "postgres", "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()


def _as_whom() -> dict[str, Any]:
    """Whom the server runs as: it refuses root, so that root's tests run it as nobody."""
    if os.name != "posix" or os.geteuid() != 0:
        return {}
    import pwd

    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


class PostgresServer:
    """A server process with a database in a folder of its own.

    Args:
        durable: whether a commit is on the disk before it is answered; tests do without, benchmarks do not.
        folder: in which the folder is made; None: where temporary files are.
    """

    def __init__(self, durable: bool = False, folder: Path | None = None) -> None:
        assert PROGRAMS, "install postgresql to run these tests"
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-", dir=folder))
        self.port, self._who, self._durable = free_port(), _as_whom(), durable
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        if self._who:
            for path in (self.folder, secret):
                os.chown(path, self._who["user"], self._who["group"])
        self._run(
            "initdb", "--username", USER, "--pwfile", str(secret), "--auth", "scram-sha-256", "--encoding", "UTF8",
            "--locale", "C", "--no-sync",
        )  # fmt: skip
        self.start()

    @property
    def url(self) -> str:
        """Where it listens, with user and password."""
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def _run(self, program: str, *arguments: str) -> None:
        assert PROGRAMS
        command = [str(PROGRAMS / program), "--pgdata", str(self.folder / "data"), *arguments]
        with (self.folder / "output").open("a+") as output:
            done = subprocess.run(
                command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=self.folder, **self._who
            )
            if done.returncode:
                output.seek(0)
                raise RuntimeError(f"{' '.join(command)} failed: {output.read()[-2000:]}")

    def start(self) -> None:
        """Start, and wait until it answers."""
        settings = {
            "port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "",
            **({} if self._durable else {"fsync": "off", "shared_buffers": "32MB"}),
        }  # fmt: skip
        options = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
        self._run("pg_ctl", "start", "--wait", "--silent", "--log", str(self.folder / "log"), "--options", options)

    def kill(self) -> None:
        """End it at once, as a crash does: the next start recovers from its log."""
        self._run("pg_ctl", "stop", "--wait", "--silent", "--mode", "immediate")

    def end(self) -> None:
        """End it as an operator does, connections or not."""
        self._run("pg_ctl", "stop", "--wait", "--silent", "--mode", "fast")

    def hang(self) -> None:
        """Let it stand still, with its connections open."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        """To the server and its children, one a connection."""
        first = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        pairs = [tuple(map(int, line.split())) for line in listed.splitlines()]
        for pid in (first, *(pid for pid, parent in pairs if parent == first)):
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, number)

    def stop(self) -> None:
        """Stop and clean up."""
        if (self.folder / "data" / "postmaster.pid").exists():
            self.kill()
        shutil.rmtree(self.folder)


_server: PostgresServer | None = None


def postgres_url() -> str:
    """Of a server shared by the tests of one process."""
    global _server
    if _server is None:
        _server = PostgresServer()
    return _server.url


def drop() -> None:
    """Take away what tests have left in the shared server."""
    import psycopg

    with psycopg.connect(postgres_url(), autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute("DROP SCHEMA IF EXISTS budgeteer CASCADE")


def stop_shared() -> None:
    """Stop the shared server, if there is one."""
    global _server
    if _server is not None:
        _server.stop()
        _server = None
