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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from budgeteer.core.errors import InvalidInput
from budgeteer.core.usage import Usage, count

CAPS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
"""Fields in which a request says how many tokens may be generated for each of its choices."""
_PICTURES = {"image_url": "image_url", "input_image": "image_url", "image": "source"}
"""Types of parts that are a picture, and the field that holds it."""
_TEXT = frozenset({
    "text", "input_text", "output_text", "refusal", "thinking", "redacted_thinking", "reasoning_text", "summary_text",
    "message", "reasoning", "search_result", "function_call", "function_call_output", "custom_tool_call",
    "custom_tool_call_output", "tool_use", "tool_result",
})  # fmt: skip
"""Types of items and parts whose bytes bound their tokens. What a provider reads for any other type is not known."""
_USUAL = frozenset({
    "role", "content", "type", "text", "name", "id", "status", "tool_calls", "tool_call_id", "call_id", "arguments",
    "output", "refusal", "cache_control", "annotations", "logprobs", "reasoning", "reasoning_content", "thinking",
    "signature", "summary", "encrypted_content", "input", "tool_use_id", "is_error", "function_call", "parts", "source",
    "detail", "data", "title", "citations",
})  # fmt: skip
_MEDIA = frozenset({
    "image_url", "image", "images", "image_embeds", "image_pil", "audio", "audio_url", "audio_embeds", "input_audio",
    "video", "videos", "video_url", "video_embeds", "file", "files", "file_id", "file_ids", "file_url", "file_data",
    "attachments", "multimodal_data",
})  # fmt: skip
"""Fields of items and parts that may stand for far more than their bytes; some servers need no type beside them."""
_OWN_TOOLS = frozenset({"function", "custom"})
_MOST = 10**30
"""Most units of a call, which may be pico-dollars."""
_ROUNDED = 1 - 5e-16
"""Factor before rounding up, so that the rounding error of a ratio does not add a unit."""
HIDDEN = (
    "previous_response_id", "conversation", "prompt_id", "cached_content", "extra_body", "prompt_embeds", "image_data",
    "multimodal_data", "mm_processor_kwargs", "media_io_kwargs", "chat_template", "container", "mcp_servers",
    "thread", "web_search_options", "search_parameters",
)  # fmt: skip
"""Fields whose bytes bound nothing: they refer to stored, embedded, searched or fetched input, or to a template."""
_LONGEST = 16
"""Most characters per token on the average of a text; generous."""
_REPEATED = re.compile(r"\s+|(.)(?=\1)", re.DOTALL)
_SHORT = 64
"""Characters up to which the address of a picture is counted as text."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How a request is bounded.

    Attributes:
        tokens: counts the tokens of a text; None takes its UTF-8 bytes, which no byte-level tokenizer exceeds.
        margin: factor on the input, since servers expand tool schemas into prompts of their own. 2 covers what was
            measured on Anthropic's API (1.875), 1 the others (arXiv 2606.04056).
        overhead: tokens of input that a server adds to any request, such as a default system message.
        image: tokens of one image. The default is the most expensive one published (gpt-4o-mini, 8 tiles); most are
            below 2,000.
        max_input: tokens of input of requests that do not show all of it: stored conversations, files, audio. None
            refuses such requests.
        max_output: cap, in tokens, of requests that have none; send it with them, or it bounds nothing. None refuses
            such requests.
        hidden_reasoning: tokens that the provider generates and bills beyond the cap, for each choice.
    """

    tokens: Callable[[str], int] | None = None
    margin: Fraction = Fraction(1)
    overhead: int = 256
    image: int = 48_169
    max_input: int | None = None
    max_output: int | None = None
    hidden_reasoning: int = 0

    def __post_init__(self) -> None:
        for name in ("overhead", "image", "max_input", "max_output", "hidden_reasoning"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, count(f"Bounds.{name}", value))
        if isinstance(self.margin, bool) or not isinstance(self.margin, int | Fraction) or self.margin < 1:
            raise InvalidInput(f"Bounds.margin is {self.margin!r}; give a Fraction of 1 or more, such as Fraction(2)")


