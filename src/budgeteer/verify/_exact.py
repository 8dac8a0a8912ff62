"""The same characters."""

from __future__ import annotations

import unicodedata


def exact(answer: str | None, reference: str) -> float:
    """1 when the texts are the same, white space around them and the encoding of accents aside; case counts.

    >>> exact(" Paris", "Paris"), exact("paris", "Paris"), exact("4.0", "4")
    (1.0, 0.0, 0.0)
    """
    return float(answer is not None and _plain(answer) == _plain(reference))


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()
