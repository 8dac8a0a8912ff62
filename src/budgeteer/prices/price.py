"""What one model costs: rates, tiers by prompt size, classes of service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from fractions import Fraction

from budgeteer.core.amounts import PICO
from budgeteer.core.errors import InvalidInput
from budgeteer.core.usage import MOST, Usage, count

PICO_A_TOKEN = 10**6
"""Pico-dollars a token at one dollar a million tokens."""
DEAREST = Decimal(10_000)
"""Dollars a million tokens. No model costs more; a price per million read as one per token does."""
FEES = ("web_search", "file_search", "code_session", "image", "picture_token", "character", "second", "search_unit")
"""What a provider may bill by the use: a search of the web, of stored files, a container that runs code, a picture that
is made; what a token of a picture that is read costs more than one of text; a character that is spoken, a second of
sound that is heard, a search unit of a reranker (a query with as many documents as its provider counts as one)."""
PICTURES = "images"
"""The class of service in which a model that is priced by the token makes pictures: their tokens have a rate of their
own."""
_DEAREST_FEE = Decimal(100)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Dollars per million tokens, as exact decimals. A kind of token without a rate has the rate of its side.

    Attributes:
        input, output: tokens of text, read and generated.
        cached, written, written_long: input tokens read from the prompt cache; written to it; written to stay an hour
            or more.
        reasoning: output tokens that are generated and not shown.
        audio_input, audio_output: audio tokens.
        request: dollars per million calls, whatever they use.
    """

    input: Decimal
    output: Decimal
    cached: Decimal | None = None
    written: Decimal | None = None
    written_long: Decimal | None = None
    reasoning: Decimal | None = None
    audio_input: Decimal | None = None
    audio_output: Decimal | None = None
    request: Decimal = Decimal(0)
    _pico: tuple[int | Fraction, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for f in fields(self):
            if not f.init:
                continue
            value = getattr(self, f.name)
            if value is None and f.name not in ("input", "output", "request"):
                continue
            if isinstance(value, bool) or not isinstance(value, Decimal | int):
                raise InvalidInput(
                    f"rate {f.name} is {value!r}; give a Decimal of dollars per million tokens, no float"
                )
            value = Decimal(value)
            if not value.is_finite() or value < 0:
                raise InvalidInput(f"rate {f.name} is {value}; give 0 or more dollars per million tokens")
            if value > DEAREST and f.name != "request":
                raise InvalidInput(
                    f"rate {f.name} is {value} dollars per million tokens, above {DEAREST}: a price per million tokens "
                    f"typed where one per token belongs?"
                )
            object.__setattr__(self, f.name, value)
        read, made = _pico(self.input), _pico(self.output)

        def part(rate: Decimal | None, whole: int | Fraction) -> int | Fraction:
            return whole if rate is None else _pico(rate)

        cached, written, reasoning = part(self.cached, read), part(self.written, read), part(self.reasoning, made)
        long, heard, spoken = (
            part(self.written_long, written),
            part(self.audio_input, read),
            part(self.audio_output, made),
        )
        pico = (read, cached, written, long, heard, made, reasoning, spoken, _pico(self.request))
        object.__setattr__(self, "_pico", pico)

    def cost(self, usage: Usage, read: int, made: int) -> int | Fraction:
        """Pico-dollars, each token at the rate of its most special part.

        How cached and audio tokens overlap is not reported. Audio is charged in full, cached only what is left.
        """
        audio_in, audio_out = usage.audio_input or 0, usage.audio_output or 0
        written = min(usage.written or 0, read - audio_in)
        long = min(usage.written_long or 0, written)
        cached = min(usage.cached or 0, read - audio_in - written)
        reasoning = min(usage.reasoning or 0, made - audio_out)
        tokens = (
            read - audio_in - written - cached,
            cached,
            written - long,
            long,
            audio_in,
            made - audio_out - reasoning,
            reasoning,
            audio_out,
            1,
        )
        return sum([n * rate for n, rate in zip(tokens, self._pico, strict=True) if n])

    def worst(self, usage: Usage, read: int, made: int) -> int | Fraction:
        """As ``cost``, with every token at the dearest rate that it can have.

        A part of a side counts unless the usage says that it is 0, and audio only where it says that there can be some.
        """
        text, cached, written, long, heard, shown, thought, spoken, request = self._pico
        reads, makes = [text, cached], [shown, thought]
        if usage.written != 0:
            reads.append(written)
            if usage.written_long != 0:
                reads.append(long)
        if usage.audio_input:
            reads.append(heard)
        if usage.audio_output:
            makes.append(spoken)
        return read * max(reads) + made * max(makes) + request


@dataclass(frozen=True, slots=True)
class Price:
    """The price of a model: its rates, those for long prompts, and those of other classes of service.

    Attributes:
        rates: of prompts up to the first tier.
        tiers: (tokens, rates), ascending: if a call has more than this many input tokens, cached ones included, all of
            its tokens have these rates. That is how providers bill; tiers are not marginal.
        services: rates by class of service, such as ``"batch"``, ``"flex"``, ``"priority"``.
        fees: dollars a use, by the names of FEES, beside the tokens; of a name that is not there nothing is known.
        by_token: whether its tokens have a price. If not, only calls whose uses are counted have one.
    """

    rates: Rates
    tiers: tuple[tuple[int, Rates], ...] = ()
    services: Mapping[str, Price] = field(default_factory=dict)
    fees: Mapping[str, Decimal] = field(default_factory=dict)
    by_token: bool = True

    def __post_init__(self) -> None:
        starts = [count("the start of a tier", start) for start, _ in self.tiers]
        if starts != sorted(set(starts)):
            raise InvalidInput(f"tiers begin at {starts}; give each start once, ascending")
        for name, fee in self.fees.items():
            if name not in FEES:
                raise InvalidInput(f"there is no fee {name!r}; fees are {', '.join(FEES)}")
            if isinstance(fee, bool) or not isinstance(fee, Decimal | int) or not 0 <= fee <= _DEAREST_FEE:
                raise InvalidInput(f"fee {name} is {fee!r}; give a Decimal of 0 to {_DEAREST_FEE} dollars a use")

    def cost(self, usage: Usage) -> int:
        """Pico-dollars, rounded up. A part that nobody reported counts as 0: who bills it apart reports it.

        Raises:
            InvalidInput: input or output is unknown.
        """
        read, made = _totals(usage)
        return _ceil(self._at(read).cost(usage, read, made)) + (self._uses(usage) if usage.counts else 0)

    def worst(self, usage: Usage) -> int:
        """Pico-dollars that this many input and output tokens cost at most, whatever their parts.

        A cheaper rate above a tier is not counted on: fewer tokens than the estimate could cost more. A side's audio
        rate counts when its ``audio_input`` or ``audio_output`` is not 0, those of the cache unless ``written`` is 0.

        Raises:
            InvalidInput: a use that has a fee has no limit.
        """
        read, made = _totals(usage)
        for name, uses in usage.counts:
            if uses >= MOST and self.fees.get(name):
                raise InvalidInput(
                    f"each {name} has a fee of ${self.fees[name]}, and the request does not limit how many there are; "
                    "give the tool max_uses (Messages), or the request max_tool_calls (Responses)"
                )
        reached = [self.rates, *(rates for start, rates in self.tiers if read > start)]
        return max(_ceil(rates.worst(usage, read, made)) for rates in reached) + self._uses(usage)

    def _uses(self, usage: Usage) -> int:
        """Pico-dollars of the uses that have a fee."""
        return _ceil(
            sum((Fraction(self.fees[n]) * PICO * uses for n, uses in usage.counts if n in self.fees), Fraction(0))
        )

    def _at(self, read: int) -> Rates:
        reached = self.rates
        for start, rates in self.tiers:
            if read > start:
                reached = rates
        return reached


def _totals(usage: Usage) -> tuple[int, int]:
    if usage.input is None or usage.output is None:
        raise InvalidInput(f"the cost of {usage!r} is unknown: it needs input and output; give an estimate")
    return usage.input, usage.output


def _pico(rate: Decimal) -> int | Fraction:
    """Pico-dollars a token at so many dollars a million tokens; whole ones as int, which is ten times faster."""
    exact = Fraction(rate) * PICO_A_TOKEN
    return exact.numerator if exact.denominator == 1 else exact


def _ceil(pico: int | Fraction) -> int:
    return -(-pico.numerator // pico.denominator)
