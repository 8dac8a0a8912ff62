"""Stop texts, and which part of a growing text can be shown already."""

from __future__ import annotations

from collections.abc import Sequence


def until(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """(the text before the first stop text, whether there is one).

    >>> until("7+5=12\\n?", ("?", "\\n"))
    ('7+5=12', True)
    """
    places = [at for stop in stops if stop and (at := text.find(stop)) >= 0]
    return (text[: min(places)], True) if places else (text, False)


def whole(text: str, stops: Sequence[str]) -> int:
    """Length of what can be shown of a text: whole characters that cannot begin a stop text.

    >>> whole("7+5=1</th", ("</think>",))
    5
    """
    end = len(text.rstrip("\ufffd"))
    for stop in stops:
        begun = (len(text) - k for k in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:k]))
        end = min(end, next(begun, end))
    return end
