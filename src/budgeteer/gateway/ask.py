"""A client's request, parsed and checked: its size is bounded, every parser reads it alike, the rest is untouched."""

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
from budgeteer.gateway.forms import Part, fields_of, parse_form
from budgeteer.gateway.keys import Key
from budgeteer.gateway.refusal import Refused, shown
from budgeteer.gateway.routes import ROUTES
from budgeteer.metering.estimate import SCHEMAS, bound_of, prompts_of, tokens_of
from budgeteer.metering.reading import CAP_LIKE, CAPS
from budgeteer.metering.references import Bound, bounded
from budgeteer.metering.thinking import BUDGETS, EFFORTS, SWITCHES
from budgeteer.metering.unseen import HIDDEN, Unseen, given, unseen

COUNTABLE = frozenset({"document"})
"""Parts that an upstream's own count of the tokens bounds, though their bytes do not."""
_COUNTED = 4 * 2**20
"""Bytes of a body whose tokens are counted; a larger one is no prompt of any model, and would keep the thread busy."""
_MODERATION = "omni-moderation-latest"
"""The model that OpenAI takes where a request for moderation names none."""
_UNTHREADED = {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
"""Details of the refusal of a conversation that Anthropic stores: its tool runners then send the messages whole."""
_DEEP = 250
"""Levels of nesting that the JSON writer always accepts."""
_ELSEWHERE = ("models", "route", "fallbacks", "preset", "provider", "plugins")
"""Fields by which a router may call another model or provider, or search; price and bound hold for one model only."""
_DEARER = {"speed": "standard", "inference_geo": "global"}
"""Fields that change the price -> the value that keeps the ordinary price."""
_NARROWS = {
    "data_collection": (str,),
    "zdr": (bool,),
    "require_parameters": (bool,),
    "allow_fallbacks": (bool,),
    "enforce_distillable_text": (bool,),
    "max_price": (dict,),
}
"""Fields of ``provider`` that only take providers out, by what they do with the data, and their types. Those that
choose by name, speed or order are not among them, as who names a dear provider names its price."""
_READ = frozenset({
    "model", "stream", "stream_options", "n", "best_of", "service_tier", "background", "messages", "input", "system",
    "instructions", "prompt", "tools", "prediction", "modalities", "audio", "context_management", *CAP_LIKE, *HIDDEN,
    *_ELSEWHERE, *_DEARER, *(path[0] for path in (*BUDGETS, *EFFORTS, *SWITCHES)),
})  # fmt: skip
_INNER: dict[str, set[str]] = {}
"""Objects of these fields -> the names in them that the gateway reads."""
for _path in (*BUDGETS, *EFFORTS, *SWITCHES):
    if len(_path) > 1:
        _INNER.setdefault(_path[0], set()).add(_path[1])
"""Fields that the gateway reads; some servers ignore case in names, so other spellings of these are refused."""
_VALUES = 6
"""Further values that a body may have for each object or array it may have; embeddings of tokens need 300,000."""
_SLICE = 2**20
"""Bytes that are counted in one step."""
_FIELDS = 200
"""Most fields at the top of a body: far more than any server knows."""
_TOKEN = re.compile(rb'(?s)"[^"\\]*(?:\\.[^"\\]*)*"?|[{[,]')
"""A JSON string, or the character that begins an object, an array or a further value; never backtracks."""


def check_parts(raw: bytes, most: int) -> None:
    """Refuse a body of many small parts before it is parsed, since a parsed object takes 100 times its bytes.

    Args:
        raw: the body.
        most: the objects and arrays it may have; it may have six times as many further values.

    Raises:
        Refused: it has more.
    """
    if len(raw) <= most or not _dense(raw, most):
        return
    containers = values = 0
    for token in _TOKEN.finditer(raw):  # skips strings: prompts are full of brackets and commas
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
    """Whether a body may have more parts, counting those in strings too; in slices, since ``count`` blocks others."""
    containers = values = 0
    for start in range(0, len(raw), _SLICE):
        end = start + _SLICE
        containers += raw.count(b"{", start, end) + raw.count(b"[", start, end)
        values += raw.count(b",", start, end)
        if containers > most or values > _VALUES * most:
            return True
    return False


def parse(raw: bytes, most: int = BODY_PARTS) -> tuple[dict[str, Any], int, bool]:
    """Parse a body.

    Another parser may read a body otherwise if a field stands twice at any level, or if strings have escapes. Without
    escapes, a body that is written again has as many quotation marks as before, unless a field stood twice.

    Args:
        raw: the body.
        most: objects and arrays that it may have.

    Returns:
        The JSON object; the larger of its sizes as it came and written again, in bytes; and whether another parser may
        read it otherwise, so that it has to be written again.

    Raises:
        Refused: it is no JSON object, is nested too deeply, or has more parts than ``most``.
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
    """A client's request.

    Attributes:
        operation, dialect, route: such as chat, openai and chat/completions.
        parts: of a form; () if the body is JSON.
        body: the parsed JSON object; change it by ``set`` and ``drop``.
        changed: whether the body was changed, so that it is written again instead of sent as it came.
        raw: the body's bytes as they came.
        model: the name of the model to call; policies may change it.
        key, chain: the key that pays, and the accounts that are charged.
        user, session: the end user and the session, as the client names them; "" if it does not.
        stream: whether the answer is to be streamed.
        cap: the most output tokens a choice that policies allow; None = no such cap.
        largest: ``max_output`` of the model that was asked for; None = that of the model that is called.
        added: bytes of input that policies added.
        sent: output tokens a choice that the last attempt allowed.
        tightens: output tokens that a choice keeps at least when the cap is lowered to fit the budget; 0 = the cap is
            never lowered for the budget.
        notes: what policies did, for the header x-budgeteer-policy.
        memo: name of a policy -> what it wants to read again after the request.
        saved: units by kind that an answer from the cache saved.
        counted: model, as an upstream has it -> tokens of input at most, by that upstream's own count.
        answer: the upstream's whole answer, b"" if it was streamed; None = no answer.
        held: what its references to stored responses stand for; None = it has none, or nothing bounds them.
        unbounded: why nothing bounds them, and what to send instead; "" if it has none.
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
        "counted",
        "dialect",
        "held",
        "key",
        "largest",
        "memo",
        "model",
        "notes",
        "operation",
        "parts",
        "raw",
        "route",
        "saved",
        "sent",
        "session",
        "stream",
        "tightens",
        "unbounded",
        "user",
    )

    def __init__(self, route: str, raw: bytes, key: Key, parts: int = BODY_PARTS, content_type: str = "") -> None:
        about = ROUTES[route]
        self.operation, self.dialect = about.operation, about.dialect
        self.route, self.raw, self.key = route, raw, key
        self.parts: tuple[Part, ...] = ()
        if about.form:
            self.parts = parse_form(raw, content_type)
            self.body, self._size, self.changed = fields_of(self.parts), len(raw), True
        else:
            self.body, self._size, self.changed = parse(raw, parts)
        if self.operation == "moderations" and self.body.get("model") is None:
            self.set("model", _MODERATION)
        generates = self.operation in CAPS
        model, stream = self.body.get("model"), self.body.get("stream")
        if not isinstance(model, str) or not model:
            raise Refused(400, "invalid_request", f"model is {shown(model)}; name one of GET /v1/models")
        self.model = model
        if not (stream is None or isinstance(stream, bool)):
            raise Refused(400, "invalid_request", f"stream is {shown(stream)}; give true or false")
        if generates and given(self.body.get("background")):  # of a picture it is a colour
            raise Refused(
                400, "not_metered", "the usage of background responses cannot be read here; leave background out"
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
        self.counted: dict[Model, int] = {}
        self.answer: bytes | None = None
        self._unseen: Unseen | None = None
        self.held: Bound | None = None
        self.unbounded = ""
        self._fingerprint = ""
        self._check()
        if not generates:
            return
        _ = self.unseen
        for name in CAP_LIKE:  # caps of other operations are left out
            if name in self.body and name not in CAPS[self.operation]:
                self.drop(name)
        if self.operation not in ("chat", "completions"):
            self.drop("n")
            self.drop("best_of")

    def _check(self) -> None:
        """Refuse fields that change the cost in ways that nothing here bounds."""
        body = self.body
        for name in body:
            if name not in _READ and len(name) <= 80 and (folded := name.casefold()) in _READ:
                raise Refused(
                    400, "ambiguous_field", f"some servers read {shown(name)} as {folded!r}; give only that field"
                )
        for outer in body.keys() & _INNER.keys():
            inside, names = body[outer], _INNER[outer]
            for name in inside if isinstance(inside, Mapping) else ():
                if name not in names and len(name) <= 80 and (folded := name.casefold()) in names:
                    raise Refused(
                        400,
                        "ambiguous_field",
                        f"some servers read {shown(f'{outer}.{name}')} as '{outer}.{folded}'; give only that field",
                    )
        for name in _ELSEWHERE:
            if given(body.get(name)) and not (name == "provider" and _only_narrows(body[name])):
                raise Refused(
                    400,
                    "not_bounded",
                    f"{name} can have another model, provider or search used than the one whose price and bound are "
                    "reserved; leave it out",
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
                "context_management can make the provider call the model again; only edits that clear something are "
                "passed on",
            )
        spoken = body.get("modalities")
        if isinstance(spoken, list) and any(modality not in ("text", "audio") for modality in spoken):
            raise Refused(400, "not_bounded", f"modalities are {shown(spoken)}; only text and audio have prices")

    def set(self, name: str, value: Any) -> None:
        """Set a field of the body."""
        self.body[name] = value
        self.changed = True

    def drop(self, name: str) -> None:
        """Remove a field from the body, if it is there."""
        if self.body.pop(name, None) is not None:
            self.changed = True

    def lower(self, cap: int) -> None:
        """Allow each choice at most ``cap`` output tokens; a lower cap stays."""
        self.cap = cap if self.cap is None else min(self.cap, cap)

    @property
    def choices(self) -> int:
        """The number of completions that are asked for, over all prompts."""
        if self.operation not in ("chat", "completions"):
            return 1
        prompts = prompts_of(self.body) if self.operation == "completions" else 1
        return prompts * max(1, count("n", self.body.get("n") or 1), count("best_of", self.body.get("best_of") or 1))

    @property
    def cap_asked(self) -> int | None:
        """The output cap of a choice that it names, the smallest if it names several; None = none."""
        named = [
            count(name, self.body[name]) for name in CAPS.get(self.operation, ()) if self.body.get(name) is not None
        ]
        return min(named, default=None)

    @property
    def unseen(self) -> Unseen:
        """The parts of the body whose tokens its bytes do not bound, such as pictures."""
        if self._unseen is None:
            self._unseen = unseen(self.body)
        return self._unseen

    def recalled(self, held: Bound) -> None:
        """Take in what the references of the body stand for: they are bounded by it, and bind it to their upstream."""
        self.held, self._unseen = held, bounded(self.unseen, held.tokens)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the body as it came, written as canonical JSON (sorted keys); hexadecimal."""
        if not self._fingerprint:
            canonical = orjson.dumps(orjson.loads(self.raw), option=orjson.OPT_SORT_KEYS)
            self._fingerprint = hashlib.sha256(canonical).hexdigest()
        return self._fingerprint

    def input_bound(self, model: Model) -> int:
        """An upper bound of the input tokens at a model: as its upstream counted them, else by its tokenizer or by the
        body's bytes, with the model's own bounds for input that the body only refers to.

        Raises:
            Refused: the model has no bound for such input.
        """
        parts, bounds = self.unseen, model.bounds
        counted = self.counted.get(model) if self.counted else None
        if counted is not None and set(parts.hidden) <= COUNTABLE:
            return counted + bounds.overhead
        schemas = {name: self.body[name] for name in SCHEMAS if name in self.body}
        if bounds.tokens is not None and self._size <= _COUNTED:
            text = tokens_of(self.body, bounds.tokens, parts.data) + self.added
            again = tokens_of(schemas, bounds.tokens)
        else:
            text = self._size + self.added - sum(len(picture) for picture in parts.data)
            again = len(orjson.dumps(schemas)) if schemas else 0
        try:
            bound = bound_of(text, again, parts, bounds, model.upstream)
        except InvalidInput as error:
            why = f"{self.unbounded}; or set max_input" if self.unbounded else str(error)
            details = _UNTHREADED if "thread" in parts.hidden else None
            message = f"{why} of {model.name} in the gateway's file"
            raise Refused(400, "not_bounded", message, details=details) from None
        return bound if counted is None else min(bound, max(counted, bounds.max_input or 0) + bounds.overhead)


def _only_narrows(provider: Any) -> bool:
    """Whether all fields of ``provider`` only take providers out."""
    return isinstance(provider, dict) and all(
        isinstance(value, _NARROWS.get(name, ())) for name, value in provider.items()
    )


def _only_clears(context: Any) -> bool:
    """Whether all edits of ``context_management`` only remove something."""
    if not context:
        return True
    edits = context.get("edits") if isinstance(context, dict) else None
    return isinstance(edits, list) and all(
        isinstance(edit, dict) and str(edit.get("type")).startswith("clear_") for edit in edits
    )


def user_of(body: Mapping[str, Any]) -> str:
    """The end user that the body names, at most 200 characters; "" if it names none."""
    metadata = body.get("metadata")
    user = body.get("user") or (metadata.get("user_id") if isinstance(metadata, dict) else None)
    return user[:200] if isinstance(user, str) else ""
