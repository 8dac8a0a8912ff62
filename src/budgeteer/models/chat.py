"""What a model is asked: raw text, or a chat with how it is to think and what it has written so far."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from budgeteer.core.errors import InvalidInput


class Message(NamedTuple):
    """One message of a chat: role ``"system"``, ``"user"``, ``"assistant"`` or, behind a call, ``"tool"``.

    An assistant's calls of tools stand in its content as text, as Qwen's models write them (:func:`calls_in`).
    """

    role: str
    content: str


class Tags(NamedTuple):
    """The texts between which a chat model thinks.

    Attributes:
        open: begins the thinking; some chat templates write it at the end of the prompt, so a trace may lack it.
        close: ends the thinking; the answer follows.
        end: ``close`` as the chat template writes it, with what stands around it: what a caller appends to end the
            thinking.
    """

    open: str
    close: str
    end: str

    def ended(self, thought: str) -> str:
        r"""Thinking with its end; a line break at its end is the first of the end's own.

        >>> THINK.ended("so") == THINK.ended("so\n") == "so\n</think>\n\n"
        True
        """
        return thought + (self.end.lstrip("\n") if thought.endswith("\n") else self.end)


THINK = Tags("<think>", "</think>", "\n</think>\n\n")
"""The tags of most models (Qwen3, DeepSeek-R1, GLM, SmolLM3, Nemotron), also for endpoints that send the thinking
apart from the answer."""
KNOWN_TAGS = (
    THINK,
    Tags("<seed:think>", "</seed:think>", "</seed:think>"),
    Tags("[THINK]", "[/THINK]", "[/THINK]"),
    Tags("<thought>", "</thought>", "\n</thought>\n\n"),
    Tags("<reasoning>", "</reasoning>", "\n</reasoning>\n"),
    Tags(
        "<|channel|>analysis<|message|>",
        "<|channel|>final<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
)
"""The tags that :func:`tags_of` knows: THINK, those of Seed-OSS, Magistral, EXAONE Deep, and gpt-oss's channels."""
EFFORTS = {"low": 0.25, "medium": 0.5, "high": 1.0}
"""Word of effort -> share of the usual thinking that it stands for, as ThinkDial has it (arXiv 2508.18773)."""
EASY_TAG, HARD_TAG = "[Easy]", "[Hard]"
"""What an answer begins with that says how hard its question is, as AdaCtrl has it (arXiv 2505.18822)."""
_HARMONY = "<|channel|>analysis"
_SWITCHES = ("enable_thinking", "thinking")
_CODE = re.compile(r"\{[%{].*?[%}]\}", re.DOTALL)


def tags_of(template: str, tokens: frozenset[str] = frozenset()) -> Tags | None:
    """The tags of a model, read from its chat template and from the tokens that were added to its vocabulary.

    >>> tags_of("{{ content.split('</think>')[-1] }}").close
    '</think>'
    >>> tags_of("{{ messages }}") is None
    True
    """
    for tags in KNOWN_TAGS:
        if tags.close in template or (tags.open.startswith(_HARMONY) and _HARMONY in template):
            return tags
    return next((tags for tags in KNOWN_TAGS if {tags.open, tags.close} <= tokens), None)


def switch_of(template: str) -> str | None:
    """The variable of a chat template that turns the thinking on and off: ``"enable_thinking"`` or ``"thinking"``;
    None if it has none."""
    return next((name for name in _SWITCHES if reads(template, name)), None)


def reads(template: str, name: str) -> bool:
    """Whether a statement or an expression of a Jinja template reads the variable.

    >>> reads("{% if enable_thinking %}", "thinking"), reads("{% if not thinking %}", "thinking")
    (False, True)
    """
    return any(re.search(rf"(?<![\w.'\"]){name}(?![\w'\"])", code) for code in _CODE.findall(template))


@dataclass(frozen=True, slots=True)
class Thinking:
    """How a chat model is to think; each part is in the hands of the chat template or of the endpoint.

    Attributes:
        on: whether it thinks; None = as the model does by itself.
        effort: word of effort, such as ``"low"``; ``""`` = none.
        tokens: most tokens of thinking, which the engine enforces; None = no limit.
        task: tokens that the model is told it has for the whole task, results of tools and all. It is advice, no limit;
            None = it is told nothing.
    """

    on: bool | None = None
    effort: str = ""
    tokens: int | None = None
    task: int | None = None

    def __post_init__(self) -> None:
        if self.tokens is not None and self.tokens < 0:
            raise InvalidInput(f"a thinking budget of {self.tokens} tokens; give 0 or more")


