"""Read from an answer the usage that it reports and the text that it shows: OpenAI's and Anthropic's formats, whole or
streamed.

No client library is imported here: the openai adapter and the gateway read the same bytes by the same rules.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from budgeteer.core.errors import InvalidInput
from budgeteer.core.usage import Usage
from budgeteer.metering.call import Metering
from budgeteer.metering.deltas import TEXT_DELTAS, Delta, Frame, delta_in, frame_of
from budgeteer.metering.estimate import Bounds, count_text, least_tokens, prompts_of, speaks, texts_of, too_few
from budgeteer.metering.failures import error_in, status_of
from budgeteer.metering.outcome import Outcome, outcome_of_status
from budgeteer.metering.settlement import Answer
from budgeteer.metering.shown import ON_THE_WAY, holds_calls, most_tokens
from budgeteer.metering.thinking import asks
from budgeteer.metering.tools import uses_told
from budgeteer.metering.usages import Tellings, cost_of, together, usages_in

try:
    from orjson import loads
except ImportError:
    from json import loads  # type: ignore[assignment]

CAPS: dict[str, tuple[str, ...]] = {
    "chat": ("max_completion_tokens", "max_tokens"),
    "completions": ("max_tokens",),
    "responses": ("max_output_tokens",),
    "messages": ("max_tokens",),
    "embeddings": (),
}
"""Operation -> the fields in which it caps its output; the first is the one to write."""
CAP_LIKE = (
    "max_completion_tokens",
    "max_tokens",
    "max_output_tokens",
    "n_predict",
    "n_cmpl",
    "max_new_tokens",
    "max_length",
    "num_predict",
    "num_return_sequences",
)
"""Fields that some server reads as a cap, or in place of the cap."""
_TEXT_BYTES = 8
"""Most bytes of text per token on the average of a choice: a usage with fewer tokens is not believed when n > 1."""
_BYTES = Bounds()
_LIKELY_BYTES = 3
"""Bytes of text per token of most texts: English has four, code and other scripts three."""
_PIECE = 16
"""Most characters of a piece of a stream that counts as one token."""
_LONGEST_EVENT = 16 * 1024 * 1024
_AROUND = 4096
"""Most bytes of an answer around its text; twice the request is added, which some answers repeat."""
_ODD_BYTES, _ODD_BYTES_SCORED = 16, 4096
"""Bytes that count as one token where they are not understood; the second with log-probabilities, which are long."""
_BOM = b"\xef\xbb\xbf"
_FRAMES = 8
"""Frames that are tried for the events of a stream in vain."""
_FIELDS = (b"event:", b"id:", b"retry:", b":")
"""Beginnings of the lines of an event that are not its data."""
_MESSAGE_EVENTS = frozenset(
    {
        "message_start",
        "message_delta",
        "message_stop",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "ping",
        "error",
    }
)
_SHOWN = (
    "text", "content", "reasoning_content", "reasoning", "refusal", "arguments", "name", "summary", "thinking",
    "partial_json", "message", "delta", "tool_calls", "function",
)  # fmt: skip


def choices_of(operation: str, body: Mapping[str, Any]) -> int:
    """How many choices a request asks for, for all its prompts together; 0 for embeddings."""
    if operation == "embeddings":
        return 0
    prompts = prompts_of(body) if operation == "completions" else 1
    return prompts * int(body.get("n") or 1) if operation in ("chat", "completions") else 1


def cap_of(operation: str, body: Mapping[str, Any]) -> int | None:
    """The output cap of one choice, in tokens, or None."""
    return max((int(body[name]) for name in CAPS[operation] if body.get(name) is not None), default=None)


def ask_for_usage(operation: str, body: dict[str, Any]) -> bool:
    """Change a streaming request so that the stream ends with its usage.

    Returns:
        Whether it was changed: the client did not ask for the usage, so it has to be hidden from it.
    """
    if not body.get("stream") or operation not in ("chat", "completions"):
        return False
    options = body.get("stream_options")
    options = options if isinstance(options, Mapping) else {}
    if options.get("include_usage"):
        return False
    body["stream_options"] = {**options, "include_usage": True}
    return True


class Reading:
    """What has been read of one answer so far.

    Args:
        operation: chat, completions, responses, embeddings or messages.
        body: the request, as sent.
        metering: counts the units of the answer.
        hides_usage: the client did not ask for the usage of its stream, so it is not passed on.
        reads_cost: ``usage.cost`` is what the provider bills, in dollars.
        bounds: count the tokens of its texts; None: those of ``metering``.

    Attributes:
        cap, choices: output tokens of a choice (None: no cap), and how many choices the request asks for.
        usage, model, service: as the answer reports them so far; None or "" before.
        text: the pieces of text so far, by choice or item.
        chunks: number of pieces of text.
        full: number of choices that ended at their cap.
        done: whether the last event of a stream was read.
        hides: whether the request asks for output that may not be shown, such as reasoning.
        least: tokens that were generated for certain: one for each piece of text, and one for a number of bytes that
            are not understood, beyond what an answer may have around its text.
        likely: tokens that a stream has shown so far, about: those of its pieces by the tokenizer, without one a token
            for so many bytes; or one a piece if that is more.
        error: the error that came in place of the answer, or in the middle of it; None = none.
        cost: what the provider says that it bills, in pico-dollars, if ``reads_cost``.
        response: the whole response of the Responses API, once it has come; None = not yet, or of another API.
        delta: the text of the last event, if it had nothing else to say.
    """

    def __init__(
        self,
        operation: str,
        body: Mapping[str, Any],
        metering: Metering,
        hides_usage: bool,
        reads_cost: bool = False,
        bounds: Bounds | None = None,
    ) -> None:
        self.operation, self.metering, self.hides_usage, self._body = operation, metering, hides_usage, body
        self._bounds = metering.bounds if bounds is None else bounds
        self.cap, self.choices = cap_of(operation, body), choices_of(operation, body)
        self.usage: Usage | None = None
        self.model = self.service = ""
        self.text: dict[Any, list[str]] = {}
        self.chunks = self.full = self.least = self._bytes = 0
        self.cost: int | None = None
        self.error: Any = None
        self.response: Mapping[str, Any] | None = None
        self.delta: Delta | None = None
        self._reads_cost = reads_cost
        self.done = False
        self.hides = _hidden_asked(body)
        self._usages: list[Mapping[str, Any]] = []
        self._told = Tellings(self.choices)
        self._odd = self._odd_tokens = 0
        self._around: int | None = None
        self._calls = False
        self._ended: set[int] = set()
        self._partial = False
        self._pieces: list[str] = []
        self._counted = 0

    def answer(self, status: int, content: bytes) -> Answer:
        """What is known of a response that came whole, by its HTTP status and body."""
        outcome = outcome_of_status(status)
        if outcome != Outcome.OK:
            return Answer(outcome=outcome)
        try:
            body = loads(content.removeprefix(_BOM))
        except (ValueError, RecursionError):
            return self._not_json(content)
        if not isinstance(body, dict):
            return self._unread(len(content))
        return self._whole(body, len(content))

    def _not_json(self, content: bytes) -> Answer:
        """What is known of a body that is not JSON: perhaps a stream that the request did not ask for."""
        events = Events(self, True)
        try:
            events.feed(content)
            events.last()
        except InvalidInput:
            return self._unread(len(content))
        return self.at_end() if self.heard else self._unread(len(content))

    def _unread(self, size: int) -> Answer:
        """What is known of a body of ``size`` bytes that cannot be understood."""
        self._odd = 0
        self.odd(size)
        return Answer(least=self.least)

    def is_stream(self, content_type: str) -> bool:
        """Whether to read the answer as events: the request asked for a stream, or the content type says so."""
        return bool(self._body.get("stream")) or content_type.strip()[:17].lower() == "text/event-stream"

    def odd(self, size: int, pending: int = 0) -> None:
        """Count bytes that are not understood.

        Args:
            size: bytes that are added for good.
            pending: bytes that count for now and may still become an event.
        """
        self._odd += size
        odd_bytes = self._odd + pending
        if self.operation == "embeddings" or odd_bytes <= _AROUND:
            tokens = 0
        else:
            if self._around is None:
                self._around = _AROUND + 2 * len(json.dumps(self._body, default=str))
            scored = self._body.get("logprobs") or self._body.get("top_logprobs")
            tokens = max(0, odd_bytes - self._around) // (_ODD_BYTES_SCORED if scored else _ODD_BYTES)
        self.least += tokens - self._odd_tokens
        self._odd_tokens = tokens

    @property
    def likely(self) -> int:
        """See the attributes."""
        counter = self._bounds.tokens
        if counter is None or self._calls:
            return max(self.chunks, -(-self._bytes // _LIKELY_BYTES))
        self._counted += sum(count_text(piece, counter) for piece in self._pieces)
        self._pieces.clear()
        return max(self.chunks, self._counted)

    @property
    def heard(self) -> bool:
        """Whether anything of the answer was understood."""
        return bool(self.text or self.model or self.usage)

    def _whole(self, body: dict[str, Any], size: int) -> Answer:
        self.error = error_in(body)
        if self.operation == "messages":
            choices = [body.get("content")] if isinstance(body.get("content"), list) else None
        else:
            choices = body.get("choices") if isinstance(body.get("choices"), list) else body.get("output")
        usage = self._usage(body)
        if self.error is not None and not (usage and usage.output) and not any(map(text_of, _list(choices))):
            return self._failed()
        if usage is None and choices is None:
            return self._unread(size)
        choices = _list(choices)
        if self.operation == "responses":
            self.response = body
        self.odd(-self._odd)  # what was counted while it came is understood
        model, service = str(body.get("model") or ""), str(body.get("service_tier") or "")
        told = usage is not None and usage.input is not None and usage.output and usage.reasoning is not None
        if told and len(choices) <= 1 and usage is not None and (usage.output or 0) * _TEXT_BYTES >= size:
            return Answer(self._read(usage), None, model, service, cost=self.cost)  # the text would change nothing
        texts = [text_of(choice) for choice in choices]
        self._calls = self._bounds.tokens is not None and holds_calls(choices)
        full = [isinstance(c, Mapping) and c.get("finish_reason") == "length" for c in choices]
        outcome = Outcome.OK if self.error is None else Outcome.CUT
        return self._of(self._believed(usage, texts, full.count(True)), texts, model, service, outcome)

    def _failed(self) -> Answer:
        """Of an error in place of an answer, whatever status came with it: as of an error with its own status."""
        status = status_of(self.error)
        return Answer(outcome=outcome_of_status(status), error=status)

    def _usage(self, body: Mapping[str, Any], streamed: bool = False) -> Usage | None:
        """The usage that a body tells, or an event and those before it."""
        if self._reads_cost and (cost := cost_of(body.get("usage"))) is not None:
            self.cost = cost
        try:
            if self.operation == "messages":
                given = body.get("usage")
                if not isinstance(given, Mapping):
                    return None
                usage = Usage.from_anthropic(*self._usages, given)
                return replace(usage, counts=tuple(uses_told(self.operation, body).items()))
            usages: dict[int | None, Usage] = {}
            for choice, given in usages_in(body):
                if self.operation == "responses":
                    usage = Usage.from_responses(given)
                else:
                    usage = Usage.from_llama_cpp(body) if "timings" in body else Usage.from_chat(given)
                usages[choice] = Usage(input=usage.input, output=0) if self.operation == "embeddings" else usage
        except InvalidInput:
            return None
        if streamed and usages:
            told = self._told.so_far(usages, self.chunks, self._bytes)
        else:
            told = together(usages, self.choices)
        uses = uses_told(self.operation, body)
        return replace(told, counts=tuple(uses.items())) if told is not None and uses else told

    def _believed(self, usage: Usage | None, texts: list[str], full: int) -> Usage | None:
        """The usage, without its output if that is less than the texts must have, and likewise without its input.

        ``full`` is how many of several choices ended at the cap; the others are taken to have at least one token for
        eight bytes.
        """
        if usage is None:
            return usage
        usage = self._read(usage)
        if usage.output is None or self.operation == "embeddings":
            return usage
        least = 1 if any(texts) else 0
        if not self._body.get("echo") and too_few(usage.output, texts):  # an echo shows the prompt
            least = sum(map(least_tokens, texts))
        if len(texts) > 1 and self.choices > 1:
            shown = sorted(max(1, -(-len(text.encode()) // _TEXT_BYTES)) for text in texts)
            least = sum(shown[: len(texts) - full]) + full * (self.cap or 0)
        if usage.output >= least:
            return usage
        return Usage(input=usage.input, cached=usage.cached, written=usage.written)

    def _read(self, usage: Usage) -> Usage:
        """The usage, without its input if the request's texts alone have more."""
        if usage.input is None or not too_few(usage.input, [" ".join(texts_of(self._body))]):
            return usage
        return Usage(output=usage.output, reasoning=usage.reasoning, audio_output=usage.audio_output)

    def _of(
        self,
        usage: Usage | None,
        texts: list[str],
        model: str,
        service: str,
        outcome: Outcome,
        so_far: int | None = None,
    ) -> Answer:
        """An answer with its usage, and the most tokens that its texts can have been billed as.

        ``so_far`` is the output that a stream had told when it was cut: it is billed no less, and not the cost that
        it had told; None = it told nothing, or all.
        """
        told = usage is not None and bool(usage.output)
        least = 0 if told else max(self.least, so_far or 0, sum(map(least_tokens, texts)))
        bounds = self._bounds
        if told and usage is not None and usage.reasoning is not None:  # a tokenizer would say nothing more
            bounds = _BYTES
        cut = max(1, self.choices) if outcome == Outcome.CUT and self.error is None else 0
        seen, shown = most_tokens(texts, bounds, self._calls, least, cut)
        if so_far:
            seen = max(seen or 0, so_far + ON_THE_WAY * cut)
        error = 0 if self.error is None else status_of(self.error)
        cost = self.cost if so_far is None else None
        return Answer(usage, seen, model, service, outcome, shown, self.hides or None, least, cost=cost, error=error)

    # streams

    def event(self, data: bytes) -> bool:
        """Read the data of one event; returns whether to pass the event on to the client."""
        self.delta = None
        if data.startswith(b"[DONE]"):
            self.done = True
            return True
        try:
            body = loads(data)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            self.odd(len(data))
            return True
        self.delta = delta_in(self.operation, body)
        if self.delta is not None:
            self._named(body)
            self.grow(*self.delta)
            return True
        if self.error is None:
            self.error = error_in(body)
        if self.operation == "messages":
            if str(body.get("type")) not in _MESSAGE_EVENTS:
                self.odd(len(data))
            self._message(body)
            return True
        response = body.get("response")
        if self.operation == "responses":
            kind = str(body.get("type"))
            if not kind.startswith(("response.", "error", "keepalive")):
                self.odd(len(data))
            if isinstance(body.get("delta"), str):
                self.grow((str(body.get("output_index")), kind), body["delta"])
                self._calls |= self._bounds.tokens is not None and not kind.endswith(TEXT_DELTAS)
            if kind in ("response.completed", "response.incomplete", "response.failed") and isinstance(response, dict):
                self.done, self._partial = True, False
                self.response = body = response
        elif "choices" not in body and "usage" not in body and "error" not in body:
            self.odd(len(data))
        for choice in _list(body.get("choices")):
            if isinstance(choice, dict):
                self.grow(_index(choice), text_of(choice), choice)
                self.full += choice.get("finish_reason") == "length"
                if choice.get("finish_reason"):
                    self._ended.add(_index(choice))
        self._named(body)
        usage = self._usage(body, streamed=True)
        if usage is not None:
            self.usage = usage
            self._partial = bool(body.get("choices")) and len(self._ended) < self.choices
        only_usage = body.get("choices") == [] and body.get("usage") is not None
        return not (only_usage and self.hides_usage)

    def _named(self, body: Mapping[str, Any]) -> None:
        self.model = str(body.get("model") or self.model)
        self.service = str(body.get("service_tier") or self.service)

    def _message(self, body: dict[str, Any]) -> None:
        """Read an event of Anthropic's: the usage at the start holds the input only, those at the end hold all."""
        kind, message = body.get("type"), body.get("message")
        if kind == "message_start" and isinstance(message, dict):
            self.model = str(message.get("model") or self.model)
            usage = self._usage(message)
            if usage is not None and usage.input != 0:  # a translator writes 0 before the provider has counted
                self._usages.append(message["usage"])
                self.service = str(message["usage"].get("service_tier") or self.service)
                self.usage = Usage(
                    input=usage.input, cached=usage.cached, written=usage.written, written_long=usage.written_long
                )
        elif kind == "message_delta":
            self.usage = self._usage(body) or self.usage
            self._partial = not (isinstance(body.get("delta"), Mapping) and body["delta"].get("stop_reason"))
        elif kind == "message_stop":
            self.done = True
        else:
            part = body.get("delta") or body.get("content_block")
            self.grow(_index(body), text_of(part), part)

    def grow(self, key: Any, text: str, part: Any = None) -> None:
        """Add a piece of text to the choice or item of a key.

        Args:
            key, text: the piece.
            part: what it stood in, which may be a call of a tool.
        """
        if self._bounds.tokens is not None:
            self._calls = self._calls or holds_calls(part)
            self._pieces.append(text)
        if text:
            self.chunks += 1
            self._bytes += len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
            self.least += 1 if len(text) <= _PIECE else least_tokens(text)
            self.text.setdefault(key, []).append(text)
        elif key not in self.text:
            self.text[key] = []

    def _texts(self) -> list[str]:
        return ["".join(pieces) for pieces in self.text.values()]

    def length(self) -> int:
        """Tokens of output so far: counted, or without a counter the fewest that there can be."""
        counter = self._bounds.tokens
        if counter is None:
            return self.least
        return sum(count_text(text, counter) for text in self._texts())

    def at_end(self) -> Answer:
        """What is known of a stream that has ended, whole or cut."""
        texts = self._texts()
        if self.error is not None and not any(texts) and not (self.usage and self.usage.output):
            return self._failed()
        outcome = Outcome.OK if self.done and self.error is None else Outcome.CUT
        usage, so_far = self._believed(self.usage, texts, self.full), None
        if outcome == Outcome.CUT and self._partial and usage is not None:
            so_far = usage.output or 0
            usage = replace(usage, output=None, reasoning=None, audio_output=None)
        return self._of(usage, texts, self.model, self.service, outcome, so_far)


