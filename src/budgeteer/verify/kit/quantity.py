# ruff: noqa: RUF001, SIM905 -- signs as models write them; words as a list of words
"""Numbers with their units, read exactly or not at all."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction

from budgeteer.verify.kit import expression

_DIGITS = 400
"""Digits up to which a number is read."""
_EXPONENT = 400
_NUMBER = (
    r"(?:[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d{0,2}(?: \d{3})+|[1-9]\d{0,2}(?:'\d{3})+|0|[1-9]\d*)(?:\.\d*)?(?![\d,.])|\.\d+"
)
_SIGNED = re.compile(
    r"(?P<a>[-+]?) ?(?P<currency>US\$|[$€£¥₹]|(?:USD|EUR|GBP|JPY|INR)(?= ?[-+.\d]))? ?(?P<b>[-+]?) ?(?=[.\d])"
)
_MINUS = re.compile(r"(?:minus|negative) (?=[$€£¥₹.\da-z])", re.IGNORECASE)
_MIXED = re.compile(r"(0|[1-9]\d*) ([1-9]\d*) ?/ ?([1-9]\d*)(?![\d/.,])")
_FRACTION = re.compile(r"(0|[1-9]\d*) ?/ ?([1-9]\d*)(?![\d/.,])")
_POWER = re.compile(r"10 ?(?:\^|\*\*) ?(?:\{ ?([-+]?\d{1,4}) ?\}|([-+]?\d{1,4}))(?![\d.,^])")
_TIMES = re.compile(rf"({_NUMBER}) ?[×x*·] ?(?=10 ?(?:\^|\*\*))")
_SCIENTIFIC = re.compile(rf"({_NUMBER})[eE]([-+]?\d{{1,4}})(?![\w.,])")
_DECIMAL = re.compile(_NUMBER)
_PERCENT = re.compile(r" ?(?:%|percent|per cent)", re.IGNORECASE)
_MAGNITUDE = re.compile(r" ?(hundred|thousand|million|billion|trillion)(?![a-z])|k(?![a-zA-Z])", re.IGNORECASE)
_OF_MONEY = re.compile(r" ?(k|mn|m|bn|b|tn|t)(?![a-z])", re.IGNORECASE)
_MAGNITUDES = {
    "hundred": 2,
    "thousand": 3,
    "million": 6,
    "billion": 9,
    "trillion": 12,
    "k": 3,
    "m": 6,
    "mn": 6,
    "b": 9,
    "bn": 9,
    "t": 12,
    "tn": 12,
}
_NAMED = re.compile(r"(\\?[A-Za-z]+(?:_(?:\w|\{\w+\}))?) ?= ?(.+)")
_WORKED = re.compile(r"([\d .,+\-*/×·÷()^$%=]+)= ?(?=[^=]+$)")
_PLACES = re.compile(r"\$?-?[\d,]*\.(\d+)")
_BRACKETED = re.compile(r"\(([^()\[\]{},;]+)\)|\[([^()\[\]{},;]+)\]|\\?\{([^()\[\]{},;\\]+)\\?\}")
_DECADE = re.compile(r"[12]\d\d0'?s")
_WORDS = {
    word: n
    for n, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen".split()
    )
}
_TENS = {
    word: 10 * n for n, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), start=2)
}
_WORDS |= _TENS | {
    f"{tens}{between}{digit}": n + m
    for tens, n in _TENS.items()
    for digit, m in list(_WORDS.items())[1:10]
    for between in "- "
}

_PARTS = {
    word: n
    for n, words in enumerate(
        "half halves,third thirds,quarter quarters fourth fourths,fifth fifths,sixth sixths,seventh sevenths,"
        "eighth eighths,ninth ninths,tenth tenths".split(","),
        start=2,
    )
    for word in words.split()
}
_SPOKEN = {word: Fraction(n) for word, n in _WORDS.items()} | {
    f"{count}{between}{part}": Fraction(_WORDS.get(count, 1), n)
    for part, n in _PARTS.items()
    for count in ("a", *list(_WORDS)[1:10])
    for between in "- "
}
_SPOKEN["half"] = Fraction(1, 2)  # a third alone is an ordinal
"""Numbers and fractions in words."""

_UNITS = {
    "m": "meter meters metre metres", "km": "kilometer kilometers kilometre kilometres",
    "cm": "centimeter centimeters centimetre centimetres", "mm": "millimeter millimeters millimetre millimetres",
    "μm": "um", "nm": "", "inch": "in inches", "foot": "ft feet", "yard": "yd yards", "mile": "mi miles",
    "g": "gram grams", "kg": "kilogram kilograms kilo kilos", "mg": "milligram milligrams", "pound": "lb lbs pounds",
    "ounce": "oz ounces", "s": "sec secs second seconds", "ms": "millisecond milliseconds",
    "minute": "min mins minutes", "h": "hr hrs hour hours", "day": "days", "week": "weeks", "month": "months",
    "year": "yr yrs years", "l": "L liter liters litre litres", "ml": "mL milliliter milliliters",
    "°": "deg degree degrees", "°C": "", "°F": "", "rad": "radian radians", "J": "joule joules", "kJ": "",
    "W": "watt watts",
    "kW": "", "MW": "", "mW": "", "kWh": "", "V": "volt volts", "A": "amp amps", "N": "newton newtons", "Pa": "",
    "kPa": "", "Hz": "hertz", "kHz": "", "MHz": "", "GHz": "", "mol": "", "mph": "", "kph": "", "cal": "", "kcal": "",
    "KB": "", "MB": "", "GB": "", "TB": "", "$": "US$ USD usd dollar dollars", "€": "EUR eur euro euros",
    "£": "GBP gbp",
    "¥": "JPY jpy yen", "₹": "INR inr rupee rupees", "cent": "¢ cents",
}  # fmt: skip
_SIZES = {
    "m": {
        "km": "1000", "cm": "1/100", "mm": "1/1000", "μm": "1e-6", "nm": "1e-9", "inch": "0.0254", "foot": "0.3048",
        "yard": "0.9144", "mile": "1609.344",
    },
    "g": {"kg": "1000", "mg": "1/1000", "pound": "453.59237", "ounce": "28.349523125"},
    "s": {"ms": "1/1000", "minute": "60", "h": "3600", "day": "86400", "week": "604800"},
    "l": {"ml": "1/1000"}, "J": {"kJ": "1000", "kWh": "3600000"}, "W": {"kW": "1000", "MW": "1e6", "mW": "1/1000"},
    "Pa": {"kPa": "1000"}, "Hz": {"kHz": "1000", "MHz": "1e6", "GHz": "1e9"}, "cal": {"kcal": "1000"},
    "$": {"cent": "1/100"}, "month": {"year": "12"},
}  # fmt: skip
_SIZE = {unit: (Fraction(size), base) for base, units in _SIZES.items() for unit, size in units.items()} | {
    "mph": (Fraction("1609.344") / 3600, "m/s"),
    "kph": (Fraction(1000, 3600), "m/s"),
}
"""Unit -> how many of another one it is, exactly. Bytes (1,000 or 1,024) and degrees (no common zero) are left out."""
_CANONICAL = {alias: unit for unit, others in _UNITS.items() for alias in (unit, *others.split())}
ALTERS = frozenset(
    # other numbers, parts and multiples
    "half halves third thirds quarter quarters fourth fourths fifth fifths sixth seventh eighth ninth tenth hundred "
    "hundreds thousand thousands million millions billion billions trillion trillions dozen dozens gross score scores "
    "pair pairs couple couples trio trios brace grand lakh lakhs lac lacs crore crores myriad myriads googol googols "
    "mio mln bln percent percents percentage percentages percentile percentiles pct permille permil basis once twice "
    "thrice double triple quadruple treble quintuple sextuple single nil mega giga hecto micro nano "
    # operations, and what is left of them
    "times plus minus negative divided multiplied squared cubed doubled tripled quadrupled halved modulo mod base "
    "choose point power powers root roots exponent factorial factorials remainder remainders rest inverse reciprocal "
    "factor log modulus complement conjugate prime repeating recurring binary octal decimal hex hexadecimal deficit "
    "debt overdrawn "
    # relations to another number, times of day
    "less more fewer greater smaller larger bigger higher lower than least most below above under over beneath beyond "
    "between about around roughly nearly almost approximately noon midnight oclock ago past till until before "
    # doubts and denials
    "or nor xor not no none never neither either but instead versus except unless without wrong incorrect false untrue "
    "maybe perhaps possibly probably likely hmm wait sorry actually rather although though however".split()
)
"""Words that make another number of the one beside them, or leave it open."""
_NO_UNIT = ALTERS | frozenset(
    "positive and to of within among through from into onto with for when while where which who because then if is are "
    "was were be been am has have had it its this that these those them they we you your our their his her my on in at "
    "by as so right correct true yes also too even again else only many few several some exactly up down off out away "
    "late early hence later earlier after since during".split()
)
_NO_NOUN = re.compile(
    r".*(?:(?:four|fif|six|seven|eigh|nin|ten|eleven|twelf|teen|tie|hundred|thousand|illion)ths?|illions?|fold|ed)"
)
"""Endings of words that change the number before them: billionths, tenfold, doubled."""
_PART = re.compile(r"([A-Za-zμ°$€£¥₹¢]+)(?:\^?\{?([1-9])\}?)?")


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number as somebody wrote it.

    Attributes:
        value: exact; a percentage is its value, 12 % = 0.12.
        unit: in one spelling, ``""`` where none was written.
        name: of the variable in ``x = 5``, else ``""``.
    """

    value: Fraction
    unit: str = ""
    name: str = ""

    def equals(self, other: Quantity) -> bool:
        """Equal numbers of the same unit, of units that are exact multiples (1,000 m, 1 km), or one of them without."""
        if self.name and other.name and self.name != other.name:
            return False
        if not self.unit or not other.unit or self.unit == other.unit:
            return self.value == other.value
        (a, unit), (b, others) = _in_base(self.unit), _in_base(other.unit)
        return unit == others and self.value * a == other.value * b