BY_ITSELF = Thinking()
"""The model thinks as it does by itself."""


@dataclass(frozen=True, slots=True)
class Chat:
    """The messages of a chat, and the beginning of what the model answers.

    Attributes:
        messages: at least one.
        thinking: how the model is to think.
        begun: what the assistant has written of its next message; the model goes on behind it, if it declares PREFILL.
        tags: where an endpoint sends the thinking apart from the answer, the trace is written with these tags round it;
            None = the text of a choice is the answer alone.
        tools: that the model may call, each the JSON of its schema; only for models that declare CALLS.
    """

    messages: tuple[Message, ...]
    thinking: Thinking = BY_ITSELF
    begun: str = ""
    tags: Tags | None = None
    tools: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.messages:
            raise InvalidInput("a chat without messages; give at least one")


Prompt = str | Chat
"""Raw text that is continued, or a chat."""


def continued(prompt: Prompt, text: str) -> Prompt:
    """The prompt with ``text`` as what the model has written so far.

    >>> continued("1, 2,", " 3,"), continued(Chat((Message("user", "Count."),)), "1").begun
    ('1, 2, 3,', '1')
    """
    return prompt + text if isinstance(prompt, str) else replace(prompt, begun=prompt.begun + text)


def contents(prompt: Prompt) -> list[str]:
    """The texts of a prompt: raw text, or tools and messages of a chat and what the model has written so far."""
    if isinstance(prompt, str):
        return [prompt]
    return [*prompt.tools, *(message.content for message in prompt.messages), *([prompt.begun] if prompt.begun else [])]


_CALLED = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|\Z)", re.DOTALL)


class ToolCall(NamedTuple):
    """A call of a tool that a model wrote; ``arguments`` is None where they are no JSON object."""

    name: str
    arguments: dict[str, Any] | None


def calls_in(text: str) -> list[ToolCall]:
    r"""The calls of tools in a text, as Qwen's models write them; a call that cannot be read has no name.

    >>> calls_in('<tool_call>\n{"name": "search", "arguments": {"query": "x"}}\n</tool_call>')
    [ToolCall(name='search', arguments={'query': 'x'})]
    >>> calls_in("<tool_call>\n{'name': oops}\n</tool_call>"), calls_in("7")
    ([ToolCall(name='', arguments=None)], [])
    """
    found = []
    for content in _CALLED.findall(text):
        try:
            call = json.loads(content)
        except (ValueError, RecursionError):
            call = None
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            found.append(ToolCall("", None))
            continue
        given = call.get("arguments")
        if isinstance(given, str):  # some models write the object as text
            try:
                given = json.loads(given)
            except (ValueError, RecursionError):
                given = None
        found.append(ToolCall(call["name"], given if isinstance(given, dict) else None))
    return found


def split_calls(text: str, most: int) -> tuple[str, list[str]]:
    r"""What stands before the last ``most`` calls of a text, and these calls, each as it is written.

    >>> split_calls("So.\n<tool_call>\n1\n</tool_call>\n<tool_call>\n2\n</tool_call>", 1)
    ('So.\n<tool_call>\n1\n</tool_call>', ['<tool_call>\n2\n</tool_call>'])
    """
    found = list(_CALLED.finditer(text))[-most:]
    return (text[: found[0].start()].rstrip() if found else text), [call[0] for call in found]


def call_of(name: str, arguments: str) -> str:
    """A call of a tool as text that :func:`calls_in` reads.

    Args:
        name: of the tool.
        arguments: a JSON object; anything else is written so that it is read as arguments that are none.

    >>> calls_in(call_of("look", '{"at": "</tool_call>"}')), calls_in(call_of("look", "{oops"))
    ([ToolCall(name='look', arguments={'at': '</tool_call>'})], [ToolCall(name='look', arguments=None)])
    """
    arguments = arguments.strip() or "{}"
    try:
        json.loads(arguments)
    except (ValueError, RecursionError):
        arguments = json.dumps(arguments)
    arguments = arguments.replace("</", "<\\/")  # in JSON the same text, and no end of the call
    return f'<tool_call>\n{{"name": {json.dumps(name)}, "arguments": {arguments}}}\n</tool_call>'


