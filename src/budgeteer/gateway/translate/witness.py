"""What a provider's own bytes say, beside a translation of them: whether the answer ended, what it used, what failed.

A translator may make up what the provider did not say: LiteLLM ends a cut stream with a reason to stop, and counts
tokens itself where no usage came. What decides about bills is therefore read here, from the bytes as they came.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from budgeteer.core.errors import InvalidInput
from budgeteer.core.usage import Usage
from budgeteer.metering.failures import error_in

_LONGEST = 16 * 1024 * 1024
_STOPS = re.compile(rb'"stopReason"\s*:\s*"\w')
_COUNTS = re.compile(rb'"usage"\s*:\s*\{\s*"')
"""In Bedrock's binary events: their payload is JSON, in which the text of an answer has escaped quotation marks."""
_AROUND = 64


class Witness:
    """Reads the bytes of one answer, whole or streamed: JSON, server-sent events, lines of JSON, or Bedrock's events.

    Args:
        lines: whether a body of the answer is one of lines, as streams are; else it is one JSON object.
        binary: whether the events are AWS's.
        choices: how many answers were asked for.

    Attributes:
        ended: whether the provider said why its answer ended, for each choice.
        over: whether all bytes were read.
        told: whether it told its usage.
        usage: the input that it told before its end, as some do in a stream; None = not yet.
        error: the error that it told in place of the answer or in its middle; None = none.
    """

    def __init__(self, lines: bool, binary: bool = False, choices: int = 1) -> None:
        self._lines, self._binary, self._choices = lines, binary, choices
        self._stopped: set[Any] = set()
        self.ended = self.over = self.told = False
        self.usage: Usage | None = None
        self.error: Any = None
        self._rest = b""

    def feed(self, piece: bytes) -> None:
        """Read a piece."""
        rest = self._rest + piece
        if self._binary:
            self.ended = self.ended or _STOPS.search(rest) is not None
            self.told = self.told or _COUNTS.search(rest) is not None
            self._rest = rest[-_AROUND:]
        elif self._lines:
            *lines, self._rest = rest.split(b"\n")
            for line in lines:
                self._line(line)
        else:
            self._rest = rest
        if len(self._rest) > _LONGEST:
            raise InvalidInput(f"an answer, or a line of it, of more than {_LONGEST:,} bytes")

    def last(self) -> None:
        """Read what is left at the end."""
        rest, self._rest, self.over = self._rest, b"", True
        if not self._binary:
            self._line(rest)

    def _line(self, line: bytes) -> None:
        data = line.strip().removeprefix(b"data:").strip()
        if data.startswith(b"[DONE]"):
            self.ended = True
        if not data.startswith(b"{"):
            return
        try:
            body = orjson.loads(data)
        except ValueError:
            return
        if isinstance(body, dict):
            self._see(body)

    def _see(self, body: dict[str, Any]) -> None:
        self.error = self.error or error_in(body)
        inner = body.get("response") or body.get("message")
        if isinstance(inner, Mapping) and body.get("type") in ("response.completed", "response.incomplete"):
            self.ended, self.told = True, self.told or isinstance(inner.get("usage"), Mapping)
        choices = [*_mappings(body.get("candidates")), *_mappings(body.get("choices"))]
        self._stopped |= {
            choice.get("index", n)
            for n, choice in enumerate(choices)
            if choice.get("finishReason") or choice.get("finish_reason")
        }
        delta, feedback = body.get("delta"), body.get("promptFeedback")
        stop = isinstance(delta, Mapping) and body.get("type") == "message_delta" and delta.get("stop_reason")
        blocked = isinstance(feedback, Mapping) and feedback.get(
            "blockReason"
        )  # Gemini's: there are no candidates then
        stopped = len(self._stopped) >= self._choices
        self.ended = self.ended or stopped or bool(stop or blocked) or body.get("done") is True
        self._use(body, inner)

    def _use(self, body: Mapping[str, Any], inner: Any) -> None:
        """Read the usage: Gemini's events tell all so far, of which the input is known for good; Anthropic's first one
        tells the input."""
        gemini = body.get("usageMetadata")
        if isinstance(gemini, Mapping):
            self.told = True
            self.usage = _input(Usage.from_gemini, gemini) or self.usage
        elif body.get("type") == "message_start" and isinstance(inner, Mapping):
            self.usage = _input(Usage.from_anthropic, inner.get("usage"))
        elif isinstance(body.get("usage"), Mapping) or (
            type(body.get("eval_count")) is int and type(body.get("prompt_eval_count")) is int
        ):
            self.told = True


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [part for part in value if isinstance(part, Mapping)] if isinstance(value, list) else []


def _input(read: Callable[[Any], Usage], usage: Any) -> Usage | None:
    try:
        told = read(usage)
    except InvalidInput:
        return None
    return Usage(input=told.input, cached=told.cached, written=told.written)
