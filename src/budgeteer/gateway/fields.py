"""Which fields and addresses a body may have: only known fields, and only public addresses, are passed on.

Servers take far more fields than an endpoint's documentation names: SGLang unpickles ``custom_logit_processor``, vLLM
imports ``logits_processors`` by name and renders a ``chat_template`` (also one in ``chat_template_kwargs``), others
load adapters by path, connect to a host that the request names, or compile its regular expressions. A list of dangerous
fields is never complete, so this is a list of harmless ones; ``allow_fields`` of an upstream adds to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from budgeteer.gateway.hosts import public
from budgeteer.gateway.refusal import Refused, shown
from budgeteer.metering.tools import local_shell, plain

_OPENAI = (
    "model", "stream", "stream_options", "temperature", "top_p", "user", "metadata", "seed", "stop", "logit_bias",
    "frequency_penalty", "presence_penalty", "n", "service_tier", "store", "safety_identifier", "prompt_cache_key",
    "prompt_cache_options", "prompt_cache_retention", "moderation", "top_logprobs",
)  # fmt: skip
_GENERATION = (
    # other servers: how to sample, and when to stop
    "top_k", "top_a", "min_p", "typical_p", "tfs_z", "epsilon_cutoff", "eta_cutoff", "repetition_penalty",
    "repeat_penalty", "repeat_last_n", "penalize_nl", "dry_multiplier", "dry_base", "dry_allowed_length",
    "dry_penalty_last_n", "dry_sequence_breakers", "xtc_probability", "xtc_threshold", "dynatemp_range",
    "dynatemp_exponent", "mirostat", "mirostat_tau", "mirostat_eta", "min_keep", "n_keep", "n_probs", "samplers",
    "random_seed", "do_sample", "min_tokens", "ignore_eos", "stop_token_ids", "include_stop_str_in_output",
    "no_stop_trim", "allowed_token_ids", "bad_words", "skip_special_tokens", "spaces_between_special_tokens",
    "truncate_prompt_tokens", "logprobs", "prompt_logprobs", "return_tokens_as_token_ids", "return_token_ids",
    "detokenize", "cache_prompt", "cache_salt", "timings_per_token", "return_progress", "t_max_predict_ms",
    # what is to come out, without a language of its own
    "response_format", "json_schema", "guided_json", "guided_choice",
    # how much is thought, and how it is shown
    "reasoning_effort", "reasoning", "thinking", "thinking_budget", "thinking_token_budget", "thinking_budget_tokens",
    "reasoning_budget", "reasoning_budget_tokens", "max_thinking_tokens", "max_reasoning_tokens", "custom_params",
    "nvext", "enable_thinking", "include_reasoning", "separate_reasoning", "stream_reasoning",
    "reasoning_format", "verbosity", "output_config",
    # caps by other names, which are left out or refused, and what is refused with a reason of its own
    "max_completion_tokens", "max_tokens", "max_output_tokens", "n_predict", "n_cmpl", "max_new_tokens", "max_length",
    "num_predict", "num_return_sequences", "best_of", "background", "background_options", "models", "route",
    "fallbacks", "preset", "provider", "plugins", "speed", "inference_geo", "context_management",
    # routers
    "usage", "transforms", "safe_prompt",
)  # fmt: skip
_CHAT = (
    "messages", "tools", "tool_choice", "parallel_tool_calls", "parallel_tool_use", "functions", "function_call",
    "modalities", "audio", "prediction", "web_search_options", "search_parameters", "add_generation_prompt",
    "continue_final_message", "add_special_tokens", "echo", "chat_template_kwargs", "parse_tool_calls", "prompt_mode",
)  # fmt: skip
_RESPONSES = (
    "input", "instructions", "include", "text", "tools", "tool_choice", "parallel_tool_calls", "max_tool_calls",
    "previous_response_id", "conversation", "prompt", "truncation", "access_programs", "image", "client_metadata",
)  # fmt: skip
_MESSAGES = (
    "messages", "system", "tools", "tool_choice", "stop_sequences", "cache_control", "compaction", "diagnostics",
    "billing_policy", "fallback_credit_token", "thread", "output_format", "anthropic_version", "anthropic_beta",
)  # fmt: skip
_PICTURES = (
    "model",
    "prompt",
    "n",
    "size",
    "quality",
    "response_format",
    "user",
    "background",
    "moderation",
    "stream",
    "partial_images",
    "safety_identifier",
)
_SOUND = ("model", "prompt", "response_format", "temperature")
_OBJECTS = frozenset(("chat_template_kwargs", "custom_params", "nvext"))
"""Fields whose objects hold fields of a server's own, each of which is known or not."""
_LIMITS = frozenset({"custom_params.thinking_budget", "nvext.max_thinking_tokens"})
_KWARGS = _LIMITS | frozenset(f"chat_template_kwargs.{name}" for name in (
    "enable_thinking", "thinking", "reasoning_effort", "thinking_budget", "thinking_mode", "preserve_thinking",
    "clear_thinking", "reasoning_strip", "add_vision_id", "builtin_tools",
))  # fmt: skip
KNOWN: Mapping[str, frozenset[str]] = {
    "chat": frozenset((*_OPENAI, *_GENERATION, *_CHAT)) | _KWARGS,
    "completions": frozenset((*_OPENAI, *_GENERATION, "prompt", "suffix", "echo", "add_special_tokens")),
    "responses": frozenset((*_OPENAI, *_GENERATION, *_RESPONSES)),
    "messages": frozenset((*_OPENAI, *_GENERATION, *_MESSAGES)),
    "count_tokens": frozenset((*_OPENAI, *_GENERATION, *_MESSAGES)),
    "moderations": frozenset(("model", "input", "user", "metadata", "safety_identifier")),
    "rerank": frozenset((
        "model", "query", "documents", "top_n", "top_k", "return_documents", "rank_fields", "max_chunks_per_doc",
        "max_tokens_per_doc", "truncation", "truncate", "truncate_prompt_tokens", "user",
    )),
    "images": frozenset(("output_format", "output_compression", "style", *_PICTURES)),
    "image_edits": frozenset(("output_format", "output_compression", "input_fidelity", *_PICTURES)),
    "speech": frozenset((
        "model", "input", "voice", "instructions", "response_format", "speed", "stream_format", "user",
    )),
    "transcriptions": frozenset(("language", "stream", "timestamp_granularities[]", "include[]", "chunking_strategy",
                                 "known_speaker_names[]",
                                 *_SOUND)),
    "translations": frozenset(_SOUND),
    "embeddings": frozenset((
        *_OPENAI, "input", "dimensions", "encoding_format", "truncate_prompt_tokens", "add_special_tokens", "normalize",
        "input_type", "task", "truncate", "background", "models", "route", "fallbacks", "preset", "provider", "plugins",
    )),
}  # fmt: skip
"""Operation -> its fields: those that the providers document, and those of other servers that run no code, load no file
and reach no host. ``mcp_servers`` and ``container`` are documented but left out: they run code and reach hosts."""
_FORMATS = frozenset(("text", "json_object", "json_schema"))
_TOOLS = frozenset((
    "function", "custom", "computer", "text_editor", "bash", "memory", "local_shell", "apply_patch", "computer_use",
    "browser", "web_search", "web_search_preview", "web_fetch", "file_search", "image_generation", "tool_search",
    "tool_search_tool_bm25", "tool_search_tool_regex", "namespace",
))  # fmt: skip
"""Tools that clients run, or that only search; not those that run code (code_interpreter, code_execution, shell),
connect to hosts that a request names (mcp) or call a further model (advisor); a shell only if it says that it is the
client's. A date, ``_preview`` or ``_toolset`` at the end of a name is ignored."""
_ADDRESSES = frozenset((
    "url", "image_url", "video_url", "audio_url", "file_url", "image", "images", "video", "videos", "audio", "file",
    "files",
))  # fmt: skip
"""Fields whose string is an address."""
_MEDIA = _ADDRESSES | {"source", "input_audio", "input_image", "input_video", "attachments"}
"""Fields whose objects hold an address."""
_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*://|file:|/|\\)")
_INSIDE = ("content", "output", "parts", "messages", "input", "prompt", "system", "multimodal_data")


