# ruff: noqa: RUF001, SIM905 -- signs as models write them; words as a list of words
r"""Expressions by their values: two are equal if they agree wherever they are tried.

An expression, in LaTeX or as typed (``\frac{x}{2}``, ``sqrt(2)/2``, ``2^10``), is parsed and evaluated at fixed points
that look random. Rational functions are evaluated in exact fractions, so that for them agreement is an identity but for
a chance below 10^-12; roots, logarithms and so on in complex floating-point numbers. Nothing is searched or simplified:
the work is bounded by the length of the text, needs no library, signal or process, and may be done in any thread.
"""

from __future__ import annotations

import cmath
import hashlib
import math
import operator
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

Value = Fraction | complex

LONGEST = 300
"""Characters of an expression that is read."""
_BITS = 20_000
_DEPTH = 40
_POINTS = 6
_ENOUGH = 4
_CANCELLED = 1e6
"""A value so many times smaller than the terms of its sums is rounding error, and not known."""
_ANGLE = 1e6
"""Largest argument of a trigonometric function: beyond, a float no longer says where on the circle it is."""
_PERIODIC = frozenset("sin cos tan sec csc cot".split())

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)|(?P<name>\\[A-Za-z]+|[A-Za-z]+|[πθαβγλμσω√])"
    r"|(?P<sign>\*\*|[-+*/^(){}\[\]×·÷_%=]))"
)
_GREEK = {
    "π": "pi",
    "θ": "theta",
    "α": "alpha",
    "β": "beta",
    "γ": "gamma",
    "λ": "lambda",
    "μ": "mu",
    "σ": "sigma",
    "ω": "omega",
    "√": "sqrt",
}
_SYMBOLS = frozenset(
    "alpha beta gamma delta epsilon theta lambda mu nu rho sigma tau phi psi omega Delta Omega".split()
)
_FUNCTIONS: dict[str, Callable[[complex], complex]] = {
    "sin": cmath.sin, "cos": cmath.cos, "tan": cmath.tan, "sinh": cmath.sinh, "cosh": cmath.cosh, "tanh": cmath.tanh,
    "arcsin": cmath.asin, "arccos": cmath.acos, "arctan": cmath.atan, "asin": cmath.asin, "acos": cmath.acos,
    "atan": cmath.atan, "ln": cmath.log, "exp": cmath.exp,
    "sec": lambda x: 1 / cmath.cos(x), "csc": lambda x: 1 / cmath.sin(x), "cot": lambda x: 1 / cmath.tan(x),
    # the base of a bare log is not known: in a base that nobody uses log 100 is not 2, and log 4 is still 2 log 2
    "log": lambda x: 0.7316309857 * cmath.log(x),
}  # fmt: skip


class _Unreadable(Exception):
    """Not an expression, or one whose value is not known."""


def is_expression(text: str) -> bool:
    r"""Whether a read text is clearly an expression: it parses, and holds a power, a root, a function, a constant or a
    variable beside a number or an operator. Words, codes and plain sums such as the score 3-1 do not count.

    >>> [is_expression(t) for t in (r"\frac{x}{2}", "2x + 1", "2^10", r"\sqrt{2}", "3-1", "cat", "B1", "x", "H2O")]
    [True, True, True, True, False, False, False, False, False]
    """
    try:
        tokens = _tokens(text)
        for side in _sides(tokens):
            _at(side, 0)
    except (_Unreadable, ArithmeticError, ValueError):
        return False
    signs = {word for kind, word in tokens if kind == "sign"}
    names = [word for kind, word in tokens if kind == "name"]
    known = [name for name in names if name in _FUNCTIONS or name in ("frac", "sqrt", "pi", "cdot", "times", "div")]
    numbers = any(kind == "number" for kind, _ in tokens)
    return bool(known or "^" in signs or (names and (numbers or signs & set("+*/="))))


def value(text: str) -> Fraction | None:
    """The exact value of an expression of numbers; None where it is another text, has variables or is not rational.

    >>> value("3 + 4"), value("2(1/2)^2"), value("x + 1"), value("pi"), value("1/0")
    (Fraction(7, 1), Fraction(1, 2), None, None, None)
    """
    try:
        tokens = _tokens(text)
        value, _ = _at(tokens, 0)
    except (_Unreadable, ArithmeticError, ValueError):
        return None
    return value if isinstance(value, Fraction) and all(kind != "name" for kind, _ in tokens) else None


