"""What several variants share."""

from __future__ import annotations

from budgeteer.core.errors import InvalidInput


def filled(text: str, **values: int | str) -> str:
    """``text`` with the values where their names stand in braces; other braces stay.

    Raises:
        InvalidInput: a name that does not stand there.

    >>> filled("Use {tokens} tokens for {x}.", tokens=40)
    'Use 40 tokens for {x}.'
    """
    for name, value in values.items():
        if "{" + name + "}" not in text:
            raise InvalidInput(f"the text {text!r} does not say {{{name}}}; write it where the value is to stand")
        text = text.replace("{" + name + "}", str(value))
    return text
