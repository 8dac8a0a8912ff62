"""Names of the OpenTelemetry GenAI conventions (all of status "development"), and our own, which begin with
``budgeteer.``.

If the conventions changed a name, and programs read the old and the new one, both are here. The exception are
``gen_ai.usage.prompt_tokens`` and ``completion_tokens``: programs that read them add them to the new ones.
"""

from __future__ import annotations

OPERATION = "gen_ai.operation.name"
PROVIDER = ("gen_ai.provider.name", "gen_ai.system")
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
REQUEST_CHOICES = "gen_ai.request.choice.count"
TOKEN_TYPE = "gen_ai.token.type"
ERROR_TYPE = "error.type"
STATUS = "http.response.status_code"

USAGE: dict[str, tuple[str, ...]] = {
    "input": ("gen_ai.usage.input_tokens",),
    "output": ("gen_ai.usage.output_tokens",),
    "cached": ("gen_ai.usage.cache_read.input_tokens",),
    "written": ("gen_ai.usage.cache_write.input_tokens", "gen_ai.usage.cache_creation.input_tokens"),
    "reasoning": ("gen_ai.usage.reasoning.output_tokens",),
}
"""Bucket of a Usage -> span attributes; input includes cached and written, output includes reasoning."""

TOKEN_USAGE = "gen_ai.client.token.usage"
TOKEN_BUCKETS = [4.0**n for n in range(14)]
DURATION = "gen_ai.client.operation.duration"
DURATION_BUCKETS = [0.01 * 2**n for n in range(14)]
COUNTERS: dict[str, str] = {
    "input": "gen_ai.client.inference.usage.input_tokens",
    "output": "gen_ai.client.inference.usage.output_tokens",
    "cached": "gen_ai.client.inference.usage.cache_read.input_tokens",
    "written": "gen_ai.client.inference.usage.cache_write.input_tokens",
    "reasoning": "gen_ai.client.inference.usage.reasoning.output_tokens",
}
"""Bucket -> counter of billable tokens."""

OPERATIONS = {
    "completions": "text_completion", "embeddings": "embeddings",
    **{name: name for name in ("count_tokens", "moderations", "rerank", "images", "image_edits", "speech",
                               "transcriptions", "translations")},
}  # fmt: skip
"""Ours -> the conventions', which have no names for those that make no text; all others are ``chat``."""

OUTCOME = "budgeteer.outcome"
ESTIMATED = "budgeteer.estimated"
ATTEMPT = "budgeteer.attempt"
KIND = "budgeteer.kind"
RESERVED = "budgeteer.reserved"
SETTLED = "budgeteer.settled"
OVERSHOOT = "budgeteer.overshoot"
"""The last three: counters of units by ``budgeteer.kind``, and span attributes with the kind appended."""
