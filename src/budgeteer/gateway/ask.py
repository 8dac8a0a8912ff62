"""A request as it came, and what is sent upstream for it: bounded, unambiguous, otherwise untouched."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import orjson

from budgeteer.core.errors import InvalidInput
from budgeteer.core.usage import count
from budgeteer.gateway.accounts import Chain
from budgeteer.gateway.config import BODY_PARTS, Model
from budgeteer.gateway.keys import Key
from budgeteer.gateway.refusal import Refused, shown
from budgeteer.metering.estimate import HIDDEN, Unseen, bound_of, prompts_of, unseen
from budgeteer.metering.reading import CAP_LIKE, CAPS

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
                413,
                "too_many_parts",
                f"the body has more than {most:,} objects and arrays, or {_VALUES * most:,} values; send fewer, "
                "or raise body_parts of [server]",
            )


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
        body: the parsed JSON object; change it by ``set`` and ``drop``.
        changed: whether the body was changed, so that it is written again instead of sent as it came.
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
        "_fingerprint",
        "_size",
        "_unseen",
        "added",
        "answer",
        "body",
        "cap",
        "chain",
        "changed",
        "dialect",
        "key",
        "largest",
        "memo",
        "model",
        "notes",
        "operation",
        "raw",
        "route",
        "saved",
        "sent",
        "session",
        "stream",
        "tightens",
        "user",
    )

    def __init__(self, route: str, raw: bytes, key: Key, parts: int = BODY_PARTS) -> None:
        self.operation, self.dialect = ROUTES[route]
        self.route, self.raw, self.key = route, raw, key
        self.body, self._size, self.changed = parse(raw, parts)
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
                raise Refused(
                    400,
                    "not_bounded",
                    f"{name} can bring in another model, provider or search than those "
                    "whose price and bound are reserved; leave it out",
                )
        for name, ordinary in _DEARER.items():
            if body.get(name) not in (None, ordinary):
                raise Refused(
                    400,
                    "not_bounded",
                    f"{name} {shown(body[name])} has a price of its own; leave it out or give {ordinary!r}",
                )
        if not _only_clears(body.get("context_management")):
            raise Refused(
                400,
                "not_bounded",
                "context_management makes the provider call the model once more; only "
                "edits that clear something are passed on",
            )
        spoken = body.get("modalities")
        if isinstance(spoken, list) and any(modality not in ("text", "audio") for modality in spoken):
            raise Refused(400, "not_bounded", f"modalities are {shown(spoken)}; only text and audio have prices")

    def set(self, name: str, value: Any) -> None:
        """Change a field of the body."""
        self.body[name] = value
        self.changed = True

    def drop(self, name: str) -> None:
        """Leave a field of the body out."""
        if self.body.pop(name, None) is not None:
            self.changed = True

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