def count_text(text: str, tokens: Callable[[str], int] | None = None) -> int:
    """Tokens of a text: counted by ``tokens``, or without it bounded by the text's UTF-8 bytes."""
    return len(text.encode("utf-8", "surrogatepass")) if tokens is None else count("a token count", tokens(text))


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
    elif isinstance(value, Mapping) and str(value.get("type", "text")) in _TEXT:
        for name in ("content", "text"):
            _gather(value.get(name), texts)


def worst_case(request: Mapping[str, Any], bounds: Bounds | None = None) -> Usage:
    """The most tokens that a request can use: ``Usage(input, output)``, and which of them may be audio.

    Input: the JSON of everything that becomes part of the prompt (messages, input, instructions, tools, formats), whose
    punctuation outweighs the tokens that a chat template adds; images are counted apart. Output: the cap of a choice,
    its hidden reasoning and its predicted output, times ``n`` or ``best_of`` and the number of prompts.

    Args:
        request: the body of a chat completion, completion, Responses or Messages request.
        bounds: how to bound it; None: the defaults of :class:`Bounds`.

    Raises:
        InvalidInput: the request hides its input or has no cap, and the bounds do not say what to assume.

    >>> body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50, "n": 2}
    >>> worst_case(body, Bounds(overhead=0))
    Usage(input=49, output=100)
    """
    bounds = bounds or Bounds()
    cap = _cap(request, bounds)
    choices = prompts_of(request) * max(count(name, request.get(name) or 1) for name in ("n", "best_of"))
    beyond = bounds.hidden_reasoning + predicted(request)
    read, made = input_bound(request, bounds), choices * (cap + beyond)
    return totals(request, read, made, heard=bool(unseen(request).hidden))


def totals(request: Mapping[str, Any], read: int, made: int, heard: bool) -> Usage:
    """The usage of ``read`` tokens of input and ``made`` of output, where all that may be audio counts as audio.

    Output may be audio if the request asks for speech; input if ``heard``: some of it is not shown.
    """
    return Usage(
        input=read, output=made, audio_input=read if heard else None, audio_output=made if speaks(request) else None
    )


def speaks(request: Mapping[str, Any]) -> bool:
    """Whether a request asks for speech, so that its output may be audio."""
    return bool(request.get("audio")) or request.get("modalities") not in (None, [], ["text"])


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


@dataclass(slots=True)
class Unseen:
    """The parts of a request whose bytes do not bound their tokens.

    Attributes:
        pictures: number of pictures.
        data: addresses and data of the pictures, which do not count as text.
        hidden: names of fields and types behind which there is input that the request does not show.
    """

    pictures: int = 0
    data: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)


def unseen(request: Mapping[str, Any]) -> Unseen:
    """Collect pictures and hidden input from all that becomes part of the prompt.

    A picture counts as one only where items and parts of messages stand. Its address or data does not count as text;
    its other bytes do. A type, or a field, that may stand for more than its bytes is hidden input.
    """
    parts = Unseen()
    for name in ("messages", "input", "system", "instructions"):
        _walk(request.get(name), parts)
    parts.hidden += [name for name in HIDDEN if request.get(name)]
    prompt = request.get("prompt")
    if isinstance(prompt, Mapping) or (isinstance(prompt, list) and any(isinstance(part, Mapping) for part in prompt)):
        parts.hidden.append("prompt")  # a template stored with the provider, or one with pictures
    tools = request.get("tools")
    if isinstance(tools, list) and not all(_own(tool) for tool in tools):
        parts.hidden.append("tools that the provider runs")
    return parts


def _own(tool: Any) -> bool:
    """Whether a tool is run by the caller, so that its description is all that is read."""
    if not isinstance(tool, Mapping):
        return False
    kind = tool.get("type")
    if kind is None:
        named = "name" in tool or "function" in tool
        return named and not any(str(name).casefold() == "type" for name in tool if name != "type")
    return isinstance(kind, str) and kind in _OWN_TOOLS


