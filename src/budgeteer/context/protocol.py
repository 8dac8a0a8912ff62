"""The Reducer protocol: fewer messages, or shorter ones, that fit a budget of tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64

Message = Mapping[str, Any]
"""A message of a chat as OpenAI-compatible endpoints take it: ``role``, ``content`` (a text, a list of parts, or None),
``tool_calls``, ``tool_call_id``. Keys that are not read here stay as they are."""
Count = Callable[[Sequence[Message]], int]
"""Messages -> the tokens of the whole prompt: whatever the model's own template and tokenizer make of them."""
Reducer = Callable[[Sequence[Message], int, Count], list[Message]]
"""(messages, budget, count) -> messages with ``count(messages) <= budget``.

What was given is not changed. Messages keep their order. System messages, the question (the last message of the user)
and, after it, the calls of tools and their results stay; a call of a tool and its results stay or go together. Raises
InvalidInput where what has to stay is above the budget. The counter is an argument, since it belongs to the model that
is called and not to the method.
"""
Encode = Callable[[Sequence[str]], F64]
"""Texts [n] -> vectors [n, d]."""
Rerank = Callable[[str, Sequence[str]], F64]
"""(question, texts [n]) -> how well each text serves the question, [n]; higher is better."""


def counter(tokens: Callable[[str], int], *, message: int = 4, request: int = 3) -> Count:
    """A counter made of a count of texts: texts, calls of tools and other parts, and so many tokens a message.

    It is exact for a template that wraps every message in equally many tokens, as most do. Where the template is at
    hand, count with :func:`chat_counter`.
    A part that is no text counts as its JSON, which is too much for a picture inside it and too little for its address.

    Args:
        tokens: text -> tokens.
        message: tokens around a message.
        request: tokens around the whole.

    >>> counter(lambda text: len(text.split()))([{"role": "user", "content": "How are you?"}])
    10
    """

    def count(messages: Sequence[Message]) -> int:
        return request + sum(message + sum(map(tokens, texts_of(one))) for one in messages)

    return count


def chat_counter(tokenizer: Any) -> Count:
    """A counter of a tokenizer of transformers: the tokens of its chat template, with the beginning of the answer.

    Args:
        tokenizer: with ``apply_chat_template``; its ``tokenize=True`` gives other types in other versions, so that the
            text is made first.

    Raises:
        InvalidInput: the tokenizer has no chat template, as those of base models.
    """
    if getattr(tokenizer, "chat_template", "") is None:  # some tokenizers have templates of another kind, and no field
        raise InvalidInput(
            f"{type(tokenizer).__name__} has no chat template, so that nothing says what surrounds a message; set "
            "tokenizer.chat_template, or count with counter(lambda text: len(tokenizer(text, "
            "add_special_tokens=False)['input_ids']))"
        )

    def count(messages: Sequence[Message]) -> int:
        text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    return count


def texts_of(message: Message) -> list[str]:
    """The texts of a message, and what else of it is sent, as JSON."""
    content = message.get("content")
    parts = content if isinstance(content, list) else [] if content is None else [content]
    texts = [text for part in parts if (text := text_of(part)) is not None]
    others = [part for part in parts if text_of(part) is None]
    sent = [message[key] for key in ("tool_calls", "function_call") if message.get(key)]
    return texts + [json.dumps(other, ensure_ascii=False, separators=(",", ":")) for other in (*others, *sent)]


def text_of(part: Any) -> str | None:
    """The text of a content, or of a part of it; None for what is no text."""
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    return None
