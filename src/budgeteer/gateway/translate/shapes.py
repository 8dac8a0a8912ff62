"""Bodies and events in the client's dialect, of what LiteLLM translated and of what the provider's own bytes say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from budgeteer.core.usage import Usage
from budgeteer.gateway.translate.witness import Witness

_CHAT = ("id", "object", "created", "model", "choices", "service_tier", "system_fingerprint")
_UNKNOWN = {"input_tokens": 0, "output_tokens": 0}
"""In place of a usage that the provider did not tell, where clients need the field: no answer has so few tokens, so
that it is not believed."""
EARLY = "the provider ended the stream early"


def plain(answer: Any) -> dict[str, Any]:
    """An object of LiteLLM's as JSON has it, without what is None."""
    fields: dict[str, Any] = answer if isinstance(answer, dict) else answer.model_dump(mode="json", exclude_none=True)
    return fields


def whole(operation: str, answer: dict[str, Any], witness: Witness) -> dict[str, Any]:
    """A whole answer, with the usage only if the provider told one."""
    usage = answer.get("usage") if witness.told else None
    if operation == "chat":
        kept = {name: answer[name] for name in _CHAT if name in answer}
        return kept if usage is None else {**kept, "usage": _chat_usage(usage)}
    if usage is None:
        usage = dict(_UNKNOWN) if operation == "messages" else None
    elif operation == "responses":
        usage = _responses_usage(usage)
    return {**answer, "usage": usage}


def passed(operation: str, event: dict[str, Any], witness: Witness) -> dict[str, Any] | None:
    """An event of a stream as it is passed on; None = it is not, since the provider did not say what it says."""
    if operation == "chat":
        return _chunk(event, witness)
    kind = str(event.get("type"))
    if operation == "messages":
        if kind in ("message_delta", "message_stop") and not witness.ended:
            return None
        return {**event, "usage": dict(_UNKNOWN)} if kind == "message_delta" and not witness.told else event
    if kind in ("response.completed", "response.incomplete"):
        if not witness.ended:
            return None
        return {**event, "response": whole(operation, event["response"], witness)}
    return None if kind.endswith(".done") and witness.over and not witness.ended else event


def _chunk(event: dict[str, Any], witness: Witness) -> dict[str, Any] | None:
    kept = {name: event[name] for name in _CHAT if name in event}
    if not event.get("choices"):
        told = witness.told and witness.ended and event.get("usage") is not None
        return {**kept, "choices": [], "usage": _chat_usage(event["usage"])} if told else None
    if not witness.ended and any(choice.get("finish_reason") for choice in event["choices"]):
        return None
    return kept


def ending(operation: str, witness: Witness, broken: bool) -> list[bytes]:
    """What follows the last event: the usual end, or for a stream that was cut the input, if it is known.

    ``broken`` says whether the connection broke: then the usage would still have come, if it has not.
    """
    if witness.error is not None:
        return [failure(operation, witness.error)]
    if witness.ended and not (broken and not witness.told):
        return [b"data: [DONE]\n\n"] if operation == "chat" else []
    usage = witness.usage
    if operation == "responses":
        error = {"code": "server_error", "message": EARLY}
        response = {
            "id": "resp_cut",
            "object": "response",
            "created_at": 0,
            "status": "failed",
            "error": error,
            "output": [],
            "usage": None if usage is None else _read_of(usage, "input"),
        }
        return [event_of({"type": "response.failed", "response": response}, operation)]
    if usage is None:
        return []
    if operation == "chat":
        chunk = {"id": "cut", "object": "chat.completion.chunk", "created": 0, "choices": []}
        return [event_of({**chunk, "usage": _read_of(usage, "prompt")}, operation)]
    cached = usage.cached or 0
    counts = {"input_tokens": (usage.input or 0) - cached, "cache_read_input_tokens": cached, "output_tokens": 0}
    delta = {"stop_reason": None, "stop_sequence": None}
    return [event_of({"type": "message_delta", "delta": delta, "usage": counts}, operation)]


def _read_of(usage: Usage, read: str) -> dict[str, Any]:
    """The input as OpenAI writes it in a usage."""
    details = {"cached_tokens": usage.cached, "cache_write_tokens": usage.written}
    return {f"{read}_tokens": usage.input, f"{read}_tokens_details": details}


def event_of(event: Mapping[str, Any], operation: str) -> bytes:
    """The bytes of an event."""
    name = b"" if operation == "chat" else b"event: %s\n" % str(event.get("type")).encode()
    return name + b"data: " + orjson.dumps(event) + b"\n\n"


def failure(operation: str, error: Any) -> bytes:
    """The event of an error in a stream."""
    if operation == "responses":
        about = error if isinstance(error, Mapping) else {"message": str(error)}
        return event_of({"type": "error", "message": "", **{k: v for k, v in about.items() if k != "type"}}, operation)
    return event_of({"type": "error", "error": error} if operation == "messages" else {"error": error}, operation)


def refusal(operation: str, status: int, message: str, error: Any = None) -> bytes:
    """The body of an error status."""
    kind = str(error.get("status") or error.get("type") or "") if isinstance(error, Mapping) else ""
    about = {"message": message, "type": kind or "upstream_error", "code": status}
    return orjson.dumps({"type": "error", "error": about} if operation == "messages" else {"error": about})


def _chat_usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    """A usage of LiteLLM's as OpenAI writes it, without its own additions; what was written for an hour keeps its
    place."""
    told = {name: usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens") if name in usage}
    made = usage.get("completion_tokens_details") or {}
    told["prompt_tokens_details"] = _read(usage, usage.get("prompt_tokens_details") or {})
    told["completion_tokens_details"] = {
        name: made[name] for name in ("reasoning_tokens", "audio_tokens") if made.get(name) is not None
    }
    return told


def _responses_usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    told = {name: usage[name] for name in ("input_tokens", "output_tokens", "total_tokens") if name in usage}
    told["input_tokens_details"] = {"cached_tokens": 0, **_read(usage, usage.get("input_tokens_details") or {})}
    reasoning = (usage.get("output_tokens_details") or {}).get("reasoning_tokens")
    return {**told, "output_tokens_details": {"reasoning_tokens": reasoning or 0}}


def _read(usage: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of the input: cached, audio, and written to the cache."""
    parts: dict[str, Any] = {
        name: details[name] for name in ("cached_tokens", "audio_tokens") if details.get(name) is not None
    }
    written = details.get("cache_write_tokens") or usage.get("cache_creation_input_tokens")
    if written is not None:
        parts["cache_write_tokens"] = written
        by_time = details.get("cache_creation_token_details")
        long = by_time.get("ephemeral_1h_input_tokens") if isinstance(by_time, Mapping) else None
        if long:
            parts["cache_write_tokens_details"] = {"ttl_12h_tokens": long}
    return parts
