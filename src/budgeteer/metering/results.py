"""What tools return, cut to what an agent can still read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol

from budgeteer.core.bisection import largest

_NOTE = "\n[cut: {size:,} characters are more than the budget leaves room for]"


class Fitting(Protocol):
    """What decides how much of a result is let through."""

    def cut(self, text: str) -> str:
        """As much of a text as there is room for."""

    def whole(self, text: str) -> bool:
        """Whether there is room for all of a text, which then takes it."""


@dataclass(slots=True)
class Room:
    """How many bytes a call of a tool may still return, as JSON writes them.

    Attributes:
        left: bytes.
        taken: bytes that were let through.
    """

    left: int
    taken: int = 0

    def cut(self, text: str) -> str:
        """As much of a text as there is room for, with a note that some was left out where there is room for that.

        >>> Room(9).cut("long enough"), Room(90).cut("short"), Room(9).cut('"quoted" and more')
        ('long enou', 'short', '"quoted')
        """
        kept = text
        if len(text) > self.left or size_of(text) > self.left:
            note = _NOTE.format(size=len(text))
            if self.left < 2 * size_of(note):
                note = ""
            room = self.left - size_of(note)
            head = text[: max(0, room)]
            kept = head[: largest(lambda n: size_of(head[:n]) <= room, len(head))] + note
        size = size_of(kept)
        self.left, self.taken = self.left - size, self.taken + size
        return kept

    def whole(self, text: str) -> bool:
        """Whether there is room for all of a text, which then takes it."""
        size = size_of(text)
        if size > self.left:
            return False
        self.left, self.taken = self.left - size, self.taken + size
        return True


def size_of(text: str) -> int:
    """Bytes of a text inside JSON."""
    return len(json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogatepass")) - 2


def fitted(result: Any, room: Fitting) -> Any:
    """A result as it is if it fits, else as much of its text as does; of bytes always the text.

    >>> room = Room(30)
    >>> fitted({"a": 1}, room), fitted(b"\\xff\\xfe", room), fitted("x" * 99, room)
    ({'a': 1}, '[2 bytes that are no', '')
    """
    text = text_of(result)
    kept = room.cut(text)
    return result if kept == text and not isinstance(result, bytes | bytearray | memoryview) else kept


def text_of(result: Any) -> str:
    """The text that a model would read of a result; of bytes that are no text, how many they are."""
    if isinstance(result, str):
        return result
    if isinstance(result, bytes | bytearray | memoryview):
        data = bytes(result)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return f"[{len(data):,} bytes that are no text]"
    try:
        return json.dumps(result, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return str(result)