def _in_base(unit: str) -> tuple[Fraction, str]:
    """How many of the base units a unit is, part by part: ``km/h`` is 5/18 ``m/s``."""
    size, based = Fraction(1), []
    for factor in unit.split(" "):
        parts = []
        for position, part in enumerate(factor.split("/")):
            name, _, power = part.partition("^")
            of, base = _SIZE.get(name, (Fraction(1), name))
            exponent = int(power or 1)
            size *= of ** (-exponent if position else exponent)
            parts.append(base + (f"^{power}" if power else ""))
        based.append("/".join(parts))
    return size, " ".join(based)


def quantity(text: str) -> Quantity | None:
    """The number that a read text (:func:`budgeteer.verify.kit.text.read`) is; None where it is anything else.

    Read are 1,200 and 1 200, -0.5, minus 5, 3/4, 3 1/2, 1e5, 1.5 × 10^3, 12 %, $5, USD 5, $1.2M, 5 million, 42 apples,
    5 km/h, x = 5, (5), forty-two, and 3 + 4 = 7 if both sides agree, to the decimals that are written. Not read are
    codes with leading zeros, dates, times, ratios, ranges, lists and sums.

    >>> quantity("1,200"), quantity("12 %").value, quantity("5 km").unit
    (Quantity(value=Fraction(1200, 1), unit='', name=''), Fraction(3, 25), 'km')
    >>> [quantity(text) for text in ("12:30", "1,2,3", "007", "3-5", "5x", "5 or 6", "B1")]
    [None, None, None, None, None, None, None]
    """
    if len(text) > _DIGITS:
        return None
    if match := _BRACKETED.fullmatch(text):
        text = next(filter(None, match.groups())).strip()
    name = ""
    if match := _NAMED.fullmatch(text):
        name, text = match[1], match[2]
    if match := _WORKED.match(text):
        result = _plain(text[match.end() :])
        return result and _worked(match[1].split("="), result, text[match.end() :]) and replace(result, name=name)
    result = _plain(text)
    return result and replace(result, name=name)


