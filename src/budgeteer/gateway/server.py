"""Run the gateway under uvicorn, or check its configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from budgeteer.core.errors import BudgeteerError, MissingExtra, UnknownPrice
from budgeteer.core.urls import without_password
from budgeteer.gateway.admins import Oidc, described
from budgeteer.gateway.app import Gateway
from budgeteer.gateway.config import Config
from budgeteer.gateway.counting import probe
from budgeteer.gateway.door import protocol
from budgeteer.gateway.keyring import run
from budgeteer.gateway.probe import knows_stream_options
from budgeteer.gateway.translate.caller import about
from budgeteer.gateway.upstream import Backend

try:
    import aiohttp
    import uvicorn
except ImportError as error:
    raise MissingExtra("uvicorn", "gateway") from error


def server(
    config: Config, *, gateway: Gateway | None = None, host: str | None = None, port: int | None = None
) -> uvicorn.Server:
    """A server that is not started yet: call ``run()``, or ``serve()`` in an event loop.

    Args:
        config: the gateway's configuration.
        gateway: the application; None makes one.
        host, port: where to listen; None = as configured.
    """
    settings = config.server
    gateway = gateway or Gateway(config)
    return uvicorn.Server(
        uvicorn.Config(
            gateway,
            host=settings.host if host is None else host,
            port=settings.port if port is None else port,
            http=protocol(settings, gateway.metrics.turned_away),
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
    """The advice for a model without a price."""
    where = "to a file of [prices] files"
    if not config.price_files:
        where = 'to a file prices.toml, and files = ["prices.toml"] below [prices]'
    return (
        f"        Add it {where}, in dollars per million tokens:\n"
        f'            [models."{name}"]\n            input = 2.50\n            output = 10\n'
        f'        or give the model price = "NAME" if a table has it by another name, or take "money" out of kinds in '
        "[ledger]."
    )


async def _check_streams(gateway: Gateway, backend: Backend, place: str, say: Callable[[str], Any]) -> bool:
    """Whether the declared ``stream_options`` of an upstream holds, as far as it can be told."""
    try:
        verdict = await asyncio.wait_for(
            knows_stream_options(gateway.proxy.upstreams, backend), backend.config.connect_seconds + 30
        )
    except (OSError, TimeoutError, ValueError, aiohttp.ClientError):
        return True
    if verdict is not None:
        say(f"{'ok    ' if verdict[0] else 'FAILED'}  {place}: {verdict[1]}")
    return verdict is None or verdict[0]


async def _check_oidc(oidc: Oidc, say: Callable[[str], Any]) -> bool:
    """Whether the provider where admins sign in answers, and is the one that it has to be."""
    from budgeteer.gateway.oidc.provider import Provider

    try:
        await Provider(oidc, frozenset()).metadata()
    except BudgeteerError as error:
        say(f"FAILED  sign-in: {error}")
        return False
    say(f"ok      sign-in with {oidc.issuer}; it has to know the addresses {oidc.callback} and {oidc.url}/login")
    return True


async def check(config: Config, say: Callable[[str], Any]) -> bool:
    """Whether the ledger, the store, all prices and all upstreams can be used.

    Args:
        config: the gateway's configuration.
        say: called with a line about each of them.

    Raises:
        BudgeteerError: a policy cannot be built, or the ledger or the store cannot be opened.
    """
    gateway = Gateway(config)
    usable = True
    await run(gateway.store.get_key, "")
    say(f"ok      ledger {without_password(config.ledger)}, {len(await run(gateway.store.all_keys))} keys")
    for name, models in (config.groups.groups or {}).items():
        say(f"ok      group {name}: {', '.join(models)}")
    for line in described(config.admins.entries):
        say(f"ok      admin {line}")
    if config.admins.oidc is not None:
        usable &= await _check_oidc(config.admins.oidc, say)
    prices = gateway.proxy.metering.prices
    for backend in gateway.proxy.upstreams.backends:
        if prices is not None:
            for model in backend.config.models:
                try:
                    prices.price(model.price)  # type: ignore[attr-defined]
                except UnknownPrice as error:
                    usable = False
                    say(f"FAILED  price of {model.name} at {backend.name}: {error.problem}")
                    say(_add_price(model.price, config))
        place = f"upstream {backend.name} at {backend.place}"
        if backend.config.driver is not None:
            say(f"ok      {place}: {about(backend.config.driver)}; it was not called")
            continue
        try:
            status = await gateway.proxy.upstreams.models(backend)
        except (OSError, TimeoutError, ValueError) as error:
            usable = False
            say(f"FAILED  {place}: {error or type(error).__name__}")
            continue
        answers = status < 400 or status == 404  # some have no list of models
        usable &= answers
        hint = "" if answers else "; check base_url and key_env"
        say(f"{'ok    ' if answers else 'FAILED'}  {place}: {status}{hint}")
        if backend.config.counts:
            why = await probe(backend, gateway.proxy.upstreams)
            usable &= not why
            say(f"{'FAILED' if why else 'ok    '}  {place} counts tokens (count_tokens){': ' + why if why else ''}")
        usable &= not answers or await _check_streams(gateway, backend, place, say)
    await gateway.proxy.upstreams.close()
    gateway.store.close()
    gateway.ledger.close()
    return usable
