"""DORA: rollouts in proportion to the score of directions, not of paths, so that near-duplicates share."""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Sequence

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64
from budgeteer.models.embedder import Embed, embedder
from budgeteer.solve import Strategy
from budgeteer.strategies.kit.steps import by_share, softmax, step_search
from budgeteer.strategies.scorer import Scorer, scorer_of


def dora(
    scorer: Scorer | str = "self-evaluation",
    n: int = 16,
    *,
    sharpness: float = 0.1,
    likeness: float = 0.01,
    trust: float | None = None,
    embed: Embed | str | None = None,
    step: str = "\n\n",
    step_tokens: int = 256,
    depth: int = 16,
    temperature: float = 0.8,
) -> Strategy:
    """Search by steps in which path j gets ``n w'_j`` rollouts, ``w'_j ~ w_j u_j``.

    ``w = softmax(R / sharpness)``, with the scores R, is REBASE's share. ``u_j = P_jj`` says how unique the path is,
    with S the cosines of the paths' embeddings and P the row-wise softmax(S / likeness): about 1 / (size of its
    cluster). So a direction gets its share once, however many near-duplicates take it. Rounding is by largest
    remainder.

    With ``trust``, :func:`optimal_copies` spends the shares instead, the exact optimum of the paper's model;
    trust -> 0 gives every path one rollout first, much trust gives all rollouts to the best path.

    When it helps: duplicates carry no information (a model that repeats itself). When not: many samples of a
    direction mean that it is right; then REBASE is better. A process reward model
    (``scorer="process-reward:model=..."``) and an embedding model run beside the budget: their tokens are not charged.

    "Every Rollout Counts: Optimal Resource Allocation for Efficient Test-Time Scaling", arXiv 2506.15707, with
    BGE-M3 and a process reward model of 7B; give those by name, the defaults are free of charge. The official code
    rounds REBASE's shares, drops the zeros and only then corrects; this follows the paper.

    Args:
        scorer: a scorer of partial traces, or its name, such as ``process-reward:model=hf:FOLDER``.
        n: rollouts in each round.
        sharpness: temperature of the softmax of the scores, > 0.
        likeness: temperature of the softmax of the cosines, > 0; 0.01 merges paths whose cosine is above about 0.97.
        trust: None, or kappa > 0 of the paper's success rates Beta(kappa w, kappa (1 - w)).
        embed: a sentence encoder, by folder or name, such as ``BAAI/bge-m3``; in Python also a function texts ->
            vectors; None = hashed character trigrams.
        step, step_tokens, depth, temperature: as in :func:`budgeteer.strategies.kit.steps.step_search`.
    """
    if not (sharpness > 0 and likeness > 0) or not (trust is None or trust > 0):
        raise InvalidInput(f"dora(sharpness={sharpness}, likeness={likeness}, trust={trust}); all are > 0")
    vectors = trigrams if embed is None else embedder(embed) if isinstance(embed, str) else embed

    def copies(scores: F64, texts: Sequence[str], n: int) -> I64:
        share = softmax(scores, sharpness) * uniqueness(vectors(texts), likeness)
        share /= share.sum()
        return by_share(share, n) if trust is None else optimal_copies(share, n, trust)

    return step_search(
        copies, scorer_of(scorer), n, step=step, step_tokens=step_tokens, depth=depth, temperature=temperature
    )


def uniqueness(vectors: F64, likeness: float) -> F64:
    """How unique each of k vectors [k, d] is: [k], the diagonal of the row-wise softmax(cosines / likeness).

    >>> uniqueness(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), 0.01).round(3)
    array([0.5, 0.5, 1. ])
    """
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(length > 0, length, 1.0)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, 1.0)
    return np.asarray(1.0 / np.exp((cosine - 1.0) / likeness).sum(1))


def optimal_copies(weights: F64, n: int, trust: float) -> I64:
    """Rollouts B [k], n in sum, with the smallest probability that all fail.

    It is ``prod_i prod_{r < B_i} (1 - trust w_i / (trust + r))`` for the weights w [k].


    Direction i succeeds with a rate drawn from Beta(trust w_i, trust (1 - w_i)). The logarithm is separable and each
    rollout's gain falls, so the optimum is greedy: the next rollout to the largest ``w_i / (trust + B_i)``; ties to
    the first. Between the limits of ``trust``, ``B_i ~ (n + k trust) w_i - trust``.

    >>> optimal_copies(np.array([0.5, 0.3, 0.2]), 10, 1e-9), optimal_copies(np.array([0.5, 0.3, 0.2]), 10, 1e9)
    (array([5, 3, 2]), array([10,  0,  0]))
    """
    units = np.zeros(len(weights), np.int64)
    heap = [(-weight / trust, i) for i, weight in enumerate(weights.tolist())]
    heapq.heapify(heap)
    for _ in range(n):
        i = heap[0][1]
        units[i] += 1
        heapq.heapreplace(heap, (-float(weights[i]) / (trust + int(units[i])), i))
    return units


def trigrams(texts: Sequence[str], size: int = 512) -> F64:
    """Counts [k, size] of the texts' character trigrams, hashed; the same on every machine."""
    counts = np.zeros((len(texts), size))
    for row, text in zip(counts, texts, strict=True):
        padded = f"  {text} "
        for i in range(len(padded) - 2):
            row[zlib.crc32(padded[i : i + 3].encode()) % size] += 1
    return counts
