"""What a call can cost before it is made, and how much of that to reserve.

``worst_case`` bounds a request from what it says. A bound is safe and far too large: most answers are shorter than
their cap. An :class:`Estimator` learns, per model and side, the ratio of actual to bound and reserves at a quantile.

Sources: UTF-8 bytes as a bound of the tokens of byte-level tokenizers, and an adaptive margin, from "Token Budgets",
arXiv 2606.04056, whose published estimator can only widen; the quantile and its feedback are adaptive conformal
inference, Gibbs and Candes, arXiv 2106.00170.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from budgeteer.core.errors import InvalidInput
from budgeteer.core.usage import Usage, count
from budgeteer.metering.thinking import asked_budget
from budgeteer.metering.tools import searches_always, switches_search, uses_asked
from budgeteer.metering.unseen import TEXT, Unseen, given, unseen

CAPS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
"""Fields in which a request says how many tokens may be generated for each of its choices."""
_MOST = 10**30
"""Most units of a call, which may be pico-dollars."""
_ROUNDED = 1 - 5e-16
"""Factor before rounding up, so that the rounding error of a ratio does not add a unit."""
_LONGEST = 16
"""Most characters per token on the average of a text; generous."""
_REPEATED = re.compile(r"\s+|(.)(?=\1)", re.DOTALL)
_RUN_LENGTH = 256
_RUN = re.compile(r"(?<!\S)\S{256,}|(?<!\s)\s{256,}")
"""Tokenizers take quadratic time for runs of one kind, so long runs are cut; cut text has no fewer tokens."""
_AROUND_KEY, _AROUND_VALUE = 3, 2
"""Tokens that a server's template writes around a name and around a value, at most: JSON's punctuation and more."""
SCHEMAS = (
    "tools",
    "functions",
    "response_format",
    "output_format",
    "output_config",
    "text",
    "json_schema",
    "guided_json",
)
"""Fields that hold descriptions of tools and schemas, which servers write anew for the model."""
_CACHES = re.compile(rb'"cache_?(?:control|point)\w*"\s*:', re.IGNORECASE)
"""Anthropic's, Bedrock's and LiteLLM's names of what asks for it."""
_TTL = re.compile(rb'"ttl"\s*:(?!\s*"5m")', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How a request is bounded.

    Attributes:
        tokens: counts the tokens of a text; None takes its UTF-8 bytes, which no byte-level tokenizer exceeds.
        margin: factor on the whole input, for a counter that is not exact or a tokenizer that is not byte-level.
        tools_margin: factor on tools and schemas, since servers write them anew for the model. 2 covers what was
            measured on Anthropic's API (1.875, nested schemas), 1 the others (arXiv 2606.04056).
        overhead: tokens of input that a server adds to any request, such as a default system message.
        image: tokens of a picture whose size its data does not show, or whose model has no published rule. The default
            is the most expensive one published (gpt-4o-mini, 8 tiles); most are below 2,000.
        measured: whether pictures count by their size, by the rule of the provider whose model has such a name; False
            where a server of your own may give that name to another model.
        max_input: tokens of input of requests that do not show all of it: stored conversations, files, audio. None
            refuses such requests.
        max_output: cap, in tokens, of requests that have none; send it with them, or it bounds nothing. None refuses
            such requests.
        hidden_reasoning: tokens that the provider generates and bills beyond the cap, for each choice; a larger budget
            of thinking that a request names counts in its place.
    """

    tokens: Callable[[str], int] | None = None
    margin: Fraction = Fraction(1)
    tools_margin: Fraction = Fraction(1)
    overhead: int = 256
    image: int = 48_169
    measured: bool = True
    max_input: int | None = None
    max_output: int | None = None
    hidden_reasoning: int = 0

    def __post_init__(self) -> None:
        for name in ("overhead", "image", "max_input", "max_output", "hidden_reasoning"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, count(f"Bounds.{name}", value))
        for name in ("margin", "tools_margin"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | Fraction) or value < 1:
                raise InvalidInput(f"Bounds.{name} is {value!r}; give a Fraction of 1 or more, such as Fraction(2)")


def count_text(text: str, tokens: Callable[[str], int] | None = None) -> int:
    """Tokens of a text: counted by ``tokens``, or without it bounded by the text's UTF-8 bytes."""
    if tokens is None:
        return len(text.encode("utf-8", "surrogatepass"))
    if len(text) < _RUN_LENGTH:
        return count("a token count", tokens(text))
    return sum(count("a token count", tokens(piece)) for piece in _pieces(text) if piece)


def _pieces(text: str) -> Iterator[str]:
    """A text without its long runs, and these in pieces."""
    begin = 0
    for run in _RUN.finditer(text):
        yield text[begin : run.start()]
        begin = run.end()
        for at in range(run.start(), begin, _RUN_LENGTH):
            yield text[at : min(at + _RUN_LENGTH, begin)]
    yield text[begin:]


def least_tokens(text: str) -> int:
    """The fewest tokens that a text can have with any tokenizer; a smaller count cannot be true.

    The longest tokens of a vocabulary are runs of one character or of white space, so a run counts as one character,
    and white space not at all. In the rest of a text no known tokenizer averages 16 characters per token.

    >>> least_tokens(""), least_tokens("Hi"), least_tokens("-" * 999), least_tokens("a word and a word " * 100)
    (0, 1, 1, 82)
    """
    if len(text) <= _LONGEST:
        return 1 if text else 0
    return max(1, -(-len(_REPEATED.sub("", text)) // _LONGEST))


def too_few(tokens: int, texts: Iterable[str]) -> bool:
    """Whether ``tokens`` is less than the fewest tokens that these texts can have together."""
    filled = [text for text in texts if text]
    if sum(map(len, filled)) <= tokens * _LONGEST:  # which nearly always settles it
        return tokens < len(filled) and tokens < sum(map(least_tokens, filled))
    return tokens < sum(map(least_tokens, filled))


def texts_of(request: Mapping[str, Any]) -> list[str]:
    """The texts of a request's messages, items and prompts; without pictures, tools and schemas."""
    texts: list[str] = []
    for name in ("messages", "input", "system", "instructions", "prompt"):
        _gather(request.get(name), texts)
    return texts


def _gather(value: Any, texts: list[str]) -> None:
    """The texts of messages, items and parts."""
    if isinstance(value, str):
        texts.append(value)
    elif isinstance(value, list | tuple):
        for part in value:
            _gather(part, texts)
    elif (type(value) is dict or isinstance(value, Mapping)) and str(value.get("type", "text")) in TEXT:
        for name in ("content", "text"):
            _gather(value.get(name), texts)


def worst_case(
    request: Mapping[str, Any], bounds: Bounds | None = None, parts: Unseen | None = None, model: str = ""
) -> Usage:
    """The most tokens that a request can use: ``Usage(input, output)``, and which of them may be audio.

    Input: the JSON of everything that becomes part of the prompt (messages, input, instructions, tools, formats), whose
    punctuation outweighs the tokens that a chat template adds; images are counted apart. Output: the cap of a choice,
    its hidden reasoning and its predicted output, times ``n`` or ``best_of`` and the number of prompts.

    Args:
        request: the body of a chat completion, completion, Responses or Messages request.
        bounds: how to bound it; None: the defaults of :class:`Bounds`.
        parts: what ``unseen`` returned for the request; None: call it.
        model: whose rule counts pictures, where the request names none.

    Raises:
        InvalidInput: the request hides its input or has no cap, and the bounds do not say what to assume.

    >>> body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50, "n": 2}
    >>> worst_case(body, Bounds(overhead=0))
    Usage(input=49, output=100)
    """
    bounds = bounds or Bounds()
    cap = _cap(request, bounds)
    choices = prompts_of(request) * max(count(name, request.get(name) or 1) for name in ("n", "best_of"))
    made = choices * (cap + beyond(request, bounds))
    parts = unseen(request) if parts is None else parts
    written = writable(str(request.get("model") or ""), lambda: json.dumps(dict(request), default=str).encode())
    return totals(request, input_bound(request, bounds, parts, model), made, parts, written)


def beyond(request: Mapping[str, Any], bounds: Bounds) -> int:
    """The most tokens of output that a choice may be billed beside its cap: thoughts, if the bounds say that the
    provider does not cap them, and what is predicted."""
    thoughts = bounds.hidden_reasoning
    if thoughts:
        thoughts = max(thoughts, asked_budget(request))
    return thoughts + predicted(request)


def totals(
    request: Mapping[str, Any], read: int, made: int, parts: Unseen, written: tuple[int | None, int | None]
) -> Usage:
    """The usage of ``read`` tokens of input and ``made`` of output, with the most that their parts can be.

    Output may be audio if the request asks for speech; input if some of it is not shown. ``counts`` has the uses of
    tools that the provider may bill.

    Args:
        request: the body.
        read, made: tokens.
        parts: what ``unseen`` returned for the request.
        written: what ``writable`` returned for it.
    """
    searches = searches_always(request.get("model")) or any(switches_search(name) for name in parts.hidden)
    uses = uses_asked(request, searches)
    return Usage(
        input=read,
        output=made,
        audio_input=read if parts.hidden else None,
        audio_output=made if speaks(request) else None,
        written=written[0],
        written_long=written[1],
        counts=tuple(uses.items()),
    )


def writable(model: str, body: Callable[[], bytes]) -> tuple[int | None, int | None]:
    """Tokens that can be written to the provider's cache, and those for an hour or more: 0 if none can, None if any.

    Claude's cache is written only where ``cache_control`` asks for it, and for an hour only where ``ttl`` does. Others
    write to theirs without being asked.

    Args:
        model: its name, at the provider or in the price table.
        body: returns the request's JSON, without escapes in names; called for Claude only.

    >>> writable("claude-sonnet-4-5", lambda: b'{"messages": []}')
    (0, 0)
    >>> writable("claude-sonnet-4-5", lambda: b'{"cache_control": {}}')
    (None, 0)
    """
    if "claude" not in model.lower():
        return None, None
    text = body()
    if _CACHES.search(text) is None:
        return 0, 0
    return None, 0 if _TTL.search(text) is None else None


def speaks(request: Mapping[str, Any]) -> bool:
    """Whether a request asks for speech, so that its output may be audio."""
    return given(request.get("audio")) or request.get("modalities") not in (None, [], ["text"])


def prompts_of(request: Mapping[str, Any]) -> int:
    """How many prompts a completion request has; each gets ``n`` choices of its own.

    >>> prompts_of({"prompt": ["a", "b"]}), prompts_of({"prompt": [[1, 2], [3]]}), prompts_of({"prompt": [1, 2, 3]})
    (2, 2, 1)
    """
    prompt = request.get("prompt")
    if not isinstance(prompt, list | tuple) or all(type(token) is int for token in prompt):
        return 1
    return len(prompt)


def predicted(request: Mapping[str, Any]) -> int:
    """The most tokens of a request's predicted output: those that turn out wrong are billed as output, too."""
    prediction = request.get("prediction")
    return len(json.dumps(prediction, ensure_ascii=False, default=str).encode()) if prediction else 0


def cap_name(request: Mapping[str, Any]) -> str | None:
    """The field in which a request caps its output, or None."""
    return next((name for name in CAPS if request.get(name) is not None), None)


def _cap(request: Mapping[str, Any], bounds: Bounds) -> int:
    given = [count(name, request[name]) for name in CAPS if request.get(name) is not None]
    if given:
        return max(1, *given)  # some servers generate, and bill, one token when asked for none
    if bounds.max_output is None:
        raise InvalidInput(
            f"the request has no cap of its output, so its worst case is unknown; give it {CAPS[0]}, or give one for "
            "all without: wrap(client, allowance, bounds=Bounds(max_output=4_096)), where Bounds is of "
            "budgeteer.metering.estimate"
        )
    return bounds.max_output


def input_bound(request: Mapping[str, Any], bounds: Bounds, parts: Unseen | None = None, model: str = "") -> int:
    """The most tokens of input that a request can have; ``worst_case`` adds the output.

    Args:
        request: the body.
        bounds: how to bound it.
        parts: what ``unseen`` returned for the request; None: call it.
        model: whose rule counts pictures, where the request names none.

    Raises:
        InvalidInput: some of its input is not shown, and the bounds do not say what to assume.
    """
    parts = unseen(request) if parts is None else parts
    left_out = {"model", "stream", "stream_options", "user", "metadata", "n", "best_of", *CAPS}
    prompt = {name: value for name, value in request.items() if name not in left_out}
    schemas = {name: prompt[name] for name in SCHEMAS if name in prompt}
    if bounds.tokens is not None:
        text, described = tokens_of(prompt, bounds.tokens, parts.data), tokens_of(schemas, bounds.tokens)
    else:
        shown = json.dumps(prompt, ensure_ascii=False, default=str)
        for data in parts.data:
            shown = shown.replace(json.dumps(data, ensure_ascii=False)[1:-1], "", 1)
        text = count_text(shown)
        described = count_text(json.dumps(schemas, ensure_ascii=False, default=str)) if schemas else 0
    return bound_of(text, described, parts, bounds, str(request.get("model") or model))


def tokens_of(value: Any, tokens: Callable[[str], int], without: Iterable[str] = ()) -> int:
    """The most tokens of a JSON value: its texts by a counter, and what a template may write around names and values.

    Args:
        value: the value; numbers and the like count a token for each of their characters.
        tokens: counts the tokens of a text.
        without: texts that are left out, each once: the data of pictures.

    >>> tokens_of({"role": "user", "content": "one two"}, lambda text: len(text.split()))
    17
    """
    skipped, total, stack = Counter(without), 0, [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            if skipped and skipped[item] > 0:
                skipped[item] -= 1
            else:
                total += count_text(item, tokens) + _AROUND_VALUE
        elif isinstance(item, Mapping):
            total += _AROUND_VALUE + sum(count_text(str(name), tokens) + _AROUND_KEY for name in item)
            stack += item.values()
        elif isinstance(item, list | tuple):
            total += _AROUND_VALUE
            stack += item
        else:
            total += len(str(item))
    return total


def bound_of(text: int, described: int, parts: Unseen, bounds: Bounds, model: str) -> int:
    """The most tokens of input.

    Args:
        text: tokens of all that is text.
        described: those among them that describe tools and schemas.
        parts: what is no text.
        bounds: how to bound it.
        model: its name at the provider, whose rule counts pictures.

    Raises:
        InvalidInput: some of the input is not shown, and the bounds do not say what to assume.
    """
    most = 0
    if parts.hidden:
        if bounds.max_input is None:
            names = ", ".join(sorted(set(parts.hidden))[:5])
            raise InvalidInput(f"the request's input is not bounded by what it shows ({names}); give max_input")
        most = bounds.max_input
    pictures = sum(picture.tokens(model if bounds.measured else "", bounds.image) for picture in parts.pictures)
    shown = text + parts.added + pictures
    if described and bounds.tools_margin != 1:
        shown += math.ceil((bounds.tools_margin - 1) * described)
    return max(most, shown if bounds.margin == 1 else math.ceil(shown * bounds.margin)) + bounds.overhead


def unmeasured(parts: Unseen, bounds: Bounds, model: str, owner: str = "Bounds") -> str:
    """What to do about pictures that count as the most that one may have; "" = there are none.

    Args:
        parts, bounds, model: as in ``bound_of``.
        owner: whose ``image`` says how many tokens that are.
    """
    number = sum(picture.tokens(model if bounds.measured else "", -1) < 0 for picture in parts.pictures)
    if not number:
        return ""
    several, each = (f"{number} pictures count", " each") if number > 1 else ("a picture counts", "")
    return (
        f"{several} as {bounds.image:,} tokens{each}, since the size or the model's rule is not known: send it as data "
        f"to a model of OpenAI's or Claude, or set image of {owner}, the most tokens of a picture"
    )


@dataclass(frozen=True, slots=True)
class Track:
    """What an estimator has learnt of the calls of one key.

    Attributes:
        ratios: actual / bound of the last calls, oldest first.
        level: the quantile in use; feedback moves it around the chosen one so that misses come at the chosen rate.
        calls: how many calls were observed in all, those that are no longer in ``ratios`` included.
    """

    ratios: tuple[float, ...] = ()
    level: float = 0.0
    calls: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """What an estimator has learnt, by key; ``to_json`` and ``from_json`` save and load it."""

    tracks: Mapping[str, Track] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The state as mappings, lists and numbers: key -> {"ratios", "level", "calls"}."""
        return {key: {"ratios": list(t.ratios), "level": t.level, "calls": t.calls} for key, t in self.tracks.items()}

    @classmethod
    def from_json(cls, data: Any) -> State:
        """The state that ``to_json`` wrote.

        Raises:
            InvalidInput: ``data`` is anything else.
        """
        try:
            tracks = {
                str(key): Track(
                    tuple(map(float, saved["ratios"])), float(saved["level"]), count("calls", saved["calls"])
                )
                for key, saved in data.items()
            }
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidInput(f"not the state of an estimator: {error!r}") from error
        for key, track in tracks.items():
            numbers = all(math.isfinite(r) and r >= 0 for r in (*track.ratios, track.level))
            if not numbers or track.level > 1 or track.calls < len(track.ratios):
                raise InvalidInput(f"not the state of an estimator: {key!r} holds impossible numbers")
        return cls(tracks)


@dataclass(frozen=True, slots=True)
class Estimator:
    """Reserve a quantile of what earlier calls used, relative to their bound.

    It reserves ``bound`` times the ceil((n + 1) level)-th smallest of the last n ratios of actual to bound. With fewer
    than level / (1 - level) calls there is no such rank: the bound itself is reserved, or more if a call went beyond
    its bound. After each call ``level += rate * (missed - (1 - quantile))``, with ``missed`` 1 if the call used more
    than was reserved, else 0: misses become as frequent as chosen however the traffic drifts, in both directions.

    When it helps: many calls share a budget that is small beside their caps. When not: for a single call; and keys that
    mix kinds of calls (other prompts, other caps) get the spread of all. A call that used more than was reserved goes
    on and its excess is booked; the excess is at most the bound minus the reservation, as far as the bound holds.

    Attributes:
        quantile: share of calls that the reservation should cover, in (0, 1).
        window: number of calls remembered for each key.
        rate: step size of the feedback; 0 turns it off.

    >>> estimator, state = Estimator(quantile=0.5, rate=0), State()
    >>> for actual in (10, 20, 30):
    ...     state = estimator.observe(state, "m", 100, actual)
    >>> estimator.reserve(State(), "m", 100), estimator.reserve(state, "m", 100), estimator.reserve(state, "m", 1000)
    (100, 20, 200)
    """

    quantile: float = 0.95
    window: int = 200
    rate: float = 0.01

    def __post_init__(self) -> None:
        if isinstance(self.quantile, bool) or not 0 < self.quantile < 1:
            raise InvalidInput(f"quantile {self.quantile!r} is not between 0 and 1")
        if count("window", self.window) < 1 or not 0 <= self.rate < 1:
            raise InvalidInput(f"window {self.window} must be 1 or more and rate {self.rate} in [0, 1)")

    def reserve(self, state: State, key: str, bound: int) -> int:
        """Units to reserve for a call that can use at most ``bound`` units."""
        track = state.tracks.get(key)
        if track is None or not track.ratios:
            return bound
        n = len(track.ratios)
        rank = math.ceil((n + 1) * track.level)
        ratio = max(1.0, *track.ratios) if rank > n else sorted(track.ratios)[max(1, rank) - 1]
        return math.ceil(ratio * bound * _ROUNDED)

    def observe(self, state: State, key: str, bound: int, actual: int) -> State:
        """The state after a call with this bound has used ``actual`` units."""
        if count("bound", bound, _MOST) == 0:
            return state
        track = state.tracks.get(key) or Track(level=self.quantile)
        missed = count("actual", actual, _MOST) > self.reserve(state, key, bound)
        level = track.level
        if track.ratios:
            level = min(1.0, max(0.0, level + self.rate * (missed - (1 - self.quantile))))
        ratios = (*track.ratios, actual / bound)[-self.window :]
        return replace(state, tracks={**state.tracks, key: Track(ratios, level, track.calls + 1)})

    def merge(self, base: State, mine: State, theirs: State) -> State:
        """The state that has learnt from the calls of two states, which both went on from ``base``.

        The calls of both since ``base`` are added, and the feedback of both to the level. Where they are more than the
        window holds, each side keeps its share of it; among themselves they have no order in time.

        >>> estimator, base = Estimator(rate=0), State()
        >>> mine, theirs = estimator.observe(base, "m", 10, 1), estimator.observe(base, "m", 10, 2)
        >>> estimator.merge(base, mine, theirs).tracks["m"]
        Track(ratios=(0.2, 0.1), level=0.95, calls=2)
        """
        nothing = Track(level=self.quantile)
        tracks = dict(theirs.tracks)
        for key, track in mine.tracks.items():
            began, other = base.tracks.get(key, nothing), theirs.tracks.get(key, nothing)
            calls = track.calls - began.calls
            if calls <= 0:
                continue
            made, came = min(calls, len(track.ratios)), min(max(0, other.calls - began.calls), len(other.ratios))
            earlier = other.ratios[: len(other.ratios) - came]
            if made + came > self.window:
                made = self.window * made // (made + came)
                came = self.window - made
            ratios = earlier + other.ratios[len(other.ratios) - came :] + track.ratios[len(track.ratios) - made :]
            level = min(1.0, max(0.0, other.level + track.level - began.level))
            tracks[key] = Track(ratios[-self.window :], level, other.calls + calls)
        return State(tracks)
