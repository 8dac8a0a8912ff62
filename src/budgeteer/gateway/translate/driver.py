"""What the gateway's file says of an upstream that is called through LiteLLM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from budgeteer.gateway.toml import Table

LITELLM = "litellm"
_AWS = ("aws_region_name", "aws_profile_name", "aws_role_name", "aws_session_name", "aws_bedrock_runtime_endpoint")
_VERTEX = ("vertex_project", "vertex_location", "vertex_credentials")
PROVIDERS: Mapping[str, tuple[str, ...]] = {
    "anthropic": (),
    "bedrock": _AWS,
    "gemini": (),
    "ollama": (),
    "openai": (),
    "vertex": _VERTEX,
}
"""Providers -> their options. Each is one whose requests LiteLLM sends through the connection that it is handed."""
_NATIVE = ("dialect", "cap", "media_hosts", "allow_fields", "count_tokens", "bills_cost", "stream_options")
"""Settings of upstreams that get what the client sent."""


@dataclass(frozen=True, slots=True)
class Driver:
    """How an upstream of another dialect is called.

    Attributes:
        provider: one of PROVIDERS.
        options: what else LiteLLM needs to know of the provider, such as a region, as (name, value).
    """

    provider: str
    options: tuple[tuple[str, str], ...] = ()


def read_driver(table: Table) -> Driver | None:
    """Read the driver from the table of an upstream; None if it speaks one of the gateway's own dialects.

    Raises:
        InvalidInput: naming the field, its line and what is wrong with it.
    """
    if table.text("driver", None, (LITELLM,)) is None:
        return None
    provider = table.text("provider", among=tuple(PROVIDERS))
    options = table.table("provider_options")
    given = tuple((name, options.text(name)) for name in PROVIDERS[provider] if name in options.data)
    options.done()
    for name in _NATIVE:
        if name in table.data:
            table.fail(name, f'does not go with driver = "{LITELLM}", which translates every request; leave it out')
    return Driver(provider, given)
