"""EpiCache: a conversation's topics, and a small cache of the whole conversation for each of them.

Paper: "EpiCache: Episodic KV Cache Management for Long Conversational Question Answering".
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from budgeteer.cache.budgeted_cache import BudgetedCache
from budgeteer.cache.score import epi_cache
from budgeteer.cache.selecting import Selection, selection
from budgeteer.core.budget import Budget
from budgeteer.core.errors import InvalidInput
from budgeteer.models.inside import argument_of

F64 = NDArray[np.float64]
_STARTS, _STEPS = 10, 100


class Episodes(NamedTuple):
    """Topics of a conversation.

    Attributes:
        centres: [topics, d], of unit length or shorter: means of the windows' vectors.
        texts: of each topic the windows that its cache was chosen by, in the order of the conversation.
        caches: one for each topic.
    """

    centres: F64
    texts: tuple[tuple[int, ...], ...]
    caches: tuple[BudgetedCache, ...]

    def of(self, vector: Any) -> int:
        """The topic whose centre is most like the vector [d] of a question, by cosine.

        Raises:
            InvalidInput: it is not finite, or has another length than the vectors of the windows.
        """
        asked, centres = np.asarray(vector, np.float64), self.centres
        if asked.shape != centres.shape[1:] or not np.isfinite(asked).all():
            raise InvalidInput(
                f"give a finite vector of {centres.shape[1]} numbers, of the encoder that the windows have; it has the "
                f"shape {asked.shape}"
            )
        return int(np.argmax(centres @ asked / np.maximum(np.linalg.norm(centres, axis=1), 1e-12)))

    def cache(self, vector: Any) -> BudgetedCache:
        """A copy of the cache for a question, to be read behind the conversation."""
        return copy.deepcopy(self.caches[self.of(vector)])


def episodes(
    model: Any,
    windows: Sequence[Sequence[int]],
    vectors: Any,
    budget: Budget | str,
    *,
    topics: int = 4,
    medoids: int = 4,
    chunk: int = 2048,
    split: str = "ada-kv:safe=0",
    seed: int = 0,
) -> Episodes:
    """Read a conversation once for each of its topics, in chunks, and keep each time what that topic reads most.

    Windows of the conversation are clustered by k-means of their unit vectors. The ``medoids`` windows next to a centre
    are the text of ``epi-cache``: after each chunk of the conversation they are read behind it, and entries compete for
    the budget, those of earlier chunks again. So no more than the budget and one chunk is ever held. It costs
    ``topics`` readings of the conversation, and a wrong topic cannot be told from a right one. All layers have the same
    budget, unless the split says more: the paper's is ``profile:compete=true,sizes=FILE``, with the file of ``budgeteer
    cache train epi-cache``.

    Args:
        model: a decoder of transformers without sliding layers.
        windows: tokens of a few turns each, in order; together they are the conversation.
        vectors: [windows, d] of an encoder of texts, such as :func:`budgeteer.models.embedder.embedder`.
        budget: of each cache.
        topics: clusters, >= 1; no more than there are windows.
        medoids: windows of a topic's text, >= 1.
        chunk: tokens that are read at a time, >= 1.
        split: of the budget over layers and heads.
        seed: of k-means.

    Raises:
        InvalidInput: no windows, an empty one, vectors of another number or not finite, or numbers out of range.
    """
    found = np.asarray(vectors, np.float64)
    if not windows or not all(windows) or found.ndim != 2 or len(found) != len(windows):
        raise InvalidInput(f"give windows of tokens and a vector for each; {len(windows)} windows, {found.shape}")
    if not np.isfinite(found).all():
        raise InvalidInput("the vectors of the windows are not finite; give those of an encoder that is whole")
    if min(topics, medoids, chunk) < 1 or topics > len(windows):
        raise InvalidInput(
            f"topics={topics}, medoids={medoids}, chunk={chunk} of {len(windows)} windows; give numbers >= 1, and no "
            "more topics than windows"
        )
    unit = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    labels, centres = clusters(unit, topics, seed)
    whole = torch.tensor([[token for window in windows for token in window]], device=next(model.parameters()).device)
    texts, caches = [], []
    for topic in range(topics):
        likeness = np.where(labels == topic, unit @ centres[topic], -np.inf)
        near = sorted(np.argsort(-likeness, kind="stable")[: min(medoids, int((labels == topic).sum()))])
        texts.append(tuple(token for i in near for token in windows[i]))
        caches.append(BudgetedCache(model, budget, _reading(texts[-1], split)))
        with torch.no_grad():
            for start in range(0, whole.shape[1], chunk):
                given = {argument_of(model): caches[-1], "logits_to_keep": 1}
                model(input_ids=whole[:, start : start + chunk], **given)
    return Episodes(centres, tuple(texts), tuple(caches))


def _reading(text: tuple[int, ...], split: str) -> Selection:
    """``epi-cache`` with a text, whose name does not list its tokens."""
    plain = selection(f"epi-cache:split={json.dumps(split)}")
    return plain._replace(score=epi_cache(text))


def clusters(unit: F64, count: int, seed: int = 0) -> tuple[NDArray[np.int64], F64]:
    """k-means (Lloyd's steps from ten starts, the least sum of squares wins).

    Args:
        unit: [n, d], n >= ``count``.
        count: clusters, >= 1; none is empty while there are as many different rows.
        seed: of the starts.

    Returns:
        The cluster of each row, [n], and the mean of each cluster, [count, d].
    """
    rng, best = np.random.default_rng(seed), (np.inf, np.zeros(len(unit), np.int64), unit[:count])
    for _ in range(_STARTS):
        centres = unit[_apart(unit, count, rng)]
        labels = np.full(len(unit), -1)
        for _ in range(_STEPS):
            before, labels = labels, _squares(unit, centres).argmin(1)
            if np.array_equal(before, labels):
                break
            centres = np.stack([unit[labels == i].mean(0) if (labels == i).any() else centres[i] for i in range(count)])
        total = float(_squares(unit, centres).min(1).sum())
        if total < best[0]:
            best = (total, labels.astype(np.int64), centres)
    return best[1], best[2]


def _apart(unit: F64, count: int, rng: np.random.Generator) -> list[int]:
    """Rows to begin with, each drawn by its squared distance to those before (k-means++)."""
    rows = [int(rng.integers(len(unit)))]
    while len(rows) < count:
        far = _squares(unit, unit[rows]).min(1)
        total = far.sum()
        rows.append(int(rng.choice(len(unit), p=far / total if total > 0 else None)))
    return rows


def _squares(unit: F64, centres: F64) -> F64:
    """[n, centres] squared distances."""
    found: F64 = ((unit[:, None] - centres[None]) ** 2).sum(-1)
    return found
