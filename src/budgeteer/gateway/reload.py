"""Read the configuration again while the gateway serves: on SIGHUP, or when the file has changed (``--watch``)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from budgeteer.core.amounts import base
from budgeteer.core.errors import InvalidInput
from budgeteer.core.urls import without_password
from budgeteer.gateway.config import Config, load
from budgeteer.gateway.keyring import run

if TYPE_CHECKING:
    from budgeteer.gateway.app import Gateway

EVERY = 2.0
"""Seconds between two looks at a file that is watched."""
_TRIES = 3
_DOOR = (
    "host",
    "port",
    "body_bytes",
    "header_bytes",
    "receive_seconds",
    "strangers",
    "stranger_seconds",
    "drain_seconds",
)
"""Fields of ``[server]`` that belong to the open socket and to what guards it."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, and which version of its files it is.

    Attributes:
        config: what the files say.
        version: the beginning of the SHA-256 of the file and the price files that it names.
    """

    config: Config
    version: str


def version_of(path: Path, prices: tuple[Path, ...]) -> str:
    """The version of a configuration's files; raises InvalidInput if one cannot be read."""
    digest = hashlib.sha256()
    for file in (path, *prices):
        try:
            content = file.read_bytes()
        except OSError as error:
            raise InvalidInput(f"{file} cannot be read: {error}") from error
        digest.update(len(content).to_bytes(8) + content)
    return digest.hexdigest()[:12]


def read(path: Path, environment: Mapping[str, str] | None = None) -> Loaded:
    """Read and check a configuration, and tell its version.

    Args:
        path: of the file.
        environment: variables that hold keys; None = those of the process.

    Raises:
        InvalidInput: it is not usable, or is being written all the time.
    """
    for _ in range(_TRIES):
        before = version_of(path, ())
        config = load(path, environment)
        version = version_of(path, config.price_files)
        if version_of(path, ()) == before:
            return Loaded(config, version)
    raise InvalidInput(f"{path} changes while it is read; write it elsewhere and move it into place")


def kept(running: Config, wanted: Config) -> tuple[Config, list[str]]:
    """The configuration to go on with, and a sentence for each field that cannot change while the gateway serves.

    Args:
        running, wanted: the configuration in use, and the one of the file.

    Raises:
        InvalidInput: a limit of the file is of a kind that is not counted before a restart.
    """
    said: list[str] = []

    def stays(name: str, old: Any, new: Any, show: Callable[[Any], str] = str) -> None:
        if old != new:
            said.append(f"{name} stays {show(old)} (the file has {show(new)}); restart the gateway to change it")

    for name in _DOOR:
        stays(f"[server] {name}", getattr(running.server, name), getattr(wanted.server, name))
    stays("[ledger] url", running.ledger, wanted.ledger, without_password)
    stays("[ledger] kinds", running.counted[:-2], wanted.counted[:-2], ", ".join)
    stays("[ledger] records", running.keep, wanted.keep)
    stays("[logging] opentelemetry", running.otel, wanted.otel, lambda on: str(on).lower())
    defaults = wanted.defaults
    given = {f'[scopes."{path}"]': limits for path, limits in wanted.scopes.items()}
    of_models = (limit for _, limits in defaults.per_model for limit in limits)
    given["[defaults]"] = (*defaults.limits, *defaults.per_user, *defaults.per_session, *defaults.per_tag, *of_models)
    for where, limits in given.items():
        for limit in limits:
            if (kind := base(limit.kind)) not in running.counted:
                raise InvalidInput(
                    f"{where} limits {kind!r}, which the gateway does not count; restart it to change [ledger] kinds"
                )
    server = replace(wanted.server, **{name: getattr(running.server, name) for name in _DOOR})
    config = replace(
        wanted,
        server=server,
        ledger=running.ledger,
        kinds=running.kinds,
        learnt=running.learnt,
        keep=running.keep,
        otel=running.otel,
    )
    return config, said


class Reloader:
    """Has a gateway serve by its file as it is now. A file that is not usable changes nothing.

    Args:
        gateway: it serves the configuration that ``loaded`` has.
        path: of the file.
        loaded: as it was read first.
        watch: whether the file and its price files are looked at every few seconds.
        say: called with a line about each reload.
        environment: variables that hold keys; None = those of the process.
    """

    def __init__(
        self,
        gateway: Gateway,
        path: Path,
        loaded: Loaded,
        watch: bool,
        say: Callable[[str], object],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._gateway, self._path, self._watch, self._say, self._env = gateway, path, watch, say, environment
        self.version = loaded.version
        self._tried = self._looked = loaded.version
        gateway.metrics.configured(loaded.version)
        say(f"{path}, version {loaded.version}, is in use")

    async def keep(self) -> None:
        """Reload on SIGHUP, and after changes if the file is watched; runs until cancelled. In the main thread only."""
        asked = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asked.wait(), EVERY if self._watch else None)
            if asked.is_set() or await self.changed():
                asked.clear()
                await self.reload()

    async def changed(self) -> bool:
        """Whether the files are others than those that were tried last, and as they were at the look before: a file
        that is being written is left alone until it is whole."""
        before = self._looked
        self._looked = await run(self._on_disk)
        return self._looked == before != self._tried

    def _on_disk(self) -> str:
        try:
            return version_of(self._path, self._gateway.config.price_files)
        except InvalidInput as error:
            return str(error)

    async def reload(self) -> bool:
        """Serve by the file as it is now; returns whether it is usable."""
        self._tried = self._looked = await run(self._on_disk)
        try:
            loaded = await run(read, self._path, self._env)
            config, said = kept(self._gateway.config, loaded.config)
            await self._gateway.renew(config)
        except Exception as error:  # whatever a policy of another package raises: the gateway has to go on
            why = str(error) or type(error).__name__
            self._gateway.metrics.reloads("refused")
            self._say(f"{self._path} is not usable, so version {self.version} stays in use: {why}")
            return False
        self.version = self._tried = self._looked = loaded.version
        self._gateway.metrics.reloads("loaded")
        self._gateway.metrics.configured(loaded.version)
        self._say(f"{self._path}, version {loaded.version}, is in use; running requests finish by the one before")
        for sentence in said:
            self._say(sentence)
        return True
