"""Refuse clients, and settings of frameworks, whose calls could not be metered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from budgeteer.core.errors import InvalidInput


def refuse_unmetered(client: Any) -> None:
    """Refuse a provider's client whose HTTP client retries by itself, or is metered already.

    Raises:
        InvalidInput: attempts would be billed unseen, or calls charged twice.
    """
    http = getattr(client, "_client", None)
    if getattr(http, "metering", None) is not None:
        raise InvalidInput(
            "this client is wrapped already, and every call would be charged twice; give the plain client, or use the "
            "wrapped one without this adapter"
        )
    mounts = getattr(http, "_mounts", None)
    transports = [getattr(http, "_transport", None), *(mounts.values() if isinstance(mounts, Mapping) else ())]
    for transport in transports:
        name = type(transport).__name__
        if "retry" in name.lower() or "tenacity" in name.lower():
            raise InvalidInput(
                f"the client's transport {name} retries where no attempt can be metered; leave retries to the client "
                "(max_retries)"
            )


HARMLESS = frozenset({
    "temperature", "top_p", "top_k", "min_p", "seed", "random_seed", "presence_penalty", "frequency_penalty",
    "repetition_penalty", "logit_bias", "stop", "stop_sequences", "tool_choice", "parallel_tool_calls", "logprobs",
    "top_logprobs", "response_format", "user", "metadata", "labels", "store", "safety_settings", "verbosity",
    "reasoning_effort", "reasoning_format", "reasoning_summary", "effort", "thinking", "thinking_config",
    "enable_thinking", "prompt_cache_key", "cache", "cache_instructions", "cache_messages", "cache_tool_definitions",
    "timeout", "request_timeout", "first_event_timeout", "extra_headers", "citations", "service_tier", "max_retries",
    "num_retries",
})  # fmt: skip
"""Settings of a framework that neither add input, output, choices or calls, nor call another model."""


def refuse_unbounded(settings: Mapping[str, Any], prefix: str = "") -> None:
    """Refuse settings of a framework that could make a request cost more than its bound.

    It is for requests that are bounded before the provider's client writes their body. A setting that is not known to
    be harmless could raise the cap, or ask for more choices or for input that is not seen. Requests of an OpenAI client
    do not need it: their whole body is seen and bounded.

    Args:
        settings: by name; None = not given. ``extra_body``, ``extra_args`` and ``extra_query`` may hold further ones.
        prefix: of the names of the provider's own settings, such as ``anthropic_``.

    Raises:
        InvalidInput: names the first setting that is not known to be harmless.
    """
    for name, value in settings.items():
        if value is None or name in ("max_tokens",):
            continue
        if name in ("extra_body", "extra_args", "extra_query"):
            inner = value if isinstance(value, Mapping) else {"": value}
            unknown = next((f"{name}[{key!r}]" for key in inner if key not in HARMLESS), None)
        else:
            unknown = None if name.removeprefix(prefix) in HARMLESS else name
        if unknown is not None:
            raise InvalidInput(
                f"the setting {unknown} is not known to leave the bound as it is, and this model's requests are not "
                "seen whole; leave it out, set the cap by max_tokens, or use a model that calls through an OpenAI "
                "client"
            )
