"""A request as it came, and what is sent upstream for it: bounded, unambiguous, otherwise untouched."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from budgeteer.adapters.metering import Metering, Planned
from budgeteer.adapters.reading import CAP_LIKE, CAPS, Reading, ask_for_usage
from budgeteer.errors import InvalidInput
from budgeteer.gateway.accounts import Chain
from budgeteer.gateway.config import Model
from budgeteer.gateway.keys import Key
from budgeteer.gateway.refusal import Refused
from budgeteer.ledger.estimate import input_bound
from budgeteer.usage import Usage, count

ROUTES = {
    "chat/completions": ("chat", "openai"),
    "completions": ("completions", "openai"),
    "responses": ("responses", "openai"),
    "embeddings": ("embeddings", "openai"),
    "messages": ("messages", "anthropic"),
}
"""Path after /v1/ -> operation and dialect."""
_ONCE = tuple(
    f'"{name}"'.encode()
    for name in ("model", "stream", "stream_options", "n", "best_of", "service_tier", "background", *CAP_LIKE)
)
_MARKS = tuple(
    f'"{name}"'.encode()
    for name in (
        "image_url", "input_image", "image", "input_audio", "file", "input_file", "document", "video_url", "audio",
        "previous_response_id", "conversation", "prompt_id",
    )
)  # fmt: skip
"""What makes the input's bytes no bound of its tokens; without any of these the body need not be walked."""
_DEEP = 200
"""Levels of nesting that can always be written again."""
_OWN_TOOLS = frozenset({"function", "custom"})


