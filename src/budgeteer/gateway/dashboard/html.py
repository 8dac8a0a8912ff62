"""Build HTML from templates; every value that is not of type Html is escaped, so that escaping cannot be forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from string import Template
from urllib.parse import urlencode

from budgeteer.draw.svg import clean

_NARROW, _NARROW_TEXTS = 6, 3
"""Columns, and columns of text, that fit beside each other on a phone."""


class Html(str):
    """A string that is HTML, so that it is not escaped."""

    __slots__ = ()


def safe(value: object) -> Html:
    """A value as HTML: unchanged if it is Html, else escaped; None becomes "".

    >>> safe('<b>'), safe(Html('<b>')), safe(None)
    ('&lt;b&gt;', '<b>', '')
    """
    return value if isinstance(value, Html) else Html("" if value is None else clean(value))


def join(parts: Iterable[object], between: str = "") -> Html:
    """Parts joined to one piece of HTML; they are escaped, but ``between`` is not."""
    return Html(between.join(safe(part) for part in parts))


def tag(form: str, /, **values: object) -> Html:
    """HTML with ``$names`` replaced by values, which are escaped.

    >>> tag('<i title="$t">$x</i>', t='"', x='<')
    '<i title="&quot;">&lt;</i>'
    """
    return Html(Template(form).substitute({name: safe(value) for name, value in values.items()}))


def page(name: str, /, **values: object) -> Html:
    """A template of this package with its ``$names`` replaced by values, which are escaped."""
    return Html(_template(name).substitute({key: safe(value) for key, value in values.items()}))


def narrow(name: str, title: str, /, *, head: Html | None = None, **values: object) -> Html:
    """A whole page of one column, without the menu: a template inside the frame of those that are seen before and after
    a session.

    Args:
        name, values: of :func:`page`.
        title: of the window.
        head: further elements of the head.
    """
    return page("narrow", title=title, head=head or Html(""), inner=page(name, **values))


@cache
def _template(name: str) -> Template:
    return Template(asset(f"templates/{name}.html").decode())


@cache
def asset(path: str) -> bytes:
    """The bytes of a file of this package."""
    return resources.files(__package__).joinpath(path).read_bytes()


def link(text: object, path: str, /, **query: object) -> Html:
    """A link within the dashboard; empty values are left out of its query."""
    asked = urlencode({name: value for name, value in query.items() if value not in (None, "")})
    return tag('<a href="$to">$text</a>', to=f"{path}?{asked}" if asked else path, text=text)


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], empty: str, numbers: Iterable[str] = ()) -> Html:
    """A table that scrolls sideways if it is too wide; without rows, the text ``empty``.

    One with many columns is a list of its rows on a phone, each cell below the other with its heading.

    Args:
        heads: the columns' headings.
        rows: the cells of each row, one a heading.
        empty: what is shown if there are no rows.
        numbers: the headings of columns that are aligned to the right.
    """
    if not rows:
        return tag('<p class="note">$empty</p>', empty=empty)
    right = [' class="n"' if head in numbers else "" for head in heads]
    top = "".join(f'<th scope="col"{css}>{safe(head)}</th>' for head, css in zip(heads, right, strict=True))
    wide = len(heads) > _NARROW or right.count("") > _NARROW_TEXTS
    named = [f'{css} data-head="{safe(head)}"' if wide else css for head, css in zip(heads, right, strict=True)]
    body = "".join(
        "<tr>" + "".join(f"<td{about}>{safe(cell)}</td>" for cell, about in zip(row, named, strict=True)) + "</tr>"
        for row in rows
    )
    css = ' class="wide"' if wide else ""
    # Focusable, so that the keyboard can scroll it.
    return Html(
        f'<div class="scroll" tabindex="0"><table{css}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def pages(path: str, entries: int, first: int, rows: int, /, **query: object) -> Html:
    """Links to the previous and the next page of a list.

    Args:
        path: of the list.
        entries: how many it has.
        first: the first that is shown, from 0.
        rows: entries on a page.
        query: what the list was asked for.
    """
    number = first // rows + 1
    links = []
    if first > 0:
        links.append(link("previous", path, **query, page=number - 1))
    if first + rows < entries:
        links.append(link("next", path, **query, page=number + 1))
    if not links:
        return Html("")
    where = tag('<span class="sub">$a to $b of $n</span>', a=first + 1, b=min(entries, first + rows), n=f"{entries:,}")
    return join([*links, where], " ")


def options(among: Iterable[tuple[str, str]], chosen: str) -> Html:
    """The options of a select element: (value, text) of each; ``chosen`` is the value that is selected."""
    return join(
        tag(
            '<option value="$value"$on>$text</option>',
            value=value,
            on=Html(" selected" if value == chosen else ""),
            text=text,
        )
        for value, text in among
    )
