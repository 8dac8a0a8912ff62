"""Where requests ask for thinking: budgets in tokens, efforts and switches, in every dialect that is known."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

from budgeteer.core.usage import MOST

Path = tuple[str, ...]
TASK: tuple[Path, ...] = (("output_config", "task_budget", "total"), ("output_config", "task_budget", "remaining"))
"""Anthropic's budget of a task: of thoughts and answers together, over several requests."""
LEAST_TASK = 20_000
"""Tokens of the smallest budget of a task that Anthropic takes."""
BUDGETS: tuple[Path, ...] = (
    ("thinking", "budget_tokens"),
    ("reasoning", "max_tokens"),
    ("thinking_token_budget",),
    ("thinking_budget",),
    ("thinking_budget_tokens",),
    ("reasoning_budget",),
    ("reasoning_budget_tokens",),
    ("max_thinking_tokens",),
    ("max_reasoning_tokens",),
    ("chat_template_kwargs", "thinking_budget"),
    ("custom_params", "thinking_budget"),
    ("nvext", "max_thinking_tokens"),
    *TASK,
)
"""Where a request limits its thinking in tokens: the names of the objects, then of the field. In order: Anthropic,
OpenRouter, vLLM, Qwen, llama.cpp (three), others (two), templates, SGLang, NVIDIA Dynamo, Anthropic's tasks."""
EFFORTS: tuple[Path, ...] = (
    ("reasoning_effort",),
    ("reasoning", "effort"),
    ("output_config", "effort"),
    ("chat_template_kwargs", "reasoning_effort"),
)
"""Where a request names an effort."""
SWITCHES: tuple[Path, ...] = (
    ("thinking", "type"),
    ("reasoning", "enabled"),
    ("enable_thinking",),
    ("chat_template_kwargs", "enable_thinking"),
    ("chat_template_kwargs", "thinking"),
)
"""Where a request turns thinking on."""
_FIRST = frozenset(path[0] for path in (*BUDGETS, *EFFORTS, *SWITCHES))
OFF = (None, False, "none", "disabled")
"""Efforts and switches that ask for none."""


def at(body: Mapping[str, Any], path: Path) -> Any:
    """What stands at a path; None if nothing does.

    >>> at({"thinking": {"budget_tokens": 5}}, ("thinking", "budget_tokens"))
    5
    """
    value: Any = body
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def put(body: dict[str, Any], path: Path, value: Any) -> None:
    """Write a value where :func:`at` found one; objects on the way are copied, as they may be shared."""
    for name in path[:-1]:
        body[name] = dict(body[name])
        body = body[name]
    body[path[-1]] = value


def asked_budget(body: Mapping[str, Any]) -> int:
    """The largest budget of thinking that a request names, in tokens; 0 if it names none."""
    named = [at(body, path) for path in BUDGETS if path not in TASK]
    return max(map(_tokens, named))


def _tokens(value: Any) -> int:
    """Tokens of a budget as servers read it, which take 8e3 and "8000" for 8000; 0 if it is no number above 0."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return 0
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        return 0
    return ceil(min(value, MOST))


def asks(body: Mapping[str, Any]) -> bool:
    """Whether a request asks for thinking, which may stay unseen: by a budget, an effort or a switch."""
    if not body.keys() & _FIRST:
        return False
    if any(at(body, path) not in (None, 0, False) for path in BUDGETS):
        return True
    if any(at(body, path) not in OFF for path in (*EFFORTS, *SWITCHES)):
        return True
    reasoning, thinking = body.get("reasoning"), body.get("thinking")
    told = isinstance(reasoning, Mapping) and (at(body, ("reasoning", "effort")) or reasoning.get("enabled") is False)
    bare = reasoning not in (None, "none", False) and not told
    return bare or (isinstance(thinking, Mapping) and thinking.get("type") != "disabled")
