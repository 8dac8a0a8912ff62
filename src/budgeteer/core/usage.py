"""What a call, a rollout or a trace consumed, and how each provider says so."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from budgeteer.core.errors import InvalidInput

MOST = 10**15
"""No call consumes so many tokens; more is a wrong number."""

PARTS = {
    "cached": "input",
    "written": "input",
    "written_long": "written",
    "audio_input": "input",
    "reasoning": "output",
    "audio_output": "output",
}
"""Each part and the bucket that contains it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens consumed, in inclusive buckets; ``None`` means unknown, never 0.

    Adding two usages keeps a bucket unknown when either side does not know it.

    Attributes:
        input: all tokens read, cached or not.
        output: all tokens generated, shown or not.
        cached: read from the provider's prompt cache; inside ``input``.
        written: written to that cache; inside ``input``, never also ``cached``.
        written_long: written with the provider's longer time to live (an hour and more); inside ``written``.
        reasoning: generated and not shown; inside ``output``.
        audio_input, audio_output: audio tokens, which have a price of their own; inside ``input``, ``output``.
        counts: what is no token, by the kind of its meter, such as ``{"turns": 2, "tool:search": 1}``; kept as sorted
            pairs. A kind that is not named is unknown.

    >>> Usage(input=10, output=5) + Usage(input=1, output=2)
    Usage(input=11, output=7)
    """

    input: int | None = None
    output: int | None = None
    cached: int | None = None
    written: int | None = None
    written_long: int | None = None
    reasoning: int | None = None
    audio_input: int | None = None
    audio_output: int | None = None
    counts: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        counted = self.counts.items() if isinstance(self.counts, Mapping) else self.counts
        if counted or type(self.counts) is not tuple:
            pairs = sorted((str(kind), count(f"Usage.counts[{kind!r}]", units)) for kind, units in counted)
            object.__setattr__(self, "counts", tuple(pairs))
        for value in (
            self.input,
            self.output,
            self.cached,
            self.written,
            self.written_long,
            self.reasoning,
            self.audio_input,
            self.audio_output,
        ):
            if value is not None and not (type(value) is int and 0 <= value <= MOST):  # the rule costs no call
                self._count()
                break
        if self.cached is self.written is self.reasoning is self.audio_input is self.audio_output is None:
            return  # and no part exceeds its whole
        for part, whole in PARTS.items():
            small = getattr(self, part)
            large = None if small is None else getattr(self, whole)
            if small is not None and large is not None and small > large:
                raise InvalidInput(f"Usage.{part}={small} exceeds {whole}={large}; {part} tokens are inside {whole}")
        if self.input is not None and (self.cached or 0) + (self.written or 0) > self.input:
            raise InvalidInput(
                f"Usage.cached={self.cached} and written={self.written} exceed input={self.input}; "
                f"a token is read from the cache or written to it, not both"
            )

    def _count(self) -> None:
        """Make whole numbers ints, and refuse what counts no tokens."""
        for name in BUCKETS:
            if getattr(self, name) is not None:
                object.__setattr__(self, name, count(f"Usage.{name}", getattr(self, name)))

    def __repr__(self) -> str:
        known = [f"{name}={getattr(self, name)}" for name in BUCKETS if getattr(self, name) is not None]
        return f"Usage({', '.join([*known, f'counts={dict(self.counts)}'] if self.counts else known)})"

    @property
    def total(self) -> int | None:
        """Input plus output tokens, or None when either is unknown."""
        return None if self.input is None or self.output is None else self.input + self.output

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input=_sum(self.input, other.input),
            output=_sum(self.output, other.output),
            cached=_sum(self.cached, other.cached),
            written=_sum(self.written, other.written),
            written_long=_sum(self.written_long, other.written_long),
            reasoning=_sum(self.reasoning, other.reasoning),
            audio_input=_sum(self.audio_input, other.audio_input),
            audio_output=_sum(self.audio_output, other.audio_output),
            counts=_sum_counts(self.counts, other.counts) if self.counts and other.counts else (),
        )

    @classmethod
    def from_chat(cls, usage: Any) -> Usage:
        """The usage of an OpenAI chat completion or completion.

        Args:
            usage: its ``usage``, an object or a mapping; None = nothing is known.

        Cached tokens are inside ``prompt_tokens`` and reasoning inside ``completion_tokens``. Some compatible servers
        count either beside it; that shows in ``total_tokens``, or by a part that exceeds its whole, and is put right.
        What else only ``total_tokens`` counts (Gemini's thoughts, for one) was generated.
        With n > 1 some servers report one choice only, which ``usage`` alone does not show: see ``from_llama_cpp``.
        """
        return _openai(usage, "prompt_tokens", "completion_tokens", "prompt_tokens_details")

    @classmethod
    def from_responses(cls, usage: Any) -> Usage:
        """The usage of an OpenAI Responses API response, from its ``usage``; parts are inside their wholes as there."""
        return _openai(usage, "input_tokens", "output_tokens", "input_tokens_details")

    @classmethod
    def from_anthropic(cls, *usages: Any) -> Usage:
        """The usage of an Anthropic message.

        Args:
            usages: its ``usage``; for a stream, those of message_start and of every message_delta, in order.

        A later explicit value replaces an earlier one. ``input_tokens`` excludes what was read from or written to
        the cache, so both are added; thinking is inside ``output_tokens`` and not told apart.
        """
        last: dict[str, Any] = {}
        for usage in usages:
            for name in (
                "input_tokens",
                "output_tokens",
                "cache_read_input_tokens",
                "cache_creation_input_tokens",
                "cache_creation",
            ):
                value = _get(usage, name)
                if value is not None:
                    last[name] = value
        fresh = _known(last, "input_tokens")
        cached = _known(last, "cache_read_input_tokens") or 0
        long = _known(last.get("cache_creation"), "ephemeral_1h_input_tokens") or 0
        short = _known(last.get("cache_creation"), "ephemeral_5m_input_tokens") or 0
        written = _known(last, "cache_creation_input_tokens")
        written = long + short if written is None else written
        return cls(
            input=None if fresh is None else fresh + cached + written,
            output=_known(last, "output_tokens"),
            cached=None if fresh is None else cached,
            written=None if fresh is None else written,
            written_long=None if fresh is None else min(long, written),
        )

    @classmethod
    def from_gemini(cls, metadata: Any) -> Usage:
        """The usage of a Gemini response, from its ``usageMetadata`` (JSON) or ``usage_metadata`` (SDK).

        Cached tokens are inside the prompt's; thoughts and what tools read back stand beside candidates and prompt,
        so they are added. A count of 0 is left out by the API; what only the total counts was generated.
        """

        def known(camel: str, snake: str) -> int | None:
            value = _known(metadata, camel)
            return _known(metadata, snake) if value is None else value

        prompt = known("promptTokenCount", "prompt_token_count")
        total = known("totalTokenCount", "total_token_count")
        if prompt is None:
            return cls()
        read = prompt + (known("toolUsePromptTokenCount", "tool_use_prompt_token_count") or 0)
        thoughts = known("thoughtsTokenCount", "thoughts_token_count") or 0
        candidates = known("candidatesTokenCount", "candidates_token_count")
        output = None if candidates is None else candidates + thoughts
        if total is not None:
            output = max(total - read, thoughts, output or 0)
        return cls(
            input=read,
            output=output,
            cached=known("cachedContentTokenCount", "cached_content_token_count") or 0,
            reasoning=None if output is None else thoughts,
            audio_input=_modality(metadata, "promptTokensDetails", "prompt_tokens_details"),
            audio_output=_modality(metadata, "candidatesTokensDetails", "candidates_tokens_details"),
        )

    @classmethod
    def from_llama_cpp(cls, body: Any) -> Usage:
        """The usage of a completion of llama.cpp's server, from the whole response.

        Its ``usage`` counts only one choice, so with more than one choice ``output`` is unknown.
        """
        usage = cls.from_chat(_get(body, "usage"))
        choices = _get(body, "choices")
        if isinstance(choices, list) and len(choices) > 1:
            return cls(input=usage.input, cached=usage.cached)
        return usage


_CACHED = ("prompt_cache_hit_tokens", "cached_tokens", "num_cached_tokens", "cache_read_input_tokens")
"""What compatible providers (DeepSeek, Moonshot and Together, Mistral, proxies) call tokens read from their cache."""
BUCKETS = tuple(field.name for field in fields(Usage) if field.name != "counts")
"""Names of the buckets of tokens."""


def count(name: str, value: Any, most: int = MOST) -> int:
    """``value`` as a whole number of 0 or more; ``name`` is for the error.

    Raises:
        InvalidInput: a bool, a float (NaN included), a text, a negative or an absurdly large number.
    """
    if type(value) is int and 0 <= value <= most:
        return value
    try:
        whole = operator.index(value)
    except TypeError:
        whole = -1
    if isinstance(value, bool) or not 0 <= whole <= most:
        raise InvalidInput(f"{name} is {value!r}; give a whole number from 0 to {most:,} (None = unknown)")
    return whole


def _sum_counts(a: tuple[tuple[str, int], ...], b: tuple[tuple[str, int], ...]) -> tuple[tuple[str, int], ...]:
    """The kinds that both sides know, added."""
    other = dict(b)
    return tuple((kind, units + other[kind]) for kind, units in a if kind in other)


def _sum(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a + b


def _get(source: Any, name: str) -> Any:
    """A field of an object or a mapping, or None."""
    if type(source) is dict or isinstance(source, Mapping):  # the first is what JSON makes, and much faster to tell
        return source.get(name)
    return getattr(source, name, None)


def _known(source: Any, name: str) -> int | None:
    value = _get(source, name)
    return None if value is None else count(name, value)


def _openai(usage: Any, input_name: str, output_name: str, details_name: str) -> Usage:
    read, made = _known(usage, input_name), _known(usage, output_name)
    total = _known(usage, "total_tokens")
    inside, shown = _get(usage, details_name), _get(usage, f"{output_name}_details")
    cached, written = _known(inside, "cached_tokens"), _known(inside, "cache_write_tokens")
    if cached is None:
        cached = next((n for name in _CACHED if (n := _known(usage, name)) is not None), None)
    if read is None and cached is not None and (missed := _known(usage, "prompt_cache_miss_tokens")) is not None:
        read = cached + missed
    reasoning = _known(shown, "reasoning_tokens")
    if total and made is None:  # at most, where the input is not said either
        made = total - read if read is not None and total > read else None if read else total
    elif total and read is None and made is not None and total > made:
        read = total - made
    if read is not None and made is not None:
        beside = max(0, (total or 0) - read - made)
        outside = cached and (cached > read or beside in (cached, cached + (reasoning or 0)))
        if cached and outside and beside >= cached and beside != reasoning:
            read, beside = read + cached, beside - cached
        made += beside
        if reasoning and reasoning > made:
            made += reasoning
        if cached and cached > read:
            read += cached
        if written is not None:  # "unadjusted" in the API's words: it may count what was read, too
            written = min(written, read - (cached or 0))
    long = _known(_get(inside, "cache_write_tokens_details"), "ttl_12h_tokens")
    long = long if long is None or written is None else min(long, written)
    return Usage(
        input=read,
        output=made,
        cached=cached,
        written=written,
        written_long=long,
        reasoning=reasoning,
        audio_input=_known(inside, "audio_tokens"),
        audio_output=_known(shown, "audio_tokens"),
    )


def _modality(metadata: Any, camel: str, snake: str) -> int | None:
    details = _get(metadata, camel) or _get(metadata, snake)
    if not isinstance(details, list | tuple):
        return None
    audio = [_known(d, "tokenCount") or _known(d, "token_count") or 0 for d in details if _is_audio(d)]
    return sum(audio)


def _is_audio(detail: Any) -> bool:
    modality = _get(detail, "modality")
    return str(getattr(modality, "value", modality)).upper() == "AUDIO"
