"""The table of routes that are passed on: whose API each is of, how it is bounded and how it is settled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the gateway, and of the upstreams.

    Attributes:
        operation: its name in records.
        dialect: of whose API it is: openai or anthropic.
        bounded: what is reserved for a request.
        settled: what is charged for it.
        form: whether its body is a form with files (multipart/form-data) instead of JSON.
    """

    operation: str
    dialect: str
    bounded: str
    settled: str
    form: bool = False


_TEXT = "tokens of the body, and choices times the cap"
_SEEN = "usage of the answer; without one, what was seen"
_SOUND = "seconds of the file, or the tokens that they can be"
_HEARD = "usage of the answer (seconds or tokens), else as reserved"
_DRAWN = "n pictures by the piece, or by the tokens of their size and quality"
_COUNTED = "usage of the answer, or its pictures; else as reserved"
ROUTES: Mapping[str, Route] = {
    "chat/completions": Route("chat", "openai", _TEXT, _SEEN),
    "completions": Route("completions", "openai", _TEXT, _SEEN),
    "responses": Route("responses", "openai", _TEXT, _SEEN),
    "embeddings": Route("embeddings", "openai", "tokens of the body", _SEEN),
    "messages": Route("messages", "anthropic", _TEXT, _SEEN),
    "messages/count_tokens": Route("count_tokens", "anthropic", "free: nothing", "free: nothing"),
    "moderations": Route(
        "moderations",
        "openai",
        "OpenAI's models (omni-moderation, text-moderation) are free; others: tokens of the body",
        "usage of the answer, else as reserved",
    ),
    "rerank": Route(
        "rerank",
        "openai",
        "search units (documents by hundreds, long ones as several), or tokens: the query with each document",
        "meta.billed_units or usage of the answer, else as reserved",
    ),
    "images/generations": Route("images", "openai", _DRAWN, _COUNTED),
    "images/edits": Route("image_edits", "openai", f"{_DRAWN}; and the tokens of the pictures sent", _COUNTED, True),
    "audio/speech": Route("speech", "openai", "characters of the text", "as reserved: the text is all that is billed"),
    "audio/transcriptions": Route("transcriptions", "openai", _SOUND, _HEARD, True),
    "audio/translations": Route("translations", "openai", _SOUND, _HEARD, True),
}
"""Path after /v1/ -> its route."""
_BATCHES = (
    "a batch runs for up to a day after its request has ended, and nothing here holds a reservation for so long; "
    "send its requests one by one"
)
_FLEX = f"{_BATCHES} (service_tier flex has the price of a batch at OpenAI)"
_KEPT = "what a provider stores or trains is billed by the day or by jobs, which no limit here counts"
NOT_SERVED: Mapping[str, str] = {
    "batches": _FLEX,
    "messages/batches": _BATCHES,
    "files": f"send files inside the requests that read them. They are kept for batches, too: {_FLEX}",
    "images/variations": "send the picture to /v1/images/edits instead",
    "realtime": "a session is no single request; use /v1/audio/transcriptions, /v1/audio/speech and /v1/responses",
    "videos": "videos are billed by the second of what is made, which no answer of this API counts",
    "fine_tuning": _KEPT,
    "vector_stores": _KEPT,
    "uploads": _KEPT,
    "assistants": "this API was closed by its provider; use /v1/responses",
    "threads": "this API was closed by its provider; use /v1/responses",
}
"""Beginning of a path after /v1/ -> why it is not served, and what to use instead."""


def why_not(path: str) -> str:
    """Why a path after /v1/ is not served, and what to do; the longest beginning that is known decides."""
    parts = path.split("/")
    for length in range(len(parts), 0, -1):
        if (reason := NOT_SERVED.get("/".join(parts[:length]))) is not None:
            return reason
    return f"nothing here counts what it costs; use one of {', '.join(f'/v1/{route}' for route in ROUTES)}"
