"""For the reference of the site: docstrings as Markdown that MkDocs draws as they were meant.

The first paragraph becomes one line. Sphinx roles such as ``:class:`Plan``` become code, examples (``>>>``) become code
blocks, and square brackets in the text, which are shapes and intervals here, do not become links.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:py:)?[a-z]+:`~?([^`]+)`")
CODE = re.compile(r"(``.+?``|`[^`]+`)")


def markdown(text: str) -> str:
    """A docstring as Markdown."""
    lines: list[str] = []
    example, indent = False, ""
    for line in text.splitlines():
        bare = line.strip()
        if bare.startswith(">>>") and not example:
            example, indent = True, line[: -len(line.lstrip())]
            lines.append(f"{indent}```pycon")
        elif not bare and example:
            example = False
            lines.append(f"{indent}```")
        lines.append(line if example else _prose(line))
    return "\n".join([*lines, f"{indent}```"] if example else lines)


def summed(text: str) -> str:
    """A docstring with its first paragraph, if it is plain text, in one line: lists of members show the first line."""
    first, blank, rest = text.partition("\n\n")
    plain = all(re.match(r"\w|[`(:]", line) for line in first.split("\n"))
    return (" ".join(first.split()) if plain else first) + blank + rest


def _prose(line: str) -> str:
    parts = CODE.split(ROLE.sub(r"`\1`", line))
    parts[::2] = [part.replace("[", "\\[") for part in parts[::2]]
    return "".join(parts)


class Docstrings(griffe.Extension):
    """Rewrites docstrings after they are read and before they are drawn."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of one module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(summed(obj.docstring.value))
