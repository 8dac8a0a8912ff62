"""Meters: a Usage becomes integer units of one kind, exactly and rounded up.

Kinds are ``all`` (input + output), ``output``, ``input``, any other bucket of :class:`budgeteer.Usage`, a weighted
formula over buckets such as ``input*0.1+output``, ``money`` (pico-dollars, through a price table), and the meters of
the registry (part ``meter``), which count what is no token: ``cache``, ``turns``, ``tool:search``, those of other
packages. Whoever does the work puts their counts into ``Usage.counts``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Protocol

from budgeteer.core.amounts import MONEY
from budgeteer.core.errors import InvalidInput, UnknownName
from budgeteer.core.usage import BUCKETS, PARTS, Usage

_TOKEN = re.compile(r"\s*(?:(?P<number>[0-9]{1,18}(?:\.[0-9]{1,18})?)|(?P<name>[a-z][a-z_]*)|(?P<op>[-+*/()]))")
_NAME = re.compile(r"[a-z][a-z_]*")
_COUNTED = re.compile(r"(?P<name>[a-z][a-z_]*)(:(?P<argument>[a-z0-9][a-z0-9_.-]{0,63}))?")
_LONGEST = 200
_Integers = tuple[tuple[tuple[str, int], ...], int]
"""Weights of buckets, and what their sum is divided by."""


class Prices(Protocol):
    """What money needs: the cost of a usage, and the most that one of these totals can cost, in pico-dollars; and which
    of a model's names is priced first."""

    def cost(self, usage: Usage, model: str, service: str = "") -> int: ...

    def worst(self, usage: Usage, model: str, service: str = "") -> int: ...

    def first_known(self, models: Sequence[str]) -> str: ...


class Meter(Protocol):
    """Turns a Usage into units of ``kind``.

    ``meter(usage, model, service)`` is what was consumed: a part that nobody reported counts as 0, an unknown
    ``input`` or ``output`` that the kind needs is an error. ``worst`` is the most that a usage of which only the totals
    are known can come to, whatever its parts turn out to be. ``service`` is the provider's class of service, such as
    ``"batch"``; only money looks at model and service.
    """

    @property
    def kind(self) -> str: ...

    def __call__(self, usage: Usage, model: str = "", service: str = "") -> int: ...

    def worst(self, usage: Usage, model: str = "", service: str = "") -> int: ...