def equal(a: str, b: str) -> bool:
    r"""Whether two read texts are expressions that agree at all points; equations agree side by side, and ``y = x + 1``
    agrees with ``x + 1``.

    >>> equal(r"\frac{x^2-1}{x-1}", "x+1"), equal("2(x+1)", "2x+2"), equal("sqrt(8)", r"2\sqrt{2}"), equal("x+1", "x+2")
    (True, True, True, False)
    """
    try:
        first, second = _sides(_tokens(a)), _sides(_tokens(b))
        if len(first) != len(second):
            longer = max(first, second, key=len)
            if len(longer) == 1 or len(longer[0]) != 1 or longer[0][0][0] != "name":
                return False
            first, second = first[-1:], second[-1:]
        return all(_agree(x, y) for x, y in zip(first, second, strict=True))
    except _Unreadable:
        return False


_Token = tuple[str, str]


def _tokens(text: str) -> list[_Token]:
    if len(text) > LONGEST:
        raise _Unreadable
    tokens: list[_Token] = []
    at = 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _Unreadable
        at = match.end()
        if word := match["number"]:
            if tokens and tokens[-1][0] in ("name", "number"):  # x2, H2O, 1 2: no product
                based = [word for _, word in tokens[-3:-1]] == ["log", "_"]  # log_2 8
                if not based and tokens[-1][1] not in ("frac", "sqrt", "cdot", "times", "div", *_FUNCTIONS):
                    raise _Unreadable
            tokens.append(("number", word.replace(",", "")))
        elif word := match["name"]:
            tokens += [("name", name) for name in _names(word, tokens)]
        else:
            sign = {"**": "^", "×": "*", "·": "*", "÷": "/"}.get(match["sign"], match["sign"])
            tokens.append(("sign", sign))
    if not tokens:
        raise _Unreadable
    return tokens


def _names(word: str, before: list[_Token]) -> list[str]:
    """A known name, or one or two variables: 2xy; longer runs of letters are words."""
    name = _GREEK.get(word, word.removeprefix("\\"))
    known = name in _FUNCTIONS or name in _SYMBOLS or name in ("pi", "sqrt")
    if known or (word.startswith("\\") and name in ("frac", "cdot", "times", "div")):
        return [name]
    if word.startswith("\\") or len(name) > 2 or (len(name) == 2 and not (before and before[-1][0] == "number")):
        raise _Unreadable
    return list(name)


def _sides(tokens: list[_Token]) -> list[list[_Token]]:
    sides: list[list[_Token]] = [[]]
    for token in tokens:
        if token == ("sign", "="):
            sides.append([])
        else:
            sides[-1].append(token)
    if len(sides) > 2 or not all(sides):
        raise _Unreadable
    return sides


def _agree(a: list[_Token], b: list[_Token]) -> bool:
    tried = 0
    for point in range(_POINTS):
        try:
            x, scale = _at(a, point)
            y, other = _at(b, point)
        except (ArithmeticError, ValueError):
            continue
        if isinstance(x, Fraction) and isinstance(y, Fraction):
            if x != y:
                return False
        else:
            x, y = _complex(x), _complex(y)
            if not (cmath.isfinite(x) and cmath.isfinite(y)):
                continue
            size = max(abs(x), abs(y))
            if max(scale, other) > _CANCELLED * size:
                return False
            # the smaller scale: an answer cannot widen the tolerance by large terms of its own
            if abs(x - y) > 1e-11 * size + 1e-14 * min(scale, other):
                return False
        tried += 1
    return tried >= _ENOUGH


def _at(tokens: list[_Token], point: int) -> tuple[Value, float]:
    """Value at a point, and the largest inexact term of its sums: their rounding error is a share of it.

    Raises:
        _Unreadable: the tokens are no expression.
        ArithmeticError, ValueError: it has no value here.
    """
    parser = _Parser(tokens, point)
    value = parser.sum(0)
    if parser.i != len(tokens):
        raise _Unreadable
    return value, parser.scale