def _worked(sides: list[str], result: Quantity, written: str) -> Quantity | None:
    """The result if it is what each side comes to, rounded to the decimals that are written."""
    places = _PLACES.match(written)
    within = Fraction(1, 2 * 10 ** len(places[1])) if places else Fraction(0)
    for side in sides:
        value = expression.value(side.replace("$", ""))
        if value is None or abs(value - result.value) > within:
            return None
    return result


def _plain(text: str) -> Quantity | None:
    """The number that a text without brackets, name and working is."""
    minus = _MINUS.match(text)
    text = text[minus.end() :] if minus else text
    if text.casefold() in _SPOKEN:
        return Quantity(_SPOKEN[text.casefold()] * (-1 if minus else 1))
    signs = _SIGNED.match(text)
    if signs is None or (signs["a"] and signs["b"]) or (minus and (signs["a"] or signs["b"])):
        return None
    body = _body(text, signs.end())
    if body is None:
        return None
    value, end = body
    rest = text[end:]
    if match := _PERCENT.fullmatch(rest):
        value, rest = value / 100, ""
    elif match := _MAGNITUDE.match(rest) or (_OF_MONEY.match(rest) if signs["currency"] else None):
        value, rest = value * 10 ** _MAGNITUDES[match[0].strip().casefold()], rest[match.end() :]
    currency = _CANONICAL[signs["currency"]] if signs["currency"] else ""
    unit = None if _DECADE.fullmatch(text) else _unit(rest) if rest else ""
    if unit is None or (unit and currency and unit != currency):
        return None
    return Quantity(-value if minus or "-" in (signs["a"], signs["b"]) else value, unit or currency)