def parse(raw: bytes) -> tuple[dict[str, Any], bool]:
    """A body, and whether another parser may read it otherwise: a field twice, or a name with escapes.

    Raises:
        Refused: it is no JSON object.
    """
    try:
        body = orjson.loads(raw)
    except ValueError as error:
        raise Refused(400, "invalid_json", f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise Refused(400, "invalid_json", "the body is not a JSON object")
    if raw.count(b"[") + raw.count(b"{") > _DEEP:
        try:
            orjson.dumps(body)
        except TypeError:
            raise Refused(400, "invalid_json", f"the body is nested deeper than {_DEEP} levels") from None
    return body, b"\\u" in raw or any(raw.count(name) > 1 for name in _ONCE)


class Ask:
    """What a client asks for.

    Attributes:
        operation, dialect, route: such as chat, openai, chat/completions.
        body: parsed; change it by ``set``.
        raw: as it came.
        model: the name that is asked for; policies may change it.
        key, chain: who pays.
        user, session: for whom, as the client says; "" if it does not.
        stream: whether the answer is to be streamed.
        cap: the output cap that a policy sets, at most; None = none.
        largest: ``max_output`` of the model that was asked for; None = of the one that is called.
        added: bytes of input that policies put in.
        sent: the cap of a choice, as it was sent last.
        tightens: the least output that the cap may be lowered to where the budget does not cover it; 0 = never.
        notes: what policies did, for the header.
        memo: what a policy wants to know at the end, by its name.
        saved: units that a policy's own answer did not cost.
        answer: a whole answer of an upstream that was not streamed, b"" if it was; None: there is none.
    """

    __slots__ = (
        "_changed", "_input", "added", "answer", "body", "cap", "chain", "dialect", "key", "largest", "memo", "model",
        "notes", "operation", "raw", "route", "saved", "sent", "session", "stream", "tightens", "user",
    )  # fmt: skip

    def __init__(self, route: str, raw: bytes, key: Key) -> None:
        self.operation, self.dialect = ROUTES[route]
        self.route, self.raw, self.key = route, raw, key
        self.body, self._changed = parse(raw)
        model, stream = self.body.get("model"), self.body.get("stream")
        if not isinstance(model, str) or not model:
            raise Refused(400, "invalid_request", f"model is {model!r}; name one of GET /v1/models")
        self.model = model
        if not (stream is None or isinstance(stream, bool)):
            raise Refused(400, "invalid_request", f"stream is {stream!r}; give true or false")
        if self.body.get("background"):
            raise Refused(
                400, "not_metered", "background responses tell their usage to nobody here; leave background out"
            )
        self.stream = bool(stream) and self.operation != "embeddings"
        self.chain: Chain = ()
        self.user = self.session = ""
        self.cap: int | None = None
        self.largest: int | None = None
        self.tightens = self.added = self.sent = 0
        self.notes: list[str] = []
        self.memo: dict[str, Any] = {}
        self.saved: Mapping[str, int] = {}
        self.answer: bytes | None = None
        self._input: int | None = None
        for name in CAP_LIKE:  # those that are not the operation's own are left out
            if name in self.body and name not in CAPS[self.operation]:
                self.drop(name)

    def set(self, name: str, value: Any) -> None:
        """Change a field of the body."""
        self.body[name] = value
        self._changed = True

    def drop(self, name: str) -> None:
        """Leave a field of the body out."""
        if self.body.pop(name, None) is not None:
            self._changed = True

    def lower(self, cap: int) -> None:
        """Let no choice be longer."""
        self.cap = cap if self.cap is None else min(self.cap, cap)

    @property
    def choices(self) -> int:
        """How many answers are asked for."""
        if self.operation in ("chat", "completions"):
            return max(1, count("n", self.body.get("n") or 1), count("best_of", self.body.get("best_of") or 1))
        return 1

    def input_bound(self, model: Model) -> int:
        """Most tokens of input: the bytes of the body, but for pictures and what it does not show."""
        bounds, body, size = model.bounds, self.body, len(self.raw) + self.added
        tools = body.get("tools")
        hosted = isinstance(tools, list) and any(
            not isinstance(tool, dict) or str(tool.get("type", "function")) not in _OWN_TOOLS for tool in tools
        )
        if hosted or body.get("web_search_options") is not None:
            if bounds.max_input is None:
                raise Refused(400, "not_bounded", "tools that the provider runs read what nobody can bound; "
                                                  f"set max_input for {model.name} to allow them")  # fmt: skip
            return max(bounds.max_input, math.ceil(size * bounds.margin)) + bounds.overhead
        if b"\\u" in self.raw or isinstance(body.get("prompt"), dict) or any(mark in self.raw for mark in _MARKS):
            try:
                return input_bound(body, bounds)
            except InvalidInput as error:
                raise Refused(400, "not_bounded", str(error)) from None
        return math.ceil(size * bounds.margin) + bounds.overhead


@dataclass(frozen=True, slots=True)
class Prepared:
    """One attempt before it is made; ``notes`` are for the header, such as the cap that was chosen."""

    content: bytes
    planned: Planned
    reading: Reading
    notes: tuple[str, ...]


def prepare(ask: Ask, model: Model, metering: Metering, dialect_name: str, most: int | None = None) -> Prepared:
    """What to send to an upstream's model, and what it can cost.

    Args:
        ask: the request.
        model: of the upstream.
        metering: for the units.
        dialect_name: the provider's, for records.
        most: output tokens of a choice that the budget leaves; None = as asked.

    Raises:
        Refused: it cannot be bounded, or is above a cap of the key.
        UnknownPrice: money is counted and the model has no price.
    """
    operation, key = ask.operation, ask.key
    body = dict(ask.body)
    changed = ask._changed
    if body["model"] != model.upstream:
        body["model"], changed = model.upstream, True
    if ask._input is None:
        ask._input = ask.input_bound(model)
    if key.max_input is not None and ask._input > key.max_input:
        raise Refused(400, "input_too_large", f"the request can be {ask._input:,} tokens of input, since bytes "
                                              f"bound tokens; this key allows {key.max_input:,}")  # fmt: skip
    notes: tuple[str, ...] = ()
    if operation == "embeddings":
        worst, choices, cap = Usage(input=ask._input, output=0), 1, None
    else:
        given = {name: count(name, body[name]) for name in CAPS[operation] if body.get(name) is not None}
        largest = min(one for one in (model.bounds.max_output, key.max_output) if one is not None)
        asked = min(given.values()) if given else largest
        if not ask.tightens:
            _check_cap(ask, asked, model)
        cap = max(1, min(one for one in (asked, largest, ask.cap, most) if one is not None))
        if cap == largest and (not given or asked > largest):
            notes = (f"cap={cap}",)
        for name in given or CAPS[operation][:1]:
            if body.get(name) != cap:
                body[name], changed = cap, True
        choices, ask.sent = ask.choices, cap
        worst = Usage(input=ask._input, output=choices * (cap + model.bounds.hidden_reasoning))
        changed = _limit_reasoning(body, key) or changed
    hides = ask_for_usage(operation, body)
    service = body.get("service_tier")
    planned = metering.plan(
        dialect_name, operation, model.price, worst, service if isinstance(service, str) else "",
        cap=cap, choices=choices,
    )  # fmt: skip
    content = orjson.dumps(body) if changed or hides else ask.raw
    return Prepared(content, planned, Reading(operation, body, metering, model.price, hides), notes)


def _check_cap(ask: Ask, asked: int, model: Model) -> None:
    """Refuse a cap above what the model that was asked for may make; one that is only above another's is lowered."""
    largest, of_key = ask.largest or model.bounds.max_output, ask.key.max_output
    if of_key is not None and asked > of_key:
        raise Refused(400, "output_too_large", f"{asked:,} tokens of output are asked for; this key may make "
                                               f"{of_key:,} (max_output of the key)")  # fmt: skip
    if largest is not None and asked > largest:
        name = ask.body["model"]
        raise Refused(400, "output_too_large", f"{asked:,} tokens of output are asked for; {name} may make {largest:,} "
                      "here: raise max_output of this model in the gateway's TOML file, or ask for less")  # fmt: skip


def _limit_reasoning(body: dict[str, Any], key: Key) -> bool:
    """Lower budgets of thinking to the key's; whether that changed the body."""
    most = key.max_reasoning
    if most is None:
        return False
    changed = False
    for outer, inner in (("thinking", "budget_tokens"), ("reasoning", "max_tokens"), ("", "thinking_token_budget")):
        place = body.get(outer) if outer else body
        if isinstance(place, dict) and isinstance(place.get(inner), int) and place[inner] > most:
            if outer:
                body[outer] = {**place, inner: most}
            else:
                body[inner] = most
            changed = True
    reasoning = body.get("reasoning")
    effort = body.get("reasoning_effort") or (reasoning.get("effort") if isinstance(reasoning, dict) else None)
    if most == 0 and effort not in (None, "none"):
        raise Refused(400, "reasoning_not_allowed", f"effort {effort!r} is asked for; this key allows no reasoning")
    return changed