def check_fields(body: Mapping[str, Any], operation: str, more: frozenset[str]) -> None:
    """Refuse fields, formats and tools that are not known here.

    Args:
        body: the parsed request.
        operation: a key of KNOWN, such as chat.
        more: ``allow_fields`` of the upstream that would be called, such as "tools.mcp"; dots lead into objects.

    Raises:
        Refused: naming the field, and the setting that allows it.
    """
    known = KNOWN[operation]
    if not body.keys() <= known:
        for name in body.keys() - known - more:
            raise _unknown(name)
    for outer in body.keys() & _OBJECTS:
        inside = body[outer]
        if inside is None or outer in more:
            continue
        if not isinstance(inside, Mapping):
            raise Refused(400, "invalid_request", f"{outer} is not an object")
        for name, value in inside.items():
            full = f"{outer}.{name}"
            if full in more:
                continue
            if full not in (known | _LIMITS) or isinstance(value, dict | list):
                raise _unknown(full)
    for place in ("response_format", "text"):
        wanted = body.get(place)
        if place == "text" and isinstance(wanted, Mapping):
            place, wanted = "text.format", wanted.get("format")
        kind = wanted.get("type") if isinstance(wanted, Mapping) else None
        if kind is not None and kind not in _FORMATS and f"{place}.{kind}" not in more:
            raise _unknown(f"{place}.{kind}" if isinstance(kind, str) else f"{place}.type")
    tools = body.get("tools")
    if tools is not None and not isinstance(tools, list):
        raise Refused(400, "invalid_request", "tools is not a list")
    for tool in tools or ():
        _check_tool(tool, more)


