"""The most tokens that were billed for the text of an answer, where the provider does not say how many it counted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from budgeteer.core.usage import Usage
from budgeteer.metering.estimate import Bounds, count_text, least_tokens
from budgeteer.metering.outcome import Outcome
from budgeteer.metering.settlement import Answer

ON_THE_WAY = 32
"""Tokens that a server may have generated beyond the last that came, before it noticed that nobody reads any more."""
AROUND = 4
"""Tokens of a text that are not shown: those that end it, and what a template writes around it."""
_CALLS = ("tool_calls", "function_call", "partial_json")
"""Fields of a message or a delta that hold calls of tools."""


def holds_calls(part: Any) -> bool:
    """Whether a choice, a message, a delta, a part or an item has anything of a call of a tool.

    Around such a call servers write tokens that they do not show, so that its text does not say how many there are.

    >>> holds_calls({"index": 0, "delta": {"tool_calls": [{"function": {"name": "f"}}]}})
    True
    >>> holds_calls({"type": "function_call", "name": "f"}), holds_calls({"delta": {"content": "Hi"}})
    (True, False)
    """
    if isinstance(part, list):
        return any(map(holds_calls, part))
    if not isinstance(part, Mapping):
        return False
    if any(part.get(name) for name in _CALLS) or str(part.get("type") or "").endswith(("_call", "tool_use")):
        return True
    return any(holds_calls(part.get(name)) for name in ("message", "delta", "content_block", "content"))


def most_tokens(
    texts: Sequence[str], bounds: Bounds, calls: bool = False, least: int = 0, cut: int = 0
) -> tuple[int | None, int]:
    """The most tokens that an answer can have been billed, and the most that what it showed can have.

    Each text counts by the tokenizer, its margin, and what stands around it; by bytes without a tokenizer, or where the
    answer calls tools. A text that was cut has more: what was on its way when nobody read any more.

    Args:
        texts: of the choices or items.
        bounds: whose tokenizer and margin count.
        calls: whether the answer holds calls of tools.
        least: the fewest tokens that there are for certain.
        cut: choices that were still growing when the stream was cut.

    Returns:
        None for the first if there are no texts; 0 for the second if a tokenizer cannot say it, as of calls of tools.

    >>> words = Bounds(tokens=lambda text: len(text.split()))
    >>> most_tokens(["one two"], words), most_tokens(["one two"], words, cut=1)
    ((6, 6), (38, 6))
    >>> most_tokens(["one two"], Bounds()), most_tokens(["one two"], Bounds(), cut=1)
    ((7, 7), (39, 7))
    """
    if bounds.tokens is None or calls:
        shown = [count_text(text) for text in texts]
    else:
        shown = [math.ceil(count_text(text, bounds.tokens) * bounds.margin) + AROUND for text in texts]
    seen = sum(max(1, tokens) for tokens in shown) if texts else None
    if seen is not None:
        seen = (seen if bounds.tokens is None else max(seen, least)) + ON_THE_WAY * cut
    return seen, 0 if calls and bounds.tokens is not None else sum(shown)


def answer_of(
    usage: Usage | None, text: str, bounds: Bounds, *, calls: bool = False, outcome: Outcome = Outcome.OK,
    model: str = "",
) -> Answer:  # fmt: skip
    """What is known of a call of which a framework shows the usage and the text.

    Args:
        usage: as reported; None = not reported, or not credible.
        text: of the answer, the arguments of calls of tools included.
        bounds: whose tokenizer and margin count.
        calls: whether the answer holds calls of tools.
        outcome: how the call ended.
        model: as the answer names it.
    """
    least = least_tokens(text)
    seen, shown = most_tokens([text] if text else [], bounds, calls, least, outcome == Outcome.CUT)
    return Answer(usage, seen, model, outcome=outcome, shown=shown, least=least)


def credible(usage: Usage | None, text: str, asked: str = "") -> Usage | None:
    """The usage; None if it is smaller than the answer, or what was asked, must have needed.

    >>> credible(Usage(input=9, output=0), "Hello"), credible(Usage(input=9, output=2), "Hello")
    (None, Usage(input=9, output=2))
    """
    if usage is None or (usage.input or 0) < max(1, least_tokens(asked)) or (usage.output or 0) < least_tokens(text):
        return None
    return usage
