"""Messages cut into pieces that a reducer keeps or drops, and put together again as valid messages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from budgeteer.context.protocol import Count, Message, text_of
from budgeteer.core.errors import InvalidInput

OMITTED = "[omitted]"
"""Stands for the text of a message that has to stay and lost all of it."""
LONGEST = 400
"""Characters of a line up to which it is one piece; a longer one is cut at the ends of its sentences."""
_SENTENCE = re.compile(r"(?s).+?(?:[.!?]+[\"')\]]*\s+|\Z)")
_WHOLE = -1
"""The part of a piece whose message has a text instead of parts."""
_BARE = -2
"""The part of a piece that has no text: it stands for its message."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a message's text.

    Attributes:
        text: with the blanks that follow it.
        message: number of the message.
        part: number of the part of its content; below 0 where the content has no parts.
    """

    text: str
    message: int
    part: int


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation in pieces.

    Attributes:
        messages: as they were given.
        pieces: what may be dropped, in the order of the text.
        group: [messages] number of the group: a call of tools and its results are one.
        fixed: numbers of the messages that stay as they are.
        held: of those that stay, but may lose text: what was called and found since the question.
        question: the text of the last message of the user.
    """

    messages: tuple[Message, ...]
    pieces: tuple[Piece, ...]
    group: tuple[int, ...]
    fixed: frozenset[int]
    held: frozenset[int]
    question: str

    @property
    def texts(self) -> list[str]:
        """The text of every piece."""
        return [piece.text for piece in self.pieces]

    def lines(self, numbers: Iterable[int]) -> list[str]:
        """Texts of pieces, each with a blank at its end, so that those of two messages are not read as one word."""
        texts = (self.pieces[number].text for number in numbers)
        return [text if text[-1:].isspace() else text + "\n" for text in texts]

    def keep(self, kept: Iterable[int] | Mapping[int, str], ordered: bool = False) -> list[Message]:
        """The messages with some of their pieces.

        Args:
            kept: numbers of pieces; or number -> the text that takes its place.
            ordered: whether pieces of a message stand in the order of ``kept``, and not in that of the text.
        """
        texts = kept if isinstance(kept, Mapping) else {number: self.pieces[number].text for number in kept}
        left: dict[int, dict[int, list[str]]] = {}
        for number in texts if ordered else sorted(texts):
            piece = self.pieces[number]
            left.setdefault(piece.message, {}).setdefault(piece.part, []).append(texts[number])
        stay = self.fixed | self.held
        groups = {self.group[number] for number in (*left, *stay)}
        return [
            message if number in self.fixed else _with(message, left.get(number, {}))
            for number, message in enumerate(self.messages)
            if self.group[number] in groups
        ]

    def bare(self, budget: int, count: Count) -> int:
        """The tokens of what has to stay.

        Raises:
            InvalidInput: they are above the budget, or the budget or what the counter gives is no whole number.
        """
        if isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
            raise InvalidInput(f"a budget of {budget!r} tokens for messages; give a whole number from 1")
        if not callable(count) or hasattr(count, "apply_chat_template"):
            raise InvalidInput(
                f"the counter is of type {type(count).__name__}; give a function from messages to tokens, such as "
                "budgeteer.context.protocol.chat_counter(tokenizer)"
            )
        tokens = count(self.keep(()))
        if not isinstance(tokens, Integral) or tokens < 0:  # by a NaN every prompt would fit
            raise InvalidInput(f"the counter gave {tokens!r:.60} for a prompt; return its tokens, a whole number")
        if tokens > budget:
            raise InvalidInput(
                f"the system messages, the question and the calls after it take {tokens:,} tokens, and the budget is "
                f"{budget:,}; raise the budget, or shorten them. What may be left out goes into messages before the "
                "question, which is the last message of the user"
            )
        return tokens