def _hidden_asked(body: Mapping[str, Any]) -> bool:
    """Whether a request asks for what may stay unseen: reasoning, speech, predictions that turn out wrong."""
    return asks(body) or bool(body.get("prediction")) or speaks(body)


def text_of(choice: Any, depth: int = 12) -> str:
    """All text that a choice, a delta or an output item shows: answer, thoughts, refusals, arguments of tools.

    Lists and mappings are read down to ``depth`` levels.
    """
    if isinstance(choice, str):
        return choice
    if depth == 0:  # deeper than any provider's shapes
        return ""
    if isinstance(choice, list):
        return "".join([text_of(part, depth - 1) for part in choice])
    if type(choice) is not dict and not isinstance(choice, Mapping):
        return ""
    return "".join([text_of(choice[name], depth - 1) for name in _SHOWN if name in choice])


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _index(choice: Mapping[str, Any]) -> int:
    """Which of the choices or content blocks an event belongs to."""
    index = choice.get("index")
    return index if isinstance(index, int) else 0


class Events:
    """Split an answer that comes in pieces of bytes into server-sent events, or collect it as a whole body.

    Args:
        reading: gets the data of each event, or the whole body.
        streamed: whether events are expected. A body that begins with a brace is read as a whole all the same.
    """

    def __init__(self, reading: Reading, streamed: bool) -> None:
        self.reading, self.streamed, self.rest = reading, streamed, b""
        self._early, self._begun, self._returns = True, False, False  # before anything is understood; carriage returns
        self._split: bool | None = None
        self._frame: Frame | None = None
        self._frames = 0

    def feed(self, piece: bytes) -> bytes:
        """Read a piece; returns the bytes to pass on to the client: whole events, as they came.

        Raises:
            InvalidInput: an event has more than 16 MiB, so that the bytes are no stream of events.
        """
        rest = self.rest + piece if self.rest else piece
        if self._early and not self._begun and (head := rest.removeprefix(_BOM).lstrip()):
            self._begun = True
            self.streamed = self.streamed and not head.startswith(b"{")
        if not self.streamed:
            self.rest = rest
            self.reading.odd(0, len(rest))
            return piece
        passed: list[bytes] = []
        begin, look = 0, len(self.rest) - 1 if self.rest else 0  # what was searched before holds no end
        if self._returns or b"\r" in piece:
            begin = self._feed_returns(rest, look, passed)
        else:
            while (at := rest.find(b"\n\n", look)) >= 0:
                look = at + 2
                block = rest[begin:look]
                begin = look
                if self._take(block):
                    passed.append(block)
        self.rest = rest[begin:]
        if self._early:
            self._early = not self.reading.heard
            self.reading.odd(0, len(self.rest) if self._early else 0)
        if len(self.rest) > _LONGEST_EVENT:
            raise InvalidInput(f"an event of more than {_LONGEST_EVENT:,} bytes; the stream is none of events")
        return b"".join(passed)

    def _feed_returns(self, rest: bytes, look: int, passed: list[bytes]) -> int:
        """Read events whose lines may end with a line feed, a carriage return, or both; returns where the last event
        ended."""
        begin, self._returns = 0, True
        if self._split is not None and rest:
            if rest.startswith(b"\n"):  # the rest of the empty line that ended the last event
                begin = look = 1
                if self._split:
                    passed.append(b"\n")
            self._split = None
        mixed = b"\n\n" in rest or b"\r\r" in rest
        while True:
            at = rest.find(b"\n\r", look)
            if mixed:
                ends = (at, rest.find(b"\n\n", look), rest.find(b"\r\r", look))
                at = min((end for end in ends if end >= 0), default=-1)
            if at < 0:
                return begin
            look = at + 2 + (rest[at + 1 : at + 3] == b"\r\n")
            block = rest[begin:look]
            begin = look
            taken = self._take(block)
            if taken:
                passed.append(block)
            if look == len(rest) and rest.endswith(b"\r"):
                self._split = taken

    def last(self) -> bytes:
        """Read what is left at the end of the stream; returns the bytes to pass on."""
        if not self.streamed or not self.rest:
            return b""
        rest, self.rest = self.rest, b""
        return rest if self._take(rest) else b""

    def _take(self, block: bytes) -> bool:
        """Hand an event to the reading; returns whether to pass it on."""
        frame, reading = self._frame, self.reading
        if frame is not None and (text := frame.text(block)) is not None:
            self._frames = 0
            reading.grow(frame.key, text)
            return True
        data, odd = self._data(block)
        if odd:
            reading.odd(odd)
        if data is None:
            return True
        passed = reading.event(data)
        if reading.delta is None or odd:
            self._frame = None
        elif self._frames < _FRAMES and not (frame is not None and frame.holds(block)):
            self._frames += 1
            self._frame = frame_of(block, reading.delta, self._delta)
        return passed

    def _data(self, block: bytes) -> tuple[bytes | None, int]:
        """The data of an event, None if it has none, and its bytes that are not understood."""
        if block.startswith(b"data:"):
            line = block[5:].strip()
            if b"\n" not in line and not (self._returns and b"\r" in line):
                return line, 0
        fields, odd = [], 0
        for line in block.removeprefix(_BOM).splitlines():
            if line.startswith(b"data:"):
                fields.append(line[5:].strip())
            elif line and not line.startswith(_FIELDS):
                odd += len(line)
        return b"\n".join(fields) if fields else None, odd

    def _delta(self, block: bytes) -> Delta | None:
        data, odd = self._data(block)
        body = loads(data) if data is not None and not odd else None
        return delta_in(self.reading.operation, body) if isinstance(body, dict) else None

    def answer(self, status: int, ended: bool) -> Answer:
        """What is known of the answer once no more comes; ``ended`` says whether it came whole."""
        if self.streamed:
            return self.reading.at_end()
        if ended:
            return self.reading.answer(status, self.rest)
        return Answer(outcome=Outcome.UNKNOWN, least=self.reading.least)
