"""Events of a stream that hold one piece of text and nothing else: most of them, so they are read by a short way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

_CHUNK = frozenset(
    ("id", "object", "created", "model", "system_fingerprint", "service_tier", "choices", "usage", "obfuscation",
     "provider")
)  # fmt: skip
_CHOICE = frozenset(("index", "delta", "text", "finish_reason", "native_finish_reason", "logprobs", "stop_reason"))
_TEXTS = frozenset(("content", "reasoning_content", "reasoning", "refusal", "text", "thinking"))
_BESIDE = frozenset(("role", "type"))
_BLOCK = frozenset(("type", "index", "delta"))
_RESPONSE = frozenset(
    ("type", "sequence_number", "item_id", "output_index", "content_index", "summary_index", "delta", "logprobs",
     "obfuscation")
)  # fmt: skip
TEXT_DELTAS = ("text.delta", "refusal.delta")
"""Ends of the names of the events of the Responses API that hold text, and nothing of a call of a tool."""
_PROBE = "probe"


class Delta(NamedTuple):
    """A piece of text: the choice, block or item that it belongs to, and the text."""

    key: Any
    text: str


def delta_in(operation: str, body: Mapping[str, Any]) -> Delta | None:
    """The piece of text of an event that has nothing else to say; None = it may say more, such as a usage, an error, an
    end or a call of a tool.

    >>> delta_in("chat", {"id": "c", "choices": [{"index": 0, "delta": {"content": "Hi"}}]})
    Delta(key=0, text='Hi')
    >>> delta_in("chat", {"id": "c", "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]})
    >>> delta_in("messages", {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hi"}})
    Delta(key=1, text='Hi')
    """
    if operation == "messages":
        if body.keys() != _BLOCK or body["type"] != "content_block_delta":
            return None
        return _piece(body["index"], body["delta"])
    if operation == "responses":
        kind, text = body.get("type"), body.get("delta")
        if not isinstance(kind, str) or not isinstance(text, str) or not body.keys() <= _RESPONSE:
            return None
        known = kind.startswith("response.") and kind.endswith(TEXT_DELTAS)
        return Delta((str(body.get("output_index")), kind), text) if known else None
    choices = body.get("choices")
    if not body.keys() <= _CHUNK or body.get("usage") is not None or type(choices) is not list or len(choices) != 1:
        return None
    choice = choices[0]
    if type(choice) is not dict or not choice.keys() <= _CHOICE or choice.get("finish_reason") is not None:
        return None
    if "text" in choice:
        text = choice["text"]
        return _piece(choice.get("index"), {"text": text}) if "delta" not in choice else None
    return _piece(choice.get("index"), choice.get("delta"))


def _piece(key: Any, part: Any) -> Delta | None:
    """The text of a delta that has one at most."""
    if type(part) is not dict or (type(key) is not int and key is not None):
        return None
    text = ""
    for name, value in part.items():
        if name in _TEXTS and type(value) is str:
            if value and text:
                return None
            text = text or value
        elif value is not None and name not in _BESIDE:
            return None
    return Delta(key or 0, text)


@dataclass(frozen=True, slots=True)
class Frame:
    """The bytes around the text of an event, which many servers repeat for each piece of a stream.

    Attributes:
        head, tail: the bytes before and after the text.
        key: what the text belongs to.
    """

    head: bytes
    tail: bytes
    key: Any

    def holds(self, event: bytes) -> bool:
        """Whether an event begins and ends as this frame does."""
        head, tail = self.head, self.tail
        return event.startswith(head) and event.endswith(tail) and len(event) >= len(head) + len(tail)

    def text(self, event: bytes) -> str | None:
        """The text of an event within this frame; None = another frame, or text that JSON writes with escapes."""
        if not self.holds(event):
            return None
        written = event[len(self.head) : len(event) - len(self.tail)]
        if b'"' in written or b"\\" in written:
            return None
        try:
            text = written.decode()
        except UnicodeDecodeError:
            return None
        return text if text.isprintable() else None


def frame_of(event: bytes, delta: Delta, read: Callable[[bytes], Delta | None]) -> Frame | None:
    """The frame of an event, if its text is written in it as it is.

    Args:
        event: its bytes.
        delta: its text.
        read: the delta of an event. It is shown the frame with another text, and has to find just that.

    >>> from json import loads
    >>> event = b'{"choices": [{"index": 0, "delta": {"content": "Hi"}}]}'
    >>> frame = frame_of(event, Delta(0, "Hi"), lambda data: delta_in("chat", loads(data)))
    >>> frame.text(event.replace(b"Hi", b" there")), frame.text(event.replace(b"Hi", b'"}, "usage": {"'))
    (' there', None)
    """
    written = b'"' + delta.text.encode("utf-8", "surrogatepass") + b'"'
    at = event.find(written)
    if at < 0 or not delta.text:
        return None
    frame = Frame(event[: at + 1], event[at + len(written) - 1 :], delta.key)
    if frame.text(event) != delta.text:
        return None
    same = read(frame.head + _PROBE.encode() + frame.tail) == Delta(delta.key, _PROBE)
    return frame if same else None
