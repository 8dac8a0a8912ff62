"""The one way to write a method or a task with its options: ``NAME:key=value,key=value``.

- The options begin after the first colon that ``key=`` follows; a key is a Python identifier and is given once.
- Commas separate options. A value that has commas is JSON: ``"a, b"``, ``[1, 2]``, ``{"a": 1}``.
- ``true``, ``false`` and ``none`` in any case are what they say; JSON is its value; anything else is text.
- Blanks around names, keys and values do not count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from budgeteer.core.errors import InvalidInput

HOW = "write NAME:key=value,key=value, each key once"
_OPTIONS = re.compile(r":(?=\s*[^\W\d]\w*\s*=)")
_OPTION = re.compile(r"\s*([^\W\d]\w*)\s*=")
_WORDS = {"true": True, "false": False, "none": None}


_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')


def blanked(text: str) -> str:
    """The text with a dot for each sign of what is quoted, to look for signs outside of that.

    >>> blanked('a:b="c+d"+e')
    'a:b=.....+e'
    """
    return _QUOTED.sub(lambda found: "." * len(found[0]), text)


@dataclass(frozen=True, slots=True)
class Spec:
    """A name with its options.

    Attributes:
        name: of a method, or where a task's problems come from.
        options: (key, value as it was written), in the order given; no key twice.
    """

    name: str
    options: tuple[tuple[str, str], ...] = ()

    @property
    def values(self) -> dict[str, Any]:
        """The options as Python values, see :func:`value_of`."""
        return {key: value_of(written) for key, written in self.options}

    def text(self, key: str) -> str | None:
        """One option as text, None where it is not given; ``"a, b"`` without its quotes.

        >>> parse('x.csv:question="a, b",answer=1.50', "task", source=True).text("answer")
        '1.50'
        """
        for name, written in self.options:
            if name == key:
                value = value_of(written)
                return value if isinstance(value, str) else written
        return None

    def given(self, **texts: str | None) -> Spec:
        """With these options, quoted where they have to be; None leaves an option as it is.

        >>> str(Spec("x.csv").given(question="a, b", answer=None))
        'x.csv:question="a, b"'
        """
        options = dict(self.options)
        for key, text in texts.items():
            if text is not None:
                options[key] = text if _reads_back(text) else json.dumps(text, ensure_ascii=False)
        return Spec(self.name, tuple(options.items()))

    def without(self, key: str) -> Spec:
        """The same without one option."""
        return Spec(self.name, tuple(option for option in self.options if option[0] != key))

    def plain(self) -> Spec:
        """The same with every value written in one way, so that specs of equal values are equal.

        >>> str(parse("duet: exact=False, rate = 0.50,n=8", "recipe").plain())
        'duet:exact=false,rate=0.5,n=8'
        """
        shown = {
            key: written if isinstance(value_of(written), str) else json.dumps(value_of(written))
            for key, written in self.options
        }
        return Spec(self.name, tuple(shown.items()))

    def __str__(self) -> str:
        options = ",".join(f"{key}={written}" for key, written in self.options)
        return f"{self.name}:{options}" if options else self.name


def parse(text: str, kind: str, *, source: bool = False) -> Spec:
    """Read one name with its options.

    Args:
        text: as it was given.
        kind: of what the text names, for messages, such as ``"strategy"``.
        source: the name says where something comes from, and may hold colons and commas: ``gym:lcm``, a path.

    Raises:
        InvalidInput: no name, several names, an option without a value, or a key given twice.

    >>> spec = parse("duet:stop_answered=false,thinned=true", "recipe")
    >>> spec.name, spec.values
    ('duet', {'stop_answered': False, 'thinned': True})
    >>> parse("gym:lcm:max_numbers=3", "task", source=True).name
    'gym:lcm'
    """
    begin = _OPTIONS.search(text)
    name = (text if begin is None else text[: begin.start()]).strip()
    if not name or (not source and "=" in name):
        wrong = "has no name before its options" if text.strip() else "is empty"
        raise InvalidInput(f"{kind} {text!r} {wrong}; {HOW}: budgeteer methods {kind} lists the names")
    if not source and "," in name:
        raise InvalidInput(f"{kind} {text!r} names {name.count(',') + 1} where one is wanted; {HOW}")
    if not source and ":" in name:
        raise InvalidInput(no_option(kind, text, name.partition(":")[2]))
    options: dict[str, str] = {}
    for piece in () if begin is None else _pieces(text[begin.end() :]):
        key, equals, written = (part.strip() for part in piece.partition("="))
        if not equals or not key.isidentifier():
            raise InvalidInput(no_option(kind, text, piece.strip()) + ", and a value with commas in quotes")
        if key in options:
            raise InvalidInput(f"{kind} {text!r} gives {key} twice; {HOW}")
        options[key] = written
    return Spec(name, tuple(options.items()))


def no_option(kind: str, text: str, rest: str) -> str:
    """The message about a part of a name that is no option."""
    return f"{kind} {text!r}: {rest!r} is no option; {HOW}"


def parse_all(text: str, kind: str) -> list[Spec]:
    """Read names with their options, separated by commas; ``key=value`` belongs to the name before it.

    Raises:
        InvalidInput: as :func:`parse`, for each of them.

    >>> [str(spec) for spec in parse_all("direct, vote:n=8,temperature=0.7, best", "strategy")]
    ['direct', 'vote:n=8,temperature=0.7', 'best']
    """
    texts: list[str] = []
    for piece in _pieces(text):
        if _OPTION.match(piece) and texts:
            texts[-1] += "," + piece
        else:
            texts.append(piece)
    return [parse(each.strip(), kind) for each in texts]


def value_of(text: str) -> Any:
    """An option's value: true, false, none in any case; JSON where it parses; else text.

    >>> [value_of(text) for text in ("False", "TRUE", "none", "0.5", "[1, 2]", "power")]
    [False, True, None, 0.5, [1, 2], 'power']
    """
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _pieces(text: str) -> Iterator[str]:
    """What commas separate; those inside a value that is JSON do not."""
    begin = 0
    while True:
        option = _option_at(text, begin)
        end = None if option is None else _json_end(text, option)
        if end is None:
            end = text.find(",", begin)
        if end < 0 or end >= len(text):
            yield text[begin:]
            return
        yield text[begin:end]
        begin = end + 1


def _option_at(text: str, begin: int) -> int | None:
    """Where the value of the option begins that a piece is, or that a name is followed by; None where there is none."""
    option = _OPTION.match(text, begin)
    if option is None:
        comma = text.find(",", begin)
        colon = _OPTIONS.search(text, begin, len(text) if comma < 0 else comma)
        option = None if colon is None else _OPTION.match(text, colon.end())
    return None if option is None else option.end()


def _json_end(text: str, begin: int) -> int | None:
    """Where the piece ends whose value begins here and is JSON in quotes or brackets; None for any other value."""
    while begin < len(text) and text[begin].isspace():
        begin += 1
    if text[begin : begin + 1] not in ('"', "[", "{"):
        return None
    try:
        _, end = json.JSONDecoder().raw_decode(text, begin)
    except (ValueError, RecursionError):
        return None
    while end < len(text) and text[end].isspace():
        end += 1
    return end if text[end : end + 1] in ("", ",") else None


def _reads_back(text: str) -> bool:
    """Whether an option's text needs no quotes."""
    value = value_of(text)
    return "," not in text and text == text.strip() and text != "" and (not isinstance(value, str) or value == text)
