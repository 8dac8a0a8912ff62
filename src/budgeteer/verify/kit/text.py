# ruff: noqa: RUF001 -- signs as models write them; words as a list of words
"""Texts without decoration: the first step of every verifier but ``exact``."""

from __future__ import annotations

import re
import unicodedata

LONGEST = 2000
"""Characters up to which an answer is read; longer ones are only compared as they are."""

_SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_RAISED = re.compile("[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_SAME = str.maketrans({
    "\u2212": "-", "\u2010": "-", "\u2011": "-", "\u2013": "-", "\u2044": "/", "\u2215": "/",
    **dict.fromkeys("\u00ad\u200b\u200e\u200f\u2060\ufe0e\ufe0f\ufeff"),  # not to be seen
    "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u00b5": "\u03bc",
})  # fmt: skip
_BOX = re.compile(r"\\f?boxed\s*\{")
_BOLD = re.compile(r"(?<![\w*])\*\*([^*]+)\*\*(?![\w*])")
_HEADED = re.compile(r"#{1,6} (?=\S)")
_SAID = re.compile(
    r"(?:^|[.!?;] )(?:(?:so|thus|hence|therefore|then),? )?(?:(?:the|my|our) )?(?:(?:final|correct|right) )?"
    r"(?:answer|result|solution)(?: (?:is|are)(?: |: ?)|: ?| = )",
    re.IGNORECASE,
)
_IS = re.compile(
    r"(?:(?:so|thus|hence|therefore|then),? )?"
    r"(?:it is|it's|this is|that is|that's|it equals|exactly|approximately|=|≈) ?",
    re.IGNORECASE,
)
_PAIRS = (
    ("**", "**"), ("__", "__"), ("*", "*"), ("_", "_"), ("`", "`"), ("$$", "$$"), ("$", "$"), ("\\(", "\\)"),
    ("\\[", "\\]"), ('"', '"'), ("'", "'"), ("\\text{", "}"), ("\\textbf{", "}"), ("\\mathbf{", "}"),
    ("\\mathrm{", "}"), ("\\mathit{", "}"), ("<answer>", "</answer>"),
)  # fmt: skip
_FRACTION = re.compile(r"\\[dtc]?frac ?(?:\{([^{}]*)\}|(\d)) ?(?:\{([^{}]*)\}|(\d))")
_WHOLE = re.compile(r"(-?) ?(\d+)")
_SIGN_HERE = re.compile(r"(?:.*[(\[{,;=<>≤≥])? ?", re.DOTALL)
_CONTENT = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|mathit|mbox|operatorname) ?\{([^{}]*)\}")
_LATEX = (
    (re.compile(r"\\(?:left|right|displaystyle|[bB]ig+[lr]?)(?![a-zA-Z])"), ""),
    (re.compile(r"\\!"), ""),
    (re.compile(r"\\[,;: ]|~|\\quad(?![a-zA-Z])|\\qquad(?![a-zA-Z])"), " "),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\([%$#&])"), r"\1"),
    (re.compile(r" ?\^ ?(?:\{ ?\\circ ?\}|\\circ(?![a-zA-Z]))|\\degree(?![a-zA-Z])"), "°"),
    (re.compile(r"\\times(?![a-zA-Z])"), "×"),
    (re.compile(r"\\cdot(?![a-zA-Z])"), "·"),
    (re.compile(r"\\infty(?![a-zA-Z])"), "∞"),
    (re.compile(r"\\(?:leq|leqslant|le)(?![a-zA-Z])"), "≤"),
    (re.compile(r"\\(?:geq|geqslant|ge)(?![a-zA-Z])"), "≥"),
    (re.compile(r"\\(?:neq|ne)(?![a-zA-Z])"), "≠"),
    (re.compile(r"\\lt(?![a-zA-Z])"), "<"),
    (re.compile(r"\\gt(?![a-zA-Z])"), ">"),
    (re.compile(r"\\pm(?![a-zA-Z])"), "±"),
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
)
_AROUND = re.compile(r" ?([:;/()\[\]{}=<>≤≥≠±^|]) ?| ([-+*]) (?=\S)")
_TIME = re.compile(r"0?(\d|1\d|2[0-4])((?::[0-5]\d){1,2}|(?= ?[ap]))(?: ?([ap])\.?m\.?)?")
_ARTICLE = re.compile(r"(?:the|an) (?=\S)|a (?!(?:minor|major|flat|sharp)\b)(?=\w\w)")


def clean(text: str) -> str:
    """One form for spaces, signs, fractions and raised digits.

    >>> clean(" 3½ m² − 1\\xa0200 ")
    '3 1/2 m^2 - 1 200'
    """
    if len(text) > LONGEST:
        return " ".join(text.split())
    text = _RAISED.sub(lambda match: "^" + match[0].translate(_SUPERSCRIPT), text)
    text = "".join(
        f" {unicodedata.normalize('NFKC', c)}" if unicodedata.decomposition(c).startswith("<fraction>") else c
        for c in text
    )
    return " ".join(unicodedata.normalize("NFKC", text).translate(_SAME).split())


def unwrap(text: str) -> str:
    r"""A clean text without what stands around it: ``The answer is``, ``\boxed``, bold, ``$``, quotes, a full stop.

    >>> unwrap("The answer is **42**."), unwrap(r"So $x$ is \boxed{\frac{1}{2}}."), unwrap("I think it is not 4")
    ('42', '\\frac{1}{2}', 'I think it is not 4')
    """
    if len(text) > LONGEST:
        return text
    for _ in range(6):
        before = text
        text = _boxed(text)
        text = _BOLD.sub(r"\1", text).strip()
        if match := _HEADED.match(text):
            text = text[match.end() :]
        if said := list(_SAID.finditer(text)):
            text = text[said[-1].end() :]
        if match := _IS.match(text):
            text = text[match.end() :] or text
        if text.endswith(".") and not text.endswith(".."):
            text = text[:-1].rstrip() or text
        for left, right in _PAIRS:
            inner = text[len(left) : len(text) - len(right)]
            if len(text) > len(left) + len(right) and text.startswith(left) and text.endswith(right):
                if left in inner or right in inner or (right == "}" and "{" in inner):
                    continue
                text = inner.strip() or text
        if text == before:
            break
    return text


def _boxed(text: str) -> str:
    """What stands in the box, where there is one, or several of the same content."""
    contents = set(boxes(text))
    return contents.pop() if len(contents) == 1 else text


def boxes(text: str) -> list[str]:
    r"""What the closed ``\boxed{}`` of a text hold, in their order.

    >>> boxes(r"\boxed{1}, \fboxed{ \frac{1}{2} } and \boxed{4")
    ['1', '\\frac{1}{2}']
    """
    contents = []
    for start in _BOX.finditer(text):
        depth = 1
        for i in range(start.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[i], 0)
            if not depth:
                contents.append(text[start.end() : i].strip())
                break
    return contents


def plain(text: str) -> str:
    r"""LaTeX as far as it is another way to write the same: spaces, ``\text``, degrees, signs, fractions of whole
    numbers.

    >>> plain(r"3\frac{1}{2}\text{ cm}"), plain(r"1{,}200\%"), plain(r"\dfrac34"), plain(r"\frac{x}{2}")
    ('3 1/2 cm', '1,200%', '3/4', '\\frac{x}{2}')
    """
    if "\\" not in text and "{,}" not in text and "~" not in text:
        return text
    for pattern, other in _LATEX:
        text = pattern.sub(other, text)
    text = _CONTENT.sub(r"\1", text)

    def fraction(match: re.Match[str]) -> str:
        above, below = (match[1] or match[2] or "").strip(), (match[3] or match[4] or "").strip()
        before, after = match.string[: match.start()], match.string[match.end() :]
        a, b = _WHOLE.fullmatch(above), _WHOLE.fullmatch(below)
        if a is None or b is None or after.startswith("^") or ((a[1] or b[1]) and not _SIGN_HERE.fullmatch(before)):
            return f"\\frac{{{above}}}{{{below}}}"
        sign = "-" if a[1] != b[1] else ""
        return (" " if before[-1:].isdigit() else "") + f"{sign}{a[2]}/{b[2]}"

    return " ".join(_FRACTION.sub(fraction, text).split())


def read(text: str) -> str:
    """The answer that a text gives, in a clean form."""
    return plain(unwrap(clean(text)))


def alike(text: str) -> str:
    """A read text in the form in which texts are compared: without case, a leading article and spaces around signs; a
    time of day in one spelling.

    >>> alike("12:30 p.m."), alike("09:05"), alike("The Hague")
    ('12:30 pm', '9:05', 'hague')
    """
    text = closed(text.casefold())
    if (at := time(text)) is not None:
        return at
    return _ARTICLE.sub("", text, count=1) if _ARTICLE.match(text) else text


def time(text: str) -> str | None:
    """A time of day in one spelling, None where a text without spaces around signs is none.

    >>> time("09:05"), time("12:30 P.M."), time("5pm"), time("9:65"), time("9")
    ('9:05', '12:30 pm', '5 pm', None, None)
    """
    match = _TIME.fullmatch(text.casefold())
    return match and match[1] + match[2] + (f" {match[3]}m" if match[3] else "")


def closed(text: str) -> str:
    """A text without the spaces around signs."""
    return _AROUND.sub(lambda match: match[1] or match[2], text)


def same(answer: str, reference: str) -> bool:
    """Whether two texts are the same without decoration, case and a leading article.

    >>> same("**Paris**.", "paris"), same("the Beatles", "Beatles"), same("vitamin A", "vitamin")
    (True, True, False)
    """
    return identical(answer, reference) or alike(read(answer)) == alike(read(reference))


def identical(answer: str, reference: str) -> bool:
    """Whether two texts are the same without decoration; case counts.

    >>> identical("$2X$", "2X"), identical("2X", "2x")
    (True, False)
    """
    return answer == reference or closed(read(answer)) == closed(read(reference))
