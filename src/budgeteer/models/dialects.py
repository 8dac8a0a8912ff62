"""How engines and providers are told how to think, in the fields of an OpenAI-compatible chat request.

None of these fields is part of the OpenAI API but ``reasoning_effort``; a server that does not know one ignores it as a
rule, without a word. :mod:`budgeteer.models.probe` tests what an endpoint really does.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from budgeteer.core.errors import InvalidInput, UnknownName
from budgeteer.models.chat import Chat, Thinking

Fields = dict[str, Any]
Post = Callable[[str, Fields], Awaitable[Any]]
"""(path on the server, body) -> the JSON that it answers."""
Render = Callable[[Post, str, list[dict[str, Any]], Fields], Awaitable[str]]
"""(post, model, messages, variables of the chat template) -> the text that the model would read."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """The fields of one engine; None = it has none for that.

    Attributes:
        switch: whether to think -> fields.
        effort: word of effort -> fields.
        tokens: most tokens of thinking -> fields.
        prefill: fields with which the engine goes on with the last message, if that is the assistant's. Many chat
            templates rewrite such a message, and put an empty thinking before one that is open.
        render: has the server write the chat as its template does, so that what is begun can follow it as raw text, to
            the letter; taken before ``prefill``.
    """

    switch: Callable[[bool], Fields] | None = None
    effort: Callable[[str], Fields] | None = None
    tokens: Callable[[int], Fields] | None = None
    prefill: Fields | None = None
    render: Render | None = None

    @property
    def goes_on(self) -> bool:
        """Whether the engine goes on with an answer that it is given."""
        return self.prefill is not None or self.render is not None


async def _apply_template(post: Post, model: str, messages: list[dict[str, Any]], options: Fields) -> str:
    return str((await post("/apply-template", {"messages": messages, "chat_template_kwargs": options}))["prompt"])


async def _tokenize(post: Post, model: str, messages: list[dict[str, Any]], options: Fields) -> str:
    chat = {"model": model, "messages": messages, "add_generation_prompt": True, "chat_template_kwargs": options}
    tokens = (await post("/tokenize", chat))["tokens"]
    return str((await post("/detokenize", {"model": model, "tokens": tokens}))["prompt"])


def _template(on: bool) -> Fields:
    return {"chat_template_kwargs": {"enable_thinking": on}}


def _effort(word: str) -> Fields:
    return {"reasoning_effort": word}


DIALECTS = {
    "openai": Dialect(effort=_effort),
    "vllm": Dialect(
        _template,
        _effort,
        lambda n: {"thinking_token_budget": n},
        render=_tokenize,
    ),
    "sglang": Dialect(
        _template,
        _effort,
        lambda n: {"custom_params": {"thinking_budget": n}, "require_reasoning": True},
        {"continue_final_message": True, "add_generation_prompt": False},
    ),
    "llama.cpp": Dialect(_template, _effort, lambda n: {"thinking_budget_tokens": n}, render=_apply_template),
    "ollama": Dialect(lambda on: {} if on else {"reasoning_effort": "none"}, _effort),
    "nim": Dialect(_template, _effort, lambda n: {"nvext": {"max_thinking_tokens": n}}),
    "openrouter": Dialect(
        lambda on: {"reasoning": {"enabled": on}},
        lambda word: {"reasoning": {"effort": word}},
        lambda n: {"reasoning": {"max_tokens": n}},
        {},
    ),
    "deepseek": Dialect(lambda on: {"thinking": {"type": "enabled" if on else "disabled"}}, _effort),
    "dashscope": Dialect(lambda on: {"enable_thinking": on}, None, lambda n: {"thinking_budget": n}),
}
"""Name of an engine or a provider -> its dialect.

vllm: from 0.20 on, with a reasoning parser. sglang: with ``--enable-strict-thinking``. llama.cpp: also as
``reasoning_budget_tokens``. dashscope: Qwen's own API.
"""


def dialect_of(name: str) -> Dialect:
    """The dialect of this name.

    Raises:
        UnknownName: there is none; the message lists them.
    """
    if name not in DIALECTS:
        raise UnknownName("dialect", name, tuple(DIALECTS))
    return DIALECTS[name]


def fields(name: str, chat: Chat) -> Fields:
    """The fields that tell an endpoint how to think about a chat, and to go on with what is begun.

    Raises:
        InvalidInput: the dialect has no field for what is asked.

    >>> from budgeteer.models.chat import Message
    >>> fields("vllm", Chat((Message("user", "Hi"),), Thinking(True, "low", 64)))["thinking_token_budget"]
    64
    """
    dialect, thinking = dialect_of(name), chat.thinking
    body: Fields = {}
    if thinking.task is not None:
        raise InvalidInput(
            f"the dialect {name} has no field for a budget of the task; Anthropic's API has (--model anthropic:NAME), "
            "or leave that out"
        )
    for part, value, wanted in (
        ("switch", thinking.on, "turn the thinking on or off"),
        ("effort", thinking.effort or None, "name an effort"),
        ("tokens", thinking.tokens, "limit the tokens of thinking"),
    ):
        if value is None:
            continue
        field = getattr(dialect, part)
        if field is None:
            able = ", ".join(other for other, has in DIALECTS.items() if getattr(has, part))
            raise InvalidInput(
                f"the dialect {name} has no field to {wanted}; give the endpoint's own dialect ({able}), or leave that "
                "out"
            )
        for key, told in field(value).items():
            body[key] = {**body[key], **told} if isinstance(told, dict) and key in body else told
    if chat.begun:
        if not dialect.goes_on:
            raise InvalidInput(
                f"in the dialect {name} an endpoint does not go on with an answer that it is given; choose a strategy "
                "that continues no trace, or give the endpoint's own dialect"
            )
        body |= dialect.prefill or {}
    return body


def variables(thinking: Thinking) -> Fields:
    """How to think, as the variables of a chat template that most engines know."""
    switch = {} if thinking.on is None else {"enable_thinking": thinking.on}
    return switch | ({"reasoning_effort": thinking.effort} if thinking.effort else {})


def refuses_temperature(status: int, said: str) -> bool:
    """Whether an API refused a call since its model takes no temperature: models that only reason draw at their own.

    A temperature that is out of range is another error.

    >>> refuses_temperature(400, "Unsupported value: 'temperature' does not support 0 with this model.")
    True
    >>> refuses_temperature(400, "temperature must be between 0 and 2")
    False
    """
    return status == 400 and "temperature" in said and re.search("support|deprecated|only", said) is not None
