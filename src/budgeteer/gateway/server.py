"""The gateway under uvicorn, with limits on what a client may send before its request is even read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from budgeteer.errors import MissingExtra, UnknownPrice
from budgeteer.gateway.app import Gateway
from budgeteer.gateway.config import Config
from budgeteer.gateway.keyring import run

try:
    import uvicorn
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
except ImportError as error:
    raise MissingExtra("uvicorn", "gateway") from error


class _HeadHeld:
    """A transport that sends the head of an answer along with what follows at once: one packet, one system call."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop, self._head = transport, loop, b""

    def write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(b"HTTP/1.1 "):
            self._head = data
            self._loop.call_soon(self._flush)
            return
        self._transport.write(data)

    def _flush(self) -> None:
        if self._head:
            data, self._head = self._head, b""
            self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def protocol(header_bytes: int, seconds: float) -> type[HttpToolsProtocol]:
    """HTTP of clients whose headers are small and come in time; others are cut off.

    Args:
        header_bytes: of the request line and headers together.
        seconds: from the connection, or from a request's first byte, to the end of its headers.
    """

    class Guarded(HttpToolsProtocol):
        _begun: asyncio.TimerHandle | None = None
        _pending = 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(_HeadHeld(transport, self.loop))  # type: ignore[arg-type]
            self._begun = self.loop.call_later(seconds, transport.close)

        def connection_lost(self, exc: Exception | None) -> None:
            self._arrived()
            super().connection_lost(exc)

        def _arrived(self) -> None:
            if self._begun is not None:
                self._begun.cancel()
                self._begun = None

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._begun is not None:
                self._pending += len(data)
                if self._pending > header_bytes and not self.transport.is_closing():
                    self.send_400_response("Headers too large.")

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._pending = 0
            if self._begun is None:
                self._begun = self.loop.call_later(seconds, self.transport.close)

        def on_headers_complete(self) -> None:
            self._arrived()
            if sum(len(name) + len(value) for name, value in self.headers) + len(self.url) > header_bytes:
                raise ValueError("headers too large")  # the parser answers 400
            super().on_headers_complete()

    return Guarded


def server(
    config: Config, *, gateway: Gateway | None = None, host: str | None = None, port: int | None = None
) -> uvicorn.Server:
    """A server that is not running yet; ``run()`` it, or ``serve()`` in an event loop."""
    settings = config.server
    return uvicorn.Server(
        uvicorn.Config(
            gateway or Gateway(config),
            host=settings.host if host is None else host,
            port=settings.port if port is None else port,
            http=protocol(settings.header_bytes, settings.receive_seconds),
            ws="none",
            lifespan="on",
            access_log=False,
            log_level="warning",
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=int(settings.drain_seconds) + 5,
        )
    )


def _add_price(name: str, config: Config) -> str:
    """What to do about a model without a price."""
    where = "to a file of [prices] files"
    if not config.price_files:
        where = 'to a file prices.toml, and files = ["prices.toml"] below [prices]'
    return (
        f"        Add it {where}, in dollars per million tokens:\n"
        f'            [models."{name}"]\n            input = 2.50\n            output = 10\n'
        f'        or give the model price = "NAME" if a table has it by another name, or take "money" out of kinds in '
        "[ledger]."
    )


async def check(config: Config, say: Callable[[str], Any]) -> bool:
    """Whether ledger, store, prices and all upstreams are there; ``say`` gets a line of each."""
    gateway = Gateway(config)
    well = True
    await run(gateway.store.get_key, "")
    say(f"ok      ledger {config.ledger}, {len(await run(gateway.store.all_keys))} keys")
    prices = gateway.proxy.metering.prices
    for backend in gateway.proxy.upstreams.backends:
        if prices is not None:
            for model in backend.config.models:
                try:
                    prices.price(model.price)  # type: ignore[attr-defined]
                except UnknownPrice as error:
                    well = False
                    say(f"FAILED  price of {model.name} at {backend.name}: {error.problem}")
                    say(_add_price(model.price, config))
        try:
            status = await gateway.proxy.upstreams.models(backend)
        except (OSError, TimeoutError, ValueError) as error:
            well = False
            say(f"FAILED  upstream {backend.name} at {backend.config.base_url}: {error or type(error).__name__}")
            continue
        fine = status < 400 or status == 404  # some have no list of models
        well &= fine
        hint = "" if fine else "; check base_url and key_env"
        say(f"{'ok    ' if fine else 'FAILED'}  upstream {backend.name} at {backend.config.base_url}: {status}{hint}")
    await gateway.proxy.upstreams.close()
    gateway.store.close()
    gateway.ledger.close()
    return well
