"""How commands print texts that others wrote."""

from __future__ import annotations

import unicodedata


def printable(text: str, keep: str = "") -> str:
    r"""Text that cannot steer a terminal: control and format characters and lone surrogates are written as escapes.

    Args:
        text: any.
        keep: control characters that are left as they are.

    >>> printable("\x1b[31mred\n")
    '\\x1b[31mred\\n'
    """
    return "".join(
        letter.encode("unicode_escape").decode()
        if unicodedata.category(letter)[0] == "C" and letter not in keep
        else letter
        for letter in text
    )
