"""Which function bounds the requests of an operation; the others are bounded by their text and cap (prepare.py)."""

from __future__ import annotations

from collections.abc import Mapping

from budgeteer.gateway.drawing import bound_drawing
from budgeteer.gateway.free import bound_count, bound_moderation
from budgeteer.gateway.hearing import bound_hearing
from budgeteer.gateway.reranking import bound_rerank
from budgeteer.gateway.speech import bound_speech
from budgeteer.gateway.uses import Bounding

BOUNDINGS: Mapping[str, Bounding] = {
    "count_tokens": bound_count,
    "moderations": bound_moderation,
    "rerank": bound_rerank,
    "images": bound_drawing,
    "image_edits": bound_drawing,
    "speech": bound_speech,
    "transcriptions": bound_hearing,
    "translations": bound_hearing,
}
