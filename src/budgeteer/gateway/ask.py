"""A request as it came, and what is sent upstream for it: bounded, unambiguous, otherwise untouched."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from budgeteer.core.errors import InvalidInput
from budgeteer.core.usage import count
from budgeteer.gateway.accounts import Chain
from budgeteer.gateway.config import BODY_PARTS, Model
from budgeteer.gateway.fields import check_addresses, check_fields
from budgeteer.gateway.keys import Key
from budgeteer.gateway.refusal import Refused, shown
from budgeteer.metering.call import Metering
from budgeteer.metering.estimate import HIDDEN, Unseen, bound_of, predicted, prompts_of, totals, unseen
from budgeteer.metering.reading import CAP_LIKE, CAPS, Reading, ask_for_usage
from budgeteer.metering.settlement import Planned

EFFORTS = (("", "reasoning_effort"), ("reasoning", "effort"), ("output_config", "effort"),
           ("chat_template_kwargs", "reasoning_effort"))  # fmt: skip
"""Where requests say how much is to be thought: an object, or "" for the body itself, and its field."""
BUDGETS = (("thinking", "budget_tokens"), ("reasoning", "max_tokens"), ("", "thinking_token_budget"),
           ("", "thinking_budget"), ("", "thinking_budget_tokens"), ("", "reasoning_budget"))  # fmt: skip
"""Where they say so in tokens."""
SWITCHES = (("thinking", "type"), ("reasoning", "enabled"), ("", "enable_thinking"),
            ("chat_template_kwargs", "enable_thinking"), ("chat_template_kwargs", "thinking"))  # fmt: skip
"""Where they turn it on."""
ROUTES = {
    "chat/completions": ("chat", "openai"),
    "completions": ("completions", "openai"),
    "responses": ("responses", "openai"),
    "embeddings": ("embeddings", "openai"),
    "messages": ("messages", "anthropic"),
}
"""Path after /v1/ -> operation and dialect."""
_DEEP = 250
"""Levels of nesting that can always be written again."""
_ELSEWHERE = ("models", "route", "fallbacks", "preset", "provider", "plugins")
"""Fields by which a router takes another model or provider, or has it search; the price and the bound are of one."""
_DEARER = {"speed": "standard", "inference_geo": "global"}
"""Fields of a price of their own, and the value that has the ordinary one."""
_READ = frozenset({
    "model", "stream", "stream_options", "n", "best_of", "service_tier", "background", "messages", "input", "system",
    "instructions", "prompt", "tools", "prediction", "modalities", "audio", "context_management", *CAP_LIKE, *HIDDEN,
    *_ELSEWHERE, *_DEARER, *(place or name for place, name in (*BUDGETS, *EFFORTS, *SWITCHES)),
})  # fmt: skip
"""What is looked at here; some servers take a name in other letters for the same."""


_VALUES = 6
"""Further values that a body may have for each object or array; embeddings of tokens need 300,000."""
_SLICE = 2**20
_FIELDS = 200
"""Fields of a body at its top, at most: far more than any server knows."""
_TOKEN = re.compile(rb'(?s)"[^"\\]*(?:\\.[^"\\]*)*"?|[{[,]')
"""A text of JSON, or what begins an object, an array or a further value; never backtracks."""


def check_parts(raw: bytes, most: int) -> None:
    """Refuse a body of many small parts before it is parsed: an object costs 100 times its bytes of memory and time.

    Args:
        raw: the body.
        most: objects and arrays; of further values there may be _VALUES times as many.

    Raises:
        Refused: it has more.
    """
    if len(raw) <= most or not _dense(raw, most):
        return
    containers = values = 0
    for token in _TOKEN.finditer(raw):  # it may be in texts: those of prompts are full of brackets and commas
        first = raw[token.start()]
        if first == 44:
            values += 1
        elif first != 34:
            containers += 1
        if containers > most or values > _VALUES * most:
            raise Refused(
                413, "too_many_parts",
                f"the body has more than {most:,} objects and arrays, or {_VALUES * most:,} values; send fewer, "
                "or raise body_parts of [server]",
            )  # fmt: skip


def _dense(raw: bytes, most: int) -> bool:
    """Whether it may have more parts, texts included; in slices, since nothing else runs while bytes are counted."""
    containers = values = 0
    for start in range(0, len(raw), _SLICE):
        end = start + _SLICE
        containers += raw.count(b"{", start, end) + raw.count(b"[", start, end)
        values += raw.count(b",", start, end)
        if containers > most or values > _VALUES * most:
            return True
    return False


def parse(raw: bytes, most: int = BODY_PARTS) -> tuple[dict[str, Any], int, bool]:
    """A body, its bytes at most, and whether another parser may read it otherwise: a field twice at any level, or a
    text with escapes.

    Written again, a body without escapes has as many quotation marks as before, unless a field was there twice.

    Raises:
        Refused: it is no JSON object, or has more parts than ``most``.
    """
    check_parts(raw, most)
    try:
        body = orjson.loads(raw)
    except ValueError as error:
        raise Refused(400, "invalid_json", f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise Refused(400, "invalid_json", "the body is not a JSON object")
    if len(body) > _FIELDS:
        raise Refused(400, "invalid_json", f"the body has {len(body):,} fields; at most {_FIELDS} are read")
    try:
        again = orjson.dumps(body)
    except TypeError:
        raise Refused(400, "invalid_json", f"the body is nested deeper than {_DEEP} levels") from None
    return body, max(len(raw), len(again)), b"\\u" in raw or raw.count(b'"') != again.count(b'"')


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
        "_changed", "_fingerprint", "_size", "_unseen", "added", "answer", "body", "cap", "chain", "dialect", "key",
        "largest", "memo", "model", "notes", "operation", "raw", "route", "saved", "sent", "session", "stream",
        "tightens", "user",
    )  # fmt: skip

    def __init__(self, route: str, raw: bytes, key: Key, parts: int = BODY_PARTS) -> None:
        self.operation, self.dialect = ROUTES[route]
        self.route, self.raw, self.key = route, raw, key
        self.body, self._size, self._changed = parse(raw, parts)
        model, stream = self.body.get("model"), self.body.get("stream")
        if not isinstance(model, str) or not model:
            raise Refused(400, "invalid_request", f"model is {shown(model)}; name one of GET /v1/models")
        self.model = model
        if not (stream is None or isinstance(stream, bool)):
            raise Refused(400, "invalid_request", f"stream is {shown(stream)}; give true or false")
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
        self._unseen: Unseen | None = None
        self._fingerprint = ""
        self._check()
        _ = self.unseen
        for name in CAP_LIKE:  # those that are not the operation's own are left out
            if name in self.body and name not in CAPS[self.operation]:
                self.drop(name)
        if self.operation not in ("chat", "completions"):
            self.drop("n")
            self.drop("best_of")

    def _check(self) -> None:
        """Refuse what changes the bill in ways that nothing here bounds."""
        body = self.body
        for name in body:
            if name not in _READ and len(name) <= 80 and (folded := name.casefold()) in _READ:
                raise Refused(
                    400, "ambiguous_field", f"some servers take {shown(name)} for {folded!r}; name it so, once"
                )
        for name in _ELSEWHERE:
            if body.get(name):
                raise Refused(400, "not_bounded", f"{name} can bring in another model, provider or search than those "
                                                  "whose price and bound are reserved; leave it out")  # fmt: skip
        for name, ordinary in _DEARER.items():
            if body.get(name) not in (None, ordinary):
                raise Refused(
                    400,
                    "not_bounded",
                    f"{name} {shown(body[name])} has a price of its own; leave it out or give {ordinary!r}",
                )
        if not _only_clears(body.get("context_management")):
            raise Refused(400, "not_bounded", "context_management makes the provider call the model once more; only "
                                              "edits that clear something are passed on")  # fmt: skip
        spoken = body.get("modalities")
        if isinstance(spoken, list) and any(modality not in ("text", "audio") for modality in spoken):
            raise Refused(400, "not_bounded", f"modalities are {shown(spoken)}; only text and audio have prices")

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
        """How many answers are asked for, of all prompts."""
        if self.operation not in ("chat", "completions"):
            return 1
        prompts = prompts_of(self.body) if self.operation == "completions" else 1
        return prompts * max(1, count("n", self.body.get("n") or 1), count("best_of", self.body.get("best_of") or 1))

    @property
    def unseen(self) -> Unseen:
        """What its bytes do not bound."""
        if self._unseen is None:
            self._unseen = unseen(self.body)
        return self._unseen

    @property
    def fingerprint(self) -> str:
        """A hash of what is asked for: that of the body's canonical JSON, as it came."""
        if not self._fingerprint:
            canonical = orjson.dumps(orjson.loads(self.raw), option=orjson.OPT_SORT_KEYS)
            self._fingerprint = hashlib.sha256(canonical).hexdigest()
        return self._fingerprint

    def input_bound(self, model: Model) -> int:
        """Most tokens of input: the bytes of the body, but for pictures and what it does not show."""
        parts = self.unseen
        size = self._size + self.added - sum(len(picture) for picture in parts.data)
        try:
            return bound_of(size, parts, model.bounds)
        except InvalidInput as error:
            raise Refused(400, "not_bounded", f"{error} of {model.name} in the gateway's file") from None