def _walk(value: Any, parts: Unseen) -> None:
    """Add to ``parts`` from messages, items and parts of any level."""
    if isinstance(value, list | tuple):
        for part in value:
            if not isinstance(part, str | int):
                _walk(part, parts)
    if not isinstance(value, Mapping):
        return
    kind = value.get("type")
    if kind is None and value.get("image_url") is not None:
        kind = "image_url"
    own: tuple[str, ...] = ()
    if isinstance(kind, str) and kind in _PICTURES:
        own = ("image_url", "file_id")
        parts.pictures += 1
        if (data := _data(value.get(_PICTURES[kind]))) is not None:
            parts.data.append(data)
    elif kind is not None and not (isinstance(kind, str) and kind in _TEXT):
        parts.hidden.append(str(kind)[:40])
    for name in value.keys() - _USUAL:
        if name in _MEDIA:
            if name not in own and value[name]:
                parts.hidden.append(name)
        elif (folded := str(name).casefold()) in _USUAL or folded in _MEDIA:
            parts.hidden.append(str(name))  # servers differ in whether it is the field that it looks like
    for name in ("content", "output", "parts"):
        if not isinstance(inner := value.get(name), str | None):
            _walk(inner, parts)


def _data(place: Any) -> str | None:
    """The address or the data of a picture, wherever providers put it, if it is long."""
    if isinstance(place, Mapping):
        place = place.get("url") or place.get("data")
    return place if isinstance(place, str) and len(place) > _SHORT else None


def input_bound(request: Mapping[str, Any], bounds: Bounds) -> int:
    """The most tokens of input that a request can have; ``worst_case`` adds the output.

    Raises:
        InvalidInput: some of its input is not shown, and the bounds do not say what to assume.
    """
    parts = unseen(request)
    left_out = {"model", "stream", "stream_options", "user", "metadata", "n", "best_of", *CAPS}
    text = json.dumps({k: v for k, v in request.items() if k not in left_out}, ensure_ascii=False, default=str)
    for data in parts.data:
        text = text.replace(json.dumps(data, ensure_ascii=False)[1:-1], "", 1)
    return bound_of(count_text(text, bounds.tokens), parts, bounds)


def bound_of(text: int, parts: Unseen, bounds: Bounds) -> int:
    """The most tokens of input, given ``text`` tokens of text and the ``parts`` that are no text.

    Raises:
        InvalidInput: some of the input is not shown, and the bounds do not say what to assume.
    """
    most = 0
    if parts.hidden:
        if bounds.max_input is None:
            names = ", ".join(sorted(set(parts.hidden))[:5])
            raise InvalidInput(f"the request's input is not bounded by what it shows ({names}); give max_input")
        most = bounds.max_input
    return max(most, math.ceil((text + parts.pictures * bounds.image) * bounds.margin)) + bounds.overhead


@dataclass(frozen=True, slots=True)
class Track:
    """What an estimator has learnt of the calls of one key.

    Attributes:
        ratios: actual / bound of the last calls, oldest first.
        level: the quantile in use; feedback moves it around the chosen one so that misses come at the chosen rate.
    """

    ratios: tuple[float, ...] = ()
    level: float = 0.0


@dataclass(frozen=True, slots=True)
class State:
    """What an estimator has learnt, by key; ``to_json`` and ``from_json`` save and load it."""

    tracks: Mapping[str, Track] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The state as mappings, lists and numbers: key -> {"ratios", "level"}."""
        return {key: {"ratios": list(t.ratios), "level": t.level} for key, t in self.tracks.items()}

    @classmethod
    def from_json(cls, data: Any) -> State:
        """The state that ``to_json`` wrote.

        Raises:
            InvalidInput: ``data`` is anything else.
        """
        try:
            tracks = {str(k): Track(tuple(float(r) for r in v["ratios"]), float(v["level"])) for k, v in data.items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidInput(f"not the state of an estimator: {error!r}") from error
        for key, track in tracks.items():
            if not all(math.isfinite(r) and r >= 0 for r in (*track.ratios, track.level)) or track.level > 1:
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
        return replace(state, tracks={**state.tracks, key: Track(ratios, level)})
