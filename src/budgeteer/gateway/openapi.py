"""The OpenAPI document of the gateway's HTTP routes; docs/gateway.md describes them for people."""

from __future__ import annotations

from typing import Any

from budgeteer import __version__
from budgeteer.gateway.filters import FILTERS
from budgeteer.gateway.queries import BY
from budgeteer.gateway.record import AttemptRecord, Record, columns
from budgeteer.gateway.routes import ROUTES, Route
from budgeteer.metering.reading import CAPS

_TEXT: dict[str, Any] = {"type": "string"}
_WHOLE: dict[str, Any] = {"type": "integer", "minimum": 0}
_INT: dict[str, Any] = {"type": "integer"}
_MAYBE: dict[str, Any] = {"type": ["integer", "null"]}
_ANY: dict[str, Any] = {"type": "object"}
_LIMITS = {"type": "array", "items": {"type": "string", "examples": ["$5/day", "requests:60/60s"]}}
_CAP = {"type": ["integer", "null"], "minimum": 0}
_KEY_FIELDS: dict[str, Any] = {
    "name": {"type": "string", "maxLength": 200},
    **dict.fromkeys(("limits", "per_user", "per_session", "per_tag"), _LIMITS),
    "per_model": {"type": "object", "additionalProperties": _LIMITS},
    "models": {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
    **dict.fromkeys(("max_input", "max_output", "max_reasoning", "expires"), _CAP),
}
_NUMBERS = ("status", "since", "until", "limit", "before", "step")


def _object(required: tuple[str, ...] = (), closed: bool = True, /, **properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return {**schema, "additionalProperties": False} if closed else schema


def _fields(kind: type) -> dict[str, Any]:
    """The schema of a dataclass of records: Record or AttemptRecord."""
    properties = {column.name: column.schema for column in columns(kind)}
    return _object(tuple(properties), **properties)


def _schemas() -> dict[str, Any]:
    key = {
        "id": _TEXT,
        "path": _TEXT,
        **_KEY_FIELDS,
        "revoked": {"type": "boolean"},
        "created": _WHOLE,
        "rotated": _MAYBE,
    }
    balance = {
        "path": _TEXT,
        "kind": _TEXT,
        "limit": _MAYBE,
        "window": _TEXT,
        **dict.fromkeys(("settled", "reserved", "overshoot"), _INT),
        **dict.fromkeys(("left", "resets"), _MAYBE),
    }
    own = {
        "scope": _TEXT,
        "kind": _TEXT,
        "limit": _WHOLE,
        "window": _TEXT,
        **dict.fromkeys(("used", "reserved", "left"), _INT),
        "resets_at": _MAYBE,
        "text": _TEXT,
    }
    change = {"at": _WHOLE, **dict.fromkeys(("who", "by", "action", "key", "path", "name"), _TEXT), "fields": _ANY}
    error = _object(("message", "type", "code"), False, message=_TEXT, type=_TEXT, code=_TEXT, budget=_ANY)
    return {
        "Key": _object(tuple(key), **key),
        "NewKey": _object(path=_TEXT, **_KEY_FIELDS),
        "Change": _object(tuple(change), **change),
        "Balance": _object(tuple(balance), **balance),
        "OwnLimit": _object(tuple(own), **own),
        "Record": _fields(Record),
        "Attempt": _fields(AttemptRecord),
        "Error": _object(("error",), error=error),
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(name: str) -> dict[str, Any]:
    return {"type": "array", "items": _ref(name)}


def _json(schema: dict[str, Any], text: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _query(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "in": "query", "schema": _WHOLE if name in _NUMBERS else _TEXT} for name in names]


def _admin(
    answer: dict[str, Any],
    *parameters: dict[str, Any],
    body: dict[str, Any] | None = None,
    status: str = "200",
    summary: str,
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": summary,
        "security": [{"admin": []}],
        "parameters": list(parameters),
        "responses": {
            status: _json(answer, "Done"),
            "400": _json(_ref("Error"), "A value cannot be used"),
            "401": _json(_ref("Error"), "The admin key is missing or wrong"),
            "403": _json(_ref("Error"), "No admin key is set, or the admin's role does not allow it"),
            "404": _json(_ref("Error"), "There is no such key or request"),
            "503": _json(_ref("Error"), "The store does not answer"),
        },
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return operation


def _paths() -> dict[str, Any]:
    id_parameter = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    key = _object(("key",), key=_ref("Key"))
    records = _object(("requests", "next"), requests=_list("Record"), next=_MAYBE)
    spend = _object(
        ("by", "kind", "rows"), by={"type": "array", "items": _TEXT}, kind=_TEXT, rows={"type": "array", "items": _ANY}
    )
    by = {"name": "by", "in": "query", "schema": {**_TEXT, "examples": list(BY)}}
    filters, amount = _query(*FILTERS), _object(("amount",), amount={**_TEXT, "examples": ["$5", "500k"]})
    balances = _object(("balances",), balances=_list("Balance"))
    csv = _admin(_ANY, *filters, *_query("limit", "before"), summary="Requests as CSV")
    csv["responses"]["200"] = {"description": "A table", "content": {"text/csv": {}}}
    paths = {
        "/admin/api/keys": {
            "get": _admin(_object(("keys",), keys=_list("Key")), summary="All keys"),
            "post": _admin(
                _object(("key", "secret"), key=_ref("Key"), secret=_TEXT),
                body=_ref("NewKey"),
                status="201",
                summary="Make a key; its secret is in this answer only",
            ),
        },
        "/admin/api/keys/{id}": {
            "get": _admin(
                _object(("key", "balances"), key=_ref("Key"), balances=_list("Balance")),
                id_parameter,
                summary="A key and what is left of its limits",
            ),
            "patch": _admin(key, id_parameter, body=_object(**_KEY_FIELDS), summary="Change a key"),
        },
        "/admin/api/keys/{id}/revoke": {"post": _admin(key, id_parameter, summary="Revoke a key, for good")},
        "/admin/api/keys/{id}/top-up": {
            "post": _admin(key, id_parameter, body=amount, summary="Raise a limit of a key")
        },
        "/admin/api/keys/{id}/rotate": {
            "post": _admin(
                _object(("key", "secret"), key=_ref("Key"), secret=_TEXT),
                id_parameter,
                body=_object(overlap={**_TEXT, "examples": ["24h", "0"]}),
                summary="Give a key a new secret; its account stays, and the present secret for the overlap",
            )
        },
        "/admin/api/balances": {
            "get": _admin(balances, *_query("path"), summary="What is used and left of each limit")
        },
        "/admin/api/spend": {"get": _admin(spend, by, *_query("kind", "step"), *filters, summary="Spending in groups")},
        "/admin/api/requests": {
            "get": _admin(records, *filters, *_query("limit", "before"), summary="Requests, newest first")
        },
        "/admin/api/requests.csv": {"get": csv},
        "/admin/api/requests/{id}": {
            "get": _admin(_object(("request",), request=_ref("Record")), id_parameter, summary="One request")
        },
        "/admin/api/live": {"get": _admin(_object(("live",), live=_list("Record")), summary="Requests under way")},
        "/admin/api/summary": {
            "get": _admin(_ANY, *filters, summary="Sums over requests, and the state of this replica")
        },
        "/admin/api/changes": {
            "get": _admin(
                _object(("changes", "next"), changes=_list("Change"), next={"type": ["string", "null"]}),
                *_query("key", "limit"),
                {"name": "before", "in": "query", "schema": _TEXT},
                summary="Changes of keys, newest first, with who made them",
            )
        },
        "/admin/api/upstreams": {
            "get": _admin(_object(("upstreams",), upstreams={"type": "array", "items": _ANY}), summary="Upstreams")
        },
        "/healthz": {
            "get": {"summary": "Whether the gateway serves", "responses": {"200": {"description": "It serves"}}}
        },
    }
    for path, route in ROUTES.items():
        paths[f"/v1/{path}"] = {"post": _spending(route)}
    listed = {"200": _json(_ANY, "Models of the key"), "401": _json(_ref("Error"), "The key is missing or not valid")}
    paths["/v1/models"] = {"get": {"summary": "Models", "security": [{"key": []}], "responses": listed}}
    sums = _object((), False, **dict.fromkeys(("requests", "refused", "input", "output", "money"), _WHOLE))
    budget = _object(
        ("object", "key", "limits", "last_24_hours", "last_30_days"),
        object=_TEXT,
        key=_ANY,
        limits={"type": "array", "items": _ref("OwnLimit")},
        last_24_hours=sums,
        last_30_days=sums,
    )
    own = {"200": _json(budget, "Limits, balance and spending of the key"), "401": listed["401"]}
    paths["/v1/budget"] = {"get": {"summary": "The key's own budget", "security": [{"key": []}], "responses": own}}
    return {**paths, **_stored(listed["401"])}


def _stored(unknown_key: dict[str, Any]) -> dict[str, Any]:
    """The routes of stored responses, which are free."""
    id_parameter = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "maxLength": 256}}
    answers = {
        "200": _json(_ANY, "What the upstream answers"),
        "401": unknown_key,
        **{
            status: _json(_ref("Error"), text)
            for status, text in (
                ("400", "A parameter that is not passed on, or the upstream refuses the request"),
                ("404", "No such response was made for this key"),
                ("503", "The gateway's store does not answer"),
            )
        },
    }
    paths: dict[str, Any] = {}
    for action, method, summary in (
        ("", "get", "A stored response"),
        ("", "delete", "Delete a stored response"),
        ("/cancel", "post", "Cancel a response"),
        ("/input_items", "get", "The input of a stored response"),
    ):
        about = {"summary": summary, "security": [{"key": []}], "parameters": [id_parameter], "responses": answers}
        paths.setdefault(f"/v1/responses/{{id}}{action}", {})[method] = about
    return paths


_CONTENT = {
    "chat": "messages",
    "messages": "messages",
    "count_tokens": "messages",
    "completions": "prompt",
    "images": "prompt",
    "image_edits": "prompt",
    "rerank": "query",
}
"""Operation -> the field that holds what is asked; of all others it is input."""


def _spending(route: Route) -> dict[str, Any]:
    """A route that is passed on to an upstream; of the provider's fields only those that are metered are described."""
    operation, generates = route.operation, bool(CAPS.get(route.operation))
    file = "image" if operation == "image_edits" else "file"
    content = file if route.form and file == "file" else _CONTENT.get(operation, "input")
    cap = {"chat": "max_completion_tokens", "responses": "max_output_tokens"}.get(operation, "max_tokens")
    message = _object(("role", "content"), False, role={"enum": ["user", "assistant"]}, content=_TEXT)
    said = {"type": "array", "items": message} if content == "messages" else _TEXT
    fields: dict[str, Any] = {"model": _TEXT, content: said}
    if operation == "rerank":
        fields["documents"] = {"type": "array", "items": {"type": ["string", "object"]}, "minItems": 1}
    if route.form:
        fields[file] = {"type": "string", "contentMediaType": "application/octet-stream"}
    if generates:
        fields |= {"stream": {"type": "boolean"}, cap: {"type": "integer", "minimum": 1}}
    if operation in ("chat", "completions"):
        fields["n"] = {"type": "integer", "minimum": 1}
    error = _ref("Error") if route.dialect == "openai" else _ANY
    refusals = {
        "400": "Not bounded, above a cap, or not JSON",
        "401": "The key is missing or not valid",
        "402": "A budget is spent",
        "403": "The key may not call this model",
        "404": "There is no such model",
        "413": "The body is too large",
        "429": "Try again later",
        "502": "No upstream answered",
        "503": "The ledger does not answer",
        "504": "The upstream was too slow",
    }
    labels = [
        {"name": f"x-budgeteer-{label}", "in": "header", "schema": _TEXT}
        for label in ("user", "session", "tag", "stage")
    ]
    streamed: dict[str, Any] = {"text/event-stream": {}} if generates else {}
    answer: dict[str, Any] = {"application/json": {"schema": _ANY}, **streamed}
    if operation == "speech":
        answer = {"audio/*": {}}
    kind = "multipart/form-data" if route.form else "application/json"
    return {
        "summary": f"{operation}, as the provider has it",
        "description": f"Reserved: {route.bounded}. Charged: {route.settled}.",
        "security": [{"key": []}],
        "parameters": labels,
        "requestBody": {
            "required": True,
            "content": {kind: {"schema": _object(("model", content), False, **fields)}},
        },
        "responses": {
            "200": {"description": "The answer", "content": answer},
            **{status: _json(error, text) for status, text in refusals.items()},
        },
    }


def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document, the same for every gateway."""
    bearer = {"type": "http", "scheme": "bearer"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "budgeteer", "version": __version__},
        "paths": _paths(),
        "components": {"schemas": _schemas(), "securitySchemes": {"key": bearer, "admin": bearer}},
    }