def _only_clears(context: Any) -> bool:
    """Whether edits of the context take away only."""
    if not context:
        return True
    edits = context.get("edits") if isinstance(context, dict) else None
    return isinstance(edits, list) and all(
        isinstance(edit, dict) and str(edit.get("type")).startswith("clear_") for edit in edits
    )


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
    check_fields(ask.body, operation, model.fields)
    if ask.unseen.pictures or ask.unseen.hidden:
        check_addresses(ask.body, model.media)
    body = dict(ask.body)
    changed = ask._changed
    if body["model"] != model.upstream:
        body["model"], changed = model.upstream, True
    read = ask.input_bound(model)
    if key.max_input is not None and read > key.max_input:
        raise Refused(400, "input_too_large", f"the request can be {read:,} tokens of input, since bytes "
                                              f"bound tokens; this key allows {key.max_input:,}")  # fmt: skip
    made, choices, cap = 0, 1, None
    notes: tuple[str, ...] = ()
    if operation == "embeddings":
        pass
    else:
        given = {name: count(name, body[name]) for name in CAPS[operation] if body.get(name) is not None}
        largest = min(bound for bound in (model.bounds.max_output, key.max_output) if bound is not None)
        asked = min(given.values()) if given else largest
        if not ask.tightens:
            _check_cap(ask, asked, model)
        cap = max(1, min(bound for bound in (asked, largest, ask.cap, most) if bound is not None))
        if cap == largest and (not given or asked > largest):
            notes = (f"cap={cap}",)
        own = model.cap if operation == "chat" else CAPS[operation][0]
        for name in CAPS[operation]:  # the server may not know the others, or refuse them
            if name != own and name in body:
                del body[name]
                changed = True
        if body.get(own) != cap:
            body[own], changed = cap, True
        choices, ask.sent = ask.choices, cap
        made = choices * (cap + model.bounds.hidden_reasoning + predicted(body))
        changed = _limit_reasoning(body, key) or changed
    hides = ask_for_usage(operation, body)
    service = body.get("service_tier")
    worst = totals(body, read, made, heard=bool(ask.unseen.hidden))
    planned = metering.plan(
        dialect_name, operation, model.price, worst, service if isinstance(service, str) else "",
        cap=cap, choices=choices,
    )  # fmt: skip
    content = orjson.dumps(body) if changed or hides else ask.raw
    reading = Reading(operation, body, metering, hides)
    reading.hides |= model.bounds.hidden_reasoning > 0
    return Prepared(content, planned, reading, notes)


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
    """Lower budgets of thinking to the key's; whether that changed the body.

    Raises:
        Refused: the key allows none, and some is asked for by an effort or a switch.
    """
    most = key.max_reasoning
    if most is None:
        return False
    changed = False
    for place, name in BUDGETS:
        value = _at(body, place, name)
        if value is not None and not (type(value) is int and 0 <= value <= most):  # below 0 some servers take for ever
            if place:
                body[place] = {**body[place], name: most}
            else:
                body[name] = most
            changed = True
    if most > 0:
        return changed
    for place, name in (*EFFORTS, *SWITCHES):
        value = _at(body, place, name)
        if value in _OFF or (place == "output_config" and _at(body, "thinking", "type") == "disabled"):
            continue
        raise Refused(
            400, "reasoning_not_allowed",
            f"{place + '.' if place else ''}{name} {shown(value)} is asked for; this key allows no reasoning",
        )  # fmt: skip
    return changed


_OFF = (None, False, "none", "disabled")


def _at(body: Mapping[str, Any], place: str, name: str) -> Any:
    """A field of the body, or of an object in it."""
    outer = body.get(place) if place else body
    return outer.get(name) if isinstance(outer, Mapping) else None