def talk_of(messages: Sequence[Message], longest: int = LONGEST) -> Talk:
    """Cut messages into pieces.

    Args:
        messages: of a chat.
        longest: characters of a line up to which it is one piece.

    Raises:
        InvalidInput: there is no message, one is no mapping with a role and a content, or a result answers no call.

    >>> talk = talk_of([{"role": "user", "content": "One.\\nTwo."}, {"role": "user", "content": "Which?"}])
    >>> talk.texts, talk.question
    (['One.\\n', 'Two.'], 'Which?')
    >>> talk.keep([1])[0]
    {'role': 'user', 'content': 'Two.'}
    """
    if not isinstance(messages, Sequence):
        raise InvalidInput(f"the messages are of type {type(messages).__name__}; give a list of them")
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise InvalidInput(f"message {number} is {str(message)[:80]!r}; give a mapping with role and content")
        content = message.get("content")
        wrong = [part for part in content if not isinstance(part, str | Mapping)] if isinstance(content, list) else []
        if wrong or not isinstance(content, str | list | None):
            raise InvalidInput(
                f"message {number} has a content with {str((wrong or [content])[0])[:80]!r} of type "
                f"{type((wrong or [content])[0]).__name__}; give a text, a list of texts and parts, or None"
            )
    if not messages:
        raise InvalidInput("there are no messages to reduce; give at least the question")
    group = _groups(messages)
    asked = [n for n, message in enumerate(messages) if message["role"] == "user" and not _answered(message)]
    question, last = (asked or [len(messages) - 1])[-1], len(messages) - 1
    fixed = {n for n, message in enumerate(messages) if message["role"] in ("system", "developer")} | {question}
    if not _answered(messages[last]):  # what the model is to continue, or a call that still runs
        fixed.add(last)
    held = {n for n in range(len(messages)) if group[n] in {group[m] for m in range(question, last + 1)}} - fixed
    pieces: list[Piece] = []
    for number, message in enumerate(messages):
        if number not in fixed:
            pieces += _pieces(number, message, longest)
    spoken = {group[piece.message] for piece in pieces}
    for number in range(len(messages)):
        if number not in fixed | held and group[number] not in spoken:
            spoken.add(group[number])
            pieces.append(Piece("", number, _BARE))
    pieces.sort(key=lambda piece: piece.message)
    said = " ".join(_texts(messages[question]))
    return Talk(tuple(messages), tuple(pieces), tuple(group), frozenset(fixed), frozenset(held), said)


def cut(text: str, longest: int = LONGEST) -> list[str]:
    """A text in pieces: lines, and sentences of long lines. Joined they are the text.

    >>> cut("a b\\n\\nc. d e.", 3)
    ['a b\\n\\n', 'c. ', 'd ', 'e.']
    """
    found: list[str] = []
    for line in text.splitlines(keepends=True):
        for sentence in _SENTENCE.findall(line) if len(line.rstrip()) > longest else [line]:
            rest = sentence
            while len(rest.rstrip()) > longest:
                at = rest.rfind(" ", 0, longest) + 1 or longest
                found.append(rest[:at])
                rest = rest[at:]
            found.append(rest)
    joined: list[str] = []
    for piece in found:  # blanks alone go with what stands before them, or with the first text
        if joined and (not piece.strip() or not joined[-1].strip()):
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined


def _pieces(number: int, message: Message, longest: int) -> list[Piece]:
    content = message.get("content")
    parts = enumerate(content) if isinstance(content, list) else [(_WHOLE, content)]
    return [
        Piece(piece, number, place)
        for place, part in parts
        if (text := text_of(part)) is not None
        for piece in cut(text, longest)
    ]


def _texts(message: Message) -> list[str]:
    content = message.get("content")
    return [text for part in (content if isinstance(content, list) else [content]) if (text := text_of(part))]


def _with(message: Message, texts: Mapping[int, list[str]]) -> Message:
    """A message with other texts; what is no text stays."""
    content, changed = message.get("content"), dict(message)
    if isinstance(content, list):
        parts: list[Any] = []
        for place, part in enumerate(content):
            if (text := text_of(part)) is None:
                parts.append(part)
            elif kept := "".join(texts.get(place, ())):
                parts.append(part if kept == text else kept if isinstance(part, str) else {**part, "text": kept})
        changed["content"] = parts or (OMITTED if content else content)
    elif isinstance(content, str) and content:
        changed["content"] = "".join(texts.get(_WHOLE, ())) or ("" if _called(message) else OMITTED)
    return changed


def _blocks(message: Message, kind: str) -> list[Any]:
    content = message.get("content")
    blocks = content if isinstance(content, list) else []
    return [block for block in blocks if isinstance(block, Mapping) and block.get("type") == kind]


def _called(message: Message) -> list[str]:
    """Names of the calls that a message makes: ids of OpenAI's or Anthropic's, or the function of the older form."""
    calls = [call["id"] for call in message.get("tool_calls") or () if isinstance(call, Mapping) and "id" in call]
    calls += [block.get("id", "") for block in _blocks(message, "tool_use")]
    old = message.get("function_call")
    return calls + ([f"function {old.get('name')}"] if isinstance(old, Mapping) else [])


def _answered(message: Message) -> list[str]:
    """Names of the calls whose results a message has."""
    if message["role"] == "tool":
        return [str(message.get("tool_call_id", ""))]
    if message["role"] == "function":
        return [f"function {message.get('name')}"]
    return [block.get("tool_use_id", "") for block in _blocks(message, "tool_result")]


def _groups(messages: Sequence[Message]) -> list[int]:
    """The number of the first message of each message's group."""
    group, caller = list(range(len(messages))), dict[str, int]()
    for number, message in enumerate(messages):
        for name in _answered(message):
            if name not in caller:
                raise InvalidInput(
                    f"message {number} has the result of the call {name!r}, which no message before it makes"
                )
            joined = {group[number], group[caller[name]]}
            group = [min(joined) if home in joined else home for home in group]
        caller |= dict.fromkeys(_called(message), number)
    return group