def traced(prompt: Prompt, thought: str, text: str, *, stopped: bool) -> str:
    r"""The trace of an answer whose thinking came apart: what :class:`Chat` says of its ``tags``.

    An answer that ended by itself without any thinking to be seen stands behind empty tags, since it is an answer; a
    text that has the tags already is left as it is, and so is one whose thinking was closed before it.

    Args:
        prompt: that was asked.
        thought: thinking so far.
        text: answer so far.
        stopped: whether it ended by itself.

    >>> chat = Chat((Message("user", "2 + 2?"),), tags=THINK)
    >>> traced(chat, "so", "4", stopped=True), traced(chat, "", "4", stopped=True), traced(chat, "", "4", stopped=False)
    ('<think>\nso\n</think>\n\n4', '<think>\n\n</think>\n\n4', '4')
    """
    tags = None if isinstance(prompt, str) else prompt.tags
    if isinstance(prompt, str) or tags is None or tags.close in prompt.begun:
        return text
    opened = "" if prompt.begun else f"{tags.open}\n"
    if thought:
        return opened + (tags.ended(thought) + text if text else thought)
    inline = tags.close in text or text.lstrip().startswith(tags.open)
    return text if inline or not stopped or not text else f"{opened}{tags.end}{text}"


def template_options(thinking: Thinking, template: str, model: str) -> dict[str, Any]:
    """How a chat template is told how to think: the variables that it reads.

    Args:
        thinking: as the caller wants it.
        template: the Jinja source.
        model: name of the model, for errors.

    Raises:
        InvalidInput: the template does not read what has to be said, or a limit of tokens is asked for, which no
            template can keep.
    """
    options: dict[str, Any] = {}
    if thinking.task is not None:
        raise InvalidInput(f"{model} cannot be told a budget of the task; Anthropic's API can (--model anthropic:NAME)")
    if thinking.tokens is not None:
        raise InvalidInput(
            f"{model} takes no thinking budget with a chat; use a strategy that keeps one, such as budget-forcing"
        )
    if thinking.on is not None:
        switch = switch_of(template)
        if switch is None:
            raise InvalidInput(
                f"the chat template of {model} reads neither {' nor '.join(_SWITCHES)}, so it cannot turn the thinking "
                f"{'on' if thinking.on else 'off'}; leave that out"
            )
        options[switch] = thinking.on
    if thinking.effort:
        if not reads(template, "reasoning_effort"):
            raise InvalidInput(
                f"the chat template of {model} does not read reasoning_effort, so {thinking.effort!r} would change "
                "nothing; leave it out"
            )
        options["reasoning_effort"] = thinking.effort
    return options


def any_template(thinking: Thinking) -> dict[str, Any]:
    """The variables that tell a chat template of an unknown model how to think; one that reads others ignores them.

    >>> any_template(Thinking(effort="low")), any_template(Thinking(on=False)), any_template(BY_ITSELF)
    ({'reasoning_effort': 'low'}, {'enable_thinking': False, 'thinking': False}, {})
    """
    switches = {} if thinking.on is None else dict.fromkeys(_SWITCHES, thinking.on)
    return {**switches, **({"reasoning_effort": thinking.effort} if thinking.effort else {})}


def written(rendered: str, begun: str, tags: Tags | None) -> str:
    r"""A rendered chat with what the assistant has written so far.

    If that closes a thinking which nothing opened, since it was cut before its first token, it is opened before.

    >>> written("<|assistant|>", "\n</think>\n\n4", THINK)
    '<|assistant|><think>\n\n</think>\n\n4'
    >>> written("<|assistant|><think>\n", "\n</think>\n\n4", THINK)
    '<|assistant|><think>\n\n</think>\n\n4'

    Where the template opens the thinking, it is not opened twice.

    >>> written("<|assistant|><think>\n", "<think>\n2 + 2", THINK)
    '<|assistant|><think>\n2 + 2'
    """
    if tags is not None and begun.startswith(tags.open) and rendered.rstrip().endswith(tags.open):
        begun = begun.removeprefix(tags.open)
        return rendered + (begun.removeprefix("\n") if rendered.endswith("\n") else begun)
    if tags is not None and begun.startswith((tags.end, tags.end.lstrip("\n"))):
        opened = rendered.rstrip().endswith(tags.open.strip())
        begun = begun.lstrip("\n")
        return f"{rendered}\n{begun}" if opened else f"{rendered}{tags.open}\n\n{begun}"
    return rendered + begun