@dataclass(frozen=True, slots=True)
class Tokens:
    """Units = ceil(sum of weight x bucket).

    Attributes:
        kind: name, or the formula as written by :func:`canonical`.
        weights: of the buckets; never such that a usage could come to less than 0.

    >>> Tokens.parse("(input*0.1)+output")(Usage(input=15, output=3))
    5
    """

    kind: str
    weights: Mapping[str, Fraction]
    _sum: _Integers = field(init=False, repr=False, compare=False)
    _most: _Integers = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        most = {
            whole: self.weights.get(whole, Fraction(0)) + _extra(self.weights, whole, 1)
            for whole in ("input", "output")
        }
        object.__setattr__(self, "_sum", _integers(self.weights))
        object.__setattr__(self, "_most", _integers({name: weight for name, weight in most.items() if weight}))

    @classmethod
    @lru_cache(maxsize=256)
    def parse(cls, text: str) -> Tokens:
        """The meter of ``all``, of a bucket or of a formula.

        Raises:
            InvalidInput: not a formula that is linear in the buckets, or one that can be negative.
            UnknownName: a single name, and not of a bucket.
        """
        name = text.strip().lower()
        if _NAME.fullmatch(name) and name not in ("all", *BUCKETS):
            raise UnknownName("bucket of tokens", name, ("all", *BUCKETS))
        weights = _linear(text)
        for whole in ("input", "output"):
            least = weights.get(whole, Fraction(0)) - _extra(weights, whole, -1)
            if least < 0:
                raise InvalidInput(
                    f"meter {text!r} can be negative, for a call that is all {whole}; subtract parts from their whole"
                )
        if not weights:
            raise InvalidInput(f"meter {text!r} is always 0; name at least one of all, {', '.join(BUCKETS)}")
        return cls(canonical(text), weights)

    def __call__(self, usage: Usage, model: str = "", service: str = "") -> int:
        return self._units(usage, *self._sum)

    def worst(self, usage: Usage, model: str = "", service: str = "") -> int:
        return self._units(usage, *self._most)

    def _units(self, usage: Usage, parts: tuple[tuple[str, int], ...], scale: int) -> int:
        total = 0
        for name, weight in parts:
            value = getattr(usage, name)
            if value is None and name not in PARTS:
                raise InvalidInput(f"{self.kind} cannot be measured: {name} of {usage!r} is unknown; give an estimate")
            total += weight * (value or 0)
        return max(0, -(-total // scale))


@dataclass(frozen=True, slots=True)
class Money:
    """Pico-dollars, through a price table."""

    prices: Prices

    @property
    def kind(self) -> str:
        return MONEY

    def __call__(self, usage: Usage, model: str = "", service: str = "") -> int:
        return self.prices.cost(usage, model, service)

    def worst(self, usage: Usage, model: str = "", service: str = "") -> int:
        return self.prices.worst(usage, model, service)


@dataclass(frozen=True, slots=True)
class Counted:
    """Units that somebody counted under this kind in ``Usage.counts``.

    >>> Counted("turns")(Usage(output=40, counts={"turns": 2}))
    2
    """

    kind: str

    def __call__(self, usage: Usage, model: str = "", service: str = "") -> int:
        units = dict(usage.counts).get(self.kind)
        if units is None:
            raise InvalidInput(
                f"{self.kind} cannot be measured: nobody counted it in {usage!r}; give "
                f"Usage(..., counts={{{self.kind!r}: units}})"
            )
        return units

    def worst(self, usage: Usage, model: str = "", service: str = "") -> int:
        return self(usage)


def cache() -> Meter:
    """Tokens whose entries a KV cache keeps: the mean over its layers and heads, as :mod:`budgeteer.cache` has them."""
    return Counted("cache")


def bits() -> Meter:
    """Bits that numbers are stored in, such as those of a quantised cache or of weights."""
    return Counted("bits")


def tiles() -> Meter:
    """Tiles, or visual tokens, that an image is cut into."""
    return Counted("tiles")


def turns() -> Meter:
    """Turns of an agent: one an answer of its model."""
    return Counted("turns")


def joules() -> Meter:
    """Energy, in whole joules."""
    return Counted("joules")


def tool(name: str = "") -> Meter:
    """Calls of the tool of this name (``tool:search``), or of all tools (``tool``)."""
    return Counted(f"tool:{name}" if name else "tool")


def returned(name: str = "") -> Meter:
    """Bytes that all tools returned (``bytes``), or the tool of this name (``bytes:search``)."""
    return Counted(f"bytes:{name}" if name else "bytes")


def meter(kind: str, prices: Prices | None = None) -> Meter:
    """The meter of a kind of budget.

    A kind of the registry may have one argument after a colon: ``tool:search`` is the meter ``tool`` of ``"search"``.

    Raises:
        InvalidInput: ``money`` without prices, or a bad formula.
        UnknownName: a kind that is no bucket, no formula and no meter of the registry; the message lists them all.

    >>> meter("output")(Usage(input=15, output=3))
    3
    >>> meter("tool:search")(Usage(counts={"tool:search": 4, "turns": 1}))
    4
    """
    if kind == MONEY:
        if prices is None:
            raise InvalidInput("a money budget needs prices; give a price table, such as budgeteer.prices.genai.load()")
        return Money(prices)
    match = _COUNTED.fullmatch(kind.strip().lower())
    if match is None or match["name"] in ("all", *BUCKETS):
        return Tokens.parse(kind)
    from budgeteer.core import registry  # most budgets are of tokens and need none of it

    try:
        factory = registry.load(registry.get("meter", match["name"]))
    except UnknownName:
        known = ("all", MONEY, *BUCKETS, *registry.of("meter"))
        raise UnknownName("kind of budget", match["name"], known) from None
    try:
        counted: Meter = factory(match["argument"]) if match["argument"] else factory()
    except TypeError as error:
        raise InvalidInput(f"kind of budget {kind!r}: the meter {match['name']} takes no argument ({error})") from error
    return counted


def meters(kinds: Iterable[str], prices: Prices | None = None) -> tuple[Meter, ...]:
    """One meter a kind, each kind once."""
    return tuple(meter(kind, prices) for kind in dict.fromkeys(kinds))


def used_by_agents(kind: str) -> bool:
    """Whether agents count a kind: ``turns``, and those of tools: ``tool``, ``tool:NAME``, ``bytes``, ``bytes:NAME``.

    >>> [used_by_agents(kind) for kind in ("turns", "tool:search", "all", "joules")]
    [True, True, False, False]
    """
    return kind.partition(":")[0] in ("turns", "tool", "bytes")


def canonical(kind: str) -> str:
    """A kind as it is printed: a name as it is, a formula with its buckets in the order of ``Usage``.

    >>> canonical("output + (input * 0.5)")
    'input*0.5+output'
    """
    text = kind.strip().lower()
    if _COUNTED.fullmatch(text):
        return text
    weights = _linear(text)
    terms = [(name, weights[name]) for name in BUCKETS if name in weights]
    terms.sort(key=lambda term: term[1] < 0)  # a formula may not begin with a minus
    shown = "".join(f"{'-' if weight < 0 else '+'}{name}{_times(abs(weight))}" for name, weight in terms)
    return shown.removeprefix("+") or "0"


def exact(number: Fraction) -> str | None:
    """A fraction of 0 or more in decimal digits, or None when it has no end.

    >>> exact(Fraction(1, 8)), exact(Fraction(30)), exact(Fraction(1, 3))
    ('0.125', '30', None)
    """
    denominator, digits = number.denominator, 0
    while denominator % 10 == 0:
        denominator, digits = denominator // 10, digits + 1
    while denominator % 5 == 0:
        denominator, digits = denominator // 5, digits + 1
    while denominator % 2 == 0:
        denominator, digits = denominator // 2, digits + 1
    if denominator != 1:
        return None
    whole, rest = divmod(int(number * 10**digits), 10**digits)
    return f"{whole}.{rest:0{digits}d}" if digits else str(whole)


def _times(weight: Fraction) -> str:
    if weight == 1:
        return ""
    decimal = exact(weight)
    if decimal is not None:
        return f"*{decimal}"
    return (f"*{weight.numerator}" if weight.numerator != 1 else "") + f"/{weight.denominator}"


def _integers(weights: Mapping[str, Fraction]) -> _Integers:
    """The same weights over one denominator: integers add up exactly, and many times as fast as fractions."""
    scale = math.lcm(*(weight.denominator for weight in weights.values()))
    return tuple((name, int(weight * scale)) for name, weight in weights.items()), scale


def _extra(weights: Mapping[str, Fraction], whole: str, sign: int) -> Fraction:
    """The most that a token's parts can add to the weight of ``whole`` (sign 1) or take from it (sign -1)."""

    def gain(part: str) -> Fraction:
        return sign * weights.get(part, Fraction(0))

    if whole == "output":
        alone = [gain("reasoning")]
        audio = gain("audio_output")
    else:
        alone = [gain("cached"), gain("written") + max(Fraction(0), gain("written_long"))]
        audio = gain("audio_input")
    return max(Fraction(0), *alone) + max(Fraction(0), audio)


_Form = dict[str, Fraction]
"""A linear form: bucket -> weight; the constant stands under ``""``."""


def _linear(text: str) -> _Form:
    """Parse ``sum := product (+|- product)*; product := atom (*|/ atom)*; atom := number | name | ( sum )``."""
    source = text.strip().lower()
    if len(source) > _LONGEST:
        raise InvalidInput(f"meter of {len(source)} characters is too long; write at most {_LONGEST}")
    tokens: list[tuple[str, str]] = []
    at = 0
    while at < len(source):
        match = _TOKEN.match(source, at)
        if match is None:
            raise InvalidInput(f"meter {text!r} has {source[at:].strip()[:8]!r}; write a formula as input*0.1+output")
        group = match.lastgroup or ""
        tokens.append((group, match[group]))
        at = match.end()
    form, rest = _sum(tokens, text)
    if rest:
        raise InvalidInput(f"meter {text!r} goes on with {rest[0][1]!r}; write a formula as input*0.1+output")
    if form.pop("", Fraction(0)):
        raise InvalidInput(f"meter {text!r} adds a constant; units are tokens, so weigh buckets: input*0.1+output")
    return {name: weight for name, weight in form.items() if weight}


def _sum(tokens: list[tuple[str, str]], text: str) -> tuple[_Form, list[tuple[str, str]]]:
    left, tokens = _product(tokens, text)
    while tokens and tokens[0][1] in "+-":
        sign = 1 if tokens[0][1] == "+" else -1
        right, tokens = _product(tokens[1:], text)
        left = {name: left.get(name, Fraction(0)) + sign * right.get(name, Fraction(0)) for name in {**left, **right}}
    return left, tokens


def _product(tokens: list[tuple[str, str]], text: str) -> tuple[_Form, list[tuple[str, str]]]:
    left, tokens = _atom(tokens, text)
    while tokens and tokens[0][1] in "*/":
        op = tokens[0][1]
        right, tokens = _atom(tokens[1:], text)
        if op == "*" and set(left) <= {""}:
            left, right = right, left
        factor = right.get("", Fraction(0))
        if set(right) > {""} or set(right) - {""}:
            raise InvalidInput(f"meter {text!r} multiplies or divides by tokens; weigh each bucket by a number")
        if op == "/" and factor == 0:
            raise InvalidInput(f"meter {text!r} divides by 0")
        left = {name: weight * factor if op == "*" else weight / factor for name, weight in left.items()}
    return left, tokens


def _atom(tokens: list[tuple[str, str]], text: str) -> tuple[_Form, list[tuple[str, str]]]:
    if not tokens:
        raise InvalidInput(f"meter {text!r} ends too early; write a formula as input*0.1+output")
    (group, value), rest = tokens[0], tokens[1:]
    if group == "number":
        return {"": Fraction(value)}, rest
    if group == "name":
        if value == "all":
            return {"input": Fraction(1), "output": Fraction(1)}, rest
        if value not in BUCKETS:
            raise InvalidInput(f"meter {text!r}: {UnknownName('bucket', value, BUCKETS)}")
        return {value: Fraction(1)}, rest
    if value == "(":
        inner, rest = _sum(rest, text)
        if rest and rest[0][1] == ")":
            return inner, rest[1:]
        raise InvalidInput(f"meter {text!r} has an open parenthesis")
    raise InvalidInput(f"meter {text!r} has {value!r} where a number or a bucket belongs, as in input*0.1+output")
