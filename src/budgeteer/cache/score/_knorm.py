"""Knorm: keys of a small norm.

Paper: "A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression", arXiv 2406.11430.
"""

from __future__ import annotations

from torch import Tensor

from budgeteer.cache.protocol import Cells, Score


def knorm() -> Score:
    """Keep the entries whose keys have the smallest norm.

    Formula: score_i = -||k_i||_2.
    Helps when there are no queries to look at and memory is to be had without any attention; it reads the keys only. Nothing
    is protected.
    """
    return Score(_score)


def _score(cells: Cells, memory: Tensor) -> Tensor:
    return -cells.keys.float().norm(dim=-1)
