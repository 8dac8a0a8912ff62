"""The parts of a request whose bytes do not bound their tokens: pictures, files, searches, stored conversations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from budgeteer.metering.pictures import Picture, size_of
from budgeteer.metering.tools import client_tokens

_PICTURES = {
    "image_url": "image_url",
    "input_image": "image_url",
    "image": "source",
    "computer_screenshot": "image_url",
}
"""Types of parts that are a picture, and the field that holds it."""
_PLACES = ("image_url", "source", "file_id")
"""Fields of a part that may hold a picture or name it."""
_INSIDE = ("url", "data", "file_id")
"""The same for fields of the object in one of them."""
TEXT = frozenset({
    "text", "input_text", "output_text", "refusal", "thinking", "redacted_thinking", "reasoning_text", "summary_text",
    "message", "reasoning", "search_result", "function_call", "function_call_output", "custom_tool_call",
    "custom_tool_call_output", "tool_use", "tool_result", "computer_call", "computer_call_output", "local_shell_call",
    "local_shell_call_output", "shell_call", "shell_call_output", "apply_patch_call", "apply_patch_call_output",
})  # fmt: skip
"""Types of items and parts whose bytes bound their tokens. What a provider reads for any other type is not known."""
_USUAL = frozenset({
    "role", "content", "type", "text", "name", "id", "status", "tool_calls", "tool_call_id", "call_id", "arguments",
    "output", "refusal", "cache_control", "annotations", "logprobs", "reasoning", "reasoning_content", "thinking",
    "signature", "summary", "encrypted_content", "input", "tool_use_id", "is_error", "function_call", "parts", "source",
    "detail", "data", "title", "citations",
})  # fmt: skip
_SAYS = frozenset({"role", "content", "text", "parts", "output"})
"""Fields of what says something itself; without any of them and without a type, an id is a reference to an item."""
_MEDIA = frozenset({
    "image_url", "image", "images", "image_embeds", "image_pil", "audio", "audio_url", "audio_embeds", "input_audio",
    "video", "videos", "video_url", "video_embeds", "file", "files", "file_id", "file_ids", "file_url", "file_data",
    "attachments", "multimodal_data",
})  # fmt: skip
"""Fields of items and parts that may stand for far more than their bytes; some servers need no type beside them."""
HIDDEN = frozenset((
    "previous_response_id", "conversation", "prompt_id", "cached_content", "extra_body", "prompt_embeds", "image_data",
    "multimodal_data", "mm_processor_kwargs", "media_io_kwargs", "chat_template", "container", "mcp_servers",
    "thread", "web_search_options", "search_parameters", "enable_search", "enable_web_search", "search_options",
    "web_search",
))  # fmt: skip
"""Fields whose bytes bound nothing: they refer to stored, embedded, searched or fetched input, or to a template."""
CONTINUED, ITEM, THOUGHTS = "previous_response_id", "item_reference", "reasoning item"
"""What a request may refer to: a stored response, an item of one, and the thoughts of one. A reasoning item of a stored
response stands for all that was thought, though it shows only a summary."""
_SHORT = 64
"""Characters up to which the address of a picture is counted as text."""
_CITED = 4
"""The most tokens that the provider adds for each byte of a document with citations, to mark its sentences."""


@dataclass(slots=True)
class Unseen:
    """The parts of a request whose bytes do not bound their tokens.

    Attributes:
        pictures: the pictures, with their sizes where their data shows them.
        data: addresses and data of the pictures, which do not count as text.
        hidden: names of fields and types behind which there is input that the request does not show.
        added: tokens that the provider adds by itself: descriptions of tools that it defines, marks for citations.
        references: (what it is, id) of what the request refers to; ``hidden`` names each of them as well.
    """

    pictures: list[Picture] = field(default_factory=list)
    data: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    added: int = 0
    references: list[tuple[str, str]] = field(default_factory=list)

    def refer(self, name: str, id: Any) -> None:
        """Add a reference; it stays hidden input as long as nothing bounds it."""
        self.hidden.append(name)
        if isinstance(id, str) and id:
            self.references.append((name, id))


def given(value: Any) -> bool:
    """Whether a field that switches something on is there: by presence, since an empty object switches a search on.

    >>> [given(value) for value in ({}, True, {"mode": "auto"}, 0)]
    [True, True, True, True]
    >>> [given(value) for value in (None, False, "", [], {"mode": "off"}, {"enable": False})]
    [False, False, False, False, False, False]
    """
    if value is None or value is False or value == "" or value == []:
        return False
    if isinstance(value, Mapping) and len(value) == 1:
        return not (value.get("mode") == "off" or value.get("enable") is False or value.get("enabled") is False)
    return True


def unseen(request: Mapping[str, Any]) -> Unseen:
    """Collect pictures and hidden input from all that becomes part of the prompt.

    A picture counts as one only where items and parts of messages stand. Its address or data does not count as text;
    its other bytes do. A type, or a field, that may stand for more than its bytes is hidden input.
    """
    parts = Unseen()
    for name in ("messages", "input", "system", "instructions"):
        _walk(request.get(name), parts)
    for name in request.keys() & HIDDEN:
        if given(request[name]):
            parts.refer(name, request[name] if name == CONTINUED else None)
    prompt = request.get("prompt")
    if isinstance(prompt, Mapping) or (isinstance(prompt, list) and any(isinstance(part, Mapping) for part in prompt)):
        parts.hidden.append("prompt")  # a template stored with the provider, or one with pictures
    tools = request.get("tools")
    added = client_tokens(tools)
    if added is None:
        parts.hidden.append("tools that the provider runs")
    else:
        parts.added += added
    return parts


def _walk(value: Any, parts: Unseen) -> None:
    """Add to ``parts`` from messages, items and parts of any level."""
    if isinstance(value, list | tuple):
        for part in value:
            if not isinstance(part, str | int):
                _walk(part, parts)
    if type(value) is not dict and not isinstance(value, Mapping):
        return
    kind = value.get("type")
    if kind is None and value.get("image_url") is not None:
        kind = "image_url"
    own: tuple[str, ...] = ()
    if isinstance(kind, str) and kind in _PICTURES:
        own = _PLACES
        _picture(value, _PICTURES[kind], parts)
    elif kind == "document":
        _document(value, parts)
    elif kind == ITEM or (kind is None and "id" in value and not _SAYS & value.keys()):
        parts.refer(ITEM, value.get("id"))
    elif kind == "reasoning" and _is_stored(value):
        parts.refer(THOUGHTS, value["id"])
    elif kind is not None and not (isinstance(kind, str) and kind in TEXT):
        parts.hidden.append(str(kind)[:40])
    for name in value.keys() - _USUAL:
        if name in _MEDIA:
            if name not in own and value[name]:
                parts.hidden.append(name)
        elif (folded := str(name).casefold()) in _USUAL or folded in _MEDIA:
            parts.hidden.append(str(name))  # servers differ in whether it is the field that it looks like
    for name in ("content", "output", "parts"):
        if not isinstance(inner := value.get(name), str | None):
            _walk(inner, parts)


def _is_stored(item: Mapping[str, Any]) -> bool:
    """Whether a reasoning item stands for thoughts that the provider has stored: it has such an id, and shows none."""
    id = item.get("id")
    return isinstance(id, str) and id.startswith("rs_") and not (item.get("encrypted_content") or item.get("content"))


def _picture(part: Mapping[str, Any], usual: str, parts: Unseen) -> None:
    """Add a picture to ``parts``, and one of unknown size for each further place where another server may read it.

    Args:
        part: the part.
        usual: the field where its type has the picture.
        parts: what is added to.
    """
    place = part.get(usual)
    others = [Picture() for name in _PLACES if name != usual and part.get(name) is not None]
    parts.pictures += others
    if place is None and others:
        return
    data = _data(place)
    several = isinstance(place, Mapping) and sum(place.get(name) is not None for name in _INSIDE) > 1
    parts.pictures.append(Picture() if several else Picture(*size_of(data)))
    if len(data) > _SHORT:
        parts.data.append(data)


def _document(part: Mapping[str, Any], parts: Unseen) -> None:
    """Add a document to ``parts``: plain text and parts are shown, any other source is hidden."""
    source = part.get("source")
    kind = source.get("type") if isinstance(source, Mapping) else None
    if (
        not isinstance(source, Mapping)
        or kind not in ("text", "content")
        or source.keys() - {"type", "media_type", "data", "content"}
    ):
        parts.hidden.append("document")
        return
    inside = source.get("data" if kind == "text" else "content")
    if kind == "text" and not isinstance(inside, str):
        parts.hidden.append("document")
        return
    if not isinstance(inside, str):
        _walk(inside, parts)
    if given(part.get("citations")):
        parts.added += _CITED * len(str(inside).encode("utf-8", "surrogatepass"))


def _data(place: Any) -> str:
    """The address or the data of a picture, wherever providers put it; "" if there is none."""
    if isinstance(place, Mapping):
        place = place.get("url") or place.get("data")
    return place if isinstance(place, str) else ""
