"""A memory that is searched with as much effort as its question needs: rules, an encoder or a reranker.

Paper: "Learning Query-Aware Budget-Tier Routing for Runtime Agent Memory" (BudgetMem), arXiv 2602.06025.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from budgeteer.context._bm25 import scores
from budgeteer.context.fill import by_score, similarities
from budgeteer.context.protocol import Encode, Reducer, Rerank
from budgeteer.context.tier_router import TIERS, TierPolicy, load, state_of
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64


def budget_mem(encode: Encode, rerank: Rerank, router: TierPolicy | str = "low") -> Reducer:
    """Keep the best pieces by BM25, by an encoder or by a reranker: which, a router says from question and memory.

    Formula: the router's logits are linear in [q / |q| ; m / |m|], with q the question's vector and m the mean of the
    pieces'; the likeliest tier is taken. It is trained by :func:`budgeteer.context.tier_router.trained` on questions
    whose answers can be scored, for a weight of cost of one's own: the paper's reward is quality plus a share of
    cheapness. Of its five modules only the filter is here, which is tiered by implementation; a memory of several
    modules uses the router by itself.
    Helps when some questions are found by their words and others are not, and the dear tier costs money or time. Does
    not where one tier is best for all: a router cannot beat it, and reads vectors of all pieces to say so.

    Args:
        encode: texts -> vectors; of the middle tier, and of the router's state.
        rerank: (question, texts) -> scores; the high tier.
        router: ``low``, ``mid`` or ``high`` for all, or a trained one.

    >>> from budgeteer.context.encode import cosine, words
    >>> from budgeteer.context.protocol import counter
    >>> talk = [{"role": "user", "content": text} for text in ("The cat sat.", "The dog ran.", "Where is the cat?")]
    >>> find = budget_mem(words, cosine(words), "mid")
    >>> [message["content"] for message in find(talk, 18, counter(lambda text: len(text.split())))]
    ['The cat sat.', 'Where is the cat?']
    """
    if isinstance(router, str) and router not in TIERS:
        raise InvalidInput(f"budget-mem:router={router}; give {', '.join(TIERS)}, or a trained router")

    def tier_of(question: str, texts: list[str]) -> str:
        if isinstance(router, str):
            return router
        vectors = np.asarray(encode([question, *texts]), np.float64)
        return TIERS[int(router.tiers(state_of(vectors[0], vectors[1:])[None, None])[0, 0])]

    def scored(question: str, texts: list[str]) -> F64:
        tier = tier_of(question, texts)
        if tier == "low":
            return scores(question, texts)
        return similarities(encode, question, texts)[0] if tier == "mid" else rerank(question, texts)

    return by_score(scored)


def router_of(method: str, given: str) -> TierPolicy | str:
    """The router of an option: a tier for all, or a file that :func:`budgeteer.context.tier_router.save` wrote.

    Raises:
        CheckpointError: there is no such file, or it holds no router.
    """
    return given if given in TIERS else load(Path(given))