def _complex(x: Value) -> complex:
    return complex(float(x)) if isinstance(x, Fraction) else x


def _variable(name: str, point: int) -> Fraction:
    """The value of a variable at a point: positive at the first, negative at the second, either at the others."""
    draw = int.from_bytes(hashlib.blake2b(f"{name} {point}".encode(), digest_size=8).digest(), "big")
    size = Fraction(10_007 + draw % 99_991, 30_011 + (draw >> 20) % 9_973)
    return -size if point == 1 or (point > 1 and draw >> 60 & 1) else size


class _Parser:
    """Evaluates while it parses: ``sum > product > sign > power > atom``."""

    def __init__(self, tokens: list[_Token], point: int) -> None:
        self.tokens, self.point, self.i, self.scale = tokens, point, 0, 0.0

    def seen(self, value: Value) -> Value:
        """The value, if it is not too long to go on with."""
        if isinstance(value, Fraction) and value.numerator.bit_length() + value.denominator.bit_length() > _BITS:
            raise OverflowError
        return value

    def peek(self) -> _Token:
        return self.tokens[self.i] if self.i < len(self.tokens) else ("end", "")

    def take(self, sign: str) -> bool:
        if self.peek() == ("sign", sign):
            self.i += 1
            return True
        return False

    def need(self, sign: str) -> None:
        if not self.take(sign):
            raise _Unreadable

    def sum(self, depth: int) -> Value:
        if depth > _DEPTH:
            raise _Unreadable
        value = self.product(depth)
        while self.peek() in (("sign", "+"), ("sign", "-")):
            plus = self.take("+") or not self.take("-")
            other = self.product(depth)
            if not (isinstance(value, Fraction) and isinstance(other, Fraction)):
                self.scale = max(self.scale, abs(_complex(value)), abs(_complex(other)))
            value = self.seen(_both(value, other, operator.add if plus else operator.sub))
        return value

    def product(self, depth: int) -> Value:
        value = self.signed(depth)
        while True:
            kind, word = self.peek()
            if kind == "sign" and word in "*/":
                self.i += 1
                other = self.signed(depth)
                divide = word == "/"
            elif kind == "name" and word in ("cdot", "times", "div"):
                self.i += 1
                other = self.signed(depth)
                divide = word == "div"
            elif kind == "name" or (kind == "sign" and word in "({[") or kind == "number":
                if kind == "number" and self.tokens[self.i - 1] not in (("sign", ")"), ("sign", "}"), ("sign", "]")):
                    raise _Unreadable
                other, divide = self.power(depth), False
            else:
                return value
            value = self.seen(_both(value, other, operator.truediv if divide else operator.mul))

    def signed(self, depth: int) -> Value:
        if depth > _DEPTH:
            raise _Unreadable
        if self.take("-"):
            return -self.signed(depth + 1)
        if self.take("+"):
            return self.signed(depth + 1)
        return self.power(depth)

    def power(self, depth: int) -> Value:
        if depth > _DEPTH:
            raise _Unreadable
        base = self.atom(depth)
        if self.take("%"):
            base = _both(base, Fraction(100), operator.truediv)
        if not self.take("^"):
            return base
        exponent = self.group(depth, "{", "}") if self.peek() == ("sign", "{") else self.short(depth)
        return self.seen(_power(base, exponent))

    def short(self, depth: int) -> Value:
        """An exponent without braces: x^2, x^-1, 2^3^2."""
        if self.take("-"):
            return -self.power(depth + 1)
        return self.power(depth + 1)

    def group(self, depth: int, left: str, right: str) -> Value:
        self.need(left)
        value = self.sum(depth + 1)
        self.need(right)
        return value

    def argument(self, depth: int) -> Value:
        """The argument of a LaTeX command: in braces, or one digit or letter."""
        if self.peek() == ("sign", "{"):
            return self.group(depth, "{", "}")
        return self.power(depth + 1)

    def atom(self, depth: int) -> Value:
        kind, word = self.peek()
        if kind == "number":
            self.i += 1
            return self.seen(Fraction(word))
        if kind == "sign" and word in "({[":
            return self.group(depth, word, {"(": ")", "{": "}", "[": "]"}[word])
        if kind != "name":
            raise _Unreadable
        self.i += 1
        if word == "frac":
            above = self.argument(depth)
            return self.seen(_both(above, self.argument(depth), operator.truediv))
        if word == "sqrt":
            root = self.group(depth, "[", "]") if self.peek() == ("sign", "[") else Fraction(2)
            inner = self.argument(depth)
            return self.seen(_power(inner, _both(Fraction(1), root, operator.truediv)))
        if word in _FUNCTIONS:
            return self.function(word, depth)
        if word == "pi":
            return self.seen(complex(math.pi))
        if word == "e":
            return self.seen(complex(math.e))
        if word == "i":
            return self.seen(1j)
        if word in ("cdot", "times", "div"):
            raise _Unreadable
        return self.seen(_variable(word + self.subscript(), self.point))

    def subscript(self) -> str:
        if not self.take("_"):
            return ""
        braces = self.take("{")
        kind, word = self.peek()
        if kind not in ("number", "name"):
            raise _Unreadable
        self.i += 1
        if braces:
            self.need("}")
        return "_" + word

    def function(self, name: str, depth: int) -> Value:
        base: Value | None = None
        exponent: Value = Fraction(1)
        if name == "log" and self.take("_"):
            base = self.argument(depth)
        if self.take("^"):
            exponent = self.argument(depth)
            if exponent == -1:  # the inverse, or one over it
                raise _Unreadable
        bracket = self.peek()[1] in "({[" and self.peek()[0] == "sign"
        inner = _complex(self.atom(depth + 1) if bracket else self.bare(depth + 1))
        if name in _PERIODIC:
            return self.seen(_power(_periodic(name, inner), exponent))
        value = cmath.log(inner) / cmath.log(_complex(base)) if base is not None else _FUNCTIONS[name](inner)
        return self.seen(_power(value, exponent))

    def bare(self, depth: int) -> Value:
        """An argument without brackets: as far as factors go that are numbers, constants or variables, sin 2x."""
        value = self.power(depth)
        while self.peek()[0] == "name" and self.peek()[1] not in (*_FUNCTIONS, "cdot", "times", "div", "frac", "sqrt"):
            value = _both(value, self.power(depth), operator.mul)
        return value