def _body(text: str, at: int) -> tuple[Fraction, int] | None:
    """The number that begins at ``at`` and where it ends."""
    if match := _MIXED.match(text, at):
        whole, above, below = map(int, match.groups())
        return (whole + Fraction(above, below), match.end()) if above < below else None
    if match := _FRACTION.match(text, at):
        return Fraction(int(match[1]), int(match[2])), match.end()
    times = _TIMES.match(text, at)
    if power := _POWER.match(text, times.end() if times else at):
        exponent = int(power[1] or power[2])
        if abs(exponent) > _EXPONENT:
            return None
        return (_decimal(times[1]) if times else 1) * Fraction(10) ** exponent, power.end()
    if match := _SCIENTIFIC.match(text, at):
        exponent = int(match[2])
        return (_decimal(match[1]) * Fraction(10) ** exponent, match.end()) if abs(exponent) <= _EXPONENT else None
    if match := _DECIMAL.match(text, at):
        return _decimal(match[0]), match.end()
    return None


def _decimal(text: str) -> Fraction:
    whole, _, part = text.replace(",", "").replace(" ", "").replace("'", "").partition(".")
    return Fraction(int((whole + part) or "0"), 10 ** len(part))


def _unit(text: str) -> str | None:
    """The unit in one spelling; None where the text is none: ``or 6``, ``x``, ``:30``."""
    glued = not text.startswith(" ")
    words = text.strip().replace(" / ", "/").split(" ")
    if len(words) > 4:
        return None
    units = []
    for word in words:
        parts = []
        for part in word.split("/"):
            match = _PART.fullmatch(part)
            if match is None:
                return None
            unit = _CANONICAL.get(match[1]) or ("" if glued else _noun(match[1]))
            if not unit:
                return None
            parts.append(unit + (f"^{match[2]}" if match[2] else ""))
        units.append("/".join(parts))
    return " ".join(units).replace(" per ", "/")


def alters(word: str) -> bool:
    """Whether a word in small letters makes another number of the one beside it.

    >>> alters("dozen"), alters("billionths"), alters("tens"), alters("apples")
    (True, True, True, False)
    """
    singular = word[:-3] + "y" if word.endswith("ies") else word.removesuffix("s")
    numbers = (word, singular, word.removesuffix("es"))
    return word in ALTERS or any(form in _WORDS for form in numbers) or bool(_NO_NOUN.fullmatch(word))


def _noun(word: str) -> str:
    """What is counted, in the singular; names and words that change the number's meaning count nothing."""
    if len(word) < 3 or not word.islower() or not set(word) & set("aeiouy"):
        return ""
    if word in _NO_UNIT or alters(word):
        return ""
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("xes", "ches", "shes", "sses")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word
