"""A trace of reasoning cut into segments, scored and shortened to a number of tokens: the stages of CoT-X.

Source: CoT-X: An Adaptive Framework for Cross-Model Chain-of-Thought Transfer and Optimization (arXiv 2511.05747); only
its abstract and summaries were to be had, so what each stage computes is chosen here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from budgeteer.allocate import menu_knapsack
from budgeteer.core.plan import F64, Items, Menu
from budgeteer.core.tf_idf import tf_idf
from budgeteer.models.embedder import Embed

Keep = Literal["important", "first", "last"]
_ENDS = re.compile(r"(?<=[.!?;])(?=\s|\S)\s*|\n+")
_WORD = re.compile(r"\d+|[^\W\d]+|[^\w\s]")
_CLAIMS = re.compile(r"\b(?:answer|result)\s*(?:is|:|=)|\\boxed|####", re.IGNORECASE)


def segments(trace: str) -> list[str]:
    """The sentences, clauses and lines of a trace, in order; numbers with a point are not cut.

    >>> segments("3-7=7;7*2=3; so it is 3.5 or so.\\nWait, no.")
    ['3-7=7;', '7*2=3;', 'so it is 3.5 or so.', 'Wait, no.']
    """
    parts, begin = [], 0
    for match in _ENDS.finditer(trace):
        before, behind = trace[match.start() - 1 : match.start()], trace[match.end() : match.end() + 1]
        if before == "." and match.start() == match.end() and behind.isalnum():
            continue
        parts.append(trace[begin : match.end()].strip())
        begin = match.end()
    return [part for part in (*parts, trace[begin:].strip()) if part]


def without_answer(parts: Sequence[str]) -> list[str]:
    """The segments that do not state the answer in so many words: what is handed over is reasoning.

    >>> without_answer(["4-1=3.", "The answer is 3.", r"\\boxed{3}"])
    ['4-1=3.']
    """
    return [part for part in parts if not _CLAIMS.search(part)]


def importance(parts: Sequence[str], question: str, *, damping: float = 0.85, embed: Embed | None = None) -> F64:
    """How much each segment matters: likeness to the question, spread along the likeness of segments (a PageRank).

    Segments are vectors: those of ``embed``, or of words with weights tf * ln(1 + n / df). Their cosines, none below 0
    and made to sum to 1 a segment, carry importance from one to another, and a share of ``1 - damping`` returns to
    segments by their cosine with the question. Sums to 1.

    Args:
        parts: [n] segments.
        question: that they are about.
        damping: share that segments pass on to each other, in [0, 1).
        embed: a sentence encoder; None = words.

    Returns:
        [n] scores > 0.
    """
    n = len(parts)
    if not n:
        return np.zeros(0)
    texts = [*parts, question]
    vectors = tf_idf(texts, n, _WORD) if embed is None else np.asarray(embed(texts), np.float64)
    length = np.linalg.norm(vectors, axis=1)
    vectors = vectors / np.where(length > 0, length, 1.0)[:, None]
    cosine = np.maximum(vectors @ vectors.T, 0.0)
    alike = cosine[:n, :n].copy()
    np.fill_diagonal(alike, 0.0)
    total = alike.sum(axis=1)
    carried = np.where(total[:, None] > 0, alike / np.where(total > 0, total, 1.0)[:, None], 1.0 / n)
    back = cosine[:n, n] + 1e-3
    back /= back.sum()
    score = np.full(n, 1.0 / n)
    for _ in range(100):
        score = (1 - damping) * back + damping * carried.T @ score
    return np.asarray(score / score.sum())


def shortened(
    parts: Sequence[str], scores: F64, cost: Sequence[int], budget: int, keep: Keep = "important"
) -> list[int]:
    """Positions of the segments that are kept, in order, within a budget of tokens.

    ``important``: the most importance in all, a knapsack solved exactly; ``first`` and ``last``: the beginning or the
    end of the trace, the baselines.
    """
    if keep == "important":
        if not len(parts) or budget < 1:
            return []
        menu = Menu.of([[max(1, c)] for c in cost], [[score] for score in scores.tolist()])
        items = Items(tuple(f"{i:06d}" for i in range(len(parts))), menu=menu)
        plan = menu_knapsack(exact=True).allocate(budget, items, (), rng=np.random.default_rng(0))
        return np.flatnonzero(plan.units).tolist()
    order = range(len(parts)) if keep == "first" else range(len(parts) - 1, -1, -1)
    kept, left = [], budget
    for i in order:
        if cost[i] > left:
            break
        kept.append(i)
        left -= cost[i]
    return sorted(kept)


def digest(
    trace: str,
    question: str,
    budget: int,
    count: Callable[[str], int],
    keep: Keep = "important",
    embed: Embed | None = None,
) -> str:
    """A trace within a budget of tokens: segmented, scored, shortened, and put together again in its order.

    Segments that stood side by side keep what stood between them, so a trace that fits comes back as it is, but for
    the segments that state the answer.

    Args:
        trace: reasoning, without its closing tag.
        question: that it is about.
        budget: tokens.
        count: text -> tokens of the model that will read it.
        keep: what is kept.
        embed: a sentence encoder for importance; None = words.
    """
    parts = without_answer(segments(trace))
    glue = "\n" if "\n" in trace else " " if re.search(r"[.!?;]\s", trace) else ""
    cost = [max(1, count(part + glue)) for part in parts]
    scores = importance(parts, question, embed=embed) if keep == "important" else np.zeros(len(parts))
    kept = shortened(parts, scores, cost, budget, keep)
    return glue.join(parts[i] for i in kept)
