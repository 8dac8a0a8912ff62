"""What an upstream of another dialect may be asked: the fields that are translated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from budgeteer.gateway.refusal import Refused, shown

OPERATIONS: Mapping[str, tuple[str, ...]] = {"anthropic": ("chat", "responses"), "openai": ("chat", "messages")}
"""Provider -> operations that are translated for it; all three for the others. What a provider speaks itself needs no
driver."""
_PASSED: Mapping[str, frozenset[str]] = {
    "chat": frozenset((
        "messages", "tools", "tool_choice", "parallel_tool_calls", "temperature", "top_p", "n", "stop", "max_tokens",
        "max_completion_tokens", "presence_penalty", "frequency_penalty", "seed", "response_format", "logprobs",
        "top_logprobs", "reasoning_effort", "thinking",
    )),
    "messages": frozenset((
        "messages", "system", "tools", "tool_choice", "temperature", "top_p", "top_k", "stop_sequences", "max_tokens",
        "thinking",
    )),
    "responses": frozenset((
        "input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "temperature", "top_p",
        "max_output_tokens", "reasoning", "text",
    )),
}  # fmt: skip
"""Operation -> the fields that are translated. LiteLLM takes its own settings by name as well, such as another address,
key or model to fall back to, so this is a list of what may be passed and not of what may not."""
_KEPT = frozenset(
    (
        "model",
        "stream",
        "stream_options",
        "user",
        "metadata",
        "store",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "include",
    )
)
"""Fields that are read here, or that change no answer: they are not passed on."""
_CLIENT_RUN = ("function", "custom", None)


def takes(provider: str, operation: str) -> bool:
    """Whether an operation is translated for a provider."""
    return operation in OPERATIONS.get(provider, tuple(_PASSED))


def check_translated(body: Mapping[str, Any], operation: str) -> None:
    """Refuse what is not translated for a provider of another dialect, before anything is reserved for it.

    Raises:
        Refused: naming the field.
    """
    passed = _PASSED[operation] | _KEPT
    for name in body:
        if name not in passed and body[name] is not None:
            raise Refused(
                400, "not_translated", f"{name[:120]} is not translated for the provider of this model; leave it out"
            )
    for tool in body.get("tools") or ():
        kind = tool.get("type")
        if kind not in _CLIENT_RUN:
            text = f"tools of type {shown(kind)} are not translated for the provider of this model; give functions"
            raise Refused(400, "not_translated", text)


def fields_of(body: Mapping[str, Any], operation: str) -> dict[str, Any]:
    """The fields of a checked body that are translated."""
    return {name: body[name] for name in _PASSED[operation] if body.get(name) is not None}
