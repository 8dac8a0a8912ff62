"""EpiCache: what a text of yours reads most, such as the turns of one topic.

Paper: "EpiCache: Episodic KV Cache Management for Long Conversational Question Answering".
"""

from __future__ import annotations

from collections.abc import Sequence

from budgeteer.cache.protocol import Score
from budgeteer.cache.score._kvzip import kvzip
from budgeteer.core.errors import InvalidInput


def epi_cache(ids: Sequence[int] = (), sinks: int = 4) -> Score:
    """Keep what any token of a given text reads when it is read behind the prompt.

    Formula: score_i = max over the query heads of the group and over the tokens of the text of a[h, q, i], as ``kvzip``
    has it with the prompt itself as the text. After each prompt or chunk the text is read anew, and what it read before
    does not count, so that earlier chunks compete again.
    Helps when questions keep to a topic that is known beforehand: :mod:`budgeteer.cache.episodes` finds topics in a
    conversation and makes a cache for each. Heads of a layer compete (``split=ada-kv:safe=0``, the default), as in the
    paper. Each call costs a reading of the text. Models with layers that slide are refused.

    Args:
        ids: tokens of the text; none = the prompt itself.
        sinks: entries at the beginning that are always kept, >= 0.
    """
    if not all(type(token) is int and token >= 0 for token in ids):
        raise InvalidInput(f"epi-cache: ids={ids}; give tokens, such as ids=[5,17,3]")
    return kvzip(sinks)._replace(reads=tuple(ids), split="ada-kv:safe=0")
