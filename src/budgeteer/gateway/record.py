"""The record of a request. Its fields are listed in :class:`Record` only: the columns of the store, the JSON of the
admin API and of the log, the OpenAPI schema, the CSV file and the pages of the dashboard are all derived from it.

To add a field, add one line here. Older stores get its column when they are opened, and older records its default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from functools import cache
from typing import Any

import orjson

from budgeteer.gateway.damage import WRONG, damaged_store
from budgeteer.metering.outcome import Outcome

MOMENT, DURATION, TOKENS, FLAG = "ms since 1970 (UTC)", "ms", "tokens", "0 or 1"
"""The units that a field can have; pages format its value by them."""
_TYPES = {
    "str": "text",
    "Outcome": "text",
    "int": "whole",
    "int | None": "whole",
    "Mapping[str, int]": "units",
    "tuple[AttemptRecord, ...]": "attempts",
}


@dataclass(frozen=True, slots=True)
class Column:
    """The description of a record's field, for storing and for showing it.

    Attributes:
        name: its name.
        kind: "text", "whole" (a whole number), "units" (kind -> units) or "attempts".
        text: what it holds, in one sentence.
        unit: MOMENT, DURATION, TOKENS, FLAG or "".
        label: its name on the page of one request.
        heading: its name in lists of requests; "" leaves it out of them.
        filters: whether the admin API can filter by it.
        groups: whether spending can be grouped by it.
        optional: whether it may be None.
        default: its value in records that were written before the field existed.
    """

    name: str
    kind: str
    text: str
    unit: str
    label: str
    heading: str
    filters: bool
    groups: bool
    optional: bool
    default: Any

    @property
    def is_json(self) -> bool:
        """Whether the store keeps it as JSON text."""
        return self.kind in ("units", "attempts")

    @property
    def sql(self) -> str:
        """Its type in SQL."""
        return "INTEGER" if self.kind == "whole" else "TEXT NOT NULL"

    @property
    def schema(self) -> dict[str, Any]:
        """Its JSON Schema."""
        shapes: dict[str, dict[str, Any]] = {
            "text": {"type": "string"},
            "whole": {"type": ["integer", "null"] if self.optional else "integer"},
            "units": {"type": "object", "additionalProperties": {"type": "integer"}},
            "attempts": {"type": "array", "items": {"$ref": "#/components/schemas/Attempt"}},
        }
        shape = shapes[self.kind]
        return {**shape, "description": f"{self.text} ({self.unit})" if self.unit else self.text}


def _field(
    text: str,
    label: str = "",
    *,
    unit: str = "",
    heading: str = "",
    filters: bool = False,
    groups: bool = False,
    default: Any = "",
) -> Any:
    about = {"text": text, "unit": unit, "label": label, "heading": heading, "filters": filters, "groups": groups}
    if isinstance(default, dict | list):
        return field(default_factory=type(default), metadata=about)
    return field(default=default, metadata=about)


def _label(text: str, label: str, *, heading: str = "", filters: bool = True) -> Any:
    """A text field to filter and group by."""
    return _field(text, label, heading=heading, filters=filters, groups=filters)


def _tokens(text: str, label: str, *, heading: str = "") -> Any:
    return _field(text, label, unit=TOKENS, heading=heading, default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """The record of one attempt of a request at an upstream."""

    upstream: str = _field("The upstream that was called", "upstream")
    outcome: Outcome = _field("How it ended: ok, cut, unknown or rejected", "ended", default=Outcome.UNKNOWN)  # noqa: RUF009
    input: int = _tokens("Input", "in")
    output: int = _tokens("Output", "out")
    cached: int = _tokens("Input that the provider had cached", "cached")
    reasoning: int = _tokens("Output that is reasoning", "reasoning")
    units: Mapping[str, int] = _field("What was charged, by kind", "charged", default={})
    wasted: int = _tokens("Tokens charged that no client got whole", "wasted")
    estimated: int = _field("Whether the charge is an estimate", "estimated", unit=FLAG, default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The record of one request; docs/gateway.md has a table of its fields."""

    id: str = _field("The request's id")
    at: int = _field("When it came", "time", unit=MOMENT, heading="time", default=0)
    key: str = _label("Id of the key that pays", "key", heading="key")
    path: str = _field("The account that is charged", "account")
    user: str = _label("The end user, as the client says", "user")
    session: str = _label("The session, as the client says", "session")
    conversation: str = _label("The session, or a keyed hash of how the conversation begins", "conversation")
    tag: str = _label("A tag of the client", "tag")
    stage: str = _label("What the request is for, as the client says", "stage", heading="stage")
    operation: str = _label("chat, completions, responses, embeddings or messages", "operation")
    model: str = _label("The model that was asked for", "model", heading="model")
    upstream: str = _label("The upstream of the last attempt", "upstream")
    answered: str = _field("The model that answered, as the provider says", "answered by")
    stream: int = _field("Whether the answer was streamed", "streamed", unit=FLAG, default=0)
    status: int = _field("The HTTP status of the answer; 0 while it runs", filters=True, default=0)
    outcome: Outcome = _field(  # noqa: RUF009
        "How it ended: ok, cut, left, failed, refused or cached",
        "outcome",
        heading="outcome",
        filters=True,
        groups=True,
        default=Outcome.FAILED,
    )
    reason: str = _field("Why it ended so", "reason", heading="reason", groups=True)
    scope: str = _field("The account whose limit refused it", "refused by")
    refused_kind: str = _field("The kind of units whose limit refused it", "refused for")
    refused_limit: str = _field("The limit that refused it, such as $5/day", "limit that refused it")
    requested: int | None = _field("Units of that kind that it may have used", default=None)
    available: int | None = _field("Units of that kind that were left", default=None)
    policy: str = _field("What policies did", "policies")
    input: int = _tokens("Input, of all attempts", "input tokens", heading="in")
    output: int = _tokens("Output, of all attempts", "output tokens", heading="out")
    cached: int = _tokens("Input that the provider had cached", "of the input cached")
    reasoning: int = _tokens("Output that is reasoning", "of the output reasoning")
    wasted: int = _tokens("Tokens charged that no client got whole", "wasted tokens")
    estimated: int = _field("Whether the charge is an estimate", "charge estimated", unit=FLAG, default=0)
    attempts: int = _field("Calls to upstreams", "attempts", default=0)
    bound: int | None = _field("Tokens of input that it could have, at most", "input at most", default=None)
    choices: int | None = _field("Answers that were asked for", "choices", default=None)
    cap: int | None = _field("Tokens of output of a choice, at most, as sent upstream", "output cap", default=None)
    cap_asked: int | None = _field("The same as the client asked; none if it named none", "cap asked for", default=None)
    units: Mapping[str, int] = _field("What was charged, by kind", "charged", heading="charged", default={})
    reserved: Mapping[str, int] = _field("What was reserved for what was charged, by kind", "reserved", default={})
    overshoot: Mapping[str, int] = _field("What was charged above its reservation, by kind", "overshoot", default={})
    saved: Mapping[str, int] = _field("What an answer of the cache cost when it was made", "saved", default={})
    calls: tuple[AttemptRecord, ...] = _field("The attempts, in order", "calls", default=())
    ms: int = _field("Until the end of the answer", "took", unit=DURATION, heading="took", default=0)
    first_ms: int | None = _field("Until the first bytes of a stream", "first bytes after", unit=DURATION, default=None)

    @property
    def paid(self) -> bool:
        """Whether anything was charged for the request."""
        return any(getattr(self, name) for name in PAID)

    @classmethod
    def of_json(cls, data: Mapping[str, Any]) -> Record:
        """A record from its JSON, as an older or newer version may have written it: unknown fields are ignored."""
        known = _known(cls, data)
        if "calls" in known:
            known["calls"] = tuple(AttemptRecord(**_known(AttemptRecord, call)) for call in known["calls"])
        return cls(**known)

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Record:
        """A record from its row in the store.

        Raises:
            LedgerUnavailable: the row is of no record, so the store is damaged.
        """
        try:
            return cls.of_json({name: orjson.loads(row[name]) if name in JSON else row[name] for name in NAMES})
        except WRONG as error:
            raise damaged_store("a record in the gateway's store", repr(error)) from error

    def as_json(self) -> dict[str, Any]:
        """The record's fields by name, as the admin API returns them."""
        values: dict[str, Any] = {name: getattr(self, name) for name in NAMES}
        values["calls"] = [_plain(call) for call in self.calls]
        return values

    def as_row(self) -> tuple[Any, ...]:
        """The record's row for the store, in the order of NAMES."""
        return tuple(
            [orjson.dumps(getattr(self, name)).decode() if name in JSON else getattr(self, name) for name in NAMES]
        )


def columns(kind: type = Record) -> tuple[Column, ...]:
    """The fields of Record or AttemptRecord, in their order."""
    return tuple(_column(declared) for declared in fields(kind))


def _column(declared: Field[Any]) -> Column:
    default = declared.default_factory() if callable(declared.default_factory) else declared.default
    kind = _TYPES[str(declared.type)]
    return Column(name=declared.name, kind=kind, optional=default is None, default=default, **declared.metadata)


def _known(kind: type, data: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: data[name] for name in _names(kind) if name in data}
    if "outcome" in values:
        values["outcome"] = Outcome(values["outcome"])
    return values


def _plain(call: AttemptRecord) -> dict[str, Any]:
    return {name: getattr(call, name) for name in _names(AttemptRecord)}


@cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(declared.name for declared in fields(kind))


COLUMNS = columns()
NAMES = tuple(column.name for column in COLUMNS)
JSON = frozenset(column.name for column in COLUMNS if column.is_json)
MAPS = tuple(column.name for column in COLUMNS if column.kind == "units")
PAID = ("input", "output", "estimated")
"""Fields of which at least one is above 0 if anything was charged."""
