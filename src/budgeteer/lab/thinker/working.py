"""Writes how a problem is worked: a quick first pass that errs in places, then passes that check it.

On purpose the first pass is imperfect, as a person's is: most facts are known, some are shaky, some mostly come out
wrong, and which ones is decided by a hash, so the model has firm wrong beliefs and greedy decoding errs, too. A pass
that checks goes through the same steps again, most of them slowly (columns of digits), a few with a glance that finds
nothing; which ones get only a glance differs from pass to pass. Where it finds an error, what follows is computed
anew. So more passes, that is longer thinking, find more of the errors; nothing else is put into the data to make that
true.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

SHAKY, WEAK = 0.15, 0.10
"""Shares of facts that are shaky, or mostly come out wrong."""
SLIPS = {"firm": 0.012, "shaky": 0.4, "weak": 0.8}
"""How often a fact of each kind comes out wrong in a quick pass."""
SLOW_SLIP = 0.004
"""How often a slow check comes out wrong."""
GLANCED, GLANCE_RATE, GLANCE_ELSE = 0.3, 0.85, 0.08
"""Share of facts that a pass mostly glances at; how often it does; how often it glances at others."""
DETOUR, FAILED_CALL = 0.04, 0.03
_DETOURS = (
    "Hmm, is there a shorter way? No.",
    "Hmm, do I need all of this? Yes.",
    "Let me read the question again. OK.",
    "Could it be a trick? No, go on.",
)
_CHECKS = ("Wait, let me check.", "Wait, once more.", "Wait, check again.")


@lru_cache(maxsize=65536)
def kind_of(fact: str) -> str:
    """How well a fact is known: firm, shaky or weak."""
    u = random.Random(f"known {fact}").random()
    return "weak" if u < WEAK else "shaky" if u < WEAK + SHAKY else "firm"


@lru_cache(maxsize=65536)
def _glance_rate(fact: str, number: int) -> float:
    return GLANCE_RATE if random.Random(f"glance {number % 4} {fact}").random() < GLANCED else GLANCE_ELSE


@dataclass(slots=True)
class Turn:
    """What the assistant thinks before it calls the tool or ends.

    Attributes:
        lines: of thinking.
        call: (record, attribute) that it asks the store for; None = the last turn.
        response: what the store answered.
    """

    lines: list[str] = field(default_factory=list)
    call: tuple[str, str] | None = None
    response: str = ""


@dataclass(slots=True)
class _Record:
    subject: tuple[Any, ...]
    value: Any


class Working:
    """One trace in the making; a problem's ``work`` calls it for every step.

    Args:
        rng: the trace's random stream.
        read: asks the store of the problem.
        sloppy: errs as described above; False = every step is right.
    """

    def __init__(
        self, rng: random.Random, read: Callable[[str, str], str] | None = None, *, sloppy: bool = True
    ) -> None:
        self.turns = [Turn()]
        self._rng, self._read, self._sloppy = rng, read, sloppy
        self._records: list[_Record] = []
        self._at = self._pass = 0

    def run(self, work: Callable[[Working], str], checks: int) -> str:
        """Work a problem and check it ``checks`` times; returns the answer that came out."""
        for self._pass in range(checks + 1):
            if self._pass:
                self.say(_CHECKS[min(self._pass, len(_CHECKS)) - 1])
            self._at = 0
            answer = work(self)
            del self._records[self._at :]
            self.say(f"So the answer is {answer}.")
        return answer

    def say(self, line: str) -> None:
        """Write a line."""
        self.turns[-1].lines.append(line)

    def calc(self, a: int, op: str, b: int, label: str = "") -> int:
        """``a op b`` of whole numbers that are not negative; op is one of ``+ - * / %``, a difference is 0 at least."""
        right = {
            "+": lambda: a + b,
            "-": lambda: max(0, a - b),
            "*": lambda: a * b,
            "/": lambda: a // b,
            "%": lambda: a % b,
        }
        value, sign = right[op](), " mod " if op == "%" else op
        fact = f"{op}{a % 10}{b % 10}"
        return int(
            self._step(
                (a, op, b),
                fact,
                f"{label}{a}{sign}{b}=",
                value,
                lambda rng: near(value, rng),
                lambda old: f"{old}? {slowly(a, op, b)}, ",
            )
        )

    def recall(self, fact: str, head: str, value: int, wrong: int, why: str) -> int:
        """A fact that is remembered, such as the days of a month; ``why`` is how one makes sure."""
        return int(self._step((fact,), fact, head, value, lambda _: wrong, lambda old: f"{old}? {why}, "))

    def larger(self, a: tuple[str, int], b: tuple[str, int], most: bool) -> tuple[str, int]:
        """Which of two named numbers is larger (or smaller, where ``most`` is False); the first of equal ones."""
        first = a[1] >= b[1] if most else a[1] <= b[1]
        right, wrong = (a, b) if first else (b, a)
        sign = "=" if a[1] == b[1] else ">" if a[1] > b[1] else "<"
        value = self._step(
            (a, b, most),
            f"larger {a[1] % 10}{b[1] % 10}",
            f"{a[0]} {a[1]}, {b[0]} {b[1]}: ",
            right[0],
            lambda _: wrong[0],
            lambda old: f"{old}? {a[1]}{sign}{b[1]}, ",
        )
        return a if value == a[0] else b

    def pick(self, left: Sequence[int], descending: bool) -> int:
        """Which of the numbers that are left (two or more, distinct) comes first in order."""
        order = sorted(left, reverse=descending)
        sign = ">" if descending else "<"

        def slow(old: int) -> str:
            other = order[1] if old == order[0] else order[0]
            first = (old > other) if descending else (old < other)
            return f"{old}? {old}{sign}{other}, " if first else f"{old}? {other}{sign}{old}, "

        fact = f"pick {order[0] % 10}{order[1] % 10}"
        return int(self._step((tuple(left),), fact, "Next: ", order[0], lambda _: order[1], slow))

    def fetch(self, record: str, attribute: str, others: Sequence[str]) -> str:
        """Ask the store; an error of the first pass asks for one of ``others`` instead."""
        subject = (record, attribute)
        known = self._records[self._at] if self._at < len(self._records) else None
        if self._pass and known is not None and known.subject == subject:
            asked, value = known.value
            head = f"{attribute} of {record}: "
            if self._glances(f"fetch {attribute}"):
                self.say(f"{head}{value} ok")
            elif asked == attribute:
                self.say(f"{head}{value}? I asked for {asked}, ok")
            else:
                self.say(f"{head}{value}? I asked for {asked}, no")
                known.value = attribute, self._ask(record, attribute)
        else:
            slips = bool(others) and self._slips(f"fetch {attribute}")
            asked = self._rng.choice(others) if slips else attribute
            self._put(_Record(subject, (asked, self._ask(record, asked))))
        self._at += 1
        return str(self._records[self._at - 1].value[1])

    def _ask(self, record: str, attribute: str) -> str:
        assert self._read is not None
        self.say(f"{attribute} of {record}?")
        if self._sloppy and self._rng.random() < FAILED_CALL:
            self._call(record, attribute + "s")
            self.say("That failed.")
            self.say(f"{attribute} of {record}?")
        value = self._call(record, attribute)
        self.say(f"{value}.")
        return value

    def _call(self, record: str, attribute: str) -> str:
        assert self._read is not None
        turn = self.turns[-1]
        turn.call, turn.response = (record, attribute), self._read(record, attribute)
        self.turns.append(Turn())
        return turn.response

    def _put(self, record: _Record) -> None:
        if self._at < len(self._records):
            self._records[self._at] = record
        else:
            self._records.append(record)

    def _slips(self, fact: str) -> bool:
        return self._sloppy and self._rng.random() < SLIPS[kind_of(fact)]

    def _glances(self, fact: str) -> bool:
        return self._sloppy and self._rng.random() < _glance_rate(fact, self._pass)

    def _step(
        self,
        subject: tuple[Any, ...],
        fact: str,
        head: str,
        right: Any,
        wrong: Callable[[random.Random], Any],
        slow: Callable[[Any], str],
    ) -> Any:
        """One step: quickly in the first pass, or where an error before it changed its subject; else a check."""
        known = self._records[self._at] if self._at < len(self._records) else None
        if not self._pass or known is None or known.subject != subject:
            # a weak fact comes out wrong in the same way every time, so that it is a belief and not noise
            if self._slips(fact):
                value = wrong(random.Random(f"belief {fact}") if kind_of(fact) == "weak" else self._rng)
            else:
                value = right
            self.say(f"{head}{value}")
            if not self._pass and self._sloppy and self._rng.random() < DETOUR:
                self.say(self._rng.choice(_DETOURS))
            self._put(_Record(subject, value))
        elif self._glances(fact):
            value = known.value
            self.say(f"{head}{value} ok")
        else:
            value = wrong(self._rng) if self._sloppy and self._rng.random() < SLOW_SLIP else right
            verdict = "ok" if value == known.value else "no"
            self.say(f"{head}{slow(known.value)}{value} {verdict}")
            known.value = value
        self._at += 1
        return value


def near(value: int, rng: random.Random) -> int:
    """A wrong number close to the right one: a forgotten or a needless carry, or one off."""
    choices = [n for n in (value - 10, value - 1, value + 1, value + 10) if n >= 0]
    return rng.choice(choices)


def slowly(a: int, op: str, b: int) -> str:
    """How a step is worked digit by digit.

    >>> slowly(47, "+", 38), slowly(105, "-", 38), slowly(47, "*", 3), slowly(96, "/", 4), slowly(45, "%", 7)
    ('7+8=15 4+3+1=8', '15-8=7 9-3=6 0-0=0', '7*3=21 4*3+2=14', '9/4=2 r1 16/4=4', '6*7=42 45-42=3')
    """
    if op == "%":
        return f"{a // b}*{b}={a // b * b} {a}-{a // b * b}={a % b}"
    if op == "/":
        return _divided(a, b)
    if op == "*":
        return _times(a, b)
    if op == "-":
        return _minus(a, b)
    return _plus(a, b)


def _digits(n: int, width: int) -> list[int]:
    return [n // 10**i % 10 for i in range(width)]


def _plus(a: int, b: int) -> str:
    width, carry, parts = max(len(str(a)), len(str(b))), 0, []
    for x, y in zip(_digits(a, width), _digits(b, width), strict=True):
        total = x + y + carry
        parts.append(f"{x}+{y}{'+1' if carry else ''}={total}")
        carry = total // 10
    return " ".join(parts)


def _minus(a: int, b: int) -> str:
    if a < b:
        return f"{a}<{b}"
    borrow, parts = 0, []
    for x, y in zip(_digits(a, len(str(a))), _digits(b, len(str(a))), strict=True):
        top = x - borrow
        borrow = int(top < y)
        top += 10 * borrow
        parts.append(f"{top}-{y}={top - y}")
    return " ".join(parts)


def _times(a: int, b: int) -> str:
    if b > 9:
        a, b = b, a
    carry, parts = 0, []
    for x in _digits(a, len(str(a))):
        total = x * b + carry
        parts.append(f"{x}*{b}{f'+{carry}' if carry else ''}={total}")
        carry = total // 10
    return " ".join(parts)


def _divided(a: int, b: int) -> str:
    rest, parts = 0, list[str]()
    for digit in str(a):
        top = rest * 10 + int(digit)
        if top < b and not parts:
            rest = top
            continue
        rest = top % b
        parts.append(f"{top}/{b}={top // b}{f' r{rest}' if rest else ''}")
    return " ".join(parts) or f"{a}/{b}=0 r{a}"