def _periodic(name: str, x: complex) -> Value:
    """A trigonometric function: exactly 0 where only rounding keeps it from being so, no value at a pole."""
    if abs(x) > _ANGLE:
        raise OverflowError
    value = _FUNCTIONS[name](x)
    if abs(value) > 1e14:
        raise ZeroDivisionError
    return Fraction(0) if abs(value) <= 4e-16 * abs(x) else value


def _both(x: Value, y: Value, operation: Callable[[Any, Any], Any]) -> Value:
    """Exact where both are, and where 0 is multiplied or divided; else in complex numbers."""
    if isinstance(x, Fraction) and isinstance(y, Fraction):
        return Fraction(operation(x, y))
    if operation is operator.mul and (x == 0 or y == 0):
        if not (cmath.isfinite(_complex(x)) and cmath.isfinite(_complex(y))):
            raise OverflowError
        return Fraction(0)
    if operation is operator.truediv and isinstance(x, Fraction) and x == 0 and y != 0:
        return Fraction(0)
    return complex(operation(_complex(x), _complex(y)))


def _power(x: Value, y: Value) -> Value:
    if isinstance(x, Fraction) and isinstance(y, Fraction):
        if y.denominator == 1:
            bits = max(x.numerator.bit_length(), x.denominator.bit_length())
            if abs(y) * bits > _BITS:
                raise OverflowError
            return Fraction(x ** int(y))
        if x >= 0 and y.numerator == 1:
            above, below = (_root(n, y.denominator) for n in (x.numerator, x.denominator))
            if above is not None and below is not None:
                return Fraction(above, below)
        if x < 0 and y.numerator == 1 and y.denominator % 2:  # the real root, as school has it
            return -_complex(_power(-x, y))
    return complex(_complex(x) ** _complex(y))


def _root(n: int, k: int) -> int | None:
    """The whole k-th root of n, None where it has none."""
    if k > 64:
        return None
    guess = math.isqrt(n) if k == 2 else round(n ** (1 / k)) if n.bit_length() < 1000 else -1
    return guess if guess >= 0 and guess**k == n else None
