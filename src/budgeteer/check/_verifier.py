"""The rules of verifiers."""

from __future__ import annotations

import random
import time

from budgeteer.check._common import CheckFailed
from budgeteer.verify import Verifier

REFERENCES = (
    "42", "-1.5", "3/4", "1,200", "12:30", "B", "[1, 2, 3]", "x^2 + 1", "\\frac{1}{2}", "Paris", "5 km", "$1.20",
    "yes, all of them", "\u00e9t\u00e9", "50%",
)  # fmt: skip
JUNK = (
    "",
    " ",
    "\n",
    "\x00",
    "zqx?",
    "((((",
    "1/0",
    "\\frac{1}{",
    "nan",
    "inf",
    "-",
    "9e999999999",
    "9^9^9^9^9",
    "\ud83d\ude00",
)
LONG = ("9", "(", "1+", "\\frac{", "a ", "1/", "-", "[1, ", "2^", "\n", ",")
LENGTH = 20_000
SECONDS = 20.0
"""That one call may take; what it has to show is that it ends, whatever the text."""


def check_verifier(verifier: Verifier, *, rounds: int = 300, seed: int = 0) -> None:
    """Compare answers of all sorts with references, and raise :class:`CheckFailed` at the first broken rule.

    Rules: the score is a number in [0, 1]; no answer (None) is wrong, the same text is right, and text that cannot be
    read is not right; nothing is raised, whatever the text; the same pair has the same score; and a text of 20,000
    characters is compared within 20 seconds.

    Args:
        verifier: the verifier to check.
        rounds: how many random texts.
        seed: of those.
    """
    for reference in REFERENCES:
        if _score(verifier, None, reference) != 0:
            raise CheckFailed(f"no answer is right for {reference!r}; None has a score of 0")
        if _score(verifier, reference, reference) != 1:
            raise CheckFailed(f"{reference!r} is not right for {reference!r}; the same text is right")
        for junk in JUNK:
            if _score(verifier, junk, reference) == 1:
                raise CheckFailed(f"{junk!r} is right for {reference!r}; in doubt an answer is wrong")
    rng = random.Random(seed)
    letters = "".join(REFERENCES) + "".join(JUNK) + "\\{}()^_*/+-=,.;:!<>|&%$#@~"
    for _ in range(rounds):
        text = "".join(rng.choices(letters, k=rng.randrange(40)))
        _score(verifier, text, rng.choice(REFERENCES))
        _score(verifier, rng.choice(REFERENCES), text)
    for unit in LONG:
        text = (unit * (LENGTH // len(unit) + 1))[:LENGTH]
        for answer, reference in ((text, "42"), ("42", text), (text, text[:-1])):
            begin = time.monotonic()
            _score(verifier, answer, reference)
            if time.monotonic() - begin > SECONDS:
                raise CheckFailed(f"{LENGTH:,} characters of {unit!r} took more than {SECONDS:g} s; bound the work")


def _score(verifier: Verifier, answer: str | None, reference: str) -> float:
    shown = f"{answer if answer is None else answer[:60]!r} and {reference[:60]!r}"
    try:
        score, again = verifier(answer, reference), verifier(answer, reference)
    except Exception as error:
        raise CheckFailed(f"{shown} raised {type(error).__name__}: {error}; what cannot be read is wrong") from error
    if not isinstance(score, float | int) or not 0 <= score <= 1:
        raise CheckFailed(f"{shown} have a score of {score!r}; scores are in [0, 1]")
    if score != again:
        raise CheckFailed(f"{shown} have a score of {score} and then of {again}; the same pair has the same score")
    return float(score)