def _check_tool(tool: Any, more: frozenset[str]) -> None:
    """Refuse a tool that the server runs, unless it only searches; and those within a namespace."""
    if not isinstance(tool, Mapping):
        raise Refused(400, "invalid_request", "tools has an entry that is not an object")
    if isinstance(tool.get("tools"), list):  # a namespace
        for inner in tool["tools"]:
            _check_tool(inner, more)
    kind = tool.get("type")
    if kind is None:
        if "name" in tool or "function" in tool:
            return
        kind = next(iter(tool), "")  # as Google names them
    if isinstance(kind, str) and (kind in _TOOLS or plain(kind) in _TOOLS or (kind == "shell" and local_shell(tool))):
        return
    if f"tools.{kind}" not in more:
        raise _unknown(f"tools.{kind}" if isinstance(kind, str) else "tools.type")


def _unknown(name: str) -> Refused:
    name = name[:120]
    return Refused(
        400,
        "field_not_allowed",
        f"{name} is not passed on, as it may have the upstream run, load or call something; "
        f'leave it out, or add "{name}" to allow_fields of the upstream in the gateway\'s file',
    )


def check_addresses(body: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    """Refuse addresses that an upstream could read inside its own network: files, and hosts that are not public.

    Args:
        body: the parsed request.
        allowed: ``media_hosts`` of the upstream: host names, and "*" for every public one.

    Raises:
        Refused: naming the address, and the setting that allows it.
    """
    for address in _addresses(body):
        scheme = address[:5].casefold()
        if scheme == "data:":
            continue
        try:
            parts = urlsplit(address[:2000])
            host = (parts.hostname or "").rstrip(".")
        except ValueError:
            parts, host = None, ""
        if parts is None or parts.scheme not in ("http", "https") or not host or "\\" in address[:2000]:
            raise Refused(
                400,
                "address_not_allowed",
                f"{shown(address)} would be read by the upstream from where it "
                "runs; send the picture or file itself as a data: URL",
            )
        if host in allowed or ("*" in allowed and public(host)):
            continue
        raise Refused(
            400,
            "address_not_allowed",
            f"the upstream would call {shown(host)} from where it runs; send the "
            f'picture or file itself as a data: URL, or add "{host[:120]}" to media_hosts of the upstream in '
            "the gateway's file",
        )


def _addresses(body: Mapping[str, Any]) -> Iterator[str]:
    """Every string in the messages that a server could take for the address of a picture, sound or file."""
    stack: list[tuple[Any, bool]] = [(body.get(name), False) for name in _INSIDE]
    while stack:
        value, media = stack.pop()
        if isinstance(value, Mapping):
            written = value.get("type") == "text"
            for name, inner in value.items():
                if isinstance(inner, str):
                    if (inner and name in _ADDRESSES) or (media and not written and _SCHEME.match(inner)):
                        yield inner
                elif name in _MEDIA:
                    stack.append((inner, True))
                elif media or name in _INSIDE:
                    stack.append((inner, media))
        elif isinstance(value, list):
            for inner in value:
                if isinstance(inner, Mapping | list):
                    stack.append((inner, media))
                elif media and isinstance(inner, str) and inner:
                    yield inner
