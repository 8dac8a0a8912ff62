"""HTML out of templates: whatever is not marked as HTML is escaped, so that forgetting to escape cannot happen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from string import Template
from urllib.parse import urlencode

from budgeteer.draw.svg import clean


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def safe(value: object) -> Html:
    """A value as HTML: as it is if it is HTML, else escaped; None is empty.

    >>> safe('<b>'), safe(Html('<b>')), safe(None)
    ('&lt;b&gt;', '<b>', '')
    """
    return value if isinstance(value, Html) else Html("" if value is None else clean(value))


def join(parts: Iterable[object], between: str = "") -> Html:
    """Parts, one after the other."""
    return Html(between.join(safe(part) for part in parts))


def tag(form: str, /, **values: object) -> Html:
    """A piece of HTML with ``$names`` filled in.

    >>> tag('<i title="$t">$x</i>', t='"', x='<')
    '<i title="&quot;">&lt;</i>'
    """
    return Html(Template(form).substitute({name: safe(value) for name, value in values.items()}))


def page(name: str, /, **values: object) -> Html:
    """A template of this package, filled in."""
    return Html(_template(name).substitute({key: safe(value) for key, value in values.items()}))


@cache
def _template(name: str) -> Template:
    return Template(asset(f"templates/{name}.html").decode())


@cache
def asset(path: str) -> bytes:
    """A file of this package."""
    return resources.files(__package__).joinpath(path).read_bytes()


def link(text: object, path: str, /, **query: object) -> Html:
    """A link within the dashboard; what is empty is left out of its query."""
    asked = urlencode({name: value for name, value in query.items() if value not in (None, "")})
    return tag('<a href="$to">$text</a>', to=f"{path}?{asked}" if asked else path, text=text)


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], empty: str, numbers: Iterable[str] = ()) -> Html:
    """A table that scrolls sideways where it must; ``numbers`` are the heads of right-aligned columns."""
    if not rows:
        return tag('<p class="note">$empty</p>', empty=empty)
    right = [' class="n"' if head in numbers else "" for head in heads]
    top = "".join(f'<th scope="col"{css}>{safe(head)}</th>' for head, css in zip(heads, right, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{css}>{safe(cell)}</td>" for cell, css in zip(row, right, strict=True)) + "</tr>"
        for row in rows
    )
    # Focusable, so that it scrolls by keyboard.
    return Html(
        f'<div class="scroll" tabindex="0"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def options(among: Iterable[tuple[str, str]], chosen: str) -> Html:
    """The options of a select."""
    return join(
        tag(
            '<option value="$value"$on>$text</option>',
            value=value,
            on=Html(" selected" if value == chosen else ""),
            text=text,
        )
        for value, text in among
    )
