"""Calls of tools as the OpenAI API has them: in fields of messages, where :mod:`budgeteer.models.chat` has text."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import takewhile
from typing import Any

from budgeteer.core.errors import InvalidInput
from budgeteer.models.chat import Message, call_of, calls_in, split_calls


def api_messages(messages: Iterable[Message]) -> list[dict[str, Any]]:
    r"""The messages of a chat in the form of the API: an assistant's calls that results follow stand in ``tool_calls``,
    each with an identifier, by which each result names its call.

    The identifiers have nine letters and digits, which is the form that the strictest provider (Mistral) takes.

    Raises:
        InvalidInput: results without as many calls before them.

    >>> call = call_of("look", '{"at": "x"}')
    >>> asked, result = api_messages([Message("assistant", "Let me see.\n" + call), Message("tool", "It is 4.")])
    >>> asked["content"], asked["tool_calls"]
    ('Let me see.', [{'id': 'call00001', 'type': 'function', 'function': {'name': 'look', 'arguments': '{"at": "x"}'}}])
    >>> result
    {'role': 'tool', 'tool_call_id': 'call00001', 'content': 'It is 4.'}
    """
    given, made, count = list(messages), [], 0
    for at, message in enumerate(given):
        results = sum(1 for _ in takewhile(lambda other: other.role == "tool", given[at + 1 :]))
        if message.role == "tool" or not results:
            if message.role != "tool":
                made.append(message._asdict())
            continue
        said, written = split_calls(message.content, results)
        if message.role != "assistant" or len(written) < results:
            raise InvalidInput(f"{results} results of tools follow a message with {len(written)} calls of them")
        ids = [f"call{number:05d}" for number in range(count + 1, count + 1 + results)]
        count += results
        made.append({"role": "assistant", "content": said or None, "tool_calls": [
            {"id": id, "type": "function", "function": _function(text)} for id, text in zip(ids, written, strict=True)
        ]})  # fmt: skip
        made += [
            {"role": "tool", "tool_call_id": id, "content": result.content}
            for id, result in zip(ids, given[at + 1 :], strict=False)
        ]
    return made


def _function(text: str) -> dict[str, str]:
    """A call in the form of the API; what was no JSON object is sent as an empty one, since servers parse it."""
    ((name, arguments),) = calls_in(text)
    return {"name": name or "unknown", "arguments": json.dumps(arguments or {}, ensure_ascii=False)}


class Calls:
    """The calls of one choice, as they come: whole, or in the pieces of a stream.

    >>> calls = Calls()
    >>> calls.take([{"index": 0, "id": "a", "function": {"name": "look", "arguments": '{"at"'}}])
    >>> calls.take([{"index": 0, "function": {"arguments": ': "x"}'}}])
    >>> print(calls.text)
    <tool_call>
    {"name": "look", "arguments": {"at": "x"}}
    </tool_call>
    """

    def __init__(self) -> None:
        self._calls: list[dict[str, Any]] = []

    def take(self, pieces: Any) -> None:
        """Add what an event holds; anything that is no call is left out."""
        for piece in pieces if isinstance(pieces, list) else ():
            function = piece.get("function") if isinstance(piece, dict) else None
            if isinstance(function, dict):
                call = self._call(piece, function)
                for part in ("name", "arguments"):
                    told = function.get(part)
                    if isinstance(told, dict):  # some servers send the object itself
                        told = json.dumps(told)
                    call[part] += told if isinstance(told, str) else ""

    def _call(self, piece: dict[str, Any], function: dict[str, Any]) -> dict[str, Any]:
        """The call that a piece belongs to: of its index, unless its identifier says that it is another one."""
        index, id = piece.get("index"), piece.get("id")
        same = [call for call in self._calls if call["index"] == index]
        begins = bool(function.get("name")) if index is None else not same
        if begins or not self._calls or (same and id and same[-1]["id"] not in (None, id)):
            self._calls.append({"index": index, "id": id, "name": "", "arguments": ""})
            return self._calls[-1]
        return (same or self._calls)[-1]

    @property
    def text(self) -> str:
        """The calls as text, one behind the other; ``""`` = none."""
        return "\n".join(call_of(call["name"], call["arguments"]) for call in self._calls)
